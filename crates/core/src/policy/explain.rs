//! A decision with all that it came from, in words that somebody can act on.

use super::context::Known;
use super::decide::{Case, Found};
use super::document::{once, plain};
use super::pattern::Truth;
use super::principal::Principals;
use super::{Because, Decision, Effect, Layer, Position, Question, keys};

/// Statements that nearly allowed and are told in sentences: those with the least in the way. More is for a machine to read.
const NEAR_TOLD_MAX: usize = 3;

/// Characters of a sentence: names of policies and resources are in it, of 1,024 bytes and more each, and conditions.
const SENTENCE_CHARS_MAX: usize = 6_000;

/// What was asked, what was decided, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The principal's ARN, or a service's name.
    pub principal: String,
    pub action: String,
    pub resource: String,
    /// Whose the resource is, where that is another account than the principal's.
    pub foreign_account: Option<String>,
    pub decision: Decision,
    /// All statements that hold here, of either effect, in the order identity, boundary, session, resource.
    pub matched: Vec<Matched>,
    /// Statements that allow this action to somebody, on something, under some conditions; those with the least in the way first.
    pub near: Vec<Near>,
    /// Condition keys, as they were written first, that statements for this action and resource ask for, and that this request does
    /// not have. Source: SimulatePrincipalPolicy, `MissingContextValues`.
    pub missing_keys: Vec<String>,
}

/// A statement and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matched {
    pub layer: Layer,
    /// The policy's name.
    pub policy: String,
    /// From 1, as the document has them.
    pub number: usize,
    /// Empty where it has none.
    pub sid: String,
    pub effect: Effect,
    /// Where its `{` stands in the document, and behind its `}`.
    pub from: Position,
    pub to: Position,
    /// Keys of which this server knows nothing, so that a Deny is taken to hold. Of an Allow always none.
    pub unknown_keys: Vec<String>,
    /// Keys that it asks for and this request does not have, although it holds.
    pub missing_keys: Vec<String>,
}

/// A statement that would allow, and what is in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Near {
    pub statement: Matched,
    /// One or more.
    pub missed: Vec<Missed>,
}

/// A part of a statement that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missed {
    /// It is for others.
    Principal {
        named: Vec<String>,
        /// Whether it is for all but these.
        all_but: bool,
    },
    /// It is for other resources.
    Resource {
        /// As they were written.
        written: Vec<String>,
        /// Whether it is for all but these.
        all_but: bool,
        /// Keys of its variables that have no value in this request, or of which nothing is known.
        unresolved: Vec<String>,
    },
    /// Its condition does not hold.
    Condition { operator: String, key: String, wanted: Vec<String>, have: Have },
}

/// What a request has of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Have {
    Values(Vec<String>),
    Missing,
    /// This server does not know.
    Unknown,
}

/// Decides, and says why.
///
/// It looks at every statement, where `decide` stops at the first that decides: for people, and for SimulatePrincipalPolicy.
pub fn explain(question: Question<'_>) -> Explanation {
    let case = Case::new(question);
    let counts = |found: &Found<'_>| case.counts(found, found.statement.effect);
    let near = case.all_statements().filter(|found| found.statement.effect == Effect::Allow && !counts(found));
    let near = near.filter(|found| case.fits_action(found.statement) == Truth::Yes);
    let mut near: Vec<Near> =
        near.map(|found| Near { statement: matched(&case, &found), missed: missed(&case, &found) }).collect();
    near.sort_by_key(|near| near.missed.len());
    let concerned = case.all_statements().filter(|found| {
        let statement = found.statement;
        let parts = [case.fits_action(statement), case.fits_principal(statement), case.fits_resource(statement)];
        !parts.contains(&Truth::No)
    });
    let asked_for = once(concerned.flat_map(|found| found.statement.keys()));
    let missing = asked_for.into_iter().filter(|key| have(&case, key).is_none());
    Explanation {
        principal: question.principal.arn.clone(),
        action: question.action.to_owned(),
        resource: question.resource.to_owned(),
        foreign_account: (question.principal.account != question.resource_account)
            .then(|| question.resource_account.to_owned()),
        decision: case.decide(),
        matched: case.all_statements().filter(counts).map(|found| matched(&case, &found)).collect(),
        near,
        missing_keys: missing.map(str::to_owned).collect(),
    }
}

