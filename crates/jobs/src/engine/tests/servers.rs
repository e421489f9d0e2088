//! Several servers on one ledger: who goes on with a job when another does not, and what becomes of one that is late.

use longshore_core::lease::Worker;
use longshore_core::time::Tick;

use super::*;
use crate::ledger::{Afterwards, Before, Clock, Faults, Memory, Step};

const TERM: Duration = Duration::from_secs(3);

/// A ledger, the store behind it, and a folder, which all servers share.
struct Several {
    dir: tempfile::TempDir,
    shelf: Arc<Shelf>,
    first: Memory,
    /// How far the ledger's clock is ahead of ours, in milliseconds.
    ahead: Arc<std::sync::atomic::AtomicU64>,
    sinks: Vec<Arc<dyn crate::ports::EventSink>>,
}

impl Several {
    fn new() -> Self {
        let (began, ahead) = (Instant::now(), Arc::<std::sync::atomic::AtomicU64>::default());
        let by = Arc::clone(&ahead);
        let passed = move || u64::try_from(began.elapsed().as_millis()).unwrap();
        let clock: Clock = Arc::new(move || Tick(passed() + by.load(Ordering::SeqCst)));
        let first = Memory::new(7, TERM, clock, Arc::new(crate::Settings::new(ACCOUNT, "us-west-2")), Fatal::new());
        let (dir, shelf) = (tempfile::tempdir().unwrap(), Arc::new(Shelf::default()));
        Self { dir, shelf, first, ahead, sinks: Vec::new() }
    }

    fn settings(&self) -> Arc<crate::Settings> {
        let mut settings = crate::Settings::new(ACCOUNT, "us-west-2");
        settings.run.retry.redrive.base_ms = 2;
        settings.event_sinks = self.sinks.clone();
        Arc::new(settings)
    }

    /// One more server, with a function of its own. `held`: no call is answered before it is let.
    async fn server(&self, held: bool, faults: impl Faults) -> World {
        let function = Function::new();
        if held {
            function.gate.forget_permits(Semaphore::MAX_PERMITS);
        }
        let (settings, fatal) = (self.settings(), Fatal::new());
        let ledger = self.first.join(Arc::clone(&settings), fatal.clone()).with_faults(Arc::new(faults));
        let (objects, invoker) =
            (Arc::clone(&self.shelf) as Arc<dyn Objects>, Arc::clone(&function) as Arc<dyn Invoker>);
        let dir = self.dir.path().to_owned();
        let jobs = Jobs::start(Arc::new(ledger), dir, fatal, settings, objects, invoker).await.unwrap();
        // The world's own folder is of no account here: they share one.
        World { dir: tempfile::tempdir().unwrap(), shelf: Arc::clone(&self.shelf), function, jobs }
    }
}

/// Kills a server: nothing of it goes on.
fn kill(world: &World) {
    world.jobs.engine.shared.tasks.cut_off();
}

