//! `ManifestGenerator`: the manifest is made from a listing of a bucket. Source: S3 Batch spec 3.6.
//!
//! Every member is kept as it was sent, for DescribeJob; [`Generator::filter`] says what it means.

use longshore_core::filter::{self, Filter};
use longshore_core::time::Timestamp;
use longshore_wire::arn;
use longshore_wire::xml::{Element, Writer};
use serde::{Deserialize, Serialize};

use super::members::Members;
use super::{Checked, invalid, is_account, is_special_bucket, optional_text, text};
use crate::operations::iso;

/// The one format in which a generated manifest is written.
pub const GENERATED_FORMAT: &str = "S3InventoryReport_CSV_20211130";
/// Entries of a list of words, at most: more than there are words.
const WORDS_MAX: usize = 20;
const STORAGE_CLASSES: [&str; 7] =
    ["STANDARD", "STANDARD_IA", "ONEZONE_IA", "GLACIER", "INTELLIGENT_TIERING", "DEEP_ARCHIVE", "GLACIER_IR"];

/// An `S3JobManifestGenerator`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generator {
    /// 12 digits.
    pub expected_bucket_owner: Option<String>,
    /// An ARN.
    pub source_bucket: String,
    /// Where the list is saved, if [`Generator::output_enabled`].
    pub output: Option<Output>,
    pub output_enabled: bool,
    /// Whether a `Filter` element was there, even an empty one.
    filter: Option<FilterShape>,
}

/// A `ManifestOutputLocation`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// 12 digits.
    pub expected_bucket_owner: Option<String>,
    /// An ARN.
    pub bucket: String,
    pub prefix: Option<String>,
    pub encryption: Option<ManifestEncryption>,
}

/// A `GeneratedManifestEncryption`: how the saved list is to be encrypted by the store that it is put into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ManifestEncryption {
    SseS3,
    SseKms { key_id: String },
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct FilterShape {
    eligible_for_replication: Option<bool>,
    /// As sent: ISO 8601.
    created_after: Option<String>,
    created_before: Option<String>,
    replication_statuses: Option<Vec<String>>,
    key_names: Option<KeyNames>,
    size_greater: Option<i64>,
    size_less: Option<i64>,
    storage_classes: Option<Vec<String>>,
    encryption: Option<Encryption>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct KeyNames {
    prefix: Option<String>,
    suffix: Option<String>,
    substring: Option<String>,
}

/// An `ObjectEncryptionFilter`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Encryption {
    SseS3,
    SseKms { key_arn: Option<String>, bucket_key: Option<bool> },
    DsseKms { key_arn: Option<String> },
    SseC,
    NotSse,
}

impl Generator {
    pub(super) fn parse(element: &Element) -> Checked<Self> {
        let [generator] = element.children.as_slice() else {
            return invalid("ManifestGenerator must have exactly one member");
        };
        if generator.name != "S3JobManifestGenerator" {
            return invalid(format!("ManifestGenerator has an unknown member {}", generator.name));
        }
        let Some(output_enabled) = Members::loose(generator, "").boolean("EnableManifestOutput")? else {
            return invalid("EnableManifestOutput is required");
        };
        let output = generator.child("ManifestOutputLocation").map(Output::parse).transpose()?;
        if output_enabled && output.is_none() {
            return invalid("EnableManifestOutput needs a ManifestOutputLocation");
        }
        Ok(Self {
            expected_bucket_owner: owner(generator, "ExpectedBucketOwner")?,
            source_bucket: bucket(generator, "SourceBucket")?,
            output,
            output_enabled,
            filter: generator.child("Filter").map(FilterShape::parse).transpose()?,
        })
    }

    /// Plain name of the bucket that is listed.
    pub fn bucket(&self) -> &str {
        // Checked when it was parsed.
        arn::bucket_of(&self.source_bucket).unwrap_or_default()
    }

