//! A disk that loses what was not synced. Files have a page cache and a durable part; so have the names in folders. What
//! is done to them dies with the power, but for what the disk has written by itself: any of it, in sectors, torn at any byte.
//!
//! The rules are the weakest that POSIX and Linux leave: a file's sync makes no name durable and a folder's no bytes; names
//! that were not synced are kept or lost each on its own; and a sync that fails drops what it could not write, so that the
//! next one has nothing to complain about.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use longshore_core::random::Random;
use longshore_store::{Files, Open, OpenFile};

/// The mount of whoever looks on.
const LOOK: u64 = 0;
/// What a disk writes at once.
const SECTOR: u64 = 512;

/// What can go wrong with a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskFault {
    /// The process dies; what it has written is in the page cache.
    Kill,
    /// The power goes.
    PowerCut,
    /// Of bytes that were not synced a power cut leaves none, or some of them.
    LostWrite,
    TornWrite,
    /// A name that was given, changed or taken away, and not synced, is as it was before, or as it is.
    LostName,
    KeptName,
    /// A sync fails, and what it had to write is dropped.
    FailedSync,
    /// What a failed sync has dropped is read from the disk again, where it is not.
    Evicted,
    /// There is no room: for a name, or for all bytes of a write.
    NoRoom,
    ShortWrite,
    ReadError,
    /// A bit of a durable file turns over.
    FlippedBit,
}

pub const DISK_FAULTS: [DiskFault; 12] = [
    DiskFault::Kill,
    DiskFault::PowerCut,
    DiskFault::LostWrite,
    DiskFault::TornWrite,
    DiskFault::LostName,
    DiskFault::KeptName,
    DiskFault::FailedSync,
    DiskFault::Evicted,
    DiskFault::NoRoom,
    DiskFault::ShortWrite,
    DiskFault::ReadError,
    DiskFault::FlippedBit,
];

/// Defects of whoever uses the disk, planted between the two: a call is left out, or its answer is not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskDefect {
    /// Results are acknowledged without a sync.
    ResultsUnsynced,
    /// A checkpoint gets its name before its bytes are durable.
    CheckpointUnsynced,
    /// No folder is ever synced.
    FolderUnsynced,
    /// A torn tail stays, and what comes is appended behind it.
    TailNotCut,
    /// Whatever stands in a frame is taken for what was written.
    ChecksumUnchecked,
    /// After a sync that failed another one is tried, and believed.
    FailedSyncRetried,
    /// That a write was short is not looked at.
    ShortWriteSwallowed,
    /// What a log is found to have is taken for durable.
    FoundNotWrittenAgain,
    /// A checkpoint covers more than it says.
    CheckpointPastItsMark,
    /// A pinned manifest is called whole before its rows are durable.
    ManifestUnsynced,
}

/// Those that the log alone has to show.
pub const DISK_DEFECTS: [DiskDefect; 9] = [
    DiskDefect::ResultsUnsynced,
    DiskDefect::CheckpointUnsynced,
    DiskDefect::FolderUnsynced,
    DiskDefect::TailNotCut,
    DiskDefect::ChecksumUnchecked,
    DiskDefect::FailedSyncRetried,
    DiskDefect::ShortWriteSwallowed,
    DiskDefect::FoundNotWrittenAgain,
    DiskDefect::CheckpointPastItsMark,
];

/// Those that worlds with a disk have to show.
pub const WORLD_DISK_DEFECTS: [DiskDefect; 5] = [
    DiskDefect::ResultsUnsynced,
    DiskDefect::FolderUnsynced,
    DiskDefect::ManifestUnsynced,
    DiskDefect::FailedSyncRetried,
    DiskDefect::FoundNotWrittenAgain,
];

/// Once in how many calls something goes wrong; 0: never.
#[derive(Debug, Clone, Copy, Default)]
pub struct Odds {
    /// Of those that change something: the process dies in it, half of the time with the power.
    pub dies: u64,
    /// Of those, it is the power in so many of four.
    pub power: u64,
    pub sync_fails: u64,
    pub read_fails: u64,
}

/// How a mount came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Off {
    Killed,
    Powerless,
}

