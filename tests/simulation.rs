//! The core in a pretend world: slow functions, lost answers, crashes, torn writes. One seed makes one world.
//!
//! The run, the record codec and the segment format are the real ones; the clock, the function and the disk are not.
//! After every event the laws below are checked; at the end the faults stop and the job must end, with the very report
//! that a naive loop over the manifest would have made. Some jobs run a sample first, some start while their manifest is
//! still being checked, some retry the tasks of an earlier job.
//!
//! A failure prints the one line that replays it:
//!
//! ```text
//! SIM_SEED=123 cargo test -p longshore-tests --test simulation
//! ```
//!
//! `SIM_SEEDS=10000` runs that many seeds, from `SIM_FIRST` on (0 if not given).

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use longshore_core::dispatch::RampSettings;
use longshore_core::invocation::{EventTemplate, Reply, Schema};
use longshore_core::random::Random;
use longshore_core::record::{Entries, Entry};
use longshore_core::retry::{Backoff, Policy};
use longshore_core::run::{Command, Effect, Ended, Event, Extent, Past, Run, Settings};
use longshore_core::sample;
use longshore_core::task::{Outcome, Task, VersionId, task_id};
use longshore_core::threshold::Threshold;
use longshore_core::time::Tick;
use longshore_store::segment;
use roaring::RoaringTreemap;

const JOB: &str = "sim";
/// Virtual milliseconds in which a job must end once the faults have stopped. The longest legal way is five attempts
/// a row with a second between them, a few rows at a time.
const LIVENESS_MS: u64 = 4 * 60 * 60 * 1_000;
const SLOTS_EVERY_MS: u64 = 200;

/// How a row's function behaves, whatever else happens to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Succeeds,
    FailsForGood,
    /// `TemporaryFailure` in the first so many attempts, then it succeeds.
    Busy(u32),
    Throws,
    AnswersGarbage,
    /// Answers for another task, and says nothing of missing ones.
    AnswersForAnother,
    HasNoVersion,
}

/// What the job has asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wish {
    Plain,
    /// These rows first; the rest once it is promoted.
    Sample(RoaringTreemap),
    /// To start while the manifest is checked. The row is bad, and found late.
    Early {
        bad: Option<u64>,
    },
}

/// Defects that the simulator must find, so that a green run means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Planted {
    /// Results are called durable before they are.
    AckBeforeSync,
    /// A crash forgets the attempts that were used up.
    ForgetAttempts,
    /// The first row behind a chunk's edge is left out after a restart.
    LoseARow,
    /// An answer is given to the next row.
    Misattribute,
    /// A crash forgets that the job is still at its sample.
    ForgetSample,
    /// The promotion forgets what the sample has settled.
    ForgetSampled,
    /// A crash forgets that the tasks have numbers of their own.
    ForgetNumbers,
    /// Rows are run before they are checked.
    RunUnchecked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Crash,
    CrashWithWork,
    TornWrite,
    LostAnswer,
    Throttle,
    DoubleAnswer,
    FullDisk,
    FailedSync,
    Pause,
    Cancel,
    /// A job that waits for its promotion is cancelled.
    CancelSampled,
    /// The object is another when its manifest is read again after a crash.
    OtherManifest,
    BadRow,
}
const FAULTS: usize = 13;

/// What comes next, and when.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: Tick,
    /// Ties are broken by the order in which things were planned.
    order: u64,
    what: What,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Answer {
        invocation: u64,
        row: u64,
        attempt: u32,
    },
    Synced {
        batch: u64,
        fails: bool,
    },
    Rows {
        first_row: u64,
        rows_max: u64,
    },
    Checked {
        rows: u64,
    },
    /// The manifest cannot be used after all.
    Unusable,
}

struct World {
    random: Random,
    now: Tick,
    settings: Settings,
    manners: Vec<Manner>,
    planted: Option<Planted>,
    faults_on: bool,

    wish: Wish,
    promoted: bool,
    /// Rows of an early job that are checked in this life of the server, and whether all of them were once.
    known: u64,
    whole: bool,
    /// Found bad, or another: the job has to fail.
    unusable: bool,
    /// What had succeeded and failed when the failure threshold was passed: the engine writes that down before any result
    /// behind it is recorded.
    passed: Option<(u64, u64)>,
    /// Whether the job retries tasks of an earlier one, which numbers them otherwise.
    retries: bool,
    restarts: u64,

