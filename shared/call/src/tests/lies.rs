//! A home that lies: nothing it forges, replays or exchanges moves a call, and the timeline names it.

use yodel_identity::node::NodeId;
use yodel_sip::envelope::Envelope;
use yodel_sip::message::{Message, Request, Response};
use yodel_sip::method::{Method, Status};
use yodel_sip::uri::{NameAddr, Uri};

use super::world::{Habit, Liar, World, ms};
use crate::cause::Cause;
use crate::timeline::{Refusal, Step};

/// After each message that passes, what `make` makes of it passes too.
fn adding(mut make: impl FnMut(&Message) -> Vec<Message> + 'static) -> Liar {
    Box::new(move |all, _| {
        let Some(first) = all.first().cloned() else { return };
        let Ok(message) = Message::parse(&first.message) else { return };
        all.extend(
            make(&message).into_iter().map(|forged| Envelope { message: forged.encode(), ..first.clone() }),
        );
    })
}

/// A request of another method in the same dialog, with this body.
fn posing(request: &Request, method: Method, body: Vec<u8>) -> Message {
    let mut forged = request.clone();
    let number = request.cseq().unwrap().number;
    forged.headers.set("CSeq", &format!("{number} {method}"));
    forged.method = method;
    forged.body = body;
    Message::Request(forged)
}

fn with_status(response: &Response, status: u16, body: Vec<u8>) -> Message {
    let mut forged = response.clone();
    forged.status = Status::new(status).unwrap();
    forged.body = body;
    Message::Response(forged)
}

/// A call with this liar goes as one without, and one side's timeline names the refusal.
fn harmless(liar: Liar, wanted: &[(usize, Refusal)]) -> World {
    let mut world = World::pair(1);
    world.liar = Some(liar);
    let call = world.dial(0, "bob");
    world.run(ms(3_000));
    let story = |world: &World| format!("{}\n--\n{}", world.story(0), world.story(1));
    assert_eq!(
        world.states(0),
        ["resolving", "contacting", "alerted", "answered", "media"],
        "{}",
        story(&world)
    );
    assert_eq!(world.states(1), ["contacting", "alerted", "answered", "media"], "{}", story(&world));
    for (phone, refusal) in wanted {
        let calls = &world.phones[*phone].calls;
        let named = calls.timeline(call).unwrap().refused(*refusal) || calls.stray().refused(*refusal);
        assert!(named, "{refusal:?} is not named\n{}", story(&world));
    }
    world.hangup(0, call);
    world.run(ms(1_000));
    assert_eq!(world.causes(0), [Cause::LocalHangup], "{}", story(&world));
    assert_eq!(world.causes(1), [Cause::RemoteHangup], "{}", story(&world));
    world
}

#[test]
fn forged_cancel_and_bye() {
    let liar = adding(|message| match message {
        Message::Request(request) if request.method == Method::Invite => {
            let body = request.body.clone();
            vec![
                posing(request, Method::Cancel, vec![]),
                posing(request, Method::Cancel, body),
                posing(request, Method::Bye, vec![]),
            ]
        }
        Message::Request(request) if request.method == Method::Ack => {
            let body = request.body.clone();
            vec![posing(request, Method::Bye, vec![]), posing(request, Method::Bye, body)]
        }
        _ => vec![],
    });
    harmless(liar, &[(1, Refusal::Unboxed), (1, Refusal::Malformed), (1, Refusal::Swapped)]);
}

#[test]
fn forged_answers() {
    let liar = adding(|message| match message {
        Message::Response(response) if response.status == Status::RINGING => {
            let body = response.body.clone();
            let mut broken = body.clone();
            *broken.last_mut().unwrap() ^= 1;
            vec![
                with_status(response, 603, vec![]),
                with_status(response, 200, body.clone()),
                with_status(response, 486, body),
                with_status(response, 603, broken),
            ]
        }
        _ => vec![],
    });
    harmless(liar, &[(0, Refusal::Unboxed), (0, Refusal::Swapped), (0, Refusal::Forged)]);
}

#[test]
fn a_homes_own_word_is_no_word_of_the_peer() {
    let liar: Liar = Box::new(|all, _| {
        let first = all[0].clone();
        let Ok(Message::Response(response)) = Message::parse(&first.message) else { return };
        if response.status == Status::RINGING {
            for status in [408, 480, 486, 503, 603] {
                let forged = with_status(&response, status, vec![]);
                all.push(Envelope { message: forged.encode(), by_home: true, ..first.clone() });
            }
        }
    });
    harmless(liar, &[]);
}

