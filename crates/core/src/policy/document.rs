//! A policy's document: JSON as AWS reads it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::actions;
use super::condition::{Condition, Operator};
use super::json::{self, Node, Value};
use super::pattern::{ArnPattern, Pattern, Syntax};
use super::principal::{Named, Principals};

pub use super::json::Position;

/// Where a document stands, and so which elements it has to have and may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Of a user, of a role, managed, of a session, a boundary: no principal; resources.
    Identity,
    /// Of a resource: principal and resources.
    Resource,
    /// Of a role: principal, no resources.
    Trust,
}

/// A parsed policy; cheap to clone.
#[derive(Debug, Clone, PartialEq)]
pub struct Document(Arc<Parsed>);

#[derive(Debug, PartialEq)]
struct Parsed {
    text: String,
    statements: Vec<Statement>,
}

/// Whether a statement lets or forbids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    Allow,
    Deny,
}

/// One statement.
#[derive(Debug, PartialEq)]
pub struct Statement {
    /// Empty where it has none.
    pub sid: String,
    pub effect: Effect,
    /// Where its `{` stands in the text.
    pub from: Position,
    /// Behind its `}`.
    pub to: Position,
    pub(super) principals: Option<Principals>,
    pub(super) actions: Actions,
    /// `None` in a trust policy.
    pub(super) resources: Option<Resources>,
    pub(super) conditions: Vec<Condition>,
}

/// Action or NotAction.
#[derive(Debug, PartialEq)]
pub(super) struct Actions {
    pub all_but: bool,
    /// In lower case.
    pub patterns: Vec<Pattern>,
}

/// Resource or NotResource.
#[derive(Debug, PartialEq)]
pub(super) struct Resources {
    pub all_but: bool,
    pub patterns: Vec<ArnPattern>,
    /// As they were written.
    pub written: Vec<String>,
}

/// Why a document is none: the place in it, and what is wrong there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct Malformed {
    /// `Statement[1].Condition.StringEquals`, statements counted from 1; `line 3, column 7` where it is no JSON.
    pub place: String,
    pub reason: String,
}

/// Characters of a document as AWS counts them against its limits: all but white space.
///
/// Source: IAM user guide, "IAM and AWS STS quotas": "IAM doesn't count white space".
pub fn counted_characters(text: &str) -> usize {
    text.chars().filter(|c| !c.is_whitespace()).count()
}

/// Characters of a place or a reason that are told. They quote the document, which may be long; what is wrong stands at the
/// beginning.
const TOLD_CHARS_MAX: usize = 600;

/// A text for people: no control character that would end a line or steer a terminal, and no longer than need be.
pub(super) fn plain(text: &str, chars_max: usize) -> String {
    let mut plain = String::with_capacity(text.len().min(chars_max));
    for (n, c) in text.chars().enumerate() {
        match c {
            _ if n == chars_max => {
                plain.push('…');
                break;
            }
            c if c.is_control() => plain.extend(c.escape_default()),
            c => plain.push(c),
        }
    }
    plain
}

/// Elements that a document may have, and a statement.
const ELEMENTS: &[&str] = &["Version", "Id", "Statement"];
const STATEMENT_ELEMENTS: &[&str] =
    &["Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition"];

