//! Connections to one endpoint: kept between calls, one exchange at a time on each.
//!
//! A client of our own and not hyper's pooled one, for this one shape of request: an exchange is one write and one read in
//! the task that waits for it, without a task of its own, a channel or a queue in between. Measured beside hyper's client
//! with 16 calls in flight: 2 to 4 µs of processor time a call less. Decision 0031 has the figures.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::BytesMut;
use longshore_wire::answer::{Answer, AnswerReader, BadAnswer};
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::{self, Handle};
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

use super::NoAnswer;
use crate::endpoints::Place;
use crate::tls;

/// For all addresses of a name together.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// Connections are given up unused after this, before the other side closes them (AWS after about 20 s).
const IDLE_MAX: Duration = Duration::from_secs(15);
/// Connections kept unused. Each carried a call a moment ago, and the engine has no more calls under way by default.
const KEPT_MAX: usize = 1_000;
/// An answer may take a quarter of an hour, and what stands between forgets silent connections after about 350 s (AWS) or
/// less: so often TCP says that both ends are still there.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Read at once, at least. An answer of Lambda's, head and all, has a fraction of it.
const READ_BYTES: usize = 4 * 1024;
/// A connection keeps its buffers unless an exchange made them larger than this.
const BUFFER_KEPT_MAX: usize = 32 * 1024;

/// See the module. Contacts nobody until the first exchange.
pub struct Connections {
    host: String,
    port: u16,
    /// With whom TLS is spoken; `None` for plain HTTP.
    tls: Option<Arc<ClientConfig>>,
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    /// The one used last at the end.
    kept: VecDeque<Kept>,
    /// Whether somebody closes those that nobody needs.
    swept: bool,
}

struct Kept {
    connection: Connection,
    used: Instant,
    /// Whose reactor tells of it. On another a call would wait for two threads instead of one.
    runtime: runtime::Id,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

struct Connection {
    stream: Stream,
    input: BytesMut,
    output: Vec<u8>,
}

impl Connections {
    /// `trusted` is needed where the place is encrypted.
    pub fn new(place: &Place, trusted: Option<Arc<ClientConfig>>) -> Arc<Self> {
        let tls = trusted.filter(|_| place.encrypted);
        Arc::new(Self { host: place.host.clone(), port: place.port, tls, idle: Mutex::default() })
    }

