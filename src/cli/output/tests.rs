//! Responses as the receiver writes them, and their output on a terminal.

use super::*;
use crate::api::{AnyIncident, ExplainView, IncidentList, MarkResponse};

/// Parses a view, so that the tests are written like responses.
fn read<T: serde::de::DeserializeOwned>(json: &str) -> T {
    serde_json::from_str(json).unwrap()
}

#[test]
fn status_lists_prompts_and_says_what_is_missing() {
    let list: PromptList = read(
        r#"{"prompts":[
        {"prompt":"customer-support","active":"v2.0.0","rollback_target":"v1.9.0","activated_at":"2026-11-21T00:30:00.000Z",
         "known_good":false,"soak_ends_at":"2026-11-21T01:30:00.000Z","paused":true,"open_incidents":["01KA"],
         "coverage":{"errors":"measured","p99":"blind","quality":"measured"}},
        {"prompt":"team/greeting","active":"v1","rollback_target":null,"known_good":true,"soak_ends_at":null,"paused":false,"open_incidents":[],
         "coverage":{"errors":"slow","p99":"too_little","quality":null}},
        {"prompt":"new","active":"v1","rollback_target":null,"known_good":false,"soak_ends_at":"2026-11-21T01:45:00.000Z","paused":false,"open_incidents":[]},
        {"prompt":"idle","active":null,"rollback_target":null,"known_good":false,"soak_ends_at":null,"paused":false,"open_incidents":[]}
        ],"next":"abc","added_later":1}"#,
    );
    assert_eq!(
        prompts(&list, false),
        "\
PROMPT            ACTIVE  ROLLBACK TARGET  SOAK ENDS             PAUSED  COVERAGE                                                                        OPEN INCIDENTS
customer-support  v2.0.0  v1.9.0           2026-11-21 01:30:00Z  yes     errors, quality; p99: blind                                                     01KA
team/greeting     v1      none             known-good            no      errors: slow scrapes (detection takes 2 to 5 minutes); p99: too little traffic  -
new               v1      none             2026-11-21 01:45:00Z  no      -                                                                               -
idle              -       none             -                     no      -                                                                               -
… there are more; use --limit to show them

3 prompts have no version to roll back to:
  team/greeting: v1 is known-good and will be the target once another version is active; to have one now, mark an older version that you trust with `prompt-rollback register team/greeting VERSION --known-good`
  new: mark an older version that you trust with `prompt-rollback register new VERSION --known-good`, or wait until v1 has soaked (2026-11-21 01:45:00Z) and serves as the target of the next version
  idle: nothing is active: start with `prompt-rollback activate idle VERSION`
"
    );
    assert!(prompts(&list, true).contains("\x1b[1;33mnone\x1b[0m"));
    assert_eq!(prompts(&PromptList::default(), false), "no prompts\n");
}

#[test]
fn a_prompt_whose_record_cannot_be_read_is_not_taken_for_an_idle_one() {
    let list: PromptList = read(
        r#"{"prompts":[{"prompt":"Support%20bot","error":"newer\u001b[2J record"},
        {"prompt":"p","active":"v2","rollback_target":"v1","known_good":true}],"next":null}"#,
    );
    assert_eq!(
        prompts(&list, false),
        "\
PROMPT       ACTIVE          ROLLBACK TARGET  SOAK ENDS   PAUSED  COVERAGE  OPEN INCIDENTS
Support bot  cannot be read  -                -           -       -         -
p            v2              v1               known-good  no      -         -
the record of Support bot (Support%20bot) cannot be read: newer\u{fffd}[2J record
"
    );
}

