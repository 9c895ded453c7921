//! Incidents whose external fields contain anything.

use proptest::prelude::*;

use super::*;
use crate::decision::Measure;

const NASTY: [&str; 16] = [
    "<!channel>",
    "<!here|x>",
    "@here",
    "@everyone",
    "<@U012AB3CD>",
    "<!subteam^S999>",
    "<script>alert(1)</script>",
    "*_~`bold`~_*",
    "```",
    "<https://evil.example|Runbook>",
    ":tada:",
    "🙂👩‍👩‍👧",
    "&amp;lt;!channel&gt;",
    "> quote",
    "\u{202e}\r\n\u{0}",
    "<!date^0^{date}|x>",
];

fn text() -> impl Strategy<Value = String> {
    let piece =
        prop_oneof![prop::sample::select(&NASTY[..]).prop_map(str::to_owned), "\\PC{0,40}", "[<>&`*_~|\\n ]{0,20}"];
    let some = prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat());
    prop_oneof![
        8 => some.boxed(),
        1 => prop::sample::select(&NASTY[..]).prop_map(|nasty| nasty.repeat(4_000 / nasty.len())).boxed(),
    ]
}

fn url() -> impl Strategy<Value = String> {
    prop_oneof![text(), text().prop_map(|t| format!("https://a.example/{t}")), "https://[a-z&|<>]{1,2000}"]
}

fn moment() -> impl Strategy<Value = Timestamp> {
    prop_oneof![Just(NOW), any::<i64>().prop_map(Timestamp), Just(Timestamp(i64::MIN)), Just(Timestamp(i64::MAX))]
}

fn version_name() -> impl Strategy<Value = VersionName> {
    prop_oneof!["[A-Za-z0-9][A-Za-z0-9._:+-]{0,63}", "[A-Za-z0-9][._:+-]{63}"].prop_map(|name| version(&name))
}

fn record() -> impl Strategy<Value = AlertRecord> {
    let texts = (text(), text(), text(), text());
    let urls = (url(), url(), url(), url());
    (texts, urls, any::<bool>(), prop::option::of(moment())).prop_map(|(texts, urls, firing, starts_at)| AlertRecord {
        alertname: texts.0,
        summary: texts.1,
        description: texts.2,
        measure: Measure { reference: texts.3.clone(), ..Measure::default() },
        value: texts.3,
        runbook_url: urls.0,
        dashboard_url: urls.1,
        generator_url: urls.2,
        alertmanager_url: urls.3,
        firing,
        starts_at,
        ..alert("", Severity::High, Action::Page)
    })
}

