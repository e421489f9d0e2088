//! Lambda, as far as `longshore function` speaks it: requests and answers as JSON in Lambda's own shapes.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use percent_encoding::utf8_percent_encode;
use serde_json::{Value, json};

use super::{Api, COMPONENT, Client, ClientError, Content, whole};

/// From an invocation to its answer: Lambda's longest time-out, and what a cold start and the way may take.
const INVOKE_TIME_MAX: Duration = Duration::from_secs(960);
/// For a package and its answer: 70 MB at less than 1 Mbit/s.
const UPLOAD_TIME_MAX: Duration = Duration::from_secs(900);
/// How long a function may be on its way to a new state. AWS's waiters give up after 300 s too.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(300);

/// How often a throttled question is asked again, and the first wait before it, which doubles: 8 s in all.
const THROTTLED_MAX: u32 = 5;
const THROTTLED_PAUSE: Duration = Duration::from_millis(250);

/// One call of Invoke.
#[derive(Debug, Clone, Default)]
pub struct Invocation<'a> {
    pub function: &'a str,
    pub qualifier: Option<&'a str>,
    /// `RequestResponse`, `Event` or `DryRun`.
    pub kind: &'a str,
    pub payload: Bytes,
    /// Whether the end of the log is wanted.
    pub tail: bool,
    /// JSON.
    pub client_context: Option<&'a str>,
}

/// What Invoke answered.
#[derive(Debug, Clone, Default)]
pub struct Invoked {
    pub status: u16,
    pub executed_version: Option<String>,
    /// `Unhandled` where the function failed.
    pub function_error: Option<String>,
    pub log_tail: Option<Vec<u8>>,
    pub request_id: Option<String>,
    pub payload: Bytes,
}

