//! Jobs at rest: one row a job in SQLite. All moves from status to status go through [`Table::transition`].
//!
//! Each state that a job enters leaves an event, written in the transaction of the move: there is no state without its
//! event, and no event without its state. An event is owed to every sink there is at that moment, a row each.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use longshore_core::job::{Event, Status};
use longshore_core::time::{Age, Tick, Timestamp};
use longshore_store::failpoint::{self, Place};
use longshore_store::{Calm, Records, Schema, StoreError};
use rusqlite::{Connection, OptionalExtension, Row, params};

use longshore_wire::event::JobEvent;
use tokio::sync::watch;

use crate::Settings;
use crate::error::{FailureReason, JobError};
use crate::ledger::{
    After, Announcements, Census, Change, Created, Delivery, DeliveryState, Due, Expired, Fence, JobRow, Kept, Leases,
    MoveError, Terms, Try, after_the_latest,
};
use crate::shape::NewJob;

/// The tables of this room.
pub const SCHEMA: Schema = Schema {
    room: "jobs",
    migrations: &[
        "
        CREATE TABLE job (
            id TEXT PRIMARY KEY,
            account TEXT NOT NULL,
            -- milliseconds since the epoch, all dates here
            created INTEGER NOT NULL,
            -- the checked CreateJob request as JSON: what is echoed and what is run
            request TEXT NOT NULL,
            token TEXT NOT NULL,
            fingerprint TEXT NOT NULL,
            status TEXT NOT NULL,
            priority INTEGER NOT NULL,
            -- counts up at each change of the row
            rev INTEGER NOT NULL DEFAULT 1,
            rows_total INTEGER NOT NULL DEFAULT 0,
            -- final results, as of the last move; the result log has the truth while the job runs
            succeeded INTEGER NOT NULL DEFAULT 0,
            failed INTEGER NOT NULL DEFAULT 0,
            active_ms INTEGER NOT NULL DEFAULT 0,
            suspended INTEGER,
            terminated INTEGER,
            -- stored before the first byte of the report is written, so that a rewrite gives the same bytes
            report_created INTEGER,
            status_update_reason TEXT,
            failure_reasons TEXT NOT NULL DEFAULT '[]',
            UNIQUE (account, token)
        ) STRICT;
        CREATE INDEX job_by_creation ON job (account, created DESC, id);
        CREATE INDEX job_alive ON job (status) WHERE status NOT IN ('Complete', 'Cancelled', 'Failed');
        CREATE TABLE job_tag (
            job_id TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
            position INTEGER NOT NULL,
            key TEXT NOT NULL,
            value TEXT NOT NULL,
            PRIMARY KEY (job_id, position)
        ) STRICT, WITHOUT ROWID;
    ",
        "
        CREATE INDEX job_over ON job (terminated) WHERE terminated IS NOT NULL;
        CREATE TABLE job_event (
            job_id TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
            -- from 1, in the order of the states; dates may go back, this does not
            number INTEGER NOT NULL,
            job_event_id TEXT NOT NULL UNIQUE,
            event_id TEXT NOT NULL,
            envelope_id TEXT NOT NULL,
            created INTEGER NOT NULL,
            status TEXT NOT NULL,
            -- lists of text as JSON
            failure_codes TEXT NOT NULL,
            reasons TEXT NOT NULL,
            PRIMARY KEY (job_id, number)
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE job_event_delivery (
            job_id TEXT NOT NULL,
            number INTEGER NOT NULL,
            sink TEXT NOT NULL,
            -- pending, delivered, or given up
            state TEXT NOT NULL DEFAULT 'pending',
            attempts INTEGER NOT NULL DEFAULT 0,
            -- what was waited and what the tries took, in all
            tried_ms INTEGER NOT NULL DEFAULT 0,
            -- NULL while an earlier event of the job is still to be delivered: that comes first
            not_before INTEGER,
            last_error TEXT,
            PRIMARY KEY (job_id, sink, number),
            FOREIGN KEY (job_id, number) REFERENCES job_event (job_id, number) ON DELETE CASCADE
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX job_event_due ON job_event_delivery (sink, not_before)
            WHERE state = 'pending' AND not_before IS NOT NULL;
    ",
        "
        -- where a generated manifest was saved, as JSON; set when the job leaves Preparing
        ALTER TABLE job ADD COLUMN generated_manifest TEXT;
    ",
        "
        -- whether the job's sample has run: since then it waits for its promotion, or has it
        ALTER TABLE job ADD COLUMN sampled INTEGER NOT NULL DEFAULT 0;
        -- the job whose task IDs this one keeps; NULL: its own
        ALTER TABLE job ADD COLUMN lineage TEXT;
    ",
        "
        -- one row: how often the ledger has been opened; what an earlier opening has leased counts no more
        CREATE TABLE job_incarnation (
            one INTEGER PRIMARY KEY CHECK (one = 1),
            number INTEGER NOT NULL
        ) STRICT;
        INSERT INTO job_incarnation VALUES (1, 0);
    ",
        "
        -- what the runs of a job have counted, as JSON; apart from its row, which is read with every look at it
        CREATE TABLE job_figures (
            job_id TEXT PRIMARY KEY REFERENCES job (id) ON DELETE CASCADE,
            figures TEXT NOT NULL
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX job_by_status ON job (account, status, created DESC, id);
        CREATE INDEX job_event_pending ON job_event_delivery (sink) WHERE state = 'pending';
    ",
        "
        -- when the job came to rest (Suspended, or over) by the clock of age, which nobody sets
        ALTER TABLE job ADD COLUMN rested INTEGER;
        UPDATE job SET rested = coalesce(terminated, suspended);
        DROP INDEX job_over;
        CREATE INDEX job_over ON job (rested) WHERE terminated IS NOT NULL;
        -- no row or one: how far that clock has come, and what the wall clock said then
        CREATE TABLE job_age (
            one INTEGER PRIMARY KEY CHECK (one = 1),
            age INTEGER NOT NULL,
            wall INTEGER NOT NULL
        ) STRICT;
    ",
    ],
};

/// Jobs that are kept as they were read until something is committed: those that people look at in the same moment. One is
/// some kilobytes, and 1 MiB with the longest request that is accepted.
const LOOKED_AT_MAX: usize = 16;

/// What was read in a time without a commit, in which it is what the table has.
///
/// Whoever follows a job asks for it many times between two commits: it is asked of SQLite, on another thread, once.
#[derive(Debug, Default)]
struct LookedAt(Mutex<(Option<Calm>, HashMap<String, JobRow>)>);

impl LookedAt {
    fn job(&self, calm: Calm, id: &str) -> Option<JobRow> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (of, jobs) = &*kept;
        if *of == Some(calm) { jobs.get(id).cloned() } else { None }
    }

    /// `calm`: that in which the read began.
    fn keep(&self, calm: Calm, job: &JobRow) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (of, jobs) = &mut *kept;
        if *of != Some(calm) {
            *of = Some(calm);
            jobs.clear();
        }
        if jobs.len() < LOOKED_AT_MAX {
            jobs.insert(job.id.clone(), job.clone());
        }
    }
}

#[derive(Clone)]
pub struct Table {
    records: Records,
    looked_at: Arc<LookedAt>,
    settings: Arc<Settings>,
    leases: Arc<Leases>,
    /// What the clock of age stood at when the ledger was opened, and for how long the server had run then.
    opened: (Age, Tick),
    /// Told after each new event.
    announced: Arc<Announcements>,
}

impl DeliveryState {
    fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::GivenUp => "given up",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Self::Pending, Self::Delivered, Self::GivenUp].into_iter().find(|state| state.name() == name)
    }
}

