//! Adopting prompts that were already served.

use super::*;

fn says(world: &mut World, verdict: Verdict, text: &str) {
    world.says = Some(Finding::new(verdict, text));
}

fn adopt(world: &mut World, version: Option<&str>, known_good: bool) -> Adoption {
    let event = Event::Adopt(Adopt { version: version.map(v), known_good, operator: Operator::recorded("dana") });
    match world.happens(&event).answer {
        Answer::Adopted(adoption) => adoption,
        other => panic!("{other:?}"),
    }
}

fn adopted(version: &str, known_good: bool) -> Adoption {
    Adoption::Adopted { version: v(version), known_good }
}

fn known(version: &str, known_good: bool) -> Adoption {
    Adoption::Known { version: v(version), known_good }
}

fn why(adoption: &Adoption) -> &str {
    match adoption {
        Adoption::Skipped(why) => why,
        other => panic!("not skipped: {other:?}"),
    }
}

#[test]
fn what_is_active_is_noticed_once_and_soaks() {
    let mut world = World::new();
    world.set_active("v1");
    assert_eq!(adopt(&mut world, None, false), adopted("v1", false));
    assert_eq!(world.log.last().map(|entry| entry.event), Some(LogEvent::External));
    let before = world.state.clone();
    assert_eq!(adopt(&mut world, None, false), known("v1", false));
    assert_eq!((world.state.clone(), world.log.len()), (before, 1), "again changes nothing");
    world.pass(hours(2));
    assert_eq!(adopt(&mut world, None, false), known("v1", true));
}

#[test]
fn it_may_be_trusted_at_once() {
    let mut world = World::new();
    world.set_active("v1");
    assert_eq!(adopt(&mut world, None, true), adopted("v1", true));
    assert_eq!(adopt(&mut world, None, true), known("v1", true));
    world.release("v2");
    assert_eq!(world.alert(critical("v2")), "rolled_back alert");
    assert_eq!(world.served(), "v1");
}

#[test]
fn a_version_from_elsewhere_becomes_active_where_nothing_is() {
    let mut world = World::new();
    assert_eq!(adopt(&mut world, Some("v7"), true), adopted("v7", true));
    assert_eq!(
        (world.served(), world.log[0].event, world.log[0].reason.as_str()),
        ("v7", LogEvent::Activate, "imported")
    );
    assert_eq!(adopt(&mut world, Some("v8"), true), known("v7", true), "never overwritten");
    assert_eq!(adopt(&mut world, Some("v7"), true), known("v7", true));
    assert_eq!((world.served(), world.log.len()), ("v7", 1));
}

#[test]
fn only_the_version_that_was_named_is_trusted() {
    let mut world = World::with_a_fresh_release();
    assert_eq!(adopt(&mut world, Some("v9"), true), known("v2", false));
    assert!(!world.is_known_good("v2"));
    assert_eq!(adopt(&mut world, Some("v2"), true), adopted("v2", true));
}

#[test]
fn what_can_not_be_taken_over_says_why() {
    let mut world = World::new();
    assert_eq!(why(&adopt(&mut world, None, true)), "nothing is active");
    world.active = Active::Foreign("{}".to_owned());
    assert_eq!(why(&adopt(&mut world, Some("v1"), true)), "active holds a value that is not a version");
    assert_eq!(world.active, Active::Foreign("{}".to_owned()));

    let mut world = World::with_a_fresh_release();
    world.alert(high("v2"));
    assert!(why(&adopt(&mut world, None, true)).contains("an incident is open"));
    assert!(!world.is_known_good("v2"));
    assert_eq!(adopt(&mut world, None, false), known("v2", false));

    let mut world = World::with_a_fresh_release();
    world.register("v3");
    world.share("v3", TrafficShare::Percent(30), false);
    assert!(why(&adopt(&mut world, None, true)).contains("its traffic is split"));

    let mut world = World::with_a_fresh_release();
    world.alert(critical("v2"));
    world.set_active("v2");
    assert!(why(&adopt(&mut world, None, true)).contains("quarantined"));
    world.active = Active::Absent;
    assert!(why(&adopt(&mut world, Some("v2"), false)).contains("quarantined"));
    assert_eq!(world.active, Active::Absent);
}

/// An import trusts a version that people are paged about.
#[test]
fn an_import_does_not_trust_a_target_that_did_not_help() {
    let mut world = World::with_a_fresh_release();
    world.policy.verify = true;
    world.activate("v1", true);
    world.pass(seconds(1));
    // v0 is forced, so it is not known-good
    world.register("v0");
    world.roll_back(Rollback { target: Some(v("v0")), force: true, ..world::rollback() });
    says(&mut world, Verdict::Unhealthy, "error ratio 7.00 %");
    world.pass(minutes(6));
    assert_eq!((world.phase(), world.served()), (PhaseKind::Escalated, "v0"));
    let adopt = Adopt { version: None, known_good: true, operator: Operator::recorded("dana") };
    let answer = world.happens(&Event::Adopt(adopt)).answer;
    assert!(!world.is_known_good("v0"), "{answer:?}");
}
