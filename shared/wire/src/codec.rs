//! Bounded CBOR (RFC 8949) for everything we sign or send: maps with integer keys, definite lengths, keys strictly
//! ascending, so that one value has one encoding. A reader skips unknown positive keys and refuses unknown negative
//! ones. Nothing is allocated by a claimed length: maps are read as slices of the input.

use std::net::{IpAddr, SocketAddr};

use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

use crate::limits::{CBOR_DEPTH_MAX, CBOR_ENTRIES_MAX};

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not CBOR, not of the wanted type, or cut off.
    #[error("malformed encoding")]
    Malformed,
    /// A required key is absent.
    #[error("field {0} is missing")]
    Missing(i64),
    /// A value is outside the bounds of its field.
    #[error("field {0} is out of bounds")]
    OutOfBounds(i64),
    /// A negative key the reader does not know: the writer demands that it be understood.
    #[error("field {0} must be understood and is not")]
    MustUnderstand(i64),
    /// Bytes follow the value.
    #[error("bytes after the end")]
    Trailing,
    /// Keys repeated or out of order, or a length not written shortest.
    #[error("encoding is not canonical")]
    NotCanonical,
    /// More entries or deeper nesting than anything of ours has.
    #[error("more entries or deeper nesting than allowed")]
    TooLarge,
}

impl From<minicbor::decode::Error> for DecodeError {
    fn from(_: minicbor::decode::Error) -> DecodeError {
        DecodeError::Malformed
    }
}

/// A map being read. Ask for each field by key, then call [`finish`](Self::finish).
#[derive(Debug)]
pub struct MapReader<'b> {
    entries: Vec<(i64, &'b [u8])>,
    asked: Vec<i64>,
}

impl<'b> MapReader<'b> {
    /// Splits one map that fills `bytes` wholly.
    ///
    /// # Errors
    /// `Malformed`, `NotCanonical`, `TooLarge` or `Trailing`.
    pub fn parse(bytes: &'b [u8]) -> Result<MapReader<'b>, DecodeError> {
        let mut decoder = Decoder::new(bytes);
        let length = bounded(decoder.map()?)?;
        let mut entries: Vec<(i64, &'b [u8])> = Vec::new();
        for _ in 0..length {
            let key = integer_key(&mut decoder)?;
            if entries.last().is_some_and(|(last, _)| rank(*last) >= rank(key)) {
                return Err(DecodeError::NotCanonical);
            }
            entries.push((key, raw_item(bytes, &mut decoder)?));
        }
        if decoder.position() != bytes.len() {
            return Err(DecodeError::Trailing);
        }
        Ok(MapReader { entries, asked: Vec::new() })
    }

    /// The encoded value under `key`.
    pub fn opt_raw(&mut self, key: i64) -> Option<&'b [u8]> {
        self.asked.push(key);
        self.entries.iter().find(|(k, _)| *k == key).map(|(_, v)| *v)
    }

    /// The encoded value under `key`, which must be there.
    ///
    /// # Errors
    /// `Missing`.
    pub fn raw(&mut self, key: i64) -> Result<&'b [u8], DecodeError> {
        self.opt_raw(key).ok_or(DecodeError::Missing(key))
    }

    /// An unsigned integer, if there.
    ///
    /// # Errors
    /// `Malformed` when it is something else.
    pub fn opt_uint(&mut self, key: i64) -> Result<Option<u64>, DecodeError> {
        self.opt_raw(key).map(|raw| Ok(Decoder::new(raw).u64()?)).transpose()
    }

    /// An unsigned integer.
    ///
    /// # Errors
    /// `Missing`, `Malformed`.
    pub fn uint(&mut self, key: i64) -> Result<u64, DecodeError> {
        self.opt_uint(key)?.ok_or(DecodeError::Missing(key))
    }

    /// An unsigned integer that fits `T` (`u8`, `u16`, `u32`, `usize`).
    ///
    /// # Errors
    /// `Missing`, `Malformed`, `OutOfBounds`.
    pub fn uint_as<T: TryFrom<u64>>(&mut self, key: i64) -> Result<T, DecodeError> {
        T::try_from(self.uint(key)?).map_err(|_| DecodeError::OutOfBounds(key))
    }

