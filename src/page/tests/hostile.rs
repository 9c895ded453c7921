//! Whatever the texts from outside hold, they stay text.

use super::*;

/// Ends attributes and elements, begins scripts, and turns the direction of writing.
const HOSTILE: Texts =
    Texts("\"'><script>alert(\"x\")</script><img src=x onerror=alert(1)>\u{202e}\u{2066}\u{200b}&lt;b\u{9b}2J");

#[test]
fn no_text_from_outside_becomes_markup() {
    let plain = pages(PLAIN, &viewer());
    for ((name, page), (_, plain)) in pages(HOSTILE, &viewer()).into_iter().zip(plain) {
        assert!(!page.contains("<script>alert") && !page.contains("<img src=x"), "{name}: {page}");
        assert!(!page.contains("alert(\"x\")"), "{name}: a quote ended an attribute");
        for hidden in ['\u{202e}', '\u{2066}', '\u{200b}', '\u{9b}'] {
            assert!(!page.contains(hidden), "{name}: {hidden:?}");
        }
        // links to unsafe addresses are left out, and nothing else changes
        let elements = |page: &str, tag: &str| page.matches(&format!("<{tag}")).count();
        for tag in ["script", "img", "section", "tr", "td", "button", "form", "input", "dialog", "meta", "link"] {
            assert_eq!(elements(&page, tag), elements(&plain, tag), "{name}: {tag}");
        }
    }
    let shown = overview_of(HOSTILE, &viewer());
    assert!(shown.contains("&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;"), "{shown}");
}

#[test]
fn only_addresses_of_web_pages_become_links() {
    for (_, page) in pages(PLAIN, &viewer()) {
        for link in page.split(" href=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
            let outward = link.starts_with("https://runbooks.example/") || link.starts_with("https://grafana.example/");
            assert!(outward || link.starts_with('/') || link.starts_with('#'), "{link}");
        }
    }
    for unsafe_one in [
        "javascript:alert(1)",
        "JAVASCRIPT:alert(1)",
        "data:text/html,x",
        "//evil.example",
        "https:/evil.example",
        "https://bank.example@evil.example",
        "https://bank.example\\@evil.example",
        "https://a\u{202e}b.example",
        "https://a b.example",
        "",
    ] {
        assert_eq!(parts::address(unsafe_one), None, "{unsafe_one:?}");
    }
    assert_eq!(parts::address(" HTTPS://wiki.example/a?b=c "), Some("HTTPS://wiki.example/a?b=c"));
}

#[test]
fn the_body_of_an_action_is_json_whatever_the_viewer_is_called() {
    let viewer = Viewer { name: HOSTILE.of("dana"), ..viewer() };
    let page = incident_of(&awaiting(PLAIN), PLAIN, None, &viewer);
    let bodies: Vec<String> = page
        .split(" data-body=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .map(|body| body.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
        .collect();
    assert!(bodies.len() > 5, "{bodies:?}");
    for body in bodies {
        let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(body["operator"], viewer.name.as_str());
    }
}
