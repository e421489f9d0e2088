//! Policies and requests made of choices, out of few enough names that they often meet.

use std::fmt;

use longshore_core::policy::{
    Context, Document, Kind, Policy, Principal, PrincipalKind, Question, ResourcePolicy, Rights,
};
use serde_json::{Value, json};

pub const ACCOUNTS: [&str; 2] = ["111111111111", "222222222222"];

/// Choices from bytes; when they are used up, the first of everything is chosen, so that shorter inputs make smaller cases.
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn below(&mut self, end: usize) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first) % end
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// One of so many times.
    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == times - 1
    }
}

/// Spreads a number over all its bits.
pub fn scrambled(mut n: u64) -> u64 {
    n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// What cases are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Everything,
    /// Only what both engines say they do, and both do as AWS does: see `second_opinion`.
    OfOneMind,
}

/// A whole question, as documents of JSON.
#[derive(Debug, Clone)]
pub struct Asked {
    pub principal: Principal,
    pub identity: Vec<Value>,
    pub boundary: Option<Value>,
    pub session: Option<Vec<Value>>,
    pub of_resource: Option<Value>,
    /// The resource's policy is a trust policy.
    pub trust: bool,
    pub action: &'static str,
    pub resource: &'static str,
    pub resource_account: &'static str,
    pub context: Vec<(&'static str, Vec<&'static str>)>,
}

