//! A generated manifest: a listing of a bucket, filtered; saved where the job asks for it.
//!
//! The rows are pinned first and the list is written from what is pinned, so that both are the same. Its objects have
//! names that follow from the job alone: a repeat after a crash overwrites them, `manifest.json` last, and the job names
//! it only when it leaves Preparing.

use std::io::Write;
use std::path::Path;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use longshore_core::filter::{Candidate, Facts, Filter, Verdict};
use longshore_core::inventory::{self, WrittenFile};
use longshore_core::manifest::{Column, RowFormat, write_row};
use longshore_core::task::VersionId;
use longshore_store::StoreError;
use md5::{Digest, Md5};
use sha1::Sha1;

use super::super::role::JobObjects;
use super::{Prepared, Unprepared, failed, pinning};
use crate::engine::patience::{GaveUp, Patience, patiently};
use crate::engine::{Engine, pinned, spool_dir};
use crate::error::FailureReason;
use crate::ledger::GeneratedManifest;
use crate::ports::{Access, Encryption, ListPage, ListQuery, Listed, ObjectError, ObjectFacts, PutBody, PutTerms};
use crate::shape::{Generator, ManifestEncryption, Output};

/// Objects looked at at once where the listing does not say enough: a round trip each, so that a page of 1,000 takes
/// some 60 of them one after another.
const FACTS_AT_ONCE: usize = 16;
/// Bytes of rows in one data file before it is compressed: a few MB in the bucket, some 2 million rows.
const DATA_FILE_BYTES_MAX: u64 = 256 << 20;

pub(super) async fn pin(
    engine: &Engine,
    objects: &JobObjects,
    job_id: &str,
    generator: &Generator,
) -> Result<Prepared, Unprepared> {
    if generator.asks_for_replication_rules() {
        let text = "EligibleForReplication cannot be decided: this server does not know the bucket's replication rules";
        return Err(failed("ReplicationRulesUnknown", text));
    }
    let filter = generator.filter();
    let query = ListQuery { prefix: filter.prefix.clone().unwrap_or_default(), versions: true, after: None };
    let unlistable = |versions: bool, mut error: ObjectError| {
        if error.code == "AccessDenied" {
            let right = if versions { "s3:ListBucketVersions" } else { "s3:ListBucket" };
            error.message = format!("listing {} needs the right {right}: {}", generator.bucket(), error.message);
        }
        unlisted(error)
    };
    // Whose a bucket is, and whether it is there, is told to those whose role may use it.
    if let Some(owner) = &generator.expected_bucket_owner {
        let list = |versions| Access::List { bucket: generator.bucket(), prefix: &query.prefix, versions };
        let either = objects.may(list(true)).or_else(|_| objects.may(list(false)));
        either.map_err(|error| unlistable(false, error))?;
        check_owner(objects, generator.bucket(), owner).await?;
    }
    if let Some(output) = generator.written_to()
        && let Some(owner) = &output.expected_bucket_owner
    {
        let key = manifest_key(output, job_id);
        let encryption = encryption(output);
        let allowed = patiently(engine, Patience::Agent, &key, || objects.may_put(output.bucket(), &key, &encryption));
        allowed.await.map_err(|gave_up| unwritten(job_id, output, gave_up))?;
        check_owner(objects, output.bucket(), owner).await?;
    }
    let (query, first) = match objects.list(generator.bucket(), &query).await {
        // Not every S3 store lists versions, and not everyone who may list a bucket (s3:ListBucket) may list its versions
        // (s3:ListBucketVersions). Where no version is asked for, rows do without.
        Err(error) if ["NotImplemented", "AccessDenied"].contains(&&*error.code) && !filter.takes_versions() => {
            tracing::info!(job = job_id, %error, "versions cannot be listed, so the generated manifest has none");
            let query = ListQuery { versions: false, ..query };
            let first = objects.list(generator.bucket(), &query).await;
            (query, first)
        }
        first => (query, first),
    };
    let versions = query.versions;
    let first = first.map_err(|error| unlistable(versions, error))?;
    let mut columns = vec![Column::Bucket, Column::Key];
    columns.extend(versions.then_some(Column::VersionId));
    let format = RowFormat::new(columns)
        .ok_or_else(|| StoreError::Damaged("the columns of a generated manifest are none".into()))?;
    let rows = pinning::pin(engine, job_id, format, None, |feed| async move {
        let (mut query, mut page) = (query, first);
        loop {
            let next = page.next.take();
            let lines = lines(objects, generator.bucket(), &filter, page, versions).await?;
            if !lines.is_empty() {
                feed.send(lines).await?;
            }
            match next {
                None => return Ok(()),
                Some(next) => query.after = Some(next),
            }
            page = objects.list(generator.bucket(), &query).await.map_err(unlisted)?;
        }
    })
    .await?;
    if rows == 0 {
        return Err(failed("NoKeysFound", "Manifest generation found no keys matching the filter criteria"));
    }
    let generated = match generator.written_to() {
        Some(output) => Some(save(engine, objects, job_id, generator.bucket(), output, versions).await?),
        None => None,
    };
    Ok(Prepared { rows, generated, lineage: None })
}

