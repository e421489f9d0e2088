//! When failures end a job.

/// A job fails once enough tasks have run and too many of them have failed. Source: S3 Batch spec 6 (F-1 to F-4).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    /// Tasks with a final result before the ratio is looked at. AWS: 1,000.
    pub tasks_min: u64,
    /// Failed over run, 0 to 1; a job fails above it, not at it. AWS: 0.5.
    pub ratio: f64,
}

impl Default for Threshold {
    fn default() -> Self {
        Self { tasks_min: 1_000, ratio: 0.5 }
    }
}

impl Threshold {
    /// Whether a job with these final results has failed. Tasks waiting to be redriven count in neither.
    pub fn passed(&self, succeeded: u64, failed: u64) -> bool {
        let run = succeeded.saturating_add(failed);
        // f64 is exact up to 2^53 tasks, far above the 20 billion that a manifest may hold.
        run >= self.tasks_min && failed as f64 > self.ratio * run as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_edges_hold() {
        let t = Threshold::default();
        assert!(!t.passed(0, 999), "999 tasks, all failed: Complete");
        assert!(t.passed(499, 501));
        assert!(!t.passed(500, 500), "exactly half is fine");
        assert!(!t.passed(1_000, 1_000));
        assert!(t.passed(1_000, 1_001), "the check applies late as well");
    }
}
