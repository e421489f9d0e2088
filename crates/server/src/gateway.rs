//! The way of a client or a function to a store of somebody else: its signature was verified here, and its request goes
//! on with the endpoint's own, so that it never sees the endpoint's credentials.
//!
//! Requests and answers are streamed, never held. The last piece of a body is held back until the whole was checked
//! against what the client signed, so that a store never has all of a body that is not the client's. Only endpoints of the
//! settings are contacted: the bucket has been looked up and checked before it is part of a host or a path; redirects are
//! handed back without the place they name; nothing is tried twice, for the client knows best what may be.

use std::error::Error as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION};
use http::{Method, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use longshore_aws::check_names;
use longshore_objects::checksum::{Expected, Hasher};
use longshore_objects::{RequestBody, ResponseBody};
use longshore_wire::payload::PayloadForm;
use longshore_wire::sigv4::{Credentials, Signer, Verified};
use longshore_wire::{ApiError, RequestId};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::endpoints::{Remote, Routes};
use crate::failure::Failure;
use crate::tls::{self, Roots};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Requests at once, over all endpoints: as many as the main listener has connections. Each holds two pieces of a body.
const REQUESTS_MAX: usize = 1024;
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// Connections are given up unused after this, before the other side closes them (AWS after about 20 s).
const IDLE_MAX: Duration = Duration::from_secs(15);
const IDLE_CONNECTIONS_MAX: usize = 64;
/// An answer may take a quarter of an hour, and what stands between forgets silent connections after about 350 s (AWS) or
/// less: so often TCP says that both ends are still there.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// From the last byte that was sent to the head of the answer. Putting thousands of parts together takes minutes.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(300);
/// Between two pieces of an answer.
const PIECE_TIME_MAX: Duration = Duration::from_secs(60);

/// Of the body of a refused request; as the main port has it.
const DRAINED_MAX: usize = 16 * 1024 * 1024;
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);

/// A key in a path.
const KEY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// Headers that go on, besides `x-amz-*` and `if-*`. All that go on are signed, so none that is changed on the way.
const SENT_ON: [&str; 9] = [
    "cache-control",
    "content-disposition",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "content-encoding",
    "expires",
    "range",
];
/// Of `x-amz-*`, what belongs to the client's signature, or to a coding of the body that is taken off here.
const TAKEN_OFF: [&str; 8] = [
    "x-amz-content-sha256",
    "x-amz-date",
    "x-amz-decoded-content-length",
    "x-amz-security-token",
    "x-amz-signature",
    "x-amz-trailer",
    "x-amz-user-agent",
    "x-amz-target",
];
/// Of an answer, what belongs to one connection, or would lead the client elsewhere.
const NOT_ANSWERED: [&str; 12] = [
    "alt-svc",
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "server",
    "set-cookie",
    "strict-transport-security",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Parameters of a presigned URL's authentication.
const PRESIGNED: [&str; 7] = [
    "x-amz-algorithm",
    "x-amz-credential",
    "x-amz-date",
    "x-amz-expires",
    "x-amz-security-token",
    "x-amz-signature",
    "x-amz-signedheaders",
];

/// Sends requests on to endpoints.
pub struct Gateway {
    client: Client<HttpsConnector<HttpConnector>, UnsyncBoxBody<Bytes, BoxError>>,
    room: Arc<Semaphore>,
}

/// Which bucket and key a request is for, decoded. The path of a request without a bucket lists buckets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub bucket: String,
    /// `None` for the bucket itself.
    pub key: Option<String>,
}

impl Target {
    /// Reads a request's path as S3 does. `None` if it names no bucket, or not in UTF-8.
    pub fn of(path: &str, host_bucket: Option<&str>) -> Option<Self> {
        let path = percent_decode_str(path.strip_prefix('/').unwrap_or(path)).decode_utf8().ok()?.into_owned();
        let (bucket, key) = match host_bucket {
            Some(bucket) => (bucket.to_owned(), path),
            None => {
                let (bucket, key) = path.split_once('/').unwrap_or((&path, ""));
                (bucket.to_owned(), key.to_owned())
            }
        };
        (!bucket.is_empty()).then_some(Self { bucket, key: Some(key).filter(|key| !key.is_empty()) })
    }

