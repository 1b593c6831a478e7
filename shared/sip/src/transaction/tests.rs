use std::time::Duration;

use super::*;
use crate::ids::Ids;
use crate::limits::{SECOND_WAY, T1, T2, TIMEOUT, UNDELIVERED};
use crate::message::RequestParts;
use crate::uri::{NameAddr, Uri};

const ALICE: NodeId = NodeId([1; 16]);
const BOB: NodeId = NodeId([2; 16]);
const MS: Duration = Duration::from_millis(1);

fn at(ms: u64) -> Instant {
    Instant::ORIGIN + Duration::from_millis(ms)
}

fn request(method: Method, call_id: &str) -> Request {
    Request::new(&RequestParts {
        method,
        uri: Uri::node(BOB, "example.net"),
        from: &NameAddr::parse("<sip:alice@example.net>;tag=a").unwrap(),
        to: &NameAddr::parse("<sip:bob@example.net>").unwrap(),
        call_id,
        cseq: 1,
        branch: &Ids::new([9; 32]).branch(),
    })
}

fn answer(request: &Request, status: Status) -> Response {
    Response::to(request, status, Some("b"))
}

fn status(code: u16) -> Status {
    Status::new(code).unwrap()
}

/// What is drained, in short: `>1 INVITE` is sent by the first way, `<180` is told.
fn drain(transactions: &mut Transactions) -> Vec<String> {
    let way = |way| if way == Way::First { 1 } else { 2 };
    std::iter::from_fn(|| transactions.poll_output())
        .map(|output| match output {
            TransactionsOutput::Client(_, ClientOutput::Send { way: w, request }) => {
                format!(">{} {}", way(w), request.method)
            }
            TransactionsOutput::Client(_, ClientOutput::Response(response)) => {
                format!("<{}", response.status)
            }
            TransactionsOutput::Client(_, ClientOutput::AckAgain(_)) => "ack again".into(),
            TransactionsOutput::Client(_, ClientOutput::Undelivered(reason)) => {
                format!("undelivered {reason:?}")
            }
            TransactionsOutput::Client(_, ClientOutput::CancelNow(_)) => "cancel now".into(),
            TransactionsOutput::Client(_, ClientOutput::TimedOut) => "timed out".into(),
            TransactionsOutput::Client(_, ClientOutput::Ended) => "client ended".into(),
            TransactionsOutput::Server(_, ServerOutput::Send { way: w, response }) => {
                format!(">{} {}", way(w), response.status)
            }
            TransactionsOutput::Server(_, ServerOutput::Acked(_)) => "acked".into(),
            TransactionsOutput::Server(_, ServerOutput::NoAck) => "no ack".into(),
            TransactionsOutput::Server(_, ServerOutput::Ended) => "server ended".into(),
        })
        .collect()
}

/// Drains, then runs on timers alone until there are none or `end`; what happened, with milliseconds.
fn run(transactions: &mut Transactions, end: Instant) -> Vec<(u64, String)> {
    drain(transactions);
    let mut seen = Vec::new();
    while let Some(deadline) = transactions.deadline().filter(|deadline| *deadline <= end) {
        transactions.handle_timeout(deadline - MS);
        assert_eq!(drain(transactions), Vec::<String>::new(), "a millisecond early nothing happens");
        transactions.handle_timeout(deadline);
        seen.extend(drain(transactions).into_iter().map(|what| (deadline.as_micros() / 1_000, what)));
    }
    seen
}

fn seen(list: &[(u64, &str)]) -> Vec<(u64, String)> {
    list.iter().map(|(ms, what)| (*ms, (*what).to_owned())).collect()
}

fn asked(method: Method) -> (Transactions, Request, Key) {
    let mut transactions = Transactions::new();
    let request = request(method, "c");
    let key = transactions.request(at(0), BOB, request.clone(), true).unwrap();
    assert_eq!(drain(&mut transactions), [format!(">1 {}", request.method)]);
    (transactions, request, key)
}

#[test]
fn an_invite_without_answer_goes_the_other_way_and_ends_by_timer_b() {
    let (mut transactions, ..) = asked(Method::Invite);
    let expected =
        [(300, ">2 INVITE"), (1_000, "undelivered None"), (32_000, "timed out"), (32_000, "client ended")];
    assert_eq!(run(&mut transactions, at(100_000)), seen(&expected));
    assert_eq!(transactions.deadline(), None);
    assert_eq!((SECOND_WAY, UNDELIVERED, TIMEOUT), (300 * MS, 1_000 * MS, T1 * 64));
}

