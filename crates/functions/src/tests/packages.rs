//! Bad packages, and what is told of each: AWS's own sentence where it has one, and one clear reason behind it.
//! Source: Lambda spec 3.3 step 6, 8.1; promises 4.4 item 11.

use super::*;
use crate::code::archive::fixtures::{Raw, central, deflated, end, link, local, with_mode};
use crate::code::archive::{ENTRIES_MAX, UNZIPPED_BYTES_LIMIT};

const UNZIP: &str = "Could not unzip uploaded file. Please check your file, then try to upload again.";

/// A package and what is told of it.
struct Bad {
    what: &'static str,
    zip: Vec<u8>,
    told: String,
}

fn bad(what: &'static str, zip: Vec<u8>, reason: &str) -> Bad {
    Bad { what, zip, told: format!("{UNZIP} The reason: {reason}.") }
}

fn entry(what: &'static str, raw: Raw, reason: &str) -> Bad {
    let name = String::from_utf8_lossy(&raw.name).into_owned();
    bad(what, zip(&[raw]), &format!("entry {name:?}: {reason}"))
}

/// Two entries whose bytes are the same.
fn overlapping() -> Vec<u8> {
    let (inner, outer) = (file("inner", &[0; 100]), file("outer", &local(&file("inner", &[0; 100]))));
    let mut archive = local(&outer);
    let offset = archive.len();
    archive.extend(central(&outer, 0));
    archive.extend(central(&inner, offset - local(&inner).len()));
    let size = archive.len() - offset;
    archive.extend(end(2, size, offset));
    archive
}

/// A directory entry that calls its file by another name than the file does.
fn two_names() -> Vec<u8> {
    let mut archive = local(&file("bad", b"x"));
    let offset = archive.len();
    archive.extend(central(&file("god", b"x"), 0));
    let size = archive.len() - offset;
    archive.extend(end(1, size, offset));
    archive
}

/// A single entry at an offset where none is.
fn nowhere() -> Vec<u8> {
    let mut archive = local(&file("x", b"x"));
    let offset = archive.len();
    archive.extend(central(&file("x", b"x"), 5));
    let size = archive.len() - offset;
    archive.extend(end(1, size, offset));
    archive
}

fn split() -> Vec<u8> {
    let mut archive = zip(&[file("x", b"x")]);
    let at = archive.len() - 22;
    archive[at + 4] = 1;
    archive
}

fn lying_count() -> Vec<u8> {
    let mut archive = zip(&[file("a", b"x"), file("b", b"x")]);
    let at = archive.len() - 22;
    archive[at + 8] = 1;
    archive[at + 10] = 1;
    archive
}

fn corpus() -> Vec<Bad> {
    let empty = "Uploaded file must be a non-empty zip".to_owned();
    let large = format!("Unzipped size must be smaller than {UNZIPPED_BYTES_LIMIT} bytes");
    let whole = zip(&[file("handler.py", b"def handler(event, context): pass")]);
    let sized = |size: u32| Raw { size, ..deflated("zeros", b"") };
    let mut all = vec![
        Bad { what: "nothing", zip: Vec::new(), told: empty.clone() },
        Bad { what: "an archive of nothing", zip: zip(&[]), told: empty },
        Bad { what: "as large as the limit", zip: zip(&[sized(262_144_000)]), told: large.clone() },
        Bad {
            what: "large by sum",
            zip: zip(&[sized(262_143_999), Raw { name: b"b".into(), ..sized(1) }]),
            told: large,
        },
        bad("text", b"def handler(event, context): pass".to_vec(), "it is not a whole zip archive"),
        bad("a tar", [b"handler.py".as_slice(), &[0; 502]].concat(), "it is not a whole zip archive"),
        bad("cut off", whole[..whole.len() - 1].to_vec(), "it is not a whole zip archive"),
        bad("without its beginning", whole[40..].to_vec(), "it is not a whole zip archive"),
        bad("followed by more", [whole.as_slice(), b"more"].concat(), "it is not a whole zip archive"),
        bad("one part of several", split(), "it is one part of a split archive"),
        bad("more entries than it says", lying_count(), "its directory holds more than it says"),
        bad("an entry over another", overlapping(), "entry \"inner\": it overlaps another entry"),
        bad("two names for one file", two_names(), "entry \"god\": its two headers give different names"),
        bad("an entry that is not there", nowhere(), "entry \"x\": its local header is missing"),
        bad("two files of one name", zip(&[file("a", b"1"), file("a", b"2")]), "entry \"a\": its name is there twice"),
        bad("two spellings", zip(&[file("d/a", b"1"), file("d//a", b"2")]), "entry \"d/a\": its name is there twice"),
        bad(
            "a file below a link",
            zip(&[link("l", "d"), file("l/x", b"x")]),
            "entry \"l/x\": it lies below something that is not a folder",
        ),
        bad(
            "a file below a file",
            zip(&[file("f", b"x"), file("f/x", b"x")]),
            "entry \"f/x\": it lies below something that is not a folder",
        ),
        entry("out by two dots", file("../x", b"x"), "its path leaves the archive"),
        entry("out further down", file("a/../../x", b"x"), "its path leaves the archive"),
        entry("an absolute path", file("/etc/passwd", b"x"), "its path is absolute"),
        entry("no name", file("", b""), "it has no name"),
        entry("a NUL in its name", file("a\0b", b"x"), "its name holds a NUL byte"),
        entry("a long name", file(&"n".repeat(256), b"x"), "its name is too long"),
        entry("a link to a path of the machine", link("l", "/etc/passwd"), "it links to an absolute path"),
        entry("a link that leads out", link("l", "../x"), "its link leaves the archive"),
        entry("a link through another", link("l", "a/.."), "its link leaves the archive"),
        entry("a link to nothing", link("l", ""), "its link target is not a path"),
        entry("a device", with_mode("x", b"", 0o020_666), "it is neither a file, a folder nor a link"),
        entry("a pipe", with_mode("x", b"", 0o010_666), "it is neither a file, a folder nor a link"),
        entry("a socket", with_mode("x", b"", 0o140_666), "it is neither a file, a folder nor a link"),
        entry("encrypted", Raw { flags: 1, ..file("x", b"x") }, "it is encrypted"),
        entry("strongly encrypted", Raw { flags: 1 << 6 | 1, ..file("x", b"x") }, "it is encrypted"),
        entry(
            "packed by bzip2",
            Raw { method: 12, ..file("x", b"x") },
            "its compression method is neither stored nor deflated",
        ),
        entry(
            "packed by zstd",
            Raw { method: 93, ..file("x", b"x") },
            "its compression method is neither stored nor deflated",
        ),
        entry("stored in two sizes", Raw { size: 2, ..file("x", b"x") }, "it is stored with two different sizes"),
        entry("a folder with contents", with_mode("d/", b"x", 0o040_755), "it is a folder with contents of its own"),
        entry("another checksum", Raw { crc32: 1, ..file("x", b"x") }, "its checksum is wrong"),
        entry("damaged inside", Raw { data: vec![0xFF; 20], ..deflated("x", b"x") }, "its compressed data is damaged"),
        entry("shorter than it says", Raw { size: 9, ..deflated("x", b"x") }, "it is smaller than the archive says"),
        entry(
            "a bomb that says it is small",
            Raw { size: 1_000, ..deflated("bomb", &vec![0; 30_000_000]) },
            "it is larger than the archive says",
        ),
    ];
    let raws: Vec<Raw> = (0..100_000).map(|n| file(&format!("f{n}"), b"")).collect();
    let many = format!("it has 100000 entries; at most {ENTRIES_MAX} are taken");
    all.push(bad("a hundred thousand entries", zip(&raws), &many));
    all
}

