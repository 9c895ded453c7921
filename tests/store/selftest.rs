//! The self-test names missing permissions.

use anyhow::Result;
use prompt_rollback::store::{Clock, Level, SelfTest, Store};
use prompt_rollback_testkit::free_port;

use super::kit::{Kit, critical};
use crate::common::{Redis, SOON, config, eventually};

const USERS: &str = include_str!("../../config/users.acl");
/// Without these the receiver works, but `check --connect` reports less.
const OPTIONAL: [&str; 3] = ["+info", "+acl|dryrun", "+scan"];
/// Needed only to wait for replicas.
const WAIT: &str = "+wait";

/// The rules of the shipped user, without its name and password.
fn shipped_rules() -> Vec<&'static str> {
    let line = USERS.lines().find(|line| line.starts_with("user receiver ")).expect("the receiver's user");
    line.split_whitespace().skip(2).filter(|rule| !rule.starts_with('#')).collect()
}

/// A store whose user has `rules`.
async fn store_of(redis: &Redis, rules: &[&str], env: &[(&str, &str)]) -> Result<Store> {
    let mut command = vec!["ACL", "SETUSER", "tested", "reset", "on", "nopass"];
    command.extend(rules);
    redis.cmd::<()>(&command).await?;
    let url = format!("redis://tested:any@{}", redis.addr());
    Ok(Store::new(&config(&url, env).redis, Clock::default())?)
}

/// `rules` without one of them in turn: each permission, each half of a key pattern's, each channel.
fn each_less_one<'a>(rules: &[&'a str]) -> Vec<(&'a str, Vec<String>)> {
    let mut cases = Vec::new();
    for (at, rule) in rules.iter().enumerate() {
        let instead: &[Option<String>] = match rule.chars().next() {
            Some('+' | '&' | '%') => &[None],
            Some('~') => &[None, Some(format!("%R{rule}")), Some(format!("%W{rule}"))],
            // `resetchannels` and `-@all` remove permissions
            _ => continue,
        };
        for instead in instead {
            let mut less: Vec<String> = rules.iter().map(|rule| (*rule).to_owned()).collect();
            less.splice(at..=at, instead.clone());
            cases.push((*rule, less));
        }
    }
    cases
}

#[tokio::test]
async fn the_shipped_user_passes_the_self_test_which_leaves_nothing_behind() -> Result<()> {
    let kit = Kit::start()?;
    let test = kit.store.selftest().await?;
    assert_eq!(test.problem(), None);
    assert!(test.findings.iter().any(|f| f.name == "maxmemory-policy" && f.detail == "noeviction"), "{test:?}");
    let expired = eventually("scratch keys gone", SOON, async || kit.dump().await.ok()?.is_empty().then_some(()));
    expired.await?;
    kit.ship("p").await?;
    kit.does("p", critical("p")).await?;
    kit.store.watch().await?;
    assert_eq!(kit.cmd::<String>(&["GET", "{prompts}:active:p"]).await?, "v1");
    Ok(())
}

#[tokio::test]
async fn each_missing_permission_is_named_and_no_needless_one_ships() -> Result<()> {
    let redis = Redis::start()?;
    let rules = shipped_rules();
    let cases = each_less_one(&rules);
    assert!(cases.len() > 34, "{cases:?}");
    for (rule, less) in cases {
        let less: Vec<&str> = less.iter().map(String::as_str).collect();
        let store = store_of(&redis, &less, &[]).await?;
        let test = store.selftest().await.unwrap_or_else(|error| panic!("{rule}: {error}"));
        if OPTIONAL.contains(&rule) || rule == WAIT {
            assert_eq!(test.problem(), None, "{rule} is not needed");
        }
        if OPTIONAL.contains(&rule) {
            continue;
        }
        let store = store_of(&redis, &less, &[("REDIS__MIN_REPLICAS_ACKED", "1")]).await?;
        let test = store.selftest().await?;
        let problem = test.problem().unwrap_or_else(|| panic!("{less:?}: {rule} is not missed"));
        let name = rule.trim_start_matches('+');
        let named = problem.split([' ', ',']).any(|word| word == name);
        assert!(named && problem.contains("config/users.acl"), "{less:?}: {rule}: {problem}");
    }
    Ok(())
}

