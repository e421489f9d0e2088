//! Function code at rest: deployment packages, kept by the SHA-256 of their bytes and unpacked once.
//!
//! ```text
//! <data>/code/<sha256, hex>/package.zip   the bytes as they were uploaded, for download
//!                           content/      unpacked, without write bits; shared by every environment and version
//!             layers-<sha256, hex>/       the contents of several layers, merged in their order: `/opt`
//! ```
//!
//! A package is unpacked next to its place, synced, and renamed into it: a folder with a SHA-256 for its name is whole.
//! A crash leaves `unpacking-*` folders; they are swept at start, with all that nothing names. While the server runs, what
//! nothing names any more goes an hour later: an invocation that began before may still be running on it.
//!
//! Layers are packages like any other. One layer alone is `/opt` where it lies; several are merged once for each list
//! of them, by hard links: a file of 200 MB in twenty merged folders is on the disk once, and costs a name each time.

pub mod archive;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use bytes::Bytes;
use longshore_store::failpoint::{self, Place};
use longshore_store::{Fatal, StoreError};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use archive::{ArchiveError, Entry, Kind};

/// Zipped bytes of one package. Source: Lambda spec 7.
pub const ZIPPED_BYTES_MAX: usize = 52_428_800;
/// Packages unpacked at once: each holds its archive in memory and a core busy.
const UNPACKING_MAX: usize = 2;
/// How long what nothing names is kept: four times what the longest invocation takes, and far longer than what lies
/// between storing a package and writing down who has it.
const UNUSED_KEPT: Duration = Duration::from_secs(60 * 60);
/// Folders that are being made, or being removed.
const UNFINISHED: &str = "unpacking-";
/// Up to this many files are synced one by one; past it one sync of the whole file system is cheaper.
const SYNCED_SINGLY_MAX: usize = 256;

