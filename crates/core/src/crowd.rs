//! How many calls of a function at once are of use, where they are short and the processors are what they wait for.
//!
//! A runtime that has one short call after the other finds what it needs in the processor's caches. One of sixty-four in
//! turn finds what the sixty-three before it left there: the same handler took 31 microseconds of processor time a call in
//! four environments, and 147 in sixty-four. More calls at once than keep the processors busy then make a job slower, not
//! faster. Source: decision 0034.

/// What was seen of one function's runtimes in a span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// How long, in microseconds; not 0.
    pub span_us: u64,
    /// Calls that were answered in it.
    pub answered: u64,
    /// Calls that environments had at its end.
    pub under_way: u32,
    /// How long its runtimes had a processor, all together.
    pub cpu_us: u64,
    /// How long they had a processor or waited for one, all together.
    pub runnable_us: u64,
}

/// Calls are short if in ten milliseconds so many are answered a core. Where the processors are what they wait for that is
/// a call of 1.25 ms at most; caches that are cold then cost a tenth of it, and of a longer one less.
const SHORT_ANSWERS: u64 = 8;
const SHORT_SPAN_US: u64 = 10_000;
/// Calls that are held back already are not short any more if so many times fewer are answered: who else is on the machine
/// makes them slower at times, and to let all of them go then would be the worst.
const SHORT_NO_MORE: f64 = 8.0;
/// The part of the processors that the function's runtimes have to use. With less of it whoever else is on the machine is what
/// they wait for, and fewer of them would only have less.
const BUSY: f64 = 0.25;
/// Runtimes a core that have a processor or wait for one, on average: with fewer a core may be idle until the next call is
/// handed out, with more they only wait.
const RUNNABLE_A_CORE: f64 = 1.5;
/// So many times that have to be seen before calls are held back: a function that is just busy is left alone.
const CROWDED: f64 = 1.5;
/// A limit beyond this is none.
const LIMIT_MAX: f64 = 4_096.0;

/// One function's.
#[derive(Debug, Clone)]
pub struct Crowd {
    cores: f64,
    limit: Option<f64>,
}

impl Crowd {
    /// Of a machine with so many cores; at least one.
    pub fn new(cores: u32) -> Self {
        Self { cores: f64::from(cores.max(1)), limit: None }
    }

    /// Whether so many calls were answered that holding some back could be of use.
    pub fn are_short(&self, seen: Seen) -> bool {
        let spans = seen.span_us.max(1) as f64 / SHORT_SPAN_US as f64;
        let answers = SHORT_ANSWERS as f64 * self.cores * spans;
        seen.answered as f64 >= if self.limit.is_some() { answers / SHORT_NO_MORE } else { answers }
    }