#[tokio::test]
async fn the_previous_acl_file_fits_and_the_check_says_if_scan_is_permitted() -> Result<()> {
    let redis = Redis::start()?;
    for (more, says) in [(&["+config|get"][..], "SCAN is permitted"), (&["-scan"], "SCAN is not permitted")] {
        let rules = [&shipped_rules()[..], more].concat();
        let test = store_of(&redis, &rules, &[]).await?.selftest().await?;
        assert_eq!(test.problem(), None);
        let (level, detail) = said(&test, "unknown prompts");
        assert!(level == Level::Ok && detail.starts_with(says), "{detail}");
    }
    Ok(())
}

#[tokio::test]
async fn without_the_optional_ones_it_is_said_what_is_not_known() -> Result<()> {
    let redis = Redis::start()?;
    let less: Vec<&str> = shipped_rules().into_iter().filter(|rule| !OPTIONAL.contains(rule)).collect();
    let store = store_of(&redis, &less, &[]).await?;
    assert_eq!(store.server_version().await?, None);
    let test = store.selftest().await?;
    let finding = test.findings.iter().find(|f| f.name == "maxmemory-policy").expect("looked at");
    assert!(
        finding.level == Level::Ok && finding.detail.starts_with("unknown (INFO is not permitted)"),
        "{}",
        finding.detail
    );
    Ok(())
}

/// The problem that a self-test finds, or why there is none.
async fn problem(store: &Store) -> Option<String> {
    match store.selftest().await {
        Ok(test) => test.problem(),
        Err(error) => Some(error.to_string()),
    }
}

#[tokio::test]
async fn a_cluster_asks_for_two_permissions_more_and_names_them() -> Result<()> {
    let conf = format!("cluster-enabled yes\ncluster-port {}", free_port());
    let redis = Redis::builder().conf(conf).start()?;
    redis.cmd::<()>(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).await?;
    eventually("the cluster is one", SOON, async || {
        redis.cmd::<String>(&["CLUSTER", "INFO"]).await.ok()?.contains("cluster_state:ok").then_some(())
    })
    .await?;
    let nodes = redis.addr();
    let env = [("REDIS__MODE", "cluster"), ("REDIS__NODES", nodes.as_str())];
    let more = documented("The user needs `", "docs/operations.md, Redis Cluster");
    assert_eq!(more, ["+role", "+cluster|nodes"]);
    let rules = [shipped_rules(), more.clone()].concat();
    assert_eq!(problem(&store_of(&redis, &rules, &env).await?).await, None);
    for rule in more {
        let less: Vec<&str> = rules.iter().copied().filter(|other| *other != rule).collect();
        let problem = problem(&store_of(&redis, &less, &env).await?).await.unwrap_or_default();
        assert!(problem.contains(&rule[1..]), "{rule}: {problem}");
    }
    Ok(())
}

#[tokio::test]
async fn sentinels_ask_for_permissions_of_their_own_and_these_are_named() -> Result<()> {
    let redis = Redis::start()?;
    let sentinel = Redis::builder().sentinel("main", &redis, 1).start()?;
    let nodes = sentinel.addr();
    let env = [
        ("REDIS__MODE", "sentinel"),
        ("REDIS__SENTINEL_MASTER", "main"),
        ("REDIS__SENTINEL_USERNAME", "asking"),
        ("REDIS__SENTINEL_PASSWORD", "any"),
        ("REDIS__NODES", nodes.as_str()),
    ];
    let ask_as = async |rules: &[&str]| -> Result<()> {
        let user = ["ACL", "SETUSER", "asking", "reset", "on", "nopass"];
        sentinel.cmd::<()>(&[&user[..], rules].concat()).await
    };
    let asking: Vec<&str> = documented("user prompt-rollback on >… ", "docs/operations.md, Redis Sentinel");
    assert!(asking.len() > 3, "{asking:?}");
    let rules = [shipped_rules(), vec!["+role"]].concat();
    ask_as(&asking).await?;
    assert_eq!(problem(&store_of(&redis, &rules, &env).await?).await, None);
    for (rule, less) in each_less_one(&asking) {
        ask_as(&less.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        let problem = problem(&store_of(&redis, &rules, &env).await?).await;
        let problem = problem.unwrap_or_else(|| panic!("{rule} is not missed"));
        assert!(problem.contains(rule.trim_start_matches('+')), "{rule}: {problem}");
    }
    ask_as(&asking).await?;
    let problem = problem(&store_of(&redis, &shipped_rules(), &env).await?).await.unwrap_or_default();
    assert!(problem.ends_with("(see config/users.acl): role"), "{problem}");
    Ok(())
}

/// The rules in the operations guide after these words, in backticks or to the end of the line.
fn documented(behind: &str, place: &str) -> Vec<&'static str> {
    const GUIDE: &str = include_str!("../../docs/operations.md");
    let (_, rest) = GUIDE.split_once(behind).unwrap_or_else(|| panic!("{place} has no {behind:?}"));
    rest.split(['`', '\n']).next().unwrap_or_default().split_whitespace().collect()
}

