//! Realms of a few supernodes as programs on loopback: people sign in, are online and call each other, one supernode
//! dies, and the operator's view of the ring tells what is so.

use std::time::Duration;

use serde_json::Value;
use yodel_tests::lab::Process;
use yodel_tests::lab::realm::{Done, Phone, Realm, Where, befriend, loopback};

const PATIENCE: Duration = Duration::from_secs(20);

fn realm(name: &str, supernodes: usize) -> Realm {
    let dir = std::env::temp_dir().join(format!("yodel-realms-{name}-{}", std::process::id()));
    let mut realm = Realm::start(&dir, false, Where::Here, loopback().unwrap()).unwrap();
    for _ in 0..supernodes {
        realm.add_supernode(Where::Here, loopback().unwrap(), &[], &[]).unwrap();
    }
    realm
}

fn phone(realm: &Realm, user: &str) -> Phone {
    let mut phone = realm.sign_in(Where::Here, user).unwrap();
    phone.start().unwrap();
    phone
}

/// Asks until the answer is what is wanted.
fn until<T: std::fmt::Debug>(realm: &Realm, mut ask: impl FnMut() -> T, wanted: impl Fn(&T) -> bool) -> T {
    let began = realm.clock.now().mono;
    loop {
        let answer = ask();
        if wanted(&answer) {
            return answer;
        }
        assert!(realm.clock.now().mono.since(began) < PATIENCE, "{answer:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn shown(realm: &Realm, number: usize) -> Vec<Value> {
    let shown = realm.ask_supernode(number, &["overlay", "show"]).unwrap().success("overlay show").unwrap();
    shown["members"].as_array().unwrap().clone()
}

fn alive(members: &[Value]) -> usize {
    members.iter().filter(|member| member["state"] == "alive").count()
}

fn all_alive(realm: &Realm, counts: usize) {
    for number in 0..realm.supernodes.len() {
        if realm.supernodes[number].process.is_some() {
            until(realm, || shown(realm, number), |members| alive(members) == counts);
        }
    }
}

fn call(phone: &Phone, user: &str) -> Done {
    phone.run(&["call", user, "--json", "--audio", "tone:440", "--max", "500ms"]).unwrap()
}

fn assert_answered(what: &str, done: &Done) {
    let answered = done.all_json().iter().any(|line| line["state"] == "answered");
    assert!(done.code == Some(0) && answered, "{what}: {done:?}");
}

fn assert_nobody(what: &str, done: &Done) {
    assert_eq!((done.code, &done.json()["cause"]), (Some(5), &"lookup.no-user".into()), "{what}: {done:?}");
}

struct Pair {
    alice: Phone,
    bob: Phone,
    _answering: Process,
}

fn pair(realm: &Realm) -> Pair {
    let (alice, bob) = (phone(realm, "alice"), phone(realm, "bob"));
    befriend(&alice, &bob).unwrap();
    let answering = bob.auto_answer("tone:660").unwrap();
    Pair { alice, bob, _answering: answering }
}

/// Calls, "no such user", the operator's view; then a home of the caller dies, and the same again.
fn goes_on_without_one(supernodes: usize) {
    let mut realm = realm(&format!("of-{supernodes}"), supernodes);
    all_alive(&realm, supernodes);
    let pair = pair(&realm);
    let homes = pair.alice.wait_homes(supernodes.min(2), PATIENCE).unwrap();
    assert_answered("with all", &call(&pair.alice, "bob"));
    assert_nobody("with all", &call(&pair.alice, "nobody"));
    operator_sees(&realm, 0, supernodes);
    if supernodes == 1 {
        return dies_alone(&mut realm, &pair);
    }

    let victim = realm.supernode_named(&homes[0]).unwrap();
    realm.kill_supernode(victim);
    assert_answered("one killed just now", &call(&pair.alice, "bob"));
    let other = (victim + 1) % supernodes;
    let is_dead = |member: &Value| member["node"] == homes[0].as_str() && member["state"] == "dead";
    until(&realm, || shown(&realm, other), |members| members.iter().any(is_dead));
    all_alive(&realm, supernodes - 1);
    // Until it is held dead, a small realm cannot know what it would have said.
    assert_nobody("one dead", &call(&pair.alice, "nobody"));
    assert_answered("one dead", &call(&pair.bob, "echo"));

    // It comes back elsewhere, and is found there. Without a login server nobody names it in a bulletin, so that it is
    // not `ready`; it serves all the same.
    realm.supernodes[victim].addr = loopback().unwrap();
    if supernodes.is_multiple_of(2) {
        realm.run_supernode(victim).unwrap();
    } else {
        realm.login.take().unwrap().kill();
        realm.begin_supernode(victim).unwrap();
        until(&realm, || realm.ask_supernode(victim, &["status"]).unwrap().code, |code| *code == Some(0));
    }
    all_alive(&realm, supernodes);
    let udp = Value::from(realm.supernodes[victim].addr.to_string());
    until(
        &realm,
        || shown(&realm, other),
        |members| members.iter().any(|member| member["node"] == homes[0].as_str() && member["udp"][0] == udp),
    );
    operator_sees(&realm, victim, supernodes);
    assert_answered("one has moved", &call(&pair.alice, "bob"));
}

/// Of one supernode nothing survives; it keeps what it knew.
fn dies_alone(realm: &mut Realm, pair: &Pair) {
    realm.kill_supernode(0);
    let done = call(&pair.alice, "bob");
    assert_eq!(done.code, Some(6), "{done:?}");
    realm.login.take().unwrap().kill();
    realm.run_supernode(0).unwrap();
    // A phone that has nothing to say notices by its next keep-alive.
    let placed = until(realm, || call(&pair.alice, "bob"), |done| done.code == Some(0));
    assert_answered("back, without a login server", &placed);
    assert_nobody("back, without a login server", &call(&pair.alice, "nobody"));
}

fn operator_sees(realm: &Realm, number: usize, members: usize) {
    let ask = |arguments: &[&str]| realm.ask_supernode(number, arguments).unwrap();
    let found = ask(&["overlay", "lookup", "bob@example.net"]);
    let answer = found.json();
    assert_eq!((found.code, &answer["found"], &answer["devices"]), (Some(0), &"account".into(), &1.into()));
    assert_eq!(answer["live"].as_array().map(Vec::len), Some(1), "{answer}");
    assert!(answer["settled_ms"].as_f64() < Some(1_000.0), "{answer}");
    assert_eq!(ask(&["overlay", "lookup", "nobody@example.net"]).code, Some(5));
    let dot = ask(&["overlay", "export", "--format", "dot"]).json();
    let dot = dot["dot"].as_str().unwrap_or_default();
    assert!(
        dot.starts_with("graph ring {") && dot.matches("fillcolor=palegreen").count() == members,
        "{dot}"
    );
    assert_eq!(ask(&["overlay", "export", "--format", "json"]).code, Some(0));
}

#[test]
fn real_realm_of_one() {
    goes_on_without_one(1);
}

#[test]
fn real_realm_of_two() {
    goes_on_without_one(2);
}

#[test]
fn real_realm_of_three() {
    goes_on_without_one(3);
}

#[test]
fn real_realm_of_four() {
    goes_on_without_one(4);
}

#[test]
fn real_realm_of_seven() {
    goes_on_without_one(7);
}
