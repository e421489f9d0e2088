//! Reads a deployment package: a zip archive from a stranger.
//!
//! A reader of our own, because what a general one forgives is what an attacker needs: the `zip` crate keeps the last
//! of two entries with one name, allocates for every entry before anyone can count them, and extracts without a limit.
//! Here the directory is read once, every rule is checked before a byte is inflated, and sizes are counted while
//! inflating. Source: Lambda spec 8.1, promises 4.4 item 11.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// Entries in one package. Far above real packages; below what makes the file system suffer.
pub const ENTRIES_MAX: u64 = 10_000;
/// Bytes of all files together once inflated; the limit itself is already too much. Source: Lambda spec 7.
pub const UNZIPPED_BYTES_LIMIT: u64 = 262_144_000;
/// Bytes of a link's target; Linux's `PATH_MAX`.
const LINK_TARGET_MAX: u64 = 4_096;
/// Bytes of one name between slashes, and of a whole path, on the file systems we unpack to.
const NAME_MAX: usize = 255;
const PATH_MAX: usize = 1_024;

/// Why a package is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ArchiveError {
    #[error("it has no entries")]
    Empty,
    #[error("it has {0} entries; at most {ENTRIES_MAX} are taken")]
    TooManyEntries(u64),
    #[error("it is not smaller than {UNZIPPED_BYTES_LIMIT} bytes once unzipped")]
    TooLarge,
    #[error("{0}")]
    Damaged(&'static str),
    #[error("entry {name:?}: {reason}")]
    Entry { name: String, reason: &'static str },
}

/// One entry, checked but not yet inflated.
#[derive(Debug)]
pub struct Entry<'a> {
    /// Relative, of normal components only: joining it to a directory never leaves that directory.
    pub path: PathBuf,
    pub kind: Kind,
    data: &'a [u8],
    deflated: bool,
    crc32: u32,
    /// As the directory says; [`Entry::inflate`] holds it to that.
    pub size: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Unix permission bits; `None` where the archive has none (made on Windows).
    File {
        mode: Option<u32>,
    },
    Directory,
    /// Its target stays inside the archive whatever other links it passes.
    Link {
        target: PathBuf,
    },
}

/// Reads the directory of `zip` and checks every entry. Order as in the archive.
pub fn read(zip: &[u8]) -> Result<Vec<Entry<'_>>, ArchiveError> {
    let directory = find_directory(zip)?;
    if directory.entries == 0 {
        return Err(ArchiveError::Empty);
    }
    if directory.entries > ENTRIES_MAX {
        return Err(ArchiveError::TooManyEntries(directory.entries));
    }
    let mut rest = directory.bytes;
    let mut entries = Vec::new();
    let mut spans = Vec::new();
    let mut total: u64 = 0;
    for _ in 0..directory.entries {
        let header = Header::take(&mut rest)?;
        let (entry, span) = header.check(zip, &directory)?;
        total = total.saturating_add(entry.size);
        if total >= UNZIPPED_BYTES_LIMIT {
            return Err(ArchiveError::TooLarge);
        }
        spans.push((span, entries.len()));
        entries.push(entry);
    }
    if !rest.is_empty() {
        return Err(ArchiveError::Damaged("its directory holds more than it says"));
    }
    refuse_overlaps(&mut spans, &entries)?;
    refuse_clashes(&entries)?;
    Ok(entries)
}

