//! Both ledgers under the suite, and beside each other under random calls.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt;
use longshore_core::random::Random;
use longshore_store::{Fatal, Records};

use super::conformance::{self, Clocks, Subject, TERM, read, request, settings, settled};
use super::*;

/// A data directory, and the ledger that was opened on it last.
struct OnDisk {
    dir: tempfile::TempDir,
    clocks: Clocks,
}

impl OnDisk {
    fn new(clocks: Clocks) -> Self {
        // In memory where that can be: these cases are about what is written, not about how long a disk takes to sync it.
        let dir = match Path::new("/dev/shm").is_dir() {
            true => tempfile::tempdir_in("/dev/shm"),
            false => tempfile::tempdir(),
        };
        Self { dir: dir.unwrap(), clocks }
    }
}

#[async_trait]
impl Subject for OnDisk {
    async fn server(&mut self) -> Arc<dyn Ledger> {
        let fatal = Fatal::new();
        let records = Records::open(&self.dir.path().join("records.db"), &[crate::SCHEMA], fatal.clone()).unwrap();
        let settings = Arc::new(settings(&self.clocks));
        Arc::new(Embedded::open(records, self.dir.path().join("jobs"), fatal, settings).await.unwrap())
    }

    fn is_shared(&self) -> bool {
        false
    }

    async fn tear(&mut self, fence: &Fence) {
        let path = self.dir.path().join("jobs").join(fence.job().unwrap()).join("results/00000001.seg");
        let mut bytes = std::fs::read(&path).unwrap();
        let whole = bytes.len();
        longshore_store::segment::push_frame(&mut bytes, &[7; 100]);
        bytes.truncate(whole + 50);
        std::fs::write(path, bytes).unwrap();
    }
}

struct InMemory {
    /// The server that joined first, which nobody asks.
    first: Memory,
    clocks: Clocks,
    tears: usize,
}

impl InMemory {
    fn new(clocks: Clocks) -> Self {
        let own = clocks.clone();
        let clock: Clock = Arc::new(move || own.tick());
        let first = Memory::new(1, TERM, clock, Arc::new(settings(&clocks)), Fatal::new());
        Self { first, clocks, tears: 0 }
    }
}

