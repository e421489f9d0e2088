//! The engine in pretend worlds: 1 to 5 servers over one ledger, with slow functions, lost answers, crashes at any effect,
//! torn writes, failing syncs, full disks, jumping clocks and servers that stand still. One seed makes one world.
//!
//! All of `longshore_jobs` runs as it ships: operations, scheduler, agents, preparer, loop, reporter, deliverer, on one
//! thread in virtual time. After every event the laws of the promises are checked; at the end the faults stop, and every
//! job must end. A failure prints the one line that replays it; `README.md` beside this file says how to read it.
//!
//! ```text
//! SIM_SEED=123 cargo test -p longshore-tests --test worlds
//! ```
//!
//! `SIM_SEEDS=10000` runs that many seeds, from `SIM_FIRST` on (derived from the commit if not given), a world on each
//! core. `SIM_VERBOSE=1` tells each event.

mod audit;
mod clients;
mod defect;
mod disk;
mod function;
mod ledger;
mod log;
mod machine;
mod objects;
mod plan;
mod run;
mod world;

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use crate::defect::{DEFECTS, Defect};
use crate::disk::{DISK_DEFECTS, DISK_FAULTS, DiskDefect, DiskFault, WORLD_DISK_DEFECTS};
use crate::plan::{FAULTS, Fault};
use crate::run::{Shown, simulate, simulate_on_disk};

/// Seeds of a run that names no number, as in CI: some twenty seconds of one core.
const SEEDS: u64 = 3_000;
/// Of these so many are run twice, and have to take the same course.
const TWICE: u64 = 100;
/// Seeds in which each planted defect has to be found: a good minute of one core.
const DEFECT_SEEDS: u64 = 8_000;

/// Seeds of the log alone, and those in which each planted defect of the disk's users has to be found.
const LOG_SEEDS: u64 = 3_000;
const LOG_DEFECT_SEEDS: u64 = 2_000;

/// Seeds of worlds with a disk, of which some are run twice, and those in which each planted defect has to be found.
const DISK_SEEDS: u64 = 250;
const DISK_TWICE: u64 = 20;
const DISK_DEFECT_SEEDS: u64 = 3_000;

/// Seeds that have found something once. What was wrong stands beside each.
const REGRESSIONS: &[u64] = &[
    // A job passed its failure threshold, what was in flight brought the ratio down again, and a crash came before the
    // job was Failing: it went on as if nothing had been (X9).
    100_165,
];

/// Whether each event is to be told.
pub fn verbose() -> bool {
    static VERBOSE: OnceLock<bool> = OnceLock::new();
    *VERBOSE.get_or_init(|| std::env::var_os("SIM_VERBOSE").is_some())
}

/// A folder for the files of one world, in memory where there is such a place.
pub fn scratch() -> std::io::Result<tempfile::TempDir> {
    let memory = std::path::Path::new("/dev/shm");
    let mut folder = tempfile::Builder::new();
    folder.prefix("longshore-world-");
    if memory.is_dir() { folder.tempdir_in(memory).or_else(|_| folder.tempdir()) } else { folder.tempdir() }
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

/// What many worlds have shown together.
#[derive(Default)]
struct Totals {
    seeds: u64,
    /// With a crash while calls were in flight: a world without one shows little.
    counted: u64,
    crashes_with_work: u64,
    events: u64,
    calls: u64,
    virtual_ms: u64,
    faults: BTreeMap<Fault, u64>,
    disk_faults: BTreeMap<DiskFault, u64>,
    failures: Vec<(u64, String)>,
}

impl Totals {
    fn add(&mut self, seed: u64, shown: Result<Shown, String>) {
        self.seeds += 1;
        match shown {
            Ok(shown) => {
                self.counted += u64::from(shown.crashes_with_work > 0);
                self.crashes_with_work += shown.crashes_with_work;
                self.events += shown.events;
                self.calls += shown.calls;
                self.virtual_ms += shown.virtual_ms;
                shown.faults.into_iter().for_each(|(fault, n)| *self.faults.entry(fault).or_default() += n);
                let disk = shown.disk_faults.into_iter();
                disk.for_each(|(fault, n)| *self.disk_faults.entry(fault).or_default() += n);
            }
            Err(why) => self.failures.push((seed, why)),
        }
    }
}

/// Runs a world on each core until the seeds are used up, or `enough` says so.
fn run_all(
    seeds: impl Iterator<Item = u64> + Send,
    world: impl Fn(u64) -> Result<Shown, String> + Sync,
    enough: impl Fn(&Totals) -> bool + Sync,
) -> Totals {
    let (seeds, totals) = (std::sync::Mutex::new(seeds), std::sync::Mutex::new(Totals::default()));
    let over = AtomicBool::new(false);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let Some(seed) = seeds.lock().expect("no world panics").next() else { return };
                    let shown = quietly(|| world(seed));
                    let mut totals = totals.lock().expect("no world panics");
                    totals.add(seed, shown);
                    over.fetch_or(enough(&totals), Ordering::Relaxed);
                }
            });
        }
    });
    totals.into_inner().expect("no world panics")
}

