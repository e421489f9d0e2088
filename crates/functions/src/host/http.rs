//! HTTP/1.1 as the clients of the Runtime API speak it: heads, bodies, chunks with trailers, over one connection.
//!
//! A server of our own and not hyper's, for this one protocol of five routes: an invocation is two small exchanges, and
//! reading both in one wake-up and writing once is most of what the host can save (measured: 20 against 26 to 42
//! microseconds of processor time an invocation). The peer is a function, so it is not trusted: everything it can make
//! us keep is bounded here.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The largest head. Python's and Node's clients send up to 1 MiB of X-Ray cause in one header; the rest is slack.
const HEAD_BYTES_MAX: usize = 2 * 1024 * 1024;
/// The part of a head that every connection may have. What is more comes out of the environment's [`HeadBudget`].
const HEAD_BYTES_FREE: usize = 16 * 1024;
/// All large heads of one environment together: a runtime has one connection that sends an error at a time.
const HEAD_BYTES_SHARED: usize = 4 * 1024 * 1024;
/// Headers in a head. Clients send about ten.
const HEADERS_MAX: usize = 128;
/// What is read and thrown away of a body that is refused, so that the client sees the refusal and not a broken
/// connection. A client that sends more is cut off.
const DISCARD_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// A line that announces a chunk, or a trailer line.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// All trailer lines of a body: AWS's error trailer holds a base64 JSON document.
const TRAILER_BYTES_MAX: usize = 512 * 1024;
/// Bytes that a client may send ahead of its answer.
pub(super) const PIPELINED_BYTES_MAX: usize = 64 * 1024;

/// Memory for large heads, shared by the connections of one environment.
#[derive(Debug, Default)]
pub(super) struct HeadBudget {
    used: AtomicUsize,
}

/// A part of the budget, given back when dropped.
struct HeadShare {
    budget: Arc<HeadBudget>,
    bytes: usize,
}

impl HeadShare {
    fn grow(&mut self, to: usize) -> bool {
        if to <= self.bytes {
            return true;
        }
        let more = to - self.bytes;
        if self.budget.used.fetch_add(more, Ordering::Relaxed) + more > HEAD_BYTES_SHARED {
            self.budget.used.fetch_sub(more, Ordering::Relaxed);
            return false;
        }
        self.bytes = to;
        true
    }
}

impl Drop for HeadShare {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What a connection ends with.
#[derive(Debug)]
pub(super) enum Broken {
    /// The peer closed between two requests: the ordinary end.
    Closed,
    /// The connection ended inside a request.
    Truncated,
    /// The request is not one that this server takes; answer with the status and close.
    Malformed(u16, &'static str),
    Io(#[expect(dead_code, reason = "shown by Debug")] io::Error),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Broken::Io(error)
    }
}

/// The parts of a request's head that the Runtime API knows.
#[derive(Debug, Default)]
pub(super) struct Head {
    pub method: Method,
    pub path: Bytes,
    pub body: BodyLength,
    pub keep_alive: bool,
    pub expects_continue: bool,
    pub content_type: Option<Bytes>,
    /// `Lambda-Runtime-Function-Response-Mode`
    pub response_mode: Option<Bytes>,
    /// `Lambda-Runtime-Function-Error-Type`
    pub error_type: Option<Bytes>,
    /// `Lambda-Runtime-Invocation-Id`
    pub attempt_id: Option<Bytes>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Method {
    Get,
    Post,
    #[default]
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyLength {
    Bytes(u64),
    Chunked,
}

impl Default for BodyLength {
    fn default() -> Self {
        BodyLength::Bytes(0)
    }
}

/// A body that was read to its end.
#[derive(Debug)]
pub(super) enum Body {
    Whole {
        bytes: Bytes,
        trailers: Trailers,
    },
    /// More than was asked for; what came was thrown away. Not `drained`: there is more of it than is worth reading,
    /// so that nothing can follow it on this connection.
    TooLarge {
        drained: bool,
    },
}

/// The two trailers of a streamed response.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Trailers {
    /// `Lambda-Runtime-Function-Error-Type`
    pub error_type: Option<String>,
    /// `Lambda-Runtime-Function-Error-Body`: base64.
    pub error_body: Option<String>,
}

/// One connection: what was read and not yet used, and what is to be written.
pub(super) struct Connection {
    stream: TcpStream,
    input: BytesMut,
    output: Vec<u8>,
    budget: Arc<HeadBudget>,
}

impl Connection {
    pub fn new(stream: TcpStream, budget: Arc<HeadBudget>) -> Self {
        Self { stream, input: BytesMut::with_capacity(4096), output: Vec::with_capacity(512), budget }
    }

