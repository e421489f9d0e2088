//! HTTP in, HTTP out: a verified request is put right for `s3s`, which routes and parses it and writes the answer.
//!
//! `s3s` knows no caller here: the signature was verified before, and everything that belongs to it (headers, query
//! parameters, the aws-chunked coding) is taken out, since `s3s` without an authentication provider refuses signed
//! requests. What it would get wrong is decided here: sub-resources it does not know (it would take the request for
//! PutObject or ListObjects), headers we cannot honour, documents with a DTD, forms (which it would take unsigned).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::BoxStream;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use longshore_store::{Budget, Held};
use longshore_wire::payload;
use longshore_wire::s3_actions::on_bucket;
use longshore_wire::xml::Element;
use longshore_wire::{ApiError, Asked, Caller, RequestId};
use percent_encoding::percent_decode_str;
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::service::{S3Service, S3ServiceBuilder};

use crate::checksum::{Expected, Hasher};
use crate::error::ObjectsError;
use crate::operations::{Backend, asks};
use crate::{Inner, Objects};

/// Bytes of an XML document in a request. The largest legal one, 10,000 parts with ETag and SHA-256, takes about 2 MiB.
const DOCUMENT_MAX: usize = 4 * 1024 * 1024;
/// Bytes of user metadata, names and values, as S3.
const METADATA_MAX: usize = 2 * 1024;

/// The body of an answer. An error in it ends the connection: the client sees fewer bytes than were announced.
pub type ResponseBody = BoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// The body of a request: decoded and checked against its signature as it is read. An error it ends with is what the
/// caller is told, and nothing is stored.
pub struct RequestBody {
    pub stream: BoxStream<'static, Result<Bytes, ApiError>>,
    /// Filled before the stream ends, if the request has trailers.
    pub trailers: Trailers,
    /// Of which what is held of it is taken; `None` for a body that is there already.
    budget: Option<Budget>,
}

impl std::fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestBody").field("trailers", &self.trailers).finish_non_exhaustive()
    }
}

impl RequestBody {
    /// A body that is there already.
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let stream = futures::stream::iter((!bytes.is_empty()).then_some(Ok(bytes))).boxed();
        Self { stream, trailers: Trailers::default(), budget: None }
    }

    /// A body that is still to come. If it is held in memory, then within `budget`.
    pub fn coming(
        stream: BoxStream<'static, Result<Bytes, ApiError>>,
        trailers: Trailers,
        budget: impl Into<Option<Budget>>,
    ) -> Self {
        Self { stream, trailers, budget: budget.into() }
    }

    /// Reads all of it into memory, at most `max` bytes. What that takes of the budget is to be held as long as the bytes are.
    pub async fn read_whole(mut self, max: usize) -> Result<Whole, ApiError> {
        let mut held = self.budget.map(|budget| budget.held());
        let slow_down =
            |_| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "SlowDown", "Please reduce your request rate.");
        let mut bytes = BytesMut::new();
        loop {
            let piece = match &mut held {
                Some(held) => held.next(self.stream.next()).await.map_err(slow_down)?,
                None => self.stream.next().await,
            };
            let Some(piece) = piece.transpose()? else { break };
            let length = bytes.len() + piece.len();
            if length > max {
                let message = "Your request was too big.";
                return Err(ApiError::new(StatusCode::BAD_REQUEST, "MaxMessageLengthExceeded", message));
            }
            if let Some(held) = &mut held {
                held.grow(length).await.map_err(slow_down)?;
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(Whole { bytes: bytes.freeze(), trailers: self.trailers, held })
    }
}

/// A body that is in memory, and what it takes of its budget.
#[derive(Debug)]
pub struct Whole {
    pub bytes: Bytes,
    pub trailers: Trailers,
    pub held: Option<Held>,
}

/// Where the trailers of a body will be once it was read to its end; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Trailers(Arc<OnceLock<payload::Trailers>>);

impl Trailers {
    /// Called by whoever decodes the body, before the stream ends. The first call counts.
    pub fn set(&self, trailers: payload::Trailers) {
        let _ = self.0.set(trailers);
    }

