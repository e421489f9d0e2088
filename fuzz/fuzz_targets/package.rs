//! A deployment package: any bytes are read or refused, and what is read stays inside and keeps to its limits.
#![no_main]

use std::path::Component;

use libfuzzer_sys::fuzz_target;

// By its file: the crate around it would build a database and an HTTP server for a function of bytes.
#[path = "../../crates/functions/src/code/archive.rs"]
mod archive;
use archive::{ENTRIES_MAX, Kind, UNZIPPED_BYTES_LIMIT, read};

fuzz_target!(|input: &[u8]| {
    let Ok(entries) = read(input) else { return };
    assert!(!entries.is_empty() && entries.len() as u64 <= ENTRIES_MAX);
    assert!(entries.iter().map(|entry| entry.size).sum::<u64>() < UNZIPPED_BYTES_LIMIT);
    for entry in &entries {
        assert!(entry.path.components().all(|part| matches!(part, Component::Normal(_))), "{:?}", entry.path);
        if let Kind::Link { target } = &entry.kind {
            let up = target.components().filter(|part| matches!(part, Component::ParentDir)).count();
            assert!(up < entry.path.components().count() && !target.is_absolute(), "{entry:?}");
        }
        let mut written = Counted(0);
        if entry.inflate(&mut written).is_ok_and(|inflated| inflated.is_ok()) {
            assert_eq!(written.0, entry.size);
        }
        assert!(written.0 <= entry.size);
    }
});

/// Counts what is written, and keeps none of it.
struct Counted(u64);

impl std::io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
