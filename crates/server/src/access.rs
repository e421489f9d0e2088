//! Who calls, and with which rights: from a verified signature, and for work that the server does for somebody else.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use longshore_core::policy::Context;
use longshore_functions::Functions;
use longshore_identity::{AssumeError, Identity};
use longshore_jobs::ports;
use longshore_wire::arn::FunctionName;
use longshore_wire::caller::{self, Witness};
use longshore_wire::s3_actions::{self, GET_OBJECT, PUT_OBJECT};
use longshore_wire::sigv4::{AuthError, Claim, Key, KeyCache, Rules, Verified};
use longshore_wire::{Asked, Caller, RequestId};

use crate::credentials::Credentials;
use crate::failure::{Because, Failure};
use crate::listener::Connection;

/// The service that assumes the roles of jobs, and that of functions. Their trust policies name them.
pub const BATCH_SERVICE: &str = "batchoperations.s3.amazonaws.com";
pub const LAMBDA_SERVICE: &str = "lambda.amazonaws.com";
/// The role that the first start makes, and that the commands name where no role is named.
pub const ROLE: &str = "longshore-batch";
/// The region that clients of IAM sign for, wherever they are.
const IAM_REGION: &str = "us-east-1";

/// Looks up access keys and makes callers. Cheap to clone.
#[derive(Clone)]
pub struct Access {
    pub root: Credentials,
    pub account: String,
    pub region: String,
    /// `None`: `iam = "off"`, where the root's key is the only one, and roles are names.
    pub identity: Option<Identity>,
    pub witness: Option<Arc<dyn Witness>>,
    pub unsigned_payload: bool,
    pub signing_keys: Arc<KeyCache>,
}

impl Access {
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

