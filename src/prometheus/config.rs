//! Someone's own `prometheus.yml`: what it scrapes and how often, and what its alerts carry when they leave. Pure.
//!
//! Reads only what decides about the rules of this repository; `promtool check config` checks the rest.

use std::time::Duration;

use regex::Regex;

use crate::alertmanager::matchers::LabelSet;
use crate::config::parse_prometheus_duration;
use crate::re2;
use crate::yaml::{Yaml, YamlError, YamlNode};

const MINUTE: Duration = Duration::from_secs(60);
pub const CONVERTS_BUCKETS: &str = "convert_classic_histograms_to_nhcb";
pub const KEEPS_BUCKETS: &str = "always_scrape_classic_histograms";
/// Stands for a value that only service discovery knows.
const DISCOVERED_VALUE: &str = "x";

/// A file of Prometheus.
#[derive(Debug)]
pub struct PrometheusFile {
    pub evaluation_interval: Duration,
    pub external_labels: Vec<(String, String)>,
    /// Globs, as written.
    pub rule_files: Vec<String>,
    /// Globs of files with more jobs, as written.
    pub scrape_config_files: Vec<String>,
    pub jobs: Vec<ScrapeJob>,
    /// How far in the past rules read; zero: they read the newest samples.
    pub rule_query_offset: Duration,
    pub alertmanagers: Vec<AlertmanagerEntry>,
    alert_relabeling: Vec<Relabel>,
    scrapes: ScrapeDefaults,
}

/// The values of `global` for jobs that do not set their own.
#[derive(Debug, Clone, Copy)]
struct ScrapeDefaults {
    interval: Duration,
    converts_buckets: bool,
    keeps_buckets: bool,
}

/// An entry of `alerting.alertmanagers`.
#[derive(Debug)]
pub struct AlertmanagerEntry {
    /// Such as `alerting.alertmanagers[0]`.
    pub path: String,
    relabeling: Vec<Relabel>,
}

#[derive(Debug)]
pub struct ScrapeJob {
    pub name: String,
    pub line: usize,
    pub interval: Duration,
    pub honor_labels: bool,
    /// It stores classic histograms as native ones with custom buckets only, which the rules do not read.
    pub loses_buckets: bool,
    /// Labels of its targets, as far as the file shows them.
    static_labels: LabelSet,
    relabeling: Vec<Relabel>,
    metric_relabeling: Vec<Relabel>,
}

#[derive(Debug)]
struct Relabel {
    source_labels: Vec<String>,
    separator: String,
    regex: Regex,
    target_label: String,
    replacement: String,
    action: RelabelAction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RelabelAction {
    Replace,
    Keep,
    Drop,
    KeepEqual,
    DropEqual,
    LabelMap,
    LabelDrop,
    LabelKeep,
    Lowercase,
    Uppercase,
    /// The result is not known here.
    HashMod,
}

impl PrometheusFile {
    pub fn parse(text: &str) -> Result<Self, YamlError> {
        let yaml = Yaml::parse(text)?;
        let file = YamlNode::root(&yaml);
        let global = file.get("global")?;
        let interval = |key| Ok(global.as_ref().map(|it| duration(it, key)).transpose()?.flatten().unwrap_or(MINUTE));
        let flag = |key| Ok(global.as_ref().map(|it| it.flag(key)).transpose()?.flatten().unwrap_or_default());
        let scrapes = ScrapeDefaults {
            interval: interval("scrape_interval")?,
            converts_buckets: flag(CONVERTS_BUCKETS)?,
            keeps_buckets: flag(KEEPS_BUCKETS)?,
        };
        let alerting = file.get("alerting")?;
        let alerting = alerting.as_ref();
        let mut parsed = Self {
            evaluation_interval: interval("evaluation_interval")?,
            external_labels: global.as_ref().map(|it| it.table("external_labels")).transpose()?.unwrap_or_default(),
            rule_files: file.texts("rule_files")?,
            scrape_config_files: file.texts("scrape_config_files")?,
            jobs: Vec::new(),
            rule_query_offset: global
                .as_ref()
                .map(|it| duration(it, "rule_query_offset"))
                .transpose()?
                .flatten()
                .unwrap_or_default(),
            alertmanagers: alerting
                .map(|it| it.list("alertmanagers"))
                .transpose()?
                .unwrap_or_default()
                .iter()
                .map(AlertmanagerEntry::read)
                .collect::<Result<_, _>>()?,
            alert_relabeling: alerting
                .map(|it| relabeling(it, "alert_relabel_configs"))
                .transpose()?
                .unwrap_or_default(),
            scrapes,
        };
        parsed.jobs = parsed.jobs_of(&file)?;
        Ok(parsed)
    }

    /// The jobs of a file of `scrape_config_files`.
    pub fn more_jobs(&self, text: &str) -> Result<Vec<ScrapeJob>, YamlError> {
        self.jobs_of(&YamlNode::root(&Yaml::parse(text)?))
    }

    fn jobs_of(&self, file: &YamlNode<'_>) -> Result<Vec<ScrapeJob>, YamlError> {
        file.list("scrape_configs")?.iter().map(|job| ScrapeJob::read(job, self.scrapes)).collect()
    }

