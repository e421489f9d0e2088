//! Whom a trust policy means: users and roles by who had an ARN when the policy was written, not by who has it later.
//!
//! The document stays as it was given; beside it the IDs are kept that its ARNs had. Source: IAM user guide, "AWS JSON policy
//! elements: Principal" (a principal that is deleted and made again is not the one that the policy trusts).

use std::collections::BTreeMap;

use longshore_core::policy::{Malformed, Policy};
use serde_json::Value;

use crate::Settings;
use crate::entity::{Entity, EntityKind, State};
use crate::error::IdentityError;

/// The elements that name principals.
const ELEMENTS: [&str; 2] = ["Principal", "NotPrincipal"];

/// The IDs of the users and roles of this account that a trust policy names, by their ARNs. One that there is not is refused, as
/// AWS does it: nobody could be meant.
pub(crate) fn named(
    settings: &Settings,
    state: &State,
    trust: &Policy,
) -> Result<BTreeMap<String, String>, IdentityError> {
    let mut document = read(trust)?;
    let mut ids = BTreeMap::new();
    let mut missing = None;
    each_principal(&mut document, |place, arn| {
        let Some((kind, name)) = own_entity(settings, arn) else { return };
        match state.entity(kind, name).filter(|entity| entity.arn(settings) == *arn) {
            Some(entity) => drop(ids.insert(arn.clone(), entity.id.clone())),
            None => missing = missing.take().or(Some((place.to_owned(), arn.clone()))),
        }
    });
    match missing {
        None => Ok(ids),
        Some((place, arn)) => {
            Err(Malformed { place, reason: format!("Invalid principal in policy: \"AWS\":\"{arn}\"") }.into())
        }
    }
}

/// A trust policy as it is to be asked for whoever has this ARN now and did not when it was written: with somebody else in its
/// place, who had it then.
pub(crate) fn without(
    settings: &Settings,
    role: &str,
    trust: &Policy,
    arn: &str,
    id: &str,
) -> Result<Policy, IdentityError> {
    let mut document = read(trust)?;
    each_principal(&mut document, |_, named| {
        if named == arn {
            *named = settings.arn("user", "/", &format!("deleted-{id}"));
        }
    });
    Ok(Entity::trust_policy(role, &document.to_string())?)
}

fn read(trust: &Policy) -> Result<Value, IdentityError> {
    let damaged = |error| IdentityError::Fault(format!("a trust policy that was read does not read again: {error}"));
    serde_json::from_str(trust.document.text()).map_err(damaged)
}

fn each_principal(document: &mut Value, mut each: impl FnMut(&str, &mut String)) {
    let statements = match document.get_mut("Statement") {
        Some(Value::Array(statements)) => statements.as_mut_slice(),
        Some(one) => std::slice::from_mut(one),
        None => &mut [],
    };
    for (at, statement) in statements.iter_mut().enumerate() {
        for element in ELEMENTS {
            let place = format!("Statement[{}].{element}.AWS", at + 1);
            match statement.get_mut(element).and_then(|principals| principals.get_mut("AWS")) {
                Some(Value::String(arn)) => each(&place, arn),
                Some(Value::Array(arns)) => {
                    let arns =
                        arns.iter_mut().filter_map(|arn| if let Value::String(arn) = arn { Some(arn) } else { None });
                    arns.for_each(|arn| each(&place, arn));
                }
                _ => {}
            }
        }
    }
}

/// A user or role of this account by its ARN.
pub(crate) fn own_entity<'a>(settings: &Settings, arn: &'a str) -> Option<(EntityKind, &'a str)> {
    [EntityKind::User, EntityKind::Role].into_iter().find_map(|kind| {
        let path = arn.strip_prefix(&settings.arn(kind.word(), "/", ""))?;
        Some((kind, path.rsplit('/').next().unwrap_or(path)))
    })
}
