//! What this thread has read and checked before: for the simulator, in which a hundred thousand nodes read the same records
//! and check the same signatures. They then share one copy of each. Programs never switch it on; what can be read and what
//! verifies is the same with and without it.

use std::any::Any;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sha2::{Digest, Sha256};

thread_local! {
    static SEEN: RefCell<Option<Seen>> = const { RefCell::new(None) };
}

struct Seen {
    fit: BTreeSet<[u8; 32]>,
    records: BTreeMap<[u8; 32], Arc<dyn Any + Send + Sync>>,
    count_max: usize,
}

/// From now on this thread remembers up to this many signatures that fit, and as many records; then it forgets them all
/// and begins anew.
pub fn remember(count_max: usize) {
    SEEN.set(Some(Seen { fit: BTreeSet::new(), records: BTreeMap::new(), count_max }));
}

fn is_on() -> bool {
    SEEN.with_borrow(Option::is_some)
}

/// Checks a signature over `message`, unless it is known to fit.
pub(crate) fn checked<E>(
    (key, message, signature): (&[u8; 32], &[u8], &[u8; 64]),
    check: impl FnOnce() -> Result<(), E>,
) -> Result<(), E> {
    if !is_on() {
        return check();
    }
    let hasher = Sha256::new().chain_update(key).chain_update(signature).chain_update(message);
    let name: [u8; 32] = hasher.finalize().into();
    let is_known = |seen: &Option<Seen>| seen.as_ref().is_some_and(|seen| seen.fit.contains(&name));
    if SEEN.with_borrow(is_known) {
        return Ok(());
    }
    check()?;
    SEEN.with_borrow_mut(|seen| {
        if let Some(seen) = seen {
            if seen.fit.len() >= seen.count_max {
                seen.fit.clear();
            }
            seen.fit.insert(name);
        }
    });
    Ok(())
}

/// Reads a record of this kind, unless the same bytes were read before.
pub(crate) fn read<T: Any + Send + Sync, E>(
    kind: &str,
    bytes: &[u8],
    read: impl FnOnce() -> Result<Arc<T>, E>,
) -> Result<Arc<T>, E> {
    if !is_on() {
        return read();
    }
    let name: [u8; 32] =
        Sha256::new().chain_update(kind).chain_update([0]).chain_update(bytes).finalize().into();
    let known = SEEN.with_borrow(|seen| seen.as_ref().and_then(|seen| seen.records.get(&name)).cloned());
    if let Some(record) = known.and_then(|known| known.downcast().ok()) {
        return Ok(record);
    }
    let record = read()?;
    SEEN.with_borrow_mut(|seen| {
        if let Some(seen) = seen {
            if seen.records.len() >= seen.count_max {
                seen.records.clear();
            }
            seen.records.insert(name, record.clone());
        }
    });
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_fitted_is_remembered() {
        let key = [1; 32];
        let ask = |message: &[u8], fits: bool| {
            let mut asked = false;
            let result = checked((&key, message, &[2; 64]), || {
                asked = true;
                fits.then_some(()).ok_or(())
            });
            (asked, result)
        };
        assert_eq!((ask(b"a", true), ask(b"a", true)), ((true, Ok(())), (true, Ok(()))), "off at first");
        remember(2);
        assert_eq!((ask(b"a", false), ask(b"a", true)), ((true, Err(())), (true, Ok(()))));
        assert_eq!(ask(b"a", true), (false, Ok(())));
        assert_eq!((ask(b"b", true), ask(b"c", true)), ((true, Ok(())), (true, Ok(()))));
        assert_eq!(ask(b"a", true), (true, Ok(())), "all were forgotten for the third");
    }

    #[test]
    fn the_same_bytes_are_one_record_of_each_kind() {
        let read_as = |kind: &str, number: u8| read::<u8, ()>(kind, b"bytes", || Ok(Arc::new(number)));
        assert_eq!((read_as("a", 1), read_as("a", 2)), (Ok(Arc::new(1)), Ok(Arc::new(2))), "off at first");
        remember(2);
        assert_eq!(
            (read_as("a", 1), read_as("a", 2), read_as("b", 3)),
            (Ok(1.into()), Ok(1.into()), Ok(3.into()))
        );
        assert_eq!(read::<u16, ()>("a", b"bytes", || Ok(Arc::new(7))), Ok(Arc::new(7)), "of another type");
        assert_eq!(read::<u8, u8>("c", b"bytes", || Err(9)), Err(9));
    }
}
