//! How results lie in the payload of a result-log frame: entries back to back, integers little-endian.
//!
//! An entry carries the row's own columns, so that the completion report needs nothing but the log. One alone, as in a checkpoint,
//! and all of logs from before format 2:
//!
//! ```text
//! entry: kind u8 (1 settled, 2 redriven; 3 and 4 the same with a number) | row u64 [| number u64]
//!        | attempts u32 | succeeded u8 | status u16
//!        | bucket | key | version tag u8 (0 no column, 1 missing, 2 given) [version] | code | message
//! text:  length u32 | UTF-8
//! ```
//!
//! The number is the task's own (see [`Task::number`]) and stands only where it is not the row.
//!
//! Format 2, in which [`Entries`] lie: what an entry has in common with the one before it in the payload is left out, and so is
//! what nearly all of them have. Of an answer that says no more than that its task succeeded some ten bytes stay of eighty-five
//! (decision 0041).
//!
//! ```text
//! entry: kind u8 (5 settled, 6 redriven) | parts u8 (see [`part`]) | row, less the one expected, zigzag varint
//!        [| number varint] [| attempts varint] [| status u16] [| bucket]
//!        | bytes of the key before that are this one's, too, varint | rest of the key [| version] [| code] [| message]
//! text:  length varint | UTF-8
//! ```
//!
//! The row expected is the one behind the row of the entry before, and 0 at first; the bucket and the key before the first are empty.
//! Entries of both formats may stand in one payload.
//!
//! Behind the entries of a frame stands what was counted with them and since the frame before: kind u8 7 | length u32 |
//! as [`Counted`] has it. Frames of earlier versions have none.

use std::sync::Arc;

use crate::counted::Counted;
use crate::task::{Outcome, Task, VersionId};

/// One thing that must outlive a crash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// The task has its final result. Stands once for each row.
    Settled { task: Arc<Task>, attempts: u32, outcome: Outcome },
    /// An attempt was used up and the task will be tried again; the highest `attempts` of a row counts.
    Redriven { task: Arc<Task>, attempts: u32, outcome: Outcome },
}

const SETTLED: u8 = 1;
const REDRIVEN: u8 = 2;
const SETTLED_NUMBERED: u8 = 3;
const REDRIVEN_NUMBERED: u8 = 4;
const SHORT_SETTLED: u8 = 5;
const SHORT_REDRIVEN: u8 = 6;
const COUNTED: u8 = 7;

/// What there is of an entry of format 2, a bit each. What is not there is what its line says.
mod part {
    /// It did not succeed.
    pub const SUCCEEDED: u8 = 1;
    /// The row.
    pub const NUMBER: u8 = 2;
    /// 1.
    pub const ATTEMPTS: u8 = 4;
    /// 200.
    pub const STATUS: u8 = 8;
    /// That of the entry before.
    pub const BUCKET: u8 = 16;
    /// There is no column of versions.
    pub const VERSION: u8 = 32;
    /// With [`VERSION`]: the column is there, and the row has none in it.
    pub const VERSION_MISSING: u8 = 64;
    /// Code and message are empty.
    pub const TEXTS: u8 = 128;
}

/// What nearly every answer has.
const USUAL_STATUS: u16 = 200;
const USUAL_ATTEMPTS: u32 = 1;

/// A payload that passed its checksum and does not read all the same: another format, or a bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame does not read")]
pub struct Unreadable;

impl Entry {
    pub fn task(&self) -> &Arc<Task> {
        match self {
            Entry::Settled { task, .. } | Entry::Redriven { task, .. } => task,
        }
    }

    /// Appends the entry to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Entry::Settled { task, attempts, outcome } => {
                push(out, [SETTLED, SETTLED_NUMBERED], task, *attempts, outcome);
            }
            Entry::Redriven { task, attempts, outcome } => {
                push(out, [REDRIVEN, REDRIVEN_NUMBERED], task, *attempts, outcome);
            }
        }
    }

    /// Reads a whole payload and hands each entry to `each`, in order.
    pub fn decode_all(payload: &[u8], mut each: impl FnMut(Entry)) -> Result<(), Unreadable> {
        Logged::read_all(payload, |logged| logged.to_entry().map(&mut each))
    }
}