impl Entry<'_> {
    /// Writes the entry's bytes. Fails unless they are exactly as many as declared and match their checksum; at most
    /// `size` bytes have been written then. An `Err` of `out` comes back as the inner error.
    pub fn inflate(&self, out: &mut impl Write) -> std::io::Result<Result<(), ArchiveError>> {
        let mut crc = flate2::Crc::new();
        let mut inflater = flate2::read::DeflateDecoder::new(self.data);
        let mut stored = self.data;
        let source: &mut dyn Read = if self.deflated { &mut inflater } else { &mut stored };
        let mut left = self.size;
        let mut buffer = [0u8; 16 * 1024];
        loop {
            let read = match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(_) => return Ok(Err(self.refused("its compressed data is damaged"))),
            };
            let Some(after) = left.checked_sub(read as u64) else {
                return Ok(Err(self.refused("it is larger than the archive says")));
            };
            left = after;
            crc.update(&buffer[..read]);
            out.write_all(&buffer[..read])?;
        }
        if left != 0 {
            return Ok(Err(self.refused("it is smaller than the archive says")));
        }
        if crc.sum() != self.crc32 {
            return Ok(Err(self.refused("its checksum is wrong")));
        }
        Ok(Ok(()))
    }

    fn refused(&self, reason: &'static str) -> ArchiveError {
        ArchiveError::Entry { name: self.path.display().to_string(), reason }
    }
}

/// Where the central directory lies.
struct Directory<'a> {
    bytes: &'a [u8],
    entries: u64,
    /// Bytes before the archive proper (a self-extracting stub, a `#!` line), added to every offset in it.
    base: u64,
    /// Where the directory starts; all data lies before it.
    start: u64,
}

const TRUNCATED: ArchiveError = ArchiveError::Damaged("it is not a whole zip archive");

fn find_directory(zip: &[u8]) -> Result<Directory<'_>, ArchiveError> {
    const END: &[u8] = b"PK\x05\x06";
    const END_LEN: usize = 22;
    if zip.is_empty() {
        return Err(ArchiveError::Empty);
    }
    // The record stands at the end, before a comment of at most 65,535 bytes; the comment must end with the file, so
    // that the signature's bytes inside a comment are not taken for the record.
    let from = zip.len().saturating_sub(END_LEN + usize::from(u16::MAX));
    let end = (from..=zip.len().checked_sub(END_LEN).ok_or(TRUNCATED)?)
        .rev()
        .find(|&at| {
            zip[at..].starts_with(END)
                && u16_at(zip, at + 20).is_some_and(|comment| at + END_LEN + usize::from(comment) == zip.len())
        })
        .ok_or(TRUNCATED)?;
    let disks = (u16_at(zip, end + 4), u16_at(zip, end + 6));
    let mut entries = u64::from(u16_at(zip, end + 10).ok_or(TRUNCATED)?);
    let mut size = u64::from(u32_at(zip, end + 12).ok_or(TRUNCATED)?);
    let mut offset = u64::from(u32_at(zip, end + 16).ok_or(TRUNCATED)?);
    let mut directory_end = end as u64;
    let large = entries == 0xFFFF || size == 0xFFFF_FFFF || offset == 0xFFFF_FFFF;
    let locator = end.checked_sub(20).filter(|&at| zip[at..].starts_with(b"PK\x06\x07"));
    if let (true, Some(locator)) = (large, locator) {
        // The locator's offset does not count a stub before the archive; the record has a fixed size unless it
        // carries vendor data, and stands right before its locator.
        let record = locator.checked_sub(56).filter(|&at| zip[at..].starts_with(b"PK\x06\x06")).ok_or(TRUNCATED)?;
        entries = u64_at(zip, record + 32).ok_or(TRUNCATED)?;
        size = u64_at(zip, record + 40).ok_or(TRUNCATED)?;
        offset = u64_at(zip, record + 48).ok_or(TRUNCATED)?;
        directory_end = record as u64;
    } else if disks != (Some(0), Some(0)) {
        return Err(ArchiveError::Damaged("it is one part of a split archive"));
    }
    let start = directory_end.checked_sub(size).ok_or(TRUNCATED)?;
    let base = start.checked_sub(offset).ok_or(TRUNCATED)?;
    let bytes = slice(zip, start, size).ok_or(TRUNCATED)?;
    Ok(Directory { bytes, entries, base, start })
}

