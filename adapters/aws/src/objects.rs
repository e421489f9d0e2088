//! The engine's door to objects, on a store of somebody else.
//!
//! What a store says is believed only as far as it holds together: a body has the length that was announced and belongs
//! to one ETag, a page that says there is more says where, a finished upload has an ETag. Everything else is an error.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextMut;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::{ByteStream, DateTime, SdkBody};
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, EncodingType, ServerSideEncryption};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use longshore_jobs::ports::{
    self, Encryption, ListPage, ListQuery, Listed, ObjectBody, ObjectError, ObjectFacts, PutBody, PutTerms,
};
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use crate::Patience;
use crate::credentials::Credentials;
use crate::error::{lasting, passing, told};

/// A file of at most so many bytes is written in one request, a longer one in parts of this size: [`PARTS_AT_ONCE`] of
/// them are in memory, since a part that is sent again must be the same, and its hash is signed.
pub const PART_BYTES_MIN: u64 = 16 * 1024 * 1024;
const PARTS_AT_ONCE: usize = 3;
/// S3's limit; parts grow rather than be more.
const PARTS_MAX: u64 = 10_000;
/// How often the body of one object is taken up again where it broke off, before the reader is told. Each needs an
/// answer of the store, which has its own tries.
const RESUMES_MAX: u32 = 5;
/// After so many bytes a body that breaks off again is in new trouble: one that takes hours may break off often.
const RESUME_PROGRESS_BYTES: u64 = 8 << 20;
/// Answers that the SDK reads whole: 1,000 entries with keys of 1,024 bytes, each encoded threefold, are below 4 MiB.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
const PAGE_OBJECTS: i32 = 1_000;
/// Pages of a listing in a row that have no entries and are not the last. Stores that skip deleted entries give some of
/// them; a million of those, 1,000 a page, are all that one listing should have to get past.
const EMPTY_PAGES_MAX: u32 = 1_000;

/// One endpoint, as the engine sees it.
#[derive(Debug, Clone)]
pub struct RemoteObjects {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    region: String,
    credentials: Arc<Credentials>,
    client: Client,
    patience: Patience,
}

/// Ends an answer that is longer than any that S3 gives, for the SDK would read it whole; and one that ends before its
/// document does, for the SDK would take half a listing for a short one.
#[derive(Debug)]
struct Checked {
    /// A success whose body is streamed is left alone.
    errors_only: bool,
    /// With what the document of a success ends.
    end: Option<&'static str>,
}

impl Intercept for Checked {
    fn name(&self) -> &'static str {
        "Checked"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response_mut();
        let success = response.status().is_success();
        if !(self.errors_only && success) {
            let body = std::mem::replace(response.body_mut(), SdkBody::taken());
            let body = http_body_util::Limited::new(body, ANSWER_BYTES_MAX);
            *response.body_mut() = match self.end.filter(|_| success) {
                Some(end) => SdkBody::from_body_1_x(Ending { body: Box::pin(body), tail: Vec::new(), end }),
                None => SdkBody::from_body_1_x(body),
            };
        }
        Ok(())
    }
}

const WHOLE: Checked = Checked { errors_only: false, end: None };
const STREAMED: Checked = Checked { errors_only: true, end: None };
const LIST: Checked = Checked { errors_only: false, end: Some("</ListBucketResult>") };
const VERSIONS: Checked = Checked { errors_only: false, end: Some("</ListVersionsResult>") };

/// A document that must end as it should, or as an error does.
struct Ending {
    body: std::pin::Pin<Box<http_body_util::Limited<SdkBody>>>,
    /// Its last bytes: more than any end has, and some white space.
    tail: Vec<u8>,
    end: &'static str,
}

const TAIL_BYTES: usize = 64;

impl http_body::Body for Ending {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
        let polled = std::task::ready!(self.body.as_mut().poll_frame(context));
        std::task::Poll::Ready(match polled {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    let from = data.len().saturating_sub(TAIL_BYTES);
                    self.tail.extend_from_slice(&data[from..]);
                    let from = self.tail.len().saturating_sub(TAIL_BYTES);
                    self.tail.drain(..from);
                }
                Some(Ok(frame))
            }
            None => {
                let tail = self.tail.trim_ascii_end();
                let whole = tail.ends_with(self.end.as_bytes()) || tail.ends_with(b"</Error>");
                (!whole).then(|| Err(format!("the document does not end with {}", self.end).into()))
            }
            failed => failed,
        })
    }
}

