//! What docker-compose.yml and the Dockerfile promise: an unprivileged user, nothing writable, no shell. A container
//! engine may be missing here, so the program runs in a root of its own that holds only itself, its libraries and its
//! config.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use prompt_rollback_testkit::http::Http;
use prompt_rollback_testkit::{Dir, Port, ProcessBuilder};

use super::dockerfile::{file, stages};
use crate::common::{ROLLED_BACK, Redis, SOON, critical, deliver, eventually, outcomes, ship};

const PROGRAM: &str = "/usr/local/bin/prompt-rollback";
const CONFIG: &str = "/etc/prompt-rollback/prompt-rollback.toml";
/// Arguments: the root, how to enter it, and what to run there.
const ENTER: &str = r#"
root=$1
shift
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
exec setpriv --no-new-privs -- "$@"
"#;

/// The libraries that a program is started with.
fn libraries(program: &str) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("ldd")?;
    let text = String::from_utf8(output.stdout)?;
    let paths = text.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(paths.map(PathBuf::from).collect())
}

/// Like the Dockerfile's last stage, without the rest of Debian.
fn make_root() -> Result<Dir> {
    let root = Dir::new("root")?;
    let program = env!("CARGO_BIN_EXE_prompt-rollback");
    let mut files = vec![(PathBuf::from(program), PROGRAM.to_owned())];
    files.extend(libraries(program)?.into_iter().map(|path| (path.clone(), path.display().to_string())));
    for (from, to) in files {
        let to = root.path().join(to.trim_start_matches('/'));
        fs::create_dir_all(to.parent().context("a folder")?)?;
        fs::copy(&from, &to).with_context(|| format!("copy {}", from.display()))?;
    }
    root.write(CONFIG.trim_start_matches('/'), file("config/prompt-rollback.toml")?)?;
    root.write("run/secrets/webhook_token", "hook-token")?;
    root.write("run/secrets/api_token", "api-token")?;
    // only its owner can access a temporary directory
    fs::set_permissions(root.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Ok(root)
}

/// How to get a mount namespace, and how to enter a root as the user of the image. Without root's privileges, the user
/// stays the one who runs this, who is unprivileged as well.
fn way_in() -> (Vec<&'static str>, Vec<&'static str>) {
    let root = fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if root {
        (vec!["--mount"], vec!["chroot", "--userspec=65532:65532", "--groups="])
    } else {
        (vec!["--user", "--map-root-user", "--mount"], vec!["chroot"])
    }
}

fn contained(root: &Dir, dir: &Dir, arguments: &[&str]) -> ProcessBuilder {
    let (namespace, enter) = way_in();
    ProcessBuilder::new("unshare", dir.path())
        .without_env("PROMPT_ROLLBACK_")
        .args(namespace)
        .args(["sh", "-euc", ENTER, "sh"])
        .arg(root.path())
        .args(enter)
        .arg(root.path())
        .arg(PROGRAM)
        .args(arguments)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_image_serves_as_a_plain_user_without_a_shell_or_writable_files() -> Result<()> {
    let (namespace, _) = way_in();
    let permitted = Command::new("unshare").args(&namespace).arg("true").output().context("unshare")?;
    if !permitted.status.success() {
        // past the capture of tests, so that it is seen
        let why = String::from_utf8_lossy(&permitted.stderr).into_owned();
        writeln!(std::io::stderr(), "\nSKIPPED: this kernel permits no mount namespace: {why}")?;
        return Ok(());
    }
    let (root, dir, port) = (make_root()?, Dir::new("outside")?, Port::claim());
    let redis = Redis::start()?;
    let process = contained(&root, &dir, &["serve", "--config", CONFIG])
        .env("PROMPT_ROLLBACK_SERVER__LISTEN", port.addr())
        .env("PROMPT_ROLLBACK_SERVER__WEBHOOK_TOKEN_FILE", "/run/secrets/webhook_token")
        .env("PROMPT_ROLLBACK_SERVER__API_TOKEN_FILE", "/run/secrets/api_token")
        .env("PROMPT_ROLLBACK_REDIS__URL", redis.receiver_url())
        .spawn()?;
    let http = Http::new(format!("http://{}", port.addr()));
    let ready = async || http.get("/-/ready").await.ok().filter(|answer| answer.status == 200).map(drop);
    eventually("ready", SOON, ready).await.with_context(|| process.log())?;

    let of = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", process.pid()));
    let (status, mounts) = (of("status")?, of("mountinfo")?);
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
    assert_eq!(field("NoNewPrivs:"), "1");
    if namespace.len() == 1 {
        assert!(field("Uid:").starts_with("65532\t65532") && field("Gid:").starts_with("65532\t65532"), "{status}");
        for capabilities in ["CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(u64::from_str_radix(field(capabilities), 16)?, 0, "{capabilities}");
        }
    }
    // id, parent, device, root, where, how
    let seen: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(5)).collect();
    assert!(!seen.is_empty() && seen.iter().all(|how| how.starts_with("ro")), "{mounts}");
    assert!(!["bin/sh", "usr/bin/sh", "bin/bash", "tmp", "dev", "proc"].iter().any(|it| root.path().join(it).exists()));

    ship(&http.clone().token("api-token"), "p").await?;
    assert_eq!(outcomes(&deliver(&http.clone().token("hook-token"), &[critical("p")]).await?)?, [ROLLED_BACK]);
    let url = format!("http://{}", port.addr());
    let mut check = contained(&root, &dir, &["healthcheck"]).env("PROMPT_ROLLBACK_URL", url).spawn()?;
    let ended = check.wait()?;
    assert!(ended.success(), "{}", check.log());
    Ok(())
}

#[test]
fn the_dockerfiles_run_as_a_plain_user_and_start_no_shell() -> Result<()> {
    for path in ["Dockerfile", "examples/python/Dockerfile"] {
        let stages = stages(path)?;
        let last = stages.last().context("a stage")?;
        let user = last.one("USER")?;
        let ids: Vec<u32> = user.split(':').map(str::parse).collect::<Result<_, _>>().context(user.to_owned())?;
        ensure!(ids.len() == 2 && !ids.contains(&0), "{path}: USER {user}");
        let check = last.one("HEALTHCHECK")?.split_once("CMD").context("HEALTHCHECK CMD")?.1.trim();
        for command in [last.one("ENTRYPOINT")?, last.one("CMD")?, check] {
            let words: Vec<String> =
                serde_json::from_str(command).with_context(|| format!("{path}: a shell: {command}"))?;
            ensure!(!words.iter().any(|word| word.ends_with("sh")), "{path}: a shell: {command}");
        }
    }
    Ok(())
}

#[test]
fn the_receivers_image_is_made_from_nothing_and_says_what_it_is() -> Result<()> {
    let stages = stages("Dockerfile")?;
    let last = stages.last().context("a stage")?;
    assert_eq!(last.from, "scratch");
    assert!(last.all("RUN").is_empty());
    // with --url, the variable that TLS needs would have no effect
    assert!(last.one("HEALTHCHECK")?.ends_with(r#"CMD ["prompt-rollback", "healthcheck"]"#));
    let labels = last.one("LABEL")?;
    for (label, value) in [
        ("title", env!("CARGO_PKG_NAME")),
        ("description", env!("CARGO_PKG_DESCRIPTION")),
        ("version", env!("CARGO_PKG_VERSION")),
        ("revision", "$REVISION"),
    ] {
        let label = format!("org.opencontainers.image.{label}=\"{value}\"");
        assert!(labels.contains(&label), "{label} in {labels}");
    }
    Ok(())
}

/// Whether a tag names one release: `v3.13.3`, `1.98.0-slim-trixie`.
fn is_pinned(image: &str) -> bool {
    let Some((_, tag)) = image.split_once(':') else { return false };
    let version = tag.split('-').next().unwrap_or_default().trim_start_matches('v');
    version.split('.').count() == 3 && version.split('.').all(|part| part.parse::<u32>().is_ok())
}

#[test]
fn every_image_is_pinned_to_a_release() -> Result<()> {
    let compose = file("docker-compose.yml")?;
    let mut images: Vec<String> =
        compose.lines().filter_map(|line| line.trim().strip_prefix("image: ")).map(str::to_owned).collect();
    images.retain(|image| !image.ends_with(":local"));
    for path in ["Dockerfile", "examples/python/Dockerfile"] {
        images.extend(stages(path)?.into_iter().map(|stage| stage.from).filter(|from| from != "scratch"));
    }
    assert!(images.len() >= 6, "{images:?}");
    for image in images {
        assert!(is_pinned(&image), "{image}");
    }
    assert!(!["redis", "redis:8", "redis:latest", "prom/prometheus:v3.13"].into_iter().any(is_pinned));
    Ok(())
}

#[test]
fn every_package_of_the_example_in_python_is_locked_by_its_hash() -> Result<()> {
    let locked = file("examples/python/requirements.txt")?.replace("\\\n", " ");
    let mut names = Vec::new();
    for line in locked.lines().filter(|line| !line.trim().starts_with('#') && !line.trim().is_empty()) {
        let (name, rest) = line.split_once("==").with_context(|| format!("not one version: {line}"))?;
        ensure!(rest.contains("--hash=sha256:"), "no hash: {line}");
        names.push(name.to_owned());
    }
    for line in file("examples/python/requirements.in")?.lines() {
        let name = line.split(['>', '<', '=']).next().unwrap_or_default();
        ensure!(names.iter().any(|locked| locked == name), "{name} is not locked: make requirements");
    }
    ensure!(stages("examples/python/Dockerfile")?[0].one("RUN")?.contains("--require-hashes"), "pip checks no hashes");
    Ok(())
}

/// Everyone on the machine can see a command line.
#[test]
fn no_command_that_we_print_or_run_holds_a_secret() -> Result<()> {
    for path in ["Makefile", "scripts/up", "README.md", "docs/operations.md", "docs/security.md"] {
        for line in file(path)?.lines() {
            assert!(!line.contains("cat secrets/"), "{path}: {line}");
        }
    }
    Ok(())
}

/// The lines below `name:` at this indent, without the indent.
fn block<'a>(text: &'a str, name: &str, indent: &str) -> Vec<&'a str> {
    let lines = text.lines().skip_while(|line| !line.starts_with(&format!("{indent}{name}:"))).skip(1);
    lines.take_while(|line| line.is_empty() || line.starts_with(&format!("{indent}  "))).map(str::trim).collect()
}

/// Each service of docker-compose.yml with its lines.
fn services(text: &str) -> Vec<(&str, Vec<&str>)> {
    let names = text
        .lines()
        .skip_while(|line| *line != "services:")
        .skip(1)
        .take_while(|line| line.is_empty() || line.starts_with(' '))
        .filter_map(|line| line.strip_prefix("  ")?.strip_suffix(':').filter(|name| !name.starts_with([' ', '#'])));
    names.map(|name| (name, block(text, name, "  "))).collect()
}

#[test]
fn each_service_is_a_plain_user_read_only_and_without_capabilities() -> Result<()> {
    let text = file("docker-compose.yml")?;
    let hardened = block(&text, "x-hardened", "");
    for line in ["read_only: true", "cap_drop: [ALL]", r#"security_opt: ["no-new-privileges:true"]"#] {
        assert!(hardened.contains(&line), "{line}: {hardened:?}");
    }
    let services = services(&text);
    assert!(services.len() >= 7 && services.iter().any(|(name, _)| *name == "receiver"), "{services:?}");
    for (service, lines) in services {
        assert!(lines.contains(&"<<: *hardened"), "{service}: {lines:?}");
        let softened = ["privileged:", "cap_add:", "read_only:", "cap_drop:", "security_opt:", "network_mode:", "pid:"];
        assert!(!lines.iter().any(|line| softened.iter().any(|key| line.starts_with(key))), "{service}: {lines:?}");
        let user = lines.iter().find_map(|line| line.strip_prefix("user: ")).unwrap_or_default().trim_matches('"');
        let id = user.split(':').next().and_then(|id| id.parse::<u32>().ok());
        assert!(id.is_some_and(|id| id != 0), "{service}: user {user:?}");
        if service == "receiver" {
            assert!(
                lines.contains(&"stop_grace_period: 15s"),
                "requests in flight have server.shutdown_timeout: {lines:?}"
            );
            let own = ["entrypoint:", "command:", "healthcheck:", "tmpfs:"];
            assert!(
                !lines.iter().any(|line| own.iter().any(|key| line.starts_with(key))),
                "the image's own: {lines:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn each_service_has_limits_a_health_check_and_only_loopback_ports() -> Result<()> {
    let text = file("docker-compose.yml")?;
    let hardened = block(&text, "x-hardened", "");
    for line in ["restart: unless-stopped", "pids_limit: 256", r#"options: { max-size: 10m, max-file: "3" }"#] {
        assert!(hardened.contains(&line), "{line}: {hardened:?}");
    }
    let mut published = 0;
    for (service, lines) in services(&text) {
        let has = |key: &str| lines.iter().any(|line| line.starts_with(key));
        assert!(has("mem_limit: ") && has("cpus: "), "{service}: {lines:?}");
        assert!(!has("logging:") && !has("pids_limit:"), "{service} has its own: {lines:?}");
        // a container that runs once succeeds or fails; an image that is built here has its own check
        let once = lines.contains(&r#"restart: "no""#);
        assert!(once != (has("healthcheck:") && !has("disable: true") || has("build:")), "{service}: {lines:?}");
        for ports in lines.iter().filter(|line| line.starts_with("ports:")) {
            let variable = format!("{}_PORT", service.to_uppercase().replace('-', "_"));
            let expected = format!("${{PUBLISH_ADDRESS:-127.0.0.1}}:${{{variable}:-");
            assert_eq!(ports.matches(&expected).count(), ports.matches(',').count() + 1, "{service}: {ports}");
            published += 1;
        }
    }
    assert_eq!(published, 5);
    Ok(())
}
