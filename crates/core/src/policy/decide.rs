//! The decision, and its reason.
//!
//! Source: IAM user guide, "How AWS enforcement code logic evaluates requests", "Policy evaluation for requests within a single account",
//! "Cross-account policy evaluation logic".

use super::context::Facts;
use super::pattern::Truth;
use super::principal::Closeness;
use super::{Context, Effect, Policy, Principal, PrincipalKind, Rights, Statement};

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

impl<'a> ResourcePolicy<'a> {
    pub(super) fn policy(self) -> Option<&'a Policy> {
        match self {
            Self::None => None,
            Self::Sufficient(policy) | Self::Needed(policy) => Some(policy),
        }
    }

    pub(super) fn layer(self) -> Layer {
        match self {
            Self::None | Self::Sufficient(_) => Layer::Resource,
            Self::Needed(_) => Layer::Trust,
        }
    }
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

/// Decides.
///
/// An explicit deny in any policy goes before everything, for the owner of the account too. Then:
///
/// | who asks | what has to allow |
/// |---|---|
/// | a service | the policy of the resource |
/// | the owner of the resource's account | nothing; of a role, its trust policy (`AssumeRole` refuses the owner without asking, as on AWS) |
/// | a user or session of the resource's account | the policy of the resource, or identity, boundary and session policies together |
/// | anybody of another account | the policy of the resource, and identity, boundary and session policies |
///
/// A policy of the resource is enough by itself where it names the user, the session or everyone. Where it names a session's
/// role, boundary and session policies limit it; where it names the account, it delegates, and identity policies have to allow as well.
pub fn decide(question: Question<'_>) -> Decision {
    Case::new(question).decide()
}

/// A question with all that is known.
pub(super) struct Case<'a> {
    pub question: Question<'a>,
    pub facts: Facts<'a>,
    /// The action in lower case.
    action: String,
}

/// One statement and where it stands.
#[derive(Clone, Copy)]
pub(super) struct Found<'a> {
    pub layer: Layer,
    pub policy: &'a Policy,
    /// From 1.
    pub number: usize,
    pub statement: &'a Statement,
}

impl Found<'_> {
    fn because(&self) -> Because {
        Because::Statement {
            layer: self.layer,
            policy: self.policy.name.to_string(),
            number: self.number,
            sid: self.statement.sid.clone(),
        }
    }
}

/// The statements of some policies, in their order.
pub(super) fn statements<'a>(layer: Layer, policies: &'a [Policy]) -> impl Iterator<Item = Found<'a>> {
    policies.iter().flat_map(move |policy| {
        let numbered = policy.document.statements().iter().zip(1..);
        numbered.map(move |(statement, number)| Found { layer, policy, number, statement })
    })
}

impl<'a> Case<'a> {
    pub fn new(question: Question<'a>) -> Self {
        let Question { principal, context, resource_account, action, .. } = question;
        let facts = Facts { principal, action, resource_account, context };
        Self { question, facts, action: action.to_ascii_lowercase() }
    }

    pub fn decide(&self) -> Decision {
        let allowed = |found: Found<'_>| Decision { allowed: true, because: found.because() };
        let nothing_in = |layer| Decision { allowed: false, because: Because::NoStatement(layer) };
        if let Some(denying) = self.all_statements().find(|found| self.counts(found, Effect::Deny)) {
            return Decision { allowed: false, because: denying.because() };
        }
        let resource_policy = self.question.resource_policy;
        let by_resource = self.closest();
        let own_account = self.question.principal.account == self.question.resource_account;
        let needed = !own_account
            || matches!(resource_policy, ResourcePolicy::Needed(_))
            || matches!(self.question.principal.kind, PrincipalKind::Service);
        let closeness = match by_resource {
            None if needed => return nothing_in(resource_policy.layer()),
            None => None,
            Some((_, found)) if matches!(self.question.principal.kind, PrincipalKind::Service) => {
                return allowed(found);
            }
            // Across accounts it is never enough.
            Some((closeness, _)) => Some(closeness).filter(|_| own_account),
        };
        if self.question.principal.kind == PrincipalKind::Root {
            return match by_resource {
                Some((_, found)) if needed => allowed(found),
                _ => Decision { allowed: true, because: Because::Root },
            };
        }
        let (mut because, limited) = match (closeness, by_resource) {
            (Some(Closeness::Itself), Some((_, found))) => (Some(found), false),
            (Some(Closeness::Role), Some((_, found))) => (Some(found), true),
            _ => (None, true),
        };
        if because.is_none() {
            because = self.first(Layer::Identity, &self.question.rights.identity);
        }
        let Some(because) = because else { return nothing_in(Layer::Identity) };
        let limits = [
            (Layer::Boundary, self.question.rights.boundary.as_ref().map(std::slice::from_ref)),
            (Layer::Session, self.question.rights.session.as_deref()),
        ];
        for (layer, policies) in limits {
            if limited && policies.is_some_and(|policies| self.first(layer, policies).is_none()) {
                return nothing_in(layer);
            }
        }
        allowed(because)
    }

