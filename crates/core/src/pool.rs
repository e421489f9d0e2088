//! Which execution environment serves which call.
//!
//! A **lane** is one deployment (function, version, configuration): its environments are interchangeable, and no call
//! of another lane ever runs in them. Lanes of one function share its reserved concurrency; all lanes share the
//! machine. The pool decides, it does nothing: each method takes what happened, [`Pool::next_effect`] says what to do.
//!
//! ```text
//!            start_failed, died
//!   Starting ------------------------------> Stopping --gone--> (forgotten)
//!      | ready                                  ^
//!      v            Run                         |
//!     Idle <------------------> Busy -----------+  died, released after a retirement
//!      |          released                      |
//!      +----------------------------------------+  idle too long, retired, room needed
//! ```
//!
//! What holds at every instant: environments that exist <= `environments_max`; busy ones of a function <= its reserved
//! concurrency; a call gets exactly one of `Run`, `Fail` and `Throttle` unless it gives up first (a `Run` that is
//! [lost](Pool::lost) counts as not having been given); calls of one lane are served in the order in which they came.
//!
//! Source: Lambda specification 5.3 and 5.4; the fair shares between lanes are our choice (AWS has no full machine).

use std::collections::{HashMap, HashSet, VecDeque};

/// Milliseconds on a clock that never goes back; its zero is the caller's.
pub type Millis = u64;

/// One execution environment, named by the pool. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EnvironmentId(pub u64);

/// One call, named by the caller. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// What bounds the pool.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Environments on this machine, all functions together, whatever they are doing.
    pub environments_max: u32,
    /// Environments that may be starting at once: starting is what costs processor time.
    pub starts_at_once: u32,
    /// Calls that may wait, all functions together; one more is throttled.
    pub calls_waiting_max: usize,
    /// How long an environment stays without work.
    pub idle_timeout_ms: Millis,
    /// After this long a start no longer counts against `starts_at_once`: an initialization that hangs must not keep
    /// other functions from starting.
    pub start_gate_ms: Millis,
    /// Failed starts and crashes in a row that a lane may have before its starts are spaced.
    pub crashes_free: u32,
    /// The longest space between two starts of a lane that keeps crashing. The first one is a sixteenth of it.
    pub crash_delay_ms_max: Millis,
}

/// Why a call is refused. The words are AWS's (`Reason` of `TooManyRequestsException`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Throttle {
    /// The function's reserved concurrency is in use.
    ReservedFunctionConcurrentInvocationLimitExceeded,
    /// The machine's limit is reached.
    ConcurrentInvocationLimitExceeded,
}

impl Throttle {
    pub fn reason(self) -> &'static str {
        match self {
            Throttle::ReservedFunctionConcurrentInvocationLimitExceeded => {
                "ReservedFunctionConcurrentInvocationLimitExceeded"
            }
            Throttle::ConcurrentInvocationLimitExceeded => "ConcurrentInvocationLimitExceeded",
        }
    }
}

/// Why an environment is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    Idle,
    Retired,
    /// Another function needs the place.
    RoomNeeded,
}

/// What the caller of the pool has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect<D> {
    /// Start an environment; report `ready` or `start_failed`.
    Start { environment: EnvironmentId, deployment: D },
    /// Give the call to the environment; report `released`, `died` or `lost`. `was_idle`: it may have died unnoticed.
    Run { environment: EnvironmentId, call: CallId, was_idle: bool },
    /// The environment that was started for this call did not come up: its failure is the call's answer.
    Fail { environment: EnvironmentId, call: CallId },
    /// The call is refused.
    Throttle { call: CallId, reason: Throttle },
    /// Stop the environment; report `gone`.
    Stop { environment: EnvironmentId, why: StopReason },
}

/// A call that asks for an environment.
#[derive(Debug)]
pub struct Ask<'a, D> {
    pub call: CallId,
    /// The lane: equal strings mean interchangeable environments.
    pub deployment_id: &'a str,
    /// The function whose versions share the reserved concurrency.
    pub function: &'a str,
    pub reserved: Option<u32>,
    /// Whether it may wait where no start is under way for it.
    pub may_wait: bool,
    /// What a new environment is started from.
    pub deployment: &'a D,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct LaneKey(u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct FunctionKey(u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Starting,
    Idle { since: Millis },
    Busy { call: CallId },
    Stopping,
}

#[derive(Debug)]
struct Environment {
    lane: LaneKey,
    state: State,
    retired: bool,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    call: CallId,
    /// Order of arrival over all lanes.
    turn: u64,
}

#[derive(Debug)]
struct Lane<D> {
    id: String,
    function: FunctionKey,
    deployment: D,
    /// Oldest first; taken from the end, so that the rest goes cold and is reaped.
    idle: Vec<EnvironmentId>,
    waiting: VecDeque<Waiting>,
    starting: usize,
    /// Busy ones that gave their answer and when: they will be free in a moment.
    finishing: Vec<(EnvironmentId, Millis)>,
    /// Starting, idle and busy.
    environments: u32,
    crashes_in_row: u32,
    start_not_before: Millis,
    /// Until then an empty lane is kept for what it knows of crashes; else a caller that comes alone, again and again,
    /// would never be held back.
    remember_until: Millis,
}

impl<D> Lane<D> {
    /// Waiting calls for which a start is under way.
    fn covered(&self) -> usize {
        self.starting.min(self.waiting.len())
    }

    /// How many calls an environment is under way for: one that starts, or one that has answered and will be back.
    fn served_soon(&self, now: Millis) -> usize {
        self.starting + self.finishing.iter().filter(|(_, since)| now < since.saturating_add(FINISHING_MS)).count()
    }

    /// The turn of the first call that nothing is under way for.
    fn first_uncovered(&self, now: Millis) -> Option<u64> {
        self.waiting.get(self.served_soon(now)).map(|w| w.turn)
    }

    fn not_finishing(&mut self, id: EnvironmentId) {
        if let Some(at) = self.finishing.iter().position(|(finishing, _)| *finishing == id) {
            self.finishing.swap_remove(at);
        }
    }
}

#[derive(Debug)]
struct Function {
    name: String,
    busy: usize,
    reserved: Option<u32>,
    lanes: Vec<LaneKey>,
}

