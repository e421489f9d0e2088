//! Users: made, shown, renamed, taken away. Source: IAM API reference, CreateUser, GetUser, ListUsers, UpdateUser, DeleteUser,
//! ListGroupsForUser; and what a user may have on AWS and not here: ListSSHPublicKeys, ListSigningCertificates, ListMFADevices,
//! ListServiceSpecificCredentials, GetLoginProfile, DeleteLoginProfile.

use std::collections::{BTreeMap, BTreeSet};

use longshore_core::policy::{Context, PrincipalKind};

use super::roles::check_without_policies;
use super::shape::{self, Fullness};
use super::{Allowed, Answer, Call, arn_of, entity_context, no_entity, no_policy, request_tags, write_marker};
use crate::entity::{Entity, EntityKind, folded};
use crate::error::IdentityError;
use crate::ids::{self, Prefix};
use crate::query::{date, list};
use crate::{now, validate};

const USER: EntityKind = EntityKind::User;

impl Call {
    /// The user that a request names, or the one who asks. `None`: root asks, for itself.
    pub(super) fn user_name_or_own(&mut self) -> Result<Option<String>, IdentityError> {
        if let Some(name) = self.params.take("UserName") {
            validate::name(&name, "userName", validate::POLICY_NAME)?;
            return Ok(Some(name));
        }
        match &self.asker.caller.principal().kind {
            PrincipalKind::User { name } => Ok(Some(name.clone())),
            PrincipalKind::Root => Ok(None),
            _ => Err(IdentityError::Validation("Must specify userName when calling with non-User credentials".into())),
        }
    }
}

fn taken(name: &str) -> IdentityError {
    IdentityError::EntityAlreadyExists(format!("User with name {name} already exists."))
}

pub(super) async fn create_user(mut call: Call) -> Result<Answer, IdentityError> {
    let name = call.required("UserName")?;
    validate::name(&name, "userName", validate::ROLE_NAME)?;
    let path = call.params.take("Path").unwrap_or_else(|| "/".into());
    validate::path(&path)?;
    let boundary = call.params.take("PermissionsBoundary");
    let tags = call.tags()?;
    call.read()?;
    let user = Entity {
        kind: USER,
        id: ids::id(Prefix::User)?,
        name,
        path,
        created: now(),
        inline: BTreeMap::new(),
        attached: BTreeSet::new(),
        boundary,
        tags,
        role: None,
    };
    let settings = call.identity.settings().clone();
    let (asker, shown_in) = (call.asker.clone(), settings.clone());
    let changed = call.identity.change(move |state, snapshot| {
        let context = request_tags(Context::new(), &user.tags);
        let context = context.with_all("iam:PermissionsBoundary", user.boundary.iter().cloned());
        let allowed = asker.may(user.arn(&settings), context)?;
        if !user.tags.is_empty() {
            asker.may_do("iam:TagUser", user.arn(&settings), request_tags(Context::new(), &user.tags))?;
        }
        if state.name_taken(USER, &user.name) {
            return Err(taken(&user.name));
        }
        if let Some(boundary) = &user.boundary
            && snapshot.managed(boundary).is_none()
        {
            return Err(no_policy(boundary));
        }
        if state.entities(USER).count() >= validate::USERS_MAX {
            let message = format!("Cannot exceed quota for UsersPerAccount: {}", validate::USERS_MAX);
            return Err(IdentityError::LimitExceeded(message));
        }
        state.put_entity(user.clone());
        Ok((allowed, user))
    });
    let (allowed, user) = changed.await?;
    Ok(Answer::new(allowed, move |xml| {
        xml.open("User");
        shape::entity(xml, &shown_in, &user, Fullness::Whole);
        xml.close();
    }))
}

pub(super) async fn get_user(mut call: Call) -> Result<Answer, IdentityError> {
    let name = call.user_name_or_own()?;
    call.read()?;
    let Some(name) = name else { return get_root(&call) };
    let (allowed, user) = call.look(USER, &name)?;
    let settings = call.identity.settings().clone();
    Ok(Answer::new(allowed, move |xml| {
        xml.open("User");
        shape::entity(xml, &settings, &user, Fullness::Whole);
        xml.close();
    }))
}

/// The account's owner is no user, and shown as one without a name, as AWS does it.
fn get_root(call: &Call) -> Result<Answer, IdentityError> {
    let arn = call.asker.caller.principal().arn.clone();
    let allowed = call.asker.may(arn.clone(), Context::new())?;
    let (account, began) = (call.asker.caller.account().to_owned(), call.identity.began());
    Ok(Answer::new(allowed, move |xml| {
        xml.open("User");
        xml.text("Path", "/");
        xml.text("UserId", &account);
        xml.text("Arn", &arn);
        xml.text("CreateDate", &date(began));
        xml.close();
    }))
}

pub(super) async fn list_users(mut call: Call) -> Result<Answer, IdentityError> {
    let (prefix, paging) = (call.path_prefix()?, call.paging()?);
    call.read()?;
    let settings = call.identity.settings().clone();
    let allowed = call.asker.may(settings.arn("user", &prefix, ""), Context::new())?;
    let snapshot = call.identity.snapshot();
    let users = snapshot.state.entities(USER).filter(|user| user.path.starts_with(&prefix)).cloned();
    let page = paging.cut(users, |user| folded(&user.name));
    Ok(Answer::new(allowed, move |xml| {
        list(xml, "Users", &page.items, |xml, user| shape::entity(xml, &settings, user, Fullness::Listed));
        write_marker(xml, page.marker.as_deref());
    }))
}

