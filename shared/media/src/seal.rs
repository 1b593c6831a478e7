//! Keys of a media session and the sealing of its packets.
//!
//! The call gives one 32-byte secret per direction. From it (HKDF-Expand, RFC 5869, with SHA-256; each label once):
//!
//! ```text
//! ssrc        = expand(secret, "yodel/media/v1 ssrc")[..4]
//! chain[s][0] = expand(secret, "yodel/media/v1 audio" | "yodel/media/v1 control")      one chain per stream s
//! key[s][e]   = expand(chain[s][e], "yodel/media/v1 key")
//! chain[s][e+1] = expand(chain[s][e], "yodel/media/v1 next")                           one way: the old one is wiped
//! ```
//!
//! A packet with the 64-bit index `i` of its stream is sealed with ChaCha20-Poly1305 (RFC 8439) under
//! `key[s][i / 6000]`, nonce = four zero bytes ‖ `i` big-endian, its clear header as associated data. Nobody announces
//! a new epoch, and a packet that does not open moves nothing.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::limits::{EPOCH_PACKETS, EPOCHS_AHEAD_MAX};
use crate::replay::ReplayWindow;

/// Bytes of an authentication tag.
pub const TAG_BYTES: usize = 16;

/// The secrets of one leg's media, as the call's handshake derived them.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct MediaKeys {
    /// Seals what we send.
    pub send: [u8; 32],
    /// Opens what the peer sends; differs from `send`.
    pub receive: [u8; 32],
}

impl MediaKeys {
    /// The same keys as the other end holds them.
    pub fn swapped(&self) -> MediaKeys {
        MediaKeys { send: self.receive, receive: self.send }
    }
}

impl std::fmt::Debug for MediaKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MediaKeys")
    }
}

/// The two kinds of packets of a direction; each has its own keys and its own count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    /// Frames.
    Audio,
    /// Reports and BYE.
    Control,
}

impl Stream {
    fn label(self) -> &'static [u8] {
        match self {
            Stream::Audio => b"yodel/media/v1 audio",
            Stream::Control => b"yodel/media/v1 control",
        }
    }
}

/// The synchronisation source of the direction that `secret` seals: names the leg to whoever holds several.
pub fn ssrc(secret: &[u8; 32]) -> u32 {
    let [a, b, c, d, ..] = *expand(secret, b"yodel/media/v1 ssrc");
    u32::from_be_bytes([a, b, c, d])
}

/// Seals the packets of one stream, index by index.
pub struct Sealer {
    chain: Chain,
    next: u64,
}

impl Sealer {
    /// Starts at index 0.
    pub fn new(secret: &[u8; 32], stream: Stream) -> Sealer {
        Sealer { chain: Chain::new(secret, stream), next: 0 }
    }

    /// The index of the next packet.
    pub fn next_index(&self) -> u64 {
        self.next
    }

    /// Seals `packet[header..]` in place and appends the tag; the header is authenticated. Takes one index, which the
    /// header must tell the peer.
    pub fn seal(&mut self, packet: &mut Vec<u8>, header: usize) -> Result<u64, SealError> {
        let index = self.next;
        self.chain.advance_to(index / EPOCH_PACKETS);
        let (head, body) = packet.split_at_mut_checked(header).ok_or(SealError::Header)?;
        let key = self.chain.key.as_ref().ok_or(SealError::Key)?;
        let tag = key
            .seal_in_place_separate_tag(nonce(index), Aad::from(head), body)
            .map_err(|_| SealError::Key)?;
        packet.extend_from_slice(tag.as_ref());
        self.next += 1;
        Ok(index)
    }
}

/// Why nothing was sealed. Neither happens to a caller that keeps to the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The packet is shorter than its header.
    #[error("packet is shorter than its header")]
    Header,
    /// The cipher refused.
    #[error("cipher refused")]
    Key,
}

/// Why a packet did not open. None of these moved anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Seen before.
    #[error("replayed")]
    Replayed,
    /// Before the replay window, or more epochs ahead than can be.
    #[error("outside the window")]
    Window,
    /// Not sealed by the peer, or changed on the way.
    #[error("not authentic")]
    Forged,
}

