//! What a job's role may not, is not done; and what is taken from it is gone with the next call.

use std::collections::BTreeSet;

use super::*;
use crate::ports::{Access, Roles, Session};

/// One role for all jobs, which may do everything but what stands here: `assume`, `get m/list.csv`, `put r`, `list b`, `invoke`.
#[derive(Default)]
struct Role(Mutex<BTreeSet<String>>);

impl Roles for Arc<Role> {
    fn session(&self, role_arn: &str, job_id: &str) -> Arc<dyn Session> {
        assert_eq!(role_arn, "arn:aws:iam::123456789012:role/r");
        assert_eq!(job_id.len(), 36);
        Arc::new(Arc::clone(self))
    }
}

impl Role {
    fn check(&self, what: &str) -> Result<(), String> {
        if self.0.lock().unwrap().contains(what) { Err(format!("The role may not {what}.")) } else { Ok(()) }
    }

    fn forbid(&self, what: &str) {
        self.0.lock().unwrap().insert(what.to_owned());
    }
}

impl Session for Arc<Role> {
    fn assume(&self) -> Result<(), String> {
        self.check("assume")
    }

    fn may(&self, access: Access<'_>) -> Result<(), String> {
        match access {
            Access::GetObject { bucket, key, .. } => self.check(&format!("get {bucket}/{key}")),
            Access::PutObject { bucket, .. } => self.check(&format!("put {bucket}")),
            Access::List { bucket, .. } => self.check(&format!("list {bucket}")),
            Access::Invoke { .. } => self.check("invoke"),
        }
    }
}

async fn world(role: &Arc<Role>) -> World {
    let dir = tempfile::tempdir().unwrap();
    let (shelf, function) = (Arc::new(Shelf::default()), Function::new());
    let fatal = Fatal::new();
    let records = Records::open(&dir.path().join("records.db"), &[crate::SCHEMA], fatal.clone()).unwrap();
    let mut settings = crate::Settings::new(ACCOUNT, "us-west-2");
    settings.roles = Arc::new(Arc::clone(role));
    let (objects, invoker) = (Arc::clone(&shelf) as Arc<dyn Objects>, Arc::clone(&function) as Arc<dyn Invoker>);
    let jobs = Jobs::open(records, dir.path().join("jobs"), fatal, settings, objects, invoker).await.unwrap();
    World { dir, shelf, function, jobs }
}

#[tokio::test]
async fn a_job_fails_for_what_its_role_may_not_and_says_so() {
    for (forbidden, code, calls) in [
        ("assume", "RoleAccessDenied", 0),
        ("get m/list.csv", "ManifestAccessDenied", 0),
        ("put r", "ReportDeliveryFailed", 3),
    ] {
        let role = Arc::new(Role::default());
        role.forbid(forbidden);
        let world = world(&role).await;
        world.manifest(&keys(3));
        let id = world.create(|b| b).await;
        let described = world.wait_for(&id, "Failed").await;
        assert!(described.contains(&format!("<FailureCode>{code}</FailureCode>")), "{described}");
        assert!(described.contains(&format!("The role may not {forbidden}.")), "{described}");
        assert_eq!(world.function.calls().len(), calls, "{forbidden}");
    }
}

#[tokio::test]
async fn a_function_that_the_role_may_not_invoke_any_more_is_not_called_and_the_report_says_why() {
    let role = Arc::new(Role::default());
    let world = world(&role).await;
    let rows: Vec<String> = (0..20).map(|row| format!("good-{row}")).collect();
    world.manifest(&rows);
    // Held until the role has lost the right: four are with the function by then.
    world.function.gate.forget_permits(Semaphore::MAX_PERMITS);
    let id = world.create(|b| b).await;
    while world.function.calls().len() < 4 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    role.forbid("invoke");
    world.function.gate.add_permits(1_000);
    let described = world.wait_for(&id, "Complete").await;
    assert!(described.contains("<NumberOfTasksFailed>16</NumberOfTasksFailed>"), "{described}");
    assert_eq!(world.function.calls().len(), 4);
    let report = world.report(&id);
    let denied = report.iter().filter(|row| row.contains("403") && row.contains("The role may not invoke."));
    assert_eq!(denied.count(), 16, "{report:?}");
}

#[tokio::test]
async fn whose_a_bucket_is_is_not_told_to_a_role_that_may_not_use_it() {
    let owner = |b: String, bucket: &str| {
        sources::generator(b)
            .replace(
                "<S3JobManifestGenerator>",
                "<S3JobManifestGenerator><ExpectedBucketOwner>123456789012</ExpectedBucketOwner>",
            )
            .replace("s3:::source", bucket)
    };
    // The bucket `denied` is somebody else's, which is told to those who may list it.
    for (bucket, forbidden, code) in [
        ("denied", "", "BucketOwnerMismatch"),
        ("denied", "list denied", "ManifestGenerationFailed"),
        ("source", "list source", "ManifestGenerationFailed"),
    ] {
        let role = Arc::new(Role::default());
        role.forbid(forbidden);
        let world = world(&role).await;
        world.put("source/a", "x");
        let id = world.create(|b| owner(b, &format!("s3:::{bucket}"))).await;
        let described = world.wait_for(&id, "Failed").await;
        assert!(described.contains(&format!("<FailureCode>{code}</FailureCode>")), "{bucket} {forbidden}: {described}");
    }
    // So it is with the bucket of a report.
    for (forbidden, told) in [("", "does not belong to the account"), ("put denied", "The role may not put denied.")] {
        let role = Arc::new(Role::default());
        role.forbid(forbidden);
        let world = world(&role).await;
        world.manifest(&keys(1));
        let expected = |b: String| {
            b.replace(
                "arn:aws:s3:::r</Bucket>",
                "arn:aws:s3:::denied</Bucket><ExpectedBucketOwner>123456789012</ExpectedBucketOwner>",
            )
        };
        let id = world.create(expected).await;
        let described = world.wait_for(&id, "Failed").await;
        assert!(described.contains("ReportDeliveryFailed") && described.contains(told), "{described}");
    }
}
