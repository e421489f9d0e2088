//! Functions of somebody else: which there are, and how they are called. What an answer amounts to, `core` decides.
//!
//! A call is one request: nothing is tried twice here, for the engine knows what a task is worth. No host but the
//! endpoint's is contacted, whatever a job calls its function; redirects are answers like any other.

mod connections;

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use longshore_aws::{Credentials, Identity};
use longshore_core::invocation::Reply;
use longshore_core::pattern::matched;
use longshore_core::remote_answer::{self, ANSWER_BYTES_MAX, Answerer, Head};
use longshore_core::start::Start;
use longshore_wire::sigv4;
use percent_encoding::utf8_percent_encode;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use self::connections::Connections;
use crate::client::COMPONENT;
use crate::endpoints::{Access, Place};
use crate::failure::Failure;
use crate::tls::{self, Roots};

/// From the call to the last byte of its answer, where the settings say nothing: Lambda's longest time-out is 900 s, and
/// the way and a cold start take their time. Source: S3 Batch spec 5.2, LI-5.
const ANSWER_SECONDS_DEFAULT: u64 = 930;
/// The emulator runs one invocation at a time. Source: S3 Batch spec 5.7.
const EMULATOR_CALLS_MAX: u32 = 1;
/// Characters of a cause in a report's row: what follows repeats it.
const CAUSE_CHARS_MAX: usize = 200;
/// Functions of one endpoint whose requests are kept ready, of some hundred bytes each. Beyond that, all are made anew.
const READY_MAX: usize = 1_024;

/// What answers at an endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    #[default]
    Lambda,
    Rie,
}

/// A `[[function_endpoint]]` of the settings. Meanings: `longshore.toml` beside this crate's manifest.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FunctionEndpointSettings {
    pub name: String,
    #[serde(default)]
    pub kind: Kind,
    pub url: Option<String>,
    pub region: Option<String>,
    pub functions: Vec<String>,
    pub concurrency_max: Option<u32>,
    pub timeout_seconds: Option<u64>,
    pub profile: Option<String>,
    pub credentials_file: Option<PathBuf>,
    pub access_key_id_variable: Option<String>,
    pub secret_access_key_variable: Option<String>,
    pub session_token_variable: Option<String>,
    #[serde(default)]
    pub anonymous: bool,
    #[serde(default)]
    pub allow_plain_http: bool,
}

impl FunctionEndpointSettings {
    /// What the types do not say. Names the endpoint in what it refuses.
    pub fn check(&self) -> Result<(), Failure> {
        let access = self.access();
        access.check()?;
        access.check_patterns(
            "functions",
            "name a function, or a pattern such as \"thumb*\"",
            "-_:$",
            &self.functions,
        )?;
        if self.concurrency_max == Some(0) || self.timeout_seconds == Some(0) {
            return Err(access.wrong("concurrency_max and timeout_seconds must be at least 1"));
        }
        if self.kind == Kind::Rie {
            if self.url.is_none() {
                return Err(access.wrong("the runtime interface emulator needs a url"));
            }
            if self.region.is_some() || access.names_credentials() {
                return Err(access.wrong("the runtime interface emulator knows no region and no credentials"));
            }
        }
        Ok(())
    }

    fn access(&self) -> Access<'_> {
        Access {
            kind: "function endpoint",
            name: &self.name,
            url: self.url.as_deref(),
            region: self.region.as_deref(),
            profile: self.profile.as_deref(),
            credentials_file: self.credentials_file.as_deref(),
            access_key_id_variable: self.access_key_id_variable.as_deref(),
            secret_access_key_variable: self.secret_access_key_variable.as_deref(),
            session_token_variable: self.session_token_variable.as_deref(),
            anonymous: self.anonymous,
            allow_plain_http: self.allow_plain_http,
        }
    }
}