    /// The labels that an alert carries when it leaves for the first Alertmanager that gets it; `None`: it is dropped.
    pub fn sent(&self, labels: LabelSet) -> Option<LabelSet> {
        let mut entries = self.alertmanagers.iter();
        match entries.len() {
            0 => self.relabeled(labels),
            _ => entries.find_map(|entry| self.sent_to(entry, labels.clone())),
        }
    }

    /// The labels with which it gets to one of the Alertmanagers.
    pub fn sent_to(&self, entry: &AlertmanagerEntry, labels: LabelSet) -> Option<LabelSet> {
        relabel(&entry.relabeling, self.relabeled(labels)?)
    }

    fn relabeled(&self, mut labels: LabelSet) -> Option<LabelSet> {
        for (name, value) in &self.external_labels {
            labels.entry(name.clone()).or_insert_with(|| value.clone());
        }
        relabel(&self.alert_relabeling, labels)
    }
}

impl AlertmanagerEntry {
    fn read(node: &YamlNode<'_>) -> Result<Self, YamlError> {
        Ok(Self { path: node.path.clone(), relabeling: relabeling(node, "alert_relabel_configs")? })
    }
}

impl ScrapeJob {
    fn read(node: &YamlNode<'_>, global: ScrapeDefaults) -> Result<Self, YamlError> {
        let mut static_labels = LabelSet::new();
        for group in node.list("static_configs")? {
            static_labels.extend(group.table("labels")?);
        }
        let converts = node.flag(CONVERTS_BUCKETS)?.unwrap_or(global.converts_buckets);
        let keeps = node.flag(KEEPS_BUCKETS)?.unwrap_or(global.keeps_buckets);
        Ok(Self {
            name: node.text_of("job_name")?.ok_or_else(|| node.error("expected the key job_name"))?,
            line: node.line(),
            interval: duration(node, "scrape_interval")?.unwrap_or(global.interval),
            honor_labels: node.flag("honor_labels")?.unwrap_or_default(),
            loses_buckets: converts && !keeps,
            static_labels,
            relabeling: relabeling(node, "relabel_configs")?,
            metric_relabeling: relabeling(node, "metric_relabel_configs")?,
        })
    }

    /// Whether its targets may have a label of this name. Service discovery knows labels that are not in the file: a
    /// `labelmap` may take over one of this name.
    pub fn may_label_targets(&self, name: &str) -> bool {
        const DISCOVERED: [&str; 5] = [
            "__meta_kubernetes_pod_label_",
            "__meta_kubernetes_service_label_",
            "__meta_consul_service_metadata_",
            "__meta_docker_container_label_",
            "__meta_ec2_tag_",
        ];
        let mut labels = self.static_labels.clone();
        labels.extend(DISCOVERED.map(|prefix| (format!("{prefix}{name}"), DISCOVERED_VALUE.to_owned())));
        for rule in &self.relabeling {
            rule.apply_to_target(&mut labels);
        }
        labels.get(name).is_some_and(|value| !value.is_empty())
    }

    /// Whether its `metric_relabel_configs` keep a metric, by its name.
    pub fn keeps(&self, metric: &str) -> bool {
        let mut by_name = self.metric_relabeling.iter().filter(|rule| rule.is_by_name());
        let mut labels = LabelSet::from([("__name__".to_owned(), metric.to_owned())]);
        by_name.all(|rule| rule.apply(&mut labels))
    }

    /// Which of these labels of a metric `metric_relabel_configs` change or remove. Whether they keep the sample does not
    /// matter: they may be meant for other prompts.
    pub fn changed_labels(&self, metric: &str, names: &[&str]) -> Vec<String> {
        // what targets have most often
        let of_target = ["app", "container", "endpoint", "instance", "job", "namespace", "node", "pod", "service"];
        let pair = |name: &&str| ((*name).to_owned(), format!("a-{name}"));
        let before: LabelSet = names.iter().chain(&of_target).map(pair).collect();
        let mut labels = before.clone();
        labels.insert("__name__".to_owned(), metric.to_owned());
        for rule in &self.metric_relabeling {
            // a label that the metric has under another name
            let renames = rule.action == RelabelAction::Replace
                && !rule.source_labels.is_empty()
                && !rule.source_labels.iter().any(|name| labels.contains_key(name));
            if !renames {
                let _ = rule.apply(&mut labels);
            }
        }
        let is_changed = |name: &&&str| labels.get(**name) != before.get(**name);
        names.iter().filter(is_changed).map(|name| (*name).to_owned()).collect()
    }

    /// Whether its samples have another label `job` than its name.
    pub fn renames_job(&self) -> bool {
        let mut labels = LabelSet::from([("job".to_owned(), self.name.clone())]);
        labels.extend(self.static_labels.clone());
        for rule in &self.relabeling {
            rule.apply_to_target(&mut labels);
        }
        for rule in &self.metric_relabeling {
            let _ = rule.apply(&mut labels);
        }
        labels.get("job") != Some(&self.name)
    }

