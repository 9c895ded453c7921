//! `import`: sends requests until the receiver has seen all keys, and sums up.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::client::{ApiClient, ClientError};
use super::table::{Cell, clean, table};
use crate::api::ImportResponse;
use crate::visible::shown_name;

/// Merges the responses of all pages. A scan may return a key twice: the first response about it counts.
pub async fn import(client: &ApiClient, mut body: Value) -> Result<Value, ClientError> {
    let (mut adopted, mut skipped) = (BTreeMap::new(), BTreeMap::new());
    let (mut known, mut dry_run) = (0, false);
    loop {
        let mut answer = client.post("/api/import", &body).await?;
        // another server's answer: whoever shows it says what is missing
        if !answer["adopted"].is_array() {
            return Ok(answer);
        }
        let mut take = |list: &str, name: &str, into: &mut BTreeMap<String, Value>| {
            if let Value::Array(items) = answer[list].take() {
                for item in items {
                    into.entry(item[name].as_str().unwrap_or_default().to_owned()).or_insert(item);
                }
            }
        };
        take("adopted", "prompt", &mut adopted);
        take("skipped", "key", &mut skipped);
        known += answer["known"].as_u64().unwrap_or(0);
        dry_run |= answer["dry_run"] == true;
        let next = answer["next"].take();
        // a cursor that does not move would cause an endless loop
        if next.is_null() || next == body["cursor"] {
            let (adopted, skipped): (Vec<_>, Vec<_>) =
                (adopted.into_values().collect(), skipped.into_values().collect());
            return Ok(json!({ "dry_run": dry_run, "adopted": adopted, "known": known, "skipped": skipped }));
        }
        body["cursor"] = next;
    }
}

pub fn text(imported: &ImportResponse, color: bool) -> String {
    let mut out = String::new();
    if !imported.adopted.is_empty() {
        let rows: Vec<_> = imported
            .adopted
            .iter()
            .map(|a| {
                let good = if a.known_good { "known-good" } else { "soaks" };
                [Cell::new(&shown_name(&a.prompt)), Cell::new(&a.version), Cell::new(good)]
            })
            .collect();
        out.push_str(&table(["PROMPT", "VERSION", "TRUST"], &rows, color));
        out.push('\n');
    }
    for skipped in &imported.skipped {
        out.push_str(&format!("skipped {}: {}\n", clean(&skipped.key), clean(&skipped.reason)));
    }
    let verb = if imported.dry_run { "would be imported" } else { "imported" };
    let (adopted, skipped) = (imported.adopted.len(), imported.skipped.len());
    out.push_str(&format!("{adopted} {verb}, {} already known, {skipped} skipped\n", imported.known));
    out
}
