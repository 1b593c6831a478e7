//! A line with delay: a TUN device at each end, and two threads that carry packets across, each after its time.
//!
//! The kernel has `netem` for this where it is built in, which it often is not. A TUN device without offloads also gets
//! packets whole: checksummed, and segmented where a program handed the kernel several at once.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tun_tap::{Iface, Mode};
use yodel_net::clock::Clock;
use yodel_wire::time::Instant;

use super::{LabError, Space};

/// Packets under way in one direction: 50 ms of a gigabit line. More are dropped, as on any line.
const UNDER_WAY_MAX: usize = 4_096;

/// Largest packet carried.
const PACKET_BYTES_MAX: usize = 65_536;

/// Lays a line between two namespaces. It lasts until one of its devices is deleted.
pub(super) fn lay(a: (&Space, &str), b: (&Space, &str), one_way: Duration) -> Result<(), LabError> {
    let open = |(space, name): (&Space, &str)| {
        space.enter(|| Iface::without_packet_info(name, Mode::Tun)).map(Arc::new).map_err(LabError::Io)
    };
    let (a, b) = (open(a)?, open(b)?);
    carry(a.clone(), b.clone(), one_way);
    carry(b, a, one_way);
    Ok(())
}

fn carry(from: Arc<Iface>, to: Arc<Iface>, one_way: Duration) {
    let clock = Clock::start();
    let (enter, leave) = sync_channel(UNDER_WAY_MAX);
    std::thread::spawn(move || take_in(clock, &from, &enter, one_way));
    std::thread::spawn(move || let_out(clock, &to, &leave));
}

/// Ends when the device is gone.
fn take_in(clock: Clock, from: &Iface, enter: &SyncSender<(Instant, Vec<u8>)>, one_way: Duration) {
    let mut packet = vec![0; PACKET_BYTES_MAX];
    while let Ok(size) = from.recv(&mut packet) {
        let due = clock.now().mono + one_way;
        // Full or not, the reader goes on: a line drops, it does not push back.
        let _ = enter.try_send((due, packet[..size].to_vec()));
    }
}

/// Ends when the other thread has.
fn let_out(clock: Clock, to: &Iface, leave: &Receiver<(Instant, Vec<u8>)>) {
    while let Ok((due, packet)) = leave.recv() {
        std::thread::sleep(due.since(clock.now().mono));
        // A device that is not up yet loses packets, as it should.
        let _ = to.send(&packet);
    }
}
