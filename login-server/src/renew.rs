//! Renewal: a node proves itself by its key alone, on its own link or through a home.
//!
//! A request is taken when it is newer, by the node's own clock, than the one answered last; the very bytes answered
//! last are answered again alike. So who carried a request gains nothing by repeating it, and a node that missed an
//! answer, or crashed before it could keep it, just asks again.

use sha2::{Digest, Sha256};
use yodel_identity::credential::Subject;
use yodel_identity::limits::CLOCK_TOLERANCE;
use yodel_identity::login::{Refusal, Renewal};
use yodel_identity::name::AccountName;
use yodel_identity::node::OwnerTag;
use yodel_wire::frame::FrameKind;
use yodel_wire::machine::LinkId;
use yodel_wire::time::Now;

use crate::publish::Publish;
use crate::server::{LoginServer, Then};
use crate::state::{Change, Held};
use crate::tables::Issued;

impl LoginServer {
    pub(crate) fn renew(&mut self, now: Now, id: LinkId, body: &[u8]) -> Result<(), Refusal> {
        let renewal = Renewal::decode_unverified(body).map_err(|_| Refusal::Malformed)?;
        renewal.check_proof().map_err(|_| Refusal::Proof)?;
        self.realm
            .verify_credential_ignoring_dates(renewal.credential.bytes())
            .map_err(|_| Refusal::Proof)?;
        let node = renewal.credential.node;
        if self.state.revoked.contains_key(&node) {
            return Err(Refusal::Revoked);
        }
        if renewal.at > now.unix + CLOCK_TOLERANCE {
            // Taken, it would lock the node out until that time has come.
            return Err(Refusal::Stale);
        }
        let held = match &renewal.credential.subject {
            Subject::Device { account, .. } => Held::Account(account.clone()),
            Subject::Supernode { .. } => Held::Supernode(node),
        };
        if self.state.is_held(&held) {
            self.defer(id, FrameKind::Renew, body);
            return Ok(());
        }
        if let Err(wait) = self.renewals.take(now.mono, &node) {
            self.refuse_for(id, wait);
            return Ok(());
        }
        match renewal.credential.subject.clone() {
            Subject::Device { account, .. } => self.renew_device(now, id, &account, &renewal),
            Subject::Supernode { owner } => self.renew_supernode(now, id, owner, &renewal),
        }
    }

    fn renew_device(
        &mut self,
        now: Now,
        id: LinkId,
        name: &AccountName,
        renewal: &Renewal,
    ) -> Result<(), Refusal> {
        let node = renewal.credential.node;
        let account = self.state.accounts.get(name).ok_or(Refusal::Revoked)?;
        let device = account.devices.get(&node).ok_or(Refusal::Revoked)?;
        if account.suspended {
            return Err(Refusal::Suspended);
        }
        if device.credential.key != renewal.credential.key {
            return Err(Refusal::Proof);
        }
        match answered(device, renewal)? {
            Answered::Already => {
                let frame = self.enrolled(now, name, account, &device.credential, false)?;
                self.write(id, frame);
                return Ok(());
            }
            Answered::NotYet => {}
        }
        let mut account = account.clone();
        let mut change = Change::default();
        let serial = self.state.next_serial(&mut change);
        let roles = renewal.credential.roles;
        let credential = self.device_credential(
            now,
            name,
            account.root,
            renewal.credential.key,
            renewal.sealing,
            node,
            roles,
            serial,
        )?;
        account.devices.insert(node, issued(credential.clone(), renewal));
        let frames = vec![(id, self.enrolled(now, name, &account, &credential, false)?)];
        self.state.put_account(&mut change, name, Some(account));
        self.commit(change, Then { frames, asked: Some(id), ..Then::default() });
        Ok(())
    }

    fn renew_supernode(
        &mut self,
        now: Now,
        id: LinkId,
        owner: OwnerTag,
        renewal: &Renewal,
    ) -> Result<(), Refusal> {
        let node = renewal.credential.node;
        let supernode = self.state.supernodes.get(&node).ok_or(Refusal::Revoked)?;
        if supernode.issued.credential.key != renewal.credential.key {
            return Err(Refusal::Proof);
        }
        match answered(&supernode.issued, renewal)? {
            Answered::Already => {
                let frame = self.supernode_enrolled(&supernode.issued.credential.clone());
                self.write(id, frame);
                return Ok(());
            }
            Answered::NotYet => {}
        }
        let mut supernode = supernode.clone();
        let mut change = Change::default();
        let serial = self.state.next_serial(&mut change);
        let key = renewal.credential.key;
        let credential = self.supernode_credential(now, owner, key, renewal.sealing, node, serial)?;
        supernode.issued = issued(credential.clone(), renewal);
        // Whoever meets it elsewhere is shown its newest credential by itself.
        let publish = if self.publisher.names(node) { Publish::Soon } else { Publish::Nothing };
        self.state.put_supernode(&mut change, node, Some(supernode));
        let frames = vec![(id, self.supernode_enrolled(&credential))];
        self.commit(change, Then { frames, asked: Some(id), publish, ..Then::default() });
        Ok(())
    }
}

enum Answered {
    Already,
    NotYet,
}

fn answered(last: &Issued, renewal: &Renewal) -> Result<Answered, Refusal> {
    if last.request == request_hash(renewal) {
        return Ok(Answered::Already);
    }
    if renewal.at > last.asked { Ok(Answered::NotYet) } else { Err(Refusal::Stale) }
}

fn issued(credential: yodel_identity::credential::Credential, renewal: &Renewal) -> Issued {
    Issued { credential, asked: renewal.at, request: request_hash(renewal) }
}

fn request_hash(renewal: &Renewal) -> [u8; 32] {
    Sha256::digest(renewal.bytes()).into()
}
