//! A task: one manifest row's work, and what became of it.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha1::{Digest, Sha1};

/// One row of a manifest. Named by (job, row): equal rows are different tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Ordinal in the manifest, from 0.
    pub row: u64,
    /// Its ordinal in the manifest of its job's lineage (see [`task_id`]); the row itself unless the job retries
    /// tasks of an earlier one.
    pub number: u64,
    /// Plain bucket name, as in the manifest. Shared by tasks that are read together, which mostly have one.
    pub bucket: Arc<str>,
    /// The manifest's own bytes after CSV unquoting, still percent-encoded: what a function is sent and what the
    /// report repeats (rules EV-4, 7.4).
    pub key: Box<str>,
    pub version: VersionId,
}

/// The VersionId of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionId {
    /// The manifest has no such column: a function is sent JSON null, the report's cell is blank.
    NoColumn,
    /// The column is there and the cell empty: the task fails without being tried (rule CSV-10), the report says `\N`.
    Missing,
    /// As in the manifest; `null` names the null version.
    Given(Box<str>),
}

/// A task's `taskId`: opaque, the same in every attempt, after every restart, and in every job that retries the task.
///
/// It comes from the task's origin: `lineage` is the ID of the job whose manifest had the row first, `number` its row
/// there. For an ordinary job that is the job itself and the row. 22 characters of unpadded base64url: the first 16 bytes
/// of SHA-1 over both. Source: rule EV-6, our choice (decision 0013).
pub fn task_id(lineage: &str, number: u64) -> String {
    let digest = Sha1::new().chain_update(lineage).chain_update(number.to_be_bytes()).finalize();
    URL_SAFE_NO_PAD.encode(&digest[..16])
}

/// The `taskId`s of one lineage: those of [`task_id`], one after the other without an allocation.
#[derive(Debug, Clone)]
pub struct TaskIds(Sha1);

/// A [`task_id`] where it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskId([u8; 22]);

impl TaskIds {
    pub fn new(lineage: &str) -> Self {
        Self(Sha1::new().chain_update(lineage))
    }

    pub fn of(&self, number: u64) -> TaskId {
        let digest = self.0.clone().chain_update(number.to_be_bytes()).finalize();
        let mut text = [0; 22];
        let written = URL_SAFE_NO_PAD.encode_slice(&digest[..16], &mut text);
        debug_assert_eq!(written, Ok(text.len()));
        TaskId(text)
    }
}

impl TaskId {
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("base64 is ASCII")
    }
}

/// How a function answers for a task. Source: S3 Batch spec 5.4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResultCode {
    Succeeded,
    TemporaryFailure,
    PermanentFailure,
}

impl ResultCode {
    /// In the order of their counts.
    pub const ALL: [ResultCode; 3] =
        [ResultCode::Succeeded, ResultCode::TemporaryFailure, ResultCode::PermanentFailure];

    pub fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "Succeeded",
            Self::TemporaryFailure => "TemporaryFailure",
            Self::PermanentFailure => "PermanentFailure",
        }
    }

    /// Case-sensitive, as AWS spells them.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "Succeeded" => Some(Self::Succeeded),
            "TemporaryFailure" => Some(Self::TemporaryFailure),
            "PermanentFailure" => Some(Self::PermanentFailure),
            _ => None,
        }
    }
}

/// The last four columns of a report row: TaskStatus, HTTPStatusCode, ErrorCode, ResultMessage.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Outcome {
    pub succeeded: bool,
    pub http_status: u16,
    /// Empty on success; at most [`CODE_CHARS_MAX`] characters.
    pub error_code: String,
    /// At most [`MESSAGE_CHARS_MAX`] characters.
    pub message: String,
}

/// The longest message of a report row, in Unicode scalar values, before CSV quoting. Source: rule RD-3.
pub const MESSAGE_CHARS_MAX: usize = 1_024;
/// The longest error code, which comes from whoever answers for the function. AWS's are below 60 characters.
pub const CODE_CHARS_MAX: usize = 128;

impl Outcome {
    pub fn succeeded(message: impl Into<String>) -> Self {
        Self {
            succeeded: true,
            http_status: 200,
            error_code: String::new(),
            message: cut(message.into(), MESSAGE_CHARS_MAX),
        }
    }

    pub fn failed(http_status: u16, error_code: impl Into<String>, message: impl Into<String>) -> Self {
        let (error_code, message) = (cut(error_code.into(), CODE_CHARS_MAX), cut(message.into(), MESSAGE_CHARS_MAX));
        Self { succeeded: false, http_status, error_code, message }
    }
}

fn cut(mut text: String, chars_max: usize) -> String {
    // A character has a byte at least, so most texts need not be counted.
    if text.len() <= chars_max {
        return text;
    }
    if let Some((end, _)) = text.char_indices().nth(chars_max) {
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_id_is_stable_and_tells_rows_and_jobs_apart() {
        let id = task_id("f3cc4f60-61f6-4a2b-8a21-d07600c373ce", 7);
        assert_eq!(id, task_id("f3cc4f60-61f6-4a2b-8a21-d07600c373ce", 7));
        assert_ne!(id, task_id("f3cc4f60-61f6-4a2b-8a21-d07600c373ce", 8));
        assert_ne!(id, task_id("03cc4f60-61f6-4a2b-8a21-d07600c373ce", 7));
        assert_eq!(id.len(), 22);
        // Functions keep these IDs in tables of their own: what was given out once is given out for ever.
        assert_eq!(id, "yJjOZbsw0Ez5GikGxvcUIg");
        let ids = TaskIds::new("f3cc4f60-61f6-4a2b-8a21-d07600c373ce");
        for number in [7, 0, u64::MAX, 7] {
            assert_eq!(ids.of(number).as_str(), task_id("f3cc4f60-61f6-4a2b-8a21-d07600c373ce", number));
        }
    }

    #[test]
    fn a_message_is_cut_at_1024_characters_not_bytes() {
        let outcome = Outcome::succeeded("é".repeat(1_025));
        assert_eq!(outcome.message.chars().count(), 1_024);
        assert_eq!(Outcome::succeeded("é".repeat(1_024)).message.len(), 2_048);
    }
}
