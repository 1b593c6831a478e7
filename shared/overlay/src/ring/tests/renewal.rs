//! A member gets its next credential, and with it a sealing key that nobody knows yet.

use super::*;

impl Net {
    fn renew(&mut self, index: usize) {
        let before = &self.fixtures[index];
        let keys = [self.realm.renewed(before).sealing, before.sealing.clone()];
        let renewed = self.realm.renewed(before);
        self.rings[index].renew(self.now, renewed.credential.clone(), &keys);
        self.fixtures[index] = renewed;
        self.drain(index);
    }

    fn serials(&self, of: usize) -> Vec<u64> {
        let serial = |ring: &Ring| {
            let membership = ring.membership();
            let slot = membership.slot_of(self.node(of)).unwrap();
            membership.directory().card(slot).unwrap().credential().serial
        };
        self.rings.iter().map(serial).collect()
    }

    fn died(&self) -> u64 {
        self.rings.iter().map(|ring| ring.membership().counters().died).sum()
    }
}

#[test]
fn a_renewed_key_cuts_nobody_off() {
    for members in [2, 3, 6] {
        let mut net = Net::new(members);
        let device = &net.devices(1)[0];
        assert_eq!(net.write(1, device, 1).status, WriteStatus::Stored);
        net.renew(0);
        net.run(60 * SECOND);
        assert_eq!(net.serials(0), vec![2; members.into()], "of {members}");
        assert_eq!((net.died(), net.sequences(0, device), net.sequences(1, device)), (0, vec![1], vec![1]));
        // Long after, when nothing is sealed under the key before any more.
        net.run(11 * 60 * SECOND);
        assert_eq!((net.died(), net.sequences(0, device), net.sequences(1, device)), (0, vec![1], vec![1]));
    }
}

#[test]
fn who_missed_a_renewal_learns_of_it() {
    let mut net = Net::new(6);
    net.down.insert(5);
    net.run(30 * SECOND);
    net.renew(0);
    net.run(30 * 60 * SECOND);
    net.down.clear();
    net.run(60 * SECOND);
    assert_eq!(net.serials(0), vec![2; 6]);
    assert!(net.rings.iter().all(|ring| ring.membership().count() == 6));
}

#[test]
fn all_renew_at_once() {
    let mut net = Net::new(8);
    for index in 0..8 {
        net.renew(index);
    }
    net.run(60 * SECOND);
    assert_eq!(net.died(), 0);
    for index in 0..8 {
        assert_eq!(net.serials(index), vec![2; 8]);
    }
}
