//! Adds a statement to a layer version's policy, which is kept, shown, and asked by whoever reads the version. Source: Lambda spec 3.1, issue of permissions.

use http::StatusCode;
use longshore_core::permission::{ConditionKey, Effect, Principal, Statement, conditions};
use longshore_wire::{Call, Operation, Response, Route};
use serde::Deserialize;
use serde_json::json;

use super::asks::asks;
use crate::Functions;
use crate::error::FunctionError;
use crate::function::new_id;
use crate::layer::{LayerVersion, Permissions};
use crate::layers::{ACTION, check_permissions_revision, version_number};
use crate::members::parse;
use crate::operations::answered;
use crate::validate::Violations;

pub const OPERATION: Operation<Functions> = Operation {
    name: "AddLayerVersionPermission",
    route: Route("POST", "/2018-10-31/layers/{LayerName}/versions/{VersionNumber}/policy"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_AddLayerVersionPermission.html",
    asks: asks!(layer, "AddLayerVersionPermission"),
    handle: |functions, call| answered(add_layer_version_permission(functions, call)),
};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
struct Add {
    statement_id: Option<String>,
    action: Option<String>,
    principal: Option<String>,
    organization_id: Option<String>,
}

async fn add_layer_version_permission(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let request: Add = parse(call.request.body.clone()).await?;
    let mut v = Violations::default();
    let mut required = |value: &Option<String>, path: &str| {
        if value.is_none() {
            v.missing(path);
        }
        value.clone().unwrap_or_default()
    };
    let sid = required(&request.statement_id, "statementId");
    let action = required(&request.action, "action");
    let principal = required(&request.principal, "principal");
    v.finish()?;
    let mut v = Violations::default();
    v.length(&sid, "statementId", 1, 100);
    let sid_ok = sid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    v.pattern(&sid, "statementId", sid_ok, "([a-zA-Z0-9-_]+)");
    v.pattern(&action, "action", action == ACTION, ACTION);
    let read = Principal::read(&principal).filter(|principal| match principal {
        Principal::Everyone => true,
        Principal::Aws(arn) => arn.contains(":iam::") && arn.ends_with(":root"),
        Principal::Service(_) => false,
    });
    v.pattern(&principal, "principal", read.is_some(), "\\d{12}|\\*|arn:(aws[a-zA-Z-]*):iam::\\d{12}:root");
    if let Some(organization) = &request.organization_id {
        let id = organization.strip_prefix("o-").unwrap_or_default();
        let ok = (10..=32).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        v.pattern(organization, "organizationId", ok, "o-[a-z0-9]{10,32}");
    }
    v.finish()?;
    let Some(principal) = read else {
        return Err(FunctionError::Parameter("The principal does not read.".into()));
    };
    let name = functions.layer_name(call.label("LayerName"), &call, "AddLayerVersionPermission")?;
    let number = version_number(&call)?;
    let arn = format!("{}:{number}", functions.layer_arn(&name));
    let revision = call.request.query.get("RevisionId").map(str::to_owned);
    let (missing, resource) = (format!("Layer version {arn} does not exist."), arn);
    let (statement, revision_id) = functions
        .inner
        .catalogue
        .change_layer(&name, move |_, mut layer| {
            let version = layer.find(number).ok_or(FunctionError::Missing(missing))?;
            let permissions = version.permissions.clone().unwrap_or_default();
            check_permissions_revision(&permissions, revision.as_deref())?;
            let statement = Statement {
                sid,
                effect: Effect::Allow,
                principal,
                action,
                resource,
                condition: conditions([(ConditionKey::PrincipalOrgId, request.organization_id)]),
                unique_id: None,
            };
            let policy = permissions.policy.with(statement.clone())?;
            let permissions = Permissions { revision_id: new_id(), policy };
            let revision_id = permissions.revision_id.clone();
            layer.put(LayerVersion { permissions: Some(permissions), ..(*version).clone() });
            Ok((Some(layer), (statement, revision_id)))
        })
        .await?;
    let text = serde_json::to_string(&statement)
        .map_err(|e| FunctionError::Fault(format!("the statement does not write: {e}")))?;
    let answer = json!({"Statement": text, "RevisionId": revision_id});
    Ok(Response::json(StatusCode::CREATED, &answer))
}
