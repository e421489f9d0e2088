//! What a server runs on: the runtime's tasks, threads for work on files, and the disk. In a simulation all three are a
//! pretend machine's.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::StoreError;
use crate::files::{Files, Os};

/// A task or a wait, boxed.
pub type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a server runs on.
#[derive(Clone, Default)]
pub enum Ground {
    /// The Tokio runtime it was started in, with threads for work on files, which are the operating system's.
    #[default]
    Threads,
    /// One thread, on which a pretend machine decides what goes on.
    Pretended(Arc<dyn Pretend>),
}

/// A pretend machine, on which a server of the simulation runs.
pub trait Pretend: Send + Sync + 'static {
    /// Wraps each task before it is started: so the machine can hold all of them up, and drop them where they stand.
    fn hold(&self, task: Boxed) -> Boxed;

    /// Waited for before each piece of work on files: a disk is slow, and a server dies before it was written to.
    fn before_files(&self) -> Boxed;

    /// Waited for after it, before anybody gets to know what came of it: a server dies in the middle of it, too.
    fn after_files(&self) -> Boxed {
        Box::pin(async {})
    }

    fn files(&self) -> &dyn Files {
        &Os
    }

    /// How many times shorter than usual files are when the next one is begun, so that a short job has some.
    fn shorter(&self) -> u64 {
        1
    }
}

impl Ground {
    pub fn files(&self) -> &dyn Files {
        match self {
            Ground::Threads => &Os,
            Ground::Pretended(machine) => machine.files(),
        }
    }

    /// What a length in bytes that is `usual` is here; at least 1.
    pub fn length(&self, usual: u64) -> u64 {
        match self {
            Ground::Threads => usual,
            Ground::Pretended(machine) => (usual / machine.shorter().max(1)).max(1),
        }
    }

    /// Starts a task. The answer fails if it has panicked, or died with its machine.
    pub fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> oneshot::Receiver<T> {
        let (tell, told) = oneshot::channel();
        let task = async move {
            // Not everybody waits.
            let _ = tell.send(task.await);
        };
        match self {
            Ground::Threads => drop(tokio::spawn(task)),
            Ground::Pretended(machine) => drop(tokio::spawn(machine.hold(Box::pin(task)))),
        }
        told
    }

    /// Does work on files, off the async threads. On a thread it goes on if nobody waits for it any more.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        match self {
            Ground::Threads => tokio::task::spawn_blocking(work)
                .await
                .unwrap_or_else(|panic| Err(StoreError::Damaged(format!("file work panicked: {panic}")))),
            Ground::Pretended(machine) => {
                machine.before_files().await;
                let done = work();
                machine.after_files().await;
                done
            }
        }
    }
}
