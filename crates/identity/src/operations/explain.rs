//! Our own API beside IAM's: may somebody do something, and why. The members of SimulatePrincipalPolicy go in; what that has no place
//! for comes out, in sentences. The policy of a function and the trust policy of a role count as they do when it is done.

use http::{Method, StatusCode};
use longshore_core::policy::{
    Because, Context, Explanation, Policy, Principal, PrincipalKind, Question, ResourcePolicy, Rights, explain,
};
use longshore_wire::caller::layer_name;
use longshore_wire::{ApiError, Asked, Request, Response};
use serde_json::{Map, Value, json};

use super::assume_role::trust_for;
use super::simulate::{self, PAGE_CHARACTERS_MAX, Simulation, Source, decision_word};
use super::{Allowed, Asker, Call, arn_of, no_entity, session_token};
use crate::entity::EntityKind;
use crate::error::IdentityError;
use crate::query::Params;
use crate::{Identity, role_context, validate};

/// Every operation of this API, and its path. Each is a POST.
pub const OWN_OPERATIONS: &[(&str, &str)] = &[("Explain", "/_longshore/v1/iam/explain")];

/// What a policy has to allow: the same is told by the operation of this name.
const ACTION: &str = "iam:SimulatePrincipalPolicy";
/// Actions times resources of one request, which is one page: each is answered in up to a handful of sentences of 6,000 characters.
const QUESTIONS_MAX: usize = 100;
/// What a role's trust policy decides.
const OF_TRUST: [&str; 3] = ["sts:assumerole", "sts:tagsession", "sts:setsourceidentity"];
/// Finds what invoking a function asks, with the function's own policy, by its ARN. `None`: it is the ARN of no function.
pub type AsksInvoke<'a> = dyn Fn(&str) -> Option<Asked> + Send + Sync + 'a;

impl Identity {
    /// What the paths of our own API on identities begin with.
    pub const OWN_PREFIX: &str = "/_longshore/v1/iam/";

    /// Answers one request of our own API below [`Identity::OWN_PREFIX`], in JSON, errors included.
    pub async fn serve_own(&self, request: Request, asks_invoke: &AsksInvoke<'_>) -> Response {
        let id = request.request_id.clone();
        let path = request.path.strip_suffix('/').unwrap_or(&request.path);
        let told = if !OWN_OPERATIONS.iter().any(|(_, known)| *known == path) {
            ApiError::new(StatusCode::NOT_FOUND, "NoSuchResource", "There is nothing at this path.")
        } else if request.method != Method::POST {
            let message = "The specified method is not allowed against this resource.";
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
        } else {
            match self.explain(request, asks_invoke) {
                Ok(answer) => return Response::json(StatusCode::OK, &answer),
                Err(error) => {
                    let told = error.told();
                    if told.status.is_server_error() && told.status != StatusCode::NOT_IMPLEMENTED {
                        tracing::error!(request_id = %id, error = &error as &dyn std::error::Error, "identity request failed");
                    }
                    told
                }
            }
        };
        told.json(&id)
    }

    fn explain(&self, request: Request, asks_invoke: &AsksInvoke<'_>) -> Result<Value, IdentityError> {
        let mut params = Params::parse(&request.body)?;
        if let Some(name) = ["Marker", "MaxItems"].into_iter().find(|name| params.take(name).is_some()) {
            let message =
                format!("{name} is not taken here: the answer has one page, of {QUESTIONS_MAX} questions at most.");
            return Err(IdentityError::NotImplemented(message));
        }
        let session_token = request.header("x-amz-security-token").map(str::to_owned);
        let asker = Asker { caller: request.caller, action: ACTION };
        session_token::check_use(&asker, "Explain")?;
        let mut call = Call { identity: self.clone(), params, asker, session_token };
        let given = call.required("PolicySourceArn")?;
        let (_allowed, simulation) = if is_service(&given) {
            of_service(&mut call, given)?
        } else {
            let source = explained_source(&mut call, given)?;
            simulate::of_principal(&mut call, &source)?
        };
        let characters = simulation.characters();
        let questions = simulation.questions().count();
        // One is answered whatever it costs; a body of 1 MiB bounds that.
        if questions > QUESTIONS_MAX || (questions > 1 && questions.saturating_mul(characters) > PAGE_CHARACTERS_MAX) {
            return Err(IdentityError::LimitExceeded(format!(
                "Of policies of {characters} characters {questions} questions are too many for one request: ask \
                 {QUESTIONS_MAX} at most, and fewer of long policies."
            )));
        }
        let answers = simulation.questions().map(|(action, resource)| {
            let beside = beside(&call, &simulation, action, resource, asks_invoke)?;
            Ok(answer(&explained(&simulation, action, resource, &beside)))
        });
        let answers = answers.collect::<Result<Vec<_>, IdentityError>>()?;
        Ok(json!({"principal": simulation.principal.arn, "results": answers}))
    }
}