    /// The value of a trailer; `None` before the end, and without it.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get()?.get(name)
    }
}

/// What an operation is given besides its input.
#[derive(Debug)]
pub(crate) struct Context {
    pub caller: Caller,
    /// The bucket that the request names.
    pub bucket: Option<String>,
    /// For the log: of the request that this is about.
    pub request_id: String,
    pub expected: Expected,
    pub trailers: Trailers,
    /// Bytes of the body that were announced.
    pub announced: Option<u64>,
    /// What went wrong, in full; `s3s` carries a code and a message only.
    pub failed: Mutex<Option<ObjectsError>>,
}

pub(crate) fn service(inner: Arc<Inner>) -> S3Service {
    let mut config = S3Config::default();
    config.xml_max_body_size = DOCUMENT_MAX;
    let mut builder = S3ServiceBuilder::new(Backend(inner));
    builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
    builder.build()
}

impl Objects {
    /// Serves one S3 request. `host_bucket` is the bucket that the host names in virtual-hosted style; without one the
    /// path names it. The body is read only by operations that take one; all of it, if they succeed.
    pub async fn serve(
        &self,
        caller: &Caller,
        parts: http::request::Parts,
        host_bucket: Option<&str>,
        body: RequestBody,
        request_id: &RequestId,
    ) -> http::Response<ResponseBody> {
        let method = parts.method.clone();
        let path = parts.uri.path().to_owned();
        let expects =
            parts.headers.get(header::EXPECT).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        let empty = parts.headers.get(header::CONTENT_LENGTH).is_some_and(|v| v == "0");
        let (body, read) = watched(body);
        let mut response = match self.answer(caller, parts, host_bucket, body, request_id).await {
            Ok(response) => response,
            Err(error) => {
                let told = error.told();
                if told.status == StatusCode::INTERNAL_SERVER_ERROR {
                    tracing::error!(%request_id, %method, path, %error, code = %told.code, "S3 request failed");
                } else {
                    tracing::debug!(%request_id, %method, path, %error, code = %told.code, "S3 request refused");
                }
                refusal(&error, told, &method, &path, request_id)
            }
        };
        let headers = response.headers_mut();
        if let Ok(value) = HeaderValue::from_str(&request_id.0) {
            headers.insert("x-amz-request-id", value);
        }
        if let Ok(value) = HeaderValue::from_str(&request_id.host_id()) {
            headers.insert("x-amz-id-2", value);
        }
        headers.insert(header::SERVER, HeaderValue::from_static("longshore"));
        if expects && (empty || !read.load(Ordering::Relaxed)) {
            // `100 Continue` is sent when a body is first read. A botocore client that was answered without it takes
            // the next answer on that connection for garbage and waits a minute; S3 closes the connection as well.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    async fn answer(
        &self,
        caller: &Caller,
        mut parts: http::request::Parts,
        host_bucket: Option<&str>,
        body: RequestBody,
        request_id: &RequestId,
    ) -> Result<http::Response<ResponseBody>, ObjectsError> {
        if caller.account() != self.inner.settings.account {
            return Err(ObjectsError::AccessDenied("Access Denied".into()));
        }
        let target = Target::of(&parts, host_bucket)?;
        for (name, value) in &target.hoisted {
            if !parts.headers.contains_key(name) {
                parts.headers.insert(name, value.clone());
            }
        }
        let announced = announced_length(&parts.headers)?;
        let expected = Expected::from_headers(&parts.headers)?;
        put_right(&mut parts.headers)?;
        refuse_unsupported(&parts.method, &parts.headers, &target, &self.inner.settings.account)?;
        parts.uri = target
            .uri()
            .parse()
            .map_err(|_| ObjectsError::Refused("InvalidURI", "Couldn't parse the specified URI.".into()))?;

        let request_id = request_id.0.clone();
        let (caller, bucket) = (caller.clone(), target.bucket.clone());
        let trailers = body.trailers.clone();
        let mut context =
            Context { caller, bucket, request_id, expected, trailers, announced, failed: Mutex::default() };
        let streams = parts.method == Method::PUT
            && target.key.is_some()
            && !parts.headers.contains_key("x-amz-copy-source")
            && !target.has_any(&["acl", "legal-hold", "retention", "tagging"]);
        // Until the answer is there: what the document says is held that long.
        let mut _held = None;
        let body = if streams {
            if announced.is_none() {
                return Err(ObjectsError::MissingContentLength);
            }
            let frames = body.stream.map(|piece| piece.map(http_body::Frame::data));
            s3s::Body::http_body_unsync(StreamBody::new(frames))
        } else {
            let asks = target.asks_before_body(&parts.method, &parts.headers, &self.inner.settings.region);
            self.inner.allow_before_body(&context.caller, asks).await?;
            let (document, held) = document(body, &mut context).await?;
            _held = held;
            parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(document.len()));
            s3s::Body::from(document)
        };
        let context = Arc::new(context);
        parts.extensions.insert(context.clone());
        let response = self
            .service
            .call(http::Request::from_parts(parts, body))
            .await
            .map_err(|e| ObjectsError::Io("answering".into(), std::io::Error::other(s3s::StdError::from(e))))?;
        if let Some(error) = context.failed.lock().unwrap_or_else(|e| e.into_inner()).take() {
            return Err(error);
        }
        let (mut parts, body) = response.into_parts();
        if parts.status.is_client_error() || parts.status.is_server_error() {
            return Err(refused_by_parser(parts.status, body.bytes()));
        }
        if parts.headers.contains_key(header::CONTENT_RANGE) {
            // `s3s` has one status for HeadObject, whatever the operation says.
            parts.status = StatusCode::PARTIAL_CONTENT;
        }
        if let Some(length) = http_body::Body::size_hint(&body).exact()
            && !parts.headers.contains_key(header::CONTENT_LENGTH)
            && parts.status != StatusCode::NO_CONTENT
        {
            parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        Ok(http::Response::from_parts(parts, BodyExt::boxed(body)))
    }
}

/// The same body, and whether anybody has begun to read it.
fn watched(body: RequestBody) -> (RequestBody, Arc<AtomicBool>) {
    let read = Arc::new(AtomicBool::new(false));
    let begun = read.clone();
    let mark = futures::stream::once(async move { begun.store(true, Ordering::Relaxed) }).filter_map(async |()| None);
    let RequestBody { stream, trailers, budget } = body;
    (RequestBody { stream: mark.chain(stream).boxed(), trailers, budget }, read)
}

/// What `s3s` said about a request that it did not let through to an operation.
fn refused_by_parser(status: StatusCode, body: Option<Bytes>) -> ObjectsError {
    let document = body.and_then(|bytes| Element::parse(&bytes).ok());
    let text = |name| document.as_ref().and_then(|d| d.child_text(name)).unwrap_or_default().to_owned();
    let (code, message) = (text("Code"), text("Message"));
    let message = match (&*code, message.is_empty()) {
        (_, false) => message,
        ("InvalidBucketName", true) => "The specified bucket is not valid.".into(),
        ("InvalidURI", true) => "Couldn't parse the specified URI.".into(),
        ("KeyTooLongError", true) => "Your key is too long".into(),
        ("MalformedXML", true) => {
            "The XML you provided was not well-formed or did not validate against our published schema".into()
        }
        ("MissingRequestBodyError", true) => "Request Body is empty".into(),
        ("MethodNotAllowed", true) => "The specified method is not allowed against this resource.".into(),
        (_, true) => "The request could not be read.".into(),
    };
    let code = if code.is_empty() { "InternalError".to_owned() } else { code };
    ObjectsError::Upload(ApiError::new(status, code, message))
}

fn refusal(
    error: &ObjectsError,
    told: ApiError,
    method: &Method,
    path: &str,
    request_id: &RequestId,
) -> http::Response<ResponseBody> {
    let told = if told.members.is_empty() { told.with("Resource", path) } else { told };
    let made = told.s3(request_id);
    let empty = *method == Method::HEAD || made.status == StatusCode::NOT_MODIFIED;
    let mut response = http::Response::new(Full::new(if empty { Bytes::new() } else { made.body }));
    *response.status_mut() = made.status;
    if !empty {
        *response.headers_mut() = made.headers;
        let length = http_body::Body::size_hint(response.body()).exact().unwrap_or(0);
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    let mut set = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    };
    match error {
        ObjectsError::NotModified { etag, modified_ms } => {
            set("etag", etag);
            set("last-modified", &crate::operations::http_date(*modified_ms));
        }
        ObjectsError::DeleteMarker { version, .. } => {
            set("x-amz-delete-marker", "true");
            set("x-amz-version-id", version);
        }
        ObjectsError::InvalidRange { size } => set("content-range", &format!("bytes */{size}")),
        _ => {}
    }
    response.map(|body| body.map_err(|never| match never {}).boxed())
}

/// What a request is about, as its path and query say, decoded once.
struct Target {
    /// The path in path style, still encoded.
    path: String,
    bucket: Option<String>,
    key: Option<String>,
    /// Raw pairs that are not about authentication.
    query: Vec<(String, String)>,
    /// Headers that a presigned URL carries in its query.
    hoisted: Vec<(HeaderName, HeaderValue)>,
}

/// Query parameters of a signature, in lower case.
const SIGNATURE_PARAMETERS: [&str; 8] = [
    "x-amz-algorithm",
    "x-amz-credential",
    "x-amz-date",
    "x-amz-expires",
    "x-amz-signedheaders",
    "x-amz-signature",
    "x-amz-security-token",
    "x-amz-content-sha256",
];

impl Target {
    fn of(parts: &http::request::Parts, host_bucket: Option<&str>) -> Result<Self, ObjectsError> {
        let invalid = || ObjectsError::Refused("InvalidURI", "Couldn't parse the specified URI.".into());
        let path = match host_bucket {
            Some(bucket) => format!("/{bucket}{}", parts.uri.path()),
            None => parts.uri.path().to_owned(),
        };
        let decoded = percent_decode_str(&path).decode_utf8().map_err(|_| invalid())?;
        let rest = decoded.strip_prefix('/').ok_or_else(invalid)?;
        let (bucket, key) = match rest.split_once('/') {
            Some((bucket, key)) => (bucket, Some(key).filter(|k| !k.is_empty()).map(str::to_owned)),
            None => (rest, None),
        };
        let bucket = Some(bucket.to_owned()).filter(|b| !b.is_empty());
        let raw = parts.uri.query().unwrap_or("");
        let presigned = raw.split('&').any(|pair| pair.starts_with("X-Amz-Signature="));
        let mut query = Vec::new();
        let mut hoisted = Vec::new();
        for pair in raw.split('&').filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let plain = percent_decode_str(name).decode_utf8().map_err(|_| invalid())?;
            let lower = plain.to_ascii_lowercase();
            if SIGNATURE_PARAMETERS.contains(&&*lower) {
                continue;
            }
            if presigned && lower.starts_with("x-amz-") {
                let value = percent_decode_str(value).decode_utf8().map_err(|_| invalid())?;
                let name = HeaderName::from_bytes(lower.as_bytes()).map_err(|_| invalid())?;
                hoisted.push((name, HeaderValue::from_str(&value).map_err(|_| invalid())?));
                continue;
            }
            query.push((name.to_owned(), value.to_owned()));
        }
        Ok(Self { path, bucket, key, query, hoisted })
    }

