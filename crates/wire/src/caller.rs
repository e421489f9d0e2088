//! Who calls: a verified signature together with whose it is, and what that principal may do.
//!
//! No handler can be reached without a [`Caller`], and none is made without a [`Verified`]: by a signature, or in process
//! ([`Caller::in_process`], for tests, is the account's owner; the server itself makes one for the session of a role, and
//! [`Caller::service`] for a service that assumes one; a test keeps the files that may). Every operation says what it asks
//! for ([`Asked`]) before it is served; what is asked is decided by `core::policy`, and whoever watches is told.

use std::sync::Arc;

use longshore_core::policy::{
    Because, Context, Decision, Explanation, Layer, Policy, Principal, PrincipalKind, Question, ResourcePolicy, Rights,
    decide, explain,
};

use crate::sigv4::Verified;

/// A caller whose signature was verified, and whose rights are known. Cheap to clone.
#[derive(Clone)]
pub struct Caller {
    verified: Arc<Verified>,
    subject: Subject,
    /// What the server knows of the request whatever it asks: `aws:SourceIp`, `aws:SecureTransport`, `aws:CurrentTime`.
    context: Arc<Context>,
    witness: Option<Arc<dyn Witness>>,
    request_id: Arc<str>,
}

/// Who acts, and with which rights, as they stand now: whose an access key is, or what a service is with a role.
#[derive(Debug, Clone)]
pub struct Subject {
    pub principal: Arc<Principal>,
    pub rights: Arc<Rights>,
}

impl Subject {
    /// The owner of an account.
    pub fn root(account: &str) -> Self {
        let principal = Principal {
            account: account.to_owned(),
            arn: format!("arn:aws:iam::{account}:root"),
            user_id: account.to_owned(),
            kind: PrincipalKind::Root,
            tags: Default::default(),
        };
        Self { principal: Arc::new(principal), rights: Arc::default() }
    }
}

/// Is told of every decision. It must not wait.
pub trait Witness: Send + Sync {
    fn decided(&self, who: &Principal, asked: &Asked, decision: &Decision, about: &About<'_>);

    /// Of a request that was not let in.
    fn refused(&self, _refused: &Refused<'_>) {}
}

/// A request whose signature does not hold, as far as its own words may be written down.
#[derive(Debug, Clone, Copy)]
pub struct Refused<'a> {
    pub request_id: &'a str,
    /// Where it has the form of one: something else might be a secret in the wrong place.
    pub access_key_id: Option<&'a str>,
    /// As `aws:SourceIp` has it.
    pub source_ip: Option<&'a str>,
    /// Of the function that it is of, as `lambda:SourceFunctionArn` would have it: that has no address.
    pub function_arn: Option<&'a str>,
    /// Of the credential scope.
    pub service: Option<&'a str>,
    /// In our words: `the key is inactive`.
    pub why: &'static str,
}

/// Which request a decision is about.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    pub request_id: &'a str,
    pub access_key_id: &'a str,
    /// What was known of it in all.
    pub context: &'a Context,
}

/// One thing that a request wants to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// `s3:GetObject`.
    pub action: &'static str,
    /// An ARN, or `*` where the action has no resource.
    pub resource: String,
    /// Whose the resource is; `None`: the caller's own account.
    pub resource_account: Option<String>,
    /// A policy of the resource that is enough where it allows: a function's.
    pub resource_policy: Option<Policy>,
    /// The trust policy of a role, without which nothing is allowed.
    pub trust_policy: Option<Policy>,
    /// Condition keys of this action.
    pub context: Context,
}

impl Asked {
    pub fn new(action: &'static str, resource: impl Into<String>) -> Self {
        let resource = resource.into();
        Self {
            action,
            resource,
            resource_account: None,
            resource_policy: None,
            trust_policy: None,
            context: Context::new(),
        }
    }

    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.context.set(key, value);
        self
    }

    pub fn with_context(mut self, context: Context) -> Self {
        self.context = context.or(&self.context);
        self
    }

    pub fn with_trust(mut self, policy: Policy) -> Self {
        self.trust_policy = Some(policy);
        self
    }

    pub fn with_policy(mut self, policy: Option<Policy>) -> Self {
        self.resource_policy = policy;
        self
    }
}

/// Why something is not done, in AWS's words. The caller is told it whole: it names no policy and no statement but their kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("User: {principal} is not authorized to perform: {action} on resource: {resource} {}", reason(.decision, .action))]
pub struct Denied {
    /// The ARN.
    pub principal: String,
    pub action: &'static str,
    pub resource: String,
    pub decision: Decision,
}

impl Denied {
    /// Why, as the end of AWS's sentence: `because no identity-based policy allows the s3:GetObject action`.
    pub fn reason(&self) -> String {
        reason(&self.decision, self.action)
    }
}

