//! What a job has counted beside its results, as it lies in the frames of its result log: so that figures and the time in
//! Active are always those of the results that they stand beside, whatever crashes (decision 0042).
//!
//! Numbers are of variable length: seven bits a byte, the lowest first, the highest bit set where another byte follows.
//!
//! ```text
//! milliseconds in Active | calls: how many counts, and these | answers: the same | retries
//!   | histograms: how many, and of each: sum | longest | how many buckets, and of each: how far behind the one before, count
//! ```
//!
//! What a later version adds stands behind it, or is another count or histogram: an earlier one passes over it.

use crate::figures::{Call, Figures};
use crate::histogram::Histogram;
use crate::record::Unreadable;
use crate::task::ResultCode;

/// Figures, and the time in Active of the same moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted {
    /// Milliseconds in Active, all of the job's turns until then.
    pub active_ms: u64,
    pub figures: Figures,
}

impl Counted {
    /// Appends it to `out`: some thirty bytes after a single task, some hundreds after thousands.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        push(out, self.active_ms);
        push(out, Call::ALL.len() as u64);
        Call::ALL.into_iter().for_each(|call| push(out, self.figures.calls(call)));
        push(out, ResultCode::ALL.len() as u64);
        ResultCode::ALL.into_iter().for_each(|code| push(out, self.figures.answers(code)));
        push(out, self.figures.retries);
        let histograms = self.figures.histograms();
        push(out, histograms.len() as u64);
        for times in histograms {
            push(out, times.sum_us());
            push(out, times.max_us());
            push(out, times.filled().count() as u64);
            let mut next = 0;
            for (bucket, count) in times.filled() {
                push(out, (bucket - next) as u64);
                push(out, count);
                next = bucket + 1;
            }
        }
    }

    /// Adds what [`Counted::encode`] wrote: figures add up, and of the times in Active the longer one is the later one.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), Unreadable> {
        let mut numbers = Numbers(bytes);
        self.active_ms = self.active_ms.max(numbers.next()?);
        for place in 0..numbers.next()? {
            let count = numbers.next()?;
            if let Some(call) = known(&Call::ALL, place) {
                self.figures.add_calls(call, count);
            }
        }
        for place in 0..numbers.next()? {
            let count = numbers.next()?;
            if let Some(code) = known(&ResultCode::ALL, place) {
                self.figures.add_answers(code, count);
            }
        }
        self.figures.retries = self.figures.retries.saturating_add(numbers.next()?);
        let histograms = numbers.next()?;
        let mut known = self.figures.histograms_mut().into_iter();
        for _ in 0..histograms {
            numbers.histogram(known.next())?;
        }
        Ok(())
    }
}

fn known<T: Copy>(all: &[T], place: u64) -> Option<T> {
    usize::try_from(place).ok().and_then(|place| all.get(place)).copied()
}

fn push(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    fn next(&mut self) -> Result<u64, Unreadable> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(Unreadable)?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7F);
            if (bits << shift) >> shift != bits {
                return Err(Unreadable);
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Unreadable)
    }

    /// Into `times`, or nowhere.
    fn histogram(&mut self, times: Option<&mut Histogram>) -> Result<(), Unreadable> {
        let (sum_us, max_us, filled) = (self.next()?, self.next()?, self.next()?);
        let (mut next, mut unread) = (0_usize, None);
        let buckets = (0..filled).map_while(|_| {
            let mut read = || {
                let gap = usize::try_from(self.next()?).map_err(|_| Unreadable)?;
                let bucket = next.checked_add(gap).ok_or(Unreadable)?;
                next = bucket.checked_add(1).ok_or(Unreadable)?;
                Ok((bucket, self.next()?))
            };
            read().map_err(|error| unread = Some(error)).ok()
        });
        match times {
            Some(times) => times.merge_sparse(buckets, sum_us, max_us),
            None => buckets.for_each(drop),
        }
        unread.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(counted: &Counted) -> Vec<u8> {
        let mut bytes = Vec::new();
        counted.encode(&mut bytes);
        bytes
    }

    fn counted(active_ms: u64, times: &[u64]) -> Counted {
        let mut figures = Figures::default();
        for (place, micros) in times.iter().enumerate() {
            figures.answered(Call::ALL[place % Call::ALL.len()], Some(*micros));
            figures.add_answers(ResultCode::ALL[place % ResultCode::ALL.len()], 1);
            figures.retries += micros % 2;
            figures.settled(Some(micros / 2));
            figures.cold_starts.add(micros / 3);
        }
        Counted { active_ms, figures }
    }

    #[test]
    fn what_is_counted_with_one_task_takes_few_bytes() {
        let mut one = Counted { active_ms: 3_600_000, ..Counted::default() };
        one.figures.answered(Call::Succeeded, Some(160_000));
        one.figures.add_answers(ResultCode::Succeeded, 1);
        one.figures.settled(Some(161_000));
        assert!(encoded(&one).len() < 50, "{}", encoded(&one).len());
    }

    #[test]
    fn what_a_later_version_counts_besides_is_passed_over() {
        // One more call, answer and histogram, and a number behind.
        let mut later = vec![9, 8];
        later.extend([1; 8]);
        later.extend([4, 2, 2, 2, 2, 7, 4]);
        for _ in 0..4 {
            later.extend([30, 20, 2, 10, 1, 9, 1]);
        }
        later.push(77);
        let mut read = Counted::default();
        read.take(&later).unwrap();
        assert!(Call::ALL.into_iter().all(|call| read.figures.calls(call) == 1));
        assert!(ResultCode::ALL.into_iter().all(|code| read.figures.answers(code) == 2));
        assert_eq!((read.active_ms, read.figures.retries), (9, 7));
        for times in read.figures.histograms() {
            assert_eq!((times.sum_us(), times.max_us()), (30, 20));
            assert!(times.filled().eq([(10, 1), (20, 1)]));
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_and_adds_up(
            (first_ms, second_ms) in any::<(u64, u64)>(),
            first in proptest::collection::vec(0_u64..10_000_000_000, 0..40),
            second in proptest::collection::vec(0_u64..10_000_000_000, 0..40),
        ) {
            let (first, second) = (counted(first_ms, &first), counted(second_ms, &second));
            let mut read = Counted::default();
            read.take(&encoded(&first)).unwrap();
            prop_assert_eq!(&read, &first);
            read.take(&encoded(&second)).unwrap();
            let mut both = first.figures.clone();
            both.merge(&second.figures);
            prop_assert_eq!(read, Counted { active_ms: first_ms.max(second_ms), figures: both });
            let bytes = encoded(&second);
            for cut in 0..bytes.len() {
                prop_assert!(Counted::default().take(&bytes[..cut]).is_err(), "cut at {}", cut);
            }
        }

        #[test]
        fn garbage_is_refused_and_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Counted::default().take(&bytes);
        }
    }
}
