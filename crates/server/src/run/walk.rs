//! The files below a folder, in an order that is the same every time.

use std::path::{Path, PathBuf};

use crate::failure::{BecauseGiven, Failure};

/// Entries of a folder that are no objects, and so were not given to `found`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Folders by name, `.git` for one.
    pub folders: u64,
    pub links: u64,
    /// Sockets, pipes and devices.
    pub special: u64,
    /// Files whose name is not UTF-8, which S3 keys are.
    pub unnameable: u64,
}

impl LeftOut {
    /// One line for the user; `None` if nothing was left out.
    pub fn told(&self) -> Option<String> {
        let kinds = [
            (self.folders, ".git folders", ".git folder"),
            (self.links, "symbolic links, which are not followed", "symbolic link, which is not followed"),
            (self.special, "sockets, pipes or devices", "socket, pipe or device"),
            (
                self.unnameable,
                "files whose names are not UTF-8, which S3 keys are",
                "file whose name is not UTF-8, which S3 keys are",
            ),
        ];
        let parts: Vec<String> = kinds
            .iter()
            .filter(|(count, ..)| *count > 0)
            .map(|(count, many, one)| format!("{count} {}", if *count == 1 { one } else { many }))
            .collect();
        (!parts.is_empty()).then(|| format!("left out: {}", parts.join("; ")))
    }
}

/// Calls `found` for each regular file below `folder` with its path and its name relative to the folder, `/` between
/// parts. Folders named in `left_out` are not entered, links are not followed: a link could lead out of the folder, or
/// in a circle.
///
/// A name that is not UTF-8 cannot be an S3 key. Returns what was left out; hidden files are not.
pub fn files(
    folder: &Path,
    left_out: &[&str],
    mut found: impl FnMut(&Path, &str) -> Result<(), Failure>,
) -> Result<LeftOut, Failure> {
    let mut not_taken = LeftOut::default();
    // The stack holds the entries of the folders on the way down; the last is next.
    let mut stack = sorted(folder)?;
    while let Some(path) = stack.pop() {
        let kind = path.symlink_metadata().because_given(format!("cannot read {}", path.display()))?.file_type();
        if kind.is_dir() {
            let name = path.file_name().and_then(|n| n.to_str());
            if name.is_some_and(|n| left_out.contains(&n)) {
                not_taken.folders += 1;
            } else {
                stack.append(&mut sorted(&path)?);
            }
        } else if kind.is_file() {
            match path.strip_prefix(folder).unwrap_or(&path).to_str() {
                Some(relative) => found(&path, relative)?,
                None => not_taken.unnameable += 1,
            }
        } else if kind.is_symlink() {
            not_taken.links += 1;
        } else {
            not_taken.special += 1;
        }
    }
    Ok(not_taken)
}

/// The entries of a folder, the first in the order of their names last.
fn sorted(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let cannot = || format!("cannot read {}", folder.display());
    let entries: Result<Vec<PathBuf>, _> =
        std::fs::read_dir(folder).because_given(cannot())?.map(|e| e.map(|e| e.path())).collect();
    let mut entries = entries.because_given(cannot())?;
    entries.sort_unstable_by(|a, b| b.cmp(a));
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_in_order_and_links_and_left_out_folders_do_not() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["b", ".git", "a/deep"] {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        for file in ["b/2", "b/1", "a/deep/x", "c", ".git/config"] {
            std::fs::write(dir.path().join(file), "").unwrap();
        }
        std::os::unix::fs::symlink("/etc", dir.path().join("link")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("b/link")).unwrap();
        let mut seen = Vec::new();
        let left_out = files(dir.path(), &[".git"], |_, name| {
            seen.push(name.to_owned());
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, ["a/deep/x", "b/1", "b/2", "c"]);
        assert_eq!(left_out, LeftOut { folders: 1, links: 2, ..LeftOut::default() });
        assert_eq!(left_out.told().unwrap(), "left out: 1 .git folder; 2 symbolic links, which are not followed");
        assert_eq!(LeftOut::default().told(), None);
    }

    #[test]
    fn a_name_that_is_no_key_is_left_out_and_counted() {
        use std::os::unix::ffi::OsStrExt;
        let dir = tempfile::tempdir().unwrap();
        let odd = std::ffi::OsStr::from_bytes(b"caf\xe9");
        std::fs::create_dir(dir.path().join(odd)).unwrap();
        std::fs::write(dir.path().join(odd).join("below"), "").unwrap();
        std::fs::write(dir.path().join("b"), "").unwrap();
        let mut seen = Vec::new();
        let left_out = files(dir.path(), &[], |_, name| {
            seen.push(name.to_owned());
            Ok(())
        })
        .unwrap();
        assert_eq!((seen, left_out.unnameable), (vec!["b".to_owned()], 1));
        assert_eq!(left_out.told().unwrap(), "left out: 1 file whose name is not UTF-8, which S3 keys are");
    }
}
