//! Who calls, and with which rights: from a verified signature, and for work that the server does for somebody else.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use longshore_core::policy::{Context, Decision, Principal};
use longshore_functions::Functions;
use longshore_identity::{AssumeError, Identity};
use longshore_jobs::ports::{self, NotAssumed};
use longshore_wire::arn::FunctionName;
use longshore_wire::caller::{self, About, Witness};
use longshore_wire::s3_actions::{self, GET_OBJECT, PUT_OBJECT};
use longshore_wire::sigv4::{AuthError, Claim, Key, KeyCache, Rules, Verified};
use longshore_wire::{Asked, Caller, RequestId};

use crate::credentials::Credentials;
use crate::failure::{Because, Failure};
use crate::listener::Connection;
use crate::rooms::PAGE_OBJECTS;

/// The service that assumes the roles of jobs, and that of functions. Their trust policies name them.
pub const BATCH_SERVICE: &str = "batchoperations.s3.amazonaws.com";
pub const LAMBDA_SERVICE: &str = "lambda.amazonaws.com";
/// The role that the first start makes, and that the commands name where no role is named.
pub const ROLE: &str = "longshore-batch";
/// The region that clients of IAM sign for, wherever they are.
const IAM_REGION: &str = "us-east-1";

/// Looks up access keys and makes callers. Cheap to clone.
#[derive(Clone)]
pub struct Callers {
    pub root: Credentials,
    pub account: String,
    pub region: String,
    /// `None`: `iam = "off"`, where the root's key is the only one, and roles are names.
    pub identity: Option<Identity>,
    /// As `identity`: the roles that services assume.
    pub services: Option<Arc<Services>>,
    pub witness: Option<Arc<dyn Witness>>,
    pub unsigned_payload: bool,
    pub signing_keys: Arc<KeyCache>,
}

impl Callers {
    /// Whether there is such a key, before the body of a request is read. Nothing is proven by it.
    pub fn knows(&self, claim: &Claim) -> bool {
        let now = jiff::Timestamp::now().as_second();
        claim.access_key_id() == self.root.access_key_id
            || self
                .identity
                .as_ref()
                .is_some_and(|identity| identity.key(claim.access_key_id(), claim.security_token(), now).is_some())
    }

    /// Looks the key up and proves a claim to one of these services. Over TLS a body may be unsigned.
    pub fn verify(
        &self,
        claim: &Claim,
        services: &[&str],
        connection: Option<Connection>,
        body_sha256: Option<[u8; 32]>,
        id: &RequestId,
    ) -> Result<Caller, AuthError> {
        let regions: &[&str] = match claim.service() {
            "iam" | "sts" => &[&self.region, IAM_REGION],
            _ => &[&self.region],
        };
        let rules =
            Rules { regions, services, unsigned_payload: self.unsigned_payload, keys: Some(&self.signing_keys) };
        self.prove(claim, &rules, connection, body_sha256, id)
    }

    /// As [`Callers::verify`], by rules of the caller's own.
    pub fn prove(
        &self,
        claim: &Claim,
        rules: &Rules<'_>,
        connection: Option<Connection>,
        body_sha256: Option<[u8; 32]>,
        id: &RequestId,
    ) -> Result<Caller, AuthError> {
        let proven = self.try_to_prove(claim, rules, connection, body_sha256, id);
        if let Err(error) = &proven {
            self.refused(Some(claim), connection, error, id);
        }
        proven
    }

    /// Writes down who was not let in, and why. `claim`: if there was one that reads.
    pub fn refused(&self, claim: Option<&Claim>, connection: Option<Connection>, error: &AuthError, id: &RequestId) {
        tracing::debug!(request_id = %id, %error, "request refused, for it is not from whom it says");
        let why = match (error, claim, &self.identity) {
            (AuthError::UnknownKey(_), Some(claim), Some(identity)) => {
                identity.why_unknown(claim.access_key_id(), claim.security_token())
            }
            _ => why(error),
        };
        let source_ip = connection.map(|connection| address(connection.peer.ip()));
        self.tell_refused(claim, source_ip.as_deref(), None, error, why, id);
    }

    /// As [`Callers::refused`], at the door of functions: there the one key is that of the function's environment, whatever another is
    /// elsewhere.
    pub fn function_refused(&self, claim: Option<&Claim>, function: &str, error: &AuthError, id: &RequestId) {
        tracing::debug!(request_id = %id, %error, function, "request of a function refused");
        let why = match error {
            AuthError::UnknownKey(_) => "not the key of the function's environment",
            _ => why(error),
        };
        let arn = function_arn(&self.region, &self.account, function);
        self.tell_refused(claim, None, Some(&arn), error, why, id);
    }

    fn tell_refused(
        &self,
        claim: Option<&Claim>,
        source_ip: Option<&str>,
        function_arn: Option<&str>,
        error: &AuthError,
        why: &'static str,
        id: &RequestId,
    ) {
        // Whoever says nothing of who they are is no caller.
        let (Some(witness), false) = (&self.witness, matches!(error, AuthError::Missing)) else { return };
        let access_key_id = claim.map(Claim::access_key_id);
        witness.refused(&caller::Refused {
            request_id: &id.0,
            access_key_id: access_key_id.filter(|id| *id == self.root.access_key_id || is_key_id(id)),
            source_ip,
            function_arn,
            service: claim.map(Claim::service),
            why,
        });
    }

