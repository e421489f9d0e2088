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
