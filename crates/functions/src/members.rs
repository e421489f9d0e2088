//! Request members that CreateFunction, UpdateFunctionConfiguration and UpdateFunctionCode share.
//!
//! Nothing is ignored: a member we do not know is refused by the parser, one whose meaning we would drop is refused by
//! name, and only values that mean "as if I had not been sent" pass. Source: Lambda spec 0, 3.3.

use std::collections::BTreeMap;

use base64::Engine;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::code::archive::UNZIPPED_BYTES_LIMIT;
use crate::code::{Code, CodeError, ZIPPED_BYTES_MAX};
use crate::error::FunctionError;
use crate::function::{Configuration, LayerReference, Logging};
use crate::host::LogFormat;
use crate::validate::{self, Violations};
use crate::{Functions, SourceError};

/// Creatable on AWS today. Source: Lambda spec 8.3.
const RUNTIMES: &[&str] = &[
    "python3.8",
    "python3.9",
    "python3.10",
    "python3.11",
    "python3.12",
    "python3.13",
    "python3.14",
    "nodejs16.x",
    "nodejs18.x",
    "nodejs20.x",
    "nodejs22.x",
    "nodejs24.x",
    "java8.al2",
    "java11",
    "java17",
    "java21",
    "java25",
    "dotnet6",
    "dotnet8",
    "dotnet10",
    "ruby3.2",
    "ruby3.3",
    "ruby3.4",
    "ruby4.0",
    "provided.al2",
    "provided.al2023",
];

/// The runtimes that CreateFunction takes and that run here.
pub fn runtimes() -> impl Iterator<Item = &'static str> {
    RUNTIMES.iter().copied().filter(|runtime| crate::host::is_supported(runtime))
}

/// In the API model, and refused by AWS for new code.
const RETIRED_RUNTIMES: &[&str] = &[
    "python2.7",
    "python3.6",
    "python3.7",
    "nodejs",
    "nodejs4.3",
    "nodejs4.3-edge",
    "nodejs6.10",
    "nodejs8.10",
    "nodejs10.x",
    "nodejs12.x",
    "nodejs14.x",
    "java8",
    "dotnetcore1.0",
    "dotnetcore2.0",
    "dotnetcore2.1",
    "dotnetcore3.1",
    "ruby2.5",
    "ruby2.7",
    "provided",
    "go1.x",
];

/// Every runtime of the API model, whether it can be created or not: what a layer may name.
pub(crate) fn known_runtimes() -> impl Iterator<Item = &'static str> {
    RUNTIMES.iter().chain(RETIRED_RUNTIMES).copied()
}

/// Source: API model.
pub(crate) const ARCHITECTURES: &[&str] = &["x86_64", "arm64"];

