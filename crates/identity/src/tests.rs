//! IAM and STS as their callers see them: signed requests, verified against the keys that there are.

mod entities;
mod explain;
mod policies;
mod rights;
mod sessions;

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use longshore_core::policy::Context;
use longshore_store::{Fatal, Records, Secret};
use longshore_wire::caller;
use longshore_wire::payload::PayloadForm;
use longshore_wire::sigv4::{AuthError, Claim, Credentials, Key, Rules, Signer, Verified};
use longshore_wire::xml::Element;
use longshore_wire::{Caller, Query, Request, RequestId};

use crate::entity::{AccessKey, Entity, EntityKind, Managed, RolePart};
use crate::{Identity, IdentityError, SCHEMA, Settings, now};

const ACCOUNT: &str = "111111111111";
const ROOT: &str = "LSROOTROOTROOTROOT00";
const ROOT_SECRET: &str = "root-root-root-root-root-root-root-root-";
/// Trusted by whoever in the account may.
const TRUST: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"111111111111"},"Action":["sts:AssumeRole","sts:TagSession","sts:SetSourceIdentity"]}]}"#;
const READ: &str =
    r#"{"Version":"2012-10-17","Statement":[{"Sid":"Read","Effect":"Allow","Action":"s3:GetObject","Resource":"*"}]}"#;

