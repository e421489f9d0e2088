//! From a request on the wire to the room that answers it: whose is it, is it signed, what does it ask for.
//!
//! Everything is refused unless its signature holds; open are the health check, and links to a function's code, which
//! carry a signature of ours. The room is found by the service
//! in the credential scope, then by the path. What a refusal looks like follows from what the client spoke.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use http::header::{ACCEPT, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, HeaderValue, SERVER};
use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body, Frame};
use longshore_functions::Functions;
use longshore_identity::Identity;
use longshore_jobs::{JobError, Jobs};
use longshore_store::{Budget, Fatal};
use longshore_wire::payload::{Decoder, PayloadForm};
use longshore_wire::sigv4::{AuthError, Claim, Dialect, Rules};
use longshore_wire::{ApiError, Asked, Caller, Query, Request, RequestId, Response};
use sha2::{Digest, Sha256};

use crate::access::Callers;
use crate::bodies::{Bodies, Unread, read_whole};
use crate::brake::Brake;
use crate::listener::{Answer, AnswerBody, Connection, RequestBody, Service};
use crate::metrics::Metrics;
use crate::names::{Host, Names, Refused};
use crate::rooms::S3;

/// The one route that needs no permission at all. (A link to a function's code has its permission in its query.)
const HEALTH: &str = "/_longshore/health";
/// All paths of S3 Control begin so.
const CONTROL: &str = "/v20180820/";
/// Every request of S3 Control has it.
const ACCOUNT: &str = "x-amz-account-id";
/// Names the operation where a service takes JSON at one path.
const TARGET: &str = "x-amz-target";
/// What a path means to nobody but us, never an object.
const OURS: &str = "/_longshore/";
/// Our own API beside AWS's, signed as S3's is.
const OWN: &str = "/_longshore/v1/";
const METRICS: &str = "/_longshore/v1/metrics";
/// What an anonymous request for metrics is told beside its refusal.
const NO_METRICS_HERE: &str = ": metrics are served without a signature only where \"longshore serve --metrics-listen \
                               127.0.0.1:7302\" (or metrics_listen in longshore.toml) says so; with one, at /_longshore/v1/metrics.";

/// The largest legal CreateJob is far below.
const CONTROL_BODY_MAX: u64 = 1024 * 1024;
const BROKEN_OFF: &str = "The body broke off, or came too slowly.";
/// Of a refused request so much is read and thrown away, for a client that is hung up on while it sends may not see
/// the answer.
const DRAINED_MAX: u64 = 16 * 1024 * 1024;
const DRAIN_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(5);

/// Answers all requests of one listener.
pub struct Dispatch {
    pub names: Names,
    pub access: Callers,
    /// What may stand before the paths of S3 Control: empty, or like `/base`.
    pub base_path: String,
    pub s3: S3,
    pub functions: Functions,
    pub jobs: Jobs,
    pub fatal: Fatal,
    pub bodies: Bodies,
    pub brake: Brake,
    pub metrics: Arc<Metrics>,
}

/// Which API a request is for, and so in which form its errors are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Api {
    S3,
    S3Control,
    Lambda,
    Own,
    /// IAM and STS.
    Identity,
    /// A service that there is not here: whoever can prove who they are is told so.
    Elsewhere(Form),
}

/// In which form the clients of other services read errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Query,
    Ec2,
    Json,
}

impl Form {
    /// By what the service's clients send. What is of no known form gets XML, as those of CloudFront or Route 53 read it.
    fn of(service: &str, path: &str, headers: &HeaderMap) -> Self {
        let json = |name| headers.get(name).and_then(|v| v.to_str().ok()).is_some_and(|v| v.contains("json"));
        // The dates in front of their paths are as those of JSON services.
        let xml = matches!(service, "cloudfront" | "route53");
        if matches!(service, "ec2" | "sdb") {
            Self::Ec2
        } else if headers.contains_key(TARGET)
            || [CONTENT_TYPE, ACCEPT].into_iter().any(json)
            || (is_dated(path) && !xml)
        {
            Self::Json
        } else {
            Self::Query
        }
    }
}

