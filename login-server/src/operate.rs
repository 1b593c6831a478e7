//! What the operator asks for.

use rand_core::RngCore;
use serde_json::{Value, json};
use yodel_identity::bulletin::Bulletin;
use yodel_identity::credential::Credential;
use yodel_identity::invitation::{Invitation, InvitationRole};
use yodel_identity::name::{AccountName, Aor};
use yodel_identity::node::{NodeId, OwnerTag, hex};
use yodel_wire::machine::LinkId;
use yodel_wire::time::{Now, UnixTime};

use crate::admin::{AdminError, AdminRequest};
use crate::limits::{INVITATION_USES_MAX, INVITATIONS_MAX, REVOKED_KEPT};
use crate::publish::Publish;
use crate::server::{Event, LoginServer, Then};
use crate::state::{Change, Held};
use crate::tables::{Account, InvitationEntry, invitation_key};

impl LoginServer {
    /// Does what the operator asks; the answer is an event, now or once it is stored.
    pub(crate) fn operate(&mut self, now: Now, id: u64, request: AdminRequest) -> Result<(), AdminError> {
        let reply = match request {
            AdminRequest::InviteCreate { user, role, uses, expires_s } => {
                return self.invite(now, id, user.as_deref(), &role, uses, expires_s);
            }
            AdminRequest::UserSuspend { name, suspended } => return self.suspend(id, &name, suspended),
            AdminRequest::UserDelete { name } => return self.delete(id, &name),
            AdminRequest::DeviceRevoke { device } => return self.revoke(id, &device),
            AdminRequest::UserList => {
                let users: Vec<Value> =
                    self.state.accounts.iter().map(|(n, a)| self.user_row(n, a)).collect();
                json!({"v": 1, "users": users})
            }
            AdminRequest::UserShow { name } => {
                let (name, account) = self.account(&name)?;
                let mut row = self.user_row(name, account);
                let devices: Vec<Value> =
                    account.devices.values().map(|d| self.device_row(now, &d.credential, account)).collect();
                if let Some(row) = row.as_object_mut() {
                    row.insert("v".into(), json!(1));
                    row.insert("devices".into(), Value::Array(devices));
                }
                row
            }
            AdminRequest::DeviceList { user } => {
                let only = user.map(|user| self.account(&user).map(|(name, _)| name.clone())).transpose()?;
                let accounts =
                    self.state.accounts.iter().filter(|(n, _)| only.as_ref().is_none_or(|o| o == *n));
                let mut rows: Vec<Value> = accounts
                    .flat_map(|(_, a)| a.devices.values().map(|d| self.device_row(now, &d.credential, a)))
                    .collect();
                if only.is_none() {
                    rows.extend(self.state.supernodes.values().map(|s| {
                        json!({
                            "node": s.issued.credential.node.to_string(),
                            "role": "supernode",
                            "owner": s.issued.credential.owner().map(|owner| hex(&owner.0)),
                            "state": self.node_state(now, &s.issued.credential),
                            "serving": s.serving,
                            "linked": self.state.roster.is_up(s.issued.credential.node),
                            "named": self.publisher.names(s.issued.credential.node),
                            "expires": s.issued.credential.not_after.as_secs(),
                            "serial": s.issued.credential.serial,
                        })
                    }));
                }
                json!({"v": 1, "devices": rows})
            }
            AdminRequest::BulletinShow => match self.publisher.bulletin() {
                Some(bulletin) => bulletin_json(now, bulletin),
                None => return Err(AdminError::failed("no bulletin could be signed yet")),
            },
            AdminRequest::Health => json!({
                "v": 1,
                "ok": self.publisher.bulletin().is_some(),
                "realm": self.keys.realm.to_string(),
                "accounts": self.state.accounts.len(),
                "supernodes": self.state.roster.serving(),
                "named": self.publisher.bulletin().map_or(0, |b| b.supernodes.len()),
                "links": self.links.len(),
                "epoch": self.publisher.bulletin().map_or(0, |b| b.epoch),
                "revoked": self.state.revoked.len(),
            }),
        };
        self.event(Event::Admin { id, reply: Ok(reply) });
        Ok(())
    }

