//! Bodies in files: one file a body, named by a random ID and by nothing else.
//!
//! ```text
//! <dir>/tmp/<id>       a body that is arriving; removed at the next open
//! <dir>/ab/cdef…       a finished body; the ID is `abcdef…`
//! ```
//!
//! A body is written to `tmp`, synced, renamed, and its directory synced, before any record names it: what a record
//! names is there. What no record names is removed: at once after a delete or an overwrite, and after a crash by
//! [`Blobs::sweep`]. An object's key never becomes part of a path.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use longshore_store::Fatal;
use longshore_store::failpoint::{self, Place};

use crate::error::ObjectsError;

/// Names one body file: 32 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlobId(String);

impl BlobId {
    fn random() -> Self {
        Self(uuid::Uuid::new_v4().simple().to_string())
    }

    /// Reads an ID from a record or from a file's name; anything else is no ID.
    pub fn parse(text: &str) -> Option<Self> {
        let hexadecimal = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        (text.len() == 32 && hexadecimal).then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The directory of bodies.
#[derive(Debug)]
pub struct Blobs {
    dir: PathBuf,
    fatal: Fatal,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Counts readings, so that trash knows which of them were there before it.
    readings_started: u64,
    /// Readers between looking into the records and holding what they found.
    readings: BTreeSet<u64>,
    /// Bodies that readers will open later, and how many will.
    pinned: HashMap<BlobId, usize>,
    /// Bodies written or being written whose record is not committed yet: the sweep leaves them alone.
    pending: HashSet<BlobId>,
    /// Bodies without a record, with the count of readings at that moment. As many as objects are deleted while
    /// somebody reads them; a few words each.
    trash: Vec<(u64, BlobId)>,
}

impl Blobs {
    /// Opens or creates the directory and removes what was arriving when the process ended. Blocks.
    pub fn open(dir: &Path, fatal: Fatal) -> Result<Arc<Self>, ObjectsError> {
        let io = |e| ObjectsError::io(format!("opening {}", dir.display()), e);
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        let tmp = dir.join("tmp");
        if tmp.exists() {
            std::fs::remove_dir_all(&tmp).map_err(io)?;
        }
        builder.create(&tmp).map_err(io)?;
        for first in 0..=255_u8 {
            builder.create(dir.join(format!("{first:02x}"))).map_err(io)?;
        }
        File::open(dir).and_then(|d| d.sync_all()).map_err(io)?;
        Ok(Arc::new(Self { dir: dir.to_owned(), fatal, state: Mutex::default() }))
    }

    /// The file of a finished body.
    pub(crate) fn path(&self, id: &BlobId) -> PathBuf {
        let (directory, name) = id.0.split_at(2);
        self.dir.join(directory).join(name)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Starts a new body. Blocks.
    pub fn create(self: &Arc<Self>) -> Result<BlobWriter, ObjectsError> {
        let id = BlobId::random();
        let pending = Pending { blobs: self.clone(), id: id.clone(), stage: Stage::Arriving };
        self.state().pending.insert(id.clone());
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.dir.join("tmp").join(&id.0))
            .map_err(|e| ObjectsError::io("creating a body", e))?;
        Ok(BlobWriter { file, pending })
    }

    /// Opens a body for reading. Blocks. A file that is gone is damage, unless the caller's record is outdated:
    /// hold a [`Reading`] from before the record was read.
    pub fn open_file(&self, id: &BlobId) -> Result<File, ObjectsError> {
        let path = self.path(id);
        File::open(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => ObjectsError::Damaged(format!("the body {} is missing", path.display())),
            _ => ObjectsError::io(format!("opening the body {}", path.display()), e),
        })
    }

    /// Keeps every body that a record names now until the answer is dropped. Take it before reading the record, drop it
    /// once the file is open or the bodies are pinned.
    pub fn reading(self: &Arc<Self>) -> Reading {
        let mut state = self.state();
        state.readings_started += 1;
        let number = state.readings_started;
        state.readings.insert(number);
        Reading { blobs: self.clone(), number }
    }

    /// Keeps these bodies until the answer is dropped.
    pub fn pin(self: &Arc<Self>, ids: Vec<BlobId>) -> Pinned {
        let mut state = self.state();
        for id in &ids {
            *state.pinned.entry(id.clone()).or_default() += 1;
        }
        Pinned { blobs: self.clone(), ids }
    }

    /// Removes bodies that no record names any more, each as soon as no reader is about to open it. A reader that has
    /// the file open keeps its bytes.
    pub fn discard(self: &Arc<Self>, ids: Vec<BlobId>) {
        if ids.is_empty() {
            return;
        }
        {
            let mut state = self.state();
            let now = state.readings_started;
            state.trash.extend(ids.into_iter().map(|id| (now, id)));
        }
        self.collect();
    }

    fn collect(self: &Arc<Self>) {
        let ready: Vec<BlobId> = {
            let mut state = self.state();
            if state.trash.is_empty() {
                return;
            }
            let oldest = state.readings.first().copied().unwrap_or(u64::MAX);
            let State { trash, pinned, .. } = &mut *state;
            trash.extract_if(.., |(since, id)| *since < oldest && !pinned.contains_key(id)).map(|(_, id)| id).collect()
        };
        if ready.is_empty() {
            return;
        }
        let blobs = self.clone();
        let remove = move || ready.iter().for_each(|id| blobs.remove(id));
        match tokio::runtime::Handle::try_current() {
            // Unlinking a large file takes the file system a while.
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }

    fn remove(&self, id: &BlobId) {
        failpoint::pass(Place::BodyRemoveBefore);
        if let Err(error) = std::fs::remove_file(self.path(id))
            && error.kind() != std::io::ErrorKind::NotFound
        {
            // Lost space, not lost data: the sweep at the next start tries again.
            tracing::warn!(blob = id.0, %error, "could not remove a body that nothing refers to");
        }
    }

    /// Removes finished bodies that no record names: what a crash between the rename and the commit, or between the
    /// commit and the removal, left behind. `named` answers for one batch which of the IDs a record names; it is asked
    /// after the file was seen and found not pending, so that a body committed meanwhile is kept. Blocks.
    pub fn sweep(
        &self,
        mut named: impl FnMut(&[BlobId]) -> Result<HashSet<BlobId>, ObjectsError>,
    ) -> Result<u64, ObjectsError> {
        let mut removed = 0;
        for first in 0..=255_u8 {
            let prefix = format!("{first:02x}");
            let directory = self.dir.join(&prefix);
            let io = |e| ObjectsError::io(format!("sweeping {}", directory.display()), e);
            let mut found = Vec::new();
            for entry in std::fs::read_dir(&directory).map_err(io)? {
                let name = entry.map_err(io)?.file_name();
                match name.to_str().and_then(|n| BlobId::parse(&format!("{prefix}{n}"))) {
                    Some(id) => found.push(id),
                    None => tracing::warn!(?name, "a file among the bodies that is none of ours is left alone"),
                }
            }
            {
                let state = self.state();
                found.retain(|id| !state.pending.contains(id));
            }
            if found.is_empty() {
                continue;
            }
            let keep = named(&found)?;
            for id in found.iter().filter(|id| !keep.contains(id)) {
                self.remove(id);
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn sync(&self, file: &File, what: &str) -> Result<(), ObjectsError> {
        Ok(self.fatal.sync(file, what)?)
    }
}

/// A body being written. Dropped before [`BlobWriter::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct BlobWriter {
    file: File,
    pending: Pending,
}

impl BlobWriter {
    /// Appends. Blocks.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ObjectsError> {
        self.file.write_all(bytes).map_err(|e| ObjectsError::io("writing a body", e))
    }

    /// Makes the body durable under its name. Blocks.
    pub fn finish(self) -> Result<Pending, ObjectsError> {
        let Self { file, mut pending } = self;
        let blobs = pending.blobs.clone();
        failpoint::pass(Place::BodySyncBefore);
        blobs.sync(&file, "a body")?;
        drop(file);
        failpoint::pass(Place::BodyRenameBefore);
        let path = blobs.path(&pending.id);
        std::fs::rename(blobs.dir.join("tmp").join(&pending.id.0), &path)
            .map_err(|e| ObjectsError::io("naming a body", e))?;
        failpoint::pass(Place::BodyRenameAfter);
        pending.stage = Stage::Finished;
        let directory = path.parent().unwrap_or(&blobs.dir);
        let directory = File::open(directory).map_err(|e| ObjectsError::io("opening a directory of bodies", e))?;
        blobs.sync(&directory, "a directory of bodies")?;
        failpoint::pass(Place::BodyNamed);
        Ok(pending)
    }
}

/// A body that no record names yet. Dropped, it is removed; [`Pending::keep`] it once its record is committed.
#[derive(Debug)]
pub struct Pending {
    blobs: Arc<Blobs>,
    id: BlobId,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Arriving,
    Finished,
    Kept,
}

impl Pending {
    pub fn id(&self) -> &BlobId {
        &self.id
    }

    /// A record names the body now, or may: then the next sweep decides.
    pub fn keep(mut self) {
        self.stage = Stage::Kept;
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        match self.stage {
            Stage::Kept => {}
            Stage::Finished => self.blobs.remove(&self.id),
            Stage::Arriving => match std::fs::remove_file(self.blobs.dir.join("tmp").join(&self.id.0)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(blob = self.id.0, %error, "could not remove an unfinished body");
                }
                _ => {}
            },
        }
        self.blobs.state().pending.remove(&self.id);
    }
}

/// See [`Blobs::reading`].
#[derive(Debug)]
pub struct Reading {
    blobs: Arc<Blobs>,
    number: u64,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.blobs.state().readings.remove(&self.number);
        self.blobs.collect();
    }
}

/// See [`Blobs::pin`].
#[derive(Debug)]
pub struct Pinned {
    blobs: Arc<Blobs>,
    ids: Vec<BlobId>,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        {
            let mut state = self.blobs.state();
            for id in &self.ids {
                if let Some(count) = state.pinned.get_mut(id) {
                    *count -= 1;
                    if *count == 0 {
                        state.pinned.remove(id);
                    }
                }
            }
        }
        self.blobs.collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(blobs: &Arc<Blobs>, bytes: &[u8]) -> Pending {
        let mut writer = blobs.create().unwrap();
        writer.write(bytes).unwrap();
        writer.finish().unwrap()
    }

