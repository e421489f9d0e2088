//! Deployment packages: whatever the archive says, what is unpacked stays below its folder and within its limits.
#![no_main]

use std::io::Write;
use std::path::{Component, Path, PathBuf};

use libfuzzer_sys::fuzz_target;

// The module alone: its crate would bring a database and a server to every run.
#[allow(dead_code)]
#[path = "../../crates/functions/src/code/archive.rs"]
mod archive;

use archive::{ArchiveError, ENTRIES_MAX, Kind, UNZIPPED_BYTES_LIMIT};

/// Counts, and keeps nothing.
struct Counted(u64);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Where a path leads if every component is what it says, or `None` if it climbs out.
fn depth(path: &Path) -> Option<usize> {
    path.components().try_fold(0usize, |depth, component| match component {
        Component::Normal(_) => Some(depth + 1),
        Component::CurDir => Some(depth),
        Component::ParentDir => depth.checked_sub(1),
        Component::RootDir | Component::Prefix(_) => None,
    })
}

fuzz_target!(|input: &[u8]| {
    let Ok(entries) = archive::read(input) else { return };
    assert!(!entries.is_empty() && entries.len() as u64 <= ENTRIES_MAX);
    assert!(entries.iter().map(|entry| entry.size).sum::<u64>() < UNZIPPED_BYTES_LIMIT);
    let links: Vec<&PathBuf> =
        entries.iter().filter(|entry| matches!(entry.kind, Kind::Link { .. })).map(|entry| &entry.path).collect();
    for entry in &entries {
        assert!(entry.path.components().all(|component| matches!(component, Component::Normal(_))));
        // Nothing is written through a link of the same archive.
        assert!(!links.iter().any(|link| entry.path != **link && entry.path.starts_with(link)));
        match &entry.kind {
            Kind::Link { target } => {
                let from = entry.path.parent().unwrap_or(Path::new(""));
                assert!(depth(&from.join(target)).is_some(), "{} leads to {}", entry.path.display(), target.display());
            }
            // Inflated as far as it goes; small ones only, since a thousand times the input is a slow unit of fuzzing.
            Kind::File { .. } if entry.size <= 1 << 20 => {
                let mut out = Counted(0);
                let inflated = entry.inflate(&mut out).expect("counting cannot fail");
                assert!(out.0 <= entry.size);
                assert!(inflated.is_err() || out.0 == entry.size);
                assert!(!matches!(inflated, Err(ArchiveError::Empty)));
            }
            Kind::File { .. } | Kind::Directory => {}
        }
    }
});
