//! Permissions boundaries of users and roles. Source: IAM API reference, Put/Delete with UserPermissionsBoundary and
//! RolePermissionsBoundary.

use longshore_core::policy::Context;

use super::{Answer, Call, no_policy};
use crate::entity::EntityKind;
use crate::error::IdentityError;
use crate::validate;

async fn put(kind: EntityKind, mut call: Call) -> Result<Answer, IdentityError> {
    let (name, arn) = (call.entity_name(kind)?, call.required("PermissionsBoundary")?);
    validate::length(&arn, "permissionsBoundary", 20, 2_048)?;
    call.read()?;
    let context = Context::new().with("iam:PermissionsBoundary", &arn);
    let changed = call.change_entity(kind, name, context, move |entity, snapshot| {
        if snapshot.managed(&arn).is_none() {
            return Err(no_policy(&arn));
        }
        entity.boundary = Some(arn);
        Ok(())
    });
    let (allowed, ()) = changed.await?;
    Ok(Answer::empty(allowed))
}

async fn delete(kind: EntityKind, mut call: Call) -> Result<Answer, IdentityError> {
    let name = call.entity_name(kind)?;
    call.read()?;
    let changed = call.change_entity(kind, name, Context::new(), move |entity, _| match entity.boundary.take() {
        Some(_) => Ok(()),
        None => Err(IdentityError::NoSuchEntity(format!(
            "{} {} does not have a permissions boundary attached to it.",
            if kind == EntityKind::User { "User" } else { "Role" },
            entity.name
        ))),
    });
    let (allowed, ()) = changed.await?;
    Ok(Answer::empty(allowed))
}

pub(super) async fn put_user_permissions_boundary(call: Call) -> Result<Answer, IdentityError> {
    put(EntityKind::User, call).await
}

pub(super) async fn delete_user_permissions_boundary(call: Call) -> Result<Answer, IdentityError> {
    delete(EntityKind::User, call).await
}

pub(super) async fn put_role_permissions_boundary(call: Call) -> Result<Answer, IdentityError> {
    put(EntityKind::Role, call).await
}

pub(super) async fn delete_role_permissions_boundary(call: Call) -> Result<Answer, IdentityError> {
    delete(EntityKind::Role, call).await
}
