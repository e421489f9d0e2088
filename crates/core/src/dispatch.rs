//! How many tasks of a job run at once, and how many start in a second: ramp-up, and backing off when throttled.
//!
//! A function throttles for two reasons, and says the same of both: too many calls at once, or too many in a second. Where
//! calls take long, [`Ramp`] finds how many may run at once; where they are short, one call after the other may be too many,
//! and [`Pace`] finds how many may start in a second.

use crate::time::Tick;

/// Source: S3 Batch spec 8.3 (C-62), our choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RampSettings {
    /// Invocations at once when a job becomes Active.
    pub initial: u32,
    /// The most that one job may run at once.
    pub max: u32,
    /// Without a throttle the limit doubles this often.
    pub double_every_ms: u64,
    /// After a throttle the limit stays halved this long, then grows by a tenth, at least one, a second.
    pub hold_ms: u64,
}

impl Default for RampSettings {
    fn default() -> Self {
        Self { initial: 8, max: 256, double_every_ms: 10_000, hold_ms: 5_000 }
    }
}

/// The concurrency of one job over time. Doubles from `initial`; halves at each burst of throttling and then grows
/// slowly (additive increase, multiplicative decrease).
#[derive(Debug, Clone)]
pub struct Ramp {
    settings: RampSettings,
    limit: u32,
    /// When the limit next grows.
    grows_at: Tick,
    throttled_before: bool,
}

const RECOVER_EVERY_MS: u64 = 1_000;

impl Ramp {
    pub fn new(settings: RampSettings, now: Tick) -> Self {
        let limit = settings.initial.clamp(1, settings.max.max(1));
        Self { settings, limit, grows_at: now.after_ms(settings.double_every_ms), throttled_before: false }
    }

    /// Invocations allowed at once at `now`.
    pub fn limit(&mut self, now: Tick) -> u32 {
        let max = self.settings.max.max(1);
        while self.limit < max && self.grows_at <= now {
            if self.throttled_before {
                self.limit = self.limit.saturating_add((self.limit / 10).max(1)).min(max);
                self.grows_at = self.grows_at.after_ms(RECOVER_EVERY_MS);
            } else {
                self.limit = self.limit.saturating_mul(2).min(max);
                self.grows_at = self.grows_at.after_ms(self.settings.double_every_ms.max(1));
            }
        }
        self.limit
    }

    /// A call was throttled while `in_flight` others went on. Many at once are one burst: the limit halves once a hold, but
    /// not below what the function has taken.
    pub fn throttled(&mut self, in_flight: usize, now: Tick) {
        let holding = self.throttled_before && now.after_ms(0) < self.grows_at;
        if holding && self.grows_at.since_ms(now) > RECOVER_EVERY_MS {
            return;
        }
        let taken = u32::try_from(in_flight).unwrap_or(u32::MAX).min(self.limit);
        self.limit = (self.limit / 2).max(taken).max(1);
        self.throttled_before = true;
        self.grows_at = now.after_ms(self.settings.hold_ms.max(RECOVER_EVERY_MS + 1));
    }

    /// Whether the limit still doubles: below the ceiling, and never throttled.
    pub fn doubles(&self) -> bool {
        !self.throttled_before && self.limit < self.settings.max
    }

    /// When [`Ramp::limit`] may next answer more; `None` at the ceiling.
    pub fn grows_at(&self) -> Option<Tick> {
        (self.limit < self.settings.max).then_some(self.grows_at)
    }
}

