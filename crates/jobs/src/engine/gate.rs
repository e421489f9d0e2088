//! How many invocations all jobs together have under way: at most the server's limit, and at most what each function
//! allows. A call that finds no room waits here, in order of arrival, where it can still be called off.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use longshore_wire::arn::FunctionName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// One for the engine.
pub(super) struct Gate {
    total: Arc<Semaphore>,
    /// Calls that have asked and were not let in yet.
    waiting: Arc<AtomicUsize>,
    /// By the function's name, so that its versions and aliases share one. Only those of jobs that run.
    doors: Mutex<HashMap<String, Weak<Door>>>,
}

/// The way to one function.
pub(super) struct Door {
    room: Arc<Semaphore>,
    size: Mutex<Size>,
    total: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
}

/// A call that waits, for as long as it is counted.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many may be inside, and how many of those that are inside may not be replaced: the door was made narrower.
struct Size {
    limit: usize,
    surplus: usize,
}

/// The right to run one invocation; given back when it is dropped.
pub(super) struct Pass {
    door: Arc<Door>,
    room: Option<OwnedSemaphorePermit>,
    _total: OwnedSemaphorePermit,
}

impl Gate {
    pub fn new(total: u32) -> Self {
        let total = Arc::new(Semaphore::new(total.max(1) as usize));
        Self { total, waiting: Arc::default(), doors: Mutex::default() }
    }

    /// Calls of all jobs that wait for room now.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// The door of `function`, as a job names it. All jobs of one function get the same.
    pub fn door(&self, function: &str) -> Arc<Door> {
        let name = FunctionName::parse(function).map_or_else(|| function.to_owned(), |named| named.name);
        let mut doors = self.doors.lock().unwrap_or_else(|e| e.into_inner());
        doors.retain(|_, door| door.strong_count() > 0);
        if let Some(door) = doors.get(&name).and_then(Weak::upgrade) {
            return door;
        }
        let size = Mutex::new(Size { limit: 0, surplus: 0 });
        let (room, total, waiting) = (Arc::new(Semaphore::new(0)), Arc::clone(&self.total), Arc::clone(&self.waiting));
        let door = Arc::new(Door { room, size, total, waiting });
        doors.insert(name, Arc::downgrade(&door));
        door
    }
}

impl Door {
    fn size(&self) -> MutexGuard<'_, Size> {
        self.size.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Lets at most `limit` invocations in, at least one. Those above it that are inside already finish.
    pub fn set_limit(&self, limit: u32) {
        // A semaphore takes no more; nobody has that many.
        let limit = (limit.max(1) as usize).min(Semaphore::MAX_PERMITS);
        let mut size = self.size();
        if limit > size.limit {
            let more = limit - size.limit;
            let paid = more.min(size.surplus);
            size.surplus -= paid;
            self.room.add_permits(more - paid);
        } else {
            let fewer = size.limit - limit;
            size.surplus += fewer - self.room.forget_permits(fewer);
        }
        size.limit = limit;
    }

    /// Goes in if there is room now, and nobody who waits for it.
    pub fn try_enter(self: &Arc<Self>) -> Option<Pass> {
        // A semaphore hands what is given back to those who wait: what it has left is nobody's.
        let room = Arc::clone(&self.room).try_acquire_owned().ok()?;
        let total = Arc::clone(&self.total).try_acquire_owned().ok()?;
        Some(Pass { door: Arc::clone(self), room: Some(room), _total: total })
    }

    /// Waits for room. Dropping the future gives the place in the queue up.
    pub async fn enter(self: Arc<Self>) -> Pass {
        const OPEN: &str = "these semaphores are never closed";
        let waits = Waits::new(&self.waiting);
        // First the function's, then the server's: who waits for a busy function takes no room from others.
        let room = Arc::clone(&self.room).acquire_owned().await.expect(OPEN);
        let total = Arc::clone(&self.total).acquire_owned().await.expect(OPEN);
        drop(waits);
        Pass { door: self, room: Some(room), _total: total }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut size = self.door.size();
        if size.surplus > 0
            && let Some(room) = self.room.take()
        {
            size.surplus -= 1;
            room.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn enter(door: &Arc<Door>) -> Option<Pass> {
        Arc::clone(door).enter().now_or_never()
    }

    #[test]
    fn the_aliases_of_a_function_share_its_door_and_functions_share_the_total() {
        let gate = Gate::new(3);
        let first = gate.door("arn:aws:lambda:us-west-2:123456789012:function:f:PROD");
        let same = gate.door("f");
        let other = gate.door("g");
        first.set_limit(2);
        other.set_limit(2);
        let inside = [enter(&first).unwrap(), enter(&same).unwrap()];
        assert!(enter(&first).is_none());
        let third = other.try_enter().unwrap();
        assert!(enter(&other).is_none(), "the server's limit is three");
        assert!(other.try_enter().is_none() && first.try_enter().is_none());
        assert_eq!(gate.waiting(), 0, "who gives up does not wait");
        drop(inside);
        assert!(enter(&other).is_some());
        drop(third);
    }

    #[test]
    fn a_door_made_narrower_lets_nobody_in_until_enough_have_left() {
        let gate = Gate::new(100);
        let door = gate.door("f");
        door.set_limit(4);
        let mut inside: Vec<Pass> = (0..4).map(|_| enter(&door).unwrap()).collect();
        door.set_limit(2);
        door.set_limit(3);
        door.set_limit(2);
        for left in [3, 2] {
            assert!(enter(&door).is_none());
            inside.pop();
            assert_eq!(inside.len(), left);
        }
        assert!(enter(&door).is_none());
        inside.pop();
        inside.push(enter(&door).unwrap());
        assert!(enter(&door).is_none());
        door.set_limit(3);
        assert!(enter(&door).is_some());
    }

    #[tokio::test]
    async fn who_waits_is_let_in_before_who_comes_later() {
        let gate = Gate::new(100);
        let door = gate.door("f");
        door.set_limit(1);
        let inside = enter(&door).unwrap();
        let mut waits = Box::pin(Arc::clone(&door).enter());
        assert!((&mut waits).now_or_never().is_none());
        assert_eq!(gate.waiting(), 1);
        drop(inside);
        assert!(enter(&door).is_none());
        assert!(door.try_enter().is_none(), "the room is that of who waits");
        drop(waits.await);
        assert!(door.try_enter().is_some());
        assert_eq!(gate.waiting(), 0);
        assert!(enter(&door).is_some());
    }
}
