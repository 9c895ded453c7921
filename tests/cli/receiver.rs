//! The commands that call a receiver.

use std::io::Write;
use std::process::Stdio;

use prompt_rollback_testkit::Dir;
use serde_json::{Value, json};

use super::stub::{Stub, fails, free_address, program, stderr, stdout, succeeds};

#[test]
fn register_sends_what_was_given_and_nothing_else() {
    let path = "/api/prompts/team%2Fgreeting/versions";
    let answer = json!({"prompt": "team/greeting", "version": "v1", "created": true, "known_good": true});
    let stub = Stub::start(&[(&format!("POST {path}"), 201, answer)]);
    let mut child = program(&[
        "register",
        "team/greeting",
        "v1",
        "--content-file",
        "-",
        "--contact",
        "mia",
        "--staged-at",
        "2026-11-21T09:30:00Z",
        "--known-good",
    ])
    .env("PROMPT_ROLLBACK_URL", stub.url())
    .env("PROMPT_ROLLBACK_TOKEN", "t0ken")
    .stdin(Stdio::piped())
    .stdout(Stdio::piped())
    .spawn()
    .unwrap();
    child.stdin.take().unwrap().write_all("Say \"hello\".\n".as_bytes()).unwrap();
    succeeds(&child.wait_with_output().unwrap(), "team/greeting v1 is registered, known-good\n");
    let seen = &stub.seen()[0];
    assert_eq!(seen.line, format!("POST {path}"));
    assert_eq!(seen.authorization.as_deref(), Some("Bearer t0ken"));
    assert_eq!(seen.content_type.as_deref(), Some("application/json"));
    assert_eq!(
        serde_json::from_str::<Value>(&seen.body).unwrap(),
        json!({"version": "v1", "content": "Say \"hello\".\n", "contact": "mia", "staged_at": "2026-11-21T09:30:00Z", "known_good": true})
    );

    stub.run(&["register", "team/greeting", "v1"]);
    let seen = &stub.seen()[1];
    assert_eq!((seen.authorization.as_deref(), seen.body.as_str()), (None, r#"{"version":"v1"}"#));
}

#[test]
fn an_encoded_prompt_is_found_by_either_form_and_shown_by_its_name() {
    let (name, encoded) = ("Support bot: v2@eu", "Support%20bot%3A%20v2%40eu");
    let status = json!({"prompt": encoded, "active": "v1", "versions": [], "open_incidents": []});
    let list = json!({"prompts": [
        {"prompt": encoded, "active": "v1", "rollback_target": "v0"},
        {"prompt": "a%0Ab%E2%80%AE", "active": "v1", "rollback_target": "v0"},
    ]});
    let paused = json!({"paused": true, "prompt": encoded, "changed": true});
    let stub = Stub::start(&[
        (&format!("GET /api/prompts/{encoded}"), 200, status.clone()),
        (&format!("GET /api/prompts/{}", encoded.replace('%', "%25")), 200, status),
        ("GET /api/prompts?limit=500", 200, list),
        ("POST /api/pause", 200, paused),
    ]);
    for form in [name, encoded] {
        let output = stub.run(&["status", form]);
        assert!(stdout(&output).starts_with("Support bot: v2@eu (Support%20bot%3A%20v2%40eu)\n"), "{output:?}");
    }
    let table = stdout(&stub.run(&["status"]));
    let first = |line: &str| line.split("  ").next().unwrap_or_default().to_owned();
    let shown: Vec<String> = table.lines().skip(1).take(2).map(first).collect();
    assert_eq!(shown, [name, "a\\u000ab\\u202e"], "{table}");
    let paused = stub.run(&["pause", name]);
    assert!(stdout(&paused).contains("Support bot: v2@eu (Support%20bot%3A%20v2%40eu)"), "{paused:?}");
    let sent: Value = serde_json::from_str(&stub.seen().last().unwrap().body).unwrap();
    assert_eq!(sent["prompt"], name);
}

#[test]
fn explain_asks_about_one_alert_or_all() {
    let path = "/api/prompts/team%2Fgreeting/explain";
    let told = json!({
        "prompt": "team/greeting", "at": "2026-11-21T00:38:12.689Z", "rules": "prometheus", "alerts": [{
            "alert": "A b", "version": "v2", "percent": 100, "severity": "critical", "action": "rollback",
            "outcome": "rolled_back", "reason": "alert", "text": "roll back v2 → v1",
            "target": { "version": "v1", "known_good_at": "2026-05-20T09:12:33.000Z", "known_good_by": "evidence" },
        }],
    });
    let (all, one) = (format!("GET {path}"), format!("GET {path}?alert=A%20b"));
    let unknown =
        json!({"error": {"code": "unknown_alert", "message": "alert: no alert rule has this name. Rules: A b"}});
    let stub = Stub::start(&[(&all, 200, told.clone()), (&one, 200, told.clone())]);
    let text = "\
team/greeting at 2026-11-21 00:38:12Z
  alert rules      prometheus

A b on v2
  would roll back v2 → v1
  requested        rollback (critical)
  outcome          rolled_back (alert)
  rollback target  v1, known-good (evidence) since 2026-05-20 09:12:33Z
";
    succeeds(&stub.run(&["explain", "team/greeting"]), text);
    succeeds(&stub.run(&["explain", "team/greeting", "--alert", "A b"]), text);
    let json = stdout(&stub.run(&["explain", "team/greeting", "--output", "json"]));
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), told);
    let none = Stub::start(&[(&all, 404, unknown)]);
    let said = "error: alert: no alert rule has this name. Rules: A b (unknown_alert)\n";
    fails(&none.run(&["explain", "team/greeting"]), 1, said);
}

