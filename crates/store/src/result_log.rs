//! The results of one job: append-only, synced by group commit on a thread of its own.
//!
//! The thread takes what is queued, writes it as one frame, syncs it, and answers: while one sync runs the next frame
//! gathers. What a payload means is the caller's business. Files: `<dir>/00000001.seg`, a new one from [`ROLL_AT`] on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot, watch};

use crate::failpoint::{self, Place};
use crate::files::{Files, Open, OpenFile};
use crate::ground::Ground;
use crate::segment::{self, FRAME_HEAD, HEADER, PAYLOAD_MAX, Step};
use crate::syncs::SyncTimes;
use crate::{Fatal, StoreError};

/// A segment is closed when it has grown to this many bytes; the next append starts another.
pub const ROLL_AT: u64 = 64 << 20;
/// Appends waiting for the thread. The engine has one under way per job; a few more are room for a commit's length.
const QUEUE_MAX: usize = 16;
/// Whoever watches a log's growth is told after this many bytes, some twenty thousand results that say no more than that their
/// task succeeded.
pub const TOLD_EVERY: u64 = 256 << 10;
/// A segment is read in pieces of this size, or of its longest frame, whichever is more.
const READ_BYTES: usize = 128 << 10;

type Payload = Box<dyn AsRef<[u8]> + Send>;
type Answer = oneshot::Sender<Result<(), StoreError>>;

/// The open log of one job.
#[derive(Debug)]
pub struct ResultLog {
    queue: mpsc::Sender<(Payload, Answer)>,
    marks: watch::Receiver<Mark>,
}

impl ResultLog {
    /// Opens (or creates) the log in `dir`, hands every payload behind `from` to `each` in the order it was appended, and
    /// cuts a torn tail. `from` is none, or a mark that [`ResultLog::reaches`]. Blocks. Memory: a frame at a time.
    ///
    /// On [`Ground::Pretended`] a task stands in for the thread.
    pub fn open(
        ground: &Ground,
        dir: &Path,
        fatal: Fatal,
        from: Option<Mark>,
        each: impl FnMut(&[u8]),
    ) -> Result<Self, StoreError> {
        failpoint::pass(Place::ResultsOpenBefore);
        let files = ground.files();
        // The folder's name was made durable before its first segment was begun.
        if segments_in(files, dir)?.is_empty() {
            files.make_folder(dir).map_err(|e| StoreError::from_io("creating a result log", e))?;
            sync_directory_of(files, dir, &fatal)?;
        }
        let appender = Appender::recover(ground, dir, &fatal, from.unwrap_or_default(), each)?;
        failpoint::pass(Place::ResultsOpenAfter);
        let (queue, mut receiver) = mpsc::channel::<(Payload, Answer)>(QUEUE_MAX);
        let (marks, reader) = watch::channel(appender.mark);
        let told_every = ground.length(TOLD_EVERY);
        let mut writer = Writer { told: appender.mark.bytes(), told_every, appender, fatal, marks };
        match ground {
            Ground::Threads => {
                let thread = std::thread::Builder::new().name("results".into()).spawn(move || {
                    while let Some((payload, answer)) = receiver.blocking_recv() {
                        writer.take(payload, answer);
                    }
                });
                thread.map_err(StoreError::Io)?;
            }
            Ground::Pretended(machine) => {
                let slow = Arc::clone(machine);
                drop(ground.spawn(async move {
                    while let Some((payload, answer)) = receiver.recv().await {
                        slow.before_files().await;
                        writer.take(payload, answer);
                    }
                }));
            }
        }
        Ok(Self { queue, marks: reader })
    }

    /// How far the log is durable. A change is told every [`TOLD_EVERY`] bytes, and that there will be no more of them.
    pub fn marks(&self) -> watch::Receiver<Mark> {
        self.marks.clone()
    }

    /// Whether the log in `dir` has grown out of the one that `mark` was taken of: the segments before have as many bytes,
    /// and the frame that ends there is whole and has the same checksum. Blocks. Memory: that frame.
    ///
    /// The frames before are not looked at. Whoever makes a report of them reads them all.
    pub fn reaches(files: &dyn Files, dir: &Path, mark: &Mark) -> Result<bool, StoreError> {
        let io = |e| StoreError::from_io("reading a result segment", e);
        let paths = segments_in(files, dir)?;
        let Some(before) = (mark.number as usize).checked_sub(1) else { return Ok(false) };
        let Some(path) = paths.get(before) else { return Ok(false) };
        let mut bytes_before = 0;
        for path in &paths[..before] {
            bytes_before += files.open(path, Open::Read).and_then(|file| file.length()).map_err(io)?;
        }
        let Some(length) = mark.len.checked_sub(mark.last.at) else { return Ok(false) };
        if bytes_before != mark.before || length > (FRAME_HEAD + PAYLOAD_MAX) as u64 {
            return Ok(false);
        }
        let mut frame = vec![0; length as usize];
        let file = files.open(path, Open::Read).map_err(io)?;
        let read = file.read_up_to(&mut frame, mark.last.at).map_err(io)?;
        frame.truncate(read);
        let whole = matches!(segment::step(&frame), Step::Frame(_, taken) if taken as u64 == length);
        Ok(whole && segment::checksum_of(&frame) == Some(mark.last.checksum))
    }

