//! The reader against files of another writer (`samples/make.py`), and against what hostile writers could make of them.

use std::path::PathBuf;

use super::*;

type Row = (String, String, Option<String>);

fn sample(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("samples").join(name)
}

fn format(name: &str) -> TableFormat {
    if name.ends_with(".orc") { TableFormat::Orc } else { TableFormat::Parquet }
}

fn read(name: &str, path: &Path, versions: bool) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    Tables.read(format(name), path, versions, &mut |row| {
        rows.push((row.bucket.to_owned(), row.key.to_owned(), row.version.map(str::to_owned)));
        // A damaged file may well say that it has more rows than anyone wants.
        if rows.len() < 100_000 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(rows)
}

fn wanted(rows: usize) -> Vec<Row> {
    let key = |i: usize| {
        let tail = "x".repeat(if i.is_multiple_of(500) { i % 97 } else { i % 3 });
        format!("folder-{}/日本 {}{tail}", i % 7, i * i)
    };
    let version = |i: usize| (!i.is_multiple_of(5)).then(|| format!("v{i}"));
    (0..rows).map(|i| ("example-bucket".to_owned(), key(i), version(i))).collect()
}

const SAMPLES: [&str; 6] =
    ["plain.parquet", "snappy.parquet", "gzip-v2.parquet", "plain.orc", "zlib.orc", "snappy.orc"];

#[test]
fn every_row_of_another_writer_s_files_is_read_in_order() {
    for name in SAMPLES {
        assert_eq!(read(name, &sample(name), true), Ok(wanted(2_000)), "{name}");
    }
}

#[test]
fn integers_are_read_in_every_way_in_which_they_are_coded() {
    let rows = read("lengths.orc", &sample("lengths.orc"), false).unwrap();
    assert_eq!(rows.len(), 600 + 399 + 900 + 700 + 399);
    for (bucket, key, _) in rows {
        assert_eq!(bucket, key.len().to_string());
    }
}

#[test]
fn a_version_is_read_only_where_it_is_wanted_and_has_to_be_there_then() {
    for name in ["no-versions.parquet", "no-versions.orc"] {
        let without: Vec<Row> = wanted(10).into_iter().map(|(bucket, key, _)| (bucket, key, None)).collect();
        assert_eq!(read(name, &sample(name), false), Ok(without), "{name}");
        assert_eq!(read(name, &sample(name), true), Err("has no column version_id".into()), "{name}");
    }
}

#[test]
fn a_compression_that_is_not_read_is_named() {
    for name in ["zstd.parquet", "zstd.orc"] {
        let error = read(name, &sample(name), true).unwrap_err();
        assert_eq!(error, "is compressed with ZSTD, which is not read", "{name}");
    }
}

#[test]
fn reading_ends_when_the_caller_has_enough() {
    for name in SAMPLES {
        let mut seen = 0;
        let read = Tables.read(format(name), &sample(name), true, &mut |_| {
            seen += 1;
            if seen == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!((read, seen), (Ok(()), 3), "{name}");
    }
}

#[test]
fn a_file_that_was_cut_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cut");
    for name in SAMPLES {
        let whole = std::fs::read(sample(name)).unwrap();
        for keep in [0, 1, 3, 8, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&path, &whole[..keep]).unwrap();
            assert!(read(name, &path, true).is_err(), "{name}, {keep} bytes");
        }
        // The directory is whole and what it speaks of is not.
        let mut holed = whole.clone();
        holed.drain(whole.len() / 4..whole.len() / 2);
        std::fs::write(&path, &holed).unwrap();
        assert!(read(name, &path, true).is_err(), "{name}, with a hole");
    }
}

#[test]
fn no_damage_makes_the_reader_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("damaged");
    let mut seed = 1_u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize
    };
    for name in SAMPLES {
        let whole = std::fs::read(sample(name)).unwrap();
        for round in 0..150 {
            let mut damaged = whole.clone();
            // Half of the damage goes to the directory at the end, where the lengths and counts are.
            let from = if round % 2 == 0 { 0 } else { whole.len() - 600 };
            for _ in 0..1 + round % 4 {
                let at = from + random() % (whole.len() - from);
                damaged[at] = random() as u8;
            }
            std::fs::write(&path, &damaged).unwrap();
            if let Err(error) = read(name, &path, true) {
                assert!(!error.contains("panicked"), "{name}, round {round}");
            }
        }
    }
}

#[test]
fn a_page_that_says_it_is_huge_is_refused_before_memory_is_taken_for_it() {
    // A page of a dictionary: thrift fields 1 (kind 2), 2 (inflated), 3 (stored), 7 {1: values, 2: encoding}.
    let huge = [0x15, 0x04, 0x15, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0x15, 0x08, 0x4c, 0x15, 0x02, 0x15, 0x00, 0, 0];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("huge");
    let mut whole = std::fs::read(sample("snappy.parquet")).unwrap();
    // The first page of the file follows its magic.
    whole[4..4 + huge.len()].copy_from_slice(&huge);
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(read("huge.parquet", &path, true), Err(format!("a page is longer than {} bytes", 16 << 20)));
}

