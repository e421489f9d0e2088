//! Tags of users, roles and policies. Source: IAM API reference, Tag…, Untag… and List…Tags.

use std::collections::BTreeMap;

use longshore_core::policy::Context;

use super::{Answer, Call, request_tags, shape, write_marker};
use crate::entity::{EntityKind, Managed};
use crate::error::IdentityError;
use crate::validate;

impl Call {
    fn tag_keys(&mut self) -> Result<Vec<String>, IdentityError> {
        let keys = self.params.take_list("TagKeys")?.ok_or_else(|| validate::missing("tagKeys"))?;
        keys.iter().try_for_each(|key| validate::tag_key(key))?;
        Ok(keys)
    }
}

fn keys_context(keys: &[String]) -> Context {
    Context::new().with_all("aws:TagKeys", keys.iter().cloned())
}

fn remove(tags: &mut BTreeMap<String, String>, keys: &[String]) {
    tags.retain(|tag, _| !keys.iter().any(|key| key.to_lowercase() == tag.to_lowercase()));
}

async fn tag(kind: EntityKind, mut call: Call) -> Result<Answer, IdentityError> {
    let (name, tags) = (call.entity_name(kind)?, call.tags()?);
    call.read()?;
    let context = request_tags(Context::new(), &tags);
    let changed =
        call.change_entity(kind, name, context, move |entity, _| validate::merge_tags(&mut entity.tags, tags));
    let (allowed, ()) = changed.await?;
    Ok(Answer::empty(allowed))
}

async fn untag(kind: EntityKind, mut call: Call) -> Result<Answer, IdentityError> {
    let (name, keys) = (call.entity_name(kind)?, call.tag_keys()?);
    call.read()?;
    let changed = call.change_entity(kind, name, keys_context(&keys), move |entity, _| {
        remove(&mut entity.tags, &keys);
        Ok(())
    });
    let (allowed, ()) = changed.await?;
    Ok(Answer::empty(allowed))
}

async fn list(kind: EntityKind, mut call: Call) -> Result<Answer, IdentityError> {
    let (name, paging) = (call.entity_name(kind)?, call.paging()?);
    call.read()?;
    let (allowed, entity) = call.look(kind, &name)?;
    let page = paging.cut(shape::page_of_tags(&entity.tags).into_iter(), |(key, _)| key.clone());
    Ok(Answer::new(allowed, move |xml| {
        shape::tags(xml, page.items.iter().map(|(key, value)| (key, value)));
        write_marker(xml, page.marker.as_deref());
    }))
}

pub(super) async fn tag_user(call: Call) -> Result<Answer, IdentityError> {
    tag(EntityKind::User, call).await
}

pub(super) async fn untag_user(call: Call) -> Result<Answer, IdentityError> {
    untag(EntityKind::User, call).await
}

pub(super) async fn list_user_tags(call: Call) -> Result<Answer, IdentityError> {
    list(EntityKind::User, call).await
}

pub(super) async fn tag_role(call: Call) -> Result<Answer, IdentityError> {
    tag(EntityKind::Role, call).await
}

pub(super) async fn untag_role(call: Call) -> Result<Answer, IdentityError> {
    untag(EntityKind::Role, call).await
}

pub(super) async fn list_role_tags(call: Call) -> Result<Answer, IdentityError> {
    list(EntityKind::Role, call).await
}

pub(super) async fn tag_policy(mut call: Call) -> Result<Answer, IdentityError> {
    let (arn, tags) = (call.policy_arn()?, call.tags()?);
    call.read()?;
    let context = request_tags(Context::new(), &tags);
    let changed = call.change_policy(arn, context, move |state, policy| {
        let mut after = policy.tags.clone();
        validate::merge_tags(&mut after, tags)?;
        state.put_policy(Managed { tags: after, ..policy.clone() });
        Ok(())
    });
    let (allowed, ()) = changed.await?;
    Ok(Answer::empty(allowed))
}

pub(super) async fn untag_policy(mut call: Call) -> Result<Answer, IdentityError> {
    let (arn, keys) = (call.policy_arn()?, call.tag_keys()?);
    call.read()?;
    let changed = call.change_policy(arn, keys_context(&keys), move |state, policy| {
        let mut after = policy.tags.clone();
        remove(&mut after, &keys);
        state.put_policy(Managed { tags: after, ..policy.clone() });
        Ok(())
    });
    let (allowed, ()) = changed.await?;
    Ok(Answer::empty(allowed))
}

pub(super) async fn list_policy_tags(mut call: Call) -> Result<Answer, IdentityError> {
    let (arn, paging) = (call.policy_arn()?, call.paging()?);
    call.read()?;
    let snapshot = call.identity.snapshot();
    let (allowed, policy) = call.look_at_policy(&snapshot, &arn)?;
    let page = paging.cut(shape::page_of_tags(&policy.tags).into_iter(), |(key, _)| key.clone());
    Ok(Answer::new(allowed, move |xml| {
        shape::tags(xml, page.items.iter().map(|(key, value)| (key, value)));
        write_marker(xml, page.marker.as_deref());
    }))
}