    run: Run,
    due: BTreeSet<Due>,
    order: u64,
    slots: u32,
    /// When the slots are told again; the engine does so every 200 ms, whatever else happens.
    slots_at: Tick,
    ended: Option<Ended>,
    cancelled: bool,

    /// What the disk holds for sure, and the append that is not synced yet.
    disk: Vec<u8>,
    unsynced: Vec<u8>,

    /// The world's own books, kept apart from what is tested.
    in_flight: BTreeMap<u64, (u64, u32)>,
    invoked: BTreeMap<(u64, u32), u32>,
    /// What functions have seen: a task's ID, by row.
    ids: BTreeMap<u64, String>,
    /// Calls that may be made again without any crash: they were throttled or lost.
    excused: u64,
    /// Calls that crashes may have cost: in flight or answered and not durable.
    lost_to_crashes: u64,
    disturbed: BTreeMap<u64, u32>,
    settled: BTreeMap<u64, Outcome>,
    counts: (u64, u64),
    events: u64,
    faults: BTreeMap<Fault, u64>,
}

impl World {
    fn new(seed: u64, planted: Option<Planted>) -> Self {
        let mut random = Random::seeded(seed ^ 0x5EED);
        let rows = match random.below(8) {
            0 => random.below(3),
            1 => 1_023 + random.below(3),
            _ => random.below(400),
        };
        let pick = |random: &mut Random| match random.below(20) {
            0..=11 => Manner::Succeeds,
            12 | 13 => Manner::FailsForGood,
            14 | 15 => Manner::Busy(1 + random.below(7) as u32),
            16 => Manner::Throws,
            17 => Manner::AnswersGarbage,
            18 => Manner::AnswersForAnother,
            _ => Manner::HasNoVersion,
        };
        let manners: Vec<Manner> = (0..rows).map(|_| pick(&mut random)).collect();
        let settings = Settings {
            ramp: RampSettings {
                initial: 1 + random.below(8) as u32,
                max: 1 + random.below(32) as u32,
                double_every_ms: 50,
                hold_ms: 20,
            },
            retry: Policy { redrive: Backoff { base_ms: 1 + random.below(1_000), cap_ms: 1_000 }, ..Policy::default() },
            threshold: Threshold { tasks_min: if random.one_in(4) { 20 } else { 100_000 }, ratio: 0.5 },
            unrecorded_max: 1 + random.below(64) as usize,
            strict: random.one_in(4),
            gather_ms: random.below(3) * 10,
        };
        let slots = 1 + random.below(24) as u32;
        let wish = match random.below(4) {
            0 => sample::draw(JOB, rows, 1 + random.below(rows.max(1))).map_or(Wish::Plain, Wish::Sample),
            1 if rows > 0 => Wish::Early { bad: random.one_in(4).then(|| random.below(rows)) },
            _ => Wish::Plain,
        };
        let retries = random.one_in(3);
        // Made anew below, when the world knows what it is.
        let run = Run::new(JOB, Extent::all(0), Past::default(), settings.clone(), 0, Tick(0));
        let mut world = Self {
            random,
            now: Tick(0),
            settings,
            manners,
            planted,
            faults_on: true,
            wish,
            promoted: false,
            known: 0,
            whole: false,
            unusable: false,
            passed: None,
            retries,
            restarts: 0,
            run,
            due: BTreeSet::new(),
            order: 0,
            slots,
            slots_at: Tick(SLOTS_EVERY_MS),
            ended: None,
            cancelled: false,
            disk: segment::HEADER.to_vec(),
            unsynced: Vec::new(),
            in_flight: BTreeMap::new(),
            invoked: BTreeMap::new(),
            ids: BTreeMap::new(),
            excused: 0,
            lost_to_crashes: 0,
            disturbed: BTreeMap::new(),
            settled: BTreeMap::new(),
            counts: (0, 0),
            events: 0,
            faults: BTreeMap::new(),
        };
        world.begin(Past::default());
        world
    }

