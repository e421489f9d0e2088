//! One world from its beginning to its end: servers are started, clients come, things go wrong for a while, and then
//! everything has to come to its end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use longshore_core::time::Tick;
use longshore_jobs::ledger::{Fence, Ledger, Logs, Memory};
use longshore_jobs::ports::{EventSink, SinkError};
use longshore_jobs::{Ground, Jobs, Settings};
use longshore_store::{Fatal, StoreError};
use longshore_wire::event::JobEvent;
use tokio::time::Instant;

use crate::clients::Client;
use crate::defect::Defect;
use crate::disk::{Disk, DiskDefect, DiskFault, Odds};
use crate::function::{CALL_MAX, Functions};
use crate::ledger::{Reached, Tears};
use crate::machine::Machine;
use crate::objects::Shelves;
use crate::plan::{Fault, Plan};
use crate::world::{ACCOUNT, FUNCTIONS, Planted, World, living};

/// Virtual time in which every job must end once the faults have stopped.
const LIVENESS: Duration = Duration::from_secs(60 * 60);
/// For how much longer things go wrong in a world in which no server has died at work yet.
const TORMENT_MORE: Duration = Duration::from_secs(60);
const YEAR_MS: i64 = 365 * 24 * 60 * 60 * 1_000;

/// How long a lease of a server holds that is alone: longer than any world.
const ALONE_MS: u64 = 1_000 * 365 * 24 * 60 * 60 * 1_000;

/// What one world has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub faults: BTreeMap<Fault, u64>,
    pub disk_faults: BTreeMap<DiskFault, u64>,
    pub crashes_with_work: u64,
    pub events: u64,
    pub calls: u64,
    pub trace: u64,
    pub virtual_ms: u64,
}

/// Runs the world of a seed. `Err`: the law that was broken.
pub fn simulate(seed: u64, defect: Option<Defect>) -> Result<Shown, String> {
    simulate_plan(Plan::new(seed), defect.map_or(Planted::Nothing, Planted::Above))
}

/// The same of a world whose one server has its results and manifests on a disk that loses what was not synced.
pub fn simulate_on_disk(seed: u64, defect: Option<DiskDefect>) -> Result<Shown, String> {
    simulate_plan(Plan::on_disk(seed), defect.map_or(Planted::Nothing, Planted::AtTheDisk))
}

fn simulate_plan(plan: Plan, planted: Planted) -> Result<Shown, String> {
    let seed = plan.seed;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(|error| format!("no runtime: {error}"))?;
    let dir = crate::scratch().map_err(|error| format!("no folder: {error}"))?;
    runtime.block_on(async {
        let began = Instant::now();
        // A lease of a server that is alone lasts until it is started anew.
        let alone = plan.disk.map(|_| ALONE_MS);
        let term = Duration::from_millis(alone.unwrap_or(plan.lease_ms));
        let ahead = Arc::new(std::sync::atomic::AtomicI64::new(0));
        let by_wall = (planted == Planted::Above(Defect::WallClockForLeases)).then(|| Arc::clone(&ahead));
        let clock = move || {
            let jumped = by_wall.as_ref().map_or(0, |ahead| ahead.load(std::sync::atomic::Ordering::Relaxed));
            Tick((began.elapsed().as_millis() as u64).saturating_add_signed(jumped))
        };
        let observer = Arc::new(Settings::new(ACCOUNT, "us-west-2"));
        let ledger = Memory::new(seed, term, Arc::new(clock), observer, Fatal::new());
        let world = World::new(plan, planted, ledger, dir.path().to_owned());
        live(&world, &ahead).await;
        match world.violation() {
            Some(violation) => Err(violation),
            None => Ok(shown(&world)),
        }
    })
}

fn shown(world: &World) -> Shown {
    let trace = world.trace();
    let virtual_ms = world.began.elapsed().as_millis() as u64;
    let disk_faults = world.disk.as_ref().map(Disk::take_faults).unwrap_or_default();
    let state = world.state();
    Shown {
        disk_faults,
        faults: state.faults.clone(),
        crashes_with_work: state.crashes_with_work,
        events: state.events,
        calls: state.calls,
        trace,
        virtual_ms,
    }
}

async fn live(world: &Arc<World>, ahead: &std::sync::atomic::AtomicI64) {
    let whole = std::panic::AssertUnwindSafe(begin_to_end(world, ahead)).catch_unwind();
    tokio::select! {
        biased;
        () = world.ended.notified() => {}
        ended = whole => {
            if let Err(panic) = ended {
                world.violated(&panic);
            }
        }
    }
    // Nothing of it outlives the world.
    let machines = living(&world.state());
    machines.iter().for_each(|machine| machine.die());
}

