//! The result log and its checkpoints alone, on a disk that loses what was not synced: appends, checkpoints, kills, power
//! cuts at any call, syncs that fail, no room, and openings in between, some hundred thousand of them a second.
//!
//! The laws: what was acknowledged is there, in order, and so is what an opening has found; what is read was appended; no
//! crash looks like damage; a checkpoint that was acknowledged, or a later one, is found whole and is believed; and a bit
//! that has turned over is noticed, or was in what a power cut might have torn.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use longshore_core::random::Random;
use longshore_store::checkpoint::{self, Found};
use longshore_store::ground::{Boxed, Pretend};
use longshore_store::{Fatal, Files, Ground, Mark, ResultLog, StoreError};

use crate::disk::{Disk, DiskDefect, DiskFault, Mount, Odds, Off};

/// Things that happen in one life of a disk.
const STEPS: u64 = 60;

/// A process that has nothing but the disk.
struct Process {
    mount: Mount,
    shorter: u64,
}

impl Pretend for Process {
    fn hold(&self, task: Boxed) -> Boxed {
        task
    }

    fn before_files(&self) -> Boxed {
        Box::pin(async {})
    }

    fn files(&self) -> &dyn Files {
        &self.mount
    }

    fn shorter(&self) -> u64 {
        self.shorter
    }
}

/// The books, and the log as the present process has it.
struct Life {
    random: Random,
    disk: Disk,
    defect: Option<DiskDefect>,
    shorter: u64,
    dir: PathBuf,
    ground: Ground,
    fatal: Fatal,
    log: Option<ResultLog>,
    /// What has to be there.
    kept: Vec<Vec<u8>>,
    /// What was given to be appended, and may be there or not.
    unknown: Option<Vec<u8>>,
    /// How many payloads the last checkpoint covers that was acknowledged, and up to where this process has read.
    covered: usize,
    read: Mark,
    made: u64,
    faults: BTreeMap<DiskFault, u64>,
    openings: u64,
}

/// What one life has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub faults: BTreeMap<DiskFault, u64>,
    pub openings: u64,
    /// Of all that the log had in the end.
    pub trace: u64,
}

/// What a checkpoint of the first so many payloads says.
fn told_of(payloads: &[Vec<u8>]) -> Vec<u8> {
    let sum = payloads.iter().fold(0, |sum, payload| crc(sum, payload));
    [(payloads.len() as u64).to_le_bytes(), sum.to_le_bytes()].concat()
}

/// FNV-1a.
fn crc(sum: u64, bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(sum ^ 0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3))
}

impl Life {
    fn new(seed: u64, defect: Option<DiskDefect>) -> Self {
        let mut random = Random::seeded(seed ^ 0x0001_0600_D15C);
        let disk = Disk::new(random.next_u64());
        let dir = PathBuf::from("/data/jobs/a-job/results");
        // From segments of some frames to one that is never full.
        let shorter = [1 << 16, 1 << 14, 1 << 12, 1][random.below(4) as usize];
        let ground = Ground::Pretended(Arc::new(Process { mount: disk.mount(defect, |_| {}), shorter }));
        // The folder of a job is there, durably, before its log.
        ground
            .files()
            .make_folder(&dir)
            .and_then(|()| ground.files().remove_folder(&dir))
            .expect("nothing is wrong yet");
        disk.settle();
        Self {
            random,
            disk,
            defect,
            shorter,
            dir,
            ground,
            fatal: Fatal::new(),
            log: None,
            kept: Vec::new(),
            unknown: None,
            covered: 0,
            read: Mark::default(),
            made: 0,
            faults: BTreeMap::new(),
            openings: 0,
        }
    }

    /// Ends the present process, unless the disk has, and starts another.
    fn restart(&mut self, off: Off) {
        self.disk.cut(off);
        self.log = None;
        self.fatal = Fatal::new();
        let mount = self.disk.mount(self.defect, |_| {});
        self.ground = Ground::Pretended(Arc::new(Process { mount, shorter: self.shorter }));
    }

    /// A payload that no other equals.
    fn payload(&mut self) -> Vec<u8> {
        let length = match self.random.below(8) {
            0 => 8,
            1 => 3_000 + self.random.below(4_000),
            _ => 8 + self.random.below(900),
        };
        self.made += 1;
        let mut bytes = self.made.to_le_bytes().to_vec();
        let mut filler = Random::seeded(self.made);
        // Half of them zeros: what was not written looks like them. But for the last byte, or one of which the end found no
        // room might be whole after a crash over the next, and nobody has promised that it is not.
        let fill = self.random.one_in(2);
        bytes.extend((8..length).map(|_| if fill { filler.next_u64() as u8 } else { 0 }));
        bytes.push(0xFF);
        bytes
    }

