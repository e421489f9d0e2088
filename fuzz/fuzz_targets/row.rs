//! The rows that we write ourselves: whatever bucket, key and version a table or a listing holds, it reads back as the
//! same one row, or as none.
#![no_main]

use libfuzzer_sys::fuzz_target;
use longshore_core::inventory::encode_key;
use longshore_core::manifest::{Column, RowFormat, write_row};
use longshore_core::task::VersionId;

fuzz_target!(|input: &[u8]| {
    let text = String::from_utf8_lossy(input);
    let mut parts = text.splitn(3, '\0');
    let (bucket, key, version) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""), parts.next());
    let mut encoded = String::new();
    encode_key(key, &mut encoded);
    assert!(encoded.bytes().all(|b| b.is_ascii_graphic() && b != b',' && b != b'"'));
    let mut columns = vec![Column::Bucket, Column::Key];
    columns.extend(version.map(|_| Column::VersionId));
    let format = RowFormat::new(columns).expect("bucket and key stand once");
    let mut line = Vec::new();
    write_row(&mut line, bucket, &encoded, version);
    let whole = line.strip_suffix(b"\n").expect("a line ends");
    if whole.contains(&b'\n') {
        // The first of its lines ends the reading, so that no later one can pass for a row.
        assert!(whole.split(|b| *b == b'\n').next().is_some_and(|part| format.parse(1, part).is_err()));
    } else if let Ok(task) = format.parse(1, whole) {
        assert_eq!((&*task.bucket, &*task.key), (bucket, encoded.as_str()));
        let given = match &task.version {
            VersionId::NoColumn => None,
            VersionId::Missing => Some(""),
            VersionId::Given(version) => Some(&**version),
        };
        assert_eq!(given, version);
    }
});
