//! The **root statement**: what the realm's root key, which every invitation pins, says about the login server: which
//! keys issue credentials and when, which keys it proves on its links, and where it answers.

use yodel_wire::codec::{DecodeError, MapReader, MapWriter, item_bytes};
use yodel_wire::time::UnixTime;

use crate::account::realm_name;
use crate::credential::seconds;
use crate::keys::{Context, PublicKey, SigningKey};
use crate::limits::{HOST_PORT_BYTES_MAX, ISSUERS_MAX, SERVERS_MAX, STATEMENT_BYTES_MAX, TLS_KEYS_MAX};
use crate::name::RealmName;
use crate::signed::{Record, Signed};

/// A signed root statement with its exact bytes.
pub type RootStatement = Signed<RootStatementFields>;

/// What the realm's root key says. Keys: 1 version, 2 realm, 3 issued, 4 issuer keys (maps of 1 key, 2 not before,
/// 3 not after), 5 TLS keys, 6 addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootStatementFields {
    /// The realm.
    pub realm: RealmName,
    /// When it was signed, whole seconds; a later one replaces an earlier.
    pub issued: UnixTime,
    /// Keys that sign credentials and bulletins, at most [`ISSUERS_MAX`].
    pub issuers: Vec<IssuerKey>,
    /// Keys the login server may prove on its links, at most [`TLS_KEYS_MAX`].
    pub tls_keys: Vec<PublicKey>,
    /// Where the login server answers, `host:port` each, at most [`SERVERS_MAX`].
    pub servers: Vec<String>,
}

/// An issuer key and when it signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IssuerKey {
    /// The key.
    pub key: PublicKey,
    /// Start of its use, whole seconds.
    pub not_before: UnixTime,
    /// End of its use, whole seconds.
    pub not_after: UnixTime,
}

impl RootStatement {
    /// Signs a statement with the realm's root key.
    ///
    /// # Errors
    /// When a field breaks its bounds.
    pub fn issue(root: &SigningKey, fields: &RootStatementFields) -> Result<RootStatement, DecodeError> {
        Signed::sign(root, fields)
    }
}

impl Record for RootStatementFields {
    const CONTEXT: Context = Context::RootStatement;
    const BYTES_MAX: usize = STATEMENT_BYTES_MAX;

    fn encode(&self) -> Vec<u8> {
        let issuers: Vec<Vec<u8>> = self
            .issuers
            .iter()
            .map(|issuer| {
                MapWriter::new()
                    .bytes(1, &issuer.key.0)
                    .uint(2, issuer.not_before.as_secs())
                    .uint(3, issuer.not_after.as_secs())
                    .finish()
            })
            .collect();
        let servers: Vec<&[u8]> = self.servers.iter().map(String::as_bytes).collect();
        MapWriter::new()
            .uint(1, 1)
            .text(2, self.realm.as_str())
            .uint(3, self.issued.as_secs())
            .raw_items(4, &issuers)
            .byte_items(5, self.tls_keys.iter().map(|key| key.0))
            .byte_items(6, servers)
            .finish()
    }

    fn decode(body: &[u8]) -> Result<RootStatementFields, DecodeError> {
        let mut map = MapReader::parse(body)?;
        if map.uint(1)? != 1 {
            return Err(DecodeError::OutOfBounds(1));
        }
        let realm = realm_name(&mut map, 2)?;
        let issued = seconds(&mut map, 3)?;
        let mut issuers = Vec::new();
        for raw in map.items(4, ISSUERS_MAX)? {
            let mut issuer = MapReader::parse(raw)?;
            issuers.push(IssuerKey {
                key: PublicKey(issuer.array(1)?),
                not_before: seconds(&mut issuer, 2)?,
                not_after: seconds(&mut issuer, 3)?,
            });
            issuer.finish()?;
        }
        if issuers.is_empty() {
            return Err(DecodeError::OutOfBounds(4));
        }
        let mut tls_keys = Vec::new();
        for raw in map.items(5, TLS_KEYS_MAX)? {
            let key = item_bytes(raw)?;
            tls_keys.push(PublicKey(key.try_into().map_err(|_| DecodeError::OutOfBounds(5))?));
        }
        let mut servers = Vec::new();
        for raw in map.items(6, SERVERS_MAX)? {
            servers.push(host_port(item_bytes(raw)?).ok_or(DecodeError::OutOfBounds(6))?);
        }
        map.finish()?;
        Ok(RootStatementFields { realm, issued, issuers, tls_keys, servers })
    }
}

/// A `host:port` in printable ASCII.
pub(crate) fn host_port(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (host, port) = text.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    let printable = text.bytes().all(|b| b.is_ascii_graphic());
    (text.len() <= HOST_PORT_BYTES_MAX && !host.is_empty() && port != 0 && printable).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::BadSignature;
    use crate::realm::{Realm, RealmError};
    use crate::sample::*;
    use crate::signed::SignedError;

    const SIGNATURE: RealmError = RealmError::Signed(SignedError::Signature(BadSignature));

    #[test]
    fn golden_statement() {
        golden("root-statement", statement().bytes());
        assert_eq!(
            RootStatement::decode_unverified(statement().bytes()).unwrap().fields(),
            &statement_fields()
        );
    }

    #[test]
    fn every_field_of_the_statement_stands_under_the_roots_signature() {
        let fields = statement_fields();
        let issuer_key = |change: fn(&mut IssuerKey)| {
            let mut fields = fields.clone();
            change(&mut fields.issuers[0]);
            fields
        };
        let forgeries = [
            RootStatementFields { realm: RealmName::parse("example.org").unwrap(), ..fields.clone() },
            RootStatementFields { issued: T0 + secs(1), ..fields.clone() },
            issuer_key(|issuer| issuer.key = account_root().public()),
            issuer_key(|issuer| issuer.not_before = T0 - days(1)),
            issuer_key(|issuer| issuer.not_after = T0 + days(1)),
            RootStatementFields { tls_keys: vec![account_root().public()], ..fields.clone() },
            RootStatementFields { servers: vec!["203.0.113.66:4433".to_owned()], ..fields.clone() },
        ];
        for forgery in forgeries {
            let mut realm = Realm::new(example_net(), root().public());
            let refused = realm.accept_statement(&forge(&statement(), &forgery), T0);
            assert_eq!(refused, Err(SIGNATURE), "{forgery:?}");
        }
    }

    #[test]
    fn addresses_of_the_login_server_are_host_and_port() {
        for good in ["198.51.100.1:4433", "[2001:db8::1]:443", "login.example.net:1"] {
            assert_eq!(host_port(good.as_bytes()).as_deref(), Some(good));
        }
        for bad in ["", ":1", "host", "host:", "host:0", "host:65536", "ho st:1", "h\u{f6}st:1", "host:1\n"] {
            assert_eq!(host_port(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
