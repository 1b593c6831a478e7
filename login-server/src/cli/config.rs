//! The configuration file: TOML, every key optional.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};
use yodel_net::console::Failure;
use yodel_net::settings::unknown_key;

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
    /// Reads the file, when there is one, then the environment (`YODEL_LISTEN`, …); the second value holds a warning
    /// for each key that means nothing.
    pub(crate) fn load(path: &Path) -> Result<(Config, Vec<String>), Failure> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(Failure::failed(format!("{}: {error}", path.display()))),
        };
        let (mut config, warnings) =
            Config::parse(&text).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
        for key in KEYS {
            let variable = format!("YODEL_{}", key.to_uppercase());
            if let Ok(value) = std::env::var(&variable) {
                config
                    .set(key, Some(&value))
                    .map_err(|error| Failure::usage(format!("{variable}: {error}")))?;
            }
        }
        Ok((config, warnings))
    }

    fn parse(text: &str) -> Result<(Config, Vec<String>), String> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| error.message().to_owned())?;
        let mut config = Config::default();
        let mut warnings = Vec::new();
        for (key, value) in &table {
            if !config.set(key, value.as_str())? {
                warnings.push(unknown_key(key, &KEYS));
            }
        }
        Ok((config, warnings))
    }

    /// `false` when there is no such key.
    fn set(&mut self, key: &str, value: Option<&str>) -> Result<bool, String> {
        match (key, value) {
            ("listen", Some(value)) => {
                let listen = value.parse().map_err(|_| format!("listen: {value:?} is no IP:PORT"))?;
                self.listen = Some(listen);
            }
            ("log_format", Some("json")) => self.log_json = true,
            ("log_format", Some("text")) => self.log_json = false,
            ("log_format", _) => return Err("log_format: \"text\" or \"json\"".into()),
            ("listen", None) => return Err("listen: a text, IP:PORT".into()),
            _ => return Ok(false),
        }
        Ok(true)
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
