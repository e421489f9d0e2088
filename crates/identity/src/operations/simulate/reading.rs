//! What a simulation tells of a document beside its meaning: where a statement stands in it, and which condition keys it uses.

use std::collections::BTreeSet;

use serde_json::Value;

/// Line and column, both from 1.
pub(super) type Position = (usize, usize);

/// Condition keys that follow from who asks: nobody has to give them.
pub(super) fn is_of_principal(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    key.starts_with("aws:principal") || matches!(key.as_str(), "aws:username" | "aws:userid")
}

/// A policy as AWS's simulator calls it: a managed one by its name, an inline one by whose it is.
pub(super) fn source_id(name: &str) -> String {
    if let Some((policy, whose)) = name.strip_prefix("inline policy ").and_then(|rest| rest.split_once(" of ")) {
        return format!("{}_{policy}", whose.replacen(' ', "_", 1));
    }
    match name.starts_with("arn:") {
        true => name.rsplit('/').next().unwrap_or(name).to_owned(),
        false => name.to_owned(),
    }
}

/// The condition keys that a document names in conditions and as variables, in the spelling that came first.
pub(super) fn context_keys(text: &str) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    let Ok(document) = serde_json::from_str::<Value>(text) else { return keys };
    let mut found = Vec::new();
    let statements = match &document["Statement"] {
        Value::Array(statements) => statements.as_slice(),
        one => std::slice::from_ref(one),
    };
    for statement in statements {
        let operators = statement["Condition"].as_object().into_iter().flatten();
        found.extend(operators.filter_map(|(_, keys)| keys.as_object()).flat_map(|keys| keys.keys().cloned()));
        variables(statement, &mut found);
    }
    let mut seen = BTreeSet::new();
    keys.extend(found.into_iter().filter(|key| seen.insert(key.to_ascii_lowercase())));
    keys
}

/// The names in `${name}` and `${name, 'otherwise'}`, wherever they stand.
fn variables(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => {
            for rest in text.split("${").skip(1) {
                let Some((name, _)) = rest.split_once('}') else { continue };
                let name = name.split(',').next().unwrap_or(name).trim();
                // `${*}`, `${?}` and `${$}` stand for themselves.
                if !matches!(name, "*" | "?" | "$" | "") {
                    found.push(name.to_owned());
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| variables(value, found)),
        Value::Object(members) => members.values().for_each(|value| variables(value, found)),
        _ => {}
    }
}

/// Where the statement of a number, from 1, begins and ends. The document is one that was read as JSON before.
pub(super) fn place(text: &str, number: usize) -> Option<(Position, Position)> {
    let bytes = text.as_bytes();
    let statements = member(bytes, b"\"Statement\"")?;
    let (start, end) = match bytes.get(statements)? {
        b'[' => {
            let mut at = space(bytes, statements + 1);
            for _ in 1..number {
                at = space(bytes, value(bytes, at)?);
                at = (bytes.get(at)? == &b',').then(|| space(bytes, at + 1))?;
            }
            (at, value(bytes, at)?)
        }
        _ if number == 1 => (statements, value(bytes, statements)?),
        _ => return None,
    };
    Some((position(text, start), position(text, end)))
}

/// Where the value of a member of the outermost object begins.
fn member(bytes: &[u8], name: &[u8]) -> Option<usize> {
    let mut at = space(bytes, 0);
    (bytes.get(at)? == &b'{').then_some(())?;
    at = space(bytes, at + 1);
    loop {
        let end = string(bytes, at)?;
        let key = bytes.get(at..end)?;
        at = space(bytes, end);
        (bytes.get(at)? == &b':').then_some(())?;
        at = space(bytes, at + 1);
        if key == name {
            return Some(at);
        }
        at = space(bytes, value(bytes, at)?);
        (bytes.get(at)? == &b',').then_some(())?;
        at = space(bytes, at + 1);
    }
}

fn space(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}

/// Behind the string that begins here.
fn string(bytes: &[u8], mut at: usize) -> Option<usize> {
    (bytes.get(at)? == &b'"').then_some(())?;
    at += 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Behind the value that begins here.
fn value(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0usize;
    loop {
        match bytes.get(at)? {
            b'"' => at = string(bytes, at)?,
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                at += 1;
            }
            _ if depth == 0 => {
                while bytes.get(at).is_some_and(|b| !b",]}".contains(b) && !b.is_ascii_whitespace()) {
                    at += 1;
                }
                return Some(at);
            }
            _ => at += 1,
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

fn position(text: &str, at: usize) -> Position {
    let before = &text.as_bytes()[..at];
    let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |newline| newline + 1);
    let column = String::from_utf8_lossy(&before[line_start..]).chars().count() + 1;
    (before.iter().filter(|b| **b == b'\n').count() + 1, column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_found_where_it_stands() {
        let text = "{\"Version\": \"a]}\\\"\", \"Id\": [1, {}],\n  \"Statement\": [\n    {\"Sid\": \"}\"},\n {\"Sid\": \"b\"}]}";
        assert_eq!(place(text, 1), Some(((3, 5), (3, 17))));
        assert_eq!(place(text, 2), Some(((4, 2), (4, 14))));
        assert_eq!(place(text, 3), None);
        assert_eq!(place(r#"{"Statement":{"Sid":"x"}}"#, 1), Some(((1, 14), (1, 25))));
        assert_eq!(place(r#"{"Statement":{"Sid":"x"}}"#, 2), None);
        assert_eq!(place(r#"{"Version":"x"}"#, 1), None);
    }

    #[test]
    fn keys_are_found_in_conditions_and_in_variables() {
        let text = r#"{"Statement":[{"Resource":"a/${aws:username}/${*}/${s3:prefix, 'none'}",
            "Condition":{"StringEquals":{"aws:SourceIp":"${aws:userid}"},"Bool":{"AWS:sourceip":"x"}}}]}"#;
        let found: Vec<_> = context_keys(text).into_iter().collect();
        // Which spelling comes first follows from the order of operators.
        let lower: Vec<_> =
            found.iter().map(|key| key.to_ascii_lowercase()).collect::<BTreeSet<_>>().into_iter().collect();
        assert_eq!(lower, ["aws:sourceip", "aws:userid", "aws:username", "s3:prefix"]);
        assert_eq!(found.len(), 4);
        assert!(context_keys(r#"{"Statement":{"Condition":{"Null":{"a:bcd":"true"}}}}"#).contains("a:bcd"));
    }

    #[test]
    fn a_policy_is_called_as_awss_simulator_calls_it() {
        for (name, id) in [
            ("arn:aws:iam::aws:policy/service-role/AWSLambdaRole", "AWSLambdaRole"),
            ("inline policy p of role r", "role_r_p"),
            ("PolicyInputList.1", "PolicyInputList.1"),
        ] {
            assert_eq!(source_id(name), id);
        }
        assert!(is_of_principal("aws:PrincipalTag/team") && is_of_principal("aws:username"));
        assert!(!is_of_principal("aws:SourceIp"));
    }
}