const ACTIONS: &[&str] = &["s3:GetObject", "s3:PutObject", "lambda:InvokeFunction"];
const ACTION_PATTERNS: &[&str] = &[
    "s3:GetObject",
    "*",
    "s3:*",
    "S3:get*",
    "s3:?utObject",
    "lambda:InvokeFunction",
    "lambda:Invoke*",
    "*:*Object",
    "ec2:*",
];
const RESOURCES: &[&str] = &[
    "arn:aws:s3:::b/u/k",
    "arn:aws:s3:::b/red/k",
    "arn:aws:s3:::b/u/k:1",
    "arn:aws:lambda:us-east-1:111111111111:function:f",
    "arn:aws:lambda:us-east-1:111111111111:function:f:prod",
    "arn:aws:s3:::b/*/k:1",
    "*",
];
const RESOURCE_PATTERNS: &[&str] = &[
    "*",
    "arn:aws:s3:::b/*",
    "arn:aws:s3:::b/?/k",
    "arn:aws:s3:::b/*/k*",
    "arn:aws:s3:::?/*d/k",
    "arn:aws:lambda:us-east-1:111111111111:function:f",
    "arn:aws:lambda:*:*:function:f:*",
    "arn:aws:lambda:us-*:1*:function:?",
];
const VARIED_PATTERNS: &[&str] = &[
    "arn:aws:s3:::b/${aws:username}/*",
    "arn:aws:s3:::b/${aws:PrincipalTag/Team}/k",
    "arn:aws:s3:::b/${aws:PrincipalTag/none, 'u'}/k",
    "arn:aws:s3:::b/${*}/k*",
    "arn:aws:s3:::b/${aws:UserAgent}/k",
    "arn:aws:lambda:*",
    "arn:aws:lambda:*:function:f",
    "arn:aws:s3:*:b/?/*",
    "arn:aws:s3:::b/${aws:RequestTag/team}/*",
];
/// Keys that requests may have, with values that they may have.
const CONTEXT: &[(&str, &[&[&str]])] = &[
    ("aws:SecureTransport", &[&["true"], &["false"]]),
    ("aws:SourceIp", &[&["203.0.113.9"], &["::ffff:203.0.113.9"], &["2001:db8::1"], &["10.0.0.1"]]),
    ("s3:RequestJobPriority", &[&["10"], &["9.5"], &["-3"], &["many"]]),
    ("aws:CurrentTime", &[&["2026-01-01T00:00:00Z"], &["2025-06-30T12:30:00Z"]]),
    ("aws:TagKeys", &[&["team"], &["team", "cost"], &["*"], &[]]),
    ("aws:RequestTag/team", &[&["red"], &["RED"], &["r*"]]),
    ("aws:SourceArn", &[&["arn:aws:s3:us-east-1:111111111111:job/1"], &["arn:aws:s3:::b"]]),
];
/// Operators, and what may be compared with them: a key, and values to want.
const CONDITIONS: &[(&[&str], &str, &[&str])] = &[
    (&["Bool", "BoolIfExists"], "aws:SecureTransport", &["true", "false"]),
    (
        &["IpAddress", "NotIpAddress", "IpAddressIfExists"],
        "aws:SourceIp",
        &["203.0.113.0/24", "2001:db8::/32", "10.0.0.1"],
    ),
    (
        &[
            "NumericLessThan",
            "NumericEquals",
            "NumericNotEquals",
            "NumericGreaterThanEquals",
            "NumericLessThanEqualsIfExists",
        ],
        "s3:RequestJobPriority",
        &["10", "9.50", "-3"],
    ),
    (
        &["DateLessThan", "DateEquals", "DateGreaterThanEquals", "DateNotEquals"],
        "aws:CurrentTime",
        &["2026-01-01T00:00:00Z", "2025-12-31T00:00:00Z"],
    ),
    (
        &[
            "StringEquals",
            "StringNotEquals",
            "StringLike",
            "StringNotLike",
            "StringEqualsIgnoreCase",
            "StringNotEqualsIgnoreCase",
            "StringEqualsIfExists",
            "StringNotLikeIfExists",
        ],
        "aws:RequestTag/team",
        &["red", "r*", "?ed", "RED"],
    ),
    (
        &[
            "ForAllValues:StringEquals",
            "ForAnyValue:StringEquals",
            "ForAnyValue:StringLike",
            "ForAllValues:StringNotEquals",
            "ForAnyValue:StringNotEquals",
        ],
        "aws:TagKeys",
        &["team", "c*", "*"],
    ),
    (&["Null"], "aws:RequestTag/team", &["true", "false"]),
];
/// Those of which the engines are not of one mind, or of which one is wrong.
const ODD_CONDITIONS: &[(&[&str], &str, &[&str])] = &[
    (
        &["ArnEquals", "ArnLike", "ArnNotEquals", "ArnNotLikeIfExists"],
        "aws:SourceArn",
        &["arn:aws:s3:*:111111111111:job/*", "arn:aws:s3:::b", "*"],
    ),
    (&["StringEquals", "StringNotEquals", "StringLike"], "aws:TagKeys", &["team", "*"]),
    (&["ForAnyValue:StringEqualsIfExists", "ForAllValues:StringNotLikeIfExists"], "AWS:tagkeys", &["team"]),
    (
        &["StringEquals", "StringNotEquals", "StringLike"],
        "aws:RequestTag/team",
        &["${aws:PrincipalTag/team}", "${aws:PrincipalTag/none}", "${aws:UserAgent}x", "${*}"],
    ),
    (&["StringEquals", "StringNotEquals", "StringLikeIfExists", "Null"], "aws:UserAgent", &["true", "false"]),
    (&["StringEquals", "StringNotEqualsIfExists"], "aws:username", &["u", "*"]),
    (
        &["StringEquals", "ArnLike"],
        "aws:PrincipalArn",
        &["arn:aws:iam::111111111111:role/p/r", "arn:aws:iam::111111111111:user/u"],
    ),
    (&["StringEquals"], "aws:PrincipalAccount", &["111111111111"]),
    (&["Bool"], "aws:PrincipalIsAWSService", &["true", "false"]),
    (&["StringEquals"], "aws:ResourceAccount", &["111111111111"]),
    (&["StringEquals", "StringNotEquals"], "s3:ResourceAccount", &["111111111111"]),
];
const PRINCIPALS: &[&str] = &[
    r#"{"AWS":"arn:aws:iam::111111111111:user/u"}"#,
    r#""*""#,
    r#"{"AWS":"*"}"#,
    r#"{"AWS":"111111111111"}"#,
    r#"{"AWS":["arn:aws:iam::111111111111:root","arn:aws:iam::222222222222:user/u"]}"#,
    r#"{"AWS":"arn:aws:iam::111111111111:role/p/r"}"#,
    r#"{"AWS":"arn:aws:sts::111111111111:assumed-role/r/s"}"#,
    r#"{"Service":"batchoperations.s3.amazonaws.com"}"#,
    r#"{"Service":"batchoperations.s3.amazonaws.com","AWS":"arn:aws:iam::111111111111:role/p/r"}"#,
];