/// The lines of those objects of a page that the filter takes.
async fn lines(
    objects: &JobObjects,
    bucket: &str,
    filter: &Filter,
    page: ListPage,
    versions: bool,
) -> Result<Bytes, Unprepared> {
    let judged = futures::stream::iter(page.objects).map(|object| async move {
        let verdict = filter.judge(&candidate(&object, None));
        if verdict != Verdict::NeedsFacts {
            return Ok((verdict == Verdict::Taken).then_some(object));
        }
        match objects.facts(bucket, &object.key, object.version_id.as_deref()).await {
            Ok(facts) => Ok((filter.judge(&candidate(&object, Some(&facts))) == Verdict::Taken).then_some(object)),
            // Gone since it was listed.
            Err(error) if ["NoSuchKey", "NoSuchVersion", "NotFound"].contains(&error.code.as_str()) => Ok(None),
            Err(error) => Err(unlisted(error)),
        }
    });
    let taken: Vec<Option<Listed>> = judged.buffered(FACTS_AT_ONCE).try_collect().await?;
    let (mut lines, mut key) = (Vec::new(), String::new());
    for object in taken.into_iter().flatten() {
        key.clear();
        inventory::encode_key(&object.key, &mut key);
        // The version without an ID is named null, and so is every object of a store that has none.
        let version = object.version_id.as_deref().filter(|version| !version.is_empty()).unwrap_or("null");
        write_row(&mut lines, bucket, &key, versions.then_some(version));
    }
    Ok(lines.into())
}

fn candidate<'a>(object: &'a Listed, facts: Option<&'a ObjectFacts>) -> Candidate<'a> {
    Candidate {
        key: &object.key,
        size: object.size,
        created_ms: object.modified_ms,
        storage_class: &object.storage_class,
        is_latest: object.is_latest,
        is_delete_marker: object.is_delete_marker,
        facts: facts.map(|facts| Facts {
            encryption: facts.encryption.as_deref(),
            kms_key_arn: facts.kms_key_arn.as_deref(),
            bucket_key_enabled: facts.bucket_key_enabled,
            customer_key: facts.customer_key,
            replication_status: facts.replication_status.as_deref(),
        }),
    }
}

async fn check_owner(objects: &JobObjects, bucket: &str, account: &str) -> Result<(), Unprepared> {
    match objects.check_owner(bucket, account).await {
        Ok(()) => Ok(()),
        Err(error) if error.code == "AccessDenied" => {
            Err(failed("BucketOwnerMismatch", format!("The bucket {bucket} does not belong to the account {account}")))
        }
        Err(error) => Err(unlisted(error)),
    }
}

fn unlisted(error: ObjectError) -> Unprepared {
    match error.passing {
        true => Unprepared::Unavailable(error),
        false => {
            let reason = format!("Listing the source bucket failed: {}", error.code);
            Unprepared::Failed(
                super::FailureReason::new("ManifestGenerationFailed", reason).detailed(error.to_string()),
            )
        }
    }
}

