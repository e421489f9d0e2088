//! What goes wrong in the embedded S3: for the developer an enum with its causes, for the caller S3's code and a
//! sentence ([`ObjectsError::told`]).

use http::StatusCode;
use longshore_store::StoreError;
use longshore_wire::ApiError;

/// Why an operation of the embedded S3 did not happen.
#[derive(Debug, thiserror::Error)]
pub enum ObjectsError {
    #[error("the bucket {0} does not exist")]
    NoSuchBucket(String),
    #[error("the key {0} does not exist")]
    NoSuchKey(String),
    #[error("the key {key} has no version {version}")]
    NoSuchVersion { key: String, version: String },
    /// The version asked for, or the current one, is a delete marker.
    #[error("the key {key} is deleted")]
    DeleteMarker { key: String, version: String, named: bool },
    #[error("there is no multipart upload {0}")]
    NoSuchUpload(String),
    #[error("the bucket {0} is not empty")]
    BucketNotEmpty(String),
    #[error("the bucket {0} exists and is yours")]
    BucketAlreadyOwnedByYou(String),
    #[error("{0:?} is not a bucket name")]
    InvalidBucketName(String),
    /// The name of the condition that did not hold.
    #[error("the condition {0} does not hold")]
    PreconditionFailed(&'static str),
    /// Both as they stand in the headers of a 304.
    #[error("the object has not changed")]
    NotModified { etag: String, modified_ms: i64 },
    #[error("the range lies outside of {size} bytes")]
    InvalidRange { size: u64 },
    #[error("part {0} does not exist")]
    InvalidPartNumber(u32),
    /// The name of the digest that differs.
    #[error("the {0} of the body is another one")]
    BadDigest(&'static str),
    /// The header whose value is no digest.
    #[error("{0} is not a digest")]
    InvalidDigest(&'static str),
    #[error("part {0} is missing or another one")]
    InvalidPart(i64),
    #[error("the parts are not in ascending order")]
    InvalidPartOrder,
    #[error("part {number} has {size} bytes")]
    EntityTooSmall { number: u32, size: u64 },
    #[error("the body is larger than {0} bytes")]
    EntityTooLarge(u64),
    #[error("the body ended after {received} of {announced} bytes")]
    IncompleteBody { received: u64, announced: u64 },
    #[error("a body without a length")]
    MissingContentLength,
    #[error("a key of more than 1,024 bytes")]
    KeyTooLong,
    #[error("user metadata of more than 2 KiB")]
    MetadataTooLarge,
    #[error("{0}")]
    InvalidTag(String),
    #[error("{0}")]
    InvalidArgument(String),
    #[error("{0}")]
    InvalidRequest(String),
    #[error("{0}")]
    MalformedXml(String),
    #[error("{0}")]
    AccessDenied(String),
    /// What is not built, by name.
    #[error("{0} is not implemented")]
    NotImplemented(String),
    /// Any other refusal that S3 has a code for.
    #[error("{1}")]
    Refused(&'static str, String),
    /// The request's body failed on its way in: a wrong hash, a bad chunk signature, a broken connection.
    #[error("the body was refused: {0}")]
    Upload(ApiError),
    /// A local file that stands for an object is not the file that was imported.
    #[error("{path} has changed since it was imported: {what}")]
    SourceChanged { path: String, what: String },
    /// State that does not read as it was written. That of a body names its file, and the object that it belongs to.
    #[error("stored data is damaged: {0}")]
    Damaged(String),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}: {1}")]
    Io(String, #[source] std::io::Error),
}

impl From<rusqlite::Error> for ObjectsError {
    fn from(error: rusqlite::Error) -> Self {
        ObjectsError::Store(StoreError::Sql(error))
    }
}

impl ObjectsError {
    /// An I/O error in our own files: out of space apart from the rest.
    pub(crate) fn io(context: impl Into<String>, error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                ObjectsError::Store(StoreError::Full(format!("{}: {error}", context.into())))
            }
            _ => ObjectsError::Io(context.into(), error),
        }
    }

    /// Names the object whose body it is about.
    pub(crate) fn of(self, bucket: &str, key: &str) -> Self {
        match self {
            ObjectsError::Damaged(what) => ObjectsError::Damaged(format!("s3://{bucket}/{key}: {what}")),
            ObjectsError::Io(doing, error) => ObjectsError::Io(format!("s3://{bucket}/{key}: {doing}"), error),
            other => other,
        }
    }

    /// Whether it says that there is no such object.
    pub fn is_absence(&self) -> bool {
        matches!(
            self,
            Self::NoSuchKey(_) | Self::NoSuchBucket(_) | Self::NoSuchVersion { .. } | Self::DeleteMarker { .. }
        )
    }

    /// Whether it is because what is stored does not read as it was written, which no further try mends.
    pub fn is_damage(&self) -> bool {
        matches!(self, ObjectsError::Damaged(_) | ObjectsError::Store(StoreError::Damaged(_)))
    }

    /// Whether the same call may succeed later: no space, or an error of ours that need not last.
    pub fn passing(&self) -> bool {
        match self {
            _ if self.is_damage() => false,
            ObjectsError::Store(_) | ObjectsError::Io(..) => true,
            ObjectsError::Upload(error) => error.status.is_server_error(),
            _ => false,
        }
    }

    /// Whether it is for want of space on the disk.
    pub fn is_full(&self) -> bool {
        matches!(self, ObjectsError::Store(error) if error.is_full())
    }

    /// What the caller is told. What we know goes to the log, under the same request ID.
    pub fn told(&self) -> ApiError {
        use StatusCode as S;
        let error = |status: StatusCode, code: &'static str, message: &str| ApiError::new(status, code, message);
        match self {
            Self::NoSuchBucket(name) => {
                error(S::NOT_FOUND, "NoSuchBucket", "The specified bucket does not exist").with("BucketName", name)
            }
            Self::NoSuchKey(key) => {
                error(S::NOT_FOUND, "NoSuchKey", "The specified key does not exist.").with("Key", key)
            }
            Self::NoSuchVersion { key, version } => {
                error(S::NOT_FOUND, "NoSuchVersion", "The specified version does not exist.")
                    .with("Key", key)
                    .with("VersionId", version)
            }
            Self::DeleteMarker { named: true, .. } => error(
                S::METHOD_NOT_ALLOWED,
                "MethodNotAllowed",
                "The specified method is not allowed against this resource.",
            )
            .with("ResourceType", "DeleteMarker"),
            Self::DeleteMarker { key, .. } => {
                error(S::NOT_FOUND, "NoSuchKey", "The specified key does not exist.").with("Key", key)
            }
            Self::NoSuchUpload(id) => error(
                S::NOT_FOUND,
                "NoSuchUpload",
                "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted \
                 or completed.",
            )
            .with("UploadId", id),
            Self::BucketNotEmpty(name) => {
                error(S::CONFLICT, "BucketNotEmpty", "The bucket you tried to delete is not empty")
                    .with("BucketName", name)
            }
            Self::BucketAlreadyOwnedByYou(name) => error(
                S::CONFLICT,
                "BucketAlreadyOwnedByYou",
                "Your previous request to create the named bucket succeeded and you already own it.",
            )
            .with("BucketName", name),
            Self::InvalidBucketName(name) => {
                error(S::BAD_REQUEST, "InvalidBucketName", "The specified bucket is not valid.").with("BucketName", name)
            }
            Self::PreconditionFailed(condition) => error(
                S::PRECONDITION_FAILED,
                "PreconditionFailed",
                "At least one of the pre-conditions you specified did not hold",
            )
            .with("Condition", *condition),
            Self::NotModified { .. } => error(S::NOT_MODIFIED, "NotModified", "Not Modified"),
            Self::InvalidRange { size } => {
                error(S::RANGE_NOT_SATISFIABLE, "InvalidRange", "The requested range is not satisfiable")
                    .with("ActualObjectSize", size.to_string())
            }
            Self::InvalidPartNumber(number) => error(
                S::RANGE_NOT_SATISFIABLE,
                "InvalidPartNumber",
                "The requested partnumber is not satisfiable",
            )
            .with("PartNumberRequested", number.to_string()),
            Self::BadDigest(digest) => ApiError::new(
                S::BAD_REQUEST,
                "BadDigest",
                format!("The {digest} you specified did not match what we received."),
            ),
            Self::InvalidDigest("Content-MD5") => {
                error(S::BAD_REQUEST, "InvalidDigest", "The Content-MD5 you specified was invalid.")
            }
            Self::InvalidDigest(header) => {
                ApiError::new(S::BAD_REQUEST, "InvalidRequest", format!("Value for {header} header is invalid."))
            }
            Self::InvalidPart(number) => error(
                S::BAD_REQUEST,
                "InvalidPart",
                "One or more of the specified parts could not be found. The part may not have been uploaded, or the \
                 specified entity tag may not match the part's entity tag.",
            )
            .with("PartNumber", number.to_string()),
            Self::InvalidPartOrder => error(
                S::BAD_REQUEST,
                "InvalidPartOrder",
                "The list of parts was not in ascending order. Parts must be ordered by part number.",
            ),
            Self::EntityTooSmall { number, size } => {
                error(S::BAD_REQUEST, "EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size")
                    .with("ProposedSize", size.to_string())
                    .with("MinSizeAllowed", crate::PART_SIZE_MIN.to_string())
                    .with("PartNumber", number.to_string())
            }
            Self::EntityTooLarge(max) => {
                error(S::BAD_REQUEST, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size")
                    .with("MaxSizeAllowed", max.to_string())
            }
            Self::IncompleteBody { .. } => error(
                S::BAD_REQUEST,
                "IncompleteBody",
                "The request body terminated unexpectedly: it did not have the number of bytes that Content-Length \
                 announced",
            ),
            Self::MissingContentLength => error(
                S::LENGTH_REQUIRED,
                "MissingContentLength",
                "You must provide the Content-Length HTTP header.",
            ),
            Self::KeyTooLong => {
                error(S::BAD_REQUEST, "KeyTooLongError", "Your key is too long").with("MaxSizeAllowed", "1024")
            }
            Self::MetadataTooLarge => error(
                S::BAD_REQUEST,
                "MetadataTooLarge",
                "Your metadata headers exceed the maximum allowed metadata size",
            )
            .with("MaxSizeAllowed", "2048"),
            Self::InvalidTag(why) => error(S::BAD_REQUEST, "InvalidTag", why),
            Self::InvalidArgument(why) => error(S::BAD_REQUEST, "InvalidArgument", why),
            Self::InvalidRequest(why) => error(S::BAD_REQUEST, "InvalidRequest", why),
            Self::MalformedXml(why) => ApiError::new(
                S::BAD_REQUEST,
                "MalformedXML",
                format!("The XML you provided was not well-formed or did not validate against our published schema: {why}"),
            ),
            Self::AccessDenied(why) => error(S::FORBIDDEN, "AccessDenied", why),
            Self::NotImplemented(what) => {
                ApiError::new(S::NOT_IMPLEMENTED, "NotImplemented", format!("{what} is not implemented."))
            }
            Self::Refused(code, why) => error(S::BAD_REQUEST, code, why),
            Self::Upload(told) => told.clone(),
            Self::SourceChanged { .. } => ApiError::new(S::CONFLICT, "SourceChanged", self.to_string()),
            _ if self.is_full() => error(
                S::SERVICE_UNAVAILABLE,
                "SlowDown",
                "There is no space left to store this. Please try again when there is.",
            ),
            // Where it lies is for those who may read the log.
            _ if self.is_damage() => error(
                S::INTERNAL_SERVER_ERROR,
                "InternalError",
                "What was stored is damaged, so that trying again does not help. The server's log says which file it is.",
            ),
            Self::Damaged(_) | Self::Store(_) | Self::Io(..) => error(
                S::INTERNAL_SERVER_ERROR,
                "InternalError",
                "We encountered an internal error. Please try again.",
            ),
        }
    }
}
