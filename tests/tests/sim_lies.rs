//! A home that lies, in a realm of three supernodes: what it forges, replays, exchanges or keeps back moves no call,
//! and `why` on the attacked side names it. All supernodes lie alike where a lie is added, one where it takes away.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use yodel::command::{CallId, Cause, PathKind};
use yodel_call::timeline::Refusal;
use yodel_overlay::record::{Answer, ContactEntry, WriteRequest};
use yodel_sip::envelope::Envelope;
use yodel_sip::ids::Ids;
use yodel_sip::message::{Message, Request, RequestParts, Response};
use yodel_sip::method::{Method, Status};
use yodel_sip::sdp::{Fragment, IceCredentials};
use yodel_tests::sim::checks::{settled, stories};
use yodel_tests::sim::nat::NatKind;
use yodel_tests::sim::realm::{Manners, PhoneIndex, SimRealm, Where, pair};
use yodel_tests::sim::world::{NodeIndex, Place};
use yodel_wire::frame::{Frame, FrameKind};
use yodel_wire::machine::{CommitResult, LinkEvent, LinkId, Machine, Output, Ticket};
use yodel_wire::time::Now;

const CONE: Where = Where::Home(NatKind::PORT_RESTRICTED);
const SECOND: Duration = Duration::from_secs(1);

/// A realm with one call that goes through all the lies.
struct Scene {
    realm: SimRealm,
    alice: PhoneIndex,
    bob: PhoneIndex,
}

impl Scene {
    fn new(seed: u64) -> Scene {
        let (mut realm, alice, bob) = pair(seed, CONE, CONE);
        realm[bob].manners = Manners::Answer(SECOND / 2);
        Scene { realm, alice, bob }
    }

    /// From now on `lie` decides what this phone gets instead of a SIP message, from whatever home.
    fn lie_to(
        &mut self,
        phone: PhoneIndex,
        mut lie: impl FnMut(&Envelope, &Message) -> Vec<Envelope> + 'static,
    ) {
        let victim = self.realm[phone].node;
        self.realm.world.set_tamper(Some(Box::new(move |_, to: NodeIndex, frame: Frame| {
            if to != victim || frame.kind != FrameKind::SipDeliver {
                return vec![frame];
            }
            let envelope = Envelope::decode(&frame.body).unwrap();
            let message = Message::parse(&envelope.message).unwrap();
            let frames = lie(&envelope, &message).into_iter();
            frames.map(|envelope| Frame::new(FrameKind::SipDeliver, envelope.encode())).collect()
        })));
    }

    /// As [`lie_to`](Self::lie_to), but everything true arrives first.
    fn add_to(&mut self, phone: PhoneIndex, mut lies: impl FnMut(&Message) -> Vec<Message> + 'static) {
        self.lie_to(phone, move |envelope, message| {
            let forged = lies(message).into_iter();
            let forged = forged.map(|message| Envelope { message: message.encode(), ..envelope.clone() });
            std::iter::once(envelope.clone()).chain(forged).collect()
        });
    }

    fn dial(&mut self) -> CallId {
        let callee = self.realm[self.bob].aor.clone();
        self.realm.dial(self.alice, &callee)
    }

    fn story(&mut self) -> String {
        stories(&mut self.realm, &[self.alice, self.bob])
    }

    /// The call goes as one without lies; `why` on this side names each of these.
    fn harmless(&mut self, attacked: PhoneIndex, named: &[Refusal]) -> CallId {
        let call = self.dial();
        self.realm.run_for(4 * SECOND);
        let story = self.story();
        let states = [self.alice, self.bob].map(|phone| self.realm[phone].states(call));
        assert_eq!(states[0], ["resolving", "contacting", "alerted", "answered", "media"], "{story}");
        assert_eq!(states[1], ["contacting", "alerted", "answered", "media"], "{story}");
        for refusal in named {
            assert!(
                self.realm.timeline_says(attacked, call, refusal.text()),
                "{refusal:?} is not named\n{story}"
            );
        }
        for phone in [self.alice, self.bob] {
            assert_eq!(self.realm[phone].paths(call).last(), Some(&PathKind::Direct), "{story}");
        }
        self.realm.hangup(self.alice, Some(call));
        assert_eq!(self.realm.cause(self.alice, call, SECOND), Cause::LocalHangup, "{story}");
        assert_eq!(self.realm.cause(self.bob, call, SECOND), Cause::RemoteHangup, "{story}");
        self.realm.run_for(SECOND);
        settled(&mut self.realm, &[self.alice, self.bob]).unwrap();
        call
    }
}

