use super::*;

#[test]
fn the_limits_are_those_of_the_shipped_rules() {
    let native = rules::files::SHIPPED[0].1;
    let windows = |window: &str| native.contains(&format!("increase(prompt_requests_total[{window}])"));
    assert!(windows("15s") && windows("1m") && windows("5m"));
    assert!(4 * LONGEST_INTERVAL <= Duration::from_secs(60) && 2 * FAST_INTERVAL < Duration::from_secs(15));
    assert!(native.contains("not less often than every 15s") && native.contains("It needs two scrapes."));
}

#[test]
fn globs_match_as_in_go() {
    for (glob, matching, others) in [
        ("*.yml", &["a.yml", ".yml"][..], &["a.yaml", "a.ymlx"][..]),
        ("a?[0-9].yml", &["ab1.yml"], &["a1.yml", "abc.yml"]),
        ("a[^b]c", &["axc"], &["abc"]),
        (r"\*", &["*"], &["a"]),
    ] {
        let regex = part_regex(glob).expect(glob);
        assert!(matching.iter().all(|name| regex.is_match(name)), "{glob}");
        assert!(!others.iter().any(|name| regex.is_match(name)), "{glob}");
    }
}