#[test]
fn with_one_way_there_is_no_second() {
    let mut transactions = Transactions::new();
    let key = transactions.request(at(0), BOB, request(Method::Invite, "c"), false).unwrap();
    assert_eq!(run(&mut transactions, at(2_000)), seen(&[(1_000, "undelivered None")]));
    drain(&mut transactions);
    transactions.handle_return(at(2_000), &key, Way::First, ReturnReason::NotAttached);
    assert_eq!(drain(&mut transactions), Vec::<String>::new(), "told once");
}

#[test]
fn a_provisional_stops_the_second_way_and_timer_b() {
    let (mut transactions, invite, _) = asked(Method::Invite);
    assert!(transactions.handle_response(at(299), BOB, &answer(&invite, Status::TRYING)));
    assert!(transactions.handle_response(at(400), BOB, &answer(&invite, Status::RINGING)));
    assert!(transactions.handle_response(at(700), BOB, &answer(&invite, Status::RINGING)), "its copy");
    assert_eq!(drain(&mut transactions), ["<100", "<180"]);
    assert_eq!(transactions.deadline(), None, "an INVITE may ring for ever");
}

#[test]
fn a_return_starts_the_second_way_at_once_and_two_end_hope() {
    let (mut transactions, invite, key) = asked(Method::Invite);
    transactions.handle_return(at(40), &key, Way::First, ReturnReason::NotAttached);
    assert_eq!(drain(&mut transactions), [">2 INVITE"]);
    transactions.handle_return(at(80), &key, Way::Second, ReturnReason::NoRoute);
    assert_eq!(drain(&mut transactions), ["undelivered Some(NoRoute)"]);
    transactions.handle_response(at(90), BOB, &answer(&invite, Status::RINGING));
    assert_eq!(drain(&mut transactions), ["<180"], "homes that lie do not end the call");
}

#[test]
fn new_ways_carry_what_has_no_answer() {
    let (mut transactions, invite, _) = asked(Method::Bye);
    run(&mut transactions, at(5_000));
    transactions.retry(at(5_000));
    assert_eq!(drain(&mut transactions), [">1 BYE"]);
    assert_eq!(run(&mut transactions, at(6_000)), seen(&[(5_300, ">2 BYE")]));
    transactions.handle_response(at(6_000), BOB, &answer(&invite, Status::OK));
    drain(&mut transactions);
    transactions.retry(at(6_001));
    assert_eq!(drain(&mut transactions), Vec::<String>::new());
}

#[test]
fn a_2xx_is_told_once_and_its_copies_want_the_ack_again() {
    let (mut transactions, invite, _) = asked(Method::Invite);
    let ok = answer(&invite, Status::OK);
    transactions.handle_response(at(100), BOB, &ok);
    assert_eq!(drain(&mut transactions), ["<200"], "the ACK is the user's");
    transactions.handle_response(at(400), BOB, &ok);
    transactions.handle_response(at(500), BOB, &answer(&invite, Status::BUSY_HERE));
    assert_eq!(drain(&mut transactions), ["ack again"]);
    assert_eq!(run(&mut transactions, at(100_000)), seen(&[(32_100, "client ended")]));
}

#[test]
fn another_final_gets_its_ack_every_time() {
    let (mut transactions, invite, _) = asked(Method::Invite);
    let declined = answer(&invite, Status::DECLINE);
    transactions.handle_response(at(100), BOB, &declined);
    assert_eq!(drain(&mut transactions), ["<603", ">1 ACK"]);
    transactions.handle_response(at(400), BOB, &declined);
    transactions.handle_response(at(500), BOB, &answer(&invite, Status::OK));
    assert_eq!(drain(&mut transactions), [">1 ACK"], "a final answer is final");
    assert_eq!(run(&mut transactions, at(100_000)), seen(&[(32_100, "client ended")]));
}

