//! `S3PutObjectCopy`. Source: S3 Batch spec 4.4.

use longshore_core::time::Timestamp;
use longshore_wire::arn::Arn;
use longshore_wire::xml::{Element, Writer};

use super::access::{CannedAcl, Grant};
use super::lock::{LockMode, OnOff};
use super::tagging;
use crate::shape::members::{Members, WriteMembers, words};
use crate::shape::{Checked, invalid};

words! { MetadataDirective { Copy = "COPY", Replace = "REPLACE" } }
words! { SseAlgorithm { Aes256 = "AES256", Kms = "KMS" } }
words! {
    /// Of the copies; reduced redundancy is not among them.
    StorageClass {
        Standard = "STANDARD",
        StandardIa = "STANDARD_IA",
        OnezoneIa = "ONEZONE_IA",
        Glacier = "GLACIER",
        IntelligentTiering = "INTELLIGENT_TIERING",
        DeepArchive = "DEEP_ARCHIVE",
        GlacierIr = "GLACIER_IR",
    }
}
words! {
    ChecksumAlgorithm {
        Crc32 = "CRC32",
        Crc32c = "CRC32C",
        Sha1 = "SHA1",
        Sha256 = "SHA256",
        Crc64Nvme = "CRC64NVME",
        Sha512 = "SHA512",
        Md5 = "MD5",
        XxHash64 = "XXHASH64",
        XxHash3 = "XXHASH3",
        XxHash128 = "XXHASH128",
    }
}

/// Absent members are `None`: their defaults are those of the copy, and they are echoed as absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutObjectCopy {
    /// The ARN of a bucket or of a directory bucket. Required, against the model (rule V-10).
    pub target_resource: String,
    pub target_key_prefix: Option<String>,
    pub canned_acl: Option<CannedAcl>,
    pub grants: Option<Vec<Grant>>,
    pub metadata_directive: Option<MetadataDirective>,
    pub new_metadata: Option<ObjectMetadata>,
    /// Absent: tags are copied. Empty: the copies have none.
    pub new_tagging: Option<Vec<(String, String)>>,
    pub redirect_location: Option<String>,
    pub requester_pays: Option<bool>,
    pub storage_class: Option<StorageClass>,
    pub modified_since: Option<Timestamp>,
    pub unmodified_since: Option<Timestamp>,
    pub kms_key_id: Option<String>,
    pub bucket_key_enabled: Option<bool>,
    pub legal_hold: Option<OnOff>,
    pub lock_mode: Option<LockMode>,
    pub retain_until: Option<Timestamp>,
    pub checksum_algorithm: Option<ChecksumAlgorithm>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMetadata {
    pub cache_control: Option<String>,
    pub content_disposition: Option<String>,
    pub content_encoding: Option<String>,
    pub content_language: Option<String>,
    pub user_metadata: Option<Vec<(String, String)>>,
    pub content_length: Option<u64>,
    pub content_md5: Option<String>,
    pub content_type: Option<String>,
    pub expires: Option<Timestamp>,
    pub requester_charged: Option<bool>,
    pub sse_algorithm: Option<SseAlgorithm>,
}

const KNOWN: [&str; 18] = [
    "TargetResource",
    "CannedAccessControlList",
    "AccessControlGrants",
    "MetadataDirective",
    "ModifiedSinceConstraint",
    "NewObjectMetadata",
    "NewObjectTagging",
    "RedirectLocation",
    "RequesterPays",
    "StorageClass",
    "UnModifiedSinceConstraint",
    "SSEAwsKmsKeyId",
    "TargetKeyPrefix",
    "ObjectLockLegalHoldStatus",
    "ObjectLockMode",
    "ObjectLockRetainUntilDate",
    "BucketKeyEnabled",
    "ChecksumAlgorithm",
];
const NEWER: [&str; 3] = ["AnnotationDirective", "ObjectLockEventHold", "ObjectLockEventHoldDuration"];
const METADATA_KNOWN: [&str; 11] = [
    "CacheControl",
    "ContentDisposition",
    "ContentEncoding",
    "ContentLanguage",
    "UserMetadata",
    "ContentLength",
    "ContentMD5",
    "ContentType",
    "HttpExpiresDate",
    "RequesterCharged",
    "SSEAlgorithm",
];
/// The model's bounds of `ContentLength`, a long.
const LONG_MAX: u64 = i64::MAX as u64;

