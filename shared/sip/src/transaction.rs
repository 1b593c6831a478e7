//! Transactions (RFC 3261 §17) over reliable links with two ways.
//!
//! [`Transactions`] holds all of one device. Feed it with requests to send ([`request`](Transactions::request)), what
//! the peers sent ([`handle_request`](Transactions::handle_request), [`handle_response`](Transactions::handle_response)),
//! what homes returned ([`handle_return`](Transactions::handle_return)), the user's answers
//! ([`respond`](Transactions::respond)) and time ([`handle_timeout`](Transactions::handle_timeout)); drain
//! [`poll_output`](Transactions::poll_output) after each, sleep until [`deadline`](Transactions::deadline). It never
//! opens a box: what is fed as the peer's was proved to be the peer's.
//!
//! A transaction is named by the peer's node, Call-ID, CSeq number and method, not by the branch alone (RFC 3261
//! §17.2.3): a request that comes by two ways is one.

mod client;
mod server;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use yodel_identity::node::NodeId;
use yodel_wire::time::Instant;

pub use self::client::{ClientOutput, ClientTransaction};
pub use self::server::{ServerOutput, ServerTransaction};
use crate::envelope::ReturnReason;
use crate::limits::{CLIENT_TRANSACTIONS_MAX, SERVER_TRANSACTIONS_MAX, SERVER_TRANSACTIONS_PER_PEER_MAX};
use crate::message::{Request, Response};
use crate::method::{Method, Status};

/// One of the two ways to the peer: which pair of homes that is, the user decides anew at each sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// The better one; for an answer, the one by which the newest copy of the request came.
    First,
    /// The other.
    Second,
}

/// Names a transaction, on the asking or on the answering side.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The other device.
    pub peer: NodeId,
    /// The call.
    pub call_id: String,
    /// The number in CSeq.
    pub number: u32,
    /// The method in CSeq.
    pub method: Method,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.number, self.method)
    }
}

impl Key {
    /// The key of a request to or from `peer`; `None` when its CSeq cannot be read.
    pub fn of(peer: NodeId, request: &Request) -> Option<Key> {
        let cseq = request.cseq()?;
        Some(Key { peer, call_id: request.call_id(), number: cseq.number, method: cseq.method })
    }

    fn with(&self, method: Method) -> Key {
        Key { method, ..self.clone() }
    }
}

/// What the transactions want done or tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionsOutput {
    /// Of one that we asked.
    Client(Key, ClientOutput),
    /// Of one that we answer.
    Server(Key, ServerOutput),
}

/// What a request was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// New: answer it with [`Transactions::respond`].
    New(Key),
    /// A copy of one that came before; answered again as far as it was answered.
    Copy(Key),
    /// An ACK. For a 2xx, [`ServerOutput::Acked`] follows the first time.
    Ack(Key),
    /// A CANCEL, which is answered already. The INVITE it named is still open: answer it with 487.
    Cancel(Key),
    /// A CANCEL or an ACK for nothing that is open. A CANCEL is answered already.
    Nothing,
    /// No room, or no key: dropped. Say 503 if at all.
    Refused,
}

/// Why a request was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Too many at once.
    #[error("too many transactions")]
    Full,
    /// A request with this peer, Call-ID, number and method is out, or it has no CSeq.
    #[error("not a new request")]
    NotNew,
}

/// All transactions of one device; see the module's text.
#[derive(Debug, Default)]
pub struct Transactions {
    clients: BTreeMap<Key, ClientTransaction>,
    servers: BTreeMap<Key, ServerTransaction>,
    outputs: VecDeque<TransactionsOutput>,
}

impl Transactions {
    /// None yet.
    pub fn new() -> Transactions {
        Transactions::default()
    }

