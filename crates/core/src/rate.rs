//! How many requests an account may make: a token bucket each.

use std::collections::BTreeMap;

use crate::time::Tick;

/// How fast requests may come. Source: S3 Batch spec 1.12 (C-16), our choice: AWS publishes no figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// In the long run.
    pub per_second: u32,
    /// At once, after a pause. At least 1, or nothing would ever pass.
    pub burst: u32,
}

/// Accounts that are remembered. One that has paused for as long as its bucket takes to fill is as good as new and is
/// forgotten when this many are known; a hundred bytes each, so a megabyte in all.
const ACCOUNTS_MAX: usize = 10_000;

/// The buckets of all accounts.
#[derive(Debug)]
pub struct Limiter {
    rate: Rate,
    buckets: BTreeMap<String, Bucket>,
}

/// What one account has left, in thousandths of a request: so many come back in a millisecond as `per_second` says.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: u64,
    at: Tick,
}

impl Limiter {
    pub fn new(rate: Rate) -> Self {
        Self { rate, buckets: BTreeMap::new() }
    }

    /// Decides whether `account` may make one more request now, and counts it if so. Where so many accounts are busy
    /// that a further one cannot be remembered, that one may not.
    pub fn admit(&mut self, account: &str, now: Tick) -> bool {
        let full = u64::from(self.rate.burst) * 1_000;
        if !self.buckets.contains_key(account) {
            if self.buckets.len() >= ACCOUNTS_MAX {
                let rate = self.rate;
                self.buckets.retain(|_, bucket| bucket.refilled(rate, now).left < full);
            }
            if self.buckets.len() >= ACCOUNTS_MAX {
                return false;
            }
        }
        let bucket = self.buckets.entry(account.to_owned()).or_insert(Bucket { left: full, at: now });
        *bucket = bucket.refilled(self.rate, now);
        let admitted = bucket.left >= 1_000;
        if admitted {
            bucket.left -= 1_000;
        }
        admitted
    }
}

impl Bucket {
    fn refilled(self, rate: Rate, now: Tick) -> Self {
        let back = now.since_ms(self.at).saturating_mul(rate.per_second.into());
        Self { left: self.left.saturating_add(back).min(u64::from(rate.burst) * 1_000), at: now.max(self.at) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(limiter: &mut Limiter, account: &str, now: u64) -> usize {
        (0..1_000).take_while(|_| limiter.admit(account, Tick(now))).count()
    }

    #[test]
    fn a_burst_passes_and_then_as_many_as_come_back() {
        let mut limiter = Limiter::new(Rate { per_second: 100, burst: 200 });
        for (now, wanted) in
            [(0, 200), (0, 0), (9, 0), (10, 1), (19, 0), (20, 1), (1_020, 100), (60_000, 200), (59_000, 0)]
        {
            assert_eq!(admitted(&mut limiter, "a", now), wanted, "at {now} ms");
        }
    }

    #[test]
    fn one_account_does_not_use_up_what_another_may() {
        let mut limiter = Limiter::new(Rate { per_second: 1, burst: 2 });
        assert_eq!(admitted(&mut limiter, "a", 0), 2);
        assert_eq!(admitted(&mut limiter, "b", 0), 2);
    }

    #[test]
    fn accounts_that_have_paused_are_forgotten_before_a_new_one_is_turned_away() {
        let mut limiter = Limiter::new(Rate { per_second: 1, burst: 1 });
        for account in 0..ACCOUNTS_MAX {
            assert!(limiter.admit(&account.to_string(), Tick(0)));
        }
        assert!(!limiter.admit("late", Tick(0)));
        assert!(limiter.admit("late", Tick(1_000)));
        assert_eq!(limiter.buckets.len(), 1);
    }
}