impl Api {
    /// By the service that signed, where one did; else by what the path looks like, without the base path.
    /// An `x-amz-account-id` is in no request to S3.
    fn of(service: Option<&str>, path: &str, host: &Host, headers: &HeaderMap) -> Self {
        let account_named = headers.contains_key(ACCOUNT);
        // In virtual-hosted style a key may begin with "v20180820/".
        let control = path.starts_with(CONTROL) && (host.names_no_bucket() || account_named);
        match service {
            Some("lambda") => Self::Lambda,
            _ if path.starts_with(OWN) && host.names_no_bucket() => Self::Own,
            _ if control => Self::S3Control,
            Some("s3") => Self::S3,
            Some("iam" | "sts") => Self::Identity,
            Some(other) => Self::Elsewhere(Form::of(other, path, headers)),
            _ if is_dated(path) => Self::Lambda,
            _ => Self::S3,
        }
    }

    fn dialect(self) -> Dialect {
        match self {
            Self::Identity => Dialect::Query,
            Self::S3 | Self::S3Control | Self::Own | Self::Elsewhere(_) => Dialect::S3,
            Self::Lambda => Dialect::Lambda,
        }
    }

    /// Its place in [`crate::metrics::APIS`].
    fn place(self) -> usize {
        match self {
            Self::S3 | Self::Elsewhere(_) => 0,
            Self::S3Control => 1,
            Self::Lambda => 2,
            Self::Own => 3,
            Self::Identity => 4,
        }
    }

    /// The services that may stand in the scope of what it is asked.
    fn services(self) -> &'static [&'static str] {
        match self {
            Self::Identity => &["iam", "sts"],
            _ => &["s3", "lambda"],
        }
    }

    /// Of a request whose headers may not have been read.
    fn guess(path: &str) -> Self {
        Self::of(None, path, &Host { prefix: None, port: None }, &HeaderMap::new())
    }

    fn refuse(self, error: &ApiError, id: &RequestId) -> Answer {
        answer(match self {
            Self::S3 => error.s3(id),
            Self::S3Control => error.s3_control(id),
            Self::Lambda => error.lambda(),
            Self::Own => error.json(id),
            Self::Identity | Self::Elsewhere(Form::Query) => error.query(id),
            Self::Elsewhere(Form::Ec2) => error.ec2(id),
            Self::Elsewhere(Form::Json) => error.typed_json(),
        })
    }
}

/// Whether a path begins like Lambda's: `/2015-03-31/`.
fn is_dated(path: &str) -> bool {
    let mut segments = path.trim_start_matches('/').splitn(2, '/');
    let date = segments.next().unwrap_or("").as_bytes();
    segments.next().is_some()
        && date.len() == 10
        && date.iter().enumerate().all(|(i, b)| if matches!(i, 4 | 7) { *b == b'-' } else { b.is_ascii_digit() })
}

