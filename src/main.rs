use std::process::ExitCode;

fn main() -> ExitCode {
    prompt_rollback::cli::main()
}