    /// Path, as it is signed and sent, and `Host` for an endpoint. Only for names that [`check_names`] let pass.
    fn at(&self, remote: &Remote) -> (String, String) {
        let key = self.key.as_deref().map(|key| utf8_percent_encode(key, KEY).to_string()).unwrap_or_default();
        // A certificate for *.host does not hold for a name with dots before it.
        if remote.path_style || self.bucket.contains('.') {
            let slash = if self.key.is_some() { "/" } else { "" };
            return (format!("/{}{slash}{key}", self.bucket), remote.place.authority.clone());
        }
        (format!("/{key}"), format!("{}.{}", self.bucket, remote.place.authority))
    }
}

/// Which object a copy reads, decoded.
#[derive(Debug, PartialEq, Eq)]
struct CopySource {
    bucket: String,
    key: String,
}

impl CopySource {
    /// Reads `bucket/key?versionId=…`, with or without a slash before it, as S3 does: the version is cut off first, the
    /// rest is decoded. `None` if it is not in UTF-8, or names no bucket and key, or something else behind them.
    fn of(value: &HeaderValue) -> Option<Self> {
        let text = value.to_str().ok()?;
        let (path, version) = text.split_once('?').unwrap_or((text, "versionId="));
        if version.contains('/') || !version.starts_with("versionId=") {
            return None;
        }
        let path = percent_decode_str(path).decode_utf8().ok()?;
        let (bucket, key) = path.strip_prefix('/').unwrap_or(&path).split_once('/')?;
        (!bucket.is_empty() && !key.is_empty()).then(|| Self { bucket: bucket.to_owned(), key: key.to_owned() })
    }
}

/// Where a request belongs: to an endpoint, or to the embedded S3 (`None`). Copies from one to another are refused, and so
/// is a source that a store behind an endpoint could read as another than the one that was judged here.
pub fn route<'r>(
    routes: &'r Routes,
    target: Option<&Target>,
    headers: &HeaderMap,
) -> Result<Option<&'r Arc<Remote>>, ApiError> {
    let remote = target.and_then(|target| routes.of(&target.bucket));
    let mut sources = headers.get_all("x-amz-copy-source").iter();
    if let Some(source) = sources.next() {
        let invalid = |message: &str| ApiError::new(StatusCode::BAD_REQUEST, "InvalidArgument", message);
        if remote.is_some() && source.as_bytes().contains(&b'+') {
            // To some stores it is a space, and so another object.
            return Err(invalid("Copy Source must have a plus sign encoded, as %2B"));
        }
        // All of them go on, and which one a store takes is its own affair.
        if sources.next().is_some() {
            return Err(invalid("Copy Source must be given once"));
        }
        let unread = || invalid("Copy Source must mention the source bucket and key: sourcebucket/sourcekey");
        let source = CopySource::of(source).ok_or_else(unread)?;
        let there = routes.of(&source.bucket);
        if there.map(Arc::as_ptr) != remote.map(Arc::as_ptr) {
            let bucket = source.bucket;
            let message = format!("Copying from the bucket {bucket} is not possible: it is in another store.");
            return Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", message));
        }
        if remote.is_some() {
            check_names(&source.bucket, Some(&source.key))
                .map_err(|e| ApiError::new(StatusCode::BAD_REQUEST, e.code, e.message))?;
        }
    }
    Ok(remote)
}