#[test]
fn a_prompt_without_a_version_says_why_in_its_hint_too() {
    let detail: PromptView = read(r#"{"prompt":"p","active":null,"active_fault":"the key active was deleted"}"#);
    let shown = prompt(&detail, false);
    assert!(shown.contains("  active           nothing: the key active was deleted\n"), "{shown}");
    let hint = "  p: the key active was deleted: serve a version with `prompt-rollback activate p VERSION`\n";
    assert!(shown.ends_with(hint), "{shown}");
}

#[test]
fn a_word_of_a_newer_receiver_is_shown_as_it_is() {
    let coverage: CoverageView = read(r#"{"errors":"measured","p99":"sampled","quality":"no_baseline"}"#);
    assert_eq!(coverage_text(&coverage), "errors; p99: sampled; quality: no baseline yet");
    let told = |mark: &str| {
        marked(&MarkResponse { prompt: "p".into(), version: "v1".into(), mark: mark.into(), ..MarkResponse::default() })
    };
    assert_eq!(told("good"), "p: v1 is marked as good: it is known-good\n");
    assert_eq!(told("bad"), "p: v1 is marked as bad: it is no longer a rollback target\n");
    assert_eq!(told("retired"), "p: v1 is marked as retired\n");
    assert_eq!(known_good(Some("audit")), "known-good (audit)");
}

#[test]
fn many_hints_are_cut() {
    let many = vec![PromptSummary { prompt: "p".into(), ..PromptSummary::default() }; MAX_HINTS + 3];
    let shown = without_target(&many.iter().collect::<Vec<_>>());
    assert_eq!(shown.lines().count(), 1 + MAX_HINTS + 1);
    assert!(shown.ends_with("… and 3 more: prompt-rollback status --without-target\n"), "{shown}");
}

#[test]
fn one_prompt_with_its_versions_and_incidents() {
    let detail: PromptView = read(
        r#"{"prompt":"customer-support","active":"v1.9.0","routing":{"v1.9.0":75,"v2.0.0":25},"rollback_target":null,"paused":false,
        "coverage":{"errors":"measured","p99":"measured","quality":"too_little"},
        "versions":[
         {"version":"v2.0.0","first_activated_at":"2026-11-21T00:30:00.000Z","last_active_at":"2026-11-21T00:38:12.689Z","active":false,
          "known_good":false,"quarantined_at":"2026-11-21T00:38:12.689Z","contact":"mia","has_content":true},
         {"version":"v1.9.0","first_activated_at":"2026-11-01T00:00:00.000Z","last_active_at":null,"active":true,"known_good":true,"known_good_by":"evidence"},
         {"version":"v1.8.0","active":false,"known_good":true,"known_good_by":"time"},
         {"version":"v1.7.0","active":false,"known_good":false,"left_with_incident":"01K9"},
         {"version":"v2.1.0","active":false,"known_good":false,"soak_ends_at":null}],
        "incidents":[{"id":"01KA","prompt":"customer-support","version":"v2.0.0","target":"v1.9.0","phase":"verifying","severity":"critical",
          "action":"rollback","opened_at":"2026-11-21T00:38:12.600Z","summary":"error rate\u001b[2J 30 %"}]}"#,
    );
    assert_eq!(
        prompt(&detail, false),
        "\
customer-support
  active           v1.9.0
  traffic          v1.9.0 75 %, v2.0.0 25 %
  rollback target  none
  paused           no
  coverage         errors, p99; quality: too little traffic

VERSION  STATE                                 FIRST ACTIVE          LAST ACTIVE           TEXT  CONTACT
v2.0.0   quarantined                           2026-11-21 00:30:00Z  2026-11-21 00:38:12Z  yes   mia
v1.9.0   active, known-good (evidence)         2026-11-01 00:00:00Z  -                     no    -
v1.8.0   known-good by time only               -                     -                     no    -
v1.7.0   not a target: incident 01K9 was open  -                     -                     no    -
v2.1.0   registered                            -                     -                     no    -

open incidents
INCIDENT  OPENED                PHASE      SEVERITY  PROMPT            VERSION  TARGET  SUMMARY
01KA      2026-11-21 00:38:12Z  verifying  critical  customer-support  v2.0.0   v1.9.0  error rate\u{fffd}[2J 30 %

1 prompt has no version to roll back to:
  customer-support: v1.9.0 is known-good and will be the target once another version is active; to have one now, mark an older version that you trust with `prompt-rollback register customer-support VERSION --known-good`
"
    );
}

#[test]
fn a_prompt_with_marks_and_how_what_serves_came_there() {
    let detail: PromptView = read(
        r#"{"prompt":"p","active":"v2","rollback_target":"v0",
        "in_service":[{"version":"v2","percent":80,"since":"2026-11-21T00:30:00.000Z","operator":"ci","event":"activate"},
                      {"version":"v3","percent":20,"since":"2026-11-21T00:38:00.000Z","operator":"mia","event":"canary"},
                      {"version":"v4","percent":0,"since":null,"operator":null,"event":null}],
        "also_changed":{"within_seconds":3600,"more":2,"at_least":true,"prompts":[
            {"prompt":"search","event":"activate","from":"v3","to":"v4","operator":"ci","at":"2026-11-21T00:26:00.000Z","same_group":true},
            {"prompt":"cart","event":"external","from":null,"to":"v1","operator":"external","at":"2026-11-21T00:20:00.000Z","same_group":false}]},
        "versions":[{"version":"v1","mark":{"kind":"bad","at":"2026-11-20T00:00:00.000Z","operator":"dana","reason":"no safety fix\u001b[2J"}},
                    {"version":"v0","known_good":true,"known_good_by":"mark","mark":{"kind":"good","at":"2026-11-19T00:00:00.000Z","operator":"bo","reason":"a month in use"}}]}"#,
    );
    assert_eq!(
        prompt(&detail, false),
        "\
p
  active           v2
  in service       v2 (80 %) since 2026-11-21 00:30:00Z by ci (activate)
  in service       v3 (20 %) since 2026-11-21 00:38:00Z by mia (canary)
  also changed     search v3 → v4 by ci at 2026-11-21 00:26:00Z (activate, same group)
  also changed     cart nothing → v1 by external at 2026-11-21 00:20:00Z (external)
                   and at least 2 more prompts within the hour
  rollback target  v0
  paused           no

VERSION  STATE              FIRST ACTIVE  LAST ACTIVE  TEXT  CONTACT
v1       marked as bad      -             -            no    -
v0       known-good (mark)  -             -            no    -

marks
  v1: bad since 2026-11-20 00:00:00Z, by dana: no safety fix\u{fffd}[2J
  v0: good since 2026-11-19 00:00:00Z, by bo: a month in use
"
    );
}

#[test]
fn a_soak_says_until_when_and_what_it_waits_for() {
    let said = |json: &str| state(&read::<VersionView>(json));
    let (ends, limit) =
        (r#""soak_ends_at":"2026-11-21T01:30:00.000Z""#, r#""soak_limit_at":"2026-11-22T00:30:00.000Z""#);
    let note = r#""soak_note":"3 of 20 requests measured""#;
    assert_eq!(said(&format!("{{\"active\":true,{ends}}}")), "active, soaks until 2026-11-21 01:30:00Z");
    assert_eq!(
        said(&format!("{{\"active\":true,{limit},{note}}}")),
        "active, soak time is over, waiting for evidence (3 of 20 requests measured), known-good by time only from 2026-11-22 00:30:00Z"
    );
    let anew = r#""soak_note":"soak restarted: 4 of 10 requests failed""#;
    assert_eq!(
        said(&format!("{{{ends},{limit},{anew}}}")),
        "soaks until 2026-11-21 01:30:00Z (soak restarted: 4 of 10 requests failed)"
    );
}

#[test]
fn the_log_newest_first() {
    let entries: DeploymentLog = read(
        r#"{"entries":[
        {"id":"2-0","event":"rollback","from":"v2","to":"v1","reason":"PromptErrorRateCritical","operator":"system","at":"2026-11-21T00:38:12.689Z","incident":"01KA"},
        {"id":"1-0","event":"external","from":null,"to":"v2","reason":null,"operator":null,"at":"2026-11-21T00:30:00.000Z","incident":null}],"next":null}"#,
    );
    assert_eq!(
        log(&entries, false),
        "\
AT                    EVENT     FROM  TO  OPERATOR  INCIDENT  REASON
2026-11-21 00:38:12Z  rollback  v2    v1  system    01KA      PromptErrorRateCritical
2026-11-21 00:30:00Z  external  -     v2  -         -         -
"
    );
    assert_eq!(log(&DeploymentLog::default(), false), "no deployments yet\n");
}

#[test]
fn an_explanation_names_target_and_guards() {
    let told: ExplainView = read(
        r#"{"prompt":"p","at":"2026-11-21T00:38:12.689Z","rules":"shipped","rules_fault":"prometheus: no answer","left_out":2,"dismissed":1,
        "alerts":[
         {"alert":"PromptErrorRateCritical","version":"v2","percent":95,"severity":"critical","action":"rollback","outcome":"held","reason":"cooldown",
          "text":"be held by the guard cooldown: v2 was activated by a rollback 18 min ago, and ask on-call to decide within 2 min",
          "target":{"version":"v1","known_good_at":"2026-05-20T09:12:33.000Z","known_good_by":"evidence"},
          "guards":[{"reason":"cooldown","detail":"v2 was activated by a rollback 18 min ago","left_seconds":720},
                    {"reason":"budget","detail":"5 other prompts were rolled back","left_seconds":null}],
          "incident":"01KA","phase":"awaiting_decision","decider":"on-call","deadline_at":"2026-11-21T00:40:12.689Z"},
         {"alert":"Ours\u001b[2J","version":"v3","percent":100,"severity":"high","action":"page","remarks":["unknown decider \"x\": on-call decides"],
          "outcome":"incident_opened","reason":"page","text":"open an incident","target":{"version":"v0","known_good_at":null}},
         {"alert":"DatasourceError","version":"v3","percent":100,"severity":null,"outcome":"ignored","reason":"not_measured","text":"be ignored (not_measured)"}
        ]}"#,
    );
    assert_eq!(
        explained(&told),
        "\
p at 2026-11-21 00:38:12Z
  alert rules      shipped (prometheus: no answer)
  dismissed        alerts: 1; repeats are ignored until they resolve or get worse

PromptErrorRateCritical on v2 (95 % of the traffic)
  would be held by the guard cooldown: v2 was activated by a rollback 18 min ago, and ask on-call to decide within 2 min
  requested        rollback (critical)
  outcome          held (cooldown)
  rollback target  v1, known-good (evidence) since 2026-05-20 09:12:33Z
  held by          cooldown, 12 min left: v2 was activated by a rollback 18 min ago
  held by          budget: 5 other prompts were rolled back
  incident         01KA
  decider          on-call

Ours\u{fffd}[2J on v3
  would open an incident
  requested        page (high)
  note             unknown decider \"x\": on-call decides
  outcome          incident_opened (page)
  rollback target  v0, not known-good

DatasourceError on v3
  would be ignored (not_measured)
  outcome          ignored (not_measured)

… and 2 more rules; use --alert to show one
"
    );
    let none = ExplainView { prompt: "p".into(), rules: "prometheus".into(), ..ExplainView::default() };
    assert!(explained(&none).ends_with("\nno alert rule is about a version with traffic\n"));
}

#[test]
fn a_version_that_was_replaced_was_not_rolled_back() {
    let one: AnyIncident = read(
        r#"{"id":"01KA","prompt":"p","version":"v2","target":"v3","phase":"verifying","severity":"high","action":"page",
        "decider":"on-call","opened_at":"2026-11-21T00:38:12.600Z","updated_at":"2026-11-21T00:38:13.000Z","closed_at":null,
        "summary":"2 % fail","flip":{"at":"2026-11-21T00:39:00.000Z","from":"v2","to":"v3","mode":"shipped","operator":"ana"}}"#,
    );
    let shown = incident(&one, false);
    assert!(shown.contains("\n  replaced         v2 → v3 at 2026-11-21 00:39:00Z by ana\n"), "{shown}");
}

