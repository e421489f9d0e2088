//! The operations of IAM and STS: a file each, or one for those that differ in a word alone, and a line each in [`IAM`] or [`STS`].
//!
//! Every operation asks the policies before it answers: an [`Answer`] cannot be made without what [`Asker::may`] gives.

mod access_keys;
mod account;
mod assume_role;
mod attachments;
mod boundaries;
pub(crate) mod caller_identity;
mod explain;
mod inline_policies;
mod managed_policies;
mod policy_versions;
mod roles;
mod session_token;
mod shape;
mod simulate;
mod tags;
mod users;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, StatusCode};
use longshore_core::policy::Context;
use longshore_wire::xml::Writer;

pub use explain::OWN_OPERATIONS;
use longshore_wire::{Asked, Caller, Request, Response};
#[cfg(test)]
pub(crate) use shape::encoded;

use crate::Identity;
use crate::entity::{Entity, EntityKind};
use crate::error::IdentityError;
use crate::query::Params;
use crate::validate;

/// One operation of IAM or STS.
pub(crate) struct Operation {
    /// As AWS spells it: `CreateRole`.
    pub name: &'static str,
    /// What a policy has to allow: `iam:CreateRole`.
    pub action: &'static str,
    pub handle: fn(Call) -> BoxFuture,
}

pub(crate) type BoxFuture = Pin<Box<dyn Future<Output = Result<Answer, IdentityError>> + Send>>;

/// A request that has found its operation.
pub(crate) struct Call {
    pub identity: Identity,
    pub params: Params,
    pub asker: Asker,
    /// Of the caller, who has a session.
    pub session_token: Option<String>,
}

/// Who asks for what.
#[derive(Clone)]
pub(crate) struct Asker {
    pub caller: Caller,
    pub action: &'static str,
}

/// Something was asked of the policies, and they allow it. Cannot be made outside this module.
pub(crate) struct Allowed(());

impl Asker {
    /// Asks for the operation's own action.
    pub fn may(&self, resource: impl Into<String>, context: Context) -> Result<Allowed, IdentityError> {
        self.may_do(self.action, resource, context)
    }

    /// Asks for another one.
    pub fn may_do(
        &self,
        action: &'static str,
        resource: impl Into<String>,
        context: Context,
    ) -> Result<Allowed, IdentityError> {
        self.ask(&Asked::new(action, resource).with_context(context))
    }

    pub fn ask(&self, asked: &Asked) -> Result<Allowed, IdentityError> {
        self.caller.may(asked)?;
        Ok(Allowed(()))
    }

    /// Of what anybody may do whose signature holds.
    pub fn needs_no_permission(&self) -> Allowed {
        Allowed(())
    }
}

/// What an operation answers: the elements of its result.
pub(crate) struct Answer {
    result: Option<WriteResult>,
}

type WriteResult = Box<dyn FnOnce(&mut Writer) + Send>;

impl Answer {
    pub fn new(_: Allowed, result: impl FnOnce(&mut Writer) + Send + 'static) -> Self {
        Self { result: Some(Box::new(result)) }
    }

    /// Of an operation that has no result.
    pub fn empty(_: Allowed) -> Self {
        Self { result: None }
    }
}

macro_rules! operations {
    ($service:literal: $($name:literal => $handle:path,)*) => {
        &[$(Operation {
            name: $name,
            action: concat!($service, ":", $name),
            handle: |call| Box::pin($handle(call)),
        }),*]
    };
}

