//! Multipart uploads: create, upload a part, copy a part, list, complete, abort.
//!
//! Each part is a file. Completing moves the parts' names from the upload to the object in one write; no byte is copied.

use std::collections::HashMap;

use s3s::S3Response;
use s3s::dto::*;

use super::put_object::write_condition;
use super::{
    Answer, Call, Checksums, Encoding, ReadCondition, body, check_read, checksum_type, common_prefixes, copy_source,
    described, etag, length, owner, page_size, timestamp,
};
use crate::checksum::{self, Algorithm, Checksum, Kind};
use crate::error::ObjectsError;
use crate::receive::{Received, Receiving, Stored};
use crate::table::{self, Body, ListQuery, NewVersion, Segment, Upload, UploadPart, Version, WriteCondition};
use crate::{BODY_SIZE_MAX, Incoming, Inner, OBJECT_SIZE_MAX, PART_SIZE_MIN, check_key, etag_of_parts, now_ms};

/// Numbers of parts, as S3.
const PARTS_MAX: u32 = 10_000;

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_CreateMultipartUpload.html>
pub async fn create_multipart_upload(call: Call<CreateMultipartUploadInput>) -> Answer<CreateMultipartUploadOutput> {
    let input = call.input;
    check_key(&input.key)?;
    let invalid = |why: String| ObjectsError::InvalidRequest(why);
    let chosen = match &input.checksum_algorithm {
        None => None,
        Some(name) => Some(
            Algorithm::parse(name.as_str())
                .ok_or_else(|| invalid("Checksum algorithm provided is unsupported.".into()))?,
        ),
    };
    let kind = match &input.checksum_type {
        None => None,
        Some(name) => Some(
            Kind::parse(name.as_str())
                .ok_or_else(|| invalid("Value for x-amz-checksum-type header is invalid.".into()))?,
        ),
    };
    if kind.is_some() && chosen.is_none() {
        return Err(invalid(
            "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.".into(),
        ));
    }
    let (algorithm, kind) = match (chosen, kind) {
        (None, _) => (Algorithm::Crc64Nvme, Kind::FullObject),
        (Some(Algorithm::Crc64Nvme), None) => (Algorithm::Crc64Nvme, Kind::FullObject),
        (Some(algorithm), None) => (algorithm, Kind::Composite),
        (Some(algorithm @ (Algorithm::Sha1 | Algorithm::Sha256)), Some(Kind::FullObject)) => {
            return Err(invalid(format!(
                "The FULL_OBJECT checksum type cannot be used with the {} checksum algorithm.",
                algorithm.name().to_ascii_lowercase()
            )));
        }
        (Some(Algorithm::Crc64Nvme), Some(Kind::Composite)) => {
            return Err(invalid(
                "The COMPOSITE checksum type cannot be used with the crc64nvme checksum algorithm.".into(),
            ));
        }
        (Some(algorithm), Some(kind)) => (algorithm, kind),
    };
    let upload = Upload {
        id: uuid::Uuid::new_v4().simple().to_string(),
        bucket: input.bucket.clone(),
        key: input.key.clone(),
        initiated_ms: now_ms(),
        attributes: described!(input).attributes()?,
        algorithm,
        kind,
        chosen: chosen.is_some(),
    };
    let id = upload.id.clone();
    call.inner.write(None, move |c| table::create_upload(c, &upload).map(|()| Vec::new())).await?;
    Ok(S3Response::new(CreateMultipartUploadOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(id),
        checksum_algorithm: chosen.map(|a| ChecksumAlgorithm::from_static(a.name())),
        checksum_type: chosen.map(|_| checksum_type(kind)),
        ..CreateMultipartUploadOutput::default()
    }))
}

fn part_number(number: i32) -> Result<u32, ObjectsError> {
    u32::try_from(number).ok().filter(|n| (1..=PARTS_MAX).contains(n)).ok_or_else(|| {
        ObjectsError::InvalidArgument("Part number must be an integer between 1 and 10000, inclusive".into())
    })
}

