//! The answering side of a transaction (RFC 3261 §17.2, RFC 6026 §7.1).
//!
//! ```text
//!                INVITE                                 anything else
//!   Proceeding --2xx--> Accepted --ACK--> Confirmed    Trying --final--> Completed (J)
//!        |                  | repeats until ACK
//!        `--3xx–6xx--> Completed --ACK--> Confirmed
//! ```
//! An INVITE is acknowledged with 100 at once: its sender's home counts it undelivered without. Timer G is off: links
//! are reliable. Instead an answer to INVITE that matters (180, finals) also goes by the other way after
//! [`SECOND_WAY`], and a 2xx repeats at T1, doubling to T2, by both ways until the ACK (RFC 3261 §13.3.1.4). Finished
//! transactions stay for 32 s although links are reliable, to answer copies that came the other way.
//!
//! `Way::First` is always the way by which the newest copy of the request came.

use std::collections::VecDeque;
use std::time::Duration;

use yodel_wire::time::Instant;

use crate::limits::{SECOND_WAY, T1, T2, TIMEOUT};
use crate::message::{Request, Response};
use crate::method::{Method, Status};
use crate::transaction::Way;

/// What the answering side wants done or tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerOutput {
    /// Send this answer by this way.
    Send {
        /// By which.
        way: Way,
        /// What.
        response: Response,
    },
    /// The ACK for the 2xx came, for the first time: the call is answered.
    Acked(Request),
    /// No ACK came for the 2xx in 32 s: the user sends BYE (RFC 3261 §13.3.1.4). `Ended` follows.
    NoAck,
    /// The transaction is over. Nothing follows.
    Ended,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Proceeding {
        last: Option<Response>,
        second_at: Option<Instant>,
    },
    Accepted {
        response: Response,
        second_at: Option<Instant>,
        repeat_at: Instant,
        interval: Duration,
        until: Instant,
    },
    Completed {
        response: Response,
        second_at: Option<Instant>,
        until: Instant,
    },
    Confirmed {
        until: Instant,
    },
    Over,
}

/// A server transaction. Feed it copies, answers of the user, ACKs and time; drain
/// [`poll_output`](Self::poll_output) after each.
#[derive(Debug)]
pub struct ServerTransaction {
    request: Request,
    state: State,
    outputs: VecDeque<ServerOutput>,
}

impl ServerTransaction {
    /// A request came. An INVITE is acknowledged at once.
    pub fn new(request: Request) -> ServerTransaction {
        let last = (request.method == Method::Invite).then(|| Response::to(&request, Status::TRYING, None));
        let mut transaction = ServerTransaction {
            request,
            state: State::Proceeding { last: last.clone(), second_at: None },
            outputs: VecDeque::new(),
        };
        if let Some(trying) = last {
            transaction.send(Way::First, trying);
        }
        transaction
    }

    /// The request.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// Whether no final answer was given yet.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Proceeding { .. })
    }

    /// Whether only copies are waited for, and until when.
    pub(super) fn finished_until(&self) -> Option<Instant> {
        match &self.state {
            State::Confirmed { until } => Some(*until),
            State::Completed { until, .. } if self.request.method != Method::Invite => Some(*until),
            State::Proceeding { .. } | State::Accepted { .. } | State::Completed { .. } | State::Over => None,
        }
    }

    fn send(&mut self, way: Way, response: Response) {
        self.outputs.push_back(ServerOutput::Send { way, response });
    }

    /// A copy of the request came, perhaps by another way: what was answered last is answered again.
    pub fn handle_copy(&mut self) {
        let again = match &self.state {
            State::Proceeding { last, .. } => last.clone(),
            State::Accepted { response, .. } | State::Completed { response, .. } => Some(response.clone()),
            State::Confirmed { .. } | State::Over => None,
        };
        if let Some(response) = again {
            self.send(Way::First, response);
        }
    }

    /// The user answers. False when a final answer was given before: nothing is sent then.
    pub fn respond(&mut self, now: Instant, response: Response) -> bool {
        let State::Proceeding { last, second_at } = &mut self.state else { return false };
        let invite = self.request.method == Method::Invite;
        if response.status.is_provisional() {
            // Nobody acknowledges a provisional answer, so its second copy goes without asking.
            *second_at = (invite && response.status != Status::TRYING).then_some(now + SECOND_WAY);
            *last = Some(response.clone());
        } else if invite && response.status.is_success() {
            self.state = State::Accepted {
                response: response.clone(),
                second_at: Some(now + SECOND_WAY),
                repeat_at: now + T1,
                interval: T1,
                until: now + TIMEOUT,
            };
        } else {
            let second_at = invite.then_some(now + SECOND_WAY);
            self.state = State::Completed { response: response.clone(), second_at, until: now + TIMEOUT };
        }
        self.send(Way::First, response);
        true
    }

    /// An ACK for this INVITE came.
    pub fn handle_ack(&mut self, now: Instant, ack: &Request) {
        match self.state {
            State::Accepted { .. } => {
                self.outputs.push_back(ServerOutput::Acked(ack.clone()));
                self.state = State::Confirmed { until: now + TIMEOUT };
            }
            State::Completed { .. } => self.state = State::Confirmed { until: now + TIMEOUT },
            State::Proceeding { .. } | State::Confirmed { .. } | State::Over => {}
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due = |at: &mut Option<Instant>| at.take_if(|at| *at <= now).is_some();
        let mut sends = Vec::new();
        let mut over = false;
        match &mut self.state {
            State::Proceeding { last, second_at } => {
                if due(second_at) {
                    sends.extend(last.clone().map(|response| (Way::Second, response)));
                }
            }
            State::Accepted { response, second_at, repeat_at, interval, until } => {
                if *until <= now {
                    self.outputs.push_back(ServerOutput::NoAck);
                    over = true;
                } else {
                    if due(second_at) {
                        sends.push((Way::Second, response.clone()));
                    }
                    if *repeat_at <= now {
                        *interval = (*interval * 2).min(T2);
                        *repeat_at = now + *interval;
                        sends.extend([(Way::First, response.clone()), (Way::Second, response.clone())]);
                    }
                }
            }
            State::Completed { response, second_at, until } => {
                if *until <= now {
                    over = true;
                } else if due(second_at) {
                    sends.push((Way::Second, response.clone()));
                }
            }
            State::Confirmed { until } => over = *until <= now,
            State::Over => {}
        }
        for (way, response) in sends {
            self.send(way, response);
        }
        if over {
            self.state = State::Over;
            self.outputs.push_back(ServerOutput::Ended);
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Proceeding { second_at, .. } => *second_at,
            State::Accepted { second_at, repeat_at, until, .. } => {
                [*second_at, Some(*repeat_at), Some(*until)].into_iter().flatten().min()
            }
            State::Completed { second_at, until, .. } => {
                [*second_at, Some(*until)].into_iter().flatten().min()
            }
            State::Confirmed { until } => Some(*until),
            State::Over => None,
        }
    }

    /// The next thing to do; `None` when drained.
    pub fn poll_output(&mut self) -> Option<ServerOutput> {
        self.outputs.pop_front()
    }
}
