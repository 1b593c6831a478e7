//! Supernodes come, serve and leave.

use std::net::{IpAddr, SocketAddr};

use yodel_identity::credential::{Credential, CredentialFields, IssuerId, Roles, Subject};
use yodel_identity::invitation::InvitationRole;
use yodel_identity::keys::{PublicKey, SealingPublic};
use yodel_identity::limits::SUPERNODE_CREDENTIAL_LIFE;
use yodel_identity::login::{Body, Refusal, SupernodeEnrol, SupernodeEnrolled, SupernodeState};
use yodel_identity::node::{NodeId, OwnerTag};
use yodel_wire::frame::{Frame, FrameKind};
use yodel_wire::machine::LinkId;
use yodel_wire::time::Now;

use crate::publish::Publish;
use crate::server::{LoginServer, Then};
use crate::state::{Change, Held};
use crate::tables::{Issued, Supernode, invitation_key};

impl LoginServer {
    pub(crate) fn supernode_enrol(&mut self, now: Now, id: LinkId, body: &[u8]) -> Result<(), Refusal> {
        let enrol = SupernodeEnrol::decode(body).map_err(|_| Refusal::Malformed)?;
        if !self.allow_attempt(now, id, None) {
            return Ok(());
        }
        let Some(key) = self.links.get(&id).map(|link| link.key) else { return Ok(()) };
        let invitation = invitation_key(&enrol.secret);
        // One that did not get its answer asks again.
        let known = self.state.supernode_with(&key);
        let same = known
            .filter(|(_, supernode)| supernode.invitation == invitation)
            .map(|(node, supernode)| (node, supernode.issued.credential.clone()));
        let known = known.is_some();
        if let Some((node, credential)) = same
            && credential.sealing == enrol.sealing
            && credential.not_after > now.unix
        {
            if self.state.revoked.contains_key(&node) {
                return Err(Refusal::Revoked);
            }
            if self.state.is_held(&Held::Supernode(node)) {
                self.defer(id, FrameKind::SupernodeEnrol, body);
                return Ok(());
            }
            let frame = self.supernode_enrolled(&credential);
            self.write(id, frame);
            return Ok(());
        }
        if known {
            return Err(Refusal::Invitation);
        }
        let entry = self.state.invitations.get(&invitation).ok_or(Refusal::Invitation)?;
        let owner = match entry.owner {
            Some(owner) if entry.role == InvitationRole::Supernode => owner,
            _ => return Err(Refusal::Invitation),
        };
        if entry.uses_left == 0 || entry.expires < now.unix {
            return Err(Refusal::Invitation);
        }
        let mut change = Change::default();
        let slot = self.state.next_slot(&mut change, owner);
        let node = NodeId::derive(&self.keys.realm_secret, owner, slot);
        let serial = self.state.next_serial(&mut change);
        let credential = self.supernode_credential(now, owner, key, enrol.sealing, node, serial)?;
        self.state.use_invitation(&mut change, invitation);
        let supernode = Supernode {
            issued: Issued::first(credential.clone()),
            invitation,
            serving: false,
            udp: enrol.udp,
            tcp: enrol.tcp,
        };
        self.state.put_supernode(&mut change, node, Some(supernode));
        let frames = vec![(id, self.supernode_enrolled(&credential))];
        self.commit(
            change,
            Then { frames, asked: Some(id), changed: Some("supernode enrolled"), ..Then::default() },
        );
        Ok(())
    }

    pub(crate) fn supernode_credential(
        &self,
        now: Now,
        owner: OwnerTag,
        key: PublicKey,
        sealing: SealingPublic,
        node: NodeId,
        serial: u64,
    ) -> Result<Credential, Refusal> {
        let fields = CredentialFields {
            realm: self.keys.realm.clone(),
            subject: Subject::Supernode { owner },
            key,
            sealing,
            node,
            roles: Roles::SUPERNODE,
            not_before: now.unix,
            not_after: now.unix + SUPERNODE_CREDENTIAL_LIFE,
            serial,
            issuer: IssuerId::default(),
        };
        Credential::issue(&self.keys.issuer, fields).map_err(|_| Refusal::Malformed)
    }

    pub(crate) fn supernode_enrolled(&self, credential: &Credential) -> Frame {
        SupernodeEnrolled {
            credential: credential.bytes().to_vec(),
            statement: self.keys.statement.bytes().to_vec(),
            bulletin: self.publisher.bytes(),
        }
        .frame()
    }

    /// The bulletin that follows is the answer.
    pub(crate) fn supernode_state(&mut self, now: Now, id: LinkId, body: &[u8]) -> Result<(), Refusal> {
        let said = SupernodeState::decode(body).map_err(|_| Refusal::Malformed)?;
        let node = self.name_supernode(id).ok_or(Refusal::Proof)?;
        if self.state.revoked.contains_key(&node) {
            return Err(Refusal::Revoked);
        }
        if self.state.is_held(&Held::Supernode(node)) {
            self.defer(id, FrameKind::SupernodeState, body);
            return Ok(());
        }
        let usable =
            |addrs: &[SocketAddr]| addrs.iter().all(|addr| addr.port() != 0 && is_unicast(addr.ip()));
        if said.ready && (said.udp.is_empty() || !usable(&said.udp) || !usable(&said.tcp)) {
            return Err(Refusal::Malformed);
        }
        let Some(known) = self.state.supernodes.get(&node) else { return Err(Refusal::Proof) };
        let mut next = known.clone();
        next.serving = said.ready;
        if said.ready {
            next.udp = said.udp;
            next.tcp = said.tcp;
        }
        let named = self.publisher.names(node);
        if next == *known {
            // In a large realm who was named once is content.
            let wants_naming = said.ready && !named && !(said.named && self.publisher.is_full());
            if wants_naming {
                self.state.roster.came(node);
            }
            if wants_naming || (named && !said.ready) {
                self.publisher.changed(now.mono, Publish::Soon);
                self.publish_if_due(now);
            }
            return Ok(());
        }
        let mut change = Change::default();
        self.state.put_supernode(&mut change, node, Some(next));
        if said.ready {
            self.state.roster.came(node);
        }
        let publish = if said.ready || named { Publish::Soon } else { Publish::Nothing };
        let changed = Some(if said.ready { "supernode serves" } else { "supernode leaves" });
        self.commit(change, Then { asked: Some(id), publish, changed, ..Then::default() });
        Ok(())
    }

    /// Finds out which supernode the link's key is, and notes it on the link.
    pub(crate) fn name_supernode(&mut self, id: LinkId) -> Option<NodeId> {
        let link = self.links.get_mut(&id)?;
        if link.supernode.is_none() {
            let key = link.key;
            link.supernode = self.state.supernode_with(&key).map(|(node, _)| node);
            if let Some(node) = link.supernode {
                self.state.roster.linked(node, id);
            }
        }
        self.links.get(&id).and_then(|link| link.supernode)
    }
}

fn is_unicast(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => !v4.is_unspecified() && !v4.is_multicast() && !v4.is_broadcast(),
        IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_multicast(),
    }
}
