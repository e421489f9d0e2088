//! What was denied, or who was not let in, from the audit log of the data directory, the newest first. One or the other: whoever has
//! no key can make the second come about as often as they like, and must not push the first beyond the limit.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::audit::Book;
use crate::cli::At;
use crate::failure::{Because, Failure, OF_ANOTHER, OK, plain};
use crate::output::{self, out, time};
use crate::settings;

/// How much of a file is read at once, from its end: some 150 decisions.
const BLOCK_BYTES: u64 = 64 * 1024;
/// Of a line: far above what the audit log writes. What is longer is none of its.
const LINE_BYTES_MAX: usize = 256 * 1024;

/// Prints up to `limit` denials, or so many of who was not let in.
pub fn print(at: &At, refused: bool, limit: usize) -> Result<u8, Failure> {
    let elsewhere = [
        ("--endpoint-url", at.endpoint_url.is_some()),
        ("--region", at.region.is_some()),
        ("--profile", at.profile.is_some()),
    ];
    if let Some((flag, _)) = elsewhere.iter().find(|(_, given)| *given) {
        return Err(Failure::usage(format!("{flag} is of no use here: denials are read from the data directory"))
            .hint("name the server's data directory with --data-dir"));
    }
    let data_dir = settings::data_dir(at.data_dir.as_deref(), |name| std::env::var(name).ok())?;
    let books = [Book::Denied, Book::Refused, Book::Changes].map(|book| files(&data_dir, book));
    let [denied, not_let_in, before] = books;
    // In that of changes an earlier version wrote all.
    let denied: Vec<File> = denied?.into_iter().chain(before?).collect();
    let not_let_in = not_let_in?;
    if denied.is_empty() && not_let_in.is_empty() {
        return Err(Failure::new(format!("there is no audit log in {}", data_dir.display()))
            .hint("name the server's data directory with --data-dir"));
    }
    let cannot = || format!("cannot read the audit log in {}", data_dir.display());
    if refused {
        let found = newest(not_let_in, limit).because(cannot())?;
        if at.json {
            output::json(&json!({"refused": found}));
        } else if found.is_empty() {
            eprintln!("nobody was refused");
        } else {
            let rows: Vec<[String; 5]> = found.iter().map(row_of_refused).collect();
            out(&output::table(["TIME", "KEY", "FROM", "SERVICE", "BECAUSE"], &rows, |_, cell| cell.to_owned()));
        }
        return Ok(OK);
    }
    let last = newest(not_let_in, 1).because(cannot())?;
    let found = newest(denied, limit).because(cannot())?;
    if at.json {
        output::json(&json!({"denials": found}));
        return Ok(OK);
    }
    if found.is_empty() {
        eprintln!("nothing was denied");
    } else {
        let rows: Vec<[String; 5]> = found.iter().map(row).collect();
        out(&output::table(["TIME", "PRINCIPAL", "ACTION", "RESOURCE", "BECAUSE"], &rows, |_, cell| cell.to_owned()));
    }
    if let Some(last) = last.first() {
        eprintln!("hint: callers were not let in, the last at {}: --refused shows them", time_of(last));
    }
    Ok(OK)
}

/// The files of a book, the newest first.
fn files(data_dir: &Path, book: Book) -> Result<Vec<File>, Failure> {
    let mut files: Vec<(File, (u64, u64))> = Vec::new();
    for age in 0.. {
        let name = if age == 0 { book.file().to_owned() } else { book.set_aside(age) };
        let path = data_dir.join(name);
        let opened = File::open(&path).and_then(|file| {
            let about = file.metadata()?;
            Ok((file, (about.dev(), about.ino())))
        });
        match opened {
            // The first may be set aside between the two: then it is there under both names.
            Ok((_, id)) if files.iter().any(|(_, known)| *known == id) => {}
            Ok(opened) => files.push(opened),
            // The first may just have been moved.
            Err(error) if error.kind() == ErrorKind::NotFound && age == 0 => {}
            Err(error) if error.kind() == ErrorKind::NotFound => break,
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                return Err(Failure::new(format!("cannot open {}: {error}", path.display())).hint(OF_ANOTHER));
            }
            Err(error) => return Err(Failure::new(format!("cannot open {}: {error}", path.display()))),
        }
    }
    Ok(files.into_iter().map(|(file, _)| file).collect())
}