impl Choices<'_> {
    fn listed(&mut self, of: &[&str]) -> Value {
        match self.once_in(3) {
            true => json!([self.one(of), self.one(of)]),
            false => json!(self.one(of)),
        }
    }

    fn condition(&mut self, source: Source) -> (String, String, Value) {
        let odd = source == Source::Everything && self.once_in(2);
        let (operators, key, wanted) = self.one(if odd { ODD_CONDITIONS } else { CONDITIONS });
        // A list for `Null` is nothing that anybody writes.
        let operator = self.one(operators);
        let wanted = if operator == "Null" { json!(self.one(wanted)) } else { self.listed(wanted) };
        (operator.to_owned(), key.to_owned(), wanted)
    }

    fn statement(&mut self, kind: Kind, effect: &str, source: Source) -> Value {
        let mut statement = json!({ "Effect": effect });
        if kind != Kind::Identity {
            let not = self.once_in(6);
            let principal = serde_json::from_str(self.one(PRINCIPALS)).expect("the principals above are JSON");
            statement[if not { "NotPrincipal" } else { "Principal" }] = principal;
        }
        if kind == Kind::Trust {
            statement["Action"] = json!(self.one(&["sts:AssumeRole", "sts:*", "sts:TagSession"]));
        } else {
            let not = self.once_in(6);
            statement[if not { "NotAction" } else { "Action" }] = self.listed(ACTION_PATTERNS);
            let not = self.once_in(6);
            let varied = source == Source::Everything && self.once_in(3);
            let patterns = if varied { VARIED_PATTERNS } else { RESOURCE_PATTERNS };
            statement[if not { "NotResource" } else { "Resource" }] = self.listed(patterns);
        }
        for _ in 0..self.one(&[0, 0, 1, 1, 2]) {
            let (operator, key, wanted) = self.condition(source);
            statement["Condition"][operator][key] = wanted;
        }
        statement
    }

    fn document(&mut self, kind: Kind, source: Source) -> Value {
        let count = 1 + self.below(2);
        let mut statements = Vec::new();
        for _ in 0..count {
            let effect = if self.once_in(4) { "Deny" } else { "Allow" };
            statements.push(self.statement(kind, effect, source));
        }
        json!({ "Version": "2012-10-17", "Statement": statements })
    }

    fn principal(&mut self, source: Source) -> Principal {
        let who = match source {
            Source::Everything => self.below(7),
            Source::OfOneMind => 0,
        };
        let account = ACCOUNTS[0].to_owned();
        let tags = [("team".to_owned(), self.one(&["red", "*", "u"]).to_owned())].into();
        let user = |name: &str, account: &str| Principal {
            account: account.to_owned(),
            arn: format!("arn:aws:iam::{account}:user/{name}"),
            user_id: "AIDAEXAMPLEEXAMPLE01".to_owned(),
            kind: PrincipalKind::User { name: name.to_owned() },
            tags,
        };
        match who {
            0 => user("u", ACCOUNTS[0]),
            1 => user("*", ACCOUNTS[0]),
            2 => user("u", ACCOUNTS[1]),
            3 | 4 => Principal {
                arn: format!("arn:aws:sts::{account}:assumed-role/r/{}", if who == 3 { "s" } else { "t" }),
                user_id: "AROAEXAMPLEEXAMPLE01:s".to_owned(),
                kind: PrincipalKind::AssumedRole {
                    role_arn: format!("arn:aws:iam::{account}:role/p/r"),
                    session_name: "s".to_owned(),
                },
                account,
                tags: Default::default(),
            },
            5 => Principal {
                arn: format!("arn:aws:iam::{account}:root"),
                user_id: account.clone(),
                kind: PrincipalKind::Root,
                account,
                tags: Default::default(),
            },
            _ => Principal {
                arn: "batchoperations.s3.amazonaws.com".to_owned(),
                user_id: String::new(),
                kind: PrincipalKind::Service,
                account,
                tags: Default::default(),
            },
        }
    }
}

impl Asked {
    pub fn made(choices: &mut Choices<'_>, source: Source) -> Self {
        let principal = choices.principal(source);
        let everything = source == Source::Everything;
        let trust = everything && choices.once_in(6);
        let of_resource = (everything && (trust || choices.once_in(2)))
            .then(|| choices.document(if trust { Kind::Trust } else { Kind::Resource }, source));
        let mut identity = Vec::new();
        for _ in 0..1 + choices.below(2) {
            identity.push(choices.document(Kind::Identity, source));
        }
        let mut context = Vec::new();
        for (key, values) in CONTEXT {
            // What every request has is never missing for the other engine: see there.
            let always = !everything && ["aws:SecureTransport", "aws:SourceIp", "aws:CurrentTime"].contains(key);
            if always || !choices.once_in(3) {
                let chosen = choices.one(values);
                let odd =
                    |values: &[&str]| values.iter().any(|value| value.contains('*') || value.starts_with("::ffff"));
                context.push((*key, if everything || !odd(chosen) { chosen.to_vec() } else { values[0].to_vec() }));
            }
        }
        // An empty list says that the key is missing; for `iam-rs` it would be there.
        context.retain(|(_, values)| everything || !values.is_empty());
        Self {
            boundary: (everything && choices.once_in(4)).then(|| choices.document(Kind::Identity, source)),
            session: (everything && choices.once_in(4)).then(|| vec![choices.document(Kind::Identity, source)]),
            action: if trust { "sts:AssumeRole" } else { choices.one(ACTIONS) },
            resource: choices.one(if everything { RESOURCES } else { &RESOURCES[..5] }),
            resource_account: if everything && choices.once_in(4) { ACCOUNTS[1] } else { ACCOUNTS[0] },
            principal,
            identity,
            of_resource,
            trust,
            context,
        }
    }

