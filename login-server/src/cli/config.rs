//! The configuration file: TOML, every key optional.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use super::out::Failure;

/// What `config example` prints.
pub(crate) const EXAMPLE: &str = r#"# Where to listen: IP:PORT or [IPv6]:PORT ([::]:PORT serves IPv4 too).
# Others are told the addresses that `init` put under the root key.
listen = "198.51.100.1:4433"

# Logs on stderr: "text" or "json".
log_format = "text"
"#;

const KEYS: [&str; 2] = ["listen", "log_format"];

/// The settings, with their defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Config {
    /// Where to listen.
    pub(crate) listen: Option<SocketAddr>,
    /// Whether logs are JSON.
    pub(crate) log_json: bool,
}

impl Config {
    /// Reads the file, when there is one; the second value holds a warning for each key that means nothing.
    pub(crate) fn load(path: &Path) -> Result<(Config, Vec<String>), Failure> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Default::default()),
            Err(error) => return Err(Failure::failed(format!("{}: {error}", path.display()))),
        };
        Config::parse(&text).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
    }

    fn parse(text: &str) -> Result<(Config, Vec<String>), String> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| error.message().to_owned())?;
        let mut config = Config::default();
        let mut warnings = Vec::new();
        for (key, value) in &table {
            let value = value.as_str();
            match (key.as_str(), value) {
                ("listen", Some(value)) => {
                    let listen = value.parse().map_err(|_| format!("listen: {value:?} is no IP:PORT"))?;
                    config.listen = Some(listen);
                }
                ("log_format", Some("json")) => config.log_json = true,
                ("log_format", Some("text")) => config.log_json = false,
                ("log_format", _) => return Err("log_format: \"text\" or \"json\"".into()),
                ("listen", None) => return Err("listen: a text, IP:PORT".into()),
                _ => {
                    let likely = KEYS.iter().min_by_key(|known| distance(known, key));
                    warnings.push(match likely {
                        Some(known) => format!("unknown key {key:?}; did you mean {known:?}?"),
                        None => format!("unknown key {key:?}"),
                    });
                }
            }
        }
        Ok((config, warnings))
    }

    /// The file that `init` writes.
    pub(crate) fn file(listen: SocketAddr) -> String {
        format!("# Where to listen.\nlisten = \"{listen}\"\n")
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "v": 1,
            "listen": self.listen.map(|listen| listen.to_string()),
            "log_format": if self.log_json { "json" } else { "text" },
        })
    }
}

/// How many letters differ (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        for (j, y) in b.chars().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX - 1);
            let replaced = at(&row, j) + usize::from(x != y);
            next.push(replaced.min(at(&row, j + 1) + 1).min(at(&next, j) + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_read_and_slips_are_named() {
        let (config, warnings) = Config::parse(EXAMPLE).unwrap();
        assert_eq!(config.listen, Some("198.51.100.1:4433".parse().unwrap()));
        assert_eq!(warnings, Vec::<String>::new());
        let (_, warnings) = Config::parse("lsiten = \"x\"").unwrap();
        assert_eq!(warnings, ["unknown key \"lsiten\"; did you mean \"listen\"?"]);
        assert!(Config::parse("listen = 5").is_err());
        assert!(Config::parse("listen = ").is_err());
    }
}
