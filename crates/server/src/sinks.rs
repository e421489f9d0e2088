//! Where events of jobs go: files and pipes of JSON lines, and webhooks. What a sink is, the settings say.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::Method;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use longshore_jobs::ports::{EventSink, SinkError};
use longshore_wire::event::{Format, JobEvent};
use rustls::{CertificateError, ClientConfig};
use serde::Deserialize;
use sha2::Sha256;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use crate::client::{Endpoint, NoEndpoint};
use crate::failure::{Because, Failure};
use crate::tls::{self, Roots, TlsError};

/// How long a webhook may take to be connected, and then to answer. The engine's own patience is a little longer.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
const ANSWER_TIME_MAX: Duration = Duration::from_secs(15);
/// Sinks there may be: each has an agent, and each event a row for each of them.
const SINKS_MAX: usize = 16;
/// Bytes of a secret, at most: HMAC gains nothing beyond, and a wrong file is noticed.
const SECRET_BYTES_MAX: usize = 4_096;
/// Carries when a webhook's body was signed and with what result: `t=<seconds>,v1=<hex>`.
const SIGNATURE: &str = "x-longshore-signature";

/// One `[[events]]` of the settings. Meanings: `longshore.toml` beside this crate's manifest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SinkSettings {
    pub name: String,
    pub kind: String,
    #[serde(default)]
    pub path: Option<PathBuf>,
    #[serde(default)]
    pub url: Option<String>,
    #[serde(default)]
    pub format: Option<String>,
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
    #[serde(default)]
    pub secret_env: Option<String>,
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

/// Where a sink leads, as checked.
#[derive(Debug, PartialEq, Eq)]
enum Target<'s> {
    File(&'s Path),
    Stdout,
    Webhook(Address),
}

/// A webhook's URL, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    endpoint: Endpoint,
    /// Path and query.
    target: String,
}

impl SinkSettings {
    fn refuse<T>(&self, why: impl std::fmt::Display) -> Result<T, Failure> {
        Err(Failure::usage(format!("events: the sink {:?} {why}", self.name)))
    }

    fn format(&self) -> Result<Format, Failure> {
        match self.format.as_deref() {
            None => Ok(Format::default()),
            Some(name) => Format::parse(name).map_or_else(
                || self.refuse(format!("has the format {name:?}; known are {}", Format::ALL.map(|f| f.0).join(", "))),
                Ok,
            ),
        }
    }

