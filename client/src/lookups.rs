//! Reading records through the homes, believing nothing that does not verify.
//!
//! Contract: [`Lookups::start`], then [`Lookups::handle_answer`] with every `Answer` frame of a home and
//! [`Lookups::handle_timeout`] at [`Lookups::deadline`]; drain [`Lookups::poll_output`]. Each lookup ends with exactly one
//! settled result; a found one may come before it, so that a call can start with the first valid answer.
//!
//! The first home is asked, the second 300 ms later. "No such account" from one home is asked of the other too: one
//! lying home must not make an account vanish, however often it says so. What one home was told to write is read back
//! through another, and through that one alone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use yodel_identity::name::Aor;
use yodel_identity::node::NodeId;
use yodel_identity::realm::Realm;
use yodel_overlay::record::{Answer, ReadRequest, Scope};
use yodel_overlay::verify::LookupResult;
use yodel_wire::frame::Frame;
use yodel_wire::time::{Instant, Now};

use crate::command::RequestId;
use crate::limits::{LOOKUP, LOOKUP_SECOND_WAY, LOOKUPS_MAX};

/// Who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asker {
    /// A call or a message.
    Call(yodel_call::event::LookupId),
    /// The phone itself, for its own records.
    Own,
    /// The phone itself: whether what it wrote through one home can be read through this other.
    ReadBack(NodeId),
    /// Somebody is about to become a contact.
    Contact(Aor),
    /// A user who wants to know whom a call would reach.
    Reach(RequestId, Aor),
}

/// What the lookups want done or tell.
#[derive(Debug)]
pub enum LookupsOutput {
    /// Write this frame to this home.
    Frame(NodeId, Frame),
    /// A result; the last one when it is settled or nothing was found.
    Result(Asker, LookupResult),
}

#[derive(Debug)]
struct Pending {
    asker: Asker,
    key: [u8; 16],
    past_cache: bool,
    began: Instant,
    /// The one home to ask.
    through: Option<NodeId>,
    asked: Vec<NodeId>,
    /// Homes that said there is no such account. Each counts once, whatever it repeats.
    none: BTreeSet<NodeId>,
    /// Homes that said they cannot tell.
    unreachable: BTreeSet<NodeId>,
    /// What was found last, while it is not settled.
    found: Option<LookupResult>,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Lookups {
    next: u64,
    pending: BTreeMap<u64, Pending>,
    homes: Vec<NodeId>,
    outputs: VecDeque<LookupsOutput>,
}

impl Lookups {
    /// Nothing asked yet.
    pub fn new() -> Lookups {
        Lookups::default()
    }

    /// The warm homes, the first one first. Lookups that a lost home did not answer go to the next.
    pub fn set_homes(&mut self, homes: Vec<NodeId>) {
        // A home that went away took the question with it, also when it comes back.
        for pending in self.pending.values_mut() {
            pending.asked.retain(|home| homes.contains(home));
        }
        let lost: Vec<u64> =
            self.pending.iter().filter(|(_, p)| p.asked.is_empty()).map(|(id, _)| *id).collect();
        self.homes = homes;
        for id in lost {
            self.ask_next(id);
        }
    }

    /// Asks for the records of an account.
    pub fn start(&mut self, now: Now, asker: Asker, aor: &Aor, past_cache: bool) {
        self.begin(now, asker, aor, past_cache, None);
    }

    /// Asks this home alone for the phone's own records, past its cache.
    pub fn start_through(&mut self, now: Now, own: &Aor, home: NodeId) {
        self.begin(now, Asker::ReadBack(home), own, true, Some(home));
    }