    /// Sends a request that wants an answer. (An ACK for a 2xx has no transaction: send it as it is.)
    ///
    /// # Errors
    /// `Full`, `NotNew`.
    pub fn request(
        &mut self,
        now: Instant,
        peer: NodeId,
        request: Request,
        two_ways: bool,
    ) -> Result<Key, RequestError> {
        let key = Key::of(peer, &request).ok_or(RequestError::NotNew)?;
        if self.clients.contains_key(&key) {
            return Err(RequestError::NotNew);
        }
        if self.clients.len() >= CLIENT_TRANSACTIONS_MAX {
            return Err(RequestError::Full);
        }
        self.clients.insert(key.clone(), ClientTransaction::new(now, request, two_ways));
        self.drain_client(now, &key);
        Ok(key)
    }

    /// A request of the peer came. Before draining, note the way it came by: it is [`Way::First`] now.
    pub fn handle_request(&mut self, now: Instant, peer: NodeId, request: Request) -> Arrival {
        let Some(key) = Key::of(peer, &request) else { return Arrival::Refused };
        if request.method == Method::Ack {
            return self.handle_ack(now, key.with(Method::Invite), &request);
        }
        if let Some(server) = self.servers.get_mut(&key) {
            server.handle_copy();
            self.drain_server(&key);
            return Arrival::Copy(key);
        }
        if !self.make_room(peer) {
            return Arrival::Refused;
        }
        let cancel = (request.method == Method::Cancel).then(|| request.clone());
        self.servers.insert(key.clone(), ServerTransaction::new(request));
        self.drain_server(&key);
        match cancel {
            Some(cancel) => self.handle_cancel(now, &key, &cancel),
            None => Arrival::New(key),
        }
    }

    fn handle_ack(&mut self, now: Instant, invite: Key, ack: &Request) -> Arrival {
        let Some(server) = self.servers.get_mut(&invite) else { return Arrival::Nothing };
        server.handle_ack(now, ack);
        self.drain_server(&invite);
        Arrival::Ack(invite)
    }

    /// RFC 3261 §9.2: 200 when the INVITE is known, whether it is still open or not, else 481.
    fn handle_cancel(&mut self, now: Instant, key: &Key, cancel: &Request) -> Arrival {
        let invite = key.with(Method::Invite);
        let known = self.servers.get(&invite);
        let open = known.is_some_and(ServerTransaction::is_open);
        let status = if known.is_some() { Status::OK } else { Status::NO_SUCH_CALL };
        self.respond(now, key, Response::to(cancel, status, None));
        if open { Arrival::Cancel(invite) } else { Arrival::Nothing }
    }

    /// Whether one more transaction of `peer` fits, after a finished one made room if need be.
    fn make_room(&mut self, peer: NodeId) -> bool {
        let of_peer = self.servers.keys().filter(|key| key.peer == peer).count();
        let crowded = of_peer >= SERVER_TRANSACTIONS_PER_PEER_MAX;
        if !crowded && self.servers.len() < SERVER_TRANSACTIONS_MAX {
            return true;
        }
        let finished = self
            .servers
            .iter()
            .filter(|(key, _)| !crowded || key.peer == peer)
            .filter_map(|(key, server)| Some((server.finished_until()?, key.clone())))
            .min();
        match finished {
            Some((_, key)) => {
                self.servers.remove(&key);
                self.outputs.push_back(TransactionsOutput::Server(key, ServerOutput::Ended));
                true
            }
            None => false,
        }
    }

    /// An answer of the peer itself came. False when it answers nothing of ours, or says another branch.
    pub fn handle_response(&mut self, now: Instant, peer: NodeId, response: &Response) -> bool {
        let Some(cseq) = response.cseq() else { return false };
        let key = Key { peer, call_id: response.call_id(), number: cseq.number, method: cseq.method };
        let Some(client) = self.clients.get_mut(&key) else { return false };
        // RFC 3261 §17.1.3.
        if client.request().branch() != response.branch() {
            return false;
        }
        client.handle_response(now, response);
        self.drain_client(now, &key);
        true
    }

    /// A home returned the request with this key that went by `way`, or answered it itself.
    pub fn handle_return(&mut self, now: Instant, key: &Key, way: Way, reason: ReturnReason) {
        if let Some(client) = self.clients.get_mut(key) {
            client.handle_return(now, way, reason);
            self.drain_client(now, key);
        }
    }

