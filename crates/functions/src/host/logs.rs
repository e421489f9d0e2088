//! What functions print: one file a function, `<data>/logs/<function>.log`, and beside it when what was written.
//!
//! A function's output goes pipe → [`Sink`] (memory, bounded) → writer thread → file. Nothing on that way waits for the
//! file: a full disk or a slow one costs log lines, which are counted and named in the log, never a function's time.
//! Lines are whole in the file, whichever environments wrote at once.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::log_pages::Marks;

/// A log file larger than this is set aside as `<function>.log.1`; the one set aside before is dropped.
pub const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// What may wait in memory for the file, a function. At some 10 ms between two writes that is 100 MB/s.
const WAITING_BYTES_MAX: usize = 1024 * 1024;
/// From here on the writer does not wait for more.
const HURRY_BYTES: usize = 256 * 1024;
/// How long the writer lets lines gather, so that a busy host writes once for many invocations.
const GATHER: Duration = Duration::from_millis(10);
/// Log files held open; more functions than that share the places.
const FILES_OPEN_MAX: usize = 64;
/// The longest line, as CloudWatch's longest event. A longer one is cut into several.
pub const LINE_BYTES_MAX: usize = 256 * 1024;

/// Where a function's log is. Names of functions are `[a-zA-Z0-9-_]`; what else might come is replaced, so that no name
/// leaves the folder.
pub fn path(data_dir: &Path, function: &str) -> PathBuf {
    let safe: String =
        function.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' }).collect();
    data_dir.join("logs").join(format!("{safe}.log"))
}