/// All operations of IAM.
pub(crate) const IAM: &[Operation] = operations! { "iam":
    "CreateUser" => users::create_user,
    "GetUser" => users::get_user,
    "ListUsers" => users::list_users,
    "UpdateUser" => users::update_user,
    "DeleteUser" => users::delete_user,
    "ListGroupsForUser" => users::list_groups_for_user,
    "ListSSHPublicKeys" => users::list_ssh_public_keys,
    "ListSigningCertificates" => users::list_signing_certificates,
    "ListMFADevices" => users::list_mfa_devices,
    "ListServiceSpecificCredentials" => users::list_service_specific_credentials,
    "GetLoginProfile" => users::login_profile,
    "DeleteLoginProfile" => users::login_profile,
    "TagUser" => tags::tag_user,
    "UntagUser" => tags::untag_user,
    "ListUserTags" => tags::list_user_tags,
    "CreateAccessKey" => access_keys::create_access_key,
    "ListAccessKeys" => access_keys::list_access_keys,
    "UpdateAccessKey" => access_keys::update_access_key,
    "DeleteAccessKey" => access_keys::delete_access_key,
    "CreateRole" => roles::create_role,
    "GetRole" => roles::get_role,
    "ListRoles" => roles::list_roles,
    "UpdateRole" => roles::update_role,
    "UpdateRoleDescription" => roles::update_role_description,
    "UpdateAssumeRolePolicy" => roles::update_assume_role_policy,
    "DeleteRole" => roles::delete_role,
    "ListInstanceProfilesForRole" => roles::list_instance_profiles_for_role,
    "TagRole" => tags::tag_role,
    "UntagRole" => tags::untag_role,
    "ListRoleTags" => tags::list_role_tags,
    "PutUserPermissionsBoundary" => boundaries::put_user_permissions_boundary,
    "DeleteUserPermissionsBoundary" => boundaries::delete_user_permissions_boundary,
    "PutRolePermissionsBoundary" => boundaries::put_role_permissions_boundary,
    "DeleteRolePermissionsBoundary" => boundaries::delete_role_permissions_boundary,
    "PutUserPolicy" => inline_policies::put_user_policy,
    "GetUserPolicy" => inline_policies::get_user_policy,
    "ListUserPolicies" => inline_policies::list_user_policies,
    "DeleteUserPolicy" => inline_policies::delete_user_policy,
    "PutRolePolicy" => inline_policies::put_role_policy,
    "GetRolePolicy" => inline_policies::get_role_policy,
    "ListRolePolicies" => inline_policies::list_role_policies,
    "DeleteRolePolicy" => inline_policies::delete_role_policy,
    "AttachUserPolicy" => attachments::attach_user_policy,
    "DetachUserPolicy" => attachments::detach_user_policy,
    "ListAttachedUserPolicies" => attachments::list_attached_user_policies,
    "AttachRolePolicy" => attachments::attach_role_policy,
    "DetachRolePolicy" => attachments::detach_role_policy,
    "ListAttachedRolePolicies" => attachments::list_attached_role_policies,
    "CreatePolicy" => managed_policies::create_policy,
    "GetPolicy" => managed_policies::get_policy,
    "ListPolicies" => managed_policies::list_policies,
    "DeletePolicy" => managed_policies::delete_policy,
    "ListEntitiesForPolicy" => managed_policies::list_entities_for_policy,
    "TagPolicy" => tags::tag_policy,
    "UntagPolicy" => tags::untag_policy,
    "ListPolicyTags" => tags::list_policy_tags,
    "CreatePolicyVersion" => policy_versions::create_policy_version,
    "GetPolicyVersion" => policy_versions::get_policy_version,
    "ListPolicyVersions" => policy_versions::list_policy_versions,
    "SetDefaultPolicyVersion" => policy_versions::set_default_policy_version,
    "DeletePolicyVersion" => policy_versions::delete_policy_version,
    "SimulatePrincipalPolicy" => simulate::simulate_principal_policy,
    "SimulateCustomPolicy" => simulate::simulate_custom_policy,
    "GetContextKeysForPrincipalPolicy" => simulate::get_context_keys_for_principal_policy,
    "GetContextKeysForCustomPolicy" => simulate::get_context_keys_for_custom_policy,
    "GetAccountSummary" => account::get_account_summary,
    "ListAccountAliases" => account::list_account_aliases,
    "ListVirtualMFADevices" => account::list_virtual_mfa_devices,
    "GetAccountPasswordPolicy" => account::get_account_password_policy,
};

/// All operations of STS.
pub(crate) const STS: &[Operation] = operations! { "sts":
    "GetCallerIdentity" => caller_identity::get_caller_identity,
    "GetAccessKeyInfo" => caller_identity::get_access_key_info,
    "AssumeRole" => assume_role::assume_role,
    "GetSessionToken" => session_token::get_session_token,
};

/// Every operation with what a policy has to allow for it: `("CreateRole", "iam:CreateRole")`.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    IAM.iter().chain(STS).map(|operation| (operation.name, operation.action))
}

