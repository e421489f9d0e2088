//! GetObject and HeadObject.

use std::ops::Range as ByteRange;

use futures::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::StreamBody;
use s3s::S3Response;
use s3s::dto::*;

use super::{Answer, Call, Checksums, ReadCondition, check_read, checksum_type, etag, length, timestamp};
use crate::error::ObjectsError;
use crate::read::Held;
use crate::table::Version;

/// What both operations ask.
struct Asked<'i> {
    if_match: Option<&'i ETagCondition>,
    if_none_match: Option<&'i ETagCondition>,
    if_modified_since: Option<&'i Timestamp>,
    if_unmodified_since: Option<&'i Timestamp>,
    range: Option<Range>,
    part_number: Option<i32>,
}

/// What both operations answer with.
struct Shown {
    range: ByteRange<u64>,
    content_range: Option<String>,
    parts_count: Option<i32>,
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html>
pub async fn get_object(call: Call<GetObjectInput>) -> Answer<GetObjectOutput> {
    let input = call.input;
    let (version, held) = call.inner.open(&input.bucket, &input.key, input.version_id.as_deref()).await?;
    call.grants.stand(&input.bucket, &version)?;
    let asked = Asked {
        if_match: input.if_match.as_ref(),
        if_none_match: input.if_none_match.as_ref(),
        if_modified_since: input.if_modified_since.as_ref(),
        if_unmodified_since: input.if_unmodified_since.as_ref(),
        range: input.range,
        part_number: input.part_number,
    };
    let shown = shown(&version, &held, &asked)?;
    let checksums = checksums(&version, input.checksum_mode.as_ref(), &shown);
    let len = shown.range.end - shown.range.start;
    let stream = call.inner.stream(&input.bucket, &version, held, shown.range);
    let (context, bucket, key) = (call.context, input.bucket, input.key);
    let frames = stream.map(move |piece| match piece {
        Ok(bytes) => Ok(http_body::Frame::data(bytes)),
        Err(error) => {
            // The status line is gone; all that is left to say it with is the end of the connection.
            tracing::error!(request_id = %context.request_id, bucket, key, %error, "an object could not be read to its end");
            Err(error)
        }
    });
    let body = StreamingBlob::from(s3s::Body::http_body_unsync(StreamBody::new(frames)));
    let attributes = version.attributes;
    Ok(S3Response::new(GetObjectOutput {
        accept_ranges: Some("bytes".into()),
        body: Some(body),
        cache_control: attributes.cache_control,
        checksum_crc32: checksums.crc32,
        checksum_crc32c: checksums.crc32c,
        checksum_crc64nvme: checksums.crc64nvme,
        checksum_sha1: checksums.sha1,
        checksum_sha256: checksums.sha256,
        checksum_type: shown_type(&version.checksum, input.checksum_mode.as_ref(), &shown.content_range),
        content_disposition: attributes.content_disposition,
        content_encoding: attributes.content_encoding,
        content_language: attributes.content_language,
        content_length: length(len),
        content_range: shown.content_range,
        content_type: Some(attributes.content_type.unwrap_or_else(|| DEFAULT_CONTENT_TYPE.into())),
        e_tag: Some(etag(&version.etag)),
        expires: attributes.expires_ms.map(timestamp),
        last_modified: Some(timestamp(version.modified_ms)),
        metadata: Some(attributes.metadata.into_iter().collect()).filter(|m: &Metadata| !m.is_empty()),
        parts_count: shown.parts_count,
        storage_class: attributes.storage_class.map(StorageClass::from),
        tag_count: i32::try_from(attributes.tags.len()).ok().filter(|n| *n > 0),
        version_id: version.versioned.then_some(version.version_id),
        ..GetObjectOutput::default()
    }))
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html>
pub async fn head_object(call: Call<HeadObjectInput>) -> Answer<HeadObjectOutput> {
    let input = call.input;
    let (version, held) = call.inner.open(&input.bucket, &input.key, input.version_id.as_deref()).await?;
    call.grants.stand(&input.bucket, &version)?;
    let asked = Asked {
        if_match: input.if_match.as_ref(),
        if_none_match: input.if_none_match.as_ref(),
        if_modified_since: input.if_modified_since.as_ref(),
        if_unmodified_since: input.if_unmodified_since.as_ref(),
        range: input.range,
        part_number: input.part_number,
    };
    let shown = shown(&version, &held, &asked)?;
    let checksums = checksums(&version, input.checksum_mode.as_ref(), &shown);
    let attributes = version.attributes;
    let mut headers = HeaderMap::new();
    let tags = attributes.tags.len();
    if tags > 0 {
        headers.insert("x-amz-tagging-count", HeaderValue::from(tags));
    }
    let overrides = [
        ("content-type", input.response_content_type),
        ("content-language", input.response_content_language),
        ("cache-control", input.response_cache_control),
        ("content-disposition", input.response_content_disposition),
        ("content-encoding", input.response_content_encoding),
    ];
    for (name, value) in overrides {
        if let Some(value) = value {
            let value = HeaderValue::from_str(&value)
                .map_err(|_| ObjectsError::InvalidArgument(format!("response-{name} cannot stand in a header")))?;
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    let output = HeadObjectOutput {
        accept_ranges: Some("bytes".into()),
        cache_control: attributes.cache_control,
        checksum_crc32: checksums.crc32,
        checksum_crc32c: checksums.crc32c,
        checksum_crc64nvme: checksums.crc64nvme,
        checksum_sha1: checksums.sha1,
        checksum_sha256: checksums.sha256,
        checksum_type: shown_type(&version.checksum, input.checksum_mode.as_ref(), &shown.content_range),
        content_disposition: attributes.content_disposition,
        content_encoding: attributes.content_encoding,
        content_language: attributes.content_language,
        content_length: length(shown.range.end - shown.range.start),
        content_range: shown.content_range,
        content_type: Some(attributes.content_type.unwrap_or_else(|| DEFAULT_CONTENT_TYPE.into())),
        e_tag: Some(etag(&version.etag)),
        expires: attributes.expires_ms.map(timestamp),
        last_modified: Some(timestamp(version.modified_ms)),
        metadata: Some(attributes.metadata.into_iter().collect()).filter(|m: &Metadata| !m.is_empty()),
        parts_count: shown.parts_count,
        storage_class: attributes.storage_class.map(StorageClass::from),
        version_id: version.versioned.then_some(version.version_id),
        ..HeadObjectOutput::default()
    };
    Ok(S3Response::with_headers(output, headers))
}

/// What S3 says of an object that was stored without a type.
const DEFAULT_CONTENT_TYPE: &str = "binary/octet-stream";

/// Evaluates conditions, then the range or the part number.
fn shown(version: &Version, held: &Held, asked: &Asked<'_>) -> Result<Shown, ObjectsError> {
    let conditions =
        check_read(version, asked.if_match, asked.if_none_match, asked.if_modified_since, asked.if_unmodified_since);
    match conditions {
        Ok(()) => {}
        Err(ReadCondition::Failed(name)) => return Err(ObjectsError::PreconditionFailed(name)),
        Err(ReadCondition::Unmodified(_)) => {
            return Err(ObjectsError::NotModified {
                etag: format!("\"{}\"", version.etag),
                modified_ms: version.modified_ms,
            });
        }
    }
    let size = version.size;
    let content_range = |range: &ByteRange<u64>| {
        // A range of nothing cannot be written.
        (range.start < range.end).then(|| format!("bytes {}-{}/{size}", range.start, range.end - 1))
    };
    match (asked.range, asked.part_number) {
        (None, None) => Ok(Shown { range: 0..size, content_range: None, parts_count: None }),
        (Some(range), None) => {
            // `check` lets a suffix of an empty object pass, S3 does not.
            let range = range.check(size).map_err(|_| ObjectsError::InvalidRange { size })?;
            if range.is_empty() {
                return Err(ObjectsError::InvalidRange { size });
            }
            Ok(Shown { content_range: content_range(&range), range, parts_count: None })
        }
        (None, Some(number)) => {
            let number = u32::try_from(number).ok().filter(|n| (1..=10_000).contains(n)).ok_or_else(|| {
                ObjectsError::InvalidArgument("Part number must be an integer between 1 and 10000, inclusive".into())
            })?;
            let (range, count) = match held {
                // Parts keep the numbers they were uploaded with, but are asked for by their place.
                Held::Parts { segments, .. } => {
                    let place = number as usize - 1;
                    let numbered = segments.get(place).map(|segment| segment.number);
                    let range = numbered.and_then(|n| crate::part_range(segments, n));
                    (range, i32::try_from(segments.len()).ok())
                }
                _ => ((number == 1).then_some(0..size), None),
            };
            let range = range.ok_or(ObjectsError::InvalidPartNumber(number))?;
            Ok(Shown { content_range: content_range(&range), range, parts_count: count })
        }
        (Some(_), Some(_)) => {
            Err(ObjectsError::InvalidRequest("Cannot specify both Range header and partNumber query parameter".into()))
        }
    }
}

/// The stored checksum covers the whole object: with a range it would be wrong.
fn checksums(version: &Version, mode: Option<&ChecksumMode>, shown: &Shown) -> Checksums {
    if wanted(mode) && shown.content_range.is_none() {
        Checksums::maybe(version.checksum.as_ref())
    } else {
        Checksums::default()
    }
}

fn shown_type(
    checksum: &Option<crate::checksum::Checksum>,
    mode: Option<&ChecksumMode>,
    content_range: &Option<String>,
) -> Option<ChecksumType> {
    checksum.as_ref().filter(|_| wanted(mode) && content_range.is_none()).map(|c| checksum_type(c.kind))
}

fn wanted(mode: Option<&ChecksumMode>) -> bool {
    mode.is_some_and(|m| m.as_str() == ChecksumMode::ENABLED)
}
