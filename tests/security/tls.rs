//! TLS of the receiver: with and without client certificates, replaced while it runs, and abused.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use prompt_rollback::app::App;
use prompt_rollback::store::Clock;
use prompt_rollback_testkit::tls::Authority;
use prompt_rollback_testkit::{Alertmanager, Receiver, Wait, free_port, shipped};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{HandshakeKind, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::kit::{Files, World, client_config, curl, outcome, program};
use crate::common::half_minute::ends_after_half_a_minute;
use crate::common::{
    DUPLICATE, ROLLED_BACK, Redis, SOON, assert_rolled_back_once, critical, delivery, eventually, process, settings,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_a_prompt_is_rolled_back_and_strangers_learn_why_not() -> Result<()> {
    let world = World::start(false, &[]).await?;
    world.ship("p", &[]).await?;
    assert_eq!(outcome(&world.alert(critical("p"), &[]).await?)?, ROLLED_BACK);
    assert_rolled_back_once(&world.redis, "p").await?;

    let untrusting = curl(world.app.address, "/-/healthy", &[]).await?;
    assert!(untrusting.status == 0 && untrusting.error.contains("certificate"), "{untrusting:?}");
    let old = world.curl("/-/healthy", &["--tls-max", "1.1"]).await?;
    assert_eq!(old.status, 0, "{old:?}");
    for version in ["1.2", "1.3"] {
        assert_eq!(world.curl("/-/healthy", &["--tls-max", version]).await?.status, 200, "{version}");
    }
    let plain = in_the_clear(world.app.address, "GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
    assert!(plain.starts_with("HTTP/1.1 400 ") && plain.contains("this port speaks TLS"), "{plain}");
    Ok(())
}

/// The answer to these bytes, sent without TLS.
async fn in_the_clear(address: std::net::SocketAddr, request: &str) -> Result<String> {
    crate::common::exchange(address, request.as_bytes()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_authority_makes_the_webhook_want_a_certificate_too() -> Result<()> {
    let tokens = [("SERVER__WEBHOOK_TOKEN", "hook"), ("SERVER__API_TOKEN", "api")];
    let world = World::start(true, &tokens).await?;
    let (hook, api) = (["--header", "Authorization: Bearer hook"], ["--header", "Authorization: Bearer api"]);
    world.ship("p", &api).await?;
    let (cert, key) = (world.files.path("client"), world.files.path("client-key"));
    let certified = ["--cert", &cert, "--key", &key];

    let without = world.alert(critical("p"), &hook).await?;
    assert_eq!(without.status, 403, "{without:?}");
    for part in ["client_certificate_required", "server.tls_client_ca_file", "tls_config"] {
        assert!(without.body.contains(part), "{without:?}");
    }
    let untold = world.alert(critical("p"), &certified).await?;
    assert_eq!(untold.status, 401, "a certificate is no token: {untold:?}");
    let stranger = Authority::new()?.client("alertmanager")?;
    world.files.pair("stranger", &stranger)?;
    let (cert, key) = (world.files.path("stranger"), world.files.path("stranger-key"));
    let strange = world.alert(critical("p"), &[&hook[..], &["--cert", &cert, "--key", &key]].concat()).await?;
    assert!(strange.status == 0, "{strange:?}");
    assert_eq!(crate::common::rollbacks(&world.redis, "p").await?, 0, "nothing of it came through");

    assert_eq!(outcome(&world.alert(critical("p"), &[&hook[..], &certified].concat()).await?)?, ROLLED_BACK);
    for (path, arguments) in [("/api/prompts", &api[..]), ("/-/ready", &[]), ("/metrics", &[])] {
        assert_eq!(world.curl(path, arguments).await?.status, 200, "{path}");
    }
    let counted = world.curl("/metrics", &[]).await?.body;
    for series in [r#"{reason="no_certificate"} 1"#, r#"{reason="no_token"} 1"#] {
        let series = format!("prompt_rollback_refused_requests_total{series}\n");
        assert!(counted.contains(&series), "{series}{counted}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_replaced_without_a_restart_and_broken_ones_refused() -> Result<()> {
    let (files, authority) = Files::new()?;
    files.write("trust", authority.pem())?;
    files.pair("client", &authority.client("alertmanager")?)?;
    let redis = Redis::start()?;
    let receiver = process(&redis)
        .env("PROMPT_ROLLBACK_SERVER__TLS_CERT_FILE", files.path("server"))
        .env("PROMPT_ROLLBACK_SERVER__TLS_KEY_FILE", files.path("server-key"))
        .env("PROMPT_ROLLBACK_SERVER__TLS_CLIENT_CA_FILE", files.path("ca"))
        .wait(Wait::Nothing)
        .start()?;
    let address = receiver.addr().parse()?;
    let (trust, cert, key) = (files.path("trust"), files.path("client"), files.path("client-key"));
    let status = async |arguments: &[&str]| Some(curl(address, "/-/healthy", arguments).await.ok()?.status);
    let becomes = async |expected: u16, arguments: &[&str]| {
        let what = format!("{expected} for {arguments:?}");
        eventually(&what, SOON, async || (status(arguments).await? == expected).then_some(())).await
    };
    let (old, certified) = (["--cacert", &trust], ["--cacert", &trust, "--cert", &cert, "--key", &key]);
    becomes(200, &certified).await?;

    // broken: half a pair, then no PEM at all
    let next = Authority::new()?;
    let replaced = next.server()?;
    let warnings = || receiver.log().matches("the old content stays in force").count();
    let halves = [("server", replaced.cert.as_str()), ("server-key", "-----BEGIN NOTHING-----")];
    for (seen, (name, pem)) in halves.into_iter().enumerate() {
        files.write(name, pem)?;
        eventually("it is noticed", SOON, async || (warnings() > seen).then_some(())).await?;
        assert_eq!(status(&old).await, Some(200), "{name}: {}", receiver.log());
    }
    assert_eq!(warnings(), 2, "each once: {}", receiver.log());

    // complete: of an authority that only the new trust contains
    files.pair("server", &replaced)?;
    files.write("next", next.pem())?;
    let next_ca = files.path("next");
    becomes(200, &["--cacert", &next_ca]).await?;
    assert_eq!(status(&old).await, Some(0), "the old authority vouches for it no more");

    // the authority of the clients: those of the old one are no longer trusted
    files.pair("server", &authority.server()?)?;
    becomes(200, &certified).await?;
    files.write("ca", next.pem())?;
    becomes(0, &certified).await?;
    assert_eq!(status(&old).await, Some(200));
    Ok(())
}

/// The answer to `request` on a connection that stays open.
async fn ask<S: AsyncReadExt + AsyncWriteExt + Unpin>(stream: &mut S, request: &str) -> Result<String> {
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    let length = |head: &str| {
        let line =
            head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
        line.and_then(|length| length.parse::<usize>().ok())
    };
    loop {
        let text = String::from_utf8_lossy(&answer).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && length(head).is_some_and(|length| body.len() >= length)
        {
            return Ok(text);
        }
        let mut more = [0; 4096];
        let read = tokio::time::timeout(SOON, stream.read(&mut more)).await??;
        ensure!(read > 0, "the connection was closed: {text}");
        answer.extend_from_slice(&more[..read]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_switched_on_and_certificates_are_asked_for_without_a_restart() -> Result<()> {
    let (files, authority) = Files::new()?;
    files.pair("client", &authority.client("alertmanager")?)?;
    let redis = Redis::start()?;
    let receiver = process(&redis).start()?;
    let address = receiver.addr().parse()?;
    let reload = async |toml: &str, times: usize| {
        receiver.write_config(toml)?;
        receiver.hangup()?;
        eventually("it is reloaded", SOON, async || {
            (receiver.log().matches("config reloaded").count() >= times).then_some(())
        })
        .await
    };
    let healthy = "GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let delivery = delivery(&[critical("p")]);
    let post = format!(
        "POST /webhooks/alertmanager HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{delivery}",
        delivery.len()
    );

    let mut plain = TcpStream::connect(address).await?;
    let before = ask(&mut plain, healthy).await?;
    assert!(!before.contains("connection: close"), "{before}");
    let (cert, key, ca) = (files.path("server"), files.path("server-key"), files.path("ca"));
    let tls = format!("[server]\ntls_cert_file = {cert:?}\ntls_key_file = {key:?}\n");
    reload(&tls, 1).await?;
    let last = ask(&mut plain, healthy).await?;
    assert!(last.starts_with("HTTP/1.1 200 ") && last.contains("connection: close"), "{last}");
    let refused = in_the_clear(address, healthy).await?;
    assert!(refused.contains("this port speaks TLS"), "{refused}");
    let trust = ["--cacert", &ca];
    assert_eq!(curl(address, "/-/healthy", &trust).await?.status, 200);

    // a client that connected before it could present its certificate is refused, but not with a 4xx, which would be
    // final
    let mut early = TlsConnector::from(Arc::new(client_config(&files)?))
        .connect(ServerName::try_from("localhost")?, TcpStream::connect(address).await?)
        .await?;
    assert!(ask(&mut early, &post).await?.starts_with("HTTP/1.1 200 "));
    reload(&format!("{tls}tls_client_ca_file = {ca:?}\n"), 2).await?;
    let again = ask(&mut early, &post).await?;
    assert!(again.starts_with("HTTP/1.1 503 ") && again.contains("reconnect"), "{again}");
    assert!(again.contains("connection: close"), "{again}");
    let webhook = ["--cacert", &ca, "--data", &delivery];
    assert_eq!(curl(address, "/webhooks/alertmanager", &webhook).await?.status, 403);
    let (cert, key) = (files.path("client"), files.path("client-key"));
    let certified = [&webhook[..], &["--cert", &cert, "--key", &key]].concat();
    assert_eq!(curl(address, "/webhooks/alertmanager", &certified).await?.status, 200);

    reload("", 3).await?;
    let off = in_the_clear(address, "GET /-/healthy HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    assert!(off.starts_with("HTTP/1.1 200 "), "{off}");
    Ok(())
}

/// A client certificate is refused as soon as it is no longer trusted, on kept connections as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_does_not_outlive_its_clients_authority() -> Result<()> {
    let world = World::start(true, &[]).await?;
    world.ship("p", &[]).await?;
    let delivery = delivery(&[critical("p")]);
    let post = format!(
        "POST /webhooks/alertmanager HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{delivery}",
        delivery.len()
    );
    let connector = certified(&world.files, rustls::ALL_VERSIONS)?;
    let mut kept = shaken(&world, &connector).await?;
    let before = ask(&mut kept, &post).await?;
    assert!(before.starts_with("HTTP/1.1 200 ") && !before.contains("connection: close"), "{before}");
    world.files.write("ca", Authority::new()?.pem())?;
    // the kept connection is silent meanwhile: a request in flight during the change may still be answered
    eventually("a new connection is refused", SOON, async || {
        let answer = async { ask(&mut shaken(&world, &connector).await?, &post).await }.await;
        (!answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))).then_some(())
    })
    .await?;
    let last = ask(&mut kept, &post).await?;
    assert!(last.starts_with("HTTP/1.1 503 ") && last.contains("reconnect"), "{last}");
    assert!(last.contains("connection: close"), "{last}");
    Ok(())
}

/// Resuming a session proves no certificate: it would work for ever after the certificate has expired.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_is_verified_in_each_handshake() -> Result<()> {
    let world = World::start(true, &[]).await?;
    for version in rustls::ALL_VERSIONS {
        let connector = certified(&world.files, &[*version])?;
        for connection in 1..=3 {
            let mut stream = shaken(&world, &connector).await?;
            assert_ne!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed), "{version:?}, {connection}");
            // tickets arrive with the answer
            let answer = ask(&mut stream, "GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_kept_connection_ends_after_an_hour() -> Result<()> {
    let (files, _) = Files::new()?;
    let (cert, key) = (files.path("server"), files.path("server-key"));
    let env = [("SERVER__TLS_CERT_FILE", cert.as_str()), ("SERVER__TLS_KEY_FILE", &key)];
    let app = App::start(&settings("redis://127.0.0.1:1", &env), Clock::default()).await?;
    let connector = TlsConnector::from(Arc::new(client_config(&files)?));
    let stream = TcpStream::connect(app.address).await?;
    let mut kept = connector.connect(ServerName::try_from("localhost")?, stream).await?;
    let start = tokio::time::Instant::now();
    loop {
        let answer = ask(&mut kept, "GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
        let minutes = start.elapsed().as_secs() / 60;
        if answer.contains("connection: close") {
            assert!((55..=70).contains(&minutes), "{minutes}");
            return Ok(());
        }
        ensure!(minutes < 120, "it goes on");
        tokio::time::sleep(Duration::from_secs(20)).await; // of virtual time
    }
}

async fn shaken(world: &World, connector: &TlsConnector) -> Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(world.app.address).await?;
    Ok(connector.connect(ServerName::try_from("localhost")?, stream).await?)
}

fn connector(world: &World) -> Result<TlsConnector> {
    Ok(TlsConnector::from(Arc::new(client_config(&world.files)?)))
}

/// Presents the client's certificate of `files`.
fn certified(files: &Files, versions: &[&'static SupportedProtocolVersion]) -> Result<TlsConnector> {
    let roots = prompt_rollback::tls::trusted(files.path("ca").as_ref()).map_err(anyhow::Error::msg)?;
    let config = rustls::ClientConfig::builder_with_provider(prompt_rollback::tls::provider())
        .with_protocol_versions(versions)?
        .with_root_certificates(roots)
        .with_client_auth_cert(
            CertificateDer::pem_file_iter(files.path("client"))?.collect::<Result<_, _>>()?,
            PrivateKeyDer::from_pem_file(files.path("client-key"))?,
        )?;
    Ok(TlsConnector::from(Arc::new(config)))
}

/// What a client does before it falls silent.
#[derive(Debug, Clone, Copy)]
enum Silent {
    Connected,
    InHandshake,
    Shaken,
    InHead,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_do_not_finish_their_handshake_or_their_request_give_way() -> Result<()> {
    let world = World::start(false, &[("SERVER__MAX_CONNECTIONS", "32")]).await?;
    let connector = connector(&world)?;
    world.ship("p", &[]).await?;
    for (n, silent) in [Silent::Connected, Silent::InHandshake, Silent::Shaken, Silent::InHead].into_iter().enumerate()
    {
        let (mut raw, mut shaken_clients) = (Vec::new(), Vec::new());
        for _ in 0..100 {
            match silent {
                Silent::Connected => raw.push(TcpStream::connect(world.app.address).await?),
                Silent::InHandshake => {
                    let mut stream = TcpStream::connect(world.app.address).await?;
                    // a record of 512 bytes is announced, and 3 of them arrive
                    stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01").await?;
                    raw.push(stream);
                }
                Silent::Shaken => shaken_clients.push(shaken(&world, &connector).await?),
                Silent::InHead => {
                    let mut stream = shaken(&world, &connector).await?;
                    stream.write_all(b"POST /webhooks/alertmanager HTTP/1.1\r\nHost:").await?;
                    stream.flush().await?;
                    shaken_clients.push(stream);
                }
            }
        }
        let start = Instant::now();
        let expected = if n == 0 { ROLLED_BACK } else { DUPLICATE };
        assert_eq!(outcome(&world.alert(critical("p"), &[]).await?)?, expected, "{silent:?}");
        let took = start.elapsed();
        // otherwise a silent connection is closed after half a minute
        assert!(took < Duration::from_secs(25), "{silent:?}: answered after {took:?}");
        let mut open = 0;
        for client in &mut raw {
            let mut byte = [0];
            open += usize::from(tokio::time::timeout(Duration::from_millis(1), client.read(&mut byte)).await.is_err());
        }
        assert!(open <= 32, "{silent:?}: {open} are still open");
    }
    Ok(())
}

#[tokio::test]
async fn a_handshake_under_way_does_not_delay_the_end() -> Result<()> {
    let world = World::start(false, &[]).await?;
    let silent = TcpStream::connect(world.app.address).await?;
    // connections are accepted in their order, so the silent one was before this is answered
    ensure!(world.curl("/-/healthy", &[]).await?.status == 200);
    // virtual time, so that a busy machine does not matter
    tokio::time::pause();
    let start = tokio::time::Instant::now();
    world.app.shutdown().await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    drop(silent);
    Ok(())
}

#[tokio::test]
async fn a_handshake_that_does_not_come_ends_after_half_a_minute() -> Result<()> {
    let (files, _) = Files::new()?;
    let (cert, key) = (files.path("server"), files.path("server-key"));
    let env = [("SERVER__TLS_CERT_FILE", cert.as_str()), ("SERVER__TLS_KEY_FILE", &key)];
    let app = App::start(&settings("redis://127.0.0.1:1", &env), Clock::default()).await?;
    // nothing, and a record of 512 bytes of which 3 arrive
    for sent in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00\x01"] {
        ends_after_half_a_minute(app.address, sent, false).await?;
    }
    Ok(())
}

#[test]
fn wrong_tls_files_exit_2_and_name_their_key_and_expectation() -> Result<()> {
    let (files, authority) = Files::new()?;
    files.pair("other", &authority.server()?)?;
    files.write("empty", "")?;
    files.write("damaged", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")?;
    files
        .write("encrypted-key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")?;
    const CERT: &str = "tls_cert_file";
    const KEY: &str = "tls_key_file";
    const CA: &str = "tls_client_ca_file";
    let pair = |cert, key| vec![(CERT, cert), (KEY, key)];
    type Case<'a> = (Vec<(&'a str, &'a str)>, &'a str, &'a [&'a str]);
    let cases: [Case<'_>; 10] = [
        (vec![(CERT, "server")], KEY, &["found nothing", "the key of server.tls_cert_file"]),
        (vec![(KEY, "server-key")], CERT, &["found nothing", "the certificate of server.tls_key_file"]),
        (vec![(CA, "ca")], CA, &["server.tls_cert_file to be set as well"]),
        (pair("absent", "server-key"), CERT, &["absent.pem", "No such file"]),
        (pair("empty", "server-key"), CERT, &["empty.pem", "found no certificate", "BEGIN CERTIFICATE"]),
        (pair("server-key", "server-key"), CERT, &["server-key.pem", "found no certificate"]),
        (pair("damaged", "server-key"), CERT, &["damaged.pem"]),
        (pair("server", "encrypted-key"), KEY, &["encrypted-key.pem", "without a passphrase"]),
        (pair("server", "other-key"), KEY, &["found another key in", "other-key.pem", "server.pem"]),
        ([pair("server", "server-key"), vec![(CA, "empty")]].concat(), CA, &["empty.pem", "found no certificate"]),
    ];
    for (set, key, named) in cases {
        let lines: String = set.iter().map(|(key, name)| format!("{key} = {:?}\n", files.path(name))).collect();
        let receiver = Receiver::builder(env!("CARGO_BIN_EXE_prompt-rollback")).wait(Wait::Nothing);
        let mut receiver = receiver.config(format!("[server]\n{lines}")).start()?;
        let code = receiver.process().wait()?.code();
        let log = receiver.log();
        assert_eq!(code, Some(2), "{lines}{log}");
        assert_eq!(log.matches("error: ").count(), 1, "{lines}nothing else is wrong: {log}");
        for part in [&["prompt-rollback.toml", &format!("server.{key}: ")], named].concat() {
            assert!(log.contains(part), "{lines}{part} is not named: {log}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_trusts_the_authority_that_it_is_given() -> Result<()> {
    let world = World::start(false, &[]).await?;
    world.ship("p", &[]).await?;
    let url = format!("https://localhost:{}", world.app.address.port());
    let ca = world.files.path("ca");
    let good = program(&["status", "--url", &url, "--ca-file", &ca], &[]).await?;
    assert!(good.status.success() && String::from_utf8_lossy(&good.stdout).contains("v2"), "{good:?}");
    let by_env = program(&["healthcheck"], &[("PROMPT_ROLLBACK_URL", &url), ("PROMPT_ROLLBACK_CA_FILE", &ca)]).await?;
    assert!(by_env.status.success(), "{by_env:?}");
    for (arguments, code, said) in [
        (&["status"][..], 1, "PROMPT_ROLLBACK_CA_FILE"),
        (&["status", "--ca-file", "nowhere.pem"], 2, "cannot read nowhere.pem"),
        (&["status", "--ca-file", &world.files.path("server-key")], 2, "found no certificate"),
    ] {
        let output = program(&[arguments, &["--url", &url]].concat(), &[]).await?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(code) && text.contains(said), "{arguments:?}: {text}");
    }
    let plain = program(&["status", "--url", &url.replace("https", "http")], &[]).await?;
    assert!(String::from_utf8_lossy(&plain.stderr).contains("this port speaks TLS"), "{plain:?}");
    Ok(())
}

/// The config with the lines of `tls_config` uncommented, as `config/alertmanager.yml` says.
fn alertmanager_yml(receiver: &str) -> Result<String> {
    let text = shipped::alertmanager(receiver)?;
    let text = shipped::replace(&text, &format!("http://{receiver}"), &format!("https://{receiver}"))?;
    let mut used = 0;
    let lines = text.lines().map(|line| {
        let (indent, rest) = line.split_at(line.len() - line.trim_start().len());
        match rest.strip_prefix("# ") {
            Some(rest)
                if ["tls_config:", "  ca_file:", "  cert_file:", "  key_file:"].iter().any(|k| rest.starts_with(k)) =>
            {
                used += 1;
                format!("{indent}{rest}\n")
            }
            _ => format!("{line}\n"),
        }
    });
    let text: String = lines.collect();
    ensure!(used == 4, "config/alertmanager.yml has {used} lines of tls_config");
    Ok(text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drill_by_mutual_tls_arrives_through_a_real_alertmanager() -> Result<()> {
    let port = free_port();
    let (receiver, listen) = (format!("localhost:{port}"), format!("127.0.0.1:{port}"));
    let (files, authority) = Files::new()?;
    let client = authority.client("alertmanager")?;
    let alertmanager = Alertmanager::builder(alertmanager_yml(&receiver)?)
        .file("webhook_token", "hook")
        .file("ca.pem", authority.pem())
        .file("alertmanager.pem", client.cert)
        .file("alertmanager-key.pem", client.key)
        .start()?;
    let urls = alertmanager.url();
    let env = [
        ("SERVER__LISTEN", listen.as_str()),
        ("SERVER__WEBHOOK_TOKEN", "hook"),
        ("SERVER__API_TOKEN", "api"),
        ("ALERTMANAGER__URLS", &urls),
    ];
    let world = World::with(files, &authority, true, &env).await?;
    let bearer = ["--header", "Authorization: Bearer api"];
    world.ship("p", &bearer).await?;
    let (url, ca) = (format!("https://{receiver}"), world.files.path("ca"));
    let env =
        [("PROMPT_ROLLBACK_URL", url.as_str()), ("PROMPT_ROLLBACK_CA_FILE", &ca), ("PROMPT_ROLLBACK_TOKEN", "api")];
    let drill = program(&["drill", "p"], &env).await?;
    let text = String::from_utf8_lossy(&drill.stdout).into_owned();
    for hop in ["delivered by its webhook", "would roll back v2 → v1", "written to Redis"] {
        assert!(text.contains(hop), "{hop}: {text} {}\n{}", String::from_utf8_lossy(&drill.stderr), alertmanager.log());
    }
    assert_eq!(crate::common::rollbacks(&world.redis, "p").await?, 0);
    Ok(())
}
