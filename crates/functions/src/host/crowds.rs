//! Looks at how long the runtimes of busy functions have a processor or wait for one, so that
//! [`longshore_core::crowd`] can say how many of their calls at once are of use.
//!
//! Nobody looks while nothing is called, or seldom.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use longshore_core::crowd::{Crowd, Seen};
use longshore_core::pool::EnvironmentId;
use longshore_sandbox::usage::Times;
use tokio::sync::Notify;

use super::environment::Environment;
use super::{Shared, lock};

/// Between two looks. A runtime among 64 on two cores waits some five milliseconds for its turn, and only then is it known
/// how long.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// So many calls of one function are answered before it is worth a look.
const ANSWERS_A_LOOK: u64 = 64;
/// Looks that find no short calls before they end.
const LOOKS_IDLE_MAX: u32 = 3;
/// Runtimes of one function that are looked at, each a system call of a microsecond: what these are like all are.
const RUNTIMES_MAX: usize = 64;

/// What all environments of one function have in common.
#[derive(Debug)]
pub(super) struct Crowded {
    answered: AtomicU64,
    /// `u32::MAX` for any number.
    of_use: AtomicU32,
}

impl Crowded {
    /// A call was answered. Whether it is worth a look.
    pub fn answered(&self) -> bool {
        (self.answered.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(ANSWERS_A_LOOK)
    }
}

/// All functions'.
#[derive(Debug, Default)]
pub(super) struct Crowds {
    /// One entry for each function that has an environment, and some of such that had.
    functions: Mutex<HashMap<String, Arc<Crowded>>>,
    look: Arc<Notify>,
}

impl Crowds {
    pub fn of(&self, function: &str) -> Arc<Crowded> {
        let mut functions = lock(&self.functions);
        if let Some(found) = functions.get(function) {
            return found.clone();
        }
        // Nobody knows of those that nobody else holds.
        functions.retain(|_, crowded| Arc::strong_count(crowded) > 1);
        let made = Arc::new(Crowded { answered: AtomicU64::new(0), of_use: AtomicU32::new(u32::MAX) });
        functions.entry(function.to_owned()).or_insert(made).clone()
    }

    /// How many calls at once are of use.
    pub fn of_use(&self, function: &str) -> u32 {
        lock(&self.functions).get(function).map_or(u32::MAX, |crowded| crowded.of_use.load(Ordering::Relaxed))
    }

    /// It is worth a look.
    pub fn look(&self) {
        self.look.notify_one();
    }
}

impl Drop for Crowds {
    fn drop(&mut self) {
        // Whoever looks finds that there is nothing any more.
        self.look.notify_one();
    }
}

/// An environment, as far as it is looked at.
trait Runtime {
    fn id(&self) -> EnvironmentId;
    /// Calls that it was given since it began.
    fn given(&self) -> u64;
    fn is_running(&self) -> bool;
    /// How long it has had a processor, and waited for one; `None` where nobody can tell.
    fn times(&self) -> Option<Times>;
}

impl Runtime for Arc<Environment> {
    fn id(&self) -> EnvironmentId {
        self.id
    }

    fn given(&self) -> u64 {
        Environment::given(self)
    }

    fn is_running(&self) -> bool {
        Environment::is_running(self)
    }

    fn times(&self) -> Option<Times> {
        Environment::times(self)
    }
}

/// What one function is judged by.
struct Judged {
    crowded: Arc<Crowded>,
    crowd: Crowd,
    /// Answers and time at the last look.
    answered: u64,
    at: Instant,
    /// Of each environment: calls that it was given, and the times of its runtime, when it was last looked at.
    /// One that was given nothing since has done nothing since.
    runtimes: HashMap<EnvironmentId, (u64, Times)>,
}

impl Judged {
    fn new(crowded: Arc<Crowded>, cores: u32, at: Instant) -> Self {
        let answered = crowded.answered.load(Ordering::Relaxed);
        Self { crowded, crowd: Crowd::new(cores), answered, at, runtimes: HashMap::new() }
    }