/// A client for requests to endpoints: connections are kept and pooled, TLS trusts the system's roots, no proxy is used and
/// no redirect followed.
fn client<B>() -> Result<Client<HttpsConnector<HttpConnector>, B>, Failure>
where
    B: http_body::Body + Send,
    B::Data: Send,
{
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_TIME_MAX));
    connector.set_keepalive(Some(KEEPALIVE));
    // The engine's way to the same stores (`adapters/aws`) trusts the same.
    let config = tls::config(Roots::System).map_err(Failure::new)?;
    let tls = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(config);
    let connector = tls.https_or_http().enable_http1().wrap_connector(connector);
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_MAX)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .build(connector))
}

impl Gateway {
    pub fn new() -> Result<Self, Failure> {
        Ok(Self { client: client()?, room: Arc::new(Semaphore::new(REQUESTS_MAX)) })
    }

    /// What can be refused before anything is sent or read.
    pub fn check(target: &Target, caller: &Verified, parts: &http::request::Parts) -> Result<(), ApiError> {
        if ![Method::GET, Method::HEAD, Method::PUT, Method::POST, Method::DELETE].contains(&parts.method) {
            let message = "The specified method is not allowed against this resource.";
            return Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message));
        }
        check_names(&target.bucket, target.key.as_deref())
            .map_err(|e| ApiError::new(StatusCode::BAD_REQUEST, e.code, e.message))?;
        expected(parts)?;
        let query = parts.uri.query().unwrap_or("");
        let hidden = query.split('&').any(|pair| {
            let name = pair.split('=').next().unwrap_or("");
            let name = percent_decode_str(name).decode_utf8_lossy().to_ascii_lowercase();
            matches!(name.as_str(), "x-amz-copy-source" | "x-amz-bypass-governance-retention")
        });
        if query.contains(';') || hidden {
            let message = "A query to another store has no semicolon, which some take for a separator, and what copies or overrides stands in headers.";
            return Err(ApiError::new(StatusCode::BAD_REQUEST, "InvalidArgument", message));
        }
        body_length(&parts.method, &parts.headers, caller).map(drop)
    }

    /// Sends a verified request on that [`Gateway::check`] let pass, and hands back the answer.
    pub async fn forward(
        &self,
        remote: &Remote,
        target: &Target,
        caller: &Verified,
        parts: http::request::Parts,
        body: RequestBody,
        id: &RequestId,
    ) -> Result<http::Response<ResponseBody>, ApiError> {
        let room = self.room.clone().acquire_owned().await.expect("the semaphore is never closed");
        let endpoint = &remote.name;
        let mut headers = headers_of(&parts.headers);
        let length = body_length(&parts.method, &parts.headers, caller)?;
        headers.remove(CONTENT_LENGTH);
        if let Some(length) = length {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        let (path, host) = target.at(remote);
        let unfit = |_| ApiError::new(StatusCode::BAD_REQUEST, "InvalidRequest", "The request cannot be sent on.");
        headers.insert(HOST, HeaderValue::from_str(&host).map_err(|_| unfit(()))?);
        let on_wire = match query_of(parts.uri.query().unwrap_or("")) {
            query if query.is_empty() => path,
            query => format!("{path}?{query}"),
        };
        // What the client signed of the body was checked, or will be before the last of it is sent.
        let payload = match caller.payload() {
            PayloadForm::Hash(hash) => PayloadForm::Hash(hash),
            _ => PayloadForm::Unsigned,
        };
        let identity = remote.objects.credentials().get().await.map_err(|error| {
            tracing::warn!(request_id = %id, endpoint, %error, "no credentials for an endpoint");
            unavailable(format!("Longshore has no credentials for the endpoint {endpoint} now."))
        })?;
        if let Some(identity) = identity {
            let credentials = Credentials {
                access_key_id: identity.access_key_id.clone(),
                secret_access_key: identity.secret_access_key.clone(),
                session_token: identity.session_token.clone(),
            };
            let signer = Signer { credentials: &credentials, service: "s3", region: &identity.region };
            let now = jiff::Timestamp::now().as_second();
            let signed = signer.sign(&parts.method, &on_wire, &headers, payload, now).map_err(|_| unfit(()))?;
            headers.extend(signed.headers.into_iter().map(|(name, value)| (Some(name), value)));
        }

        let scheme = if remote.place.encrypted { "https" } else { "http" };
        let expected = expected(&parts)?;
        let sending = Arc::new(Sending::new());
        let content = match length {
            None | Some(0) if !caller.payload().is_chunked() => {
                Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync()
            }
            _ => StreamBody::new(checked(body, expected, sending.clone())).boxed_unsync(),
        };
        let request = http::Request::builder().method(&parts.method).uri(format!("{scheme}://{host}{on_wire}"));
        let mut request = request.body(content).map_err(|_| unfit(()))?;
        *request.headers_mut() = headers;

        let mut answered = std::pin::pin!(self.client.request(request));
        let answer = loop {
            let until = sending.last() + ANSWER_TIME_MAX;
            match tokio::time::timeout_at(until, &mut answered).await {
                Ok(answer) => break answer,
                Err(_) if sending.last() + ANSWER_TIME_MAX > until => {}
                Err(_) => {
                    tracing::warn!(request_id = %id, endpoint, "an endpoint did not answer in time");
                    return Err(unavailable(format!("The endpoint {endpoint} did not answer in time.")));
                }
            }
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                // The body was not what the client had signed, or broke off: that is its fault, and told so.
                if let Some(told) = sending.refused() {
                    return Err(told);
                }
                let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
                tracing::warn!(request_id = %id, endpoint, %error, cause, "an endpoint could not be reached");
                return Err(unavailable(format!("The endpoint {endpoint} cannot be reached.")));
            }
        };
        if let Some(told) = sending.refused() {
            return Err(told);
        }
        tracing::debug!(request_id = %id, endpoint, status = answer.status().as_u16(), "an endpoint answered");
        Ok(handed_back(answer, room))
    }
}

