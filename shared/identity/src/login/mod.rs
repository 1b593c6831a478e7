//! What is said on a link to the login server: the bodies of frames 64 to 78. The link's TLS key is the key of the
//! device or supernode that speaks; the server's must be one that the root statement names.
//!
//! ```text
//!   first device                    further device                 any node, later
//!   <- LoginHello                   <- LoginHello                  <- LoginHello (not through a home)
//!   -> RegisterStart                -> LoginStart                  -> Renew
//!   <- RegisterResponse             <- LoginResponse               <- Enrolled | SupernodeEnrolled
//!   -> RegisterFinish               -> LoginFinish
//!   <- Enrolled                     <- Enrolled                    supernode
//!   -> AccountRecord                -> AccountRecord               -> SupernodeEnrol    <- SupernodeEnrolled
//!   <- AccountRecordKept            <- AccountRecordKept           -> SupernodeState
//! ```
//! Any request may be answered by `LoginRefused`, which ends that exchange and not the link.

mod enrol;
mod renewal;
mod supernode;

pub use enrol::{
    AccountRecordKept, AccountRecordOffer, Enrolled, LoginFinish, LoginResponse, LoginStart, RegisterFinish,
    RegisterResponse, RegisterStart, possession_message,
};
pub use renewal::{Renewal, RenewalFields};
pub use supernode::{SupernodeEnrol, SupernodeEnrolled, SupernodeState};

use yodel_wire::codec::{DecodeError, MapReader, MapWriter};
use yodel_wire::frame::{Frame, FrameKind};
use yodel_wire::time::UnixTime;

use crate::credential::seconds;
use crate::limits::{CREDENTIAL_BYTES_MAX, STATEMENT_BYTES_MAX};

/// The content of a frame of this protocol.
pub trait Body: Sized {
    /// The frame it is the body of.
    const KIND: FrameKind;

    /// The body.
    fn encode(&self) -> Vec<u8>;

    /// Reads a body.
    ///
    /// # Errors
    /// Why it is none.
    fn decode(body: &[u8]) -> Result<Self, DecodeError>;

    /// The whole frame.
    fn frame(&self) -> Frame {
        Frame::new(Self::KIND, self.encode())
    }
}

/// First frame of the server on every link. Keys: 1 statement, 2 time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginHello {
    /// The root statement's exact bytes.
    pub statement: Vec<u8>,
    /// The server's clock, whole seconds.
    pub time: UnixTime,
}

impl Body for LoginHello {
    const KIND: FrameKind = FrameKind::LoginHello;

    fn encode(&self) -> Vec<u8> {
        MapWriter::new().bytes(1, &self.statement).uint(2, self.time.as_secs()).finish()
    }

    fn decode(body: &[u8]) -> Result<LoginHello, DecodeError> {
        let mut map = MapReader::parse(body)?;
        let statement = map.bytes(1, STATEMENT_BYTES_MAX)?.to_vec();
        let time = seconds(&mut map, 2)?;
        map.finish()?;
        Ok(LoginHello { statement, time })
    }
}

/// The request was refused. Keys: 1 why, 2 seconds after which it may be asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginRefused {
    /// Why.
    pub refusal: Refusal,
    /// When it makes sense to ask again, seconds from now.
    pub come_back_s: Option<u32>,
}

impl LoginRefused {
    /// A refusal that asking again does not change.
    pub fn because(refusal: Refusal) -> LoginRefused {
        LoginRefused { refusal, come_back_s: None }
    }
}

impl Body for LoginRefused {
    const KIND: FrameKind = FrameKind::LoginRefused;

    fn encode(&self) -> Vec<u8> {
        let map = MapWriter::new().uint(1, self.refusal.number());
        match self.come_back_s {
            Some(secs) => map.uint(2, secs.into()),
            None => map,
        }
        .finish()
    }