#[test]
fn a_first_version_is_served_only_where_nothing_is() {
    let prompt = "/api/prompts/team%2Fnew";
    let (register, activate) = (format!("POST {prompt}/versions"), format!("POST {prompt}/activate"));
    let unknown = json!({"error": {"code": "unknown_prompt", "message": "no such prompt"}});
    let registered = json!({"prompt": "team/new", "version": "v1", "created": true, "known_good": true});
    let activated = json!({"success": true, "prompt": "team/new", "from_version": null, "to_version": "v1"});
    for (status, known) in [(404, unknown), (200, json!({"prompt": "team/new", "active": null}))] {
        let stub = Stub::start(&[
            (&format!("GET {prompt}"), status, known),
            (&register, 201, registered.clone()),
            (&activate, 200, activated.clone()),
        ]);
        let run = stub.run(&["register", "team/new", "v1", "--known-good", "--first", "--operator", "setup"]);
        succeeds(&run, "team/new: active is now v1\n");
        let seen = stub.seen();
        let lines: Vec<&str> = seen.iter().map(|seen| seen.line.as_str()).collect();
        assert_eq!(lines, [format!("GET {prompt}").as_str(), &register, &activate]);
        let bodies: Vec<Value> = seen[1..].iter().map(|seen| serde_json::from_str(&seen.body).unwrap()).collect();
        let expected = [json!({"version": "v1", "known_good": true}), json!({"version": "v1", "operator": "setup"})];
        assert_eq!(bodies, expected);
    }
}

#[test]
fn a_first_version_changes_nothing_where_one_is_active() {
    let path = "GET /api/prompts/p";
    let stub = Stub::start(&[(path, 200, json!({"prompt": "p", "active": "v2", "rollback_target": "v1"}))]);
    succeeds(&stub.run(&["register", "p", "v1", "--known-good", "--first"]), "p: v2 is already active\n");
    let error = json!({"error": {"code": "store_unavailable", "message": "Redis does not answer"}});
    let down = Stub::start(&[(path, 503, error)]);
    fails(&down.run(&["register", "p", "v1", "--first"]), 1, "error: Redis does not answer (store_unavailable)\n");
    let fault = "the key active was deleted";
    let lapsed = Stub::start(&[(path, 200, json!({"prompt": "p", "active": null, "active_fault": fault}))]);
    let said = format!("error: p is not new: {fault}; serve a version with `prompt-rollback activate`\n");
    fails(&lapsed.run(&["register", "p", "v1", "--known-good", "--first"]), 1, &said);
    for stub in [stub, down, lapsed] {
        assert_eq!(stub.seen().len(), 1, "{:?}", stub.seen());
    }
}

