//! `call`, `answer` and `events`: commands that stay and print what happens.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;
use yodel::audio::Spec;
use yodel::command::Failure;
use yodel::span::millis;
use yodel_net::{Exit, Signal, Signals};

use super::args::{Answer, Call};
use super::talk::{Talk, exit_of};
use super::{Context, failed, print, say, show};

/// How long an interrupted call may take to end in order.
const HANGUP_WITHIN: Duration = Duration::from_secs(3);

/// How long an answer may take to reach the caller before `answer` says that it did not.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

pub(crate) async fn call(context: &Context, args: Call) -> Result<Exit, Failure> {
    let mut signals = Signals::new().map_err(failed)?;
    let user = args.user;
    let open = Talk::open(context).await;
    let mut talk = open.inspect_err(|failure| not_placed(context, &user, failure))?;
    if args.dry_run {
        let params = json!({ "user": user, "dry_run": true });
        let reach = talk.ask("call", params, context.rules.timeout).await;
        let reach = reach.inspect_err(|failure| not_placed(context, &user, failure))?;
        context.print(&reach, show::reach)?;
        return Ok(Exit::Done);
    }
    let here = std::env::current_dir().map_err(failed)?;
    let record = args.record.map(|file| here.join(file).display().to_string());
    let params = json!({
        "user": user,
        "audio": audio(args.audio)?,
        "max": args.max.map(|max| format!("{}ms", millis(max))),
        "relay_only": args.relay_only,
        "record": record,
        "ring_timeout": context.rules.timeout.map(|within| format!("{}ms", millis(within))),
    });
    let result = tokio::select! {
        result = talk.ask("call", params, None) => result.inspect_err(|failure| not_placed(context, &user, failure))?,
        _signal = interrupted(&mut signals) => return Ok(Exit::Interrupted),
    };
    let call = result.get("call").and_then(Value::as_str).unwrap_or_default().to_owned();
    let ended = tokio::select! {
        ended = follow(context, &mut talk, &call) => Some(ended?),
        _signal = interrupted(&mut signals) => None,
    };
    match ended {
        Some(end) => Ok(exit_of(end.get("exit").and_then(Value::as_u64).unwrap_or(1))),
        None => {
            // A second interrupt, or a daemon that does not answer, ends it here; the daemon then hangs up by itself.
            let hangup = async {
                talk.ask("hangup", json!({"call": call}), Some(HANGUP_WITHIN)).await?;
                follow(context, &mut talk, &call).await
            };
            tokio::select! {
                _ended = timeout(HANGUP_WITHIN, hangup) => {}
                _signal = interrupted(&mut signals) => {}
            }
            Ok(Exit::Interrupted)
        }
    }
}

/// A call that never was one ends in its cause too: whoever reads the stream finds it where it always is.
fn not_placed(context: &Context, user: &str, failure: &Failure) {
    let Some(cause) = failure.cause.filter(|_| context.rules.json) else { return };
    let ended = json!({
        "v": 1, "kind": "call", "call": null, "dir": "out", "peer": user, "device": null, "state": "ended", "t_ms": 0,
        "cause": cause.code(), "detail": failure.message, "next_step": cause.next_step(),
        "exit": failure.exit.code(), "duration_ms": 0, "answered": false, "verified": false, "encrypted_to": "peer",
    });
    // The failure itself is told on stderr in any case.
    let _closed = print(&format!("{ended}\n"));
}

/// Prints a call's events until it ended; returns the last.
async fn follow(context: &Context, talk: &mut Talk, call: &str) -> Result<Value, Failure> {
    loop {
        let event = talk.event().await?;
        if event.get("call").and_then(Value::as_str) != Some(call) {
            continue;
        }
        show_event(context, &event)?;
        if state(&event) == "ended" {
            return Ok(event);
        }
    }
}

pub(crate) async fn answer(context: &Context, args: Answer) -> Result<Exit, Failure> {
    let mut signals = Signals::new().map_err(failed)?;
    let mut talk = Talk::open(context).await?;
    let audio = audio(args.audio)?;
    if args.auto {
        let params = json!({"auto": true, "from": args.from, "audio": audio});
        let ready = talk.ask("answer", params, context.rules.timeout).await?;
        print(&format!("{ready}\n"))?;
        return tokio::select! {
            ended = print_events(context, &mut talk) => ended,
            signal = interrupted(&mut signals) => Ok(match signal {
                Signal::Terminate => Exit::Done,
                Signal::Interrupt | Signal::Reload => Exit::Interrupted,
            }),
        };
    }
    let params = json!({"call": args.call, "audio": audio});
    let result = talk.ask("answer", params, context.rules.timeout).await?;
    let call = result.get("call").and_then(Value::as_str).unwrap_or_default().to_owned();
    let taken = async {
        loop {
            let event = talk.event().await?;
            if event.get("call").and_then(Value::as_str) == Some(call.as_str())
                && matches!(state(&event), "answered" | "ended")
            {
                return Ok(event);
            }
        }
    };
    let event = tokio::select! {
        event = timeout(context.rules.timeout.unwrap_or(ANSWER_WITHIN), taken) => match event {
            Ok(event) => event?,
            Err(_) => return Err(Failure::new(Exit::NoAnswer, "the caller did not confirm the answer")),
        },
        _signal = interrupted(&mut signals) => return Ok(Exit::Interrupted),
    };
    show_event(context, &event)?;
    match state(&event) {
        "ended" => Ok(exit_of(event.get("exit").and_then(Value::as_u64).unwrap_or(1))),
        _ => Ok(Exit::Done),
    }
}

pub(crate) async fn events(context: &Context, only: Vec<String>) -> Result<Exit, Failure> {
    let mut signals = Signals::new().map_err(failed)?;
    let mut talk = Talk::open(context).await?;
    let only = if only.is_empty() { Value::Null } else { json!(only) };
    talk.ask("events", json!({"only": only}), context.rules.timeout).await?;
    tokio::select! {
        ended = print_events(context, &mut talk) => ended,
        signal = interrupted(&mut signals) => Ok(match signal {
            Signal::Terminate => Exit::Done,
            Signal::Interrupt | Signal::Reload => Exit::Interrupted,
        }),
    }
}

async fn print_events(context: &Context, talk: &mut Talk) -> Result<Exit, Failure> {
    loop {
        let event = talk.event().await?;
        show_event(context, &event)?;
    }
}

fn show_event(context: &Context, event: &Value) -> Result<(), Failure> {
    if !context.rules.json && state(event) == "stats" && !context.rules.quiet && context.rules.verbose == 0 {
        return Ok(());
    }
    context.print(event, show::event)?;
    if !context.rules.json && state(event) == "ended" && !context.rules.quiet {
        let next = event.get("next_step").and_then(Value::as_str).unwrap_or_default();
        if event.get("exit").and_then(Value::as_u64) != Some(0) {
            say(&format!("next: {next}"));
        }
    }
    Ok(())
}

fn state(event: &Value) -> &str {
    event.get("state").and_then(Value::as_str).unwrap_or_default()
}

/// SIGTERM or SIGINT.
async fn interrupted(signals: &mut Signals) -> Signal {
    loop {
        match signals.next().await {
            Signal::Reload => {}
            signal @ (Signal::Terminate | Signal::Interrupt) => return signal,
        }
    }
}

/// Relative paths are the caller's, and the daemon is elsewhere.
fn audio(spec: Option<Spec>) -> Result<Option<String>, Failure> {
    let Some(spec) = spec else { return Ok(None) };
    let here = std::env::current_dir().map_err(failed)?;
    Ok(Some(spec.below(&here).to_string()))
}
