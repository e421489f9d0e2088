//! What a seed decides before anything runs: how many servers, which jobs, which kinds of faults, how often.

use longshore_core::dispatch::RampSettings;
use longshore_core::random::Random;
use longshore_core::retry::{Backoff, Policy};
use longshore_core::run::Settings;
use longshore_core::threshold::Threshold;

use crate::disk::Odds;

/// Rows in one chunk of a manifest, at whose edges things go wrong.
const CHUNK: u64 = longshore_core::manifest::CHUNK_ROWS;

/// Everything that can go wrong. A seed enables a random half of them ("swarm"): worlds in which everything goes wrong at
/// once hide what only some faults together bring out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A server dies between two events.
    Crash,
    /// A server dies within a call, before or after it had its effect.
    CrashBeforeWrite,
    CrashAfterWrite,
    CrashAtFiles,
    CrashAtObjects,
    /// A server dies as it begins a call: every seed has some of these.
    CrashAtCall,
    /// A server dies again before it has served anybody.
    CrashAtStart,
    /// A server dies over an append, which is cut off or garbled, or as if it had never been.
    TornWrite,
    LostWrite,
    /// A sync fails, and nobody knows whether it happened.
    FailedSync,
    FullDisk,
    /// A write or a read of the ledger that takes seconds.
    SlowLedger,
    /// A write whose answer never comes.
    UnknownWrite,
    /// A server stands still for a while, and then goes on as if nothing had been: between two events, over a write, and
    /// over an object.
    PausedServer,
    PauseAtWrite,
    PauseAtObjects,
    /// A server is stopped in order, and started again.
    Stop,
    /// The wall clock jumps, up to ten years.
    ClockJump,
    /// A function takes longer than usual, up to minutes.
    SlowCall,
    LostAnswer,
    Throttle,
    /// A function's concurrency changes.
    OtherLimit,
    GetFails,
    /// A body that comes slowly, breaks off with an error, or just ends.
    GetSlow,
    GetBreaksOff,
    /// The manifest's object becomes another under the job.
    OtherManifest,
    PutFailsBefore,
    /// The object is written, and the answer is an error.
    PutFailsAfter,
    PutSlow,
    /// A client asks once more with the same token, or with the same token for something else.
    RepeatedToken,
    OtherBody,
    Cancel,
    /// An event's sink refuses, or takes it and the answer is lost.
    SinkFails,
}

pub const FAULTS: [Fault; 33] = [
    Fault::Crash,
    Fault::CrashBeforeWrite,
    Fault::CrashAfterWrite,
    Fault::CrashAtFiles,
    Fault::CrashAtObjects,
    Fault::CrashAtCall,
    Fault::CrashAtStart,
    Fault::TornWrite,
    Fault::LostWrite,
    Fault::FailedSync,
    Fault::FullDisk,
    Fault::SlowLedger,
    Fault::UnknownWrite,
    Fault::PausedServer,
    Fault::PauseAtWrite,
    Fault::PauseAtObjects,
    Fault::Stop,
    Fault::ClockJump,
    Fault::SlowCall,
    Fault::LostAnswer,
    Fault::Throttle,
    Fault::OtherLimit,
    Fault::GetFails,
    Fault::GetSlow,
    Fault::GetBreaksOff,
    Fault::OtherManifest,
    Fault::PutFailsBefore,
    Fault::PutFailsAfter,
    Fault::PutSlow,
    Fault::RepeatedToken,
    Fault::OtherBody,
    Fault::Cancel,
    Fault::SinkFails,
];

impl Fault {
    /// Once in how many chances it happens where it is enabled, before the seed's own factor.
    fn one_in(self) -> u64 {
        match self {
            Fault::CrashBeforeWrite | Fault::CrashAfterWrite => 150,
            Fault::CrashAtFiles | Fault::CrashAtObjects | Fault::PauseAtObjects => 40,
            Fault::PauseAtWrite => 250,
            Fault::CrashAtStart => 4,
            Fault::FailedSync => 150,
            Fault::UnknownWrite => 30,
            Fault::SlowLedger => 40,
            Fault::SlowCall | Fault::LostAnswer | Fault::Throttle => 25,
            Fault::GetFails | Fault::GetSlow | Fault::GetBreaksOff => 3,
            Fault::PutFailsBefore | Fault::PutFailsAfter | Fault::PutSlow => 5,
            Fault::RepeatedToken | Fault::OtherBody | Fault::Cancel => 3,
            Fault::SinkFails => 5,
            Fault::TornWrite | Fault::LostWrite => 25,
            // These come when the nemesis picks them.
            Fault::Crash
            | Fault::CrashAtCall
            | Fault::FullDisk
            | Fault::PausedServer
            | Fault::Stop
            | Fault::ClockJump
            | Fault::OtherLimit
            | Fault::OtherManifest => 1,
        }
    }
}