    fn target(&self) -> Result<Target<'_>, Failure> {
        let secret = self.secret_file.is_some() || self.secret_env.is_some();
        match (self.kind.as_str(), &self.path, &self.url) {
            ("file" | "stdout", ..) if secret => self.refuse("is no webhook and takes no secret"),
            ("file" | "stdout", ..) if self.ca_file.is_some() => self.refuse("is no webhook and takes no ca_file"),
            ("file", Some(path), None) if !path.as_os_str().is_empty() => Ok(Target::File(path)),
            ("file", ..) => self.refuse("is a file: it needs a path, and no url"),
            ("stdout", None, None) => Ok(Target::Stdout),
            ("stdout", ..) => self.refuse("is standard output: it takes neither path nor url"),
            ("webhook", None, Some(url)) => Ok(Target::Webhook(self.address(url)?)),
            ("webhook", ..) => self.refuse("is a webhook: it needs a url, and no path"),
            (kind, ..) => self.refuse(format!("is of the kind {kind:?}; known are file, stdout, webhook")),
        }
    }

    fn address(&self, url: &str) -> Result<Address, Failure> {
        // The URL itself is not repeated: what stands in its query may be secret.
        let (endpoint, uri) = match Endpoint::of(url) {
            Ok(found) => found,
            Err(NoEndpoint::Unread(_)) => return self.refuse("has a url that is none"),
            Err(NoEndpoint::User) => {
                return self.refuse("has a url with a user in it, which is not supported: sign with a secret");
            }
            Err(_) => return self.refuse("has a url that does not begin with http:// or https:// and a host"),
        };
        if endpoint.tls() && !tls::is_name(endpoint.host()) {
            return self.refuse("has an https url with a host that no certificate can be for");
        }
        if self.ca_file.is_some() && !endpoint.tls() {
            return self.refuse("has a ca_file, but an http url: nobody shows a certificate there");
        }
        let target = uri.path_and_query().map_or("/", |t| t.as_str()).to_owned();
        Ok(Address { endpoint, target })
    }

    fn check(&self) -> Result<(), Failure> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.name.is_empty() || self.name.len() > 64 || !self.name.chars().all(plain) {
            return self.refuse("needs a name of 1 to 64 lower-case letters, digits and hyphens");
        }
        if self.secret_file.is_some() && self.secret_env.is_some() {
            return self.refuse("has two secrets: name secret_file or secret_env");
        }
        if self.secret_env.as_deref().is_some_and(|name| name.is_empty() || name.starts_with("LONGSHORE_")) {
            return self.refuse("needs a secret_env that does not begin with LONGSHORE_: those are settings");
        }
        self.format()?;
        self.target().map(drop)
    }

    /// The secret that the settings point to. Its text is in no error and no log.
    fn secret(&self, data_dir: &Path) -> Result<Option<Secret>, Failure> {
        let secret = match (&self.secret_file, &self.secret_env) {
            (Some(path), _) => {
                let path = data_dir.join(path);
                let what = format!("events: the sink {:?}: cannot read {}", self.name, path.display());
                let mut bytes = Vec::new();
                let read = File::open(&path).and_then(|f| f.take(SECRET_BYTES_MAX as u64 + 2).read_to_end(&mut bytes));
                read.because(what)?;
                while bytes.last().is_some_and(|last| matches!(last, b'\n' | b'\r')) {
                    bytes.pop();
                }
                bytes
            }
            (None, Some(name)) => match std::env::var_os(name) {
                Some(value) => value.into_encoded_bytes(),
                None => return self.refuse(format!("needs the variable {name}, which is not set")),
            },
            (None, None) => return Ok(None),
        };
        if secret.is_empty() || secret.len() > SECRET_BYTES_MAX {
            return self.refuse(format!("needs a secret of 1 to {SECRET_BYTES_MAX} bytes"));
        }
        Ok(Some(Secret(secret)))
    }

    /// Whom a webhook believes: those of its `ca_file` alone, or whom all our connections do.
    fn trusted(&self, data_dir: &Path) -> Result<Arc<ClientConfig>, Failure> {
        let trusted = match &self.ca_file {
            Some(path) => {
                tls::config(Roots::File(&data_dir.join(path))).map(Arc::new).map_err(|e| format!("the ca_file {e}"))
            }
            None => tls::usual(),
        };
        trusted.or_else(|error| self.refuse(format!("cannot use TLS: {error}")))
    }
}

/// What the types do not say of all `[[events]]`.
pub fn check(sinks: &[SinkSettings]) -> Result<(), Failure> {
    if sinks.len() > SINKS_MAX {
        return Err(Failure::usage(format!("events: there are {} sinks, at most {SINKS_MAX} may be", sinks.len())));
    }
    for (place, sink) in sinks.iter().enumerate() {
        sink.check()?;
        if sinks[..place].iter().any(|other| other.name == sink.name) {
            return sink.refuse("stands twice: each needs a name of its own");
        }
    }
    Ok(())
}

