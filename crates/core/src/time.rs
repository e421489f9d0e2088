//! The clocks. [`Tick`] decides, and [`Age`] what is too old; [`Timestamp`] is what people read.

/// Milliseconds on a clock that never goes back, from a start that means nothing. All waiting is reckoned in it, so
/// that a wall clock set back or ahead changes only printed times (promise X13).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tick(pub u64);

impl Tick {
    pub fn after_ms(self, ms: u64) -> Tick {
        Tick(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to here; 0 if it is not earlier.
    pub fn since_ms(self, earlier: Tick) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Milliseconds since 1970-01-01T00:00:00Z by the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

/// Milliseconds on the clock that the age of what is kept is reckoned by. It is the wall clock's at first and goes on by
/// itself: with the time that a server runs, and over a time in which none did. So nothing is old because a clock was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Age(pub i64);

/// How much of the time that no server ran is believed of the wall clock, at most: one that is wrong by years when a server
/// starts makes nothing older than this.
const OFF_BELIEVED_MS: i64 = 24 * 60 * 60 * 1_000;

impl Age {
    /// What the clock stands at when a server starts: `noted` is what it and the wall clock said at last.
    pub fn resumed(noted: Option<(Age, Timestamp)>, now: Timestamp) -> Age {
        match noted {
            None => Age(now.0),
            Some((age, at)) => Age(age.0.saturating_add(now.0.saturating_sub(at.0).clamp(0, OFF_BELIEVED_MS))),
        }
    }

    pub fn after_ms(self, ms: u64) -> Age {
        Age(self.0.saturating_add(i64::try_from(ms).unwrap_or(i64::MAX)))
    }

    pub fn before_ms(self, ms: i64) -> Age {
        Age(self.0.saturating_sub(ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_goes_on_over_a_time_without_a_server_but_for_no_more_than_a_day_and_never_back() {
        let noted = Some((Age(1_000), Timestamp(500_000)));
        for (now, age) in [
            (500_000, 1_000),
            (560_000, 61_000),
            (500_000 + OFF_BELIEVED_MS, 1_000 + OFF_BELIEVED_MS),
            (i64::MAX, 1_000 + OFF_BELIEVED_MS),
            (0, 1_000),
            (i64::MIN, 1_000),
        ] {
            assert_eq!(Age::resumed(noted, Timestamp(now)), Age(age), "{now}");
        }
        assert_eq!(Age::resumed(None, Timestamp(77)), Age(77));
    }
}
