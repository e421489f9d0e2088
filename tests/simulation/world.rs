//! One world: its servers, its disk and its clients, the books that are kept of them, and the laws that are checked after
//! every event. The books are the world's own: nothing in them comes from what is tested but what it has asked for.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use longshore_core::job::Status;
use longshore_core::random::Random;
use longshore_core::record::Entry;
use longshore_core::sample;
use longshore_core::task::{Outcome, task_id};
use longshore_core::time::Timestamp;
use longshore_jobs::ledger::{Duty, Fence, Ledger, Memory};
use longshore_store::{Files, Position, ResultLog, StoreError};
use roaring::RoaringTreemap;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::defect::Defect;
use crate::disk::{Disk, DiskDefect, Mount, Off};
use crate::machine::Machine;
use crate::plan::{Fault, Manner, Plan};

/// When every world begins, by its wall clock: in 2023.
const BORN_MS: i64 = 1_700_000_000_000;
pub const ACCOUNT: &str = "123456789012";
/// Functions that jobs call, one after the other.
pub const FUNCTIONS: usize = 2;
/// How long a server may go on with the number of slots that it was told last. It asks five times a second.
const SLOTS_STALE: Duration = Duration::from_millis(250);
/// Calls of one row that are lost or throttled on purpose, at most: a task may fail for too many of either.
const DISTURBED_MAX: u32 = 5;

/// See the module.
pub struct World {
    pub plan: Plan,
    pub defect: Option<Defect>,
    pub began: Instant,
    /// What all servers share: the ledger, and the folder with manifests and spools.
    pub ledger: Memory,
    pub dir: std::path::PathBuf,
    /// The disk below that folder, where the world has one, and what is wrong with whoever uses it.
    pub disk: Option<Disk>,
    pub disk_defect: Option<DiskDefect>,
    /// Told when a law is broken.
    pub ended: Notify,
    state: Mutex<State>,
}

/// What is wrong with what is tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    Nothing,
    Above(Defect),
    /// Between a server and its disk.
    AtTheDisk(DiskDefect),
}

/// What changes.
pub struct State {
    pub random: Random,
    pub faults_on: bool,
    pub faults: BTreeMap<Fault, u64>,
    /// Crashes while calls were in flight.
    pub crashes_with_work: u64,
    pub events: u64,
    /// Of every event, in order.
    trace: u64,
    violation: Option<String>,
    /// The present life of each server.
    pub machines: Vec<Arc<Machine>>,
    pub jobs: Vec<JobBook>,
    /// Which of `jobs` an ID belongs to.
    by_id: BTreeMap<String, usize>,
    /// What the wall clock is ahead of the world's, in milliseconds.
    pub wall_ahead_ms: i64,
    /// Until then the disk is full.
    pub full_until: Instant,
    pub slots: [u32; FUNCTIONS],
    /// Per machine and function: what it was told of slots, and when.
    told: BTreeMap<(usize, u64, usize), Vec<(Instant, u32)>>,
    /// Calls in flight, by machine and function.
    running: BTreeMap<(usize, u64, usize), u32>,
    pub calls: u64,
    next_id: u64,
    /// The newest lease of each duty.
    newest: BTreeMap<Duty, Fence>,
    /// Jobs of whose results something was torn at a crash.
    torn: BTreeSet<String>,
}

/// What is known of one job.
pub struct JobBook {
    /// Its ID, once a client or the ledger has named it.
    pub id: Option<String>,
    pub rows: Vec<RowBook>,
    /// Calls in flight, by machine.
    pub running: BTreeMap<(usize, u64), u32>,
    tasks: BTreeMap<String, usize>,
    drawn: Option<RoaringTreemap>,
    /// Which version of its manifest's object there is now. The job names the first.
    pub version: u32,
    /// Every status it has had, in order.
    pub statuses: Vec<Status>,
    /// Final results in the order in which they became durable: whether each succeeded.
    pub results: Vec<bool>,
    /// Whether some prefix of them has passed the threshold.
    pub threshold_passed: bool,
    /// What clients were shown: the greatest counts.
    pub seen: (u64, u64),
    pub cancel_sent: bool,
    pub cancel_answered: bool,
    /// What has been put of its report.
    pub report: BTreeMap<String, Bytes>,
    /// How far its results have been learned, and what that was.
    pub learned: Position,
    entries: Vec<Entry>,
    /// Events that the sink has taken, by their statuses, without repeats.
    pub delivered: Vec<String>,
    /// Whether its sample has run.
    pub sample_run: bool,
}

