//! What policies would decide, and which statement. Source: IAM API reference, SimulatePrincipalPolicy, SimulateCustomPolicy,
//! GetContextKeysForPrincipalPolicy, GetContextKeysForCustomPolicy.

use std::collections::{BTreeMap, BTreeSet};

use longshore_core::policy::{
    Because, Context, Decision, Document, Effect, Explanation, Kind, Layer, Policy, Principal, PrincipalKind, Question,
    ResourcePolicy, Rights, action_fault, decide, explain,
};
use longshore_wire::caller;
use longshore_wire::xml::Writer;

use super::{Allowed, Answer, Call, Page, Paging, entity_context, write_marker};
use crate::entity::{Entity, EntityKind};
use crate::error::IdentityError;
use crate::query::{self, texts};
use crate::session::Terms;
use crate::validate;
use crate::{Identity, Settings};

/// Actions times resources of one request. What a person asks is far below; it bounds what one request costs.
const QUESTIONS_MAX: usize = 10_000;
/// Characters of policies times questions of one page: a fraction of a second. A page may have fewer results than were asked for,
/// on AWS as well; a hundred questions to policies of 10,240 characters are an eighth of it.
pub(super) const PAGE_CHARACTERS_MAX: usize = 8 * 1_024 * 1_024;
/// The name of the session in which a role is simulated.
pub(super) const SESSION_NAME: &str = "simulation";

/// What is simulated beside the policies of somebody.
pub(super) struct Scene {
    pub actions: Vec<String>,
    pub resources: Vec<String>,
    pub resource_policy: Option<Policy>,
    pub resource_account: String,
    pub context: Context,
    paging: Paging,
}

/// Documents of a list member, as policies called after their place in it.
fn documents(call: &mut Call, member: &str) -> Result<Option<Vec<Policy>>, IdentityError> {
    let Some(given) = call.params.take_list(member)? else { return Ok(None) };
    let read = given.iter().enumerate().map(|(at, text)| {
        validate::document(text, member)?;
        Ok(Policy { name: format!("{member}.{}", at + 1).into(), document: Document::parse(text, Kind::Identity)? })
    });
    read.collect::<Result<_, _>>().map(Some)
}

fn boundary(call: &mut Call) -> Result<Option<Policy>, IdentityError> {
    let mut given = documents(call, "PermissionsBoundaryPolicyInputList")?.unwrap_or_default();
    if given.len() > 1 {
        let message = "PermissionsBoundaryPolicyInputList takes one policy: an entity has one boundary.";
        return Err(IdentityError::InvalidInput(message.into()));
    }
    Ok(given.pop())
}

pub(super) fn scene(call: &mut Call) -> Result<Scene, IdentityError> {
    let actions = call.params.take_list("ActionNames")?.ok_or_else(|| validate::missing("actionNames"))?;
    for action in &actions {
        validate::length(action, "actionNames.member", 3, 128)?;
        let named = action.split_once(':').is_some_and(|(service, name)| !service.is_empty() && !name.is_empty());
        if !named || action.contains(['*', '?']) {
            return Err(IdentityError::InvalidInput(format!(
                "{action} is no action: it has to be as in s3:GetObject."
            )));
        }
        if let Some(fault) = action_fault(action) {
            return Err(IdentityError::InvalidInput(format!("{fault}.").replace("?.", "?")));
        }
    }
    let resources = call.params.take_list("ResourceArns")?.filter(|given| !given.is_empty());
    let resources = resources.unwrap_or_else(|| vec!["*".into()]);
    for resource in &resources {
        validate::length(resource, "resourceArns.member", 1, 2_048)?;
        if resource != "*" && !resource.starts_with("arn:") {
            return Err(IdentityError::InvalidInput(format!("{resource} is no ARN.")));
        }
    }
    if actions.len().saturating_mul(resources.len()) > QUESTIONS_MAX {
        let message = format!("Actions times resources are more than {QUESTIONS_MAX}.");
        return Err(IdentityError::LimitExceeded(message));
    }
    let resource_policy = match call.params.take("ResourcePolicy") {
        None => None,
        Some(text) => {
            validate::document(&text, "resourcePolicy")?;
            Some(Policy { name: "ResourcePolicy".into(), document: Document::parse(&text, Kind::Resource)? })
        }
    };
    let resource_account = match call.params.take("ResourceOwner") {
        None => call.identity.settings().account.clone(),
        Some(owner) => {
            let account = owner.split(':').nth(4).unwrap_or(&owner).to_owned();
            if account.len() != 12 || !account.bytes().all(|b| b.is_ascii_digit()) {
                return Err(IdentityError::InvalidInput(format!("{owner} names no account.")));
            }
            account
        }
    };
    if call.params.take("ResourceHandlingOption").is_some() {
        let message = "ResourceHandlingOption is of EC2, which is not here.";
        return Err(IdentityError::NotImplemented(message.into()));
    }
    let mut context = Context::new();
    for mut entry in call.params.take_members("ContextEntries")?.unwrap_or_default() {
        let name =
            entry.take("ContextKeyName").ok_or_else(|| validate::missing("contextEntries.member.contextKeyName"))?;
        validate::length(&name, "contextEntries.member.contextKeyName", 5, 256)?;
        let values = entry.take_list("ContextKeyValues")?.unwrap_or_default();
        if let Some(kind) = entry.take("ContextKeyType") {
            validate::one_of(&kind, "contextEntries.member.contextKeyType", &CONTEXT_TYPES)?;
            if values.len() != 1 && !kind.ends_with("List") {
                return Err(IdentityError::InvalidInput(format!(
                    "The context key {name} of type {kind} takes one value."
                )));
            }
        }
        entry.finish("ContextEntries")?;
        if context.get(&name).is_some() {
            return Err(IdentityError::InvalidInput(format!("The context key {name} was given twice.")));
        }
        context = context.with_all(&name, values);
    }
    let context = context.made_up().or(&known_now(&call.identity));
    Ok(Scene { actions, resources, resource_policy, resource_account, context, paging: call.paging()? })
}