    /// What an operation that takes a document asks for, where the document hardly changes the question: one of these, or nothing where that
    /// is not known. Then nobody's document is read who may not hand one in. The operation asks again, with what it was parsed to.
    fn asks_before_body(&self, method: &Method, headers: &HeaderMap, region: &str) -> Vec<Asked> {
        let Some(bucket) = self.bucket.as_deref() else { return Vec::new() };
        match (method, &self.key) {
            (&Method::POST, Some(key)) if self.has_any(&["uploadId"]) => vec![asks::completing(bucket, key, headers)],
            (&Method::PUT, None) if self.has_any(&["versioning"]) => vec![on_bucket("s3:PutBucketVersioning", bucket)],
            (&Method::PUT, None) if self.query.iter().all(|(name, _)| name == "x-id") => {
                asks::making_bucket_in(bucket, region)
            }
            _ => Vec::new(),
        }
    }

    fn has_any(&self, names: &[&str]) -> bool {
        self.query.iter().any(|(name, _)| names.contains(&name.as_str()))
    }

    fn uri(&self) -> String {
        let mut uri = self.path.clone();
        for (at, (name, value)) in self.query.iter().enumerate() {
            uri.push(if at == 0 { '?' } else { '&' });
            uri.push_str(name);
            uri.push('=');
            uri.push_str(value);
        }
        uri
    }
}

