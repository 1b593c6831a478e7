//! What a command prints and how it ends: data on stdout, everything else on stderr.

use std::fmt;
use std::io::{self, ErrorKind, Write};

use serde_json::{Value, json};

use crate::exit::Exit;

/// Why a command ended otherwise than done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    text: String,
}

impl Failure {
    /// It ends with this code, and this is why.
    pub fn new(exit: Exit, text: impl fmt::Display) -> Failure {
        Failure { exit, text: text.to_string() }
    }

    /// Wrong usage.
    pub fn usage(text: impl fmt::Display) -> Failure {
        Failure::new(Exit::Usage, text)
    }

    /// It failed for a reason without a number of its own.
    pub fn failed(text: impl fmt::Display) -> Failure {
        Failure::new(Exit::Failed, text)
    }

    /// The operating system said no.
    pub fn system(error: io::Error) -> Failure {
        Failure::failed(error)
    }

    /// Nobody serves this folder.
    pub fn not_running() -> Failure {
        Failure::new(Exit::NotRunning, "the server is not running")
    }

    /// Asking the server that runs here failed.
    pub fn asking(error: &io::Error) -> Failure {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                Failure::new(Exit::NoAnswer, "the server does not answer")
            }
            ErrorKind::UnexpectedEof => Failure::failed("the server closed the connection"),
            _ => Failure::failed(format!("admin socket: {error}")),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// How to print.
#[derive(Clone, Copy, Debug, Default)]
pub struct Console {
    /// Data as JSON, one object a line.
    pub json: bool,
    /// Nothing but data and errors.
    pub quiet: bool,
}

impl Console {
    /// Prints an object: as JSON, or as lines of `name: value`, an array of objects as a table.
    ///
    /// # Errors
    /// Stdout cannot be written.
    pub fn value(self, value: &Value) -> Result<Exit, Failure> {
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
    ///
    /// # Errors
    /// Stdout cannot be written.
    pub fn text(self, text: &str) -> Result<Exit, Failure> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            // Who reads has enough: `… | head`.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::system(error)),
            _ => Ok(Exit::Done),
        }
    }

    /// Prints a text that is the data itself, such as a script or an example: with `json` as an object's field.
    ///
    /// # Errors
    /// Stdout cannot be written.
    pub fn document(self, field: &str, text: &str) -> Result<Exit, Failure> {
        if self.json { self.text(&format!("{}\n", json!({"v": 1, field: text}))) } else { self.text(text) }
    }

    /// Says on stderr, in one line or as one object, why the command did not succeed.
    pub fn complain(self, program: &str, exit: Exit, text: &str) {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let line = if self.json {
            json!({"v": 1, "error": text, "exit": exit.code(), "cause": null}).to_string()
        } else {
            format!("{program}: {text}")
        };
        // Who closed stderr does not want to know.
        let _closed = writeln!(io::stderr(), "{line}");
    }

    /// Tells a person something; scripts are not told.
    pub fn note(self, text: impl fmt::Display) {
        if !self.quiet {
            eprintln!("{text}");
        }
    }
}

/// What `--color` says, which the argument parser must know before it reads the arguments: `always`, `never` or
/// `auto`.
pub fn color_wanted(args: impl Iterator<Item = String>) -> &'static str {
    let mut args = args.skip_while(|arg| arg != "--color" && !arg.starts_with("--color="));
    let Some(first) = args.next() else { return "auto" };
    let value = first.strip_prefix("--color=").map(str::to_owned).or_else(|| args.next());
    match value.as_deref() {
        Some("always") => "always",
        Some("never") => "never",
        Some(_) | None => "auto",
    }
}

/// Commands that are named already and come with a later version: why this one does not work.
pub fn later(command: &str, commands: &[&str]) -> Option<Failure> {
    commands.contains(&command).then(|| Failure::usage(format!("`{command}` comes with a later version")))
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".into(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(" "),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| format!("{name}={}", plain(value)))
            .collect::<Vec<_>>()
            .join(" "),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

fn table(text: &mut String, name: &str, rows: &[Value]) {
    let mut columns: Vec<&String> = Vec::new();
    for column in rows.iter().filter_map(Value::as_object).flat_map(|row| row.keys()) {
        if !columns.contains(&column) {
            columns.push(column);
        }
    }
    // Who or what a row is about stands first, how it stands next, remarks last.
    columns.sort_by_key(|column| match column.as_str() {
        "name" | "user" => 0,
        "node" | "key" => 1,
        "role" | "state" => 2,
        "detail" => 4,
        _ => 3,
    });
    if rows.is_empty() {
        text.push_str(&format!("{name}: none\n"));
        return;
    }
    let cell = |row: &Value, column: &String| row.get(column).map_or_else(|| "-".into(), plain);
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn arrays_of_objects_are_tables() {
        let mut text = String::new();
        let rows = [json!({"name": "alice", "devices": 2}), json!({"name": "bo", "devices": null})];
        table(&mut text, "users", &rows);
        assert_eq!(text, "NAME   DEVICES\nalice  2\nbo     -\n");
        text.clear();
        table(&mut text, "users", &[]);
        assert_eq!(text, "users: none\n");
        assert_eq!(plain(&json!({"a": [1, "x"], "b": true})), "a=1 x b=true");
    }

    #[test]
    fn colour_is_found_wherever_it_stands() {
        let wanted = |line: &str| color_wanted(line.split(' ').map(str::to_owned));
        assert_eq!(wanted("x run --color never"), "never");
        assert_eq!(wanted("x --color=always run"), "always");
        assert_eq!(
            (wanted("x run"), wanted("x --color"), wanted("x --color=maybe")),
            ("auto", "auto", "auto")
        );
    }
}
