//! The socket: who may connect, how slow a client may be, and how it all stops.
//!
//! An accept loop of our own on hyper's HTTP/1.1, because a ready-made server has no cap on connections and no time-out
//! on what a client leaves unsaid. What a request means is [`crate::dispatch`]'s business.
//! Source: promise 4.4, item 14.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, Sleep};

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

/// Serves until `stop` becomes true, then lets requests under way end for at most `stop_time`.
pub async fn serve(
    listener: TcpListener,
    service: Arc<impl Service>,
    connections_max: usize,
    mut stop: watch::Receiver<bool>,
    stop_time: Duration,
) {
    let room = Arc::new(Semaphore::new(connections_max));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = asked(&mut stop) => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            // A connection past the cap waits in the kernel's queue: its client sees delay, not an error.
            accepted = async {
                let permit = room.clone().acquire_owned().await.expect("the semaphore is never closed");
                (listener.accept().await, permit)
            } => accepted,
        };
        match accepted {
            (Ok((stream, _)), permit) => {
                // Answers are written whole; waiting to fill a packet would only delay their end.
                let _ = stream.set_nodelay(true);
                let connection = connection(stream, service.clone(), stop.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            // Out of file descriptors, or a client that was gone before it was accepted. The first passes when a
            // connection ends; without a pause the loop would spin until then.
            (Err(error), _) => {
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

/// Waits until `stop` is true, or until nobody could say so any more.
async fn asked(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn connection(stream: tokio::net::TcpStream, service: Arc<impl Service>, mut stop: watch::Receiver<bool>) {
    let phase = Arc::new(Phase::default());
    let stream = TokioIo::new(TimedStream::new(stream, phase.clone()));
    let serve = hyper::service::service_fn(move |request: http::Request<Incoming>| {
        phase.set(Phase::REQUEST);
        let (service, phase) = (service.clone(), phase.clone());
        async move {
            let answer = service.answer(request.map(RequestBody::new)).await;
            Ok::<_, std::convert::Infallible>(answer.map(|body| EndSeen { body, phase }))
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
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = asked(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection broke off");
    }
}

/// What a connection is waiting for. Touched by its own task alone; atomic so that the task may move between threads.
#[derive(Debug, Default)]
struct Phase(AtomicU8);

impl Phase {
    /// No byte of a next request has come.
    const IDLE: u8 = 0;
    /// Some bytes have, but not all headers.
    const HEADERS: u8 = 1;
    /// A request is being answered.
    const REQUEST: u8 = 2;

    fn set(&self, phase: u8) {
        self.0.store(phase, Ordering::Relaxed);
    }

    fn get(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The answer's body; when it is done with, the connection is idle again.
struct EndSeen {
    body: AnswerBody,
    phase: Arc<Phase>,
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

/// A socket that fails when the client is silent for too long: hyper always has a read outstanding between requests,
/// so that is where the time runs.
struct TimedStream {
    stream: tokio::net::TcpStream,
    phase: Arc<Phase>,
    /// The phase whose time runs, and its alarm.
    read_alarm: Option<(u8, Pin<Box<Sleep>>)>,
    write_alarm: Option<Pin<Box<Sleep>>>,
}

impl TimedStream {
    fn new(stream: tokio::net::TcpStream, phase: Arc<Phase>) -> Self {
        Self { stream, phase, read_alarm: None, write_alarm: None }
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

impl AsyncRead for TimedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let filled = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let phase = self.phase.get();
        if polled.is_ready() {
            if phase == Phase::IDLE && buffer.filled().len() > filled {
                self.phase.set(Phase::HEADERS);
            }
            return polled;
        }
        let time = match phase {
            Phase::IDLE => IDLE_TIME_MAX,
            Phase::HEADERS => HEADER_TIME_MAX,
            // The body has its own measure, and the answer may take as long as the function runs.
            _ => {
                self.read_alarm = None;
                return Poll::Pending;
            }
        };
        let alarm = match &mut self.read_alarm {
            Some((of, alarm)) if *of == phase => alarm,
            unset => &mut unset.insert((phase, Box::pin(tokio::time::sleep(time)))).1,
        };
        alarm.as_mut().poll(cx).map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "the client was silent too long")))
    }
}

impl AsyncWrite for TimedStream {
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
    body: Incoming,
    began: Option<Instant>,
    bytes: u64,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl RequestBody {
    fn new(body: Incoming) -> Self {
        Self { body, began: None, bytes: 0, alarm: None }
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
                Poll::Ready(frame.map(|f| f.map_err(Into::into)))
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
