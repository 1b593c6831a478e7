//! Between the machine and the connections: gives requests their numbers and replies their connections, keeps each
//! call's events for who asks late, and sees to it that a ring which reached nobody is not called a ring.
//!
//! [`Hub::handle_event`] is called by the driver and must not wait; what it has to tell the machine goes into the same
//! bounded queue as the connections' commands. A connection that does not read is dropped.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc, oneshot};
use yodel_identity::name::Aor;
use yodel_net::Exit;

use super::json;
use super::limits::{CALL_EVENTS_KEPT_MAX, CALLS_KEPT_MAX};
use crate::audio::Spec;
use crate::command::{
    CallEvent, CallId, Command, Direction, Event, Failure, Reply, Request, RequestId, State,
};
use crate::rpc;

/// Names a connection.
pub(crate) type ConnectionId = u64;

/// A line for a connection, and the rings that have reached a user once it is written.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) text: Arc<str>,
    pub(crate) rings: Vec<CallId>,
}

/// Kinds of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kinds {
    pub(crate) call: bool,
    pub(crate) contact: bool,
    pub(crate) online: bool,
}

impl Kinds {
    pub(crate) const ALL: Kinds = Kinds { call: true, contact: true, online: true };
}

/// Who answers by itself.
#[derive(Debug)]
pub(crate) struct AutoAnswer {
    /// Only calls of these; empty means of everybody.
    pub(crate) from: Vec<Aor>,
    pub(crate) audio: Spec,
    answered: u32,
}

impl AutoAnswer {
    pub(crate) fn new(from: Vec<Aor>, audio: Spec) -> AutoAnswer {
        AutoAnswer { from, audio, answered: 0 }
    }
}

/// Where a reply goes.
#[derive(Debug)]
pub(crate) struct Asker {
    pub(crate) connection: ConnectionId,
    /// The id of the JSON-RPC request; none for a notification.
    pub(crate) id: Option<Value>,
    pub(crate) follow: Follow,
}

/// What the asker wants of the call that the reply names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Follow {
    /// Nothing.
    No,
    /// Its events.
    Events,
    /// Its events; and when the connection ends, so does the call.
    Own,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Hub {
    commands: mpsc::Sender<Command>,
    stopping: Notify,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next_request: u64,
    next_connection: ConnectionId,
    pending: BTreeMap<RequestId, Pending>,
    connections: BTreeMap<ConnectionId, Connection>,
    calls: BTreeMap<CallId, Call>,
    ended: VecDeque<CallId>,
}

#[derive(Debug)]
struct Pending {
    asker: Option<Asker>,
    done: Option<oneshot::Sender<()>>,
}

#[derive(Debug)]
struct Connection {
    lines: mpsc::Sender<Line>,
    kill: Arc<Notify>,
    kinds: Kinds,
    calls: BTreeSet<CallId>,
    auto: Option<AutoAnswer>,
}

#[derive(Debug)]
struct Call {
    peer: Aor,
    events: Vec<Arc<str>>,
    ringing: bool,
    ended: bool,
    owner: Option<ConnectionId>,
}

