//! Adds a statement to the policy of a function, a version or an alias. Source: Lambda spec 6.1, 6.2.

use http::StatusCode;
use longshore_core::permission::{ConditionKey, Effect, Meant, Principal, Statement, conditions};
use longshore_core::policy::action_fault;
use longshore_wire::{Call, Operation, Response, Route};
use serde::Deserialize;
use serde_json::json;

use super::asks::asks;
use crate::catalogue::Next;
use crate::error::FunctionError;
use crate::function::{Resource, VersionNumber};
use crate::members::parse;
use crate::operations::answered;
use crate::resolve::{Named, check_policy_revision};
use crate::validate::Violations;
use crate::{Functions, Means};

pub const OPERATION: Operation<Functions> = Operation {
    name: "AddPermission",
    route: Route("POST", "/2015-03-31/functions/{FunctionName}/policy"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_AddPermission.html",
    asks: asks!(body, add_permission, "AddPermission"),
    handle: |functions, call| answered(add_permission(functions, call)),
};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
struct Add {
    statement_id: Option<String>,
    action: Option<String>,
    principal: Option<String>,
    source_arn: Option<String>,
    source_account: Option<String>,
    event_source_token: Option<String>,
    revision_id: Option<String>,
    #[serde(rename = "PrincipalOrgID")]
    principal_org_id: Option<String>,
    function_url_auth_type: Option<String>,
    invoked_via_function_url: Option<bool>,
}

impl Add {
    fn violations(&self) -> Violations {
        let mut v = Violations::default();
        match &self.statement_id {
            Some(id) => v.statement_id(id, false),
            None => v.missing("statementId"),
        }
        match &self.action {
            Some(action) => {
                let name = action.strip_prefix("lambda:");
                let letters = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphabetic());
                let fits = action == "*" || name.is_some_and(|name| name == "*" || letters(name));
                v.pattern(action, "action", fits, "(lambda:[*]|lambda:[a-zA-Z]+|[*])");
            }
            None => v.missing("action"),
        }
        match &self.principal {
            Some(principal) => {
                let fits = !principal.is_empty() && !principal.contains(char::is_whitespace);
                v.pattern(principal, "principal", fits, "[^\\s]+");
            }
            None => v.missing("principal"),
        }
        if let Some(arn) = &self.source_arn {
            v.source_arn(arn);
        }
        if let Some(account) = &self.source_account {
            v.length(account, "sourceAccount", 0, 12);
            let fits = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
            v.pattern(account, "sourceAccount", fits, "\\d{12}");
        }
        if let Some(token) = &self.event_source_token {
            v.length(token, "eventSourceToken", 0, 256);
            let fits = !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
            v.pattern(token, "eventSourceToken", fits, "[a-zA-Z0-9._\\-]+");
        }
        if let Some(org) = &self.principal_org_id {
            v.length(org, "principalOrgID", 12, 34);
            let fits = org.strip_prefix("o-").is_some_and(|id| {
                (10..=32).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            });
            v.pattern(org, "principalOrgID", fits, "o-[a-z0-9]{10,32}");
        }
        if let Some(kind) = &self.function_url_auth_type {
            v.one_of(kind, "functionUrlAuthType", &["NONE", "AWS_IAM"]);
        }
        v
    }

    /// The statement, for a resource by its ARN. Everything that had to be there is.
    fn statement(self, resource: String, means: &Means) -> Result<Statement, FunctionError> {
        let action = self.action.unwrap_or_default();
        // It would be kept and shown, and allow nothing.
        if let Some(fault) = action_fault(&action) {
            return Err(FunctionError::Parameter(format!("The provided action was invalid: {fault}")));
        }
        if self.function_url_auth_type.is_some() && action != "lambda:InvokeFunctionUrl" {
            return Err(FunctionError::Parameter(
                "FunctionUrlAuthType is only supported for lambda:InvokeFunctionUrl action".into(),
            ));
        }
        let invalid = || {
            FunctionError::Parameter(
                "The provided principal was invalid. Please check the principal and try again.".into(),
            )
        };
        let principal = Principal::read(&self.principal.unwrap_or_default()).ok_or_else(invalid)?;
        let unique_id = match &principal {
            Principal::Aws(arn) => match means(arn) {
                Meant::Entity(id) => Some(id),
                // Whoever takes the name later would be meant.
                Meant::Nobody => return Err(invalid()),
                Meant::Unknown => None,
            },
            Principal::Everyone | Principal::Service(_) => None,
        };
        let via_url = self.invoked_via_function_url.map(|via_url| via_url.to_string());
        Ok(Statement {
            sid: self.statement_id.unwrap_or_default(),
            effect: Effect::Allow,
            principal,
            action,
            resource,
            condition: conditions([
                (ConditionKey::SourceArn, self.source_arn),
                (ConditionKey::SourceAccount, self.source_account),
                (ConditionKey::PrincipalOrgId, self.principal_org_id),
                (ConditionKey::EventSourceToken, self.event_source_token),
                (ConditionKey::FunctionUrlAuthType, self.function_url_auth_type),
                (ConditionKey::InvokedViaFunctionUrl, via_url),
            ]),
            unique_id,
        })
    }
}

async fn add_permission(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let request: Add = parse(call.request.body.clone()).await?;
    request.violations().finish()?;
    let named = functions.named(&call, "AddPermission")?;
    let resource = named.resource();
    if resource == Resource::Version(VersionNumber::LATEST) {
        return Err(FunctionError::Parameter("We currently do not support adding policies for $LATEST.".into()));
    }
    let missing = functions.not_found(&Named { qualifier: None, ..named.clone() });
    let resource_missing = functions.resource_not_found(&named.name, &resource);
    let arn = functions.resource_arn(&named.name, &resource);
    let means = functions.inner.settings.means.clone();
    let statement = functions
        .inner
        .catalogue
        .change(&named.name, move |_, current| {
            let mut function = current.ok_or(missing)?;
            let revision = function.revision(&resource).ok_or(resource_missing)?;
            check_policy_revision(revision, request.revision_id.as_deref())?;
            let before = function.policies.get(&resource).cloned().unwrap_or_default();
            let statement = request.statement(arn, &means)?;
            let policy = before.with(statement.clone())?;
            function.put_policy(&resource, policy);
            Ok((Next::Put(function), statement))
        })
        .await?;
    let text = serde_json::to_string(&Statement { unique_id: None, ..statement })
        .map_err(|e| FunctionError::Fault(format!("the statement does not write: {e}")))?;
    Ok(Response::json(StatusCode::CREATED, &json!({"Statement": text})))
}
