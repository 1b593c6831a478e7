//! Invitations: what opens an account, or lets a supernode in. One text token that carries the realm's pin, so that
//! trust starts with whoever handed it over.
//!
//! `yodel1` and base64url (RFC 4648 §5, without padding) of a CBOR map and the first 4 bytes of its SHA-256. Keys:
//! 1 realm, 2 addresses of the login server, 3 pin, 4 secret, 5 account, 6 role.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};
use yodel_wire::codec::{DecodeError, MapReader, MapWriter, item_bytes};

use crate::account::realm_name;
use crate::keys::PublicKey;
use crate::limits::{ACCOUNT_NAME_BYTES_MAX, INVITATION_SERVERS_MAX, INVITATION_TEXT_BYTES_MAX};
use crate::name::{AccountName, RealmName};
use crate::statement::host_port;

const PREFIX: &str = "yodel1";

/// An invitation. Whoever has it may use it.
#[derive(Clone, PartialEq, Eq)]
pub struct Invitation {
    /// The realm it lets into.
    pub realm: RealmName,
    /// Where the login server answers, `host:port` each, at most [`INVITATION_SERVERS_MAX`].
    pub servers: Vec<String>,
    /// The realm's root key.
    pub pin: PublicKey,
    /// What the login server knows it by.
    pub secret: [u8; 16],
    /// The account it is for; none leaves the choice to whoever uses it.
    pub user: Option<AccountName>,
    /// What it lets in.
    pub role: InvitationRole,
}

/// What an invitation lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InvitationRole {
    /// A person's device.
    User = 1,
    /// A supernode.
    Supernode = 2,
    /// A gateway.
    Gateway = 3,
}

impl InvitationRole {
    /// As the command line writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            InvitationRole::User => "user",
            InvitationRole::Supernode => "supernode",
            InvitationRole::Gateway => "gateway",
        }
    }

    /// The role of this number.
    pub fn from_u64(value: u64) -> Option<InvitationRole> {
        match value {
            1 => Some(InvitationRole::User),
            2 => Some(InvitationRole::Supernode),
            3 => Some(InvitationRole::Gateway),
            _ => None,
        }
    }
}

/// Why a text is no invitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvitationError {
    /// It does not begin like one, or has characters that none has.
    #[error("this is no invitation code")]
    NotOne,
    /// It was cut or mistyped.
    #[error("the invitation code is incomplete or mistyped")]
    Checksum,
    /// It is whole, but this program does not understand it.
    #[error("the invitation code is not understood: {0}")]
    Content(#[from] DecodeError),
}

impl Invitation {
    fn encode(&self) -> Vec<u8> {
        let map = MapWriter::new()
            .text(1, self.realm.as_str())
            .byte_items(2, self.servers.iter().map(String::as_bytes))
            .bytes(3, &self.pin.0)
            .bytes(4, &self.secret)
            .uint(6, self.role as u64);
        match &self.user {
            Some(user) => map.text(5, user.as_str()),
            None => map,
        }
        .finish()
    }

    fn decode(body: &[u8]) -> Result<Invitation, DecodeError> {
        let mut map = MapReader::parse(body)?;
        let realm = realm_name(&mut map, 1)?;
        let mut servers = Vec::new();
        for raw in map.items(2, INVITATION_SERVERS_MAX)? {
            servers.push(host_port(item_bytes(raw)?).ok_or(DecodeError::OutOfBounds(2))?);
        }
        if servers.is_empty() {
            return Err(DecodeError::OutOfBounds(2));
        }
        let pin = PublicKey(map.array(3)?);
        let secret = map.array(4)?;
        let user = map
            .opt_text(5, ACCOUNT_NAME_BYTES_MAX)?
            .map(|text| AccountName::exact(text).map_err(|_| DecodeError::OutOfBounds(5)))
            .transpose()?;
        let role = InvitationRole::from_u64(map.uint(6)?).ok_or(DecodeError::OutOfBounds(6))?;
        map.finish()?;
        Ok(Invitation { realm, servers, pin, secret, user, role })
    }
}

impl fmt::Display for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.encode();
        bytes.extend_from_slice(&checksum(&bytes));
        write!(f, "{PREFIX}{}", base64url(&bytes))
    }
}

impl FromStr for Invitation {
    type Err = InvitationError;