/// Entries for one frame as they will lie in it, and what they amount to. The first value has none.
///
/// They are kept so from the moment they are made: a third of the memory of the values they are made of, which are free again at
/// once, and nothing is left to do when the frame is written (decision 0036).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entries {
    payload: Vec<u8>,
    before: Before,
    count: usize,
    succeeded: u64,
    failed: u64,
    /// Where in the payload what was counted with them lies, if it is there.
    counted_from: Option<usize>,
}

impl Entries {
    /// Adds [`Entry::Settled`] without making one.
    pub fn settle(&mut self, task: &Task, attempts: u32, outcome: &Outcome) {
        self.push(SHORT_SETTLED, task, attempts, outcome);
        self.count += 1;
        *(if outcome.succeeded { &mut self.succeeded } else { &mut self.failed }) += 1;
    }

    /// Adds [`Entry::Redriven`] without making one.
    pub fn redrive(&mut self, task: &Task, attempts: u32, outcome: &Outcome) {
        self.push(SHORT_REDRIVEN, task, attempts, outcome);
        self.count += 1;
    }

    /// Adds what was counted with these entries; nothing is added behind it.
    pub fn count_in(&mut self, counted: &Counted) {
        self.payload.push(COUNTED);
        let length_at = self.payload.len();
        self.payload.extend_from_slice(&[0; 4]);
        let from = self.payload.len();
        counted.encode(&mut self.payload);
        let length = u32::try_from(self.payload.len() - from).expect("histograms are bounded");
        self.payload[length_at..from].copy_from_slice(&length.to_le_bytes());
        self.counted_from = Some(from);
    }

    /// What was counted with them, as [`Counted::take`] reads it.
    pub fn counted(&self) -> Option<&[u8]> {
        self.counted_from.and_then(|from| self.payload.get(from..))
    }

    fn push(&mut self, kind: u8, task: &Task, attempts: u32, outcome: &Outcome) {
        let (out, before) = (&mut self.payload, &mut self.before);
        let texts = !(outcome.error_code.is_empty() && outcome.message.is_empty());
        let other_bucket = *task.bucket != *before.bucket;
        let mut parts = 0;
        for (there, bit) in [
            (outcome.succeeded, part::SUCCEEDED),
            (task.number != task.row, part::NUMBER),
            (attempts != USUAL_ATTEMPTS, part::ATTEMPTS),
            (outcome.http_status != USUAL_STATUS, part::STATUS),
            (other_bucket, part::BUCKET),
            (task.version != VersionId::NoColumn, part::VERSION),
            (task.version == VersionId::Missing, part::VERSION_MISSING),
            (texts, part::TEXTS),
        ] {
            parts |= if there { bit } else { 0 };
        }
        out.extend_from_slice(&[kind, parts]);
        push_varint(out, zigzag(task.row.wrapping_sub(before.row_expected)));
        if parts & part::NUMBER != 0 {
            push_varint(out, task.number);
        }
        if parts & part::ATTEMPTS != 0 {
            push_varint(out, u64::from(attempts));
        }
        if parts & part::STATUS != 0 {
            out.extend_from_slice(&outcome.http_status.to_le_bytes());
        }
        if other_bucket {
            push_short_text(out, &task.bucket);
        }
        let key = task.key.as_bytes();
        let same = common(&before.key, key);
        push_varint(out, same as u64);
        push_varint(out, (key.len() - same) as u64);
        out.extend_from_slice(&key[same..]);
        if let VersionId::Given(version) = &task.version {
            push_short_text(out, version);
        }
        if texts {
            push_short_text(out, &outcome.error_code);
            push_short_text(out, &outcome.message);
        }
        before.follow(task, same, other_bucket);
    }

    /// Makes room for so many bytes in all.
    pub fn reserve(&mut self, bytes: usize) {
        self.payload.reserve(bytes.saturating_sub(self.payload.len()));
    }

    /// The bytes of the frame.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Of the final results among them, how many succeeded and how many failed.
    pub fn settled(&self) -> (u64, u64) {
        (self.succeeded, self.failed)
    }

    /// None of them any more, and the memory that they had.
    pub fn emptied(mut self) -> Self {
        self.payload.clear();
        self.before.forget();
        Self { payload: self.payload, before: self.before, ..Self::default() }
    }
}

