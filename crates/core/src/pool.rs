//! Which execution environment serves which call.
//!
//! A **lane** is one deployment (function, version, configuration): its environments are interchangeable, and no call
//! of another lane ever runs in them. Lanes of one function share its reserved concurrency; all lanes share the
//! account's concurrency and the machine. The pool decides, it does nothing: each method takes what happened,
//! [`Pool::next_effect`] says what to do.
//!
//! ```text
//!            start_failed, init_timed_out, died
//!   Starting ------------------------------> Stopping --gone--> (forgotten)
//!      | ready                                  ^
//!      v            Run                         |
//!     Idle <------------------> Busy -----------+  died, released after a retirement or past its age
//!      |          released                      |
//!      +----------------------------------------+  idle too long, too old, retired, room needed, not provisioned any more
//! ```
//!
//! An environment is **on demand**, started because a call wants it, or **provisioned**, started because so many of its
//! lane are to be kept ready. A call takes a provisioned one first; what they cannot take spills over.
//!
//! What holds at every instant: environments that exist <= `environments_max`; a call begins only while fewer run than
//! the account may have, fewer of its function than are reserved for that, and, on demand, only out of what neither
//! reserved nor provisioned concurrency holds for others; a call gets exactly one of `Run`, `Fail`, `Gone` and `Throttle`
//! unless it gives up first (a `Run` that is [lost](Pool::lost) counts as not having been given); calls of one lane are
//! served in the order in which they came. Only calls that ran when a limit was lowered may be more than the limit; none begins
//! until they are fewer.
//!
//! Source: Lambda specification 5; the fair shares between lanes and the budget for memory are our choice (AWS has no full
//! machine).

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

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
    /// Calls that may wait, all functions together; one more is throttled, unless it waits for as long as it takes: those
    /// are bounded by whoever makes them.
    pub calls_waiting_max: usize,
    /// How long an environment stays without work, and how long while memory is short.
    pub idle_timeout_ms: Millis,
    pub idle_timeout_short_ms: Millis,
    /// After this long a start no longer counts against `starts_at_once`: an initialization that hangs must not keep
    /// other functions from starting.
    pub start_gate_ms: Millis,
    /// Failed starts and crashes in a row that a lane may have before its starts are spaced.
    pub crashes_free: u32,
    /// The longest space between two starts of a lane that keeps crashing. The first one is a sixteenth of it.
    pub crash_delay_ms_max: Millis,
    /// Calls in flight, all functions together: the account's concurrency.
    pub account_concurrency: u32,
    /// New environments that one function may get in ten seconds, as a bucket that holds so many and is filled evenly.
    /// `None`: any number.
    pub scale_up: Option<u32>,
    /// An environment older than this gets no further call.
    pub age_ms_max: Millis,
    /// MiB for all environments together. One on demand is started whatever it takes, if it is the only one.
    pub memory_mib_max: u64,
    /// How long an environment is idle before it is frozen; 0 for at once, `None` for never.
    pub freeze_after_ms: Option<Millis>,
}

/// Why a call is refused. The words are AWS's (`Reason` of `TooManyRequestsException`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Throttle {
    /// The function's reserved concurrency is in use.
    ReservedFunctionConcurrentInvocationLimitExceeded,
    /// The account's or the machine's limit is reached.
    ConcurrentInvocationLimitExceeded,
    /// The function has got all new environments that it may get for the moment; with or without reserved concurrency.
    ReservedFunctionInvocationRateLimitExceeded,
    FunctionInvocationRateLimitExceeded,
}

impl Throttle {
    pub fn reason(self) -> &'static str {
        match self {
            Throttle::ReservedFunctionConcurrentInvocationLimitExceeded => {
                "ReservedFunctionConcurrentInvocationLimitExceeded"
            }
            Throttle::ConcurrentInvocationLimitExceeded => "ConcurrentInvocationLimitExceeded",
            Throttle::ReservedFunctionInvocationRateLimitExceeded => "ReservedFunctionInvocationRateLimitExceeded",
            Throttle::FunctionInvocationRateLimitExceeded => "FunctionInvocationRateLimitExceeded",
        }
    }
}

/// Why an environment is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    Idle,
    Retired,
    /// It reached `age_ms_max`.
    Old,
    /// Another function needs the place.
    RoomNeeded,
    /// It was provisioned, and that is over.
    NotProvisioned,
}

/// Why an environment is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    OnDemand,
    Provisioned,
    /// On demand, in place of one whose initialization took too long: this one's is on the clock of the first call.
    Again,
}

/// What the caller of the pool has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect<D> {
    /// Start an environment; report `ready`, `start_failed` or `init_timed_out`.
    Start { environment: EnvironmentId, deployment: D, kind: Kind },
    /// Give the call to the environment; report `released`, `died` or `lost`. `was_idle`: it may have died unnoticed.
    Run { environment: EnvironmentId, call: CallId, was_idle: bool },
    /// The environment that was started for this call did not come up: its failure is the call's answer.
    Fail { environment: EnvironmentId, call: CallId },
    /// The deployment that the call asked for is no more: it may ask for what is there instead.
    Gone { call: CallId },
    /// The call is refused.
    Throttle { call: CallId, reason: Throttle },
    /// Stop the environment; report `gone`.
    Stop { environment: EnvironmentId, why: StopReason },
    /// Freeze the environment, unless it has got a call meanwhile; the next `Run` or `Stop` ends it. Nothing is reported.
    Freeze { environment: EnvironmentId },
}

/// One deployment, as a lane is made for it.
#[derive(Debug)]
pub struct Target<'a, D> {
    /// The lane: equal strings mean interchangeable environments.
    pub deployment_id: &'a str,
    /// The function whose versions share the reserved concurrency.
    pub function: &'a str,
    /// What one environment may use: what it counts for until one was [measured](Pool::measured).
    pub memory_mib: u32,
    /// How long its environments stay without work, if that is another time than [`Limits::idle_timeout_ms`].
    pub idle_timeout_ms: Option<Millis>,
    /// What a new environment is started from.
    pub deployment: &'a D,
}

/// What a call waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Only for what is under way for it: a start, an environment that has just answered.
    UnderWay,
    /// Also for a place on the machine, but not for concurrency: Lambda queues no synchronous call.
    Place,
    /// For concurrency as well.
    All,
}

/// A call that asks for an environment.
#[derive(Debug)]
pub struct Ask<'a, D> {
    pub call: CallId,
    pub target: Target<'a, D>,
    /// The function's reserved concurrency where no [terms](Pool::set_terms) were told, which are newer.
    pub reserved: Option<u32>,
    pub patience: Patience,
}

/// How far the provisioned concurrency of a lane is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Provisioning {
    /// Environments that are to be there.
    pub wanted: u32,
    /// Those that are initialized, running or not.
    pub ready: u32,
    /// Whether all have been there once since the number was set.
    pub complete: bool,
    /// The last start failed, and was it the function's fault. It is tried again a minute later.
    pub failed_by_function: Option<bool>,
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
    provisioned: bool,
    retired: bool,
    frozen: bool,
    started_at: Millis,
    /// What it counts for while it stops.
    stopping_mib: u64,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    call: CallId,
    /// Order of arrival over all lanes.
    turn: u64,
}

/// Environments that a lane shall have before calls ask for them.
#[derive(Debug, Clone, Copy)]
struct Prepare {
    wanted: u32,
    until: Millis,
}

#[derive(Debug)]
struct Lane<D> {
    id: String,
    function: FunctionKey,
    deployment: D,
    /// What one environment counts for: what it may use, until one was measured; then the most that one was seen to use.
    memory_mib: u64,
    memory_measured: bool,
    idle_timeout_ms: Option<Millis>,
    /// On demand, oldest first; taken from the end, so that the rest goes cold and is reaped.
    idle: Vec<EnvironmentId>,
    waiting: VecDeque<Waiting>,
    /// On demand.
    starting: usize,
    /// Busy ones that gave their answer and when: they will be free in a moment.
    finishing: Vec<(EnvironmentId, Millis)>,
    /// Starting, idle and busy, on demand.
    environments: u32,
    provisioned: Provisioned,
    /// Starts to come that are on their first call's clock.
    again: usize,
    prepare: Option<Prepare>,
    crashes_in_row: u32,
    start_not_before: Millis,
    /// Until then an empty lane is kept for what it knows of crashes; else a caller that comes alone, again and again,
    /// would never be held back.
    remember_until: Millis,
}

/// The provisioned environments of a lane.
#[derive(Debug, Default)]
struct Provisioned {
    wanted: u32,
    /// As in [`Lane::idle`].
    idle: Vec<EnvironmentId>,
    starting: u32,
    busy: u32,
    complete: bool,
    failed_by_function: Option<bool>,
    start_not_before: Millis,
}

impl Provisioned {
    fn ready(&self) -> u32 {
        self.busy + u32::try_from(self.idle.len()).unwrap_or(u32::MAX)
    }

    fn environments(&self) -> u32 {
        self.ready() + self.starting
    }

    fn lacks(&self) -> bool {
        self.environments() < self.wanted
    }

    /// What is taken of the function's concurrency for it, used or not. What cannot be had holds nothing: a function all of
    /// whose concurrency is provisioned runs on demand if it does not come up.
    fn held(&self) -> u32 {
        let promised = if self.failed_by_function.is_some() { self.ready() } else { self.wanted };
        promised.max(self.busy)
    }
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

    /// Starting, idle and busy, of both kinds.
    fn all_environments(&self) -> u32 {
        self.environments + self.provisioned.environments()
    }

    fn idle_of(&mut self, provisioned: bool) -> &mut Vec<EnvironmentId> {
        if provisioned { &mut self.provisioned.idle } else { &mut self.idle }
    }
}

#[derive(Debug)]
struct Function {
    name: String,
    /// Calls that run, and those of them in provisioned environments.
    busy: usize,
    busy_provisioned: usize,
    reserved: Option<u32>,
    /// Whether `reserved` comes from terms.
    told: bool,
    /// Of all lanes together.
    provisioned: u64,
    /// What it counts for in the account: see [`Pool::charge`].
    charge: u64,
    starts: Bucket,
    lanes: Vec<LaneKey>,
}

impl Function {
    /// Counts for what is reserved for it, or for what is taken; `charges` is the sum over all functions.
    fn charge_for(&mut self, taken: u64, charges: &mut u64) {
        let charge = self.reserved.map_or(taken, |reserved| taken.max(u64::from(reserved)));
        *charges = *charges - self.charge + charge;
        self.charge = charge;
    }

    /// Whether nothing of it is provisioned: then what is taken is what runs.
    fn on_demand_alone(&self) -> bool {
        self.provisioned == 0 && self.busy_provisioned == 0
    }

    /// Whether it holds concurrency although nothing of it is there.
    fn has_terms(&self) -> bool {
        self.told && (self.reserved.is_some() || self.provisioned > 0)
    }
}

/// New environments that a function may still get. In ten thousandths of one.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    missing: u64,
    at: Millis,
}

impl Bucket {
    const ONE: u64 = 10_000;

    /// Fills it with what has come since it was last looked at: all of `size` in ten seconds.
    fn fill(&mut self, size: u32, now: Millis) {
        let came = now.saturating_sub(self.at).saturating_mul(u64::from(size));
        self.missing = self.missing.saturating_sub(came);
        self.at = now;
    }

    /// When there is one to take, if there is none now.
    fn wait_until(&self, size: u32) -> Option<Millis> {
        let lacks = (self.missing + Self::ONE).saturating_sub(u64::from(size) * Self::ONE);
        (lacks > 0).then(|| self.at + lacks.div_ceil(u64::from(size.max(1))))
    }
}

/// A map by numbers that are ours: nobody chooses them, so they need no hash that withstands a choice, and each call looks
/// into such maps a dozen times.
type ByNumber<K, V> = HashMap<K, V, BuildHasherDefault<OwnNumber>>;

#[derive(Debug, Default)]
struct OwnNumber(u64);

