//! The completion report of an earlier job: its failed rows, or all of them, once more (decision 0013).
//!
//! Where the report is, byte for byte, one that the result log of a job here has made, the rows are taken to be that job's
//! tasks: each keeps its origin, and with it its `taskId`. Any other report, of AWS or of a server that is gone, makes a
//! job like any other.

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use longshore_core::manifest::{Column, LineTooLong, RowFormat};
use longshore_core::report::{Names, NoReport, Part, Records, ReportedRow, TaskStatus, read_manifest_json};
use longshore_store::StoreError;
use md5::{Digest, Md5};
use tokio::sync::mpsc;

use super::super::role::JobObjects;
use super::pinning::Feed;
use super::{Unprepared, check_whole, content, pinning, unreadable};
use crate::engine::{Engine, pinned, recorder, reporter};
use crate::ledger::JobRow;
use crate::ports::{ObjectBody, ObjectError};
use crate::shape::ReportedRows;

/// A `manifest.json` is read whole: this is room for the 20,000 result files of twenty billion rows.
const MANIFEST_BYTES_MAX: usize = 16 << 20;
/// Task numbers on their way from the log: 16 pieces of 1,024, so that neither side waits for each row.
const NUMBERS_MAX: usize = 16;
const NUMBERS_PIECE: usize = 1_024;
/// Lines are handed on in pieces of this size.
const PIECE_BYTES: usize = 256 << 10;

/// Returns the number of rows, and the lineage of their tasks where it is not the job's own.
pub(super) async fn pin(
    engine: &Engine,
    objects: &JobObjects,
    job: &JobRow,
    object: ObjectBody,
    growth: Option<pinned::Growth>,
) -> Result<(u64, Option<String>), Unprepared> {
    let parts = read_manifest_json(&collect(object).await?).map_err(odd)?;
    let origin = origin(engine, &parts).await?;
    let all = job.request.beyond.rows == Some(ReportedRows::All);
    let wanted: Vec<Part> = parts.into_iter().filter(|part| all || part.status == TaskStatus::Failed).collect();
    let mut columns = vec![Column::Bucket, Column::Key, Column::ReportedVersion];
    columns.extend(origin.is_some().then_some(Column::Number));
    let format = RowFormat::new(columns).ok_or_else(|| content("Invalid Manifest Content"))?;
    if wanted.is_empty() {
        return Err(content("The completion report has no rows to run"));
    }
    let (wanted, from) = (&wanted, origin.as_ref());
    let rows = pinning::pin(engine, &job.id, format, growth, |feed| async move {
        let mut numbers = None;
        for (at, part) in wanted.iter().enumerate() {
            // The files of one status follow the log one after the other.
            if at == 0 || wanted[at - 1].status != part.status {
                numbers = from.map(|origin| Numbers::read(engine, &origin.id, part.status));
            }
            feed_part(objects, part, numbers.as_mut(), &feed).await?;
        }
        Ok(())
    })
    .await?;
    Ok((rows, origin.map(|origin| origin.lineage)))
}