/// Why a package was not kept.
#[derive(Debug, thiserror::Error)]
pub enum CodeError {
    #[error("the package has {0} bytes; at most {ZIPPED_BYTES_MAX} are taken")]
    TooLarge(usize),
    #[error("the package cannot be unpacked: {0}")]
    Archive(#[from] ArchiveError),
    #[error("the package could not be stored: {0}")]
    Io(#[from] std::io::Error),
    /// What was written could not be made durable; this process is about to end.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A package by its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Code {
    /// SHA-256 of the exact uploaded bytes, lower-case hex: the folder's name.
    pub sha256: String,
    /// Bytes of the zip.
    pub size: u64,
}

impl Code {
    fn of(zip: &[u8]) -> Self {
        Self { sha256: hex::encode(Sha256::digest(zip)), size: zip.len() as u64 }
    }

    /// As AWS shows it: `CodeSha256`, base64.
    pub fn sha256_base64(&self) -> String {
        let raw = hex::decode(&self.sha256).expect("made by hex::encode");
        base64::engine::general_purpose::STANDARD.encode(raw)
    }
}

/// The folder of packages. Cheap to clone.
#[derive(Debug, Clone)]
pub struct CodeStore {
    root: PathBuf,
    fatal: Fatal,
    unpacking: Arc<Semaphore>,
    /// Folders that nothing named when [`CodeStore::sweep_unused`] last looked, and since when. As many as there are
    /// folders.
    unused: Arc<Mutex<HashMap<String, Instant>>>,
}

impl CodeStore {
    /// `root` must exist and be ours alone.
    pub fn open(root: &Path, fatal: Fatal) -> Result<Self, CodeError> {
        if !root.is_dir() {
            return Err(
                std::io::Error::new(std::io::ErrorKind::NotFound, format!("{} is no folder", root.display())).into()
            );
        }
        let unpacking = Arc::new(Semaphore::new(UNPACKING_MAX));
        Ok(Self { root: root.to_owned(), fatal, unpacking, unused: Arc::default() })
    }

    /// Checks, unpacks and keeps a package; durable when it returns. A package that is there already costs a hash.
    pub async fn put(&self, zip: Bytes) -> Result<Code, CodeError> {
        self.on_a_blocking_thread(move |store| store.put_blocking(&zip)).await
    }

    /// Checks a package as [`CodeStore::put`] does, to the last checksum, and keeps nothing. With it come its bytes
    /// once unpacked.
    pub async fn check(&self, zip: Bytes) -> Result<(Code, u64), CodeError> {
        self.on_a_blocking_thread(move |_| {
            let entries = checked(&zip)?;
            for entry in &entries {
                entry.inflate(&mut std::io::sink())??;
            }
            Ok((Code::of(&zip), entries.iter().map(|entry| entry.size).sum()))
        })
        .await
    }

    /// Where a kept package lies unpacked.
    pub fn content(&self, sha256: &str) -> PathBuf {
        self.root.join(sha256).join("content")
    }

    /// Where layers lie as one folder, what is `/opt` on AWS. `None` if there are none.
    ///
    /// One layer alone is where it was unpacked; several have to be merged by [`CodeStore::merge`] before.
    pub fn layers_dir(&self, layers: &[&Code]) -> Option<PathBuf> {
        match layers {
            [] => None,
            [one] => Some(self.content(&one.sha256)),
            several => Some(self.root.join(merged_name(several))),
        }
    }

    /// Merges the contents of kept packages in their order, later ones over earlier ones; durable when it returns.
    /// What is merged already, or needs no merging, costs nothing.
    pub async fn merge(&self, layers: Vec<Code>) -> Result<(), CodeError> {
        if layers.len() < 2 {
            return Ok(());
        }
        self.on_a_blocking_thread(move |store| store.merge_blocking(&layers.iter().collect::<Vec<_>>())).await
    }

    /// Bytes of all files of kept packages together, unpacked: what counts against
    /// [`archive::UNZIPPED_BYTES_LIMIT`].
    pub async fn unzipped_bytes(&self, packages: Vec<Code>) -> Result<u64, CodeError> {
        self.on_a_blocking_thread(move |store| {
            let sizes = packages.iter().map(|code| bytes_below(&store.content(&code.sha256)));
            Ok(sizes.sum::<std::io::Result<u64>>()?)
        })
        .await
    }

    /// Where a kept package lies as uploaded.
    pub fn package(&self, sha256: &str) -> PathBuf {
        self.root.join(sha256).join("package.zip")
    }

    /// Removes everything but the folders named in `wanted`: packages by their SHA-256, merged layers by
    /// [`merged_name`]. Blocks; for start-up, before anything can be uploaded.
    pub fn sweep(&self, wanted: &BTreeSet<String>) -> std::io::Result<()> {
        for child in std::fs::read_dir(&self.root)? {
            let child = child?;
            if child.file_name().to_str().is_some_and(|name| wanted.contains(name)) {
                continue;
            }
            tracing::info!(name = %child.file_name().display(), "code that no function names was removed");
            if child.file_type()?.is_dir() {
                std::fs::remove_dir_all(child.path())?;
            } else {
                std::fs::remove_file(child.path())?;
            }
        }
        Ok(())
    }

    /// Removes what has been in no `wanted` for [`UNUSED_KEPT`]. For a server that runs: call it now and then, with what
    /// is wanted at `now`. Blocks.
    pub fn sweep_unused(&self, wanted: &BTreeSet<String>, now: Instant) -> std::io::Result<()> {
        let mut there = BTreeSet::new();
        for child in std::fs::read_dir(&self.root)? {
            there.extend(child?.file_name().into_string().ok().filter(|name| !name.starts_with(UNFINISHED)));
        }
        let mut removed = Vec::new();
        {
            let mut unused = self.unused();
            unused.retain(|name, _| there.contains(name) && !wanted.contains(name));
            for name in there.difference(wanted) {
                let since = *unused.entry(name.clone()).or_insert(now);
                if now.saturating_duration_since(since) < UNUSED_KEPT {
                    continue;
                }
                // Away at once, and under the lock: whoever puts the same package now finds it gone and unpacks it.
                let aside = self.root.join(format!("{UNFINISHED}{}", uuid::Uuid::new_v4()));
                std::fs::rename(self.root.join(name), &aside)?;
                unused.remove(name);
                removed.push((name.clone(), aside));
            }
        }
        for (name, aside) in removed {
            std::fs::remove_dir_all(aside)?;
            tracing::info!(name, "code that nothing has named for an hour was removed");
        }
        Ok(())
    }

    fn unused(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.unused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a folder is there. If it is, it stays for [`UNUSED_KEPT`] at least, named or not.
    fn has(&self, name: &str) -> bool {
        let mut unused = self.unused();
        unused.remove(name);
        self.root.join(name).is_dir()
    }

    async fn on_a_blocking_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&CodeStore) -> Result<T, CodeError> + Send + 'static,
    ) -> Result<T, CodeError> {
        let permit = self.unpacking.clone().acquire_owned().await.expect("never closed");
        let store = self.clone();
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work(&store)
        })
        .await
        .unwrap_or_else(|panic| Err(std::io::Error::other(format!("unpacking panicked: {panic}")).into()))
    }

    fn put_blocking(&self, zip: &[u8]) -> Result<Code, CodeError> {
        if zip.len() > ZIPPED_BYTES_MAX {
            return Err(CodeError::TooLarge(zip.len()));
        }
        let code = Code::of(zip);
        if self.has(&code.sha256) {
            return Ok(code);
        }
        let entries = checked(zip)?;
        self.make(&self.root.join(&code.sha256), |beside| unpack(zip, &entries, beside, &self.fatal))?;
        Ok(code)
    }

    /// [`CodeStore::merge`] for start-up, which may block.
    pub fn merge_blocking(&self, layers: &[&Code]) -> Result<(), CodeError> {
        let name = merged_name(layers);
        if layers.len() < 2 || self.has(&name) {
            return Ok(());
        }
        let mut tree = BTreeMap::new();
        for layer in layers {
            overlay(&self.content(&layer.sha256), Path::new(""), &mut tree)?;
        }
        self.make(&self.root.join(name), |beside| link_tree(&tree, beside, &self.fatal))
    }

    /// Makes a folder beside its place, whole and synced by `fill`, and renames it there.
    fn make(&self, place: &Path, fill: impl FnOnce(&Path) -> Result<(), CodeError>) -> Result<(), CodeError> {
        let beside = self.root.join(format!("{UNFINISHED}{}", uuid::Uuid::new_v4()));
        let filled = fill(&beside);
        failpoint::pass(Place::CodeRenameBefore);
        let outcome = filled.and_then(|()| match std::fs::rename(&beside, place) {
            Ok(()) => {
                failpoint::pass(Place::CodeRenameAfter);
                sync(&self.root, &self.fatal)?;
                failpoint::pass(Place::CodeNamed);
                Ok(())
            }
            // Another one of the same content was faster. Its folder is as good as ours.
            Err(_) if place.is_dir() => Ok(std::fs::remove_dir_all(&beside)?),
            Err(error) => Err(error.into()),
        });
        if outcome.is_err() {
            // What cannot be removed now is swept at the next start.
            let _ = std::fs::remove_dir_all(&beside);
        }
        outcome
    }
}