impl Service for Dispatch {
    async fn answer(&self, request: http::Request<RequestBody>) -> Answer {
        let began = Instant::now();
        let id = RequestId(uuid::Uuid::new_v4().to_string());
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let api = Api::guess(self.after_base(&path));
        let expects = request.headers().contains_key(EXPECT);
        let answered = AssertUnwindSafe(self.find_answer(request, &id)).catch_unwind().await;
        let mut answer = answered.unwrap_or_else(|_| {
            tracing::error!(request_id = %id, %method, path, "request panicked");
            let internal =
                |code: &'static str, message: &str| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, code, message);
            let error = match api {
                Api::Lambda => internal("ServiceException", "Internal error. Please try again."),
                Api::S3Control | Api::Own => self.jobs.tell(&JobError::Panicked),
                Api::S3 | Api::Identity | Api::Elsewhere(_) => {
                    internal("InternalError", "We encountered an internal error. Please try again.")
                }
            };
            api.refuse(&error, &id)
        });
        let refused = !answer.status().is_success();
        let headers = answer.headers_mut();
        for (name, value) in [("x-amz-request-id", &id.0), ("x-amzn-requestid", &id.0), ("x-amz-id-2", &id.host_id())] {
            let value = HeaderValue::from_str(value).expect("a UUID and its base64 are ASCII");
            headers.entry(name).or_insert(value);
        }
        headers.entry(SERVER).or_insert(HeaderValue::from_static("longshore"));
        if expects && refused {
            // The body was not waited for, and may come all the same once the client has waited long enough: it is no next request.
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        self.metrics.requests.count(api.place(), answer.status());
        let ms = began.elapsed().as_millis();
        tracing::debug!(request_id = %id, %method, path, status = answer.status().as_u16(), ms, "request answered");
        answer
    }
}

impl Dispatch {
    /// The path behind the base path, where that stands before one of S3 Control (rule N-13); else the path as it is.
    fn after_base<'p>(&self, path: &'p str) -> &'p str {
        path.strip_prefix(self.base_path.as_str()).filter(|rest| rest.starts_with(CONTROL)).unwrap_or(path)
    }

    async fn find_answer(&self, request: http::Request<RequestBody>, id: &RequestId) -> Answer {
        let (parts, body) = request.into_parts();
        if parts.method == Method::CONNECT {
            return plain(StatusCode::FORBIDDEN, "This is Longshore, not a proxy: it opens no tunnels.");
        }
        let path = self.after_base(parts.uri.path());
        let mut hosts = parts.headers.get_all(HOST).iter();
        let host = hosts.next().and_then(|host| host.to_str().ok());
        let host = match hosts.next() {
            None => self.names.admit(&parts.uri, host),
            // Of two, the one who looks behind us may take the other.
            Some(_) => Err(Refused {
                status: StatusCode::BAD_REQUEST,
                reason: "The request has more than one Host header.".to_owned(),
            }),
        };
        let host = match host {
            Ok(host) => host,
            Err(refused) => {
                drain(&parts, body).await;
                return Api::guess(path).refuse(&refused.error(), id);
            }
        };
        if path == HEALTH && parts.method == Method::GET {
            return match self.fatal.reason() {
                None => answer(Response::json(StatusCode::OK, &serde_json::json!({"status": "ok"}))),
                Some(_) => {
                    answer(Response::json(StatusCode::SERVICE_UNAVAILABLE, &serde_json::json!({"status": "stopping"})))
                }
            };
        }
        if path.starts_with(Functions::DOWNLOAD_PREFIX) && parts.method == Method::GET {
            return self.download(path, &Query::parse(parts.uri.query()), id);
        }
        let target = parts.uri.path_and_query().map_or("/", |t| t.as_str());
        let claim = match Claim::parse(&parts.method, target, &parts.headers) {
            Ok(claim) => claim,
            Err(error) => {
                let api = Api::of(None, path, &host, &parts.headers);
                self.access.refused(None, connection(&parts), &error, id);
                return self.refuse_caller(api, &error, &parts, body, id).await;
            }
        };
        let api = Api::of(Some(claim.service()), path, &host, &parts.headers);
        if path.starts_with(OURS) && api != Api::Own {
            drain(&parts, body).await;
            let none = ApiError::new(StatusCode::NOT_FOUND, "NoSuchResource", "There is nothing at this path.");
            return api.refuse(&none, id);
        }
        match api {
            Api::S3 => {
                let caller = match self.access.verify(&claim, api.services(), connection(&parts), None, id) {
                    Ok(caller) => caller,
                    Err(error) => return self.refuse_caller(api, &error, &parts, body, id).await,
                };
                self.serve_s3(&caller, parts, &host, body, id).await
            }
            Api::Elsewhere(_) => self.tell_not_here(api, &claim, parts, body, id).await,
            Api::S3Control | Api::Lambda | Api::Own | Api::Identity => {
                self.serve_control(api, &claim, parts, &host, body, id).await
            }
        }
    }

    async fn refuse_caller(
        &self,
        api: Api,
        error: &AuthError,
        parts: &http::request::Parts,
        body: RequestBody,
        id: &RequestId,
    ) -> Answer {
        drain(parts, body).await;
        self.tell_refused(api, error, error, parts, id).await
    }

    /// Tells a caller that it is none, late and for the last time on its connection if it is told so all the time. `true_one`: why it is
    /// none, which may not be what it is told.
    async fn tell_refused(
        &self,
        api: Api,
        error: &AuthError,
        true_one: &AuthError,
        parts: &http::request::Parts,
        id: &RequestId,
    ) -> Answer {
        let late = connection(parts).and_then(|connection| self.brake.failed(connection.peer.ip(), true_one));
        if let Some(late) = late {
            if let Some(place) = parts.extensions.get::<crate::listener::Place>() {
                place.give_up();
            }
            tokio::time::sleep(late).await;
        }
        let mut told = error.told(api.dialect());
        if matches!(error, AuthError::Missing) && wants_metrics(parts.uri.path()) {
            told.message.push_str(NO_METRICS_HERE);
        }
        let mut answer = api.refuse(&told, id);
        if late.is_some() {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }

    /// Sends a function's package to whoever has a link to it, as GetFunction makes them.
    fn download(&self, path: &str, query: &Query, id: &RequestId) -> Answer {
        let found = match self.functions.download(path, query) {
            Ok(found) => found,
            Err(error) => return Api::S3.refuse(&error, id),
        };
        let file = tokio::fs::File::from_std(found.file);
        let pieces = tokio_util::io::ReaderStream::with_capacity(file, 256 * 1024);
        let body = StreamBody::new(pieces.map(|piece| piece.map(Frame::data).map_err(Into::into)));
        let mut made = http::Response::new(body.boxed_unsync());
        made.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/zip"));
        made.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(found.size));
        made
    }

    async fn serve_s3(
        &self,
        caller: &Caller,
        parts: http::request::Parts,
        host: &Host,
        body: RequestBody,
        id: &RequestId,
    ) -> Answer {
        let decoder = match caller.verified().decoder() {
            Ok(decoder) => decoder,
            Err(error) => {
                drain(&parts, body).await;
                return Api::S3.refuse(&error.told(), id);
            }
        };
        let body = decoded(body, decoder, self.bodies.documents.clone());
        let served = self.s3.serve(caller, parts, host.prefix.as_deref(), body, id).await;
        served.map(BodyExt::boxed_unsync)
    }

    /// Answers a request to a service that there is not here. What there is instead is told to those alone whose signature
    /// holds, in whatever region; everybody else hears of the service's name in the scope, as before a look at the key.
    async fn tell_not_here(
        &self,
        api: Api,
        claim: &Claim,
        parts: http::request::Parts,
        body: RequestBody,
        id: &RequestId,
    ) -> Answer {
        let service = claim.service();
        let wrong = AuthError::Service { given: service.to_owned(), presigned: claim.is_presigned() };
        let announced = parts.headers.get(CONTENT_LENGTH).and_then(|l| l.to_str().ok()?.parse::<u64>().ok());
        let large = announced.is_some_and(|length| length > CONTROL_BODY_MAX);
        if !self.access.knows(claim) || large {
            self.access.refused(Some(claim), connection(&parts), &wrong, id);
            drain(&parts, body).await;
            let unknown = AuthError::UnknownKey(claim.access_key_id().to_owned());
            return self.tell_refused(api, &wrong, if large { &wrong } else { &unknown }, &parts, id).await;
        }
        let rules = Rules {
            regions: &[claim.region()],
            services: &[service],
            unsigned_payload: self.access.unsigned_payload,
            // Kept keys are few, and these are asked for once in a while.
            keys: None,
        };
        let how = connection(&parts);
        let proven = match named(claim) {
            Some(hash) => {
                drain(&parts, body).await;
                self.access.prove(claim, &rules, how, Some(hash), id)
            }
            None => {
                let mut held = self.bodies.room(CONTROL_BODY_MAX, false).held();
                match read_whole(body, CONTROL_BODY_MAX, &mut held).await {
                    Ok(whole) => self.access.prove(claim, &rules, how, Some(Sha256::digest(&whole).into()), id),
                    Err(_) => return api.refuse(&wrong.told(api.dialect()), id),
                }
            }
        };
        if let Err(true_one) = proven {
            // Told in the words that a name of a service without a key has, and as late as any guess.
            return self.tell_refused(api, &wrong, &true_one, &parts, id).await;
        }
        let hint = match service {
            "logs" => " What a function printed is shown by \"longshore logs FUNCTION\".",
            _ => "",
        };
        let message = format!(
            "Longshore serves Amazon S3, S3 Control with the jobs of S3 Batch Operations, Lambda, IAM and STS; there is no {service} here.{hint}"
        );
        api.refuse(&ApiError::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", message), id)
    }

    /// Why a body was not read, in the words of the API that it is for.
    fn unread(&self, api: Api, parts: &http::request::Parts, why: &Unread) -> ApiError {
        match (api, why) {
            (Api::Lambda, Unread::TooLarge) => {
                longshore_functions::body_limit(&parts.method, parts.uri.path()).too_large()
            }
            (Api::Lambda, Unread::Broken(_)) => {
                ApiError::new(StatusCode::BAD_REQUEST, "InvalidRequestContentException", BROKEN_OFF)
            }
            (Api::Lambda, Unread::NoRoom(_)) => {
                ApiError::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequestsException", "Rate Exceeded.")
            }
            (Api::Identity, Unread::TooLarge) => {
                let message = format!("The request is too large: at most {CONTROL_BODY_MAX} bytes are taken.");
                ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
            }
            (Api::Identity, Unread::Broken(_)) => ApiError::new(StatusCode::BAD_REQUEST, "MalformedInput", BROKEN_OFF),
            (Api::Identity, Unread::NoRoom(_)) => ApiError::new(StatusCode::BAD_REQUEST, "Throttling", "Rate exceeded"),
            (_, Unread::TooLarge) => self.jobs.tell(&JobError::TooLarge(CONTROL_BODY_MAX)),
            (_, Unread::Broken(_)) => self.jobs.tell(&JobError::BrokenBody),
            (_, Unread::NoRoom(_)) => self.jobs.tell(&JobError::TooManyRequests),
        }
    }

    /// Reads the body whole, for its hash is part of what Lambda's clients sign.
    async fn serve_control(
        &self,
        api: Api,
        claim: &Claim,
        parts: http::request::Parts,
        host: &Host,
        body: RequestBody,
        id: &RequestId,
    ) -> Answer {
        if !self.access.knows(claim) {
            // Not worth a body of 70 MB. The work that verifying costs is done all the same.
            let verified = self.access.verify(claim, api.services(), connection(&parts), Some([0; 32]), id);
            let error = verified.err().unwrap_or(AuthError::Missing);
            return self.refuse_caller(api, &error, &parts, body, id).await;
        }
        let named = named(claim);
        if named.is_some()
            && let Err(error) = self.access.verify(claim, api.services(), connection(&parts), named, id)
        {
            return self.refuse_caller(api, &error, &parts, body, id).await;
        }
        let max = match api {
            Api::Lambda => longshore_functions::body_limit(&parts.method, parts.uri.path()).bytes as u64,
            _ => CONTROL_BODY_MAX,
        };
        let announced = parts.headers.get(CONTENT_LENGTH).and_then(|l| l.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|length| length > max) {
            drain(&parts, body).await;
            return api.refuse(&self.unread(api, &parts, &Unread::TooLarge), id);
        }
        // Until the request is answered: only then is its body gone.
        let mut held = self.bodies.room(max, named.is_some()).held();
        let whole = match read_whole(body, max, &mut held).await {
            Ok(whole) => whole,
            Err(why) => {
                tracing::debug!(request_id = %id, %why, "body was not read to its end");
                return api.refuse(&self.unread(api, &parts, &why), id);
            }
        };
        // Also where it was verified before: the body may have taken its time, and what counts is who may do what now.
        let body_sha256 = Some(Sha256::digest(&whole).into());
        let caller = match self.access.verify(claim, api.services(), connection(&parts), body_sha256, id) {
            Ok(caller) => caller,
            Err(error) => {
                // It may be told late, and is not to hold memory meanwhile.
                drop((whole, held));
                return self.tell_refused(api, &error, &error, &parts, id).await;
            }
        };
        let request = Request {
            method: parts.method,
            path: self.after_base(parts.uri.path()).to_owned(),
            query: Query::parse(parts.uri.query()),
            headers: parts.headers,
            body: whole,
            caller,
            request_id: id.clone(),
        };
        if api == Api::Own && request.path == METRICS {
            if let Err(why) = request.caller.may(&Asked::new("cloudwatch:GetMetricData", "*")) {
                return api.refuse(&self.jobs.tell(&JobError::Denied(why)), id);
            }
            if request.method != Method::GET {
                return api.refuse(&self.jobs.tell(&JobError::MethodNotAllowed), id);
            }
            return self.metrics.answer().await;
        }
        answer(match api {
            Api::Lambda => self.functions.serve(request).await,
            Api::Identity => match &self.access.identity {
                Some(identity) => identity.serve(request).await,
                None => longshore_identity::without_iam(&request).unwrap_or_else(|| off().query(id)),
            },
            Api::Own if request.path.starts_with(Identity::OWN_PREFIX) => match &self.access.identity {
                Some(identity) => identity.serve_own(request, &|function| self.functions.asks_invoke(function)).await,
                None => off().json(id),
            },
            Api::Own if request.path.starts_with(Functions::OWN_PREFIX) => self.functions.serve_own(request).await,
            Api::Own => self.jobs.serve_own(request, host.account()).await,
            _ => self.jobs.serve(request, host.account()).await,
        })
    }
}

