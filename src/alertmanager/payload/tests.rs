use proptest::prelude::*;

use super::*;

fn names() -> Labels {
    let mut names = crate::config::Config::load(None, std::iter::empty()).unwrap().labels;
    names.version = "version".to_owned();
    names
}

fn parse_text(body: &str) -> Result<Vec<Delivered>, BadPayload> {
    parse(body.as_bytes(), &names(), &Policy::default()).map(|delivery| delivery.alerts)
}

fn body(labels: &str, more: &str) -> String {
    format!(r#"{{"version":"4","alerts":[{{"status":"firing","labels":{{{labels}}},"annotations":{{}}{more}}}]}}"#)
}

fn reason(labels: &str, more: &str) -> &'static str {
    match parse_text(&body(labels, more)).unwrap().remove(0) {
        Delivered::Ignored(ignored) => ignored.why.reason.as_str(),
        Delivered::Alert(_) => "none",
        Delivered::Drill { .. } => "drill",
        Delivered::Heartbeat { .. } => "heartbeat",
    }
}

const GOOD: &str = r#""alertname":"A","prompt":"p","version":"v2","severity":"critical""#;

#[test]
fn real_payloads_are_read() {
    let body = include_str!("../../../tests/fixtures/payloads/group_mixed.json");
    let mut names = names();
    names.version = "prompt_version".to_owned();
    assert!(quick(body, &names, &Policy::default()).is_some(), "in one pass");
    let alerts = parse(body.as_bytes(), &names, &Policy::default()).unwrap().alerts;
    let statuses: Vec<_> = alerts
        .iter()
        .map(|a| match a {
            Delivered::Alert(a) => (a.status, a.version.as_str(), a.trigger.severity),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        statuses,
        [(AlertStatus::Resolved, "v2.0.0", Severity::Critical), (AlertStatus::Firing, "v2.1.0", Severity::Critical)]
    );
}

#[test]
fn alerts_that_were_left_out_are_counted_and_cost_none_of_the_others() {
    let left_out = |count: &str| {
        let body = body(GOOD, "").replacen('{', &format!(r#"{{"truncatedAlerts":{count},"#), 1);
        let delivery = parse(body.as_bytes(), &names(), &Policy::default()).unwrap();
        assert_eq!(delivery.alerts.len(), 1, "{count}");
        delivery.truncated
    };
    assert_eq!(["0", "7", "18446744073709551615"].map(left_out), [0, 7, u64::MAX]);
    // an invalid number is ignored
    assert_eq!(["null", "-1", "1.5", "\"3\"", "[]", "99999999999999999999"].map(left_out), [0; 6]);
    let delivery = parse(body(GOOD, "").as_bytes(), &names(), &Policy::default()).unwrap();
    assert_eq!(delivery.truncated, 0, "Alertmanager before 0.23, and other senders");
}

#[test]
fn a_resolved_alert_says_when_it_ended() {
    let read = |status: &str, ends: &str| {
        let times = format!(r#","startsAt":"2026-11-21T00:00:00Z","endsAt":"{ends}""#);
        let body = body(GOOD, &times).replacen("firing", status, 1);
        match parse_text(&body).unwrap().remove(0) {
            Delivered::Alert(alert) => (alert.starts_at.is_some(), alert.ends_at.map(|at| at.0)),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(read("resolved", "2026-11-21T00:02:00.5Z"), (true, Some(1_795_219_320_500)));
    assert_eq!(read("firing", "0001-01-01T00:00:00Z"), (true, None));
    assert_eq!(read("resolved", "soon"), (true, None));
}

#[test]
fn a_body_that_is_no_delivery_is_refused_with_the_place() {
    let many = format!(r#"{{"alerts":[{}0]}}"#, "0,".repeat(MAX_ALERTS));
    for (body, place) in [
        ("", "body: EOF while parsing a value at line 1 column 0"),
        ("not json", "body: expected ident at line 1 column 2"),
        ("null", "body: invalid type: null, expected an object"),
        ("[]", "body: invalid type: sequence, expected an object"),
        (r#"{"alerts":[{"status":"firing""#, "body: EOF while parsing an object at line 1 column 29"),
        (r#"{"alerts":[]} x"#, "body: trailing characters at line 1 column 15"),
        (r#"{"alerts":[{"status":"firing"}{}]}"#, "body: expected `,` or `]` at line 1 column 31"),
        ("{\"alerts\":[\"\n\"]}", "body: control character"),
        ("{}", "alerts: expected a list of at most 50000 alerts, found nothing"),
        (r#"{"alerts":null}"#, "alerts: expected a list of at most 50000 alerts, found nothing"),
        (r#"{"alerts":{}}"#, "alerts: expected a list of at most 50000 alerts, found an object"),
        (r#"{"alerts":[],"alerts":[]}"#, "alerts: expected a list of at most 50000 alerts, found the field twice"),
        (&many, "alerts: expected a list of at most 50000 alerts, found more"),
        (&"[".repeat(2_000), "body: invalid type: sequence, expected an object"),
    ] {
        let error = parse_text(body).unwrap_err().to_string();
        assert!(error.starts_with(place), "{body:.60}: {error}");
    }
    assert_eq!(parse_text(&many.replace(",0]", "]")).unwrap().len(), MAX_ALERTS);
}

/// An alert that rolls back, with `original` replaced by `replacement`.
fn changed(original: &str, replacement: &str) -> Delivered {
    let good = r#"{"status":"firing","labels":{"alertname":"A","prompt":"p","version":"v2","severity":"critical","team":"x"},
        "annotations":{"summary":"bad","value":"7 %","verify":"up"},"startsAt":"2026-11-21T00:38:16Z",
        "generatorURL":"http://prometheus","fingerprint":"f"}"#;
    assert_eq!(good.matches(original).count(), 1, "{original}");
    let alert = good.replace(original, replacement);
    parse_text(&format!(r#"{{"alerts":[{alert}],"externalURL":"http://alertmanager"}}"#)).unwrap().remove(0)
}

#[test]
fn an_ignored_alert_names_its_prompt_as_answers_do() {
    let long = "é".repeat(60);
    for (name, expected) in [("a b", "a%20b"), ("100%25", "100%2525"), ("p", "p"), (long.as_str(), long.as_str())] {
        let original = r#""firing","labels":{"alertname":"A","prompt":"p""#;
        let ignored = changed(original, &original.replace("firing", "on").replace(r#""p""#, &format!("{name:?}")));
        let Delivered::Ignored(ignored) = ignored else { panic!("{name} is acted upon") };
        assert_eq!(ignored.prompt.as_deref(), Some(expected));
    }
}

#[test]
fn a_malformed_alert_is_ignored_and_says_what_was_expected() {
    for (original, replacement, detail) in [
        (r#""firing""#, r#""on""#, r#"status: expected "firing" or "resolved", found "on""#),
        (r#""firing""#, r#""re\"\nsolved""#, r#"status: expected "firing" or "resolved", found "re\"\nsolved""#),
        (r#""firing""#, "1", r#"status: expected "firing" or "resolved", found a number"#),
        (r#""firing""#, "null", r#"status: expected "firing" or "resolved", found nothing"#),
        (r#""firing""#, r#"["resolved"]"#, r#"status: expected "firing" or "resolved", found a list"#),
        (r#""status":"firing","#, "", r#"status: expected "firing" or "resolved", found nothing"#),
        (r#""status":"firing""#, r#""status":"firing","status":"resolved""#, "status: expected one value, found two"),
        (r#""p""#, "-5", "labels.prompt: expected a text or a whole number, found a number"),
        (r#""v2""#, "1.10", "labels.version: expected a text or a whole number, found a number"),
        (r#""v2""#, "true", "labels.version: expected a text or a whole number, found true or false"),
        (r#""v2""#, r#"{"name":"v2"}"#, "labels.version: expected a text or a whole number, found an object"),
        (r#""version":"v2""#, r#""version":"v2","version":"v1""#, "labels.version: expected one value, found two"),
        (r#""critical""#, r#""critical","severity":"medium""#, "labels.severity: expected one value, found two"),
        (r#""labels":{"alertname""#, r#""labels":[],"x":{"alertname""#, "labels: expected an object, found a list"),
        (
            r#""labels":{"alertname""#,
            r#""labels":"prompt=p","x":{"alertname""#,
            r#"labels: expected an object, found "prompt=p""#,
        ),
        (r#""bad""#, r#""bad","summary":"good""#, "annotations.summary: expected one value, found two"),
    ] {
        let Delivered::Ignored(ignored) = changed(original, replacement) else { panic!("{replacement} is acted upon") };
        assert_eq!(ignored.why, Why::malformed(detail.to_owned()), "{replacement}");
    }
    for alert in ["null", "5", "true", "\"firing\"", "[]", r#"["firing",{"prompt":"p","version":"v2"}]"#, "1e999"] {
        let Delivered::Ignored(ignored) = parse_text(&format!(r#"{{"alerts":[{alert}]}}"#)).unwrap().remove(0) else {
            panic!("{alert} is acted upon")
        };
        assert!(ignored.why.detail.unwrap().starts_with("alert: expected an object, found "), "{alert}");
    }
}

#[test]
fn a_value_that_decides_nothing_costs_only_itself() {
    let deep = "[".repeat(5_000) + &"]".repeat(5_000);
    for (original, replacement) in [
        (r#""firing""#, r#""FIRING""#),
        (r#""x""#, "null"),
        (r#""x""#, "1e999"),
        (r#""x""#, r#""\ud800""#),
        (r#""x""#, &deep),
        (r#""x""#, r#""x","team":"y""#),
        (r#""bad""#, "null"),
        (r#""bad""#, r#"{"en":"bad"}"#),
        (r#""bad""#, r#""\udc00 bad""#),
        (r#""annotations":{"#, r#""annotations":null,"x":{"#),
        (r#""annotations":{"#, r#""annotations":[],"x":{"#),
        (r#""2026-11-21T00:38:16Z""#, "1763685496"),
        (r#""2026-11-21T00:38:16Z""#, r#""yesterday""#),
        (r#""http://prometheus""#, "null"),
        (r#""http://prometheus""#, "7"),
        (r#""f""#, "18446744073709551616"),
    ] {
        let Delivered::Alert(alert) = changed(original, replacement) else { panic!("{replacement} is not acted upon") };
        assert_eq!((alert.status, alert.trigger.action), (AlertStatus::Firing, crate::decision::Action::Rollback));
        assert_eq!((alert.prompt.as_str(), alert.version.as_str()), ("p", "v2"), "{replacement}");
        assert_eq!(alert.starts_at.is_none(), original.contains("2026"), "{replacement}");
    }
    let Delivered::Alert(alert) = changed(r#""7 %""#, "0.07") else { panic!() };
    assert_eq!((alert.value.as_str(), alert.verify.as_str()), ("0.07", "up"));
    let Delivered::Alert(alert) = changed(r#""up""#, "1") else { panic!() };
    assert_eq!(alert.verify, "", "a number is not a query: 1 would always be healthy");
    let Delivered::Alert(alert) = changed(r#""fingerprint":"f""#, r#""x":1"#) else { panic!() };
    assert!(alert.fingerprint.starts_with("labels-"), "{}", alert.fingerprint);
    let bytes = [&br#"{"externalURL":{},"alerts":[{"status":"firing","labels":{"prompt":"p","version":"v2"},"annotations":{"summary":""#[..], b"caf\xe9", br#""}}]}"#].concat();
    let Delivered::Alert(alert) = parse(&bytes, &names(), &Policy::default()).unwrap().alerts.remove(0) else {
        panic!()
    };
    assert_eq!((alert.summary.as_str(), alert.alertmanager_url.as_str()), ("caf\u{fffd}", ""));
}

#[test]
fn a_label_of_the_wrong_type_is_an_unknown_value_and_rolls_nothing_back() {
    use crate::decision::Action;
    let trigger = |original: &str, replacement: &str| match changed(original, replacement) {
        Delivered::Alert(alert) => alert.trigger,
        other => panic!("{replacement}: {other:?}"),
    };
    for severity in ["5", "true", "[\"critical\"]", "{\"critical\":1}", "null"] {
        let trigger = trigger(r#""critical""#, severity);
        assert_eq!((trigger.severity, trigger.action), (Severity::High, Action::Page), "{severity}");
    }
    for action in ["5", "false", "[\"rollback\"]"] {
        let trigger = trigger(r#""critical""#, &format!(r#""critical","action":{action}"#));
        assert_eq!((trigger.severity, trigger.action, trigger.remarks.len()), (Severity::Critical, Action::Page, 1));
    }
    let trigger = trigger(r#""critical""#, r#""critical","time_limit":300,"decider":7"#);
    assert_eq!((trigger.time_limit.as_secs(), trigger.decider.as_str()), (120, "on-call"), "{:?}", trigger.remarks);
    assert_eq!(trigger.remarks.len(), 2, "{:?}", trigger.remarks);
    let Delivered::Ignored(ignored) = changed(r#""x""#, r#""x","prompt_rollback_drill":1"#) else { panic!() };
    assert_eq!(ignored.why.reason.as_str(), "unknown_drill");
    let Delivered::Ignored(ignored) = changed(r#""labels":{"#, r#""labels":null,"x":{"#) else { panic!() };
    assert_eq!(ignored.why.reason.as_str(), "invalid_name", "no labels at all");
    let Delivered::Alert(alert) = changed(r#""firing""#, r#""Resolved""#) else { panic!() };
    assert_eq!(alert.status, AlertStatus::Resolved);
}

#[test]
fn a_malformed_alert_is_called_by_what_can_be_read_of_it() {
    let called = |delivered: Delivered| match delivered {
        Delivered::Ignored(i) => (i.fingerprint, i.prompt, i.version, i.severity),
        other => panic!("{other:?}"),
    };
    let some = |text: &str| Some(text.to_owned());
    let no_status = called(changed(r#""firing""#, "0"));
    assert_eq!(no_status, ("f".to_owned(), some("p"), some("v2"), Severity::Critical));
    assert_eq!(called(changed(r#""v2""#, "2.10")).2, some("2.10"));
    let alert = |text: &str| called(parse_text(&format!(r#"{{"alerts":[{text}]}}"#)).unwrap().remove(0));
    let fingerprint = alert(r#"{"labels":{"prompt":"p","version":"v2"}}"#).0;
    assert!(fingerprint.starts_with("labels-"), "{fingerprint}");
    let (fingerprint, prompt, version, severity) = alert("null");
    assert!(fingerprint.starts_with("alert-"), "{fingerprint}");
    assert_eq!((prompt, version, severity), (None, None, Severity::High));
    assert_eq!(alert("null"), alert("null"));
    assert_ne!(alert("null").0, alert("0").0);
}

/// Any JSON, and JSON that many parsers reject.
fn json() -> impl Strategy<Value = String> {
    let odd = [
        "null",
        "true",
        "0",
        "-1.5e300",
        "1e999",
        "123456789012345678901234567890",
        "\"\"",
        r#""\ud800""#,
        r#""\u0000""#,
        "[]",
        "{}",
        r#"{"a":1,"a":2}"#,
        r#""firing""#,
        r#""RESOLVED""#,
        r#""rollback""#,
        r#""critical""#,
        r#""v2""#,
        r#"{"prompt":"p","version":"v2"}"#,
        r#"["firing",{"prompt":"p","version":"v2"}]"#,
        r#"{"$serde_json::private::RawValue":"{}"}"#,
        r#"{"$serde_json::private::Number":"1"}"#,
    ];
    let leaf = prop_oneof![
        4 => prop::sample::select(odd.to_vec()).prop_map(str::to_owned),
        1 => any::<String>().prop_map(|text| serde_json::Value::from(text).to_string()),
        1 => (1..300usize).prop_map(|depth| "[".repeat(depth) + &"]".repeat(depth)),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(", "))),
            prop::collection::vec(("[a-z]{1,3}", inner), 0..4).prop_map(object),
        ]
    })
}

fn object(fields: Vec<(String, String)>) -> String {
    let fields: Vec<_> = fields.iter().map(|(name, value)| format!("{name:?}: {value}")).collect();
    format!("{{{}}}", fields.join(","))
}

fn good(number: u8) -> [Vec<(String, String)>; 2] {
    let own = |pairs: &[(&str, String)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), b.clone())).collect();
    let status = if number.is_multiple_of(3) { "resolved" } else { "firing" };
    let labels = own(&[
        ("alertname", "\"A\"".to_owned()),
        ("prompt", format!("\"p-{}\"", number % 4)),
        ("version", format!("\"v{}\"", number % 5)),
        ("severity", format!("{:?}", ["critical", "high", "medium", "warning"][usize::from(number) % 4])),
        ("team", "\"x\"".to_owned()),
    ]);
    let alert = own(&[
        ("status", format!("{status:?}")),
        ("annotations", "{\"summary\":\"s\\u00e9\"}".to_owned()),
        ("startsAt", "\"2026-11-21T00:38:16Z\"".to_owned()),
        ("fingerprint", format!("\"f{number}\"")),
    ]);
    [alert, labels]
}

fn written_out([mut alert, labels]: [Vec<(String, String)>; 2]) -> String {
    if !labels.is_empty() {
        alert.push(("labels".to_owned(), object(labels)));
    }
    object(alert)
}

/// A good alert, one with a field that is changed, missing or repeated, or something that is not an alert.
fn alert() -> impl Strategy<Value = String> {
    let change = (any::<bool>(), any::<prop::sample::Index>(), 0..3u8, json());
    let spoiled = (any::<u8>(), change).prop_map(|(number, (labels, at, how, value))| {
        let mut parts = good(number);
        let part = &mut parts[usize::from(labels)];
        let at = at.index(part.len());
        match how {
            0 => part[at].1 = value,
            1 => drop(part.remove(at)),
            _ => part.push((part[at].0.clone(), value)),
        }
        written_out(parts)
    });
    prop_oneof![2 => any::<u8>().prop_map(|number| written_out(good(number))), 3 => spoiled, 1 => json()]
}

fn delivery(alerts: &[String]) -> String {
    format!(r#"{{"externalURL":"http://am","alerts":[{}],"version":"4"}}"#, alerts.join(","))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_alert_means_the_same_whatever_stands_beside_it(
        alerts in prop::collection::vec(alert(), 1..8),
        others in prop::collection::vec(json(), 8),
        replaced in any::<u8>(),
    ) {
        let together = parse_text(&delivery(&alerts)).unwrap();
        let is_replaced = |place: usize| replaced & (1 << place) != 0;
        let beside: Vec<_> = (0..alerts.len()).map(|at| if is_replaced(at) { &others[at] } else { &alerts[at] }).cloned().collect();
        let beside = parse_text(&delivery(&beside)).unwrap();
        prop_assert_eq!((together.len(), beside.len()), (alerts.len(), alerts.len()));
        for (at, alert) in alerts.iter().enumerate() {
            prop_assert_eq!(&together[at], &parse_text(&delivery(std::slice::from_ref(alert))).unwrap()[0]);
            prop_assert!(is_replaced(at) || beside[at] == together[at], "{}", alert);
        }
    }

    #[test]
    fn a_delivery_parsed_in_one_pass_equals_one_parsed_alert_by_alert(
        alerts in prop::collection::vec(alert(), 0..4),
        more in prop::sample::select(vec!["", ",\"alerts\":[]", ",\"version\":[{}]", " x", ",\"truncatedAlerts\":7"]),
    ) {
        let mut body = delivery(&alerts);
        body.insert_str(body.len() - 1, more);
        let (names, policy) = (names(), Policy::default());
        let one_pass = quick(&body, &names, &policy).map(|(alerts, other)| (alerts, other.get("truncatedAlerts").ok().flatten().map(|n| n.get().to_owned())));
        let each = thorough(&body, &names, &policy).map(|(alerts, other)| (alerts, other.get("truncatedAlerts").ok().flatten().map(|n| n.get().to_owned())));
        if let Some(one_pass) = one_pass {
            prop_assert_eq!(Ok(one_pass), each);
        }
    }

    #[test]
    fn what_is_acted_upon_says_so_in_plain_text(alert in alert()) {
        let (Delivered::Alert(read) | Delivered::Drill { alert: read, .. }) =
            parse_text(&delivery(std::slice::from_ref(&alert))).unwrap().remove(0) else { return Ok(()) };
        // another parser, which takes the last of two equal fields
        let Ok(value) = serde_json::from_str::<serde_json::Value>(&alert) else { return Ok(()) };
        let labels = &value["labels"];
        let status = value["status"].as_str().map(str::to_lowercase);
        prop_assert_eq!(status.as_deref(), Some(if read.status == AlertStatus::Firing { "firing" } else { "resolved" }));
        // a number may be larger than that parser's numbers: its digits count
        let says = |label: &str, text: &str| match &labels[label] {
            serde_json::Value::Number(_) => alert.split(&format!("\"{label}\": ")).skip(1).any(|rest| {
                rest.strip_prefix(text).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
            }),
            value => value.as_str() == Some(text),
        };
        prop_assert!(says("prompt", &read.prompt.name()), "{:?}", read.prompt);
        prop_assert!(says("version", read.version.as_str()), "{:?}", read.version);
        if read.trigger.action == crate::decision::Action::Rollback {
            prop_assert_eq!(labels["severity"].as_str(), Some("critical"));
            prop_assert!(labels["action"].is_null() || labels["action"] == "rollback");
        }
    }
}

#[test]
fn names_outside_the_alphabet_are_ignored_and_stay_out_of_keys() {
    let long = "x".repeat(20_000);
    for bad in ["a{b}", "a\\r\\n", "a b", "a\\u0000", "🙂", "", &long] {
        assert_eq!(reason(&format!(r#""prompt":"p","version":"{bad}""#), ""), "invalid_name", "{bad:.20}");
    }
    for bad in ["", &long, &"🙂".repeat(11)] {
        assert_eq!(reason(&format!(r#""prompt":"{bad}","version":"v1""#), ""), "invalid_name", "{bad:.20}");
    }
    assert_eq!(reason(r#""version":"v1""#, ""), "invalid_name");
    assert_eq!(reason(r#""prompt":"p""#, ""), "invalid_name");
}

#[test]
fn a_prompt_of_another_registry_is_known_by_the_encoded_form_of_its_name() {
    let read = |prompt: serde_json::Value, version: serde_json::Value| {
        let alert = serde_json::json!({ "status": "firing", "labels": { "prompt": prompt, "version": version }, "fingerprint": "f" });
        match parse_text(&serde_json::json!({ "alerts": [alert] }).to_string()).expect("a delivery").remove(0) {
            Delivered::Alert(alert) => (alert.prompt, alert.version),
            other => panic!("{other:?}"),
        }
    };
    for (name, encoded) in [
        ("Support bot: v2@eu", "Support%20bot%3A%20v2%40eu"),
        ("a{b}", "a%7Bb%7D"),
        ("a\r\n", "a%0D%0A"),
        ("../p", "%2E./p"),
        ("*", "%2A"),
        // a label is never encoded
        ("Support%20bot", "Support%2520bot"),
    ] {
        let (prompt, _) = read(name.into(), "v1".into());
        assert_eq!((prompt.as_str(), &*prompt.name()), (encoded, name));
    }
    let hash = "9d2f04f1f0d6b9fbe2fe9a45f4c7a1c1d7a2e0b3";
    for (version, expected) in [
        (serde_json::json!(3), "3"),
        (serde_json::json!("3"), "3"),
        (serde_json::json!(hash), hash),
        (serde_json::json!(u64::MAX), "18446744073709551615"),
    ] {
        assert_eq!(read("p".into(), version).1.as_str(), expected);
    }
    assert_eq!(read(7.into(), 2.into()).0.as_str(), "7");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// From the label of an alert to the key and back to a label.
    #[test]
    fn a_prompt_keeps_its_name(name in prop_oneof![any::<String>(), "[ a-c%{}/.\\n\\\\\"ä🙂]{1,20}"]) {
        let alert = serde_json::json!({ "status": "firing", "labels": { "prompt": &name, "version": "v1" }, "fingerprint": "f" });
        match parse_text(&serde_json::json!({ "alerts": [alert] }).to_string()).expect("a delivery").remove(0) {
            Delivered::Alert(alert) => {
                let stored = PromptName::parse(alert.prompt.as_str()).expect("as a key has it");
                prop_assert_eq!(&*stored.name(), &name);
            }
            Delivered::Ignored(ignored) => {
                prop_assert_eq!(ignored.why.reason.as_str(), "invalid_name");
                prop_assert!(name.is_empty() || 3 * name.len() > PromptName::MAX, "{:?}", name);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn our_own_alerts_come_before_every_other_reason() {
    assert_eq!(reason(r#""alertname":"PromptRollbackDown","prompt":"{""#, ""), "own_alert");
}

#[test]
fn what_names_a_drill_is_never_a_real_alert() {
    let named = |name: &str, version: &str, id: &str| {
        format!(r#""alertname":"{name}","prompt":"p","version":"{version}","prompt_rollback_drill":"{id}" "#)
    };
    assert_eq!(reason(&named("PromptRollbackDrill", "v2", "x"), ""), "drill");
    assert_eq!(reason(&named("PromptErrorRate", "v2", "x"), ""), "unknown_drill");
    assert_eq!(reason(&named("PromptRollbackDrill", "{", "x"), ""), "unknown_drill");
    assert_eq!(reason(&named("PromptRollbackDrill", "v2", ""), ""), "own_alert");
    assert_eq!(reason(&named("PromptErrorRate", "v2", ""), ""), "none", "an empty label is none");
    let resolved = body(&named("PromptRollbackDrill", "v2", "x"), "").replace("firing", "resolved");
    let Delivered::Ignored(ignored) = parse_text(&resolved).unwrap().remove(0) else { panic!("{resolved}") };
    assert_eq!(ignored.why.reason.as_str(), "drill_over");
}

#[test]
fn alerts_without_a_measurement_are_not_acted_upon() {
    let named = |name: &str| GOOD.replace("\"A\"", &format!("{name:?}"));
    let because = |reason: &str| format!(r#","annotations":{{"grafana_state_reason":{reason}}}"#);
    let with = |labels: &str, annotations: &str| {
        let alert = format!(r#"{{"alerts":[{{"status":"firing","labels":{{{labels}}}{annotations}}}]}}"#);
        match parse_text(&alert).unwrap().remove(0) {
            Delivered::Ignored(ignored) => ignored.why.reason.as_str(),
            _ => "none",
        }
    };
    for name in ["DatasourceNoData", "DatasourceError"] {
        assert_eq!(with(&named(name), ""), "not_measured", "{name}");
    }
    for reason in [r#""Error""#, r#""NoData""#, r#""NoData, KeepLast""#, r#""Error, KeepLast""#, r#"["NoData"]"#] {
        assert_eq!(with(GOOD, &because(reason)), "not_measured", "{reason}");
    }
    for reason in ["\"\"", "null", r#""Updated""#, r#""Alerting, KeepLast""#, r#""ErrorBudget""#] {
        assert_eq!(with(GOOD, &because(reason)), "none", "{reason}");
    }
    for values in ["null", r#"{"A":0.3}"#, "{}"] {
        assert_eq!(
            reason(GOOD, &format!(r#","values":{values}"#)),
            "none",
            "Grafana sends {values} for alerts that fired"
        );
    }
    let resolved = r#"{"alerts":[{"status":"resolved","labels":{"alertname":"A","prompt":"p","version":"v2"},
        "annotations":{"grafana_state_reason":"NoData"}}]}"#;
    assert!(
        matches!(&parse_text(resolved).unwrap()[0], Delivered::Alert(alert) if alert.status == AlertStatus::Resolved)
    );
}

#[test]
fn a_heartbeat_says_when_rules_were_evaluated_and_is_never_an_alert() {
    let heartbeat = |status: &str, annotations: &str, more: &str| {
        let labels = format!(r#""alertname":"PromptRollbackHeartbeat"{more}"#);
        let alert = format!(r#"{{"status":"{status}","labels":{{{labels}}},"annotations":{{{annotations}}}}}"#);
        parse_text(&format!(r#"{{"alerts":[{alert}]}}"#)).unwrap().remove(0)
    };
    let good = r#""evaluated_at":"1763717000""#;
    // also with names, which relabelling may add
    for more in ["", r#","prompt":"p","version":"v2","severity":"critical""#] {
        let Delivered::Heartbeat { evaluated_at, .. } = heartbeat("firing", good, more) else { panic!("{more}") };
        assert_eq!(evaluated_at, Timestamp(1_763_717_000_000));
    }
    let ignored = |delivered: Delivered| match delivered {
        Delivered::Ignored(ignored) => ignored.why.reason.as_str(),
        other => panic!("{other:?}"),
    };
    assert_eq!(ignored(heartbeat("resolved", good, "")), "own_alert");
    for bad in
        ["", r#""evaluated_at":"soon""#, r#""evaluated_at":"-1""#, r#""evaluated_at":"inf""#, r#""evaluated_at":7"#]
    {
        assert_eq!(ignored(heartbeat("firing", bad, "")), "malformed", "{bad}");
    }
}

#[test]
fn a_missing_fingerprint_is_derived_from_the_labels() {
    let fingerprint = |labels: &str| match parse_text(&body(labels, "")).unwrap().remove(0) {
        Delivered::Alert(alert) | Delivered::Drill { alert, .. } => alert.fingerprint,
        Delivered::Ignored(ignored) => ignored.fingerprint,
        Delivered::Heartbeat { fingerprint, .. } => fingerprint,
    };
    assert_eq!(fingerprint(GOOD), fingerprint(GOOD));
    assert_ne!(fingerprint(GOOD), fingerprint(&GOOD.replace("v2", "v3")));
}

#[test]
fn long_fingerprints_that_begin_alike_are_two_alerts() {
    let begin = "f".repeat(MAX_FINGERPRINT);
    let fingerprints = |labels: &str| {
        let of = |fingerprint: String| {
            let delivered = parse_text(&body(labels, &format!(r#","fingerprint":"{fingerprint}""#))).unwrap().remove(0);
            match delivered {
                Delivered::Alert(alert) | Delivered::Drill { alert, .. } => alert.fingerprint,
                Delivered::Ignored(ignored) => ignored.fingerprint,
                Delivered::Heartbeat { fingerprint, .. } => fingerprint,
            }
        };
        assert_eq!(of(begin.clone()), begin, "as it is");
        let long = [format!("{begin}1"), format!("{begin}2")];
        assert_eq!(of(long[0].clone()), of(long[0].clone()));
        long.map(of)
    };
    let understood = fingerprints(GOOD);
    assert_ne!(understood[0], understood[1]);
    assert!(understood.iter().all(|one| one.starts_with("long-") && one.len() <= MAX_FINGERPRINT), "{understood:?}");
    assert_eq!(fingerprints(r#""alertname":"A""#), understood, "also of alerts that are ignored");
}