impl Table {
    /// `noted`: what [`Table::noted_age`] has read.
    pub fn new(
        records: Records,
        settings: Arc<Settings>,
        leases: Arc<Leases>,
        noted: Option<(Age, Timestamp)>,
    ) -> Self {
        let opened = (Age::resumed(noted, (settings.wall_clock)()), (settings.running)());
        Self { records, looked_at: Arc::default(), settings, leases, opened, announced: Arc::default() }
    }

    /// How far the clock of age had come when it was noted last, and what the wall clock said then.
    pub async fn noted_age(records: &Records) -> Result<Option<(Age, Timestamp)>, StoreError> {
        let sql = "SELECT age, wall FROM job_age";
        records
            .read(move |db| Ok(db.query_row(sql, [], |r| Ok((Age(r.get(0)?), Timestamp(r.get(1)?)))).optional()?))
            .await
    }

    pub fn age(&self) -> Age {
        let (age, at) = self.opened;
        age.after_ms((self.settings.running)().since_ms(at))
    }

    pub async fn note_age(&self) -> Result<(), StoreError> {
        let (age, now) = (self.age(), self.now());
        self.records.write(move |db| Ok(put_age(db, age, now)?)).await
    }

    /// Counts an opening of the ledger, and returns its number.
    pub async fn open_anew(records: &Records) -> Result<u64, StoreError> {
        let counted = records
            .write::<_, StoreError>(|db| {
                let sql = "UPDATE job_incarnation SET number = number + 1 RETURNING number";
                Ok(db.query_row(sql, [], |r| r.get::<_, i64>(0))?.unsigned_abs())
            })
            .await;
        match counted {
            // A server starts on a full disk all the same. What is first written under a lease counts it, see `admit`.
            Err(error) if error.is_full() => {
                tracing::warn!(%error, "a start of the server will be counted when there is space on the disk");
                let sql = "SELECT number + 1 FROM job_incarnation";
                records.read(|db| Ok(db.query_row(sql, [], |r| r.get::<_, i64>(0))?.unsigned_abs())).await
            }
            counted => counted,
        }
    }