    fn from_str(text: &str) -> Result<Invitation, InvitationError> {
        let text = text.trim();
        if text.len() > INVITATION_TEXT_BYTES_MAX {
            return Err(InvitationError::NotOne);
        }
        let bytes = text.strip_prefix(PREFIX).and_then(parse_base64url).ok_or(InvitationError::NotOne)?;
        let (body, sum) = bytes.split_last_chunk::<4>().ok_or(InvitationError::Checksum)?;
        if checksum(body) != *sum {
            return Err(InvitationError::Checksum);
        }
        Ok(Invitation::decode(body)?)
    }
}

impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invitation")
            .field("realm", &self.realm)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

fn checksum(body: &[u8]) -> [u8; 4] {
    let digest: [u8; 32] = Sha256::digest(body).into();
    digest.first_chunk().copied().unwrap_or_default()
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn base64url(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    let (mut bits, mut held) = (0u32, 0);
    for byte in bytes {
        bits = bits << 8 | u32::from(*byte);
        held += 8;
        while held >= 6 {
            held -= 6;
            push_digit(&mut out, bits >> held);
        }
    }
    if held > 0 {
        push_digit(&mut out, bits << (6 - held));
    }
    out
}

fn push_digit(out: &mut String, bits: u32) {
    let digit = ALPHABET.get((bits & 63) as usize).copied().unwrap_or_default();
    out.push(char::from(digit));
}

/// Only what [`base64url`] writes: nothing but the alphabet, and no stray bits at the end.
fn parse_base64url(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0u32, 0);
    for digit in text.bytes() {
        let value = ALPHABET.iter().position(|d| *d == digit)?;
        bits = (bits << 6 | u32::try_from(value).ok()?) & 0xffff;
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held & 0xff) as u8);
        }
    }
    let stray = bits & ((1 << held) - 1);
    (held < 6 && stray == 0).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Invitation {
        Invitation {
            realm: RealmName::parse("example.net").unwrap(),
            servers: vec!["198.51.100.1:4433".into(), "login.example.net:443".into()],
            pin: PublicKey([7; 32]),
            secret: [9; 16],
            user: Some(AccountName::parse("alice").unwrap()),
            role: InvitationRole::User,
        }
    }

    #[test]
    fn golden_token() {
        assert_eq!(
            sample().to_string(),
            "yodel1pgFrZXhhbXBsZS5uZXQCglExOTguNTEuMTAwLjE6NDQzM1Vsb2dpbi5leGFtcGxlLm5ldDo0NDMDWCAHBwcH\
             BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwRQCQkJCQkJCQkJCQkJCQkJCQVlYWxpY2UGAdriXFQ"
        );
    }

    #[test]
    fn text_and_back() {
        for user in [None, Some(AccountName::parse("борис").unwrap())] {
            for role in [InvitationRole::User, InvitationRole::Supernode, InvitationRole::Gateway] {
                let invitation = Invitation { user: user.clone(), role, ..sample() };
                let text = format!("  {invitation}\n");
                assert_eq!(text.parse(), Ok(invitation));
            }
        }
    }

    #[test]
    fn a_slip_anywhere_is_noticed() {
        let text = sample().to_string();
        for at in PREFIX.len()..text.len() {
            let mut slipped = text.clone().into_bytes();
            slipped[at] = if slipped[at] == b'A' { b'B' } else { b'A' };
            let slipped = String::from_utf8(slipped).unwrap();
            assert!(slipped.parse::<Invitation>().is_err(), "{at}");
            assert!(text[..at].parse::<Invitation>().is_err(), "{at}");
        }
        assert_eq!("hello".parse::<Invitation>(), Err(InvitationError::NotOne));
        assert_eq!("yodel1".parse::<Invitation>(), Err(InvitationError::Checksum));
    }

    #[test]
    fn the_secret_does_not_print() {
        assert!(!format!("{:?}", sample()).contains('9'));
    }

    #[test]
    fn base64url_of_rfc_4648() {
        for (plain, text) in [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64url(plain.as_bytes()), text);
            assert_eq!(parse_base64url(text), Some(plain.as_bytes().to_vec()));
        }
        assert_eq!(base64url(&[0xfb, 0xff]), "-_8");
        for bad in ["Zh", "Z", "Zg==", "Zm8+", "Zm9\n"] {
            assert_eq!(parse_base64url(bad), None, "{bad}");
        }
    }
}