    /// Whether its calls are short, and come one after the other.
    fn look(&mut self, environments: &[impl Runtime], under_way: u32, now: Instant) -> bool {
        let (mut cpu_ns, mut runnable_ns, mut looked_at, mut worked) = (0, 0, 0_u64, 0_u64);
        for environment in environments {
            let given = environment.given();
            let before = self.runtimes.get(&environment.id()).copied();
            if before.is_some_and(|(before, _)| before == given) && !environment.is_running() {
                continue;
            }
            worked += 1;
            if looked_at == RUNTIMES_MAX as u64 {
                continue;
            }
            if let Some(times) = environment.times() {
                self.runtimes.insert(environment.id(), (given, times));
                if let Some((_, before)) = before {
                    cpu_ns += times.cpu_ns.saturating_sub(before.cpu_ns);
                    runnable_ns += times.runnable_ns.saturating_sub(before.runnable_ns);
                    looked_at += 1;
                }
            }
        }
        let answered = self.crowded.answered.load(Ordering::Relaxed);
        // Those that were not looked at are like those that were.
        let all_us = |ns: u64| ns / 1_000 * worked / looked_at.max(1);
        let seen = Seen {
            span_us: micros(now.duration_since(self.at)).max(1),
            answered: answered - self.answered,
            under_way,
            cpu_us: all_us(cpu_ns),
            runnable_us: all_us(runnable_ns),
        };
        (self.answered, self.at) = (answered, now);
        let of_use = self.crowd.look(seen);
        self.crowded.of_use.store(of_use.unwrap_or(u32::MAX), Ordering::Relaxed);
        self.crowd.are_short(seen)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Drop for Judged {
    fn drop(&mut self) {
        // Where nobody looks nobody is held back.
        self.crowded.of_use.store(u32::MAX, Ordering::Relaxed);
    }
}

/// Looks for as long as the host lives, and something is called.
pub(super) async fn watch(shared: Weak<Shared>) {
    let cores = std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX));
    let mut judged: HashMap<String, Judged> = HashMap::new();
    let mut idle = 0;
    loop {
        let Some(this) = shared.upgrade() else { return };
        let environments: Vec<_> = {
            let state = lock(&this.state);
            if state.closed {
                return;
            }
            state.environments.values().cloned().collect()
        };
        let now = Instant::now();
        let mut functions: HashMap<&str, Vec<Arc<Environment>>> = HashMap::new();
        for environment in &environments {
            functions.entry(&environment.deployment.name).or_default().push(environment.clone());
        }
        judged.retain(|name, _| functions.contains_key(name.as_str()));
        let mut short = false;
        for (name, environments) in functions {
            let under_way = u32::try_from(lock(&this.state).pool.busy(name)).unwrap_or(u32::MAX);
            if !judged.contains_key(name) {
                judged.insert(name.to_owned(), Judged::new(this.crowds.of(name), cores, now));
            }
            let Some(function) = judged.get_mut(name) else { continue };
            let known: HashSet<_> = environments.iter().map(|environment| environment.id).collect();
            function.runtimes.retain(|id, _| known.contains(id));
            short |= function.look(&environments, under_way, now);
        }
        idle = if short { 0 } else { idle + 1 };
        if idle < LOOKS_IDLE_MAX {
            drop((environments, this));
            tokio::time::sleep(LOOK_EVERY).await;
            continue;
        }
        // What was seen before the pause says nothing of what comes after it.
        judged.clear();
        idle = 0;
        // Not held while nothing happens: a host that nobody needs any more must go.
        let look = this.crowds.look.clone();
        drop((environments, this));
        look.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its number, calls that it was given, whether one is in it, and for how many microseconds it had a processor and was
    /// runnable.
    #[derive(Clone, Copy)]
    struct Pretend(u64, u64, bool, Option<(u64, u64)>);

    impl Runtime for Pretend {
        fn id(&self) -> EnvironmentId {
            EnvironmentId(self.0)
        }

        fn given(&self) -> u64 {
            self.1
        }

        fn is_running(&self) -> bool {
            self.2
        }

        fn times(&self) -> Option<Times> {
            self.3.map(|(cpu, runnable)| Times { cpu_ns: cpu * 1_000, runnable_ns: runnable * 1_000 })
        }
    }

    /// Looks at so many environments ten milliseconds after they were looked at first, in which each had a processor and was
    /// runnable for so many microseconds, and 1,000 calls were answered. Returns what is of use then.
    fn of_use(environments: u64, times_us: Option<(u64, u64)>) -> u32 {
        let (crowds, began) = (Crowds::default(), Instant::now());
        let mut judged = Judged::new(crowds.of("f"), 2, began);
        let at = |given, times_us: Option<(u64, u64)>| -> Vec<_> {
            let since = times_us.map(|(cpu, runnable)| (70_000 + cpu, 5_000_000 + runnable));
            (0..environments).map(|id| Pretend(id, given, true, since)).collect()
        };
        judged.look(&at(0, times_us.map(|_| (0, 0))), 64, began);
        (0..1_000).for_each(|_| _ = judged.crowded.answered());
        judged.look(&at(1, times_us), 64, began + LOOK_EVERY);
        let of_use = crowds.of_use("f");
        drop(judged);
        assert_eq!(crowds.of_use("f"), u32::MAX, "where nobody looks nobody is held back");
        of_use
    }

    #[test]
    fn a_function_is_held_back_by_what_its_runtimes_were_runnable_since_the_last_look() {
        for (environments, times_us, expected) in [
            (64, Some((200, 10_000)), 3),
            (64, Some((200, 5_000)), 35),
            // Sixty-four of these are looked at.
            (256, Some((50, 2_500)), 3),
            (8, Some((2_000, 5_000)), u32::MAX),
            (64, Some((200, 200)), u32::MAX),
            // Others have the processors.
            (64, Some((20, 10_000)), u32::MAX),
            (64, None, u32::MAX),
        ] {
            assert_eq!(of_use(environments, times_us), expected, "{environments} {times_us:?}");
        }
    }

    #[test]
    fn what_an_environment_does_without_a_call_does_not_count() {
        let (crowds, began) = (Crowds::default(), Instant::now());
        let mut judged = Judged::new(crowds.of("f"), 2, began);
        let at = |us| (0..64).map(|id| Pretend(id, 7, false, Some((us, us)))).collect::<Vec<_>>();
        judged.look(&at(0), 64, began);
        (0..1_000).for_each(|_| _ = judged.crowded.answered());
        assert!(judged.look(&at(10_000), 64, began + LOOK_EVERY), "calls are short");
        assert_eq!(crowds.of_use("f"), u32::MAX);
    }

    #[test]
    fn a_look_is_worth_it_after_so_many_answers_and_functions_without_environments_are_forgotten() {
        let crowds = Crowds::default();
        let f = crowds.of("f");
        let worth: Vec<_> = (1..=200).filter(|_| f.answered()).collect();
        assert_eq!(worth.len(), 3);
        f.of_use.store(5, Ordering::Relaxed);
        assert!(Arc::ptr_eq(&f, &crowds.of("f")));
        drop(crowds.of("g"));
        crowds.of("h");
        assert_eq!((crowds.of_use("f"), lock(&crowds.functions).len()), (5, 2));
        drop(f);
        crowds.of("i");
        assert_eq!(crowds.of_use("f"), u32::MAX);
    }
}