/// How a row's function behaves, whatever else happens to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Succeeds,
    FailsForGood,
    /// `TemporaryFailure` in the first so many attempts, then it succeeds.
    Busy(u32),
    Throws,
    AnswersGarbage,
    /// Answers for another task, and says nothing of missing ones.
    AnswersForAnother,
    /// The manifest names no version where it has a column for them: it fails without a call.
    HasNoVersion,
}

impl Manner {
    /// Whether the task fails in the end.
    pub fn fails(self) -> bool {
        !matches!(self, Manner::Succeeds | Manner::Busy(..5))
    }
}

/// One row of a manifest.
#[derive(Debug, Clone)]
pub struct Row {
    /// Percent-encoded, as in the manifest and in the report.
    pub key: String,
    pub manner: Manner,
}

/// One job, and what its client will do.
#[derive(Debug, Clone)]
pub struct JobPlan {
    pub rows: Vec<Row>,
    /// Whether the manifest has a column of versions.
    pub versions: bool,
    pub confirmation: bool,
    pub report: bool,
    pub failed_only: bool,
    pub sample: Option<u64>,
    pub early: bool,
    pub cancels: bool,
    pub priority: u32,
    /// When it is asked for.
    pub begins_ms: u64,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub servers: usize,
    pub jobs: Vec<JobPlan>,
    /// Per fault of [`FAULTS`]: once in how many chances; 0: never.
    rates: [u64; FAULTS.len()],
    pub settings: Settings,
    pub active_slots: usize,
    pub preparing_slots: usize,
    pub concurrency_total: u32,
    pub slots: u32,
    pub lease_ms: u64,
    /// At which calls, counted over all jobs, a server dies: a world in which none dies at work shows little.
    pub crashes_at_calls: Vec<u64>,
    /// How long things go wrong.
    pub faulty_ms: u64,
    /// The mean time between two deeds of the nemesis.
    pub nemesis_ms: u64,
    /// What goes wrong with the disk, in a world whose one server has one.
    pub disk: Option<DiskPlan>,
}

/// The disk of a server.
#[derive(Debug, Clone, Copy)]
pub struct DiskPlan {
    pub odds: Odds,
    /// How many times shorter than usual its files are.
    pub shorter: u64,
}

impl Plan {
    pub fn new(seed: u64) -> Self {
        let mut random = Random::seeded(seed ^ 0x005E_ED0F_510A);
        let servers = [1, 1, 1, 2, 2, 3, 4, 5][random.below(8) as usize];
        let mut large = true;
        let jobs = (0..1 + random.below(4)).map(|number| job(&mut random, number, &mut large)).collect();
        // From half as often as usual to twice.
        let factor = 1 + random.below(4);
        let rates = FAULTS.map(|fault| if random.one_in(2) { (fault.one_in() * factor).div_ceil(2) } else { 0 });
        let settings = Settings {
            ramp: RampSettings {
                initial: 1 + random.below(8) as u32,
                max: 1 + random.below(32) as u32,
                double_every_ms: 50,
                hold_ms: 20,
            },
            retry: Policy { redrive: Backoff { base_ms: 1 + random.below(500), cap_ms: 1_000 }, ..Policy::default() },
            threshold: Threshold { tasks_min: if random.one_in(4) { 20 } else { 100_000 }, ratio: 0.5 },
            unrecorded_max: 1 + random.below(64) as usize,
            strict: random.one_in(4),
            gather_ms: random.below(3) * 10,
        };
        let long = random.one_in(4);
        // The first while nearly every world still has calls to make, the others anywhere.
        let calls = [8, 200, 1_000];
        let crashes_at_calls = calls.into_iter().map(|calls| 1 + random.below(calls)).collect();
        Self {
            seed,
            servers,
            jobs,
            rates,
            settings,
            active_slots: 1 + random.below(3) as usize,
            preparing_slots: 1 + random.below(2) as usize,
            concurrency_total: 1 + random.below(40) as u32,
            slots: 1 + random.below(24) as u32,
            crashes_at_calls,
            lease_ms: [2_000, 5_000, 20_000][random.below(3) as usize],
            faulty_ms: 4_000 + random.below(if long { 120_000 } else { 20_000 }),
            nemesis_ms: 100 + random.below(3_000),
            disk: None,
        }
    }

