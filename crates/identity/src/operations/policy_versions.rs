//! Versions of managed policies. Source: IAM API reference, CreatePolicyVersion, GetPolicyVersion, ListPolicyVersions,
//! SetDefaultPolicyVersion, DeletePolicyVersion.

use longshore_core::policy::Context;

use super::managed_policies::check_size;
use super::{Answer, Call, shape, write_marker};
use crate::entity::Managed;
use crate::error::IdentityError;
use crate::query::list;
use crate::{now, validate};

impl Call {
    /// `v12`.
    fn version_id(&mut self) -> Result<u32, IdentityError> {
        let given = self.required("VersionId")?;
        let digits = given.strip_prefix('v').filter(|digits| !digits.starts_with('0') && !digits.starts_with('+'));
        digits.and_then(|digits| digits.parse().ok()).ok_or_else(|| {
            let constraint = r"Member must satisfy regular expression pattern: v[1-9][0-9]*(\.[A-Za-z0-9-]*)?";
            validate::breach(&given.chars().take(256).collect::<String>(), "versionId", constraint)
        })
    }
}

fn missing(arn: &str, number: u32) -> IdentityError {
    IdentityError::NoSuchEntity(format!("Policy {arn} version v{number} does not exist or is not attachable."))
}

pub(super) async fn create_policy_version(mut call: Call) -> Result<Answer, IdentityError> {
    let (arn, document) = (call.policy_arn()?, call.document("PolicyDocument")?);
    let as_default = match call.params.take("SetAsDefault").as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => return Err(validate::breach(other, "setAsDefault", "Member must be true or false")),
    };
    call.read()?;
    let created = now();
    let changed = call.change_policy(arn, Context::new(), move |state, policy| {
        let version = Managed::version(&policy.arn, &document, created)?;
        check_size(&document)?;
        if policy.versions.len() >= validate::VERSIONS_MAX {
            return Err(IdentityError::LimitExceeded(format!(
                "A managed policy can have up to {} versions. Before you create a new version, you must delete an existing \
                 version.",
                validate::VERSIONS_MAX
            )));
        }
        let mut policy = policy.clone();
        policy.last_version += 1;
        policy.updated = created;
        policy.versions.insert(policy.last_version, version);
        if as_default {
            policy.default_version = policy.last_version;
        }
        state.put_policy(policy.clone());
        Ok(policy)
    });
    let (allowed, policy) = changed.await?;
    Ok(Answer::new(allowed, move |xml| {
        xml.open("PolicyVersion");
        shape::version(xml, &policy, policy.last_version, false);
        xml.close();
    }))
}

pub(super) async fn get_policy_version(mut call: Call) -> Result<Answer, IdentityError> {
    let (arn, number) = (call.policy_arn()?, call.version_id()?);
    call.read()?;
    let snapshot = call.identity.snapshot();
    let (allowed, policy) = call.look_at_policy(&snapshot, &arn)?;
    if !policy.versions.contains_key(&number) {
        return Err(missing(&arn, number));
    }
    let policy = policy.clone();
    Ok(Answer::new(allowed, move |xml| {
        xml.open("PolicyVersion");
        shape::version(xml, &policy, number, true);
        xml.close();
    }))
}

pub(super) async fn list_policy_versions(mut call: Call) -> Result<Answer, IdentityError> {
    let (arn, paging) = (call.policy_arn()?, call.paging()?);
    call.read()?;
    let snapshot = call.identity.snapshot();
    let (allowed, policy) = call.look_at_policy(&snapshot, &arn)?;
    // The latest comes first.
    let numbers = policy.versions.keys().rev().copied();
    let page = paging.cut(numbers, |number| format!("{:010}", u32::MAX - number));
    let policy = policy.clone();
    Ok(Answer::new(allowed, move |xml| {
        list(xml, "Versions", &page.items, |xml, number| shape::version(xml, &policy, *number, false));
        write_marker(xml, page.marker.as_deref());
    }))
}

pub(super) async fn set_default_policy_version(mut call: Call) -> Result<Answer, IdentityError> {
    let (arn, number) = (call.policy_arn()?, call.version_id()?);
    call.read()?;
    let moment = now();
    let changed = call.change_policy(arn, Context::new(), move |state, policy| {
        if !policy.versions.contains_key(&number) {
            return Err(missing(&policy.arn, number));
        }
        state.put_policy(Managed { default_version: number, updated: moment, ..policy.clone() });
        Ok(())
    });
    let (allowed, ()) = changed.await?;
    Ok(Answer::empty(allowed))
}

pub(super) async fn delete_policy_version(mut call: Call) -> Result<Answer, IdentityError> {
    let (arn, number) = (call.policy_arn()?, call.version_id()?);
    call.read()?;
    let changed = call.change_policy(arn, Context::new(), move |state, policy| {
        if policy.default_version == number {
            let message = "Cannot delete the default version of a policy.";
            return Err(IdentityError::DeleteConflict(message.into()));
        }
        let mut policy = policy.clone();
        policy.versions.remove(&number).ok_or_else(|| missing(&policy.arn, number))?;
        state.put_policy(policy);
        Ok(())
    });
    let (allowed, ()) = changed.await?;
    Ok(Answer::empty(allowed))
}