    /// A transaction under a lease.
    async fn write_as<T: Send + 'static>(
        &self,
        fence: &Fence,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (leases, fence) = (Arc::clone(&self.leases), fence.clone());
        self.records
            .write(move |db| {
                admit(db, &leases, &fence)?;
                work(db)
            })
            .await
    }

    /// Changes whenever there is a new event.
    pub fn announced(&self) -> watch::Receiver<()> {
        self.announced.subscribe()
    }

    fn now(&self) -> Timestamp {
        (self.settings.wall_clock)()
    }

    /// As [`Ledger::create`](crate::ledger::Ledger::create), and so on for the others of the same names.
    pub async fn create(&self, id: String, job: NewJob) -> Result<Created, JobError> {
        let (account, now) = (self.settings.account.clone(), self.now());
        let (fingerprint, token) = (job.fingerprint(), job.client_request_token.clone());
        let settings = Arc::clone(&self.settings);
        let created = self
            .records
            .write(move |db| {
                let before: Option<(String, String)> = db
                    .query_row(
                        "SELECT id, fingerprint FROM job WHERE account = ?1 AND token = ?2",
                        params![account, token],
                        |r| Ok((r.get(0)?, r.get(1)?)),
                    )
                    .optional()?;
                match before {
                    Some((id, same)) if same == fingerprint => return Ok(Created::Before(id)),
                    Some(_) => return Err(JobError::TokenReused),
                    None => {}
                }
                let latest: Option<i64> =
                    db.query_row("SELECT max(created) FROM job WHERE account = ?1", [&account], |r| r.get(0))?;
                let created = after_the_latest(latest.map(Timestamp), now);
                db.execute(
                    "INSERT INTO job (id, account, created, request, token, fingerprint, status, priority)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                    params![
                        id,
                        account,
                        created.0,
                        serde_json::to_string(&job).map_err(|e| StoreError::Damaged(e.to_string()))?,
                        token,
                        fingerprint,
                        Status::New.name(),
                        job.priority
                    ],
                )?;
                insert_tags(db, &id, &job.tags)?;
                insert_event(db, &settings, &id, now, Status::New, &[], &[])?;
                failpoint::pass(Place::JobCreateBefore);
                Ok(Created::New)
            })
            .await;
        failpoint::pass(Place::JobCreateAfter);
        if created.is_ok() {
            self.announced.announce();
        }
        created
    }

    pub async fn job(&self, id: &str) -> Result<Option<JobRow>, StoreError> {
        // Before the read: one that a commit overtakes is kept for a time that is over.
        let calm = self.records.calm();
        if let Some(job) = calm.and_then(|calm| self.looked_at.job(calm, id)) {
            return Ok(Some(job));
        }
        let id = id.to_owned();
        let job = self.records.read::<_, StoreError>(move |db| read_job(db, &id)).await?;
        if let (Some(calm), Some(job)) = (calm, &job) {
            self.looked_at.keep(calm, job);
        }
        Ok(job)
    }

    pub async fn list(
        &self,
        statuses: Vec<Status>,
        after: Option<After>,
        max: usize,
    ) -> Result<(Vec<JobRow>, bool), StoreError> {
        let account = self.settings.account.clone();
        self.records
            .read(move |db| {
                let names: Vec<String> = statuses.iter().map(|s| format!("'{}'", s.name())).collect();
                let filter =
                    if names.is_empty() { String::new() } else { format!("AND status IN ({})", names.join(",")) };
                let sql = format!(
                    "SELECT {COLUMNS} FROM job WHERE account = ?1 {filter}
                     AND (?2 IS NULL OR created < ?2 OR (created = ?2 AND id > ?3))
                     ORDER BY created DESC, id LIMIT ?4"
                );
                let (created, id) = after.map_or((None, String::new()), |a| (Some(a.created), a.id));
                let mut statement = db.prepare_cached(&sql)?;
                let mut rows = statement.query(params![account, created, id, max as i64 + 1])?;
                let (mut jobs, mut there) = (Vec::new(), 0);
                while let Some(row) = rows.next()? {
                    there += 1;
                    if there <= max {
                        jobs.extend(readable(row)?);
                    }
                }
                Ok((jobs, there > max))
            })
            .await
    }

    pub async fn alive(&self) -> Result<Vec<JobRow>, StoreError> {
        self.records
            .read(|db| {
                let sql = format!(
                    "SELECT {COLUMNS} FROM job WHERE status NOT IN ('Complete', 'Cancelled', 'Failed')
                     ORDER BY created, id"
                );
                let mut statement = db.prepare_cached(&sql)?;
                let mut rows = statement.query([])?;
                let mut jobs = Vec::new();
                while let Some(row) = rows.next()? {
                    jobs.extend(readable(row)?);
                }
                Ok(jobs)
            })
            .await
    }

    pub async fn transition(
        &self,
        id: &str,
        terms: Terms<'_>,
        event: Event,
        change: Change,
    ) -> Result<Status, MoveError> {
        let (id, now, age) = (id.to_owned(), self.now(), self.age());
        let (settings, leases) = (Arc::clone(&self.settings), Arc::clone(&self.leases));
        let (rev_wanted, slots) = match terms {
            Terms::Unchanged(rev) => (Some(rev), None),
            Terms::Slot { rev, slots } => (Some(rev), Some(slots)),
            Terms::Legal | Terms::Leased(_) => (None, None),
        };
        let fence = match terms {
            Terms::Leased(fence) => {
                fence.is_for(&id)?;
                Some(fence.clone())
            }
            _ => None,
        };
        let moved = self
            .records
            .write(move |db| {
                if let Some(fence) = &fence {
                    admit(db, &leases, fence)?;
                }
                let from = status_of(db, &id)?.ok_or(MoveError::NotFound)?;
                let (sampled, rev) = db.query_row("SELECT sampled, rev FROM job WHERE id = ?1", [&id], |r| {
                    Ok((r.get::<_, bool>(0)?, r.get::<_, i64>(1)?.unsigned_abs()))
                })?;
                if rev_wanted.is_some_and(|wanted| wanted != rev) {
                    return Err(MoveError::Overtaken);
                }
                let event = if sampled { event.after_sample() } else { event };
                let to = from.on(event).map_err(MoveError::Illegal)?;
                if let Some(slots) = slots
                    && slots_held(db, &settings.account)? >= slots
                {
                    return Err(MoveError::Overtaken);
                }
                if to == from {
                    if let Some(reason) = change.status_update_reason {
                        db.execute(
                            "UPDATE job SET status_update_reason = ?2, rev = rev + 1 WHERE id = ?1",
                            params![id, reason],
                        )?;
                    }
                    return Ok(to);
                }
                let event_reasons = match &change.status_update_reason {
                    Some(reason) => vec![reason.clone()],
                    // Cancelled comes of the same call as Cancelling.
                    None if to == Status::Cancelled => reasons_of(db, &id, Status::Cancelling)?,
                    None => Vec::new(),
                };
                let mut reasons: Vec<FailureReason> = read_json(db, &id, "failure_reasons")?;
                // A step that is repeated after a crash gives its reason again.
                reasons.extend(change.failure_reason.filter(|reason| !reasons.contains(reason)));
                let (succeeded, failed) = change.counts.unzip();
                let generated = change.generated_manifest.map(|g| serde_json::to_string(&g)).transpose();
                let generated = generated.map_err(|e| StoreError::Damaged(e.to_string()))?;
                db.execute(
                    "UPDATE job SET status = ?2, rev = rev + 1,
                        rows_total = coalesce(?3, rows_total),
                        succeeded = max(succeeded, coalesce(?4, 0)),
                        failed = max(failed, coalesce(?5, 0)),
                        status_update_reason = coalesce(?6, status_update_reason),
                        failure_reasons = ?7,
                        suspended = coalesce(?8, suspended),
                        terminated = coalesce(?9, terminated),
                        rested = coalesce(?13, rested),
                        generated_manifest = coalesce(?10, generated_manifest),
                        sampled = max(sampled, ?11),
                        lineage = coalesce(?12, lineage)
                     WHERE id = ?1",
                    params![
                        id,
                        to.name(),
                        change.rows_total.map(signed),
                        succeeded.map(signed),
                        failed.map(signed),
                        change.status_update_reason,
                        serde_json::to_string(&reasons).map_err(|e| StoreError::Damaged(e.to_string()))?,
                        (to == Status::Suspended).then_some(now.0),
                        to.is_terminal().then_some(now.0),
                        generated,
                        event == Event::SampleFinished,
                        change.lineage,
                        (to == Status::Suspended || to.is_terminal()).then_some(age.0),
                    ],
                )?;
                put_age(db, age, now)?;
                let codes: Vec<&str> = match to {
                    Status::Failing | Status::Failed => reasons.iter().map(|r| r.code.as_str()).collect(),
                    _ => Vec::new(),
                };
                insert_event(db, &settings, &id, now, to, &codes, &event_reasons)?;
                tracing::info!(job = id, from = from.name(), to = to.name(), "job changed status");
                pass_move(to, false);
                Ok(to)
            })
            .await;
        if let Ok(to) = &moved {
            pass_move(*to, true);
            self.announced.announce();
        }
        moved
    }

    pub async fn events(
        &self,
        account: &str,
        id: &str,
        after: u64,
        max: usize,
    ) -> Result<Option<(Vec<Kept>, bool)>, StoreError> {
        let (account, id, settings) = (account.to_owned(), id.to_owned(), Arc::clone(&self.settings));
        self.records
            .read(move |db| {
                let there = db
                    .query_row("SELECT 1 FROM job WHERE id = ?1 AND account = ?2", [&id, &account], |_| Ok(()))
                    .optional()?;
                if there.is_none() {
                    return Ok(None);
                }
                let sql = format!(
                    "SELECT {EVENT_COLUMNS} FROM job_event e WHERE job_id = ?1 AND number > ?2 ORDER BY number LIMIT ?3"
                );
                let mut statement = db.prepare_cached(&sql)?;
                let rows = statement.query_map(params![id, signed(after), max as i64 + 1], |row| {
                    Ok((row.get::<_, i64>(1)?.unsigned_abs(), job_event(row, &settings)?))
                })?;
                let mut events = Vec::new();
                for row in rows {
                    let (number, event) = row?;
                    events.push(Kept { number, event, deliveries: deliveries(db, &id, number)? });
                }
                let more = events.len() > max;
                events.truncate(max);
                Ok(Some((events, more)))
            })
            .await
    }

    pub async fn due(&self, sink: &str, now: Timestamp, wait_ms_max: u64, max: usize) -> Result<Vec<Due>, StoreError> {
        let (sink, settings) = (sink.to_owned(), Arc::clone(&self.settings));
        self.records
            .read(move |db| {
                let sql = format!(
                    "SELECT {EVENT_COLUMNS}, d.attempts, d.tried_ms
                     FROM job_event_delivery d JOIN job_event e ON e.job_id = d.job_id AND e.number = d.number
                     WHERE d.sink = ?1 AND d.state = 'pending' AND d.not_before IS NOT NULL
                     AND d.not_before BETWEEN ?2 AND ?3
                     ORDER BY d.not_before LIMIT ?4"
                );
                let mut statement = db.prepare_cached(&sql)?;
                let horizon = now.0.saturating_add(signed(wait_ms_max));
                let mut due = Vec::new();
                // Two ranges of the index, so that what waits between them is not looked at.
                for (from, to) in [(i64::MIN, now.0), (horizon.saturating_add(1), i64::MAX)] {
                    let left = max - due.len();
                    let rows = statement.query_map(params![sink, from, to, left as i64], |row| {
                        Ok(Due {
                            number: row.get::<_, i64>(1)?.unsigned_abs(),
                            event: job_event(row, &settings)?,
                            attempts: row.get(9)?,
                            tried_ms: row.get::<_, i64>(10)?.unsigned_abs(),
                        })
                    })?;
                    for row in rows {
                        due.push(row?);
                    }
                }
                Ok(due)
            })
            .await
    }

    pub async fn note_try(&self, fence: &Fence, job_id: &str, number: u64, tried: Try) -> Result<(), StoreError> {
        let (job_id, sink) = (job_id.to_owned(), fence.sink()?.to_owned());
        self.write_as(fence, move |db| {
            db.execute(
                "UPDATE job_event_delivery SET state = ?4, attempts = ?5, tried_ms = ?6, not_before = ?7,
                        last_error = coalesce(?8, last_error)
                     WHERE job_id = ?1 AND number = ?2 AND sink = ?3",
                params![
                    job_id,
                    signed(number),
                    sink,
                    tried.state.name(),
                    tried.attempts,
                    signed(tried.tried_ms),
                    tried.not_before,
                    tried.error
                ],
            )?;
            if tried.state != DeliveryState::Pending {
                // Now the next one is due, if the job has one.
                db.execute(
                    "UPDATE job_event_delivery SET not_before = ?3
                         WHERE job_id = ?1 AND sink = ?2 AND not_before IS NULL AND number = (
                            SELECT min(number) FROM job_event_delivery
                            WHERE job_id = ?1 AND sink = ?2 AND state = 'pending')",
                    params![job_id, sink, tried.not_before],
                )?;
            }
            Ok(())
        })
        .await
    }

    pub async fn expired(&self, before: Age, jobs_max: usize, max: usize) -> Result<Vec<Expired>, StoreError> {
        let settings = Arc::clone(&self.settings);
        self.records
            .read(move |db| {
                // Of one moment: jobs that another server removes between the two would be made up for by later ones.
                let db = db.unchecked_transaction()?;
                let too_many = match jobs_max {
                    0 => 0,
                    jobs_max => {
                        // Of those that are over: one that waits takes no other's place.
                        let sql = "SELECT count(*) FROM job WHERE account = ?1 AND terminated IS NOT NULL";
                        let there: i64 = db.query_row(sql, [&settings.account], |r| r.get(0))?;
                        usize::try_from(there).unwrap_or(0).saturating_sub(jobs_max)
                    }
                };
                let sinks: Vec<&str> = settings.event_sinks.iter().map(|sink| sink.name()).collect();
                // By its own index: this is asked often, and mostly answered with nothing.
                let mut statement = db.prepare_cached(
                    "SELECT id, rested FROM job INDEXED BY job_over
                     WHERE terminated IS NOT NULL AND rested < ?4 AND account = ?1
                     AND NOT EXISTS (SELECT 1 FROM job_event_delivery d WHERE d.job_id = job.id AND d.state = 'pending'
                        AND d.sink IN (SELECT value FROM json_each(?2)))
                     ORDER BY rested, terminated LIMIT ?3",
                )?;
                let ended_before = if too_many > 0 { i64::MAX } else { before.0 };
                let sinks = serde_json::to_string(&sinks).map_err(|e| StoreError::Damaged(e.to_string()))?;
                let rows = statement.query_map(params![settings.account, sinks, max as i64, ended_before], |row| {
                    Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
                })?;
                let mut expired = Vec::new();
                for (place, row) in rows.enumerate() {
                    let (id, rested) = row?;
                    let early = rested >= before.0;
                    if !early || place < too_many {
                        expired.push(Expired { id, early });
                    }
                }
                Ok(expired)
            })
            .await
    }

    pub async fn delete(&self, id: &str) -> Result<(), StoreError> {
        let id = id.to_owned();
        self.records
            .write(move |db| {
                db.execute("DELETE FROM job WHERE id = ?1 AND terminated IS NOT NULL", [&id])?;
                Ok(())
            })
            .await
    }

    pub async fn note_progress(&self, fence: &Fence, counts: (u64, u64), active_ms: u64) -> Result<(), StoreError> {
        let id = fence.job()?.to_owned();
        self.write_as(fence, move |db| {
            // Nobody decides anything by these, so the row is as good as it was: `rev` stays.
            db.execute(
                "UPDATE job SET succeeded = max(succeeded, ?2), failed = max(failed, ?3),
                        active_ms = max(active_ms, ?4) WHERE id = ?1",
                params![id, signed(counts.0), signed(counts.1), signed(active_ms)],
            )?;
            Ok(())
        })
        .await
    }

    pub async fn note_figures(&self, fence: &Fence, figures: String) -> Result<(), StoreError> {
        let id = fence.job()?.to_owned();
        self.write_as(fence, move |db| {
            db.execute(
                "INSERT INTO job_figures VALUES (?1, ?2) ON CONFLICT (job_id) DO UPDATE SET figures = ?2",
                params![id, figures],
            )?;
            Ok(())
        })
        .await
    }

    pub async fn figures(&self, id: &str) -> Result<Option<String>, StoreError> {
        let id = id.to_owned();
        self.records
            .read(move |db| {
                let mut statement = db.prepare_cached("SELECT figures FROM job_figures WHERE job_id = ?1")?;
                Ok(statement.query_row([id], |r| r.get(0)).optional()?)
            })
            .await
    }

    pub async fn census(&self) -> Result<Census, StoreError> {
        let settings = Arc::clone(&self.settings);
        self.records
            .read(move |db| {
                let sql =
                    "SELECT status, count(*) FROM job INDEXED BY job_by_status WHERE account = ?1 GROUP BY status";
                let mut statement = db.prepare_cached(sql)?;
                let rows = statement.query_map([&settings.account], |r| {
                    let name: String = r.get(0)?;
                    let status = Status::parse(&name);
                    let count = r.get::<_, i64>(1)?.unsigned_abs();
                    Ok((status.ok_or_else(|| unreadable(0, format!("an unknown status {name}")))?, count))
                })?;
                let jobs = rows.collect::<Result<Vec<_>, _>>()?;
                let sql = "SELECT count(*) FROM job_event_delivery INDEXED BY job_event_pending
                           WHERE state = 'pending' AND sink = ?1";
                let mut statement = db.prepare_cached(sql)?;
                let mut deliveries_owed = 0;
                for sink in &settings.event_sinks {
                    let owed: i64 = statement.query_row([sink.name()], |r| r.get(0))?;
                    deliveries_owed += owed.unsigned_abs();
                }
                Ok(Census { jobs, deliveries_owed })
            })
            .await
    }

    pub async fn note_rows(&self, fence: &Fence, rows_total: u64) -> Result<(), StoreError> {
        let id = fence.job()?.to_owned();
        self.write_as(fence, move |db| {
            db.execute(
                "UPDATE job SET rows_total = max(rows_total, ?2) WHERE id = ?1",
                params![id, signed(rows_total)],
            )?;
            Ok(())
        })
        .await
    }

    pub async fn report_created(&self, fence: &Fence) -> Result<Timestamp, StoreError> {
        let (id, now) = (fence.job()?.to_owned(), self.now());
        self.write_as(fence, move |db| {
            db.execute(
                "UPDATE job SET report_created = ?2 WHERE id = ?1 AND report_created IS NULL",
                params![id, now.0],
            )?;
            Ok(Timestamp(db.query_row("SELECT report_created FROM job WHERE id = ?1", [&id], |r| r.get(0))?))
        })
        .await
    }

    pub async fn set_priority(&self, id: &str, priority: u32) -> Result<(), JobError> {
        let id = id.to_owned();
        self.records
            .write(move |db| {
                let status = status_of(db, &id)?.ok_or(JobError::NotFound)?;
                if !status.takes_priority() {
                    return Err(JobError::PriorityForbidden(status));
                }
                db.execute("UPDATE job SET priority = ?2, rev = rev + 1 WHERE id = ?1", params![id, priority])?;
                Ok(())
            })
            .await
    }

    pub async fn tags(&self, id: &str) -> Result<Vec<(String, String)>, JobError> {
        let id = id.to_owned();
        self.records
            .read(move |db| {
                status_of(db, &id)?.ok_or(JobError::NotFound)?;
                let mut statement =
                    db.prepare_cached("SELECT key, value FROM job_tag WHERE job_id = ?1 ORDER BY position")?;
                let tags = statement.query_map([&id], |r| Ok((r.get(0)?, r.get(1)?)))?.collect::<Result<_, _>>()?;
                Ok(tags)
            })
            .await
    }

    pub async fn set_tags(&self, id: &str, tags: Vec<(String, String)>) -> Result<(), JobError> {
        let id = id.to_owned();
        self.records
            .write(move |db| {
                status_of(db, &id)?.ok_or(JobError::NotFound)?;
                db.execute("DELETE FROM job_tag WHERE job_id = ?1", [&id])?;
                insert_tags(db, &id, &tags)?;
                Ok(())
            })
            .await
    }
}

