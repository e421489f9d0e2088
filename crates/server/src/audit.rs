//! The audit log: who wanted to do what, from where, and what was decided; and who was not let in. Lines of JSON, in the data directory.
//!
//! There are five books ([`Book`]), each with files and a queue of its own, so that nothing that comes often pushes out what comes
//! seldom: a flood of denials, or a job that reads a million objects, leaves what was changed where it is. A file that is full is set
//! aside (`audit.jsonl.1`), and the oldest goes. Each change and each deletion of an object is a line. Of all else that is alike within
//! a second (who, with which key, from where, what, by which statement) there are [`ALIKE_MAX`] lines, and one that says how many more.
//!
//! A request does not wait for it. What cannot be written as fast as it is decided is counted, and the count is a line of its own.
//! A file that is moved or removed is made anew with the next line, and at once on SIGHUP. Source: promise 4.4 item 31.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, Hash};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use longshore_core::policy::{Because, Decision, Principal, PrincipalKind};
use longshore_wire::Asked;
use longshore_wire::caller::{About, Refused, Witness, layer_name};
use serde_json::{Map, Value, json};

use crate::failure::{Because as _, Failure};

/// Lines of one book that wait for its file: of a busy second some thousand of 400 bytes, and two DeleteObjects whose thousand keys
/// are as long as keys may be.
const WAITING_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of a name that somebody else has chosen, as they stand in the line. A line has four of them.
const NAME_BYTES_MAX: usize = 1_024;
/// Lines of a second that differ in their request and their resource alone; of callers refused, in all but from where and why, for
/// whoever makes up one key can make up a thousand.
const ALIKE_MAX: u32 = 100;
const ALIKE_REFUSED_MAX: u32 = 10;
/// Of a second, what is alike is counted for so many that are not. Beyond, each is a line.
const KINDS_MAX: usize = 1_024;
/// Files of a book that can be asked for: each is renamed when one is set aside.
pub const FILES_MAX: usize = 1_000;
/// Lines of a second in the server's log, which is for people.
const LOGGED_MAX: u32 = 10;
/// How long after a file could not be written it is tried again; and how often what is counted is written down.
const AGAIN: Duration = Duration::from_secs(1);

/// What is written down together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Book {
    /// What was changed, but for objects: users, roles, policies, functions, jobs, buckets; and who took on a role.
    Changes,
    /// Objects written and removed, functions invoked, and roles that services took on for that.
    Data,
    Reads,
    Denied,
    /// Whose signature does not hold. Anybody can fill it.
    Refused,
}

impl Book {
    pub const ALL: [Self; 5] = [Self::Changes, Self::Data, Self::Reads, Self::Denied, Self::Refused];

    /// The name of its file.
    pub fn file(self) -> &'static str {
        match self {
            Self::Changes => "audit.jsonl",
            Self::Data => "audit-data.jsonl",
            Self::Reads => "audit-reads.jsonl",
            Self::Denied => "audit-denied.jsonl",
            Self::Refused => "audit-refused.jsonl",
        }
    }

    /// What was set aside `age` times since.
    pub fn set_aside(self, age: usize) -> String {
        format!("{}.{age}", self.file())
    }

    fn of(who: &Principal, asked: &Asked, decision: &Decision) -> Self {
        let (service, verb) = asked.action.split_once(':').unwrap_or(("", asked.action));
        let is = |beginnings: &[&str]| beginnings.iter().any(|beginning| verb.starts_with(beginning));
        if !decision.allowed {
            return Self::Denied;
        }
        // GetSessionToken, of those of STS, is no look at something.
        if service != "sts" && is(&["Get", "List", "Describe", "Simulate", "Filter"]) {
            return Self::Reads;
        }
        let of_object = asked.resource.strip_prefix("arn:aws:s3:::").is_some_and(|name| name.contains('/'));
        // A service takes on a role for each thing that it does with it.
        let by_service = who.kind == PrincipalKind::Service;
        if of_object || by_service || (service == "lambda" && is(&["Invoke"])) { Self::Data } else { Self::Changes }
    }
}

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    /// Bytes of a file before it is set aside.
    pub file_bytes_max: u64,
    /// Files of a book, that which is written to among them. At least one.
    pub files_max: usize,
    /// Of that of changes, where it is more: each change is a line.
    pub changes_files_max: usize,
}

