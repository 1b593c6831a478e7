//! The lab's NATs do what their names say: asked with the project's own STUN over real kernel sockets.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::process::ExitCode;
use std::time::Duration;

use yodel_nat::{Agent, AgentConfig, AgentOutput, Candidate, PathKind, Role, server};
use yodel_nat::{GatherOutput, Gatherer, Mapping, Route};
use yodel_net::clock::Clock;
use yodel_tests::lab::harness::{self, Test};
use yodel_tests::lab::{Host, Lab, Nat, TCP, UDP};

const TESTS: &[Test] = &[
    ("real_port_restricted", port_restricted),
    ("real_full_cone", full_cone),
    ("real_symmetric", symmetric),
    ("real_udp_blocked", udp_blocked),
    ("real_one_lan", one_lan),
    ("real_delay", delay),
    ("real_cut", cut),
    ("real_agents_through_kernel_nats", agents_through_kernel_nats),
    ("real_lines_are_captured", lines_are_captured),
    ("real_stale_spaces_are_swept", stale_spaces_are_swept),
];

fn main() -> ExitCode {
    harness::main(TESTS)
}

const FIRST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
const SECOND: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const STRANGER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 66);
const HOME_A: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
const HOME_B: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
const WAIT: Duration = Duration::from_millis(250);

fn socket(host: &Host, port: u16) -> UdpSocket {
    host.space.enter(|| {
        let socket = UdpSocket::bind((host.addr, port)).unwrap();
        socket.set_read_timeout(Some(WAIT)).unwrap();
        socket
    })
}

/// A supernode's STUN server on port 3478, answering until the socket is dropped at the end of the process.
fn stun_server(host: &Host) -> SocketAddr {
    let socket = socket(host, 3478);
    socket.set_read_timeout(None).unwrap();
    let addr = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut bytes = [0; 1500];
        while let Ok((size, from)) = socket.recv_from(&mut bytes) {
            if let Some(answer) = server::answer(from, &bytes[..size]) {
                let _ = socket.send_to(&answer, from);
            }
        }
    });
    addr
}

/// Runs a gatherer on a real socket until it knows the mapping or a second has passed.
fn gather(socket: &UdpSocket, servers: &[SocketAddr]) -> (Mapping, Vec<SocketAddr>) {
    let clock = Clock::start();
    let mut gatherer = Gatherer::new([1; 32]);
    gatherer.set_servers(clock.now(), servers.iter().copied());
    socket.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    while gatherer.mapping() == Mapping::Unknown && clock.now().mono.as_micros() < 1_000_000 {
        while let Some(output) = gatherer.poll_output() {
            if let GatherOutput::Send { to, bytes } = output {
                socket.send_to(&bytes, to).unwrap();
            }
        }
        let mut bytes = [0; 1500];
        if let Ok((size, from)) = socket.recv_from(&mut bytes) {
            gatherer.handle_stun(clock.now(), from, &bytes[..size]);
        }
        gatherer.handle_timeout(clock.now());
    }
    socket.set_read_timeout(Some(WAIT)).unwrap();
    (gatherer.mapping(), gatherer.reflexive())
}

fn hears(socket: &UdpSocket) -> Option<(Vec<u8>, SocketAddr)> {
    let mut bytes = [0; 1500];
    match socket.recv_from(&mut bytes) {
        Ok((size, from)) => Some((bytes[..size].to_vec(), from)),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => None,
        Err(error) => panic!("{error}"),
    }
}

struct World {
    lab: Lab,
    phone: Host,
    stranger: Host,
    servers: [SocketAddr; 2],
}

fn world(nat: Nat) -> World {
    let mut lab = Lab::new().unwrap();
    let first = lab.host("first", FIRST).unwrap();
    let second = lab.host("second", SECOND).unwrap();
    let stranger = lab.host("stranger", STRANGER).unwrap();
    let mut home = lab.home("home", HOME_A, nat).unwrap();
    let phone = lab.phone(&mut home, "phone").unwrap();
    let servers = [stun_server(&first), stun_server(&second)];
    World { lab, phone, stranger, servers }
}

