//! Where the engine's tasks run, and where it works on files: the one place that starts anything.
//!
//! All that it starts ends together: a failed sync cuts it off where it stands ([`Tasks::cut_off`]), and a shutdown waits
//! for it. In a simulation the tasks of one pretend server are stopped, dropped and held up by what stands behind
//! [`Pretend`], and file work is done where it is asked for, without threads: so one seed makes one course of events.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;

use futures::FutureExt;
use longshore_store::StoreError;
pub use longshore_store::ground::{Boxed, Ground, Pretend};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Everything the engine has started.
pub(super) struct Tasks {
    ground: Ground,
    tracker: TaskTracker,
    cut: CancellationToken,
}

impl Tasks {
    pub fn new(ground: Ground) -> Self {
        Self { ground, tracker: TaskTracker::new(), cut: CancellationToken::new() }
    }

    /// What all of it runs on, and whose files it works on.
    pub fn ground(&self) -> &Ground {
        &self.ground
    }

    /// Starts a task. The answer is `None` if the task was cut off or has panicked.
    pub fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> oneshot::Receiver<Option<T>> {
        self.start(task, false)
    }

    /// As [`Tasks::spawn_while_wanted`], on another runtime than this one. A simulation has one.
    pub fn spawn_on_while_wanted<T: Send + 'static>(
        &self,
        runtime: &tokio::runtime::Handle,
        task: impl Future<Output = T> + Send + 'static,
    ) -> oneshot::Receiver<Option<T>> {
        let _there = runtime.enter();
        self.start(task, true)
    }

    /// As [`Tasks::spawn`], for a task that is dropped where it stands once nobody waits for its answer any more.
    pub fn spawn_while_wanted<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> oneshot::Receiver<Option<T>> {
        self.start(task, true)
    }

    fn start<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
        while_wanted: bool,
    ) -> oneshot::Receiver<Option<T>> {
        let (mut tell, told) = oneshot::channel();
        let cut = self.cut.clone();
        let task = async move {
            let done = tokio::select! {
                // First: once it is cut off nothing of it is run again, whatever it waits for is there.
                biased;
                () = cut.cancelled() => None,
                () = tell.closed(), if while_wanted => None,
                done = task => Some(done),
            };
            // Few tasks are waited for.
            let _ = tell.send(done);
        };
        match &self.ground {
            Ground::Threads => self.tracker.spawn(task),
            Ground::Pretended(machine) => self.tracker.spawn(machine.hold(Box::pin(task))),
        };
        told
    }

    /// Goes on with `work`. `None`: it has panicked, and the log has what with. In a simulation the panic goes on, for that is
    /// what is looked for there.
    pub async fn caught<T>(&self, what: &str, work: impl Future<Output = T>) -> Option<T> {
        if let Ground::Pretended(_) = &self.ground {
            return Some(work.await);
        }
        match AssertUnwindSafe(work).catch_unwind().await {
            Ok(done) => Some(done),
            Err(panic) => {
                let text = panic.downcast_ref::<&str>().copied();
                let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text");
                tracing::error!(what, text, "a part of the engine has panicked, which is a defect of Longshore");
                None
            }
        }
    }

    /// Does work on files, off the async threads. It begins at once, and on a thread it goes on if nobody waits any more.
    pub fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> impl Future<Output = Result<T, StoreError>> + Send + 'static {
        match &self.ground {
            Ground::Threads => Begun::OnThread(self.on_thread(work)),
            Ground::Pretended(machine) => Begun::here(machine, async { work() }),
        }
        .done()
    }

    /// As [`Tasks::blocking`], for work that waits for what it is fed through channels, and for nothing else.
    pub fn blocking_on<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> impl Future<Output = Result<T, StoreError>> + Send + 'static {
        match &self.ground {
            Ground::Threads => {
                let runtime = tokio::runtime::Handle::current();
                Begun::OnThread(self.on_thread(move || runtime.block_on(work)))
            }
            Ground::Pretended(machine) => Begun::here(machine, work),
        }
        .done()
    }

    /// Does work on a thread in any case: what blocks on channels. A simulation must not come here.
    pub fn on_thread<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        // Tracked, so that a server that stops waits for it: nobody else may find it writing.
        self.tracker.spawn_blocking(work)
    }

    /// Starts nothing more, and drops every task where it stands. Work on files that has begun is finished.
    pub fn cut_off(&self) {
        self.cut.cancel();
    }

    /// Waits until everything that was started has come to its end.
    pub async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// Work on files under way.
