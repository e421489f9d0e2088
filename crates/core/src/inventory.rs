//! S3 Inventory: its `manifest.json`, and the names of its columns. Source: S3 Batch spec 3.3.

use serde::Deserialize;

use crate::manifest::{Column, RowFormat};

/// A `manifest.json`, at most: 200 bytes a data file and some tens of thousands of them, each of which may hold millions
/// of rows.
pub const JSON_BYTES_MAX: usize = 16 << 20;

/// How the data files lie in their objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    /// Each file gzip or not, as its first bytes tell (rule INV-3).
    Csv,
    Parquet,
    Orc,
}

/// One object with rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataFile {
    pub key: String,
    /// Of the stored object; `None` where a list made by hand does not say.
    pub md5: Option<[u8; 16]>,
}

/// An inventory as its `manifest.json` describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    /// Where the data files lie; `None` for the bucket of the `manifest.json` (rule INV-4).
    pub bucket: Option<String>,
    pub format: FileFormat,
    /// The columns of a CSV data file in their order; for the other formats, those of ours that the files have.
    pub columns: Vec<Column>,
    /// In the order in which their rows count.
    pub files: Vec<DataFile>,
}

/// Why a `manifest.json` cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// No JSON, or not of this form.
    Unreadable,
    Format(String),
    /// Bucket and Key that the schema lacks.
    Missing(Vec<&'static str>),
    /// A column that stands twice.
    Twice,
    Md5(String),
}

impl Fault {
    /// AWS's own sentence, where there is one (spec 2.7).
    pub fn reason(&self) -> String {
        match self {
            Self::Unreadable => "Manifest file is not properly formatted".into(),
            Self::Format(format) => format!("Invalid Manifest Content: the fileFormat {format} is not known"),
            Self::Missing(names) => format!("Required fields are missing in the schema: {}", names.join(", ")),
            Self::Twice => "Invalid Manifest Content: the fileSchema names a column twice".into(),
            Self::Md5(key) => format!("Invalid Manifest Content: the MD5checksum of {key} is none"),
        }
    }
}

/// What is read of the document; other members are ignored.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    destination_bucket: Option<String>,
    file_format: String,
    file_schema: String,
    files: Vec<File>,
}

#[derive(Deserialize)]
struct File {
    key: String,
    #[serde(rename = "MD5checksum")]
    md5: Option<String>,
}

impl Inventory {
    /// Reads a `manifest.json` of at most [`JSON_BYTES_MAX`] bytes.
    pub fn parse(json: &[u8]) -> Result<Self, Fault> {
        let document: Document = serde_json::from_slice(json).map_err(|_| Fault::Unreadable)?;
        let format = match document.file_format.as_str() {
            "CSV" => FileFormat::Csv,
            "Parquet" => FileFormat::Parquet,
            "ORC" => FileFormat::Orc,
            other => return Err(Fault::Format(other.to_owned())),
        };
        let columns = match format {
            FileFormat::Csv => csv_columns(&document.file_schema),
            FileFormat::Parquet | FileFormat::Orc => table_columns(&document.file_schema),
        };
        let missing: Vec<_> = [("Bucket", Column::Bucket), ("Key", Column::Key)]
            .into_iter()
            .filter(|(_, column)| !columns.contains(column))
            .map(|(name, _)| name)
            .collect();
        if !missing.is_empty() {
            return Err(Fault::Missing(missing));
        }
        if RowFormat::new(columns.clone()).is_none() {
            return Err(Fault::Twice);
        }
        let bucket = document.destination_bucket.map(|bucket| bucket_name(&bucket).to_owned());
        let files = document.files.into_iter().map(|file| {
            let md5 = match file.md5 {
                None => None,
                Some(text) => {
                    let mut md5 = [0; 16];
                    hex::decode_to_slice(&text, &mut md5).map_err(|_| Fault::Md5(file.key.clone()))?;
                    Some(md5)
                }
            };
            Ok(DataFile { key: file.key, md5 })
        });
        Ok(Self {
            bucket: bucket.filter(|bucket| !bucket.is_empty()),
            format,
            files: files.collect::<Result<_, Fault>>()?,
            columns,
        })
    }

