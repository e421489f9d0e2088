//! From what a caller wrote to the layers it means. Source: Lambda spec 3.3 step 8, 8.2.

use std::sync::Arc;

use longshore_wire::arn::Arn;
use longshore_wire::{Call, Query};
use serde_json::{Value, json};

use crate::Functions;
use crate::error::FunctionError;
use crate::function::LayerReference;
use crate::layer::{LayerVersion, Permissions};
use crate::members::{ARCHITECTURES, known_runtimes};
use crate::shape::last_modified;
use crate::validate::Violations;

/// Layers that one function may have. Source: Lambda spec 7.
const LAYERS_MAX: usize = 5;
/// Characters of a layer's name with everything around it. Source: API model.
const NAME_CHARS_MAX: usize = 140;
const NAME_PATTERN: &str = "(arn:[a-zA-Z0-9-]+:lambda:[a-zA-Z0-9-]+:\\d{12}:layer:[a-zA-Z0-9-_]+)|[a-zA-Z0-9-_]+";
const VERSION_ARN_PATTERN: &str = "arn:(aws[a-zA-Z-]*)?:lambda:(eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\\d{1}:\\d{12}:layer:\
     [a-zA-Z0-9-_]+:[0-9]+";

/// A layer version's ARN, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct VersionArn<'a> {
    region: &'a str,
    account: &'a str,
    name: &'a str,
    number: &'a str,
}

fn version_arn(text: &str) -> Option<VersionArn<'_>> {
    let arn = layer_arn(text)?;
    let (name, number) = arn.resource.strip_prefix("layer:")?.split_once(':')?;
    let number_ok = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    (is_name(name) && number_ok).then_some(VersionArn { region: arn.region, account: arn.account, name, number })
}

/// An ARN of the service, in a region and an account.
fn layer_arn(text: &str) -> Option<Arn<'_>> {
    let arn = Arn::parse(text)?;
    let account_ok = arn.account.len() == 12 && arn.account.bytes().all(|b| b.is_ascii_digit());
    let partition_ok =
        arn.partition.starts_with("aws") && arn.partition.bytes().all(|b| b == b'-' || b.is_ascii_alphanumeric());
    let region_ok =
        !arn.region.is_empty() && arn.region.bytes().all(|b| b == b'-' || b.is_ascii_lowercase() || b.is_ascii_digit());
    (arn.service == "lambda" && partition_ok && region_ok && account_ok).then_some(arn)
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Breaches of the model in `Layers` of a function.
pub(crate) fn violations(layers: &[String], v: &mut Violations) {
    if layers.iter().any(|layer| version_arn(layer).is_none()) {
        v.add(
            &format!("[{}]", layers.join(", ")),
            "layers",
            format_args!(
                "Member must satisfy constraint: [Member must have length less than or equal to 2048, Member must have \
                 length greater than or equal to 1, Member must satisfy regular expression pattern: \
                 ({VERSION_ARN_PATTERN})|(arn:[a-zA-Z0-9-]+:lambda:::awslayer:[a-zA-Z0-9-_]+), Member must not be null]"
            ),
        );
    }
}

impl Functions {
    /// The unqualified ARN of a layer of ours.
    pub(crate) fn layer_arn(&self, name: &str) -> String {
        let settings = &self.inner.settings;
        format!("arn:aws:lambda:{}:{}:layer:{name}", settings.region, settings.account)
    }

    /// The layer that `text` names, by its name or its ARN; whether it exists is another question. `action` as in
    /// `lambda:GetLayerVersion`.
    pub(crate) fn layer_name(&self, text: &str, call: &Call, action: &str) -> Result<String, FunctionError> {
        let arn = layer_arn(text).and_then(|arn| Some((arn.clone(), arn.resource.strip_prefix("layer:")?.to_owned())));
        let name = arn.as_ref().map_or(text, |(_, name)| name);
        let mut v = Violations::default();
        v.length(text, "layerName", 1, NAME_CHARS_MAX);
        v.pattern(text, "layerName", is_name(name), NAME_PATTERN);
        v.finish()?;
        let (region, account) = arn.as_ref().map_or((None, None), |(arn, _)| (Some(arn.region), Some(arn.account)));
        self.check_layer_place(region, account, text, call, action)?;
        Ok(name.to_owned())
    }