impl FromIterator<Entry> for Entries {
    fn from_iter<T: IntoIterator<Item = Entry>>(entries: T) -> Self {
        let mut all = Self::default();
        for entry in entries {
            match entry {
                Entry::Settled { task, attempts, outcome } => all.settle(&task, attempts, &outcome),
                Entry::Redriven { task, attempts, outcome } => all.redrive(&task, attempts, &outcome),
            }
        }
        all
    }
}

/// What the next entry of a payload is written against. The first value is that of a payload's start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Before {
    row_expected: u64,
    bucket: String,
    key: Vec<u8>,
}

impl Before {
    fn follow(&mut self, task: &Task, same: usize, other_bucket: bool) {
        self.row_expected = task.row.wrapping_add(1);
        if other_bucket {
            self.bucket.clear();
            self.bucket.push_str(&task.bucket);
        }
        self.key.truncate(same);
        self.key.extend_from_slice(&task.key.as_bytes()[same..]);
    }

    /// As at first, but for its memory.
    fn forget(&mut self) {
        self.row_expected = 0;
        self.bucket.clear();
        self.key.clear();
    }
}

/// How many bytes two texts have in common from their start.
fn common(one: &[u8], other: &[u8]) -> usize {
    // Eight at a time: keys have their differences at their end.
    let eights = one.chunks_exact(8).zip(other.chunks_exact(8)).take_while(|(a, b)| a == b).count() * 8;
    eights + one[eights..].iter().zip(&other[eights..]).take_while(|(a, b)| a == b).count()
}

/// Small numbers for those that are near 0 on either side.
fn zigzag(difference: u64) -> u64 {
    (difference << 1) ^ (difference.cast_signed() >> 63).cast_unsigned()
}

fn unzigzag(number: u64) -> u64 {
    (number >> 1) ^ (number & 1).wrapping_neg()
}

/// Seven bits a byte, the lowest first; all but the last byte have the eighth.
fn push_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn push_short_text(out: &mut Vec<u8>, text: &str) {
    push_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn push(out: &mut Vec<u8>, kinds: [u8; 2], task: &Task, attempts: u32, outcome: &Outcome) {
    let numbered = task.number != task.row;
    out.push(kinds[usize::from(numbered)]);
    out.extend_from_slice(&task.row.to_le_bytes());
    if numbered {
        out.extend_from_slice(&task.number.to_le_bytes());
    }
    out.extend_from_slice(&attempts.to_le_bytes());
    out.push(u8::from(outcome.succeeded));
    out.extend_from_slice(&outcome.http_status.to_le_bytes());
    push_text(out, &task.bucket);
    push_text(out, &task.key);
    match &task.version {
        VersionId::NoColumn => out.push(0),
        VersionId::Missing => out.push(1),
        VersionId::Given(version) => {
            out.push(2);
            push_text(out, version);
        }
    }
    push_text(out, &outcome.error_code);
    push_text(out, &outcome.message);
}

/// An entry as it lies in a payload, with no copy but of its key: what a pass over ten million of them can afford.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Logged<'a> {
    /// Whether it is a final result, and not an attempt that was used up.
    pub settled: bool,
    pub row: u64,
    pub number: u64,
    pub attempts: u32,
    pub succeeded: bool,
    pub http_status: u16,
    pub bucket: &'a [u8],
    pub key: &'a [u8],
    pub version: LoggedVersion<'a>,
    pub error_code: &'a [u8],
    pub message: &'a [u8],
}

/// As [`VersionId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoggedVersion<'a> {
    NoColumn,
    Missing,
    Given(&'a [u8]),
}