    /// A truth value, if there.
    ///
    /// # Errors
    /// `Malformed` when it is something else.
    pub fn opt_bool(&mut self, key: i64) -> Result<Option<bool>, DecodeError> {
        self.opt_raw(key).map(|raw| Ok(Decoder::new(raw).bool()?)).transpose()
    }

    /// A byte string of at most `max` bytes, if there.
    ///
    /// # Errors
    /// `Malformed`, `OutOfBounds`.
    pub fn opt_bytes(&mut self, key: i64, max: usize) -> Result<Option<&'b [u8]>, DecodeError> {
        let Some(raw) = self.opt_raw(key) else { return Ok(None) };
        let bytes = Decoder::new(raw).bytes()?;
        if bytes.len() > max { Err(DecodeError::OutOfBounds(key)) } else { Ok(Some(bytes)) }
    }

    /// A byte string of at most `max` bytes.
    ///
    /// # Errors
    /// `Missing`, `Malformed`, `OutOfBounds`.
    pub fn bytes(&mut self, key: i64, max: usize) -> Result<&'b [u8], DecodeError> {
        self.opt_bytes(key, max)?.ok_or(DecodeError::Missing(key))
    }

    /// A byte string of exactly `N` bytes, if there.
    ///
    /// # Errors
    /// `Malformed`, `OutOfBounds`.
    pub fn opt_array<const N: usize>(&mut self, key: i64) -> Result<Option<[u8; N]>, DecodeError> {
        self.opt_bytes(key, N)?.map(|b| b.try_into().map_err(|_| DecodeError::OutOfBounds(key))).transpose()
    }

    /// A byte string of exactly `N` bytes.
    ///
    /// # Errors
    /// `Missing`, `Malformed`, `OutOfBounds`.
    pub fn array<const N: usize>(&mut self, key: i64) -> Result<[u8; N], DecodeError> {
        self.opt_array(key)?.ok_or(DecodeError::Missing(key))
    }

    /// A text of at most `max` bytes, if there.
    ///
    /// # Errors
    /// `Malformed`, `OutOfBounds`.
    pub fn opt_text(&mut self, key: i64, max: usize) -> Result<Option<&'b str>, DecodeError> {
        let Some(raw) = self.opt_raw(key) else { return Ok(None) };
        let text = Decoder::new(raw).str()?;
        if text.len() > max { Err(DecodeError::OutOfBounds(key)) } else { Ok(Some(text)) }
    }

    /// A text of at most `max` bytes.
    ///
    /// # Errors
    /// `Missing`, `Malformed`, `OutOfBounds`.
    pub fn text(&mut self, key: i64, max: usize) -> Result<&'b str, DecodeError> {
        self.opt_text(key, max)?.ok_or(DecodeError::Missing(key))
    }

    /// The encoded items of an array of at most `max` items; none when the key is absent.
    ///
    /// # Errors
    /// `Malformed`, `OutOfBounds`.
    pub fn items(&mut self, key: i64, max: usize) -> Result<Vec<&'b [u8]>, DecodeError> {
        let Some(raw) = self.opt_raw(key) else { return Ok(Vec::new()) };
        let items = array_items(raw)?;
        if items.len() > max { Err(DecodeError::OutOfBounds(key)) } else { Ok(items) }
    }

    /// A socket address (see [`address_bytes`]), if there.
    ///
    /// # Errors
    /// `Malformed`, `OutOfBounds`.
    pub fn opt_address(&mut self, key: i64) -> Result<Option<SocketAddr>, DecodeError> {
        let Some(raw) = self.opt_raw(key) else { return Ok(None) };
        parse_address(item_bytes(raw)?).map(Some).ok_or(DecodeError::OutOfBounds(key))
    }

    /// An array of at most `max` socket addresses; none when the key is absent.
    ///
    /// # Errors
    /// `Malformed`, `OutOfBounds`.
    pub fn addresses(&mut self, key: i64, max: usize) -> Result<Vec<SocketAddr>, DecodeError> {
        self.items(key, max)?
            .into_iter()
            .map(|raw| parse_address(item_bytes(raw)?).ok_or(DecodeError::OutOfBounds(key)))
            .collect()
    }

    /// Ends the reading: every key that was not asked for must be positive.
    ///
    /// # Errors
    /// `MustUnderstand`.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.entries.iter().find(|(key, _)| *key < 0 && !self.asked.contains(key)) {
            Some((key, _)) => Err(DecodeError::MustUnderstand(*key)),
            None => Ok(()),
        }
    }
}

