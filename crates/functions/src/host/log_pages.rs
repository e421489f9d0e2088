//! A function's log in pages, and when its lines were written.
//!
//! Lines carry no time of their own. Beside each log file lies one with marks, `<function>.times`: pairs of 64-bit numbers,
//! little-endian. The first pair is the log file's inode and the millisecond in which the marks begin, which together say
//! which file they are of and so what a [`Cursor`] belongs to; each further one is an offset in the log and the millisecond
//! since 1970 in which what stands there was written. There is at most one a second, so a line is up to a second younger
//! than its mark says. Source: our choice, `docs/decisions/0025-logs-and-figures-of-functions-below-our-own-path.md`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{Host, logs};

/// Between two marks. A batch of lines is some sixty bytes at least, so that marks are never more than a quarter of
/// their log.
const MARK_EVERY_MS: u64 = 1_000;
const MARK_BYTES: u64 = 16;
/// Text of one page: some milliseconds to read, and far below what a client reads whole.
const PAGE_BYTES_MAX: u64 = 1024 * 1024;
/// Lines of one page, which may be empty ones.
const PAGE_LINES_MAX: usize = 10_000;
/// Read in one go where the last lines are looked for.
const TAIL_PIECE_BYTES: u64 = 64 * 1024;
/// The most lines that may be asked for from the end. The file before it is searched whole at worst: 128 MiB.
pub const TAIL_LINES_MAX: u64 = 1_000_000;

fn times(log: &Path) -> PathBuf {
    match log.extension() {
        Some(extension) if extension == "1" => log.with_extension("").with_extension("times.1"),
        _ => log.with_extension("times"),
    }
}

/// The marks of a log that is written to.
#[derive(Debug)]
pub(super) struct Marks {
    file: File,
    last_ms: u64,
}

impl Marks {
    /// Opens the marks of a log file that was opened to be written to, and has `length` bytes. Marks of another file, left
    /// by who knows whom, are begun anew.
    pub fn open(log: &Path, inode: u64, length: u64, now_ms: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(times(log))?;
        let whole = file.metadata()?.len() / MARK_BYTES;
        file.set_len(whole * MARK_BYTES)?;
        let (first, last) = if whole == 0 { (None, None) } else { (pair(&file, 0)?, pair(&file, whole - 1)?) };
        let ours = first.is_some_and(|(of, _)| of == inode) && (whole == 1 || last.is_some_and(|(at, _)| at <= length));
        if ours {
            return Ok(Self { file, last_ms: if whole == 1 { 0 } else { last.map_or(0, |(_, ms)| ms) } });
        }
        file.set_len(0)?;
        let mut marks = Self { file, last_ms: 0 };
        marks.write(inode, now_ms)?;
        Ok(marks)
    }

    /// What is written from `offset` on is written now. A clock that goes back stands still here.
    pub fn mark(&mut self, offset: u64, now_ms: u64) -> io::Result<()> {
        if self.last_ms != 0 && now_ms < self.last_ms.saturating_add(MARK_EVERY_MS) {
            return Ok(());
        }
        self.last_ms = now_ms;
        self.write(offset, now_ms)
    }

    fn write(&mut self, first: u64, second: u64) -> io::Result<()> {
        self.file.write_all(&[first.to_le_bytes(), second.to_le_bytes()].concat())
    }

    /// Follows a log that is set aside.
    pub fn set_aside(log: &Path, aside: &Path) -> io::Result<()> {
        match std::fs::rename(times(log), times(aside)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

fn pair(file: &File, number: u64) -> io::Result<Option<(u64, u64)>> {
    let mut bytes = [0; MARK_BYTES as usize];
    match file.read_exact_at(&mut bytes, number * MARK_BYTES) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let (first, second) = bytes.split_at(8);
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
    Ok(Some((number(first), number(second))))
}

/// A place in a function's log: behind the last line of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// When the marks of the file begin; 0 for a log without marks, or that is not there yet.
    begun_ms: u64,
    offset: u64,
}

/// Before the first line of a log that is not there yet, or of one without marks.
const NOWHERE: Cursor = Cursor { begun_ms: 0, offset: 0 };

impl Cursor {
    pub fn parse(text: &str) -> Option<Self> {
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        let (begun_ms, offset) = text.split_once('-')?;
        Some(Self { begun_ms: digits(begun_ms)?, offset: digits(offset)? })
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.begun_ms, self.offset)
    }
}

/// Where a page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// Behind a page that was read.
    After(Cursor),
    /// With the first line that was written no more than a second before `since_ms`, and is one of the last `tail`. Without
    /// either, with the oldest line that is kept. Lines from before there were marks have no time, and are before all times.
    At { since_ms: Option<u64>, tail: Option<u64> },
}