pub(super) fn set_aside(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

/// The writer of all logs of one host. Dropped, it writes what waits.
#[derive(Debug)]
pub(super) struct Logs {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    data_dir: PathBuf,
    sinks: Mutex<HashMap<String, Arc<Sink>>>,
    work: Mutex<WriterWork>,
    changed: Condvar,
    written: Condvar,
}

#[derive(Debug, Default)]
struct WriterWork {
    dirty: Vec<Arc<Sink>>,
    hurry: bool,
    closed: bool,
    writing: bool,
}

/// One function's way into its log.
#[derive(Debug)]
pub(super) struct Sink {
    function: String,
    waiting: Mutex<Waiting>,
    shared: std::sync::Weak<Shared>,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    lines_dropped: u64,
    queued: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Log text has no invariant that a panic could break.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Logs {
    /// Starts the writer thread.
    pub fn new(data_dir: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(data_dir.join("logs"))?;
        let shared = Arc::new(Shared {
            data_dir: data_dir.to_owned(),
            sinks: Mutex::default(),
            work: Mutex::default(),
            changed: Condvar::new(),
            written: Condvar::new(),
        });
        let writer = shared.clone();
        std::thread::Builder::new().name("longshore-logs".into()).spawn(move || write_logs(&writer))?;
        Ok(Self { shared })
    }

    pub fn sink(&self, function: &str) -> Arc<Sink> {
        let mut sinks = lock(&self.shared.sinks);
        // Functions that are gone leave a few dozen bytes each; they are swept when there are many.
        if sinks.len() > 4096 {
            sinks.retain(|_, sink| Arc::strong_count(sink) > 1);
        }
        let make = || {
            Arc::new(Sink {
                function: function.to_owned(),
                waiting: Mutex::default(),
                shared: Arc::downgrade(&self.shared),
            })
        };
        sinks.entry(function.to_owned()).or_insert_with(make).clone()
    }

    /// Waits until what was appended before is in the files.
    pub fn flush(&self) {
        let mut work = lock(&self.shared.work);
        work.hurry = true;
        self.shared.changed.notify_one();
        while !work.dirty.is_empty() || work.writing {
            work = self.shared.written.wait(work).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        self.flush();
        lock(&self.shared.work).closed = true;
        self.shared.changed.notify_one();
    }
}

impl Sink {
    /// Appends whole lines (each with its line end). Never waits for the file.
    pub fn append(self: &Arc<Self>, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        let (wake, hurry) = {
            let mut waiting = lock(&self.waiting);
            if waiting.bytes.len() + lines.len() > WAITING_BYTES_MAX {
                waiting.lines_dropped += lines.iter().filter(|b| **b == b'\n').count() as u64;
            } else {
                waiting.bytes.extend_from_slice(lines);
            }
            (!std::mem::replace(&mut waiting.queued, true), waiting.bytes.len() >= HURRY_BYTES)
        };
        if !wake && !hurry {
            return;
        }
        let Some(shared) = self.shared.upgrade() else { return };
        let mut work = lock(&shared.work);
        if wake {
            work.dirty.push(self.clone());
        }
        // The writer that gathers is woken for the first line and for a lot of them, not for every line.
        if (hurry && !work.hurry) || (wake && work.dirty.len() == 1) {
            work.hurry |= hurry;
            shared.changed.notify_one();
        }
    }
}

struct OpenFile {
    file: File,
    marks: Marks,
    bytes: u64,
    used: Instant,
}

fn write_logs(shared: &Arc<Shared>) {
    let mut files: HashMap<String, OpenFile> = HashMap::new();
    loop {
        let mut work = lock(&shared.work);
        while work.dirty.is_empty() && !work.closed {
            work.hurry = false;
            shared.written.notify_all();
            work = shared.changed.wait(work).unwrap_or_else(PoisonError::into_inner);
        }
        if work.dirty.is_empty() {
            return;
        }
        if !work.hurry && !work.closed {
            let gather = shared.changed.wait_timeout_while(work, GATHER, |work| !work.hurry && !work.closed);
            work = gather.unwrap_or_else(PoisonError::into_inner).0;
        }
        let dirty = std::mem::take(&mut work.dirty);
        work.hurry = false;
        work.writing = true;
        drop(work);
        for sink in dirty {
            let (mut bytes, dropped) = {
                let mut waiting = lock(&sink.waiting);
                waiting.queued = false;
                (std::mem::take(&mut waiting.bytes), std::mem::take(&mut waiting.lines_dropped))
            };
            if dropped > 0 {
                let note =
                    format!("longshore: {dropped} log lines were dropped, the log could not be written as fast\n");
                bytes.extend_from_slice(note.as_bytes());
            }
            if let Err(error) = write_to(&mut files, shared, &sink.function, &bytes) {
                files.remove(&sink.function);
                tracing::warn!(function = sink.function, %error, "function log could not be written, lines were lost");
            }
        }
        lock(&shared.work).writing = false;
        shared.written.notify_all();
    }
}

fn write_to(files: &mut HashMap<String, OpenFile>, shared: &Shared, function: &str, bytes: &[u8]) -> io::Result<()> {
    let path = path(&shared.data_dir, function);
    if !files.contains_key(function) {
        if files.len() >= FILES_OPEN_MAX
            && let Some(oldest) = files.iter().min_by_key(|(_, f)| f.used).map(|(name, _)| name.clone())
        {
            files.remove(&oldest);
        }
        let file = open(&path)?;
        let length = file.metadata()?.len();
        let marks = Marks::open(&path, file.metadata()?.ino(), length, now_ms())?;
        files.insert(function.to_owned(), OpenFile { file, marks, bytes: length, used: Instant::now() });
    }
    let open_file = files.get_mut(function).expect("opened above");
    open_file.used = Instant::now();
    if open_file.bytes > 0 && open_file.bytes + bytes.len() as u64 > FILE_BYTES_MAX {
        std::fs::rename(&path, set_aside(&path))?;
        Marks::set_aside(&path, &set_aside(&path))?;
        open_file.file = open(&path)?;
        open_file.marks = Marks::open(&path, open_file.file.metadata()?.ino(), 0, now_ms())?;
        open_file.bytes = 0;
    }
    open_file.marks.mark(open_file.bytes, now_ms())?;
    open_file.file.write_all(bytes)?;
    open_file.bytes += bytes.len() as u64;
    Ok(())
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// The last `bytes_max` bytes of a function's log, from the start of a line. Empty if it never printed.
pub fn read_tail(data_dir: &Path, function: &str, bytes_max: u64) -> io::Result<Vec<u8>> {
    let path = path(data_dir, function);
    let mut tail = tail_of(&path, bytes_max)?;
    let left = bytes_max.saturating_sub(tail.len() as u64);
    // The log may just have been set aside: then its end is in the other file. Only if this one is there whole.
    let whole = std::fs::metadata(&path).map_or(true, |m| m.len() <= bytes_max);
    if whole && left > 0 {
        let mut older = tail_of(&set_aside(&path), left)?;
        older.append(&mut tail);
        tail = older;
    }
    Ok(tail)
}

fn tail_of(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    // One byte more, to see whether the cut falls on the end of a line.
    let from = length.saturating_sub(bytes_max.saturating_add(1));
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if length > bytes_max {
        let line = bytes.iter().position(|b| *b == b'\n').map_or(bytes.len(), |at| at + 1);
        bytes.drain(..line);
    }
    Ok(bytes)
}

/// Reads what a function prints from now on, also when its log is set aside meanwhile or does not exist yet.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    file: Option<File>,
}

/// Follows a function's log from its present end. What is there already: [`read_tail`], before.
pub fn follow(data_dir: &Path, function: &str) -> io::Result<Follower> {
    let path = path(data_dir, function);
    let mut file = open_if_there(&path)?;
    if let Some(file) = &mut file {
        file.seek(SeekFrom::End(0))?;
    }
    Ok(Follower { path, file })
}

impl Follower {
    /// What is new, at most 1 MiB; empty if nothing is. Does not wait.
    pub fn read_new(&mut self) -> io::Result<Vec<u8>> {
        let mut new = Vec::new();
        for _ in 0..2 {
            if self.file.is_none() {
                self.file = open_if_there(&self.path)?;
            }
            let Some(file) = &mut self.file else { return Ok(new) };
            file.take(1024 * 1024).read_to_end(&mut new)?;
            if !new.is_empty() {
                return Ok(new);
            }
            let (ours, there) = (file.metadata()?, std::fs::metadata(&self.path).ok());
            if there.is_some_and(|there| there.ino() == ours.ino()) {
                return Ok(new);
            }
            // Set aside: this file is read to its end, the new one follows.
            self.file = None;
        }
        Ok(new)
    }

    /// Waits for something new, looking ten times a second.
    pub async fn next(&mut self) -> io::Result<Vec<u8>> {
        loop {
            let new = self.read_new()?;
            if !new.is_empty() {
                return Ok(new);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

pub(super) fn open_if_there(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_begins_with_a_whole_line_and_reaches_into_the_log_set_aside() {
        let temp = tempfile::tempdir().unwrap();
        let logs = Logs::new(temp.path()).unwrap();
        assert_eq!(read_tail(temp.path(), "f", 100).unwrap(), b"");
        let sink = logs.sink("f");
        sink.append(b"first\nsecond\nthird\n");
        logs.flush();
        assert_eq!(read_tail(temp.path(), "f", 14).unwrap(), b"second\nthird\n".to_vec());
        assert_eq!(read_tail(temp.path(), "f", 13).unwrap(), b"second\nthird\n".to_vec());
        assert_eq!(read_tail(temp.path(), "f", 12).unwrap(), b"third\n".to_vec());
        let path = path(temp.path(), "f");
        std::fs::rename(&path, set_aside(&path)).unwrap();
        std::fs::write(&path, "fourth\n").unwrap();
        assert_eq!(read_tail(temp.path(), "f", 14).unwrap(), b"third\nfourth\n".to_vec());
    }

    #[test]
    fn a_follower_sees_what_comes_also_after_the_log_was_set_aside() {
        let temp = tempfile::tempdir().unwrap();
        let logs = Logs::new(temp.path()).unwrap();
        let mut follower = follow(temp.path(), "f").unwrap();
        assert_eq!(follower.read_new().unwrap(), b"");
        let sink = logs.sink("f");
        sink.append(b"one\n");
        logs.flush();
        assert_eq!(follower.read_new().unwrap(), b"one\n");
        let path = path(temp.path(), "f");
        std::fs::rename(&path, set_aside(&path)).unwrap();
        std::fs::write(&path, "two\n").unwrap();
        assert_eq!(follower.read_new().unwrap(), b"two\n");
    }

    #[test]
    fn a_log_that_grows_too_large_is_set_aside_and_one_old_one_is_kept() {
        let temp = tempfile::tempdir().unwrap();
        let logs = Logs::new(temp.path()).unwrap();
        let sink = logs.sink("f");
        let line = [vec![b'x'; 999_999], b"\n".to_vec()].concat();
        for _ in 0..70 {
            sink.append(&line);
            logs.flush();
        }
        let path = path(temp.path(), "f");
        assert!(path.metadata().unwrap().len() <= FILE_BYTES_MAX);
        assert!(set_aside(&path).metadata().unwrap().len() > 60_000_000);
        // Each with its marks.
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 4);
    }

    #[test]
    fn lines_that_come_faster_than_they_are_written_are_counted_not_waited_for() {
        let temp = tempfile::tempdir().unwrap();
        let logs = Logs::new(temp.path()).unwrap();
        let sink = logs.sink("f");
        let line = [vec![b'x'; 400_000], b"\n".to_vec()].concat();
        // As if the writer already knew of this sink, but had not come to it yet.
        lock(&sink.waiting).queued = true;
        for _ in 0..4 {
            sink.append(&line);
        }
        lock(&sink.waiting).queued = false;
        sink.append(b"last\n");
        logs.flush();
        let tail = String::from_utf8(read_tail(temp.path(), "f", 200).unwrap()).unwrap();
        assert!(
            tail.ends_with("longshore: 2 log lines were dropped, the log could not be written as fast\n"),
            "{tail}"
        );
    }

    #[test]
    fn no_name_leaves_the_folder() {
        assert_eq!(path(Path::new("/d"), "../../etc/x"), Path::new("/d/logs/______etc_x.log"));
    }
}
