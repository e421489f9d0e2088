//! How fast a job goes, and when it will be over, as far as that can be said.

use std::collections::VecDeque;

use crate::time::Tick;

/// Over how long "now" is reckoned.
const WINDOW_MS: u64 = 10_000;
/// Between two samples that are kept.
const SAMPLE_EVERY_MS: u64 = 1_000;
/// Samples kept: twice what the window holds of them, for two may be nearer than a second.
const SAMPLES_MAX: usize = 2 * (WINDOW_MS / SAMPLE_EVERY_MS) as usize;
/// Before so much time has passed, and so many tasks have settled within the window, a rate says little.
const SETTLED_IN_MS: u64 = 3_000;
const SETTLED_MIN: u64 = 3;

/// Final results over the last seconds.
#[derive(Debug, Clone, Default)]
pub struct Speed {
    /// Moments and the results until then, oldest first, [`SAMPLES_MAX`] at most.
    samples: VecDeque<(Tick, u64)>,
}

/// Why nobody knows when a job will be over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// Nothing of it runs.
    NotRunning,
    /// More of its manifest is being checked, or a sample of it runs: how much there is to do is not known.
    TotalUnknown,
    /// Fewer tasks run at once than will soon.
    RampsUp,
    /// It has not run for long enough since it began, or since the server did.
    TooEarly,
    /// Too little has come of it lately.
    TooFewResults,
}

impl Unknown {
    pub fn name(self) -> &'static str {
        match self {
            Unknown::NotRunning => "not-running",
            Unknown::TotalUnknown => "total-unknown",
            Unknown::RampsUp => "ramping-up",
            Unknown::TooEarly => "too-early",
            Unknown::TooFewResults => "too-few-results",
        }
    }
}

/// What a forecast depends on, beside the speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlook {
    /// Tasks without a final result.
    pub left: u64,
    pub total_known: bool,
    pub ramps_up: bool,
}

impl Speed {
    /// Takes what there is at `now`. As often as one likes; one a second is kept.
    pub fn sample(&mut self, now: Tick, results: u64) {
        // The latest is replaced until it is a second behind the one before it, so that there always is a fresh one.
        let kept = self.samples.len().checked_sub(2).and_then(|n| self.samples.get(n));
        if kept.is_some_and(|(at, _)| now.since_ms(*at) < SAMPLE_EVERY_MS) {
            self.samples.pop_back();
        }
        self.samples.push_back((now, results));
        // One sample stays that is as old as the window.
        while self.samples.len() > SAMPLES_MAX
            || self.samples.get(1).is_some_and(|(at, _)| now.since_ms(*at) >= WINDOW_MS)
        {
            self.samples.pop_front();
        }
    }

    /// Milliseconds and results between the oldest and the latest sample.
    fn window(&self) -> (u64, u64) {
        match (self.samples.front(), self.samples.back()) {
            (Some((from, before)), Some((to, results))) => (to.since_ms(*from), results.saturating_sub(*before)),
            _ => (0, 0),
        }
    }

    /// Results a second over the last ten seconds, or since the first sample. 0 before there is a second one.
    pub fn per_second(&self) -> f64 {
        match self.window() {
            (0, _) => 0.0,
            (ms, results) => results as f64 * 1_000.0 / ms as f64,
        }
    }

    /// Milliseconds until there is nothing left, if it goes on as now.
    pub fn left_ms(&self, outlook: Outlook) -> Result<u64, Unknown> {
        let (ms, results) = self.window();
        if !outlook.total_known {
            return Err(Unknown::TotalUnknown);
        }
        if outlook.ramps_up {
            return Err(Unknown::RampsUp);
        }
        if outlook.left > 0 && ms < SETTLED_IN_MS {
            return Err(Unknown::TooEarly);
        }
        if outlook.left > 0 && results < SETTLED_MIN {
            return Err(Unknown::TooFewResults);
        }
        let left = u128::from(outlook.left) * u128::from(ms) / u128::from(results.max(1));
        Ok(u64::try_from(left).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: Outlook = Outlook { left: 1_000, total_known: true, ramps_up: false };

    /// A job with so many results a second in each of the seconds, looked at five times a second.
    fn of(per_second: &[u64]) -> Speed {
        let mut speed = Speed::default();
        let (mut now, mut results) = (0, 0);
        speed.sample(Tick(0), 0);
        for rate in per_second {
            for _ in 0..5 {
                now += 200;
                results += rate / 5;
                speed.sample(Tick(now), results);
            }
        }
        speed
    }

    #[test]
    fn the_rate_is_that_of_the_last_ten_seconds() {
        assert_eq!(Speed::default().per_second(), 0.0);
        assert_eq!(of(&[]).per_second(), 0.0);
        assert_eq!(of(&[100]).per_second(), 100.0);
        assert_eq!(of(&[100, 300]).per_second(), 200.0);
        let faster: Vec<u64> = [[50; 20], [500; 20]].concat();
        assert_eq!(of(&faster).per_second(), 500.0, "of the first twenty seconds nothing is left");
        let stands: Vec<u64> = [[500; 20], [0; 20]].concat();
        assert_eq!(of(&stands).per_second(), 0.0);
        assert!(of(&faster).samples.len() <= SAMPLES_MAX);
    }

    #[test]
    fn what_is_left_is_told_only_where_it_is_known() {
        assert_eq!(of(&[100; 20]).left_ms(KNOWN), Ok(10_000));
        assert_eq!(of(&[100; 20]).left_ms(Outlook { left: 0, ..KNOWN }), Ok(0));
        assert_eq!(of(&[100; 20]).left_ms(Outlook { total_known: false, ..KNOWN }), Err(Unknown::TotalUnknown));
        assert_eq!(of(&[100; 20]).left_ms(Outlook { ramps_up: true, ..KNOWN }), Err(Unknown::RampsUp));
        assert_eq!(of(&[100, 100]).left_ms(KNOWN), Err(Unknown::TooEarly));
        assert_eq!(of(&[0; 20]).left_ms(KNOWN), Err(Unknown::TooFewResults));
        assert_eq!(of(&[]).left_ms(Outlook { left: 0, ..KNOWN }), Ok(0));
    }
}
