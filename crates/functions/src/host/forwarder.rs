//! A function's way to S3: a listener of its environment that serves S3 with that function's credentials, and nothing
//! else of this server.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;

use super::{FunctionCredentials, S3Door};

/// Connections of one environment at once; the next one waits. boto3 uses ten, transfer managers some dozen.
const CONNECTIONS_MAX: usize = 256;
/// Request line and headers together, as at the server's own port.
const HEADER_BYTES_MAX: usize = 64 * 1024;
/// What is held in memory of one connection: the headers, or a piece of a body. With all its connections, one environment has the
/// server hold 32 MiB: head and piece are not there at the same time, but a buffer grows by doubling.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Serves until it is dropped; its connections end with it.
pub(super) async fn serve(listener: std::net::TcpListener, door: S3Door, credentials: Arc<FunctionCredentials>) {
    let mut connections = JoinSet::new();
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::warn!(%error, "a function has no way to S3"),
    };
    loop {
        if connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        while connections.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a function's S3 connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let (door, credentials) = (door.clone(), credentials.clone());
        let service = service_fn(move |request| {
            let answer = door(credentials.clone(), request);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        connections.spawn(async move {
            // No time limits: the only peer is the function, and what it holds open is its own share.
            let served = hyper::server::conn::http1::Builder::new()
                .max_buf_size(BUFFER_BYTES_MAX)
                .max_header_size(HEADER_BYTES_MAX)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a function's S3 connection ended");
            }
        });
    }
}