    /// Where the list is to be saved, if it is.
    pub fn written_to(&self) -> Option<&Output> {
        self.output.as_ref().filter(|_| self.output_enabled)
    }

    /// Whether objects are to be chosen by the bucket's replication rules.
    pub fn asks_for_replication_rules(&self) -> bool {
        self.filter.as_ref().is_some_and(|filter| filter.eligible_for_replication.is_some())
    }

    /// What the filter means.
    pub fn filter(&self) -> Filter {
        let Some(shape) = &self.filter else { return Filter::default() };
        let names = shape.key_names.as_ref();
        // All of it was checked when it was parsed.
        let time = |text: &Option<String>| text.as_deref().and_then(|t| timestamp("", t).ok());
        let statuses = shape.replication_statuses.iter().flatten();
        Filter {
            replication_statuses: statuses.filter_map(|status| filter::Replication::parse(status)).collect(),
            created_after_ms: time(&shape.created_after),
            created_before_ms: time(&shape.created_before),
            prefix: names.and_then(|n| n.prefix.clone()),
            suffix: names.and_then(|n| n.suffix.clone()),
            substring: names.and_then(|n| n.substring.clone()),
            size_greater: shape.size_greater,
            size_less: shape.size_less,
            storage_classes: shape.storage_classes.clone().unwrap_or_default(),
            encryption: shape.encryption.clone().map(|encryption| match encryption {
                Encryption::SseS3 => filter::Encryption::SseS3,
                Encryption::SseKms { key_arn, bucket_key } => filter::Encryption::SseKms { key_arn, bucket_key },
                Encryption::DsseKms { key_arn } => filter::Encryption::DsseKms { key_arn },
                Encryption::SseC => filter::Encryption::SseC,
                Encryption::NotSse => filter::Encryption::NotSse,
            }),
        }
    }

    pub fn write(&self, xml: &mut Writer) {
        xml.open("ManifestGenerator");
        xml.open("S3JobManifestGenerator");
        optional(xml, "ExpectedBucketOwner", self.expected_bucket_owner.as_deref());
        xml.text("SourceBucket", &self.source_bucket);
        if let Some(output) = &self.output {
            xml.open("ManifestOutputLocation");
            optional(xml, "ExpectedManifestBucketOwner", output.expected_bucket_owner.as_deref());
            xml.text("Bucket", &output.bucket);
            optional(xml, "ManifestPrefix", output.prefix.as_deref());
            if let Some(encryption) = &output.encryption {
                encryption.write(xml);
            }
            xml.text("ManifestFormat", GENERATED_FORMAT);
            xml.close();
        }
        if let Some(filter) = &self.filter {
            filter.write(xml);
        }
        xml.text("EnableManifestOutput", bool_text(self.output_enabled));
        xml.close();
        xml.close();
    }
}

impl Output {
    fn parse(element: &Element) -> Checked<Self> {
        let this = Self {
            expected_bucket_owner: owner(element, "ExpectedManifestBucketOwner")?,
            bucket: bucket(element, "Bucket")?,
            prefix: optional_text(element, "ManifestPrefix", 1, 512)?,
            encryption: element.child("ManifestEncryption").map(ManifestEncryption::parse).transpose()?,
        };
        if text(element, "ManifestFormat", 1, 64)? != GENERATED_FORMAT {
            return invalid(format!("ManifestFormat must be {GENERATED_FORMAT}"));
        }
        Ok(this)
    }

    /// Plain name of the bucket.
    pub fn bucket(&self) -> &str {
        arn::bucket_of(&self.bucket).unwrap_or_default()
    }
}

