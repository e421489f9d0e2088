//! The one stage through which every row comes in: it checks each line, keeps it on disk, and counts.

use bytes::Bytes;
use longshore_core::manifest::{Fault, Flaw, LINE_BYTES_MAX, ROWS_MAX, RowFormat, count_rows};
use longshore_store::{Ground, StoreError};
use tokio::sync::mpsc;

use super::{TOO_MANY_ROWS, Unprepared, bad, content};
use crate::engine::{Engine, pinned};

/// Pieces of lines between a source and the thread that checks them: 8 pieces of usually 64 KiB to 1 MiB.
const PIECES_MAX: usize = 8;

/// What comes in of a source.
enum Piece {
    /// Lines as they are.
    Lines(Bytes),
    /// Lines that the source has checked and written itself.
    Checked(Bytes),
    /// All was sent, in so many words: a channel that merely closes is a source that was given up.
    End,
}

/// Where a source puts its lines, either all of them checked or none.
#[derive(Clone)]
pub(super) struct Feed {
    pieces: mpsc::Sender<Piece>,
}

impl Feed {
    /// Takes the next bytes of the lines, each ended by LF (the last one need not be), cut anywhere.
    ///
    /// Waits while the checking is behind. [`Unprepared::NotTaken`] once a check has failed.
    pub async fn send(&self, piece: Bytes) -> Result<(), Unprepared> {
        self.pieces.send(Piece::Lines(piece)).await.map_err(|_| Unprepared::NotTaken)
    }

    /// As [`Feed::send`], for the lines of [`RowFormat::rewrite`] and of `write_row`, each of which is a row of the format
    /// pinned. Every one ends in LF, also the last.
    pub async fn send_checked(&self, piece: Bytes) -> Result<(), Unprepared> {
        self.pieces.send(Piece::Checked(piece)).await.map_err(|_| Unprepared::NotTaken)
    }
}

/// Pins what `source` feeds as lines of `format`; returns the number of rows.
///
/// With `growth` the rows that are checked can be read meanwhile. A source that returns an error has its lines thrown away.
/// What an interrupted call left behind is overwritten by the next one.
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
    let tasks = &engine.shared.tasks;
    let checking = tasks.blocking_on(check(tasks.ground().clone(), dir, format, growth, rows_max, incoming));
    let end = pieces.clone();
    let feeding = async move {
        source(Feed { pieces }).await?;
        end.send(Piece::End).await.map_err(|_| Unprepared::NotTaken)
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

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Stop::Store(error)
    }
}

/// Lines are checked and written in pieces of at most so many bytes, which stay in the processor's cache meanwhile: room
/// for the longest line, and more.
const CHECKED_BYTES: usize = 2 * LINE_BYTES_MAX;

/// Rows on their way to the disk.
struct Pinning {
    writer: pinned::Writer,
    format: RowFormat,
    rows_max: u64,
    /// The line that the last piece has begun: at most [`LINE_BYTES_MAX`] and a byte.
    begun: Vec<u8>,
    edges: Vec<usize>,
}

impl Pinning {
    fn piece(&mut self, piece: &[u8]) -> Result<(), Stop> {
        let mut rest = piece;
        if !self.begun.is_empty() {
            let Some(end) = memchr::memchr(b'\n', rest) else { return self.begin(rest) };
            let (line, after) = rest.split_at(end + 1);
            self.begin(line)?;
            rest = after;
            self.end_begun()?;
        }
        while !rest.is_empty() {
            let (window, _) = rest.split_at(rest.len().min(CHECKED_BYTES));
            let Some(last) = memchr::memrchr(b'\n', window) else { return self.begin(rest) };
            let (lines, after) = rest.split_at(last + 1);
            self.lines(lines)?;
            rest = after;
        }
        Ok(())
    }

    /// Takes a part of a line.
    fn begin(&mut self, part: &[u8]) -> Result<(), Stop> {
        // Held back by the line break that it may have.
        let bytes = self.begun.len() + part.strip_suffix(b"\n").unwrap_or(part).len();
        if bytes > LINE_BYTES_MAX {
            return Err(Stop::Fault(Fault { row: self.writer.rows(), flaw: Flaw::LongLine }));
        }
        self.begun.extend_from_slice(part);
        Ok(())
    }

    fn end_begun(&mut self) -> Result<(), Stop> {
        let line = std::mem::take(&mut self.begun);
        self.lines(&line)?;
        self.begun = line;
        self.begun.clear();
        Ok(())
    }

