//! The socket: who may connect, how slow a client may be, and how it all stops.
//!
//! An accept loop of our own on hyper's HTTP/1.1, because a ready-made server has no cap on connections and no time-out
//! on what a client leaves unsaid. What a request means is [`crate::dispatch`]'s business.
//! Source: promise 4.4, item 14; `docs/decisions/0046-whoever-is-silent-longest-makes-room.md`.

mod head;
mod room;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, Sleep};

use self::head::Head;
use self::room::Room;
pub use self::room::Seats;
use crate::tls::Presented;

/// From the first byte of a request to the end of its headers.
const HEADER_TIME_MAX: Duration = Duration::from_secs(10);
/// Between two requests on one connection, and for a client that reads nothing of an answer.
const IDLE_TIME_MAX: Duration = Duration::from_secs(60);
/// A body may be slow for this long; after that it must have come at [`BODY_BYTES_PER_SECOND_MIN`] on average.
const BODY_GRACE: Duration = Duration::from_secs(30);
const BODY_BYTES_PER_SECOND_MIN: u64 = 1_024;
/// Request line and headers together. AWS clients send two or three KiB; a long key and a session token add some.
const HEADER_BYTES_MAX: usize = 64 * 1024;
const HEADERS_MAX: usize = 100;
/// What hyper may hold of one connection in memory: the headers, or a piece of a body.
const BUFFER_BYTES_MAX: usize = 256 * 1024;

/// The body of an answer: from memory, or streamed from a file.
pub type AnswerBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;
pub type Answer = http::Response<AnswerBody>;

/// Answers one request. It never fails: what goes wrong is an answer too.
pub trait Service: Send + Sync + 'static {
    fn answer(&self, request: http::Request<RequestBody>) -> impl Future<Output = Answer> + Send;
}

/// How a request came here, as its extension. Of the socket alone: what a header says of it is anybody's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// The other end of the socket.
    pub peer: SocketAddr,
    /// The version of TLS that it came over, `1.3`; `None`: in the clear.
    pub tls: Option<&'static str>,
}

impl Connection {
    pub fn is_secure(&self) -> bool {
        self.tls.is_some()
    }
}

/// The place that a request's connection has among all, as its extension.
#[derive(Debug, Clone)]
pub struct Place(Arc<Phase>);

impl Place {
    /// Only the refusal is left, and a body that nobody wants: while it is read and thrown away, the connection may have to make room.
    pub fn give_up(&self) {
        self.0.set(Phase::REFUSED);
    }
}

/// Serves until `stop` becomes true, then lets requests under way end for at most `stop_time`. With `tls`, whoever connects has to
/// speak it.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Presented>>,
    service: Arc<impl Service>,
    seats: Seats,
    mut stop: watch::Receiver<bool>,
    stop_time: Duration,
) {
    let room = Room::new(seats);
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = asked(&mut stop) => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                // On a socket for both families, an IPv4 address comes in the clothes of an IPv6 one.
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                // Whoever comes while all are being answered waits here, and behind it the kernel's queue.
                let seat = tokio::select! {
                    biased;
                    () = asked(&mut stop) => break,
                    seat = room.seat(peer.ip()) => seat,
                };
                let Some(seat) = seat else {
                    tracing::debug!(%peer, "connection closed, as many from there are being answered");
                    continue;
                };
                // Answers are written whole; waiting to fill a packet would only delay their end.
                let _ = stream.set_nodelay(true);
                let how = Connection { peer, tls: None };
                let (tls, service, stop) = (tls.clone(), service.clone(), stop.clone());
                connections.spawn(async move {
                    let phase = seat.phase();
                    match tls {
                        None => connection(stream, how, phase, service, stop).await,
                        Some(tls) => {
                            if let Some(stream) = shaken_hands(&tls, stream, how, &phase).await {
                                let how = Connection { tls: Some(version(&stream)), ..how };
                                connection(stream, how, phase, service, stop).await;
                            }
                        }
                    }
                    drop(seat);
                });
            }
            // Out of file descriptors, or a client that was gone before it was accepted. The first passes when a
            // connection ends; without a pause the loop would spin until then.
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(stop_time, all_ended).await.is_err() {
        tracing::warn!("requests still under way were cut off");
    }
}