thread_local! {
    /// Whether this thread runs a world.
    static IN_WORLD: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Runs a world. Broken laws are panics, which are told with their seeds in the end, and not as they come.
fn simulate_quietly(seed: u64, defect: Option<Defect>) -> Result<Shown, String> {
    quietly(|| simulate(seed, defect))
}

fn quietly<T>(world: impl FnOnce() -> T) -> T {
    static HOOKED: std::sync::Once = std::sync::Once::new();
    HOOKED.call_once(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if verbose() || !IN_WORLD.get() {
                hook(panic);
            }
        }));
    });
    IN_WORLD.set(true);
    let shown = world();
    IN_WORLD.set(false);
    shown
}

#[test]
fn the_laws_hold_in_every_world() {
    let began = Instant::now();
    let (first, seeds) = match number("SIM_SEED") {
        Some(seed) => (seed, 1),
        None => (number("SIM_FIRST").unwrap_or_else(first_seed), number("SIM_SEEDS").unwrap_or(SEEDS)),
    };
    let totals =
        run_all(first..first.saturating_add(seeds), |seed| simulate(seed, None), |totals| totals.failures.len() >= 20);
    for (seed, why) in &totals.failures {
        println!(
            "{why}\nreplay: SIM_SEED={seed} cargo test --release -p longshore-tests --test worlds the_laws_hold -- --nocapture"
        );
    }
    let Totals { counted, crashes_with_work, events, calls, virtual_ms, faults, .. } = &totals;
    println!(
        "worlds over a ledger in memory: {} seeds from {first}, {counted} with a crash while work was in flight, {events} events: {faults:?}",
        totals.seeds
    );
    println!(
        "worlds over a ledger in memory: {crashes_with_work} crashes with work in flight, {calls} calls, {} virtual hours, {:.1} s",
        virtual_ms / 3_600_000,
        began.elapsed().as_secs_f64()
    );
    assert!(totals.failures.is_empty(), "{} of {} worlds broke a law", totals.failures.len(), totals.seeds);
    if seeds >= 1_000 {
        assert!(counted * 2 > totals.seeds, "the worlds are too kind: {counted} crashed with work in flight");
        let never: Vec<_> = FAULTS.iter().filter(|fault| !faults.contains_key(fault)).collect();
        assert!(never.is_empty(), "faults that never happened: {never:?}");
    }
}

#[test]
fn the_seed_that_the_readme_replays_is_a_lively_one() {
    let readme = include_str!("../../README.md");
    let line = readme.lines().find(|line| line.starts_with("SIM_SEED=")).expect("the README replays a seed");
    let seed = line["SIM_SEED=".len()..].split(' ').next().and_then(|digits| digits.parse().ok());
    let seed: u64 = seed.expect("a seed is a number");
    let totals = run_all(seed..seed + 1, |seed| simulate(seed, None), |_| false);
    let Totals { crashes_with_work, calls, failures, .. } = totals;
    assert!(failures.is_empty(), "{failures:?}");
    assert!(crashes_with_work >= 2 && calls >= 100, "choose another: {crashes_with_work} crashes, {calls} calls");
}