impl ManifestEncryption {
    fn parse(element: &Element) -> Checked<Self> {
        let [kind] = element.children.as_slice() else {
            return invalid("ManifestEncryption must have exactly one member");
        };
        match kind.name.as_str() {
            "SSE-S3" => Ok(Self::SseS3),
            "SSE-KMS" => {
                let key_id = text(kind, "KeyId", 1, 2_000)?;
                // It goes to the store in a header.
                if !key_id.bytes().all(|b| b.is_ascii_graphic()) {
                    return invalid("ManifestEncryption: KeyId must be the ID, the ARN or the alias of a KMS key");
                }
                Ok(Self::SseKms { key_id })
            }
            other => invalid(format!("ManifestEncryption has an unknown member {other}")),
        }
    }

    fn write(&self, xml: &mut Writer) {
        xml.open("ManifestEncryption");
        match self {
            Self::SseS3 => xml.empty("SSE-S3"),
            Self::SseKms { key_id } => {
                xml.open("SSE-KMS");
                xml.text("KeyId", key_id);
                xml.close();
            }
        }
        xml.close();
    }
}

impl FilterShape {
    fn parse(element: &Element) -> Checked<Self> {
        const KNOWN: [&str; 9] = [
            "EligibleForReplication",
            "CreatedAfter",
            "CreatedBefore",
            "ObjectReplicationStatuses",
            "KeyNameConstraint",
            "ObjectSizeGreaterThanBytes",
            "ObjectSizeLessThanBytes",
            "MatchAnyStorageClass",
            "MatchAnyObjectEncryption",
        ];
        // As inside Operation: a filter that is dropped in silence would let a job loose on objects it was not meant for.
        if let Some(unknown) = element.children.iter().find(|c| !KNOWN.contains(&c.name.as_str())) {
            return invalid(format!("Filter has an unknown member {}", unknown.name));
        }
        let time = |name: &str| -> Checked<Option<String>> {
            let given = optional_text(element, name, 1, 64)?;
            given.as_deref().map(|given| timestamp(name, given)).transpose()?;
            Ok(given)
        };
        let size = |name: &str| -> Checked<Option<i64>> {
            match optional_text(element, name, 1, 32)?.map(|text| text.parse()) {
                None => Ok(None),
                Some(Ok(size)) => Ok(Some(size)),
                Some(Err(_)) => invalid(format!("{name} must be a whole number")),
            }
        };
        let this = Self {
            eligible_for_replication: Members::loose(element, "").boolean("EligibleForReplication")?,
            created_after: time("CreatedAfter")?,
            created_before: time("CreatedBefore")?,
            replication_statuses: words(element, "ObjectReplicationStatuses", |w| {
                filter::Replication::parse(w).is_some()
            })?,
            key_names: element.child("KeyNameConstraint").map(KeyNames::parse).transpose()?,
            size_greater: size("ObjectSizeGreaterThanBytes")?,
            size_less: size("ObjectSizeLessThanBytes")?,
            storage_classes: words(element, "MatchAnyStorageClass", |w| STORAGE_CLASSES.contains(&w))?,
            encryption: element.child("MatchAnyObjectEncryption").map(Encryption::parse).transpose()?,
        };
        Ok(this)
    }

    fn write(&self, xml: &mut Writer) {
        xml.open("Filter");
        optional(xml, "EligibleForReplication", self.eligible_for_replication.map(bool_text));
        // In the one form that answers have (rule X-5), however it was sent.
        let date =
            |given: &Option<String>| given.as_deref().and_then(|t| timestamp("", t).ok()).map(|ms| iso(Timestamp(ms)));
        optional(xml, "CreatedAfter", date(&self.created_after).as_deref());
        optional(xml, "CreatedBefore", date(&self.created_before).as_deref());
        list(xml, "ObjectReplicationStatuses", self.replication_statuses.as_deref());
        if let Some(names) = &self.key_names {
            xml.open("KeyNameConstraint");
            list(xml, "MatchAnyPrefix", names.prefix.as_ref().map(std::slice::from_ref));
            list(xml, "MatchAnySuffix", names.suffix.as_ref().map(std::slice::from_ref));
            list(xml, "MatchAnySubstring", names.substring.as_ref().map(std::slice::from_ref));
            xml.close();
        }
        optional(xml, "ObjectSizeGreaterThanBytes", self.size_greater.map(|s| s.to_string()).as_deref());
        optional(xml, "ObjectSizeLessThanBytes", self.size_less.map(|s| s.to_string()).as_deref());
        list(xml, "MatchAnyStorageClass", self.storage_classes.as_deref());
        if let Some(encryption) = &self.encryption {
            encryption.write(xml);
        }
        xml.close();
    }
}

