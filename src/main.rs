//! The program `xc2-edge`: questions about pictures, on the CPU.

mod cli;

use std::{io::Write, process::ExitCode};

fn main() -> ExitCode {
    xc2_edge::language::llama::return_freed_memory();
    let args = cli::parse();
    cli::init_log(args.verbose);
    cli::lower_priority(args.nice); // before other threads start: they inherit it
    match cli::run(&args.command) {
        Ok(code) => code,
        Err(error) if cli::is_broken_pipe(&error) => ExitCode::SUCCESS, // as in `xc2-edge … | head`
        Err(error) => {
            let hint = cli::hint(&error).map(|hint| format!("\n\nhint: {hint}"));
            // If stderr is closed as well, there is nowhere to report it.
            let _ = writeln!(
                std::io::stderr(),
                "error: {error:#}{}",
                hint.unwrap_or_default()
            );
            ExitCode::FAILURE
        }
    }
}
