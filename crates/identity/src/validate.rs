//! Checks of request members, with AWS's wording, and AWS's limits. Source: IAM user guide, "IAM and AWS STS quotas"; IAM API
//! reference.

use std::collections::BTreeMap;

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

use crate::error::IdentityError;

/// Characters of the names of users and roles.
pub(crate) const ROLE_NAME: usize = 64;
/// Characters of the names of policies, and of users where they are only looked up.
pub(crate) const POLICY_NAME: usize = 128;
/// Characters of a document as it may be sent.
pub(crate) const DOCUMENT_MAX: usize = 131_072;
/// Characters of a user's inline policies together, without white space.
pub(crate) const USER_INLINE_MAX: usize = 2_048;
/// Characters of a role's inline policies together, without white space.
pub(crate) const ROLE_INLINE_MAX: usize = 10_240;
/// Characters of a managed policy, without white space.
pub(crate) const MANAGED_MAX: usize = 6_144;
/// Characters of a trust policy, without white space.
pub(crate) const TRUST_MAX: usize = 2_048;
/// Characters of a session policy, as it was given.
pub(crate) const SESSION_POLICY_MAX: usize = 2_048;
pub(crate) const ATTACHED_MAX: usize = 10;
pub(crate) const SESSION_POLICY_ARNS_MAX: usize = 10;
pub(crate) const VERSIONS_MAX: usize = 5;
pub(crate) const TAGS_MAX: usize = 50;
pub(crate) const KEYS_MAX: usize = 2;
pub(crate) const USERS_MAX: usize = 5_000;
pub(crate) const ROLES_MAX: usize = 1_000;
pub(crate) const POLICIES_MAX: usize = 1_500;

/// One breach of a constraint, in AWS's words.
pub(crate) fn breach(value: &str, member: &str, constraint: &str) -> IdentityError {
    IdentityError::Validation(format!(
        "1 validation error detected: Value '{value}' at '{member}' failed to satisfy constraint: {constraint}"
    ))
}

pub(crate) fn missing(member: &str) -> IdentityError {
    IdentityError::Validation(format!(
        "1 validation error detected: Value at '{member}' failed to satisfy constraint: Member must not be null"
    ))
}

/// Checks a length, in characters.
pub(crate) fn length(value: &str, member: &str, min: usize, max: usize) -> Result<(), IdentityError> {
    let chars = value.chars().count();
    // What is much too long is not sent back whole.
    let shown = || value.chars().take(256).collect::<String>();
    if chars < min {
        let constraint = format!("Member must have length greater than or equal to {min}");
        return Err(breach(value, member, &constraint));
    }
    if chars > max {
        return Err(breach(&shown(), member, &format!("Member must have length less than or equal to {max}")));
    }
    Ok(())
}

/// A name of something: letters, digits and `+=,.@-_`. AWS's `\w` is ASCII's.
pub(crate) fn name(value: &str, member: &str, max: usize) -> Result<(), IdentityError> {
    length(value, member, 1, max)?;
    if value.bytes().all(|b| b.is_ascii_alphanumeric() || b"+=,.@-_".contains(&b)) {
        return Ok(());
    }
    Err(IdentityError::Validation(format!(
        "The specified value for {member} is invalid. It must contain only alphanumeric characters and/or the following: \
         +=,.@_-"
    )))
}

/// A path: `/`, or one that begins and ends with a slash.
pub(crate) fn path(value: &str) -> Result<(), IdentityError> {
    length(value, "path", 1, 512)?;
    // AWS lets users and roles have any printable character here. What means something else in a policy's ARN (`*`, `?`, `$`,
    // `:`) is not worth what it may be taken for.
    let plain = value.bytes().all(|b| b.is_ascii_alphanumeric() || b"+=,.@-_/".contains(&b));
    // Two slashes in a row would give one ARN to two entities.
    if value.starts_with('/') && value.ends_with('/') && plain && !value.contains("//") {
        return Ok(());
    }
    Err(IdentityError::Validation(
        "The specified value for path is invalid. It must begin and end with / and contain only alphanumeric characters \
         and/or / characters, or the following: +=,.@_-"
            .into(),
    ))
}

/// The start of a path by which a listing is narrowed.
pub(crate) fn path_prefix(value: &str) -> Result<(), IdentityError> {
    length(value, "pathPrefix", 1, 512)?;
    if value.starts_with('/') && value.bytes().all(|b| (0x21..=0x7f).contains(&b)) {
        return Ok(());
    }
    Err(IdentityError::Validation(
        "The specified value for pathPrefix is invalid. It must begin with / and contain only printable characters."
            .into(),
    ))
}

/// A number within bounds.
pub(crate) fn number(value: &str, member: &str, min: u32, max: u32) -> Result<u32, IdentityError> {
    let Ok(given) = value.parse::<i64>() else {
        return Err(IdentityError::Unreadable(format!("The value of {member} is no whole number.")));
    };
    let bound = if given < i64::from(min) {
        format!("Member must have value greater than or equal to {min}")
    } else {
        format!("Member must have value less than or equal to {max}")
    };
    u32::try_from(given).ok().filter(|n| (min..=max).contains(n)).ok_or_else(|| breach(value, member, &bound))
}