    /// Answers a request. False when there is no such request or a final answer was given: nothing is sent then.
    pub fn respond(&mut self, now: Instant, key: &Key, response: Response) -> bool {
        let Some(server) = self.servers.get_mut(key) else { return false };
        let sent = server.respond(now, response);
        self.drain_server(key);
        sent
    }

    /// Cancels an INVITE of ours, now or as soon as RFC 3261 §9.1 allows.
    pub fn cancel(&mut self, now: Instant, key: &Key) {
        if let Some(client) = self.clients.get_mut(key) {
            client.cancel(now);
            self.drain_client(now, key);
        }
    }

    /// Our ways changed: what has no answer goes out again.
    pub fn retry(&mut self, now: Instant) {
        let keys: Vec<Key> = self.clients.keys().cloned().collect();
        for key in keys {
            if let Some(client) = self.clients.get_mut(&key) {
                client.retry(now);
            }
            self.drain_client(now, &key);
        }
    }

    /// The request of a transaction that we answer, while it lasts.
    pub fn request_of(&self, key: &Key) -> Option<&Request> {
        self.servers.get(key).map(ServerTransaction::request)
    }

    /// Ends everything with this Call-ID and peer without a word; nothing more is told about it.
    pub fn forget(&mut self, peer: NodeId, call_id: &str) {
        self.clients.retain(|key, _| key.peer != peer || key.call_id != call_id);
        self.servers.retain(|key, _| key.peer != peer || key.call_id != call_id);
        self.outputs.retain(|output| {
            let (TransactionsOutput::Client(key, _) | TransactionsOutput::Server(key, _)) = output;
            key.peer != peer || key.call_id != call_id
        });
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let clients: Vec<Key> =
            self.clients.iter().filter(|(_, t)| due(t.deadline())).map(|(key, _)| key.clone()).collect();
        for key in clients {
            if let Some(client) = self.clients.get_mut(&key) {
                client.handle_timeout(now);
            }
            self.drain_client(now, &key);
        }
        let servers: Vec<Key> =
            self.servers.iter().filter(|(_, t)| due(t.deadline())).map(|(key, _)| key.clone()).collect();
        for key in servers {
            if let Some(server) = self.servers.get_mut(&key) {
                server.handle_timeout(now);
            }
            self.drain_server(&key);
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub fn deadline(&self) -> Option<Instant> {
        let clients = self.clients.values().filter_map(ClientTransaction::deadline);
        clients.chain(self.servers.values().filter_map(ServerTransaction::deadline)).min()
    }

    /// The next thing to do; `None` when drained.
    pub fn poll_output(&mut self) -> Option<TransactionsOutput> {
        self.outputs.pop_front()
    }

    fn drain_client(&mut self, now: Instant, key: &Key) {
        let mut cancel = None;
        while let Some(output) = self.clients.get_mut(key).and_then(ClientTransaction::poll_output) {
            match &output {
                ClientOutput::Ended => {
                    self.clients.remove(key);
                }
                ClientOutput::CancelNow(request) => cancel = Some(request.clone()),
                ClientOutput::Send { .. }
                | ClientOutput::Response(_)
                | ClientOutput::AckAgain(_)
                | ClientOutput::Undelivered(_)
                | ClientOutput::TimedOut => {}
            }
            self.outputs.push_back(TransactionsOutput::Client(key.clone(), output));
        }
        let two_ways = self.clients.get(key).is_some_and(ClientTransaction::has_two_ways);
        if let Some(request) = cancel {
            // A full table loses the CANCEL; the INVITE then ends by its timer, and a 2xx by BYE.
            let _ = self.request(now, key.peer, request, two_ways);
        }
    }

    fn drain_server(&mut self, key: &Key) {
        while let Some(output) = self.servers.get_mut(key).and_then(ServerTransaction::poll_output) {
            if output == ServerOutput::Ended {
                self.servers.remove(key);
            }
            self.outputs.push_back(TransactionsOutput::Server(key.clone(), output));
        }
    }
}
