//! GetObjectAttributes.

use s3s::S3Response;
use s3s::dto::*;

use super::{Answer, Call, Checksums, checksum_type, etag, length, page_size, timestamp};
use crate::error::ObjectsError;
use crate::table::{self, Body};

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObjectAttributes.html>
pub async fn get_object_attributes(call: Call<GetObjectAttributesInput>) -> Answer<GetObjectAttributesOutput> {
    let input = call.input;
    // s3s gives each header as one name; clients also send one header with several.
    let mut names: Vec<String> = Vec::new();
    for value in &input.object_attributes {
        names.extend(value.as_str().split(',').map(|n| n.trim().to_owned()).filter(|n| !n.is_empty()));
    }
    const KNOWN: [&str; 5] = ["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"];
    if names.is_empty() || names.iter().any(|n| !KNOWN.contains(&n.as_str())) {
        return Err(ObjectsError::InvalidArgument("Invalid attribute name specified.".into()));
    }
    let wants = |name: &str| names.iter().any(|n| n == name);
    let max = page_size(input.max_parts, "max-parts")?;
    let after = input.part_number_marker.unwrap_or(0);
    let (bucket, key, asked) = (input.bucket.clone(), input.key.clone(), input.version_id.clone());
    let (version, body) = call.inner.records.read(move |c| table::find(c, &bucket, &key, asked.as_deref())).await?;
    call.grants.stand(&input.bucket, &version)?;
    let object_parts = match &body {
        Body::Parts(segments) if wants("ObjectParts") => {
            let algorithm = version.checksum.as_ref().map(|c| c.algorithm);
            let mut parts = Vec::new();
            let mut more = false;
            for segment in segments.iter().filter(|s| i64::from(s.number) > i64::from(after)) {
                if parts.len() == max {
                    more = true;
                    break;
                }
                let checksums = match (algorithm, &segment.checksum) {
                    (Some(algorithm), Some(value)) => Checksums::of(algorithm, value),
                    _ => Checksums::default(),
                };
                parts.push(ObjectPart {
                    checksum_crc32: checksums.crc32,
                    checksum_crc32c: checksums.crc32c,
                    checksum_crc64nvme: checksums.crc64nvme,
                    checksum_sha1: checksums.sha1,
                    checksum_sha256: checksums.sha256,
                    part_number: i32::try_from(segment.number).ok(),
                    size: length(segment.size),
                });
            }
            Some(GetObjectAttributesParts {
                is_truncated: Some(more),
                max_parts: i32::try_from(max).ok(),
                next_part_number_marker: parts.last().and_then(|p| p.part_number),
                part_number_marker: Some(after),
                parts: Some(parts),
                total_parts_count: i32::try_from(segments.len()).ok(),
            })
        }
        _ => None,
    };
    let checksum = version.checksum.as_ref().filter(|_| wants("Checksum")).map(|c| {
        let all = Checksums::of(c.algorithm, &c.value);
        Checksum {
            checksum_crc32: all.crc32,
            checksum_crc32c: all.crc32c,
            checksum_crc64nvme: all.crc64nvme,
            checksum_sha1: all.sha1,
            checksum_sha256: all.sha256,
            checksum_type: Some(checksum_type(c.kind)),
        }
    });
    let class = version.attributes.storage_class.clone().unwrap_or_else(|| "STANDARD".into());
    Ok(S3Response::new(GetObjectAttributesOutput {
        checksum,
        e_tag: wants("ETag").then(|| etag(&version.etag)),
        last_modified: Some(timestamp(version.modified_ms)),
        object_parts,
        object_size: length(version.size).filter(|_| wants("ObjectSize")),
        storage_class: wants("StorageClass").then(|| StorageClass::from(class)),
        version_id: version.versioned.then_some(version.version_id),
        ..GetObjectAttributesOutput::default()
    }))
}