/// What else is asked of one that AWS has and that is not here.
const NOT_HERE: &[(&str, &str)] = &[
    ("Group", "there are no groups; attach policies to users and roles"),
    ("InstanceProfile", "there are no instances, and so no instance profiles"),
    ("SAML", "there is no federation with SAML; use users and AssumeRole"),
    ("WebIdentity", "there is no federation with web identities; use users and AssumeRole"),
    ("OpenIDConnect", "there is no federation with OpenID Connect; use users and AssumeRole"),
    ("FederationToken", "there are no federated users; use AssumeRole"),
    ("MFADevice", "there is no multi-factor authentication"),
    ("LoginProfile", "users have access keys, and no passwords"),
    ("Password", "users have access keys, and no passwords"),
    ("ServiceLinkedRole", "there are no service-linked roles; make a role with CreateRole"),
    ("AccessKeyLastUsed", "the last use of access keys is not kept"),
    ("LastAccessed", "the last use of permissions is not kept"),
    ("ServerCertificate", "certificates are set in the server's settings"),
    ("SigningCertificate", "requests are signed with access keys alone"),
    ("SSHPublicKey", "there is no CodeCommit"),
    ("ServiceSpecificCredential", "there are no services that have credentials of their own"),
    ("AuthorizationDetails", "ask for users, roles and policies one by one"),
    ("AccountAlias", "accounts have no aliases"),
    ("CredentialReport", "ask for users and their access keys one by one"),
    ("DecodeAuthorizationMessage", "denials are told in plain words"),
];

/// One of the two services.
struct Service {
    operations: &'static [Operation],
    version: &'static str,
    namespace: &'static str,
}

const IAM_SERVICE: Service =
    Service { operations: IAM, version: "2010-05-08", namespace: "https://iam.amazonaws.com/doc/2010-05-08/" };
const STS_SERVICE: Service =
    Service { operations: STS, version: "2011-06-15", namespace: "https://sts.amazonaws.com/doc/2011-06-15/" };

/// Query parameters of a presigned request that are no members of it.
const OF_PRESIGNED: [&str; 7] = [
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-SignedHeaders",
    "X-Amz-Signature",
    "X-Amz-Security-Token",
];

/// The members of a request, without what a presigned one is signed with.
fn members(request: &Request) -> Result<Params, IdentityError> {
    match request.method {
        Method::POST => Params::parse(&request.body),
        Method::GET => {
            let mut params = Params::of(request.query.iter().map(|(name, value)| (name.to_owned(), value.to_owned())))?;
            if request.query.contains("X-Amz-Signature") {
                for name in OF_PRESIGNED {
                    params.take(name);
                }
            }
            Ok(params)
        }
        _ => Err(IdentityError::Unreadable("The request has to be a POST or a GET.".into())),
    }
}

impl Identity {
    /// Answers a request to IAM or STS; the service of its signature says which.
    pub async fn serve(&self, request: Request) -> Response {
        let id = request.request_id.clone();
        let service = if request.caller.verified().service() == "sts" { &STS_SERVICE } else { &IAM_SERVICE };
        match self.answer(service, request).await {
            Ok((name, answer)) => {
                let mut xml = Writer::document(&format!("{name}Response"), Some(service.namespace));
                if let Some(result) = answer.result {
                    xml.open(&format!("{name}Result"));
                    result(&mut xml);
                    xml.close();
                }
                xml.open("ResponseMetadata");
                xml.text("RequestId", &id.0);
                Response::xml(StatusCode::OK, xml.finish()).with_header("content-type", "text/xml")
            }
            Err(error) => {
                let told = error.told();
                if told.status.is_server_error() && told.status != StatusCode::NOT_IMPLEMENTED {
                    tracing::error!(request_id = %id, error = &error as &dyn std::error::Error, "identity request failed");
                } else {
                    tracing::debug!(request_id = %id, code = %told.code, message = told.message, "identity request refused");
                }
                told.query(&id).with_header("content-type", "text/xml")
            }
        }
    }

    async fn answer(&self, service: &Service, request: Request) -> Result<(&'static str, Answer), IdentityError> {
        let mut params = members(&request)?;
        let action = params.take("Action").filter(|action| !action.is_empty()).ok_or(IdentityError::MissingAction)?;
        let version = params.take("Version").unwrap_or_else(|| service.version.to_owned());
        let found = service.operations.iter().find(|operation| operation.name == action);
        let Some(operation) = found.filter(|_| version == service.version) else {
            let known = version == service.version && action.bytes().all(|b| b.is_ascii_alphanumeric());
            return Err(match NOT_HERE.iter().find(|(part, _)| known && action.contains(part)) {
                Some((_, why)) => IdentityError::NotImplemented(format!("{action} is not served here: {why}.")),
                None => IdentityError::InvalidAction(format!(
                    "Could not find operation {} for version {}",
                    action.chars().take(128).collect::<String>(),
                    version.chars().take(32).collect::<String>()
                )),
            });
        };
        // Of a presigned request, beside what its signature is made of. Of any other, the token is in the header that was verified: one
        // among the members of the request is anybody's.
        let presigned = request.query.contains("X-Amz-Signature");
        let session_token = match presigned {
            true => request.query.get("X-Amz-Security-Token"),
            false => request.header("x-amz-security-token"),
        }
        .map(str::to_owned);
        let asker = Asker { caller: request.caller, action: operation.action };
        session_token::check_use(&asker, operation.name)?;
        let answer = (operation.handle)(Call { identity: self.clone(), params, asker, session_token }).await?;
        Ok((operation.name, answer))
    }
}