fn announced_length(headers: &HeaderMap) -> Result<Option<u64>, ObjectsError> {
    for name in ["x-amz-decoded-content-length", "content-length"] {
        if let Some(value) = headers.get(name) {
            return match value.to_str().ok().and_then(|v| v.parse().ok()) {
                Some(length) => Ok(Some(length)),
                None => Err(ObjectsError::InvalidArgument(format!("The value of {name} is no length."))),
            };
        }
    }
    Ok(None)
}

/// Takes out what belongs to the signature and to the transfer, so that the headers describe the decoded body.
fn put_right(headers: &mut HeaderMap) -> Result<(), ObjectsError> {
    if let Some(length) = headers.remove("x-amz-decoded-content-length") {
        headers.insert(header::CONTENT_LENGTH, length);
    }
    for name in ["authorization", "x-amz-date", "x-amz-security-token", "x-amz-content-sha256", "host", "expect"] {
        headers.remove(name);
    }
    headers.remove(header::TRANSFER_ENCODING);
    let codings: Vec<String> = headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .map(|v| v.to_str().map_err(|_| ObjectsError::InvalidArgument("Content-Encoding is not text.".into())))
        .collect::<Result<Vec<_>, _>>()?
        .iter()
        .flat_map(|v| v.split(','))
        .map(|coding| coding.trim().to_owned())
        .filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("aws-chunked"))
        .collect();
    headers.remove(header::CONTENT_ENCODING);
    if !codings.is_empty()
        && let Ok(value) = HeaderValue::from_str(&codings.join(","))
    {
        headers.insert(header::CONTENT_ENCODING, value);
    }
    // S3 ignores a Range that it cannot read; the whole object is a right answer to any range.
    if let Some(range) = headers.get(header::RANGE)
        && !range.to_str().is_ok_and(|r| s3s::dto::Range::parse(r).is_ok())
    {
        headers.remove(header::RANGE);
    }
    Ok(())
}

