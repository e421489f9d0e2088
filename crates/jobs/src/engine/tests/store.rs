//! What the engine asks of a store, in which order, and what it makes of a refusal.

use std::sync::atomic::AtomicBool;

use super::*;

/// A shelf that keeps what is put, in order, and refuses what it is told to refuse.
#[derive(Default)]
struct Noted {
    shelf: Shelf,
    puts: Mutex<Vec<(String, Bytes)>>,
    /// Objects whose key ends like this cannot be put for now.
    no_put: Mutex<Option<&'static str>>,
    /// Nothing may be read.
    no_get: AtomicBool,
}

#[async_trait::async_trait]
impl Objects for Noted {
    async fn get(&self, bucket: &str, key: &str, version: Option<&str>) -> Result<ObjectBody, ObjectError> {
        if self.no_get.load(Ordering::SeqCst) {
            return Err(ObjectError { code: "AccessDenied".into(), message: "no".into(), passing: false });
        }
        self.shelf.get(bucket, key, version).await
    }

    async fn put(&self, bucket: &str, key: &str, terms: PutTerms<'_>, body: PutBody) -> Result<String, ObjectError> {
        if self.no_put.lock().unwrap().is_some_and(|end| key.ends_with(end)) {
            return Err(ObjectError { code: "InternalError".into(), message: "down".into(), passing: true });
        }
        let etag = self.shelf.put(bucket, key, terms, body).await?;
        let bytes = self.shelf.0.lock().unwrap()[&format!("{bucket}/{key}")].clone();
        self.puts.lock().unwrap().push((key.to_owned(), bytes));
        Ok(etag)
    }

    async fn list(&self, bucket: &str, query: &ListQuery) -> Result<ListPage, ObjectError> {
        self.shelf.list(bucket, query).await
    }

    async fn facts(&self, bucket: &str, key: &str, version: Option<&str>) -> Result<ObjectFacts, ObjectError> {
        self.shelf.facts(bucket, key, version).await
    }

    async fn check_owner(&self, bucket: &str, account: &str) -> Result<(), ObjectError> {
        self.shelf.check_owner(bucket, account).await
    }
}

/// A world over `noted`. Its own shelf is not used.
async fn world(dir: tempfile::TempDir, noted: &Arc<Noted>) -> World {
    let function = Function::new();
    let fatal = Fatal::new();
    let records = Records::open(&dir.path().join("records.db"), &[crate::SCHEMA], fatal.clone()).unwrap();
    let settings = crate::Settings::new(ACCOUNT, "us-west-2");
    let (objects, invoker) = (Arc::clone(noted) as Arc<dyn Objects>, Arc::clone(&function) as Arc<dyn Invoker>);
    let jobs = Jobs::open(records, dir.path().join("jobs"), fatal, settings, objects, invoker).await.unwrap();
    World { dir, shelf: Arc::default(), function, jobs }
}

fn shelve(noted: &Noted, rows: &[String]) {
    let text = rows.iter().map(|key| format!("b,{key}\n")).collect::<String>();
    noted.shelf.0.lock().unwrap().insert("m/list.csv".into(), text.into());
}

#[tokio::test]
async fn a_report_that_is_written_again_has_the_same_names_and_bytes_and_its_manifest_comes_last() {
    let noted = Arc::new(Noted::default());
    *noted.no_put.lock().unwrap() = Some("/manifest.json");
    let first = world(tempfile::tempdir().unwrap(), &noted).await;
    shelve(&noted, &keys(30));
    let id = first.create(|b| b).await;
    // All but the manifest is there, and the job is not over.
    while noted.puts.lock().unwrap().len() < 3 {
        tokio::task::yield_now().await;
    }
    assert!(first.describe(&id).await.contains("<Status>Completing</Status>"));
    first.jobs.shutdown().await;
    let before = std::mem::take(&mut *noted.puts.lock().unwrap());
    let World { dir, jobs, .. } = first;
    drop(jobs);

    *noted.no_put.lock().unwrap() = None;
    let second = world(dir, &noted).await;
    second.wait_for(&id, "Complete").await;
    let after = noted.puts.lock().unwrap().clone();
    assert_eq!(after[..3], before, "the same objects again");
    let names: Vec<_> = after.iter().map(|(key, _)| key.rsplit_once('/').unwrap()).collect();
    let folder = format!("p/job-{id}");
    assert_eq!(names.len(), 4);
    assert!(names[..2].iter().all(|(path, name)| *path == format!("{folder}/results") && name.ends_with(".csv")));
    assert_eq!(names[2..], [(&*folder, "manifest.json.md5"), (&*folder, "manifest.json")]);
    assert!(second.function.calls().is_empty(), "nothing ran again");
}

#[tokio::test]
async fn every_object_of_a_report_is_put_with_the_encryption_of_its_store() {
    let kms = Encryption::SseKms { key_id: Some("reports".into()) };
    for (bucket, wanted) in [("sealed", kms), ("r", Encryption::Unasked)] {
        let world = World::new().await;
        world.manifest(&keys(3));
        let id = world.create(|b| b.replace("arn:aws:s3:::r<", &format!("arn:aws:s3:::{bucket}<"))).await;
        world.wait_for(&id, "Complete").await;
        let asked = world.shelf.2.lock().unwrap().clone();
        let ends = |end: &str| asked.keys().filter(|name| name.ends_with(end)).count();
        assert_eq!((ends(".csv") > 0, ends("manifest.json"), ends(".md5")), (true, 1, 1), "{asked:?}");
        assert!(asked.iter().all(|(name, given)| name.starts_with(bucket) && *given == wanted), "{asked:?}");
    }
    // A report that was to be encrypted and cannot be is no report.
    let world = World::new().await;
    world.manifest(&keys(3));
    let id = world.create(|b| b.replace("arn:aws:s3:::r<", "arn:aws:s3:::plain<")).await;
    let described = world.wait_for(&id, "Failed").await;
    assert!(described.contains("<FailureCode>ReportDeliveryFailed</FailureCode>"), "{described}");
    assert!(described.contains("<FailureReason>plain: NotImplemented: no keys</FailureReason>"), "{described}");
}

#[tokio::test]
async fn a_manifest_that_may_not_be_read_fails_the_job_in_awss_words() {
    let noted = Arc::new(Noted::default());
    noted.no_get.store(true, Ordering::SeqCst);
    let world = world(tempfile::tempdir().unwrap(), &noted).await;
    shelve(&noted, &keys(3));
    let id = world.create(|b| b).await;
    let described = world.wait_for(&id, "Failed").await;
    assert!(described.contains("<FailureCode>ManifestAccessDenied</FailureCode>"), "{described}");
    let reason = "<FailureReason>Reading the manifest is forbidden: AccessDenied</FailureReason>";
    assert!(described.contains(reason), "{described}");
}