/// A line, without its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When it was written, to a second; `None` if it is from before there were marks.
    pub time_ms: Option<u64>,
    pub text: Vec<u8>,
}

/// Whole lines, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub lines: Vec<Line>,
    /// Where the next page begins, now or when there is more.
    pub next: Cursor,
    /// Whether there is more already.
    pub more: bool,
    /// Whether lines between the cursor and this page are no longer kept.
    pub missed: bool,
}

impl Page {
    /// Whether there is no log at all.
    pub fn is_nothing(&self) -> bool {
        self.lines.is_empty() && self.next == NOWHERE
    }
}

impl Host {
    /// A page of a function's log, with what it has printed by now. Blocks, for some milliseconds.
    pub fn log_page(&self, function: &str, begin: Begin) -> io::Result<Page> {
        self.flush_logs();
        read(&self.handle.shared.settings.data_dir, function, begin)
    }
}

/// A file with a part of the log.
struct Part {
    file: File,
    length: u64,
    times: Option<Times>,
}

struct Times {
    file: File,
    begun_ms: u64,
    /// Marks, the first pair left out.
    count: u64,
}

impl Part {
    fn open(path: &Path) -> io::Result<Option<Self>> {
        let Some(file) = logs::open_if_there(path)? else { return Ok(None) };
        let metadata = file.metadata()?;
        let times = match logs::open_if_there(&times(path))? {
            Some(times) => match pair(&times, 0)? {
                // Those of another file if the log is being set aside at this moment.
                Some((of, begun_ms)) if of == metadata.ino() => {
                    let count = (times.metadata()?.len() / MARK_BYTES).saturating_sub(1);
                    Some(Times { file: times, begun_ms, count })
                }
                _ => None,
            },
            None => None,
        };
        Ok(Some(Self { file, length: metadata.len(), times }))
    }

    fn begun_ms(&self) -> u64 {
        self.times.as_ref().map_or(0, |times| times.begun_ms)
    }

    /// The number of marks, from the first on, for which `holds` is true; there must be none behind the first for which it
    /// is not.
    fn marks_while(&self, holds: impl Fn(u64, u64) -> bool) -> io::Result<u64> {
        let Some(times) = &self.times else { return Ok(0) };
        let (mut low, mut high) = (0, times.count);
        while low < high {
            let middle = low + (high - low) / 2;
            match pair(&times.file, middle + 1)? {
                Some((offset, ms)) if holds(offset, ms) => low = middle + 1,
                _ => high = middle,
            }
        }
        Ok(low)
    }

    fn mark(&self, number: u64) -> io::Result<Option<(u64, u64)>> {
        match &self.times {
            Some(times) if number < times.count => pair(&times.file, number + 1),
            _ => Ok(None),
        }
    }

    /// Where the first line stands that was written no more than a second before `since_ms`; the end if there is none.
    fn since(&self, since_ms: u64) -> io::Result<u64> {
        let before = self.marks_while(|_, ms| ms.saturating_add(MARK_EVERY_MS) <= since_ms)?;
        Ok(self.mark(before)?.map_or(self.length, |(offset, _)| offset.min(self.length)))
    }