/// What the headers say of the body. Those of CompleteMultipartUpload speak of the object, which is not its body.
fn expected(parts: &http::request::Parts) -> Result<Expected, ApiError> {
    let names_upload = |pair: &str| pair.split('=').next() == Some("uploadId");
    if parts.method == Method::POST && parts.uri.query().is_some_and(|query| query.split('&').any(names_upload)) {
        return Ok(Expected::default());
    }
    Expected::from_headers(&parts.headers).map_err(|error| error.told())
}

/// Reads what a refused client is still sending, up to a limit: one that is hung up on may not see the answer.
pub async fn drain(mut body: RequestBody) {
    let read = async {
        let mut read = 0;
        while let Some(Ok(piece)) = body.stream.next().await {
            read += piece.len();
            if read > DRAINED_MAX {
                break;
            }
        }
    };
    // Whether it ended or not, the answer is the same.
    let _ = tokio::time::timeout(DRAIN_TIME_MAX, read).await;
}

fn unavailable(message: String) -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message)
}

/// The headers that go on. The coding of the body that is taken off here is not named any more.
fn headers_of(given: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let text = name.as_str();
        let amazon = text.starts_with("x-amz-") && !TAKEN_OFF.contains(&text);
        if amazon || text.starts_with("if-") || SENT_ON.contains(&text) {
            headers.append(name, value.clone());
        }
    }
    // It asks for a checksum that follows in a trailer; ours was checked, and the store is sent none.
    if given.contains_key("x-amz-trailer") {
        headers.remove("x-amz-sdk-checksum-algorithm");
    }
    let codings: Vec<String> = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|coding| coding.trim().to_owned())
        .filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("aws-chunked"))
        .collect();
    headers.remove(CONTENT_ENCODING);
    if let Ok(value) = HeaderValue::from_str(&codings.join(","))
        && !codings.is_empty()
    {
        headers.insert(CONTENT_ENCODING, value);
    }
    headers
}

