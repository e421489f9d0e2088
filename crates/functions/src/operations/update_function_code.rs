//! Gives `$LATEST` new code. Source: Lambda spec 3.7.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};
use serde::Deserialize;

use super::asks::asks;
use crate::Functions;
use crate::catalogue::Next;
use crate::error::FunctionError;
use crate::function::{Standing, Version, VersionNumber};
use crate::members::{CodeMembers, ZipFile, architectures_violations, check_architectures, parse, unsupported};
use crate::operations::{answered, now_ms, update_in_progress, used_code_bytes};
use crate::resolve::{check_at_rest, check_revision};
use crate::shape::{self, View};
use crate::validate::Violations;

pub const OPERATION: Operation<Functions> = Operation {
    name: "UpdateFunctionCode",
    route: Route("PUT", "/2015-03-31/functions/{FunctionName}/code"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_UpdateFunctionCode.html",
    asks: asks!(body, update_code, "UpdateFunctionCode"),
    handle: |functions, call| answered(update_function_code(functions, call)),
};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
struct UpdateCode {
    zip_file: Option<ZipFile>,
    #[serde(rename = "S3Bucket")]
    s3_bucket: Option<String>,
    #[serde(rename = "S3Key")]
    s3_key: Option<String>,
    #[serde(rename = "S3ObjectVersion")]
    s3_object_version: Option<String>,
    image_uri: Option<String>,
    #[serde(rename = "SourceKMSKeyArn")]
    source_kms_key_arn: Option<String>,
    publish: Option<bool>,
    dry_run: Option<bool>,
    revision_id: Option<String>,
    architectures: Option<Vec<String>>,
    publish_to: Option<String>,
}

async fn update_function_code(functions: &Functions, mut call: Call) -> Result<Response, FunctionError> {
    let request: UpdateCode = parse(std::mem::take(&mut call.request.body)).await?;
    let named = functions.named_unqualified(&call, "UpdateFunctionCode")?;
    let mut v = Violations::default();
    if let Some(architectures) = &request.architectures {
        architectures_violations(&mut v, architectures);
    }
    v.finish()?;
    if request.publish_to.is_some() {
        return Err(unsupported("PublishTo"));
    }
    check_architectures(request.architectures.as_deref())?;
    let entry = functions.stand(&named).await?;
    check_at_rest(&functions.inner.settings, &entry.function)?;
    check_revision(&entry.function, request.revision_id.as_deref())?;
    if request.image_uri.is_some() {
        return Err(FunctionError::Parameter(
            "Please don't provide ImageUri when updating a function with packageType Zip.".into(),
        ));
    }
    let source = CodeMembers {
        zip_file: request.zip_file,
        s3_bucket: request.s3_bucket,
        s3_key: request.s3_key,
        s3_object_version: request.s3_object_version,
        image_uri: None,
        source_kms_key_arn: request.source_kms_key_arn,
    };
    let zip = functions.fetch(&source).await?;
    let settings = functions.inner.settings.clone();
    if request.dry_run == Some(true) {
        let (code, bytes) = functions.inner.code.check(zip).await?;
        functions.check_fits_with_layers(bytes, &entry.function.latest().configuration.layers).await?;
        let would_be = Version { code, ..(**entry.function.latest()).clone() };
        let view = View { qualifier: None, with_state: true };
        return Ok(Response::json(StatusCode::OK, &shape::configuration(&settings, &named.name, &would_be, view)));
    }
    let code = functions.inner.code.put(zip).await?;
    let layers = entry.function.latest().configuration.layers.clone();
    functions.check_with_layers(&code, &layers).await?;

    let (revision, publish) = (request.revision_id, request.publish == Some(true));
    let missing = functions.not_found(&named);
    let name = named.name.clone();
    let shape = functions
        .inner
        .catalogue
        .change(&named.name, move |snapshot, current| {
            let current = current.ok_or(missing)?;
            check_at_rest(&settings, &current)?;
            check_revision(&current, revision.as_deref())?;
            // The code was checked together with the layers that were there.
            if current.latest().configuration.layers != layers {
                return Err(update_in_progress(&settings, &name));
            }
            let configuration = current.latest().configuration.clone();
            let updated = current.updated(code, configuration, now_ms());
            let (after, number) = match publish {
                true => updated.published(None, Standing::Creating),
                false => (updated, VersionNumber::LATEST),
            };
            // The new code takes the place of the old one, and is counted again under its number if it gets one.
            let others = used_code_bytes(snapshot).saturating_sub(current.code_bytes());
            if others.saturating_add(after.code_bytes()) > settings.code_bytes_max {
                return Err(FunctionError::CodeStorage);
            }
            let qualifier = publish.then(|| number.to_string());
            let view = View { qualifier: qualifier.as_deref(), with_state: true };
            let version = after.versions.get(&number).expect("just put there");
            let shape = shape::configuration(&settings, &name, version, view);
            Ok((Next::Put(after), shape))
        })
        .await?;
    Ok(Response::json(StatusCode::OK, &shape))
}
