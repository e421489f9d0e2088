//! What AWS's documentation says, done literally and slowly, on the JSON itself.
//!
//! Written from the pages alone ("Policy evaluation logic", "Cross-account policy evaluation logic", "Condition operators", "Variables and
//! tags", "Principal", "NotPrincipal"), with decision 0043 for what they leave open. It shares nothing with the engine: another
//! reader of JSON, wildcards by trying every place, dates and addresses by tables and bits.

use std::net::{Ipv4Addr, Ipv6Addr};

use longshore_core::policy::{Principal, PrincipalKind};
use serde_json::Value;

use super::made::Asked;

/// `None`: nobody can say.
type Maybe = Option<bool>;

fn all(of: Vec<Maybe>) -> Maybe {
    if of.contains(&Some(false)) {
        Some(false)
    } else if of.contains(&None) {
        None
    } else {
        Some(true)
    }
}

fn any(of: Vec<Maybe>) -> Maybe {
    all(of.into_iter().map(not).collect()).map(|holds| !holds)
}

fn not(of: Maybe) -> Maybe {
    of.map(|holds| !holds)
}

/// How a statement of a resource's policy means somebody.
#[derive(Clone, Copy, PartialEq)]
enum Meant {
    Itself,
    Role,
    Account,
}

pub fn verdict(asked: &Asked) -> &'static str {
    let service = asked.principal.kind == PrincipalKind::Service;
    let root = asked.principal.kind == PrincipalKind::Root;
    let own: Vec<&Value> = match service || root {
        true => vec![],
        false => asked.identity.iter().chain(&asked.boundary).chain(asked.session.iter().flatten()).collect(),
    };
    let everything = own.iter().copied().chain(&asked.of_resource).flat_map(statements);
    for statement in everything {
        if statement["Effect"] == "Deny" && meant(asked, statement).is_some() && fits(asked, statement) != Some(false) {
            return "denied outright";
        }
    }
    let allows = |document: &Value| {
        statements(document)
            .iter()
            .any(|statement| statement["Effect"] == "Allow" && fits(asked, statement) == Some(true))
    };
    let identity = root || asked.identity.iter().any(allows);
    let boundary = root || asked.boundary.as_ref().is_none_or(allows);
    let session = root || asked.session.as_ref().is_none_or(|documents| documents.iter().any(allows));
    let granted: Vec<Meant> = asked
        .of_resource
        .iter()
        .flat_map(statements)
        .filter_map(|statement| {
            let allows = statement["Effect"] == "Allow" && fits(asked, statement) == Some(true);
            meant(asked, statement).filter(|_| allows)
        })
        .collect();
    let by_name = granted.contains(&Meant::Itself);
    let by_role = granted.contains(&Meant::Role);
    let by_account = granted.contains(&Meant::Account);
    let by_resource = by_name || by_role || by_account;
    let user_with_session = matches!(asked.principal.kind, PrincipalKind::User { .. }) && asked.session.is_some();
    let allowed = if service {
        by_resource
    } else if asked.principal.account != asked.resource_account {
        by_resource && identity && boundary && session
    } else if by_name && !user_with_session {
        true
    } else if by_name || by_role {
        boundary && session
    } else {
        identity && boundary && session && (by_account || !asked.trust)
    };
    if allowed { "allowed" } else { "not allowed" }
}

fn statements(document: &Value) -> &Vec<Value> {
    document["Statement"].as_array().expect("a list of statements")
}

fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(values) => values.iter().map(|value| value.as_str().expect("a string")).collect(),
        value => vec![value.as_str().expect("a string")],
    }
}

