//! Managed policies: made, shown, taken away. Source: IAM API reference, CreatePolicy, GetPolicy, ListPolicies, DeletePolicy,
//! ListEntitiesForPolicy.

use std::collections::BTreeMap;

use longshore_core::policy::{Context, counted_characters};

use super::shape::{self, Fullness};
use super::{Allowed, Answer, Call, no_policy, request_tags, tags_context, write_marker};
use crate::aws_policies;
use crate::entity::{EntityKind, Managed, State, folded};
use crate::error::IdentityError;
use crate::ids::{self, Prefix};
use crate::query::list;
use crate::{Snapshot, now, validate};

impl Call {
    /// Looks at a managed policy, if the caller may.
    pub(super) fn look_at_policy<'s>(
        &self,
        snapshot: &'s Snapshot,
        arn: &str,
    ) -> Result<(Allowed, &'s Managed), IdentityError> {
        let found = snapshot.managed(arn);
        let context = found.map(|policy| tags_context(&policy.tags)).unwrap_or_default();
        let allowed = self.asker.may(arn, context)?;
        Ok((allowed, found.ok_or_else(|| no_policy(arn))?))
    }

    /// Changes a customer's managed policy, if the caller may; AWS's own are nobody's to change.
    pub(super) async fn change_policy<T: Send + 'static>(
        &self,
        arn: String,
        context: Context,
        change: impl FnOnce(&mut State, &Managed) -> Result<T, IdentityError> + Send + 'static,
    ) -> Result<(Allowed, T), IdentityError> {
        let asker = self.asker.clone();
        self.identity
            .change(move |state, _| {
                let found = state.policy(&arn).cloned();
                let known = found.as_ref().map(|policy| tags_context(&policy.tags)).unwrap_or_default();
                let allowed = asker.may(arn.as_str(), context.or(&known))?;
                if aws_policies::is_theirs(&arn) {
                    return Err(IdentityError::NotAllowed(format!(
                        "{arn} is a policy of AWS's own: it can be attached and read, and not changed."
                    )));
                }
                let policy = found.ok_or_else(|| no_policy(&arn))?;
                Ok((allowed, change(state, &policy)?))
            })
            .await
    }
}

/// A managed policy's document, not too large.
pub(super) fn check_size(document: &str) -> Result<(), IdentityError> {
    if counted_characters(document) > validate::MANAGED_MAX {
        let message = format!("Cannot exceed quota for PolicySize: {}", validate::MANAGED_MAX);
        return Err(IdentityError::LimitExceeded(message));
    }
    Ok(())
}

pub(super) async fn create_policy(mut call: Call) -> Result<Answer, IdentityError> {
    let name = call.policy_name()?;
    let path = call.params.take("Path").unwrap_or_else(|| "/".into());
    validate::path(&path)?;
    let document = call.document("PolicyDocument")?;
    let description = call.params.take("Description");
    if let Some(description) = &description {
        validate::length(description, "description", 0, 1_000)?;
    }
    let tags = call.tags()?;
    call.read()?;
    let arn = call.identity.settings().arn("policy", &path, &name);
    let (id, created, asker) = (ids::id(Prefix::Policy)?, now(), call.asker.clone());
    let changed = call.identity.change(move |state, _| {
        let allowed = asker.may(arn.as_str(), request_tags(Context::new(), &tags))?;
        if !tags.is_empty() {
            asker.may_do("iam:TagPolicy", arn.as_str(), request_tags(Context::new(), &tags))?;
        }
        let version = Managed::version(&arn, &document, created)?;
        check_size(&document)?;
        if state.policy_name_taken(&name) {
            return Err(IdentityError::EntityAlreadyExists(format!(
                "A policy called {name} already exists. Duplicate names are not allowed."
            )));
        }
        if state.policies().count() >= validate::POLICIES_MAX {
            let message = format!("Cannot exceed quota for PoliciesPerAccount: {}", validate::POLICIES_MAX);
            return Err(IdentityError::LimitExceeded(message));
        }
        let policy = Managed {
            id,
            arn,
            name,
            path,
            description,
            created,
            updated: created,
            default_version: 1,
            last_version: 1,
            versions: BTreeMap::from([(1, version)]),
            tags,
        };
        state.put_policy(policy.clone());
        Ok((allowed, policy))
    });
    let (allowed, policy) = changed.await?;
    Ok(Answer::new(allowed, move |xml| {
        xml.open("Policy");
        shape::policy(xml, &policy, (0, 0), Fullness::Whole);
        xml.close();
    }))
}

pub(super) async fn get_policy(mut call: Call) -> Result<Answer, IdentityError> {
    let arn = call.policy_arn()?;
    call.read()?;
    let snapshot = call.identity.snapshot();
    let (allowed, policy) = call.look_at_policy(&snapshot, &arn)?;
    let (policy, uses) = (policy.clone(), snapshot.state.uses(&arn));
    Ok(Answer::new(allowed, move |xml| {
        xml.open("Policy");
        shape::policy(xml, &policy, uses, Fullness::Whole);
        xml.close();
    }))
}