/// Calls that take this long on average, in milliseconds, are not short: how many run at once is what counts of them.
const SHORT_MS_MAX: f64 = 100.0;
/// What is taken and refused is looked at over this time, in pieces of a tenth.
const RECENT_MS: u64 = 1_000;
const PIECE_MS: u64 = RECENT_MS / 10;
/// After the first throttle the pace doubles in this time, until the second.
const SEEK_DOUBLE_MS: f64 = 100.0;
/// From then on it grows by this part a second; twice that after a quiet time without a throttle, and so on up to the maximum.
const GROWTH_PER_S: f64 = 0.02;
const GROWTH_PER_S_MAX: f64 = 1.0;
/// The quiet time in milliseconds; at least that of so many calls, for few of them say little.
const QUIET_MS: f64 = 500.0;
const QUIET_CALLS: f64 = 10.0;
/// Each refused call takes as many calls a second off: one too many a second is refused once a second, and 2 halve what is
/// too much in a third of a second. More would answer a limit that is counted second by second with too long a pause.
const REFUSED_COSTS: f64 = 2.0;
/// So many refused one after the other: a limit that is counted by the second, say, is used up for that second.
const CLOSED_AFTER: u32 = 8;
/// How often a function that takes nothing is tried: for a second so often, then half as often, and so on to the maximum.
const CLOSED_TRY_MS: u64 = 20;
const CLOSED_TRY_MS_MAX: u64 = 1_000;
/// What may start at once after a pause: so many milliseconds of the pace. The engine's clock has whole milliseconds.
const BURST_MS: f64 = 5.0;
/// A pace that has not held anything back for so long is none any more.
const UNUSED_MS_MAX: u64 = 2_000;

/// How many calls of a job start in a second. Any number, until a short one is throttled; then what the function was seen to
/// take, searched for from below, and kept a little above: the rare call that is refused says where the limit is.
#[derive(Debug, Clone)]
pub struct Pace {
    /// Calls a second; infinite while it holds nothing back.
    per_s: f64,
    /// Calls that may start now, parts of one included; reckoned at `at`.
    credit: f64,
    at: Tick,
    /// Between the first throttle and the second.
    seeking: bool,
    refused_at: Tick,
    refused_in_row: u32,
    closed_until: Tick,
    /// The last time that somebody had to wait.
    used_at: Tick,
    taken: Recent,
    /// Of calls that were taken, moving with each by an eighth; `None` before the first.
    took_ms: Option<f64>,
}

/// The pace at which a call was started.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Paced(f64);

impl Pace {
    pub fn new(now: Tick) -> Self {
        Self {
            per_s: f64::INFINITY,
            credit: 0.0,
            at: now,
            seeking: false,
            refused_at: now,
            refused_in_row: 0,
            closed_until: now,
            used_at: now,
            taken: Recent::default(),
            took_ms: None,
        }
    }

    /// Whether calls are held back, or may have to be.
    pub fn holds(&self) -> bool {
        self.per_s.is_finite()
    }

    /// Whether a call may start at `now`.
    pub fn may_start(&mut self, now: Tick) -> bool {
        if !self.holds() {
            return true;
        }
        self.reckon(now);
        let open = self.credit >= 1.0 && self.closed_until <= now;
        if !open {
            self.used_at = now;
        }
        open || !self.holds()
    }

    /// A call starts. What is returned is handed back with its answer.
    pub fn started(&mut self) -> Paced {
        if self.holds() {
            self.credit -= 1.0;
        }
        Paced(self.per_s)
    }

    /// The function took a call, which was over after `took_ms`, however it ended.
    pub fn taken(&mut self, took_ms: u64, now: Tick) {
        let took_ms = took_ms as f64;
        let before = self.took_ms.unwrap_or(took_ms);
        self.took_ms = Some(before + (took_ms - before) / 8.0);
        self.taken.add(now);
        self.refused_in_row = 0;
    }