/// Another method with the headers of this request.
fn posing(request: &Request, method: Method, body: Vec<u8>) -> Message {
    let mut forged = request.clone();
    let number = request.cseq().unwrap().number;
    forged.headers.set("CSeq", &format!("{number} {method}"));
    forged.method = method;
    forged.body = body;
    Message::Request(forged)
}

/// A request of the callee, made of what its answers show.
fn of_callee(response: &Response, method: Method, body: Vec<u8>) -> Message {
    let (from, to) = (response.to_address().unwrap(), response.from().unwrap());
    let parts = RequestParts {
        branch: &Ids::new([7; 32]).branch(),
        uri: to.uri.clone(),
        from: &from,
        to: &to,
        call_id: &response.call_id(),
        cseq: 1,
        method,
    };
    Message::Request(Request::new(&parts).with_body("application/octet-stream", body))
}

fn with_status(response: &Response, status: Status, body: Vec<u8>) -> Message {
    let mut forged = response.clone();
    forged.status = status;
    forged.body = body;
    Message::Response(forged)
}

fn broken(body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    *body.last_mut().unwrap() ^= 1;
    body
}

#[test]
fn a_forged_bye_ends_nothing_at_the_callee() {
    let mut scene = Scene::new(1);
    let bob = scene.bob;
    scene.add_to(bob, |message| match message {
        Message::Request(request) if request.method == Method::Ack => {
            let body = request.body.clone();
            let altered = posing(request, Method::Bye, broken(&body));
            vec![posing(request, Method::Bye, vec![]), posing(request, Method::Bye, body), altered]
        }
        _ => vec![],
    });
    scene.harmless(bob, &[Refusal::Unboxed, Refusal::Swapped, Refusal::Forged]);
}

#[test]
fn a_forged_bye_ends_nothing_at_the_caller() {
    let mut scene = Scene::new(2);
    let alice = scene.alice;
    scene.add_to(alice, |message| match message {
        Message::Response(response) if matches!(response.status, Status::RINGING | Status::OK) => {
            let body = response.body.clone();
            vec![of_callee(response, Method::Bye, vec![]), of_callee(response, Method::Bye, body)]
        }
        _ => vec![],
    });
    scene.harmless(alice, &[Refusal::Unboxed]);
}

#[test]
fn a_forged_cancel_ends_nothing() {
    let mut scene = Scene::new(3);
    let bob = scene.bob;
    scene.add_to(bob, |message| match message {
        Message::Request(request) if request.method == Method::Invite => {
            let body = request.body.clone();
            vec![posing(request, Method::Cancel, vec![]), posing(request, Method::Cancel, body)]
        }
        _ => vec![],
    });
    scene.harmless(bob, &[Refusal::Unboxed]);
}

#[test]
fn a_forged_603_ends_nothing() {
    let mut scene = Scene::new(4);
    let alice = scene.alice;
    scene.add_to(alice, |message| match message {
        Message::Response(response) if response.status == Status::RINGING => {
            let body = response.body.clone();
            vec![
                with_status(response, Status::DECLINE, vec![]),
                with_status(response, Status::DECLINE, broken(&body)),
                with_status(response, Status::DECLINE, body),
            ]
        }
        _ => vec![],
    });
    scene.harmless(alice, &[Refusal::Unboxed, Refusal::Forged, Refusal::Swapped]);
}

#[test]
fn a_603_of_the_home_itself_is_no_word_of_the_peer() {
    let mut scene = Scene::new(5);
    let alice = scene.alice;
    scene.lie_to(alice, |envelope, message| {
        let mut all = vec![envelope.clone()];
        if let Message::Response(response) = message
            && response.status == Status::RINGING
        {
            for status in [Status::REQUEST_TIMEOUT, Status::TEMPORARILY_UNAVAILABLE, Status::DECLINE] {
                let message = with_status(response, status, vec![]).encode();
                all.push(Envelope { message, by_home: true, ..envelope.clone() });
            }
        }
        all
    });
    let call = scene.harmless(alice, &[]);
    assert!(scene.realm.timeline_says(alice, call, "603 of a home itself"));
}

