//! How events are tried, as a user sets it: what the operations on event invoke configs share. Source: Lambda spec 3.1;
//! texts as AWS's answers were recorded.

use longshore_wire::Call;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Functions;
use crate::catalogue::Next;
use crate::error::FunctionError;
use crate::function::{EventInvokeConfig, Function};
use crate::members::{parse, unsupported};
use crate::operations::now_ms;
use crate::resolve::Named;
use crate::validate::Violations;

const DESTINATION_PATTERN: &str = "$|kafka://([^.]([a-zA-Z0-9\\-_.]{0,248}))|arn:(aws[a-zA-Z0-9-]*):([a-zA-Z0-9\\-])+:([a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\\d{1})?:(\\d{12})?:(.*)";
const DESTINATION_CHARS_MAX: usize = 350;

/// The body of Put and Update.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
struct Members {
    maximum_retry_attempts: Option<i64>,
    maximum_event_age_in_seconds: Option<i64>,
    destination_config: Option<DestinationConfig>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
struct DestinationConfig {
    on_success: Option<Destination>,
    on_failure: Option<Destination>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
struct Destination {
    destination: Option<String>,
}

/// What became of the configuration that there was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing of it stays.
    Put,
    /// What is not given stays.
    Update,
}

/// Puts or updates what is set for a qualifier, and shows it. The order of checks is AWS's as far as it was recorded:
/// that anything is given at all comes before whether the function is there.
pub(crate) async fn change(functions: &Functions, call: &Call, change: Change) -> Result<Value, FunctionError> {
    let request: Members = parse(call.request.body.clone()).await?;
    let mut v = Violations::default();
    let retries = request.maximum_retry_attempts.map(|n| v.range(n, "maximumRetryAttempts", 0, 2));
    let age_s = request.maximum_event_age_in_seconds.map(|n| v.range(n, "maximumEventAgeInSeconds", 60, 21_600));
    let destinations = request.destination_config.as_ref();
    let on_success = destinations.and_then(|d| d.on_success.as_ref()?.destination.as_deref());
    let on_failure = destinations.and_then(|d| d.on_failure.as_ref()?.destination.as_deref());
    for (destination, path) in [
        (on_success, "destinationConfig.onSuccess.destination"),
        (on_failure, "destinationConfig.onFailure.destination"),
    ] {
        if let Some(arn) = destination {
            v.length(arn, path, 0, DESTINATION_CHARS_MAX);
            v.pattern(arn, path, is_destination(arn), DESTINATION_PATTERN);
        }
    }
    let action = match change {
        Change::Put => "PutFunctionEventInvokeConfig",
        Change::Update => "UpdateFunctionEventInvokeConfig",
    };
    let named = functions.named_with(call, action, v)?;
    if retries.is_none() && age_s.is_none() && destinations.is_none() {
        return Err(FunctionError::Parameter(
            "You must specify at least one of error handling or destination setting.".into(),
        ));
    }
    let has_destination = [on_success, on_failure].into_iter().flatten().any(|destination| !destination.is_empty());
    let given = EventInvokeConfig {
        maximum_retry_attempts: retries.flatten(),
        maximum_event_age_s: age_s.flatten(),
        modified_ms: now_ms(),
    };
    let (qualifier, missing) = (qualifier(&named).to_owned(), no_config(functions, &named));
    let key = qualifier.clone();
    let config = functions
        .inner
        .catalogue
        .change(&named.name, move |_, current| {
            let there = current.filter(|function| function.has_qualifier(&key));
            let mut function = there.ok_or_else(no_function)?;
            if has_destination {
                return Err(unsupported("A Destination in DestinationConfig"));
            }
            let before = function.event_invoke_configs.get(&key).copied();
            let config = match change {
                Change::Put => given,
                Change::Update => {
                    let before = before.ok_or(missing)?;
                    EventInvokeConfig {
                        maximum_retry_attempts: given.maximum_retry_attempts.or(before.maximum_retry_attempts),
                        maximum_event_age_s: given.maximum_event_age_s.or(before.maximum_event_age_s),
                        ..given
                    }
                }
            };
            function.event_invoke_configs.insert(key, config);
            Ok((Next::Put(function), config))
        })
        .await?;
    Ok(shape(functions, &named.name, &qualifier, config))
}

/// The function that a configuration is asked of, and what stands for it.
pub(crate) async fn find(functions: &Functions, named: &Named) -> Result<EventInvokeConfig, FunctionError> {
    let entry = functions.inner.catalogue.stand(&named.name).await?;
    let found = entry.and_then(|entry| entry.function.event_invoke_configs.get(qualifier(named)).copied());
    found.ok_or_else(|| no_config(functions, named))
}

/// Takes out what is set for the qualifier. `None` if nothing is.
pub(crate) fn removed(mut function: Function, named: &Named) -> Option<Function> {
    function.event_invoke_configs.remove(qualifier(named))?;
    Some(function)
}

/// `FunctionEventInvokeConfig`. What is not set is not there; destinations are, and empty.
pub(crate) fn shape(functions: &Functions, name: &str, qualifier: &str, config: EventInvokeConfig) -> Value {
    let mut shape = json!({
        // Unlike elsewhere in Lambda's API, a number: seconds since 1970.
        "LastModified": config.modified_ms as f64 / 1_000.0,
        "FunctionArn": format!("{}:{qualifier}", functions.inner.settings.function_arn(name)),
        "DestinationConfig": {"OnSuccess": {}, "OnFailure": {}},
    });
    if let Some(retries) = config.maximum_retry_attempts {
        shape["MaximumRetryAttempts"] = retries.into();
    }
    if let Some(age_s) = config.maximum_event_age_s {
        shape["MaximumEventAgeInSeconds"] = age_s.into();
    }
    shape
}

pub(crate) fn qualifier(named: &Named) -> &str {
    named.qualifier.as_deref().unwrap_or("$LATEST")
}

pub(crate) fn no_function() -> FunctionError {
    FunctionError::Missing("The function doesn't exist.".into())
}

/// Also where the function itself is not there.
pub(crate) fn no_config(functions: &Functions, named: &Named) -> FunctionError {
    let arn = functions.inner.settings.function_arn(&named.name);
    FunctionError::Missing(format!("The function {arn}:{} doesn't have an EventInvokeConfig", qualifier(named)))
}

/// Whether a destination has one of the forms of [`DESTINATION_PATTERN`]; the empty one means none.
fn is_destination(text: &str) -> bool {
    let plain = |text: &str, more: &[u8]| text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b));
    if text.is_empty() {
        return true;
    }
    if let Some(topic) = text.strip_prefix("kafka://") {
        return topic.chars().next().is_some_and(|c| c != '.')
            && topic.get(1..).is_some_and(|rest| plain(rest, b"-_."));
    }
    longshore_wire::arn::Arn::parse(text).is_some_and(|arn| {
        arn.partition.starts_with("aws")
            && plain(arn.partition, b"-")
            && !arn.service.is_empty()
            && plain(arn.service, b"-")
            && plain(arn.region, b"-")
            && (arn.account.is_empty() || (arn.account.len() == 12 && arn.account.bytes().all(|b| b.is_ascii_digit())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_an_arn_or_a_topic_or_nothing() {
        for good in
            ["", "arn:aws:sqs:us-east-1:111111111111:q", "arn:aws:s3:::bucket", "arn:aws-cn:sns:::t", "kafka://topic-1"]
        {
            assert!(is_destination(good), "{good}");
        }
        for bad in [
            "q",
            "arn:aws:_-/!lambda:us-east-1:111111111111:function:f",
            "arn:aws:sqs:us-east-1:1:q",
            "kafka://.t",
            "kafka://",
        ] {
            assert!(!is_destination(bad), "{bad}");
        }
    }
}
