//! A server without a socket: the real `Dispatch` on a data directory of its own, with something of everything in it, and with
//! callers of every kind.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use longshore_functions::Functions;
use longshore_functions::host::FunctionCredentials;
use longshore_identity::Identity;
use longshore_jobs::Jobs;
use longshore_objects::Objects;
use longshore_store::{Budget, Fatal, Records};
use longshore_wire::Caller;
use longshore_wire::caller::Witness;
use longshore_wire::xml::Element;
use rusqlite::types::ValueRef;
use sha2::{Digest, Sha256};

use super::drafts::{Draft, Keys, Sent, draft, encoded};
use crate::access::{BATCH_SERVICE, Callers, JobRoles, Services, first_roles};
use crate::bodies::Bodies;
use crate::brake::Brake;
use crate::credentials::Credentials;
use crate::dispatch::Dispatch;
use crate::endpoints::Routes;
use crate::listener::{Connection, RequestBody, Service};
use crate::metrics::{self, Metrics};
use crate::names::Names;
use crate::rooms;

pub const ACCOUNT: &str = "000000000000";
pub const REGION: &str = "us-east-1";
pub const HOST: &str = "127.0.0.1:7300";
/// Where all requests come from.
const PEER: &str = "198.51.100.7:4711";
/// Bytes of documents that functions may have the server hold.
const FUNCTIONS_DOCUMENTS: usize = 1 << 26;
/// A job that there is not.
const NO_JOB: &str = "00000000-0000-4000-8000-000000000000";

pub const ANYTHING: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#;
/// Allows what no operation here asks for.
pub const NOTHING: &str =
    r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"cloudwatch:PutMetricData","Resource":"*"}]}"#;
const ACCOUNT_TRUST: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"000000000000"},"Action":["sts:AssumeRole","sts:TagSession"]}]}"#;
const BATCH_TRUST: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"batchoperations.s3.amazonaws.com"},"Action":"sts:AssumeRole"}]}"#;

/// An answer, as far as the oracle looks at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    pub status: u16,
    /// Empty where there is no body, or no error in it.
    pub code: String,
    pub message: String,
    pub body: String,
    /// Whether it is the last on its connection.
    pub closed: bool,
}