impl Document {
    /// Reads a document. Limits on its length are the caller's ([`counted_characters`]), and so is asking whether a principal that it
    /// names exists.
    ///
    /// Source: IAM user guide, "Grammar of the IAM JSON policy language"; the messages begin as IAM's do where these are known.
    /// Which actions, keys and values are refused although AWS takes them: decision 0043.
    pub fn parse(text: &str, kind: Kind) -> Result<Self, Malformed> {
        let root = json::read(text).map_err(|broken| Malformed {
            place: format!("line {}, column {}", broken.at.line, broken.at.column),
            reason: plain(&format!("This policy contains invalid Json: {}", broken.reason), TOLD_CHARS_MAX),
        })?;
        let place = Place::root();
        let members = place.object(&root, ELEMENTS)?;
        let variables = match get(members, "Version") {
            None => false,
            Some(version) => match place.member("Version").text(version)? {
                "2008-10-17" => false,
                "2012-10-17" => true,
                other => {
                    return Err(place.member("Version").wrong(format!(
                        "The policy must contain a valid version string: {other:?} is neither 2012-10-17 nor 2008-10-17"
                    )));
                }
            },
        };
        if let Some(id) = get(members, "Id") {
            place.member("Id").text(id)?;
        }
        let Some(listed) = get(members, "Statement") else {
            return Err(place.wrong("Syntax errors in policy: it has no Statement"));
        };
        let nodes = match &listed.value {
            Value::List(nodes) if nodes.is_empty() => {
                return Err(place
                    .member("Statement")
                    .wrong("Syntax errors in policy: it is empty; a policy has at least one statement"));
            }
            Value::List(nodes) => nodes.as_slice(),
            _ => std::slice::from_ref(listed),
        };
        let reader = Reader { kind, variables };
        let mut statements: Vec<Statement> = Vec::with_capacity(nodes.len());
        let mut sids = BTreeSet::new();
        for (n, node) in nodes.iter().enumerate() {
            let place = Place(format!("Statement[{}]", n + 1));
            let statement = reader.statement(&place, node)?;
            if !statement.sid.is_empty() && !sids.insert(statement.sid.clone()) {
                return Err(place.member("Sid").wrong(format!(
                    "Statement IDs (SID) in a single policy must be unique: an earlier one is {:?} already",
                    statement.sid
                )));
            }
            statements.push(statement);
        }
        Ok(Self(Arc::new(Parsed { text: text.to_owned(), statements })))
    }

    /// As it was given.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    pub fn statements(&self) -> &[Statement] {
        &self.0.statements
    }

    /// The keys that its conditions and variables ask for, each once as it was written first: what GetContextKeysForCustomPolicy
    /// lists.
    pub fn context_keys(&self) -> Vec<&str> {
        once(self.statements().iter().flat_map(Statement::keys))
    }
}

impl Statement {
    /// The keys that its resources and conditions ask for, as they were written.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        let resources =
            self.resources.iter().flat_map(|resources| resources.patterns.iter().flat_map(ArnPattern::keys));
        resources.chain(self.conditions.iter().flat_map(Condition::keys))
    }
}

/// Keys without those that differ from an earlier one in case alone.
pub(super) fn once<'a>(keys: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = BTreeSet::new();
    keys.filter(|key| seen.insert(key.to_ascii_lowercase())).collect()
}

fn get<'n>(members: &'n [(String, Node)], name: &str) -> Option<&'n Node> {
    members.iter().find(|(member, _)| member == name).map(|(_, node)| node)
}

/// Where we are in a document, for errors.
#[derive(Debug, Clone)]
struct Place(String);

impl Place {
    fn root() -> Self {
        Self(String::new())
    }

    fn member(&self, name: &str) -> Self {
        Self(if self.0.is_empty() { name.to_owned() } else { format!("{}.{name}", self.0) })
    }

    fn wrong(&self, reason: impl Into<String>) -> Malformed {
        let place = if self.0.is_empty() { "the document" } else { self.0.as_str() };
        Malformed { place: plain(place, TOLD_CHARS_MAX), reason: plain(&reason.into(), TOLD_CHARS_MAX) }
    }

    fn text<'n>(&self, node: &'n Node) -> Result<&'n str, Malformed> {
        match &node.value {
            Value::Text(text) => Ok(text),
            other => {
                Err(self.wrong(format!("Syntax errors in policy: a string should stand here, not {}", other.kind())))
            }
        }
    }

    /// An object with no other members than these.
    fn object<'n>(&self, node: &'n Node, known: &[&str]) -> Result<&'n [(String, Node)], Malformed> {
        let members = self.map(node)?;
        match members.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            None => Ok(members),
            Some((name, _)) => {
                let hint = actions::nearest(name, known.iter().copied())
                    .map_or(String::new(), |near| format!("; is {near} meant?"));
                Err(self.member(name).wrong(format!("Syntax errors in policy: there is no element {name:?}{hint}")))
            }
        }
    }

    fn map<'n>(&self, node: &'n Node) -> Result<&'n [(String, Node)], Malformed> {
        match &node.value {
            Value::Object(members) => Ok(members),
            other => {
                Err(self.wrong(format!("Syntax errors in policy: an object should stand here, not {}", other.kind())))
            }
        }
    }

    /// A string, or a list of at least one.
    fn texts<'n>(&self, node: &'n Node, empty: &str) -> Result<Vec<&'n str>, Malformed> {
        match &node.value {
            Value::List(nodes) if nodes.is_empty() => Err(self.wrong(empty)),
            Value::List(nodes) => nodes.iter().map(|node| self.text(node)).collect(),
            _ => Ok(vec![self.text(node)?]),
        }
    }
}

