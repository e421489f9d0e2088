//! A pretend machine: one life of one server, from its start to its death. All that the server has started is held here,
//! so that it can stand still as a whole, and die where it stands.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use longshore_jobs::{Boxed, Jobs, Pretend};
use longshore_store::{Fatal, Files, Os, StoreError};
use tokio::time::Instant;

use crate::disk::{Mount, Off};
use crate::plan::Fault;
use crate::world::World;

/// How long a server goes on after a sync has failed, at most (promise D4).
const EXIT_MS_MAX: u64 = 1_000;

/// See the module.
pub struct Machine {
    pub world: Arc<World>,
    /// Which of the world's servers this is a life of, and which life: no two machines share both.
    pub server: usize,
    pub life: u64,
    /// Thrown when a sync fails; then the machine is to die soon.
    pub fatal: Fatal,
    own: Weak<Machine>,
    /// Its disk, in a world that has one.
    mount: Option<Mount>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    dead: bool,
    paused: bool,
    /// When something last kept it from renewing its leases: it stood still, or its ledger did.
    shaken: Option<Instant>,
    jobs: Option<Jobs>,
    /// Who is to be polled when it dies or goes on, in the order in which they were started.
    wakers: BTreeMap<u64, Waker>,
    next_task: u64,
}

impl Machine {
    pub fn new(world: &Arc<World>, server: usize, life: u64) -> Arc<Self> {
        Arc::new_cyclic(|own| Self {
            world: Arc::clone(world),
            server,
            life,
            fatal: Fatal::new(),
            own: own.clone(),
            mount: world.disk.as_ref().map(|disk| {
                let machine = own.clone();
                disk.mount(world.disk_defect, move |_| {
                    if let Some(machine) = machine.upgrade() {
                        machine.world.note(Fault::CrashAtFiles);
                        machine.die();
                    }
                })
            }),
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// The service, once it has been opened and as long as the machine lives.
    pub fn jobs(&self) -> Option<Jobs> {
        self.state().jobs.clone()
    }

    pub fn set_jobs(&self, jobs: Jobs) {
        let mut state = self.state();
        if !state.dead {
            state.jobs = Some(jobs);
        }
    }

    /// Starts a task of this machine.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(self.hold(Box::pin(task)));
    }

    /// Runs a task of this machine to its end; `None` if the machine dies before.
    pub async fn run<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let (tell, told) = tokio::sync::oneshot::channel();
        self.spawn(async move {
            // Whoever asked may be gone.
            let _ = tell.send(task.await);
        });
        told.await.ok()
    }

    /// Drops everything that runs here, where it stands. What was written is all that is left.
    pub fn die(&self) {
        let wakers = {
            let mut state = self.state();
            if state.dead {
                return;
            }
            state.dead = true;
            // Its handle on the engine goes with the tasks, which hold others.
            state.jobs = None;
            std::mem::take(&mut state.wakers)
        };
        if let Some(disk) = &self.world.disk {
            let power = self.world.one_in(2);
            disk.cut(if power { Off::Powerless } else { Off::Killed });
        }
        self.world.noticed_death(self);
        wakers.into_values().for_each(Waker::wake);
    }

    /// Waits for ever once it is dead: what is left of the step in which it died does nothing any more.
    pub async fn alive(&self) {
        if self.is_dead() {
            std::future::pending().await
        }
    }

    /// Dies within a call: what called is never polled again.
    pub async fn die_here(&self, fault: Fault) -> ! {
        self.world.note(fault);
        self.die();
        std::future::pending().await
    }

    /// Stands still for a while, mostly longer than its leases hold.
    pub fn pause(&self) {
        let world = &self.world;
        if std::mem::replace(&mut self.state().paused, true) {
            return;
        }
        world.event("pause of server", self.server as u64);
        let ms = world.below(if world.one_in(4) { 120_000 } else { 3 * world.plan.lease_ms });
        let Some(machine) = self.own.upgrade() else { return };
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            machine.world.event("end of the pause of server", machine.server as u64);
            machine.go_on();
        });
    }

    /// Stands still within a call, which goes on when the machine does.
    pub async fn pause_here(&self) {
        self.pause();
        tokio::task::yield_now().await;
    }

    pub fn go_on(&self) {
        let wakers = {
            let mut state = self.state();
            if !std::mem::take(&mut state.paused) {
                return;
            }
            std::mem::take(&mut state.wakers)
        };
        self.shake();
        wakers.into_values().for_each(Waker::wake);
    }

    /// A sync has failed: nothing more is acknowledged, and the server ends, which takes it a moment (promise D4).
    pub fn sync_fails(&self) -> StoreError {
        const WHY: &str = "a sync has failed in the world";
        self.fatal.throw(WHY);
        if let Some(machine) = self.own.upgrade() {
            self.spawn(async move {
                machine.world.sleep_up_to(EXIT_MS_MAX).await;
                machine.die();
            });
        }
        StoreError::Broken(WHY.into())
    }

    /// Ends soon after a sync of its own disk has failed.
    pub async fn until_a_sync_fails(self: Arc<Self>) {
        self.fatal.thrown().await;
        self.world.sleep_up_to(EXIT_MS_MAX).await;
        self.die();
    }

    /// Notes that its leases may not have been renewed in time.
    pub fn shake(&self) {
        self.state().shaken = Some(Instant::now());
    }

    /// Whether it may have lost a lease lately through no fault of the engine's.
    pub fn was_shaken(&self, within: Duration) -> bool {
        let state = self.state();
        state.dead
            || state.paused
            || self.fatal.reason().is_some()
            || state.shaken.is_some_and(|at| at.elapsed() <= within)
    }
}

