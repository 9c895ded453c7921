//! Alerts that began before their version got traffic, and versions that are reactivated repeatedly.

use super::*;

fn since(alert: Alert, at: Timestamp) -> Alert {
    Alert { starts_at: Some(at), ..alert }
}

fn held(world: &World) -> Option<Guard> {
    world.latest().held.as_ref().map(|held| held.guard)
}

/// v2 was rolled back, fixed and activated again; its earlier alert still fires, and Prometheus can be asked.
fn activated_again() -> World {
    let mut world = World::with_a_fresh_release();
    world.policy.verify = true;
    world.alert(since(critical("v2"), world.now));
    world.pass(minutes(10));
    world.activate("v2", true);
    world
}

fn says(world: &mut World, verdict: Verdict) {
    world.says = Some(Finding::new(verdict, "error ratio 7.00 %"));
}

#[test]
fn forced_activation_survives_an_alert_from_before_it() {
    let mut world = activated_again();
    says(&mut world, Verdict::Healthy);
    assert_eq!((world.phase(), held(&world)), (PhaseKind::AwaitingDecision, Some(Guard::PredatesActivation)));
    assert_eq!(world.latest().deadline(), Some(world.now.plus(minutes(2))), "people are asked at once");
    for _ in 0..20 {
        world.pass(minutes(1));
        world.alert(critical("v2"));
        assert_eq!(world.served(), "v2");
    }
}

#[test]
fn acts_once_requests_since_the_activation_are_bad_too() {
    let mut world = activated_again();
    says(&mut world, Verdict::NoData);
    world.pass(seconds(60));
    assert_eq!(world.served(), "v2");
    says(&mut world, Verdict::Unhealthy);
    world.pass(seconds(30));
    assert_eq!((world.served(), world.phase()), ("v1", PhaseKind::Verifying), "within 90 s of the activation");
    assert_eq!(world.latest().switch.as_ref().map(|switch| switch.mode), Some(SwitchMode::Auto));
}

#[test]
fn whatever_else_holds_it_holds_it_still_when_the_requests_are_bad() {
    let mut world = activated_again();
    world.paused = Some("dana".to_owned());
    says(&mut world, Verdict::Unhealthy);
    world.pass(minutes(2));
    assert_eq!(world.served(), "v2");
    world.paused = None;
    assert_eq!(world.alert(critical("v2")), "rolled_back alert", "it need not be asked about again");
}

#[test]
fn where_nobody_can_be_asked_it_acts_after_five_minutes_of_firing() {
    for verify in [false, true] {
        let mut world = World::with_a_fresh_release();
        world.policy.verify = verify;
        world.alert(since(critical("v2"), world.now));
        world.pass(minutes(10));
        world.activate("v2", true);
        says(&mut world, Verdict::Unknown);
        world.pass(Policy::PREDATES - seconds(1));
        assert_eq!(world.served(), "v2", "{verify}");
        world.pass(seconds(31));
        assert_eq!(world.served(), "v1", "{verify}");
    }
}

#[test]
fn an_alert_that_ends_before_that_rolls_nothing_back() {
    let mut world = World::with_a_fresh_release();
    world.alert(since(critical("v2"), world.now));
    world.pass(minutes(10));
    world.activate("v2", true);
    world.pass(minutes(1));
    world.alert(critical("v2").resolved());
    world.pass(hours(1));
    assert_eq!((world.served(), world.phase()), ("v2", PhaseKind::Resolved));
}

#[test]
fn a_value_set_again_and_a_change_of_share_are_no_activation() {
    let mut world = World::with_a_fresh_release();
    let before = world.state.version(&v("v2")).and_then(|record| record.traffic_since);
    world.set_active("v2");
    world.look();
    world.activate("v2", true);
    assert_eq!(world.state.version(&v("v2")).and_then(|record| record.traffic_since), before);
    world.register("v3");
    world.share("v3", TrafficShare::Percent(10), false);
    let began = world.now;
    world.pass(minutes(5));
    world.share("v3", TrafficShare::Percent(80), false);
    world.share("v3", TrafficShare::All, false);
    assert_eq!(world.state.version(&v("v3")).and_then(|record| record.traffic_since), Some(began));
}