/// The folder of several layers merged in this order, below the folder of packages.
pub fn merged_name(layers: &[&Code]) -> String {
    let mut hash = Sha256::new();
    for layer in layers {
        hash.update(&layer.sha256);
    }
    format!("layers-{}", hex::encode(hash.finalize()))
}

/// What stands at a path of the merged folder, and where it comes from.
#[derive(Debug)]
enum Node {
    Directory,
    File(PathBuf),
    Link(PathBuf),
}

/// Lays the folder `from` over `tree`, whose paths are relative. What has the same path is replaced, but for a folder
/// over a folder: those are joined.
///
/// All of it is decided on paths, before anything is written: a layer whose folder is another layer's link never writes
/// through that link, it takes its place.
fn overlay(from: &Path, at: &Path, tree: &mut BTreeMap<PathBuf, Node>) -> std::io::Result<()> {
    for child in std::fs::read_dir(from)? {
        let child = child?;
        let path = at.join(child.file_name());
        let kind = child.file_type()?;
        if kind.is_dir() {
            tree.insert(path.clone(), Node::Directory);
            overlay(&child.path(), &path, tree)?;
            continue;
        }
        if matches!(tree.get(&path), Some(Node::Directory)) {
            tree.retain(|other, _| !other.starts_with(&path));
        }
        let node =
            if kind.is_symlink() { Node::Link(std::fs::read_link(child.path())?) } else { Node::File(child.path()) };
        tree.insert(path, node);
    }
    Ok(())
}