/// Condition keys of a request that would be made now.
fn known_now(identity: &Identity) -> Context {
    let now = crate::now();
    Context::new()
        .with("aws:CurrentTime", query::date(now))
        .with("aws:EpochTime", now.to_string())
        .with("aws:RequestedRegion", &identity.settings().region)
}

const CONTEXT_TYPES: [&str; 12] = [
    "string",
    "stringList",
    "numeric",
    "numericList",
    "boolean",
    "booleanList",
    "ip",
    "ipList",
    "binary",
    "binaryList",
    "date",
    "dateList",
];

/// The user whom a simulation has asking.
fn caller_of(settings: &Settings, arn: &str) -> Result<Principal, IdentityError> {
    let user = arn.split_once(":user/").filter(|(start, name)| start.starts_with("arn:") && !name.is_empty());
    let account = arn.split(':').nth(4).unwrap_or_default();
    let Some((_, path)) = user else {
        return Err(IdentityError::InvalidInput(format!("CallerArn has to be the ARN of a user, and {arn} is none.")));
    };
    let name = path.rsplit('/').next().unwrap_or(path).to_owned();
    let account = if account.is_empty() { settings.account.clone() } else { account.to_owned() };
    let kind = PrincipalKind::User { name };
    Ok(Principal { account, arn: arn.to_owned(), user_id: String::new(), kind, tags: BTreeMap::new() })
}

/// One answer of a simulation.
struct Evaluated {
    explanation: Explanation,
    /// What the boundary alone says, where there is one.
    within_boundary: Option<bool>,
}

/// Policies, whose they are, and what is asked.
pub(super) struct Simulation {
    pub principal: Principal,
    pub rights: Rights,
    pub scene: Scene,
}

impl Simulation {
    fn evaluate(&self, action: &str, resource: &str) -> Evaluated {
        let question = Question {
            principal: &self.principal,
            rights: &self.rights,
            action,
            resource,
            resource_account: &self.scene.resource_account,
            resource_policy: match &self.scene.resource_policy {
                Some(policy) => ResourcePolicy::Sufficient(policy),
                None => ResourcePolicy::None,
            },
            context: &self.scene.context,
        };
        let within_boundary = self.rights.boundary.as_ref().map(|boundary| {
            let alone = Rights { identity: vec![boundary.clone()], boundary: None, session: None };
            decide(Question { rights: &alone, resource_policy: ResourcePolicy::None, ..question }).allowed
        });
        Evaluated { explanation: explain(question), within_boundary }
    }

    /// What is asked, in the order of the answer.
    pub fn questions(&self) -> impl Iterator<Item = (&String, &String)> {
        let Scene { actions, resources, .. } = &self.scene;
        actions.iter().flat_map(|action| resources.iter().map(move |resource| (action, resource)))
    }

    /// Characters of all policies that each question is put to.
    pub fn characters(&self) -> usize {
        let Rights { identity, boundary, session } = &self.rights;
        let policies =
            identity.iter().chain(boundary).chain(session.iter().flatten()).chain(&self.scene.resource_policy);
        policies.map(|policy| policy.document.text().len()).sum()
    }