/// One header of the central directory.
struct Header<'a> {
    made_by: u16,
    flags: u16,
    method: u16,
    crc32: u32,
    packed: u64,
    size: u64,
    name: &'a [u8],
    attributes: u32,
    offset: u64,
}

impl<'a> Header<'a> {
    const LEN: usize = 46;

    fn take(rest: &mut &'a [u8]) -> Result<Self, ArchiveError> {
        let b = *rest;
        if b.len() < Self::LEN || !b.starts_with(b"PK\x01\x02") {
            return Err(ArchiveError::Damaged("its directory is damaged"));
        }
        let short = |at| u16_at(b, at).ok_or(TRUNCATED);
        let long = |at| u32_at(b, at).ok_or(TRUNCATED);
        let name_len = usize::from(short(28)?);
        let extra_len = usize::from(short(30)?);
        let comment_len = usize::from(short(32)?);
        let name_end = Self::LEN + name_len;
        let extra_end = name_end + extra_len;
        let end = extra_end + comment_len;
        if b.len() < end {
            return Err(ArchiveError::Damaged("its directory is damaged"));
        }
        let mut header = Self {
            made_by: short(4)?,
            flags: short(8)?,
            method: short(10)?,
            crc32: long(16)?,
            packed: u64::from(long(20)?),
            size: u64::from(long(24)?),
            name: &b[Self::LEN..name_end],
            attributes: long(38)?,
            offset: u64::from(long(42)?),
        };
        header.widen(&b[name_end..extra_end])?;
        *rest = &b[end..];
        Ok(header)
    }

    /// Takes the 64-bit values of the Zip64 extra field for those that did not fit.
    fn widen(&mut self, mut extra: &[u8]) -> Result<(), ArchiveError> {
        while let (Some(id), Some(len)) = (u16_at(extra, 0), u16_at(extra, 2)) {
            let end = 4 + usize::from(len);
            let Some(field) = extra.get(4..end) else { break };
            if id == 1 {
                let mut at = 0;
                for value in [&mut self.size, &mut self.packed, &mut self.offset] {
                    if *value == 0xFFFF_FFFF {
                        *value = u64_at(field, at).ok_or(ArchiveError::Damaged("a Zip64 field is too short"))?;
                        at += 8;
                    }
                }
            }
            extra = &extra[end..];
        }
        Ok(())
    }

    /// Checks the entry by itself; gives it and the bytes of the archive that it takes.
    fn check(
        &self,
        zip: &'a [u8],
        directory: &Directory<'_>,
    ) -> Result<(Entry<'a>, std::ops::Range<u64>), ArchiveError> {
        let refuse = |reason| ArchiveError::Entry { name: String::from_utf8_lossy(self.name).into_owned(), reason };
        const ENCRYPTED: u16 = 1 | 1 << 6 | 1 << 13;
        if self.flags & ENCRYPTED != 0 {
            return Err(refuse("it is encrypted"));
        }
        let deflated = match self.method {
            0 => false,
            8 => true,
            _ => return Err(refuse("its compression method is neither stored nor deflated")),
        };
        let path = safe_path(self.name).map_err(refuse)?;

        let start = directory.base.checked_add(self.offset).ok_or_else(|| refuse("it lies outside the archive"))?;
        let local = slice(zip, start, 30).ok_or_else(|| refuse("it lies outside the archive"))?;
        if !local.starts_with(b"PK\x03\x04") {
            return Err(refuse("its local header is missing"));
        }
        let name_len = u64::from(u16_at(local, 26).ok_or(TRUNCATED)?);
        let extra_len = u64::from(u16_at(local, 28).ok_or(TRUNCATED)?);
        let outside = || refuse("it lies outside the archive");
        if slice(zip, start + 30, name_len).ok_or_else(outside)? != self.name {
            return Err(refuse("its two headers give different names"));
        }
        let data_start = start + 30 + name_len + extra_len;
        let data = slice(zip, data_start, self.packed).ok_or_else(outside)?;
        let data_end = data_start + self.packed;
        if data_end > directory.start {
            return Err(outside());
        }
        if !deflated && self.packed != self.size {
            return Err(refuse("it is stored with two different sizes"));
        }

        let mut entry = Entry { path, kind: Kind::Directory, data, deflated, crc32: self.crc32, size: self.size };
        entry.kind = self.kind(&entry)?;
        if entry.kind == Kind::Directory && entry.size != 0 {
            return Err(refuse("it is a folder with contents of its own"));
        }
        Ok((entry, start..data_end))
    }

