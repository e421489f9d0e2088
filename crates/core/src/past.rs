//! What the result log says about a job's past: which rows have their final result, what waits to be tried again, and what
//! was counted.
//!
//! It is read from the log's start, or from a checkpoint on: the same, written down when the log had grown so far.

use std::collections::BTreeMap;
use std::sync::Arc;

use roaring::RoaringTreemap;

use crate::counted::Counted;
use crate::record::{Entry, Logged, Unreadable};
use crate::task::{Outcome, Task};

/// Rows that have their final result. They settle nearly in order, so nearly all of them are one number.
///
/// Memory: two bytes for each row out of order, and less where they lie close; some hundred bytes for a job whose rows
/// settle in order, however many there are.
#[derive(Debug, Clone, Default)]
struct Settled {
    /// Every row below it.
    below: u64,
    /// And these, none of which is.
    others: RoaringTreemap,
    /// Rows that came since `others` was last made small.
    loose: u32,
}

/// The set is made small each time so many rows have come: a pass over as many, once in as many.
const LOOSE_MAX: u32 = 16_384;

impl Settled {
    /// `false` if it was there.
    fn insert(&mut self, row: u64) -> bool {
        if row == self.below && !self.others.contains(row) {
            self.below += 1;
            return true;
        }
        if row < self.below || !self.others.insert(row) {
            return false;
        }
        self.loose += 1;
        if self.loose == LOOSE_MAX {
            self.shrink();
        }
        true
    }

    fn contains(&self, row: u64) -> bool {
        row < self.below || self.others.contains(row)
    }

    /// The first row that is not there.
    fn first_missing(&self) -> u64 {
        let mut row = self.below;
        for settled in &self.others {
            if settled != row {
                break;
            }
            row += 1;
        }
        row
    }

    fn shrink(&mut self) {
        self.loose = 0;
        self.below = self.first_missing();
        self.others.remove_range(..self.below);
        // Long ranges behind a row that is late become two numbers each.
        self.others.optimize();
    }

    fn len(&self) -> u64 {
        self.below + self.others.len()
    }
}

/// See the module. Empty for a job that has not run yet.
#[derive(Debug, Clone, Default)]
pub struct Past {
    settled: Settled,
    /// By row: what waited for a redrive, with the attempts used up and the last failure.
    redriven: BTreeMap<u64, (Arc<Task>, u32, Outcome)>,
    succeeded: u64,
    failed: u64,
    counted: Counted,
}

/// Why no past can be made of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Misread {
    /// The log is damaged, or a bug of ours wrote it, and no report may be made from it.
    #[error("row {0} is settled twice")]
    Twice(u64),
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
}

/// Starts what [`Past::encode`] writes.
const FORMAT: u8 = 2;
/// The same without what was counted: of a log that has nothing of it, or of its first part.
const FORMAT_UNCOUNTED: u8 = 1;

impl Past {
    /// Takes one entry of the log, in the order it was written. `Err` if a row is settled twice.
    pub fn add(&mut self, entry: &Entry) -> Result<(), u64> {
        match entry {
            Entry::Settled { task, outcome, .. } => self.settle(task.row, outcome.succeeded),
            Entry::Redriven { task, attempts, outcome } => {
                self.redrive(Arc::clone(task), *attempts, outcome.clone());
                Ok(())
            }
        }
    }

    /// Takes all entries of one frame of the log.
    pub fn add_frame(&mut self, payload: &[u8]) -> Result<(), Misread> {
        let mut counted = std::mem::take(&mut self.counted);
        let added = Logged::read_with_counted(
            payload,
            |logged| {
                if logged.settled {
                    return self.settle(logged.row, logged.succeeded).map_err(Misread::Twice);
                }
                if let Entry::Redriven { task, attempts, outcome } = logged.to_entry()? {
                    self.redrive(task, attempts, outcome);
                }
                Ok(())
            },
            |bytes| Ok(counted.take(bytes)?),
        );
        self.counted = counted;
        added
    }

    /// Takes a final result. `Err` if its row has one.
    pub fn settle(&mut self, row: u64, succeeded: bool) -> Result<(), u64> {
        if !self.settled.insert(row) {
            return Err(row);
        }
        self.redriven.remove(&row);
        *(if succeeded { &mut self.succeeded } else { &mut self.failed }) += 1;
        Ok(())
    }

    fn redrive(&mut self, task: Arc<Task>, attempts: u32, outcome: Outcome) {
        if !self.settled.contains(task.row) {
            self.redriven.insert(task.row, (task, attempts, outcome));
        }
    }

    pub fn succeeded(&self) -> u64 {
        self.succeeded
    }

    pub fn failed(&self) -> u64 {
        self.failed
    }

    /// What was counted with all of it.
    pub fn counted(&self) -> &Counted {
        &self.counted
    }

    /// The first row without a final result: where reading begins again.
    pub fn first_open_row(&self) -> u64 {
        self.settled.first_missing()
    }

    pub fn is_settled(&self, row: u64) -> bool {
        self.settled.contains(row)
    }