#[test]
fn a_cancel_waits_for_the_first_answer() {
    let (mut transactions, invite, key) = asked(Method::Invite);
    transactions.cancel(at(50), &key);
    assert_eq!(drain(&mut transactions), Vec::<String>::new());
    transactions.handle_response(at(100), BOB, &answer(&invite, Status::TRYING));
    assert_eq!(drain(&mut transactions), ["<100", "cancel now", ">1 CANCEL"]);
    transactions.cancel(at(110), &key);
    assert_eq!(drain(&mut transactions), Vec::<String>::new(), "once");
    transactions.handle_response(at(200), BOB, &answer(&invite.cancel(), Status::OK));
    transactions.handle_response(at(210), BOB, &answer(&invite, Status::REQUEST_TERMINATED));
    assert_eq!(drain(&mut transactions), ["<200", "client ended", "<487", ">1 ACK"]);
}

#[test]
fn a_cancel_that_crosses_a_200_changes_nothing() {
    let (mut transactions, invite, key) = asked(Method::Invite);
    transactions.handle_response(at(100), BOB, &answer(&invite, Status::RINGING));
    transactions.cancel(at(150), &key);
    drain(&mut transactions);
    transactions.handle_response(at(160), BOB, &answer(&invite, Status::OK));
    assert_eq!(drain(&mut transactions), ["<200"]);
    let mut late = asked(Method::Invite).0;
    late.handle_response(at(100), BOB, &answer(&invite, Status::OK));
    drain(&mut late);
    late.cancel(at(150), &key);
    assert_eq!(drain(&mut late), Vec::<String>::new());
}

#[test]
fn an_invite_that_was_cancelled_ends_even_without_a_487() {
    let (mut transactions, invite, key) = asked(Method::Invite);
    transactions.handle_response(at(100), BOB, &answer(&invite, Status::RINGING));
    transactions.cancel(at(1_000), &key);
    let all = run(&mut transactions, at(100_000));
    assert!(all.contains(&(33_000, "timed out".into())), "{all:?}");
    assert_eq!(transactions.deadline(), None);
}

#[test]
fn other_requests_end_with_their_final_or_by_timer_f() {
    let (mut transactions, message, _) = asked(Method::Message);
    transactions.handle_response(at(100), BOB, &answer(&message, status(202)));
    assert_eq!(drain(&mut transactions), ["<202", "client ended"]);
    assert!(!transactions.handle_response(at(110), BOB, &answer(&message, status(202))), "a late copy");

    let (mut transactions, message, _) = asked(Method::Message);
    transactions.handle_response(at(100), BOB, &answer(&message, status(183)));
    drain(&mut transactions);
    assert_eq!(run(&mut transactions, at(100_000)), seen(&[(32_000, "timed out"), (32_000, "client ended")]));
}

#[test]
fn answers_of_others_and_of_other_branches_are_nothing() {
    let (mut transactions, invite, _) = asked(Method::Invite);
    assert!(!transactions.handle_response(at(1), ALICE, &answer(&invite, Status::OK)));
    let mut other = answer(&invite, Status::OK);
    other.headers.set("Via", "SIP/2.0/YODEL yodel.invalid;branch=z9hG4bKother");
    assert!(!transactions.handle_response(at(1), BOB, &other));
    assert_eq!(drain(&mut transactions), Vec::<String>::new());
}

fn invited() -> (Transactions, Request, Key) {
    let mut transactions = Transactions::new();
    let invite = request(Method::Invite, "c");
    let Arrival::New(key) = transactions.handle_request(at(0), ALICE, invite.clone()) else { panic!("new") };
    assert_eq!(drain(&mut transactions), [">1 100"]);
    (transactions, invite, key)
}

#[test]
fn copies_over_two_ways_are_one() {
    let (mut transactions, invite, key) = invited();
    assert_eq!(transactions.handle_request(at(10), ALICE, invite.clone()), Arrival::Copy(key.clone()));
    assert_eq!(drain(&mut transactions), [">1 100"]);
    assert!(transactions.respond(at(20), &key, answer(&invite, Status::RINGING)));
    assert_eq!(transactions.handle_request(at(30), ALICE, invite.clone()), Arrival::Copy(key.clone()));
    assert_eq!(drain(&mut transactions), [">1 180", ">1 180"]);
    let mut branched = invite.clone();
    branched.headers.set("Via", "SIP/2.0/YODEL yodel.invalid;branch=z9hG4bKother");
    assert_eq!(transactions.handle_request(at(40), ALICE, branched), Arrival::Copy(key));
    assert!(matches!(transactions.handle_request(at(50), BOB, invite), Arrival::New(_)), "another device");
}