/// Where the list's files lie. Joined verbatim, as the report's are: a prefix that ends in `/` gives `//`.
fn base(output: &Output, job_id: &str) -> String {
    let prefix = output.prefix.as_deref().map_or(String::new(), |prefix| format!("{prefix}/"));
    format!("{prefix}{job_id}/")
}

fn manifest_key(output: &Output, job_id: &str) -> String {
    format!("{}manifest.json", base(output, job_id))
}

fn unwritten(job_id: &str, output: &Output, gave_up: GaveUp) -> Unprepared {
    let error = match gave_up {
        GaveUp::Refused(error) => error,
        GaveUp::NotNow(error) => return error.into(),
    };
    tracing::info!(job = job_id, %error, "a generated manifest cannot be written");
    let reason = "Error occurred when preparing manifest: Failed to write manifest";
    let reason = FailureReason::new("ManifestOutputFailed", reason);
    Unprepared::Failed(reason.detailed(format!("{}: {error}", output.bucket())))
}

/// With which encryption a generated manifest is put into its bucket.
fn encryption(output: &Output) -> Encryption {
    match &output.encryption {
        None => Encryption::Unasked,
        Some(ManifestEncryption::SseS3) => Encryption::SseS3,
        Some(ManifestEncryption::SseKms { key_id }) => Encryption::SseKms { key_id: Some(key_id.clone()) },
    }
}

/// Writes the pinned rows as an inventory: data files, then the `manifest.json` that names them (rule G-6).
async fn save(
    engine: &Engine,
    objects: &JobObjects,
    job_id: &str,
    source: &str,
    output: &Output,
    versions: bool,
) -> Result<GeneratedManifest, Unprepared> {
    let world = &engine.shared.world;
    let encryption = &encryption(output);
    let put = |key: String, content_type: &'static str, body: PutBody| async move {
        let terms = PutTerms { content_type, encryption };
        let put = patiently(engine, Patience::Agent, "a generated manifest", || {
            objects.put(output.bucket(), &key, terms, body.clone())
        });
        put.await.map_err(|gave_up| unwritten(job_id, output, gave_up))
    };
    let base = base(output, job_id);
    let dir = spool_dir(&world.job_dir(job_id)).join(world.settings.new_id().to_string());
    let made = dir.clone();
    engine.shared.tasks.blocking(move || std::fs::create_dir_all(made).map_err(spooling)).await?;
    let mut files = Vec::new();
    let mut rows =
        Rows { pinned: pinned::Pinned::open(&engine.shared.tasks, &world.job_dir(job_id), None).await?, next: 0 };
    loop {
        let path = dir.join(files.len().to_string());
        let spool = path.clone();
        let written = engine
            .shared
            .tasks
            .blocking(move || data_file(&mut rows, &spool, DATA_FILE_BYTES_MAX).map(|written| (rows, written)));
        let (rest, written) = written.await?;
        rows = rest;
        let Some((size, md5)) = written else { break };
        let key = format!("{base}data/{}.csv.gz", data_file_id(job_id, files.len()));
        let body = PutBody::File(path.clone(), size);
        put(key.clone(), "application/gzip", body).await?;
        engine.shared.tasks.blocking(move || std::fs::remove_file(path).map_err(spooling)).await?;
        files.push(WrittenFile { key, size, md5 });
    }
    let created = (world.settings.wall_clock)().0;
    let json = inventory::write_json(source, output.bucket(), created, versions, &files);
    let key = manifest_key(output, job_id);
    let body = PutBody::Bytes(json.into());
    let etag = put(key.clone(), "application/json", body).await?;
    // What cannot be removed now is removed when the job is over.
    let _ = engine.shared.tasks.blocking(move || std::fs::remove_dir_all(dir).map_err(spooling)).await;
    Ok(GeneratedManifest { object_arn: format!("arn:aws:s3:::{}/{key}", output.bucket()), etag })
}

fn spooling(error: std::io::Error) -> StoreError {
    pinned::io("spooling the generated manifest")(error)
}

