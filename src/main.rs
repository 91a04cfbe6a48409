//! `xc2-edge`: look at pictures and answer, on the CPU.

mod cli;

use std::{io::Write, process::ExitCode};

fn main() -> ExitCode {
    xc2_edge::language::llama::return_freed_memory();
    let args = cli::parse();
    cli::init_log(args.verbose);
    cli::lower_priority(args.nice); // before there are other threads
    match cli::run(&args.command) {
        Ok(code) => code,
        Err(error) if cli::is_broken_pipe(&error) => ExitCode::SUCCESS, // the reader has enough
        Err(error) => {
            let hint = cli::hint(&error).map(|hint| format!("\n\nhint: {hint}"));
            // Nothing is left to be done if stderr is gone as well.
            let _ = writeln!(
                std::io::stderr(),
                "error: {error:#}{}",
                hint.unwrap_or_default()
            );
            ExitCode::FAILURE
        }
    }
}