/// The values of a key; `None` where there are none.
fn have(case: &Case<'_>, key: &str) -> Option<Vec<String>> {
    match case.facts.known(&key.to_ascii_lowercase()) {
        Known::Values(values) => Some(values.into_iter().map(str::to_owned).collect()),
        Known::Missing | Known::Unknown => None,
    }
}

fn matched(case: &Case<'_>, found: &Found<'_>) -> Matched {
    let statement = found.statement;
    let unknown = |key: &&str| case.facts.known(&key.to_ascii_lowercase()) == Known::Unknown;
    let missing = |key: &&str| case.facts.known(&key.to_ascii_lowercase()) == Known::Missing;
    let unknown_keys = match statement.effect {
        Effect::Allow => Vec::new(),
        Effect::Deny => once(statement.keys()).into_iter().filter(unknown).map(str::to_owned).collect(),
    };
    Matched {
        layer: found.layer,
        policy: found.policy.name.to_string(),
        number: found.number,
        sid: statement.sid.clone(),
        effect: statement.effect,
        from: statement.from,
        to: statement.to,
        unknown_keys,
        missing_keys: once(statement.keys()).into_iter().filter(missing).map(str::to_owned).collect(),
    }
}

/// The key that one was probably meant to be that this server does not know.
fn perhaps(key: &str) -> String {
    keys::meant(key).map_or(String::new(), |known| format!(" (is {known} meant?)"))
}

fn missed(case: &Case<'_>, found: &Found<'_>) -> Vec<Missed> {
    let statement = found.statement;
    let mut missed = Vec::new();
    if case.fits_principal(statement) != Truth::Yes {
        let (named, all_but) = statement.principals.as_ref().map(Principals::written).unwrap_or_default();
        missed.push(Missed::Principal { named, all_but });
    }
    if let Some(resources) = statement.resources.as_ref().filter(|_| case.fits_resource(statement) != Truth::Yes) {
        let unresolved = once(resources.patterns.iter().flat_map(|pattern| pattern.keys()));
        let unresolved = unresolved.into_iter().filter(|key| have(case, key).is_none()).map(str::to_owned).collect();
        missed.push(Missed::Resource { written: resources.written.clone(), all_but: resources.all_but, unresolved });
    }
    for condition in statement.conditions.iter().filter(|condition| condition.holds(&case.facts) != Truth::Yes) {
        missed.push(Missed::Condition {
            operator: condition.operator.clone(),
            key: condition.key.clone(),
            wanted: condition.values.clone(),
            have: match case.facts.known(&condition.lower) {
                Known::Values(values) => Have::Values(values.into_iter().map(str::to_owned).collect()),
                Known::Missing => Have::Missing,
                Known::Unknown => Have::Unknown,
            },
        });
    }
    missed
}

/// What people call the policies of a layer.
fn called(layer: Layer) -> &'static str {
    match layer {
        Layer::Identity => "identity-based policies of the principal",
        Layer::Resource => "policy of the resource",
        Layer::Trust => "trust policy of the role",
        Layer::Boundary => "permissions boundary of the principal",
        Layer::Session => "policies that the session was begun with",
    }
}

fn quoted(values: &[String], between: &str) -> String {
    values.iter().map(|value| format!("{value:?}")).collect::<Vec<_>>().join(between)
}

/// `statement 2 (NoSecrets) of inline policy P of role r`
fn place(policy: &str, number: usize, sid: &str) -> String {
    let sid = if sid.is_empty() { String::new() } else { format!(" ({sid})") };
    format!("statement {number}{sid} of {policy}")
}

