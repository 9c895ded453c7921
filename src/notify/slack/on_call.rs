//! Who is on call now, as the team's own schedule says: `deciders.NAME.approvers_url`.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, StatusCode, Uri};

use super::SlackNotifier;
use crate::config::Decider;
use crate::http_client::{Outgoing, server_and_path};
use crate::service::clicks::schedule;
use crate::store::StoreError;

/// For one request.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer: each id takes some 15 bytes.
const MAX_ANSWER: usize = 16 << 10;
/// Most people of one schedule.
const MAX_PEOPLE: usize = 100;
/// How often each schedule is read.
pub(super) const EVERY: Duration = Duration::from_secs(30);
/// How long an answer counts: longer than one failed attempt. Afterwards only `approvers` may decide.
const KNOWN: Duration = Duration::from_secs(90);

/// The schedule of a decider.
#[derive(Debug)]
pub struct Schedule {
    decider: String,
    http: Outgoing,
    /// With its query, which may hold a secret.
    path: Uri,
}

impl Schedule {
    /// `None`: the decider has no schedule. Requires a validated config.
    pub fn of(name: &str, decider: &Decider) -> Result<Option<Self>, String> {
        let Some(url) = &decider.approvers_url else { return Ok(None) };
        let (server, path) = server_and_path(url)?;
        let http = Outgoing::new(server, TIMEOUT).map_err(|error| error.to_string())?;
        Ok(Some(Self { decider: name.to_owned(), http, path }))
    }

    /// The ids of those on call, or why they are unknown, without the path and query of the URL.
    pub async fn read(&self) -> Result<Vec<String>, String> {
        let mut request = Request::new(Full::new(Bytes::new()));
        (*request.method_mut(), *request.uri_mut()) = (Method::GET, self.path.clone());
        let (status, body) = self.http.send(request, MAX_ANSWER).await.map_err(|error| error.to_string())?;
        if status != StatusCode::OK {
            return Err(format!("{} answered {status}, expected 200", self.http.base()));
        }
        people(&body).ok_or_else(|| {
            format!(
                "expected a JSON list of at most {MAX_PEOPLE} Slack user ids from {}, such as [\"U012AB3CD\"]",
                self.http.base()
            )
        })
    }
}

fn people(body: &[u8]) -> Option<Vec<String>> {
    let people: Vec<String> = serde_json::from_slice(body).ok()?;
    let is_id = |id: &String| {
        id.starts_with(['U', 'W']) && (2..=32).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    (people.len() <= MAX_PEOPLE && people.iter().all(is_id)).then_some(people)
}

impl SlackNotifier {
    /// Reads all schedules, so that a click need not wait for them.
    pub(super) async fn refresh_schedules(&self) {
        futures_util::future::join_all(self.schedules.iter().map(|schedule| async {
            // the health check reports Redis; without a newer answer, only `approvers` may decide
            let _ = self.refresh_schedule(schedule).await;
        }))
        .await;
    }

    async fn refresh_schedule(&self, of: &Schedule) -> Result<(), StoreError> {
        let (store, key) = (&self.engine.store, schedule(&of.decider));
        let once = format!("group:{key}");
        if !store.claim_once(&once, EVERY / 2).await? {
            return Ok(()); // another replica has just done it
        }
        match of.read().await {
            Ok(people) => store.set_group(&key, &people, KNOWN).await,
            Err(error) => {
                let decider = &of.decider;
                tracing::warn!(
                    decider,
                    error,
                    "cannot read who is on call: the last answer counts for 90 s, then only approvers may decide"
                );
                store.release_once(&once).await // another replica may reach it
            }
        }
    }

    /// Whom a question to this decider mentions: as configured, and who is on call now.
    pub(super) async fn mention(&self, name: &str) -> Result<Option<String>, StoreError> {
        let Some(decider) = self.deciders.get(name) else { return Ok(None) };
        let mut mention = decider.mention.clone().unwrap_or_default();
        if decider.approvers_url.is_some() {
            let people = self.engine.store.group(&schedule(name)).await?.unwrap_or_default();
            for person in people.iter().filter(|person| !person.is_empty()) {
                let person = format!("<@{person}>");
                if !mention.contains(&person) && mention.len() + 1 + person.len() <= Decider::MAX_MENTION {
                    mention = if mention.is_empty() { person } else { format!("{mention} {person}") };
                }
            }
        }
        Ok((!mention.is_empty()).then_some(mention))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_a_list_of_slack_users() {
        assert_eq!(people(br#"["U012AB3CD", "W9"]"#), Some(vec!["U012AB3CD".to_owned(), "W9".to_owned()]));
        assert_eq!(people(b"[]"), Some(vec![]), "nobody is on call");
        for wrong in [
            "",
            "{}",
            "null",
            r#""U1""#,
            r#"["S012AB3CD"]"#,
            r#"["maya"]"#,
            r#"["U1", 2]"#,
            r#"["U1> <!channel"]"#,
            r#"["U"]"#,
        ] {
            assert_eq!(people(wrong.as_bytes()), None, "{wrong}");
        }
        let many = serde_json::to_vec(&vec!["U1"; MAX_PEOPLE + 1]).unwrap();
        assert_eq!(people(&many), None);
    }
}