    /// A world of one server, with its results and manifests on a disk of its own.
    pub fn on_disk(seed: u64) -> Self {
        let mut plan = Self::new(seed);
        let mut random = Random::seeded(seed ^ 0xD15C);
        plan.servers = 1;
        // The disk has its own.
        plan.rates[Fault::TornWrite as usize] = 0;
        plan.rates[Fault::LostWrite as usize] = 0;
        // A database in the same process always answers.
        plan.rates[Fault::UnknownWrite as usize] = 0;
        let odds = Odds {
            dies: [0, 40, 150, 600][random.below(4) as usize],
            power: 1 + random.below(4),
            sync_fails: [0, 0, 30, 150][random.below(4) as usize],
            // One that is told of fails its job, as it should, and shows little else.
            read_fails: 0,
        };
        plan.disk = Some(DiskPlan { odds, shorter: 1 << (11 + random.below(6)) });
        plan
    }

    /// Once in how many chances the fault happens; 0: never.
    pub fn rate(&self, fault: Fault) -> u64 {
        // In the order of the enum.
        self.rates[fault as usize]
    }
}

fn job(random: &mut Random, number: u64, large: &mut bool) -> JobPlan {
    let count = match random.below(12) {
        // One of them has something to do.
        0 if number > 0 => random.below(2),
        // One of this size is enough for a world.
        1 if std::mem::take(large) => CHUNK - 1 + random.below(3),
        2 | 3 => 200 + random.below(301),
        _ => 2 + random.below(80),
    };
    let versions = random.one_in(3);
    // A few worlds are bad ones, so that thresholds are passed.
    let good = [14, 14, 14, 6][random.below(4) as usize];
    let rows: Vec<Row> = (0..count)
        .scan(String::new(), |before, number| {
            let key = match random.below(20) {
                // The same row twice is two tasks.
                0 | 1 if number > 0 => before.clone(),
                2 => format!("{number}/{}", "long-".repeat(180)),
                3 => format!("{number}/a%20b%2C%22c%22%00%C3%A9%0A"),
                4 => format!("{number}/a,b \"c\" +é"),
                _ => format!("{number}"),
            };
            before.clone_from(&key);
            let manner = match random.below(20) {
                n if n < good => Manner::Succeeds,
                14 | 15 => Manner::Busy(1 + random.below(7) as u32),
                16 => Manner::Throws,
                17 => Manner::AnswersGarbage,
                18 => Manner::AnswersForAnother,
                19 if versions => Manner::HasNoVersion,
                _ => Manner::FailsForGood,
            };
            Some(Row { key, manner })
        })
        .collect();
    let (sample, early, confirmation) = match random.below(8) {
        0 => (Some(1 + random.below(count.max(1))), false, false),
        1 => (None, true, false),
        2 | 3 => (None, false, true),
        _ => (None, false, false),
    };
    let report = !random.one_in(8);
    JobPlan {
        rows,
        versions,
        confirmation,
        report,
        failed_only: report && random.one_in(4),
        sample,
        early,
        cancels: random.one_in(5),
        priority: random.below(4) as u32,
        begins_ms: random.below(3_000),
    }
}

impl JobPlan {
    /// The manifest's bytes. The keys of another `version` of it are others, so that rows of two are told apart.
    pub fn manifest(&self, job: usize, version: u32) -> Vec<u8> {
        let mut text = Vec::new();
        for (number, row) in self.rows.iter().enumerate() {
            text.extend_from_slice(b"src,");
            push_cell(&mut text, &self.key(job, version, number));
            if self.versions {
                text.extend_from_slice(if row.manner == Manner::HasNoVersion { b"," } else { b",v1" });
            }
            text.push(b'\n');
        }
        text
    }

    pub fn key(&self, job: usize, version: u32, row: usize) -> String {
        format!("job{job}/m{version}/{}", self.rows[row].key)
    }
}

fn push_cell(out: &mut Vec<u8>, cell: &str) {
    if !cell.contains([',', '"', '\n']) {
        out.extend_from_slice(cell.as_bytes());
        return;
    }
    out.push(b'"');
    out.extend_from_slice(cell.replace('"', "\"\"").as_bytes());
    out.push(b'"');
}
