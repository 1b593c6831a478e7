//! The asking side of a transaction (RFC 3261 §17.1, RFC 6026 §7.1).
//!
//! ```text
//!                 INVITE                                   anything else
//!   Calling --1xx--> Proceeding                     Trying --1xx--> Proceeding
//!      |  \            |      \                        |                |
//!      |   2xx        2xx    3xx–6xx                 final            final
//!      |    v          v       v                       v                v
//!   timer B  Accepted(M)     Completed(D), ACK       over             over       timer F over both
//! ```
//! Timers A and E are off: links are reliable. Instead a request that the peer has not answered after
//! [`SECOND_WAY`] goes by the other way too, or as soon as the first way returns it. Timer D is 32 s although links are
//! reliable: the peer repeats its final answer by its other way, and that copy wants its ACK.

use std::collections::VecDeque;

use yodel_wire::time::Instant;

use crate::envelope::ReturnReason;
use crate::limits::{SECOND_WAY, TIMEOUT, UNDELIVERED};
use crate::message::{Request, Response};
use crate::method::Method;
use crate::transaction::Way;

/// What the asking side wants done or tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientOutput {
    /// Send this request, or the ACK for a final answer that is no 2xx, by this way.
    Send {
        /// By which.
        way: Way,
        /// What.
        request: Request,
    },
    /// The peer answered. Provisional answers come as often as they differ in status; a final one once.
    Response(Response),
    /// A copy of the 2xx came: the ACK has to be sent again (RFC 3261 §13.2.2.4).
    AckAgain(Response),
    /// Not delivered so far: every way returned it, for this last reason, or nothing came back for [`UNDELIVERED`].
    /// Told once; the transaction goes on until it times out, and an answer still counts.
    Undelivered(Option<ReturnReason>),
    /// A CANCEL that was asked for may go now (RFC 3261 §9.1). [`super::Transactions`] sends it itself.
    CancelNow(Request),
    /// Timer B or F, or no final answer 32 s after CANCEL. `Ended` follows.
    TimedOut,
    /// The transaction is over. Nothing follows.
    Ended,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// No answer from the peer yet.
    Unanswered {
        second_at: Option<Instant>,
        undelivered_at: Option<Instant>,
        until: Instant,
    },
    /// A provisional answer came; an INVITE may stay so for ever, until cancelled.
    Proceeding {
        until: Option<Instant>,
    },
    /// A 2xx to INVITE came; copies may.
    Accepted {
        until: Instant,
    },
    /// Another final answer to INVITE came; copies get the ACK again.
    Completed {
        ack: Box<Request>,
        until: Instant,
    },
    Over,
}

/// A client transaction. Feed it answers, returns and time; drain [`poll_output`](Self::poll_output) after each. It
/// never looks into bodies and trusts who feeds it: only what the peer itself said, boxed, is an answer.
#[derive(Debug)]
pub struct ClientTransaction {
    request: Request,
    two_ways: bool,
    returned: [bool; 2],
    last_provisional: Option<u16>,
    cancel: Cancel,
    state: State,
    outputs: VecDeque<ClientOutput>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cancel {
    No,
    Wanted,
    Sent,
}

impl ClientTransaction {
    /// Sends `request` by the first way. With `two_ways` false there is no other.
    pub fn new(now: Instant, request: Request, two_ways: bool) -> ClientTransaction {
        let mut transaction = ClientTransaction {
            request,
            two_ways,
            returned: [false, !two_ways],
            last_provisional: None,
            cancel: Cancel::No,
            state: State::Unanswered {
                second_at: two_ways.then_some(now + SECOND_WAY),
                undelivered_at: Some(now + UNDELIVERED),
                until: now + TIMEOUT,
            },
            outputs: VecDeque::new(),
        };
        transaction.send(Way::First);
        transaction
    }

    /// The request.
    pub fn request(&self) -> &Request {
        &self.request
    }

    pub(super) fn has_two_ways(&self) -> bool {
        self.two_ways
    }

    fn is_invite(&self) -> bool {
        self.request.method == Method::Invite
    }

    fn send(&mut self, way: Way) {
        self.outputs.push_back(ClientOutput::Send { way, request: self.request.clone() });
    }

    fn end(&mut self) {
        self.state = State::Over;
        self.outputs.push_back(ClientOutput::Ended);
    }

