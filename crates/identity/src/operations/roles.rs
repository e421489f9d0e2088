//! Roles: made, shown, changed, taken away. Source: IAM API reference, CreateRole, GetRole, ListRoles, UpdateRole,
//! UpdateRoleDescription, UpdateAssumeRolePolicy, DeleteRole, ListInstanceProfilesForRole.

use std::collections::{BTreeMap, BTreeSet};

use longshore_core::policy::{Context, Policy, counted_characters};

use super::shape::{self, Fullness};
use super::{Answer, Call, entity_context, no_policy, request_tags, write_marker};
use crate::entity::{Entity, EntityKind, RolePart};
use crate::error::IdentityError;
use crate::ids::{self, Prefix};
use crate::query::list;
use crate::{SESSION_SECONDS, now, validate};

/// The seconds that a role may let its sessions last: an hour to twelve.
fn session_seconds(call: &mut Call) -> Result<Option<u32>, IdentityError> {
    let given = call.params.take("MaxSessionDuration");
    given.map(|seconds| validate::number(&seconds, "maxSessionDuration", 3_600, 43_200)).transpose()
}

fn description(call: &mut Call) -> Result<Option<String>, IdentityError> {
    let given = call.params.take("Description");
    if let Some(description) = &given {
        validate::description(description)?;
    }
    Ok(given)
}

/// A trust policy, read and not too large.
fn trust(role: &str, text: &str) -> Result<Policy, IdentityError> {
    let policy = Entity::trust_policy(role, text)?;
    if counted_characters(text) > validate::TRUST_MAX {
        return Err(IdentityError::LimitExceeded(format!(
            "Cannot exceed quota for ACLSizePerRole: {}",
            validate::TRUST_MAX
        )));
    }
    Ok(policy)
}

pub(super) async fn create_role(mut call: Call) -> Result<Answer, IdentityError> {
    let name = call.entity_name(EntityKind::Role)?;
    let path = call.params.take("Path").unwrap_or_else(|| "/".into());
    validate::path(&path)?;
    let document = call.document("AssumeRolePolicyDocument")?;
    let description = description(&mut call)?;
    let session_seconds_max = session_seconds(&mut call)?.unwrap_or(SESSION_SECONDS);
    let boundary = call.params.take("PermissionsBoundary");
    let tags = call.tags()?;
    call.read()?;
    let settings = call.identity.settings().clone();
    let mut role = Entity {
        kind: EntityKind::Role,
        id: ids::id(Prefix::Role)?,
        name,
        path,
        created: now(),
        inline: BTreeMap::new(),
        attached: BTreeSet::new(),
        boundary,
        tags,
        role: None,
    };
    let (asker, shown_in) = (call.asker.clone(), settings.clone());
    let changed = call.identity.change(move |state, snapshot| {
        let context = request_tags(Context::new(), &role.tags);
        let context = context.with_all("iam:PermissionsBoundary", role.boundary.iter().cloned());
        let allowed = asker.may(role.arn(&settings), context)?;
        if !role.tags.is_empty() {
            asker.may_do("iam:TagRole", role.arn(&settings), request_tags(Context::new(), &role.tags))?;
        }
        let trust = trust(&role.name, &document)?;
        let named = crate::trust::named(&settings, state, &trust)?;
        role.role = Some(RolePart { trust, named, description, session_seconds_max });
        if state.name_taken(EntityKind::Role, &role.name) {
            return Err(IdentityError::EntityAlreadyExists(format!("Role with name {} already exists.", role.name)));
        }
        if let Some(boundary) = &role.boundary
            && snapshot.managed(boundary).is_none()
        {
            return Err(no_policy(boundary));
        }
        if state.entities(EntityKind::Role).count() >= validate::ROLES_MAX {
            return Err(IdentityError::LimitExceeded(format!(
                "Cannot exceed quota for RolesPerAccount: {}",
                validate::ROLES_MAX
            )));
        }
        state.put_entity(role.clone());
        Ok((allowed, role))
    });
    let (allowed, role) = changed.await?;
    Ok(Answer::new(allowed, move |xml| {
        xml.open("Role");
        shape::entity(xml, &shown_in, &role, Fullness::Whole);
        xml.close();
    }))
}

pub(super) async fn get_role(mut call: Call) -> Result<Answer, IdentityError> {
    let name = call.entity_name(EntityKind::Role)?;
    call.read()?;
    let (allowed, role) = call.look(EntityKind::Role, &name)?;
    let settings = call.identity.settings().clone();
    Ok(Answer::new(allowed, move |xml| {
        xml.open("Role");
        shape::entity(xml, &settings, &role, Fullness::Whole);
        xml.close();
    }))
}