/// The roles of all jobs that are not over.
pub(crate) fn roles(c: &Connection) -> Result<BTreeSet<String>, StoreError> {
    let over = Status::ALL.into_iter().filter(|status| status.is_terminal());
    let over: Vec<String> = over.map(|status| format!("'{}'", status.name())).collect();
    let mut statement = c.prepare(&format!(
        "SELECT DISTINCT json_extract(request, '$.role_arn') FROM job WHERE status NOT IN ({})",
        over.join(", ")
    ))?;
    let roles = statement.query_map([], |row| row.get::<_, Option<String>>(0))?;
    Ok(roles.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

const COLUMNS: &str = "id, created, request, status, priority, rows_total, succeeded, failed, active_ms, suspended, \
                       terminated, status_update_reason, failure_reasons, generated_manifest, sampled, \
                       coalesce(lineage, id), rev, rested";

const EVENT_COLUMNS: &str = "e.job_id, e.number, e.job_event_id, e.event_id, e.envelope_id, e.created, e.status, \
                             e.failure_codes, e.reasons";

fn job_event(row: &Row<'_>, settings: &Settings) -> rusqlite::Result<JobEvent> {
    let list = |index: usize| -> rusqlite::Result<Vec<String>> {
        let text: String = row.get(index)?;
        serde_json::from_str(&text).map_err(|e| unreadable(index, e.to_string()))
    };
    Ok(JobEvent {
        job_event_id: row.get(2)?,
        event_id: row.get(3)?,
        envelope_id: row.get(4)?,
        account: settings.account.clone(),
        region: settings.region.clone(),
        job_id: row.get(0)?,
        status: row.get(6)?,
        time_ms: row.get(5)?,
        failure_codes: list(7)?,
        status_change_reason: list(8)?,
    })
}

fn deliveries(db: &Connection, id: &str, number: u64) -> rusqlite::Result<Vec<Delivery>> {
    let mut statement = db.prepare_cached(
        "SELECT sink, state, attempts, last_error FROM job_event_delivery
         WHERE job_id = ?1 AND number = ?2 ORDER BY sink",
    )?;
    let rows = statement.query_map(params![id, signed(number)], |row| {
        let state: String = row.get(1)?;
        Ok(Delivery {
            sink: row.get(0)?,
            state: DeliveryState::parse(&state).ok_or_else(|| unreadable(1, format!("an unknown state {state}")))?,
            attempts: row.get(2)?,
            last_error: row.get(3)?,
        })
    })?;
    rows.collect()
}

/// The reasons of a job's last entry into a status.
fn reasons_of(db: &Connection, id: &str, status: Status) -> rusqlite::Result<Vec<String>> {
    let found: Option<String> = db
        .query_row(
            "SELECT reasons FROM job_event WHERE job_id = ?1 AND status = ?2 ORDER BY number DESC LIMIT 1",
            params![id, status.name()],
            |r| r.get(0),
        )
        .optional()?;
    found.map_or(Ok(Vec::new()), |text| serde_json::from_str(&text).map_err(|e| unreadable(0, e.to_string())))
}

/// Keeps that a job has entered a status, and owes that to every sink. Within the transaction of the move.
fn insert_event(
    db: &Connection,
    settings: &Settings,
    id: &str,
    now: Timestamp,
    status: Status,
    failure_codes: &[&str],
    reasons: &[String],
) -> Result<(), StoreError> {
    let number: i64 =
        db.query_row("SELECT coalesce(max(number), 0) + 1 FROM job_event WHERE job_id = ?1", [id], |r| r.get(0))?;
    let json = |e: serde_json::Error| StoreError::Damaged(e.to_string());
    db.execute(
        "INSERT INTO job_event (job_id, number, job_event_id, event_id, envelope_id, created, status, failure_codes,
            reasons) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            id,
            number,
            settings.new_id().simple().to_string(),
            settings.new_id().to_string(),
            settings.new_id().to_string(),
            now.0,
            status.name(),
            serde_json::to_string(failure_codes).map_err(json)?,
            serde_json::to_string(reasons).map_err(json)?,
        ],
    )?;
    for sink in &settings.event_sinks {
        db.execute(
            "INSERT INTO job_event_delivery (job_id, number, sink, not_before)
             SELECT ?1, ?2, ?3, iif(EXISTS (SELECT 1 FROM job_event_delivery
                WHERE job_id = ?1 AND sink = ?3 AND state = 'pending'), NULL, ?4)",
            params![id, number, sink.name(), now.0],
        )?;
    }
    Ok(())
}

