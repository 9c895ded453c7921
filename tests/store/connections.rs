//! Every way to connect to Redis, and the errors if it fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use prompt_rollback::store::link::LoginReader;
use prompt_rollback::store::watch::WatchEvent;
use prompt_rollback::store::{Clock, Store, StoreError};

use super::kit::{Kit, critical, key, prompt};
use crate::common::{Redis, SOON, config, eventually};

/// A commit works, and so does tracking of external changes.
async fn works(kit: &Kit) -> Result<()> {
    kit.ship("p").await?;
    kit.does("p", critical("p")).await?;
    assert_eq!(kit.cmd::<String>(&["GET", &key("active:p")]).await?, "v1");
    let mut watch = kit.store.watch().await?;
    kit.cmd::<()>(&["SET", &key("active:p"), "v3"]).await?;
    assert_eq!(watch.hear().await, WatchEvent::Prompts(vec![prompt("p")]));
    let mut commits = kit.store.watch_commits().await?;
    kit.cmd::<()>(&["SET", &key("active:p"), "v4"]).await?;
    kit.ship("q").await?;
    assert_eq!(commits.hear().await, WatchEvent::Prompts(vec![prompt("q")]), "of commits, not of keys set by others");
    kit.cmd::<()>(&["HSET", &key("paused"), "*", "{}"]).await?;
    while commits.hear().await != WatchEvent::Everything {}
    assert_eq!(kit.store.selftest().await?.problem(), None);
    Ok(())
}

fn kind(result: Result<impl std::fmt::Debug, StoreError>) -> (&'static str, String) {
    match result {
        Err(StoreError::Unavailable { kind, message }) => (kind.as_str(), message),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn tcp() -> Result<()> {
    works(&Kit::start()?).await
}

#[tokio::test]
async fn a_unix_socket() -> Result<()> {
    let redis = Redis::builder().unix_socket().start()?;
    let url = redis.unix_url();
    works(&Kit::with(redis, &url, &[])?).await
}

#[tokio::test]
async fn tls_with_an_authority_of_ones_own() -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let redis = Redis::builder().tls().start()?;
    let (url, ca) = (redis.tls_url(), redis.ca_file().to_str().expect("text").to_owned());
    works(&Kit::with(redis, &url, &[("REDIS__TLS_CA_FILE", &ca)])?).await
}

#[tokio::test]
async fn tls_with_a_certificate_that_redis_asks_for() -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let start = || Redis::builder().tls().conf("tls-auth-clients yes").start();
    let text = |path: &std::path::Path| path.to_str().expect("text").to_owned();
    let (redis, other) = (start()?, start()?);
    let (url, ca) = (redis.tls_url(), text(redis.ca_file()));
    let [own, strange] = [&redis, &other].map(|redis| {
        let (cert, key) = redis.client_files();
        [("REDIS__TLS_CERT_FILE", text(cert)), ("REDIS__TLS_KEY_FILE", text(key))]
    });
    let trusts = ("REDIS__TLS_CA_FILE", ca.as_str());
    for (keys, fine) in [(&own[..], true), (&[], false), (&strange[..], false)] {
        let env: Vec<(&str, &str)> = keys.iter().map(|(key, value)| (*key, value.as_str())).chain([trusts]).collect();
        let config = config(&url, &env);
        let shown = format!("{config:?}");
        assert!(!shown.contains("PRIVATE KEY") && !shown.contains("45, 45, 45, 66, 69, 71, 73, 78, 32, 80"), "{shown}");
        let store = Store::new(&config.redis, Clock::default())?;
        let tried = store.ping().await;
        assert_eq!(tried.is_ok(), fine, "{keys:?}: {tried:?}");
        if !fine {
            assert_eq!(kind(tried).0, "connection");
        }
    }
    let env: Vec<(&str, &str)> = own.iter().map(|(key, value)| (*key, value.as_str())).chain([trusts]).collect();
    works(&Kit::with(redis, &url, &env)?).await
}

#[tokio::test]
async fn tls_to_a_stranger_is_refused() -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let redis = Redis::builder().tls().start()?;
    let url = redis.tls_url();
    let kit = Kit::with(redis, &url, &[])?;
    assert_eq!(kind(kit.store.ping().await).0, "connection");
    Ok(())
}

#[tokio::test]
async fn a_password() -> Result<()> {
    let redis = Redis::builder().acl("user default on >s3cret ~* &* +@all").start()?;
    let url = redis.url();
    let wrong = Store::new(&config(&url, &[("REDIS__PASSWORD", "guess")]).redis, Clock::default())?;
    let (kind_of_wrong, message) = kind(wrong.ping().await);
    assert_eq!(kind_of_wrong, "auth");
    assert!(!message.contains("guess"), "{message}");
    let none = Store::new(&config(&url, &[("REDIS__PASSWORD", "")]).redis, Clock::default())?;
    assert_eq!(kind(none.ping().await).0, "auth");
    works(&Kit::with(redis, &url, &[("REDIS__PASSWORD", "s3cret")])?).await
}