/// Whether a statement's action, resource and conditions fit.
fn fits(asked: &Asked, statement: &Value) -> Maybe {
    let action = |patterns: &Value| {
        let asked: Vec<char> = asked.action.to_lowercase().chars().collect();
        Some(texts(patterns).iter().any(|pattern| glob(&letters(&pattern.to_lowercase(), true), &asked)))
    };
    let resource = |patterns: &Value| any(texts(patterns).iter().map(|pattern| reaching(asked, pattern)).collect());
    let mut of = vec![match (&statement["Action"], &statement["NotAction"]) {
        (Value::Null, but) => not(action(but)),
        (these, _) => action(these),
    }];
    of.push(match (&statement["Resource"], &statement["NotResource"]) {
        (Value::Null, Value::Null) => Some(true),
        // A variable without a value: whether a resource is one of the excepted ones cannot be said.
        (Value::Null, but) => match resource(but) {
            Some(false) if texts(but).iter().any(|pattern| expanded(asked, pattern, true).is_none()) => None,
            other => not(other),
        },
        (these, _) => resource(these),
    });
    for (operator, keys) in statement["Condition"].as_object().into_iter().flatten() {
        for (key, wanted) in keys.as_object().expect("keys") {
            of.push(condition(asked, operator, key, &texts(wanted)));
        }
    }
    all(of)
}

fn meant(asked: &Asked, statement: &Value) -> Option<Meant> {
    let who = &asked.principal;
    let deny = statement["Effect"] == "Deny";
    if statement["Principal"].is_null() && statement["NotPrincipal"].is_null() {
        return Some(Meant::Itself);
    }
    if !statement["Principal"].is_null() {
        let meant: Vec<Meant> = named(&statement["Principal"])
            .into_iter()
            .filter_map(|(vendor, name)| one(who, vendor, name, deny))
            .collect();
        return [Meant::Itself, Meant::Role, Meant::Account].into_iter().find(|how| meant.contains(how));
    }
    let listed = named(&statement["NotPrincipal"]);
    let spared = match deny {
        true => {
            asked.boundary.is_none()
                && listed.iter().any(|(vendor, name)| one(who, vendor, name, false) == Some(Meant::Itself))
        }
        false => listed.iter().any(|(vendor, name)| one(who, vendor, name, true).is_some()),
    };
    (!spared).then_some(Meant::Role)
}

fn named(principals: &Value) -> Vec<(&str, &str)> {
    match principals.as_object() {
        None => vec![("", "*")],
        Some(map) => map
            .iter()
            .flat_map(|(vendor, names)| texts(names).into_iter().map(move |name| (vendor.as_str(), name)))
            .collect(),
    }
}

