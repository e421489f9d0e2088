//! The threads on which invocations happen, apart from those of requests: a large upload must not stand before an answer.

use longshore_functions::host::Threads;
use tokio::sync::watch;

use crate::failure::{Because, Failure};

/// They run until this is dropped.
pub struct InvocationThreads {
    pub threads: Threads,
    _alive: watch::Sender<()>,
}

impl InvocationThreads {
    /// Starts one thread for each two cores: what is called on it is at least as much work as the calling. They sleep while
    /// nothing is invoked.
    pub fn start() -> Result<Self, Failure> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let alive = watch::Sender::new(());
        let others = (1..cores.div_ceil(2)).map(|_| thread(&alive)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { threads: Threads::new(thread(&alive)?, others), _alive: alive })
    }
}

fn thread(alive: &watch::Sender<()>) -> Result<tokio::runtime::Handle, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_name("longshore")
        .build()
        .because("cannot start threads")?;
    let handle = runtime.handle().clone();
    let mut watched = alive.subscribe();
    let run = move || {
        // Nothing is ever sent: it ends with the sender.
        let _ = runtime.block_on(watched.changed());
        // What blocks for its tasks then (a file that is read) is nobody's any more.
        runtime.shutdown_background();
    };
    std::thread::Builder::new().name("invocations".into()).spawn(run).because("cannot start threads")?;
    Ok(handle)
}