/// Whether a service of AWS's is meant, by its name: `batchoperations.s3.amazonaws.com`.
fn is_service(given: &str) -> bool {
    given.ends_with(".amazonaws.com") && !given.contains([':', '/'])
}

/// Whether a service may assume a role, with what it says of itself when it does: `aws:SourceArn`, which the request has to give, is the
/// job or the function it is for.
fn of_service(call: &mut Call, name: String) -> Result<(Allowed, Simulation), IdentityError> {
    validate::length(&name, "policySourceArn", 20, 2_048)?;
    let mut scene = simulate::scene(call)?;
    call.read()?;
    if let Some(action) = scene.actions.iter().find(|action| !action.eq_ignore_ascii_case("sts:AssumeRole")) {
        return Err(IdentityError::InvalidInput(format!(
            "A service has no policies of its own: it may assume a role, and is not asked about {action}."
        )));
    }
    let account = call.identity.settings().account.clone();
    scene.context = scene.context.or(&Context::new().with("aws:SourceAccount", &*account));
    let allowed = call.asker.may("*", Context::new())?;
    let principal = Principal {
        account,
        arn: name,
        user_id: String::new(),
        kind: PrincipalKind::Service,
        tags: Default::default(),
    };
    Ok((allowed, Simulation { principal, rights: Rights::default(), scene }))
}

/// Whom a request means. Beside the ARN of a user or role there may be that of a role's session, as a denial has it, and
/// `user/NAME` or `role/NAME`, with the path or without.
fn explained_source(call: &mut Call, given: String) -> Result<Source, IdentityError> {
    let settings = call.identity.settings().clone();
    let snapshot = call.identity.snapshot();
    let by_name = |kind: EntityKind, name: &str, session_name: &str| {
        let found = snapshot.state.entity(kind, name).filter(|found| found.name == name);
        Source {
            arn: arn_of(&call.identity, kind, name, found.map(|found| &**found)),
            kind,
            name: name.to_owned(),
            session_name: session_name.to_owned(),
        }
    };
    let sessions = settings.session_arn("", "");
    if let Some(session) = given.strip_prefix(sessions.trim_end_matches('/')).and_then(|rest| rest.strip_prefix('/')) {
        let session = session.split_once('/');
        let session = session.filter(|(role, name)| !role.is_empty() && !name.is_empty() && !name.contains('/'));
        let (role, name) = session.ok_or_else(|| {
            IdentityError::InvalidInput(format!(
                "{given} is the ARN of no session: it ends with assumed-role/ROLE/SESSION."
            ))
        })?;
        validate::name(role, "roleName", validate::ROLE_NAME)?;
        return Ok(by_name(EntityKind::Role, role, name));
    }
    let named = given.split_once('/').and_then(|(kind, name)| match kind {
        "user" => Some((EntityKind::User, name)),
        "role" => Some((EntityKind::Role, name)),
        _ => None,
    });
    match named {
        Some((kind, name)) if !name.contains('/') => {
            validate::length(name, "policySourceArn", 1, 2_048)?;
            Ok(by_name(kind, name, simulate::SESSION_NAME))
        }
        Some((kind, path)) => {
            call.params.put("PolicySourceArn", settings.arn(kind.word(), "/", path));
            call.policy_source()
        }
        None => {
            call.params.put("PolicySourceArn", given);
            call.policy_source()
        }
    }
}