/// Makes the sinks that the settings name; paths are from the data directory. A secret that cannot be read is an error.
pub fn make(sinks: &[SinkSettings], data_dir: &Path) -> Result<Vec<Arc<dyn EventSink>>, Failure> {
    check(sinks)?;
    let made = sinks.iter().map(|sink| -> Result<Arc<dyn EventSink>, Failure> {
        let (name, format) = (sink.name.clone(), sink.format()?);
        Ok(match sink.target()? {
            Target::File(path) => {
                Arc::new(Lines { name, format, path: Some(data_dir.join(path)), turn: Arc::default() })
            }
            Target::Stdout => Arc::new(Lines { name, format, path: None, turn: Arc::default() }),
            Target::Webhook(address) => {
                let tls = if address.endpoint.tls() { Some(sink.trusted(data_dir)?) } else { None };
                Arc::new(Webhook { name, format, address, tls, secret: sink.secret(data_dir)? })
            }
        })
    });
    made.collect()
}

/// One event a line, in a file or on standard output.
struct Lines {
    name: String,
    format: Format,
    /// `None`: standard output.
    path: Option<PathBuf>,
    /// Held by whoever writes, from before until after, so that lines do not mix, and so that one write at most hangs on
    /// a file system that does not answer.
    turn: Arc<Mutex<()>>,
}

#[async_trait::async_trait]
impl EventSink for Lines {
    fn name(&self) -> &str {
        &self.name
    }

    async fn deliver(&self, event: &JobEvent) -> Result<(), SinkError> {
        let mut line = event.document(self.format);
        line.push(b'\n');
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let path = self.path.clone();
        let written = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            match path {
                Some(path) => append(&path, line),
                None => {
                    let mut out = std::io::stdout().lock();
                    out.write_all(&line).and_then(|()| out.flush())
                }
            }
        });
        match written.await {
            Ok(written) => written.map_err(|error| SinkError(format!("cannot be written: {error}"))),
            Err(panic) => Err(SinkError(format!("cannot be written: {panic}"))),
        }
    }
}

/// Appends one line and makes it durable. The file is opened anew each time: one that was rotated or removed is left
/// alone, and made again.
fn append(path: &Path, mut line: Vec<u8>) -> std::io::Result<()> {
    let there = path.exists();
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
    let regular = file.metadata()?;
    if regular.is_file() && regular.len() > 0 {
        // What a crash or a full disk left of a line must not swallow this one; its event comes again.
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != [b'\n'] {
            line.insert(0, b'\n');
        }
    }
    file.write_all(&line)?;
    if regular.is_file() {
        file.sync_data()?;
        if !there && let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            File::open(parent)?.sync_all()?;
        }
    }
    Ok(())
}

/// What a webhook's bodies are signed with.
struct Secret(Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// The value of [`SIGNATURE`]: HMAC-SHA256 over the seconds, a full stop, and the body. The seconds are signed too, so
    /// that a receiver can refuse what somebody sends again later.
    fn sign(&self, seconds: i64, body: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(format!("{seconds}.").as_bytes());
        mac.update(body);
        format!("t={seconds},v1={}", hex::encode(mac.finalize().into_bytes()))
    }
}

/// A receiver of POSTs.
#[derive(Debug)]
struct Webhook {
    name: String,
    format: Format,
    address: Address,
    /// `None`: plain HTTP.
    tls: Option<Arc<ClientConfig>>,
    secret: Option<Secret>,
}

#[async_trait::async_trait]
impl EventSink for Webhook {
    fn name(&self) -> &str {
        &self.name
    }

