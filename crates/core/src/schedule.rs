//! Which jobs run: priority, pre-emption, and who waits.

use crate::job::Status;

/// What the scheduler knows of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub job_id: String,
    pub status: Status,
    pub priority: u32,
    /// Milliseconds since the epoch, as stored; orders jobs of equal priority.
    pub created: i64,
}

/// What is to be done about a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Ready or Paused: give it a slot.
    Activate(String),
    /// Active: take its slot for a job of higher priority.
    Preempt(String),
}

/// Hands out the active slots of one account.
///
/// A free slot goes to the highest priority, a Paused job before a Ready one, older before newer. Where none is free,
/// a strictly higher priority takes the slot of the lowest Active one (the newest among equals); its slot is free only
/// once it has drained, so the newcomer is activated by a later call. Source: S3 Batch spec 8.2 (C-61), our choice.
pub fn schedule(jobs: &[Candidate], active_slots: usize) -> Vec<Decision> {
    let mut waiting: Vec<&Candidate> =
        jobs.iter().filter(|j| matches!(j.status, Status::Ready | Status::Paused)).collect();
    waiting.sort_by_key(|j| (std::cmp::Reverse(j.priority), j.status == Status::Ready, j.created, &j.job_id));
    let mut active: Vec<&Candidate> = jobs.iter().filter(|j| j.status == Status::Active).collect();
    active.sort_by_key(|j| (j.priority, std::cmp::Reverse(j.created), &j.job_id));
    let pausing = jobs.iter().filter(|j| j.status == Status::Pausing).count();

    let mut free = active_slots.saturating_sub(active.len() + pausing);
    // Slots already on their way to be free are spoken for by the first that wait for them.
    let mut promised = pausing;
    let mut victims = active.into_iter();
    let mut decisions = Vec::new();
    for job in waiting {
        if free > 0 {
            free -= 1;
            decisions.push(Decision::Activate(job.job_id.clone()));
        } else if promised > 0 {
            promised -= 1;
        } else {
            match victims.next() {
                Some(victim) if victim.priority < job.priority => {
                    decisions.push(Decision::Preempt(victim.job_id.clone()));
                }
                _ => break,
            }
        }
    }
    decisions
}

#[cfg(test)]
mod tests {
    use super::*;
    use Decision::{Activate, Preempt};
    use Status::{Active, Paused, Pausing, Ready, Suspended};

    fn job(id: &str, status: Status, priority: u32, created: i64) -> Candidate {
        Candidate { job_id: id.into(), status, priority, created }
    }

    #[test]
    fn free_slots_go_by_priority_then_paused_then_age() {
        let jobs = [
            job("late", Ready, 5, 9),
            job("early", Ready, 5, 1),
            job("paused", Paused, 5, 5),
            job("high", Ready, 9, 99),
            job("waiting", Suspended, 100, 0),
        ];
        let order = ["high", "paused", "early", "late"].map(|j| Activate(j.into()));
        assert_eq!(schedule(&jobs, 6), order);
        assert_eq!(schedule(&jobs, 2), order[..2]);
    }

    #[test]
    fn a_strictly_higher_priority_takes_the_lowest_slot_and_waits_until_it_is_free() {
        let jobs = [job("low-old", Active, 1, 1), job("low-new", Active, 1, 2), job("high", Ready, 2, 3)];
        assert_eq!(schedule(&jobs, 2), [Preempt("low-new".into())]);
        let draining = [job("low-old", Active, 1, 1), job("low-new", Pausing, 1, 2), job("high", Ready, 2, 3)];
        assert_eq!(schedule(&draining, 2), []);
        let drained = [job("low-old", Active, 1, 1), job("low-new", Paused, 1, 2), job("high", Ready, 2, 3)];
        assert_eq!(schedule(&drained, 2), [Activate("high".into())]);
    }

    #[test]
    fn an_equal_priority_never_preempts() {
        let jobs = [job("a", Active, 7, 1), job("b", Ready, 7, 0)];
        assert_eq!(schedule(&jobs, 1), []);
    }
}