    /// Appends one payload (1 byte to [`PAYLOAD_MAX`]) and returns once it is durable.
    ///
    /// `Err(Full)`: it is not there, and may be tried again. `Err(Broken)`: unknown, and nothing more is accepted.
    pub async fn append(&self, payload: impl AsRef<[u8]> + Send + 'static) -> Result<(), StoreError> {
        let gone = || StoreError::Broken("the result log's thread has ended".into());
        let (answer, answered) = oneshot::channel();
        self.queue.send((Box::new(payload), answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// Reads a closed or open log from its start without touching it: for reports. A torn tail is passed over.
    /// Blocks; a frame at a time is in memory.
    pub fn read(files: &dyn Files, dir: &Path, each: impl FnMut(&[u8])) -> Result<(), StoreError> {
        Self::read_on(files, dir, Position::default(), each).map(drop)
    }

    /// As [`ResultLog::read`], from where an earlier reading of the same log ended; returns where this one did. Good for
    /// as long as the process lives: a log that is open only grows behind its whole frames.
    pub fn read_on(
        files: &dyn Files,
        dir: &Path,
        from: Position,
        mut each: impl FnMut(&[u8]),
    ) -> Result<Position, StoreError> {
        let paths = segments_in(files, dir)?;
        let mut to = from;
        for (index, path) in paths.iter().enumerate().skip(from.segments_before) {
            let start = if index == from.segments_before { from.bytes } else { 0 };
            let read = read_segment(files, path, start, u64::MAX, &mut each)?;
            if index + 1 < paths.len() && read.valid != read.on_disk {
                return Err(damaged(path, read.valid));
            }
            to = Position { segments_before: index, bytes: read.valid };
        }
        Ok(to)
    }

    /// Reads what became durable between two marks of the same log. Blocks; a frame at a time is in memory.
    pub fn read_between(
        files: &dyn Files,
        dir: &Path,
        from: &Mark,
        to: &Mark,
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), StoreError> {
        for number in from.number.max(1)..=to.number {
            let path = path_of(dir, number);
            let start = if number == from.number { from.len } else { 0 };
            let end = if number == to.number { to.len } else { u64::MAX };
            let read = read_segment(files, &path, start, end, &mut each)?;
            if read.valid != if number == to.number { end } else { read.on_disk } {
                return Err(damaged(&path, read.valid));
            }
        }
        Ok(())
    }
}

/// How far a log has been read. The first value is its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    /// Segments that were read to their end, for another followed.
    pub segments_before: usize,
    /// Whole bytes of the segment behind those.
    pub bytes: u64,
}

/// A place in a log between two frames, up to which it is durable, and what stands before it. The first value is the
/// start of a log without segments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    /// The segment, counted from 1.
    pub(crate) number: u32,
    /// Whole bytes of it.
    pub(crate) len: u64,
    /// Bytes of the segments before.
    pub(crate) before: u64,
    pub(crate) last: LastFrame,
}

/// The frame that ends at a mark: that it is the same one tells a log from another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LastFrame {
    /// Where it starts in its segment.
    pub at: u64,
    pub checksum: u32,
}

impl Mark {
    /// Bytes of the log up to here.
    pub fn bytes(&self) -> u64 {
        self.before + self.len
    }

    /// Whether a frame ends here, by which [`ResultLog::reaches`] would know it again: not at the start of a segment.
    pub fn is_known(&self) -> bool {
        self.last != LastFrame::default()
    }
}

/// What appends and answers, on a thread of its own.
struct Writer {
    appender: Appender,
    fatal: Fatal,
    marks: watch::Sender<Mark>,
    /// Bytes of the log when its growth was last told, and how many more there are when it is told again.
    told: u64,
    told_every: u64,
}

impl Writer {
    fn take(&mut self, payload: Payload, answer: Answer) {
        let fatal = &self.fatal;
        let append = |()| self.appender.append((*payload).as_ref(), &fatal.syncs().results);
        let outcome = fatal.check().and_then(append);
        // Before the answer: its memory may be used again from then on.
        drop(payload);
        // What was synced beside a sync that failed is not believed either.
        let outcome = outcome.and_then(|()| fatal.check());
        if let Err(StoreError::Broken(reason)) = &outcome {
            fatal.throw(reason.clone());
        }
        // A caller that has gone does not need to know.
        let _ = answer.send(outcome);
        self.marks.send_if_modified(|mark| {
            *mark = self.appender.mark;
            let grown = mark.bytes() - self.told >= self.told_every;
            self.told = if grown { mark.bytes() } else { self.told };
            grown
        });
    }
}

