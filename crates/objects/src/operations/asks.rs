//! What each operation asks of the caller's policies, by the input that it is served with. See [`longshore_wire::s3_actions`].

use http::HeaderMap;
use longshore_wire::Asked;
use longshore_wire::s3_actions::{
    DELETE_OBJECT, DELETE_OBJECT_TAGGING, GET_OBJECT, GET_OBJECT_ATTRIBUTES, GET_OBJECT_TAGGING, PUT_OBJECT,
    PUT_OBJECT_TAGGING, on_bucket, on_object, on_version, with_key, with_request_tags,
};
use s3s::dto::*;

use super::{copy_source, tagging};
use crate::error::ObjectsError;

/// An input that knows what has to be allowed for it.
pub trait Asks {
    fn asks(&self) -> Result<Vec<Asked>, ObjectsError>;
}

macro_rules! asks {
    ($($input:ident, $it:ident => $asks:expr;)*) => {
        $(
            impl Asks for $input {
                fn asks(&self) -> Result<Vec<Asked>, ObjectsError> {
                    let $it = self;
                    Ok($asks)
                }
            }
        )*
    };
}

asks! {
    ListBucketsInput, _it => vec![Asked::new("s3:ListAllMyBuckets", "*")];
    CreateBucketInput, it => {
        let configuration = it.create_bucket_configuration.as_ref();
        let constraint = configuration.and_then(|configuration| configuration.location_constraint.as_ref());
        let constraint = constraint.map(BucketLocationConstraint::as_str).filter(|constraint| !constraint.is_empty());
        vec![making_bucket(&it.bucket, constraint)]
    };
    HeadBucketInput, it => vec![on_bucket("s3:ListBucket", &it.bucket)];
    DeleteBucketInput, it => vec![on_bucket("s3:DeleteBucket", &it.bucket)];
    GetBucketLocationInput, it => vec![on_bucket("s3:GetBucketLocation", &it.bucket)];
    GetBucketVersioningInput, it => vec![on_bucket("s3:GetBucketVersioning", &it.bucket)];
    PutBucketVersioningInput, it => vec![on_bucket("s3:PutBucketVersioning", &it.bucket)];
    ListObjectsInput, it => vec![listing(
        on_bucket("s3:ListBucket", &it.bucket), it.prefix.as_deref(), it.delimiter.as_deref(), it.max_keys,
    )];
    ListObjectsV2Input, it => vec![listing(
        on_bucket("s3:ListBucket", &it.bucket), it.prefix.as_deref(), it.delimiter.as_deref(), it.max_keys,
    )];
    ListObjectVersionsInput, it => vec![listing(
        on_bucket("s3:ListBucketVersions", &it.bucket), it.prefix.as_deref(), it.delimiter.as_deref(), it.max_keys,
    )];
    ListMultipartUploadsInput, it => vec![listing(
        on_bucket("s3:ListBucketMultipartUploads", &it.bucket), it.prefix.as_deref(), it.delimiter.as_deref(), None,
    )];
    PutObjectInput, it => {
        let storage_class = it.storage_class.as_ref().map(StorageClass::as_str);
        let acl = it.acl.as_ref().map(ObjectCannedACL::as_str);
        let mut asks = written(&it.bucket, &it.key, it.tagging.as_deref(), storage_class, acl)?;
        asks[0] = creating(asks[0].clone(), it.if_match.as_ref(), it.if_none_match.as_ref());
        asks
    };
    CreateMultipartUploadInput, it => {
        let storage_class = it.storage_class.as_ref().map(StorageClass::as_str);
        let acl = it.acl.as_ref().map(ObjectCannedACL::as_str);
        written(&it.bucket, &it.key, it.tagging.as_deref(), storage_class, acl)?
    };
    UploadPartInput, it => vec![bare_put(&it.bucket, &it.key)];
    CompleteMultipartUploadInput, it => {
        vec![creating(bare_put(&it.bucket, &it.key), it.if_match.as_ref(), it.if_none_match.as_ref())]
    };
    AbortMultipartUploadInput, it => vec![on_object("s3:AbortMultipartUpload", &it.bucket, &it.key)];
    ListPartsInput, it => vec![on_object("s3:ListMultipartUploadParts", &it.bucket, &it.key)];
    UploadPartCopyInput, it => {
        let (bucket, key, _) = copy_source(&it.copy_source)?;
        let put = bare_put(&it.bucket, &it.key).with("s3:x-amz-copy-source", format!("{bucket}/{key}"));
        vec![read_source(&it.copy_source)?, put]
    };
    // Whether the source has tags, which the copy would show, is asked where it is known.
    CopyObjectInput, it => {
        let storage_class = it.storage_class.as_ref().map(StorageClass::as_str);
        let acl = it.acl.as_ref().map(ObjectCannedACL::as_str);
        let mut asks = written(&it.bucket, &it.key, it.tagging.as_deref(), storage_class, acl)?;
        let (bucket, key, _) = copy_source(&it.copy_source)?;
        // A copy has no such conditions on what it replaces.
        asks[0] = creating(asks[0].clone(), None, None);
        asks[0].context.set("s3:x-amz-copy-source", format!("{bucket}/{key}"));
        if let Some(directive) = &it.metadata_directive {
            asks[0].context.set("s3:x-amz-metadata-directive", directive.as_str());
        }
        asks.insert(0, read_source(&it.copy_source)?);
        asks
    };
    GetObjectInput, it => vec![on_version(GET_OBJECT, &it.bucket, &it.key, it.version_id.as_deref())];
    HeadObjectInput, it => vec![on_version(GET_OBJECT, &it.bucket, &it.key, it.version_id.as_deref())];
    GetObjectAttributesInput, it => vec![
        on_version(GET_OBJECT, &it.bucket, &it.key, it.version_id.as_deref()),
        on_version(GET_OBJECT_ATTRIBUTES, &it.bucket, &it.key, it.version_id.as_deref()),
    ];
    DeleteObjectInput, it => vec![on_version(DELETE_OBJECT, &it.bucket, &it.key, it.version_id.as_deref())];
    // Each key is asked for, and refused, by itself.
    DeleteObjectsInput, _it => Vec::new();
    GetObjectTaggingInput, it => vec![on_version(GET_OBJECT_TAGGING, &it.bucket, &it.key, it.version_id.as_deref())];
    PutObjectTaggingInput, it => {
        let asked = on_version(PUT_OBJECT_TAGGING, &it.bucket, &it.key, it.version_id.as_deref());
        let tags = it.tagging.tag_set.iter();
        let tags = tags.map(|tag| (tag.key.as_deref().unwrap_or(""), tag.value.as_deref().unwrap_or("")));
        vec![with_request_tags(asked, tags)]
    };
    DeleteObjectTaggingInput, it => vec![
        on_version(DELETE_OBJECT_TAGGING, &it.bucket, &it.key, it.version_id.as_deref()),
    ];
}