/// Whether a bucket and a key can be asked for by name, without meaning another bucket, host or key on the way. ARNs and
/// the names of directory buckets and of access points on Outposts lead to other hosts; a dot segment is resolved by
/// some servers, and then names another bucket.
pub fn check_names(bucket: &str, key: Option<&str>) -> Result<(), ObjectError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    let elsewhere = ["--x-s3", "--xa-s3", "--op-s3", "--table-s3", ".mrap"];
    let fine = (3..=63).contains(&bucket.len())
        && bucket.bytes().all(plain)
        && bucket.as_bytes()[0].is_ascii_alphanumeric()
        && !bucket.contains("..")
        && !elsewhere.iter().any(|suffix| bucket.ends_with(suffix));
    // What some stores have their administration below: the key of an endpoint must not be lent to that.
    let administration = ["minio", "admin"].contains(&bucket.to_ascii_lowercase().as_str());
    if !fine || administration {
        return Err(lasting("InvalidBucketName", format!("{bucket:?} is not the name of a bucket of another store")));
    }
    match key {
        Some(key) if key.is_empty() || key.len() > 1_024 => {
            Err(lasting("KeyTooLongError", "a key has 1 to 1,024 bytes"))
        }
        Some(key) if key.split('/').any(|segment| matches!(segment, "." | "..")) => {
            Err(lasting("InvalidArgument", "a key with a segment \".\" or \"..\" cannot be asked of another store"))
        }
        _ => Ok(()),
    }
}

impl RemoteObjects {
    pub(crate) fn new(
        name: &str,
        region: String,
        credentials: Arc<Credentials>,
        client: Client,
        patience: Patience,
    ) -> Self {
        Self { inner: Arc::new(Inner { name: name.to_owned(), region, credentials, client, patience }) }
    }

    #[cfg(test)]
    pub(crate) fn for_tests(&self) -> &Client {
        &self.inner.client
    }

    pub fn region(&self) -> &str {
        &self.inner.region
    }

    /// Who requests to this endpoint are signed as.
    pub fn credentials(&self) -> &Credentials {
        &self.inner.credentials
    }
}

impl Inner {
    fn told<E>(
        &self,
        error: &aws_sdk_s3::error::SdkError<E, aws_smithy_runtime_api::client::orchestrator::HttpResponse>,
    ) -> ObjectError
    where
        E: std::error::Error + aws_sdk_s3::error::ProvideErrorMetadata + 'static,
    {
        told(&self.name, error)
    }