/// Bytes of the body as it is sent on; `None` for a request without one. Stores want the length first.
fn body_length(method: &Method, headers: &HeaderMap, caller: &Verified) -> Result<Option<u64>, ApiError> {
    if caller.payload().is_chunked() {
        return Ok(caller.decoded_length());
    }
    let announced = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
    let coded = headers.contains_key(http::header::TRANSFER_ENCODING);
    match announced {
        Some(length) => Ok(Some(length)),
        None if coded => {
            let message = "You must provide the Content-Length HTTP header.";
            Err(ApiError::new(StatusCode::LENGTH_REQUIRED, "MissingContentLength", message))
        }
        None => Ok([Method::PUT, Method::POST].contains(method).then_some(0)),
    }
}

/// The query without the authentication of a presigned URL; what stays is left as it is.
fn query_of(query: &str) -> String {
    let kept = query.split('&').filter(|pair| {
        let name = percent_decode_str(pair.split('=').next().unwrap_or_default()).decode_utf8_lossy().into_owned();
        !pair.is_empty() && !PRESIGNED.contains(&name.to_ascii_lowercase().as_str())
    });
    kept.collect::<Vec<_>>().join("&")
}

/// How the sending of a body goes: when it last moved, and why it was stopped.
struct Sending(Mutex<(Instant, Option<ApiError>)>);

impl Sending {
    fn new() -> Self {
        Self(Mutex::new((Instant::now(), None)))
    }

    fn moved(&self) {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).0 = Instant::now();
    }

    fn last(&self) -> Instant {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).0
    }

    fn refuse(&self, error: ApiError) {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).1 = Some(error);
    }

    fn refused(&self) -> Option<ApiError> {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).1.clone()
    }
}

/// The body, checked against its checksums on the way. Its last piece comes only once all was found right.
fn checked(
    body: RequestBody,
    expected: Expected,
    sending: Arc<Sending>,
) -> impl futures::Stream<Item = Result<Frame<Bytes>, BoxError>> + Send {
    let trailers = body.trailers.clone();
    let hasher = Hasher::new(expected.algorithm());
    futures::stream::unfold(Some((body.stream, hasher, None::<Bytes>)), move |state| {
        let (trailers, expected, sending) = (trailers.clone(), expected.clone(), sending.clone());
        async move {
            let (mut stream, mut hasher, mut held) = state?;
            sending.moved();
            loop {
                let refused = match stream.next().await {
                    Some(Ok(piece)) => {
                        hasher.update(&piece);
                        match held.replace(piece) {
                            Some(before) => return Some((Ok(Frame::data(before)), Some((stream, hasher, held)))),
                            None => continue,
                        }
                    }
                    Some(Err(error)) => error,
                    None => match expected.check(&hasher.finish(), |name| trailers.get(name)) {
                        Ok(()) => return held.map(|last| (Ok(Frame::data(last)), None)),
                        Err(error) => error.told(),
                    },
                };
                let error = BoxError::from(refused.message.clone());
                sending.refuse(refused);
                return Some((Err(error), None));
            }
        }
    })
}