impl Kept {
    fn files_max(&self, book: Book) -> usize {
        if book == Book::Changes { self.files_max.max(self.changes_files_max) } else { self.files_max }
    }
}

/// What counts as alike, for it is to be known of all that are counted.
#[derive(Hash)]
struct AlikeDecisions<'a> {
    principal: &'a str,
    access_key_id: &'a str,
    source_ip: Option<&'a str>,
    action: &'a str,
    allowed: bool,
    /// Layer, policy and number of the statement.
    by: (Option<&'static str>, Option<&'a str>, usize),
}

/// Writes decisions down. Closed or dropped, it writes what waits.
pub struct Audit {
    shared: Arc<Shared>,
    /// `None`: it was closed.
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
    hasher: RandomState,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    wake: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct Waiting {
    pages: [Page; Book::ALL.len()],
    reopen: bool,
    closed: bool,
}

impl Audit {
    pub fn open(data_dir: &Path, kept: Kept) -> Result<Self, Failure> {
        let mut files = Vec::with_capacity(Book::ALL.len());
        for book in Book::ALL {
            let path = data_dir.join(book.file());
            let mut file = AuditFile { book, folder: data_dir.to_owned(), kept, open: None };
            file.reopen().because(format!("cannot open {}", path.display()))?;
            files.push(file);
        }
        let shared = Arc::new(Shared::default());
        let of_writer = shared.clone();
        let writer = std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || write(&mut files, &of_writer))
            .because("cannot start a thread for the audit log")?;
        Ok(Self { shared, writer: Mutex::new(Some(writer)), hasher: RandomState::new() })
    }

    /// Makes files anew that were moved or removed.
    pub fn reopen(&self) {
        self.shared.lock().reopen = true;
        self.shared.wake.notify_one();
    }

    /// Writes what waits and what was counted, and returns when it is written: behind that no file is touched. What is decided later
    /// is written nowhere.
    pub fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_one();
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = writer.take() {
            // It ends with the last line.
            let _ = writer.join();
        }
    }

    /// Writes a line, unless there are enough that are alike; without `alike`, in any case. Returns whether it is for the server's
    /// log, too.
    fn note(
        &self,
        book: Book,
        alike: Option<impl Hash>,
        line: impl FnOnce(jiff::Timestamp) -> Map<String, Value>,
    ) -> bool {
        let now = jiff::Timestamp::now();
        let alike = alike.map(|alike| self.hasher.hash_one(alike));
        let mut waiting = self.shared.lock();
        let noted = waiting.pages[book as usize].note(book, now, alike, line);
        drop(waiting);
        if noted.wakes {
            self.shared.wake.notify_one();
        }
        noted.logged
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.close();
    }
}

/// What waits of one book.
#[derive(Default)]
struct Page {
    text: String,
    lines: u64,
    /// Decisions that there was no room for.
    lost: u64,
    /// The second that the rest is of.
    second: i64,
    alike: HashMap<u64, Alike>,
    /// Whether more than lines is known of any of them.
    counted: bool,
    logged: u32,
    not_logged: u64,
}

struct Noted {
    /// Whether it is for the server's log, too.
    logged: bool,
    /// Whether the writer has something to do that it did not have: a line, or the first count of the second.
    wakes: bool,
}

struct Alike {
    lines: u32,
    more: u64,
    /// A line of them, without what is not the same in all.
    like: Option<Map<String, Value>>,
}

impl Page {
    fn note(
        &mut self,
        book: Book,
        now: jiff::Timestamp,
        alike: Option<u64>,
        line: impl FnOnce(jiff::Timestamp) -> Map<String, Value>,
    ) -> Noted {
        self.turn(book, now.as_second());
        let logged = self.logged < LOGGED_MAX;
        match logged {
            true => self.logged += 1,
            false => self.not_logged += 1,
        }
        if let Some(alike) = alike
            && (self.alike.contains_key(&alike) || self.alike.len() < KINDS_MAX)
        {
            let of = self.alike.entry(alike).or_insert(Alike { lines: 0, more: 0, like: None });
            let refused = book == Book::Refused;
            if of.lines == if refused { ALIKE_REFUSED_MAX } else { ALIKE_MAX } {
                of.more += 1;
                if of.like.is_none() {
                    let differs: &[&str] =
                        if refused { &["requestId", "accessKeyId", "service"] } else { &["requestId", "resource"] };
                    let mut like = line(now);
                    like.retain(|member, _| !differs.contains(&member.as_str()));
                    of.like = Some(like);
                }
                return Noted { logged, wakes: !std::mem::replace(&mut self.counted, true) };
            }
            of.lines += 1;
        }
        self.push(&Value::Object(line(now)));
        Noted { logged, wakes: true }
    }

