//! The Runtime API (`2018-06-01`) of one execution environment, on a listener of its own: the address is the only
//! identity that this protocol has.
//!
//! Source: Lambda specification 1.1 to 1.6.

use std::io;
use std::sync::Arc;

use base64::Engine;
use bytes::Bytes;
use rustix::net::SocketFlags;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::environment::{Answer, Environment};
use super::http::{Body, Broken, Connection, Head, HeadBudget, Method, Trailers};
use super::outcome::RESPONSE_BYTES_MAX;
use super::session::{AnswerKind, Next, Refusal};

/// Connections of one environment at once. AWS's Rust client was seen to open some hundred, closing them as it goes.
const CONNECTIONS_MAX: usize = 1024;

const ACCEPTED: &[u8] =
    b"HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n{\"status\":\"OK\"}\n";

/// Serves the environment until it is dropped, or its process has ended and all is read that it had sent. Its connections
/// end with it.
pub(super) async fn serve(listener: std::net::TcpListener, environment: Arc<Environment>) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        // It will not poll, and its start is given up when its time is up.
        Err(error) => return tracing::error!(%error, "a runtime cannot be listened to"),
    };
    let budget = Arc::new(HeadBudget::default());
    let mut connections = JoinSet::new();
    loop {
        if connections.len() >= CONNECTIONS_MAX {
            tokio::select! {
                _ = connections.join_next() => {}
                () = environment.process_ended.notified() => break,
            }
        }
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = environment.process_ended.notified() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(serve_connection(stream, environment.clone(), budget.clone()));
            }
            // No descriptors: those that are open have to end first, and asking again at once would not help them.
            Err(error) => {
                tracing::warn!(%error, "runtime connection could not be accepted");
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
    }
    // Asked of the system itself: what the process had connected to is there, whether it was announced to us or not. Children that
    // it left behind may connect as fast as this accepts, so it has an end.
    while connections.len() < CONNECTIONS_MAX
        && let Ok(stream) = rustix::net::accept_with(&listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)
    {
        match TcpStream::from_std(stream.into()) {
            Ok(stream) => {
                connections.spawn(serve_connection(stream, environment.clone(), budget.clone()));
            }
            Err(error) => tracing::warn!(%error, "runtime connection could not be accepted"),
        }
    }
    while connections.join_next().await.is_some() {}
    environment.heard.notify_one();
}

async fn serve_connection(stream: TcpStream, environment: Arc<Environment>, budget: Arc<HeadBudget>) {
    // Nagle's algorithm and delayed acknowledgements together cost 40 ms an invocation.
    let _ = stream.set_nodelay(true);
    if let Err(error) = connection(stream, &environment, budget).await {
        tracing::debug!(environment = environment.id.0, ?error, "runtime connection ended");
    }
}

enum Route<'a> {
    Next,
    Answer(AnswerKind, &'a str),
    InitError,
    Ping,
    Unknown,
}

fn route(head: &Head) -> Route<'_> {
    let path = std::str::from_utf8(&head.path).unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default();
    let Some(rest) = path.strip_prefix("/2018-06-01/") else { return Route::Unknown };
    match (head.method, rest) {
        (Method::Get, "runtime/invocation/next") => Route::Next,
        (Method::Post, "runtime/init/error") => Route::InitError,
        (Method::Get, "ping") => Route::Ping,
        (Method::Post, rest) => {
            let answer = rest.strip_prefix("runtime/invocation/").and_then(|rest| rest.split_once('/'));
            match answer {
                Some((id, "response")) => Route::Answer(AnswerKind::Response, id),
                Some((id, "error")) => Route::Answer(AnswerKind::Error, id),
                _ => Route::Unknown,
            }
        }
        _ => Route::Unknown,
    }
}

async fn connection(stream: TcpStream, environment: &Arc<Environment>, budget: Arc<HeadBudget>) -> Result<(), Broken> {
    let mut connection = Connection::new(stream, budget);
    loop {
        let ended = match connection.head().await {
            Ok(head) => match request(&mut connection, environment, &head).await {
                Ok(()) if head.keep_alive => continue,
                Ok(()) => {
                    connection.flush().await?;
                    return Ok(());
                }
                Err(error) => error,
            },
            Err(error) => error,
        };
        return match ended {
            Broken::Closed => Ok(()),
            Broken::Malformed(status, what) => {
                put(&mut connection, &Refusal::new(status, "MalformedHTTPRequest", what), true);
                Ok(connection.flush().await?)
            }
            Broken::Truncated => {
                let told = Refusal::new(400, "TruncatedHTTPRequest", "HTTP request detected as truncated");
                put(&mut connection, &told, true);
                Ok(connection.flush().await?)
            }
            other => Err(other),
        };
    }
}

