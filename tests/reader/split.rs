//! Which version a request gets, without any Redis.

use std::collections::{BTreeMap, HashMap};

use prompt_rollback::decision::decide::Active;
use prompt_rollback::reader::Split;
use proptest::prelude::*;
use proptest::test_runner::Config;
use serde::Deserialize;

#[derive(Deserialize)]
struct Vectors {
    keys: Vec<Key>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Key {
    key: String,
    crc32: u32,
    bucket: u32,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    active: String,
    routing: BTreeMap<String, String>,
    versions: Vec<String>,
}

#[test]
fn the_vectors_that_all_languages_share() {
    let vectors: Vectors = serde_json::from_str(include_str!("../fixtures/routing.json")).expect("vectors");
    for Key { key, crc32, bucket } in &vectors.keys {
        assert_eq!((crc32fast::hash(key.as_bytes()), crc32 % 100), (*crc32, *bucket), "{key:?}");
    }
    for case in &vectors.cases {
        let routing: Vec<_> = case.routing.iter().rev().collect();
        let split = Split::new(&case.active, &routing);
        let found: Vec<_> = vectors.keys.iter().map(|key| split.version(&key.key).to_string()).collect();
        assert_eq!(found, case.versions, "{}", case.name);
    }
    // cases that all say "active" would prove little
    let split = vectors.cases.iter().filter(|case| case.versions.iter().any(|version| *version != case.active));
    assert!(vectors.keys.len() > 20 && split.count() > 10);
}

#[test]
fn a_key_is_text_or_bytes() {
    let halves = Split::new("v1", &[("v1", "50"), ("v2", "50")]);
    for number in 0..100 {
        let key = format!("user-{number}");
        assert_eq!(halves.version(&key), halves.version(key.as_bytes()));
    }
    let bytes: [u8; 2] = [0xff, 0xfe];
    assert!(["v1", "v2"].contains(&&**halves.version(bytes)));
    assert_eq!(&**Split::whole("v1").version(bytes), "v1");
}

#[test]
fn a_routing_that_is_none_says_why_and_one_of_another_time_does_not() {
    let why = |routing: &[(&[u8], &[u8])]| match Split::routed("v1", routing) {
        Ok(split) => split.map_or("no split".to_owned(), |_| "a split".to_owned()),
        Err(error) => error.to_string(),
    };
    assert_eq!(why(&[]), "no split");
    assert_eq!(why(&[(b"v2", b"50"), (b"v3", b"nonsense")]), "no split");
    assert_eq!(why(&[(b"v1", b"1"), (b"v2", b"99")]), "a split");
    assert_eq!(why(&[(b"v1", b"1"), (b"v2", b"98")]), "percentages that do not sum to 100");
    assert_eq!(why(&[(b"v1", b"1"), (b"v2", b"\xff")]), "a percentage that is not a number from 0 to 100");
    assert_eq!(why(&[(b"v1", b"50"), (b"\xff", b"50")]), "a field that is not a version");
    assert_eq!(why(&[(b"v1", b"50"), (b"v1\n", b"50")]), "a version that is listed twice");
    assert_eq!(why(&[(b"v1\0", b"50\r\n"), (b" v2", b"\t50")]), "a split");
}

/// The stages of a gradual rollback, as the receiver commits them: `active` holds the larger share, the target in a tie.
fn stages(bad: &str, target: &str, percents_left: &[u32]) -> Vec<Split> {
    let stage = |left: u32| {
        let active = if left > 50 { bad } else { target };
        Split::new(
            active,
            &[(bad, left.to_string()), (target, (100 - left).to_string())].map(|(v, p)| (v.to_owned(), p)),
        )
    };
    let mut splits = vec![Split::whole(bad)];
    splits.extend(percents_left.iter().copied().map(stage));
    splits.push(Split::whole(target));
    splits
}

fn versions() -> impl Strategy<Value = (String, String)> {
    ("[A-Za-z0-9][A-Za-z0-9._:+-]{0,8}", "[A-Za-z0-9][A-Za-z0-9._:+-]{0,8}").prop_filter("two", |(a, b)| a != b)
}

proptest! {
    #![proptest_config(Config { failure_persistence: None, ..Config::with_cases(64) })]

    /// 10,000 callers, whatever the names of versions and the stages.
    #[test]
    fn each_caller_changes_version_at_most_once_in_a_gradual_rollback(
        (bad, target) in versions(),
        shipped in any::<bool>(),
        others in proptest::collection::btree_set(0u32..=100, 1..8),
        caller in "\\PC{0,12}",
    ) {
        let others: Vec<u32> = others.into_iter().rev().collect();
        let left = if shipped { &[75, 50, 25, 0][..] } else { &others };
        let splits = stages(&bad, &target, left);
        let mut on_bad = vec![0u32; splits.len()];
        for number in 0..10_000 {
            let key = format!("{caller}{number}");
            let seen: Vec<&str> = splits.iter().map(|split| &**split.version(&key)).collect();
            let changes = seen.windows(2).filter(|pair| pair[0] != pair[1]).count();
            prop_assert_eq!(changes, 1, "{:?} got {:?}", key, seen);
            for (count, version) in on_bad.iter_mut().zip(&seen) {
                *count += u32::from(*version == bad);
            }
        }
        // and the shares match the stages
        for (count, left) in on_bad[1..].iter().zip(left) {
            prop_assert!(count.abs_diff(left * 100) < 300, "{} of 10,000 at {} %", count, left);
        }
    }

    /// Every request gets one of the versions, each with as many buckets as its percentage.
    #[test]
    fn any_routing_is_followed_exactly_or_not_at_all(
        fields in proptest::collection::hash_map("[a-c1-3.]{0,3}", "[0-9]{1,3}|[ +]?[0-9.]{0,4}", 0..5),
        active in "[a-c1-3]{1,2}",
    ) {
        let routing: Vec<_> = fields.clone().into_iter().collect();
        let split = Split::new(&active, &routing);
        let mut buckets: HashMap<String, u32> = HashMap::new();
        // a key for each bucket
        for key in keys_of_all_buckets() {
            *buckets.entry(split.version(&key).to_string()).or_default() += 1;
        }
        if split == Split::whole(&active) && fields.get(&active).is_none_or(|percent| percent.trim() != "100") {
            prop_assert_eq!(buckets, HashMap::from([(active, 100)]));
        } else {
            let expected = fields.iter().map(|(version, percent)| (version.clone(), percent.trim().parse().unwrap()));
            prop_assert_eq!(buckets, expected.filter(|(_, percent)| *percent > 0).collect::<HashMap<_, _>>());
        }
    }

    /// The reader does not use the receiver's crate, so it has its own definition of a version and of what surrounds
    /// it; both must be the same.
    #[test]
    fn a_version_is_what_the_receiver_takes_for_one(name in "\\PC{0,4}|[A-Za-z0-9._:+-]{0,66}|[\\x00-\\x20]{0,2}v[\\x00-\\x7f]{0,2}") {
        let routing = [("v", "50"), (name.as_str(), "50")];
        let read = Active::read(Some(name.as_bytes()));
        prop_assume!(read.version().is_none_or(|version| version.as_str() != "v"));
        prop_assert_eq!(Split::routed("v", &routing).is_ok(), read.version().is_some(), "{:?}", name);
    }
}

fn keys_of_all_buckets() -> Vec<String> {
    let mut keys = BTreeMap::new();
    for key in (0..).map(|number| format!("key {number}")) {
        keys.entry(crc32fast::hash(key.as_bytes()) % 100).or_insert(key);
        if keys.len() == 100 {
            break;
        }
    }
    keys.into_values().collect()
}
