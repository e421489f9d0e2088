//! Which rows a job tries first: drawn at random, and the same again after every crash.

use roaring::RoaringTreemap;
use sha1::{Digest, Sha1};

use crate::random::Random;

/// Rows in a sample, at most. They are kept as a set while the sample runs: some 20 MB at worst.
pub const SAMPLE_ROWS_MAX: u64 = 1_000_000;

/// Draws `wanted` of `rows_total` rows, evenly, from a seed that is the job's own; `None` where that is every row.
///
/// The same job always draws the same rows, so the draw need not be stored. How it is made must therefore never change.
/// Time and memory depend on `wanted` alone (Floyd's algorithm). Source: decision 0013.
pub fn draw(job_id: &str, rows_total: u64, wanted: u64) -> Option<RoaringTreemap> {
    if wanted >= rows_total {
        return None;
    }
    let digest = Sha1::new().chain_update("sample/").chain_update(job_id).finalize();
    let (seed, _) = digest.split_first_chunk::<8>()?;
    let mut random = Random::seeded(u64::from_be_bytes(*seed));
    let mut drawn = RoaringTreemap::new();
    for last in rows_total - wanted..rows_total {
        let row = random.below(last + 1);
        if !drawn.insert(row) {
            drawn.insert(last);
        }
    }
    Some(drawn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_draws_as_many_rows_as_it_wants_and_always_the_same() {
        let drawn = draw("job", 200, 5).unwrap();
        assert_eq!(drawn.len(), 5);
        assert!(drawn.iter().all(|row| row < 200));
        // A server of another version must go on with the same rows: a draw is not stored.
        assert_eq!(drawn.iter().collect::<Vec<_>>(), [21, 23, 26, 85, 173]);
        assert_ne!(draw("other", 200, 5).unwrap(), drawn);
        assert_eq!(draw("job", 20_000_000_000, 1_000).unwrap().len(), 1_000);
    }

    #[test]
    fn a_sample_of_all_rows_is_none() {
        assert_eq!((draw("job", 5, 5), draw("job", 5, 6), draw("job", 0, 1)), (None, None, None));
        assert_eq!(draw("job", 6, 5).unwrap().len(), 5);
    }

    #[test]
    fn every_row_is_drawn_about_as_often_as_any_other() {
        let mut times = [0_u32; 10];
        for job in 0..10_000 {
            draw(&job.to_string(), 10, 3).unwrap().iter().for_each(|row| times[row as usize] += 1);
        }
        assert!(times.iter().all(|n| (2_800..3_200).contains(n)), "{times:?}");
    }
}