    fn begin(&mut self, now: Now, asker: Asker, aor: &Aor, past_cache: bool, through: Option<NodeId>) {
        if self.pending.len() >= LOOKUPS_MAX {
            self.outputs.push_back(LookupsOutput::Result(asker, LookupResult::Unreachable));
            return;
        }
        self.next += 1;
        self.pending.insert(
            self.next,
            Pending {
                asker,
                key: aor.key(),
                past_cache,
                began: now.mono,
                through,
                asked: Vec::new(),
                none: BTreeSet::new(),
                unreachable: BTreeSet::new(),
                found: None,
            },
        );
        self.ask_next(self.next);
    }

    fn ask_next(&mut self, id: u64) {
        let Some(pending) = self.pending.get_mut(&id) else { return };
        let fits = |home: &&NodeId| {
            !pending.asked.contains(home) && pending.through.is_none_or(|only| only == **home)
        };
        let Some(home) = self.homes.iter().find(fits) else { return };
        pending.asked.push(*home);
        let request =
            ReadRequest { id, key: pending.key, scope: Scope::Walk, past_cache: pending.past_cache };
        self.outputs.push_back(LookupsOutput::Frame(*home, request.encode()));
    }

    /// A home answered.
    pub fn handle_answer(&mut self, now: Now, realm: &Realm, home: NodeId, answer: &Answer) {
        let Some(pending) = self.pending.get_mut(&answer.id) else { return };
        if !pending.asked.contains(&home) {
            return;
        }
        let result = LookupResult::from_answer(realm, &pending.key, answer, now.unix);
        match &result {
            LookupResult::Found { settled, .. } => {
                pending.found = Some(result.clone());
                let asker = pending.asker.clone();
                if *settled {
                    self.pending.remove(&answer.id);
                }
                self.outputs.push_back(LookupsOutput::Result(asker, result));
                return;
            }
            LookupResult::NoSuchAccount => pending.none.insert(home),
            LookupResult::Unreachable => pending.unreachable.insert(home),
        };
        let heard = pending.none.union(&pending.unreachable).count();
        let enough = if pending.through.is_some() { 1 } else { self.homes.len().min(2) };
        if heard >= enough && pending.found.is_none() {
            self.finish(answer.id);
        } else {
            self.ask_next(answer.id);
        }
    }

    fn finish(&mut self, id: u64) {
        let Some(pending) = self.pending.remove(&id) else { return };
        let result = match pending.found {
            // Whoever found it never said that nothing follows.
            Some(LookupResult::Found { account, entries, settled: _ }) => {
                LookupResult::Found { account, entries, settled: true }
            }
            // One home's "none" against another's "cannot tell" is no proof.
            Some(_) | None if pending.none.is_empty() || !pending.unreachable.is_empty() => {
                LookupResult::Unreachable
            }
            Some(_) | None => LookupResult::NoSuchAccount,
        };
        self.outputs.push_back(LookupsOutput::Result(pending.asker, result));
    }