impl Missed {
    /// What goes on behind "would allow it, but".
    fn told(&self, asked: &Explanation) -> String {
        match self {
            Self::Principal { .. } => format!("its principals do not include {}", asked.principal),
            Self::Resource { written, all_but, unresolved } => {
                let but = if *all_but { "all but " } else { "" };
                let resource = &asked.resource;
                let variables = match unresolved.as_slice() {
                    [] => String::new(),
                    keys => format!(" (no value here: {})", quoted(keys, ", ")),
                };
                format!("it is for {but}{}, and not for {resource:?}{variables}", quoted(written, " and "))
            }
            Self::Condition { operator, key, wanted, have } => {
                let have = match have {
                    Have::Values(values) => format!("the request has {}", quoted(values, " and ")),
                    Have::Missing => "the request has no such key".to_owned(),
                    Have::Unknown => {
                        format!("this server does not know that key, so that it never holds{}", perhaps(key))
                    }
                };
                format!("its condition {operator} wants {key} to be {}, and {have}", quoted(wanted, " or "))
            }
        }
    }
}

impl Missed {
    /// What goes on behind "statement 1".
    fn told_in_short(&self, asked: &Explanation) -> String {
        match self {
            Self::Principal { named, all_but } => {
                format!("is for {}{}", if *all_but { "all but " } else { "" }, named.join(" and "))
            }
            Self::Condition { operator, key, wanted, have } => {
                let Some(is) = verb(operator) else { return format!("does not hold: {}", self.told(asked)) };
                let have = match have {
                    Have::Values(values) => format!("it is {}", values.join(" and ")),
                    Have::Missing => "there is none".to_owned(),
                    Have::Unknown => "that is not known here".to_owned(),
                };
                format!("asks that {key} {is} {}, and {have}", wanted.join(" or "))
            }
            Self::Resource { .. } => format!("does not hold: {}", self.told(asked)),
        }
    }
}

/// An operator that compares text, as a verb.
fn verb(operator: &str) -> Option<&'static str> {
    let operator = operator.to_ascii_lowercase();
    Some(match operator.strip_suffix("ifexists").unwrap_or(&operator) {
        "stringequals" | "stringequalsignorecase" => "is",
        "stringnotequals" | "stringnotequalsignorecase" => "is not",
        "stringlike" | "arnlike" | "arnequals" => "is like",
        "stringnotlike" | "arnnotlike" | "arnnotequals" => "is not like",
        _ => return None,
    })
}

impl Explanation {
    /// Why it is denied, in a clause that follows the name of the policy that would have to allow: of one document, so that a
    /// statement's number says which. One line, whatever names hold; empty where it is allowed.
    ///
    /// `its statement 1 asks that aws:SourceArn is like arn:aws:s3:::*, and it is arn:aws:s3:us-east-1:111111111111:job/1`
    pub fn in_short(&self) -> String {
        let numbered = |number: usize, sid: &str| match sid {
            "" => format!("its statement {number}"),
            sid => format!("its statement {number} ({sid})"),
        };
        let told = match &self.decision.because {
            _ if self.decision.allowed => return String::new(),
            Because::Root => return String::new(),
            Because::Statement { number, sid, .. } => format!("{} denies it", numbered(*number, sid)),
            Because::NoStatement(layer) => {
                let near = || self.near.iter().filter(|near| near.statement.layer == *layer);
                let for_others = |near: &&Near| near.missed.iter().any(|m| matches!(m, Missed::Principal { .. }));
                // What is for others says less than what is for the one who asks, however much else is in its way.
                let ours: Vec<&Near> = near().filter(|near| !for_others(near)).take(1).collect();
                let told = if ours.is_empty() { near().take(NEAR_TOLD_MAX).collect() } else { ours };
                let told = told.iter().map(|Near { statement, missed }| {
                    let whom = missed.iter().find(|missed| matches!(missed, Missed::Principal { .. }));
                    let missed = whom.map_or(missed.as_slice(), std::slice::from_ref).iter();
                    let missed: Vec<String> = missed.map(|missed| missed.told_in_short(self)).collect();
                    format!("{} {}", numbered(statement.number, &statement.sid), missed.join("; and "))
                });
                match told.collect::<Vec<_>>() {
                    told if told.is_empty() => format!("it has no statement that allows {}", self.action),
                    told => told.join("; "),
                }
            }
        };
        plain(&told, SENTENCE_CHARS_MAX)
    }