fn port_restricted() {
    let world = world(Nat::PortRestricted);
    let phone = socket(&world.phone, 5000);
    let (mapping, seen) = gather(&phone, &world.servers);
    assert_eq!(mapping, Mapping::EndpointIndependent);
    let [outside] = seen[..] else { panic!("one address, not {seen:?}") };
    assert_eq!(outside.ip(), HOME_A);
    // Another inside port is another outside port, and keeps to it as well.
    let (mapping, other) = gather(&socket(&world.phone, 5001), &world.servers);
    assert_eq!(mapping, Mapping::EndpointIndependent);
    assert_ne!(other, seen);
    // Filtering: nobody until asked, then only the very address and port.
    let stranger = socket(&world.stranger, 6000);
    stranger.send_to(b"unasked", outside).unwrap();
    assert_eq!(hears(&phone), None);
    phone.send_to(b"hello", (STRANGER, 6000)).unwrap();
    assert_eq!(hears(&stranger), Some((b"hello".to_vec(), outside)), "the early packet changed the mapping");
    stranger.send_to(b"asked", outside).unwrap();
    assert_eq!(hears(&phone).unwrap().0, b"asked");
    socket(&world.stranger, 6001).send_to(b"other port", outside).unwrap();
    assert_eq!(hears(&phone), None);
    // The internet saw all of it.
    assert!(world.lab.packets(STRANGER, HOME_A, UDP).unwrap() >= 3);
    assert!(world.lab.packets(HOME_A, STRANGER, UDP).unwrap() >= 1);
    assert_eq!(world.lab.packets(HOME_A, STRANGER, TCP).unwrap(), 0);
    assert!(world.phone.counters().unwrap().packets() >= 6);
}

fn full_cone() {
    let world = world(Nat::FullCone);
    let phone = socket(&world.phone, 5000);
    let (mapping, seen) = gather(&phone, &world.servers);
    assert_eq!(mapping, Mapping::EndpointIndependent);
    let stranger = socket(&world.stranger, 6000);
    stranger.send_to(b"unasked", seen[0]).unwrap();
    let (bytes, from) = hears(&phone).unwrap();
    assert_eq!((bytes.as_slice(), from), (&b"unasked"[..], stranger.local_addr().unwrap()));
    phone.send_to(b"reply", from).unwrap();
    assert_eq!(hears(&stranger), Some((b"reply".to_vec(), seen[0])));
}

fn symmetric() {
    let world = world(Nat::Symmetric);
    let phone = socket(&world.phone, 5000);
    let (mapping, seen) = gather(&phone, &world.servers);
    assert_eq!(mapping, Mapping::AddressDependent);
    assert_eq!(seen.len(), 2);
    // Another port of the same host is another mapping too.
    let (one, two) = (socket(&world.stranger, 6000), socket(&world.stranger, 6001));
    phone.send_to(b"1", (STRANGER, 6000)).unwrap();
    phone.send_to(b"2", (STRANGER, 6001)).unwrap();
    let (first, second) = (hears(&one).unwrap().1, hears(&two).unwrap().1);
    assert_ne!(first, second);
    two.send_to(b"to the other's port", first).unwrap();
    assert_eq!(hears(&phone), None);
    one.send_to(b"to its own", first).unwrap();
    assert_eq!(hears(&phone).unwrap().0, b"to its own");
}

fn udp_blocked() {
    let world = world(Nat::UdpBlocked);
    let phone = socket(&world.phone, 5000);
    assert_eq!(gather(&phone, &world.servers), (Mapping::Unknown, Vec::new()));
    assert_eq!(world.lab.packets(HOME_A, FIRST, UDP).unwrap(), 0);
    // TCP passes.
    let listener = world.stranger.space.enter(|| std::net::TcpListener::bind((STRANGER, 80)).unwrap());
    let dialled = world.phone.space.enter(|| {
        std::net::TcpStream::connect_timeout(&SocketAddr::V4(SocketAddrV4::new(STRANGER, 80)), WAIT).unwrap()
    });
    let (_, from) = listener.accept().unwrap();
    assert_eq!(from.ip(), HOME_A);
    drop(dialled);
    assert!(world.lab.packets(HOME_A, STRANGER, TCP).unwrap() >= 2);
}

