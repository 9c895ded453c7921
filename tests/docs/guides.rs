//! `docs/`: links lead somewhere, and what `docs/your-stack/` tells people to type and to write works on real servers.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prompt_rollback_testkit::readers::{python, python_examples};
use prompt_rollback_testkit::shipped::{self, Source};
use prompt_rollback_testkit::{
    Alertmanager, Dir, Port, Process, ProcessBuilder, Prometheus, Receiver, Redis, eventually,
};
use serde_json::json;

use super::deploy::Cluster;
use super::runbooks::leads_somewhere;
use super::world::SOON;
use crate::e2e::server::PromptServer;

const PROGRAM: &str = env!("CARGO_BIN_EXE_prompt-rollback");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Pages of a folder, by path from the root of the repository.
pub fn pages(folder: &str) -> Result<BTreeMap<String, String>> {
    let mut pages = BTreeMap::new();
    for entry in fs::read_dir(root().join(folder))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            let name = path.strip_prefix(root())?.display().to_string();
            pages.insert(name.trim_start_matches("./").to_owned(), fs::read_to_string(&path)?);
        }
    }
    Ok(pages)
}

#[test]
fn every_link_of_the_documentation_leads_somewhere() -> Result<()> {
    let mut links = 0;
    for folder in [".", "docs", "docs/reference", "docs/your-stack", "alert-rules"] {
        for (name, text) in pages(folder)? {
            let file = Path::new(&name).file_name().and_then(|file| file.to_str()).context("a name")?;
            for rest in text.split("](").skip(1) {
                let link = rest.split(')').next().context("a link")?;
                if link.contains("://") || link.is_empty() || link.contains([' ', '"']) {
                    continue;
                }
                let link = if link.starts_with('#') { format!("{file}{link}") } else { link.to_owned() };
                let target = link.split('#').next().unwrap_or_default();
                if target.ends_with(".md") {
                    leads_somewhere(&root().join(folder), &link).with_context(|| name.clone())?;
                } else {
                    ensure!(root().join(folder).join(target).exists(), "{name}: {link}");
                }
                links += 1;
            }
        }
    }
    ensure!(links > 100, "{links} links");
    Ok(())
}

/// Other users of a machine can read the arguments of its programs.
#[test]
fn no_command_of_the_documentation_has_a_secret_as_an_argument() -> Result<()> {
    let mut texts =
        vec![("the chart's notes".to_owned(), shipped::text("deploy/helm/prompt-rollback/templates/NOTES.txt")?)];
    for folder in [".", "docs", "docs/reference", "docs/runbooks", "docs/your-stack", "alert-rules"] {
        texts.extend(pages(folder)?);
    }
    let mut commands = 0;
    for (name, text) in &texts {
        let blocks = if name.ends_with(".md") {
            [blocks(text, "sh"), blocks(text, "console")].concat()
        } else {
            vec![text.as_str()]
        };
        for line in blocks.iter().flat_map(|block| block.lines()) {
            for secret in
                ["-H \"Authorization", "-H 'Authorization", "--from-literal", "--token ", "--pass ", "redis-cli -a "]
            {
                ensure!(!line.contains(secret), "{name}: {line}");
            }
            commands += 1;
        }
    }
    ensure!(commands > 200, "{commands} lines");
    Ok(())
}

/// The blocks of a language, in order.
pub fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    text.split(fence.as_str()).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

fn guide(name: &str) -> Result<String> {
    Ok(fs::read_to_string(root().join(format!("docs/your-stack/{name}.md")))?)
}

/// What the commands of a page are run in: a copy of what they read, and servers where they look for them.
pub struct Place {
    pub dir: Dir,
    /// From what the page says to what is here.
    pub instead: Vec<(String, String)>,
}

