//! A name that resolves to another address: a failover by DNS. Real names, in a separate /etc/hosts.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use prompt_rollback_testkit::readers::{Server, python, python_examples, rust_server, set};
use prompt_rollback_testkit::{Dir, ProcessBuilder, Redis};
use tokio::net::{TcpListener, TcpStream};

use crate::common::{SOON, eventually};

/// How to get a mount namespace: a user other than root needs a user namespace for it.
fn namespace() -> &'static [&'static str] {
    let root = fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if root { &["--mount"] } else { &["--map-root-user", "--mount"] }
}

/// Runs `command` with `hosts` instead of /etc/hosts.
fn with_hosts(dir: &Dir, hosts: &Path, command: Vec<PathBuf>) -> ProcessBuilder {
    let script = format!("mount --bind '{}' /etc/hosts && exec \"$@\"", hosts.display());
    ProcessBuilder::new("unshare", dir.path()).args(namespace()).args(["--", "sh", "-c", &script, "sh"]).args(command)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_dns_name_is_followed_although_the_old_server_answers() -> Result<()> {
    changed("127.0.0.2 redis.test").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_keeps_one_of_two_addresses_is_followed_from_the_other() -> Result<()> {
    changed("127.0.0.2 redis.test\n127.0.0.3 redis.test").await
}

/// Changes `before` to the address of another server, while that of the first still answers.
async fn changed(before: &str) -> Result<()> {
    let permitted = Command::new("unshare").args(namespace()).arg("true").output().context("unshare")?;
    if !permitted.status.success() {
        // past the capture of tests, so that it is seen
        let why = String::from_utf8_lossy(&permitted.stderr).into_owned();
        writeln!(std::io::stderr(), "\nSKIPPED: this kernel permits no mount namespace: {why}")?;
        return Ok(());
    }
    let old = Redis::builder().conf("bind 127.0.0.1 127.0.0.2").start()?;
    let new = Redis::start()?;
    set(&old, "v1").await?;
    set(&new, "v2").await?;
    let dir = Dir::new("names")?;
    let hosts = dir.write("hosts", before)?;
    let env = [("REDIS_URL", Redis::PROMPT_SERVER.url(format!("redis.test:{}", old.port())))];
    let script = python_examples().join("prompt_server.py");
    let servers = [
        Server::start(&env, |dir| Ok(with_hosts(dir, &hosts, vec![rust_server()?]))).await?,
        Server::start(&env, |dir| Ok(with_hosts(dir, &hosts, vec![python()?.into(), "-B".into(), script]))).await?,
    ];
    let serve = async |version: &str| -> Result<()> {
        for server in &servers {
            let served = async || (server.version("u").await.ok()? == version).then_some(());
            eventually(version, SOON, served).await.with_context(|| server.log())?;
        }
        Ok(())
    };
    serve("v1").await?;
    // the same port on another address leads to the new server
    let listener = TcpListener::bind(("127.0.0.3", old.port())).await?;
    let to = new.addr();
    let forward = tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let to = to.clone();
            tokio::spawn(async move {
                let mut to = TcpStream::connect(to).await?;
                tokio::io::copy_bidirectional(&mut from, &mut to).await
            });
        }
    });
    fs::write(&hosts, "127.0.0.3 redis.test")?;
    serve("v2").await?;
    forward.abort();
    Ok(())
}