impl Hub {
    pub(crate) fn new(commands: mpsc::Sender<Command>) -> Hub {
        Hub { commands, stopping: Notify::new(), inner: Mutex::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a connection in. `kill` is notified when it must end.
    pub(crate) fn connect(&self, lines: mpsc::Sender<Line>, kill: Arc<Notify>) -> ConnectionId {
        let mut inner = self.inner();
        inner.next_connection += 1;
        let id = inner.next_connection;
        let connection =
            Connection { lines, kill, kinds: Kinds::default(), calls: BTreeSet::new(), auto: None };
        inner.connections.insert(id, connection);
        id
    }

    /// Forgets a connection and ends the calls that were its own.
    pub(crate) fn disconnect(&self, id: ConnectionId) {
        let mut inner = self.inner();
        inner.connections.remove(&id);
        let own: Vec<CallId> = inner
            .calls
            .iter()
            .filter(|(_, call)| call.owner == Some(id) && !call.ended)
            .map(|(call, _)| *call)
            .collect();
        for call in own {
            inner.tell(&self.commands, Request::Hangup(Some(call)));
        }
    }

    /// Connections now.
    pub(crate) fn connections(&self) -> usize {
        self.inner().connections.len()
    }

    /// Hands a request to the machine and waits until its response is in the connection's queue.
    pub(crate) async fn ask(&self, asker: Asker, request: Request) {
        let (done, answered) = oneshot::channel();
        let id = self.inner().number(Pending { asker: Some(asker), done: Some(done) });
        if self.commands.send(Command::Request(id, request)).await.is_err() {
            let failure = Failure::new(Exit::NotRunning, "the daemon is stopping");
            self.inner().reply(&self.commands, id, &Err(failure));
        }
        // Fails only when the hub is gone, and with it everything.
        let _answered = answered.await;
    }

    /// Tells the machine that a ring was shown.
    pub(crate) async fn ring_shown(&self, call: CallId) {
        // Nobody listens only when the daemon is stopping.
        let _stopping = self.commands.send(Command::RingShown(call)).await;
    }

    /// Tells the machine to end.
    pub(crate) async fn stop(&self) {
        self.stopping.notify_one();
        let _stopping = self.commands.send(Command::Stop).await;
    }

    /// Waits until the machine was told to end.
    pub(crate) async fn stopping(&self) {
        self.stopping.notified().await;
    }

    /// Answers a request that needs no machine.
    pub(crate) fn respond(
        &self,
        connection: ConnectionId,
        id: Option<&Value>,
        result: &Result<Value, rpc::Error>,
    ) {
        if let Some(id) = id {
            self.inner().send(connection, rpc::response(id, result).into(), Vec::new());
        }
    }

    /// Sends events of these kinds from now on, after those of calls that are under way.
    pub(crate) fn subscribe(&self, id: ConnectionId, kinds: Kinds) {
        let mut inner = self.inner();
        let Some(connection) = inner.connections.get_mut(&id) else { return };
        connection.kinds = kinds;
        if !kinds.call {
            return;
        }
        let mut lines = Vec::new();
        for (call_id, call) in inner.calls.iter().filter(|(_, call)| !call.ended) {
            let rings = if call.ringing { vec![*call_id] } else { Vec::new() };
            let last = call.events.len().saturating_sub(1);
            for (n, text) in call.events.iter().enumerate() {
                lines.push((text.clone(), if n == last { rings.clone() } else { Vec::new() }));
            }
        }
        for (text, rings) in lines {
            inner.send(id, text, rings);
        }
    }

    /// Answers calls by itself from now on, also those that ring already.
    pub(crate) fn auto_answer(&self, id: ConnectionId, auto: AutoAnswer) {
        let mut inner = self.inner();
        let Some(connection) = inner.connections.get_mut(&id) else { return };
        connection.auto = Some(auto);
        let ringing: Vec<CallId> =
            inner.calls.iter().filter(|(_, call)| call.ringing).map(|(id, _)| *id).collect();
        for call in ringing {
            inner.answer_by_itself(&self.commands, call);
        }
    }

    /// Takes an event of the machine.
    pub(crate) fn handle_event(&self, event: Event) -> ControlFlow<()> {
        let mut inner = self.inner();
        match event {
            Event::Reply(id, result) => inner.reply(&self.commands, id, &result),
            Event::Call(event) => inner.call(&self.commands, &event),
            Event::Contact(event) => {
                let text = rpc::notification(&json::contact(&event)).into();
                inner.broadcast(&text, |connection| connection.kinds.contact, None);
            }
            Event::Online(online) => {
                let text = rpc::notification(&json::online(online)).into();
                inner.broadcast(&text, |connection| connection.kinds.online, None);
            }
            // Keys are kept by `run`, which sees every event first.
            Event::Keys(_) => {}
            Event::Stopped => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    }
}

impl Inner {
    fn number(&mut self, pending: Pending) -> RequestId {
        self.next_request += 1;
        let id = RequestId(self.next_request);
        self.pending.insert(id, pending);
        id
    }

    /// A request of the daemon's own; nobody waits for the reply.
    fn tell(&mut self, commands: &mpsc::Sender<Command>, request: Request) {
        let id = self.number(Pending { asker: None, done: None });
        if commands.try_send(Command::Request(id, request)).is_err() {
            self.pending.remove(&id);
            tracing::warn!("the machine is too busy for a request of the daemon's own");
        }
    }

    fn reply(&mut self, commands: &mpsc::Sender<Command>, id: RequestId, result: &Result<Reply, Failure>) {
        let Some(Pending { asker, done }) = self.pending.remove(&id) else { return };
        if let Some(asker) = asker {
            let rings = match result {
                Ok(Reply::Calls(_)) => {
                    self.calls.iter().filter(|(_, call)| call.ringing).map(|(id, _)| *id).collect()
                }
                _ => Vec::new(),
            };
            if let Some(request) = &asker.id {
                let result = match result {
                    Ok(reply) => Ok(json::reply(reply)),
                    Err(failure) => Err(rpc::Error {
                        code: i64::from(failure.exit.code()),
                        message: failure.message.clone(),
                        data: Some(json::failure(failure)),
                    }),
                };
                self.send(asker.connection, rpc::response(request, &result).into(), rings);
            }
            if let Ok(Reply::Call(call)) = result {
                self.follow(commands, asker.connection, *call, asker.follow);
            }
        }
        if let Some(done) = done {
            // Fails only when the connection is gone already.
            let _gone = done.send(());
        }
    }

    fn follow(
        &mut self,
        commands: &mpsc::Sender<Command>,
        id: ConnectionId,
        call_id: CallId,
        follow: Follow,
    ) {
        if follow == Follow::No {
            return;
        }
        let Some(connection) = self.connections.get_mut(&id) else {
            if follow == Follow::Own {
                self.tell(commands, Request::Hangup(Some(call_id)));
            }
            return;
        };
        let seen_already = connection.kinds.call;
        connection.calls.insert(call_id);
        let Some(call) = self.calls.get_mut(&call_id) else { return };
        if follow == Follow::Own {
            call.owner = Some(id);
        }
        if !seen_already {
            for text in call.events.clone() {
                self.send(id, text, Vec::new());
            }
        }
    }

    fn call(&mut self, commands: &mpsc::Sender<Command>, event: &CallEvent) {
        let owners: Vec<ConnectionId> = self
            .connections
            .iter()
            .filter(|(_, c)| c.calls.contains(&event.call))
            .map(|(id, _)| *id)
            .collect();
        let call = self.calls.entry(event.call).or_insert_with(|| Call {
            peer: event.peer.clone(),
            events: Vec::new(),
            ringing: false,
            ended: false,
            owner: owners.first().copied().filter(|_| event.direction == Direction::Out),
        });
        let text: Arc<str> = rpc::notification(&json::call(event)).into();
        let mut news = false;
        match &event.state {
            State::Stats { .. } => {}
            State::Path { .. } if call.events.len() >= CALL_EVENTS_KEPT_MAX => {}
            State::Resolving
            | State::Contacting
            | State::Alerted
            | State::Answered
            | State::Media
            | State::Path { .. }
            | State::Ended(_) => call.events.push(text.clone()),
        }
        match &event.state {
            State::Contacting if event.direction == Direction::In => {
                news = !call.ringing;
                call.ringing = true;
            }
            State::Answered => call.ringing = false,
            State::Ended(_) => {
                call.ringing = false;
                call.ended = true;
            }
            State::Resolving
            | State::Contacting
            | State::Alerted
            | State::Media
            | State::Path { .. }
            | State::Stats { .. } => {}
        }
        let ended = call.ended;
        let ring = if news { Some(event.call) } else { None };
        self.broadcast(
            &text,
            |connection| connection.kinds.call || connection.calls.contains(&event.call),
            ring,
        );
        if news {
            self.answer_by_itself(commands, event.call);
        }
        if ended {
            for connection in self.connections.values_mut() {
                connection.calls.remove(&event.call);
            }
            self.ended.push_back(event.call);
            if self.ended.len() > CALLS_KEPT_MAX
                && let Some(oldest) = self.ended.pop_front()
            {
                self.calls.remove(&oldest);
            }
        }
    }

    fn answer_by_itself(&mut self, commands: &mpsc::Sender<Command>, call_id: CallId) {
        let Some(call) = self.calls.get_mut(&call_id) else { return };
        let peer = &call.peer;
        let found = self.connections.iter_mut().find_map(|(id, connection)| {
            let auto = connection.auto.as_mut()?;
            (auto.from.is_empty() || auto.from.contains(peer)).then(|| {
                auto.answered += 1;
                connection.calls.insert(call_id);
                (*id, auto.audio.open(auto.answered), connection.kinds.call)
            })
        });
        let Some((id, audio, seen_already)) = found else { return };
        call.ringing = false;
        call.owner = Some(id);
        if !seen_already {
            for text in call.events.clone() {
                self.send(id, text, Vec::new());
            }
        }
        match audio {
            Ok(audio) => {
                if commands.try_send(Command::RingShown(call_id)).is_err() {
                    tracing::warn!("the machine is too busy to hear that a ring was shown");
                }
                self.tell(commands, Request::Answer { call: Some(call_id), audio });
            }
            Err(error) => {
                tracing::warn!(%error, "no audio to answer with");
                self.tell(commands, Request::Decline(Some(call_id)));
            }
        }
    }

    fn broadcast(&mut self, text: &Arc<str>, wanted: impl Fn(&Connection) -> bool, ring: Option<CallId>) {
        let to: Vec<(ConnectionId, bool)> = self
            .connections
            .iter()
            .filter(|(_, connection)| wanted(connection))
            .map(|(id, connection)| (*id, connection.kinds.call))
            .collect();
        for (id, is_user_interface) in to {
            let rings = ring.filter(|_| is_user_interface).into_iter().collect();
            self.send(id, text.clone(), rings);
        }
    }

    fn send(&mut self, id: ConnectionId, text: Arc<str>, rings: Vec<CallId>) {
        let Some(connection) = self.connections.get(&id) else { return };
        if connection.lines.try_send(Line { text, rings }).is_err() {
            tracing::debug!(connection = id, "does not read, or is gone");
            connection.kill.notify_one();
        }
    }
}

/// The refusal of parameters.
pub(crate) fn invalid(message: impl Into<String>) -> rpc::Error {
    rpc::Error::new(rpc::INVALID_PARAMS, message)
}

/// The refusal of audio that cannot be opened.
pub(crate) fn no_audio(error: &crate::audio::AudioError) -> rpc::Error {
    rpc::Error {
        code: i64::from(Exit::Audio.code()),
        message: error.to_string(),
        data: Some(
            json!({"v": 1, "exit": Exit::Audio.code(), "cause": crate::command::Cause::AudioNoDevice.code()}),
        ),
    }
}