    /// Those of `rows` that have no final result.
    pub fn open_rows_of(&self, mut rows: RoaringTreemap) -> RoaringTreemap {
        rows.remove_range(..self.settled.below);
        rows - &self.settled.others
    }

    /// What a row that waited for a redrive has behind it: the attempts used up, and the last failure.
    pub(crate) fn take_redriven(&mut self, row: u64) -> Option<(u32, Outcome)> {
        self.redriven.remove(&row).map(|(_, attempts, last)| (attempts, last))
    }

    pub(crate) fn take_all_redriven(&mut self) -> impl Iterator<Item = (Arc<Task>, u32, Outcome)> + use<> {
        std::mem::take(&mut self.redriven).into_values()
    }

    /// Writes it down for a checkpoint, integers little-endian:
    ///
    /// ```text
    /// format u8 | succeeded u64 | failed u64 | every row below u64 | and these: length u64, a Roaring treemap
    ///           | what was counted: length u32, as `Counted` has it | what waits for a redrive, as entries of the log
    /// ```
    ///
    /// What it has with format 1, of earlier versions, ends without what was counted.
    pub fn encode(&mut self) -> Vec<u8> {
        self.settled.shrink();
        let mut out = vec![FORMAT];
        let rows = self.settled.others.serialized_size();
        for number in [self.succeeded, self.failed, self.settled.below, rows as u64] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        self.settled.others.serialize_into(&mut out).expect("a vector takes all that is written to it");
        let mut counted = Vec::new();
        self.counted.encode(&mut counted);
        out.extend_from_slice(&u32::try_from(counted.len()).expect("histograms are bounded").to_le_bytes());
        out.extend_from_slice(&counted);
        for (task, attempts, outcome) in self.redriven.values() {
            let (task, attempts, outcome) = (Arc::clone(task), *attempts, outcome.clone());
            Entry::Redriven { task, attempts, outcome }.encode(&mut out);
        }
        out
    }

