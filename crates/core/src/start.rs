//! Whether a call has begun or was called off: decided once, by whoever comes first.
//!
//! A call may wait at several places for its turn: at the engine's gate, in the function host for a free environment, for room
//! at an endpoint. Whoever hands it to its function says [`Start::begin`] in that moment; whoever cancels says
//! [`Start::call_off`]. Of the two one succeeds, wherever the call is, so that nothing starts after a cancel is answered
//! (rule L-10, promise X8).

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

const WAITS: u8 = 0;
const BEGUN: u8 = 1;
const CALLED_OFF: u8 = 2;

/// One call's start. Clones are of the same call.
#[derive(Debug, Clone, Default)]
pub struct Start(Arc<AtomicU8>);

/// Equal are clones.
impl PartialEq for Start {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Start {}

impl Start {
    /// Says that the call begins now. `false` if it was called off: then it must not.
    #[must_use]
    pub fn begin(&self) -> bool {
        self.decide(BEGUN)
    }

    /// Calls it off. `false` if it has begun: then it is in flight.
    #[must_use]
    pub fn call_off(&self) -> bool {
        self.decide(CALLED_OFF)
    }

    /// Whoever says the same again is told the same.
    fn decide(&self, end: u8) -> bool {
        match self.0.compare_exchange(WAITS, end, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => true,
            Err(before) => before == end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_begins_or_is_called_off_and_never_both() {
        let begun = Start::default();
        assert!(begun.begin() && begun.clone().begin());
        assert!(!begun.call_off() && begun.begin());
        let off = Start::default();
        assert!(off.call_off() && off.clone().call_off());
        assert!(!off.begin() && off.call_off());
    }

    #[test]
    fn of_two_threads_that_decide_at_once_one_succeeds() {
        for _ in 0..200 {
            let start = Start::default();
            let other = start.clone();
            let begins = std::thread::spawn(move || other.begin());
            let off = start.call_off();
            assert_ne!(begins.join().unwrap(), off);
        }
    }
}
