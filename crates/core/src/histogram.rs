//! A bounded histogram of times: a fixed number of counts, from which quantiles are told to about three in a hundred.
//!
//! Up to 15 µs each microsecond has a bucket of its own; above, each power of two is cut into sixteen. Whoever counts keeps
//! [`BUCKETS`] counts in whatever form suits them; where a time belongs, and what the counts amount to, is decided here.

/// Buckets a power of two.
const PARTS: u64 = 16;
/// The highest power of two that is told apart: 2^31 µs are 35 minutes, more than twice what an invocation may take.
/// Anything longer counts as that.
const POWER_MAX: u32 = 31;
/// Counts of a histogram: 448, or 3.5 KiB of 64-bit numbers.
pub const BUCKETS: usize = (POWER_MAX - 3) as usize * PARTS as usize;

/// The bucket of a time in microseconds.
pub fn bucket(micros: u64) -> usize {
    let micros = micros.min((1 << POWER_MAX) - 1);
    if micros < PARTS {
        return micros as usize;
    }
    let power = 63 - micros.leading_zeros();
    let part = (micros >> (power - 4)) & (PARTS - 1);
    ((u64::from(power) - 3) * PARTS + part) as usize
}

/// The middle of a bucket in microseconds: at most a thirty-second away from anything in it.
pub fn middle(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < PARTS {
        return bucket;
    }
    let shift = bucket / PARTS - 1;
    let low = (PARTS + bucket % PARTS) << shift;
    low + (1 << shift) / 2
}

/// The time in microseconds that `percent` of all times do not exceed (nearest rank); `None` if nothing was counted.
/// `counts` are those of the buckets in their order.
pub fn quantile(counts: &[u64], percent: u64) -> Option<u64> {
    let total: u64 = counts.iter().sum();
    let rank = (u128::from(total) * u128::from(percent)).div_ceil(100).max(1);
    let mut before = 0_u128;
    let at = counts.iter().position(|count| {
        before += u128::from(*count);
        before >= rank
    });
    at.map(middle)
}

/// Times that were counted, with their sum and the longest of them. Costs nothing until the first one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Empty, or [`BUCKETS`] long.
    counts: Vec<u64>,
    sum_us: u64,
    max_us: u64,
}

/// What times amount to, in microseconds. All zero where nothing was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    pub count: u64,
    /// To three in a hundred.
    pub p50_us: u64,
    pub p90_us: u64,
    pub p99_us: u64,
    /// Exactly.
    pub max_us: u64,
}

impl Histogram {
    /// Made of counts that were kept elsewhere; those behind the last bucket are left out.
    pub fn of(counts: impl IntoIterator<Item = u64>, sum_us: u64, max_us: u64) -> Self {
        let mut counts: Vec<u64> = counts.into_iter().take(BUCKETS).collect();
        counts.resize(BUCKETS, 0);
        Self { counts, sum_us, max_us }
    }

    pub fn add(&mut self, micros: u64) {
        if self.counts.is_empty() {
            self.counts = vec![0; BUCKETS];
        }
        self.counts[bucket(micros)] += 1;
        self.sum_us = self.sum_us.saturating_add(micros);
        self.max_us = self.max_us.max(micros);
    }

