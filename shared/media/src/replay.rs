//! The replay window (RFC 3711 §3.3.2): each index counts once, and never again when it is
//! [`REPLAY_WINDOW`] behind the newest.

use crate::limits::REPLAY_WINDOW;

const WORDS: usize = (REPLAY_WINDOW / 64) as usize;

/// Which of the newest [`REPLAY_WINDOW`] indexes were seen. Only authenticated packets may be marked.
#[derive(Clone, Debug)]
pub struct ReplayWindow {
    seen: [u64; WORDS],
    highest: Option<u64>,
}

impl Default for ReplayWindow {
    fn default() -> Self {
        ReplayWindow { seen: [0; WORDS], highest: None }
    }
}

impl ReplayWindow {
    /// The highest index marked.
    pub fn highest(&self) -> Option<u64> {
        self.highest
    }

    /// Whether `index` is new and not too old.
    pub fn is_fresh(&self, index: u64) -> bool {
        match self.highest {
            None => true,
            Some(highest) if index > highest => true,
            Some(highest) if highest - index >= REPLAY_WINDOW => false,
            Some(_) => {
                let (word, bit) = place(index);
                self.seen.get(word).is_some_and(|seen| seen & bit == 0)
            }
        }
    }

    /// Marks an index that [`is_fresh`](Self::is_fresh).
    pub fn mark(&mut self, index: u64) {
        if let Some(highest) = self.highest.filter(|highest| index > *highest) {
            for skipped in (highest + 1..=index).take(REPLAY_WINDOW as usize) {
                let (word, bit) = place(skipped);
                if let Some(seen) = self.seen.get_mut(word) {
                    *seen &= !bit;
                }
            }
        }
        self.highest = Some(self.highest.map_or(index, |highest| highest.max(index)));
        let (word, bit) = place(index);
        if let Some(seen) = self.seen.get_mut(word) {
            *seen |= bit;
        }
    }
}

fn place(index: u64) -> (usize, u64) {
    ((index / 64 % WORDS as u64) as usize, 1 << (index % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_index_counts_once_in_any_order() {
        let mut window = ReplayWindow::default();
        for index in [5u64, 3, 4, 0, 9, 1, 2_000, 7] {
            assert!(window.is_fresh(index));
            window.mark(index);
            assert!(!window.is_fresh(index));
        }
        assert_eq!(window.highest(), Some(2_000));
        assert!(window.is_fresh(2));
    }

    #[test]
    fn the_boundary_from_both_sides() {
        let mut window = ReplayWindow::default();
        window.mark(10_000);
        assert!(window.is_fresh(10_000 - REPLAY_WINDOW + 1));
        assert!(!window.is_fresh(10_000 - REPLAY_WINDOW));
        window.mark(10_001);
        assert!(!window.is_fresh(10_000 - REPLAY_WINDOW + 1));
    }

    #[test]
    fn a_jump_forgets_what_it_passes() {
        let mut window = ReplayWindow::default();
        for index in 0..REPLAY_WINDOW {
            window.mark(index);
        }
        window.mark(REPLAY_WINDOW * 3 + 17);
        for index in REPLAY_WINDOW * 2 + 18..REPLAY_WINDOW * 3 + 17 {
            assert!(window.is_fresh(index), "{index}");
        }
        assert!(!window.is_fresh(REPLAY_WINDOW * 3 + 17));
        assert!(!window.is_fresh(REPLAY_WINDOW * 2 + 17));
    }

    #[test]
    fn agrees_with_a_set() {
        let mut window = ReplayWindow::default();
        let mut set = std::collections::BTreeSet::new();
        let mut state = 1u64;
        let mut base = 0u64;
        for _ in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            base += state >> 62;
            let index = base + (state >> 40) % 2_600;
            let highest = set.last().copied().unwrap_or(0);
            let fresh = index > highest || (index + REPLAY_WINDOW > highest && !set.contains(&index));
            assert_eq!(window.is_fresh(index), fresh || set.is_empty());
            if fresh {
                window.mark(index);
                set.insert(index);
            }
        }
    }
}
