//! A function elsewhere that costs next to nothing: answers Lambda's Invoke that every task succeeded, and remembers when
//! calls began, how many there were at once, and which keys came twice.
//!
//! It stands in for Lambda where a goal asks what a target saw: when the last call came after a cancel, whether a limit was
//! kept, how much came through a throttle. The string of each result is the CRC-32 of the task's key, so that a report can be
//! checked row by row: the outcome of a row came from a call for that row.
//!
//! A blocking thread a connection, keep-alive, `Content-Length` alone. Signatures are not checked. All times are microseconds
//! since the epoch, so that a script on the same machine needs no second clock.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds after a reset whose calls are counted one by one: more than the longest measurement. Later ones count in
/// the last.
const BINS: usize = 15 * 60 * 1_000;
/// Calls of one function at once whose time is kept apart; more count in the last.
const LEVELS: usize = 1_025;
/// Locks over the keys that were seen: as many as threads may well be.
const SHARDS: usize = 64;
/// Bytes of one request: Lambda's events of a job are a few hundred.
const REQUEST_BYTES_MAX: usize = 1 << 20;
/// The part of a second's calls that may come at once after a pause.
const BURST_SECONDS: f64 = 0.05;

fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls at once over time, and the tokens of the throttle.
struct Busy {
    in_flight: usize,
    peak: usize,
    since_us: u64,
    /// Microseconds spent with so many calls at once, between the first call and the latest one that began.
    time_at: Vec<u64>,
    tokens: f64,
    filled_us: u64,
}

/// What is known of one function.
struct Function {
    calls: AtomicU64,
    rejected: AtomicU64,
    first_us: AtomicU64,
    last_us: AtomicU64,
    /// Calls that began in each millisecond since the reset.
    bins: Vec<AtomicU32>,
    busy: Mutex<Busy>,
}

impl Function {
    fn new() -> Self {
        Self {
            calls: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            first_us: AtomicU64::new(0),
            last_us: AtomicU64::new(0),
            bins: (0..BINS).map(|_| AtomicU32::new(0)).collect(),
            busy: Mutex::new(Busy {
                in_flight: 0,
                peak: 0,
                since_us: 0,
                time_at: vec![0; LEVELS],
                tokens: f64::INFINITY,
                filled_us: now_us(),
            }),
        }
    }

    /// Whether the call is let in at `rate` calls a second; 0 lets all in.
    fn begins(&self, rate: u64, reset_us: u64) -> bool {
        let now = now_us();
        {
            let mut busy = locked(&self.busy);
            if rate > 0 {
                let most = (rate as f64 * BURST_SECONDS).max(1.0);
                let more = now.saturating_sub(busy.filled_us) as f64 * rate as f64 / 1e6;
                busy.tokens = (busy.tokens + more).min(most);
                busy.filled_us = now;
                if busy.tokens < 1.0 {
                    self.rejected.fetch_add(1, Relaxed);
                    return false;
                }
                busy.tokens -= 1.0;
            }
            busy.passes(now);
            busy.in_flight += 1;
            busy.peak = busy.peak.max(busy.in_flight);
        }
        self.calls.fetch_add(1, Relaxed);
        let _ = self.first_us.compare_exchange(0, now, Relaxed, Relaxed);
        self.last_us.fetch_max(now, Relaxed);
        let bin = (now.saturating_sub(reset_us) / 1_000) as usize;
        self.bins[bin.min(BINS - 1)].fetch_add(1, Relaxed);
        true
    }

    fn ends(&self) {
        let mut busy = locked(&self.busy);
        busy.passes(now_us());
        busy.in_flight -= 1;
    }
}

impl Busy {
    /// Accounts for the time since the last change.
    fn passes(&mut self, now: u64) {
        if self.since_us > 0 {
            let level = self.in_flight.min(LEVELS - 1);
            self.time_at[level] += now.saturating_sub(self.since_us);
        }
        self.since_us = now;
    }
}

struct Stub {
    functions: RwLock<HashMap<String, Arc<Function>>>,
    keys: Vec<Mutex<HashMap<u64, u32>>>,
    track: AtomicBool,
    delay_us: AtomicU64,
    rate: AtomicU64,
    reset_us: AtomicU64,
    crc: [u32; 256],
}

/// The table of CRC-32 as zlib computes it.
fn crc_table() -> [u32; 256] {
    std::array::from_fn(|n| {
        (0..8).fold(n as u32, |value, _| if value & 1 == 1 { 0xedb8_8320 ^ (value >> 1) } else { value >> 1 })
    })
}