/// What is known of one row.
#[derive(Default)]
pub struct RowBook {
    /// Calls that have begun.
    pub calls: u32,
    /// The machine of the last call, and whether that call is over.
    last: Option<(usize, u64)>,
    /// The last call has asked to be made again, or did not get through.
    again: bool,
    /// Its last answer has come, and is not durable yet.
    undurable: bool,
    /// Attempts that are durable, of those that count.
    redriven: u32,
    pub disturbed: u32,
    pub settled: Option<Outcome>,
    id: String,
}

/// One call that may begin.
pub struct Call {
    pub job: usize,
    pub row: usize,
    /// Counts the calls of this row, from 1.
    pub number: u32,
    pub task_id: String,
}

impl World {
    pub fn new(plan: Plan, planted: Planted, ledger: Memory, dir: std::path::PathBuf) -> Arc<Self> {
        let jobs = plan.jobs.iter().map(|job| JobBook {
            id: None,
            rows: job.rows.iter().map(|_| RowBook::default()).collect(),
            running: BTreeMap::new(),
            tasks: BTreeMap::new(),
            drawn: None,
            version: 1,
            statuses: Vec::new(),
            results: Vec::new(),
            threshold_passed: false,
            seen: (0, 0),
            cancel_sent: false,
            cancel_answered: false,
            report: BTreeMap::new(),
            learned: Position::default(),
            entries: Vec::new(),
            delivered: Vec::new(),
            sample_run: false,
        });
        let now = Instant::now();
        let state = State {
            random: Random::seeded(plan.seed),
            faults_on: true,
            faults: BTreeMap::new(),
            crashes_with_work: 0,
            events: 0,
            trace: 0xCBF2_9CE4_8422_2325,
            violation: None,
            machines: Vec::new(),
            jobs: jobs.collect(),
            by_id: BTreeMap::new(),
            wall_ahead_ms: 0,
            full_until: now,
            slots: [plan.slots; FUNCTIONS],
            told: BTreeMap::new(),
            running: BTreeMap::new(),
            calls: 0,
            next_id: 0,
            newest: BTreeMap::new(),
            torn: BTreeSet::new(),
        };
        let (defect, disk_defect) = match planted {
            Planted::Nothing => (None, None),
            Planted::Above(defect) => (Some(defect), None),
            Planted::AtTheDisk(defect) => (None, Some(defect)),
        };
        let disk = plan.disk.map(|on| {
            let disk = Disk::new(plan.seed ^ 0xD15C);
            disk.look().make_folder(&dir).expect("a new disk has room");
            disk.settle();
            disk.set_odds(on.odds);
            disk
        });
        Arc::new(Self {
            plan,
            defect,
            began: now,
            ledger,
            dir,
            disk,
            disk_defect,
            ended: Notify::new(),
            state: Mutex::new(state),
        })
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn has(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    // ── Chance and time ──

    /// Whether a fault happens at this chance. One that does is counted, unless a crash is to note it itself.
    pub fn fault(&self, fault: Fault) -> bool {
        let rate = self.plan.rate(fault);
        let mut state = self.state();
        if rate == 0 || !state.faults_on || !state.random.one_in(rate) {
            return false;
        }
        let noted_later = matches!(
            fault,
            Fault::CrashBeforeWrite
                | Fault::CrashAfterWrite
                | Fault::CrashAtFiles
                | Fault::CrashAtObjects
                | Fault::CrashAtStart
                | Fault::TornWrite
                | Fault::LostWrite
        );
        if !noted_later {
            *state.faults.entry(fault).or_default() += 1;
        }
        true
    }

    pub fn note(&self, fault: Fault) {
        *self.state().faults.entry(fault).or_default() += 1;
    }

    pub fn one_in(&self, n: u64) -> bool {
        self.state().random.one_in(n)
    }

    pub fn below(&self, n: u64) -> u64 {
        self.state().random.below(n)
    }

    /// Random bits for a server: its IDs, and the seeds of its own randomness.
    pub fn bits(&self) -> u128 {
        let mut state = self.state();
        state.next_id += 1;
        (u128::from(state.random.next_u64()) << 64) | u128::from(state.random.next_u64())
    }

    /// Whether this call is one at which the world has a server die.
    pub fn dies_at_call(&self) -> bool {
        let state = self.state();
        state.faults_on && self.plan.crashes_at_calls.contains(&state.calls)
    }

    pub async fn sleep_up_to(&self, ms: u64) {
        let ms = self.below(ms + 1);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    /// How long something that has kept a server from its ledger may show: some terms of a lease, and the calls to the
    /// ledger that are slow one after the other.
    fn lately(&self) -> Duration {
        Duration::from_millis(self.plan.lease_ms * 3 + 20_000)
    }

    /// What a server's wall clock says.
    pub fn wall_clock(&self) -> Timestamp {
        let ms = self.began.elapsed().as_millis() as i64;
        Timestamp(BORN_MS + ms + self.state().wall_ahead_ms)
    }

    // ── What has happened ──

    /// Takes an event into the trace.
    pub fn event(&self, what: &str, detail: u64) {
        self.event_told(what, detail, format_args!("{what} {detail}"));
    }

    /// As [`World::event`], told in words of its own.
    pub fn event_told(&self, what: &str, detail: u64, told: std::fmt::Arguments<'_>) {
        let ms = self.began.elapsed().as_millis() as u64;
        let mut state = self.state();
        state.events += 1;
        let bytes = what.bytes().chain(detail.to_le_bytes()).chain(ms.to_le_bytes());
        // FNV-1a.
        state.trace = bytes.fold(state.trace, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
        if crate::verbose() {
            drop(state);
            eprintln!("{ms:>8} ms  {told}");
        }
    }

    pub fn trace(&self) -> u64 {
        self.state().trace
    }

    /// A law is broken, or something has panicked.
    pub fn violated(&self, panic: &Box<dyn Any + Send>) {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        self.violate(&text.unwrap_or_else(|| "a panic without words".into()));
    }

    fn violate(&self, text: &str) {
        let at = self.began.elapsed().as_millis();
        self.state().violation.get_or_insert_with(|| format!("{text} (at {at} ms)"));
        self.ended.notify_one();
    }

    pub fn violation(&self) -> Option<String> {
        self.state().violation.clone()
    }

    pub fn noticed_death(&self, machine: &Machine) {
        self.event("death of server", machine.server as u64);
        let mut state = self.state();
        let mine = |key: &(usize, u64, usize)| (key.0, key.1) == (machine.server, machine.life);
        if state.running.iter().any(|(key, running)| mine(key) && *running > 0) {
            state.crashes_with_work += 1;
        }
        state.running.retain(|key, _| !mine(key));
        state.told.retain(|key, _| !mine(key));
    }

    // ── Jobs ──

    pub fn job_of(&self, id: &str) -> Option<usize> {
        self.state().by_id.get(id).copied()
    }

    /// A job exists, in status New: the ledger says so.
    pub fn job_made(&self, job: usize, id: &str) {
        let mut state = self.state();
        let book = &mut state.jobs[job];
        assert!(book.id.is_none(), "the token of job {job} has made a second job, {id} (D1)");
        book.id = Some(id.to_owned());
        for row in 0..book.rows.len() {
            let task = task_id(id, row as u64);
            book.rows[row].id.clone_from(&task);
            book.tasks.insert(task, row);
        }
        let plan = &self.plan.jobs[job];
        book.drawn = plan.sample.and_then(|wanted| sample::draw(id, plan.rows.len() as u64, wanted));
        book.statuses.push(Status::New);
        state.by_id.insert(id.to_owned(), job);
    }

    /// The ledger says that a job has moved.
    pub fn job_moved(&self, id: &str, to: Status) {
        let Some(job) = self.job_of(id) else { panic!("{id} moved to {to:?} and was never made (D1)") };
        self.event_told(to.name(), job as u64, format_args!("job {job} is {}", to.name()));
        let plan = &self.plan.jobs[job];
        let mut state = self.state();
        // Who stands still may still have calls under way that it cannot know are nobody's any more.
        let lease = self.lately();
        let well = |who: &(usize, u64)| {
            state.machines.iter().any(|machine| (machine.server, machine.life) == *who && !machine.was_shaken(lease))
        };
        let running: u32 = state.jobs[job].running.iter().filter(|(who, _)| well(who)).map(|(_, calls)| calls).sum();
        let book = &mut state.jobs[job];
        let Some(from) = book.statuses.last().copied() else { panic!("job {job} moved before it was made") };
        if from == to {
            return;
        }
        assert!(!from.is_terminal(), "job {job} was {from:?} and became {to:?} (X6)");
        assert!(DOCUMENTED.contains(&(from, to)), "job {job} went from {from:?} to {to:?} (X6)");
        book.statuses.push(to);
        if matches!(from, Status::Active | Status::Pausing) && to == Status::Suspended {
            book.sample_run = true;
        }
        if matches!(to, Status::Completing | Status::Paused | Status::Suspended) || to.is_terminal() {
            assert_eq!(running, 0, "job {job} became {to:?} while calls of it were in flight (X8)");
        }
        if to == Status::Complete && plan.report && !plan.rows.is_empty() {
            assert!(
                book.report.keys().any(|key| key.ends_with("/manifest.json")),
                "job {job} became Complete before its report was there (X11)"
            );
        }
    }

    /// What has become durable of a job's results since this was last looked at.
    pub fn learn(&self, id: &str) {
        let Some(job) = self.job_of(id) else { return };
        let from = self.state().jobs[job].learned;
        let mut entries = Vec::new();
        let read = self.read_results(id, from, &mut entries);
        self.state().jobs[job].learned = read.expect("durable results read (D6)");
        for entry in entries {
            self.learned(job, &entry);
            self.state().jobs[job].entries.push(entry);
        }
    }

    /// As [`World::learn`], after an opening: what was learned before has to be there still.
    pub fn learn_anew(&self, id: &str) {
        let Some(job) = self.job_of(id) else { return };
        if let Some(disk) = &self.disk {
            self.survives(job, id, &disk.look());
            // An opening may have cut off what was there, and a position of the process before is none of this one's.
            let mut read = Vec::new();
            let to = self.read_results(id, Position::default(), &mut read).expect("durable results read (D6)");
            let known = self.state().jobs[job].entries.len();
            let mut state = self.state();
            state.jobs[job].learned = to;
            drop(state);
            for entry in read.drain(known..) {
                self.learned(job, &entry);
                self.state().jobs[job].entries.push(entry);
            }
            return;
        }
        self.learn(id);
    }

    /// What was learned of a job's results has to be on a disk, first and in order.
    fn survives(&self, job: usize, id: &str, files: &Mount) {
        let mut read = Vec::new();
        let path = self.dir.join(id).join("results");
        let found = ResultLog::read(files, &path, |payload| {
            Entry::decode_all(payload, |entry| read.push(entry)).expect("a frame that passes its checksum reads (D6)");
        });
        assert!(found.is_ok(), "the results of job {job} are damaged after a crash: {found:?} (D6)");
        let known = &self.state().jobs[job].entries;
        for (place, entry) in known.iter().enumerate() {
            let row = entry.task().row;
            assert!(read.get(place) == Some(entry), "what was known of row {row} of job {job} is gone (D1, X6)");
        }
    }

    /// The world is over, and then the power goes.
    pub fn outlives_a_power_cut(&self) {
        let Some(disk) = &self.disk else { return };
        let fork = disk.fork(self.plan.seed);
        fork.cut(Off::Powerless);
        let ids: Vec<_> = self.state().jobs.iter().map(|book| book.id.clone()).collect();
        for (job, id) in ids.iter().enumerate() {
            if let Some(id) = id {
                self.survives(job, id, &fork.look());
            }
        }
    }

    fn read_results(&self, id: &str, from: Position, entries: &mut Vec<Entry>) -> Result<Position, StoreError> {
        let mut each = |payload: &[u8]| {
            Entry::decode_all(payload, |entry| entries.push(entry)).expect("a durable frame reads (D6)");
        };
        match &self.disk {
            Some(disk) => ResultLog::read_on(&disk.look(), &self.dir.join(id).join("results"), from, each),
            None => self.ledger.read_results(id, from, &mut each),
        }
    }

    /// A run of the job begins with what is durable: whatever answers an earlier one had are forgotten.
    pub fn run_begins(&self, id: &str) {
        let Some(job) = self.job_of(id) else { return };
        self.event("run of job", job as u64);
        self.forget_answers(job);
    }

    /// What an earlier run has not made durable will not be, and whose fault that is shows now.
    fn forget_answers(&self, job: usize) {
        let mut state = self.state();
        let lost: Vec<bool> = state.jobs[job].rows.iter().map(|row| self.was_lost(&state, row)).collect();
        for (row, lost) in state.jobs[job].rows.iter_mut().zip(lost) {
            // From here on it may be called again, whenever that is.
            row.again |= lost;
            row.undurable = false;
        }
    }

    /// Whether the last call of a row came to nothing through what the world has done to the machine that made it.
    fn was_lost(&self, state: &State, row: &RowBook) -> bool {
        let within = self.lately();
        let Some(last) = row.last.filter(|_| row.settled.is_none()) else { return false };
        state.machines.iter().all(|machine| (machine.server, machine.life) != last || machine.was_shaken(within))
    }

    fn learned(&self, job: usize, entry: &Entry) {
        let row = entry.task().row as usize;
        let what = if matches!(entry, Entry::Settled { .. }) { "settled" } else { "redriven" };
        self.event_told(what, row as u64, format_args!("{what} row {row} of job {job}"));
        let plan = &self.plan.jobs[job];
        let mut state = self.state();
        let book = &mut state.jobs[job];
        assert!(row < book.rows.len(), "row {row} of job {job} is settled, which has {} (X1)", book.rows.len());
        // The first version is the one that the job names.
        let key = plan.key(job, 1, row);
        assert_eq!(*entry.task().key, key, "row {row} of job {job} has the key of another row or manifest (X12)");
        let kept = &mut book.rows[row];
        kept.undurable = false;
        match entry {
            Entry::Settled { outcome, .. } => {
                assert!(kept.settled.is_none(), "row {row} of job {job} is settled twice (X1)");
                check_attribution(job, row, kept.calls, outcome);
                kept.settled = Some(outcome.clone());
                book.results.push(outcome.succeeded);
                let succeeded = book.results.iter().filter(|ok| **ok).count() as u64;
                let failed = book.results.len() as u64 - succeeded;
                book.threshold_passed |= self.plan.settings.threshold.passed(succeeded, failed);
            }
            Entry::Redriven { attempts, .. } => {
                assert!(*attempts > kept.redriven, "attempts at row {row} of job {job} went back (X4)");
                assert!(*attempts < 5, "row {row} of job {job} is to be tried again after {attempts} attempts (X4)");
                kept.redriven = *attempts;
            }
        }
    }

    /// What a client was shown of a job, `floor` being what it or another had been shown before it asked.
    pub fn seen(&self, job: usize, floor: (u64, u64), counts: (u64, u64), total: u64, status: Status) {
        let mut state = self.state();
        let rows = state.jobs[job].rows.len() as u64;
        let book = &mut state.jobs[job];
        assert!(
            counts.0 >= floor.0 && counts.1 >= floor.1,
            "the counts of job {job} went back from {floor:?} to {counts:?} (X2)"
        );
        let durable = book.results.iter().filter(|ok| **ok).count() as u64;
        let durable = (durable, book.results.len() as u64 - durable);
        assert!(
            counts.0 <= durable.0 && counts.1 <= durable.1,
            "job {job} showed {counts:?}, of which {durable:?} are durable (X2)"
        );
        assert!(counts.0 + counts.1 <= total && total <= rows, "job {job} shows {counts:?} of {total} of {rows} (X2)");
        if status == Status::Complete {
            assert_eq!(counts, durable, "job {job} is Complete with other counts than results (X2)");
            assert_eq!(counts.0 + counts.1, total, "job {job} is Complete with rows missing (X2)");
        }
        book.seen = (book.seen.0.max(counts.0), book.seen.1.max(counts.1));
    }

    /// A duty has a new lease, or the one it had for longer.
    pub fn leased(&self, fence: &Fence) {
        match &fence.duty {
            Duty::Job(id) => self.event("lease of job", self.job_of(id).unwrap_or_default() as u64),
            Duty::Sink(_) => self.event("lease of the sink", fence.epoch.0),
        }
        let before = self.state().newest.insert(fence.duty.clone(), fence.clone());
        if let (true, Duty::Job(id)) = (before.is_none_or(|before| before != *fence), &fence.duty)
            && let Some(job) = self.job_of(id)
        {
            self.forget_answers(job);
        }
    }

    // ── For defects ──

    /// The newest lease of the duty that a lease is for.
    pub fn newest(&self, fence: &Fence) -> Fence {
        self.state().newest.get(&fence.duty).unwrap_or(fence).clone()
    }

    /// The newest lease of each duty.
    pub fn leases(&self) -> Vec<Fence> {
        self.state().newest.values().cloned().collect()
    }

    pub fn tear(&self, id: &str) {
        self.state().torn.insert(id.to_owned());
    }

    pub fn is_torn(&self, id: &str) -> bool {
        self.state().torn.contains(id)
    }

    /// A row of the job that is settled.
    pub fn settled(&self, id: &str) -> Option<u64> {
        let job = self.job_of(id)?;
        let state = self.state();
        state.jobs[job].rows.iter().rposition(|row| row.settled.is_some()).map(|row| row as u64)
    }

    // ── Calls ──

    /// How many calls of a function a machine is told that it may have under way.
    pub fn slots_told(&self, machine: &Machine, function: usize) -> u32 {
        let now = Instant::now();
        let mut state = self.state();
        let slots = state.slots[function];
        let told = state.told.entry((machine.server, machine.life, function)).or_default();
        told.push((now, slots));
        // The last one that is older than it may act on, and all after it.
        let stale = told.iter().rposition(|(at, _)| now.duration_since(*at) > SLOTS_STALE).unwrap_or(0);
        told.drain(..stale);
        slots
    }

    /// A machine begins a call. Every law about when it may not is checked here.
    pub fn call_begins(&self, machine: &Machine, function: usize, id: &str, task: &str, key: &str) -> Call {
        let Some(job) = self.job_of(id) else { panic!("a call for {id}, which is no job") };
        assert!(!machine.is_dead(), "a dead server has begun a call for job {job}");
        let plan = &self.plan.jobs[job];
        let mut state = self.state();
        state.calls += 1;
        let who = (machine.server, machine.life);
        let book = &mut state.jobs[job];
        let Some(&row) = book.tasks.get(task) else { panic!("a call of job {job} with the ID of no task of it (X5)") };
        assert_eq!(key, plan.key(job, 1, row), "row {row} of job {job} was called with another key (X12)");
        let status = book.statuses.last().copied();
        let may_run = matches!(status, Some(Status::Active | Status::Pausing | Status::Cancelling));
        assert!(may_run, "row {row} of job {job} was called while the job was {status:?} (X9)");
        assert!(!book.cancel_answered, "row {row} of job {job} was called after the cancel was answered (X8)");
        assert!(!book.threshold_passed, "row {row} of job {job} was called after the threshold was passed (X9)");
        assert!(plan.rows[row].manner != Manner::HasNoVersion, "row {row} of job {job} was called without a version");
        if let (Some(drawn), false) = (&book.drawn, book.sample_run) {
            assert!(drawn.contains(row as u64), "row {row} of job {job} was called before the promotion");
        }
        let kept = &mut book.rows[row];
        assert!(kept.settled.is_none(), "row {row} of job {job} was called again, and is settled (E-2)");
        if kept.calls > 0 && !kept.again {
            let Some(last) = kept.last else { panic!("row {row} was called by nobody") };
            let lost = self.was_lost(&state, &state.jobs[job].rows[row]);
            let kept = &state.jobs[job].rows[row];
            assert!(
                lost,
                "row {row} of job {job} was called again by {who:?}, while {last:?} lives, which {} (X4)",
                if kept.undurable { "had its answer" } else { "was calling it" }
            );
        }
        let kept = &mut state.jobs[job].rows[row];
        kept.calls += 1;
        kept.last = Some(who);
        (kept.again, kept.undurable) = (false, false);
        let number = kept.calls;
        *state.jobs[job].running.entry(who).or_default() += 1;
        let key = (who.0, who.1, function);
        let running = state.running.entry(key).or_default();
        *running += 1;
        let running = *running;
        // One who stood still goes on with what it was told before, until it has asked.
        let told =
            state.told.get(&key).map_or(u32::MAX, |told| told.iter().map(|(_, slots)| *slots).max().unwrap_or(0));
        let all: u32 = state.running.iter().filter(|(key, _)| (key.0, key.1) == who).map(|(_, running)| running).sum();
        drop(state);
        assert!(
            running <= told,
            "server {who:?} has {running} calls of function {function}, and {told} were allowed (X7)"
        );
        let total = self.plan.concurrency_total;
        assert!(all <= total, "server {who:?} has {all} calls in flight, and may have {total} (X7)");
        let (server, life) = who;
        self.event_told(
            "call",
            row as u64,
            format_args!("call {number} of row {row} of job {job}, by server {server} in its life {life}"),
        );
        Call { job, row, number, task_id: task.to_owned() }
    }

    /// A call is over for its machine: with an answer, or because it is not waited for any more. Never panics: calls are
    /// dropped while something else does.
    pub fn call_ends(&self, machine: &Machine, function: usize, call: &Call, answer: CallEnd) {
        let mut state = self.state();
        let key = (machine.server, machine.life, function);
        let who = (machine.server, machine.life);
        if let Some(running) = state.running.get_mut(&key) {
            *running = running.saturating_sub(1);
        }
        let calls = state.jobs[call.job].running.entry(who).or_default();
        *calls = calls.saturating_sub(1);
        let calls = *calls;
        let kept = &mut state.jobs[call.job].rows[call.row];
        if kept.calls == call.number {
            kept.undurable = matches!(answer, CallEnd::Final | CallEnd::Redriven);
            // One that is given up may be made again if the world has taken the lease from the machine.
            kept.again |= match answer {
                CallEnd::Again | CallEnd::Redriven => true,
                CallEnd::Abandoned => machine.was_shaken(self.lately()),
                CallEnd::Final => false,
            };
        }
        let book = &state.jobs[call.job];
        let held: u32 = book.rows.iter().filter(|row| row.undurable && row.last == Some(who)).map(|_| 1).sum();
        let (w, limit) = (self.plan.settings.unrecorded_max as u32, self.plan.settings.ramp.max);
        let (strict, job) = (self.plan.settings.strict, call.job);
        drop(state);
        if held > w + limit {
            self.violate(&format!("{held} answers of job {job} are not durable, and W is {w} (X4)"));
        }
        if strict && held + calls > limit {
            self.violate(&format!("{held} answers and {calls} calls of job {job} at once, and W is 0 (X4)"));
        }
    }

    /// Whether a call of this row may be disturbed once more; then it counts.
    pub fn may_disturb(&self, call: &Call) -> bool {
        let mut state = self.state();
        let kept = &mut state.jobs[call.job].rows[call.row];
        let may = kept.disturbed < DISTURBED_MAX;
        kept.disturbed += u32::from(may);
        may
    }

    /// The attempt that a call is, of those that count.
    pub fn attempt(&self, call: &Call) -> u32 {
        self.state().jobs[call.job].rows[call.row].redriven + 1
    }

    /// The task of the row behind this one, as it is for somebody who mixes them up.
    pub fn next_task(&self, call: &Call) -> usize {
        let rows = self.state().jobs[call.job].rows.len();
        (call.row + 1) % rows
    }
}

/// How a call came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallEnd {
    /// With an answer that ends the task.
    Final,
    /// With one that uses an attempt up: once that is durable the row is called again.
    Redriven,
    /// With none: it is called again.
    Again,
    /// Nobody waited for its answer.
    Abandoned,
}

/// What the world's functions say ends in the row and the call that it is for.
pub fn message(row: usize, call: u32) -> String {
    format!("row {row} call {call}")
}

/// An outcome in the words of a function has to be of a call of this very row.
fn check_attribution(job: usize, row: usize, calls: u32, outcome: &Outcome) {
    let Some(words) = outcome.message.strip_prefix("row ") else { return };
    let said = words.split_once(" call ").and_then(|(row, call)| Some((row.parse().ok()?, call.parse().ok()?)));
    let ours = said.is_some_and(|(of, call): (usize, u32)| of == row && (1..=calls).contains(&call));
    assert!(ours, "row {row} of job {job} has the answer {:?} after {calls} calls (X5)", outcome.message);
}

/// AWS's moves of a job, and those that a sample adds (spec 2.2, decision 0013), written down once more.
const DOCUMENTED: &[(Status, Status)] = {
    use Status::{
        Active, Cancelled, Cancelling, Complete, Completing, Failed, Failing, New, Paused, Pausing, Preparing, Ready,
        Suspended,
    };
    &[
        (New, Preparing),
        (New, Failing),
        (New, Cancelling),
        (Preparing, Suspended),
        (Preparing, Ready),
        (Preparing, Failing),
        (Preparing, Cancelling),
        (Suspended, Ready),
        (Suspended, Failed),
        (Suspended, Failing),
        (Suspended, Cancelled),
        (Suspended, Cancelling),
        (Ready, Active),
        (Ready, Cancelled),
        (Ready, Cancelling),
        (Ready, Failing),
        (Active, Pausing),
        (Active, Completing),
        (Active, Failing),
        (Active, Cancelling),
        (Active, Suspended),
        (Pausing, Paused),
        (Pausing, Completing),
        (Pausing, Failing),
        (Pausing, Cancelling),
        (Pausing, Suspended),
        (Paused, Active),
        (Paused, Failing),
        (Paused, Cancelling),
        (Completing, Complete),
        (Completing, Failing),
        (Cancelling, Cancelled),
        (Cancelling, Failing),
        (Failing, Failed),
    ]
};

/// The servers that live, in order.
pub fn living(state: &State) -> Vec<Arc<Machine>> {
    state.machines.iter().filter(|machine| !machine.is_dead()).cloned().collect()
}
