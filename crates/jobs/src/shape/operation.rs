//! `Operation`: what is done to each object. One member of eleven, each read in full and checked against botocore's
//! model (1.43) and the rules of S3 Batch spec 1.5.2 and 4, whether or not it runs here yet.

mod access;
mod checksum;
mod copy;
mod encryption;
mod lambda_invoke;
mod lock;
mod restore;
mod tagging;

use longshore_wire::xml::{Element, Writer};

use super::members::Members;
use super::{Checked, invalid};
use crate::Settings;

pub use access::{CannedAcl, Grant, Grantee, GranteeType, Permission, PutObjectAcl};
pub use checksum::{ChecksumType, ComputeObjectChecksum};
pub use copy::{ChecksumAlgorithm, MetadataDirective, ObjectMetadata, PutObjectCopy, SseAlgorithm, StorageClass};
pub use encryption::UpdateObjectEncryption;
pub use lambda_invoke::{LambdaInvoke, NAME as LAMBDA_INVOKE};
pub use lock::{LockMode, OnOff, PutObjectLegalHold, PutObjectRetention, Retention};
pub use restore::{GlacierJobTier, InitiateRestoreObject};
pub use tagging::PutObjectTagging;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    LambdaInvoke(LambdaInvoke),
    PutObjectCopy(Box<PutObjectCopy>),
    PutObjectAcl(PutObjectAcl),
    PutObjectTagging(PutObjectTagging),
    DeleteObjectTagging,
    InitiateRestoreObject(InitiateRestoreObject),
    PutObjectLegalHold(PutObjectLegalHold),
    PutObjectRetention(PutObjectRetention),
    ReplicateObject,
    ComputeObjectChecksum(ComputeObjectChecksum),
    UpdateObjectEncryption(UpdateObjectEncryption),
}

impl Operation {
    /// Reads `<Operation>`, which has exactly one member (rule V-2).
    pub fn parse(operation: &Element, settings: &Settings) -> Checked<Self> {
        let [given] = &operation.children[..] else {
            return invalid("Operation must have exactly one member");
        };
        if !operation.text.trim().is_empty() {
            return invalid("Operation must not have text of its own");
        }
        Ok(match given.name.as_str() {
            LAMBDA_INVOKE => Self::LambdaInvoke(LambdaInvoke::parse(given, settings)?),
            "S3PutObjectCopy" => Self::PutObjectCopy(Box::new(PutObjectCopy::parse(given)?)),
            "S3PutObjectAcl" => Self::PutObjectAcl(PutObjectAcl::parse(given)?),
            "S3PutObjectTagging" => Self::PutObjectTagging(PutObjectTagging::parse(given)?),
            "S3DeleteObjectTagging" => {
                Members::strict(given, "S3DeleteObjectTagging", &[], &[])?;
                Self::DeleteObjectTagging
            }
            "S3InitiateRestoreObject" => Self::InitiateRestoreObject(InitiateRestoreObject::parse(given)?),
            "S3PutObjectLegalHold" => Self::PutObjectLegalHold(PutObjectLegalHold::parse(given)?),
            "S3PutObjectRetention" => {
                Self::PutObjectRetention(PutObjectRetention::parse(given, (settings.wall_clock)())?)
            }
            "S3ReplicateObject" => {
                Members::strict(given, "S3ReplicateObject", &[], &[])?;
                Self::ReplicateObject
            }
            "S3ComputeObjectChecksum" => Self::ComputeObjectChecksum(ComputeObjectChecksum::parse(given)?),
            "S3UpdateObjectEncryption" => Self::UpdateObjectEncryption(UpdateObjectEncryption::parse(given)?),
            unknown => return invalid(format!("Operation has an unknown member {unknown}")),
        })
    }

