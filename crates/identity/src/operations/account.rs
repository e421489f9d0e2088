//! What the account has in all. Source: IAM API reference, GetAccountSummary, ListAccountAliases, ListVirtualMFADevices,
//! GetAccountPasswordPolicy.

use longshore_core::policy::Context;

use super::{Answer, Call, write_marker};
use crate::entity::EntityKind;
use crate::error::IdentityError;
use crate::validate;

pub(super) async fn get_account_summary(call: Call) -> Result<Answer, IdentityError> {
    call.read()?;
    let allowed = call.asker.may("*", Context::new())?;
    let snapshot = call.identity.snapshot();
    let state = &snapshot.state;
    let versions: usize = state.policies().map(|policy| policy.versions.len()).sum();
    let entries: Vec<(&'static str, usize)> = vec![
        ("Users", state.entities(EntityKind::User).count()),
        ("UsersQuota", validate::USERS_MAX),
        ("Roles", state.entities(EntityKind::Role).count()),
        ("RolesQuota", validate::ROLES_MAX),
        ("Policies", state.policies().count()),
        ("PoliciesQuota", validate::POLICIES_MAX),
        ("PolicyVersionsInUse", versions),
        ("PolicySizeQuota", validate::MANAGED_MAX),
        ("VersionsPerPolicyQuota", validate::VERSIONS_MAX),
        ("AttachedPoliciesPerRoleQuota", validate::ATTACHED_MAX),
        ("AttachedPoliciesPerUserQuota", validate::ATTACHED_MAX),
        ("RolePolicySizeQuota", validate::ROLE_INLINE_MAX),
        ("UserPolicySizeQuota", validate::USER_INLINE_MAX),
        ("AssumeRolePolicySizeQuota", validate::TRUST_MAX),
        ("AccessKeysPerUserQuota", validate::KEYS_MAX),
        ("AccountAccessKeysPresent", 1),
        ("Groups", 0),
        ("MFADevices", 0),
        ("AccountMFAEnabled", 0),
    ];
    Ok(Answer::new(allowed, move |xml| {
        xml.open("SummaryMap");
        for (key, value) in entries {
            xml.open("entry");
            xml.text("key", key);
            xml.text("value", &value.to_string());
            xml.close();
        }
        xml.close();
    }))
}

/// There are none; tools ask when they begin.
pub(super) async fn list_account_aliases(mut call: Call) -> Result<Answer, IdentityError> {
    call.paging()?;
    call.read()?;
    let allowed = call.asker.may("*", Context::new())?;
    Ok(Answer::new(allowed, |xml| {
        xml.empty("AccountAliases");
        write_marker(xml, None);
    }))
}

/// There are none; tools ask before they delete a user.
pub(super) async fn list_virtual_mfa_devices(mut call: Call) -> Result<Answer, IdentityError> {
    if let Some(status) = call.params.take("AssignmentStatus") {
        validate::one_of(&status, "assignmentStatus", &["Assigned", "Unassigned", "Any"])?;
    }
    call.paging()?;
    call.read()?;
    let allowed = call.asker.may("*", Context::new())?;
    Ok(Answer::new(allowed, |xml| {
        xml.empty("VirtualMFADevices");
        write_marker(xml, None);
    }))
}

/// Nobody has a password, and so there is no policy for them, as in an account where none was made.
pub(super) async fn get_account_password_policy(call: Call) -> Result<Answer, IdentityError> {
    call.read()?;
    call.asker.may("*", Context::new())?;
    let account = &call.identity.settings().account;
    Err(IdentityError::NoSuchEntity(format!("The Password Policy with domain name {account} cannot be found.")))
}
