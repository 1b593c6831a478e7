//! What may happen to a ring, one function for each option.

use std::collections::BTreeMap;
use std::time::Duration;

use yodel_overlay::membership::Health;
use yodel_supernode::node::Supernode;
use yodel_wire::time::Instant;

use super::arguments::{Arguments, Share};
use super::figures::{
    Churned, Deceived, Figures, Healed, Killed, Orphaned, Restarted, Slandered, Turned, millis, rounded,
};
use super::load::{Idle, Load, gap};
use super::ring::SimRing;

/// From the start until links stand and newcomers serve.
const SETTLE: Duration = Duration::from_secs(30);

/// How long the ring is watched when nobody asks.
const WATCH: Duration = Duration::from_secs(60);

/// How long members lie about members before anybody is asked.
const SLANDER: Duration = Duration::from_secs(120);

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
pub(super) fn kill(ring: &mut SimRing, load: &mut Load, share: Share, lookups: u32) -> Killed {
    let killed = share.of(ring.alive.len()).min(ring.alive.len() - 1);
    for _ in 0..killed {
        ring.kill_one();
    }
    let begun = ring.world.now().mono;
    let mut figures = load.measure(ring, lookups, Idle::default());
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

/// `--turnover`: somebody comes and somebody is stopped, first once, then every second.
pub(super) fn turnover(ring: &mut SimRing, load: &mut Load, lookups: u32, span: Duration) -> Turned {
    let begun = ring.world.now().mono;
    let came = ring.join();
    let all = |ring: &mut SimRing, of: usize, counts: bool| {
        (0..ring.alive.len()).all(|at| {
            let at = ring.alive[at];
            at == of || ring.health(of, at).counts() == counts
        })
    };
    let known = until(ring, KNOWN_MAX, |ring| all(ring, came, true));
    let join_known_ms = known.then(|| millis(ring.world.now().mono.since(begun)));
    ring.run_for(SETTLE);
    let begun = ring.world.now().mono;
    let gone = ring.kill_one();
    let known = until(ring, KNOWN_MAX, |ring| all(ring, gone, false));
    let death_known_ms = known.then(|| millis(ring.world.now().mono.since(begun)));
    // A while to get going.
    let mut events = 0;
    let warm = span / 4;
    let (mut begun, mut sent) = (ring.world.now().mono, ring.sent());
    let end = begun + span + warm;
    let mut warming = true;
    while ring.world.now().mono < end {
        ring.join();
        ring.run_for(Duration::from_millis(500));
        ring.kill_one();
        ring.run_for(Duration::from_millis(500));
        events += 1;
        if warming && ring.world.now().mono >= begun + warm {
            (begun, sent, events, warming) = (ring.world.now().mono, ring.sent(), 0, false);
        }
    }
    let took = ring.world.now().mono.since(begun).as_secs_f64() * ring.alive.len() as f64;
    let sent = ring.sent() - sent;
    let each = |all: u64| rounded(all as f64 / took);
    Turned {
        join_known_ms,
        death_known_ms,
        events,
        datagram_bytes_s: each(sent.datagram_bytes),
        link_bytes_s: each(sent.frame_bytes),
        messages_s: each(sent.datagrams + sent.frames),
        figures: load.measure(ring, lookups, Idle::default()),
    }
}

/// `--restart`: members are killed and begin again at once.
pub(super) fn restart(ring: &mut SimRing, load: &mut Load, lookups: u32, count: usize) -> Restarted {
    let before = load.idle(ring, WATCH);
    let count = count.min(ring.alive.len() - 1);
    let each = Duration::from_secs(1) / count as u32;
    for _ in 0..count {
        let index = ring.kill_one();
        ring.run_for(each);
        ring.restart(index);
        load.attach_anew(index);
    }
    let begun = ring.world.now().mono;
    let mut figures = load.measure(ring, lookups, before);
    let (mut steady, mut peak) = (None, 0.0_f64);
    while ring.world.now().mono < begun + KNOWN_MAX {
        let members = ring.alive.len();
        let stands = |member: &Supernode| {
            let membership = member.ring().membership();
            membership.count() == members && membership.known().all(|(_, health)| health == Health::Alive)
        };
        if steady.is_none() && ring.all(stands) {
            steady = Some(millis(ring.world.now().mono.since(begun)));
        }
        peak = peak.max(load.idle(ring, Duration::from_secs(1)).each_messages_s);
    }
    let after = load.idle(ring, WATCH);
    figures.idle_bytes_s = rounded(after.each_bytes_s);
    Restarted {
        restarted: count,
        steady_ms: steady,
        messages_s_before: rounded(before.each_messages_s),
        messages_s_peak: rounded(peak),
        messages_s_after: rounded(after.each_messages_s),
        figures,
        lost: load.check_all(ring),
    }
}

/// `--liars`: of the holders of every account some lie about it.
pub(super) fn deceive(ring: &mut SimRing, load: &mut Load, lookups: u32, count: usize) -> Deceived {
    // Twice, so that there is something still valid to roll back to.
    load.publish_all(ring);
    load.publish_all(ring);
    ring.run_for(SETTLE);
    ring.corrupt_holders(count);
    load.forget();
    load.reads(ring, lookups);
    let figures = load.figures();
    let mut lies = 0;
    for index in ring.alive.clone() {
        lies += ring.look(index, |player| player.liar().map_or(0, |liar| liar.about_records));
    }
    Deceived { lies, figures }
}

/// `--gossip-liars`: some members lie about members.
pub(super) fn slander(ring: &mut SimRing, load: &mut Load, lookups: u32, share: Share) -> Slandered {
    let before = load.idle(ring, WATCH);
    let liars = ring.corrupt_members(share.of(ring.alive.len()));
    let honest: Vec<usize> = ring.alive.iter().copied().filter(|index| !liars.contains(index)).collect();
    let sent = |ring: &SimRing| {
        honest
            .iter()
            .map(|index| {
                let sent = ring.world.sent_by(ring.members[*index].node);
                sent.datagram_bytes + sent.frame_bytes
            })
            .sum::<u64>()
    };
    let handed = |ring: &mut SimRing| -> u64 {
        honest.iter().map(|index| ring.look(*index, |p| p.supernode.ring().counters().handed_over)).sum()
    };
    let (from, sent_before, handed_before) = (ring.world.now().mono, sent(ring), handed(ring));
    let mut since: BTreeMap<(usize, usize), Instant> = BTreeMap::new();
    let (mut longest, mut drops, mut grown) = (Duration::ZERO, 0, 0);
    let members = ring.alive.len();
    while ring.world.now().mono < from + SLANDER {
        ring.run_for(Duration::from_millis(250));
        let now = ring.world.now().mono;
        for at in &honest {
            let (count, known) = ring.look(*at, |player| {
                let membership = player.supernode.ring().membership();
                (membership.count(), membership.known().count())
            });
            grown = grown.max(known.saturating_sub(members));
            let held: Vec<usize> =
                since.range((*at, 0)..=(*at, usize::MAX)).map(|((_, of), _)| *of).collect();
            if count == members && held.is_empty() {
                continue;
            }
            for of in &honest {
                let counts = of == at || ring.health(*of, *at).counts();
                match (counts, since.get(&(*at, *of))) {
                    (false, None) => {
                        drops += 1;
                        since.insert((*at, *of), now);
                    }
                    (false, Some(begun)) => longest = longest.max(now.since(*begun)),
                    (true, Some(begun)) => {
                        longest = longest.max(now.since(*begun));
                        since.remove(&(*at, *of));
                    }
                    (true, None) => {}
                }
            }
        }
    }
    let each = |bytes: u64| bytes as f64 / honest.len() as f64 / SLANDER.as_secs_f64();
    let honest_bytes_s = rounded(each(sent(ring) - sent_before));
    let handed_over = handed(ring) - handed_before;
    let figures = load.measure(ring, lookups, Idle::default());
    let invented =
        liars.iter().map(|index| ring.look(*index, |p| p.liar().map_or(0, |liar| liar.invented))).sum();
    Slandered {
        liars: liars.len(),
        invented,
        dropped_s: rounded(longest.as_secs_f64()),
        drops,
        grown,
        honest_bytes_s_before: rounded(before.each_bytes_s),
        honest_bytes_s,
        handed_over,
        figures,
        lost: load.check_all(ring),
    }
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
