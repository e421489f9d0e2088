//! The manifest of a run: from a folder, keys, a listing or another manifest, to lines of `bucket,key`; all, or a sample.

use std::io::{BufRead, BufWriter, Write};
use std::path::{Component, Path, PathBuf};

use longshore_core::random::Random;
use percent_encoding::{percent_decode_str, utf8_percent_encode};

use crate::client::KEY;
use crate::failure::{Because, BecauseGiven, Failure};

/// Takes the lines of a manifest and writes them into a file: all of them, or N drawn evenly, in their order.
pub struct RowWriter {
    file: BufWriter<std::fs::File>,
    path: PathBuf,
    sample: Option<Sample>,
    rows: u64,
}

/// A reservoir: every line so far has the same chance to be in it.
struct Sample {
    size: u64,
    random: Random,
    /// With the number of the line, to put them back in order. As many as asked for, in memory.
    lines: Vec<(u64, String)>,
}

impl RowWriter {
    pub fn create(path: &Path, sample: Option<u64>, seed: u64) -> Result<Self, Failure> {
        let file = std::fs::File::create(path).because(format!("cannot write {}", path.display()))?;
        let sample = sample.map(|size| Sample { size, random: Random::seeded(seed), lines: Vec::new() });
        Ok(Self { file: BufWriter::new(file), path: path.to_owned(), sample, rows: 0 })
    }

    /// A row for a key as it is.
    pub fn key(&mut self, bucket: &str, key: &str) -> Result<(), Failure> {
        if key.is_empty() || key.len() > 1_024 {
            return Err(Failure::usage(format!("{key:?} cannot be an S3 key: those have 1 to 1,024 bytes")));
        }
        self.line(&format!("{bucket},{}", utf8_percent_encode(key, KEY)))
    }

    /// A line of another manifest, without its line break.
    pub fn line(&mut self, line: &str) -> Result<(), Failure> {
        let row = self.rows;
        self.rows += 1;
        let Some(sample) = &mut self.sample else { return self.write(line) };
        if (sample.lines.len() as u64) < sample.size {
            sample.lines.push((row, line.to_owned()));
        } else {
            let at = sample.random.below(self.rows);
            if at < sample.size {
                sample.lines[at as usize] = (row, line.to_owned());
            }
        }
        Ok(())
    }

    fn write(&mut self, line: &str) -> Result<(), Failure> {
        writeln!(self.file, "{line}").because(format!("cannot write {}", self.path.display()))
    }

    /// Ends the file, durably, and says how many rows it has.
    pub fn finish(mut self) -> Result<u64, Failure> {
        let mut rows = self.rows;
        if let Some(mut sample) = self.sample.take() {
            sample.lines.sort_unstable();
            rows = sample.lines.len() as u64;
            for (_, line) in &sample.lines {
                self.write(line)?;
            }
        }
        let cannot = format!("cannot write {}", self.path.display());
        self.file.flush().because(&cannot)?;
        self.file.get_ref().sync_all().because(&cannot)?;
        Ok(rows)
    }
}

/// A path as the key of a local file: relative to the working folder as it was given, without `./`; a path that leads
/// upwards becomes absolute, for HTTP clients take `..` out of a URL.
pub fn key_of_path(path: &str, working_folder: &Path) -> Result<String, Failure> {
    let given = Path::new(path);
    if !given.components().any(|c| c == Component::ParentDir) {
        let parts = given.components().filter(|c| !matches!(c, Component::CurDir));
        let key: PathBuf = parts.collect();
        return Ok(key.to_str().expect("a path made of UTF-8 is UTF-8").to_owned());
    }
    let absolute = working_folder.join(given).canonicalize().because_given(format!("cannot read {path}"))?;
    let text = absolute.to_str();
    text.map(str::to_owned).ok_or_else(|| Failure::usage(format!("the path of {path} is not UTF-8, which S3 keys are")))
}

/// [`key_of_path`], if there is a file to read.
pub fn key_of_file(path: &str, base: &Path) -> Result<String, Failure> {
    let key = key_of_path(path, base)?;
    let metadata = base.join(&key).metadata().because_given(format!("cannot read {path}"))?;
    if metadata.is_file() { Ok(key) } else { Err(Failure::usage(format!("{path} is not a file"))) }
}

/// Keys, one a line, from a file or "-". Empty lines are left out; a line that is not UTF-8 is an error. A key given
/// twice is two tasks, as in any manifest. What is wrong with a key is told with its line.
pub fn keys(from: &str, mut each: impl FnMut(&str) -> Result<(), Failure>) -> Result<(), Failure> {
    let reader: Box<dyn BufRead> = if from == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(std::io::BufReader::new(std::fs::File::open(from).because_given(format!("cannot read {from}"))?))
    };
    let name = if from == "-" { "standard input" } else { from };
    for (number, line) in (1_u64..).zip(reader.lines()) {
        let line = line.because_given(format!("cannot read line {number} of {name}"))?;
        let key = line.strip_suffix('\r').unwrap_or(&line);
        if key.contains('\0') {
            // Not repeated: it is the whole list.
            return Err(Failure::usage(format!("line {number} of {name} has NUL characters in it"))
                .hint("names are told apart by line breaks: find -print instead of find -print0, no -z or -0"));
        }
        if !key.is_empty() {
            each(key).map_err(|failure| {
                Failure::usage(format!("line {number} of {name}: {}", failure.message))
                    .hint("nothing was invoked; each line is the path of one file, as \"find . -type f\" prints them")
            })?;
        }
    }
    Ok(())
}

