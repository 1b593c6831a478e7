//! The loop that owns a root machine and drives it by the contract of [`yodel_wire::machine`].

use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;

use tokio::sync::mpsc;
use tokio::time::Sleep;
use yodel_store::GroupCommit;
use yodel_wire::machine::{CommitResult, Machine, Output, Ticket, Write};
use yodel_wire::time::Instant;

use crate::clock::Clock;
use crate::endpoint::Endpoint;
use crate::limits::SHUTDOWN_WITHIN;
use crate::udp::{ReceiveBuffers, SendQueue};

/// Drives `machine` until `on_event` breaks or all senders of commands are gone, then closes every link in order and
/// returns the machine. `clock` must be the one whose time the machine was made with. Without a `store`, every commit
/// fails. `on_event` must not block.
///
/// # Errors
/// The UDP socket broke.
pub async fn drive<M: Machine>(
    mut machine: M,
    mut endpoint: Endpoint,
    clock: Clock,
    store: Option<GroupCommit>,
    mut commands: mpsc::Receiver<M::Command>,
    mut on_event: impl FnMut(M::Event) -> ControlFlow<()>,
) -> io::Result<M> {
    let udp = endpoint.udp.clone();
    let (committed_sender, mut committed) = mpsc::unbounded_channel();
    let mut driver = Driver { store, sends: SendQueue::default(), committed_sender };
    let mut buffers = ReceiveBuffers::new();
    let mut sleep = Box::pin(tokio::time::sleep(std::time::Duration::ZERO));
    let mut flow = driver.drain(&mut machine, &mut endpoint, &mut on_event);
    while let Drained::Idle(deadline) = flow {
        set(&mut sleep, &clock, deadline);
        let sends_wait = !driver.sends.is_empty();
        tokio::select! {
            readable = when_readable(udp.as_deref()) => {
                readable?;
                let Some(udp) = &udp else { continue };
                let mut stopped = None;
                udp.receive(&mut buffers, |from, datagram| {
                    if stopped.is_none() {
                        machine.handle_datagram(clock.now(), from, datagram);
                        if let Drained::Stop = driver.drain(&mut machine, &mut endpoint, &mut on_event) {
                            stopped = Some(Drained::Stop);
                        }
                    }
                })?;
                if let Some(stopped) = stopped {
                    flow = stopped;
                    continue;
                }
            }
            () = when_writable(udp.as_deref()), if sends_wait => {
                if let Some(udp) = &udp {
                    driver.sends.flush(udp);
                }
            }
            Some((link, event)) = endpoint.next_report() => machine.handle_link(clock.now(), link, event),
            Some((ticket, result)) = committed.recv() => {
                machine.handle_committed(clock.now(), ticket, result);
            }
            command = commands.recv() => match command {
                Some(command) => machine.handle_command(clock.now(), command),
                None => break,
            },
            () = &mut sleep, if deadline.is_some() => machine.handle_timeout(clock.now()),
        }
        flow = driver.drain(&mut machine, &mut endpoint, &mut on_event);
    }
    close(&mut endpoint, &mut buffers, &mut driver.sends).await;
    Ok(machine)
}

enum Drained {
    Idle(Option<Instant>),
    Stop,
}

struct Driver {
    store: Option<GroupCommit>,
    sends: SendQueue,
    /// Bounded by the commits that the store's queue accepts.
    committed_sender: mpsc::UnboundedSender<(Ticket, CommitResult)>,
}

impl Driver {
    fn drain<M: Machine>(
        &mut self,
        machine: &mut M,
        endpoint: &mut Endpoint,
        on_event: &mut impl FnMut(M::Event) -> ControlFlow<()>,
    ) -> Drained {
        loop {
            match machine.poll_output() {
                Output::Datagram { to, bytes } => endpoint.send(&mut self.sends, to, bytes),
                Output::Link(link, action) => endpoint.act(link, action),
                Output::Commit(ticket, writes) => self.commit(ticket, writes),
                Output::Event(event) => {
                    if on_event(event).is_break() {
                        return Drained::Stop;
                    }
                }
                Output::Idle { deadline } => return Drained::Idle(deadline),
            }
        }
    }

    fn commit(&self, ticket: Ticket, writes: Vec<Write>) {
        let committed = self.committed_sender.clone();
        // The receiver lives as long as the driver; after that nobody waits for results.
        let done = Box::new(move |result| {
            let _unheard = committed.send((ticket, result));
        });
        match &self.store {
            Some(store) => store.commit(writes, done),
            None => done(CommitResult::Failed),
        }
    }
}

fn set(sleep: &mut Pin<Box<Sleep>>, clock: &Clock, deadline: Option<Instant>) {
    if let Some(deadline) = deadline {
        let at = clock.timer(deadline);
        if sleep.deadline() != at || sleep.is_elapsed() {
            sleep.as_mut().reset(at);
        }
    }
}

async fn when_readable(udp: Option<&crate::udp::UdpSocket>) -> io::Result<()> {
    match udp {
        Some(udp) => udp.readable().await,
        None => std::future::pending().await,
    }
}

async fn when_writable(udp: Option<&crate::udp::UdpSocket>) {
    match udp {
        // An error shows again, and is reported, when reading.
        Some(udp) => drop(udp.writable().await),
        None => std::future::pending().await,
    }
}

/// Lets links write what is queued. QUIC needs its packets for that, so the socket is served to the end.
async fn close(endpoint: &mut Endpoint, buffers: &mut ReceiveBuffers, sends: &mut SendQueue) {
    let udp = endpoint.udp.clone();
    if let Some(udp) = &udp {
        sends.flush(udp);
    }
    if sends.dropped() > 0 {
        tracing::info!(datagrams = sends.dropped(), "not sent because the socket stayed full");
    }
    endpoint.start_closing();
    let serve = async {
        // The acceptors' own copies go when they were aborted.
        while endpoint.tasks() > 0 {
            tokio::select! {
                () = endpoint.task_ended() => {}
                readable = when_readable(udp.as_deref()) => {
                    let Some(udp) = &udp else { continue };
                    if readable.is_err() || udp.receive(buffers, |_, _| {}).is_err() {
                        return;
                    }
                }
            }
        }
    };
    if tokio::time::timeout(SHUTDOWN_WITHIN, serve).await.is_err() {
        tracing::debug!("some links did not close in time");
    }
    endpoint.finish().await;
}
