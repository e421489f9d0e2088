//! The operations that are built, a file for each family. Everything else is answered with `NotImplemented`, by name.

pub(crate) mod asks;
mod buckets;
mod copy_object;
mod delete_objects;
mod get_object;
mod get_object_attributes;
mod granted;
mod list_objects;
mod multipart;
mod put_object;
mod tagging;
mod versions;

use std::sync::Arc;

use jiff::tz::TimeZone;
use s3s::dto::{self, *};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use asks::Asks;
pub(crate) use granted::{Granted, Grants, with_existing_tags};
use longshore_wire::s3_actions::on_bucket;
use longshore_wire::{Asked, Caller};

use crate::checksum::{Algorithm, Checksum, Kind};
use crate::error::ObjectsError;
use crate::serve::Context;
use crate::table::{Attributes, Version};
use crate::{Inner, now_ms};

/// What `s3s` calls.
pub(crate) struct Backend(pub Arc<Inner>);

/// One request that has found its operation.
pub(crate) struct Call<I> {
    pub inner: Arc<Inner>,
    pub input: I,
    pub context: Arc<Context>,
    /// What was asked for it, and has to be so of what it serves, too.
    pub grants: Arc<Grants>,
}

type Answer<O> = Result<S3Response<O>, ObjectsError>;

impl Backend {
    /// Asks the caller's policies for what the input needs, then serves it. There is no other way to an operation.
    async fn run<I, O, F>(&self, request: S3Request<I>, operation: impl FnOnce(Call<I>) -> F) -> S3Result<S3Response<O>>
    where
        I: Asks,
        F: Future<Output = Answer<O>>,
    {
        let Some(context) = request.extensions.get::<Arc<Context>>().cloned() else {
            return Err(S3Error::new(S3ErrorCode::AccessDenied));
        };
        let served = match self.allow(&context, &request.input).await {
            Ok((read, grants)) => {
                let (inner, input) = (self.0.clone(), request.input);
                let call = Call { inner, input, context: context.clone(), grants: Arc::new(grants) };
                operation(call).await.map_err(|error| context.hide_absence(error, read.as_deref()))
            }
            Err(error) => Err(error),
        };
        served.map_err(|error| {
            // The whole error is taken from the context; this one only makes `s3s` stop.
            *context.failed.lock().unwrap_or_else(|e| e.into_inner()) = Some(error);
            S3Error::new(S3ErrorCode::InternalError)
        })
    }
}

impl Backend {
    /// Asks for all that the input needs. Returns the bucket that is read from, for that of a copy's source is another than the
    /// request's, and what was allowed.
    async fn allow(&self, context: &Context, input: &impl Asks) -> Result<(Option<String>, Grants), ObjectsError> {
        let asks = input.asks()?;
        let read = asks.iter().find(|asked| asked.action.starts_with("s3:GetObject"));
        let bucket = read.and_then(|asked| asked.resource.strip_prefix("arn:aws:s3:::")?.split('/').next());
        let bucket = bucket.map(str::to_owned).or_else(|| context.bucket.clone());
        let mut grants = Grants { caller: context.caller.clone(), granted: Vec::new() };
        for asked in asks {
            grants.granted.extend(self.0.allow(&context.caller, asked).await?);
        }
        Ok((bucket, grants))
    }
}

impl Inner {
    /// Asks for one thing, with the tags that the object has now. `None`: it is about no object, or nobody asks the policies of the
    /// caller.
    pub(crate) async fn allow(&self, caller: &Caller, asked: Asked) -> Result<Option<Granted>, ObjectsError> {
        match self.existing_tags(caller, &asked).await? {
            Some(tags) => Granted::ask(caller, asked, tags).map(Some),
            None => caller.may(&asked).map(|()| None).map_err(|why| ObjectsError::AccessDenied(why.to_string())),
        }
    }

