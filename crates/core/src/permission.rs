//! Resource policies: who else may do what with a function, a version or an alias, and on which conditions.
//!
//! Plain values, in the shape in which AWS writes them. A user or role is meant by the unique ID that it had when the statement was added:
//! that is stored beside its ARN, is evaluated, and is shown once the ARN is nobody's or somebody else's. Source: Lambda spec 6.1, 6.2; IAM
//! user guide, "AWS JSON policy elements: Principal".

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Bytes of the whole document of one resource. Source: Lambda spec 6.1.
pub const POLICY_BYTES_MAX: usize = 20_480;

/// The statements of one resource's policy, in the order in which they were added. One without statements is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Policy {
    pub statements: Vec<Statement>,
}

/// One permission. Members stand in AWS's order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Statement {
    /// Unique within the policy.
    pub sid: String,
    pub effect: Effect,
    pub principal: Principal,
    /// `lambda:InvokeFunction`, `lambda:*` or `*`, as given.
    pub action: String,
    /// The ARN that the policy belongs to: with the version or alias, if it is that one's.
    pub resource: String,
    /// All of them have to hold. Empty if there are none.
    #[serde(default, skip_serializing_if = "Conditions::is_empty")]
    pub condition: Conditions,
    /// Of the user or role that the principal's ARN meant when this was added. `None` for all other principals, and in statements
    /// of earlier versions: they mean whoever has the ARN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique_id: Option<String>,
}

/// Whom an ARN of IAM means now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meant {
    /// A user or role, by its unique ID: `AIDA…`, `AROA…`.
    Entity(String),
    /// A user or role of this account that there is not.
    Nobody,
    /// Somebody of another account, a whole account, a session; or IAM is off.
    Unknown,
}

/// AddPermission knows no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    Allow,
}

/// Whom a statement is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Principal {
    /// Everybody, with an account or without.
    #[serde(rename = "*")]
    Everyone,
    /// An ARN of IAM or STS; of a whole account it ends in `:root`.
    #[serde(rename = "AWS")]
    Aws(String),
    /// `s3.amazonaws.com`.
    Service(String),
}

impl Principal {
    /// From what AddPermission is given: `*`, twelve digits, an ARN, or a service. `None` is what AWS calls an invalid
    /// principal. Whether whoever is named exists is not known here. Source: Lambda spec 6.2.
    pub fn read(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Everyone);
        }
        if is_account(text) {
            return Some(Self::Aws(format!("arn:aws:iam::{text}:root")));
        }
        if text.starts_with("arn:") {
            return is_identity(text).then(|| Self::Aws(text.to_owned()));
        }
        let name = text.strip_suffix(".amazonaws.com")?;
        let label = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        name.split('.').all(label).then(|| Self::Service(text.to_owned()))
    }
}

impl Principal {
    /// What AddPermission may have been given for this one: `lambda:Principal` of whoever adds it, or removes it. A whole account is meant by
    /// its number as well as by its ARN, and a policy may name either.
    pub fn spellings(&self) -> Vec<&str> {
        match self {
            Self::Everyone => vec!["*"],
            Self::Service(name) => vec![name],
            Self::Aws(arn) => {
                let account = match arn.splitn(6, ':').collect::<Vec<_>>()[..] {
                    [_, _, _, _, account, "root"] => Some(account),
                    _ => None,
                };
                std::iter::once(arn.as_str()).chain(account).collect()
            }
        }
    }
}

/// `111111111111`.
fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

/// `arn:aws:iam::111111111111:user/u`, and what STS makes of a role: `arn:aws:sts::111111111111:assumed-role/r/s`.
fn is_identity(arn: &str) -> bool {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let [_, partition, "iam" | "sts", "", account, resource] = parts[..] else { return false };
    let partition_fits = partition.strip_prefix("aws").is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    let named = |kind: &str| resource.strip_prefix(kind).is_some_and(|name| !name.is_empty());
    let kinds = ["user/", "role/", "assumed-role/", "federated-user/"];
    partition_fits && is_account(account) && (resource == "root" || kinds.into_iter().any(named))
}

/// Operator, key, value.
pub type Conditions = BTreeMap<Operator, BTreeMap<ConditionKey, String>>;

/// How a condition compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Operator {
    StringEquals,
    ArnLike,
    Bool,
}