    async fn append(&mut self) {
        if self.log.is_none() {
            return;
        }
        // One whose place there was no room for is given again, mostly.
        let payload = match self.unknown.take() {
            Some(payload) => payload,
            None => self.payload(),
        };
        let Some(log) = &self.log else { return };
        match log.append(payload.clone()).await {
            Ok(()) => self.kept.push(payload),
            Err(StoreError::Full(_)) => {
                assert!(self.fatal.reason().is_none(), "a full disk is no end");
                // It is not there: it may be given again, or never.
                self.unknown = self.random.one_in(2).then_some(payload);
                self.whole(&self.ground, self.kept.len());
            }
            Err(StoreError::Damaged(what)) => panic!("an append found damage: {what}"),
            Err(_) => {
                self.unknown = Some(payload);
                self.log = None;
            }
        }
    }

    /// Writes a checkpoint as the engine does: of what is durable, read from the log.
    fn checkpoint(&mut self) {
        let Some(log) = &self.log else { return };
        let mark = *log.marks().borrow();
        if !mark.is_known() {
            return;
        }
        let files = self.ground.files();
        let mut seen = Vec::new();
        match ResultLog::read_between(files, &self.dir, &self.read, &mark, |payload| seen.push(payload.to_vec())) {
            Ok(()) => {}
            Err(StoreError::Damaged(what)) => panic!("what is durable does not read: {what} (D6)"),
            Err(_) => return,
        }
        let from = self.kept.len() - seen.len();
        assert_eq!(seen, self.kept[from..], "between two marks there is something else");
        self.read = mark;
        let payload = match self.defect {
            Some(DiskDefect::CheckpointPastItsMark) => {
                let unread = self.unknown.clone().unwrap_or_else(|| b"what comes next".to_vec());
                told_of(&[&self.kept[..], &[unread]].concat())
            }
            _ => told_of(&self.kept),
        };
        match checkpoint::write(files, &self.dir, &mark, &payload, &self.fatal) {
            Ok(()) => self.covered = self.kept.len(),
            Err(StoreError::Full(_) | StoreError::Io(_)) => {}
            Err(StoreError::Broken(_)) => self.log = None,
            Err(other) => panic!("{other}"),
        }
    }

    /// Reads the log from its start; it has to have what is kept, and at most one payload more that may be.
    fn whole(&self, ground: &Ground, kept: usize) -> Option<Vec<Vec<u8>>> {
        let mut seen = Vec::new();
        match ResultLog::read(ground.files(), &self.dir, |payload| seen.push(payload.to_vec())) {
            Ok(()) => {}
            Err(StoreError::Damaged(what)) => panic!("a crash looks like damage: {what} (D6)"),
            // There is no log yet, or the disk does not read.
            Err(_) => return None,
        }
        self.judge(&seen, kept);
        Some(seen)
    }

    fn judge(&self, seen: &[Vec<u8>], kept: usize) {
        for (index, payload) in seen.iter().enumerate() {
            let is = self.kept.get(index).or(self.unknown.as_ref().filter(|_| index == self.kept.len()));
            assert!(is == Some(payload), "payload {index} was not appended there (X5)");
        }
        assert!(seen.len() >= kept, "of {kept} payloads that are durable {} are there (D1)", seen.len());
    }

    /// Opens the log as the engine does: from its last checkpoint, if there is one that counts.
    fn open(&mut self, flipped: bool) {
        let (ground, dir) = (self.ground.clone(), self.dir.clone());
        let files = ground.files();
        let kept = self.kept.len();
        let found = match checkpoint::read(files, &dir) {
            Ok(Found::Whole(mark, payload)) => Some((mark, payload)),
            Ok(Found::Unreadable) if !flipped => panic!("a crash left a part of a checkpoint"),
            Ok(Found::None) if self.covered > 0 && !flipped => panic!("a checkpoint that was acknowledged is gone"),
            _ => None,
        };
        let mut from = None;
        if let Some((mark, payload)) = found {
            match ResultLog::reaches(files, &dir, &mark) {
                Ok(true) => from = Some((mark, payload)),
                Ok(false) => assert!(flipped, "the log does not reach its own checkpoint, {mark:?}"),
                Err(StoreError::Damaged(what)) => panic!("a crash looks like damage: {what} (D6)"),
                Err(_) => {}
            }
        }
        let mut seen = Vec::new();
        let mark = from.as_ref().map(|(mark, _)| *mark);
        let opened = ResultLog::open(&ground, &dir, self.fatal.clone(), mark, |payload| seen.push(payload.to_vec()));
        let log = match opened {
            Ok(log) => log,
            Err(StoreError::Damaged(what)) => {
                assert!(flipped, "a crash looks like damage: {what} (D6)");
                return;
            }
            Err(_) => return,
        };
        self.openings += 1;
        if let Some((_, told)) = from {
            let covers = told.first_chunk().map_or(0, |count| u64::from_le_bytes(*count)) as usize;
            let before = self.kept.iter().chain(&self.unknown).take(covers).cloned().collect::<Vec<_>>();
            assert!(covers >= self.covered || flipped, "a checkpoint of {} is one of {covers} again", self.covered);
            assert_eq!(told, told_of(&before), "a checkpoint says what its log does not (D6)");
            seen.splice(..0, before);
        }
        // A bit of the last frame may have turned over: that looks like a torn tail, and is cut off.
        self.judge(&seen, if flipped { kept.saturating_sub(1) } else { kept });
        if flipped {
            return;
        }
        // What an opening has found is as good as acknowledged: the job goes on from there.
        self.kept = seen;
        self.unknown = None;
        self.read = *log.marks().borrow();
        self.log = Some(log);
    }

