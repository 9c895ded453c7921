//! Content: where it is, and for how long.

use super::world::{refusal, registration};
use super::*;

/// v1 … v6 were served one after another, and all soaked; v6 serves. The archive is on, and all its work is done.
pub(super) fn archived() -> World {
    let mut world = World::new();
    world.policy.archive = true;
    for n in 1..=6 {
        world.release_text(&format!("v{n}"));
        world.pass(hours(2));
    }
    world.tidy();
    world
}

fn days(n: u64) -> Duration {
    hours(24 * n)
}

fn in_redis(world: &World) -> String {
    world.contents.keys().map(VersionName::as_str).collect::<Vec<_>>().join(" ")
}

fn to(version: &str, force: bool) -> Rollback {
    Rollback {
        target: Some(v(version)),
        from: None,
        reason: "because".to_owned(),
        operator: Operator::recorded("dana"),
        force,
        gradual: None,
    }
}

fn lose(world: &mut World, version: &str) {
    world.files.as_mut().expect("an archive").remove(&v(version));
}

fn restore(world: &mut World, version: &str) -> Answer {
    world.happens(&Event::Restore { version: v(version) }).answer
}

#[test]
fn the_newest_known_good_versions_stay_and_older_ones_go() {
    let world = archived();
    assert_eq!(in_redis(&world), "v4 v5 v6");
    assert_eq!(world.files.as_ref().map(|files| files.len()), Some(3));
    assert_eq!(world.state.versions.iter().filter(|r| r.has_content).count(), 6, "an archived text is still one");
}

#[test]
fn without_an_archive_texts_stay_for_their_time() {
    let mut world = archived();
    let mut off = World::new();
    for n in 1..=6 {
        off.release_text(&format!("v{n}"));
        off.pass(hours(2));
    }
    off.tidy();
    assert_eq!(in_redis(&off), "v1 v2 v3 v4 v5 v6");
    for world in [&mut world, &mut off] {
        world.pass(days(179));
        world.tidy();
        assert_eq!(world.state.versions.iter().filter(|r| r.has_content).count(), 6);
        world.pass(days(2));
        world.tidy();
        assert_eq!(in_redis(world), "v4 v5 v6", "what may be rolled back to is never forgotten");
        assert_eq!(world.state.versions.iter().filter(|r| r.has_content).count(), 3);
        assert_eq!(world.state.versions.len(), 6);
    }
    assert_eq!(world.files, Some(Default::default()));
}

#[test]
fn what_is_needed_stays_whatever_its_age() {
    // a change to the world of `archived`, and the content that is in Redis afterwards
    type Story = (&'static str, fn(&mut World), &'static str);
    let stories: [Story; 8] = [
        ("staged", |w| drop(w.register_text("v7")), "v4 v5 v6 v7"),
        (
            "staged and trusted",
            |w| {
                w.register_text("v7");
                w.mark_known_good("v7");
            },
            "v4 v5 v6 v7",
        ),
        ("new, soaking", |w| w.release_text("v7"), "v4 v5 v6 v7"),
        (
            "a canary",
            |w| {
                w.register_text("v7");
                w.share("v7", TrafficShare::Percent(10), false);
            },
            "v4 v5 v6 v7",
        ),
        (
            "rolled back",
            |w| {
                w.release_text("v7");
                w.alert(critical("v7"));
            },
            "v4 v5 v6 v7",
        ),
        (
            "an incident",
            |w| {
                w.release_text("v7");
                w.alert(high("v7"));
            },
            "v4 v5 v6 v7",
        ),
        ("SET manually", |w| w.set_active("v1"), "v1 v5 v6"),
        (
            "one more known-good",
            |w| {
                w.release_text("v7");
                w.pass(hours(2));
            },
            "v5 v6 v7",
        ),
    ];
    for (what, happens, expected) in stories {
        let mut world = archived();
        happens(&mut world);
        world.look();
        world.tidy();
        assert_eq!(in_redis(&world), expected, "{what}");
    }
}

#[test]
fn the_text_of_what_becomes_a_target_comes_back() {
    let mut world = archived();
    for (bad, target) in [("v6", "v5"), ("v5", "v4"), ("v4", "v3")] {
        world.pass(hours(1));
        assert_eq!(world.alert(critical(bad)), "rolled_back alert");
        assert_eq!(world.served(), target);
        world.tidy();
        assert!(!world.is_archived(target));
    }
    assert_eq!(in_redis(&world), "v1 v2 v3 v4 v5 v6", "all of them may be needed");
    world.pass(days(40));
    world.tidy();
    assert!(world.is_archived("v6"), "rolled back long ago");
}