/// Whether what is written under a lease counts. Within the transaction of what is written.
fn admit(db: &Connection, leases: &Leases, fence: &Fence) -> Result<(), StoreError> {
    leases.admit(fence)?;
    // The lock of the data directory keeps a second server out. Should it fail (on a network's file system, say), this
    // still tells the older of the two.
    let opened: i64 = db.prepare_cached("SELECT number FROM job_incarnation")?.query_row([], |r| r.get(0))?;
    match opened.unsigned_abs().cmp(&leases.incarnation()) {
        Ordering::Equal => Ok(()),
        Ordering::Greater => Err(StoreError::Fenced),
        Ordering::Less => {
            db.execute("UPDATE job_incarnation SET number = ?1", [signed(leases.incarnation())])?;
            Ok(())
        }
    }
}

/// How many jobs hold a slot.
fn slots_held(db: &Connection, account: &str) -> rusqlite::Result<usize> {
    // The first condition is that of the index on the jobs that are not over.
    let names: Vec<String> = Status::ALL.iter().filter(|s| s.holds_slot()).map(|s| format!("'{}'", s.name())).collect();
    let sql = format!(
        "SELECT count(*) FROM job WHERE status NOT IN ('Complete', 'Cancelled', 'Failed') AND status IN ({})
         AND account = ?1",
        names.join(",")
    );
    let held: i64 = db.prepare_cached(&sql)?.query_row([account], |r| r.get(0))?;
    Ok(usize::try_from(held).unwrap_or(usize::MAX))
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn insert_tags(db: &Connection, id: &str, tags: &[(String, String)]) -> rusqlite::Result<()> {
    for (position, (key, value)) in tags.iter().enumerate() {
        db.execute("INSERT INTO job_tag VALUES (?1, ?2, ?3, ?4)", params![id, position as i64, key, value])?;
    }
    Ok(())
}

fn status_of(db: &Connection, id: &str) -> rusqlite::Result<Option<Status>> {
    db.query_row("SELECT status FROM job WHERE id = ?1", [id], |r| read_status(r, 0)).optional()
}

fn read_status(row: &Row<'_>, index: usize) -> rusqlite::Result<Status> {
    let name: String = row.get(index)?;
    Status::parse(&name).ok_or_else(|| unreadable(index, format!("an unknown status {name}")))
}

fn unreadable(index: usize, what: String) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, what.into())
}