#[test]
fn only_a_question_has_a_time_to_decide_by() {
    let deadline = |phase: &str| {
        let one: AnyIncident = read(&format!(
            r#"{{"id":"01KA","prompt":"p","version":"v2","phase":"{phase}","opened_at":"2026-11-21T00:38:12.600Z",
            "deadline":"2026-11-21T00:40:12.600Z","summary":"30 % fail"}}"#
        ));
        let shown = incident(&one, false);
        let line = shown.lines().find(|line| line.contains("00:40:12Z")).expect(phase).trim();
        line.split("  ").next().unwrap_or_default().to_owned()
    };
    for (phase, label) in [
        ("awaiting_decision", "decide by"),
        ("confirming", "expected by"),
        ("observing", "observing until"),
        ("investigating", "asking again"),
        ("verifying", "result due"),
        ("escalated", "next check"),
        ("of a newer receiver", "next step"),
    ] {
        assert_eq!(deadline(phase), label);
    }
}

#[test]
fn an_incident_in_full() {
    let one: AnyIncident = read(
        r#"{"id":"01KA","prompt":"p","version":"v2","target":"v1","phase":"awaiting_decision","severity":"critical","action":"rollback",
        "decider":"on-call","opened_at":"2026-11-21T00:38:12.600Z","updated_at":"2026-11-21T00:38:13.000Z","closed_at":null,
        "deadline":"2026-11-21T00:40:12.600Z","guard":{"reason":"cooldown","detail":"v2 was put there 3m ago"},"summary":"error rate 30 %",
        "flip":{"at":"2026-11-21T00:39:00.000Z","from":"v2","to":"v1","mode":"manual","operator":"ana"},
        "alerts":[{"alertname":"PromptErrorRateCritical","severity":"critical","summary":"30 % fail"},{"alertname":"A","severity":"high"}],
        "events":[{"at":"2026-11-21T00:38:12.600Z","kind":"opened","text":"critical alert"}]}"#,
    );
    assert_eq!(
        incident(&one, false),
        "\
01KA
  prompt           p
  version          v2
  rollback target  v1
  phase            awaiting_decision
  requested        rollback (critical)
  decider          on-call
  opened           2026-11-21 00:38:12Z
  decide by        2026-11-21 00:40:12Z
  summary          error rate 30 %
  held by          cooldown: v2 was put there 3m ago
  rolled back      v2 → v1 at 2026-11-21 00:39:00Z by ana

alerts
  PromptErrorRateCritical  critical  30 % fail
  A  high

AT                    EVENT   WHAT HAPPENED
2026-11-21 00:38:12Z  opened  critical alert
"
    );
    assert_eq!(incidents(&IncidentList::default(), false), "no incidents\n");
}

