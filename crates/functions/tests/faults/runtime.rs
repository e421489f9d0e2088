//! A runtime that breaks the Runtime API in the way its event asks for: the bootstrap of the fault tests.
//!
//! A program of its own and not a script, because the tests start it some thousand times. An event is `<number> <what to
//! do>`. It reports every event that it gets to the S3 endpoint, as `GET /ran/<number>`, before it does anything else.
//! What the host should have refused and did not is told in the next answer.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustix::process::Signal;

const BASE: &str = "/2018-06-01/runtime/";
/// One byte more than an answer may have.
const TOO_LARGE: usize = 6_291_557;
/// So much more that the host does not even read it.
const HUGE: usize = 100 * 1024 * 1024;

struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn header(&self, name: &str) -> String {
        let line = self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("no {name} in {}", self.head)).to_owned()
    }
}

fn connect(address: &str) -> TcpStream {
    TcpStream::connect(address).expect("the host listens")
}

/// Reads one answer. `None` if the connection ends before it is complete.
fn reply(stream: &mut TcpStream) -> Option<Reply> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().ok())?
            });
            if body.len() >= length.unwrap_or(0) {
                let status = head.split(' ').nth(1)?.parse().ok()?;
                return Some(Reply { status, head: head.to_owned(), body: body.to_owned() });
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(n) => bytes.extend_from_slice(&buffer[..n]),
        }
    }
}

fn request(stream: &mut TcpStream, method: &str, path: &str, headers: &str, body: &[u8]) -> Option<Reply> {
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n{headers}\r\n", body.len()).into_bytes();
    stream.write_all(&[&head, body].concat()).ok()?;
    reply(stream)
}