#[test]
fn an_automatic_rollback_waits_for_its_targets_text() {
    for (files, says, served, phase) in [
        (true, Verdict::NoData, "v3", PhaseKind::Verifying),
        (true, Verdict::Healthy, "v3", PhaseKind::Verifying), // Prometheus is not asked about it
        (false, Verdict::NoData, "v6", PhaseKind::AwaitingDecision),
    ] {
        let mut world = archived();
        for version in ["v4", "v5"] {
            world.state.version_mut(&v(version)).expect("known").known_good = None;
        }
        world.says = Some(Finding::new(says, "figures"));
        if !files {
            lose(&mut world, "v3");
        }
        assert_eq!(world.alert(critical("v6")), "held confirming");
        assert_eq!(world.served(), "v6", "not before the text is there");
        world.pass(seconds(0));
        assert_eq!((world.served(), world.phase()), (served, phase));
        assert_eq!(world.is_archived("v3"), !files);
        if !files {
            let held = world.latest().held.clone().expect("held");
            assert!(held.detail.contains("content of v3") && held.detail.contains("missing"), "{}", held.detail);
        }
    }
}

#[test]
fn a_persons_rollback_waits_for_its_targets_text() {
    for confirm in [false, true] {
        for force in [false, true] {
            let mut world = archived();
            (world.policy.confirm, world.policy.verify) = (confirm, confirm);
            let answer = world.roll_back(to("v1", force));
            assert!(matches!(answer, Answer::Confirming { .. }), "{answer:?}");
            assert_eq!(world.served(), "v6");
            world.pass(seconds(0));
            assert_eq!((world.served(), world.phase()), ("v1", PhaseKind::Verifying), "{confirm} {force}");
            assert_eq!(world.contents[&v("v1")], "text of v1");
        }
    }
}

