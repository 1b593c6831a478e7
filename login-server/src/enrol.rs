//! Accounts are opened and devices signed in.

use yodel_identity::account::{AccountCertificate, AccountCertificateFields, AccountRecord};
use yodel_identity::credential::{Credential, CredentialFields, IssuerId, Roles, Subject};
use yodel_identity::invitation::InvitationRole;
use yodel_identity::keys::{PublicKey, SealingPublic};
use yodel_identity::limits::{ACCOUNT_CERTIFICATE_LIFE, DEVICE_CREDENTIAL_LIFE, DEVICES_MAX};
use yodel_identity::login::{
    AccountRecordKept, AccountRecordOffer, Body, Enrolled, LoginFinish, LoginResponse, LoginStart, Refusal,
    RegisterFinish, RegisterResponse, RegisterStart,
};
use yodel_identity::name::{AccountName, Aor};
use yodel_identity::node::{NodeId, OwnerTag};
use yodel_wire::frame::{Frame, FrameKind};
use yodel_wire::machine::LinkId;
use yodel_wire::time::Now;

use crate::server::{Exchange, LoginServer, Then};
use crate::state::{Change, Held};
use crate::tables::{Account, Issued, invitation_key};

impl LoginServer {
    pub(crate) fn register_start(&mut self, now: Now, id: LinkId, body: &[u8]) -> Result<(), Refusal> {
        let start = RegisterStart::decode(body).map_err(|_| Refusal::Malformed)?;
        if !self.allow_attempt(now, id, None) {
            return Ok(());
        }
        let invitation = invitation_key(&start.secret);
        self.may_register(now, invitation, &start.user)?;
        let response = self
            .keys
            .opaque
            .register(&self.aor(&start.user), &start.opaque)
            .map_err(|_| Refusal::Malformed)?;
        if let Some(link) = self.links.get_mut(&id) {
            link.exchange = Exchange::Registering { invitation, user: start.user };
        }
        self.write(id, RegisterResponse { opaque: response }.frame());
        Ok(())
    }

    pub(crate) fn register_finish(&mut self, now: Now, id: LinkId, body: &[u8]) -> Result<(), Refusal> {
        let finish = RegisterFinish::decode(body).map_err(|_| Refusal::Malformed)?;
        let Some(link) = self.links.get_mut(&id) else { return Ok(()) };
        let key = link.key;
        let Exchange::Registering { invitation, user } =
            std::mem::replace(&mut link.exchange, Exchange::Nothing)
        else {
            return Err(Refusal::Malformed);
        };
        finish.check_proof(&self.aor(&user), &key).map_err(|_| Refusal::Proof)?;
        let role = self.may_register(now, invitation, &user)?;
        if self.state.is_held(&Held::Account(user.clone())) {
            return Err(Refusal::UserTaken);
        }
        let opaque = self.keys.opaque.record(&finish.opaque).map_err(|_| Refusal::Malformed)?;
        let mut account = Account {
            opaque,
            root: finish.root,
            sealed_root: finish.sealed_root,
            created: now.unix,
            suspended: false,
            devices: Default::default(),
            record: None,
        };
        let roles = match role {
            InvitationRole::Gateway => Roles::USER.with(Roles::GATEWAY),
            InvitationRole::User | InvitationRole::Supernode => Roles::USER,
        };
        let mut change = Change::default();
        let credential =
            self.add_device(now, &mut change, &user, &mut account, key, finish.sealing, roles)?;
        let frames = vec![(id, self.enrolled(now, &user, &account, &credential, false)?)];
        self.state.use_invitation(&mut change, invitation);
        self.state.put_account(&mut change, &user, Some(account));
        let changed = Some("account opened");
        self.commit(change, Then { frames, asked: Some(id), changed, ..Then::default() });
        Ok(())
    }

