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
            reason: format!("This policy contains invalid Json: {}", broken.reason),
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
        let place = if self.0.is_empty() { "the document".to_owned() } else { self.0.clone() };
        Malformed { place, reason: reason.into() }
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