    fn uploading(&self) -> aws_sdk_s3::config::Builder {
        let limit = self.patience.upload;
        aws_sdk_s3::Config::builder().timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(self.patience.connect)
                .read_timeout(limit)
                .operation_attempt_timeout(limit)
                .build(),
        )
    }

    fn broken(&self, what: impl std::fmt::Display) -> ObjectError {
        passing("IncompleteBody", format!("endpoint {}: {what}", self.name))
    }

    fn malformed(&self, what: impl std::fmt::Display) -> ObjectError {
        passing("InvalidResponse", format!("endpoint {}: {what}", self.name))
    }

    /// Holds an answer to a put against the encryption that was asked for: a store that does not know the headers passes
    /// over them, and keeps the object in the clear.
    fn check_encrypted(&self, asked: &Encryption, given: Option<&ServerSideEncryption>) -> Result<(), ObjectError> {
        let (Some(wanted), _) = encryption(asked) else { return Ok(()) };
        if given == Some(&wanted) {
            return Ok(());
        }
        let given = given.map_or("none", |given| given.as_str());
        let message = format!("endpoint {}: asked for the encryption {wanted}, it answered with {given}", self.name);
        Err(lasting("NotEncrypted", message))
    }

    /// Puts a document or a small file. One that turns out not to be encrypted as asked stays where it is, for what was
    /// there before is gone already.
    async fn put_whole(&self, at: At<'_>, terms: PutTerms<'_>, body: Bytes) -> Result<String, ObjectError> {
        let length = body.len() as i64;
        let (algorithm, key_id) = encryption(terms.encryption);
        let put = self.client.put_object().bucket(at.bucket).key(at.key).content_type(terms.content_type);
        let put = put.set_server_side_encryption(algorithm).set_ssekms_key_id(key_id);
        let put = put.content_length(length).body(ByteStream::from(body));
        let put = put.customize().config_override(self.uploading()).interceptor(WHOLE);
        let answer = put.send().await.map_err(|e| self.told(&e))?;
        self.check_encrypted(terms.encryption, answer.server_side_encryption())?;
        answer.e_tag.ok_or_else(|| self.malformed("its answer to a put has no ETag"))
    }

    /// Puts a file in parts. What was begun and fails is aborted, also where the caller gives up.
    async fn put_parts(&self, at: At<'_>, terms: PutTerms<'_>, path: &Path, size: u64) -> Result<String, ObjectError> {
        let (algorithm, key_id) = encryption(terms.encryption);
        let begin = self.client.create_multipart_upload().bucket(at.bucket).key(at.key);
        let begin = begin.content_type(terms.content_type);
        let begin = begin.set_server_side_encryption(algorithm).set_ssekms_key_id(key_id);
        let begun = begin.customize().interceptor(WHOLE).send().await.map_err(|e| self.told(&e))?;
        let encrypted = self.check_encrypted(terms.encryption, begun.server_side_encryption());
        let id = begun.upload_id.ok_or_else(|| self.malformed("a multipart upload has no ID"))?;
        let mut abort = Abort {
            client: self.client.clone(),
            endpoint: self.name.clone(),
            bucket: at.bucket.to_owned(),
            key: at.key.to_owned(),
            id: Some(id.clone()),
        };
        if let Err(error) = encrypted {
            abort.now().await;
            return Err(error);
        }

        let part_bytes = part_bytes(size);
        let numbered = (1..).zip(spans(size, part_bytes));
        let sending = futures::stream::iter(numbered).map(|(number, (offset, length))| {
            let id = &id;
            async move {
                let body = read_span(path, offset, length).await?;
                let put = self.client.upload_part().bucket(at.bucket).key(at.key).upload_id(id).part_number(number);
                let put = put.content_length(length as i64).body(ByteStream::from(body));
                let put = put.customize().config_override(self.uploading()).interceptor(WHOLE);
                let answer = put.send().await.map_err(|e| self.told(&e))?;
                let etag = answer.e_tag.ok_or_else(|| self.malformed("its answer to a part has no ETag"))?;
                Ok::<_, ObjectError>(CompletedPart::builder().part_number(number).e_tag(etag).build())
            }
        });
        let sent: Result<Vec<CompletedPart>, ObjectError> = sending.buffered(PARTS_AT_ONCE).try_collect().await;
        let parts = match sent {
            Ok(parts) => CompletedMultipartUpload::builder().set_parts(Some(parts)).build(),
            Err(error) => {
                abort.now().await;
                return Err(error);
            }
        };
        let end = self.client.complete_multipart_upload().bucket(at.bucket).key(at.key).upload_id(&id);
        let end = end.multipart_upload(parts).customize().config_override(self.uploading()).interceptor(WHOLE);
        let ended = match end.send().await {
            Ok(answer) => match answer.e_tag.filter(|etag| !etag.trim_matches('"').is_empty()) {
                Some(etag) => Ok(etag),
                // Ceph RGW 16 leaves it empty.
                None => self.etag_of(at, size).await,
            },
            Err(error) => Err(self.told(&error)),
        };
        match ended {
            Ok(etag) => {
                abort.id = None;
                Ok(etag)
            }
            Err(error) => {
                // If it was completed and only the answer was lost, there is nothing to abort; the put is repeated.
                abort.now().await;
                Err(error)
            }
        }
    }

    /// The ETag of an object of so many bytes, asked for.
    async fn etag_of(&self, at: At<'_>, size: u64) -> Result<String, ObjectError> {
        let head = self.client.head_object().bucket(at.bucket).key(at.key);
        let found = head.customize().interceptor(WHOLE).send().await.map_err(|e| self.told(&e))?;
        if found.content_length.and_then(|length| u64::try_from(length).ok()) != Some(size) {
            return Err(self.malformed("a completed upload has another length than its parts"));
        }
        found.e_tag.ok_or_else(|| self.malformed("a completed upload has no ETag"))
    }

    async fn open(
        &self,
        at: At<'_>,
        version_id: Option<&str>,
        resume: Option<&Reading>,
    ) -> Result<GetObjectOutput, ObjectError> {
        let mut get = self.client.get_object().bucket(at.bucket).key(at.key);
        get = get.set_version_id(version_id.map(str::to_owned));
        if let Some(reading) = resume {
            get = get.range(format!("bytes={}-", reading.offset));
            // A version is what it is; some stores refuse conditions on one even where they hold.
            if version_id.is_none() {
                get = get.if_match(&reading.etag);
            }
        }
        get.customize().interceptor(STREAMED).send().await.map_err(|e| self.told(&e))
    }

    /// Takes an object up again where it broke off, if it is the same one still.
    async fn reopen(&self, reading: &Reading) -> Result<ByteStream, ObjectError> {
        let at = At { bucket: &reading.bucket, key: &reading.key };
        let answer = self.open(at, reading.version_id.as_deref(), Some(reading)).await?;
        let wanted = format!("bytes {}-{}/{}", reading.offset, reading.size - 1, reading.size);
        if answer.e_tag.as_deref() != Some(reading.etag.as_str()) {
            return Err(passing("PreconditionFailed", "the object was replaced while it was being read"));
        }
        if answer.content_range.as_deref() != Some(wanted.as_str()) {
            let given = answer.content_range.unwrap_or_else(|| "no range".into());
            return Err(self.broken(format!("asked for {wanted:?}, it sent {given:?}")));
        }
        Ok(answer.body)
    }

    async fn list_current(&self, bucket: &str, query: &ListQuery) -> Result<ListPage, ObjectError> {
        let after = query.after.as_deref().map(CurrentAfter::parse).transpose()?;
        let token = after.as_ref().map(|after| after.token.clone());
        let list = self.client.list_objects_v2().bucket(bucket).encoding_type(EncodingType::Url);
        let list = list.prefix(&query.prefix).max_keys(PAGE_OBJECTS).set_continuation_token(token);
        let page = list.customize().interceptor(LIST).send().await.map_err(|e| self.told(&e))?;
        let encoded = page.encoding_type() == Some(&EncodingType::Url);
        let mut objects = Vec::with_capacity(page.contents().len());
        for object in page.contents() {
            objects.push(Listed {
                key: self.key(object.key(), encoded)?,
                version_id: None,
                is_latest: true,
                is_delete_marker: false,
                size: self.size(object.size())?,
                modified_ms: self.modified(object.last_modified())?,
                storage_class: object.storage_class().map_or("STANDARD", |c| c.as_str()).to_owned(),
            });
        }
        let greatest = greatest(&objects);
        if let Some(after) = &after
            && objects.iter().any(|object| object.key.as_bytes() <= after.greatest.as_bytes())
        {
            return Err(self.unruly("a page has keys that do not come behind those of the page before"));
        }
        let asked = after.as_ref().map(|after| after.token.as_str());
        let more = page.is_truncated() == Some(true);
        let token = page.next_continuation_token().filter(|token| !token.is_empty());
        let next = match self.next(asked, more, token)? {
            None => None,
            Some(token) => {
                let empty = self.empty(after.as_ref().map(|after| after.empty), objects.is_empty())?;
                let greatest = greatest.or(after.as_ref().map(|after| after.greatest.clone())).unwrap_or_default();
                Some(CurrentAfter { token: token.to_owned(), greatest, empty }.to_string())
            }
        };
        Ok(ListPage { objects, next })
    }

    async fn list_versions(&self, bucket: &str, query: &ListQuery) -> Result<ListPage, ObjectError> {
        let after = query.after.as_deref().map(VersionsAfter::parse).transpose()?;
        let (key, version) = after.as_ref().map_or((None, None), |after| {
            (Some(after.key.as_str()), Some(after.version.as_str()).filter(|version| !version.is_empty()))
        });
        let list = self.client.list_object_versions().bucket(bucket).encoding_type(EncodingType::Url);
        let list = list.prefix(&query.prefix).max_keys(PAGE_OBJECTS);
        let list = list.set_key_marker(key.map(str::to_owned)).set_version_id_marker(version.map(str::to_owned));
        let page = list.customize().interceptor(VERSIONS).send().await.map_err(|e| self.told(&e))?;
        let encoded = page.encoding_type() == Some(&EncodingType::Url);
        let mut versions = Vec::with_capacity(page.versions().len());
        for version in page.versions() {
            versions.push(Listed {
                key: self.key(version.key(), encoded)?,
                version_id: Some(version.version_id().unwrap_or("null").to_owned()),
                is_latest: version.is_latest() == Some(true),
                is_delete_marker: false,
                size: self.size(version.size())?,
                modified_ms: self.modified(version.last_modified())?,
                storage_class: version.storage_class().map_or("STANDARD", |c| c.as_str()).to_owned(),
            });
        }
        let mut markers = Vec::with_capacity(page.delete_markers().len());
        for marker in page.delete_markers() {
            markers.push(Listed {
                key: self.key(marker.key(), encoded)?,
                version_id: Some(marker.version_id().unwrap_or("null").to_owned()),
                is_latest: marker.is_latest() == Some(true),
                is_delete_marker: true,
                size: 0,
                modified_ms: self.modified(marker.last_modified())?,
                storage_class: "STANDARD".to_owned(),
            });
        }
        let more = page.is_truncated() == Some(true);
        let mut objects = merged(versions, markers);
        // Ceph RGW 16 begins the next page with the end of the one before, where that has no version.
        if let Some(after) = &after {
            objects.retain(|o| (&o.key, o.version_id.as_ref()) != (&after.last.0, Some(&after.last.1)));
        }
        if let Some(after) = &after {
            // The versions of a key may go on over the border, but not begin again.
            let begins_again = objects.first().is_some_and(|first| {
                first.key == after.greatest && first.version_id.as_deref() == after.first_version.as_deref()
            });
            if begins_again || objects.iter().any(|object| object.key.as_bytes() < after.greatest.as_bytes()) {
                return Err(self.unruly("a page has versions that do not come behind those of the page before"));
            }
        }
        let (key, version) = (page.next_key_marker().unwrap_or(""), page.next_version_id_marker().unwrap_or(""));
        let next = match Some(key).filter(|key| more && !key.is_empty()) {
            Some(key) => Some((self.key(Some(key), encoded)?, version.to_owned())),
            None => None,
        };
        let asked = after.as_ref().map(|after| (after.key.clone(), after.version.clone()));
        let next = match self.next(asked, more, next)? {
            None => None,
            Some((key, version)) => {
                let empty = self.empty(after.as_ref().map(|after| after.empty), objects.is_empty())?;
                let mut next = after.unwrap_or_default();
                if let (Some(greatest), Some(first), Some(last)) = (greatest(&objects), objects.first(), objects.last())
                {
                    let goes_on = first.key == greatest;
                    // A key whose versions fill whole pages still is told by the version with which it began.
                    if !(goes_on && next.greatest == greatest && next.first_version.is_some()) {
                        next.first_version = first.version_id.clone().filter(|_| goes_on);
                    }
                    next.last = (last.key.clone(), last.version_id.clone().unwrap_or_default());
                    next.greatest = greatest;
                }
                Some(VersionsAfter { key, version, empty, ..next }.to_string())
            }
        };
        Ok(ListPage { objects, next })
    }

    /// A key of a listing. In a list, unlike in a path, S3 encodes a space as a plus.
    fn key(&self, key: Option<&str>, encoded: bool) -> Result<String, ObjectError> {
        let key =
            key.filter(|k| !k.is_empty()).ok_or_else(|| self.malformed("a listing has an entry without a key"))?;
        if !encoded {
            return Ok(key.to_owned());
        }
        let decoded = percent_decode_str(&key.replace('+', " ")).decode_utf8().map(|k| k.into_owned());
        decoded.map_err(|_| lasting("InvalidResponse", format!("the key {key} is not UTF-8, which S3 keys are")))
    }

    fn size(&self, size: Option<i64>) -> Result<u64, ObjectError> {
        let size = size.and_then(|size| u64::try_from(size).ok());
        size.ok_or_else(|| self.malformed("a listing has an entry without a size"))
    }

    fn modified(&self, at: Option<&DateTime>) -> Result<i64, ObjectError> {
        let ms = at.and_then(|at| at.to_millis().ok());
        ms.ok_or_else(|| self.malformed("a listing has an entry without a time"))
    }

    /// Where the next page begins. A page that is not the last and does not say so would end the listing early, and one
    /// that leads to itself would never end it.
    fn next<T: PartialEq>(&self, asked: Option<T>, more: bool, next: Option<T>) -> Result<Option<T>, ObjectError> {
        match next {
            _ if !more => Ok(None),
            None => Err(self.malformed("a listing says that there is more, and not where")),
            next if next == asked => Err(self.unruly("a page leads to itself")),
            next => Ok(next),
        }
    }

    /// Pages without entries up to and with this one; too many never end.
    fn empty(&self, before: Option<u32>, is_empty: bool) -> Result<u32, ObjectError> {
        match before.unwrap_or(0) + 1 {
            _ if !is_empty => Ok(0),
            empty if empty > EMPTY_PAGES_MAX => {
                Err(self.unruly(format!("{EMPTY_PAGES_MAX} pages in a row have no entries and say that there is more")))
            }
            empty => Ok(empty),
        }
    }

    /// A listing that would repeat itself or never end. The store does so at every try, so this one is the last.
    fn unruly(&self, what: impl std::fmt::Display) -> ObjectError {
        lasting("InvalidResponse", format!("endpoint {}: its listing cannot be trusted: {what}", self.name))
    }
}