/// A policy's layer in AWS's words: `permissions boundary`.
pub fn layer_name(layer: Layer) -> &'static str {
    match layer {
        Layer::Identity => "identity-based policy",
        Layer::Resource => "resource-based policy",
        Layer::Trust => "role trust policy",
        Layer::Boundary => "permissions boundary",
        Layer::Session => "session policy",
    }
}

fn reason(decision: &Decision, action: &str) -> String {
    let article = |layer| if layer == Layer::Identity { "an" } else { "a" };
    match &decision.because {
        Because::Root => String::new(),
        Because::Statement { layer, .. } => {
            format!("with an explicit deny in {} {}", article(*layer), layer_name(*layer))
        }
        Because::NoStatement(layer) => format!("because no {} allows the {action} action", layer_name(*layer)),
    }
}

impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caller").field("principal", &self.subject.principal.arn).finish_non_exhaustive()
    }
}

impl Caller {
    pub fn new(
        verified: Verified,
        subject: Subject,
        context: Context,
        witness: Option<Arc<dyn Witness>>,
        request_id: &str,
    ) -> Self {
        Self {
            verified: Arc::new(verified),
            subject,
            context: Arc::new(context),
            witness,
            request_id: request_id.into(),
        }
    }

    /// A service of AWS's own that this server is, `lambda.amazonaws.com`, as it acts for an account: it has no policies, and may
    /// what those of others say.
    pub fn service(
        name: &str,
        account: &str,
        context: Context,
        witness: Option<Arc<dyn Witness>>,
        request_id: &str,
    ) -> Self {
        let principal = Principal {
            account: account.to_owned(),
            arn: name.to_owned(),
            user_id: String::new(),
            kind: PrincipalKind::Service,
            tags: Default::default(),
        };
        let subject = Subject { principal: Arc::new(principal), rights: Arc::default() };
        Self::new(Verified::in_process(account), subject, context, witness, request_id)
    }

    /// The owner of the account, of work that arises inside the server and never crossed a socket.
    pub fn in_process(account: &str) -> Self {
        Self::new(Verified::in_process(account), Subject::root(account), Context::new(), None, "")
    }

    pub fn verified(&self) -> &Verified {
        &self.verified
    }

    pub fn principal(&self) -> &Principal {
        &self.subject.principal
    }

    pub fn rights(&self) -> &Rights {
        &self.subject.rights
    }

    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Whether no policy is looked at for this caller, and so no condition key needed.
    pub fn is_root(&self) -> bool {
        self.subject.principal.kind == PrincipalKind::Root
    }

    /// 12 digits.
    pub fn account(&self) -> &str {
        &self.subject.principal.account
    }

    pub fn access_key_id(&self) -> &str {
        self.verified.access_key_id()
    }

    /// Decides, and tells whoever watches.
    pub fn may(&self, asked: &Asked) -> Result<(), Box<Denied>> {
        self.decide(asked, self.witness.as_deref())
    }

    /// As [`Caller::may`], of something that the caller does not want to do, and that is told to nobody.
    pub fn would(&self, asked: &Asked) -> Result<(), Box<Denied>> {
        self.decide(asked, None)
    }

    /// Decides as [`Caller::would`], and says why. For messages to whoever may read the policies.
    pub fn explain(&self, asked: &Asked) -> Explanation {
        explain(self.question(asked, &self.context_of(asked)))
    }

    fn context_of(&self, asked: &Asked) -> Context {
        asked.context.clone().or(&self.context)
    }

    fn question<'a>(&'a self, asked: &'a Asked, context: &'a Context) -> Question<'a> {
        Question {
            principal: &self.subject.principal,
            rights: &self.subject.rights,
            action: asked.action,
            resource: &asked.resource,
            resource_account: asked.resource_account.as_deref().unwrap_or(self.account()),
            resource_policy: match (&asked.trust_policy, &asked.resource_policy) {
                (Some(trust), _) => ResourcePolicy::Needed(trust),
                (None, Some(policy)) => ResourcePolicy::Sufficient(policy),
                (None, None) => ResourcePolicy::None,
            },
            context,
        }
    }

    fn decide(&self, asked: &Asked, witness: Option<&dyn Witness>) -> Result<(), Box<Denied>> {
        let context = self.context_of(asked);
        let decision = decide(self.question(asked, &context));
        if let Some(witness) = witness {
            let about = About { request_id: &self.request_id, access_key_id: self.access_key_id(), context: &context };
            witness.decided(&self.subject.principal, asked, &decision, &about);
        }
        if decision.allowed {
            return Ok(());
        }
        Err(Box::new(Denied {
            principal: self.subject.principal.arn.clone(),
            action: asked.action,
            resource: asked.resource.clone(),
            decision,
        }))
    }
}