struct Appender {
    ground: Ground,
    dir: PathBuf,
    file: Option<Box<dyn OpenFile>>,
    /// Whole and synced up to here.
    mark: Mark,
}

impl Appender {
    /// Reads what stands behind `from` and opens the last segment.
    fn recover(
        ground: &Ground,
        dir: &Path,
        fatal: &Fatal,
        from: Mark,
        mut each: impl FnMut(&[u8]),
    ) -> Result<Self, StoreError> {
        let files = ground.files();
        let mut appender = Self { ground: ground.clone(), dir: dir.to_owned(), file: None, mark: from };
        let paths = segments_in(files, dir)?;
        for (number, path) in (1..).zip(&paths).skip(from.number.saturating_sub(1) as usize) {
            if number > appender.mark.number {
                appender.mark = Mark { number, len: 0, before: appender.mark.bytes(), last: LastFrame::default() };
            }
            let read = read_segment(files, path, appender.mark.len, u64::MAX, &mut each)?;
            let last = number as usize == paths.len();
            if !last && read.valid != read.on_disk {
                return Err(damaged(path, read.valid));
            }
            appender.mark.len = read.valid;
            appender.mark.last = read.last.unwrap_or(appender.mark.last);
            if last {
                let io = |e| StoreError::from_io("opening a result segment", e);
                let file = files.open(path, Open::Write).map_err(io)?;
                let (valid, on_disk) = (read.valid, read.on_disk);
                if valid != on_disk {
                    tracing::warn!(path = %path.display(), valid, on_disk, "cut a torn tail off a result segment");
                }
                if on_disk > 0 {
                    make_durable(&*file, appender.mark.last.at, valid).map_err(io)?;
                    fatal.sync(&*file, "a result segment")?;
                }
                if appender.mark.last == LastFrame::default() {
                    // The segment may have been begun by a process that died before its name was durable.
                    sync_directory_of(files, path, fatal)?;
                }
                appender.file = Some(file);
            }
        }
        Ok(appender)
    }

    fn append(&mut self, payload: &[u8], syncs: &SyncTimes) -> Result<(), StoreError> {
        if payload.is_empty() || payload.len() > PAYLOAD_MAX {
            return Err(StoreError::Damaged(format!("a result frame of {} bytes", payload.len())));
        }
        if self.file.is_none() || self.mark.len >= self.ground.length(ROLL_AT) {
            self.roll()?;
        }
        let len = self.mark.len;
        // Not copied together: a batch is large, and there would be two of it.
        let (head, veiled) = match segment::plain_head(payload) {
            Some(head) => (head.to_vec(), None),
            None => {
                let mut frame = Vec::with_capacity(FRAME_HEAD + payload.len());
                segment::push_frame(&mut frame, payload);
                let rest = frame.split_off(FRAME_HEAD);
                (frame, Some(rest))
            }
        };
        let checksum = segment::checksum_of(&head).unwrap_or_default();
        let before = if len == 0 { [HEADER, &head[..]].concat() } else { head };
        let (at, body) = (len + (before.len() - FRAME_HEAD) as u64, veiled.as_deref().unwrap_or(payload));
        let end = len + (before.len() + body.len()) as u64;
        let Some(file) = self.file.as_ref() else {
            return Err(StoreError::Broken("no open result segment".into()));
        };
        failpoint::pass(Place::ResultsAppendBefore);
        let mut written = file.write_all_at(&before, len);
        if written.is_ok() && failpoint::is_set(Place::ResultsAppendTorn) {
            // As a crash in the middle would have it.
            let (first, rest) = body.split_at(body.len() / 2);
            written = file.write_all_at(first, at + FRAME_HEAD as u64).and_then(|()| {
                failpoint::pass(Place::ResultsAppendTorn);
                file.write_all_at(rest, end - rest.len() as u64)
            });
        } else if written.is_ok() {
            written = file.write_all_at(body, at + FRAME_HEAD as u64);
        }
        if let Err(error) = written {
            let error = StoreError::from_io("appending results", error);
            // What was written of the frame goes again, so that the next append starts behind whole frames. If even
            // that fails the file is in an unknown state and nothing may be added to it.
            return Err(match (file.set_length(len), error) {
                (Ok(()), full @ StoreError::Full(_)) => full,
                (_, other) => StoreError::Broken(other.to_string()),
            });
        }
        failpoint::pass(Place::ResultsSyncBefore);
        let began = Instant::now();
        let synced = file.sync_data();
        syncs.add(began.elapsed());
        // A failed sync is final, full disk or not: what the kernel dropped cannot be known.
        synced.map_err(|e| StoreError::Broken(format!("syncing results failed: {e}")))?;
        failpoint::pass(Place::ResultsSyncAfter);
        self.mark.len = end;
        self.mark.last = LastFrame { at, checksum };
        Ok(())
    }

