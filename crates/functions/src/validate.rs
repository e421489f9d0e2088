//! Checks of request members, with AWS's wording. Source: Lambda spec 1.11, 2.5, 3.2, 3.3.

use std::collections::BTreeMap;

use longshore_wire::arn::Arn;

use crate::error::FunctionError;

pub const FUNCTION_NAME_PATTERN: &str = longshore_wire::arn::NameShape::Function.pattern();
pub const QUALIFIER_PATTERN: &str = "\\$(LATEST(\\.PUBLISHED)?)|[a-zA-Z0-9-_$]+";
const ROLE_PATTERN: &str = "arn:(aws[a-zA-Z-]*)?:iam::\\d{12}:role/?[a-zA-Z_0-9+=,.@\\-_/]+";
const SOURCE_ARN_PATTERN: &str =
    "arn:(aws[a-zA-Z0-9-]*):([a-zA-Z0-9\\-])+:([a-z]{2}(-gov)?-[a-z]+-\\d{1})?:(\\d{12})?:(.*)";
const VARIABLE_PATTERN: &str = "[a-zA-Z]([a-zA-Z0-9_])+";
/// Bytes of the JSON of all environment variables.
pub const VARIABLES_BYTES_MAX: usize = 4_096;
const TAGS_MAX: usize = 50;
/// Characters of a value that are repeated in a message: enough to recognise it, not enough to fill a log.
const ECHO_CHARS_MAX: usize = 512;

/// Variables that the host sets and a function may not. Source: Lambda spec 1.11, "overridable: no".
const RESERVED_VARIABLES: &[&str] = &[
    "AWS_ACCESS_KEY",
    "AWS_ACCESS_KEY_ID",
    "AWS_DEFAULT_REGION",
    "AWS_EXECUTION_ENV",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
    "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_VERSION",
    "AWS_LAMBDA_INITIALIZATION_TYPE",
    "AWS_LAMBDA_LOG_GROUP_NAME",
    "AWS_LAMBDA_LOG_STREAM_NAME",
    "AWS_LAMBDA_MAX_CONCURRENCY",
    "AWS_LAMBDA_RUNTIME_API",
    "AWS_REGION",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "LAMBDA_RUNTIME_DIR",
    "LAMBDA_TASK_ROOT",
];

/// Breaches of the model's constraints, collected so that one answer names them all.
#[derive(Debug, Default)]
pub struct Violations(Vec<String>);

impl Violations {
    pub fn add(&mut self, value: &str, path: &str, constraint: impl std::fmt::Display) {
        let echo: String = value.chars().take(ECHO_CHARS_MAX).collect();
        self.0.push(format!("Value '{echo}' at '{path}' failed to satisfy constraint: {constraint}"));
    }

    pub fn missing(&mut self, path: &str) {
        self.0.push(format!("Value null at '{path}' failed to satisfy constraint: Member must not be null"));
    }

    pub fn length(&mut self, value: &str, path: &str, min: usize, max: usize) {
        let length = value.chars().count();
        if length < min {
            self.add(value, path, format_args!("Member must have length greater than or equal to {min}"));
        }
        if length > max {
            self.add(value, path, format_args!("Member must have length less than or equal to {max}"));
        }
    }

    pub fn pattern(&mut self, value: &str, path: &str, matches: bool, pattern: &str) {
        if !matches {
            self.add(value, path, format_args!("Member must satisfy regular expression pattern: {pattern}"));
        }
    }

    pub fn one_of(&mut self, value: &str, path: &str, set: &[&str]) {
        if !set.contains(&value) {
            self.add(value, path, format_args!("Member must satisfy enum value set: [{}]", set.join(", ")));
        }
    }

    /// At most so many values.
    pub fn at_most(&mut self, values: &[String], path: &str, max: usize) {
        if values.len() > max {
            let shown = format!("[{}]", values.join(", "));
            self.add(&shown, path, format_args!("Member must have length less than or equal to {max}"));
        }
    }

    /// Each value one of the set.
    pub fn each_one_of(&mut self, values: &[String], path: &str, set: &[&str]) {
        if values.iter().any(|value| !set.contains(&value.as_str())) {
            let shown = format!("[{}]", values.join(", "));
            let set = set.join(", ");
            self.add(
                &shown,
                path,
                format_args!(
                    "Member must satisfy constraint: [Member must satisfy enum value set: [{set}], Member must not be \
                     null]"
                ),
            );
        }
    }

    /// The number if it is in the range; otherwise a breach, and `None`.
    pub fn range(&mut self, value: i64, path: &str, min: u32, max: u32) -> Option<u32> {
        if value < i64::from(min) {
            self.add(&value.to_string(), path, format_args!("Member must have value greater than or equal to {min}"));
        } else if value > i64::from(max) {
            self.add(&value.to_string(), path, format_args!("Member must have value less than or equal to {max}"));
        }
        u32::try_from(value).ok().filter(|value| (min..=max).contains(value))
    }

