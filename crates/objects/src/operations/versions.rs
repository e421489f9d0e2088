//! GetBucketVersioning, PutBucketVersioning, ListObjectVersions.

use s3s::S3Response;
use s3s::dto::*;

use super::{Answer, Call, Encoding, checksum_type, common_prefixes, etag, length, owner, page_size, timestamp};
use crate::error::ObjectsError;
use crate::table::{self, ListQuery, Versioning, Written};

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetBucketVersioning.html>
pub async fn get_bucket_versioning(call: Call<GetBucketVersioningInput>) -> Answer<GetBucketVersioningOutput> {
    let bucket = call.inner.records.read(move |c| table::bucket(c, &call.input.bucket)).await?;
    let status = bucket.versioning.map(|v| BucketVersioningStatus::from_static(v.name()));
    Ok(S3Response::new(GetBucketVersioningOutput { mfa_delete: None, status }))
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketVersioning.html>
pub async fn put_bucket_versioning(call: Call<PutBucketVersioningInput>) -> Answer<PutBucketVersioningOutput> {
    let input = call.input;
    let configuration = input.versioning_configuration;
    if input.mfa.is_some() || configuration.mfa_delete.as_ref().is_some_and(|m| m.as_str() != "Disabled") {
        return Err(ObjectsError::NotImplemented("MFA delete".into()));
    }
    let versioning = match configuration.status.as_ref().map(BucketVersioningStatus::as_str) {
        Some("Enabled") => Versioning::Enabled,
        Some("Suspended") => Versioning::Suspended,
        _ => {
            return Err(ObjectsError::Refused(
                "IllegalVersioningConfigurationException",
                "The Versioning element must be specified".into(),
            ));
        }
    };
    call.inner
        .write(None, move |c| table::set_versioning(c, &input.bucket, versioning).map(|()| Written::default()))
        .await?;
    Ok(S3Response::new(PutBucketVersioningOutput::default()))
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectVersions.html>
pub async fn list_object_versions(call: Call<ListObjectVersionsInput>) -> Answer<ListObjectVersionsOutput> {
    let input = call.input;
    let encoding = Encoding::of(input.encoding_type.as_ref())?;
    let max = page_size(input.max_keys, "max-keys")?;
    let after_version = input.version_id_marker.clone().filter(|m| !m.is_empty());
    let after = input.key_marker.clone().filter(|m| !m.is_empty());
    if after_version.is_some() && after.is_none() {
        return Err(ObjectsError::InvalidArgument(
            "A version-id marker cannot be specified without a key marker.".into(),
        ));
    }
    let query = ListQuery {
        prefix: input.prefix.clone().unwrap_or_default(),
        delimiter: input.delimiter.clone().filter(|d| !d.is_empty()),
        after,
        max,
    };
    let bucket = input.bucket.clone();
    let (page, next_version) =
        call.inner.records.read(move |c| table::list_versions(c, &bucket, &query, after_version.as_deref())).await?;
    let mut versions = Vec::new();
    let mut delete_markers = Vec::new();
    for v in page.items {
        let (key, modified) = (Some(encoding.apply(&v.key)), Some(timestamp(v.modified_ms)));
        if v.is_delete_marker {
            delete_markers.push(DeleteMarkerEntry {
                is_latest: Some(v.is_latest),
                key,
                last_modified: modified,
                owner: Some(owner(&call.inner)),
                version_id: Some(v.version_id),
            });
        } else {
            versions.push(ObjectVersion {
                checksum_algorithm: v
                    .checksum
                    .as_ref()
                    .map(|c| vec![ChecksumAlgorithm::from_static(c.algorithm.name())]),
                checksum_type: v.checksum.as_ref().map(|c| checksum_type(c.kind)),
                e_tag: Some(etag(&v.etag)),
                is_latest: Some(v.is_latest),
                key,
                last_modified: modified,
                owner: Some(owner(&call.inner)),
                restore_status: None,
                size: length(v.size),
                storage_class: Some(ObjectVersionStorageClass::from(
                    v.attributes.storage_class.unwrap_or_else(|| "STANDARD".into()),
                )),
                version_id: Some(v.version_id),
            });
        }
    }
    Ok(S3Response::new(ListObjectVersionsOutput {
        common_prefixes: common_prefixes(page.common_prefixes, &encoding),
        delete_markers: (!delete_markers.is_empty()).then_some(delete_markers),
        delimiter: input.delimiter.map(|d| encoding.apply(&d)),
        encoding_type: encoding.echo(),
        is_truncated: Some(page.next_after.is_some()),
        key_marker: Some(encoding.apply(input.key_marker.as_deref().unwrap_or(""))),
        max_keys: i32::try_from(max).ok(),
        name: Some(input.bucket),
        next_key_marker: page.next_after.map(|n| encoding.apply(&n)),
        next_version_id_marker: next_version,
        prefix: Some(encoding.apply(input.prefix.as_deref().unwrap_or(""))),
        version_id_marker: input.version_id_marker,
        versions: (!versions.is_empty()).then_some(versions),
        ..ListObjectVersionsOutput::default()
    }))
}
