//! The phone's configuration: TOML, every key optional. Flags stand over the environment, that over the file.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use yodel_net::Exit;
use yodel_net::settings::unknown_key;

use crate::audio::Spec;
use crate::command::Failure;
use crate::span;

/// All settings, with their defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Audio of calls that name none: `audio = "default"`.
    pub audio: Spec,
    /// Whether commands start the daemon: `autostart = true`.
    pub autostart: bool,
    /// Where the one UDP socket is bound: `listen = "[::]:0"`.
    pub listen: SocketAddr,
    /// Loopback addresses may carry media, for a realm on one machine: `allow_loopback = false`. A realm whose login
    /// server is on loopback allows it by itself.
    pub allow_loopback: bool,
    /// Give up an unanswered call after this: `ring_timeout = "60s"`.
    pub ring_timeout: Option<Duration>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            audio: Spec::Default,
            autostart: true,
            listen: SocketAddr::from(([0u16; 8], 0)),
            allow_loopback: false,
            ring_timeout: None,
        }
    }
}

/// What `config example` prints.
pub const EXAMPLE: &str = r#"# Yodel's softphone. Every key is optional; these are the defaults.

# Audio of calls that name none: default, device:ID, file:IN.wav,OUT.wav, tone:440 or null.
audio = "default"

# Whether commands start the daemon when it is not running.
autostart = true

# Where the one UDP socket is bound; port 0 means any.
listen = "[::]:0"

# Loopback addresses may carry media: only for a realm that lives on one machine.
allow_loopback = false

# Give up an unanswered call after this.
ring_timeout = "60s"
"#;

const KEYS: [&str; 5] = ["audio", "autostart", "listen", "allow_loopback", "ring_timeout"];

impl Config {
    /// Reads the file, then the environment (`YODEL_AUDIO`, …). The second value holds one warning for each key that
    /// means nothing.
    ///
    /// # Errors
    /// The file cannot be read (exit 1), is no TOML, or a value makes no sense (exit 2).
    pub fn load(path: &Path) -> Result<(Config, Vec<String>), Failure> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(Failure::new(Exit::Failed, format!("{}: {error}", path.display()))),
        };
        let (mut config, warnings) = Config::parse(&text)
            .map_err(|error| Failure::new(Exit::Usage, format!("{}: {error}", path.display())))?;
        for key in KEYS {
            let variable = format!("YODEL_{}", key.to_uppercase());
            if let Ok(value) = std::env::var(&variable) {
                config
                    .set(key, &value)
                    .map_err(|error| Failure::new(Exit::Usage, format!("{variable}: {error}")))?;
            }
        }
        Ok((config, warnings))
    }

    fn parse(text: &str) -> Result<(Config, Vec<String>), String> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| error.message().to_owned())?;
        let mut config = Config::default();
        let mut warnings = Vec::new();
        for (key, value) in &table {
            let value = match value {
                toml::Value::String(value) => value.clone(),
                other => other.to_string(),
            };
            if !config.set(key, &value)? {
                warnings.push(unknown_key(key, &KEYS));
            }
        }
        Ok((config, warnings))
    }

    fn set(&mut self, key: &str, value: &str) -> Result<bool, String> {
        let wrong = |error: &dyn std::fmt::Display| format!("{key}: {error}");
        match key {
            "audio" => self.audio = value.parse().map_err(|error| wrong(&error))?,
            "autostart" => self.autostart = value.parse().map_err(|error| wrong(&error))?,
            "listen" => self.listen = value.parse().map_err(|error| wrong(&error))?,
            "allow_loopback" => self.allow_loopback = value.parse().map_err(|error| wrong(&error))?,
            "ring_timeout" => self.ring_timeout = Some(span::parse(value).map_err(|error| wrong(&error))?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The configuration in effect, as a file.
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        let ring = self.ring_timeout.unwrap_or(yodel_call::limits::RING_TIMEOUT);
        // Writing to a String cannot fail.
        let _written = write!(
            out,
            "audio = {:?}\nautostart = {}\nlisten = \"{}\"\nallow_loopback = {}\nring_timeout = \"{}s\"\n",
            self.audio.to_string(),
            self.autostart,
            self.listen,
            self.allow_loopback,
            ring.as_secs_f64(),
        );
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_the_default() {
        let (mut config, warnings) = Config::parse(EXAMPLE).unwrap();
        assert!(warnings.is_empty());
        assert_eq!(config.ring_timeout, Some(yodel_call::limits::RING_TIMEOUT));
        config.ring_timeout = None;
        assert_eq!(config, Config::default());
        assert_eq!(Config::parse(&config.to_toml()).unwrap().0.listen, config.listen);
    }

    #[test]
    fn unknown_keys_warn_and_wrong_values_fail() {
        let (_, warnings) = Config::parse("autostrat = false\nzzz = 1").unwrap();
        assert_eq!(
            warnings,
            ["unknown key \"autostrat\"; did you mean \"autostart\"?", "unknown key \"zzz\""]
        );
        assert!(Config::parse("listen = \"here\"").unwrap_err().starts_with("listen: "));
        assert!(Config::parse("audio = \"loud\"").is_err());
        assert!(Config::parse("= 1").is_err());
    }
}