fn listing(mut asked: Asked, prefix: Option<&str>, delimiter: Option<&str>, max_keys: Option<i32>) -> Asked {
    let max_keys = max_keys.map(|max_keys| max_keys.to_string());
    for (key, value) in [("s3:prefix", prefix), ("s3:delimiter", delimiter), ("s3:max-keys", max_keys.as_deref())] {
        asked = with_key(asked, key, value);
    }
    asked
}

/// Keys of `s3:PutObject` that a request has by a header that it may have or not. Those for encryption, locks, grants and redirection no
/// request has that is served: their headers are refused.
const OF_WRITES: [&str; 18] = [
    "s3:if-match",
    "s3:if-none-match",
    "s3:object-lock-legal-hold",
    "s3:object-lock-mode",
    "s3:object-lock-retain-until-date",
    "s3:x-amz-acl",
    "s3:x-amz-copy-source",
    "s3:x-amz-grant-full-control",
    "s3:x-amz-grant-read",
    "s3:x-amz-grant-read-acp",
    "s3:x-amz-grant-write",
    "s3:x-amz-grant-write-acp",
    "s3:x-amz-metadata-directive",
    "s3:x-amz-server-side-encryption",
    "s3:x-amz-server-side-encryption-aws-kms-key-id",
    "s3:x-amz-server-side-encryption-customer-algorithm",
    "s3:x-amz-storage-class",
    "s3:x-amz-website-redirect-location",
];

