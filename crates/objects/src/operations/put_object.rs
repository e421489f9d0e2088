//! PutObject.

use s3s::S3Response;
use s3s::dto::*;

use super::{Answer, Call, Checksums, body, checksum_type, described, etag, etag_condition};
use crate::Incoming;
use crate::error::ObjectsError;
use crate::table::WriteCondition;

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html>
pub async fn put_object(call: Call<PutObjectInput>) -> Answer<PutObjectOutput> {
    let mut input = call.input;
    let condition = write_condition(input.if_match.as_ref(), input.if_none_match.as_ref())?;
    let attributes = described!(input).attributes()?;
    let incoming = Incoming {
        expected: call.context.expected.clone(),
        trailers: Some(call.context.trailers.clone()),
        announced: call.context.announced,
        grants: Some(call.grants),
    };
    let body = body(input.body.take());
    let put = call.inner.put(&input.bucket, &input.key, attributes, body, incoming, condition).await?;
    let checksums = Checksums::of(put.checksum.algorithm, &put.checksum.value);
    Ok(S3Response::new(PutObjectOutput {
        checksum_crc32: checksums.crc32,
        checksum_crc32c: checksums.crc32c,
        checksum_crc64nvme: checksums.crc64nvme,
        checksum_sha1: checksums.sha1,
        checksum_sha256: checksums.sha256,
        checksum_type: Some(checksum_type(put.checksum.kind)),
        e_tag: Some(etag(&put.etag)),
        version_id: put.version_id,
        ..PutObjectOutput::default()
    }))
}

/// The conditions of a write. S3 knows `If-None-Match: *` only.
pub(super) fn write_condition(
    if_match: Option<&ETagCondition>,
    if_none_match: Option<&ETagCondition>,
) -> Result<WriteCondition, ObjectsError> {
    let must_not_exist = match if_none_match {
        None => false,
        Some(ETagCondition::Any) => true,
        Some(ETagCondition::ETag(_)) => {
            return Err(ObjectsError::NotImplemented("A write with If-None-Match and an ETag".into()));
        }
    };
    Ok(WriteCondition { must_not_exist, must_match: if_match.map(etag_condition) })
}
