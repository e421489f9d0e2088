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
    PutBody, PutTerms, Roles, Session, Tags,
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
        let may = |tags: &Option<Tags>| self.may(Access::GetObject { bucket, key, version_id, tags: tags.as_deref() });
        let tags = self.objects.tags(bucket, key, version_id).await?;
        may(&tags)?;
        let opened = self.objects.get(bucket, key, version_id).await?;
        // Another object may have taken its place since.
        if opened.tags != tags {
            may(&opened.tags)?;
        }
        Ok(opened)
    }

    /// Whether the role may write this now; it is asked again when it is done.
    pub async fn may_put(&self, bucket: &str, key: &str, encryption: &Encryption) -> Result<(), ObjectError> {
        let tags = self.objects.tags(bucket, key, None).await?;
        self.may(Access::PutObject { bucket, key, encryption, tags: tags.as_deref() })
    }

    pub async fn put(
        &self,
        bucket: &str,
        key: &str,
        terms: PutTerms<'_>,
        body: PutBody,
    ) -> Result<String, ObjectError> {
        self.may_put(bucket, key, terms.encryption).await?;
        self.objects.put(bucket, key, terms, body).await
    }

    pub async fn list(&self, bucket: &str, query: &ListQuery) -> Result<ListPage, ObjectError> {
        self.may(Access::List { bucket, prefix: &query.prefix, versions: query.versions })?;
        self.objects.list(bucket, query).await
    }

    pub async fn facts(&self, bucket: &str, key: &str, version_id: Option<&str>) -> Result<ObjectFacts, ObjectError> {
        let tags = self.objects.tags(bucket, key, version_id).await?;
        self.may(Access::GetObject { bucket, key, version_id, tags: tags.as_deref() })?;
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A store whose object has these tags when it is asked for them, and those when it is opened.
    struct Changing(Option<Tags>, Option<Tags>);

    #[async_trait::async_trait]
    impl Objects for Changing {
        async fn get(&self, _: &str, _: &str, _: Option<&str>) -> Result<ObjectBody, ObjectError> {
            let stream = Box::pin(futures::stream::empty());
            Ok(ObjectBody { etag: "e".into(), size: Some(0), tags: self.1.clone(), stream })
        }

        async fn put(&self, _: &str, _: &str, _: PutTerms<'_>, _: PutBody) -> Result<String, ObjectError> {
            Ok("e".into())
        }

        async fn list(&self, _: &str, _: &ListQuery) -> Result<ListPage, ObjectError> {
            Ok(ListPage::default())
        }

        async fn facts(&self, _: &str, _: &str, _: Option<&str>) -> Result<ObjectFacts, ObjectError> {
            Ok(ObjectFacts::default())
        }

        async fn check_owner(&self, _: &str, _: &str) -> Result<(), ObjectError> {
            Ok(())
        }

        async fn tags(&self, _: &str, _: &str, _: Option<&str>) -> Result<Option<Tags>, ObjectError> {
            Ok(self.0.clone())
        }
    }

    /// May do all but with what is secret. Keeps what it was asked.
    #[derive(Default)]
    struct Asked(Mutex<Vec<String>>);

    impl Session for Asked {
        fn assume(&self) -> Result<(), NotAssumed> {
            Ok(())
        }

        fn may(&self, access: Access<'_>) -> Result<(), String> {
            let told = format!("{access:?}");
            let secret = told.contains("secret");
            self.0.lock().unwrap().push(told);
            if secret { Err("secret".into()) } else { Ok(()) }
        }
    }

    fn tags(names: &[&str]) -> Option<Tags> {
        Some(names.iter().map(|name| ((*name).to_owned(), "yes".to_owned())).collect())
    }

    #[tokio::test]
    async fn what_is_opened_is_judged_by_its_own_tags() {
        for (before, then, asked, allowed) in [
            (tags(&[]), tags(&[]), 1, true),
            (tags(&["open"]), tags(&["open"]), 1, true),
            (tags(&["open"]), tags(&[]), 2, true),
            (tags(&["open"]), tags(&["secret"]), 2, false),
            (tags(&["secret"]), tags(&["open"]), 1, false),
            (None, None, 1, true),
        ] {
            let session = Arc::new(Asked::default());
            let objects = Arc::new(Changing(before.clone(), then.clone()));
            let objects = JobObjects { objects, session: session.clone() };
            let opened = objects.get("b", "k", None).await;
            assert_eq!(
                opened.map(drop).map_err(|error| error.code),
                allowed.then_some(()).ok_or("AccessDenied".into())
            );
            assert_eq!(session.0.lock().unwrap().len(), asked, "{before:?} {then:?}");
        }
    }

    #[tokio::test]
    async fn a_store_is_not_asked_for_what_the_tags_forbid() {
        let session = Arc::new(Asked::default());
        let objects = JobObjects { objects: Arc::new(Changing(tags(&["secret"]), None)), session };
        let terms = PutTerms { content_type: "text/csv", encryption: &Encryption::Unasked };
        let put = objects.put("b", "k", terms, PutBody::Bytes(Bytes::new())).await;
        let facts = objects.facts("b", "k", None).await;
        for code in [put.unwrap_err().code, facts.unwrap_err().code] {
            assert_eq!(code, "AccessDenied");
        }
    }
}