/// The greatest key of a page. Not that of its last entry: some stores order by folder, within a page, and still never
/// go back.
fn greatest(objects: &[Listed]) -> Option<String> {
    objects.iter().map(|object| object.key.as_str()).max().map(str::to_owned)
}

/// Where a page of current objects begins: the store's token, and what is known of the pages before.
#[derive(Debug, PartialEq, Eq)]
struct CurrentAfter {
    token: String,
    /// The greatest key so far.
    greatest: String,
    /// Pages in a row without entries.
    empty: u32,
}

impl CurrentAfter {
    fn parse(text: &str) -> Result<Self, ObjectError> {
        let [token, greatest, empty] = words(text)?;
        Ok(Self { token, greatest, empty: empty.parse().map_err(|_| incorrect())? })
    }
}

impl std::fmt::Display for CurrentAfter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&joined([&self.token, &self.greatest, &self.empty.to_string()]))
    }
}

/// Where a page of versions begins: the store's two markers, and what is known of the pages before.
#[derive(Debug, Default, PartialEq, Eq)]
struct VersionsAfter {
    key: String,
    version: String,
    /// Key and version of the last entry.
    last: (String, String),
    /// The greatest key so far.
    greatest: String,
    /// The version with which that key's versions began, if they began a page.
    first_version: Option<String>,
    /// Pages in a row without entries.
    empty: u32,
}

