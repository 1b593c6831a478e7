//! `sign-in`: needs no daemon and starts none.

use std::io::{BufRead, IsTerminal};

use serde_json::json;
use yodel::command::Failure;
use yodel::sign_in;
use yodel_identity::invitation::Invitation;
use yodel_identity::name::Aor;
use yodel_net::Exit;
use zeroize::Zeroizing;

use super::args::SignIn;
use super::{Context, failed, say};

pub(crate) async fn run(context: &Context, args: SignIn) -> Result<Exit, Failure> {
    let usage = |error: String| Failure::new(Exit::Usage, error);
    let aor = Aor::parse(&args.account).map_err(|error| usage(format!("account: {error}")))?;
    let invitation: Invitation =
        args.invite.trim().parse().map_err(|error| usage(format!("invitation: {error}")))?;
    let password = password(&args)?;
    let data = context.dirs.data();
    let signed_in = sign_in::run(data, aor.clone(), invitation, password, args.replace);
    let signed_in = match context.rules.timeout {
        Some(within) => tokio::time::timeout(within, signed_in)
            .await
            .map_err(|_| Failure::new(Exit::NoAnswer, "the login server does not answer in time"))?,
        None => signed_in.await,
    };
    let signed_in = signed_in.map_err(|error| Failure {
        exit: error.exit(),
        cause: error.cause().and_then(|cause| cause.parse().ok()),
        message: error.to_string(),
    })?;
    let value = json!({
        "v": 1,
        "account": aor.to_string(),
        "device": signed_in.keys.credential.node.to_string(),
        "new_account": signed_in.new_account,
    });
    context.print(&value, |value| {
        let account = value.get("account").and_then(serde_json::Value::as_str).unwrap_or_default();
        format!("signed in as {account}\n")
    })?;
    Ok(Exit::Done)
}

fn password(args: &SignIn) -> Result<Zeroizing<String>, Failure> {
    let stdin = std::io::stdin();
    if !args.password_stdin {
        if !stdin.is_terminal() {
            return Err(Failure::new(Exit::Usage, "use --password-stdin to give the password on stdin"));
        }
        say("Password:");
    }
    let _hidden = if args.password_stdin { None } else { Hidden::new() };
    let mut line = Zeroizing::new(String::new());
    stdin.lock().read_line(&mut line).map_err(failed)?;
    let password = Zeroizing::new(line.trim_end_matches(['\r', '\n']).to_owned());
    if password.is_empty() {
        return Err(Failure::new(Exit::Usage, "the password is empty"));
    }
    Ok(password)
}

/// Keeps the terminal from showing what is typed.
struct Hidden(nix::sys::termios::Termios);

impl Hidden {
    fn new() -> Option<Hidden> {
        use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
        let before = tcgetattr(std::io::stdin()).ok()?;
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(std::io::stdin(), SetArg::TCSANOW, &silent).ok()?;
        Some(Hidden(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        use nix::sys::termios::{SetArg, tcsetattr};
        if tcsetattr(std::io::stdin(), SetArg::TCSANOW, &self.0).is_err() {
            say("the terminal stays silent; `stty echo` brings it back");
        }
    }
}
