//! CopyObject: a new record that shares the body of the old one, made in one write.

use longshore_wire::s3_actions::{GET_OBJECT_TAGGING, PUT_OBJECT_TAGGING, on_object, on_version, with_request_tags};
use s3s::S3Response;
use s3s::dto::*;

use super::{
    Answer, Call, Checksums, Granted, ReadCondition, check_read, checksum_type, copy_source, described, etag, tagging,
    timestamp,
};
use crate::checksum::{Algorithm, Checksum};
use crate::error::ObjectsError;
use crate::table::{self, Attributes, Body, NewVersion, Version, WriteCondition};
use crate::{BODY_SIZE_MAX, Incoming, check_key, now_ms};

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html>
pub async fn copy_object(call: Call<CopyObjectInput>) -> Answer<CopyObjectOutput> {
    let input = call.input;
    check_key(&input.key)?;
    let (from_bucket, from_key, from_version) = copy_source(&input.copy_source)?;
    let replace = directive(input.metadata_directive.as_ref().map(MetadataDirective::as_str), "metadata")?;
    let replace_tags = directive(input.tagging_directive.as_ref().map(TaggingDirective::as_str), "tagging")?;
    let given = described!(input).attributes()?;
    let onto_itself = from_bucket == input.bucket && from_key == input.key && from_version.is_none();
    let changes = replace || replace_tags || given.storage_class.is_some() || input.checksum_algorithm.is_some();
    if onto_itself && !changes {
        return Err(ObjectsError::InvalidRequest(
            "This copy request is illegal because it is trying to copy an object to itself without changing the \
             object's metadata, storage class, website redirect location or encryption attributes."
                .into(),
        ));
    }
    let tags = input.tagging.as_deref().map(tagging::from_header).transpose()?.unwrap_or_default();
    let attributes = move |source: &Version| -> Attributes {
        let mut attributes = if replace { given.clone() } else { source.attributes.clone() };
        // The storage class is never copied.
        attributes.storage_class = given.storage_class.clone();
        attributes.tags = if replace_tags { tags.clone() } else { source.attributes.tags.clone() };
        attributes
    };
    let (if_match, if_none_match) = (input.copy_source_if_match, input.copy_source_if_none_match);
    let (since, not_since) = (input.copy_source_if_modified_since, input.copy_source_if_unmodified_since);
    let check = move |source: &Version| {
        if source.size > BODY_SIZE_MAX {
            return Err(ObjectsError::InvalidRequest(
                "The specified copy source is larger than the maximum allowable size for a copy source: 5368709120"
                    .into(),
            ));
        }
        check_read(source, if_match.as_ref(), if_none_match.as_ref(), since.as_ref(), not_since.as_ref()).map_err(
            |condition| match condition {
                ReadCondition::Failed(name) | ReadCondition::Unmodified(name) => {
                    ObjectsError::PreconditionFailed(match name {
                        "If-Match" => "x-amz-copy-source-If-Match",
                        "If-None-Match" => "x-amz-copy-source-If-None-Match",
                        "If-Modified-Since" => "x-amz-copy-source-If-Modified-Since",
                        _ => "x-amz-copy-source-If-Unmodified-Since",
                    })
                }
            },
        )
    };
    let algorithm = match &input.checksum_algorithm {
        None => None,
        Some(name) => Some(
            Algorithm::parse(name.as_str())
                .ok_or_else(|| ObjectsError::InvalidRequest("Checksum algorithm provided is unsupported.".into()))?,
        ),
    };

    let source = call.inner.head(&from_bucket, &from_key, from_version.as_deref()).await?;
    let may_copy = {
        let grants = call.grants.clone();
        let asked = on_version(GET_OBJECT_TAGGING, &from_bucket, &from_key, from_version.as_deref());
        let (from_bucket, bucket, key) = (from_bucket.clone(), input.bucket.clone(), input.key.clone());
        // With the source that is copied in hand, and what the copy replaces.
        move |c: &rusqlite::Connection, source: &Version| -> Result<(), ObjectsError> {
            grants.stand(&from_bucket, source)?;
            let tags = &source.attributes.tags;
            if replace_tags || tags.is_empty() || grants.caller.is_root() {
                return Ok(());
            }
            Granted::ask(&grants.caller, asked.clone(), tags.clone())?;
            // They are written with the copy.
            let pairs = tags.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            let asked = with_request_tags(on_object(PUT_OBJECT_TAGGING.0, &bucket, &key), pairs);
            let replaced = match table::find(c, &bucket, &key, None) {
                Ok((replaced, _)) => replaced.attributes.tags,
                Err(error) if error.is_absence() => Vec::new(),
                Err(error) => return Err(error),
            };
            Granted::ask(&grants.caller, asked, replaced).map(drop)
        }
    };
    check(&source)?;
    let new_checksum = algorithm.is_some_and(|a| source.checksum.as_ref().is_none_or(|c| c.algorithm != a));
    // A local file may change later, which a copy must not; and a checksum is made from bytes.
    let (done, copied) = if source.checksum.is_none() || new_checksum {
        let (source, held) = call.inner.open(&from_bucket, &from_key, from_version.as_deref()).await?;
        check(&source)?;
        let judged = source.clone();
        call.inner.records.read(move |c| may_copy(c, &judged)).await?;
        let range = 0..source.size;
        let stream = call.inner.stream(&from_bucket, &source, held, range);
        let mut incoming = Incoming { announced: Some(source.size), ..Incoming::default() };
        incoming.grants = Some(call.grants);
        if let Some(algorithm) = algorithm {
            incoming.expected.checksum = Some((algorithm, crate::checksum::ExpectedValue::Unknown));
        }
        let put = call
            .inner
            .put(&input.bucket, &input.key, attributes(&source), stream, incoming, WriteCondition::default())
            .await?;
        let done =
            Done { etag: put.etag, checksum: Some(put.checksum), modified_ms: now_ms(), version_id: put.version_id };
        (done, source)
    } else {
        let (bucket, key) = (input.bucket.clone(), input.key.clone());
        let (done, _) = call
            .inner
            .write(None, move |c| {
                let (source, body) = table::find(c, &from_bucket, &from_key, from_version.as_deref())?;
                check(&source)?;
                may_copy(c, &source)?;
                call.grants.stand_in(c, &bucket, &key, None)?;
                if let Body::External { .. } = &body {
                    return Err(ObjectsError::PreconditionFailed("the source became another object"));
                }
                let modified_ms = now_ms();
                let new = NewVersion {
                    key,
                    modified_ms,
                    // As in S3, the copy is one object, whatever parts its source came in; but our copy keeps the parts,
                    // and with them the ETag that a reader can check them against.
                    etag: source.etag.clone(),
                    size: source.size,
                    attributes: attributes(&source),
                    checksum: source.checksum.clone(),
                    upload_id: None,
                    body,
                };
                let mut written = table::put(c, &bucket, new, &WriteCondition::default())?;
                let dropped = std::mem::take(&mut written.dropped);
                let done = Done {
                    etag: source.etag.clone(),
                    checksum: source.checksum.clone(),
                    modified_ms,
                    version_id: written.version_id,
                };
                Ok(((done, source), dropped))
            })
            .await?;
        done
    };
    let checksums = Checksums::maybe(done.checksum.as_ref());
    Ok(S3Response::new(CopyObjectOutput {
        copy_object_result: Some(CopyObjectResult {
            checksum_crc32: checksums.crc32,
            checksum_crc32c: checksums.crc32c,
            checksum_crc64nvme: checksums.crc64nvme,
            checksum_sha1: checksums.sha1,
            checksum_sha256: checksums.sha256,
            checksum_type: done.checksum.as_ref().map(|c| checksum_type(c.kind)),
            e_tag: Some(etag(&done.etag)),
            last_modified: Some(timestamp(done.modified_ms)),
        }),
        copy_source_version_id: copied.versioned.then_some(copied.version_id),
        version_id: done.version_id,
        ..CopyObjectOutput::default()
    }))
}

struct Done {
    etag: String,
    checksum: Option<Checksum>,
    modified_ms: i64,
    version_id: Option<String>,
}

fn directive(given: Option<&str>, what: &str) -> Result<bool, ObjectsError> {
    match given {
        None | Some("COPY") => Ok(false),
        Some("REPLACE") => Ok(true),
        Some(_) => Err(ObjectsError::InvalidArgument(format!("Unknown {what} directive."))),
    }
}