impl VersionsAfter {
    fn parse(text: &str) -> Result<Self, ObjectError> {
        let [key, version, last_key, last_version, greatest, first_version, empty] = words(text)?;
        let first_version = Some(first_version).filter(|version| !version.is_empty());
        let empty = empty.parse().map_err(|_| incorrect())?;
        Ok(Self { key, version, last: (last_key, last_version), greatest, first_version, empty })
    }
}

impl std::fmt::Display for VersionsAfter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let first_version = self.first_version.as_deref().unwrap_or("");
        let (key, version) = (&self.key, &self.version);
        let (greatest, empty) = (&self.greatest, &self.empty.to_string());
        f.write_str(&joined([key, version, &self.last.0, &self.last.1, greatest, first_version, empty]))
    }
}

/// Words with a NUL between them, which is encoded in them.
const MARKER: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS.add(b'%');

fn joined<const N: usize>(words: [&str; N]) -> String {
    words.map(|word| percent_encoding::utf8_percent_encode(word, MARKER).to_string()).join("\0")
}

fn words<const N: usize>(text: &str) -> Result<[String; N], ObjectError> {
    let words = text.split('\0').map(|word| percent_decode_str(word).decode_utf8().ok().map(String::from));
    let words: Vec<String> = words.collect::<Option<_>>().ok_or_else(incorrect)?;
    words.try_into().map_err(|_| incorrect())
}