#[test]
fn a_canary_is_not_ended_by_an_alert_that_began_before_it() {
    let mut world = World::with_a_fresh_release();
    world.register("v3");
    assert!(world.alert(since(high("v3"), world.now)).starts_with("ignored"));
    world.pass(minutes(1));
    let canary = TrafficShare::Canary(Policy::default().canary.usual.plan);
    assert!(matches!(world.share("v3", canary, false), Answer::Shared { .. }));
    assert_eq!((world.phase(), held(&world)), (PhaseKind::AwaitingDecision, Some(Guard::PredatesActivation)));
    assert!(world.state.running_canary().is_some());
    world.pass(minutes(6));
    assert!(world.state.running_canary().is_none(), "it fires for five minutes");
}

#[test]
fn a_moment_long_before_the_version_was_known_says_nothing() {
    let mut world = World::with_a_fresh_release();
    let long_ago = world.now.minus(hours(24 * 7));
    assert_eq!(world.alert(since(critical("v2"), long_ago)), "rolled_back alert");
}

#[test]
fn whoever_keeps_putting_a_version_back_is_asked_about_once() {
    let mut world = World::with_a_fresh_release();
    let mut rolled_back = 0;
    for minute in 0..30 {
        let fires = since(critical("v2").named(&format!("Outbreak{minute}")), world.now);
        rolled_back += usize::from(world.alert(fires.clone()) == "rolled_back alert");
        world.alert(fires.resolved());
        world.pass(seconds(30));
        if world.served() == "v1" {
            world.set_active("v2");
            world.look();
        }
        world.pass(seconds(30));
    }
    assert_eq!(rolled_back, Policy::RETURNS, "and not thirty times");
    assert_eq!((world.served(), held(&world)), ("v2", Some(Guard::KeepsReturning)));
    let asking = world.state.open_incidents().count();
    assert!(asking <= 1, "one incident, one question");
    let detail = &world.latest().held.as_ref().expect("held").detail;
    assert!(detail.starts_with("external has reactivated v2 3 times"), "{detail}");
}

#[test]
fn different_hands_do_not_add_up() {
    let mut world = World::with_a_fresh_release();
    for by in ["external", "dana", "external", "dana"] {
        let fires = since(critical("v2"), world.now);
        assert_eq!(world.alert(fires.clone()), "rolled_back alert", "{by}");
        world.alert(fires.resolved());
        world.pass(seconds(30));
        match by {
            "dana" => drop(world.activate("v2", true)),
            _ => {
                world.set_active("v2");
                world.look();
            }
        }
        world.pass(seconds(30));
    }
}

#[test]
fn fifty_flaps_do_not_end_a_page() {
    let mut world = World::with_a_fresh_release();
    world.alert(high("v2"));
    world.pass(minutes(6));
    assert!(world.latest().pages());
    for n in 0..120 {
        let flapping = medium("v2").named(&format!("Flap{}", n % 3));
        world.alert(flapping.clone());
        world.alert(flapping.resolved());
    }
    assert!(world.latest().pages() && world.latest().paged);
    world.choose(Choice::Dismiss);
    assert!(world.latest().paged, "the page is still to be ended");
}

#[test]
fn retrying_a_version_asks_about_alerts_of_its_last_incident() {
    let mut world = World::with_a_fresh_release();
    world.alert(critical("v2"));
    world.pass(seconds(20));
    let canary = TrafficShare::Canary(Policy::default().canary.usual.plan);
    assert!(matches!(world.share("v2", canary, true), Answer::Shared { .. }));
    assert_eq!((world.phase(), held(&world)), (PhaseKind::AwaitingDecision, Some(Guard::PredatesActivation)));
    assert_eq!(world.incidents.len(), 2);
}

