//! `S3UpdateObjectEncryption`. Source: S3 Batch spec 4.11.

use longshore_wire::arn::Arn;
use longshore_wire::xml::{Element, Writer};

use crate::shape::members::{Members, WriteMembers};
use crate::shape::{Checked, invalid, is_account};

/// Encryption under a key of KMS: the only kind that the model has, and required, against the model's letter, because
/// without it there is nothing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateObjectEncryption {
    /// A key's ARN: no alias, no bare ID.
    pub kms_key_arn: String,
    /// Absent means false.
    pub bucket_key_enabled: Option<bool>,
}

impl UpdateObjectEncryption {
    pub(super) fn parse(element: &Element) -> Checked<Self> {
        let members = Members::strict(element, "S3UpdateObjectEncryption", &["ObjectEncryption"], &[])?;
        let encryption = members.structure("ObjectEncryption", &["SSE-KMS"], &[])?;
        let encryption = members.need("ObjectEncryption", encryption)?;
        let kms = encryption.structure("SSE-KMS", &["KMSKeyArn", "BucketKeyEnabled"], &[])?;
        let kms = encryption.need("SSE-KMS", kms)?;
        let kms_key_arn = kms.need("KMSKeyArn", kms.text("KMSKeyArn", 20..=2_048)?)?;
        if !is_key_arn(&kms_key_arn) {
            return invalid("S3UpdateObjectEncryption: KMSKeyArn must be the ARN of a KMS key");
        }
        Ok(Self { kms_key_arn, bucket_key_enabled: kms.boolean("BucketKeyEnabled")? })
    }

    pub(super) fn write(&self, xml: &mut Writer) {
        xml.open("S3UpdateObjectEncryption");
        xml.open("ObjectEncryption");
        xml.open("SSE-KMS");
        xml.text("KMSKeyArn", &self.kms_key_arn);
        xml.maybe_boolean("BucketKeyEnabled", self.bucket_key_enabled);
        xml.close();
        xml.close();
        xml.close();
    }
}

/// By the model's pattern: `arn:aws[a-zA-Z0-9-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[a-zA-Z0-9-]+`.
fn is_key_arn(text: &str) -> bool {
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    Arn::parse(text).is_some_and(|arn| {
        arn.partition.strip_prefix("aws").is_some_and(plain)
            && arn.service == "kms"
            && !arn.region.is_empty()
            && arn.region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && is_account(arn.account)
            && arn.resource.strip_prefix("key/").is_some_and(|key| !key.is_empty() && plain(key))
    })
}
