//! The Python reader's own tests: they check the shared vectors and follow a real Redis.

use std::process::Command;

use prompt_rollback_testkit::readers::{python, python_examples};

#[test]
fn the_python_reader_passes_its_tests() {
    let tests = Command::new(python().expect("a python3"))
        .args(["-B", "-m", "unittest", "--verbose", "test_prompt_reader"])
        .current_dir(python_examples())
        .output()
        .expect("run python3");
    let said = String::from_utf8_lossy(&tests.stderr);
    assert!(tests.status.success(), "{said}");
    assert!(said.contains("test_shared_vectors") && !said.contains("skipped"), "{said}");
}
