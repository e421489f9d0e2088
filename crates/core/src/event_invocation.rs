//! Asynchronous invocations (Lambda's type `Event`): how many may wait, which runs next, and what follows a try.
//!
//! Time is that of the queue's own clock, which goes on only while a server runs: neither a wall clock that is set
//! nor a server that was off for a week makes an event old. Source: Lambda spec 2.7, decision 0020.

use std::collections::{BTreeMap, BTreeSet};

use crate::time::Tick;

/// What an event may go through. Times in milliseconds. First values: AWS's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The waits before an event runs again whose function failed, one a retry.
    pub retry_ms: [u64; RETRIES_MAX as usize],
    /// The wait after the first try that did not reach the function; it doubles each time, up to the cap.
    pub backoff_ms: u64,
    pub backoff_ms_max: u64,
}

/// Retries of a function that failed, at most. Source: the model of `MaximumRetryAttempts`.
pub const RETRIES_MAX: u32 = 2;
/// How old an event may be and still run, if nothing else was asked for: 6 hours.
pub const AGE_MS_MAX: u64 = 6 * 60 * 60_000;

impl Default for Policy {
    fn default() -> Self {
        Self::with_retry_ms(60_000)
    }
}

/// What may be asked for, for a function or one of its versions or aliases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// `MaximumRetryAttempts`, at most [`RETRIES_MAX`].
    pub retries_max: u32,
    /// `MaximumEventAgeInSeconds`, in milliseconds.
    pub age_ms_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { retries_max: RETRIES_MAX, age_ms_max: AGE_MS_MAX }
    }
}

impl Limits {
    /// Whether an event is too old to run. One of exactly the age still runs: that is its last try.
    pub fn are_exceeded(&self, accepted: Tick, now: Tick) -> bool {
        now.since_ms(accepted) > self.age_ms_max
    }
}

/// What one event has been through so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tries {
    /// Tries in which the function failed.
    pub function_errors: u32,
    /// Tries in a row that did not reach the function.
    pub faults: u32,
}

/// What came of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Succeeded,
    /// The function threw, timed out or died.
    FunctionError,
    /// It was throttled, or the host failed: nothing that the event could help.
    NotRun,
    /// Trying again would change nothing.
    Refused(Reason),
}

/// Why an event is dropped. The first three are AWS's words for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    RetriesExhausted,
    EventAgeExceeded,
    ZeroReservedConcurrency,
    /// The function, or the version or alias that was invoked, is not there any more.
    FunctionNotFound,
    /// Invoke itself would refuse it for good.
    Refused,
}

impl Reason {
    /// As AWS spells it, where it does.
    pub fn name(self) -> &'static str {
        match self {
            Self::RetriesExhausted => "RetriesExhausted",
            Self::EventAgeExceeded => "EventAgeExceeded",
            Self::ZeroReservedConcurrency => "ZeroReservedConcurrency",
            Self::FunctionNotFound => "FunctionNotFound",
            Self::Refused => "Refused",
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What follows a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Done,
    /// Another try, not before then.
    Again {
        due: Tick,
    },
    Drop(Reason),
}

impl Policy {
    /// AWS's policy with another wait before the first retry; the second wait is twice that, as on AWS.
    pub fn with_retry_ms(retry_ms: u64) -> Self {
        Self { retry_ms: [retry_ms, retry_ms.saturating_mul(2)], backoff_ms: 1_000, backoff_ms_max: 5 * 60_000 }
    }