/// Whether the first line of a manifest looks like the header of a table, which a manifest does not have.
pub fn looks_like_a_header(first_line: &str) -> bool {
    let mut cells = first_line.trim_start_matches('\u{feff}').split(',').map(|cell| cell.trim().trim_matches('"'));
    let is = |cell: Option<&str>, wanted: &str| cell.is_some_and(|cell| cell.eq_ignore_ascii_case(wanted));
    is(cells.next(), "bucket") && is(cells.next(), "key")
}

/// The keys of a manifest that this module wrote.
pub fn keys_of(manifest: &Path, mut each: impl FnMut(String) -> Result<(), Failure>) -> Result<(), Failure> {
    let cannot = || format!("cannot read {}", manifest.display());
    let file = std::fs::File::open(manifest).because(cannot())?;
    for line in std::io::BufReader::new(file).lines() {
        let line = line.because(cannot())?;
        let encoded = line.split_once(',').map_or("", |(_, key)| key);
        each(percent_decode_str(encoded).decode_utf8().because(cannot())?.into_owned())?;
    }
    Ok(())
}

/// Whether a manifest whose first line this is has a column of versions. With any other number of columns the job says
/// what is wrong with it.
pub fn has_versions(first_line: &str) -> bool {
    let (mut columns, mut quoted) = (1, false);
    for c in first_line.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => columns += 1,
            _ => {}
        }
    }
    columns == 3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(sample: Option<u64>, seed: u64, keys: impl Iterator<Item = String>) -> Vec<String> {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("m.csv");
        let mut rows = RowWriter::create(&path, sample, seed).unwrap();
        let mut given = 0;
        for key in keys {
            rows.key("b", &key).unwrap();
            given += 1;
        }
        let count = rows.finish().unwrap();
        assert_eq!(count, sample.unwrap_or(u64::MAX).min(given));
        std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_key_is_encoded_so_that_it_reads_back_the_same() {
        let keys = ["a b/ü+%.txt", "x,\"y\"", "line\nbreak", "/abs"];
        let lines = written(None, 0, keys.iter().map(|k| (*k).to_owned()));
        assert_eq!(lines[0], "b,a%20b/%C3%BC%2B%25.txt");
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("m.csv");
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
        let mut back = Vec::new();
        keys_of(&path, |key| {
            back.push(key);
            Ok(())
        })
        .unwrap();
        assert_eq!(back, keys);
    }

    #[test]
    fn a_sample_has_its_size_keeps_the_order_and_is_the_same_for_the_same_seed() {
        let keys = || (0..1_000).map(|n| format!("{n:04}"));
        let drawn = written(Some(10), 7, keys());
        assert!(drawn.is_sorted());
        assert_eq!(drawn, written(Some(10), 7, keys()));
        assert_ne!(drawn, written(Some(10), 8, keys()));
        assert_eq!(written(Some(10), 7, keys().take(3)).len(), 3);
    }

    #[test]
    fn a_path_becomes_a_key_without_dots() {
        let here = Path::new("/usr");
        assert_eq!(key_of_path("./a/./b", here).unwrap(), "a/b");
        assert_eq!(key_of_path("/a/b", here).unwrap(), "/a/b");
        assert_eq!(
            key_of_path("bin/../bin", here).unwrap(),
            Path::new("/usr/bin").canonicalize().unwrap().to_str().unwrap()
        );
    }

    #[test]
    fn the_names_of_the_columns_are_told_from_a_row() {
        for header in ["Bucket,Key", "bucket, key", "\"Bucket\",\"Key\",VersionId", "\u{feff}Bucket,Key\r"] {
            assert!(looks_like_a_header(header), "{header}");
        }
        for row in ["bucket,a/key", "photos,key", "bucket", ""] {
            assert!(!looks_like_a_header(row), "{row}");
        }
    }

    #[test]
    fn names_between_nul_characters_are_refused_without_repeating_them() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("list");
        std::fs::write(&path, "a\0b\0").unwrap();
        let failure = keys(path.to_str().unwrap(), |_| Ok(())).unwrap_err();
        assert_eq!(failure.status, crate::failure::USAGE);
        assert!(failure.message.ends_with("list has NUL characters in it") && failure.hint.is_some(), "{failure:?}");
    }

    #[test]
    fn three_columns_are_bucket_key_and_version() {
        assert!(has_versions("b,k,v"));
        assert!(has_versions("b,\"k,x\",v"));
        assert!(!has_versions("b,k"));
        assert!(!has_versions("b,k,too,many"));
    }
}