    /// The peer answered, itself: a home's own answer is a return.
    pub fn handle_response(&mut self, now: Instant, response: &Response) {
        let status = response.status;
        match &self.state {
            State::Over => {}
            State::Accepted { .. } => {
                if status.is_success() {
                    self.outputs.push_back(ClientOutput::AckAgain(response.clone()));
                }
            }
            State::Completed { ack, .. } => {
                if status.is_final() && !status.is_success() {
                    let request = Request::clone(ack);
                    self.outputs.push_back(ClientOutput::Send { way: Way::First, request });
                }
            }
            State::Unanswered { .. } | State::Proceeding { .. } if status.is_provisional() => {
                self.handle_provisional(now, response);
            }
            State::Unanswered { .. } | State::Proceeding { .. } => self.handle_final(now, response),
        }
    }

    fn handle_provisional(&mut self, now: Instant, response: &Response) {
        if let State::Unanswered { until, .. } = self.state {
            // Timer F runs on (RFC 3261 §17.1.2.2); timer B does not.
            self.state = State::Proceeding { until: (!self.is_invite()).then_some(until) };
        }
        if self.last_provisional != Some(response.status.code()) {
            self.last_provisional = Some(response.status.code());
            self.outputs.push_back(ClientOutput::Response(response.clone()));
        }
        if self.cancel == Cancel::Wanted {
            self.cancel_now(now);
        }
    }

    fn handle_final(&mut self, now: Instant, response: &Response) {
        self.outputs.push_back(ClientOutput::Response(response.clone()));
        if !self.is_invite() {
            self.end();
        } else if response.status.is_success() {
            self.state = State::Accepted { until: now + TIMEOUT };
        } else {
            let ack = self.request.ack_for(response);
            self.outputs.push_back(ClientOutput::Send { way: Way::First, request: ack.clone() });
            self.state = State::Completed { ack: Box::new(ack), until: now + TIMEOUT };
        }
    }

    /// A home returned the request that went by `way`, or answered it itself.
    pub fn handle_return(&mut self, now: Instant, way: Way, reason: ReturnReason) {
        let State::Unanswered { second_at, undelivered_at, .. } = &mut self.state else { return };
        let [first, second] = &mut self.returned;
        match way {
            Way::First => *first = true,
            Way::Second => *second = true,
        }
        if *first && *second {
            if undelivered_at.take().is_some() {
                self.outputs.push_back(ClientOutput::Undelivered(Some(reason)));
            }
        } else if way == Way::First && second_at.is_some() {
            *second_at = Some(now);
            self.handle_timeout(now);
        }
    }

    /// The ways changed (a home went, another came): a request without an answer goes out again.
    pub fn retry(&mut self, now: Instant) {
        let two_ways = self.two_ways;
        if let State::Unanswered { second_at, .. } = &mut self.state {
            *second_at = two_ways.then_some(now + SECOND_WAY);
            self.returned = [false, !two_ways];
            self.send(Way::First);
        }
    }

    /// Cancels an INVITE: at once when the peer has answered provisionally, else as soon as it does (RFC 3261 §9.1).
    /// After a final answer there is nothing to cancel.
    pub fn cancel(&mut self, now: Instant) {
        if !self.is_invite() || self.cancel != Cancel::No {
            return;
        }
        match self.state {
            State::Unanswered { .. } => self.cancel = Cancel::Wanted,
            State::Proceeding { .. } => self.cancel_now(now),
            State::Accepted { .. } | State::Completed { .. } | State::Over => {}
        }
    }

    fn cancel_now(&mut self, now: Instant) {
        self.cancel = Cancel::Sent;
        self.state = State::Proceeding { until: Some(now + TIMEOUT) };
        self.outputs.push_back(ClientOutput::CancelNow(self.request.cancel()));
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let reached = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        match &mut self.state {
            State::Unanswered { second_at, undelivered_at, until } => {
                let second = reached(*second_at);
                let undelivered = reached(*undelivered_at);
                let over = *until <= now;
                if second {
                    *second_at = None;
                }
                if undelivered {
                    *undelivered_at = None;
                }
                if second {
                    self.send(Way::Second);
                }
                if undelivered {
                    self.outputs.push_back(ClientOutput::Undelivered(None));
                }
                if over {
                    self.outputs.push_back(ClientOutput::TimedOut);
                    self.end();
                }
            }
            State::Proceeding { until } => {
                if reached(*until) {
                    self.outputs.push_back(ClientOutput::TimedOut);
                    self.end();
                }
            }
            State::Accepted { until } | State::Completed { until, .. } => {
                if *until <= now {
                    self.end();
                }
            }
            State::Over => {}
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Unanswered { second_at, undelivered_at, until } => {
                [*second_at, *undelivered_at, Some(*until)].into_iter().flatten().min()
            }
            State::Proceeding { until } => *until,
            State::Accepted { until } | State::Completed { until, .. } => Some(*until),
            State::Over => None,
        }
    }

    /// The next thing to do; `None` when drained.
    pub fn poll_output(&mut self) -> Option<ClientOutput> {
        self.outputs.pop_front()
    }
}
