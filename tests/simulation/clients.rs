//! Clients: each makes one job, looks at it, and does to it what its plan says. What they are told, and what they were
//! told before, must agree.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use longshore_core::job::Status;
use longshore_wire::Caller;
use longshore_wire::{Query, Request, RequestId};

use crate::function::arn;
use crate::machine::Machine;
use crate::objects::md5;
use crate::plan::Fault;
use crate::world::{ACCOUNT, FUNCTIONS, World, living};

/// How long a client waits before it looks again, at first and at most.
const LOOK_MS: (u64, u64) = (500, 10_000);

/// An answer: its status and its body.
type Answer = (u16, String);

/// One client and its job.
pub struct Client {
    world: Arc<World>,
    job: usize,
    id: String,
    /// What the job's priority and tags may be: the last that was acknowledged, and what nobody has answered since.
    priorities: BTreeSet<u32>,
    tags: BTreeSet<String>,
    created: Option<String>,
    last: Option<Status>,
}

/// Sends a request to some server, which may die over it: `None`.
async fn send(world: &Arc<World>, method: &str, path: &str, query: &str, body: &str) -> Option<Answer> {
    let machine = {
        let mut state = world.state();
        let living: Vec<Arc<Machine>> = living(&state).into_iter().filter(|machine| machine.jobs().is_some()).collect();
        let chosen = state.random.below(living.len() as u64) as usize;
        living.get(chosen).cloned()?
    };
    let jobs = machine.jobs()?;
    let request = Request {
        method: method.parse().expect("a method"),
        path: path.to_owned(),
        query: Query::parse(Some(query)),
        headers: http::HeaderMap::from_iter([(
            http::HeaderName::from_static("x-amz-account-id"),
            http::HeaderValue::from_static(ACCOUNT),
        )]),
        body: Bytes::copy_from_slice(body.as_bytes()),
        caller: Caller::in_process(ACCOUNT),
        request_id: RequestId("r".into()),
    };
    let response = machine.run(async move { jobs.serve(request, None).await }).await?;
    let text = String::from_utf8(response.body.to_vec()).expect("an answer is UTF-8");
    Some((response.status.as_u16(), text))
}

fn between<'t>(text: &'t str, from: &str, to: &str) -> Option<&'t str> {
    let rest = &text[text.find(from)? + from.len()..];
    Some(&rest[..rest.find(to)?])
}

fn number(text: &str, member: &str) -> u64 {
    let value = between(text, &format!("<{member}>"), &format!("</{member}>"));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {member} in {text}"))
}

fn status(text: &str) -> Status {
    let name = between(text, "<Status>", "</Status>").unwrap_or_default();
    Status::parse(name).unwrap_or_else(|| panic!("the status {name} in {text}"))
}

impl Client {
    pub fn new(world: &Arc<World>, job: usize) -> Self {
        let priority = world.plan.jobs[job].priority;
        Self {
            world: Arc::clone(world),
            job,
            id: String::new(),
            priorities: BTreeSet::from([priority]),
            tags: BTreeSet::from([String::new()]),
            created: None,
            last: None,
        }
    }

    /// Makes the job and stays with it until it is over. Returns the reasons of its failure:
    /// codes and texts.
    pub async fn live(mut self) -> Vec<(String, String)> {
        let plan = self.world.plan.jobs[self.job].clone();
        tokio::time::sleep(Duration::from_millis(plan.begins_ms)).await;
        self.create().await;
        let (mut look_ms, mut waits) = (LOOK_MS.0, 0);
        loop {
            let text = self.describe().await;
            let status = status(&text);
            if status.is_terminal() {
                let reasons = text.split("<FailureCode>").skip(1).filter_map(|rest| {
                    let (code, rest) = rest.split_once('<')?;
                    let reason = rest.split_once("<FailureReason>")?.1.split('<').next()?;
                    Some((code.to_owned(), reason.to_owned()))
                });
                return reasons.collect();
            }
            if status == Status::Suspended {
                waits += 1;
                // Somebody has to look at it first.
                if waits > 2 || self.world.one_in(2) {
                    self.ask("Ready").await;
                }
            } else if plan.cancels && self.world.one_in(4) {
                self.ask("Cancelled").await;
            } else if self.world.one_in(6) {
                self.reprioritize().await;
            } else if self.world.one_in(8) {
                self.tag().await;
            } else if self.world.one_in(8) {
                self.list().await;
            }
            self.world.sleep_up_to(look_ms).await;
            look_ms = (look_ms + look_ms / 4).min(LOOK_MS.1);
        }
    }