    /// Puts bytes behind what is still to be written. They are written with the next [`Connection::flush`], which
    /// reading does by itself before it waits.
    pub fn put(&mut self, bytes: &[u8]) {
        self.output.extend_from_slice(bytes);
    }

    pub async fn flush(&mut self) -> io::Result<()> {
        if !self.output.is_empty() {
            self.stream.write_all(&self.output).await?;
            self.output.clear();
        }
        Ok(())
    }

    /// Writes what is put so far and these two, in one system call if the peer takes it.
    pub async fn flush_with(&mut self, head: &Bytes, body: &Bytes) -> io::Result<()> {
        if body.is_empty() {
            self.output.extend_from_slice(head);
            return self.flush().await;
        }
        let mut all = Buf::chain(Buf::chain(self.output.as_slice(), &head[..]), &body[..]);
        self.stream.write_all_buf(&mut all).await?;
        self.output.clear();
        self.stream.flush().await
    }

    /// Reads more input, after writing what is to be written. 0 is the end.
    async fn read_more(&mut self) -> Result<usize, Broken> {
        self.flush().await?;
        Ok(self.stream.read_buf(&mut self.input).await?)
    }

    /// Waits until the peer closes the connection. What it sends ahead is kept; it waits without reading once that is
    /// [`PIPELINED_BYTES_MAX`]. Safe to drop at any point.
    pub async fn closed(&mut self) {
        loop {
            if self.input.len() >= PIPELINED_BYTES_MAX {
                return std::future::pending().await;
            }
            match self.stream.read_buf(&mut self.input).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    /// The next request's head.
    pub async fn head(&mut self) -> Result<Head, Broken> {
        let mut searched = 0;
        let mut share = HeadShare { budget: self.budget.clone(), bytes: 0 };
        loop {
            // Tolerates empty lines before a request, as the standard asks.
            while searched == 0 && self.input.starts_with(b"\r\n") {
                self.input.advance(2);
            }
            if let Some(end) = end_of_head(&self.input, searched) {
                // One read may bring the end together with much too much before it.
                if end > HEAD_BYTES_MAX {
                    return Err(Broken::Malformed(431, "Request header fields too large"));
                }
                let bytes = self.input.split_to(end).freeze();
                return parse(&bytes);
            }
            searched = self.input.len().saturating_sub(3);
            if self.input.len() > HEAD_BYTES_MAX || !share.grow(self.input.len().saturating_sub(HEAD_BYTES_FREE)) {
                return Err(Broken::Malformed(431, "Request header fields too large"));
            }
            if self.read_more().await? == 0 {
                return Err(if self.input.is_empty() { Broken::Closed } else { Broken::Truncated });
            }
        }
    }

    /// Reads a body of at most `bytes_max`. A larger one is read and dropped, within bounds.
    pub async fn body(&mut self, head: &Head, bytes_max: usize) -> Result<Body, Broken> {
        if head.expects_continue && head.body != BodyLength::Bytes(0) {
            self.put(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        match head.body {
            BodyLength::Bytes(length) if length <= bytes_max as u64 => {
                let bytes = self.exactly(length as usize).await?;
                Ok(Body::Whole { bytes, trailers: Trailers::default() })
            }
            BodyLength::Bytes(length) => {
                let drained = length <= DISCARD_BYTES_MAX;
                if drained {
                    self.discard(length).await?;
                }
                Ok(Body::TooLarge { drained })
            }
            BodyLength::Chunked => self.chunks(bytes_max).await,
        }
    }

    /// Reads a body that nobody wants, so that the client sees the answer and not a broken connection.
    pub async fn skip_body(&mut self, head: &Head) -> Result<(), Broken> {
        match self.body(head, 0).await? {
            Body::TooLarge { drained: false } => Err(Broken::Malformed(413, "Request entity too large")),
            Body::TooLarge { drained: true } | Body::Whole { .. } => Ok(()),
        }
    }

    async fn exactly(&mut self, length: usize) -> Result<Bytes, Broken> {
        // Reserved as it arrives, not as it is announced.
        while self.input.len() < length {
            let missing = length - self.input.len();
            self.input.reserve(missing.min(256 * 1024));
            if self.read_more().await? == 0 {
                return Err(Broken::Truncated);
            }
        }
        Ok(self.input.split_to(length).freeze())
    }

    async fn discard(&mut self, length: u64) -> Result<(), Broken> {
        let mut left = length;
        loop {
            let now = self.input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.input.advance(now);
            left -= now as u64;
            if left == 0 {
                return Ok(());
            }
            if self.read_more().await? == 0 {
                return Err(Broken::Truncated);
            }
        }
    }

    async fn chunks(&mut self, bytes_max: usize) -> Result<Body, Broken> {
        let mut collected = BytesMut::new();
        let mut total: u64 = 0;
        loop {
            let line = self.line().await?;
            let digits = line.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
            let size = std::str::from_utf8(digits)
                .ok()
                .filter(|s| !s.is_empty() && s.len() <= 8 && s.bytes().all(|b| b.is_ascii_hexdigit()))
                .and_then(|s| u64::from_str_radix(s, 16).ok())
                .ok_or(Broken::Malformed(400, "Malformed chunk size"))?;
            if size == 0 {
                break;
            }
            total += size;
            if total <= bytes_max as u64 {
                let chunk = self.exactly(size as usize).await?;
                collected.extend_from_slice(&chunk);
            } else {
                collected = BytesMut::new();
                if total > DISCARD_BYTES_MAX {
                    return Ok(Body::TooLarge { drained: false });
                }
                self.discard(size).await?;
            }
            if !self.line().await?.is_empty() {
                return Err(Broken::Malformed(400, "Malformed chunk"));
            }
        }
        let mut trailers = Trailers::default();
        let mut trailer_bytes = 0;
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                break;
            }
            trailer_bytes += line.len();
            if trailer_bytes > TRAILER_BYTES_MAX {
                return Err(Broken::Malformed(431, "Trailers too large"));
            }
            let Some(colon) = line.iter().position(|b| *b == b':') else {
                return Err(Broken::Malformed(400, "Malformed trailer"));
            };
            let value = || Some(String::from_utf8_lossy(line[colon + 1..].trim_ascii()).into_owned());
            if line[..colon].eq_ignore_ascii_case(b"lambda-runtime-function-error-type") {
                trailers.error_type = value();
            } else if line[..colon].eq_ignore_ascii_case(b"lambda-runtime-function-error-body") {
                trailers.error_body = value();
            }
        }
        if total > bytes_max as u64 {
            return Ok(Body::TooLarge { drained: true });
        }
        Ok(Body::Whole { bytes: collected.freeze(), trailers })
    }

    /// One line without its end.
    async fn line(&mut self) -> Result<Bytes, Broken> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.input[searched..].iter().position(|b| *b == b'\n') {
                let mut line = self.input.split_to(searched + at + 1).freeze();
                line.truncate(line.len() - 1);
                if line.ends_with(b"\r") {
                    line.truncate(line.len() - 1);
                }
                return Ok(line);
            }
            searched = self.input.len();
            if searched > LINE_BYTES_MAX.max(TRAILER_BYTES_MAX) {
                return Err(Broken::Malformed(431, "Line too long"));
            }
            if self.read_more().await? == 0 {
                return Err(Broken::Truncated);
            }
        }
    }
}

/// Where the head ends, if it does. `from` is where the last search stopped, so that a head that arrives byte by byte
/// costs no more than its length.
fn end_of_head(input: &[u8], from: usize) -> Option<usize> {
    input[from..].windows(4).position(|w| w == b"\r\n\r\n").map(|at| from + at + 4)
}

fn parse(bytes: &Bytes) -> Result<Head, Broken> {
    let malformed = |what| Err(Broken::Malformed(400, what));
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Broken::Malformed(431, "Request header fields too large"));
        }
        Ok(httparse::Status::Partial) | Err(_) => return malformed("Malformed request"),
    }
    let mut head = Head {
        method: match request.method {
            Some("GET") => Method::Get,
            Some("POST") => Method::Post,
            _ => Method::Other,
        },
        path: bytes.slice_ref(request.path.unwrap_or_default().as_bytes()),
        keep_alive: request.version == Some(1),
        ..Head::default()
    };
    let (mut length, mut chunked) = (None, false);
    for header in request.headers.iter() {
        let value = header.value.trim_ascii();
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        // By length first: ten comparisons a header are what parsing would cost most.
        match header.name.len() {
            14 if is("content-length") => {
                let n = std::str::from_utf8(value)
                    .ok()
                    .filter(|s| s.bytes().all(|b| b.is_ascii_digit()))
                    .and_then(|s| s.parse::<u64>().ok());
                let Some(n) = n else { return malformed("Malformed Content-Length") };
                if length.is_some_and(|length| length != n) {
                    return malformed("Two lengths");
                }
                length = Some(n);
            }
            17 if is("transfer-encoding") => {
                if !value.eq_ignore_ascii_case(b"chunked") || chunked {
                    return malformed("Unknown Transfer-Encoding");
                }
                chunked = true;
            }
            10 if is("connection") => {
                for token in value.split(|b| *b == b',') {
                    if token.trim_ascii().eq_ignore_ascii_case(b"close") {
                        head.keep_alive = false;
                    } else if token.trim_ascii().eq_ignore_ascii_case(b"keep-alive") {
                        head.keep_alive = true;
                    }
                }
            }
            6 if is("expect") => head.expects_continue = value.eq_ignore_ascii_case(b"100-continue"),
            12 if is("content-type") => head.content_type = Some(bytes.slice_ref(value)),
            28 if is("lambda-runtime-invocation-id") => head.attempt_id = Some(bytes.slice_ref(value)),
            34 if is("lambda-runtime-function-error-type") => head.error_type = Some(bytes.slice_ref(value)),
            37 if is("lambda-runtime-function-response-mode") => head.response_mode = Some(bytes.slice_ref(value)),
            _ => {}
        }
    }
    head.body = match (length, chunked) {
        // The two together are how requests are smuggled.
        (Some(_), true) => return malformed("Content-Length and Transfer-Encoding"),
        (Some(length), false) => BodyLength::Bytes(length),
        (None, true) => BodyLength::Chunked,
        (None, false) => BodyLength::Bytes(0),
    };
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(head: &str) -> Result<Head, Broken> {
        parse(&Bytes::from(head.to_owned()))
    }