fn read_json<T: serde::de::DeserializeOwned>(db: &Connection, id: &str, column: &str) -> rusqlite::Result<T> {
    let text: String = db.query_row(&format!("SELECT {column} FROM job WHERE id = ?1"), [id], |r| r.get(0))?;
    serde_json::from_str(&text).map_err(|e| unreadable(0, e.to_string()))
}

fn read_job(db: &Connection, id: &str) -> Result<Option<JobRow>, StoreError> {
    let mut statement = db.prepare_cached(&format!("SELECT {COLUMNS} FROM job WHERE id = ?1"))?;
    Ok(statement.query_row([id], job_row).optional()?)
}

fn put_age(db: &Connection, age: Age, now: Timestamp) -> rusqlite::Result<()> {
    let sql = "INSERT INTO job_age VALUES (1, ?1, ?2) ON CONFLICT (one) DO UPDATE SET age = ?1, wall = ?2";
    db.prepare_cached(sql)?.execute(params![age.0, now.0]).map(drop)
}

/// A job among others: one that does not read stands still by itself, and the others go on (promise D6).
fn readable(row: &Row<'_>) -> rusqlite::Result<Option<JobRow>> {
    use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, Utf8Error};
    match job_row(row) {
        Err(
            error
            @ (FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..) | Utf8Error(..)),
        ) => {
            let id: Option<String> = row.get(0).ok();
            tracing::error!(job = id, %error, "the record of a job is damaged, and the job stands still");
            Ok(None)
        }
        job => job.map(Some),
    }
}