impl PutObjectCopy {
    pub(super) fn parse(element: &Element) -> Checked<Self> {
        let members = Members::strict(element, "S3PutObjectCopy", &KNOWN, &NEWER)?;
        let target_resource = members.need("TargetResource", members.text("TargetResource", 1..=128)?)?;
        let target = Arn::parse(&target_resource).filter(|arn| !arn.partition.is_empty());
        if !target.is_some_and(|arn| arn.service == "s3" || arn.service == "s3express") {
            return invalid("S3PutObjectCopy.TargetResource must be the ARN of a bucket");
        }
        let new_metadata = members.structure("NewObjectMetadata", &METADATA_KNOWN, &[])?;
        Ok(Self {
            target_resource,
            target_key_prefix: members.text("TargetKeyPrefix", 1..=1_024)?,
            canned_acl: members.word("CannedAccessControlList")?,
            grants: Grant::list(&members, "AccessControlGrants")?,
            metadata_directive: members.word("MetadataDirective")?,
            new_metadata: new_metadata.as_ref().map(ObjectMetadata::parse).transpose()?,
            new_tagging: tagging::tag_set(&members, "NewObjectTagging")?,
            redirect_location: members.text("RedirectLocation", 1..=2_048)?,
            requester_pays: members.boolean("RequesterPays")?,
            storage_class: members.word("StorageClass")?,
            modified_since: members.date("ModifiedSinceConstraint")?,
            unmodified_since: members.date("UnModifiedSinceConstraint")?,
            kms_key_id: members.text("SSEAwsKmsKeyId", 1..=2_000)?,
            bucket_key_enabled: members.boolean("BucketKeyEnabled")?,
            legal_hold: members.word("ObjectLockLegalHoldStatus")?,
            lock_mode: members.word("ObjectLockMode")?,
            retain_until: members.date("ObjectLockRetainUntilDate")?,
            checksum_algorithm: members.word("ChecksumAlgorithm")?,
        })
    }

    pub(super) fn write(&self, xml: &mut Writer) {
        xml.open("S3PutObjectCopy");
        xml.text("TargetResource", &self.target_resource);
        xml.maybe_word("CannedAccessControlList", self.canned_acl);
        Grant::write_list(xml, "AccessControlGrants", self.grants.as_deref());
        xml.maybe_word("MetadataDirective", self.metadata_directive);
        xml.maybe_date("ModifiedSinceConstraint", self.modified_since);
        if let Some(metadata) = &self.new_metadata {
            metadata.write(xml);
        }
        tagging::write_tag_set(xml, "NewObjectTagging", self.new_tagging.as_deref());
        xml.maybe_text("RedirectLocation", self.redirect_location.as_deref());
        xml.maybe_boolean("RequesterPays", self.requester_pays);
        xml.maybe_word("StorageClass", self.storage_class);
        xml.maybe_date("UnModifiedSinceConstraint", self.unmodified_since);
        xml.maybe_text("SSEAwsKmsKeyId", self.kms_key_id.as_deref());
        xml.maybe_text("TargetKeyPrefix", self.target_key_prefix.as_deref());
        xml.maybe_word("ObjectLockLegalHoldStatus", self.legal_hold);
        xml.maybe_word("ObjectLockMode", self.lock_mode);
        xml.maybe_date("ObjectLockRetainUntilDate", self.retain_until);
        xml.maybe_boolean("BucketKeyEnabled", self.bucket_key_enabled);
        xml.maybe_word("ChecksumAlgorithm", self.checksum_algorithm);
        xml.close();
    }
}

impl ObjectMetadata {
    fn parse(members: &Members<'_>) -> Checked<Self> {
        Ok(Self {
            cache_control: members.text("CacheControl", 1..=1_024)?,
            content_disposition: members.text("ContentDisposition", 1..=1_024)?,
            content_encoding: members.text("ContentEncoding", 1..=1_024)?,
            content_language: members.text("ContentLanguage", 1..=1_024)?,
            user_metadata: members.map("UserMetadata", 0..=8_192, 1..=1_024, 0..=1_024)?,
            content_length: members.whole("ContentLength", 0..=LONG_MAX)?,
            content_md5: members.text("ContentMD5", 1..=1_024)?,
            content_type: members.text("ContentType", 1..=1_024)?,
            expires: members.date("HttpExpiresDate")?,
            requester_charged: members.boolean("RequesterCharged")?,
            sse_algorithm: members.word("SSEAlgorithm")?,
        })
    }

    fn write(&self, xml: &mut Writer) {
        xml.open("NewObjectMetadata");
        xml.maybe_text("CacheControl", self.cache_control.as_deref());
        xml.maybe_text("ContentDisposition", self.content_disposition.as_deref());
        xml.maybe_text("ContentEncoding", self.content_encoding.as_deref());
        xml.maybe_text("ContentLanguage", self.content_language.as_deref());
        xml.maybe_map("UserMetadata", self.user_metadata.as_deref());
        xml.maybe_whole("ContentLength", self.content_length);
        xml.maybe_text("ContentMD5", self.content_md5.as_deref());
        xml.maybe_text("ContentType", self.content_type.as_deref());
        xml.maybe_date("HttpExpiresDate", self.expires);
        xml.maybe_boolean("RequesterCharged", self.requester_charged);
        xml.maybe_word("SSEAlgorithm", self.sse_algorithm);
        xml.close();
    }
}