    /// A call was throttled. `false` if that is nothing that a pace could mend: calls are not short, or nothing is known of
    /// them.
    pub fn throttled(&mut self, paced: Paced, now: Tick) -> bool {
        if !self.took_ms.is_some_and(|ms| ms < SHORT_MS_MAX) {
            self.per_s = f64::INFINITY;
            return false;
        }
        let taken_per_s = self.taken.count(now) as f64;
        if !self.holds() {
            // Of what was taken in a second the first part may have come out of a reserve. The search begins here.
            (self.per_s, self.credit, self.at, self.seeking) = (taken_per_s.max(1.0), 0.0, now, true);
            (self.refused_at, self.used_at) = (now, now);
            return true;
        }
        // What was under way before there was a pace says nothing of it.
        if paced.0.is_infinite() {
            return true;
        }
        self.refused_at = now;
        self.refused_in_row = self.refused_in_row.saturating_add(1);
        if self.refused_in_row >= CLOSED_AFTER {
            let doublings = (self.refused_in_row / (8 * CLOSED_AFTER)).min(16);
            let wait_ms = (CLOSED_TRY_MS << doublings).min(CLOSED_TRY_MS_MAX);
            (self.closed_until, self.credit) = (now.after_ms(wait_ms), 0.0);
        }
        let slower = if self.seeking { self.per_s.min(paced.0) * 0.75 } else { self.per_s - REFUSED_COSTS };
        // Not far below what was taken a moment ago, nor, after the search, far above it: while it grew, the last second had
        // less of it than the last moment.
        let lately_per_s = self.taken.lately_per_s(now).max(taken_per_s);
        let at_most = if self.seeking { lately_per_s * 1.2 } else { f64::INFINITY };
        self.seeking = false;
        self.per_s = slower.min(at_most).max(taken_per_s * 0.9).max(1.0);
        true
    }

    /// When [`Pace::may_start`] may next say yes, if it says no at `now`.
    pub fn opens_at(&self, now: Tick) -> Option<Tick> {
        if !self.holds() {
            return None;
        }
        let missing_ms = ((1.0 - self.credit) / self.per_s * 1_000.0).ceil().max(0.0);
        // A finite pace is at least one call a second.
        let paid = self.at.after_ms(missing_ms as u64);
        let at = paid.max(self.closed_until);
        (at > now).then_some(at)
    }

    fn reckon(&mut self, now: Tick) {
        let passed_ms = now.since_ms(self.at);
        if passed_ms == 0 {
            return;
        }
        self.at = now;
        if now.since_ms(self.used_at) >= UNUSED_MS_MAX {
            self.per_s = f64::INFINITY;
            return;
        }
        // The loop may have been away for long: nothing was learnt meanwhile.
        let passed = (passed_ms.min(PIECE_MS)) as f64;
        if self.seeking {
            self.per_s *= (passed / SEEK_DOUBLE_MS).exp2();
        } else {
            let quiet_ms = QUIET_MS.max(QUIET_CALLS / self.per_s * 1_000.0);
            let quiet = (now.since_ms(self.refused_at) as f64 / quiet_ms).floor();
            let growth = (GROWTH_PER_S * quiet.exp2()).min(GROWTH_PER_S_MAX);
            self.per_s *= 1.0 + growth * passed / 1_000.0;
        }
        let burst = (self.per_s * BURST_MS / 1_000.0).max(1.0);
        self.credit = (self.credit + self.per_s * passed_ms as f64 / 1_000.0).min(burst);
    }
}

/// How often something happened in the last second.
#[derive(Debug, Clone, Default)]
struct Recent {
    pieces: [u32; (RECENT_MS / PIECE_MS) as usize],
    /// The number of the newest piece, of all since the clock began.
    newest: u64,
}

impl Recent {
    fn advance(&mut self, now: Tick) {
        let number = now.0 / PIECE_MS;
        let pieces = self.pieces.len() as u64;
        for passed in (self.newest + 1..=number).rev().take(self.pieces.len()) {
            self.pieces[(passed % pieces) as usize] = 0;
        }
        self.newest = self.newest.max(number);
    }

    fn add(&mut self, now: Tick) {
        self.advance(now);
        let at = (self.newest % self.pieces.len() as u64) as usize;
        self.pieces[at] = self.pieces[at].saturating_add(1);
    }