#[test]
fn answers_to_changes() {
    for (json, text) in [
        (
            r#"{"success":true,"prompt":"p","from_version":"v2","to_version":"v1","timestamp":"2026-11-21T00:38:12.689Z","incident":"01KA"}"#,
            "p: rolled back v2 → v1 at 2026-11-21 00:38:12Z, incident 01KA\n",
        ),
        (
            r#"{"success":true,"prompt":"p","from_version":"v1","to_version":"v1","unchanged":true}"#,
            "p: v1 is already active, nothing to do\n",
        ),
        (
            r#"{"success":false,"confirming":true,"prompt":"p","to_version":"v1","incident":"01KA"}"#,
            "p: accepted and still being confirmed, incident 01KA; see `prompt-rollback status p`\n",
        ),
    ] {
        assert_eq!(rolled_back(&read(json)), text);
    }
    for (json, text) in [
        (
            r#"{"success":false,"confirming":true,"prompt":"p","to_version":"v1","incident":"01KA"}"#,
            "p: accepted and still being confirmed, incident 01KA; see `prompt-rollback status p`\n",
        ),
        (r#"{"success":true,"prompt":"p","from_version":"v2","to_version":"v1"}"#, "p: active is now v1\n"),
        (
            r#"{"success":true,"prompt":"p","from_version":"v2","to_version":"v1","percent":25}"#,
            "p: v1 has 25 % of the traffic, v2 the rest\n",
        ),
    ] {
        assert_eq!(decided(&read(json)), text);
    }
    for (json, text) in [
        (r#"{"success":true,"prompt":"p","from_version":"v1","to_version":"v2"}"#, "p: active is now v2, it was v1\n"),
        (r#"{"success":true,"prompt":"p","from_version":null,"to_version":"v1"}"#, "p: active is now v1\n"),
        (r#"{"success":true,"prompt":"p","to_version":"v2","unchanged":true}"#, "p: v2 is already active\n"),
    ] {
        assert_eq!(activated(&read(json)), text);
    }
    for (json, text) in [
        (r#"{"prompt":"p","version":"v1","created":true,"known_good":true}"#, "p v1 is registered, known-good\n"),
        (r#"{"prompt":"p","version":"v1","created":false,"known_good":false}"#, "p v1 was already registered\n"),
    ] {
        assert_eq!(registered(&read(json)), text);
    }
    for (json, text) in [
        (
            r#"{"paused":true,"prompt":null,"changed":true}"#,
            "automatic rollbacks are paused for all prompts; people can still roll back\n",
        ),
        (r#"{"paused":true,"prompt":"p","changed":false}"#, "automatic rollbacks were already paused for p\n"),
        (r#"{"paused":false,"prompt":"p","changed":true}"#, "automatic rollbacks are resumed for p\n"),
        (r#"{"paused":false,"prompt":null,"changed":false}"#, "automatic rollbacks were not paused for all prompts\n"),
        (
            r#"{"paused":false,"prompt":"p","changed":true,"message":"Automatic rollbacks stay off: x."}"#,
            "the pause of p has ended. Automatic rollbacks stay off: x.\n",
        ),
        (
            r#"{"paused":false,"prompt":"p","changed":false,"message":"Automatic rollbacks stay off: x."}"#,
            "there was no pause of p. Automatic rollbacks stay off: x.\n",
        ),
    ] {
        assert_eq!(paused(&read(json)), text);
    }
    for (json, text) in [
        (r#"{"changed":[],"needs_restart":[]}"#, "reloaded; nothing has changed\n"),
        (
            r#"{"changed":[{"key":"deciders.ops.channel","from":"","to":"C1\u001b"},{"key":"server.api_token","from":null,"to":null}],
            "needs_restart":[{"key":"server.listen","from":"127.0.0.1:8000","to":"127.0.0.1:9000"}]}"#,
            "reloaded; what has changed:\n  deciders.ops.channel: nothing → \"C1\\u{1b}\"\n  server.api_token: changed\n\
             needs a restart; until then the old value stays in force:\n  server.listen: \"127.0.0.1:8000\" → \"127.0.0.1:9000\"\n",
        ),
    ] {
        assert_eq!(reloaded(&read(json)), text);
    }
}

#[test]
fn an_incident_that_coordinates_many_prompts_lists_them() {
    let one: AnyIncident = read(
        r#"{"id":"01KA","kind":"mass","prompt":null,"version":null,"target":null,"phase":"awaiting_decision",
        "severity":"critical","action":"rollback","decider":"on-call","opened_at":"2026-11-21T00:38:12.000Z","closed_at":null,
        "updated_at":"2026-11-21T00:38:12.000Z","deadline":null,"guard":null,"flip":null,"prompts":2,"waiting":1,"carrying_out":null,"choices":["undo"],
        "summary":"2 prompts fail together, 1 wait for a decision","shared":[{"label":"provider","value":"acme","prompts":2}],
        "hold":{"by":"maya","at":"2026-11-21T00:39:00.000Z"},"members":[
        {"incident":"01KB","prompt":"search","version":"v2","target":"v1","phase":"verifying","began":"2026-11-21T00:38:00.000Z","flipped_before":true},
        {"incident":"01KC","prompt":"refunds","version":"v7","target":"v6","phase":"awaiting_decision","began":"2026-11-21T00:38:05.000Z","failed":"looks healthy again"}],
        "events":[]}"#,
    );
    let text = incident(&one, false);
    for part in [
        "prompts          2",
        "on hold          by maya since 2026-11-21 00:39:00Z",
        "they share       provider acme (2)",
        "search   v2 → v1   verifying, before  2026-11-21 00:38:00Z  01KB      -",
        "refunds  v7 → v6   awaiting_decision  2026-11-21 00:38:05Z  01KC      looks healthy again",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    let list = IncidentList { incidents: vec![one], next: None };
    assert!(incidents(&list, false).contains("many prompts"), "{}", incidents(&list, false));
    let decided_all = decided(&read(r#"{"success":true,"incident":"01KA","phase":"awaiting_decision","prompts":12}"#));
    assert_eq!(decided_all, "decided about 12 prompts: now being carried out one by one\n");
}
