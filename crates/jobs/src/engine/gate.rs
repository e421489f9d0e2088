//! How many invocations all jobs together have under way: at most the server's limit, and at most what each function
//! allows. A call that finds no room waits here, where it can still be called off: behind those of jobs of a higher
//! priority, and among equals in order of arrival.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use longshore_wire::arn::FunctionName;
use tokio::sync::oneshot;

/// One for the engine; cheap to clone.
#[derive(Clone)]
pub(super) struct Gate(Arc<Mutex<State>>);

struct State {
    limit: usize,
    inside: usize,
    /// By the function's name, so that its versions and aliases share one. Only those of jobs that run.
    functions: BTreeMap<Arc<str>, Function>,
    /// Of doors and of those who wait: numbers in order.
    arrivals: u64,
}

/// The room of one function, and who waits for it. Nobody waits where there is room for it: whoever makes room lets the next
/// one in.
#[derive(Default)]
struct Function {
    limit: usize,
    inside: usize,
    /// By the door's number.
    queues: BTreeMap<u64, Queue>,
}

/// Who waits at one door, by arrival: as many as the job's run has started, which has a bound of its own.
struct Queue {
    /// The job's, as it is now.
    priority: Arc<AtomicU32>,
    waiting: BTreeMap<u64, oneshot::Sender<Pass>>,
}

/// The way of one job to its function.
pub(super) struct Door {
    gate: Gate,
    function: Arc<str>,
    number: u64,
}

/// The right to run one invocation; given back when it is dropped.
pub(super) struct Pass {
    /// `None` once it is no right any more.
    of: Option<(Gate, Arc<str>)>,
}

impl Gate {
    pub fn new(total: u32) -> Self {
        let limit = total.max(1) as usize;
        Self(Arc::new(Mutex::new(State { limit, inside: 0, functions: BTreeMap::new(), arrivals: 0 })))
    }

    /// The door of a job of this priority to `function`, as the job names it. All jobs of one function share its room.
    pub fn door(&self, function: &str, priority: Arc<AtomicU32>) -> Arc<Door> {
        let name = FunctionName::parse(function).map_or_else(|| function.to_owned(), |named| named.name);
        let function: Arc<str> = name.into();
        let mut state = self.state();
        let number = state.number();
        let queue = Queue { priority, waiting: BTreeMap::new() };
        state.functions.entry(Arc::clone(&function)).or_default().queues.insert(number, queue);
        drop(state);
        Arc::new(Door { gate: self.clone(), function, number })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Calls of all jobs that wait for room now.
    pub fn waiting(&self) -> usize {
        let state = self.state();
        state.functions.values().flat_map(|function| function.queues.values()).map(|queue| queue.waiting.len()).sum()
    }

    /// Lets in whoever is next, as long as there is room: of the highest priority who came first.
    fn admit(&self, state: &mut State) {
        while state.inside < state.limit {
            let open = state.functions.iter().filter(|(_, function)| function.inside < function.limit);
            let queues =
                open.flat_map(|(name, function)| function.queues.iter().map(move |(n, queue)| (name, n, queue)));
            let first = queues.filter_map(|(name, number, queue)| {
                let (arrival, _) = queue.waiting.first_key_value()?;
                Some((Reverse(queue.priority.load(Ordering::Relaxed)), *arrival, name, *number))
            });
            let Some((_, arrival, name, number)) = first.min_by_key(|(priority, arrival, ..)| (*priority, *arrival))
            else {
                return;
            };
            let name = Arc::clone(name);
            let Some(function) = state.functions.get_mut(&name) else { return };
            let Some(waits) = function.queues.get_mut(&number).and_then(|queue| queue.waiting.remove(&arrival)) else {
                return;
            };
            match waits.send(Pass { of: Some((self.clone(), name)) }) {
                Ok(()) => {
                    function.inside += 1;
                    state.inside += 1;
                }
                // It was called off just now. Nothing is given back: the lock is held, and nothing was taken.
                Err(mut unused) => unused.of = None,
            }
        }
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.arrivals += 1;
        self.arrivals
    }

    fn queue(&mut self, door: &Door) -> Option<&mut Queue> {
        self.functions.get_mut(&door.function)?.queues.get_mut(&door.number)
    }
}

impl Door {
    /// Lets at most `limit` invocations of all jobs of the function in, at least one. Those above it that are inside already
    /// finish.
    pub fn set_limit(&self, limit: u32) {
        let mut state = self.gate.state();
        if let Some(function) = state.functions.get_mut(&self.function) {
            function.limit = limit.max(1) as usize;
        }
        self.gate.admit(&mut state);
    }