    fn roll(&mut self) -> Result<(), StoreError> {
        let number = self.mark.number + 1;
        let path = path_of(&self.dir, number);
        failpoint::pass(Place::ResultsRollBefore);
        let files = self.ground.files();
        let file = files.open(&path, Open::Empty).map_err(|e| StoreError::from_io("starting a result segment", e))?;
        failpoint::pass(Place::ResultsRollAfter);
        // Also a folder that cannot be opened: nobody would know whether the segment's name is there.
        let synced = files.open(&self.dir, Open::Folder).and_then(|folder| folder.sync_all());
        synced.map_err(|e| StoreError::Broken(format!("syncing the folder of a result log failed: {e}")))?;
        self.file = Some(file);
        self.mark = Mark { number, len: 0, before: self.mark.bytes(), last: LastFrame::default() };
        Ok(())
    }
}

/// Cuts a segment off behind its whole frames, and writes the last of them once more, and the header where that was appended
/// with it, for a sync to come.
///
/// Whoever appended it may have died before it was synced, or of a sync that failed: it reads well from the page cache
/// then, and the next power cut takes it away; or brings back a tail that was cut. A sync alone would not help after one that
/// failed, for the kernel takes what it has given up for written. The frames before were synced, or there would be none
/// behind them.
fn make_durable(file: &dyn OpenFile, last: u64, valid: u64) -> std::io::Result<()> {
    let from = if last <= HEADER.len() as u64 { 0 } else { last };
    let mut frame = vec![0; usize::try_from(valid.saturating_sub(from)).map_err(std::io::Error::other)?];
    file.read_all_at(&mut frame, from)?;
    file.set_length(valid)?;
    file.write_all_at(&frame, from)
}

fn path_of(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:08}.seg"))
}

/// What was read of a segment.
struct ReadSegment {
    /// Whole bytes from the file's start.
    valid: u64,
    /// All of them, as far as the file was looked at.
    on_disk: u64,
    last: Option<LastFrame>,
}

/// Reads what stands behind the first `start` bytes, which are whole frames, and before `end`.
fn read_segment(
    files: &dyn Files,
    path: &Path,
    start: u64,
    end: u64,
    each: &mut impl FnMut(&[u8]),
) -> Result<ReadSegment, StoreError> {
    let io = |e| StoreError::from_io("reading a result segment", e);
    let file = files.open(path, Open::Read).map_err(io)?;
    // What is appended meanwhile is not looked at: what is half there at first and whole by the end would look like damage.
    let end = end.min(file.length().map_err(io)?).max(start);
    let mut next = start;
    // The bytes of `buffer[at..filled]` are those of the file from `valid` on.
    let (mut buffer, mut at, mut filled) = (vec![0; READ_BYTES], 0, 0);
    let (mut valid, mut last, mut header) = (start, None, start == 0);
    let mut bad = false;
    loop {
        let bytes = &buffer[at..filled];
        let taken = match bytes.split_first_chunk::<8>() {
            Some((HEADER, _)) if header => HEADER.len(),
            Some(_) if header => {
                bad = true;
                0
            }
            None if header => 0,
            _ => match segment::step(bytes) {
                Step::Frame(payload, taken) => {
                    each(&payload);
                    last = segment::checksum_of(bytes).map(|checksum| LastFrame { at: valid, checksum });
                    taken
                }
                Step::Short => 0,
                Step::Bad => {
                    bad = true;
                    0
                }
            },
        };
        if taken > 0 {
            (at, valid, header) = (at + taken, valid + taken as u64, false);
            continue;
        }
        if bad {
            break;
        }
        // More of it is needed: what is there goes to the front, and the buffer grows only for a frame that fills it.
        buffer.copy_within(at..filled, 0);
        (at, filled) = (0, filled - at);
        if filled == buffer.len() {
            let length = segment::length_of(&buffer).unwrap_or(0).max(filled + READ_BYTES);
            buffer.reserve_exact(length - filled);
            buffer.resize(length, 0);
        }
        let more = read_some(&*file, &mut buffer[filled..], &mut next, end).map_err(io)?;
        if more == 0 {
            break;
        }
        filled += more;
    }
    // What is left is a torn tail, of which there is little, or damage.
    let mut rest = buffer[at..filled].to_vec();
    loop {
        let (kept, wanted) = (rest.len(), READ_BYTES.min(usize::try_from(end - next).unwrap_or(READ_BYTES)));
        rest.resize(kept + wanted, 0);
        let more = read_some(&*file, &mut rest[kept..], &mut next, end).map_err(io)?;
        rest.truncate(kept + more);
        if more == 0 {
            break;
        }
    }
    // The first byte is left out: the frame that failed there is not to be found again.
    let searched = if header { &rest[..] } else { rest.get(1..).unwrap_or_default() };
    if segment::any_frame_in(searched) {
        return Err(damaged(path, valid));
    }
    Ok(ReadSegment { valid, on_disk: valid + rest.len() as u64, last })
}

