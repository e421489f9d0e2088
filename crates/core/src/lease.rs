//! Leases: which server has a duty, a job or the events of a sink, and whose word on it still counts.
//!
//! A server takes a duty before it works on it, and carries the lease's epoch in everything it writes. Another may take
//! the duty once the lease has been given back or has run out, and gets a greater epoch; from then on what the first one
//! writes is refused, however late it wakes. So a lease that runs out keeps nobody from being right: it only decides
//! when somebody else may go on. Source: decision 0026.
//!
//! Plain values: the ledger keeps one [`Holding`] a duty, asks it within the transaction, and hands its own clock in.

use crate::time::Tick;

/// One server, from one start to its end. No two starts have the same number, so that what the last one left on its way
/// is not taken for what this one sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Worker(pub u64);

/// Counts the leases of one duty: a later one is greater. 0 is the epoch of none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u64);

/// What is kept of one duty. The first value: nobody has ever had it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holding {
    /// Of the last lease, whether or not it still holds.
    epoch: Epoch,
    holder: Option<Holder>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Holder {
    worker: Worker,
    /// When it runs out, by the ledger's clock. `None`: when the ledger is opened anew, for nobody else can have it.
    until: Option<Tick>,
    /// The holder has said that it starts nothing more.
    halted: bool,
}

/// The lease is another's by now, or nobody's: what was to be written under it must not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the lease is lost")]
pub struct Lost;

impl Holding {
    /// Gives the duty to `worker` until `now + term_ms`, if it is free or the worker's already. `None`: another has it.
    ///
    /// Who has it already keeps the epoch, so that a request whose answer was lost can be repeated. Everybody else gets
    /// one greater than any before, and not below `least`.
    pub fn grant(&mut self, worker: Worker, least: Epoch, now: Tick, term_ms: Option<u64>) -> Option<Epoch> {
        let until = until(now, term_ms);
        match &mut self.holder {
            // Also one that has run out: nobody has come in between.
            Some(holder) if holder.worker == worker => holder.until = until,
            Some(holder) if !has_run_out(holder, now) => return None,
            _ => {
                self.epoch = Epoch(self.epoch.0 + 1).max(least);
                self.holder = Some(Holder { worker, until, halted: false });
            }
        }
        Some(self.epoch)
    }

    /// Lets the holder keep the duty until `now + term_ms`. One that has run out is renewed as well, as long as nobody has
    /// taken it.
    pub fn renew(&mut self, worker: Worker, epoch: Epoch, now: Tick, term_ms: Option<u64>) -> Result<(), Lost> {
        self.of(worker, epoch)?.until = until(now, term_ms);
        Ok(())
    }

    /// Frees the duty. Of a lease that is lost there is nothing to give back.
    pub fn give_back(&mut self, worker: Worker, epoch: Epoch) {
        if self.admit(worker, epoch).is_ok() {
            self.holder = None;
        }
    }

    /// Whether it has been given back, or nobody has had it yet.
    pub fn is_free(&self) -> bool {
        self.holder.is_none()
    }

    /// Whether what is written under this lease counts. One that has run out counts until somebody has taken it: nobody
    /// else can have written in between.
    pub fn admit(&self, worker: Worker, epoch: Epoch) -> Result<(), Lost> {
        match &self.holder {
            Some(holder) if (holder.worker, self.epoch) == (worker, epoch) => Ok(()),
            _ => Err(Lost),
        }
    }

    /// Notes that the holder starts nothing more under this lease.
    pub fn halt(&mut self, worker: Worker, epoch: Epoch) -> Result<(), Lost> {
        self.of(worker, epoch)?.halted = true;
        Ok(())
    }

    /// Whether nobody starts anything: nobody has the duty, its time is over, or the holder has said so.
    pub fn is_halted(&self, now: Tick) -> bool {
        self.holder.is_none_or(|holder| holder.halted || has_run_out(&holder, now))
    }

    fn of(&mut self, worker: Worker, epoch: Epoch) -> Result<&mut Holder, Lost> {
        self.admit(worker, epoch)?;
        self.holder.as_mut().ok_or(Lost)
    }
}

fn until(now: Tick, term_ms: Option<u64>) -> Option<Tick> {
    term_ms.map(|term_ms| Tick(now.0.saturating_add(term_ms)))
}