async fn find_upload(inner: &Inner, bucket: &str, key: &str, id: &str) -> Result<Upload, ObjectsError> {
    let (bucket, key, id) = (bucket.to_owned(), key.to_owned(), id.to_owned());
    inner.records.read(move |c| table::upload(c, &bucket, &key, &id)).await
}

/// Records a part that has arrived.
async fn store_part(
    inner: &Inner,
    upload: &Upload,
    number: u32,
    received: Received,
) -> Result<UploadPart, ObjectsError> {
    let checksum = received
        .digests
        .of(upload.algorithm)
        .ok_or_else(|| ObjectsError::Damaged("the part's checksum was not computed".into()))?;
    let Stored::Blob(pending) = received.stored else {
        return Err(ObjectsError::Damaged("a part was not written to a file".into()));
    };
    let part = UploadPart {
        number,
        size: received.size,
        modified_ms: now_ms(),
        etag: hex::encode(&received.digests.md5),
        checksum: checksum::encode(&checksum),
        blob: pending.id().clone(),
        crc64: received.digests.crc64,
    };
    let (bucket, key, id) = (upload.bucket.clone(), upload.key.clone(), upload.id.clone());
    let stored = part.clone();
    inner.write(Some(pending), move |c| table::put_part(c, &bucket, &key, &id, &stored)).await?;
    Ok(part)
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_UploadPart.html>
pub async fn upload_part(call: Call<UploadPartInput>) -> Answer<UploadPartOutput> {
    let mut input = call.input;
    let number = part_number(input.part_number)?;
    let upload = find_upload(&call.inner, &input.bucket, &input.key, &input.upload_id).await?;
    let incoming = Incoming {
        expected: call.context.expected.clone(),
        trailers: Some(call.context.trailers.clone()),
        announced: call.context.announced,
        // The object is completed by another request.
        grants: None,
    };
    let given = incoming.expected.algorithm();
    if let Some(given) = given
        && upload.chosen
        && given != upload.algorithm
    {
        return Err(ObjectsError::InvalidRequest(format!(
            "Checksum Type mismatch occurred, expected checksum Type: {}, actual checksum Type: {}",
            upload.algorithm.name().to_ascii_lowercase(),
            given.name().to_ascii_lowercase()
        )));
    }
    let algorithm = if upload.chosen { Some(upload.algorithm) } else { given };
    let how = Receiving { size_max: BODY_SIZE_MAX, inline: false, algorithm };
    let received = call.inner.receive(body(input.body.take()), &incoming, how).await?;
    let shown = given.and_then(|a| received.digests.of(a).map(|d| (a, checksum::encode(&d))));
    let part = store_part(&call.inner, &upload, number, received).await?;
    let checksums = match shown {
        Some((algorithm, value)) => Checksums::of(algorithm, &value),
        None => Checksums::of(upload.algorithm, &part.checksum),
    };
    Ok(S3Response::new(UploadPartOutput {
        checksum_crc32: checksums.crc32,
        checksum_crc32c: checksums.crc32c,
        checksum_crc64nvme: checksums.crc64nvme,
        checksum_sha1: checksums.sha1,
        checksum_sha256: checksums.sha256,
        e_tag: Some(etag(&part.etag)),
        ..UploadPartOutput::default()
    }))
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_UploadPartCopy.html>
pub async fn upload_part_copy(call: Call<UploadPartCopyInput>) -> Answer<UploadPartCopyOutput> {
    let input = call.input;
    let number = part_number(input.part_number)?;
    let upload = find_upload(&call.inner, &input.bucket, &input.key, &input.upload_id).await?;
    let (from_bucket, from_key, from_version) = copy_source(&input.copy_source)?;
    let (source, held) = call.inner.open(&from_bucket, &from_key, from_version.as_deref()).await?;
    call.grants.stand(&from_bucket, &source)?;
    check_read(
        &source,
        input.copy_source_if_match.as_ref(),
        input.copy_source_if_none_match.as_ref(),
        input.copy_source_if_modified_since.as_ref(),
        input.copy_source_if_unmodified_since.as_ref(),
    )
    .map_err(|(ReadCondition::Failed(name) | ReadCondition::Unmodified(name))| {
        ObjectsError::PreconditionFailed(name)
    })?;
    let range = match &input.copy_source_range {
        None => 0..source.size,
        Some(text) => match Range::parse(text) {
            Ok(Range::Int { first, last: Some(last) }) if last < source.size => first..last + 1,
            Ok(Range::Int { last: Some(_), .. }) => return Err(ObjectsError::InvalidRange { size: source.size }),
            _ => {
                return Err(ObjectsError::InvalidArgument(
                    "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are \
                     the zero-based offsets of the first and last bytes to copy"
                        .into(),
                ));
            }
        },
    };
    let incoming = Incoming { announced: Some(range.end - range.start), ..Incoming::default() };
    let how = Receiving { size_max: BODY_SIZE_MAX, inline: false, algorithm: Some(upload.algorithm) };
    let stream = call.inner.stream(&from_bucket, &source, held, range);
    let received = call.inner.receive(stream, &incoming, how).await?;
    let part = store_part(&call.inner, &upload, number, received).await?;
    let checksums = if upload.chosen { Checksums::of(upload.algorithm, &part.checksum) } else { Checksums::default() };
    Ok(S3Response::new(UploadPartCopyOutput {
        copy_part_result: Some(CopyPartResult {
            checksum_crc32: checksums.crc32,
            checksum_crc32c: checksums.crc32c,
            checksum_crc64nvme: checksums.crc64nvme,
            checksum_sha1: checksums.sha1,
            checksum_sha256: checksums.sha256,
            e_tag: Some(etag(&part.etag)),
            last_modified: Some(timestamp(part.modified_ms)),
        }),
        copy_source_version_id: source.versioned.then_some(source.version_id),
        ..UploadPartCopyOutput::default()
    }))
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListParts.html>
pub async fn list_parts(call: Call<ListPartsInput>) -> Answer<ListPartsOutput> {
    let input = call.input;
    let max = page_size(input.max_parts, "max-parts")?;
    let marker = input.part_number_marker.unwrap_or(0);
    let after = u32::try_from(marker).map_err(|_| {
        ObjectsError::InvalidArgument("Argument part-number-marker must be an integer between 0 and 2147483647".into())
    })?;
    let (bucket, key, id) = (input.bucket.clone(), input.key.clone(), input.upload_id.clone());
    let (upload, mut parts) = call
        .inner
        .records
        .read(move |c| {
            let upload = table::upload(c, &bucket, &key, &id)?;
            let parts = table::parts(c, &id, after, max + 1)?;
            Ok::<_, ObjectsError>((upload, parts))
        })
        .await?;
    let more = parts.len() > max;
    parts.truncate(max);
    let class = upload.attributes.storage_class.clone().unwrap_or_else(|| "STANDARD".into());
    let owner = owner(&call.inner);
    Ok(S3Response::new(ListPartsOutput {
        bucket: Some(input.bucket),
        checksum_algorithm: upload.chosen.then(|| ChecksumAlgorithm::from_static(upload.algorithm.name())),
        checksum_type: upload.chosen.then(|| checksum_type(upload.kind)),
        initiator: Some(Initiator { id: owner.id.clone(), display_name: None }),
        is_truncated: Some(more),
        key: Some(input.key),
        max_parts: i32::try_from(max).ok(),
        next_part_number_marker: parts.last().and_then(|p| i32::try_from(p.number).ok()),
        owner: Some(owner),
        part_number_marker: Some(marker),
        parts: Some(
            parts
                .into_iter()
                .map(|p| {
                    let checksums =
                        if upload.chosen { Checksums::of(upload.algorithm, &p.checksum) } else { Checksums::default() };
                    Part {
                        checksum_crc32: checksums.crc32,
                        checksum_crc32c: checksums.crc32c,
                        checksum_crc64nvme: checksums.crc64nvme,
                        checksum_sha1: checksums.sha1,
                        checksum_sha256: checksums.sha256,
                        e_tag: Some(etag(&p.etag)),
                        last_modified: Some(timestamp(p.modified_ms)),
                        part_number: i32::try_from(p.number).ok(),
                        size: length(p.size),
                    }
                })
                .collect(),
        ),
        storage_class: Some(StorageClass::from(class)),
        upload_id: Some(input.upload_id),
        ..ListPartsOutput::default()
    }))
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListMultipartUploads.html>
pub async fn list_multipart_uploads(call: Call<ListMultipartUploadsInput>) -> Answer<ListMultipartUploadsOutput> {
    let input = call.input;
    let encoding = Encoding::of(input.encoding_type.as_ref())?;
    let max = page_size(input.max_uploads, "max-uploads")?;
    let after_upload = input.upload_id_marker.clone().filter(|m| !m.is_empty());
    let query = ListQuery {
        prefix: input.prefix.clone().unwrap_or_default(),
        delimiter: input.delimiter.clone().filter(|d| !d.is_empty()),
        after: input.key_marker.clone().filter(|m| !m.is_empty()),
        max,
    };
    let bucket = input.bucket.clone();
    let (page, next_upload) =
        call.inner.records.read(move |c| table::list_uploads(c, &bucket, &query, after_upload.as_deref())).await?;
    let owner = owner(&call.inner);
    let uploads = page
        .items
        .into_iter()
        .map(|u| MultipartUpload {
            checksum_algorithm: u.chosen.then(|| ChecksumAlgorithm::from_static(u.algorithm.name())),
            checksum_type: u.chosen.then(|| checksum_type(u.kind)),
            initiated: Some(timestamp(u.initiated_ms)),
            initiator: Some(Initiator { id: owner.id.clone(), display_name: None }),
            key: Some(encoding.apply(&u.key)),
            owner: Some(owner.clone()),
            storage_class: Some(StorageClass::from(u.attributes.storage_class.unwrap_or_else(|| "STANDARD".into()))),
            upload_id: Some(u.id),
        })
        .collect();
    Ok(S3Response::new(ListMultipartUploadsOutput {
        bucket: Some(input.bucket),
        common_prefixes: common_prefixes(page.common_prefixes, &encoding),
        delimiter: input.delimiter.map(|d| encoding.apply(&d)),
        encoding_type: encoding.echo(),
        is_truncated: Some(page.next_after.is_some()),
        key_marker: Some(encoding.apply(input.key_marker.as_deref().unwrap_or(""))),
        max_uploads: i32::try_from(max).ok(),
        next_key_marker: page.next_after.map(|n| encoding.apply(&n)),
        next_upload_id_marker: next_upload,
        prefix: Some(encoding.apply(input.prefix.as_deref().unwrap_or(""))),
        upload_id_marker: input.upload_id_marker,
        uploads: Some(uploads),
        ..ListMultipartUploadsOutput::default()
    }))
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_AbortMultipartUpload.html>
pub async fn abort_multipart_upload(call: Call<AbortMultipartUploadInput>) -> Answer<AbortMultipartUploadOutput> {
    let input = call.input;
    if input.if_match_initiated_time.is_some() {
        return Err(ObjectsError::NotImplemented("The condition x-amz-if-match-initiated-time".into()));
    }
    call.inner
        .write(None, move |c| {
            table::upload(c, &input.bucket, &input.key, &input.upload_id)?;
            table::remove_upload(c, &input.upload_id)
        })
        .await?;
    Ok(S3Response::new(AbortMultipartUploadOutput::default()))
}

/// A part as the caller lists it.
struct Listed {
    number: u32,
    etag: Option<String>,
    checksums: Checksums,
}

/// What the caller says of the whole.
struct Whole {
    checksums: Checksums,
    kind: Option<Kind>,
    size: Option<i64>,
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html>
pub async fn complete_multipart_upload(
    call: Call<CompleteMultipartUploadInput>,
) -> Answer<CompleteMultipartUploadOutput> {
    let input = call.input;
    let condition = write_condition(input.if_match.as_ref(), input.if_none_match.as_ref())?;
    let listed = listed(input.multipart_upload)?;
    let kind =
        match &input.checksum_type {
            None => None,
            Some(name) => Some(Kind::parse(name.as_str()).ok_or_else(|| {
                ObjectsError::InvalidRequest("Value for x-amz-checksum-type header is invalid.".into())
            })?),
        };
    let whole = Whole {
        checksums: Checksums {
            crc32: input.checksum_crc32,
            crc32c: input.checksum_crc32c,
            crc64nvme: input.checksum_crc64nvme,
            sha1: input.checksum_sha1,
            sha256: input.checksum_sha256,
        },
        kind,
        size: input.mpu_object_size,
    };
    let (bucket, key, id) = (input.bucket.clone(), input.key.clone(), input.upload_id);
    let (done, _) = call
        .inner
        .write(None, move |c| {
            call.grants.stand_in(c, &bucket, &key, None)?;
            complete(c, &bucket, &key, &id, &listed, &whole, &condition)
        })
        .await?;
    let checksums = Checksums::maybe(done.checksum.as_ref());
    Ok(S3Response::new(CompleteMultipartUploadOutput {
        location: Some(format!("/{}/{}", input.bucket, Encoding(true).apply(&input.key))),
        bucket: Some(input.bucket),
        key: Some(input.key),
        checksum_crc32: checksums.crc32,
        checksum_crc32c: checksums.crc32c,
        checksum_crc64nvme: checksums.crc64nvme,
        checksum_sha1: checksums.sha1,
        checksum_sha256: checksums.sha256,
        checksum_type: done.checksum.as_ref().map(|c| checksum_type(c.kind)),
        e_tag: Some(etag(&done.etag)),
        version_id: done.version_id,
        ..CompleteMultipartUploadOutput::default()
    }))
}

fn listed(document: Option<CompletedMultipartUpload>) -> Result<Vec<Listed>, ObjectsError> {
    let parts = document.and_then(|d| d.parts).unwrap_or_default();
    if parts.is_empty() {
        return Err(ObjectsError::MalformedXml("no parts are listed".into()));
    }
    let mut listed: Vec<Listed> = Vec::with_capacity(parts.len());
    for part in parts {
        let number = part
            .part_number
            .ok_or_else(|| ObjectsError::MalformedXml("a Part without PartNumber".into()))
            .and_then(part_number)?;
        if listed.last().is_some_and(|before| before.number >= number) {
            return Err(ObjectsError::InvalidPartOrder);
        }
        listed.push(Listed {
            number,
            etag: part.e_tag.map(ETag::into_value),
            checksums: Checksums {
                crc32: part.checksum_crc32,
                crc32c: part.checksum_crc32c,
                crc64nvme: part.checksum_crc64nvme,
                sha1: part.checksum_sha1,
                sha256: part.checksum_sha256,
            },
        });
    }
    Ok(listed)
}

struct Done {
    etag: String,
    checksum: Option<Checksum>,
    version_id: Option<String>,
}

impl From<Version> for Done {
    fn from(version: Version) -> Self {
        Self {
            etag: version.etag,
            checksum: version.checksum,
            version_id: version.versioned.then_some(version.version_id),
        }
    }
}

/// Makes an object of the listed parts; the others are dropped. Repeated after its answer was lost, it answers again.
fn complete(
    c: &rusqlite::Connection,
    bucket: &str,
    key: &str,
    id: &str,
    listed: &[Listed],
    whole: &Whole,
    condition: &WriteCondition,
) -> Result<(Done, Vec<crate::blobs::BlobId>), ObjectsError> {
    let upload = match table::upload(c, bucket, key, id) {
        Err(ObjectsError::NoSuchUpload(id)) => {
            return match table::completed(c, bucket, key, &id)? {
                Some(version) => Ok((version.into(), Vec::new())),
                None => Err(ObjectsError::NoSuchUpload(id)),
            };
        }
        other => other?,
    };
    if whole.kind.is_some_and(|kind| kind != upload.kind) {
        return Err(ObjectsError::InvalidRequest(format!(
            "The upload was created using the {} checksum mode. The complete request must use the same checksum mode.",
            upload.kind.name()
        )));
    }
    let mut stored: HashMap<u32, UploadPart> =
        table::parts(c, id, 0, PARTS_MAX as usize)?.into_iter().map(|p| (p.number, p)).collect();
    let mut parts = Vec::with_capacity(listed.len());
    for wanted in listed {
        let missing = || ObjectsError::InvalidPart(i64::from(wanted.number));
        let part = stored.remove(&wanted.number).ok_or_else(missing)?;
        if wanted.etag.as_ref().is_some_and(|etag| *etag != part.etag) {
            return Err(missing());
        }
        for algorithm in Algorithm::ALL {
            let Some(given) = wanted.checksums.get(algorithm) else { continue };
            // A checksum of another algorithm than the upload's was checked when the part arrived, and not kept.
            if algorithm == upload.algorithm && given != part.checksum {
                return Err(missing());
            }
        }
        parts.push(part);
    }
    let last = parts.len() - 1;
    if let Some(small) = parts[..last].iter().find(|p| p.size < PART_SIZE_MIN) {
        return Err(ObjectsError::EntityTooSmall { number: small.number, size: small.size });
    }
    let size: u64 = parts.iter().map(|p| p.size).sum();
    if size > OBJECT_SIZE_MAX {
        return Err(ObjectsError::EntityTooLarge(OBJECT_SIZE_MAX));
    }
    if whole.size.is_some_and(|said| u64::try_from(said) != Ok(size)) {
        return Err(ObjectsError::InvalidRequest(format!(
            "The provided 'x-amz-mp-object-size' header does not match what was computed: {size}"
        )));
    }
    let digests: Vec<(Vec<u8>, u64)> = parts
        .iter()
        .map(|p| Ok((upload.algorithm.decode(&p.checksum)?, p.size)))
        .collect::<Result<_, ObjectsError>>()?;
    let value = match upload.kind {
        Kind::FullObject => upload.algorithm.join(&digests).map(|d| checksum::encode(&d)),
        Kind::Composite => {
            let digests: Vec<Vec<u8>> = digests.into_iter().map(|(d, _)| d).collect();
            Some(format!("{}-{}", checksum::encode(&upload.algorithm.composite(&digests)), parts.len()))
        }
    };
    let checksum = value.map(|value| Checksum { algorithm: upload.algorithm, kind: upload.kind, value });
    for algorithm in Algorithm::ALL {
        let Some(given) = whole.checksums.get(algorithm) else { continue };
        match &checksum {
            Some(computed) if computed.algorithm == algorithm => {
                // Clients give a composite one with or without the number of parts.
                let bare = computed.value.split('-').next().unwrap_or_default();
                if given != computed.value && given != bare {
                    return Err(ObjectsError::BadDigest(algorithm.name()));
                }
            }
            _ => {
                return Err(ObjectsError::InvalidRequest(format!(
                    "The upload was created using the {} checksum; {} was given.",
                    upload.algorithm.name(),
                    algorithm.name()
                )));
            }
        }
    }
    let etag = etag_of_parts(parts.iter().map(|p| p.etag.as_str()))?;
    let segments = parts
        .into_iter()
        .map(|p| Segment { number: p.number, size: p.size, blob: p.blob, crc64: p.crc64, checksum: Some(p.checksum) })
        .collect();
    let new = NewVersion {
        key: key.to_owned(),
        modified_ms: now_ms(),
        etag: etag.clone(),
        size,
        attributes: upload.attributes,
        checksum: checksum.clone(),
        upload_id: Some(id.to_owned()),
        body: Body::Parts(segments),
    };
    let mut written = table::put(c, bucket, new, condition)?;
    let mut dropped = std::mem::take(&mut written.dropped);
    // After the object names its parts: only the parts that were not listed go.
    dropped.extend(table::remove_upload(c, id)?);
    Ok((Done { etag, checksum, version_id: written.version_id }, dropped))
}
