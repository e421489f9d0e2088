//! One job in motion: events in, effects out.
//!
//! The engine takes effects until there are none, waits for a completion, a command or [`Run::wake_at`], and hands it
//! back. Nothing is invoked twice unless a crash, a throttle or a retry says so, and nothing counts before it is
//! durable:
//!
//! ```text
//! rows read ─► ready ─► in flight ─► answered ─► being recorded ─► counted
//!                ▲          │
//!                └─ waiting ┘   (redrive: only once its record is durable; throttle, transport: after a delay)
//! ```

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use roaring::RoaringTreemap;

use crate::counted::Counted;
use crate::dispatch::{Pace, Paced, Ramp, RampSettings};
use crate::figures::{Call, Figures};
use crate::histogram::Histogram;
use crate::invocation::{Judgement, Reply, judge};
pub use crate::past::Past;
use crate::random::Random;
use crate::record::Entries;
use crate::retry::{Policy, Tries, Verdict};
use crate::task::{Outcome, Task, TaskIds, VersionId};
use crate::threshold::Threshold;
use crate::time::Tick;

/// What holds for a job from start to end.
#[derive(Debug, Clone)]
pub struct Settings {
    pub ramp: RampSettings,
    pub retry: Policy,
    pub threshold: Threshold,
    /// W: answers received and not yet durable, at which dispatch waits. A crash repeats at most these and what is
    /// in flight (promise X4); usually what came within [`Settings::gather_ms`], and W only while the disk stalls: half a
    /// second of it at 100,000 tasks a second. Their memory is bounded apart, by [`UNRECORDED_BYTES_MAX`]. Decision 0031.
    pub unrecorded_max: usize,
    /// A slot is free only when its result is durable: W is 0.
    pub strict: bool,
    /// While calls are in flight, the least time between two batches that are not full, in milliseconds. A sync costs
    /// the processor some 300 µs whatever is in it: one after the other they took a quarter of a fast job's time. A
    /// crash repeats what was gathered, which is within W. 0: each batch as soon as the last one is durable.
    pub gather_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ramp: RampSettings::default(),
            retry: Policy::default(),
            threshold: Threshold::default(),
            unrecorded_max: 65_536,
            strict: false,
            gather_ms: 10,
        }
    }
}

/// Which rows a run is to bring to their results.
#[derive(Debug, Clone)]
pub struct Extent {
    /// Rows that can be read.
    rows_total: u64,
    /// Whether the manifest ends there; otherwise [`Event::RowsKnown`] says how it goes on.
    whole: bool,
    /// These alone, if it is a sample.
    sample: Option<RoaringTreemap>,
}

impl Extent {
    /// A manifest of so many rows, from end to end.
    pub fn all(rows_total: u64) -> Self {
        Self { rows_total, whole: true, sample: None }
    }

    /// Of a manifest of so many rows those in `drawn`, and no other.
    pub fn sample(rows_total: u64, drawn: RoaringTreemap) -> Self {
        Self { rows_total, whole: true, sample: Some(drawn) }
    }

    /// A manifest that is still being checked, of which nothing is known yet.
    pub fn growing() -> Self {
        Self { rows_total: 0, whole: false, sample: None }
    }
}

/// What the world tells the run.
#[derive(Debug)]
pub enum Event {
    /// Rows that [`Effect::Read`] asked for, in order; fewer than asked means the manifest's end.
    Rows(Vec<Task>),
    /// The manifest has been checked up to here, always at a chunk's edge or its end.
    RowsKnown {
        rows_total: u64,
        whole: bool,
    },
    /// One call is over. An invocation that is not in flight (twice answered, or answered after it was given up) is
    /// ignored.
    Answered {
        invocation: u64,
        reply: Reply,
    },
    /// Everything up to this batch is durable.
    Recorded {
        batch: u64,
    },
    /// The batch is not durable and may be written again: the disk was full.
    NotRecorded {
        batch: u64,
    },
    /// How many invocations the function and the server allow this job now.
    Slots(u32),
    Command(Command),
    /// Nothing but time has passed.
    Woken,
}

/// What the job's status asks of its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Start nothing new and come to rest. The job goes on with a new run, made from the log.
    Pause,
    /// Start nothing new; what waits for a redrive fails with its last error.
    Cancel,
    /// As [`Command::Cancel`], because the job has failed: its manifest cannot be read any more.
    Fail,
}

/// What the run asks of the world.
#[derive(Debug)]
pub enum Effect {
    /// Read `rows_max` rows from `first_row`.
    Read { first_row: u64, rows_max: u64 },
    /// Call the function. `attempt` counts from 1.
    Invoke { invocation: u64, task: Arc<Task>, attempt: u32 },
    /// Make these durable, then say [`Event::Recorded`]. One batch at a time.
    Record { batch: u64, entries: Arc<Entries> },
    /// Nothing is in flight and everything is recorded.
    Ended(Ended),
}

/// How a run came to rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Every row has its final result.
    Finished,
    /// Every row of the sample has its final result, and there are others.
    Sampled,
    Paused,
    Cancelled,
    /// Too many tasks failed, or [`Command::Fail`].
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Pausing,
    Cancelling,
    Failing,
    Ended,
}

#[derive(Debug)]
struct Pending {
    task: Arc<Task>,
    tries: Tries,
    clock: Clock,
}

impl Pending {
    /// What it takes while it waits: its key and what was last said of it are most of it. Neither changes meanwhile.
    fn bytes(&self) -> usize {
        let last = self.tries.last.as_ref().map_or(0, |last| last.error_code.len() + last.message.len());
        size_of::<Waiting>() + size_of::<Task>() + self.task.key.len() + last
    }
}

/// What is known of a task's times.
#[derive(Debug, Clone, Copy, Default)]
struct Clock {
    /// When it was dispatched first, by this run.
    began: Option<Tick>,
    again: bool,
    /// Of the call that is being answered, as [`Run::took`] was told.
    took: Option<Took>,
}

/// How long a call took, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Took {
    /// Since it was asked for: with the wait for its turn.
    pub since_asked_us: u64,
    /// From the call to its answer.
    pub call_us: u64,
}

impl Clock {
    /// From its first dispatch to `now`, as its answer comes that settles it; `None` if nobody told how long that took.
    /// To the microsecond for a task that was dispatched once; the waits between further dispatches are in milliseconds.
    fn all_us(self, now: Tick) -> Option<u64> {
        let took = self.took?;
        let began = self.began.filter(|_| self.again);
        Some(began.map_or(took.since_asked_us, |began| (now.since_ms(began) * 1_000).max(took.since_asked_us)))
    }
}

/// A task that was called, and when.
#[derive(Debug)]
struct Flight {
    pending: Pending,
    since: Tick,
    paced: Paced,
}

/// A task that is called again later.
#[derive(Debug)]
struct Waiting {
    pending: Pending,
    /// The batch of its attempt's record, which has to be durable first; 0 where there is none.
    batch: u64,
    /// Whether no other task may take its place among those in flight meanwhile.
    keeps_place: bool,
}

/// By a row or an invocation: numbers that we count ourselves, so that nobody can choose them to fall together.
type ByNumber<T> = HashMap<u64, T, BuildHasherDefault<Spread>>;

/// Spreads a number over all bits by one multiplication (Fibonacci hashing); the usual hasher costs ten times as much.
#[derive(Debug, Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn write_u64(&mut self, number: u64) {
        self.0 = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 ^= self.0 >> 32;
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 ^ u64::from(*byte));
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// See the module.
#[derive(Debug)]
pub struct Run {
    ids: TaskIds,
    settings: Settings,
    phase: Phase,
    ramp: Ramp,
    pace: Pace,
    random: Random,
    /// What the function and the server allow; the ramp may allow less.
    slots: u32,

    rows_total: u64,
    whole: bool,
    next_row: u64,
    /// Of a sample, the rows that have no final result and were not read yet.
    sample: Option<RoaringTreemap>,
    reading: bool,
    past: Past,

    ready: VecDeque<Pending>,
    /// Rows not to be called before a time; those of a redrive not before their record is durable either.
    waiting: ByNumber<Waiting>,
    /// What those take, as [`Pending::bytes`] has it.
    waiting_bytes: usize,
    /// Of those that wait, how many keep their place: see [`Run::throttled`].
    places_kept: usize,
    due: BinaryHeap<Reverse<(Tick, u64)>>,
    in_flight: ByNumber<Flight>,
    next_invocation: u64,

    /// The next batches, in this order: those that are full, of which there are only while the disk is slow, and the one
    /// that gathers. The one in `recording` is with the engine.
    full: VecDeque<Entries>,
    gathering: Entries,
    recording: Option<(u64, Arc<Entries>)>,
    /// Entries in all of these, and their bytes.
    unrecorded: usize,
    unrecorded_bytes: usize,
    /// Memory for the batch after the one that gathers.
    spare: Entries,
    /// A batch that came back is handed out again at this time. A moment, not a distance from now: events that come
    /// more often than the distance is long would put it off for ever.
    unwritten: Option<Tick>,
    /// Until then a batch that is not full gathers. None before the first one.
    gathers_until: Option<Tick>,
    batch: u64,