    /// All statements that have a part in this. A root caller and a service have no policies of their own.
    pub fn all_statements(&self) -> impl Iterator<Item = Found<'a>> {
        let Question { principal, rights, resource_policy, .. } = self.question;
        let own = !matches!(principal.kind, PrincipalKind::Root | PrincipalKind::Service);
        let boundary = rights.boundary.as_slice();
        let layers = [
            (Layer::Identity, rights.identity.as_slice()),
            (Layer::Boundary, boundary),
            (Layer::Session, rights.session.as_deref().unwrap_or_default()),
        ];
        let own = layers.into_iter().filter(move |_| own).flat_map(|(layer, policies)| statements(layer, policies));
        let resource = resource_policy.policy().map_or(&[][..], std::slice::from_ref);
        own.chain(statements(resource_policy.layer(), resource))
    }

    /// The first statement of some policies that allows.
    fn first(&self, layer: Layer, policies: &'a [Policy]) -> Option<Found<'a>> {
        statements(layer, policies).find(|found| self.counts(found, Effect::Allow))
    }

    /// The statement of the resource's policy that allows and means the principal most closely.
    fn closest(&self) -> Option<(Closeness, Found<'a>)> {
        let policy = self.question.resource_policy.policy()?;
        let found = statements(self.question.resource_policy.layer(), std::slice::from_ref(policy))
            .filter(|found| self.counts(found, Effect::Allow))
            .filter_map(|found| Some((self.closeness(found.statement)?, found)));
        // Of equal ones the first: `max_by_key` would take the last.
        found.reduce(|best, next| if next.0 > best.0 { next } else { best })
    }

    fn closeness(&self, statement: &Statement) -> Option<Closeness> {
        let Question { principal, rights, .. } = self.question;
        let denies = statement.effect == Effect::Deny;
        let closeness = statement.principals.as_ref()?.mean(principal, denies, rights.boundary.is_some())?;
        // A user's session with policies of its own is not the user itself.
        let session = rights.session.is_some() && matches!(principal.kind, PrincipalKind::User { .. });
        Some(if session { closeness.min(Closeness::Role) } else { closeness })
    }

    /// Whether a statement has this effect here. What cannot be known lets no Allow count, and every Deny.
    pub fn counts(&self, found: &Found<'_>, effect: Effect) -> bool {
        let statement = found.statement;
        statement.effect == effect
            && match self.fits(statement) {
                Truth::Yes => true,
                Truth::Unknown => effect == Effect::Deny,
                Truth::No => false,
            }
    }

    fn fits(&self, statement: &Statement) -> Truth {
        let action = self.fits_action(statement).and(|| self.fits_principal(statement));
        action
            .and(|| self.fits_resource(statement))
            .and(|| Truth::all(statement.conditions.iter().map(|condition| condition.holds(&self.facts))))
    }

    pub fn fits_principal(&self, statement: &Statement) -> Truth {
        (statement.principals.is_none() || self.closeness(statement).is_some()).into()
    }

    pub fn fits_action(&self, statement: &Statement) -> Truth {
        let actions = &statement.actions;
        let fits = actions.patterns.iter().any(|pattern| pattern.fits_plainly(&self.action));
        (fits != actions.all_but).into()
    }

    pub fn fits_resource(&self, statement: &Statement) -> Truth {
        let Some(resources) = &statement.resources else { return Truth::Yes };
        let fits = Truth::any(
            resources.patterns.iter().map(|pattern| pattern.fits_resource(self.question.resource, &self.facts)),
        );
        if !resources.all_but {
            return fits;
        }
        // "All but the folder of ${aws:username}" is not "all" for somebody who has no user name, when it allows.
        let unresolved = || resources.patterns.iter().any(|pattern| pattern.is_unresolved(&self.facts));
        if fits == Truth::No && unresolved() { Truth::Unknown } else { !fits }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::{Document, Kind};
    use super::*;

    const ACCOUNT: &str = "111111111111";
    const OTHER: &str = "222222222222";

    fn policy(name: &str, kind: Kind, statements: &str) -> Policy {
        let text = format!(r#"{{"Version":"2012-10-17","Statement":[{statements}]}}"#);
        Policy { name: name.into(), document: Document::parse(&text, kind).unwrap() }
    }

    fn identity(statements: &str) -> Policy {
        policy("P", Kind::Identity, statements)
    }

    fn user(name: &str) -> Principal {
        Principal {
            account: ACCOUNT.into(),
            arn: format!("arn:aws:iam::{ACCOUNT}:user/{name}"),
            user_id: "AIDAEXAMPLEEXAMPLE01".into(),
            kind: PrincipalKind::User { name: name.into() },
            tags: BTreeMap::from([("team".to_owned(), "red".to_owned())]),
        }
    }

    fn session() -> Principal {
        Principal {
            account: ACCOUNT.into(),
            arn: format!("arn:aws:sts::{ACCOUNT}:assumed-role/r/s"),
            user_id: "AROAEXAMPLEEXAMPLE01:s".into(),
            kind: PrincipalKind::AssumedRole {
                role_arn: format!("arn:aws:iam::{ACCOUNT}:role/path/r"),
                session_name: "s".into(),
            },
            tags: BTreeMap::new(),
        }
    }

    fn root(account: &str) -> Principal {
        Principal {
            account: account.into(),
            arn: format!("arn:aws:iam::{account}:root"),
            user_id: account.into(),
            kind: PrincipalKind::Root,
            tags: BTreeMap::new(),
        }
    }

    fn service(name: &str) -> Principal {
        let tags = BTreeMap::new();
        Principal {
            account: ACCOUNT.into(),
            arn: name.into(),
            user_id: String::new(),
            kind: PrincipalKind::Service,
            tags,
        }
    }

    /// What is asked, but for who asks.
    struct Asking<'a> {
        action: &'a str,
        resource: &'a str,
        account: &'a str,
        policy: ResourcePolicy<'a>,
        context: Context,
    }

    fn reading(resource: &str) -> Asking<'_> {
        Asking {
            action: "s3:GetObject",
            resource,
            account: ACCOUNT,
            policy: ResourcePolicy::None,
            context: Context::new(),
        }
    }

    impl Asking<'_> {
        fn decided(&self, principal: &Principal, rights: &Rights) -> Decision {
            decide(Question {
                principal,
                rights,
                action: self.action,
                resource: self.resource,
                resource_account: self.account,
                resource_policy: self.policy,
                context: &self.context,
            })
        }
    }

    /// `+P1`: allowed by statement 1 of P; `-P2`: denied by it outright; `+root`; `-Identity`: nothing there allows.
    fn shown(decision: &Decision) -> String {
        let sign = if decision.allowed { '+' } else { '-' };
        match &decision.because {
            Because::Root => format!("{sign}root"),
            Because::Statement { policy, number, .. } => format!("{sign}{policy}{number}"),
            Because::NoStatement(layer) => format!("{sign}{layer:?}"),
        }
    }

    const READ: &str = r#"{"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*"}"#;
    const WRITE: &str = r#"{"Effect":"Allow","Action":"s3:PutObject","Resource":"arn:aws:s3:::b/*"}"#;
    const FORBID: &str = r#"{"Effect":"Deny","Action":"s3:*","Resource":"arn:aws:s3:::b/secret/*"}"#;

    #[test]
    fn identity_boundary_and_session_policies_have_to_allow_together_and_a_deny_in_any_of_them_wins() {
        let named = |name: &str, statements: &str| policy(name, Kind::Identity, statements);
        let both = format!("{READ},{FORBID}");
        type Policies<'a> = (&'a str, Option<&'a str>, Option<&'a str>);
        let cases: [(Policies<'_>, &str, &str); 14] = [
            (("", None, None), "arn:aws:s3:::b/k", "-Identity"),
            ((READ, None, None), "arn:aws:s3:::b/k", "+I1"),
            ((READ, None, None), "arn:aws:s3:::c/k", "-Identity"),
            ((WRITE, None, None), "arn:aws:s3:::b/k", "-Identity"),
            ((&both, None, None), "arn:aws:s3:::b/k", "+I1"),
            ((&both, None, None), "arn:aws:s3:::b/secret/k", "-I2"),
            ((READ, Some(READ), None), "arn:aws:s3:::b/k", "+I1"),
            ((READ, Some(WRITE), None), "arn:aws:s3:::b/k", "-Boundary"),
            ((WRITE, Some(READ), None), "arn:aws:s3:::b/k", "-Identity"),
            ((READ, Some(&both), None), "arn:aws:s3:::b/secret/k", "-B2"),
            ((READ, None, Some(READ)), "arn:aws:s3:::b/k", "+I1"),
            ((READ, None, Some(WRITE)), "arn:aws:s3:::b/k", "-Session"),
            ((READ, None, Some("")), "arn:aws:s3:::b/k", "-Session"),
            ((READ, Some(READ), Some(&both)), "arn:aws:s3:::b/secret/k", "-S2"),
        ];
        let listed =
            |name: &str, statements: &str| if statements.is_empty() { vec![] } else { vec![named(name, statements)] };
        for ((identity, boundary, begun), resource, wanted) in cases {
            let rights = Rights {
                identity: listed("I", identity),
                boundary: boundary.map(|statements| named("B", statements)),
                session: begun.map(|statements| listed("S", statements)),
            };
            assert_eq!(
                shown(&reading(resource).decided(&session(), &rights)),
                wanted,
                "{identity} {boundary:?} {begun:?}"
            );
        }
    }

    fn for_whom(effect: &str, principal: &str, action: &str) -> String {
        format!(
            r#"{{"Effect":"{effect}",{principal},"Action":"{action}","Resource":"arn:aws:lambda:us-east-1:{ACCOUNT}:function:f"}}"#
        )
    }

    /// The table "Resource-based policies and implicit denies in other policy types (same account)", IAM user guide, "Policy evaluation for
    /// requests within a single account", and what it does not say of accounts and everyone.
    #[test]
    fn a_policy_of_the_resource_is_limited_the_less_the_more_closely_it_names_who_asks() {
        let none = Rights::default();
        let bounded = Rights { boundary: Some(identity(READ)), ..Rights::default() };
        let begun = Rights { session: Some(vec![identity(READ)]), ..Rights::default() };
        let invoke = r#"{"Effect":"Allow","Action":"lambda:InvokeFunction","Resource":"*"}"#;
        let itself = Rights { identity: vec![identity(invoke)], ..Rights::default() };
        let user_arn = r#""Principal":{"AWS":"arn:aws:iam::111111111111:user/u"}"#;
        let role_arn = r#""Principal":{"AWS":"arn:aws:iam::111111111111:role/path/r"}"#;
        let session_arn = r#""Principal":{"AWS":"arn:aws:sts::111111111111:assumed-role/r/s"}"#;
        let account = r#""Principal":{"AWS":"111111111111"}"#;
        let everyone = r#""Principal":"*""#;
        let (u, s) = (user("u"), session());
        let cases = [
            (&u, user_arn, &none, "+R1"),
            (&u, user_arn, &bounded, "+R1"),
            (&u, user_arn, &begun, "-Session"),
            (&user("other"), user_arn, &none, "-Identity"),
            (&s, role_arn, &none, "+R1"),
            (&s, role_arn, &bounded, "-Boundary"),
            (&s, role_arn, &begun, "-Session"),
            (&s, session_arn, &none, "+R1"),
            (&s, session_arn, &bounded, "+R1"),
            (&s, session_arn, &begun, "+R1"),
            (&u, account, &none, "-Identity"),
            (&u, account, &itself, "+P1"),
            (&s, everyone, &none, "+R1"),
            (&s, everyone, &bounded, "+R1"),
            (&root(ACCOUNT), account, &none, "+root"),
        ];
        for (principal, whom, rights, wanted) in cases {
            let allowing = policy("R", Kind::Resource, &for_whom("Allow", whom, "lambda:InvokeFunction"));
            let resource = format!("arn:aws:lambda:us-east-1:{ACCOUNT}:function:f");
            let policy = ResourcePolicy::Sufficient(&allowing);
            let asking = Asking { action: "lambda:InvokeFunction", policy, ..reading(&resource) };
            assert_eq!(shown(&asking.decided(principal, rights)), wanted, "{whom} {}", principal.arn);
        }
    }

    #[test]
    fn of_statements_that_are_equally_close_the_first_is_named_and_of_others_the_closest() {
        let named = |name: &str| for_whom("Allow", &format!(r#""Principal":{{"AWS":"{name}"}}"#), "lambda:*");
        let (account, user_arn) = (named(ACCOUNT), named("arn:aws:iam::111111111111:user/u"));
        let everyone = for_whom("Allow", r#""Principal":"*""#, "lambda:*");
        let resource = format!("arn:aws:lambda:us-east-1:{ACCOUNT}:function:f");
        for (statements, wanted) in [
            (format!("{user_arn},{everyone}"), "+R1"),
            (format!("{everyone},{user_arn}"), "+R1"),
            (format!("{account},{everyone},{user_arn}"), "+R2"),
        ] {
            let allowing = policy("R", Kind::Resource, &statements);
            let policy = ResourcePolicy::Sufficient(&allowing);
            let asking = Asking { action: "lambda:InvokeFunction", policy, ..reading(&resource) };
            assert_eq!(shown(&asking.decided(&user("u"), &Rights::default())), wanted, "{statements}");
        }
    }

    #[test]
    fn across_accounts_both_have_to_allow_and_root_is_root_at_home_alone() {
        let invoke = r#"{"Effect":"Allow","Action":"lambda:InvokeFunction","Resource":"*"}"#;
        let allowed = Rights { identity: vec![identity(invoke)], ..Rights::default() };
        let none = Rights::default();
        let by_account =
            for_whom("Allow", r#""Principal":{"AWS":"arn:aws:iam::111111111111:root"}"#, "lambda:InvokeFunction");
        let by_name =
            for_whom("Allow", r#""Principal":{"AWS":"arn:aws:iam::111111111111:user/u"}"#, "lambda:InvokeFunction");
        let denied = format!("{by_account},{}", for_whom("Deny", r#""Principal":"*""#, "lambda:*"));
        let cases = [
            (user("u"), &allowed, Some(&by_account), OTHER, "+P1"),
            (user("u"), &none, Some(&by_name), OTHER, "-Identity"),
            (user("u"), &allowed, None, OTHER, "-Resource"),
            (user("u"), &allowed, None, ACCOUNT, "+P1"),
            (root(ACCOUNT), &none, Some(&by_account), OTHER, "+R1"),
            (root(OTHER), &none, Some(&by_account), OTHER, "+root"),
            (root(OTHER), &none, None, ACCOUNT, "-Resource"),
            (root(ACCOUNT), &none, Some(&denied), ACCOUNT, "-R2"),
            (user("u"), &allowed, Some(&denied), ACCOUNT, "-R2"),
        ];
        for (principal, rights, statements, account, wanted) in cases {
            let policy = statements.map(|statements| policy("R", Kind::Resource, statements));
            let resource = format!("arn:aws:lambda:us-east-1:{ACCOUNT}:function:f");
            let policy = policy.as_ref().map_or(ResourcePolicy::None, ResourcePolicy::Sufficient);
            let asking = Asking { action: "lambda:InvokeFunction", account, policy, ..reading(&resource) };
            assert_eq!(shown(&asking.decided(&principal, rights)), wanted, "{} {statements:?}", principal.arn);
        }
    }

    #[test]
    fn a_role_is_assumed_as_its_trust_policy_says_with_the_conditions_of_the_confused_deputy() {
        let trust = |principal: &str, condition: &str| {
            let statement = format!(r#"{{"Effect":"Allow",{principal},"Action":"sts:AssumeRole"{condition}}}"#);
            policy("T", Kind::Trust, &statement)
        };
        let batch = r#""Principal":{"Service":"batchoperations.s3.amazonaws.com"}"#;
        let from = r#","Condition":{"StringEquals":{"aws:SourceAccount":"111111111111"},"ArnLike":{"aws:SourceArn":"arn:aws:s3:us-east-1:111111111111:job/*"}}"#;
        let account = r#""Principal":{"AWS":"arn:aws:iam::111111111111:root"}"#;
        let named = r#""Principal":{"AWS":"arn:aws:iam::111111111111:user/u"}"#;
        let assume =
            r#"{"Effect":"Allow","Action":"sts:AssumeRole","Resource":"arn:aws:iam::111111111111:role/path/r"}"#;
        let (none, may) = (Rights::default(), Rights { identity: vec![identity(assume)], ..Rights::default() });
        let job = |account: &str| {
            let arn = format!("arn:aws:s3:us-east-1:{account}:job/1");
            Context::new().with("aws:SourceAccount", account).with("aws:SourceArn", arn)
        };
        let cases = [
            (service("batchoperations.s3.amazonaws.com"), &none, trust(batch, ""), Context::new(), "+T1"),
            (service("lambda.amazonaws.com"), &none, trust(batch, ""), Context::new(), "-Trust"),
            (service("batchoperations.s3.amazonaws.com"), &none, trust(batch, from), job(ACCOUNT), "+T1"),
            (service("batchoperations.s3.amazonaws.com"), &none, trust(batch, from), job(OTHER), "-Trust"),
            (service("batchoperations.s3.amazonaws.com"), &none, trust(batch, from), Context::new(), "-Trust"),
            (user("u"), &may, trust(batch, ""), Context::new(), "-Trust"),
            (user("u"), &none, trust(account, ""), Context::new(), "-Identity"),
            (user("u"), &may, trust(account, ""), Context::new(), "+P1"),
            (user("u"), &none, trust(named, ""), Context::new(), "+T1"),
            (root(ACCOUNT), &none, trust(account, ""), Context::new(), "+T1"),
            (root(ACCOUNT), &none, trust(batch, ""), Context::new(), "-Trust"),
        ];
        for (principal, rights, trust, context, wanted) in cases {
            let policy = ResourcePolicy::Needed(&trust);
            let asking = Asking {
                action: "sts:AssumeRole",
                policy,
                context,
                ..reading("arn:aws:iam::111111111111:role/path/r")
            };
            assert_eq!(
                shown(&asking.decided(&principal, rights)),
                wanted,
                "{} {}",
                principal.arn,
                trust.document.text()
            );
        }
    }

    /// Source: IAM user guide, "IAM JSON policy elements: Version".
    #[test]
    fn variables_are_letters_in_the_older_version_of_the_language_which_is_the_one_where_none_is_given() {
        let statement = r#"{"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/${aws:username}","Condition":{"StringEquals":{"aws:username":["${aws:username}","u"]}}}"#;
        for (version, own, literal) in [
            (r#""Version":"2012-10-17","#, true, false),
            (r#""Version":"2008-10-17","#, false, true),
            ("", false, true),
        ] {
            let text = format!(r#"{{{version}"Statement":{statement}}}"#);
            let document = Document::parse(&text, Kind::Identity).unwrap();
            let rights = Rights { identity: vec![Policy { name: "P".into(), document }], ..Rights::default() };
            assert_eq!(reading("arn:aws:s3:::b/u").decided(&user("u"), &rights).allowed, own, "{version}");
            let key = "arn:aws:s3:::b/${aws:username}";
            assert_eq!(reading(key).decided(&user("u"), &rights).allowed, literal, "{version}");
        }
    }

    #[test]
    fn a_wildcard_in_a_name_or_a_tag_is_a_letter_and_no_wildcard() {
        let own = r#"{"Effect":"Allow","Action":"s3:GetObject","Resource":["arn:aws:s3:::b/home/${aws:username}/*","arn:aws:s3:::b/${aws:PrincipalTag/team}/*"]}"#;
        let rights = Rights { identity: vec![identity(own)], ..Rights::default() };
        let cases = [
            ("u", "red", "arn:aws:s3:::b/home/u/k", true),
            ("u", "red", "arn:aws:s3:::b/home/v/k", false),
            ("*", "red", "arn:aws:s3:::b/home/v/k", false),
            ("*", "red", "arn:aws:s3:::b/home/*/k", true),
            ("?", "red", "arn:aws:s3:::b/home/v/k", false),
            ("u", "red", "arn:aws:s3:::b/red/k", true),
            ("u", "*", "arn:aws:s3:::b/blue/k", false),
            ("u", "${aws:username}", "arn:aws:s3:::b/u/k", false),
        ];
        for (name, team, resource, wanted) in cases {
            let principal = Principal { tags: BTreeMap::from([("Team".into(), team.into())]), ..user(name) };
            assert_eq!(reading(resource).decided(&principal, &rights).allowed, wanted, "{name} {team} {resource}");
        }
    }
}
