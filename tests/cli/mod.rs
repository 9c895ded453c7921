//! The command line, run as a user would.

mod amtool;
mod config;
mod http_config;
mod inhibition;
mod init;
mod receiver;
mod stack;
mod stub;

use stub::{program, stderr, stdout};

#[test]
fn every_command_teaches_by_example() {
    let help = stdout(&program(&["--help"]).output().unwrap());
    for command in [
        "serve",
        "check",
        "backup",
        "restore-backup",
        "register",
        "activate",
        "rollback",
        "mark",
        "status",
        "explain",
        "log",
        "incidents",
        "pause",
        "resume",
        "drill",
        "reload",
        "healthcheck",
    ] {
        assert!(help.contains(&format!("\n  {command} ")), "{command} in {help}");
        let output = program(&[command, "--help"]).output().unwrap();
        let text = stdout(&output);
        assert_eq!(output.status.code(), Some(0));
        assert!(text.contains(&format!("Examples:\n  prompt-rollback {command}")), "{text}");
    }
    // examples fit into a terminal of 80 columns
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands: Vec<String> = commands
        .take_while(|line| !line.is_empty())
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect();
    assert!(commands.len() > 20, "{commands:?}");
    for command in commands.iter().map(String::as_str).filter(|name| *name != "help").chain([""]) {
        let arguments: Vec<&str> = [command, "--help"].into_iter().filter(|one| !one.is_empty()).collect();
        let text = stdout(&program(&arguments).output().unwrap());
        let after = text.find("\nExamples:").or_else(|| text.find("\nA first session:"));
        let after = &text[after.unwrap_or_else(|| panic!("{command}: {text}"))..];
        for line in after.lines() {
            assert!(line.chars().count() <= 78, "{command}: {line}");
        }
    }
    assert!(help.contains("Exit codes: 0 success, 1 refused or failed, 2 invalid usage or config."), "{help}");
}

#[test]
fn help_never_shows_the_token() {
    let output = program(&["status", "--help"]).env("PROMPT_ROLLBACK_TOKEN", "hunter2").output().unwrap();
    assert!(
        !stdout(&output).contains("hunter2") && stdout(&output).contains("PROMPT_ROLLBACK_TOKEN"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn a_token_that_no_header_can_carry_is_refused_and_not_shown() {
    for token in ["hunter2\nx", "hunter2 x", "hunter2\u{200b}x"] {
        let mut by_argument = program(&["status", "--token", token]);
        let mut by_variable = program(&["status"]);
        by_variable.env("PROMPT_ROLLBACK_TOKEN", token);
        for (command, name) in [(&mut by_argument, "--token"), (&mut by_variable, "PROMPT_ROLLBACK_TOKEN")] {
            let output = command.output().unwrap();
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(2), "{said}");
            assert!(said.contains(&format!("error: {name}: found ")) && !said.contains("hunter2"), "{said}");
        }
    }
}

#[test]
fn wrong_usage_exits_2() {
    for args in [
        &["frobnicate"][..],
        &[],
        &["register", "p"],
        &["rollback"],
        &["mark", "p", "v1", "--reason", "x"],
        &["mark", "p", "v1", "--good", "--bad", "--reason", "x"],
        &["mark", "p", "v1", "--bad"],
        &["status", "--output", "yaml"],
        &["status", "p", "--without-target"],
        &["status", "--limit", "0"],
        &["status", "--url", "localhost:8000"],
        &["status", "--token", "a\nb"],
        &["register", "p", "v1", "--staged-at", "yesterday"],
        &["register", "p", "v1", "--content-file", "/nonexistent"],
    ] {
        let output = program(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?} {}", stderr(&output));
    }
}