/// As services do it: the commands are gone, for everybody.
fn without(commands: &[&str]) -> Result<Redis> {
    let conf: Vec<String> = commands.iter().map(|command| format!("rename-command {command} \"\"")).collect();
    Redis::builder().conf(conf.join("\n")).start()
}

#[tokio::test]
async fn a_managed_redis_without_the_commands_of_its_operator_is_enough() -> Result<()> {
    let gone = ["CONFIG", "DEBUG", "MONITOR", "KEYS", "SAVE", "BGSAVE", "WAIT", "ROLE", "REPLICAOF", "MODULE"];
    let kit = Kit::on(without(&gone)?)?;
    let test = kit.store.selftest().await?;
    assert_eq!(test.problem(), None);
    kit.ship("p").await?;
    kit.does("p", critical("p")).await?;
    assert_eq!(kit.cmd::<String>(&["GET", "{prompts}:active:p"]).await?, "v1");
    Ok(())
}

#[tokio::test]
async fn what_a_server_does_not_have_is_named_where_it_is_needed() -> Result<()> {
    const REPLICATED: (&str, &str) = ("REDIS__MIN_REPLICAS_ACKED", "1");
    for (command, env, named) in [
        ("WAIT", &[][..], None),
        ("WAIT", &[REPLICATED], Some("wait")),
        ("SCAN", &[], None),
        ("INFO", &[], None),
        ("CLIENT", &[], Some("client|tracking")),
        ("EVALSHA", &[], Some("evalsha")),
        ("PUBLISH", &[], Some("publish")),
        ("XADD", &[], Some("xadd")),
        ("ZCARD", &[], Some("zcard")),
        ("HGETALL", &[], Some("hgetall")),
    ] {
        let redis = without(&[command])?;
        let store = Store::new(&config(&redis.url(), env).redis, Clock::default())?;
        let problem = store.selftest().await?.problem();
        let expected = named.map(|named| format!("permissions: this server does not have: {named}"));
        assert_eq!(problem, expected, "{command}");
    }
    // the master of a cluster is asked for its role, and only there
    let conf = format!("cluster-enabled yes\ncluster-port {}\nrename-command ROLE \"\"", free_port());
    let redis = Redis::builder().conf(conf).receiver_may("+role +cluster|nodes").start()?;
    redis.cmd::<()>(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).await?;
    eventually("the cluster is one", SOON, async || {
        redis.cmd::<String>(&["CLUSTER", "INFO"]).await.ok()?.contains("cluster_state:ok").then_some(())
    })
    .await?;
    let nodes = redis.addr();
    let env = [("REDIS__MODE", "cluster"), ("REDIS__NODES", nodes.as_str())];
    let store = Store::new(&config(&redis.url(), &env).redis, Clock::default())?;
    assert_eq!(problem(&store).await.as_deref(), Some("permissions: this server does not have: role"));
    Ok(())
}

