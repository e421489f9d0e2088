//! Whether and when a task is tried again.

use crate::invocation::Judgement;
use crate::random::Random;
use crate::task::Outcome;
use crate::time::Tick;

/// How long and how often. All times in milliseconds. Source: S3 Batch spec 5.6 (C-53), our choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Invocations of one task in total, the first included, where the function answers `TemporaryFailure`.
    pub attempts_max: u32,
    pub redrive: Backoff,
    /// Further invocations of a task whose function threw, timed out or died. 0, as on AWS: such an error is final.
    pub function_error_redrives_max: u32,
    /// Calls that did not reach the function, for one attempt.
    pub transport_tries_max: u32,
    pub transport_ms_max: u64,
    pub transport: Backoff,
    /// How long a task may be throttled without one start before it fails.
    pub throttle_ms_max: u64,
    pub throttle: Backoff,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            attempts_max: 5,
            redrive: Backoff { base_ms: 1_000, cap_ms: 60_000 },
            function_error_redrives_max: 0,
            transport_tries_max: 8,
            transport_ms_max: 15 * 60_000,
            transport: Backoff { base_ms: 200, cap_ms: 30_000 },
            throttle_ms_max: 60 * 60_000,
            throttle: Backoff { base_ms: 200, cap_ms: 10_000 },
        }
    }
}

/// Exponential, doubling, with full jitter: a delay evenly between 0 and min(cap, base × 2^(n−1)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    pub base_ms: u64,
    pub cap_ms: u64,
}

impl Backoff {
    /// The delay before try `n + 1`; `n` counts from 1.
    pub fn delay_ms(&self, n: u32, random: &mut Random) -> u64 {
        let doubled = self.base_ms.saturating_mul(1_u64 << n.saturating_sub(1).min(40));
        // At least a millisecond, so that "later" is never "at once".
        random.below(doubled.min(self.cap_ms)).max(1)
    }
}

/// What one task has been through so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tries {
    /// Invocations that count: first 0; the dispatcher adds one as each new attempt starts.
    pub attempts: u32,
    /// Calls of the present attempt that did not reach the function, and when the first of them failed.
    pub transport: u32,
    pub transport_since: Option<Tick>,
    /// Since when it has only been throttled, and how often.
    pub throttled_since: Option<Tick>,
    pub throttles: u32,
    /// What stands in the report if nothing better comes: the last failure.
    pub last: Option<Outcome>,
}

/// What follows one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The task has its final result.
    Settle(Outcome),
    /// A new attempt at `at`, which counts.
    Redrive { at: Tick },
    /// The same attempt again at `at`.
    Again { at: Tick },
}

