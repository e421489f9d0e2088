//! Inline policies of users and roles. Source: IAM API reference, Put/Get/List/Delete with UserPolicy and RolePolicy.

use longshore_core::policy::{Context, counted_characters};

use super::shape::encoded;
use super::{Answer, Call, member_of, write_marker};
use crate::entity::{Entity, EntityKind};
use crate::error::IdentityError;
use crate::query::texts;
use crate::validate;

fn missing(kind: EntityKind, name: &str) -> IdentityError {
    IdentityError::NoSuchEntity(format!("The {} policy with name {name} cannot be found.", kind.word()))
}

async fn put(kind: EntityKind, mut call: Call) -> Result<Answer, IdentityError> {
    let (name, policy, document) = (call.entity_name(kind)?, call.policy_name()?, call.document("PolicyDocument")?);
    call.read()?;
    let changed = call.change_entity(kind, name, Context::new(), move |entity, _| {
        let written = Entity::inline_policy(kind, &entity.name, &policy, &document)?;
        entity.inline.insert(policy, written);
        let max = match kind {
            EntityKind::User => validate::USER_INLINE_MAX,
            EntityKind::Role => validate::ROLE_INLINE_MAX,
        };
        let size: usize = entity.inline.values().map(|policy| counted_characters(policy.document.text())).sum();
        if size > max {
            return Err(IdentityError::LimitExceeded(format!(
                "Maximum policy size of {max} bytes exceeded for {} {}",
                kind.word(),
                entity.name
            )));
        }
        Ok(())
    });
    let (allowed, ()) = changed.await?;
    Ok(Answer::empty(allowed))
}

async fn get(kind: EntityKind, mut call: Call) -> Result<Answer, IdentityError> {
    let (name, policy) = (call.entity_name(kind)?, call.policy_name()?);
    call.read()?;
    let (allowed, entity) = call.look(kind, &name)?;
    let document = encoded(entity.inline.get(&policy).ok_or_else(|| missing(kind, &policy))?.document.text());
    Ok(Answer::new(allowed, move |xml| {
        xml.text(member_of(kind).0, &name);
        xml.text("PolicyName", &policy);
        xml.text("PolicyDocument", &document);
    }))
}

async fn list(kind: EntityKind, mut call: Call) -> Result<Answer, IdentityError> {
    let (name, paging) = (call.entity_name(kind)?, call.paging()?);
    call.read()?;
    let (allowed, entity) = call.look(kind, &name)?;
    let page = paging.cut(entity.inline.keys().cloned(), String::clone);
    Ok(Answer::new(allowed, move |xml| {
        texts(xml, "PolicyNames", page.items.iter().map(String::as_str));
        write_marker(xml, page.marker.as_deref());
    }))
}

async fn delete(kind: EntityKind, mut call: Call) -> Result<Answer, IdentityError> {
    let (name, policy) = (call.entity_name(kind)?, call.policy_name()?);
    call.read()?;
    let changed = call.change_entity(kind, name, Context::new(), move |entity, _| {
        entity.inline.remove(&policy).map(drop).ok_or_else(|| missing(kind, &policy))
    });
    let (allowed, ()) = changed.await?;
    Ok(Answer::empty(allowed))
}

pub(super) async fn put_user_policy(call: Call) -> Result<Answer, IdentityError> {
    put(EntityKind::User, call).await
}

pub(super) async fn get_user_policy(call: Call) -> Result<Answer, IdentityError> {
    get(EntityKind::User, call).await
}

pub(super) async fn list_user_policies(call: Call) -> Result<Answer, IdentityError> {
    list(EntityKind::User, call).await
}

pub(super) async fn delete_user_policy(call: Call) -> Result<Answer, IdentityError> {
    delete(EntityKind::User, call).await
}

pub(super) async fn put_role_policy(call: Call) -> Result<Answer, IdentityError> {
    put(EntityKind::Role, call).await
}

pub(super) async fn get_role_policy(call: Call) -> Result<Answer, IdentityError> {
    get(EntityKind::Role, call).await
}

pub(super) async fn list_role_policies(call: Call) -> Result<Answer, IdentityError> {
    list(EntityKind::Role, call).await
}

pub(super) async fn delete_role_policy(call: Call) -> Result<Answer, IdentityError> {
    delete(EntityKind::Role, call).await
}