#[test]
fn a_token_file_holds_the_token_and_perhaps_what_an_editor_added() {
    let dir = Dir::new("token").unwrap();
    let stub = Stub::start(&[("GET /api/incidents?limit=50", 200, json!({"incidents": [], "next": null}))]);
    for text in ["t0ken", "t0ken\n", "\u{feff}t0ken \r\n"] {
        let path = dir.write("token", text).unwrap();
        let path = path.to_str().unwrap();
        succeeds(&stub.run(&["incidents", "--token-file", path]), "no incidents\n");
        let run = program(&["incidents"])
            .env("PROMPT_ROLLBACK_URL", stub.url())
            .env("PROMPT_ROLLBACK_TOKEN_FILE", path)
            .output()
            .unwrap();
        succeeds(&run, "no incidents\n");
    }
    let seen = stub.seen();
    assert!(seen.iter().all(|seen| seen.authorization.as_deref() == Some("Bearer t0ken")), "{seen:?}");
    let mut given = program(&["incidents", "--token", "given"]);
    given.env("PROMPT_ROLLBACK_URL", stub.url()).env("PROMPT_ROLLBACK_TOKEN_FILE", "/nonexistent/token");
    succeeds(&given.output().unwrap(), "no incidents\n");
    let seen = stub.seen();
    assert_eq!(seen.last().unwrap().authorization.as_deref(), Some("Bearer given"), "an argument beats the variable");

    let file = dir.write("token", "file").unwrap();
    for variable in ["", "variable"] {
        let mut named = program(&["incidents", "--token-file", file.to_str().unwrap()]);
        named.env("PROMPT_ROLLBACK_URL", stub.url()).env("PROMPT_ROLLBACK_TOKEN", variable);
        succeeds(&named.output().unwrap(), "no incidents\n");
        assert_eq!(
            stub.seen().last().unwrap().authorization.as_deref(),
            Some("Bearer file"),
            "a file beats a variable"
        );
    }
    let seen = stub.seen();

    let path = |name: &str, text: &str| dir.write(name, text).unwrap().to_str().unwrap().to_owned();
    for (path, why) in [
        (path("empty", " \n"), "expected a token, but the file is empty"),
        (
            path("two", "a\nb"),
            "found a line break or control character inside, expected one word of visible ASCII characters",
        ),
        ("/nonexistent/token".to_owned(), "No such file or directory (os error 2)"),
    ] {
        let run = stub.run(&["incidents", "--token-file", &path]);
        fails(&run, 2, &format!("error: --token-file: {path}: {why}\n"));
    }
    let both = stub.run(&["incidents", "--token", "a", "--token-file", "b"]);
    assert_eq!(both.status.code(), Some(2));
    assert_eq!(stub.seen().len(), seen.len(), "none of these was sent");
}

