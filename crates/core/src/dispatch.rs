//! How many tasks of a job run at once: ramp-up, and backing off when throttled.

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

    /// A call was throttled. Many at once are one burst: the limit halves once a hold.
    pub fn throttled(&mut self, now: Tick) {
        let holding = self.throttled_before && now.after_ms(0) < self.grows_at;
        if holding && self.grows_at.since_ms(now) > RECOVER_EVERY_MS {
            return;
        }
        self.limit = (self.limit / 2).max(1);
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
        ramp.throttled(Tick(1));
        assert!(!ramp.doubles(), "from here on it grows slowly");
    }

    #[test]
    fn a_burst_of_throttles_halves_once_then_the_limit_creeps_up() {
        let mut ramp = Ramp::new(RampSettings { initial: 64, ..RampSettings::default() }, Tick(0));
        for _ in 0..20 {
            ramp.throttled(Tick(100));
        }
        assert_eq!(ramp.limit(Tick(100)), 32);
        assert_eq!(ramp.limit(Tick(5_099)), 32, "held for five seconds");
        assert_eq!(ramp.limit(Tick(5_100)), 35);
        assert_eq!(ramp.limit(Tick(6_100)), 38);
        ramp.throttled(Tick(6_200));
        assert_eq!(ramp.limit(Tick(6_200)), 19);
    }

    #[test]
    fn the_limit_never_falls_below_one() {
        let mut ramp = Ramp::new(RampSettings { initial: 1, ..RampSettings::default() }, Tick(0));
        ramp.throttled(Tick(0));
        assert_eq!(ramp.limit(Tick(0)), 1);
    }
}