fn incorrect() -> ObjectError {
    lasting("InvalidArgument", "the continuation token provided is incorrect")
}

/// An object's place.
#[derive(Debug, Clone, Copy)]
struct At<'a> {
    bucket: &'a str,
    key: &'a str,
}

/// A body that is being read.
struct Reading {
    bucket: String,
    key: String,
    version_id: Option<String>,
    etag: String,
    size: u64,
    /// Bytes that were handed on.
    offset: u64,
    /// Since so many bytes in a row came: see [`RESUME_PROGRESS_BYTES`].
    resumes: u32,
    resumed_at: u64,
    body: Option<ByteStream>,
}

impl Reading {
    /// The next piece; `None` at the end. A body that breaks off, stalls or ends early is taken up again from the byte it
    /// had come to.
    async fn next(&mut self, store: &Inner) -> Result<Option<Bytes>, ObjectError> {
        loop {
            let failed = match self.piece(store).await {
                Ok(Some(piece)) => return Ok(Some(piece)),
                Ok(None) if self.offset == self.size => return Ok(None),
                Ok(None) => store.broken(format!("the body ended after {} of {} bytes", self.offset, self.size)),
                Err(error) => error,
            };
            self.body = None;
            // A byte too many is not a connection that broke.
            let going = self.offset - self.resumed_at >= RESUME_PROGRESS_BYTES;
            if self.resumes >= RESUMES_MAX && !going || !failed.passing || failed.code == "PreconditionFailed" {
                return Err(failed);
            }
            tracing::debug!(endpoint = store.name, offset = self.offset, error = %failed, "reading an object goes on");
            if going {
                self.resumes = 0;
            }
            tokio::time::sleep(store.patience.first_retry * 2_u32.pow(self.resumes)).await;
            self.resumes += 1;
            self.resumed_at = self.offset;
        }
    }