impl Answered {
    pub fn succeeded(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

pub struct World {
    dispatch: Dispatch,
    identity: Identity,
    data_dir: PathBuf,
    /// Sees by `PRAGMA data_version` that another connection has written.
    watching: rusqlite::Connection,
    root: Keys,
    /// By the user's name, and sessions by theirs.
    keys: BTreeMap<&'static str, Keys>,
    /// What stands for a word in the rows: `%JOB%`.
    words: BTreeMap<&'static str, String>,
    _temp: tempfile::TempDir,
}

/// Which of its resources a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    Here,
    /// The same that is not there, or for what is created, that is there already.
    Twin,
}

impl World {
    pub async fn new() -> Self {
        // In memory where that can be: hundreds of policies are written, and none has to outlive this process.
        let memory = Path::new("/dev/shm");
        let temp = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let path = temp.path().to_owned();
        for name in ["objects", "code", "jobs"] {
            std::fs::create_dir(path.join(name)).unwrap();
        }
        let fatal = Fatal::new();
        let schemas = [
            longshore_objects::SCHEMA,
            longshore_functions::SCHEMA,
            longshore_jobs::SCHEMA,
            longshore_identity::SCHEMA,
        ];
        let records = Records::open(&path.join("records.db"), &schemas, fatal.clone()).unwrap();
        let (region, account) = (REGION.to_owned(), ACCOUNT.to_owned());
        let settings = longshore_objects::Settings { region: region.clone(), account: account.clone() };
        let objects = Objects::open(records.clone(), path.join("objects"), settings).unwrap();
        let settings = longshore_identity::Settings { account: account.clone(), region: region.clone() };
        let identity = Identity::open(records.clone(), &path, settings).unwrap();
        first_roles(&identity, ACCOUNT, Default::default()).await.unwrap();
        let root = Credentials { access_key_id: "AKIAROOTROOTROOTROOT".into(), secret_access_key: "root's".into() };
        let services = Services::new(identity.clone(), ACCOUNT, REGION, None);
        let access = Callers {
            root: root.clone(),
            account: account.clone(),
            region: region.clone(),
            identity: Some(identity.clone()),
            services: Some(services.clone()),
            witness: None,
            unsigned_payload: false,
            signing_keys: Arc::default(),
        };
        let routes = Routes::open(&[], |_| None).await.unwrap();
        let s3 = rooms::S3 { embedded: objects.clone(), routes: routes.clone(), gateway: None };
        let routed = Arc::new(rooms::RoutedObjects { embedded: rooms::EmbeddedObjects(objects), routes });
        let settings = longshore_functions::Settings {
            // Over at once, so that the next change of a function is not in its way.
            settle: std::time::Duration::ZERO,
            ..longshore_functions::Settings::new(REGION, ACCOUNT)
        };
        let code = Arc::new(rooms::Code(routed.clone()));
        let functions = Functions::without_host(records.clone(), code, &path.join("code"), settings).unwrap();
        let mut settings = longshore_jobs::Settings::new(ACCOUNT, REGION);
        let (identity_of_roles, functions_of_roles) = (identity.clone(), functions.clone());
        settings.roles = JobRoles {
            identity: identity_of_roles,
            services,
            functions: functions_of_roles,
            is_elsewhere: Arc::new(|_| false),
            account,
            region,
            witness: None,
        }
        .port();
        let invoker = Arc::new(rooms::EmbeddedInvoker(functions.clone()));
        let jobs =
            Jobs::open(records.clone(), path.join("jobs"), fatal.clone(), settings, routed, invoker).await.unwrap();
        let metrics = Arc::new(Metrics {
            jobs: jobs.clone(),
            functions: functions.clone(),
            records,
            fatal: fatal.clone(),
            requests: metrics::Requests::default(),
        });
        let dispatch = Dispatch {
            names: Names::new(&[], HOST.parse().unwrap()),
            access,
            base_path: String::new(),
            s3,
            functions,
            jobs,
            fatal,
            bodies: Bodies::new(),
            brake: Brake::off(),
            metrics,
        };
        let watching = rusqlite::Connection::open(path.join("records.db")).unwrap();
        let root = Keys { id: root.access_key_id, secret: root.secret_access_key, token: None };
        let (keys, words) = (BTreeMap::new(), BTreeMap::new());
        let mut world = Self { dispatch, identity, data_dir: path, watching, root, keys, words, _temp: temp };
        world.fill().await;
        world
    }

    /// Sends a request; `None` where no client could.
    pub async fn send(&self, sent: &Sent) -> Option<Answered> {
        self.send_with(sent, RequestBody::whole(sent.body.clone())).await
    }

    /// As [`World::send`], with a body that comes as it pleases.
    pub async fn send_with(&self, sent: &Sent, body: RequestBody) -> Option<Answered> {
        self.send_from(sent, body, Connection { peer: PEER.parse().unwrap(), tls: None }).await
    }

    /// As [`World::send_with`], over a connection of one's own.
    pub async fn send_from(&self, sent: &Sent, body: RequestBody, how: Connection) -> Option<Answered> {
        let request = sent.request()?;
        let head = request.method() == http::Method::HEAD;
        let mut request = request.map(|_| body);
        request.extensions_mut().insert(how);
        Some(read(self.dispatch.answer(request).await, head).await)
    }

    /// Sends a request over the way that the environment with these credentials has to S3.
    pub async fn send_as_function(&self, credentials: &FunctionCredentials, sent: &Sent) -> Option<Answered> {
        let request = sent.request()?;
        let head = request.method() == http::Method::HEAD;
        let Dispatch { s3, access, .. } = &self.dispatch;
        let door =
            rooms::FunctionsS3 { s3: s3.clone(), access: access.clone(), documents: Budget::new(FUNCTIONS_DOCUMENTS) };
        let request = request.map(|body| Full::new(Bytes::from(body)));
        Some(read(door.answer(credentials, request).await, head).await)
    }

    async fn must(&self, draft: Draft) -> Answered {
        let what = format!("{} {} {}", draft.method, draft.target, String::from_utf8_lossy(&draft.body));
        let answered = self.send(&draft.signed()).await.unwrap();
        assert!(answered.succeeded(), "{what}: {answered:?}");
        answered
    }

