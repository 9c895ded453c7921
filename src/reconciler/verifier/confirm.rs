//! Confirms that a version fails before it is rolled back, and that its target would be better.

use futures_util::future::{OptionFuture, join, join_all, join3};

use super::Verifier;
use crate::decision::finding::{Finding, Verdict};
use crate::decision::{Confirmed, Incident, PromptName, SwitchMode, Timestamp, VersionName};
use crate::prometheus::client::{Prometheus, QueryResult, Series};
use crate::prometheus::question::{self, Verify};

impl Verifier {
    /// Whether the version still fails, and whether its target would be better. People wait for this, so it takes no
    /// slots and sends all queries at once.
    pub(super) async fn confirm(&self, incident: &Incident, now: Timestamp) -> Option<Confirmed> {
        let pending = incident.pending()?;
        if pending.skip_confirmation {
            let finding = Finding::new(Verdict::NoData, "Prometheus is not queried");
            return Some(Confirmed {
                incident: incident.id.clone(),
                at: pending.at,
                finding,
                blame: None,
                precheck: None,
            });
        }
        let precheck = self.precheck.as_ref().filter(|_| pending.by != SwitchMode::Auto);
        let precheck = OptionFuture::from(precheck.map(|b| b.test(&incident.prompt, &pending.to)));
        let asked = OptionFuture::from(self.prometheus.as_ref().map(|p| self.confirm_with(p, incident, now)));
        let (precheck, asked) = join(precheck, asked).await;
        let (finding, blame) =
            asked.flatten().unwrap_or_else(|| (Finding::new(Verdict::NoData, "prometheus.url is not set"), None));
        let precheck = precheck.and_then(Result::err);
        Some(Confirmed { incident: incident.id.clone(), at: pending.at, finding, blame, precheck })
    }

    async fn confirm_with(
        &self,
        prometheus: &Prometheus,
        incident: &Incident,
        now: Timestamp,
    ) -> Option<(Finding, Option<String>)> {
        let pending = incident.pending()?;
        let automatic = pending.by == SwitchMode::Auto;
        let ratios = question::ratios(&self.labels, [&incident.prompt]);
        let all_prompts = OptionFuture::from(automatic.then(|| self.all_prompts(prometheus, [&incident.prompt])));
        let (ratios, all_prompts) = join(prometheus.instant(&ratios), all_prompts).await;
        let ask = |version| self.ask_about(prometheus, incident, version, &ratios, now);
        let target = OptionFuture::from(automatic.then(|| ask(&pending.to)));
        let (finding, target) = join(ask(&pending.from), target).await;
        let target_fails = target.filter(|finding| finding.verdict == Verdict::Unhealthy);
        let blame = match target_fails {
            Some(finding) => Some(provider(&pending.to.to_string(), &finding.text)),
            None => self.others(incident, all_prompts.flatten().as_ref()),
        };
        Some((finding, blame))
    }

    /// The result of the alerts' own expressions for `version`, or its error ratio if they have none. Takes no slot.
    async fn ask_about(
        &self,
        prometheus: &Prometheus,
        incident: &Incident,
        version: &VersionName,
        ratios: &QueryResult,
        now: Timestamp,
    ) -> Finding {
        let ratio = |series: &Vec<Series>| question::ratio_of(&self.labels, series, &incident.prompt, version);
        let limit = question::healthy_below(incident);
        let errors = question::read_ratio(&ratios.as_ref().map(ratio).map_err(Clone::clone), limit);
        let verifies = Verify::of(incident, version, now);
        if verifies.is_empty() {
            return errors;
        }
        let answers = join_all(verifies.iter().map(|verify| prometheus.verify(&verify.expression))).await;
        let read = |(verify, answer): (&Verify, &QueryResult)| question::read_verify(&verify.alertname, answer);
        let verified = verifies.iter().zip(&answers).map(read).collect();
        let known = ratios.as_ref().is_ok_and(|series| ratio(series).is_some());
        question::all_measures(incident, verified, errors, known)
    }

    /// Answers to [`question::all_prompts`]; `None` if Prometheus does not answer.
    async fn all_prompts<'a>(
        &self,
        prometheus: &Prometheus,
        prompts: impl IntoIterator<Item = &'a PromptName>,
    ) -> Option<[Vec<Series>; 3]> {
        let [all, failing, own] = question::all_prompts(&self.labels, prompts);
        let answers = join3(prometheus.instant(&all), prometheus.instant(&failing), prometheus.instant(&own)).await;
        Some([answers.0.ok()?, answers.1.ok()?, answers.2.ok()?])
    }

    pub(super) fn others(&self, incident: &Incident, all_prompts: Option<&[Vec<Series>; 3]>) -> Option<String> {
        let answers = all_prompts?.each_ref().map(Vec::as_slice);
        question::read_others(&self.labels, &incident.prompt, answers)
    }
}

pub(super) fn provider(version: &str, text: &str) -> String {
    format!("{version} fails too ({text}): this looks like a provider outage")
}