    fn body(&self, priority: u32) -> String {
        let plan = &self.world.plan.jobs[self.job];
        let etag = md5(&plan.manifest(self.job, 1));
        let version = if plan.versions { "<member>VersionId</member>" } else { "" };
        let scope = if plan.failed_only { "FailedTasksOnly" } else { "AllTasks" };
        let report = match plan.report {
            true => format!(
                "<Report><Bucket>arn:aws:s3:::reports</Bucket><Format>Report_CSV_20180820</Format>\
                 <Enabled>true</Enabled><ReportScope>{scope}</ReportScope></Report>"
            ),
            false => "<Report><Enabled>false</Enabled></Report>".to_owned(),
        };
        let tag =
            |key: &str, value: &str| format!("<Tags><member><Key>{key}</Key><Value>{value}</Value></member></Tags>");
        let tags = match (plan.sample, plan.early) {
            (Some(rows), _) => tag("longshore:sample", &rows.to_string()),
            (None, true) => tag("longshore:start", "while-preparing"),
            (None, false) => String::new(),
        };
        format!(
            "<CreateJobRequest xmlns=\"http://awss3control.amazonaws.com/doc/2018-08-20/\">\
             <ConfirmationRequired>{confirmation}</ConfirmationRequired>\
             <Operation><LambdaInvoke><FunctionArn>{function}</FunctionArn></LambdaInvoke></Operation>{report}\
             <ClientRequestToken>token-{job}</ClientRequestToken>\
             <Manifest><Spec><Format>S3BatchOperations_CSV_20180820</Format>\
             <Fields><member>Bucket</member><member>Key</member>{version}</Fields></Spec>\
             <Location><ObjectArn>arn:aws:s3:::manifests/{job}</ObjectArn><ETag>{etag}</ETag></Location></Manifest>\
             <Description>job {job}</Description><Priority>{priority}</Priority>\
             <RoleArn>arn:aws:iam::{ACCOUNT}:role/r</RoleArn>{tags}</CreateJobRequest>",
            confirmation = plan.confirmation,
            function = arn(self.job % FUNCTIONS),
            job = self.job,
        )
    }

    /// Asks until it is answered with a job.
    async fn create(&mut self) {
        let body = self.body(self.world.plan.jobs[self.job].priority);
        while self.id.is_empty() {
            match send(&self.world, "POST", "/v20180820/jobs", "", &body).await {
                Some((200, text)) => {
                    self.id = between(&text, "<JobId>", "</JobId>").expect("an ID").to_owned();
                }
                None | Some((500.., _)) => self.world.sleep_up_to(2_000).await,
                Some((code, text)) => panic!("job {} cannot be made: {code} {text}", self.job),
            }
        }
        let known = self.world.job_of(&self.id);
        assert_eq!(known, Some(self.job), "job {} was acknowledged, and the ledger does not have it (D1)", self.job);
        self.again().await;
    }

    /// The same token for the same job and for another one.
    async fn again(&self) {
        if self.world.fault(Fault::RepeatedToken) {
            let body = self.body(self.world.plan.jobs[self.job].priority);
            match send(&self.world, "POST", "/v20180820/jobs", "", &body).await {
                Some((200, text)) => {
                    let id = between(&text, "<JobId>", "</JobId>").unwrap_or_default();
                    assert_eq!(id, self.id, "the token of job {} has another job now (D1)", self.job);
                }
                None | Some((500.., _)) => {}
                Some((code, text)) => panic!("the same request for job {} was refused: {code} {text} (D1)", self.job),
            }
        }
        if self.world.fault(Fault::OtherBody) {
            match send(&self.world, "POST", "/v20180820/jobs", "", &self.body(77)).await {
                None | Some((500.., _)) => {}
                Some((code, text)) => {
                    let refused = code == 400 && text.contains("IdempotencyException");
                    assert!(refused, "the token of job {} was taken for another request: {code} {text} (D1)", self.job);
                }
            }
        }
    }

    /// Looks until it is answered, and holds what it is shown against what was shown before.
    async fn describe(&mut self) -> String {
        loop {
            let floor = self.world.state().jobs[self.job].seen;
            let path = format!("/v20180820/jobs/{}", self.id);
            match send(&self.world, "GET", &path, "", "").await {
                Some((200, text)) => {
                    self.check(&text, floor);
                    return text;
                }
                None | Some((500.., _)) => self.world.sleep_up_to(2_000).await,
                Some((code, text)) => panic!("job {} cannot be described: {code} {text} (D1)", self.job),
            }
        }
    }