    succeeded: u64,
    failed: u64,
    succeeded_durable: u64,
    failed_durable: u64,
    ended_told: bool,
    /// What had its final result when the threshold was passed: succeeded, failed.
    passed_at: Option<(u64, u64)>,
    /// What the job has counted: in batches that were closed, in those that are durable, and since the last one was closed.
    figures: Figures,
    counted_durable: Counted,
    counting: Counted,
    active: Active,
    effects: VecDeque<Effect>,
}

/// The job's time in Active.
#[derive(Debug)]
struct Active {
    /// Of its earlier turns, in milliseconds.
    before_ms: u64,
    began: Tick,
    /// When it left Active, to pause or to be cancelled.
    left: Option<Tick>,
}

/// How many tasks, or answers, are where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depths {
    /// Read, and not asked for yet.
    pub ready: u64,
    /// To be tried again at a later time.
    pub waiting: u64,
    /// Asked for and not answered.
    pub in_flight: u64,
    /// Answered, and not durable.
    pub unrecorded: u64,
}

/// Rows are read ahead in pieces of this size while fewer than this many wait: enough for the widest concurrency to
/// find work while the next piece is read, and at most 2 × 3 MB of the longest keys.
const READ_AHEAD: u64 = crate::manifest::CHUNK_ROWS;
/// A batch of so many bytes is full, and waits for no more. That is some 6,000 usual answers: what comes in 10 ms at 600,000
/// a second, so that a batch takes all that has come since the last one. With fewer in each a fast job was held up by the number of
/// syncs (decision 0036). The last entry may pass it by its own length; a frame of the log may have 16 MiB.
pub const BATCH_BYTES_MAX: usize = 512 << 10;
/// Room for the last entry of a full batch: the longest texts there are make 9 KB.
const ENTRY_BYTES_MAX: usize = 16 << 10;
/// A batch of so many bytes is given room for all that it may have: by doubling it would end with twice that, and leave what it
/// had before to be used by somebody else. What is not written to takes no memory.
const BATCH_GROWS_FROM: usize = 64 << 10;

impl Run {
    /// Starts, or goes on from what the log says. `lineage` is where the tasks' IDs come from (see [`crate::task::task_id`]).
    ///
    /// Nothing is dispatched before the first [`Event::Slots`]: a job that is to be cancelled at once is told so first.
    pub fn new(lineage: &str, extent: Extent, past: Past, settings: Settings, seed: u64, now: Tick) -> Self {
        let (succeeded, failed) = (past.succeeded(), past.failed());
        let counted = past.counted().clone();
        let mut run = Self {
            ids: TaskIds::new(lineage),
            phase: Phase::Running,
            ramp: Ramp::new(settings.ramp, now),
            pace: Pace::new(now),
            settings,
            random: Random::seeded(seed),
            slots: 0,
            rows_total: extent.rows_total,
            whole: extent.whole,
            next_row: past.first_open_row(),
            sample: extent.sample.map(|drawn| past.open_rows_of(drawn)),
            reading: false,
            past,
            ready: VecDeque::new(),
            waiting: ByNumber::default(),
            waiting_bytes: 0,
            places_kept: 0,
            due: BinaryHeap::new(),
            in_flight: ByNumber::default(),
            next_invocation: 0,
            full: VecDeque::new(),
            gathering: Entries::default(),
            recording: None,
            unrecorded: 0,
            unrecorded_bytes: 0,
            spare: Entries::default(),
            unwritten: None,
            gathers_until: None,
            batch: 0,
            succeeded,
            failed,
            succeeded_durable: succeeded,
            failed_durable: failed,
            ended_told: false,
            passed_at: None,
            active: Active { before_ms: counted.active_ms, began: now, left: None },
            figures: counted.figures.clone(),
            counted_durable: counted,
            counting: Counted::default(),
            effects: VecDeque::new(),
        };
        // The last results may have passed the threshold, and the server died before it said so.
        run.check_threshold(now);
        run
    }

    /// Takes one event.
    pub fn handle(&mut self, event: Event, now: Tick) {
        match event {
            Event::Rows(tasks) => self.rows(tasks, now),
            Event::RowsKnown { rows_total, whole } => {
                self.rows_total = self.rows_total.max(rows_total);
                self.whole |= whole;
            }
            Event::Answered { invocation, reply } => self.answered(invocation, &reply, now),
            Event::Recorded { batch } => self.recorded(batch),
            Event::NotRecorded { batch } => {
                if self.recording.as_ref().is_some_and(|(b, _)| *b == batch) {
                    self.unwritten = Some(now.after_ms(UNWRITTEN_RETRY_MS));
                }
            }
            Event::Slots(slots) => self.slots = slots,
            Event::Command(command) => self.command(command, now),
            Event::Woken => {}
        }
        self.advance(now);
    }

    /// The next thing to do, if any. Call until `None` after each event.
    pub fn next_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When to come back with [`Event::Woken`] if nothing else happens.
    pub fn wake_at(&mut self, now: Tick) -> Option<Tick> {
        let gathered = self.gathers_until.filter(|_| self.recording.is_none() && self.unrecorded > 0);
        if self.phase != Phase::Running {
            return [gathered, self.unwritten].into_iter().flatten().min();
        }
        let due = self.due.peek().map(|Reverse((at, _))| *at);
        // The ramp matters only while it is what holds tasks back, and so does the pace.
        let limit = self.ramp.limit(now) as usize;
        let held_back = self.ready.front().is_some_and(|next| self.occupied(next) >= limit);
        let grows = self.ramp.grows_at().filter(|_| held_back);
        let opens = self.pace.opens_at(now).filter(|_| !self.ready.is_empty() && !held_back);
        [due, grows, opens, gathered, self.unwritten].into_iter().flatten().min()
    }

    /// Final results that are durable: (succeeded, failed). What DescribeJob shows; never goes down.
    pub fn counts(&self) -> (u64, u64) {
        (self.succeeded_durable, self.failed_durable)
    }

    /// Whether too many tasks have failed, and how many had succeeded and failed by then.
    ///
    /// It has to be noted before any further result is recorded: what is in flight may bring the ratio down again, and a
    /// run that is made from the log would not know.
    pub fn threshold_passed(&self) -> Option<(u64, u64)> {
        self.passed_at
    }

