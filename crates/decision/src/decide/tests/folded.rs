//! Several alerts in one delivery.

use super::*;

#[test]
fn a_critical_and_a_high_make_one_rollback_and_incident() {
    for order in [[critical("v2"), high("v2")], [high("v2"), critical("v2")]] {
        let mut world = World::with_a_fresh_release();
        let said = world.deliver(&order);
        let expected = order.each_ref().map(|a| match a.trigger.action {
            Action::Rollback => "rolled_back alert",
            _ => "incident_opened page",
        });
        // the second one joins the incident that the first opened
        assert_eq!(said[0], expected[0]);
        assert!(said[1] == expected[1] || said[1] == "incident_updated joined", "{said:?}");
        assert_eq!((world.rollbacks(), world.incidents.len()), (vec!["v2>v1".to_owned()], 1));
        assert!(!world.would_write(&order));
    }
}

#[test]
fn many_criticals_of_one_version_roll_back_once() {
    let mut world = World::with_a_fresh_release();
    let many: Vec<Alert> = (0..50).map(|n| critical("v2").named(&format!("Row{n}"))).collect();
    assert!(world.deliver(&many).iter().all(|said| said == "rolled_back alert"));
    assert_eq!(world.rollbacks().len(), 1);
    assert!(!world.would_write(&many));
}

#[test]
fn a_target_alert_in_the_delivery_holds_in_either_order() {
    for order in [[critical("v2"), high("v1")], [high("v1"), critical("v2")]] {
        let mut world = World::with_a_fresh_release();
        let said = world.deliver(&order);
        let of = |version: &str| said[order.iter().position(|a| a.version == v(version)).unwrap()].as_str();
        assert_eq!((of("v2"), of("v1")), ("held target_unhealthy", "ignored not_active"));
        assert_eq!(world.served(), "v2");
    }
}

#[test]
fn a_resolved_target_alert_frees_in_either_order() {
    for order in [[critical("v2"), high("v1").resolved()], [high("v1").resolved(), critical("v2")]] {
        let mut world = World::with_a_fresh_release();
        world.alert(high("v1"));
        assert!(world.deliver(&order).contains(&"rolled_back alert".to_owned()));
        assert_eq!(world.served(), "v1");
    }
}

#[test]
fn one_end_among_firing_alerts_ends_only_that_one() {
    let mut world = World::with_a_fresh_release();
    world.deliver(&[high("v2"), recommend("v2")]);
    let said = world.deliver(&[high("v2").resolved(), recommend("v2"), medium("v2")]);
    assert_eq!(said, ["resolved resolved", "duplicate duplicate", "incident_updated joined"]);
    let still: Vec<_> = world.latest().alerts.iter().filter(|a| a.firing).map(|a| a.alertname.as_str()).collect();
    assert_eq!(still, ["QualityDropHigh", "QualityDrop"]);
    assert_eq!(world.latest().quiet_since, None);
    assert_eq!(world.alert(high("v2").resolved()), "duplicate duplicate");
}

#[test]
fn a_delivery_about_old_and_new_version_answers_each_alert_in_its_place() {
    let mut world = World::with_a_fresh_release();
    let said = world.deliver(&[high("v9"), critical("v2"), medium("v9").resolved(), high("v2")]);
    let expected = ["ignored unknown_version", "rolled_back alert", "ignored unknown_alert", "incident_updated joined"];
    assert_eq!(said, expected);
}

#[test]
fn a_delivery_can_not_roll_back_onwards_from_the_target() {
    let mut world = World::new();
    for version in ["v0", "v1"] {
        world.release(version);
        world.pass(hours(2));
    }
    world.release("v2");
    // v1 is unhealthy: one step to v0, instead of one to v1 and another from there
    let said = world.deliver(&[critical("v2"), critical("v1")]);
    assert_eq!(said, ["rolled_back alert", "ignored not_active"]);
    assert_eq!(world.rollbacks(), ["v2>v0"]);
}
