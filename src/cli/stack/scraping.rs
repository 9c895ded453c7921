//! `check --prometheus-config`: whether someone's own Prometheus measures prompts as the rules need it, loads the rules,
//! and sends their alerts on unharmed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::alerts::{OurAlert, Sent};
use super::faults::Faults;
use crate::alertmanager::matchers::LabelSet;
use crate::alertmanager::payload::DRILL_LABEL;
use crate::cli::check::Probe;
use crate::config::{Config, format_prometheus_duration as written, read_file};
use crate::prometheus::config::{CONVERTS_BUCKETS, KEEPS_BUCKETS, PrometheusFile, ScrapeJob};
use crate::re2;
use crate::rules::{self, files::RuleGroup};
use crate::store::Level;
use crate::yaml::YamlError;

/// The rules over the last minute need four scrapes in it.
const LONGEST_INTERVAL: Duration = Duration::from_secs(15);
/// The check for hiccups needs two scrapes in 15 s.
const FAST_INTERVAL: Duration = Duration::from_secs(7);
/// A metric of each source.
const MEASURED: [&str; 2] = ["prompt_requests_total", "gen_ai_client_operation_duration_seconds_count"];
/// A histogram of each source, and the labels by which its rules read it.
const HISTOGRAMS: [(&str, &str, &[&str]); 2] = [
    ("prompt_requests_total", "prompt_request_duration_seconds_bucket", &["prompt", "version", "outcome"]),
    (
        "gen_ai_client_operation_duration_seconds_count",
        "gen_ai_client_operation_duration_seconds_bucket",
        &["gen_ai_prompt_name", "gen_ai_prompt_version", "error_type"],
    ),
];
/// Labels of an alert, besides its name, its prompt and its version, that the receiver reads.
const READ: [&str; 4] = ["action", "decider", "severity", "time_limit"];
/// The job of the receivers in the rules.
const RECEIVERS: &str = "prompt-rollback";
/// Longest list of files that a glob may match.
const MAX_FILES: usize = 10_000;

/// A file of Prometheus, and what it loads.
pub struct ScrapingReport {
    pub file: PrometheusFile,
    /// Of its rule files.
    pub groups: Vec<RuleGroup>,
    pub probes: Vec<Probe>,
}

/// Reads a file of Prometheus. `jobs`: which of its jobs scrape prompt servers, if it was said. `labels`: those that all
/// alerts have.
pub fn review(
    path: &Path,
    text: &str,
    config: &Config,
    jobs: &[String],
    labels: &[(String, String)],
) -> Result<ScrapingReport, YamlError> {
    let mut file = PrometheusFile::parse(text)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut probes = Vec::new();
    for found in files(folder, &file.scrape_config_files) {
        match read(&found, |text| file.more_jobs(text)) {
            Ok(more) => file.jobs.extend(more),
            Err(error) => probes.push(Probe::new("prometheus scrape_config_files", false, error)),
        }
    }
    let mut groups = Vec::new();
    for found in files(folder, &file.rule_files) {
        match read(&found, rules::files::groups) {
            Ok(more) => groups.extend(more),
            Err(error) => probes.push(Probe::new("prometheus rule_files", false, error)),
        }
    }
    let elsewhere = file.rule_files.iter().find(|glob| !fixed_folder(folder, glob).is_dir());
    if let Some(glob) = elsewhere {
        let text = format!("{glob} is not on this machine: the rules in it and their labels were not checked");
        probes.push(Faults::from([(Level::Warning, text)]).probe("prometheus rule_files".to_owned(), String::new()));
        let shipped = rules::files::SHIPPED.into_iter().flat_map(|(name, _)| rules::files::shipped(name));
        let missing: Vec<RuleGroup> =
            shipped.filter(|one| !groups.iter().any(|group| group.name == one.name)).collect();
        groups.extend(missing);
    }
    probes.extend(judge(&file, &groups, elsewhere.is_none(), config, jobs, labels));
    Ok(ScrapingReport { file, groups, probes })
}