    /// Whether this invitation opens this account. Who holds an invitation may learn that a name is taken: it is how
    /// a further device finds out that it has to sign in.
    fn may_register(
        &self,
        now: Now,
        invitation: [u8; 16],
        user: &AccountName,
    ) -> Result<InvitationRole, Refusal> {
        let entry = self.state.invitations.get(&invitation).ok_or(Refusal::Invitation)?;
        let other_user = entry.user.as_ref().is_some_and(|only| only != user);
        if entry.role == InvitationRole::Supernode || other_user {
            return Err(Refusal::Invitation);
        }
        if user.is_reserved() {
            return Err(Refusal::UserReserved);
        }
        if self.state.accounts.contains_key(user) {
            return Err(Refusal::UserTaken);
        }
        if entry.uses_left == 0 || entry.expires < now.unix {
            return Err(Refusal::Invitation);
        }
        Ok(entry.role)
    }

    pub(crate) fn login_start(&mut self, now: Now, id: LinkId, body: &[u8]) -> Result<(), Refusal> {
        let start = LoginStart::decode(body).map_err(|_| Refusal::Malformed)?;
        if !self.allow_attempt(now, id, Some(&start.user)) {
            return Ok(());
        }
        let Some(link) = self.links.get(&id) else { return Ok(()) };
        let aor = self.aor(&start.user);
        let record = self.state.accounts.get(&start.user).map(|account| account.opaque.as_slice());
        let (pending, response) = self
            .keys
            .opaque
            .login(&mut self.rng, &aor, &link.exporter, record, &start.opaque)
            .map_err(|_| Refusal::Malformed)?;
        if let Some(link) = self.links.get_mut(&id) {
            link.exchange = Exchange::SigningIn(Box::new(pending));
        }
        self.write(id, LoginResponse { opaque: response }.frame());
        Ok(())
    }

    pub(crate) fn login_finish(&mut self, now: Now, id: LinkId, body: &[u8]) -> Result<(), Refusal> {
        let finish = LoginFinish::decode(body).map_err(|_| Refusal::Malformed)?;
        let Some(link) = self.links.get_mut(&id) else { return Ok(()) };
        let key = link.key;
        let Exchange::SigningIn(pending) = std::mem::replace(&mut link.exchange, Exchange::Nothing) else {
            return Err(Refusal::Malformed);
        };
        let user = pending.aor().user.clone();
        pending.finish(&finish.opaque).map_err(|_| Refusal::Password)?;
        // From here on the peer has the password: what it learns is its own.
        let mut account = self.state.accounts.get(&user).cloned().ok_or(Refusal::Password)?;
        if account.suspended {
            return Err(Refusal::Suspended);
        }
        if self.state.is_held(&Held::Account(user.clone())) {
            self.refuse_held(id);
            return Ok(());
        }
        let mut change = Change::default();
        let roles = account.devices.values().next().map_or(Roles::USER, |device| device.credential.roles);
        let known = account
            .device_of_key(&key)
            .map(|device| device.credential.clone())
            .filter(|credential| credential.sealing == finish.sealing && credential.not_after > now.unix);
        let credential = match known {
            // It did not get its answer and asks again.
            Some(credential) => credential,
            None if account.device_of_key(&key).is_some() => return Err(Refusal::Stale),
            None => self.add_device(now, &mut change, &user, &mut account, key, finish.sealing, roles)?,
        };
        let frames = vec![(id, self.enrolled(now, &user, &account, &credential, true)?)];
        self.state.put_account(&mut change, &user, Some(account));
        let changed = Some("device signed in");
        self.commit(change, Then { frames, asked: Some(id), changed, ..Then::default() });
        Ok(())
    }

