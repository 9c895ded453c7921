//! The Python reader, by its own tests: they check the shared vectors and follow a real Redis.

use std::path::Path;
use std::process::{Command, Stdio};

/// Debian's module is for Debian's own Python, which may not be the first.
fn python() -> Option<&'static str> {
    let has_module = |program: &&str| {
        let probe = Command::new(program).args(["-c", "import redis"]).stderr(Stdio::null()).status();
        probe.is_ok_and(|status| status.success())
    };
    ["python3", "/usr/bin/python3"].into_iter().find(has_module)
}

#[test]
fn the_python_reader_passes_its_tests() {
    let python = python().expect("a python3 with the module redis: run scripts/install-deps test");
    let tests = Command::new(python)
        .args(["-B", "-m", "unittest", "--verbose", "test_prompt_reader"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/python"))
        .output()
        .expect("run python3");
    let said = String::from_utf8_lossy(&tests.stderr);
    assert!(tests.status.success(), "{said}");
    assert!(said.contains("test_shared_vectors") && !said.contains("skipped"), "{said}");
}