    fn files(dir: &Path) -> usize {
        let mut count = 0;
        for sub in std::fs::read_dir(dir).unwrap() {
            count += std::fs::read_dir(sub.unwrap().path()).unwrap().count();
        }
        count
    }

    #[test]
    fn an_unfinished_body_is_gone_when_it_is_dropped_and_after_a_crash() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path(), Fatal::new()).unwrap();
        let mut writer = blobs.create().unwrap();
        writer.write(b"half").unwrap();
        assert_eq!(files(dir.path()), 1);
        drop(writer);
        assert_eq!(files(dir.path()), 0);
        // A crash runs no destructor.
        std::mem::forget(blobs.create().unwrap());
        assert_eq!(files(dir.path()), 1);
        Blobs::open(dir.path(), Fatal::new()).unwrap();
        assert_eq!(files(dir.path()), 0);
    }

    #[test]
    fn the_sweep_removes_what_no_record_names_and_leaves_what_is_pending() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path(), Fatal::new()).unwrap();
        let named = written(&blobs, b"named");
        let named_id = named.id().clone();
        named.keep();
        let orphan = written(&blobs, b"orphan");
        orphan.keep();
        let pending = written(&blobs, b"pending");
        let only_named = |ids: &[BlobId]| Ok(ids.iter().filter(|id| **id == named_id).cloned().collect());
        assert_eq!(blobs.sweep(only_named).unwrap(), 1);
        assert_eq!(files(dir.path()), 2);
        drop(pending);
        assert_eq!(files(dir.path()), 1);
        blobs.open_file(&named_id).unwrap();
    }

    #[test]
    fn a_discarded_body_stays_until_the_readers_that_may_open_it_have() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path(), Fatal::new()).unwrap();
        let body = written(&blobs, b"x");
        let id = body.id().clone();
        body.keep();
        let before = blobs.reading();
        blobs.discard(vec![id.clone()]);
        let after = blobs.reading();
        let pin = blobs.pin(vec![id.clone()]);
        drop(before);
        blobs.open_file(&id).unwrap();
        drop(pin);
        // A reader that came after the record was gone cannot know the body.
        assert!(blobs.open_file(&id).is_err());
        drop(after);
    }
}