    /// As [`Access::verify`], by rules of the caller's own.
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
        // Whoever says nothing of who they are is no caller.
        let (Some(witness), false) = (&self.witness, matches!(error, AuthError::Missing)) else { return };
        let why = match (error, claim) {
            (AuthError::UnknownKey(_), Some(claim)) => match &self.identity {
                Some(identity) => identity.why_unknown(claim.access_key_id(), claim.security_token()),
                None => "there is no such key",
            },
            _ => why(error),
        };
        let access_key_id = claim.map(Claim::access_key_id);
        let source_ip = connection.map(|connection| address(connection.peer.ip()));
        witness.refused(&caller::Refused {
            request_id: &id.0,
            access_key_id: access_key_id.filter(|id| *id == self.root.access_key_id || is_key_id(id)),
            source_ip: source_ip.as_deref(),
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
        let secure = connection.is_some_and(|connection| connection.secure);
        let rules = Rules { unsigned_payload: rules.unsigned_payload || secure, ..*rules };
        let verify = |key: &Key<'_>| claim.verify(key, &rules, now.as_second(), body_sha256);
        let context = self.context(now, claim, connection);
        if claim.access_key_id() == self.root.access_key_id {
            let verified = verify(&Key::lasting(&self.root.secret_access_key, &self.account))?;
            return Ok(self.caller(verified, caller::Identity::root(&self.account), context, &id.0));
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
        Ok(self.caller(verified, known.identity, context.or(&known.context), &id.0))
    }

    fn caller(&self, verified: Verified, identity: caller::Identity, context: Context, request_id: &str) -> Caller {
        Caller::new(verified, identity, context, self.witness.clone(), request_id)
    }

    /// What is known of a request by its socket and its signature; nothing of what its headers say of themselves.
    fn context(&self, now: jiff::Timestamp, claim: &Claim, connection: Option<Connection>) -> Context {
        let mut context = times(now)
            .with("aws:RequestedRegion", claim.region())
            .with("s3:authType", if claim.is_presigned() { "REST-QUERY-STRING" } else { "REST-HEADER" })
            .with("s3:signatureversion", "AWS4-HMAC-SHA256");
        if let Some(connection) = connection {
            context.set("aws:SourceIp", address(connection.peer.ip()));
            context.set("aws:SecureTransport", connection.secure.to_string());
        }
        context
    }

    /// A function's request to S3, with its execution role. `verified` was checked against the credentials of its environment.
    /// `None`: the role cannot be taken on any more.
    pub fn function(&self, verified: Verified, role_arn: &str, function: &str, id: &RequestId) -> Option<Caller> {
        let context = within(jiff::Timestamp::now());
        let identity = match &self.identity {
            None => caller::Identity::root(&self.account),
            Some(identity) => match lambda_identity(identity, role_arn, function, &self.account, &self.region) {
                Ok(identity) => identity,
                Err(error) => {
                    tracing::info!(function, role = role_arn, %error, "a function's role cannot be assumed");
                    return None;
                }
            },
        };
        Some(self.caller(verified, identity, context, &id.0))
    }
}

/// What Lambda is with the execution role of a function. Source: Lambda spec 6.4.
pub fn lambda_identity(
    identity: &Identity,
    role_arn: &str,
    function: &str,
    account: &str,
    region: &str,
) -> Result<caller::Identity, AssumeError> {
    let source = times(jiff::Timestamp::now())
        .with("aws:SourceAccount", account)
        .with("aws:SourceArn", format!("arn:aws:lambda:{region}:{account}:function:{function}"));
    identity.assume_for_service(role_arn, LAMBDA_SERVICE, function, &source)
}

/// Makes the roles that there are without set-up, as long as nobody has made anything: those that jobs and functions of an earlier version
/// name, when roles were names, and may do what all might then; and [`ROLE`], last, so that a start that breaks off begins anew.
pub async fn first_roles(identity: &Identity, account: &str, named: BTreeSet<String>) -> Result<(), Failure> {
    let own = format!("arn:aws:iam::{account}:role/{ROLE}");
    if identity.role(&own).is_some() || !identity.is_untouched_but_for(&named) {
        return Ok(());
    }
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

/// Of what is done inside the server for a role: its session begins with each look at the role, and nothing leaves the machine.
fn within(now: jiff::Timestamp) -> Context {
    times(now).with("aws:SecureTransport", "true").with("aws:TokenIssueTime", format!("{now:.0}"))
}

/// One that is written as IPv6 and is an IPv4 address is the latter: policies name that.
fn address(ip: IpAddr) -> String {
    ip.to_canonical().to_string()
}

/// The roles of jobs, as IAM has them.
pub struct JobRoles {
    pub identity: Identity,
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
    /// What the role's trust policy may ask for. Source: S3 user guide, "Granting permissions for Batch Operations".
    fn assumed(&self) -> Result<caller::Identity, AssumeError> {
        let JobRoles { account, region, .. } = &*self.roles;
        let source = times(jiff::Timestamp::now())
            .with("aws:SourceAccount", &**account)
            .with("aws:SourceArn", format!("arn:aws:s3:{region}:{account}:job/{}", self.job_id));
        let name = format!("s3-batch-operations_{}", self.job_id);
        self.roles.identity.assume_for_service(&self.role_arn, BATCH_SERVICE, &name, &source)
    }

    fn decide(&self, asked: &Asked) -> Result<(), String> {
        let identity = self.assumed().map_err(|error| error.to_string())?;
        let context = within(jiff::Timestamp::now());
        let verified = Verified::in_process(&self.roles.account);
        let caller = Caller::new(verified, identity, context, self.roles.witness.clone(), &self.job_id);
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
    fn assume(&self) -> Result<(), String> {
        self.assumed().map(drop).map_err(|error| error.to_string())
    }

    fn may(&self, access: ports::Access<'_>) -> Result<(), String> {
        match access {
            ports::Access::GetObject { bucket, key, version_id } => {
                self.decide(&s3_actions::on_version(GET_OBJECT, bucket, key, version_id))
            }
            ports::Access::PutObject { bucket, key } => self.decide(&s3_actions::on_object(PUT_OBJECT, bucket, key)),
            ports::Access::List { bucket, prefix, versions } => {
                let action = if versions { "s3:ListBucketVersions" } else { "s3:ListBucket" };
                self.decide(&s3_actions::on_bucket(action, bucket).with("s3:prefix", prefix))
            }
            ports::Access::Invoke { function } => self.may_invoke(function),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