#[test]
fn one_seed_makes_one_world() {
    let first = number("SIM_FIRST").unwrap_or_else(first_seed);
    let differ = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for half in 0..2 {
            let differ = &differ;
            scope.spawn(move || {
                for seed in (first..first + number("SIM_TWICE").unwrap_or(TWICE)).filter(|seed| seed % 2 == half) {
                    let (once, again) = (simulate_quietly(seed, None), simulate_quietly(seed, None));
                    if once != again {
                        println!("seed {seed} takes another course: {once:?}, then {again:?}");
                        differ.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(differ.into_inner(), 0, "of {TWICE} worlds so many took another course the second time");
}

#[test]
fn what_was_found_once_is_not_back() {
    let totals = run_all(REGRESSIONS.iter().copied(), |seed| simulate(seed, None), |_| false);
    assert!(totals.failures.is_empty(), "{:?}", totals.failures);
}

#[test]
fn planted_defects_are_found() {
    let first = number("SIM_FIRST").unwrap_or(0);
    let only = std::env::var("SIM_DEFECT").ok();
    let known: Vec<String> = DEFECTS.iter().map(|defect| format!("{defect:?}")).collect();
    assert!(only.as_ref().is_none_or(|only| known.contains(only)), "SIM_DEFECT is none of {}", known.join(", "));
    let mut missed = Vec::new();
    for defect in DEFECTS {
        if only.as_ref().is_some_and(|only| *only != format!("{defect:?}")) {
            continue;
        }
        let began = Instant::now();
        let totals = run_all(
            first..first + DEFECT_SEEDS,
            |seed| simulate(seed, Some(defect)),
            |totals| !totals.failures.is_empty(),
        );
        match totals.failures.first() {
            Some((seed, why)) => println!(
                "{defect:?} found after {} seeds and {:.1} s, by seed {seed}: {why}\nreplay: SIM_DEFECT={defect:?} \
                 SIM_FIRST={seed} cargo test --release -p longshore-tests --test worlds planted_defects_are -- --nocapture",
                totals.seeds,
                began.elapsed().as_secs_f64()
            ),
            None => missed.push(defect),
        }
    }
    assert!(missed.is_empty(), "{missed:?} were not found in {DEFECT_SEEDS} seeds each");
}

/// Runs the log alone on each core, from seed to seed, until one breaks a law.
fn run_logs(
    first: u64,
    seeds: u64,
    defect: Option<DiskDefect>,
) -> (BTreeMap<DiskFault, u64>, u64, Option<(u64, String)>) {
    let (next, found) = (AtomicU64::new(first), std::sync::Mutex::new((BTreeMap::new(), 0, None)));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first.saturating_add(seeds) || found.lock().expect("no life panics").2.is_some() {
                        return;
                    }
                    let shown = quietly(|| log::simulate(seed, defect));
                    let mut found = found.lock().expect("no life panics");
                    match shown {
                        Ok(shown) => {
                            found.1 += shown.openings;
                            shown.faults.into_iter().for_each(|(fault, n)| *found.0.entry(fault).or_default() += n);
                        }
                        // The lowest seed that fails, whichever thread is faster.
                        Err(why) if found.2.as_ref().is_none_or(|(lowest, _)| seed < *lowest) => {
                            found.2 = Some((seed, why))
                        }
                        Err(_) => {}
                    }
                }
            });
        }
    });
    found.into_inner().expect("no life panics")
}

#[test]
fn the_log_keeps_its_laws_on_a_disk_that_loses_what_was_not_synced() {
    let began = Instant::now();
    let (first, seeds) = match number("SIM_SEED") {
        Some(seed) => (seed, 1),
        None => (number("SIM_FIRST").unwrap_or_else(first_seed), number("SIM_SEEDS").unwrap_or(LOG_SEEDS)),
    };
    let (faults, openings, broken) = run_logs(first, seeds, None);
    let took = began.elapsed().as_secs_f64();
    println!("the log alone on a disk: {seeds} lives from {first}, {openings} openings, {took:.1} s: {faults:?}");
    if let Some((seed, why)) = broken {
        panic!(
            "{why}\nreplay: SIM_SEED={seed} cargo test --release -p longshore-tests --test worlds the_log -- --nocapture"
        );
    }
    if seeds >= 1_000 {
        let never: Vec<_> = DISK_FAULTS.iter().filter(|fault| !faults.contains_key(fault)).collect();
        assert!(never.is_empty(), "faults that never happened: {never:?}");
    }
}

