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

use std::collections::{HashMap, VecDeque};

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
    function: String,
    deployment: D,
    /// Oldest first; taken from the end, so that the rest goes cold and is reaped.
    idle: Vec<EnvironmentId>,
    waiting: VecDeque<Waiting>,
    starting: usize,
    /// Starting, idle and busy.
    environments: u32,
    crashes_in_row: u32,
    start_not_before: Millis,
}

impl<D> Lane<D> {
    /// Waiting calls for which a start is under way.
    fn covered(&self) -> usize {
        self.starting.min(self.waiting.len())
    }

    /// The turn of the first call that nothing is under way for.
    fn first_uncovered(&self) -> Option<u64> {
        self.waiting.get(self.covered()).map(|w| w.turn)
    }
}

#[derive(Debug, Default)]
struct Function {
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
    functions: HashMap<String, Function>,
    environments: HashMap<EnvironmentId, Environment>,
    /// The lane of each waiting call. At most `calls_waiting_max`.
    waiting: HashMap<CallId, LaneKey>,
    /// Starts that count against `starts_at_once`, oldest first. At most that many.
    gate: VecDeque<(EnvironmentId, Millis)>,
    stopping: u32,
    /// Whether some lane wants a start for which the machine has no place.
    short_of_room: bool,
    /// When a start that is held back by the gate or by a crash delay may be tried again.
    alarm: Option<Millis>,
    next_id: u64,
    next_turn: u64,
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
            functions: HashMap::new(),
            environments: HashMap::new(),
            waiting: HashMap::new(),
            gate: VecDeque::new(),
            stopping: 0,
            short_of_room: false,
            alarm: None,
            next_id: 0,
            next_turn: 0,
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
        self.functions.get(function).map_or(0, |f| f.busy)
    }

    /// A call came.
    pub fn ask(&mut self, ask: Ask<'_, D>, now: Millis) {
        if ask.reserved == Some(0) {
            return self.throttle(ask.call, Throttle::ReservedFunctionConcurrentInvocationLimitExceeded);
        }
        if self.waiting.len() >= self.limits.calls_waiting_max {
            return self.throttle(ask.call, Throttle::ConcurrentInvocationLimitExceeded);
        }
        let key = self.lane(&ask);
        let turn = self.next_turn;
        self.next_turn += 1;
        let lane = self.lanes.get_mut(&key).expect("just looked up or made");
        lane.waiting.push_back(Waiting { call: ask.call, turn });
        self.waiting.insert(ask.call, key);
        self.serve(ask.function, now);
        if !ask.may_wait {
            self.patience_ended(ask.call, now);
        }
        self.forget_lane_if_empty(key, now);
    }

    /// The call does not wait any longer, unless a start is under way for it: then it waits for that. Returns whether
    /// it still waits.
    pub fn patience_ended(&mut self, call: CallId, now: Millis) -> bool {
        let Some(&key) = self.waiting.get(&call) else { return false };
        let lane = &self.lanes[&key];
        let place = lane.waiting.iter().position(|w| w.call == call);
        if place.is_some_and(|place| place < lane.starting) {
            return true;
        }
        let function = &self.functions[&lane.function];
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
        let lane = self.lanes.get_mut(&key).expect("a waiting call has a lane");
        lane.waiting.retain(|w| w.call != call);
        let function = lane.function.clone();
        // One claim less on the function's concurrency: another lane of it may go.
        self.serve(&function, now);
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
        let function = lane.function.clone();
        self.serve(&function, now);
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
            self.effects.push_back(Effect::Fail { environment: id, call });
        }
        self.crashed(key, now);
        self.serve_all(now);
    }

    /// A busy environment finished its call and asks for the next one.
    pub fn released(&mut self, id: EnvironmentId, now: Millis) {
        let Some(environment) = self.environments.get_mut(&id) else { return };
        let State::Busy { .. } = environment.state else { return };
        environment.state = State::Idle { since: now };
        let (key, retired) = (environment.lane, environment.retired);
        let lane = self.lanes.get_mut(&key).expect("an environment has a lane");
        lane.crashes_in_row = 0;
        lane.start_not_before = 0;
        lane.idle.push(id);
        let function = lane.function.clone();
        self.functions.get_mut(&function).expect("a lane has a function").busy -= 1;
        if retired {
            self.stop(id, StopReason::Retired);
        } else if self.short_of_room && self.should_give_way(key) {
            self.stop(id, StopReason::RoomNeeded);
        }
        self.serve(&function, now);
        if self.short_of_room {
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

    /// The environment turned out to be dead before it saw the call: the call is first in its lane again.
    pub fn lost(&mut self, id: EnvironmentId, now: Millis) {
        let Some(environment) = self.environments.get(&id) else { return };
        let State::Busy { call } = environment.state else { return };
        let key = environment.lane;
        let lane = self.lanes.get_mut(&key).expect("an environment has a lane");
        let turn = lane.waiting.front().map_or(self.next_turn, |w| w.turn);
        lane.waiting.push_front(Waiting { call, turn });
        self.waiting.insert(call, key);
        self.died(id, true, now);
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
        let Some(keys) = self.functions.get(function).map(|f| f.lanes.clone()) else { return };
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
                self.next_id += 1;
                self.lane_keys.insert(ask.deployment_id.to_owned(), key);
                self.lanes.insert(
                    key,
                    Lane {
                        id: ask.deployment_id.to_owned(),
                        function: ask.function.to_owned(),
                        deployment: ask.deployment.clone(),
                        idle: Vec::new(),
                        waiting: VecDeque::new(),
                        starting: 0,
                        environments: 0,
                        crashes_in_row: 0,
                        start_not_before: 0,
                    },
                );
                self.functions.entry(ask.function.to_owned()).or_default().lanes.push(key);
                key
            }
        };
        // The newest call knows the newest limit.
        if let Some(function) = self.functions.get_mut(ask.function) {
            function.reserved = ask.reserved;
        }
        key
    }

    fn forget_lane_if_empty(&mut self, key: LaneKey, now: Millis) {
        let Some(lane) = self.lanes.get(&key) else { return };
        // A lane that crashes is remembered until its delay is over, or the delay would never hold anything back.
        if lane.environments > 0 || !lane.waiting.is_empty() || lane.start_not_before > now {
            return;
        }
        // Its environments that are still stopping name it no more than by a key that finds nothing.
        let lane = self.lanes.remove(&key).expect("just found");
        self.lane_keys.remove(&lane.id);
        if let Some(function) = self.functions.get_mut(&lane.function) {
            function.lanes.retain(|k| *k != key);
            if function.lanes.is_empty() {
                self.functions.remove(&lane.function);
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

    /// Serves the waiting calls of one function, oldest first, with idle environments and with starts.
    fn serve(&mut self, function_name: &str, now: Millis) {
        loop {
            let Some(function) = self.functions.get(function_name) else { return };
            let reserved = function.reserved.map_or(usize::MAX, |r| r as usize);
            let room = self.claimed(function) < reserved;
            // (turn, lane, run): a call for which an idle environment is there, or one that needs a start.
            let mut wishes: Vec<(u64, LaneKey, bool)> = Vec::new();
            for key in &function.lanes {
                let lane = &self.lanes[key];
                let Some(first) = lane.waiting.front() else { continue };
                if !lane.idle.is_empty() {
                    wishes.push((first.turn, *key, true));
                } else if let Some(turn) = lane.first_uncovered() {
                    wishes.push((turn, *key, false));
                }
            }
            wishes.sort_unstable();
            let mut progressed = false;
            for (_, key, run) in wishes {
                if run {
                    // A call that a start already covers brings its claim along.
                    let lane = &self.lanes[&key];
                    let has_claim = lane.waiting.len() <= lane.starting;
                    let busy = self.functions[function_name].busy;
                    if (room || has_claim) && busy < reserved {
                        self.run(key, now);
                        progressed = true;
                        break;
                    }
                    // Oldest first: what is newer must not take the concurrency this one waits for.
                    return;
                }
                match self.try_start(key, room, now) {
                    Started::Yes => {
                        progressed = true;
                        break;
                    }
                    Started::AtFunctionLimit => return,
                    Started::NotNow => {}
                }
            }
            if !progressed {
                return;
            }
        }
    }

    /// Serves every function that has waiting calls, in the order of the oldest call that nothing is under way for.
    /// Starts are rare and dear, so a pass over the lanes at each is cheap.
    fn serve_all(&mut self, now: Millis) {
        self.alarm = None;
        self.short_of_room = false;
        // One start a pass and a function, so that one long queue does not take all places that come free.
        loop {
            let mut hungry: Vec<(u32, u64, LaneKey)> = self
                .lanes
                .iter()
                .filter(|(_, lane)| !lane.waiting.is_empty())
                .map(|(key, lane)| (lane.environments, lane.first_uncovered().unwrap_or(u64::MAX), *key))
                .collect();
            hungry.sort_unstable();
            let before = self.environments.len();
            let functions: Vec<String> = hungry.iter().map(|(_, _, key)| self.lanes[key].function.clone()).collect();
            for function in functions {
                self.serve(&function, now);
                if self.environments.len() != before {
                    break;
                }
            }
            if self.environments.len() == before {
                return;
            }
        }
    }

    fn run(&mut self, key: LaneKey, _now: Millis) {
        let lane = self.lanes.get_mut(&key).expect("the lane was just looked at");
        let id = lane.idle.pop().expect("an idle environment was just seen");
        let Waiting { call, .. } = lane.waiting.pop_front().expect("a waiting call was just seen");
        self.functions.get_mut(&lane.function).expect("a lane has a function").busy += 1;
        self.waiting.remove(&call);
        let environment = self.environments.get_mut(&id).expect("an idle environment exists");
        environment.state = State::Busy { call };
        self.effects.push_back(Effect::Run { environment: id, call, was_idle: true });
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
    fn should_give_way(&self, key: LaneKey) -> bool {
        if self.stopping > 0 {
            return false;
        }
        let own = &self.lanes[&key];
        let own_turn = own.waiting.front().map_or(u64::MAX, |w| w.turn);
        self.lanes.iter().any(|(other_key, other)| {
            let Some(turn) = other.first_uncovered() else { return false };
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
        if lane.crashes_in_row > self.limits.crashes_free {
            lane.start_not_before =
                lane.start_not_before.max(now.saturating_add(crash_delay(&self.limits, lane.crashes_in_row)));
        }
    }
}

/// The space before the next start: doubles with each crash beyond the free ones, up to the longest.
fn crash_delay(limits: &Limits, crashes_in_row: u32) -> Millis {
    let doublings = crashes_in_row.saturating_sub(limits.crashes_free + 1).min(4);
    (limits.crash_delay_ms_max >> (4 - doublings)).max(1)
}
