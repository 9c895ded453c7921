//! The `console` blocks of the documentation: each command runs as it stands, or is listed here.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prompt_rollback_testkit::{Alertmanager, Dir, Port, Prometheus, Redis, eventually, shipped};
use serde_json::{Value, json};

use super::guides::{Place, blocks, pages, spawn};
use super::world::{BAD, GOOD, OLDER, SOON};
use crate::common::{World, alert, critical};

/// Commands that need what a test does not have, by their beginning.
const ELSEWHERE: [(&str, &str); 5] = [
    ("docker build ", "needs a daemon; tests/security/container.rs reads the Dockerfile"),
    ("docker push ", "needs a registry"),
    ("kubectl -n monitoring get ", "needs a cluster"),
    ("make ", "builds and tests everything"),
    ("sudo apt install ", "scripts/check-deb installs the package"),
];
/// The incident of each example.
const INCIDENT: &str = "01KAJ4B8N4GZQ6V9C2M7T5R3XW";
const PASSWORD: &str = "s3cret";
/// `read` gets the password, and a stream ends.
const PRELUDE: &str = r#"
exec <<<s3cret
redis-cli() { command redis-cli -p "$REDIS_PORT" "$@"; }
curl() {
    case $* in
    */events) timeout 3 curl --silent --show-error "$@" || (($? == 124)) ;;
    *) command curl --silent --show-error --fail-with-body "$@" ;;
    esac
}
"#;

/// The commands of a text's `console` blocks, without their output.
fn commands(text: &str) -> Vec<&str> {
    let lines = blocks(text, "console").into_iter().flat_map(str::lines);
    lines.filter_map(|line| line.trim_start().strip_prefix("$ ")).collect()
}

/// The steps of the README, which one test runs in order, and the rest of it.
fn steps(readme: &str) -> Result<(String, String)> {
    let (before, rest) = readme.split_once("\n## Run it\n").context("the steps")?;
    let (steps, after) = rest.split_once("\n## ").context("the end of the steps")?;
    Ok((steps.to_owned(), format!("{before}\n## {after}")))
}

/// All pages, without the steps of the README.
fn texts() -> Result<BTreeMap<String, String>> {
    let mut texts = BTreeMap::new();
    for folder in [".", "docs", "docs/reference", "docs/runbooks", "docs/your-stack", "alert-rules"] {
        texts.extend(pages(folder)?);
    }
    let readme = texts.get_mut("README.md").context("README.md")?;
    *readme = steps(readme)?.1;
    Ok(texts)
}

/// A receiver, and what its commands find there.
struct Stage {
    place: Place,
    world: World,
    archive: Dir,
    _alertmanager: Alertmanager,
}

impl Stage {
    async fn start() -> Result<Self> {
        let (place, archive, port) = (Place::new()?, Dir::new("archive")?, Port::claim());
        let alertmanager = Alertmanager::builder(shipped::alertmanager(&port.addr())?)
            .file("webhook_token", "0123456789abcdef")
            .start()?;
        let (listen, url, root) = (port.addr(), alertmanager.url(), archive.path().display().to_string());
        let world = World::with(&[
            ("SERVER__LISTEN", listen.as_str()),
            ("ALERTMANAGER__URLS", &url),
            ("RETENTION__ARCHIVE", &root),
            ("GUARDS__MAX_AUTO_ROLLBACKS", "2"),
        ])
        .await?;
        for user in
            [&["admin", "on", ">s3cret", "~*", "&*", "+@all"][..], &[Redis::RECEIVER.name, "%R~myapp:prompt:*"][..]]
        {
            world.redis.cmd::<()>(&[&["ACL", "SETUSER"][..], user].concat()).await?;
        }
        world.redis.cmd::<()>(&["SET", "myapp:prompt:of-another-layout:version", "v1"]).await?;
        place.dir.write("authorization", "Authorization: Bearer 0123456789abcdef\n")?;
        place.dir.write("alertmanager.yml", shipped::text("config/alertmanager.yml")?)?;
        place.dir.write("var/log/redis/redis-server.log", "CRITICAL: NOPERM\n")?;
        place.dir.write("var/lib/redis/appendonlydir/appendonly.aof.manifest", "")?;
        Ok(Self { place, world, archive, _alertmanager: alertmanager })
    }

