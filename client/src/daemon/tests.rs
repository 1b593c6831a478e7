//! The daemon's surface with a machine that plays a phone's part line by line.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use yodel_net::{EndpointConfig, EndpointLimits, Exit};
use yodel_wire::machine::{CommitResult, LinkEvent, LinkId, Output, Ticket};
use yodel_wire::time::Now;

use super::*;
use crate::command::{
    CallEvent, CallId, Cause, Direction, EncryptedTo, Ended, Failure, Reply, Request, State,
};
use crate::rpc;

/// Calls are answered at once and end at a hang-up; a request to add `ring@…` makes a call come in.
#[derive(Default)]
struct Script {
    outputs: VecDeque<Output<Event>>,
}

impl Script {
    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn call(&mut self, call: u64, direction: Direction, state: State) {
        let peer = "bob@example.net".parse().unwrap();
        let event = CallEvent { call: CallId(call), direction, peer, device: None, t: Duration::ZERO, state };
        self.event(Event::Call(event));
    }
}

fn ended(cause: Cause) -> State {
    State::Ended(Ended {
        cause,
        detail: String::new(),
        duration: Duration::ZERO,
        answered: false,
        verified: false,
        encrypted_to: EncryptedTo::Peer,
    })
}

impl Machine for Script {
    type Command = Command;
    type Event = Event;

    fn handle_datagram(&mut self, _now: Now, _from: SocketAddr, _datagram: &[u8]) {}
    fn handle_link(&mut self, _now: Now, _link: LinkId, _event: LinkEvent) {}
    fn handle_committed(&mut self, _now: Now, _ticket: Ticket, _result: CommitResult) {}
    fn handle_timeout(&mut self, _now: Now) {}

    fn handle_command(&mut self, _now: Now, command: Command) {
        let (id, request) = match command {
            Command::Request(id, request) => (id, request),
            Command::RingShown(call) => return self.call(call.0, Direction::In, State::Alerted),
            Command::Stop => return self.event(Event::Stopped),
            Command::Addresses(_) | Command::LoginServers(_) | Command::RenewalKept => return,
        };
        let reply = match request {
            Request::Dial(dial) if dial.peer.to_string() == "nobody@example.net" => Err(Failure {
                exit: Exit::NotSignedIn,
                message: "expired".into(),
                cause: Some(Cause::SigninExpired),
            }),
            Request::Dial(_) => {
                self.call(1, Direction::Out, State::Resolving);
                self.call(1, Direction::Out, State::Contacting);
                Ok(Reply::Call(CallId(1)))
            }
            Request::Answer { call, .. } => {
                let call = call.unwrap_or(CallId(2));
                self.call(call.0, Direction::In, State::Answered);
                Ok(Reply::Call(call))
            }
            Request::Hangup(call) | Request::Decline(call) => {
                let call = call.unwrap_or(CallId(1));
                self.call(call.0, Direction::Out, ended(Cause::LocalHangup));
                Ok(Reply::Call(call))
            }
            Request::ContactAdd(_) => {
                self.call(2, Direction::In, State::Contacting);
                Ok(Reply::Done)
            }
            _ => Ok(Reply::Done),
        };
        self.event(Event::Reply(id, reply));
    }

    fn poll_output(&mut self) -> Output<Event> {
        self.outputs.pop_front().unwrap_or(Output::Idle { deadline: None })
    }
}

struct Daemon {
    dirs: Dirs,
    task: JoinHandle<io::Result<()>>,
}

fn folder(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("yodel-daemon-{}-{name}", std::process::id()));
    let _absent = std::fs::remove_dir_all(&path);
    path
}

async fn start(name: &str) -> Daemon {
    let dirs = Dirs::new(Some(&folder(name))).unwrap();
    let claimed = claim(&dirs).unwrap().unwrap();
    let endpoint = Endpoint::bind(EndpointConfig {
        identity_seed: [1; 32].into(),
        udp: Some("127.0.0.1:0".parse().unwrap()),
        tcp: vec![],
        limits: EndpointLimits::PHONE,
    })
    .unwrap();
    let setup = Setup {
        machine: Script::default(),
        clock: Clock::start(),
        endpoint,
        store: None,
        realm: RealmName::parse("example.net").unwrap(),
        config: Config::default(),
        allow_loopback: true,
        login_servers: vec!["127.0.0.1:9".into()],
        keep: Box::new(|_| true),
    };
    let (serving, served) = tokio::sync::oneshot::channel();
    let task = tokio::spawn(run(claimed, setup, move || serving.send(()).unwrap()));
    served.await.unwrap();
    Daemon { dirs, task }
}

struct Talk {
    lines: Lines<BufReader<OwnedReadHalf>>,
    writer: OwnedWriteHalf,
}

impl Daemon {
    async fn talk(&self) -> Talk {
        let (reader, writer) = connect(&self.dirs.socket()).await.unwrap().into_split();
        Talk { lines: BufReader::new(reader).lines(), writer }
    }
}

impl Talk {
    async fn ask(&mut self, method: &str, params: Value) -> Value {
        self.writer.write_all(rpc::request(5, method, &params).as_bytes()).await.unwrap();
        let response = self.next().await;
        assert_eq!(response["id"], 5, "{response}");
        response
    }