impl Pretend for Machine {
    fn hold(&self, task: Boxed) -> Boxed {
        let Some(machine) = self.own.upgrade() else { return Box::pin(async {}) };
        let number = {
            let mut state = self.state();
            state.next_task += 1;
            state.next_task
        };
        Box::pin(Held { machine, number, task: Some(task) })
    }

    fn before_files(&self) -> Boxed {
        let Some(machine) = self.own.upgrade() else { return Box::pin(async {}) };
        Box::pin(async move {
            machine.alive().await;
            if machine.world.fault(Fault::CrashAtFiles) {
                machine.die_here(Fault::CrashAtFiles).await;
            }
            // Mostly a disk's time, too short to be told apart.
            if machine.world.one_in(8) {
                machine.world.sleep_up_to(20).await;
            }
        })
    }

    fn after_files(&self) -> Boxed {
        let Some(machine) = self.own.upgrade() else { return Box::pin(std::future::pending()) };
        Box::pin(async move { machine.alive().await })
    }

    fn files(&self) -> &dyn Files {
        match &self.mount {
            Some(mount) => mount,
            None => &Os,
        }
    }

    fn shorter(&self) -> u64 {
        self.world.plan.disk.map_or(1, |disk| disk.shorter)
    }
}

/// A task of a machine.
struct Held {
    machine: Arc<Machine>,
    number: u64,
    task: Option<Boxed>,
}

impl Future for Held {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        {
            let mut state = self.machine.state();
            if state.dead {
                drop(state);
                self.task = None;
                return Poll::Ready(());
            }
            let number = self.number;
            state.wakers.insert(number, context.waker().clone());
            if state.paused {
                return Poll::Pending;
            }
        }
        let Some(task) = &mut self.task else { return Poll::Ready(()) };
        let polled = catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(context)));
        let polled = match polled {
            Ok(polled) => polled,
            Err(panic) => {
                self.machine.world.violated(&panic);
                Poll::Ready(())
            }
        };
        let mut state = self.machine.state();
        if state.dead || polled.is_ready() {
            state.wakers.remove(&self.number);
            drop(state);
            // Dropped here and now: after its death nothing of a machine does anything.
            self.task = None;
            return Poll::Ready(());
        }
        Poll::Pending
    }
}