    pub fn has_versions(&self) -> bool {
        self.columns.contains(&Column::VersionId)
    }

    /// How the rows are pinned, whatever the files hold besides: Bucket, Key and, if there is one, VersionId.
    pub fn pinned_columns(&self) -> Vec<Column> {
        let mut columns = vec![Column::Bucket, Column::Key];
        columns.extend(self.has_versions().then_some(Column::VersionId));
        columns
    }
}

/// `Bucket, Key, VersionId, Size`: names in their order, whatever we do not use counts as ignored (rule INV-2).
fn csv_columns(schema: &str) -> Vec<Column> {
    let named = |name: &str| match Column::parse(name) {
        Some(column) => column,
        None => Column::Ignore,
    };
    schema.split(',').map(|name| named(name.trim())).collect()
}

/// `message s3.inventory { required binary bucket (UTF8); … }` and `struct<bucket:string,key:string,…>`: the words tell.
fn table_columns(schema: &str) -> Vec<Column> {
    let has = |name| schema.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == name);
    let names = [("bucket", Column::Bucket), ("key", Column::Key), ("version_id", Column::VersionId)];
    names.into_iter().filter(|(name, _)| has(*name)).map(|(_, column)| column).collect()
}

/// The bucket of `arn:aws:s3:::bucket`; a plain name is taken as one.
fn bucket_name(text: &str) -> &str {
    match text.strip_prefix("arn:").and_then(|rest| rest.split_once(":s3:::")) {
        Some((_, bucket)) => bucket,
        None => text,
    }
}

/// Writes an object's key as S3 Inventory does and as a manifest wants it: percent-encoded per UTF-8 byte, with
/// unreserved characters and `/` bare, so that readers that take `+` for a space and those that do not agree.
///
/// Source: rule G-7.
pub fn encode_key(key: &str, into: &mut String) {
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/') {
            into.push(char::from(byte));
        } else {
            const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
            into.push('%');
            into.push(char::from(DIGITS[usize::from(byte >> 4)]));
            into.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
}

/// Writes the `manifest.json` of an inventory of CSV data files in one bucket, as of `created_ms` (milliseconds since
/// 1970); `versions` says whether their rows have a third column. Source: rule G-6; it reads back with [`Inventory::parse`].
pub fn write_json(source_bucket: &str, bucket: &str, created_ms: i64, versions: bool, files: &[WrittenFile]) -> String {
    let files: Vec<_> = files
        .iter()
        .map(|file| serde_json::json!({"key": file.key, "size": file.size, "MD5checksum": hex::encode(file.md5)}))
        .collect();
    let document = serde_json::json!({
        "sourceBucket": source_bucket,
        "destinationBucket": format!("arn:aws:s3:::{bucket}"),
        "version": "2016-11-30",
        "creationTimestamp": created_ms.to_string(),
        "fileFormat": "CSV",
        "fileSchema": if versions { "Bucket, Key, VersionId" } else { "Bucket, Key" },
        "files": files,
    });
    document.to_string()
}

