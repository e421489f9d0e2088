//! Managed policies attached to users and roles. Source: IAM API reference, Attach/Detach/ListAttached with UserPolicy and
//! RolePolicy.

use longshore_core::policy::Context;

use super::{Answer, Call, no_policy, write_marker};
use crate::entity::EntityKind;
use crate::error::IdentityError;
use crate::query;
use crate::validate;

async fn attach(kind: EntityKind, mut call: Call) -> Result<Answer, IdentityError> {
    let (name, arn) = (call.entity_name(kind)?, call.policy_arn()?);
    call.read()?;
    let context = Context::new().with("iam:PolicyARN", &arn);
    let changed = call.change_entity(kind, name, context, move |entity, snapshot| {
        if snapshot.managed(&arn).is_none() {
            return Err(match crate::aws_policies::is_theirs(&arn) {
                // What is not here must not be taken for attached.
                true => IdentityError::NoSuchEntity(format!(
                    "Policy {arn} does not exist or is not attachable: of AWS's own policies there are here those that \
                     \"aws iam list-policies --scope AWS\" shows."
                )),
                false => IdentityError::NoSuchEntity(format!("Policy {arn} does not exist or is not attachable.")),
            });
        }
        entity.attached.insert(arn);
        if entity.attached.len() > validate::ATTACHED_MAX {
            let what = if kind == EntityKind::User { "PoliciesPerUser" } else { "PoliciesPerRole" };
            let message = format!("Cannot exceed quota for {what}: {}", validate::ATTACHED_MAX);
            return Err(IdentityError::LimitExceeded(message));
        }
        Ok(())
    });
    let (allowed, ()) = changed.await?;
    Ok(Answer::empty(allowed))
}

async fn detach(kind: EntityKind, mut call: Call) -> Result<Answer, IdentityError> {
    let (name, arn) = (call.entity_name(kind)?, call.policy_arn()?);
    call.read()?;
    let context = Context::new().with("iam:PolicyARN", &arn);
    let changed = call.change_entity(kind, name, context, move |entity, _| {
        if entity.attached.remove(&arn) { Ok(()) } else { Err(no_policy(&arn)) }
    });
    let (allowed, ()) = changed.await?;
    Ok(Answer::empty(allowed))
}

async fn list(kind: EntityKind, mut call: Call) -> Result<Answer, IdentityError> {
    let (name, prefix, paging) = (call.entity_name(kind)?, call.path_prefix()?, call.paging()?);
    call.read()?;
    let (allowed, entity) = call.look(kind, &name)?;
    let snapshot = call.identity.snapshot();
    let attached = entity.attached.iter().filter_map(|arn| snapshot.managed(arn));
    let shown = attached.filter(|policy| policy.path.starts_with(&prefix));
    let page = paging.cut(shown.map(|policy| (policy.name.clone(), policy.arn.clone())), |(_, arn)| arn.clone());
    Ok(Answer::new(allowed, move |xml| {
        query::list(xml, "AttachedPolicies", &page.items, |xml, (name, arn)| {
            xml.text("PolicyName", name);
            xml.text("PolicyArn", arn);
        });
        write_marker(xml, page.marker.as_deref());
    }))
}

pub(super) async fn attach_user_policy(call: Call) -> Result<Answer, IdentityError> {
    attach(EntityKind::User, call).await
}

pub(super) async fn detach_user_policy(call: Call) -> Result<Answer, IdentityError> {
    detach(EntityKind::User, call).await
}

pub(super) async fn list_attached_user_policies(call: Call) -> Result<Answer, IdentityError> {
    list(EntityKind::User, call).await
}

pub(super) async fn attach_role_policy(call: Call) -> Result<Answer, IdentityError> {
    attach(EntityKind::Role, call).await
}

pub(super) async fn detach_role_policy(call: Call) -> Result<Answer, IdentityError> {
    detach(EntityKind::Role, call).await
}

pub(super) async fn list_attached_role_policies(call: Call) -> Result<Answer, IdentityError> {
    list(EntityKind::Role, call).await
}
