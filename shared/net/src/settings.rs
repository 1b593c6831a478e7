//! What all three configuration files have in common: an unknown key is a warning that names the likely one.

/// The warning for a key that means nothing.
pub fn unknown_key(key: &str, known: &[&str]) -> String {
    match likely(key, known) {
        Some(likely) => format!("unknown key {key:?}; did you mean {likely:?}?"),
        None => format!("unknown key {key:?}"),
    }
}

/// The known key that was most likely meant: a third of its letters and one are wrong at most, or its end is missing.
fn likely<'a>(key: &str, known: &[&'a str]) -> Option<&'a str> {
    let wrong = |known: &str| if known.starts_with(key) { 1 } else { distance(key, known) };
    let (wrong, likely) = known.iter().map(|known| (wrong(known), *known)).min()?;
    (wrong <= 1 + key.chars().count() / 3).then_some(likely)
}

/// How many letters must change (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (y, above) in b.iter().zip(row.iter().skip(1)) {
            left = (left + 1).min(above + 1).min(diagonal + usize::from(x != *y));
            diagonal = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_named_and_nonsense_is_not() {
        let known = ["listen", "clients_max"];
        assert_eq!(unknown_key("lisen", &known), "unknown key \"lisen\"; did you mean \"listen\"?");
        assert_eq!((likely("clients", &known), likely("max", &known)), (Some("clients_max"), None));
        assert_eq!(likely("client_max", &known), Some("clients_max"));
        assert_eq!(unknown_key("zzz", &known), "unknown key \"zzz\"");
        assert_eq!(unknown_key("zzz", &[]), "unknown key \"zzz\"");
        assert_eq!((distance("", "abc"), distance("kitten", "sitting")), (3, 3));
    }
}