fn has_run_out(holder: &Holder, now: Tick) -> bool {
    holder.until.is_some_and(|until| until <= now)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Worker = Worker(1);
    const B: Worker = Worker(2);
    const TERM: Option<u64> = Some(100);

    fn take(holding: &mut Holding, worker: Worker, now: u64) -> Option<Epoch> {
        holding.grant(worker, Epoch(0), Tick(now), TERM)
    }

    #[test]
    fn one_at_a_time_has_a_duty_and_who_asks_again_has_it_still() {
        let mut duty = Holding::default();
        assert_eq!(take(&mut duty, A, 0), Some(Epoch(1)));
        assert_eq!(take(&mut duty, B, 99), None);
        assert_eq!(take(&mut duty, A, 99), Some(Epoch(1)), "the same lease, for another term");
        assert_eq!(take(&mut duty, B, 198), None);
    }

    #[test]
    fn a_lease_that_has_run_out_counts_until_another_has_taken_it_and_never_again() {
        let mut duty = Holding::default();
        let first = take(&mut duty, A, 0).unwrap();
        duty.admit(A, first).unwrap();
        assert_eq!(take(&mut duty, B, 100), Some(Epoch(2)));
        assert_eq!(duty.admit(A, first), Err(Lost));
        assert_eq!(duty.renew(A, first, Tick(100), TERM), Err(Lost));
        duty.give_back(A, first);
        assert_eq!(duty.admit(B, Epoch(2)), Ok(()), "who has lost it cannot give it back");
        assert!(!duty.is_free());
        assert_eq!(duty.admit(A, Epoch(2)), Err(Lost), "an epoch that was guessed");
        let third = take(&mut duty, A, 200).unwrap();
        assert_eq!((third, duty.admit(A, first), duty.admit(A, third)), (Epoch(3), Err(Lost), Ok(())));
    }

    #[test]
    fn a_renewed_lease_holds_for_another_term_even_if_it_had_run_out_meanwhile() {
        let mut duty = Holding::default();
        let epoch = take(&mut duty, A, 0).unwrap();
        duty.renew(A, epoch, Tick(90), TERM).unwrap();
        assert_eq!(take(&mut duty, B, 189), None);
        duty.renew(A, epoch, Tick(500), TERM).unwrap();
        assert_eq!(take(&mut duty, B, 599), None);
        assert_eq!(take(&mut duty, B, 600), Some(Epoch(2)));
    }

    #[test]
    fn what_is_given_back_is_free_at_once_and_its_epoch_is_used_up() {
        let mut duty = Holding::default();
        let first = take(&mut duty, A, 0).unwrap();
        duty.give_back(A, first);
        assert!(duty.is_free());
        assert_eq!(duty.admit(A, first), Err(Lost));
        assert_eq!(take(&mut duty, A, 0), Some(Epoch(2)));
    }

    #[test]
    fn a_lease_without_a_term_never_runs_out_and_epochs_begin_where_they_are_told_to() {
        let mut duty = Holding::default();
        assert_eq!(duty.grant(A, Epoch(7 << 32), Tick(0), None), Some(Epoch(7 << 32)));
        assert_eq!(duty.grant(B, Epoch(9 << 32), Tick(u64::MAX), None), None);
        duty.give_back(A, Epoch(7 << 32));
        assert_eq!(duty.grant(A, Epoch(7 << 32), Tick(0), None), Some(Epoch((7 << 32) + 1)));
    }

    #[test]
    fn a_duty_is_halted_when_its_holder_says_so_or_there_is_none() {
        let mut duty = Holding::default();
        assert!(duty.is_halted(Tick(0)));
        let epoch = take(&mut duty, A, 0).unwrap();
        assert!(!duty.is_halted(Tick(99)) && duty.is_halted(Tick(100)));
        assert_eq!(duty.halt(B, epoch), Err(Lost));
        duty.halt(A, epoch).unwrap();
        assert!(duty.is_halted(Tick(1)));
        take(&mut duty, A, 2);
        assert!(duty.is_halted(Tick(3)), "the same lease");
        take(&mut duty, B, 200);
        assert!(!duty.is_halted(Tick(201)), "another's");
    }
}
