//! Renewal: a node asks for its next credential and proves itself by its key alone, also with a credential that has
//! expired, directly or through a home. The body of the frame is the signed envelope itself.

use yodel_wire::codec::{DecodeError, MapReader, MapWriter};
use yodel_wire::frame::{Frame, FrameKind};
use yodel_wire::time::UnixTime;

use crate::credential::{Credential, seconds};
use crate::keys::{Context, SealingPublic, SigningKey};
use crate::limits::{CREDENTIAL_BYTES_MAX, RENEWAL_BYTES_MAX};
use crate::signed::{Record, Signed, SignedError};

/// A signed request for renewal with its exact bytes, which are the body of a `Renew` frame.
pub type Renewal = Signed<RenewalFields>;

/// What a node says to renew. Keys: 1 version, 2 newest credential, 3 new sealing key, 4 time.
///
/// Whoever carried a request may repeat it. So the server takes only requests that name the newest credential it
/// issued to the node, and answers the very bytes it answered last with the same credential again, for nodes that
/// missed the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenewalFields {
    /// The newest credential the node has, alive or not.
    pub credential: Credential,
    /// The X25519 key of the next one.
    pub sealing: SealingPublic,
    /// The node's clock, whole seconds.
    pub at: UnixTime,
}

impl Renewal {
    /// Signs a request with the node's key.
    ///
    /// # Errors
    /// When a field breaks its bounds.
    pub fn issue(node: &SigningKey, fields: &RenewalFields) -> Result<Renewal, DecodeError> {
        Signed::sign(node, fields)
    }

    /// Checks that the node of the credential signed it. Whether the credential is one is asked of
    /// [`crate::realm::Realm::verify_credential_ignoring_dates`].
    ///
    /// # Errors
    /// `Signature`.
    pub fn check_proof(&self) -> Result<(), SignedError> {
        self.verify_with(&self.credential.key)
    }

    /// The whole frame.
    pub fn frame(&self) -> Frame {
        Frame::new(FrameKind::Renew, self.bytes().to_vec())
    }
}

impl Record for RenewalFields {
    const CONTEXT: Context = Context::Renewal;
    const BYTES_MAX: usize = RENEWAL_BYTES_MAX;

    fn encode(&self) -> Vec<u8> {
        MapWriter::new()
            .uint(1, 1)
            .bytes(2, self.credential.bytes())
            .bytes(3, &self.sealing.0)
            .uint(4, self.at.as_secs())
            .finish()
    }

    fn decode(body: &[u8]) -> Result<RenewalFields, DecodeError> {
        let mut map = MapReader::parse(body)?;
        if map.uint(1)? != 1 {
            return Err(DecodeError::OutOfBounds(1));
        }
        let credential = Credential::decode_unverified(map.bytes(2, CREDENTIAL_BYTES_MAX)?)?;
        let sealing = SealingPublic(map.array(3)?);
        let at = seconds(&mut map, 4)?;
        map.finish()?;
        Ok(RenewalFields { credential, sealing, at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::BadSignature;
    use crate::limits::DEVICE_CREDENTIAL_LIFE;
    use crate::sample::*;

    fn key() -> SigningKey {
        SigningKey::from_seed([0x20; 32])
    }

    fn fields() -> RenewalFields {
        RenewalFields { credential: device(0), sealing: SealingPublic([6; 32]), at: T0 + days(1) }
    }

    #[test]
    fn golden_renewal() {
        let renewal = Renewal::issue(&key(), &fields()).unwrap();
        golden("frame-renew", &renewal.frame().body);
        let read = Renewal::decode_unverified(&renewal.frame().body).unwrap();
        assert_eq!(read.fields(), &fields());
        assert_eq!(read.check_proof(), Ok(()));
        // Also long after the credential ran out.
        let late = T0 + DEVICE_CREDENTIAL_LIFE + days(30);
        assert!(realm().verify_credential(read.credential.bytes(), late).is_err());
        assert!(realm().verify_credential_ignoring_dates(read.credential.bytes()).is_ok());
    }

    #[test]
    fn every_field_stands_under_the_nodes_signature() {
        let renewal = Renewal::issue(&key(), &fields()).unwrap();
        let other_serial = crate::credential::CredentialFields { serial: 2, ..device_fields(0) };
        let forgeries = [
            RenewalFields { credential: device(1), ..fields() },
            RenewalFields { credential: Credential::issue(&issuer(), other_serial).unwrap(), ..fields() },
            RenewalFields { sealing: SealingPublic([5; 32]), ..fields() },
            RenewalFields { at: T0 + days(2), ..fields() },
        ];
        for forgery in forgeries {
            let forged = Renewal::decode_unverified(&forge(&renewal, &forgery)).unwrap();
            assert_eq!(forged.check_proof(), Err(SignedError::Signature(BadSignature)), "{forgery:?}");
        }
        let stolen = Renewal::issue(&SigningKey::from_seed([0x21; 32]), &fields()).unwrap();
        assert!(stolen.check_proof().is_err());
    }
}