    /// As [`Inner::allow`], of what is asked once more when the body is there: then it is told to whoever watches, and here only if it
    /// ends here.
    /// `asks`: one of them will be asked then.
    pub(crate) async fn allow_before_body(&self, caller: &Caller, asks: Vec<Asked>) -> Result<(), ObjectsError> {
        let mut refused = None;
        for asked in asks {
            let asked = match self.existing_tags(caller, &asked).await? {
                Some(tags) => with_existing_tags(asked, &tags),
                None => asked,
            };
            if caller.would(&asked).is_ok() {
                return Ok(());
            }
            refused.get_or_insert(asked);
        }
        let Some(asked) = refused else { return Ok(()) };
        caller.may(&asked).map_err(|why| ObjectsError::AccessDenied(why.to_string()))
    }

    /// The tags of the object that is asked about, as they are now. `None`: it is about no object, or nobody asks the policies of the
    /// caller.
    async fn existing_tags(
        &self,
        caller: &Caller,
        asked: &Asked,
    ) -> Result<Option<Vec<(String, String)>>, ObjectsError> {
        let object = asked.resource.strip_prefix("arn:aws:s3:::").and_then(|r| r.split_once('/'));
        let (false, Some((bucket, key))) = (caller.is_root(), object) else { return Ok(None) };
        let version = asked.context.get("s3:VersionId").and_then(|values| values.first()).map(String::as_str);
        match self.head(bucket, key, version).await {
            Ok(found) => Ok(Some(found.attributes.tags)),
            // What is not there has no tags.
            Err(error) if error.is_absence() => Ok(Some(Vec::new())),
            // A tag that cannot be read is not a tag that is not there.
            Err(error) => Err(error),
        }
    }
}

impl Context {
    /// Whether a key is there is told to those who may list the bucket; to others, as on AWS, an absent one is forbidden.
    fn hide_absence(&self, error: ObjectsError, bucket: Option<&str>) -> ObjectsError {
        let (ObjectsError::NoSuchKey(key) | ObjectsError::DeleteMarker { key, named: false, .. }) = &error else {
            return error;
        };
        let Some(bucket) = bucket else { return error };
        match self.caller.would(&on_bucket("s3:ListBucket", bucket).with("s3:prefix", key.as_str())) {
            Ok(()) => error,
            Err(why) => ObjectsError::AccessDenied(why.to_string()),
        }
    }
}

macro_rules! operations {
    ($($room:ident::$name:ident: $input:ident -> $output:ident;)*) => {
        /// The operations that are built, as `s3s` calls them: `get_object`. How a request is told to be one is `s3s`'s business.
        pub const OPERATIONS: &[&str] = &[$(stringify!($name)),*];

        #[async_trait::async_trait]
        impl s3s::S3 for Backend {
            $(
                async fn $name(&self, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                    self.run(request, $room::$name).await
                }
            )*
        }
    };
}