    async fn post(&self, path: &str, body: Value) -> Result<()> {
        let (status, answer) = self.world.post(path, body).await?;
        ensure!((200..300).contains(&status), "POST {path}: {status} {answer}");
        Ok(())
    }

    async fn serve(&self, prompt: &str, version: &str, known_good: bool) -> Result<()> {
        let body = json!({ "version": version, "known_good": known_good, "content": format!("as {version}") });
        self.post(&format!("/api/prompts/{prompt}/versions"), body).await?;
        self.post(&format!("/api/prompts/{prompt}/activate"), json!({ "version": version })).await
    }

    /// Prepares a prompt for a command, and returns the incident that the command names.
    async fn prepare(&self, page: &str, prompt: &str, command: &str) -> Result<Option<String>> {
        if page == "docs/content.md" {
            for version in [OLDER, "v1.8.3", "v1.8.4", GOOD] {
                self.serve(prompt, version, true).await?;
                self.world.receiver.clock.advance(Duration::from_secs(3_600));
            }
            let file = self.archive.path().join(prompt).join(format!("{OLDER}.txt"));
            eventually("the oldest content is archived", SOON, async || file.exists().then_some(())).await?;
        } else {
            self.serve(prompt, OLDER, true).await?;
            self.serve(prompt, GOOD, true).await?;
        }
        let activate = format!("/api/prompts/{prompt}/activate");
        if [" activate ", " gates ", " canary "].iter().any(|verb| command.contains(verb)) {
            self.post(&format!("/api/prompts/{prompt}/versions"), json!({ "version": BAD, "content": "new" })).await?;
            if command.contains(" canary ") {
                self.post(&activate, json!({ "version": BAD, "canary": true })).await?;
            } else if command.contains("--percent 0") {
                self.post(&activate, json!({ "version": BAD, "percent": 20 })).await?;
            }
            return Ok(None);
        }
        self.serve(prompt, BAD, false).await?;
        if page == "docs/many-prompts.md" {
            return self.outage(prompt).await.map(Some);
        }
        if command.contains(INCIDENT) {
            let answer = self.world.receiver.deliver(&[alert(prompt, BAD, "high")]).await?.json()?;
            let incident = answer["results"][0]["incident"].as_str();
            return Ok(Some(incident.with_context(|| answer.to_string())?.to_owned()));
        }
        Ok(None)
    }

    /// Makes more prompts fail than may be rolled back automatically.
    async fn outage(&self, prompt: &str) -> Result<String> {
        for number in 0..4 {
            let name = format!("{prompt}-{number}");
            self.world.ship(&name).await?;
            self.world.receiver.deliver(&[critical(&name)]).await?;
        }
        eventually("a coordinating incident", SOON, async || {
            let open = self.world.get("/api/incidents?open=true").await.ok()?;
            let found = open["incidents"].as_array()?.iter().find(|one| one["kind"] == "outage")?;
            found["id"].as_str().map(str::to_owned)
        })
        .await
    }