    /// Reads what [`Past::encode`] has written. `None` if it is not that, or does not agree with itself.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (format @ (FORMAT | FORMAT_UNCOUNTED), bytes) =
            bytes.split_first().map(|(format, rest)| (*format, rest))?
        else {
            return None;
        };
        let (numbers, bytes) = bytes.split_first_chunk::<32>()?;
        let number = |at: usize| numbers[8 * at..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        let (succeeded, failed, below) = (number(0)?, number(1)?, number(2)?);
        let (rows, mut entries) = bytes.split_at_checked(usize::try_from(number(3)?).ok()?)?;
        let mut counted = Counted::default();
        if format == FORMAT {
            let (length, rest) = entries.split_first_chunk()?;
            let (bytes, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            counted.take(bytes).ok()?;
            entries = rest;
        }
        let others = RoaringTreemap::deserialize_from(rows).ok()?;
        let mut past =
            Self { settled: Settled { below, others, loose: 0 }, succeeded, failed, counted, ..Self::default() };
        let above = past.settled.others.min().is_none_or(|row| row > below);
        if !above || past.settled.len() != succeeded.checked_add(failed)? {
            return None;
        }
        let mut fits = true;
        Entry::decode_all(entries, |entry| match entry {
            Entry::Redriven { task, attempts, outcome } if !past.settled.contains(task.row) => {
                past.redrive(task, attempts, outcome);
            }
            _ => fits = false,
        })
        .ok()?;
        fits.then_some(past)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::Entries;
    use crate::task::VersionId;

    fn entry(row: u64, settled: bool, succeeded: bool) -> Entry {
        let task =
            Arc::new(Task { row, number: row, bucket: "b".into(), key: "k".into(), version: VersionId::NoColumn });
        let outcome = match succeeded {
            true => Outcome::succeeded("yes"),
            false => Outcome::failed(200, "TemporaryFailure", "no"),
        };
        match settled {
            true => Entry::Settled { task, attempts: 1, outcome },
            false => Entry::Redriven { task, attempts: 2, outcome },
        }
    }

    fn settled(rows: impl IntoIterator<Item = u64>) -> Past {
        let mut past = Past::default();
        rows.into_iter().for_each(|row| past.add(&entry(row, true, row % 3 > 0)).unwrap());
        past
    }

    #[test]
    fn a_million_rows_that_settle_nearly_in_order_take_no_memory_to_speak_of() {
        // Each pair the wrong way round, and the first row last of all.
        let mut past = settled((1..500_000).map(|pair| 2 * pair).flat_map(|row| [row + 1, row]));
        assert!(past.settled.others.serialized_size() < 20_000, "{}", past.settled.others.serialized_size());
        assert_eq!((past.first_open_row(), past.succeeded() + past.failed()), (0, 999_998));
        assert!(past.encode().len() < 4_000, "{}", past.encode().len());
        past.add(&entry(0, true, true)).unwrap();
        assert_eq!(past.first_open_row(), 1);
        past.add(&entry(1, true, true)).unwrap();
        assert_eq!((past.first_open_row(), past.encode().len()), (1_000_000, UNCOUNTED));
        assert_eq!((past.add(&entry(7, true, true)), past.settled.others.len()), (Err(7), 0));
    }

    /// Bytes of a past of which all rows are one number, and nothing was counted.
    const UNCOUNTED: usize = 1 + 32 + 8 + 4 + 24;

    #[test]
    fn what_was_counted_is_of_the_frames_that_were_taken_and_goes_on_from_a_checkpoint_of_an_earlier_version() {
        let frame = |row, active_ms, micros| {
            let mut entries: Entries = [entry(row, true, true)].into_iter().collect();
            let mut counted = Counted { active_ms, ..Counted::default() };
            counted.figures.settled(Some(micros));
            entries.count_in(&counted);
            entries
        };
        let mut past = settled([0]);
        assert_eq!(past.counted(), &Counted::default(), "of a log of an earlier version");
        let new = past.encode();
        let mut old = new[..1 + 32 + 8].to_vec();
        assert_eq!((old[0], new.len()), (FORMAT, UNCOUNTED));
        old[0] = FORMAT_UNCOUNTED;
        for kept in [new, old] {
            let mut past = Past::decode(&kept).unwrap();
            past.add_frame(frame(1, 300, 40).payload()).unwrap();
            past.add_frame(frame(2, 900, 50).payload()).unwrap();
            for past in [Past::decode(&past.encode()).unwrap(), past] {
                let Counted { active_ms, figures } = past.counted();
                assert_eq!((*active_ms, figures.tasks.count(), figures.tasks.sum_us()), (900, 2, 90));
                assert_eq!(past.first_open_row(), 3);
            }
        }
    }

    #[test]
    fn a_frame_is_taken_as_its_entries_are() {
        let entries = [entry(4, false, false), entry(0, true, true), entry(5, false, false), entry(4, true, false)];
        let mut payload = Vec::new();
        entries.iter().for_each(|entry| entry.encode(&mut payload));
        let (mut by_frame, mut by_entry) = (Past::default(), Past::default());
        by_frame.add_frame(&payload).unwrap();
        entries.iter().for_each(|entry| by_entry.add(entry).unwrap());
        assert_eq!((by_frame.redriven.len(), by_frame.succeeded, by_frame.failed), (1, 1, 1));
        assert_eq!(by_frame.encode(), by_entry.encode());
        assert_eq!(by_frame.add_frame(&payload), Err(Misread::Twice(0)));
        assert_eq!(by_frame.add_frame(b"\x09"), Err(Misread::Unreadable(Unreadable)));
    }

    #[test]
    fn a_past_that_does_not_agree_with_itself_is_none() {
        let good = settled([0, 1, 5]).encode();
        assert!(Past::decode(&good).is_some());
        for (at, what) in [(0, "another format"), (1, "more succeeded"), (9, "more failed"), (17, "more rows")] {
            let mut bad = good.clone();
            bad[at] += 1;
            assert!(Past::decode(&bad).is_none(), "{what}");
        }
        for cut in 0..good.len() {
            assert!(Past::decode(&good[..cut]).is_none(), "cut at {cut}");
        }
        let with = |entry: Entry| {
            let mut bytes = good.clone();
            entry.encode(&mut bytes);
            Past::decode(&bytes)
        };
        assert!(with(entry(3, false, false)).is_some());
        assert!(with(entry(5, false, false)).is_none(), "what is settled does not wait");
        assert!(with(entry(3, true, true)).is_none(), "results are none of what waits");
    }

    proptest! {
        #[test]
        fn what_was_written_down_goes_on_as_if_it_had_not_been(
            rows in proptest::collection::vec((0_u64..200_000, any::<bool>(), any::<bool>()), 0..300),
            cut in 0_usize..300,
        ) {
            let (mut whole, mut kept, mut naive) = (Past::default(), Past::default(), std::collections::BTreeSet::new());
            for (at, (row, is_settled, succeeded)) in rows.iter().enumerate() {
                // Half of them at the start, in order, as most are.
                let row = if at % 2 == 0 { at as u64 / 2 } else { *row };
                let entry = entry(row, *is_settled, *succeeded);
                let added = whole.add(&entry);
                prop_assert_eq!(added.is_ok(), !is_settled || naive.insert(row));
                prop_assert_eq!(kept.add(&entry), added);
                if at == cut {
                    kept = Past::decode(&kept.encode()).unwrap();
                }
            }
            let first_open = (0..).find(|row| !naive.contains(row)).unwrap();
            prop_assert_eq!(kept.first_open_row(), first_open);
            prop_assert_eq!(kept.succeeded() + kept.failed(), naive.len() as u64);
            prop_assert_eq!((kept.succeeded(), kept.failed()), (whole.succeeded(), whole.failed()));
            let asked: RoaringTreemap = naive.iter().flat_map(|row| [*row, row + 1]).collect();
            let open: Vec<u64> = kept.open_rows_of(asked.clone()).iter().collect();
            let wanted: Vec<u64> = asked.iter().filter(|row| !naive.contains(row)).collect();
            prop_assert_eq!(open, wanted);
            prop_assert_eq!(kept.redriven, whole.redriven);
        }
    }
}
