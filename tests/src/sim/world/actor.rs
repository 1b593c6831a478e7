//! What the world needs of a machine, whatever its commands and events are.

use std::any::Any;
use std::collections::VecDeque;
use std::net::SocketAddr;

use yodel_wire::machine::{CommitResult, LinkEvent, LinkId, Machine, Output, Ticket};
use yodel_wire::time::{Instant, Now};

/// A machine as the world drives it.
pub(super) trait Actor {
    fn datagram(&mut self, now: Now, from: SocketAddr, bytes: &[u8]);
    fn link(&mut self, now: Now, link: LinkId, event: LinkEvent);
    fn committed(&mut self, now: Now, ticket: Ticket);
    fn timeout(&mut self, now: Now);
    /// The next output; events are kept back for who asks for them.
    fn poll(&mut self, now: Now) -> Output<()>;
    fn as_any(&mut self) -> &mut dyn Any;
}

/// A machine with the events it told since somebody asked.
pub(super) struct Held<M: Machine> {
    pub(super) machine: M,
    pub(super) events: VecDeque<(Instant, M::Event)>,
}

impl<M: Machine> Held<M> {
    pub(super) fn new(machine: M) -> Held<M> {
        Held { machine, events: VecDeque::new() }
    }
}

impl<M: Machine + 'static> Actor for Held<M> {
    fn datagram(&mut self, now: Now, from: SocketAddr, bytes: &[u8]) {
        self.machine.handle_datagram(now, from, bytes);
    }
    fn link(&mut self, now: Now, link: LinkId, event: LinkEvent) {
        self.machine.handle_link(now, link, event);
    }
    fn committed(&mut self, now: Now, ticket: Ticket) {
        self.machine.handle_committed(now, ticket, CommitResult::Stored);
    }
    fn timeout(&mut self, now: Now) {
        self.machine.handle_timeout(now);
    }
    fn poll(&mut self, now: Now) -> Output<()> {
        loop {
            match self.machine.poll_output() {
                Output::Event(event) => self.events.push_back((now.mono, event)),
                Output::Datagram { to, bytes } => return Output::Datagram { to, bytes },
                Output::Link(link, action) => return Output::Link(link, action),
                Output::Commit(ticket, writes) => return Output::Commit(ticket, writes),
                Output::Idle { deadline } => return Output::Idle { deadline },
            }
        }
    }
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}