/// What of a request a condition looks at, spelled as AWS spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ConditionKey {
    #[serde(rename = "lambda:FunctionUrlAuthType")]
    FunctionUrlAuthType,
    #[serde(rename = "lambda:EventSourceToken")]
    EventSourceToken,
    #[serde(rename = "aws:PrincipalOrgID")]
    PrincipalOrgId,
    #[serde(rename = "AWS:SourceAccount")]
    SourceAccount,
    #[serde(rename = "AWS:SourceArn")]
    SourceArn,
    #[serde(rename = "lambda:InvokedViaFunctionUrl")]
    InvokedViaFunctionUrl,
}

impl ConditionKey {
    /// The operator with which AddPermission compares it. Source: Lambda spec 6.2.
    pub fn operator(self) -> Operator {
        match self {
            Self::SourceArn => Operator::ArnLike,
            Self::InvokedViaFunctionUrl => Operator::Bool,
            Self::FunctionUrlAuthType | Self::EventSourceToken | Self::PrincipalOrgId | Self::SourceAccount => {
                Operator::StringEquals
            }
        }
    }
}

/// Conditions from the members of AddPermission that were given: those with one operator stand together.
pub fn conditions(given: impl IntoIterator<Item = (ConditionKey, Option<String>)>) -> Conditions {
    let mut conditions = Conditions::new();
    for (key, value) in given {
        if let Some(value) = value {
            conditions.entry(key.operator()).or_default().insert(key, value);
        }
    }
    conditions
}

impl Statement {
    /// What a condition of this statement wants a key to be.
    pub fn compared_with(&self, key: ConditionKey) -> Option<&str> {
        self.condition.get(&key.operator())?.get(&key).map(String::as_str)
    }
}

/// Why a statement was not added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    #[error("the statement id {0} is taken")]
    Taken(String),
    #[error("the policy would have {0} bytes")]
    TooLong(usize),
}

impl Policy {
    /// The document as it was given: JSON without spaces.
    pub fn document(&self) -> String {
        self.written(|_| false)
    }

    /// The document as GetPolicy has it: whose ARN means nobody now, or somebody else, is shown by its unique ID.
    pub fn shown(&self, meant: impl Fn(&str) -> Meant) -> String {
        self.written(|statement| match (&statement.principal, &statement.unique_id) {
            (Principal::Aws(arn), Some(id)) => meant(arn) != Meant::Entity(id.clone()),
            _ => false,
        })
    }

    /// The document that decides: whoever was meant is meant by the unique ID.
    pub fn evaluated(&self) -> String {
        self.written(|_| true)
    }