#[tokio::test]
async fn what_a_volatile_policy_may_evict_is_said_and_is_all_that_expires() -> Result<()> {
    let kit = Kit::start()?;
    kit.ship("p").await?;
    kit.does("p", critical("p")).await?;
    for policy in ["volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"] {
        kit.cmd::<()>(&["CONFIG", "SET", "maxmemory-policy", policy]).await?;
        let test = kit.store.selftest().await?;
        assert_eq!(test.problem(), None);
        let (level, detail) = said(&test, "maxmemory-policy");
        assert!(
            level == Level::Warning && detail.starts_with(&format!("is {policy}: when memory is full")),
            "{detail}"
        );
    }
    eventually("the scratch keys are gone", SOON, async || {
        let keys: Vec<String> = kit.cmd(&["KEYS", "{prompts}:selftest:*"]).await.ok()?;
        keys.is_empty().then_some(())
    })
    .await?;
    for key in kit.cmd::<Vec<String>>(&["KEYS", "*"]).await? {
        let expires = kit.cmd::<i64>(&["PTTL", &key]).await? >= 0;
        let kind = key.split(':').nth(1).unwrap_or_default();
        let stays = ["active", "routing", "content", "state", "log", "incident"].contains(&kind);
        assert!(!(expires && stays), "{key} expires");
    }
    // memory is full of keys that expire: Redis evicts those, and every prompt stays
    let before = kit.cmd::<Vec<String>>(&["KEYS", "{prompts}:*"]).await?;
    kit.cmd::<()>(&["CONFIG", "SET", "maxmemory-policy", "volatile-lru"]).await?;
    let info: String = kit.cmd(&["INFO", "memory"]).await?;
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).expect("named").trim();
    let limit = used.parse::<u64>()? + (2 << 20);
    kit.cmd::<()>(&["CONFIG", "SET", "maxmemory", &limit.to_string()]).await?;
    let filler = "x".repeat(64 << 10);
    for number in 0..200 {
        kit.cmd::<()>(&["SET", &format!("filler:{number}"), &filler, "EX", "600"]).await?;
    }
    let info: String = kit.cmd(&["INFO", "stats"]).await?;
    let evicted = info.lines().find_map(|line| line.strip_prefix("evicted_keys:")).expect("named").trim().to_owned();
    assert!(evicted.parse::<u64>()? > 50, "{evicted}");
    let after = kit.cmd::<Vec<String>>(&["KEYS", "{prompts}:*"]).await?;
    let kept = |kind: &str| {
        let of = |keys: &[String]| keys.iter().filter(|key| key.split(':').nth(1) == Some(kind)).count();
        (of(&before), of(&after))
    };
    for kind in ["active", "state", "log", "due"] {
        let (before, after) = kept(kind);
        assert!(before > 0 && before == after, "{kind}: {before} and {after}");
    }
    Ok(())
}

#[tokio::test]
async fn a_redis_that_evicts_any_key_is_not_fit() -> Result<()> {
    let kit = Kit::start()?;
    for policy in ["allkeys-lru", "allkeys-random"] {
        kit.cmd::<()>(&["CONFIG", "SET", "maxmemory-policy", policy]).await?;
        let problem = kit.store.selftest().await?.problem().expect("a problem");
        assert!(problem.contains("maxmemory-policy") && problem.contains(policy), "{problem}");
    }
    kit.cmd::<()>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await?;
    assert_eq!(kit.store.selftest().await?.problem(), None);
    Ok(())
}

fn said<'a>(test: &'a SelfTest, name: &str) -> (Level, &'a str) {
    let finding = test.findings.iter().find(|finding| finding.name == name);
    finding.map_or((Level::Ok, "not looked at"), |finding| (finding.level, &finding.detail))
}

#[tokio::test]
async fn a_user_default_without_a_password_is_warned_of() -> Result<()> {
    let kit = Kit::start()?;
    assert_eq!(said(&kit.store.selftest().await?, "default user").0, Level::Ok);
    const WRITES: &str = "can write {prompts}:*";
    const CONNECTS: &str = "can connect, although not write {prompts}:*";
    for (rules, warning) in [
        (&["on", "nopass", "allkeys", "+@all"][..], Some(WRITES)),
        (&["on", "nopass", "~{prompts}:*", "+set"], Some(WRITES)),
        (&["on", "nopass", "%R~{prompts}:*", "+get"], Some(CONNECTS)),
        (&["on", "nopass"], Some(CONNECTS)),
        (&["on", ">s3cret", "allkeys", "+@all"], None),
        (&["off", "nopass", "allkeys", "+@all"], None),
    ] {
        kit.cmd::<()>(&[&["ACL", "SETUSER", "default", "reset"], rules].concat()).await?;
        let test = kit.store.selftest().await?;
        let (found, detail) = said(&test, "default user");
        match warning {
            Some(warning) => assert!(found == Level::Warning && detail.contains(warning), "{rules:?}: {detail}"),
            None => assert_eq!(found, Level::Ok, "{rules:?}: {detail}"),
        }
        assert_eq!(test.problem(), None, "it works");
    }
    assert_eq!(kit.cmd::<usize>(&["EXISTS", "{prompts}:selftest:open"]).await?, 0, "nothing is left behind");
    Ok(())
}

