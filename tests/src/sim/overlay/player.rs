//! A supernode of the instrument: the very root machine, whose words on their way out may be turned into lies.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use yodel_supernode::node::{Command, Event, Supernode};
use yodel_wire::machine::{CommitResult, LinkEvent, LinkId, Machine, Output, Ticket};
use yodel_wire::time::{Instant, Now};

use super::liar::{Liar, Told};

/// See the module's text.
pub(super) struct Player {
    pub(super) supernode: Supernode,
    liar: Option<Liar>,
    now: Now,
    ready: VecDeque<Output<Event>>,
    /// Lies that consist in coming late.
    late: BTreeMap<(Instant, u64), Output<Event>>,
    delayed: u64,
}

impl Player {
    /// An honest one.
    pub(super) fn new(now: Now, supernode: Supernode) -> Player {
        let (ready, late) = (VecDeque::new(), BTreeMap::new());
        Player { supernode, liar: None, now, ready, late, delayed: 0 }
    }

    /// From now on it lies.
    pub(super) fn corrupt(&mut self, liar: Liar) {
        self.liar = Some(liar);
    }

    /// The lies that it has told.
    pub(super) fn liar(&self) -> Option<&Liar> {
        self.liar.as_ref()
    }

    fn deadline(&self, own: Option<Instant>) -> Option<Instant> {
        let late = self.late.first_key_value().map(|((at, _), _)| *at);
        let gossip = self.liar.as_ref().and_then(Liar::deadline);
        [own, late, gossip].into_iter().flatten().min()
    }
}

impl Machine for Player {
    type Command = Command;
    type Event = Event;

    fn handle_datagram(&mut self, now: Now, from: SocketAddr, datagram: &[u8]) {
        self.now = now;
        self.supernode.handle_datagram(now, from, datagram);
    }

    fn handle_link(&mut self, now: Now, link: LinkId, event: LinkEvent) {
        self.now = now;
        self.supernode.handle_link(now, link, event);
    }

    fn handle_command(&mut self, now: Now, command: Command) {
        self.now = now;
        self.supernode.handle_command(now, command);
    }

    fn handle_committed(&mut self, now: Now, ticket: Ticket, result: CommitResult) {
        self.now = now;
        self.supernode.handle_committed(now, ticket, result);
    }

    fn handle_timeout(&mut self, now: Now) {
        self.now = now;
        self.supernode.handle_timeout(now);
        while let Some(entry) = self.late.first_entry()
            && entry.key().0 <= now.mono
        {
            self.ready.push_back(entry.remove());
        }
        if let Some(liar) = &mut self.liar {
            self.ready.extend(liar.spread(now.mono, &self.supernode));
        }
    }

    fn poll_output(&mut self) -> Output<Event> {
        loop {
            if let Some(output) = self.ready.pop_front() {
                return output;
            }
            let Told { output, delay } = match (self.supernode.poll_output(), &mut self.liar) {
                (Output::Idle { deadline }, _) => {
                    return Output::Idle { deadline: self.deadline(deadline) };
                }
                (output, None) => return output,
                (output, Some(liar)) => liar.tell(output, &self.supernode),
            };
            match delay {
                None => return output,
                Some(delay) => {
                    self.delayed += 1;
                    self.late.insert((self.now.mono + delay, self.delayed), output);
                }
            }
        }
    }
}
