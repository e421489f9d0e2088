//! The threads on which invocations happen: each runs one runtime of tokio's kind without work stealing, and an environment's
//! connection stays on the one that it was given.
//!
//! An answer, what follows from it, and the event that goes out next are then one wake-up of one thread. On a runtime of
//! several threads the same costs half as much again, for waking the others. Source: decision 0029.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use tokio::runtime::Handle;

/// Environments of one function that share its first thread before its next one is used. A thread serves some forty thousand
/// invocations a second: eight environments ask for more only where an invocation takes less than 200 microseconds, and
/// then the processors are what is short.
const ENVIRONMENTS_A_THREAD: usize = 8;

/// Which function is served where. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Threads {
    all: Arc<[Handle]>,
}

impl Threads {
    /// These runtimes, each of one thread; at least one.
    pub fn new(first: Handle, others: impl IntoIterator<Item = Handle>) -> Self {
        Self { all: std::iter::once(first).chain(others).collect() }
    }

    /// Where what belongs to the function by this name is best: its first environments, and whoever calls it often.
    pub fn home(&self, function: &str) -> &Handle {
        &self.all[home(function, self.all.len())]
    }

    /// Where an environment of the function runs that has so many already.
    pub(super) fn of(&self, function: &str, has_already: usize) -> &Handle {
        let threads = self.all.len();
        &self.all[(home(function, threads) + has_already / ENVIRONMENTS_A_THREAD) % threads]
    }
}

/// The same for the same name for as long as the process lives.
fn home(function: &str, threads: usize) -> usize {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(function);
    usize::try_from(hash % threads as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_functions_first_environments_share_its_thread_and_more_of_them_spread_over_all() {
        let runtimes: Vec<_> = (0..4).map(|_| tokio::runtime::Builder::new_current_thread().build().unwrap()).collect();
        let mut handles = runtimes.iter().map(|runtime| runtime.handle().clone());
        let threads = Threads::new(handles.next().unwrap(), handles);
        let mut homes = std::collections::HashSet::new();
        for function in (0..64).map(|n| format!("f{n}")) {
            let home = threads.home(&function).id();
            homes.insert(home);
            let of = |has_already| threads.of(&function, has_already).id();
            assert!((0..ENVIRONMENTS_A_THREAD).all(|n| of(n) == home));
            assert_ne!(of(ENVIRONMENTS_A_THREAD), home);
            let used: std::collections::HashSet<_> = (0..4 * ENVIRONMENTS_A_THREAD).map(of).collect();
            assert_eq!(used.len(), 4);
        }
        assert_eq!(homes.len(), 4);
    }
}
