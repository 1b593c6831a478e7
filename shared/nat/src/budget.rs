//! What one call may send to addresses that have not answered: shared by the agents of all its legs (D§6).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limits::{CHECKS_MAX, CHECKS_PER_SILENT_ADDRESS_MAX, REMOTE_CANDIDATES_MAX};

/// The allowance of one call. Clones share it: give every leg's agent a clone of the same one.
///
/// A peer names addresses, and we send packets to them: that is an amplifier unless it is bounded. Every check to an
/// address that never answered is paid from here. A check that the peer provably sent *from* an address earns one more
/// toward it, so that a late peer behind a NAT still gets through: whoever could forge that source could as well have
/// sent the packet himself.
#[derive(Clone, Debug, Default)]
pub struct Budget(Arc<Mutex<Spent>>);

#[derive(Debug, Default)]
struct Spent {
    candidates: u32,
    checks: u32,
    addresses: BTreeMap<SocketAddr, Address>,
}

#[derive(Debug, Default)]
struct Address {
    checks: u32,
    earned: u32,
    answered: bool,
}

impl Budget {
    /// A full allowance.
    pub fn new() -> Budget {
        Budget::default()
    }

    /// Whether one more remote candidate may be kept; counts it when so. An address already known is free.
    pub(crate) fn admit(&self, addr: SocketAddr) -> bool {
        let mut spent = self.lock();
        if spent.addresses.contains_key(&addr) {
            return true;
        }
        if spent.candidates >= REMOTE_CANDIDATES_MAX {
            return false;
        }
        spent.candidates += 1;
        spent.addresses.insert(addr, Address::default());
        true
    }

    /// Whether a check may be sent to this admitted address; counts it when so.
    pub(crate) fn spend(&self, addr: SocketAddr) -> bool {
        let mut spent = self.lock();
        let total = spent.checks;
        let Some(address) = spent.addresses.get_mut(&addr) else { return false };
        if address.answered {
            return true;
        }
        if address.earned > 0 {
            address.earned -= 1;
            return true;
        }
        if address.checks >= CHECKS_PER_SILENT_ADDRESS_MAX || total >= CHECKS_MAX {
            return false;
        }
        address.checks += 1;
        spent.checks += 1;
        true
    }

    /// An authentic check came from this address.
    pub(crate) fn earn(&self, addr: SocketAddr) {
        if let Some(address) = self.lock().addresses.get_mut(&addr) {
            // One at a time: a burst from the peer does not become a store of packets to send later.
            address.earned = 1;
        }
    }

    /// An authentic answer came from this address: it wants to hear from us.
    pub(crate) fn answered(&self, addr: SocketAddr) {
        if let Some(address) = self.lock().addresses.get_mut(&addr) {
            address.answered = true;
        }
    }

    /// Nothing was heard from it for the time of RFC 7675: it counts as silent again, with its checks used up.
    pub(crate) fn expired(&self, addr: SocketAddr) {
        if let Some(address) = self.lock().addresses.get_mut(&addr) {
            *address = Address { checks: CHECKS_PER_SILENT_ADDRESS_MAX, earned: 0, answered: false };
        }
    }

    fn lock(&self) -> MutexGuard<'_, Spent> {
        // Nothing here panics while holding the lock; the counts stay meaningful if something ever did.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(n: u8) -> SocketAddr {
        SocketAddr::from(([203, 0, 113, n], 5000))
    }

    #[test]
    fn a_silent_address_gets_five_and_the_call_a_hundred() {
        let budget = Budget::new();
        let legs = [budget.clone(), budget.clone()];
        let mut sent = 0;
        for n in 0..40 {
            if !budget.admit(addr(n)) {
                assert_eq!(n, 32);
                break;
            }
            let to_this = (0..20).filter(|i| legs[i % 2].spend(addr(n))).count();
            assert!(to_this <= 5);
            sent += to_this;
        }
        assert_eq!(sent, 100);
    }

    #[test]
    fn answers_lift_the_bound_and_expiry_restores_it() {
        let budget = Budget::new();
        assert!(!budget.spend(addr(1)), "never admitted");
        assert!(budget.admit(addr(1)));
        assert_eq!((0..9).filter(|_| budget.spend(addr(1))).count(), 5);
        budget.earn(addr(1));
        budget.earn(addr(1));
        assert_eq!((0..9).filter(|_| budget.spend(addr(1))).count(), 1);
        budget.answered(addr(1));
        assert_eq!((0..9).filter(|_| budget.spend(addr(1))).count(), 9);
        budget.expired(addr(1));
        assert_eq!((0..9).filter(|_| budget.spend(addr(1))).count(), 0);
    }
}
