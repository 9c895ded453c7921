//! Outcomes of incidents that a dry run held, and their verdicts.

use super::*;
use crate::decision::verification::Verification;
use crate::decision::{CommitId, Operator, Policy, Question, RollbackFailure, Switch};

const NOW: Timestamp = Timestamp(1_795_221_492_689);

fn after(minutes: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(60 * minutes))
}

fn version(name: &str) -> VersionName {
    VersionName::parse(name).expect("a version")
}

/// Held by the dry run: v2 would have been rolled back to v1.
fn held(trigger: &str) -> Incident {
    let prompt = PromptName::parse("support").expect("a name");
    let id = IncidentId("01KAJ4B8N4GZQ6V9C2M7T5R3XW".to_owned());
    let (from, to, trigger) = (version("v2"), version("v1"), trigger.to_owned());
    Incident {
        phase: Phase::AwaitingDecision(Question::default()),
        dry_run: Some(DryRunRollback { at: NOW, from, to, trigger }),
        ..Incident::new(id, prompt, version("v2"), "on-call".to_owned(), NOW)
    }
}

fn switched(mode: SwitchMode, to: &str, phase: Phase) -> Incident {
    let switch = Switch {
        commit: CommitId::default(),
        verification: None,
        at: after(12),
        decided_at: None,
        from: version("v2"),
        to: version(to),
        mode,
        operator: Operator::recorded("maya"),
    };
    Incident { switch: Some(switch), phase, closed_at: Some(after(15)), ..held("A") }
}

fn closed(phase: Phase) -> Incident {
    Incident { phase, closed_at: Some(after(9)), ..held("A") }
}

#[test]
fn what_happened_instead_says_whether_it_would_have_been_right() {
    let ended = Incident { quiet_since: Some(after(8)), ..closed(Phase::Resolved) };
    let back = closed(Phase::Superseded { by: Some(version("v1")) });
    let forward = closed(Phase::Superseded { by: Some(version("v3")) });
    let mut given_up = switched(SwitchMode::Approved, "v1", Phase::Dismissed);
    (given_up.escalations, given_up.paged) = (1, true);
    given_up.note(after(14), crate::decision::note::NoteKind::Escalated, "v1 is unhealthy");
    if let Some(switch) = &mut given_up.switch {
        let starting = Verification::starting(after(12), Policy::default().verify_every);
        switch.verification = Some(Verification { unhealthy: 1, ..starting });
    }
    let table = [
        (switched(SwitchMode::Approved, "v1", Phase::Recovered), Instead::RolledBackByPerson, Some(12)),
        (switched(SwitchMode::Gradual, "v1", Phase::Recovered), Instead::RolledBackByPerson, Some(12)),
        (switched(SwitchMode::Manual, "v1", Phase::Unverified), Instead::RolledBackByPerson, Some(12)),
        (
            switched(SwitchMode::Approved, "v1", Phase::Verifying { until: after(15) }),
            Instead::RolledBackByPerson,
            Some(12),
        ),
        (
            switched(
                SwitchMode::Approved,
                "v1",
                Phase::Escalated { until: None, reason: RollbackFailure::NotRecovered },
            ),
            Instead::DidNotHelp,
            Some(12),
        ),
        (given_up, Instead::DidNotHelp, Some(12)),
        (switched(SwitchMode::Approved, "v1", Phase::Dismissed), Instead::Undone, Some(12)),
        (switched(SwitchMode::Approved, "v0", Phase::Recovered), Instead::RolledBackElsewhere, Some(12)),
        (switched(SwitchMode::Auto, "v1", Phase::Recovered), Instead::RolledBackAutomatically, Some(12)),
        (ended, Instead::ResolvedByItself, Some(8)),
        (closed(Phase::Resolved), Instead::ResolvedByItself, Some(9)),
        (closed(Phase::Dismissed), Instead::Dismissed, Some(9)),
        (back, Instead::PutBackByHand, Some(9)),
        (forward, Instead::OtherVersion, Some(9)),
        (closed(Phase::Superseded { by: None }), Instead::OtherVersion, Some(9)),
        (held("A"), Instead::Undecided, None),
        (Incident { phase: Phase::Investigating { until: after(15) }, ..held("A") }, Instead::Undecided, None),
    ];
    for (incident, instead, minutes) in table {
        let case = Case::of(&incident).expect("a case");
        let expected = (instead, minutes.map(|minutes| Duration::from_secs(60 * minutes)));
        assert_eq!((case.instead, case.after), expected, "{incident:?}");
    }
    assert_eq!(Case::of(&Incident { dry_run: None, ..held("A") }), None, "nothing would have been done");
}

#[test]
fn each_trigger_has_its_own_count_and_only_what_was_right_saves_time() {
    let mut report = DryRunReport::new(NOW, after(60));
    let of = |trigger: &str, mut incident: Incident| {
        if let Some(dry_run) = &mut incident.dry_run {
            dry_run.trigger = trigger.to_owned();
        }
        incident
    };
    report.add(&of("A", switched(SwitchMode::Approved, "v1", Phase::Recovered)));
    report.add(&of("A", switched(SwitchMode::Manual, "v1", Phase::Recovered)));
    report.add(&of("A", closed(Phase::Resolved)));
    report.add(&of("B", held("B")));
    let count =
        |right, wrong, unclear, minutes: u64| Tally { right, wrong, unclear, saved: Duration::from_secs(60 * minutes) };
    assert_eq!(report.triggers["A"], count(2, 1, 0, 24));
    assert_eq!(report.triggers["B"], count(0, 0, 1, 0));
    assert_eq!(report.total(), count(2, 1, 1, 24));
    assert_eq!(report.total().minutes_saved(), 24);
}

#[test]
fn only_what_would_have_been_done_in_the_time_counts() {
    for (since, until, cases) in [(NOW, NOW, 1), (after(1), after(2), 0), (NOW.minus(Duration::from_secs(9)), NOW, 1)] {
        let mut report = DryRunReport::new(since, until);
        report.add(&held("A"));
        assert_eq!(report.cases.len(), cases, "{since:?} to {until:?}");
    }
}

#[test]
fn a_report_is_bounded_and_counts_what_it_leaves_out() {
    let mut report = DryRunReport::new(NOW, NOW);
    for number in 0..DryRunReport::MAX_CASES + 10 {
        report.add(&held(&format!("A{number}")));
    }
    assert_eq!((report.cases.len(), report.left_out), (DryRunReport::MAX_CASES, 10));
    assert_eq!(report.triggers.len(), DryRunReport::MAX_TRIGGERS + 1);
    let others = u32::try_from(DryRunReport::MAX_CASES + 10 - DryRunReport::MAX_TRIGGERS).expect("small");
    assert_eq!(report.triggers[DryRunReport::OTHERS].unclear, others);
    assert_eq!(report.total().unclear, others + 100);
}
