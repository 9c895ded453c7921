//! The versions of the demo's prompt, and how they are shipped.

use crate::stack::{PROMPT, Stack};
use anyhow::{Result, ensure};
use serde_json::{Value, json};

/// A version, with the content that the post-mortem compares.
pub struct DemoVersion {
    pub name: &'static str,
    text: &'static str,
    contact: &'static str,
}

/// The healthy, known-good version.
pub const GOOD: DemoVersion = DemoVersion {
    name: "v1.9.0",
    text: "You answer customers of a web shop.\nBe brief and friendly.\nLook an order up before you say where it is.\n",
    contact: "Maya Lind",
};

/// The version that fails a fraction of its requests.
pub const BAD: DemoVersion = DemoVersion {
    name: "v2.0.0",
    text: "You answer customers of a web shop.\nAnswer with JSON that fits the schema.\n\
           Look an order up before you say where it is.\n",
    contact: "Omar Haddad",
};

/// The version whose answers are bad.
pub const DULL: DemoVersion = DemoVersion {
    name: "v2.1.0",
    text: "You answer customers of a web shop.\nBe brief and friendly.\n",
    contact: "Petra Novak",
};

impl DemoVersion {
    /// Registers it, as known-good or not.
    pub async fn register(&self, stack: &Stack, known_good: bool) -> Result<()> {
        let Self { name, text, contact } = self;
        let body = json!({ "version": name, "content": text, "contact": contact, "known_good": known_good });
        call(stack, "versions", body).await
    }

    pub async fn activate(&self, stack: &Stack) -> Result<()> {
        call(stack, "activate", json!({ "version": self.name, "operator": "demo" })).await
    }

    /// Registers and activates it, after telling the servers how its model behaves.
    pub async fn ship(&self, stack: &Stack, mut behaviour: Value) -> Result<()> {
        behaviour["version"] = self.name.into();
        for server in &stack.servers {
            let answer = server.http().post_json("/misbehave", &behaviour).await?;
            ensure!(answer.status == 200, "{}: {}", server.name, answer.text());
        }
        self.register(stack, false).await?;
        self.activate(stack).await
    }
}

async fn call(stack: &Stack, action: &str, body: Value) -> Result<()> {
    let path = format!("/api/prompts/{PROMPT}/{action}");
    stack.api(&path, Some(&body)).await.map(drop)
}