#[test]
fn what_inflates_past_what_was_said_is_refused() {
    let mut into = Vec::new();
    let bomb = {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut gzip, &vec![0; 1 << 20]).unwrap();
        gzip.finish().unwrap()
    };
    let error = bytes::inflate(flate2::read::GzDecoder::new(&*bomb), 1_000, &mut into).unwrap_err();
    assert!(error.contains("inflates to more than 1000 bytes"), "{error}");
    assert!(into.capacity() < 100_000);
    let snapped = snap::raw::Encoder::new().compress_vec(&vec![0; 1 << 20]).unwrap();
    assert!(bytes::unsnap(&snapped, 1_000, &mut into).unwrap_err().contains("inflates to more"));
}

/// A file of ORC without compression that has nothing but this footer.
fn orc_of(footer: &[u8]) -> Vec<u8> {
    let mut postscript = vec![0x08];
    postscript.extend(varint(footer.len() as u64));
    // No codec, and field 8000: the magic.
    postscript.extend([0x10, 0, 0x82, 0xf4, 0x03, 3]);
    postscript.extend(b"ORC");
    let length = postscript.len() as u8;
    [b"ORC", footer, &postscript, &[length]].concat()
}

/// A file of Parquet that has nothing but this footer.
fn parquet_of(footer: &[u8]) -> Vec<u8> {
    [b"PAR1", footer, &(footer.len() as u32).to_le_bytes(), b"PAR1"].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A field of Protocol Buffers.
fn field(number: u64, message: &[u8]) -> Vec<u8> {
    [varint(number << 3 | 2), varint(message.len() as u64), message.to_vec()].concat()
}

/// A list of structs without fields, as the first field of a struct of Thrift.
fn structs(number: u8, count: usize) -> Vec<u8> {
    [vec![number << 4 | 9, 0xfc], varint(count as u64), vec![0; count + 1]].concat()
}

/// Read back as a whole, a footer of 16 MiB would be hundreds of MB of entries that take one or two bytes each.
#[test]
fn entries_of_a_footer_are_counted_before_memory_is_taken_for_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("many");
    let refused = |name: &str, file: Vec<u8>, wanted: &str| {
        std::fs::write(&path, file).unwrap();
        let error = read(name, &path, false).unwrap_err();
        assert!(error.contains(wanted), "{error}, not {wanted}");
    };
    let many = |number: u64, count: usize| orc_of(&field(number, b"").repeat(count));
    refused("f.orc", many(3, 100_001), "has more than 100000 stripes");
    refused("f.orc", many(3, 100_000), "is not a table of rows");
    refused("f.orc", many(4, 10_001), "has more than 10000 columns");
    refused("f.orc", many(4, 10_000), "is not a table of rows");
    refused("f.orc", orc_of(&field(4, &field(2, &[1; 10_001]))), "has more than 10000 columns");
    refused("f.orc", orc_of(&field(4, &[0x10, 1].repeat(10_001))), "has more than 10000 columns");
    refused("f.orc", orc_of(&field(4, &field(3, b"").repeat(10_001))), "has more than 10000 names of columns");
    refused("f.parquet", parquet_of(&structs(2, 10_001)), "has more than 10000 nodes in its schema");
    refused("f.parquet", parquet_of(&structs(2, 10_000)), "has no column bucket");
    refused("f.parquet", parquet_of(&structs(4, 32_769)), "has more than 32768 row groups");
    refused("f.parquet", parquet_of(&structs(4, 32_768)), "has no column bucket");
}

#[test]
fn entries_of_a_stripe_s_footer_are_counted_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("many");
    for (entry, wanted) in [(1, "has more than 100000 streams"), (2, "has more than 10000 encodings")] {
        let stripe_footer = field(entry, b"").repeat(100_001);
        let columns = [field(3, b"bucket"), field(3, b"key"), field(2, &[1, 2]), vec![0x08, 12]].concat();
        // The footer of the only stripe begins behind the magic; a stripe says its length and a row.
        let at = [vec![0x08, 3, 0x20], varint(stripe_footer.len() as u64), vec![0x28, 1]].concat();
        let strings = field(4, &[0x08, 7]);
        let footer = [field(4, &columns), strings.clone(), strings, field(3, &at)].concat();
        let mut file = orc_of(&footer);
        file.splice(3..3, stripe_footer);
        std::fs::write(&path, file).unwrap();
        assert!(read("f.orc", &path, false).unwrap_err().contains(wanted), "{wanted}");
    }
}
