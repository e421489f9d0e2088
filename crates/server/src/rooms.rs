//! Where the rooms meet: the engine's two doors, the way of clients and functions to S3, and where code is fetched from.
//! Each knows which bucket, or which function, is embedded and which is somebody else's.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::header::{CONNECTION, EXPECT};
use http::{HeaderValue, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use longshore_core::histogram::Histogram;
use longshore_core::invocation::Reply;
use longshore_core::start::Start;
use longshore_functions::host::{FunctionCredentials, Patience, S3Door, Threads};
use longshore_functions::{CodeSource, Functions, Invoked, SourceError};
use longshore_jobs::ports::{
    self, Encryption, ListPage, ListQuery, Listed, ObjectBody, ObjectError, ObjectFacts, PutBody, PutTerms, Tags,
};
use longshore_objects::{Objects, ObjectsError, RequestBody, ResponseBody, Whole};
use longshore_store::{Budget, Held};
use longshore_wire::arn::FunctionName;
use longshore_wire::sigv4::{Claim, Dialect, Key, Rules};
use longshore_wire::xml::Element;
use longshore_wire::{ApiError, Caller, Denied, RequestId, s3_actions};

use crate::access::Callers;
use crate::endpoints::Routes;
use crate::gateway::{Gateway, Target, route};
use crate::remote_functions::RemoteFunctions;

/// Objects in one page of a listing, as S3 has it.
pub const PAGE_OBJECTS: usize = 1_000;

/// The engine's manifests and reports in the embedded S3.
pub struct EmbeddedObjects(pub Objects);

#[async_trait::async_trait]
impl ports::Objects for EmbeddedObjects {
    async fn get(&self, bucket: &str, key: &str, version_id: Option<&str>) -> Result<ObjectBody, ObjectError> {
        let opened = self.0.get(bucket, key, version_id).await.map_err(|e| object_error(&e))?;
        Ok(ObjectBody {
            etag: opened.etag(),
            size: Some(opened.size()),
            tags: Some(opened.version.attributes.tags.clone()),
            stream: opened.stream.map(|piece| piece.map_err(|e| object_error(&e))).boxed(),
        })
    }

    async fn put(&self, bucket: &str, key: &str, terms: PutTerms<'_>, body: PutBody) -> Result<String, ObjectError> {
        if *terms.encryption != Encryption::Unasked {
            // As a client is told that asks for it.
            return Err(object_error(&ObjectsError::NotImplemented("Server-side encryption".into())));
        }
        let content_type = Some(terms.content_type);
        let put = match body {
            PutBody::Bytes(bytes) => self.0.put_bytes(bucket, key, content_type, bytes).await,
            PutBody::File(path, _) => self.0.put_file(bucket, key, content_type, &path).await,
        };
        put.map(|put| format!("\"{}\"", put.etag)).map_err(|e| object_error(&e))
    }

    async fn list(&self, bucket: &str, query: &ListQuery) -> Result<ListPage, ObjectError> {
        let (after, after_version) = match query.after.as_deref() {
            Some(after) => serde_json::from_str(after).map_err(|_| ObjectError {
                code: "InvalidArgument".into(),
                message: "the continuation token provided is incorrect".into(),
                passing: false,
            })?,
            None => (None, None),
        };
        let asked =
            longshore_objects::ListQuery { prefix: query.prefix.clone(), delimiter: None, after, max: PAGE_OBJECTS };
        let (page, next_version) = if query.versions {
            self.0.list_versions(bucket, asked, after_version).await
        } else {
            self.0.list(bucket, asked).await.map(|page| (page, None))
        }
        .map_err(|e| object_error(&e))?;
        let next = page.next_after.map(|after| serde_json::json!([after, next_version]).to_string());
        let objects = page.items.into_iter().map(|v| Listed {
            key: v.key,
            version_id: query.versions.then_some(v.version_id),
            is_latest: v.is_latest,
            is_delete_marker: v.is_delete_marker,
            size: v.size,
            modified_ms: v.modified_ms,
            storage_class: v.attributes.storage_class.unwrap_or_else(|| "STANDARD".into()),
        });
        Ok(ListPage { objects: objects.collect(), next })
    }

    async fn facts(&self, bucket: &str, key: &str, version_id: Option<&str>) -> Result<ObjectFacts, ObjectError> {
        // The embedded S3 neither encrypts nor replicates.
        self.0.head(bucket, key, version_id).await.map(|_| ObjectFacts::default()).map_err(|e| object_error(&e))
    }

    async fn tags(&self, bucket: &str, key: &str, version_id: Option<&str>) -> Result<Option<Tags>, ObjectError> {
        match self.0.head(bucket, key, version_id).await {
            Ok(found) => Ok(Some(found.attributes.tags)),
            // What is not there has no tags.
            Err(error) if error.is_absence() => Ok(Some(Tags::new())),
            Err(error) => Err(object_error(&error)),
        }
    }

    async fn check_owner(&self, bucket: &str, account: &str) -> Result<(), ObjectError> {
        self.0.bucket(bucket).await.map_err(|e| object_error(&e))?;
        if self.0.settings().account == account {
            return Ok(());
        }
        Err(ObjectError { code: "AccessDenied".into(), message: "Access Denied".into(), passing: false })
    }
}

fn object_error(error: &ObjectsError) -> ObjectError {
    let told = error.told();
    let (code, message) = match error {
        // The engine is no client from outside: its jobs say what is damaged.
        _ if error.is_damage() => (ObjectError::DAMAGED.to_owned(), error.to_string()),
        _ if error.is_full() => (ObjectError::DISK_FULL.to_owned(), told.message),
        _ => (told.code.into_owned(), told.message),
    };
    ObjectError { code, message, passing: error.passing() }
}

/// The engine's manifests and reports, wherever their bucket is.
pub struct RoutedObjects {
    pub embedded: EmbeddedObjects,
    pub routes: Routes,
}

impl RoutedObjects {
    fn of(&self, bucket: &str) -> &dyn ports::Objects {
        self.routes.of(bucket).map_or(&self.embedded as &dyn ports::Objects, |remote| &remote.objects)
    }
}

#[async_trait::async_trait]
impl ports::Objects for RoutedObjects {
    async fn get(&self, bucket: &str, key: &str, version_id: Option<&str>) -> Result<ObjectBody, ObjectError> {
        self.of(bucket).get(bucket, key, version_id).await
    }

    async fn put(&self, bucket: &str, key: &str, terms: PutTerms<'_>, body: PutBody) -> Result<String, ObjectError> {
        self.of(bucket).put(bucket, key, terms, body).await
    }

    fn report_encryption(&self, bucket: &str) -> Encryption {
        self.routes.of(bucket).map(|remote| remote.report_encryption.clone()).unwrap_or_default()
    }

    async fn list(&self, bucket: &str, query: &ListQuery) -> Result<ListPage, ObjectError> {
        self.of(bucket).list(bucket, query).await
    }

    async fn facts(&self, bucket: &str, key: &str, version_id: Option<&str>) -> Result<ObjectFacts, ObjectError> {
        self.of(bucket).facts(bucket, key, version_id).await
    }

    async fn tags(&self, bucket: &str, key: &str, version_id: Option<&str>) -> Result<Option<Tags>, ObjectError> {
        self.of(bucket).tags(bucket, key, version_id).await
    }

    async fn check_owner(&self, bucket: &str, account: &str) -> Result<(), ObjectError> {
        self.of(bucket).check_owner(bucket, account).await
    }
}

/// S3 as clients and functions see it: the embedded one, and through the gateway all others. Cheap to clone.
#[derive(Clone)]
pub struct S3 {
    pub embedded: Objects,
    pub routes: Routes,
    /// Where there is an endpoint.
    pub gateway: Option<Arc<Gateway>>,
}

impl S3 {
    /// Serves a verified request where its bucket is.
    pub async fn serve(
        &self,
        caller: &Caller,
        parts: http::request::Parts,
        host_bucket: Option<&str>,
        mut body: RequestBody,
        id: &RequestId,
    ) -> http::Response<ResponseBody> {
        let Some(gateway) = &self.gateway else {
            return self.embedded.serve(caller, parts, host_bucket, body, id).await;
        };
        let target = Target::of(parts.uri.path(), host_bucket);
        // As long as the body that was looked into is on its way.
        let mut _held = None;
        let admitted = match (route(&self.routes, target.as_ref(), &parts.headers), &target) {
            (Ok(Some(remote)), Some(target)) => match Gateway::check(target, caller.verified(), &parts) {
                Ok(()) => match allow_elsewhere(caller, target, &parts, body).await {
                    Ok((whole, held)) => {
                        (body, _held) = (whole, held);
                        Ok((remote, target))
                    }
                    Err(error) => {
                        body = RequestBody::whole(Bytes::new());
                        Err(error)
                    }
                },
                Err(error) => Err(error),
            },
            (Ok(_), _) => return self.embedded.serve(caller, parts, host_bucket, body, id).await,
            (Err(error), _) => Err(error),
        };
        let mut expects = false;
        let answered = match admitted {
            Ok((remote, target)) => gateway.forward(remote, target, caller.verified(), parts, body, id).await,
            Err(error) => {
                expects = parts.headers.contains_key(EXPECT);
                drain_unless_expected(&parts, body).await;
                Err(error)
            }
        };
        answered.unwrap_or_else(|error| {
            tracing::debug!(request_id = %id, code = %error.code, message = error.message, "S3 request refused");
            let mut refused = refusal(&error, id);
            if expects {
                // The body may come all the same, once the client has waited long enough: it is no next request.
                refused.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            refused
        })
    }
}

/// Keys of one DeleteObjects.
const DELETED_KEYS_MAX: usize = 1_000;
/// Bytes of a DeleteObjects that is looked into: 1,000 keys of 1,024 bytes, each byte an entity of its own, take less.
const DELETED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Asks the caller's policies for all that a request to another store may be taken for. Hands the body back; of a DeleteObjects it
/// has been read, for the keys that it removes are asked one by one, and one that is denied refuses them all.
async fn allow_elsewhere(
    caller: &Caller,
    target: &Target,
    parts: &http::request::Parts,
    body: RequestBody,
) -> Result<(RequestBody, Option<Held>), ApiError> {
    let denied = |why: &Denied| ApiError::new(StatusCode::FORBIDDEN, "AccessDenied", why.to_string());
    let needed = s3_actions::of_request(
        &parts.method,
        (&target.bucket, target.key.as_deref()),
        parts.uri.query(),
        &parts.headers,
    );
    for asked in &needed.asks {
        if let Err(why) = caller.may(asked) {
            drain_unless_expected(parts, body).await;
            return Err(denied(&why));
        }
    }
    if !needed.deletes || caller.is_root() {
        return Ok((body, None));
    }
    let Whole { bytes: whole, trailers, held } = body.read_whole(DELETED_BYTES_MAX).await?;
    for (key, version) in deleted(&whole)? {
        let asked = s3_actions::on_version(s3_actions::DELETE_OBJECT, &target.bucket, &key, version.as_deref());
        caller.may(&asked).map_err(|why| denied(&why))?;
        if s3_actions::bypasses_governance(&parts.headers) {
            let asked = s3_actions::on_object(s3_actions::BYPASS_GOVERNANCE, &target.bucket, &key);
            caller.may(&asked).map_err(|why| denied(&why))?;
        }
    }
    let mut again = RequestBody::whole(whole);
    again.trailers = trailers;
    Ok((again, held))
}

/// Keys with their versions that a DeleteObjects names. What reads in another way than S3 writes it is refused: a store might find
/// keys in it that were not asked for.
fn deleted(document: &[u8]) -> Result<Vec<(String, Option<String>)>, ApiError> {
    let malformed = || {
        let message = "The XML you provided was not well-formed or did not validate against our published schema";
        ApiError::new(StatusCode::BAD_REQUEST, "MalformedXML", message)
    };
    let root = Element::parse(document).map_err(|_| malformed())?;
    if root.name != "Delete" {
        return Err(malformed());
    }
    let mut found = Vec::new();
    for object in &root.children {
        match &*object.name {
            "Quiet" => {}
            "Object" => {
                let mut keys = object.children.iter().filter(|child| child.name == "Key");
                let (Some(key), None) = (keys.next(), keys.next()) else { return Err(malformed()) };
                let mut versions = object.children.iter().filter(|child| child.name == "VersionId");
                let (version, None) = (versions.next(), versions.next()) else { return Err(malformed()) };
                found.push((key.text.clone(), version.map(|version| version.text.clone())));
            }
            _ => return Err(malformed()),
        }
    }
    // As S3 has it; each is a question.
    if found.len() > DELETED_KEYS_MAX {
        return Err(malformed());
    }
    Ok(found)
}

/// A client that waits for "100 Continue" sends nothing until it is read.
async fn drain_unless_expected(parts: &http::request::Parts, body: RequestBody) {
    if !parts.headers.contains_key(EXPECT) {
        crate::gateway::drain(body).await;
    }
}

/// The engine's functions in the embedded host.
pub struct EmbeddedInvoker(pub Functions);

#[async_trait::async_trait]
impl ports::Invoker for EmbeddedInvoker {
    async fn invoke(&self, function: &str, payload: Bytes) -> Reply {
        reply(self.0.invoke(function, payload, Patience::Forever, None).await)
    }

    async fn invoke_unless_called_off(&self, function: &str, payload: Bytes, start: &Start) -> Reply {
        reply(self.0.invoke(function, payload, Patience::Forever, Some(start)).await)
    }

    fn slots(&self, function: &str) -> Option<u32> {
        Some(self.0.slots(function))
    }

    fn prepare(&self, function: &str, wanted: u32) {
        self.0.prepare(function, wanted);
    }

    fn cold_starts(&self, function: &str) -> Option<Histogram> {
        Some(self.0.cold_starts(function))
    }
}

/// The engine's functions, wherever each is.
pub struct RoutedInvoker {
    pub embedded: EmbeddedInvoker,
    pub remote: RemoteFunctions,
    pub threads: Threads,
}

#[async_trait::async_trait]
impl ports::Invoker for RoutedInvoker {
    async fn invoke(&self, function: &str, payload: Bytes) -> Reply {
        match self.remote.of(function) {
            Some(endpoint) => endpoint.invoke(function, payload).await,
            None => self.embedded.invoke(function, payload).await,
        }
    }

    async fn invoke_unless_called_off(&self, function: &str, payload: Bytes, start: &Start) -> Reply {
        match self.remote.of(function) {
            Some(endpoint) => endpoint.invoke_unless_called_off(function, payload, start).await,
            None => self.embedded.invoke_unless_called_off(function, payload, start).await,
        }
    }

    fn slots(&self, function: &str) -> Option<u32> {
        match self.remote.of(function) {
            Some(endpoint) => endpoint.slots(function),
            None => self.embedded.slots(function),
        }
    }

    fn prepare(&self, function: &str, wanted: u32) {
        // Elsewhere, what is warm is not ours to say.
        if self.remote.of(function).is_none() {
            self.embedded.prepare(function, wanted);
        }
    }

    fn thread_of(&self, function: &str) -> Option<tokio::runtime::Handle> {
        // As the host knows it: by its name alone. One elsewhere has its calls together on one thread, too.
        let named = FunctionName::parse(function);
        Some(self.threads.home(named.as_ref().map_or(function, |named| &named.name)).clone())
    }

    fn cold_starts(&self, function: &str) -> Option<Histogram> {
        // Elsewhere, nobody tells of them.
        self.remote.of(function).is_none().then(|| self.embedded.cold_starts(function)).flatten()
    }
}

fn reply(invoked: Invoked) -> Reply {
    match invoked {
        Invoked::Answered { payload, function_error: false, .. } => Reply::Answer(payload),
        Invoked::Answered { payload, function_error: true, .. } => Reply::FunctionError(payload),
        Invoked::Refused(error) if error.status == StatusCode::TOO_MANY_REQUESTS => {
            Reply::Throttled { message: error.message, retry_after_ms: None }
        }
        Invoked::Refused(error) => {
            Reply::Refused { status: error.status.as_u16(), code: error.code.into_owned(), message: error.message }
        }
    }
}

/// Packages that CreateFunction names by bucket and key.
pub struct Code(pub Arc<RoutedObjects>);

#[async_trait::async_trait]
impl CodeSource for Code {
    async fn fetch(
        &self,
        bucket: &str,
        key: &str,
        version_id: Option<&str>,
        bytes_max: usize,
    ) -> Result<Bytes, SourceError> {
        let failed = |error: ObjectError| SourceError::S3 { code: error.code, message: error.message };
        let mut opened = ports::Objects::get(&*self.0, bucket, key, version_id).await.map_err(failed)?;
        if opened.size.is_none_or(|size| size > bytes_max as u64) {
            return Err(SourceError::TooLarge);
        }
        let mut code = BytesMut::new();
        while let Some(piece) = opened.stream.next().await {
            code.extend_from_slice(&piece.map_err(failed)?);
        }
        Ok(code.freeze())
    }
}

/// What a function reaches: S3, with the credentials of its own environment, and nothing else of this server. Cheap to clone.
#[derive(Clone)]
pub struct FunctionsS3 {
    pub s3: S3,
    pub access: Callers,
    /// Holds the documents of all functions together, those of one environment within its own part.
    pub documents: Budget,
}

/// As the host of functions is given it.
pub fn s3_door(s3: S3, access: Callers, documents: Budget) -> S3Door {
    let door = FunctionsS3 { s3, access, documents };
    Arc::new(move |credentials: Arc<FunctionCredentials>, request| {
        let door = door.clone();
        Box::pin(async move { door.answer(&credentials, request).await })
    })
}

impl FunctionsS3 {
    /// Answers what came over the way of the environment that has these credentials.
    pub async fn answer<B>(
        &self,
        credentials: &FunctionCredentials,
        request: http::Request<B>,
    ) -> http::Response<ResponseBody>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::fmt::Display,
    {
        let Self { s3, access, documents } = self;
        let documents = credentials.documents.within(documents);
        let id = RequestId(uuid::Uuid::new_v4().to_string());
        let (parts, body) = request.into_parts();
        let target = parts.uri.path_and_query().map_or("/", |t| t.as_str());
        let settings = s3.embedded.settings();
        let (region, account) = (&*settings.region, &*settings.account);
        // The way from an environment to here does not leave the machine, and the body would be the function's own.
        let rules = Rules { regions: &[region], services: &["s3"], unsigned_payload: true, keys: None };
        let claim = Claim::parse(&parts.method, target, &parts.headers);
        let verified = claim.as_ref().map_err(Clone::clone).and_then(|claim| {
            let known = claim.access_key_id() == credentials.access_key_id;
            let key = if known {
                Key::temporary(&credentials.secret_access_key, account, &credentials.session_token, i64::MAX)
            } else {
                Key::unknown()
            };
            let verified = claim.verify(&key, &rules, jiff::Timestamp::now().as_second(), None)?;
            Ok((verified, claim.is_presigned()))
        });
        let (caller, presigned) = match verified {
            Ok(verified) => verified,
            Err(error) => {
                access.function_refused(claim.as_ref().ok(), &credentials.function_name, &error, &id);
                return refusal(&error.told(Dialect::S3), &id);
            }
        };
        let decoder = caller.decoder();
        let FunctionCredentials { role, function_name, .. } = credentials;
        let Some(caller) = access.function(caller, presigned, role, function_name, &id) else {
            return refusal(&role_is_gone(role), &id);
        };
        match decoder {
            Ok(decoder) => {
                s3.serve(&caller, parts, None, crate::dispatch::decoded(body, decoder, documents), &id).await
            }
            Err(error) => refusal(&error.told(), &id),
        }
    }
}

/// What a function is told whose role is gone, or does not trust Lambda any more.
fn role_is_gone(role: &str) -> ApiError {
    let message = format!("The function's role {role} cannot be assumed by Lambda.");
    ApiError::new(StatusCode::FORBIDDEN, "AccessDenied", message)
}

fn refusal(error: &ApiError, id: &RequestId) -> http::Response<longshore_objects::ResponseBody> {
    let made = error.s3(id);
    let mut response = http::Response::new(Full::new(made.body).map_err(|never| match never {}).boxed());
    *response.status_mut() = made.status;
    *response.headers_mut() = made.headers;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_the_host_is_what_the_engine_takes_it_for() {
        let answered = |function_error| Invoked::Answered {
            payload: Bytes::from_static(b"{}"),
            function_error,
            executed_version: "$LATEST".into(),
        };
        let refused =
            |status: u16| Invoked::Refused(ApiError::new(StatusCode::from_u16(status).unwrap(), "Code", "message"));
        assert_eq!(reply(answered(false)), Reply::Answer(Bytes::from_static(b"{}")));
        assert_eq!(reply(answered(true)), Reply::FunctionError(Bytes::from_static(b"{}")));
        assert_eq!(reply(refused(429)), Reply::Throttled { message: "message".into(), retry_after_ms: None });
        let wanted = Reply::Refused { status: 404, code: "Code".into(), message: "message".into() };
        assert_eq!(reply(refused(404)), wanted);
    }
}