    pub fn role(&mut self, role: &str) {
        let matches = (|| {
            let rest = role.strip_prefix("arn:")?;
            let (partition, rest) = rest.split_once(":iam::")?;
            let (account, name) = rest.split_once(":role")?;
            let partition_ok = partition.is_empty()
                || (partition.starts_with("aws") && partition.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-'));
            let account_ok = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
            let name_ok =
                !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-/".contains(&b));
            (partition_ok && account_ok && name_ok).then_some(())
        })();
        self.pattern(role, "role", matches.is_some(), ROLE_PATTERN);
    }

    pub fn handler(&mut self, handler: &str) {
        self.length(handler, "handler", 0, 128);
        self.pattern(handler, "handler", !handler.is_empty() && !handler.contains(char::is_whitespace), "[^\\s]+");
    }

    pub fn qualifier(&mut self, qualifier: &str) {
        let ok = |b: u8| b.is_ascii_alphanumeric() || b"-_$".contains(&b);
        let matches = qualifier == "$LATEST.PUBLISHED" || (!qualifier.is_empty() && qualifier.bytes().all(ok));
        self.length(qualifier, "qualifier", 1, 128);
        self.pattern(qualifier, "qualifier", matches, QUALIFIER_PATTERN);
    }

    /// `dotted`: RemovePermission allows dots, AddPermission does not.
    pub fn statement_id(&mut self, id: &str, dotted: bool) {
        let ok = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || (dotted && b == b'.');
        let pattern = if dotted { "([a-zA-Z0-9-_.]+)" } else { "([a-zA-Z0-9-_]+)" };
        self.length(id, "statementId", 1, 100);
        self.pattern(id, "statementId", !id.is_empty() && id.bytes().all(ok), pattern);
    }

    /// Of the resource that a permission's principal acts for.
    pub fn source_arn(&mut self, text: &str) {
        let fits = Arn::parse(text).is_some_and(|arn| {
            let dashed = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
            arn.partition.strip_prefix("aws").is_some_and(dashed)
                && !arn.service.is_empty()
                && dashed(arn.service)
                && (arn.region.is_empty() || is_source_region(arn.region))
                && (arn.account.is_empty() || (arn.account.len() == 12 && digits(arn.account)))
        });
        self.pattern(text, "sourceArn", fits, SOURCE_ARN_PATTERN);
    }

    pub fn variable_names(&mut self, variables: &BTreeMap<String, String>) {
        if let Some(name) = variables.keys().find(|name| !is_variable_name(name)) {
            self.add(
                name,
                "environment.variables",
                format_args!(
                    "Map keys must satisfy constraint: [Member must satisfy regular expression pattern: \
                     {VARIABLE_PATTERN}]"
                ),
            );
        }
    }

    pub fn finish(self) -> Result<(), FunctionError> {
        match self.0.len() {
            0 => Ok(()),
            1 => Err(FunctionError::Constraint(format!("1 validation error detected: {}", self.0[0]))),
            n => Err(FunctionError::Constraint(format!("{n} validation errors detected: {}", self.0.join("; ")))),
        }
    }
}

/// `us-east-1` or `us-gov-west-1`.
fn is_source_region(text: &str) -> bool {
    let letters = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase());
    let parts: Vec<&str> = text.split('-').collect();
    let (country, area, number) = match parts[..] {
        [country, area, number] | [country, "gov", area, number] => (country, area, number),
        _ => return false,
    };
    country.len() == 2
        && letters(country)
        && letters(area)
        && number.len() == 1
        && number.bytes().all(|b| b.is_ascii_digit())
}

/// Whether Lambda allows an environment variable of this name: a letter, then letters, digits and underscores, one at least.
pub fn is_variable_name(name: &str) -> bool {
    name.len() >= 2
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Whether the host sets this variable, so that a function's configuration may not.
pub fn is_reserved_variable(name: &str) -> bool {
    RESERVED_VARIABLES.contains(&name)
}

/// What counts against [`VARIABLES_BYTES_MAX`].
pub fn variables_bytes(variables: &BTreeMap<String, String>) -> usize {
    serde_json::to_string(variables).unwrap_or_default().len()
}

/// What the model allows and Lambda refuses: reserved names, more than 4 KB.
pub fn variables(variables: &BTreeMap<String, String>) -> Result<(), FunctionError> {
    const UNABLE: &str = "Lambda was unable to configure your environment variables because the environment variables \
                          you have provided";
    let reserved: Vec<&str> = variables.keys().map(String::as_str).filter(|name| is_reserved_variable(name)).collect();
    if !reserved.is_empty() {
        return Err(FunctionError::Parameter(format!(
            "{UNABLE} contains reserved keys that are currently not supported for modification. Reserved keys used in \
             this request: {}",
            reserved.join(", ")
        )));
    }
    if let Some(name) = variables.iter().find(|(_, value)| value.contains('\0')).map(|(name, _)| name) {
        return Err(FunctionError::Parameter(format!("The environment variable {name} holds a NUL character.")));
    }
    let json = serde_json::to_string(variables).unwrap_or_default();
    if json.len() > VARIABLES_BYTES_MAX {
        return Err(FunctionError::Parameter(format!("{UNABLE} exceeded the 4KB limit. String measured: {json}")));
    }
    Ok(())
}

/// Tags as a whole, after a change. Source: Lambda spec 3.9.
pub fn tags(tags: &BTreeMap<String, String>) -> Result<(), FunctionError> {
    if tags.len() > TAGS_MAX {
        return Err(FunctionError::Parameter("Number of tags exceeds resource tag limit.".into()));
    }
    for (key, value) in tags {
        if key.is_empty() || key.chars().count() > 128 || value.chars().count() > 256 {
            return Err(FunctionError::Parameter(
                "A tag's key has 1 to 128 characters and its value at most 256.".into(),
            ));
        }
        if key.to_ascii_lowercase().starts_with("aws:") {
            return Err(FunctionError::Parameter(
                "The tag key prefix aws: is reserved and cannot be used for your tags.".into(),
            ));
        }
    }
    Ok(())
}