#[tokio::test]
async fn a_user_of_an_acl_and_one_in_the_url() -> Result<()> {
    let acl = "user default off\nuser receiver on >s3cret ~{prompts}:* &{prompts}:* +@all";
    let redis = Redis::builder().acl(acl).start()?;
    let url = redis.url();
    let kit = Kit::with(redis, &url, &[("REDIS__USERNAME", "receiver"), ("REDIS__PASSWORD", "s3cret")])?;
    works(&kit).await?;
    let url = format!("redis://receiver:s3cret@{}", kit.redis.addr());
    let store = Store::new(&config(&url, &[]).redis, Clock::default())?;
    store.ping().await?;
    Ok(())
}

#[tokio::test]
async fn a_dead_connection_is_replaced_by_the_next_call() -> Result<()> {
    let kit = Kit::start()?;
    kit.ship("p").await?;
    let generation = kit.store.generation();
    kit.cmd::<()>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await?;
    kit.load("p").await?;
    assert_eq!(kit.store.generation(), generation + 1);
    Ok(())
}

#[tokio::test]
async fn a_lost_tracking_connection_is_noticed() -> Result<()> {
    let kit = Kit::start()?;
    let mut watch = kit.store.watch().await?;
    assert!(watch.is_alive().await);
    kit.cmd::<()>(&["FLUSHALL"]).await?;
    assert_eq!(watch.hear().await, WatchEvent::Everything);
    kit.cmd::<()>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await?;
    assert_eq!(watch.hear().await, WatchEvent::Lost);
    assert!(!watch.is_alive().await);
    Ok(())
}

/// As Redis refuses logins: the password was changed, the user was deleted, the server wants a password now, or the user
/// may no longer look for the master.
#[tokio::test]
async fn a_refused_login_is_read_again_and_tried_at_once() -> Result<()> {
    let redis = Redis::start()?;
    let user = |name: &str, rest: &[&str]| {
        let all = ["ACL", "SETUSER", name, "reset", "on", "~{prompts}:*", "+@all"];
        [&all[..], rest].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let run = async |words: Vec<String>| -> Result<()> {
        redis.cmd(&words.iter().map(String::as_str).collect::<Vec<_>>()).await
    };
    let url = |login: &str| format!("redis://{login}{}", redis.addr());
    let open = user("default", &["nopass"]);
    let closed = user("default", &[">second"]);
    for (name, before, then, login, next) in [
        (
            "another password",
            user("worker", &[">first"]),
            user("worker", &[">second"]),
            "worker:first@",
            "worker:second@",
        ),
        ("another user", user("worker", &[">first"]), user("next", &[">second"]), "worker:first@", "next:second@"),
        ("a password now", open, closed, "", ":second@"),
    ] {
        run(before).await?;
        let none = [("REDIS__USERNAME", ""), ("REDIS__PASSWORD", "")];
        let settings = |login: &str| config(&url(login), &none).redis;
        let store = Store::new(&settings(login), Clock::default())?;
        let renewed = store.reconfigured(&settings(next))?;
        let reads = Arc::new(AtomicUsize::new(0));
        let (count, in_force) = (Arc::clone(&reads), renewed.clone());
        store.read_login_by(LoginReader::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
            let renewed = in_force.clone();
            Box::pin(async move { renewed.in_force() })
        }));
        store.ping().await?;
        assert_eq!(reads.load(Ordering::SeqCst), 0, "{name}");
        if name == "another user" {
            redis.cmd::<()>(&["ACL", "DELUSER", "worker"]).await?;
        }
        run(then).await?;
        redis.cmd::<usize>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await?;
        eventually(name, SOON, async || store.ping().await.ok()).await?;
        assert_eq!(reads.load(Ordering::SeqCst), 1, "{name}: the first refusal was enough");
    }
    Ok(())
}

#[tokio::test]
async fn a_login_is_not_read_again_while_redis_is_only_away() -> Result<()> {
    let mut redis = Redis::start()?;
    let store = Store::new(&config(&redis.url(), &[]).redis, Clock::default())?;
    let reads = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&reads);
    store.read_login_by(LoginReader::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
        Box::pin(std::future::ready(()))
    }));
    redis.kill9();
    assert_eq!(kind(store.ping().await).0, "connection");
    assert_eq!(reads.load(Ordering::SeqCst), 0);
    redis.restart()?;
    redis.cmd::<()>(&["ACL", "SETUSER", "receiver", "resetpass", ">another"]).await?;
    // nothing new was there to read, so the refusal stands
    let refused = eventually("refused", SOON, async || match store.ping().await {
        Err(error) => error.kind().filter(|kind| kind.as_str() == "auth"),
        Ok(_) => None,
    });
    refused.await?;
    assert!(reads.load(Ordering::SeqCst) > 0);
    Ok(())
}
