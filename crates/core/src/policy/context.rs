//! What is known of a request besides principal, action and resource: the values of condition keys.

use std::collections::{BTreeMap, BTreeSet};

use super::{Principal, PrincipalKind, keys};

/// Condition keys with their values. Keys are compared without regard to case.
///
/// Only what the server itself knows goes in: nothing of a header that nobody has verified. A key that is not there is *missing* if
/// requests without it are known to exist ([`keys`]), and otherwise *unknown*: then no Allow that asks for it holds, and
/// every Deny that does. Whoever knows that a request has no value of a key says so with none at all
/// (`with_all::<String>("s3:prefix", [])`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Context {
    keys: BTreeMap<String, Vec<String>>,
    /// Keys that are unknown though they might be taken for missing: those that stand for two tags, whose names differ in case alone, so that
    /// nobody knows which one a policy means; and those of which a request says so.
    doubtful: BTreeSet<String>,
    made_up: bool,
}

impl Context {
    pub fn new() -> Self {
        Self::default()
    }

    /// Of a request that nobody makes (SimulatePrincipalPolicy): what it does not say of itself, and a request here might have, it does not
    /// have; and what it says of who asks is taken for true.
    pub fn made_up(mut self) -> Self {
        self.made_up = true;
        self
    }

    /// With one value of a key; an earlier one is replaced.
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.set(key, value);
        self
    }

    /// With several values of a key (`aws:TagKeys`); none at all says that it is known to be missing.
    pub fn with_all<V: Into<String>>(mut self, key: &str, values: impl IntoIterator<Item = V>) -> Self {
        self.put(key, values.into_iter().map(Into::into).collect());
        self
    }

    /// With all tags of a family (`aws:ResourceTag/`, `aws:RequestTag/`, `s3:ExistingObjectTag/`), so that those that are not among them are
    /// known to be missing. Those of a request are its `aws:TagKeys`, too. Of tags whose names differ in case alone the key stays unknown.
    pub fn with_tags<'t>(mut self, family: &str, tags: impl IntoIterator<Item = (&'t str, &'t str)>) -> Self {
        let mut keys = Vec::new();
        let mut names = BTreeSet::new();
        for (key, value) in tags {
            let name = format!("{family}{key}").to_ascii_lowercase();
            if names.insert(name.clone()) {
                self.set(&name, value);
            } else {
                self.keys.remove(&name);
                self.doubtful.insert(name);
            }
            keys.push(key.to_owned());
        }
        if family.eq_ignore_ascii_case(REQUEST_TAGS) {
            self = self.with_all("aws:TagKeys", keys);
        }
        self.with_all::<String>(family, [])
    }

    /// With a key of which this server cannot say what the request has, and that would be missing otherwise.
    pub fn with_unknown(mut self, key: &str) -> Self {
        let key = key.to_ascii_lowercase();
        self.keys.remove(&key);
        self.doubtful.insert(key);
        self
    }

    pub fn set(&mut self, key: &str, value: impl Into<String>) {
        self.put(key, vec![value.into()]);
    }

    fn put(&mut self, key: &str, values: Vec<String>) {
        let key = key.to_ascii_lowercase();
        self.doubtful.remove(&key);
        self.keys.insert(key, values);
    }

    /// The values of a key; `None` where it is unknown.
    pub fn get(&self, key: &str) -> Option<&[String]> {
        self.keys.get(&key.to_ascii_lowercase()).map(Vec::as_slice)
    }

    /// All keys, in lower case, with their values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.keys.iter().map(|(key, values)| (key.as_str(), values.as_slice()))
    }

    /// These, and those of another where they are missing here.
    pub fn or(mut self, other: &Self) -> Self {
        for (key, values) in other.keys.iter().filter(|(key, _)| !self.doubtful.contains(*key)) {
            self.keys.entry(key.clone()).or_insert_with(|| values.clone());
        }
        self.doubtful.extend(other.doubtful.iter().filter(|key| !self.keys.contains_key(*key)).cloned());
        self
    }
}

/// Tags that a request brings; a tag's name follows.
const REQUEST_TAGS: &str = "aws:requesttag/";

