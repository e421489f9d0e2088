//! The audit log: who wanted to do what, from where, and what was decided. One line of JSON for each decision, in
//! `<data>/audit.jsonl`; when that is full it is set aside as `audit.jsonl.1`, and the one set aside before goes.
//!
//! A request does not wait for it. What cannot be written as fast as it is decided is counted, and the count is a line of its own.
//! Source: promise 4.4 item 31.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use longshore_core::policy::{Because, Decision, Principal};
use longshore_wire::Asked;
use longshore_wire::caller::{About, Witness, layer_name};
use serde_json::{Map, Value, json};

use crate::failure::{Because as _, Failure};

pub const FILE: &str = "audit.jsonl";
/// What was set aside last.
pub const FILE_BEFORE: &str = "audit.jsonl.1";
/// Bytes of a file before it is set aside: some 150,000 decisions.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Lines that wait for the file: some 400 bytes each, of a busy second; with the longest names, all of them escaped, 24 KiB.
const WAITING_MAX: usize = 4 * 1024;
/// Characters of a name that somebody else has chosen.
const NAME_CHARS_MAX: usize = 1_024;
/// How long after a file could not be written it is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Writes decisions down. Dropped, it writes what waits.
pub struct Audit {
    lines: Option<SyncSender<String>>,
    dropped: std::sync::Arc<AtomicU64>,
    writer: Option<std::thread::JoinHandle<()>>,
}

impl Audit {
    pub fn open(data_dir: &Path) -> Result<Self, Failure> {
        let mut file = AuditFile::open(data_dir.join(FILE))?;
        let (lines, waiting) = sync_channel::<String>(WAITING_MAX);
        let dropped = std::sync::Arc::new(AtomicU64::new(0));
        let counted = dropped.clone();
        let writer = std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || write(&mut file, &waiting, &counted))
            .because("cannot start a thread for the audit log")?;
        Ok(Self { lines: Some(lines), dropped, writer: Some(writer) })
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.lines = None;
        if let Some(writer) = self.writer.take() {
            // It ends with the last line.
            let _ = writer.join();
        }
    }
}

fn write(file: &mut AuditFile, waiting: &Receiver<String>, dropped: &AtomicU64) {
    while let Ok(line) = waiting.recv() {
        let mut text = line;
        // What came meanwhile goes with it.
        while text.len() < 256 * 1024
            && let Ok(next) = waiting.try_recv()
        {
            text.push_str(&next);
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            text.push_str(
                &json!({"time": jiff::Timestamp::now().to_string(), "decisionsNotWritten": lost}).to_string(),
            );
            text.push('\n');
        }
        let lines = text.bytes().filter(|byte| *byte == b'\n').count() as u64;
        if let Err(error) = file.append(text.as_bytes()) {
            tracing::error!(%error, path = %file.path.display(), "the audit log cannot be written");
            dropped.fetch_add(lost + lines, Ordering::Relaxed);
            std::thread::sleep(AGAIN);
        }
    }
}

struct AuditFile {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl AuditFile {
    fn open(path: PathBuf) -> Result<Self, Failure> {
        let open = || -> std::io::Result<(File, u64)> {
            let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
            let bytes = file.metadata()?.len();
            Ok((file, bytes))
        };
        let (file, bytes) = open().because(format!("cannot open {}", path.display()))?;
        Ok(Self { path, file, bytes })
    }