    fn page(&self) -> Page<Evaluated> {
        let paging = &self.scene.paging;
        let questions = self.questions();
        let max = paging.max.min((PAGE_CHARACTERS_MAX / self.characters().max(1)).max(1));
        // Only those of the page are evaluated.
        let page = Paging { after: paging.after.clone(), max }.cut(questions.enumerate(), |(at, _)| format!("{at:06}"));
        let items = page.items.into_iter().map(|(_, (action, resource))| self.evaluate(action, resource));
        Page { items: items.collect(), marker: page.marker }
    }

    fn answer(self, allowed: Allowed) -> Answer {
        let page = self.page();
        Answer::new(allowed, move |xml| {
            query::list(xml, "EvaluationResults", &page.items, write);
            write_marker(xml, page.marker.as_deref());
        })
    }
}

fn write(xml: &mut Writer, evaluated: &Evaluated) {
    let Explanation { action, resource, decision, matched, missing_keys, .. } = &evaluated.explanation;
    xml.text("EvalActionName", action);
    xml.text("EvalResourceName", resource);
    let word = decision_word(decision);
    let effect = if word == "explicitDeny" { Effect::Deny } else { Effect::Allow };
    xml.text("EvalDecision", word);
    // Those that decided. What allows and is not enough decided nothing.
    let decided = matched.iter().filter(|found| found.effect == effect && word != "implicitDeny");
    query::list(xml, "MatchedStatements", decided, |xml, found| {
        xml.text("SourcePolicyId", &source_id(&found.policy));
        xml.text("SourcePolicyType", if found.layer == Layer::Resource { "Resource Policy" } else { "IAM Policy" });
        for (name, at) in [("StartPosition", found.from), ("EndPosition", found.to)] {
            xml.open(name);
            xml.text("Line", &at.line.to_string());
            xml.text("Column", &at.column.to_string());
            xml.close();
        }
    });
    texts(xml, "MissingContextValues", missing_keys.iter().map(String::as_str));
    if let Some(within) = evaluated.within_boundary {
        xml.open("PermissionsBoundaryDecisionDetail");
        xml.text("AllowedByPermissionsBoundary", if within { "true" } else { "false" });
        xml.close();
    }
}

/// A decision in the simulator's words.
pub(super) fn decision_word(decision: &Decision) -> &'static str {
    match (decision.allowed, &decision.because) {
        (true, _) => "allowed",
        (false, Because::Statement { .. }) => "explicitDeny",
        (false, _) => "implicitDeny",
    }
}

/// A policy as AWS's simulator calls it: a managed one by its name, an inline one by whose it is.
fn source_id(name: &str) -> String {
    if let Some((policy, whose)) = name.strip_prefix("inline policy ").and_then(|rest| rest.split_once(" of ")) {
        return format!("{}_{policy}", whose.replacen(' ', "_", 1));
    }
    let managed = name.starts_with("arn:").then(|| name.rsplit('/').next()).flatten();
    managed.unwrap_or(name).to_owned()
}

/// The condition keys that policies look at, each once, whatever its case.
fn keys_of<'p>(policies: impl Iterator<Item = &'p Policy>) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let keys = policies.flat_map(|policy| policy.document.context_keys());
    keys.filter(|key| seen.insert(key.to_ascii_lowercase())).map(str::to_owned).collect()
}

/// The user or role whose policies are simulated.
pub(super) struct Source {
    pub arn: String,
    pub kind: EntityKind,
    pub name: String,
    /// Of a role: the session in which it asks.
    pub session_name: String,
}

impl Call {
    pub(super) fn policy_source(&mut self) -> Result<Source, IdentityError> {
        let arn = self.required("PolicySourceArn")?;
        validate::length(&arn, "policySourceArn", 20, 2_048)?;
        if arn.contains(":group/") {
            return Err(IdentityError::NotImplemented("There are no groups here.".into()));
        }
        let of = |kind: EntityKind| arn.split_once(&format!(":{}/", kind.word())).map(|(_, path)| (kind, path));
        let found = of(EntityKind::User).or_else(|| of(EntityKind::Role));
        let Some((kind, path)) = found.filter(|_| arn.starts_with("arn:")) else {
            return Err(IdentityError::InvalidInput(format!("{arn} is the ARN of no user and of no role.")));
        };
        let name = path.rsplit('/').next().unwrap_or(path).to_owned();
        Ok(Source { arn, kind, name, session_name: SESSION_NAME.into() })
    }