/// `s3:PutObject` of what has none of these headers and makes no object by itself: a part of an upload, or its beginning.
fn bare_put(bucket: &str, key: &str) -> Asked {
    let mut put = with_request_tags(on_object(PUT_OBJECT, bucket, key), []);
    for name in OF_WRITES {
        put = with_key(put, name, None);
    }
    put.with("s3:ObjectCreationOperation", "false")
}

/// `s3:PutObject` of what makes an object, if its conditions hold. Source: S3 user guide, "Enforce conditional writes on Amazon S3 buckets".
fn creating(put: Asked, if_match: Option<&ETagCondition>, if_none_match: Option<&ETagCondition>) -> Asked {
    let header = |condition: Option<&ETagCondition>| {
        let header = condition.and_then(|condition| condition.to_http_header().ok());
        header.map(|header| String::from_utf8_lossy(header.as_bytes()).into_owned())
    };
    let put = with_key(put, "s3:if-match", header(if_match).as_deref());
    let put = with_key(put, "s3:if-none-match", header(if_none_match).as_deref());
    put.with("s3:ObjectCreationOperation", "true")
}

/// `s3:PutObject` of an upload that is completed, by the headers of its request.
pub fn completing(bucket: &str, key: &str, headers: &HeaderMap) -> Asked {
    let condition =
        |name: &str| headers.get(name).and_then(|value| ETagCondition::parse_http_header(value.as_bytes()).ok());
    creating(bare_put(bucket, key), condition("if-match").as_ref(), condition("if-none-match").as_ref())
}

/// `constraint`: the region that the request's document names, if it does.
fn making_bucket(bucket: &str, constraint: Option<&str>) -> Asked {
    with_key(on_bucket("s3:CreateBucket", bucket), "s3:LocationConstraint", constraint)
}

/// All that a document of CreateBucket that is served in this region may ask for: it names the region, in one way or another, or none.
pub fn making_bucket_in(bucket: &str, region: &str) -> Vec<Asked> {
    // The old name of that region.
    let older = (region == "eu-west-1").then_some("EU");
    let named = [Some(region), older].into_iter().flatten().map(Some);
    std::iter::once(None).chain(named).map(|constraint| making_bucket(bucket, constraint)).collect()
}

/// An object that is written, with what it is given besides.
fn written(
    bucket: &str,
    key: &str,
    tags: Option<&str>,
    storage_class: Option<&str>,
    acl: Option<&str>,
) -> Result<Vec<Asked>, ObjectsError> {
    let given = tags.map(tagging::from_header).transpose()?.unwrap_or_default();
    let pairs = || given.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let mut put = with_request_tags(bare_put(bucket, key), pairs());
    for (name, value) in [("s3:x-amz-storage-class", storage_class), ("s3:x-amz-acl", acl)] {
        put = with_key(put, name, value);
    }
    let mut asks = Vec::new();
    if tags.is_some() {
        asks.push(with_request_tags(on_object(PUT_OBJECT_TAGGING.0, bucket, key), pairs()));
    }
    if acl.is_some() {
        asks.push(on_object("s3:PutObjectAcl", bucket, key));
    }
    asks.insert(0, put);
    Ok(asks)
}

fn read_source(source: &CopySource) -> Result<Asked, ObjectsError> {
    let (bucket, key, version) = copy_source(source)?;
    Ok(on_version(GET_OBJECT, &bucket, &key, version.as_deref()))
}
