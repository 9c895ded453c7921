use super::*;

#[test]
fn errors_name_the_line_the_field_and_what_was_expected() {
    let text = "a:\n  - b: 1\n    c: maybe\n";
    let yaml = Yaml::parse(text).expect("valid");
    let list = YamlNode::root(&yaml).list("a").expect("a list");
    let error = list[0].flag("c").expect_err("no flag").to_string();
    assert_eq!(error, "line 3: a[0].c: found \"maybe\", expected true or false");
    let error = list[0].list("b").expect_err("no list").to_string();
    assert_eq!(error, "line 2: a[0].b: found a text, expected a list");
    for (text, expected) in [
        ("a:\n  - [b", "line 3: invalid YAML: "),
        ("a: 1\nb: 2\na: 3", "line 3: found the key \"a\" twice, expected it once"),
        ("a: &x [*x]", "line 1: an alias inside of what it names"),
        ("a: b: c", "line 1: invalid YAML: "),
        ("x: &x {a: 1}\ny:\n  b: 2\n  <<: *x", "line 4: found << after other keys, expected it once, as the first"),
        (
            "x: &x {matchers: [a=1]}\ny:\n  <<: *x\n  matchers: [b=2]",
            "line 4: found \"matchers\" here and in <<, expected it in one of them",
        ),
    ] {
        let error = Yaml::parse(text).expect_err(text).to_string();
        assert!(error.starts_with(expected), "{text:?}: {error}");
    }
}

#[test]
fn anchors_aliases_and_merge_keys_are_followed() {
    let yaml = Yaml::parse("x: &x {a: 1, b: 2}\ny:\n  <<: *x\n  b: 3\nz: [*x, ~]\nn:\n").expect("valid");
    let root = YamlNode::root(&yaml);
    let y = root.table("y").expect("texts");
    assert_eq!(y, [("b".to_owned(), "3".to_owned()), ("a".to_owned(), "1".to_owned())]);
    assert_eq!(root.list("z").expect("a list")[0].table("").expect("nothing there"), []);
    assert!(root.get("n").expect("a table").is_none());
    assert_eq!(Yaml::parse("# nothing\n").map(|yaml| YamlNode::root(&yaml).entries().map(|all| all.len())), Ok(Ok(0)));
}

#[test]
fn brackets_and_braces_are_flow_style_and_anchors_and_tags_are_not() {
    for (text, expected) in [
        ("a: [b]", true),
        ("a: &x [b]", true),
        ("a: !!seq [b]", true),
        ("a: &x\n  - b", false),
        ("a: &x\n- b", false),
        ("a:\n- b", false),
        ("a: !!map\n  b: c", false),
        ("a: &x {b: c}", true),
        ("é:\n  - &x\n    b: c", false),
    ] {
        let yaml = Yaml::parse(text).expect(text);
        let all = YamlNode::root(&yaml).entries().expect(text);
        assert_eq!(all[0].1.yaml.flow, expected, "{text}");
    }
    let yaml = Yaml::parse("a: [{b: [ c: d ]}]\ne: &x\n  - f: g\n").expect("valid");
    let root = YamlNode::root(&yaml);
    let inner = root.list("a").expect("a list")[0].list("b").expect("a list");
    assert!(inner[0].yaml.flow, "what is in brackets is too");
    assert!(!root.list("e").expect("a list")[0].yaml.flow);
    assert_eq!(YamlNode::root(&Yaml::parse("a:\nb: ~").expect("valid")).key("b").map(|at| at.line), Some(2));
}

#[test]
fn what_expands_without_end_is_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..20 {
        let below = format!("*a{}", level - 1);
        text += &format!("a{level}: &a{level} [{}]\n", [below.as_str(); 10].join(", "));
    }
    let error = Yaml::parse(&text).expect_err("a bomb").to_string();
    assert!(error.ends_with("expected at most 200000 values"), "{error}");
    for deep in ["[".repeat(100_000), "- ".repeat(100_000), "{a: ".repeat(100_000)] {
        assert!(Yaml::parse(&deep).is_err());
    }
}