impl Call {
    /// A member that has to be there.
    fn required(&mut self, name: &str) -> Result<String, IdentityError> {
        self.params.take(name).ok_or_else(|| validate::missing(&lower_first(name)))
    }

    /// The name of a user or role.
    fn entity_name(&mut self, kind: EntityKind) -> Result<String, IdentityError> {
        let (member, max) = member_of(kind);
        let name = self.required(member)?;
        validate::name(&name, &lower_first(member), max)?;
        Ok(name)
    }

    fn policy_name(&mut self) -> Result<String, IdentityError> {
        let name = self.required("PolicyName")?;
        validate::name(&name, "policyName", validate::POLICY_NAME)?;
        Ok(name)
    }

    fn policy_arn(&mut self) -> Result<String, IdentityError> {
        let arn = self.required("PolicyArn")?;
        validate::length(&arn, "policyArn", 20, 2_048)?;
        if !arn.starts_with("arn:") {
            return Err(IdentityError::InvalidInput(format!("ARN {arn} is not valid.")));
        }
        Ok(arn)
    }

    fn document(&mut self, member: &str) -> Result<String, IdentityError> {
        let document = self.required(member)?;
        validate::document(&document, &lower_first(member))?;
        Ok(document)
    }

    /// Tags that are set, checked; none of them twice.
    fn tags(&mut self) -> Result<BTreeMap<String, String>, IdentityError> {
        let mut tags = BTreeMap::<String, String>::new();
        let given = self.params.take_members("Tags")?.unwrap_or_default();
        if given.len() > validate::TAGS_MAX {
            let constraint = format!("Member must have length less than or equal to {}", validate::TAGS_MAX);
            return Err(validate::breach("[...]", "tags", &constraint));
        }
        for mut member in given {
            let key = member.take("Key").ok_or_else(|| validate::missing("tags.member.key"))?;
            let value = member.take("Value").ok_or_else(|| validate::missing("tags.member.value"))?;
            member.finish("Tags")?;
            validate::tag_key(&key)?;
            validate::tag_value(&value)?;
            if tags.keys().any(|there| there.to_lowercase() == key.to_lowercase()) {
                return Err(IdentityError::InvalidInput(
                    "Duplicate tag keys found. Please note that Tag keys are case insensitive.".into(),
                ));
            }
            tags.insert(key, value);
        }
        Ok(tags)
    }

    /// Which page of a listing is wanted.
    fn paging(&mut self) -> Result<Paging, IdentityError> {
        let max = match self.params.take("MaxItems") {
            Some(max) => validate::number(&max, "maxItems", 1, 1_000)? as usize,
            None => PAGE_ITEMS,
        };
        let invalid = || IdentityError::Validation("Invalid Marker.".into());
        let after = match self.params.take("Marker") {
            Some(marker) => {
                let bytes = URL_SAFE_NO_PAD.decode(&marker).map_err(|_| invalid())?;
                Some(String::from_utf8(bytes).map_err(|_| invalid())?)
            }
            None => None,
        };
        Ok(Paging { after, max })
    }

    fn path_prefix(&mut self) -> Result<String, IdentityError> {
        let prefix = self.params.take("PathPrefix").unwrap_or_else(|| "/".into());
        validate::path_prefix(&prefix)?;
        Ok(prefix)
    }

    /// Ends the reading of members: there must be no other.
    fn read(&self) -> Result<(), IdentityError> {
        self.params.finish(self.asker.action.split_once(':').map_or(self.asker.action, |(_, name)| name))
    }
}

/// The member that names a user or role, and how long that may be.
fn member_of(kind: EntityKind) -> (&'static str, usize) {
    match kind {
        EntityKind::User => ("UserName", validate::POLICY_NAME),
        EntityKind::Role => ("RoleName", validate::ROLE_NAME),
    }
}

/// `RoleName` as AWS's errors call it: `roleName`.
fn lower_first(name: &str) -> String {
    let mut chars = name.chars();
    chars.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(chars).collect()
}