impl KeyNames {
    fn parse(element: &Element) -> Checked<Self> {
        let known = ["MatchAnyPrefix", "MatchAnySuffix", "MatchAnySubstring"];
        if let Some(unknown) = element.children.iter().find(|c| !known.contains(&c.name.as_str())) {
            return invalid(format!("KeyNameConstraint has an unknown member {}", unknown.name));
        }
        let one = |name: &str| -> Checked<Option<String>> {
            let Some(given) = element.child(name) else { return Ok(None) };
            match given.children.as_slice() {
                [part] if part.is_leaf() && (1..=1_024).contains(&part.text.chars().count()) => {
                    Ok(Some(part.text.clone()))
                }
                _ => invalid(format!("{name} must list exactly one string of 1 to 1024 characters")),
            }
        };
        Ok(Self { prefix: one(known[0])?, suffix: one(known[1])?, substring: one(known[2])? })
    }
}

impl Encryption {
    fn parse(list: &Element) -> Checked<Self> {
        let kind = match list.children.as_slice() {
            [one] => match one.children.as_slice() {
                [kind] => kind,
                _ => return invalid("MatchAnyObjectEncryption must name exactly one encryption"),
            },
            _ => return invalid("MatchAnyObjectEncryption must list exactly one encryption"),
        };
        let key_arn = || -> Checked<Option<String>> {
            let given = optional_text(kind, "KmsKeyArn", 20, 2_048)?;
            match &given {
                Some(key) if !is_kms_key(key) => invalid("KmsKeyArn must be the ARN of a KMS key"),
                _ => Ok(given),
            }
        };
        Ok(match kind.name.as_str() {
            "SSE-S3" => Self::SseS3,
            "SSE-KMS" => {
                Self::SseKms { key_arn: key_arn()?, bucket_key: Members::loose(kind, "").boolean("BucketKeyEnabled")? }
            }
            "DSSE-KMS" => Self::DsseKms { key_arn: key_arn()? },
            "SSE-C" => Self::SseC,
            "NOT-SSE" => Self::NotSse,
            other => return invalid(format!("MatchAnyObjectEncryption has an unknown member {other}")),
        })
    }

    fn write(&self, xml: &mut Writer) {
        xml.open("MatchAnyObjectEncryption");
        xml.open("ObjectEncryption");
        match self {
            Self::SseS3 => xml.empty("SSE-S3"),
            Self::SseKms { key_arn, bucket_key } => {
                xml.open("SSE-KMS");
                optional(xml, "KmsKeyArn", key_arn.as_deref());
                optional(xml, "BucketKeyEnabled", bucket_key.map(bool_text));
                xml.close();
            }
            Self::DsseKms { key_arn } => {
                xml.open("DSSE-KMS");
                optional(xml, "KmsKeyArn", key_arn.as_deref());
                xml.close();
            }
            Self::SseC => xml.empty("SSE-C"),
            Self::NotSse => xml.empty("NOT-SSE"),
        }
        xml.close();
        xml.close();
    }
}

