//! Sealed control packets: receiver reports and BYE, in the place of RTCP (RFC 3550 §6, multiplexed as RFC 5761).
//!
//! ```text
//!  0      1                  2        4         8         12
//!  | 0x80 | 201 RR / 203 BYE | 0 (16) | SSRC    | index   | sealed body … | tag (16) |
//!
//! report  0       1      2           4       8       12       16           20        24      28          32
//!         | flags | loss | buffer ms | heard | next  | jitter | echo index | held µs | sent  | concealed |
//! BYE     0        1          4
//!         | reason | zero (24) |
//! ```
//!
//! Numbers are big-endian; a body may grow at its end, readers skip what they do not know. `index` counts the control
//! packets of a direction.

/// Bytes of the clear header.
pub const HEADER_BYTES: usize = 12;

const REPORT: u8 = 201;
const BYE: u8 = 203;
const NO_ECHO: u32 = u32::MAX;

/// The clear header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Which body follows.
    pub kind: Kind,
    /// Names leg and direction.
    pub ssrc: u32,
    /// Number of the control packet.
    pub index: u32,
}

/// The kinds of control packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// [`Report`].
    Report,
    /// [`Bye`].
    Bye,
}

impl Header {
    /// The twelve bytes.
    pub fn encode(self) -> [u8; HEADER_BYTES] {
        let kind = match self.kind {
            Kind::Report => REPORT,
            Kind::Bye => BYE,
        };
        let [s0, s1, s2, s3] = self.ssrc.to_be_bytes();
        let [i0, i1, i2, i3] = self.index.to_be_bytes();
        [crate::rtp::FIRST_BYTE, kind, 0, 0, s0, s1, s2, s3, i0, i1, i2, i3]
    }

    /// Splits a packet into header, its bytes, and what is sealed. `None` for anything but a control packet of ours.
    pub fn parse(packet: &[u8]) -> Option<(Header, &[u8; HEADER_BYTES], &[u8])> {
        let (bytes, sealed) = packet.split_first_chunk::<HEADER_BYTES>()?;
        let [first, kind, z0, z1, s0, s1, s2, s3, i0, i1, i2, i3] = *bytes;
        let kind = match kind {
            REPORT => Kind::Report,
            BYE => Kind::Bye,
            _ => return None,
        };
        if (first, z0, z1) != (crate::rtp::FIRST_BYTE, 0, 0)
            || sealed.len() > crate::limits::PAYLOAD_BYTES_MAX + crate::seal::TAG_BYTES
        {
            return None;
        }
        let header = Header {
            kind,
            ssrc: u32::from_be_bytes([s0, s1, s2, s3]),
            index: u32::from_be_bytes([i0, i1, i2, i3]),
        };
        Some((header, bytes, sealed))
    }
}

/// What one end tells the other about what arrives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Audio packets of the peer were opened within the last second.
    pub hears: bool,
    /// Our microphone gives no signal at all.
    pub mic_silent: bool,
    /// Share of the peer's packets lost since the last report, 0–255 for 0–1.
    pub loss: u8,
    /// What our jitter buffer adds, ms.
    pub buffer_ms: u16,
    /// Audio packets of the peer opened in all.
    pub heard: u32,
    /// Index of our next audio packet, low 32 bits.
    pub next: u32,
    /// Interarrival jitter (RFC 3550 §6.4.1), samples at 48 kHz.
    pub jitter: u32,
    /// The newest report heard from the peer and for how long it is held, µs; gives it the round trip.
    pub echo: Option<(u32, u32)>,
    /// Audio packets sent in all.
    pub sent: u32,
    /// Frames played that were not received.
    pub concealed: u32,
}

/// Bytes of a report of this version.
pub const REPORT_BYTES: usize = 32;

