//! Random IDs, many for one system call: asked for one by one they cost as much as the rest of an invocation's names.

use std::cell::RefCell;

use uuid::{Builder, Uuid};

/// Bytes that a thread has in store.
const STORE_BYTES: usize = 4096;

struct Store {
    bytes: [u8; STORE_BYTES],
    used: usize,
}

thread_local! {
    static STORE: RefCell<Store> = const { RefCell::new(Store { bytes: [0; STORE_BYTES], used: STORE_BYTES }) };
}

/// As [`Uuid::new_v4`], from the system's own random numbers, each given out once.
pub(crate) fn uuid() -> Uuid {
    STORE.with_borrow_mut(|store| {
        if store.used == STORE_BYTES {
            if getrandom::fill(&mut store.bytes).is_err() {
                // Which ends the thread if the system has none for it either.
                return Uuid::new_v4();
            }
            store.used = 0;
        }
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&store.bytes[store.used..store.used + 16]);
        store.used += 16;
        Builder::from_random_bytes(bytes).into_uuid()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_id_comes_twice_over_many_stores_and_threads() {
        let many = || (0..3 * STORE_BYTES / 16).map(|_| uuid()).collect::<Vec<_>>();
        let other = std::thread::spawn(many);
        let mut all = many();
        all.extend(other.join().unwrap());
        assert!(all.iter().all(|id| id.get_version_num() == 4));
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
