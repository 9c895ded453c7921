//! `check --alertmanager-config`: the `http_config` of webhooks, their own and the global one.

use prompt_rollback_testkit::Dir;
use prompt_rollback_testkit::tls::Authority;

use super::stack::{RECEIVERS, check, written};
use super::stub::{program, stdout};

/// An `http_config` of a webhook replaces the global one as a whole, with its credentials and its proxy.
#[test]
fn no_line_of_a_patch_replaces_what_all_webhooks_share() {
    let dir = Dir::new("stack").expect("a folder");
    let global = "global:
  http_config:
    authorization: {credentials_file: webhook_token}
    proxy_url: http://user:hunter2@proxy:3128
";
    let ours = "  - name: ours
    webhook_configs:
      - url: http://x/webhooks/alertmanager
        max_alerts: 1
";
    let printed = |text: &str| {
        let text = stdout(&check(&["--alertmanager-config"], &written(&dir, "alertmanager.yml", text)));
        assert!(!text.contains("hunter2"), "a secret is printed: {text}");
        text
    };
    let text = printed(&format!("{global}route:\n  receiver: ours\n{RECEIVERS}{ours}"));
    assert!(text.contains("+        max_alerts: 0\n") && !text.contains("http_config:\n+"), "{text}");
    assert!(!text.contains("+        http_config"), "{text}");
    let expected = "\nAdd to receivers[2].webhook_configs[0] (line 14) these lines and everything else of global.http_config (line 2), which they replace:\nhttp_config:\n  follow_redirects: false\n";
    assert!(text.contains(expected) && !text.contains("  authorization:"), "{text}");
    // without anything in it, nothing is lost
    let text = printed(&format!("global:\n  http_config: {{}}\nroute:\n  receiver: ours\n{RECEIVERS}{ours}"));
    assert!(text.contains("+        http_config:\n+          follow_redirects: false\n"), "{text}");
    assert!(!text.contains("global.http_config"), "{text}");
    // a new receiver
    let text = printed(&format!("{global}route:\n  receiver: pager\n{RECEIVERS}"));
    let expected = "\nAdd to http_config of the receiver prompt-rollback what it needs of global.http_config (line 2), which it replaces\n";
    assert!(text.contains("+        http_config:\n") && text.contains(expected), "{text}");
    let token = "global:\n  http_config:\n    follow_redirects: false\n    bearer_token: hunter2\n";
    let text = printed(&format!("{token}route:\n  receiver: pager\n{RECEIVERS}"));
    assert!(text.contains("+        http_config:\n") && !text.contains("global.http_config"), "{text}");
}

#[test]
fn a_webhook_without_the_certificate_that_the_receiver_wants_is_found() {
    let dir = Dir::new("stack").expect("a folder");
    let authority = Authority::new().expect("an authority");
    let server = authority.server().expect("a certificate");
    let [ca, cert, key] = [("ca", authority.pem()), ("cert", &server.cert), ("key", &server.key)]
        .map(|(name, pem)| written(&dir, name, pem));
    let checked = |text: &str, wants: bool| {
        let file = written(&dir, "alertmanager.yml", text);
        let mut command = program(&["check", "--alertmanager-config", file.to_str().expect("UTF-8")]);
        command.env("PROMPT_ROLLBACK_SERVER__TLS_CERT_FILE", &cert).env("PROMPT_ROLLBACK_SERVER__TLS_KEY_FILE", &key);
        if wants {
            command.env("PROMPT_ROLLBACK_SERVER__TLS_CLIENT_CA_FILE", &ca);
        }
        stdout(&command.output().expect("runs"))
    };
    let webhook = "- name: ours\n  webhook_configs:\n  - url: https://x/webhooks/alertmanager\n";
    let route = "route: {receiver: ours}\nreceivers:\n";
    let without = format!("{route}{webhook}");
    let own = format!("{without}    http_config: {{tls_config: {{cert_file: am.pem, key_file: am-key.pem}}}}\n");
    let shared = format!("global: {{http_config: {{tls_config: {{cert: PEM, key: PEM}}}}}}\n{without}");
    let only_ca = format!("{without}    http_config: {{tls_config: {{ca_file: ca.pem}}}}\n");
    let expected = "receivers[0].webhook_configs[0].http_config.tls_config: found no client certificate, expected one of server.tls_client_ca_file: the receiver would answer 403";
    let by_hand = |of: &str| {
        format!(
            "\nAdd to http_config.tls_config of {of} a client certificate of server.tls_client_ca_file: cert_file and key_file\n"
        )
    };
    for (text, wants, is_found) in [
        (&without, true, true),
        (&only_ca, true, true),
        (&without, false, false),
        (&own, true, false),
        (&shared, true, false),
    ] {
        let found = checked(text, wants);
        assert_eq!(found.contains(expected), is_found, "{text}: {found}");
        assert_eq!(found.contains(&by_hand("receivers[0].webhook_configs[0] (line 5)")), is_found, "{text}: {found}");
    }
    let added = checked(&format!("route:\n  receiver: pager\n{RECEIVERS}"), true);
    assert!(added.contains(&by_hand("the receiver prompt-rollback")), "{added}");
}
