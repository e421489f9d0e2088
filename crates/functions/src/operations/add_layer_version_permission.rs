//! Adds a statement to a layer version's policy, which is kept and shown. Source: Lambda spec 3.1, issue of permissions.

use http::StatusCode;
use longshore_core::policy::POLICY_BYTES_MAX;
use longshore_wire::{Call, Operation, Response, Route};
use serde::Deserialize;
use serde_json::json;

use crate::Functions;
use crate::error::FunctionError;
use crate::function::new_id;
use crate::layer::{LayerVersion, Statement};
use crate::layers::{ACTION, account_of, check_policy_revision, policy_json, statement_json, version_number};
use crate::members::parse;
use crate::operations::answered;
use crate::validate::Violations;

pub const OPERATION: Operation<Functions> = Operation {
    name: "AddLayerVersionPermission",
    route: Route("POST", "/2018-10-31/layers/{LayerName}/versions/{VersionNumber}/policy"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_AddLayerVersionPermission.html",
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
    let principal_ok = principal == "*" || account_of(&principal).is_some();
    v.pattern(&principal, "principal", principal_ok, "\\d{12}|\\*|arn:(aws[a-zA-Z-]*):iam::\\d{12}:root");
    if let Some(organization) = &request.organization_id {
        let id = organization.strip_prefix("o-").unwrap_or_default();
        let ok = (10..=32).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        v.pattern(organization, "organizationId", ok, "o-[a-z0-9]{10,32}");
    }
    v.finish()?;
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
            let mut policy = version.policy.clone().unwrap_or_default();
            check_policy_revision(&policy, revision.as_deref())?;
            if policy.statements.iter().any(|statement| statement.sid == sid) {
                return Err(FunctionError::Conflict(format!(
                    "The statement id ({sid}) provided already exists. Please provide a new statement id, or remove \
                     the existing statement."
                )));
            }
            let statement = Statement { sid, action, principal, organization_id: request.organization_id };
            let shown = statement_json(&statement, &resource);
            policy.statements.push(statement);
            let bytes = policy_json(&policy, &resource).to_string().len();
            if bytes > POLICY_BYTES_MAX {
                return Err(FunctionError::PolicyLength(bytes));
            }
            policy.revision_id = new_id();
            let revision_id = policy.revision_id.clone();
            layer.put(LayerVersion { policy: Some(policy), ..(*version).clone() });
            Ok((Some(layer), (shown, revision_id)))
        })
        .await?;
    let answer = json!({"Statement": statement.to_string(), "RevisionId": revision_id});
    Ok(Response::json(StatusCode::CREATED, &answer))
}
