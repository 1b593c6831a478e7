//! Times as people write them: a number with unit (`500ms`, `1.5s`, `2m`, `48h`, `7d`), without one seconds.

use std::time::Duration;

/// The longest time accepted: a year.
const SPAN_MAX: Duration = Duration::from_secs(366 * 24 * 3_600);

/// Reads a time.
///
/// # Errors
/// What is wrong with it, for people.
pub fn parse(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit.trim() {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        other => return Err(format!("unknown unit {other:?}; use ms, s, m, h or d")),
    };
    let number: f64 = number.parse().map_err(|_| "wants a number with a unit, such as 1.5s".to_owned())?;
    let span = Duration::try_from_secs_f64(number * scale).map_err(|_| "is out of range".to_owned())?;
    if span > SPAN_MAX { Err("is longer than a year".to_owned()) } else { Ok(span) }
}

/// Whole milliseconds, as JSON carries times.
pub fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_unit() {
        for (text, ms) in
            [("500ms", 500), ("1.5s", 1_500), ("2m", 120_000), ("48h", 172_800_000), ("3", 3_000), ("0", 0)]
        {
            assert_eq!(parse(text).map(millis), Ok(ms), "{text}");
        }
        for text in ["", "s", "-1s", "1y", "1.2.3", "ms", "1e9h", "99999d"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