/// The hash of the body where a header names it, or says that the body is unsigned: then the signature is verified before the body is
/// read. `None`: it is in the signature alone.
fn named(claim: &Claim) -> Option<[u8; 32]> {
    match claim.payload() {
        PayloadForm::Implied => None,
        PayloadForm::Hash(hash) => Some(hash),
        _ => Some([0; 32]),
    }
}

/// Reads what a refused client is still sending, up to a limit. One that waits for "100 Continue" sends nothing.
async fn drain(parts: &http::request::Parts, mut body: RequestBody) {
    if body.is_end_stream() || parts.headers.contains_key(EXPECT) {
        return;
    }
    if let Some(place) = parts.extensions.get::<crate::listener::Place>() {
        place.give_up();
    }
    let read = async {
        let mut read = 0;
        while let Some(Ok(frame)) = body.frame().await {
            read += frame.data_ref().map_or(0, |d| d.len() as u64);
            if read > DRAINED_MAX {
                break;
            }
        }
    };
    // Whether it ended or not, the answer is the same.
    let _ = tokio::time::timeout(DRAIN_TIME_MAX, read).await;
}

/// The body as the signature means it. Its last piece is followed by an error if it is not the signed one. If it is held in memory, then
/// within `budget`.
pub fn decoded<B>(body: B, decoder: Decoder, budget: Budget) -> longshore_objects::RequestBody
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::fmt::Display,
{
    let trailers = longshore_objects::Trailers::default();
    let found = trailers.clone();
    let stream = futures::stream::unfold(Some((body, decoder)), move |state| {
        let found = found.clone();
        async move {
            let (mut body, mut decoder) = state?;
            loop {
                let pieces = match body.frame().await {
                    None => {
                        return match decoder.finish() {
                            Ok(trailers) => {
                                found.set(trailers);
                                None
                            }
                            Err(error) => Some((vec![Err(error.told())], None)),
                        };
                    }
                    Some(Err(error)) => {
                        tracing::debug!(%error, "body broke off");
                        let message =
                            "You did not provide the number of bytes specified by the Content-Length HTTP header.";
                        let told = ApiError::new(StatusCode::BAD_REQUEST, "IncompleteBody", message);
                        return Some((vec![Err(told)], None));
                    }
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => decoder.push(data),
                        Err(_trailers) => continue,
                    },
                };
                match pieces {
                    Ok(pieces) if pieces.is_empty() => {}
                    Ok(pieces) => return Some((pieces.into_iter().map(Ok).collect(), Some((body, decoder)))),
                    Err(error) => return Some((vec![Err(error.told())], None)),
                }
            }
        }
    });
    longshore_objects::RequestBody::coming(stream.flat_map(futures::stream::iter).boxed(), trailers, budget)
}