/// The pool of all functions of one machine.
#[derive(Debug)]
pub struct Pool<D> {
    limits: Limits,
    lane_keys: HashMap<String, LaneKey>,
    lanes: HashMap<LaneKey, Lane<D>>,
    function_keys: HashMap<String, FunctionKey>,
    functions: HashMap<FunctionKey, Function>,
    environments: HashMap<EnvironmentId, Environment>,
    /// The lane of each waiting call. At most `calls_waiting_max`.
    waiting: HashMap<CallId, LaneKey>,
    /// Waiting calls that wait for what is under way for them and no longer.
    impatient: HashSet<CallId>,
    /// Starts that count against `starts_at_once`, oldest first. At most that many.
    gate: VecDeque<(EnvironmentId, Millis)>,
    stopping: u32,
    /// Whether some lane wants a start for which the machine has no place.
    short_of_room: bool,
    /// When a start that is held back by the gate or by a crash delay may be tried again.
    alarm: Option<Millis>,
    next_id: u64,
    next_turn: u64,
    /// The environment that spoke to us in this event: it needs no look whether it still lives.
    fresh: Option<EnvironmentId>,
    /// Drained by the caller after each event, so it holds what one event causes.
    effects: VecDeque<Effect<D>>,
}

/// What became of an attempt to start.
#[derive(Debug, PartialEq, Eq)]
enum Started {
    Yes,
    /// The function's reserved concurrency is spoken for.
    AtFunctionLimit,
    /// The machine is full, the gate is closed, or the lane has to wait after crashes.
    NotNow,
}