#[test]
fn activate_and_rollback_name_their_operator() {
    let switched = |from: &str, to: &str| json!({"success": true, "prompt": "p", "from_version": from, "to_version": to, "timestamp": "2026-11-21T00:38:12.689Z", "incident": null});
    let stub = Stub::start(&[
        ("POST /api/prompts/p/activate", 200, switched("v1", "v2")),
        ("POST /api/rollback", 200, switched("v2", "v1")),
    ]);
    succeeds(&stub.run(&["activate", "p", "v2", "--force"]), "p: active is now v2, it was v1\n");
    succeeds(
        &stub.run(&["rollback", "p", "--to", "v1", "--from", "v2", "--reason", "tone", "--operator", "bo"]),
        "p: rolled back v2 → v1 at 2026-11-21 00:38:12Z\n",
    );
    let bodies: Vec<Value> = stub.seen().iter().map(|seen| serde_json::from_str(&seen.body).unwrap()).collect();
    assert_eq!(bodies[0], json!({"version": "v2", "force": true, "operator": "ana"}));
    assert_eq!(
        bodies[1],
        json!({"prompt": "p", "target_version": "v1", "from_version": "v2", "reason": "tone", "operator": "bo"})
    );
    stub.run(&["rollback", "p", "--operator", ""]);
    assert_eq!(stub.seen()[2].body, r#"{"prompt":"p"}"#);
}

#[test]
fn a_decision_is_the_command_lines_if_the_user_variable_is_empty() {
    let answer = json!({"success": true, "incident": "01KA", "phase": "dismissed"});
    let stub = Stub::start(&[("POST /api/incidents/01KA/decide", 200, answer)]);
    let decide = |user: Option<&str>| {
        let mut command = program(&["decide", "01KA", "dismiss"]);
        command.env_remove("USER").envs(user.map(|user| ("USER", user)));
        succeeds(&command.env("PROMPT_ROLLBACK_URL", stub.url()).output().unwrap(), "the incident is now: dismissed\n");
        serde_json::from_str::<Value>(&stub.seen().last().unwrap().body).unwrap()["operator"].clone()
    };
    assert_eq!([Some("ana"), Some(""), None].map(decide), ["ana", "cli", "cli"]);
}

#[test]
fn import_asks_page_by_page_and_sums_up() {
    let page = |adopted: Value, known: u64, skipped: Value, next: Value| json!({"dry_run": true, "adopted": adopted, "known": known, "skipped": skipped, "next": next});
    let a = json!({"prompt": "a", "version": "v1", "known_good": true});
    let odd = json!({"key": "app:o\u{1b}dd", "reason": "holds no version"});
    let stub = Stub::start(&[("POST /api/import", 200, page(json!([a]), 2, json!([odd]), json!("7")))]);
    succeeds(
        &stub.run(&["import", "--pattern", "app:{prompt}", "--known-good", "--dry-run"]),
        "PROMPT  VERSION  TRUST\na       v1       known-good\n\n\
         skipped app:o\u{fffd}dd: holds no version\n1 would be imported, 4 already known, 1 skipped\n",
    );
    let bodies: Vec<Value> = stub.seen().iter().map(|seen| serde_json::from_str(&seen.body).unwrap()).collect();
    let first = json!({"pattern": "app:{prompt}", "known_good": true, "dry_run": true, "operator": "ana"});
    assert_eq!(bodies[0], first);
    assert_eq!(bodies.len(), 2, "a cursor that does not move ends it");
    assert_eq!(bodies[1]["cursor"], "7");
}

#[test]
fn restore_says_whether_the_text_is_back() {
    let path = "POST /api/prompts/a%2Fb/versions/v1%2B2/restore";
    for (status, more, says) in [
        (200, json!({"restored": true}), "is restored from the archive"),
        (200, json!({"restored": true, "unchanged": true}), "was not archived"),
        (
            202,
            json!({"restored": false}),
            "is not restored yet: the archive does not respond; the receiver keeps retrying",
        ),
    ] {
        let mut answer = json!({"prompt": "a/b", "version": "v1+2"});
        answer.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let stub = Stub::start(&[(path, status, answer)]);
        succeeds(&stub.run(&["restore", "a/b", "v1+2"]), &format!("the content of a/b v1+2 {says}\n"));
    }
}

#[test]
fn mark_says_what_follows_and_what_does_not() {
    let path = "POST /api/prompts/a%2Fb/versions/v1%2B2/mark";
    let message = "v1+2 still serves (100 % of the traffic): nothing was rolled back.\u{1b}[2J";
    for (word, more, says) in [
        ("bad", json!({}), "a/b: v1+2 is marked as bad: it is no longer a rollback target\n".to_owned()),
        (
            "bad",
            json!({"message": message}),
            format!(
                "a/b: v1+2 is marked as bad: it is no longer a rollback target\n{}\n",
                message.replace('\u{1b}', "\u{fffd}")
            ),
        ),
        ("good", json!({"unchanged": true}), "a/b: v1+2 is marked as good already: it is known-good\n".to_owned()),
    ] {
        let mut answer = json!({"success": true, "prompt": "a/b", "version": "v1+2", "mark": word});
        answer.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let stub = Stub::start(&[(path, 200, answer)]);
        let run = stub.run(&["mark", "a/b", "v1+2", &format!("--{word}"), "--reason", "no safety fix"]);
        succeeds(&run, &says);
        let body: Value = serde_json::from_str(&stub.seen()[0].body).unwrap();
        assert_eq!(body, json!({"mark": word, "reason": "no safety fix", "operator": "ana"}));
    }
}

#[test]
fn pause_and_resume_one_or_all() {
    let stub = Stub::start(&[
        ("POST /api/pause", 200, json!({"paused": true, "prompt": null, "changed": true})),
        ("POST /api/resume", 200, json!({"paused": false, "prompt": "p", "changed": true})),
    ]);
    succeeds(
        &stub.run(&["pause", "--reason", "outage"]),
        "automatic rollbacks are paused for all prompts; people can still roll back\n",
    );
    succeeds(&stub.run(&["resume", "p"]), "automatic rollbacks are resumed for p\n");
    let bodies: Vec<Value> = stub.seen().iter().map(|seen| serde_json::from_str(&seen.body).unwrap()).collect();
    assert_eq!(bodies, [json!({"reason": "outage", "operator": "ana"}), json!({"prompt": "p", "operator": "ana"})]);
}

#[test]
fn a_pause_of_a_misspelled_name_fails_although_it_is_kept() {
    let paused = json!({"paused": true, "prompt": "custmer", "changed": true, "unknown": true});
    let stub = Stub::start(&[("POST /api/pause", 200, paused)]);
    let output = stub.run(&["pause", "custmer"]);
    fails(
        &output,
        1,
        "error: no version of custmer is registered or active: check its name with `prompt-rollback status`\n",
    );
    assert!(stdout(&output).starts_with("automatic rollbacks are paused for custmer"));
}

#[test]
fn another_server_confirms_nothing() {
    let stub = Stub::start(&[("POST /api/pause", 200, json!({})), ("GET /api/prompts?limit=500", 200, json!([]))]);
    let url = stub.url();
    fails(&stub.run(&["pause"]), 1, &format!("error: {url} did not confirm the pause\n"));
    fails(&stub.run(&["status"]), 1, &format!("error: {url} answered 200 OK: no JSON object\n"));
    let login = Stub::with(vec![("GET /-/ready".to_owned(), 200, "<html>\nSign in".to_owned())]);
    let expected = format!("error: {} is not a receiver: expected \"ready\", found \"<html>\"\n", login.url());
    fails(&login.run(&["healthcheck"]), 1, &expected);
}

#[test]
fn an_empty_answer_of_another_server_is_no_success() {
    for (arguments, route, field) in [
        (&["register", "p", "v1"][..], "POST /api/prompts/p/versions", "created"),
        (&["activate", "p", "v1"], "POST /api/prompts/p/activate", "to_version"),
        (&["rollback", "p", "--to", "v1"], "POST /api/rollback", "to_version"),
        (&["mark", "p", "v1", "--bad", "--reason", "x"], "POST /api/prompts/p/versions/v1/mark", "mark"),
        (&["restore", "p", "v1"], "POST /api/prompts/p/versions/v1/restore", "restored"),
        (&["decide", "01KA", "approve"], "POST /api/incidents/01KA/decide", "success"),
        (&["import"], "POST /api/import", "adopted"),
        (&["reload"], "POST /-/reload", "changed"),
        (&["drill", "p", "--wait", "1"], "POST /api/drill", "id"),
        (&["status", "p"], "GET /api/prompts/p", "prompt"),
        (&["incidents", "01KA"], "GET /api/incidents/01KA", "id"),
    ] {
        for (answer, found) in [(json!({}), "{}"), (json!([]), "[]")] {
            let stub = Stub::start(&[(route, 200, answer)]);
            let expected = format!(
                "error: {} is not a receiver: expected a response with \"{field}\", found {found}\n",
                stub.url()
            );
            for output in ["text", "json"] {
                fails(&stub.run(&[arguments, &["--output", output]].concat()), 1, &expected);
            }
        }
    }
    let stub = Stub::start(&[("POST /api/resume", 200, json!({}))]);
    fails(&stub.run(&["resume"]), 1, &format!("error: {} did not confirm the resumption\n", stub.url()));
    let login = Stub::with(vec![("GET /api/incidents/01KA/postmortem".to_owned(), 200, "<html>\nSign in".to_owned())]);
    let expected = format!("error: {} is not a receiver: expected a post-mortem, found \"<html>\"\n", login.url());
    fails(&login.run(&["postmortem", "01KA"]), 1, &expected);
}

#[test]
fn an_argument_of_an_unset_variable_is_never_left_out() {
    let stub = Stub::start(&[("POST /api/rollback", 400, json!({"error": {"code": "bad_request", "message": "no"}}))]);
    for (arguments, name) in [
        (&["pause", ""][..], "[PROMPT]"),
        (&["resume", ""], "[PROMPT]"),
        (&["rollback", ""], "<PROMPT>"),
        (&["status", ""], "[PROMPT]"),
        (&["log", ""], "[PROMPT]"),
        (&["activate", "p", ""], "<VERSION>"),
        (&["incidents", ""], "[ID]"),
    ] {
        let run = stub.run(arguments);
        assert_eq!(run.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&run).contains(name), "{arguments:?}: {}", stderr(&run));
    }
    assert_eq!(stub.seen().len(), 0);
    stub.run(&["rollback", "p", "--to", "v1", "--from", ""]);
    let body: Value = serde_json::from_str(&stub.seen()[0].body).unwrap();
    assert_eq!(body["from_version"], "", "the receiver refuses it");
}

