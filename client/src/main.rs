//! `yodel`: reads arguments and hands them to one command.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main().into()
}
