//! Generates the tables of `docs/decisions.md` from decisions: `DECISIONS=write cargo test -p prompt-rollback-decision
//! table` writes the file.

use super::*;
use crate::AlertRecord;

type Kind = (&'static str, fn() -> Alert);

/// A situation that an operator may find, and how it arises.
type State = (&'static str, fn() -> World);

/// What happens, by its name.
type Happening = (&'static str, fn(&mut World));

fn fresh() -> World {
    World::with_a_fresh_release()
}

fn after(alert: Alert) -> World {
    let mut world = fresh();
    world.alert(alert);
    world
}

/// A Prometheus with this verdict about the target after a rollback of v2.
fn verified(verdict: Verdict, time: Duration) -> World {
    let mut world = fresh();
    (world.policy.verify, world.says) = (true, Some(Finding::new(verdict, "error ratio 7.00 %")));
    world.alert(critical("v2"));
    world.pass(time);
    world
}

const STATES: [State; 12] = [
    ("nothing is open", fresh),
    ("`observing`", || after(medium("v2").named("Earlier"))),
    ("`awaiting_decision`", || after(recommend("v2").named("Earlier"))),
    ("`awaiting_decision`, the deadline has passed", || {
        let mut world = after(high("v2").named("Earlier"));
        world.pass(minutes(6));
        world
    }),
    ("`investigating`", || {
        let mut world = after(high("v2").named("Earlier"));
        world.choose(Choice::Investigate);
        world
    }),
    ("`confirming` what a person approved", || {
        let mut world = after(high("v2").named("Earlier"));
        (world.policy.confirm, world.policy.verify) = (true, true);
        world.choose(Choice::Approve);
        world
    }),
    ("gradual `rolling_back`", || {
        let mut world = after(high("v2").named("Earlier"));
        world.choose(Choice::ApproveGradual);
        world
    }),
    ("rolled back, `verifying`", || verified(Verdict::NoData, seconds(20))),
    ("the rollback did not help, `escalated`", || verified(Verdict::Unhealthy, minutes(6))),
    ("v3 was activated while people were paged, `verifying`", || {
        let mut world = fresh();
        world.policy.verify = true;
        world.alert(high("v2"));
        world.pass(minutes(6));
        world.release("v3");
        world
    }),
    ("`resolved` less than an hour ago", || {
        let mut world = after(high("v2"));
        world.alert(high("v2").resolved());
        world.pass(minutes(2));
        world
    }),
    ("`dismissed`, and its alerts still fire", || {
        let mut world = fresh();
        world.paused = Some("dana".to_owned());
        world.deliver(&[critical("v2"), high("v2"), recommend("v2"), medium("v2")]);
        world.choose(Choice::Dismiss);
        world.paused = None;
        world
    }),
];

/// Makes `guard` hold a rollback of v2, which an alert requests.
fn guarded(guard: Guard) -> Option<World> {
    let mut world = fresh();
    match guard {
        Guard::Unconfirmed => return None, // known only after Prometheus was asked
        Guard::PredatesActivation => {
            world.alert(Alert { starts_at: Some(world.now), ..critical("v3") });
            world.register("v3");
            world.pass(minutes(1));
            world.activate("v3", true);
        }
        guard => guards::put(&mut world, guard),
    }
    Some(world)
}

fn row(cells: impl IntoIterator<Item = String>) -> String {
    let cells: Vec<_> = cells.into_iter().collect();
    format!("| {} |\n", cells.join(" | "))
}

fn head(cells: &[&str]) -> String {
    row(cells.iter().map(|cell| (*cell).to_owned())) + &row(cells.iter().map(|_| "---".to_owned()))
}

/// Formats `held paused` as `held{paused}`.
fn said(outcome: &str) -> String {
    let (outcome, reason) = outcome.split_once(' ').expect("an outcome and its reason");
    format!("`{outcome}{{{reason}}}`")
}

/// The incident's state afterwards, and who is notified besides the thread.
fn then(before: &World, after: &World) -> String {
    let Some(incident) = after.incidents.values().next_back() else { return String::new() };
    format!(" → `{}`{}", incident.phase, who_hears(before, incident))
}

/// Who is notified of the change to `incident`, besides the thread.
fn who_hears(before: &World, incident: &Incident) -> &'static str {
    let was = before.incidents.get(&incident.id);
    let asks = incident.phase.kind() == PhaseKind::AwaitingDecision;
    let asked = asks && incident.question_number > was.map_or(0, |was| was.question_number);
    match (incident.pages(), asked) {
        (true, _) => ", paged",
        (false, true) => ", its decider is asked",
        (false, false) if was.is_some_and(Incident::pages) => ", the page ends",
        (false, false) => "",
    }
}

fn alerts() -> String {
    let kinds: [Kind; 4] = [
        ("`action: rollback`", || critical("v2")),
        ("`action: page`", || high("v2")),
        ("`action: recommend`", || recommend("v2")),
        ("`action: observe`", || medium("v2")),
    ];
    let mut table = head(&["state", kinds[0].0, kinds[1].0, kinds[2].0, kinds[3].0]);
    for (name, make) in STATES {
        let cells = kinds.iter().map(|(_, alert)| {
            let before = make();
            let mut world = before.clone();
            let outcome = world.alert(alert());
            said(&outcome) + &then(&before, &world)
        });
        table += &row([name.to_owned()].into_iter().chain(cells));
    }
    for (name, new) in [("v2 is a canary", "v2"), ("v2 is the base version of a canary", "v3")] {
        let cells = kinds.iter().map(|(_, alert)| {
            let mut before = fresh();
            if new == "v2" {
                before.activate("v1", false);
            }
            before.register(new);
            before.share(new, TrafficShare::Percent(5), false);
            let mut world = before.clone();
            let outcome = world.alert(alert());
            format!("{}{}, {}", said(&outcome), then(&before, &world), shares(&world))
        });
        table += &row([name.to_owned()].into_iter().chain(cells));
    }
    for (name, version) in [("the version has no traffic", "v1"), ("the prompt never had the version", "v99")] {
        let cells = kinds.iter().map(|(_, alert)| {
            let alert = alert();
            let mut world = fresh();
            said(&world.alert(Alert { version: v(version), fingerprint: "elsewhere".to_owned(), ..alert }))
        });
        table += &row([name.to_owned()].into_iter().chain(cells));
    }
    table
}

fn held() -> String {
    let mut table = head(&["guard", "an alert with `action: rollback`", "what people read"]);
    for guard in Guard::ALL {
        let Some(mut world) = guarded(guard) else { continue };
        if guard != Guard::PredatesActivation {
            world.alert(critical("v2"));
        }
        let held = world.incidents.values().filter_map(|incident| incident.held.clone()).next_back().expect("held");
        assert_eq!(held.guard, guard);
        table += &row([format!("`{guard}`"), format!("`held{{{guard}}}`, its decider is asked"), held.detail]);
    }
    table
}

/// What has traffic: `v1 25 %, v2 75 %`, or `v1 is served`.
fn shares(world: &World) -> String {
    let shares: Vec<_> = world.routing.iter().map(|(version, percent)| format!("{version} {percent} %")).collect();
    if shares.is_empty() { format!("{} is served", world.served()) } else { shares.join(" and ") }
}

fn people() -> String {
    let choices: [(&str, Choice); 5] = [
        ("Approve", Choice::Approve),
        ("Approve gradually", Choice::ApproveGradual),
        ("Investigate", Choice::Investigate),
        ("Dismiss", Choice::Dismiss),
        ("Undo", Choice::Undo),
    ];
    let mut table = head(&["state", choices[0].0, choices[1].0, choices[2].0, choices[3].0, choices[4].0]);
    for (name, make) in states_of_an_incident() {
        let cells = choices.iter().map(|(_, choice)| {
            let before = make();
            let mut world = before.clone();
            match world.choose(*choice) {
                Answer::Refused(refusal) => format!("refused: `{}`", refusal.code.as_str()),
                _ => format!("`{}`, {}{}", world.phase(), shares(&world), who_hears(&before, world.latest())),
            }
        });
        table += &row([name.to_owned()].into_iter().chain(cells));
    }
    table
}

fn states_of_an_incident() -> impl Iterator<Item = State> {
    STATES.into_iter().filter(|(name, _)| *name != "nothing is open")
}

/// Changes of the key, and the end of the alerts.
fn key() -> String {
    let events: [Happening; 5] = [
        ("all its alerts end, a minute passes", |world| {
            let incident = world.latest().clone();
            let ends = |record: &AlertRecord| record.to_alert(&incident.prompt, &incident.version).resolved();
            world.deliver(&incident.alerts.iter().map(ends).collect::<Vec<_>>());
            world.pass(minutes(1));
        }),
        ("SET of another version", |world| {
            world.set_active("v9");
            world.look();
        }),
        ("SET of v2", |world| {
            world.set_active("v2");
            world.look();
        }),
        ("DEL", |world| {
            world.active = Active::Absent;
            world.look();
        }),
        ("SET of a value that is no version", |world| {
            world.set_value(b"{oops}");
            world.look();
        }),
    ];
    let mut table = head(&["state", events[0].0, events[1].0, events[2].0, events[3].0, events[4].0]);
    for (name, make) in states_of_an_incident() {
        let cells = events.iter().map(|(_, happens)| {
            let before = make();
            let mut world = before.clone();
            happens(&mut world);
            // an incident may end while another one begins
            let id = &before.latest().id;
            let mut cell = format!("`{}`{}", world.incidents[id].phase, who_hears(&before, &world.incidents[id]));
            if world.latest().id != *id {
                cell += &format!("; another incident{}", then(&before, &world));
            }
            cell
        });
        table += &row([name.to_owned()].into_iter().chain(cells));
    }
    table
}

fn time() -> String {
    let mut table = head(&["state", "if nothing else happens, it ends or changes after", "then"]);
    for (name, make) in states_of_an_incident() {
        let before = make();
        if !before.latest().phase.is_open() {
            continue;
        }
        let (mut world, phase) = (before.clone(), before.phase());
        let paged = before.latest().pages();
        let mut waited = Duration::ZERO;
        while world.phase() == phase && world.latest().pages() == paged && waited < hours(25) {
            world.pass(seconds(10));
            waited += seconds(10);
        }
        let (wait, end) = match waited < hours(25) {
            true => (crate::time::spoken(waited), then(&before, &world).trim_start_matches(" → ").to_owned()),
            false => ("never".to_owned(), "a person ends it, paged".to_owned()),
        };
        table += &row([name.to_owned(), wait, end]);
    }
    table
}

#[test]
fn the_tables_for_operators_are_what_is_decided() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/decisions.md");
    let doc = std::fs::read_to_string(path).expect("docs/decisions.md");
    let mut made = doc.clone();
    let tables = [("alerts", alerts()), ("key", key()), ("guards", held()), ("people", people()), ("time", time())];
    for (name, table) in tables {
        let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
        let from = made.find(&begin).expect("the table begins") + begin.len();
        let to = made.find(&end).expect("the table ends");
        made.replace_range(from..to, &format!("\n{table}\n"));
    }
    if std::env::var_os("DECISIONS").is_some() {
        std::fs::write(path, &made).expect("docs/decisions.md is written");
    }
    assert!(doc == made, "docs/decisions.md is out of date: regenerate it with DECISIONS=write");
}
