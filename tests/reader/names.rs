//! A name that leads to another address: a failover by DNS. Real names, in an /etc/hosts of the servers' own.

use std::path::PathBuf;

use anyhow::{Context, Result};
use prompt_rollback_testkit::{Dir, ProcessBuilder, Redis};
use tokio::net::{TcpListener, TcpStream};

use crate::both::set;
use crate::common::{SOON, eventually};
use crate::python::{examples, python};
use crate::servers::{rust_server, start};

/// `command`, who sees `hosts` in place of /etc/hosts.
fn with_hosts(dir: &Dir, hosts: &std::path::Path, command: Vec<PathBuf>) -> ProcessBuilder {
    let script = format!("mount --bind '{}' /etc/hosts && exec \"$@\"", hosts.display());
    ProcessBuilder::new("unshare", dir.path())
        .args(["--map-root-user", "--mount", "--", "sh", "-c", &script, "sh"])
        .args(command)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_leads_elsewhere_is_followed_though_the_old_server_answers_on() -> Result<()> {
    let old = Redis::builder().conf("bind 127.0.0.1 127.0.0.2").start()?;
    let new = Redis::start()?;
    // the same port on another address leads to the new one
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
    set(&old, "v1").await?;
    set(&new, "v2").await?;
    let dir = Dir::new("names")?;
    let hosts = dir.write("hosts", "127.0.0.2 redis.test")?;
    let env = [("REDIS_URL", Redis::PROMPT_SERVER.url(format!("redis.test:{}", old.port())))];
    let script = examples().join("python/prompt_server.py");
    let servers = [
        start(&env, |dir| Ok(with_hosts(dir, &hosts, vec![rust_server()?]))).await?,
        start(&env, |dir| Ok(with_hosts(dir, &hosts, vec![python().into(), "-B".into(), script]))).await?,
    ];
    let serve = async |version: &str| -> Result<()> {
        for server in &servers {
            let served = async || (server.version("u").await.ok()? == version).then_some(());
            eventually(version, SOON, served).await.with_context(|| server.log())?;
        }
        Ok(())
    };
    serve("v1").await?;
    std::fs::write(&hosts, "127.0.0.3 redis.test")?;
    serve("v2").await?;
    forward.abort();
    Ok(())
}