#[test]
fn ringing_goes_by_both_ways() {
    let (mut transactions, invite, key) = invited();
    transactions.respond(at(100), &key, answer(&invite, Status::RINGING));
    drain(&mut transactions);
    assert_eq!(run(&mut transactions, at(60_000)), seen(&[(400, ">2 180")]));
}

#[test]
fn a_200_repeats_until_its_ack() {
    let (mut transactions, invite, key) = invited();
    transactions.respond(at(0), &key, answer(&invite, Status::OK));
    assert_eq!(drain(&mut transactions), [">1 200"]);
    assert!(!transactions.respond(at(1), &key, answer(&invite, Status::DECLINE)), "a final answer is final");
    let expected = [
        (300, ">2 200"),
        (500, ">1 200"),
        (500, ">2 200"),
        (1_500, ">1 200"),
        (1_500, ">2 200"),
        (3_500, ">1 200"),
        (3_500, ">2 200"),
        (7_500, ">1 200"),
        (7_500, ">2 200"),
    ];
    assert_eq!(run(&mut transactions, at(8_000)), seen(&expected));
    let ack = request(Method::Ack, "c");
    assert_eq!(transactions.handle_request(at(8_000), ALICE, ack.clone()), Arrival::Ack(key.clone()));
    assert_eq!(transactions.handle_request(at(8_300), ALICE, ack), Arrival::Ack(key.clone()), "its copy");
    assert_eq!(drain(&mut transactions), ["acked"]);
    assert_eq!(transactions.handle_request(at(9_000), ALICE, invite), Arrival::Copy(key), "not a new call");
    assert_eq!(run(&mut transactions, at(100_000)), seen(&[(40_000, "server ended")]));
    assert_eq!(T2, 4_000 * MS);
}

#[test]
fn a_200_without_ack_is_told_after_timer_h() {
    let (mut transactions, invite, key) = invited();
    transactions.respond(at(0), &key, answer(&invite, Status::OK));
    let all = run(&mut transactions, at(100_000));
    assert_eq!(all[all.len() - 2..], seen(&[(32_000, "no ack"), (32_000, "server ended")]));
    assert_eq!(transactions.deadline(), None);
}

#[test]
fn a_refusal_goes_by_both_ways_and_ends_quietly() {
    let (mut transactions, invite, key) = invited();
    transactions.respond(at(0), &key, answer(&invite, Status::DECLINE));
    assert_eq!(drain(&mut transactions), [">1 603"]);
    assert_eq!(run(&mut transactions, at(100_000)), seen(&[(300, ">2 603"), (32_000, "server ended")]));

    let (mut transactions, invite, key) = invited();
    transactions.respond(at(0), &key, answer(&invite, Status::DECLINE));
    assert_eq!(transactions.handle_request(at(100), ALICE, request(Method::Ack, "c")), Arrival::Ack(key));
    assert_eq!(drain(&mut transactions), [">1 603"]);
    assert_eq!(run(&mut transactions, at(100_000)), seen(&[(32_100, "server ended")]));
}

#[test]
fn a_cancel_is_answered_here_and_the_invite_by_the_user() {
    let (mut transactions, invite, key) = invited();
    transactions.respond(at(10), &key, answer(&invite, Status::RINGING));
    drain(&mut transactions);
    assert_eq!(transactions.handle_request(at(20), ALICE, invite.cancel()), Arrival::Cancel(key.clone()));
    assert_eq!(drain(&mut transactions), [">1 200"]);
    assert!(transactions.respond(at(20), &key, answer(&invite, Status::REQUEST_TERMINATED)));
    assert_eq!(drain(&mut transactions), [">1 487"]);
    let Arrival::Copy(cancel) = transactions.handle_request(at(30), ALICE, invite.cancel()) else { panic!() };
    assert_eq!(cancel.method, Method::Cancel);
    assert_eq!(drain(&mut transactions), [">1 200"]);
}