    #[test]
    fn header_names_are_taken_in_any_case() {
        let head = parsed(
            "POST /x HTTP/1.1\r\nCONTENT-LENGTH: 5\r\nlambda-runtime-INVOCATION-id: a\r\nLambda-Runtime-Function-Response-Mode: streaming\r\nlambda-runtime-function-error-type: unhandled\r\nConnection: Keep-Alive, close\r\n\r\n",
        )
        .unwrap();
        assert_eq!((head.method, &head.path[..], head.body), (Method::Post, &b"/x"[..], BodyLength::Bytes(5)));
        assert_eq!(head.attempt_id.unwrap(), "a");
        assert_eq!(head.response_mode.unwrap(), "streaming");
        assert_eq!(head.error_type.unwrap(), "unhandled");
        assert!(!head.keep_alive);
    }

    #[tokio::test]
    async fn a_head_that_is_too_large_is_refused_also_when_its_end_came_with_the_last_read() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, server) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let mut connection = Connection::new(server.unwrap().0, Arc::default());
        connection.input.extend_from_slice(b"GET /x HTTP/1.1\r\nA: ");
        connection.input.resize(HEAD_BYTES_MAX, b'b');
        connection.input.extend_from_slice(b"\r\n\r\n");
        assert!(matches!(connection.head().await, Err(Broken::Malformed(431, _))));
        drop(client);
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for bad in [
            "POST /x HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST /x HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "POST /x HTTP/1.1\r\nContent-Length: +5\r\n\r\n",
            "POST /x HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "POST /x HTTP/1.1\r\nContent-Length : 5\r\n\r\n",
            "no request\r\n\r\n",
        ] {
            assert!(matches!(parsed(bad), Err(Broken::Malformed(400, _))), "{bad:?}");
        }
    }
}
