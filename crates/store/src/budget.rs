//! How much of other people's requests is held in memory at once, over all connections.
//!
//! Room is taken as bytes come, never for what is only announced: whoever announces 70 MB and sends a byte holds a kibibyte. So
//! requests can meet of which each waits for the room of the others; the one that has waited for [`WAIT_MAX`] gives up, and what it
//! held is free. And who sends most of a body and then nothing is given up once others need the room.
//! Source: promise S7.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// In this unit room is taken, so that the largest body fits into the counter of a semaphore.
const UNIT_BYTES: usize = 1024;
/// How long a request waits for room. What holds the room is read from the network or answered meanwhile; the SDKs try again.
pub const WAIT_MAX: Duration = Duration::from_secs(10);
/// Where less than half is free, a body has to have come at [`BYTES_PER_SECOND_MIN`] in the last of these.
const WINDOW: Duration = Duration::from_secs(10);
/// 2 Mbit: the largest package takes less than five minutes.
const BYTES_PER_SECOND_MIN: u64 = 256 * 1024;
/// How often it is looked whether somebody's body is in the way of others.
const LOOKED_EVERY: Duration = Duration::from_secs(1);

/// A bound on bytes in memory, or a part of one: what is taken of a part is taken of the whole as well. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Budget(Vec<Level>);

#[derive(Debug, Clone)]
struct Level {
    free: Arc<Semaphore>,
    units: usize,
}

/// There was no room within [`WAIT_MAX`], or the body came too slowly while others needed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no room in memory for the request's body, or none for one that comes so slowly")]
pub struct NoRoom;

impl Budget {
    /// `bytes` are rounded up to whole kibibytes.
    pub fn new(bytes: usize) -> Self {
        let units = bytes.div_ceil(UNIT_BYTES);
        Self(vec![Level { free: Arc::new(Semaphore::new(units)), units }])
    }

    /// At most `bytes` of this budget.
    pub fn part(&self, bytes: usize) -> Self {
        Self::new(bytes).within(self)
    }

    /// This budget, and another above it.
    pub fn within(&self, other: &Self) -> Self {
        Self(self.0.iter().chain(&other.0).cloned().collect())
    }

    /// Nothing is held of it yet.
    pub fn held(&self) -> Held {
        let looked = Instant::now();
        Held { budget: self.clone(), permits: Vec::new(), units: 0, looked, units_then: 0, slow: false }
    }

    /// Bytes that nobody holds.
    pub fn free(&self) -> usize {
        self.0.iter().map(|level| level.free.available_permits()).min().unwrap_or(0) * UNIT_BYTES
    }

    /// Whether less than half is free.
    fn is_short(&self) -> bool {
        self.0.iter().any(|level| level.free.available_permits() < level.units / 2)
    }
}

/// What one request holds of a budget. Dropped, it is free again.
#[derive(Debug)]
pub struct Held {
    budget: Budget,
    /// One for each level, once anything is held.
    permits: Vec<OwnedSemaphorePermit>,
    units: usize,
    /// When it was last looked how fast the body comes, and how much had come by then.
    looked: Instant,
    units_then: usize,
    /// What was seen then.
    slow: bool,
}

impl Held {
    /// Waits for the next bytes, unless they come too slowly and others need the room.
    pub async fn next<T>(&mut self, bytes: impl Future<Output = T>) -> Result<T, NoRoom> {
        let mut bytes = pin!(bytes);
        loop {
            if let Ok(bytes) = tokio::time::timeout(LOOKED_EVERY, &mut bytes).await {
                return Ok(bytes);
            }
            if self.is_in_the_way() {
                return Err(NoRoom);
            }
        }
    }

    /// What came fast earlier is no credit: it is looked at anew each [`WINDOW`].
    fn is_in_the_way(&mut self) -> bool {
        let window = self.looked.elapsed();
        if window >= WINDOW {
            let came = ((self.units - self.units_then) * UNIT_BYTES) as u64;
            self.slow = came < window.as_secs().saturating_mul(BYTES_PER_SECOND_MIN);
            (self.looked, self.units_then) = (Instant::now(), self.units);
        }
        self.slow && self.budget.is_short()
    }

