//! Inventories whose rows run while their data files are still on their way (decision 0035).

use std::io::Write;
use std::path::PathBuf;

use futures::StreamExt;
use tokio::sync::watch;

use super::*;

/// A shelf whose data files are given up to some byte, and further only when they may.
struct Halting {
    shelf: Arc<Shelf>,
    /// By the key of a data file: how many bytes come at once.
    halts: Mutex<BTreeMap<String, watch::Receiver<usize>>>,
    /// By the key of a data file: what its ETag is; its MD5 where there is none.
    etags: Mutex<BTreeMap<String, &'static str>>,
    /// The code with which every data file is refused for good.
    refused: Mutex<Option<&'static str>>,
}

#[async_trait::async_trait]
impl Objects for Halting {
    async fn get(&self, bucket: &str, key: &str, version: Option<&str>) -> Result<ObjectBody, ObjectError> {
        if !key.starts_with("data/") {
            return self.shelf.get(bucket, key, version).await;
        }
        if let Some(code) = *self.refused.lock().unwrap() {
            let message = format!("s3://{bucket}/{key}: no");
            return Err(ObjectError { code: code.into(), message, passing: false });
        }
        let body = self.shelf.0.lock().unwrap()[&format!("{bucket}/{key}")].clone();
        let etag = match self.etags.lock().unwrap().get(key) {
            Some(etag) => (*etag).to_owned(),
            None => md5_of(&body),
        };
        let size = body.len();
        let halt = self.halts.lock().unwrap()[key].clone();
        let stream = futures::stream::iter((0..size).step_by(999)).then(move |from| {
            let to = size.min(from + 999);
            let (piece, mut halt) = (body.slice(from..to), halt.clone());
            async move {
                let _ = halt.wait_for(|halt| to <= *halt).await;
                Ok(piece)
            }
        });
        Ok(ObjectBody { etag: format!("\"{etag}\""), size: Some(size as u64), tags: None, stream: Box::pin(stream) })
    }

    async fn put(&self, bucket: &str, key: &str, terms: PutTerms<'_>, body: PutBody) -> Result<String, ObjectError> {
        self.shelf.put(bucket, key, terms, body).await
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

fn md5_of(bytes: &[u8]) -> String {
    hex::encode(<md5::Md5 as md5::Digest>::digest(bytes))
}

fn gzip(text: &str) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    gzip.finish().unwrap()
}

/// Keys that hardly shrink, so that half of a file has about half of them.
fn spread(from: usize, rows: usize) -> Vec<String> {
    (from..from + rows).map(|n| format!("{:016x}-{n}", (n as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15))).collect()
}

fn text_of(keys: &[String]) -> String {
    keys.iter().map(|key| format!("\"7\",\"b\",\"{key}\"\n")).collect()
}

struct Halted {
    world: World,
    store: Arc<Halting>,
    halts: Vec<watch::Sender<usize>>,
    files: usize,
}

impl Halted {
    /// A world with these data files, each of which comes as far as its half.
    async fn new(files: &[Vec<u8>]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (shelf, function) = (Arc::new(Shelf::default()), Function::new());
        let mut listed = Vec::new();
        let (mut halts, mut halted) = (Vec::new(), BTreeMap::new());
        for (number, file) in files.iter().enumerate() {
            let (halt, until) = watch::channel(file.len() / 2);
            let key = format!("data/{number}");
            listed.push(serde_json::json!({"key": key, "MD5checksum": md5_of(file)}));
            shelf.0.lock().unwrap().insert(format!("m/{key}"), file.clone().into());
            halted.insert(key, until);
            halts.push(halt);
        }
        let json = serde_json::json!({"fileFormat": "CSV", "fileSchema": "Size, Bucket, Key", "files": listed});
        shelf.0.lock().unwrap().insert("m/manifest.json".into(), json.to_string().into());
        let store = Halting {
            shelf: Arc::clone(&shelf),
            halts: Mutex::new(halted),
            etags: Mutex::default(),
            refused: Mutex::default(),
        };
        let store = Arc::new(store);
        let jobs = Self::open(dir.path(), &store, &function).await;
        Self { world: World { dir, shelf, function, jobs }, store, halts, files: files.len() }
    }