/// What can be set on a function. Not every operation has every member; those say so.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
pub(crate) struct FunctionMembers {
    pub function_name: Option<String>,
    pub runtime: Option<String>,
    pub role: Option<String>,
    pub handler: Option<String>,
    pub code: Option<CodeMembers>,
    pub description: Option<String>,
    pub timeout: Option<i64>,
    pub memory_size: Option<i64>,
    pub publish: Option<bool>,
    pub package_type: Option<String>,
    pub environment: Option<Environment>,
    pub tags: Option<BTreeMap<String, String>>,
    pub architectures: Option<Vec<String>>,
    pub ephemeral_storage: Option<EphemeralStorage>,
    pub revision_id: Option<String>,
    pub layers: Option<Vec<String>>,
    pub vpc_config: Option<Value>,
    pub dead_letter_config: Option<Value>,
    #[serde(rename = "KMSKeyArn")]
    pub kms_key_arn: Option<String>,
    pub tracing_config: Option<Value>,
    pub file_system_configs: Option<Value>,
    pub image_config: Option<Value>,
    pub code_signing_config_arn: Option<String>,
    pub snap_start: Option<Value>,
    pub logging_config: Option<LoggingConfig>,
    pub capacity_provider_config: Option<Value>,
    pub publish_to: Option<String>,
    pub durable_config: Option<Value>,
    pub tenancy_config: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct Environment {
    pub variables: Option<BTreeMap<String, String>>,
}

/// Without the values of variables, which may be secrets.
impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment").field("variables", &self.variables.as_ref().map(|v| v.keys())).finish()
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct EphemeralStorage {
    pub size: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct LoggingConfig {
    pub log_format: Option<String>,
    pub application_log_level: Option<String>,
    pub system_log_level: Option<String>,
    pub log_group: Option<String>,
}

impl LoggingConfig {
    fn violations(&self, v: &mut Violations) {
        if let Some(format) = &self.log_format {
            v.one_of(format, "loggingConfig.logFormat", &["JSON", "Text"]);
        }
        if let Some(level) = &self.application_log_level {
            let levels = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];
            v.one_of(level, "loggingConfig.applicationLogLevel", &levels);
        }
        if let Some(level) = &self.system_log_level {
            v.one_of(level, "loggingConfig.systemLogLevel", &["DEBUG", "INFO", "WARN"]);
        }
        if let Some(group) = &self.log_group {
            let ok = |b: u8| b.is_ascii_alphanumeric() || b".-_/#".contains(&b);
            v.length(group, "loggingConfig.logGroup", 1, 512);
            v.pattern(group, "loggingConfig.logGroup", group.bytes().all(ok), "[\\.\\-_/#A-Za-z0-9]+");
        }
    }

    /// Puts the members that are there over `logging`. Levels belong to JSON: they appear with it, `INFO` unless given,
    /// and go with it.
    fn apply(self, logging: &mut Logging) -> Result<(), FunctionError> {
        match self.log_format.as_deref() {
            Some("JSON") => logging.format = LogFormat::Json,
            Some(_) => logging.format = LogFormat::Text,
            None => {}
        }
        if let Some(group) = self.log_group {
            logging.group = Some(group);
        }
        if logging.format == LogFormat::Text {
            if self.application_log_level.is_some() || self.system_log_level.is_some() {
                return Err(FunctionError::Parameter(
                    "ApplicationLogLevel and SystemLogLevel can be set only if LogFormat is JSON.".into(),
                ));
            }
            (logging.application_level, logging.system_level) = (None, None);
            return Ok(());
        }
        let level = |given: Option<String>, before: &mut Option<String>| {
            *before = given.or(before.take()).or_else(|| Some("INFO".into()));
        };
        level(self.application_log_level, &mut logging.application_level);
        level(self.system_log_level, &mut logging.system_level);
        Ok(())
    }
}

/// The bytes of a `ZipFile`, decoded from base64 while the body is read: the text, up to 70 MB, is never copied.
#[derive(Debug, Clone)]
pub(crate) struct ZipFile(pub Bytes);

impl<'de> Deserialize<'de> for ZipFile {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Base64;
        impl serde::de::Visitor<'_> for Base64 {
            type Value = ZipFile;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("base64")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ZipFile, E> {
                let bytes = base64::engine::general_purpose::STANDARD.decode(text);
                bytes.map(|bytes| ZipFile(bytes.into())).map_err(|_| E::custom("ZipFile is not base64"))
            }
        }
        deserializer.deserialize_str(Base64)
    }
}

/// Where code comes from: `Code` of CreateFunction, members of UpdateFunctionCode.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
pub(crate) struct CodeMembers {
    pub zip_file: Option<ZipFile>,
    #[serde(rename = "S3Bucket")]
    pub s3_bucket: Option<String>,
    #[serde(rename = "S3Key")]
    pub s3_key: Option<String>,
    #[serde(rename = "S3ObjectVersion")]
    pub s3_object_version: Option<String>,
    pub image_uri: Option<String>,
    #[serde(rename = "SourceKMSKeyArn")]
    pub source_kms_key_arn: Option<String>,
}

/// A body up to this many bytes is parsed where it is; a larger one, which is a package, on a blocking thread: its
/// base64 keeps a core busy for a tenth of a second.
const PARSED_IN_PLACE_MAX: usize = 65_536;

/// Parses a JSON body, and lets go of it. An empty one is an empty object.
pub(crate) async fn parse<T: DeserializeOwned + Send + 'static>(body: Bytes) -> Result<T, FunctionError> {
    read(body, parse_now).await
}

/// Reads a body where it is, or if it is large on a thread where nobody waits for that.
pub(crate) async fn read<T: Send + 'static>(
    body: Bytes,
    read: fn(&[u8]) -> Result<T, FunctionError>,
) -> Result<T, FunctionError> {
    if body.len() <= PARSED_IN_PLACE_MAX {
        return read(&body);
    }
    let parsed = tokio::task::spawn_blocking(move || read(&body)).await;
    parsed.unwrap_or_else(|panic| Err(FunctionError::Fault(format!("The request could not be read: {panic}"))))
}