impl Logged<'_> {
    /// Reads a whole payload and hands each entry to `each`, in order, until one is an error. Texts are not looked into.
    pub fn read_all<E: From<Unreadable>>(
        payload: &[u8],
        each: impl FnMut(Logged<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        Self::read_with_counted(payload, each, |_| Ok(()))
    }

    /// As [`Logged::read_all`], and hands what was counted with the entries to `counted`: [`Counted::take`] reads it.
    pub fn read_with_counted<E: From<Unreadable>>(
        payload: &[u8],
        mut each: impl FnMut(Logged<'_>) -> Result<(), E>,
        mut counted: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut reader = Reader(payload);
        let (mut row_expected, mut bucket, mut key) = (0, &[][..], Vec::new());
        while !reader.0.is_empty() {
            match reader.byte()? {
                COUNTED => counted(reader.text()?)?,
                kind @ (SHORT_SETTLED | SHORT_REDRIVEN) => {
                    let read = reader.short_entry(kind, row_expected, bucket, &mut key)?;
                    (row_expected, bucket) = (read.row.wrapping_add(1), read.bucket);
                    each(Logged { key: &key, ..read })?;
                }
                kind => each(reader.entry(kind)?)?,
            }
        }
        Ok(())
    }

    /// The same as a value of its own. `Err` if a text is not UTF-8.
    pub fn to_entry(&self) -> Result<Entry, Unreadable> {
        let version = match self.version {
            LoggedVersion::NoColumn => VersionId::NoColumn,
            LoggedVersion::Missing => VersionId::Missing,
            LoggedVersion::Given(version) => VersionId::Given(text(version)?.into()),
        };
        let (bucket, key) = (text(self.bucket)?.into(), text(self.key)?.into());
        let task = Arc::new(Task { row: self.row, number: self.number, bucket, key, version });
        let outcome = Outcome {
            succeeded: self.succeeded,
            http_status: self.http_status,
            error_code: text(self.error_code)?.to_owned(),
            message: text(self.message)?.to_owned(),
        };
        Ok(match self.settled {
            true => Entry::Settled { task, attempts: self.attempts, outcome },
            false => Entry::Redriven { task, attempts: self.attempts, outcome },
        })
    }
}

fn text(bytes: &[u8]) -> Result<&str, Unreadable> {
    std::str::from_utf8(bytes).map_err(|_| Unreadable)
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    let length = u32::try_from(text.len()).expect("no text here reaches 4 GiB");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// An entry of format 1, behind its kind.
    fn entry(&mut self, kind: u8) -> Result<Logged<'a>, Unreadable> {
        let row = u64::from_le_bytes(self.array()?);
        let (settled, numbered) = match kind {
            SETTLED => (true, false),
            REDRIVEN => (false, false),
            SETTLED_NUMBERED => (true, true),
            REDRIVEN_NUMBERED => (false, true),
            _ => return Err(Unreadable),
        };
        let number = if numbered { u64::from_le_bytes(self.array()?) } else { row };
        let attempts = u32::from_le_bytes(self.array()?);
        let succeeded = self.byte()? == 1;
        let http_status = u16::from_le_bytes(self.array()?);
        let (bucket, key) = (self.text()?, self.text()?);
        let version = match self.byte()? {
            0 => LoggedVersion::NoColumn,
            1 => LoggedVersion::Missing,
            2 => LoggedVersion::Given(self.text()?),
            _ => return Err(Unreadable),
        };
        let (error_code, message) = (self.text()?, self.text()?);
        Ok(Logged { settled, row, number, attempts, succeeded, http_status, bucket, key, version, error_code, message })
    }

    /// An entry of format 2, behind its kind, but for its key: that takes the place of the one before in `key`.
    fn short_entry(
        &mut self,
        kind: u8,
        row_expected: u64,
        bucket_before: &'a [u8],
        key: &mut Vec<u8>,
    ) -> Result<Logged<'a>, Unreadable> {
        let parts = self.byte()?;
        let is_there = |bit: u8| parts & bit != 0;
        let row = row_expected.wrapping_add(unzigzag(self.varint()?));
        let number = if is_there(part::NUMBER) { self.varint()? } else { row };
        let attempts = match is_there(part::ATTEMPTS) {
            true => u32::try_from(self.varint()?).map_err(|_| Unreadable)?,
            false => USUAL_ATTEMPTS,
        };
        let http_status = if is_there(part::STATUS) { u16::from_le_bytes(self.array()?) } else { USUAL_STATUS };
        let bucket = if is_there(part::BUCKET) { self.short_text()? } else { bucket_before };
        let same = usize::try_from(self.varint()?).ok().filter(|same| *same <= key.len()).ok_or(Unreadable)?;
        let rest = self.short_text()?;
        key.truncate(same);
        key.extend_from_slice(rest);
        let version = match (is_there(part::VERSION), is_there(part::VERSION_MISSING)) {
            (false, false) => LoggedVersion::NoColumn,
            (true, true) => LoggedVersion::Missing,
            (true, false) => LoggedVersion::Given(self.short_text()?),
            (false, true) => return Err(Unreadable),
        };
        let (error_code, message) = match is_there(part::TEXTS) {
            true => (self.short_text()?, self.short_text()?),
            false => (&[][..], &[][..]),
        };
        let (settled, succeeded) = (kind == SHORT_SETTLED, is_there(part::SUCCEEDED));
        let key = &[][..];
        Ok(Logged { settled, row, number, attempts, succeeded, http_status, bucket, key, version, error_code, message })
    }

    fn varint(&mut self) -> Result<u64, Unreadable> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if bits << shift >> shift != bits {
                return Err(Unreadable);
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Unreadable)
    }

    fn short_text(&mut self) -> Result<&'a [u8], Unreadable> {
        let length = usize::try_from(self.varint()?).map_err(|_| Unreadable)?;
        let (text, rest) = self.0.split_at_checked(length).ok_or(Unreadable)?;
        self.0 = rest;
        Ok(text)
    }

    fn byte(&mut self) -> Result<u8, Unreadable> {
        let (byte, rest) = self.0.split_first().ok_or(Unreadable)?;
        self.0 = rest;
        Ok(*byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        let (array, rest) = self.0.split_first_chunk::<N>().ok_or(Unreadable)?;
        self.0 = rest;
        Ok(*array)
    }

    fn text(&mut self) -> Result<&'a [u8], Unreadable> {
        let length = u32::from_le_bytes(self.array()?) as usize;
        let (text, rest) = self.0.split_at_checked(length).ok_or(Unreadable)?;
        self.0 = rest;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entries() -> impl Strategy<Value = Vec<Entry>> {
        let version = prop_oneof![
            Just(VersionId::NoColumn),
            Just(VersionId::Missing),
            ".{1,9}".prop_map(|v| VersionId::Given(v.into()))
        ];
        let outcome = (any::<u16>(), ".{0,9}", ".{0,30}").prop_map(|(http_status, error_code, message)| Outcome {
            succeeded: false,
            http_status,
            error_code,
            message,
        });
        let origin = (any::<u64>(), any::<u64>(), any::<bool>())
            .prop_map(|(row, number, own)| (row, if own { row } else { number }));
        let entry = (origin, any::<u32>(), ".{0,9}", ".{0,30}", version, outcome, any::<bool>(), any::<bool>())
            .prop_map(|((row, number), attempts, bucket, key, version, mut outcome, succeeded, settled)| {
                let task = Arc::new(Task { row, number, bucket: bucket.into(), key: key.into(), version });
                if !settled {
                    return Entry::Redriven { task, attempts, outcome };
                }
                outcome.succeeded = succeeded;
                Entry::Settled { task, attempts, outcome }
            });
        proptest::collection::vec(entry, 0..5)
    }

    #[test]
    fn a_log_from_before_numbers_reads_and_an_ordinary_task_is_still_written_so() {
        let task = Task { row: 7, number: 7, bucket: "b".into(), key: "k".into(), version: VersionId::NoColumn };
        let entry = Entry::Settled { task: Arc::new(task), attempts: 1, outcome: Outcome::succeeded("m") };
        let mut written = Vec::new();
        entry.encode(&mut written);
        let old = b"\x01\x07\0\0\0\0\0\0\0\x01\0\0\0\x01\xc8\0\x01\0\0\0b\x01\0\0\0k\0\0\0\0\0\x01\0\0\0m";
        assert_eq!(written, old);
        Entry::decode_all(old, |back| assert_eq!(back, entry)).unwrap();
    }

    #[test]
    fn what_an_entry_shares_with_the_one_before_and_with_most_is_left_out() {
        let task = |row: u64, key: &str| Task {
            row,
            number: row,
            bucket: "bucket".into(),
            key: key.into(),
            version: VersionId::NoColumn,
        };
        let mut kept = Entries::default();
        kept.settle(&task(5, "data/part-0005"), 1, &Outcome::succeeded(""));
        kept.settle(&task(6, "data/part-0006"), 1, &Outcome::succeeded("m"));
        kept.settle(&task(4, "data/part-0004"), 2, &Outcome::failed(500, "C", ""));
        let first = b"\x05\x11\x0a\x06bucket\x00\x0edata/part-0005";
        let second = b"\x05\x81\x00\x0d\x016\x00\x01m";
        let third = b"\x05\x8c\x05\x02\xf4\x01\x0d\x014\x01C\x00";
        assert_eq!(kept.payload(), [&first[..], second, third].concat());
    }

    #[test]
    fn numbers_of_every_length_are_read_back_and_longer_ones_refused() {
        for number in [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, u64::from(u32::MAX), u64::MAX >> 1, u64::MAX] {
            let mut out = Vec::new();
            push_varint(&mut out, number);
            assert_eq!((Reader(&out).varint(), unzigzag(zigzag(number))), (Ok(number), number));
            for cut in 0..out.len() {
                assert_eq!(Reader(&out[..cut]).varint(), Err(Unreadable));
            }
        }
        for too_long in [&[0xff; 10][..], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]] {
            assert_eq!(Reader(too_long).varint(), Err(Unreadable));
        }
        // More of the key before than it has; and the mark of a version that is missing without a column.
        for bad in [&b"\x05\x00\x00\x01\x00"[..], b"\x05\x40\x00\x00\x00"] {
            assert_eq!(Entry::decode_all(bad, |_| {}), Err(Unreadable));
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(entries in entries()) {
            let mut payload = Vec::new();
            entries.iter().for_each(|e| e.encode(&mut payload));
            let mut back = Vec::new();
            Entry::decode_all(&payload, |e| back.push(e)).unwrap();
            prop_assert_eq!(&back, &entries);
            // And the same, kept as it will be written.
            let kept: Entries = entries.iter().cloned().collect();
            let settled = |wanted| {
                let of = |e: &&Entry| matches!(e, Entry::Settled { outcome, .. } if outcome.succeeded == wanted);
                entries.iter().filter(of).count() as u64
            };
            prop_assert_eq!((kept.count(), kept.settled()), (entries.len(), (settled(true), settled(false))));
            // What was counted with them stands behind them, and is none of them.
            let mut counted = Counted { active_ms: 70_000, ..Counted::default() };
            counted.figures.settled(Some(5));
            let mut with = kept.clone();
            with.count_in(&counted);
            let mut read = Counted::default();
            back.clear();
            Entry::decode_all(with.payload(), |e| back.push(e)).unwrap();
            Logged::read_with_counted(with.payload(), |_| Ok(()), |bytes| read.take(bytes)).unwrap();
            prop_assert_eq!(&back, &entries);
            prop_assert_eq!((&read, with.count(), with.settled()), (&counted, kept.count(), kept.settled()));
            prop_assert_eq!((kept.counted(), with.counted().is_some()), (None, true));
            for cut in kept.payload().len() + 1..with.payload().len() {
                let read = Entry::decode_all(&with.payload()[..cut], drop);
                prop_assert_eq!(read, Err(Unreadable));
            }
            prop_assert_eq!(with.emptied(), Entries::default());
            prop_assert!(kept.payload().len() <= payload.len());
            back.clear();
            Entry::decode_all(kept.payload(), |e| back.push(e)).unwrap();
            prop_assert_eq!(&back, &entries);
            // Behind entries of format 1, of which it knows nothing.
            payload.extend_from_slice(kept.payload());
            back.clear();
            Entry::decode_all(&payload, |e| back.push(e)).unwrap();
            prop_assert_eq!((&back[..entries.len()], &back[entries.len()..]), (&entries[..], &entries[..]));
            // What was kept before leaves nothing but its memory.
            let first = kept.payload().to_vec();
            let mut again = kept.emptied();
            prop_assert_eq!(&again, &Entries::default());
            for entry in &entries {
                match entry {
                    Entry::Settled { task, attempts, outcome } => again.settle(task, *attempts, outcome),
                    Entry::Redriven { task, attempts, outcome } => again.redrive(task, *attempts, outcome),
                }
            }
            prop_assert_eq!(again.payload(), &first[..]);
        }

        #[test]
        fn a_payload_that_was_cut_off_within_an_entry_is_refused(
            entries in entries(),
            cut in any::<proptest::sample::Index>(),
        ) {
            let kept: Entries = entries.iter().cloned().collect();
            let ends: Vec<usize> = (0..=entries.len())
                .map(|n| entries[..n].iter().cloned().collect::<Entries>().payload().len())
                .collect();
            let at = cut.index(kept.payload().len() + 1);
            let mut back = Vec::new();
            let read = Entry::decode_all(&kept.payload()[..at], |e| back.push(e));
            prop_assert_eq!(read.is_ok(), ends.contains(&at));
            prop_assert_eq!(&back[..], &entries[..back.len()]);
        }

        #[test]
        fn garbage_is_refused_and_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Entry::decode_all(&bytes, |_| {});
        }
    }
}
