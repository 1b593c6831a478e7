//! Messages outside calls: contact requests, tags, texts. Each goes to every device of the account, sealed for it; one
//! that acknowledges in its box is enough.

use std::collections::BTreeMap;

use yodel_identity::keys::SealingPublic;
use yodel_identity::name::Aor;
use yodel_overlay::verify::LookupResult;
use yodel_sip::message::Request;
use yodel_sip::method::Method as SipMethod;
use yodel_sip::transaction::{ClientOutput, Key};
use yodel_wire::time::{Instant, Now};

use crate::boxes::{Boxes, Opened, Sealed};
use crate::cause::Cause;
use crate::device::{Device, HELLO_TYPE, Peer};
use crate::event::{CallsOutput, MessageId};
use crate::handshake::{Callee, Initiator};
use crate::life::Asked;
use crate::limits::{LEGS_MAX, LOOKUP_WITHIN, MESSAGES_MAX, REQUEST_WITHIN};
use crate::statement::{Kind, Parties, Party};
use crate::terms::Terms;
use crate::timeline::Method;

/// All messages that are being sent.
#[derive(Default)]
pub(crate) struct Messages {
    running: BTreeMap<MessageId, Outgoing>,
    next: u64,
}

struct Outgoing {
    to: Aor,
    body: Vec<u8>,
    asked: Option<Asked>,
    reread: bool,
    until: Instant,
    legs: Vec<MessageLeg>,
    cause: Cause,
}

struct MessageLeg {
    peer: Peer,
    nonce: [u8; 16],
    call_id: String,
    boxes: Boxes,
    over: bool,
}

impl Messages {
    pub(crate) fn send(&mut self, now: Now, device: &mut Device, to: Aor, body: Vec<u8>) -> MessageId {
        self.next += 1;
        let id = MessageId(self.next);
        if self.running.len() >= MESSAGES_MAX {
            let result = Err(Cause::LookupOverlayUnreachable);
            device.out.push_back(CallsOutput::MessageDone { id, result });
            return id;
        }
        let mut outgoing = Outgoing {
            to,
            body,
            asked: None,
            reread: false,
            until: now.mono + REQUEST_WITHIN + LOOKUP_WITHIN,
            legs: Vec::new(),
            cause: Cause::PeerOffline,
        };
        outgoing.ask(now, device, false);
        self.running.insert(id, outgoing);
        id
    }

    /// True when the lookup was one of these.
    pub(crate) fn handle_lookup(
        &mut self,
        now: Now,
        device: &mut Device,
        id: crate::event::LookupId,
        result: &LookupResult,
    ) -> bool {
        let Some(outgoing) =
            self.running.values_mut().find(|outgoing| outgoing.asked.is_some_and(|asked| asked.id == id))
        else {
            return false;
        };
        outgoing.found(now, device, result);
        self.settle(now, device);
        true
    }

    /// True when the output was one of these.
    pub(crate) fn client_output(
        &mut self,
        now: Now,
        device: &mut Device,
        key: &Key,
        output: &ClientOutput,
    ) -> bool {
        let Some((outgoing, at)) = self.leg_of(&key.call_id) else { return false };
        let Some(leg) = outgoing.legs.get_mut(at) else { return false };
        match output {
            ClientOutput::Send { way, request } => device.send_request(*way, &leg.peer, request),
            ClientOutput::Undelivered(reason) => {
                leg.over |= reason.is_some();
                if !outgoing.reread {
                    outgoing.ask(now, device, true);
                }
            }
            ClientOutput::TimedOut => leg.over = true,
            ClientOutput::Response(_)
            | ClientOutput::AckAgain(_)
            | ClientOutput::CancelNow(_)
            | ClientOutput::Ended => {}
        }
        self.settle(now, device);
        true
    }

    /// An answer with this Call-ID: true when it belongs here. It counts when its box opens.
    pub(crate) fn handle_answer(
        &mut self,
        now: Now,
        device: &mut Device,
        call_id: &str,
        status: u16,
        bytes: &[u8],
        response: &yodel_sip::message::Response,
    ) -> bool {
        let Some((outgoing, at)) = self.leg_of(call_id) else { return false };
        let Some(leg) = outgoing.legs.get_mut(at) else { return false };
        let Opened::Fresh(sealed) = leg.boxes.open(Method::Message, status, bytes) else { return true };
        device.tx.handle_response(now.mono, leg.peer.node, response);
        leg.over = true;
        if status / 100 == 2 {
            for leg in &outgoing.legs {
                device.tx.forget(leg.peer.node, &leg.call_id);
            }
            let id = self.id_of(call_id);
            if let Some(id) = id {
                self.running.remove(&id);
                device.out.push_back(CallsOutput::MessageDone { id, result: Ok(()) });
            }
            return true;
        }
        match sealed.cause.map(Cause::from_peer) {
            Some(cause) => outgoing.cause = cause,
            // Our entry of that device was old.
            None if !outgoing.reread => outgoing.ask(now, device, true),
            None => {}
        }
        self.settle(now, device);
        true
    }