    /// The policies of a source, if the caller may look at them, and who it is when it asks.
    fn look_at_source(&self, source: &Source) -> Result<(Allowed, caller::Subject), IdentityError> {
        let snapshot = self.identity.snapshot();
        let settings = self.identity.settings();
        let found = snapshot.state.entity(source.kind, &source.name).filter(|found| found.arn(settings) == source.arn);
        let context = found.map(|entity| entity_context(entity)).unwrap_or_default();
        let allowed = self.asker.may(source.arn.as_str(), context)?;
        let entity: &Entity = found.ok_or_else(|| super::no_entity(source.kind, &source.name))?;
        let identity = match source.kind {
            EntityKind::User => self.identity.subject_of_user(&snapshot, entity),
            EntityKind::Role => {
                self.identity.subject_of_session(&snapshot, entity, &source.session_name, &Terms::default())
            }
        };
        Ok((allowed, identity))
    }
}

/// What a request asks of somebody's policies, if the caller may look at them.
pub(super) fn of_principal(call: &mut Call, source: &Source) -> Result<(Allowed, Simulation), IdentityError> {
    let (added, boundary) = (documents(call, "PolicyInputList")?, boundary(call)?);
    let mut scene = scene(call)?;
    let caller_arn = call.params.take("CallerArn");
    call.read()?;
    if source.kind == EntityKind::Role {
        // As if the session began now, unless it is said when: otherwise it would be one that may have been revoked.
        scene.context = scene.context.or(&Context::new().with("aws:TokenIssueTime", query::date(crate::now())));
    }
    if scene.resource_policy.is_some() && source.kind != EntityKind::User && caller_arn.is_none() {
        let message = "CallerArn has to be given with a ResourcePolicy where PolicySourceArn is no user.";
        return Err(IdentityError::InvalidInput(message.into()));
    }
    let (allowed, identity) = call.look_at_source(source)?;
    let principal = match caller_arn {
        Some(arn) => caller_of(call.identity.settings(), &arn)?,
        None => (*identity.principal).clone(),
    };
    let mut rights = (*identity.rights).clone();
    rights.identity.extend(added.unwrap_or_default());
    rights.boundary = boundary.or(rights.boundary);
    Ok((allowed, Simulation { principal, rights, scene }))
}

pub(super) async fn simulate_principal_policy(mut call: Call) -> Result<Answer, IdentityError> {
    let source = call.policy_source()?;
    let (allowed, simulation) = of_principal(&mut call, &source)?;
    Ok(simulation.answer(allowed))
}

pub(super) async fn simulate_custom_policy(mut call: Call) -> Result<Answer, IdentityError> {
    let given = documents(&mut call, "PolicyInputList")?.ok_or_else(|| validate::missing("policyInputList"))?;
    let boundary = boundary(&mut call)?;
    let scene = scene(&mut call)?;
    let caller_arn = call.params.take("CallerArn");
    call.read()?;
    if scene.resource_policy.is_some() && caller_arn.is_none() {
        return Err(IdentityError::InvalidInput("CallerArn has to be given with a ResourcePolicy.".into()));
    }
    let settings = call.identity.settings();
    // Somebody has to ask, of whom nothing is known, the name neither.
    let principal = match caller_arn {
        Some(arn) => caller_of(settings, &arn)?,
        None => {
            let nobody = caller_of(settings, &settings.arn("user", "/", SESSION_NAME))?;
            Principal { kind: PrincipalKind::User { name: String::new() }, ..nobody }
        }
    };
    let allowed = call.asker.may("*", Context::new())?;
    let rights = Rights { identity: given, boundary, session: None };
    Ok(Simulation { principal, rights, scene }.answer(allowed))
}

pub(super) async fn get_context_keys_for_principal_policy(mut call: Call) -> Result<Answer, IdentityError> {
    let source = call.policy_source()?;
    let added = documents(&mut call, "PolicyInputList")?.unwrap_or_default();
    call.read()?;
    let (allowed, identity) = call.look_at_source(&source)?;
    let keys = keys_of(identity.rights.identity.iter().chain(&identity.rights.boundary).chain(&added));
    Ok(Answer::new(allowed, move |xml| texts(xml, "ContextKeyNames", keys.iter().map(String::as_str))))
}

pub(super) async fn get_context_keys_for_custom_policy(mut call: Call) -> Result<Answer, IdentityError> {
    let given = documents(&mut call, "PolicyInputList")?.ok_or_else(|| validate::missing("policyInputList"))?;
    call.read()?;
    let allowed = call.asker.may("*", Context::new())?;
    let keys = keys_of(given.iter());
    Ok(Answer::new(allowed, move |xml| texts(xml, "ContextKeyNames", keys.iter().map(String::as_str))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_called_as_awss_simulator_calls_it() {
        for (name, id) in [
            ("arn:aws:iam::aws:policy/service-role/AWSLambdaRole", "AWSLambdaRole"),
            ("inline policy p of role r", "role_r_p"),
            ("PolicyInputList.1", "PolicyInputList.1"),
        ] {
            assert_eq!(source_id(name), id);
        }
    }
}
