//! A person's decision is never lost, and a question can always be answered.

use super::*;

fn finding(verdict: Verdict) -> Option<Finding> {
    Some(Finding::new(verdict, "error ratio 7.00 %"))
}

/// With a Prometheus that is asked first.
fn asking() -> World {
    let mut world = World::with_a_fresh_release();
    (world.policy.confirm, world.policy.verify) = (true, true);
    world
}

#[test]
fn a_joining_alert_leaves_an_approved_rollback_waiting() {
    for joins in [medium("v2"), recommend("v2"), high("v2"), critical("v2").named("Other")] {
        let mut world = asking();
        world.paused = Some("dana".to_owned());
        world.says = finding(Verdict::Unhealthy);
        world.alert(critical("v2"));
        assert!(matches!(world.choose(Choice::Approve), Answer::Confirming { .. }));
        world.alert(joins);
        assert_eq!(world.phase(), PhaseKind::Confirming);
        world.pass(seconds(1));
        assert_eq!((world.phase(), world.served()), (PhaseKind::Verifying, "v1"));
    }
}

#[test]
fn an_approval_whose_answer_never_comes_is_done_all_the_same() {
    let mut world = asking();
    world.says = None;
    world.alert(high("v2"));
    world.choose(Choice::Approve);
    world.alert(medium("v2"));
    world.pass(Policy::CONFIRM);
    assert_eq!((world.phase(), world.served()), (PhaseKind::Verifying, "v1"));
}

#[test]
fn a_critical_ends_the_wait_and_keeps_the_named_target() {
    let mut world = asking();
    world.mark_known_good("v0");
    world.says = None;
    let asked = world.roll_back(Rollback { target: Some(v("v0")), ..world::rollback() });
    assert!(matches!(asked, Answer::Confirming { .. }), "{asked:?}");
    assert_eq!(world.alert(critical("v2")), "rolled_back alert");
    let switch = world.latest().switch.clone().expect("a switch");
    assert_eq!((world.served(), switch.to, switch.mode), ("v0", v("v0"), SwitchMode::Manual));
    assert_eq!(
        (switch.operator.as_str(), world.latest().decided_by.as_ref().map(Operator::as_str)),
        ("dana", Some("dana"))
    );
}

#[test]
fn a_held_critical_waits_for_the_pending_confirmation() {
    let mut world = asking();
    world.says = None;
    world.alert(high("v2"));
    world.choose(Choice::Approve);
    world.paused = Some("dana".to_owned());
    assert_eq!(world.alert(critical("v2")), "incident_updated joined");
    assert_eq!((world.phase(), world.served()), (PhaseKind::Confirming, "v2"));
}

#[test]
fn repeats_ask_nothing_new_while_the_provider_is_blamed() {
    let mut world = asking();
    world.policy.requery = true;
    world.says = finding(Verdict::Unhealthy);
    world.blame = Some("most other prompts fail too".to_owned());
    world.alert(critical("v2"));
    world.pass(seconds(1));
    let (ask, notes) = (world.latest().question_number, world.latest().notes.len());
    assert_eq!((world.phase(), ask), (PhaseKind::AwaitingDecision, 1));
    for minute in 1..60 {
        world.pass(minutes(1));
        world.alert(critical("v2"));
        world.pass(seconds(1));
        assert_eq!(
            world.latest().question_number,
            ask,
            "after {minute} minutes the button of the first question still counts"
        );
    }
    assert!(world.latest().pages() && world.latest().escalations > 1, "{:?}", world.latest());
    assert!(world.latest().notes.len() <= notes + 2 * Policy::ESCALATIONS as usize, "{:?}", world.latest().notes);
    world.blame = None;
    world.alert(critical("v2"));
    world.pass(seconds(1));
    assert_eq!(
        (world.phase(), world.served()),
        (PhaseKind::Verifying, "v1"),
        "it acts once no provider outage is suspected"
    );
}

#[test]
fn another_decider_is_another_question() {
    let mut world = World::with_a_fresh_release();
    world.alert(high("v2").decided_by("product-pm"));
    let first = world.latest().question_number;
    world.alert(high("v2").named("Latency").decided_by("on-call"));
    let incident = world.latest();
    assert_eq!((incident.decider.as_str(), incident.question_number), ("on-call", first + 1));
    world.alert(high("v2").named("Tokens").decided_by("product-pm"));
    let incident = world.latest();
    assert_eq!(
        (incident.decider.as_str(), incident.question_number),
        ("on-call", first + 1),
        "the same people are asked"
    );
}

#[test]
fn the_order_of_alerts_of_one_rank_does_not_tell_who_is_asked() {
    let alerts = [high("v2").decided_by("product-pm"), high("v2").named("Latency").decided_by("on-call")];
    let asked = |order: &[usize], split: bool| {
        let mut world = World::with_a_fresh_release();
        let delivery: Vec<_> = order.iter().map(|at| alerts[*at].clone()).collect();
        match split {
            true => delivery.chunks(1).for_each(|one| drop(world.deliver(one))),
            false => drop(world.deliver(&delivery)),
        }
        world.latest().decider.clone()
    };
    let first = asked(&[0, 1], false);
    for (order, split) in [([1, 0], false), ([0, 1], true), ([1, 0], true)] {
        assert_eq!(asked(&order, split), first, "{order:?} {split}");
    }
}

