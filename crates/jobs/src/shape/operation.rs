//! `Operation`: what is done to each object.

use longshore_wire::arn::FunctionName;
use longshore_wire::xml::{Element, Writer};
use serde::{Deserialize, Serialize};

use super::{Checked, invalid, optional_text, text};
use crate::Settings;
use crate::error::JobError;

/// The only operation that runs today; the others are refused by name.
pub const LAMBDA_INVOKE: &str = "LambdaInvoke";
const OPERATIONS_KNOWN: [&str; 11] = [
    LAMBDA_INVOKE,
    "S3PutObjectCopy",
    "S3PutObjectAcl",
    "S3PutObjectTagging",
    "S3DeleteObjectTagging",
    "S3InitiateRestoreObject",
    "S3PutObjectLegalHold",
    "S3PutObjectRetention",
    "S3ReplicateObject",
    "S3ComputeObjectChecksum",
    "S3UpdateObjectEncryption",
];
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LambdaInvoke {
    pub function_arn: String,
    /// `1.0`, `2.0`, or absent, which means `1.0` and is echoed as absent.
    pub schema_version: Option<String>,
    pub user_arguments: Option<Vec<(String, String)>>,
}

impl LambdaInvoke {
    pub(super) fn parse(root: &Element, settings: &Settings) -> Checked<Self> {
        let Some(operation) = root.child("Operation") else { return invalid("Operation is required") };
        let [given] = &operation.children[..] else {
            return invalid("Operation must have exactly one member");
        };
        if given.name != LAMBDA_INVOKE {
            return if OPERATIONS_KNOWN.contains(&given.name.as_str()) {
                Err(JobError::NotImplemented(format!("The operation {}", given.name)))
            } else {
                invalid(format!("Operation has an unknown member {}", given.name))
            };
        }
        let known = ["FunctionArn", "InvocationSchemaVersion", "UserArguments"];
        if let Some(unknown) = given.children.iter().find(|c| !known.contains(&c.name.as_str())) {
            return invalid(format!("LambdaInvoke has an unknown member {}", unknown.name));
        }
        let function_arn = text(given, "FunctionArn", 1, 1_024)?;
        let Some(name) = FunctionName::parse(&function_arn) else {
            return invalid("FunctionArn does not match its pattern");
        };
        if name.region.as_ref().is_some_and(|r| *r != settings.region) {
            return invalid(format!("the function is not in the job's region {}", settings.region));
        }
        let schema_version = optional_text(given, "InvocationSchemaVersion", 1, 64)?;
        if schema_version.as_deref().is_some_and(|v| v != "1.0" && v != "2.0") {
            return invalid("InvocationSchemaVersion must be 1.0 or 2.0");
        }
        let user_arguments = given.child("UserArguments").map(user_arguments).transpose()?;
        if user_arguments.is_some() && schema_version.as_deref() != Some("2.0") {
            return invalid("UserArguments needs InvocationSchemaVersion 2.0");
        }
        Ok(Self { function_arn, schema_version, user_arguments })
    }
}

fn user_arguments(element: &Element) -> Checked<Vec<(String, String)>> {
    // First of all: what follows looks at each pair of them.
    if element.children.is_empty() || element.children.len() > 10 {
        return invalid("UserArguments must have 1 to 10 entries");
    }
    let mut pairs: Vec<(String, String)> = Vec::new();
    for entry in &element.children {
        let key = text(entry, "key", 1, 64)?;
        let value = entry.child_text("value").unwrap_or("").to_owned();
        if value.chars().count() > 1_024 {
            return invalid("a value of UserArguments is longer than 1024 characters");
        }
        if pairs.iter().any(|(k, _)| *k == key) {
            return invalid(format!("UserArguments has the key {key} twice"));
        }
        pairs.push((key, value));
    }
    Ok(pairs)
}

impl LambdaInvoke {
    pub fn write(&self, xml: &mut Writer) {
        xml.open("Operation");
        xml.open(LAMBDA_INVOKE);
        xml.text("FunctionArn", &self.function_arn);
        if let Some(version) = &self.schema_version {
            xml.text("InvocationSchemaVersion", version);
        }
        if let Some(arguments) = &self.user_arguments {
            xml.open("UserArguments");
            for (key, value) in arguments {
                xml.open("entry");
                xml.text("key", key);
                xml.text("value", value);
                xml.close();
            }
            xml.close();
        }
        xml.close();
        xml.close();
    }
}