    /// A run from what the past says, as the engine makes it.
    fn begin(&mut self, past: Past) {
        let rows = self.manners.len() as u64;
        let extent = match &self.wish {
            Wish::Sample(_) if self.restarts > 0 && self.planted == Some(Planted::ForgetSample) => Extent::all(rows),
            Wish::Sample(drawn) if !self.promoted => Extent::sample(rows, drawn.clone()),
            Wish::Early { .. } if !self.whole => Extent::growing(),
            _ => Extent::all(rows),
        };
        let seed = self.random.next_u64();
        self.run = Run::new(self.lineage(), extent, past, self.settings.clone(), seed, self.now);
        if self.cancelled {
            self.give(Event::Command(Command::Cancel));
        } else if self.unusable || self.passed.is_some() {
            self.give(Event::Command(Command::Fail));
        } else if matches!(self.wish, Wish::Early { .. }) && !self.whole {
            self.known = 0;
            let other = self.restarts > 0 && self.fault(Fault::OtherManifest, 5);
            self.plan_check(other);
        }
        self.give(Event::Slots(self.slots));
    }

    /// The next rows of a manifest that is being checked.
    fn plan_check(&mut self, other: bool) {
        let Wish::Early { bad } = self.wish else { return };
        let rows = (self.known + 1 + self.random.below(200)).min(self.manners.len() as u64);
        let unusable = other || bad.is_some_and(|bad| bad < rows);
        // Now and then slower than the tasks are.
        let in_ms = if self.random.one_in(3) { self.random.below(3_000) } else { self.random.below(30) };
        self.plan(in_ms, if unusable { What::Unusable } else { What::Checked { rows } });
    }

