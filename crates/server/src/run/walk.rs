//! The files below a folder, in an order that is the same every time.

use std::path::{Path, PathBuf};

use crate::failure::{Because, Failure};

/// Calls `found` for each regular file below `folder` with its path and its name relative to the folder, `/` between
/// parts. Folders named in `left_out` are not entered, links are not followed: a link could lead out of the folder, or
/// in a circle.
///
/// A name that is not UTF-8 cannot be an S3 key and is an error.
pub fn files(
    folder: &Path,
    left_out: &[&str],
    mut found: impl FnMut(&Path, &str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    // The stack holds the entries of the folders on the way down; the last is next.
    let mut stack = sorted(folder)?;
    while let Some(path) = stack.pop() {
        let kind = path.symlink_metadata().because(format!("cannot read {}", path.display()))?.file_type();
        if kind.is_dir() {
            let name = path.file_name().and_then(|n| n.to_str());
            if !name.is_some_and(|n| left_out.contains(&n)) {
                stack.append(&mut sorted(&path)?);
            }
        } else if kind.is_file() {
            let relative = path.strip_prefix(folder).unwrap_or(&path).to_str().ok_or_else(|| {
                Failure::new(format!("the name of {} is not UTF-8, which S3 keys are", path.display()))
            })?;
            found(&path, relative)?;
        }
    }
    Ok(())
}

/// The entries of a folder, the first in the order of their names last.
fn sorted(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let cannot = || format!("cannot read {}", folder.display());
    let entries: Result<Vec<PathBuf>, _> =
        std::fs::read_dir(folder).because(cannot())?.map(|e| e.map(|e| e.path())).collect();
    let mut entries = entries.because(cannot())?;
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
        files(dir.path(), &[".git"], |_, name| {
            seen.push(name.to_owned());
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, ["a/deep/x", "b/1", "b/2", "c"]);
    }
}
