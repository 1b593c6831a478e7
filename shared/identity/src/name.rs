//! Names: realms (`example.net`), accounts (`alice`) and addresses of record (`alice@example.net`, RFC 3261 §10).
//! Each has one form; what decodes from the wire must be in it already, what a person types is mapped to it.

use std::fmt;
use std::str::FromStr;

use precis_profiles::UsernameCaseMapped;
use precis_profiles::precis_core::profile::Profile;
use sha2::{Digest, Sha256};
use unicode_script::{Script, ScriptExtension, UnicodeScript};

use crate::limits::{ACCOUNT_NAME_BYTES_MAX, ACCOUNT_NAME_INPUT_BYTES_MAX, REALM_NAME_BYTES_MAX};

/// Names that no account may have: `echo` is answered by the caller's own home, `anonymous` is RFC 3323's.
pub const RESERVED: [&str; 2] = ["anonymous", "echo"];

/// Why a text is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there.
    #[error("the name is empty")]
    Empty,
    /// Longer than such a name may be.
    #[error("the name is too long")]
    TooLong,
    /// A character that has no place in such a name, or at that place.
    #[error("the name has a character that is not allowed there")]
    Character,
    /// Letters of several scripts, as look-alikes have.
    #[error("the name mixes scripts")]
    MixedScripts,
    /// Not of the form USER@REALM.
    #[error("not of the form USER@REALM")]
    NotAnAddress,
    /// A correct name, but not in the one form the wire uses.
    #[error("the name is not in its canonical form")]
    NotCanonical,
}

/// The name of a realm: a domain name of ASCII labels (RFC 1123 §2.1; other scripts as A-labels, RFC 5890), lower
/// case, at most [`REALM_NAME_BYTES_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RealmName(String);

impl RealmName {
    /// Reads a realm's name as a person types it.
    ///
    /// # Errors
    /// `Empty`, `TooLong`, `Character`.
    pub fn parse(text: &str) -> Result<RealmName, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > REALM_NAME_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        let name = text.to_ascii_lowercase();
        for label in name.split('.') {
            if label.is_empty() || label.len() > 63 || label.starts_with('-') || label.ends_with('-') {
                return Err(NameError::Character);
            }
            if !label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
                return Err(NameError::Character);
            }
        }
        // An all-numeric last label would make it an IPv4 address (RFC 1123 §2.1).
        if name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit())) {
            return Err(NameError::Character);
        }
        Ok(RealmName(name))
    }

    /// Reads a realm's name from the wire: it must be in its one form.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), and `NotCanonical`.
    pub fn exact(text: &str) -> Result<RealmName, NameError> {
        let name = RealmName::parse(text)?;
        if name.0 == text { Ok(name) } else { Err(NameError::NotCanonical) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of an account: PRECIS UsernameCaseMapped (RFC 8265 §3.3), letters of one script, of ASCII only letters,
/// digits and `.`, `_`, `-` between them; at most [`ACCOUNT_NAME_BYTES_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountName(String);

impl AccountName {
    /// Reads an account's name as a person types it.
    ///
    /// # Errors
    /// `Empty`, `TooLong`, `Character`, `MixedScripts`.
    pub fn parse(text: &str) -> Result<AccountName, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > ACCOUNT_NAME_INPUT_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        let name = if text.is_ascii() { text.to_ascii_lowercase() } else { mapped(text)? };
        if name.len() > ACCOUNT_NAME_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        // Neither a mark that would combine with what stands before the name, nor punctuation that would end it.
        let first = name.chars().next().is_some_and(char::is_alphanumeric);
        let last = name.chars().next_back().is_some_and(|c| !c.is_ascii() || c.is_ascii_alphanumeric());
        if !first || !last {
            return Err(NameError::Character);
        }
        let allowed = |c: char| !c.is_ascii() || c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if !name.chars().all(allowed) || name.contains("..") {
            return Err(NameError::Character);
        }
        if !one_script(&name) {
            return Err(NameError::MixedScripts);
        }
        Ok(AccountName(name))
    }

    /// Reads an account's name from the wire: it must be in its one form.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), and `NotCanonical`.
    pub fn exact(text: &str) -> Result<AccountName, NameError> {
        let name = AccountName::parse(text)?;
        if name.0 == text { Ok(name) } else { Err(NameError::NotCanonical) }
    }

    /// Whether no account may have this name; see [`RESERVED`].
    pub fn is_reserved(&self) -> bool {
        RESERVED.contains(&self.0.as_str())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// PRECIS mapping; a text whose mapping maps further (RFC 8264 §7) is refused.
fn mapped(text: &str) -> Result<String, NameError> {
    let profile = UsernameCaseMapped::new();
    let name = profile.enforce(text).map_err(|_| NameError::Character)?;
    let again = profile.enforce(name.as_ref()).map_err(|_| NameError::Character)?;
    if again == name { Ok(name.into_owned()) } else { Err(NameError::Character) }
}

/// One script for all letters; Han together with the scripts that are written mixed with it counts as one
/// (UTS 39 §5.1, augmented script sets).
fn one_script(name: &str) -> bool {
    const WITH_HAN: [&[Script]; 3] = [
        &[Script::Han, Script::Hiragana, Script::Katakana],
        &[Script::Han, Script::Hangul],
        &[Script::Han, Script::Bopomofo],
    ];
    let fits = |c: char, scripts: &[Script]| scripts.iter().any(|s| c.script_extension().contains_script(*s));
    name.is_ascii()
        || !ScriptExtension::for_str(name).is_empty()
        || WITH_HAN.iter().any(|scripts| name.chars().all(|c| fits(c, scripts)))
}

/// An address of record: whom one calls.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Aor {
    /// The account.
    pub user: AccountName,
    /// The realm it belongs to.
    pub realm: RealmName,
}

impl Aor {
    /// Reads `USER@REALM` as a person types it.
    ///
    /// # Errors
    /// `NotAnAddress`, or what is wrong with either name.
    pub fn parse(text: &str) -> Result<Aor, NameError> {
        let (user, realm) = text.split_once('@').ok_or(NameError::NotAnAddress)?;
        Ok(Aor { user: AccountName::parse(user)?, realm: RealmName::parse(realm)? })
    }

    /// Reads `USER@REALM` from the wire: both names must be in their one form.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), and `NotCanonical`.
    pub fn exact(text: &str) -> Result<Aor, NameError> {
        let (user, realm) = text.split_once('@').ok_or(NameError::NotAnAddress)?;
        Ok(Aor { user: AccountName::exact(user)?, realm: RealmName::exact(realm)? })
    }

    /// Where records of this account are kept: SHA-256 of `yodel/aor/v1`, a zero byte and the address, first 16 bytes.
    pub fn key(&self) -> [u8; 16] {
        let digest = Sha256::new()
            .chain_update(b"yodel/aor/v1\0")
            .chain_update(self.user.as_str())
            .chain_update(b"@")
            .chain_update(self.realm.as_str())
            .finalize();
        crate::node::first_16(&digest.into())
    }

    /// `echo` of a realm: whom a home answers for.
    pub fn echo(realm: RealmName) -> Aor {
        Aor { user: AccountName("echo".to_owned()), realm }
    }

    /// Whether this is the account that every home answers itself.
    pub fn is_echo(&self) -> bool {
        self.user.as_str() == "echo"
    }
}

impl fmt::Display for RealmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Aor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.user, self.realm)
    }
}

