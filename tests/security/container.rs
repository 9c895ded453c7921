//! What docker-compose.yml and the Dockerfile promise: a plain user, nothing writable, no shell. There need be no container
//! engine here, so the program runs in a root of its own that holds nothing but itself, its libraries and its config.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use prompt_rollback_testkit::http::Http;
use prompt_rollback_testkit::{Dir, Port, ProcessBuilder};

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

fn file(path: &str) -> Result<String> {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).context(path.to_owned())
}

/// The libraries that a program is started with.
fn libraries(program: &str) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("ldd")?;
    let text = String::from_utf8(output.stdout)?;
    let paths = text.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(paths.map(PathBuf::from).collect())
}

/// As the Dockerfile's last stage, without the Debian around it.
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
    root.write("run/secrets/webhook_token", "hook")?;
    root.write("run/secrets/api_token", "api")?;
    // a temporary directory is its owner's alone
    fs::set_permissions(root.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Ok(root)
}

/// How to get a mount namespace, and into a root as the user of the image. Without root's privileges the user stays who runs
/// this, who has none either.
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
async fn it_serves_as_a_plain_user_where_nothing_can_be_written_and_there_is_no_shell() -> Result<()> {
    let (namespace, _) = way_in();
    let permitted = Command::new("unshare").args(&namespace).arg("true").output().context("unshare")?;
    if !permitted.status.success() {
        // past the capture of tests: it must be seen
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

    ship(&http.clone().token("api"), "p").await?;
    assert_eq!(outcomes(&deliver(&http.clone().token("hook"), &[critical("p")]).await?)?, [ROLLED_BACK]);
    let url = format!("http://{}", port.addr());
    let mut check = contained(&root, &dir, &["healthcheck", "--url", &url]).spawn()?;
    let ended = check.wait(SOON)?;
    assert!(ended.success(), "{}", check.log());
    Ok(())
}

#[test]
fn the_dockerfiles_run_as_a_plain_user_and_start_no_shell() -> Result<()> {
    for path in ["Dockerfile", "examples/python/Dockerfile"] {
        let text = file(path)?.replace("\\\n", " ");
        let last = &text[text.rfind("\nFROM ").map_or(0, |at| at + 1)..];
        let instruction = |name: &str| -> Result<&str> {
            let all: Vec<&str> = last.lines().filter_map(|line| line.trim().strip_prefix(name)).collect();
            ensure!(all.len() == 1, "{path}: {name} stands {} times in the last stage", all.len());
            Ok(all[0].trim())
        };
        let user = instruction("USER ")?;
        let ids: Vec<u32> = user.split(':').map(str::parse).collect::<Result<_, _>>().context(user.to_owned())?;
        ensure!(ids.len() == 2 && !ids.contains(&0), "{path}: USER {user}");
        let check = instruction("HEALTHCHECK ")?;
        let check = check.split_once("CMD").context("HEALTHCHECK CMD")?.1.trim();
        for command in [instruction("ENTRYPOINT ")?, instruction("CMD ")?, check] {
            let words: Vec<String> =
                serde_json::from_str(command).with_context(|| format!("{path}: a shell: {command}"))?;
            ensure!(!words.iter().any(|word| word.ends_with("sh")), "{path}: a shell: {command}");
        }
    }
    Ok(())
}

#[test]
fn each_service_is_a_plain_user_read_only_and_without_capabilities() -> Result<()> {
    let text = file("docker-compose.yml")?;
    let block = |name: &str, indent: &str| -> Vec<&str> {
        let lines = text.lines().skip_while(|line| !line.starts_with(&format!("{indent}{name}:"))).skip(1);
        lines.take_while(|line| line.is_empty() || line.starts_with(&format!("{indent}  "))).map(str::trim).collect()
    };
    let hardened = block("x-hardened", "");
    for line in ["read_only: true", "cap_drop: [ALL]", r#"security_opt: ["no-new-privileges:true"]"#] {
        assert!(hardened.contains(&line), "{line}: {hardened:?}");
    }
    let services: Vec<&str> = text
        .lines()
        .skip_while(|line| *line != "services:")
        .skip(1)
        .take_while(|line| line.is_empty() || line.starts_with(' '))
        .filter_map(|line| line.strip_prefix("  ")?.strip_suffix(':').filter(|name| !name.starts_with(' ')))
        .collect();
    assert!(services.len() >= 6 && services.contains(&"receiver"), "{services:?}");
    for service in services {
        let lines = block(service, "  ");
        assert!(lines.contains(&"<<: *hardened"), "{service}: {lines:?}");
        let softened = ["privileged:", "cap_add:", "read_only:", "cap_drop:", "security_opt:", "network_mode:", "pid:"];
        assert!(!lines.iter().any(|line| softened.iter().any(|key| line.starts_with(key))), "{service}: {lines:?}");
        let user = lines.iter().find_map(|line| line.strip_prefix("user: ")).unwrap_or_default().trim_matches('"');
        let id = user.split(':').next().and_then(|id| id.parse::<u32>().ok());
        assert!(id.is_some_and(|id| id != 0), "{service}: user {user:?}");
        if service == "receiver" {
            let own = ["entrypoint:", "command:", "healthcheck:", "tmpfs:"];
            assert!(
                !lines.iter().any(|line| own.iter().any(|key| line.starts_with(key))),
                "the image's own: {lines:?}"
            );
        }
    }
    Ok(())
}
