//! Whether and when an event is handed to a sink again.

use crate::random::Random;
use crate::retry::Backoff;

/// How long and how often. Times in milliseconds. Source: S3 Batch spec 10.4 (EVT-7), decision 0009.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub backoff: Backoff,
    /// How long an event is tried before it is given up.
    pub tried_ms_max: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self { backoff: Backoff { base_ms: 1_000, cap_ms: 5 * 60_000 }, tried_ms_max: 24 * 60 * 60_000 }
    }
}

/// What follows a try that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Again { delay_ms: u64 },
    GiveUp,
}

impl Policy {
    /// Decides what follows the failed try number `attempts` (from 1), after `tried_ms` of trying and waiting in all.
    ///
    /// `tried_ms` is a sum of what was waited and what the tries took, not a difference of dates: a wall clock that is
    /// set ahead, or a server that was down for a week, gives nothing up. The last try comes when the time is used up.
    pub fn after_failure(&self, attempts: u32, tried_ms: u64, random: &mut Random) -> Verdict {
        let left_ms = self.tried_ms_max.saturating_sub(tried_ms);
        if left_ms == 0 {
            return Verdict::GiveUp;
        }
        Verdict::Again { delay_ms: self.backoff.delay_ms(attempts, random).min(left_ms) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_tried_for_a_day_with_growing_pauses_and_then_given_up() {
        let (policy, mut random) = (Policy::default(), Random::seeded(5));
        let (mut attempts, mut tried_ms, mut longest_ms) = (0, 0, 0);
        loop {
            attempts += 1;
            match policy.after_failure(attempts, tried_ms, &mut random) {
                Verdict::Again { delay_ms } => {
                    assert!(delay_ms >= 1 && delay_ms <= 1_000 << (attempts - 1).min(20), "{attempts}: {delay_ms}");
                    longest_ms = longest_ms.max(delay_ms);
                    tried_ms += delay_ms;
                }
                Verdict::GiveUp => break,
            }
        }
        assert_eq!(tried_ms, 24 * 60 * 60_000, "the last try comes at the end of the day");
        assert!((200_000..=300_000).contains(&longest_ms), "{longest_ms}");
        assert!((200..2_000).contains(&attempts), "{attempts}");
    }

    #[test]
    fn a_try_that_took_longer_than_the_time_left_is_the_last() {
        let verdict = Policy::default().after_failure(3, u64::MAX, &mut Random::seeded(1));
        assert_eq!(verdict, Verdict::GiveUp);
    }
}