/// The encoded items of one array that fills `bytes` wholly.
///
/// # Errors
/// `Malformed`, `TooLarge`, `Trailing`.
pub fn array_items(bytes: &[u8]) -> Result<Vec<&[u8]>, DecodeError> {
    let mut decoder = Decoder::new(bytes);
    let length = bounded(decoder.array()?)?;
    let mut items = Vec::new();
    for _ in 0..length {
        items.push(raw_item(bytes, &mut decoder)?);
    }
    if decoder.position() != bytes.len() {
        return Err(DecodeError::Trailing);
    }
    Ok(items)
}

/// One byte string that fills `raw` wholly, as an array item.
///
/// # Errors
/// `Malformed`, `Trailing`.
pub fn item_bytes(raw: &[u8]) -> Result<&[u8], DecodeError> {
    let mut decoder = Decoder::new(raw);
    let bytes = decoder.bytes()?;
    if decoder.position() == raw.len() { Ok(bytes) } else { Err(DecodeError::Trailing) }
}

/// A socket address as bytes: 4 or 16 of the IP address, then the port, big-endian. IPv4 has one form only: mapped
/// addresses (RFC 4291 §2.5.5.2) are written as IPv4.
pub fn address_bytes(addr: SocketAddr) -> Vec<u8> {
    let mut out = match addr.ip().to_canonical() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    out.extend_from_slice(&addr.port().to_be_bytes());
    out
}

/// Reads what [`address_bytes`] writes.
pub fn parse_address(bytes: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = bytes.split_last_chunk::<2>()?;
    let ip = match <[u8; 4]>::try_from(ip) {
        Ok(v4) => IpAddr::from(v4),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(ip).ok()?),
    };
    (ip.to_canonical() == ip).then(|| SocketAddr::new(ip, u16::from_be_bytes(*port)))
}

fn bounded(length: Option<u64>) -> Result<usize, DecodeError> {
    let length =
        usize::try_from(length.ok_or(DecodeError::NotCanonical)?).map_err(|_| DecodeError::TooLarge)?;
    if length > CBOR_ENTRIES_MAX { Err(DecodeError::TooLarge) } else { Ok(length) }
}

fn integer_key(decoder: &mut Decoder<'_>) -> Result<i64, DecodeError> {
    match decoder.datatype()? {
        Type::U8 | Type::U16 | Type::U32 | Type::U64 | Type::I8 | Type::I16 | Type::I32 | Type::I64 => {
            Ok(decoder.i64()?)
        }
        _ => Err(DecodeError::Malformed),
    }
}

/// Canonical order of keys (RFC 8949 §4.2.1): bytewise, which puts positive keys first.
fn rank(key: i64) -> (bool, u64) {
    (key < 0, key.unsigned_abs())
}

fn raw_item<'b>(bytes: &'b [u8], decoder: &mut Decoder<'b>) -> Result<&'b [u8], DecodeError> {
    let start = decoder.position();
    skip(decoder, 0)?;
    bytes.get(start..decoder.position()).ok_or(DecodeError::Malformed)
}

fn skip(decoder: &mut Decoder<'_>, depth: usize) -> Result<(), DecodeError> {
    if depth > CBOR_DEPTH_MAX {
        return Err(DecodeError::TooLarge);
    }
    match decoder.datatype()? {
        Type::U8 | Type::U16 | Type::U32 | Type::U64 => {
            decoder.u64()?;
        }
        Type::I8 | Type::I16 | Type::I32 | Type::I64 => {
            decoder.i64()?;
        }
        Type::Bool => {
            decoder.bool()?;
        }
        Type::Null => decoder.null()?,
        Type::Bytes => {
            decoder.bytes()?;
        }
        Type::String => {
            decoder.str()?;
        }
        Type::Array => {
            for _ in 0..bounded(decoder.array()?)? {
                skip(decoder, depth + 1)?;
            }
        }
        Type::Map => {
            for _ in 0..bounded(decoder.map()?)? {
                skip(decoder, depth + 1)?;
                skip(decoder, depth + 1)?;
            }
        }
        // Floats, tags, simple values and indefinite lengths have no place in our formats.
        _ => return Err(DecodeError::Malformed),
    }
    Ok(())
}