impl Policy {
    /// Decides what follows one call, and notes it in `tries`.
    ///
    /// Never fails. A function that times out arrives here as a function error (rule R-5), not as a redrive.
    pub fn decide(&self, judgement: Judgement, tries: &mut Tries, now: Tick, random: &mut Random) -> Verdict {
        match judgement {
            Judgement::Settle(outcome) => Verdict::Settle(outcome),
            Judgement::NotStarted => Verdict::Again { at: now },
            // Attempts alone are counted, and outlive a crash: those that a `TemporaryFailure` took count here too.
            Judgement::FunctionError(outcome) if tries.attempts > self.function_error_redrives_max => {
                Verdict::Settle(outcome)
            }
            Judgement::Redrive(outcome) | Judgement::FunctionError(outcome) => {
                if tries.attempts >= self.attempts_max {
                    return Verdict::Settle(outcome);
                }
                let at = now.after_ms(self.redrive.delay_ms(tries.attempts.max(1), random));
                *tries = Tries { attempts: tries.attempts, last: Some(outcome), ..Tries::default() };
                Verdict::Redrive { at }
            }
            Judgement::RetryTransport(outcome) => {
                let since = *tries.transport_since.get_or_insert(now);
                tries.transport += 1;
                tries.throttled_since = None;
                tries.throttles = 0;
                if tries.transport >= self.transport_tries_max || now.since_ms(since) >= self.transport_ms_max {
                    return Verdict::Settle(outcome);
                }
                tries.last = Some(outcome);
                Verdict::Again { at: now.after_ms(self.transport.delay_ms(tries.transport, random)) }
            }
            Judgement::Throttled(outcome, retry_after_ms) => {
                let since = *tries.throttled_since.get_or_insert(now);
                tries.throttles = tries.throttles.saturating_add(1);
                if now.since_ms(since) >= self.throttle_ms_max {
                    return Verdict::Settle(outcome);
                }
                let delay_ms = retry_after_ms.unwrap_or_else(|| self.throttle.delay_ms(tries.throttles, random));
                // However late the other side names, the budget is looked at again when it is used up.
                let delay_ms = delay_ms.min(self.throttle_ms_max.saturating_sub(now.since_ms(since)));
                Verdict::Again { at: now.after_ms(delay_ms.max(1)) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(judgement: Judgement, tries: &mut Tries, now: u64) -> Verdict {
        Policy::default().decide(judgement, tries, Tick(now), &mut Random::seeded(3))
    }

    fn outcome() -> Outcome {
        Outcome::failed(200, "TemporaryFailure", "busy")
    }

    #[test]
    fn a_temporary_failure_is_redriven_until_five_invocations_are_used_up() {
        let mut tries = Tries::default();
        for attempt in 1..=4 {
            tries.attempts = attempt;
            let verdict = decide(Judgement::Redrive(outcome()), &mut tries, 1_000);
            let Verdict::Redrive { at } = verdict else { panic!("attempt {attempt}: {verdict:?}") };
            assert!(at > Tick(1_000) && at.0 <= 1_000 + (1_000 << (attempt - 1)));
            assert_eq!(tries.last, Some(outcome()));
        }
        tries.attempts = 5;
        assert_eq!(decide(Judgement::Redrive(outcome()), &mut tries, 1_000), Verdict::Settle(outcome()));
    }

    #[test]
    fn a_function_error_is_final_unless_the_policy_gives_it_further_attempts() {
        let mut tries = Tries { attempts: 1, ..Tries::default() };
        assert_eq!(decide(Judgement::FunctionError(outcome()), &mut tries, 0), Verdict::Settle(outcome()));
        let patient = Policy { function_error_redrives_max: 2, ..Policy::default() };
        for attempt in 1..=3 {
            let mut tries = Tries { attempts: attempt, ..Tries::default() };
            let verdict =
                patient.decide(Judgement::FunctionError(outcome()), &mut tries, Tick(0), &mut Random::seeded(1));
            assert_eq!(matches!(verdict, Verdict::Redrive { .. }), attempt <= 2, "attempt {attempt}");
        }
        let mut last = Tries { attempts: 5, ..Tries::default() };
        let endless = Policy { function_error_redrives_max: u32::MAX, ..Policy::default() };
        let verdict = endless.decide(Judgement::FunctionError(outcome()), &mut last, Tick(0), &mut Random::seeded(1));
        assert_eq!(verdict, Verdict::Settle(outcome()), "no task has more attempts than there are");
    }

    #[test]
    fn a_throttled_task_uses_no_attempt_and_gives_up_after_an_hour() {
        let mut tries = Tries { attempts: 1, ..Tries::default() };
        let throttled = || Judgement::Throttled(outcome(), Some(500));
        assert_eq!(decide(throttled(), &mut tries, 0), Verdict::Again { at: Tick(500) });
        assert_eq!(tries.attempts, 1);
        let hour = 60 * 60_000;
        assert!(matches!(decide(throttled(), &mut tries, hour - 1), Verdict::Again { .. }));
        assert_eq!(decide(throttled(), &mut tries, hour), Verdict::Settle(outcome()));
    }

    #[test]
    fn a_retry_after_beyond_the_budget_waits_no_longer_than_the_budget() {
        let mut tries = Tries::default();
        let verdict = decide(Judgement::Throttled(outcome(), Some(u64::MAX)), &mut tries, 7);
        assert_eq!(verdict, Verdict::Again { at: Tick(7 + 60 * 60_000) });
    }

    #[test]
    fn a_broken_connection_is_tried_eight_times_or_a_quarter_of_an_hour() {
        let broken = || Judgement::RetryTransport(outcome());
        let mut tries = Tries::default();
        for _ in 1..8 {
            assert!(matches!(decide(broken(), &mut tries, 0), Verdict::Again { .. }));
        }
        assert_eq!(decide(broken(), &mut tries, 0), Verdict::Settle(outcome()));
        let mut slow = Tries::default();
        assert!(matches!(decide(broken(), &mut slow, 0), Verdict::Again { .. }));
        assert_eq!(decide(broken(), &mut slow, 15 * 60_000), Verdict::Settle(outcome()));
    }

    #[test]
    fn delays_grow_to_the_cap_and_no_further() {
        let backoff = Backoff { base_ms: 200, cap_ms: 1_000 };
        let mut random = Random::seeded(9);
        for n in [1, 2, 3, 10, 64, u32::MAX] {
            for _ in 0..100 {
                let delay = backoff.delay_ms(n, &mut random);
                assert!((1..1_000).contains(&delay) && (n > 1 || delay < 200));
            }
        }
    }
}