#[test]
fn an_address_with_a_password_is_refused_and_not_shown() {
    let mut by_variable = program(&["status"]);
    by_variable.env("PROMPT_ROLLBACK_URL", "http://u:hunter2@h");
    for command in [&mut by_variable, &mut program(&["status", "--url", "http://u:hunter2@h"])] {
        let run = command.output().unwrap();
        let expected = "error: --url: expected http://HOST:PORT or https://…, without credentials and query\n";
        fails(&run, 2, expected);
    }
}

#[test]
fn reload_says_what_has_changed_or_what_is_wrong() {
    let changed = json!({"key": "guards.mode", "from": "armed", "to": "dry-run"});
    let good =
        Stub::start(&[("POST /-/reload", 200, json!({"success": true, "changed": [changed], "needs_restart": []}))]);
    succeeds(&good.run(&["reload"]), "reloaded; what has changed:\n  guards.mode: \"armed\" → \"dry-run\"\n");
    let problems =
        "a.toml:2: guards.mode: found \"on\", expected one of \"armed\", \"dry-run\"\na.toml:3: guards.x: unknown key";
    let bad = Stub::start(&[("POST /-/reload", 400, json!({"error": {"code": "bad_config", "message": problems}}))]);
    let output = bad.run(&["reload"]);
    assert_eq!(output.status.code(), Some(1));
    for line in problems.lines() {
        assert!(stderr(&output).contains(line), "{}", stderr(&output));
    }
}