    /// Makes it `bytes` in all; never fewer than before. Waits for room, for [`WAIT_MAX`] at each level.
    pub async fn grow(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let units = bytes.div_ceil(UNIT_BYTES);
        let Some(more) = units.checked_sub(self.units).filter(|more| *more > 0) else { return Ok(()) };
        let more = u32::try_from(more).map_err(|_| NoRoom)?;
        if self.is_in_the_way() {
            return Err(NoRoom);
        }
        let began = Instant::now();
        for (level, Level { free, .. }) in self.budget.0.iter().enumerate() {
            let taken = match free.clone().try_acquire_many_owned(more) {
                Ok(taken) => taken,
                Err(_) => tokio::time::timeout(WAIT_MAX, free.clone().acquire_many_owned(more))
                    .await
                    .map_err(|_| NoRoom)?
                    .map_err(|_| NoRoom)?,
            };
            match self.permits.get_mut(level) {
                Some(held) => held.merge(taken),
                None => self.permits.push(taken),
            }
        }
        // While it waits here it is not the sender who is slow.
        self.looked += began.elapsed();
        self.units = units;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = UNIT_BYTES;

    #[tokio::test(start_paused = true)]
    async fn room_is_taken_as_bytes_come_of_the_part_and_of_the_whole_and_free_again_in_the_end() {
        let whole = Budget::new(10 * KIB);
        let part = whole.part(4 * KIB);
        let mut held = part.held();
        for (bytes, free) in [(0, 4), (1, 3), (KIB, 3), (KIB + 1, 2), (2, 2), (4 * KIB, 0)] {
            held.grow(bytes).await.unwrap();
            assert_eq!((part.free(), whole.free()), (free * KIB, (free + 6) * KIB), "{bytes}");
        }
        let mut other = whole.held();
        other.grow(6 * KIB).await.unwrap();
        assert_eq!(whole.free(), 0);
        drop(held);
        assert_eq!((part.free(), whole.free()), (4 * KIB, 4 * KIB));
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_that_wait_for_each_other_one_gives_up_and_the_other_goes_on() {
        let budget = Budget::new(4 * KIB);
        let (mut one, mut other) = (budget.held(), budget.held());
        one.grow(2 * KIB).await.unwrap();
        other.grow(2 * KIB).await.unwrap();
        let goes_on = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            one.grow(4 * KIB).await
        });
        assert_eq!(other.grow(3 * KIB).await, Err(NoRoom));
        drop(other);
        assert_eq!(goes_on.await.unwrap(), Ok(()));
        assert_eq!(budget.free(), 4 * KIB);
    }

    /// Whether a body goes on that brings a mebibyte at once, and then a byte each half second, beside others that hold so much.
    async fn trickles_on(others: usize) -> bool {
        let budget = Budget::new(4 * 1024 * KIB);
        let (mut held, mut other) = (budget.held(), budget.held());
        other.grow(others).await.unwrap();
        held.grow(1024 * KIB).await.unwrap();
        for more in 1..120 {
            let next = held.next(tokio::time::sleep(Duration::from_millis(500))).await;
            if next.is_err() || held.grow(1024 * KIB + more).await.is_err() {
                return false;
            }
        }
        held.next(tokio::time::sleep(Duration::from_secs(60))).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_that_a_body_waits_for_room_is_not_its_senders() {
        let budget = Budget::new(4 * KIB);
        let (mut held, mut other) = (budget.held(), budget.held());
        other.grow(4 * KIB).await.unwrap();
        let makes_room = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(9)).await;
            drop(other);
        });
        held.grow(KIB).await.unwrap();
        makes_room.await.unwrap();
        let mut other = budget.held();
        other.grow(3 * KIB).await.unwrap();
        // 18 seconds in all, of which 9 were not its sender's.
        assert!(held.next(tokio::time::sleep(Duration::from_secs(9))).await.is_ok());
        assert!(held.next(tokio::time::sleep(Duration::from_secs(9))).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn who_stops_sending_gives_way_once_others_need_the_room_and_not_before() {
        assert!(trickles_on(512 * KIB).await);
        assert!(!trickles_on(2 * 1024 * KIB).await);
    }
}