    fn kind(&self, entry: &Entry<'_>) -> Result<Kind, ArchiveError> {
        const UNIX: u16 = 3;
        const DARWIN: u16 = 19;
        let mode =
            matches!(self.made_by >> 8, UNIX | DARWIN).then_some(self.attributes >> 16).filter(|mode| *mode != 0);
        let slash = self.name.ends_with(b"/");
        match mode.unwrap_or(0) & 0o170_000 {
            0o040_000 => Ok(Kind::Directory),
            0 | 0o100_000 if slash => Ok(Kind::Directory),
            0 | 0o100_000 => Ok(Kind::File { mode: mode.map(|mode| mode & 0o777) }),
            0o120_000 => {
                if entry.size > LINK_TARGET_MAX {
                    return Err(entry.refused("its link target is too long"));
                }
                let mut target = Vec::new();
                entry.inflate(&mut target).map_err(|_| entry.refused("its link target cannot be read"))??;
                let depth = entry.path.components().count() - 1;
                safe_target(&target, depth).map(|target| Kind::Link { target }).map_err(|reason| entry.refused(reason))
            }
            _ => Err(entry.refused("it is neither a file, a folder nor a link")),
        }
    }
}

/// The path of an entry. A backslash is an ordinary character, as on AWS (and as on any Unix).
fn safe_path(name: &[u8]) -> Result<PathBuf, &'static str> {
    if name.contains(&0) {
        return Err("its name holds a NUL byte");
    }
    if name.len() > PATH_MAX {
        return Err("its name is too long");
    }
    let mut path = PathBuf::new();
    for component in Path::new(OsStr::from_bytes(name)).components() {
        match component {
            Component::Normal(part) if part.len() > NAME_MAX => return Err("its name is too long"),
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            Component::ParentDir => return Err("its path leaves the archive"),
            Component::RootDir | Component::Prefix(_) => return Err("its path is absolute"),
        }
    }
    if path.as_os_str().is_empty() { Err("it has no name") } else { Ok(path) }
}

/// A link's target that cannot leave the archive: `..` only at the front, and no more of them than the link is deep.
///
/// `a/../b` is refused even where it looks harmless: if `a` is itself a link, `..` starts from where *that* leads, and
/// two links that are each fine lead out together. With `..` at the front alone it climbs real folders only.
fn safe_target(target: &[u8], depth: usize) -> Result<PathBuf, &'static str> {
    if target.is_empty() || target.contains(&0) {
        return Err("its link target is not a path");
    }
    let path = Path::new(OsStr::from_bytes(target));
    let (mut climbed, mut descended) = (0, false);
    for component in path.components() {
        match component {
            Component::RootDir | Component::Prefix(_) => return Err("it links to an absolute path"),
            Component::ParentDir if descended || climbed == depth => return Err("its link leaves the archive"),
            Component::ParentDir => climbed += 1,
            Component::Normal(_) => descended = true,
            Component::CurDir => {}
        }
    }
    Ok(path.to_owned())
}