/// Writes a merged folder, and syncs it. The files are synced already: they are links to those of packages.
fn link_tree(tree: &BTreeMap<PathBuf, Node>, folder: &Path, fatal: &Fatal) -> Result<(), CodeError> {
    make_directory(folder)?;
    // Sorted by their components, so that a folder comes before what is in it.
    for (path, node) in tree {
        let place = folder.join(path);
        match node {
            Node::Directory => make_directory(&place)?,
            Node::Link(target) => std::os::unix::fs::symlink(target, place)?,
            // A file system without hard links, or a file that has as many as it may have, gets a copy.
            Node::File(from) => {
                std::fs::hard_link(from, &place).or_else(|_| std::fs::copy(from, &place).map(|_| ()))?
            }
        }
    }
    sync_all_below(folder, fatal)
}

/// Bytes of all files and link targets below a folder, as the archive counted them.
fn bytes_below(folder: &Path) -> std::io::Result<u64> {
    let mut bytes: u64 = 0;
    for child in std::fs::read_dir(folder)? {
        let child = child?;
        let of_child = if child.file_type()?.is_dir() { bytes_below(&child.path())? } else { child.metadata()?.len() };
        bytes = bytes.saturating_add(of_child);
    }
    Ok(bytes)
}

fn checked(zip: &[u8]) -> Result<Vec<Entry<'_>>, CodeError> {
    if zip.len() > ZIPPED_BYTES_MAX {
        return Err(CodeError::TooLarge(zip.len()));
    }
    Ok(archive::read(zip)?)
}