    async fn s3(&self, method: &str, target: &str, body: &str) -> Answered {
        let mut draft = draft(method, target, "s3", &self.root);
        draft.body = body.as_bytes().to_vec();
        draft.header("content-length", &body.len().to_string());
        self.must(draft).await
    }

    async fn functions(&self, method: &str, target: &str, body: &str) -> Answered {
        let mut draft = draft(method, target, "lambda", &self.root);
        draft.body = self.fill_in(body, Which::Here, "").into_bytes();
        self.must(draft).await
    }

    /// An IAM or STS operation of the account's owner.
    pub async fn identity(&self, action: &str, members: &[(&str, &str)]) -> Element {
        let service = if action.starts_with("Assume") { "sts" } else { "iam" };
        let mut draft = draft("POST", "/", service, &self.root);
        draft.header("content-type", "application/x-www-form-urlencoded");
        draft.body = format!("Action={action}").into_bytes();
        for (name, value) in members {
            draft.body.extend_from_slice(format!("&{name}={}", encoded(value)).as_bytes());
        }
        let answered = self.must(draft).await;
        Element::parse(answered.body.as_bytes()).unwrap()
    }

    pub async fn policy(&self, user: &str, document: &str) {
        let members = [("UserName", user), ("PolicyName", "p"), ("PolicyDocument", document)];
        self.identity("PutUserPolicy", &members).await;
    }

    async fn user(&mut self, name: &'static str, document: Option<&str>) {
        self.identity("CreateUser", &[("UserName", name)]).await;
        if let Some(document) = document {
            self.policy(name, document).await;
        }
        let made = self.identity("CreateAccessKey", &[("UserName", name)]).await;
        let key = &made.children[0].children[0];
        let text = |member| key.child_text(member).unwrap().to_owned();
        self.keys.insert(name, Keys { id: text("AccessKeyId"), secret: text("SecretAccessKey"), token: None });
    }

    async fn session(&mut self, name: &'static str, role: &str, document: Option<&str>) {
        let role = format!("arn:aws:iam::{ACCOUNT}:role/{role}");
        let mut members = vec![("RoleArn", role.as_str()), ("RoleSessionName", name)];
        members.extend(document.map(|document| ("Policy", document)));
        // The owner of an account assumes no role.
        let mut draft = draft("POST", "/", "sts", &self.keys["all"]);
        draft.body = b"Action=AssumeRole".to_vec();
        for (name, value) in members {
            draft.body.extend_from_slice(format!("&{name}={}", encoded(value)).as_bytes());
        }
        let made = Element::parse(self.must(draft).await.body.as_bytes()).unwrap();
        let made = made.children[0].children.iter().find(|child| child.name == "Credentials").unwrap().clone();
        let text = |member| made.child_text(member).unwrap().to_owned();
        let token = Some(text("SessionToken"));
        self.keys.insert(name, Keys { id: text("AccessKeyId"), secret: text("SecretAccessKey"), token });
    }