/// Of a book, the newest first: denials, or who was refused, and between them where decisions were not written down, which may have been some.
fn newest(files: Vec<File>, limit: usize) -> std::io::Result<Vec<Value>> {
    let mut found = Vec::new();
    let mut denials = 0;
    for file in files {
        let mut lines = Backwards::of(file)?;
        while denials < limit
            && let Some(line) = lines.next_line()?
        {
            if ![&b"denied"[..], b"refused", b"decisionsNotWritten"].iter().any(|word| contains(&line, word)) {
                continue;
            }
            // The last one may be half written.
            let Ok(line) = serde_json::from_slice::<Value>(&line) else { continue };
            if matches!(line.get("decision").and_then(Value::as_str), Some("denied" | "refused")) {
                denials += 1;
                found.push(line);
            } else if line.get("decisionsNotWritten").is_some() {
                found.push(line);
            }
        }
    }
    Ok(found)
}

fn contains(line: &[u8], word: &[u8]) -> bool {
    line.windows(word.len()).any(|part| part == word)
}

fn text(line: &Value, member: &str) -> String {
    plain(line.get(member).and_then(Value::as_str).unwrap_or("-"))
}

fn time_of(line: &Value) -> String {
    time(line.get("time").and_then(Value::as_str).unwrap_or("-"))
}

/// With how many there were besides.
fn counted(line: &Value, because: String) -> String {
    match (line.get("decisionsNotWritten"), line.get("moreAlike")) {
        (Some(lost), _) => format!("{lost} decisions were not written down"),
        (None, Some(more)) => format!("{because} ({more} more)"),
        (None, None) => because,
    }
}

fn row(line: &Value) -> [String; 5] {
    let text = |member: &str| text(line, member);
    let because = match (line.get("policy"), line.get("statement")) {
        (Some(_), Some(statement)) => {
            let sid = if line.get("sid").is_some() { format!(" ({})", text("sid")) } else { String::new() };
            format!("statement {statement}{sid} of {} ({})", text("policy"), text("layer"))
        }
        _ => text("because"),
    };
    [time_of(line), text("principal"), text("action"), text("resource"), counted(line, because)]
}

fn row_of_refused(line: &Value) -> [String; 5] {
    let text = |member: &str| text(line, member);
    let from = if line.get("sourceIp").is_some() { text("sourceIp") } else { text("sourceFunctionArn") };
    [time_of(line), text("accessKeyId"), from, text("service"), counted(line, text("because"))]
}

/// Lines of a file, the last first, without their ends.
struct Backwards {
    file: File,
    /// What is before it has not been read.
    at: u64,
    /// What was read from there on and not given yet.
    kept: Vec<u8>,
}

impl Backwards {
    fn of(mut file: File) -> std::io::Result<Self> {
        let at = file.seek(SeekFrom::End(0))?;
        Ok(Self { file, at, kept: Vec::new() })
    }

