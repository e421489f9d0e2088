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

#[cfg(test)]
mod tests {
    use super::*;

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