    /// Whether no task may start any more: what was asked for and has not begun is to be called off, with
    /// [`Reply::NotStarted`].
    pub fn winds_down(&self) -> bool {
        self.phase != Phase::Running
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Answers received and not yet durable: at most W, besides what was in flight when W was reached.
    pub fn unrecorded(&self) -> usize {
        self.unrecorded
    }

    /// How long a call took whose [`Event::Answered`] follows. Decides nothing: without it the answer counts all the same,
    /// and has no times.
    pub fn took(&mut self, invocation: u64, took: Took) {
        if let Some(flight) = self.in_flight.get_mut(&invocation) {
            flight.pending.clock.took = Some(took);
        }
    }

    /// Takes what was noted of the job beside its log, before the run's first event: where it is ahead of the log, it is
    /// counted with the next batch. So is all of it where the log is of a version that counted nothing in it.
    pub fn noted(&mut self, noted: &Counted) {
        self.active.before_ms = self.active.before_ms.max(noted.active_ms);
        self.counting.figures.merge(&noted.figures.since(&self.figures));
    }

    /// All that the job has counted, answers that are not durable among it.
    pub fn figures(&self) -> Figures {
        let mut figures = self.figures.clone();
        figures.merge(&self.counting.figures);
        figures
    }

    /// What is durable of it, with the time in Active of the same moment: what was counted with [`Run::counts`].
    pub fn counted_durable(&self) -> &Counted {
        &self.counted_durable
    }

    /// Cold starts that were counted since the last time.
    pub fn cold_started(&mut self, cold_starts: &Histogram) {
        self.counting.figures.cold_starts.merge(cold_starts);
    }

    /// The job is not Active any more, though what is in flight goes on. The first time counts.
    pub fn leave_active(&mut self, now: Tick) {
        self.active.left.get_or_insert(now);
    }

    /// Milliseconds in Active, those of the job's earlier turns included.
    pub fn active_ms(&self, now: Tick) -> u64 {
        let Active { before_ms, began, left } = self.active;
        before_ms + left.unwrap_or(now).since_ms(began)
    }

    pub fn depths(&self) -> Depths {
        Depths {
            ready: self.ready.len() as u64,
            waiting: self.waiting.len() as u64,
            in_flight: self.in_flight.len() as u64,
            unrecorded: self.unrecorded() as u64,
        }
    }

    /// Rows that are known, and whether these are all that there are to run.
    pub fn extent(&self) -> (u64, bool) {
        (self.rows_total, self.whole && self.sample.is_none())
    }

    /// How many tasks may run at once now, and whether the ramp is what allows no more: otherwise it is the function and the
    /// server.
    pub fn at_once(&mut self, now: Tick) -> (u32, bool) {
        let ramp = self.ramp.limit(now);
        (ramp.min(self.slots), ramp < self.slots)
    }

    /// Whether tasks wait for nothing but the ramp, which is still doubling: soon it goes faster.
    pub fn ramps_up(&mut self, now: Tick) -> bool {
        let limit = self.ramp.limit(now);
        self.ramp.doubles() && limit < self.slots && !self.ready.is_empty() && self.in_flight.len() >= limit as usize
    }

    fn rows(&mut self, tasks: Vec<Task>, now: Tick) {
        self.reading = false;
        if tasks.is_empty() {
            // The reader knows the end better than the count does; a short manifest must not wait for ever.
            self.next_row = self.rows_total;
            self.sample.iter_mut().for_each(RoaringTreemap::clear);
        }
        let winding_down = matches!(self.phase, Phase::Cancelling | Phase::Failing | Phase::Ended);
        for task in tasks {
            self.next_row = task.row + 1;
            let drawn = self.sample.as_mut().is_none_or(|sample| sample.remove(task.row));
            if winding_down || !drawn || self.past.is_settled(task.row) {
                continue;
            }
            let tries = match self.past.take_redriven(task.row) {
                Some((attempts, last)) => Tries { attempts, last: Some(last), ..Tries::default() },
                None => Tries::default(),
            };
            let task = Arc::new(task);
            if task.bucket.is_empty() || task.bucket.starts_with("arn:") {
                // Rule CSV-5: the column is a plain name, and a wrong one fails the task, not the job.
                let outcome = Outcome::failed(400, "InvalidBucketName", "The specified bucket is not valid.");
                self.settle(task, 0, outcome, now);
            } else if task.version == VersionId::Missing {
                let outcome = Outcome::failed(400, "InvalidRequest", "Task failed due to missing VersionId");
                self.settle(task, 0, outcome, now);
            } else {
                self.ready.push_back(Pending { task, tries, clock: Clock::default() });
            }
        }
        self.check_threshold(now);
    }

    fn answered(&mut self, invocation: u64, reply: &Reply, now: Tick) {
        let Some(Flight { mut pending, since, paced }) = self.in_flight.remove(&invocation) else { return };
        let judgement = judge(reply, self.ids.of(pending.task.number).as_str());
        let figures = &mut self.counting.figures;
        figures.answered(Call::of(reply), pending.clock.took.map(|took| took.call_us));
        if let (Reply::Answer(_), Some(code)) = (reply, judgement.code()) {
            figures.add_answers(code, 1);
        }
        let keeps_place = match judgement {
            Judgement::Throttled(..) => {
                let keeps = self.throttled(paced, now);
                if !keeps {
                    // Where calls are paced, a task that was one too many is no more so the next time.
                    pending.tries.throttles = 0;
                }
                keeps
            }
            Judgement::Settle(_) | Judgement::Redrive(_) | Judgement::FunctionError(_) => {
                self.pace.taken(now.since_ms(since), now);
                false
            }
            // Nobody is known to have heard of it.
            Judgement::RetryTransport(_) | Judgement::NotStarted => false,
        };
        let not_started = judgement == Judgement::NotStarted;
        let winding_down = matches!(self.phase, Phase::Cancelling | Phase::Failing);
        match self.settings.retry.decide(judgement, &mut pending.tries, now, &mut self.random) {
            Verdict::Settle(outcome) => {
                self.counting.figures.settled(pending.clock.all_us(now));
                self.settle(pending.task, pending.tries.attempts, outcome, now);
            }
            Verdict::Redrive { .. } | Verdict::Again { .. } if winding_down => {
                // What never began is no attempt.
                pending.tries.attempts -= u32::from(not_started);
                self.give_up(pending, now);
            }
            Verdict::Redrive { at } => {
                self.counting.figures.retries += 1;
                let row = pending.task.row;
                let (task, attempts) = (Arc::clone(&pending.task), pending.tries.attempts);
                let outcome =
                    pending.tries.last.clone().unwrap_or_else(|| Outcome::failed(200, "TemporaryFailure", ""));
                // The batch it will go out with: the one that gathers, behind those that are full.
                let batch = self.batch + 1 + self.full.len() as u64;
                self.keep(|entries| entries.redrive(&task, attempts, &outcome), now);
                self.wait_until(at, row, Waiting { pending, batch, keeps_place: false });
            }
            Verdict::Again { at } => {
                // The same attempt once more: the dispatcher will count it again.
                pending.tries.attempts = pending.tries.attempts.saturating_sub(1);
                let row = pending.task.row;
                self.wait_until(at, row, Waiting { pending, batch: 0, keeps_place });
            }
        }
        self.check_threshold(now);
    }

    fn wait_until(&mut self, at: Tick, row: u64, waiting: Waiting) {
        self.places_kept += usize::from(waiting.keeps_place);
        self.waiting_bytes += waiting.pending.bytes();
        self.waiting.insert(row, waiting);
        self.due.push(Reverse((at, row)));
    }

    /// A call was throttled. Where a pace cannot mend that, its task keeps its place until it is called again: another in its
    /// place would only be refused as well, at once, and so on as fast as the function can refuse. Returns whether it does.
    fn throttled(&mut self, paced: Paced, now: Tick) -> bool {
        if self.pace.throttled(paced, now) {
            return false;
        }
        self.ramp.throttled(self.in_flight.len(), now);
        true
    }

    /// A task that will not be tried again because its job is ending: it fails with its last error, or, never having
    /// reached its function, is as if it had not been started (rules L-11, L-12).
    fn give_up(&mut self, pending: Pending, now: Tick) {
        if let Some(outcome) = pending.tries.last {
            self.settle(pending.task, pending.tries.attempts, outcome, now);
        }
    }

    fn settle(&mut self, task: Arc<Task>, attempts: u32, outcome: Outcome, now: Tick) {
        *(if outcome.succeeded { &mut self.succeeded } else { &mut self.failed }) += 1;
        self.keep(|entries| entries.settle(&task, attempts, &outcome), now);
    }

    /// Keeps one entry, which `add` adds, until it is durable.
    fn keep(&mut self, add: impl FnOnce(&mut Entries), now: Tick) {
        let before = self.gathering.payload().len();
        add(&mut self.gathering);
        let bytes = self.gathering.payload().len();
        if before < BATCH_GROWS_FROM && bytes >= BATCH_GROWS_FROM {
            self.gathering.reserve(BATCH_BYTES_MAX + ENTRY_BYTES_MAX);
        }
        self.unrecorded += 1;
        self.unrecorded_bytes += bytes - before;
        if bytes >= BATCH_BYTES_MAX {
            let full = self.gathered(now);
            self.full.push_back(full);
        }
    }

    /// Closes the batch that gathers, with what was counted since the last one, and begins another.
    fn gathered(&mut self, now: Tick) -> Entries {
        self.counting.active_ms = self.active_ms(now);
        let before = self.gathering.payload().len();
        self.gathering.count_in(&self.counting);
        self.unrecorded_bytes += self.gathering.payload().len() - before;
        self.figures.merge(&self.counting.figures);
        self.counting.figures.clear();
        std::mem::replace(&mut self.gathering, std::mem::take(&mut self.spare))
    }

    fn check_threshold(&mut self, now: Tick) {
        let running = matches!(self.phase, Phase::Running | Phase::Pausing);
        if running && self.settings.threshold.passed(self.succeeded, self.failed) {
            self.passed_at = Some((self.succeeded, self.failed));
            self.wind_down(Phase::Failing, now);
        }
    }

    fn recorded(&mut self, batch: u64) {
        let Some((_, entries)) = self.recording.take_if(|(b, _)| *b == batch) else { return };
        self.unwritten = None;
        self.unrecorded -= entries.count();
        self.unrecorded_bytes -= entries.payload().len();
        let (succeeded, failed) = entries.settled();
        self.succeeded_durable += succeeded;
        self.failed_durable += failed;
        if let Some(counted) = entries.counted() {
            self.counted_durable.take(counted).expect("what was closed reads");
        }
        // Who wrote it has no use for it any more: then the next batch needs no memory of its own.
        self.spare = Arc::try_unwrap(entries).map(Entries::emptied).unwrap_or_default();
    }

    fn command(&mut self, command: Command, now: Tick) {
        match (command, self.phase) {
            (Command::Pause, Phase::Running) => self.phase = Phase::Pausing,
            (Command::Cancel, Phase::Running | Phase::Pausing) => self.wind_down(Phase::Cancelling, now),
            (Command::Fail, Phase::Running | Phase::Pausing) => self.wind_down(Phase::Failing, now),
            // A command that comes after the end of what it is about changes nothing.
            _ => {}
        }
    }

    fn wind_down(&mut self, phase: Phase, now: Tick) {
        self.phase = phase;
        self.due.clear();
        (self.places_kept, self.waiting_bytes) = (0, 0);
        let mut waiting: Vec<Pending> = self.waiting.drain().map(|(_, waiting)| waiting.pending).collect();
        waiting.sort_by_key(|p| p.task.row);
        for pending in waiting.into_iter().chain(std::mem::take(&mut self.ready)) {
            self.give_up(pending, now);
        }
        // Rows that waited for a redrive when the server died, and were not read again since.
        for (task, attempts, last) in self.past.take_all_redriven() {
            self.settle(task, attempts, last, now);
        }
    }

    /// Does everything that has become possible.
    fn advance(&mut self, now: Tick) {
        if self.phase == Phase::Running {
            self.release_due(now);
            self.dispatch(now);
            self.read();
        }
        self.record_again(now);
        self.record(now);
        self.end();
    }

    fn record_again(&mut self, now: Tick) {
        if let (Some(_), Some((batch, entries))) = (self.unwritten.take_if(|at| *at <= now), &self.recording) {
            self.effects.push_back(Effect::Record { batch: *batch, entries: Arc::clone(entries) });
        }
    }

    fn release_due(&mut self, now: Tick) {
        let durable_through = self.recording.as_ref().map_or(self.batch, |(batch, _)| batch - 1);
        let mut not_yet = Vec::new();
        while let Some(Reverse((at, row))) = self.due.peek().copied() {
            if at > now {
                break;
            }
            self.due.pop();
            match self.waiting.get(&row) {
                // The crash that follows must find the attempt counted: its record comes first.
                Some(waiting) if waiting.batch > durable_through => {
                    not_yet.push(Reverse((now.after_ms(RECORD_WAIT_MS), row)))
                }
                Some(_) => {
                    if let Some(Waiting { pending, keeps_place, .. }) = self.waiting.remove(&row) {
                        self.places_kept -= usize::from(keeps_place);
                        self.waiting_bytes -= pending.bytes();
                        // Ahead of the untouched ones: a row that began should end before new ones begin.
                        self.ready.push_front(pending);
                    }
                }
                None => {}
            }
        }
        self.due.extend(not_yet);
    }

    /// How many of the places there are for calls are taken, for whoever would be called next.
    fn occupied(&self, next: &Pending) -> usize {
        // Whoever kept its place while it waited has it.
        let kept = if next.tries.throttled_since.is_some() { 0 } else { self.places_kept };
        let unrecorded = if self.settings.strict { self.unrecorded() } else { 0 };
        self.in_flight.len() + kept + unrecorded
    }

    fn dispatch(&mut self, now: Tick) {
        let limit = self.ramp.limit(now).min(self.slots) as usize;
        loop {
            let full =
                self.unrecorded() >= self.settings.unrecorded_max || self.unrecorded_bytes >= UNRECORDED_BYTES_MAX;
            // What is in flight comes on top of W once it is answered (promise X4).
            let would_wait = !self.settings.strict && full;
            let Some(next) = self.ready.front() else { return };
            // Tasks that wait are kept in memory: while they are too many only those that have begun go on.
            let full = self.waiting.len() >= WAITING_MAX || self.waiting_bytes >= WAITING_BYTES_MAX;
            let too_many = full && next.tries.last.is_none();
            if self.occupied(next) >= limit || would_wait || too_many || !self.pace.may_start(now) {
                return;
            }
            let Some(mut pending) = self.ready.pop_front() else { return };
            pending.tries.attempts += 1;
            pending.clock =
                Clock { again: pending.clock.began.is_some(), began: pending.clock.began.or(Some(now)), took: None };
            self.next_invocation += 1;
            let invocation = self.next_invocation;
            let (task, attempt) = (Arc::clone(&pending.task), pending.tries.attempts);
            self.in_flight.insert(invocation, Flight { pending, since: now, paced: self.pace.started() });
            self.effects.push_back(Effect::Invoke { invocation, task, attempt });
        }
    }

    fn read(&mut self) {
        if let Some(first_row) = self.unread()
            && !self.reading
            && (self.ready.len() as u64) < READ_AHEAD
        {
            self.reading = true;
            self.effects.push_back(Effect::Read { first_row, rows_max: READ_AHEAD });
        }
    }

    /// The next row to be read, if it can be. Of a sample the rows between are passed over, a chunk at a time.
    fn unread(&self) -> Option<u64> {
        match &self.sample {
            Some(sample) => sample.min(),
            None => (self.next_row < self.rows_total).then_some(self.next_row),
        }
    }

    fn record(&mut self, now: Tick) {
        if self.recording.is_some() || self.unrecorded == 0 || self.gathers(now) {
            return;
        }
        let entries = self.full.pop_front().unwrap_or_else(|| self.gathered(now));
        let entries = Arc::new(entries);
        self.batch += 1;
        self.recording = Some((self.batch, Arc::clone(&entries)));
        self.gathers_until = Some(now.after_ms(self.settings.gather_ms));
        self.effects.push_back(Effect::Record { batch: self.batch, entries });
    }

    /// Whether more answers are worth waiting for before the next batch: they come (something is in flight), there is
    /// room for them, and nobody waits for what is here.
    fn gathers(&self, now: Tick) -> bool {
        let full = !self.full.is_empty() || self.unrecorded >= self.settings.unrecorded_max;
        let early = self.gathers_until.is_some_and(|until| now < until);
        early && !full && !self.settings.strict && !self.in_flight.is_empty()
    }

    fn end(&mut self) {
        let resting = self.in_flight.is_empty() && self.unrecorded == 0;
        if !resting || self.ended_told {
            return;
        }
        let all_read = self.whole && self.unread().is_none() && !self.reading;
        let finished = all_read && self.ready.is_empty() && self.waiting.is_empty();
        let ended = match self.phase {
            Phase::Running | Phase::Pausing if finished && self.sample.is_some() => Ended::Sampled,
            Phase::Running | Phase::Pausing if finished => Ended::Finished,
            Phase::Running | Phase::Ended => return,
            Phase::Pausing => Ended::Paused,
            Phase::Cancelling => Ended::Cancelled,
            Phase::Failing => Ended::Failed,
        };
        self.phase = Phase::Ended;
        self.ended_told = true;
        self.effects.push_back(Effect::Ended(ended));
    }
}

/// Bytes of answers that are not yet durable, as they will lie in the log: some 50,000 usual ones, which are half a second of
/// stalled disk at 100,000 tasks a second; of the longest rows 450.
pub const UNRECORDED_BYTES_MAX: usize = 4 << 20;

/// Tasks waiting to be tried again, at most, before new ones stop being started: some 4 MB of usual keys.
const WAITING_MAX: usize = 16_384;
/// The same in bytes: keys of 1 KiB and messages of 4 would make 80 MB of so many.
const WAITING_BYTES_MAX: usize = 8 << 20;
/// How soon a task whose time has come, and whose last attempt is not yet durable, is looked at again.
const RECORD_WAIT_MS: u64 = 20;
/// A batch that did not fit on the disk is tried again this often, until there is space.
const UNWRITTEN_RETRY_MS: u64 = 500;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Entry;
    use crate::task::{ResultCode, task_id};
    use bytes::Bytes;