/// Items of a page, unless it is said how many. AWS's value.
const PAGE_ITEMS: usize = 100;

/// Which page of a listing.
struct Paging {
    /// The key of the last item of the page before.
    after: Option<String>,
    max: usize,
}

/// A page, and the marker of the next one.
struct Page<T> {
    items: Vec<T>,
    marker: Option<String>,
}

impl Paging {
    /// Cuts a page out of items that are in the order of their keys.
    fn cut<T>(&self, items: impl Iterator<Item = T>, key: impl Fn(&T) -> String) -> Page<T> {
        let mut items = items.filter(|item| self.after.as_ref().is_none_or(|after| key(item) > *after));
        let page: Vec<T> = items.by_ref().take(self.max).collect();
        let more = items.next().is_some();
        let marker = page.last().filter(|_| more).map(|last| URL_SAFE_NO_PAD.encode(key(last)));
        Page { items: page, marker }
    }
}

/// How an answer says whether there is more.
fn write_marker(xml: &mut Writer, marker: Option<&str>) {
    xml.text("IsTruncated", if marker.is_some() { "true" } else { "false" });
    if let Some(marker) = marker {
        xml.text("Marker", marker);
    }
}

/// Condition keys of an entity or policy that an operation is about: its tags.
fn tags_context(tags: &BTreeMap<String, String>) -> Context {
    let mut context = Context::new();
    for (key, value) in tags {
        context.set(&format!("aws:ResourceTag/{key}"), value);
        context.set(&format!("iam:ResourceTag/{key}"), value);
    }
    context
}

/// Condition keys of tags that a request sets.
fn request_tags(context: Context, tags: &BTreeMap<String, String>) -> Context {
    if tags.is_empty() {
        return context;
    }
    let mut context = context.with_all("aws:TagKeys", tags.keys().cloned());
    for (key, value) in tags {
        context.set(&format!("aws:RequestTag/{key}"), value);
    }
    context
}

/// Condition keys of an entity: its tags, and what bounds it.
fn entity_context(entity: &Entity) -> Context {
    // Also that it has none is known.
    tags_context(&entity.tags).with_all("iam:PermissionsBoundary", entity.boundary.iter().cloned())
}

/// The ARN of an entity that may not be there: then the one it would have at the root.
fn arn_of(identity: &Identity, kind: EntityKind, name: &str, found: Option<&Entity>) -> String {
    match found {
        Some(entity) => entity.arn(identity.settings()),
        None => identity.settings().arn(kind.word(), "/", name),
    }
}

fn no_entity(kind: EntityKind, name: &str) -> IdentityError {
    IdentityError::NoSuchEntity(format!("The {} with name {name} cannot be found.", kind.word()))
}

fn no_policy(arn: &str) -> IdentityError {
    IdentityError::NoSuchEntity(format!("Policy {arn} was not found."))
}

impl Call {
    /// Looks at an entity, if the caller may.
    fn look(&self, kind: EntityKind, name: &str) -> Result<(Allowed, std::sync::Arc<Entity>), IdentityError> {
        let snapshot = self.identity.snapshot();
        let found = snapshot.state.entity(kind, name);
        let context = found.map(|entity| entity_context(entity)).unwrap_or_default();
        let allowed = self.asker.may(arn_of(&self.identity, kind, name, found.map(|e| &**e)), context)?;
        Ok((allowed, found.cloned().ok_or_else(|| no_entity(kind, name))?))
    }

    /// Changes an entity, if the caller may. `context` has further condition keys of the request.
    async fn change_entity<T: Send + 'static>(
        &self,
        kind: EntityKind,
        name: String,
        context: Context,
        change: impl FnOnce(&mut Entity, &crate::Snapshot) -> Result<T, IdentityError> + Send + 'static,
    ) -> Result<(Allowed, T), IdentityError> {
        let (identity, asker) = (self.identity.clone(), self.asker.clone());
        self.identity
            .change(move |state, snapshot| {
                let found = state.entity(kind, &name).cloned();
                let known = found.as_ref().map(|entity| entity_context(entity)).unwrap_or_default();
                let arn = arn_of(&identity, kind, &name, found.as_deref());
                let allowed = asker.may(arn, context.or(&known))?;
                let before = found.ok_or_else(|| no_entity(kind, &name))?;
                let mut entity = (*before).clone();
                let answer = change(&mut entity, snapshot)?;
                if entity != *before {
                    state.put_entity(entity);
                }
                Ok((allowed, answer))
            })
            .await
    }
}
