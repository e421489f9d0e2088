//! A policy's document: JSON as AWS reads it.

use std::sync::Arc;

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

/// One statement.
#[derive(Debug, PartialEq)]
pub struct Statement {
    /// Empty where it has none.
    pub sid: String,
}

/// Why a document is none: the place in it, and what is wrong there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct Malformed {
    /// `Statement[1].Condition.StringEquals`, `line 3, column 7`.
    pub place: String,
    pub reason: String,
}

impl Document {
    pub fn parse(text: &str, _kind: Kind) -> Result<Self, Malformed> {
        Ok(Self(Arc::new(Parsed { text: text.to_owned(), statements: Vec::new() })))
    }

    /// As it was given.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    pub fn statements(&self) -> &[Statement] {
        &self.0.statements
    }
}