#[test]
fn a_target_without_content_leaves_the_incident_escalated() {
    let mut world = World::new();
    (world.policy.verify, world.policy.archive, world.policy.hot_versions) = (true, true, 1);
    for version in ["v0", "v1"] {
        world.release_text(version);
        world.pass(hours(2));
    }
    world.release_text("v2");
    world.pass(minutes(10));
    world.tidy();
    assert!(world.is_archived("v0"));
    world.says = finding(Verdict::Unhealthy);
    world.alert(critical("v2"));
    world.pass(minutes(6));
    assert_eq!((world.phase(), world.served()), (PhaseKind::Escalated, "v1"));
    world.alert(critical("v2").resolved());
    world.files.as_mut().expect("an archive").clear();
    world.choose(Choice::Approve);
    world.pass(hours(1));
    assert_eq!((world.phase(), world.served()), (PhaseKind::Escalated, "v1"));
    assert!(world.latest().pages());
    let notes = &world.latest().notes;
    assert!(notes.iter().any(|note| note.text.contains("the content of v0 is in the archive")), "{notes:?}");
}

#[test]
fn a_reopened_incident_is_not_held_back_any_more() {
    let mut world = World::with_a_fresh_release();
    world.recent_auto = world.policy.max_auto_rollbacks;
    world.alert(critical("v2"));
    let id = world.latest().id.clone();
    world.happens(&Event::Hold { incident: id, by: Some(Operator::recorded("maya")) });
    world.alert(critical("v2").resolved());
    world.pass(minutes(2));
    assert_eq!(world.phase(), PhaseKind::Resolved);
    world.recent_auto = 0;
    assert_eq!(world.alert(critical("v2")), "rolled_back alert");
}

#[test]
fn a_gradual_rollback_without_alerts_that_someone_ends_comes_to_rest() {
    let mut world = World::with_a_fresh_release();
    let plan = Some(Policy::default().gradual);
    assert!(matches!(world.roll_back(Rollback { gradual: plan, ..world::rollback() }), Answer::Shared { .. }));
    world.routing.clear();
    world.look();
    assert_eq!(world.phase(), PhaseKind::AwaitingDecision);
    world.pass(hours(1));
    assert!(!world.latest().phase.is_open() && !world.latest().pages(), "{:?}", world.latest());
}

/// An approval of a target whose content is lost, while people are paged about what was shipped.
#[test]
fn missing_content_ends_no_page_about_what_was_shipped() {
    for ends in [false, true] {
        let mut world = retention::archived();
        world.policy.verify = true;
        world.says = Some(Finding::new(Verdict::NoData, "nothing"));
        world.paused = Some("dana".to_owned());
        world.alert(critical("v6"));
        world.pass(minutes(3));
        let id = world.latest().id.clone();
        world.release_text("v7");
        assert!(world.incidents[&id].pages() && world.incidents[&id].is_shipped());
        if ends {
            world.alert(critical("v6").resolved()); // because it has no traffic
        }
        assert!(world.is_archived("v1"));
        world.files.as_mut().expect("files").remove(&v("v1"));
        let Event::Decide(click) = world.click(Choice::Approve) else { panic!("a click") };
        let answer = world.happens(&Event::Decide(Decide { target: Some(v("v1")), ..click })).answer;
        assert!(matches!(answer, Answer::Confirming { .. }), "{answer:?}");
        world.pass(seconds(15));
        assert_eq!(world.served(), "v7");
        assert!(world.incidents[&id].pages(), "{ends}: {:?}", world.incidents[&id].phase);
        world.pass(seconds(70));
        assert!(
            world.incidents[&id].phase.is_open() && world.incidents[&id].pages(),
            "{ends}: {:?}",
            world.incidents[&id].phase
        );
    }
}

#[test]
fn a_critical_that_joins_an_approval_acts_once_nothing_holds_it() {
    for critical_first in [true, false] {
        let mut world = asking();
        world.says = finding(Verdict::Healthy);
        world.alert(high("v2"));
        if critical_first {
            world.paused = Some("dana".to_owned());
            world.alert(critical("v2"));
        }
        world.choose(Choice::Approve);
        world.paused = Some("dana".to_owned());
        world.alert(critical("v2"));
        world.pass(seconds(1));
        assert_eq!((world.phase(), world.latest().objection().is_some()), (PhaseKind::AwaitingDecision, true));
        assert_eq!(world.latest().held.as_ref().map(|held| held.guard), Some(Guard::Paused), "{critical_first}");
        world.paused = None;
        assert_eq!(world.alert(critical("v2")), "rolled_back alert", "{critical_first}");
    }
}
