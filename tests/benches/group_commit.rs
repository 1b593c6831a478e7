//! Group commit, counted: 1,000 writers that each wait for their answer before the next write. Prints one JSON line;
//! run with `cargo bench -p yodel-tests --bench group_commit`.

use std::sync::{Arc, Barrier, mpsc};

use serde_json::json;
use yodel_net::Clock;
use yodel_store::{GroupCommit, SledStore, StoreOptions};
use yodel_wire::machine::{CommitResult, Write};

const WRITERS: usize = 1_000;
const WRITES_EACH: usize = 20;

fn main() {
    let dir = std::env::temp_dir().join(format!("yodel-group-commit-{}", std::process::id()));
    let store = SledStore::open(&dir, StoreOptions::LOGIN_SERVER).expect("a store");
    let group = Arc::new(GroupCommit::start(Box::new(store)).expect("a thread"));
    let counters = group.counters();
    let clock = Clock::start();
    let begin = Arc::new(Barrier::new(WRITERS + 1));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (group, begin) = (Arc::clone(&group), Arc::clone(&begin));
            std::thread::spawn(move || {
                begin.wait();
                let mut waits = Vec::new();
                for n in 0..WRITES_EACH {
                    let (done, answer) = mpsc::sync_channel(1);
                    let key = format!("{writer}/{n}").into_bytes();
                    let write = Write { tree: "accounts", key, value: Some(vec![7; 600]), journaled: true };
                    let from = clock.now().mono;
                    group.commit(
                        vec![write],
                        Box::new(move |result| {
                            let _ = done.send(result);
                        }),
                    );
                    assert_eq!(answer.recv(), Ok(CommitResult::Stored));
                    waits.push(clock.now().mono.since(from));
                }
                waits
            })
        })
        .collect();
    begin.wait();
    let from = clock.now().mono;
    let mut waits: Vec<_> = writers.into_iter().flat_map(|writer| writer.join().expect("a writer")).collect();
    let took = clock.now().mono.since(from);
    waits.sort();
    let (commits, flushes) = (counters.commits(), counters.flushes());
    assert_eq!(commits, (WRITERS * WRITES_EACH) as u64);
    println!(
        "{}",
        json!({
            "v": 1,
            "writers": WRITERS,
            "commits": commits,
            "flushes": flushes,
            "commits_per_flush": commits as f64 / flushes as f64,
            "commits_per_s": commits as f64 / took.as_secs_f64(),
            "wait_median_ms": waits[waits.len() / 2].as_secs_f64() * 1e3,
            "wait_p95_ms": waits[waits.len() * 95 / 100].as_secs_f64() * 1e3,
        })
    );
    drop(group);
    std::fs::remove_dir_all(&dir).expect("our own folder");
}