    /// Something of everything.
    async fn fill(&mut self) {
        use base64::Engine;
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        zip.start_file("handler.py", zip::write::SimpleFileOptions::default()).unwrap();
        std::io::Write::write_all(&mut zip, b"def handler(event, context): pass\n").unwrap();
        let package = zip.finish().unwrap().into_inner();
        let zip = base64::engine::general_purpose::STANDARD.encode(&package);
        self.words.insert("%ZIP%", zip);
        self.words.insert("%ROLE%", format!("arn:aws:iam::{ACCOUNT}:role/longshore-batch"));
        self.words.insert("%LAMBDA%", format!("arn:aws:lambda:{REGION}:{ACCOUNT}"));
        self.words.insert("%ANYTHING%", encoded(ANYTHING));
        self.words.insert("%TRUST%", encoded(ACCOUNT_TRUST));
        self.words.insert("%IAM%", encoded(&format!("arn:aws:iam::{ACCOUNT}")));

        for bucket in ["b-here", "db-here", "vb-here", "nb-held"] {
            self.s3("PUT", &format!("/{bucket}"), "").await;
        }
        for key in ["k-here", "d-here", "e-here", "t-here", "v-here", "p-held", "up-held"] {
            self.s3("PUT", &format!("/b-here/{key}"), "hello").await;
        }
        let tagging = "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>";
        self.s3("PUT", "/b-here/t-here?tagging=", tagging).await;
        let mut code = draft("PUT", "/b-here/code.zip", "s3", &self.root);
        code.header("content-length", &package.len().to_string());
        code.body = package;
        self.must(code).await;
        for (key, word) in [("up-here", "%UPLOAD%"), ("ab-here", "%ABORT%")] {
            let made = self.s3("POST", &format!("/b-here/{key}?uploads="), "").await;
            let id = Element::parse(made.body.as_bytes()).unwrap().child_text("UploadId").unwrap().to_owned();
            self.s3("PUT", &format!("/b-here/{key}?partNumber=1&uploadId={id}"), "hello").await;
            self.words.insert(word, id);
        }

        let create = r#"{"FunctionName": "f-here", "Runtime": "python3.12", "Handler": "h.h", "Role": "%ROLE%", "Code": {"ZipFile": "%ZIP%"}}"#;
        for name in ["f-here", "df-here", "nf-held", "ns-held"] {
            self.functions("POST", "/2015-03-31/functions", &create.replace("f-here", name)).await;
        }
        self.functions("POST", "/2015-03-31/functions/f-here/versions", "{}").await;
        for alias in ["a-here", "da-here", "na-held"] {
            let body = format!(r#"{{"Name": "{alias}", "FunctionVersion": "1"}}"#);
            self.functions("POST", "/2015-03-31/functions/f-here/aliases", &body).await;
        }
        for layer in ["l-here", "dl-here"] {
            let content = r#"{"Content": {"ZipFile": "%ZIP%"}}"#;
            self.functions("POST", &format!("/2018-10-31/layers/{layer}/versions"), content).await;
        }

        self.user("all", Some(ANYTHING)).await;
        for name in ["nobody", "exact", "lacking", "denied", "elsewhere", "inactive", "deleted"] {
            self.user(name, None).await;
        }
        let on_condition = |network: &str| {
            ANYTHING.replace(
                r#""Resource":"*""#,
                &format!(r#""Resource":"*","Condition":{{"IpAddress":{{"aws:SourceIp":"{network}"}}}}"#),
            )
        };
        self.user("conditioned", Some(&on_condition("192.0.2.0/24"))).await;
        self.user("conditioned-well", Some(&on_condition("198.51.100.0/24"))).await;
        for (user, name, document) in [("bounded", "nothing", NOTHING), ("bounded-well", "anything", ANYTHING)] {
            self.identity("CreatePolicy", &[("PolicyName", name), ("PolicyDocument", document)]).await;
            self.user(user, Some(ANYTHING)).await;
            let arn = format!("arn:aws:iam::{ACCOUNT}:policy/{name}");
            let members = [("UserName", user), ("PermissionsBoundary", arn.as_str())];
            self.identity("PutUserPermissionsBoundary", &members).await;
        }
        for role in ["visited", "vanished"] {
            let members = [("RoleName", role), ("AssumeRolePolicyDocument", ACCOUNT_TRUST)];
            self.identity("CreateRole", &members).await;
            let members = [("RoleName", role), ("PolicyName", "p"), ("PolicyDocument", ANYTHING)];
            self.identity("PutRolePolicy", &members).await;
        }
        self.session("session", "visited", None).await;
        self.session("session-2", "visited", None).await;
        self.session("narrowed", "visited", Some(NOTHING)).await;
        self.session("widened", "visited", Some(ANYTHING)).await;
        self.session("vanished", "vanished", None).await;
        self.identity("DeleteRolePolicy", &[("RoleName", "vanished"), ("PolicyName", "p")]).await;
        self.identity("DeleteRole", &[("RoleName", "vanished")]).await;
        self.identity("CreateRole", &[("RoleName", "past"), ("AssumeRolePolicyDocument", BATCH_TRUST)]).await;
        self.identity("PutRolePolicy", &[("RoleName", "past"), ("PolicyName", "p"), ("PolicyDocument", ANYTHING)])
            .await;
        let now = jiff::Timestamp::now().as_second();
        for (name, began) in [("expired", now - 7_200), ("lasting", now)] {
            let role = format!("arn:aws:iam::{ACCOUNT}:role/past");
            let service = Caller::service(BATCH_SERVICE, ACCOUNT, longshore_core::policy::Context::new(), None, "");
            let made = self.identity.session(&service, &role, name, 3_600, began).unwrap();
            let keys = Keys {
                id: made.access_key_id.clone(),
                secret: made.secret_access_key.expose().to_owned(),
                token: Some(made.session_token.expose().to_owned()),
            };
            self.keys.insert(name, keys);
        }
        let inactive = self.keys["inactive"].id.clone();
        let members = [("UserName", "inactive"), ("AccessKeyId", inactive.as_str()), ("Status", "Inactive")];
        self.identity("UpdateAccessKey", &members).await;
        self.policy("inactive", ANYTHING).await;
        let deleted = self.keys["deleted"].id.clone();
        self.identity("DeleteAccessKey", &[("UserName", "deleted"), ("AccessKeyId", deleted.as_str())]).await;
        self.identity("DeleteUser", &[("UserName", "deleted")]).await;

        // What rows are about.
        self.words.insert("%OWN%", self.keys["nobody"].id.clone());
        for user in ["u-here", "du-here", "mu-here", "nu-held"] {
            self.identity("CreateUser", &[("UserName", user)]).await;
        }
        for role in ["r-here", "dr-here", "nr-held"] {
            let members = [("RoleName", role), ("AssumeRolePolicyDocument", ACCOUNT_TRUST)];
            self.identity("CreateRole", &members).await;
        }
        for policy in ["pol-here", "dpol-here", "npol-held"] {
            self.identity("CreatePolicy", &[("PolicyName", policy), ("PolicyDocument", NOTHING)]).await;
        }
        let made = self.identity("CreateAccessKey", &[("UserName", "u-here")]).await;
        let id = made.children[0].children[0].child_text("AccessKeyId").unwrap().to_owned();
        self.words.insert("%KEY%", id);

        let manifest = "b-here,k-here\n";
        self.s3("PUT", "/b-here/manifest.csv", manifest).await;
        self.words.insert("%ETAG%", hex::encode(md5::Md5::digest(manifest)));
        for word in ["%JOB%", "%CANCELLED%"] {
            let mut draft = draft("POST", "/v20180820/jobs", "s3", &self.root);
            draft.body = self.fill_in(super::rows::JOB, Which::Here, "").replace("token-here", word).into_bytes();
            let made = self.must(draft).await;
            let id = Element::parse(made.body.as_bytes()).unwrap().child_text("JobId").unwrap().to_owned();
            self.words.insert(word, id);
        }
        self.at_rest().await;
    }

    /// Returns when no job is on its way to somewhere.
    pub async fn at_rest(&self) {
        let moving = ["New", "Preparing", "Ready", "Active", "Pausing", "Cancelling", "Failing", "Completing"];
        let statuses: Vec<String> = moving.iter().map(|status| format!("jobStatuses={status}")).collect();
        let mut sorted = statuses;
        sorted.sort();
        let target = format!("/v20180820/jobs?{}", sorted.join("&"));
        for _ in 0..100_000 {
            let listed = self.must(draft("GET", &target, "s3", &self.root)).await;
            if !listed.body.contains("<JobId>") {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("a job does not come to rest");
    }

    /// Looks at the function that rows change: a change is over then.
    pub async fn look_at_functions(&self) {
        let _ = self.must(draft("GET", "/2015-03-31/functions/f-here/configuration", "lambda", &self.root)).await;
    }

    /// Counts failed sign-ins, which most tests are made of, and tells whoever watches.
    pub fn guarded(mut self, witness: Arc<dyn Witness>) -> Self {
        self.dispatch.brake = Brake::new();
        self.dispatch.access.witness = Some(witness);
        self
    }

    /// Has so much room for bodies.
    pub fn with_room(mut self, bytes: usize) -> Self {
        self.dispatch.bodies = Bodies::of(bytes);
        self
    }

    pub fn bodies(&self) -> &Bodies {
        &self.dispatch.bodies
    }

    pub fn keys(&self, name: &str) -> &Keys {
        if name == "root" { &self.root } else { &self.keys[name] }
    }

    /// A row's text: `@` is the resource that is there, or its twin; words in `%` are what there is.
    pub fn fill_in(&self, text: &str, which: Which, twin: &str) -> String {
        let mut text = text.to_owned();
        for (word, value) in &self.words {
            let value = match (which, *word) {
                (Which::Twin, "%JOB%" | "%CANCELLED%") => NO_JOB,
                _ => value,
            };
            text = text.replace(word, value);
        }
        text.replace('@', if which == Which::Here { "here" } else { twin })
    }

    /// An answer about a twin, as if it were about the resource that is there.
    pub fn as_here(&self, answered: &Answered, twin: &str) -> (u16, String, String) {
        let mut message = answered.message.replace(twin, "here");
        for word in ["%JOB%", "%CANCELLED%"] {
            message = message.replace(NO_JOB, "%JOB%").replace(&self.words[word], "%JOB%");
        }
        (answered.status, answered.code.clone(), message)
    }

    /// Changes with each write to the records. Cheap.
    pub fn version(&self) -> i64 {
        self.watching.pragma_query_value(None, "data_version", |row| row.get(0)).unwrap()
    }

    /// A hash of all records, and of all files of objects, code and jobs.
    pub fn state(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        let mut tables =
            self.watching.prepare("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").unwrap();
        let names: Vec<String> = tables.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        for name in names {
            hasher.update(name.as_bytes());
            let mut all = self.watching.prepare(&format!("SELECT * FROM \"{name}\"")).unwrap();
            let columns = all.column_count();
            let mut rows = all.query([]).unwrap();
            while let Some(row) = rows.next().unwrap() {
                for column in 0..columns {
                    match row.get_ref(column).unwrap() {
                        ValueRef::Null => hasher.update(b"-"),
                        ValueRef::Integer(number) => hasher.update(number.to_le_bytes()),
                        ValueRef::Real(number) => hasher.update(number.to_le_bytes()),
                        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
                            hasher.update(bytes.len().to_le_bytes());
                            hasher.update(bytes);
                        }
                    }
                }
            }
        }
        for name in ["objects", "code", "jobs"] {
            digest(&self.data_dir.join(name), &mut hasher);
        }
        hasher.finalize().into()
    }
}

/// An answer as the oracle sees it. `head`: it is one to HEAD.
async fn read<B: Body<Data = Bytes>>(answer: http::Response<B>, head: bool) -> Answered {
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    // Of an answer to HEAD none goes over the wire.
    let body = if head { Default::default() } else { body };
    let status = parts.status.as_u16();
    let text = String::from_utf8_lossy(&body).into_owned();
    let (mut code, mut message) = (String::new(), String::new());
    if status >= 300 {
        if let Ok(json) = serde_json::from_str::<serde_json::Value>(&text) {
            let member = |names: &[&str]| names.iter().find_map(|name| json[name].as_str()).unwrap_or("").to_owned();
            let typed = parts.headers.get("x-amzn-errortype").and_then(|v| v.to_str().ok()).map(str::to_owned);
            code = typed.unwrap_or_else(|| member(&["code", "Code", "__type"]));
            message = member(&["message", "Message"]);
        } else if let Ok(root) = Element::parse(&body) {
            let error = root.children.iter().find(|child| child.name == "Error").unwrap_or(&root);
            code = error.child_text("Code").unwrap_or_default().to_owned();
            message = error.child_text("Message").unwrap_or_default().to_owned();
        }
    }
    let closed = parts.headers.get("connection").is_some_and(|value| value == "close");
    Answered { status, code, message, body: text, closed }
}

fn digest(folder: &Path, hasher: &mut Sha256) {
    let mut entries: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        hasher.update(path.as_os_str().as_encoded_bytes());
        if path.is_dir() {
            digest(&path, hasher);
        } else {
            hasher.update(std::fs::read(&path).unwrap_or_default());
        }
    }
}
