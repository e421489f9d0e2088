//! Ctrl-C and SIGTERM: the first asks to stop, the second ends the process.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::failure::{Because, Failure, INTERRUPTED};

/// Becomes true with the first signal.
#[derive(Debug, Clone)]
pub struct Interrupt(watch::Receiver<bool>);

impl Interrupt {
    /// Takes over both signals. With the second one the process ends at once, with status 130.
    pub fn listen() -> Result<Self, Failure> {
        let mut interrupt = signal(SignalKind::interrupt()).because("cannot listen for Ctrl-C")?;
        let mut terminate = signal(SignalKind::terminate()).because("cannot listen for SIGTERM")?;
        let (asked, receiver) = watch::channel(false);
        tokio::spawn(async move {
            for first in [true, false] {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if !first {
                    std::process::exit(i32::from(INTERRUPTED));
                }
                asked.send_replace(true);
            }
        });
        Ok(Self(receiver))
    }

    /// Waits for the first signal.
    pub async fn asked(&mut self) {
        if self.0.wait_for(|asked| *asked).await.is_err() {
            // The task that listens has ended, with the runtime: nobody will ask any more.
            std::future::pending::<()>().await;
        }
    }
}