#[async_trait]
impl Subject for InMemory {
    async fn server(&mut self) -> Arc<dyn Ledger> {
        Arc::new(self.first.join(Arc::new(settings(&self.clocks)), Fatal::new()))
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn tear(&mut self, fence: &Fence) {
        self.tears += 1;
        let tear = match self.tears % 2 {
            0 => Tear::Garbled { byte: 20, bit: 3 },
            _ => Tear::Cut(50),
        };
        let dies = self.first.clone().with_faults(Arc::new(Once("append", Before::Torn(tear), Afterwards::GoOn)));
        let (results, _) = dies.open_results(fence).await.unwrap();
        assert!(results.append(1, settled(1_000..1_010)).now_or_never().is_none(), "no answer ever comes");
    }
}

/// Goes wrong at each call of one name.
struct Once(&'static str, Before, Afterwards);

#[async_trait]
impl Faults for Once {
    async fn before(&self, step: &Step) -> Before {
        if step.what == self.0 { self.1 } else { Before::GoOn }
    }

    async fn after(&self, step: &Step) -> Afterwards {
        if step.what == self.0 { self.2 } else { Afterwards::GoOn }
    }
}

#[tokio::test]
async fn the_embedded_ledger_does_what_every_ledger_does() {
    conformance::all(async |clocks| OnDisk::new(clocks)).await;
}

#[tokio::test]
async fn the_ledger_in_memory_does_what_every_ledger_does() {
    conformance::all(async |clocks| InMemory::new(clocks)).await;
}

#[tokio::test]
async fn what_goes_wrong_in_memory_is_told_as_it_happened() {
    let told = |error: &StoreError| (error.is_full(), error.may_have_happened());
    let before = |before| (before, Afterwards::GoOn);
    let after = |after| (Before::GoOn, after);
    // What goes wrong; whether the caller is told, and then as (full, may have happened); whether it happened.
    for ((at_first, at_last), answer, happened) in [
        (before(Before::Full), Some((true, false)), false),
        (before(Before::Unknown), Some((false, true)), false),
        (before(Before::SyncFails), Some((false, true)), false),
        (before(Before::Lost), None, false),
        (before(Before::Torn(Tear::Cut(3))), None, false),
        (after(Afterwards::Unknown), Some((false, true)), true),
        (after(Afterwards::SyncFails), Some((false, true)), true),
        (after(Afterwards::Lost), None, true),
    ] {
        let clocks = Clocks::default();
        let sound = InMemory::new(clocks.clone()).first;
        sound.create("j".into(), request("t", 1)).await.unwrap();
        let fence = sound.lease(&Duty::Job("j".into())).await.unwrap().unwrap().fence;
        let fatal = Fatal::new();
        let joined = sound.join(Arc::new(settings(&clocks)), fatal.clone());
        let case = format!("{at_first:?} {at_last:?}");

        let faulty = joined.clone().with_faults(Arc::new(Once("note_rows", at_first, at_last)));
        let noted = faulty.note_rows(&fence, 7).now_or_never();
        assert_eq!(noted.map(|noted| told(&noted.unwrap_err())), answer, "{case}");
        assert_eq!(sound.job("j").await.unwrap().unwrap().rows_total, if happened { 7 } else { 0 }, "{case}");
        let sync = matches!(at_first, Before::SyncFails) || matches!(at_last, Afterwards::SyncFails);
        assert_eq!(fatal.reason().is_some(), sync, "{case}");
        if sync {
            // After a failed sync this server acknowledges nothing any more; reading goes on, and so do the others.
            let next = joined.note_rows(&fence, 8).await;
            assert!(matches!(next, Err(StoreError::Broken(_))), "{next:?}");
            assert!(joined.job("j").await.is_ok() && sound.note_rows(&fence, 9).await.is_ok());
            continue;
        }
        // The same of an append, which can be given again until it is known.
        let faulty = joined.clone().with_faults(Arc::new(Once("append", at_first, at_last)));
        let (results, _) = faulty.open_results(&fence).await.unwrap();
        let appended = results.append(1, settled(0..2)).now_or_never();
        assert_eq!(appended.map(|appended| told(&appended.unwrap_err())), answer, "{case}");
        let rows = read(&sound, "j", Position::default()).unwrap().0;
        assert_eq!(rows.len(), if happened { 2 } else { 0 }, "{case}");
        // A read is only ever lost.
        let faulty = joined.with_faults(Arc::new(Once("job", at_first, at_last)));
        assert_eq!(faulty.job("j").now_or_never().map(|read| read.is_ok()), answer.map(|_| true), "{case}");
    }
}

#[tokio::test]
async fn an_append_of_which_the_answer_was_lost_is_found_when_it_is_given_again() {
    struct FirstTime(AtomicBool);

    #[async_trait]
    impl Faults for FirstTime {
        async fn after(&self, step: &Step) -> Afterwards {
            match step.what == "append" && !self.0.swap(true, Ordering::SeqCst) {
                true => Afterwards::Unknown,
                false => Afterwards::GoOn,
            }
        }
    }

    let memory = InMemory::new(Clocks::default()).first.with_faults(Arc::new(FirstTime(AtomicBool::new(false))));
    memory.create("j".into(), request("t", 1)).await.unwrap();
    let fence = memory.lease(&Duty::Job("j".into())).await.unwrap().unwrap().fence;
    let (results, _) = memory.open_results(&fence).await.unwrap();
    assert!(matches!(results.append(1, settled(0..3)).await, Err(StoreError::Unknown(_))));
    assert_eq!(results.append(1, settled(0..3)).await.unwrap(), Appended::Already);
    assert_eq!(results.append(2, settled(3..4)).await.unwrap(), Appended::Done);
    assert_eq!(read(&memory, "j", Position::default()).unwrap().0, [0, 1, 2, 3]);
    let job = memory.job("j").await.unwrap().unwrap();
    assert_eq!((job.succeeded, job.failed), (2, 2), "counted once");
}

#[tokio::test]
async fn an_embedded_ledger_opens_on_a_full_disk_and_counts_the_opening_later() {
    let mut subject = OnDisk::new(Clocks::default());
    let first = subject.server().await;
    first.create("j".into(), request("t", 1)).await.unwrap();
    let old = first.lease(&Duty::Job("j".into())).await.unwrap().unwrap().fence;
    drop(first);
    let fatal = Fatal::new();
    let records = Records::open(&subject.dir.path().join("records.db"), &[crate::SCHEMA], fatal.clone()).unwrap();
    // A database that may not be written to for a while.
    let held = rusqlite::Connection::open(subject.dir.path().join("records.db")).unwrap();
    held.execute_batch("BEGIN IMMEDIATE").unwrap();
    let settings = Arc::new(settings(&subject.clocks));
    let second = Embedded::open(records, subject.dir.path().join("jobs"), fatal, settings).await.unwrap();
    held.execute_batch("ROLLBACK").unwrap();
    let new = second.lease(&Duty::Job("j".into())).await.unwrap().unwrap().fence;
    assert!(new.epoch > old.epoch);
    second.note_rows(&new, 1).await.unwrap();
    assert!(matches!(second.note_rows(&old, 9).await, Err(StoreError::Fenced)));
    drop(second);
    let third = subject.server().await;
    let newest = third.lease(&Duty::Job("j".into())).await.unwrap().unwrap().fence;
    assert!(newest.epoch > new.epoch);
}

// ── The model test ──

/// One of the two, with the leases that it has given, the oldest first.
struct Side {
    subject: Box<dyn Subject>,
    ledger: Arc<dyn Ledger>,
    clocks: Clocks,
    fences: BTreeMap<Duty, Vec<Fence>>,
    open: BTreeMap<String, (Arc<dyn Results>, u64)>,
}

impl Side {
    async fn new(mut subject: Box<dyn Subject>, clocks: Clocks) -> Self {
        let ledger = subject.server().await;
        Self { subject, ledger, clocks, fences: BTreeMap::new(), open: BTreeMap::new() }
    }

    /// Another server goes on, and has taken every duty that one had before.
    async fn restart(&mut self) {
        self.ledger = self.subject.server().await;
        self.clocks.pass(TERM);
        self.open.clear();
        let duties: Vec<Duty> = self.fences.keys().cloned().collect();
        for duty in duties {
            self.lease(&duty).await;
        }
    }

    async fn lease(&mut self, duty: &Duty) -> String {
        let lease = self.ledger.lease(duty).await.unwrap().expect("the only server can have it");
        let given = self.fences.entry(duty.clone()).or_default();
        let new = given.last() != Some(&lease.fence);
        assert!(given.last().is_none_or(|last| !new || last.epoch < lease.fence.epoch));
        if new {
            given.push(lease.fence);
        }
        format!("new lease: {new}")
    }

    /// A lease that was given once: the last, or the one before it.
    fn fence(&self, duty: &Duty, old: bool) -> Option<Fence> {
        let given = self.fences.get(duty)?;
        given.iter().rev().nth(usize::from(old)).cloned()
    }
}

/// What is told of a job, without what each implementation makes up.
fn told(answer: impl std::fmt::Debug) -> String {
    format!("{answer:?}")
}

fn error(error: StoreError) -> String {
    match error {
        StoreError::Fenced => "fenced".into(),
        other => panic!("{other}"),
    }
}

const IDS: u64 = 5;

/// One random call, made of `random`; both sides make the same. Returns what it answered.
async fn call(side: &mut Side, random: &mut Random) -> String {
    let ledger = Arc::clone(&side.ledger);
    let id = format!("job-{}", random.below(IDS));
    let duty = Duty::Job(id.clone());
    let fence = side.fence(&duty, random.one_in(4));
    let sink = ["first", "second"][random.below(2) as usize];
    match random.below(24) {
        0..3 => {
            // Tokens are few, so that they are used again, also with another request.
            let job = request(&format!("t{}", random.below(IDS)), random.below(2) as u32);
            match ledger.job(&id).await.unwrap() {
                Some(_) => "exists".into(),
                None => ledger.create(id, job).await.map_or_else(|e| e.to_string(), told),
            }
        }
        3..8 => {
            use longshore_core::job::Event as E;
            let events = [
                E::PickedUp,
                E::ManifestRead { confirmation_required: random.one_in(2) },
                E::RowsChecked,
                E::Confirmed,
                E::SlotGranted,
                E::SlotGranted,
                E::Preempted,
                E::CancelRequested,
                E::Drained,
                E::TasksFinished,
                E::TasksFailed,
                E::SampleFinished,
                E::ConfirmationTimedOut,
                E::Failed,
                E::ReportWritten,
                E::ReportWritten,
            ];
            // Half of them an event that is legal, so that jobs get somewhere.
            let drawn = events[random.below(events.len() as u64) as usize];
            let first = random.below(events.len() as u64) as usize;
            let job = ledger.job(&id).await.unwrap();
            let legal = |event: &&E| job.as_ref().is_some_and(|job| job.status.on(**event).is_ok());
            let event = match random.one_in(3) {
                true => drawn,
                false => *events[first..].iter().chain(&events[..first]).find(legal).unwrap_or(&drawn),
            };
            let text = |random: &mut Random| random.one_in(3).then(|| format!("text {}", random.below(3)));
            let change = Change {
                rows_total: random.one_in(3).then(|| random.below(100)),
                counts: random.one_in(3).then(|| (random.below(100), random.below(100))),
                failure_reason: text(random).map(|text| FailureReason::new(&text, "why")),
                status_update_reason: text(random),
                lineage: text(random),
                generated_manifest: text(random).map(|etag| GeneratedManifest { object_arn: "a".into(), etag }),
            };
            let rev = job.map_or(1, |job| job.rev) - u64::from(random.one_in(5));
            let slots = 1 + random.below(2) as usize;
            let terms = match (random.below(4), &fence) {
                (0, _) => Terms::Unchanged(rev),
                (1, _) => Terms::Slot { rev, slots },
                (2, Some(fence)) => Terms::Leased(fence),
                _ => Terms::Legal,
            };
            match ledger.transition(&id, terms, event, change).await {
                Ok(status) => told(status),
                Err(MoveError::Store(store)) => error(store),
                Err(other) => other.to_string(),
            }
        }
        8 => ledger.set_priority(&id, random.below(9) as u32).await.map_or_else(|e| e.to_string(), told),
        9 => {
            let tags = (0..random.below(3)).map(|n| (format!("k{n}"), format!("{}", random.below(9)))).collect();
            ledger.set_tags(&id, tags).await.map_or_else(|e| e.to_string(), told)
        }
        10..13 => side.lease(&duty).await,
        13 => {
            let Some(fence) = fence else { return "no lease".into() };
            side.open.remove(&id);
            ledger.give_back(&fence).await.unwrap();
            told(ledger.renew(&[fence]).await.unwrap())
        }
        14 => {
            let Some(fence) = fence else { return "no lease".into() };
            let (a, b, ms) = (random.below(50), random.below(50), random.below(5_000));
            let progress = ledger.note_progress(&fence, (a, b), ms).await.map_or_else(error, told);
            let rows = ledger.note_rows(&fence, random.below(200)).await.map_or_else(error, told);
            let halted = ledger.halt(&fence).await.map_or_else(error, told);
            format!("{progress} {rows} {halted} {:?}", ledger.is_halted(&id).await.unwrap())
        }
        15 => {
            let Some(fence) = fence.filter(|_| random.one_in(2)) else { return "no lease".into() };
            match ledger.job(&id).await.unwrap() {
                Some(_) => ledger.report_created(&fence).await.map_or_else(error, told),
                None => "none".into(),
            }
        }
        16..18 => {
            let Some(fence) = fence else { return "no lease".into() };
            if ledger.job(&id).await.unwrap().is_none() {
                return "none".into();
            }
            match ledger.open_results(&fence).await {
                Ok((results, past)) => {
                    side.open.insert(id, (results, 0));
                    told((past.succeeded(), past.failed(), past.first_open_row()))
                }
                Err(store) => error(store),
            }
        }
        18..20 => {
            let rows = read(&*ledger, &id, Position::default()).unwrap().0;
            let next = rows.last().map_or(0, |last| last + 1);
            let again = random.one_in(4);
            let Some((results, last)) = side.open.get_mut(&id) else { return told(rows) };
            let batch = if again && *last > 0 { *last } else { *last + 1 };
            match results.append(batch, settled(next..next + 1 + random.below(3))).await {
                Ok(appended) => {
                    *last = batch;
                    // What only one of the two knows by itself the other is told: how far the results are.
                    if let Some(fence) = side.fences.get(&duty).and_then(|given| given.last()) {
                        let rows = read(&*ledger, &id, Position::default()).unwrap().0;
                        let failed = rows.iter().filter(|row| *row % 3 == 0).count() as u64;
                        ledger.note_progress(fence, (rows.len() as u64 - failed, failed), 0).await.unwrap();
                    }
                    told(appended)
                }
                Err(store) => error(store),
            }
        }
        20..22 => {
            let duty = Duty::Sink(sink.into());
            if random.one_in(3) || !side.fences.contains_key(&duty) {
                side.lease(&duty).await;
            }
            let fence = side.fence(&duty, random.one_in(8));
            let now = Timestamp(side.clocks.wall.load(Ordering::SeqCst));
            let due = ledger.due(sink, now, 1_000, 3).await.unwrap();
            let told_due: Vec<_> =
                due.iter().map(|d| (&d.event.job_id, d.number, &d.event.status, d.attempts, d.tried_ms)).collect();
            let answer = told(told_due);
            let (Some(due), Some(fence)) = (due.first(), fence) else { return answer };
            use DeliveryState::{Delivered, GivenUp, Pending};
            let tried = Try {
                state: [Delivered, Delivered, Pending, GivenUp][random.below(4) as usize],
                attempts: due.attempts + 1,
                tried_ms: due.tried_ms + 5,
                not_before: now.0 + random.below(3_000) as i64,
                error: random.one_in(2).then(|| "no".into()),
            };
            let noted = ledger.note_try(&fence, &due.event.job_id, due.number, tried).await.map_or_else(error, told);
            format!("{answer} {noted}")
        }
        22 => {
            let before = ledger.age().before_ms(random.below(5_000) as i64);
            let expired = ledger.expired(before, random.below(3) as usize, 3).await.unwrap();
            if let Some(job) = expired.first() {
                ledger.delete(&job.id).await.unwrap();
                side.open.remove(&job.id);
                side.fences.remove(&Duty::Job(job.id.clone()));
            }
            told(expired)
        }
        _ => {
            ledger.delete(&id).await.unwrap();
            if ledger.job(&id).await.unwrap().is_none() {
                side.open.remove(&id);
                side.fences.remove(&duty);
            }
            "deleted, if it was over".into()
        }
    }
}

/// Everything that can be seen, without what each implementation makes up.
async fn seen(side: &Side) -> Vec<String> {
    let ledger = &side.ledger;
    let (mut jobs, _) = ledger.list(vec![], None, 100).await.unwrap();
    // Where a ledger's clock of age starts is its own affair.
    let age = ledger.age();
    jobs.iter_mut().for_each(|job| job.rested = job.rested.map(|rested| Age(age.0 - rested.0)));
    let mut seen: Vec<String> = jobs.iter().map(told).collect();
    seen.push(told(ledger.alive().await.unwrap().iter().map(|job| &job.id).collect::<Vec<_>>()));
    for n in 0..IDS {
        let id = format!("job-{n}");
        seen.push(told(ledger.tags(&id).await.map_err(|e| e.to_string())));
        seen.push(told(ledger.has_results(&id).await.unwrap()));
        seen.push(told(read(&**ledger, &id, Position::default()).unwrap().0));
        if let Some((events, more)) = ledger.events("123456789012", &id, n, 4).await.unwrap() {
            for kept in events {
                let event = kept.event;
                let codes = (&event.failure_codes, &event.status_change_reason, &event.region);
                seen.push(told((kept.number, &event.status, event.time_ms, codes, kept.deliveries)));
            }
            seen.push(told(more));
        }
    }
    seen
}

#[tokio::test]
async fn both_ledgers_answer_random_calls_alike() {
    for seed in 0..24 {
        let (disk_clocks, memory_clocks) = (Clocks::default(), Clocks::default());
        let mut disk = Side::new(Box::new(OnDisk::new(disk_clocks.clone())), disk_clocks).await;
        let mut memory = Side::new(Box::new(InMemory::new(memory_clocks.clone())), memory_clocks).await;
        let mut random = Random::seeded(seed);
        for step in 0..150 {
            if random.one_in(20) {
                disk.restart().await;
                memory.restart().await;
            }
            let ms = Duration::from_millis(random.below(500));
            disk.clocks.pass(ms);
            memory.clocks.pass(ms);
            let mut same = random.clone();
            let (a, b) = (call(&mut disk, &mut random).await, call(&mut memory, &mut same).await);
            assert_eq!(a, b, "seed {seed}, step {step}");
            if step % 10 == 9 {
                for (a, b) in seen(&disk).await.iter().zip(seen(&memory).await) {
                    assert_eq!(*a, b, "seed {seed}, step {step}");
                }
            }
        }
    }
}