impl Stub {
    fn crc32(&self, bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, byte| self.crc[((crc ^ u32::from(*byte)) & 0xff) as usize] ^ (crc >> 8))
    }

    fn function(&self, name: &str) -> Arc<Function> {
        if let Some(function) = self.functions.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return function.clone();
        }
        let mut functions = self.functions.write().unwrap_or_else(PoisonError::into_inner);
        functions.entry(name.to_owned()).or_insert_with(|| Arc::new(Function::new())).clone()
    }

    fn invoke(&self, path: &str, body: &[u8], out: &mut Vec<u8>) {
        let function = self.function(&name_in(path));
        if !function.begins(self.rate.load(Relaxed), self.reset_us.load(Relaxed)) {
            let body = r#"{"Reason":"CallerRateLimitExceeded","Type":"User","message":"Rate Exceeded."}"#;
            return answer(out, "429 Too Many Requests", "x-amzn-errortype: TooManyRequestsException\r\n", body);
        }
        let delay = self.delay_us.load(Relaxed);
        if delay > 0 {
            std::thread::sleep(Duration::from_micros(delay));
        }
        let text = String::from_utf8_lossy(body);
        let invocation = string_after(&text, "\"invocationId\"", 0).map_or("", |(value, _)| value);
        let mut results = String::new();
        let mut at = 0;
        while let Some((task, next)) = string_after(&text, "\"taskId\"", at) {
            let (key, next) = string_after(&text, "\"s3Key\"", next).unwrap_or(("", next));
            at = next;
            if self.track.load(Relaxed) {
                let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
                    (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
                });
                *locked(&self.keys[hash as usize % SHARDS]).entry(hash).or_insert(0) += 1;
            }
            let comma = if results.is_empty() { "" } else { "," };
            let _ = write!(
                results,
                r#"{comma}{{"taskId":"{task}","resultCode":"Succeeded","resultString":"{:08x}"}}"#,
                self.crc32(key.as_bytes())
            );
        }
        let body = format!(
            r#"{{"invocationSchemaVersion":"1.0","treatMissingKeysAs":"PermanentFailure","invocationId":"{invocation}","results":[{results}]}}"#
        );
        function.ends();
        answer(out, "200 OK", "X-Amz-Executed-Version: $LATEST\r\n", &body);
    }

    /// All that is known, as JSON.
    fn stats(&self) -> String {
        let mut out = String::from("{\"functions\":{");
        let functions = self.functions.read().unwrap_or_else(PoisonError::into_inner);
        for (n, (name, function)) in functions.iter().enumerate() {
            let busy = locked(&function.busy);
            let last = busy.time_at.iter().rposition(|time| *time > 0).map_or(0, |last| last + 1);
            let _ = write!(
                out,
                r#"{}"{name}":{{"calls":{},"rejected":{},"first_us":{},"last_us":{},"in_flight":{},"peak":{},"time_at_us":{:?}}}"#,
                if n > 0 { "," } else { "" },
                function.calls.load(Relaxed),
                function.rejected.load(Relaxed),
                function.first_us.load(Relaxed),
                function.last_us.load(Relaxed),
                busy.in_flight,
                busy.peak,
                &busy.time_at[..last]
            );
        }
        let (mut unique, mut repeats) = (0, 0u64);
        for shard in &self.keys {
            let shard = locked(shard);
            unique += shard.len();
            repeats += shard.values().map(|times| u64::from(*times) - 1).sum::<u64>();
        }
        let _ = write!(out, "}},\"unique\":{unique},\"repeats\":{repeats},\"now_us\":{}}}", now_us());
        out
    }

    /// The calls of one function that began in each millisecond: `reset_us`, and pairs of a millisecond and a count.
    fn bins(&self, name: &str) -> String {
        let function = self.function(name);
        let mut out = format!("{{\"reset_us\":{},\"bins\":[", self.reset_us.load(Relaxed));
        let mut first = true;
        for (bin, count) in function.bins.iter().enumerate() {
            let count = count.load(Relaxed);
            if count > 0 {
                let _ = write!(out, "{}[{bin},{count}]", if first { "" } else { "," });
                first = false;
            }
        }
        out.push_str("]}");
        out
    }

    /// Forgets every function and key. Calls that are under way end with the function that they began with.
    fn reset(&self) {
        self.functions.write().unwrap_or_else(PoisonError::into_inner).clear();
        for shard in &self.keys {
            locked(shard).clear();
        }
        self.reset_us.store(now_us(), Relaxed);
    }

    fn serve(&self, method: &str, target: &str, body: &[u8], out: &mut Vec<u8>) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let values: HashMap<&str, &str> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        let number = |name: &str| values.get(name).and_then(|value| value.parse::<u64>().ok());
        match (method, path) {
            ("POST", path) if path.ends_with("/invocations") => self.invoke(path, body, out),
            ("GET", "/_stats") => answer(out, "200 OK", "", &self.stats()),
            ("GET", "/_bins") => answer(out, "200 OK", "", &self.bins(values.get("function").copied().unwrap_or(""))),
            ("POST", "/_reset") => {
                self.reset();
                self.track.store(number("track") == Some(1), Relaxed);
                self.delay_us.store(number("delay_us").unwrap_or(0), Relaxed);
                self.rate.store(number("rate").unwrap_or(0), Relaxed);
                answer(out, "200 OK", "", "{}");
            }
            _ => answer(out, "404 Not Found", "", "{}"),
        }
    }
}