/// What a decision knows of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Known<'a> {
    /// One or more.
    Values(Vec<&'a str>),
    /// This request has none.
    Missing,
    /// Whether it has one, and which, this server cannot say.
    Unknown,
}

/// All that is known of a request: its context, and what follows from who asks and whose the resource is.
pub(super) struct Facts<'a> {
    pub principal: &'a Principal,
    /// `s3:GetObject`, in any case.
    pub action: &'a str,
    pub resource_account: &'a str,
    pub context: &'a Context,
}

impl<'a> Facts<'a> {
    /// The values of a key in lower case. What follows from the principal goes before what the context says.
    ///
    /// Source: IAM user guide, "AWS global condition context keys", "Properties of the principal".
    pub fn known(&self, key: &str) -> Known<'a> {
        let one = |value: &'a str| Known::Values(vec![value]);
        if self.context.doubtful.contains(key) {
            return Known::Unknown;
        }
        let given = self.context.keys.get(key).map(Vec::as_slice);
        let given = given.map(|values| match values {
            [] => Known::Missing,
            values => Known::Values(values.iter().map(String::as_str).collect()),
        });
        if self.context.made_up
            && let Some(given) = given
        {
            return given;
        }
        let service = matches!(self.principal.kind, PrincipalKind::Service);
        let own = match key {
            // A service has no ARN, no account and no ID of its own.
            "aws:principalarn" | "aws:principalaccount" | "aws:principaltype" | "aws:userid" if service => {
                Some(Known::Missing)
            }
            "aws:principalarn" => Some(one(match &self.principal.kind {
                PrincipalKind::AssumedRole { role_arn, .. } => role_arn,
                _ => &self.principal.arn,
            })),
            "aws:principalaccount" => Some(one(&self.principal.account)),
            "aws:principaltype" => Some(one(match self.principal.kind {
                PrincipalKind::Root => "Account",
                PrincipalKind::User { .. } => "User",
                PrincipalKind::AssumedRole { .. } | PrincipalKind::Service => "AssumedRole",
            })),
            // Of a user that is made up, as it is given or not at all.
            "aws:userid" if self.principal.user_id.is_empty() => Some(Known::Missing),
            "aws:userid" => Some(one(&self.principal.user_id)),
            "aws:username" => Some(match &self.principal.kind {
                PrincipalKind::User { name } if !name.is_empty() => one(name),
                _ => Known::Missing,
            }),
            "aws:principalisawsservice" => Some(one(if service { "true" } else { "false" })),
            "aws:principalservicename" | "aws:principalservicenameslist" => {
                Some(if service { one(&self.principal.arn) } else { Known::Missing })
            }
            "aws:resourceaccount" => Some(one(self.resource_account)),
            "s3:resourceaccount" if self.action.get(..3).is_some_and(|service| service.eq_ignore_ascii_case("s3:")) => {
                Some(one(self.resource_account))
            }
            _ => key.strip_prefix("aws:principaltag/").map(|tag| {
                let tags = &self.principal.tags;
                tags.iter()
                    .find(|(key, _)| key.eq_ignore_ascii_case(tag))
                    .map_or(Known::Missing, |(_, value)| one(value))
            }),
        };
        if let Some(own) = own {
            return own;
        }
        match given {
            Some(given) => given,
            // There are no forward access sessions here, and nobody has a second factor: temporary credentials say so, keys of a
            // user have no such key, as on AWS.
            None if key == "aws:viaawsservice" => one("false"),
            None if key == "aws:multifactorauthpresent"
                && matches!(self.principal.kind, PrincipalKind::AssumedRole { .. }) =>
            {
                one("false")
            }
            // Keys of a user have none. A session that does not say when it was begun may be one of those that were revoked.
            None if key == "aws:tokenissuetime"
                && !self.context.made_up
                && matches!(self.principal.kind, PrincipalKind::AssumedRole { .. }) =>
            {
                Known::Unknown
            }
            None if keys::may_be_missing(key) || self.has_family_of(key) => Known::Missing,
            None if self.context.made_up && keys::is_filled(key) => Known::Missing,
            None => Known::Unknown,
        }
    }

    /// Whether all tags of a tag's family are in the context.
    fn has_family_of(&self, tag: &str) -> bool {
        tag.split_once('/').is_some_and(|(family, _)| self.context.keys.contains_key(&format!("{family}/")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLE: &str = "arn:aws:iam::111111111111:role/p/r";

    fn principals() -> [Principal; 4] {
        let of = |arn: &str, user_id: &str, kind| Principal {
            account: "111111111111".into(),
            arn: arn.into(),
            user_id: user_id.into(),
            kind,
            tags: BTreeMap::from([("Team".to_owned(), "red".to_owned())]),
        };
        let session = PrincipalKind::AssumedRole { role_arn: ROLE.into(), session_name: "s".into() };
        [
            of("arn:aws:iam::111111111111:user/u", "AIDA", PrincipalKind::User { name: "u".into() }),
            of("arn:aws:sts::111111111111:assumed-role/r/s", "AROA:s", session),
            of("arn:aws:iam::111111111111:root", "111111111111", PrincipalKind::Root),
            of("lambda.amazonaws.com", "", PrincipalKind::Service),
        ]
    }

    /// Source: IAM user guide, "AWS global condition context keys"; "Variables and tags", "Principal key values". `-`: missing.
    #[test]
    fn what_follows_from_the_principal_is_known_and_no_context_says_otherwise() {
        let cases = [
            ("aws:PrincipalArn", ["arn:aws:iam::111111111111:user/u", ROLE, "arn:aws:iam::111111111111:root", "-"]),
            ("aws:PrincipalAccount", ["111111111111", "111111111111", "111111111111", "-"]),
            ("aws:PrincipalType", ["User", "AssumedRole", "Account", "-"]),
            ("aws:userid", ["AIDA", "AROA:s", "111111111111", "-"]),
            ("aws:username", ["u", "-", "-", "-"]),
            ("aws:PrincipalIsAWSService", ["false", "false", "false", "true"]),
            ("aws:PrincipalServiceName", ["-", "-", "-", "lambda.amazonaws.com"]),
            ("aws:PrincipalServiceNamesList", ["-", "-", "-", "lambda.amazonaws.com"]),
            ("aws:PrincipalTag/tEAM", ["red"; 4]),
            ("aws:PrincipalTag/none", ["-"; 4]),
            ("aws:ResourceAccount", ["222222222222"; 4]),
            ("s3:ResourceAccount", ["222222222222"; 4]),
        ];
        for (key, wanted) in cases {
            for (principal, wanted) in principals().iter().zip(wanted) {
                for context in [Context::new(), Context::new().with(key, "forged")] {
                    let facts = Facts {
                        principal,
                        action: "s3:GetObject",
                        resource_account: "222222222222",
                        context: &context,
                    };
                    let known = if wanted == "-" { Known::Missing } else { Known::Values(vec![wanted]) };
                    assert_eq!(facts.known(&key.to_ascii_lowercase()), known, "{key} {}", principal.arn);
                }
            }
        }
    }

    #[test]
    fn a_key_is_known_missing_or_unknown() {
        let context = Context::new().with("S3:Prefix", "a").with_all::<String>("s3:delimiter", []);
        let context = context.with_tags("s3:ExistingObjectTag/", [("A", "1")]);
        let [user, session, ..] = principals();
        let of = |principal: &Principal, key: &str| {
            let facts =
                Facts { principal, action: "s3:GetObject", resource_account: "111111111111", context: &context };
            match facts.known(key) {
                Known::Values(values) => values.join(","),
                Known::Missing => "missing".to_owned(),
                Known::Unknown => "unknown".to_owned(),
            }
        };
        let cases = [
            (&user, "s3:prefix", "a"),
            (&user, "s3:delimiter", "missing"),
            (&user, "s3:max-keys", "unknown"),
            (&user, "aws:sourceip", "unknown"),
            (&user, "aws:sourcearn", "missing"),
            (&user, "aws:requesttag/team", "unknown"),
            (&user, "aws:tagkeys", "unknown"),
            (&user, "s3:existingobjecttag/a", "1"),
            (&user, "s3:existingobjecttag/b", "missing"),
            (&user, "s3:existingobjecttag/b/c", "missing"),
            (&user, "aws:viaawsservice", "false"),
            (&user, "aws:multifactorauthpresent", "missing"),
            (&session, "aws:multifactorauthpresent", "false"),
            (&user, "aws:tokenissuetime", "missing"),
            (&session, "aws:tokenissuetime", "unknown"),
        ];
        for (principal, key, wanted) in cases {
            assert_eq!(of(principal, key), wanted, "{key}");
        }
        let tagged = Context::new().with_tags("aws:RequestTag/", [("Team", "red"), ("cost", "1")]);
        assert_eq!(tagged.get("aws:tagkeys"), Some(&["Team".to_owned(), "cost".to_owned()][..]));
        assert_eq!(tagged.get("aws:RequestTag/team"), Some(&["red".to_owned()][..]));
        let facts = Facts {
            principal: &user,
            action: "s3:GetObject",
            resource_account: "",
            context: &Context::new().with_tags("aws:RequestTag/", []),
        };
        assert_eq!(facts.known("aws:tagkeys"), Known::Missing);
        // Made up: what a request here might have is missing, what none ever has is as unknown as ever.
        let made_up = context.clone().with("aws:username", "other").made_up();
        let of = |key: &str| {
            Facts { principal: &user, action: "s3:GetObject", resource_account: "111111111111", context: &made_up }
                .known(key)
        };
        for key in ["aws:sourceip", "s3:max-keys", "aws:requesttag/team", "aws:tagkeys"] {
            assert_eq!(of(key), Known::Missing, "{key}");
        }
        assert_eq!((of("aws:useragent"), of("s3:requestjobprio")), (Known::Unknown, Known::Unknown));
        assert_eq!(of("aws:username"), Known::Values(vec!["other"]));
        // Other services have no such key.
        for (action, wanted) in [("S3:DescribeJob", Known::Values(vec!["1"])), ("lambda:GetFunction", Known::Unknown)] {
            let facts = Facts { principal: &user, action, resource_account: "1", context: &Context::new() };
            assert_eq!(facts.known("s3:resourceaccount"), wanted, "{action}");
        }
        // Of two tags whose names differ in case alone neither counts, whichever comes first, and whatever else is known.
        for tags in [[("Team", "red"), ("team", "blue")], [("team", "blue"), ("Team", "red")]] {
            let context = Context::new().with_tags("aws:ResourceTag/", tags.into_iter().chain([("TEAM", "red")]));
            let other = Context::new().with("aws:ResourceTag/team", "red");
            for context in [context.clone(), context.clone().or(&other), Context::new().or(&context)] {
                let facts = Facts { principal: &user, action: "s3:GetObject", resource_account: "", context: &context };
                assert_eq!(facts.known("aws:resourcetag/team"), Known::Unknown);
                assert_eq!(facts.known("aws:resourcetag/other"), Known::Missing);
            }
            assert_eq!(other.clone().or(&context), other.clone().or(&Context::new().with_tags("aws:ResourceTag/", [])));
        }
        // What a request says it cannot say of itself is not missing, whatever else is known; and what it says then it has.
        let doubtful = Context::new().with_unknown("lambda:Principal");
        for (context, wanted) in [
            (Context::new(), Known::Missing),
            (doubtful.clone(), Known::Unknown),
            (doubtful.clone().or(&Context::new().with("lambda:Principal", "*")), Known::Unknown),
            (Context::new().with("lambda:Principal", "*").with_unknown("lambda:principal"), Known::Unknown),
            (doubtful.with("lambda:Principal", "*"), Known::Values(vec!["*"])),
        ] {
            let facts = Facts { principal: &user, action: "s3:GetObject", resource_account: "", context: &context };
            assert_eq!(facts.known("lambda:principal"), wanted, "{context:?}");
        }
        let given = Context::new().with("aws:MultiFactorAuthPresent", "true");
        let facts = Facts { principal: &session, action: "s3:GetObject", resource_account: "", context: &given };
        assert_eq!(facts.known("aws:multifactorauthpresent"), Known::Values(vec!["true"]), "a simulation may say so");
    }
}
