//! What may happen to a ring, one function for each option.

use std::time::Duration;

use super::arguments::{Arguments, Share};
use super::figures::{Churned, Figures, Healed, Killed, Orphaned, millis, rounded};
use super::load::{Idle, Load, gap};
use super::ring::SimRing;

/// From the start until links stand and newcomers serve.
const SETTLE: Duration = Duration::from_secs(30);

/// How long the ring is watched when nobody asks.
const WATCH: Duration = Duration::from_secs(60);

/// How long is waited for what everybody shall know.
const KNOWN_MAX: Duration = Duration::from_secs(120);

/// How long is waited for two halves to agree.
const HEALED_MAX: Duration = Duration::from_secs(300);

/// Entries live two hours, and devices write theirs anew in time.
const REFRESH: Duration = Duration::from_secs(3_000);

/// A realm with all accounts published, and what it sends when nobody asks.
pub(super) fn settle(ring: &mut SimRing, load: &mut Load) -> Idle {
    ring.run_for(SETTLE);
    load.publish_all(ring);
    ring.run_for(Duration::from_secs(5));
    load.idle(ring, WATCH)
}

/// Nothing happens to the ring.
pub(super) fn calm(ring: &mut SimRing, load: &mut Load, idle: Idle, arguments: &Arguments) -> Figures {
    load.measure(ring, arguments.lookups, idle)
}

/// `--kill`: a share of the members is stopped at once, and asking goes on at the others.
pub(super) fn kill(ring: &mut SimRing, load: &mut Load, idle: Idle, share: Share, lookups: u32) -> Killed {
    let killed = share.of(ring.alive.len()).min(ring.alive.len() - 1);
    let before = idle.without(killed, ring.alive.len());
    for _ in 0..killed {
        ring.kill_one();
    }
    let begun = ring.world.now().mono;
    let mut figures = load.measure(ring, lookups, before);
    let known = until_members(ring, KNOWN_MAX);
    let known_ms = known.then(|| millis(ring.world.now().mono.since(begun)));
    ring.run_for(SETTLE);
    figures.idle_bytes_s = rounded(load.idle(ring, WATCH).each_bytes_s);
    Killed { killed, known_ms, figures, lost: load.check_all(ring) }
}

/// `--churn`: members are replaced one by one through an hour, `speed` times as fast.
pub(super) fn churn(ring: &mut SimRing, load: &mut Load, arguments: &Arguments, share: Share) -> Churned {
    let replaced = share.of(ring.alive.len());
    let hour = Duration::from_secs(3_600) / arguments.speed;
    let every = hour / replaced as u32;
    let (begun, sent) = (ring.world.now().mono, ring.sent());
    load.forget();
    let (mut next, mut done) = (begun + every, 0);
    let (mut refreshed, mut account) = (begun, 0);
    while ring.world.now().mono < begun + hour {
        let now = ring.world.now().mono;
        if now >= next && done < replaced {
            ring.kill_one();
            ring.join();
            next += every;
            done += 1;
        }
        // Every account writes again in time.
        if now >= refreshed + REFRESH / ring.accounts.len() as u32 {
            let supernode = ring.pick();
            load.write(ring, supernode, account);
            account = (account + 1) % ring.accounts.len();
            refreshed = now;
        }
        let (supernode, of) = (ring.pick(), ring.pick_account());
        load.read(ring, supernode, of);
        load.pause(ring, (hour / arguments.lookups).max(gap(ring)));
    }
    load.finish(ring);
    let sent = ring.sent() - sent;
    let bytes = (sent.datagram_bytes + sent.frame_bytes) as f64;
    let bytes_s = rounded(bytes / hour.as_secs_f64() / ring.alive.len() as f64);
    let figures = load.figures();
    ring.run_for(SETTLE);
    Churned { replaced, bytes_s, figures, lost: load.check_all(ring) }
}

/// `--partition`: two halves for a while, both written to, then one ring again.
pub(super) fn partition(ring: &mut SimRing, load: &mut Load, span: Duration) -> Healed {
    for index in 0..ring.members.len() {
        let half = ring.world.below(2) as u8;
        ring.set_group(index, half);
    }
    ring.world.partitioned = true;
    load.forget();
    // Every account writes about twice, each time in the half that it is in.
    let writes = 2 * ring.accounts.len() as u32;
    let pause = (span / writes).max(gap(ring));
    let begun = ring.world.now().mono;
    while ring.world.now().mono < begun + span {
        let account = ring.pick_account();
        let supernode = ring.pick_of((account % 2) as u8);
        load.write(ring, supernode, account);
        load.pause(ring, pause);
    }
    load.finish(ring);
    let (acknowledged, unacknowledged) = load.written();
    ring.world.partitioned = false;
    let healed = ring.world.now().mono;
    let mut converged_ms = None;
    while converged_ms.is_none() && ring.world.now().mono < healed + HEALED_MAX {
        let left = (healed + HEALED_MAX).since(ring.world.now().mono);
        if until_members(ring, left) && load.check_all(ring) == 0 {
            converged_ms = Some(millis(ring.world.now().mono.since(healed)));
        }
    }
    Healed { acknowledged, unacknowledged, converged_ms, lost: load.check_all(ring) }
}

/// `--login-down`: the login server is gone for a while, then a revocation reaches one member.
pub(super) fn login_down(
    ring: &mut SimRing,
    load: &mut Load,
    arguments: &Arguments,
    span: Duration,
) -> Orphaned {
    ring.kill_desk();
    let begun = ring.world.now().mono;
    while ring.world.now().mono + REFRESH < begun + span {
        ring.run_for(REFRESH);
        load.publish_all(ring);
    }
    let left = (begun + span).since(ring.world.now().mono);
    ring.run_for(left);
    let idle = load.idle(ring, WATCH);
    let figures = load.measure(ring, arguments.lookups, idle);
    let lost = load.check_all(ring);
    ring.revoke_one();
    let told = ring.world.now().mono;
    let epoch = ring.epoch();
    let known = until(ring, KNOWN_MAX, |ring| ring.all(|member| member.status().epoch >= epoch));
    let revoked_ms = known.then(|| millis(ring.world.now().mono.since(told)));
    Orphaned { figures, lost, revoked_ms }
}

/// Waits until every member counts exactly those that run.
fn until_members(ring: &mut SimRing, limit: Duration) -> bool {
    until(ring, limit, |ring| {
        let members = ring.alive.len();
        ring.all(|member| member.status().members == members)
    })
}

fn until(ring: &mut SimRing, limit: Duration, mut holds: impl FnMut(&mut SimRing) -> bool) -> bool {
    let end = ring.world.now().mono + limit;
    loop {
        if holds(ring) {
            return true;
        }
        if ring.world.now().mono >= end {
            return false;
        }
        ring.run_for(Duration::from_millis(100));
    }
}