    /// Decides what follows a try, and notes it in `tries`. Never fails.
    ///
    /// A try that did not reach the function costs none of its retries. The last such try comes when the event is as old
    /// as it may be; a retry of a function that failed would come after its minutes or not at all.
    pub fn after(&self, outcome: Outcome, tries: &mut Tries, limits: Limits, accepted: Tick, now: Tick) -> Verdict {
        match outcome {
            Outcome::Succeeded => Verdict::Done,
            Outcome::Refused(reason) => Verdict::Drop(reason),
            Outcome::FunctionError => {
                let retry = tries.function_errors;
                tries.function_errors = tries.function_errors.saturating_add(1);
                tries.faults = 0;
                if retry >= limits.retries_max.min(RETRIES_MAX) {
                    return Verdict::Drop(Reason::RetriesExhausted);
                }
                let due = now.after_ms(self.retry_ms[retry as usize]);
                if limits.are_exceeded(accepted, due) {
                    return Verdict::Drop(Reason::EventAgeExceeded);
                }
                Verdict::Again { due }
            }
            Outcome::NotRun => {
                let left_ms = limits.age_ms_max.saturating_sub(now.since_ms(accepted));
                if left_ms == 0 {
                    return Verdict::Drop(Reason::EventAgeExceeded);
                }
                let doubled = self.backoff_ms.saturating_mul(1 << tries.faults.min(40));
                tries.faults = tries.faults.saturating_add(1);
                Verdict::Again { due: now.after_ms(doubled.min(self.backoff_ms_max).min(left_ms)) }
            }
        }
    }
}

/// How many events may wait and run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Events, and bytes of their payloads, that are accepted and not done. Half of either is one function's share.
    pub events_max: usize,
    pub bytes_max: u64,
    /// Events that run at once, all functions together.
    pub running_max: usize,
}

/// An event as far as its turn depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    pub accepted: Tick,
    /// When it is its turn at the earliest.
    pub due: Tick,
    /// Of its payload.
    pub bytes: u64,
    pub tries: Tries,
}

/// No room for another event: of all, or of this function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// The events of all functions, each in the lane of its function `K`, under numbers that rise as they are accepted.
///
/// ```text
/// admit ──> put ──> waiting ── next ──> running ── done, dropped ──> gone
///   │                  ^                   │
///   └─ withdraw        └────── again ──────┘
/// ```
#[derive(Debug)]
pub struct Queue<K> {
    bounds: Bounds,
    lanes: BTreeMap<K, Lane>,
    /// Of all lanes, what is only admitted included.
    events: usize,
    bytes: u64,
    running: usize,
    /// The lane that had its turn last.
    last: Option<K>,
}

#[derive(Debug, Default)]
struct Lane {
    waiting: BTreeSet<(Tick, u64)>,
    /// Those that wait and those that run.
    known: BTreeMap<u64, Event>,
    events: usize,
    bytes: u64,
    running: usize,
}