    /// A run and the little world around it: an endless reader, a list of what was invoked, a disk under control.
    struct World {
        run: Run,
        now: Tick,
        /// The first rows that were asked for.
        read: Vec<u64>,
        invoked: Vec<(u64, Arc<Task>, u32)>,
        batch: Option<u64>,
        recorded: Vec<Entry>,
        frames: Vec<Vec<u8>>,
        ended: Option<Ended>,
        versions: fn(u64) -> VersionId,
        buckets: fn(u64) -> &'static str,
        disk_works: bool,
    }

    fn settings() -> Settings {
        let ramp = RampSettings { initial: 4, max: 4, ..RampSettings::default() };
        Settings { ramp, gather_ms: 0, ..Settings::default() }
    }

    fn gathering() -> Settings {
        Settings { gather_ms: 10, ..settings() }
    }

    impl World {
        fn new(rows: u64, settings: Settings) -> Self {
            Self::with_past(rows, Past::default(), settings)
        }

        fn with_past(rows: u64, past: Past, settings: Settings) -> Self {
            Self::of(Extent::all(rows), past, settings)
        }

        fn of(extent: Extent, past: Past, settings: Settings) -> Self {
            let run = Run::new("job", extent, past, settings, 7, Tick(0));
            Self {
                run,
                read: Vec::new(),
                now: Tick(0),
                invoked: Vec::new(),
                batch: None,
                recorded: Vec::new(),
                frames: Vec::new(),
                ended: None,
                versions: |_| VersionId::NoColumn,
                buckets: |_| "b",
                disk_works: true,
            }
        }