pub(super) async fn update_user(mut call: Call) -> Result<Answer, IdentityError> {
    let name = call.entity_name(USER)?;
    let (new_name, new_path) = (call.params.take("NewUserName"), call.params.take("NewPath"));
    if let Some(new_name) = &new_name {
        validate::name(new_name, "newUserName", validate::ROLE_NAME)?;
    }
    if let Some(new_path) = &new_path {
        validate::path(new_path)?;
    }
    call.read()?;
    let (identity, asker) = (call.identity.clone(), call.asker.clone());
    let changed = call.identity.change(move |state, _| {
        let found = state.entity(USER, &name).cloned();
        let context = found.as_ref().map(|user| entity_context(user)).unwrap_or_default();
        let allowed = asker.may(arn_of(&identity, USER, &name, found.as_deref()), context.clone())?;
        let mut user = (*found.ok_or_else(|| no_entity(USER, &name))?).clone();
        user.path = new_path.unwrap_or(user.path);
        if let Some(new_name) = new_name {
            if folded(&new_name) != folded(&name) && state.name_taken(USER, &new_name) {
                return Err(taken(&new_name));
            }
            // Denials name a policy by whose it is.
            for (policy, written) in &mut user.inline {
                *written = Entity::inline_policy(USER, &new_name, policy, written.document.text())?;
            }
            user.name = new_name;
        }
        // Whoever moves a user has to be allowed to at both places, so that nobody moves one out of or into a path.
        asker.may(user.arn(identity.settings()), context)?;
        state.put_entity(user);
        Ok(allowed)
    });
    Ok(Answer::empty(changed.await?))
}

pub(super) async fn delete_user(mut call: Call) -> Result<Answer, IdentityError> {
    let name = call.entity_name(USER)?;
    call.read()?;
    let (identity, asker) = (call.identity.clone(), call.asker.clone());
    let changed = call.identity.change(move |state, _| -> Result<Allowed, IdentityError> {
        let found = state.entity(USER, &name).cloned();
        let context = found.as_ref().map(|user| entity_context(user)).unwrap_or_default();
        let allowed = asker.may(arn_of(&identity, USER, &name, found.as_deref()), context)?;
        let user = found.ok_or_else(|| no_entity(USER, &name))?;
        check_without_policies(&user)?;
        if state.keys_of(&user.id).next().is_some() {
            let message = "Cannot delete entity, must delete access keys first.";
            return Err(IdentityError::DeleteConflict(message.into()));
        }
        state.remove_entity(&user);
        Ok(allowed)
    });
    Ok(Answer::empty(changed.await?))
}

/// There are none; tools ask before they delete a user.
pub(super) async fn list_groups_for_user(mut call: Call) -> Result<Answer, IdentityError> {
    let name = call.entity_name(USER)?;
    call.paging()?;
    call.read()?;
    let (allowed, _) = call.look(USER, &name)?;
    Ok(Answer::new(allowed, |xml| {
        xml.empty("Groups");
        write_marker(xml, None);
    }))
}

/// There are none, of whomever it is asked; tools that delete a user ask for all of them, and go on only if they are answered.
fn none_of_a_user(mut call: Call, list: &'static str) -> Result<Answer, IdentityError> {
    let name = call.user_name_or_own()?;
    call.paging()?;
    call.read()?;
    let allowed = match &name {
        Some(name) => call.look(USER, name)?.0,
        None => call.asker.may(call.asker.caller.principal().arn.clone(), Context::new())?,
    };
    Ok(Answer::new(allowed, move |xml| {
        xml.empty(list);
        write_marker(xml, None);
    }))
}

pub(super) async fn list_ssh_public_keys(call: Call) -> Result<Answer, IdentityError> {
    none_of_a_user(call, "SSHPublicKeys")
}

pub(super) async fn list_signing_certificates(call: Call) -> Result<Answer, IdentityError> {
    none_of_a_user(call, "Certificates")
}

pub(super) async fn list_mfa_devices(call: Call) -> Result<Answer, IdentityError> {
    none_of_a_user(call, "MFADevices")
}

/// Of one service or all: there are none of any. `AllUsers`, which goes without a name, is not here.
pub(super) async fn list_service_specific_credentials(mut call: Call) -> Result<Answer, IdentityError> {
    call.params.take("ServiceName");
    none_of_a_user(call, "ServiceSpecificCredentials")
}

/// No user has a password, which is what AWS tells of one without.
pub(super) async fn login_profile(mut call: Call) -> Result<Answer, IdentityError> {
    let name = call.user_name_or_own()?;
    call.read()?;
    let whose = match name {
        Some(name) => {
            call.look(USER, &name)?;
            name
        }
        None => {
            let root = call.asker.caller.principal().arn.clone();
            call.asker.may(root.clone(), Context::new())?;
            root
        }
    };
    Err(IdentityError::NoSuchEntity(format!("Login Profile for User {whose} cannot be found.")))
}