fn job_row(row: &Row<'_>) -> rusqlite::Result<JobRow> {
    let (request, reasons): (String, String) = (row.get(2)?, row.get(12)?);
    let generated: Option<String> = row.get(13)?;
    let date =
        |index: usize| -> rusqlite::Result<Option<Timestamp>> { Ok(row.get::<_, Option<i64>>(index)?.map(Timestamp)) };
    let count = |index: usize| -> rusqlite::Result<u64> { Ok(row.get::<_, i64>(index)?.unsigned_abs()) };
    Ok(JobRow {
        id: row.get(0)?,
        created: Timestamp(row.get(1)?),
        request: serde_json::from_str(&request).map_err(|e| unreadable(2, e.to_string()))?,
        status: read_status(row, 3)?,
        priority: row.get(4)?,
        rows_total: count(5)?,
        succeeded: count(6)?,
        failed: count(7)?,
        active_ms: count(8)?,
        suspended: date(9)?,
        terminated: date(10)?,
        status_update_reason: row.get(11)?,
        failure_reasons: serde_json::from_str(&reasons).map_err(|e| unreadable(12, e.to_string()))?,
        generated_manifest: generated
            .map(|json| serde_json::from_str(&json))
            .transpose()
            .map_err(|e| unreadable(13, e.to_string()))?,
        sampled: row.get(14)?,
        lineage: row.get(15)?,
        rev: count(16)?,
        rested: row.get::<_, Option<i64>>(17)?.map(Age),
    })
}