    /// Where the last `lines` lines begin, and how many lines there are if they are fewer.
    fn tail(&self, lines: u64) -> io::Result<(u64, u64)> {
        let mut found = 0;
        let mut end = self.length;
        let mut piece = Vec::new();
        // The end of the line before them is looked for; that of the last line itself is none of them.
        let mut last_seen = false;
        if lines == 0 {
            return Ok((self.length, 0));
        }
        while end > 0 {
            let begin = end.saturating_sub(TAIL_PIECE_BYTES);
            piece.resize((end - begin) as usize, 0);
            self.file.read_exact_at(&mut piece, begin)?;
            for at in (0..piece.len()).rev().filter(|at| piece[*at] == b'\n') {
                if !last_seen {
                    last_seen = true;
                    continue;
                }
                found += 1;
                if found == lines {
                    return Ok((begin + at as u64 + 1, found));
                }
            }
            end = begin;
        }
        Ok((0, found + u64::from(last_seen)))
    }
}

/// Reads a page of a function's log from its files.
fn read(data_dir: &Path, function: &str, begin: Begin) -> io::Result<Page> {
    let path = logs::path(data_dir, function);
    // This one first: should it be set aside meanwhile, it is found twice, and nothing between two files is missed.
    let now = Part::open(&path)?;
    let before = Part::open(&logs::set_aside(&path))?;
    let twice = match (&before, &now) {
        (Some(before), Some(now)) => before.file.metadata()?.ino() == now.file.metadata()?.ino(),
        _ => false,
    };
    let parts: Vec<Part> = before.filter(|_| !twice).into_iter().chain(now).collect();
    let Some(last) = parts.len().checked_sub(1) else {
        let missed = matches!(begin, Begin::After(cursor) if cursor != NOWHERE);
        return Ok(Page { lines: Vec::new(), next: NOWHERE, more: false, missed });
    };
    let (mut number, mut offset, missed) = match begin {
        Begin::After(cursor) => place_of(&parts, cursor)?,
        Begin::At { since_ms, tail } => {
            let mut place = (0, 0);
            if let Some(since_ms) = since_ms {
                place = (last, parts[last].length);
                for (number, part) in parts.iter().enumerate() {
                    let offset = part.since(since_ms)?;
                    if offset < part.length {
                        place = (number, offset);
                        break;
                    }
                }
            }
            if let Some(tail) = tail {
                let mut left = tail.min(TAIL_LINES_MAX);
                let mut from = (0, 0);
                for (number, part) in parts.iter().enumerate().rev() {
                    let (offset, found) = part.tail(left)?;
                    left -= found;
                    if left == 0 {
                        from = (number, offset);
                        break;
                    }
                }
                place = place.max(from);
            }
            (place.0, place.1, false)
        }
    };
    let mut lines = Vec::new();
    let mut bytes_left = PAGE_BYTES_MAX;
    loop {
        let part = &parts[number];
        let mut text = Vec::new();
        (&part.file).seek(SeekFrom::Start(offset))?;
        // What was appended since the file was opened is for the next page.
        (&part.file).take(bytes_left.min(part.length.saturating_sub(offset))).read_to_end(&mut text)?;
        let at_end = offset + text.len() as u64 >= part.length;
        let mut taken = 0;
        let mut mark = part.marks_while(|at, _| at <= offset)?;
        let mut time_ms = match mark.checked_sub(1) {
            Some(earlier) => part.mark(earlier)?.map(|(_, ms)| ms),
            None => None,
        };
        let mut next = part.mark(mark)?;
        while lines.len() < PAGE_LINES_MAX && taken < text.len() {
            let rest = &text[taken..];
            let (line, behind) = match rest.iter().position(|b| *b == b'\n') {
                Some(end) => (&rest[..end], end + 1),
                // The end of a line that nothing will be added to, or that no page has room for.
                None if (at_end && number < last) || (taken == 0 && rest.len() as u64 == PAGE_BYTES_MAX) => {
                    (rest, rest.len())
                }
                None => break,
            };
            while let Some((_, ms)) = next.filter(|(at, _)| *at <= offset + taken as u64) {
                time_ms = Some(ms);
                mark += 1;
                next = part.mark(mark)?;
            }
            lines.push(Line { time_ms, text: line.to_vec() });
            taken += behind;
        }
        offset += taken as u64;
        bytes_left -= taken as u64;
        if offset >= part.length && number < last && lines.len() < PAGE_LINES_MAX && bytes_left > 0 {
            (number, offset) = (number + 1, 0);
            continue;
        }
        let whole = text[taken..].contains(&b'\n') || !at_end;
        let more = whole || (number < last && parts[number + 1..].iter().any(|part| part.length > 0));
        return Ok(Page { lines, next: Cursor { begun_ms: part.begun_ms(), offset }, more, missed });
    }
}