fn one_lan() {
    let mut lab = Lab::new().unwrap();
    let mut home = lab.home("home", HOME_A, Nat::PortRestricted).unwrap();
    let (a, b) = (lab.phone(&mut home, "a").unwrap(), lab.phone(&mut home, "b").unwrap());
    assert_ne!(a.addr, b.addr);
    let before = home.counters().unwrap();
    let (left, right) = (socket(&a, 5000), socket(&b, 5000));
    for _ in 0..20 {
        left.send_to(b"next door", right.local_addr().unwrap()).unwrap();
        assert_eq!(hears(&right), Some((b"next door".to_vec(), left.local_addr().unwrap())));
    }
    assert!((home.counters().unwrap() - before).packets() < 5, "it went out of the house");
    assert!(a.counters().unwrap().tx_packets >= 20);
}

fn delay() {
    let mut lab = Lab::new().unwrap();
    lab.set_line_delay(Duration::from_micros(12_500));
    let host = lab.host("first", FIRST).unwrap();
    let mut home = lab.home("home", HOME_A, Nat::PortRestricted).unwrap();
    let phone = lab.phone(&mut home, "phone").unwrap();
    let (near, far) = (socket(&phone, 5000), socket(&host, 5000));
    let clock = Clock::start();
    let mut trips = Vec::new();
    for _ in 0..20 {
        let start = clock.now().mono;
        near.send_to(b"ping", far.local_addr().unwrap()).unwrap();
        let (_, from) = hears(&far).unwrap();
        far.send_to(b"pong", from).unwrap();
        assert_eq!(hears(&near).unwrap().0, b"pong");
        trips.push(clock.now().mono.since(start));
    }
    trips.sort();
    let median = trips[trips.len() / 2];
    // Never less; more by what a busy machine takes to wake four threads (0.6 ms in the median seen).
    assert!((Duration::from_millis(50)..Duration::from_millis(75)).contains(&median), "median {median:?}");
    // TCP, whose segments the kernel hands over several at once.
    let listener = host.space.enter(|| std::net::TcpListener::bind((FIRST, 80)).unwrap());
    let mut out = phone.space.enter(|| std::net::TcpStream::connect((FIRST, 80)).unwrap());
    let (mut into, _) = listener.accept().unwrap();
    let sent: Vec<u8> = (0..400_000u32).map(|i| (i % 251) as u8).collect();
    let copy = sent.clone();
    let writer = std::thread::spawn(move || io::Write::write_all(&mut out, &copy).unwrap());
    let mut received = Vec::new();
    io::Read::read_to_end(&mut into, &mut received).unwrap();
    writer.join().unwrap();
    assert_eq!(received.len(), sent.len());
    assert!(received == sent);
}

fn cut() {
    let world = world(Nat::PortRestricted);
    let (phone, stranger) = (socket(&world.phone, 5000), socket(&world.stranger, 6000));
    let to = stranger.local_addr().unwrap();
    phone.send_to(b"1", to).unwrap();
    assert!(hears(&stranger).is_some());
    world.lab.cut(HOME_A, STRANGER, true).unwrap();
    phone.send_to(b"2", to).unwrap();
    assert_eq!(hears(&stranger), None);
    world.lab.cut(HOME_A, STRANGER, false).unwrap();
    phone.send_to(b"3", to).unwrap();
    assert_eq!(hears(&stranger).unwrap().0, b"3");
}