struct Reader {
    kind: Kind,
    /// Whether the language's version has variables.
    variables: bool,
}

/// Of an element and its opposite, the one that is there, and whether it is the opposite.
fn either<'n>(
    place: &Place,
    members: &'n [(String, Node)],
    name: &str,
    opposite: &str,
) -> Result<Option<(bool, Place, &'n Node)>, Malformed> {
    match (get(members, name), get(members, opposite)) {
        (Some(_), Some(_)) => Err(place
            .wrong(format!("Syntax errors in policy: a statement has {name} or {opposite}, and this one has both"))),
        (Some(node), None) => Ok(Some((false, place.member(name), node))),
        (None, Some(node)) => Ok(Some((true, place.member(opposite), node))),
        (None, None) => Ok(None),
    }
}

impl Reader {
    fn statement(&self, place: &Place, node: &Node) -> Result<Statement, Malformed> {
        let members = place.object(node, STATEMENT_ELEMENTS)?;
        let sid = match get(members, "Sid") {
            None => "",
            Some(sid) => place.member("Sid").text(sid)?,
        };
        if self.kind != Kind::Resource && !sid.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(place.member("Sid").wrong(format!(
                "Statement IDs (SID) must be alpha-numeric: {sid:?} does not satisfy the regular expression [0-9A-Za-z]*"
            )));
        }
        let effect = match get(members, "Effect") {
            None => return Err(place.wrong("Syntax errors in policy: the statement has no Effect")),
            Some(node) => match place.member("Effect").text(node)? {
                "Allow" => Effect::Allow,
                "Deny" => Effect::Deny,
                other => {
                    return Err(place
                        .member("Effect")
                        .wrong(format!("Invalid effect: {other}: it is Allow or Deny, written just so")));
                }
            },
        };
        let principals = self.principals(place, members)?;
        let actions = self.actions(place, members)?;
        let resources = self.resources(place, members)?;
        let conditions = match get(members, "Condition") {
            None => Vec::new(),
            Some(node) => self.conditions(&place.member("Condition"), node)?,
        };
        Ok(Statement {
            sid: sid.to_owned(),
            effect,
            from: node.from,
            to: node.to,
            principals,
            actions,
            resources,
            conditions,
        })
    }

    fn principals(&self, place: &Place, members: &[(String, Node)]) -> Result<Option<Principals>, Malformed> {
        let found = either(place, members, "Principal", "NotPrincipal")?;
        if self.kind == Kind::Identity {
            return match found {
                None => Ok(None),
                Some((_, place, _)) => {
                    Err(place.wrong("Policy document should not specify a principal: it is whoever has the policy"))
                }
            };
        }
        let Some((all_but, place, node)) = found else {
            return Err(place.wrong("Missing required field Principal: the statement has to say for whom it is"));
        };
        let mut names = Vec::new();
        if let Value::Text(text) = &node.value {
            if text != "*" {
                return Err(place.wrong(format!(
                    "Invalid principal in policy: {text:?}: write {{\"AWS\": …}} or {{\"Service\": …}}; only * stands alone"
                )));
            }
            names.push(Named::Everyone);
        } else {
            for (vendor, node) in place.object(node, &["AWS", "Service", "Federated", "CanonicalUser"])? {
                let place = place.member(vendor);
                for text in place.texts(node, "Invalid principal in policy: the list is empty")? {
                    let named = match vendor.as_str() {
                        "AWS" => Named::read_aws(text),
                        "Service" => Named::read_service(text),
                        _ => Ok(Named::Elsewhere),
                    };
                    names.push(
                        named.map_err(|told| place.wrong(format!("Invalid principal in policy: {text:?} {told}")))?,
                    );
                }
            }
            if names.is_empty() {
                return Err(place.wrong("Invalid principal in policy: it names nobody"));
            }
        }
        Ok(Some(if all_but { Principals::AllBut(names) } else { Principals::These(names) }))
    }

    fn actions(&self, place: &Place, members: &[(String, Node)]) -> Result<Actions, Malformed> {
        let Some((all_but, place, node)) = either(place, members, "Action", "NotAction")? else {
            return Err(place.wrong("Policy statement must contain actions"));
        };
        let mut patterns = Vec::new();
        for action in place.texts(node, "Policy statement must contain actions: the list is empty")? {
            let told = |reason: String| Err(place.wrong(reason));
            let letters = |text: &str, others: &str| {
                !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
            };
            match action.split_once(':') {
                None if action == "*" => {}
                None => {
                    return told(format!(
                        "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.: {action:?} is no service:Action"
                    ));
                }
                Some((_, name)) if name.contains(':') => {
                    return told(format!("Actions/Condition can contain only one colon: {action:?}"));
                }
                Some((service, _)) if service != "*" && !letters(service, "-.") => {
                    return told(format!("Vendor {service} is not valid"));
                }
                Some((_, name)) if !letters(name, "*?") => {
                    return told(format!("{action:?} is no service:Action: a name has letters, digits, * and ?"));
                }
                Some(_) => {}
            }
            if let Some(fault) = actions::fault(action) {
                return told(fault);
            }
            if self.kind == Kind::Trust && !action.get(..4).is_some_and(|vendor| vendor.eq_ignore_ascii_case("sts:")) {
                return told(format!("AssumeRole policy may only specify STS AssumeRole actions: {action:?} is none"));
            }
            let pattern = Pattern::read(&action.to_ascii_lowercase(), Syntax { wildcards: true, variables: false });
            patterns.push(pattern.map_err(|told| place.wrong(told))?);
        }
        Ok(Actions { all_but, patterns })
    }

    fn resources(&self, place: &Place, members: &[(String, Node)]) -> Result<Option<Resources>, Malformed> {
        let found = either(place, members, "Resource", "NotResource")?;
        if self.kind == Kind::Trust {
            return match found {
                None => Ok(None),
                Some((_, place, _)) => {
                    Err(place.wrong("Has prohibited field Resource: a trust policy is for its role"))
                }
            };
        }
        let Some((all_but, place, node)) = found else {
            return Err(place.wrong("Policy statement must contain resources"));
        };
        let mut patterns = Vec::new();
        let mut written = Vec::new();
        for resource in place.texts(node, "Policy statement must contain resources: the list is empty")? {
            let pattern = ArnPattern::read(resource, Syntax { wildcards: true, variables: self.variables })
                .map_err(|told| place.wrong(format!("{resource:?}: {told}")))?;
            if let Some(fault) = pattern.fault() {
                return Err(place.wrong(format!("Resource {resource} {fault}.")));
            }
            patterns.push(pattern);
            written.push(resource.to_owned());
        }
        Ok(Some(Resources { all_but, patterns, written }))
    }

    fn conditions(&self, place: &Place, node: &Node) -> Result<Vec<Condition>, Malformed> {
        let mut conditions = Vec::new();
        for (written, node) in place.map(node)? {
            let place = place.member(written);
            let operator =
                Operator::read(written).map_err(|told| place.wrong(format!("Syntax errors in policy: {told}")))?;
            let mut keys = BTreeSet::new();
            for (key, node) in place.map(node)? {
                let place = place.member(key);
                if !key.split_once(':').is_some_and(|(service, name)| !service.is_empty() && !name.is_empty()) {
                    return Err(place.wrong(format!(
                        "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.: {key:?} is no key like aws:SourceIp"
                    )));
                }
                if !keys.insert(key.to_ascii_lowercase()) {
                    return Err(place
                        .wrong("Syntax errors in policy: the key stands here twice; letter case makes no difference"));
                }
                let values = self.values(&place, node)?;
                let condition = Condition::read(operator, written, key, values, self.variables);
                conditions.push(condition.map_err(|told| place.wrong(told))?);
            }
        }
        Ok(conditions)
    }

    /// The values of a condition. Numbers and booleans may stand without quotes.
    fn values(&self, place: &Place, node: &Node) -> Result<Vec<String>, Malformed> {
        let one = |node: &Node| match &node.value {
            Value::Text(text) | Value::Number(text) => Ok(text.clone()),
            Value::Bool(yes) => Ok(yes.to_string()),
            other => Err(place.wrong(format!(
                "Syntax errors in policy: a string, a number, true or false should stand here, not {}",
                other.kind()
            ))),
        };
        match &node.value {
            Value::List(nodes) if nodes.is_empty() => {
                Err(place.wrong("Syntax errors in policy: the list is empty, so that nothing could ever fit it"))
            }
            Value::List(nodes) => nodes.iter().map(one).collect(),
            _ => Ok(vec![one(node)?]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATEMENT: &str = r#"{"Effect":"Allow","Action":"s3:GetObject","Resource":"*"}"#;

    fn parsed(text: &str, kind: Kind) -> Result<Document, String> {
        Document::parse(text, kind).map_err(|told| told.to_string())
    }

    fn of(members: &str) -> String {
        format!(r#"{{"Version":"2012-10-17","Statement":[{STATEMENT},{{"Effect":"Allow",{members}}}]}}"#)
    }

    #[test]
    fn what_aws_accepts_is_read() {
        let identity = [
            &format!(r#"{{"Statement":{STATEMENT}}}"#),
            &format!(r#"{{"Version":"2008-10-17","Id":"anything at all","Statement":[{STATEMENT}]}}"#),
            r#" { "Version" : "2012-10-17", "Statement" : [ { "Sid" : "", "Effect" : "Deny", "NotAction" : [ "iam:*", "*" ], "NotResource" : [ "arn:aws:s3:::b", "arn:aws:iam::aws:policy/*" ] } ] } "#,
            &of(r#""Action":"ec2:NobodyKnows","Resource":"arn:aws:ec2:*:*:instance/*""#),
            &of(r#""Action":["S3:get*","*:Get*"],"Resource":"arn:aws:lambda:*""#),
            &of(r#""Action":"s3:*","Resource":"*","Condition":{}"#),
            &of(
                r#""Action":"s3:*","Resource":"*","Condition":{"StringEquals":{"aws:SourceAccount":[111111111111,"2"]},"Bool":{"aws:SecureTransport":true},"ForAnyValue:StringLike":{"aws:TagKeys":"*"}}"#,
            ),
            &of(r#""Action":"s3:*","Resource":"arn:aws:s3:::b/${aws:username}/${aws:PrincipalTag/a b, 'c}d'}/${*}""#),
        ];
        for text in identity {
            let document = parsed(text, Kind::Identity).unwrap_or_else(|told| panic!("{text}: {told}"));
            assert_eq!(document.text(), text);
        }
        let resource = [
            r#""Principal":"*","Action":"s3:*","Resource":"arn:aws:s3:::b""#,
            r#""Sid":"with-dashes and spaces","Principal":{"AWS":["111111111111","arn:aws:iam::111111111111:root","*"],"Service":"s3.amazonaws.com"},"Action":"s3:*","Resource":"*""#,
            r#""NotPrincipal":{"AWS":"arn:aws:sts::111111111111:assumed-role/r/s","CanonicalUser":"79a5","Federated":"accounts.google.com"},"Action":"s3:*","Resource":"*""#,
        ];
        for members in resource {
            let text = of(members).replace(&format!("{STATEMENT},"), "");
            assert!(parsed(&text, Kind::Resource).is_ok(), "{text}: {:?}", parsed(&text, Kind::Resource));
        }
        let trust = r#"{"Statement":[{"Effect":"Allow","Principal":{"Service":"batchoperations.s3.amazonaws.com"},"Action":["sts:AssumeRole","STS:TagSession"]}]}"#;
        assert!(parsed(trust, Kind::Trust).is_ok());
    }

    /// The messages begin as IAM's do; what follows is the place and what to do.
    #[test]
    fn what_aws_refuses_is_told_with_its_place() {
        let cases = [
            ("", "line 1, column 1: This policy contains invalid Json: the text ends where a value should stand"),
            (
                "{\"Version\":\n  2012-10-17}",
                "line 2, column 7: This policy contains invalid Json: a comma or } should stand here",
            ),
            ("[]", "the document: Syntax errors in policy: an object should stand here, not a list"),
            (r#"{"Version":"2012-10-17"}"#, "the document: Syntax errors in policy: it has no Statement"),
            (
                r#"{"Statement":[]}"#,
                "Statement: Syntax errors in policy: it is empty; a policy has at least one statement",
            ),
            (
                r#"{"Statements":[]}"#,
                "Statements: Syntax errors in policy: there is no element \"Statements\"; is Statement meant?",
            ),
            (
                &format!(r#"{{"Version":"2012-10-18","Statement":{STATEMENT}}}"#),
                "Version: The policy must contain a valid version string: \"2012-10-18\" is neither 2012-10-17 nor 2008-10-17",
            ),
            (
                &format!(r#"{{"Id":1,"Statement":{STATEMENT}}}"#),
                "Id: Syntax errors in policy: a string should stand here, not a number",
            ),
            (
                r#"{"Statement":["x"]}"#,
                "Statement[1]: Syntax errors in policy: an object should stand here, not a string",
            ),
            (
                r#"{"Statement":{"Action":"s3:*","Resource":"*"}}"#,
                "Statement[1]: Syntax errors in policy: the statement has no Effect",
            ),
            (
                r#"{"Statement":{"Effect":"allow","Action":"s3:*","Resource":"*"}}"#,
                "Statement[1].Effect: Invalid effect: allow: it is Allow or Deny, written just so",
            ),
            (
                &of(r#""Sid":"a-b","Action":"s3:*","Resource":"*""#),
                "Statement[2].Sid: Statement IDs (SID) must be alpha-numeric: \"a-b\" does not satisfy the regular expression [0-9A-Za-z]*",
            ),
            (
                r#"{"Statement":[{"Sid":"a","Effect":"Allow","Action":"s3:*","Resource":"*"},{"Sid":"a","Effect":"Deny","Action":"s3:*","Resource":"*"}]}"#,
                "Statement[2].Sid: Statement IDs (SID) in a single policy must be unique: an earlier one is \"a\" already",
            ),
            (
                &of(r#""Principal":"*","Action":"s3:*","Resource":"*""#),
                "Statement[2].Principal: Policy document should not specify a principal: it is whoever has the policy",
            ),
            (&of(r#""Resource":"*""#), "Statement[2]: Policy statement must contain actions"),
            (&of(r#""Action":"s3:*""#), "Statement[2]: Policy statement must contain resources"),
            (
                &of(r#""Action":[],"Resource":"*""#),
                "Statement[2].Action: Policy statement must contain actions: the list is empty",
            ),
            (
                &of(r#""Action":"s3:*","Resource":[]"#),
                "Statement[2].Resource: Policy statement must contain resources: the list is empty",
            ),
            (
                &of(r#""Action":"s3:*","NotAction":"s3:*","Resource":"*""#),
                "Statement[2]: Syntax errors in policy: a statement has Action or NotAction, and this one has both",
            ),
            (
                &of(r#""Action":7,"Resource":"*""#),
                "Statement[2].Action: Syntax errors in policy: a string should stand here, not a number",
            ),
            (
                &of(r#""Action":["s3:*",{}],"Resource":"*""#),
                "Statement[2].Action: Syntax errors in policy: a string should stand here, not an object",
            ),
            (
                &of(r#""Action":"GetObject","Resource":"*""#),
                "Statement[2].Action: Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.: \"GetObject\" is no service:Action",
            ),
            (
                &of(r#""Action":"s3:Get:Object","Resource":"*""#),
                "Statement[2].Action: Actions/Condition can contain only one colon: \"s3:Get:Object\"",
            ),
            (&of(r#""Action":"s_3:GetObject","Resource":"*""#), "Statement[2].Action: Vendor s_3 is not valid"),
            (
                &of(r#""Action":"s3:","Resource":"*""#),
                "Statement[2].Action: \"s3:\" is no service:Action: a name has letters, digits, * and ?",
            ),
            (
                &of(r#""Action":"s3:GetObjcet","Resource":"*""#),
                "Statement[2].Action: there is no action s3:GetObjcet; is s3:GetObject meant?",
            ),
            (
                &of(r#""Action":"s3:*","Resource":"bucket""#),
                "Statement[2].Resource: Resource bucket must be in ARN format or \"*\".",
            ),
            (
                &of(r#""Action":"s3:*","Resource":"arn:aws:s3::b""#),
                "Statement[2].Resource: Resource arn:aws:s3::b must be in ARN format or \"*\": an ARN has six parts, arn:partition:service:region:account:resource.",
            ),
            (
                &of(r#""Action":"s3:*","Resource":"arn::s3:::b""#),
                "Statement[2].Resource: Resource arn::s3:::b names no partition: write arn:aws:….",
            ),
            (
                &of(r#""Action":"s3:*","Resource":"arn:aws:*:::b""#),
                "Statement[2].Resource: Resource arn:aws:*:::b must name its service without wildcards.",
            ),
            (
                &of(r#""Action":"s3:*","Resource":"arn:aws:iam::${aws:PrincipalAccount}:user/u""#),
                "Statement[2].Resource: Resource arn:aws:iam::${aws:PrincipalAccount}:user/u has a variable before its fifth colon, where none may stand.",
            ),
            (
                &of(r#""Action":"s3:*","Resource":"*","Condition":{"StringsEqual":{"aws:x":"y"}}"#),
                "Statement[2].Condition.StringsEqual: Syntax errors in policy: there is no condition operator \"StringsEqual\"; is StringEquals meant?",
            ),
            (
                &of(r#""Action":"s3:*","Resource":"*","Condition":{"StringEquals":{"x":"y"}}"#),
                "Statement[2].Condition.StringEquals.x: Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.: \"x\" is no key like aws:SourceIp",
            ),
            (
                &of(r#""Action":"s3:*","Resource":"*","Condition":{"StringEquals":{"aws:x":"y","AWS:X":"z"}}"#),
                "Statement[2].Condition.StringEquals.AWS:X: Syntax errors in policy: the key stands here twice; letter case makes no difference",
            ),
            (
                &of(r#""Action":"s3:*","Resource":"*","Condition":{"StringEquals":{"aws:x":[]}}"#),
                "Statement[2].Condition.StringEquals.aws:x: Syntax errors in policy: the list is empty, so that nothing could ever fit it",
            ),
            (
                &of(r#""Action":"s3:*","Resource":"*","Condition":{"StringEquals":{"aws:x":null}}"#),
                "Statement[2].Condition.StringEquals.aws:x: Syntax errors in policy: a string, a number, true or false should stand here, not null",
            ),
            (
                &of(r#""Action":"s3:*","Resource":"*","Condition":{"IpAddress":{"aws:SourceIp":"nowhere"}}"#),
                "Statement[2].Condition.IpAddress.aws:SourceIp: \"nowhere\" is no IP address or range: write it like 203.0.113.0/24 or 2001:db8::/32",
            ),
            (
                &of(r#""Action":"s3:*","Resource":"*","Effect":"Deny""#),
                "line 1, column 145: This policy contains invalid Json: \"Effect\" stands here for the second time in one object",
            ),
        ];
        for (text, wanted) in cases {
            assert_eq!(parsed(text, Kind::Identity).map(|_| ()), Err(wanted.to_owned()), "{text}");
        }
    }

    #[test]
    fn who_may_be_named_and_what_a_trust_policy_may_say_is_told() {
        let cases = [
            (
                Kind::Trust,
                r#""Action":"sts:AssumeRole""#,
                "Statement[1]: Missing required field Principal: the statement has to say for whom it is",
            ),
            (
                Kind::Trust,
                r#""Principal":"*","Action":"sts:AssumeRole","Resource":"*""#,
                "Statement[1].Resource: Has prohibited field Resource: a trust policy is for its role",
            ),
            (
                Kind::Trust,
                r#""Principal":"*","Action":"s3:GetObject""#,
                "Statement[1].Action: AssumeRole policy may only specify STS AssumeRole actions: \"s3:GetObject\" is none",
            ),
            (
                Kind::Trust,
                r#""Principal":"*","Action":"*""#,
                "Statement[1].Action: AssumeRole policy may only specify STS AssumeRole actions: \"*\" is none",
            ),
            (
                Kind::Trust,
                r#""Principal":"somebody","Action":"sts:AssumeRole""#,
                "Statement[1].Principal: Invalid principal in policy: \"somebody\": write {\"AWS\": …} or {\"Service\": …}; only * stands alone",
            ),
            (
                Kind::Trust,
                r#""Principal":{},"Action":"sts:AssumeRole""#,
                "Statement[1].Principal: Invalid principal in policy: it names nobody",
            ),
            (
                Kind::Trust,
                r#""Principal":{"AWS":[]},"Action":"sts:AssumeRole""#,
                "Statement[1].Principal.AWS: Invalid principal in policy: the list is empty",
            ),
            (
                Kind::Trust,
                r#""Principal":{"Aws":"*"},"Action":"sts:AssumeRole""#,
                "Statement[1].Principal.Aws: Syntax errors in policy: there is no element \"Aws\"; is AWS meant?",
            ),
            (
                Kind::Trust,
                r#""Principal":{"Service":"lambda"},"Action":"sts:AssumeRole""#,
                "Statement[1].Principal.Service: Invalid principal in policy: \"lambda\" is no service: one is named like lambda.amazonaws.com",
            ),
            (
                Kind::Resource,
                r#""Principal":"*","NotPrincipal":"*","Action":"s3:*","Resource":"*""#,
                "Statement[1]: Syntax errors in policy: a statement has Principal or NotPrincipal, and this one has both",
            ),
            (
                Kind::Resource,
                r#""Principal":"*","Action":"s3:*""#,
                "Statement[1]: Policy statement must contain resources",
            ),
        ];
        for (kind, members, wanted) in cases {
            let text = format!(r#"{{"Statement":[{{"Effect":"Allow",{members}}}]}}"#);
            assert_eq!(parsed(&text, kind).map(|_| ()), Err(wanted.to_owned()), "{text}");
        }
        for name in [
            "11111111111",
            "arn:aws:iam::111111111111:user/",
            "arn:aws:iam::111111111111:group/g",
            "arn:aws:iam::111111111111:user/u*",
            "arn:aws:sts::111111111111:assumed-role/r",
            "arn:aws:s3:::b",
            "${aws:username}",
            "AIDA",
            "arn:aws:iam::111:root",
            "",
        ] {
            let text = format!(
                r#"{{"Statement":[{{"Effect":"Allow","Principal":{{"AWS":"{name}"}},"Action":"sts:AssumeRole"}}]}}"#
            );
            let told = parsed(&text, Kind::Trust).map(|_| ()).unwrap_err();
            assert!(told.starts_with("Statement[1].Principal.AWS: Invalid principal in policy: "), "{name}: {told}");
        }
    }

    #[test]
    fn what_is_told_is_one_line_and_no_longer_than_need_be_whatever_the_document_holds() {
        let long = "x".repeat(100_000);
        for text in [
            of(r#""Action":"s3:*","Resource":"a\nb\u001b[31m\u009b""#),
            of(r#""Action":"s3:*","Resource":"*","Condition":{"a\nb":{}}"#),
            of(&format!(r#""Action":"s3:*","Resource":"*","Condition":{{"StringEquals":{{"{long}":"x"}}}}"#)),
            of(&format!(r#""Action":"{long}","Resource":"*""#)),
            format!(r#"{{"{long}":1,"{long}":2}}"#),
        ] {
            let told = Document::parse(&text, Kind::Identity).unwrap_err();
            let whole = told.to_string();
            assert!(!whole.contains(char::is_control) && whole.chars().count() < 2 * TOLD_CHARS_MAX + 10, "{whole}");
        }
    }

    #[test]
    fn keys_are_listed_once_as_they_were_written_first_and_size_is_counted_without_white_space() {
        let text = of(
            r#""Action":"s3:*","Resource":"arn:aws:s3:::b/${aws:UserName}","Condition":{"StringLike":{"aws:TagKeys":"${AWS:username}-${aws:PrincipalTag/x}"},"Null":{"AWS:tagkeys":"true"}}"#,
        );
        let document = parsed(&text, Kind::Identity).unwrap();
        assert_eq!(document.context_keys(), ["aws:UserName", "aws:TagKeys", "aws:PrincipalTag/x"]);
        assert_eq!(counted_characters(" {\n\t\"é\": \"a b\" } "), 10);
    }
}
