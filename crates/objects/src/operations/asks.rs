//! What each operation asks of the caller's policies, by the input that it is served with. See [`longshore_wire::s3_actions`].

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
    CreateBucketInput, it => vec![on_bucket("s3:CreateBucket", &it.bucket)];
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
        written(&it.bucket, &it.key, it.tagging.as_deref(), storage_class, acl)?
    };
    CreateMultipartUploadInput, it => {
        let storage_class = it.storage_class.as_ref().map(StorageClass::as_str);
        let acl = it.acl.as_ref().map(ObjectCannedACL::as_str);
        written(&it.bucket, &it.key, it.tagging.as_deref(), storage_class, acl)?
    };
    UploadPartInput, it => vec![on_object(PUT_OBJECT, &it.bucket, &it.key)];
    CompleteMultipartUploadInput, it => vec![on_object(PUT_OBJECT, &it.bucket, &it.key)];
    AbortMultipartUploadInput, it => vec![on_object("s3:AbortMultipartUpload", &it.bucket, &it.key)];
    ListPartsInput, it => vec![on_object("s3:ListMultipartUploadParts", &it.bucket, &it.key)];
    UploadPartCopyInput, it => vec![read_source(&it.copy_source)?, on_object(PUT_OBJECT, &it.bucket, &it.key)];
    // Whether the source has tags, which the copy would show, is asked where it is known.
    CopyObjectInput, it => {
        let storage_class = it.storage_class.as_ref().map(StorageClass::as_str);
        let acl = it.acl.as_ref().map(ObjectCannedACL::as_str);
        let mut asks = written(&it.bucket, &it.key, it.tagging.as_deref(), storage_class, acl)?;
        let (bucket, key, _) = copy_source(&it.copy_source)?;
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
    let mut put = with_request_tags(on_object(PUT_OBJECT, bucket, key), pairs());
    for (name, value) in [
        ("s3:x-amz-storage-class", storage_class),
        ("s3:x-amz-acl", acl),
        ("s3:x-amz-copy-source", None),
        ("s3:x-amz-metadata-directive", None),
        ("s3:x-amz-server-side-encryption", None),
    ] {
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
