//! A CSV manifest: how it is cut into reads makes no difference to its rows, and no row panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use longshore_core::manifest::{Column, LineTooLong, Lines, RowFormat};

struct Stopped;

impl From<LineTooLong> for Stopped {
    fn from(_: LineTooLong) -> Self {
        Self
    }
}

fn rows(format: &RowFormat, input: &[u8], pieces: usize) -> Option<Vec<String>> {
    let (mut lines, mut rows) = (Lines::default(), Vec::new());
    let mut one = |line: &[u8]| rows.push(format!("{:?}", format.parse(0, line)));
    for piece in input.chunks(pieces) {
        let each = |line: &[u8]| {
            one(line);
            Ok::<(), Stopped>(())
        };
        lines.push(piece, each).ok()?;
    }
    if let Some(last) = lines.finish() {
        one(&last);
    }
    Some(rows)
}

fuzz_target!(|input: &[u8]| {
    let columns = match input.first() {
        Some(b) if b % 2 == 0 => vec![Column::Bucket, Column::Key],
        _ => vec![Column::VersionId, Column::Ignore, Column::Key, Column::Bucket],
    };
    let format = RowFormat::new(columns).expect("bucket and key stand once");
    let whole = rows(&format, input, input.len().max(1));
    let cut = rows(&format, input, 3);
    assert_eq!(whole, cut);
});