#[test]
fn status_follows_the_pages() {
    let prompt = |name: &str| json!({"prompt": name, "active": "v2", "rollback_target": "v1", "known_good": true, "open_incidents": []});
    let stub = Stub::start(&[
        ("GET /api/prompts?limit=500", 200, json!({"prompts": [prompt("a")], "next": "c&1"})),
        ("GET /api/prompts?limit=499&cursor=c%261", 200, json!({"prompts": [prompt("b")], "next": null})),
        ("GET /api/prompts?limit=2", 200, json!({"prompts": [prompt("a"), prompt("b")], "next": "x"})),
        ("GET /api/prompts?limit=500&without_target=true", 200, json!({"prompts": [], "next": null})),
    ]);
    let table = "\
PROMPT  ACTIVE  ROLLBACK TARGET  SOAK ENDS   PAUSED  COVERAGE  OPEN INCIDENTS
a       v2      v1               known-good  no      -         -
b       v2      v1               known-good  no      -         -
";
    succeeds(&stub.run(&["status", "--limit", "500"]), table);
    succeeds(&stub.run(&["status", "--limit", "2"]), &format!("{table}… there are more; use --limit to show them\n"));
    succeeds(&stub.run(&["status", "--without-target"]), "no prompts\n");
    let output = stub.run(&["status", "--limit", "500", "--output", "json"]);
    let value: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(value, json!({"prompts": [prompt("a"), prompt("b")], "next": null}));
}

#[test]
fn a_cursor_that_stands_still_ends_the_list() {
    let page =
        json!({"entries": [{"event": "activate", "to": "v1", "at": "2026-11-21T00:38:12.689Z"}], "next": "same"});
    let stub = Stub::start(&[
        ("GET /api/prompts/p/log?limit=20", 200, page.clone()),
        ("GET /api/prompts/p/log?limit=19&cursor=same", 200, page),
    ]);
    assert_eq!(stub.run(&["log", "p"]).status.code(), Some(0));
    assert_eq!(stub.seen().len(), 2);
}

#[test]
fn single_prompts_and_incidents_are_asked_for_by_name() {
    let stub = Stub::start(&[
        (
            "GET /api/prompts/a%2Fb",
            200,
            json!({"prompt": "a/b", "active": "v2", "rollback_target": "v1", "extra": {"later": true}}),
        ),
        ("GET /api/incidents?limit=50&open=true", 200, json!({"incidents": [], "next": null})),
        (
            "GET /api/incidents/01KA",
            200,
            json!({"id": "01KA", "prompt": "p", "version": "v2", "phase": "recovered", "opened_at": "2026-11-21T00:38:12.689Z"}),
        ),
    ]);
    succeeds(
        &stub.run(&["status", "a/b"]),
        "a/b\n  active           v2\n  rollback target  v1\n  paused           no\n",
    );
    let json = stub.run(&["status", "a/b", "--output", "json"]);
    assert_eq!(serde_json::from_str::<Value>(&stdout(&json)).unwrap()["extra"], json!({"later": true}));
    succeeds(&stub.run(&["incidents", "--open"]), "no incidents\n");
    assert!(stdout(&stub.run(&["incidents", "01KA"])).starts_with("01KA\n  prompt           p\n"));
}

#[test]
fn a_postmortem_is_printed_as_it_is_but_for_what_moves_the_cursor() {
    let markdown = "# Post-mortem\n\n```diff\n+\ttab\u{1b}[2J\n```\n";
    let stub = Stub::with(vec![("GET /api/incidents/01KA/postmortem".into(), 200, markdown.into())]);
    succeeds(&stub.run(&["postmortem", "01KA"]), "# Post-mortem\n\n```diff\n+\ttab\u{fffd}[2J\n```\n");
    let json: Value = serde_json::from_str(&stdout(&stub.run(&["postmortem", "01KA", "--output", "json"]))).unwrap();
    assert_eq!(json, json!({"incident": "01KA", "markdown": markdown.trim_end()}));
    assert_eq!(stub.run(&["postmortem", "01KB"]).status.code(), Some(1));
}