    async fn piece(&mut self, store: &Inner) -> Result<Option<Bytes>, ObjectError> {
        if self.body.is_none() {
            if self.offset == self.size {
                return Ok(None);
            }
            self.body = Some(store.reopen(self).await?);
        }
        let Some(body) = &mut self.body else { return Ok(None) };
        let next = tokio::time::timeout(store.patience.piece, body.next()).await;
        match next.map_err(|_| passing("RequestTimeout", format!("endpoint {} went silent", store.name)))? {
            None => Ok(None),
            Some(Err(error)) => Err(store.broken(crate::error::with_causes(&error))),
            Some(Ok(piece)) => {
                let offset = self.offset + piece.len() as u64;
                if offset > self.size {
                    let message =
                        format!("endpoint {} sent more than the {} bytes it had announced", store.name, self.size);
                    return Err(lasting("InvalidResponse", message));
                }
                self.offset = offset;
                Ok(Some(piece))
            }
        }
    }
}

#[async_trait::async_trait]
impl ports::Objects for RemoteObjects {
    async fn get(&self, bucket: &str, key: &str, version_id: Option<&str>) -> Result<ObjectBody, ObjectError> {
        check_names(bucket, Some(key))?;
        let inner = self.inner.clone();
        let answer = inner.open(At { bucket, key }, version_id, None).await?;
        let size = answer.content_length.and_then(|length| u64::try_from(length).ok());
        // Without them, the end of the body and its identity would be guesses.
        let size = size.ok_or_else(|| inner.malformed("an object has no Content-Length"))?;
        let etag = answer.e_tag.ok_or_else(|| inner.malformed("an object has no ETag"))?;
        let version_id = version_id.map(str::to_owned).or(answer.version_id.filter(|v| v != "null" && !v.is_empty()));
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        let body = Some(answer.body);
        let reading =
            Reading { bucket, key, version_id, etag: etag.clone(), size, offset: 0, resumes: 0, resumed_at: 0, body };
        let stream = futures::stream::unfold(Some(reading), move |state| {
            let inner = inner.clone();
            async move {
                let mut reading = state?;
                match reading.next(&inner).await {
                    Ok(Some(piece)) => Some((Ok(piece), Some(reading))),
                    Ok(None) => None,
                    Err(error) => Some((Err(error), None)),
                }
            }
        });
        Ok(ObjectBody { etag, size: Some(size), tags: None, stream: stream.boxed() })
    }

    async fn put(&self, bucket: &str, key: &str, terms: PutTerms<'_>, body: PutBody) -> Result<String, ObjectError> {
        check_names(bucket, Some(key))?;
        let at = At { bucket, key };
        match body {
            PutBody::Bytes(bytes) => self.inner.put_whole(at, terms, bytes).await,
            PutBody::File(path, size) if size <= PART_BYTES_MIN => {
                self.inner.put_whole(at, terms, read_span(&path, 0, size).await?).await
            }
            PutBody::File(path, size) => self.inner.put_parts(at, terms, &path, size).await,
        }
    }

    async fn list(&self, bucket: &str, query: &ListQuery) -> Result<ListPage, ObjectError> {
        check_names(bucket, None)?;
        if query.versions {
            self.inner.list_versions(bucket, query).await
        } else {
            self.inner.list_current(bucket, query).await
        }
    }

    async fn facts(&self, bucket: &str, key: &str, version_id: Option<&str>) -> Result<ObjectFacts, ObjectError> {
        check_names(bucket, Some(key))?;
        let version_id = version_id.map(str::to_owned);
        let head = self.inner.client.head_object().bucket(bucket).key(key).set_version_id(version_id.clone());
        let error = match head.customize().interceptor(WHOLE).send().await {
            Ok(found) => {
                return Ok(ObjectFacts {
                    encryption: found.server_side_encryption.map(|e| e.as_str().to_owned()),
                    kms_key_arn: found.ssekms_key_id,
                    bucket_key_enabled: found.bucket_key_enabled == Some(true),
                    customer_key: found.sse_customer_algorithm.is_some(),
                    replication_status: found.replication_status.map(|s| s.as_str().to_owned()),
                });
            }
            Err(error) => self.inner.told(&error),
        };
        if error.code != "InvalidRequest" {
            return Err(error);
        }
        // HEAD without the customer's key is answered 400, which has many reasons and no words; GET has the words.
        let get = self.inner.client.get_object().bucket(bucket).key(key).set_version_id(version_id);
        match get.range("bytes=0-0").customize().interceptor(STREAMED).send().await {
            Ok(_) => Err(error),
            Err(said) => {
                let said = self.inner.told(&said);
                if said.code == "InvalidRequest" && said.message.contains("Server Side Encryption") {
                    return Ok(ObjectFacts { customer_key: true, ..ObjectFacts::default() });
                }
                Err(said)
            }
        }
    }

