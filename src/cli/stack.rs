//! `check --alertmanager-config` and `--prometheus-config`: whether the stack that someone has already carries our alerts.

use std::path::Path;

use serde_json::{Value, json};

use super::check::Probe;
use crate::config::{Config, read_file};
use crate::prometheus::config::PrometheusFile;

mod alerts;
mod edits;
mod faults;
mod inhibition;
mod lines;
mod routing;
mod scraping;
mod webhooks;

use alerts::Sent;
pub(super) use lines::whole;
use routing::RoutingReport;

/// The files to look at.
#[derive(Debug, Default)]
pub struct StackFiles<'a> {
    pub alertmanager: Option<&'a Path>,
    pub prometheus: Option<&'a Path>,
    /// Labels that all alerts have, as the Prometheus operator adds them.
    pub alert_labels: &'a [(String, String)],
    /// Where Alertmanager reaches the receiver.
    pub receiver_url: Option<&'a str>,
    /// Jobs that scrape prompt servers; empty: those that look like it.
    pub prompt_jobs: &'a [String],
}

/// The findings about the Alertmanager and Prometheus files.
#[derive(Debug, Default)]
pub struct StackReport {
    pub probes: Vec<Probe>,
    /// The results about Alertmanager's file only, except for its probes, which are in `probes`.
    routing: RoutingReport,
}

/// Reads the files. An error names the file, the line and the field.
pub fn review(files: &StackFiles<'_>, config: &Config) -> Result<StackReport, String> {
    let mut report = StackReport::default();
    let read = |path: &Path| {
        let bytes = read_file(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        String::from_utf8(bytes).map_err(|_| format!("{}: expected UTF-8", path.display()))
    };
    let mut prometheus = None;
    if let Some(path) = files.prometheus {
        let reviewed = scraping::review(path, &read(path)?, config, files.prompt_jobs, files.alert_labels);
        let reviewed = reviewed.map_err(|error| format!("{}: {error}", path.display()))?;
        report.probes.extend(reviewed.probes);
        prometheus = Some((reviewed.file, reviewed.groups));
    }
    if let Some(path) = files.alertmanager {
        let (file, groups) = prometheus.as_ref().map_or((None, &[][..]), |(file, groups)| (Some(file), groups));
        let sent = Sent { prometheus: file, groups, labels: files.alert_labels };
        let routing = routing::review(path, &read(path)?, config, &sent, files.receiver_url);
        let mut routing = routing.map_err(|error| format!("{}: {error}", path.display()))?;
        report.probes.extend(std::mem::take(&mut routing.probes));
        report.routing = routing;
    }
    Ok(report)
}

impl StackReport {
    /// The text below the table of the probes.
    pub fn text(&self) -> String {
        let RoutingReport { patch, remaining, by_hand, .. } = &self.routing;
        let mut out = String::new();
        if !patch.is_empty() {
            out.push_str("\nThese lines (+) are missing. `patch` adds them: it skips the text above.");
            if !remaining.is_empty() {
                out.push_str(&format!(" They do not fix {}.", remaining.join(", ")));
            }
            out.push_str(&format!("\n\n{patch}"));
        }
        for change in by_hand {
            out.push_str(&format!("\n{change}\n"));
        }
        out
    }

    /// For scripts, in addition to the probes.
    pub fn json(&self) -> Value {
        let RoutingReport { alerts, patch, remaining, by_hand, .. } = &self.routing;
        json!({ "alerts": alerts, "patch": patch, "remaining": remaining, "by_hand": by_hand })
    }
}

/// Reads bytes as both files, for tests with bytes from anywhere. Returns the patch.
pub fn review_bytes(bytes: &[u8], config: &Config) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let nowhere = Path::new("/nonexistent/file.yml");
    let prometheus = PrometheusFile::parse(text).ok();
    let _ = prometheus.as_ref().map(|file| scraping::judge(file, &[], true, config, &[], &[]));
    let sent = Sent { prometheus: prometheus.as_ref(), ..Sent::default() };
    Some(routing::review(nowhere, text, config, &sent, None).ok()?.patch)
}