/// What the file says, with the groups of its rule files. Pure. Unless `all_read`, some of its rule files are on another
/// machine, and `groups` are those that should be in them.
pub fn judge(
    file: &PrometheusFile,
    groups: &[RuleGroup],
    all_read: bool,
    config: &Config,
    jobs: &[String],
    labels: &[(String, String)],
) -> Vec<Probe> {
    let mut probes = scraped(file, groups, config, jobs);
    if all_read {
        probes.extend(rule_files(groups));
    }
    probes.push(evaluation(file, groups));
    probes.push(alerting(file, config, &Sent { prometheus: None, groups, labels }));
    probes
}

fn read<T>(path: &Path, parse: impl FnOnce(&str) -> Result<T, YamlError>) -> Result<T, String> {
    let bytes = read_file(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let text = String::from_utf8(bytes).map_err(|_| format!("{}: expected UTF-8", path.display()))?;
    parse(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// The jobs that scrape prompt servers, and that of the receivers.
fn scraped(file: &PrometheusFile, groups: &[RuleGroup], config: &Config, named: &[String]) -> Vec<Probe> {
    let is_named = |job: &&ScrapeJob| match named {
        [] => {
            let selects = job.selects_metrics() && MEASURED.iter().any(|metric| job.keeps(metric));
            !scrapes_receivers(job) && (selects || job.name.contains("prompt") && !job.selects_metrics())
        }
        names => names.contains(&job.name),
    };
    let servers: Vec<&ScrapeJob> = file.jobs.iter().filter(is_named).collect();
    let mut probes: Vec<Probe> = servers.iter().map(|job| scrape(job, groups, config, &MEASURED)).collect();
    for name in named.iter().filter(|name| !file.jobs.iter().any(|job| job.name == **name)) {
        probes.push(Probe::new(format!("prometheus job {name}"), false, "scrape_configs has no job of this name"));
    }
    if servers.is_empty() && named.is_empty() {
        let text = "no job looks like that of prompt servers: name it with --prompt-job";
        probes.push(Probe::new("prometheus prompt servers", false, text));
    }
    probes.push(match file.jobs.iter().find(|job| scrapes_receivers(job)) {
        Some(job) => scrape(job, groups, config, &["prompt_rollback_active_version_info"]),
        None => {
            let text = format!(
                "expected a job {RECEIVERS} for the receivers: the rules read which versions are active from it"
            );
            Probe::new(format!("prometheus job {RECEIVERS}"), false, text)
        }
    });
    probes
}

/// Whether it is the job of the receivers, also as the Prometheus operator names it: `serviceMonitor/NAMESPACE/NAME/0`.
fn scrapes_receivers(job: &ScrapeJob) -> bool {
    let by_operator = |parts: &[&str]| matches!(parts, ["serviceMonitor" | "podMonitor", _, RECEIVERS, _]);
    job.name == RECEIVERS || by_operator(&job.name.split('/').collect::<Vec<_>>())
}

fn scrape(job: &ScrapeJob, groups: &[RuleGroup], config: &Config, metrics: &[&str]) -> Probe {
    let mut faults = Faults::default();
    let interval = written(job.interval);
    if job.interval > LONGEST_INTERVAL {
        let why = "the rules over one minute need four scrapes in it";
        faults.setting(Level::Problem, "scrape_interval", &interval, "at most 15s", why);
    } else if job.interval >= FAST_INTERVAL {
        let why = "with two scrapes in 15s, the rules tell a hiccup of the provider from a bad version";
        faults.setting(Level::Warning, "scrape_interval", &interval, "5s", why);
    }
    if !job.honor_labels {
        let names = [config.labels.prompt.as_str(), config.labels.version.as_str()];
        let hidden: Vec<&str> = names.into_iter().filter(|name| job.may_label_targets(name)).collect();
        let (level, targets) = match hidden.as_slice() {
            [] => (Level::Warning, "if a target had a label version".to_owned()),
            hidden => (Level::Problem, format!("its targets can have a label {}", hidden.join(" and "))),
        };
        let why = format!("{targets}, it would rename the label of the metric");
        faults.setting(level, "honor_labels", "false", "true", &why);
    }
    if !metrics.iter().any(|metric| job.keeps(metric)) {
        faults.add(Level::Problem, format!("metric_relabel_configs drop {}", metrics.join(" and ")));
    }
    if scrapes_receivers(job) {
        // the Prometheus operator sets the label to the name of the Service
        if job.name == RECEIVERS && job.renames_job() {
            let text = format!("relabeling changes the label job: the rules read the metrics with job=\"{RECEIVERS}\"");
            faults.add(Level::Warning, text);
        }
        changed(job, metrics[0], &["prompt", "version"], &mut faults);
    } else {
        if job.loses_buckets {
            let (expected, why) = (format!("false, or {KEEPS_BUCKETS}: true"), "otherwise no latency is measured");
            faults.setting(Level::Warning, CONVERTS_BUCKETS, "true", &expected, why);
        }
        for (metric, bucket, labels) in HISTOGRAMS.iter().filter(|(metric, ..)| job.keeps(metric)) {
            if !changed(job, metric, labels, &mut faults) && !job.keeps(bucket) && !has_native_histograms(groups) {
                let text = format!("metric_relabel_configs drop {bucket}: no latency is measured");
                faults.add(Level::Warning, text);
            }
        }
    }
    faults.probe(format!("prometheus job {}", job.name), format!("every {interval} (line {})", job.line))
}

/// Whether labels of a metric get lost, and says so.
fn changed(job: &ScrapeJob, metric: &str, labels: &[&str], faults: &mut Faults) -> bool {
    let changed = job.changed_labels(metric, labels);
    if !changed.is_empty() {
        let text = format!("metric_relabel_configs change the label {} of {metric}", changed.join(" and "));
        faults.add(Level::Problem, text);
    }
    !changed.is_empty()
}

/// Native histograms have no buckets as series of their own.
fn has_native_histograms(groups: &[RuleGroup]) -> bool {
    let files = ["native-histograms.yml", "otel-native-histograms.yml"];
    let mut names = files.into_iter().flat_map(rules::files::shipped).map(|group| group.name);
    names.any(|name| groups.iter().any(|group| group.name == name))
}

/// Which of the shipped files are loaded, by the names of their groups.
fn rule_files(groups: &[RuleGroup]) -> Vec<Probe> {
    let missing = |file: &str| -> Vec<String> {
        let names = rules::files::shipped(file).into_iter().map(|group| group.name);
        names.filter(|name| !groups.iter().any(|group| group.name == *name)).collect()
    };
    let sources = ["native.yml", "native-histograms.yml", "otel.yml", "otel-native-histograms.yml"];
    let sources: Vec<&str> = sources.into_iter().filter(|file| missing(file).is_empty()).collect();
    let counts_requests = sources.iter().any(|file| *file != "native-histograms.yml");
    let loaded = match sources.as_slice() {
        _ if !counts_requests => "rule_files loads neither native.yml nor otel.yml of alert-rules/".to_owned(),
        loaded => format!("{} is loaded", loaded.join(" and ")),
    };
    let mut probes = vec![Probe::new("prometheus rules of the source", counts_requests, loaded)];
    for file in ["baselines.yml", "alerts.yml", "heartbeat.yml", "self.yml"] {
        let missing = missing(file);
        let mut faults = Faults::default();
        if !missing.is_empty() {
            let level = if file == "self.yml" { Level::Warning } else { Level::Problem };
            faults.add(level, format!("rule_files loads no file with the group {}", missing.join(", ")));
        }
        probes.push(faults.probe(format!("prometheus rules {file}"), format!("alert-rules/{file}")));
    }
    probes
}

/// How often the rules without an interval of their own are evaluated.
fn evaluation(file: &PrometheusFile, groups: &[RuleGroup]) -> Probe {
    let of_group = |group: &&RuleGroup| group.interval.unwrap_or(file.evaluation_interval);
    // the baselines are slow by design
    let ours = |group: &&RuleGroup| group.name.starts_with("prompt_rollback_") && !group.name.ends_with("_baselines");
    let slowest = groups.iter().filter(ours).max_by_key(of_group);
    let interval = written(slowest.as_ref().map_or(file.evaluation_interval, of_group));
    let mut faults = Faults::default();
    if slowest.as_ref().map_or(file.evaluation_interval, of_group) > LONGEST_INTERVAL {
        let name = slowest.map_or("every group", |group| group.name.as_str());
        let why = format!("the alerts of {name} wait for it");
        faults.setting(Level::Problem, "evaluation_interval", &interval, "at most 15s, better 5s", &why);
    }
    let (expected, why) = ("at most 15s, better none", "every alert fires that much later");
    if file.rule_query_offset > LONGEST_INTERVAL {
        let found = written(file.rule_query_offset);
        faults.setting(Level::Problem, "global.rule_query_offset", found, expected, why);
    }
    for group in groups.iter().filter(ours) {
        if let Some(offset) = group.query_offset.filter(|offset| *offset > LONGEST_INTERVAL) {
            let setting = format!("query_offset of the group {}", group.name);
            faults.setting(Level::Problem, &setting, written(offset), expected, why);
        }
    }
    faults.probe("prometheus evaluation_interval".to_owned(), interval)
}

/// What happens to the alerts of the rules on their way; the receiver posts its own to Alertmanager directly.
fn alerting(file: &PrometheusFile, config: &Config, before: &Sent<'_>) -> Probe {
    let mut faults = Faults::default();
    if file.alertmanagers.is_empty() {
        let why = "no alert is sent";
        faults.setting(Level::Problem, "alerting.alertmanagers", "none", "each Alertmanager", why);
    }
    let alerts = OurAlert::of_rules(config, before);
    // every alert of ours carries these labels, whatever its own
    let added = file.sent(LabelSet::from([("alertname".to_owned(), String::new())])).unwrap_or_default();
    for (name, _) in &file.external_labels {
        let key = format!("global.external_labels.{name}");
        let names = [config.labels.prompt.as_str(), config.labels.version.as_str(), DRILL_LABEL];
        if names.contains(&name.as_str()) {
            faults.add(Level::Problem, format!("{key}: expected another name: every alert without this label gets it"));
        } else if READ.contains(&name.as_str()) {
            let text = format!("{key}: expected another name: alerts of your own rules without this label get it");
            faults.add(Level::Warning, text);
        } else if name.contains("replica") && added.contains_key(name) {
            let why = "Alertmanager treats alerts that differ in this label as two alerts";
            faults.add(Level::Warning, format!("{key}: expected alert_relabel_configs to drop it: {why}"));
        }
        let ours = config.alertmanager.labels.get(name);
        if ours.is_some_and(|ours| added.get(name).is_some_and(|added| added != ours)) {
            let text = format!("{key}: differs from alertmanager.labels.{name} of the receiver");
            faults.add(Level::Warning, text);
        }
    }
    let sent = |alert: &OurAlert| file.sent(alert.labels.clone());
    if let Some(text) = changed_alert(config, &alerts, sent) {
        faults.add(Level::Problem, format!("alert_relabel_configs {text}"));
    }
    // another Alertmanager may be for others
    for entry in file.alertmanagers.iter().skip(1) {
        let sent = |alert: &OurAlert| file.sent_to(entry, alert.labels.clone());
        if let Some(text) = changed_alert(config, &alerts, sent) {
            faults.add(Level::Warning, format!("for {}, alert_relabel_configs {text}", entry.path));
        }
    }
    let detail = "start it with --rules.alert.resend-delay=5s and --rules.alert.for-grace-period=10s";
    faults.probe("prometheus alerting".to_owned(), detail.to_owned())
}

/// What relabeling does to the first alert that it harms: most often it harms the others in the same way.
fn changed_alert(config: &Config, alerts: &[OurAlert], sent: impl Fn(&OurAlert) -> Option<LabelSet>) -> Option<String> {
    alerts.iter().find_map(|alert| match sent(alert) {
        None => Some(format!("drop {}", alert.name)),
        Some(sent) => {
            let label = changed_label(config, &alert.labels, &sent)?;
            Some(format!("change the label {label} of {}", alert.name))
        }
    })
}

/// A label whose meaning for the receiver has changed. A severity may become another word for it.
fn changed_label<'a>(config: &Config, labels: &'a LabelSet, sent: &LabelSet) -> Option<&'a String> {
    let policy = config.policy();
    let severity = |labels: &LabelSet| labels.get("severity").and_then(|word| policy.severity(word));
    let of_prompt = [&config.labels.prompt, &config.labels.version];
    let same = |name: &String| match name.as_str() {
        // a word of someone's own rules may get its meaning only here
        "severity" => severity(labels).is_none() || severity(labels) == severity(sent),
        word if word == "alertname" || READ.contains(&word) || of_prompt.contains(&name) => {
            labels.get(name) == sent.get(name)
        }
        _ => true,
    };
    labels.keys().find(|name| !same(name))
}

/// The folder that a glob begins with.
fn fixed_folder(folder: &Path, glob: &str) -> PathBuf {
    let path = folder.join(glob);
    let is_fixed =
        |part: &std::path::Component<'_>| part.as_os_str().to_str().is_some_and(|text| !text.contains(['*', '?', '[']));
    let parent = path.parent().unwrap_or(Path::new(""));
    let fixed: PathBuf = parent.components().take_while(is_fixed).collect();
    if fixed.as_os_str().is_empty() { PathBuf::from(".") } else { fixed }
}

/// The files that globs match, as Go's `filepath.Glob` does.
fn files(folder: &Path, globs: &[String]) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = globs.iter().flat_map(|glob| matching(folder, glob)).collect();
    found.sort();
    found.dedup();
    found.truncate(MAX_FILES);
    found
}

fn matching(folder: &Path, glob: &str) -> Vec<PathBuf> {
    let mut paths = vec![folder.to_owned()];
    for part in Path::new(glob).components() {
        let part = part.as_os_str();
        let Some(text) = part.to_str().filter(|text| text.contains(['*', '?', '['])) else {
            paths.iter_mut().for_each(|path| path.push(part));
            continue;
        };
        let Some(regex) = part_regex(text) else { return Vec::new() };
        let entries = paths
            .iter()
            .filter_map(|path| fs::read_dir(if path.as_os_str().is_empty() { Path::new(".") } else { path }).ok());
        let names = entries.flat_map(|entries| entries.flatten().take(MAX_FILES));
        let fits = names.filter(|entry| entry.file_name().to_str().is_some_and(|name| regex.is_match(name)));
        paths = fits.map(|entry| entry.path()).collect();
    }
    paths.retain(|path| path.is_file());
    paths
}

/// A part of a glob as an expression.
fn part_regex(glob: &str) -> Option<regex::Regex> {
    let mut expression = String::new();
    let mut chars = glob.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' => expression.push_str("(?s:.*)"),
            '?' => expression.push_str("(?s:.)"),
            '\\' => expression.push_str(&regex::escape(&chars.next()?.to_string())),
            '[' => {
                expression.push('[');
                for c in chars.by_ref() {
                    expression.push(c);
                    if c == ']' {
                        break;
                    }
                }
            }
            c => expression.push_str(&regex::escape(&c.to_string())),
        }
    }
    re2::anchored(&expression).ok()
}

#[cfg(test)]
mod tests;