    /// How many calls at once are of use from here on; `None` for any number. Never fewer than there are cores.
    pub fn look(&mut self, seen: Seen) -> Option<u32> {
        if !self.are_short(seen) {
            self.limit = None;
            return None;
        }
        let span_us = seen.span_us.max(1) as f64;
        let (cpu, runnable) = (seen.cpu_us as f64 / span_us, seen.runnable_us as f64 / span_us);
        let (busy, wanted) = (cpu >= self.cores * BUSY, self.cores * RUNNABLE_A_CORE);
        // Where the processors are what calls wait for, each call more is one that waits more, and each less one less: what
        // is too much is taken off as it is. Below that a call more is one that runs more.
        let limit = match self.limit {
            None if !busy || runnable <= wanted * CROWDED => return None,
            None => f64::from(seen.under_way) - (runnable - wanted),
            Some(limit) if !busy || runnable < wanted / 2.0 => limit * 2.0,
            Some(limit) => limit - (runnable - wanted) / 2.0,
        };
        let limit = limit.max(self.cores);
        self.limit = Some(limit).filter(|limit| *limit < LIMIT_MAX);
        // Positive, and bounded above.
        self.limit.map(|limit| limit.round() as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A function on a machine of two cores, of which `ours` are not taken by others: sixty-four of its calls at once are wanted,
    /// each takes `cpu_us` of a core and waits `waits_us` besides.
    struct Machine {
        ours: f64,
        cpu_us: f64,
        waits_us: f64,
    }

    impl Machine {
        fn per_s(&self, at_once: f64) -> f64 {
            (at_once / (self.cpu_us + self.waits_us)).min(self.ours / self.cpu_us) * 1e6
        }

        /// Looks every ten milliseconds. Returns the limits, a look each, and what part of the calls the least was that ran.
        fn looks(&self, crowd: &mut Crowd, looks: usize) -> (Vec<Option<u32>>, f64) {
            let (mut limits, mut least) = (Vec::new(), 1.0_f64);
            for _ in 0..looks {
                let at_once = f64::from(limits.last().copied().flatten().unwrap_or(64).min(64));
                let per_s = self.per_s(at_once);
                least = least.min(per_s / self.per_s(64.0));
                limits.push(crowd.look(Seen {
                    span_us: 10_000,
                    answered: (per_s / 100.0) as u64,
                    under_way: at_once as u32,
                    cpu_us: (per_s * self.cpu_us / 100.0) as u64,
                    runnable_us: ((at_once - per_s * self.waits_us / 1e6).max(0.0) * 10_000.0) as u64,
                }));
            }
            (limits, least)
        }
    }

    #[test]
    fn short_calls_that_wait_for_processors_are_held_back_to_what_keeps_these_busy() {
        for (cpu_us, waits_us, low, high) in
            [(30.0, 0.0, 2, 4), (30.0, 60.0, 6, 10), (300.0, 0.0, 2, 4), (500.0, 10_000.0, 40, 46)]
        {
            let machine = Machine { ours: 2.0, cpu_us, waits_us };
            let (limits, least) = machine.looks(&mut Crowd::new(2), 20);
            assert!(limits[0].is_some_and(|limit| limit <= high), "at once: {limits:?}");
            assert!(limits[10..].iter().all(|limit| (low..=high).contains(&limit.unwrap())), "{cpu_us}: {limits:?}");
            assert!(least > 0.95, "{least} of the calls, {cpu_us} {waits_us}: {limits:?}");
        }
    }

    #[test]
    fn calls_that_wait_for_something_else_or_are_long_are_never_held_back() {
        // The second is of a function that needs nearly both cores; the last waits for processors that others have.
        for (ours, cpu_us, waits_us) in [
            (2.0, 30.0, 10_000.0),
            (2.0, 200.0, 6_400.0),
            (2.0, 2_000.0, 0.0),
            (2.0, 1_000_000.0, 0.0),
            (0.4, 40.0, 1_000.0),
        ] {
            let (limits, least) = Machine { ours, cpu_us, waits_us }.looks(&mut Crowd::new(2), 20);
            assert!(limits.iter().all(Option::is_none) && least == 1.0, "{cpu_us} {waits_us}: {limits:?}");
        }
    }

    #[test]
    fn calls_that_turn_from_short_ones_into_such_that_wait_are_let_go_within_a_few_looks() {
        for (ours, cpu_us, waits_us) in [(2.0, 30.0, 1_500.0), (2.0, 30.0, 10_000.0), (0.4, 30.0, 0.0)] {
            let mut crowd = Crowd::new(2);
            let before = Machine { ours: 2.0, cpu_us: 30.0, waits_us: 0.0 };
            assert!(before.looks(&mut crowd, 20).0[19].is_some_and(|limit| limit < 5));
            let (limits, _) = Machine { ours, cpu_us, waits_us }.looks(&mut crowd, 10);
            assert!(limits[9].is_none_or(|limit| limit >= 48), "{waits_us}: {limits:?}");
        }
    }

    #[test]
    fn calls_that_others_make_slower_stay_held_back_until_they_are_long() {
        let mut crowd = Crowd::new(2);
        let mut look = |answered| {
            crowd
                .look(Seen { span_us: 10_000, answered, under_way: 64, cpu_us: 20_000, runnable_us: 64 * 10_000 })
                .is_some()
        };
        let held = [15, 16, 15, 2, 1, 15, 16].map(&mut look);
        assert_eq!(held, [false, true, true, true, false, false, true]);
    }

    #[test]
    fn a_function_that_is_busy_and_not_crowded_is_left_alone_and_one_core_is_enough_for_a_limit() {
        let look = |crowd: &mut Crowd, runnable: u64| {
            crowd.look(Seen {
                span_us: 10_000,
                answered: 300,
                under_way: 8,
                cpu_us: 20_000,
                runnable_us: runnable * 10_000,
            })
        };
        assert_eq!(look(&mut Crowd::new(2), 4), None);
        assert_eq!(look(&mut Crowd::new(2), 8), Some(3));
        assert_eq!(look(&mut Crowd::new(4), 8), None);
        assert_eq!(look(&mut Crowd::new(0), 8), Some(2));
        let mut crowd = Crowd::new(2);
        assert!((0..40).filter_map(|_| look(&mut crowd, 64)).all(|limit| limit >= 2), "a core each is never too many");
    }
}
