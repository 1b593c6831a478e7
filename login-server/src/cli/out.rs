//! Data on stdout, everything else on stderr.

use std::fmt;
use std::io::Write;

use serde_json::Value;
use yodel_login_server::admin::AdminError;
use yodel_net::Exit;

/// Why a command ended otherwise than done.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    text: String,
}

impl Failure {
    pub(crate) fn usage(text: impl fmt::Display) -> Failure {
        Failure { exit: Exit::Usage, text: text.to_string() }
    }

    pub(crate) fn failed(text: impl fmt::Display) -> Failure {
        Failure { exit: Exit::Failed, text: text.to_string() }
    }

    pub(crate) fn system(error: std::io::Error) -> Failure {
        Failure::failed(error)
    }

    pub(crate) fn not_running() -> Failure {
        Failure { exit: Exit::NotRunning, text: "the server is not running".into() }
    }

    pub(crate) fn timed_out() -> Failure {
        Failure { exit: Exit::NoAnswer, text: "the server does not answer".into() }
    }

    pub(crate) fn admin(error: AdminError) -> Failure {
        let exit = Exit::ALL.iter().map(|(exit, _)| *exit).find(|exit| exit.code() == error.exit);
        Failure { exit: exit.unwrap_or(Exit::Failed), text: error.error }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// How to print.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Out {
    pub(crate) json: bool,
    pub(crate) quiet: bool,
}

impl Out {
    /// Prints an object: as JSON, or as lines of `name: value`; an array of objects as a table.
    pub(crate) fn value(self, value: &Value) -> Result<Exit, Failure> {
        if self.json {
            return self.text(&format!("{value}\n"));
        }
        let mut text = String::new();
        for (name, value) in value.as_object().into_iter().flatten().filter(|(name, _)| *name != "v") {
            match value {
                Value::Array(rows) if rows.iter().all(Value::is_object) => table(&mut text, name, rows),
                other => text.push_str(&format!("{name}: {}\n", plain(other))),
            }
        }
        self.text(&text)
    }

    /// Prints text as it is.
    pub(crate) fn text(self, text: &str) -> Result<Exit, Failure> {
        let mut stdout = std::io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Ok(()) => Ok(Exit::Done),
            // Who reads has enough: `… | head`.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(Exit::Done),
            Err(error) => Err(Failure::system(error)),
        }
    }

    /// Tells a person something; scripts are not told.
    pub(crate) fn note(self, text: &str) {
        if !self.quiet {
            eprintln!("{text}");
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".into(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(" "),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}

fn table(text: &mut String, name: &str, rows: &[Value]) {
    let mut columns: Vec<&String> = Vec::new();
    for column in rows.iter().filter_map(Value::as_object).flat_map(|row| row.keys()) {
        if !columns.contains(&column) {
            columns.push(column);
        }
    }
    if rows.is_empty() {
        text.push_str(&format!("{name}: none\n"));
        return;
    }
    let cell = |row: &Value, column: &String| row.get(column).map(plain).unwrap_or_else(|| "-".into());
    let widths: Vec<usize> = columns
        .iter()
        .map(|column| {
            let widest = rows.iter().map(|row| cell(row, column).chars().count()).max().unwrap_or(0);
            widest.max(column.chars().count())
        })
        .collect();
    let mut line = |cells: Vec<String>| {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    };
    line(columns.iter().map(|column| column.to_uppercase()).collect());
    for row in rows {
        line(columns.iter().map(|column| cell(row, column)).collect());
    }
}