fn end_by(signal: Signal) -> ! {
    // Rust's own handler of SIGSEGV may return once, when it finds no stack that ran over.
    for _ in 0..2 {
        let _ = rustix::process::kill_process(rustix::process::getpid(), signal);
    }
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn hang() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

/// The process that a function leaves behind: in a session of its own, so that nothing of its parent reaches it.
fn orphan() -> ! {
    let _ = rustix::process::setsid();
    hang()
}

struct Runtime {
    address: String,
    s3: String,
    deployment: String,
    stream: TcpStream,
    /// What the host did and should not have done.
    violation: Option<String>,
    last: Option<String>,
}

fn main() {
    if std::env::args().nth(1).is_some_and(|arg| arg.starts_with("orphan")) {
        orphan();
    }
    let address = variable("AWS_LAMBDA_RUNTIME_API");
    let stream = connect(&address);
    let mut runtime = Runtime {
        s3: variable("AWS_ENDPOINT_URL_S3").trim_start_matches("http://").to_owned(),
        deployment: variable("DEPLOYMENT"),
        stream,
        address,
        violation: None,
        last: None,
    };
    runtime.init(&variable("INIT"));
    loop {
        runtime.serve();
    }
}

impl Runtime {
    fn init(&mut self, how: &str) {
        // Random by the name of the log stream, which is another one for every environment.
        let odd = variable("AWS_LAMBDA_LOG_STREAM_NAME").bytes().map(u32::from).sum::<u32>() % 2 == 1;
        match how {
            "exit" => std::process::exit(3),
            "flaky" if odd => std::process::exit(3),
            "kill" => end_by(Signal::KILL),
            "hang" => hang(),
            "error" => {
                let body = format!("init error {}", self.deployment);
                self.post("init/error", "", body.as_bytes(), 202);
                std::process::exit(1);
            }
            _ => {}
        }
    }

    /// Posts on the connection of its own and expects a status.
    fn post(&mut self, path: &str, headers: &str, body: &[u8], expected: u16) {
        match request(&mut self.stream, "POST", &format!("{BASE}{path}"), headers, body) {
            Some(reply) if reply.status == expected => {}
            // A host that ends this environment ends its connections too.
            None => end_by(Signal::KILL),
            Some(reply) => {
                self.violation = Some(format!("{path}: {} in place of {expected}: {}", reply.status, reply.body));
            }
        }
    }

    fn next(stream: &mut TcpStream) -> Reply {
        match request(stream, "GET", &format!("{BASE}invocation/next"), "", b"") {
            Some(reply) if reply.status == 200 => reply,
            Some(reply) => panic!("/next was answered {}: {}", reply.status, reply.body),
            None => std::process::exit(0),
        }
    }

    fn serve(&mut self) {
        let event = Self::next(&mut self.stream);
        let id = event.header("Lambda-Runtime-Aws-Request-Id");
        let attempt = event.header("Lambda-Runtime-Invocation-Id");
        let mut words = event.body.split(' ');
        let (number, what) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut s3 = connect(&self.s3);
        let asked = if what == "hold" { "hold" } else { "ran" };
        request(&mut s3, "GET", &format!("/{asked}/{number}"), "Connection: close\r\n", b"");
        let answer = match self.violation.take() {
            Some(violation) => format!("VIOLATION {violation}"),
            None => format!("{number} {}", self.deployment),
        };
        let (answer, response, error) =
            (answer.as_bytes(), format!("invocation/{id}/response"), format!("invocation/{id}/error"));
        let partial = |framing: &str, body: &str| {
            let mut stream = connect(&self.address);
            let head = format!("POST {BASE}{response} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n{body}");
            let _ = stream.write_all(head.as_bytes());
            stream
        };
        match what {
            "error" => self.post(&error, "Lambda-Runtime-Function-Error-Type: Function.Mine\r\n", answer, 202),
            "slow" => {
                std::thread::sleep(Duration::from_millis(5));
                self.post(&response, "", answer, 202);
            }
            "exit0" => std::process::exit(0),
            "exit7" => std::process::exit(7),
            "abort" => std::process::abort(),
            "kill" => end_by(Signal::KILL),
            "segv" => end_by(Signal::SEGV),
            "hang" => hang(),
            "half" => {
                drop(partial("Content-Length: 100", "ten bytes."));
                hang();
            }
            "chunkhalf" => {
                drop(partial("Transfer-Encoding: chunked", "64\r\nten bytes."));
                hang();
            }
            "halfexit" => {
                let _stream = partial("Content-Length: 100", "ten bytes.");
                std::process::exit(0);
            }
            "halfhang" => {
                let _stream = partial("Content-Length: 100", "ten bytes.");
                hang();
            }
            "twice" => {
                self.post(&response, "", answer, 202);
                self.post(&response, "", b"a second answer", 403);
                self.post(&error, "", b"a third answer", 403);
            }
            "late" | "wrong" => {
                let other = self.last.clone().filter(|_| what == "late").unwrap_or_else(|| "nobody".into());
                self.post(&format!("invocation/{other}/response"), "", b"of another invocation", 400);
                self.post(&response, "", answer, 202);
            }
            "attempt" => {
                self.post(&response, "Lambda-Runtime-Invocation-Id: another\r\n", b"of another attempt", 400);
                self.post(&response, &format!("Lambda-Runtime-Invocation-Id: {attempt}\r\n"), answer, 202);
            }
            "again" => {
                let again = Self::next(&mut connect(&self.address));
                if (&again.head, &again.body) != (&event.head, &event.body) {
                    self.violation = Some(format!("another event: {} {}", again.head, again.body));
                }
                self.post(&response, "", answer, 202);
            }
            "answerdie" => {
                // Sent, and gone before anybody can have read it: on this connection, or on one that nobody has accepted.
                let odd = number.ends_with(['1', '3', '5', '7', '9']);
                let mut other =
                    if odd { connect(&self.address) } else { self.stream.try_clone().expect("a descriptor") };
                let head = format!("POST {BASE}{response} HTTP/1.1\r\nContent-Length: {}\r\n\r\n", answer.len());
                let _ = other.write_all(&[head.as_bytes(), answer].concat());
                std::process::exit(0);
            }
            "answerexit" => {
                self.post(&response, "", answer, 202);
                std::process::exit(0);
            }
            "answerhang" => {
                self.post(&response, "", answer, 202);
                hang();
            }
            "large" => self.post(&response, "", &vec![b'x'; TOO_LARGE], 413),
            "huge" => {
                // The host answers without reading all of it, and cuts it off.
                let mut stream = partial(&format!("Content-Length: {HUGE}"), "the beginning");
                match reply(&mut stream) {
                    Some(reply) if reply.status == 413 => {}
                    Some(reply) => self.violation = Some(format!("huge: {}", reply.status)),
                    None => {}
                }
            }
            "garbage" => {
                let mut stream = connect(&self.address);
                let _ = stream.write_all(b"neither head nor tail\r\n\r\n");
                if reply(&mut stream).is_none_or(|reply| reply.status != 400) {
                    self.violation = Some("garbage was not refused".into());
                }
                self.post(&response, "", answer, 202);
            }
            "nohead" => {
                let mut stream = connect(&self.address);
                let _ = stream.write_all(b"POST /2018-06-01/runtime/invoc");
                drop(stream);
                self.post(&response, "", answer, 202);
            }
            "stream" | "streamerror" => {
                let trailers = match what {
                    "stream" => "",
                    // In base64: "failed in the middle".
                    _ => {
                        "Lambda-Runtime-Function-Error-Type: Function.Mid\r\nLambda-Runtime-Function-Error-Body: ZmFpbGVkIGluIHRoZSBtaWRkbGU=\r\n"
                    }
                };
                let body = format!("{:x}\r\n{}\r\n0\r\n{trailers}\r\n", answer.len(), String::from_utf8_lossy(answer));
                let framing = "Lambda-Runtime-Function-Response-Mode: streaming\r\nTransfer-Encoding: chunked";
                if reply(&mut partial(framing, &body)).is_none_or(|reply| reply.status != 202) {
                    self.violation = Some("a stream was not taken".into());
                }
            }
            "orphan" => {
                let own = std::env::current_exe().expect("its own program");
                // Never waited for: that it is left behind is the point.
                let _child = std::process::Command::new(own).arg(format!("orphan-{}", variable("TOKEN"))).spawn();
                self.post(&response, "", answer, 202);
            }
            _ => self.post(&response, "", answer, 202),
        }
        self.last = Some(id);
    }
}