/// The answer as the client sees it. It stalls at most so long, and holds its room until it is over.
fn handed_back(
    answer: http::Response<hyper::body::Incoming>,
    room: OwnedSemaphorePermit,
) -> http::Response<ResponseBody> {
    let (mut parts, body) = answer.into_parts();
    let named: Vec<String> = parts
        .headers
        .get_all(http::header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(|name| name.trim().to_ascii_lowercase()))
        .collect();
    for name in NOT_ANSWERED.iter().copied().chain(named.iter().map(String::as_str)) {
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
            parts.headers.remove(name);
        }
    }
    if parts.status.is_redirection() {
        parts.headers.remove(LOCATION);
    }
    parts.version = http::Version::HTTP_11;
    let pieces = futures::stream::unfold(Some((body, room)), |state| async move {
        let (mut body, room) = state?;
        loop {
            return match tokio::time::timeout(PIECE_TIME_MAX, body.frame()).await {
                Err(_) => Some((Err(BoxError::from("the endpoint went silent")), None)),
                Ok(None) => None,
                Ok(Some(Err(error))) => Some((Err(error.into()), None)),
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => Some((Ok(Frame::data(data)), Some((body, room)))),
                    Err(_trailers) => continue,
                },
            };
        }
    });
    http::Response::from_parts(parts, BodyExt::boxed(StreamBody::new(pieces)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn a_target_is_read_decoded_so_that_no_spelling_leads_past_its_route() {
        let target =
            |bucket: &str, key: Option<&str>| Some(Target { bucket: bucket.into(), key: key.map(str::to_owned) });
        assert_eq!(Target::of("/b/a/c", None), target("b", Some("a/c")));
        assert_eq!(Target::of("/%62/a%2Fc", None), target("b", Some("a/c")));
        assert_eq!(Target::of("/b%2Fa", None), target("b", Some("a")));
        assert_eq!(Target::of("/b/", None), target("b", None));
        assert_eq!(Target::of("/a/c", Some("b")), target("b", Some("a/c")));
        assert_eq!(Target::of("/", Some("b")), target("b", None));
        assert_eq!(Target::of("/", None), None);
        assert_eq!(Target::of("/%ff", None), None);
    }

    #[tokio::test]
    async fn a_copy_reads_what_was_judged_and_from_the_store_that_it_writes_to() {
        let endpoint = crate::endpoints::EndpointSettings {
            name: "e".into(),
            url: Some("https://s3.example.org".into()),
            buckets: vec!["data-*".into()],
            anonymous: true,
            ..Default::default()
        };
        let routes = Routes::open(&[endpoint], |_| None).await.unwrap();
        let to = |bucket: &str, sources: &[&'static str]| {
            let target = Target { bucket: bucket.into(), key: Some("k".into()) };
            let pairs: Vec<_> = sources.iter().map(|source| ("x-amz-copy-source", *source)).collect();
            match route(&routes, Some(&target), &map(&pairs)) {
                Ok(remote) => Ok(remote.is_some()),
                Err(error) => Err(error.code.into_owned()),
            }
        };
        let refused = |code: &str| Err(code.to_owned());
        for (bucket, sources, wanted) in [
            ("data-1", &["data-2/a%2Fb?versionId=v"][..], Ok(true)),
            ("data-1", &["/data%2D2/%C3%BC"], Ok(true)),
            ("here", &["other/key"], Ok(false)),
            ("data-1", &["other/key"], refused("NotImplemented")),
            ("here", &["data-1/key"], refused("NotImplemented")),
            ("data-1", &["data-1/../secret/key"], refused("InvalidArgument")),
            ("data-1", &["data-1/%2e%2E/secret/key"], refused("InvalidArgument")),
            ("data-1", &["data-1%2F..%2Fsecret%2Fkey"], refused("InvalidArgument")),
            ("data-1", &["data-1/a?versionId=/../../secret/key"], refused("InvalidArgument")),
            ("data-1", &["data-1/a?x=y"], refused("InvalidArgument")),
            ("data-1", &["data-1?versionId=v/key"], refused("InvalidArgument")),
            ("data-1", &["data-1/"], refused("InvalidArgument")),
            ("data-1", &["data-1/%ff"], refused("InvalidArgument")),
            ("data-1", &["data-1--x-s3/key"], refused("InvalidBucketName")),
            ("data-1", &["data-1/key", "secret/key"], refused("InvalidArgument")),
            ("data-1", &["data-1/key", "data-1/key"], refused("InvalidArgument")),
        ] {
            assert_eq!(to(bucket, sources), wanted, "{bucket} from {sources:?}");
        }
    }

    #[test]
    fn the_clients_signature_and_the_coding_of_its_body_do_not_go_on() {
        let given = map(&[
            ("authorization", "AWS4-HMAC-SHA256 x"),
            ("x-amz-date", "1"),
            ("x-amz-security-token", "t"),
            ("x-amz-content-sha256", "h"),
            ("x-amz-decoded-content-length", "3"),
            ("x-amz-trailer", "x-amz-checksum-crc32"),
            ("x-amz-sdk-checksum-algorithm", "CRC32"),
            ("content-encoding", "aws-chunked,gzip"),
            ("x-amz-meta-a", "b"),
            ("range", "bytes=1-"),
            ("if-match", "\"e\""),
            ("cookie", "c"),
            ("connection", "close"),
            ("x-forwarded-for", "1.2.3.4"),
            ("expect", "100-continue"),
        ]);
        let wanted =
            map(&[("content-encoding", "gzip"), ("x-amz-meta-a", "b"), ("range", "bytes=1-"), ("if-match", "\"e\"")]);
        assert_eq!(headers_of(&given), wanted);
    }

    #[test]
    fn the_checksum_of_a_whole_object_is_not_taken_for_that_of_the_body_that_completes_it() {
        let expected_of = |method: Method, target: &str| {
            let request =
                http::Request::builder().method(method).uri(target).header("x-amz-checksum-crc32", "AAAAAA==");
            expected(&request.body(()).unwrap().into_parts().0).unwrap().algorithm()
        };
        assert!(expected_of(Method::POST, "/b/k?uploadId=u").is_none());
        assert!(expected_of(Method::PUT, "/b/k?uploadId=u&partNumber=1").is_some());
        assert!(expected_of(Method::POST, "/b?delete").is_some());
    }

    #[test]
    fn a_presigned_query_goes_on_without_its_authentication() {
        let query = "prefix=a%20b&X-Amz-Signature=f&x%2Damz-date=1&list-type=2&X-Amz-Credential=c&versionId=v";
        assert_eq!(query_of(query), "prefix=a%20b&list-type=2&versionId=v");
        assert_eq!(query_of(""), "");
    }

    async fn sent(pieces: &[&'static str], end: Option<ApiError>, headers: HeaderMap) -> (String, Option<ApiError>) {
        let mut all: Vec<Result<Bytes, ApiError>> =
            pieces.iter().map(|p| Ok(Bytes::from_static(p.as_bytes()))).collect();
        all.extend(end.map(Err));
        let mut body = RequestBody::whole("");
        body.stream = futures::stream::iter(all).boxed();
        let sending = Arc::new(Sending::new());
        let expected = Expected::from_headers(&headers).unwrap();
        let frames: Vec<_> = checked(body, expected, sending.clone()).collect().await;
        let sent = frames.into_iter().filter_map(|f| f.ok()?.into_data().ok());
        (sent.map(|d| String::from_utf8(d.to_vec()).unwrap()).collect(), sending.refused())
    }

    #[tokio::test]
    async fn the_last_piece_of_a_body_is_sent_only_if_all_of_it_is_right() {
        let (whole, refused) = sent(&["ab", "cd"], None, HeaderMap::new()).await;
        assert_eq!((whole.as_str(), refused.is_none()), ("abcd", true));
        let error = ApiError::new(StatusCode::BAD_REQUEST, "XAmzContentSHA256Mismatch", "no");
        let (part, refused) = sent(&["ab", "cd"], Some(error), HeaderMap::new()).await;
        assert_eq!((part.as_str(), refused.unwrap().code.as_ref()), ("ab", "XAmzContentSHA256Mismatch"));
        // The MD5 of "x".
        let md5 = map(&[("content-md5", "nd8UxMKdYDwxPIaC/yhz5g==")]);
        let (part, refused) = sent(&["ab", "cd"], None, md5.clone()).await;
        assert_eq!((part.as_str(), refused.unwrap().code.as_ref()), ("ab", "BadDigest"));
        let trailer = map(&[("x-amz-trailer", "x-amz-checksum-crc32")]);
        let (_, refused) = sent(&["ab"], None, trailer).await;
        assert_eq!(refused.unwrap().code.as_ref(), "MalformedTrailerError", "the trailer that never came");
    }
}