fn parse_now<T: DeserializeOwned>(body: &[u8]) -> Result<T, FunctionError> {
    let body = if body.is_empty() { b"{}" } else { body };
    if !longshore_wire::json::is_shallow(body) {
        let most = longshore_wire::json::DEPTH_MAX;
        return Err(FunctionError::Content(format!(
            "Could not parse request body into json: it has more than {most} levels."
        )));
    }
    serde_json::from_slice(body).map_err(|error| {
        let text = error.to_string();
        match text.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`')) {
            Some((member, _)) => FunctionError::Parameter(format!("The member {member} is not known here.")),
            None => FunctionError::Content(format!("Could not parse request body into json: {text}")),
        }
    })
}

/// The refusal of a member whose meaning would be lost.
pub(crate) fn unsupported(what: &str) -> FunctionError {
    FunctionError::Parameter(format!("{what} is not supported by this server."))
}

impl FunctionMembers {
    /// Breaches of the model, in the members that all operations share.
    pub fn violations(&self) -> Violations {
        let mut v = Violations::default();
        if let Some(role) = &self.role {
            v.role(role);
        }
        if let Some(handler) = &self.handler {
            v.handler(handler);
        }
        if let Some(description) = &self.description {
            v.length(description, "description", 0, 256);
        }
        if let Some(timeout) = self.timeout {
            v.range(timeout, "timeout", 1, 900);
        }
        if let Some(memory) = self.memory_size {
            v.range(memory, "memorySize", 128, 10_240);
        }
        match self.ephemeral_storage.as_ref().map(|storage| storage.size) {
            Some(Some(size)) => drop(v.range(size, "ephemeralStorage.size", 512, 10_240)),
            Some(None) => v.missing("ephemeralStorage.size"),
            None => {}
        }
        if let Some(package_type) = &self.package_type {
            v.one_of(package_type, "packageType", &["Zip", "Image"]);
        }
        if let Some(architectures) = &self.architectures {
            architectures_violations(&mut v, architectures);
        }
        if let Some(variables) = self.environment.as_ref().and_then(|e| e.variables.as_ref()) {
            v.variable_names(variables);
        }
        if let Some(layers) = &self.layers {
            crate::layers::violations(layers, &mut v);
        }
        if let Some(logging) = &self.logging_config {
            logging.violations(&mut v);
        }
        v
    }

    /// Refuses what would be dropped.
    pub fn refuse_unsupported(&self) -> Result<(), FunctionError> {
        let text = |value: &Value, member: &str| value.get(member).and_then(Value::as_str).map(str::to_owned);
        let only = |value: &Value, members: &[&str]| {
            value.as_object().is_some_and(|o| o.keys().all(|key| members.contains(&key.as_str())))
        };
        let empty = |value: &Value| match value {
            Value::Null => true,
            Value::Array(values) => values.is_empty(),
            Value::Object(members) => members.is_empty(),
            Value::String(text) => text.is_empty(),
            Value::Bool(on) => !on,
            Value::Number(_) => false,
        };
        let hollow = |value: &Value| empty(value) || value.as_object().is_some_and(|o| o.values().all(empty));

        if self.package_type.as_deref() == Some("Image") {
            return Err(unsupported("PackageType Image"));
        }
        if self.kms_key_arn.as_ref().is_some_and(|arn| !arn.is_empty()) {
            return Err(unsupported("KMSKeyArn"));
        }
        if self.code_signing_config_arn.as_ref().is_some_and(|arn| !arn.is_empty()) {
            return Err(unsupported("CodeSigningConfigArn"));
        }
        if self.publish_to.is_some() {
            return Err(unsupported("PublishTo"));
        }
        let refused_unless_hollow = [
            ("VpcConfig", &self.vpc_config),
            ("DeadLetterConfig", &self.dead_letter_config),
            ("FileSystemConfigs", &self.file_system_configs),
            ("ImageConfig", &self.image_config),
            ("CapacityProviderConfig", &self.capacity_provider_config),
            ("DurableConfig", &self.durable_config),
            ("TenancyConfig", &self.tenancy_config),
        ];
        for (member, value) in refused_unless_hollow {
            if value.as_ref().is_some_and(|value| !hollow(value)) {
                return Err(unsupported(member));
            }
        }
        if let Some(tracing) = &self.tracing_config
            && !(only(tracing, &["Mode"]) && text(tracing, "Mode").is_none_or(|mode| mode == "PassThrough"))
        {
            return Err(unsupported("TracingConfig other than Mode=PassThrough"));
        }
        if let Some(snap_start) = &self.snap_start
            && !(only(snap_start, &["ApplyOn"]) && text(snap_start, "ApplyOn").is_none_or(|on| on == "None"))
        {
            return Err(unsupported("SnapStart other than ApplyOn=None"));
        }
        Ok(())
    }

    /// Puts the members that are there over `configuration`, and what was looked up for them. Call after
    /// [`FunctionMembers::violations`] found none.
    pub fn apply(self, looked_up: LookedUp, configuration: &mut Configuration) -> Result<(), FunctionError> {
        let number = |value: i64| u32::try_from(value).expect("in its range, which the violations check");
        let c = configuration;
        if let Some(runtime) = self.runtime {
            c.runtime = runtime;
        }
        if let Some(role) = self.role {
            c.role = role;
        }
        if let Some(handler) = self.handler {
            c.handler = handler;
        }
        if let Some(description) = self.description {
            c.description = description;
        }
        if let Some(timeout) = self.timeout {
            c.timeout_s = number(timeout);
        }
        if let Some(memory) = self.memory_size {
            c.memory_mib = number(memory);
        }
        if let Some(size) = self.ephemeral_storage.and_then(|e| e.size) {
            c.ephemeral_storage_mib = number(size);
        }
        if let Some(variables) = self.environment.and_then(|e| e.variables) {
            c.variables = Some(variables);
        }
        if let Some(logging) = self.logging_config {
            logging.apply(&mut c.logging)?;
        }
        if let Some(layers) = looked_up.layers {
            c.layers = layers;
        }
        if let Some(interpreter) = looked_up.interpreter {
            c.interpreter = interpreter;
        }
        Ok(())
    }
}

/// What members lead to, found before a change begins, since looking takes time.
#[derive(Debug, Default)]
pub(crate) struct LookedUp {
    /// For `Layers`.
    pub layers: Option<Vec<LayerReference>>,
    /// For `Runtime`.
    pub interpreter: Option<String>,
}

/// Exactly one of the two. Source: API model.
pub(crate) fn architectures_violations(v: &mut Violations, architectures: &[String]) {
    v.at_most(architectures, "architectures", 1);
    if architectures.is_empty() {
        v.add("[]", "architectures", "Member must have length greater than or equal to 1");
    }
    v.each_one_of(architectures, "architectures", ARCHITECTURES);
}

/// What this machine is, in AWS's words.
pub(crate) fn own_architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" }
}

/// Code is run as it is, so another machine's is refused.
pub(crate) fn check_architectures(architectures: Option<&[String]>) -> Result<(), FunctionError> {
    match architectures.and_then(|a| a.first()) {
        Some(other) if other != own_architecture() => Err(FunctionError::Parameter(format!(
            "The architecture {other} is not supported by this server, which is {}.",
            own_architecture()
        ))),
        _ => Ok(()),
    }
}

impl Functions {
    /// The role must be of our account; whether it exists is not known yet.
    pub(crate) fn check_role(&self, role: &str, function: &str, request_id: &str) -> Result<(), FunctionError> {
        if role.split(':').nth(4) == Some(self.inner.settings.account.as_str()) {
            if !(self.inner.settings.assumable)(role, function, request_id) {
                return Err(FunctionError::Parameter(
                    "The role defined for the function cannot be assumed by Lambda.".into(),
                ));
            }
            return Ok(());
        }
        Err(FunctionError::Denied(format!(
            "Cross-account pass role is not allowed. The role must be of account {}.",
            self.inner.settings.account
        )))
    }

    /// Whether `runtime` may be used for new code, here and now; the version of what runs it.
    pub(crate) async fn check_runtime(&self, runtime: &str) -> Result<String, FunctionError> {
        if RETIRED_RUNTIMES.contains(&runtime) {
            return Err(FunctionError::Parameter(format!(
                "The runtime parameter of {runtime} is no longer supported for creating or updating AWS Lambda \
                 functions. We recommend you use a supported runtime while creating or updating functions."
            )));
        }
        let (environments, runtime) = (self.inner.environments.clone(), runtime.to_owned());
        let looked = tokio::task::spawn_blocking(move || {
            let found = match RUNTIMES.contains(&runtime.as_str()) {
                true => environments.check_runtime(&runtime),
                false => Err(String::new()),
            };
            found.map_err(|why| {
                let here: Vec<&str> =
                    RUNTIMES.iter().copied().filter(|known| environments.check_runtime(known).is_ok()).collect();
                let text = format!(
                    "Value {runtime} at 'runtime' failed to satisfy constraint: Member must satisfy enum value set: \
                     [{}] or be a valid ARN",
                    here.join(", ")
                );
                if why.is_empty() { text } else { format!("{text}. {why}") }
            })
        });
        match looked.await {
            Ok(Ok(version)) => Ok(version),
            Ok(Err(text)) => Err(FunctionError::Parameter(text)),
            Err(panic) => Err(FunctionError::Fault(format!("The runtime could not be looked for: {panic}"))),
        }
    }

    /// The package's bytes, from the request or from S3.
    pub(crate) async fn fetch(&self, code: &CodeMembers) -> Result<Bytes, FunctionError> {
        if code.image_uri.is_some() {
            return Err(unsupported("ImageUri"));
        }
        if code.source_kms_key_arn.as_ref().is_some_and(|arn| !arn.is_empty()) {
            return Err(unsupported("SourceKMSKeyArn"));
        }
        let from_s3 = code.s3_bucket.is_some() || code.s3_key.is_some() || code.s3_object_version.is_some();
        if let Some(zip) = &code.zip_file {
            if from_s3 {
                return Err(FunctionError::Parameter(
                    "Please do not provide other FunctionCode parameters when providing a ZipFile.".into(),
                ));
            }
            return Ok(zip.0.clone());
        }
        let (Some(bucket), Some(key)) = (&code.s3_bucket, &code.s3_key) else {
            return Err(FunctionError::Parameter(if from_s3 {
                "Please provide both S3Bucket and S3Key.".into()
            } else {
                "Please provide a source for function code.".into()
            }));
        };
        let source = &self.inner.source;
        source.fetch(bucket, key, code.s3_object_version.as_deref(), ZIPPED_BYTES_MAX).await.map_err(
            |error| match error {
                SourceError::S3 { code, message } => FunctionError::Parameter(format!(
                    "Error occurred while GetObject. S3 Error Code: {code}. S3 Error Message: {message}"
                )),
                SourceError::TooLarge => CodeError::TooLarge(ZIPPED_BYTES_MAX + 1).into(),
            },
        )
    }
}

impl Functions {
    /// Whether kept code and layers together fit into an environment, and the layers merged for it. Source: Lambda spec
    /// 7, 8.2.
    pub(crate) async fn check_with_layers(&self, code: &Code, layers: &[LayerReference]) -> Result<(), FunctionError> {
        if layers.is_empty() {
            return Ok(());
        }
        let bytes = self.inner.code.unzipped_bytes(vec![code.clone()]).await?;
        self.check_fits_with_layers(bytes, layers).await?;
        Ok(self.inner.code.merge(codes(layers)).await?)
    }

    /// As [`Functions::check_with_layers`] for so many bytes of code, kept or not; merges nothing. The text is AWS's, as
    /// its users quote it.
    pub(crate) async fn check_fits_with_layers(
        &self,
        code_bytes: u64,
        layers: &[LayerReference],
    ) -> Result<(), FunctionError> {
        let bytes = code_bytes.saturating_add(self.inner.code.unzipped_bytes(codes(layers)).await?);
        if bytes >= UNZIPPED_BYTES_LIMIT {
            return Err(FunctionError::Parameter(format!(
                "Function code combined with layers exceeds the maximum allowed size of {UNZIPPED_BYTES_LIMIT} bytes. \
                 The actual size is {bytes} bytes."
            )));
        }
        Ok(())
    }
}

fn codes(layers: &[LayerReference]) -> Vec<Code> {
    layers.iter().map(|layer| layer.code.clone()).collect()
}

/// Environment variables as a whole.
pub(crate) fn check_variables(members: &FunctionMembers) -> Result<(), FunctionError> {
    match members.environment.as_ref().and_then(|e| e.variables.as_ref()) {
        Some(variables) => validate::variables(variables),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_of_more_levels_than_anybody_needs_is_refused() {
        let body = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse_now::<Value>(body(longshore_wire::json::DEPTH_MAX).as_bytes()).is_ok());
        let refused = parse_now::<Value>(body(longshore_wire::json::DEPTH_MAX + 1).as_bytes()).unwrap_err();
        assert!(matches!(refused, FunctionError::Content(why) if why.contains("more than 64 levels")));
    }
}
