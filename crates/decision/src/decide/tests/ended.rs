//! The end of an alert, and copies that arrive too late.

use super::*;

fn world() -> (World, Timestamp) {
    let world = World::with_a_fresh_release();
    let began = world.now.minus(seconds(30));
    (world, began)
}

#[test]
fn a_firing_that_was_overtaken_by_its_resolved_opens_nothing() {
    let (mut world, began) = world();
    let alert = critical("v2").starting(began);
    assert_eq!(world.alert(alert.clone().ended_at(world.now)), "ignored unknown_alert");
    world.pass(seconds(20));
    assert_eq!(world.alert(alert.clone()), "ignored already_resolved");
    assert_eq!((world.incidents.len(), world.served()), (0, "v2"));
    assert!(!world.would_write(&[alert]), "a late copy costs no write");
}

#[test]
fn a_late_copy_reopens_nothing_and_pages_nobody() {
    let (mut world, began) = world();
    let alert = high("v2").starting(began);
    world.alert(alert.clone());
    world.pass(seconds(30));
    world.alert(alert.clone().ended_at(world.now));
    world.pass(seconds(70));
    assert_eq!(world.phase(), PhaseKind::Resolved);
    assert_eq!(world.alert(alert.clone()), "ignored already_resolved");
    // the other Alertmanager of the cluster received it a moment later
    assert_eq!(world.alert(alert.starting(began.plus(seconds(4)))), "ignored already_resolved");
    world.pass(hours(2));
    assert_eq!((world.phase(), world.notes(NoteKind::Reopened)), (PhaseKind::Resolved, 0));
}

#[test]
fn a_new_outbreak_is_heard_however_soon_it_comes() {
    let (mut world, began) = world();
    let alert = high("v2").starting(began);
    world.alert(alert.clone());
    let end = world.now;
    world.alert(alert.clone().ended_at(end));
    assert_eq!(world.alert(alert.clone().starting(end)), "incident_updated firing_again");
    assert_eq!(world.alert(alert.ended_at(end)), "duplicate duplicate", "the end of the outbreak before, once more");
    assert!(world.latest().is_firing(), "it does not end this one");
}

#[test]
fn after_five_minutes_the_same_outbreak_is_believed_again() {
    // a gap between Prometheus and its Alertmanager
    let (mut world, began) = world();
    let alert = critical("v2").starting(began);
    world.paused = Some("dana".to_owned());
    world.alert(alert.clone());
    world.alert(alert.clone().ended_at(world.now));
    world.pass(minutes(5) - seconds(1));
    assert_eq!(world.alert(alert.clone()), "ignored already_resolved");
    world.pass(seconds(1));
    assert_eq!(world.alert(alert), "held paused");
}

#[test]
fn without_plausible_times_nothing_is_taken_for_a_copy() {
    let (mut world, _) = world();
    for starts_at in [None, Some(Timestamp(-62_135_596_800_000)), Some(world.now.plus(hours(1)))] {
        let alert = Alert { starts_at, ..high("v2") };
        world.alert(alert.clone());
        world.alert(Alert { ends_at: starts_at, ..alert.clone().resolved() });
        assert_eq!(world.alert(alert.clone()), "incident_updated firing_again", "{starts_at:?}");
        world.alert(alert.resolved());
    }
}

#[test]
fn alerts_of_other_versions_and_other_rows_are_no_copies() {
    let (mut world, began) = world();
    let end = world.now;
    world.alert(high("v2").starting(began).ended_at(end));
    assert_eq!(world.alert(high("v2").named("Another").starting(began)), "incident_opened page");
    assert_eq!(world.alert(high("v1").starting(began)), "ignored not_active");
}

#[test]
fn a_burst_of_ends_is_remembered_within_bounds() {
    let (mut world, began) = world();
    for n in 0..200 {
        let alert = high("v2").named(&format!("Row{n}")).starting(began);
        world.alert(alert.ended_at(world.now));
    }
    assert_eq!(world.state.ended.len(), Policy::MAX_ENDED);
    let nobodys = high("v99").starting(began);
    world.alert(nobodys.ended_at(world.now));
    assert!(world.state.ended.iter().all(|ended| ended.version == v("v2")), "v99 is unknown");
}

#[test]
fn a_late_resolved_ends_no_later_alert_and_no_later_silence() {
    let mut world = World::with_a_fresh_release();
    world.mark_known_good("v0");
    let (earlier, later) = (world.now.minus(minutes(5)), world.now.minus(minutes(1)));
    let late = |version| high(version).starting(earlier).ended_at(earlier.plus(minutes(2)));
    world.alert(high("v2").starting(later));
    world.choose(Choice::Dismiss);
    world.alert(late("v2"));
    assert_eq!(world.alert(high("v2").starting(later)), "ignored dismissed");
    world.alert(high("v1").starting(later));
    assert_eq!(world.alert(late("v1")), "ignored unknown_alert");
    assert_eq!(world.alert(critical("v2")), "rolled_back alert");
    assert_eq!(world.served(), "v0", "an alert fires on v1");
}

/// A new outbreak from a sender whose clock is ahead.
#[test]
fn a_later_start_ends_a_silence_even_if_the_senders_clock_is_ahead() {
    let mut world = World::with_a_fresh_release();
    world.alert(high("v2").starting(world.now));
    world.choose(Choice::Dismiss);
    world.pass(minutes(30)); // its `resolved` was lost
    let ahead = high("v2").starting(world.now.plus(seconds(3)));
    assert_eq!(world.alert(ahead), "incident_opened page");
}