    fn lineage(&self) -> &'static str {
        if self.retries { "first" } else { JOB }
    }

    /// The task's number in the manifest that had it first.
    fn number(&self, row: u64) -> u64 {
        if self.retries { 3 * row + 7 } else { row }
    }

    fn note(&mut self, fault: Fault) {
        *self.faults.entry(fault).or_default() += 1;
    }

    fn fault(&mut self, fault: Fault, one_in: u64) -> bool {
        let happens = self.faults_on && self.random.one_in(one_in);
        if happens {
            self.note(fault);
        }
        happens
    }

    fn plan(&mut self, in_ms: u64, what: What) {
        self.order += 1;
        self.due.insert(Due { at: self.now.after_ms(in_ms), order: self.order, what });
    }

    /// One life of the job, from start to end.
    fn live(&mut self) {
        let faulty_events = 200 + self.random.below(3_000);
        loop {
            if self.ended.is_some() {
                match self.ended {
                    Some(Ended::Paused) => self.restart(),
                    Some(Ended::Sampled) => self.promote(),
                    _ => return,
                }
                continue;
            }
            if self.events > faulty_events {
                self.faults_on = false;
                self.now = Tick(self.now.0.max(1));
                let stop = self.now;
                self.step_until(stop.after_ms(LIVENESS_MS));
                assert!(self.ended.is_some(), "the faults stopped and the job did not end");
                continue;
            }
            self.step();
        }
    }

    /// The sample has run, and somebody looks at it.
    fn promote(&mut self) {
        self.learn_settled();
        let Wish::Sample(drawn) = &self.wish else { panic!("a job without a sample has run one") };
        let settled: RoaringTreemap = self.settled.keys().copied().collect();
        assert_eq!(&settled, drawn, "what has run is not the sample");
        if self.fault(Fault::CancelSampled, 5) {
            self.cancelled = true;
        } else {
            self.promoted = true;
        }
        self.restart();
    }

    fn step_until(&mut self, limit: Tick) {
        while self.ended.is_none() {
            assert!(self.now < limit, "the job did not end in time");
            self.step();
        }
    }

    fn step(&mut self) {
        self.events += 1;
        if self.fault(Fault::Crash, 60) {
            return self.crash();
        }
        if self.ended.is_none() && self.fault(Fault::Pause, 300) {
            return self.give(Event::Command(Command::Pause));
        }
        if !self.cancelled && self.fault(Fault::Cancel, 3_000) {
            self.cancelled = true;
            return self.give(Event::Command(Command::Cancel));
        }
        if self.random.one_in(40) {
            self.slots = 1 + self.random.below(24) as u32;
            return self.give(Event::Slots(self.slots));
        }
        let wake = self.run.wake_at(self.now);
        let next = self.due.first().map(|d| d.at);
        if [next, wake].into_iter().flatten().all(|at| at > self.slots_at) {
            self.now = self.now.max(self.slots_at);
            self.slots_at = self.now.after_ms(SLOTS_EVERY_MS);
            return self.give(Event::Slots(self.slots));
        }
        match (next, wake) {
            (Some(at), wake) if wake.is_none_or(|w| at <= w) => {
                let due = self.due.pop_first().expect("it was the first a moment ago");
                self.now = self.now.max(due.at);
                self.happen(due.what);
            }
            (_, Some(at)) => {
                self.now = self.now.max(at);
                self.give(Event::Woken);
            }
            (None, None) | (Some(_), None) => unreachable!("the slots are told before that"),
        }
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Answer { invocation, row, attempt } => {
                if !self.in_flight.contains_key(&invocation) {
                    return;
                }
                self.in_flight.remove(&invocation);
                let disturbed = *self.disturbed.entry(row).or_default();
                let reply = if disturbed < 5 && self.fault(Fault::LostAnswer, 30) {
                    *self.disturbed.entry(row).or_default() += 1;
                    self.excused += 1;
                    Reply::Unreachable { cause: "lost".into() }
                } else if disturbed < 5 && self.fault(Fault::Throttle, 30) {
                    *self.disturbed.entry(row).or_default() += 1;
                    self.excused += 1;
                    Reply::Throttled { message: "Rate Exceeded.".into(), retry_after_ms: None }
                } else {
                    self.reply(row, attempt)
                };
                let twice = self.fault(Fault::DoubleAnswer, 50).then(|| reply.clone());
                self.give(Event::Answered { invocation, reply });
                if let Some(reply) = twice {
                    self.give(Event::Answered { invocation, reply });
                }
            }
            What::Synced { fails: true, .. } => {
                // The server stops at the first failed sync; what was written may be there or not.
                self.note(Fault::FailedSync);
                self.crash();
            }
            What::Synced { batch, fails: false } => {
                self.disk.append(&mut self.unsynced);
                self.learn_settled();
                self.give(Event::Recorded { batch });
            }
            What::Rows { first_row, rows_max } => {
                let mut last = (first_row + rows_max).min(self.manners.len() as u64);
                let checked = self.whole || self.planted == Some(Planted::RunUnchecked);
                if matches!(self.wish, Wish::Early { .. }) && !checked {
                    last = last.min(self.known);
                }
                let lost = self.planted == Some(Planted::LoseARow) && first_row > 0;
                let rows = (first_row + u64::from(lost)..last).map(|row| self.task(row)).collect();
                self.give(Event::Rows(rows));
            }
            What::Checked { rows } => {
                self.known = rows;
                self.whole = rows == self.manners.len() as u64;
                let early = self.planted == Some(Planted::RunUnchecked);
                let rows_total = if early { self.manners.len() as u64 } else { rows };
                self.give(Event::RowsKnown { rows_total, whole: self.whole });
                if !self.whole {
                    self.plan_check(false);
                }
            }
            What::Unusable => {
                self.note(Fault::BadRow);
                self.unusable = true;
                self.give(Event::Command(Command::Fail));
            }
        }
    }

    fn task(&self, row: u64) -> Task {
        let version = match self.manners[row as usize] {
            Manner::HasNoVersion => VersionId::Missing,
            _ => VersionId::Given("v".into()),
        };
        let forgotten = self.planted == Some(Planted::ForgetNumbers) && self.restarts > 0;
        let number = if forgotten { row } else { self.number(row) };
        Task { row, number, bucket: "b".into(), key: format!("key-{row}").into(), version }
    }

    fn reply(&self, row: u64, attempt: u32) -> Reply {
        let named = if self.planted == Some(Planted::Misattribute) { row.saturating_sub(1) } else { row };
        let id = task_id(self.lineage(), self.number(named));
        let answer = |id: &str, code: &str| {
            Reply::Answer(Bytes::from(format!(
                r#"{{"results":[{{"taskId":"{id}","resultCode":"{code}","resultString":"row {row}"}}]}}"#
            )))
        };
        match self.manners[row as usize] {
            Manner::Succeeds => answer(&id, "Succeeded"),
            Manner::FailsForGood => answer(&id, "PermanentFailure"),
            Manner::Busy(times) if attempt <= times => answer(&id, "TemporaryFailure"),
            Manner::Busy(_) => answer(&id, "Succeeded"),
            Manner::Throws => Reply::FunctionError(Bytes::from_static(b"{}")),
            Manner::AnswersGarbage => Reply::Answer(Bytes::from_static(b"\xff")),
            Manner::AnswersForAnother => answer("somebody-else", "Succeeded"),
            Manner::HasNoVersion => panic!("row {row} has no version and was invoked"),
        }
    }

    /// What a naive loop over the manifest would have reported.
    fn naive(&self, row: u64) -> Outcome {
        let message = format!("row {row}");
        match self.manners[row as usize] {
            Manner::Succeeds => Outcome::succeeded(message),
            Manner::FailsForGood => Outcome::failed(200, "PermanentFailure", message),
            Manner::Busy(times) if times < 5 => Outcome::succeeded(message),
            Manner::Busy(_) => Outcome::failed(200, "TemporaryFailure", message),
            Manner::Throws => Outcome::failed(200, "PermanentFailure", "Lambda returned function error: {}"),
            Manner::AnswersGarbage => {
                Outcome::failed(200, "PermanentFailure", "Invalid JSON returned in Lambda payload")
            }
            Manner::AnswersForAnother => {
                Outcome::failed(200, "TemporaryFailure", "Task result missing from Lambda response")
            }
            Manner::HasNoVersion => Outcome::failed(400, "InvalidRequest", "Task failed due to missing VersionId"),
        }
    }

    fn give(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            self.run.handle(event, self.now);
            self.passed = self.passed.or(self.run.threshold_passed());
            while let Some(effect) = self.run.next_effect() {
                match effect {
                    Effect::Read { first_row, rows_max } => {
                        let in_ms = self.random.below(5);
                        self.plan(in_ms, What::Rows { first_row, rows_max });
                    }
                    Effect::Invoke { invocation, task, attempt } => self.invoke(invocation, &task, attempt),
                    Effect::Record { batch, entries } => events.extend(self.record(batch, &entries)),
                    Effect::Ended(ended) => self.ended = Some(ended),
                }
            }
        }
        self.check();
    }

    fn invoke(&mut self, invocation: u64, task: &Task, attempt: u32) {
        assert!(!self.cancelled, "row {} was invoked after the cancel was answered (X8)", task.row);
        assert!(!self.settled.contains_key(&task.row), "settled row {} was invoked again (E-2)", task.row);
        if let (Wish::Sample(drawn), false) = (&self.wish, self.promoted) {
            assert!(drawn.contains(task.row), "row {} was invoked before the promotion", task.row);
        }
        if let (Wish::Early { .. }, false) = (&self.wish, self.whole) {
            assert!(task.row < self.known, "row {} was invoked before it was checked", task.row);
        }
        assert!(!self.unusable, "row {} was invoked of a manifest that is no good", task.row);
        let id = EventTemplate::new(JOB, self.lineage(), Schema::V1, &[]).task_id(task);
        let known = self.ids.entry(task.row).or_insert_with(|| id.clone());
        assert_eq!(*known, id, "the task ID of row {} has changed", task.row);
        assert_eq!(id, task_id(self.lineage(), self.number(task.row)), "row {} has the ID of another task", task.row);
        assert!((1..=5).contains(&attempt), "row {} is at attempt {attempt} (X4)", task.row);
        *self.invoked.entry((task.row, attempt)).or_default() += 1;
        // A limit that has just been lowered may have been passed by what had started.
        let allowed = self.slots.min(self.settings.ramp.max) as usize;
        assert!(
            self.in_flight.len() < allowed,
            "a call starts beside {allowed} others, which are all there may be (X7)"
        );
        self.in_flight.insert(invocation, (task.row, attempt));
        let in_ms = if self.random.one_in(20) { self.random.below(2_000) } else { self.random.below(20) };
        self.plan(in_ms, What::Answer { invocation, row: task.row, attempt });
    }

    /// Begins to write a batch; says at once what is known at once.
    fn record(&mut self, batch: u64, entries: &Arc<Entries>) -> Option<Event> {
        let early = self.planted == Some(Planted::AckBeforeSync);
        assert!(self.unsynced.is_empty() || early, "two batches are under way at once");
        if self.fault(Fault::FullDisk, 25) {
            return Some(Event::NotRecorded { batch });
        }
        segment::push_frame(&mut self.unsynced, entries.payload());
        if early {
            return Some(Event::Recorded { batch });
        }
        let in_ms = if self.random.one_in(20) { self.random.below(1_500) } else { self.random.below(10) };
        let fails = self.faults_on && self.random.one_in(200);
        self.plan(in_ms, What::Synced { batch, fails });
        None
    }

    /// Reads the disk as a server would that starts now.
    fn recover(&self) -> (Past, usize) {
        let mut past = Past::default();
        let recovered = segment::recover(&self.disk, |payload| {
            Entry::decode_all(payload, |entry| {
                if self.planted == Some(Planted::ForgetAttempts) && matches!(entry, Entry::Redriven { .. }) {
                    return;
                }
                past.add(&entry).unwrap_or_else(|row| panic!("row {row} is settled twice (X1)"));
            })
            .expect("a frame that passed its checksum reads");
        });
        (past, recovered.expect("no crash looks like damage").valid_len)
    }

    fn crash(&mut self) {
        self.note(Fault::Crash);
        if !self.in_flight.is_empty() {
            self.note(Fault::CrashWithWork);
        }
        self.lost_to_crashes += (self.in_flight.len() + self.run.unrecorded()) as u64;
        // Of the unsynced append each 512-byte piece is there, gone, or torn, and the file may have any length.
        let mut tail = std::mem::take(&mut self.unsynced);
        if !tail.is_empty() {
            self.note(Fault::TornWrite);
            for piece in tail.chunks_mut(512) {
                match self.random.below(3) {
                    0 => piece.fill(0),
                    1 => {
                        let from = self.random.below(piece.len() as u64) as usize;
                        piece[from..].fill(0);
                    }
                    _ => {}
                }
            }
            if self.random.one_in(2) {
                tail.truncate(self.random.below(tail.len() as u64 + 1) as usize);
            }
            self.disk.append(&mut tail);
        }
        let (_, valid) = self.recover();
        self.disk.truncate(valid);
        self.restart();
    }

    /// A new server, or a new turn after a pause: what the disk says, and nothing else.
    fn restart(&mut self) {
        // What was under way was under way in the old one.
        self.due.clear();
        self.in_flight.clear();
        self.restarts += 1;
        let (mut past, _) = self.recover();
        self.learn_settled();
        assert!(
            past.succeeded() >= self.counts.0 && past.failed() >= self.counts.1,
            "the counts went back from {:?} to {:?} (X2)",
            self.counts,
            (past.succeeded(), past.failed())
        );
        self.ended = None;
        if self.planted == Some(Planted::ForgetSampled) && self.promoted {
            past = Past::default();
        }
        self.begin(past);
    }

    /// Takes what has become durable into the world's own books; nothing in them may change.
    fn learn_settled(&mut self) {
        let mut seen = BTreeMap::new();
        segment::recover(&self.disk, |payload| {
            Entry::decode_all(payload, |entry| {
                if let Entry::Settled { task, outcome, .. } = entry {
                    assert!(seen.insert(task.row, outcome).is_none(), "row {} is settled twice (X1)", task.row);
                }
            })
            .expect("a frame that passed its checksum reads");
        })
        .expect("no crash looks like damage");
        for (row, outcome) in &self.settled {
            assert_eq!(seen.get(row), Some(outcome), "the result of row {row} changed or vanished (X6)");
        }
        self.settled = seen;
    }

    /// The laws that hold at every moment.
    fn check(&mut self) {
        assert_eq!(self.run.in_flight(), self.in_flight.len(), "the run has lost count of its calls");
        let counts = self.run.counts();
        assert!(counts.0 >= self.counts.0 && counts.1 >= self.counts.1, "the counts went back (X2)");
        assert!(counts.0 + counts.1 <= self.manners.len() as u64, "more results than rows (X2)");
        self.counts = counts;
        let (limit, w) = (self.settings.ramp.max as usize, self.settings.unrecorded_max);
        // Answers that came while W was full, and rows that failed without a call as they were read.
        let uncalled = self.manners.iter().filter(|m| **m == Manner::HasNoVersion).count();
        assert!(
            self.cancelled || self.unusable || self.run.unrecorded() <= w + limit + uncalled,
            "{} answers are not durable and W is {w} (X4)",
            self.run.unrecorded()
        );
    }

    /// What must be true at the end.
    fn audit(&mut self) {
        self.learn_settled();
        let rows = self.manners.len() as u64;
        let counted = (
            self.settled.values().filter(|o| o.succeeded).count() as u64,
            self.settled.values().filter(|o| !o.succeeded).count() as u64,
        );
        assert_eq!(self.run.counts(), counted, "the counts do not equal the report (X2)");
        match self.ended {
            Some(Ended::Finished) => {
                assert_eq!(self.settled.len() as u64, rows, "a row is missing (X1)");
                assert_eq!(self.passed, None, "the threshold was passed, and the job goes on (X9)");
            }
            Some(Ended::Failed) if self.unusable => {}
            // What was in flight when the threshold was passed may have brought the ratio down again, and a crash may have
            // taken some of what it was passed with.
            Some(Ended::Failed) => {
                let (succeeded, failed) = self.passed.expect("nothing else fails a job here");
                assert!(
                    self.settings.threshold.passed(succeeded, failed),
                    "{succeeded} and {failed} pass no threshold (X9)"
                );
            }
            Some(Ended::Cancelled) => assert!(self.cancelled),
            other => panic!("the job ended as {other:?}"),
        }
        let whole = self.ended == Some(Ended::Finished);
        for (row, outcome) in &self.settled {
            let naive = self.naive(*row);
            // A redrive that the end cut short fails with the last error, which a naive loop would not have kept.
            let again = ["TemporaryFailure", "ServiceUnavailable", "TooManyRequestsException"];
            let cut_short = !whole && again.contains(&outcome.error_code.as_str());
            assert!(*outcome == naive || cut_short, "row {row}: {outcome:?}, a naive loop says {naive:?}");
        }
        let repeats: u64 = self.invoked.values().map(|n| u64::from(*n) - 1).sum();
        assert!(
            repeats <= self.lost_to_crashes + self.excused,
            "{repeats} calls were repeated; crashes explain {}, lost answers {} (X4)",
            self.lost_to_crashes,
            self.excused
        );
    }
}