        fn give(&mut self, event: Event) -> &mut Self {
            self.run.handle(event, self.now);
            while let Some(effect) = self.run.next_effect() {
                match effect {
                    Effect::Read { first_row, rows_max } => {
                        self.read.push(first_row);
                        let edge = (first_row / rows_max + 1) * rows_max;
                        let last = edge.min(self.run.rows_total);
                        let rows = (first_row..last)
                            .map(|row| Task {
                                row,
                                number: row,
                                bucket: (self.buckets)(row).into(),
                                key: "k".into(),
                                version: (self.versions)(row),
                            })
                            .collect();
                        self.run.handle(Event::Rows(rows), self.now);
                    }
                    Effect::Invoke { invocation, task, attempt } => self.invoked.push((invocation, task, attempt)),
                    Effect::Record { batch, entries } => {
                        self.batch = Some(batch);
                        if self.disk_works {
                            Entry::decode_all(entries.payload(), |entry| self.recorded.push(entry)).unwrap();
                            self.frames.push(entries.payload().to_vec());
                            self.batch = None;
                            self.run.handle(Event::Recorded { batch }, self.now);
                        }
                    }
                    Effect::Ended(ended) => self.ended = Some(ended),
                }
            }
            self
        }

        fn slots(&mut self, slots: u32) -> &mut Self {
            self.give(Event::Slots(slots))
        }

        /// Answers the oldest invocation that is not answered yet.
        fn answer(&mut self, code: &str) -> (u64, u32) {
            let (invocation, task, attempt) = self.invoked.remove(0);
            let id = task_id("job", task.row);
            let body = format!(r#"{{"results":[{{"taskId":"{id}","resultCode":"{code}","resultString":"s"}}]}}"#);
            self.give(Event::Answered { invocation, reply: Reply::Answer(Bytes::from(body)) });
            (task.row, attempt)
        }

        fn sleep(&mut self, ms: u64) -> &mut Self {
            self.now = self.now.after_ms(ms);
            self.give(Event::Woken)
        }

        /// What a server that dies now finds in the log.
        fn past(&self) -> Past {
            let mut past = Past::default();
            self.recorded.iter().for_each(|e| past.add(e).unwrap());
            past
        }

        fn settled(&self) -> Vec<u64> {
            let rows = self.recorded.iter().filter(|e| matches!(e, Entry::Settled { .. }));
            rows.map(|e| e.task().row).collect()
        }
    }

    #[test]
    fn every_row_is_invoked_once_and_counted_when_it_is_durable() {
        let mut world = World::new(10, settings());
        world.slots(u32::MAX);
        assert_eq!(world.invoked.len(), 4, "the ramp's limit");
        while !world.invoked.is_empty() {
            world.answer("Succeeded");
            assert!(world.run.in_flight() <= 4);
        }
        assert_eq!(world.settled(), (0..10).collect::<Vec<_>>());
        assert_eq!(world.run.counts(), (10, 0));
        assert_eq!(world.ended, Some(Ended::Finished));
    }

    #[test]
    fn nothing_is_invoked_before_slots_are_known_nor_beyond_them() {
        let mut world = World::new(10, settings());
        world.give(Event::Woken);
        assert_eq!(world.invoked.len(), 0);
        world.slots(2);
        assert_eq!(world.invoked.len(), 2);
        world.slots(3);
        assert_eq!(world.invoked.len(), 3);
    }

    #[test]
    fn a_temporary_failure_is_redriven_and_fails_after_the_fifth_attempt() {
        let mut world = World::new(1, settings());
        world.slots(1);
        for attempt in 1..=5 {
            assert_eq!(world.answer("TemporaryFailure"), (0, attempt));
            assert_eq!(world.ended, (attempt == 5).then_some(Ended::Finished));
            world.sleep(60_000);
        }
        assert_eq!(world.run.counts(), (0, 1));
        let Some(Entry::Settled { attempts, outcome, .. }) = world.recorded.last() else { panic!() };
        assert_eq!((*attempts, outcome), (5, &Outcome::failed(200, "TemporaryFailure", "s")));
    }

    #[test]
    fn a_task_takes_from_its_first_dispatch_to_the_answer_that_settles_it_and_an_attempt_from_call_to_answer() {
        let mut world = World::new(2, settings());
        world.slots(1);
        let took = |world: &mut World, since_asked_us, call_us| {
            let invocation = world.invoked[0].0;
            world.run.took(invocation, Took { since_asked_us, call_us });
        };
        took(&mut world, 900, 700);
        world.answer("TemporaryFailure");
        assert_eq!(world.run.figures().tasks.count(), 0, "it is not settled");
        world.sleep(60_000);
        // The other row is in between; the first one is asked for again, and settles a minute after its first dispatch.
        while let Some((invocation, task, attempt)) = world.invoked.first().cloned() {
            world.run.took(invocation, Took { since_asked_us: 500, call_us: 400 });
            world.answer("Succeeded");
            assert_eq!(attempt, if task.row == 0 { 2 } else { 1 });
        }
        let figures = world.run.figures();
        assert_eq!((figures.attempts.count(), figures.attempts.sum_us()), (3, 700 + 400 + 400));
        assert_eq!((figures.tasks.count(), figures.tasks.sum_us()), (2, 60_000_000 + 500));
        assert_eq!(figures.calls(Call::Succeeded), 3);
    }

    #[test]
    fn what_is_counted_is_durable_with_the_results_it_belongs_to_and_a_crash_takes_back_nothing_of_it() {
        let mut world = World::new(6, Settings { gather_ms: 0, ..settings() });
        let noted = |active_ms, throttled| {
            let mut noted = Counted { active_ms, ..Counted::default() };
            noted.figures.add_calls(Call::Throttled, throttled);
            noted
        };
        world.run.noted(&noted(7_000, 3));
        let answer = |world: &mut World, code| {
            let took = Took { since_asked_us: 900, call_us: 700 };
            world.run.took(world.invoked[0].0, took);
            world.answer(code);
        };
        world.slots(4).sleep(250);
        answer(&mut world, "Succeeded");
        world.sleep(250);
        answer(&mut world, "TemporaryFailure");
        let durable = world.run.counted_durable().clone();
        assert_eq!((durable.active_ms, durable.figures.calls(Call::Throttled)), (7_500, 3));
        let codes = |figures: &Figures| ResultCode::ALL.map(|code| figures.answers(code));
        assert_eq!((codes(&durable.figures), durable.figures.retries), ([1, 1, 0], 1));
        assert_eq!((durable.figures.tasks.count(), durable.figures.attempts.count()), (1, 2));
        // The disk stalls: what comes meanwhile is counted, and is not durable.
        world.disk_works = false;
        answer(&mut world, "PermanentFailure");
        answer(&mut world, "Succeeded");
        world.sleep(250);
        assert_eq!(world.run.counted_durable(), &durable);
        assert_eq!((codes(&world.run.figures()), world.run.active_ms(world.now)), ([2, 1, 1], 7_750));
        let logged = |world: &World| {
            let mut past = Past::default();
            world.frames.iter().for_each(|frame| past.add_frame(frame).unwrap());
            past
        };
        // A server that goes on from the log has counted what is durable: whatever was noted before, nothing of it twice.
        let past = logged(&world);
        assert_eq!(past.counted(), &durable);
        let mut next = World::with_past(6, past, Settings { gather_ms: 0, ..settings() });
        next.run.noted(&noted(7_250, 3));
        assert_eq!((next.run.figures(), next.run.active_ms(Tick(0))), (durable.figures, 7_500));
        next.slots(4).sleep(100);
        next.give(Event::Command(Command::Pause));
        next.run.leave_active(next.now);
        while !next.invoked.is_empty() {
            next.sleep(40);
            answer(&mut next, "Succeeded");
        }
        let counted = next.run.counted_durable().clone();
        assert_eq!((next.ended, counted.active_ms), (Some(Ended::Paused), 7_600), "a job that pauses is not Active");
        let (succeeded, failed) = next.run.counts();
        assert_eq!((succeeded + failed, counted.figures.tasks.count()), (5, 5));
        world.frames.append(&mut next.frames);
        assert_eq!(logged(&world).counted(), &counted);
    }