/// The name of the function in `/2015-03-31/functions/NAME/invocations`, where NAME may be an ARN and carry a qualifier.
fn name_in(path: &str) -> String {
    let segment = path.split('/').nth(3).unwrap_or("").replace("%3A", ":").replace("%3a", ":");
    let mut words = segment.split(':');
    let name = if segment.starts_with("arn:") { words.nth(6) } else { words.next() };
    name.unwrap_or("").to_owned()
}

/// The string value behind a JSON key at or after `from`, and where it ends. Escapes stay as they are.
fn string_after<'a>(text: &'a str, key: &str, from: usize) -> Option<(&'a str, usize)> {
    let colon = from + text.get(from..)?.find(key)? + key.len();
    let begin = colon + text[colon..].find('"')? + 1;
    let mut escaped = false;
    let end = text[begin..].bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })?;
    Some((&text[begin..begin + end], begin + end + 1))
}

fn answer(out: &mut Vec<u8>, status: &str, headers: &str, body: &str) {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{headers}Content-Length: {length}\r\n\r\n");
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(body.as_bytes());
}

/// Where the head of the first request ends and how long its body is; `None` while more has to come.
fn framed(bytes: &[u8]) -> Option<(usize, usize)> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let text = String::from_utf8_lossy(&bytes[..head]);
    let length = text.split("\r\n").filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap_or(0))
    });
    Some((head + 4, length.unwrap_or(0)))
}

fn converse(stub: &Stub, mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let (mut bytes, mut filled, mut out) = (vec![0u8; 16_384], 0, Vec::with_capacity(1_024));
    loop {
        while let Some((body, length)) = framed(&bytes[..filled]).filter(|(body, length)| body + length <= filled) {
            let head = String::from_utf8_lossy(&bytes[..body]).into_owned();
            let mut words = head.split(' ');
            let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
            out.clear();
            stub.serve(method, target, &bytes[body..body + length], &mut out);
            bytes.copy_within(body + length..filled, 0);
            filled -= body + length;
            if stream.write_all(&out).is_err() {
                return;
            }
        }
        if filled == bytes.len() {
            if filled >= REQUEST_BYTES_MAX {
                return;
            }
            bytes.resize(filled * 2, 0);
        }
        match stream.read(&mut bytes[filled..]) {
            Ok(read) if read > 0 => filled += read,
            _ => return,
        }
    }
}

/// Listens at a free port of the loopback interface, says on stdout which, and serves until it is killed.
pub fn run() -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    let stub = Arc::new(Stub {
        functions: RwLock::default(),
        keys: (0..SHARDS).map(|_| Mutex::default()).collect(),
        track: AtomicBool::new(false),
        delay_us: AtomicU64::new(0),
        rate: AtomicU64::new(0),
        reset_us: AtomicU64::new(now_us()),
        crc: crc_table(),
    });
    for stream in listener.incoming() {
        let (stub, stream) = (stub.clone(), stream?);
        std::thread::Builder::new().stack_size(256 * 1_024).spawn(move || converse(&stub, stream))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_found_in_a_path_however_it_is_named() {
        for (path, name) in [
            ("/2015-03-31/functions/f/invocations", "f"),
            ("/2015-03-31/functions/f%3Alive/invocations", "f"),
            ("/2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Ag/invocations", "g"),
            ("/2015-03-31/functions/arn:aws:lambda:us-east-1:000000000000:function:g:7/invocations", "g"),
        ] {
            assert_eq!(name_in(path), name, "{path}");
        }
    }

    #[test]
    fn a_request_is_whole_when_its_body_is_and_a_string_ends_at_its_own_quote() {
        let request = b"POST /x HTTP/1.1\r\ncontent-length: 3\r\n\r\nabcGET";
        assert_eq!(framed(request), Some((39, 3)));
        assert_eq!(framed(&request[..30]), None);
        let text = r#"{"s3Key" : "a\"b\\","taskId":"t"}"#;
        let (key, after) = string_after(text, "\"s3Key\"", 0).unwrap();
        assert_eq!((key, string_after(text, "\"taskId\"", after).unwrap().0), (r#"a\"b\\"#, "t"));
    }

    #[test]
    fn a_throttle_lets_in_its_rate_and_a_burst_and_counts_the_others() {
        let function = Function::new();
        let let_in = (0..1_000).filter(|_| function.begins(1_000, 0)).count();
        assert!((50..1_000).contains(&let_in), "{let_in}");
        assert_eq!(function.rejected.load(Relaxed) as usize + let_in, 1_000);
        assert_eq!(locked(&function.busy).peak, let_in);
    }
}
