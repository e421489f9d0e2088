//! Access keys of users. Source: IAM API reference, CreateAccessKey, ListAccessKeys, UpdateAccessKey, DeleteAccessKey.

use std::sync::Arc;

use longshore_wire::xml::Writer;

use super::{Allowed, Answer, Call, arn_of, entity_context, no_entity, write_marker};
use crate::entity::{AccessKey, Entity, EntityKind, State};
use crate::error::IdentityError;
use crate::ids::{self, Prefix};
use crate::query::{date, list};
use crate::{now, validate};

const USER: EntityKind = EntityKind::User;

impl Call {
    /// The user whose keys are meant. Root's own key is none of these.
    fn owner(&mut self) -> Result<String, IdentityError> {
        self.user_name_or_own()?.ok_or_else(|| {
            IdentityError::InvalidInput(
                "The key of the account's owner lies in the data directory, and is made anew by the server when its file is \
                 gone; name a user for a key of a user."
                    .into(),
            )
        })
    }

    fn key_id(&mut self) -> Result<String, IdentityError> {
        let id = self.required("AccessKeyId")?;
        validate::length(&id, "accessKeyId", 16, 128)?;
        Ok(id)
    }

    /// Changes the keys of a user, if the caller may.
    async fn change_keys<T: Send + 'static>(
        &self,
        name: String,
        change: impl FnOnce(&mut State, &Arc<Entity>) -> Result<T, IdentityError> + Send + 'static,
    ) -> Result<(Allowed, T), IdentityError> {
        let (identity, asker) = (self.identity.clone(), self.asker.clone());
        self.identity
            .change(move |state, _| {
                let found = state.entity(USER, &name).cloned();
                let context = found.as_ref().map(|user| entity_context(user)).unwrap_or_default();
                let allowed = asker.may(arn_of(&identity, USER, &name, found.as_deref()), context)?;
                let user = found.ok_or_else(|| no_entity(USER, &name))?;
                Ok((allowed, change(state, &user)?))
            })
            .await
    }
}

fn write(xml: &mut Writer, user: &str, key: &AccessKey) {
    xml.text("UserName", user);
    xml.text("AccessKeyId", &key.id);
    xml.text("Status", if key.active { "Active" } else { "Inactive" });
}

fn own_key(state: &State, user: &Entity, id: &str) -> Result<Arc<AccessKey>, IdentityError> {
    let missing = || IdentityError::NoSuchEntity(format!("The Access Key with id {id} cannot be found."));
    state.key(id).filter(|key| key.user_id == user.id).cloned().ok_or_else(missing)
}

pub(super) async fn create_access_key(mut call: Call) -> Result<Answer, IdentityError> {
    let name = call.owner()?;
    call.read()?;
    let (id, secret) = (ids::id(Prefix::AccessKey)?, ids::secret()?);
    let changed = call.change_keys(name.clone(), move |state, user| {
        if state.keys_of(&user.id).count() >= validate::KEYS_MAX {
            let message = format!("Cannot exceed quota for AccessKeysPerUser: {}", validate::KEYS_MAX);
            return Err(IdentityError::LimitExceeded(message));
        }
        let key = AccessKey { id, user_id: user.id.clone(), secret, active: true, created: now() };
        state.put_key(key.clone());
        Ok(key)
    });
    let (allowed, key) = changed.await?;
    Ok(Answer::new(allowed, move |xml| {
        xml.open("AccessKey");
        write(xml, &name, &key);
        // The one moment at which it is shown.
        xml.text("SecretAccessKey", key.secret.expose());
        xml.text("CreateDate", &date(key.created));
        xml.close();
    }))
}

pub(super) async fn list_access_keys(mut call: Call) -> Result<Answer, IdentityError> {
    let (name, paging) = (call.owner()?, call.paging()?);
    call.read()?;
    let (allowed, user) = call.look(USER, &name)?;
    let snapshot = call.identity.snapshot();
    let page = paging.cut(snapshot.state.keys_of(&user.id).cloned(), |key| key.id.clone());
    Ok(Answer::new(allowed, move |xml| {
        list(xml, "AccessKeyMetadata", &page.items, |xml, key| {
            write(xml, &name, key);
            xml.text("CreateDate", &date(key.created));
        });
        write_marker(xml, page.marker.as_deref());
    }))
}

pub(super) async fn update_access_key(mut call: Call) -> Result<Answer, IdentityError> {
    let (name, id, status) = (call.owner()?, call.key_id()?, call.required("Status")?);
    validate::one_of(&status, "status", &["Active", "Inactive"])?;
    call.read()?;
    let changed = call.change_keys(name, move |state, user| {
        let key = own_key(state, user, &id)?;
        state.put_key(AccessKey { active: status == "Active", ..(*key).clone() });
        Ok(())
    });
    let (allowed, ()) = changed.await?;
    Ok(Answer::empty(allowed))
}

pub(super) async fn delete_access_key(mut call: Call) -> Result<Answer, IdentityError> {
    let (name, id) = (call.owner()?, call.key_id()?);
    call.read()?;
    let changed = call.change_keys(name, move |state, user| {
        let key = own_key(state, user, &id)?;
        state.remove_key(&key.id);
        Ok(())
    });
    let (allowed, ()) = changed.await?;
    Ok(Answer::empty(allowed))
}