/// One endpoint with functions.
pub struct RemoteEndpoint {
    name: String,
    place: Place,
    patterns: Vec<String>,
    connections: Arc<Connections>,
    /// `None` for the emulator.
    credentials: Option<Credentials>,
    /// By the function, as jobs name it.
    ready: Mutex<HashMap<Box<str>, Arc<Ready>>>,
    /// Calls at once, over all its functions: the engine's gate knows them one by one. `None` without a limit here.
    room: Option<(u32, Semaphore)>,
    answer_time_max: Duration,
}

/// Which function is where: the first endpoint that has it, else this server.
#[derive(Clone, Default)]
pub struct RemoteFunctions(Arc<Vec<RemoteEndpoint>>);

impl RemoteFunctions {
    /// Makes the clients of all endpoints. Contacts none of them. `region` is this server's, and an endpoint's that names
    /// none: ARNs of another are refused when a job is created.
    pub async fn open(
        endpoints: &[FunctionEndpointSettings],
        region: &str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Failure> {
        if endpoints.is_empty() {
            return Ok(Self::default());
        }
        let of_credentials = longshore_aws::http_client();
        let mut trusted = None;
        let mut remotes: Vec<RemoteEndpoint> = Vec::with_capacity(endpoints.len());
        for settings in endpoints {
            settings.check()?;
            let access = settings.access();
            if remotes.iter().any(|remote| remote.name == settings.name) {
                return Err(access.wrong("there is another one with this name"));
            }
            let region = settings.region.as_deref().unwrap_or(region);
            let credentials = match settings.kind {
                Kind::Rie => None,
                Kind::Lambda => {
                    let source = access.credentials(&variable)?;
                    Some(longshore_aws::credentials_of(&settings.name, &source, region, &of_credentials).await)
                }
            };
            let place = match &settings.url {
                Some(url) => Place::parse(url).map_err(|e| access.wrong(e))?,
                None => Place::amazon("lambda", region),
            };
            if place.encrypted && trusted.is_none() {
                trusted = Some(Arc::new(tls::config(Roots::System).map_err(Failure::new)?));
            }
            let calls_max = settings.concurrency_max.or((settings.kind == Kind::Rie).then_some(EMULATOR_CALLS_MAX));
            let room = |max: u32| (max, Semaphore::new((max as usize).min(Semaphore::MAX_PERMITS)));
            remotes.push(RemoteEndpoint {
                name: settings.name.clone(),
                connections: Connections::new(&place, trusted.clone()),
                place,
                patterns: settings.functions.clone(),
                credentials,
                ready: Mutex::default(),
                room: calls_max.map(room),
                answer_time_max: Duration::from_secs(settings.timeout_seconds.unwrap_or(ANSWER_SECONDS_DEFAULT)),
            });
        }
        Ok(Self(Arc::new(remotes)))
    }

    /// The endpoint of a function, as a job names it; `None` for one of this server.
    pub fn of(&self, function: &str) -> Option<&RemoteEndpoint> {
        self.0.iter().find(|remote| matched(&remote.patterns, function))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A call that cannot be put together, or brings no answer: a short cause.
type NoAnswer = String;

#[async_trait::async_trait]
impl longshore_jobs::ports::Invoker for RemoteEndpoint {
    async fn invoke(&self, function: &str, payload: Bytes) -> Reply {
        self.invoke_unless_called_off(function, payload, &Start::default()).await
    }

    async fn invoke_unless_called_off(&self, function: &str, payload: Bytes, start: &Start) -> Reply {
        let endpoint = &self.name;
        let _room = match &self.room {
            Some((_, room)) => Some(room.acquire().await.expect("the semaphore is never closed")),
            None => None,
        };
        if !start.begin() {
            return Reply::NotStarted;
        }
        let called = tokio::time::timeout(self.answer_time_max, self.call(function, payload)).await;
        match called.unwrap_or_else(|_| Err(format!("no answer within {} s", self.answer_time_max.as_secs()))) {
            Ok(reply) => {
                if let Reply::Throttled { message, .. } = &reply {
                    tracing::debug!(endpoint, function, message, "a call was throttled");
                }
                reply
            }
            Err(cause) => {
                tracing::warn!(endpoint, function, cause, "a function could not be reached");
                Reply::Unreachable { cause: format!("{endpoint}: {cause}").chars().take(CAUSE_CHARS_MAX).collect() }
            }
        }
    }

    fn slots(&self, _: &str) -> Option<u32> {
        self.room.as_ref().map(|(max, _)| *max)
    }
}

/// What all requests for one function have in common.
struct Ready {
    /// From the request's first byte to the headers that it is signed with.
    before: Vec<u8>,
    target: String,
    headers: HeaderMap,
    signing: Mutex<Option<(Arc<Identity>, sigv4::Prepared)>>,
}

impl RemoteEndpoint {
    async fn call(&self, function: &str, payload: Bytes) -> Result<Reply, NoAnswer> {
        let identity = match &self.credentials {
            Some(credentials) => credentials.get().await.map_err(|e| e.to_string())?,
            None => None,
        };
        let ready = self.ready(function)?;
        let write = |out: &mut Vec<u8>| ready.write(identity.as_ref(), &payload, out);
        // Held until the engine has read it: at most so much for each call that the engine has under way.
        let answer = self.connections.exchange(write, ANSWER_BYTES_MAX).await?;
        let head = Head {
            status: answer.head.status,
            function_error: answer.head.function_error,
            error_type: answer.head.error_type.as_deref(),
            retry_after: answer.head.retry_after.as_deref(),
        };
        let from = if self.credentials.is_some() { Answerer::Lambda } else { Answerer::Emulator };
        Ok(remote_answer::reply(from, &head, answer.body))
    }

    fn ready(&self, function: &str) -> Result<Arc<Ready>, NoAnswer> {
        let mut all = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ready) = all.get(function) {
            return Ok(Arc::clone(ready));
        }
        // The emulator has one function, whatever the job calls it.
        let name = if self.credentials.is_some() { function } else { "function" };
        let ready = Arc::new(Ready::new(name, &self.place.authority)?);
        if all.len() >= READY_MAX {
            all.clear();
        }
        all.insert(function.into(), Arc::clone(&ready));
        Ok(ready)
    }
}

fn unfit() -> NoAnswer {
    "the request cannot be sent".to_owned()
}

impl Ready {
    fn new(function: &str, authority: &str) -> Result<Self, NoAnswer> {
        let target = format!("/2015-03-31/functions/{}/invocations", utf8_percent_encode(function, COMPONENT));
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(authority).map_err(|_| unfit())?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(HeaderName::from_static("x-amz-invocation-type"), HeaderValue::from_static("RequestResponse"));
        let mut before = format!("POST {target} HTTP/1.1\r\n").into_bytes();
        for (name, value) in &headers {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                before.extend_from_slice(part);
            }
        }
        Ok(Self { before, target, headers, signing: Mutex::new(None) })
    }

    /// Appends the request of a call, signed as it is now, if it is signed.
    fn write(&self, identity: Option<&Arc<Identity>>, payload: &[u8], out: &mut Vec<u8>) -> Result<(), NoAnswer> {
        out.extend_from_slice(&self.before);
        if let Some(identity) = identity {
            let mut signing = self.signing.lock().unwrap_or_else(PoisonError::into_inner);
            if !signing.as_ref().is_some_and(|(of, _)| Arc::ptr_eq(of, identity)) {
                *signing = Some((Arc::clone(identity), self.signing_as(identity)?));
            }
            if let Some((_, prepared)) = &mut *signing {
                prepared.sign(&Sha256::digest(payload).into(), jiff::Timestamp::now().as_second(), out);
            }
        }
        // A vector takes whatever is written to it.
        let _ = write!(out, "content-length: {}\r\n\r\n", payload.len());
        out.extend_from_slice(payload);
        Ok(())
    }

    fn signing_as(&self, identity: &Identity) -> Result<sigv4::Prepared, NoAnswer> {
        let credentials = sigv4::Credentials {
            access_key_id: identity.access_key_id.clone(),
            secret_access_key: identity.secret_access_key.clone(),
            session_token: identity.session_token.clone(),
        };
        let signer = sigv4::Signer { credentials: &credentials, service: "lambda", region: &identity.region };
        sigv4::Prepared::new(&signer, &Method::POST, &self.target, &self.headers).map_err(|_| unfit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use longshore_jobs::ports::Invoker as _;

    const ARN: &str = "arn:aws:lambda:eu-west-1:123456789012:function:thumb-1:PROD";

    fn endpoint(functions: &[&str]) -> FunctionEndpointSettings {
        FunctionEndpointSettings {
            name: "e".into(),
            url: Some("http://127.0.0.1:1".into()),
            functions: functions.iter().map(|f| (*f).to_owned()).collect(),
            anonymous: true,
            ..FunctionEndpointSettings::default()
        }
    }

    fn emulator(functions: &[&str]) -> FunctionEndpointSettings {
        FunctionEndpointSettings { kind: Kind::Rie, anonymous: false, name: "r".into(), ..endpoint(functions) }
    }

    #[tokio::test]
    async fn a_function_is_at_the_first_endpoint_that_has_it_as_the_job_names_it() {
        let cloud = endpoint(&["arn:*:function:thumb*", "!thumb-here*", "thumb*"]);
        let rest = emulator(&["thumb*", "other:$LATEST"]);
        let remote = RemoteFunctions::open(&[cloud, rest], "us-east-1", |_| None).await.unwrap();
        let name = |function| remote.of(function).map(|endpoint| endpoint.name.as_str());
        for (function, wanted) in [
            (ARN, Some("e")),
            ("thumb-1", Some("e")),
            ("thumb-1:7", Some("e")),
            ("thumb-here", Some("r")),
            ("other:$LATEST", Some("r")),
            ("other", None),
            ("123456789012:function:thumb-1", None),
        ] {
            assert_eq!(name(function), wanted, "{function}");
        }
        assert!(RemoteFunctions::default().of("thumb-1").is_none());
    }

    #[test]
    fn settings_that_say_too_little_or_what_would_be_ignored_are_refused() {
        endpoint(&["f"]).check().unwrap();
        emulator(&["f"]).check().unwrap();
        let some = |text: &str| Some(text.to_owned());
        let wrong = [
            (endpoint(&[]), "functions must name"),
            (endpoint(&["!f"]), "functions must name"),
            (endpoint(&["a/b"]), "is no pattern"),
            (FunctionEndpointSettings { concurrency_max: Some(0), ..endpoint(&["f"]) }, "at least 1"),
            (FunctionEndpointSettings { timeout_seconds: Some(0), ..endpoint(&["f"]) }, "at least 1"),
            (FunctionEndpointSettings { url: some("http://10.0.0.1:1"), ..endpoint(&["f"]) }, "plain HTTP"),
            (FunctionEndpointSettings { profile: some("p"), ..endpoint(&["f"]) }, "choose one"),
            (FunctionEndpointSettings { url: None, ..emulator(&["f"]) }, "needs a url"),
            (FunctionEndpointSettings { region: some("eu-west-1"), ..emulator(&["f"]) }, "no region"),
            (FunctionEndpointSettings { profile: some("p"), ..emulator(&["f"]) }, "no credentials"),
        ];
        for (settings, why) in wrong {
            let refused = settings.check().unwrap_err().message;
            assert!(refused.starts_with("function endpoint") && refused.contains(why), "{refused}");
        }
    }

    #[tokio::test]
    async fn a_call_to_lambda_is_signed_and_one_to_the_emulator_is_not() {
        let (id, secret) = (Some("ID".to_owned()), Some("SECRET".to_owned()));
        let cloud = FunctionEndpointSettings {
            url: None,
            anonymous: false,
            region: Some("eu-west-1".into()),
            access_key_id_variable: id,
            secret_access_key_variable: secret,
            ..endpoint(&["arn:*"])
        };
        let both = [cloud, emulator(&["*"])];
        let remote = RemoteFunctions::open(&both, "us-east-1", |name| Some(format!("value-of-{name}"))).await.unwrap();
        let request = async |of: &str, function: &str| {
            let endpoint = remote.of(of).unwrap();
            let identity = match &endpoint.credentials {
                Some(credentials) => credentials.get().await.unwrap(),
                None => None,
            };
            let mut out = Vec::new();
            endpoint.ready(function).unwrap().write(identity.as_ref(), b"{}", &mut out).unwrap();
            let place = &endpoint.place;
            (format!("{}:{} {}", place.host, place.port, place.encrypted), String::from_utf8(out).unwrap())
        };
        let (to, lambda) = request(ARN, ARN).await;
        assert_eq!(to, "lambda.eu-west-1.amazonaws.com:443 true");
        let name = "arn%3Aaws%3Alambda%3Aeu-west-1%3A123456789012%3Afunction%3Athumb-1%3APROD";
        assert!(lambda.starts_with(&format!("POST /2015-03-31/functions/{name}/invocations HTTP/1.1\r\n")), "{lambda}");
        for line in ["host: lambda.eu-west-1.amazonaws.com", "x-amz-invocation-type: RequestResponse"] {
            assert!(lambda.contains(&format!("\r\n{line}\r\n")), "{lambda}");
        }
        assert!(lambda.ends_with("\r\ncontent-length: 2\r\n\r\n{}"), "{lambda}");
        let signature = lambda.split("\r\n").find(|line| line.starts_with("authorization: ")).unwrap();
        assert!(signature.contains("Credential=value-of-ID/") && signature.contains("/eu-west-1/lambda/"));
        let (to, emulated) = request("f", "f:PROD").await;
        assert_eq!(to, "127.0.0.1:1 false");
        assert!(emulated.starts_with("POST /2015-03-31/functions/function/invocations HTTP/1.1\r\n"), "{emulated}");
        assert!(!emulated.contains("authorization"), "{emulated}");
    }

    #[tokio::test]
    async fn an_endpoint_has_as_many_slots_as_it_is_given_and_an_emulator_one() {
        let given = |max, settings| FunctionEndpointSettings { concurrency_max: max, ..settings };
        for (settings, wanted) in [
            (endpoint(&["f"]), None),
            (given(Some(7), endpoint(&["f"])), Some(7)),
            (emulator(&["f"]), Some(1)),
            (given(Some(3), emulator(&["f"])), Some(3)),
        ] {
            let remote = RemoteFunctions::open(&[settings], "us-east-1", |_| None).await.unwrap();
            assert_eq!(remote.of("f").unwrap().slots("f"), wanted);
        }
    }

    #[tokio::test]
    async fn nobody_there_is_no_answer_and_its_cause_is_short() {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Some(format!("http://{}", gone.local_addr().unwrap()));
        drop(gone);
        let settings = FunctionEndpointSettings { url, ..endpoint(&["f"]) };
        let remote = RemoteFunctions::open(&[settings], "us-east-1", |_| None).await.unwrap();
        let Reply::Unreachable { cause } = remote.of("f").unwrap().invoke("f", Bytes::new()).await else {
            panic!("there is nobody")
        };
        assert!(cause.starts_with("e: Connection refused"), "{cause}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_does_not_come_is_given_up_after_the_endpoints_time() {
        // It accepts, and says nothing.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Some(format!("http://{}", silent.local_addr().unwrap()));
        let settings = FunctionEndpointSettings { url, timeout_seconds: Some(2), ..endpoint(&["f"]) };
        let remote = RemoteFunctions::open(&[settings], "us-east-1", |_| None).await.unwrap();
        let reply = remote.of("f").unwrap().invoke("f", Bytes::new()).await;
        assert_eq!(reply, Reply::Unreachable { cause: "e: no answer within 2 s".into() });
    }
}