    /// Turns a bit over on a copy of the disk, and looks whether anybody notices.
    fn flip(&mut self) {
        let disk = self.disk.fork(self.random.next_u64());
        disk.cut(Off::Killed);
        if disk.flip().is_none() {
            return;
        }
        self.faults_of(&disk);
        let mount = disk.mount(self.defect, |_| {});
        let ground = Ground::Pretended(Arc::new(Process { mount, shorter: self.shorter }));
        let mut seen = Vec::new();
        match ResultLog::read(ground.files(), &self.dir, |payload| seen.push(payload.to_vec())) {
            Err(StoreError::Damaged(what)) => assert!(what.contains(" is damaged at byte "), "{what}"),
            // The report counts what is missing; what is there was appended.
            _ => self.judge(&seen, 0),
        }
        let (own, fatal) = (std::mem::replace(&mut self.ground, ground), std::mem::take(&mut self.fatal));
        let log = self.log.take();
        let openings = self.openings;
        self.open(true);
        (self.ground, self.fatal, self.log, self.openings) = (own, fatal, log, openings);
    }

    fn faults_of(&mut self, disk: &Disk) {
        disk.take_faults().into_iter().for_each(|(fault, n)| *self.faults.entry(fault).or_default() += n);
    }

    /// Cuts a copy of the disk off where it is now, and looks at what is left.
    fn might_be_cut(&mut self) {
        let disk = self.disk.fork(self.random.next_u64());
        disk.cut(if self.random.one_in(4) { Off::Killed } else { Off::Powerless });
        self.faults_of(&disk);
        let mount = disk.mount(self.defect, |_| {});
        let ground = Ground::Pretended(Arc::new(Process { mount, shorter: self.shorter }));
        if self.whole(&ground, self.kept.len()).is_none() {
            assert!(self.kept.is_empty(), "a log with {} payloads is gone (D1)", self.kept.len());
        }
    }

    async fn live(&mut self) {
        let odds = Odds {
            dies: [0, 10, 30, 100][self.random.below(4) as usize],
            power: self.random.below(5),
            sync_fails: [0, 0, 20, 60][self.random.below(4) as usize],
            read_fails: [0, 0, 40, 200][self.random.below(4) as usize],
        };
        self.disk.set_odds(odds);
        for _ in 0..STEPS {
            match self.random.below(16) {
                0 => {
                    let off = if self.random.one_in(2) { Off::Killed } else { Off::Powerless };
                    self.restart(off);
                }
                1 => self.disk.set_room(self.random.below(2_000)),
                2 | 3 => self.disk.set_room(u64::MAX),
                4 | 5 => self.checkpoint(),
                6 => self.flip(),
                7 => self.might_be_cut(),
                _ => self.append().await,
            }
            if self.log.is_none() {
                // Whoever has failed to open, or to sync, ends; and whoever ends is started again.
                self.restart(Off::Killed);
                self.open(false);
            }
        }
        // Now nothing goes wrong any more.
        self.disk.set_odds(Odds::default());
        self.disk.set_room(u64::MAX);
        self.restart(Off::Powerless);
        self.open(false);
        assert!(self.log.is_some(), "the log does not open on a disk that is well");
        self.append().await;
        self.restart(Off::Powerless);
        self.open(false);
        assert!(self.whole(&self.ground, self.kept.len()).is_some(), "the log does not read");
        let disk = self.disk.clone();
        self.faults_of(&disk);
    }
}

/// Runs the life of a seed. `Err`: the law that was broken.
pub fn simulate(seed: u64, defect: Option<DiskDefect>) -> Result<Shown, String> {
    let told = catch_unwind(AssertUnwindSafe(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without anything");
        let mut life = Life::new(seed, defect);
        runtime.block_on(life.live());
        let trace = life.kept.iter().fold(0, |sum, payload| crc(sum, payload));
        Shown { faults: life.faults, openings: life.openings, trace }
    }));
    told.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default()
    })
}