pub(super) async fn list_policies(mut call: Call) -> Result<Answer, IdentityError> {
    let scope = call.params.take("Scope").unwrap_or_else(|| "All".into());
    validate::one_of(&scope, "scope", &["All", "AWS", "Local"])?;
    let only_attached = match call.params.take("OnlyAttached").as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => return Err(validate::breach(other, "onlyAttached", "Member must be true or false")),
    };
    let usage = usage_filter(&mut call)?;
    let (prefix, paging) = (call.path_prefix()?, call.paging()?);
    call.read()?;
    let allowed = call.asker.may(call.identity.settings().arn("policy", &prefix, ""), Context::new())?;
    let snapshot = call.identity.snapshot();
    let mut all: Vec<&Managed> = aws_policies::all().filter(|_| scope != "Local").collect();
    all.extend(snapshot.state.policies().map(|policy| &**policy).filter(|_| scope != "AWS"));
    let uses = snapshot.state.uses_of_all();
    let uses = |policy: &Managed| uses.get(policy.arn.as_str()).copied().unwrap_or_default();
    let mut policies: Vec<(String, &Managed, (usize, usize))> = all
        .into_iter()
        .filter(|policy| policy.path.starts_with(&prefix))
        .map(|policy| (format!("{}\n{}", folded(&policy.name), policy.arn), policy, uses(policy)))
        .filter(|(_, _, (attached, bounded))| match usage {
            None => !only_attached || *attached > 0,
            Some(Usage::Permissions) => *attached > 0,
            Some(Usage::Boundary) => *bounded > 0,
        })
        .collect();
    policies.sort_by(|a, b| a.0.cmp(&b.0));
    let page = paging.cut(policies.into_iter(), |(key, ..)| key.clone());
    // Of the page alone: a policy has five documents, and there may be thousands of it.
    let items: Vec<(Managed, (usize, usize))> =
        page.items.into_iter().map(|(_, policy, uses)| (policy.clone(), uses)).collect();
    Ok(Answer::new(allowed, move |xml| {
        list(xml, "Policies", &items, |xml, (policy, uses)| {
            shape::policy(xml, policy, *uses, Fullness::Listed);
        });
        write_marker(xml, page.marker.as_deref());
    }))
}

/// As what policies are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Usage {
    Permissions,
    Boundary,
}

fn usage_filter(call: &mut Call) -> Result<Option<Usage>, IdentityError> {
    let words = ["PermissionsPolicy", "PermissionsBoundary"];
    let Some(given) = call.params.take("PolicyUsageFilter") else { return Ok(None) };
    validate::one_of(&given, "policyUsageFilter", &words)?;
    Ok(Some(if given == words[0] { Usage::Permissions } else { Usage::Boundary }))
}

pub(super) async fn delete_policy(mut call: Call) -> Result<Answer, IdentityError> {
    let arn = call.policy_arn()?;
    call.read()?;
    let changed = call.change_policy(arn, Context::new(), |state, policy| {
        if state.uses(&policy.arn) != (0, 0) {
            return Err(IdentityError::DeleteConflict("Cannot delete a policy attached to entities.".into()));
        }
        if policy.versions.len() > 1 {
            let message = "This policy has more than one version. Before you delete a policy, you must delete the policy's \
                           versions. The default version is deleted with the policy.";
            return Err(IdentityError::DeleteConflict(message.into()));
        }
        state.remove_policy(policy);
        Ok(())
    });
    let (allowed, ()) = changed.await?;
    Ok(Answer::empty(allowed))
}

pub(super) async fn list_entities_for_policy(mut call: Call) -> Result<Answer, IdentityError> {
    let arn = call.policy_arn()?;
    let filter = call.params.take("EntityFilter");
    if let Some(filter) = &filter {
        let words = ["User", "Role", "Group", "LocalManagedPolicy", "AWSManagedPolicy"];
        validate::one_of(filter, "entityFilter", &words)?;
    }
    let usage = usage_filter(&mut call)?;
    let (prefix, paging) = (call.path_prefix()?, call.paging()?);
    call.read()?;
    let snapshot = call.identity.snapshot();
    let (allowed, _) = call.look_at_policy(&snapshot, &arn)?;
    let of_kind = |kind: EntityKind| {
        let wanted = filter.as_deref().is_none_or(|filter| filter.eq_ignore_ascii_case(kind.word()));
        snapshot.state.entities(kind).filter(move |_| wanted)
    };
    let (arn, prefix) = (arn.as_str(), prefix.as_str());
    let found = of_kind(EntityKind::User).chain(of_kind(EntityKind::Role)).filter(|entity| {
        let (attached, bounded) = (entity.attached.contains(arn), entity.boundary.as_deref() == Some(arn));
        entity.path.starts_with(prefix)
            && match usage {
                None => attached || bounded,
                Some(Usage::Permissions) => attached,
                Some(Usage::Boundary) => bounded,
            }
    });
    // Users come before roles.
    let key =
        |kind: EntityKind, name: &str| format!("{} {}", if kind == EntityKind::User { 0 } else { 1 }, folded(name));
    let page = paging.cut(found.cloned(), |entity| key(entity.kind, &entity.name));
    Ok(Answer::new(allowed, move |xml| {
        xml.empty("PolicyGroups");
        for (kind, name) in [(EntityKind::User, "PolicyUsers"), (EntityKind::Role, "PolicyRoles")] {
            list(xml, name, page.items.iter().filter(|entity| entity.kind == kind), |xml, entity| {
                let (name, id) = if kind == EntityKind::User { ("UserName", "UserId") } else { ("RoleName", "RoleId") };
                xml.text(name, &entity.name);
                xml.text(id, &entity.id);
            });
        }
        write_marker(xml, page.marker.as_deref());
    }))
}