    fn next_line(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.kept.iter().rposition(|byte| *byte == b'\n') {
                let line = self.kept.split_off(end + 1);
                self.kept.pop();
                if line.is_empty() {
                    continue;
                }
                return Ok(Some(line));
            }
            if self.at == 0 {
                let line = std::mem::take(&mut self.kept);
                return Ok((!line.is_empty()).then_some(line));
            }
            if self.kept.len() > LINE_BYTES_MAX {
                return Err(std::io::Error::new(ErrorKind::InvalidData, "a line has no end"));
            }
            let size = BLOCK_BYTES.min(self.at);
            self.at -= size;
            self.file.seek(SeekFrom::Start(self.at))?;
            let mut block = vec![0; size as usize];
            self.file.read_exact(&mut block)?;
            block.append(&mut self.kept);
            self.kept = block;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(decision: &str, number: usize) -> String {
        let line = json!({"time": "2026-11-28T10:00:00.000Z", "principal": format!("u{number}"), "action": "s3:GetObject",
            "resource": "x".repeat(700), "decision": decision, "because": "no session policy allows it"});
        format!("{line}\n")
    }

    fn found(data_dir: &Path, limit: usize) -> Vec<String> {
        let found = newest(files(data_dir, Book::Denied).unwrap(), limit).unwrap();
        found.iter().map(|line| line["principal"].as_str().unwrap_or("lost").to_owned()).collect()
    }

    #[test]
    fn the_newest_denials_come_first_from_both_files_and_a_half_line_is_none() {
        let dir = tempfile::tempdir().unwrap();
        assert!(files(dir.path(), Book::Denied).unwrap().is_empty());
        // Of more than a block, and every other one allowed.
        let before: String = (0..200).map(|n| line(if n % 2 == 0 { "denied" } else { "allowed" }, n)).collect();
        std::fs::write(dir.path().join(Book::Denied.set_aside(1)), before).unwrap();
        let lost = "{\"time\": \"2026-11-28T10:00:00Z\", \"decisionsNotWritten\": 3}\n";
        let half = &line("denied", 999)[..50];
        std::fs::write(
            dir.path().join(Book::Denied.file()),
            format!("{}{lost}{}{half}", line("denied", 200), line("denied", 201)),
        )
        .unwrap();
        assert_eq!(found(dir.path(), 4), ["u201", "lost", "u200", "u198", "u196"]);
        let all = found(dir.path(), 1_000);
        assert_eq!((all.len(), all.last().unwrap().as_str()), (103, "u0"));
    }

    #[test]
    fn who_was_not_let_in_is_told_with_the_address_or_the_function_and_how_often() {
        let refused = json!({"time": "2026-11-28T10:00:00.123Z", "decision": "refused", "accessKeyId": "AK\u{1b}IA",
            "sourceIp": "192.0.2.1", "service": "s3", "because": "the key is inactive"});
        let at = "2026-11-28 10:00:00Z";
        assert_eq!(row_of_refused(&refused), [at, "AK\u{fffd}IA", "192.0.2.1", "s3", "the key is inactive"]);
        let counted = json!({"decision": "refused", "sourceFunctionArn": "arn", "moreAlike": 7, "because": "no key"});
        assert_eq!(row_of_refused(&counted), ["-", "-", "arn", "-", "no key (7 more)"]);
        assert_eq!(row_of_refused(&json!({"decisionsNotWritten": 3}))[4], "3 decisions were not written down");
    }

    #[test]
    fn a_file_that_is_set_aside_meanwhile_is_read_once() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(Book::Denied.file()), line("denied", 1)).unwrap();
        std::fs::hard_link(dir.path().join(Book::Denied.file()), dir.path().join(Book::Denied.set_aside(1))).unwrap();
        assert_eq!(found(dir.path(), 10), ["u1"]);
    }

    #[test]
    fn a_denial_names_the_statement_that_decided_and_cannot_steer_a_terminal() {
        let outright = json!({"time": "2026-11-28T10:00:00.123Z", "principal": "u\u{1b}[2J", "action": "s3:GetObject",
            "resource": "r", "layer": "identity-based policy", "policy": "p", "sid": "No", "statement": 2});
        let wanted = [
            "2026-11-28 10:00:00Z",
            "u\u{fffd}[2J",
            "s3:GetObject",
            "r",
            "statement 2 (No) of p (identity-based policy)",
        ];
        assert_eq!(row(&outright), wanted);
        assert_eq!(row(&serde_json::from_str(&line("denied", 1)).unwrap())[4], "no session policy allows it");
        assert_eq!(row(&json!({"decisionsNotWritten": 3}))[4], "3 decisions were not written down");
    }
}