impl<K: Ord + Clone> Queue<K> {
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, lanes: BTreeMap::new(), events: 0, bytes: 0, running: 0, last: None }
    }

    /// Makes room for an event that is about to be stored. Nobody's events take all of it: what one function fails to
    /// work off must not keep others from being accepted.
    pub fn admit(&mut self, function: &K, bytes: u64) -> Result<(), Full> {
        let fits = |events: usize, sum: u64, share: u64| {
            (events as u64) < (self.bounds.events_max as u64).div_ceil(share)
                && sum.saturating_add(bytes) <= self.bounds.bytes_max.div_ceil(share)
        };
        let (events, sum) = self.lanes.get(function).map_or((0, 0), |lane| (lane.events, lane.bytes));
        if !fits(self.events, self.bytes, 1) || !fits(events, sum, 2) {
            return Err(Full);
        }
        self.count(function, bytes);
        Ok(())
    }

    /// Takes an event back that was admitted and could not be stored.
    pub fn withdraw(&mut self, function: &K, bytes: u64) {
        self.uncount(function, bytes);
    }

    /// An event that was admitted is stored: it waits for its turn.
    pub fn put(&mut self, function: &K, number: u64, event: Event) {
        let lane = self.lanes.entry(function.clone()).or_default();
        lane.waiting.insert((event.due, number));
        lane.known.insert(number, event);
    }

    /// An event that was stored by an earlier server. There is room for it whatever the bounds are now.
    pub fn restore(&mut self, function: &K, number: u64, event: Event) {
        self.count(function, event.bytes);
        self.put(function, number, event);
    }

    /// The next event to run now, if there is one; it is running from here on, until [`Queue::settle`].
    ///
    /// Lanes take turns, and in a lane the event that is due longest comes first. `slots` says how many events of a
    /// function could run at once if it were alone. Each lane may have one running. More are given to it as long as it
    /// has less than its share of its slots, which it divides with the lanes there are and with one that may come:
    /// so functions that take long never fill the machine before another had its turn.
    pub fn next(&mut self, now: Tick, slots: impl Fn(&K) -> u32) -> Option<(K, u64)> {
        if self.running >= self.bounds.running_max {
            return None;
        }
        let sharing = self.lanes.values().filter(|lane| !lane.known.is_empty()).count() + 1;
        let ready = |(function, lane): &(&K, &Lane)| {
            lane.waiting.first().is_some_and(|(due, _)| *due <= now)
                && (lane.running == 0 || lane.running < slots(function) as usize / sharing)
        };
        use std::ops::Bound::{Excluded, Unbounded};
        let from = self.last.as_ref().map_or(Unbounded, Excluded);
        let function = match self.lanes.range((from, Unbounded)).find(ready) {
            Some((function, _)) => function.clone(),
            None => self.lanes.iter().find(ready)?.0.clone(),
        };
        let lane = self.lanes.get_mut(&function)?;
        let (_, number) = lane.waiting.pop_first()?;
        lane.running += 1;
        self.running += 1;
        self.last = Some(function.clone());
        Some((function, number))
    }

    /// An event of this function, if it waits or runs.
    pub fn event(&self, function: &K, number: u64) -> Option<Event> {
        self.lanes.get(function)?.known.get(&number).copied()
    }

    /// What follows the try of a running event is decided, and stored.
    pub fn settle(&mut self, function: &K, number: u64, tries: Tries, verdict: Verdict) {
        let Some(lane) = self.lanes.get_mut(function) else { return };
        let Some(event) = lane.known.get_mut(&number) else { return };
        lane.running -= 1;
        self.running -= 1;
        match verdict {
            Verdict::Again { due } => {
                (event.due, event.tries) = (due, tries);
                lane.waiting.insert((due, number));
            }
            Verdict::Done | Verdict::Drop(_) => {
                let bytes = event.bytes;
                lane.known.remove(&number);
                self.uncount(function, bytes);
            }
        }
    }

    /// Takes out every event of a function that waits, whenever it is due. Those that run end as they end.
    pub fn take_waiting(&mut self, function: &K) -> Vec<u64> {
        let Some(lane) = self.lanes.get_mut(function) else { return Vec::new() };
        let numbers: Vec<u64> = std::mem::take(&mut lane.waiting).into_iter().map(|(_, number)| number).collect();
        let sizes: Vec<u64> = numbers.iter().filter_map(|number| lane.known.remove(number)).map(|e| e.bytes).collect();
        for bytes in sizes {
            self.uncount(function, bytes);
        }
        numbers
    }

    /// When the next event is due that is not due yet. One that is due and not given out waits for one that runs.
    pub fn wake_at(&self, now: Tick) -> Option<Tick> {
        use std::ops::Bound::{Excluded, Unbounded};
        let next = |lane: &Lane| lane.waiting.range((Excluded((now, u64::MAX)), Unbounded)).next().map(|(due, _)| *due);
        self.lanes.values().filter_map(next).min()
    }

    /// Events that were accepted and are not done.
    pub fn len(&self) -> usize {
        self.events
    }

    pub fn is_empty(&self) -> bool {
        self.events == 0
    }

    pub fn running(&self) -> usize {
        self.running
    }

    fn count(&mut self, function: &K, bytes: u64) {
        let lane = self.lanes.entry(function.clone()).or_default();
        lane.events += 1;
        lane.bytes += bytes;
        self.events += 1;
        self.bytes += bytes;
    }

    fn uncount(&mut self, function: &K, bytes: u64) {
        let Some(lane) = self.lanes.get_mut(function) else { return };
        lane.events -= 1;
        lane.bytes -= bytes;
        self.events -= 1;
        self.bytes -= bytes;
        if lane.events == 0 {
            self.lanes.remove(function);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    const MINUTE: u64 = 60_000;
    const BOUNDS: Bounds = Bounds { events_max: 100, bytes_max: 1_000, running_max: 64 };

    /// Verdicts on one outcome again and again, each at the time that the one before named; the last one ends it.
    fn course(outcome: Outcome, limits: Limits) -> Vec<Verdict> {
        let (accepted, mut now, mut tries) = (Tick(7), Tick(7), Tries::default());
        let mut verdicts = Vec::new();
        loop {
            let verdict = Policy::default().after(outcome, &mut tries, limits, accepted, now);
            verdicts.push(verdict);
            match verdict {
                Verdict::Again { due } => now = due,
                _ => return verdicts,
            }
        }
    }

    #[test]
    fn a_function_that_fails_is_tried_again_after_one_minute_and_after_two_more() {
        let again = |due| Verdict::Again { due: Tick(7 + due) };
        let out = Verdict::Drop(Reason::RetriesExhausted);
        let old = Verdict::Drop(Reason::EventAgeExceeded);
        for (retries_max, age_s, wanted) in [
            (2, 21_600, vec![again(MINUTE), again(3 * MINUTE), out]),
            (1, 21_600, vec![again(MINUTE), out]),
            (0, 21_600, vec![out]),
            // The model allows no more, and neither does the policy.
            (9, 21_600, vec![again(MINUTE), again(3 * MINUTE), out]),
            (2, 180, vec![again(MINUTE), again(3 * MINUTE), out]),
            (2, 179, vec![again(MINUTE), old]),
            (2, 60, vec![again(MINUTE), old]),
        ] {
            let limits = Limits { retries_max, age_ms_max: age_s * 1_000 };
            assert_eq!(course(Outcome::FunctionError, limits), wanted, "{limits:?}");
        }
    }

    #[test]
    fn what_is_not_run_is_tried_with_growing_pauses_until_the_event_is_too_old() {
        let limits = Limits::default();
        let verdicts = course(Outcome::NotRun, limits);
        let dues: Vec<u64> = verdicts
            .iter()
            .filter_map(|v| if let Verdict::Again { due } = v { Some(due.0 - 7) } else { None })
            .collect();
        let waits: Vec<u64> = std::iter::once(dues[0]).chain(dues.windows(2).map(|pair| pair[1] - pair[0])).collect();
        assert_eq!(waits[..10], [1, 2, 4, 8, 16, 32, 64, 128, 256, 300].map(|s| s * 1_000));
        assert!(waits[10..waits.len() - 1].iter().all(|wait| *wait == 5 * MINUTE));
        assert_eq!(dues.last(), Some(&limits.age_ms_max), "the last try comes when its time is up");
        assert_eq!(verdicts.last(), Some(&Verdict::Drop(Reason::EventAgeExceeded)));
        assert!(!limits.are_exceeded(Tick(7), Tick(7 + limits.age_ms_max)));
        assert!(limits.are_exceeded(Tick(7), Tick(8 + limits.age_ms_max)));
    }

    #[test]
    fn throttles_cost_no_retry_and_a_try_that_reached_the_function_starts_the_pauses_anew() {
        let (policy, limits, mut tries) = (Policy::default(), Limits::default(), Tries::default());
        let mut after = |outcome, now| policy.after(outcome, &mut tries, limits, Tick(0), Tick(now));
        assert_eq!(after(Outcome::NotRun, 0), Verdict::Again { due: Tick(1_000) });
        assert_eq!(after(Outcome::NotRun, 1_000), Verdict::Again { due: Tick(3_000) });
        assert_eq!(after(Outcome::FunctionError, 3_000), Verdict::Again { due: Tick(63_000) });
        assert_eq!(after(Outcome::NotRun, 63_000), Verdict::Again { due: Tick(64_000) });
        assert_eq!(after(Outcome::FunctionError, 64_000), Verdict::Again { due: Tick(184_000) });
        assert_eq!(after(Outcome::FunctionError, 184_000), Verdict::Drop(Reason::RetriesExhausted));
        assert_eq!(tries, Tries { function_errors: 3, faults: 0 });
    }

    #[test]
    fn success_ends_an_event_and_what_would_not_change_drops_it() {
        let mut tries = Tries::default();
        let mut after = |outcome| Policy::default().after(outcome, &mut tries, Limits::default(), Tick(0), Tick(1));
        assert_eq!(after(Outcome::Succeeded), Verdict::Done);
        for reason in [Reason::ZeroReservedConcurrency, Reason::FunctionNotFound, Reason::Refused] {
            assert_eq!(after(Outcome::Refused(reason)), Verdict::Drop(reason));
        }
    }

    fn event(due: u64, bytes: u64) -> Event {
        Event { accepted: Tick(0), due: Tick(due), bytes, tries: Tries::default() }
    }

    fn queue_of(events: &[(&'static str, u64)]) -> Queue<&'static str> {
        let mut queue = Queue::new(BOUNDS);
        for (number, (function, due)) in events.iter().enumerate() {
            queue.admit(function, 1).unwrap();
            queue.put(function, number as u64, event(*due, 1));
        }
        queue
    }

    #[test]
    fn one_function_has_half_of_the_room_and_all_together_have_no_more_than_all() {
        let mut queue = Queue::new(Bounds { events_max: 4, bytes_max: 100, ..BOUNDS });
        assert_eq!(queue.admit(&"a", 51), Err(Full), "half of the bytes");
        queue.admit(&"a", 50).unwrap();
        assert_eq!(queue.admit(&"a", 1), Err(Full));
        queue.admit(&"a", 0).unwrap();
        assert_eq!(queue.admit(&"a", 0), Err(Full), "half of the events");
        queue.admit(&"b", 50).unwrap();
        assert_eq!(queue.admit(&"c", 1), Err(Full), "all of the bytes");
        queue.admit(&"c", 0).unwrap();
        assert_eq!(queue.admit(&"d", 0), Err(Full), "all of the events");
        queue.withdraw(&"a", 50);
        queue.admit(&"d", 50).unwrap();
        queue.restore(&"e", 1, event(0, 1_000));
        assert_eq!(queue.len(), 5, "what is on disk is kept, whatever the bounds are");
    }

    #[test]
    fn what_is_due_longest_runs_first_and_nothing_runs_before_it_is_due() {
        let mut queue = queue_of(&[("a", 30), ("a", 10), ("a", 10)]);
        assert_eq!((queue.next(Tick(9), |_| 10), queue.wake_at(Tick(9))), (None, Some(Tick(10))));
        assert_eq!(queue.next(Tick(10), |_| 10), Some(("a", 1)));
        assert_eq!(queue.next(Tick(10), |_| 10), Some(("a", 2)));
        assert_eq!((queue.next(Tick(10), |_| 10), queue.wake_at(Tick(10))), (None, Some(Tick(30))));
        queue.settle(&"a", 1, Tries { function_errors: 1, faults: 0 }, Verdict::Again { due: Tick(20) });
        assert_eq!(queue.event(&"a", 1).map(|e| e.tries.function_errors), Some(1));
        assert_eq!(queue.next(Tick(40), |_| 10), Some(("a", 1)));
    }

    #[test]
    fn a_function_that_takes_long_leaves_room_for_another_and_functions_take_turns() {
        let mut queue = queue_of(&[("slow", 0); 20]);
        let running = |queue: &mut Queue<_>| {
            std::iter::from_fn(|| queue.next(Tick(0), |_| 8)).map(|(k, _)| k).collect::<Vec<_>>()
        };
        assert_eq!(running(&mut queue), ["slow"; 4], "half, as long as it is alone");
        for (number, function) in [(100, "quick"), (101, "quick"), (102, "quick"), (103, "other")] {
            queue.admit(&function, 1).unwrap();
            queue.put(&function, number, event(0, 1));
        }
        assert_eq!(running(&mut queue), ["other", "quick", "quick"], "a quarter each, where there are three");
        queue.settle(&"quick", 100, Tries::default(), Verdict::Done);
        assert_eq!(running(&mut queue), ["quick"], "the slow one has more than its share already");
        assert_eq!(queue.running(), 7);
    }

    #[test]
    fn a_function_always_has_one_event_of_its_own_running() {
        let mut queue = queue_of(&[("a", 0), ("a", 0), ("b", 0), ("c", 0)]);
        let started: Vec<_> = std::iter::from_fn(|| queue.next(Tick(0), |_| 1)).collect();
        assert_eq!(started, [("a", 0), ("b", 2), ("c", 3)]);
    }

    #[test]
    fn no_more_run_at_once_than_may() {
        let mut queue = queue_of(&[("a", 0), ("b", 0), ("c", 0)]);
        queue.bounds.running_max = 2;
        assert_eq!(std::iter::from_fn(|| queue.next(Tick(0), |_| 8)).count(), 2);
        queue.settle(&"a", 0, Tries::default(), Verdict::Drop(Reason::RetriesExhausted));
        assert_eq!(queue.next(Tick(0), |_| 8), Some(("c", 2)));
    }

    #[test]
    fn what_waits_for_a_function_that_is_gone_is_taken_out_at_once() {
        let mut queue = queue_of(&[("a", 0), ("a", 0), ("a", 900), ("b", 0)]);
        assert_eq!(queue.next(Tick(0), |_| 1), Some(("a", 0)));
        assert_eq!(queue.take_waiting(&"a"), [1, 2]);
        assert_eq!((queue.len(), queue.running()), (2, 1));
        queue.settle(&"a", 0, Tries::default(), Verdict::Done);
        assert_eq!((queue.take_waiting(&"a"), queue.len()), (vec![], 1));
    }

    #[test]
    fn every_event_is_done_or_dropped_exactly_once_whatever_comes_of_its_tries() {
        for seed in 0..200 {
            let mut random = Random::seeded(seed);
            let bounds = Bounds { events_max: 40, bytes_max: 400, running_max: 6 };
            let (policy, mut queue, mut now) = (Policy::default(), Queue::new(bounds), Tick(0));
            let (mut accepted, mut ended, mut running) = (0_u64, BTreeSet::new(), Vec::new());
            let mut refused = 0;
            while accepted < 60 || !queue.is_empty() {
                if accepted < 60 && random.one_in(2) {
                    let (function, bytes) = (random.below(4), random.below(20));
                    match queue.admit(&function, bytes) {
                        Ok(()) => {
                            let tries = Tries::default();
                            queue.put(&function, accepted, Event { accepted: now, due: now, bytes, tries });
                            accepted += 1;
                        }
                        Err(Full) => refused += 1,
                    }
                }
                while let Some(started) = queue.next(now, |_| 8) {
                    running.push(started);
                }
                assert!(queue.running() == running.len() && running.len() <= bounds.running_max, "seed {seed}");
                assert!(queue.len() <= bounds.events_max && queue.bytes <= bounds.bytes_max, "seed {seed}");
                if !running.is_empty() && !random.one_in(3) {
                    let (function, number) = running.swap_remove(random.below(running.len() as u64) as usize);
                    let event = queue.event(&function, number).expect("what runs is known");
                    let outcome = match random.below(5) {
                        0 | 1 => Outcome::Succeeded,
                        2 => Outcome::FunctionError,
                        3 => Outcome::NotRun,
                        _ => Outcome::Refused(Reason::Refused),
                    };
                    let mut tries = event.tries;
                    let verdict = policy.after(outcome, &mut tries, Limits::default(), event.accepted, now);
                    if !matches!(verdict, Verdict::Again { .. }) {
                        assert!(ended.insert(number), "seed {seed}: event {number} ended twice");
                    }
                    queue.settle(&function, number, tries, verdict);
                } else if let Some(wake_at) = queue.wake_at(now).filter(|_| running.is_empty()) {
                    assert!(wake_at > now, "seed {seed}");
                    now = wake_at;
                }
            }
            assert_eq!(ended.len() as u64, accepted, "seed {seed}");
            assert!((queue.bytes, queue.running(), queue.lanes.len()) == (0, 0, 0), "seed {seed}");
            assert!(refused < 1_000, "seed {seed}");
        }
    }
}