    fn try_to_prove(
        &self,
        claim: &Claim,
        rules: &Rules<'_>,
        connection: Option<Connection>,
        body_sha256: Option<[u8; 32]>,
        id: &RequestId,
    ) -> Result<Caller, AuthError> {
        let now = jiff::Timestamp::now();
        let secure = connection.is_some_and(|connection| connection.is_secure());
        let rules = Rules { unsigned_payload: rules.unsigned_payload || secure, ..*rules };
        let verify = |key: &Key<'_>| claim.verify(key, &rules, now.as_second(), body_sha256);
        let context = self.context(now, claim, connection);
        if claim.access_key_id() == self.root.access_key_id {
            let verified = verify(&Key::lasting(&self.root.secret_access_key, &self.account))?;
            return Ok(self.caller(verified, caller::Subject::root(&self.account), context, &id.0));
        }
        let known = self
            .identity
            .as_ref()
            .and_then(|identity| identity.key(claim.access_key_id(), claim.security_token(), now.as_second()));
        let Some(known) = known else { return Err(unverified(verify(&Key::unknown()))) };
        let secret = known.secret_access_key.expose();
        let verified = match &known.session {
            None => verify(&Key::lasting(secret, &self.account))?,
            Some(session) => {
                verify(&Key::temporary(secret, &self.account, session.token.expose(), session.expires_at))?
            }
        };
        Ok(self.caller(verified, known.subject, context.or(&known.context), &id.0))
    }

    fn caller(&self, verified: Verified, subject: caller::Subject, context: Context, request_id: &str) -> Caller {
        let context = with_signature(context, &verified, jiff::Timestamp::now());
        Caller::new(verified, subject, context, self.witness.clone(), request_id)
    }

    /// What is known of a request by its socket and its signature; nothing of what its headers say of themselves.
    fn context(&self, now: jiff::Timestamp, claim: &Claim, connection: Option<Connection>) -> Context {
        let mut context = signed(now, claim.region(), claim.is_presigned());
        if let Some(connection) = connection {
            context.set("aws:SourceIp", address(connection.peer.ip()));
            context.set("aws:SecureTransport", connection.is_secure().to_string());
            context = context.with_all("s3:TlsVersion", connection.tls);
        }
        context
    }

    /// A function's request to S3, with its execution role. `verified` was checked against the credentials of its environment.
    /// `None`: the role cannot be taken on any more.
    pub fn function(
        &self,
        verified: Verified,
        presigned: bool,
        role_arn: &str,
        function: &str,
        id: &RequestId,
    ) -> Option<Caller> {
        let context = within(jiff::Timestamp::now(), &self.region, presigned)
            .with("lambda:SourceFunctionArn", function_arn(&self.region, &self.account, function));
        let subject = match &self.services {
            None => caller::Subject::root(&self.account),
            Some(services) => services.lambda(role_arn, function, &id.0).ok()?,
        };
        Some(self.caller(verified, subject, context, &id.0))
    }
}

/// The services of AWS that this server is, and the roles that they assume for what they do.
///
/// A role is assumed anew for each task of a job and each request of a function. Whoever watches is told when a decision is another than
/// the last one for the same role and the same job or function.
pub struct Services {
    identity: Identity,
    account: String,
    region: String,
    witness: Option<Arc<dyn Witness>>,
    told: Mutex<HashMap<Assumption, Decision>>,
}

/// A role, and the ARN of the job or function it is assumed for.
type Assumption = (String, String);

/// Last decisions that are kept: some 400 bytes each. Beyond it all are forgotten, and told once more: jobs that have ended stay
/// among them, and there may be thousands.
const TOLD_MAX: usize = 4_096;

impl Services {
    pub fn new(identity: Identity, account: &str, region: &str, witness: Option<Arc<dyn Witness>>) -> Arc<Self> {
        let (account, region) = (account.to_owned(), region.to_owned());
        Arc::new(Self { identity, account, region, witness, told: Mutex::default() })
    }

    /// What Lambda is with the execution role of a function. Source: Lambda spec 6.4.
    pub fn lambda(
        self: &Arc<Self>,
        role_arn: &str,
        function: &str,
        request_id: &str,
    ) -> Result<caller::Subject, AssumeError> {
        let Self { account, region, .. } = &**self;
        let source = function_arn(region, account, function);
        self.assume(LAMBDA_SERVICE, role_arn, function, source, request_id)
    }

    /// What S3 Batch Operations is with the role of a job. Source: S3 user guide, "Granting permissions for Batch Operations".
    fn batch(self: &Arc<Self>, role_arn: &str, job_id: &str) -> Result<caller::Subject, AssumeError> {
        let source = self.source_of_job(job_id);
        self.assume(BATCH_SERVICE, role_arn, &format!("s3-batch-operations_{job_id}"), source, job_id)
    }

    fn source_of_job(&self, job_id: &str) -> String {
        format!("arn:aws:s3:{}:{}:job/{job_id}", self.region, self.account)
    }