/// See the module. A handle.
#[derive(Clone)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Clone)]
struct State {
    random: Random,
    odds: Odds,
    /// Bytes that there is room for.
    room: u64,
    files: Vec<Contents>,
    /// By path: as everybody sees it, and as it is on the disk. What a folder is not in is not there.
    names: BTreeMap<PathBuf, Named>,
    durable_names: BTreeMap<PathBuf, Named>,
    /// Changes of names that were not synced, in order.
    renamed: Vec<Change>,
    /// The mount that counts, and how it ended.
    mount: u64,
    off: Option<Off>,
    faults: BTreeMap<DiskFault, u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named {
    Folder,
    File(usize),
}

/// One step of a folder: what each name is then.
#[derive(Clone)]
struct Change(Vec<(PathBuf, Option<Named>)>);

#[derive(Clone, Default)]
struct Contents {
    cached: Vec<u8>,
    durable: Vec<u8>,
    /// What was done since the last sync, in order.
    done: Vec<Deed>,
    /// A sync has failed: the cache has what the disk has not, and nobody will write it.
    dropped: bool,
}

#[derive(Clone)]
enum Deed {
    Write(u64, Vec<u8>),
    Length(u64),
}

impl Deed {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Deed::Write(at, new) => put(bytes, *at, new),
            Deed::Length(length) => bytes.resize(*length as usize, 0),
        }
    }
}

fn put(bytes: &mut Vec<u8>, at: u64, new: &[u8]) {
    let (at, end) = (at as usize, at as usize + new.len());
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[at..end].copy_from_slice(new);
}

impl Contents {
    /// What the disk has written by itself of what was done: any of it.
    fn leak(&mut self, random: &mut Random, faults: &mut BTreeMap<DiskFault, u64>) {
        let done = std::mem::take(&mut self.done);
        if done.is_empty() {
            return;
        }
        let (none, all) = (random.one_in(4), random.one_in(4));
        if none {
            *faults.entry(DiskFault::LostWrite).or_default() += 1;
            return;
        }
        if all {
            done.iter().for_each(|deed| deed.apply(&mut self.durable));
            return;
        }
        // Lengths are kept in order, bytes in none.
        let lengths = random.below(done.len() as u64 + 1) as usize;
        let mut length = self.durable.len();
        let before = self.durable.clone();
        for (index, deed) in done.iter().enumerate() {
            match deed {
                Deed::Length(to) if index < lengths => {
                    length = *to as usize;
                    self.durable.truncate(length);
                }
                Deed::Length(_) => {}
                Deed::Write(at, bytes) => {
                    if index < lengths {
                        length = length.max(*at as usize + bytes.len());
                    }
                    let mut from = 0;
                    while from < bytes.len() {
                        let left_in_sector = SECTOR - (*at + from as u64) % SECTOR;
                        let piece = &bytes[from..bytes.len().min(from + left_in_sector as usize)];
                        let kept = match random.below(3) {
                            0 => 0,
                            1 => piece.len(),
                            _ => random.below(piece.len() as u64 + 1) as usize,
                        };
                        put(&mut self.durable, *at + from as u64, &piece[..kept]);
                        from += piece.len();
                    }
                }
            }
        }
        self.durable.resize(length, 0);
        let torn = self.durable != before && self.durable != self.cached;
        *faults.entry(if torn { DiskFault::TornWrite } else { DiskFault::LostWrite }).or_default() += 1;
    }
}

impl State {
    fn note(&mut self, fault: DiskFault) {
        *self.faults.entry(fault).or_default() += 1;
    }

    fn chance(&mut self, one_in: u64) -> bool {
        one_in > 0 && self.random.one_in(one_in)
    }