impl Report {
    /// The body, before it is sealed.
    pub fn encode(self) -> [u8; REPORT_BYTES] {
        let mut out = [0; REPORT_BYTES];
        let (echo, held) = self.echo.unwrap_or((NO_ECHO, 0));
        let [b0, b1] = self.buffer_ms.to_be_bytes();
        let first = [u8::from(self.hears) | u8::from(self.mic_silent) << 1, self.loss, b0, b1];
        let words = [self.heard, self.next, self.jitter, echo, held, self.sent, self.concealed];
        let bytes = first.into_iter().chain(words.into_iter().flat_map(u32::to_be_bytes));
        for (to, from) in out.iter_mut().zip(bytes) {
            *to = from;
        }
        out
    }

    /// Reads a body; `None` when it is too short.
    pub fn decode(body: &[u8]) -> Option<Report> {
        let ([flags, loss, b0, b1], rest) = body.split_first_chunk::<4>()?;
        let (words, _later) = rest.split_first_chunk::<{ REPORT_BYTES - 4 }>()?;
        let mut words = words.chunks_exact(4).map(|w| w.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)));
        let mut next = || words.next();
        let (heard, index, jitter, echo, held) = (next()?, next()?, next()?, next()?, next()?);
        Some(Report {
            hears: flags & 1 != 0,
            mic_silent: flags & 2 != 0,
            loss: *loss,
            buffer_ms: u16::from_be_bytes([*b0, *b1]),
            heard,
            next: index,
            jitter,
            echo: (echo != NO_ECHO).then_some((echo, held)),
            sent: next()?,
            concealed: next()?,
        })
    }
}

/// The other end is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bye {
    /// Why, in numbers that belong to the call.
    pub reason: u8,
}

impl Bye {
    /// The body, before it is sealed.
    pub fn encode(self) -> [u8; 4] {
        [self.reason, 0, 0, 0]
    }

    /// Reads a body; `None` when it is too short.
    pub fn decode(body: &[u8]) -> Option<Bye> {
        let ([reason, ..], _later) = body.split_first_chunk::<4>()?;
        Some(Bye { reason: *reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT_A: Report = Report {
        hears: true,
        mic_silent: true,
        loss: 12,
        buffer_ms: 0x0102,
        heard: 3,
        next: 4,
        jitter: 5,
        echo: Some((6, 7)),
        sent: 8,
        concealed: 0xdead_beef,
    };

    #[test]
    fn golden_header() {
        let header = Header { kind: Kind::Report, ssrc: 0xdead_beef, index: 5 };
        assert_eq!(header.encode(), [0x80, 201, 0, 0, 0xde, 0xad, 0xbe, 0xef, 0, 0, 0, 5]);
        let packet = [&header.encode()[..], &[9; 20]].concat();
        assert_eq!(Header::parse(&packet).unwrap(), (header, &header.encode(), &[9u8; 20][..]));
        for cut in 0..HEADER_BYTES {
            assert!(Header::parse(&packet[..cut]).is_none());
        }
        for (at, value) in [(0, 0x81), (1, 200), (1, 96), (2, 1), (3, 1)] {
            let mut other = packet.clone();
            other[at] = value;
            assert!(Header::parse(&other).is_none());
        }
    }

    #[test]
    fn golden_report() {
        let bytes = REPORT_A.encode();
        let want = [
            3, 12, 1, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0, 6, 0, 0, 0, 7, 0, 0, 0, 8, 0xde, 0xad,
            0xbe, 0xef,
        ];
        assert_eq!(bytes, want);
        assert_eq!(Report::decode(&bytes), Some(REPORT_A));
        let none = Report { echo: None, ..REPORT_A };
        assert_eq!(Report::decode(&none.encode()), Some(none));
    }

    #[test]
    fn bodies_may_grow_but_not_shrink() {
        let mut longer = REPORT_A.encode().to_vec();
        longer.push(1);
        assert_eq!(Report::decode(&longer), Some(REPORT_A));
        for cut in 0..REPORT_BYTES {
            assert_eq!(Report::decode(&longer[..cut]), None);
        }
        assert_eq!(Bye::decode(&Bye { reason: 7 }.encode()), Some(Bye { reason: 7 }));
        assert_eq!(Bye::decode(&[1, 0, 0]), None);
        assert_eq!(Bye::decode(&[1, 0, 0, 0, 5]), Some(Bye { reason: 1 }));
    }
}
