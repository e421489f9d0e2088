//! `iam-rs`, which was written by others, on the same policies.
//!
//! Only on what it does as AWS does. Left out, because there it does not (version 0.8.0):
//! - conditions on ARNs: `ArnEquals` compares letters, and `ArnLike` lets a wildcard reach over colons;
//! - variables: one without a value is the empty text, the value of one may hold wildcards, `${*}` is none, conditions have none;
//! - a negated operator on a key with several values: it asks for one value that differs, where none may be equal;
//! - `IfExists` behind `ForAllValues` and `ForAnyValue`, which it does not read;
//! - a `*` in what a request has, a key or a tag: it takes the place of the pattern's own, and `b/*` does not fit `b/*/k`;
//! - an address of IPv4 as a socket of IPv6 shows it, which is in none of its ranges;
//! - ARNs of less than six parts, which it refuses;
//! - keys of which nothing is known: it takes them for missing, which is what decision 0043 does not;
//! - principals, boundaries, sessions and accounts, which it leaves to whoever calls it.

use iam_rs::{Arn, Context, ContextValue, IAMPolicy, IAMRequest, PolicyEvaluator, Principal, PrincipalId};

use super::made::Asked;

pub fn verdict(asked: &Asked) -> &'static str {
    let policies = asked
        .identity
        .iter()
        .map(|document| IAMPolicy::from_json(&document.to_string()).expect("it reads what we read"));
    let mut context = Context::new();
    for (key, values) in &asked.context {
        let value = match (*key, values.as_slice()) {
            ("aws:TagKeys", values) => {
                ContextValue::StringList(values.iter().map(|value| (*value).to_owned()).collect())
            }
            ("aws:SecureTransport", [value]) => ContextValue::Boolean(*value == "true"),
            (_, [value]) => ContextValue::String((*value).to_owned()),
            (key, values) => panic!("{key} has {values:?}"),
        };
        context.insert((*key).to_owned(), value);
    }
    let principal = Principal::Aws(PrincipalId::String(asked.principal.arn.clone()));
    let resource = Arn::parse(asked.resource).expect("an ARN");
    let request = IAMRequest::new_with_context(principal, asked.action, resource, context);
    match PolicyEvaluator::with_policies(policies.collect()).evaluate(&request).expect("an answer").decision {
        iam_rs::Decision::Allow => "allowed",
        iam_rs::Decision::Deny => "denied outright",
        iam_rs::Decision::NotApplicable => "not allowed",
    }
}