/// A data file that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenFile {
    pub key: String,
    /// Bytes as stored.
    pub size: u64,
    /// Of the bytes as stored.
    pub md5: [u8; 16],
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = r#"{ "sourceBucket": "example-source-bucket",
  "destinationBucket": "arn:aws:s3:::example-inventory-destination-bucket",
  "version": "2016-11-30", "creationTimestamp": "1514944800000", "fileFormat": "CSV",
  "fileSchema": "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size",
  "files": [ { "key": "Inventory/a/files/939c6d46.csv.gz", "size": 2147483647,
               "MD5checksum": "f11166069f1990abeb9c97ace9cdfabc" } ] }"#;

    #[test]
    fn the_documented_sample_is_read() {
        use Column::{Bucket, Ignore, Key, VersionId};
        let read = Inventory::parse(SAMPLE.as_bytes()).unwrap();
        assert_eq!(read.bucket.as_deref(), Some("example-inventory-destination-bucket"));
        assert_eq!((read.format, read.files.len()), (FileFormat::Csv, 1));
        assert_eq!(read.columns, [Bucket, Key, VersionId, Ignore, Ignore, Ignore]);
        assert_eq!(read.pinned_columns(), [Bucket, Key, VersionId]);
        assert_eq!(hex::encode(read.files[0].md5.unwrap()), "f11166069f1990abeb9c97ace9cdfabc");
    }

    #[test]
    fn columns_are_found_by_name_whatever_separates_them() {
        for (format, schema, wanted) in [
            ("CSV", "Size,Key,Bucket", vec![Column::Ignore, Column::Key, Column::Bucket]),
            (
                "Parquet",
                "message s3.inventory { required binary bucket (UTF8); required binary key (UTF8); optional int64 size; }",
                vec![Column::Bucket, Column::Key],
            ),
            (
                "ORC",
                "struct<bucket:string,key:string,version_id:string,is_latest:boolean>",
                vec![Column::Bucket, Column::Key, Column::VersionId],
            ),
        ] {
            let json = serde_json::json!({"fileFormat": format, "fileSchema": schema, "files": []}).to_string();
            assert_eq!(Inventory::parse(json.as_bytes()).unwrap().columns, wanted, "{schema}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_in_aws_s_words() {
        for (from, to, wanted) in [
            ("\"fileFormat\"", "\"otherFormat\"", "Manifest file is not properly formatted"),
            ("{ \"source", "\"source", "Manifest file is not properly formatted"),
            ("\"CSV\"", "\"XML\"", "Invalid Manifest Content: the fileFormat XML is not known"),
            ("Bucket, Key", "Size, Owner", "Required fields are missing in the schema: Bucket, Key"),
            ("Bucket, Key", "Bucket, Key, Key", "Invalid Manifest Content: the fileSchema names a column twice"),
            ("f11166", "xyz", "Invalid Manifest Content: the MD5checksum of Inventory/a/files/939c6d46.csv.gz is none"),
        ] {
            let json = SAMPLE.replacen(from, to, 1);
            assert_ne!(json, SAMPLE, "{from}");
            assert_eq!(Inventory::parse(json.as_bytes()).unwrap_err().reason(), wanted);
        }
    }

    #[test]
    fn a_bucket_is_named_by_arn_or_by_name_or_not_at_all() {
        for (given, wanted) in [
            (serde_json::json!("arn:aws:s3:::b"), Some("b")),
            (serde_json::json!("arn:aws-cn:s3:::b"), Some("b")),
            (serde_json::json!("b"), Some("b")),
            (serde_json::json!(""), None),
            (serde_json::json!("arn:aws:s3:::"), None),
            (serde_json::json!(null), None),
        ] {
            let json = serde_json::json!(
                {"destinationBucket": given, "fileFormat": "CSV", "fileSchema": "Bucket,Key", "files": []}
            );
            assert_eq!(Inventory::parse(json.to_string().as_bytes()).unwrap().bucket.as_deref(), wanted);
        }
    }

    #[test]
    fn a_written_key_decodes_the_same_with_and_without_plus_as_space() {
        for (key, wanted) in [
            ("plain/key-1_~.txt", "plain/key-1_~.txt"),
            ("a b", "a%20b"),
            ("a+b", "a%2Bb"),
            ("100%", "100%25"),
            ("x,y\"z", "x%2Cy%22z"),
            ("日", "%E6%97%A5"),
            ("line\nbreak", "line%0Abreak"),
        ] {
            let mut written = String::new();
            encode_key(key, &mut written);
            assert_eq!(written, wanted);
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let files = [WrittenFile { key: "p/data/1.csv.gz".into(), size: 7, md5: [0xab; 16] }];
        let read = Inventory::parse(write_json("s", "d", 5, true, &files).as_bytes()).unwrap();
        assert_eq!(read.bucket.as_deref(), Some("d"));
        assert_eq!(read.files, [DataFile { key: "p/data/1.csv.gz".into(), md5: Some([0xab; 16]) }]);
        assert!(read.has_versions());
    }
}
