//! Reads inventories whose data files lie by column, in Parquet and ORC, behind the engine's port
//! [`Columnar`](longshore_jobs::ports::Columnar).
//!
//! What S3 Inventory writes, and no more: flat tables, the columns `bucket`, `key` and `version_id` as strings, and the
//! encodings and compressions of its writers; anything else is refused by name. Files may be hostile: no length in them
//! is believed before it was held against a limit, and memory is bounded by pages and blocks, not by the file.

#![forbid(unsafe_code)]

mod bytes;
mod orc;
mod parquet;
mod protobuf;
mod thrift;

use std::fs::File;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use longshore_jobs::ports::{Columnar, TableFormat, TableRow};

/// Why a file is no table that we read, in words for whoever wrote it.
type Read<T> = Result<T, String>;

/// A bucket, key or version is never longer; what is longer is not copied.
const VALUE_BYTES_MAX: usize = 16 << 10;
/// A footer, stored and inflated: some 100 bytes a column of a row group or stripe, of which a file has at most some
/// hundreds.
const FOOTER_BYTES_MAX: u64 = 16 << 20;

/// The reader of both formats.
pub struct Tables;

impl Columnar for Tables {
    fn read(
        &self,
        format: TableFormat,
        file: &Path,
        versions: bool,
        each: &mut dyn FnMut(TableRow<'_>) -> ControlFlow<()>,
    ) -> Result<(), String> {
        let file = File::open(file).map_err(|error| error.to_string())?;
        // Nothing below should panic; if it does, one job fails and not the server.
        let read = catch_unwind(AssertUnwindSafe(|| match format {
            TableFormat::Parquet => parquet::read(&file, versions, each),
            TableFormat::Orc => orc::read(&file, versions, each),
        }));
        read.unwrap_or_else(|_| Err("the reader panicked".into()))
    }
}

/// One column of strings, value by value.
trait Column {
    /// Replaces what is in `into` by the next value; `false` for a null, which leaves it empty.
    fn next(&mut self, into: &mut Vec<u8>) -> Read<bool>;
}

/// Hands out `rows` rows of columns that run in step. Whether the caller wants more.
fn rows<C: Column>(
    rows: u64,
    bucket: &mut C,
    key: &mut C,
    mut version: Option<&mut C>,
    each: &mut dyn FnMut(TableRow<'_>) -> ControlFlow<()>,
) -> Read<ControlFlow<()>> {
    let text = |bytes: &[u8], name: &str| -> Read<String> {
        String::from_utf8(bytes.to_vec()).map_err(|_| format!("a {name} is not UTF-8"))
    };
    let (mut buckets, mut keys, mut versions) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rows {
        if !bucket.next(&mut buckets)? || !key.next(&mut keys)? {
            return Err("a row has no bucket or no key".into());
        }
        let given = match &mut version {
            Some(version) => version.next(&mut versions)?,
            None => false,
        };
        let version = if given { Some(text(&versions, "version_id")?) } else { None };
        let (bucket, key) = (text(&buckets, "bucket")?, text(&keys, "key")?);
        if each(TableRow { bucket: &bucket, key: &key, version: version.as_deref() }).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

#[cfg(test)]
mod tests;
