//! IAM's policies: may this principal do this with that, and which statement says so.
//!
//! Pure: documents, principals and the request's context come in as values, a [`Decision`] that can be told goes out. What a
//! document means is decided here and nowhere else. Source: IAM user guide, "Policy evaluation logic" and "IAM JSON policy
//! elements reference"; S3 Batch spec 9; Lambda spec 6.3.

mod actions;
mod condition;
mod context;
mod decide;
mod document;
mod explain;
mod json;
mod keys;
mod pattern;
mod principal;

pub use actions::fault as action_fault;
pub use context::Context;
pub use decide::{Because, Decision, Layer, Question, ResourcePolicy, decide};
pub use document::{Document, Effect, Kind, Malformed, Position, Statement, counted_characters};
pub use explain::{Explanation, Have, Matched, Missed, Near, explain};
pub use keys::filled as filled_keys;
pub use principal::{Principal, PrincipalKind};

use std::sync::Arc;

/// One policy of somebody or something: a document and what it is called.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// As a denial names it: an ARN of a managed policy, or `inline policy NAME of user NAME`.
    pub name: Arc<str>,
    pub document: Document,
}

/// What a principal's own policies are. Of a root caller none is asked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rights {
    /// Inline and managed, of the user with its groups' (none here), or of the role.
    pub identity: Vec<Policy>,
    /// Permissions boundary: what is not allowed by it, too, is denied.
    pub boundary: Option<Policy>,
    /// Of a session that was begun with policies of its own: what is not allowed by one of them, too, is denied. `None`: begun
    /// without.
    pub session: Option<Vec<Policy>>,
}