    /// `by_id`: whether the principal of a statement is written by its unique ID, where it has one.
    fn written(&self, by_id: impl Fn(&Statement) -> bool) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Document<'a> {
            version: &'static str,
            id: &'static str,
            statement: &'a [Statement],
        }
        let statements = self.statements.iter().map(|statement| {
            let mut written = statement.clone();
            if let Some(id) = written.unique_id.take().filter(|_| by_id(statement)) {
                written.principal = Principal::Aws(id);
            }
            written
        });
        let statements: Vec<_> = statements.collect();
        let document = Document { version: "2012-10-17", id: "default", statement: &statements };
        serde_json::to_string(&document).expect("names and strings can always be written")
    }

    /// The statement of that name.
    pub fn find(&self, sid: &str) -> Option<&Statement> {
        self.statements.iter().find(|statement| statement.sid == sid)
    }

    /// The policy with one statement more.
    pub fn with(&self, statement: Statement) -> Result<Self, PolicyError> {
        if self.statements.iter().any(|s| s.sid == statement.sid) {
            return Err(PolicyError::Taken(statement.sid));
        }
        let mut policy = self.clone();
        policy.statements.push(statement);
        match policy.document().len() {
            bytes if bytes > POLICY_BYTES_MAX => Err(PolicyError::TooLong(bytes)),
            _ => Ok(policy),
        }
    }

    /// The policy without a statement; `None` if there is none of that name.
    pub fn without(&self, sid: &str) -> Option<Self> {
        let mut policy = self.clone();
        policy.statements.retain(|statement| statement.sid != sid);
        (policy.statements.len() < self.statements.len()).then_some(policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESOURCE: &str = "arn:aws:lambda:us-east-1:111111111111:function:f";

    fn statement(sid: &str) -> Statement {
        Statement {
            sid: sid.into(),
            effect: Effect::Allow,
            principal: Principal::Service("s3.amazonaws.com".into()),
            action: "lambda:InvokeFunction".into(),
            resource: RESOURCE.into(),
            condition: conditions([(ConditionKey::SourceArn, Some("arn:aws:s3:::b".into()))]),
            unique_id: None,
        }
    }

    #[test]
    fn a_principal_is_everyone_an_account_an_identity_or_a_service_and_nothing_else() {
        let aws = |arn: &str| Some(Principal::Aws(arn.into()));
        let service = |name: &str| Some(Principal::Service(name.into()));
        let cases = [
            ("*", Some(Principal::Everyone)),
            ("111111111111", aws("arn:aws:iam::111111111111:root")),
            ("arn:aws:iam::111111111111:root", aws("arn:aws:iam::111111111111:root")),
            ("arn:aws:iam::111111111111:user/path/u", aws("arn:aws:iam::111111111111:user/path/u")),
            ("arn:aws-us-gov:iam::111111111111:role/r", aws("arn:aws-us-gov:iam::111111111111:role/r")),
            ("arn:aws:sts::111111111111:assumed-role/r/s", aws("arn:aws:sts::111111111111:assumed-role/r/s")),
            ("s3.amazonaws.com", service("s3.amazonaws.com")),
            ("edgelambda.lambda.amazonaws.com", service("edgelambda.lambda.amazonaws.com")),
            ("invalid.nonaws.com", None),
            (".amazonaws.com", None),
            ("a..amazonaws.com", None),
            ("amazonaws.com", None),
            ("1111111111111", None),
            ("arn:aws:s3:::bucket", None),
            ("arn:aws:iam::111:root", None),
            ("arn:aws:iam::111111111111:user/", None),
            ("arn:awsx:iam::111111111111:root", None),
            ("somebody", None),
            ("", None),
        ];
        for (text, wanted) in cases {
            assert_eq!(Principal::read(text), wanted, "{text}");
            // What it was given as is among its spellings.
            assert!(wanted.is_none_or(|principal| principal.spellings().contains(&text)), "{text}");
        }
        let account = Principal::read("111111111111").unwrap();
        assert_eq!(account.spellings(), ["arn:aws:iam::111111111111:root", "111111111111"]);
        let user = Principal::read("arn:aws:iam::111111111111:user/u").unwrap();
        assert_eq!(user.spellings(), ["arn:aws:iam::111111111111:user/u"], "not all of its account");
    }

    #[test]
    fn a_document_is_written_as_aws_writes_it_and_its_statements_read_back() {
        let everyone = Statement {
            sid: "url".into(),
            principal: Principal::Everyone,
            action: "lambda:InvokeFunctionUrl".into(),
            condition: conditions([
                (ConditionKey::SourceArn, Some("arn:aws:s3:::b".into())),
                (ConditionKey::SourceAccount, Some("111111111111".into())),
                (ConditionKey::PrincipalOrgId, Some("o-1234567890".into())),
                (ConditionKey::EventSourceToken, None),
                (ConditionKey::FunctionUrlAuthType, Some("NONE".into())),
                (ConditionKey::InvokedViaFunctionUrl, Some("true".into())),
            ]),
            ..statement("url")
        };
        let account = Statement {
            principal: Principal::Aws("arn:aws:iam::111111111111:root".into()),
            condition: Conditions::new(),
            ..statement("a")
        };
        let policy = Policy { statements: vec![statement("s3"), everyone, account] };
        let wanted = format!(
            concat!(
                r#"{{"Version":"2012-10-17","Id":"default","Statement":["#,
                r#"{{"Sid":"s3","Effect":"Allow","Principal":{{"Service":"s3.amazonaws.com"}},"#,
                r#""Action":"lambda:InvokeFunction","Resource":"{0}","#,
                r#""Condition":{{"ArnLike":{{"AWS:SourceArn":"arn:aws:s3:::b"}}}}}},"#,
                r#"{{"Sid":"url","Effect":"Allow","Principal":"*","Action":"lambda:InvokeFunctionUrl","Resource":"{0}","#,
                r#""Condition":{{"StringEquals":{{"lambda:FunctionUrlAuthType":"NONE","#,
                r#""aws:PrincipalOrgID":"o-1234567890","AWS:SourceAccount":"111111111111"}},"#,
                r#""ArnLike":{{"AWS:SourceArn":"arn:aws:s3:::b"}},"Bool":{{"lambda:InvokedViaFunctionUrl":"true"}}}}}},"#,
                r#"{{"Sid":"a","Effect":"Allow","Principal":{{"AWS":"arn:aws:iam::111111111111:root"}},"#,
                r#""Action":"lambda:InvokeFunction","Resource":"{0}"}}]}}"#,
            ),
            RESOURCE
        );
        assert_eq!(policy.document(), wanted);
        let stored = serde_json::to_string(&policy).unwrap();
        assert_eq!(serde_json::from_str::<Policy>(&stored).unwrap(), policy);
    }

    #[test]
    fn a_user_or_role_is_meant_by_its_unique_id_and_shown_by_its_arn_as_long_as_that_is_its() {
        let arn = "arn:aws:iam::111111111111:user/u";
        let of = |id: &str, unique_id: Option<&str>| Statement {
            principal: Principal::Aws(id.into()),
            unique_id: unique_id.map(str::to_owned),
            ..statement("u")
        };
        let policy = |statement: Statement| Policy { statements: vec![statement] };
        let pinned = policy(of(arn, Some("AIDAEXAMPLEEXAMPLE01")));
        let by_arn = policy(of(arn, None)).document();
        let by_id = policy(of("AIDAEXAMPLEEXAMPLE01", None)).document();
        assert_eq!(pinned.document(), by_arn);
        assert_eq!(pinned.evaluated(), by_id);
        for (meant, shown) in [
            (Meant::Entity("AIDAEXAMPLEEXAMPLE01".into()), &by_arn),
            (Meant::Entity("AIDAEXAMPLEEXAMPLE02".into()), &by_id),
            (Meant::Nobody, &by_id),
        ] {
            let asked = |asked: &str| if asked == arn { meant.clone() } else { Meant::Unknown };
            assert_eq!(pinned.shown(asked), *shown, "{meant:?}");
        }
        // Of an earlier version: whoever has the ARN.
        let before = policy(of(arn, None));
        assert_eq!((before.evaluated(), before.shown(|_| Meant::Nobody)), (by_arn.clone(), by_arn));
        let stored = serde_json::to_string(&pinned).unwrap();
        assert_eq!(serde_json::from_str::<Policy>(&stored).unwrap(), pinned);
    }

    #[test]
    fn a_statement_id_is_given_once_and_what_was_removed_is_free_again() {
        let one = Policy::default().with(statement("s3")).unwrap();
        assert_eq!(one.with(statement("s3")), Err(PolicyError::Taken("s3".into())));
        let two = one.with(statement("s3_2")).unwrap();
        assert_eq!(two.without("s3_2"), Some(one.clone()));
        assert_eq!(two.without("s3_3"), None);
        assert_eq!(one.without("s3"), Some(Policy::default()));
        assert_eq!(Policy::default().with(statement("s3")), Ok(one));
    }

    #[test]
    fn a_policy_has_its_last_byte_and_not_one_more() {
        let mut policy = Policy::default();
        for n in 0..200 {
            match policy.with(statement(&format!("s{n}"))) {
                Ok(longer) => policy = longer,
                Err(_) => break,
            }
        }
        let room = POLICY_BYTES_MAX - policy.document().len();
        let last = statement("");
        let bare = policy.statements.len();
        let needs = Policy { statements: vec![last.clone(); bare + 1] }.document().len()
            - Policy { statements: vec![last.clone(); bare] }.document().len();
        // Shorten one that is there, so that exactly the last byte is left for a statement with a short name.
        let mut shorter = policy.clone();
        shorter.statements.pop();
        let free = POLICY_BYTES_MAX - shorter.document().len();
        assert!(room < needs && free > needs, "{room} {needs} {free}");
        let fits = Statement { sid: "x".repeat(free - needs), ..last.clone() };
        assert_eq!(shorter.with(fits.clone()).unwrap().document().len(), POLICY_BYTES_MAX);
        let one_more = Statement { sid: "x".repeat(free - needs + 1), ..last };
        assert_eq!(shorter.with(one_more), Err(PolicyError::TooLong(POLICY_BYTES_MAX + 1)));
    }
}