#[test]
fn a_report_tells_each_trigger_and_each_case() {
    let tally = |trigger: &str, right, wrong, unclear, saved| json!({"trigger": trigger, "right": right, "wrong": wrong, "unclear": unclear, "minutes_saved": saved});
    let case = |prompt: &str, verdict: &str, text: &str, after| json!({"incident": "01KA", "prompt": prompt, "from": "v2", "to": "v1", "at": "2026-11-18T10:00:00.000Z", "trigger": "Errors", "verdict": verdict, "text": text, "after_seconds": after});
    let answer = json!({
        "since": "2026-11-14T00:38:12.689Z", "until": "2026-11-21T00:38:12.689Z", "dry_run": true,
        "total": tally("", 1, 0, 1, 12), "triggers": [tally("Errors", 1, 0, 1, 12)],
        "cases": [case("a", "right", "a person rolled back the same way", Some(720)), case("b\u{1b}[2J", "unclear", "no decision yet", None)],
        "left_out": 3, "partial": false, "later": 1,
    });
    let stub = Stub::start(&[("GET /api/report?since=7d", 200, answer.clone())]);
    succeeds(
        &stub.run(&["report"]),
        "2026-11-14 00:38:12Z to 2026-11-21 00:38:12Z\n\n\
         TRIGGER  RIGHT  WRONG  UNCLEAR  SAVED\n\
         Errors   1      0      1        12 min\n\n\
         WOULD ROLL BACK AT    PROMPT  FROM  TO  TRIGGER  VERDICT  INSTEAD                                          INCIDENT\n\
         2026-11-18 10:00:00Z  a       v2    v1  Errors   right    a person rolled back the same way, 12 min later  01KA\n\
         2026-11-18 10:00:00Z  b\u{fffd}[2J   v2    v1  Errors   unclear  no decision yet                                  01KA\n\
         … and 3 more, which are counted above\n",
    );
    let json: Value = serde_json::from_str(&stdout(&stub.run(&["report", "--output", "json"]))).unwrap();
    assert_eq!(json, answer);
    let nothing = json!({"since": "2026-11-14T00:38:12.689Z", "until": "2026-11-21T00:38:12.689Z", "dry_run": false, "triggers": [], "cases": []});
    let stub = Stub::start(&[("GET /api/report?since=2026-11-14T00%3A38%3A12Z", 200, nothing)]);
    let said = stdout(&stub.run(&["report", "--since", "2026-11-14T00:38:12Z"]));
    assert!(said.contains("nothing would have been rolled back\nhint: ") && said.contains("dry-run"), "{said}");
}

#[test]
fn refusals_are_told_in_the_receivers_words() {
    let error = |code: &str, message: &str| json!({"error": {"code": code, "message": message}});
    let stub = Stub::with(vec![
        ("POST /api/rollback".into(), 409, error("needs_force", "v1.8.0 never soaked").to_string()),
        ("GET /api/prompts/p".into(), 401, error("unauthorized", "wrong bearer token").to_string()),
        ("GET /api/prompts/html".into(), 502, "<html>\n<b>bad gateway</b>".into()),
        ("GET /api/prompts/text".into(), 200, "hello".into()),
        ("GET /api/prompts/moved".into(), 302, String::new()),
        ("GET /api/prompts/evil".into(), 404, error("x", "a\u{1b}[2Jb").to_string()),
    ]);
    fails(&stub.run(&["rollback", "p", "--to", "v1.8.0"]), 1, "error: v1.8.0 never soaked (needs_force)\n");
    fails(
        &stub.run(&["status", "p"]),
        1,
        "error: wrong bearer token (unauthorized)\nhint: give the receiver's server.api_token by --token-file, PROMPT_ROLLBACK_TOKEN_FILE or PROMPT_ROLLBACK_TOKEN\n",
    );
    let url = stub.url();
    fails(&stub.run(&["status", "html"]), 1, &format!("error: {url} answered 502 Bad Gateway: <html>\n"));
    fails(
        &stub.run(&["status", "text"]),
        1,
        &format!("error: {url} answered 200 OK: not JSON: expected value at line 1 column 1\n"),
    );
    fails(&stub.run(&["status", "moved"]), 1, &format!("error: {url} answered 302 Found: \n"));
    fails(&stub.run(&["status", "evil"]), 1, "error: a\u{fffd}[2Jb (x)\n");
}