    fn invite(
        &mut self,
        now: Now,
        id: u64,
        user: Option<&str>,
        role: &str,
        uses: u64,
        expires_s: u64,
    ) -> Result<(), AdminError> {
        let role = match role {
            "user" => InvitationRole::User,
            "supernode" => InvitationRole::Supernode,
            "gateway" => InvitationRole::Gateway,
            other => return Err(AdminError::usage(format!("no such role: {other}"))),
        };
        if uses == 0 || uses > INVITATION_USES_MAX {
            return Err(AdminError::usage(format!("--uses must be 1 to {INVITATION_USES_MAX}")));
        }
        if expires_s == 0 || expires_s > 1 << 32 {
            return Err(AdminError::usage("--expires is out of bounds"));
        }
        if self.state.invitations.len() >= INVITATIONS_MAX {
            return Err(AdminError {
                exit: 11,
                error: "there are as many invitations as there may be".into(),
            });
        }
        let user = user.map(|user| self.name(user)).transpose()?;
        if user.as_ref().is_some_and(AccountName::is_reserved) {
            return Err(AdminError::usage("no account may have this name"));
        }
        let mut change = Change::default();
        let owner = match (&user, role) {
            (Some(user), InvitationRole::Supernode) => {
                Some(OwnerTag::of_account(&self.keys.realm_secret, user))
            }
            (None, InvitationRole::Supernode) => {
                let number = self.state.count(&mut change, b"owners", 1);
                Some(OwnerTag::of_number(&self.keys.realm_secret, number))
            }
            (_, InvitationRole::User | InvitationRole::Gateway) => None,
        };
        let mut secret = [0; 16];
        self.rng.fill_bytes(&mut secret);
        let expires = UnixTime::from_secs(now.unix.as_secs() + expires_s);
        let invitation = Invitation {
            realm: self.keys.realm.clone(),
            servers: self.keys.statement.servers.clone(),
            pin: self.keys.pin,
            secret,
            user: user.clone(),
            role,
        };
        let reply = json!({
            "v": 1,
            "invite": invitation.to_string(),
            "role": role.as_str(),
            "user": user.as_ref().map(AccountName::as_str),
            "uses": uses,
            "expires": expires.as_secs(),
        });
        let entry = InvitationEntry { user, role, uses_left: uses, expires, created: now.unix, owner };
        self.state.add_invitation(&mut change, invitation_key(&secret), entry);
        self.commit(change, Then { admin: Some((id, reply)), ..Then::default() });
        Ok(())
    }

    fn suspend(&mut self, id: u64, name: &str, suspended: bool) -> Result<(), AdminError> {
        let (name, account) = self.account(name)?;
        let (name, mut account) = (name.clone(), account.clone());
        self.free_account(&name)?;
        account.suspended = suspended;
        let reply = json!({"v": 1, "user": self.aor(&name).to_string(), "suspended": suspended});
        let mut change = Change::default();
        self.state.put_account(&mut change, &name, Some(account));
        self.commit(change, Then { admin: Some((id, reply)), ..Then::default() });
        Ok(())
    }

    fn delete(&mut self, id: u64, name: &str) -> Result<(), AdminError> {
        let (name, account) = self.account(name)?;
        let (name, account) = (name.clone(), account.clone());
        self.free_account(&name)?;
        let mut change = Change::default();
        let mut close = Vec::new();
        for device in account.devices.values() {
            self.state.revoke(&mut change, device.credential.node, kept_until(&device.credential));
            close.extend(self.links_of(&device.credential));
        }
        self.state.put_account(&mut change, &name, None);
        let reply = json!({"v": 1, "user": self.aor(&name).to_string(), "deleted": true});
        self.commit(
            change,
            Then {
                admin: Some((id, reply)),
                close,
                publish: Publish::Urgently,
                changed: Some("account deleted"),
                ..Then::default()
            },
        );
        Ok(())
    }

