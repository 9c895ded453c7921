//! Alertmanager's list of alerts.

use super::*;

/// Alertmanager lists exactly `alerts`, asked about the latest incident.
fn lists(world: &mut World, alerts: &[Alert]) -> Option<Commit> {
    let incident = world.latest().id.clone();
    let fingerprints = alerts.iter().map(|a| a.fingerprint.clone()).collect();
    world.happens(&Event::Listed { incident, fingerprints }).commit
}

#[test]
fn an_alert_listed_before_and_absent_for_long_enough_has_ended() {
    let mut world = World::with_a_fresh_release();
    world.alert(high("v2"));
    lists(&mut world, &[high("v2")]);
    world.pass(seconds(30));
    lists(&mut world, &[]);
    world.pass(Policy::ABSENT - seconds(1));
    lists(&mut world, &[]);
    assert!(world.latest().is_firing(), "a restarted Alertmanager knows nothing for a while");
    world.pass(seconds(1));
    lists(&mut world, &[]);
    assert!(!world.latest().is_firing());
    world.pass(Policy::QUIET);
    assert_eq!(world.phase(), PhaseKind::Resolved);
}

#[test]
fn an_alert_that_was_never_listed_is_not_missed() {
    let mut world = World::with_a_fresh_release();
    world.alert(high("v2"));
    for _ in 0..5 {
        assert_eq!(lists(&mut world, &[recommend("v2")]), None, "it came from elsewhere");
        world.pass(minutes(2));
    }
    assert!(world.latest().is_firing());
}

#[test]
fn being_listed_again_starts_the_absence_anew() {
    let mut world = World::with_a_fresh_release();
    world.alert(high("v2"));
    for listed in [vec![high("v2")], vec![], vec![high("v2")], vec![], vec![high("v2")]] {
        lists(&mut world, &listed);
        world.pass(Policy::ABSENT - seconds(1));
    }
    assert!(world.latest().is_firing());
}

#[test]
fn a_delivery_between_two_lists_shows_that_an_alert_on_a_target_fires() {
    let mut world = World::with_a_fresh_release();
    let on_target = medium("v1");
    world.alert(on_target.clone());
    assert_eq!(world.alert(critical("v2")), "held target_unhealthy");
    lists(&mut world, &[on_target.clone(), critical("v2")]);
    lists(&mut world, &[critical("v2")]);
    world.pass(seconds(45));
    world.alert(on_target);
    world.pass(Policy::ABSENT);
    lists(&mut world, &[critical("v2")]);
    assert_eq!(world.alert(critical("v2")), "duplicate duplicate", "it fired a moment ago");
    assert_eq!(world.served(), "v2");
}

#[test]
fn only_what_is_absent_ends() {
    let mut world = World::with_a_fresh_release();
    world.deliver(&[high("v2"), recommend("v2")]);
    lists(&mut world, &[high("v2"), recommend("v2")]);
    lists(&mut world, &[high("v2")]);
    world.pass(Policy::ABSENT);
    lists(&mut world, &[high("v2")]);
    let still: Vec<_> = world.latest().alerts.iter().filter(|a| a.firing).map(|a| a.alertname.as_str()).collect();
    assert_eq!((still, world.latest().quiet_since), (vec!["ErrorRateHigh"], None));
}

#[test]
fn a_listed_alert_is_not_forgotten_however_rarely_it_repeats() {
    let mut world = World::with_a_fresh_release();
    world.alert(high("v2"));
    for _ in 0..24 {
        world.pass(hours(1));
        lists(&mut world, &[high("v2")]);
    }
    assert_eq!((world.phase(), world.latest().is_firing()), (PhaseKind::AwaitingDecision, true));
}

#[test]
fn the_list_is_no_news_most_of_the_time() {
    let mut world = World::with_a_fresh_release();
    world.alert(high("v2"));
    assert!(lists(&mut world, &[high("v2")]).is_some(), "listed for the first time");
    world.pass(seconds(30));
    assert_eq!(lists(&mut world, &[high("v2")]), None);
}

#[test]
fn a_decided_incident_does_not_care_what_is_listed() {
    let mut world = World::with_a_fresh_release();
    world.alert(high("v2"));
    lists(&mut world, &[high("v2")]);
    world.choose(Choice::Approve);
    world.pass(minutes(2));
    assert_eq!(lists(&mut world, &[]), None);
}

#[test]
fn the_page_ends_as_soon_as_someone_decides() {
    for choice in [Choice::Approve, Choice::Investigate, Choice::Dismiss] {
        let mut world = World::with_a_fresh_release();
        world.alert(high("v2"));
        assert!(!world.latest().pages());
        world.pass(minutes(5));
        assert!(world.latest().pages(), "no decision before the deadline");
        let click = world.click(choice);
        let commit = world.happens(&click).commit.expect("a decision");
        assert!(!world.latest().pages(), "{choice:?}");
        assert_eq!(commit.wakes.iter().map(|w| w.at).collect::<Vec<_>>(), [world.now], "{choice:?}: told at once");
    }
}