    /// Runs a command of a page as a person would paste it, except for addresses, the prompt and the incident.
    async fn run(&mut self, page: &str, prompt: &str, command: &str) -> Result<()> {
        let incident = self.prepare(page, prompt, command).await?;
        let receiver = self.world.receiver.app.address.to_string();
        let here = self.place.dir.path().display().to_string();
        self.place.instead.clear();
        self.place
            .instead("customer-support", prompt)
            .instead(INCIDENT, incident.unwrap_or_default())
            .instead("localhost:8000", &receiver)
            .instead("127.0.0.1:8000", &receiver)
            .instead("/var/", format!("{here}/var/"));
        let env = [
            ("PROMPT_ROLLBACK_URL", format!("http://{receiver}")),
            ("REDIS_PORT", self.world.redis.port().to_string()),
            ("REDISCLI_AUTH", PASSWORD.to_owned()),
            ("USER", "ana".to_owned()),
        ];
        let told = self.place.script(command, PRELUDE, &env).await?;
        for (of, expected) in [
            (" drill ", "the test alert arrived end to end"),
            ("/events", "event: resync"),
            ("/api/rollback", r#""success":true"#),
            (" mark ", "is marked as"),
            (" incidents ", "prompts"),
        ] {
            ensure!(!command.contains(of) || told.contains(expected), "{command}\n{told}");
        }
        if command.starts_with("sed -i") {
            let rules = fs::read_to_string(self.place.dir.path().join("alert-rules/alerts.yml"))?;
            ensure!(rules.contains("https://git.example.com/") && !rules.contains("externalLabels"), "{rules}");
        }
        self.post("/api/resume", json!({})).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_of_a_console_block_works_or_is_listed() -> Result<()> {
    let (mut ran, mut listed, mut faults) = (0, [0; ELSEWHERE.len()], Vec::new());
    for (page, text) in texts()? {
        let mut stage = None;
        // the `sh` blocks of these have tests of their own
        let has_own = ["docs/runbooks/", "docs/your-stack/"].iter().any(|folder| page.starts_with(folder));
        let scripts = if has_own { Vec::new() } else { blocks(&text, "sh") };
        for (number, command) in commands(&text).into_iter().chain(scripts).enumerate() {
            if let Some(at) = ELSEWHERE.iter().position(|(beginning, _)| command.starts_with(beginning)) {
                listed[at] += 1;
                continue;
            }
            if stage.is_none() {
                stage = Some(Stage::start().await?);
            }
            let stage = stage.as_mut().context("a stage")?;
            if let Err(error) = stage.run(&page, &format!("prompt-{number}"), command).await {
                faults.push(format!("{page}: {error:#}"));
            }
            ran += 1;
        }
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n\n"));
    ensure!(ran > 30, "{ran} commands");
    let unused: Vec<_> = ELSEWHERE.iter().zip(listed).filter(|(_, times)| *times == 0).collect();
    ensure!(unused.is_empty(), "no page has {unused:?}");
    Ok(())
}

/// From `init` to a drill, with the servers that a user has already.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_steps_of_the_readme_lead_to_a_drill() -> Result<()> {
    let steps = commands(&steps(&shipped::text("README.md")?)?.0).join("\n");
    let place = Place::new()?;
    let here = place.dir.path().display().to_string();
    let [redis_port, port] = [Port::claim(), Port::claim()];
    let options = format!("--port {} --bind 127.0.0.1 --appendonly yes --dir {here}", redis_port.number());
    let _redis = spawn("redis-server", place.dir.path(), &redis_port, options.split(' ').map(str::to_owned).collect())?;
    let prometheus = Prometheus::builder("{}").start()?;
    let token = format!("credentials_file: {here}/prompt-rollback/webhook_token");
    let routes = shipped::alertmanager(&port.addr())?;
    let routes = shipped::replace(&routes, "credentials_file: webhook_token", &token)?;
    let alertmanager = Alertmanager::builder(routes).start()?;
    // The questions of `init` need a terminal. Step 1, whose command `init` prints, follows.
    let prelude = r#"
cargo() { [[ $1 == install ]]; }
prompt-rollback() {
    case $1 in
    init)
        command prompt-rollback init --platform systemd --redis-url "redis://127.0.0.1:$REDIS_PORT" --prometheus-url "$PROMETHEUS" \
            --alertmanager-url "$ALERTMANAGER" --receiver-url "$PROMPT_ROLLBACK_URL"
        grep -v '^user default' prompt-rollback/users.acl | while read -r _ rules; do
            (set -f; redis-cli -p "$REDIS_PORT" ACL SETUSER $rules)
        done ;;
    serve)
        (exec prompt-rollback "$@") >receiver.log 2>&1 &
        trap "kill $!" EXIT
        for _ in $(seq 100); do command prompt-rollback healthcheck >/dev/null 2>&1 && return; sleep 0.1; done
        cat receiver.log >&2
        return 1 ;;
    *) command prompt-rollback "$@" ;;
    esac
}
"#;
    let env = [
        ("REDIS_PORT", redis_port.number().to_string()),
        ("PROMETHEUS", prometheus.url()),
        ("ALERTMANAGER", alertmanager.url()),
        ("PROMPT_ROLLBACK_URL", format!("http://{}", port.addr())),
        ("USER", "ana".to_owned()),
    ];
    let told = place.script(&steps, prelude, &env).await?;
    for part in ["config: ok", "the test alert arrived end to end"] {
        ensure!(told.contains(part), "{part:?} is missing: {told}");
    }
    ensure!(!told.contains("FAIL"), "{told}");
    Ok(())
}
