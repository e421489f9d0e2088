//! How often state was made durable, and how long that took. Counted with a few atomic additions a sync, which itself takes a
//! hundred times as long.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of what is counted together, in microseconds: from a disk with a cache that no power cut empties to one
/// that stalls.
pub const BOUNDS_US: [u64; 15] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000,
];

/// The syncs of one data directory since the server began.
#[derive(Debug, Default)]
pub struct Syncs {
    /// Commits of the records, the sync within each.
    pub records: SyncTimes,
    /// Syncs of result logs.
    pub results: SyncTimes,
}

/// How often, and how long.
#[derive(Debug, Default)]
pub struct SyncTimes {
    /// By [`BOUNDS_US`], the last for what took longer.
    counts: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

/// What was counted up to one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// How many took at most as long as each of [`BOUNDS_US`].
    pub at_most: [u64; BOUNDS_US.len()],
    pub count: u64,
    pub sum_us: u64,
}

impl SyncTimes {
    /// One more, which took so long; failed ones too.
    pub fn add(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let place = BOUNDS_US.iter().position(|bound| micros <= *bound).unwrap_or(BOUNDS_US.len());
        self.counts[place].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(micros, Ordering::Relaxed);
    }

    pub fn read(&self) -> Counted {
        let mut count = 0;
        let mut at_most = [0; BOUNDS_US.len()];
        for (place, counted) in self.counts.iter().enumerate() {
            count += counted.load(Ordering::Relaxed);
            if let Some(place) = at_most.get_mut(place) {
                *place = count;
            }
        }
        Counted { at_most, count, sum_us: self.sum_us.load(Ordering::Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_are_counted_up_to_each_bound_and_beyond_the_last() {
        let times = SyncTimes::default();
        for micros in [100, 101, 250, 7_000, 9_000_000] {
            times.add(Duration::from_micros(micros));
        }
        let read = times.read();
        assert_eq!((read.count, read.sum_us), (5, 9_007_451));
        assert_eq!(read.at_most[..3], [1, 3, 3]);
        assert_eq!((read.at_most[5], read.at_most[6], read.at_most[14]), (3, 4, 4));
    }
}
