//! Where rows come from, other than from a CSV object: inventories and listings.

use std::io::Write;

use super::*;

/// The manifest with whose ETag every object of the shelf is given, as an inventory.
fn inventory(body: String) -> String {
    let body = body.replace("S3BatchOperations_CSV_20180820", "S3InventoryReport_CSV_20161130");
    body.replace("m/list.csv", "m/manifest.json").replace("<ConfirmationRequired>false", "<ConfirmationRequired>true")
}

pub(super) fn generator(body: String) -> String {
    let manifest = body.find("<Manifest>").unwrap()..body.find("<Description>").unwrap();
    let mut body = body.replace("<ConfirmationRequired>false", "<ConfirmationRequired>true");
    let (start, length) = (body.find("<Manifest>").unwrap(), manifest.len());
    body.replace_range(
        start..start + length,
        "<ManifestGenerator><S3JobManifestGenerator><SourceBucket>arn:aws:s3:::source</SourceBucket>\
         <ManifestOutputLocation><Bucket>arn:aws:s3:::lists</Bucket><ManifestPrefix>p</ManifestPrefix>\
         <ManifestFormat>S3InventoryReport_CSV_20211130</ManifestFormat></ManifestOutputLocation>\
         <EnableManifestOutput>true</EnableManifestOutput></S3JobManifestGenerator></ManifestGenerator>",
    );
    body
}

fn gzip(text: &str) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    gzip.finish().unwrap()
}

/// A shelf that cannot list versions, or in one bucket may not, and whose first read of each data file breaks off half-way.
struct Poor(Arc<Shelf>, Mutex<Vec<String>>);

#[async_trait::async_trait]
impl Objects for Poor {
    async fn get(&self, bucket: &str, key: &str, version: Option<&str>) -> Result<ObjectBody, ObjectError> {
        let mut body = self.0.get(bucket, key, version).await?;
        let mut seen = self.1.lock().unwrap();
        if key.starts_with("data/") && !seen.iter().any(|other| other == key) {
            seen.push(key.to_owned());
            let broken = ObjectError { code: "InternalError".into(), message: "broken".into(), passing: true };
            body.stream = Box::pin(futures::StreamExt::chain(
                futures::StreamExt::take(body.stream, 2),
                futures::stream::iter([Err(broken)]),
            ));
        }
        Ok(body)
    }

    async fn put(&self, bucket: &str, key: &str, terms: PutTerms<'_>, body: PutBody) -> Result<String, ObjectError> {
        self.0.put(bucket, key, terms, body).await
    }

    async fn list(&self, bucket: &str, query: &ListQuery) -> Result<ListPage, ObjectError> {
        if query.versions {
            let code = if bucket == "guarded" { "AccessDenied" } else { "NotImplemented" };
            return Err(ObjectError { code: code.into(), message: "no".into(), passing: false });
        }
        self.0.list(bucket, query).await
    }

    async fn facts(&self, bucket: &str, key: &str, version: Option<&str>) -> Result<ObjectFacts, ObjectError> {
        self.0.facts(bucket, key, version).await
    }

    async fn check_owner(&self, bucket: &str, account: &str) -> Result<(), ObjectError> {
        self.0.check_owner(bucket, account).await
    }
}

/// A world with a poor store, or with settings of its own.
async fn world_with(poor: bool, change: impl Fn(&mut crate::Settings)) -> World {
    let dir = tempfile::tempdir().unwrap();
    let (shelf, function) = (Arc::new(Shelf::default()), Function::new());
    let fatal = Fatal::new();
    let records = Records::open(&dir.path().join("records.db"), &[crate::SCHEMA], fatal.clone()).unwrap();
    let mut settings = crate::Settings::new(ACCOUNT, "us-west-2");
    change(&mut settings);
    let objects: Arc<dyn Objects> =
        if poor { Arc::new(Poor(Arc::clone(&shelf), Mutex::default())) } else { Arc::clone(&shelf) as _ };
    let invoker = Arc::clone(&function) as Arc<dyn Invoker>;
    let jobs = Jobs::open(records, dir.path().join("jobs"), fatal, settings, objects, invoker).await.unwrap();
    World { dir, shelf, function, jobs }
}