    #[test]
    fn each_of_several_full_batches_has_what_was_counted_with_its_own_tasks() {
        let mut world = World::new(
            900,
            Settings { ramp: RampSettings { initial: 900, max: 900, ..settings().ramp }, ..settings() },
        );
        world.disk_works = false;
        world.slots(900);
        let message = "é".repeat(1_000);
        while let Some((invocation, task, _)) = world.invoked.pop() {
            world.run.took(invocation, Took { since_asked_us: 500, call_us: 400 });
            let id = task_id("job", task.row);
            let body =
                format!(r#"{{"results":[{{"taskId":"{id}","resultCode":"Succeeded","resultString":"{message}"}}]}}"#);
            world.give(Event::Answered { invocation, reply: Reply::Answer(Bytes::from(body)) });
        }
        assert!(world.run.full.len() > 1, "{} are full", world.run.full.len());
        world.disk_works = true;
        let mut counts = Vec::new();
        while world.run.unrecorded() > 0 {
            let Some((batch, entries)) = world.run.recording.clone() else { break };
            let mut own = Counted::default();
            own.take(entries.counted().unwrap()).unwrap();
            let (succeeded, _) = entries.settled();
            assert_eq!((own.figures.tasks.count(), own.figures.calls(Call::Succeeded)), (succeeded, succeeded));
            world.run.handle(Event::Recorded { batch }, world.now);
            assert_eq!(world.run.counted_durable().figures.tasks.count(), world.run.counts().0);
            counts.push(succeeded);
            while world.run.next_effect().is_some() {}
        }
        assert!(counts.len() > 2 && counts.iter().sum::<u64>() == 900, "{counts:?}");
    }

    #[test]
    fn what_waits_where_is_told_and_whether_the_ramp_is_what_holds_it_back() {
        let mut world = World::new(
            100,
            Settings { ramp: RampSettings { initial: 4, max: 8, ..RampSettings::default() }, ..settings() },
        );
        world.slots(50);
        assert_eq!(world.run.depths(), Depths { ready: 96, waiting: 0, in_flight: 4, unrecorded: 0 });
        assert_eq!(world.run.at_once(world.now), (4, true));
        assert!(world.run.ramps_up(world.now));
        world.disk_works = false;
        world.answer("Succeeded");
        world.answer("TemporaryFailure");
        assert_eq!(world.run.depths(), Depths { ready: 94, waiting: 1, in_flight: 4, unrecorded: 2 });
        assert_eq!(world.run.extent(), (100, true));
        world.slots(3);
        assert_eq!(world.run.at_once(world.now), (3, false));
        assert!(!world.run.ramps_up(world.now), "the function allows no more");
        world.slots(50).sleep(10_000);
        assert!(!world.run.ramps_up(world.now), "it has reached its ceiling");
    }

    #[test]
    fn a_redrive_waits_until_its_attempt_is_durable() {
        let mut world = World::new(1, settings());
        world.slots(1);
        world.disk_works = false;
        world.answer("TemporaryFailure");
        world.sleep(60_000).sleep(60_000);
        assert!(world.invoked.is_empty());
        world.disk_works = true;
        let batch = world.batch.unwrap();
        world.give(Event::Recorded { batch }).sleep(RECORD_WAIT_MS);
        assert_eq!(world.invoked.len(), 1);
    }

    #[test]
    fn dispatch_waits_when_w_answers_are_not_durable() {
        let mut world = World::new(100, Settings { unrecorded_max: 6, ..settings() });
        world.slots(u32::MAX);
        world.disk_works = false;
        while !world.invoked.is_empty() {
            world.answer("Succeeded");
            assert!(world.run.unrecorded() <= 6 + 4);
        }
        assert_eq!(world.run.counts(), (0, 0), "nothing counts before it is durable");
        assert!(world.run.unrecorded() >= 6 && world.ended.is_none());
        world.disk_works = true;
        let batch = world.batch.unwrap();
        world.give(Event::Recorded { batch });
        assert!(!world.invoked.is_empty());
    }

    #[test]
    fn dispatch_waits_as_well_when_what_is_not_durable_holds_too_much_memory() {
        let mut world = World::new(10_000, settings());
        world.slots(u32::MAX);
        world.disk_works = false;
        let long = "\u{1f5c2}".repeat(1_024);
        while let Some((invocation, task, _)) = world.invoked.pop() {
            let id = task_id("job", task.row);
            let body =
                format!(r#"{{"results":[{{"taskId":"{id}","resultCode":"Succeeded","resultString":"{long}"}}]}}"#);
            world.give(Event::Answered { invocation, reply: Reply::Answer(Bytes::from(body)) });
        }
        let each = world.run.unrecorded_bytes / world.run.unrecorded();
        assert!(each > 4 * 1_024);
        // An entry's length is not quite that of the one before it: so many of the average make the bound.
        let fill = UNRECORDED_BYTES_MAX * world.run.unrecorded() / world.run.unrecorded_bytes;
        assert_eq!(world.run.unrecorded(), fill + 4, "and what was in flight then");
        assert!(world.run.unrecorded() < world.run.settings.unrecorded_max);
        world.disk_works = true;
        let batch = world.batch.unwrap();
        world.give(Event::Recorded { batch });
        assert!(!world.invoked.is_empty());
        assert_eq!(world.run.unrecorded_bytes, 0);
    }

    #[test]
    fn new_tasks_wait_while_those_that_wait_for_another_attempt_hold_too_much_memory() {
        let mut world = World::new(10_000, settings());
        world.slots(u32::MAX);
        let long = "\u{1f5c2}".repeat(1_024);
        while let Some((invocation, task, _)) = world.invoked.pop() {
            let id = task_id("job", task.row);
            let body = format!(
                r#"{{"results":[{{"taskId":"{id}","resultCode":"TemporaryFailure","resultString":"{long}"}}]}}"#
            );
            world.give(Event::Answered { invocation, reply: Reply::Answer(Bytes::from(body)) });
        }
        let each = world.run.waiting_bytes / world.run.waiting.len();
        assert!(each > 4 * 1_024);
        assert_eq!(world.run.waiting.len(), WAITING_BYTES_MAX / each + 4, "and what was in flight then");
        assert!(world.run.waiting.len() < WAITING_MAX);
        world.sleep(3_600_000);
        assert!(!world.invoked.is_empty());
        assert_eq!(world.run.waiting_bytes, world.run.waiting.values().map(|w| w.pending.bytes()).sum::<usize>());
    }

    impl World {
        fn throttle(&mut self) -> u64 {
            let (invocation, task, _) = self.invoked.remove(0);
            let reply = Reply::Throttled { message: "Rate Exceeded.".into(), retry_after_ms: Some(50) };
            self.give(Event::Answered { invocation, reply });
            task.row
        }
    }

    #[test]
    fn a_throttled_task_keeps_its_place_and_no_other_is_refused_in_its_stead() {
        let mut world = World::new(10, settings());
        world.slots(u32::MAX);
        let refused = [world.throttle(), world.throttle()];
        assert_eq!((world.invoked.len(), world.run.places_kept), (2, 2), "no fifth row was begun");
        world.sleep(50);
        let rows = |world: &World| world.invoked.iter().map(|(_, task, _)| task.row).collect::<Vec<_>>();
        assert!(refused.iter().all(|row| *row < 2) && rows(&world)[..2] == [2, 3]);
        assert_eq!((world.run.in_flight(), world.run.places_kept), (3, 0), "as many as it was seen to take, and one");
        while !world.invoked.is_empty() {
            world.answer("Succeeded");
        }
        assert_eq!((world.run.counts(), world.ended), ((10, 0), Some(Ended::Finished)));
    }

    #[test]
    fn a_function_that_throttles_short_calls_is_called_at_a_pace_and_every_row_comes_to_its_end() {
        let mut world = World::new(200, settings());
        world.slots(u32::MAX);
        for _ in 0..100 {
            world.answer("Succeeded");
        }
        for _ in 0..4 {
            world.throttle();
        }
        assert_eq!((world.invoked.len(), world.run.places_kept), (0, 0));
        assert_eq!(world.run.wake_at(world.now), Some(Tick(10)), "it took 100 within this second");
        world.sleep(10);
        assert_eq!(world.invoked.len(), 1);
        let mut wakes = 0;
        while world.ended.is_none() {
            while !world.invoked.is_empty() {
                world.answer("Succeeded");
            }
            if world.ended.is_none() {
                let at = world.run.wake_at(world.now).expect("something is waited for");
                assert!(at > world.now);
                world.sleep(at.since_ms(world.now));
                wakes += 1;
            }
        }
        assert_eq!(world.run.counts(), (200, 0));
        assert!((10..=100).contains(&wakes), "{wakes}: the search goes up from where it began");
    }

    #[test]
    fn what_is_answered_soon_after_a_batch_gathers_until_its_time_is_up() {
        let mut world = World::new(100, gathering());
        world.slots(u32::MAX);
        world.answer("Succeeded");
        assert_eq!(world.settled(), [0], "the first one has no batch before it");
        world.now = world.now.after_ms(4);
        world.answer("Succeeded");
        world.answer("Succeeded");
        assert_eq!((world.settled().len(), world.run.unrecorded()), (1, 2));
        assert_eq!(world.run.wake_at(world.now), Some(Tick(10)));
        world.sleep(10 - 5);
        assert_eq!(world.settled().len(), 1);
        world.sleep(1);
        assert_eq!(world.settled(), [0, 1, 2], "together");
        world.sleep(60_000);
        world.answer("Succeeded");
        assert_eq!(world.settled().len(), 4, "who comes late waits for nobody");
    }

    #[test]
    fn nothing_gathers_when_no_answer_is_to_come_when_there_is_no_room_or_in_strict() {
        let mut last = World::new(2, gathering());
        last.slots(u32::MAX);
        last.answer("Succeeded");
        last.answer("Succeeded");
        assert_eq!((last.settled().len(), last.ended), (2, Some(Ended::Finished)));

        let mut narrow = World::new(100, Settings { unrecorded_max: 2, ..gathering() });
        narrow.slots(u32::MAX);
        for settled in [1, 1, 3, 3, 5] {
            narrow.answer("Succeeded");
            assert_eq!(narrow.settled().len(), settled);
        }

        let mut strict = World::new(100, Settings { strict: true, ..gathering() });
        strict.slots(u32::MAX);
        for settled in 1..4 {
            strict.answer("Succeeded");
            assert_eq!(strict.settled().len(), settled);
        }
    }

    #[test]
    fn a_batch_takes_all_that_has_gathered_until_it_is_full_and_what_is_full_waits_for_nothing() {
        let mut world = World::new(10_000, gathering());
        world.slots(u32::MAX);
        world.answer("Succeeded");
        for _ in 0..3_000 {
            world.answer("Succeeded");
        }
        assert_eq!((world.settled().len(), world.run.unrecorded()), (1, 3_000), "no number of answers is a full batch");
        world.sleep(10);
        assert_eq!((world.settled().len(), world.run.unrecorded()), (3_001, 0), "together");

        // Each is a fifth of a batch, so with the fifth it is full, 9 ms before its time.
        let fifth = |world: &mut World| {
            let (invocation, task, _) = world.invoked.remove(0);
            let long = "m".repeat(BATCH_BYTES_MAX / 5);
            world.run.keep(|entries| entries.redrive(&task, 1, &Outcome::failed(200, "C", "")), world.now);
            let mut outcome = Outcome::succeeded("");
            outcome.message = long;
            let flight = world.run.in_flight.remove(&invocation).unwrap();
            world.run.settle(flight.pending.task, 1, outcome, world.now);
            world.sleep(0);
        };
        world.disk_works = false;
        for _ in 0..4 {
            fifth(&mut world);
        }
        assert_eq!((world.batch, world.run.unrecorded()), (None, 8));
        fifth(&mut world);
        let first = world.batch.expect("it is full");
        // While it is on its way others fill, and leave one after the other in their order.
        for _ in 0..7 {
            fifth(&mut world);
        }
        assert_eq!((world.run.full.len(), world.run.gathering.count(), world.run.unrecorded()), (1, 4, 24));
        let next = |world: &World| world.run.recording.as_ref().map(|(batch, entries)| (*batch, entries.count()));
        assert_eq!(next(&world), Some((first, 10)));
        world.give(Event::Recorded { batch: first });
        assert_eq!((next(&world), world.run.unrecorded()), (Some((first + 1, 10)), 14));
        world.give(Event::Recorded { batch: first + 1 });
        assert_eq!(next(&world), None, "the rest is not full, and it is early");
        world.sleep(10);
        assert_eq!(next(&world), Some((first + 2, 4)));
        world.give(Event::Recorded { batch: first + 2 });
        assert_eq!((world.run.unrecorded(), world.run.unrecorded_bytes), (0, 0));
        assert_eq!(world.run.counts(), (3_001 + 12, 0));
    }

    #[test]
    fn a_redrive_behind_full_batches_waits_for_its_own() {
        let mut world = World::new(8, gathering());
        world.slots(u32::MAX);
        world.answer("Succeeded");
        world.disk_works = false;
        for message in ["m".repeat(BATCH_BYTES_MAX), "n".repeat(BATCH_BYTES_MAX)] {
            let (invocation, ..) = world.invoked.remove(0);
            let flight = world.run.in_flight.remove(&invocation).unwrap();
            let outcome = Outcome { message, ..Outcome::succeeded("") };
            world.run.settle(flight.pending.task, 1, outcome, world.now);
            world.sleep(0);
        }
        let first = world.batch.expect("it is full");
        assert_eq!(world.run.full.len(), 1);
        let (redriven, _) = world.answer("TemporaryFailure");
        while !world.invoked.is_empty() {
            world.answer("Succeeded");
        }
        let again = |world: &World| world.invoked.iter().any(|(_, task, _)| task.row == redriven);
        for batch in first..first + 2 {
            world.sleep(60_000);
            assert!(!again(&world), "its batch is the third");
            world.give(Event::Recorded { batch });
        }
        world.sleep(RECORD_WAIT_MS);
        assert!(!again(&world), "which is under way");
        world.give(Event::Recorded { batch: first + 2 }).sleep(RECORD_WAIT_MS);
        assert!(again(&world));
    }

    #[test]
    fn a_run_that_winds_down_still_says_when_it_wants_to_be_woken_for_what_gathers() {
        let mut world = World::new(100, gathering());
        world.slots(u32::MAX);
        world.answer("Succeeded");
        world.give(Event::Command(Command::Pause));
        world.answer("Succeeded");
        assert_eq!(world.run.wake_at(world.now), Some(Tick(10)));
        world.sleep(10);
        assert_eq!(world.settled().len(), 2);
    }

    #[test]
    fn strict_frees_a_slot_only_when_its_result_is_durable() {
        let mut world = World::new(100, Settings { strict: true, ..settings() });
        world.slots(u32::MAX);
        world.disk_works = false;
        for _ in 0..4 {
            world.answer("Succeeded");
        }
        assert!(world.invoked.is_empty());
    }

    #[test]
    fn a_full_disk_is_waited_for_and_the_same_batch_is_written_again() {
        let mut world = World::new(1, settings());
        world.slots(1);
        world.disk_works = false;
        world.answer("Succeeded");
        let batch = world.batch.unwrap();
        world.give(Event::NotRecorded { batch });
        assert_eq!(world.run.wake_at(world.now), Some(world.now.after_ms(UNWRITTEN_RETRY_MS)));
        world.disk_works = true;
        world.sleep(UNWRITTEN_RETRY_MS);
        assert_eq!((world.settled(), world.ended), (vec![0], Some(Ended::Finished)));
    }

    #[test]
    fn a_batch_that_came_back_is_written_again_however_often_something_else_happens() {
        let mut world = World::new(2, settings());
        world.slots(1);
        world.disk_works = false;
        world.answer("Succeeded");
        let batch = world.batch.take().unwrap();
        world.give(Event::NotRecorded { batch });
        for _ in 0..UNWRITTEN_RETRY_MS / 100 {
            assert_eq!(world.batch, None);
            world.now = world.now.after_ms(100);
            // What the engine does: it asks when to come back after each event, and has another one before that.
            if world.run.wake_at(world.now).is_some_and(|at| at <= world.now) {
                world.give(Event::Woken);
            } else {
                world.give(Event::Slots(1));
            }
        }
        assert_eq!(world.batch, Some(batch));
    }

    #[test]
    fn a_pause_lets_what_runs_finish_and_the_log_goes_on_with_the_rest() {
        let mut world = World::new(10, settings());
        world.slots(u32::MAX);
        world.give(Event::Command(Command::Pause));
        for _ in 0..4 {
            assert_eq!(world.ended, None);
            world.answer("Succeeded");
        }
        assert_eq!((world.ended.take(), world.invoked.len()), (Some(Ended::Paused), 0));
        let mut after = World::with_past(10, world.past(), settings());
        after.slots(u32::MAX);
        while !after.invoked.is_empty() {
            after.answer("Succeeded");
        }
        assert_eq!((after.settled(), after.ended), ((4..10).collect(), Some(Ended::Finished)));
    }

    #[test]
    fn a_call_that_was_called_off_is_as_if_it_had_not_been_tried() {
        let mut world = World::new(2, settings());
        world.slots(2);
        assert!(!world.run.winds_down());
        world.give(Event::Command(Command::Cancel));
        assert!(world.run.winds_down());
        let (invocation, ..) = world.invoked.remove(0);
        world.give(Event::Answered { invocation, reply: Reply::NotStarted });
        world.answer("Succeeded");
        assert_eq!((world.run.counts(), world.ended), ((1, 0), Some(Ended::Cancelled)));
    }

    #[test]
    fn a_cancel_starts_nothing_more_and_fails_what_waits_for_a_redrive() {
        let mut world = World::new(10, settings());
        world.slots(u32::MAX);
        world.answer("TemporaryFailure");
        let before = world.invoked.len();
        world.give(Event::Command(Command::Cancel));
        assert_eq!(world.invoked.len(), before);
        world.answer("TemporaryFailure");
        while !world.invoked.is_empty() {
            world.answer("Succeeded");
        }
        world.sleep(100_000);
        assert_eq!(world.ended, Some(Ended::Cancelled));
        assert_eq!(world.run.counts(), (3, 2), "rows that were never started are in neither");
    }

    #[test]
    fn the_threshold_ends_the_run_even_at_its_last_row() {
        let wanted = Settings { threshold: Threshold { tasks_min: 4, ratio: 0.5 }, ..settings() };
        let mut world = World::new(4, wanted.clone());
        world.slots(1);
        for code in ["Succeeded", "PermanentFailure", "PermanentFailure", "PermanentFailure"] {
            world.answer(code);
        }
        assert_eq!(world.ended, Some(Ended::Failed));
        let mut even = World::new(4, wanted);
        even.slots(1);
        for code in ["PermanentFailure", "PermanentFailure", "Succeeded", "Succeeded"] {
            even.answer(code);
        }
        assert_eq!(even.ended, Some(Ended::Finished));
    }

    #[test]
    fn that_the_threshold_was_passed_is_told_before_its_results_are_recorded_and_is_not_undone() {
        let mut world = World::new(10, Settings { threshold: Threshold { tasks_min: 2, ratio: 0.5 }, ..settings() });
        world.slots(u32::MAX);
        world.disk_works = false;
        world.answer("PermanentFailure");
        assert_eq!(world.run.threshold_passed(), None);
        world.answer("PermanentFailure");
        assert_eq!((world.run.threshold_passed(), world.recorded.len()), (Some((0, 2)), 0));
        world.answer("Succeeded");
        world.answer("Succeeded");
        assert_eq!(world.run.threshold_passed(), Some((0, 2)));
    }

    #[test]
    fn what_the_log_says_is_not_done_again() {
        let mut world = World::new(6, settings());
        world.slots(u32::MAX);
        world.answer("Succeeded");
        world.answer("TemporaryFailure");
        world.answer("Succeeded");
        let mut past = world.past();
        assert_eq!(past.add(&world.recorded[0]), Err(0), "a row that is settled twice is noticed");
        let mut after = World::with_past(6, past, settings());
        after.slots(u32::MAX);
        let rows: Vec<_> = after.invoked.iter().map(|(_, task, attempt)| (task.row, *attempt)).collect();
        assert_eq!(rows, [(1, 2), (3, 1), (4, 1), (5, 1)]);
        assert_eq!(after.run.counts(), (2, 0));
    }

    #[test]
    fn a_redrive_that_waited_when_the_server_died_fails_when_the_job_is_cancelled() {
        let mut world = World::new(1, settings());
        world.slots(1);
        world.answer("TemporaryFailure");
        let mut after = World::with_past(1, world.past(), settings());
        after.give(Event::Command(Command::Cancel)).slots(1);
        assert_eq!((after.invoked.len(), after.run.counts(), after.ended), (0, (0, 1), Some(Ended::Cancelled)));
    }

    #[test]
    fn a_row_without_its_version_fails_by_itself_and_is_not_invoked() {
        let mut world = World::new(2, settings());
        world.versions = |row| if row == 0 { VersionId::Missing } else { VersionId::Given("v".into()) };
        world.slots(1);
        assert_eq!(world.answer("Succeeded"), (1, 1));
        assert_eq!((world.run.counts(), world.ended), ((1, 1), Some(Ended::Finished)));
    }

    #[test]
    fn a_bucket_that_is_an_arn_or_empty_fails_its_row_and_is_not_invoked() {
        let mut world = World::new(3, settings());
        world.buckets = |row| ["arn:aws:s3:::b", "", "b"][row as usize];
        world.slots(1);
        assert_eq!(world.answer("Succeeded"), (2, 1));
        assert_eq!((world.run.counts(), world.ended), ((1, 2), Some(Ended::Finished)));
    }

    #[test]
    fn an_answer_that_comes_twice_counts_once() {
        let mut world = World::new(2, settings());
        world.slots(1);
        let (invocation, ..) = world.invoked[0].clone();
        world.answer("Succeeded");
        world.give(Event::Answered { invocation, reply: Reply::Unreachable { cause: "late".into() } });
        assert_eq!(world.run.counts(), (1, 0));
    }

    fn drawn(rows: &[u64]) -> RoaringTreemap {
        rows.iter().copied().collect()
    }

    #[test]
    fn a_sample_is_run_and_no_other_row_and_of_the_manifest_only_its_chunks_are_read() {
        let rows = [3, 5, 90_000, 5_000_000];
        let mut world = World::of(Extent::sample(10_000_000, drawn(&rows)), Past::default(), settings());
        world.slots(u32::MAX);
        while !world.invoked.is_empty() {
            world.answer("Succeeded");
        }
        assert_eq!((world.settled(), world.ended), (rows.to_vec(), Some(Ended::Sampled)));
        assert_eq!(world.read, [3, 90_000, 5_000_000], "a chunk for each that holds rows of the sample");
    }

    #[test]
    fn a_sample_goes_on_after_a_crash_and_the_rest_leaves_its_rows_out() {
        let mut world = World::of(Extent::sample(6, drawn(&[1, 3, 4])), Past::default(), settings());
        world.slots(2);
        world.answer("Succeeded");
        world.answer("TemporaryFailure");
        let mut after = World::of(Extent::sample(6, drawn(&[1, 3, 4])), world.past(), settings());
        after.slots(u32::MAX);
        let rows: Vec<_> = after.invoked.iter().map(|(_, task, attempt)| (task.row, *attempt)).collect();
        assert_eq!(rows, [(3, 2), (4, 1)]);
        after.answer("Succeeded");
        after.answer("PermanentFailure");
        assert_eq!((after.run.counts(), after.ended), ((2, 1), Some(Ended::Sampled)));
        let mut past = world.past();
        after.recorded.iter().for_each(|e| past.add(e).unwrap());
        let mut rest = World::with_past(6, past, settings());
        rest.slots(u32::MAX);
        while !rest.invoked.is_empty() {
            rest.answer("Succeeded");
        }
        assert_eq!((rest.settled(), rest.ended), (vec![0, 2, 5], Some(Ended::Finished)));
    }

    #[test]
    fn the_threshold_and_a_cancel_end_a_sample_as_they_end_a_job() {
        let strict = Settings { threshold: Threshold { tasks_min: 2, ratio: 0.5 }, ..settings() };
        let mut world = World::of(Extent::sample(100, drawn(&[1, 2, 3, 4, 5, 6])), Past::default(), strict);
        world.slots(1);
        world.answer("PermanentFailure");
        world.answer("PermanentFailure");
        assert_eq!(world.ended, Some(Ended::Failed));
        let mut world = World::of(Extent::sample(100, drawn(&[1, 2])), Past::default(), settings());
        world.slots(1);
        world.give(Event::Command(Command::Cancel));
        world.answer("Succeeded");
        assert_eq!((world.settled(), world.ended), (vec![1], Some(Ended::Cancelled)));
    }

    #[test]
    fn a_manifest_that_is_still_being_checked_is_run_as_far_as_it_is_known_and_is_not_at_its_end() {
        let mut world = World::of(Extent::growing(), Past::default(), settings());
        world.slots(u32::MAX);
        assert_eq!((world.invoked.len(), world.ended), (0, None));
        let known = |world: &mut World, rows_total, whole| {
            world.give(Event::RowsKnown { rows_total, whole });
            while !world.invoked.is_empty() {
                world.answer("Succeeded");
            }
        };
        known(&mut world, READ_AHEAD, false);
        assert_eq!((world.run.counts(), world.ended), ((READ_AHEAD, 0), None));
        known(&mut world, READ_AHEAD + 5, true);
        assert_eq!((world.run.counts(), world.ended), ((READ_AHEAD + 5, 0), Some(Ended::Finished)));
    }

    #[test]
    fn a_manifest_that_is_read_again_after_a_crash_repeats_no_settled_row() {
        let mut world = World::of(Extent::growing(), Past::default(), settings());
        world.slots(2);
        world.give(Event::RowsKnown { rows_total: READ_AHEAD, whole: false });
        world.answer("Succeeded");
        let mut after = World::of(Extent::growing(), world.past(), settings());
        after.slots(u32::MAX);
        after.give(Event::RowsKnown { rows_total: 3, whole: true });
        assert_eq!(after.invoked.iter().map(|(_, task, _)| task.row).collect::<Vec<_>>(), [1, 2]);
        after.give(Event::Command(Command::Pause));
        after.answer("Succeeded");
        after.answer("Succeeded");
        assert_eq!(after.ended, Some(Ended::Finished));
        let mut paused = World::of(Extent::growing(), world.past(), settings());
        paused.give(Event::Command(Command::Pause));
        assert_eq!(paused.ended, Some(Ended::Paused), "where the manifest goes on is not known");
    }

    #[test]
    fn a_manifest_without_rows_left_ends_at_once() {
        let mut world = World::new(0, settings());
        world.slots(1);
        assert_eq!(world.ended, Some(Ended::Finished));
    }
}
