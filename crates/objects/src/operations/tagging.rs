//! GetObjectTagging, PutObjectTagging, DeleteObjectTagging, and the rules of tags.

use std::collections::HashSet;

use percent_encoding::percent_decode_str;
use s3s::S3Response;
use s3s::dto::*;

use super::{Answer, Call};
use crate::error::ObjectsError;
use crate::table::{self, Version, Written};

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObjectTagging.html>
pub async fn get_object_tagging(call: Call<GetObjectTaggingInput>) -> Answer<GetObjectTaggingOutput> {
    let input = call.input;
    let version = call.inner.head(&input.bucket, &input.key, input.version_id.as_deref()).await?;
    call.grants.stand(&input.bucket, &version)?;
    let version_id = version.versioned.then_some(version.version_id);
    let tag_set = version.attributes.tags.into_iter().map(|(k, v)| Tag { key: Some(k), value: Some(v) }).collect();
    Ok(S3Response::new(GetObjectTaggingOutput { tag_set, version_id }))
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObjectTagging.html>
pub async fn put_object_tagging(call: Call<PutObjectTaggingInput>) -> Answer<PutObjectTaggingOutput> {
    let input = call.input;
    let tags = input
        .tagging
        .tag_set
        .into_iter()
        .map(|tag| {
            Ok((
                tag.key.ok_or_else(|| ObjectsError::MalformedXml("a Tag without Key".into()))?,
                tag.value.unwrap_or_default(),
            ))
        })
        .collect::<Result<Vec<_>, ObjectsError>>()?;
    check(&tags)?;
    let (version, _) = call
        .inner
        .write(None, move |c| {
            call.grants.stand_in(c, &input.bucket, &input.key, input.version_id.as_deref())?;
            let version = table::set_tags(c, &input.bucket, &input.key, input.version_id.as_deref(), tags)?;
            Ok((version, Vec::new()))
        })
        .await?;
    Ok(S3Response::new(PutObjectTaggingOutput { version_id: shown(version) }))
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjectTagging.html>
pub async fn delete_object_tagging(call: Call<DeleteObjectTaggingInput>) -> Answer<DeleteObjectTaggingOutput> {
    let input = call.input;
    let (version, _) = call
        .inner
        .write(None, move |c| {
            call.grants.stand_in(c, &input.bucket, &input.key, input.version_id.as_deref())?;
            let version = table::set_tags(c, &input.bucket, &input.key, input.version_id.as_deref(), Vec::new())?;
            Ok((version, Written::default().dropped))
        })
        .await?;
    Ok(S3Response::new(DeleteObjectTaggingOutput { version_id: shown(version) }))
}

fn shown(version: Version) -> Option<String> {
    version.versioned.then_some(version.version_id)
}

/// Reads `x-amz-tagging`: the form of a query string, `+` for a space.
pub(super) fn from_header(header: &str) -> Result<Vec<(String, String)>, ObjectsError> {
    let decode = |text: &str| {
        let spaced = text.replace('+', " ");
        percent_decode_str(&spaced).decode_utf8().map(|t| t.into_owned()).map_err(|_| {
            ObjectsError::InvalidArgument("The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name duplicates.".into())
        })
    };
    let mut tags = Vec::new();
    for pair in header.split('&').filter(|p| !p.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        tags.push((decode(key)?, decode(value)?));
    }
    check(&tags)?;
    Ok(tags)
}

/// Ten tags, keys of 1 to 128 and values of up to 256 characters from S3's set, no key twice, none that is AWS's.
/// Source: S3 user guide, "Categorizing your objects using tags".
fn check(tags: &[(String, String)]) -> Result<(), ObjectsError> {
    let invalid = |why: &str| Err(ObjectsError::InvalidTag(why.to_owned()));
    let allowed = |c: char| c.is_alphanumeric() || c.is_whitespace() || "_.:/=+-@".contains(c);
    if tags.len() > 10 {
        return Err(ObjectsError::Refused("BadRequest", "Object tags cannot be greater than 10".into()));
    }
    let mut seen = HashSet::new();
    for (key, value) in tags {
        if !seen.insert(key) {
            return invalid("Cannot provide multiple Tags with the same key");
        }
        if key.is_empty() || key.chars().count() > 128 || !key.chars().all(allowed) {
            return invalid("The TagKey you have provided is invalid");
        }
        if value.chars().count() > 256 || !value.chars().all(allowed) {
            return invalid("The TagValue you have provided is invalid");
        }
        if key.starts_with("aws:") {
            return invalid("System tags cannot be added/updated by requester");
        }
    }
    Ok(())
}
