//! What must never happen: a packet that panics a process. The whole realm runs while frames are changed on its links
//! and strangers send datagrams; nobody may fall over, every call ends for both, and afterwards all is as before.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use yodel::command::{CallId, Dial, Reply, Request};
use yodel::node::Client;
use yodel_supernode::node::Supernode;
use yodel_tests::sim::nat::NatKind;
use yodel_tests::sim::realm::{Manners, PhoneIndex, SimRealm, Where};
use yodel_wire::frame::{Frame, FrameKind};
use yodel_wire::limits::FRAME_BODY_BYTES_MAX;
use yodel_wire::machine::Machine;

const SECOND: Duration = Duration::from_secs(1);

/// A source of mischief with a seed.
struct Mischief {
    rng: ChaCha20Rng,
    /// Bodies that went by, to be put where they do not belong.
    seen: Vec<Vec<u8>>,
}

impl Mischief {
    fn new(seed: u64) -> Mischief {
        Mischief { rng: ChaCha20Rng::seed_from_u64(seed), seen: Vec::new() }
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.rng.next_u64() % bound.max(1) as u64) as usize
    }

    /// One change: bits, length, or another's bytes.
    fn change(&mut self, bytes: &mut Vec<u8>, max: usize) {
        match self.below(5) {
            0 => bytes.truncate(self.below(bytes.len() + 1)),
            1 => {
                let length = self.below(64);
                bytes.extend((0..length).map(|_| self.rng.next_u32() as u8));
            }
            2 if !self.seen.is_empty() => {
                let at = self.below(bytes.len() + 1);
                let other = self.below(self.seen.len());
                bytes.truncate(at);
                bytes.extend(self.seen[other].iter().skip(at));
            }
            _ => {
                for _ in 0..=self.below(4) {
                    let at = self.below(bytes.len());
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << (self.rng.next_u32() % 8);
                    }
                }
            }
        }
        bytes.truncate(max);
    }

    /// What arrives instead of a frame.
    fn tamper(&mut self, mut frame: Frame) -> Vec<Frame> {
        if self.seen.len() < 256 {
            self.seen.push(frame.body.clone());
        }
        match self.below(60) {
            0 => Vec::new(),
            1 => vec![frame.clone(), frame],
            2 => {
                frame.kind = FrameKind::ALL[self.below(FrameKind::ALL.len())];
                vec![frame]
            }
            3..6 => {
                self.change(&mut frame.body, FRAME_BODY_BYTES_MAX);
                vec![frame]
            }
            _ => vec![frame],
        }
    }
}

fn realm(seed: u64) -> (SimRealm, [PhoneIndex; 4]) {
    let mut realm = SimRealm::new(seed, 3);
    let kinds =
        [NatKind::PORT_RESTRICTED, NatKind::PORT_RESTRICTED, NatKind::SYMMETRIC, NatKind::UDP_BLOCKED];
    let names = ["alice", "bob", "carol", "dave"];
    let phones = [0, 1, 2, 3].map(|n| realm.phone(names[n], Where::Home(kinds[n])));
    realm.all_online();
    realm.befriend(phones[0], phones[1]);
    realm.befriend(phones[2], phones[3]);
    for phone in phones {
        realm.phones[phone_number(&phones, phone)].manners = Manners::Answer(SECOND / 2);
    }
    (realm, phones)
}

fn phone_number(phones: &[PhoneIndex], phone: PhoneIndex) -> usize {
    phones.iter().position(|other| *other == phone).unwrap()
}

fn try_dial(realm: &mut SimRealm, from: PhoneIndex, to: PhoneIndex) -> Option<CallId> {
    let audio = realm.mouth_of(from);
    let peer = realm[to].aor.clone();
    let dial = Dial { peer, audio, relay_only: false, max: Some(3 * SECOND), ring_timeout: Some(5 * SECOND) };
    match realm.ask(from, Request::Dial(dial)) {
        Ok(Reply::Call(call)) => Some(call),
        _ => None,
    }
}

