//! `echo`: the account that every home answers itself, under its supernode credential, and that sends back what it
//! hears. It is a `call::Calls` like a phone's, with the role that answers at once; this file puts it beside the home:
//! its SIP goes into the same routes, its relay sessions are joined without a link.

use std::net::SocketAddr;

use yodel_call::call::Calls;
use yodel_call::event::{
    CallsOutput, CodecFactory, Config, Home, Identity, LookupResult, RelayLink, Role, echo_nonce,
};
use yodel_media::Codec;
use yodel_relay::server::LinkFacts;
use yodel_sip::envelope::Envelope;
use yodel_wire::frame::Frame;
use yodel_wire::machine::{LinkId, Output, Transport};
use yodel_wire::time::Now;

use crate::keys::NodeKeys;
use crate::node::Supernode;

/// The relay's name for the echo beside it; no driver uses it.
pub(crate) const LOCAL: LinkId = LinkId(u64::MAX);

/// The echo of one supernode.
pub(crate) struct Echo {
    pub(crate) calls: Calls,
}

/// An echo plays nothing and decodes nothing.
struct NoCodec;

impl CodecFactory for NoCodec {
    fn codec(&mut self) -> Option<Box<dyn Codec>> {
        None
    }
}

impl Echo {
    /// The echo of this node. `addrs` are where it is reached.
    pub(crate) fn new(
        now: Now,
        keys: &NodeKeys,
        addrs: &[SocketAddr],
        allow_loopback: bool,
        seed: [u8; 32],
    ) -> Echo {
        let config = Config { role: Role::Echo, allow_loopback };
        let mut calls = Calls::new(identity(keys), config, Box::new(NoCodec), seed);
        calls.set_homes(now, vec![own_home(keys)]);
        calls.set_local_addrs(now, addrs.to_vec(), Vec::new());
        Echo { calls }
    }

    /// The credential was renewed.
    pub(crate) fn set_keys(&mut self, now: Now, keys: &NodeKeys) {
        self.calls.set_identity(identity(keys));
        self.calls.set_homes(now, vec![own_home(keys)]);
    }
}

fn identity(keys: &NodeKeys) -> Identity {
    Identity {
        credential: keys.credential.clone(),
        signing: keys.signing.clone(),
        sealing: keys.sealing.iter().map(|kept| (kept.key.clone(), kept.credential)).collect(),
        record: Vec::new(),
        nonce: echo_nonce(&keys.credential),
        entry: Vec::new(),
    }
}

fn own_home(keys: &NodeKeys) -> Home {
    let link = RelayLink { udp: None, exporter: [0; 32], transport: Transport::Quic };
    Home { credential: keys.credential.clone(), link }
}

impl Supernode {
    /// A message for the echo.
    pub(crate) fn echo_sip(&mut self, now: Now, envelope: Envelope) {
        let me = self.me;
        self.echo.calls.handle_sip(now, &self.realm, me, envelope);
    }

    /// The credential was renewed.
    pub(crate) fn echo_identity(&mut self) {
        self.echo.set_keys(self.now, &self.keys);
    }

    /// Carries out what the echo wants. Returns whether there was anything.
    pub(crate) fn drain_echo(&mut self, now: Now) -> bool {
        let mut any = false;
        while let Some(output) = self.echo.calls.poll_output() {
            any = true;
            match output {
                CallsOutput::Sip { via_home: _, envelope } => self.sip_from_echo(now, envelope),
                CallsOutput::Datagram { to, bytes } => {
                    self.outputs.push_back(Output::Datagram { to, bytes });
                }
                CallsOutput::RelayFrame { frame, .. } => self.relay_from_echo(now, &frame),
                CallsOutput::Lookup { id, .. } => {
                    // An echo calls nobody.
                    self.echo.calls.handle_lookup(now, &self.realm, id, LookupResult::Unreachable);
                }
                CallsOutput::RelayLinkWanted(_)
                | CallsOutput::RelayLinkDone(_)
                | CallsOutput::Event(_)
                | CallsOutput::Incoming(_)
                | CallsOutput::MessageDone { .. } => {}
            }
        }
        any
    }

    /// The echo's legs run over a link to its own relay that never leaves the process.
    fn relay_from_echo(&mut self, now: Now, frame: &Frame) {
        let facts = LinkFacts { link: LOCAL, node: self.me, exporter: [0; 32], transport: Transport::Quic };
        // What was just encoded can be read.
        let _read = self.relay.handle_frame(now, &facts, frame);
    }

    /// The relay has something for the echo.
    pub(crate) fn relay_to_echo(&mut self, now: Now, frame: &Frame) {
        let me = self.me;
        self.echo.calls.handle_relay_frame(now, me, frame);
    }
}