/// Sub-resources of S3 that this version of `s3s` does not know, or takes for something else on this path.
const UNKNOWN_BUCKET_RESOURCES: [&str; 6] = [
    "abac",
    "metadataConfiguration",
    "metadataInventoryTable",
    "metadataJournalTable",
    "metadataAnnotationTable",
    "events",
];
const UNKNOWN_OBJECT_RESOURCES: [&str; 4] = ["append", "encryption", "renameObject", "annotation"];

/// Headers that ask for something that is not built. Ignoring one would promise what is not done.
const UNSUPPORTED_HEADERS: [(&str, &str); 12] = [
    ("x-amz-server-side-encryption", "Server-side encryption"),
    ("x-amz-server-side-encryption-aws-kms-key-id", "Server-side encryption"),
    ("x-amz-server-side-encryption-customer-algorithm", "Server-side encryption with customer keys"),
    ("x-amz-copy-source-server-side-encryption-customer-algorithm", "Server-side encryption with customer keys"),
    ("x-amz-object-lock-mode", "Object Lock"),
    ("x-amz-object-lock-retain-until-date", "Object Lock"),
    ("x-amz-object-lock-legal-hold", "Object Lock"),
    ("x-amz-website-redirect-location", "Website redirection"),
    ("x-amz-write-offset-bytes", "Appending to objects"),
    ("x-amz-rename-source", "RenameObject"),
    ("x-amz-if-match-last-modified-time", "The condition x-amz-if-match-last-modified-time"),
    ("x-amz-if-match-size", "The condition x-amz-if-match-size"),
];