/// A policy that allows one action, on anything.
fn allowing(action: &str) -> String {
    format!(r#"{{"Version":"2012-10-17","Statement":{{"Effect":"Allow","Action":"{action}","Resource":"*"}}}}"#)
}

/// A policy of about so many characters that count.
fn large(characters: usize) -> String {
    let padding = characters - 110;
    let name = "x".repeat(padding);
    format!(
        r#"{{"Version":"2012-10-17","Statement":{{"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::{name}/*"}}}}"#
    )
}

/// A data directory of its own.
struct Ground {
    identity: Identity,
    records: Records,
    temp: tempfile::TempDir,
}

/// An answer, taken apart.
#[derive(Debug)]
struct Told {
    status: StatusCode,
    xml: Element,
}

impl Told {
    /// The text at a path of names below the result: `Role.Arn`. Of members of a list the first is meant.
    fn text(&self, path: &str) -> &str {
        self.find(path).map_or("", |found| found.text.as_str())
    }

    fn find(&self, path: &str) -> Option<&Element> {
        let result = self.xml.children.iter().find(|child| child.name.ends_with("Result"))?;
        path.split('.').try_fold(result, |at, name| at.child(name))
    }

    fn members(&self, path: &str) -> Vec<&Element> {
        self.find(path).map_or(Vec::new(), |list| list.children.iter().collect())
    }

    fn code(&self) -> &str {
        self.error("Code")
    }

    fn error(&self, name: &str) -> &str {
        self.xml.child("Error").and_then(|error| error.child_text(name)).unwrap_or("")
    }

    #[track_caller]
    fn good(self) -> Self {
        assert_eq!(self.status, StatusCode::OK, "{self:?}");
        self
    }
}

/// Somebody's access key.
#[derive(Clone)]
struct Who(Credentials);

impl Who {
    fn root() -> Self {
        Self::new(ROOT, ROOT_SECRET, None)
    }

    fn new(id: &str, secret: &str, token: Option<&str>) -> Self {
        Self(Credentials {
            access_key_id: id.to_owned(),
            secret_access_key: secret.to_owned(),
            session_token: token.map(str::to_owned),
        })
    }

    /// The credentials of an answer.
    fn of(told: &Told) -> Self {
        let part = |name: &str| told.text(&format!("Credentials.{name}")).to_owned();
        Self::new(&part("AccessKeyId"), &part("SecretAccessKey"), Some(&part("SessionToken")))
    }
}

fn settings() -> Settings {
    Settings { account: ACCOUNT.into(), region: "us-east-1".into() }
}

impl Ground {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let records = Records::open(&temp.path().join("records.db"), &[SCHEMA], Fatal::new()).unwrap();
        let identity = Identity::open(records.clone(), temp.path(), settings()).unwrap();
        Self { identity, records, temp }
    }

    /// As after a restart.
    async fn reopened(self) -> Self {
        let Self { identity, records, temp } = self;
        drop(identity);
        records.close().await;
        let records = Records::open(&temp.path().join("records.db"), &[SCHEMA], Fatal::new()).unwrap();
        let identity = Identity::open(records.clone(), temp.path(), settings()).unwrap();
        Self { identity, records, temp }
    }

    fn verify(
        &self,
        who: &Who,
        service: &str,
        body: &[u8],
        at: i64,
    ) -> Result<(Verified, caller::Subject, Context), AuthError> {
        use longshore_wire::sigv4;
        let hash = sha256(body);
        let signer = Signer { credentials: &who.0, service, region: "us-east-1" };
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("localhost"));
        let signed = signer.sign(&Method::POST, "/", &headers, PayloadForm::Hash(hash), at).unwrap();
        headers.extend(signed.headers);
        let claim = Claim::parse(&Method::POST, "/", &headers)?;
        let rules =
            Rules { regions: &["us-east-1"], services: &["iam", "sts", "s3"], unsigned_payload: false, keys: None };
        let verified = |key: &sigv4::Key<'_>| claim.verify(key, &rules, at, Some(hash));
        if claim.access_key_id() == ROOT {
            let key = Key::lasting(ROOT_SECRET, ACCOUNT);
            return Ok((verified(&key)?, caller::Subject::root(ACCOUNT), Context::new()));
        }
        let Some(known) = self.identity.key(claim.access_key_id(), claim.security_token(), at) else {
            return Err(verified(&Key::unknown()).unwrap_err());
        };
        let secret = known.secret_access_key.expose();
        let key = match &known.session {
            Some(facts) => Key::temporary(secret, ACCOUNT, facts.token.expose(), facts.expires_at),
            None => Key::lasting(secret, ACCOUNT),
        };
        Ok((verified(&key)?, known.subject, known.context))
    }

    /// Who somebody is, as every part of the server sees it.
    fn caller(&self, who: &Who) -> Result<Caller, AuthError> {
        let (verified, identity, context) = self.verify(who, "s3", b"", now())?;
        Ok(Caller::new(verified, identity, context, None, "id"))
    }

    async fn ask(&self, who: &Who, service: &str, action: &str, members: &[(&str, &str)]) -> Told {
        let mut body =
            format!("Action={action}&Version={}", if service == "sts" { "2011-06-15" } else { "2010-05-08" });
        for (name, value) in members {
            body.push_str(&format!("&{name}={}", crate::operations::encoded(value)));
        }
        let (verified, identity, context) = self.verify(who, service, body.as_bytes(), now()).unwrap();
        let caller = Caller::new(verified, identity, context, None, "id");
        let mut headers = HeaderMap::new();
        if let Some(token) = &who.0.session_token {
            headers.insert("x-amz-security-token", HeaderValue::from_str(token).unwrap());
        }
        let request = Request {
            method: Method::POST,
            path: "/".into(),
            query: Query::default(),
            headers,
            body: Bytes::from(body),
            caller,
            request_id: RequestId("id".into()),
        };
        let answer = self.identity.serve(request).await;
        Told { status: answer.status, xml: Element::parse(&answer.body).unwrap() }
    }

    async fn iam(&self, who: &Who, action: &str, members: &[(&str, &str)]) -> Told {
        self.ask(who, "iam", action, members).await
    }

    async fn sts(&self, who: &Who, action: &str, members: &[(&str, &str)]) -> Told {
        self.ask(who, "sts", action, members).await
    }

    /// As root, and it has to succeed.
    async fn root(&self, action: &str, members: &[(&str, &str)]) -> Told {
        let told = self.iam(&Who::root(), action, members).await;
        assert_eq!(told.status, StatusCode::OK, "{action}: {told:?}");
        told
    }

    /// A user with an access key, and with an inline policy `p` if one is given.
    async fn user(&self, name: &str, policy: Option<&str>) -> Who {
        self.root("CreateUser", &[("UserName", name)]).await;
        if let Some(policy) = policy {
            let members = [("UserName", name), ("PolicyName", "p"), ("PolicyDocument", policy)];
            self.root("PutUserPolicy", &members).await;
        }
        let made = self.root("CreateAccessKey", &[("UserName", name)]).await;
        Who::new(made.text("AccessKey.AccessKeyId"), made.text("AccessKey.SecretAccessKey"), None)
    }

    async fn role(&self, name: &str, trust: &str, policy: Option<&str>) -> String {
        let made = self.root("CreateRole", &[("RoleName", name), ("AssumeRolePolicyDocument", trust)]).await;
        if let Some(policy) = policy {
            let members = [("RoleName", name), ("PolicyName", "p"), ("PolicyDocument", policy)];
            self.root("PutRolePolicy", &members).await;
        }
        made.text("Role.Arn").to_owned()
    }
}