#[test]
fn replayed_invite() {
    // At once, while it rings, and when all is over.
    let mut kept = None;
    let liar: Liar = Box::new(move |all, _| {
        let Ok(message) = Message::parse(&all[0].message) else { return };
        match &message {
            Message::Request(request) if request.method == Method::Invite => {
                kept = Some(all[0].clone());
                all.push(all[0].clone());
            }
            Message::Request(_) => all.extend(kept.clone()),
            Message::Response(_) => {}
        }
    });
    let mut world = harmless(liar, &[(1, Refusal::Replayed)]);
    world.run(ms(20_000));
    assert_eq!(world.phones[1].calls.counters()["calls_kept"], 0);

    let mut world = World::pair(2);
    let copy = std::sync::Arc::new(std::sync::Mutex::new(None));
    let keeper = copy.clone();
    world.liar = Some(Box::new(move |all, _| {
        keeper.lock().unwrap().get_or_insert(all[0].clone());
    }));
    let call = world.dial(0, "bob");
    world.run(ms(1_000));
    world.hangup(0, call);
    world.run(ms(30_000));
    let events = world.phones[1].events.len();
    let invite = copy.lock().unwrap().clone().unwrap();
    world.deliver(1, 2, invite);
    world.run(ms(1_000));
    assert_eq!(world.phones[1].events.len(), events, "it does not ring again");
    assert!(world.phones[1].calls.stray().refused(Refusal::CallIdSeen));
}

#[test]
fn a_swapped_from_changes_nothing() {
    let liar: Liar = Box::new(|all, _| {
        let Ok(Message::Request(mut request)) = Message::parse(&all[0].message) else { return };
        if request.method == Method::Invite {
            let tag = request.from_tag().unwrap();
            let other = NameAddr::new(Uri::node(NodeId([9; 16]), "example.net")).with_tag(&tag);
            request.headers.set("From", &other.to_string());
            all[0].message = Message::Request(request).encode();
        }
    });
    let world = harmless(liar, &[(1, Refusal::WrongName)]);
    assert!(world.phones[1].events.iter().all(|(_, event)| event.peer.to_string() == "alice@example.net"));
}

#[test]
fn an_altered_offer_goes_the_honest_way() {
    // The first way leads through supernode 2, which exchanges the offer; the other way is honest.
    let liar: Liar = Box::new(|all, via| {
        let Ok(Message::Request(mut request)) = Message::parse(&all[0].message) else { return };
        if via == 2 && request.method == Method::Invite {
            let middle = request.body.len() / 2;
            request.body[middle] ^= 1;
            all[0].message = Message::Request(request).encode();
        }
    });
    harmless(liar, &[(1, Refusal::Forged)]);
}

#[test]
fn a_home_that_swallows_everything_is_gone_around() {
    let liar: Liar = Box::new(|all, via| {
        if via == 2 {
            all.clear();
        }
    });
    let world = harmless(liar, &[]);
    assert!(world.when(0, "alerted") < ms(1_000));
}

#[test]
fn a_tag_exchanged_on_the_way_keeps_no_call_up() {
    let liar: Liar = Box::new(|all, _| {
        let Ok(Message::Response(mut response)) = Message::parse(&all[0].message) else { return };
        if let Some(to) = response.to_address().filter(|to| to.tag().is_some()) {
            response.headers.set("To", &to.with_tag("0123").to_string());
            all[0].message = Message::Response(response).encode();
        }
    });
    harmless(liar, &[]);
}

#[test]
fn one_leg_cannot_speak_for_another() {
    // A box of another call, though between the same two.
    let mut world = World::pair(3);
    world.phones[1].habit = Habit::Decline(ms(50));
    let copy = std::sync::Arc::new(std::sync::Mutex::new(None));
    let keeper = copy.clone();
    world.liar = Some(Box::new(move |all, _| {
        if let Ok(Message::Response(response)) = Message::parse(&all[0].message)
            && response.status == Status::DECLINE
        {
            keeper.lock().unwrap().get_or_insert(response);
        }
    }));
    world.dial(0, "bob");
    world.run(ms(1_000));
    let declined = copy.lock().unwrap().clone().unwrap();
    world.phones[1].habit = Habit::Answer(ms(500));
    world.liar = Some(Box::new(move |all, _| {
        let first = all[0].clone();
        if let Ok(Message::Response(response)) = Message::parse(&first.message)
            && response.status == Status::RINGING
        {
            let forged = with_status(&response, 603, declined.body.clone());
            all.push(Envelope { message: forged.encode(), ..first });
        }
    }));
    let call = world.dial(0, "bob");
    world.run(ms(2_000));
    assert!(world.states(0).contains(&"media"), "{}", world.story(0));
    let timeline = world.phones[0].calls.timeline(call).unwrap();
    assert!(timeline.entries().iter().any(|entry| entry.step == Step::Refused(Refusal::Forged)));
}