    /// A device hands in the list that it signed with the account's root key.
    pub(crate) fn account_record(&mut self, now: Now, id: LinkId, body: &[u8]) -> Result<(), Refusal> {
        let offer = AccountRecordOffer::decode(body).map_err(|_| Refusal::Malformed)?;
        let Some(link) = self.links.get(&id) else { return Ok(()) };
        let record: AccountRecord =
            self.realm.verify_account_record(&offer.record, now.unix).map_err(|_| Refusal::Proof)?;
        let name = record.account.user.clone();
        let account = self.state.accounts.get(&name).ok_or(Refusal::Proof)?;
        // From the device itself or through a home: who signed it is what counts, this keeps passers-by out.
        let home = || self.state.supernodes.values().any(|node| node.issued.credential.key == link.key);
        if account.root != record.root || (account.device_of_key(&link.key).is_none() && !home()) {
            return Err(Refusal::Proof);
        }
        if self.state.is_held(&Held::Account(name.clone())) {
            self.defer(id, FrameKind::AccountRecord, body);
            return Ok(());
        }
        let kept = AccountRecordKept { version: record.version }.frame();
        match &account.record {
            Some(known) if known.bytes() == record.bytes() => {
                self.write(id, kept);
                return Ok(());
            }
            Some(known) if known.version >= record.version => return Err(Refusal::Record),
            _ => {}
        }
        let certified = |device: &Credential| {
            account.devices.get(&device.node).is_some_and(|issued| issued.credential.key == device.key)
        };
        if !record.devices.iter().all(certified) {
            return Err(Refusal::Record);
        }
        let mut account = account.clone();
        account.record = Some(record);
        let mut change = Change::default();
        self.state.put_account(&mut change, &name, Some(account));
        self.commit(change, Then { frames: vec![(id, kept)], asked: Some(id), ..Then::default() });
        Ok(())
    }

    /// Gives the account a device with a node id of its own.
    #[expect(clippy::too_many_arguments, reason = "each is another field of the credential")]
    fn add_device(
        &mut self,
        now: Now,
        change: &mut Change,
        name: &AccountName,
        account: &mut Account,
        key: PublicKey,
        sealing: SealingPublic,
        roles: Roles,
    ) -> Result<Credential, Refusal> {
        if account.devices.len() >= DEVICES_MAX {
            return Err(Refusal::TooManyDevices);
        }
        let owner = OwnerTag::of_account(&self.keys.realm_secret, name);
        let slot = self.state.next_slot(change, owner);
        let node = NodeId::derive(&self.keys.realm_secret, owner, slot);
        let serial = self.state.next_serial(change);
        let credential =
            self.device_credential(now, name, account.root, key, sealing, node, roles, serial)?;
        account.devices.insert(node, Issued::first(credential.clone()));
        Ok(credential)
    }

    #[expect(clippy::too_many_arguments, reason = "each is another field of the credential")]
    pub(crate) fn device_credential(
        &self,
        now: Now,
        name: &AccountName,
        root: PublicKey,
        key: PublicKey,
        sealing: SealingPublic,
        node: NodeId,
        roles: Roles,
        serial: u64,
    ) -> Result<Credential, Refusal> {
        let fields = CredentialFields {
            realm: self.keys.realm.clone(),
            subject: Subject::Device { account: name.clone(), root },
            key,
            sealing,
            node,
            roles,
            not_before: now.unix,
            not_after: now.unix + DEVICE_CREDENTIAL_LIFE,
            serial,
            issuer: IssuerId::default(),
        };
        Credential::issue(&self.keys.issuer, fields).map_err(|_| Refusal::Malformed)
    }

    /// What a device gets.
    pub(crate) fn enrolled(
        &self,
        now: Now,
        name: &AccountName,
        account: &Account,
        credential: &Credential,
        with_sealed_root: bool,
    ) -> Result<Frame, Refusal> {
        let fields = AccountCertificateFields {
            account: self.aor(name),
            root: account.root,
            not_before: now.unix,
            not_after: now.unix + ACCOUNT_CERTIFICATE_LIFE,
            issuer: IssuerId::default(),
        };
        let certificate =
            AccountCertificate::issue(&self.keys.issuer, fields).map_err(|_| Refusal::Malformed)?;
        let enrolled = Enrolled {
            credential: credential.bytes().to_vec(),
            certificate: certificate.bytes().to_vec(),
            statement: self.keys.statement.bytes().to_vec(),
            bulletin: self.publisher.bytes(),
            sealed_root: with_sealed_root.then(|| account.sealed_root.clone()),
            account_record: account.record.as_ref().map(|record| record.bytes().to_vec()),
        };
        Ok(enrolled.frame())
    }

    pub(crate) fn aor(&self, user: &AccountName) -> Aor {
        Aor { user: user.clone(), realm: self.keys.realm.clone() }
    }
}
