//! The engine's two doors, opened for one job at a time and with what its role allows.
//!
//! Nothing else in the engine holds the ports, so that nothing is read, written or called for a job that its role may not. The role is
//! asked anew each time: what is taken from it during a job is gone with the next call. Source: S3 Batch spec 9.3.

use std::sync::Arc;

use bytes::Bytes;
use longshore_core::histogram::Histogram;
use longshore_core::invocation::Reply;
use longshore_core::start::Start;

use crate::ledger::JobRow;
use crate::ports::{
    Access, Encryption, Invoker, ListPage, ListQuery, NotAssumed, ObjectBody, ObjectError, ObjectFacts, Objects,
    PutBody, PutTerms, Roles, Session,
};

/// The ports, for nobody yet.
#[derive(Clone)]
pub struct Doors {
    objects: Arc<dyn Objects>,
    invoker: Arc<dyn Invoker>,
    roles: Arc<dyn Roles>,
}

impl Doors {
    pub fn new(objects: Arc<dyn Objects>, invoker: Arc<dyn Invoker>, roles: Arc<dyn Roles>) -> Self {
        Self { objects, invoker, roles }
    }

    fn session(&self, job: &JobRow) -> Arc<dyn Session> {
        self.roles.session(&job.request.role_arn, &job.id)
    }

    pub fn objects_of(&self, job: &JobRow) -> JobObjects {
        JobObjects { objects: Arc::clone(&self.objects), session: self.session(job) }
    }

    pub fn invoker_of(&self, job: &JobRow) -> JobInvoker {
        JobInvoker { invoker: Arc::clone(&self.invoker), session: self.session(job) }
    }

    // What nobody's rights have a say in.

    pub fn slots(&self, function: &str) -> Option<u32> {
        self.invoker.slots(function)
    }

    pub fn prepare(&self, function: &str, wanted: u32) {
        self.invoker.prepare(function, wanted);
    }

    pub fn thread_of(&self, function: &str) -> Option<tokio::runtime::Handle> {
        self.invoker.thread_of(function)
    }

    pub fn cold_starts(&self, function: &str) -> Option<Histogram> {
        self.invoker.cold_starts(function)
    }
}

/// Objects as a job's role reaches them; each method as [`Objects`]' own. What the role may not is `AccessDenied`, and is not tried.
#[derive(Clone)]
pub struct JobObjects {
    objects: Arc<dyn Objects>,
    session: Arc<dyn Session>,
}

impl JobObjects {
    /// Whether the role can be taken on at all.
    pub fn assume(&self) -> Result<(), NotAssumed> {
        self.session.assume()
    }

    /// Whether the role may do this now; it is asked again when it is done.
    pub fn may(&self, access: Access<'_>) -> Result<(), ObjectError> {
        let denied = |message| ObjectError { code: "AccessDenied".into(), message, passing: false };
        self.session.may(access).map_err(denied)
    }

    pub async fn get(&self, bucket: &str, key: &str, version_id: Option<&str>) -> Result<ObjectBody, ObjectError> {
        self.may(Access::GetObject { bucket, key, version_id })?;
        self.objects.get(bucket, key, version_id).await
    }

    pub async fn put(
        &self,
        bucket: &str,
        key: &str,
        terms: PutTerms<'_>,
        body: PutBody,
    ) -> Result<String, ObjectError> {
        self.may(Access::PutObject { bucket, key })?;
        self.objects.put(bucket, key, terms, body).await
    }

    pub async fn list(&self, bucket: &str, query: &ListQuery) -> Result<ListPage, ObjectError> {
        self.may(Access::List { bucket, prefix: &query.prefix, versions: query.versions })?;
        self.objects.list(bucket, query).await
    }

    pub async fn facts(&self, bucket: &str, key: &str, version_id: Option<&str>) -> Result<ObjectFacts, ObjectError> {
        self.may(Access::GetObject { bucket, key, version_id })?;
        self.objects.facts(bucket, key, version_id).await
    }

    /// No right is only for this: ask first for what the bucket is needed for, or anybody's job would tell which buckets there are.
    pub async fn check_owner(&self, bucket: &str, account: &str) -> Result<(), ObjectError> {
        self.objects.check_owner(bucket, account).await
    }

    pub fn report_encryption(&self, bucket: &str) -> Encryption {
        self.objects.report_encryption(bucket)
    }
}

/// Functions as a job's role reaches them.
#[derive(Clone)]
pub struct JobInvoker {
    invoker: Arc<dyn Invoker>,
    session: Arc<dyn Session>,
}

impl JobInvoker {
    /// As [`Invoker::invoke_unless_called_off`]; a role that may not invoke the function has Lambda's refusal for an answer.
    pub async fn invoke_unless_called_off(&self, function: &str, payload: Bytes, start: &Start) -> Reply {
        if let Err(message) = self.session.may(Access::Invoke { function }) {
            return Reply::Refused { status: 403, code: "AccessDeniedException".into(), message };
        }
        self.invoker.invoke_unless_called_off(function, payload, start).await
    }
}
