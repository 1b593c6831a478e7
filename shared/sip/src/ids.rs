//! Call-IDs, tags and branches from a seed. Unguessable (128 bits), and no address or name of a person in them.

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};

/// Makes identifiers; one per device, each with a seed of its own.
#[derive(Debug)]
pub struct Ids(ChaCha20Rng);

impl Ids {
    /// Identifiers that follow from `seed`.
    pub fn new(seed: [u8; 32]) -> Ids {
        Ids(ChaCha20Rng::from_seed(seed))
    }

    /// A Call-ID (RFC 3261 §8.1.1.4).
    pub fn call_id(&mut self) -> String {
        self.hex()
    }

    /// A From or To tag (RFC 3261 §19.3).
    pub fn tag(&mut self) -> String {
        self.hex()
    }

    /// A Via branch with the magic cookie (RFC 3261 §8.1.1.7).
    pub fn branch(&mut self) -> String {
        format!("z9hG4bK{}", self.hex())
    }

    fn hex(&mut self) -> String {
        let mut bytes = [0u8; 16];
        self.0.fill_bytes(&mut bytes);
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_decides_and_nothing_repeats() {
        let mut one = Ids::new([1; 32]);
        let mut same = Ids::new([1; 32]);
        let first = one.call_id();
        assert_eq!(first, same.call_id());
        assert_ne!(first, one.call_id());
        assert_eq!(first.len(), 32);
        assert!(one.branch().starts_with("z9hG4bK"));
    }
}