/// Two agents, each with the gatherer's findings, on real sockets: what the virtual NATs promise, the kernel's keep.
fn agents_through_kernel_nats() {
    for (a, b, reached) in [
        (Nat::PortRestricted, Nat::PortRestricted, true),
        (Nat::FullCone, Nat::Symmetric, true),
        (Nat::PortRestricted, Nat::Symmetric, false),
        (Nat::Symmetric, Nat::Symmetric, false),
    ] {
        let mut lab = Lab::new().unwrap();
        let servers = [lab.host("first", FIRST).unwrap(), lab.host("second", SECOND).unwrap()];
        let servers = servers.map(|host| stun_server(&host));
        let clock = Clock::start();
        let mut ends = Vec::new();
        for (label, addr, nat, role) in
            [("a", HOME_A, a, Role::Controlling), ("b", HOME_B, b, Role::Controlled)]
        {
            let mut home = lab.home(label, addr, nat).unwrap();
            let phone = lab.phone(&mut home, &format!("{label}0")).unwrap();
            let socket = socket(&phone, 5000);
            let (_, seen) = gather(&socket, &servers);
            let mut agent = Agent::new(role, AgentConfig::default(), [addr.octets()[0]; 32]);
            agent.add_local(Candidate::host(socket.local_addr().unwrap(), 0));
            for addr in seen {
                agent.add_local(Candidate::reflexive(addr, 0));
            }
            socket.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
            ends.push((agent, socket));
        }
        let told: Vec<_> = ends
            .iter()
            .map(|(agent, _)| (agent.local_credentials().clone(), agent.local_candidates().to_vec()))
            .collect();
        let began = clock.now().mono;
        for (end, (credentials, candidates)) in ends.iter_mut().zip(told.into_iter().rev()) {
            end.0.set_remote_credentials(clock.now(), credentials);
            for candidate in candidates {
                end.0.add_remote(clock.now(), candidate).unwrap();
            }
        }
        let both = |ends: &[(Agent, UdpSocket)]| ends.iter().all(|(agent, _)| agent.path().is_some());
        while !both(&ends) && clock.now().mono.since(began) < Duration::from_secs(2) {
            for (agent, socket) in &mut ends {
                let mut bytes = [0; 1500];
                if let Ok((size, from)) = socket.recv_from(&mut bytes) {
                    agent.handle_stun(clock.now(), Route::Direct(from), &bytes[..size]);
                }
                agent.handle_timeout(clock.now());
                while let Some(output) = agent.poll_output() {
                    if let AgentOutput::Send { route: Route::Direct(to), bytes } = output {
                        let _ = socket.send_to(&bytes, to);
                    }
                }
            }
        }
        let took = clock.now().mono.since(began);
        assert_eq!(both(&ends), reached, "{a:?} × {b:?}");
        if reached {
            assert!(took < Duration::from_secs(1), "{a:?} × {b:?} took {took:?}");
            assert!(ends.iter().all(|(agent, _)| agent.path().unwrap().kind == PathKind::Direct));
            assert!(lab.packets(HOME_A, HOME_B, UDP).unwrap() >= 1);
            assert!(lab.packets(HOME_B, HOME_A, UDP).unwrap() >= 1);
        }
    }
}

fn lines_are_captured() {
    let mut lab = Lab::new().unwrap();
    let host = lab.host("first", FIRST).unwrap();
    let clock = Clock::start();
    let script =
        "echo '{\"event\":\"ready\"}'; echo noise; sleep 0.1; echo '{\"n\":2}'; echo bad >&2; exit 3";
    let mut process = host.space.spawn(clock, "sh", &["-c", script]).unwrap();
    let ready = process.wait_for_json(Duration::from_secs(2), |json| json["event"] == "ready").unwrap();
    assert_eq!(ready["event"], "ready");
    let second = process.wait_for_json(Duration::from_secs(2), |json| json["n"].is_u64()).unwrap();
    assert_eq!(second["n"], 2);
    assert_eq!(process.wait(Duration::from_secs(2)).unwrap().code(), Some(3));
    assert_eq!(process.stdout().len(), 3);
    assert_eq!(process.stderr(), "bad");
    // It really was there, and what it started does not outlive the lab.
    let seen = host.space.run("ip", &["-4", "addr", "show", "eth0"]).unwrap();
    assert!(seen.contains("198.51.100.10"));
    let mut sleeper = host.space.spawn(clock, "sleep", &["60"]).unwrap();
    drop(lab);
    assert!(sleeper.wait(Duration::from_secs(2)).is_some());
}

fn stale_spaces_are_swept() {
    // A lab whose maker is killed.
    let mut maker = std::process::Command::new(env!("CARGO_BIN_EXE_yodel-lab"));
    maker.args(["up", "--home", "a=symmetric"]);
    let mut maker = yodel_tests::lab::Process::start(Clock::start(), maker).unwrap();
    let ready = maker.wait_for_json(Duration::from_secs(10), |json| json["event"] == "ready").unwrap();
    let space = ready["spaces"]["a"]["space"].as_str().unwrap().to_owned();
    let exists = || std::path::Path::new("/run/netns").join(&space).exists();
    assert!(exists());
    maker.kill();
    assert!(exists());
    drop(Lab::new().unwrap());
    assert!(!exists());
}