async fn begin_to_end(world: &Arc<World>, ahead: &std::sync::atomic::AtomicI64) {
    for server in 0..world.plan.servers {
        let machine = Machine::new(world, server, 0);
        world.state().machines.push(Arc::clone(&machine));
        start(&machine);
    }
    let clients = (0..world.plan.jobs.len()).map(|job| {
        let client = Client::new(world, job);
        async move { (job, client.live().await) }
    });
    let clients = futures::future::join_all(clients);
    let nemesis = async {
        torment(world, ahead).await;
        calm(world).await;
        tokio::time::sleep(LIVENESS).await;
        let open: Vec<_> = world.state().jobs.iter().map(|book| book.statuses.last().copied()).collect();
        panic!("the faults stopped an hour ago, and the jobs are {open:?} (X3)");
    };
    let supervisor = supervise(world);
    let reasons: BTreeMap<usize, Vec<(String, String)>> = tokio::select! {
        biased;
        reasons = clients => reasons.into_iter().collect(),
        () = nemesis => return,
        () = supervisor => return,
    };
    // The jobs may be over before the faults are.
    calm(world).await;
    let supervisor = supervise(world);
    tokio::select! {
        biased;
        () = settle(world) => {}
        () = supervisor => {}
    }
    crate::audit::whole(world, &reasons);
    world.outlives_a_power_cut();
}

/// What belongs to the end: events are delivered, and servers stop in order.
async fn settle(world: &Arc<World>) {
    let deadline = Instant::now() + LIVENESS;
    loop {
        let all = world.state().jobs.iter().all(|book| book.delivered.len() >= book.statuses.len());
        if all {
            break;
        }
        assert!(Instant::now() < deadline, "an event was not delivered within an hour");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let machines = living(&world.state());
    for machine in machines {
        let Some(jobs) = machine.jobs() else { continue };
        let stopped = machine.run(async move { jobs.shutdown().await });
        let stopped = tokio::time::timeout(CALL_MAX * 2, stopped).await;
        assert!(stopped.is_ok(), "server {} does not stop", machine.server);
    }
}

/// Starts the servers that have died, as whoever runs them would.
async fn supervise(world: &Arc<World>) {
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let machines = world.state().machines.clone();
        for machine in machines {
            let calm = !world.state().faults_on;
            if machine.is_dead() && (calm || world.one_in(20)) {
                let next = Machine::new(world, machine.server, machine.life + 1);
                world.state().machines[machine.server] = Arc::clone(&next);
                world.event("start of server", next.server as u64);
                start(&next);
            }
        }
    }
}

/// Starts one server on a machine.
fn start(machine: &Arc<Machine>) {
    let own = Arc::clone(machine);
    machine.spawn(async move {
        let world = &own.world;
        let dies_early = world.fault(Fault::CrashAtStart);
        if dies_early {
            let dying = Arc::clone(&own);
            own.spawn(async move {
                dying.world.sleep_up_to(30).await;
                dying.die_here(Fault::CrashAtStart).await;
            });
        }
        let settings = Arc::new(settings(&own));
        let tears = Arc::new(Tears::default());
        let logs = world.disk.as_ref().map(|_| {
            let newest = Arc::clone(world);
            let admit =
                move |fence: &Fence| if newest.newest(fence) == *fence { Ok(()) } else { Err(StoreError::Fenced) };
            Logs::new(settings.ground.clone(), world.dir.clone(), own.fatal.clone(), Arc::new(admit))
        });
        if logs.is_some() {
            own.spawn(Arc::clone(&own).until_a_sync_fails());
            // The leases of the process before lay in its memory.
            for fence in world.leases() {
                world.ledger.give_back(&fence).await.expect("a ledger in memory gives back");
            }
        }
        let ledger = world.ledger.join(Arc::clone(&settings), own.fatal.clone()).with_faults(Arc::clone(&tears) as _);
        let ledger: Arc<dyn Ledger> = Arc::new(Reached::new(&own, Arc::new(ledger), logs, tears));
        let (objects, functions) = (Arc::new(Shelves(Arc::clone(&own))), Arc::new(Functions(Arc::clone(&own))));
        let opened = Jobs::start(ledger, world.dir.clone(), own.fatal.clone(), settings, objects, functions).await;
        match opened {
            Ok(jobs) => own.set_jobs(jobs),
            // A server that cannot start ends, and is started again.
            Err(_) => own.die(),
        }
    });
}

fn settings(machine: &Arc<Machine>) -> Settings {
    let (world, plan) = (&machine.world, &machine.world.plan);
    let (clock, bits) = (Arc::clone(world), Arc::clone(world));
    let mut run = plan.settings.clone();
    if world.has(Defect::ThresholdOffByOne) {
        run.threshold.tasks_min += 1;
    }
    if world.has(Defect::ThresholdTooEarly) {
        run.threshold.tasks_min -= 1;
    }
    Settings {
        active_slots: plan.active_slots,
        preparing_slots: plan.preparing_slots,
        concurrency_total_max: plan.concurrency_total,
        run,
        confirmation_default: false,
        event_sinks: vec![Arc::new(Sink(Arc::clone(machine)))],
        random: Arc::new(move || bits.bits()),
        wall_clock: Arc::new(move || clock.wall_clock()),
        ground: Ground::Pretended(Arc::clone(machine) as _),
        ..Settings::new(ACCOUNT, "us-west-2")
    }
}