impl FromStr for RealmName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<RealmName, NameError> {
        RealmName::parse(text)
    }
}

impl FromStr for AccountName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<AccountName, NameError> {
        AccountName::parse(text)
    }
}

impl FromStr for Aor {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Aor, NameError> {
        Aor::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(text: &str) -> Result<String, NameError> {
        AccountName::parse(text).map(|n| n.0)
    }

    #[test]
    fn account_names_have_one_form() {
        assert_eq!(user("Alice").unwrap(), "alice");
        assert_eq!(user("a.b-c_1").unwrap(), "a.b-c_1");
        assert_eq!(user("ＡＬＩＣＥ").unwrap(), "alice", "full width is mapped");
        assert_eq!(user("JÜRGEN").unwrap(), "jürgen");
        assert_eq!(user("ju\u{308}rgen").unwrap(), "jürgen", "composed");
        assert_eq!(user("Борис").unwrap(), "борис");
        assert_eq!(user("山田たろう").unwrap(), "山田たろう");
        assert_eq!(AccountName::exact("Alice"), Err(NameError::NotCanonical));
        assert_eq!(AccountName::exact("ju\u{308}rgen"), Err(NameError::NotCanonical));
        assert!(AccountName::exact("jürgen").is_ok());
    }

    #[test]
    fn what_is_no_account_name() {
        assert_eq!(user(""), Err(NameError::Empty));
        for bad in [
            "a b",
            "a@b",
            ".a",
            "a.",
            "-a",
            "a..b",
            "a/b",
            "a%b",
            "a:b",
            "<a>",
            "a\0",
            "a\u{202e}b",
            "\u{301}a",
        ] {
            assert_eq!(user(bad), Err(NameError::Character), "{bad:?}");
        }
        assert_eq!(user("pаypal"), Err(NameError::MixedScripts), "the second letter is Cyrillic");
        assert_eq!(user(&"a".repeat(64)).unwrap().len(), 64);
        assert_eq!(user(&"a".repeat(65)), Err(NameError::TooLong));
        assert_eq!(user(&"a".repeat(1_000_000)), Err(NameError::TooLong));
    }

    #[test]
    fn realm_names() {
        let realm = |text: &str| RealmName::parse(text).map(|n| n.0);
        assert_eq!(realm("Example.NET").unwrap(), "example.net");
        assert_eq!(realm("home").unwrap(), "home");
        for bad in ["a..b", ".a", "a.", "-a.b", "a-.b", "a_b.c", "127.0.0.1", "exämple.net", "a b"] {
            assert_eq!(realm(bad), Err(NameError::Character), "{bad:?}");
        }
        assert_eq!(RealmName::exact("Example.net"), Err(NameError::NotCanonical));
        assert_eq!(realm(&"a.".repeat(60)), Err(NameError::TooLong));
    }

    #[test]
    fn golden_key() {
        let aor = Aor::parse("Alice@Example.net").unwrap();
        assert_eq!(aor.to_string(), "alice@example.net");
        assert_eq!(aor.key(), crate::node::parse_hex("cffd0878a4e41fdabe727ad1fae90d65").unwrap());
    }

    #[test]
    fn reserved_names_can_be_called_but_not_owned() {
        assert!(Aor::parse("echo@example.net").unwrap().is_echo());
        assert!(AccountName::parse("ECHO").unwrap().is_reserved());
        assert!(!AccountName::parse("echoes").unwrap().is_reserved());
    }
}