    /// Checks whole lines and writes them.
    fn lines(&mut self, lines: &[u8]) -> Result<(), Stop> {
        let first_row = self.writer.rows();
        match self.format.check(first_row, lines, &mut self.edges) {
            Ok(rows) if first_row + rows <= self.rows_max => Ok(self.writer.push(lines, rows, &self.edges)?),
            Err(fault) if fault.row < self.rows_max => Err(Stop::Fault(fault)),
            // Whatever is wrong behind the last row that there may be is not looked at.
            Ok(_) | Err(_) => Err(Stop::TooManyRows),
        }
    }

    /// Counts lines that are checked and writes them, cut anywhere.
    fn checked(&mut self, piece: &[u8]) -> Result<(), Stop> {
        let first_row = self.writer.rows();
        let rows = count_rows(first_row, piece, &mut self.edges);
        if first_row + rows > self.rows_max {
            return Err(Stop::TooManyRows);
        }
        Ok(self.writer.push(piece, rows, &self.edges)?)
    }

    /// The last line, which need not have a break.
    fn end(&mut self) -> Result<(), Stop> {
        if self.begun.is_empty() {
            return Ok(());
        }
        self.begun.push(b'\n');
        self.end_begun()
    }
}

/// Checks and writes the lines until the end is said. Blocks, but for waiting for the next piece.
async fn check(
    ground: Ground,
    dir: std::path::PathBuf,
    format: RowFormat,
    growth: Option<pinned::Growth>,
    rows_max: u64,
    mut incoming: mpsc::Receiver<Piece>,
) -> Result<Result<u64, Stop>, StoreError> {
    let writer = pinned::Writer::create(&ground, &dir, format.clone(), growth)?;
    let mut pinning = Pinning { writer, format, rows_max, begun: Vec::new(), edges: Vec::new() };
    let checked = loop {
        let kept = match incoming.recv().await {
            None => break Err(Stop::GivenUp),
            Some(Piece::End) => break Ok(()),
            Some(Piece::Lines(lines)) => pinning.piece(&lines),
            Some(Piece::Checked(lines)) => pinning.checked(&lines),
        };
        if let Err(stop) = kept {
            break Err(stop);
        }
    };
    // The sender notices that nobody takes its pieces any more.
    drop(incoming);
    match checked.and_then(|()| pinning.end()) {
        Ok(()) => {
            let rows = pinning.writer.rows();
            pinning.writer.finish()?;
            Ok(Ok(rows))
        }
        Err(stop) => {
            // A part of a manifest must not lie about, least of all where space is short.
            pinning.writer.discard();
            Ok(Err(stop))
        }
    }
}

#[cfg(test)]
mod tests {
    use longshore_core::manifest::{CHUNK_ROWS, Column};

    use super::*;
    use crate::engine::tasks::Tasks;

    fn alone<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    /// Pins what `pieces` hold; `None` for the end. Either the pinned bytes and rows, or why not.
    fn pin(
        dir: &std::path::Path,
        rows_max: u64,
        pieces: impl IntoIterator<Item = Bytes>,
    ) -> Result<(Vec<u8>, u64), Stop> {
        pin_all(dir, rows_max, pieces.into_iter().map(Piece::Lines))
    }

    fn pin_all(
        dir: &std::path::Path,
        rows_max: u64,
        pieces: impl IntoIterator<Item = Piece>,
    ) -> Result<(Vec<u8>, u64), Stop> {
        let format = RowFormat::new(vec![Column::Bucket, Column::Key]).unwrap();
        let pieces: Vec<_> = pieces.into_iter().chain([Piece::End]).collect();
        let (sender, incoming) = mpsc::channel(pieces.len());
        pieces.into_iter().for_each(|piece| sender.try_send(piece).unwrap());
        let checking = check(Ground::Threads, dir.to_owned(), format, None, rows_max, incoming);
        let rows = alone(checking).unwrap()?;
        Ok((std::fs::read(dir.join("manifest.csv")).unwrap(), rows))
    }