    /// Every document, with what it is.
    fn documents(&mut self) -> Vec<(Kind, &mut Value)> {
        let kind = if self.trust { Kind::Trust } else { Kind::Resource };
        let own = self.identity.iter_mut().chain(&mut self.boundary).chain(self.session.iter_mut().flatten());
        own.map(|document| (Kind::Identity, document))
            .chain(self.of_resource.iter_mut().map(|document| (kind, document)))
            .collect()
    }

    /// With one statement more in one of the documents.
    pub fn with_statement(&self, effect: &str, choices: &mut Choices<'_>) -> Self {
        let mut more = self.clone();
        let mut documents = more.documents();
        let at = choices.below(documents.len());
        let (kind, document) = &mut documents[at];
        let statement = choices.statement(*kind, effect, Source::Everything);
        document["Statement"].as_array_mut().expect("a list").push(statement);
        more
    }

    /// With one condition more on the first statement of this effect.
    pub fn with_condition(&self, effect: &str, choices: &mut Choices<'_>) -> Self {
        let (operator, key, wanted) = choices.condition(Source::Everything);
        let mut narrower = self.clone();
        let statements = narrower
            .documents()
            .into_iter()
            .flat_map(|(_, document)| document["Statement"].as_array_mut().expect("a list"));
        let mut statements = statements.filter(|statement| statement["Effect"] == effect);
        if let Some(statement) = statements.next().filter(|statement| statement["Condition"][&operator][&key].is_null())
        {
            // Letter case makes one key of two, which a document may not have.
            let written = |known: &str| known.eq_ignore_ascii_case(&key);
            if !statement["Condition"][&operator]
                .as_object()
                .is_some_and(|keys| keys.keys().any(|known| written(known)))
            {
                statement["Condition"][operator][key] = wanted;
            }
        }
        drop(statements);
        narrower
    }

    /// With a condition on every statement of this effect, on a key of which nobody knows anything.
    pub fn with_unknown_key(&self, effect: &str, choices: &mut Choices<'_>) -> Self {
        let (operator, wanted) = choices.one(&[
            ("StringEquals", "x"),
            ("StringNotEquals", "x"),
            ("StringLikeIfExists", "*"),
            ("ForAllValues:StringLike", "*"),
            ("Null", "true"),
            ("Null", "false"),
            ("NumericLessThan", "9"),
        ]);
        let mut changed = self.clone();
        for (_, document) in changed.documents() {
            for statement in document["Statement"].as_array_mut().expect("a list") {
                if statement["Effect"] == effect {
                    statement["Condition"][operator]["nobody:knows"] = json!(wanted);
                }
            }
        }
        changed
    }

    /// Asks an engine.
    pub fn with_question<T>(&self, ask: impl FnOnce(Question<'_>) -> T) -> T {
        let read = |name: &str, document: &Value, kind| {
            let document =
                Document::parse(&document.to_string(), kind).unwrap_or_else(|told| panic!("{document}: {told}"));
            Policy { name: name.into(), document }
        };
        let several = |name: &str, documents: &[Value]| {
            documents
                .iter()
                .enumerate()
                .map(|(n, document)| read(&format!("{name}{n}"), document, Kind::Identity))
                .collect()
        };
        let rights = Rights {
            identity: several("I", &self.identity),
            boundary: self.boundary.as_ref().map(|document| read("B", document, Kind::Identity)),
            session: self.session.as_ref().map(|documents| several("S", documents)),
        };
        let kind = if self.trust { Kind::Trust } else { Kind::Resource };
        let of_resource = self.of_resource.as_ref().map(|document| read("R", document, kind));
        // That it has no other tags is known of every request.
        let mut context = Context::new().with_tags("aws:RequestTag/", []);
        for (key, values) in &self.context {
            context = context.with_all(key, values.iter().copied());
        }
        ask(Question {
            principal: &self.principal,
            rights: &rights,
            action: self.action,
            resource: self.resource,
            resource_account: self.resource_account,
            resource_policy: match &of_resource {
                None => ResourcePolicy::None,
                Some(policy) if self.trust => ResourcePolicy::Needed(policy),
                Some(policy) => ResourcePolicy::Sufficient(policy),
            },
            context: &context,
        })
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}", self.principal)?;
        writeln!(
            f,
            "asks for {} on {} of {} with {:?}",
            self.action, self.resource, self.resource_account, self.context
        )?;
        for document in &self.identity {
            writeln!(f, "identity {document}")?;
        }
        if let Some(document) = &self.boundary {
            writeln!(f, "boundary {document}")?;
        }
        for document in self.session.iter().flatten() {
            writeln!(f, "session {document}")?;
        }
        if let Some(document) = &self.of_resource {
            writeln!(f, "resource (trust: {}) {document}", self.trust)?;
        }
        Ok(())
    }
}