fn simulate(seed: u64, planted: Option<Planted>) -> Result<(BTreeMap<Fault, u64>, u64), String> {
    let told = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(seed, planted);
        world.live();
        world.audit();
        (world.faults.clone(), world.events)
    }));
    told.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default()
    })
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

/// Seeds derived from the commit, where there is one, so that each commit explores new ones.
fn first_seed() -> u64 {
    let commit = std::process::Command::new("git").args(["rev-parse", "HEAD"]).output();
    let commit = commit.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default();
    u64::from_str_radix(commit.get(..8).unwrap_or("0"), 16).unwrap_or(0) << 16
}

#[test]
fn the_laws_hold_in_every_world() {
    let (first, seeds) = match number("SIM_SEED") {
        Some(seed) => (seed, 1),
        None => (number("SIM_FIRST").unwrap_or_else(first_seed), number("SIM_SEEDS").unwrap_or(1_500)),
    };
    let (mut faults, mut events, mut counted) = (BTreeMap::<Fault, u64>::new(), 0, 0);
    for seed in first..first + seeds {
        match simulate(seed, None) {
            Ok((seen, steps)) => {
                events += steps;
                // A world without a crash while something was in flight shows little.
                counted += u64::from(seen.contains_key(&Fault::CrashWithWork));
                seen.into_iter().for_each(|(fault, n)| *faults.entry(fault).or_default() += n);
            }
            Err(why) => panic!("{why}\nreplay: SIM_SEED={seed} cargo test -p longshore-tests --test simulation"),
        }
    }
    println!(
        "{seeds} seeds from {first}, {counted} with a crash while work was in flight, {events} events: {faults:?}"
    );
    if seeds >= 1_000 {
        assert!(counted > seeds / 2, "the worlds are too kind: {counted} of {seeds} crashed with work in flight");
        assert_eq!(faults.len(), FAULTS, "a kind of fault never happened: {faults:?}");
    }
}

#[test]
fn one_seed_makes_one_world() {
    for seed in 0..20 {
        let first = simulate(seed, None);
        assert!(first.is_ok());
        assert_eq!(first, simulate(seed, None));
    }
}

#[test]
fn planted_defects_are_found() {
    // Many panics are expected here; their messages are not news.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let planted = [
        Planted::AckBeforeSync,
        Planted::ForgetAttempts,
        Planted::LoseARow,
        Planted::Misattribute,
        Planted::ForgetSample,
        Planted::ForgetSampled,
        Planted::ForgetNumbers,
        Planted::RunUnchecked,
    ];
    let found: Vec<_> = planted
        .map(|planted| (planted, (0..500).find_map(|seed| Some((seed, simulate(seed, Some(planted)).err()?)))))
        .into();
    std::panic::set_hook(hook);
    for (planted, found) in found {
        let (seed, why) = found.unwrap_or_else(|| panic!("{planted:?} was not found in 500 seeds"));
        println!("{planted:?} found by seed {seed}: {why}");
    }
}
