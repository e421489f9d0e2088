//! Who asks, and who is meant by a statement.

use std::collections::BTreeMap;

/// Whose request it is, as was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// 12 digits; of a service the account on whose behalf it acts.
    pub account: String,
    /// `arn:aws:iam::111111111111:user/path/u`, `arn:aws:sts::111111111111:assumed-role/r/session`,
    /// `arn:aws:iam::111111111111:root`; of a service its name.
    pub arn: String,
    /// `aws:userid`: `AIDA…` of a user, `AROA…:session` of a role's session, the account of root, empty of a service.
    pub user_id: String,
    pub kind: PrincipalKind,
    /// `aws:PrincipalTag/…`.
    pub tags: BTreeMap<String, String>,
}

/// What kind of principal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrincipalKind {
    /// The account's owner: allowed all in its own account that no policy denies outright.
    Root,
    User {
        name: String,
    },
    /// A session of a role.
    AssumedRole {
        /// `arn:aws:iam::111111111111:role/path/r`.
        role_arn: String,
        session_name: String,
    },
    /// `batchoperations.s3.amazonaws.com`, `lambda.amazonaws.com`: a part of the server that acts for itself.
    Service,
}

/// One name in a Principal element.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Named {
    /// `"*"`
    Everyone,
    /// `{"AWS": "*"}`
    EveryoneOfAws,
    /// An account, by its number or as `arn:aws:iam::111111111111:root`.
    Account(String),
    /// A user, a role, or a role's session.
    Arn(String),
    /// `AIDA…`, `AROA…`: how AWS shows a user or role that is gone.
    UniqueId(String),
    Service(String),
    /// Of an identity provider, or a canonical user of S3: nobody here is one.
    Elsewhere,
}

/// How closely a statement means somebody. The closer, the less limits what a policy of a resource allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Closeness {
    /// The whole account: it delegates, and the principal's own policies have to allow as well.
    Account,
    /// The role of a session: its boundary and the session's policies limit.
    Role,
    /// The principal itself, or everyone.
    Itself,
}

/// The Principal or NotPrincipal of a statement.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Principals {
    These(Vec<Named>),
    AllBut(Vec<Named>),
}

impl Named {
    /// How this name means a principal, for a statement that denies or allows.
    fn means(&self, principal: &Principal, denies: bool) -> Option<Closeness> {
        let service = matches!(principal.kind, PrincipalKind::Service);
        let when = |yes: bool, closeness| yes.then_some(closeness);
        match self {
            Self::Everyone => Some(Closeness::Itself),
            // AWS calls both the same, but says of services that they have to be named. So a service is denied and not allowed.
            Self::EveryoneOfAws => when(!service || denies, Closeness::Itself),
            Self::Account(account) => when(
                !service && *account == principal.account,
                match principal.kind {
                    PrincipalKind::Root => Closeness::Itself,
                    _ => Closeness::Account,
                },
            ),
            Self::Arn(arn) if service || *arn != principal.arn => match &principal.kind {
                PrincipalKind::AssumedRole { role_arn, .. } => when(arn == role_arn, Closeness::Role),
                _ => None,
            },
            Self::Arn(_) => Some(Closeness::Itself),
            Self::UniqueId(id) => match (&principal.kind, principal.user_id.split_once(':')) {
                (PrincipalKind::AssumedRole { .. }, Some((role_id, _))) => when(id == role_id, Closeness::Role),
                (PrincipalKind::User { .. }, None) => when(*id == principal.user_id, Closeness::Itself),
                _ => None,
            },
            Self::Service(name) => when(service && *name == principal.arn, Closeness::Itself),
            Self::Elsewhere => None,
        }
    }
}

impl Principals {
    /// Whom it names, for people, and whether it is for all but these.
    pub fn written(&self) -> (Vec<String>, bool) {
        let (names, all_but) = match self {
            Self::These(names) => (names, false),
            Self::AllBut(names) => (names, true),
        };
        let written = names.iter().map(|name| match name {
            Named::Everyone | Named::EveryoneOfAws => "everyone in AWS".to_owned(),
            Named::Account(account) => format!("the account {account}"),
            Named::Arn(name) | Named::UniqueId(name) | Named::Service(name) => name.clone(),
            Named::Elsewhere => "somebody of an identity provider".to_owned(),
        });
        (written.collect(), all_but)
    }