async fn request(connection: &mut Connection, environment: &Arc<Environment>, head: &Head) -> Result<(), Broken> {
    match route(head) {
        Route::Next => {
            connection.skip_body(head).await?;
            next(connection, environment).await
        }
        Route::Answer(kind, id) => answer(connection, environment, head, kind, id).await,
        Route::InitError => match connection.body(head, RESPONSE_BYTES_MAX).await? {
            Body::Whole { bytes, .. } => {
                match environment.init_error(without_cause(head, bytes), error_type(head).as_deref()) {
                    Ok(()) => connection.put(ACCEPTED),
                    Err(refusal) => put(connection, &refusal, false),
                }
                Ok(())
            }
            Body::TooLarge { drained } => refuse_size(connection, drained).await,
        },
        Route::Ping => {
            connection.skip_body(head).await?;
            connection.put(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\npong");
            Ok(())
        }
        Route::Unknown => {
            connection.skip_body(head).await?;
            let path = String::from_utf8_lossy(&head.path);
            put(connection, &Refusal::new(404, "NotFound", format!("There is no {path} here")), false);
            Ok(())
        }
    }
}

/// Holds the request until there is an event. Nothing but an event ends it well: stock clients crash on any other
/// answer.
async fn next(connection: &mut Connection, environment: &Arc<Environment>) -> Result<(), Broken> {
    loop {
        let changed = environment.changed();
        tokio::pin!(changed);
        changed.as_mut().enable();
        match environment.next() {
            Next::FirstPoll => environment.came_up(),
            Next::Free => environment.finished(),
            Next::Event(event) => return Ok(connection.flush_with(&event.head, &event.body).await?),
            Next::Refused(refusal) => {
                put(connection, &refusal, false);
                return Ok(());
            }
            // What is put but not written is the answer to a request that came in one piece with this one: the client
            // reads both at once, so they are written at once.
            Next::Wait => tokio::select! {
                biased;
                () = &mut changed => {}
                () = connection.closed() => return Err(Broken::Closed),
            },
        }
    }
}

async fn answer(
    connection: &mut Connection,
    environment: &Arc<Environment>,
    head: &Head,
    kind: AnswerKind,
    request_id: &str,
) -> Result<(), Broken> {
    let attempt = head.attempt_id.as_deref().map(|id| std::str::from_utf8(id).unwrap_or_default());
    let begun = match &head.response_mode {
        Some(mode) if !mode.eq_ignore_ascii_case(b"streaming") && !mode.is_empty() => {
            Err(Refusal::new(400, "InvalidFunctionResponseMode", "Invalid function response mode"))
        }
        _ => environment.begin_answer(request_id, attempt, kind),
    };
    if let Err(refusal) = begun {
        // Read to its end, or the client would see a broken connection in place of the reason.
        connection.skip_body(head).await?;
        put(connection, &refusal, false);
        return Ok(());
    }
    match connection.body(head, RESPONSE_BYTES_MAX).await {
        Ok(Body::Whole { bytes, trailers }) => {
            environment.answered(match kind {
                AnswerKind::Response => streamed(bytes, trailers),
                AnswerKind::Error => {
                    Answer::Error { payload: without_cause(head, bytes), error_type: error_type(head) }
                }
            });
            connection.put(ACCEPTED);
            Ok(())
        }
        Ok(Body::TooLarge { drained }) => {
            environment.answered(Answer::TooLarge);
            refuse_size(connection, drained).await
        }
        Err(broken) => {
            environment.truncated();
            Err(broken)
        }
    }
}

/// What the caller gets for an error whose body cannot be read.
const INVALID_ERROR_BODY: &[u8] = b"\"Invalid error body\"";

/// As the runtime calls it.
fn error_type(head: &Head) -> Option<String> {
    head.error_type.as_ref().map(|t| String::from_utf8_lossy(t).into_owned())
}

/// A streamed response that failed in its middle says so behind its body.
fn streamed(bytes: Bytes, trailers: Trailers) -> Answer {
    match trailers.error_type {
        Some(error_type) if !error_type.is_empty() => {
            let body = trailers.error_body.unwrap_or_default();
            let payload = match base64::engine::general_purpose::STANDARD.decode(body) {
                Ok(payload) if !payload.is_empty() => Bytes::from(payload),
                // Its caller reads JSON, so there has to be some.
                _ => Bytes::from_static(INVALID_ERROR_BODY),
            };
            Answer::Error { payload, error_type: Some(error_type) }
        }
        _ => Answer::Response(bytes),
    }
}

/// An error in the form that carries its cause: the cause is telemetry's, not the caller's.
fn without_cause(head: &Head, body: Bytes) -> Bytes {
    let with_cause = head.content_type.as_ref().is_some_and(|content_type| {
        content_type.split(|b| *b == b';').next().is_some_and(|essence| {
            essence.trim_ascii().eq_ignore_ascii_case(b"application/vnd.aws.lambda.error.cause+json")
        })
    });
    if !with_cause {
        return body;
    }
    match serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&body) {
        Ok(mut fields) => {
            fields.remove("errorCause");
            Bytes::from(serde_json::Value::Object(fields).to_string())
        }
        Err(_) => Bytes::from_static(INVALID_ERROR_BODY),
    }
}

/// Refuses a body that is too large. One that was not read to its end leaves a connection that can be used no more.
async fn refuse_size(connection: &mut Connection, drained: bool) -> Result<(), Broken> {
    let message = format!("Exceeded maximum allowed payload size ({RESPONSE_BYTES_MAX} bytes).");
    put(connection, &Refusal::new(413, "RequestEntityTooLarge", message), !drained);
    if drained {
        return Ok(());
    }
    connection.flush().await?;
    Err(Broken::Closed)
}

fn put(connection: &mut Connection, refusal: &Refusal, close: bool) {
    let reason = match refusal.status {
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        413 => "Payload Too Large",
        431 => "Request Header Fields Too Large",
        _ => "Internal Server Error",
    };
    let body = serde_json::json!({ "errorMessage": refusal.message, "errorType": refusal.error_type }).to_string();
    let close = if close { "Connection: close\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {} {reason}\r\nContent-Type: application/json\r\n{close}Content-Length: {}\r\n\r\n",
        refusal.status,
        body.len()
    );
    connection.put(head.as_bytes());
    connection.put(body.as_bytes());
}

/// A listener on a free port of the loopback interface.
pub(super) fn listen() -> io::Result<(std::net::TcpListener, std::net::SocketAddr)> {
    let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}