/// No two entries share bytes: shared bytes are how a small archive becomes a large one.
fn refuse_overlaps(spans: &mut [(std::ops::Range<u64>, usize)], entries: &[Entry<'_>]) -> Result<(), ArchiveError> {
    spans.sort_by_key(|(span, _)| span.start);
    match spans.windows(2).find(|pair| pair[0].0.end > pair[1].0.start) {
        Some(pair) => Err(entries[pair[1].1].refused("it overlaps another entry")),
        None => Ok(()),
    }
}

/// No name twice, and nothing below a file or a link.
fn refuse_clashes(entries: &[Entry<'_>]) -> Result<(), ArchiveError> {
    let mut seen: HashMap<&Path, &Kind> = HashMap::with_capacity(entries.len());
    for entry in entries {
        if seen.insert(&entry.path, &entry.kind).is_some() {
            return Err(entry.refused("its name is there twice"));
        }
    }
    for entry in entries {
        for above in entry.path.ancestors().skip(1) {
            if seen.get(above).is_some_and(|kind| **kind != Kind::Directory) {
                return Err(entry.refused("it lies below something that is not a folder"));
            }
        }
    }
    Ok(())
}

fn slice(bytes: &[u8], start: u64, len: u64) -> Option<&[u8]> {
    let start = usize::try_from(start).ok()?;
    bytes.get(start..start.checked_add(usize::try_from(len).ok()?)?)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

/// Archives written by hand, so that they can be wrong.
#[cfg(test)]
pub(crate) mod fixtures {
    use std::io::Write;

    /// One entry, right unless told otherwise.
    #[derive(Debug, Clone)]
    pub struct Raw {
        pub name: Vec<u8>,
        pub data: Vec<u8>,
        pub size: u32,
        pub crc32: u32,
        pub mode: u32,
        pub made_by: u16,
        pub flags: u16,
        pub method: u16,
    }

    pub fn file(name: &str, content: &[u8]) -> Raw {
        let mut crc = flate2::Crc::new();
        crc.update(content);
        Raw {
            name: name.into(),
            data: content.to_vec(),
            size: u32::try_from(content.len()).unwrap(),
            crc32: crc.sum(),
            mode: 0o100_644,
            made_by: 3 << 8 | 20,
            flags: 0,
            method: 0,
        }
    }

    pub fn with_mode(name: &str, content: &[u8], mode: u32) -> Raw {
        Raw { mode, ..file(name, content) }
    }

    pub fn link(name: &str, target: &str) -> Raw {
        with_mode(name, target.as_bytes(), 0o120_777)
    }

    pub fn deflated(name: &str, content: &[u8]) -> Raw {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        Raw { data: encoder.finish().unwrap(), method: 8, ..file(name, content) }
    }

    pub fn local(raw: &Raw) -> Vec<u8> {
        let mut out = b"PK\x03\x04".to_vec();
        out.extend(20u16.to_le_bytes());
        common(raw, &mut out);
        out.extend(0u16.to_le_bytes());
        out.extend(&raw.name);
        out.extend(&raw.data);
        out
    }

    pub fn central(raw: &Raw, offset: usize) -> Vec<u8> {
        let mut out = b"PK\x01\x02".to_vec();
        out.extend(raw.made_by.to_le_bytes());
        out.extend(20u16.to_le_bytes());
        common(raw, &mut out);
        out.extend([0; 6]);
        out.extend((raw.mode << 16).to_le_bytes());
        out.extend(u32::try_from(offset).unwrap().to_le_bytes());
        out.extend(&raw.name);
        out
    }

    /// From the flags to the name's length.
    fn common(raw: &Raw, out: &mut Vec<u8>) {
        out.extend(raw.flags.to_le_bytes());
        out.extend(raw.method.to_le_bytes());
        out.extend([0; 4]);
        out.extend(raw.crc32.to_le_bytes());
        out.extend(u32::try_from(raw.data.len()).unwrap().to_le_bytes());
        out.extend(raw.size.to_le_bytes());
        out.extend(u16::try_from(raw.name.len()).unwrap().to_le_bytes());
        if out.starts_with(b"PK\x01") {
            out.extend(0u16.to_le_bytes());
        }
    }

    pub fn end(entries: usize, size: usize, offset: usize) -> Vec<u8> {
        let mut out = b"PK\x05\x06\0\0\0\0".to_vec();
        let entries = u16::try_from(entries).unwrap_or(u16::MAX);
        out.extend(entries.to_le_bytes());
        out.extend(entries.to_le_bytes());
        out.extend(u32::try_from(size).unwrap().to_le_bytes());
        out.extend(u32::try_from(offset).unwrap().to_le_bytes());
        out.extend([0; 2]);
        out
    }

    pub fn zip(raws: &[Raw]) -> Vec<u8> {
        let (mut out, mut directory) = (Vec::new(), Vec::new());
        for raw in raws {
            directory.extend(central(raw, out.len()));
            out.extend(local(raw));
        }
        let offset = out.len();
        out.extend(&directory);
        if raws.len() > usize::from(u16::MAX) {
            let record = out.len() as u64;
            out.extend(b"PK\x06\x06");
            out.extend(44u64.to_le_bytes());
            out.extend([45, 3, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            for value in [raws.len(), raws.len(), directory.len(), offset] {
                out.extend((value as u64).to_le_bytes());
            }
            out.extend(b"PK\x06\x07\0\0\0\0");
            out.extend(record.to_le_bytes());
            out.extend(1u32.to_le_bytes());
        }
        out.extend(end(raws.len(), directory.len(), offset));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::fixtures::*;
    use super::*;

    fn reason(zip: &[u8]) -> String {
        read(zip).map(|entries| entries.len()).unwrap_err().to_string()
    }

    fn contents(entry: &Entry<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        entry.inflate(&mut out).unwrap().unwrap();
        out
    }

    #[test]
    fn files_folders_and_links_are_read_with_their_modes() {
        let archive = zip(&[
            with_mode("lib/", b"", 0o040_755),
            with_mode("lib/run.sh", b"#!/bin/sh", 0o100_755),
            deflated("lib/deep/data.txt", &b"text ".repeat(1000)),
            link("bin/run", "../lib/run.sh"),
            Raw { made_by: 20, mode: 0, ..file("windows.txt", b"w") },
        ]);
        let entries = read(&archive).unwrap();
        let kinds: Vec<_> = entries.iter().map(|e| (e.path.to_str().unwrap(), e.kind.clone())).collect();
        assert_eq!(
            kinds,
            [
                ("lib", Kind::Directory),
                ("lib/run.sh", Kind::File { mode: Some(0o755) }),
                ("lib/deep/data.txt", Kind::File { mode: Some(0o644) }),
                ("bin/run", Kind::Link { target: "../lib/run.sh".into() }),
                ("windows.txt", Kind::File { mode: None }),
            ]
        );
        assert_eq!(contents(&entries[2]), b"text ".repeat(1000));
    }

    #[test]
    fn an_archive_of_another_writer_reads_the_same() {
        use std::io::Write;
        let mut writer = ::zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let options = ::zip::write::SimpleFileOptions::default().unix_permissions(0o755);
        writer.start_file("handler.py", options).unwrap();
        writer.write_all(b"def handler(event, context): pass").unwrap();
        writer.add_directory("pkg", options).unwrap();
        writer.start_file("pkg/big.bin", options.large_file(true)).unwrap();
        writer.write_all(&[7; 100_000]).unwrap();
        writer.add_symlink("pkg/handler", "../handler.py", options).unwrap();
        writer.set_comment("a comment with PK\x05\x06 in it, of some length").unwrap();
        let archive = writer.finish().unwrap().into_inner();
        let entries = read(&archive).unwrap();
        assert_eq!(entries.len(), 4);
        assert_eq!(contents(&entries[0]), b"def handler(event, context): pass");
        assert_eq!(entries[0].kind, Kind::File { mode: Some(0o755) });
        assert_eq!(contents(&entries[2]), [7; 100_000]);
        assert_eq!(entries[3].kind, Kind::Link { target: "../handler.py".into() });
    }

    #[test]
    fn an_archive_behind_a_stub_reads_as_if_it_were_not_there() {
        let mut archive = b"#!/usr/bin/env python3\n".to_vec();
        archive.extend(zip(&[file("a", b"1"), file("b", b"2")]));
        assert_eq!(contents(&read(&archive).unwrap()[1]), b"2");
    }

    #[test]
    fn a_path_that_leaves_the_archive_is_refused() {
        for name in ["../x", "a/../../x", "a/../b", "..", "a/.."] {
            assert!(reason(&zip(&[file(name, b"x")])).contains("its path leaves the archive"), "{name}");
        }
        for name in ["/etc/passwd", "//x", "/"] {
            assert!(reason(&zip(&[file(name, b"x")])).contains("its path is absolute"), "{name}");
        }
        for name in ["", ".", "./", "././"] {
            assert!(reason(&zip(&[file(name, b"")])).contains("it has no name"), "{name}");
        }
        assert!(reason(&zip(&[file("a\0b", b"x")])).contains("NUL"));
        assert!(reason(&zip(&[file(&"n".repeat(256), b"x")])).contains("too long"));
        assert!(reason(&zip(&[file(&"n/".repeat(600), b"")])).contains("too long"));
    }

    #[test]
    fn a_backslash_is_a_character_like_any_other() {
        let archive = zip(&[file("..\\x", b"x")]);
        assert_eq!(read(&archive).unwrap()[0].path, Path::new("..\\x"));
    }

    #[test]
    fn a_link_that_leads_out_is_refused_alone_and_with_the_help_of_another() {
        let leaves = [
            link("l", ".."),
            link("l", "../x"),
            link("d/l", "../../x"),
            link("l", "a/../../x"),
            // Harmless by its text; with `a -> d/e` it is not.
            link("l", "a/.."),
        ];
        for raw in leaves {
            assert!(reason(&zip(std::slice::from_ref(&raw))).contains("its link leaves the archive"), "{raw:?}");
        }
        assert!(reason(&zip(&[link("l", "/etc/passwd")])).contains("absolute"));
        assert!(reason(&zip(&[link("l", "")])).contains("not a path"));
        assert!(reason(&zip(&[link("l", &"x".repeat(5_000))])).contains("too long"));
        assert!(read(&zip(&[link("a/b/l", "../../x"), link("m", "a/b/l"), link("self", "self")])).is_ok());
    }

    #[test]
    fn nothing_is_written_through_a_link_or_a_file() {
        let below_a_link = zip(&[link("l", "d"), file("l/x", b"x"), with_mode("d/", b"", 0o040_755)]);
        assert!(reason(&below_a_link).contains("below something that is not a folder"));
        let below_a_file = zip(&[file("f/x/y", b"x"), file("f", b"x")]);
        assert!(reason(&below_a_file).contains("below something that is not a folder"));
    }

    #[test]
    fn a_name_that_is_there_twice_is_refused_in_every_spelling() {
        for names in [["a", "a"], ["a", "./a"], ["d/a", "d//a"], ["d/", "d"]] {
            let archive = zip(&names.map(|name| file(name, b"")));
            assert!(reason(&archive).contains("there twice"), "{names:?}");
        }
    }

    #[test]
    fn devices_encrypted_and_strangely_packed_entries_are_refused() {
        for kind in [0o020_000, 0o060_000, 0o010_000, 0o140_000] {
            let archive = zip(&[with_mode("x", b"", kind | 0o666)]);
            assert!(reason(&archive).contains("neither a file, a folder nor a link"), "{kind:o}");
        }
        for flag in [1, 1 << 6, 1 << 13] {
            assert!(reason(&zip(&[Raw { flags: flag, ..file("x", b"x") }])).contains("encrypted"));
        }
        assert!(reason(&zip(&[Raw { method: 12, ..file("x", b"x") }])).contains("neither stored nor deflated"));
        assert!(reason(&zip(&[Raw { size: 2, ..file("x", b"x") }])).contains("two different sizes"));
    }

    #[test]
    fn entries_that_share_bytes_are_refused() {
        let inner = file("inner", &[0; 100]);
        let outer = file("outer", &local(&inner));
        let mut archive = local(&outer);
        let offset = archive.len();
        let inner_at = offset - local(&inner).len();
        archive.extend(central(&outer, 0));
        archive.extend(central(&inner, inner_at));
        let size = archive.len() - offset;
        archive.extend(end(2, size, offset));
        assert!(reason(&archive).contains("overlaps another entry"));
    }

    #[test]
    fn a_bomb_stops_at_the_size_that_was_declared_for_it() {
        let mut bomb = deflated("bomb", &vec![0; 30_000_000]);
        assert!(bomb.data.len() < 300_000);
        bomb.size = 1_000;
        let archive = zip(&[bomb]);
        let mut written = Vec::new();
        let error = read(&archive).unwrap()[0].inflate(&mut written).unwrap().unwrap_err();
        assert!(error.to_string().contains("larger than the archive says"), "{error}");
        assert!(written.len() <= 1_000);
    }

    #[test]
    fn sizes_that_add_up_to_the_limit_are_refused_before_anything_is_inflated() {
        let declared = |name: &str, size| Raw { size, ..deflated(name, b"") };
        let archive = zip(&[declared("a", 262_143_999), declared("b", 1)]);
        assert_eq!(read(&archive).unwrap_err(), ArchiveError::TooLarge);
        assert!(read(&zip(&[declared("a", 262_143_998), declared("b", 1)])).is_ok());
    }

    #[test]
    fn data_that_is_damaged_short_or_of_another_checksum_is_refused() {
        let fails = |raw: Raw| {
            let archive = zip(&[raw]);
            read(&archive).unwrap()[0].inflate(&mut std::io::sink()).unwrap().unwrap_err().to_string()
        };
        assert!(fails(Raw { crc32: 1, ..file("x", b"x") }).contains("checksum"));
        assert!(fails(Raw { size: 9, ..deflated("x", b"x") }).contains("smaller than the archive says"));
        assert!(fails(Raw { data: vec![0xFF; 20], ..deflated("x", b"x") }).contains("damaged"));
    }

    #[test]
    fn a_hundred_thousand_entries_are_refused_by_their_number_alone() {
        let raws: Vec<Raw> = (0..100_000).map(|n| file(&format!("f{n}"), b"")).collect();
        assert_eq!(read(&zip(&raws)).unwrap_err(), ArchiveError::TooManyEntries(100_000));
        // A record that lies about their number does not help.
        let mut archive = zip(&raws[..20_000]);
        let at = archive.len() - 22;
        archive[at + 8..at + 12].copy_from_slice(&[5, 0, 5, 0]);
        assert!(reason(&archive).contains("holds more than it says"));
    }

    #[test]
    fn what_is_no_zip_is_refused_without_a_panic() {
        assert_eq!(read(b"").unwrap_err(), ArchiveError::Empty);
        assert_eq!(read(&zip(&[])).unwrap_err(), ArchiveError::Empty);
        assert!(read(b"not a zip at all, but long enough to be looked at").is_err());
        let archive = zip(&[deflated("a/b", b"some text, some text"), link("a/l", "b"), file("c", b"d")]);
        for length in 0..archive.len() {
            assert!(read(&archive[..length]).is_err(), "{length}");
        }
        for at in 0..archive.len() {
            for bit in 0..8 {
                let mut damaged = archive.clone();
                damaged[at] ^= 1 << bit;
                // Some flips do no harm (a date, a mode); none may panic or escape.
                for entry in read(&damaged).unwrap_or_default() {
                    assert!(entry.path.components().all(|c| matches!(c, Component::Normal(_))));
                    let _ = entry.inflate(&mut std::io::sink()).unwrap();
                }
            }
        }
    }
}