    fn count(&mut self, now: Tick) -> u64 {
        self.advance(now);
        self.pieces.iter().map(|n| u64::from(*n)).sum()
    }

    /// What the newest piece and the one before would make in a second.
    fn lately_per_s(&mut self, now: Tick) -> f64 {
        self.advance(now);
        let pieces = self.pieces.len() as u64;
        let of = |number: u64| f64::from(self.pieces[(number % pieces) as usize]);
        let ms = PIECE_MS + now.0 % PIECE_MS + 1;
        (of(self.newest) + of(self.newest + pieces - 1)) * 1_000.0 / ms as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_doubles_every_ten_seconds_up_to_the_ceiling() {
        let mut ramp = Ramp::new(RampSettings::default(), Tick(0));
        let limits = [0, 9_999, 10_000, 20_000, 30_000, 49_999, 50_000, 900_000].map(|t| ramp.limit(Tick(t)));
        assert_eq!(limits, [8, 8, 16, 32, 64, 128, 256, 256]);
        assert_eq!((ramp.grows_at(), ramp.doubles()), (None, false));
        let mut ramp = Ramp::new(RampSettings::default(), Tick(0));
        assert!(ramp.doubles());
        ramp.throttled(0, Tick(1));
        assert!(!ramp.doubles(), "from here on it grows slowly");
    }

    #[test]
    fn a_burst_of_throttles_halves_once_then_the_limit_creeps_up() {
        let mut ramp = Ramp::new(RampSettings { initial: 64, ..RampSettings::default() }, Tick(0));
        for _ in 0..20 {
            ramp.throttled(0, Tick(100));
        }
        assert_eq!(ramp.limit(Tick(100)), 32);
        assert_eq!(ramp.limit(Tick(5_099)), 32, "held for five seconds");
        assert_eq!(ramp.limit(Tick(5_100)), 35);
        assert_eq!(ramp.limit(Tick(6_100)), 38);
        ramp.throttled(0, Tick(6_200));
        assert_eq!(ramp.limit(Tick(6_200)), 19);
    }

    #[test]
    fn the_limit_does_not_fall_below_what_the_function_has_taken() {
        let mut ramp = Ramp::new(RampSettings { initial: 64, ..RampSettings::default() }, Tick(0));
        ramp.throttled(40, Tick(0));
        assert_eq!(ramp.limit(Tick(0)), 40);
        ramp.throttled(90, Tick(10_000));
        assert!(ramp.limit(Tick(10_000)) <= 60, "what goes on from before the limit is not taken by it");
    }

    /// A function that takes `per_s` calls a second: out of a bucket of so many, or, without one, counted second by second.
    struct Limited {
        per_s: f64,
        bucket: Option<f64>,
        tokens: f64,
        at: f64,
    }

    impl Limited {
        fn takes(&mut self, ms: f64) -> bool {
            match self.bucket {
                Some(size) => self.tokens = (self.tokens + (ms - self.at) * self.per_s / 1_000.0).min(size),
                None if (ms / 1_000.0).floor() > (self.at / 1_000.0).floor() => self.tokens = self.per_s,
                None => {}
            }
            self.at = ms;
            let takes = self.tokens >= 1.0;
            self.tokens -= f64::from(takes);
            takes
        }
    }

    /// Calls the function for so many seconds, `at_once` at a time, each of which takes `took_us`; a refusal comes after a
    /// tenth of that. Whoever is refused without a pace keeps its place for 100 ms. Returns (taken, refused).
    fn against(mut function: Limited, at_once: usize, took_us: u64, seconds: u64) -> (u64, u64) {
        let mut pace = Pace::new(Tick(0));
        let mut under_way = std::collections::BinaryHeap::new();
        let (mut taken, mut refused, mut us, mut number) = (0, 0, 0, 0_u64);
        let (mut sent, mut waiting) = (std::collections::HashMap::new(), Vec::new());
        while us < seconds * 1_000_000 {
            let now = Tick(us / 1_000);
            waiting.retain(|until: &u64| *until > us);
            while under_way.len() + waiting.len() < at_once && pace.may_start(now) {
                number += 1;
                let takes = function.takes(us as f64 / 1_000.0);
                let over = us + if takes { took_us } else { took_us / 10 + 1 };
                sent.insert(number, (pace.started(), takes, now));
                under_way.push(std::cmp::Reverse((over, number)));
            }
            let next = under_way.peek().map(|std::cmp::Reverse((over, _))| *over);
            let waits = under_way.len() + waiting.len() < at_once;
            let opens = pace.opens_at(now).filter(|_| waits).map(|at| at.0 * 1_000);
            let wakes = waiting.iter().min().copied();
            us = [next, opens, wakes].into_iter().flatten().min().unwrap_or(us + 1_000).max(us);
            while let Some(std::cmp::Reverse((over, number))) = under_way.peek().copied()
                && over <= us
            {
                under_way.pop();
                let (paced, takes, since) = sent.remove(&number).unwrap();
                let now = Tick(us / 1_000);
                if takes {
                    taken += 1;
                    pace.taken(now.since_ms(since), now);
                } else {
                    refused += 1;
                    if !pace.throttled(paced, now) {
                        waiting.push(us + 100_000);
                    }
                }
            }
        }
        (taken, refused)
    }

    #[test]
    fn a_function_that_throttles_short_calls_is_given_what_it_takes_and_hardly_more() {
        for (per_s, seconds) in [(20.0, 30), (1_000.0, 15), (4_000.0, 10)] {
            for bucket in [None, Some(0.05), Some(1.0)] {
                for (at_once, took_us) in [(16, 200), (64, 1_500), (256, 10_000)] {
                    let bucket = bucket.map(|part: f64| (per_s * part).max(2.0));
                    let function = Limited { per_s, bucket, tokens: bucket.unwrap_or(per_s), at: 0.0 };
                    let (taken, refused) = against(function, at_once, took_us, seconds);
                    let good = taken as f64 / (per_s * seconds as f64);
                    // The first calls went out before anybody could know better.
                    let bad = refused.saturating_sub(at_once as u64) as f64 / (taken + refused) as f64;
                    let what = format!("{per_s}/s, {bucket:?}, {at_once} of {took_us} us: {good:.3}, {bad:.3} refused");
                    assert!(good >= 0.95 && bad <= 0.08, "{what}");
                }
            }
        }
    }

    #[test]
    fn a_pace_holds_short_calls_alone_and_ends_when_nobody_waits_for_it() {
        let mut pace = Pace::new(Tick(0));
        let first = pace.started();
        assert!(!pace.throttled(first, Tick(1)), "nothing is known of its calls yet");
        pace.taken(5_000, Tick(5_000));
        assert!(!pace.throttled(first, Tick(5_001)) && !pace.holds(), "they are long");
        let mut pace = Pace::new(Tick(0));
        for _ in 0..100 {
            pace.taken(1, Tick(10));
        }
        assert!(pace.throttled(first, Tick(10)) && pace.holds());
        assert!(!pace.may_start(Tick(10)));
        assert_eq!(pace.opens_at(Tick(10)), Some(Tick(20)), "100 a second were taken");
        assert!(pace.may_start(Tick(20)));
        pace.started();
        for ms in 21..3_000 {
            pace.may_start(Tick(ms));
        }
        assert!(!pace.holds(), "nobody had to wait for it");
    }

    #[test]
    fn the_limit_never_falls_below_one() {
        let mut ramp = Ramp::new(RampSettings { initial: 1, ..RampSettings::default() }, Tick(0));
        ramp.throttled(0, Tick(0));
        assert_eq!(ramp.limit(Tick(0)), 1);
    }
}