    /// One request, which `write` appends, and its answer with a body of at most `body_max` bytes. Dropping the future
    /// closes the connection.
    ///
    /// Nothing is sent twice: another connection is taken only where a kept one turns out to be closed before the whole
    /// request was taken, so that nobody can have acted on it.
    pub async fn exchange(
        self: &Arc<Self>,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), NoAnswer>,
        body_max: usize,
    ) -> Result<Answer, NoAnswer> {
        let (mut connection, kept) = match self.kept() {
            Some(connection) => (connection, true),
            None => (self.connect().await?, false),
        };
        write(&mut connection.output)?;
        match connection.send().await {
            Ok(()) => {}
            Err(_) if kept => {
                let output = std::mem::take(&mut connection.output);
                connection = self.connect().await?;
                connection.output = output;
                connection.send().await.map_err(broken)?;
            }
            Err(error) => return Err(broken(error)),
        }
        let answer = connection.receive(body_max).await?;
        if answer.reusable {
            self.keep(connection);
        }
        Ok(answer)
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection used last on this runtime that the other side has not closed.
    fn kept(&self) -> Option<Connection> {
        let here = Handle::current().id();
        loop {
            let mut idle = self.idle();
            let last = idle.kept.iter().rposition(|kept| kept.runtime == here)?;
            let kept = idle.kept.remove(last);
            drop(idle);
            if let Some(Kept { mut connection, .. }) = kept
                && connection.is_alive()
            {
                return Some(connection);
            }
        }
    }

    fn keep(self: &Arc<Self>, mut connection: Connection) {
        connection.output.clear();
        if connection.input.capacity() > BUFFER_KEPT_MAX {
            connection.input = BytesMut::new();
        }
        if connection.output.capacity() > BUFFER_KEPT_MAX {
            connection.output = Vec::new();
        }
        let mut idle = self.idle();
        if idle.kept.len() < KEPT_MAX {
            idle.kept.push_back(Kept { connection, used: Instant::now(), runtime: Handle::current().id() });
        }
        if !idle.swept {
            idle.swept = true;
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    async fn connect(&self) -> Result<Connection, NoAnswer> {
        let connected = tokio::time::timeout(CONNECT_TIME_MAX, self.connect_somehow()).await;
        let stream =
            connected.unwrap_or_else(|_| Err(format!("no connection within {} s", CONNECT_TIME_MAX.as_secs())))?;
        Ok(Connection { stream, input: BytesMut::new(), output: Vec::new() })
    }

    /// The first of the name's addresses that takes a connection: each has an even share of the time.
    async fn connect_somehow(&self) -> Result<Stream, NoAnswer> {
        let looked_up = tokio::net::lookup_host((self.host.as_str(), self.port)).await.map_err(broken)?;
        let addresses: Vec<_> = looked_up.collect();
        let share = CONNECT_TIME_MAX / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
        let mut failed = "the name has no address".to_owned();
        for address in addresses {
            match tokio::time::timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return self.speak(stream).await,
                Ok(Err(error)) => failed = broken(error),
                Err(_) => failed = format!("no connection within {} ms", share.as_millis()),
            }
        }
        Err(failed)
    }

    async fn speak(&self, stream: TcpStream) -> Result<Stream, NoAnswer> {
        let set = stream.set_nodelay(true).and_then(|()| {
            rustix::net::sockopt::set_socket_keepalive(&stream, true)?;
            Ok(rustix::net::sockopt::set_tcp_keepidle(&stream, KEEPALIVE)?)
        });
        set.map_err(broken)?;
        match &self.tls {
            None => Ok(Stream::Plain(stream)),
            Some(config) => {
                let spoken = tls::handshake(stream, &self.host, Arc::clone(config)).await;
                Ok(Stream::Tls(Box::new(spoken.map_err(|error| error.to_string())?)))
            }
        }
    }
}

/// Closes connections that nobody has used for a while, until there are none.
async fn sweep(connections: Weak<Connections>) {
    loop {
        tokio::time::sleep(IDLE_MAX).await;
        let Some(connections) = connections.upgrade() else { return };
        let mut idle = connections.idle();
        let old = idle.kept.partition_point(|kept| kept.used.elapsed() >= IDLE_MAX);
        idle.kept.drain(..old);
        if idle.kept.is_empty() {
            idle.swept = false;
            return;
        }
    }
}

fn broken(error: impl std::fmt::Display) -> NoAnswer {
    error.to_string()
}

impl Connection {
    /// Whether nothing has come since the last answer, neither bytes nor the end. Costs no system call while nothing has.
    fn is_alive(&mut self) -> bool {
        let mut nobody = Context::from_waker(Waker::noop());
        let tcp = match &self.stream {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => stream.get_ref().0,
        };
        if tcp.poll_read_ready(&mut nobody).is_pending() {
            return true;
        }
        let mut byte = [0];
        let mut into = ReadBuf::new(&mut byte);
        // Of TLS, something may have come that is nothing to us: a session's ticket.
        let read = match &mut self.stream {
            Stream::Plain(stream) => std::pin::Pin::new(stream).poll_read(&mut nobody, &mut into),
            Stream::Tls(stream) => std::pin::Pin::new(&mut **stream).poll_read(&mut nobody, &mut into),
        };
        read.is_pending()
    }

    /// Hands the request over to the kernel, in one system call if it takes it.
    async fn send(&mut self) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(&self.output).await,
            Stream::Tls(stream) => {
                stream.write_all(&self.output).await?;
                stream.flush().await
            }
        }
    }