#[test]
fn a_replayed_invite_rings_once() {
    // At once, with every request that follows, and when all is over.
    let mut scene = Scene::new(6);
    let bob = scene.bob;
    let kept: Rc<RefCell<Option<Envelope>>> = Rc::default();
    let keeper = kept.clone();
    scene.lie_to(bob, move |envelope, message| {
        if matches!(message, Message::Request(request) if request.method == Method::Invite) {
            keeper.borrow_mut().get_or_insert_with(|| envelope.clone());
        }
        std::iter::once(envelope.clone()).chain(keeper.borrow().clone()).collect()
    });
    let call = scene.harmless(bob, &[Refusal::Replayed]);
    let news = scene.realm[bob].log.len();
    for (wait, named) in [(0, Refusal::Replayed), (15, Refusal::CallIdSeen), (60, Refusal::CallIdSeen)] {
        scene.realm.run_for(wait * SECOND);
        let invite = kept.borrow().clone().unwrap();
        let victim = scene.realm[bob].node;
        let mut once = Some(Frame::new(FrameKind::SipDeliver, invite.encode()));
        // With whatever frame goes there next.
        scene.realm.world.set_tamper(Some(Box::new(move |_, to, frame| {
            let extra = if to == victim { once.take() } else { None };
            std::iter::once(frame).chain(extra).collect()
        })));
        scene.realm.run_for(30 * SECOND);
        if named == Refusal::Replayed {
            assert!(scene.realm.timeline_says(bob, call, named.text()));
        }
    }
    assert_eq!(scene.realm[bob].log.len(), news, "it rang again");
    assert_eq!(scene.realm[bob].calls(), [call]);
}

#[test]
fn a_swapped_from_is_another_name_outside_than_inside() {
    let mut scene = Scene::new(7);
    let bob = scene.bob;
    let other = scene.realm.supernodes[0].id;
    scene.lie_to(bob, move |envelope, message| {
        let Message::Request(request) = message else { return vec![envelope.clone()] };
        let mut swapped = request.clone();
        let from =
            swapped.headers.text("From").unwrap().replace(&envelope.from.to_string(), &other.to_string());
        swapped.headers.set("From", &from);
        vec![Envelope { message: Message::Request(swapped).encode(), from: other, ..envelope.clone() }]
    });
    scene.harmless(bob, &[Refusal::WrongName]);
    let alice = scene.realm[scene.alice].aor.clone();
    assert!(scene.realm[bob].log.iter().all(|(_, event)| event.peer == alice));
}

/// Stands at an address and writes down who sent something there.
#[derive(Default)]
struct Spy {
    heard: Vec<Vec<u8>>,
}

impl Machine for Spy {
    type Command = ();
    type Event = ();
    fn handle_datagram(&mut self, _: Now, _: SocketAddr, datagram: &[u8]) {
        self.heard.push(datagram.to_vec());
    }
    fn handle_link(&mut self, _: Now, _: LinkId, _: LinkEvent) {}
    fn handle_command(&mut self, _: Now, (): ()) {}
    fn handle_committed(&mut self, _: Now, _: Ticket, _: CommitResult) {}
    fn handle_timeout(&mut self, _: Now) {}
    fn poll_output(&mut self) -> Output<()> {
        Output::Idle { deadline: None }
    }
}

#[test]
fn candidates_of_the_homes_own_are_not_taken() {
    let mut scene = Scene::new(8);
    let addr: SocketAddr = "66.0.0.1:9".parse().unwrap();
    let place = Place { addr, ports: Vec::new(), nat: None, key: [66; 32] };
    let spy = scene.realm.world.add(place, Spy::default());
    let ice = IceCredentials { ufrag: "spyspyspy".to_owned(), pwd: "spyspyspyspyspyspyspyspy".to_owned() };
    let fragment = Fragment { ice, candidates: Vec::new(), end_of_candidates: false, relays: Vec::new() };
    let mut fragment = fragment.encode();
    fragment.extend_from_slice(b"a=candidate:1 1 UDP 2130706431 66.0.0.1 9 typ host\r\n");
    assert_eq!(Fragment::parse(&fragment).unwrap().candidates.len(), 1, "a candidate that would be taken");
    let bob = scene.bob;
    scene.add_to(bob, move |message| match message {
        Message::Request(request) if matches!(request.method, Method::Invite | Method::Ack) => {
            let body = request.body.clone();
            vec![posing(request, Method::Info, fragment.clone()), posing(request, Method::Info, body)]
        }
        _ => vec![],
    });
    scene.harmless(bob, &[Refusal::Malformed, Refusal::Swapped]);
    let heard = scene.realm.world.with::<Spy, _>(spy, |spy, _| spy.heard.len());
    assert_eq!(heard, 0);
}