/// A map being written. Keys may come in any order; the encoding is canonical.
#[derive(Debug, Default)]
pub struct MapWriter {
    entries: Vec<(i64, Vec<u8>)>,
}

impl MapWriter {
    /// An empty map.
    pub fn new() -> MapWriter {
        MapWriter::default()
    }

    /// An unsigned integer under `key`.
    pub fn uint(self, key: i64, value: u64) -> MapWriter {
        self.raw(key, encoded(|e| e.u64(value).is_ok()))
    }

    /// A truth value under `key`.
    pub fn bool(self, key: i64, value: bool) -> MapWriter {
        self.raw(key, encoded(|e| e.bool(value).is_ok()))
    }

    /// A byte string under `key`.
    pub fn bytes(self, key: i64, value: &[u8]) -> MapWriter {
        self.raw(key, encoded(|e| e.bytes(value).is_ok()))
    }

    /// A byte string under `key`, left out when there is none.
    pub fn opt_bytes(self, key: i64, value: Option<&[u8]>) -> MapWriter {
        match value {
            Some(value) => self.bytes(key, value),
            None => self,
        }
    }

    /// A text under `key`.
    pub fn text(self, key: i64, value: &str) -> MapWriter {
        self.raw(key, encoded(|e| e.str(value).is_ok()))
    }

    /// An array of byte strings under `key`.
    pub fn byte_items<I: IntoIterator<Item: AsRef<[u8]>>>(self, key: i64, items: I) -> MapWriter {
        let items: Vec<Vec<u8>> =
            items.into_iter().map(|item| encoded(|e| e.bytes(item.as_ref()).is_ok())).collect();
        self.raw_items(key, &items)
    }

    /// A socket address under `key`, left out when there is none.
    pub fn opt_address(self, key: i64, addr: Option<SocketAddr>) -> MapWriter {
        match addr {
            Some(addr) => self.bytes(key, &address_bytes(addr)),
            None => self,
        }
    }

    /// An array of socket addresses under `key`.
    pub fn addresses(self, key: i64, addrs: &[SocketAddr]) -> MapWriter {
        self.byte_items(key, addrs.iter().map(|addr| address_bytes(*addr)))
    }

    /// An array of encoded items under `key`.
    pub fn raw_items(self, key: i64, items: &[Vec<u8>]) -> MapWriter {
        let mut value = encoded(|e| e.array(items.len() as u64).is_ok());
        for item in items {
            value.extend_from_slice(item);
        }
        self.raw(key, value)
    }

    /// An encoded value under `key`. A later value for the same key replaces an earlier one.
    pub fn raw(mut self, key: i64, value: Vec<u8>) -> MapWriter {
        self.entries.retain(|(k, _)| *k != key);
        self.entries.push((key, value));
        self
    }

    /// The canonical encoding.
    pub fn finish(mut self) -> Vec<u8> {
        self.entries.sort_by_key(|(key, _)| rank(*key));
        let mut out = encoded(|e| e.map(self.entries.len() as u64).is_ok());
        for (key, value) in self.entries {
            out.extend_from_slice(&encoded(|e| e.i64(key).is_ok()));
            out.extend_from_slice(&value);
        }
        out
    }
}

