//! `FunctionConfiguration`, the shape that most operations answer with. Source: Lambda spec 3.4, 3.5.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::Settings;
use crate::function::{Standing, Version};

/// How much of a version is shown, and under which name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    /// Ends the ARN: what the caller asked for (an alias stays an alias), `None` for the unqualified ARN.
    pub qualifier: Option<&'a str>,
    /// Lists leave the states out.
    pub with_state: bool,
}

pub(crate) fn configuration(settings: &Settings, name: &str, version: &Version, view: View<'_>) -> Value {
    let c = &version.configuration;
    let mut arn = settings.function_arn(name);
    if let Some(qualifier) = view.qualifier {
        arn = format!("{arn}:{qualifier}");
    }
    let mut shape = json!({
        "FunctionName": name,
        "FunctionArn": arn,
        "Runtime": c.runtime,
        "Role": c.role,
        "Handler": c.handler,
        "CodeSize": version.code.size,
        "Description": c.description,
        "Timeout": c.timeout_s,
        "MemorySize": c.memory_mib,
        "LastModified": last_modified(version.modified_ms),
        "CodeSha256": version.code.sha256_base64(),
        "Version": version.number.to_string(),
        "TracingConfig": {"Mode": "PassThrough"},
        "RevisionId": version.revision_id,
        "PackageType": "Zip",
        "Architectures": [c.architecture],
        "EphemeralStorage": {"Size": c.ephemeral_storage_mib},
        "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"},
        "RuntimeVersionConfig": {"RuntimeVersionArn": runtime_version_arn(&settings.region, &c.runtime, &c.interpreter)},
        "LoggingConfig": {"LogFormat": c.logging.format, "LogGroup": c.logging.group(name)},
    });
    let levels = [("ApplicationLogLevel", &c.logging.application_level), ("SystemLogLevel", &c.logging.system_level)];
    for (member, level) in levels {
        if let Some(level) = level {
            shape["LoggingConfig"][member] = level.as_str().into();
        }
    }
    if !c.layers.is_empty() {
        let layers = c.layers.iter().map(|layer| json!({"Arn": layer.arn, "CodeSize": layer.code.size}));
        shape["Layers"] = layers.collect();
    }
    if let Some(variables) = &c.variables {
        shape["Environment"] = json!({"Variables": variables});
    }
    if view.with_state {
        match version.standing {
            Standing::Creating => {
                shape["State"] = "Pending".into();
                shape["StateReason"] = "The function is being created.".into();
                shape["StateReasonCode"] = "Creating".into();
            }
            Standing::Settled => {
                shape["State"] = "Active".into();
                shape["LastUpdateStatus"] = "Successful".into();
            }
            Standing::Updating => {
                shape["State"] = "Active".into();
                shape["LastUpdateStatus"] = "InProgress".into();
                // AWS says "created" and "Creating" here too.
                shape["LastUpdateStatusReason"] = "The function is being created.".into();
                shape["LastUpdateStatusReasonCode"] = "Creating".into();
            }
        }
    }
    shape
}

/// `2026-11-22T19:40:00.000+0000`: a string, and not quite ISO 8601.
pub(crate) fn last_modified(ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(ms).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%S.%3f+0000").to_string()
}

/// Stands where AWS names the build of its runtime. Ours is made up: it changes with the interpreter, as found when the
/// runtime was set, and with nothing else.
pub(crate) fn runtime_version_arn(region: &str, runtime: &str, interpreter: &str) -> String {
    let digest = hex::encode(Sha256::digest(format!("longshore runtime {runtime} {interpreter}")));
    format!("arn:aws:lambda:{region}::runtime:{digest}")
}