impl<D: Clone> Pool<D> {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            lane_keys: HashMap::new(),
            lanes: HashMap::new(),
            function_keys: HashMap::new(),
            functions: HashMap::new(),
            environments: HashMap::new(),
            waiting: HashMap::new(),
            impatient: HashSet::new(),
            gate: VecDeque::new(),
            stopping: 0,
            short_of_room: false,
            alarm: None,
            next_id: 0,
            next_turn: 0,
            fresh: None,
            effects: VecDeque::new(),
        }
    }

    /// What is to be done next. Call it after every event until it answers `None`.
    pub fn next_effect(&mut self) -> Option<Effect<D>> {
        self.effects.pop_front()
    }

    /// When [`Pool::tick`] has something to do at the earliest.
    pub fn wake_at(&self) -> Option<Millis> {
        let reaping = self.lanes.values().filter_map(|lane| self.idle_since(lane)).min();
        let reaping = reaping.map(|since| since.saturating_add(self.limits.idle_timeout_ms));
        [self.alarm, reaping].into_iter().flatten().min()
    }

    /// The part of [`Pool::wake_at`] that may move closer at any event (the rest is never closer than the idle
    /// time-out).
    pub fn alarm(&self) -> Option<Millis> {
        self.alarm
    }

    /// How many environments there are, in any state.
    pub fn environments(&self) -> usize {
        self.environments.len()
    }

    /// How many calls wait.
    pub fn calls_waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How many calls of `function` run.
    pub fn busy(&self, function: &str) -> usize {
        self.function_keys.get(function).map_or(0, |key| self.functions[key].busy)
    }

    /// A call came.
    pub fn ask(&mut self, ask: Ask<'_, D>, now: Millis) {
        if ask.reserved == Some(0) {
            return self.throttle(ask.call, Throttle::ReservedFunctionConcurrentInvocationLimitExceeded);
        }
        let key = self.lane(&ask);
        let turn = self.next_turn;
        self.next_turn += 1;
        let lane = self.lanes.get_mut(&key).expect("just looked up or made");
        lane.waiting.push_back(Waiting { call: ask.call, turn });
        let function = lane.function;
        self.waiting.insert(ask.call, key);
        self.serve(function, usize::MAX, now);
        if !ask.may_wait || self.waiting.len() > self.limits.calls_waiting_max {
            self.patience_ended(ask.call, now);
        }
        self.forget_lane_if_empty(key, now);
    }

    /// The call does not wait any longer, unless an environment is under way for it: then it waits for that. Returns
    /// whether it still waits.
    pub fn patience_ended(&mut self, call: CallId, now: Millis) -> bool {
        let Some(&key) = self.waiting.get(&call) else { return false };
        let lane = &self.lanes[&key];
        let place = lane.waiting.iter().position(|w| w.call == call);
        if place.is_some_and(|place| place < lane.served_soon(now)) {
            self.impatient.insert(call);
            if let Some((_, since)) = lane.finishing.iter().min_by_key(|(_, since)| *since) {
                self.set_alarm(since.saturating_add(FINISHING_MS));
            }
            return true;
        }
        let function = &self.functions[&lane.function];
        // Asked before the call leaves, whose own claim is none: nothing is under way for it.
        let at_limit = function.reserved.is_some_and(|reserved| self.claimed(function) >= reserved as usize);
        self.gave_up(call, now);
        self.throttle(
            call,
            if at_limit {
                Throttle::ReservedFunctionConcurrentInvocationLimitExceeded
            } else {
                Throttle::ConcurrentInvocationLimitExceeded
            },
        );
        false
    }

    /// The caller of a waiting call left. A call that runs is not touched: its environment is free when the function
    /// has finished, not when nobody listens any more.
    pub fn gave_up(&mut self, call: CallId, now: Millis) {
        let Some(key) = self.waiting.remove(&call) else { return };
        self.impatient.remove(&call);
        let lane = self.lanes.get_mut(&key).expect("a waiting call has a lane");
        lane.waiting.retain(|w| w.call != call);
        let function = lane.function;
        // One claim less on the function's concurrency: another lane of it may go.
        self.serve(function, usize::MAX, now);
        self.forget_lane_if_empty(key, now);
    }

    /// A starting environment is ready for its first call.
    pub fn ready(&mut self, id: EnvironmentId, now: Millis) {
        let Some(environment) = self.environments.get_mut(&id) else { return };
        if environment.state != State::Starting {
            return;
        }
        environment.state = State::Idle { since: now };
        let key = environment.lane;
        self.gate.retain(|(started, _)| *started != id);
        let lane = self.lanes.get_mut(&key).expect("an environment has a lane");
        lane.starting -= 1;
        lane.idle.push(id);
        let function = lane.function;
        self.fresh = Some(id);
        self.serve(function, usize::MAX, now);
        self.fresh = None;
        self.stop_if_retired(id);
        // The gate opened for others.
        self.serve_all(now);
    }

    /// A starting environment did not come up.
    pub fn start_failed(&mut self, id: EnvironmentId, now: Millis) {
        let Some(environment) = self.environments.get_mut(&id) else { return };
        if environment.state != State::Starting {
            return;
        }
        environment.state = State::Stopping;
        let key = environment.lane;
        self.stopping += 1;
        self.gate.retain(|(started, _)| *started != id);
        let lane = self.lanes.get_mut(&key).expect("an environment has a lane");
        lane.starting -= 1;
        lane.environments -= 1;
        let failed = lane.waiting.pop_front();
        if let Some(Waiting { call, .. }) = failed {
            self.waiting.remove(&call);
            self.impatient.remove(&call);
            self.effects.push_back(Effect::Fail { environment: id, call });
        }
        self.crashed(key, now);
        self.serve_all(now);
    }

    /// A busy environment gave its answer. It is not free yet, but nothing is started for a call that it will serve in
    /// a moment: without this, a caller that makes one call after the other would get a second environment for nothing.
    pub fn answered(&mut self, id: EnvironmentId, now: Millis) {
        let Some(environment) = self.environments.get(&id) else { return };
        if matches!(environment.state, State::Busy { .. }) && !environment.retired {
            let lane = self.lanes.get_mut(&environment.lane).expect("an environment has a lane");
            lane.not_finishing(id);
            lane.finishing.push((id, now));
        }
    }

    /// A busy environment finished its call and asks for the next one.
    pub fn released(&mut self, id: EnvironmentId, now: Millis) {
        let Some(environment) = self.environments.get_mut(&id) else { return };
        let State::Busy { .. } = environment.state else { return };
        environment.state = State::Idle { since: now };
        let (key, retired) = (environment.lane, environment.retired);
        let lane = self.lanes.get_mut(&key).expect("an environment has a lane");
        lane.not_finishing(id);
        lane.crashes_in_row = 0;
        lane.start_not_before = 0;
        lane.idle.push(id);
        let function = lane.function;
        self.functions.get_mut(&function).expect("a lane has a function").busy -= 1;
        if retired {
            self.stop(id, StopReason::Retired);
        } else if self.short_of_room && self.should_give_way(key, now) {
            self.stop(id, StopReason::RoomNeeded);
        }
        self.fresh = Some(id);
        self.serve(function, usize::MAX, now);
        self.fresh = None;
        // Work of its own came first; if there is none, its place may be what another lane waits for.
        if self.short_of_room && self.environments.get(&id).is_some_and(|e| !matches!(e.state, State::Busy { .. })) {
            self.serve_all(now);
        }
    }

    /// An environment ended by itself, or was killed because its time was up. `crashed`: it was not us who ended it.
    pub fn died(&mut self, id: EnvironmentId, crashed: bool, now: Millis) {
        let Some(environment) = self.environments.get_mut(&id) else { return };
        let key = environment.lane;
        match environment.state {
            State::Starting => return self.start_failed(id, now),
            State::Stopping => return,
            State::Idle { .. } => {
                environment.state = State::Stopping;
                let lane = self.lanes.get_mut(&key).expect("an environment has a lane");
                lane.idle.retain(|idle| *idle != id);
                lane.environments -= 1;
            }
            State::Busy { .. } => {
                environment.state = State::Stopping;
                let lane = self.lanes.get_mut(&key).expect("an environment has a lane");
                lane.not_finishing(id);
                lane.environments -= 1;
                self.functions.get_mut(&lane.function).expect("a lane has a function").busy -= 1;
            }
        }
        self.stopping += 1;
        if crashed {
            self.crashed(key, now);
        }
        self.serve_all(now);
    }

    /// The environment turned out to be dead before it saw the call: the call is first in its lane again. `false` if
    /// the death is known already: then the call has to ask anew.
    pub fn lost(&mut self, id: EnvironmentId, now: Millis) -> bool {
        let Some(environment) = self.environments.get(&id) else { return false };
        let State::Busy { call } = environment.state else { return false };
        let key = environment.lane;
        let lane = self.lanes.get_mut(&key).expect("an environment has a lane");
        // It was served once, so it was the oldest: its turn is before all others.
        lane.waiting.push_front(Waiting { call, turn: 0 });
        self.waiting.insert(call, key);
        self.died(id, true, now);
        true
    }

    /// Nothing is left of the environment: its place is free.
    pub fn gone(&mut self, id: EnvironmentId, now: Millis) {
        match self.environments.get(&id).map(|e| e.state) {
            Some(State::Stopping) => {}
            Some(_) => self.died(id, true, now),
            None => return,
        }
        let Some(environment) = self.environments.remove(&id) else { return };
        self.stopping -= 1;
        self.serve_all(now);
        self.forget_lane_if_empty(environment.lane, now);
    }

    /// The function's code or configuration changed, or it was deleted: no environment that exists now serves another
    /// call. Calls that run are finished.
    pub fn retire(&mut self, function: &str, now: Millis) {
        let Some(key) = self.function_keys.get(function) else { return };
        let keys = self.functions[key].lanes.clone();
        for (_, environment) in self.environments.iter_mut().filter(|(_, e)| keys.contains(&e.lane)) {
            environment.retired = true;
        }
        for key in keys {
            let idle = self.lanes.get(&key).map(|lane| lane.idle.clone()).unwrap_or_default();
            for id in idle {
                self.stop(id, StopReason::Retired);
            }
        }
        self.serve_all(now);
    }

    /// Time passed: reaps what was idle too long, tries what was held back.
    pub fn tick(&mut self, now: Millis) {
        let cutoff = now.checked_sub(self.limits.idle_timeout_ms);
        let mut reaped = Vec::new();
        for lane in self.lanes.values() {
            let old = lane.idle.iter().take_while(|id| match self.environments[*id].state {
                State::Idle { since } => cutoff.is_some_and(|cutoff| since <= cutoff),
                _ => false,
            });
            reaped.extend(old.copied());
        }
        for id in reaped {
            self.stop(id, StopReason::Idle);
        }
        if self.alarm.is_some_and(|at| at <= now) {
            self.serve_all(now);
        }
        let keys: Vec<LaneKey> = self.lanes.keys().copied().collect();
        for key in keys {
            self.forget_lane_if_empty(key, now);
        }
    }

    // --- how it is decided ---

    fn lane(&mut self, ask: &Ask<'_, D>) -> LaneKey {
        let key = match self.lane_keys.get(ask.deployment_id) {
            Some(key) => *key,
            None => {
                let key = LaneKey(self.next_id);
                let function_key = FunctionKey(self.next_id);
                self.next_id += 1;
                let function_key = *self.function_keys.entry(ask.function.to_owned()).or_insert(function_key);
                self.lane_keys.insert(ask.deployment_id.to_owned(), key);
                self.lanes.insert(
                    key,
                    Lane {
                        id: ask.deployment_id.to_owned(),
                        function: function_key,
                        deployment: ask.deployment.clone(),
                        idle: Vec::new(),
                        waiting: VecDeque::new(),
                        starting: 0,
                        finishing: Vec::new(),
                        environments: 0,
                        crashes_in_row: 0,
                        start_not_before: 0,
                        remember_until: 0,
                    },
                );
                let name = || Function { name: ask.function.to_owned(), busy: 0, reserved: None, lanes: Vec::new() };
                self.functions.entry(function_key).or_insert_with(name).lanes.push(key);
                key
            }
        };
        // The newest call knows the newest limit.
        let function = self.lanes[&key].function;
        self.functions.get_mut(&function).expect("a lane has a function").reserved = ask.reserved;
        key
    }

    fn forget_lane_if_empty(&mut self, key: LaneKey, now: Millis) {
        let Some(lane) = self.lanes.get(&key) else { return };
        if lane.environments > 0 || !lane.waiting.is_empty() || lane.remember_until > now {
            return;
        }
        // Its environments that are still stopping name it no more than by a key that finds nothing.
        let lane = self.lanes.remove(&key).expect("just found");
        self.lane_keys.remove(&lane.id);
        if let Some(function) = self.functions.get_mut(&lane.function) {
            function.lanes.retain(|k| *k != key);
            if function.lanes.is_empty() {
                let function = self.functions.remove(&lane.function).expect("just found");
                self.function_keys.remove(&function.name);
            }
        }
    }

    fn idle_since(&self, lane: &Lane<D>) -> Option<Millis> {
        match self.environments[lane.idle.first()?].state {
            State::Idle { since } => Some(since),
            _ => None,
        }
    }

    fn throttle(&mut self, call: CallId, reason: Throttle) {
        self.effects.push_back(Effect::Throttle { call, reason });
    }

    /// What is taken of a function's concurrency: running calls, and starts that a waiting call will use.
    fn claimed(&self, function: &Function) -> usize {
        function.busy + function.lanes.iter().map(|key| self.lanes[key].covered()).sum::<usize>()
    }

    /// Serves the waiting calls of one function, oldest first, with idle environments and with at most `starts_max`
    /// starts.
    fn serve(&mut self, function_key: FunctionKey, mut starts_max: usize, now: Millis) {
        // The turn up to which this round has looked: lanes that cannot go now are passed over, once.
        let mut looked_at: Option<u64> = None;
        loop {
            let mut soon_back: Option<Millis> = None;
            let Some(function) = self.functions.get(&function_key) else { return };
            // The oldest call for which an idle environment is there (`true`), or that needs a start (`false`).
            let mut oldest: Option<(u64, LaneKey, bool)> = None;
            for key in &function.lanes {
                let lane = &self.lanes[key];
                let Some(first) = lane.waiting.front() else { continue };
                let wish = match lane.idle.is_empty() {
                    false => (first.turn, *key, true),
                    true => match lane.first_uncovered(now) {
                        Some(turn) => (turn, *key, false),
                        None => {
                            let back = lane.finishing.iter().map(|(_, since)| since.saturating_add(FINISHING_MS)).min();
                            soon_back = [soon_back, back].into_iter().flatten().min();
                            continue;
                        }
                    },
                };
                if looked_at.is_none_or(|turn| turn < wish.0) && oldest.is_none_or(|oldest| wish < oldest) {
                    oldest = Some(wish);
                }
            }
            // If it is not back by then, a start is made after all.
            if let Some(at) = soon_back {
                self.set_alarm(at);
            }
            let Some((turn, key, run)) = oldest else { return };
            let function = &self.functions[&function_key];
            let reserved = function.reserved.map_or(usize::MAX, |r| r as usize);
            let room = self.claimed(function) < reserved;
            if run {
                // A call that a start already covers brings its claim along.
                let lane = &self.lanes[&key];
                let has_claim = lane.waiting.len() <= lane.starting;
                if !((room || has_claim) && function.busy < reserved) {
                    // Oldest first: what is newer must not take the concurrency that this one waits for.
                    return;
                }
                self.run(key);
                looked_at = None;
                continue;
            }
            if starts_max == 0 {
                return;
            }
            match self.try_start(key, room, now) {
                Started::Yes => {
                    starts_max -= 1;
                    looked_at = None;
                }
                Started::AtFunctionLimit => return,
                Started::NotNow => looked_at = Some(turn),
            }
        }
    }

    /// Serves every function that has waiting calls: first the lanes with the fewest environments, then the oldest
    /// call. Starts are rare and dear, so a pass over the lanes at each is cheap.
    fn serve_all(&mut self, now: Millis) {
        self.alarm = None;
        self.short_of_room = false;
        loop {
            let mut hungry: Vec<(u32, u64, FunctionKey)> = self
                .lanes
                .values()
                .filter(|lane| !lane.waiting.is_empty())
                .map(|lane| (lane.environments, lane.first_uncovered(now).unwrap_or(u64::MAX), lane.function))
                .collect();
            hungry.sort_unstable();
            let before = self.environments.len();
            for (_, _, function) in hungry {
                // One start, then look again: a long queue must not take all places that come free.
                self.serve(function, 1, now);
                if self.environments.len() != before {
                    break;
                }
            }
            if self.environments.len() == before {
                break;
            }
        }
        // What was under way for some may have come to nothing.
        for call in self.impatient.iter().copied().collect::<Vec<_>>() {
            self.patience_ended(call, now);
        }
    }

    fn run(&mut self, key: LaneKey) {
        let lane = self.lanes.get_mut(&key).expect("the lane was just looked at");
        let id = lane.idle.pop().expect("an idle environment was just seen");
        let Waiting { call, .. } = lane.waiting.pop_front().expect("a waiting call was just seen");
        self.functions.get_mut(&lane.function).expect("a lane has a function").busy += 1;
        self.waiting.remove(&call);
        if !self.impatient.is_empty() {
            self.impatient.remove(&call);
        }
        let environment = self.environments.get_mut(&id).expect("an idle environment exists");
        environment.state = State::Busy { call };
        let was_idle = self.fresh != Some(id);
        self.effects.push_back(Effect::Run { environment: id, call, was_idle });
    }

    fn try_start(&mut self, key: LaneKey, room_in_function: bool, now: Millis) -> Started {
        if !room_in_function {
            return Started::AtFunctionLimit;
        }
        let not_before = self.lanes[&key].start_not_before;
        if not_before > now {
            self.set_alarm(not_before);
            return Started::NotNow;
        }
        while let Some((_, since)) = self.gate.front()
            && since.saturating_add(self.limits.start_gate_ms) <= now
        {
            self.gate.pop_front();
        }
        if self.gate.len() >= self.limits.starts_at_once as usize {
            if let Some((_, since)) = self.gate.front() {
                self.set_alarm(since.saturating_add(self.limits.start_gate_ms));
            }
            return Started::NotNow;
        }
        if self.environments.len() >= self.limits.environments_max as usize {
            self.short_of_room = true;
            // One place at a time: a place that is coming free is enough for the one start that waits for it.
            if self.stopping == 0
                && let Some(id) = self.longest_idle()
            {
                self.stop(id, StopReason::RoomNeeded);
            }
            return Started::NotNow;
        }
        let id = EnvironmentId(self.next_id);
        self.next_id += 1;
        self.environments.insert(id, Environment { lane: key, state: State::Starting, retired: false });
        self.gate.push_back((id, now));
        let lane = self.lanes.get_mut(&key).expect("the lane was just looked at");
        lane.starting += 1;
        lane.environments += 1;
        if lane.crashes_in_row > self.limits.crashes_free {
            lane.start_not_before = now.saturating_add(crash_delay(&self.limits, lane.crashes_in_row));
        }
        self.effects.push_back(Effect::Start { environment: id, deployment: lane.deployment.clone() });
        Started::Yes
    }

    fn set_alarm(&mut self, at: Millis) {
        self.alarm = Some(self.alarm.map_or(at, |alarm| alarm.min(at)));
    }

    fn longest_idle(&self) -> Option<EnvironmentId> {
        self.lanes
            .values()
            .filter_map(|lane| Some((self.idle_since(lane)?, *lane.idle.first()?)))
            .min()
            .map(|(_, id)| id)
    }

    /// Whether an environment of this lane, just released, should make room for a lane that has too few: one with at
    /// least two environments less, or one with none whose call is older than what waits here. Two less and not one:
    /// a place would go back and forth between equals, and every move costs a cold start.
    fn should_give_way(&self, key: LaneKey, now: Millis) -> bool {
        if self.stopping > 0 {
            return false;
        }
        let own = &self.lanes[&key];
        let own_turn = own.waiting.front().map_or(u64::MAX, |w| w.turn);
        self.lanes.iter().any(|(other_key, other)| {
            let Some(turn) = other.first_uncovered(now) else { return false };
            let function = &self.functions[&other.function];
            let allowed = function.reserved.is_none_or(|reserved| self.claimed(function) < reserved as usize);
            *other_key != key
                && allowed
                && (own.environments >= other.environments + 2 || (other.environments == 0 && turn < own_turn))
        })
    }

    fn stop_if_retired(&mut self, id: EnvironmentId) {
        let retired_and_idle =
            self.environments.get(&id).is_some_and(|e| e.retired && matches!(e.state, State::Idle { .. }));
        if retired_and_idle {
            self.stop(id, StopReason::Retired);
        }
    }

    /// Stops an idle environment.
    fn stop(&mut self, id: EnvironmentId, why: StopReason) {
        let environment = self.environments.get_mut(&id).expect("only an idle environment is stopped");
        debug_assert!(matches!(environment.state, State::Idle { .. }));
        environment.state = State::Stopping;
        let lane = self.lanes.get_mut(&environment.lane).expect("an environment has a lane");
        lane.idle.retain(|idle| *idle != id);
        lane.environments -= 1;
        self.stopping += 1;
        self.effects.push_back(Effect::Stop { environment: id, why });
    }

    fn crashed(&mut self, key: LaneKey, now: Millis) {
        let Some(lane) = self.lanes.get_mut(&key) else { return };
        lane.crashes_in_row = lane.crashes_in_row.saturating_add(1);
        lane.remember_until = now.saturating_add(CRASHES_REMEMBERED_MS);
        if lane.crashes_in_row > self.limits.crashes_free {
            lane.start_not_before =
                lane.start_not_before.max(now.saturating_add(crash_delay(&self.limits, lane.crashes_in_row)));
        }
    }
}

