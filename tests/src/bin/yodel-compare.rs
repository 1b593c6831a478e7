//! `yodel-compare SENT RECEIVED`: was it heard? Prints one JSON line; exit 1 unless 90 % was (`--least SHARE` sets
//! another bound).

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Compares a recording with what was said, by content.
#[derive(Parser)]
struct Arguments {
    /// The WAV that one side said.
    sent: PathBuf,
    /// The WAV that the other side recorded.
    received: PathBuf,
    /// The share of frames inside sound that must have been heard.
    #[arg(long, default_value_t = 0.9)]
    least: f64,
}

fn main() -> ExitCode {
    let Arguments { sent, received, least } = Arguments::parse();
    let comparison = match yodel_tests::audio_compare::compare_files(&sent, &received) {
        Ok(comparison) => comparison,
        Err(error) => {
            eprintln!("yodel-compare: {error}");
            return ExitCode::from(2);
        }
    };
    let mut line = serde_json::json!({ "v": 1 });
    if let (Some(line), Ok(serde_json::Value::Object(fields))) =
        (line.as_object_mut(), serde_json::to_value(&comparison))
    {
        line.extend(fields);
    }
    println!("{line}");
    if comparison.share >= least { ExitCode::SUCCESS } else { ExitCode::from(1) }
}