    fn file(&self, path: &Path) -> Result<usize> {
        match self.names.get(path) {
            Some(Named::File(file)) => Ok(*file),
            Some(Named::Folder) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    /// Changes names, in one step.
    fn change(&mut self, steps: Vec<(PathBuf, Option<Named>)>) {
        for (path, named) in &steps {
            set(&mut self.names, path, *named);
        }
        self.renamed.push(Change(steps));
    }

    fn sync_folder(&mut self, folder: &Path) {
        let (here, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.renamed)
            .into_iter()
            .partition(|Change(steps)| steps.iter().any(|(path, _)| path.parent() == Some(folder)));
        self.renamed = others;
        for Change(steps) in here {
            steps.iter().for_each(|(path, named)| set(&mut self.durable_names, path, *named));
        }
    }

    /// The process is gone, and with it, perhaps, what the page cache need not have.
    fn killed(&mut self) {
        self.note(DiskFault::Kill);
        for file in 0..self.files.len() {
            if self.files[file].dropped && self.files[file].done.is_empty() && self.random.one_in(2) {
                let contents = &mut self.files[file];
                contents.dropped = false;
                if contents.cached != contents.durable {
                    contents.cached.clone_from(&contents.durable);
                    self.note(DiskFault::Evicted);
                }
            }
        }
    }

    fn powerless(&mut self) {
        self.note(DiskFault::PowerCut);
        for contents in &mut self.files {
            contents.leak(&mut self.random, &mut self.faults);
            contents.dropped = false;
            contents.cached.clone_from(&contents.durable);
        }
        let changes = std::mem::take(&mut self.renamed);
        // A journal keeps what came first; nothing says that there is one.
        let first = self.random.one_in(2).then(|| self.random.below(changes.len() as u64 + 1) as usize);
        for (index, Change(steps)) in changes.into_iter().enumerate() {
            if first.map_or_else(|| self.random.one_in(2), |first| index < first) {
                self.note(DiskFault::KeptName);
                steps.iter().for_each(|(path, named)| set(&mut self.durable_names, path, *named));
            } else {
                self.note(DiskFault::LostName);
            }
        }
        // What lies in a folder that is not there is not there.
        let named = self.durable_names.clone();
        let is_folder = |path: &Path| path == Path::new("/") || named.get(path) == Some(&Named::Folder);
        self.durable_names.retain(|path, _| path.ancestors().skip(1).all(is_folder));
        self.names.clone_from(&self.durable_names);
    }
}

fn set(names: &mut BTreeMap<PathBuf, Named>, path: &Path, named: Option<Named>) {
    match named {
        Some(named) => names.insert(path.to_owned(), named),
        None => names.remove(path),
    };
}

fn io_error() -> Error {
    Error::other("of the disk's")
}

impl Disk {
    /// An empty disk.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            random: Random::seeded(seed),
            odds: Odds::default(),
            room: u64::MAX,
            files: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            renamed: Vec::new(),
            mount: 0,
            off: None,
            faults: BTreeMap::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Mounts it for a process that starts, after the end of the one before. `died` is called when the disk takes the
    /// process down.
    pub fn mount(&self, defect: Option<DiskDefect>, died: impl Fn(Off) + Send + Sync + 'static) -> Mount {
        let mut state = self.state();
        state.mount += 1;
        state.off = None;
        Mount { disk: self.clone(), number: state.mount, defect, died: Arc::new(died) }
    }

    /// The disk for whoever looks on: nothing goes wrong with it, and it outlives every process.
    pub fn look(&self) -> Mount {
        Mount { disk: self.clone(), number: LOOK, defect: None, died: Arc::new(|_| {}) }
    }

    /// Ends the process that has it mounted, by a kill or with the power.
    pub fn cut(&self, off: Off) {
        let mut state = self.state();
        if state.off.replace(off).is_none() {
            match off {
                Off::Killed => state.killed(),
                Off::Powerless => state.powerless(),
            }
        }
    }

    /// Makes durable all that there is.
    pub fn settle(&self) {
        let mut state = self.state();
        state.renamed.clear();
        state.durable_names = state.names.clone();
        for contents in &mut state.files {
            contents.done.clear();
            contents.durable.clone_from(&contents.cached);
        }
    }

    pub fn set_odds(&self, odds: Odds) {
        self.state().odds = odds;
    }

    /// From now on there is room for so many bytes more.
    pub fn set_room(&self, bytes: u64) {
        self.state().room = bytes;
    }

    /// What has gone wrong since this was last asked for.
    pub fn take_faults(&self) -> BTreeMap<DiskFault, u64> {
        std::mem::take(&mut self.state().faults)
    }

    /// Another disk with the same on it, to which other things happen.
    pub fn fork(&self, seed: u64) -> Self {
        let mut state = self.state().clone();
        state.random = Random::seeded(seed);
        state.faults.clear();
        state.odds = Odds::default();
        Self(Arc::new(Mutex::new(state)))
    }

    /// Turns a bit of a file over, durably; which file and where. `None`: there is no byte in any.
    pub fn flip(&self) -> Option<(PathBuf, u64)> {
        let mut state = self.state();
        let named = state.names.iter();
        let files = named.filter_map(|(path, named)| match named {
            Named::File(file) if !state.files[*file].cached.is_empty() => Some((path.clone(), *file)),
            _ => None,
        });
        let files: Vec<_> = files.collect();
        let (path, file) = files.get(state.random.below(files.len() as u64) as usize)?.clone();
        let length = state.files[file].cached.len() as u64;
        let at = state.random.below(length);
        let bit = 1 << state.random.below(8);
        let contents = &mut state.files[file];
        contents.cached[at as usize] ^= bit;
        contents.durable.clone_from(&contents.cached);
        contents.done.clear();
        state.note(DiskFault::FlippedBit);
        Some((path, at))
    }
}

/// The disk as one process has it, from its start to its end.
#[derive(Clone)]
pub struct Mount {
    disk: Disk,
    number: u64,
    defect: Option<DiskDefect>,
    died: Arc<dyn Fn(Off) + Send + Sync>,
}

impl fmt::Debug for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mount").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Mount {
    fn has(&self, defect: DiskDefect) -> bool {
        self.defect == Some(defect)
    }

    /// The disk, for a process that lives.
    fn state(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        let gone = state.mount != self.number || state.off.is_some();
        if self.number != LOOK && gone { Err(Error::other("nobody is there")) } else { Ok(state) }
    }

    /// A call that changes something; `work` does it, or, told so, the first half of it. The process may die in it.
    fn change<T>(&self, work: impl FnOnce(&mut State, bool) -> Result<T>) -> Result<T> {
        let mut state = self.state()?;
        let odds = state.odds;
        if !state.chance(odds.dies) {
            return work(&mut state, false);
        }
        // Before, in the middle, or after it.
        match state.random.below(3) {
            0 => {}
            when => drop(work(&mut state, when == 1)),
        }
        let off = if state.random.below(4) < odds.power { Off::Powerless } else { Off::Killed };
        drop(state);
        self.disk.cut(off);
        (self.died)(off);
        Err(Error::other("nobody is there"))
    }
}

impl Files for Mount {
    fn open(&self, path: &Path, how: Open) -> Result<Box<dyn OpenFile>> {
        let found = self.state()?.names.get(path).copied();
        let missing = || Error::from(ErrorKind::NotFound);
        let file = match (how, found) {
            (Open::Folder, Some(Named::Folder)) => None,
            (Open::Folder, Some(Named::File(_))) => return Err(ErrorKind::NotADirectory.into()),
            (_, Some(Named::Folder)) => return Err(ErrorKind::IsADirectory.into()),
            (Open::Folder | Open::Read | Open::Write, None) => return Err(missing()),
            (_, Some(Named::File(file))) => Some(file),
            (Open::Make | Open::Empty, None) => {
                let made = self.change(|state, _| {
                    let parent = path.parent().ok_or_else(missing)?;
                    if parent != Path::new("/") && state.names.get(parent) != Some(&Named::Folder) {
                        return Err(missing());
                    }
                    if state.room == 0 {
                        state.note(DiskFault::NoRoom);
                        return Err(ErrorKind::StorageFull.into());
                    }
                    state.files.push(Contents::default());
                    let file = state.files.len() - 1;
                    state.change(vec![(path.to_owned(), Some(Named::File(file)))]);
                    Ok(file)
                });
                Some(made?)
            }
        };
        let opened = Handle {
            mount: self.clone(),
            path: path.to_owned(),
            file,
            writes: !matches!(how, Open::Read | Open::Folder),
            found: Mutex::new(how == Open::Write),
        };
        if how == Open::Empty && found.is_some() {
            opened.set_length(0)?;
        }
        Ok(Box::new(opened))
    }