/// Writes package and content below `folder`, and syncs both.
fn unpack(zip: &[u8], entries: &[Entry<'_>], folder: &Path, fatal: &Fatal) -> Result<(), CodeError> {
    make_directory(folder)?;
    let content = folder.join("content");
    make_directory(&content)?;
    let mut package = OpenOptions::new().write(true).create_new(true).mode(0o600).open(folder.join("package.zip"))?;
    std::io::Write::write_all(&mut package, zip)?;
    fatal.sync(&package, "a package")?;
    failpoint::pass(Place::CodePackageStored);

    let singly = entries.len() <= SYNCED_SINGLY_MAX;
    let mut directories: BTreeSet<&Path> = BTreeSet::from([Path::new("")]);
    for entry in entries {
        let above = entry.path.ancestors().skip(usize::from(entry.kind != Kind::Directory));
        for directory in above.filter(|d| !d.as_os_str().is_empty()) {
            directories.insert(directory);
        }
    }
    // Sorted, so that a folder is made before what is in it.
    for directory in directories.iter().skip(1) {
        make_directory(&content.join(directory))?;
    }
    for entry in entries {
        if let Kind::File { mode } = entry.kind {
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(content.join(&entry.path))?;
            entry.inflate(&mut file)??;
            file.set_permissions(std::fs::Permissions::from_mode(mode_for(&entry.path, mode)))?;
            if singly {
                fatal.sync(&file, "a file of a package")?;
            }
            failpoint::pass(Place::CodeUnpackHalf);
        }
    }
    // Links last: nothing has been written through one, whatever the checks may have missed.
    for entry in entries {
        if let Kind::Link { target } = &entry.kind {
            std::os::unix::fs::symlink(target, content.join(&entry.path))?;
        }
    }
    if singly {
        for directory in directories.iter().rev() {
            sync(&content.join(directory), fatal)?;
        }
        sync(folder, fatal)?;
    } else {
        sync_all_below(folder, fatal)?;
    }
    Ok(())
}

/// The archive's bits without those to write, and readable by whoever the function runs as: AWS refuses to start
/// functions whose files are not, we are kinder. A `bootstrap` at the root can always be executed, also from a zip
/// that was made on Windows and carries no bits. Source: Lambda spec 8.1.
fn mode_for(path: &Path, mode: Option<u32>) -> u32 {
    let bits = (mode.unwrap_or(0) & 0o555) | 0o444;
    if path == Path::new("bootstrap") { bits | 0o111 } else { bits }
}

/// Mode 0755 whatever the server's umask is: a function may run as another user.
fn make_directory(path: &Path) -> std::io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

fn sync(directory: &Path, fatal: &Fatal) -> Result<(), CodeError> {
    Ok(fatal.sync(&File::open(directory)?, "a folder of code")?)
}

/// Syncs the whole file system that a folder is in: for many files faster than each alone.
fn sync_all_below(folder: &Path, fatal: &Fatal) -> Result<(), CodeError> {
    let synced = rustix::fs::syncfs(File::open(folder)?).map_err(std::io::Error::from);
    Ok(fatal.settle("the file system of code", synced)?)
}

#[cfg(test)]
mod tests {
    use super::archive::fixtures::*;
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o7777
    }

    fn names(path: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_package_is_unpacked_once_with_its_modes_and_without_write_bits() {
        let temp = tempfile::tempdir().unwrap();
        let store = CodeStore::open(temp.path(), Fatal::new()).unwrap();
        let package = zip(&[
            with_mode("bin/tool", b"#!/bin/sh", 0o100_4755),
            with_mode("private", b"p", 0o100_600),
            Raw { made_by: 20, mode: 0, ..file("bootstrap", b"#!/bin/sh") },
            deflated("deep/er/data", b"data"),
            link("deep/link", "er/data"),
        ]);
        let code = store.put(package.clone().into()).await.unwrap();
        assert_eq!(code.size, package.len() as u64);
        assert_eq!(code.sha256_base64().len(), 44);
        let content = store.content(&code.sha256);
        assert_eq!(std::fs::read(content.join("deep/link")).unwrap(), b"data");
        assert_eq!(mode(&content.join("bin/tool")), 0o555);
        assert_eq!(mode(&content.join("private")), 0o444);
        assert_eq!(mode(&content.join("bootstrap")), 0o555);
        assert_eq!(mode(&content), 0o755);
        assert_eq!(std::fs::read(store.package(&code.sha256)).unwrap(), package);
        assert_eq!(store.put(package.into()).await.unwrap(), code);
        assert_eq!(names(temp.path()), [code.sha256]);
    }

    #[tokio::test]
    async fn a_package_that_turns_out_bad_half_way_leaves_nothing_behind() {
        let temp = tempfile::tempdir().unwrap();
        let store = CodeStore::open(temp.path(), Fatal::new()).unwrap();
        let package = zip(&[file("good", b"good"), Raw { crc32: 1, ..file("bad", b"bad") }]);
        let error = store.put(package.clone().into()).await.unwrap_err();
        assert!(matches!(error, CodeError::Archive(ArchiveError::Entry { .. })), "{error}");
        assert!(store.check(package.into()).await.is_err());
        assert!(store.check(zip(&[file("good", b"good")]).into()).await.is_ok());
        assert_eq!(names(temp.path()), Vec::<String>::new());
    }

    #[tokio::test]
    async fn many_files_are_kept_as_well_as_few() {
        let temp = tempfile::tempdir().unwrap();
        let store = CodeStore::open(temp.path(), Fatal::new()).unwrap();
        let raws: Vec<Raw> = (0..600).map(|n| file(&format!("d{}/f{n}", n % 7), b"x")).collect();
        let code = store.put(zip(&raws).into()).await.unwrap();
        assert_eq!(names(&store.content(&code.sha256)).len(), 7);
    }

    #[tokio::test]
    async fn the_same_package_sent_many_times_at_once_is_kept_once() {
        let temp = tempfile::tempdir().unwrap();
        let store = CodeStore::open(temp.path(), Fatal::new()).unwrap();
        let package = Bytes::from(zip(&[file("handler.py", b"x")]));
        let puts = (0..8).map(|_| store.put(package.clone()));
        let codes: Vec<_> = futures::future::join_all(puts).await.into_iter().map(Result::unwrap).collect();
        assert!(codes.windows(2).all(|pair| pair[0] == pair[1]));
        assert_eq!(names(temp.path()), [codes[0].sha256.clone()]);
    }

    #[tokio::test]
    async fn what_nothing_names_goes_after_an_hour_unless_it_is_put_again() {
        let temp = tempfile::tempdir().unwrap();
        let store = CodeStore::open(temp.path(), Fatal::new()).unwrap();
        let package = |content: &[u8]| Bytes::from(zip(&[file("a", content)]));
        let wanted = store.put(package(b"1")).await.unwrap();
        let unused = store.put(package(b"2")).await.unwrap();
        let layers = [wanted.clone(), unused.clone()];
        store.merge(layers.to_vec()).await.unwrap();
        let merged = merged_name(&[&wanted, &unused]);
        std::fs::create_dir(temp.path().join("unpacking-by-somebody")).unwrap();
        let names = || names(temp.path()).into_iter().filter(|name| !name.starts_with(UNFINISHED)).collect::<Vec<_>>();
        let sorted = |mut names: Vec<String>| {
            names.sort();
            names
        };
        let keep = BTreeSet::from([wanted.sha256.clone()]);
        let start = Instant::now();
        let at = |minutes: u64| start + Duration::from_secs(60 * minutes);
        let all = sorted(vec![wanted.sha256.clone(), unused.sha256.clone(), merged.clone()]);
        // Nobody knows how long it had been unused before it was first seen to be.
        for minutes in [0, 59] {
            store.sweep_unused(&keep, at(minutes)).unwrap();
            assert_eq!(names(), all, "{minutes}");
        }
        store.put(package(b"2")).await.unwrap();
        store.sweep_unused(&keep, at(60)).unwrap();
        assert_eq!(names(), sorted(vec![wanted.sha256.clone(), unused.sha256.clone()]), "put again, so kept again");
        store.sweep_unused(&BTreeSet::from([wanted.sha256.clone(), unused.sha256.clone()]), at(119)).unwrap();
        store.sweep_unused(&keep, at(121)).unwrap();
        assert_eq!(names().len(), 2, "named in between, so its hour begins anew");
        store.sweep_unused(&keep, at(181)).unwrap();
        assert_eq!(names(), std::slice::from_ref(&wanted.sha256));
        assert!(temp.path().join("unpacking-by-somebody").is_dir(), "what is being made is left alone");
        // And what is gone can come again.
        store.merge(layers.to_vec()).await.unwrap_err();
        store.put(package(b"2")).await.unwrap();
        store.merge(layers.to_vec()).await.unwrap();
        assert_eq!(names(), all);
    }

    #[tokio::test]
    async fn sweeping_keeps_what_is_wanted_and_nothing_else() {
        let temp = tempfile::tempdir().unwrap();
        let store = CodeStore::open(temp.path(), Fatal::new()).unwrap();
        let kept = store.put(zip(&[file("a", b"1")]).into()).await.unwrap();
        let dropped = store.put(zip(&[file("a", b"2")]).into()).await.unwrap();
        std::fs::create_dir(temp.path().join("unpacking-left")).unwrap();
        assert_ne!(kept, dropped);
        store.sweep(&BTreeSet::from([kept.sha256.clone()])).unwrap();
        assert_eq!(names(temp.path()), [kept.sha256]);
    }
}
