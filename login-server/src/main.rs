//! `yodel-login-server`: arguments, files and signals around [`yodel_login_server::LoginServer`].
#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main().into()
}