/// Opens the packets of one stream, in any order within the replay window.
pub struct Opener {
    chain: Chain,
    previous: Option<LessSafeKey>,
    window: ReplayWindow,
    reference: u64,
}

impl Opener {
    /// Nothing opened yet.
    pub fn new(secret: &[u8; 32], stream: Stream) -> Opener {
        Opener {
            chain: Chain::new(secret, stream),
            previous: None,
            window: ReplayWindow::default(),
            reference: 0,
        }
    }

    /// The index that shortened ones are nearest to.
    pub fn reference(&self) -> u64 {
        self.reference
    }

    /// An authenticated word of the peer that its packets have come to `index`: after a long silence a 16-bit
    /// sequence number alone would be read wrongly. Never goes back, and not further than keys are looked for.
    pub fn advance_reference(&mut self, index: u64) {
        let reachable = (self.chain.epoch + EPOCHS_AHEAD_MAX) * EPOCH_PACKETS;
        if index < reachable {
            self.reference = self.reference.max(index);
        }
    }

    /// Opens `sealed` (ciphertext and tag) with `header` as associated data, in place, and marks the index as seen.
    ///
    /// # Errors
    /// See [`OpenError`]; then nothing has changed but the content of `sealed`.
    pub fn open<'a>(
        &mut self,
        index: u64,
        header: &[u8],
        sealed: &'a mut [u8],
    ) -> Result<&'a [u8], OpenError> {
        if !self.window.is_fresh(index) {
            let old = self.window.highest().is_some_and(|h| h - index >= crate::limits::REPLAY_WINDOW);
            return Err(if old { OpenError::Window } else { OpenError::Replayed });
        }
        let epoch = index / EPOCH_PACKETS;
        let nonce = nonce(index);
        if epoch + 1 == self.chain.epoch {
            let key = self.previous.as_ref().ok_or(OpenError::Window)?;
            let plain = key.open_in_place(nonce, Aad::from(header), sealed).map_err(|_| OpenError::Forged)?;
            self.window.mark(index);
            return Ok(plain);
        }
        if epoch < self.chain.epoch || epoch > self.chain.epoch + EPOCHS_AHEAD_MAX {
            return Err(OpenError::Window);
        }
        let plain = if epoch == self.chain.epoch {
            let key = self.chain.key.as_ref().ok_or(OpenError::Forged)?;
            key.open_in_place(nonce, Aad::from(header), sealed).map_err(|_| OpenError::Forged)?
        } else {
            let mut ahead = Chain { secret: self.chain.secret.clone(), epoch: self.chain.epoch, key: None };
            let mut before = None;
            if epoch - ahead.epoch > 1 {
                ahead.advance_to(epoch - 1);
                before = ahead.key.take();
            }
            ahead.advance_to(epoch);
            let key = ahead.key.as_ref().ok_or(OpenError::Forged)?;
            let plain = key.open_in_place(nonce, Aad::from(header), sealed).map_err(|_| OpenError::Forged)?;
            let old = std::mem::replace(&mut self.chain, ahead);
            self.previous = before.or(old.key);
            plain
        };
        self.window.mark(index);
        self.reference = self.reference.max(index);
        Ok(plain)
    }
}

/// One stream's keys, epoch after epoch.
struct Chain {
    secret: Zeroizing<[u8; 32]>,
    epoch: u64,
    key: Option<LessSafeKey>,
}

impl Chain {
    fn new(secret: &[u8; 32], stream: Stream) -> Chain {
        let secret = expand(secret, stream.label());
        let key = aead_key(&secret);
        Chain { secret, epoch: 0, key }
    }

    fn advance_to(&mut self, epoch: u64) {
        if self.epoch >= epoch {
            return;
        }
        while self.epoch < epoch {
            self.secret = expand(&self.secret, b"yodel/media/v1 next");
            self.epoch += 1;
        }
        self.key = aead_key(&self.secret);
    }
}

fn aead_key(chain: &[u8; 32]) -> Option<LessSafeKey> {
    let key = expand(chain, b"yodel/media/v1 key");
    UnboundKey::new(&CHACHA20_POLY1305, key.as_slice()).ok().map(LessSafeKey::new)
}

