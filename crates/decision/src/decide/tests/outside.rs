//! External changes of `active`: followed, never overwritten.

use super::world::rollback;
use super::*;

fn external(world: &World) -> Vec<(Option<&str>, Option<&str>)> {
    let entries = world.log.iter().filter(|e| e.event == LogEvent::External);
    entries.map(|e| (e.from.as_deref(), e.to.as_deref())).collect()
}

#[test]
fn a_prompt_that_ci_set_is_adopted_at_first_sight() {
    let mut world = World::new();
    world.set_active("v1");
    let commit = world.look().commit.expect("an adoption");
    assert_eq!((commit.active, commit.automatic), (None, None), "active is not touched");
    assert_eq!(external(&world), [(None, Some("v1"))]);
    let record = world.state.version(&v("v1")).expect("it is registered");
    assert_eq!((record.first_active, record.registered), (Some(world.now), false));
    assert_eq!(world.state.serving.as_ref().map(|s| s.by), Some(ActivatedBy::External));
    assert_eq!(world.look().commit, None, "noticed once");
}

#[test]
fn a_team_that_only_ever_sets_the_key_gets_its_rollback() {
    let mut world = World::new();
    world.set_active("v1");
    world.look();
    world.pass(hours(1));
    world.set_active("v2");
    assert_eq!(world.alert(critical("v2")), "rolled_back alert", "seen and rolled back in one step");
    assert_eq!(external(&world), [(None, Some("v1")), (Some("v1"), Some("v2"))]);
    assert_eq!(world.rollbacks(), ["v2>v1"]);
    assert_eq!(world.served(), "v1");
}

#[test]
fn before_the_first_version_soaked_there_is_nothing_to_go_back_to() {
    let mut world = World::new();
    world.set_active("v1");
    world.look();
    world.pass(minutes(59));
    world.set_active("v2");
    assert_eq!(world.alert(critical("v2")), "held no_known_good");
}

#[test]
fn an_outside_change_supersedes_the_open_incident() {
    for (alert, phase) in [(high("v2"), PhaseKind::AwaitingDecision), (critical("v2"), PhaseKind::Verifying)] {
        let mut world = World::with_a_fresh_release();
        world.alert(alert);
        assert_eq!(world.phase(), phase);
        world.set_active("v3");
        let commit = world.look().commit.expect("noticed");
        assert_eq!(commit.incidents[0].was, Some(phase));
        assert_eq!((world.phase(), world.served()), (PhaseKind::Superseded, "v3"));
        assert_eq!(world.latest().next_wake(&world.policy), None);
    }
}

#[test]
fn setting_the_bad_version_again_asks_about_its_old_alert() {
    let mut world = World::with_a_fresh_release();
    world.alert(critical("v2"));
    world.pass(seconds(20));
    world.set_active("v2");
    world.look();
    let held = world.latest().held.as_ref().map(|held| held.guard);
    assert_eq!((world.served(), world.phase()), ("v2", PhaseKind::AwaitingDecision));
    assert_eq!((held, world.incidents.len()), (Some(Guard::PredatesActivation), 2));
    assert_eq!(world.alert(critical("v2")), "duplicate duplicate");
    world.pass(minutes(4));
    assert_eq!(world.served(), "v2");
    world.pass(minutes(1));
    assert_eq!((world.served(), world.rollbacks().len()), ("v1", 2), "it fires for five minutes");
}

#[test]
fn a_new_alert_on_a_version_set_again_acts() {
    let mut world = World::with_a_fresh_release();
    let began = |alert: Alert, at: Timestamp| Alert { starts_at: Some(at), ..alert };
    world.alert(began(critical("v2"), world.now));
    world.set_active("v2");
    world.look();
    world.pass(seconds(20));
    let anew = began(critical("v2"), world.now);
    assert_eq!(world.alert(anew.clone()), "rolled_back alert", "each change from outside is rolled back once");
    assert_eq!(world.rollbacks(), ["v2>v1", "v2>v1"]);
    assert_eq!(world.alert(anew), "duplicate duplicate");
}

#[test]
fn a_deleted_key_is_logged_and_nothing_is_put_in_its_place() {
    let mut world = World::with_a_fresh_release();
    world.active = Active::Absent;
    let commit = world.look().commit.expect("noticed");
    assert_eq!((commit.active, commit.served), (None, vec![]));
    assert_eq!(external(&world), [(Some("v2"), None)]);
    assert_eq!(world.look().commit, None);
    world.roll_back(rollback());
    assert_eq!(world.served(), "v1", "a person can restore it");
}

#[test]
fn an_invalid_value_is_logged_and_can_be_rolled_back() {
    let mut world = World::with_a_fresh_release();
    world.set_value(b"{oops}");
    world.look();
    assert_eq!(external(&world), [(Some("v2"), Some("{oops}"))]);
    assert!(world.state.serving.is_none());
    assert_eq!(world.look().commit, None);
    let answer = world.roll_back(Rollback { target: Some(v("v1")), ..rollback() });
    assert!(matches!(answer, Answer::Changed { from: Some(from), .. } if from == "{oops}"));
    assert_eq!((world.served(), world.rollbacks()), ("v1", vec!["{oops}>v1".to_owned()]));
}

#[test]
fn a_prompt_whose_key_holds_no_version_is_known_all_the_same() {
    let mut world = World::new();
    world.active = Active::Foreign("{oops}".to_owned());
    assert_eq!(world::refusal(&world.activate("v1", false)), RefusalCode::UnknownVersion);
}

#[test]
fn a_stale_split_is_dropped_and_one_that_counts_is_kept() {
    let split = |a: &str, b: &str| vec![(a.to_owned(), "90".to_owned()), (b.to_owned(), "10".to_owned())];
    let mut world = World::with_a_fresh_release();
    world.routing = split("v1", "v2");
    assert_eq!(world.look().commit, None, "v2 is active and a field");
    world.set_active("v3");
    assert_eq!(world.look().commit.map(|c| c.routing), Some(Routing::Drop));
    world.routing = split("v1", "v2");
    let commit = world.look().commit.expect("stale though active did not change");
    assert_eq!((commit.routing, commit.log.len()), (Routing::Drop, 0));
}

#[test]
fn a_refused_request_still_notices_the_outside_change() {
    let mut world = World::with_a_fresh_release();
    world.set_active("v3");
    let answer = world.roll_back(Rollback {
        target: None,
        from: Some(v("v2")),
        reason: "bad".to_owned(),
        operator: Operator::recorded("dana"),
        force: false,
        gradual: None,
    });
    assert_eq!(world::refusal(&answer), RefusalCode::Moved);
    assert_eq!(external(&world), [(Some("v2"), Some("v3"))]);
    assert_eq!((world.served(), world.incidents.len()), ("v3", 0));
}
