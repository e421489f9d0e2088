//! DeleteObject and DeleteObjects.

use longshore_wire::s3_actions::{DELETE_OBJECT, on_version};
use s3s::S3Response;
use s3s::dto::*;

use super::{Answer, Call, Grants, etag_condition};
use crate::error::ObjectsError;
use crate::table::{self, Written};
use crate::{check_key, now_ms};

/// Keys of one DeleteObjects, as S3.
const KEYS_MAX: usize = 1_000;

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObject.html>
pub async fn delete_object(call: Call<DeleteObjectInput>) -> Answer<DeleteObjectOutput> {
    let input = call.input;
    if input.mfa.is_some() {
        return Err(ObjectsError::NotImplemented("MFA delete".into()));
    }
    let if_match = input.if_match.as_ref().map(etag_condition);
    if if_match.is_some() && input.version_id.is_some() {
        return Err(ObjectsError::NotImplemented("Deleting a version with If-Match".into()));
    }
    let written = call
        .inner
        .write(None, move |c| {
            call.grants.stand_in(c, &input.bucket, &input.key, input.version_id.as_deref())?;
            match &input.version_id {
                None => table::delete(c, &input.bucket, &input.key, if_match.as_deref(), now_ms()),
                Some(version) => table::delete_version(c, &input.bucket, &input.key, version),
            }
        })
        .await?;
    Ok(S3Response::new(DeleteObjectOutput {
        delete_marker: written.delete_marker.then_some(true),
        version_id: written.version_id,
        ..DeleteObjectOutput::default()
    }))
}

/// Deletes up to 1,000 keys in one write: all of them are gone, or, if the disk fails, none. What is wrong with single
/// keys is told key by key. <https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html>
pub async fn delete_objects(call: Call<DeleteObjectsInput>) -> Answer<DeleteObjectsOutput> {
    let input = call.input;
    if input.mfa.is_some() {
        return Err(ObjectsError::NotImplemented("MFA delete".into()));
    }
    let objects = input.delete.objects;
    if objects.is_empty() || objects.len() > KEYS_MAX {
        return Err(ObjectsError::MalformedXml(format!("from 1 to {KEYS_MAX} objects, not {}", objects.len())));
    }
    if objects.iter().any(|o| o.last_modified_time.is_some() || o.size.is_some()) {
        return Err(ObjectsError::NotImplemented("Deleting under the conditions LastModifiedTime and Size".into()));
    }
    let quiet = input.delete.quiet.unwrap_or(false);
    let bucket = input.bucket;
    let caller = &call.context.caller;
    let mut allowed = Vec::with_capacity(objects.len());
    for object in &objects {
        let asked = on_version(DELETE_OBJECT, &bucket, &object.key, object.version_id.as_deref());
        let granted = call.inner.allow(caller, asked).await;
        allowed.push(granted.map(|granted| Grants { caller: caller.clone(), granted: granted.into_iter().collect() }));
    }
    if allowed.iter().all(Result::is_err) {
        // Also whether there is such a bucket is nobody's business who may remove nothing of it.
        let refused = objects.into_iter().zip(allowed.into_iter().filter_map(Result::err));
        let errors = refused.map(|(object, why)| {
            let told = why.told();
            Error {
                code: Some(told.code.into_owned()),
                key: Some(object.key),
                message: Some(told.message),
                version_id: object.version_id,
            }
        });
        let errors = Some(errors.collect());
        return Ok(S3Response::new(DeleteObjectsOutput { errors, ..DeleteObjectsOutput::default() }));
    }
    let (results, _) = call
        .inner
        .write(None, move |c| {
            table::bucket(c, &bucket)?;
            let mut dropped = Vec::new();
            let mut results = Vec::with_capacity(objects.len());
            let now = now_ms();
            for (object, allowed) in objects.into_iter().zip(allowed) {
                let condition = object.e_tag.as_ref().map(|e| e.value().to_owned());
                let checked = allowed.and_then(|grants| {
                    check_key(&object.key)?;
                    grants.stand_in(c, &bucket, &object.key, object.version_id.as_deref())
                });
                let outcome = checked.and_then(|()| match &object.version_id {
                    None => table::delete(c, &bucket, &object.key, condition.as_deref(), now),
                    Some(version) => table::delete_version(c, &bucket, &object.key, version),
                });
                let outcome = match outcome {
                    Ok(mut written) => {
                        dropped.append(&mut written.dropped);
                        Ok(written)
                    }
                    // The database's own errors undo the whole write.
                    Err(error @ ObjectsError::Store(_)) => return Err(error),
                    Err(error) => Err(error.told()),
                };
                results.push((object.key, object.version_id, outcome));
            }
            Ok((results, dropped))
        })
        .await?;
    let mut deleted = Vec::new();
    let mut errors = Vec::new();
    for (key, asked, outcome) in results {
        match outcome {
            Ok(Written { version_id, delete_marker, .. }) if !quiet => {
                // A new marker has an ID of its own; a version that was named is echoed.
                let made_marker = delete_marker && asked.is_none();
                deleted.push(DeletedObject {
                    delete_marker: delete_marker.then_some(true),
                    delete_marker_version_id: if delete_marker { version_id } else { None },
                    key: Some(key),
                    version_id: if made_marker { None } else { asked },
                });
            }
            Ok(_) => {}
            Err(told) => errors.push(Error {
                code: Some(told.code.into_owned()),
                key: Some(key),
                message: Some(told.message),
                version_id: asked,
            }),
        }
    }
    Ok(S3Response::new(DeleteObjectsOutput {
        deleted: (!deleted.is_empty()).then_some(deleted),
        errors: (!errors.is_empty()).then_some(errors),
        ..DeleteObjectsOutput::default()
    }))
}
