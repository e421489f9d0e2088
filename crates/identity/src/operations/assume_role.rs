//! Begins a session of a role. Source: STS API reference, AssumeRole; IAM user guide, "Passing session tags in AWS STS" and
//! "Methods to assume a role".

use std::collections::{BTreeMap, BTreeSet};

use longshore_core::policy::{Context, Document, Kind, Policy, PrincipalKind};
use longshore_wire::Asked;
use longshore_wire::caller::Denied;

use super::{Answer, Call, request_tags, session_token};
use crate::entity::{Entity, RolePart};
use crate::error::IdentityError;
use crate::session::{self, Of, Terms};
use crate::{SESSION_SECONDS, now, role_context, trust, validate};

/// How long a session may last that a session begins: an hour. AWS's value for role chaining.
const CHAINED_SECONDS_MAX: u32 = 3_600;

/// What the request says of the session.
struct Wanted {
    role_arn: String,
    session_name: String,
    seconds: Option<u32>,
    terms: Terms,
    external_id: Option<String>,
}

fn wanted(call: &mut Call) -> Result<Wanted, IdentityError> {
    let role_arn = call.required("RoleArn")?;
    validate::length(&role_arn, "roleArn", 20, 2_048)?;
    let session_name = call.required("RoleSessionName")?;
    session_word(&session_name, "roleSessionName", 2, 64, "+=,.@-_")?;
    let seconds = call.params.take("DurationSeconds");
    let seconds = seconds.map(|s| validate::number(&s, "durationSeconds", 900, 43_200)).transpose()?;
    let policy = call.params.take("Policy");
    if let Some(policy) = &policy {
        validate::length(policy, "policy", 1, validate::SESSION_POLICY_MAX)?;
        validate::document(policy, "policy")?;
        Entity::session_policy(policy)?;
    }
    let mut policy_arns = Vec::new();
    for mut member in call.params.take_members("PolicyArns")?.unwrap_or_default() {
        let arn = member.take("arn").ok_or_else(|| validate::missing("policyArns.member.arn"))?;
        member.finish("PolicyArns")?;
        validate::length(&arn, "policyArns.member.arn", 20, 2_048)?;
        policy_arns.push(arn);
    }
    if policy_arns.len() > validate::SESSION_POLICY_ARNS_MAX {
        let constraint = format!("Member must have length less than or equal to {}", validate::SESSION_POLICY_ARNS_MAX);
        return Err(validate::breach("[...]", "policyArns", &constraint));
    }
    let tags = call.tags()?;
    let transitive: BTreeSet<String> =
        call.params.take_list("TransitiveTagKeys")?.unwrap_or_default().into_iter().collect();
    if let Some(key) = transitive.iter().find(|key| !tags.contains_key(*key)) {
        return Err(IdentityError::Validation(format!(
            "The transitive tag key {key} is the key of no tag that is passed with the request."
        )));
    }
    let external_id = call.params.take("ExternalId");
    if let Some(id) = &external_id {
        session_word(id, "externalId", 2, 1_224, "+=,.@:/-_")?;
    }
    let source_identity = call.params.take("SourceIdentity");
    if let Some(source) = &source_identity {
        session_word(source, "sourceIdentity", 2, 64, "+=,.@-_")?;
        if source.starts_with("aws:") {
            return Err(IdentityError::Validation("A source identity must not begin with aws:.".into()));
        }
    }
    call.refuse_mfa()?;
    call.read()?;
    let terms = Terms { policy, policy_arns, tags, transitive, source_identity };
    Ok(Wanted { role_arn, session_name, seconds, terms, external_id })
}

/// A word of letters, digits and some signs. Nothing else may stand in the ARN of a session.
fn session_word(value: &str, member: &str, min: usize, max: usize, signs: &str) -> Result<(), IdentityError> {
    validate::length(value, member, min, max)?;
    if value.chars().all(|c| c.is_ascii_alphanumeric() || signs.contains(c)) {
        return Ok(());
    }
    let constraint = format!(r"Member must satisfy regular expression pattern: [\w{signs}]*");
    Err(validate::breach(value, member, &constraint))
}