#[test]
fn what_a_closing_incident_heard_long_ago_does_not_hide_what_fires_now() {
    let mut world = World::with_a_fresh_release();
    world.policy.verify = true;
    world.alert(high("v2"));
    world.release("v3"); // the incident continues with it
    world.step_clock(24 * 3_600);
    let worse = Alert { fingerprint: high("v2").fingerprint, ..critical("v2") };
    assert_eq!(world.alert(worse), "ignored not_active");
    world.set_active("v2");
    world.look();
    assert_eq!((world.latest().version.as_str(), world.phase()), ("v2", PhaseKind::AwaitingDecision));
    assert_eq!(world.latest().severity, Severity::Critical);
}

#[test]
fn an_alert_that_fires_anew_after_months_is_heard_now_and_not_then() {
    let mut world = World::with_a_fresh_release();
    let first = Alert { starts_at: None, ..critical("v3") };
    world.register_text("v3");
    world.alert(first.clone());
    world.activate("v3", false);
    world.step_clock(170 * 24 * 3_600);
    world.alert(Alert { starts_at: Some(world.now.minus(hours(1))), ..first });
    world.activate("v3", true);
    let asked = world.state.open_incidents().any(|i| i.version == v("v3") && i.switch.is_none());
    assert!(asked, "{:?}", world.state.incidents);
}

#[test]
fn returns_by_one_hand_count_whoever_returns_it_in_between() {
    let mut world = World::with_a_fresh_release();
    world.policy.cooldown = Duration::ZERO;
    let mut rolled_back = 0;
    for n in 0..10 {
        let alert = since(critical("v2"), world.now);
        rolled_back += usize::from(world.alert(alert.clone()).starts_with("rolled_back"));
        world.alert(alert.ended_at(world.now));
        world.pass(minutes(1));
        if n % 2 == 0 {
            world.set_active("v2");
            world.look();
        } else if world.served() != "v2" {
            world.activate("v2", true);
        }
        world.pass(minutes(2));
    }
    assert_eq!(rolled_back, 2 * Policy::RETURNS - 1, "the third return by the first hand");
}

#[test]
fn the_check_of_an_early_alert_survives_an_investigation() {
    for investigates in [true, false] {
        let mut world = World::with_a_fresh_release();
        (world.policy.verify, world.policy.confirm) = (true, !investigates);
        world.register("v3");
        world.says = Some(Finding::new(Verdict::Healthy, "fine"));
        world.alert(since(critical("v3"), world.now.minus(minutes(1))));
        world.activate("v3", false);
        assert_eq!((held(&world), world.latest().recheck().is_some()), (Some(Guard::PredatesActivation), true));
        world.choose(if investigates { Choice::Investigate } else { Choice::Approve });
        world.pass(minutes(3));
        assert_eq!((world.phase(), world.latest().recheck().is_some()), (PhaseKind::AwaitingDecision, true));
        world.says = Some(Finding::new(Verdict::Unhealthy, "5 of 20 fail"));
        world.pass(minutes(1));
        assert_ne!(world.served(), "v3");
    }
}

/// An answer about an earlier activation.
#[test]
fn an_answer_about_an_earlier_activation_does_not_count() {
    let mut world = World::with_a_fresh_release();
    world.policy.verify = true;
    world.alert(critical("v2").starting(world.now));
    world.pass(minutes(10));
    world.activate("v2", true);
    says(&mut world, Verdict::NoData);
    world.pass(minutes(3));
    assert!(world.latest().pages());
    let id = world.latest().id.clone();
    let since = world.latest().recheck().expect("a check").since;
    // Prometheus is asked now; before it answers, the key goes to v3 and back
    world.register("v3");
    world.set_active("v3");
    world.look();
    world.pass(seconds(1));
    world.set_active("v2");
    world.look();
    assert_eq!(world.served(), "v2");
    world.happens(&Event::Rechecked { incident: id, since, finding: Finding::new(Verdict::Unhealthy, "before v3") });
    assert_eq!(world.served(), "v2", "nothing is known of the requests since");
}
