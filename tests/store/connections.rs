//! Every way to connect to Redis, and the errors if it fails.

use anyhow::Result;
use prompt_rollback::store::watch::WatchEvent;
use prompt_rollback::store::{Clock, Store, StoreError};

use super::kit::{Kit, critical, key, prompt};
use crate::common::{Redis, config};

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