operations! {
    buckets::list_buckets: ListBucketsInput -> ListBucketsOutput;
    buckets::create_bucket: CreateBucketInput -> CreateBucketOutput;
    buckets::head_bucket: HeadBucketInput -> HeadBucketOutput;
    buckets::delete_bucket: DeleteBucketInput -> DeleteBucketOutput;
    buckets::get_bucket_location: GetBucketLocationInput -> GetBucketLocationOutput;
    put_object::put_object: PutObjectInput -> PutObjectOutput;
    get_object::get_object: GetObjectInput -> GetObjectOutput;
    get_object::head_object: HeadObjectInput -> HeadObjectOutput;
    get_object_attributes::get_object_attributes: GetObjectAttributesInput -> GetObjectAttributesOutput;
    copy_object::copy_object: CopyObjectInput -> CopyObjectOutput;
    delete_objects::delete_object: DeleteObjectInput -> DeleteObjectOutput;
    delete_objects::delete_objects: DeleteObjectsInput -> DeleteObjectsOutput;
    list_objects::list_objects: ListObjectsInput -> ListObjectsOutput;
    list_objects::list_objects_v2: ListObjectsV2Input -> ListObjectsV2Output;
    multipart::create_multipart_upload: CreateMultipartUploadInput -> CreateMultipartUploadOutput;
    multipart::upload_part: UploadPartInput -> UploadPartOutput;
    multipart::upload_part_copy: UploadPartCopyInput -> UploadPartCopyOutput;
    multipart::list_parts: ListPartsInput -> ListPartsOutput;
    multipart::list_multipart_uploads: ListMultipartUploadsInput -> ListMultipartUploadsOutput;
    multipart::complete_multipart_upload: CompleteMultipartUploadInput -> CompleteMultipartUploadOutput;
    multipart::abort_multipart_upload: AbortMultipartUploadInput -> AbortMultipartUploadOutput;
    tagging::get_object_tagging: GetObjectTaggingInput -> GetObjectTaggingOutput;
    tagging::put_object_tagging: PutObjectTaggingInput -> PutObjectTaggingOutput;
    tagging::delete_object_tagging: DeleteObjectTaggingInput -> DeleteObjectTaggingOutput;
    versions::get_bucket_versioning: GetBucketVersioningInput -> GetBucketVersioningOutput;
    versions::put_bucket_versioning: PutBucketVersioningInput -> PutBucketVersioningOutput;
    versions::list_object_versions: ListObjectVersionsInput -> ListObjectVersionsOutput;
}

/// The five checksum members that AWS's shapes have one after the other.
#[derive(Debug, Default)]
struct Checksums {
    crc32: Option<String>,
    crc32c: Option<String>,
    crc64nvme: Option<String>,
    sha1: Option<String>,
    sha256: Option<String>,
}

impl Checksums {
    fn of(algorithm: Algorithm, value: &str) -> Self {
        let mut all = Self::default();
        let value = Some(value.to_owned());
        match algorithm {
            Algorithm::Crc32 => all.crc32 = value,
            Algorithm::Crc32c => all.crc32c = value,
            Algorithm::Crc64Nvme => all.crc64nvme = value,
            Algorithm::Sha1 => all.sha1 = value,
            Algorithm::Sha256 => all.sha256 = value,
        }
        all
    }

    fn maybe(checksum: Option<&Checksum>) -> Self {
        checksum.map(|c| Self::of(c.algorithm, &c.value)).unwrap_or_default()
    }

    /// The member of `algorithm`.
    fn get(&self, algorithm: Algorithm) -> Option<&str> {
        match algorithm {
            Algorithm::Crc32 => self.crc32.as_deref(),
            Algorithm::Crc32c => self.crc32c.as_deref(),
            Algorithm::Crc64Nvme => self.crc64nvme.as_deref(),
            Algorithm::Sha1 => self.sha1.as_deref(),
            Algorithm::Sha256 => self.sha256.as_deref(),
        }
    }
}

fn checksum_type(kind: Kind) -> ChecksumType {
    ChecksumType::from_static(kind.name())
}

fn etag(value: &str) -> ETag {
    ETag::Strong(value.to_owned())
}

/// An ETag condition as the table takes it: the bare value, or `*`.
fn etag_condition(condition: &ETagCondition) -> String {
    match condition {
        ETagCondition::Any => "*".to_owned(),
        ETagCondition::ETag(etag) => etag.value().to_owned(),
    }
}

fn timestamp(ms: i64) -> Timestamp {
    let at = std::time::Duration::from_millis(ms.unsigned_abs());
    let epoch = std::time::UNIX_EPOCH;
    Timestamp::from(if ms < 0 { epoch - at } else { epoch + at })
}

/// Unix milliseconds of a header's or a document's date.
fn milliseconds(timestamp: &Timestamp) -> Result<i64, ObjectsError> {
    let mut text = Vec::new();
    let wrong = || ObjectsError::InvalidArgument("A date does not read.".into());
    timestamp.format(TimestampFormat::DateTime, &mut text).map_err(|_| wrong())?;
    let text = String::from_utf8(text).map_err(|_| wrong())?;
    Ok(text.parse::<jiff::Timestamp>().map_err(|_| wrong())?.as_millisecond())
}