/// Every call that either phone knows has come to an end.
fn all_ended(realm: &SimRealm, phones: &[PhoneIndex]) -> bool {
    phones.iter().all(|phone| {
        let phone = &realm[*phone];
        phone.calls().into_iter().all(|call| phone.end(call).is_some())
    })
}

#[test]
fn changed_frames_neither_panic_nor_leave_a_call_open() {
    for seed in 0..8 {
        let (mut realm, phones) = realm(seed);
        let mut mischief = Mischief::new(seed);
        realm.world.set_tamper(Some(Box::new(move |_, _, frame| mischief.tamper(frame))));
        let mut dialled = 0;
        for _ in 0..6 {
            dialled += [(0, 1), (3, 2)]
                .into_iter()
                .filter_map(|(from, to)| try_dial(&mut realm, phones[from], phones[to]))
                .count();
            realm.run_for(6 * SECOND);
        }
        assert!(dialled > 0, "seed {seed}");
        realm.world.set_tamper(None);
        assert!(
            realm.run_until(120 * SECOND, |realm| all_ended(realm, &phones)),
            "seed {seed}: a call stays open"
        );

        // Nothing of it lasts.
        assert!(
            realm.run_until(120 * SECOND, |realm| phones.iter().all(|phone| realm[*phone].online)),
            "seed {seed}: a phone does not come back"
        );
        for (from, to) in [(0, 1), (2, 3)] {
            let call = try_dial(&mut realm, phones[from], phones[to]).unwrap();
            let media = realm.reaches(phones[from], call, "media", 20 * SECOND);
            let steps = [from, to].map(|n| {
                let known = realm[phones[n]].calls().contains(&call);
                known.then(|| realm.why(phones[n], call).steps)
            });
            assert!(media, "seed {seed}: {from} to {to}: {steps:#?}");
        }
    }
}

#[test]
fn datagrams_of_strangers_move_nothing() {
    let seeds: Vec<Vec<u8>> = ["stun", "relay_frame", "media_packet"]
        .into_iter()
        .flat_map(|target| {
            fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target)).unwrap()
        })
        .map(|entry| entry.unwrap().path())
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .map(|path| fs::read(path).unwrap())
        .collect();
    let (mut realm, phones) = realm(99);
    let alice = phones[0];
    let bob = realm[phones[1]].aor.clone();
    let call = realm.dial(alice, &bob);
    assert!(realm.reaches(alice, call, "media", 10 * SECOND));
    let mut mischief = Mischief::new(99);
    mischief.seen = seeds.clone();
    let peers = realm.phones.iter().map(|phone| realm.world.addr(phone.node));
    let sources: Vec<_> = peers.chain(realm.supernodes.iter().map(|s| realm.world.addr(s.node))).collect();
    for _ in 0..200 {
        for n in 0..20 {
            let mut bytes = seeds[mischief.below(seeds.len())].clone();
            if n % 4 != 0 {
                mischief.change(&mut bytes, 1_200);
            }
            // Also under the address of somebody whom the receiver knows.
            let from = match mischief.below(2) {
                0 => sources[mischief.below(sources.len())],
                _ => format!("192.0.2.{}:{}", n + 1, 1 + mischief.below(60_000)).parse().unwrap(),
            };
            let phone = realm.phones[n % 4].node;
            realm.world.with::<Client, _>(phone, |client, now| client.handle_datagram(now, from, &bytes));
            let node = realm.supernodes[n % 3].node;
            realm.world.with::<Supernode, _>(node, |home, now| home.handle_datagram(now, from, &bytes));
        }
        realm.run_for(Duration::from_millis(20));
    }
    assert!(realm[alice].end(call).is_none());
    assert!(phones.iter().all(|phone| realm[*phone].online));
    let heard = |realm: &SimRealm| realm[alice].ears.last().unwrap().sound().heard_of(realm[phones[1]].voice);
    let before = heard(&realm);
    realm.run_for(2 * SECOND);
    assert!(heard(&realm) >= before + 90, "{before} {}", heard(&realm));
}