/// How a request came here.
fn connection(parts: &http::request::Parts) -> Option<Connection> {
    parts.extensions.get().copied()
}

/// What IAM and STS are told where they are switched off.
fn off() -> ApiError {
    let message = "This server runs with iam = \"off\": there are no users, roles and policies, and whoever has the root credentials may do everything.";
    ApiError::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", message)
}

fn answer(response: Response) -> Answer {
    let mut made = http::Response::new(from_memory(response.body));
    *made.status_mut() = response.status;
    *made.headers_mut() = response.headers;
    made
}

/// Whether an anonymous request asks for what Prometheus scrapes: where it does by itself, or where a signed request finds it. A
/// bucket may be called so, too; it is refused in the same way, and the code is S3's.
fn wants_metrics(path: &str) -> bool {
    matches!(path.trim_end_matches('/'), "/metrics" | METRICS)
}

pub fn plain(status: StatusCode, text: &str) -> Answer {
    let mut made = document("text/plain; charset=utf-8", format!("{text}\n"));
    *made.status_mut() = status;
    made
}

pub fn document(content_type: &'static str, text: String) -> Answer {
    let mut made = http::Response::new(from_memory(text.into()));
    made.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    made
}

fn from_memory(bytes: Bytes) -> AnswerBody {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

#[cfg(test)]
mod matrix;

#[cfg(test)]
mod tests {
    use super::*;

    fn host(prefix: Option<&str>) -> Host {
        Host { prefix: prefix.map(str::to_owned), port: None }
    }

    #[test]
    fn requests_are_counted_under_the_name_of_their_api() {
        let names = [
            (Api::S3, "s3"),
            (Api::S3Control, "s3-control"),
            (Api::Lambda, "lambda"),
            (Api::Own, "longshore"),
            (Api::Identity, "iam"),
            (Api::Elsewhere(Form::Json), "s3"),
        ];
        for (api, name) in names {
            assert_eq!(crate::metrics::APIS[api.place()], name, "{api:?}");
        }
    }

    #[test]
    fn the_room_follows_from_the_signed_service_and_then_from_the_path() {
        let cases = [
            (Some("s3"), "/", None, Api::S3),
            (Some("s3"), "/v20180820/photo.jpg", Some("000000000000.photos"), Api::S3),
            (Some("s3"), "/v20180820/jobs", None, Api::S3Control),
            (Some("s3"), "/v20180820/jobs", Some("000000000000"), Api::S3Control),
            (Some("s3"), "/_longshore/v1/jobs/j/results", None, Api::Own),
            (Some("s3"), "/_longshore/v1/jobs/j/results", Some("bucket"), Api::S3),
            (Some("s3"), "/v20180820/photo.jpg", Some("bucket"), Api::S3),
            (Some("s3"), "/v20180820x/key", None, Api::S3),
            (Some("s3"), "/2015-03-31/functions", None, Api::S3),
            (Some("lambda"), "/2015-03-31/functions", None, Api::Lambda),
            (Some("lambda"), "/v20180820/jobs", None, Api::Lambda),
            (None, "/2015-03-31/functions", None, Api::Lambda),
            (None, "/2015-03-31", None, Api::S3),
            (None, "/v20180820/jobs", None, Api::S3Control),
            (None, "/bucket/key", None, Api::S3),
            (Some("iam"), "/", None, Api::Identity),
            (Some("sts"), "/", None, Api::Identity),
            (Some("ec2"), "/", None, Api::Elsewhere(Form::Ec2)),
            (Some("route53"), "/2013-04-01/hostedzone", None, Api::Elsewhere(Form::Query)),
            (Some("batch"), "/2015-03-31/functions", None, Api::Elsewhere(Form::Json)),
            (Some("iam"), "/v20180820/jobs", None, Api::S3Control),
            (Some("iam"), "/_longshore/v1/jobs/j/events", None, Api::Own),
            (Some("s3"), "/_longshore/v1/jobs/j/events", None, Api::Own),
            (None, "/_longshore/v1/jobs/j/events", None, Api::Own),
            (Some("lambda"), "/_longshore/v1/jobs/j/events", None, Api::Lambda),
            (Some("s3"), "/_longshore/v2/jobs", None, Api::S3),
            (Some("s3"), METRICS, None, Api::Own),
        ];
        for (service, path, prefix, wanted) in cases {
            assert_eq!(
                Api::of(service, path, &host(prefix), &HeaderMap::new()),
                wanted,
                "{service:?} {path} {prefix:?}"
            );
        }
        let named = HeaderMap::from_iter([(ACCOUNT.parse().unwrap(), HeaderValue::from_static("000000000000"))]);
        for prefix in ["bucket", "000000000000.s3-control"] {
            assert_eq!(Api::of(Some("s3"), "/v20180820/jobs", &host(Some(prefix)), &named), Api::S3Control, "{prefix}");
        }
        for (name, value, wanted) in [
            (TARGET, "Logs_20140328.DescribeLogGroups", Form::Json),
            ("content-type", "application/x-amz-json-1.1", Form::Json),
            ("content-type", "application/json", Form::Json),
            ("accept", "application/json", Form::Json),
            ("content-type", "application/x-www-form-urlencoded; charset=utf-8", Form::Query),
        ] {
            let headers = HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static(value))]);
            assert_eq!(Form::of("logs", "/", &headers), wanted, "{name}: {value}");
        }
    }
}