/// Waits until a server's function has so many calls.
async fn called(world: &World, calls: usize) {
    while world.function.calls().len() < calls {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn report_of(rows: usize) -> Vec<String> {
    let row = |key: String| match key.starts_with("bad") {
        true => format!("b,{key},,failed,200,PermanentFailure,{key}"),
        false => format!("b,{key},,succeeded,200,,{key}"),
    };
    let mut wanted: Vec<_> = keys(rows).into_iter().map(row).collect();
    wanted.sort();
    wanted
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_server_has_died_goes_on_at_another_when_its_lease_has_run_out() {
    let several = Several::new();
    let dies = several.server(true, crate::ledger::NoFaults).await;
    dies.manifest(&keys(40));
    let id = dies.create(|b| b).await;
    dies.function.gate.add_permits(10);
    called(&dies, 14).await;
    let next = several.server(false, crate::ledger::NoFaults).await;
    assert!(next.describe(&id).await.contains("<Status>Active</Status>"));
    // As long as the first one lives the job is its own, however long it takes.
    tokio::time::sleep(TERM * 3).await;
    assert_eq!(next.function.calls().len(), 0);
    kill(&dies);
    let died = Instant::now();
    next.wait_for(&id, "Complete").await;
    let waited = died.elapsed();
    assert!(waited > TERM / 2 && waited < TERM + Duration::from_secs(1), "{waited:?}");
    assert_eq!(next.report(&id), report_of(40));
    // Ten are settled; what was in flight, four, is repeated.
    assert_eq!(next.function.calls().len(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stops_gives_its_jobs_to_the_others_at_once() {
    let several = Several::new();
    let stops = several.server(true, crate::ledger::NoFaults).await;
    stops.manifest(&keys(20));
    let id = stops.create(|b| b).await;
    called(&stops, 4).await;
    let next = several.server(false, crate::ledger::NoFaults).await;
    stops.stop().await;
    let stopped = Instant::now();
    next.wait_for(&id, "Complete").await;
    assert!(stopped.elapsed() < TERM / 2, "{:?}", stopped.elapsed());
    assert_eq!(next.report(&id), report_of(20));
    assert_eq!(stops.function.calls().len() + next.function.calls().len(), 20, "nothing is repeated");
}

/// From a moment on a server gets nothing about leases through to the ledger, and what it records does not get there.
#[derive(Clone, Default)]
struct Away {
    leases: Arc<std::sync::atomic::AtomicBool>,
    appends: Arc<std::sync::atomic::AtomicBool>,
}

#[async_trait::async_trait]
impl Faults for Away {
    async fn before(&self, step: &Step) -> Before {
        match step.what {
            "lease" | "renew" | "give_back" if self.leases.load(Ordering::SeqCst) => Before::Unknown,
            "append" if self.appends.load(Ordering::SeqCst) => std::future::pending().await,
            _ => Before::GoOn,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_whose_lease_has_run_out_starts_nothing_more_and_its_late_answers_count_for_nothing() {
    let (several, away) = (Several::new(), Away::default());
    let late = several.server(true, away.clone()).await;
    late.manifest(&keys(40));
    let id = late.create(|b| b).await;
    late.function.gate.add_permits(10);
    called(&late, 14).await;
    let next = several.server(false, crate::ledger::NoFaults).await;
    away.leases.store(true, Ordering::SeqCst);
    let began = Instant::now();
    called(&next, 1).await;
    let waited = began.elapsed();
    assert!(waited > TERM / 2 && waited < TERM + Duration::from_secs(1), "{waited:?}");
    // What the first one has called is answered now.
    late.function.gate.add_permits(100);
    next.wait_for(&id, "Complete").await;
    tokio::time::sleep(TERM * 3).await;
    assert_eq!((late.function.calls().len(), next.function.calls().len()), (14, 30));
    assert_eq!(next.report(&id), report_of(40));
    assert!(late.describe(&id).await.contains("<Status>Complete</Status>"), "it serves as before");
}

#[tokio::test(start_paused = true)]
async fn what_was_not_recorded_when_a_lease_ran_out_is_settled_by_the_next_owner_alone() {
    let (several, away) = (Several::new(), Away::default());
    away.appends.store(true, Ordering::SeqCst);
    let late = several.server(false, away.clone()).await;
    late.manifest(&keys(8));
    let id = late.create(|b| b).await;
    called(&late, 8).await;
    away.leases.store(true, Ordering::SeqCst);
    let next = several.server(false, crate::ledger::NoFaults).await;
    next.wait_for(&id, "Complete").await;
    assert_eq!(next.function.calls().len(), 8, "none of them was recorded");
    assert_eq!(next.report(&id), report_of(8));
}

#[tokio::test(start_paused = true)]
async fn a_cancel_at_another_server_is_answered_once_the_one_that_runs_the_job_starts_nothing_more() {
    let several = Several::new();
    let runs = several.server(true, crate::ledger::NoFaults).await;
    runs.manifest(&keys(40));
    let id = runs.create(|b| b).await;
    called(&runs, 4).await;
    let asked = several.server(false, crate::ledger::NoFaults).await;
    let began = Instant::now();
    let (status, answer) =
        asked.send("POST", &format!("/v20180820/jobs/{id}/status"), "requestedJobStatus=Cancelled", "").await;
    assert!(status == 200 && answer.contains("<Status>Cancelling</Status>"), "{answer}");
    assert!(began.elapsed() < TERM / 2, "it did not wait for the lease to run out: {:?}", began.elapsed());
    runs.function.gate.add_permits(100);
    asked.wait_for(&id, "Cancelled").await;
    assert_eq!((runs.function.calls().len(), asked.function.calls().len()), (4, 0));
}

#[tokio::test(start_paused = true)]
async fn a_cancel_at_a_server_that_has_lost_the_job_unawares_waits_for_the_one_that_has_it() {
    let several = Several::new();
    let unaware = several.server(true, crate::ledger::NoFaults).await;
    unaware.manifest(&keys(40));
    let id = unaware.create(|b| b).await;
    called(&unaware, 4).await;
    // For the ledger its lease is over, and another server takes the job.
    several.ahead.store(TERM.as_millis() as u64, Ordering::SeqCst);
    let other = several.first.join(several.settings(), Fatal::new());
    let fence = other.lease(&crate::ledger::Duty::Job(id.clone())).await.unwrap().unwrap().fence;
    let path = format!("/v20180820/jobs/{id}/status");
    let cancel = unaware.send("POST", &path, "requestedJobStatus=Cancelled", "");
    tokio::pin!(cancel);
    let early = tokio::time::timeout(TERM / 2, &mut cancel).await;
    assert!(early.is_err(), "the other one may still start something");
    other.halt(&fence).await.unwrap();
    assert_eq!(cancel.await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_of_a_job_whose_server_has_died_is_answered_when_its_lease_has_run_out() {
    let several = Several::new();
    let dies = several.server(true, crate::ledger::NoFaults).await;
    dies.manifest(&keys(40));
    let id = dies.create(|b| b).await;
    called(&dies, 4).await;
    let asked = several.server(false, crate::ledger::NoFaults).await;
    kill(&dies);
    let (status, _) =
        asked.send("POST", &format!("/v20180820/jobs/{id}/status"), "requestedJobStatus=Cancelled", "").await;
    assert_eq!(status, 200);
    asked.wait_for(&id, "Cancelled").await;
    assert_eq!(asked.function.calls().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn all_servers_together_run_no_more_jobs_than_there_are_slots() {
    let several = Several::new();
    let worlds = [
        several.server(true, crate::ledger::NoFaults).await,
        several.server(true, crate::ledger::NoFaults).await,
        several.server(true, crate::ledger::NoFaults).await,
    ];
    worlds[0].manifest(&keys(3));
    for n in 0..9 {
        worlds[n % 3].create(|b| b.replace("tok-1", &format!("tok-{n}"))).await;
    }
    let active = async || {
        let (active, _) = worlds[0].jobs.ledger.list(vec![Status::Active], None, 100).await.unwrap();
        active.len()
    };
    while active().await < 6 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(TERM).await;
    assert_eq!(active().await, 6);
    for world in &worlds {
        world.function.gate.add_permits(1_000);
    }
    let (jobs, _) = worlds[0].jobs.ledger.list(vec![], None, 100).await.unwrap();
    for job in jobs {
        worlds[1].wait_for(&job.id, "Complete").await;
    }
    let calls: usize = worlds.iter().map(|world| world.function.calls().len()).sum();
    assert_eq!(calls, 27, "each row of each job once");
}

/// A sink that notes what it is handed, by whom.
struct Noting(Mutex<Vec<String>>);

#[async_trait::async_trait]
impl crate::ports::EventSink for Noting {
    fn name(&self) -> &str {
        "noting"
    }

    async fn deliver(&self, event: &longshore_wire::event::JobEvent) -> Result<(), crate::ports::SinkError> {
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.0.lock().unwrap().push(event.status.clone());
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn one_server_at_a_time_hands_events_to_a_sink_and_another_goes_on_when_it_has_died() {
    let mut several = Several::new();
    let sink = Arc::new(Noting(Mutex::default()));
    several.sinks = vec![Arc::clone(&sink) as Arc<dyn crate::ports::EventSink>];
    let first = several.server(false, crate::ledger::NoFaults).await;
    let second = several.server(true, crate::ledger::NoFaults).await;
    first.manifest(&keys(3));
    let id = first.create(|b| b).await;
    first.wait_for(&id, "Complete").await;
    let wanted = ["New", "Preparing", "Ready", "Active", "Completing", "Complete"];
    let handed = async |wanted: usize| {
        for _ in 0..20_000 {
            if sink.0.lock().unwrap().len() >= wanted {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        sink.0.lock().unwrap().clone()
    };
    assert_eq!(handed(6).await, wanted);
    kill(&first);
    let id = second.create(|b| b.replace("tok-1", "tok-2")).await;
    second.function.gate.add_permits(3);
    second.wait_for(&id, "Complete").await;
    assert_eq!(handed(12).await[6..], wanted);
}

#[tokio::test(start_paused = true)]
async fn work_under_a_lease_is_dropped_where_it_stands_when_the_lease_runs_out_or_is_lost() {
    let several = Several::new();
    let settings = several.settings();
    let (ours, others) = (several.first.join(Arc::clone(&settings), Fatal::new()), several.first.clone());
    let keeper = super::super::keeper::Keeper::default();
    let duty = crate::ledger::Duty::Job("j".into());
    let held = keeper.take(&ours, &duty).await.unwrap().unwrap();
    assert_eq!(held.fence.worker, Worker(2));
    let began = Instant::now();
    let steps = AtomicUsize::new(0);
    let work = async {
        loop {
            tokio::time::sleep(TERM / 10).await;
            steps.fetch_add(1, Ordering::SeqCst);
        }
    };
    assert_eq!(held.during::<()>(work).await, None);
    assert_eq!((began.elapsed(), steps.load(Ordering::SeqCst)), (TERM, 9), "it has ended by the end of its term");
    assert_eq!(held.during(async { 7 }).await, None, "nothing begins under it either");
    // What is renewed goes on.
    let held = keeper.take(&ours, &duty).await.unwrap().unwrap();
    let renewing = async {
        for _ in 0..10 {
            tokio::time::sleep(TERM / 2).await;
            keeper.renew(&ours, TERM).await;
        }
        "done"
    };
    assert_eq!(held.during(renewing).await, Some("done"));
    // Another has it by now.
    tokio::time::sleep(TERM).await;
    others.lease(&duty).await.unwrap().unwrap();
    let held_again = keeper.take(&ours, &crate::ledger::Duty::Job("k".into())).await.unwrap().unwrap();
    keeper.renew(&ours, TERM).await;
    assert_eq!(held.during(async { 7 }).await, None);
    assert_eq!(held_again.during(async { 7 }).await, Some(7));
}

/// Answers an append after its effect with what a broken connection leaves: nothing.
struct Forgets(AtomicUsize);

#[async_trait::async_trait]
impl Faults for Forgets {
    async fn after(&self, step: &Step) -> Afterwards {
        let writes = step.writes && step.what != "renew" && step.what != "lease";
        match writes && self.0.fetch_add(1, Ordering::SeqCst).is_multiple_of(3) {
            true => Afterwards::Unknown,
            false => Afterwards::GoOn,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_ends_as_it_should_although_every_third_answer_of_the_ledger_is_lost() {
    let several = Several::new();
    let world = several.server(false, Forgets(AtomicUsize::new(2))).await;
    world.manifest(&keys(400));
    let id = world.create(|b| b).await;
    world.wait_for(&id, "Complete").await;
    assert_eq!(world.report(&id), report_of(400));
    assert_eq!(world.function.calls().len(), 400);
}