    /// Whether, and how, a statement means a principal. `bounded`: it has a permissions boundary.
    ///
    /// `NotPrincipal` is read as narrowly as may be. A Deny spares only whom it names itself, not whoever is in a named account or
    /// has a named role, and nobody who has a boundary; an Allow leaves out everybody whom it names in any way, and counts no more than
    /// one for the principal's role does.
    ///
    /// Source: IAM user guide, "Principal", "NotPrincipal", "Permissions boundaries for IAM entities" (the important note).
    pub fn mean(&self, principal: &Principal, denies: bool, bounded: bool) -> Option<Closeness> {
        match self {
            Self::These(names) => names.iter().filter_map(|name| name.means(principal, denies)).max(),
            Self::AllBut(names) => {
                let spared = match denies {
                    true => {
                        !bounded && names.iter().any(|name| name.means(principal, false) == Some(Closeness::Itself))
                    }
                    false => names.iter().any(|name| name.means(principal, true).is_some()),
                };
                (!spared).then_some(Closeness::Role)
            }
        }
    }
}

impl Named {
    /// Reads a name below `AWS`. The error says what may stand there.
    pub fn read_aws(text: &str) -> Result<Self, &'static str> {
        const FORM: &str = "is no principal of AWS: name an account (111111111111 or arn:aws:iam::111111111111:root), a user, a role or a role's session by its ARN, or *";
        let account = |text: &str| text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit());
        if text == "*" {
            return Ok(Self::EveryoneOfAws);
        }
        if text.contains(['*', '?', '$']) {
            return Err(
                "has a wildcard or a variable in its name, which a principal cannot have: name it whole, or take * and a condition on aws:PrincipalArn",
            );
        }
        if account(text) {
            return Ok(Self::Account(text.to_owned()));
        }
        // Of unique IDs only the form is known: 4 letters that say what it is, and 16 or more letters and digits.
        let unique = ["AIDA", "AROA"].iter().any(|kind| text.starts_with(kind));
        if unique
            && (20..=32).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
        {
            return Ok(Self::UniqueId(text.to_owned()));
        }
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        let ["arn", partition, service, "", id, resource] = parts[..] else { return Err(FORM) };
        if !partition.starts_with("aws") || !account(id) {
            return Err(FORM);
        }
        let named =
            |kind: &str| resource.strip_prefix(kind).is_some_and(|name| !name.is_empty() && !name.ends_with('/'));
        match service {
            "iam" if resource == "root" => Ok(Self::Account(id.to_owned())),
            "iam" if named("user/") || named("role/") => Ok(Self::Arn(text.to_owned())),
            "sts" if named("assumed-role/") && resource.matches('/').count() == 2 => Ok(Self::Arn(text.to_owned())),
            "sts" if named("federated-user/") => Ok(Self::Elsewhere),
            _ => Err(FORM),
        }
    }

    /// Reads a name below `Service`.
    pub fn read_service(text: &str) -> Result<Self, &'static str> {
        let label = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let labels = text.split('.').count() >= 2 && text.split('.').all(label);
        let amazon = [".amazonaws.com", ".amazonaws.com.cn", ".amazon.com", ".aws.internal"]
            .iter()
            .any(|end| text.ends_with(end));
        match labels && amazon {
            true => Ok(Self::Service(text.to_owned())),
            false => Err("is no service: one is named like lambda.amazonaws.com"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(arn: &str, user_id: &str, kind: PrincipalKind) -> Principal {
        Principal {
            account: "111111111111".into(),
            arn: arn.into(),
            user_id: user_id.into(),
            kind,
            tags: BTreeMap::new(),
        }
    }

    fn user() -> Principal {
        let kind = PrincipalKind::User { name: "u".into() };
        principal("arn:aws:iam::111111111111:user/path/u", "AIDAEXAMPLEEXAMPLE01", kind)
    }

    fn session() -> Principal {
        let role_arn = "arn:aws:iam::111111111111:role/path/r".to_owned();
        let kind = PrincipalKind::AssumedRole { role_arn, session_name: "s".into() };
        principal("arn:aws:sts::111111111111:assumed-role/r/s", "AROAEXAMPLEEXAMPLE01:s", kind)
    }

    fn root() -> Principal {
        principal("arn:aws:iam::111111111111:root", "111111111111", PrincipalKind::Root)
    }

    fn service() -> Principal {
        principal("lambda.amazonaws.com", "", PrincipalKind::Service)
    }

    fn aws(names: &[&str]) -> Vec<Named> {
        names.iter().map(|name| Named::read_aws(name).unwrap()).collect()
    }

    /// Source: IAM user guide, "AWS JSON policy elements: Principal".
    #[test]
    fn a_name_means_the_principal_its_role_its_account_or_nobody() {
        use Closeness::{Account, Itself, Role};
        let (user, session, root, service) = (user(), session(), root(), service());
        let cases = [
            (&user, "arn:aws:iam::111111111111:user/path/u", Some(Itself)),
            (&user, "arn:aws:iam::111111111111:user/u", None),
            (&user, "arn:aws:iam::111111111111:user/path/U", None),
            (&user, "arn:aws:iam::222222222222:user/path/u", None),
            (&user, "111111111111", Some(Account)),
            (&user, "arn:aws:iam::111111111111:root", Some(Account)),
            (&user, "arn:aws-cn:iam::111111111111:root", Some(Account)),
            (&user, "222222222222", None),
            (&user, "*", Some(Itself)),
            (&user, "AIDAEXAMPLEEXAMPLE01", Some(Itself)),
            (&user, "AIDAEXAMPLEEXAMPLE02", None),
            (&session, "arn:aws:sts::111111111111:assumed-role/r/s", Some(Itself)),
            (&session, "arn:aws:sts::111111111111:assumed-role/r/t", None),
            (&session, "arn:aws:iam::111111111111:role/path/r", Some(Role)),
            (&session, "arn:aws:iam::111111111111:role/r", None),
            (&session, "AROAEXAMPLEEXAMPLE01", Some(Role)),
            (&session, "111111111111", Some(Account)),
            (&session, "arn:aws:sts::111111111111:federated-user/r", None),
            (&root, "arn:aws:iam::111111111111:root", Some(Itself)),
            (&root, "arn:aws:iam::222222222222:root", None),
            (&service, "111111111111", None),
            (&service, "*", None),
        ];
        for (who, name, wanted) in cases {
            assert_eq!(Principals::These(aws(&[name])).mean(who, false, false), wanted, "{} {name}", who.arn);
        }
        let both = Principals::These(aws(&["111111111111", "arn:aws:iam::111111111111:role/path/r"]));
        assert_eq!(both.mean(&session, false, false), Some(Role), "the closest counts");
    }

    #[test]
    fn a_service_is_meant_by_its_name_and_by_everyone_and_denied_by_everyone_of_aws() {
        let named = |name: &str| Principals::These(vec![Named::read_service(name).unwrap()]);
        for denies in [false, true] {
            assert!(named("lambda.amazonaws.com").mean(&service(), denies, false).is_some());
            assert!(named("s3.amazonaws.com").mean(&service(), denies, false).is_none());
            assert!(named("lambda.amazonaws.com").mean(&user(), denies, false).is_none());
            assert!(Principals::These(vec![Named::Everyone]).mean(&service(), denies, false).is_some());
            assert!(Principals::These(vec![Named::Elsewhere]).mean(&user(), denies, false).is_none());
            assert_eq!(Principals::These(vec![Named::EveryoneOfAws]).mean(&service(), denies, false).is_some(), denies);
        }
    }

    /// Source: IAM user guide, "NotPrincipal", and the note on it in "Permissions boundaries for IAM entities".
    #[test]
    fn not_principal_denies_all_that_it_does_not_name_themselves_and_allows_none_that_it_names_anyhow() {
        let (user, session, root) = (user(), session(), root());
        // Who; whom it leaves out; whether a Deny and an Allow are about them.
        let cases = [
            (&user, "arn:aws:iam::111111111111:user/path/u", false, false),
            (&user, "111111111111", true, false),
            (&user, "arn:aws:iam::111111111111:user/path/v", true, true),
            (&user, "222222222222", true, true),
            (&session, "arn:aws:sts::111111111111:assumed-role/r/s", false, false),
            (&session, "arn:aws:iam::111111111111:role/path/r", true, false),
            (&session, "111111111111", true, false),
            (&root, "111111111111", false, false),
        ];
        for (who, but, denied, allowed) in cases {
            let all_but = Principals::AllBut(aws(&[but]));
            assert_eq!(all_but.mean(who, true, false).is_some(), denied, "{} {but}", who.arn);
            assert_eq!(all_but.mean(who, false, false).is_some(), allowed, "{} {but}", who.arn);
            assert!(all_but.mean(who, true, true).is_some(), "whoever has a boundary is always denied");
            assert!(all_but.mean(who, false, false) <= Some(Closeness::Role), "boundary and session go on limiting");
        }
    }
}
