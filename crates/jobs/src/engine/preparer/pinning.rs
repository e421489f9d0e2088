//! The one stage through which every row comes in: it checks each line, keeps it on disk, and counts.

use bytes::Bytes;
use longshore_core::manifest::{Fault, Flaw, LineTooLong, Lines, ROWS_MAX, RowFormat};
use longshore_store::StoreError;
use tokio::sync::mpsc;

use super::{TOO_MANY_ROWS, Unprepared, bad, content};
use crate::engine::{Engine, pinned};

/// Pieces of lines between a source and the thread that checks them: 8 pieces of usually 64 KiB to 1 MiB.
const PIECES_MAX: usize = 8;

/// Where a source puts its lines.
pub(super) struct Feed {
    // The end is said in so many words: a channel that merely closes is a source that was given up.
    pieces: mpsc::Sender<Option<Bytes>>,
}

impl Feed {
    /// Takes the next bytes of the lines, each ended by LF (the last one need not be), cut anywhere.
    ///
    /// Waits while the checking is behind. [`Unprepared::NotTaken`] once a check has failed.
    pub async fn send(&self, piece: Bytes) -> Result<(), Unprepared> {
        self.pieces.send(Some(piece)).await.map_err(|_| Unprepared::NotTaken)
    }
}

/// Pins what `source` feeds as lines of `format`; returns the number of rows.
///
/// With `growth` the rows that are checked can be read meanwhile. A source that returns an error has its lines thrown away. What an interrupted call left behind is overwritten by the
/// next one.
pub(super) async fn pin<F>(
    engine: &Engine,
    job_id: &str,
    format: RowFormat,
    growth: Option<pinned::Growth>,
    source: impl FnOnce(Feed) -> F,
) -> Result<u64, Unprepared>
where
    F: Future<Output = Result<(), Unprepared>>,
{
    let world = &engine.shared.world;
    let (pieces, incoming) = mpsc::channel(PIECES_MAX);
    let (dir, rows_max) = (world.job_dir(job_id), world.settings.rows_max.min(ROWS_MAX));
    let checking = engine.shared.tasks.blocking_on(check(dir, format, growth, rows_max, incoming));
    let end = pieces.clone();
    let feeding = async move {
        source(Feed { pieces }).await?;
        end.send(None).await.map_err(|_| Unprepared::NotTaken)
    };
    let (checked, fed) = tokio::join!(checking, feeding);
    match checked? {
        Ok(rows) => Ok(rows),
        Err(Stop::Fault(fault)) => {
            tracing::info!(job = job_id, row = fault.row, %fault, "the manifest has a bad row");
            Err(bad(fault.kind(), fault.to_string()))
        }
        Err(Stop::TooManyRows) => Err(content(TOO_MANY_ROWS)),
        Err(Stop::Store(error)) => Err(error.into()),
        Err(Stop::GivenUp) => {
            Err(fed.err().unwrap_or_else(|| StoreError::Damaged("a manifest's check lost its source".into()).into()))
        }
    }
}

enum Stop {
    Fault(Fault),
    TooManyRows,
    /// The source ended early: what was read may end in a row that only looks whole.
    GivenUp,
    Store(StoreError),
}

/// A line that is longer than any row may be; which one, the caller knows.
struct Cut(Option<Stop>);

impl From<LineTooLong> for Cut {
    fn from(_: LineTooLong) -> Self {
        Cut(None)
    }
}

/// Checks and writes line by line until the end is said. Blocks, but for waiting for the next piece.
async fn check(
    dir: std::path::PathBuf,
    format: RowFormat,
    growth: Option<pinned::Growth>,
    rows_max: u64,
    mut incoming: mpsc::Receiver<Option<Bytes>>,
) -> Result<Result<u64, Stop>, StoreError> {
    let mut writer = pinned::Writer::create(&dir, format.clone(), growth)?;
    let mut lines = Lines::default();
    let mut row = |line: &[u8]| {
        let row = writer.rows();
        if row >= rows_max {
            return Err(Stop::TooManyRows);
        }
        format.parse(row, line).map_err(Stop::Fault)?;
        writer.push(line).map_err(Stop::Store)
    };
    let checked = loop {
        match incoming.recv().await {
            None => break Err(Cut(Some(Stop::GivenUp))),
            Some(None) => break Ok(()),
            Some(Some(piece)) => {
                if let Err(cut) = lines.push(&piece, |line| row(line).map_err(|stop| Cut(Some(stop)))) {
                    break Err(cut);
                }
            }
        }
    };
    // The sender notices that nobody takes its pieces any more.
    drop(incoming);
    let checked = match checked {
        Ok(()) => lines.finish().map_or(Ok(()), |last| row(&last)),
        Err(Cut(Some(stop))) => Err(stop),
        Err(Cut(None)) => Err(Stop::Fault(Fault { row: writer.rows(), flaw: Flaw::LongLine })),
    };
    match checked {
        Ok(()) => {
            let rows = writer.rows();
            writer.finish()?;
            Ok(Ok(rows))
        }
        Err(stop) => {
            // A part of a manifest must not lie about, least of all where space is short.
            writer.discard();
            Ok(Err(stop))
        }
    }
}