fn bool_text(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

fn optional(xml: &mut Writer, name: &str, text: Option<&str>) {
    if let Some(text) = text {
        xml.text(name, text);
    }
}

fn list(xml: &mut Writer, name: &str, words: Option<&[String]>) {
    let Some(words) = words else { return };
    xml.open(name);
    for word in words {
        xml.text("member", word);
    }
    xml.close();
}

fn owner(parent: &Element, name: &str) -> Checked<Option<String>> {
    match optional_text(parent, name, 1, 64)? {
        Some(account) if !is_account(&account) => invalid(format!("{name} must be an account of 12 digits")),
        account => Ok(account),
    }
}

fn bucket(parent: &Element, name: &str) -> Checked<String> {
    let given = text(parent, name, 1, 128)?;
    match arn::bucket_of(&given) {
        Some(bucket) if is_special_bucket(bucket) => invalid(format!("{name} must be a general purpose bucket")),
        Some(_) => Ok(given),
        None => invalid(format!("{name} must be the ARN of a bucket")),
    }
}

fn words(parent: &Element, name: &str, known: impl Fn(&str) -> bool) -> Checked<Option<Vec<String>>> {
    let Some(list) = parent.child(name) else { return Ok(None) };
    if list.children.is_empty() || list.children.len() > WORDS_MAX {
        return invalid(format!("{name} must list 1 to {WORDS_MAX} values"));
    }
    match list.children.iter().find(|word| !known(&word.text)) {
        Some(word) => invalid(format!("{name} does not know {}", word.text)),
        None => Ok(Some(list.children.iter().map(|word| word.text.clone()).collect())),
    }
}

/// Milliseconds since 1970 of an ISO 8601 time with its zone.
fn timestamp(name: &str, text: &str) -> Checked<i64> {
    match text.parse::<jiff::Timestamp>() {
        Ok(time) => Ok(time.as_millisecond()),
        Err(_) => invalid(format!("{name} must be a time like 2026-01-31T00:00:00Z")),
    }
}

fn is_kms_key(key: &str) -> bool {
    arn::Arn::parse(key).is_some_and(|arn| {
        let id = arn.resource.strip_prefix("key/").unwrap_or_default();
        arn.partition.starts_with("aws")
            && arn.service == "kms"
            && !arn.region.is_empty()
            && is_account(arn.account)
            && !id.is_empty()
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Source;
    use crate::shape::tests::{SAMPLE, parse};

    const GENERATOR: &str = "<ManifestGenerator><S3JobManifestGenerator>\
<ExpectedBucketOwner>123456789012</ExpectedBucketOwner><SourceBucket>arn:aws:s3:::source</SourceBucket>\
<ManifestOutputLocation><ExpectedManifestBucketOwner>123456789012</ExpectedManifestBucketOwner>\
<Bucket>arn:aws:s3:::lists</Bucket><ManifestPrefix>p</ManifestPrefix>\
<ManifestFormat>S3InventoryReport_CSV_20211130</ManifestFormat></ManifestOutputLocation>\
<Filter><EligibleForReplication>true</EligibleForReplication><CreatedAfter>2026-01-01T00:00:00Z</CreatedAfter>\
<CreatedBefore>2026-02-01T01:00:00+01:00</CreatedBefore>\
<ObjectReplicationStatuses><member>FAILED</member><member>NONE</member></ObjectReplicationStatuses>\
<KeyNameConstraint><MatchAnyPrefix><member>a/</member></MatchAnyPrefix><MatchAnySuffix><member>.txt</member></MatchAnySuffix>\
<MatchAnySubstring><member>m</member></MatchAnySubstring></KeyNameConstraint>\
<ObjectSizeGreaterThanBytes>-1</ObjectSizeGreaterThanBytes><ObjectSizeLessThanBytes>10</ObjectSizeLessThanBytes>\
<MatchAnyStorageClass><member>STANDARD</member></MatchAnyStorageClass>\
<MatchAnyObjectEncryption><ObjectEncryption><SSE-KMS><KmsKeyArn>arn:aws:kms:us-east-1:123456789012:key/k-1</KmsKeyArn>\
<BucketKeyEnabled>false</BucketKeyEnabled></SSE-KMS></ObjectEncryption></MatchAnyObjectEncryption></Filter>\
<EnableManifestOutput>true</EnableManifestOutput></S3JobManifestGenerator></ManifestGenerator>";

    fn request(generator: &str) -> String {
        let manifest = SAMPLE.find("<Manifest>").unwrap()..SAMPLE.find("<Description>").unwrap();
        let mut body = SAMPLE.to_owned();
        body.replace_range(manifest, generator);
        body
    }

    #[test]
    fn every_member_is_echoed_also_after_it_was_stored_and_dates_in_the_one_form_of_answers() {
        let source = parse(&request(GENERATOR)).unwrap().source;
        let stored: Source = serde_json::from_str(&serde_json::to_string(&source).unwrap()).unwrap();
        let mut xml = Writer::document("Job", None);
        stored.write(&mut xml);
        let echoed = GENERATOR
            .replace("2026-01-01T00:00:00Z", "2026-01-01T00:00:00.000Z")
            .replace("2026-02-01T01:00:00+01:00", "2026-02-01T00:00:00.000Z");
        assert!(xml.finish().contains(&echoed));
    }

    #[test]
    fn every_member_of_the_filter_is_meant() {
        let Source::ManifestGenerator(generator) = parse(&request(GENERATOR)).unwrap().source else {
            panic!("no list")
        };
        let wanted = Filter {
            replication_statuses: vec![filter::Replication::Failed, filter::Replication::None],
            created_after_ms: Some(1_767_225_600_000),
            created_before_ms: Some(1_769_904_000_000),
            prefix: Some("a/".into()),
            suffix: Some(".txt".into()),
            substring: Some("m".into()),
            size_greater: Some(-1),
            size_less: Some(10),
            storage_classes: vec!["STANDARD".into()],
            encryption: Some(filter::Encryption::SseKms {
                key_arn: Some("arn:aws:kms:us-east-1:123456789012:key/k-1".into()),
                bucket_key: Some(false),
            }),
        };
        assert_eq!(generator.filter(), wanted);
        assert!(generator.asks_for_replication_rules());
        assert_eq!((generator.bucket(), generator.written_to().unwrap().bucket()), ("source", "lists"));
    }

    #[test]
    fn each_broken_rule_is_refused_in_words() {
        for (from, to, wanted) in [
            ("<EnableManifestOutput>true</EnableManifestOutput>", "", "EnableManifestOutput is required"),
            ("arn:aws:s3:::source", "source", "SourceBucket must be the ARN of a bucket"),
            ("arn:aws:s3:::source", "arn:aws:s3:::source--x-s3", "SourceBucket must be a general purpose bucket"),
            ("arn:aws:s3:::lists", "arn:aws:s3:::lists--x-s3", "Bucket must be a general purpose bucket"),
            ("S3InventoryReport_CSV_20211130", "S3InventoryReport_CSV_20161130", "ManifestFormat must be"),
            ("<ExpectedBucketOwner>1", "<ExpectedBucketOwner>x", "must be an account of 12 digits"),
            ("2026-01-01T00:00:00Z", "2026-01-01", "CreatedAfter must be a time"),
            (">FAILED<", ">PENDING<", "ObjectReplicationStatuses does not know PENDING"),
            ("<member>a/</member>", "<member>a/</member><member>b/</member>", "must list exactly one string"),
            ("<member>a/</member>", "", "must list exactly one string"),
            ("<member>m</member>", "<member></member>", "must list exactly one string"),
            (">-1<", ">many<", "ObjectSizeGreaterThanBytes must be a whole number"),
            (">STANDARD<", ">REDUCED_REDUNDANCY<", "MatchAnyStorageClass does not know"),
            ("key/k-1", "alias/k", "KmsKeyArn must be"),
            ("SSE-KMS", "SSE-X", "unknown member SSE-X"),
            ("<Filter>", "<Filter><MatchAnyTag/>", "unknown member MatchAnyTag"),
            ("<ManifestGenerator>", "<ManifestGenerator><Other/>", "exactly one member"),
        ] {
            let changed = GENERATOR.replace(from, to);
            assert_ne!(changed, GENERATOR, "{from}");
            let told = parse(&request(&changed)).unwrap_err().told();
            assert_eq!(told.code, "InvalidRequest", "{from}: {}", told.message);
            assert!(told.message.contains(wanted), "{from}: {}", told.message);
        }
        let start = GENERATOR.find("<ManifestOutputLocation>").unwrap();
        let end = GENERATOR.find("<Filter>").unwrap();
        let mut without = GENERATOR.to_owned();
        without.replace_range(start..end, "");
        assert!(parse(&request(&without)).unwrap_err().told().message.contains("needs a ManifestOutputLocation"));
        assert!(parse(&request(&without.replace("Output>true", "Output>false"))).is_ok());
    }

    fn encrypted(kind: &str) -> String {
        GENERATOR
            .replace("<ManifestFormat>", &format!("<ManifestEncryption>{kind}</ManifestEncryption><ManifestFormat>"))
    }

    #[test]
    fn the_encryption_of_the_list_is_kept_with_the_job_and_echoed() {
        let key_id = || "arn:aws:kms:us-east-1:123456789012:alias/k".to_owned();
        for (kind, wanted) in [
            ("<SSE-S3></SSE-S3>".to_owned(), ManifestEncryption::SseS3),
            (
                format!("<SSE-KMS><KeyId>{}</KeyId></SSE-KMS>", key_id()),
                ManifestEncryption::SseKms { key_id: key_id() },
            ),
        ] {
            let source = parse(&request(&encrypted(&kind))).unwrap().source;
            let stored: Source = serde_json::from_str(&serde_json::to_string(&source).unwrap()).unwrap();
            let Source::ManifestGenerator(generator) = &stored else { panic!("no list") };
            assert_eq!(generator.written_to().unwrap().encryption, Some(wanted));
            let mut xml = Writer::document("Job", None);
            stored.write(&mut xml);
            let (echoed, element) = (xml.finish(), format!("<ManifestEncryption>{kind}</ManifestEncryption>"));
            let element = element.replace("<SSE-S3></SSE-S3>", "<SSE-S3/>");
            assert!(echoed.contains(&format!("{element}<ManifestFormat>")), "{echoed}");
        }
    }

    #[test]
    fn an_encryption_of_the_list_that_cannot_be_meant_is_refused_in_words() {
        for (kind, wanted) in [
            ("<SSE-KMS/>", "KeyId is required"),
            ("<SSE-KMS><KeyId>two words</KeyId></SSE-KMS>", "KeyId must be the ID"),
            ("<SSE-KMS><KeyId>k&#10;x: y</KeyId></SSE-KMS>", "KeyId must be the ID"),
            ("<SSE-KMS><KeyId>schl\u{fc}ssel</KeyId></SSE-KMS>", "KeyId must be the ID"),
            ("<SSE-C/>", "unknown member SSE-C"),
            ("<SSE-S3/><SSE-KMS/>", "exactly one member"),
            ("", "exactly one member"),
        ] {
            let told = parse(&request(&encrypted(kind))).unwrap_err().told();
            assert_eq!(told.status.as_u16(), 400, "{kind}: {}", told.message);
            assert!(told.message.contains(wanted), "{kind}: {}", told.message);
        }
    }

    #[test]
    fn one_of_manifest_and_generator_is_needed_and_both_are_refused() {
        assert!(parse(&request("")).unwrap_err().told().message.contains("one of Manifest and ManifestGenerator"));
        let both = SAMPLE.replace("<Description>", &format!("{GENERATOR}<Description>"));
        assert!(parse(&both).unwrap_err().told().message.contains("exclude one another"));
    }
}