    /// As ListJobs names it: the member's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::LambdaInvoke(_) => LAMBDA_INVOKE,
            Self::PutObjectCopy(_) => "S3PutObjectCopy",
            Self::PutObjectAcl(_) => "S3PutObjectAcl",
            Self::PutObjectTagging(_) => "S3PutObjectTagging",
            Self::DeleteObjectTagging => "S3DeleteObjectTagging",
            Self::InitiateRestoreObject(_) => "S3InitiateRestoreObject",
            Self::PutObjectLegalHold(_) => "S3PutObjectLegalHold",
            Self::PutObjectRetention(_) => "S3PutObjectRetention",
            Self::ReplicateObject => "S3ReplicateObject",
            Self::ComputeObjectChecksum(_) => "S3ComputeObjectChecksum",
            Self::UpdateObjectEncryption(_) => "S3UpdateObjectEncryption",
        }
    }

    /// Writes the one member of `<Operation>` as DescribeJob echoes it: what was given, in full, and no defaults.
    pub fn write(&self, xml: &mut Writer) {
        match self {
            Self::LambdaInvoke(invoke) => invoke.write(xml),
            Self::PutObjectCopy(copy) => copy.write(xml),
            Self::PutObjectAcl(acl) => acl.write(xml),
            Self::PutObjectTagging(tagging) => tagging.write(xml),
            Self::DeleteObjectTagging | Self::ReplicateObject => xml.empty(self.name()),
            Self::InitiateRestoreObject(restore) => restore.write(xml),
            Self::PutObjectLegalHold(hold) => hold.write(xml),
            Self::PutObjectRetention(retention) => retention.write(xml),
            Self::ComputeObjectChecksum(checksum) => checksum.write(xml),
            Self::UpdateObjectEncryption(encryption) => encryption.write(xml),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        let mut settings = Settings::new("123456789012", "us-west-2");
        // 2024-01-02
        settings.wall_clock = std::sync::Arc::new(|| longshore_core::time::Timestamp(1_704_153_600_000));
        settings
    }

    fn parse(inside: &str) -> Checked<Operation> {
        let element = Element::parse(format!("<Operation>{inside}</Operation>").as_bytes()).unwrap();
        Operation::parse(&element, &settings())
    }

    /// Every member of botocore's model, at each bound and with each form of a value that is written in one way.
    const FULL: &[&str] = &[
        "<LambdaInvoke><FunctionArn>f</FunctionArn></LambdaInvoke>",
        "<LambdaInvoke><FunctionArn>arn:aws:lambda:us-west-2:123456789012:function:f:$LATEST</FunctionArn>\
         <InvocationSchemaVersion>2.0</InvocationSchemaVersion>\
         <UserArguments><entry><key>k</key><value></value></entry></UserArguments></LambdaInvoke>",
        "<S3PutObjectCopy><TargetResource>arn:aws:s3:::target</TargetResource></S3PutObjectCopy>",
        "<S3PutObjectCopy>\
         <TargetResource>arn:aws:s3express:us-west-2:123456789012:bucket/b--usw2-az1--x-s3</TargetResource>\
         <CannedAccessControlList>bucket-owner-full-control</CannedAccessControlList>\
         <AccessControlGrants><member><Grantee><TypeIdentifier>id</TypeIdentifier><Identifier>i</Identifier>\
         <DisplayName>d</DisplayName></Grantee><Permission>READ_ACP</Permission></member><member/></AccessControlGrants>\
         <MetadataDirective>REPLACE</MetadataDirective>\
         <ModifiedSinceConstraint>2024-01-02T00:00:00.000Z</ModifiedSinceConstraint>\
         <NewObjectMetadata><CacheControl>c</CacheControl><ContentDisposition>c</ContentDisposition>\
         <ContentEncoding>c</ContentEncoding><ContentLanguage>c</ContentLanguage>\
         <UserMetadata><entry><key>k</key><value>v</value></entry></UserMetadata>\
         <ContentLength>9223372036854775807</ContentLength><ContentMD5>c</ContentMD5><ContentType>c</ContentType>\
         <HttpExpiresDate>2024-01-02T00:00:00.000Z</HttpExpiresDate><RequesterCharged>true</RequesterCharged>\
         <SSEAlgorithm>KMS</SSEAlgorithm></NewObjectMetadata>\
         <NewObjectTagging><member><Key>k</Key><Value></Value></member></NewObjectTagging>\
         <RedirectLocation>r</RedirectLocation><RequesterPays>false</RequesterPays>\
         <StorageClass>GLACIER_IR</StorageClass>\
         <UnModifiedSinceConstraint>2024-01-02T00:00:00.000Z</UnModifiedSinceConstraint>\
         <SSEAwsKmsKeyId>k</SSEAwsKmsKeyId><TargetKeyPrefix>Folder1</TargetKeyPrefix>\
         <ObjectLockLegalHoldStatus>ON</ObjectLockLegalHoldStatus><ObjectLockMode>GOVERNANCE</ObjectLockMode>\
         <ObjectLockRetainUntilDate>2030-01-02T00:00:00.000Z</ObjectLockRetainUntilDate>\
         <BucketKeyEnabled>true</BucketKeyEnabled><ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm></S3PutObjectCopy>",
        "<S3PutObjectCopy><TargetResource>arn:aws:s3:::target</TargetResource><NewObjectMetadata></NewObjectMetadata>\
         <NewObjectTagging></NewObjectTagging></S3PutObjectCopy>",
        "<S3PutObjectAcl><AccessControlPolicy><CannedAccessControlList>private</CannedAccessControlList>\
         </AccessControlPolicy></S3PutObjectAcl>",
        "<S3PutObjectAcl><AccessControlPolicy><AccessControlList><Owner><ID>i</ID><DisplayName>d</DisplayName></Owner>\
         <Grants><member><Grantee><TypeIdentifier>uri</TypeIdentifier></Grantee><Permission>FULL_CONTROL</Permission>\
         </member></Grants></AccessControlList></AccessControlPolicy></S3PutObjectAcl>",
        "<S3PutObjectAcl><AccessControlPolicy><AccessControlList><Owner></Owner></AccessControlList>\
         </AccessControlPolicy></S3PutObjectAcl>",
        "<S3PutObjectTagging><TagSet><member><Key>k</Key><Value>v</Value></member></TagSet></S3PutObjectTagging>",
        "<S3PutObjectTagging><TagSet></TagSet></S3PutObjectTagging>",
        "<S3DeleteObjectTagging/>",
        "<S3InitiateRestoreObject><ExpirationInDays>2147483647</ExpirationInDays>\
         <GlacierJobTier>BULK</GlacierJobTier></S3InitiateRestoreObject>",
        "<S3InitiateRestoreObject></S3InitiateRestoreObject>",
        "<S3PutObjectLegalHold><LegalHold><Status>OFF</Status></LegalHold></S3PutObjectLegalHold>",
        "<S3PutObjectRetention><BypassGovernanceRetention>true</BypassGovernanceRetention><Retention>\
         <RetainUntilDate>2024-01-02T00:00:00.001Z</RetainUntilDate><Mode>COMPLIANCE</Mode></Retention>\
         </S3PutObjectRetention>",
        "<S3PutObjectRetention><Retention></Retention></S3PutObjectRetention>",
        "<S3ReplicateObject/>",
        "<S3ComputeObjectChecksum><ChecksumAlgorithm>XXHASH128</ChecksumAlgorithm>\
         <ChecksumType>COMPOSITE</ChecksumType></S3ComputeObjectChecksum>",
        "<S3ComputeObjectChecksum></S3ComputeObjectChecksum>",
        "<S3UpdateObjectEncryption><ObjectEncryption><SSE-KMS>\
         <KMSKeyArn>arn:aws:kms:us-west-2:123456789012:key/0a1b-2c</KMSKeyArn><BucketKeyEnabled>false</BucketKeyEnabled>\
         </SSE-KMS></ObjectEncryption></S3UpdateObjectEncryption>",
    ];

    #[test]
    fn each_operation_is_echoed_in_full_and_without_defaults() {
        let mut names = std::collections::BTreeSet::new();
        for inside in FULL {
            let operation = parse(inside).unwrap_or_else(|e| panic!("{inside}: {e}"));
            names.insert(operation.name());
            let mut xml = Writer::document("Operation", None);
            operation.write(&mut xml);
            let written = Element::parse(xml.finish().as_bytes()).unwrap();
            assert_eq!(written, Element::parse(format!("<Operation>{inside}</Operation>").as_bytes()).unwrap());
            assert_eq!(Operation::parse(&written, &settings()).unwrap(), operation);
            assert!(inside.starts_with(&format!("<{}", operation.name())));
        }
        assert_eq!(names.len(), 11);
    }

    #[test]
    fn whatever_member_is_added_or_repeated_anywhere_inside_an_operation_is_refused() {
        /// Every document that has one more element than this one, which is given to each structure in turn.
        fn grown(element: &Element, more: &Element) -> Vec<Element> {
            let mut documents = Vec::new();
            if !element.is_leaf() || ["Owner", "Retention", "NewObjectMetadata"].contains(&element.name.as_str()) {
                let mut here = element.clone();
                here.children.push(more.clone());
                documents.push(here);
            }
            for (index, child) in element.children.iter().enumerate() {
                for grown in grown(child, more) {
                    let mut with = element.clone();
                    with.children[index] = grown;
                    documents.push(with);
                }
            }
            documents
        }
        let more = Element::parse(b"<Surprise><Surprise/></Surprise>").unwrap();
        let mut tried = 0;
        for inside in FULL {
            let element = Element::parse(format!("<Operation>{inside}</Operation>").as_bytes()).unwrap();
            for document in grown(&element, &more) {
                assert!(Operation::parse(&document, &settings()).is_err(), "{document:?}");
                tried += 1;
            }
        }
        assert!(tried > 50, "{tried}");
        let twice = parse(
            "<S3InitiateRestoreObject><ExpirationInDays>1</ExpirationInDays><ExpirationInDays>2</ExpirationInDays></S3InitiateRestoreObject>",
        );
        assert!(twice.unwrap_err().to_string().contains("ExpirationInDays stands twice"));
        assert!(parse("<S3DeleteObjectTagging>all</S3DeleteObjectTagging>").is_err());
    }

    #[test]
    fn the_members_of_a_list_may_have_any_name() {
        for name in ["member", "S3Tag", "x"] {
            let tagging = parse(&format!(
                "<S3PutObjectTagging><TagSet><{name}><Key>k</Key><Value>v</Value></{name}></TagSet></S3PutObjectTagging>"
            ));
            let tag_set = Some(vec![("k".to_owned(), "v".to_owned())]);
            assert_eq!(tagging.unwrap(), Operation::PutObjectTagging(PutObjectTagging { tag_set }));
        }
    }

    #[test]
    fn each_broken_rule_of_an_operation_is_refused_in_words() {
        let copy = |more: &str| {
            format!("<S3PutObjectCopy><TargetResource>arn:aws:s3:::t</TargetResource>{more}</S3PutObjectCopy>")
        };
        let metadata = |more: &str| copy(&format!("<NewObjectMetadata>{more}</NewObjectMetadata>"));
        let acl = |policy: &str| {
            format!("<S3PutObjectAcl><AccessControlPolicy>{policy}</AccessControlPolicy></S3PutObjectAcl>")
        };
        let canned = "<CannedAccessControlList>private</CannedAccessControlList>";
        let list = "<AccessControlList><Owner/></AccessControlList>";
        let retention =
            |inside: &str| format!("<S3PutObjectRetention><Retention>{inside}</Retention></S3PutObjectRetention>");
        let restore = |inside: &str| format!("<S3InitiateRestoreObject>{inside}</S3InitiateRestoreObject>");
        let encryption = |key: &str| {
            format!(
                "<S3UpdateObjectEncryption><ObjectEncryption><SSE-KMS><KMSKeyArn>{key}</KMSKeyArn></SSE-KMS>\
                 </ObjectEncryption></S3UpdateObjectEncryption>"
            )
        };
        let long = |n: usize| "ü".repeat(n);
        let invoke = |arguments: &str| {
            format!(
                "<LambdaInvoke><FunctionArn>f</FunctionArn><InvocationSchemaVersion>2.0</InvocationSchemaVersion>\
                 <UserArguments>{arguments}</UserArguments></LambdaInvoke>"
            )
        };
        let argument =
            |key: &str, value: &str| invoke(&format!("<entry><key>{key}</key><value>{value}</value></entry>"));
        let key = "arn:aws:kms:us-west-2:123456789012";
        assert!(parse(&argument(&long(64), &long(1_024))).is_ok());
        for (inside, wanted) in [
            (String::new(), "exactly one member"),
            ("<S3ReplicateObject/><S3DeleteObjectTagging/>".into(), "exactly one member"),
            ("<S3DeleteObject/>".into(), "unknown member S3DeleteObject"),
            ("text<S3ReplicateObject/>".into(), "must not have text"),
            (invoke(""), "1 to 10 entries"),
            (invoke(&"<entry><key>k</key><value/></entry>".repeat(11)), "1 to 10 entries"),
            (argument("", "v"), "key must have 1 to 64"),
            (argument(&long(65), "v"), "key must have 1 to 64"),
            (argument("k", &long(1_025)), "value must have 0 to 1024"),
            ("<LambdaInvoke/>".into(), "FunctionArn is required"),
            (
                format!("<LambdaInvoke><FunctionArn>{}</FunctionArn></LambdaInvoke>", "f".repeat(1_025)),
                "FunctionArn must have 1 to 1024",
            ),
            ("<S3PutObjectCopy/>".into(), "S3PutObjectCopy.TargetResource is required"),
            ("<S3PutObjectCopy><TargetResource>t</TargetResource></S3PutObjectCopy>".into(), "must be the ARN"),
            (
                "<S3PutObjectCopy><TargetResource>arn:aws:sqs:::t</TargetResource></S3PutObjectCopy>".into(),
                "must be the ARN",
            ),
            (
                format!(
                    "<S3PutObjectCopy><TargetResource>arn:aws:s3:::{}</TargetResource></S3PutObjectCopy>",
                    long(116)
                ),
                "TargetResource must have 1 to 128 characters",
            ),
            (copy("<TargetKeyPrefix/>"), "TargetKeyPrefix must have 1 to 1024"),
            (copy(&format!("<TargetKeyPrefix>{}</TargetKeyPrefix>", long(1_025))), "must have 1 to 1024"),
            (copy(&format!("<RedirectLocation>{}</RedirectLocation>", long(2_049))), "must have 1 to 2048"),
            (copy(&format!("<SSEAwsKmsKeyId>{}</SSEAwsKmsKeyId>", long(2_001))), "must have 1 to 2000"),
            (copy("<CannedAccessControlList>public</CannedAccessControlList>"), "must be one of private, public-read"),
            (copy("<StorageClass>REDUCED_REDUNDANCY</StorageClass>"), "must be one of STANDARD, STANDARD_IA"),
            (copy("<MetadataDirective>copy</MetadataDirective>"), "must be one of COPY, REPLACE"),
            (copy("<ChecksumAlgorithm>CRC16</ChecksumAlgorithm>"), "must be one of CRC32"),
            (copy("<ObjectLockMode>NONE</ObjectLockMode>"), "must be one of COMPLIANCE, GOVERNANCE"),
            (copy("<ObjectLockLegalHoldStatus>yes</ObjectLockLegalHoldStatus>"), "must be one of OFF, ON"),
            (copy("<RequesterPays>1</RequesterPays>"), "must be true or false"),
            (copy("<ModifiedSinceConstraint>yesterday</ModifiedSinceConstraint>"), "must be a date"),
            (copy("<StorageClass><b/></StorageClass>"), "StorageClass must be text"),
            (copy("<AnnotationDirective>COPY</AnnotationDirective>"), "AnnotationDirective is not supported"),
            (copy("<ObjectLockEventHold>ON</ObjectLockEventHold>"), "ObjectLockEventHold is not supported"),
            (copy("<ObjectLockEventHoldDuration/>"), "ObjectLockEventHoldDuration is not supported"),
            (copy("<NewObjectTagging><member><Key>a!</Key><Value/></member></NewObjectTagging>"), "may not have"),
            (copy("<NewObjectTagging><member><Key>a</Key></member></NewObjectTagging>"), "Value is required"),
            (
                copy("<AccessControlGrants><member><Permission>ALL</Permission></member></AccessControlGrants>"),
                "must be one of FULL_CONTROL",
            ),
            (metadata("<ContentLength>-1</ContentLength>"), "must be a whole number from 0"),
            (metadata("<ContentLength>9223372036854775808</ContentLength>"), "must be a whole number from 0"),
            (metadata("<SSEAlgorithm>aws:kms</SSEAlgorithm>"), "must be one of AES256, KMS"),
            (metadata("<ContentType/>"), "ContentType must have 1 to 1024"),
            (
                metadata(
                    "<UserMetadata><entry><key>a</key><value/></entry><entry><key>a</key><value/></entry></UserMetadata>",
                ),
                "the key a twice",
            ),
            (metadata("<UserMetadata><entry><key/><value/></entry></UserMetadata>"), "key must have 1 to 1024"),
            (metadata("<UserMetadata><entry><key>a</key></entry></UserMetadata>"), "value is required"),
            (metadata("<UserMetadata><item><key>a</key><value/></item></UserMetadata>"), "unknown member item"),
            (
                metadata(&format!(
                    "<UserMetadata>{}</UserMetadata>",
                    "<entry><key>a</key><value/></entry>".repeat(8_193)
                )),
                "0 to 8192 entries",
            ),
            ("<S3PutObjectAcl/>".into(), "AccessControlPolicy is required"),
            (acl(""), "either AccessControlList or CannedAccessControlList"),
            (acl(&format!("{canned}{list}")), "either AccessControlList or CannedAccessControlList"),
            (acl("<AccessControlList/>"), "Owner is required"),
            (acl("<CannedAccessControlList>log-delivery-write</CannedAccessControlList>"), "must be one of private"),
            (restore("<ExpirationInDays>0</ExpirationInDays>"), "whole number from 1 to 2147483647"),
            (restore("<ExpirationInDays>2147483648</ExpirationInDays>"), "whole number from 1 to 2147483647"),
            (restore("<GlacierJobTier>EXPEDITED</GlacierJobTier>"), "must be one of BULK, STANDARD"),
            ("<S3PutObjectLegalHold/>".into(), "LegalHold is required"),
            ("<S3PutObjectLegalHold><LegalHold/></S3PutObjectLegalHold>".into(), "Status is required"),
            ("<S3PutObjectRetention/>".into(), "Retention is required"),
            (retention("<Mode>GOVERNANCE</Mode>"), "needs Mode and RetainUntilDate, or neither"),
            (retention("<RetainUntilDate>2030-01-02T00:00:00Z</RetainUntilDate>"), "or neither"),
            (
                retention("<Mode>GOVERNANCE</Mode><RetainUntilDate>2024-01-02T00:00:00Z</RetainUntilDate>"),
                "lies in the past",
            ),
            (retention("<EventHold>ON</EventHold>"), "EventHold is not supported"),
            (
                "<S3PutObjectRetention><EventHoldDuration/><Retention/></S3PutObjectRetention>".into(),
                "EventHoldDuration is not supported",
            ),
            (
                "<S3ComputeObjectChecksum><ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm>\
                 <ChecksumType>COMPOSITE</ChecksumType></S3ComputeObjectChecksum>"
                    .into(),
                "never COMPOSITE",
            ),
            ("<S3UpdateObjectEncryption/>".into(), "ObjectEncryption is required"),
            ("<S3UpdateObjectEncryption><ObjectEncryption/></S3UpdateObjectEncryption>".into(), "SSE-KMS is required"),
            (encryption(&format!("{key}:alias/my-favourite")), "must be the ARN of a KMS key"),
            (encryption("0123456789-0123456789"), "must be the ARN of a KMS key"),
            (encryption("short"), "KMSKeyArn must have 20 to 2048"),
        ] {
            let error = parse(&inside).expect_err(&inside);
            let told = error.told();
            assert_eq!((told.status.as_u16(), &*told.code), (400, "InvalidRequest"), "{inside}");
            assert!(told.message.contains(wanted), "{inside}: {}", told.message);
        }
    }
}