impl World {
    pub(super) fn put(&self, name: &str, body: impl Into<Bytes>) {
        self.shelf.0.lock().unwrap().insert(name.to_owned(), body.into());
    }

    /// Puts data files and the `manifest.json` that names them.
    fn inventory(&self, files: &[Vec<u8>]) {
        let mut listed = Vec::new();
        for (number, file) in files.iter().enumerate() {
            self.put(&format!("m/data/{number}"), file.clone());
            let md5 = hex::encode(<md5::Md5 as md5::Digest>::digest(file));
            listed.push(serde_json::json!({"key": format!("data/{number}"), "MD5checksum": md5}));
        }
        let json = serde_json::json!({"fileFormat": "CSV", "fileSchema": "Size, Bucket, Key", "files": listed});
        self.put("m/manifest.json", json.to_string());
    }

    fn pinned(&self, id: &str) -> String {
        std::fs::read_to_string(self.dir.path().join("jobs").join(id).join("manifest.csv")).unwrap()
    }
}

#[tokio::test]
async fn rows_of_an_inventory_are_pinned_in_the_order_of_its_files_though_these_are_read_at_once() {
    let world = World::new().await;
    // The first files take longest, so that later ones are done before them.
    let file = |number: usize, rows: usize| -> String {
        (0..rows).map(|row| format!("\"7\",\"b\",\"k{number}-{row}\"\n")).collect()
    };
    let texts: Vec<String> = (0..9).map(|number| file(number, 2_000 - 220 * number)).collect();
    let files: Vec<Vec<u8>> =
        texts.iter().enumerate().map(|(n, text)| if n % 2 == 0 { gzip(text) } else { text.clone().into() }).collect();
    world.inventory(&files);
    let id = world.create(inventory).await;
    world.wait_for(&id, "Suspended").await;
    let wanted: String = texts.concat().lines().map(|line| line[4..].replace('"', "") + "\n").collect();
    assert!(world.pinned(&id) == wanted);
    let spool = world.dir.path().join("jobs").join(&id).join("prepare");
    assert_eq!(std::fs::read_dir(spool).unwrap().count(), 0, "spool files go when they are pinned");
}

#[tokio::test]
async fn a_data_file_that_is_not_what_it_was_fails_the_job() {
    let world = World::new().await;
    world.inventory(&[gzip("1,b,k\n"), gzip("1,b,l\n")]);
    world.put("m/data/1", gzip("1,b,other\n"));
    let id = world.create(inventory).await;
    let described = world.wait_for(&id, "Failed").await;
    assert!(described.contains("data/1 has another MD5 than the manifest.json says"), "{described}");
    assert!(!world.dir.path().join("jobs").join(&id).join("prepare").exists());
}

#[tokio::test]
async fn an_inventory_by_column_without_a_reader_for_it_fails_in_words() {
    let world = World::new().await;
    world.inventory(&[b"PAR1".to_vec()]);
    let json = world.shelf.0.lock().unwrap()["m/manifest.json"].clone();
    let json = String::from_utf8(json.to_vec()).unwrap().replace("\"CSV\"", "\"Parquet\"");
    world.put("m/manifest.json", json.replace("Size, Bucket, Key", "bucket, key"));
    let id = world.create(inventory).await;
    let described = world.wait_for(&id, "Failed").await;
    assert!(described.contains("this server has no reader for Parquet"), "{described}");
}

/// A table of one row, again and again until it is told to stop. Says when it has begun, goes on when it may, and says how
/// many rows it gave.
struct Endless {
    bucket: &'static str,
    key: &'static str,
    version: &'static str,
    begun: tokio::sync::mpsc::UnboundedSender<()>,
    may_go_on: Mutex<std::sync::mpsc::Receiver<()>>,
    given: tokio::sync::mpsc::UnboundedSender<u64>,
}

