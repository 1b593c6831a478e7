//! Header fields (RFC 3261 §7.3): kept in order and exactly as written, found by name.
//!
//! A field that came from the wire is written back byte for byte: capitals, compact name, spaces around the colon and
//! folding included. Only meaning is decided here: `v` and `VIA` are `Via`, a fold is one space.

use std::borrow::Cow;

use crate::method::is_token;

/// One header field.
#[derive(Clone, PartialEq, Eq)]
pub struct Header {
    /// The field without its final CRLF.
    line: Vec<u8>,
    name_length: usize,
    value_start: usize,
}

/// Only the name: values hold people's names and keys, which do not belong in logs.
impl std::fmt::Debug for Header {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} bytes", self.name(), self.raw_value().len())
    }
}

impl Header {
    /// A field of our own. Control characters in `value` (line ends above all) become spaces, so that no value can
    /// add a field; a name that is no token becomes `X-Invalid`.
    pub fn new(name: &str, value: &str) -> Header {
        let name = if is_token(name) { name } else { "X-Invalid" };
        let mut line = Vec::with_capacity(name.len() + 2 + value.len());
        line.extend_from_slice(name.as_bytes());
        line.extend_from_slice(b": ");
        line.extend(value.trim().bytes().map(|b| if b.is_ascii_control() { b' ' } else { b }));
        Header { value_start: name.len() + 2, name_length: name.len(), line }
    }

    /// A field as it came; `None` when there is no name in front of a colon.
    pub(crate) fn from_line(line: Vec<u8>) -> Option<Header> {
        let colon = line.iter().position(|b| *b == b':')?;
        let name = line.get(..colon)?.trim_ascii_end();
        let name_length = name.len();
        if !std::str::from_utf8(name).is_ok_and(is_token) {
            return None;
        }
        let after = line.get(colon + 1..)?;
        let value_start = line.len() - after.trim_ascii_start().len();
        Some(Header { line, name_length, value_start })
    }

    /// The name as written.
    pub fn name(&self) -> &str {
        self.line.get(..self.name_length).and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default()
    }

    /// Whether this is the field called `name` (long form), in whatever capitals or compact form it was written.
    pub fn is(&self, name: &str) -> bool {
        same_name(self.name(), name)
    }

    /// The value as written, folding included.
    pub fn raw_value(&self) -> &[u8] {
        self.line.get(self.value_start..).unwrap_or_default()
    }

    /// The value: folds become one space, surrounding blanks go (RFC 3261 §7.3.1).
    pub fn value(&self) -> Cow<'_, [u8]> {
        let raw = self.raw_value().trim_ascii();
        if !raw.contains(&b'\n') {
            return Cow::Borrowed(raw);
        }
        let mut out: Vec<u8> = Vec::with_capacity(raw.len());
        let mut folding = false;
        for &byte in raw {
            match byte {
                b'\r' | b'\n' => {
                    if !folding {
                        out.truncate(out.trim_ascii_end().len());
                        out.push(b' ');
                    }
                    folding = true;
                }
                b' ' | b'\t' if folding => {}
                _ => {
                    folding = false;
                    out.push(byte);
                }
            }
        }
        Cow::Owned(out)
    }

    /// The value as text; `None` when it is not UTF-8.
    pub fn text(&self) -> Option<Cow<'_, str>> {
        match self.value() {
            Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
            Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.line);
        out.extend_from_slice(b"\r\n");
    }
}

/// All fields of a message, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<Header>);

impl Headers {
    /// None yet.
    pub fn new() -> Headers {
        Headers::default()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Header> {
        self.0.iter()
    }

    /// Those called `name`, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Header> {
        self.0.iter().filter(move |header| header.is(name))
    }

    /// The first called `name`.
    pub fn first(&self, name: &str) -> Option<&Header> {
        self.0.iter().find(|header| header.is(name))
    }

    /// The value of the first called `name`, as text; `None` when absent or not UTF-8.
    pub fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        self.first(name)?.text()
    }

    /// How many are called `name`.
    pub fn count(&self, name: &str) -> usize {
        self.all(name).count()
    }

    /// Adds a field at the end.
    pub fn push(&mut self, header: Header) {
        self.0.push(header);
    }

    /// Adds a field of our own at the end; see [`Header::new`].
    pub fn add(&mut self, name: &str, value: &str) {
        self.push(Header::new(name, value));
    }

    /// Puts a field of our own in the place of the first called `name`, or at the end; further ones go.
    pub fn set(&mut self, name: &str, value: &str) {
        let place = self.0.iter().position(|header| header.is(name)).unwrap_or(self.0.len());
        self.remove(name);
        self.0.insert(place.min(self.0.len()), Header::new(name, value));
    }

    /// Removes all called `name`.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|header| !header.is(name));
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        for header in &self.0 {
            header.write(out);
        }
    }
}

/// Compact forms (RFC 3261 §20, RFC 3515, 3841, 3892, 4028, 4474, 6665).
const COMPACT: [(u8, &str); 18] = [
    (b'a', "Accept-Contact"),
    (b'b', "Referred-By"),
    (b'c', "Content-Type"),
    (b'd', "Request-Disposition"),
    (b'e', "Content-Encoding"),
    (b'f', "From"),
    (b'i', "Call-ID"),
    (b'j', "Reject-Contact"),
    (b'k', "Supported"),
    (b'l', "Content-Length"),
    (b'm', "Contact"),
    (b'o', "Event"),
    (b'r', "Refer-To"),
    (b's', "Subject"),
    (b't', "To"),
    (b'u', "Allow-Events"),
    (b'v', "Via"),
    (b'x', "Session-Expires"),
];

fn same_name(written: &str, name: &str) -> bool {
    long_form(written).eq_ignore_ascii_case(long_form(name))
}

fn long_form(name: &str) -> &str {
    match name.as_bytes() {
        [letter] => COMPACT
            .iter()
            .find(|(compact, _)| *compact == letter.to_ascii_lowercase())
            .map_or(name, |(_, long)| long),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(line: &str) -> Header {
        Header::from_line(line.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn names_match_in_any_capitals_and_in_compact_form() {
        assert!(header("v: x").is("Via"));
        assert!(header("V : x").is("via"));
        assert!(header("MaX-fOrWaRdS: 70").is("Max-Forwards"));
        assert!(!header("vi: x").is("Via"));
        assert!(!header("q: x").is("Via"));
    }

    #[test]
    fn folds_are_one_space_and_the_line_stays_as_it_came() {
        let folded = header("Subject   :\r\n  first \r\n\t second");
        assert_eq!(folded.name(), "Subject");
        assert_eq!(folded.text().unwrap(), "first second");
        let mut out = Vec::new();
        folded.write(&mut out);
        assert_eq!(out, b"Subject   :\r\n  first \r\n\t second\r\n");
    }

    #[test]
    fn values_of_our_own_cannot_add_a_field() {
        let mut out = Vec::new();
        Header::new("Subject", "a\r\nVia: b\0c").write(&mut out);
        assert_eq!(out, b"Subject: a  Via: b c\r\n");
        assert_eq!(Header::new("Sub ject", "x").name(), "X-Invalid");
    }

    #[test]
    fn set_keeps_the_place() {
        let mut headers = Headers::new();
        for (name, value) in [("Via", "1"), ("To", "2"), ("Via", "3"), ("From", "4")] {
            headers.add(name, value);
        }
        headers.set("via", "5");
        let names: Vec<&str> = headers.iter().map(Header::name).collect();
        assert_eq!(names, ["via", "To", "From"]);
        assert_eq!(headers.text("Via").unwrap(), "5");
    }
}