/// What counts beside the policies of who asks.
#[derive(Default)]
struct Beside {
    /// A function's, or that of the request.
    policy: Option<Policy>,
    trust: Option<Policy>,
    context: Context,
}

/// Looks at the policy of what is asked for, if the caller may: it is named in the answer.
fn beside(
    call: &Call,
    simulation: &Simulation,
    action: &str,
    resource: &str,
    asks_invoke: &AsksInvoke<'_>,
) -> Result<Beside, IdentityError> {
    let action = action.to_ascii_lowercase();
    let of_trust = OF_TRUST.contains(&action.as_str());
    if let Some(given) = &simulation.scene.resource_policy {
        let (policy, trust) = if of_trust { (None, Some(given)) } else { (Some(given), None) };
        return Ok(Beside { policy: policy.cloned(), trust: trust.cloned(), ..Beside::default() });
    }
    if of_trust {
        return of_role(call, simulation, resource);
    }
    let function = action.starts_with("lambda:") && resource.contains(":function:");
    let Some(asked) = function.then(|| asks_invoke(resource)).flatten() else { return Ok(Beside::default()) };
    call.asker.may_do("lambda:GetPolicy", asked.resource.as_str(), asked.context.clone())?;
    Ok(Beside { policy: asked.resource_policy, trust: None, context: asked.context })
}

fn of_role(call: &Call, simulation: &Simulation, arn: &str) -> Result<Beside, IdentityError> {
    let settings = call.identity.settings();
    let name = arn.strip_prefix(&settings.arn("role", "/", "")).and_then(|path| path.rsplit('/').next());
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        let message =
            format!("{arn} is no role of this account: what sts:AssumeRole asks its trust policy is not known here.");
        return Err(IdentityError::InvalidInput(message));
    };
    let snapshot = call.identity.snapshot();
    let found = call.identity.role_entity(&snapshot, arn);
    let context = found.map(super::entity_context).unwrap_or_default();
    call.asker.may_do("iam:GetRole", arn, context)?;
    let found = found.and_then(|role| Some((role, role.role.as_ref()?)));
    let (role, part) = found.ok_or_else(|| no_entity(EntityKind::Role, name))?;
    let trust = trust_for(settings, &simulation.principal, role, part)?;
    Ok(Beside { policy: None, trust: Some(trust), context: role_context(role) })
}

fn explained(simulation: &Simulation, action: &str, resource: &str, beside: &Beside) -> Explanation {
    let context = simulation.scene.context.clone().or(&beside.context);
    explain(Question {
        principal: &simulation.principal,
        rights: &simulation.rights,
        action,
        resource,
        resource_account: &simulation.scene.resource_account,
        resource_policy: match (&beside.trust, &beside.policy) {
            (Some(trust), _) => ResourcePolicy::Needed(trust),
            (None, Some(policy)) => ResourcePolicy::Sufficient(policy),
            (None, None) => ResourcePolicy::None,
        },
        context: &context,
    })
}

fn answer(explanation: &Explanation) -> Value {
    let mut because = Map::new();
    match &explanation.decision.because {
        Because::Root => drop(because.insert("owner".into(), true.into())),
        Because::NoStatement(layer) => drop(because.insert("layer".into(), layer_name(*layer).into())),
        Because::Statement { layer, policy, number, sid } => {
            because.insert("layer".into(), layer_name(*layer).into());
            because.insert("policy".into(), policy.as_str().into());
            because.insert("statement".into(), (*number).into());
            if !sid.is_empty() {
                because.insert("sid".into(), sid.as_str().into());
            }
        }
    }
    json!({
        "action": explanation.action,
        "resource": explanation.resource,
        "allowed": explanation.decision.allowed,
        "decision": decision_word(&explanation.decision),
        "because": because,
        "sentences": explanation.sentences(),
        "missingContextKeys": explanation.missing_keys,
    })
}