    /// The decision, the reason, and what would change it, in whole sentences, the most important first. They name policies and
    /// statements: they are for whoever may read these. Each is one line without control characters, whatever names hold.
    pub fn sentences(&self) -> Vec<String> {
        self.told().iter().map(|sentence| plain(sentence, SENTENCE_CHARS_MAX)).collect()
    }

    fn told(&self) -> Vec<String> {
        let Self { principal, action, resource, .. } = self;
        let may = if self.decision.allowed { "may" } else { "may not" };
        let mut told = vec![format!("{principal} {may} {action} on {resource}.")];
        match &self.decision.because {
            Because::Root => told.push("It is the owner of the account, and no policy denies it.".to_owned()),
            Because::Statement { policy, number, sid, layer } => {
                let place = place(policy, *number, sid);
                if self.decision.allowed {
                    told.push(format!("What allows it is {place}."));
                    return told;
                }
                told.push(format!(
                    "What denies it outright is {place}, and no other statement can allow it against that."
                ));
                let deciding = self.matched.iter().find(|matched| {
                    matched.effect == Effect::Deny
                        && (matched.layer, matched.policy.as_str(), matched.number) == (*layer, policy, *number)
                });
                if let Some(keys) = deciding.map(|matched| &matched.unknown_keys).filter(|keys| !keys.is_empty()) {
                    let perhaps: String = keys.iter().map(|key| perhaps(key)).collect();
                    told.push(format!(
                        "It is taken to hold because this server does not know {}: a deny that hangs on a key of which nothing is known always holds{perhaps}.",
                        quoted(keys, " and ")
                    ));
                } else if let Some(keys) = deciding.map(|matched| &matched.missing_keys).filter(|keys| !keys.is_empty())
                {
                    told.push(format!("It holds of a request that does not have {}.", quoted(keys, " and ")));
                }
            }
            Because::NoStatement(layer) => {
                told.push(format!("Nothing in the {} allows it.", called(*layer)));
                if let Some(account) = &self.foreign_account {
                    told.push(format!(
                        "The resource is of another account, {account}: its own policy and those of the principal have to allow it."
                    ));
                }
                let near: Vec<_> =
                    self.near.iter().filter(|near| near.statement.layer == *layer).take(NEAR_TOLD_MAX).collect();
                for Near { statement, missed } in &near {
                    let place = place(&statement.policy, statement.number, &statement.sid);
                    let missed: Vec<String> = missed.iter().map(|missed| missed.told(self)).collect();
                    told.push(format!("It would be allowed by {place}, but {}.", missed.join("; and ")));
                }
                if near.is_empty() {
                    let what = match layer {
                        Layer::Trust => format!("names {principal} as a principal and {action}"),
                        Layer::Resource => format!("names {principal} as a principal, {action} and {resource}"),
                        _ => format!("names {action} and {resource}"),
                    };
                    told.push(format!("No statement with Allow there names the action: one that {what} is missing."));
                }
            }
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::{Context, Document, Kind, Policy, Principal, PrincipalKind, ResourcePolicy, Rights};
    use super::*;

    fn explained(statements: &str, resource: &str, context: &Context) -> Explanation {
        explained_of("111111111111", statements, resource, context)
    }

    fn explained_of(resource_account: &str, statements: &str, resource: &str, context: &Context) -> Explanation {
        let text = format!("{{\"Version\":\"2012-10-17\",\"Statement\":[\n{statements}]}}");
        let document = Document::parse(&text, Kind::Identity).unwrap();
        let rights = Rights {
            identity: vec![Policy { name: "inline policy P of user u".into(), document }],
            ..Rights::default()
        };
        let principal = Principal {
            account: "111111111111".into(),
            arn: "arn:aws:iam::111111111111:user/u".into(),
            user_id: "AIDAEXAMPLEEXAMPLE01".into(),
            kind: PrincipalKind::User { name: "u".into() },
            tags: BTreeMap::from([("team".to_owned(), "red".to_owned())]),
        };
        explain(Question {
            principal: &principal,
            rights: &rights,
            action: "s3:GetObject",
            resource,
            resource_account,
            resource_policy: ResourcePolicy::None,
            context,
        })
    }

    #[test]
    fn an_explanation_says_what_decided_and_what_would_change_it() {
        let blue = r#"{"Sid":"Blue","Effect":"Allow","Action":"s3:Get*","Resource":"arn:aws:s3:::b/*","Condition":{"StringEquals":{"aws:PrincipalTag/team":["blue","green"]}}}"#;
        let elsewhere =
            r#"{"Effect":"Allow","Action":"s3:Get*","Resource":"arn:aws:s3:::c/${aws:PrincipalTag/room}/*"}"#;
        let odd = r#"{"Effect":"Allow","Action":"s3:Get*","Resource":"*","Condition":{"StringLike":{"aws:UserAgent":"aws-cli/*"}}}"#;
        let read = r#"{"Sid":"Read","Effect":"Allow","Action":"s3:Get*","Resource":"*"}"#;
        let forbid = r#"{"Effect":"Deny","Action":"*","Resource":"*","Condition":{"StringEquals":{"s3:x-amz-acl":"public-read"}}}"#;
        let write = r#"{"Effect":"Allow","Action":"s3:PutObject","Resource":"*"}"#;
        let who = "arn:aws:iam::111111111111:user/u";
        let may_not = format!("{who} may not s3:GetObject on arn:aws:s3:::b/k.");
        let nothing = "Nothing in the identity-based policies of the principal allows it.";
        let misspelt =
            r#"{"Effect":"Deny","Action":"s3:*","Resource":"*","Condition":{"StringEquals":{"s3:prefixx":"a"}}}"#;
        let absent =
            r#"{"Effect":"Deny","Action":"s3:*","Resource":"*","Condition":{"StringNotEquals":{"aws:SourceVpc":"v"}}}"#;
        let denied = "What denies it outright is statement 2 of inline policy P of user u, and no other statement can allow it against that.";
        let cases: [(&str, &[&str]); 8] = [
            (
                &format!("{read},{misspelt}"),
                &[
                    denied,
                    "It is taken to hold because this server does not know \"s3:prefixx\": a deny that hangs on a key of which \
                     nothing is known always holds (is s3:prefix meant?).",
                ],
            ),
            (&format!("{read},{absent}"), &[denied, "It holds of a request that does not have \"aws:SourceVpc\"."]),
            (read, &["What allows it is statement 1 (Read) of inline policy P of user u."]),
            (
                write,
                &[
                    nothing,
                    "No statement with Allow there names the action: one that names s3:GetObject and arn:aws:s3:::b/k is missing.",
                ],
            ),
            (
                blue,
                &[
                    nothing,
                    "It would be allowed by statement 1 (Blue) of inline policy P of user u, but its condition StringEquals wants \
                     aws:PrincipalTag/team to be \"blue\" or \"green\", and the request has \"red\".",
                ],
            ),
            (
                elsewhere,
                &[
                    nothing,
                    "It would be allowed by statement 1 of inline policy P of user u, but it is for \
                     \"arn:aws:s3:::c/${aws:PrincipalTag/room}/*\", and not for \"arn:aws:s3:::b/k\" \
                     (no value here: \"aws:PrincipalTag/room\").",
                ],
            ),
            (
                odd,
                &[
                    nothing,
                    "It would be allowed by statement 1 of inline policy P of user u, but its condition StringLike wants aws:UserAgent \
                     to be \"aws-cli/*\", and this server does not know that key, so that it never holds.",
                ],
            ),
            (
                &format!("{read},{forbid}"),
                &[
                    "What denies it outright is statement 2 of inline policy P of user u, and no other statement can allow it against \
                     that.",
                    "It is taken to hold because this server does not know \"s3:x-amz-acl\": a deny that hangs on a key of which \
                     nothing is known always holds.",
                ],
            ),
        ];
        for (statements, wanted) in cases {
            let explanation = explained(statements, "arn:aws:s3:::b/k", &Context::new());
            let verdict = if explanation.decision.allowed { may_not.replace(" not", "") } else { may_not.clone() };
            let sentences = explanation.sentences();
            assert_eq!(sentences[0], verdict);
            assert_eq!(sentences[1..], *wanted, "{statements}");
        }
    }

    #[test]
    fn of_another_accounts_resource_it_is_said_that_both_have_to_allow() {
        let read = r#"{"Effect":"Allow","Action":"s3:Get*","Resource":"*"}"#;
        let told = explained_of("222222222222", read, "arn:aws:s3:::b/k", &Context::new());
        let wanted = [
            "arn:aws:iam::111111111111:user/u may not s3:GetObject on arn:aws:s3:::b/k.",
            "Nothing in the policy of the resource allows it.",
            "The resource is of another account, 222222222222: its own policy and those of the principal have to allow it.",
            "No statement with Allow there names the action: one that names arn:aws:iam::111111111111:user/u as a principal, \
             s3:GetObject and arn:aws:s3:::b/k is missing.",
        ];
        assert_eq!(told.sentences(), wanted);
    }

    #[test]
    fn a_sentence_is_one_line_whatever_a_key_is_called() {
        let statement = r#"{"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::c/*"}"#;
        let sentences = explained(statement, "arn:aws:s3:::b/k\n\u{1b}[2J", &Context::new()).sentences();
        assert!(sentences.iter().all(|sentence| !sentence.contains(char::is_control)), "{sentences:?}");
        assert!(sentences[0].ends_with(r"arn:aws:s3:::b/k\n\u{1b}[2J."), "{}", sentences[0]);
    }

    #[test]
    fn all_statements_that_hold_are_listed_with_their_places_and_keys_that_are_missing_by_name() {
        let statements = r#"{"Effect":"Allow","Action":"s3:Get*","Resource":"*"},
 {"Effect":"Deny","Action":"s3:*","Resource":"arn:aws:s3:::b/*","Condition":{"Bool":{"aws:SecureTransport":false}}},
 {"Effect":"Allow","Action":"s3:Get*","Resource":"arn:aws:s3:::elsewhere","Condition":{"StringEquals":{"aws:SourceVpc":"v"}}},
 {"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringEquals":{"AWS:RequestTag/a":"${aws:RequestTag/B}","aws:PrincipalTag/team":"red"},"Null":{"aws:requesttag/A":"true"}}}"#;
        let plain = Context::new().with("aws:SecureTransport", "false").with_tags("aws:RequestTag/", []);
        let explanation = explained(statements, "arn:aws:s3:::b/k", &plain);
        let places: Vec<_> =
            explanation.matched.iter().map(|m| (m.number, m.effect, m.from.line, m.from.column)).collect();
        assert_eq!(places, [(1, Effect::Allow, 2, 1), (2, Effect::Deny, 3, 2)]);
        assert_eq!(explanation.missing_keys, ["AWS:RequestTag/a", "aws:RequestTag/B"]);
        let near: Vec<_> = explanation.near.iter().map(|n| (n.statement.number, n.missed.len())).collect();
        assert_eq!(near, [(4, 1), (3, 2)], "the nearest first");
        assert!(!explanation.decision.allowed);
    }
}