/// Where events go.
struct Sink(Arc<Machine>);

#[async_trait::async_trait]
impl EventSink for Sink {
    fn name(&self) -> &str {
        "sink"
    }

    async fn deliver(&self, event: &JobEvent) -> Result<(), SinkError> {
        let world = &self.0.world;
        world.sleep_up_to(10).await;
        let fails = world.fault(Fault::SinkFails);
        if fails && world.one_in(2) {
            return Err(SinkError("not now".into()));
        }
        let Some(job) = world.job_of(&event.job_id) else { panic!("an event of {}, which is no job", event.job_id) };
        let mut state = world.state();
        let book = &mut state.jobs[job];
        // What was taken before may come again; anything else is the next one.
        let next = book.statuses.get(book.delivered.len()).map(|status| status.name());
        if !book.delivered.contains(&event.status) || next == Some(&*event.status) {
            assert_eq!(next, Some(&*event.status), "an event of job {job} is handed over before an earlier one");
            book.delivered.push(event.status.clone());
        }
        if fails { Err(SinkError("it was taken, and nobody says so".into())) } else { Ok(()) }
    }
}

/// Lets things go wrong until the world's time for that is over.
async fn torment(world: &Arc<World>, ahead: &std::sync::atomic::AtomicI64) {
    const DEEDS: [Fault; 7] = [
        Fault::Crash,
        Fault::FullDisk,
        Fault::PausedServer,
        Fault::Stop,
        Fault::ClockJump,
        Fault::OtherLimit,
        Fault::OtherManifest,
    ];
    let end = world.began + Duration::from_millis(world.plan.faulty_ms);
    // A server has to die at work, and for that somebody has to be at work.
    let at_work = |world: &World| world.state().calls > world.plan.crashes_at_calls[0];
    while Instant::now() < end || (!at_work(world) && Instant::now() < end + TORMENT_MORE) {
        world.sleep_up_to(2 * world.plan.nemesis_ms).await;
        let deed = DEEDS[world.below(DEEDS.len() as u64) as usize];
        if world.plan.rate(deed) == 0 {
            continue;
        }
        let machine = {
            let mut state = world.state();
            let living = living(&state);
            let chosen = state.random.below(living.len() as u64) as usize;
            living.get(chosen).cloned()
        };
        match (deed, machine) {
            (Fault::Crash, Some(machine)) => machine.die(),
            (Fault::PausedServer, Some(machine)) => machine.pause(),
            (Fault::Stop, Some(machine)) => stop(&machine),
            (Fault::FullDisk, _) => {
                let ms = world.below(if world.one_in(4) { 40_000 } else { 3_000 });
                world.state().full_until = Instant::now() + Duration::from_millis(ms);
                if let Some(disk) = world.disk.clone() {
                    disk.set_room(world.below(10_000));
                    tokio::spawn(async move {
                        tokio::time::sleep(Duration::from_millis(ms)).await;
                        disk.set_room(u64::MAX);
                    });
                }
            }
            (Fault::ClockJump, _) => {
                let by = [1_000, 60 * 60 * 1_000, YEAR_MS, 10 * YEAR_MS][world.below(4) as usize];
                let by = if world.one_in(2) { by } else { -by };
                // Between 10 years back and 10 ahead.
                let mut state = world.state();
                state.wall_ahead_ms = (state.wall_ahead_ms + by).clamp(-10 * YEAR_MS, 10 * YEAR_MS);
                ahead.store(state.wall_ahead_ms, std::sync::atomic::Ordering::Relaxed);
            }
            (Fault::OtherLimit, _) => {
                let (function, slots) = (world.below(FUNCTIONS as u64) as usize, 1 + world.below(24) as u32);
                world.state().slots[function] = slots;
            }
            // A job that fails for it shows little else.
            (Fault::OtherManifest, _) if world.one_in(4) => {
                let job = world.below(world.plan.jobs.len() as u64) as usize;
                world.state().jobs[job].version += 1;
            }
            _ => continue,
        }
        world.note(deed);
    }
}

/// Stops a server in order: it is dead once it has said that it has stopped.
fn stop(machine: &Arc<Machine>) {
    let Some(jobs) = machine.jobs() else { return };
    machine.world.event("stop of server", machine.server as u64);
    let own = Arc::clone(machine);
    machine.spawn(async move {
        jobs.shutdown().await;
        own.die();
    });
}

/// From here on nothing goes wrong any more: who stands still goes on, there is space, and the supervisor starts who is
/// dead.
async fn calm(world: &Arc<World>) {
    world.event("calm", 0);
    let machines = {
        let mut state = world.state();
        state.faults_on = false;
        state.full_until = Instant::now();
        if let Some(disk) = &world.disk {
            disk.set_odds(Odds::default());
            disk.set_room(u64::MAX);
        }
        state.machines.clone()
    };
    machines.iter().for_each(|machine| machine.go_on());
}
