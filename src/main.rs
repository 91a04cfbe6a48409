//! `xc2-edge`: look at pictures and answer, on the CPU.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let args = cli::Args::parse();
    cli::init_log(args.verbose);
    match cli::run(&args.command) {
        Ok(code) => code,
        Err(error) if cli::is_broken_pipe(&error) => ExitCode::SUCCESS, // the reader has enough
        Err(error) => {
            eprintln!("error: {error:#}");
            if let Some(hint) = cli::hint(&error) {
                eprintln!("\nhint: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}
