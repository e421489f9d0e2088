//! How results lie in the payload of a result-log frame: entries back to back, integers little-endian.
//!
//! An entry carries the row's own columns, so that the completion report needs nothing but the log. Format 1:
//!
//! ```text
//! entry: kind u8 (1 settled, 2 redriven; 3 and 4 the same with a number) | row u64 [| number u64]
//!        | attempts u32 | succeeded u8 | status u16
//!        | bucket | key | version tag u8 (0 no column, 1 missing, 2 given) [version] | code | message
//! text:  length u32 | UTF-8
//! ```
//!
//! Behind the entries of a frame stands what was counted with them and since the frame before: kind u8 5 | length u32 |
//! as [`Counted`] has it. Frames of earlier versions have none.
//!
//! The number is the task's own (see [`Task::number`]) and stands only where it is not the row.

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
const COUNTED: u8 = 5;

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
    count: usize,
    succeeded: u64,
    failed: u64,
    /// Where in the payload what was counted with them lies, if it is there.
    counted_from: Option<usize>,
}

impl Entries {
    /// Adds [`Entry::Settled`] without making one.
    pub fn settle(&mut self, task: &Task, attempts: u32, outcome: &Outcome) {
        push(&mut self.payload, [SETTLED, SETTLED_NUMBERED], task, attempts, outcome);
        self.count += 1;
        *(if outcome.succeeded { &mut self.succeeded } else { &mut self.failed }) += 1;
    }

    /// Adds [`Entry::Redriven`] without making one.
    pub fn redrive(&mut self, task: &Task, attempts: u32, outcome: &Outcome) {
        push(&mut self.payload, [REDRIVEN, REDRIVEN_NUMBERED], task, attempts, outcome);
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
        Self { payload: self.payload, ..Self::default() }
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

/// An entry as it lies in a payload, without a copy: what a pass over ten million of them can afford.
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

impl<'a> Logged<'a> {
    /// Reads a whole payload and hands each entry to `each`, in order, until one is an error. Texts are not looked into.
    pub fn read_all<E: From<Unreadable>>(
        payload: &'a [u8],
        each: impl FnMut(Logged<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        Self::read_with_counted(payload, each, |_| Ok(()))
    }

    /// As [`Logged::read_all`], and hands what was counted with the entries to `counted`: [`Counted::take`] reads it.
    pub fn read_with_counted<E: From<Unreadable>>(
        payload: &'a [u8],
        mut each: impl FnMut(Logged<'a>) -> Result<(), E>,
        mut counted: impl FnMut(&'a [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut reader = Reader(payload);
        while let Some(kind) = reader.0.first() {
            if *kind == COUNTED {
                reader.byte()?;
                counted(reader.text()?)?;
            } else {
                each(reader.entry()?)?;
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
    fn entry(&mut self) -> Result<Logged<'a>, Unreadable> {
        let kind = self.byte()?;
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
            prop_assert_eq!((kept.payload(), kept.count()), (&payload[..], entries.len()));
            prop_assert_eq!(kept.settled(), (settled(true), settled(false)));
            // What was counted with them stands behind them, and is none of them.
            let mut counted = Counted { active_ms: 70_000, ..Counted::default() };
            counted.figures.settled(Some(5));
            let mut with = kept.clone();
            with.count_in(&counted);
            let (mut read, mut back) = (Counted::default(), Vec::new());
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
            prop_assert_eq!(kept.emptied(), Entries::default());
        }

        #[test]
        fn garbage_is_refused_and_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Entry::decode_all(&bytes, |_| {});
        }
    }
}
