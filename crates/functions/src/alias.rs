//! What the operations on aliases share: members, the rules of routing, and the shape they answer with. Source: Lambda
//! spec 4.2.

use std::collections::BTreeMap;

use longshore_wire::Call;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::FunctionError;
use crate::function::{Additional, Alias, Function, VersionNumber};
use crate::resolve::Named;
use crate::validate::Violations;
use crate::{Functions, Settings};

const NAME_PATTERN: &str = "(?!^[0-9]+$)([a-zA-Z0-9-_]+)";
const VERSION_PATTERN: &str = "(\\$LATEST(\\.PUBLISHED)?|[0-9]+)";
const WEIGHTS: &str = "routingConfig.additionalVersionWeights";
/// Characters of an alias's name.
const NAME_CHARS_MAX: usize = 128;
/// Characters of a version as the model has it; no version of ours comes near.
const VERSION_CHARS_MAX: usize = 1_024;

/// `RoutingConfig` of a request: versions beside the alias's own, and the share of each.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
pub(crate) struct Routing {
    additional_version_weights: Option<BTreeMap<String, Option<f64>>>,
}

impl Routing {
    fn weights(&self) -> impl Iterator<Item = (&str, Option<f64>)> {
        self.additional_version_weights.iter().flatten().map(|(version, weight)| (version.as_str(), *weight))
    }

    pub fn violations(&self, v: &mut Violations) {
        // As Java prints a map, since AWS does.
        let entries: Vec<String> = self
            .weights()
            .map(|(version, weight)| match weight {
                Some(weight) => format!("{version}={weight:?}"),
                None => format!("{version}=null"),
            })
            .collect();
        let map = format!("{{{}}}", entries.join(", "));
        let is_number = |version: &str| {
            (1..=VERSION_CHARS_MAX).contains(&version.len()) && version.bytes().all(|b| b.is_ascii_digit())
        };
        if !self.weights().all(|(version, _)| is_number(version)) {
            v.add(
                &map,
                WEIGHTS,
                format_args!(
                    "Map keys must satisfy constraint: [Member must have length less than or equal to \
                     {VERSION_CHARS_MAX}, Member must have length greater than or equal to 1, Member must satisfy \
                     regular expression pattern: [0-9]+, Member must not be null]"
                ),
            );
        }
        if !self.weights().all(|(_, weight)| weight.is_some_and(|weight| (0.0..=1.0).contains(&weight))) {
            v.add(
                &map,
                WEIGHTS,
                "Map value must satisfy constraint: [Member must have value less than or equal to 1.0, Member must \
                 have value greater than or equal to 0.0, Member must not be null]",
            );
        }
    }

    /// The second version that is asked for, if one is, for an alias whose own version is `version`.
    pub fn additional(
        &self,
        settings: &Settings,
        function: &Function,
        version: VersionNumber,
    ) -> Result<Option<Additional>, FunctionError> {
        let mut weights = self.weights();
        let (Some((number, weight)), more) = (weights.next(), weights.next()) else { return Ok(None) };
        if more.is_some() {
            return Err(parameter("Number of items in AdditionalVersionWeights cannot be greater than 1"));
        }
        let arn = || format!("{}:{number}", settings.function_arn(&function.name));
        let number = VersionNumber::parse(number).ok_or_else(|| FunctionError::NotFound(arn()))?;
        let additional = Additional { version: number, weight: weight.unwrap_or_default() };
        check_pair(settings, function, version, additional)?;
        Ok(Some(additional))
    }
}

/// Whether an alias may have these two versions. Source: Lambda spec 4.2. That both have the same dead-letter queue holds
/// by itself: there are none here.
pub(crate) fn check_pair(
    settings: &Settings,
    function: &Function,
    version: VersionNumber,
    additional: Additional,
) -> Result<(), FunctionError> {
    if additional.version == version {
        return Err(parameter(format!(
            "Invalid function version {version}. Function version {version} is already included in routing \
             configuration."
        )));
    }
    if version == VersionNumber::LATEST {
        return Err(parameter("$LATEST is not supported for an alias pointing to more than 1 version"));
    }
    let find = |number: VersionNumber| {
        let missing = || FunctionError::NotFound(format!("{}:{number}", settings.function_arn(&function.name)));
        function.versions.get(&number).ok_or_else(missing)
    };
    let roles = (&find(version)?.configuration.role, &find(additional.version)?.configuration.role);
    if roles.0 != roles.1 {
        return Err(parameter(format!(
            "The two versions of an alias must have the same execution role: version {version} has {}, version {} has \
             {}.",
            roles.0, additional.version, roles.1
        )));
    }
    Ok(())
}

fn parameter(text: impl Into<String>) -> FunctionError {
    FunctionError::Parameter(text.into())
}

pub(crate) fn name_violations(v: &mut Violations, name: &str) {
    let letters = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let fits = !name.is_empty() && name.bytes().all(letters) && !name.bytes().all(|b| b.is_ascii_digit());
    v.length(name, "name", 1, NAME_CHARS_MAX);
    v.pattern(name, "name", fits, NAME_PATTERN);
}

pub(crate) fn version_violations(v: &mut Violations, version: &str) {
    let digits = !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit());
    v.length(version, "functionVersion", 1, VERSION_CHARS_MAX);
    let fits = digits || version == "$LATEST" || version == "$LATEST.PUBLISHED";
    v.pattern(version, "functionVersion", fits, VERSION_PATTERN);
}

pub(crate) fn description_violations(v: &mut Violations, description: &str) {
    v.length(description, "description", 0, 256);
}

/// The version of the function that was asked for, or that it is not there.
pub(crate) fn find_version(
    settings: &Settings,
    function: &Function,
    version: &str,
) -> Result<VersionNumber, FunctionError> {
    let number = VersionNumber::parse(version).filter(|number| function.versions.contains_key(number));
    number.ok_or_else(|| FunctionError::NotFound(format!("{}:{version}", settings.function_arn(&function.name))))
}

impl Functions {
    /// The function and the alias in the path.
    pub(crate) fn named_alias(&self, call: &Call, action: &str) -> Result<(Named, String), FunctionError> {
        let name = call.label("Name").to_owned();
        let mut v = Violations::default();
        name_violations(&mut v, &name);
        v.finish()?;
        Ok((self.named_unqualified(call, action)?, name))
    }
}

/// `AliasConfiguration`, with which most of these operations answer.
pub(crate) fn shape(settings: &Settings, function: &str, alias: &Alias) -> Value {
    let mut shape = json!({
        "AliasArn": format!("{}:{}", settings.function_arn(function), alias.name),
        "Name": alias.name,
        "FunctionVersion": alias.version.to_string(),
        "Description": alias.description,
        "RevisionId": alias.revision_id,
    });
    if let Some(Additional { version, weight }) = alias.additional {
        shape["RoutingConfig"] = json!({"AdditionalVersionWeights": {version.to_string(): weight}});
    }
    shape
}