    fn make_folder(&self, path: &Path) -> Result<()> {
        let mut above: Vec<_> = path.ancestors().filter(|path| *path != Path::new("/")).collect();
        above.reverse();
        for path in above {
            let found = self.state()?.names.get(path).copied();
            match found {
                Some(Named::Folder) => {}
                Some(Named::File(_)) => return Err(ErrorKind::NotADirectory.into()),
                None => self.change(|state, _| {
                    if state.room == 0 {
                        state.note(DiskFault::NoRoom);
                        return Err(ErrorKind::StorageFull.into());
                    }
                    state.change(vec![(path.to_owned(), Some(Named::Folder))]);
                    Ok(())
                })?,
            }
        }
        Ok(())
    }

    fn names_in(&self, folder: &Path) -> Result<Vec<OsString>> {
        let state = self.state()?;
        if state.names.get(folder) != Some(&Named::Folder) {
            return Err(ErrorKind::NotFound.into());
        }
        let inside = state.names.keys().filter(|path| path.parent() == Some(folder));
        Ok(inside.filter_map(|path| path.file_name()).map(OsString::from).collect())
    }

    fn is_there(&self, path: &Path) -> bool {
        self.state().is_ok_and(|state| state.names.contains_key(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        assert_eq!(from.parent(), to.parent(), "nobody moves a file to another folder");
        self.change(|state, _| {
            let file = state.file(from)?;
            state.change(vec![(from.to_owned(), None), (to.to_owned(), Some(Named::File(file)))]);
            Ok(())
        })
    }

    fn remove(&self, file: &Path) -> Result<()> {
        self.change(|state, _| {
            state.file(file)?;
            state.change(vec![(file.to_owned(), None)]);
            Ok(())
        })
    }

    fn remove_folder(&self, folder: &Path) -> Result<()> {
        let inside: Vec<_> = {
            let state = self.state()?;
            if state.names.get(folder) != Some(&Named::Folder) {
                return Err(ErrorKind::NotFound.into());
            }
            state.names.keys().filter(|path| path.starts_with(folder)).cloned().collect()
        };
        // A folder comes before what is in it.
        inside.into_iter().rev().try_for_each(|path| {
            self.change(|state, _| {
                state.change(vec![(path, None)]);
                Ok(())
            })
        })
    }
}

/// A file, or a folder, that is open.
struct Handle {
    mount: Mount,
    path: PathBuf,
    file: Option<usize>,
    writes: bool,
    /// It was there when it was opened, and nothing of it was synced since: for a defect.
    found: Mutex<bool>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Handle {
    fn file(&self) -> Result<usize> {
        self.file.ok_or_else(|| ErrorKind::IsADirectory.into())
    }

    fn is_results(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension == "seg")
    }

    fn writable(&self) -> Result<usize> {
        if self.writes { self.file() } else { Err(ErrorKind::PermissionDenied.into()) }
    }
}

impl OpenFile for Handle {
    fn read_at(&self, into: &mut [u8], at: u64) -> Result<usize> {
        let file = self.file()?;
        let mut state = self.mount.state()?;
        let odds = state.odds;
        if self.mount.number != LOOK && state.chance(odds.read_fails) {
            state.note(DiskFault::ReadError);
            return Err(io_error());
        }
        let trusting = self.is_results() && self.mount.has(DiskDefect::ChecksumUnchecked);
        let bytes = &state.files[file].cached;
        let vouched = trusting.then(|| vouch(bytes));
        let rest = vouched.as_ref().unwrap_or(bytes).get(at as usize..).unwrap_or_default();
        let read = rest.len().min(into.len());
        into[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> Result<usize> {
        let file = self.writable()?;
        if *self.found.lock().unwrap_or_else(PoisonError::into_inner)
            && self.mount.has(DiskDefect::FoundNotWrittenAgain)
            && at + (bytes.len() as u64) <= self.length()?
        {
            return Ok(bytes.len());
        }
        let swallowed = self.mount.has(DiskDefect::ShortWriteSwallowed);
        self.mount.change(|state, half| {
            let length = state.files[file].cached.len() as u64;
            let grows = (at + bytes.len() as u64).saturating_sub(length);
            // The system takes as much at a time as it likes to.
            let wanted = if half { state.random.below(bytes.len() as u64 + 1) as usize } else { bytes.len() };
            let fits = bytes.len().saturating_sub(grows.saturating_sub(state.room) as usize);
            let written = wanted.min(fits);
            if written < wanted {
                state.note(if written > 0 { DiskFault::ShortWrite } else { DiskFault::NoRoom });
            }
            if written == 0 && wanted > 0 && !swallowed {
                return Err(ErrorKind::StorageFull.into());
            }
            let grown = (at + written as u64).saturating_sub(length);
            state.room = if state.room == u64::MAX { u64::MAX } else { state.room - grown.min(state.room) };
            let deed = Deed::Write(at, bytes[..written].to_vec());
            deed.apply(&mut state.files[file].cached);
            state.files[file].done.push(deed);
            Ok(if swallowed { bytes.len() } else { written })
        })
    }

    fn length(&self) -> Result<u64> {
        let file = self.file()?;
        Ok(self.mount.state()?.files[file].cached.len() as u64)
    }

    fn set_length(&self, length: u64) -> Result<()> {
        let file = self.writable()?;
        if self.mount.has(DiskDefect::TailNotCut) && length > 0 {
            return Ok(());
        }
        self.mount.change(|state, _| {
            let given_back = (state.files[file].cached.len() as u64).saturating_sub(length);
            state.room = state.room.saturating_add(given_back);
            let deed = Deed::Length(length);
            deed.apply(&mut state.files[file].cached);
            state.files[file].done.push(deed);
            Ok(())
        })
    }

    fn sync_data(&self) -> Result<()> {
        let found = std::mem::take(&mut *self.found.lock().unwrap_or_else(PoisonError::into_inner));
        let left_out = match self.file {
            None => self.mount.has(DiskDefect::FolderUnsynced),
            Some(_) if self.is_results() => {
                self.mount.has(DiskDefect::ResultsUnsynced) || found && self.mount.has(DiskDefect::FoundNotWrittenAgain)
            }
            Some(_) => {
                let is_checkpoint = self.path.file_name().is_some_and(|name| name == "checkpoint.new");
                let is_manifest = self.path.extension().is_some_and(|extension| extension == "csv");
                is_checkpoint && self.mount.has(DiskDefect::CheckpointUnsynced)
                    || is_manifest && self.mount.has(DiskDefect::ManifestUnsynced)
            }
        };
        if left_out {
            return Ok(());
        }
        let retried = self.mount.has(DiskDefect::FailedSyncRetried);
        self.mount.change(|state, half| {
            if half {
                // What it has written by then is for the power cut to say.
                return Ok(());
            }
            let odds = state.odds;
            if state.chance(odds.sync_fails) {
                state.note(DiskFault::FailedSync);
                let kind = if state.random.one_in(3) { ErrorKind::StorageFull } else { ErrorKind::Other };
                // Names lie in a journal, which writes them later, or not at all.
                if let Some(file) = self.file {
                    let State { files, random, faults, .. } = &mut *state;
                    files[file].leak(random, faults);
                    files[file].dropped = true;
                }
                return if retried { Ok(()) } else { Err(kind.into()) };
            }
            match self.file {
                None => state.sync_folder(&self.path),
                Some(file) => {
                    let contents = &mut state.files[file];
                    let done = std::mem::take(&mut contents.done);
                    done.iter().for_each(|deed| deed.apply(&mut contents.durable));
                }
            }
            Ok(())
        })
    }

    fn sync_all(&self) -> Result<()> {
        self.sync_data()
    }
}

/// A segment as it reads for somebody who does not look at checksums: each frame has the one that belongs to it.
fn vouch(bytes: &[u8]) -> Vec<u8> {
    use longshore_store::segment::{FRAME_HEAD, HEADER, MARK, PAYLOAD_MAX, push_frame};
    let mut read = bytes.to_vec();
    let mut at = HEADER.len();
    while let Some(head) = bytes.get(at..at + FRAME_HEAD) {
        // Above the length, the number with which the payload is veiled.
        let (length, veil) = (u32::from_le_bytes([head[4], head[5], head[6], 0]) as usize, head[7]);
        let payload = bytes.get(at + FRAME_HEAD..at + FRAME_HEAD + length);
        let Some(payload) = payload.filter(|_| &head[..4] == MARK && (1..=PAYLOAD_MAX).contains(&length)) else {
            break;
        };
        let mut frame = Vec::new();
        push_frame(&mut frame, &payload.iter().map(|byte| byte ^ veil).collect::<Vec<_>>());
        put(&mut read, at as u64, &frame);
        at += frame.len();
    }
    read
}