/// Reads on from `next`, which it moves, as much as there is before `end`; nothing only there, or at the file's.
fn read_some(file: &dyn OpenFile, into: &mut [u8], next: &mut u64, end: u64) -> std::io::Result<usize> {
    let wanted = into.len().min(usize::try_from(end - *next).unwrap_or(usize::MAX));
    let read = file.read_up_to(&mut into[..wanted], *next)?;
    *next += read as u64;
    Ok(read)
}

/// A log that a job has begun is found after a power cut only if its folder's name was synced as well.
fn sync_directory_of(files: &dyn Files, dir: &Path, fatal: &Fatal) -> Result<(), StoreError> {
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let opened = files.open(parent, Open::Folder).map_err(|e| StoreError::from_io("opening a directory", e))?;
    fatal.sync(&*opened, "the folder of a result log")
}

fn damaged(path: &Path, at: u64) -> StoreError {
    StoreError::Damaged(format!("{} is damaged at byte {at}: a frame fails its checksum", path.display()))
}

fn segments_in(files: &dyn Files, dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let names = match files.names_in(dir) {
        Ok(names) => names,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(StoreError::from_io("listing result segments", e)),
    };
    let mut paths = Vec::new();
    for path in names.into_iter().map(|name| dir.join(name)) {
        if path.extension().is_some_and(|e| e == "seg") {
            if number_of(&path).is_none() {
                return Err(StoreError::Damaged(format!("{} is not a result segment of ours", path.display())));
            }
            paths.push(path);
        }
    }
    paths.sort();
    for (index, path) in paths.iter().enumerate() {
        if number_of(path) != u32::try_from(index + 1).ok() {
            return Err(StoreError::Damaged(format!("a result segment before {} is missing", path.display())));
        }
    }
    Ok(paths)
}