    /// `source`: for what, as an ARN, which the role's trust policy may ask for.
    fn assume(
        self: &Arc<Self>,
        service: &str,
        role_arn: &str,
        session_name: &str,
        source: String,
        request_id: &str,
    ) -> Result<caller::Subject, AssumeError> {
        let context = inside(times(jiff::Timestamp::now()), &self.region)
            .with("aws:SourceAccount", &*self.account)
            .with("aws:SourceArn", &*source);
        let watch = Arc::new(Watch { services: self.clone(), is_news: AtomicBool::new(false) });
        let service = Caller::service(service, &self.account, context, Some(watch.clone()), request_id);
        let assumed = self.identity.assume_for_service(&service, role_arn, session_name);
        if let Err(error) = &assumed
            && watch.is_news.load(Ordering::Relaxed)
        {
            tracing::warn!(request_id, source, %error, why = error.why(), "a role cannot be assumed");
        }
        assumed
    }
}

/// Of one look at a role.
struct Watch {
    services: Arc<Services>,
    /// Whether it was decided otherwise than before.
    is_news: AtomicBool,
}

impl Witness for Watch {
    fn decided(&self, who: &Principal, asked: &Asked, decision: &Decision, about: &About<'_>) {
        let source = about.context.get("aws:SourceArn").and_then(|source| source.first()).cloned().unwrap_or_default();
        let assumption = (asked.resource.clone(), source);
        {
            let mut told = self.services.told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.get(&assumption) == Some(decision) {
                return;
            }
            if told.len() >= TOLD_MAX {
                told.clear();
            }
            told.insert(assumption.clone(), decision.clone());
        }
        self.is_news.store(true, Ordering::Relaxed);
        if let Some(witness) = &self.services.witness {
            witness.decided(who, asked, decision, about);
        }
    }
}

/// Says in the log of the first start which statements of functions' policies let others do more than invoke: for earlier versions they
/// allowed nothing. Before [`first_roles`], which settles that there was a start.
pub async fn tell_what_allows_more(identity: &Identity, functions: &Functions) -> Result<(), Failure> {
    if identity.has_first_roles().await.because("cannot look whether this is the first start")? {
        return Ok(());
    }
    for statement in functions.statements_beyond_invoke() {
        let (sid, action, function) = (&statement.sid, &statement.action, &statement.resource);
        tracing::warn!(function, sid, action, principal = ?statement.principal, "a statement of a function's policy allows what it says from now on");
    }
    Ok(())
}

/// Makes the roles that there are without set-up, once in the life of a data directory and as long as nobody has made anything: those that
/// jobs and functions of an earlier version name, when roles were names, and may do what all might then; and [`ROLE`], last, so that a
/// start that breaks off begins anew.
pub async fn first_roles(identity: &Identity, account: &str, named: BTreeSet<String>) -> Result<(), Failure> {
    const CANNOT: &str = "cannot make the first role";
    if identity.has_first_roles().await.because(CANNOT)? {
        return Ok(());
    }
    let own = format!("arn:aws:iam::{account}:role/{ROLE}");
    // Earlier versions wrote down nothing: there it is as good a sign that there is such a role, or anything that somebody has made.
    if identity.role(&own).is_none() && identity.is_untouched_but_for(&named) {
        make_first_roles(identity, own, named).await?;
    }
    identity.settle_first_roles().await.because(CANNOT)
}

async fn make_first_roles(identity: &Identity, own: String, named: BTreeSet<String>) -> Result<(), Failure> {
    let trust = serde_json::json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow",
        "Principal": {"Service": [BATCH_SERVICE, LAMBDA_SERVICE]},
        "Action": "sts:AssumeRole",
    }]});
    let policy = serde_json::json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow",
        "Action": ["s3:*", "lambda:InvokeFunction"],
        "Resource": "*",
    }]});
    let (trust, policy) = (trust.to_string(), policy.to_string());
    let before = named.into_iter().filter(|role| *role != own);
    for role in before.chain([own.clone()]) {
        let made = identity.ensure_role(&role, &trust, "longshore", &policy).await;
        if role == own {
            made.because("cannot make the first role")?;
        } else {
            match made {
                Ok(()) => tracing::warn!(
                    role,
                    "a job or a function names this role, which was only a name until now: it was made, and may do all of S3 and invoke all functions"
                ),
                // Its name is none that IAM takes. Whatever names it is told so when it is used.
                Err(error) => tracing::warn!(role, %error, "a job or a function names this role, which cannot be made"),
            }
        }
    }
    Ok(())
}

/// Why a request is not let in, without a word of the request's own.
fn why(error: &AuthError) -> &'static str {
    match error {
        AuthError::UnknownKey(_) => "there is no such key",
        AuthError::Signature(_) => "the signature does not match",
        AuthError::Token => "the session token is missing, superfluous or another's",
        AuthError::TokenExpired => "the session has expired",
        AuthError::Expired { .. } => "the presigned URL has expired",
        AuthError::NotYetValid { .. } => "the presigned URL is not valid yet",
        AuthError::Skewed { .. } => "the request's time is too far from ours",
        AuthError::Service { .. } => "the signature is for another service",
        AuthError::Region { .. } => "the signature is for another region",
        AuthError::UnsignedPayload => "the body is unsigned, which is not allowed here",
        AuthError::Payload(_) => "the body is not the one that was signed",
        _ => "it is not signed as Signature Version 4 needs",
    }
}