    fn revoke(&mut self, id: u64, device: &str) -> Result<(), AdminError> {
        let wanted = device.trim().to_ascii_lowercase();
        let of_accounts = self.state.accounts.iter().flat_map(|(name, a)| {
            a.devices.values().map(move |d| (Some(name.clone()), d.credential.clone()))
        });
        let of_owners = self.state.supernodes.values().map(|s| (None, s.issued.credential.clone()));
        let mut found: Vec<(Option<AccountName>, Credential)> = of_accounts
            .chain(of_owners)
            .filter(|(_, credential)| wanted.len() >= 4 && credential.node.to_string().starts_with(&wanted))
            .collect();
        let (Some((name, credential)), true) = (found.pop(), found.is_empty()) else {
            let text =
                if found.is_empty() { "there is no such device" } else { "several devices begin like that" };
            return Err(AdminError::no_such(format!("{text}: {device}")));
        };
        let node = credential.node;
        match &name {
            Some(name) => self.free_account(name)?,
            None if self.state.is_held(&Held::Supernode(node)) => return Err(busy()),
            None => {}
        }
        let mut change = Change::default();
        self.state.revoke(&mut change, node, kept_until(&credential));
        match &name {
            Some(name) => {
                if let Some(mut account) = self.state.accounts.get(name).cloned() {
                    account.devices.remove(&node);
                    self.state.put_account(&mut change, name, Some(account));
                }
            }
            None => self.state.put_supernode(&mut change, node, None),
        }
        let reply = json!({
            "v": 1,
            "device": node.to_string(),
            "user": name.map(|name| self.aor(&name).to_string()),
            "revoked": true,
        });
        let close = self.links_of(&credential);
        self.commit(
            change,
            Then {
                admin: Some((id, reply)),
                close,
                publish: Publish::Urgently,
                changed: Some("device revoked"),
                ..Then::default()
            },
        );
        Ok(())
    }

    fn links_of(&self, credential: &Credential) -> Vec<LinkId> {
        self.links.iter().filter(|(_, link)| link.key == credential.key).map(|(id, _)| *id).collect()
    }

    fn free_account(&self, name: &AccountName) -> Result<(), AdminError> {
        if self.state.is_held(&Held::Account(name.clone())) { Err(busy()) } else { Ok(()) }
    }

    fn name(&self, text: &str) -> Result<AccountName, AdminError> {
        let name = match text.contains('@') {
            true => {
                let aor = Aor::parse(text).map_err(|error| AdminError::usage(format!("{text}: {error}")))?;
                if aor.realm != self.keys.realm {
                    return Err(AdminError::usage(format!("{text} is of another realm")));
                }
                aor.user
            }
            false => {
                AccountName::parse(text).map_err(|error| AdminError::usage(format!("{text}: {error}")))?
            }
        };
        Ok(name)
    }

    fn account(&self, text: &str) -> Result<(&AccountName, &Account), AdminError> {
        let name = self.name(text)?;
        self.state
            .accounts
            .get_key_value(&name)
            .ok_or_else(|| AdminError::no_such(format!("there is no account {text}")))
    }

    fn user_row(&self, name: &AccountName, account: &Account) -> Value {
        json!({
            "user": self.aor(name).to_string(),
            "state": if account.suspended { "suspended" } else { "active" },
            "devices": account.devices.len(),
            "created": account.created.as_secs(),
            "root": hex(&account.root.0),
        })
    }

    fn device_row(&self, now: Now, credential: &Credential, account: &Account) -> Value {
        json!({
            "node": credential.node.to_string(),
            "role": "user",
            "user": credential.aor().map(|aor| aor.to_string()),
            "state": self.node_state(now, credential),
            "listed": account.record.as_ref().is_some_and(|record| record.lists(credential)),
            "expires": credential.not_after.as_secs(),
            "serial": credential.serial,
        })
    }

    fn node_state(&self, now: Now, credential: &Credential) -> &'static str {
        if self.state.revoked.contains_key(&credential.node) {
            "revoked"
        } else if credential.not_after <= now.unix {
            "expired"
        } else {
            "active"
        }
    }
}

fn busy() -> AdminError {
    AdminError::failed("a change of it is under way; try again")
}

fn kept_until(credential: &Credential) -> UnixTime {
    credential.not_after + REVOKED_KEPT
}

fn bulletin_json(now: Now, bulletin: &Bulletin) -> Value {
    let supernodes: Vec<Value> = bulletin
        .supernodes
        .iter()
        .map(|entry| {
            json!({
                "node": entry.credential.node.to_string(),
                "owner": entry.credential.owner().map(|owner| hex(&owner.0)),
                "udp": entry.udp.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "tcp": entry.tcp.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "expires": entry.credential.not_after.as_secs(),
            })
        })
        .collect();
    let revoked: Vec<String> = bulletin.revoked_newest.keys().map(NodeId::to_string).collect();
    json!({
        "v": 1,
        "realm": bulletin.realm.to_string(),
        "epoch": bulletin.epoch,
        "issued": bulletin.issued.as_secs(),
        "age_s": now.unix.since(bulletin.issued).as_secs(),
        "supernodes": supernodes,
        "revoked": revoked,
        "revoked_pages": bulletin.revoked_pages,
    })
}
