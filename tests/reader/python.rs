//! The Python reader, by its own tests: they check the shared vectors and follow a real Redis.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A Python with the modules of the examples. Debian's are for Debian's own, which may not be the first.
pub fn python() -> &'static str {
    let has_modules = |program: &&str| {
        let mut probe = Command::new(program);
        let probe = probe.args(["-c", "import redis, prometheus_client"]).stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    };
    let python = ["python3", "/usr/bin/python3"].into_iter().find(has_modules);
    python.expect("a python3 with the modules redis and prometheus_client: run scripts/install-deps test")
}

pub fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

#[test]
fn the_python_reader_passes_its_tests() {
    let tests = Command::new(python())
        .args(["-B", "-m", "unittest", "--verbose", "test_prompt_reader"])
        .current_dir(examples().join("python"))
        .output()
        .expect("run python3");
    let said = String::from_utf8_lossy(&tests.stderr);
    assert!(tests.status.success(), "{said}");
    assert!(said.contains("test_shared_vectors") && !said.contains("skipped"), "{said}");
}
