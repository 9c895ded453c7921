//! A receiver with certificates, and curl as an independent client.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use prompt_rollback::app::App;
use prompt_rollback::store::Clock;
use prompt_rollback_testkit::Dir;
use prompt_rollback_testkit::tls::{Authority, Certificate};

use crate::common::{Redis, SOON, delivery, eventually, settings};

/// Files of certificates; `server.pem` and `server-key.pem` are the receiver's.
pub struct Files(pub Dir);

impl Files {
    /// An authority `ca.pem` that has signed the receiver's certificate.
    pub fn new() -> Result<(Self, Authority)> {
        let files = Self(Dir::new("tls")?);
        let authority = Authority::new()?;
        files.write("ca", authority.pem())?;
        files.pair("server", &authority.server()?)?;
        Ok((files, authority))
    }

    pub fn path(&self, name: &str) -> String {
        self.0.path().join(format!("{name}.pem")).display().to_string()
    }

    pub fn write(&self, name: &str, pem: &str) -> Result<()> {
        self.0.write(format!("{name}.pem"), pem).map(drop)
    }

    pub fn pair(&self, name: &str, certificate: &Certificate) -> Result<()> {
        self.write(name, &certificate.cert)?;
        self.write(&format!("{name}-key"), &certificate.key)
    }
}

/// Status and body, or why there is none.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub body: String,
    pub error: String,
}

/// The outcome of the only alert.
pub fn outcome(got: &Got) -> Result<String> {
    ensure!(got.status == 200, "{got:?}");
    let body: serde_json::Value = serde_json::from_str(&got.body)?;
    let result = &body["results"][0];
    Ok(format!(
        "{}{{{}}}",
        result["outcome"].as_str().context("outcome")?,
        result["reason"].as_str().context("reason")?
    ))
}

/// Trusts the authority of `files`.
pub fn client_config(files: &Files) -> Result<rustls::ClientConfig> {
    let roots = prompt_rollback::tls::trusted(files.path("ca").as_ref()).map_err(anyhow::Error::msg)?;
    Ok(rustls::ClientConfig::builder_with_provider(prompt_rollback::tls::provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// Runs curl on `https://localhost:PORT/path`.
pub async fn curl(address: SocketAddr, path: &str, arguments: &[&str]) -> Result<Got> {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "10", "--write-out", "\n%{http_code}"]).args(arguments);
    command.arg(format!("https://localhost:{}{path}", address.port()));
    let output = tokio::task::spawn_blocking(move || command.output()).await?.context("curl")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').context("a status")?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok(Got { status: status.parse()?, body: body.to_owned(), error })
}

/// Runs the program itself.
pub async fn program(arguments: &[&str], env: &[(&str, &str)]) -> Result<Output> {
    let mut command = Command::new(PathBuf::from(env!("CARGO_BIN_EXE_prompt-rollback")));
    command.args(arguments).envs(env.iter().copied());
    Ok(tokio::task::spawn_blocking(move || command.output()).await??)
}

/// A receiver that speaks TLS, in this process.
pub struct World {
    pub files: Files,
    pub redis: Redis,
    pub app: App,
}

impl World {
    /// With `asks`, the same authority signs certificates of clients.
    pub async fn start(asks: bool, env: &[(&str, &str)]) -> Result<Self> {
        let (files, authority) = Files::new()?;
        Self::with(files, &authority, asks, env).await
    }

    pub async fn with(files: Files, authority: &Authority, asks: bool, env: &[(&str, &str)]) -> Result<Self> {
        let redis = Redis::start()?;
        let (cert, key, ca) = (files.path("server"), files.path("server-key"), files.path("ca"));
        let mut all = vec![("SERVER__TLS_CERT_FILE", cert.as_str()), ("SERVER__TLS_KEY_FILE", &key)];
        if asks {
            all.push(("SERVER__TLS_CLIENT_CA_FILE", &ca));
            files.pair("client", &authority.client("alertmanager")?)?;
        }
        all.extend(env);
        let app = App::start(&settings(&redis.url(), &all), Clock::default()).await?;
        let world = Self { files, redis, app };
        eventually("ready", SOON, async || {
            world.curl("/-/ready", &[]).await.ok().filter(|got| got.status == 200).map(drop)
        })
        .await?;
        Ok(world)
    }

    /// Runs curl with the receiver's authority.
    pub async fn curl(&self, path: &str, arguments: &[&str]) -> Result<Got> {
        let ca = self.files.path("ca");
        curl(self.app.address, path, &[&["--cacert", &ca], arguments].concat()).await
    }

    /// Posts an alert.
    pub async fn alert(&self, alert: serde_json::Value, arguments: &[&str]) -> Result<Got> {
        let body = delivery(&[alert]);
        self.curl("/webhooks/alertmanager", &[&["--data", &body], arguments].concat()).await
    }

    /// Creates a prompt with the rollback target `v1` and the active version `v2`.
    pub async fn ship(&self, prompt: &str, arguments: &[&str]) -> Result<()> {
        for (what, body) in [
            ("versions", r#"{"version":"v1","known_good":true}"#),
            ("activate", r#"{"version":"v1"}"#),
            ("versions", r#"{"version":"v2"}"#),
            ("activate", r#"{"version":"v2"}"#),
        ] {
            let path = format!("/api/prompts/{prompt}/{what}");
            let got = self.curl(&path, &[&["--data", body], arguments].concat()).await?;
            ensure!((200..300).contains(&got.status), "{what}: {got:?}");
        }
        Ok(())
    }
}
