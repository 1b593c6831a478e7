//! Errands: what attached devices ask of the login server when they cannot reach it themselves (DESIGN §3, Credential).
//!
//! Each device's errand goes over a link of its own, opened for it, so that no answer has to be matched with a request.
//! A home only carries: what is asked is signed by the device or its account, what is answered by the issuer, and
//! nothing in it is secret. An errand ends with a refusal, with a record kept, or when it took too long.

use std::collections::BTreeMap;
use std::time::Duration;

use yodel_identity::login::{Body, LoginHello, LoginRefused, Refusal};
use yodel_identity::node::NodeId;
use yodel_wire::frame::{Frame, FrameKind};
use yodel_wire::machine::{LinkAction, LinkId, LinkTarget, Transport};
use yodel_wire::time::Now;

use crate::limits::{ERRAND, ERRANDS_MAX};
use crate::node::{Link, Role, Supernode};

/// Errands under way, by their links.
#[derive(Debug, Default)]
pub(crate) struct Errands(BTreeMap<LinkId, Errand>);

#[derive(Debug)]
struct Errand {
    device: NodeId,
    /// What is to be said once the server has said its hello; `None` from then on.
    request: Option<Frame>,
}

impl Supernode {
    /// A device asks something of the login server.
    pub(crate) fn run_errand(&mut self, now: Now, device: NodeId, from: LinkId, frame: &Frame) {
        let under_way = self.errands.0.iter_mut().find(|(_, errand)| errand.device == device);
        if let Some((id, errand)) = under_way {
            let id = *id;
            match &mut errand.request {
                // It says the same again, or something newer: nothing of it has left yet.
                Some(request) => *request = frame.clone(),
                None => self.write(id, frame.clone()),
            }
            return;
        }
        let wait = if self.errands.0.len() >= ERRANDS_MAX { ERRAND } else { Duration::ZERO };
        let target = self.login_target(self.errands_run).filter(|_| wait.is_zero() && !self.stopping);
        let Some((addr, key)) = target else {
            let come_back_s = u32::try_from(wait.as_secs()).ok().filter(|secs| *secs > 0);
            let refused = LoginRefused { refusal: Refusal::Unavailable, come_back_s };
            return self.write(from, refused.frame());
        };
        self.errands_run = self.errands_run.wrapping_add(1);
        let id = self.draw_link();
        self.links.insert(id, Link::new(now.mono, Role::Errand));
        self.errands.0.insert(id, Errand { device, request: Some(frame.clone()) });
        self.act(id, LinkAction::Open(LinkTarget { addr, transport: Transport::Tls, key: Some(key) }));
    }

    /// A frame of the login server about an errand.
    pub(crate) fn errand_frame(&mut self, now: Now, id: LinkId, frame: &Frame) {
        let Some(errand) = self.errands.0.get_mut(&id) else { return self.close(now, id) };
        let device = errand.device;
        match frame.kind {
            FrameKind::LoginHello if LoginHello::decode(&frame.body).is_ok() => {
                if let Some(request) = errand.request.take() {
                    self.write(id, request);
                }
            }
            FrameKind::Enrolled => self.hand_to_device(device, frame),
            FrameKind::LoginRefused | FrameKind::AccountRecordKept => {
                self.hand_to_device(device, frame);
                self.close(now, id);
            }
            // Nothing else answers what a device may ask this way.
            _ => self.close(now, id),
        }
    }

    /// The link of an errand ended; the device asks again when it got no answer.
    pub(crate) fn errand_closed(&mut self, id: LinkId) {
        self.errands.0.remove(&id);
    }

    fn hand_to_device(&mut self, device: NodeId, frame: &Frame) {
        if let Some(link) = self.devices.get(&device).and_then(|device| device.links.last().copied()) {
            self.write(link, frame.clone());
        }
    }
}