fn number_of(path: &Path) -> Option<u32> {
    let stem = path.file_stem()?.to_str()?;
    (stem.len() == 8).then(|| stem.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Os;

    fn payloads(dir: &Path) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        ResultLog::read(&Os, dir, |p| all.push(p.to_vec())).unwrap();
        all
    }

    #[tokio::test]
    async fn what_was_appended_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let fatal = Fatal::new();
        let log = ResultLog::open(&Ground::Threads, dir.path(), fatal.clone(), None, |_| panic!("a new log is empty"))
            .unwrap();
        log.append(b"first".to_vec()).await.unwrap();
        log.append(b"second".to_vec()).await.unwrap();
        assert_eq!(fatal.syncs().results.read().count, 2);
        drop(log);
        let mut seen = Vec::new();
        let log = ResultLog::open(&Ground::Threads, dir.path(), Fatal::new(), None, |p| seen.push(p.to_vec())).unwrap();
        assert_eq!(seen, [b"first".to_vec(), b"second".to_vec()]);
        log.append(b"third".to_vec()).await.unwrap();
        assert_eq!(payloads(dir.path()).len(), 3);
    }

    #[tokio::test]
    async fn a_log_is_read_on_from_where_reading_ended_across_segments_and_up_to_a_torn_tail() {
        let dir = tempfile::tempdir().unwrap();
        let mut appender =
            Appender::recover(&Ground::Threads, dir.path(), &Fatal::new(), Mark::default(), |_| {}).unwrap();
        let mut read = Position::default();
        let mut more = |dir: &Path| {
            let mut new = Vec::new();
            read = ResultLog::read_on(&Os, dir, read, |p| new.push(String::from_utf8(p.to_vec()).unwrap())).unwrap();
            new
        };
        assert!(more(dir.path()).is_empty(), "there is no segment yet");
        appender.append(b"a", &SyncTimes::default()).unwrap();
        appender.append(b"b", &SyncTimes::default()).unwrap();
        assert_eq!(more(dir.path()), ["a", "b"]);
        assert!(more(dir.path()).is_empty());
        appender.append(b"c", &SyncTimes::default()).unwrap();
        appender.roll().unwrap();
        assert_eq!(more(dir.path()), ["c"], "the new segment is empty");
        appender.append(b"d", &SyncTimes::default()).unwrap();
        appender.roll().unwrap();
        appender.append(b"e", &SyncTimes::default()).unwrap();
        assert_eq!(more(dir.path()), ["d", "e"]);
        // Half a frame, as a reader may find one that is being written.
        let path = dir.path().join("00000003.seg");
        let whole = std::fs::read(&path).unwrap();
        let mut torn = whole.clone();
        segment::push_frame(&mut torn, b"f");
        std::fs::write(&path, &torn[..torn.len() - 1]).unwrap();
        assert!(more(dir.path()).is_empty());
        std::fs::write(&path, &torn).unwrap();
        assert_eq!(more(dir.path()), ["f"]);
        // Damage in what is read on is named by its place in the file.
        segment::push_frame(&mut torn, b"g");
        let at = torn.len() - 1;
        segment::push_frame(&mut torn, b"h");
        torn[at] ^= 1;
        std::fs::write(&path, &torn).unwrap();
        let error = ResultLog::read_on(&Os, dir.path(), read, |_| {}).unwrap_err().to_string();
        assert!(error.contains(&format!("00000003.seg is damaged at byte {}", whole.len() + 13)), "{error}");
    }

    /// A log of three segments with a few frames in each, and a mark behind each frame.
    fn three_segments(dir: &Path) -> Vec<Mark> {
        let mut appender = Appender::recover(&Ground::Threads, dir, &Fatal::new(), Mark::default(), |_| {}).unwrap();
        let mut marks = Vec::new();
        for payload in ["a", "b", "", "c", "d", "", "e", "f"] {
            match payload {
                "" => appender.roll().unwrap(),
                payload => {
                    appender.append(payload.as_bytes(), &SyncTimes::default()).unwrap();
                    marks.push(appender.mark);
                }
            }
        }
        marks
    }

    #[tokio::test]
    async fn a_log_is_opened_from_a_mark_and_goes_on_as_if_it_had_been_read_whole() {
        let dir = tempfile::tempdir().unwrap();
        let marks = three_segments(dir.path());
        for (index, mark) in marks.iter().enumerate() {
            assert!(ResultLog::reaches(&Os, dir.path(), mark).unwrap());
            let mut seen = String::new();
            let each = |p: &[u8]| seen.push_str(std::str::from_utf8(p).unwrap());
            let log = ResultLog::open(&Ground::Threads, dir.path(), Fatal::new(), Some(*mark), each).unwrap();
            assert_eq!(seen, "abcdef"[index + 1..]);
            assert_eq!(*log.marks().borrow(), marks[5], "wherever it was opened from");
        }
        let log = ResultLog::open(&Ground::Threads, dir.path(), Fatal::new(), Some(marks[1]), |_| {}).unwrap();
        log.append(b"g".to_vec()).await.unwrap();
        drop(log);
        assert_eq!(payloads(dir.path()).concat(), b"abcdefg");
        // What was torn behind the mark is cut all the same.
        let path = dir.path().join("00000003.seg");
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        let log = ResultLog::open(&Ground::Threads, dir.path(), Fatal::new(), Some(marks[1]), |_| {}).unwrap();
        log.append(b"h".to_vec()).await.unwrap();
        assert_eq!(payloads(dir.path()).concat(), b"abcdefh");
    }

    #[tokio::test]
    async fn a_mark_of_another_log_is_not_reached() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let marks = three_segments(dir.path());
        assert!(!ResultLog::reaches(&Os, other.path(), &marks[0]).unwrap(), "there is no log");
        assert!(!ResultLog::reaches(&Os, dir.path(), &Mark::default()).unwrap(), "nothing stands before it");
        let mut appender =
            Appender::recover(&Ground::Threads, other.path(), &Fatal::new(), Mark::default(), |_| {}).unwrap();
        appender.append(b"a", &SyncTimes::default()).unwrap();
        appender.append(b"x", &SyncTimes::default()).unwrap();
        let reached: Vec<bool> = marks.iter().map(|m| ResultLog::reaches(&Os, other.path(), m).unwrap()).collect();
        assert_eq!(reached, [true, false, false, false, false, false]);
        // A log that lost its end, or bytes before; a frame that has become another.
        let path = |number: u32| path_of(dir.path(), number);
        let changed = |number: u32, change: &dyn Fn(&mut Vec<u8>)| {
            let good = std::fs::read(path(number)).unwrap();
            let mut bad = good.clone();
            change(&mut bad);
            std::fs::write(path(number), bad).unwrap();
            let reached = ResultLog::reaches(&Os, dir.path(), &marks[3]).unwrap();
            std::fs::write(path(number), good).unwrap();
            reached
        };
        assert!(changed(3, &|bytes| bytes.clear()), "what comes behind does not matter");
        assert!(changed(2, &|_| {}));
        assert!(!changed(2, &|bytes| bytes.truncate(bytes.len() - 1)));
        assert!(!changed(2, &|bytes| *bytes.last_mut().unwrap() ^= 1));
        assert!(!changed(1, &|bytes| bytes.push(0)));
    }

    #[tokio::test]
    async fn what_lies_between_two_marks_is_read_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let mut marks = vec![Mark::default()];
        marks.extend(three_segments(dir.path()));
        for from in 0..marks.len() {
            for to in from..marks.len() {
                let mut seen = String::new();
                let each = |p: &[u8]| seen.push_str(std::str::from_utf8(p).unwrap());
                ResultLog::read_between(&Os, dir.path(), &marks[from], &marks[to], each).unwrap();
                assert_eq!(seen, "abcdef"[from..to]);
            }
        }
        let path = path_of(dir.path(), 2);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.pop();
        std::fs::write(&path, &bytes).unwrap();
        let read = |to: usize| ResultLog::read_between(&Os, dir.path(), &marks[2], &marks[to], |_| {});
        assert!(read(3).is_ok() && matches!(read(4), Err(StoreError::Damaged(_))));
        assert!(matches!(read(5), Err(StoreError::Damaged(_))), "another segment follows the one that is cut");
    }

    #[tokio::test]
    async fn whoever_watches_is_told_now_and_then_and_of_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let log = ResultLog::open(&Ground::Threads, dir.path(), Fatal::new(), None, |_| {}).unwrap();
        let mut marks = log.marks();
        let payload = vec![7; TOLD_EVERY as usize / 4];
        for appended in 1..=8 {
            log.append(payload.clone()).await.unwrap();
            // The thread tells after it has answered: an answer to the next append is behind it.
            log.append(b"x".to_vec()).await.unwrap();
            assert_eq!(marks.has_changed().unwrap(), appended % 4 == 0, "after {appended}");
            let mark = *marks.borrow_and_update();
            assert!(ResultLog::reaches(&Os, dir.path(), &mark).unwrap());
        }
        drop(log);
        assert!(marks.changed().await.is_err());
    }

    #[tokio::test]
    async fn frames_of_all_sizes_are_read_whatever_piece_they_begin_and_end_in() {
        let dir = tempfile::tempdir().unwrap();
        let mut appender =
            Appender::recover(&Ground::Threads, dir.path(), &Fatal::new(), Mark::default(), |_| {}).unwrap();
        let sizes = [1, READ_BYTES - 40, 17, READ_BYTES, 3 * READ_BYTES + 5, 1, 1, 200_000, 200_000];
        for (fill, size) in (1_u8..).zip(sizes) {
            appender.append(&vec![fill; size], &SyncTimes::default()).unwrap();
        }
        let found = payloads(dir.path());
        assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), sizes);
        assert!((1_u8..).zip(&found).all(|(fill, payload)| payload.iter().all(|byte| *byte == fill)));
    }

    #[tokio::test]
    async fn a_torn_tail_is_cut_and_appending_goes_on_behind_whole_frames() {
        let dir = tempfile::tempdir().unwrap();
        let log = ResultLog::open(&Ground::Threads, dir.path(), Fatal::new(), None, |_| {}).unwrap();
        log.append(b"kept".to_vec()).await.unwrap();
        log.append(b"torn in the middle".to_vec()).await.unwrap();
        drop(log);
        let path = dir.path().join("00000001.seg");
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(file.metadata().unwrap().len() - 5).unwrap();
        let log = ResultLog::open(&Ground::Threads, dir.path(), Fatal::new(), None, |_| {}).unwrap();
        log.append(b"after".to_vec()).await.unwrap();
        assert_eq!(payloads(dir.path()), [b"kept".to_vec(), b"after".to_vec()]);
    }

    #[tokio::test]
    async fn damage_in_the_middle_is_refused_with_file_and_offset() {
        let dir = tempfile::tempdir().unwrap();
        let log = ResultLog::open(&Ground::Threads, dir.path(), Fatal::new(), None, |_| {}).unwrap();
        log.append(b"one".to_vec()).await.unwrap();
        log.append(b"two".to_vec()).await.unwrap();
        drop(log);
        let path = dir.path().join("00000001.seg");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[21] ^= 4;
        std::fs::write(&path, bytes).unwrap();
        let error = ResultLog::open(&Ground::Threads, dir.path(), Fatal::new(), None, |_| {}).unwrap_err().to_string();
        assert!(error.contains("00000001.seg is damaged at byte 8"), "{error}");
    }

    /// Files to each of which frames are added in the moment in which a reader has come to its end.
    #[derive(Debug)]
    struct Grows;

    #[derive(Debug)]
    struct Growing(Box<dyn OpenFile>, PathBuf);

    impl Files for Grows {
        fn open(&self, path: &Path, how: Open) -> std::io::Result<Box<dyn OpenFile>> {
            Ok(Box::new(Growing(Os.open(path, how)?, path.to_owned())))
        }
        fn make_folder(&self, path: &Path) -> std::io::Result<()> {
            Os.make_folder(path)
        }
        fn names_in(&self, folder: &Path) -> std::io::Result<Vec<std::ffi::OsString>> {
            Os.names_in(folder)
        }
        fn is_there(&self, path: &Path) -> bool {
            Os.is_there(path)
        }
        fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
            Os.rename(from, to)
        }
        fn remove(&self, file: &Path) -> std::io::Result<()> {
            Os.remove(file)
        }
        fn remove_folder(&self, folder: &Path) -> std::io::Result<()> {
            Os.remove_folder(folder)
        }
    }

    impl OpenFile for Growing {
        fn read_at(&self, into: &mut [u8], at: u64) -> std::io::Result<usize> {
            let read = self.0.read_at(into, at)?;
            if read == 0 && !into.is_empty() {
                let mut bytes = std::fs::read(&self.1)?;
                segment::push_frame(&mut bytes, b"one more");
                segment::push_frame(&mut bytes, b"and another");
                std::fs::write(&self.1, bytes)?;
            }
            Ok(read)
        }
        fn write_at(&self, bytes: &[u8], at: u64) -> std::io::Result<usize> {
            self.0.write_at(bytes, at)
        }
        fn length(&self) -> std::io::Result<u64> {
            self.0.length()
        }
        fn set_length(&self, length: u64) -> std::io::Result<()> {
            self.0.set_length(length)
        }
        fn sync_data(&self) -> std::io::Result<()> {
            self.0.sync_data()
        }
        fn sync_all(&self) -> std::io::Result<()> {
            self.0.sync_all()
        }
    }

    #[test]
    fn a_log_that_grows_while_it_is_read_is_not_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let path = path_of(dir.path(), 1);
        let mut bytes = HEADER.to_vec();
        segment::push_frame(&mut bytes, b"one");
        std::fs::write(&path, &bytes).unwrap();
        let mut seen = Vec::new();
        let read = read_segment(&Grows, &path, 0, u64::MAX, &mut |payload: &[u8]| seen.push(payload.to_vec())).unwrap();
        assert_eq!((read.valid, read.on_disk, seen), (bytes.len() as u64, bytes.len() as u64, vec![b"one".to_vec()]));
    }

    /// Numbers that look like chance, the same each time.
    fn dice(seed: u64) -> impl FnMut(usize) -> usize {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        move |below| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as usize % below.max(1)
        }
    }

    #[test]
    fn whatever_is_done_to_the_files_of_a_log_no_payload_is_read_that_was_not_appended() {
        let original: Vec<Vec<u8>> = (0..60_u8).map(|n| vec![n; 20 + usize::from(n) * 7]).collect();
        let dir = tempfile::tempdir().unwrap();
        let mut appender =
            Appender::recover(&Ground::Threads, dir.path(), &Fatal::new(), Mark::default(), |_| {}).unwrap();
        for (number, payload) in original.iter().enumerate() {
            if number % 20 == 0 {
                appender.roll().unwrap();
            }
            appender.append(payload, &SyncTimes::default()).unwrap();
        }
        drop(appender);
        let paths = segments_in(&Os, dir.path()).unwrap();
        let whole: Vec<_> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
        let (mut noticed, mut cut, mut harmless) = (0, 0, 0);
        for round in 0..120 {
            let mut roll = dice(round + 1);
            paths.iter().zip(&whole).for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
            let victim = &paths[roll(paths.len())];
            let mut bytes = std::fs::read(victim).unwrap();
            let at = roll(bytes.len());
            match round % 6 {
                0 | 1 => bytes[at] ^= 1 << roll(8),
                2 => bytes.truncate(at),
                3 => bytes[at..].iter_mut().take(512).for_each(|byte| *byte = 0),
                4 => {
                    // Two segments change places.
                    let other = &paths[roll(paths.len())];
                    let theirs = std::fs::read(other).unwrap();
                    std::fs::write(other, &bytes).unwrap();
                    bytes = theirs;
                }
                _ => bytes = (0..2_000).map(|_| roll(256) as u8).collect(),
            }
            std::fs::write(victim, &bytes).unwrap();
            let mut seen = Vec::new();
            match ResultLog::read(&Os, dir.path(), |payload| seen.push(payload.to_vec())) {
                Err(StoreError::Damaged(told)) => {
                    noticed += 1;
                    assert!(told.contains(".seg is damaged at byte "), "{told}");
                }
                Err(other) => panic!("{other}"),
                // What is missing then is counted by whoever knows how many there were.
                Ok(()) if seen.len() < original.len() => cut += 1,
                Ok(()) => harmless += 1,
            }
            assert!(
                seen.iter().all(|payload| original.contains(payload)),
                "round {round}: read what was never appended"
            );
        }
        assert!(noticed > 60 && cut > 0, "{noticed} noticed, {cut} cut, {harmless} without an effect");
    }
}