/// `Wed, 21 Oct 2015 07:28:00 GMT`
pub(crate) fn http_date(ms: i64) -> String {
    let at = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_zoned(TimeZone::UTC);
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn owner(inner: &Inner) -> Owner {
    Owner { id: Some(inner.settings.account.clone()), display_name: None }
}

fn length(size: u64) -> Option<i64> {
    i64::try_from(size).ok()
}

/// `max-keys` and its siblings: 1,000 by default and at most.
fn page_size(asked: Option<i32>, name: &str) -> Result<usize, ObjectsError> {
    match asked {
        None => Ok(1_000),
        Some(n) => usize::try_from(n).map(|n| n.min(1_000)).map_err(|_| {
            ObjectsError::InvalidArgument(format!("Argument {name} must be an integer between 0 and 2147483647"))
        }),
    }
}

/// Percent-encodes listed names if the caller asked for it; control characters cannot stand in XML otherwise.
struct Encoding(bool);

impl Encoding {
    fn of(asked: Option<&EncodingType>) -> Result<Self, ObjectsError> {
        match asked.map(EncodingType::as_str) {
            None => Ok(Self(false)),
            Some("url") => Ok(Self(true)),
            Some(_) => Err(ObjectsError::InvalidArgument("Invalid Encoding Method specified in Request".into())),
        }
    }

    fn apply(&self, text: &str) -> String {
        // What S3 leaves alone, besides letters and digits.
        const KEPT: &percent_encoding::AsciiSet =
            &percent_encoding::NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'*');
        if self.0 { percent_encoding::utf8_percent_encode(text, KEPT).to_string() } else { text.to_owned() }
    }

    fn echo(&self) -> Option<EncodingType> {
        self.0.then(|| EncodingType::from_static(EncodingType::URL))
    }
}

fn common_prefixes(prefixes: Vec<String>, encoding: &Encoding) -> Option<Vec<CommonPrefix>> {
    let list: Vec<_> = prefixes.into_iter().map(|p| CommonPrefix { prefix: Some(encoding.apply(&p)) }).collect();
    (!list.is_empty()).then_some(list)
}

/// Storage classes that are labels here: an object is stored alike in all of them, and can be read at once.
const STORAGE_CLASSES: [&str; 6] =
    ["STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR"];

fn storage_class(asked: Option<&StorageClass>) -> Result<Option<String>, ObjectsError> {
    match asked.map(StorageClass::as_str) {
        None | Some("STANDARD") => Ok(None),
        Some(class) if STORAGE_CLASSES.contains(&class) => Ok(Some(class.to_owned())),
        Some(class @ ("GLACIER" | "DEEP_ARCHIVE" | "OUTPOSTS" | "SNOW" | "EXPRESS_ONEZONE" | "FSX_OPENZFS")) => {
            Err(ObjectsError::NotImplemented(format!("The storage class {class}")))
        }
        Some(_) => {
            Err(ObjectsError::Refused("InvalidStorageClass", "The storage class you specified is not valid".into()))
        }
    }
}

/// The members of PutObject, CreateMultipartUpload and CopyObject that describe the object.
struct Described<'i> {
    content_type: Option<&'i String>,
    content_encoding: Option<&'i String>,
    content_disposition: Option<&'i String>,
    content_language: Option<&'i String>,
    cache_control: Option<&'i String>,
    expires: Option<&'i Timestamp>,
    storage_class: Option<&'i StorageClass>,
    metadata: Option<&'i Metadata>,
    tagging: Option<&'i String>,
}

