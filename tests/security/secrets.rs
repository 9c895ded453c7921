//! Secrets are compared in constant time everywhere.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let files = entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] });
    files.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

/// Each use of a secret, by its line: passed to a library, or compared by `ct_eq`. A new one must be reviewed, and
/// added.
#[test]
fn a_secret_is_never_compared_as_a_text_is() {
    const USES: [(&str, &str); 27] = [
        ("config/values.rs", "a.expose_secret().as_bytes().ct_eq(b.expose_secret().as_bytes())"),
        // its length, and the app in the app-level token
        ("config/validate.rs", "token.expose_secret().len() < MIN_TOKEN"),
        ("config/sections.rs", "self.app_token.as_ref()?.expose_secret().split('-').nth(2)"),
        // whether they are usable at all
        ("config/validate.rs", "URL => is_address(value.expose_secret())"),
        ("config/validate.rs", "_ => is_strong(value.expose_secret())"),
        // the headers for the collector of spans
        ("config/validate.rs", "headers(text.expose_secret()).is_some()"),
        ("config/sections.rs", "self.otlp_headers.as_ref().and_then(|text| headers(text.expose_secret()))"),
        ("config/validate/deciders.rs", "is_none_or(|url| is_address(url.expose_secret()))"),
        // the address of a webhook or of a schedule, and the keys that sign events and sessions
        ("http_client.rs", "url.expose_secret().parse()"),
        ("http/auth/session.rs", "Hmac::<Sha256>::new_from_slice(key.expose_secret().as_bytes())"),
        ("notify/webhook/signature.rs", "let secret = secret.expose_secret();"),
        ("notify/webhook/signature.rs", "Hmac::<Sha256>::new_from_slice(self.0.expose_secret())"),
        // values that stay in force
        ("config/reader.rs", "self.pins.get(key).map(|text| text.expose_secret().to_owned())"),
        ("config/reader/hidden.rs", "self.pins.get(key).and_then(|text| T::from_text(text.expose_secret()))"),
        ("http/auth/mod.rs", "given.ct_eq(token.expose_secret().as_bytes())"),
        // a command compares two files of the person who runs it
        ("cli/stack/webhooks.rs", "chain(sources).map(|token| token.expose_secret()).collect()"),
        // which compares in constant time itself
        ("slack/payload.rs", "SlackEventSignatureVerifier::new(&secret.expose_secret().into())"),
        ("slack/client/call.rs", "SlackApiToken::new(token.expose_secret().into())"),
        ("config/http_target.rs", "BASE64_STANDARD.encode(format!(\"{name}:{}\", password.expose_secret()))"),
        (
            "config/http_target.rs",
            "self.bearer_token.as_ref().map(|token| format!(\"Bearer {}\", token.expose_secret()))",
        ),
        // the headers for Prometheus and Alertmanager, and whether they are headers
        ("config/http_target.rs", "self.headers.as_ref().and_then(|text| headers(text.expose_secret()))"),
        ("config/target.rs", "target.headers.as_ref().map(|text| headers(text.expose_secret()))"),
        // whether it is the address of a proxy; the word for none is no secret
        ("config/forms.rs", "let url = url.expose_secret();"),
        ("http_client/proxy.rs", "match proxy_url.map(ExposeSecret::expose_secret)"),
        // the library's own settings
        ("store/connect.rs", "client_key: key.expose_secret().to_vec()"),
        ("store/connect.rs", "settings.set_password(password.expose_secret())"),
        ("store/sentinel.rs", "settings.set_password(password.expose_secret())"),
    ];
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"));
    let mut found = 0;
    for path in sources(root) {
        let text = fs::read_to_string(&path).expect("a source");
        let file = path.strip_prefix(root).expect("below src").display().to_string();
        for line in text.lines().filter(|line| line.contains("expose_secret")) {
            let known = USES.iter().any(|(place, what)| *place == file && line.contains(what));
            assert!(known, "{file}: {line}");
            found += 1;
        }
    }
    assert_eq!(found, USES.len(), "a use that is listed here is gone");
}
