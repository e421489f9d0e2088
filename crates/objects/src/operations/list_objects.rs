//! ListObjects and ListObjectsV2.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use s3s::S3Response;
use s3s::dto::*;

use super::{Answer, Call, Encoding, checksum_type, common_prefixes, etag, length, owner, page_size, timestamp};
use crate::error::ObjectsError;
use crate::table::{self, ListQuery, Version};

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjects.html>
pub async fn list_objects(call: Call<ListObjectsInput>) -> Answer<ListObjectsOutput> {
    let input = call.input;
    let encoding = Encoding::of(input.encoding_type.as_ref())?;
    let max = page_size(input.max_keys, "max-keys")?;
    let query = ListQuery {
        prefix: input.prefix.clone().unwrap_or_default(),
        delimiter: input.delimiter.clone().filter(|d| !d.is_empty()),
        after: input.marker.clone().filter(|m| !m.is_empty()),
        max,
    };
    let has_delimiter = query.delimiter.is_some();
    let bucket = input.bucket.clone();
    let page = call.inner.records.read(move |c| table::list(c, &bucket, &query)).await?;
    let owner = owner(&call.inner);
    let next = page.next_after;
    Ok(S3Response::new(ListObjectsOutput {
        is_truncated: Some(next.is_some()),
        // Without a delimiter the caller takes the last key.
        next_marker: next.filter(|_| has_delimiter).map(|n| encoding.apply(&n)),
        contents: contents(page.items, &encoding, Some(&owner)),
        common_prefixes: common_prefixes(page.common_prefixes, &encoding),
        delimiter: input.delimiter.map(|d| encoding.apply(&d)),
        encoding_type: encoding.echo(),
        marker: Some(encoding.apply(input.marker.as_deref().unwrap_or(""))),
        max_keys: i32::try_from(max).ok(),
        name: Some(input.bucket),
        prefix: Some(encoding.apply(input.prefix.as_deref().unwrap_or(""))),
        ..ListObjectsOutput::default()
    }))
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html>
pub async fn list_objects_v2(call: Call<ListObjectsV2Input>) -> Answer<ListObjectsV2Output> {
    let input = call.input;
    let encoding = Encoding::of(input.encoding_type.as_ref())?;
    let max = page_size(input.max_keys, "max-keys")?;
    let after = match &input.continuation_token {
        Some(token) => Some(read_token(token)?),
        None => input.start_after.clone().filter(|s| !s.is_empty()),
    };
    let query = ListQuery {
        prefix: input.prefix.clone().unwrap_or_default(),
        delimiter: input.delimiter.clone().filter(|d| !d.is_empty()),
        after,
        max,
    };
    let bucket = input.bucket.clone();
    let page = call.inner.records.read(move |c| table::list(c, &bucket, &query)).await?;
    let owner = input.fetch_owner.unwrap_or(false).then(|| owner(&call.inner));
    Ok(S3Response::new(ListObjectsV2Output {
        key_count: i32::try_from(page.items.len() + page.common_prefixes.len()).ok(),
        is_truncated: Some(page.next_after.is_some()),
        next_continuation_token: page.next_after.map(|n| URL_SAFE_NO_PAD.encode(n)),
        contents: contents(page.items, &encoding, owner.as_ref()),
        common_prefixes: common_prefixes(page.common_prefixes, &encoding),
        continuation_token: input.continuation_token,
        delimiter: input.delimiter.map(|d| encoding.apply(&d)),
        encoding_type: encoding.echo(),
        max_keys: i32::try_from(max).ok(),
        name: Some(input.bucket),
        prefix: Some(encoding.apply(input.prefix.as_deref().unwrap_or(""))),
        start_after: input.start_after.map(|s| encoding.apply(&s)),
        ..ListObjectsV2Output::default()
    }))
}

/// A token is the last entry of the page before, in base64.
fn read_token(token: &str) -> Result<String, ObjectsError> {
    URL_SAFE_NO_PAD
        .decode(token)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| ObjectsError::InvalidArgument("The continuation token provided is incorrect".into()))
}

fn contents(items: Vec<Version>, encoding: &Encoding, owner: Option<&Owner>) -> Option<Vec<Object>> {
    if items.is_empty() {
        return None;
    }
    let objects = items.into_iter().map(|v| Object {
        checksum_algorithm: v.checksum.as_ref().map(|c| vec![ChecksumAlgorithm::from_static(c.algorithm.name())]),
        checksum_type: v.checksum.as_ref().map(|c| checksum_type(c.kind)),
        e_tag: Some(etag(&v.etag)),
        key: Some(encoding.apply(&v.key)),
        last_modified: Some(timestamp(v.modified_ms)),
        owner: owner.cloned(),
        restore_status: None,
        size: length(v.size),
        storage_class: Some(ObjectStorageClass::from(v.attributes.storage_class.unwrap_or_else(|| "STANDARD".into()))),
    });
    Some(objects.collect())
}