/// Whether a text has the form of an access key's ID. A secret in its place has small letters.
fn is_key_id(text: &str) -> bool {
    (16..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
}

/// The error of a verification that cannot succeed.
fn unverified(verified: Result<Verified, AuthError>) -> AuthError {
    verified.err().unwrap_or(AuthError::Missing)
}

fn times(now: jiff::Timestamp) -> Context {
    Context::new().with("aws:CurrentTime", format!("{now:.0}")).with("aws:EpochTime", now.as_second().to_string())
}

/// Of a request that is signed for a region.
fn signed(now: jiff::Timestamp, region: &str, presigned: bool) -> Context {
    times(now)
        .with("aws:RequestedRegion", region)
        .with("s3:authType", if presigned { "REST-QUERY-STRING" } else { "REST-HEADER" })
        .with("s3:signatureversion", "AWS4-HMAC-SHA256")
}

/// With what a signature that holds says besides: how old it is, and what of the body it covers.
fn with_signature(context: Context, verified: &Verified, now: jiff::Timestamp) -> Context {
    let Some(signed_at) = verified.signed_at() else { return context };
    // A client's clock may be ahead of ours; one that is not signed yet there is not.
    let age = (now.as_millisecond() - signed_at.saturating_mul(1_000)).max(0);
    context
        .with("s3:signatureAge", age.to_string())
        .with_all("s3:x-amz-content-sha256", verified.payload().header_value())
}

/// Of what does not leave the machine: nobody can listen, and there is no address that it comes from. That of this machine would say that a
/// client on it asks, whom a policy may trust more than the code of a function; and on AWS, too, a service or a function has none of
/// the addresses of one's own network.
fn inside(context: Context, region: &str) -> Context {
    context
        .with("aws:RequestedRegion", region)
        .with("aws:SecureTransport", "true")
        .with("s3:TlsVersion", "1.3")
        .with_all::<String>("aws:SourceIp", [])
}

/// Of what is done inside the server with a role: its session begins with each look at the role, and so would a signature.
fn within(now: jiff::Timestamp, region: &str, presigned: bool) -> Context {
    inside(signed(now, region, presigned), region)
        .with("aws:TokenIssueTime", format!("{now:.0}"))
        .with("s3:signatureAge", "0")
        .with_all::<String>("s3:x-amz-content-sha256", [])
}

fn function_arn(region: &str, account: &str, function: &str) -> String {
    format!("arn:aws:lambda:{region}:{account}:function:{function}")
}

/// One that is written as IPv6 and is an IPv4 address is the latter: policies name that.
fn address(ip: IpAddr) -> String {
    ip.to_canonical().to_string()
}

/// The roles of jobs, as IAM has them.
pub struct JobRoles {
    pub identity: Identity,
    pub services: Arc<Services>,
    pub functions: Functions,
    /// Whether a function, as a job names it, is somebody else's.
    pub is_elsewhere: Arc<dyn Fn(&str) -> bool + Send + Sync>,
    pub account: String,
    pub region: String,
    pub witness: Option<Arc<dyn Witness>>,
}

impl JobRoles {
    /// For a function of somebody else, or one whose name does not read: by its whole ARN, and no policy of ours is its.
    fn asks_elsewhere(&self, function: &str) -> Asked {
        let arn = match FunctionName::parse(function) {
            Some(FunctionName { region, account, name, qualifier }) => {
                let (region, account) =
                    (region.unwrap_or(self.region.clone()), account.unwrap_or(self.account.clone()));
                let qualifier = qualifier.map(|qualifier| format!(":{qualifier}")).unwrap_or_default();
                format!("arn:aws:lambda:{region}:{account}:function:{name}{qualifier}")
            }
            None => function.to_owned(),
        };
        Asked::new("lambda:InvokeFunction", arn)
    }

    /// As the engine is given it.
    pub fn port(self) -> Arc<dyn ports::Roles> {
        Arc::new(Shared(Arc::new(self)))
    }
}

struct Shared(Arc<JobRoles>);

impl ports::Roles for Shared {
    fn session(&self, role_arn: &str, job_id: &str) -> Arc<dyn ports::Session> {
        Arc::new(JobSession {
            roles: self.0.clone(),
            role_arn: role_arn.to_owned(),
            job_id: job_id.to_owned(),
            invoking: Mutex::default(),
        })
    }
}

struct JobSession {
    roles: Arc<JobRoles>,
    role_arn: String,
    job_id: String,
    /// The last word on invoking a function, and of what state of things it is.
    invoking: Mutex<Option<Invoking>>,
}

struct Invoking {
    function: String,
    /// Of identities and of functions; and the second, for policies may ask for the time.
    at: (u64, u64, i64),
    word: Result<(), String>,
}

impl JobSession {
    fn assumed(&self) -> Result<caller::Subject, AssumeError> {
        self.roles.services.batch(&self.role_arn, &self.job_id)
    }

    /// What is told of a role that is not assumed: the job's reasons and report are read by who may not read the role.
    fn not_assumed(&self, error: &AssumeError) -> NotAssumed {
        let hint = error.why().map(|_| {
            let source = self.roles.services.source_of_job(&self.job_id);
            let name = self.role_arn.rsplit('/').next().unwrap_or_default();
            format!(
                "To see why: longshore iam explain {BATCH_SERVICE} sts:AssumeRole role/{name} --context \
                 aws:SourceArn={source}"
            )
        });
        NotAssumed { reason: error.to_string(), hint }
    }

    fn decide(&self, asked: &Asked) -> Result<(), String> {
        let subject = self.assumed().map_err(|error| {
            let NotAssumed { reason, hint } = self.not_assumed(&error);
            hint.map_or_else(|| reason.clone(), |hint| format!("{reason}. {hint}"))
        })?;
        let context = within(jiff::Timestamp::now(), &self.roles.region, false);
        let verified = Verified::in_process(&self.roles.account);
        let caller = Caller::new(verified, subject, context, self.roles.witness.clone(), &self.job_id);
        caller
            .may(asked)
            .map_err(|why| format!("The job's role may not {} {}: {}", why.action, why.reason(), why.resource))
    }

    /// Asked before each call: decided anew when anything has changed that could change it, and each second.
    fn may_invoke(&self, function: &str) -> Result<(), String> {
        let now = jiff::Timestamp::now().as_second();
        let at = (self.roles.identity.generation(), self.roles.functions.generation(), now);
        let mut invoking = self.invoking.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = &*invoking
            && last.at == at
            && last.function == function
        {
            return last.word.clone();
        }
        let here = || self.roles.functions.asks_invoke(function);
        let asked = if (self.roles.is_elsewhere)(function) { None } else { here() };
        let asked = asked.unwrap_or_else(|| self.roles.asks_elsewhere(function));
        let word = self.decide(&asked);
        *invoking = Some(Invoking { function: function.to_owned(), at, word: word.clone() });
        word
    }
}

impl ports::Session for JobSession {
    fn assume(&self) -> Result<(), NotAssumed> {
        self.assumed().map(drop).map_err(|error| self.not_assumed(&error))
    }

    fn may(&self, access: ports::Access<'_>) -> Result<(), String> {
        match access {
            ports::Access::GetObject { bucket, key, version_id, tags } => {
                self.decide(&tagged(s3_actions::on_version(GET_OBJECT, bucket, key, version_id), tags))
            }
            ports::Access::PutObject { bucket, key, encryption, tags } => {
                self.decide(&tagged(written(bucket, key, encryption), tags))
            }
            ports::Access::List { bucket, prefix, versions } => {
                let action = if versions { "s3:ListBucketVersions" } else { "s3:ListBucket" };
                self.decide(&listed(s3_actions::on_bucket(action, bucket), prefix))
            }
            ports::Access::Invoke { function } => self.may_invoke(function),
        }
    }
}

/// A question about an object that has these tags; `None` where they are not known.
fn tagged(mut asked: Asked, tags: Option<&[(String, String)]>) -> Asked {
    if let Some(tags) = tags {
        let tags = tags.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        asked.context = asked.context.with_tags("s3:ExistingObjectTag/", tags);
    }
    asked
}

/// A report or a generated manifest: it has no tags, and of all that an object may be given besides, an encryption at most.
fn written(bucket: &str, key: &str, encryption: &ports::Encryption) -> Asked {
    let encryption = match encryption {
        ports::Encryption::Unasked => None,
        ports::Encryption::SseS3 => Some("AES256"),
        ports::Encryption::SseKms { .. } => Some("aws:kms"),
    };
    [
        ("s3:x-amz-storage-class", None),
        ("s3:x-amz-acl", None),
        ("s3:x-amz-copy-source", None),
        ("s3:x-amz-metadata-directive", None),
        ("s3:x-amz-server-side-encryption", encryption),
    ]
    .into_iter()
    .fold(s3_actions::with_request_tags(s3_actions::on_object(PUT_OBJECT, bucket, key), []), |asked, (name, value)| {
        s3_actions::with_key(asked, name, value)
    })
}

/// A listing as a job has it.
fn listed(asked: Asked, prefix: &str) -> Asked {
    let (prefix, page) = (Some(prefix).filter(|prefix| !prefix.is_empty()), PAGE_OBJECTS.to_string());
    [("s3:prefix", prefix), ("s3:delimiter", None), ("s3:max-keys", Some(&*page))]
        .into_iter()
        .fold(asked, |asked, (name, value)| s3_actions::with_key(asked, name, value))
}

#[cfg(test)]
mod tests {
    use longshore_store::{Fatal, Records};

    use super::*;

    const ACCOUNT: &str = "111111111111";

    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    impl Witness for Heard {
        fn decided(&self, who: &Principal, asked: &Asked, decision: &Decision, about: &About<'_>) {
            let may = if decision.allowed { "may" } else { "may not" };
            let told = format!("{} {}: {} {may} {}", about.request_id, who.arn, asked.resource, asked.action);
            self.0.lock().unwrap().push(told);
        }

        fn refused(&self, refused: &caller::Refused<'_>) {
            let (id, function) = (refused.access_key_id.unwrap_or("-"), refused.function_arn.unwrap_or("-"));
            self.0.lock().unwrap().push(format!("{id} {function}: {}", refused.why));
        }
    }

    impl Heard {
        fn take(&self) -> Vec<String> {
            std::mem::take(&mut self.0.lock().unwrap())
        }
    }

    fn identity(dir: &std::path::Path) -> Identity {
        let records = Records::open(&dir.join("records.db"), &[longshore_identity::SCHEMA], Fatal::new()).unwrap();
        let settings = longshore_identity::Settings { account: ACCOUNT.into(), region: "us-east-1".into() };
        Identity::open(records, dir, settings).unwrap()
    }

    #[tokio::test]
    async fn what_a_service_may_is_told_once_for_each_job_and_each_change() {
        let dir = tempfile::tempdir().unwrap();
        let identity = identity(dir.path());
        let heard = Arc::new(Heard::default());
        let services = Services::new(identity.clone(), ACCOUNT, "us-east-1", Some(heard.clone()));
        let role = format!("arn:aws:iam::{ACCOUNT}:role/r");
        let told = |job: &str, may: &str| format!("{job} {BATCH_SERVICE}: {role} {may} sts:AssumeRole");

        // There is no such role yet, and then there is one that trusts the service for one job alone.
        for _ in 0..2 {
            assert!(matches!(services.batch(&role, "1"), Err(AssumeError::NoSuchRole(_))));
        }
        assert_eq!(heard.take(), [told("1", "may not")]);
        let trust = serde_json::json!({"Version": "2012-10-17", "Statement": {
            "Effect": "Allow", "Principal": {"Service": BATCH_SERVICE}, "Action": "sts:AssumeRole",
            "Condition": {"ArnLike": {"aws:SourceArn": format!("arn:aws:s3:*:{ACCOUNT}:job/1")}},
        }});
        let policy = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"s3:*","Resource":"*"}}"#;
        identity.ensure_role(&role, &trust.to_string(), "p", policy).await.unwrap();
        for _ in 0..3 {
            assert!(services.batch(&role, "1").is_ok());
            let refused = services.batch(&role, "2").unwrap_err();
            let why = format!(
                "its statement 1 asks that aws:SourceArn is like arn:aws:s3:*:{ACCOUNT}:job/1, and it is \
                 arn:aws:s3:us-east-1:{ACCOUNT}:job/2"
            );
            assert_eq!(refused.to_string(), format!("{role} does not trust {BATCH_SERVICE}"));
            assert_eq!(refused.why(), Some(&*why), "for the log alone");
        }
        assert_eq!(heard.take(), [told("1", "may"), told("2", "may not")]);
        assert!(services.lambda(&role, "f", "request").is_err());
        let function = format!("request {LAMBDA_SERVICE}: {role} may not sts:AssumeRole");
        assert_eq!(heard.take(), [function], "a function's is another decision than a job's");
    }

    #[test]
    fn a_function_with_another_key_is_named_and_nothing_untrue_is_said_of_that_key() {
        let dir = tempfile::tempdir().unwrap();
        let heard = Arc::new(Heard::default());
        let (root, secret) = ("AKIAIOSFODNN7EXAMPLE".to_owned(), "secret".to_owned());
        let callers = Callers {
            root: Credentials { access_key_id: root.clone(), secret_access_key: secret },
            account: ACCOUNT.into(),
            region: "us-east-1".into(),
            identity: Some(identity(dir.path())),
            services: None,
            witness: Some(heard.clone()),
            unsigned_payload: false,
            signing_keys: Arc::default(),
        };
        let query = format!(
            "/b/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={root}%2F20260101%2Fus-east-1%2Fs3%2Faws4_request\
             &X-Amz-Date=20260101T000000Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature={}",
            "0".repeat(64)
        );
        let headers = http::HeaderMap::from_iter([(http::header::HOST, http::HeaderValue::from_static("s3"))]);
        let claim = Claim::parse(&http::Method::GET, &query, &headers).unwrap();
        let id = RequestId("id".into());
        let function = format!("arn:aws:lambda:us-east-1:{ACCOUNT}:function:f");
        // The key is root's, and in order: only this function may not use it.
        callers.function_refused(Some(&claim), "f", &AuthError::UnknownKey(root.clone()), &id);
        assert_eq!(heard.take(), [format!("{root} {function}: not the key of the function's environment")]);
        callers.function_refused(Some(&claim), "f", &AuthError::Token, &id);
        assert_eq!(heard.take(), [format!("{root} {function}: {}", why(&AuthError::Token))]);
        callers.function_refused(None, "f", &AuthError::Missing, &id);
        assert!(heard.take().is_empty());
    }

    /// What root asks of IAM.
    async fn root(identity: &Identity, form: &str) {
        let answer = identity
            .serve(longshore_wire::Request {
                method: http::Method::POST,
                path: "/".into(),
                query: Default::default(),
                headers: Default::default(),
                body: format!("{form}&Version=2010-05-08").into(),
                caller: Caller::in_process(ACCOUNT),
                request_id: RequestId("id".into()),
            })
            .await;
        assert_eq!(answer.status, http::StatusCode::OK, "{form}: {:?}", answer.body);
    }

    /// No function here has its code in S3.
    struct NoCode;

    #[async_trait::async_trait]
    impl longshore_functions::CodeSource for NoCode {
        async fn fetch(
            &self,
            _: &str,
            _: &str,
            _: Option<&str>,
            _: usize,
        ) -> Result<bytes::Bytes, longshore_functions::SourceError> {
            Err(longshore_functions::SourceError::TooLarge)
        }
    }

    fn functions(dir: &std::path::Path) -> Functions {
        let records = Records::open(&dir.join("functions.db"), &[longshore_functions::SCHEMA], Fatal::new()).unwrap();
        let settings = longshore_functions::Settings::new("us-east-1", ACCOUNT);
        let code = dir.join("code");
        std::fs::create_dir(&code).unwrap();
        Functions::without_host(records, Arc::new(NoCode), &code, settings).unwrap()
    }

    /// What root asks of Lambda.
    async fn posted(functions: &Functions, path: &str, body: serde_json::Value) {
        let answer = functions
            .serve(longshore_wire::Request {
                method: http::Method::POST,
                path: path.into(),
                query: Default::default(),
                headers: Default::default(),
                body: body.to_string().into(),
                caller: Caller::in_process(ACCOUNT),
                request_id: RequestId("id".into()),
            })
            .await;
        assert_eq!(answer.status, http::StatusCode::CREATED, "{path}: {:?}", answer.body);
    }

    #[tokio::test]
    async fn a_function_elsewhere_is_asked_for_by_its_whole_arn_and_no_policy_of_ours_is_its() {
        use base64::Engine;
        let dir = tempfile::tempdir().unwrap();
        let (identity, functions) = (identity(dir.path()), functions(dir.path()));
        let role = format!("arn:aws:iam::{ACCOUNT}:role/r");
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        zip.start_file("h.py", zip::write::SimpleFileOptions::default()).unwrap();
        let package = base64::engine::general_purpose::STANDARD.encode(zip.finish().unwrap().into_inner());
        let create = serde_json::json!({"FunctionName": "f", "Runtime": "python3.12", "Handler": "h.h", "Role": role,
            "Code": {"ZipFile": package}});
        posted(&functions, "/2015-03-31/functions", create).await;
        let permission = serde_json::json!({"StatementId": "s", "Action": "lambda:InvokeFunction", "Principal": role});
        posted(&functions, "/2015-03-31/functions/f/policy", permission).await;

        let trust = serde_json::json!({"Version": "2012-10-17", "Statement": {
            "Effect": "Allow", "Principal": {"Service": BATCH_SERVICE}, "Action": "sts:AssumeRole",
        }});
        let statement = |effect: &str, resource: &str| serde_json::json!({"Effect": effect, "Action": "lambda:InvokeFunction", "Resource": resource});
        let nothing = statement("Allow", "arn:aws:lambda:us-east-1:333333333333:function:f");
        let first = serde_json::json!({"Version": "2012-10-17", "Statement": [nothing]}).to_string();
        identity.ensure_role(&role, &trust.to_string(), "p", &first).await.unwrap();
        let may = |is_elsewhere: bool, function: &str| {
            let roles = JobRoles {
                identity: identity.clone(),
                services: Services::new(identity.clone(), ACCOUNT, "us-east-1", None),
                functions: functions.clone(),
                is_elsewhere: Arc::new(move |_| is_elsewhere),
                account: ACCOUNT.into(),
                region: "us-east-1".into(),
                witness: None,
            };
            roles.port().session(&role, "job").may(ports::Access::Invoke { function })
        };
        // One of that name here lets the role in, which is no word of the one elsewhere.
        assert_eq!(may(false, "f"), Ok(()));
        let refused = may(true, "f").unwrap_err();
        assert!(refused.ends_with(&format!("arn:aws:lambda:us-east-1:{ACCOUNT}:function:f")), "{refused}");

        let other = "arn:aws:lambda:us-east-1:222222222222:function:f";
        let spelled = ["222222222222:f", "222222222222:function:f", other];
        for (statements, f, f_prod) in [
            (vec![statement("Allow", other)], true, false),
            (vec![statement("Allow", &format!("{other}:prod"))], false, true),
            (vec![statement("Allow", &format!("{other}*"))], true, true),
            (vec![statement("Allow", "*"), statement("Deny", other)], false, true),
            (vec![statement("Allow", "arn:aws:lambda:us-east-1:222222222222:function:g")], false, false),
            (vec![statement("Allow", &format!("arn:aws:lambda:us-east-1:{ACCOUNT}:function:f*"))], false, false),
        ] {
            let policy = serde_json::json!({"Version": "2012-10-17", "Statement": statements}).to_string();
            let document: String = policy.bytes().map(|byte| format!("%{byte:02X}")).collect();
            root(&identity, &format!("Action=PutRolePolicy&RoleName=r&PolicyName=p&PolicyDocument={document}")).await;
            for spelled in spelled {
                assert_eq!(may(true, spelled).is_ok(), f, "{spelled} with {policy}");
                assert_eq!(may(true, &format!("{spelled}:prod")).is_ok(), f_prod, "{spelled}:prod with {policy}");
            }
        }
    }

    /// A trust policy may ask for which function, and whose, Lambda takes a role on; and the role's policies for which function it asks.
    #[tokio::test]
    async fn a_functions_role_may_be_kept_to_one_function() {
        let dir = tempfile::tempdir().unwrap();
        let identity = identity(dir.path());
        let function = format!("arn:aws:lambda:us-east-1:{ACCOUNT}:function:f");
        let services = Services::new(identity.clone(), ACCOUNT, "us-east-1", None);
        let reads = serde_json::json!({"Version": "2012-10-17", "Statement": {
            "Effect": "Allow", "Action": "s3:GetObject", "Resource": "*",
            "Condition": {"ArnEquals": {"lambda:SourceFunctionArn": function}},
        }});
        let mut tried = 0;
        for (key, value, holds) in [
            ("aws:SourceArn", &*function, true),
            ("aws:SourceArn", "arn:aws:lambda:us-east-1:111111111111:function:g", false),
            ("aws:SourceAccount", ACCOUNT, true),
            ("aws:SourceAccount", "222222222222", false),
        ] {
            for (effect, assumed) in [("Allow", holds), ("Deny", !holds)] {
                tried += 1;
                let on = |effect: &str| {
                    serde_json::json!({
                        "Effect": effect, "Principal": {"Service": LAMBDA_SERVICE}, "Action": "sts:AssumeRole"
                    })
                };
                let mut conditioned = on(effect);
                conditioned["Condition"] = serde_json::json!({"StringEquals": {key: value}});
                let mut statements = vec![conditioned];
                statements.extend((effect == "Deny").then(|| on("Allow")));
                let trust = serde_json::json!({"Version": "2012-10-17", "Statement": statements}).to_string();
                let role = format!("arn:aws:iam::{ACCOUNT}:role/r{tried}");
                identity.ensure_role(&role, &trust, "p", &reads.to_string()).await.unwrap();
                assert_eq!(services.lambda(&role, "f", "id").is_ok(), assumed, "{trust}");
            }
        }
        let trust = serde_json::json!({"Version": "2012-10-17", "Statement": {
            "Effect": "Allow", "Principal": {"Service": LAMBDA_SERVICE}, "Action": "sts:AssumeRole",
        }});
        let role = format!("arn:aws:iam::{ACCOUNT}:role/kept");
        identity.ensure_role(&role, &trust.to_string(), "p", &reads.to_string()).await.unwrap();
        let callers = Callers {
            root: Credentials { access_key_id: "AKIAIOSFODNN7EXAMPLE".into(), secret_access_key: "secret".into() },
            account: ACCOUNT.into(),
            region: "us-east-1".into(),
            identity: Some(identity),
            services: Some(services),
            witness: None,
            unsigned_payload: false,
            signing_keys: Arc::default(),
        };
        let asked = s3_actions::on_object(GET_OBJECT.0, "b", "k");
        for (name, may) in [("f", true), ("g", false)] {
            let verified = Verified::in_process(ACCOUNT);
            let caller = callers.function(verified, false, &role, name, &RequestId("id".into())).unwrap();
            assert_eq!(caller.may(&asked).is_ok(), may, "{name}");
        }
    }

    #[test]
    fn what_is_done_inside_has_no_address_and_is_otherwise_as_a_clients_request() {
        let context = within(jiff::Timestamp::UNIX_EPOCH, "us-east-1", true);
        for (key, values) in [
            ("aws:SourceIp", &[][..]),
            ("aws:SecureTransport", &["true"]),
            ("aws:RequestedRegion", &["us-east-1"]),
            ("aws:CurrentTime", &["1970-01-01T00:00:00Z"]),
            ("aws:TokenIssueTime", &["1970-01-01T00:00:00Z"]),
            ("s3:authType", &["REST-QUERY-STRING"]),
            ("s3:TlsVersion", &["1.3"]),
            ("s3:signatureAge", &["0"]),
            ("s3:x-amz-content-sha256", &[]),
            ("s3:signatureversion", &["AWS4-HMAC-SHA256"]),
        ] {
            assert_eq!(
                context.get(key),
                Some(values.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>().as_slice()),
                "{key}"
            );
        }
    }

    #[tokio::test]
    async fn a_first_role_that_was_taken_away_does_not_come_back() {
        let arn = |name: &str| format!("arn:aws:iam::{ACCOUNT}:role/{name}");
        let named = || BTreeSet::from([arn("older"), arn("jobs")]);
        let dir = tempfile::tempdir().unwrap();
        let identity = identity(dir.path());
        first_roles(&identity, ACCOUNT, named()).await.unwrap();
        assert!([ROLE, "older", "jobs"].iter().all(|role| identity.role(&arn(role)).is_some()));
        for role in [ROLE, "older"] {
            root(&identity, &format!("Action=DeleteRolePolicy&RoleName={role}&PolicyName=longshore")).await;
            root(&identity, &format!("Action=DeleteRole&RoleName={role}")).await;
        }
        // Those that are left are named by jobs, and nobody has made a user or a policy: so it might be a new data directory.
        first_roles(&identity, ACCOUNT, named()).await.unwrap();
        let there = [ROLE, "older", "jobs"].map(|role| identity.role(&arn(role)).is_some());
        assert_eq!(there, [false, false, true]);
    }

    #[tokio::test]
    async fn what_an_earlier_version_left_is_taken_as_it_is() {
        for (form, made) in [("Action=CreateUser&UserName=u", false), ("Action=ListUsers", true)] {
            let dir = tempfile::tempdir().unwrap();
            let identity = identity(dir.path());
            root(&identity, form).await;
            first_roles(&identity, ACCOUNT, BTreeSet::new()).await.unwrap();
            assert_eq!(identity.role(&format!("arn:aws:iam::{ACCOUNT}:role/{ROLE}")).is_some(), made, "{form}");
            assert!(identity.has_first_roles().await.unwrap(), "{form}");
        }
    }

    #[test]
    fn what_stands_where_a_keys_id_should_is_not_written_down_if_it_may_be_a_secret() {
        for (text, wanted) in [
            ("AKIAIOSFODNN7EXAMPLE", true),
            ("LS0123456789ABCDEFGH", true),
            ("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", false),
            ("wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY00", false),
            ("SHORT", false),
            ("AKIAIOSFODNN7EXAMPL\u{e9}", false),
        ] {
            assert_eq!(is_key_id(text), wanted, "{text}");
        }
    }
}