/// The connection as TLS has it; `None` for a client that speaks something else, or says nothing.
async fn shaken_hands(
    tls: &Presented,
    stream: TcpStream,
    how: Connection,
    phase: &Phase,
) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
    // As long as a head may take, from the beginning: whoever connects is to speak first.
    phase.set(Phase::HEADERS);
    let shaken = tokio::select! {
        shaken = tls.acceptor().accept(stream) => shaken,
        () = phase.lasts_too_long() => {
            tracing::debug!(peer = %how.peer, "connection closed, its client did not finish the TLS handshake in time");
            return None;
        }
    };
    match shaken {
        Ok(stream) => {
            phase.set(Phase::IDLE);
            Some(stream)
        }
        Err(error) => {
            tracing::debug!(peer = %how.peer, %error, "connection closed, there was no TLS with its client");
            None
        }
    }
}

/// As `s3:TlsVersion` has it. Older ones than 1.2 are spoken with nobody.
fn version(stream: &tokio_rustls::server::TlsStream<TcpStream>) -> &'static str {
    match stream.get_ref().1.protocol_version() {
        Some(tokio_rustls::rustls::ProtocolVersion::TLSv1_3) => "1.3",
        _ => "1.2",
    }
}

/// Waits until `stop` is true, or until nobody could say so any more.
async fn asked(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn connection<S>(
    stream: S,
    how: Connection,
    phase: Arc<Phase>,
    service: Arc<impl Service>,
    mut stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let watched = phase.clone();
    let stream = TokioIo::new(TimedStream::new(stream, phase.clone()));
    let serve = hyper::service::service_fn(move |mut request: http::Request<Incoming>| {
        let begun = phase.set(Phase::REQUEST);
        request.extensions_mut().insert(how);
        request.extensions_mut().insert(Place(phase.clone()));
        let (service, phase) = (service.clone(), phase.clone());
        async move {
            if !begun {
                // It has to make room, and is about to be dropped: nothing may begin that nobody would be told of.
                return std::future::pending().await;
            }
            if phase.framed_twice.load(Ordering::Relaxed) {
                return Ok(EndSeen::new(refused_as_framed_twice(), phase));
            }
            let answer = service.answer(request.map(RequestBody::new)).await;
            Ok::<_, std::convert::Infallible>(EndSeen::new(answer, phase))
        }
    });
    let mut connection = pin!(
        hyper::server::conn::http1::Builder::new()
            .max_buf_size(BUFFER_BYTES_MAX)
            .max_header_size(HEADER_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            // hyper's own time-out would count the idle time between two requests in.
            .header_read_timeout(None)
            .serve_connection(stream, serve)
    );
    let served = async {
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = asked(&mut stop) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    let ended = tokio::select! {
        ended = served => ended,
        () = watched.lasts_too_long() => {
            tracing::debug!(peer = %how.peer, secure = how.is_secure(), "connection closed, its client was silent too long, or others needed its place");
            return;
        }
    };
    if let Err(error) = ended {
        tracing::debug!(peer = %how.peer, secure = how.is_secure(), %error, "connection broke off");
    }
}

/// As hyper answers what else may be read in two ways: no word, and nothing more is read.
fn refused_as_framed_twice() -> Answer {
    let mut answer = http::Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *answer.status_mut() = http::StatusCode::BAD_REQUEST;
    answer.headers_mut().insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
    answer
}

/// What a connection is waiting for, and since when.
#[derive(Debug)]
struct Phase {
    now: watch::Sender<(u8, Instant)>,
    /// Whether the head of the request under way says in two ways how long its body is.
    framed_twice: AtomicBool,
    /// Told whenever a connection is not being answered any more: somebody may want its place.
    idle: Arc<Notify>,
}

impl Phase {
    /// No byte of a next request has come.
    const IDLE: u8 = 0;
    /// Some bytes have, but not all headers.
    const HEADERS: u8 = 1;
    /// A request is being answered. Its body has its own measure, and the answer may take as long as a function runs.
    const REQUEST: u8 = 2;
    /// Somebody else has its place. Nothing follows.
    const GONE: u8 = 3;
    /// A request is refused, and what is left of its body is read and thrown away, for some seconds at most.
    const REFUSED: u8 = 4;

    fn new(idle: Arc<Notify>) -> Self {
        Self { now: watch::Sender::new((Self::IDLE, Instant::now())), framed_twice: AtomicBool::new(false), idle }
    }

    /// Whether the connection goes on: it may have had to make room.
    fn set(&self, phase: u8) -> bool {
        let goes_on = self.now.send_if_modified(|(now, since)| {
            let goes_on = *now != Self::GONE;
            if goes_on {
                (*now, *since) = (phase, Instant::now());
            }
            goes_on
        });
        if Self::makes_room(phase) {
            self.idle.notify_one();
        }
        goes_on
    }

    fn get(&self) -> u8 {
        self.now.borrow().0
    }

    /// Whether nobody's request is under way.
    fn makes_room(phase: u8) -> bool {
        matches!(phase, Self::IDLE | Self::HEADERS | Self::REFUSED)
    }

    /// Since when its client has been silent, or has sent what nobody wants; `None` while it is being answered.
    fn silent_since(&self) -> Option<Instant> {
        let (now, since) = *self.now.borrow();
        Self::makes_room(now).then_some(since)
    }

    /// Ends the connection, unless it is being answered.
    fn make_room(&self) -> bool {
        self.now.send_if_modified(|(now, _)| {
            let silent = Self::makes_room(*now);
            if silent {
                *now = Self::GONE;
            }
            silent
        })
    }

    /// Returns once one phase has lasted longer than it may. Not a matter of the stream's reads: between two requests
    /// hyper asks for none, it relies on being woken.
    async fn lasts_too_long(&self) {
        let mut watch = self.now.subscribe();
        loop {
            let time = match watch.borrow_and_update().0 {
                Self::IDLE => IDLE_TIME_MAX,
                Self::HEADERS => HEADER_TIME_MAX,
                Self::GONE => return,
                _ => Duration::MAX,
            };
            if tokio::time::timeout(time, watch.changed()).await.is_err() {
                return;
            }
        }
    }
}

/// The answer's body; when it is done with, the connection is idle again.
struct EndSeen {
    body: AnswerBody,
    phase: Arc<Phase>,
}

impl EndSeen {
    fn new(answer: Answer, phase: Arc<Phase>) -> http::Response<Self> {
        answer.map(|body| Self { body, phase })
    }
}

impl Drop for EndSeen {
    fn drop(&mut self) {
        self.phase.set(Phase::IDLE);
    }
}

impl Body for EndSeen {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A socket that tells when a request begins, and fails when the client reads nothing of an answer.
struct TimedStream<S> {
    stream: S,
    phase: Arc<Phase>,
    head: Head,
    write_alarm: Option<Pin<Box<Sleep>>>,
}

impl<S> TimedStream<S> {
    fn new(stream: S, phase: Arc<Phase>) -> Self {
        Self { stream, phase, head: Head::default(), write_alarm: None }
    }

    fn written<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.write_alarm = None;
            return polled;
        }
        let alarm = self.write_alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep(IDLE_TIME_MAX)));
        alarm.as_mut().poll(cx).map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads nothing")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let filled = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let new = buffer.filled().get(filled..).unwrap_or_default();
        if polled.is_pending() || new.is_empty() {
            return polled;
        }
        if self.phase.get() == Phase::IDLE {
            self.head = Head::default();
            self.phase.set(Phase::HEADERS);
        }
        // A head that came with the request before it is not seen here; behind that one hyper closes the connection.
        if self.phase.get() == Phase::HEADERS && self.head.saw(new) {
            self.phase.framed_twice.store(true, Ordering::Relaxed);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.written(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.written(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.written(cx, polled)
    }
}

/// A request's body that fails when it trickles.
#[derive(Debug)]
pub struct RequestBody {
    body: Received,
    began: Option<Instant>,
    bytes: u64,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl RequestBody {
    fn new(body: Incoming) -> Self {
        Self { body: Received::Wire(body), began: None, bytes: 0, alarm: None }
    }

    /// One that is there already, of a request that crossed no socket.
    #[cfg(test)]
    pub fn whole(body: impl Into<Bytes>) -> Self {
        use http_body_util::BodyExt;
        Self::in_pieces(http_body_util::Full::new(body.into()).map_err(|never| match never {}).boxed_unsync())
    }

    #[cfg(test)]
    pub fn in_pieces(body: AnswerBody) -> Self {
        Self { body: Received::InProcess(body), began: None, bytes: 0, alarm: None }
    }
}

/// Where a body comes from.
#[derive(Debug)]
enum Received {
    Wire(Incoming),
    #[cfg(test)]
    InProcess(AnswerBody),
}

impl Body for Received {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut *self {
            Self::Wire(body) => Pin::new(body).poll_frame(cx).map(|frame| frame.map(|f| f.map_err(Into::into))),
            #[cfg(test)]
            Self::InProcess(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Wire(body) => body.is_end_stream(),
            #[cfg(test)]
            Self::InProcess(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Wire(body) => body.size_hint(),
            #[cfg(test)]
            Self::InProcess(body) => body.size_hint(),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let began = *self.began.get_or_insert_with(Instant::now);
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                self.alarm = None;
                if let Some(Ok(frame)) = &frame {
                    self.bytes += frame.data_ref().map_or(0, |d| d.len() as u64);
                }
                Poll::Ready(frame)
            }
            Poll::Pending => {
                // By then so many bytes must have come that the next one is not late.
                let due = began + BODY_GRACE + Duration::from_secs(self.bytes / BODY_BYTES_PER_SECOND_MIN);
                let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
                alarm
                    .as_mut()
                    .poll(cx)
                    .map(|()| Some(Err(io::Error::new(io::ErrorKind::TimedOut, "the body came too slowly").into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    const HOW: Connection = Connection {
        peer: SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7)), 4711),
        tls: Some("1.3"),
    };

    /// Reads the body and answers its length.
    struct Length;

    /// Answers how the request came.
    struct How;

    impl Service for How {
        async fn answer(&self, request: http::Request<RequestBody>) -> Answer {
            let text = match request.extensions().get::<Connection>() {
                Some(how) => format!("{} {}", how.peer, how.is_secure()),
                None => "unknown".to_owned(),
            };
            http::Response::new(Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync())
        }
    }

    impl Service for Length {
        async fn answer(&self, request: http::Request<RequestBody>) -> Answer {
            let text = match request.into_body().collect().await {
                Ok(body) => body.to_bytes().len().to_string(),
                Err(error) => error.to_string(),
            };
            http::Response::new(Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync())
        }
    }

    fn phase() -> Arc<Phase> {
        Arc::new(Phase::new(Arc::default()))
    }

    fn connected() -> (DuplexStream, watch::Sender<bool>) {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(connection(theirs, HOW, phase(), Arc::new(Length), stopped));
        (ours, stop)
    }

    /// Seconds until the server hangs up, and what it said before.
    async fn hung_up(mut stream: DuplexStream) -> (u64, String) {
        let began = Instant::now();
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said).await;
        (began.elapsed().as_secs(), String::from_utf8_lossy(&said).into_owned())
    }

    async fn say(stream: &mut DuplexStream, text: &str) {
        stream.write_all(text.as_bytes()).await.unwrap();
    }

    const REQUEST: &str = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_request_is_closed_after_a_minute() {
        let (stream, _stop) = connected();
        assert_eq!(hung_up(stream).await, (60, String::new()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_minute_begins_anew_after_each_answer() {
        let (mut stream, _stop) = connected();
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(50)).await;
            say(&mut stream, REQUEST).await;
        }
        let (seconds, said) = hung_up(stream).await;
        assert_eq!((seconds, said.matches("200 OK").count()), (60, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn headers_have_ten_seconds_from_their_first_byte_however_they_trickle() {
        let (mut stream, _stop) = connected();
        tokio::time::sleep(Duration::from_secs(30)).await;
        let began = Instant::now();
        for line in ["GET / HTTP/1.1\r\n", "host: localhost\r\n", "x: 1\r\n"] {
            say(&mut stream, line).await;
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        hung_up(stream).await;
        assert_eq!(began.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_is_cut_off_and_one_that_flows_is_not() {
        let (mut stream, _stop) = connected();
        say(&mut stream, "PUT / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000\r\n\r\n").await;
        say(&mut stream, "x").await;
        let (_, said) = hung_up(stream).await;
        assert!(said.contains("the body came too slowly"), "{said}");

        let (mut stream, stop) = connected();
        say(&mut stream, "PUT / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 120000\r\n\r\n").await;
        for _ in 0..60 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            say(&mut stream, &"x".repeat(2_000)).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        stop.send_replace(true);
        let (_, said) = hung_up(stream).await;
        assert!(said.ends_with("120000"), "{said}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_is_hung_up_on_after_a_minute() {
        let (ours, theirs) = tokio::io::duplex(16);
        let (_stop, stopped) = watch::channel(false);
        let served = tokio::spawn(connection(theirs, HOW, phase(), Arc::new(Length), stopped));
        let (_reads_nothing, mut writes) = tokio::io::split(ours);
        writes.write_all(REQUEST.as_bytes()).await.unwrap();
        let began = Instant::now();
        served.await.unwrap();
        assert_eq!(began.elapsed().as_secs(), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_closed_at_once_when_the_server_stops() {
        let (mut stream, stop) = connected();
        say(&mut stream, REQUEST).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        stop.send_replace(true);
        assert_eq!(hung_up(stream).await.0, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_knows_its_socket_and_believes_no_header_about_it() {
        let (mut ours, theirs) = tokio::io::duplex(64 * 1024);
        let (_stop, stopped) = watch::channel(false);
        tokio::spawn(connection(theirs, HOW, phase(), Arc::new(How), stopped));
        say(
            &mut ours,
            "GET / HTTP/1.1\r\nhost: localhost\r\nx-forwarded-for: 127.0.0.1\r\nx-forwarded-proto: http\r\n\r\n",
        )
        .await;
        assert!(hung_up(ours).await.1.ends_with("192.0.2.7:4711 true"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_says_twice_how_long_it_is_reaches_nobody() {
        let lengths = "content-length: 3\r\n";
        for (headers, status) in [
            (lengths.to_owned() + "transfer-encoding: chunked\r\n", "400"),
            ("transfer-encoding: chunked\r\n".to_owned() + lengths, "400"),
            ("transfer-encoding: chunked\r\n".to_owned(), "200"),
            (lengths.to_owned(), "200"),
        ] {
            let (mut stream, _stop) = connected();
            // Behind another, and in pieces.
            say(&mut stream, REQUEST).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            say(&mut stream, "PUT / HTTP/1.1\r\nhost: local").await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            let body = if headers == lengths { "abc" } else { "0\r\n\r\n" };
            say(&mut stream, &format!("host\r\n{headers}\r\n{body}")).await;
            let (seconds, said) = hung_up(stream).await;
            assert!(said.starts_with("HTTP/1.1 200"), "{said}");
            assert!(said[8..].contains(&format!("HTTP/1.1 {status}")), "{headers}: {said}");
            assert_eq!(seconds, if status == "400" { 0 } else { 60 }, "{headers}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_had_to_make_room_begins_no_request() {
        let (mut ours, theirs) = tokio::io::duplex(64 * 1024);
        let (_stop, stopped) = watch::channel(false);
        let phase = phase();
        assert!(phase.make_room());
        tokio::spawn(connection(theirs, HOW, phase, Arc::new(Length), stopped));
        say(&mut ours, REQUEST).await;
        assert_eq!(hung_up(ours).await, (0, String::new()));
    }
}
