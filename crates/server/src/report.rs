//! The completion report as `demo` and `run` show it: fetched, and its failures grouped by code and message.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::client::{Client, ClientError};
use crate::failure::{Because, Failure, plain};

/// Different failures that are told apart; what comes later counts as "other".
const GROUPS_MAX: usize = 1_000;
/// Groups shown; the report has the rest.
const GROUPS_SHOWN: usize = 10;
/// Characters of a message that are shown and told apart.
const MESSAGE_MAX: usize = 160;

/// What `manifest.json` says.
#[derive(Debug, Deserialize)]
struct Manifest {
    #[serde(rename = "Results")]
    results: Vec<ResultFile>,
}

#[derive(Debug, Deserialize)]
struct ResultFile {
    #[serde(rename = "TaskExecutionStatus")]
    status: String,
    #[serde(rename = "Bucket")]
    bucket: String,
    #[serde(rename = "Key")]
    key: String,
}

/// How often each failure happened, with one key that it happened to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// By code and message.
    groups: BTreeMap<(String, String), (u64, String)>,
    other: u64,
}

/// Copies a job's report to a local folder: `manifest.json` and `results/*.csv`. `None` if there is no report (yet).
///
/// `prefix` is the one that the job was created with.
pub async fn fetch(
    client: &Client,
    bucket: &str,
    prefix: &str,
    job: &str,
    folder: &Path,
) -> Result<Option<Failures>, Failure> {
    let base = if prefix.is_empty() { format!("job-{job}") } else { format!("{prefix}/job-{job}") };
    let manifest = match client.get(bucket, &format!("{base}/manifest.json")).await {
        Ok(manifest) => manifest,
        Err(ClientError::Refused { code, .. }) if code == "NoSuchKey" => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let cannot = |path: &Path| format!("cannot write {}", path.display());
    let results = folder.join("results");
    std::fs::create_dir_all(&results).because(cannot(&results))?;
    let read: Manifest = serde_json::from_slice(&manifest).because("the report's manifest.json cannot be read")?;
    let mut failures = Failures::default();
    for file in &read.results {
        let name = file.key.rsplit('/').next().unwrap_or(&file.key);
        let path: PathBuf = results.join(name);
        client.get_to_file(&file.bucket, &file.key, &path).await?;
        if file.status == "failed" {
            failures.read(&path)?;
        }
    }
    // Last, as the server does: where it is, the report is whole.
    let path = folder.join("manifest.json");
    std::fs::write(&path, &manifest).because(cannot(&path))?;
    Ok(Some(failures))
}

impl Failures {
    fn read(&mut self, path: &Path) -> Result<(), Failure> {
        use std::io::Read;
        let cannot = || format!("cannot read {}", path.display());
        let mut file = std::fs::File::open(path).because(cannot())?;
        let mut rows = Rows::default();
        let mut piece = vec![0; 256 * 1024];
        loop {
            let length = file.read(&mut piece).because(cannot())?;
            if length == 0 {
                return Ok(());
            }
            for byte in &piece[..length] {
                if let Some(row) = rows.push(*byte) {
                    self.add(&row);
                }
            }
        }
    }

    /// Takes one row: Bucket, Key, VersionId, TaskStatus, HTTPStatusCode, ErrorCode, ResultMessage.
    fn add(&mut self, row: &[String]) {
        let [_, key, _, _, status, code, message] = row else { return };
        let code = if code.is_empty() { format!("HTTP {status}") } else { code.clone() };
        let message: String = plain(message).chars().take(MESSAGE_MAX).collect();
        if let Some((count, _)) = self.groups.get_mut(&(code.clone(), message.clone())) {
            *count += 1;
        } else if self.groups.len() < GROUPS_MAX {
            self.groups.insert((code, message), (1, key.clone()));
        } else {
            self.other += 1;
        }
    }

    /// Lines to print, the most frequent failure first. Empty if nothing failed.
    pub fn lines(&self) -> Vec<String> {
        let mut groups: Vec<_> = self.groups.iter().collect();
        groups.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
        let mut lines: Vec<String> = groups
            .iter()
            .take(GROUPS_SHOWN)
            .map(|((code, message), (count, key))| {
                let colon = if message.is_empty() { "" } else { ": " };
                format!("{count:>8} × {code}{colon}{message}  (for example {})", plain(key))
            })
            .collect();
        let hidden: u64 = groups.iter().skip(GROUPS_SHOWN).map(|(_, (count, _))| *count).sum::<u64>() + self.other;
        if hidden > 0 {
            lines.push(format!("{hidden:>8} × other failures; the report has each one"));
        }
        lines
    }
}

/// Cuts CSV into rows: RFC 4180 quotes, a quoted cell may have line breaks. Bytes that are not UTF-8 are replaced.
#[derive(Debug, Default)]
struct Rows {
    cells: Vec<String>,
    cell: Vec<u8>,
    quoted: bool,
    /// The last byte was a quote inside of a quoted cell: its end, or the first of two.
    quote: bool,
}

impl Rows {
    fn push(&mut self, byte: u8) -> Option<Vec<String>> {
        if self.quoted {
            match (self.quote, byte) {
                (false, b'"') => self.quote = true,
                (true, b'"') => {
                    self.quote = false;
                    self.cell.push(byte);
                }
                (false, _) => self.cell.push(byte),
                (true, _) => {
                    (self.quoted, self.quote) = (false, false);
                    return self.push(byte);
                }
            }
            return None;
        }
        match byte {
            b'"' if self.cell.is_empty() => self.quoted = true,
            b',' => self.end_cell(),
            b'\r' => {}
            b'\n' => {
                self.end_cell();
                return Some(std::mem::take(&mut self.cells));
            }
            _ => self.cell.push(byte),
        }
        None
    }

    fn end_cell(&mut self) {
        self.cells.push(String::from_utf8_lossy(&std::mem::take(&mut self.cell)).into_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Vec<Vec<String>> {
        let mut rows = Rows::default();
        text.bytes().filter_map(|b| rows.push(b)).collect()
    }

    #[test]
    fn a_quoted_cell_may_hold_commas_quotes_and_line_breaks() {
        assert_eq!(rows("a,b,\r\n\"x,\"\"y\"\"\r\nz\",,\"\"\r\n"), [vec!["a", "b", ""], vec!["x,\"y\"\r\nz", "", ""]]);
    }

    #[test]
    fn failures_are_grouped_by_code_and_message_the_most_frequent_first() {
        let mut failures = Failures::default();
        let text = "b,k1,,failed,200,PermanentFailure,broken\r\nb,k2,,failed,404,,\r\nb,k3,,failed,200,PermanentFailure,broken\r\n";
        for row in rows(text) {
            failures.add(&row);
        }
        assert_eq!(
            failures.lines(),
            ["       2 × PermanentFailure: broken  (for example k1)", "       1 × HTTP 404  (for example k2)",]
        );
    }
}
