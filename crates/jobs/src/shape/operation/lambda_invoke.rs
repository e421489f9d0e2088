//! `LambdaInvoke`: a function is called for each object. Source: S3 Batch spec 5.1.

use longshore_wire::arn::FunctionName;
use longshore_wire::xml::{Element, Writer};
use serde::{Deserialize, Serialize};

use crate::Settings;
use crate::shape::members::{Members, WriteMembers};
use crate::shape::{Checked, invalid};

pub const NAME: &str = "LambdaInvoke";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LambdaInvoke {
    /// A full ARN, a part of one, or a bare name, with or without a qualifier: as sent, resolved at each invocation.
    pub function_arn: String,
    /// `1.0`, `2.0`, or absent, which means `1.0` and is echoed as absent.
    pub schema_version: Option<String>,
    /// In the order in which they were sent.
    pub user_arguments: Option<Vec<(String, String)>>,
}

impl LambdaInvoke {
    pub(super) fn parse(element: &Element, settings: &Settings) -> Checked<Self> {
        let known = ["FunctionArn", "InvocationSchemaVersion", "UserArguments"];
        let members = Members::strict(element, NAME, &known, &[])?;
        let function_arn = members.need("FunctionArn", members.text("FunctionArn", 1..=1_024)?)?;
        let Some(name) = FunctionName::parse(&function_arn) else {
            return invalid("FunctionArn does not match its pattern");
        };
        if name.region.as_ref().is_some_and(|r| *r != settings.region) {
            return invalid(format!("the function is not in the job's region {}", settings.region));
        }
        let schema_version = members.text("InvocationSchemaVersion", 1..=64)?;
        if schema_version.as_deref().is_some_and(|v| v != "1.0" && v != "2.0") {
            return invalid("InvocationSchemaVersion must be 1.0 or 2.0");
        }
        let user_arguments = members.map("UserArguments", 1..=10, 1..=64, 0..=1_024)?;
        if user_arguments.is_some() && schema_version.as_deref() != Some("2.0") {
            return invalid("UserArguments needs InvocationSchemaVersion 2.0");
        }
        Ok(Self { function_arn, schema_version, user_arguments })
    }

    /// Writes `<LambdaInvoke>` with what was given and nothing else: no default is added (C-09).
    pub fn write(&self, xml: &mut Writer) {
        xml.open(NAME);
        xml.text("FunctionArn", &self.function_arn);
        xml.maybe_text("InvocationSchemaVersion", self.schema_version.as_deref());
        xml.maybe_map("UserArguments", self.user_arguments.as_deref());
        xml.close();
    }
}
