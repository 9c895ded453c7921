//! Messages say what is the case.

use super::*;

fn text(incident: &Incident) -> String {
    plain(&root(&view(incident)))
}

fn assert_says(incident: &Incident, expected: &[&str], never: &[&str]) {
    let text = text(incident);
    for one in expected {
        assert!(text.contains(one), "{one}\n{text}");
    }
    for one in never {
        assert!(!text.contains(one), "{one}\n{text}");
    }
}

#[test]
fn what_is_on_hold_says_so_and_calls_no_one() {
    let mut held = Incident { escalations: 1, ..waiting() };
    let why = "Maya put this incident on hold with the other prompts";
    held.note(after(60), NoteKind::Decided, why);
    let hold = Some(Operator::recorded("Maya"));
    held.phase = Phase::AwaitingDecision(Question { hold, ..Question::default() });
    assert_says(&held, &["✋ On hold", why], &["Decision", "escalation follows", MENTION]);
    assert!(!calls(&held, &note(NoteKind::Asked)));
}

#[test]
fn a_rollback_that_waits_shows_who_requested_it_and_what_it_waits_for() {
    let mut incident = confirming();
    incident.note(NOW, NoteKind::Decided, "Omar is investigating");
    incident.note(after(1), NoteKind::Checked, "asked Prometheus: error ratio 7.00 %");
    assert_says(&incident, &["Asking Prometheus"], &["Omar is investigating", "error ratio 7.00 %"]);
    let request = note(NoteKind::Checked).text;
    incident.note(NOW, NoteKind::Checked, &request);
    assert_says(&incident, &[&request], &["Omar is investigating"]);
    let Phase::Confirming(confirming) = &mut incident.phase else { unreachable!("it waits") };
    confirming.pending.skip_confirmation = true;
    assert_says(&incident, &["Restoring content", "Content expected by"], &["Asking Prometheus:", "Answer expected"]);
}

#[test]
fn servers_may_not_follow_a_replacement() {
    let phase = Phase::Escalated { until: None, reason: RollbackFailure::NotFollowed };
    let shipped = Incident { phase, ..switched(SwitchMode::Shipped, "Maya") };
    assert_says(&shipped, &["Prompt servers do not follow the replacement"], &["do not follow the rollback"]);
}

#[test]
fn a_new_question_is_not_overdue_although_its_page_goes_on() {
    let paged = |phase| Incident { escalations: 1, phase, ..waiting() };
    assert_says(
        &paged(overdue_until(Some(after(600)))),
        &["Decision overdue", "Overdue, escalated again", "no decision before"],
        &["Decide by"],
    );
    let asked_again = paged(asked(Some(after(600))));
    assert_says(&asked_again, &["Decision needed", "Decide by"], &["verdue", "no decision before"]);
}

#[test]
fn a_question_about_a_canary_offers_no_gradual_rollback() {
    let about = |action| Incident { alerts: Vec::new(), action, ..waiting() };
    for (action, offered) in [(Action::Recommend, false), (Action::Rollback, true)] {
        let said = said(&root(&view(&about(action))));
        assert!(said.contains("\"approve\""), "{said}");
        assert_eq!(said.contains("\"approve_gradual\""), offered, "{action:?}");
    }
}
