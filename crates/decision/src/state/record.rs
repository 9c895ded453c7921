//! The parts of a prompt's record that differ from the types in memory.

use serde::{Deserialize, Serialize};

use super::{Archived, Mark, Quarantine, Return, VersionRecord};
use crate::alert::AlertRecord;
use crate::labels::GroupLabels;
use crate::names::VersionName;
use crate::severity::{Action, Severity};
use crate::soak::{Fled, KnownGood, Soak, SoakWatch};
use crate::time::Timestamp;
use crate::trigger::Trigger;
use crate::verification::Evidence;

/// A version, for reading. With serde's `flatten`, which is used for writing, fields of a later receiver would be lost.
#[derive(Deserialize)]
pub(super) struct StoredVersion {
    version: VersionName,
    known_since: Timestamp,
    #[serde(default)]
    registered: bool,
    first_active: Option<Timestamp>,
    shipped_again: Option<Timestamp>,
    last_active: Option<Timestamp>,
    traffic_since: Option<Timestamp>,
    #[serde(default)]
    returns: Vec<Return>,
    soak_from: Option<Timestamp>,
    soak_watch: Option<SoakWatch>,
    known_good: Option<KnownGood>,
    fled: Option<Fled>,
    quarantine: Option<Quarantine>,
    mark: Option<Mark>,
    contact: Option<String>,
    staged_at: Option<Timestamp>,
    #[serde(default)]
    has_content: bool,
    evidence: Option<Evidence>,
    evidence_asked: Option<Timestamp>,
    archived: Option<Archived>,
    restored_at: Option<Timestamp>,
}

/// An older receiver writes when a soak began, and keeps an outdated record of how it was watched.
impl From<StoredVersion> for VersionRecord {
    fn from(record: StoredVersion) -> Self {
        Self {
            version: record.version,
            known_since: record.known_since,
            registered: record.registered,
            first_active: record.first_active,
            shipped_again: record.shipped_again,
            last_active: record.last_active,
            traffic_since: record.traffic_since,
            returns: record.returns,
            soak: record.soak_from.map(|from| Soak { from, watch: record.soak_watch }),
            known_good: record.known_good,
            // an older receiver may have trusted it since
            fled: record.fled.filter(|_| record.known_good.is_none()),
            quarantine: record.quarantine,
            mark: record.mark,
            contact: record.contact,
            staged_at: record.staged_at,
            has_content: record.has_content,
            evidence: record.evidence,
            evidence_asked: record.evidence_asked,
            archived: record.archived,
            restored_at: record.restored_at,
        }
    }
}

/// Beside the alert, the fields that the previous release reads.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredInactiveAlert {
    version: VersionName,
    fingerprint: String,
    alertname: String,
    severity: Severity,
    last_seen: Timestamp,
    alert: Option<AlertRecord>,
}

impl From<super::InactiveAlert> for StoredInactiveAlert {
    fn from(super::InactiveAlert { version, alert }: super::InactiveAlert) -> Self {
        let (fingerprint, alertname) = (alert.fingerprint.clone(), alert.alertname.clone());
        Self {
            version,
            fingerprint,
            alertname,
            severity: alert.severity,
            last_seen: alert.last_seen,
            alert: Some(alert),
        }
    }
}

impl From<StoredInactiveAlert> for super::InactiveAlert {
    fn from(record: StoredInactiveAlert) -> Self {
        let StoredInactiveAlert { version, fingerprint, alertname, severity, last_seen, alert } = record;
        // the previous release stored no action: ask people, whichever decider applies
        let action = Action::Page;
        let alert = alert.unwrap_or_else(|| AlertRecord {
            fingerprint,
            alertname,
            severity,
            action,
            decider: Trigger::SYSTEM.to_owned(),
            time_limit: action.default_time_limit(),
            firing: true,
            starts_at: None,
            first_seen: last_seen,
            last_seen,
            listed: false,
            absent_since: None,
            summary: String::new(),
            description: String::new(),
            value: String::new(),
            verify: String::new(),
            runbook_url: String::new(),
            measure: Default::default(),
            dashboard_url: String::new(),
            generator_url: String::new(),
            alertmanager_url: String::new(),
            group_labels: GroupLabels::default(),
        });
        Self { version, alert: AlertRecord { last_seen, ..alert } }
    }
}
