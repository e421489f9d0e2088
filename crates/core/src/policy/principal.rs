//! Who asks.

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
    /// The account's owner: allowed all in its own account, whatever policies say.
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