    /// Takes all of another one in.
    pub fn merge(&mut self, other: &Self) {
        if self.counts.is_empty() {
            self.counts.clone_from(&other.counts);
        } else {
            self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count = count.saturating_add(*more));
        }
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
        self.max_us = self.max_us.max(other.max_us);
    }

    /// Takes in what [`Histogram::filled`] gave of another one. A bucket that there is not counts as the last one.
    pub fn merge_sparse(&mut self, filled: impl IntoIterator<Item = (usize, u64)>, sum_us: u64, max_us: u64) {
        for (bucket, count) in filled {
            if self.counts.is_empty() {
                self.counts = vec![0; BUCKETS];
            }
            let place = &mut self.counts[bucket.min(BUCKETS - 1)];
            *place = place.saturating_add(count);
        }
        self.sum_us = self.sum_us.saturating_add(sum_us);
        self.max_us = self.max_us.max(max_us);
    }

    /// Nothing is counted any more; its memory stays.
    pub fn clear(&mut self) {
        self.counts.fill(0);
        (self.sum_us, self.max_us) = (0, 0);
    }

    /// What came since an earlier state of the same histogram. Where the longest time is older, the middle of the last
    /// bucket that grew stands for the longest since.
    pub fn since(&self, earlier: &Self) -> Self {
        let before = earlier.counts.iter().copied().chain(std::iter::repeat(0));
        let counts: Vec<u64> = self.counts.iter().zip(before).map(|(now, then)| now.saturating_sub(then)).collect();
        let longest = counts.iter().rposition(|count| *count > 0).map_or(0, middle);
        let max_us = if self.max_us > earlier.max_us { self.max_us } else { longest.min(self.max_us) };
        Self { counts, sum_us: self.sum_us.saturating_sub(earlier.sum_us), max_us }
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// How many times were at most `micros`, to three in a hundred of that: what lies nearer to it may be on either side.
    pub fn at_most(&self, micros: u64) -> u64 {
        self.counts.iter().enumerate().take_while(|(bucket, _)| middle(*bucket) <= micros).map(|(_, count)| count).sum()
    }

    pub fn times(&self) -> Times {
        // The middle of the last bucket may lie behind the longest time.
        let quantile = |percent| quantile(&self.counts, percent).map_or(0, |micros| micros.min(self.max_us));
        Times {
            count: self.count(),
            p50_us: quantile(50),
            p90_us: quantile(90),
            p99_us: quantile(99),
            max_us: self.max_us,
        }
    }

    /// The buckets that something is in, with their counts: what is kept of it. [`Histogram::sparse`] reads it.
    pub fn filled(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.counts.iter().copied().enumerate().filter(|(_, count)| *count > 0)
    }

    /// From what [`Histogram::filled`] gave, as [`Histogram::merge_sparse`] takes it.
    pub fn sparse(filled: impl IntoIterator<Item = (usize, u64)>, sum_us: u64, max_us: u64) -> Self {
        let mut made = Self::default();
        made.merge_sparse(filled, sum_us, max_us);
        made
    }

    pub fn max_us(&self) -> u64 {
        self.max_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(times: &[u64]) -> Histogram {
        let mut made = Histogram::default();
        times.iter().for_each(|time| made.add(*time));
        made
    }

    #[test]
    fn histograms_add_up_and_what_came_since_is_told_apart() {
        let (few, more) = (of(&[10, 20, 3_000]), of(&[10, 500, 40]));
        let mut both = few.clone();
        both.merge(&more);
        assert_eq!(both, of(&[10, 10, 20, 40, 500, 3_000]));
        let mut taken = Histogram::default();
        taken.merge(&few);
        assert_eq!(taken, few, "into an empty one");
        let since = both.since(&few);
        assert_eq!((since.count(), since.sum_us()), (3, 550));
        assert!(since.times().max_us.abs_diff(500) * 32 <= 500, "the longest of all is older: {since:?}");
        assert_eq!(both.since(&Histogram::default()), both);
        assert_eq!(of(&[7, 9_000]).since(&of(&[7])).times().max_us, 9_000, "exactly, where it is new");
        assert_eq!(both.since(&both).times(), Times { max_us: 0, ..Times::default() });
    }

    #[test]
    fn what_is_kept_of_a_histogram_makes_it_anew() {
        for times in [&[][..], &[1, 1, 900, 77_000, u64::MAX / 4]] {
            let one = of(times);
            let again = Histogram::sparse(one.filled(), one.sum_us(), one.max_us());
            assert_eq!(again, one);
            assert_eq!(again.times(), one.times());
        }
        assert_eq!(Histogram::sparse([(BUCKETS + 9, 2)], 0, 5).count(), 2, "of a later version, say");
    }

    #[test]
    fn times_are_told_with_the_longest_exact_and_counted_up_to_a_bound() {
        let one = of(&(1..=1_000).map(|n| n * 100).collect::<Vec<_>>());
        let times = one.times();
        let near = |told: u64, wanted: u64| told.abs_diff(wanted) * 32 <= wanted;
        assert!(near(times.p50_us, 50_000) && near(times.p90_us, 90_000) && near(times.p99_us, 99_000), "{times:?}");
        assert_eq!((times.count, times.max_us, one.sum_us()), (1_000, 100_000, 50_050_000));
        assert_eq!(one.at_most(0), 0);
        assert!(one.at_most(10_000).abs_diff(100) <= 4, "{}", one.at_most(10_000));
        assert_eq!(one.at_most(u64::MAX), 1_000);
        assert_eq!(Histogram::default().times(), Times::default());
    }

    #[test]
    fn every_time_is_in_one_bucket_near_its_middle_and_longer_times_are_in_later_ones() {
        let mut last = 0;
        for micros in (0..100_000).chain((17..31).flat_map(|power| [(1 << power) - 1, 1 << power, (1 << power) + 1])) {
            let bucket = bucket(micros);
            assert!(bucket >= last, "{micros}");
            last = bucket;
            assert!(middle(bucket).abs_diff(micros) * 32 <= micros, "{micros} is told as {}", middle(bucket));
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1, "what is too long counts as the longest");
        assert_eq!(bucket(900_000_000), bucket(middle(bucket(900_000_000))), "the longest invocation is told apart");
    }

    #[test]
    fn a_quantile_is_the_nearest_rank() {
        let mut counts = [0; BUCKETS];
        assert_eq!(quantile(&counts, 50), None);
        for micros in 1..=10 {
            counts[bucket(micros)] += 1;
        }
        assert_eq!([0, 50, 51, 99, 100].map(|p| quantile(&counts, p)), [1, 5, 6, 10, 10].map(Some));
    }
}