    #[test]
    fn a_manifest_is_pinned_as_it_is_however_it_is_cut() {
        let tasks = Tasks::new(crate::Ground::Threads);
        let dir = tempfile::tempdir().unwrap();
        let rows = 3 * CHUNK_ROWS + 5;
        let text: String = (0..rows).map(|row| format!("b,{}-{row}\n", "k".repeat(row as usize % 300))).collect();
        assert!(text.len() > 3 * CHECKED_BYTES);
        let text = Bytes::from(text);
        let without_last_break = text.slice(..text.len() - 1);
        for size in [1, 2, 7, 299, 4_096, CHECKED_BYTES - 1, CHECKED_BYTES + 1, text.len()] {
            for source in [&text, &without_last_break] {
                let pieces = (0..source.len()).step_by(size);
                let pieces = pieces.map(|from| source.slice(from..source.len().min(from + size)));
                let (pinned, found) = pin(dir.path(), ROWS_MAX, pieces).ok().unwrap();
                assert!(found == rows && pinned == text, "cut every {size}");
                let pinned = alone(pinned::Pinned::open(&tasks, dir.path(), None)).unwrap();
                assert_eq!(pinned.read_from(2 * CHUNK_ROWS).unwrap().len() as u64, CHUNK_ROWS);
                assert_eq!(pinned.read_from(3 * CHUNK_ROWS).unwrap().last().unwrap().row, rows - 1);
            }
        }
    }

    #[test]
    fn lines_that_are_checked_are_pinned_as_they_are_however_they_are_cut_and_counted() {
        let tasks = Tasks::new(crate::Ground::Threads);
        let dir = tempfile::tempdir().unwrap();
        let rows = 3 * CHUNK_ROWS + 5;
        let text: String = (0..rows).map(|row| format!("b,{}-{row}\n", "k".repeat(row as usize % 300))).collect();
        let text = Bytes::from(text);
        for size in [1, 7, 299, 4_096, 100_000, text.len()] {
            let pieces = || {
                let pieces = (0..text.len()).step_by(size);
                pieces.map(|from| Piece::Checked(text.slice(from..text.len().min(from + size))))
            };
            let (pinned, found) = pin_all(dir.path(), rows, pieces()).ok().unwrap();
            assert!(found == rows && pinned == text, "cut every {size}");
            let pinned = alone(pinned::Pinned::open(&tasks, dir.path(), None)).unwrap();
            assert_eq!(pinned.rows(), rows);
            for first in [0, 2 * CHUNK_ROWS, 3 * CHUNK_ROWS - 1] {
                assert_eq!(pinned.read_from(first).unwrap()[0].row, first);
            }
            assert_eq!(pinned.read_from(3 * CHUNK_ROWS).unwrap().last().unwrap().row, rows - 1);
            assert!(matches!(pin_all(dir.path(), rows - 1, pieces()), Err(Stop::TooManyRows)));
            assert!(!dir.path().join("manifest.csv").exists());
        }
    }

    #[test]
    fn the_first_thing_that_is_wrong_is_told_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let long = "k".repeat(LINE_BYTES_MAX);
        let whole = format!("b,{}", &long[2..1_026]);
        for (text, rows_max, wanted) in [
            ("b,k\nb,%\nb,k\n".to_owned(), 9, Some((1, "its key has a %"))),
            ("b,k\nb,%\nb,k\n".to_owned(), 2, Some((1, "its key has a %"))),
            ("b,k\nb,%\nb,k\n".to_owned(), 1, None),
            ("b,k\nb,k\n".to_owned(), 1, None),
            (format!("b,k\nb,{long}\n"), 9, Some((1, "it is longer"))),
            (format!("b,k\nb,{}\n", &long[2..]), 9, Some((1, "its key is longer"))),
            (format!("b,k\nb,{long}{long}{long}"), 9, Some((1, "it is longer"))),
            (format!("b,k\n{whole}\n\nb,k"), 9, Some((2, "it is blank"))),
            ("b,k\nb".to_owned(), 9, Some((1, "it has 1 fields"))),
        ] {
            for size in [3, 1_000, text.len()] {
                let pieces = text.as_bytes().chunks(size).map(Bytes::copy_from_slice);
                match (pin(dir.path(), rows_max, pieces), wanted) {
                    (Err(Stop::TooManyRows), None) => {}
                    (Err(Stop::Fault(fault)), Some((row, told))) => {
                        assert!(fault.row == row && fault.flaw.to_string().starts_with(told), "{fault}");
                    }
                    _ => panic!("{rows_max} rows of {:?}", &text[..text.len().min(40)]),
                }
                assert!(!dir.path().join("manifest.csv").exists());
            }
        }
        let exact = pin(dir.path(), 2, [Bytes::from("b,k\nb,k")]).ok().unwrap();
        assert_eq!(exact, (b"b,k\nb,k\n".to_vec(), 2));
    }
}
