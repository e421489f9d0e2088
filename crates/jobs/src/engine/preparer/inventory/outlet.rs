//! Where the checked lines of one data file go: to the pinning at once, or to a spool file until it is their turn.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;

use longshore_store::files::Onward;
use longshore_store::{Ground, Open};
use tokio::sync::watch;

use super::super::pinning::Feed;
use super::{GivenUp, Unread};

/// Lines are written to a spool file, and read back, in pieces of this size.
const PIECE_BYTES: usize = 120 << 10;

/// The lines of one data file on their way.
pub(super) struct Outlet {
    ground: Ground,
    feed: Feed,
    /// Which data file this is.
    number: usize,
    /// The data file whose turn it is; closed when nobody waits for the lines any more.
    turn: watch::Receiver<usize>,
    stage: Stage,
    path: PathBuf,
    spool: Option<BufWriter<Onward>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Everything is spooled until the end, whosever turn it is.
    Held,
    /// Everything is spooled until it is this file's turn.
    Ahead,
    Live,
}

impl Outlet {
    /// `path` is that of the spool file, which is made when it is needed, and removed when it is not any more. `held` says
    /// that no line may be pinned before [`Outlet::finish`].
    pub fn new(
        ground: Ground,
        feed: Feed,
        number: usize,
        turn: watch::Receiver<usize>,
        held: bool,
        path: PathBuf,
    ) -> Self {
        let stage = if held { Stage::Held } else { Stage::Ahead };
        Self { ground, feed, number, turn, stage, path, spool: None }
    }

    /// Where the spool file lies, if there is one.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for `what`; hands over what is spooled if it becomes this file's turn meanwhile.
    pub async fn while_waiting_for<T>(&mut self, what: impl Future<Output = T>) -> Result<T, Unread> {
        let mut what = pin!(what);
        if self.stage == Stage::Ahead {
            tokio::select! {
                biased;
                turned = its_turn(&mut self.turn, self.number) => turned?,
                done = &mut what => return Ok(done),
            }
            self.hand_over().await?;
        }
        Ok(what.await)
    }

    /// Takes whole lines. Waits while the pinning is behind.
    pub async fn push(&mut self, lines: Vec<u8>) -> Result<(), Unread> {
        self.check_wanted()?;
        match self.stage {
            Stage::Live => Ok(self.feed.send_checked(lines.into()).await.map_err(|_| GivenUp)?),
            Stage::Held | Stage::Ahead => self.spool(&lines),
        }
    }

    /// Spools lines, for a file that is held. Blocks.
    pub fn spool(&mut self, lines: &[u8]) -> Result<(), Unread> {
        self.check_wanted()?;
        if self.spool.is_none() {
            let file = self.ground.files().open(&self.path, Open::Empty)?;
            self.spool = Some(BufWriter::with_capacity(PIECE_BYTES, Onward::new(file)));
        }
        Ok(self.spool.as_mut().map_or(Ok(()), |spool| spool.write_all(lines))?)
    }

    /// Hands over what is left, when it is this file's turn.
    pub async fn finish(mut self) -> Result<(), Unread> {
        if self.stage != Stage::Live {
            its_turn(&mut self.turn, self.number).await?;
            self.hand_over().await?;
        }
        Ok(())
    }

    /// Nothing else stops a thread that has more at hand.
    fn check_wanted(&self) -> Result<(), GivenUp> {
        self.turn.has_changed().map(|_| ()).map_err(|_| GivenUp)
    }

    async fn hand_over(&mut self) -> Result<(), Unread> {
        if let Some(spool) = &mut self.spool {
            spool.flush()?;
            let mut at = 0;
            loop {
                let mut piece = vec![0; PIECE_BYTES];
                let read = spool.get_ref().file().read_up_to(&mut piece, at)?;
                if read == 0 {
                    break;
                }
                piece.truncate(read);
                at += read as u64;
                self.feed.send_checked(piece.into()).await.map_err(|_| GivenUp)?;
            }
        }
        self.remove();
        self.stage = Stage::Live;
        Ok(())
    }

    fn remove(&mut self) {
        if let Some(spool) = self.spool.take() {
            // Without what is still to be written: nobody reads it any more. A file that cannot be removed now goes with
            // its folder, when the job is over at the latest.
            drop(spool.into_parts());
            let _ = self.ground.files().remove(&self.path);
        }
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.remove();
    }
}

async fn its_turn(turn: &mut watch::Receiver<usize>, number: usize) -> Result<(), GivenUp> {
    turn.wait_for(|turn| *turn >= number).await.map(|_| ()).map_err(|_| GivenUp)
}