enum Begun<T> {
    OnThread(JoinHandle<Result<T, StoreError>>),
    Here(Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send>>),
}

impl<T: Send + 'static> Begun<T> {
    fn here(machine: &Arc<dyn Pretend>, work: impl Future<Output = Result<T, StoreError>> + Send + 'static) -> Self {
        let (before, machine) = (machine.before_files(), Arc::clone(machine));
        Begun::Here(Box::pin(async move {
            before.await;
            let done = work.await;
            machine.after_files().await;
            done
        }))
    }

    async fn done(self) -> Result<T, StoreError> {
        match self {
            Begun::OnThread(work) => {
                work.await.unwrap_or_else(|panic| Err(StoreError::Damaged(format!("file work panicked: {panic}"))))
            }
            Begun::Here(work) => work.await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test]
    async fn what_is_cut_off_is_dropped_where_it_stands_and_nothing_starts_after_it() {
        struct Dropped(Arc<AtomicBool>);
        impl Drop for Dropped {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let tasks = Tasks::new(Ground::Threads);
        let dropped = Arc::new(AtomicBool::new(false));
        let stands = Dropped(Arc::clone(&dropped));
        let (go_on, waits) = oneshot::channel::<()>();
        let cut = tasks.spawn(async move {
            let _stands = stands;
            let _ = waits.await;
            panic!("it went on");
        });
        assert_eq!(tasks.spawn(async { 7 }).await, Ok(Some(7)));
        tasks.cut_off();
        // What it waits for is there as well, and comes too late.
        go_on.send(()).unwrap();
        let late = tasks.spawn(async { panic!("it started") });
        assert_eq!((cut.await.unwrap(), late.await.unwrap()), (None::<()>, None::<()>));
        assert!(dropped.load(Ordering::SeqCst));
        tasks.ended().await;
    }

    #[tokio::test]
    async fn file_work_begins_at_once_is_waited_for_at_the_end_and_its_panic_is_an_error() {
        let tasks = Tasks::new(Ground::Threads);
        let (feed, mut fed) = tokio::sync::mpsc::channel(1);
        let done = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&done);
        drop(tasks.blocking_on(async move {
            while let Some(piece) = fed.recv().await {
                noted.lock().unwrap().push(piece);
            }
            Ok::<_, StoreError>(())
        }));
        feed.send(1).await.unwrap();
        feed.send(2).await.unwrap();
        drop(feed);
        let panicked = tasks.blocking(|| -> Result<(), _> { panic!("of the test") }).await;
        assert!(matches!(panicked, Err(StoreError::Damaged(what)) if what.contains("of the test")));
        tasks.ended().await;
        assert_eq!(*done.lock().unwrap(), [1, 2]);
    }

    /// Lets nothing go on but file work.
    struct Stuck;

    impl Pretend for Stuck {
        fn hold(&self, task: Boxed) -> Boxed {
            drop(task);
            Box::pin(async {})
        }

        fn before_files(&self) -> Boxed {
            Box::pin(async {})
        }
    }

    #[tokio::test]
    async fn on_a_pretend_machine_tasks_go_through_its_hands_and_file_work_stays_on_the_thread() {
        let tasks = Tasks::new(Ground::Pretended(Arc::new(Stuck)));
        assert!(tasks.spawn(async { panic!("it started") }).await.is_err());
        let here = std::thread::current().id();
        assert!(tasks.blocking(move || Ok(std::thread::current().id() == here)).await.unwrap());
        tasks.ended().await;
    }
}