impl Place {
    pub fn new() -> Result<Self> {
        let dir = Dir::new("guide")?;
        for part in ["alert-rules", "config", "deploy", "scripts", "Makefile"] {
            let copied = Command::new("cp").arg("-r").arg(root().join(part)).arg(dir.path()).status()?;
            ensure!(copied.success(), "copy {part}");
        }
        let _ = fs::remove_file(dir.path().join("deploy/kubernetes/generated.yaml"));
        fs::create_dir(dir.path().join("target"))?;
        std::os::unix::fs::symlink(root().join("target/tools"), dir.path().join("target/tools"))?;
        Ok(Self { dir, instead: Vec::new() })
    }

    pub fn instead(&mut self, of: &str, here: impl Into<String>) -> &mut Self {
        self.instead.push((of.to_owned(), here.into()));
        self
    }

    fn adapt(&self, text: &str) -> String {
        self.instead.iter().fold(text.to_owned(), |text, (of, here)| text.replace(of.as_str(), here))
    }

    /// Runs all `sh` blocks of a page in one shell, as a person would paste them. `prelude` plays what is not here.
    async fn run(&self, page: &str, prelude: &str, env: &[(&str, String)]) -> Result<String> {
        let commands = blocks(page, "sh").concat();
        ensure!(!commands.is_empty(), "no commands");
        self.script(&commands, prelude, env).await
    }