    pub(crate) fn handle_timeout(&mut self, now: Now, device: &mut Device) {
        for outgoing in self.running.values_mut() {
            if outgoing.until <= now.mono {
                outgoing.asked = None;
                outgoing.legs.iter_mut().for_each(|leg| leg.over = true);
                outgoing.reread = true;
            } else if outgoing.asked.is_some_and(|asked| asked.until <= now.mono) {
                outgoing.asked = None;
                outgoing.reread = true;
                if outgoing.legs.is_empty() {
                    outgoing.cause = Cause::LookupOverlayUnreachable;
                }
            }
        }
        self.settle(now, device);
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.running.values().flat_map(|o| [Some(o.until), o.asked.map(|asked| asked.until)]).flatten().min()
    }

    fn leg_of(&mut self, call_id: &str) -> Option<(&mut Outgoing, usize)> {
        self.running.values_mut().find_map(|outgoing| {
            let at = outgoing.legs.iter().position(|leg| leg.call_id == call_id)?;
            Some((outgoing, at))
        })
    }

    fn id_of(&self, call_id: &str) -> Option<MessageId> {
        let has = |outgoing: &Outgoing| outgoing.legs.iter().any(|leg| leg.call_id == call_id);
        self.running.iter().find(|(_, outgoing)| has(outgoing)).map(|(id, _)| *id)
    }

    /// Gives up what nothing more can come of.
    fn settle(&mut self, now: Now, device: &mut Device) {
        let mut done = Vec::new();
        for (id, outgoing) in &mut self.running {
            if outgoing.asked.is_some() || outgoing.legs.iter().any(|leg| !leg.over) {
                continue;
            }
            if !outgoing.reread {
                outgoing.ask(now, device, true);
                continue;
            }
            done.push(*id);
        }
        for id in done {
            if let Some(outgoing) = self.running.remove(&id) {
                for leg in &outgoing.legs {
                    device.tx.forget(leg.peer.node, &leg.call_id);
                }
                device.out.push_back(CallsOutput::MessageDone { id, result: Err(outgoing.cause) });
            }
        }
    }
}

impl Outgoing {
    fn ask(&mut self, now: Now, device: &mut Device, past_cache: bool) {
        let id = device.lookup_id();
        self.asked = Some(Asked { id, until: now.mono + LOOKUP_WITHIN });
        self.reread |= past_cache;
        device.out.push_back(CallsOutput::Lookup { id, aor: self.to.clone(), past_cache });
    }

    fn found(&mut self, now: Now, device: &mut Device, result: &LookupResult) {
        let (account, entries) = match result {
            LookupResult::Found { account, entries, settled } => {
                if *settled {
                    self.asked = None;
                }
                (account, entries)
            }
            LookupResult::NoSuchAccount => {
                self.asked = None;
                self.reread = true;
                self.cause = Cause::LookupNoUser;
                return;
            }
            LookupResult::Unreachable => {
                self.asked = None;
                self.reread = true;
                self.cause = Cause::LookupOverlayUnreachable;
                return;
            }
        };
        let pinned = device.contact(&self.to).and_then(|contact| contact.root);
        if pinned.is_some_and(|pinned| pinned != account.root) || account.account != self.to {
            self.asked = None;
            self.reread = true;
            self.cause = Cause::TrustKeyChanged;
            return;
        }
        for entry in entries {
            let known = |leg: &MessageLeg| {
                let same = leg.peer.node == entry.device && leg.nonce == entry.nonce;
                same && (!leg.over || leg.peer.homes == entry.homes)
            };
            let Some(credential) = account.device(entry.device) else { continue };
            if entry.device == device.node() || self.legs.iter().any(known) || self.legs.len() >= LEGS_MAX {
                continue;
            }
            let party = Party { account: self.to.clone(), root: Some(account.root), device: credential.key };
            let callee = Callee {
                sealing: SealingPublic(credential.sealing.0),
                credential_hash: credential.hash(),
                nonce: entry.nonce,
            };
            let peer = Peer { node: entry.device, homes: entry.homes.clone() };
            if let Some(leg) = self.leg(now, device, peer, party, &callee) {
                self.legs.push(leg);
            }
        }
    }

    fn leg(
        &self,
        now: Now,
        device: &mut Device,
        peer: Peer,
        callee_party: Party,
        callee: &Callee,
    ) -> Option<MessageLeg> {
        let own = &device.identity.credential;
        let caller = Party { account: own.aor()?, root: own.root().copied(), device: own.key };
        let call_id = device.ids.call_id();
        let proof = device.proof();
        let terms = Terms { homes: device.home_ids(), message: self.body.clone(), ..Terms::default() };
        let (_, body, boxes) = Initiator::start(
            &mut device.rng,
            Kind::Message,
            &device.identity.signing,
            &proof,
            Parties { caller, callee: callee_party },
            callee,
            &call_id,
            &terms.encode(),
        )
        .ok()?;
        let request: Request =
            device.first_request(SipMethod::Message, peer.node, &call_id).with_body(HELLO_TYPE, body);
        device.tx.request(now.mono, peer.node, request, true).ok()?;
        Some(MessageLeg { peer, nonce: callee.nonce, call_id, boxes, over: false })
    }
}

/// The box of an answer to a MESSAGE.
pub(crate) fn sealed_answer(status: u16, cause: Option<Cause>) -> Sealed {
    Sealed { cause, ..Sealed::answer(Method::Message, 1, status) }
}