fn refuse_unsupported(
    method: &Method,
    headers: &HeaderMap,
    target: &Target,
    account: &str,
) -> Result<(), ObjectsError> {
    let unknown: &[&str] = if target.key.is_some() { &UNKNOWN_OBJECT_RESOURCES } else { &UNKNOWN_BUCKET_RESOURCES };
    if let Some((name, _)) = target.query.iter().find(|(name, _)| unknown.contains(&name.as_str())) {
        return Err(ObjectsError::NotImplemented(format!("The sub-resource {name}")));
    }
    let form = headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|v| v.trim_start().to_ascii_lowercase().starts_with("multipart/form-data"));
    if *method == Method::POST && form {
        return Err(ObjectsError::NotImplemented("POST Object (an upload by a form)".into()));
    }
    for (name, what) in UNSUPPORTED_HEADERS {
        if headers.contains_key(name) {
            return Err(ObjectsError::NotImplemented(what.into()));
        }
    }
    if headers.keys().any(|name| name.as_str().starts_with("x-amz-grant-")) {
        return Err(ObjectsError::Refused("AccessControlListNotSupported", "The bucket does not allow ACLs".into()));
    }
    if let Some(acl) = headers.get("x-amz-acl")
        && acl != "private"
        && acl != "bucket-owner-full-control"
    {
        return Err(ObjectsError::Refused("AccessControlListNotSupported", "The bucket does not allow ACLs".into()));
    }
    for name in ["x-amz-expected-bucket-owner", "x-amz-source-expected-bucket-owner"] {
        if headers.get(name).is_some_and(|owner| owner != account) {
            return Err(ObjectsError::AccessDenied("Access Denied".into()));
        }
    }
    let metadata: usize = headers
        .iter()
        .filter_map(|(name, value)| Some(name.as_str().strip_prefix("x-amz-meta-")?.len() + value.len()))
        .sum();
    if metadata > METADATA_MAX {
        return Err(ObjectsError::MetadataTooLarge);
    }
    if target.bucket.is_none() && *method != Method::GET {
        return Err(ObjectsError::Upload(ApiError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            "The specified method is not allowed against this resource.",
        )));
    }
    Ok(())
}

/// Reads a small body whole, checks it, and writes the XML in it anew: without DTD, comments or CDATA, and not too deep.
async fn document(body: RequestBody, context: &mut Context) -> Result<(Bytes, Option<Held>), ObjectsError> {
    let Whole { bytes: body, held, .. } = body.read_whole(DOCUMENT_MAX).await.map_err(ObjectsError::Upload)?;
    let received = body.len() as u64;
    if let Some(announced) = context.announced
        && announced != received
    {
        return Err(ObjectsError::IncompleteBody { received, announced });
    }
    if body.is_empty() {
        return Ok((Bytes::new(), held));
    }
    let mut hasher = Hasher::new(context.expected.algorithm());
    hasher.update(&body);
    // On CompleteMultipartUpload these headers speak of the object, and the operation checks them.
    let root = Element::parse(&body);
    if !root.as_ref().is_ok_and(|root| root.name == "CompleteMultipartUpload") {
        context.expected.check(&hasher.finish(), |name| context.trailers.get(name))?;
    }
    let root = root.map_err(|e| ObjectsError::MalformedXml(e.to_string()))?;
    let mut out = String::with_capacity(body.len());
    write_element(&mut out, &root);
    Ok((out.into(), held))
}

/// As plain as XML can be. Control characters stay as they are: `s3s` reads them, and not as references.
fn write_element(out: &mut String, element: &Element) {
    out.push('<');
    out.push_str(&element.name);
    out.push('>');
    if element.children.is_empty() {
        for c in element.text.chars() {
            match c {
                '&' => out.push_str("&amp;"),
                '<' => out.push_str("&lt;"),
                '>' => out.push_str("&gt;"),
                c => out.push(c),
            }
        }
    }
    for child in &element.children {
        write_element(out, child);
    }
    out.push_str("</");
    out.push_str(&element.name);
    out.push('>');
}
