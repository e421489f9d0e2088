//! The decision, and its reason.

use super::{Context, Policy, Principal, PrincipalKind, Rights};

/// May this principal do this?
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    pub principal: &'a Principal,
    pub rights: &'a Rights,
    /// `s3:GetObject`.
    pub action: &'a str,
    /// An ARN, or `*` where the action has no resource.
    pub resource: &'a str,
    /// Whose the resource is, 12 digits.
    pub resource_account: &'a str,
    pub resource_policy: ResourcePolicy<'a>,
    /// Without what follows from the principal (`aws:username`, `aws:PrincipalArn`, …): `decide` adds that itself.
    pub context: &'a Context,
}

/// Which part a policy of the resource has in the decision.
#[derive(Debug, Clone, Copy)]
pub enum ResourcePolicy<'a> {
    /// It has none, or may have none.
    None,
    /// A function's: one that allows is enough within an account.
    Sufficient(&'a Policy),
    /// A role's trust policy: without one that allows nothing is allowed, and one that names the principal itself is enough.
    Needed(&'a Policy),
}

/// Which policies decided, or were missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    Identity,
    Resource,
    Trust,
    Boundary,
    Session,
}

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub because: Because,
}

/// The statement, or the absence, that decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Because {
    /// The account's owner asks.
    Root,
    /// This statement allows, or denies outright.
    Statement {
        layer: Layer,
        policy: String,
        /// From 1, as the document has them.
        number: usize,
        /// Empty where it has none.
        sid: String,
    },
    /// Nothing in these policies allows it.
    NoStatement(Layer),
}

pub fn decide(question: Question<'_>) -> Decision {
    match question.principal.kind {
        PrincipalKind::Root => Decision { allowed: true, because: Because::Root },
        _ => Decision { allowed: false, because: Because::NoStatement(Layer::Identity) },
    }
}