#[test]
fn missing_content_is_an_objection_to_an_automatic_rollback() {
    type Fault = (&'static str, fn(&mut World));
    let faults: [Fault; 4] = [
        ("its file is missing", |w| lose(w, "v1")),
        ("its file is damaged", |w| drop(w.files.as_mut().expect("files").insert(v("v1"), "other".to_owned()))),
        ("no such directory", |w| w.unplugged = w.files.take().expect("files")),
        ("was not restored in time", |w| w.says = None), // the worker is dead
    ];
    for (why, fault) in faults {
        let mut world = archived();
        fault(&mut world);
        world.roll_back(to("v1", false));
        world.pass(seconds(15));
        assert_eq!((world.served(), world.phase()), ("v6", PhaseKind::AwaitingDecision), "{why}");
        let objection = world.latest().objection().expect("an objection");
        assert!(objection.kind == ObjectionKind::ContentMissing && objection.text.contains(why), "{objection:?}");
        // another request tries again, and does not switch either
        world.roll_back(to("v1", false));
        world.pass(seconds(15));
        assert_eq!((world.served(), world.phase()), ("v6", PhaseKind::AwaitingDecision), "{why}");
        if world.says.is_some() {
            world.roll_back(to("v1", true));
            assert_eq!(world.served(), "v1", "said knowingly: {why}");
        }
    }
}

#[test]
fn the_second_request_goes_on_once_the_text_is_there() {
    let mut world = archived();
    world.unplugged = world.files.take().expect("files");
    world.roll_back(to("v1", false));
    world.pass(seconds(1));
    assert_eq!(world.served(), "v6");
    world.files = Some(std::mem::take(&mut world.unplugged));
    world.roll_back(to("v1", false));
    world.pass(seconds(1));
    assert_eq!(world.served(), "v1");
}

#[test]
fn a_gradual_rollback_begins_with_the_text() {
    let mut world = archived();
    let gradual = Some(world.policy.gradual.clone());
    world.roll_back(Rollback { gradual, ..to("v1", false) });
    assert!(world.routing.is_empty());
    world.pass(seconds(0));
    assert_eq!((world.routing.len(), world.is_archived("v1")), (2, false));
}

#[test]
fn no_canary_begins_while_a_gradual_rollback_waits_to() {
    let mut world = archived();
    let gradual = Some(world.policy.gradual.clone());
    world.roll_back(Rollback { gradual, ..to("v1", false) });
    world.register_text("v7");
    assert_eq!(refusal(&world.share("v7", TrafficShare::Percent(5), false)), RefusalCode::SplitUnderWay);
    world.pass(seconds(0));
    assert_eq!(world.state.split().map(|split| split.arriving.clone()), Some(v("v1")));
}

#[test]
fn what_nothing_could_wait_for_is_refused() {
    let mut world = archived();
    assert_eq!(refusal(&world.activate("v1", false)), RefusalCode::Archived);
    assert_eq!(refusal(&world.activate("v1", true)), RefusalCode::Archived, "force says nothing about texts yet");
    assert_eq!(refusal(&world.share("v1", TrafficShare::Percent(5), false)), RefusalCode::Archived);
    world.register_text("v7");
    world.share("v7", TrafficShare::Percent(5), false);
    assert_eq!(refusal(&world.roll_back(to("v1", false))), RefusalCode::Archived);
    assert_eq!(restore(&mut world, "v1"), Answer::Restoring { ready: false });
    world.tidy();
    assert!(matches!(world.roll_back(to("v1", false)), Answer::Changed { .. }));
}

#[test]
fn a_text_is_brought_back_for_a_week() {
    let mut world = archived();
    world.pass(days(5));
    assert_eq!(restore(&mut world, "v6"), Answer::Restoring { ready: true });
    assert_eq!(restore(&mut world, "v1"), Answer::Restoring { ready: false });
    world.tidy();
    assert_eq!(in_redis(&world), "v1 v4 v5 v6");
    assert_eq!(restore(&mut world, "v1"), Answer::Restoring { ready: true });
    world.pass(days(6));
    world.tidy();
    assert!(!world.is_archived("v1"));
    world.pass(days(2));
    world.tidy();
    assert_eq!(in_redis(&world), "v4 v5 v6");
    world.pass(days(170));
    world.tidy();
    assert!(world.state.version(&v("v1")).is_some_and(|r| r.has_content), "it was of use later than the others");
    assert!(world.state.version(&v("v2")).is_some_and(|r| !r.has_content));
    assert_eq!(refusal(&restore(&mut world, "v2")), RefusalCode::NoText);
    assert_eq!(refusal(&restore(&mut world, "v9")), RefusalCode::UnknownVersion);
    world.policy.archive = false;
    assert_eq!(refusal(&restore(&mut world, "v1")), RefusalCode::Archived);
}

#[test]
fn an_archive_that_fails_drops_nothing_and_is_tried_again() {
    let mut world = archived();
    world.unplugged = world.files.take().expect("files");
    world.release_text("v7");
    world.pass(hours(2));
    world.tidy();
    assert_eq!(in_redis(&world), "v4 v5 v6 v7");
    restore(&mut world, "v1");
    world.tidy();
    assert!(world.is_archived("v1"));
    world.files = Some(std::mem::take(&mut world.unplugged));
    world.tidy();
    assert_eq!(in_redis(&world), "v1 v5 v6 v7");
}

#[test]
fn a_late_report_of_archiving_drops_nothing_that_is_needed_or_differs() {
    let text = "text of v4".to_owned();
    let late = |text: &str| Event::ArchiveReport(ArchiveReport::Archived { version: v("v4"), text: text.to_owned() });
    let mut world = archived();
    world.happens(&late(&text));
    assert_eq!(in_redis(&world), "v4 v5 v6", "still needed");
    world.release_text("v7");
    world.pass(hours(2));
    world.happens(&late("another text"));
    assert_eq!(in_redis(&world), "v4 v5 v6 v7", "not what is in Redis");
    world.happens(&Event::ArchiveReport(ArchiveReport::Expired { version: v("v4") }));
    assert_eq!(in_redis(&world), "v4 v5 v6 v7", "its time is not over");
    world.happens(&late(&text));
    assert_eq!(in_redis(&world), "v5 v6 v7");
}

#[test]
fn a_version_never_changes_wherever_its_text_is() {
    let mut world = archived();
    let before = world.state.clone();
    assert_eq!(world.register_text("v1"), Answer::Registered { created: false, known_good: true });
    assert_eq!(world.state, before, "it stays in the archive");
    let other = Register { content: Some("other".to_owned()), ..registration("v1") };
    assert_eq!(refusal(&world.happens(&Event::Register(other.clone())).answer), RefusalCode::Differs);
    // lost, and registered again with the content
    lose(&mut world, "v1");
    restore(&mut world, "v1");
    world.tidy();
    assert_eq!(refusal(&world.happens(&Event::Register(other)).answer), RefusalCode::Differs);
    world.register_text("v1");
    assert_eq!(world.contents[&v("v1")], "text of v1");
    assert!(!world.is_archived("v1"));
}

#[test]
fn a_text_that_someone_deleted_in_redis_is_noticed() {
    let mut world = archived();
    world.contents.remove(&v("v4"));
    world.release_text("v7");
    world.pass(hours(2));
    world.tidy();
    assert!(world.state.version(&v("v4")).is_some_and(|r| !r.has_content && r.archived.is_none()));
}

#[test]
fn trying_again_for_the_content_asks_prometheus_all_the_same() {
    let mut world = archived();
    (world.policy.confirm, world.policy.verify) = (true, true);
    world.says = Some(Finding::new(Verdict::Healthy, "0.1 %"));
    world.unplugged = world.files.take().expect("files");
    world.roll_back(to("v1", false));
    world.pass(seconds(1));
    assert_eq!(world.latest().objection().map(|o| o.kind), Some(ObjectionKind::ContentMissing));
    world.files = Some(std::mem::take(&mut world.unplugged));
    world.roll_back(to("v1", false));
    world.pass(seconds(1));
    assert_eq!(world.served(), "v6");
    assert_eq!(world.latest().objection().map(|o| o.kind), Some(ObjectionKind::Changed));
}
