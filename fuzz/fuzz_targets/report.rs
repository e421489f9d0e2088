//! A completion report as a manifest: how it is cut into reads makes no difference to its records, and what is read of a
//! row can be pinned and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use longshore_core::manifest::{Column, LineTooLong, RowFormat};
use longshore_core::report::{Records, ReportedRow, read_manifest_json};

struct Stopped;

impl From<LineTooLong> for Stopped {
    fn from(_: LineTooLong) -> Self {
        Self
    }
}

fn records(input: &[u8], pieces: usize) -> Option<Vec<Vec<u8>>> {
    let (mut cutter, mut found) = (Records::default(), Vec::new());
    for piece in input.chunks(pieces) {
        let each = |record: &[u8]| {
            found.push(record.to_vec());
            Ok::<(), Stopped>(())
        };
        cutter.push(piece, each).ok()?;
    }
    found.extend(cutter.finish());
    Some(found)
}

fuzz_target!(|input: &[u8]| {
    let _ = read_manifest_json(input);
    let whole = records(input, input.len().max(1));
    assert_eq!(whole, records(input, 3));
    let columns = vec![Column::Bucket, Column::Key, Column::ReportedVersion, Column::Number];
    let format = RowFormat::new(columns).expect("bucket and key stand once");
    for record in whole.unwrap_or_default() {
        let Ok(row) = ReportedRow::parse(&record) else { continue };
        let mut line = Vec::new();
        row.push_pinned(&mut line, Some(7));
        // Not every row of a report is one of a manifest; one that is keeps its columns.
        if let Ok(task) = format.parse(1, &line[..line.len() - 1]) {
            assert_eq!((&*task.bucket, &*task.key, task.number), (&*row.bucket, &*row.key, 7));
        }
    }
});
