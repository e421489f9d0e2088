//! What depends on the number of rows: reading a manifest, running it with a function that does nothing, its report,
//! recovery, and memory. Each beside its floor, taken in the same run.
//!
//! ```text
//! cargo run --release -p longshore-jobs --example manifest_scale -- [--json] [--jobs 500] 10000 10000000
//! ```
//!
//! One process a measurement, so that peaks are not mixed: the program starts itself. The manifest is made on the fly by
//! the store; nothing here ever holds it, but the process of the floors, which holds a million rows. With `--json` a line
//! for each size and one for the jobs, and nothing else. All data lies in `TMPDIR`, which should be on the disk that is
//! meant.

use std::fmt::Write as _;
use std::io::{BufRead, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use longshore_core::invocation::{EventTemplate, Judgement, Reply, Schema, invocation_id, judge};
use longshore_core::manifest::{Column, RowFormat};
use longshore_core::random::Random;
use longshore_core::record::{Entries, Logged, Unreadable};
use longshore_core::task::TaskIds;
use longshore_jobs::ports::{
    Invoker, ListPage, ListQuery, ObjectBody, ObjectError, ObjectFacts, Objects, PutBody, PutTerms,
};
use longshore_jobs::{Jobs, SCHEMA, Settings};
use longshore_store::{Fatal, Os, Records, ResultLog};
use longshore_wire::Caller;
use longshore_wire::{Query, Request, RequestId};
use md5::{Digest, Md5};
use memchr::memmem::Finder;
use rustix::time::{ClockId, clock_gettime};

const ACCOUNT: &str = "123456789012";
/// Rows in one piece of the manifest's body: 64 KiB and less, as a file is read.
const PIECE_ROWS: u64 = 1_024;
/// Rows over which floors are taken.
const FLOOR_ROWS: u64 = 1_000_000;
const MILLION: u64 = 1_000_000;

/// Processor time of this process, in nanoseconds.
fn cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// A line of `/proc/self/status`, in KiB.
fn status_kib(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Some fifty bytes a row, a tenth of them with an escape.
fn push_rows(out: &mut Vec<u8>, rows: std::ops::Range<u64>) {
    for row in rows {
        out.extend_from_slice(b"source-bucket,data/2026/11/22/part-");
        let mut digits = *b"0000000000";
        let mut rest = row;
        for digit in digits.iter_mut().rev() {
            *digit += (rest % 10) as u8;
            rest /= 10;
        }
        out.extend_from_slice(&digits);
        out.extend_from_slice(if row % 10 == 0 { b"%20a.parquet\n" } else { b".parquet\n" });
    }
}

/// A store with manifests of so many rows, `<rows>.csv`. Of what is written to it result files are kept by a second name
/// below `kept`.
struct Store {
    kept: PathBuf,
}

fn none() -> ObjectError {
    ObjectError { code: "NoSuchKey".into(), message: "none".into(), passing: false }
}

#[async_trait::async_trait]
impl Objects for Store {
    async fn get(&self, _: &str, key: &str, _: Option<&str>) -> Result<ObjectBody, ObjectError> {
        let rows: u64 = key.strip_suffix(".csv").and_then(|rows| rows.parse().ok()).ok_or_else(none)?;
        let pieces = futures::stream::iter((0..rows).step_by(PIECE_ROWS as usize)).map(move |first| {
            let mut text = Vec::with_capacity(64 << 10);
            push_rows(&mut text, first..rows.min(first + PIECE_ROWS));
            Ok(Bytes::from(text))
        });
        Ok(ObjectBody { etag: "e".into(), size: None, tags: None, stream: pieces.boxed() })
    }

    async fn put(&self, _: &str, key: &str, _: PutTerms<'_>, body: PutBody) -> Result<String, ObjectError> {
        if let PutBody::File(path, _) = body {
            let name = key.rsplit('/').next().unwrap_or(key);
            std::fs::hard_link(path, self.kept.join(name)).expect("a second name on the same disk");
        }
        Ok("e".into())
    }

    async fn list(&self, _: &str, _: &ListQuery) -> Result<ListPage, ObjectError> {
        Err(none())
    }

    async fn facts(&self, _: &str, _: &str, _: Option<&str>) -> Result<ObjectFacts, ObjectError> {
        Err(none())
    }

    async fn check_owner(&self, _: &str, _: &str) -> Result<(), ObjectError> {
        Ok(())
    }
}

/// The answer to an event that its task succeeded. As cheap as may be: what a function costs is not the engine's.
fn answer(event: &[u8]) -> Vec<u8> {
    const NAME: &[u8] = b"\"taskId\":\"";
    static FIND: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(NAME));
    let task = FIND.find(event).map_or(&[][..], |at| &event[at + NAME.len()..]);
    let task = &task[..memchr::memchr(b'"', task).unwrap_or(0)];
    let mut answer = Vec::with_capacity(128);
    for piece in [&br#"{"results":[{"taskId":""#[..], task, br#"","resultCode":"Succeeded","resultString":""}]}"#] {
        answer.extend_from_slice(piece);
    }
    answer
}

/// Answers every task that it succeeded.
#[derive(Default)]
struct NoOp {
    calls: AtomicU64,
    /// From this call on function `f` takes its time, and once `g` was called none of it is answered. 0: none at all.
    hold_from: Option<u64>,
    held: AtomicU64,
    /// Processor time at each million of calls.
    millions: Mutex<Vec<u64>>,
    /// When `g` was called last, and a run of `f` began after it.
    other: Mutex<Option<Instant>>,
    began: Mutex<Option<Instant>>,
    /// How long it took from either to the first call of `f`.
    resumed: Mutex<Option<(Duration, Duration)>>,
}

#[async_trait::async_trait]
impl Invoker for NoOp {
    async fn invoke(&self, function: &str, payload: Bytes) -> Reply {
        let now = self.calls.fetch_add(1, Ordering::Relaxed);
        if now.is_multiple_of(MILLION) {
            self.millions.lock().expect("nobody panics").push(cpu_ns());
        }
        if function.ends_with(":g") {
            *self.other.lock().expect("nobody panics") = Some(Instant::now());
        } else if self.hold_from.is_some_and(|from| now >= from) {
            let other = self.other.lock().expect("nobody panics").take();
            if let Some(other) = other {
                let began = self.began.lock().expect("nobody panics").unwrap_or(other);
                *self.resumed.lock().expect("nobody panics") = Some((other.elapsed(), began.elapsed()));
            }
            self.held.fetch_add(1, Ordering::Relaxed);
            if self.resumed.lock().expect("nobody panics").is_some() || self.hold_from == Some(0) {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Reply::Answer(answer(&payload).into())
    }

    fn slots(&self, _: &str) -> Option<u32> {
        Some(1_000)
    }

    fn prepare(&self, function: &str, _: u32) {
        if !function.ends_with(":g") {
            *self.began.lock().expect("nobody panics") = Some(Instant::now());
        }
    }
}

/// A job over so many rows: its request.
fn request(token: &str, rows: u64, function: &str, priority: u32, confirmation: bool) -> String {
    format!(
        r#"<CreateJobRequest xmlns="http://awss3control.amazonaws.com/doc/2018-08-20/">
 <ConfirmationRequired>{confirmation}</ConfirmationRequired>
 <Operation><LambdaInvoke><FunctionArn>arn:aws:lambda:us-east-1:{ACCOUNT}:function:{function}</FunctionArn></LambdaInvoke></Operation>
 <Report><Enabled>true</Enabled><Bucket>arn:aws:s3:::reports</Bucket><Format>Report_CSV_20180820</Format><ReportScope>AllTasks</ReportScope></Report>
 <ClientRequestToken>{token}</ClientRequestToken>
 <Manifest><Spec><Format>S3BatchOperations_CSV_20180820</Format><Fields><member>Bucket</member><member>Key</member></Fields></Spec>
 <Location><ObjectArn>arn:aws:s3:::m/{rows}.csv</ObjectArn><ETag>e</ETag></Location></Manifest>
 <Priority>{priority}</Priority><RoleArn>arn:aws:iam::{ACCOUNT}:role/r</RoleArn></CreateJobRequest>"#
    )
}

/// One server without a port.
struct Server {
    jobs: Jobs,
    invoker: Arc<NoOp>,
}

impl Server {
    async fn open(dir: &Path, invoker: NoOp, change: impl FnOnce(&mut Settings)) -> Self {
        let kept = dir.join("kept");
        std::fs::create_dir_all(&kept).expect("a folder");
        let fatal = Fatal::new();
        let records = Records::open(&dir.join("records.db"), &[SCHEMA], fatal.clone()).expect("a database");
        let mut settings = Settings::new(ACCOUNT, "us-east-1");
        change(&mut settings);
        let (objects, invoker) = (Arc::new(Store { kept }), Arc::new(invoker));
        let port: Arc<dyn Invoker> = Arc::clone(&invoker) as _;
        let jobs = Jobs::open(records, dir.join("jobs"), fatal, settings, objects, port).await.expect("jobs");
        Self { jobs, invoker }
    }

    async fn send(&self, method: &str, path: &str, query: &str, body: &str) -> String {
        let account = (http::HeaderName::from_static("x-amz-account-id"), http::HeaderValue::from_static(ACCOUNT));
        let request = Request {
            method: method.parse().expect("a method"),
            path: path.to_owned(),
            query: Query::parse(Some(query)),
            headers: http::HeaderMap::from_iter([account]),
            body: Bytes::copy_from_slice(body.as_bytes()),
            caller: Caller::in_process(ACCOUNT),
            request_id: RequestId("r".into()),
        };
        String::from_utf8_lossy(&self.jobs.serve(request, None).await.body).into_owned()
    }

    async fn create(&self, request: &str) -> String {
        let created = self.send("POST", "/v20180820/jobs", "", request).await;
        created.split_once("<JobId>").and_then(|(_, rest)| rest.split_once('<')).expect("an ID").0.to_owned()
    }

    async fn confirm(&self, id: &str) {
        self.send("POST", &format!("/v20180820/jobs/{id}/status"), "requestedJobStatus=Ready", "").await;
    }

    async fn wait_for(&self, id: &str, statuses: &[&str]) {
        loop {
            let described = self.send("GET", &format!("/v20180820/jobs/{id}"), "", "").await;
            if statuses.iter().any(|status| described.contains(&format!("<Status>{status}</Status>"))) {
                return;
            }
            assert!(!described.contains("<Status>Failed</Status>"), "{described}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Figures by name, in the order they were taken.
#[derive(Default)]
struct Figures(Vec<(String, f64)>);

impl Figures {
    fn set(&mut self, name: &str, value: f64) {
        self.0.push((name.to_owned(), value));
    }

    fn get(&self, name: &str) -> f64 {
        self.0.iter().find(|(known, _)| known == name).map_or(f64::NAN, |(_, value)| *value)
    }

    fn ratio(&mut self, name: &str, above: &str, below: &str) {
        let ratio = self.get(above) / self.get(below);
        self.set(name, ratio);
    }

    fn json(&self) -> String {
        let mut out = String::from("{");
        for (at, (name, value)) in self.0.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            let value = if value.is_finite() { format!("{value:.3}") } else { "null".into() };
            write!(out, "{comma}\"{name}\":{value}").expect("a string takes it");
        }
        out + "}"
    }
}

fn say(name: &str, value: f64) {
    println!("{name} {value}");
}

/// Prepares, runs and reports one job.
async fn one(rows: u64, dir: &Path) {
    let server = Server::open(dir, NoOp::default(), |_| {}).await;
    let (began, cpu) = (Instant::now(), cpu_ns());
    let id = server.create(&request("t", rows, "f", 1, true)).await;
    server.wait_for(&id, &["Suspended"]).await;
    say("prepare_s", began.elapsed().as_secs_f64());
    say("prepare_cpu_ns_row", (cpu_ns() - cpu) as f64 / rows as f64);
    say("prepare_peak_kib", status_kib("VmHWM") as f64);
    let (began, cpu) = (Instant::now(), cpu_ns());
    server.confirm(&id).await;
    server.wait_for(&id, &["Completing", "Complete"]).await;
    say("run_s", began.elapsed().as_secs_f64());
    say("run_cpu_us_task", (cpu_ns() - cpu) as f64 / rows as f64 / 1_000.0);
    say("run_peak_kib", status_kib("VmHWM") as f64);
    let (began, cpu) = (Instant::now(), cpu_ns());
    server.wait_for(&id, &["Complete"]).await;
    say("report_s", began.elapsed().as_secs_f64());
    say("report_cpu_ns_row", (cpu_ns() - cpu) as f64 / rows as f64);
    say("peak_kib", status_kib("VmHWM") as f64);
    let millions: Vec<u64> = {
        let marks = server.invoker.millions.lock().expect("nobody panics");
        marks.windows(2).map(|pair| pair[1] - pair[0]).collect()
    };
    if let (Some(first), Some(last)) = (millions.first(), millions.get(8)) {
        // The ninth of ten: behind the tenth nothing is called.
        say("million_9_over_1", *last as f64 / *first as f64);
    }
    server.jobs.shutdown().await;
}

/// Runs half of a job's rows, lets a job of higher priority by, and waits to be killed.
async fn half(rows: u64, dir: &Path) {
    let server = Server::open(dir, NoOp { hold_from: Some(rows / 2), ..NoOp::default() }, |s| s.active_slots = 1).await;
    let id = server.create(&request("t", rows, "f", 1, true)).await;
    server.wait_for(&id, &["Suspended"]).await;
    server.confirm(&id).await;
    while server.invoker.calls.load(Ordering::Relaxed) < rows / 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    server.create(&request("u", 1, "g", 9, false)).await;
    let (behind, resumed) = loop {
        if let Some(resumed) = *server.invoker.resumed.lock().expect("nobody panics") {
            break resumed;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    // From the moment that the run begins anew; and with all that the other job still does after its call.
    say("resume_ms", resumed.as_secs_f64() * 1_000.0);
    say("resume_behind_other_ms", behind.as_secs_f64() * 1_000.0);
    // A crash finds the last batch recorded or not.
    println!("half");
    std::future::pending::<()>().await;
}

/// Goes on after a crash, until the next invocation.
async fn recover(dir: &Path) {
    let server = Server::open(dir, NoOp { hold_from: Some(0), ..NoOp::default() }, |s| s.active_slots = 1).await;
    while server.invoker.calls.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_micros(100)).await;
    }
    println!("invoked");
    say("recover_peak_kib", status_kib("VmHWM") as f64);
    std::future::pending::<()>().await;
}

/// Memory of jobs that wait, of jobs that are over, and of tasks in flight.
async fn many(count: u64, dir: &Path) {
    let server = Server::open(dir, NoOp::default(), |_| {}).await;
    // Twice: what the first ones take is for good and for all, caches of the database above all.
    for turn in 0..2 {
        let before = status_kib("VmRSS") as f64;
        let mut ids = Vec::new();
        for n in 0..count {
            ids.push(server.create(&request(&format!("{turn}-{n}"), 1, "f", 1, true)).await);
        }
        for id in &ids {
            server.wait_for(id, &["Suspended"]).await;
        }
        let idle = status_kib("VmRSS") as f64 - before;
        for id in &ids {
            server.confirm(id).await;
        }
        for id in &ids {
            server.wait_for(id, &["Complete"]).await;
        }
        if turn == 1 {
            say("idle_job_kib", idle / count as f64);
            say("finished_job_kib", (status_kib("VmRSS") as f64 - before) / count as f64);
        }
    }
    server.jobs.shutdown().await;
    drop(server);

    let dir = dir.join("flight");
    let wide = |settings: &mut Settings| {
        settings.run.ramp.initial = 1_000;
        settings.run.ramp.max = 1_000;
    };
    let server = Server::open(&dir, NoOp { hold_from: Some(0), ..NoOp::default() }, wide).await;
    let before = status_kib("VmRSS");
    server.create(&request("t", 100_000, "f", 1, false)).await;
    while server.invoker.held.load(Ordering::Relaxed) < 1_000 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // With what the job itself takes, and the rows that are read ahead.
    say("task_in_flight_kib", (status_kib("VmRSS") as f64 - before as f64) / 1_000.0);
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Nanoseconds of this thread's processor time that `work` takes.
fn timed(work: impl FnOnce() -> u64) -> f64 {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
    };
    let began = now();
    std::hint::black_box(work());
    now() - began
}

/// What nobody could do without: the rows found, split, decoded and checked for UTF-8, by hand; and the making of them.
fn floors(dir: &Path) {
    let mut text = Vec::new();
    let source = median(
        (0..5)
            .map(|_| {
                text.clear();
                timed(|| {
                    push_rows(&mut text, 0..FLOOR_ROWS);
                    text.len() as u64
                })
            })
            .collect(),
    );
    let hand = median((0..7).map(|_| timed(|| by_hand(&text))).collect());
    say("source_ns_row", source / FLOOR_ROWS as f64);
    say("hand_ns_row", hand / FLOOR_ROWS as f64);
    // The stage's own part of it: what it has to say of the rows, and their checksum, without the disk.
    let format = RowFormat::new(vec![Column::Bucket, Column::Key]).expect("a format");
    let checked = median((0..7).map(|_| timed(|| stage(&format, &text))).collect());
    say("check_ns_row", checked / FLOOR_ROWS as f64);
    say("check_over_hand", checked / hand);
    // The first result file of the report, as far as it was made.
    let file = std::fs::read_dir(dir.join("kept")).expect("a folder").flatten().next();
    if let Some(file) = file {
        let bytes = std::fs::read(file.path()).expect("a result file");
        let rows = memchr::memchr_iter(b'\n', &bytes).count().max(1);
        let md5 = median((0..5).map(|_| timed(|| u64::from(Md5::digest(&bytes)[0]))).collect());
        say("md5_ns_row", md5 / rows as f64);
        say("report_bytes_row", bytes.len() as f64 / rows as f64);
    }
}

fn stage(format: &RowFormat, text: &[u8]) -> u64 {
    let (mut rows, mut rest, mut checksum, mut edges) = (0, text, 0, Vec::new());
    while let Some(last) = memchr::memrchr(b'\n', &rest[..rest.len().min(128 << 10)]) {
        let (lines, after) = rest.split_at(last + 1);
        rows += format.check(rows, lines, &mut edges).expect("good rows");
        checksum = crc32c::crc32c_append(checksum, lines);
        rest = after;
    }
    rows + u64::from(checksum)
}

fn by_hand(text: &[u8]) -> u64 {
    let (mut sum, mut from, mut key_out) = (0, 0, Vec::with_capacity(1_024));
    for end in memchr::memchr_iter(b'\n', text) {
        let line = &text[from..end];
        from = end + 1;
        if memchr::memchr(b'"', line).is_some() {
            continue;
        }
        let comma = memchr::memchr(b',', line).unwrap_or(0);
        let key = &line[comma + 1..];
        if memchr::memchr2(b'%', b'+', key).is_some() {
            decode(key, &mut key_out);
            sum += std::str::from_utf8(&key_out).map_or(0, str::len) as u64;
        } else {
            sum += std::str::from_utf8(key).map_or(0, str::len) as u64;
        }
    }
    sum
}

fn decode(key: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let mut at = 0;
    while let Some(found) = memchr::memchr2(b'%', b'+', &key[at..]) {
        out.extend_from_slice(&key[at..at + found]);
        at += found;
        if key[at] == b'+' {
            out.push(b' ');
            at += 1;
            continue;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0) as u8;
        let Some([high, low]) = key.get(at + 1..at + 3) else { break };
        out.push(digit(*high) << 4 | digit(*low));
        at += 3;
    }
    out.extend_from_slice(&key[at..]);
}

/// What each task of a job needs, done on one thread with nothing around it: its row read, its event made, its answer judged, its
/// entry written; and after as many as each frame of the job's log has, an append and a sync. The function's part is in it as
/// it is in the job. Returns how long that took.
fn needed(dir: &Path, frames: &[u64]) -> Duration {
    let format = RowFormat::new(vec![Column::Bucket, Column::Key]).expect("a format");
    let (template, ids) = (EventTemplate::new("j", "j", Schema::V1, &[]), TaskIds::new("j"));
    let mut random = Random::seeded(1);
    let mut file = std::fs::File::create(dir.join("needed")).expect("a file");
    let (mut row, mut text, mut entries) = (0, Vec::new(), Entries::default());
    let mut work = Duration::ZERO;
    for count in frames {
        text.clear();
        push_rows(&mut text, row..row + count);
        let began = Instant::now();
        entries = entries.emptied();
        for task in format.parse_chunk(row, row, &text).expect("good rows") {
            let event = template.event(invocation_id(&mut random).as_str(), &task);
            let reply = Reply::Answer(answer(&event).into());
            let Judgement::Settle(outcome) = judge(&reply, ids.of(task.number).as_str()) else {
                panic!("it succeeds: {reply:?}");
            };
            entries.settle(&task, 1, &outcome);
        }
        append(&mut file, entries.payload());
        work += began.elapsed();
        row += count;
    }
    work
}

fn append(file: &mut std::fs::File, payload: &[u8]) {
    file.write_all(payload).and_then(|()| file.sync_data()).expect("it is durable");
    if file.stream_position().expect("a place") >= 64 << 20 {
        file.set_len(0).and_then(|()| file.rewind()).expect("it begins anew");
    }
}

/// Appends and syncs the frames of a job's log once more, with nothing around it; and then with what each task needs.
fn bare(dir: &Path) {
    let path = dir.join("bare");
    let mut file = std::fs::File::create(&path).expect("a file");
    let (mut frames, mut bytes) = (Vec::new(), 0);
    let mut work = Duration::ZERO;
    for job in std::fs::read_dir(dir.join("jobs")).expect("a folder").flatten() {
        ResultLog::read(&Os, &job.path().join("results"), |payload| {
            let began = Instant::now();
            // The log is read beside it, a piece at a time; that is not counted.
            append(&mut file, payload);
            work += began.elapsed();
            bytes += payload.len();
            let mut count = 0;
            let counted = Logged::read_all(payload, |_| {
                count += 1;
                Ok::<_, Unreadable>(())
            });
            counted.expect("a whole frame");
            frames.push(count);
        })
        .expect("a whole log");
    }
    say("bare_s", work.as_secs_f64());
    say("needed_s", needed(dir, &frames).as_secs_f64());
    say("fsyncs", frames.len() as f64);
    say("log_bytes", bytes as f64);
}

/// Starts this program once more.
fn start(arguments: &[&str]) -> Child {
    let this = std::env::current_exe().expect("a path");
    Command::new(this).args(arguments).stdout(Stdio::piped()).spawn().expect("it starts")
}

/// Takes the figures of a child that ends.
fn collect(arguments: &[&str], figures: &mut Figures) {
    let mut child = start(arguments);
    let mut text = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut text).expect("text");
    assert!(child.wait().expect("it ends").success(), "{arguments:?}");
    for line in text.lines() {
        let (name, value) = line.split_once(' ').expect("a name and a value");
        figures.set(name, value.parse().expect("a number"));
    }
}

/// Starts a child, takes its figures until it says `word`, and kills it. Returns the time until the word.
fn collect_until(word: &str, arguments: &[&str], figures: &mut Figures, after: u64) -> Duration {
    let began = Instant::now();
    let mut child = start(arguments);
    let mut lines = std::io::BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut took = None;
    let mut left = after;
    while took.is_none() || left > 0 {
        let line = lines.next().expect("it goes on").expect("text");
        if line == word {
            took = Some(began.elapsed());
            continue;
        }
        left -= u64::from(took.is_some());
        let (name, value) = line.split_once(' ').expect("a name and a value");
        figures.set(name, value.parse().expect("a number"));
    }
    child.kill().and_then(|()| child.wait()).expect("it is killed");
    took.expect("the word was said")
}

/// As after a power cut: nothing of these files is in memory.
fn forget(dir: &Path) {
    for entry in std::fs::read_dir(dir).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            forget(&path);
        } else if let Ok(file) = std::fs::File::open(&path) {
            file.sync_all()
                .and_then(|()| Ok(rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?))
                .expect("it is forgotten");
        }
    }
}

/// Everything about one size.
fn measure(rows: u64, dir: &Path) -> Figures {
    let (text, path) = (rows.to_string(), dir.to_str().expect("a path of text"));
    let mut figures = Figures::default();
    figures.set("rows", rows as f64);
    collect(&["--one", &text, path], &mut figures);
    collect(&["--floors", path], &mut figures);
    collect(&["--bare", path], &mut figures);
    std::fs::remove_dir_all(dir).expect("the folder goes");
    let manifest = figures.get("prepare_cpu_ns_row") - figures.get("source_ns_row");
    figures.set("manifest_cpu_ns_row", manifest);
    figures.ratio("manifest_over_hand", "manifest_cpu_ns_row", "hand_ns_row");
    figures.ratio("report_over_md5", "report_cpu_ns_row", "md5_ns_row");
    figures.ratio("run_over_bare", "bare_s", "run_s");
    figures.ratio("run_over_needed", "needed_s", "run_s");
    let rate = rows as f64 / figures.get("run_s");
    figures.set("tasks_per_s", rate);

    collect_until("half", &["--half", &text, path], &mut figures, 0);
    let killed = collect_until("invoked", &["--recover", path], &mut figures, 1);
    figures.set("recover_ms", killed.as_secs_f64() * 1_000.0);
    forget(dir);
    let cut = collect_until("invoked", &["--recover", path], &mut Figures::default(), 1);
    figures.set("recover_cold_ms", cut.as_secs_f64() * 1_000.0);
    std::fs::remove_dir_all(dir).expect("the folder goes");
    figures
}

fn print(json: bool, figures: &Figures) {
    if json {
        return println!("{}", figures.json());
    }
    for (name, value) in &figures.0 {
        println!("{name:>24} {value:.3}");
    }
    println!();
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let inside = |work: &dyn Fn(&tokio::runtime::Runtime)| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        work(&runtime);
    };
    let number = |text: &str| -> u64 { text.parse().expect("a number") };
    match words.as_slice() {
        ["--one", rows, dir] => return inside(&|runtime| runtime.block_on(one(number(rows), Path::new(dir)))),
        ["--half", rows, dir] => return inside(&|runtime| runtime.block_on(half(number(rows), Path::new(dir)))),
        ["--recover", dir] => return inside(&|runtime| runtime.block_on(recover(Path::new(dir)))),
        ["--many", count, dir] => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
            runtime.block_on(many(number(count), Path::new(dir)));
            return runtime.shutdown_background();
        }
        ["--floors", dir] => return floors(Path::new(dir)),
        ["--bare", dir] => return bare(Path::new(dir)),
        _ => {}
    }
    let json = words.contains(&"--json");
    let dir = std::env::temp_dir().join(format!("manifest-scale-{}", std::process::id()));
    let path = dir.to_str().expect("a path of text");
    let mut rest = words.iter().filter(|word| **word != "--json");
    while let Some(word) = rest.next() {
        let mut figures = Figures::default();
        if *word == "--jobs" {
            collect(&["--many", rest.next().expect("a number of jobs"), path], &mut figures);
            std::fs::remove_dir_all(&dir).expect("the folder goes");
        } else {
            figures = measure(number(word), &dir);
        }
        print(json, &figures);
    }
}