#[test]
fn a_cancel_after_the_answer_or_for_nothing_moves_nothing() {
    let (mut transactions, invite, key) = invited();
    transactions.respond(at(10), &key, answer(&invite, Status::OK));
    drain(&mut transactions);
    assert_eq!(transactions.handle_request(at(20), ALICE, invite.cancel()), Arrival::Nothing);
    assert_eq!(drain(&mut transactions), [">1 200"], "of the CANCEL");
    let stray = request(Method::Invite, "other").cancel();
    assert_eq!(transactions.handle_request(at(20), ALICE, stray), Arrival::Nothing);
    assert_eq!(drain(&mut transactions), [">1 481"]);
    assert_eq!(transactions.handle_request(at(20), ALICE, request(Method::Ack, "other")), Arrival::Nothing);
}

#[test]
fn other_requests_are_answered_again_for_timer_j() {
    let mut transactions = Transactions::new();
    let bye = request(Method::Bye, "c");
    let Arrival::New(key) = transactions.handle_request(at(0), ALICE, bye.clone()) else { panic!("new") };
    assert_eq!(transactions.handle_request(at(5), ALICE, bye.clone()), Arrival::Copy(key.clone()));
    assert_eq!(drain(&mut transactions), Vec::<String>::new());
    transactions.respond(at(10), &key, answer(&bye, Status::OK));
    transactions.handle_request(at(300), ALICE, bye);
    assert_eq!(drain(&mut transactions), [">1 200", ">1 200"]);
    assert_eq!(run(&mut transactions, at(100_000)), seen(&[(32_010, "server ended")]));
}

#[test]
fn one_peer_cannot_fill_the_table() {
    let mut transactions = Transactions::new();
    let info = |n: usize| request(Method::Info, &format!("c{n}"));
    let mut keys = Vec::new();
    for n in 0..SERVER_TRANSACTIONS_PER_PEER_MAX {
        match transactions.handle_request(at(n as u64), ALICE, info(n)) {
            Arrival::New(key) => keys.push(key),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(transactions.handle_request(at(50), ALICE, info(99)), Arrival::Refused);
    assert!(matches!(transactions.handle_request(at(50), BOB, info(99)), Arrival::New(_)));
    transactions.respond(at(60), &keys[5], answer(&info(5), Status::OK));
    assert!(matches!(transactions.handle_request(at(70), ALICE, info(99)), Arrival::New(_)));
    assert!(transactions.request_of(&keys[5]).is_none(), "the finished one made room");
    assert!(transactions.request_of(&keys[0]).is_some());
}

#[test]
fn our_own_requests_are_bounded_and_new() {
    let mut transactions = Transactions::new();
    for n in 0..CLIENT_TRANSACTIONS_MAX {
        transactions.request(at(0), BOB, request(Method::Info, &format!("c{n}")), true).unwrap();
    }
    let again = transactions.request(at(0), BOB, request(Method::Info, "c1"), true);
    assert_eq!(again, Err(RequestError::NotNew));
    let more = transactions.request(at(0), BOB, request(Method::Info, "more"), true);
    assert_eq!(more, Err(RequestError::Full));
}

#[test]
fn what_is_forgotten_says_nothing_more() {
    let (mut transactions, invite, key) = invited();
    transactions.respond(at(0), &key, answer(&invite, Status::OK));
    transactions.forget(ALICE, "c");
    assert_eq!(drain(&mut transactions), Vec::<String>::new());
    assert_eq!(transactions.deadline(), None);
}

/// Two devices, links that swallow the first way: the call is set up by the second.
#[test]
fn a_dead_first_way_costs_300_ms() {
    let mut alice = Transactions::new();
    let mut bob = Transactions::new();
    let invite = request(Method::Invite, "c");
    alice.request(at(0), BOB, invite.clone(), true).unwrap();
    assert_eq!(drain(&mut alice), [">1 INVITE"], "swallowed");
    alice.handle_timeout(at(300));
    assert_eq!(drain(&mut alice), [">2 INVITE"]);
    let Arrival::New(key) = bob.handle_request(at(320), ALICE, invite.clone()) else { panic!("new") };
    bob.respond(at(320), &key, answer(&invite, Status::RINGING));
    assert_eq!(drain(&mut bob), [">1 100", ">1 180"], "by the way it came");
    alice.handle_response(at(340), BOB, &answer(&invite, Status::RINGING));
    assert_eq!(drain(&mut alice), ["<180"]);
}