    fn decode(body: &[u8]) -> Result<LoginRefused, DecodeError> {
        let mut map = MapReader::parse(body)?;
        let refusal = Refusal::from_number(map.uint(1)?);
        let come_back_s = map
            .opt_uint(2)?
            .map(|secs| u32::try_from(secs).map_err(|_| DecodeError::OutOfBounds(2)))
            .transpose()?;
        map.finish()?;
        Ok(LoginRefused { refusal, come_back_s })
    }
}

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        /// Why the login server refuses. Numbers are final.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
        pub enum Refusal {
            $($(#[$doc])* #[error($text)] $name,)*
            /// One that this program does not know.
            #[error("the login server refuses, for reason {0}")]
            Other(u64),
        }

        impl Refusal {
            /// The number on the wire.
            pub fn number(self) -> u64 {
                match self { $(Refusal::$name => $value,)* Refusal::Other(number) => number }
            }

            /// The refusal of this number.
            pub fn from_number(number: u64) -> Refusal {
                match number { $($value => Refusal::$name,)* other => Refusal::Other(other) }
            }
        }
    };
}

refusals! {
    /// The request breaks the protocol.
    Malformed = 1, "the login server did not understand the request";
    /// No such invitation, or it is used up, too old, or for somebody or something else.
    Invitation = 2, "the invitation is unknown, used up or for somebody else";
    /// The account exists already: sign in instead.
    UserTaken = 3, "the account exists already";
    /// The name is reserved.
    UserReserved = 4, "no account may have this name";
    /// Wrong password or unknown account.
    Password = 5, "wrong password or unknown account";
    /// The account is suspended.
    Suspended = 6, "the account is suspended";
    /// This device or supernode was revoked.
    Revoked = 7, "this device was revoked";
    /// The account has as many devices as it may.
    TooManyDevices = 8, "the account has as many devices as it may have";
    /// Asked too often.
    TooOften = 9, "asked too often";
    /// The server cannot do it just now.
    Unavailable = 10, "the login server cannot do that now";
    /// The credential shown is not the newest one issued to this node.
    Stale = 11, "a newer credential was issued to this device";
    /// The account record is not newer than the one known, or lists what was not certified.
    Record = 12, "the account record is not newer than the one known";
    /// A proof of possession does not verify.
    Proof = 13, "a signature in the request does not verify";
}

/// Secrets and long messages print as their type's name.
macro_rules! debug_nothing {
    ($($name:ident)*) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )*};
}
debug_nothing!(RegisterStart RegisterResponse RegisterFinish LoginStart LoginResponse LoginFinish);
debug_nothing!(Enrolled AccountRecordOffer SupernodeEnrol SupernodeEnrolled);

/// A byte string that a later check judges by content, of at most `max` bytes.
fn blob(map: &mut MapReader<'_>, key: i64, max: usize) -> Result<Vec<u8>, DecodeError> {
    Ok(map.bytes(key, max)?.to_vec())
}

fn opt_blob(map: &mut MapReader<'_>, key: i64, max: usize) -> Result<Option<Vec<u8>>, DecodeError> {
    Ok(map.opt_bytes(key, max)?.map(<[u8]>::to_vec))
}

fn credential_blob(map: &mut MapReader<'_>, key: i64) -> Result<Vec<u8>, DecodeError> {
    blob(map, key, CREDENTIAL_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_hello_and_refusal() {
        let hello = LoginHello { statement: vec![1, 2], time: UnixTime::from_secs(500) };
        assert_eq!(hello.encode(), [0xa2, 1, 0x42, 1, 2, 2, 0x19, 1, 0xf4]);
        assert_eq!(LoginHello::decode(&hello.encode()), Ok(hello));
        let refused = LoginRefused { refusal: Refusal::TooOften, come_back_s: Some(30) };
        assert_eq!(refused.encode(), [0xa2, 1, 9, 2, 0x18, 30]);
        assert_eq!(LoginRefused::decode(&refused.encode()), Ok(refused));
    }

    #[test]
    fn refusals_keep_their_numbers() {
        for number in 0..20 {
            assert_eq!(Refusal::from_number(number).number(), number);
        }
        assert_eq!(Refusal::from_number(14), Refusal::Other(14));
    }
}