/// The part that a cursor is in, its offset there, and whether what stood behind it is gone.
fn place_of(parts: &[Part], cursor: Cursor) -> io::Result<(usize, u64, bool)> {
    for (number, part) in parts.iter().enumerate() {
        // A log from before there were marks gets some when it is written to again, from its end on.
        let adopted = cursor.begun_ms == 0 && part.mark(0)?.is_some_and(|(offset, _)| offset > 0);
        if (part.begun_ms() == cursor.begun_ms || adopted) && cursor.offset <= part.length {
            return Ok((number, cursor.offset, false));
        }
    }
    // Before the first line, nothing was missed.
    Ok((0, 0, cursor != NOWHERE))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log that is written as the writer does it, at times of the test's own.
    struct Log {
        dir: tempfile::TempDir,
        marks: Option<Marks>,
    }

    impl Log {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir(dir.path().join("logs")).unwrap();
            Self { dir, marks: None }
        }

        fn path(&self) -> PathBuf {
            logs::path(self.dir.path(), "f")
        }

        fn write(&mut self, text: &str, now_ms: u64) {
            let mut file = OpenOptions::new().create(true).append(true).open(self.path()).unwrap();
            let metadata = file.metadata().unwrap();
            let path = self.path();
            let open = || Marks::open(&path, metadata.ino(), metadata.len(), now_ms).unwrap();
            let marks = self.marks.get_or_insert_with(open);
            marks.mark(metadata.len(), now_ms).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }

        fn set_aside(&mut self) {
            let aside = logs::set_aside(&self.path());
            std::fs::rename(self.path(), &aside).unwrap();
            Marks::set_aside(&self.path(), &aside).unwrap();
            self.marks = None;
        }

        fn page(&self, begin: Begin) -> Page {
            read(self.dir.path(), "f", begin).unwrap()
        }

        fn at(&self, since_ms: Option<u64>, tail: Option<u64>) -> Vec<String> {
            texts(&self.page(Begin::At { since_ms, tail }))
        }
    }

    fn texts(page: &Page) -> Vec<String> {
        page.lines.iter().map(|line| String::from_utf8(line.text.clone()).unwrap()).collect()
    }

    const ALL: Begin = Begin::At { since_ms: None, tail: None };

    #[test]
    fn a_log_is_read_on_where_the_last_page_ended_across_a_log_set_aside() {
        let mut log = Log::new();
        let none = log.page(ALL);
        assert_eq!((texts(&none).len(), none.more, none.missed), (0, false, false));
        log.write("one\ntwo\nbegun", 5_000);
        let first = log.page(Begin::After(none.next));
        assert_eq!((texts(&first), first.more, first.missed), (vec!["one".into(), "two".into()], false, false));
        log.write(" and ended\n", 5_001);
        log.set_aside();
        log.write("three\n", 9_000);
        let second = log.page(Begin::After(first.next));
        assert_eq!(texts(&second), ["begun and ended", "three"]);
        let third = log.page(Begin::After(second.next));
        assert_eq!((texts(&third).len(), third.next, third.missed), (0, second.next, false));
        assert_eq!(Cursor::parse(&second.next.to_string()), Some(second.next));
        for text in ["", "1", "-", "1-", "+1-2", "1-2-3", "1--2", "99999999999999999999-1"] {
            assert_eq!(Cursor::parse(text), None, "{text}");
        }
        // Twice: the file of the first cursor is gone.
        log.set_aside();
        log.write("four\n", 12_000);
        let late = log.page(Begin::After(first.next));
        assert_eq!((texts(&late), late.missed), (vec!["three".to_owned(), "four".to_owned()], true));
    }

    #[test]
    fn the_last_lines_and_those_since_a_time_are_found_in_both_files() {
        let mut log = Log::new();
        log.write("a\nb\n", 10_000);
        log.write("c\n", 10_400);
        log.write("d\n", 20_000);
        log.set_aside();
        log.write("e\n", 30_000);
        log.write("f\ng\n", 40_000);
        for (since, tail, wanted) in [
            (None, None, "abcdefg"),
            (None, Some(0), ""),
            (None, Some(1), "g"),
            (None, Some(3), "efg"),
            (None, Some(4), "defg"),
            (None, Some(100), "abcdefg"),
            // A line is up to a second younger than its mark.
            (Some(10_999), None, "abcdefg"),
            (Some(11_000), None, "defg"),
            (Some(25_000), None, "efg"),
            (Some(30_500), None, "efg"),
            (Some(31_000), None, "fg"),
            (Some(50_000), None, ""),
            (Some(25_000), Some(1), "g"),
            (Some(31_000), Some(5), "fg"),
        ] {
            assert_eq!(log.at(since, tail).concat(), wanted, "{since:?} {tail:?}");
        }
        let times: Vec<_> = log.page(ALL).lines.iter().map(|line| line.time_ms.unwrap()).collect();
        assert_eq!(times, [10_000, 10_000, 10_000, 20_000, 30_000, 40_000, 40_000]);
    }

    #[test]
    fn a_log_from_before_there_were_marks_goes_on_without_a_gap() {
        let mut log = Log::new();
        std::fs::write(log.path(), "old\n").unwrap();
        let first = log.page(ALL);
        assert_eq!((texts(&first), first.lines[0].time_ms), (vec!["old".to_owned()], None));
        log.write("new\n", 50_000);
        let second = log.page(Begin::After(first.next));
        assert_eq!((texts(&second), second.lines[0].time_ms, second.missed), (vec!["new".into()], Some(50_000), false));
        assert_eq!(log.page(ALL).lines[0].time_ms, None);
        assert_eq!(log.at(Some(1), None), ["new"]);
        // Somebody removed the log but not its marks.
        std::fs::remove_file(log.path()).unwrap();
        log.marks = None;
        std::fs::write(log.path().with_extension("other"), "keeps the inode").unwrap();
        log.write("again\n", 60_000);
        let third = log.page(Begin::After(second.next));
        assert_eq!((texts(&third), third.lines[0].time_ms, third.missed), (vec!["again".into()], Some(60_000), true));
    }

    #[test]
    fn a_page_is_bounded_and_says_that_there_is_more() {
        let mut log = Log::new();
        log.write(&"\n".repeat(PAGE_LINES_MAX + 1), 1_000);
        let first = log.page(ALL);
        assert_eq!((first.lines.len(), first.more), (PAGE_LINES_MAX, true));
        let second = log.page(Begin::After(first.next));
        assert_eq!((second.lines.len(), second.more), (1, false));
        let line = "x".repeat(logs::LINE_BYTES_MAX) + "\n";
        log.write(&line.repeat(5), 2_000);
        let third = log.page(Begin::After(second.next));
        assert_eq!((third.lines.len(), third.more), (3, true));
        assert_eq!(log.page(Begin::After(third.next)).lines.len(), 2);
        // Longer than any page: a log that we did not write.
        log.write(&format!("{}\n", "y".repeat(PAGE_BYTES_MAX as usize + 1)), 3_000);
        let mut next = third.next;
        let mut lines = 0;
        loop {
            let page = log.page(Begin::After(next));
            lines += page.lines.len();
            next = page.next;
            if !page.more {
                break;
            }
        }
        assert_eq!(lines, 4);
    }

    #[test]
    fn a_clock_that_goes_back_leaves_the_marks_in_order() {
        let mut log = Log::new();
        log.write("a\n", 9_000);
        log.write("b\n", 5_000);
        log.write("c\n", 12_000);
        let times: Vec<_> = log.page(ALL).lines.iter().map(|line| line.time_ms.unwrap()).collect();
        assert_eq!(times, [9_000, 9_000, 12_000]);
    }
}