pub(super) async fn assume_role(mut call: Call) -> Result<Answer, IdentityError> {
    let mut wanted = wanted(&mut call)?;
    let caller = call.asker.caller.clone();
    let chained = match &caller.principal().kind {
        PrincipalKind::Root => {
            return Err(IdentityError::NotAllowed("Roles may not be assumed by root accounts.".into()));
        }
        PrincipalKind::AssumedRole { .. } => true,
        _ => false,
    };
    let inherited = if chained { terms_of_asker(&call)? } else { Terms::default() };
    let own_tags = wanted.terms.tags.clone();
    inherit(&mut wanted.terms, inherited)?;

    let snapshot = call.identity.snapshot();
    let role = call.identity.role_entity(&snapshot, &wanted.role_arn);
    let Some((role, part)) = role.and_then(|role| Some((role, role.role.as_ref()?))) else {
        // As AWS does it: that there is no such role is told to nobody who might not use it.
        return Err(unknown_role(&call, &wanted.role_arn));
    };

    let mut context = request_tags(role_context(role), &wanted.terms.tags);
    context.set("sts:RoleSessionName", &wanted.session_name);
    if let Some(id) = &wanted.external_id {
        context.set("sts:ExternalId", id);
    }
    if let Some(source) = &wanted.terms.source_identity {
        context.set("sts:SourceIdentity", source);
    }
    if !wanted.terms.transitive.is_empty() {
        context = context.with_all("sts:TransitiveTagKeys", wanted.terms.transitive.iter().cloned());
    }
    let trust = trust_for(&call, role, part)?;
    let asked = |action: &'static str| {
        Asked::new(action, wanted.role_arn.as_str()).with_context(context.clone()).with_trust(trust.clone())
    };
    let allowed = call
        .asker
        .ask(&asked("sts:AssumeRole"))
        .map_err(|error| not_by_the_caller(&call, &wanted.role_arn, &context).unwrap_or(error))?;
    if !own_tags.is_empty() {
        call.asker.ask(&asked("sts:TagSession"))?;
    }
    if wanted.terms.source_identity.is_some() {
        call.asker.ask(&asked("sts:SetSourceIdentity"))?;
    }

    if let Some(arn) = wanted.terms.policy_arns.iter().find(|arn| snapshot.managed(arn).is_none()) {
        return Err(IdentityError::InvalidInput(format!("The managed session policy {arn} does not exist.")));
    }
    let seconds = wanted.seconds.unwrap_or(SESSION_SECONDS);
    let max = part.session_seconds_max;
    if chained && seconds > CHAINED_SECONDS_MAX {
        let message =
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining";
        return Err(IdentityError::Validation(message.into()));
    }
    if seconds > max {
        let message = "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.";
        return Err(IdentityError::Validation(message.into()));
    }

    let packed = wanted.terms.has_policies() || !wanted.terms.tags.is_empty();
    let source = wanted.terms.source_identity.clone();
    let of = Of::Role(role.id.clone(), wanted.session_name.clone());
    let made = session::begin(call.identity.seal(), of, wanted.terms, now(), seconds)?;
    let arn = call.identity.settings().session_arn(&role.name, &wanted.session_name);
    let id = format!("{}:{}", role.id, wanted.session_name);
    Ok(Answer::new(allowed, move |xml| {
        xml.open("AssumedRoleUser");
        xml.text("AssumedRoleId", &id);
        xml.text("Arn", &arn);
        xml.close();
        session_token::write(xml, &made);
        if packed {
            xml.text("PackedPolicySize", &session::packed_percent(made.session_token.expose()).to_string());
        }
        if let Some(source) = source {
            xml.text("SourceIdentity", &source);
        }
    }))
}

/// What the session that asks was begun with. It was verified with its token, so that there is one.
fn terms_of_asker(call: &Call) -> Result<Terms, IdentityError> {
    let token = call.session_token.as_deref();
    let opened = token.and_then(|token| session::open(call.identity.seal(), call.asker.caller.access_key_id(), token));
    let missing = || IdentityError::Fault("a role's session asks, and its token does not open".into());
    opened.map(|claims| claims.terms).ok_or_else(missing)
}

/// What goes on from the session that asks: transitive tags, which no request may set anew, and whose it was at the first.
fn inherit(terms: &mut Terms, from: Terms) -> Result<(), IdentityError> {
    let Terms { tags, transitive, source_identity, .. } = from;
    let passed: BTreeMap<String, String> = tags.into_iter().filter(|(key, _)| transitive.contains(key)).collect();
    for (key, value) in passed {
        if terms.tags.keys().any(|given| given.to_lowercase() == key.to_lowercase()) {
            return Err(IdentityError::InvalidInput(
                "One of the specified transitive tag keys can't be set because it conflicts with a transitive tag key from \
                 the calling session."
                    .into(),
            ));
        }
        terms.transitive.insert(key.clone());
        terms.tags.insert(key, value);
    }
    match (&terms.source_identity, source_identity) {
        (Some(given), Some(set)) if *given != set => {
            Err(IdentityError::NotAllowed("The source identity of a session cannot be changed.".into()))
        }
        (None, Some(set)) => {
            terms.source_identity = Some(set);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The role's trust policy as it means whoever asks.
fn trust_for(call: &Call, role: &Entity, part: &RolePart) -> Result<Policy, IdentityError> {
    let principal = call.asker.caller.principal();
    let arn = match &principal.kind {
        PrincipalKind::AssumedRole { role_arn, .. } => role_arn,
        _ => &principal.arn,
    };
    let id = principal.user_id.split(':').next().unwrap_or_default();
    match part.named.get(arn).filter(|then| *then != id) {
        Some(then) => trust::without(call.identity.settings(), &role.name, &part.trust, arn, then),
        None => Ok(part.trust.clone()),
    }
}

fn unknown_role(call: &Call, role_arn: &str) -> IdentityError {
    use longshore_core::policy::{Because, Decision, Layer};
    if let Some(error) = not_by_the_caller(call, role_arn, &Context::new()) {
        return error;
    }
    let decision = Decision { allowed: false, because: Because::NoStatement(Layer::Trust) };
    let principal = call.asker.caller.principal().arn.clone();
    Box::new(Denied { principal, action: call.asker.action, resource: role_arn.to_owned(), decision }).into()
}

/// What the caller's own policies say against it, whoever the role trusts. Told first, so that a role that there is not sounds like one
/// that the caller may not assume.
fn not_by_the_caller(call: &Call, role_arn: &str, context: &Context) -> Option<IdentityError> {
    let account = call.asker.caller.account();
    let trust = serde_json::json!({"Version": "2012-10-17", "Statement": {
        "Effect": "Allow", "Principal": {"AWS": account}, "Action": call.asker.action,
    }});
    let document = Document::parse(&trust.to_string(), Kind::Trust).ok()?;
    let trust = Policy { name: "the account".into(), document };
    let asked = Asked::new(call.asker.action, role_arn).with_context(context.clone()).with_trust(trust);
    call.asker.caller.would(&asked).err().map(Into::into)
}
