//! Writes man pages and shell completions: `cargo run -p prompt-rollback-packaging -- DIRECTORY`.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use clap::CommandFactory;
use clap_complete::{Shell, generate_to};
use prompt_rollback::cli::Cli;

const NAME: &str = "prompt-rollback";

fn main() -> io::Result<()> {
    let Some(directory) = env::args_os().nth(1).map(PathBuf::from) else {
        return Err(io::Error::other("usage: generate DIRECTORY"));
    };
    generate(&directory)
}

fn generate(directory: &Path) -> io::Result<()> {
    let (man, completions) = (directory.join("man"), directory.join("completions"));
    for directory in [&man, &completions] {
        fs::create_dir_all(directory)?;
    }
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut Cli::command(), NAME, &completions)?;
    }
    // clap_complete 4.6 takes the hyphen of the name for the end of a command, but only in some places
    let bash = completions.join(format!("{NAME}.bash"));
    let script = fs::read_to_string(&bash)?;
    fs::write(&bash, script.replace("prompt__subcmd__rollback", "prompt__rollback"))?;
    // `prompt-rollback help COMMAND` repeats the page of the command
    clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), &man)?;
    for page in fs::read_dir(&man)? {
        let page = page?.path();
        let text = fs::read_to_string(&page)?;
        fs::write(&page, with_its_own_lines(&text))?;
    }
    Ok(())
}

/// The examples and what follows them, as `--help` shows them: otherwise `man` joins the lines.
fn with_its_own_lines(page: &str) -> String {
    let Some((before, rest)) = page.split_once("\n.SH EXTRA\n") else { return page.to_owned() };
    let (extra, after) = rest.find("\n.SH ").map_or((rest.trim_end(), ""), |at| rest.split_at(at));
    format!("{before}\n.SH EXTRA\n.nf\n{}\n.fi\n{}", extra.trim_end(), after.trim_start())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let directory = env::temp_dir().join(format!("prompt-rollback-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        directory
    }

    #[test]
    fn every_command_has_a_man_page_and_completes_in_every_shell() {
        let directory = scratch("packaging");
        generate(&directory).unwrap();
        let read =
            |path: &str| fs::read_to_string(directory.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        let commands: Vec<String> = Cli::command().get_subcommands().map(|one| one.get_name().to_owned()).collect();
        assert!(commands.len() > 15, "{commands:?}");
        let main = read("man/prompt-rollback.1");
        for command in &commands {
            let page = read(&format!("man/prompt-rollback-{command}.1"));
            // The examples are what people look for.
            assert!(page.contains(".SH OPTIONS") && page.contains("Examples:"), "{command}\n{page}");
            assert!(
                main.contains(&format!("prompt\\-rollback\\-{}(1)", command.replace('-', "\\-"))),
                "{command}\n{main}"
            );
        }
        for file in ["prompt-rollback.bash", "_prompt-rollback", "prompt-rollback.fish"] {
            let script = read(&format!("completions/{file}"));
            for command in &commands {
                assert!(script.contains(command.as_str()), "{file}: {command}");
            }
        }
        // `man` keeps the lines of examples.
        for command in &commands {
            let page = read(&format!("man/prompt-rollback-{command}.1"));
            let (_, extra) = page.split_once(".SH EXTRA\n.nf\nExamples:\n").unwrap_or_else(|| panic!("{page}"));
            assert!(extra.split(".SH").next().unwrap().ends_with("\n.fi\n"), "{page}");
        }
        // As Bash completes: options of a command, after its name.
        for (typed, expected) in
            [("rest", "restore-backup"), ("check --alertm", "--alertmanager-config"), ("init --red", "--redis-url")]
        {
            let words: Vec<&str> = [NAME].into_iter().chain(typed.split(' ')).collect();
            let [.., previous, current] = words[..] else { panic!("{typed}") };
            // the function that Bash calls
            let script = format!(
                "source '{}'\nfunction=$(complete -p {NAME}); function=${{function#*-F }}\n\
                 COMP_WORDS=({NAME} {typed}); COMP_CWORD={}; ${{function%% *}} {NAME} '{current}' '{previous}'\n\
                 echo \"${{COMPREPLY[@]}}\"",
                directory.join("completions/prompt-rollback.bash").display(),
                words.len() - 1,
            );
            let output = Command::new("bash").args(["--norc", "-c", &script]).output().expect("bash");
            let replied = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(replied.split_whitespace().any(|word| word == expected), "{typed}: {replied} {output:?}");
        }
        // The pages must not contain values of the build's environment.
        let user = env::var("USER").unwrap_or_default();
        for file in fs::read_dir(directory.join("man")).unwrap() {
            let page = fs::read_to_string(file.unwrap().path()).unwrap();
            assert!(user.len() < 3 || !page.contains(&format!("USER={user}")), "{page}");
        }
        fs::remove_dir_all(&directory).unwrap();
    }
}