fn sha256(body: &[u8]) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(body).into()
}

/// May somebody read an object?
fn may_read(caller: &Caller) -> bool {
    caller.may(&longshore_wire::Asked::new("s3:GetObject", "arn:aws:s3:::b/k")).is_ok()
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart_and_no_secret_lies_open() {
    let ground = Ground::new();
    let who = ground.user("u", Some(READ)).await;
    let role = ground.role("r", TRUST, Some(READ)).await;
    let policy = [
        ("PolicyName", "managed"),
        ("PolicyDocument", READ),
        ("Description", "d"),
        ("Tags.member.1.Key", "k"),
        ("Tags.member.1.Value", "v"),
    ];
    let arn = ground.root("CreatePolicy", &policy).await.text("Policy.Arn").to_owned();
    ground.root("AttachRolePolicy", &[("RoleName", "r"), ("PolicyArn", &arn)]).await;
    ground.root("PutRolePermissionsBoundary", &[("RoleName", "r"), ("PermissionsBoundary", &arn)]).await;
    ground
        .root(
            "CreatePolicyVersion",
            &[("PolicyArn", &arn), ("PolicyDocument", &allowing("s3:*")), ("SetAsDefault", "true")],
        )
        .await;
    ground.root("UpdateRole", &[("RoleName", "r"), ("Description", "text"), ("MaxSessionDuration", "7200")]).await;
    ground.root("TagUser", &[("UserName", "u"), ("Tags.member.1.Key", "team"), ("Tags.member.1.Value", "a")]).await;
    let before = ground.identity.snapshot();

    let ground = ground.reopened().await;
    let after = ground.identity.snapshot();
    assert!(after.state.changes_since(&before.state).len() > 3, "they are other values");
    for kind in [EntityKind::User, EntityKind::Role] {
        assert!(before.state.entities(kind).eq(after.state.entities(kind)));
    }
    assert!(before.state.policies().eq(after.state.policies()));
    assert!(may_read(&ground.caller(&who).unwrap()));
    assert_eq!(ground.identity.role(&role).unwrap().session_seconds_max, 7_200);

    let secret = who.0.secret_access_key.as_bytes();
    ground.records.close().await;
    for entry in std::fs::read_dir(ground.temp.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(secret.len()).any(|found| found == secret));
    }
}