    fn check(&mut self, text: &str, floor: (u64, u64)) {
        let job = self.job;
        let counts = (number(text, "NumberOfTasksSucceeded"), number(text, "NumberOfTasksFailed"));
        let status = status(text);
        self.world.seen(job, floor, counts, number(text, "TotalNumberOfTasks"), status);
        let had = self.world.state().jobs[job].statuses.contains(&status);
        assert!(had, "job {job} reads {status:?}, which it never was (D2)");
        if let Some(last) = self.last {
            assert!(!last.is_terminal() || last == status, "job {job} was {last:?} and reads {status:?} (X6)");
        }
        if status == Status::Complete {
            let cancelled = self.world.state().jobs[job].cancel_answered;
            assert!(!cancelled, "job {job} is Complete, and its cancel was answered (D2)");
        }
        self.last = Some(status);
        let priority = number(text, "Priority") as u32;
        assert!(self.priorities.contains(&priority), "job {job} has priority {priority} (D2)");
        // What it was made with never changes.
        let end = |mark: &str| between(text, mark, "</Job>").map(|_| ());
        let fixed: String = ["CreationTime", "RoleArn", "Description", "ObjectArn", "ETag", "FunctionArn"]
            .into_iter()
            .filter_map(|member| between(text, &format!("<{member}>"), &format!("</{member}>")))
            .collect::<Vec<_>>()
            .join(" ");
        assert!(end("<Manifest>").is_some(), "job {job} is shown without its manifest (D1)");
        let first = self.created.get_or_insert_with(|| fixed.clone());
        assert_eq!(*first, fixed, "job {job} reads otherwise than before (D1)");
    }

    /// Confirms the job, or cancels it.
    async fn ask(&mut self, wanted: &str) {
        let cancel = wanted == "Cancelled";
        if cancel {
            self.world.note(Fault::Cancel);
            self.world.state().jobs[self.job].cancel_sent = true;
        }
        let path = format!("/v20180820/jobs/{}/status", self.id);
        let query = format!("requestedJobStatus={wanted}");
        let answer = send(&self.world, "POST", &path, &query, "").await;
        if let Some((200, text)) = answer {
            let status = status(&text);
            if cancel {
                assert!(matches!(status, Status::Cancelling | Status::Cancelled), "a cancel was answered {status:?}");
                self.world.state().jobs[self.job].cancel_answered = true;
                self.world.event_told(
                    "cancel answered",
                    self.job as u64,
                    format_args!("cancel of job {} answered", self.job),
                );
            }
        }
    }

    async fn reprioritize(&mut self) {
        let priority = self.world.below(10) as u32;
        let other = self.priorities.insert(priority);
        let path = format!("/v20180820/jobs/{}/priority", self.id);
        match send(&self.world, "POST", &path, &format!("priority={priority}"), "").await {
            Some((200, _)) => self.priorities = BTreeSet::from([priority]),
            // It may have happened.
            None | Some((500, _)) => {}
            // Refused for sure: for want of space, or because the job is too far.
            Some(_) if other => drop(self.priorities.remove(&priority)),
            Some(_) => {}
        }
    }

    async fn tag(&mut self) {
        let path = format!("/v20180820/jobs/{}/tagging", self.id);
        let value = self.world.below(1_000).to_string();
        let body = format!(
            "<PutJobTaggingRequest xmlns=\"http://awss3control.amazonaws.com/doc/2018-08-20/\"><Tags><member>\
             <Key>k</Key><Value>{value}</Value></member></Tags></PutJobTaggingRequest>"
        );
        match send(&self.world, "PUT", &path, "", &body).await {
            Some((200, _)) => self.tags = BTreeSet::from([value]),
            None | Some((500, _)) => drop(self.tags.insert(value)),
            Some((503, _)) => {}
            Some((code, text)) => panic!("tags of job {} were refused: {code} {text}", self.job),
        }
        if let Some((200, text)) = send(&self.world, "GET", &path, "", "").await {
            let found = between(&text, "<Key>k</Key><Value>", "</Value>").unwrap_or_default();
            assert!(self.tags.contains(found), "job {} has the tag {found:?} (D2)", self.job);
        }
    }

    /// A list has every job that was acknowledged, each once.
    async fn list(&self) {
        let made: Vec<String> = self.world.state().jobs.iter().filter_map(|book| book.id.clone()).collect();
        if let Some((200, text)) = send(&self.world, "GET", "/v20180820/jobs", "", "").await {
            for id in made {
                let times = text.matches(&format!("<JobId>{id}</JobId>")).count();
                assert_eq!(times, 1, "job {id} is listed {times} times (D1)");
            }
        }
    }
}