#[tokio::test]
async fn a_redis_that_keeps_nothing_or_only_snapshots_is_warned_of() -> Result<()> {
    for (conf, without, level, says) in [
        ("appendonly yes", "", Level::Ok, "append-only file"),
        ("", "", Level::Warning, "the append-only file is off: a crash of Redis loses"),
        ("save 3600 1", "", Level::Warning, "the append-only file is off"),
        ("appendonly yes", "+info", Level::Ok, "unknown (INFO is not permitted)"),
    ] {
        let redis = Redis::builder().conf(conf).start()?;
        let rules: Vec<&str> = shipped_rules().into_iter().filter(|rule| *rule != without).collect();
        let test = store_of(&redis, &rules, &[]).await?.selftest().await?;
        let (found, detail) = said(&test, "persistence");
        assert!(found == level && detail.starts_with(says), "{conf} without {without:?}: {found:?} {detail}");
        assert_eq!(test.problem(), None);
    }
    Ok(())
}

#[tokio::test]
async fn what_a_restart_would_drop_is_warned_of_and_what_is_missing_is_named() -> Result<()> {
    let redis = Redis::builder().appendonly().start()?;
    let set_default = async |rules: &[&str]| -> Result<()> {
        redis.cmd(&[&["ACL", "SETUSER", "default", "reset"], rules].concat()).await
    };
    let default = USERS.lines().find(|line| line.starts_with("user default ")).expect("the user");
    let shipped: Vec<&str> = default.split_whitespace().skip(2).collect();
    let store = store_of(&redis, &shipped_rules(), &[]).await?;
    let blind: Vec<&str> = shipped_rules().into_iter().filter(|rule| *rule != "+acl|dryrun").collect();

    set_default(&["off"]).await?;
    let test = store.selftest().await?;
    assert_eq!(test.problem(), None, "it works until the restart");
    let (level, detail) = said(&test, "replay");
    if level == Level::Ok {
        // this server has the fix: tests/faults/durability.rs has tested it
        assert_eq!(detail, "a restart reads the whole append-only file");
        return Ok(());
    }
    let all: Vec<&str> = shipped.iter().filter_map(|rule| rule.strip_prefix('+')).collect();
    assert!(all.iter().all(|command| detail.contains(command)), "{detail}");

    for rule in shipped.iter().filter(|rule| rule.starts_with(['+', '~'])) {
        let less: Vec<&str> = shipped.iter().copied().filter(|other| other != rule).collect();
        set_default(&less).await?;
        let test = store.selftest().await?;
        let (level, detail) = said(&test, "replay");
        let named = format!("lacks {}. ", rule.trim_start_matches('+'));
        assert!(level == Level::Warning && detail.contains(&named), "{rule}: {detail}");
    }
    for whole in [&shipped[..], &["off", "allkeys", "+@all"], &["on", ">s3cret", "allkeys", "+@all"]] {
        set_default(whole).await?;
        assert_eq!(said(&store.selftest().await?, "replay").0, Level::Ok, "{whole:?}");
    }
    let test = store_of(&redis, &blind, &[]).await?.selftest().await?;
    let (level, detail) = said(&test, "replay");
    assert!(level == Level::Warning && detail.contains("unknown") && detail.contains("+acl|dryrun"), "{detail}");

    redis.cmd::<()>(&["CONFIG", "SET", "appendonly", "no"]).await?;
    set_default(&["off"]).await?;
    assert_eq!(said(&store_of(&redis, &shipped_rules(), &[]).await?.selftest().await?, "replay").1, "not looked at");
    Ok(())
}