    /// Writes down what was counted of a second that is over.
    fn turn(&mut self, book: Book, second: i64) {
        if self.second == second {
            return;
        }
        self.second = second;
        self.counted = false;
        for (_, of) in std::mem::take(&mut self.alike) {
            if let Some(mut like) = of.like {
                like.insert("moreAlike".into(), of.more.into());
                self.push(&Value::Object(like));
            }
        }
        self.logged = 0;
        let more = std::mem::take(&mut self.not_logged);
        match book {
            Book::Denied if more > 0 => tracing::info!(count = more, "more was denied, which the audit log has"),
            Book::Refused if more > 0 => {
                tracing::info!(count = more, "more callers were refused, which the audit log has")
            }
            _ => {}
        }
    }

    fn push(&mut self, line: &Value) {
        let line = line.to_string();
        if self.text.len() + line.len() >= WAITING_BYTES_MAX {
            self.lost += 1;
            return;
        }
        self.text.push_str(&line);
        self.text.push('\n');
        self.lines += 1;
    }

    fn counts(&self) -> bool {
        self.not_logged > 0 || self.counted
    }
}

fn write(files: &mut [AuditFile], shared: &Shared) {
    let mut closed = false;
    while !closed {
        let mut waiting = shared.lock();
        loop {
            // Nothing follows what was counted when it closes.
            let second = if waiting.closed { i64::MAX } else { jiff::Timestamp::now().as_second() };
            for (book, page) in Book::ALL.into_iter().zip(&mut waiting.pages) {
                page.turn(book, second);
            }
            if waiting.closed || waiting.reopen || waiting.pages.iter().any(|page| page.lines + page.lost > 0) {
                break;
            }
            waiting = if waiting.pages.iter().any(Page::counts) {
                shared.wake.wait_timeout(waiting, AGAIN).unwrap_or_else(PoisonError::into_inner).0
            } else {
                shared.wake.wait(waiting).unwrap_or_else(PoisonError::into_inner)
            };
        }
        closed = waiting.closed;
        let reopen = std::mem::take(&mut waiting.reopen);
        let taken = waiting.pages.each_mut().map(|page| {
            (std::mem::take(&mut page.text), std::mem::take(&mut page.lines), std::mem::take(&mut page.lost))
        });
        drop(waiting);
        let mut failed = false;
        for (file, (mut text, lines, lost)) in files.iter_mut().zip(taken) {
            if lost > 0 {
                let time = format!("{:.3}", jiff::Timestamp::now());
                text.push_str(&json!({"time": time, "decisionsNotWritten": lost}).to_string());
                text.push('\n');
            }
            if text.is_empty() && !reopen {
                continue;
            }
            if let Err(error) = file.append(text.as_bytes()) {
                tracing::error!(%error, path = %file.path().display(), "the audit log cannot be written");
                shared.lock().pages[file.book as usize].lost += lost + lines;
                failed = true;
            }
        }
        if failed && !closed {
            std::thread::sleep(AGAIN);
        }
    }
}

struct AuditFile {
    book: Book,
    folder: PathBuf,
    kept: Kept,
    open: Option<Open>,
}

struct Open {
    file: File,
    /// Its device and its number there.
    id: (u64, u64),
    /// Whether it ends within a line: somebody was killed as they wrote it, or there was no room for the rest.
    is_torn: bool,
}

impl AuditFile {
    fn path(&self) -> PathBuf {
        self.folder.join(self.book.file())
    }

    fn reopen(&mut self) -> std::io::Result<&mut Open> {
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(self.path())?;
        let about = file.metadata()?;
        let mut last = [b'\n'];
        if about.len() > 0 {
            file.read_exact_at(&mut last, about.len() - 1)?;
        }
        Ok(self.open.insert(Open { file, id: (about.dev(), about.ino()), is_torn: last != [b'\n'] }))
    }

    /// All of it or, as far as that can be, nothing.
    fn append(&mut self, text: &[u8]) -> std::io::Result<()> {
        self.append_by(text, |file, text| file.write_all(text))
    }

