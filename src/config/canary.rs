//! `[canary]`, and the tables of prompts below it.

use std::collections::BTreeMap;

use super::key::unquote;
use super::reader::ConfigReader;
use super::validate::HOLD;
use super::value::Setting;
use super::words::Analysis;
use crate::decision::{CanaryPolicies, CanaryPolicy, Plan, PromptName};

/// Reads `[canary]`, and `[canary.prompts.NAME]`, whose missing keys default to `[canary]`.
pub(super) fn read_canary(r: &mut ConfigReader<'_>) -> CanaryPolicies {
    let names = r.names("canary.prompts", &[]);
    r.values.set("canary.prompts", &names);
    let usual = read_canary_policy(r, "canary", &CanaryPolicy::default());
    let mut prompts = BTreeMap::new();
    for name in names {
        let section = format!("canary.prompts.{name}");
        let policy = read_canary_policy(r, &section, &usual);
        match PromptName::written(&unquote(&name)) {
            Ok(prompt) => {
                if prompts.insert(prompt, policy).is_some() {
                    r.problem(&section, "is another spelling of a prompt that has a table already".to_owned());
                }
            }
            Err(error) => r.problem(&section, error.to_string()),
        }
    }
    CanaryPolicies { usual, prompts }
}

fn read_canary_policy(r: &mut ConfigReader<'_>, section: &str, usual: &CanaryPolicy) -> CanaryPolicy {
    let key = |key: &str| format!("{section}.{key}");
    let stages: Vec<u8> = r.get(&key("stages"), &usual.plan.stages.to_text());
    let hold = r.get(&key("hold"), &usual.plan.holds[0].to_text());
    let analysis = if usual.analysis { Analysis::On } else { Analysis::Off };
    let policy = CanaryPolicy {
        analysis: r.get::<Analysis>(&key("analysis"), &analysis.to_text()) == Analysis::On,
        hold_limit: r.get(&key("hold_limit"), &usual.hold_limit.to_text()),
        margin: r.get(&key("margin"), &usual.margin.to_text()),
        query: r.get(&key("query"), usual.query.as_deref().unwrap_or_default()),
        plan: Plan { stages, holds: vec![hold], limit: None },
    };
    let fine = Plan::canary(&policy.plan.stages, vec![Plan::MAX_HOLD]).is_ok();
    r.check(&key("stages"), fine, "rising percentages above 0 that end with 100, at most 20 of them");
    r.check(&key("hold"), Plan::may_hold(hold), HOLD);
    r.check(&key("hold_limit"), Plan::may_hold(policy.hold_limit), HOLD);
    r.check(&key("margin"), (1..=50).contains(&policy.margin), "from 1 to 50 percentage points");
    policy
}