    async fn deliver(&self, event: &JobEvent) -> Result<(), SinkError> {
        let body = event.document(self.format);
        let refused = |error: &dyn std::fmt::Display| SinkError(format!("the request cannot be made: {error}"));
        let mut request = http::Request::builder()
            .method(Method::POST)
            .uri(&self.address.target)
            .header(HOST, self.address.endpoint.authority())
            .header(CONTENT_TYPE, self.format.content_type())
            .header(USER_AGENT, concat!("longshore/", env!("CARGO_PKG_VERSION")))
            // Events are few and far between: a connection kept open would mostly be found closed.
            .header(CONNECTION, "close");
        if let Some(secret) = &self.secret {
            request = request.header(SIGNATURE, secret.sign(jiff::Timestamp::now().as_second(), &body));
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(|e| refused(&e))?;

        let late = |what: &str, time: Duration| SinkError(format!("{what} within {} s", time.as_secs()));
        let stream = tokio::time::timeout(CONNECT_TIME_MAX, self.connect())
            .await
            .map_err(|_| late("no connection", CONNECT_TIME_MAX))??;
        let status = tokio::time::timeout(ANSWER_TIME_MAX, post(stream, request))
            .await
            .map_err(|_| late("no answer", ANSWER_TIME_MAX))?
            .map_err(|error| SinkError(format!("no answer: {error}")))?;
        if status.is_success() { Ok(()) } else { Err(SinkError(format!("answered {status}"))) }
    }
}

/// One connection, with TLS or without.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Webhook {
    /// Connects, and with https makes sure of whom: nothing is sent before that.
    async fn connect(&self) -> Result<Box<dyn Stream>, SinkError> {
        let failed = |error: &dyn std::fmt::Display| SinkError(format!("no connection: {error}"));
        let stream = TcpStream::connect(self.address.endpoint.address()).await;
        let stream = stream.map_err(|e| failed(&e))?;
        let Some(config) = &self.tls else { return Ok(Box::new(stream)) };
        match tls::handshake(stream, self.address.endpoint.host(), Arc::clone(config)).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error @ TlsError::NotTrusted(CertificateError::UnknownIssuer)) => {
                Err(failed(&format!("{error} (the sink's ca_file names whom to trust)")))
            }
            Err(error) => Err(failed(&error)),
        }
    }
}