prop_compose! {
    fn incident()(
        prompt in prop_oneof!["[A-Za-z0-9][A-Za-z0-9._/-]{0,127}", "[ -~]{1,60}", "[<>!@#&`*_~| a\\n\u{202e}ä🙂-]{1,40}"]
            .prop_filter_map("a name", |name| PromptName::of(&name).ok()),
        versions in prop::collection::vec(version_name(), 2..14),
        phase in prop::sample::select(&PhaseKind::ALL[..]),
        severity in prop::sample::select(&Severity::ALL[..]),
        mode in prop::sample::select(&SwitchMode::ALL[..]),
        switches in any::<bool>(),
        (decider, detail, operator) in (text(), text(), text()),
        held in prop::option::of(prop::sample::select(&Guard::ALL[..])),
        (opened_at, switched_at, deadline) in (moment(), moment(), prop::option::of(moment())),
        (question_number, escalations) in (any::<u32>(), 0..5_u32),
        alerts in prop::collection::vec(record(), 0..6),
        notes in prop::collection::vec((prop::sample::select(&NoteKind::ALL[..]), text()), 0..4),
    ) -> Incident {
        let switch = Switch { at: switched_at, ..switch(versions[0].clone(), versions[1].clone(), mode, &operator) };
        let mut incident = Incident {
            prompt,
            version: versions[0].clone(),
            target: versions.get(1).cloned(),
            choices: versions[1..].to_vec(),
            phase: if phase == PhaseKind::AwaitingDecision { asked(deadline) } else { in_phase(phase) },
            severity, decider, opened_at, question_number, escalations, alerts,
            closed_at: (!phase.is_open()).then_some(switched_at),
            held: held.map(|guard| Held { guard, detail }),
            switch: switches.then_some(switch),
            notes: Vec::new(),
            ..waiting()
        };
        for (kind, text) in notes {
            incident.note(opened_at, kind, text);
        }
        incident
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn slack_takes_every_message_and_only_the_config_calls_people(
        incident in incident(),
        thread in prop::option::of(url()),
        said in prop::collection::vec(text(), 6),
    ) {
        let log = LogLine { at: &said[0], event: &said[1], from: &said[2], to: &said[3], operator: &said[4], reason: &said[5] };
        let deployed = deployed_by(|| said[5].clone());
        for mention in [None, Some(MENTION)] {
            let view = View { incident: &incident, mention, deployed: Some(&deployed) };
            let mut messages = vec![root(&view), overview(&view, thread.as_deref())];
            for kind in NoteKind::ALL {
                messages.push(reply(&view, &Note { seq: 0, at: incident.opened_at, kind, text: said[0].clone() }, &[log; 6]));
            }
            for message in messages {
                prop_assert_eq!(valid::problems(&message, mention), Vec::<String>::new());
            }
        }
    }

    #[test]
    fn no_click_makes_decoding_panic(value in prop_oneof![text(), "[A-Z0-9|]{0,60}", "[A-Z0-9]{26}\\|[0-9]{1,12}\\|[a-z0-9.]{0,70}\\|.{0,70}"]) {
        if let Some(button) = Button::decode(&value) {
            prop_assert_eq!(button.encode(), value);
        }
    }

    #[test]
    fn a_message_to_a_clicker_mentions_nobody(sentence in text()) {
        let told = ephemeral(&sentence);
        prop_assert!(!told.contains(['<', '>']) && told.chars().count() <= 1_000);
    }
}

/// A log in which every word is `text`, shown as often as possible.
fn deployed_by(text: impl Fn() -> String) -> Deployed {
    let placed = || Deployment { version: text(), since: Some(NOW.0), event: text(), operator: text() };
    let other = || Other {
        prompt: text(),
        at: NOW.0,
        event: text(),
        from: text(),
        to: text(),
        operator: text(),
        same_group: true,
    };
    let (in_service, others) = ((0..9).map(|_| placed()).collect(), (0..9).map(|_| other()).collect());
    Deployed { in_service, others, more: usize::MAX, at_least: true }
}

#[test]
fn messages_fit_slacks_limits_with_100_kb_in_every_field() {
    for nasty in NASTY {
        let long = nasty.repeat(1 + 100_000 / nasty.len());
        let text = || long.clone();
        let url = format!("https://a.example/{long}");
        let record = AlertRecord {
            alertname: text(),
            summary: text(),
            description: text(),
            value: text(),
            runbook_url: url.clone(),
            dashboard_url: url.clone(),
            generator_url: url.clone(),
            alertmanager_url: url,
            ..alert("", Severity::Critical, Action::Rollback)
        };
        let (from, to) = (version("v2"), version("v1"));
        for phase in PhaseKind::ALL {
            let mut incident = Incident {
                phase: in_phase(phase),
                alerts: vec![record.clone(); 64],
                decider: text(),
                held: Some(Held { guard: Guard::Budget, detail: text() }),
                never: vec![
                    Never { version: to.clone(), operator: Operator::recorded(text()), reason: text() };
                    Policy::MAX_CHOICES
                ],
                switch: Some(switch(from.clone(), to.clone(), SwitchMode::Manual, &text())),
                ..waiting()
            };
            NoteKind::ALL.into_iter().for_each(|kind| incident.note(NOW, kind, text()));
            let deployed = deployed_by(text);
            let view = View { incident: &incident, mention: Some(MENTION), deployed: Some(&deployed) };
            let messages = [root(&view), overview(&view, None), reply(&view, &incident.notes[1], &LOG)];
            for message in messages {
                assert!(valid::problems(&message, Some(MENTION)).is_empty(), "{phase}: {nasty}");
            }
        }
    }
}

/// External words appear where Slack shows them literally, unchanged.
#[test]
fn text_from_elsewhere_is_shown_as_it_is() {
    for nasty in NASTY.iter().filter(|nasty| !nasty.contains('\r')) {
        let record = AlertRecord { summary: (*nasty).to_owned(), ..alert("A", Severity::High, Action::Page) };
        let held = Held { guard: Guard::Paused, detail: (*nasty).to_owned() };
        let incident = Incident { alerts: vec![record], held: Some(held), ..waiting() };
        let blocks = serde_json::to_value(root(&view(&incident)).blocks).unwrap();
        let literal = |block: &&serde_json::Value| {
            block["text"]["type"] == "plain_text" && block["text"]["text"].as_str().unwrap().contains(nasty)
        };
        assert_eq!(blocks.as_array().unwrap().iter().filter(literal).count(), 2, "{nasty}");
    }
}
