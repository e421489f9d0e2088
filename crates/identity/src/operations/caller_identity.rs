//! Who asks, and whose a key is. Source: STS API reference, GetCallerIdentity, GetAccessKeyInfo.

use longshore_core::policy::Context;

use super::{Answer, Call};
use crate::error::IdentityError;
use crate::validate;

/// Whoever has signed may know who they are: policies are not asked, even those that deny it.
pub(super) async fn get_caller_identity(call: Call) -> Result<Answer, IdentityError> {
    call.read()?;
    let principal = call.asker.caller.principal();
    let (user_id, account, arn) = (principal.user_id.clone(), principal.account.clone(), principal.arn.clone());
    Ok(Answer::new(call.asker.needs_no_permission(), move |xml| {
        xml.text("Arn", &arn);
        xml.text("UserId", &user_id);
        xml.text("Account", &account);
    }))
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