/// Sends one request over one connection, which ends with this future: nothing is left behind by a time-out. The
/// answer's body is not read; its status says everything.
async fn post(stream: Box<dyn Stream>, request: http::Request<Full<Bytes>>) -> Result<http::StatusCode, hyper::Error> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut connection = std::pin::pin!(connection);
    let mut answered = std::pin::pin!(sender.send_request(request));
    let answer = tokio::select! {
        biased;
        answer = answered.as_mut() => answer,
        // A receiver may hang up with its answer; then the answer is there already.
        _ = connection.as_mut() => answered.await,
    };
    answer.map(|answer| answer.status())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sink(text: &str) -> SinkSettings {
        toml::from_str(text).unwrap()
    }

    fn event(status: &str) -> JobEvent {
        JobEvent {
            job_event_id: "0".repeat(32),
            event_id: "e".into(),
            envelope_id: "v".into(),
            account: "123456789012".into(),
            region: "us-east-1".into(),
            job_id: "j".into(),
            status: status.into(),
            time_ms: 0,
            failure_codes: vec![],
            status_change_reason: vec![],
        }
    }

    #[test]
    fn a_sink_that_cannot_be_is_refused_in_words_before_anything_starts() {
        for (text, wanted) in [
            ("name = \"A\"\nkind = \"file\"\npath = \"e\"", "lower-case letters"),
            ("name = \"\"\nkind = \"file\"\npath = \"e\"", "1 to 64"),
            ("name = \"a\"\nkind = \"sqs\"\nurl = \"http://h\"", "known are file, stdout, webhook"),
            ("name = \"a\"\nkind = \"file\"", "needs a path"),
            ("name = \"a\"\nkind = \"file\"\npath = \"e\"\nurl = \"http://h\"", "no url"),
            ("name = \"a\"\nkind = \"stdout\"\npath = \"e\"", "neither path nor url"),
            ("name = \"a\"\nkind = \"webhook\"", "needs a url"),
            ("name = \"a\"\nkind = \"webhook\"\nurl = \"https://a_b..c/\"", "no certificate can be for"),
            ("name = \"a\"\nkind = \"webhook\"\nurl = \"http://h/\"\nca_file = \"c\"", "but an http url"),
            ("name = \"a\"\nkind = \"file\"\npath = \"e\"\nca_file = \"c\"", "takes no ca_file"),
            ("name = \"a\"\nkind = \"stdout\"\nca_file = \"c\"", "takes no ca_file"),
            ("name = \"a\"\nkind = \"webhook\"\nurl = \"ftp://h/\"", "begin with http://"),
            ("name = \"a\"\nkind = \"webhook\"\nurl = \"/path\"", "begin with http://"),
            ("name = \"a\"\nkind = \"webhook\"\nurl = \"http://u:geheim@h/\"", "a user in it"),
            ("name = \"a\"\nkind = \"webhook\"\nurl = \"http://h/\"\nformat = \"xml\"", "eventbridge, cloudtrail"),
            ("name = \"a\"\nkind = \"file\"\npath = \"e\"\nsecret_env = \"S\"", "takes no secret"),
            ("name = \"a\"\nkind = \"webhook\"\nurl = \"http://h\"\nsecret_env = \"LONGSHORE_S\"", "are settings"),
            ("name = \"a\"\nkind = \"webhook\"\nurl = \"http://h\"\nsecret_env = \"S\"\nsecret_file = \"s\"", "two"),
        ] {
            let failure = check(&[sink(text)]).unwrap_err();
            assert!(failure.message.contains(wanted), "{text}: {}", failure.message);
            assert!(!failure.message.contains("geheim"));
        }
        let twice = sink("name = \"a\"\nkind = \"stdout\"");
        assert!(check(&[twice.clone(), twice.clone()]).unwrap_err().message.contains("stands twice"));
        assert!(check(&vec![twice; SINKS_MAX + 1]).unwrap_err().message.contains("at most 16"));
        assert!(toml::from_str::<SinkSettings>("name = \"a\"\nkind = \"stdout\"\ntopic = \"t\"").is_err());
    }

    #[test]
    fn a_url_is_taken_apart_as_the_request_needs_it() {
        let address = |url: &str| sink("name = \"a\"\nkind = \"webhook\"").address(url).unwrap();
        let six = address("http://[::1]:8080/hook?a=b");
        assert_eq!((six.endpoint.address(), six.endpoint.authority().as_str()), (("::1", 8080), "[::1]:8080"));
        assert_eq!(six.target, "/hook?a=b");
        let bare = address("http://hooks.example");
        assert_eq!((bare.endpoint.address().1, bare.target.as_str(), bare.endpoint.tls()), (80, "/", false));
        let secure = address("https://hooks.example");
        assert_eq!((secure.endpoint.address(), secure.endpoint.tls()), (("hooks.example", 443), true));
        assert_eq!(secure.endpoint.authority(), "hooks.example");
        assert!(address("https://[::1]:8443/").endpoint.tls(), "certificates can be for addresses");
    }

    #[test]
    fn a_secret_comes_from_a_file_without_its_line_break_and_is_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), "s3cret\r\n").unwrap();
        let webhook = |more: &str| sink(&format!("name = \"a\"\nkind = \"webhook\"\nurl = \"http://h/\"\n{more}"));
        let secret = webhook("secret_file = \"secret\"").secret(dir.path()).unwrap().unwrap();
        assert_eq!(secret.0, b"s3cret");
        assert!(!format!("{secret:?}").contains("s3cret"));
        for (name, content) in [("empty", String::new()), ("large", "x".repeat(SECRET_BYTES_MAX + 1))] {
            std::fs::write(dir.path().join(name), content).unwrap();
            assert!(webhook(&format!("secret_file = \"{name}\"")).secret(dir.path()).is_err(), "{name}");
        }
        assert!(webhook("secret_file = \"none\"").secret(dir.path()).is_err());
        let unset = webhook("secret_env = \"SURELY_NOT_SET_ANYWHERE\"").secret(dir.path());
        assert!(unset.unwrap_err().message.contains("SURELY_NOT_SET_ANYWHERE"));
        assert!(webhook("").secret(dir.path()).unwrap().is_none());
    }

    #[test]
    fn a_signature_is_the_hmac_of_time_and_body() {
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac key
        let signed = Secret(b"key".to_vec()).sign(1_700_000_000, b"{\"a\":1}");
        let wanted = "a438e398bfafc57e4396bb7fc2304422f0f768e965d073ca313cb52e22e6ad03";
        assert_eq!(signed, format!("t=1700000000,v1={wanted}"));
    }

    #[tokio::test]
    async fn a_file_gets_one_line_an_event_and_survives_rotation_removal_and_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = [sink("name = \"a\"\nkind = \"file\"\npath = \"events.jsonl\"")];
        let sinks = make(&file, dir.path()).unwrap();
        let path = dir.path().join("events.jsonl");
        let statuses = |path: &Path| -> Vec<String> {
            let text = std::fs::read_to_string(path).unwrap();
            assert!(text.ends_with('\n'));
            let read = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok();
            let status =
                |line| read(line).map(|e| e["detail"]["serviceEventDetails"]["status"].as_str().unwrap().into());
            text.lines().map(|line| status(line).unwrap_or_else(|| format!("torn: {line}"))).collect()
        };
        sinks[0].deliver(&event("New")).await.unwrap();
        sinks[0].deliver(&event("Preparing")).await.unwrap();
        assert_eq!(statuses(&path), ["New", "Preparing"]);
        let rotated = dir.path().join("events.1");
        std::fs::rename(&path, &rotated).unwrap();
        sinks[0].deliver(&event("Ready")).await.unwrap();
        assert_eq!((statuses(&rotated).len(), statuses(&path)), (2, vec!["Ready".to_owned()]));
        std::fs::remove_file(&path).unwrap();
        sinks[0].deliver(&event("Active")).await.unwrap();
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"half\":").unwrap();
        sinks[0].deliver(&event("Complete")).await.unwrap();
        assert_eq!(statuses(&path), ["Active", "torn: {\"half\":", "Complete"]);
        std::fs::remove_dir_all(dir.path()).unwrap();
        let error = sinks[0].deliver(&event("Failed")).await.unwrap_err();
        assert!(error.0.contains("cannot be written"), "{error}");
    }

    /// What a webhook makes of a receiver that gives `answer` to each request and hangs up.
    async fn handed_to(answer: &'static [u8]) -> (Result<(), SinkError>, String) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let webhook = [sink(&format!("name = \"a\"\nkind = \"webhook\"\nurl = \"{url}\""))];
        let sinks = make(&webhook, Path::new("/")).unwrap();
        let receiver = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            // The documents end in so many brackets, and have them nowhere else.
            while !request.ends_with(b"}}}") {
                assert!(stream.read_buf(&mut request).await.unwrap() > 0);
            }
            stream.write_all(answer).await.unwrap();
            String::from_utf8(request).unwrap()
        };
        let event = event("New");
        tokio::join!(sinks[0].deliver(&event), receiver)
    }

    #[tokio::test]
    async fn only_an_answer_of_2xx_takes_an_event() {
        for (answer, wanted) in [
            (&b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"[..], None),
            (b"HTTP/1.1 204 No Content\r\n\r\n", None),
            // An answer that goes on and on is not read.
            (b"HTTP/1.1 202 Accepted\r\ncontent-length: 999999999999\r\n\r\nwords", None),
            (b"HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n", Some("answered 302 Found")),
            (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", Some("answered 404 Not Found")),
            (b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", Some("answered 503 Service Unavailable")),
            (b"hello\r\n\r\n", Some("no answer: ")),
            (b"", Some("no answer: ")),
        ] {
            let (handed, request) = handed_to(answer).await;
            let told = handed.err().map(|error| error.0);
            match wanted {
                None => assert_eq!(told, None),
                Some(wanted) => assert!(told.as_deref().is_some_and(|t| t.contains(wanted)), "{wanted}: {told:?}"),
            }
            assert!(request.starts_with("POST /hook HTTP/1.1\r\n"), "{request}");
            assert!(!request.contains(SIGNATURE), "without a secret nothing is signed");
        }
    }
}