    fn append_by(
        &mut self,
        text: &[u8],
        write: impl Fn(&mut File, &[u8]) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let there = match std::fs::metadata(self.path()) {
            Ok(there) => Some(there),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let bytes = there.as_ref().map_or(0, std::fs::Metadata::len);
        if bytes > 0 && bytes + text.len() as u64 > self.kept.file_bytes_max {
            self.set_aside()?;
        }
        let known = there.map(|there| (there.dev(), there.ino()));
        let open = match &mut self.open {
            Some(open) if Some(open.id) == known => open,
            // Somebody has moved it, or it was set aside.
            _ => self.reopen()?,
        };
        let Open { file, is_torn, .. } = open;
        let before = file.metadata()?.len();
        let written = if *is_torn && !text.is_empty() {
            // Half a line is not to spoil a whole one.
            write(file, &[b"\n", text].concat())
        } else {
            write(file, text)
        };
        match written {
            Ok(()) if text.is_empty() => {}
            Ok(()) => *is_torn = false,
            Err(_) => {
                // What was written of it is counted as lost. Where it cannot be taken back, the next one sees how the file ends.
                if file.metadata().is_ok_and(|about| about.len() > before) {
                    let _ = file.set_len(before);
                }
                self.open = None;
            }
        }
        written
    }

    fn set_aside(&mut self) -> std::io::Result<()> {
        self.open = None;
        let files_max = self.kept.files_max(self.book);
        let aside = |age: usize| self.folder.join(self.book.set_aside(age));
        // What was kept while the setting was larger.
        let mut beyond = files_max.max(1);
        while std::fs::remove_file(aside(beyond)).is_ok() {
            beyond += 1;
        }
        let oldest = files_max.saturating_sub(1);
        if oldest == 0 {
            return std::fs::remove_file(self.path());
        }
        for age in (1..oldest).rev() {
            match std::fs::rename(aside(age), aside(age + 1)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        std::fs::rename(self.path(), aside(1))
    }
}

impl Witness for Audit {
    fn decided(&self, who: &Principal, asked: &Asked, decision: &Decision, about: &About<'_>) {
        let by = match &decision.because {
            Because::Root => (None, None, 0),
            Because::Statement { layer, policy, number, .. } => (Some(layer_name(*layer)), Some(&**policy), *number),
            Because::NoStatement(layer) => (Some(layer_name(*layer)), None, 0),
        };
        let book = Book::of(who, asked, decision);
        // What was changed or removed must be known of each, and not only how many there were.
        let is_each_a_line = match book {
            Book::Changes => true,
            Book::Data => asked.action.starts_with("s3:Delete"),
            Book::Reads | Book::Denied | Book::Refused => false,
        };
        let alike = (!is_each_a_line).then_some(AlikeDecisions {
            principal: &who.arn,
            access_key_id: about.access_key_id,
            source_ip: source_ip(about),
            action: asked.action,
            allowed: decision.allowed,
            by,
        });
        if self.note(book, alike, |now| line(now, who, asked, decision, about)) && !decision.allowed {
            log_denial(who, asked, decision, about);
        }
    }

    fn refused(&self, refused: &Refused<'_>) {
        let Refused { request_id, access_key_id, source_ip, function_arn, service, why } = *refused;
        let access_key_id = access_key_id.map(cut);
        let logged = self.note(Book::Refused, Some((source_ip, function_arn, why)), |now| {
            let mut line = Map::new();
            line.insert("time".into(), format!("{now:.3}").into());
            line.insert("requestId".into(), request_id.into());
            line.insert("decision".into(), "refused".into());
            line.insert("because".into(), why.into());
            for (member, value) in [("accessKeyId", access_key_id), ("service", service.map(cut))] {
                if let Some(value) = value {
                    line.insert(member.into(), value.into());
                }
            }
            for (member, value) in [("sourceIp", source_ip), ("sourceFunctionArn", function_arn)] {
                if let Some(value) = value {
                    line.insert(member.into(), value.into());
                }
            }
            line
        });
        if logged {
            tracing::info!(request_id, access_key_id, source_ip, function_arn, service, why, "caller refused");
        }
    }
}

fn source_ip<'a>(about: &About<'a>) -> Option<&'a str> {
    about.context.get("aws:SourceIp").and_then(|addresses| addresses.first()).map(String::as_str)
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

fn line(
    at: jiff::Timestamp,
    who: &Principal,
    asked: &Asked,
    decision: &Decision,
    about: &About<'_>,
) -> Map<String, Value> {
    let mut line = Map::new();
    let mut put = |name: &str, value: Value| line.insert(name.to_owned(), value);
    put("time", format!("{at:.3}").into());
    put("requestId", about.request_id.into());
    put("principal", cut(&who.arn).into());
    put("accessKeyId", cut(about.access_key_id).into());
    if let Some(address) = source_ip(about) {
        put("sourceIp", address.into());
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
    line
}

/// As much of a name as takes [`NAME_BYTES_MAX`] in JSON.
fn cut(name: &str) -> &str {
    let mut bytes = 0;
    for (at, c) in name.char_indices() {
        bytes += match c {
            '"' | '\\' => 2,
            '\0'..='\u{1f}' => 6,
            c => c.len_utf8(),
        };
        if bytes > NAME_BYTES_MAX {
            return &name[..at];
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use longshore_core::policy::{Context, Layer};

    use super::*;

    const KEPT: Kept = Kept { file_bytes_max: 1 << 20, files_max: 2, changes_files_max: 2 };

    fn user(name: &str) -> Principal {
        Principal {
            account: "111111111111".into(),
            arn: format!("arn:aws:iam::111111111111:user/{name}"),
            user_id: "AIDA".into(),
            kind: PrincipalKind::User { name: name.into() },
            tags: Default::default(),
        }
    }

    fn decision(allowed: bool) -> Decision {
        let because =
            Because::Statement { layer: Layer::Identity, policy: "p\n\"q".into(), number: 2, sid: "No".into() };
        Decision { allowed, because }
    }

    fn decide(audit: &Audit, name: &str, action: &'static str, resource: &str, allowed: bool) {
        let context = Context::new().with("aws:SourceIp", "127.0.0.1");
        let about = About { request_id: "r", access_key_id: "AKIA", context: &context };
        audit.decided(&user(name), &Asked::new(action, resource), &decision(allowed), &about);
    }

    fn lines(dir: &Path, name: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(dir.join(name)).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_decision_is_one_line_whatever_names_hold_and_names_the_statement_that_decided() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::open(dir.path(), KEPT).unwrap();
        for name in ["u", "u\n{\"decision\": \"allowed\"}\u{1b}[31m", &"x\u{1}".repeat(5_000)] {
            decide(&audit, name, "s3:GetObject", &format!("arn:aws:s3:::b/{name}"), false);
        }
        drop(audit);
        let text = std::fs::read_to_string(dir.path().join(Book::Denied.file())).unwrap();
        let lines = lines(dir.path(), Book::Denied.file());
        assert_eq!(lines.len(), 3);
        assert!(!text.contains('\u{1b}') && text.lines().all(|line| line.len() < 8 * NAME_BYTES_MAX));
        for line in &lines {
            assert_eq!((&line["decision"], &line["policy"]), (&json!("denied"), &json!("p\n\"q")));
            assert_eq!(
                (&line["statement"], &line["sid"], &line["sourceIp"]),
                (&json!(2), &json!("No"), &json!("127.0.0.1"))
            );
            assert!(line["resource"].to_string().len() <= NAME_BYTES_MAX + 2);
        }
    }

    #[test]
    fn each_book_has_its_own_and_a_service_and_objects_do_not_fill_that_of_changes() {
        let service = Principal { kind: PrincipalKind::Service, ..user("s") };
        for (action, resource, wanted) in [
            ("iam:CreateUser", "arn:aws:iam::1:user/u", Book::Changes),
            ("iam:PassRole", "arn:aws:iam::1:role/r", Book::Changes),
            ("sts:AssumeRole", "arn:aws:iam::1:role/r", Book::Changes),
            ("sts:GetSessionToken", "*", Book::Changes),
            ("s3:CreateBucket", "arn:aws:s3:::b", Book::Changes),
            ("s3:CreateJob", "*", Book::Changes),
            ("s3:PutBucketVersioning", "arn:aws:s3:::b", Book::Changes),
            ("lambda:UpdateFunctionCode", "arn:aws:lambda:r:1:function:f", Book::Changes),
            ("lambda:InvokeFunction", "arn:aws:lambda:r:1:function:f", Book::Data),
            ("s3:PutObject", "arn:aws:s3:::b/k", Book::Data),
            ("s3:DeleteObjectVersion", "arn:aws:s3:::b/k", Book::Data),
            ("s3:GetObject", "arn:aws:s3:::b/k", Book::Reads),
            ("s3:ListBucket", "arn:aws:s3:::b", Book::Reads),
            ("s3:DescribeJob", "*", Book::Reads),
            ("iam:SimulatePrincipalPolicy", "*", Book::Reads),
            ("logs:FilterLogEvents", "*", Book::Reads),
        ] {
            let asked = Asked::new(action, resource);
            assert_eq!(Book::of(&user("u"), &asked, &decision(true)), wanted, "{action}");
            assert_eq!(Book::of(&user("u"), &asked, &decision(false)), Book::Denied, "{action}");
        }
        let asked = Asked::new("sts:AssumeRole", "arn:aws:iam::1:role/r");
        assert_eq!(Book::of(&service, &asked, &decision(true)), Book::Data);
    }

    #[test]
    fn neither_a_flood_of_denials_nor_a_million_reads_push_out_what_was_changed() {
        let dir = tempfile::tempdir().unwrap();
        let audit =
            Audit::open(dir.path(), Kept { file_bytes_max: 10_000, files_max: 2, changes_files_max: 2 }).unwrap();
        decide(&audit, "admin", "iam:CreateUser", "arn:aws:iam::1:user/new", true);
        for number in 0..20_000 {
            decide(&audit, "flood", "s3:DeleteObject", &format!("arn:aws:s3:::b/{number}"), false);
            decide(&audit, "job", "s3:GetObject", &format!("arn:aws:s3:::b/{number}"), true);
            decide(&audit, "job", "s3:PutObject", &format!("arn:aws:s3:::b/{number}"), true);
            // Others who are not alike.
            decide(&audit, &format!("u{}", number % 500), "s3:GetObject", "arn:aws:s3:::b/k", false);
        }
        decide(&audit, "owner", "s3:GetObject", "arn:aws:s3:::b/k", false);
        drop(audit);
        let changes = lines(dir.path(), Book::Changes.file());
        assert_eq!((changes.len(), &changes[0]["action"]), (1, &json!("iam:CreateUser")));
        let kept: u64 = std::fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum();
        // A batch may be longer than a file.
        assert!(kept < 2 * 4 * (10_000 + WAITING_BYTES_MAX as u64), "{kept}");
    }

    fn note(page: &mut Page, second: i64, alike: u64, resource: &str) -> Noted {
        let now = jiff::Timestamp::from_second(second).unwrap();
        page.note(Book::Denied, now, Some(alike), |_| {
            Map::from_iter([("who".into(), alike.into()), ("resource".into(), resource.into())])
        })
    }

    #[test]
    fn each_change_and_each_deletion_is_a_line_however_many_are_alike() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::open(dir.path(), KEPT).unwrap();
        let many = 5 * ALIKE_MAX;
        for number in 0..many {
            decide(&audit, "thief", "iam:PutUserPolicy", &format!("arn:aws:iam::1:user/{number}"), true);
            decide(&audit, "thief", "s3:DeleteObject", &format!("arn:aws:s3:::b/{number}"), true);
            decide(&audit, "thief", "s3:DeleteObjectVersion", &format!("arn:aws:s3:::b/{number}"), true);
        }
        drop(audit);
        for (book, kinds) in [(Book::Changes, 1), (Book::Data, 2)] {
            let lines = lines(dir.path(), book.file());
            assert_eq!(lines.len() as u32, kinds * many, "{book:?}");
            assert!(lines.iter().all(|line| line["resource"].is_string() && line["moreAlike"].is_null()));
        }
    }

    #[test]
    fn with_what_is_alike_the_address_and_the_key_are_the_same_and_their_count_names_them() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::open(dir.path(), KEPT).unwrap();
        let asked = |number: u32| Asked::new("s3:GetObject", format!("arn:aws:s3:::b/{number}"));
        let decide = |number: u32, address: &str, access_key_id: &str| {
            let context = Context::new().with("aws:SourceIp", address);
            let about = About { request_id: "r", access_key_id, context: &context };
            audit.decided(&user("u"), &asked(number), &decision(true), &about);
        };
        // Of more than one second, should one end meanwhile.
        (0..5 * ALIKE_MAX).for_each(|number| decide(number, "192.0.2.1", "OWN"));
        decide(9_998, "198.51.100.1", "OWN");
        decide(9_999, "192.0.2.1", "OTHER");
        drop(audit);
        let lines = lines(dir.path(), Book::Reads.file());
        let found = |number: u32| lines.iter().find(|line| line["resource"] == asked(number).resource);
        assert_eq!(found(9_998).unwrap()["sourceIp"], "198.51.100.1");
        assert_eq!(found(9_999).unwrap()["accessKeyId"], "OTHER");
        let counts: Vec<_> = lines.iter().filter(|line| line["moreAlike"].is_u64()).collect();
        assert!(!counts.is_empty());
        for line in counts {
            assert_eq!((&line["sourceIp"], &line["accessKeyId"]), (&json!("192.0.2.1"), &json!("OWN")));
            assert!(line["resource"].is_null() && line["requestId"].is_null());
        }
    }

    #[test]
    fn the_writer_is_woken_for_a_line_and_for_the_first_that_is_counted() {
        let mut page = Page::default();
        let woken = (0..1_000).filter(|_| note(&mut page, 7, 1, "r").wakes).count();
        assert_eq!(woken, ALIKE_MAX as usize + 1);
        assert!(note(&mut page, 7, 2, "r").wakes && page.counts());
        page.turn(Book::Denied, 8);
        assert!(!page.counts());
        assert_eq!((0..1_000).filter(|_| note(&mut page, 8, 1, "r").wakes).count(), ALIKE_MAX as usize + 1);
    }

    #[test]
    fn of_what_is_alike_within_a_second_there_are_some_lines_and_one_with_a_count() {
        let mut page = Page::default();
        let logged = (0..1_000).filter(|_| note(&mut page, 7, 1, "r").logged).count();
        assert_eq!(logged, LOGGED_MAX as usize);
        note(&mut page, 7, 2, "r");
        let told = |page: &mut Page| -> Vec<Value> {
            let text = std::mem::take(&mut page.text);
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        let first = told(&mut page);
        assert_eq!(first.len(), ALIKE_MAX as usize + 1);
        assert_eq!(first[0], json!({"who": 1, "resource": "r"}));
        assert!(note(&mut page, 8, 1, "s").logged);
        assert_eq!(told(&mut page), [json!({"who": 1, "moreAlike": 900}), json!({"who": 1, "resource": "s"})]);
        page.turn(Book::Denied, 9);
        assert!(told(&mut page).is_empty() && !page.counts());
    }

    #[test]
    fn what_there_is_no_room_for_is_counted() {
        let mut page = Page::default();
        let long = "x".repeat(WAITING_BYTES_MAX / 10 - 1_000);
        for alike in 0..20 {
            note(&mut page, 7, alike, &long);
        }
        assert_eq!((page.lines, page.lost), (10, 10));
        assert!(page.text.len() < WAITING_BYTES_MAX);
    }

    #[test]
    fn a_refused_caller_is_a_line_that_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::open(dir.path(), KEPT).unwrap();
        let refused = Refused {
            request_id: "r",
            access_key_id: Some("AKIAX"),
            source_ip: Some("192.0.2.1"),
            function_arn: None,
            service: Some("s3"),
            why: "the key is inactive",
        };
        audit.refused(&refused);
        audit.refused(&Refused { access_key_id: None, source_ip: None, service: None, ..refused });
        let function_arn = Some("arn:aws:lambda:r:1:function:f");
        // As many as of the other, so that the functions must not count as alike.
        (0..ALIKE_REFUSED_MAX).for_each(|_| audit.refused(&Refused { source_ip: None, ..refused }));
        audit.refused(&Refused { source_ip: None, function_arn, ..refused });
        drop(audit);
        let lines = lines(dir.path(), Book::Refused.file());
        let told = |line: &Value| {
            ["accessKeyId", "sourceIp", "service", "because"].map(|m| line[m].as_str().unwrap_or("-").to_owned())
        };
        assert_eq!(told(&lines[0]), ["AKIAX", "192.0.2.1", "s3", "the key is inactive"]);
        assert_eq!(told(&lines[1]), ["-", "-", "-", "the key is inactive"]);
        assert_eq!(lines.iter().find_map(|line| line["sourceFunctionArn"].as_str()), function_arn);
    }

    fn of_file(dir: &Path, kept: Kept) -> AuditFile {
        let mut file = AuditFile { book: Book::Changes, folder: dir.to_owned(), kept, open: None };
        file.reopen().unwrap();
        file
    }

    #[test]
    fn a_full_file_is_set_aside_and_the_oldest_goes() {
        for (files_max, wanted) in [(1, ["5\n", "", ""]), (2, ["5\n", "3\n4\n", ""]), (3, ["5\n", "3\n4\n", "1\n2\n"])]
        {
            let dir = tempfile::tempdir().unwrap();
            let mut file = of_file(dir.path(), Kept { file_bytes_max: 4, files_max, changes_files_max: 1 });
            for number in 1..=5 {
                file.append(format!("{number}\n").as_bytes()).unwrap();
            }
            let names = ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"];
            let found = names.map(|name| std::fs::read_to_string(dir.path().join(name)).unwrap_or_default());
            assert_eq!(found, wanted, "{files_max}");
        }
    }

    #[test]
    fn what_was_kept_while_more_files_were_asked_for_goes_when_one_is_set_aside() {
        for files_max in [1, 2] {
            let dir = tempfile::tempdir().unwrap();
            (1..=5).for_each(|age| std::fs::write(dir.path().join(Book::Changes.set_aside(age)), "old\n").unwrap());
            let mut file = of_file(dir.path(), Kept { file_bytes_max: 4, files_max, changes_files_max: 1 });
            (1..=3).for_each(|number| file.append(format!("{number}\n").as_bytes()).unwrap());
            let left = std::fs::read_dir(dir.path()).unwrap().count();
            assert_eq!(left, files_max);
        }
    }

    #[test]
    fn of_changes_more_is_kept_where_that_is_asked_for_and_never_less() {
        for (files_max, changes_files_max, wanted) in [(2, 16, [16, 2]), (3, 1, [3, 3])] {
            let kept = Kept { file_bytes_max: 1, files_max, changes_files_max };
            assert_eq!([Book::Changes, Book::Denied].map(|book| kept.files_max(book)), wanted);
        }
    }

    #[test]
    fn half_a_line_spoils_no_other_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(Book::Changes.file());
        // A server was killed as it wrote.
        std::fs::write(&path, "1\n{\"half").unwrap();
        let mut file = of_file(dir.path(), KEPT);
        file.append(b"").unwrap();
        file.append(b"2\n").unwrap();
        file.append(b"3\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n{\"half\n2\n3\n");
        // There is no room for all of it, and then there is.
        let torn = file.append_by(b"4\n5\n", |file, text| {
            file.write_all(&text[..3])?;
            Err(ErrorKind::StorageFull.into())
        });
        assert_eq!(torn.unwrap_err().kind(), ErrorKind::StorageFull);
        file.append(b"6\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n{\"half\n2\n3\n6\n");
    }

    #[test]
    fn a_file_that_was_moved_removed_or_cut_short_is_gone_on_with_under_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(Book::Changes.file());
        let mut file = of_file(dir.path(), KEPT);
        file.append(b"1\n").unwrap();
        std::fs::rename(&path, dir.path().join("moved")).unwrap();
        file.append(b"2\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "2\n");
        std::fs::remove_file(&path).unwrap();
        file.append(b"3\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "3\n");
        std::fs::write(&path, "").unwrap();
        file.append(b"4\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "4\n");
        assert_eq!(std::fs::read_to_string(dir.path().join("moved")).unwrap(), "1\n");
    }

    #[test]
    fn what_waits_and_what_was_counted_is_written_once_it_is_closed_whoever_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Arc::new(Audit::open(dir.path(), KEPT).unwrap());
        let _holder = audit.clone();
        let many = u64::from(5 * ALIKE_MAX);
        (0..many).for_each(|_| decide(&audit, "u", "s3:GetObject", "arn:aws:s3:::b/k", true));
        audit.close();
        let told = |lines: &[Value]| lines.iter().map(|line| line["moreAlike"].as_u64().unwrap_or(1)).sum::<u64>();
        assert_eq!(told(&lines(dir.path(), Book::Reads.file())), many);
        // The lock of the directory may go: nobody writes there any more.
        decide(&audit, "u", "iam:CreateUser", "arn:aws:iam::1:user/u", true);
        audit.close();
        assert!(lines(dir.path(), Book::Changes.file()).is_empty());
    }

    #[test]
    fn files_are_made_anew_at_once_where_that_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::open(dir.path(), KEPT).unwrap();
        for book in Book::ALL {
            std::fs::remove_file(dir.path().join(book.file())).unwrap();
        }
        audit.reopen();
        drop(audit);
        assert!(Book::ALL.iter().all(|book| dir.path().join(book.file()).exists()));
    }
}