fn nonce(index: u64) -> Nonce {
    let mut bytes = [0; 12];
    if let Some(tail) = bytes.last_chunk_mut::<8>() {
        *tail = index.to_be_bytes();
    }
    Nonce::assume_unique_for_key(bytes)
}

/// HKDF-Expand with SHA-256 to 32 bytes (RFC 5869 §2.3): one block, so one HMAC, which cannot fail.
fn expand(secret: &[u8; 32], label: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
    context.update(label);
    context.update(&[1]);
    let mut out = Zeroizing::new([0; 32]);
    for (to, from) in out.iter_mut().zip(context.sign().as_ref()) {
        *to = *from;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use chacha20poly1305::aead::{AeadInPlace, KeyInit};

    const SECRET: [u8; 32] = [0x42; 32];

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    fn sealed(sealer: &mut Sealer, body: &[u8]) -> Vec<u8> {
        let mut packet = [&b"head"[..], body].concat();
        sealer.seal(&mut packet, 4).unwrap();
        packet
    }

    fn open(opener: &mut Opener, index: u64, packet: &[u8]) -> Result<Vec<u8>, OpenError> {
        let mut sealed = packet[4..].to_vec();
        opener.open(index, &packet[..4], &mut sealed).map(<[u8]>::to_vec)
    }

    #[test]
    fn expand_is_hkdf() {
        for label in [&b"yodel/media/v1 key"[..], b"", b"x"] {
            let mut want = [0; 32];
            hkdf::Hkdf::<sha2::Sha256>::from_prk(&SECRET).unwrap().expand(label, &mut want).unwrap();
            assert_eq!(*expand(&SECRET, label), want);
        }
    }

    #[test]
    fn golden_vectors() {
        assert_eq!(format!("{:08x}", ssrc(&SECRET)), "526d6ca4");
        let mut sealer = Sealer::new(&SECRET, Stream::Audio);
        assert_eq!(hex(&sealed(&mut sealer, b"yodel")), "68656164ccf549389aed11e62fad772803e24630fa3d3f1178");
        sealer.next = EPOCH_PACKETS;
        assert_eq!(hex(&sealed(&mut sealer, b"yodel")), "68656164b5775d037a4b791e4efa8c395908a4280257f66ec8");
        let mut control = Sealer::new(&SECRET, Stream::Control);
        assert_eq!(
            hex(&sealed(&mut control, b"yodel")),
            "686561640c25e50acf59c3d784ef54b5161a05d68312926298"
        );
    }

    #[test]
    fn the_crate_and_ring_agree() {
        for index in [0, 1, 255, 5_999, 6_000, 12_345, 100_000] {
            let mut sealer = Sealer::new(&SECRET, Stream::Audio);
            sealer.next = index;
            let packet = sealed(&mut sealer, b"twenty milliseconds of speech");

            let mut chain = expand(&SECRET, b"yodel/media/v1 audio");
            for _ in 0..index / 6_000 {
                chain = expand(&chain, b"yodel/media/v1 next");
            }
            let key = expand(&chain, b"yodel/media/v1 key");
            let cipher = chacha20poly1305::ChaCha20Poly1305::new(key.as_slice().into());
            let mut nonce = [0; 12];
            nonce[4..].copy_from_slice(&index.to_be_bytes());
            let mut body = b"twenty milliseconds of speech".to_vec();
            cipher.encrypt_in_place(&nonce.into(), b"head", &mut body).unwrap();
            assert_eq!(packet[4..], body);
        }
    }

    #[test]
    fn the_epoch_changes_at_6000_and_both_sides_of_it_open_in_any_order() {
        let mut sealer = Sealer::new(&SECRET, Stream::Audio);
        let packets: Vec<_> = (0..6_010u32).map(|i| sealed(&mut sealer, &i.to_be_bytes())).collect();
        let mut opener = Opener::new(&SECRET, Stream::Audio);
        for index in [0usize, 5_000, 6_003, 5_999, 6_000, 5_998, 6_009] {
            assert_eq!(
                open(&mut opener, index as u64, &packets[index]).unwrap(),
                (index as u32).to_be_bytes()
            );
        }
        let first = Chain::new(&SECRET, Stream::Audio);
        assert!(*first.secret != *opener.chain.secret, "the first chain is gone");
        assert_eq!(opener.chain.epoch, 1);
    }

    #[test]
    fn epochs_may_be_skipped_up_to_the_bound() {
        for (ahead, opens) in [(2, true), (EPOCHS_AHEAD_MAX, true), (EPOCHS_AHEAD_MAX + 1, false)] {
            let mut sealer = Sealer::new(&SECRET, Stream::Audio);
            sealer.next = ahead * EPOCH_PACKETS;
            let index = sealer.next;
            let packet = sealed(&mut sealer, b"far");
            let mut before = Sealer::new(&SECRET, Stream::Audio);
            before.next = index - 1;
            let late = sealed(&mut before, b"late");
            let mut opener = Opener::new(&SECRET, Stream::Audio);
            assert_eq!(open(&mut opener, index, &packet).is_ok(), opens);
            if opens {
                assert_eq!(open(&mut opener, index - 1, &late).unwrap(), b"late");
            }
        }
    }

    #[test]
    fn forged_truncated_and_replayed_packets_move_nothing() {
        let mut sealer = Sealer::new(&SECRET, Stream::Audio);
        let packets: Vec<_> = (0..10u8).map(|i| sealed(&mut sealer, &[i; 30])).collect();
        let mut opener = Opener::new(&SECRET, Stream::Audio);
        open(&mut opener, 3, &packets[3]).unwrap();
        let before = (opener.reference, opener.chain.epoch, opener.window.highest(), *opener.chain.secret);

        assert_eq!(open(&mut opener, 3, &packets[3]), Err(OpenError::Replayed));
        for at in 0..packets[5].len() {
            let mut forged = packets[5].clone();
            forged[at] ^= 1;
            assert_eq!(open(&mut opener, 5, &forged), Err(OpenError::Forged));
        }
        for cut in 4..packets[5].len() {
            assert_eq!(open(&mut opener, 5, &packets[5][..cut]), Err(OpenError::Forged));
        }
        for index in [4, 6, 5_999, 6_000, 6_005, 60_005, EPOCHS_AHEAD_MAX * 6_000] {
            assert_eq!(open(&mut opener, index, &packets[5]), Err(OpenError::Forged), "{index}");
        }
        assert_eq!(open(&mut opener, u64::MAX / 2, &packets[5]), Err(OpenError::Window));
        let mut control = Sealer::new(&SECRET, Stream::Control);
        assert_eq!(open(&mut opener, 5, &sealed(&mut control, b"other stream")), Err(OpenError::Forged));
        let mut other = Sealer::new(&[1; 32], Stream::Audio);
        other.next = 5;
        assert_eq!(open(&mut opener, 5, &sealed(&mut other, b"other call")), Err(OpenError::Forged));

        let after = (opener.reference, opener.chain.epoch, opener.window.highest(), *opener.chain.secret);
        assert_eq!(before, after);
        assert_eq!(open(&mut opener, 5, &packets[5]).unwrap(), [5; 30]);
    }

    #[test]
    fn the_replay_window_boundary_from_both_sides() {
        let mut sealer = Sealer::new(&SECRET, Stream::Audio);
        let packets: Vec<_> = (0..=2_048u32).map(|i| sealed(&mut sealer, &i.to_be_bytes())).collect();
        let mut opener = Opener::new(&SECRET, Stream::Audio);
        open(&mut opener, 2_048, &packets[2_048]).unwrap();
        assert_eq!(open(&mut opener, 0, &packets[0]), Err(OpenError::Window));
        assert!(open(&mut opener, 1, &packets[1]).is_ok());
    }

    #[test]
    fn the_reference_advances_only_within_reach() {
        let mut opener = Opener::new(&SECRET, Stream::Audio);
        opener.advance_reference(40_000);
        assert_eq!(opener.reference(), 40_000);
        opener.advance_reference(10);
        opener.advance_reference(u64::MAX);
        assert_eq!(opener.reference(), 40_000);
    }
}