    async fn next(&mut self) -> Value {
        let line = timeout(Duration::from_secs(5), self.lines.next_line()).await.unwrap().unwrap().unwrap();
        serde_json::from_str(&line).unwrap()
    }

    async fn state(&mut self) -> String {
        let line = self.next().await;
        assert_eq!(line["method"], "event");
        assert_eq!(line["params"]["v"], 1);
        line["params"]["state"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_call_is_followed_from_its_start_and_ends_with_its_connection() {
    let daemon = start("call").await;
    let mut talk = daemon.talk().await;
    let response = talk.ask("call", json!({"user": "bob", "audio": "null"})).await;
    assert_eq!(response["result"]["call"], "0000000000000001");
    assert_eq!(talk.state().await, "resolving");
    assert_eq!(talk.state().await, "contacting");
    let mut other = daemon.talk().await;
    other.ask("events", json!({"only": ["call"]})).await;
    assert_eq!(other.state().await, "resolving");
    assert_eq!(other.state().await, "contacting");
    drop(talk);
    assert_eq!(other.state().await, "ended");
}

#[tokio::test]
async fn a_ring_that_reached_nobody_is_no_ring() {
    let daemon = start("ring").await;
    let mut quiet = daemon.talk().await;
    quiet.ask("contacts.add", json!({"user": "ring"})).await;
    let mut contacts_only = daemon.talk().await;
    contacts_only.ask("events", json!({"only": ["contact"]})).await;
    quiet.ask("status", json!({})).await;
    let mut screen = daemon.talk().await;
    screen.ask("events", Value::Null).await;
    assert_eq!(screen.state().await, "contacting");
    assert_eq!(screen.state().await, "alerted");
    screen.writer.write_all(rpc::request(5, "answer", &json!({"audio": "null"})).as_bytes()).await.unwrap();
    assert_eq!(screen.state().await, "answered");
    assert_eq!(screen.next().await["result"]["call"], "0000000000000002");
}

#[tokio::test]
async fn auto_answer_takes_what_rings_already_and_what_comes() {
    let daemon = start("auto").await;
    let mut talk = daemon.talk().await;
    talk.ask("contacts.add", json!({"user": "ring"})).await;
    let mut auto = daemon.talk().await;
    let ready = auto.ask("answer", json!({"auto": true, "audio": "null", "from": ["bob"]})).await;
    assert_eq!(ready["result"], json!({"v": 1, "event": "ready"}));
    assert_eq!(auto.state().await, "contacting");
    assert_eq!(auto.state().await, "alerted");
    assert_eq!(auto.state().await, "answered");
    let mut other = daemon.talk().await;
    other.ask("events", json!({"only": ["call"]})).await;
    drop(auto);
    while other.state().await != "ended" {}
}

#[tokio::test]
async fn errors_have_codes() {
    let daemon = start("errors").await;
    let mut talk = daemon.talk().await;
    for (method, params, code) in [
        ("nothing", json!({}), rpc::NO_METHOD),
        ("call", json!({}), rpc::INVALID_PARAMS),
        ("call", json!([1]), rpc::INVALID_PARAMS),
        ("call", json!({"user": "b b"}), rpc::INVALID_PARAMS),
        ("call", json!({"user": "bob", "audio": "loud"}), rpc::INVALID_PARAMS),
        ("call", json!({"user": "bob", "audio": "null", "max": "soon"}), rpc::INVALID_PARAMS),
        ("call", json!({"user": "bob", "audio": "device:x"}), 10),
        ("call", json!({"user": "nobody", "audio": "null"}), 4),
    ] {
        assert_eq!(talk.ask(method, params).await["error"]["code"], code, "{method}");
    }
    talk.writer.write_all(b"garbage\n").await.unwrap();
    assert_eq!(talk.next().await["error"]["code"], rpc::PARSE);
}

#[tokio::test]
async fn the_socket_is_private_and_the_installation_has_one_daemon() {
    let daemon = start("one").await;
    let socket = daemon.dirs.socket();
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(claim(&daemon.dirs).unwrap().is_none());
    daemon.talk().await.ask("daemon.stop", Value::Null).await;
    daemon.task.await.unwrap().unwrap();
    assert!(!socket.exists());
    // As after `kill -9`: the socket file stays, nobody holds the lock.
    let stale = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    drop(stale);
    assert!(socket.exists());
    assert!(connect(&socket).await.is_err());
    assert!(claim(&daemon.dirs).unwrap().is_some());
}

#[tokio::test]
async fn a_long_line_and_a_reader_that_sleeps_end_only_their_connection() {
    let daemon = start("bounds").await;
    let mut long = daemon.talk().await;
    let line = vec![b'x'; limits::LINE_BYTES_MAX * 2];
    let _closed = long.writer.write_all(&line).await;
    assert!(matches!(
        timeout(Duration::from_secs(5), long.lines.next_line()).await.unwrap(),
        Ok(None) | Err(_)
    ));
    let mut talk = daemon.talk().await;
    assert!(talk.ask("status", json!({})).await["result"].is_object());
}