    /// Name and number of the layer version that an ARN names.
    pub(crate) fn layer_version_named(&self, arn: &str, call: &Call) -> Result<(String, i64), FunctionError> {
        let parsed = version_arn(arn);
        let mut v = Violations::default();
        v.length(arn, "arn", 1, NAME_CHARS_MAX);
        v.pattern(arn, "arn", parsed.is_some(), VERSION_ARN_PATTERN);
        v.finish()?;
        let Some(VersionArn { region, account, name, number }) = parsed else {
            return Err(FunctionError::Parameter("The ARN does not read.".into()));
        };
        self.check_layer_place(Some(region), Some(account), arn, call, "GetLayerVersion")?;
        // More digits than fit name a version that is not there.
        Ok((name.to_owned(), number.parse().unwrap_or(i64::MAX)))
    }

    /// The layer version that `text` means, as policies are asked about it: in one spelling, whatever partition and zeros it was
    /// written with. What does not read is no resource.
    pub(crate) fn layer_version_asked(&self, text: &str) -> String {
        let Some(VersionArn { region, account, name, number }) = version_arn(text) else { return "*".to_owned() };
        let number = number.trim_start_matches('0');
        format!("arn:aws:lambda:{region}:{account}:layer:{name}:{}", if number.is_empty() { "0" } else { number })
    }

    /// Layers of other accounts are nobody's here, and those of other regions are elsewhere.
    fn check_layer_place(
        &self,
        region: Option<&str>,
        account: Option<&str>,
        text: &str,
        call: &Call,
        action: &str,
    ) -> Result<(), FunctionError> {
        let settings = &self.inner.settings;
        let caller = call.request.caller.account();
        let foreign = account.is_some_and(|account| account != settings.account) || caller != settings.account;
        if foreign || region.is_some_and(|region| region != settings.region) {
            return Err(denied(caller, action, text));
        }
        Ok(())
    }

    /// The layer versions that a function is to have, each with its content. Source of texts: recorded answers of AWS,
    /// by way of the Lambda spec.
    pub(crate) fn layers(&self, arns: &[String], call: &Call) -> Result<Vec<LayerReference>, FunctionError> {
        if arns.len() > LAYERS_MAX {
            return Err(FunctionError::Parameter(format!("Cannot reference more than {LAYERS_MAX} layers.")));
        }
        let settings = &self.inner.settings;
        let snapshot = self.inner.catalogue.snapshot();
        let mut layers: Vec<LayerReference> = Vec::new();
        for arn in arns {
            let missing = || FunctionError::Parameter(format!("Layer version {arn} does not exist."));
            let VersionArn { region, account, name, number } = version_arn(arn).ok_or_else(missing)?;
            if account != settings.account {
                return Err(denied(call.request.caller.account(), "GetLayerVersion", arn));
            }
            if region != settings.region {
                return Err(FunctionError::Parameter(format!(
                    "Layers are not in the same region as the function. Layers are expected to be in region {}.",
                    settings.region
                )));
            }
            let number: u32 = number.parse().map_err(|_| missing())?;
            let layer = snapshot.layers.get(name).and_then(|layer| layer.versions.get(&number)).ok_or_else(missing)?;
            let layer_of = |arn: &str| arn.rsplit_once(':').map_or(String::new(), |(layer, _)| layer.to_owned());
            if let Some(other) = layers.iter().find(|other| layer_of(&other.arn) == layer_of(arn)) {
                return Err(FunctionError::Parameter(format!(
                    "Two different versions of the same layer are not allowed to be referenced in the same function. \
                     {} and {arn} are versions of the same layer.",
                    other.arn
                )));
            }
            layers.push(LayerReference { arn: arn.clone(), code: layer.code.clone() });
        }
        Ok(layers)
    }
}

/// The one action that a layer version's policy is about.
pub(crate) const ACTION: &str = "lambda:GetLayerVersion";
/// Entries of a page in lists of layers. Source: API model.
pub(crate) const PAGE_MAX: u32 = 50;

/// Which layer versions a list is to show.
pub(crate) struct Fits {
    runtime: Option<String>,
    architecture: Option<String>,
}

impl Fits {
    pub fn read(query: &Query) -> Result<Self, FunctionError> {
        let mut v = Violations::default();
        let runtime = query.get("CompatibleRuntime").map(str::to_owned);
        if let Some(runtime) = &runtime {
            v.one_of(runtime, "compatibleRuntime", &known_runtimes().collect::<Vec<_>>());
        }
        let architecture = query.get("CompatibleArchitecture").map(str::to_owned);
        if let Some(architecture) = &architecture {
            v.one_of(architecture, "compatibleArchitecture", ARCHITECTURES);
        }
        v.finish()?;
        Ok(Self { runtime, architecture })
    }

