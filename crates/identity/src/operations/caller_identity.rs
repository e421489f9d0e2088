//! Who asks, and whose a key is. Source: STS API reference, GetCallerIdentity, GetAccessKeyInfo.

use http::StatusCode;
use longshore_core::policy::Context;
use longshore_core::policy::Principal;
use longshore_wire::xml::Writer;
use longshore_wire::{Request, Response};

use super::{Answer, Call, STS_SERVICE, members};
use crate::error::IdentityError;
use crate::validate;

/// Whoever has signed may know who they are: policies are not asked, even those that deny it.
pub(super) async fn get_caller_identity(call: Call) -> Result<Answer, IdentityError> {
    call.read()?;
    let principal = call.asker.caller.principal().clone();
    Ok(Answer::new(call.asker.needs_no_permission(), move |xml| told(xml, &principal)))
}

fn told(xml: &mut Writer, principal: &Principal) {
    xml.text("Arn", &principal.arn);
    xml.text("UserId", &principal.user_id);
    xml.text("Account", &principal.account);
}

/// Answers GetCallerIdentity where there is no IAM, for every smoke test begins with it. `None`: something else is asked.
pub fn without_iam(request: &Request) -> Option<Response> {
    if request.caller.verified().service() != "sts" {
        return None;
    }
    let mut params = members(request).ok()?;
    let version = params.take("Version").unwrap_or_else(|| STS_SERVICE.version.to_owned());
    if params.take("Action").as_deref() != Some("GetCallerIdentity") || version != STS_SERVICE.version {
        return None;
    }
    params.finish("GetCallerIdentity").ok()?;
    let mut xml = Writer::document("GetCallerIdentityResponse", Some(STS_SERVICE.namespace));
    xml.open("GetCallerIdentityResult");
    told(&mut xml, request.caller.principal());
    xml.close();
    xml.open("ResponseMetadata");
    xml.text("RequestId", &request.request_id.0);
    xml.close();
    Some(Response::xml(StatusCode::OK, xml.finish()).with_header("content-type", "text/xml"))
}

pub(super) async fn get_access_key_info(mut call: Call) -> Result<Answer, IdentityError> {
    let id = call.required("AccessKeyId")?;
    validate::length(&id, "accessKeyId", 16, 128)?;
    call.read()?;
    let allowed = call.asker.may("*", Context::new())?;
    let known = id == call.asker.caller.access_key_id() || call.identity.snapshot().state.key(&id).is_some();
    if !known {
        // On AWS the account is written into the ID itself; here, only a lasting key that there is, is somebody's.
        return Err(IdentityError::Validation(format!("The access key {id} is of no account that is known here.")));
    }
    let account = call.identity.settings().account.clone();
    Ok(Answer::new(allowed, move |xml| xml.text("Account", &account)))
}