#[test]
fn a_receiver_that_is_not_there_is_named() {
    let address = free_address();
    let output = program(&["status", "--url", &format!("http://{address}")]).output().unwrap();
    fails(
        &output,
        1,
        &format!(
            "error: cannot reach http://{address}: Connection refused (os error 111)\n\
             hint: is the receiver running there? set --url or PROMPT_ROLLBACK_URL\n"
        ),
    );
}

#[test]
fn a_receiver_that_never_answers_is_given_up() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let output = program(&["healthcheck", "--url", &url]).output().unwrap();
    fails(&output, 1, &format!("error: no answer from {url} within 10 s\n"));
}

#[test]
fn healthcheck_is_ready_or_says_why_not() {
    let ready = Stub::with(vec![("GET /-/ready".into(), 200, "ready\n".into())]);
    succeeds(&ready.run(&["healthcheck"]), "ready\n");
    let waiting = Stub::with(vec![("GET /-/ready".into(), 503, "redis: connection refused\n".into())]);
    let message = format!("error: {} answered 503 Service Unavailable: redis: connection refused\n", waiting.url());
    fails(&waiting.run(&["healthcheck"]), 1, &message);
}

#[test]
fn output_that_nobody_reads_to_the_end_is_no_failure() {
    let many: Vec<Value> =
        (0..5000).map(|n| json!({"prompt": format!("prompt-{n}"), "rollback_target": "v1"})).collect();
    let stub = Stub::start(&[("GET /api/prompts?limit=500", 200, json!({"prompts": many, "next": null}))]);
    let mut child = program(&["status"])
        .env("PROMPT_ROLLBACK_URL", stub.url())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    fails(&output, 0, "");
}

#[test]
fn a_drill_says_where_it_stopped_and_what_to_look_at() {
    let hop = |hop: &str, at: Option<&str>| json!({"hop": hop, "at": at, "error": null});
    let mut post = hop("alertmanager", Some("2026-11-21T00:38:12.700Z"));
    post["url"] = json!("http://am:9093\u{1b}[2J");
    let drill = |hops: Vec<Value>, done: bool| json!({"id": "01KA", "prompt": "p", "version": "v2", "started_at": "2026-11-21T00:38:12.689Z", "slack": false, "done": done, "hops": hops});
    let stub = Stub::start(&[
        ("POST /api/drill", 201, drill(vec![hop("alertmanager", None), hop("webhook", None)], false)),
        ("GET /api/drill/01KA", 200, drill(vec![post, hop("webhook", None)], false)),
    ]);
    let output = stub.run(&["drill", "p", "--wait", "1"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stdout(&output),
        "drill 01KA of p v2\n  0.011 s  posted to Alertmanager http://am:9093\u{fffd}[2J\n",
        "each step is printed once"
    );
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.starts_with("error: stopped after 1 s: the alert did not arrive at the webhook\ncheck: "), "{said}");
    let asked: Value = serde_json::from_str(&stub.seen()[0].body).unwrap();
    assert_eq!(asked, json!({"prompt": "p", "operator": "ana"}));
}

/// External text reaches a terminal as text: in tables, in JSON and in errors.
#[test]
fn hidden_characters_reach_no_terminal() {
    const NASTY: &str = "a\u{9b}2Jb\u{202e}c\u{2028}d\u{1b}[2Je\u{7f}f\u{2066}";
    let log = json!({"entries": [{"id": "1-0", "event": "rollback", "from": "v2", "to": "v1", "reason": NASTY,
        "operator": NASTY, "at": "2026-11-21T00:38:12.689Z", "incident": null}], "next": null});
    let refused = json!({"error": {"code": "conflict", "message": NASTY}});
    let stub =
        Stub::start(&[("GET /api/prompts/p/log?limit=20", 200, log.clone()), ("GET /api/prompts/p", 409, refused)]);
    let outputs = [
        stub.run(&["log", "p"]),
        stub.run(&["log", "p", "--output", "json"]),
        stub.run(&["status", "p"]),
        stub.run(&["status", "p", "--output", "json"]),
    ];
    for output in &outputs {
        let text = stdout(output) + &stderr(output);
        let hidden: Vec<char> =
            text.chars().filter(|c| *c != '\n' && prompt_rollback::visible::is_hidden(*c)).collect();
        assert!(text.contains('f') && hidden.is_empty(), "{hidden:?}: {text}");
    }
    assert_eq!(
        serde_json::from_str::<Value>(&stdout(&outputs[1])).unwrap()["entries"],
        log["entries"],
        "the same JSON"
    );
}