    /// Whether a version says of itself that it goes with what is asked for. One that says nothing does not.
    pub fn takes(&self, version: &LayerVersion) -> bool {
        let has = |wanted: &Option<String>, said: &Option<Vec<String>>| {
            wanted.as_ref().is_none_or(|wanted| said.as_ref().is_some_and(|said| said.contains(wanted)))
        };
        has(&self.runtime, &version.about.compatible_runtimes)
            && has(&self.architecture, &version.about.compatible_architectures)
    }
}

/// The `VersionNumber` of a path.
pub(crate) fn version_number(call: &Call) -> Result<i64, FunctionError> {
    let text = call.label("VersionNumber");
    let number: i64 = text
        .parse()
        .map_err(|_| FunctionError::Parameter(format!("The layer version number {text:?} is not a number.")))?;
    if number < 1 {
        return Err(FunctionError::Parameter("Layer Version Cannot be less than 1".into()));
    }
    Ok(number)
}

/// Refuses a change of permissions by someone who has not seen the last one.
pub(crate) fn check_permissions_revision(permissions: &Permissions, given: Option<&str>) -> Result<(), FunctionError> {
    match given {
        Some(given) if given != permissions.revision_id => Err(FunctionError::LayerRevision),
        _ => Ok(()),
    }
}

impl Functions {
    /// A version that is there.
    pub(crate) fn layer_version(&self, name: &str, number: i64) -> Result<Arc<LayerVersion>, FunctionError> {
        let snapshot = self.inner.catalogue.snapshot();
        let version = snapshot.layers.get(name).and_then(|layer| layer.find(number));
        version.ok_or_else(|| FunctionError::Missing("The resource you requested does not exist.".into()))
    }

    /// A layer version as lists show it.
    pub(crate) fn layer_shape(&self, name: &str, version: &LayerVersion) -> Value {
        let about = &version.about;
        let mut shape = json!({
            "LayerVersionArn": format!("{}:{}", self.layer_arn(name), version.number),
            "Version": version.number,
            "Description": about.description,
            "CreatedDate": last_modified(version.created_ms),
        });
        if let Some(runtimes) = &about.compatible_runtimes {
            shape["CompatibleRuntimes"] = json!(runtimes);
        }
        if let Some(architectures) = &about.compatible_architectures {
            shape["CompatibleArchitectures"] = json!(architectures);
        }
        if let Some(license) = &about.license_info {
            shape["LicenseInfo"] = license.as_str().into();
        }
        shape
    }

    /// A layer version alone: with its layer, and a link to its content.
    pub(crate) fn layer_with_content(&self, name: &str, version: &LayerVersion, call: &Call) -> Value {
        let mut shape = self.layer_shape(name, version);
        let host = call.request.header("host").unwrap_or("localhost");
        shape["LayerArn"] = self.layer_arn(name).into();
        shape["Content"] = json!({
            "Location": self.link(host, &version.code.sha256),
            "CodeSha256": version.code.sha256_base64(),
            "CodeSize": version.code.size,
        });
        shape
    }
}

fn denied(caller: &str, action: &str, resource: &str) -> FunctionError {
    FunctionError::Denied(format!(
        "User: arn:aws:iam::{caller}:root is not authorized to perform: lambda:{action} on resource: {resource} because \
         no resource-based policy allows the lambda:{action} action"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arn_of_a_layer_version_is_read_strictly() {
        let read = version_arn("arn:aws:lambda:us-east-1:111111111111:layer:pillow_10:3").unwrap();
        assert_eq!(read, VersionArn { region: "us-east-1", account: "111111111111", name: "pillow_10", number: "3" });
        for bad in [
            "",
            "l",
            "arn:aws:lambda:us-east-1:111111111111:layer:l",
            "arn:aws:lambda:us-east-1:111111111111:layer::1",
            "arn:aws:lambda:us-east-1:111111111111:layer:l:x",
            "arn:aws:lambda:us-east-1:111111111111:layer:l:1:2",
            "arn:aws:lambda:us-east-1:11111111111:layer:l:1",
            "arn:aws:lambda::111111111111:layer:l:1",
            "arn:aws:s3:us-east-1:111111111111:layer:l:1",
            "arn:aws:lambda:us-east-1:111111111111:function:l:1",
            "arn:aws:lambda:us-east-1:111111111111:layer:../x:1",
        ] {
            assert_eq!(version_arn(bad), None, "{bad}");
        }
    }
}