impl Hasher for OwnNumber {
    fn write_u64(&mut self, number: u64) {
        // Spreads numbers that follow one another over the upper bits, too.
        self.0 = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(self.0 ^ u64::from(*byte)));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The pool of all functions of one machine.
#[derive(Debug)]
pub struct Pool<D> {
    limits: Limits,
    lane_keys: HashMap<String, LaneKey>,
    lanes: ByNumber<LaneKey, Lane<D>>,
    function_keys: HashMap<String, FunctionKey>,
    functions: ByNumber<FunctionKey, Function>,
    environments: ByNumber<EnvironmentId, Environment>,
    /// The lane of each waiting call. At most `calls_waiting_max`, and those of callers that wait for as long as it takes.
    waiting: ByNumber<CallId, LaneKey>,
    /// Waiting calls that wait for what is under way for them and no longer.
    impatient: HashSet<CallId>,
    /// Starts that count against `starts_at_once`, oldest first. At most that many.
    gate: VecDeque<(EnvironmentId, Millis)>,
    stopping: u32,
    /// Calls that run.
    busy: u64,
    /// On-demand environments that start.
    starting: usize,
    /// The sum of [`Function::charge`].
    charges: u64,
    /// What all environments count for, those that stop included.
    memory_mib: u64,
    /// Whether some lane wants a start for which the machine has no place.
    short_of_room: bool,
    /// Whether some call waits for the account's concurrency.
    short_of_account: bool,
    /// Whether the last start was of a provisioned environment.
    provisioned_last: bool,
    /// When a start that is held back by the gate, by a crash delay or by the bucket may be tried again.
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
    /// The machine is full, the gate is closed, the bucket is empty, or the lane has to wait after crashes.
    NotNow,
}

/// How the next call of a lane may be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Provisioned,
    Idle,
    Start,
}

