//! The weekly message.

use super::super::report as render;
use super::*;
use crate::decision::switch::DryRunRollback;
use crate::report::DryRunReport;

fn held(trigger: &str) -> Incident {
    let mut incident = switched(SwitchMode::Approved, "maya");
    let switch = incident.switch.clone().expect("a switch");
    let at = switch.at.minus(Duration::from_secs(725));
    incident.dry_run = Some(DryRunRollback { at, from: switch.from, to: switch.to, trigger: trigger.to_owned() });
    incident
}

fn report(triggers: impl IntoIterator<Item = String>) -> DryRunReport {
    let mut report = DryRunReport::new(NOW.minus(Duration::from_secs(7 * 86_400)), NOW);
    triggers.into_iter().for_each(|trigger| report.add(&held(&trigger)));
    report
}

#[test]
fn the_weekly_report_counts_rollbacks_by_alert() {
    let message = render(&report(["A".to_owned(), "A".to_owned(), "B".to_owned()]));
    assert_eq!(valid::problems(&message, None), Vec::<String>::new());
    let said = serde_json::to_string(&message.blocks).expect("JSON");
    for expected in
        ["3 rollbacks would have happened", "A: 2 right, 0 wrong, 0 unclear; 24 min", "12 min 5 s later (B)"]
    {
        assert!(said.contains(expected), "{expected} in {said}");
    }
}

#[test]
fn a_quiet_week_is_one_sentence() {
    let message = render(&report([]));
    assert_eq!(valid::problems(&message, None), Vec::<String>::new());
    assert_eq!(message.text, "Dry run: nothing would have been rolled back this week");
}

#[test]
fn the_weekly_report_fits_slacks_limits_with_300_hostile_alert_names() {
    let nasty = "<!channel> `*_~ <https://evil.example|x> & ".repeat(40);
    let message = render(&report((0..300).map(|number| format!("{number} {nasty}"))));
    assert_eq!(valid::problems(&message, None), Vec::<String>::new());
    assert!(serde_json::to_string(&message.blocks).expect("JSON").contains("and 91 more"), "others are one of them");
}

#[test]
fn it_counts_what_was_not_listed_and_says_if_not_all_was_read() {
    let many = report((0..DryRunReport::MAX_CASES + 200).map(|_| "A".to_owned()));
    let said = serde_json::to_string(&render(&many).blocks).expect("JSON");
    for expected in ["700 rollbacks would have happened", "and 690 more"] {
        assert!(said.contains(expected), "{expected} in {said}");
    }
    let partial = |report| render(&DryRunReport { partial: true, ..report }).text;
    assert!(partial(many).starts_with("Dry run: at least 700 rollbacks"));
    assert_eq!(partial(report([])), "Dry run: too many incidents this week to read them all");
}