impl crate::ports::Columnar for Endless {
    fn read(
        &self,
        _: crate::ports::TableFormat,
        _: &std::path::Path,
        _: bool,
        each: &mut dyn FnMut(crate::ports::TableRow<'_>) -> std::ops::ControlFlow<()>,
    ) -> Result<(), String> {
        let row = crate::ports::TableRow { bucket: self.bucket, key: self.key, version: Some(self.version) };
        self.begun.send(()).unwrap();
        self.may_go_on.lock().unwrap().recv().unwrap();
        let mut rows = 1;
        while each(row).is_continue() {
            rows += 1;
        }
        self.given.send(rows).unwrap();
        Ok(())
    }
}

/// The lines of a small table are at most this; the rule is the engine's own.
const TABLE_BYTES_MAX: u64 = (16 << 20) + 100 * 4;

/// A world where every table is endless, and what is heard of it.
async fn endless(
    bucket: &'static str,
    key: &'static str,
    version: &'static str,
) -> (
    World,
    tokio::sync::mpsc::UnboundedReceiver<()>,
    std::sync::mpsc::Sender<()>,
    tokio::sync::mpsc::UnboundedReceiver<u64>,
) {
    let (begun, has_begun) = tokio::sync::mpsc::unbounded_channel();
    let (go_on, may_go_on) = std::sync::mpsc::channel();
    let (given, were_given) = tokio::sync::mpsc::unbounded_channel();
    let table = Arc::new(Endless { bucket, key, version, begun, may_go_on: Mutex::new(may_go_on), given });
    let world = world_with(false, |settings| settings.columnar = Arc::clone(&table) as _).await;
    world.inventory(&[b"PAR1".to_vec()]);
    let json = world.shelf.0.lock().unwrap()["m/manifest.json"].clone();
    let json = String::from_utf8(json.to_vec()).unwrap().replace("\"CSV\"", "\"Parquet\"");
    world.put("m/manifest.json", json.replace("Size, Bucket, Key", "bucket, key, version_id"));
    (world, has_begun, go_on, were_given)
}

#[tokio::test]
async fn a_small_table_with_rows_without_end_fills_no_disk() {
    let key = "k".repeat(1_000).leak();
    let (world, _begun, go_on, mut given) = endless("b", key, "v").await;
    go_on.send(()).unwrap();
    let id = world.create(inventory).await;
    let described = world.wait_for(&id, "Failed").await;
    assert!(described.contains("data/0 holds more rows than an inventory of its size can"), "{described}");
    assert_eq!(given.recv().await, Some(TABLE_BYTES_MAX / 1_005 + 1));
    assert!(!world.dir.path().join("jobs").join(&id).join("prepare").exists());
}

#[tokio::test]
async fn a_row_of_a_table_that_no_manifest_may_have_is_refused_before_it_is_written() {
    let long: &str = "x".repeat(16 << 10).leak();
    for (bucket, key, version, wanted) in [
        (long, "k", "v", "its bucket is longer than 255 bytes"),
        ("a\nb", "k", "v", "a line break stands inside of them"),
        ("b", long, "v", "its key is longer than 1,024 bytes"),
        ("b", "", "v", "its key is empty"),
        ("b", "k", long, "its version ID has characters that no version ID has, or more than 1,024"),
    ] {
        let (world, _begun, go_on, mut given) = endless(bucket, key, version).await;
        go_on.send(()).unwrap();
        let id = world.create(inventory).await;
        let described = world.wait_for(&id, "Failed").await;
        assert!(described.contains("data/0: Row 1: ") && described.contains(wanted), "{described}");
        assert_eq!(given.recv().await, Some(1), "the first row ends the reading: {wanted}");
    }
}

#[tokio::test]
async fn a_table_is_read_no_further_once_its_job_is_cancelled() {
    let (world, mut begun, go_on, mut given) = endless("b", "k", "v").await;
    let id = world.create(inventory).await;
    begun.recv().await.unwrap();
    let path = format!("/v20180820/jobs/{id}/status");
    assert_eq!(world.send("POST", &path, "requestedJobStatus=Cancelled", "").await.0, 200);
    world.wait_for(&id, "Cancelled").await;
    go_on.send(()).unwrap();
    let rows = given.recv().await.unwrap();
    assert!(rows < TABLE_BYTES_MAX / 6, "{rows} rows were written for nobody");
}

#[tokio::test]
async fn a_list_that_is_made_again_after_a_crash_has_the_same_objects_and_is_named_once_it_is_whole() {
    let mut world = World::new().await;
    for key in ["a b", "c+d", "e"] {
        world.put(&format!("source/{key}"), "x");
    }
    let id = world.create(generator).await;
    let described = world.wait_for(&id, "Suspended").await;
    let arn = format!("<ObjectArn>arn:aws:s3:::lists/p/{id}/manifest.json</ObjectArn>");
    assert!(described.contains(&arn), "{described}");
    assert_eq!(world.pinned(&id), "source,a%20b,null\nsource,c%2Bd,null\nsource,e,null\n");
    let names = |world: &World| {
        let shelf = world.shelf.0.lock().unwrap();
        shelf.keys().filter(|name| name.starts_with("lists/")).cloned().collect::<Vec<_>>()
    };
    let written = names(&world);
    assert_eq!(written.len(), 2);
    // As a kill would have left it between the last write to the bucket and the end of Preparing.
    world.jobs.shutdown().await;
    let db = rusqlite::Connection::open(world.dir.path().join("records.db")).unwrap();
    db.execute("UPDATE job SET status = 'Preparing', generated_manifest = NULL", []).unwrap();
    drop(db);
    world.shelf.set_down(true);
    world.restart().await;
    assert!(!world.describe(&id).await.contains("GeneratedManifestDescriptor"), "no list is named before it is whole");
    world.shelf.set_down(false);
    assert!(world.wait_for(&id, "Suspended").await.contains(&arn));
    assert_eq!(names(&world), written);
}

#[tokio::test]
async fn a_list_that_nobody_takes_fails_the_job() {
    let world = World::new().await;
    world.put("source/a", "x");
    let id = world.create(|b| generator(b).replace("s3:::lists", "s3:::denied")).await;
    let described = world.wait_for(&id, "Failed").await;
    assert!(described.contains("<FailureCode>ManifestOutputFailed</FailureCode>"), "{described}");
    assert!(described.contains("Error occurred when preparing manifest: Failed to write manifest"), "{described}");
    let owner = "<S3JobManifestGenerator><ExpectedBucketOwner>123456789012</ExpectedBucketOwner>";
    let foreign = |b: String| {
        generator(b)
            .replace("<S3JobManifestGenerator>", owner)
            .replace("s3:::source", "s3:::denied")
            .replace("tok-1", "tok-2")
    };
    let id = world.create(foreign).await;
    assert!(world.wait_for(&id, "Failed").await.contains("<FailureCode>BucketOwnerMismatch</FailureCode>"));
}

/// The encryption of the list that a generator asks for.
fn encrypted(kind: &str) -> impl Fn(String) -> String {
    let element = format!("<ManifestEncryption>{kind}</ManifestEncryption><ManifestFormat>");
    move |b| generator(b).replace("<ManifestFormat>", &element)
}

#[tokio::test]
async fn every_object_of_a_list_is_put_with_the_encryption_that_the_job_asks_for_also_after_a_restart() {
    for (kind, wanted) in [
        ("<SSE-S3/>", Encryption::SseS3),
        ("<SSE-KMS><KeyId>k</KeyId></SSE-KMS>", Encryption::SseKms { key_id: Some("k".into()) }),
    ] {
        let mut world = World::new().await;
        world.put("source/a", "x");
        // The list is written by another process than the one that took the job.
        world.shelf.set_down(true);
        let id = world.create(encrypted(kind)).await;
        world.restart().await;
        world.shelf.set_down(false);
        world.wait_for(&id, "Suspended").await;
        let asked = world.shelf.2.lock().unwrap().clone();
        let names: Vec<_> = asked.keys().map(|name| name.rsplit_once('.').unwrap().1).collect();
        assert_eq!(names, ["gz", "json"], "{asked:?}");
        assert!(asked.values().all(|given| *given == wanted), "{asked:?}");
    }
    let world = World::new().await;
    world.put("source/a", "x");
    let id = world.create(generator).await;
    world.wait_for(&id, "Suspended").await;
    assert!(world.shelf.2.lock().unwrap().values().all(|given| *given == Encryption::Unasked));
}

#[tokio::test]
async fn a_list_that_the_store_does_not_encrypt_fails_the_job_in_awss_words_and_the_stores_own() {
    let world = World::new().await;
    world.put("source/a", "x");
    let id = world.create(|b| encrypted("<SSE-S3/>")(b).replace("s3:::lists", "s3:::plain")).await;
    let described = world.wait_for(&id, "Failed").await;
    for wanted in [
        "<FailureCode>ManifestOutputFailed</FailureCode>",
        "<FailureReason>Error occurred when preparing manifest: Failed to write manifest</FailureReason>",
        "<FailureReason>plain: NotImplemented: no keys</FailureReason>",
    ] {
        assert!(described.contains(wanted), "{described}");
    }
    assert!(world.shelf.2.lock().unwrap().is_empty(), "nothing was written in the clear");
}

#[tokio::test]
async fn more_rows_than_a_job_may_have_fail_it_wherever_they_come_from() {
    let world = world_with(false, |settings| settings.rows_max = 2).await;
    world.inventory(&[gzip("1,b,k\n1,b,l\n"), gzip("1,b,m\n")]);
    for key in ["a", "b", "c"] {
        world.put(&format!("source/{key}"), "x");
    }
    for (number, change) in [|b: String| b, inventory, generator].iter().enumerate() {
        world.manifest(&keys(3));
        let id = world.create(|b| change(b).replace("tok-1", &format!("tok-{number}"))).await;
        let described = world.wait_for(&id, "Failed").await;
        assert!(described.contains("contains more keys than the maximum allowed in a single job"), "{described}");
    }
    world.manifest(&keys(2));
    let id = world.create(|b| b.replace("tok-1", "tok-4")).await;
    world.wait_for(&id, "Complete").await;
}

#[tokio::test]
async fn a_data_file_that_breaks_off_is_read_again_and_no_half_of_it_counts() {
    let world = world_with(true, |_| {}).await;
    world.inventory(&[gzip("1,b,k\n1,b,l\n"), b"1,b,m\n1,b,no\n".to_vec()]);
    let id = world.create(inventory).await;
    world.wait_for(&id, "Suspended").await;
    assert_eq!(world.pinned(&id), "b,k\nb,l\nb,m\nb,no\n");
}

#[tokio::test]
async fn a_store_that_cannot_list_versions_gives_lists_without_them_and_no_replication_statuses() {
    let world = world_with(true, |_| {}).await;
    world.put("source/a b", "x");
    let id = world.create(generator).await;
    world.wait_for(&id, "Suspended").await;
    assert_eq!(world.pinned(&id), "source,a%20b\n");
    let json = world.shelf.0.lock().unwrap()[&format!("lists/p/{id}/manifest.json")].clone();
    assert!(String::from_utf8(json.to_vec()).unwrap().contains("\"fileSchema\":\"Bucket, Key\""));
    let statuses = "<Filter><ObjectReplicationStatuses><member>NONE</member></ObjectReplicationStatuses></Filter>\
                    <EnableManifestOutput>";
    let asks = |b: String| generator(b).replace("<EnableManifestOutput>", statuses).replace("tok-1", "tok-2");
    let id = world.create(asks).await;
    let described = world.wait_for(&id, "Failed").await;
    assert!(described.contains("Listing the source bucket failed: NotImplemented"), "{described}");
}

#[tokio::test]
async fn who_may_list_a_bucket_and_not_its_versions_gets_a_list_without_them_or_is_told_what_is_missing() {
    let world = world_with(true, |_| {}).await;
    world.put("guarded/a", "x");
    let guarded = |b: String| generator(b).replace("s3:::source", "s3:::guarded");
    let id = world.create(guarded).await;
    world.wait_for(&id, "Suspended").await;
    assert_eq!(world.pinned(&id), "guarded,a\n");
    let statuses = "<Filter><ObjectReplicationStatuses><member>NONE</member></ObjectReplicationStatuses></Filter>\
                    <EnableManifestOutput>";
    let asks = |b: String| guarded(b).replace("<EnableManifestOutput>", statuses).replace("tok-1", "tok-2");
    let id = world.create(asks).await;
    let described = world.wait_for(&id, "Failed").await;
    assert!(described.contains("Listing the source bucket failed: AccessDenied<"), "{described}");
    assert!(described.contains("listing guarded needs the right s3:ListBucketVersions"), "{described}");
}