impl<D: Clone> Pool<D> {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            lane_keys: HashMap::new(),
            lanes: ByNumber::default(),
            function_keys: HashMap::new(),
            functions: ByNumber::default(),
            environments: ByNumber::default(),
            waiting: ByNumber::default(),
            impatient: HashSet::new(),
            gate: VecDeque::new(),
            stopping: 0,
            busy: 0,
            starting: 0,
            charges: 0,
            memory_mib: 0,
            short_of_room: false,
            short_of_account: false,
            provisioned_last: false,
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
        let of_idle = self.environments.values().filter_map(|environment| {
            let State::Idle { since } = environment.state else { return None };
            let old = environment.started_at.saturating_add(self.limits.age_ms_max);
            let frozen = self.limits.freeze_after_ms.filter(|_| !environment.frozen).map(|ms| since.saturating_add(ms));
            let reaped =
                (!environment.provisioned).then(|| since.saturating_add(self.idle_timeout_ms(environment.lane)));
            [Some(old), frozen, reaped].into_iter().flatten().min()
        });
        of_idle.chain(self.alarm).min()
    }

    /// The part of [`Pool::wake_at`] that may move closer at any event (the rest is never closer than the idle
    /// time-out, or the time to the freezing).
    pub fn alarm(&self) -> Option<Millis> {
        self.alarm
    }

    /// How many environments there are, in any state.
    pub fn environments(&self) -> usize {
        self.environments.len()
    }

    /// Whether one of them may become due for freezing before it is heard of again.
    pub fn may_freeze(&self) -> bool {
        self.limits.freeze_after_ms.is_some()
            && self.environments.values().any(|e| !e.frozen && !matches!(e.state, State::Stopping))
    }

    /// How many calls wait.
    pub fn calls_waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How many calls of `function` run.
    pub fn busy(&self, function: &str) -> usize {
        self.function_keys.get(function).map_or(0, |key| self.functions[key].busy)
    }

    /// How many calls of a lane can run at once if nobody else takes anything: what its function may have, what others
    /// hold in the account, what the machine has room for. `reserved` as in [`Ask`].
    pub fn slots(&self, function: &str, deployment_id: &str, reserved: Option<u32>) -> u32 {
        let known = self.function_keys.get(function).map(|key| &self.functions[key]);
        let own = self.lane_keys.get(deployment_id).map_or(0, |key| u64::from(self.lanes[key].provisioned.wanted));
        let siblings = known.map_or(0, |function| function.provisioned).saturating_sub(own);
        let reserved = known.filter(|function| function.told).map_or(reserved, |function| function.reserved);
        let may_have = match reserved {
            Some(reserved) => u64::from(reserved),
            None => {
                let others = self.functions.values().filter(|other| other.name != function);
                let held = others.map(|other| other.reserved.map_or(other.provisioned, u64::from)).sum::<u64>();
                u64::from(self.limits.account_concurrency).saturating_sub(held)
            }
        };
        let slots = may_have.saturating_sub(siblings).min(u64::from(self.limits.environments_max));
        u32::try_from(slots).unwrap_or(u32::MAX)
    }

    /// How far the provisioned concurrency of a lane is.
    pub fn provisioning(&self, deployment_id: &str) -> Provisioning {
        let Some(key) = self.lane_keys.get(deployment_id) else { return Provisioning::default() };
        let provisioned = &self.lanes[key].provisioned;
        Provisioning {
            wanted: provisioned.wanted,
            ready: provisioned.ready(),
            complete: provisioned.complete,
            failed_by_function: provisioned.failed_by_function,
        }
    }

    /// A call came.
    pub fn ask(&mut self, ask: Ask<'_, D>, now: Millis) {
        let lane_key = self.lane_keys.get(ask.target.deployment_id).copied();
        let function_key = match lane_key {
            Some(key) => Some(self.lanes[&key].function),
            None => self.function_keys.get(ask.target.function).copied(),
        };
        let known = function_key.map(|key| &self.functions[&key]);
        let (before, told) = known.map_or((None, false), |function| (function.reserved, function.told));
        let reserved = if told { before } else { ask.reserved };
        if reserved == Some(0) {
            return self.throttle(ask.call, Throttle::ReservedFunctionConcurrentInvocationLimitExceeded);
        }
        let key = lane_key.unwrap_or_else(|| self.lane(&ask.target, now));
        let turn = self.next_turn;
        self.next_turn += 1;
        let lane = self.lanes.get_mut(&key).expect("just looked up or made");
        lane.waiting.push_back(Waiting { call: ask.call, turn });
        let function_key = lane.function;
        self.waiting.insert(ask.call, key);
        // Without terms, the newest call knows the newest limit.
        if before != reserved {
            self.functions.get_mut(&function_key).expect("a lane has a function").reserved = reserved;
            self.recharge(function_key);
        }
        self.serve(function_key, usize::MAX, now);
        if self.waiting.contains_key(&ask.call) {
            let waits = match ask.patience {
                Patience::UnderWay => false,
                Patience::Place => self.waiting.len() <= self.limits.calls_waiting_max && self.has_room(function_key),
                Patience::All => true,
            };
            if !waits {
                self.patience_ended(ask.call, now);
            }
        }
        self.forget_lane_if_empty(key, now);
    }

    /// The call does not wait any longer, unless an environment is under way for it: then it waits for that. Returns
    /// whether it still waits.
    pub fn patience_ended(&mut self, call: CallId, now: Millis) -> bool {
        let waits = self.waits_on(call, now);
        if !waits && self.short_of_account {
            self.serve_all(now);
        }
        waits
    }

    /// As [`Pool::patience_ended`], without a look at other functions.
    fn waits_on(&mut self, call: CallId, now: Millis) -> bool {
        let Some(&key) = self.waiting.get(&call) else { return false };
        let lane = &self.lanes[&key];
        let place = lane.waiting.iter().position(|w| w.call == call);
        if place.is_some_and(|place| place < lane.served_soon(now) + lane.again) {
            self.impatient.insert(call);
            if let Some((_, since)) = lane.finishing.iter().min_by_key(|(_, since)| *since) {
                self.set_alarm(since.saturating_add(FINISHING_MS));
            }
            return true;
        }
        // Asked before the call leaves, whose own claim is none: nothing is under way for it.
        let reason = self.why_refused(lane.function, now);
        self.leave(call, now);
        self.throttle(call, reason);
        false
    }

    /// The caller of a waiting call left. A call that runs is not touched: its environment is free when the function
    /// has finished, not when nobody listens any more.
    pub fn gave_up(&mut self, call: CallId, now: Millis) {
        if self.leave(call, now) && self.short_of_account {
            self.serve_all(now);
        }
    }

    /// Takes a call out that waits; `false` if it does not. One claim less on the function's concurrency: another lane of it
    /// may go, and on the account's, which is left to the caller.
    fn leave(&mut self, call: CallId, now: Millis) -> bool {
        let Some(key) = self.waiting.remove(&call) else { return false };
        self.impatient.remove(&call);
        let lane = self.lanes.get_mut(&key).expect("a waiting call has a lane");
        lane.waiting.retain(|w| w.call != call);
        lane.again = lane.again.min(lane.waiting.len());
        let function = lane.function;
        self.serve(function, usize::MAX, now);
        self.forget_lane_if_empty(key, now);
        true
    }

    /// Says what a function's reserved concurrency is, and how many environments of which lanes are to be kept ready. It
    /// holds from now on, also for calls that wait. Whatever else of it was provisioned is let go.
    pub fn set_terms(
        &mut self,
        function: &str,
        reserved: Option<u32>,
        provisioned: &[(Target<'_, D>, u32)],
        now: Millis,
    ) {
        let function_key = self.function(function, now);
        let wanted: Vec<(LaneKey, u32)> =
            provisioned.iter().map(|(target, wanted)| (self.lane(target, now), *wanted)).collect();
        let function = self.functions.get_mut(&function_key).expect("just looked up or made");
        function.told = true;
        function.reserved = reserved;
        function.provisioned = wanted.iter().map(|(_, wanted)| u64::from(*wanted)).sum();
        let lanes = function.lanes.clone();
        for key in &lanes {
            let lane = self.lanes.get_mut(key).expect("a function's lanes exist");
            let wanted = wanted.iter().find(|(wanted, _)| wanted == key).map_or(0, |(_, wanted)| *wanted);
            // One place stays for everybody else; what the machine can never have must hold nothing.
            let wanted = wanted.min(self.limits.environments_max.saturating_sub(1));
            if lane.provisioned.wanted != wanted {
                lane.provisioned.wanted = wanted;
                lane.provisioned.complete = wanted > 0 && lane.provisioned.ready() >= wanted;
                lane.provisioned.failed_by_function = None;
                lane.provisioned.start_not_before = 0;
            }
        }
        self.recharge(function_key);
        for key in &lanes {
            self.stop_surplus(*key);
            if reserved == Some(0) {
                // Nothing will ever come free for them.
                let calls: Vec<CallId> = self.lanes[key].waiting.iter().map(|waiting| waiting.call).collect();
                for call in calls {
                    if self.leave(call, now) {
                        self.throttle(call, Throttle::ReservedFunctionConcurrentInvocationLimitExceeded);
                    }
                }
            }
        }
        self.serve_all(now);
        for key in lanes {
            self.forget_lane_if_empty(key, now);
        }
        self.forget_function_if_empty(function_key, now);
    }

    /// Says that calls of this lane are about to come, so many at once: starts environments for them while there is room
    /// that nobody else asks for. Best effort: it takes no place and no concurrency from anybody, and gives up after a
    /// while.
    pub fn prepare(&mut self, target: &Target<'_, D>, wanted: u32, now: Millis) {
        let key = self.lane(target, now);
        let lane = self.lanes.get_mut(&key).expect("just looked up or made");
        lane.prepare = Some(Prepare { wanted, until: now.saturating_add(PREPARE_MS) });
        self.start_prepared(now);
        self.forget_lane_if_empty(key, now);
    }

    /// Keeps nothing ready any more: nothing is started but for a call.
    pub fn let_go(&mut self) {
        for lane in self.lanes.values_mut() {
            lane.provisioned.wanted = 0;
            lane.prepare = None;
        }
        let keys: Vec<FunctionKey> = self.functions.keys().copied().collect();
        for key in keys {
            self.functions.get_mut(&key).expect("just listed").provisioned = 0;
            self.recharge(key);
        }
    }

    /// A starting environment is ready for its first call.
    pub fn ready(&mut self, id: EnvironmentId, now: Millis) {
        let Some(environment) = self.environments.get_mut(&id) else { return };
        if environment.state != State::Starting {
            return;
        }
        environment.state = State::Idle { since: now };
        let (key, provisioned) = (environment.lane, environment.provisioned);
        self.gate.retain(|(started, _)| *started != id);
        let lane = self.lanes.get_mut(&key).expect("an environment has a lane");
        lane.idle_of(provisioned).push(id);
        if provisioned {
            lane.provisioned.starting -= 1;
            lane.provisioned.failed_by_function = None;
            lane.provisioned.complete |= lane.provisioned.ready() >= lane.provisioned.wanted;
        } else {
            lane.starting -= 1;
            self.starting -= 1;
        }
        let function = lane.function;
        if provisioned {
            self.recharge(function);
            self.stop_surplus(key);
        }
        self.fresh = Some(id);
        self.serve(function, usize::MAX, now);
        self.fresh = None;
        self.stop_if_retired(id);
        // The gate opened for others.
        self.serve_all(now);
        self.freeze_if_due(id, now);
    }

    /// A starting environment did not come up. `by_function`: it was the function's fault.
    pub fn start_failed(&mut self, id: EnvironmentId, by_function: bool, now: Millis) {
        let Some(key) = self.end_start(id) else { return };
        let lane = self.lanes.get_mut(&key).expect("an environment has a lane");
        lane.prepare = None;
        if self.environments[&id].provisioned {
            lane.provisioned.failed_by_function = Some(by_function);
            lane.provisioned.start_not_before = now.saturating_add(PROVISION_RETRY_MS);
            let function = lane.function;
            self.recharge(function);
        } else if let Some(Waiting { call, .. }) = lane.waiting.pop_front() {
            self.waiting.remove(&call);
            self.impatient.remove(&call);
            self.effects.push_back(Effect::Fail { environment: id, call });
        }
        self.crashed(key, now);
        self.serve_all(now);
    }

    /// A starting environment took too long and is being ended; its initialization is to run again, in another one, on
    /// the clock of the call that waits for it.
    pub fn init_timed_out(&mut self, id: EnvironmentId, now: Millis) {
        let Some(key) = self.end_start(id) else { return };
        let lane = self.lanes.get_mut(&key).expect("an environment has a lane");
        lane.again += 1;
        lane.prepare = None;
        self.serve_all(now);
    }

    /// Takes a starting environment out of its lane.
    fn end_start(&mut self, id: EnvironmentId) -> Option<LaneKey> {
        let environment = self.environments.get(&id).filter(|e| e.state == State::Starting)?;
        let (key, provisioned) = (environment.lane, environment.provisioned);
        self.gate.retain(|(started, _)| *started != id);
        self.begin_stopping(id);
        let lane = self.lanes.get_mut(&key).expect("an environment has a lane");
        if provisioned {
            lane.provisioned.starting -= 1;
        } else {
            lane.starting -= 1;
            self.starting -= 1;
        }
        Some(key)
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
        let (key, provisioned, retired) = (environment.lane, environment.provisioned, environment.retired);
        let old = now.saturating_sub(environment.started_at) >= self.limits.age_ms_max;
        let lane = self.lanes.get_mut(&key).expect("an environment has a lane");
        lane.crashes_in_row = 0;
        lane.start_not_before = 0;
        lane.idle_of(provisioned).push(id);
        let function = lane.function;
        self.no_longer_busy(id, key, provisioned);
        if retired {
            self.stop(id, StopReason::Retired);
        } else if old {
            self.stop(id, StopReason::Old);
        } else if provisioned {
            self.stop_surplus(key);
        } else if self.short_of_room && self.should_give_way(key, now) {
            self.stop(id, StopReason::RoomNeeded);
        }
        self.fresh = Some(id);
        if self.short_of_account {
            // What came free may be somebody else's.
            self.serve_all(now);
        } else {
            self.serve(function, usize::MAX, now);
        }
        self.fresh = None;
        // Work of its own came first; if there is none, its place may be what another lane waits for.
        if self.short_of_room && self.environments.get(&id).is_some_and(|e| !matches!(e.state, State::Busy { .. })) {
            self.serve_all(now);
        }
        self.freeze_if_due(id, now);
    }

    /// The most that an environment was seen to use, in MiB.
    pub fn measured(&mut self, id: EnvironmentId, mib: u64) {
        let Some(environment) = self.environments.get(&id).filter(|e| e.state != State::Stopping) else { return };
        let lane = self.lanes.get_mut(&environment.lane).expect("an environment has a lane");
        if lane.memory_measured && mib <= lane.memory_mib {
            return;
        }
        let count = u64::from(lane.all_environments());
        self.memory_mib = self.memory_mib - count * lane.memory_mib + count * mib;
        lane.memory_mib = mib;
        lane.memory_measured = true;
    }

    /// An environment ended by itself, or was killed because its time was up. `crashed`: it was not us who ended it.
    pub fn died(&mut self, id: EnvironmentId, crashed: bool, now: Millis) {
        let Some(environment) = self.environments.get(&id) else { return };
        let (key, provisioned) = (environment.lane, environment.provisioned);
        match environment.state {
            State::Starting => return self.start_failed(id, true, now),
            State::Stopping => return,
            State::Idle { .. } => self.begin_stopping(id),
            State::Busy { .. } => {
                self.begin_stopping(id);
                self.no_longer_busy(id, key, provisioned);
            }
        }
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
        self.memory_mib -= environment.stopping_mib;
        self.serve_all(now);
        self.forget_lane_if_empty(environment.lane, now);
    }

    /// The deployment is no more: its version was changed or deleted. No environment of it that exists now serves another
    /// call, and its calls that wait are given back. Calls that run are finished.
    pub fn retire(&mut self, deployment_id: &str, now: Millis) {
        let Some(&key) = self.lane_keys.get(deployment_id) else { return };
        for (_, environment) in self.environments.iter_mut().filter(|(_, e)| e.lane == key) {
            environment.retired = true;
        }
        let lane = self.lanes.get_mut(&key).expect("a lane has a key");
        lane.prepare = None;
        lane.again = 0;
        for Waiting { call, .. } in lane.waiting.drain(..) {
            self.waiting.remove(&call);
            self.impatient.remove(&call);
            self.effects.push_back(Effect::Gone { call });
        }
        let idle: Vec<EnvironmentId> = lane.idle.iter().chain(&lane.provisioned.idle).copied().collect();
        for id in idle {
            self.stop(id, StopReason::Retired);
        }
        self.serve_all(now);
        self.forget_lane_if_empty(key, now);
    }

    /// Time passed: reaps what was idle too long or is too old, freezes what is due, tries what was held back.
    pub fn tick(&mut self, now: Millis) {
        let mut reaped = Vec::new();
        let mut frozen = Vec::new();
        for (id, environment) in &self.environments {
            let State::Idle { since } = environment.state else { continue };
            let idle_ms = now.saturating_sub(since);
            if now.saturating_sub(environment.started_at) >= self.limits.age_ms_max {
                reaped.push((since, *id, StopReason::Old));
            } else if !environment.provisioned && idle_ms >= self.idle_timeout_ms(environment.lane) {
                reaped.push((since, *id, StopReason::Idle));
            } else if !environment.frozen && self.limits.freeze_after_ms.is_some_and(|after| idle_ms >= after) {
                frozen.push(*id);
            }
        }
        reaped.sort_unstable_by_key(|(since, id, _)| (*since, *id));
        let some_old = reaped.iter().any(|(_, _, why)| *why == StopReason::Old);
        for (_, id, why) in reaped {
            self.stop(id, why);
        }
        for id in frozen {
            self.freeze_if_due(id, now);
        }
        if some_old || self.alarm.is_some_and(|at| at <= now) {
            self.serve_all(now);
        }
        let keys: Vec<LaneKey> = self.lanes.keys().copied().collect();
        for key in keys {
            if let Some(lane) = self.lanes.get_mut(&key)
                && lane.prepare.is_some_and(|prepare| prepare.until <= now)
            {
                lane.prepare = None;
            }
            self.forget_lane_if_empty(key, now);
        }
        let empty = self.functions.iter().filter(|(_, function)| function.lanes.is_empty());
        for key in empty.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.forget_function_if_empty(key, now);
        }
    }

    // --- how it is decided ---

    fn function(&mut self, name: &str, now: Millis) -> FunctionKey {
        if let Some(key) = self.function_keys.get(name) {
            return *key;
        }
        let key = FunctionKey(self.next_id);
        self.next_id += 1;
        self.function_keys.insert(name.to_owned(), key);
        self.functions.insert(
            key,
            Function {
                name: name.to_owned(),
                busy: 0,
                busy_provisioned: 0,
                reserved: None,
                told: false,
                provisioned: 0,
                charge: 0,
                starts: Bucket { missing: 0, at: now },
                lanes: Vec::new(),
            },
        );
        key
    }

    fn lane(&mut self, target: &Target<'_, D>, now: Millis) -> LaneKey {
        if let Some(key) = self.lane_keys.get(target.deployment_id) {
            return *key;
        }
        let function = self.function(target.function, now);
        let key = LaneKey(self.next_id);
        self.next_id += 1;
        self.lane_keys.insert(target.deployment_id.to_owned(), key);
        self.lanes.insert(
            key,
            Lane {
                id: target.deployment_id.to_owned(),
                function,
                deployment: target.deployment.clone(),
                memory_mib: u64::from(target.memory_mib),
                memory_measured: false,
                idle_timeout_ms: target.idle_timeout_ms,
                idle: Vec::new(),
                waiting: VecDeque::new(),
                starting: 0,
                finishing: Vec::new(),
                environments: 0,
                provisioned: Provisioned::default(),
                again: 0,
                prepare: None,
                crashes_in_row: 0,
                start_not_before: 0,
                remember_until: 0,
            },
        );
        self.functions.get_mut(&function).expect("just looked up or made").lanes.push(key);
        key
    }

    fn forget_lane_if_empty(&mut self, key: LaneKey, now: Millis) {
        let Some(lane) = self.lanes.get(&key) else { return };
        let kept = lane.all_environments() > 0
            || !lane.waiting.is_empty()
            || lane.provisioned.wanted > 0
            || lane.prepare.is_some()
            || lane.remember_until > now;
        if kept {
            return;
        }
        // Its environments that are still stopping name it no more than by a key that finds nothing.
        let lane = self.lanes.remove(&key).expect("just found");
        self.lane_keys.remove(&lane.id);
        if let Some(function) = self.functions.get_mut(&lane.function) {
            function.lanes.retain(|k| *k != key);
        }
        self.forget_function_if_empty(lane.function, now);
    }

    fn forget_function_if_empty(&mut self, key: FunctionKey, now: Millis) {
        let Some(function) = self.functions.get_mut(&key) else { return };
        if let Some(size) = self.limits.scale_up {
            function.starts.fill(size, now);
        }
        // A bucket that is not full yet is remembered, or a function could have another one.
        if function.lanes.is_empty() && !function.has_terms() && function.starts.missing == 0 {
            let function = self.functions.remove(&key).expect("just found");
            self.function_keys.remove(&function.name);
            self.charges -= function.charge;
        }
    }

    fn throttle(&mut self, call: CallId, reason: Throttle) {
        self.effects.push_back(Effect::Throttle { call, reason });
    }

    /// What is taken of a function's concurrency: calls that run on demand, and provisioned concurrency whether it runs
    /// or not.
    fn taken(&self, function: &Function) -> u64 {
        let busy = function.busy as u64;
        if function.on_demand_alone() {
            return busy;
        }
        let lanes = function.lanes.iter().map(|key| &self.lanes[key].provisioned);
        let provisioned: u64 = lanes.map(|p| u64::from(p.held())).sum();
        busy - function.busy_provisioned as u64 + provisioned
    }

    /// As [`Pool::taken`], with the starts that a waiting call will use.
    fn claimed(&self, function: &Function) -> u64 {
        let covered = function.lanes.iter().map(|key| self.lanes[key].covered() as u64).sum::<u64>();
        self.taken(function) + covered
    }

    /// What a function counts for in the account: what is reserved for it, or what is taken. Called whenever one of them
    /// changes.
    fn recharge(&mut self, key: FunctionKey) {
        let taken = self.taken(&self.functions[&key]);
        let function = self.functions.get_mut(&key).expect("just looked up");
        function.charge_for(taken, &mut self.charges);
    }

    /// Whether one more call of the function may be taken on: on demand, and without a start that is under way for it.
    fn has_room(&self, key: FunctionKey) -> bool {
        let function = &self.functions[&key];
        match function.reserved {
            Some(reserved) => self.claimed(function) < u64::from(reserved),
            None => self.account_has_room(),
        }
    }

    /// Whether the account has concurrency that is neither used nor held for somebody.
    fn account_has_room(&self) -> bool {
        let max = u64::from(self.limits.account_concurrency);
        // No more claims than starts: usually that is enough to know.
        if self.charges + (self.starting as u64) < max {
            return true;
        }
        let held = self.functions.values().map(|function| {
            let claimed = self.claimed(function);
            function.reserved.map_or(claimed, |reserved| claimed.max(u64::from(reserved)))
        });
        held.sum::<u64>() < max
    }

    /// Whether a call of the function may begin now, wherever. Held even where limits were lowered below what runs.
    fn may_run(&self, function: &Function) -> bool {
        self.busy < u64::from(self.limits.account_concurrency)
            && function.reserved.is_none_or(|reserved| function.busy < reserved as usize)
    }

    /// What a call of the function is told that is refused now.
    fn why_refused(&self, key: FunctionKey, now: Millis) -> Throttle {
        let function = &self.functions[&key];
        if function.reserved.is_some() && !self.has_room(key) {
            return Throttle::ReservedFunctionConcurrentInvocationLimitExceeded;
        }
        if self.has_room(key)
            && let Some(size) = self.limits.scale_up
        {
            let mut starts = function.starts;
            starts.fill(size, now);
            match (starts.wait_until(size), function.reserved) {
                (Some(_), Some(_)) => return Throttle::ReservedFunctionInvocationRateLimitExceeded,
                (Some(_), None) => return Throttle::FunctionInvocationRateLimitExceeded,
                (None, _) => {}
            }
        }
        Throttle::ConcurrentInvocationLimitExceeded
    }

    /// Serves the waiting calls of one function, oldest first: with provisioned environments, with idle ones, and with at
    /// most `starts_max` starts.
    fn serve(&mut self, function_key: FunctionKey, mut starts_max: usize, now: Millis) {
        // The turn up to which this round has looked: lanes that cannot go now are passed over, once.
        let mut looked_at: Option<u64> = None;
        // Whether there may still be concurrency on demand. Oldest first: what is newer must not take the concurrency that
        // an older one waits for; what is provisioned is no other lane's.
        let mut on_demand = true;
        loop {
            let mut soon_back: Option<Millis> = None;
            let Some(function) = self.functions.get(&function_key) else { return };
            let may_run = self.may_run(function);
            let mut oldest: Option<(u64, LaneKey, Way)> = None;
            for key in &function.lanes {
                let lane = &self.lanes[key];
                let Some(first) = lane.waiting.front() else { continue };
                let provisioned = &lane.provisioned;
                let wish = if may_run && !provisioned.idle.is_empty() && provisioned.busy < provisioned.wanted {
                    (first.turn, *key, Way::Provisioned)
                } else if !on_demand {
                    continue;
                } else if !lane.idle.is_empty() {
                    (first.turn, *key, Way::Idle)
                } else {
                    match lane.first_uncovered(now) {
                        Some(turn) => (turn, *key, Way::Start),
                        None => {
                            let back = lane.finishing.iter().map(|(_, since)| since.saturating_add(FINISHING_MS)).min();
                            soon_back = [soon_back, back].into_iter().flatten().min();
                            continue;
                        }
                    }
                };
                if looked_at.is_none_or(|turn| turn < wish.0) && oldest.is_none_or(|oldest| wish < oldest) {
                    oldest = Some(wish);
                }
            }
            // If it is not back by then, a start is made after all.
            if let Some(at) = soon_back {
                self.set_alarm(at);
            }
            let Some((turn, key, way)) = oldest else { return };
            match way {
                Way::Provisioned => {
                    self.run(key, true);
                    looked_at = None;
                }
                Way::Idle => {
                    // A call that a start already covers brings its claim along.
                    let lane = &self.lanes[&key];
                    let has_claim = lane.waiting.len() <= lane.starting;
                    if may_run && (has_claim || self.has_room(function_key)) {
                        self.run(key, false);
                        looked_at = None;
                    } else {
                        self.short_of_account |= self.waits_for_account(function_key);
                        on_demand = false;
                    }
                }
                Way::Start if starts_max == 0 => return,
                Way::Start if !self.has_room(function_key) => {
                    self.short_of_account |= self.waits_for_account(function_key);
                    on_demand = false;
                }
                Way::Start => match self.try_start(key, Kind::OnDemand, now) {
                    Started::Yes => {
                        starts_max -= 1;
                        looked_at = None;
                    }
                    Started::NotNow => looked_at = Some(turn),
                },
            }
        }
    }

    /// Whether it is the account's concurrency that a call of the function waits for, if it waits for any.
    fn waits_for_account(&self, key: FunctionKey) -> bool {
        self.functions[&key].reserved.is_none() || self.busy >= u64::from(self.limits.account_concurrency)
    }

    /// Serves every function that has waiting calls: first the lanes with the fewest environments (where the account is
    /// full: the functions with the fewest calls that run), then the oldest call. What is provisioned comes before them,
    /// what is only prepared after them. Starts are rare and dear, so a pass over the lanes at each is cheap.
    fn serve_all(&mut self, now: Millis) {
        // Calls that leave in a round may let others go. One round after the other, and not one in the other: thousands may
        // leave at once.
        while self.serve_round(now) {}
        self.start_prepared(now);
    }

    /// One round of [`Pool::serve_all`]. Returns whether there has to be another.
    fn serve_round(&mut self, now: Millis) -> bool {
        let by_calls = self.short_of_account;
        self.alarm = None;
        self.short_of_room = false;
        self.short_of_account = false;
        self.start_provisioned(true, now);
        loop {
            let mut hungry: Vec<(u64, u64, FunctionKey)> = self
                .lanes
                .values()
                .filter(|lane| !lane.waiting.is_empty())
                .map(|lane| {
                    let has =
                        if by_calls { self.functions[&lane.function].busy as u64 } else { lane.environments.into() };
                    let turn = if by_calls { lane.waiting.front().map(|w| w.turn) } else { lane.first_uncovered(now) };
                    (has, turn.unwrap_or(u64::MAX), lane.function)
                })
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
        self.start_provisioned(false, now);
        // What was under way for some may have come to nothing.
        let mut left = false;
        for call in self.impatient.iter().copied().collect::<Vec<_>>() {
            left |= !self.waits_on(call, now);
        }
        left && self.short_of_account
    }

    /// Whether the machine has a place for one more provisioned environment: one stays for everybody else.
    fn may_provision(&self) -> bool {
        let provisioned: u32 = self.lanes.values().map(|lane| lane.provisioned.environments()).sum();
        provisioned + 1 < self.limits.environments_max
    }

    /// Starts what is provisioned and not there. `in_turn`: after each such start one of a waiting call comes first.
    fn start_provisioned(&mut self, in_turn: bool, now: Millis) {
        let lacking: Vec<LaneKey> =
            self.lanes.iter().filter(|(_, lane)| lane.provisioned.lacks()).map(|(key, _)| *key).collect();
        for key in lacking {
            while self.lanes[&key].provisioned.lacks() {
                let not_before = self.lanes[&key].provisioned.start_not_before;
                if not_before > now {
                    self.set_alarm(not_before);
                    break;
                }
                let others_turn = in_turn
                    && self.provisioned_last
                    && self.lanes.values().any(|lane| lane.first_uncovered(now).is_some());
                if others_turn
                    || !self.may_provision()
                    || self.try_start(key, Kind::Provisioned, now) == Started::NotNow
                {
                    break;
                }
            }
        }
    }

    /// Starts what is prepared and not there, where nobody else wants anything.
    fn start_prepared(&mut self, now: Millis) {
        let prepared: Vec<(LaneKey, u32)> = self
            .lanes
            .iter()
            .filter_map(|(key, lane)| lane.prepare.filter(|p| now < p.until).map(|prepare| (*key, prepare.wanted)))
            .collect();
        for (key, wanted) in prepared {
            loop {
                let lane = &self.lanes[&key];
                let function = &self.functions[&lane.function];
                let on_demand: u32 = function.lanes.iter().map(|key| self.lanes[key].environments).sum();
                let useful = match function.reserved {
                    Some(reserved) => u64::from(on_demand) + function.provisioned < u64::from(reserved),
                    None => self.account_has_room(),
                };
                if lane.all_environments() >= wanted || !useful {
                    break;
                }
                // Another function's call that needs a start finds the gate open, where there is more than one way in.
                let gate = self.limits.starts_at_once.saturating_sub(1).max(1) as usize;
                let nobody_waits = self.waiting.is_empty() && !self.lanes.values().any(|l| l.provisioned.lacks());
                let place = self.environments.len() < self.limits.environments_max as usize;
                let memory = self.memory_mib + lane.memory_mib <= self.limits.memory_mib_max;
                if !nobody_waits || !place || !memory || self.gate.len() >= gate {
                    break;
                }
                if self.try_start(key, Kind::OnDemand, now) == Started::NotNow {
                    break;
                }
            }
        }
    }

    fn run(&mut self, key: LaneKey, provisioned: bool) {
        let lane = self.lanes.get_mut(&key).expect("the lane was just looked at");
        let id = lane.idle_of(provisioned).pop().expect("an idle environment was just seen");
        let Waiting { call, .. } = lane.waiting.pop_front().expect("a waiting call was just seen");
        let function_key = lane.function;
        let function = self.functions.get_mut(&function_key).expect("a lane has a function");
        function.busy += 1;
        self.busy += 1;
        if provisioned {
            lane.provisioned.busy += 1;
            function.busy_provisioned += 1;
        }
        if function.on_demand_alone() {
            function.charge_for(function.busy as u64, &mut self.charges);
        } else {
            self.recharge(function_key);
        }
        self.waiting.remove(&call);
        if !self.impatient.is_empty() {
            self.impatient.remove(&call);
        }
        let environment = self.environments.get_mut(&id).expect("an idle environment exists");
        environment.state = State::Busy { call };
        environment.frozen = false;
        let was_idle = self.fresh != Some(id);
        self.effects.push_back(Effect::Run { environment: id, call, was_idle });
    }

    fn no_longer_busy(&mut self, id: EnvironmentId, key: LaneKey, provisioned: bool) {
        let lane = self.lanes.get_mut(&key).expect("an environment has a lane");
        lane.not_finishing(id);
        let function_key = lane.function;
        let function = self.functions.get_mut(&function_key).expect("a lane has a function");
        function.busy -= 1;
        self.busy -= 1;
        if provisioned {
            lane.provisioned.busy -= 1;
            function.busy_provisioned -= 1;
        }
        if function.on_demand_alone() {
            function.charge_for(function.busy as u64, &mut self.charges);
        } else {
            self.recharge(function_key);
        }
    }

    fn try_start(&mut self, key: LaneKey, mut kind: Kind, now: Millis) -> Started {
        let lane = &self.lanes[&key];
        let (function_key, memory_mib) = (lane.function, lane.memory_mib);
        let not_before = lane.start_not_before;
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
        let function = self.functions.get_mut(&function_key).expect("a lane has a function");
        if let Some(size) = self.limits.scale_up {
            function.starts.fill(size, now);
            if let Some(at) = function.starts.wait_until(size) {
                self.set_alarm(at);
                return Started::NotNow;
            }
        }
        // Whatever is provisioned, whatever it takes: one on demand may always be there.
        let alone = |kind| kind != Kind::Provisioned && self.environments.values().all(|e| e.provisioned);
        let full = self.environments.len() >= self.limits.environments_max as usize
            || (self.memory_mib + memory_mib > self.limits.memory_mib_max && !alone(kind));
        if full {
            self.short_of_room = true;
            // One place at a time: a place that is coming free is enough for the one start that waits for it.
            if self.stopping == 0
                && let Some(id) = self.longest_idle()
            {
                self.stop(id, StopReason::RoomNeeded);
            }
            return Started::NotNow;
        }
        if self.limits.scale_up.is_some() {
            function.starts.missing += Bucket::ONE;
        }
        let id = EnvironmentId(self.next_id);
        self.next_id += 1;
        let provisioned = kind == Kind::Provisioned;
        self.provisioned_last = provisioned;
        self.environments.insert(
            id,
            Environment {
                lane: key,
                state: State::Starting,
                provisioned,
                retired: false,
                frozen: false,
                started_at: now,
                stopping_mib: 0,
            },
        );
        self.memory_mib += memory_mib;
        self.gate.push_back((id, now));
        let lane = self.lanes.get_mut(&key).expect("the lane was just looked at");
        if provisioned {
            lane.provisioned.starting += 1;
        } else {
            lane.starting += 1;
            self.starting += 1;
            lane.environments += 1;
            if lane.again.min(lane.waiting.len()) > 0 {
                kind = Kind::Again;
            }
            lane.again = lane.again.saturating_sub(1);
        }
        if lane.crashes_in_row > self.limits.crashes_free {
            lane.start_not_before = now.saturating_add(crash_delay(&self.limits, lane.crashes_in_row));
        }
        self.effects.push_back(Effect::Start { environment: id, deployment: lane.deployment.clone(), kind });
        Started::Yes
    }

    fn set_alarm(&mut self, at: Millis) {
        self.alarm = Some(self.alarm.map_or(at, |alarm| alarm.min(at)));
    }

    /// How long an environment of this lane stays without work now.
    fn idle_timeout_ms(&self, key: LaneKey) -> Millis {
        let own = self.lanes.get(&key).and_then(|lane| lane.idle_timeout_ms);
        let usual = own.unwrap_or(self.limits.idle_timeout_ms);
        // Four fifths: before starts have to be refused.
        if self.memory_mib * 5 > self.limits.memory_mib_max.saturating_mul(4) {
            self.limits.idle_timeout_short_ms.min(usual)
        } else {
            usual
        }
    }

    /// Of those on demand: what is provisioned makes no room.
    fn longest_idle(&self) -> Option<EnvironmentId> {
        self.lanes
            .values()
            .filter_map(|lane| {
                let id = *lane.idle.first()?;
                match self.environments[&id].state {
                    State::Idle { since } => Some((since, id)),
                    _ => None,
                }
            })
            .min()
            .map(|(_, id)| id)
    }

    /// Whether an on-demand environment of this lane, just released, should make room: for one that is provisioned, or for a
    /// lane that has too few: one with at least two environments less, or one with none whose call is older than what
    /// waits here. Two less and not one: a place would go back and forth between equals, and every move costs a cold
    /// start.
    fn should_give_way(&self, key: LaneKey, now: Millis) -> bool {
        if self.stopping > 0 {
            return false;
        }
        let own = &self.lanes[&key];
        let own_turn = own.waiting.front().map_or(u64::MAX, |w| w.turn);
        self.lanes.iter().any(|(other_key, other)| {
            if other.provisioned.lacks() && other.provisioned.start_not_before <= now && self.may_provision() {
                return true;
            }
            let Some(turn) = other.first_uncovered(now) else { return false };
            *other_key != key
                && (own.environments >= other.environments + 2 || (other.environments == 0 && turn < own_turn))
                && self.has_room(other.function)
        })
    }

    fn stop_if_retired(&mut self, id: EnvironmentId) {
        let retired_and_idle =
            self.environments.get(&id).is_some_and(|e| e.retired && matches!(e.state, State::Idle { .. }));
        if retired_and_idle {
            self.stop(id, StopReason::Retired);
        }
    }

    /// Stops idle environments of the lane that are provisioned and more than are wanted.
    fn stop_surplus(&mut self, key: LaneKey) {
        while let Some(lane) = self.lanes.get(&key)
            && lane.provisioned.ready() > lane.provisioned.wanted
            && let Some(id) = lane.provisioned.idle.first()
        {
            self.stop(*id, StopReason::NotProvisioned);
        }
    }

    /// Stops an idle environment.
    fn stop(&mut self, id: EnvironmentId, why: StopReason) {
        debug_assert!(matches!(self.environments[&id].state, State::Idle { .. }));
        self.begin_stopping(id);
        self.effects.push_back(Effect::Stop { environment: id, why });
    }

    /// From here on the environment is none of its lane's any more. Whoever calls it counts a start or a call.
    fn begin_stopping(&mut self, id: EnvironmentId) {
        let environment = self.environments.get_mut(&id).expect("only an environment that exists is stopped");
        let lane = self.lanes.get_mut(&environment.lane).expect("an environment has a lane");
        if matches!(environment.state, State::Idle { .. }) {
            lane.idle_of(environment.provisioned).retain(|idle| *idle != id);
        }
        if !environment.provisioned {
            lane.environments -= 1;
        }
        environment.state = State::Stopping;
        environment.stopping_mib = lane.memory_mib;
        self.stopping += 1;
        let (provisioned, function) = (environment.provisioned, lane.function);
        if provisioned {
            self.recharge(function);
        }
    }

    /// Freezes an environment that has been idle long enough.
    fn freeze_if_due(&mut self, id: EnvironmentId, now: Millis) {
        let Some(after) = self.limits.freeze_after_ms else { return };
        if let Some(environment) = self.environments.get_mut(&id)
            && let State::Idle { since } = environment.state
            && !environment.frozen
            && now.saturating_sub(since) >= after
        {
            environment.frozen = true;
            self.effects.push_back(Effect::Freeze { environment: id });
        }
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

/// How long after a provisioned environment did not come up the next is tried: what it lacked may be there by then.
const PROVISION_RETRY_MS: Millis = 60_000;

/// How long a lane is prepared for calls that do not come: what could be started for it was by then.
const PREPARE_MS: Millis = 30_000;

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
            idle_timeout_short_ms: 100,
            account_concurrency: 1_000,
            scale_up: None,
            age_ms_max: 1_000_000,
            memory_mib_max: 100_000,
            freeze_after_ms: None,
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
            let patience = if may_wait { Patience::All } else { Patience::UnderWay };
            self.ask_for(deployment, reserved, patience)
        }

        fn ask_for(
            &mut self,
            deployment: &'static str,
            reserved: Option<u32>,
            patience: Patience,
        ) -> Vec<Effect<&'static str>> {
            self.calls += 1;
            self.pool.ask(Ask { call: CallId(self.calls), target: target(&deployment), reserved, patience }, self.now);
            self.effects()
        }

        /// The reserved concurrency of a function, and how many environments of which deployments are provisioned.
        fn terms(
            &mut self,
            function: &str,
            reserved: Option<u32>,
            provisioned: &'static [(&'static str, u32)],
        ) -> Vec<Effect<&'static str>> {
            let provisioned: Vec<_> = provisioned.iter().map(|(d, wanted)| (target(d), *wanted)).collect();
            self.pool.set_terms(function, reserved, &provisioned, self.now);
            self.effects()
        }

        /// Starts what is wanted until nothing is, and returns the environments in the order of their start.
        fn bring_up(&mut self, mut effects: Vec<Effect<&'static str>>) -> Vec<EnvironmentId> {
            let mut up = Vec::new();
            while let Some(effect) = effects.pop() {
                if let Effect::Start { environment, .. } = effect {
                    up.push(environment);
                    effects.extend(self.ready(environment));
                }
            }
            up
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

    /// What `function:version` is a lane of. Each environment counts for 100 MiB; those of `patient` stay idle for 5 s.
    fn target<'a>(deployment: &'a &'static str) -> Target<'a, &'static str> {
        let function = deployment.split(':').next().unwrap();
        let idle_timeout_ms = (function == "patient").then_some(5_000);
        Target { deployment_id: deployment, function, memory_mib: 100, idle_timeout_ms, deployment }
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
    fn thousands_of_calls_that_nothing_is_under_way_for_any_more_leave_in_one_event() {
        let many = 3_000;
        let reason = Throttle::ConcurrentInvocationLimitExceeded;
        let bounds = Limits { account_concurrency: many, memory_mib_max: u64::MAX, ..limits(many, many) };
        let mut b = Bench::new(bounds);
        let environments: Vec<_> = (0..many).map(|_| b.warm("f:1")).collect();
        for id in environments {
            b.pool.answered(id, 0);
        }
        for _ in 0..many {
            assert_eq!(b.ask_with("f:1", None, false), []);
        }
        b.now = FINISHING_MS;
        b.pool.tick(b.now);
        let refused = b.effects();
        assert_eq!(refused.len(), many as usize);
        assert!(
            refused.iter().all(|effect| matches!(effect, Effect::Throttle { reason: told, .. } if *told == reason))
        );
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
        // The machine is full with environments that run or are another function's.
        b.pool.limits.environments_max = 2;
        assert_eq!(b.ask("g:1"), run(g, 3, true));
        assert_eq!(b.ask_for("f:1", Some(2), Patience::Place), []);
        assert!(matches!(b.ask_for("f:1", Some(2), Patience::Place)[..], [Effect::Throttle { .. }]));
        assert_eq!(b.ask_for("f:1", Some(2), Patience::All), [], "whoever waits for ever bounds his calls himself");
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
        b.pool.start_failed(id, true, 0);
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
            b.pool.start_failed(id, true, b.now);
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
        b.pool.retire("f:1", 0);
        assert_eq!(b.effects(), [Effect::Stop { environment: idle, why: StopReason::Retired }]);
        assert_eq!(b.ready(starting), [Effect::Stop { environment: starting, why: StopReason::Retired }]);
        assert_eq!(b.released(busy), [Effect::Stop { environment: busy, why: StopReason::Retired }]);
        started(&b.ask("f:1"));
    }

    #[test]
    fn calls_that_wait_for_a_deployment_that_is_no_more_are_given_back_and_make_room_for_others() {
        let mut b = Bench::new(limits(2, 1));
        let busy = b.warm("f:1");
        let starting = started(&b.ask("f:1"));
        assert_eq!((b.ask("f:1"), b.ask("g:1")), (vec![], vec![]));
        b.pool.retire("f:1", 0);
        // Also the one for which a start is under way; the other function's call goes on waiting for a place.
        assert_eq!(b.effects(), [Effect::Gone { call: CallId(2) }, Effect::Gone { call: CallId(3) }]);
        assert!(!b.pool.patience_ended(CallId(3), 0), "it is not there any more");
        b.pool.gave_up(CallId(2), 0);
        assert_eq!(b.effects(), []);
        assert_eq!(b.ready(starting), [Effect::Stop { environment: starting, why: StopReason::Retired }]);
        b.pool.gone(starting, 0);
        let g = started(&b.effects());
        assert_eq!(b.ready(g), run(g, 4, false));
        assert_eq!(b.released(busy), [Effect::Stop { environment: busy, why: StopReason::Retired }]);
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
    fn a_function_may_have_an_idle_time_of_its_own_but_for_where_memory_is_short() {
        let mut b = Bench::new(limits(4, 4));
        let (usual, patient) = (b.warm("f:1"), b.warm("patient:1"));
        b.released(usual);
        b.released(patient);
        b.now = 4_999;
        b.pool.tick(b.now);
        assert_eq!(b.effects(), [Effect::Stop { environment: usual, why: StopReason::Idle }]);
        assert_eq!(b.pool.wake_at(), Some(5_000));
        b.now = 5_000;
        b.pool.tick(b.now);
        assert_eq!(b.effects(), [Effect::Stop { environment: patient, why: StopReason::Idle }]);

        let mut short = Bench::new(Limits { memory_mib_max: 120, ..limits(4, 4) });
        let patient = short.warm("patient:1");
        short.released(patient);
        assert_eq!(short.pool.wake_at(), Some(100));
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

    // --- the account, provisioned concurrency, and the other limits ---

    #[test]
    fn the_account_holds_what_is_reserved_and_provisioned_for_those_who_have_it() {
        let mut b = Bench::new(Limits { account_concurrency: 6, ..limits(20, 20) });
        b.terms("held", Some(2), &[]);
        let effects = b.terms("warm", None, &[("warm:1", 1)]);
        b.bring_up(effects);
        // 6 - 2 reserved - 1 provisioned.
        for _ in 0..3 {
            b.warm("f:1");
        }
        let reason = Throttle::ConcurrentInvocationLimitExceeded;
        assert_eq!(b.ask_for("f:1", None, Patience::Place), [Effect::Throttle { call: CallId(4), reason }]);
        assert_eq!(b.ask("f:1"), [], "it waits");
        // Those who have it get it: the provisioned one, and the reserved two.
        assert!(matches!(b.ask("warm:1")[..], [Effect::Run { .. }]));
        assert_eq!(b.ask_for("warm:1", None, Patience::Place), [Effect::Throttle { call: CallId(7), reason }]);
        let (one, two) = (b.warm("held:1"), b.warm("held:1"));
        assert_eq!(b.pool.busy, 6);
        let reason = Throttle::ReservedFunctionConcurrentInvocationLimitExceeded;
        assert_eq!(b.ask_for("held:1", None, Patience::Place), [Effect::Throttle { call: CallId(10), reason }]);
        // What the reserved ones give back stays theirs.
        assert_eq!((b.released(one), b.released(two)), (vec![], vec![]));
    }

    #[test]
    fn a_start_is_as_good_as_a_call_in_flight_for_the_account_too() {
        let reason = Throttle::ConcurrentInvocationLimitExceeded;
        let mut b = Bench::new(Limits { account_concurrency: 1, ..limits(20, 20) });
        let f = started(&b.ask("f:1"));
        assert_eq!(b.ask_for("g:1", None, Patience::Place), [Effect::Throttle { call: CallId(2), reason }]);
        assert_eq!(b.ask("g:1"), []);
        b.ready(f);
        // What comes free is for the function with the fewest calls that run.
        assert_eq!(b.ask("f:1"), []);
        let g = started(&b.released(f));
        b.ready(g);
        assert_eq!(b.released(g), run(f, 4, true));
    }

    #[test]
    fn a_limit_lowered_below_what_runs_lets_nobody_in_until_fewer_run() {
        let mut b = Bench::new(limits(8, 8));
        let held: Vec<_> = (0..3).map(|_| b.warm("f:1")).collect();
        b.terms("f", Some(1), &[]);
        assert_eq!(b.ask_with("f:1", Some(9), true), [], "terms are newer than what a call brings");
        assert_eq!(b.released(held[0]), []);
        assert_eq!(b.released(held[1]), []);
        assert_eq!(b.released(held[2]), run(held[2], 4, false));
        b.terms("f", None, &[]);
        assert!(matches!(b.ask("f:1")[..], [Effect::Run { .. }]));
    }

    #[test]
    fn a_function_that_is_switched_off_refuses_those_that_wait_too() {
        let reason = Throttle::ReservedFunctionConcurrentInvocationLimitExceeded;
        let mut b = Bench::new(limits(1, 1));
        let id = b.warm("f:1");
        b.ask("f:1");
        assert_eq!(b.terms("f", Some(0), &[]), [Effect::Throttle { call: CallId(2), reason }]);
        assert_eq!(b.ask_with("f:1", None, true), [Effect::Throttle { call: CallId(3), reason }]);
        assert_eq!(b.released(id), []);
    }

    #[test]
    fn a_call_at_its_functions_limit_waits_for_the_environment_that_has_just_answered_and_no_other() {
        let reason = Throttle::ReservedFunctionConcurrentInvocationLimitExceeded;
        let mut b = Bench::new(limits(8, 8));
        b.terms("f", Some(1), &[]);
        let id = b.warm("f:1");
        assert_eq!(b.ask_for("f:1", None, Patience::Place), [Effect::Throttle { call: CallId(2), reason }]);
        b.pool.answered(id, 0);
        assert_eq!(b.ask_for("f:1", None, Patience::Place), []);
        assert_eq!(b.released(id), run(id, 3, false));
    }

    #[test]
    fn provisioned_environments_are_there_before_the_first_call_and_taken_first() {
        let mut b = Bench::new(limits(8, 2));
        let demanded = b.warm("f:1");
        b.released(demanded);
        let effects = b.terms("f", None, &[("f:1", 3)]);
        let kinds = |effects: &[Effect<&str>]| {
            effects.iter().filter(|e| matches!(e, Effect::Start { kind: Kind::Provisioned, .. })).count()
        };
        assert_eq!(kinds(&effects), 2, "no more at once than the gate lets through");
        assert_eq!(b.pool.provisioning("f:1"), Provisioning { wanted: 3, ..Provisioning::default() });
        let up = b.bring_up(effects);
        assert_eq!(up.len(), 3);
        assert_eq!(
            b.pool.provisioning("f:1"),
            Provisioning { wanted: 3, ready: 3, complete: true, failed_by_function: None }
        );
        for _ in 0..3 {
            let effects = b.ask("f:1");
            assert!(matches!(effects[..], [Effect::Run { environment, .. }] if up.contains(&environment)));
        }
        assert_eq!(b.ask("f:1"), run(demanded, 5, true), "the fourth spills over");
        // Never idle too long.
        up.iter().for_each(|id| drop(b.released(*id)));
        b.released(demanded);
        b.pool.tick(900_000);
        assert_eq!(b.effects(), [Effect::Stop { environment: demanded, why: StopReason::Idle }]);
    }

    #[test]
    fn a_provisioned_environment_that_dies_is_replaced_and_what_is_not_wanted_any_more_goes() {
        let mut b = Bench::new(limits(8, 8));
        let effects = b.terms("f", None, &[("f:1", 2)]);
        let up = b.bring_up(effects);
        b.pool.died(up[0], true, 0);
        let replacement = started(&b.effects());
        b.pool.gone(up[0], 0);
        assert_eq!(b.pool.provisioning("f:1").ready, 1);
        assert!(b.pool.provisioning("f:1").complete, "it stays READY while one is replaced");
        b.ready(replacement);
        b.ask("f:1");
        let stopped = b.terms("f", None, &[]);
        let why = StopReason::NotProvisioned;
        assert!(matches!(stopped[..], [Effect::Stop { why: w, .. }] if w == why), "{stopped:?}");
        let busy = if matches!(stopped[0], Effect::Stop { environment, .. } if environment == up[1]) {
            replacement
        } else {
            up[1]
        };
        assert_eq!(b.released(busy), [Effect::Stop { environment: busy, why }]);
    }

    #[test]
    fn what_is_provisioned_is_part_of_what_is_reserved_and_a_busy_rest_of_it_too() {
        let mut b = Bench::new(limits(8, 8));
        let effects = b.terms("f", Some(3), &[("f:1", 2)]);
        b.bring_up(effects);
        // One on demand of another version: the rest is held for version 1.
        b.warm("f:2");
        assert_eq!(b.ask("f:2"), []);
        assert!(matches!(b.ask("f:1")[..], [Effect::Run { .. }]), "an older call of version 2 does not hold it up");
        assert!(matches!(b.ask("f:1")[..], [Effect::Run { .. }]));
        // Let go, but they run: not one more until one of them has ended.
        assert_eq!(b.terms("f", Some(3), &[]), []);
        assert_eq!(b.pool.busy("f"), 3);
    }

    #[test]
    fn a_provisioned_start_that_fails_answers_no_call_and_is_tried_again_later() {
        let mut b = Bench::new(limits(8, 8));
        let effects = b.terms("f", Some(1), &[("f:1", 1)]);
        let id = started(&effects);
        assert_eq!(b.ask("f:1"), [], "all its concurrency is provisioned");
        b.pool.start_failed(id, true, 0);
        let spilled = started(&b.effects());
        assert_eq!(b.pool.provisioning("f:1").failed_by_function, Some(true));
        b.pool.gone(id, 0);
        assert_eq!(b.ready(spilled), run(spilled, 1, false), "what failed holds nothing");
        assert_eq!(b.released(spilled), []);
        assert_eq!(b.pool.alarm(), Some(PROVISION_RETRY_MS));
        b.now = PROVISION_RETRY_MS;
        b.pool.tick(b.now);
        let effects = b.effects();
        let again = effects.iter().find_map(|e| match e {
            Effect::Start { environment, kind: Kind::Provisioned, .. } => Some(*environment),
            _ => None,
        });
        b.ready(again.unwrap());
        let is = b.pool.provisioning("f:1");
        assert_eq!((is.ready, is.complete, is.failed_by_function), (1, true, None));
    }

    #[test]
    fn provisioned_environments_leave_one_place_and_every_second_start_to_others() {
        let mut b = Bench::new(limits(3, 1));
        let first = started(&b.terms("f", None, &[("f:1", 5)]));
        assert_eq!(b.ask("g:1"), []);
        let g = started(&b.ready(first));
        let effects = b.ready(g);
        assert!(matches!(effects[0], Effect::Run { environment, .. } if environment == g));
        assert!(matches!(effects[1], Effect::Start { kind: Kind::Provisioned, .. }));
        b.bring_up(effects[1..].to_vec());
        assert_eq!((b.pool.provisioning("f:1").ready, b.pool.environments()), (2, 3));
    }

    #[test]
    fn a_function_gets_its_new_environments_from_a_bucket_that_fills_in_ten_seconds() {
        let mut b = Bench::new(Limits { scale_up: Some(4), ..limits(100, 100) });
        for _ in 0..4 {
            started(&b.ask("f:1"));
        }
        let reason = Throttle::FunctionInvocationRateLimitExceeded;
        assert_eq!(b.ask_with("f:1", None, false), [Effect::Throttle { call: CallId(5), reason }]);
        assert_eq!(b.ask("f:1"), []);
        started(&b.ask("g:1"));
        assert_eq!(b.pool.alarm(), Some(2_500));
        b.now = 2_499;
        b.pool.tick(b.now);
        assert_eq!(b.effects(), []);
        b.now = 2_500;
        b.pool.tick(b.now);
        started(&b.effects());
        b.terms("f", Some(50), &[]);
        let reason = Throttle::ReservedFunctionInvocationRateLimitExceeded;
        assert_eq!(b.ask_with("f:1", None, false), [Effect::Throttle { call: CallId(8), reason }]);
        // An unused allowance does not add up.
        b.now = 1_000_000;
        for _ in 0..4 {
            started(&b.ask("f:1"));
        }
        assert!(matches!(b.ask_with("f:1", None, false)[..], [Effect::Throttle { .. }]));
    }

    #[test]
    fn an_environment_past_its_age_gets_no_further_call_and_a_provisioned_one_is_replaced() {
        let mut b = Bench::new(Limits { age_ms_max: 5_000, idle_timeout_ms: 100_000, ..limits(8, 8) });
        let effects = b.terms("p", None, &[("p:1", 1)]);
        let provisioned = b.bring_up(effects)[0];
        let (busy, idle) = (b.warm("f:1"), b.warm("f:1"));
        b.released(idle);
        b.now = 5_000;
        assert_eq!(b.pool.wake_at(), Some(5_000));
        assert_eq!(b.released(busy), [Effect::Stop { environment: busy, why: StopReason::Old }]);
        b.pool.tick(b.now);
        let why = StopReason::Old;
        let effects = b.effects();
        assert!(effects.contains(&Effect::Stop { environment: idle, why }));
        assert!(effects.contains(&Effect::Stop { environment: provisioned, why }));
        assert!(matches!(effects[..], [_, _, Effect::Start { kind: Kind::Provisioned, .. }]), "{effects:?}");
    }

    #[test]
    fn memory_is_a_budget_of_what_functions_may_use_until_it_is_known_what_they_use() {
        let mut b = Bench::new(Limits { memory_mib_max: 250, ..limits(8, 8) });
        let (one, two) = (b.warm("f:1"), b.warm("f:1"));
        assert_eq!(b.ask("f:1"), []);
        b.pool.measured(one, 60);
        assert_eq!(b.pool.memory_mib, 120);
        b.released(two);
        let three = b.warm("f:1");
        let _four = b.warm("f:1");
        assert_eq!(b.pool.memory_mib, 240);
        assert_eq!(b.ask("f:1"), []);
        b.pool.measured(three, 40);
        assert_eq!(b.pool.memory_mib, 240, "the most that one was seen to use");
    }

    #[test]
    fn where_memory_is_short_idle_environments_make_room_or_go_sooner_but_one_may_always_be_there() {
        let mut b = Bench::new(Limits { memory_mib_max: 50, ..limits(8, 8) });
        let id = b.warm("f:1");
        b.released(id);
        // 100 of 50: it is alone.
        assert_eq!(b.ask("g:1"), [Effect::Stop { environment: id, why: StopReason::RoomNeeded }]);
        b.pool.gone(id, 0);
        let g = started(&b.effects());
        b.ready(g);
        b.released(g);
        b.now = 100;
        assert_eq!(b.pool.wake_at(), Some(100));
        b.pool.tick(b.now);
        assert_eq!(b.effects(), [Effect::Stop { environment: g, why: StopReason::Idle }]);
    }

    #[test]
    fn an_idle_environment_is_frozen_after_a_while_and_a_busy_one_never() {
        let mut b = Bench::new(Limits { freeze_after_ms: Some(50), ..limits(8, 8) });
        let id = b.warm("f:1");
        b.now = 500;
        b.pool.tick(b.now);
        assert_eq!(b.effects(), []);
        assert_eq!(b.released(id), []);
        assert_eq!(b.pool.wake_at(), Some(550));
        b.pool.tick(549);
        assert_eq!(b.effects(), []);
        b.pool.tick(550);
        assert_eq!(b.effects(), [Effect::Freeze { environment: id }]);
        assert!(!b.pool.may_freeze());
        b.pool.tick(600);
        assert_eq!(b.effects(), [], "once");
        assert_eq!(b.ask("f:1"), run(id, 2, true));
        assert!(b.pool.may_freeze());
        let mut b = Bench::new(Limits { freeze_after_ms: Some(0), ..limits(8, 8) });
        let id = b.warm("f:1");
        assert_eq!(b.released(id), [Effect::Freeze { environment: id }]);
    }

    #[test]
    fn what_is_prepared_is_started_where_nobody_else_asks_for_it() {
        let mut b = Bench::new(limits(4, 2));
        b.terms("f", Some(2), &[]);
        let other = b.warm("g:1");
        b.pool.prepare(&target(&"f:1"), 8, 0);
        let first = started(&b.effects());
        let second = started(&b.ready(first));
        assert_eq!(b.ready(second), [], "no more than its function may have");
        assert!(matches!(b.ask("f:1")[..], [Effect::Run { .. }]));
        // Not where somebody waits.
        b.pool.prepare(&target(&"h:1"), 8, 0);
        let h = started(&b.effects());
        b.ask("i:1");
        b.ask("i:1");
        let effects = b.ready(h);
        assert!(
            !effects.iter().any(|e| matches!(e, Effect::Start { deployment: "h:1", .. })),
            "one of i's calls waits: {effects:?}"
        );
        let _ = other;
        b.pool.tick(PREPARE_MS);
        assert!(b.pool.lanes.values().all(|lane| lane.prepare.is_none()));
    }

    #[test]
    fn an_initialization_that_took_too_long_runs_again_for_the_call_that_waits() {
        let mut b = Bench::new(limits(1, 1));
        let id = started(&b.ask_with("f:1", None, false));
        b.pool.init_timed_out(id, 10_000);
        assert_eq!(b.effects(), []);
        b.now = 10_100;
        b.pool.gone(id, b.now);
        let effects = b.effects();
        let [Effect::Start { environment, kind: Kind::Again, .. }] = effects[..] else { panic!("{effects:?}") };
        assert_eq!(b.ready(environment), run(environment, 1, false));
        b.released(environment);
        // If its caller has left, there is nothing to run again.
        b.pool.died(environment, false, b.now);
        b.pool.gone(environment, b.now);
        let id = started(&b.ask("f:1"));
        b.pool.init_timed_out(id, b.now);
        b.pool.gave_up(CallId(2), b.now);
        b.pool.gone(id, b.now);
        assert_eq!(b.effects(), []);
        let effects = b.ask("f:1");
        assert!(matches!(effects[..], [Effect::Start { kind: Kind::OnDemand, .. }]), "{effects:?}");
    }

    #[test]
    fn slots_are_what_a_function_could_run_at_once() {
        let mut b = Bench::new(Limits { account_concurrency: 10, ..limits(20, 20) });
        let slots = |b: &Bench, deployment: &str| b.pool.slots(deployment.split(':').next().unwrap(), deployment, None);
        assert_eq!(slots(&b, "f:1"), 10);
        b.terms("held", Some(3), &[("held:1", 1)]);
        b.terms("warm", None, &[("warm:1", 2)]);
        assert_eq!(["f:1", "held:1", "held:2", "warm:1", "warm:2"].map(|d| slots(&b, d)), [5, 3, 2, 7, 5]);
        b.pool.limits.environments_max = 4;
        assert_eq!(slots(&b, "f:1"), 4);
    }

    #[test]
    fn no_more_run_than_the_account_may_have_although_more_is_promised() {
        let mut b = Bench::new(Limits { account_concurrency: 2, ..limits(8, 8) });
        let (one, _two) = (b.warm("g:1"), b.warm("g:1"));
        // What is reserved now is in use by another function: its start may be made, its call may not begin.
        b.terms("f", Some(1), &[]);
        let f = started(&b.ask("f:1"));
        assert_eq!(b.ready(f), []);
        assert_eq!(b.released(one), run(f, 3, true));
    }

    #[test]
    fn where_the_account_is_full_the_function_with_the_fewest_calls_goes_first() {
        let mut b = Bench::new(limits(8, 8));
        let f: Vec<_> = (0..3).map(|_| b.warm("f:1")).collect();
        b.released(f[0]);
        b.released(f[1]);
        let g = [b.warm("g:1"), b.warm("g:1")];
        b.pool.limits.account_concurrency = 3;
        assert_eq!((b.ask("f:1"), b.ask("g:1")), (vec![], vec![]));
        // Both run one then; f's call is older, although f has more environments.
        assert_eq!(b.released(g[0]), run(f[1], 6, true));
    }

    #[test]
    fn a_call_that_waits_for_concurrency_holds_up_no_provisioned_environment() {
        let mut b = Bench::new(limits(8, 8));
        let two = [b.warm("f:2"), b.warm("f:2")];
        two.iter().for_each(|id| drop(b.released(*id)));
        let effects = b.terms("f", Some(3), &[("f:1", 2)]);
        b.bring_up(effects);
        assert_eq!(b.ask("f:2"), run(two[1], 3, true));
        assert_eq!(b.ask("f:2"), [], "an environment is there, and no concurrency");
        assert!(matches!(b.ask("f:1")[..], [Effect::Run { .. }]));
    }

    #[test]
    fn a_call_that_was_taken_on_keeps_its_claim_when_the_limit_is_lowered() {
        let mut b = Bench::new(limits(8, 8));
        let warm = b.warm("f:1");
        started(&b.ask("f:1"));
        b.terms("f", Some(1), &[]);
        assert_eq!(b.released(warm), run(warm, 2, false), "its own start is not waited for");
    }

    #[test]
    fn a_function_that_holds_the_machine_makes_room_for_what_is_provisioned() {
        let mut b = Bench::new(limits(2, 2));
        let (one, _two) = (b.warm("f:1"), b.warm("f:1"));
        assert_eq!(b.terms("p", None, &[("p:1", 1)]), []);
        b.ask("f:1");
        assert_eq!(b.released(one), [Effect::Stop { environment: one, why: StopReason::RoomNeeded }]);
        b.pool.gone(one, 0);
        assert!(matches!(b.effects()[..], [Effect::Start { deployment: "p:1", kind: Kind::Provisioned, .. }]));
    }

    #[test]
    fn what_a_machine_can_never_keep_ready_takes_no_concurrency_from_its_function() {
        let mut b = Bench::new(limits(1, 1));
        assert_eq!(b.terms("f", Some(1), &[("f:1", 1)]), []);
        let id = started(&b.ask("f:1"));
        assert_eq!(b.ready(id), run(id, 1, false));
    }

    #[test]
    fn a_second_initialization_is_for_the_call_that_waited_for_the_first_and_for_no_later_one() {
        let mut b = Bench::new(limits(8, 8));
        b.warm("f:1");
        let slow = started(&b.ask("f:1"));
        b.pool.limits.environments_max = 2;
        b.pool.init_timed_out(slow, 0);
        b.pool.gave_up(CallId(2), 0);
        b.pool.gone(slow, 0);
        let effects = b.ask("f:1");
        assert!(matches!(effects[..], [Effect::Start { kind: Kind::OnDemand, .. }]), "{effects:?}");
    }

    #[test]
    fn nothing_is_prepared_while_somebody_waits() {
        let mut b = Bench::new(limits(8, 8));
        b.terms("f", Some(1), &[]);
        let id = b.warm("f:1");
        b.ask("f:1");
        b.pool.prepare(&target(&"h:1"), 2, 0);
        assert_eq!(b.effects(), []);
        assert_eq!(b.released(id), run(id, 2, false));
        b.pool.released(id, 0);
        b.pool.tick(1);
        b.pool.prepare(&target(&"h:1"), 2, 1);
        assert_eq!(b.effects().len(), 2);
    }

    // --- everything at once ---

    #[derive(Debug, Clone, PartialEq)]
    enum Is {
        Starting,
        Idle,
        Busy(CallId),
        Stopping,
    }

    #[derive(Debug)]
    struct Seen {
        deployment: &'static str,
        is: Is,
        provisioned: bool,
    }

    type Terms = (Option<u32>, &'static [(&'static str, u32)]);

    const DEPLOYMENTS: [&str; 5] = ["a:1", "a:2", "b:1", "c:1", "d:1"];
    /// What holds unless it is changed: alone, each of these leaves everybody some concurrency to live on.
    const TERMS: [(&str, Terms); 4] =
        [("a", (Some(2), &[("a:1", 1)])), ("b", (None, &[("b:1", 1)])), ("c", (Some(1), &[])), ("d", (None, &[]))];
    const OTHER_TERMS: [(&str, Terms); 8] = [
        ("a", (Some(1), &[("a:2", 1)])),
        ("a", (Some(3), &[("a:1", 2), ("a:2", 1)])),
        ("a", (None, &[("a:1", 2)])),
        ("b", (Some(2), &[])),
        ("b", (None, &[])),
        ("c", (None, &[("c:1", 3)])),
        ("c", (Some(0), &[])),
        ("d", (Some(1), &[("d:1", 1)])),
    ];

    /// A pool, and what the outside has seen of it.
    struct World {
        seed: u64,
        limits: Limits,
        pool: Pool<&'static str>,
        now: Millis,
        open: BTreeSet<CallId>,
        lane_of: BTreeMap<CallId, &'static str>,
        environments: BTreeMap<EnvironmentId, Seen>,
        terms: BTreeMap<&'static str, Terms>,
        /// Terms were changed, or an initialization is to run again: a call that was promised its place may then begin
        /// although what is reserved for others is short of it.
        promises: bool,
        /// What the present event retired.
        retired: Option<&'static str>,
        /// New environments of each function, and when.
        starts: Vec<(&'static str, Millis)>,
    }

    fn function_of(deployment: &'static str) -> &'static str {
        deployment.split(':').next().unwrap()
    }

    impl World {
        fn busy(&self, which: impl Fn(&Seen) -> bool) -> usize {
            self.environments.values().filter(|seen| matches!(seen.is, Is::Busy(_)) && which(seen)).count()
        }

        fn reserved(&self, function: &str) -> Option<u32> {
            self.terms[function].0
        }

        fn set_terms(&mut self, function: &'static str, terms: Terms) {
            let provisioned: Vec<_> = terms.1.iter().map(|(d, wanted)| (target(d), *wanted)).collect();
            self.terms.insert(function, terms);
            self.pool.set_terms(function, terms.0, &provisioned, self.now);
        }

        /// Takes the effects, and checks at each call that begins what must hold at that instant.
        fn settle(&mut self) {
            let seed = self.seed;
            while let Some(effect) = self.pool.next_effect() {
                match effect {
                    Effect::Start { environment, deployment, kind } => {
                        let provisioned = kind == Kind::Provisioned;
                        let seen = Seen { deployment, is: Is::Starting, provisioned };
                        assert!(self.environments.insert(environment, seen).is_none());
                        self.started(function_of(deployment));
                    }
                    Effect::Run { environment, call, .. } => {
                        assert!(self.open.remove(&call), "seed {seed}: {call:?} was answered twice");
                        let seen = self.environments.get_mut(&environment).unwrap();
                        assert_eq!((seen.deployment, &seen.is), (self.lane_of[&call], &Is::Idle), "seed {seed}");
                        seen.is = Is::Busy(call);
                        self.began(environment);
                    }
                    Effect::Fail { environment, call } => {
                        assert!(self.open.remove(&call), "seed {seed}: {call:?} was answered twice");
                        let seen = &self.environments[&environment];
                        assert_eq!((seen.deployment, &seen.is), (self.lane_of[&call], &Is::Stopping), "seed {seed}");
                        assert!(!seen.provisioned, "seed {seed}");
                    }
                    Effect::Throttle { call, .. } => assert!(self.open.remove(&call), "seed {seed}"),
                    Effect::Gone { call } => {
                        assert!(self.open.remove(&call), "seed {seed}: {call:?} was answered twice");
                        assert_eq!(self.retired, Some(self.lane_of[&call]), "seed {seed}: nothing was retired");
                    }
                    Effect::Stop { environment, .. } => {
                        let seen = self.environments.get_mut(&environment).unwrap();
                        assert_eq!(seen.is, Is::Idle, "seed {seed}");
                        seen.is = Is::Stopping;
                    }
                    Effect::Freeze { environment } => {
                        assert_eq!(self.environments[&environment].is, Is::Idle, "seed {seed}: busy and frozen");
                    }
                }
                let max = self.limits.environments_max as usize;
                assert!(self.environments.len() <= max, "seed {seed}: more environments than the machine may have");
            }
            self.consistent();
        }

        fn started(&mut self, function: &'static str) {
            self.starts.push((function, self.now));
            let Some(size) = self.limits.scale_up else { return };
            // In no stretch of time more than what the bucket held and what came into it.
            let own: Vec<Millis> = self.starts.iter().filter(|(f, _)| *f == function).map(|(_, at)| *at).collect();
            for (n, from) in own.iter().enumerate() {
                let (count, ms) = ((own.len() - n) as u64, self.now - from);
                assert!(count * 10_000 <= u64::from(size) * (10_000 + ms), "seed {}: {count} in {ms} ms", self.seed);
            }
        }

        fn began(&self, environment: EnvironmentId) {
            let seed = self.seed;
            let account = u64::from(self.limits.account_concurrency);
            let seen = &self.environments[&environment];
            let function = function_of(seen.deployment);
            let of = |name: &'static str| self.busy(|seen| function_of(seen.deployment) == name) as u64;
            assert!(self.busy(|_| true) as u64 <= account, "seed {seed}: more in flight than the account may have");
            if let Some(reserved) = self.reserved(function) {
                assert!(of(function) <= u64::from(reserved), "seed {seed}: {function} over its concurrency");
            }
            if seen.provisioned {
                let wanted = self.terms[function].1.iter().find(|(d, _)| *d == seen.deployment).map_or(0, |(_, n)| *n);
                let busy = self.busy(|other| other.provisioned && other.deployment == seen.deployment);
                assert!(busy <= wanted as usize, "seed {seed}: more provisioned than wanted");
            } else if !self.promises {
                // What is held for others is still there for them.
                let held: u64 = TERMS
                    .map(|(name, _)| self.reserved(name).map_or(of(name), |r| of(name).max(r.into())))
                    .iter()
                    .sum();
                assert!(held <= account, "seed {seed}: nothing is left of what is reserved");
            }
        }

        /// The pool's sums are what its parts add up to.
        fn consistent(&self) {
            let (seed, pool) = (self.seed, &self.pool);
            assert_eq!(self.open.len(), pool.calls_waiting(), "seed {seed}");
            assert_eq!(pool.busy as usize, self.busy(|_| true), "seed {seed}");
            for (function, _) in TERMS {
                assert_eq!(
                    self.busy(|seen| function_of(seen.deployment) == function),
                    pool.busy(function),
                    "seed {seed}"
                );
            }
            let charges = pool.functions.values().map(|f| {
                let taken = pool.taken(f);
                f.reserved.map_or(taken, |r| taken.max(r.into()))
            });
            assert_eq!(pool.charges, charges.sum::<u64>(), "seed {seed}");
            assert_eq!(pool.starting, pool.lanes.values().map(|lane| lane.starting).sum::<usize>(), "seed {seed}");
            let living =
                pool.lanes.values().map(|lane| u64::from(lane.all_environments()) * lane.memory_mib).sum::<u64>();
            let stopping = pool.environments.values().map(|e| e.stopping_mib).sum::<u64>();
            assert_eq!(pool.memory_mib, living + stopping, "seed {seed}");
            assert!(
                pool.environments.values().filter(|e| !e.provisioned).count() <= 1
                    || self.promises
                    || pool.memory_mib <= self.limits.memory_mib_max,
                "seed {seed}: {} MiB",
                pool.memory_mib
            );
            for lane in pool.lanes.values() {
                let (wanted, busy) = (lane.provisioned.wanted, lane.provisioned.busy);
                assert!(lane.provisioned.ready() <= wanted.max(busy), "seed {seed}: more kept ready than wanted");
            }
        }

        fn chosen(&self, dice: &mut Dice) -> Option<EnvironmentId> {
            let count = self.environments.len() as u64;
            (count > 0).then(|| self.environments.keys().copied().nth(dice.roll(count) as usize).unwrap())
        }

        /// Something happens to an environment: what it is for, or a mishap.
        fn happens(&mut self, id: EnvironmentId, mishap: bool, dice: &mut Dice) {
            let now = self.now;
            let seen = self.environments.get_mut(&id).unwrap();
            match (seen.is.clone(), mishap) {
                (Is::Starting, false) => {
                    seen.is = Is::Idle;
                    self.pool.ready(id, now);
                }
                (Is::Starting, true) => {
                    seen.is = Is::Stopping;
                    if !seen.provisioned && dice.roll(3) == 0 {
                        self.promises = true;
                        self.pool.init_timed_out(id, now);
                    } else {
                        self.pool.start_failed(id, dice.roll(2) == 0, now);
                    }
                }
                (Is::Busy(_), false) if dice.roll(2) == 0 => self.pool.answered(id, now),
                (Is::Busy(_), false) => {
                    seen.is = Is::Idle;
                    self.pool.released(id, now);
                }
                (Is::Busy(call), true) => {
                    seen.is = Is::Stopping;
                    if dice.roll(2) == 0 {
                        self.open.insert(call);
                        self.pool.lost(id, now);
                    } else {
                        self.pool.died(id, true, now);
                    }
                }
                (Is::Idle, false) => {}
                (Is::Idle, true) => {
                    seen.is = Is::Stopping;
                    self.pool.died(id, true, now);
                }
                (Is::Stopping, _) => {
                    self.environments.remove(&id);
                    self.pool.gone(id, now);
                }
            }
        }
    }

    /// Throws everything that can happen at a pool, and checks the promises of the module's head after each event.
    /// `changes`: terms change, and more memory is seen to be used than was thought.
    fn simulate(seed: u64, changes: bool) {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let limits = Limits {
            account_concurrency: 5 + dice.roll(4) as u32,
            scale_up: [None, Some(3), Some(8)][dice.roll(3) as usize],
            memory_mib_max: [350, 100_000][dice.roll(2) as usize],
            age_ms_max: [1_500, 1_000_000][dice.roll(2) as usize],
            freeze_after_ms: [None, Some(0), Some(50)][dice.roll(3) as usize],
            ..limits(1 + dice.roll(6) as u32, 1 + dice.roll(2) as u32)
        };
        let mut world = World {
            seed,
            pool: Pool::new(limits.clone()),
            limits,
            now: 0,
            open: BTreeSet::new(),
            lane_of: BTreeMap::new(),
            environments: BTreeMap::new(),
            terms: TERMS.into(),
            promises: changes,
            retired: None,
            starts: Vec::new(),
        };
        for (function, terms) in TERMS {
            world.set_terms(function, terms);
        }
        world.settle();
        let mut calls = 0u64;
        for step in 0..600 {
            // The last third brings no new calls and no mishaps: then everything that waits must be served.
            let quiet = step >= 400;
            if step == 400 {
                for (function, terms) in TERMS {
                    world.set_terms(function, terms);
                    world.settle();
                }
            }
            world.now += dice.roll(40);
            let now = world.now;
            let chosen = world.chosen(&mut dice);
            match dice.roll(12) {
                0..=3 if !quiet => {
                    calls += 1;
                    let call = CallId(calls);
                    let deployment = &DEPLOYMENTS[dice.roll(5) as usize];
                    world.open.insert(call);
                    world.lane_of.insert(call, deployment);
                    let patience =
                        [Patience::UnderWay, Patience::Place, Patience::All, Patience::All][dice.roll(4) as usize];
                    world.pool.ask(Ask { call, target: target(deployment), reserved: None, patience }, now);
                }
                4 if !quiet && !world.open.is_empty() => {
                    let call = *world.open.iter().nth(dice.roll(world.open.len() as u64) as usize).unwrap();
                    if dice.roll(2) == 0 {
                        world.open.remove(&call);
                        world.pool.gave_up(call, now);
                    } else {
                        world.pool.patience_ended(call, now);
                    }
                }
                5 if !quiet => {
                    let deployment = DEPLOYMENTS[dice.roll(5) as usize];
                    world.retired = Some(deployment);
                    world.pool.retire(deployment, now);
                }
                6 => world.pool.tick(now),
                7 if !quiet && changes => match (dice.roll(2), chosen) {
                    (0, Some(id)) => world.pool.measured(id, 50 + dice.roll(100)),
                    _ => {
                        let (function, terms) = OTHER_TERMS[dice.roll(8) as usize];
                        world.set_terms(function, terms);
                    }
                },
                8 if !quiet => world.pool.prepare(&target(&DEPLOYMENTS[dice.roll(5) as usize]), 3, now),
                _ => {
                    if let Some(id) = chosen {
                        let mishap = !quiet && dice.roll(5) == 0;
                        world.happens(id, mishap, &mut dice);
                    }
                }
            }
            world.settle();
            world.retired = None;
        }
        // Everything that is under way comes to its end; what waits must get its turn, and what is provisioned be there.
        for _ in 0..2_000 {
            world.now += 100;
            let now = world.now;
            world.pool.tick(now);
            world.settle();
            for id in world.environments.keys().copied().collect::<Vec<_>>() {
                if world.environments.contains_key(&id) {
                    world.happens(id, false, &mut dice);
                    world.settle();
                }
            }
            let provisioned = |d: &str| world.pool.provisioning(d);
            let all_there = ["a:1", "b:1"].iter().all(|d| provisioned(d).ready == provisioned(d).wanted);
            if world.open.is_empty() && (all_there || world.limits.environments_max < 4) {
                break;
            }
        }
        assert!(world.open.is_empty(), "seed {seed}: {:?} wait for ever", world.open);
        // Where they grow old faster than the bucket fills, one is always missing.
        let grow_old = world.limits.age_ms_max < 10_000 && world.limits.scale_up.is_some();
        if world.limits.environments_max >= 4 && world.limits.memory_mib_max > 1_000 && !grow_old {
            for deployment in ["a:1", "b:1"] {
                assert_eq!(world.pool.provisioning(deployment).ready, 1, "seed {seed}: {deployment} is not kept ready");
            }
        }
        for (function, _) in TERMS {
            world.set_terms(function, (None, &[]));
        }
        world.now += 100_000;
        world.pool.tick(world.now);
        world.settle();
        for id in world.environments.keys().copied().collect::<Vec<_>>() {
            world.pool.gone(id, world.now);
        }
        let pool = &mut world.pool;
        pool.tick(world.now + 100_000);
        let sums = (pool.stopping, pool.busy, pool.starting, pool.charges, pool.memory_mib);
        assert_eq!(
            (pool.lanes.len(), pool.functions.len(), sums),
            (0, 0, (0, 0, 0, 0, 0)),
            "seed {seed}: something is kept"
        );
    }

    #[test]
    fn whatever_happens_limits_hold_and_every_call_is_answered_once() {
        for seed in 1..=250 {
            simulate(seed, false);
        }
    }

    #[test]
    fn limits_hold_while_they_are_changed() {
        for seed in 1..=250 {
            simulate(seed, true);
        }
    }
}