fn one(who: &Principal, vendor: &str, name: &str, deny: bool) -> Option<Meant> {
    let service = who.kind == PrincipalKind::Service;
    let account = name == who.account || name == format!("arn:aws:iam::{}:root", who.account);
    let role = matches!(&who.kind, PrincipalKind::AssumedRole { role_arn, .. } if role_arn == name);
    match vendor {
        "" => Some(Meant::Itself),
        "AWS" if name == "*" => (!service || deny).then_some(Meant::Itself),
        "AWS" if service => None,
        "AWS" if account => Some(if who.kind == PrincipalKind::Root { Meant::Itself } else { Meant::Account }),
        "AWS" if name == who.arn => Some(Meant::Itself),
        "AWS" => role.then_some(Meant::Role),
        "Service" => (service && name == who.arn).then_some(Meant::Itself),
        _ => None,
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Letter {
    Is(char),
    Any,
    Anything,
}

fn letters(text: &str, wild: bool) -> Vec<Letter> {
    text.chars()
        .map(|c| match c {
            '*' if wild => Letter::Anything,
            '?' if wild => Letter::Any,
            c => Letter::Is(c),
        })
        .collect()
}

/// Tries every place for every star.
fn glob(pattern: &[Letter], text: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((Letter::Anything, rest)) => (0..=text.len()).any(|from| glob(rest, &text[from..])),
        Some((Letter::Any, rest)) => !text.is_empty() && glob(rest, &text[1..]),
        Some((Letter::Is(c), rest)) => text.first() == Some(c) && glob(rest, &text[1..]),
    }
}

/// A pattern's letters with variables filled in, and whether one of them is not known; `None` if one has no value.
fn expanded(asked: &Asked, pattern: &str, wild: bool) -> Option<(Vec<Letter>, bool)> {
    let Some(from) = pattern.find("${") else { return Some((letters(pattern, wild), false)) };
    let to = from + pattern[from..].find('}').expect("a brace");
    let inside = &pattern[from + 2..to];
    let (mut behind, mut unknown) = expanded(asked, &pattern[to + 1..], wild)?;
    let mut whole = letters(&pattern[..from], wild);
    if ["*", "?", "$"].contains(&inside) {
        whole.extend(letters(inside, false));
    } else {
        let (key, default) = inside
            .split_once(", '")
            .map_or((inside, None), |(key, default)| (key, Some(default.trim_end_matches('\''))));
        match values(asked, key) {
            None => {
                unknown = true;
                whole.push(Letter::Anything);
            }
            Some(values) if values.is_empty() => whole.extend(letters(default?, false)),
            Some(values) if values.len() == 1 => whole.extend(letters(&values[0], false)),
            Some(_) => return None,
        }
    }
    whole.append(&mut behind);
    Some((whole, unknown))
}

fn judged(fits: bool, unknown: bool) -> Maybe {
    if fits && unknown { None } else { Some(fits) }
}

fn text(asked: &Asked, pattern: &str, wild: bool, fold: bool, value: &str) -> Maybe {
    let Some((mut pattern, unknown)) = expanded(asked, pattern, wild) else { return Some(false) };
    let mut value = value.to_owned();
    if fold {
        value = value.to_lowercase();
        for letter in &mut pattern {
            if let Letter::Is(c) = letter {
                *c = c.to_ascii_lowercase();
            }
        }
    }
    judged(glob(&pattern, &value.chars().collect::<Vec<_>>()), unknown)
}

/// Part by part; the last part of either takes all that is left.
fn arn(asked: &Asked, pattern: &str, value: &str) -> Maybe {
    if pattern == "*" {
        return Some(true);
    }
    let Some((pattern, unknown)) = expanded(asked, pattern, true) else { return Some(false) };
    let mut parts: Vec<Vec<Letter>> = vec![vec![]];
    for letter in pattern {
        match letter {
            Letter::Is(':') if parts.len() < 6 => parts.push(vec![]),
            letter => parts.last_mut().expect("a part").push(letter),
        }
    }
    let found: Vec<Vec<char>> = value.splitn(parts.len(), ':').map(|part| part.chars().collect()).collect();
    let fits = found.len() == parts.len() && parts.iter().zip(&found).all(|(pattern, part)| glob(pattern, part));
    judged(fits, unknown)
}

/// A resource. What fits only where a star reaches over colons may fit.
fn reaching(asked: &Asked, pattern: &str) -> Maybe {
    match (arn(asked, pattern, asked.resource), text(asked, pattern, true, false, asked.resource)) {
        (Some(false), Some(true)) => None,
        (Some(false), over_colons) => over_colons,
        (part_by_part, _) => part_by_part,
    }
}

/// The values of a key; empty: the request has none; `None`: nobody can say.
fn values(asked: &Asked, key: &str) -> Option<Vec<String>> {
    let who = &asked.principal;
    let service = who.kind == PrincipalKind::Service;
    let lower = key.to_lowercase();
    let unless_service = |value: &str| if service { vec![] } else { vec![value.to_owned()] };
    Some(match lower.as_str() {
        "aws:principalarn" => match &who.kind {
            PrincipalKind::AssumedRole { role_arn, .. } => vec![role_arn.clone()],
            _ => unless_service(&who.arn),
        },
        "aws:principalaccount" => unless_service(&who.account),
        "aws:username" => match &who.kind {
            PrincipalKind::User { name } => vec![name.clone()],
            _ => vec![],
        },
        "aws:principalisawsservice" => vec![service.to_string()],
        "aws:resourceaccount" => vec![asked.resource_account.to_owned()],
        "s3:resourceaccount" if asked.action.to_lowercase().starts_with("s3:") => {
            vec![asked.resource_account.to_owned()]
        }
        "aws:principaltag/team" => who.tags.get("team").into_iter().cloned().collect(),
        "aws:principaltag/none" => vec![],
        _ => match asked.context.iter().find(|(known, _)| known.to_lowercase() == lower) {
            Some((_, values)) => values.iter().map(|value| (*value).to_owned()).collect(),
            None => match lower.as_str() {
                "s3:requestjobpriority" | "aws:tagkeys" | "aws:requesttag/team" | "aws:sourcearn" => vec![],
                // Every request has an address, a time, a transport and an agent: whoever does not say which leaves us without.
                _ => return None,
            },
        },
    })
}

fn condition(asked: &Asked, operator: &str, key: &str, wanted: &[&str]) -> Maybe {
    let found = values(asked, key)?;
    if operator == "Null" {
        return Some((wanted[0] == "true") == found.is_empty());
    }
    let set = operator.split_once(':').map(|(set, _)| set);
    let name = operator.rsplit(':').next().expect("a name");
    let (name, if_exists) = name.strip_suffix("IfExists").map_or((name, false), |name| (name, true));
    let negated = name.contains("Not");
    if found.is_empty() {
        let holds = match set {
            Some("ForAllValues") => true,
            Some(_) => false,
            None => negated,
        };
        return Some(holds || if_exists);
    }
    let of_each = found.iter().map(|value| {
        let equal = any(wanted.iter().map(|wanted| compared(asked, name, wanted, value)).collect());
        if negated { not(equal) } else { equal }
    });
    match (set, negated) {
        (Some("ForAllValues"), _) | (None, true) => all(of_each.collect()),
        _ => any(of_each.collect()),
    }
}

/// One value with one that is wanted, without the `Not`.
fn compared(asked: &Asked, name: &str, wanted: &str, value: &str) -> Maybe {
    let number = |text: &str| text.parse::<f64>().ok();
    Some(match name.replace("Not", "").as_str() {
        "StringEquals" => return text(asked, wanted, false, false, value),
        "StringEqualsIgnoreCase" => return text(asked, wanted, false, true, value),
        "StringLike" => return text(asked, wanted, true, false, value),
        "ArnEquals" | "ArnLike" => return arn(asked, wanted, value),
        "Bool" => wanted == value,
        "IpAddress" => in_range(wanted, value),
        "NumericEquals" => number(value) == number(wanted),
        "NumericLessThan" => number(value) < number(wanted) && number(value).is_some(),
        "NumericLessThanEquals" => number(value) <= number(wanted) && number(value).is_some(),
        "NumericGreaterThanEquals" => number(value) >= number(wanted),
        // All in UTC and of one form: they compare as texts.
        "DateEquals" => value == wanted,
        "DateLessThan" => value < wanted,
        "DateGreaterThanEquals" => value >= wanted,
        other => panic!("no operator {other} is made"),
    })
}

fn in_range(range: &str, address: &str) -> bool {
    let (network, prefix) = range.split_once('/').unwrap_or((range, if range.contains(':') { "128" } else { "32" }));
    let bits = |text: &str| -> Vec<bool> {
        let text = text.trim_start_matches("::ffff:");
        let bytes = match text.contains(':') {
            true => text.parse::<Ipv6Addr>().expect("an address").octets().to_vec(),
            false => text.parse::<Ipv4Addr>().expect("an address").octets().to_vec(),
        };
        bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1)).collect()
    };
    let (network, address, prefix) = (bits(network), bits(address), prefix.parse::<usize>().expect("a number"));
    network.len() == address.len() && network[..prefix] == address[..prefix]
}