/// The name of a data file: a UUID, as AWS names them, the same at every try.
fn data_file_id(job_id: &str, number: usize) -> uuid::Uuid {
    let digest: [u8; 20] = Sha1::new().chain_update(job_id).chain_update(number.to_be_bytes()).finalize().into();
    let mut first = [0; 16];
    first.copy_from_slice(&digest[..16]);
    uuid::Builder::from_sha1_bytes(first).into_uuid()
}

/// The pinned rows from one on.
struct Rows {
    pinned: pinned::Pinned,
    next: u64,
}

/// Writes the next rows, until they take `bytes_max` before compression, as one data file. Returns its size and MD5;
/// `None` if there were no more rows. Blocks. Memory: a chunk of rows.
fn data_file(rows: &mut Rows, path: &Path, bytes_max: u64) -> Result<Option<(u64, [u8; 16])>, StoreError> {
    if rows.next == rows.pinned.rows() {
        return Ok(None);
    }
    let file = std::fs::File::create(path).map_err(spooling)?;
    let hashed = Hashed { file, md5: Md5::new(), size: 0 };
    let mut gzip = flate2::write::GzEncoder::new(hashed, flate2::Compression::default());
    let (mut inflated, mut text) = (0, String::new());
    while inflated < bytes_max && rows.next < rows.pinned.rows() {
        text.clear();
        let tasks = rows.pinned.read_from(rows.next)?;
        rows.next += tasks.len() as u64;
        for task in &tasks {
            text.push_str(&format!("\"{}\",\"{}\"", task.bucket, task.key));
            match &task.version {
                VersionId::Given(version) => text.push_str(&format!(",\"{version}\"")),
                VersionId::NoColumn | VersionId::Missing => {}
            }
            text.push('\n');
        }
        inflated += text.len() as u64;
        gzip.write_all(text.as_bytes()).map_err(spooling)?;
    }
    let hashed = gzip.finish().map_err(spooling)?;
    Ok(Some((hashed.size, hashed.md5.finalize().into())))
}

/// Counts and hashes what goes to a file.
struct Hashed {
    file: std::fs::File,
    md5: Md5,
    size: u64,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.md5.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use longshore_store::Ground;

    use super::*;

    fn pinned(dir: &Path, rows: u64) {
        let format = RowFormat::new(vec![Column::Bucket, Column::Key, Column::VersionId]).unwrap();
        let lines: String = (0..rows).map(|row| format!("b,key-{row},null\n")).collect();
        let mut edges = Vec::new();
        format.check(0, lines.as_bytes(), &mut edges).unwrap();
        let mut writer = pinned::Writer::create(&Ground::Threads, dir, format, None).unwrap();
        writer.push(lines.as_bytes(), rows, &edges).unwrap();
        writer.finish().unwrap();
    }

    #[tokio::test]
    async fn a_list_is_split_at_a_size_and_says_every_row_once_in_order() {
        let dir = tempfile::tempdir().unwrap();
        pinned(dir.path(), 5_000);
        let mut rows = Rows {
            pinned: pinned::Pinned::open(&crate::engine::tasks::Tasks::new(crate::Ground::Threads), dir.path(), None)
                .await
                .unwrap(),
            next: 0,
        };
        let path = dir.path().join("part");
        let (mut text, mut files) = (String::new(), 0);
        while let Some((size, md5)) = data_file(&mut rows, &path, 40_000).unwrap() {
            let stored = std::fs::read(&path).unwrap();
            assert_eq!((stored.len() as u64, Md5::digest(&stored).into()), (size, md5));
            flate2::read::GzDecoder::new(&stored[..]).read_to_string(&mut text).unwrap();
            files += 1;
        }
        let wanted: String = (0..5_000).map(|row| format!("\"b\",\"key-{row}\",\"null\"\n")).collect();
        assert_eq!((files, text == wanted), (3, true));
    }

    #[test]
    fn data_files_of_a_job_have_names_of_their_own_that_never_change() {
        assert_eq!(data_file_id("job", 0), data_file_id("job", 0));
        assert_ne!(data_file_id("job", 0), data_file_id("job", 1));
        assert_ne!(data_file_id("job", 0), data_file_id("other", 0));
        assert_eq!(data_file_id("job", 0).to_string().len(), 36);
    }
}