/// Asks again what was refused for asking too often, later each time: a list asks about each function, and AWS answers some
/// 15 such questions a second. For what only reads.
async fn patiently(mut ask: impl AsyncFnMut() -> Result<Value, ClientError>) -> Result<Value, ClientError> {
    let mut pause = THROTTLED_PAUSE;
    for _ in 0..THROTTLED_MAX {
        match ask().await {
            Err(ClientError::Refused { status: StatusCode::TOO_MANY_REQUESTS, .. }) => {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            answered => return answered,
        }
    }
    ask().await
}

fn path_of(function: &str) -> String {
    format!("/2015-03-31/functions/{}", utf8_percent_encode(function, COMPONENT))
}

/// The query for a qualifier, if there is one.
fn at(qualifier: Option<&str>) -> String {
    qualifier.map_or_else(String::new, |q| format!("?Qualifier={}", utf8_percent_encode(q, COMPONENT)))
}

impl Client {
    /// Whether a Longshore answers for Lambda.
    pub async fn functions_are_of_longshore(&self) -> Result<bool, ClientError> {
        self.is_longshore_at(Api::Lambda).await
    }

    async fn get_json(&self, path: &str) -> Result<Value, ClientError> {
        patiently(async || self.lambda(Method::GET, path, &Value::Null).await).await
    }

    /// GetFunction; `None` if there is no such function.
    pub async fn find_function(&self, name: &str) -> Result<Option<Value>, ClientError> {
        match self.function(name, None).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.code() == "ResourceNotFoundException" => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// GetFunction.
    pub async fn function(&self, name: &str, qualifier: Option<&str>) -> Result<Value, ClientError> {
        self.get_json(&(path_of(name) + &at(qualifier))).await
    }

    /// Waits until neither the function nor an update of it is on its way: GetFunctionConfiguration's last answer, which may
    /// say that it failed. Looks as often as `every`.
    pub async fn function_at_rest(&self, name: &str, every: Duration) -> Result<Value, ClientError> {
        let wait = async {
            loop {
                let answer = self.get_json(&format!("{}/configuration", path_of(name))).await?;
                let is = |member: &str, state: &str| answer.get(member).and_then(Value::as_str) == Some(state);
                if !is("State", "Pending") && !is("LastUpdateStatus", "InProgress") {
                    return Ok(answer);
                }
                tokio::time::sleep(every).await;
            }
        };
        tokio::time::timeout(SETTLE_TIME_MAX, wait).await.map_err(|_| {
            ClientError::Broken(format!("{name} is still being updated after {} s", SETTLE_TIME_MAX.as_secs()))
        })?
    }

    /// As [`Client::function_at_rest`]; that the function or its update failed is an error.
    pub async fn function_settled(&self, name: &str, every: Duration) -> Result<Value, ClientError> {
        let answer = self.function_at_rest(name, every).await?;
        for (state, reason) in [("State", "StateReason"), ("LastUpdateStatus", "LastUpdateStatusReason")] {
            if answer.get(state).and_then(Value::as_str) == Some("Failed") {
                let reason = answer.get(reason).and_then(Value::as_str).unwrap_or("no reason is told");
                return Err(ClientError::Broken(format!("the function cannot be used: {reason}")));
            }
        }
        Ok(answer)
    }

    /// CreateFunction. `request` has everything but the code.
    pub async fn create_function_of(&self, mut request: Value, zip: &[u8]) -> Result<Value, ClientError> {
        request["Code"] = json!({"ZipFile": STANDARD.encode(zip)});
        self.lambda_within(Method::POST, "/2015-03-31/functions", &request, UPLOAD_TIME_MAX).await
    }

    pub async fn update_function_code(&self, name: &str, zip: &[u8], revision: &Value) -> Result<Value, ClientError> {
        let request = json!({"ZipFile": STANDARD.encode(zip), "RevisionId": revision});
        self.lambda_within(Method::PUT, &format!("{}/code", path_of(name)), &request, UPLOAD_TIME_MAX).await
    }

    pub async fn update_function_configuration(&self, name: &str, request: &Value) -> Result<Value, ClientError> {
        self.lambda(Method::PUT, &format!("{}/configuration", path_of(name)), request).await
    }

    /// PublishVersion: the new version, or the last one if nothing has changed since. `code_sha256` is what it must have.
    pub async fn publish_version(&self, name: &str, code_sha256: &Value) -> Result<Value, ClientError> {
        let request = json!({"CodeSha256": code_sha256});
        self.lambda(Method::POST, &format!("{}/versions", path_of(name)), &request).await
    }

    /// GetAlias; `None` if there is no such alias.
    pub async fn find_alias(&self, name: &str, alias: &str) -> Result<Option<Value>, ClientError> {
        let path = format!("{}/aliases/{}", path_of(name), utf8_percent_encode(alias, COMPONENT));
        match self.get_json(&path).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.code() == "ResourceNotFoundException" => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub async fn create_alias(&self, name: &str, alias: &str, version: &str) -> Result<Value, ClientError> {
        let request = json!({"Name": alias, "FunctionVersion": version});
        self.lambda(Method::POST, &format!("{}/aliases", path_of(name)), &request).await
    }

    /// UpdateAlias: all invocations of the alias go to `version`.
    pub async fn move_alias(&self, name: &str, alias: &str, version: &str) -> Result<Value, ClientError> {
        let path = format!("{}/aliases/{}", path_of(name), utf8_percent_encode(alias, COMPONENT));
        // What it was weighted with would stay otherwise.
        let request = json!({"FunctionVersion": version, "RoutingConfig": {"AdditionalVersionWeights": {}}});
        self.lambda(Method::PUT, &path, &request).await
    }

    /// All pages of a listing.
    async fn listed(&self, path: &str, member: &str) -> Result<Vec<Value>, ClientError> {
        let mut all = Vec::new();
        let mut query = String::new();
        loop {
            let glue = if path.contains('?') { "&" } else { "?" };
            let target = if query.is_empty() { path.to_owned() } else { format!("{path}{glue}{query}") };
            let mut page = self.get_json(&target).await?;
            if let Some(Value::Array(items)) = page.get_mut(member).map(Value::take) {
                all.extend(items);
            }
            match page.get("NextMarker").and_then(Value::as_str).filter(|marker| !marker.is_empty()) {
                Some(marker) => query = format!("Marker={}", utf8_percent_encode(marker, COMPONENT)),
                None => return Ok(all),
            }
        }
    }

    /// ListFunctions, in all its pages. `versions`: published ones too, each with a number in `Version`.
    pub async fn functions(&self, versions: bool) -> Result<Vec<Value>, ClientError> {
        let path = if versions { "/2015-03-31/functions?FunctionVersion=ALL" } else { "/2015-03-31/functions" };
        self.listed(path, "Functions").await
    }

    /// ListVersionsByFunction, in all its pages.
    pub async fn versions(&self, name: &str) -> Result<Vec<Value>, ClientError> {
        self.listed(&format!("{}/versions", path_of(name)), "Versions").await
    }

    /// ListAliases, in all its pages.
    pub async fn aliases(&self, name: &str) -> Result<Vec<Value>, ClientError> {
        self.listed(&format!("{}/aliases", path_of(name)), "Aliases").await
    }

    /// GetFunctionConcurrency: what is reserved, if anything is.
    pub async fn reserved_concurrency(&self, name: &str) -> Result<Option<u64>, ClientError> {
        let path = format!("/2019-09-30/functions/{}/concurrency", utf8_percent_encode(name, COMPONENT));
        Ok(self.get_json(&path).await?.get("ReservedConcurrentExecutions").and_then(Value::as_u64))
    }

    /// PutFunctionConcurrency, or with `None` DeleteFunctionConcurrency.
    pub async fn reserve_concurrency(&self, name: &str, reserved: Option<u32>) -> Result<(), ClientError> {
        let path = format!("/2017-10-31/functions/{}/concurrency", utf8_percent_encode(name, COMPONENT));
        let done = match reserved {
            Some(n) => self.lambda(Method::PUT, &path, &json!({"ReservedConcurrentExecutions": n})).await,
            None => self.lambda(Method::DELETE, &path, &Value::Null).await,
        };
        done.map(drop)
    }

    /// DeleteFunction: all of it, or one version.
    pub async fn delete_function(&self, name: &str, qualifier: Option<&str>) -> Result<(), ClientError> {
        self.lambda(Method::DELETE, &(path_of(name) + &at(qualifier)), &Value::Null).await.map(drop)
    }

    /// Invoke, once: on a connection of its own, so that no broken one makes two of it.
    pub async fn invoke(&self, invocation: &Invocation<'_>) -> Result<Invoked, ClientError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let broken = |_| ClientError::Broken("the invocation cannot be put into headers".into());
        headers.insert("x-amz-invocation-type", HeaderValue::from_str(invocation.kind).map_err(broken)?);
        if invocation.tail {
            headers.insert("x-amz-log-type", HeaderValue::from_static("Tail"));
        }
        if let Some(context) = invocation.client_context {
            let encoded = HeaderValue::from_str(&STANDARD.encode(context)).map_err(broken)?;
            headers.insert("x-amz-client-context", encoded);
        }
        *self.connection.lock().await = None;
        let path = format!("{}/invocations{}", path_of(invocation.function), at(invocation.qualifier));
        let content = Content::Bytes(invocation.payload.clone());
        let (status, headers, body) =
            self.send(Api::Lambda, Method::POST, &path, headers, &content, INVOKE_TIME_MAX).await?;
        let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        Ok(Invoked {
            status: status.as_u16(),
            executed_version: header("x-amz-executed-version"),
            function_error: header("x-amz-function-error"),
            log_tail: header("x-amz-log-result").and_then(|tail| STANDARD.decode(tail).ok()),
            request_id: header("x-amzn-requestid"),
            payload: whole(body).await?,
        })
    }

    // --- Longshore's own ---

    async fn own_of_functions(&self, target: &str) -> Result<Value, ClientError> {
        let none = Content::Bytes(Bytes::new());
        let answer = self.call(Api::OwnLambda, Method::GET, target, HeaderMap::new(), none).await;
        super::json(&answer?.1)
    }

    /// A page of a function's log. `query` is `nextToken`, or `since` and `tail`.
    pub async fn function_logs(&self, name: &str, query: &[(&str, String)]) -> Result<Value, ClientError> {
        let encoded = |text: &str| utf8_percent_encode(text, COMPONENT).to_string();
        let query: Vec<String> = query.iter().map(|(key, value)| format!("{key}={}", encoded(value))).collect();
        let glue = if query.is_empty() { "" } else { "?" };
        self.own_of_functions(&format!("/_longshore/v1/functions/{}/logs{glue}{}", encoded(name), query.join("&")))
            .await
    }

    /// The figures of one function.
    pub async fn function_stats(&self, name: &str) -> Result<Value, ClientError> {
        self.own_of_functions(&format!("/_longshore/v1/functions/{}/stats", utf8_percent_encode(name, COMPONENT))).await
    }

    /// The figures of all functions: `{"since", "functions"}`, all pages as one.
    pub async fn functions_stats(&self) -> Result<Value, ClientError> {
        let mut target = "/_longshore/v1/functions/stats".to_owned();
        let mut all = Vec::new();
        loop {
            let mut page = self.own_of_functions(&target).await?;
            if let Some(Value::Array(functions)) = page.get_mut("functions").map(Value::take) {
                all.extend(functions);
            }
            match page.get("nextMarker").and_then(Value::as_str) {
                Some(marker) => {
                    let marker = utf8_percent_encode(marker, COMPONENT);
                    target = format!("/_longshore/v1/functions/stats?Marker={marker}");
                }
                None => {
                    page["functions"] = all.into();
                    return Ok(page);
                }
            }
        }
    }
}

/// Whether whoever answers has no such operation, or has it in a later version alone.
pub fn is_missing(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused { status: StatusCode::NOT_FOUND, code, .. } if code == "NoSuchResource")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_question_that_is_throttled_is_asked_again_for_a_while_and_no_other_is() {
        let refused = |status| ClientError::Refused { status, code: "C".into(), message: String::new() };
        for (status, throttled, asked_in_all, ok) in [
            (StatusCode::TOO_MANY_REQUESTS, 3, 4, true),
            (StatusCode::TOO_MANY_REQUESTS, 100, 6, false),
            (StatusCode::FORBIDDEN, 1, 1, false),
        ] {
            let mut asked = 0;
            let answer = patiently(async || {
                asked += 1;
                if asked <= throttled { Err(refused(status)) } else { Ok(json!({})) }
            });
            assert_eq!((answer.await.is_ok(), asked), (ok, asked_in_all), "{status}, {throttled} times");
        }
    }
}