    /// Whether it has a rule to keep only some metrics.
    pub fn selects_metrics(&self) -> bool {
        self.metric_relabeling.iter().any(|rule| rule.is_by_name() && rule.action == RelabelAction::Keep)
    }
}

impl Relabel {
    fn read(node: &YamlNode<'_>) -> Result<Self, YamlError> {
        let action = node.read("action", "an action of Prometheus, such as keep or replace", |text| {
            Some(match text.to_lowercase().as_str() {
                "replace" => RelabelAction::Replace,
                "keep" => RelabelAction::Keep,
                "drop" => RelabelAction::Drop,
                "keepequal" => RelabelAction::KeepEqual,
                "dropequal" => RelabelAction::DropEqual,
                "labelmap" => RelabelAction::LabelMap,
                "labeldrop" => RelabelAction::LabelDrop,
                "labelkeep" => RelabelAction::LabelKeep,
                "lowercase" => RelabelAction::Lowercase,
                "uppercase" => RelabelAction::Uppercase,
                "hashmod" => RelabelAction::HashMod,
                _ => return None,
            })
        })?;
        let regex = match node.get("regex")? {
            None => re2::anchored("(.*)").map_err(|error| node.error(&error))?,
            Some(regex) => re2::anchored(regex.text()?).map_err(|error| regex.error(&error))?,
        };
        Ok(Self {
            source_labels: node.texts("source_labels")?,
            separator: node.text_of("separator")?.unwrap_or(";".to_owned()),
            regex,
            target_label: node.text_of("target_label")?.unwrap_or_default(),
            replacement: node.text_of("replacement")?.unwrap_or("$1".to_owned()),
            action: action.unwrap_or(RelabelAction::Replace),
        })
    }

    fn is_by_name(&self) -> bool {
        self.source_labels == ["__name__"] && matches!(self.action, RelabelAction::Keep | RelabelAction::Drop)
    }

    /// Applies it to the labels of a target, of which service discovery adds more than the file shows.
    fn apply_to_target(&self, labels: &mut LabelSet) {
        let discovered =
            |name: &String| labels.get(name).map_or(name.starts_with("__meta_"), |value| value == DISCOVERED_VALUE);
        let sets = match self.action {
            RelabelAction::Replace => !self.replacement.is_empty(),
            action => matches!(action, RelabelAction::Lowercase | RelabelAction::Uppercase),
        };
        if sets && self.source_labels.iter().any(discovered) {
            labels.insert(self.target_label.clone(), DISCOVERED_VALUE.to_owned());
        } else {
            // whether a target is kept does not matter
            let _ = self.apply(labels);
        }
    }

    /// Whether the labels are kept.
    fn apply(&self, labels: &mut LabelSet) -> bool {
        let value = |name: &String| labels.get(name).map_or("", String::as_str);
        let source = self.source_labels.iter().map(value).collect::<Vec<_>>().join(&self.separator);
        let equal = value(&self.target_label) == source;
        let expanded = |text: &str, of: &str| {
            let mut expanded = String::new();
            let captures = self.regex.captures(of)?;
            captures.expand(text, &mut expanded);
            Some(expanded)
        };
        let mut set = |name: String, value: String| {
            if value.is_empty() {
                labels.remove(&name)
            } else {
                labels.insert(name, value)
            };
        };
        match self.action {
            RelabelAction::Keep => return self.regex.is_match(&source),
            RelabelAction::Drop => return !self.regex.is_match(&source),
            RelabelAction::KeepEqual => return equal,
            RelabelAction::DropEqual => return !equal,
            RelabelAction::Replace => {
                let name = expanded(&self.target_label, &source);
                if let Some((name, value)) = name.zip(expanded(&self.replacement, &source)) {
                    set(name, value);
                }
            }
            RelabelAction::Lowercase => set(self.target_label.clone(), source.to_lowercase()),
            RelabelAction::Uppercase => set(self.target_label.clone(), source.to_uppercase()),
            RelabelAction::HashMod => set(self.target_label.clone(), "0".to_owned()),
            RelabelAction::LabelDrop => labels.retain(|name, _| !self.regex.is_match(name)),
            RelabelAction::LabelKeep => labels.retain(|name, _| self.regex.is_match(name)),
            RelabelAction::LabelMap => {
                let mapped =
                    |(name, value): (&String, &String)| Some((expanded(&self.replacement, name)?, value.clone()));
                let mapped: Vec<_> = labels.iter().filter_map(mapped).collect();
                labels.extend(mapped);
            }
        }
        true
    }
}

fn relabeling(node: &YamlNode<'_>, key: &str) -> Result<Vec<Relabel>, YamlError> {
    node.list(key)?.iter().map(Relabel::read).collect()
}

fn relabel(rules: &[Relabel], mut labels: LabelSet) -> Option<LabelSet> {
    rules.iter().all(|rule| rule.apply(&mut labels)).then_some(labels)
}

fn duration(node: &YamlNode<'_>, key: &str) -> Result<Option<Duration>, YamlError> {
    node.read(key, "a duration such as 5s", |text| parse_prometheus_duration(text).ok())
}

#[cfg(test)]
mod tests;