#[test]
fn planted_defects_of_whoever_uses_the_disk_are_found() {
    let mut missed = Vec::new();
    for defect in DISK_DEFECTS {
        let began = Instant::now();
        match run_logs(0, LOG_DEFECT_SEEDS, Some(defect)).2 {
            Some((seed, why)) => {
                println!("{defect:?} found by seed {seed}, {:.1} s: {why}", began.elapsed().as_secs_f64())
            }
            None => missed.push(defect),
        }
    }
    assert!(missed.is_empty(), "{missed:?} were not found in {LOG_DEFECT_SEEDS} seeds each");
}

#[test]
fn one_seed_makes_one_life_of_a_log() {
    for seed in 0..200 {
        assert_eq!(quietly(|| log::simulate(seed, None)), quietly(|| log::simulate(seed, None)), "seed {seed}");
    }
}

#[test]
fn worlds_on_a_disk_that_loses_what_was_not_synced_keep_the_laws() {
    let began = Instant::now();
    let (first, seeds) = match number("SIM_SEED") {
        Some(seed) => (seed, 1),
        None => (number("SIM_FIRST").unwrap_or_else(first_seed), number("SIM_SEEDS").unwrap_or(DISK_SEEDS)),
    };
    let on_disk = |seed| simulate_on_disk(seed, None);
    let totals = run_all(first..first.saturating_add(seeds), on_disk, |totals| totals.failures.len() >= 20);
    for (seed, why) in &totals.failures {
        println!(
            "{why}\nreplay: SIM_SEED={seed} cargo test --release -p longshore-tests --test worlds worlds_on_a_disk -- --nocapture"
        );
    }
    let Totals { counted, crashes_with_work, events, disk_faults, .. } = &totals;
    println!(
        "worlds on a disk: {} seeds from {first}, {counted} with a crash while work was in flight, {events} events: {disk_faults:?}",
        totals.seeds
    );
    println!(
        "worlds on a disk: {crashes_with_work} crashes with work in flight, {:.1} s",
        began.elapsed().as_secs_f64()
    );
    assert!(totals.failures.is_empty(), "{} of {} worlds broke a law", totals.failures.len(), totals.seeds);
    if seeds >= DISK_SEEDS {
        // Reads that fail, and bits that turn over, are for the log alone.
        let apart = [DiskFault::ReadError, DiskFault::FlippedBit];
        let never = DISK_FAULTS.iter().filter(|fault| !disk_faults.contains_key(fault) && !apart.contains(fault));
        let never: Vec<_> = never.collect();
        assert!(never.is_empty(), "faults that never happened: {never:?}");
        assert!(counted * 2 > totals.seeds, "the worlds are too kind: {counted} crashed with work in flight");
    }
}

#[test]
fn one_seed_makes_one_world_with_a_disk() {
    let first = number("SIM_FIRST").unwrap_or_else(first_seed);
    for seed in first..first + DISK_TWICE {
        let twice = [0, 1].map(|_| quietly(|| simulate_on_disk(seed, None)));
        assert_eq!(twice[0], twice[1], "seed {seed} takes another course");
    }
}

#[test]
fn planted_defects_at_the_disk_are_found_by_worlds() {
    let mut missed = Vec::new();
    for defect in WORLD_DISK_DEFECTS {
        let began = Instant::now();
        let world = |seed| simulate_on_disk(seed, Some(defect));
        let totals = run_all(0..DISK_DEFECT_SEEDS, world, |totals| !totals.failures.is_empty());
        match totals.failures.first() {
            Some((seed, why)) => println!(
                "{defect:?} found after {} worlds and {:.1} s, by seed {seed}: {why}",
                totals.seeds,
                began.elapsed().as_secs_f64()
            ),
            None => missed.push(defect),
        }
    }
    assert!(missed.is_empty(), "{missed:?} were not found in {DISK_DEFECT_SEEDS} worlds each");
}