/// The job here that has made this report, byte for byte.
async fn origin(engine: &Engine, parts: &[Part]) -> Result<Option<JobRow>, Unprepared> {
    let Some(id) = parts.first().and_then(|part| Names::job_of_part(&part.key)) else { return Ok(None) };
    let world = &engine.shared.world;
    // While it still runs, its log grows, and its report is not out.
    let Some(job) = world.ledger.job(id).await?.filter(|job| job.status.is_terminal()) else { return Ok(None) };
    let (log, asked) = (world.log(&job.id), job.clone());
    match engine.shared.tasks.blocking(move || reporter::parts_of(&asked, &log)).await {
        Ok(made) => Ok((made == parts).then_some(job)),
        // Whatever has become of that log, the report is whole.
        Err(StoreError::Damaged(what)) => {
            tracing::warn!(job = id, what, "a report's origin cannot be read: its rows get task IDs of their own");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Reads one result file, checks it, and hands on the lines of its rows.
async fn feed_part(
    objects: &JobObjects,
    part: &Part,
    mut numbers: Option<&mut Numbers>,
    feed: &Feed,
) -> Result<(), Unprepared> {
    let mut object = objects.get(&part.bucket, &part.key, None).await.map_err(unreadable)?;
    let (mut records, mut md5, mut fetched) = (Records::default(), Md5::new(), 0);
    let mut out = BytesMut::new();
    // A file with a bad row is read to its end all the same: that it is another file explains more than the row does.
    let mut fault = None;
    let mut ended = false;
    while !ended {
        let mut found = Vec::new();
        match object.stream.next().await {
            Some(piece) => {
                let piece = piece.map_err(unreadable)?;
                fetched += piece.len() as u64;
                md5.update(&piece);
                if fault.is_none() {
                    let each = |record: &[u8]| {
                        found.push(record.to_vec());
                        Ok::<(), TooLong>(())
                    };
                    fault = records.push(&piece, each).err().map(Unprepared::from);
                }
            }
            None => {
                ended = true;
                found.extend(std::mem::take(&mut records).finish());
            }
        }
        for record in found {
            if fault.is_none() {
                fault = push_line(&mut out, &record, part.status, numbers.as_deref_mut()).await.err();
            }
        }
        if out.len() >= PIECE_BYTES || ended {
            feed.send(out.split().freeze()).await?;
        }
    }
    check_whole(object.size, fetched)?;
    let found = hex::encode(md5.finalize());
    if !found.eq_ignore_ascii_case(&part.md5) {
        return Err(content(format!("The MD5 of the completion report's {} is {found}, not {}", part.key, part.md5)));
    }
    fault.map_or(Ok(()), Err)
}

/// Appends the pinned line of one row.
async fn push_line(
    out: &mut BytesMut,
    record: &[u8],
    status: TaskStatus,
    numbers: Option<&mut Numbers>,
) -> Result<(), Unprepared> {
    let row = ReportedRow::parse(record).map_err(odd)?;
    if row.status != status {
        return Err(content("A row of the completion report lies in a file of another status"));
    }
    let number = match numbers {
        Some(numbers) => Some(numbers.next().await?),
        None => None,
    };
    let mut line = Vec::with_capacity(record.len());
    row.push_pinned(&mut line, number);
    out.extend_from_slice(&line);
    Ok(())
}

/// The task numbers of one status in the order of a job's log.
struct Numbers {
    pieces: mpsc::Receiver<Result<Vec<u64>, StoreError>>,
    piece: std::vec::IntoIter<u64>,
}

impl Numbers {
    fn read(engine: &Engine, job_id: &str, status: TaskStatus) -> Self {
        let (sender, pieces) = mpsc::channel(NUMBERS_MAX);
        let log = engine.shared.world.log(job_id);
        engine.shared.tasks.on_thread(move || {
            let mut piece = Vec::with_capacity(NUMBERS_PIECE);
            // A receiver that has gone needs none of what follows.
            let read = recorder::settled(&log, |logged| {
                if logged.succeeded == (status == TaskStatus::Succeeded) && !sender.is_closed() {
                    piece.push(logged.number);
                    if piece.len() == NUMBERS_PIECE {
                        let _ =
                            sender.blocking_send(Ok(std::mem::replace(&mut piece, Vec::with_capacity(NUMBERS_PIECE))));
                    }
                }
                Ok(())
            });
            let _ = sender.blocking_send(read.map(|()| piece));
        });
        Self { pieces, piece: Vec::new().into_iter() }
    }

    async fn next(&mut self) -> Result<u64, Unprepared> {
        loop {
            if let Some(number) = self.piece.next() {
                return Ok(number);
            }
            self.piece = match self.pieces.recv().await {
                Some(piece) => piece?.into_iter(),
                // The files' MD5s are the log's own, so a file with more rows fails for its MD5 in the end. What is left
                // is a log that was deleted meanwhile, since its job's time was over: the next try finds no such job.
                None => {
                    let message = "the job that made the report was deleted while it was read".to_owned();
                    let error = ObjectError { code: "ReportOriginGone".into(), message, passing: true };
                    return Err(Unprepared::Unavailable(error));
                }
            };
        }
    }
}

async fn collect(mut object: ObjectBody) -> Result<Bytes, Unprepared> {
    let mut bytes = BytesMut::new();
    while let Some(piece) = object.stream.next().await {
        bytes.extend_from_slice(&piece.map_err(unreadable)?);
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(content("The completion report's manifest.json is too long"));
        }
    }
    check_whole(object.size, bytes.len() as u64)?;
    Ok(bytes.freeze())
}

/// A record that is longer than any row of a report.
struct TooLong;

impl From<LineTooLong> for TooLong {
    fn from(_: LineTooLong) -> Self {
        Self
    }
}

impl From<TooLong> for Unprepared {
    fn from(_: TooLong) -> Self {
        content("A row of the completion report is too long")
    }
}

fn odd(why: NoReport) -> Unprepared {
    content(format!("The manifest is not a completion report: {}", why.0))
}