    async fn open(dir: &std::path::Path, store: &Arc<Halting>, function: &Arc<Function>) -> Jobs {
        let fatal = Fatal::new();
        let records = Records::open(&dir.join("records.db"), &[crate::SCHEMA], fatal.clone()).unwrap();
        let settings = crate::Settings::new(ACCOUNT, "us-west-2");
        let (objects, invoker) = (Arc::clone(store) as Arc<dyn Objects>, Arc::clone(function) as Arc<dyn Invoker>);
        Jobs::open(records, dir.join("jobs"), fatal, settings, objects, invoker).await.unwrap()
    }

    async fn restart(&mut self) {
        self.world.jobs.shutdown().await;
        self.world.jobs = Self::open(self.world.dir.path(), &self.store, &self.world.function).await;
    }

    async fn create(&self, early: bool) -> String {
        let create = |body: String| {
            let body = body.replace("S3BatchOperations_CSV_20180820", "S3InventoryReport_CSV_20161130");
            let body = body.replace("m/list.csv", "m/manifest.json");
            match early {
                true => super::beyond::tagged(&body, "longshore:start", "while-preparing"),
                false => body,
            }
        };
        self.world.create(create).await
    }

    fn go(&self, number: usize) {
        self.halts[number].send_replace(usize::MAX);
    }

    fn go_all(&self) {
        (0..self.files).for_each(|number| self.go(number));
    }