#[test]
fn an_offer_altered_by_one_home_goes_the_other_way() {
    let mut scene = Scene::new(9);
    let bob = scene.bob;
    let victim = scene.realm[bob].node;
    // Whichever home the call comes through first.
    let mut liar = None;
    scene.realm.world.set_tamper(Some(Box::new(move |from, to, frame| {
        if to != victim || frame.kind != FrameKind::SipDeliver || *liar.get_or_insert(from) != from {
            return vec![frame];
        }
        let mut envelope = Envelope::decode(&frame.body).unwrap();
        if let Ok(Message::Request(mut request)) = Message::parse(&envelope.message)
            && request.method == Method::Invite
        {
            let middle = request.body.len() / 2;
            request.body[middle] ^= 1;
            envelope.message = Message::Request(request).encode();
        }
        vec![Frame::new(FrameKind::SipDeliver, envelope.encode())]
    })));
    scene.harmless(bob, &[Refusal::Forged]);
}

#[test]
fn an_old_contact_entry_is_for_an_earlier_start() {
    // Bob's phone starts anew; the caller's homes go on giving the entry of its earlier start.
    let mut scene = Scene::new(10);
    let (alice, bob) = (scene.alice, scene.bob);
    let victim = scene.realm[alice].node;
    let device = scene.realm[bob].device;
    let old: Rc<RefCell<Option<Vec<u8>>>> = Rc::default();
    scene.realm.world.set_tamper(Some(Box::new(move |_, to, frame| {
        if to != victim || frame.kind != FrameKind::Answer {
            return vec![frame];
        }
        let mut answer = Answer::decode(&frame.body).unwrap();
        for bytes in &mut answer.entries {
            if ContactEntry::decode_unverified(bytes).is_ok_and(|entry| entry.device == device) {
                *bytes = old.borrow_mut().get_or_insert_with(|| bytes.clone()).clone();
            }
        }
        vec![answer.encode()]
    })));
    scene.harmless(alice, &[]);
    scene.realm.kill_phone(bob);
    scene.realm.restart_phone(bob);
    scene.realm.all_online();
    scene.realm[alice].log.clear();
    scene.realm[bob].log.clear();
    scene.harmless(bob, &[Refusal::StaleNonce]);
}

#[test]
fn a_home_that_swallows_all_it_should_carry_is_gone_around() {
    let mut scene = Scene::new(11);
    let alice = scene.alice;
    let liar = scene.realm.homes(alice)[0];
    let by = scene.realm.supernodes[liar].node;
    scene.realm.world.set_tamper(Some(Box::new(move |from, _, frame| {
        let carries =
            matches!(frame.kind, FrameKind::SipForward | FrameKind::SipDeliver | FrameKind::SipReturn);
        if from == by && carries { vec![] } else { vec![frame] }
    })));
    let began = scene.realm.world.now().mono;
    let call = scene.harmless(alice, &[]);
    let alerted = scene.realm[alice].when(call, "alerted").unwrap();
    assert!(alerted.since(began) <= SECOND, "{:?}", alerted.since(began));
    assert!(scene.realm.timeline_says(alice, call, "by the other home too"));
}

#[test]
fn a_home_that_only_says_it_wrote_is_found_out_through_the_other() {
    for seed in 0..8 {
        let (mut realm, alice, _) = pair(seed, CONE, CONE);
        // It keeps the account record and lets the contact entry fall, whatever it acknowledges.
        let mut liar = None;
        let fallen = Rc::new(Cell::new(0));
        let counted = fallen.clone();
        let others: Vec<NodeIndex> = realm.phones.iter().map(|phone| phone.node).collect();
        let members: Vec<NodeIndex> = realm.supernodes.iter().map(|supernode| supernode.node).collect();
        realm.world.set_tamper(Some(Box::new(move |from, to, frame| {
            let by_carol = !others.contains(&from) && !members.contains(&from);
            if frame.kind != FrameKind::Write || !by_carol || *liar.get_or_insert(to) != to {
                return vec![frame];
            }
            let mut write = WriteRequest::decode(&frame.body).unwrap();
            write.entry = None;
            counted.set(counted.get() + 1);
            vec![write.encode()]
        })));
        let carol = realm.phone("carol", CONE);
        assert!(realm.run_until(5 * SECOND, |realm| realm[carol].online), "so it was told");
        assert_eq!(fallen.get(), 1, "seed {seed}");
        realm.befriend(alice, carol);
        realm[carol].manners = Manners::Answer(SECOND / 2);
        let name = realm[carol].aor.clone();
        let call = realm.dial(alice, &name);
        assert!(realm.reaches(alice, call, "media", 5 * SECOND), "seed {seed}");
        realm.hangup(alice, Some(call));
        realm.run_for(2 * SECOND);
    }
}
