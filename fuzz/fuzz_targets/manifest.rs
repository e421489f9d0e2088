//! A CSV manifest: how it is cut into reads makes no difference to its rows, no row panics, many rows checked at once are
//! what they are one by one, and rows that are rewritten read back as they were.
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
    let first_row = input.first().map_or(0, |b| u64::from(b >> 6) * 341);
    let lines = [input.strip_suffix(b"\n").unwrap_or(input), b"\n"].concat();
    let one_by_one = lines[..lines.len() - 1]
        .split(|b| *b == b'\n')
        .zip(first_row..)
        .try_fold(0, |rows, (line, row)| format.parse(row, line).map(|_| rows + 1));
    assert_eq!(format.check(first_row, &lines, &mut Vec::new()), one_by_one);
    let mut written = Vec::new();
    assert_eq!(format.rewrite(first_row, &lines, &mut written), one_by_one);
    let versions = format.columns().contains(&Column::VersionId).then_some(Column::VersionId);
    let pinned = [Column::Bucket, Column::Key].into_iter().chain(versions).collect();
    let pinned = RowFormat::new(pinned).expect("bucket and key stand once");
    let read_back = written.split_inclusive(|b| *b == b'\n').zip(first_row..);
    let mut sources = lines.split(|b| *b == b'\n');
    for (line, row) in read_back {
        let line = line.strip_suffix(b"\n").expect("a row ends in its line break");
        let source = sources.next().map(|source| format.parse(row, source));
        assert_eq!(source, Some(pinned.parse(row, line)));
    }
});