#[tokio::test]
async fn a_key_file_that_is_gone_while_keys_are_sealed_is_an_error_and_never_replaced() {
    let ground = Ground::new();
    ground.user("u", None).await;
    let Ground { identity, records, temp } = ground;
    drop(identity);
    records.close().await;
    std::fs::remove_file(temp.path().join("identity.key")).unwrap();
    let records = Records::open(&temp.path().join("records.db"), &[SCHEMA], Fatal::new()).unwrap();
    let error = Identity::open(records, temp.path(), settings()).unwrap_err().to_string();
    assert!(error.contains("identity.key is missing, and there are access keys"), "{error}");
    assert!(!temp.path().join("identity.key").exists());
}

#[tokio::test]
async fn a_role_is_made_at_the_first_start_and_stays_as_its_owner_left_it() {
    let ground = Ground::new();
    let arn = "arn:aws:iam::111111111111:role/service/longshore-batch";
    for _ in 0..2 {
        ground.identity.ensure_role(arn, TRUST, "all", &allowing("s3:*")).await.unwrap();
    }
    assert_eq!(ground.identity.role(arn).unwrap().rights.identity.len(), 1);
    ground.root("DeleteRolePolicy", &[("RoleName", "longshore-batch"), ("PolicyName", "all")]).await;
    ground.identity.ensure_role(arn, TRUST, "all", &allowing("s3:*")).await.unwrap();
    assert!(ground.identity.role(arn).unwrap().rights.identity.is_empty());
    for other in
        ["arn:aws:iam::111111111111:role/longshore-batch", "arn:aws:iam::111111111111:role/service/Longshore-Batch"]
    {
        let error = ground.identity.ensure_role(other, TRUST, "all", READ).await.unwrap_err();
        assert!(matches!(error, IdentityError::EntityAlreadyExists(_)), "{error}");
        assert!(ground.identity.role(other).is_none());
    }
    for no_role in
        ["arn:aws:iam::222222222222:role/r", "arn:aws:iam::111111111111:user/r", "r", "arn:aws:iam::111111111111:role/"]
    {
        assert!(ground.identity.ensure_role(no_role, TRUST, "all", READ).await.is_err(), "{no_role}");
    }
}

#[tokio::test]
async fn a_change_that_is_refused_changes_nothing_and_each_that_is_made_counts() {
    let ground = Ground::new();
    assert_eq!(ground.identity.generation(), 0);
    ground.root("CreateUser", &[("UserName", "u")]).await;
    assert_eq!(ground.identity.generation(), 1);
    let told = ground.iam(&Who::root(), "CreateUser", &[("UserName", "U")]).await;
    assert_eq!((told.status, told.code()), (StatusCode::CONFLICT, "EntityAlreadyExists"));
    ground.root("GetUser", &[("UserName", "u")]).await;
    assert_eq!(ground.identity.generation(), 1);
}

#[tokio::test]
async fn of_many_who_take_a_name_at_once_one_has_it() {
    let ground = Ground::new();
    let take = async |name: &str| ground.iam(&Who::root(), "CreateUser", &[("UserName", name)]).await;
    let (a, b, c, d) = tokio::join!(take("name"), take("NAME"), take("name"), take("other"));
    let good = [&a, &b, &c].iter().filter(|told| told.status == StatusCode::OK).count();
    assert_eq!((good, d.status), (1, StatusCode::OK));
    assert_eq!(ground.reopened().await.root("ListUsers", &[]).await.members("Users").len(), 2);
}

#[tokio::test]
async fn a_change_whose_caller_goes_away_is_made_in_the_tables_and_in_memory_alike() {
    let ground = Ground::new();
    let root = Who::root();
    {
        let left = ground.iam(&root, "CreateUser", &[("UserName", "left")]);
        tokio::select! {
            biased;
            _ = left => panic!("it waits for the disk at least"),
            () = std::future::ready(()) => {}
        }
    }
    // Changes are made one after the other.
    ground.root("CreateUser", &[("UserName", "later")]).await;
    assert_eq!(ground.root("ListUsers", &[]).await.members("Users").len(), 2);
    assert_eq!(ground.reopened().await.root("ListUsers", &[]).await.members("Users").len(), 2);
}