#[tokio::test]
async fn each_bad_package_is_refused_with_the_error_of_lambda_and_one_clear_reason() {
    let api = Api::new();
    api.create_with(json!({"FunctionName": "g"})).await.ok(201);
    api.get("/2015-03-31/functions/g").await.ok(200);
    let corpus = corpus();
    assert!(corpus.len() >= 30);
    for Bad { what, zip, told } in corpus {
        let package = encoded(&zip);
        let expected = (400, "InvalidParameterValueException", told.as_str());
        let created = api.create_with(json!({"Code": {"ZipFile": package}})).await;
        assert_eq!(created.error(), expected, "{what}");
        let updated = api.put("/2015-03-31/functions/g/code", json!({"ZipFile": package})).await;
        assert_eq!(updated.error(), expected, "{what}, as an update");
        let dry = api.put("/2015-03-31/functions/g/code", json!({"ZipFile": package, "DryRun": true})).await;
        assert_eq!(dry.error(), expected, "{what}, as a dry run");
        let layer = api.post("/2018-10-31/layers/l/versions", json!({"Content": {"ZipFile": package}})).await;
        assert_eq!(layer.error(), expected, "{what}, as a layer");
    }
    assert_eq!(api.get("/2018-10-31/layers").await.body["Layers"], json!([]));
    assert_eq!(api.get("/2015-03-31/functions").await.body["Functions"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_package_larger_than_fifty_megabytes_is_told_by_its_size() {
    let api = Api::new();
    let package = [zip(&[file("a", b"1")]), vec![0; 52_428_800]].concat();
    let answer = api.create_with(json!({"Code": {"ZipFile": encoded(&package)}})).await;
    answer.fails(413, "RequestEntityTooLargeException", "Zipped size must be smaller than 52428800 bytes");
}

#[tokio::test]
async fn odd_packages_that_are_right_are_taken_as_aws_takes_them() {
    let api = Api::new();
    let windows = Raw { made_by: 20, mode: 0, ..file("bootstrap", b"#!/bin/sh") };
    let backslash = file("pkg\\module.py", b"x");
    let dotted = file("./handler.py", b"x");
    let inside = link("current", "versions/1");
    let package = zip(&[windows, backslash, dotted, inside, file("versions/1/x", b"x")]);
    api.create_with(json!({"Code": {"ZipFile": encoded(&package)}})).await.ok(201);
    api.configuration().await;
    api.invoke("f", &[], "{}").await.ok(200);
    let dir = api.host.seen.lock().unwrap()[0].0.code_dir.clone();
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(dir.join("bootstrap").metadata().unwrap().permissions().mode() & 0o777, 0o555);
    assert!(dir.join("pkg\\module.py").is_file() && dir.join("handler.py").is_file());
    assert_eq!(std::fs::read(dir.join("current/x")).unwrap(), b"x");
}