    async fn check_owner(&self, bucket: &str, account: &str) -> Result<(), ObjectError> {
        check_names(bucket, None)?;
        let head = self.inner.client.head_bucket().bucket(bucket).expected_bucket_owner(account);
        match head.customize().interceptor(WHOLE).send().await {
            Ok(_) => Ok(()),
            Err(error) => {
                let mut error = self.inner.told(&error);
                if error.code == "NoSuchKey" {
                    error.code = "NoSuchBucket".into();
                }
                Err(error)
            }
        }
    }
}

/// Aborts a multipart upload unless it was completed; parts that nobody completes are stored, and paid for, for ever.
struct Abort {
    client: Client,
    endpoint: String,
    bucket: String,
    key: String,
    id: Option<String>,
}

impl Abort {
    async fn now(&mut self) {
        let Some(id) = self.id.take() else { return };
        let abort = self.client.abort_multipart_upload().bucket(&self.bucket).key(&self.key).upload_id(id);
        if let Err(error) = abort.customize().interceptor(WHOLE).send().await {
            let error = told(&self.endpoint, &error);
            // Where the upload was completed after all, this is what is answered.
            if error.code != "NoSuchUpload" && error.code != "NoSuchKey" {
                let (endpoint, bucket, key) = (&self.endpoint, &self.bucket, &self.key);
                tracing::warn!(endpoint, bucket, key, %error, "a multipart upload could not be aborted");
            }
        }
    }
}

impl Drop for Abort {
    fn drop(&mut self) {
        if self.id.is_none() {
            return;
        }
        let mut given_up = Abort {
            client: self.client.clone(),
            endpoint: self.endpoint.clone(),
            bucket: std::mem::take(&mut self.bucket),
            key: std::mem::take(&mut self.key),
            id: self.id.take(),
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { given_up.now().await });
        } else {
            given_up.id = None;
        }
    }
}

/// The algorithm and the key of KMS that a store is asked to encrypt with.
fn encryption(asked: &Encryption) -> (Option<ServerSideEncryption>, Option<String>) {
    match asked {
        Encryption::Unasked => (None, None),
        Encryption::SseS3 => (Some(ServerSideEncryption::Aes256), None),
        Encryption::SseKms { key_id } => (Some(ServerSideEncryption::AwsKms), key_id.clone()),
    }
}

fn part_bytes(size: u64) -> u64 {
    PART_BYTES_MIN.max(size.div_ceil(PARTS_MAX))
}

/// Offset and length of each part.
fn spans(size: u64, part_bytes: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..size.div_ceil(part_bytes)).map(move |n| (n * part_bytes, part_bytes.min(size - n * part_bytes)))
}

async fn read_span(path: &Path, offset: u64, length: u64) -> Result<Bytes, ObjectError> {
    let failed = |path: &PathBuf, e: &dyn std::fmt::Display| {
        lasting("InternalError", format!("cannot read {}: {e}", path.display()))
    };
    let owned = path.to_owned();
    let read = async {
        let mut file = tokio::fs::File::open(path).await?;
        file.seek(std::io::SeekFrom::Start(offset)).await?;
        let mut bytes = Vec::with_capacity(length as usize);
        file.take(length).read_to_end(&mut bytes).await?;
        Ok::<_, std::io::Error>(bytes)
    };
    let bytes = read.await.map_err(|e| failed(&owned, &e))?;
    if bytes.len() as u64 != length {
        return Err(failed(&owned, &format!("it has {} bytes from {offset} on, not {length}", bytes.len())));
    }
    Ok(bytes.into())
}

/// Versions and delete markers in the order of one listing: by key, the latest first. The SDK hands them out apart.
fn merged(versions: Vec<Listed>, markers: Vec<Listed>) -> Vec<Listed> {
    let rank = |l: &Listed| (!l.is_latest, std::cmp::Reverse(l.modified_ms));
    let before = |a: &Listed, b: &Listed| a.key.as_bytes().cmp(b.key.as_bytes()).then_with(|| rank(a).cmp(&rank(b)));
    let mut all = Vec::with_capacity(versions.len() + markers.len());
    let (mut versions, mut markers) = (versions.into_iter().peekable(), markers.into_iter().peekable());
    loop {
        let next = match (versions.peek(), markers.peek()) {
            (Some(version), Some(marker)) if before(marker, version).is_lt() => markers.next(),
            (Some(_), _) => versions.next(),
            (None, _) => markers.next(),
        };
        match next {
            Some(next) => all.push(next),
            None => return all,
        }
    }
}
