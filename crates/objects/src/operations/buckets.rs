//! ListBuckets, CreateBucket, HeadBucket, DeleteBucket, GetBucketLocation.

use s3s::S3Response;
use s3s::dto::*;

use super::{Answer, Call, owner, timestamp};
use crate::error::ObjectsError;
use crate::table;

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListBuckets.html>
pub async fn list_buckets(call: Call<ListBucketsInput>) -> Answer<ListBucketsOutput> {
    let input = call.input;
    let max = match input.max_buckets {
        None => 10_000,
        Some(n @ 1..=10_000) => n as usize,
        Some(_) => {
            return Err(ObjectsError::InvalidArgument(
                "Argument max-buckets must be an integer between 1 and 10000".into(),
            ));
        }
    };
    let region = call.inner.settings.region.clone();
    let elsewhere = input.bucket_region.as_deref().is_some_and(|r| r != region);
    let prefix = input.prefix.clone().unwrap_or_default();
    let after = input.continuation_token.unwrap_or_default();
    let mut buckets = if elsewhere {
        Vec::new()
    } else {
        call.inner.records.read(move |c| table::buckets(c, &prefix, &after, max + 1)).await?
    };
    let more = buckets.len() > max;
    buckets.truncate(max);
    let continuation_token = if more { buckets.last().map(|b| b.name.clone()) } else { None };
    let buckets = buckets
        .into_iter()
        .map(|b| Bucket {
            bucket_region: Some(b.region),
            creation_date: Some(timestamp(b.created_ms)),
            name: Some(b.name),
        })
        .collect();
    Ok(S3Response::new(ListBucketsOutput {
        buckets: Some(buckets),
        continuation_token,
        owner: Some(owner(&call.inner)),
        prefix: input.prefix,
    }))
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_CreateBucket.html>
pub async fn create_bucket(call: Call<CreateBucketInput>) -> Answer<CreateBucketOutput> {
    let input = call.input;
    if input.object_lock_enabled_for_bucket == Some(true) {
        return Err(ObjectsError::NotImplemented("Object Lock".into()));
    }
    if let Some(acl) = &input.acl
        && acl.as_str() != "private"
    {
        return Err(ObjectsError::Refused(
            "InvalidBucketAclWithObjectOwnership",
            "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting".into(),
        ));
    }
    if let Some(ownership) = &input.object_ownership
        && ownership.as_str() != "BucketOwnerEnforced"
    {
        return Err(ObjectsError::NotImplemented(format!("Object ownership {}", ownership.as_str())));
    }
    let region = &call.inner.settings.region;
    if let Some(configuration) = &input.create_bucket_configuration {
        if configuration.bucket.is_some() || configuration.location.is_some() {
            return Err(ObjectsError::NotImplemented("Directory buckets".into()));
        }
        // `EU` is the old name of one region.
        let constraint = configuration.location_constraint.as_ref().map(BucketLocationConstraint::as_str);
        let asked = if constraint == Some("EU") { Some("eu-west-1") } else { constraint };
        if let Some(asked) = asked.filter(|a| !a.is_empty() && a != region) {
            return Err(ObjectsError::Refused(
                "IllegalLocationConstraintException",
                format!(
                    "The {asked} location constraint is incompatible for the region specific endpoint this request was sent to."
                ),
            ));
        }
    }
    match call.inner.create_bucket(&input.bucket).await {
        Ok(()) => {}
        // In the first region creating one's own bucket again succeeds, for clients of old.
        Err(ObjectsError::BucketAlreadyOwnedByYou(_)) if region == "us-east-1" => {}
        Err(error) => return Err(error),
    }
    Ok(S3Response::new(CreateBucketOutput { location: Some(format!("/{}", input.bucket)) }))
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadBucket.html>
pub async fn head_bucket(call: Call<HeadBucketInput>) -> Answer<HeadBucketOutput> {
    let bucket = call.inner.records.read(move |c| table::bucket(c, &call.input.bucket)).await?;
    Ok(S3Response::new(HeadBucketOutput {
        access_point_alias: Some(false),
        bucket_region: Some(bucket.region),
        ..HeadBucketOutput::default()
    }))
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteBucket.html>
pub async fn delete_bucket(call: Call<DeleteBucketInput>) -> Answer<DeleteBucketOutput> {
    call.inner.write(None, move |c| table::delete_bucket(c, &call.input.bucket)).await?;
    Ok(S3Response::new(DeleteBucketOutput::default()))
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetBucketLocation.html>
pub async fn get_bucket_location(call: Call<GetBucketLocationInput>) -> Answer<GetBucketLocationOutput> {
    let bucket = call.inner.records.read(move |c| table::bucket(c, &call.input.bucket)).await?;
    let location_constraint =
        (bucket.region != "us-east-1").then(|| BucketLocationConstraint::from(bucket.region.clone()));
    Ok(S3Response::new(GetBucketLocationOutput { location_constraint }))
}