/// Writing to a `Vec` cannot fail, which minicbor's types do not say.
fn encoded(write: impl FnOnce(&mut Encoder<&mut Vec<u8>>) -> bool) -> Vec<u8> {
    let mut out = Vec::new();
    let written = write(&mut Encoder::new(&mut out));
    debug_assert!(written, "encoding into a Vec cannot fail");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_map() {
        let bytes = MapWriter::new().bytes(-1, &[7]).text(2, "hi").uint(1, 500).finish();
        assert_eq!(bytes, [0xa3, 0x01, 0x19, 0x01, 0xf4, 0x02, 0x62, b'h', b'i', 0x20, 0x41, 0x07]);
        let mut map = MapReader::parse(&bytes).unwrap();
        assert_eq!(map.uint(1), Ok(500));
        assert_eq!(map.text(2, 2), Ok("hi"));
        assert_eq!(map.array::<1>(-1), Ok([7]));
        assert_eq!(map.finish(), Ok(()));
    }

    #[test]
    fn unknown_positive_is_skipped_and_unknown_negative_refused() {
        let bytes = MapWriter::new().uint(1, 1).uint(99, 1).finish();
        let mut map = MapReader::parse(&bytes).unwrap();
        assert_eq!(map.uint(1), Ok(1));
        assert_eq!(map.finish(), Ok(()));

        let bytes = MapWriter::new().uint(1, 1).uint(-99, 1).finish();
        let mut map = MapReader::parse(&bytes).unwrap();
        assert_eq!(map.uint(1), Ok(1));
        assert_eq!(map.finish(), Err(DecodeError::MustUnderstand(-99)));
    }

    #[test]
    fn repeated_and_unordered_keys_are_refused() {
        assert_eq!(MapReader::parse(&[0xa2, 1, 1, 1, 1]).unwrap_err(), DecodeError::NotCanonical);
        assert_eq!(MapReader::parse(&[0xa2, 2, 1, 1, 1]).unwrap_err(), DecodeError::NotCanonical);
        assert_eq!(MapReader::parse(&[0xa2, 0x20, 1, 1, 1]).unwrap_err(), DecodeError::NotCanonical);
    }

    #[test]
    fn claimed_lengths_allocate_nothing() {
        assert_eq!(
            MapReader::parse(&[0xbb, 255, 255, 255, 255, 255, 255, 255, 255]).unwrap_err(),
            DecodeError::TooLarge
        );
        assert!(MapReader::parse(&[0xa1, 1, 0x5b, 0, 0, 0, 255, 0, 0, 0, 0]).is_err());
        assert_eq!(MapReader::parse(&[0xbf, 0xff]).unwrap_err(), DecodeError::NotCanonical);
    }

    #[test]
    fn nesting_is_bounded() {
        let mut deep = vec![0xa1, 1];
        deep.extend(std::iter::repeat_n(0x81, CBOR_DEPTH_MAX));
        deep.push(0);
        assert!(MapReader::parse(&deep).is_ok());
        let mut deeper = vec![0xa1, 1];
        deeper.extend(std::iter::repeat_n(0x81, CBOR_DEPTH_MAX + 1));
        deeper.push(0);
        assert_eq!(MapReader::parse(&deeper).unwrap_err(), DecodeError::TooLarge);
    }

    #[test]
    fn cut_anywhere_is_an_error() {
        let bytes = MapWriter::new().bytes(1, &[1, 2, 3]).byte_items(2, [[1u8; 4], [2; 4]]).finish();
        for cut in 0..bytes.len() {
            assert!(MapReader::parse(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn addresses_have_one_form() {
        let v4: SocketAddr = "203.0.113.7:5061".parse().unwrap();
        let v6: SocketAddr = "[2001:db8::1]:80".parse().unwrap();
        assert_eq!(address_bytes(v4), [203, 0, 113, 7, 0x13, 0xc5]);
        assert_eq!(address_bytes("[::ffff:203.0.113.7]:5061".parse().unwrap()), address_bytes(v4));
        for addr in [v4, v6] {
            assert_eq!(parse_address(&address_bytes(addr)), Some(addr));
        }
        let mut mapped = [0; 18];
        mapped[10] = 0xff;
        mapped[11] = 0xff;
        assert_eq!(parse_address(&mapped), None);
        assert_eq!(parse_address(&[1, 2, 3]), None);
        let bytes = MapWriter::new().addresses(1, &[v4, v6]).opt_address(2, Some(v6)).finish();
        let mut map = MapReader::parse(&bytes).unwrap();
        assert_eq!(map.addresses(1, 2).unwrap(), [v4, v6]);
        assert_eq!(map.opt_address(2).unwrap(), Some(v6));
    }
}