/// The failpoints of a move into a status: in its transaction, and once it is durable.
fn pass_move(to: Status, durable: bool) {
    let (before, after) = match to {
        // A job begins in it and never comes back.
        Status::New => return,
        Status::Preparing => (Place::JobPreparingBefore, Place::JobPreparingAfter),
        Status::Suspended => (Place::JobSuspendedBefore, Place::JobSuspendedAfter),
        Status::Ready => (Place::JobReadyBefore, Place::JobReadyAfter),
        Status::Active => (Place::JobActiveBefore, Place::JobActiveAfter),
        Status::Pausing => (Place::JobPausingBefore, Place::JobPausingAfter),
        Status::Paused => (Place::JobPausedBefore, Place::JobPausedAfter),
        Status::Completing => (Place::JobCompletingBefore, Place::JobCompletingAfter),
        Status::Complete => (Place::JobCompleteBefore, Place::JobCompleteAfter),
        Status::Cancelling => (Place::JobCancellingBefore, Place::JobCancellingAfter),
        Status::Cancelled => (Place::JobCancelledBefore, Place::JobCancelledAfter),
        Status::Failing => (Place::JobFailingBefore, Place::JobFailingAfter),
        Status::Failed => (Place::JobFailedBefore, Place::JobFailedAfter),
    };
    failpoint::pass(if durable { after } else { before });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Duty;
    use crate::shape::tests::{SAMPLE, parse};
    use longshore_store::Fatal;

    fn table(dir: &std::path::Path) -> Table {
        let records = Records::open(&dir.join("records.db"), &[SCHEMA], Fatal::new()).unwrap();
        Table::new(records, Arc::new(Settings::new("123456789012", "us-west-2")), Arc::new(Leases::new(1)), None)
    }

    fn job(token: &str) -> NewJob {
        parse(&SAMPLE.replace("tok-1", token)).unwrap()
    }

    #[tokio::test]
    async fn a_job_whose_record_is_damaged_is_no_trouble_of_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let table = table(dir.path());
        for id in ["a", "b", "c"] {
            table.create(id.into(), job(id)).await.unwrap();
        }
        let damage = |db: &Connection| Ok(db.execute("UPDATE job SET request = '}' || request WHERE id = 'b'", [])?);
        table.records.write::<_, StoreError>(damage).await.unwrap();
        let ids = |jobs: Vec<JobRow>| jobs.into_iter().map(|job| job.id).collect::<Vec<_>>();
        assert_eq!(ids(table.alive().await.unwrap()), ["a", "c"]);
        let (jobs, more) = table.list(vec![], None, 2).await.unwrap();
        assert_eq!((ids(jobs), more), (vec!["c".to_owned()], true));
        assert!(table.job("b").await.unwrap_err().to_string().contains("expected value"));
    }

    #[tokio::test]
    async fn a_job_is_read_once_until_something_is_committed_and_never_shown_as_it_was_before() {
        let dir = tempfile::tempdir().unwrap();
        let table = table(dir.path());
        let ids: Vec<String> = (0..LOOKED_AT_MAX + 4).map(|n| format!("job-{n}")).collect();
        for id in &ids {
            table.create(id.clone(), job(id)).await.unwrap();
        }
        let kept = || table.looked_at.0.lock().unwrap().1.len();
        for id in &ids {
            assert_eq!(table.job(id).await.unwrap().unwrap().id, *id);
        }
        assert_eq!(kept(), LOOKED_AT_MAX);
        assert_eq!(table.job("nobody's").await.unwrap(), None);

        // What is kept is shown: nothing is asked of the database.
        table.looked_at.0.lock().unwrap().1.get_mut("job-0").unwrap().priority = 77;
        assert_eq!(table.job("job-0").await.unwrap().unwrap().priority, 77);
        for priority in [3, 4] {
            table.set_priority("job-0", priority).await.unwrap();
            assert_eq!(table.job("job-0").await.unwrap().unwrap().priority, priority);
            assert_eq!(kept(), 1);
        }

        // A read that began before a commit says nothing of the time behind it.
        let calm = table.records.calm().unwrap();
        let before = table.job("job-0").await.unwrap().unwrap();
        table.set_priority("job-0", 5).await.unwrap();
        table.looked_at.keep(calm, &before);
        assert_eq!(table.job("job-0").await.unwrap().unwrap().priority, 5);
    }

    #[tokio::test]
    async fn a_token_makes_one_job_even_after_reopening_and_refuses_another_request() {
        let dir = tempfile::tempdir().unwrap();
        let first = table(dir.path());
        assert_eq!(first.create("id-1".into(), job("t")).await.unwrap(), Created::New);
        assert_eq!(first.create("id-2".into(), job("t")).await.unwrap(), Created::Before("id-1".into()));
        drop(first);
        let again = table(dir.path());
        assert_eq!(again.create("id-3".into(), job("t")).await.unwrap(), Created::Before("id-1".into()));
        let mut other = job("t");
        other.priority += 1;
        assert!(matches!(again.create("id-4".into(), other).await, Err(JobError::TokenReused)));
    }

    #[tokio::test]
    async fn a_job_reads_back_as_it_was_stored() {
        let dir = tempfile::tempdir().unwrap();
        let table = table(dir.path());
        table.create("id-1".into(), job("t")).await.unwrap();
        let stored = table.job("id-1").await.unwrap().unwrap();
        assert_eq!((stored.request, stored.status), (job("t"), Status::New));
        assert_eq!(table.tags("id-1").await.unwrap(), [("a".to_owned(), String::new())]);
        assert!(table.job("nobody").await.unwrap().is_none());
    }

    #[tokio::test]
    async fn only_legal_moves_happen_and_each_leaves_its_date() {
        let dir = tempfile::tempdir().unwrap();
        let table = table(dir.path());
        table.create("j".into(), job("t")).await.unwrap();
        let illegal = table.transition("j", Terms::Legal, Event::SlotGranted, Change::default()).await;
        assert!(matches!(illegal, Err(MoveError::Illegal(_))));
        table.transition("j", Terms::Legal, Event::PickedUp, Change::default()).await.unwrap();
        let read = Event::ManifestRead { confirmation_required: true };
        let change = Change { rows_total: Some(7), ..Change::default() };
        assert_eq!(table.transition("j", Terms::Legal, read, change).await.unwrap(), Status::Suspended);
        let reason = Change { status_update_reason: Some("no".into()), ..Change::default() };
        assert_eq!(
            table.transition("j", Terms::Legal, Event::CancelRequested, reason).await.unwrap(),
            Status::Cancelled
        );
        let stored = table.job("j").await.unwrap().unwrap();
        assert!(stored.suspended.is_some() && stored.terminated.is_some());
        assert_eq!((stored.rows_total, stored.status_update_reason.as_deref()), (7, Some("no")));
        for (given, kept) in [(Some("no, really"), "no, really"), (None, "no, really")] {
            let again = Change { status_update_reason: given.map(str::to_owned), ..Change::default() };
            assert_eq!(
                table.transition("j", Terms::Legal, Event::CancelRequested, again).await.unwrap(),
                Status::Cancelled
            );
            let now = table.job("j").await.unwrap().unwrap();
            assert_eq!((now.status_update_reason.as_deref(), now.terminated), (Some(kept), stored.terminated));
        }
    }

    #[tokio::test]
    async fn jobs_of_one_moment_are_listed_newest_first_and_those_made_while_paging_never_come() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(&dir.path().join("records.db"), &[SCHEMA], Fatal::new()).unwrap();
        let mut settings = Settings::new("123456789012", "us-west-2");
        settings.wall_clock = Arc::new(|| Timestamp(1_570_139_328_048));
        let table = Table::new(records, Arc::new(settings), Arc::new(Leases::new(1)), None);
        // By the names alone, which break ties, the order would be the other way round.
        for n in 1..5 {
            table.create(format!("id-{n}"), job(&format!("t{n}"))).await.unwrap();
        }
        let (mut seen, mut after) = (Vec::new(), None);
        for n in 5..9 {
            let (page, more) = table.list(vec![], after, 1).await.unwrap();
            seen.push(page[0].id.clone());
            after = page.last().map(|j| After { created: j.created.0, id: j.id.clone() });
            assert_eq!(more, n < 8);
            table.create(format!("id-{n}"), job(&format!("t{n}"))).await.unwrap();
        }
        assert_eq!(seen, ["id-4", "id-3", "id-2", "id-1"]);
    }

    #[tokio::test]
    async fn a_job_whose_sample_has_run_is_wound_down_when_it_is_cancelled() {
        let dir = tempfile::tempdir().unwrap();
        let table = table(dir.path());
        table.create("j".into(), job("t")).await.unwrap();
        let read = Event::ManifestRead { confirmation_required: true };
        for event in [Event::PickedUp, read, Event::Confirmed, Event::SlotGranted] {
            table.transition("j", Terms::Legal, event, Change::default()).await.unwrap();
            assert!(!table.job("j").await.unwrap().unwrap().sampled);
        }
        let moved = table.transition("j", Terms::Legal, Event::SampleFinished, Change::default()).await;
        assert_eq!((moved.unwrap(), table.job("j").await.unwrap().unwrap().sampled), (Status::Suspended, true));
        let moved = table.transition("j", Terms::Legal, Event::CancelRequested, Change::default()).await;
        assert_eq!(moved.unwrap(), Status::Cancelling);
    }

    #[tokio::test]
    async fn the_rows_that_are_known_never_become_fewer() {
        let dir = tempfile::tempdir().unwrap();
        let table = table(dir.path());
        table.create("j".into(), job("t")).await.unwrap();
        let fence = table.leases.lease(&Duty::Job("j".into())).unwrap().fence;
        for (noted, shown) in [(1_024, 1_024), (2_048, 2_048), (1_024, 2_048)] {
            table.note_rows(&fence, noted).await.unwrap();
            assert_eq!(table.job("j").await.unwrap().unwrap().rows_total, shown);
        }
    }

    #[tokio::test]
    async fn pages_are_newest_first_and_repeat_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let table = table(dir.path());
        for n in 0..5 {
            table.create(format!("id-{n}"), job(&format!("t{n}"))).await.unwrap();
        }
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let (page, more) = table.list(vec![], after, 2).await.unwrap();
            seen.extend(page.iter().map(|j| (std::cmp::Reverse(j.created), j.id.clone())));
            after = page.last().map(|j| After { created: j.created.0, id: j.id.clone() });
            if !more {
                break;
            }
        }
        assert_eq!(seen.len(), 5);
        assert!(seen.is_sorted());
        let (none, _) = table.list(vec![Status::Active], None, 2).await.unwrap();
        assert!(none.is_empty());
    }
}