    async fn receive(&mut self, body_max: usize) -> Result<Answer, NoAnswer> {
        let mut reader = AnswerReader::new(body_max);
        loop {
            self.input.reserve(READ_BYTES);
            let read = match &mut self.stream {
                Stream::Plain(stream) => stream.read_buf(&mut self.input).await,
                Stream::Tls(stream) => stream.read_buf(&mut self.input).await,
            };
            match read {
                Ok(0) => return reader.end(&mut self.input).map_err(broken),
                Ok(_) => {}
                // Many servers of TLS do not say farewell. Without a length an answer's end would then be anybody's guess.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(broken(BadAnswer::BrokenOff)),
                Err(error) => return Err(format!("the answer broke off: {error}")),
            }
            if let Some(answer) = reader.read(&mut self.input).map_err(broken)? {
                return Ok(answer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::net::TcpListener;

    const BODY_MAX: usize = 64;

    /// Somebody who gives these answers, each to one request, and then goes on reading; `|` ends a connection behind the
    /// answer before it. Counts connections.
    async fn somebody(answers: &'static [&'static str]) -> (Arc<Connections>, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = Place::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        tokio::spawn(async move {
            let mut answers = answers.iter();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
                let mut request = [0; 1_024];
                while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                    let Some(answer) = answers.next() else { continue };
                    stream.write_all(answer.trim_end_matches('|').as_bytes()).await.unwrap();
                    if answer.ends_with('|') {
                        break;
                    }
                }
            }
        });
        (Connections::new(&place, None), count)
    }

    async fn ask(connections: &Arc<Connections>) -> Result<(u16, Option<String>), NoAnswer> {
        let write = |out: &mut Vec<u8>| {
            out.extend_from_slice(b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n");
            Ok(())
        };
        let answer = connections.exchange(write, BODY_MAX).await?;
        Ok((answer.head.status, answer.body.map(|body| String::from_utf8(body.to_vec()).unwrap())))
    }

    fn said(status: u16, body: &str) -> Result<(u16, Option<String>), NoAnswer> {
        Ok((status, Some(body.to_owned())))
    }

    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

    #[tokio::test]
    async fn one_call_after_another_goes_over_one_connection_and_those_at_once_over_one_each() {
        let (connections, count) = somebody(&[OK, OK, OK]).await;
        for _ in 0..3 {
            assert_eq!(ask(&connections).await, said(200, "{}"));
        }
        assert_eq!((count.load(Ordering::Relaxed), connections.idle().kept.len()), (1, 1));
    }

    #[tokio::test]
    async fn a_connection_that_was_closed_meanwhile_is_not_written_to() {
        const CLOSED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}|";
        const CLOSES: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}|";
        let (connections, count) = somebody(&[CLOSED, CLOSES, OK, OK]).await;
        assert_eq!(ask(&connections).await, said(200, "{}"));
        // The farewell has arrived before the next call.
        let closed = async {
            while connections.idle().kept.iter_mut().all(|kept| kept.connection.is_alive()) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), closed).await.unwrap();
        assert_eq!(ask(&connections).await, said(200, "{}"));
        assert_eq!(
            (count.load(Ordering::Relaxed), connections.idle().kept.len()),
            (2, 0),
            "it said that it would close"
        );
        assert_eq!(ask(&connections).await, said(200, "{}"));
        assert_eq!(ask(&connections).await, said(200, "{}"));
        assert_eq!(count.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_or_is_too_long_or_leads_elsewhere_is_told_as_such() {
        const SHORT: &str = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}|";
        const NONE: &str = "|";
        const ODD: &str = "220 smtp.example.org ESMTP\r\n";
        const LONG: &str = "HTTP/1.1 200 OK\r\ncontent-length: 65\r\n\r\n";
        const ELSEWHERE: &str = "HTTP/1.1 307 There\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
        let (connections, count) = somebody(&[SHORT, NONE, ODD, LONG, ELSEWHERE]).await;
        assert_eq!(ask(&connections).await, Err("the answer broke off".into()));
        assert_eq!(ask(&connections).await, Err("the connection was closed without an answer".into()));
        assert_eq!(ask(&connections).await, Err("the answer is no HTTP/1.1".into()));
        assert_eq!(ask(&connections).await, Ok((200, None)));
        assert_eq!(ask(&connections).await, said(307, ""));
        assert_eq!((count.load(Ordering::Relaxed), connections.idle().kept.len()), (5, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn connections_that_nobody_needs_are_closed_after_a_while() {
        let (connections, _) = somebody(&[OK, OK]).await;
        ask(&connections).await.unwrap();
        assert!(connections.idle().swept);
        tokio::time::sleep(IDLE_MAX - Duration::from_millis(10)).await;
        assert_eq!(connections.idle().kept.len(), 1);
        tokio::time::sleep(IDLE_MAX).await;
        let idle = connections.idle();
        assert_eq!((idle.kept.len(), idle.swept), (0, false));
    }
}