    fn append(&mut self, text: &[u8]) -> std::io::Result<()> {
        if self.bytes > 0 && self.bytes + text.len() as u64 > FILE_BYTES_MAX {
            std::fs::rename(&self.path, self.path.with_file_name(FILE_BEFORE))?;
            self.file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
            self.bytes = 0;
        }
        self.file.write_all(text)?;
        self.bytes += text.len() as u64;
        Ok(())
    }
}

impl Witness for Audit {
    fn decided(&self, who: &Principal, asked: &Asked, decision: &Decision, about: &About<'_>) {
        if !decision.allowed {
            log_denial(who, asked, decision, about);
        }
        let mut text = line(jiff::Timestamp::now(), who, asked, decision, about).to_string();
        text.push('\n');
        let Some(lines) = &self.lines else { return };
        if lines.try_send(text).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A denial in the server's log, for whoever looks there first.
fn log_denial(who: &Principal, asked: &Asked, decision: &Decision, about: &About<'_>) {
    let (layer, policy, statement) = match &decision.because {
        Because::Statement { layer, policy, number, .. } => (Some(*layer), Some(cut(policy)), Some(*number)),
        Because::NoStatement(layer) => (Some(*layer), None, None),
        Because::Root => (None, None, None),
    };
    tracing::info!(
        request_id = about.request_id,
        principal = cut(&who.arn),
        action = asked.action,
        resource = cut(&asked.resource),
        layer = layer.map(layer_name),
        policy,
        statement,
        "denied"
    );
}

fn line(at: jiff::Timestamp, who: &Principal, asked: &Asked, decision: &Decision, about: &About<'_>) -> Value {
    let mut line = Map::new();
    let mut put = |name: &str, value: Value| line.insert(name.to_owned(), value);
    put("time", format!("{at:.3}").into());
    put("requestId", about.request_id.into());
    put("principal", cut(&who.arn).into());
    put("accessKeyId", about.access_key_id.into());
    if let Some([address, ..]) = about.context.get("aws:SourceIp") {
        put("sourceIp", address.as_str().into());
    }
    put("action", asked.action.into());
    put("resource", cut(&asked.resource).into());
    put("decision", if decision.allowed { "allowed" } else { "denied" }.into());
    match &decision.because {
        Because::Root => put("because", "the account's owner".into()),
        Because::Statement { layer, policy, number, sid } => {
            put("layer", layer_name(*layer).into());
            put("policy", cut(policy).into());
            if !sid.is_empty() {
                put("sid", cut(sid).into());
            }
            put("statement", (*number).into())
        }
        Because::NoStatement(layer) => put("because", format!("no {} allows it", layer_name(*layer)).into()),
    };
    Value::Object(line)
}

fn cut(name: &str) -> &str {
    name.char_indices().nth(NAME_CHARS_MAX).map_or(name, |(end, _)| &name[..end])
}

#[cfg(test)]
mod tests {
    use longshore_core::policy::{Context, Layer, PrincipalKind};

    use super::*;

    fn told(name: &str, decision: &Decision) -> (Principal, Asked, Context, Decision) {
        let principal = Principal {
            account: "111111111111".into(),
            arn: format!("arn:aws:iam::111111111111:user/{name}"),
            user_id: "AIDA".into(),
            kind: PrincipalKind::User { name: name.into() },
            tags: Default::default(),
        };
        let asked = Asked::new("s3:GetObject", format!("arn:aws:s3:::b/{name}"));
        (principal, asked, Context::new().with("aws:SourceIp", "127.0.0.1"), decision.clone())
    }

    #[test]
    fn a_decision_is_one_line_whatever_names_hold_and_names_the_statement_that_decided() {
        let decision = Decision {
            allowed: false,
            because: Because::Statement {
                layer: Layer::Identity,
                policy: "p\n\"q".into(),
                number: 2,
                sid: "No".into(),
            },
        };
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::open(dir.path()).unwrap();
        for name in ["u", "u\n{\"decision\": \"allowed\"}\u{1b}[31m", &"x".repeat(5_000)] {
            let (principal, asked, context, decision) = told(name, &decision);
            let about = About { request_id: "r", access_key_id: "AKIA", context: &context };
            audit.decided(&principal, &asked, &decision, &about);
        }
        drop(audit);
        let text = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 3);
        assert!(!text.contains('\u{1b}'));
        for line in &lines {
            assert_eq!((&line["decision"], &line["policy"]), (&json!("denied"), &json!("p\n\"q")));
            assert_eq!(
                (&line["statement"], &line["sid"], &line["sourceIp"]),
                (&json!(2), &json!("No"), &json!("127.0.0.1"))
            );
            assert!(line["resource"].as_str().unwrap().chars().count() <= NAME_CHARS_MAX);
        }
    }

    #[test]
    fn a_full_file_is_set_aside_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = AuditFile::open(dir.path().join(FILE)).unwrap();
        file.append(b"first\n").unwrap();
        file.bytes = FILE_BYTES_MAX;
        file.append(b"second\n").unwrap();
        file.append(b"third\n").unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("audit.jsonl.1")).unwrap(), "first\n");
        assert_eq!(std::fs::read_to_string(dir.path().join(FILE)).unwrap(), "second\nthird\n");
    }
}