impl Described<'_> {
    fn attributes(self) -> Result<Attributes, ObjectsError> {
        Ok(Attributes {
            content_type: self.content_type.cloned(),
            content_encoding: self.content_encoding.cloned(),
            content_disposition: self.content_disposition.cloned(),
            content_language: self.content_language.cloned(),
            cache_control: self.cache_control.cloned(),
            expires_ms: self.expires.map(milliseconds).transpose()?,
            storage_class: storage_class(self.storage_class)?,
            metadata: self.metadata.into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
            tags: self.tagging.map(|header| tagging::from_header(header)).transpose()?.unwrap_or_default(),
        })
    }
}

/// [`Described`] from any input that has these members.
macro_rules! described {
    ($input:expr) => {
        crate::operations::Described {
            content_type: $input.content_type.as_ref(),
            content_encoding: $input.content_encoding.as_ref(),
            content_disposition: $input.content_disposition.as_ref(),
            content_language: $input.content_language.as_ref(),
            cache_control: $input.cache_control.as_ref(),
            expires: $input.expires.as_ref(),
            storage_class: $input.storage_class.as_ref(),
            metadata: $input.metadata.as_ref(),
            tagging: $input.tagging.as_ref(),
        }
    };
}
pub(crate) use described;

/// Evaluates the conditions of a read, in RFC 9110's order. Source: S3 API, GetObject, "If-None-Match".
fn check_read(
    version: &Version,
    if_match: Option<&ETagCondition>,
    if_none_match: Option<&ETagCondition>,
    if_modified_since: Option<&Timestamp>,
    if_unmodified_since: Option<&Timestamp>,
) -> Result<(), ReadCondition> {
    let matches = |condition: &ETagCondition| match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(etag) => etag.value() == version.etag,
    };
    // HTTP dates have no milliseconds.
    let modified = version.modified_ms.div_euclid(1_000);
    let seconds = |t: &Timestamp| milliseconds(t).map(|ms| ms.div_euclid(1_000)).unwrap_or(i64::MAX);
    match (if_match, if_unmodified_since) {
        (Some(condition), _) if !matches(condition) => return Err(ReadCondition::Failed("If-Match")),
        (Some(_), _) => {}
        (None, Some(since)) if modified > seconds(since) => {
            return Err(ReadCondition::Failed("If-Unmodified-Since"));
        }
        (None, _) => {}
    }
    match (if_none_match, if_modified_since) {
        (Some(condition), _) if matches(condition) => Err(ReadCondition::Unmodified("If-None-Match")),
        (Some(_), _) => Ok(()),
        // A date that lies ahead proves nothing.
        (None, Some(since)) if modified <= seconds(since) && seconds(since) <= now_ms().div_euclid(1_000) => {
            Err(ReadCondition::Unmodified("If-Modified-Since"))
        }
        (None, _) => Ok(()),
    }
}

/// Which condition of a read did not hold.
enum ReadCondition {
    Failed(&'static str),
    Unmodified(&'static str),
}

/// The key and version that a copy reads from.
fn copy_source(source: &CopySource) -> Result<(String, String, Option<String>), ObjectsError> {
    match source {
        CopySource::Bucket { bucket, key, version_id } => {
            Ok((bucket.to_string(), key.to_string(), version_id.as_deref().map(str::to_owned)))
        }
        CopySource::AccessPoint { .. } => Err(ObjectsError::NotImplemented("Copying from an access point".into())),
        CopySource::Outpost { .. } => Err(ObjectsError::NotImplemented("Copying from an Outpost".into())),
    }
}

/// The body of an upload, its errors as ours: what the decoder found wrong is what the caller is told.
fn body(stream: Option<dto::StreamingBlob>) -> impl futures::Stream<Item = Result<bytes::Bytes, ObjectsError>> {
    use futures::StreamExt;
    let stream = stream.unwrap_or_else(|| dto::StreamingBlob::from(s3s::Body::empty()));
    stream.map(|piece| {
        piece.map_err(|error| match error.downcast::<longshore_wire::ApiError>() {
            Ok(told) => ObjectsError::Upload(*told),
            Err(error) => ObjectsError::Io("receiving a body".into(), std::io::Error::other(error)),
        })
    })
}
