//! What a job's role may not, is not done; and what is taken from it is gone with the next call.

use std::collections::BTreeSet;

use super::*;
use crate::ports::{Access, NotAssumed, Roles, Session};

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

    fn allow(&self, what: &str) {
        self.0.lock().unwrap().remove(what);
    }
}

impl Session for Arc<Role> {
    fn assume(&self) -> Result<(), NotAssumed> {
        self.check("assume").map_err(|reason| NotAssumed { reason, hint: Some("Ask the owner of the role.".into()) })
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
        assert_eq!(described.contains("Ask the owner of the role."), forbidden == "assume", "{described}");
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

/// A job that has run and whose report its role could not write.
async fn undelivered() -> (Arc<Role>, World, String) {
    let role = Arc::new(Role::default());
    role.forbid("put r");
    let world = world(&role).await;
    world.manifest(&keys(13));
    let id = world.create(|b| b).await;
    world.wait_for(&id, "Failed").await;
    (role, world, id)
}

#[tokio::test]
async fn a_report_that_could_not_be_written_is_delivered_once_the_role_may_and_nothing_runs_again() {
    let (role, world, id) = undelivered().await;
    let path = format!("/_longshore/v1/jobs/{id}/report");
    let (status, told) = world.send("POST", &path, "", "").await;
    assert_eq!(status, 409, "{told}");
    assert!(told.contains("ReportDeliveryFailed") && told.contains("The role may not put r."), "{told}");
    assert!(!world.describe(&id).await.contains("StatusUpdateReason"));

    role.allow("put r");
    let (first, second) = futures::join!(world.send("POST", &path, "", ""), world.send("POST", &path, "", ""));
    assert_eq!((first.0, second.0), (200, 409), "{first:?} {second:?}");
    let told: serde_json::Value = serde_json::from_str(&first.1).unwrap();
    let manifest = format!("p/job-{id}/manifest.json");
    assert_eq!((&told["bucket"], &told["key"], &told["numberOfTasks"]), (&"r".into(), &manifest.into(), &13.into()));
    let rows = world.report(&id);
    assert_eq!((rows.len(), world.function.calls().len()), (13, 13));
    let described = world.describe(&id).await;
    for part in ["<Status>Failed</Status>", "ReportDeliveryFailed", "The completion report was delivered on 20"] {
        assert!(described.contains(part), "{described}");
    }
    let left: Vec<_> = std::fs::read_dir(world.dir.path().join("jobs").join(&id)).unwrap().collect();
    assert_eq!(left.len(), 1, "the results alone stay: {left:?}");

    // The same again is the same report, also after a start.
    let before = world.shelf.0.lock().unwrap().clone();
    let mut world = world;
    world.restart().await;
    assert_eq!(world.send("POST", &path, "", "").await.0, 200);
    assert_eq!(*world.shelf.0.lock().unwrap(), before);
}

#[tokio::test]
async fn a_delivery_tells_of_a_full_disk_at_once_and_repeated_it_goes_on() {
    let (role, world, id) = undelivered().await;
    role.allow("put r");
    let path = format!("/_longshore/v1/jobs/{id}/report");
    // What is spooled for it, and then what an object store keeps on the same disk.
    let spool = world.dir.path().join("jobs").join(&id).join("report");
    std::fs::create_dir_all(&spool).unwrap();
    std::os::unix::fs::symlink("/dev/full", spool.join("succeeded-0.csv")).unwrap();
    let (status, told) = world.send("POST", &path, "", "").await;
    assert!(status == 503 && told.contains("There is no space"), "{status} {told}");
    assert!(!spool.exists(), "what there was of it is gone");
    world.shelf.set_down_with(ObjectError::DISK_FULL);
    let (status, told) = world.send("POST", &path, "", "").await;
    assert!(status == 503 && told.contains("There is no space"), "{status} {told}");
    assert_eq!((world.shelf.refused(), spool.exists()), (1, false));
    world.shelf.set_down(false);
    assert_eq!(world.send("POST", &path, "", "").await.0, 200);
    assert_eq!(world.report(&id).len(), 13);
}

#[tokio::test]
async fn a_delivery_gives_a_store_that_is_away_seconds_and_no_quarter_of_an_hour() {
    let (role, world, id) = undelivered().await;
    role.allow("put r");
    world.shelf.set_down(true);
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    let (status, told) = world.send("POST", &format!("/_longshore/v1/jobs/{id}/report"), "", "").await;
    assert!(status == 409 && told.contains("InternalError"), "{status} {told}");
    let took = began.elapsed();
    assert!(took > Duration::from_secs(1) && took < Duration::from_secs(10), "{took:?}");
}

#[tokio::test]
async fn jobs_of_one_role_take_half_the_places_for_deliveries() {
    let (role, world, id) = undelivered().await;
    role.allow("put r");
    let (role_arn, other) = ("arn:aws:iam::123456789012:role/r", "arn:aws:iam::123456789012:role/other");
    let path = format!("/_longshore/v1/jobs/{id}/report");
    for (of_role, of_others, status) in [(2, 0, 503), (2, 1, 503), (0, 4, 503), (1, 2, 200)] {
        let turns = (0..of_role).map(|n| (format!("mine-{n}"), role_arn.to_owned()));
        let turns = turns.chain((0..of_others).map(|n| (format!("other-{n}"), format!("{other}-{n}"))));
        *world.jobs.engine.redelivered() = turns.collect();
        let (found, told) = world.send("POST", &path, "", "").await;
        assert_eq!(found, status, "{of_role} {of_others} {told}");
    }
}

#[tokio::test]
async fn files_of_a_job_are_removed_or_its_report_is_delivered_and_never_both_at_once() {
    let (role, world, id) = undelivered().await;
    role.allow("put r");
    let (engine, folder) = (&world.jobs.engine, world.dir.path().join("jobs").join(&id));
    let left = folder.join("report").join("left");
    std::fs::create_dir_all(left.parent().unwrap()).unwrap();
    std::fs::write(&left, "of a crash").unwrap();
    // The sweep at a start leaves a job alone whose report is being delivered.
    engine.redelivered().insert(id.clone(), String::new());
    sweep(engine.clone()).await;
    assert!(left.exists());
    engine.redelivered().clear();
    sweep(engine.clone()).await;
    assert!(!left.exists() && folder.exists());
    // A delivery that comes while the job is being removed finds it gone, and no results that are damaged.
    let removing = engine.shared.removing.lock().await;
    let path = format!("/_longshore/v1/jobs/{id}/report");
    let mut delivery = std::pin::pin!(world.send("POST", &path, "", ""));
    while engine.redelivered().is_empty() {
        assert!(futures::poll!(&mut delivery).is_pending());
        tokio::task::yield_now().await;
    }
    super::super::remove(engine, &id).await.unwrap();
    world.jobs.ledger.delete(&id).await.unwrap();
    drop(removing);
    let (status, told) = delivery.await;
    assert!(status == 404 && told.contains("NoSuchJob"), "{status} {told}");
}

#[tokio::test]
async fn only_a_report_that_is_missing_is_delivered_and_never_without_all_rows() {
    let (role, world, id) = undelivered().await;
    role.allow("put r");
    let results = world.dir.path().join("jobs").join(&id).join("results");
    std::fs::rename(&results, results.with_extension("away")).unwrap();
    let deliver = async |id: &str| world.send("POST", &format!("/_longshore/v1/jobs/{id}/report"), "", "").await;
    let (status, told) = deliver(&id).await;
    assert!(status == 409 && told.contains("0 of 13 rows"), "{told}");
    // For good: mending the bucket and asking again is no way.
    assert!(told.contains("StateDamaged") && told.contains("or create the job again"), "{told}");
    assert!(!world.shelf.0.lock().unwrap().keys().any(|key| key.starts_with("r/")));

    let whole = world.create(|b| b.replace("tok-1", "tok-2")).await;
    world.wait_for(&whole, "Complete").await;
    let off = |b: String| b.replace("tok-1", "tok-3").replace("<Enabled>true</Enabled>", "<Enabled>false</Enabled>");
    let without = world.create(off).await;
    world.wait_for(&without, "Complete").await;
    let waits = world.create(|b| b.replace("tok-1", "tok-4").replace("Required>false", "Required>true")).await;
    world.wait_for(&waits, "Suspended").await;
    for (id, status, wanted) in [
        (whole.as_str(), 400, "is Complete, and not for want of its report"),
        (&without, 400, "created without a completion report"),
        (&waits, 400, "is Suspended, and its report is not due yet"),
        ("00000000-0000-4000-8000-000000000000", 404, "does not exist"),
    ] {
        let (found, told) = deliver(id).await;
        assert!(found == status && told.contains(wanted), "{found} {told}");
    }
}