    /// Goes in if there is room now; then nobody waits for it.
    pub fn try_enter(&self) -> Option<Pass> {
        let mut state = self.gate.state();
        let in_all = state.inside < state.limit;
        let function = state.functions.get_mut(&self.function).filter(|f| in_all && f.inside < f.limit)?;
        function.inside += 1;
        state.inside += 1;
        Some(Pass { of: Some((self.gate.clone(), Arc::clone(&self.function))) })
    }

    /// Waits for room. Dropping the future gives the place in the queue up, which is taken when it is first asked.
    pub async fn enter(self: Arc<Self>) -> Pass {
        if let Some(pass) = self.try_enter() {
            return pass;
        }
        let (admitted, waits) = oneshot::channel();
        let arrival = {
            let mut state = self.gate.state();
            let arrival = state.number();
            if let Some(queue) = state.queue(&self) {
                queue.waiting.insert(arrival, admitted);
            }
            // There may be room by now.
            self.gate.admit(&mut state);
            arrival
        };
        let _waits = Waits { door: &self, arrival };
        waits.await.expect("who waits is forgotten when there is room for it, or when it is no more")
    }
}

/// A call that waits, for as long as it does.
struct Waits<'d> {
    door: &'d Door,
    arrival: u64,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        if let Some(queue) = self.door.gate.state().queue(self.door) {
            queue.waiting.remove(&self.arrival);
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let mut state = self.gate.state();
        let Some(function) = state.functions.get_mut(&self.function) else { return };
        function.queues.remove(&self.number);
        forget_unused(&mut state, &self.function);
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let Some((gate, name)) = self.of.take() else { return };
        let mut state = gate.state();
        state.inside -= 1;
        if let Some(function) = state.functions.get_mut(&name) {
            function.inside -= 1;
        }
        gate.admit(&mut state);
        forget_unused(&mut state, &name);
    }
}

/// A function that no job has a door to, and that no call is inside of, is forgotten, with its limit.
fn forget_unused(state: &mut State, name: &str) {
    if state.functions.get(name).is_some_and(|function| function.queues.is_empty() && function.inside == 0) {
        state.functions.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn door(gate: &Gate, function: &str) -> Arc<Door> {
        gate.door(function, Arc::default())
    }

    fn enter(door: &Arc<Door>) -> Option<Pass> {
        Arc::clone(door).enter().now_or_never()
    }

    #[test]
    fn the_aliases_of_a_function_share_its_door_and_functions_share_the_total() {
        let gate = Gate::new(3);
        let first = door(&gate, "arn:aws:lambda:us-west-2:123456789012:function:f:PROD");
        let same = door(&gate, "f");
        let other = door(&gate, "g");
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
        drop((first, same, other));
        let state = gate.state();
        assert_eq!((state.inside, state.functions.len()), (0, 0));
    }

    #[test]
    fn a_door_made_narrower_lets_nobody_in_until_enough_have_left() {
        let gate = Gate::new(100);
        let door = door(&gate, "f");
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
        let door = door(&gate, "f");
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

    #[tokio::test]
    async fn calls_of_a_job_of_higher_priority_go_first_whatever_they_call_and_those_called_off_do_not_go() {
        let gate = Gate::new(1);
        let priority = Arc::new(AtomicU32::new(1));
        let (low, high) = (gate.door("f", Arc::clone(&priority)), gate.door("g", Arc::new(AtomicU32::new(5))));
        low.set_limit(9);
        high.set_limit(9);
        let inside = low.try_enter().unwrap();
        let wait = |door: &Arc<Door>| {
            let mut waits = Box::pin(Arc::clone(door).enter());
            assert!((&mut waits).now_or_never().is_none());
            waits
        };
        let (early, called_off, high_one, late) = (wait(&low), wait(&high), wait(&high), wait(&low));
        drop((called_off, inside));
        let pass = high_one.now_or_never().expect("it has the higher priority");
        let high_two = wait(&high);
        priority.store(7, Ordering::Relaxed);
        drop(pass);
        drop(early.now_or_never().expect("its job was raised while it waited"));
        drop(late.now_or_never().expect("so was that of this one, which came before the other's second"));
        drop(high_two.now_or_never().expect("nobody else waits"));
        drop((low, high));
        assert_eq!(gate.state().functions.len(), 0);
    }
}
