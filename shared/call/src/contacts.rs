//! Whom this account knows, what it lets them do, and the messages by which two accounts come to know each other.
//!
//! | key | |
//! |---|---|
//! | 1 | 1: request, 2: accepted, 3: text |
//! | 2 | tag, 16 bytes: what the sender gives the receiver; of a request or acceptance |
//! | 3 | text, at most 1,000 bytes: a note with the request, or the text |

use yodel_identity::keys::PublicKey;
use yodel_identity::name::Aor;
use yodel_identity::node::NodeId;
use yodel_wire::codec::{DecodeError, MapReader, MapWriter};

use crate::limits::TEXT_BYTES_MAX;

/// 16 random bytes that admit whom they were given to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Tag(pub [u8; 16]);

impl std::fmt::Debug for Tag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tag(..)")
    }
}

/// What this account holds about another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// Who.
    pub aor: Aor,
    /// The account's root key, pinned when it was first seen.
    pub root: Option<PublicKey>,
    /// Added or accepted here: may ring.
    pub accepted: bool,
    /// May do nothing, and is not told so.
    pub blocked: bool,
    /// What we gave them; sent along until they surely have it.
    pub tag_given: Option<Tag>,
    /// What they gave us: they accepted us.
    pub tag_held: Option<Tag>,
}

impl Contact {
    /// Both accepted each other, as far as this side can know.
    pub fn is_mutual(&self) -> bool {
        self.accepted && !self.blocked && self.tag_held.is_some()
    }
}

/// What accounts say to each other outside calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContactMessage {
    /// May I be your contact? You are mine, and this admits you.
    Request {
        /// Admits the receiver.
        tag: Tag,
        /// A word with it; may be empty.
        note: String,
    },
    /// You are my contact now, and this admits you.
    Accepted {
        /// Admits the receiver.
        tag: Tag,
    },
    /// A text.
    Text(String),
}

/// An authenticated word of another account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// Who.
    pub from: Aor,
    /// The account's root key.
    pub root: PublicKey,
    /// Which device.
    pub device: NodeId,
    /// What.
    pub what: Word,
}

/// What another account wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// A stranger called; it did not ring. Belongs into the list of requests.
    Called,
    /// A message. From a stranger it is always a request.
    Message(ContactMessage),
    /// In a call, a contact gave (again) what admits us.
    TagGiven(Tag),
}

impl ContactMessage {
    /// The body of a MESSAGE.
    pub fn encode(&self) -> Vec<u8> {
        let map = MapWriter::new();
        match self {
            ContactMessage::Request { tag, note } => map.uint(1, 1).bytes(2, &tag.0).text(3, note),
            ContactMessage::Accepted { tag } => map.uint(1, 2).bytes(2, &tag.0),
            ContactMessage::Text(text) => map.uint(1, 3).text(3, text),
        }
        .finish()
    }

    /// Reads the body of a MESSAGE.
    ///
    /// # Errors
    /// Any [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<ContactMessage, DecodeError> {
        let mut map = MapReader::parse(bytes)?;
        let message = match map.uint(1)? {
            1 => ContactMessage::Request {
                tag: Tag(map.array(2)?),
                note: map.opt_text(3, TEXT_BYTES_MAX)?.unwrap_or_default().to_owned(),
            },
            2 => ContactMessage::Accepted { tag: Tag(map.array(2)?) },
            3 => ContactMessage::Text(map.text(3, TEXT_BYTES_MAX)?.to_owned()),
            _ => return Err(DecodeError::OutOfBounds(1)),
        };
        map.finish()?;
        Ok(message)
    }
}

/// What an account may do here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Ring, and exchange addresses while it rings.
    Mutual,
    /// Ring; addresses only after the answer.
    Accepted,
    /// Nothing but ask.
    Stranger,
    /// Nothing.
    Blocked,
    /// The account's key is not the pinned one: nothing, and the user must know.
    KeyChanged,
}

/// Looks an account up among the contacts.
pub fn admission(contacts: &[Contact], aor: &Aor, root: &PublicKey) -> Admission {
    match contacts.iter().find(|contact| contact.aor == *aor) {
        None => Admission::Stranger,
        Some(contact) if contact.blocked => Admission::Blocked,
        Some(contact) if contact.root.is_some_and(|pinned| pinned != *root) => Admission::KeyChanged,
        Some(contact) if contact.is_mutual() => Admission::Mutual,
        Some(contact) if contact.accepted => Admission::Accepted,
        Some(_) => Admission::Stranger,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_messages() {
        let request = ContactMessage::Request { tag: Tag([7; 16]), note: "hi".into() };
        let mut bytes = vec![0xa3, 1, 1, 2, 0x50];
        bytes.extend([7; 16]);
        bytes.extend([3, 0x62, b'h', b'i']);
        assert_eq!(request.encode(), bytes);
        for message in
            [request, ContactMessage::Accepted { tag: Tag([1; 16]) }, ContactMessage::Text("ä".into())]
        {
            assert_eq!(ContactMessage::decode(&message.encode()), Ok(message));
        }
        assert!(ContactMessage::decode(&MapWriter::new().uint(1, 9).finish()).is_err());
        let long = ContactMessage::Text("x".repeat(TEXT_BYTES_MAX + 1));
        assert_eq!(ContactMessage::decode(&long.encode()), Err(DecodeError::OutOfBounds(3)));
    }

    #[test]
    fn who_may_do_what() {
        let aor = Aor::parse("bob@example.net").unwrap();
        let root = PublicKey([1; 32]);
        let contact = Contact {
            aor: aor.clone(),
            root: Some(root),
            accepted: true,
            blocked: false,
            tag_given: None,
            tag_held: None,
        };
        assert_eq!(admission(&[], &aor, &root), Admission::Stranger);
        assert_eq!(admission(std::slice::from_ref(&contact), &aor, &root), Admission::Accepted);
        assert_eq!(
            admission(std::slice::from_ref(&contact), &aor, &PublicKey([2; 32])),
            Admission::KeyChanged
        );
        let mutual = Contact { tag_held: Some(Tag([0; 16])), ..contact.clone() };
        assert_eq!(admission(std::slice::from_ref(&mutual), &aor, &root), Admission::Mutual);
        let asked = Contact { accepted: false, ..mutual.clone() };
        assert_eq!(admission(&[asked], &aor, &root), Admission::Stranger);
        let blocked = Contact { blocked: true, ..mutual };
        assert_eq!(admission(&[blocked], &aor, &PublicKey([2; 32])), Admission::Blocked);
    }
}