/// How long an environment that has answered is waited for, instead of starting another one. A runtime polls again
/// within a fraction of a millisecond, unless its function goes on working behind its answer.
const FINISHING_MS: Millis = 20;

/// How long a lane's crashes are remembered after the last one.
const CRASHES_REMEMBERED_MS: Millis = 10_000;

/// The space before the next start: doubles with each crash beyond the free ones, up to the longest.
fn crash_delay(limits: &Limits, crashes_in_row: u32) -> Millis {
    let doublings = crashes_in_row.saturating_sub(limits.crashes_free + 1).min(4);
    (limits.crash_delay_ms_max >> (4 - doublings)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn limits(environments_max: u32, starts_at_once: u32) -> Limits {
        Limits {
            environments_max,
            starts_at_once,
            calls_waiting_max: 100,
            idle_timeout_ms: 1_000,
            start_gate_ms: 500,
            crashes_free: 2,
            crash_delay_ms_max: 160,
        }
    }

    /// A pool, a clock that stands still unless moved, and the effects of the last event.
    struct Bench {
        pool: Pool<&'static str>,
        now: Millis,
        calls: u64,
    }

    impl Bench {
        fn new(limits: Limits) -> Self {
            Self { pool: Pool::new(limits), now: 0, calls: 0 }
        }

        fn effects(&mut self) -> Vec<Effect<&'static str>> {
            std::iter::from_fn(|| self.pool.next_effect()).collect()
        }

        /// `deployment` is written `function:version`.
        fn ask_with(
            &mut self,
            deployment: &'static str,
            reserved: Option<u32>,
            may_wait: bool,
        ) -> Vec<Effect<&'static str>> {
            self.calls += 1;
            let function = deployment.split(':').next().unwrap();
            let ask = Ask {
                call: CallId(self.calls),
                deployment_id: deployment,
                function,
                reserved,
                may_wait,
                deployment: &deployment,
            };
            self.pool.ask(ask, self.now);
            self.effects()
        }

        fn ask(&mut self, deployment: &'static str) -> Vec<Effect<&'static str>> {
            self.ask_with(deployment, None, true)
        }

        fn ready(&mut self, id: EnvironmentId) -> Vec<Effect<&'static str>> {
            self.pool.ready(id, self.now);
            self.effects()
        }

        fn released(&mut self, id: EnvironmentId) -> Vec<Effect<&'static str>> {
            self.pool.released(id, self.now);
            self.effects()
        }

        /// Asks, and starts the environment that runs the call.
        fn warm(&mut self, deployment: &'static str) -> EnvironmentId {
            let id = started(&self.ask(deployment));
            assert!(
                matches!(self.ready(id)[..], [Effect::Run { environment, was_idle: false, .. }] if environment == id)
            );
            id
        }
    }

    fn started(effects: &[Effect<&'static str>]) -> EnvironmentId {
        match effects {
            [Effect::Start { environment, .. }] => *environment,
            other => panic!("expected one start, got {other:?}"),
        }
    }

    fn run(environment: EnvironmentId, call: u64, was_idle: bool) -> Vec<Effect<&'static str>> {
        vec![Effect::Run { environment, call: CallId(call), was_idle }]
    }

    #[test]
    fn a_warm_environment_is_used_again_the_last_used_first() {
        let mut b = Bench::new(limits(4, 4));
        let (first, second) = (b.warm("f:1"), b.warm("f:1"));
        b.released(second);
        b.released(first);
        assert_eq!(b.ask("f:1"), run(first, 3, true));
        assert_eq!(b.ask("f:1"), run(second, 4, true));
    }

    #[test]
    fn a_call_that_waits_for_a_start_takes_the_warm_environment_that_comes_free_first() {
        let mut b = Bench::new(limits(4, 4));
        let warm = b.warm("f:1");
        let cold = started(&b.ask("f:1"));
        assert_eq!(b.released(warm), run(warm, 2, false));
        assert_eq!(b.ready(cold), [], "the new one is a spare now");
        assert_eq!(b.ask("f:1"), run(cold, 3, true));
    }

    #[test]
    fn calls_beyond_the_machine_wait_in_the_order_they_came() {
        let mut b = Bench::new(limits(1, 1));
        let id = b.warm("f:1");
        assert_eq!((b.ask("f:1"), b.ask("f:1")), (vec![], vec![]));
        assert_eq!(b.released(id), run(id, 2, false));
        assert_eq!(b.released(id), run(id, 3, false));
    }

    #[test]
    fn an_environment_that_answered_is_waited_for_a_moment_before_another_one_is_started() {
        let mut b = Bench::new(limits(4, 4));
        let id = b.warm("f:1");
        b.pool.answered(id, 0);
        assert_eq!(b.ask("f:1"), []);
        assert_eq!(b.released(id), run(id, 2, false));
        b.pool.answered(id, 0);
        assert_eq!(b.ask("f:1"), []);
        started(&b.ask("f:1"));
        assert_eq!(b.pool.alarm(), Some(20));
        b.now = 20;
        b.pool.tick(20);
        started(&b.effects());
    }

    #[test]
    fn a_call_that_may_not_wait_is_refused_when_the_environment_that_answered_does_not_come_back() {
        let reason = Throttle::ConcurrentInvocationLimitExceeded;
        let mut b = Bench::new(limits(1, 1));
        let id = b.warm("f:1");
        b.pool.answered(id, 0);
        assert_eq!(b.ask_with("f:1", None, false), []);
        assert_eq!(b.pool.alarm(), Some(20));
        b.pool.tick(19);
        assert_eq!(b.effects(), []);
        b.now = 20;
        b.pool.tick(20);
        assert_eq!(b.effects(), [Effect::Throttle { call: CallId(2), reason }]);
    }

    #[test]
    fn reserved_concurrency_holds_over_all_versions_of_a_function() {
        let mut b = Bench::new(limits(8, 8));
        let one = started(&b.ask_with("f:1", Some(2), true));
        let two = started(&b.ask_with("f:2", Some(2), true));
        assert_eq!(b.ask_with("f:2", Some(2), true), [], "two starts are as good as two calls in flight");
        b.ready(one);
        b.ready(two);
        assert_eq!(b.pool.busy("f"), 2);
        let reason = Throttle::ReservedFunctionConcurrentInvocationLimitExceeded;
        assert_eq!(b.ask_with("f:1", Some(2), false), [Effect::Throttle { call: CallId(4), reason }]);
        // The oldest waiting call is version 2's, so version 1's free environment makes place for a start.
        started(&b.released(one));
    }

    #[test]
    fn reserved_concurrency_of_zero_refuses_every_call() {
        let reason = Throttle::ReservedFunctionConcurrentInvocationLimitExceeded;
        let mut b = Bench::new(limits(8, 8));
        assert_eq!(b.ask_with("f:1", Some(0), true), [Effect::Throttle { call: CallId(1), reason }]);
    }

    #[test]
    fn a_call_that_may_not_wait_still_gets_its_cold_start() {
        let reason = Throttle::ConcurrentInvocationLimitExceeded;
        let mut b = Bench::new(limits(1, 1));
        let id = started(&b.ask_with("f:1", None, false));
        assert!(b.pool.patience_ended(CallId(1), 0), "a start is under way for it");
        assert_eq!(b.ask_with("f:1", None, false), [Effect::Throttle { call: CallId(2), reason }]);
        assert_eq!(b.ready(id), run(id, 1, false));
    }

    #[test]
    fn a_full_queue_refuses_calls_but_not_those_that_need_not_wait() {
        let mut b = Bench::new(Limits { calls_waiting_max: 1, ..limits(2, 2) });
        let f = started(&b.ask_with("f:1", Some(1), true));
        b.ready(f);
        let g = b.warm("g:1");
        b.released(g);
        assert_eq!(b.ask_with("f:1", Some(1), true), []);
        assert!(matches!(b.ask_with("f:1", Some(1), true)[..], [Effect::Throttle { .. }]));
        assert_eq!(b.ask("g:1"), run(g, 5, true));
    }

    #[test]
    fn only_so_many_start_at_once_but_one_that_hangs_does_not_hold_the_gate() {
        let mut b = Bench::new(limits(8, 1));
        started(&b.ask("hangs:1"));
        assert_eq!(b.ask("f:1"), []);
        assert_eq!(b.pool.alarm(), Some(500));
        b.now = 500;
        b.pool.tick(500);
        started(&b.effects());
    }

    #[test]
    fn a_failed_start_is_the_answer_of_the_first_call_and_the_next_one_gets_its_own() {
        let mut b = Bench::new(limits(8, 1));
        let id = started(&b.ask("f:1"));
        b.ask("f:1");
        b.pool.start_failed(id, 0);
        let effects = b.effects();
        assert_eq!(effects[0], Effect::Fail { environment: id, call: CallId(1) });
        assert!(matches!(effects[1..], [Effect::Start { .. }]), "{effects:?}");
    }

    #[test]
    fn a_crash_loop_is_slowed_down_and_a_success_ends_that() {
        let mut b = Bench::new(limits(8, 8));
        let mut starts_at = Vec::new();
        for _ in 0..8 {
            let mut effects = b.ask("f:1");
            while effects.is_empty() {
                b.now = b.pool.wake_at().expect("a held-back start is tried again");
                b.pool.tick(b.now);
                effects = b.effects();
            }
            starts_at.push(b.now);
            let id = started(&effects);
            b.pool.start_failed(id, b.now);
            b.pool.gone(id, b.now);
            b.effects();
        }
        let delays: Vec<_> = starts_at.windows(2).map(|w| w[1] - w[0]).collect();
        assert_eq!(delays, [0, 0, 10, 20, 40, 80, 160]);
        b.now += 160;
        let id = b.warm("f:1");
        b.released(id);
        b.pool.died(id, true, b.now);
        b.pool.gone(id, b.now);
        started(&b.ask("f:1"));
    }

    #[test]
    fn an_environment_that_was_busy_during_a_retirement_is_never_used_again() {
        let mut b = Bench::new(limits(4, 4));
        let (busy, idle, starting) = (b.warm("f:1"), b.warm("f:1"), started(&b.ask("f:1")));
        b.released(idle);
        // The released one took the third call; so it is busy, and the started one is a spare.
        b.pool.released(idle, 0);
        b.effects();
        b.pool.retire("f", 0);
        assert_eq!(b.effects(), [Effect::Stop { environment: idle, why: StopReason::Retired }]);
        assert_eq!(b.ready(starting), [Effect::Stop { environment: starting, why: StopReason::Retired }]);
        assert_eq!(b.released(busy), [Effect::Stop { environment: busy, why: StopReason::Retired }]);
        started(&b.ask("f:1"));
    }

    #[test]
    fn a_call_whose_environment_was_dead_before_it_saw_the_call_goes_first_again() {
        let mut b = Bench::new(limits(1, 1));
        let id = b.warm("f:1");
        b.released(id);
        assert_eq!(b.ask("f:1"), run(id, 2, true));
        b.ask("f:1");
        b.pool.lost(id, 0);
        assert_eq!(b.effects(), []);
        b.pool.gone(id, 0);
        let next = started(&b.effects());
        assert_eq!(b.ready(next), run(next, 2, false));
    }

    #[test]
    fn a_function_that_holds_the_machine_gives_places_to_one_that_waits_until_both_have_the_same() {
        let mut b = Bench::new(limits(4, 4));
        let mut held: Vec<_> = (0..4).map(|_| b.warm("greedy:1")).collect();
        for _ in 0..20 {
            b.ask("greedy:1");
            b.ask("poor:1");
        }
        let mut poor = 0;
        for _ in 0..12 {
            let Some(id) = held.first().copied() else { break };
            held.rotate_left(1);
            let effects = b.released(id);
            if effects.contains(&Effect::Stop { environment: id, why: StopReason::RoomNeeded }) {
                held.retain(|h| *h != id);
                b.pool.gone(id, 0);
                let effects = b.effects();
                assert!(matches!(effects[..], [Effect::Start { deployment: "poor:1", .. }]), "{effects:?}");
                let new = started(&effects);
                b.ready(new);
                poor += 1;
            }
        }
        assert_eq!(poor, 2);
    }

    #[test]
    fn idle_environments_are_reaped_oldest_first() {
        let mut b = Bench::new(limits(4, 4));
        let (first, second) = (b.warm("f:1"), b.warm("f:1"));
        b.released(first);
        b.now = 400;
        b.released(second);
        assert_eq!(b.pool.wake_at(), Some(1_000));
        b.now = 1_000;
        b.pool.tick(b.now);
        assert_eq!(b.effects(), [Effect::Stop { environment: first, why: StopReason::Idle }]);
        assert_eq!(b.pool.wake_at(), Some(1_400));
    }

    #[test]
    fn a_call_given_up_while_it_waits_is_never_run() {
        let mut b = Bench::new(limits(1, 1));
        let id = started(&b.ask("f:1"));
        b.pool.gave_up(CallId(1), 0);
        assert_eq!(b.ready(id), []);
        assert_eq!(b.pool.calls_waiting(), 0);
    }

    /// A small generator: the tests replay by their seed alone.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % sides
        }
    }

    /// Throws everything that can happen at a pool, and checks the promises of the module's head after each event.
    fn simulate(seed: u64) {
        const DEPLOYMENTS: [(&str, &str, Option<u32>); 5] = [
            ("a:1", "a", Some(2)),
            ("a:2", "a", Some(2)),
            ("b:1", "b", None),
            ("c:1", "c", Some(1)),
            ("d:1", "d", None),
        ];
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let max = 1 + dice.roll(5) as u32;
        let gate = 1 + dice.roll(2) as u32;
        let mut pool: Pool<&str> = Pool::new(limits(max, gate));
        let (mut now, mut calls) = (0, 0u64);
        let mut open: BTreeSet<CallId> = BTreeSet::new();
        let mut lane_of: BTreeMap<CallId, &str> = BTreeMap::new();
        #[derive(Debug, Clone, PartialEq)]
        enum Is {
            Starting,
            Idle,
            Busy(CallId),
            Stopping,
        }
        let mut environments: BTreeMap<EnvironmentId, (&str, Is)> = BTreeMap::new();
        let settle = |pool: &mut Pool<&'static str>,
                      environments: &mut BTreeMap<EnvironmentId, (&'static str, Is)>,
                      open: &mut BTreeSet<CallId>,
                      lane_of: &BTreeMap<CallId, &'static str>| {
            while let Some(effect) = pool.next_effect() {
                match effect {
                    Effect::Start { environment, deployment } => {
                        assert!(environments.insert(environment, (deployment, Is::Starting)).is_none());
                    }
                    Effect::Run { environment, call, .. } => {
                        assert!(open.remove(&call), "seed {seed}: {call:?} was answered twice");
                        let (lane, state) = environments.get_mut(&environment).unwrap();
                        assert_eq!((*lane, &*state), (lane_of[&call], &Is::Idle), "seed {seed}");
                        *state = Is::Busy(call);
                    }
                    Effect::Fail { environment, call } => {
                        assert!(open.remove(&call), "seed {seed}: {call:?} was answered twice");
                        assert_eq!(environments[&environment], (lane_of[&call], Is::Stopping), "seed {seed}");
                    }
                    Effect::Throttle { call, .. } => assert!(open.remove(&call), "seed {seed}"),
                    Effect::Stop { environment, .. } => {
                        let (_, state) = environments.get_mut(&environment).unwrap();
                        assert_eq!(*state, Is::Idle, "seed {seed}");
                        *state = Is::Stopping;
                    }
                }
            }
            assert!(environments.len() <= max as usize, "seed {seed}: more environments than the machine may have");
            for (_, function, reserved) in DEPLOYMENTS {
                let busy = environments
                    .values()
                    .filter(|(lane, state)| lane.starts_with(function) && matches!(state, Is::Busy(_)))
                    .count();
                assert!(busy <= reserved.unwrap_or(u32::MAX) as usize, "seed {seed}: {function} over its concurrency");
                assert_eq!(busy, pool.busy(function), "seed {seed}");
            }
            assert_eq!(open.len(), pool.calls_waiting(), "seed {seed}");
        };
        for step in 0..600 {
            // The last third brings no new calls and no mishaps: then everything that waits must be served.
            let quiet = step >= 400;
            now += dice.roll(40);
            let chosen = (!environments.is_empty())
                .then(|| environments.keys().copied().nth(dice.roll(environments.len() as u64) as usize).unwrap());
            match dice.roll(10) {
                0..=3 if !quiet => {
                    calls += 1;
                    let (id, function, reserved) = DEPLOYMENTS[dice.roll(5) as usize];
                    open.insert(CallId(calls));
                    lane_of.insert(CallId(calls), id);
                    let may_wait = dice.roll(4) > 0;
                    let call = CallId(calls);
                    let ask = Ask { call, deployment_id: id, function, reserved, may_wait, deployment: &id };
                    pool.ask(ask, now);
                }
                4 if !quiet && !open.is_empty() => {
                    let call = *open.iter().nth(dice.roll(open.len() as u64) as usize).unwrap();
                    if dice.roll(2) == 0 {
                        open.remove(&call);
                        pool.gave_up(call, now);
                    } else {
                        pool.patience_ended(call, now);
                    }
                }
                5 if !quiet => pool.retire(DEPLOYMENTS[dice.roll(5) as usize].1, now),
                6 => pool.tick(now),
                _ => {
                    if let Some(id) = chosen {
                        let mishap = !quiet && dice.roll(5) == 0;
                        let state = &mut environments.get_mut(&id).unwrap().1;
                        match (state.clone(), mishap) {
                            (Is::Starting, false) => {
                                *state = Is::Idle;
                                pool.ready(id, now);
                            }
                            (Is::Starting, true) => {
                                *state = Is::Stopping;
                                pool.start_failed(id, now);
                            }
                            (Is::Busy(_), false) if dice.roll(2) == 0 => pool.answered(id, now),
                            (Is::Busy(_), false) => {
                                *state = Is::Idle;
                                pool.released(id, now);
                            }
                            (Is::Busy(call), true) => {
                                *state = Is::Stopping;
                                if dice.roll(2) == 0 {
                                    open.insert(call);
                                    pool.lost(id, now);
                                } else {
                                    pool.died(id, true, now);
                                }
                            }
                            (Is::Idle, false) => {}
                            (Is::Idle, true) => {
                                *state = Is::Stopping;
                                pool.died(id, true, now);
                            }
                            (Is::Stopping, _) => {
                                environments.remove(&id);
                                pool.gone(id, now);
                            }
                        }
                    }
                }
            }
            settle(&mut pool, &mut environments, &mut open, &lane_of);
        }
        // Everything that is under way comes to its end; what waits must get its turn.
        for _ in 0..2_000 {
            if open.is_empty() {
                break;
            }
            now += 100;
            pool.tick(now);
            settle(&mut pool, &mut environments, &mut open, &lane_of);
            for id in environments.keys().copied().collect::<Vec<_>>() {
                let Some((_, state)) = environments.get_mut(&id) else { continue };
                match state.clone() {
                    Is::Starting => {
                        *state = Is::Idle;
                        pool.ready(id, now);
                    }
                    Is::Busy(_) => {
                        *state = Is::Idle;
                        pool.released(id, now);
                    }
                    Is::Stopping => {
                        environments.remove(&id);
                        pool.gone(id, now);
                    }
                    Is::Idle => {}
                }
                settle(&mut pool, &mut environments, &mut open, &lane_of);
            }
        }
        assert!(open.is_empty(), "seed {seed}: {open:?} wait for ever");
        now += 100_000;
        pool.tick(now);
        settle(&mut pool, &mut environments, &mut open, &lane_of);
        for id in environments.keys().copied().collect::<Vec<_>>() {
            pool.gone(id, now);
        }
        pool.tick(now + 100_000);
        assert_eq!(
            (pool.lanes.len(), pool.functions.len(), pool.stopping),
            (0, 0, 0),
            "seed {seed}: something is kept"
        );
    }

    #[test]
    fn whatever_happens_limits_hold_and_every_call_is_answered_once() {
        for seed in 1..=400 {
            simulate(seed);
        }
    }
}