pub(super) async fn list_roles(mut call: Call) -> Result<Answer, IdentityError> {
    let (prefix, paging) = (call.path_prefix()?, call.paging()?);
    call.read()?;
    let settings = call.identity.settings().clone();
    let allowed = call.asker.may(settings.arn("role", &prefix, ""), Context::new())?;
    let snapshot = call.identity.snapshot();
    let roles = snapshot.state.entities(EntityKind::Role).filter(|role| role.path.starts_with(&prefix)).cloned();
    let page = paging.cut(roles, |role| crate::entity::folded(&role.name));
    Ok(Answer::new(allowed, move |xml| {
        list(xml, "Roles", &page.items, |xml, role| shape::entity(xml, &settings, role, Fullness::Listed));
        write_marker(xml, page.marker.as_deref());
    }))
}

pub(super) async fn update_role(mut call: Call) -> Result<Answer, IdentityError> {
    let name = call.entity_name(EntityKind::Role)?;
    let (description, seconds) = (description(&mut call)?, session_seconds(&mut call)?);
    call.read()?;
    let changed = call.change_entity(EntityKind::Role, name, Context::new(), move |role, _| {
        let Some(part) = &mut role.role else { return Ok(()) };
        if let Some(description) = description {
            part.description = Some(description).filter(|text| !text.is_empty());
        }
        part.session_seconds_max = seconds.unwrap_or(part.session_seconds_max);
        Ok(())
    });
    let (allowed, ()) = changed.await?;
    Ok(Answer::new(allowed, |_| {}))
}

pub(super) async fn update_role_description(mut call: Call) -> Result<Answer, IdentityError> {
    let name = call.entity_name(EntityKind::Role)?;
    let text = description(&mut call)?.ok_or_else(|| validate::missing("description"))?;
    call.read()?;
    let changed = call.change_entity(EntityKind::Role, name, Context::new(), move |role, _| {
        if let Some(part) = &mut role.role {
            part.description = Some(text).filter(|text| !text.is_empty());
        }
        Ok(role.clone())
    });
    let (allowed, role) = changed.await?;
    let settings = call.identity.settings().clone();
    Ok(Answer::new(allowed, move |xml| {
        xml.open("Role");
        shape::entity(xml, &settings, &role, Fullness::Whole);
        xml.close();
    }))
}

pub(super) async fn update_assume_role_policy(mut call: Call) -> Result<Answer, IdentityError> {
    let name = call.entity_name(EntityKind::Role)?;
    let document = call.document("PolicyDocument")?;
    call.read()?;
    let settings = call.identity.settings().clone();
    let changed = call.change_entity(EntityKind::Role, name, Context::new(), move |role, snapshot| {
        let trust = trust(&role.name, &document)?;
        if let Some(part) = &mut role.role {
            part.named = crate::trust::named(&settings, &snapshot.state, &trust)?;
            part.trust = trust;
        }
        Ok(())
    });
    let (allowed, ()) = changed.await?;
    Ok(Answer::empty(allowed))
}

pub(super) async fn delete_role(mut call: Call) -> Result<Answer, IdentityError> {
    let name = call.entity_name(EntityKind::Role)?;
    call.read()?;
    let (identity, asker) = (call.identity.clone(), call.asker.clone());
    let changed = call.identity.change(move |state, _| {
        let found = state.entity(EntityKind::Role, &name).cloned();
        let context = found.as_ref().map(|role| entity_context(role)).unwrap_or_default();
        let allowed = asker.may(super::arn_of(&identity, EntityKind::Role, &name, found.as_deref()), context)?;
        let role = found.ok_or_else(|| super::no_entity(EntityKind::Role, &name))?;
        check_without_policies(&role)?;
        state.remove_entity(&role);
        Ok(allowed)
    });
    Ok(Answer::empty(changed.await?))
}

/// Whoever deletes an entity has taken its policies away before.
pub(super) fn check_without_policies(entity: &Entity) -> Result<(), IdentityError> {
    let conflict = |what: &str| Err(IdentityError::DeleteConflict(format!("Cannot delete entity, must {what} first.")));
    if !entity.attached.is_empty() {
        return conflict("detach all policies");
    }
    if !entity.inline.is_empty() {
        return conflict("delete policies");
    }
    Ok(())
}

/// There are none; tools ask before they delete a role.
pub(super) async fn list_instance_profiles_for_role(mut call: Call) -> Result<Answer, IdentityError> {
    let name = call.entity_name(EntityKind::Role)?;
    call.paging()?;
    call.read()?;
    let (allowed, _) = call.look(EntityKind::Role, &name)?;
    Ok(Answer::new(allowed, |xml| {
        xml.empty("InstanceProfiles");
        write_marker(xml, None);
    }))
}