    /// Describes the job once it has more than `rows` rows that ran.
    async fn wait_for_more_than(&self, id: &str, rows: usize) -> String {
        for _ in 0..2_000 {
            if self.world.function.calls().len() > rows {
                return self.world.describe(id).await;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("no more than {rows} rows ran: {}", self.world.describe(id).await);
    }

    /// The files that wait for their turn, with what is written of each.
    fn spooled(&self, id: &str) -> Vec<(PathBuf, u64)> {
        let of = |dir: PathBuf| std::fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path());
        let tries = of(self.world.dir.path().join("jobs").join(id).join("prepare"));
        let files = tries.flat_map(of);
        files.map(|path| (path.clone(), std::fs::metadata(path).map_or(0, |file| file.len()))).collect()
    }

    /// Waits until something of the data file `number` is spooled.
    async fn wait_for_spool(&self, id: &str, number: usize) {
        for _ in 0..2_000 {
            let name = number.to_string();
            if self.spooled(id).iter().any(|(path, bytes)| path.ends_with(&name) && *bytes > 0) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("nothing of the data file {number} was spooled: {}", self.world.describe(id).await);
    }

    /// Every row of `keys` ran, and is in the report, once.
    fn assert_each_once(&self, id: &str, keys: &[String]) {
        let mut ran = self.world.function.calls();
        ran.sort();
        let mut wanted = keys.to_vec();
        wanted.sort();
        assert!(ran == wanted, "{} calls for {} rows", ran.len(), wanted.len());
        assert_eq!(self.world.report(id).len(), keys.len());
    }
}

fn total(described: &str) -> usize {
    between(described, "<TotalNumberOfTasks>", "</").parse().unwrap()
}

#[tokio::test]
async fn rows_of_an_inventory_run_while_its_files_are_on_their_way_whether_they_are_packed_or_not() {
    let keys = spread(0, 6_000);
    for pack in [gzip, |text: &str| text.as_bytes().to_vec()] {
        let halted = Halted::new(&[pack(&text_of(&keys))]).await;
        let id = halted.create(true).await;
        let described = halted.wait_for_more_than(&id, 1_500).await;
        assert!(described.contains("<Status>Active</Status>"), "{described}");
        assert!((1_500..4_500).contains(&total(&described)), "{described}");
        assert_eq!(halted.spooled(&id), [], "what is pinned as it comes is not written twice");
        halted.go(0);
        let described = halted.world.wait_for(&id, "Complete").await;
        assert_eq!(total(&described), 6_000);
        halted.assert_each_once(&id, &keys);
    }
}

#[tokio::test]
async fn a_file_that_was_ahead_hands_over_what_it_has_when_its_turn_comes_and_goes_on() {
    let (first, second) = (spread(0, 2_000), spread(2_000, 20_000));
    let halted = Halted::new(&[gzip(&text_of(&first)), gzip(&text_of(&second))]).await;
    let id = halted.create(true).await;
    halted.wait_for_spool(&id, 1).await;
    halted.go(0);
    // The second file stands still at its half, and its rows run all the same.
    let described = halted.wait_for_more_than(&id, 4_000).await;
    assert!(total(&described) < 15_000, "{described}");
    assert_eq!(halted.spooled(&id), [], "a spool file goes when it is handed over");
    halted.go(1);
    halted.world.wait_for(&id, "Complete").await;
    let all = [first, second].concat();
    halted.assert_each_once(&id, &all);
    let ran = halted.world.function.calls();
    assert!(ran[..1_900].iter().all(|key| all[..2_100].contains(key)), "rows go in their order");
}

#[tokio::test]
async fn a_file_that_its_store_does_not_name_by_its_md5_runs_no_row_before_its_end() {
    for (right, wanted) in [(true, "Complete"), (false, "Failed")] {
        let keys = spread(0, 12_000);
        let halted = Halted::new(&[gzip(&text_of(&keys))]).await;
        halted.store.etags.lock().unwrap().insert("data/0".into(), "of-a-multipart-upload-2");
        if !right {
            let other = gzip(&text_of(&spread(1, 12_000)));
            halted.world.shelf.0.lock().unwrap().insert("m/data/0".into(), other.into());
        }
        let id = halted.create(true).await;
        halted.wait_for_spool(&id, 0).await;
        let described = halted.world.describe(&id).await;
        assert!(described.contains("<Status>Preparing</Status>") && total(&described) == 0, "{described}");
        halted.go(0);
        let described = halted.world.wait_for(&id, wanted).await;
        match right {
            true => halted.assert_each_once(&id, &keys),
            false => {
                assert!(described.contains("data/0 has another MD5 than the manifest.json says"), "{described}");
                assert_eq!((total(&described), halted.world.function.calls().len()), (0, 0));
            }
        }
    }
}

#[tokio::test]
async fn a_file_that_is_another_than_its_store_says_fails_an_early_job_at_its_end_and_what_ran_is_reported() {
    let keys = spread(0, 6_000);
    let meant = gzip(&text_of(&keys));
    let halted = Halted::new(std::slice::from_ref(&meant)).await;
    let md5: &'static str = md5_of(&meant).leak();
    halted.store.etags.lock().unwrap().insert("data/0".into(), md5);
    let other = gzip(&text_of(&spread(1, 6_000)));
    halted.world.shelf.0.lock().unwrap().insert("m/data/0".into(), other.into());
    let id = halted.create(true).await;
    halted.wait_for_more_than(&id, 1_500).await;
    halted.go(0);
    let described = halted.world.wait_for(&id, "Failed").await;
    assert!(described.contains("data/0 has another MD5 than the manifest.json says"), "{described}");
    let ran = halted.world.function.calls();
    assert_eq!(halted.world.report(&id).len(), ran.len());
}

#[tokio::test]
async fn an_early_job_goes_on_after_a_restart_and_repeats_no_row_of_its_inventory() {
    let keys = spread(0, 9_000);
    let mut halted = Halted::new(&[gzip(&text_of(&keys[..6_000])), gzip(&text_of(&keys[6_000..]))]).await;
    let id = halted.create(true).await;
    halted.wait_for_more_than(&id, 1_500).await;
    halted.restart().await;
    let described = halted.wait_for_more_than(&id, 1_500).await;
    assert!(total(&described) >= 1_500, "{described}");
    halted.go_all();
    halted.world.wait_for(&id, "Complete").await;
    halted.assert_each_once(&id, &keys);
}

#[tokio::test]
async fn a_data_file_that_is_replaced_between_two_runs_of_an_early_job_fails_it_before_one_of_its_rows_runs() {
    let keys = spread(0, 6_000);
    let mut halted = Halted::new(&[gzip(&text_of(&keys))]).await;
    let id = halted.create(true).await;
    halted.wait_for_more_than(&id, 1_500).await;
    let other = gzip(&text_of(&spread(100_000, 6_000)));
    halted.world.shelf.0.lock().unwrap().insert("m/data/0".into(), other.into());
    halted.restart().await;
    halted.go_all();
    let described = halted.world.wait_for(&id, "Failed").await;
    assert!(described.contains("data/0 has another MD5 than the manifest.json says"), "{described}");
    let ran = halted.world.function.calls();
    assert!(ran.iter().all(|key| keys.contains(key)), "a row of the other file ran");
    assert_eq!(halted.world.report(&id).len(), ran.len());
}

#[tokio::test]
async fn a_bad_row_of_an_inventory_that_is_found_late_fails_an_early_job_and_what_ran_is_reported() {
    let keys = spread(0, 6_000);
    let halted = Halted::new(&[gzip(&(text_of(&keys) + "\"7\",\"b\",\"%zz\"\n"))]).await;
    let id = halted.create(true).await;
    halted.wait_for_more_than(&id, 1_500).await;
    halted.go(0);
    let described = halted.world.wait_for(&id, "Failed").await;
    assert!(described.contains("<FailureReason>Invalid object key format</FailureReason>"), "{described}");
    assert!(described.contains("data/0: Row 6001: its key has a %"), "{described}");
    assert_eq!(halted.world.report(&id).len(), halted.world.function.calls().len());
}

#[tokio::test]
async fn without_an_early_start_no_row_runs_before_the_last_one_is_checked() {
    let keys = spread(0, 12_000);
    let halted = Halted::new(&[gzip(&text_of(&keys)), gzip(&text_of(&spread(12_000, 12_000)))]).await;
    let other = gzip(&text_of(&spread(12_001, 12_000)));
    halted.world.shelf.0.lock().unwrap().insert("m/data/1".into(), other.into());
    let id = halted.create(false).await;
    halted.wait_for_spool(&id, 1).await;
    halted.go_all();
    let described = halted.world.wait_for(&id, "Failed").await;
    assert!(described.contains("data/1 has another MD5 than the manifest.json says"), "{described}");
    assert_eq!((total(&described), halted.world.function.calls().len()), (0, 0));
}

#[tokio::test]
async fn a_data_file_that_is_damaged_is_not_taken_for_one_that_the_inventory_names_wrongly() {
    for (code, wanted, said) in [
        (ObjectError::DAMAGED, "ManifestDamaged", "Reading the manifest failed: s3://m/data/0: no"),
        ("NoSuchKey", "InvalidManifestContent", "Invalid Manifest Content: data/0 cannot be read: NoSuchKey"),
    ] {
        let halted = Halted::new(&[text_of(&spread(0, 3)).into_bytes()]).await;
        *halted.store.refused.lock().unwrap() = Some(code);
        let described = halted.world.wait_for(&halted.create(false).await, "Failed").await;
        assert!(described.contains(&format!("<FailureCode>{wanted}</FailureCode>")), "{described}");
        assert!(described.contains(&format!("<FailureReason>{said}</FailureReason>")), "{described}");
    }
}