    /// The second way, and the end of patience.
    pub fn handle_timeout(&mut self, now: Now) {
        let ids: Vec<u64> = self.pending.keys().copied().collect();
        for id in ids {
            let Some(pending) = self.pending.get(&id) else { continue };
            let waited = now.mono.since(pending.began);
            if waited >= LOOKUP {
                self.finish(id);
            } else if waited >= LOOKUP_SECOND_WAY && pending.asked.len() < 2 {
                self.ask_next(id);
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let next = |p: &Pending| {
            let second = p.through.is_none()
                && p.asked.len() < 2
                && self.homes.iter().any(|home| !p.asked.contains(home));
            p.began + if second { LOOKUP_SECOND_WAY } else { LOOKUP }
        };
        self.pending.values().map(next).min()
    }

    /// The next thing to carry out.
    pub fn poll_output(&mut self) -> Option<LookupsOutput> {
        self.outputs.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use yodel_identity::keys::SigningKey;
    use yodel_identity::name::RealmName;
    use yodel_overlay::record::Standing;
    use yodel_wire::time::UnixTime;

    use super::*;

    const LIAR: NodeId = NodeId([1; 16]);
    const HONEST: NodeId = NodeId([2; 16]);

    fn now() -> Now {
        Now { mono: Instant::from_micros(1_000), unix: UnixTime::from_secs(1_800_000_000) }
    }

    fn realm() -> Realm {
        Realm::new(RealmName::parse("example.net").unwrap(), SigningKey::from_seed([1; 32]).public())
    }

    fn asked(homes: &[NodeId]) -> Lookups {
        let mut lookups = Lookups::new();
        lookups.set_homes(homes.to_vec());
        lookups.start(now(), Asker::Own, &Aor::parse("bob@example.net").unwrap(), false);
        lookups
    }

    fn results(lookups: &mut Lookups) -> Vec<LookupResult> {
        std::iter::from_fn(|| lookups.poll_output())
            .filter_map(|output| match output {
                LookupsOutput::Frame(..) => None,
                LookupsOutput::Result(_, result) => Some(result),
            })
            .collect()
    }

    fn say(lookups: &mut Lookups, home: NodeId, standing: Standing) -> Vec<LookupResult> {
        lookups.handle_answer(now(), &realm(), home, &Answer::empty(1, standing));
        results(lookups)
    }

    #[test]
    fn one_home_makes_no_account_vanish_by_repeating_itself() {
        let mut lookups = asked(&[LIAR, HONEST]);
        for _ in 0..3 {
            assert_eq!(say(&mut lookups, LIAR, Standing::None), []);
        }
        assert_eq!(say(&mut lookups, HONEST, Standing::Unreachable), [LookupResult::Unreachable]);
        assert_eq!(say(&mut lookups, LIAR, Standing::None), [], "it is over");
    }

    #[test]
    fn two_homes_that_agree_are_believed_and_so_is_an_only_one() {
        let mut lookups = asked(&[LIAR, HONEST]);
        assert_eq!(say(&mut lookups, LIAR, Standing::None), []);
        assert_eq!(say(&mut lookups, HONEST, Standing::None), [LookupResult::NoSuchAccount]);
        assert_eq!(say(&mut asked(&[HONEST]), HONEST, Standing::None), [LookupResult::NoSuchAccount]);
    }

    /// Seed 7 of `changed_frames_neither_panic_nor_leave_a_call_open`: the only home's link broke and came back.
    #[test]
    fn a_home_that_comes_back_is_asked_again() {
        let mut lookups = asked(&[HONEST]);
        while lookups.poll_output().is_some() {}
        lookups.set_homes(Vec::new());
        lookups.set_homes(vec![HONEST]);
        assert!(matches!(lookups.poll_output(), Some(LookupsOutput::Frame(HONEST, _))));
    }

    #[test]
    fn a_read_back_asks_one_home_alone() {
        let mut lookups = Lookups::new();
        lookups.set_homes(vec![LIAR, HONEST]);
        lookups.start_through(now(), &Aor::parse("bob@example.net").unwrap(), HONEST);
        assert!(matches!(lookups.poll_output(), Some(LookupsOutput::Frame(HONEST, _))));
        let later = Now { mono: now().mono + 2 * LOOKUP_SECOND_WAY, ..now() };
        lookups.handle_timeout(later);
        assert!(lookups.poll_output().is_none());
        assert_eq!(lookups.deadline(), Some(now().mono + LOOKUP));
        assert_eq!(say(&mut lookups, LIAR, Standing::None), [], "it was not asked");
        assert_eq!(say(&mut lookups, HONEST, Standing::None), [LookupResult::NoSuchAccount]);
    }

    #[test]
    fn silence_ends_in_one_result() {
        let mut lookups = asked(&[LIAR, HONEST]);
        let later = Now { mono: now().mono + LOOKUP + Duration::from_millis(1), ..now() };
        lookups.handle_timeout(later);
        assert_eq!(results(&mut lookups), [LookupResult::Unreachable]);
        assert_eq!(lookups.deadline(), None);
    }
}