    /// Runs these commands in one shell.
    pub async fn script(&self, commands: &str, prelude: &str, env: &[(&str, String)]) -> Result<String> {
        let script = format!("{prelude}\n{}", self.adapt(commands));
        let path = std::env::var("PATH").unwrap_or_default();
        let own = Path::new(PROGRAM).parent().context("a folder")?;
        let mut command = Command::new("bash");
        command
            .args(["-euo", "pipefail", "-c", &script])
            .current_dir(self.dir.path())
            .env("PATH", format!("{}:{path}", own.display()))
            .env("TOOLS", root().join("target/tools/bin"))
            .env("PLACE", self.dir.path())
            .envs(env.iter().map(|(name, value)| (*name, value)))
            .stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        let (told, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{}\n{script}\n{told}{error}", output.status);
        Ok(told.into_owned())
    }

    /// The receiver takes each `toml` block.
    fn check_toml(&self, page: &str) -> Result<()> {
        for (number, block) in blocks(page, "toml").iter().enumerate() {
            for line in block.lines().filter(|line| line.contains("_file = ")) {
                let file = line.split('"').nth(1).context("a file")?;
                self.dir.write(file, "0123456789abcdef")?;
            }
            let file = self.dir.write(format!("block-{number}.toml"), block)?;
            let output = Command::new(PROGRAM).args(["check", "--config"]).arg(file).output()?;
            ensure!(output.status.success(), "{block}\n{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }
}

pub fn spawn(program: &str, dir: &Path, port: &Port, arguments: Vec<String>) -> Result<Process> {
    let number = port.number();
    let answers = || TcpStream::connect(("127.0.0.1", number)).is_ok();
    ProcessBuilder::new(program, dir).args(arguments).spawn_until(answers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_for_kubernetes_work() -> Result<()> {
    let page = guide("kubernetes")?;
    let cluster = Cluster::start("namespace=prompts").await?;
    let place = Place::new()?;
    // Without a cluster: what would be sent to it is built, and what would run in a pod runs here.
    let prelude = r#"
helm() { [[ $1 == upgrade && $2 == --install ]] && "$TOOLS/helm" template "${@:3}" >rendered.yaml && echo "installed $3"; }
kubectl() {
    case "$*" in
    *" exec "*)
        while [[ $1 != -- ]]; do shift; done
        shift
        if [[ $2 == check ]]; then "$1" check --config empty.toml --connect; else "$@"; fi ;;
    "apply -k "*) "$TOOLS/kubectl" kustomize "$3" >/dev/null && echo applied ;;
    *" get "*) ;;
    *) { echo ---; "$TOOLS/kubectl" "$@" --dry-run=client -o yaml; } >>created.yaml && echo created ;;
    esac
}
: >empty.toml
"#;
    for secret in ["redis_password", "routing_key"] {
        place.dir.write(secret, "0123456789abcdef\n")?;
    }
    let env = [
        ("PROMPT_ROLLBACK_URL", cluster.receiver.url()),
        ("PROMPT_ROLLBACK_REDIS__URL", cluster.redis.receiver_url()),
        ("PROMPT_ROLLBACK_ALERTMANAGER__URLS", cluster.alertmanager.url()),
    ];
    let told = place.run(&page, prelude, &env).await?;
    for part in
        ["installed prompt-rollback", "applied", "config: ok", "the test alert arrived end to end", "customer-support"]
    {
        ensure!(told.contains(part), "{part:?} is missing: {told}");
    }
    ensure!(told.lines().filter(|line| *line == "created").count() == 3, "{told}");
    let [created, rendered] = ["created.yaml", "rendered.yaml"].map(|name| place.dir.path().join(name));
    super::deploy::check_secrets(&created, &rendered)?;
    super::deploy::check_objects(&blocks(&page, "yaml"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_for_plain_hosts_work() -> Result<()> {
    let page = guide("plain-hosts")?;
    let mut place = Place::new()?;
    let here = place.dir.path().display().to_string();
    let [redis_port, receiver_port] = [Port::claim(), Port::claim()];
    let options = format!("--port {} --bind 127.0.0.1 --appendonly yes --dir {here}", redis_port.number());
    let _redis = spawn("redis-server", place.dir.path(), &redis_port, options.split(' ').map(str::to_owned).collect())?;

    // What the package installs.
    for folder in ["etc/prompt-rollback", "etc/prometheus", "etc/alertmanager", "usr/share/prompt-rollback"] {
        fs::create_dir_all(place.dir.path().join(folder))?;
    }
    for part in ["alert-rules", "config"] {
        std::os::unix::fs::symlink(root().join(part), place.dir.path().join("usr/share/prompt-rollback").join(part))?;
    }
    let yaml = blocks(&page, "yaml");
    let [prometheus, routes] = yaml[..] else { anyhow::bail!("two blocks of YAML, not {}", yaml.len()) };
    place.dir.write("etc/prometheus/prometheus.yml", format!("global: {{evaluation_interval: 5s}}\n{prometheus}"))?;

    // The page's routes are the shipped ones, without the comments.
    let shipped = shipped::text("config/alertmanager.yml")?;
    let (_, rest) = shipped.split_once("  routes:\n").context("routes")?;
    let (theirs, rest) = rest.split_once("\n# No inhibit_rules").context("the end of the routes")?;
    let (_, receivers) = rest.split_once("\nreceivers:").context("receivers")?;
    let bare = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'));
        lines.map(str::to_owned).collect()
    };
    let ours: Vec<String> = bare(routes).iter().map(|line| format!("    {line}")).collect();
    ensure!(ours == bare(theirs), "{ours:#?}\n{:#?}", bare(theirs));

    // Somebody's own Alertmanager, with the routes before their own.
    let receivers = receivers.replace("receiver:8000", &receiver_port.addr()).replace(
        "credentials_file: webhook_token",
        &format!("credentials_file: {here}/etc/alertmanager/webhook_token"),
    );
    let own = format!(
        "route:\n  receiver: default\n  group_by: [alertname]\n  routes:\n{}\n    - {{matchers: ['team=\"db\"'], receiver: default}}\nreceivers:{receivers}",
        ours.join("\n")
    );
    place.dir.write("etc/alertmanager/alertmanager.yml", &own)?;
    let alertmanager = Alertmanager::builder(own).start()?;
    let server = Prometheus::builder("{}").start()?;

    place
        .instead("/etc/", format!("{here}/etc/"))
        .instead("http://localhost:8000", format!("http://{}", receiver_port.addr()))
        .instead("/usr/share/prompt-rollback", format!("{here}/usr/share/prompt-rollback"))
        .instead("localhost:6379", format!("127.0.0.1:{}", redis_port.number()))
        .instead("localhost:9090", server.addr())
        .instead("localhost:9093", alertmanager.addr());
    // Nobody is root here, and systemd does not run: the service's own command does. The package lets only root and the service
    // into /etc/prompt-rollback, so the folder is elsewhere except while `sudo` runs. A copy that root makes of a secret belongs to
    // root alone, unless the command says for whom it is.
    let prelude = r#"
sudo() {
    local status=0
    mv "$PLACE/kept" "$PLACE/etc/prompt-rollback"
    if [[ $1 == cp && $* == *etc/prompt-rollback/* ]]; then echo "only root can read this copy: sudo $*" >&2; return 1; fi
    if [[ $1 == -u ]]; then shift 2; fi
    "$@" || status=$?
    mv "$PLACE/etc/prompt-rollback" "$PLACE/kept"
    return $status
}
install() {
    local kept=() group=
    while (($#)); do if [[ $1 == -g || $1 == -o ]]; then shift; group=$1; else kept+=("$1"); fi; shift; done
    [[ $group == prompt-rollback || $group == prometheus ]] || return 1
    command install "${kept[@]}"
}
mv etc/prompt-rollback kept
redis-cli() { command redis-cli -p "$REDIS_PORT" "$@"; }
systemctl() {
    [[ $* == "enable --now prompt-rollback" ]] || return 1
    cp -r etc/prompt-rollback service
    prompt-rollback serve --config "$PLACE/service/prompt-rollback.toml" >receiver.log 2>&1 &
    trap "kill $!" EXIT
    for _ in $(seq 100); do prompt-rollback healthcheck >/dev/null 2>&1 && return; sleep 0.1; done
    cat receiver.log >&2
    return 1
}
"#;
    let env = [
        ("REDIS_PORT", redis_port.number().to_string()),
        ("PROMPT_ROLLBACK_URL", format!("http://{}", receiver_port.addr())),
    ];
    let told = place.run(&page, prelude, &env).await?;
    for part in ["config: ok", "SUCCESS", "the test alert arrived end to end", "customer-support"] {
        ensure!(told.contains(part), "{part:?} is missing: {told}");
    }
    ensure!(!told.contains("FAIL"), "{told}");
    place.check_toml(&page)
}

/// The page's commands, on a stack that somebody has had for a while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_for_an_alertmanager_of_ones_own_work() -> Result<()> {
    let page = guide("alertmanager")?;
    let mut place = Place::new()?;
    place.dir.write(
        "etc/alertmanager/alertmanager.yml",
        "route:
  receiver: mail
  group_by: [alertname]
  routes:
    - matchers: ['severity=~\"critical|page\"']
      receiver: on-call
inhibit_rules:
  - source_matchers: ['severity=\"critical\"']
    target_matchers: ['severity!=\"critical\"']
    equal: [cluster]
receivers:
  - name: mail
    webhook_configs: [{url: 'http://mail:9000'}]
  - name: on-call
    pagerduty_configs: [{routing_key: abc}]
",
    )?;
    let prometheus =
        scrape_configs("receiver:8000", "gateway:9100")?.replace("job_name: prompt-servers", "job_name: llm-gateway");
    let rest = "rule_files: ['prompt-rollback/*.yml']\nalerting: {alertmanagers: [{static_configs: [{targets: ['alertmanager:9093']}]}]}\n";
    let prometheus = prometheus.replace("global: {", "global: {evaluation_interval: 5s, ");
    place.dir.write("etc/prometheus/prometheus.yml", format!("{rest}{prometheus}"))?;
    std::os::unix::fs::symlink(root().join("alert-rules"), place.dir.path().join("etc/prometheus/prompt-rollback"))?;
    place.instead("/etc/", format!("{}/etc/", place.dir.path().display()));
    place.dir.write("webhook_token", "0123456789abcdef\n")?;
    // the test does not run as root
    let prelude = r#"
sudo() { "$@"; }
install() { [[ $3 == -g ]] && command install "${@:1:2}" "${@:5}"; }
"#;
    let told = place.run(&page, prelude, &[]).await?;
    let (before, after) = told.split_once("patching file").context("patched")?;
    for part in ["reaches on-call after 30s", "inhibit_rules[0]", "+      receiver: on-call", "@@"] {
        ensure!(before.contains(part), "{part:?} is missing: {before}");
    }
    ensure!(after.contains("SUCCESS") && after.contains("job llm-gateway"), "{after}");
    ensure!(!after.contains("FAIL") && !after.contains("  warning  "), "{after}");
    place.check_toml(&page)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_for_a_managed_redis_work() -> Result<()> {
    let page = guide("managed-redis")?;
    let (place, redis) = (Place::new()?, Redis::start()?);
    let other = Redis::start()?;
    for (name, redis) in [("prompt-rollback", &redis), ("restored", &other)] {
        let login = "username = \"receiver\"\npassword_file = \"redis_password\"";
        place.dir.write(format!("{name}.toml"), format!("[redis]\nurl = \"{}\"\n{login}\n", redis.url()))?;
        let rules = page.lines().find_map(|line| line.strip_prefix("backup: ")).context("the user `backup`")?;
        let words = ["ACL", "SETUSER", "backup", ">for-backups"].into_iter().chain(rules.split_whitespace());
        redis.cmd::<()>(&words.collect::<Vec<_>>()).await?;
    }
    place.dir.write("redis_password", Redis::RECEIVER.password)?;
    place.dir.write("backup_password", "for-backups")?;
    redis.cmd::<()>(&["SET", "{prompts}:active:customer-support", "v1"]).await?;
    let told = place.run(&page, "", &[]).await?;
    let restored: String = other.cmd(&["GET", "{prompts}:active:customer-support"]).await?;
    ensure!(told.contains("1 keys saved") && told.contains("1 keys restored") && restored == "v1", "{told}");
    for user in ["default: off ", "receiver: on ", "prompt-server: on "] {
        let line = told.lines().find(|line| line.starts_with(user)).with_context(|| format!("{user}: {told}"))?;
        ensure!(line.contains("~{prompts}:") || line.contains("%R~{prompts}:"), "{line}");
        ensure!(!line.contains('#') && !line.contains("resetpass"), "{line}");
    }
    ensure!(told.contains("config: ok") && told.contains("redis permissions"), "{told}");
    place.check_toml(&page)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_for_grafana_work() -> Result<()> {
    let page = guide("grafana")?;
    let (mut place, redis) = (Place::new()?, Redis::start()?);
    place.dir.write("webhook_token", "0123456789abcdef")?;
    let receiver = Receiver::builder(PROGRAM)
        .env("PROMPT_ROLLBACK_REDIS__URL", redis.receiver_url())
        .env("PROMPT_ROLLBACK_SERVER__WEBHOOK_TOKEN", "0123456789abcdef")
        .start()?;
    for (path, body) in
        [("versions", json!({"version": "v1", "known_good": true})), ("activate", json!({"version": "v1"}))]
    {
        let answer = receiver.http().post_json(&format!("/api/prompts/customer-support/{path}"), &body).await?;
        ensure!(answer.status < 300, "{path}: {}", answer.text());
    }
    place.instead("localhost:8000", receiver.addr());
    let told = place.run(&page, "", &[]).await?;
    let answer: serde_json::Value = serde_json::from_str(&told).with_context(|| told.clone())?;
    let result = &answer["results"][0];
    ensure!(result["outcome"] == "ignored" && result["reason"] == "unknown_version", "{answer}");
    // The series that the page alerts on is one that the rules record.
    let rules = shipped::text("alert-rules/alerts.yml")?;
    for word in page.split(['`', ' ', ',']).filter(|word| word.starts_with("prompt_version:")) {
        ensure!(rules.contains(&format!("record: {word}")), "{word} is not recorded");
    }
    Ok(())
}

/// The program counts what the alert rules read, for the value of the key as a person may have set it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_code_of_the_documentation_runs() -> Result<()> {
    let redis = Redis::start()?;
    redis::cmd("SET")
        .arg("{prompts}:active:customer-support")
        .arg("v1.9.0\n")
        .exec_async(&mut redis.connection().await?)
        .await?;
    let readme = fs::read_to_string(root().join("README.md"))?;
    let prompt_servers = fs::read_to_string(root().join("docs/prompt-servers.md"))?;
    let names = fs::read_to_string(root().join("docs/names.md"))?;
    let named = blocks(&names, "python").concat();
    let ([adopt], [follow, sentinels]) = (&blocks(&readme, "python")[..], &blocks(&prompt_servers, "python")[..])
    else {
        anyhow::bail!("another number of blocks");
    };
    let program = format!(
        r#"
import os, redis
from prometheus_client import Counter, Histogram, generate_latest
from prompt_reader import Reader

def expose_at_zero(prompt, versions):
    print(prompt, "serves", versions)

REQUESTS = Counter("prompt_requests", "Requests.", ["prompt", "version", "outcome"])
DURATION = Histogram("prompt_request_duration_seconds", "Seconds.", ["prompt", "version", "outcome"])
prompt, answered, seconds, user_id = "customer-support", False, 0.2, 4711
redis = redis.Redis.from_url(os.environ["URL"])
{adopt}
print(generate_latest().decode())
{follow}
print("the reader serves", version)
{sentinels}
url = os.environ["URL"]
{named}
assert key == "{{prompts}}:active:" + key_of("Support bot: v2@eu"), key
"#
    )
    .replace("redis://prompt-server:password@redis:6379", &redis.prompt_server_url());
    let mut command = Command::new(python()?);
    command.args(["-B", "-c", &program]).env("PYTHONPATH", python_examples()).env("URL", redis.prompt_server_url());
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let (told, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{told}{error}");
    let labels = r#"{outcome="error",prompt="customer-support",version="v1.9.0"}"#;
    for line in [
        format!("prompt_requests_total{labels} 1.0"),
        format!("prompt_request_duration_seconds_count{labels} 1.0"),
        "the reader serves v1.9.0".to_owned(),
    ] {
        ensure!(told.lines().any(|one| one == line), "{line:?} is missing: {told}");
    }
    Ok(())
}

/// `scrape_configs` of the shipped file, for these targets.
fn scrape_configs(receiver: &str, prompt_server: &str) -> Result<String> {
    let shipped = shipped::text("config/prometheus.yml")?;
    let (_, jobs) = shipped.split_once("\nscrape_configs:").context("scrape_configs")?;
    let (ours, _) = jobs.split_once("  # self.yml monitors").context("the jobs of Alertmanager and Prometheus")?;
    let ours = ours.replace("receiver:8000", receiver).replace("prompt-server:9100", prompt_server);
    Ok(format!("global: {{scrape_interval: 1s}}\nscrape_configs:{ours}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_for_victoriametrics_work() -> Result<()> {
    let page = guide("victoriametrics")?;
    let mut place = Place::new()?;
    place.dir.write("etc/victoriametrics/scrape.yml", scrape_configs("receiver:8000", "prompt-server:9100")?)?;
    place.instead("/etc/", format!("{}/etc/", place.dir.path().display()));
    place.run(&page, "", &[]).await?;
    place.check_toml(&page)
}

/// Everything but the Prometheus is as shipped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_version_is_rolled_back_and_recovers_on_victoriametrics() -> Result<()> {
    let (redis, dir) = (Redis::start()?, Dir::new("victoriametrics")?);
    let [receiver_port, database_port, rules_port] = [Port::claim(), Port::claim(), Port::claim()];
    let alertmanager = Alertmanager::builder(shipped::alertmanager(&receiver_port.addr())?)
        .file("webhook_token", "0123456789abcdef")
        .start()?;
    let server = PromptServer::start(&redis.prompt_server_url(), &["greeting"], Source::Native).await?;
    let scrape = dir.write("scrape.yml", scrape_configs(&receiver_port.addr(), &server.addr)?)?;
    let database = format!("http://{}", database_port.addr());
    let arguments = [
        format!("-promscrape.config={}", scrape.display()),
        format!("-httpListenAddr={}", database_port.addr()),
        format!("-storageDataPath={}", dir.path().join("data").display()),
        "-search.latencyOffset=1s".to_owned(),
    ];
    let _database = spawn("victoria-metrics", dir.path(), &database_port, arguments.into())?;
    let rules = ["native", "baselines", "alerts", "heartbeat"]
        .map(|name| format!("-rule={}", root().join(format!("alert-rules/{name}.yml")).display()));
    let to = ["datasource.url", "remoteWrite.url", "remoteRead.url"].map(|flag| format!("-{flag}={database}"));
    let more = [
        format!("-notifier.url={}", alertmanager.url()),
        format!("-httpListenAddr={}", rules_port.addr()),
        "-evaluationInterval=1s".to_owned(),
        "-rule.resendDelay=5s".to_owned(),
    ];
    let arguments = rules.into_iter().chain(to).chain(more).collect();
    let _rules = spawn("vmalert", dir.path(), &rules_port, arguments)?;
    let receiver = Receiver::builder(PROGRAM)
        .env("PROMPT_ROLLBACK_REDIS__URL", redis.receiver_url())
        .env("PROMPT_ROLLBACK_SERVER__WEBHOOK_TOKEN", "0123456789abcdef")
        .env("PROMPT_ROLLBACK_PROMETHEUS__URL", &database)
        .env("PROMPT_ROLLBACK_ALERTMANAGER__URLS", alertmanager.url())
        .port(receiver_port)
        .start()?;
    server.misbehave("greeting", "v2", 0.3);
    for version in ["v1", "v2"] {
        for (path, body) in [
            ("versions", json!({ "version": version, "known_good": version == "v1" })),
            ("activate", json!({ "version": version })),
        ] {
            let answer = receiver.http().post_json(&format!("/api/prompts/greeting/{path}"), &body).await?;
            ensure!(answer.status < 300, "{path}: {}", answer.text());
        }
        if version == "v1" {
            // it is measured before it is needed
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }
    eventually("the rollback is confirmed as recovered", 2 * SOON, async || {
        let open = receiver.http().get("/api/incidents").await.ok()?.json().ok()?;
        (open["incidents"][0]["phase"] == "recovered").then_some(())
    })
    .await?;
    let prompt = receiver.http().get("/api/prompts/greeting").await?.json()?;
    ensure!(prompt["active"] == "v1", "{prompt}");
    let mut check = Command::new(PROGRAM);
    check
        .args(["check", "--connect"])
        .env("PROMPT_ROLLBACK_REDIS__URL", redis.receiver_url())
        .env("PROMPT_ROLLBACK_PROMETHEUS__URL", &database);
    let output = tokio::task::spawn_blocking(move || check.output()).await??;
    let told = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && told.contains(&format!("{database} is ready")), "{told}");
    Ok(())
}

/// Every phase of an incident is explained.
#[test]
fn the_concepts_name_every_phase() -> Result<()> {
    let page = fs::read_to_string(root().join("docs/concepts.md"))?;
    for kind in prompt_rollback::decision::PhaseKind::ALL {
        ensure!(page.contains(&format!("`{}`", kind.as_str())), "{kind:?}");
    }
    Ok(())
}
