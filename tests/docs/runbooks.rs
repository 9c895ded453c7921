//! `docs/runbooks/`: every alert has its page, every link has a target, every command works as written.

use super::world::{World, metrics_of};
use anyhow::{Context, Result, ensure};
use prompt_rollback_testkit::{Redis, shipped};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// File names and contents.
fn pages() -> Result<Vec<(String, String)>> {
    let mut pages = Vec::new();
    for entry in std::fs::read_dir(root().join("docs/runbooks"))? {
        let name = entry?.file_name().into_string().ok().context("name")?;
        let text = shipped::text(&format!("docs/runbooks/{name}"))?;
        pages.push((name, text));
    }
    Ok(pages)
}

/// The anchors of a page, as GitHub and GitLab create them.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let kept = |c: &char| c.is_alphanumeric() || *c == '-' || *c == ' ';
    headings.map(|heading| heading.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")).collect()
}

pub fn leads_somewhere(base: &Path, link: &str) -> Result<()> {
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target: PathBuf = base.join(file);
    let text = std::fs::read_to_string(&target).with_context(|| format!("{link} from {}", base.display()))?;
    ensure!(anchor.is_empty() || anchors(&text).iter().any(|one| one == anchor), "{link}: no such heading");
    Ok(())
}

#[test]
fn every_alert_links_to_the_page_that_names_it() -> Result<()> {
    let mut alerts = 0;
    for file in ["alerts", "self"] {
        let rules = shipped::text(&format!("alert-rules/{file}.yml"))?;
        for rule in rules.split("- alert: ").skip(1) {
            let alert = rule.lines().next().context("name")?;
            let link = rule.split_once("runbook_url: '{{ with $externalLabels.runbooks_url }}{{ . }}/");
            let (_, rest) = link.with_context(|| format!("{alert} has no runbook"))?;
            let (link, _) = rest.split_once("{{ end }}'").with_context(|| format!("{alert}: {rest}"))?;
            leads_somewhere(&root().join("docs/runbooks"), link)?;
            let page = shipped::text(&format!("docs/runbooks/{}", link.split('#').next().context("file")?))?;
            ensure!(page.contains(alert), "{link} does not name {alert}");
            alerts += 1;
        }
    }
    ensure!(alerts > 20, "{alerts} alerts");
    Ok(())
}

#[test]
fn links_lead_somewhere() -> Result<()> {
    for (name, text) in pages()? {
        for rest in text.split("](").skip(1) {
            let link = rest.split(')').next().context("link")?;
            let link = if link.starts_with('#') { format!("{name}{link}") } else { link.to_owned() };
            leads_somewhere(&root().join("docs/runbooks"), &link)?;
        }
    }
    Ok(())
}

/// The lines of a page's `sh` blocks.
fn commands(text: &str) -> Vec<&str> {
    let blocks = text.split("```sh\n").skip(1).filter_map(|block| block.split("```").next());
    blocks.flat_map(str::lines).collect()
}

/// Runs a line as a person would paste it, except for the ports and the folder of the config.
fn run(world: &World, setting: &str, line: &str) -> Result<Output> {
    let line = line
        .replace("/etc/prompt-rollback/", "config/")
        .replace("localhost:8000", &world.receiver.addr())
        .replace("localhost:9090", &world.prometheus.addr())
        .replace("redis-cli ", &format!("redis-cli -p {} ", world.redis.addr().rsplit(':').next().unwrap_or_default()));
    let binaries = Path::new(env!("CARGO_BIN_EXE_prompt-rollback")).parent().context("no directory")?;
    let path = std::env::join_paths(
        std::iter::once(binaries.to_owned())
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    )?;
    let line = line.replace(">postmortem.md", ">/dev/null");
    Ok(Command::new("bash")
        .args(["-euo", "pipefail", "-c", &format!("{setting}\n{line}")])
        .current_dir(root())
        .env("PATH", path)
        .env("PROMPT_ROLLBACK_URL", world.receiver.url())
        .env("PROMPT_ROLLBACK_REDIS__URL", world.redis.receiver_url())
        .env("REDISCLI_AUTH", Redis::RECEIVER.password)
        .output()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_works_as_it_stands() -> Result<()> {
    let pages = pages()?;
    let prompts: Vec<_> = pages.iter().map(|(name, _)| name.trim_end_matches(".md")).collect();
    let world = World::start(&prompts).await?;
    let metrics = world.metrics().await?;
    let postmortems = Command::new(env!("CARGO_BIN_EXE_prompt-rollback")).arg("--help").output()?;
    let postmortems = String::from_utf8_lossy(&postmortems.stdout).contains("\n  postmortem");

    let (mut ran, mut queries) = (0, 0);
    for ((name, text), prompt) in pages.iter().zip(&prompts) {
        let open = world.receiver.http().get("/api/incidents?limit=100").await?.json()?;
        let open = open["incidents"].as_array().context("incidents")?;
        let incident = open.iter().find(|one| one["prompt"] == *prompt).context("no incident")?;
        let own =
            [("customer-support", *prompt), ("01KAJ4B8N4GZQ6V9C2M7T5R3XW", incident["id"].as_str().context("id")?)];
        let mut setting = String::new();
        for line in commands(text) {
            if line.starts_with("export ") {
                setting = own.iter().fold(line.to_owned(), |line, (from, to)| line.replace(from, to));
                continue;
            }
            if line.starts_with("prompt-rollback postmortem ") && !postmortems {
                continue;
            }
            let output = run(&world, &setting, line)?;
            let (told, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            ensure!(output.status.success(), "{name}: {line}\n{told}{error}");
            ran += 1;
            if let Some(query) = line.strip_prefix("promtool query instant http://localhost:9090 ") {
                // a name between quotes is a label's value, but here the query itself is quoted
                for metric in metrics_of(query.trim_start_matches('"')) {
                    let there = metrics.contains(metric) || metrics.contains(metric.trim_end_matches("_bucket"));
                    ensure!(there, "{name}: there is no {metric}: {line}");
                }
                queries += 1;
            }
            // a second rollback is refused, whatever command sends it
            ensure!(!line.starts_with("curl -X POST") || told.contains(r#""code":"moved""#), "{name}: {line}\n{told}");
        }
        if text.contains("## 3. Execute") {
            let path = format!("/api/prompts/{prompt}");
            let shown = world.receiver.http().get(&path).await?.json()?;
            ensure!(shown["active"] != super::world::BAD, "{name} does not roll back: {shown:#}");
        }
    }
    ensure!(ran > 100 && queries > 50, "{ran} commands, {queries} queries");
    Ok(())
}
