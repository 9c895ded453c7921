//! `approvers_url`: whoever the team's schedule says is on call may decide, and is mentioned.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::kit::{MAYA, OMAR, Workspace, slack};
use crate::common::{SOON, alert, eventually};

/// A schedule that answers with whatever it is told to.
struct Schedule {
    answer: Arc<Mutex<(u16, String)>>,
    /// How often it was asked.
    asked: Arc<AtomicUsize>,
    url: String,
}

impl Schedule {
    async fn start(answer: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/on-call?key=hidden-key", listener.local_addr()?);
        let answer = Arc::new(Mutex::new((200, answer.to_owned())));
        let current = Arc::clone(&answer);
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0; 4_096];
                let read = stream.read(&mut head).await.unwrap_or_default();
                let (mut status, mut body) = current.lock().unwrap_or_else(PoisonError::into_inner).clone();
                if !head[..read].starts_with(b"GET /on-call?key=hidden-key ") {
                    (status, body) = (404, String::new());
                }
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
                let _ = stream.write_all(answer.as_bytes()).await;
                count.fetch_add(1, SeqCst);
            }
        });
        Ok(Self { answer, asked, url })
    }

    fn answers(&self, status: u16, body: &str) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = (status, body.to_owned());
    }
}

async fn on_call(workspace: &Workspace) -> Option<Vec<String>> {
    workspace.receiver.app.engine.store.group("schedule:on-call").await.ok().flatten()
}

#[tokio::test]
async fn who_is_on_call_now_may_decide_and_is_mentioned() -> Result<()> {
    let schedule = Schedule::start(r#"["U2"]"#).await?;
    let more = [("DECIDERS__ON_CALL__APPROVERS", ""), ("DECIDERS__ON_CALL__APPROVERS_URL", &schedule.url)];
    let workspace = Workspace::with(slack()?, &more).await?;
    eventually("the schedule is read", SOON, async || on_call(&workspace).await.map(drop)).await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    assert!(root.visible_text().contains("<@U2>") || format!("{root:?}").contains("<@U2>"), "{root:?}");
    workspace.click(MAYA, &root, "approve").await?;
    workspace.told(MAYA).await?;
    workspace.serves("v2").await?;
    workspace.click(OMAR, &root, "approve").await?;
    workspace.serves("v1").await
}

#[tokio::test]
async fn a_replica_that_cannot_read_the_schedule_leaves_it_to_the_others() -> Result<()> {
    let (broken, schedule) = (Schedule::start("[]").await?, Schedule::start(r#"["U1"]"#).await?);
    broken.answers(500, "");
    let with = |url| [("DECIDERS__ON_CALL__APPROVERS", ""), ("DECIDERS__ON_CALL__APPROVERS_URL", url)];
    let workspace = Workspace::with(slack()?, &with(&broken.url)).await?;
    eventually("the broken one is asked", SOON, async || (broken.asked.load(SeqCst) > 0).then_some(())).await?;
    let replica = workspace.replica(&with(&schedule.url)).await?;
    eventually("the schedule is read", SOON, async || on_call(&workspace).await.map(drop)).await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    workspace.click(MAYA, &root, "approve").await?;
    workspace.serves("v1").await?;
    replica.app.shutdown().await;
    Ok(())
}

/// A schedule without a valid answer leaves nobody on call, and the log hides the query of its URL.
#[tokio::test]
async fn without_an_answer_of_the_schedule_nobody_of_it_may_decide() -> Result<()> {
    for (status, answer) in [(500, r#"["U1"]"#), (200, r#"{"users": ["U1"]}"#), (200, r#"["maya"]"#), (302, "")] {
        let schedule = Schedule::start("[]").await?;
        schedule.answers(status, answer);
        let more = [("DECIDERS__ON_CALL__APPROVERS", "U2"), ("DECIDERS__ON_CALL__APPROVERS_URL", &schedule.url)];
        let workspace = Workspace::with(slack()?, &more).await?;
        let root = workspace.thread(alert("p", "v2", "high")).await?;
        workspace.click(MAYA, &root, "approve").await?;
        workspace.told(MAYA).await?;
        workspace.serves("v2").await?;
        assert_eq!(on_call(&workspace).await, None, "{status} {answer}");
        workspace.click(OMAR, &root, "approve").await?;
        workspace.serves("v1").await?;
    }
    Ok(())
}