/// One of some words.
pub(crate) fn one_of(value: &str, member: &str, words: &[&str]) -> Result<(), IdentityError> {
    if words.contains(&value) {
        return Ok(());
    }
    Err(breach(value, member, &format!("Member must satisfy enum value set: [{}]", words.join(", "))))
}

/// A description of a role or policy.
pub(crate) fn description(value: &str) -> Result<(), IdentityError> {
    length(value, "description", 0, 1_000)?;
    let good = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='~' | '\u{a1}'..='\u{ff}');
    if value.chars().all(good) {
        return Ok(());
    }
    let constraint = r"Member must satisfy regular expression pattern: [\u0009\u000A\u000D\u0020-\u007E\u00A1-\u00FF]*";
    Err(breach(value, "description", constraint))
}

/// A document as it was sent: what it means is looked at later.
pub(crate) fn document(value: &str, member: &str) -> Result<(), IdentityError> {
    length(value, member, 1, DOCUMENT_MAX)?;
    let good = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{ff}');
    if value.chars().all(good) {
        return Ok(());
    }
    Err(IdentityError::Validation(format!(
        "The specified value for {member} is invalid. It must contain only printable ASCII characters and those of Latin-1."
    )))
}

fn is_tag_char(c: char) -> bool {
    let group = || c.general_category_group();
    "_.:/=+-@".contains(c)
        || matches!(
            group(),
            GeneralCategoryGroup::Letter | GeneralCategoryGroup::Number | GeneralCategoryGroup::Separator
        )
}

pub(crate) fn tag_key(key: &str) -> Result<(), IdentityError> {
    length(key, "tags.member.key", 1, 128)?;
    if !key.chars().all(is_tag_char) {
        let constraint = r"Member must satisfy regular expression pattern: [\p{L}\p{Z}\p{N}_.:/=+\-@]+";
        return Err(breach(key, "tags.member.key", constraint));
    }
    if key.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("aws:")) {
        return Err(IdentityError::InvalidInput(
            "Tag keys that begin with 'aws:' are reserved, and can be neither added nor removed.".into(),
        ));
    }
    Ok(())
}

pub(crate) fn tag_value(value: &str) -> Result<(), IdentityError> {
    length(value, "tags.member.value", 0, 256)?;
    if value.chars().all(is_tag_char) {
        return Ok(());
    }
    let constraint = r"Member must satisfy regular expression pattern: [\p{L}\p{Z}\p{N}_.:/=+\-@]*";
    Err(breach(value, "tags.member.value", constraint))
}

/// Tags as they would be. Keys are not distinguished by case, and keep the case in which they came first.
pub(crate) fn merge_tags(
    tags: &mut BTreeMap<String, String>,
    given: BTreeMap<String, String>,
) -> Result<(), IdentityError> {
    for (key, value) in given {
        let there = tags.keys().find(|there| there.to_lowercase() == key.to_lowercase()).cloned();
        tags.insert(there.unwrap_or(key), value);
    }
    if tags.len() > TAGS_MAX {
        return Err(IdentityError::LimitExceeded(format!("Cannot exceed quota for TagsPerResource: {TAGS_MAX}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_are_those_that_aws_takes() {
        for (value, good) in
            [("a", true), ("A9+=,.@-_", true), ("", false), ("a b", false), ("a/b", false), ("ä", false)]
        {
            assert_eq!(name(value, "roleName", 64).is_ok(), good, "{value}");
        }
        assert!(name(&"a".repeat(64), "roleName", 64).is_ok() && name(&"a".repeat(65), "roleName", 64).is_err());
        for (value, good) in [
            ("/", true),
            ("/a/", true),
            ("/a/b/", true),
            ("a/", false),
            ("/a", false),
            ("", false),
            ("//", false),
            ("/*/", false),
        ] {
            assert_eq!(path(value).is_ok(), good, "{value}");
        }
        let error = name(&"a".repeat(65), "roleName", 64).unwrap_err().to_string();
        assert!(
            error.ends_with(
                "at 'roleName' failed to satisfy constraint: Member must have length less than or equal to 64"
            )
        );
    }

    #[test]
    fn a_number_is_within_its_bounds() {
        for (value, given) in [("900", Some(900)), ("899", None), ("3601", None), ("-1", None), ("x", None), ("", None)]
        {
            assert_eq!(number(value, "durationSeconds", 900, 3_600).ok(), given, "{value}");
        }
    }

    #[test]
    fn keys_of_tags_are_not_distinguished_by_case_and_are_fifty_at_most() {
        let mut tags = BTreeMap::from([("Team".to_owned(), "a".to_owned())]);
        merge_tags(&mut tags, BTreeMap::from([("team".into(), "b".into())])).unwrap();
        assert_eq!(tags, BTreeMap::from([("Team".to_owned(), "b".to_owned())]));
        let many = |count: usize| (0..count).map(|n| (format!("k{n}"), String::new())).collect::<BTreeMap<_, _>>();
        merge_tags(&mut tags.clone(), many(49)).unwrap();
        assert!(matches!(merge_tags(&mut tags, many(50)), Err(IdentityError::LimitExceeded(_))));
        for (key, good) in
            [("aws:x", false), ("AWS:x", false), ("awsx", true), ("", false), ("a!", false), ("ä 1", true)]
        {
            assert_eq!(tag_key(key).is_ok(), good, "{key}");
        }
    }
}
