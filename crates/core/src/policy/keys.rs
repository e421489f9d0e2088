//! Condition keys without which requests are known to exist.
//!
//! A key that is not in a request's context is either missing, which AWS's rules take into account (a negated operator holds, `Null`
//! is true), or this server cannot say what AWS would put there. Only what is named here can be missing; all else that is not in
//! the context is unknown, and then no Allow holds that asks for it, and every Deny does. A key goes in here when every part of
//! the server that could fill it does, or when nothing here can ever have it: no organization, no VPC, no instance, no second
//! factor, no federation. Tags are not among them: whoever knows all tags of a resource or a request says so (`Context::with_tags`).
//!
//! Source: IAM user guide, "AWS global condition context keys" (the availability of each key); service authorization reference, "Condition keys" of
//! Amazon S3, AWS Lambda, IAM and STS.

use super::actions::nearest;

/// In lower case, sorted.
const MAY_BE_MISSING: &[&str] = &[
    "aws:assumedroot",
    "aws:calledvia",
    "aws:calledviafirst",
    "aws:calledvialast",
    "aws:chatbotsourcearn",
    "aws:ec2instancesourceprivateipv4",
    "aws:ec2instancesourcevpc",
    "aws:federatedprovider",
    "aws:multifactorauthage",
    "aws:multifactorauthpresent",
    "aws:principalorgid",
    "aws:principalorgpaths",
    "aws:resourceorgid",
    "aws:resourceorgpaths",
    "aws:sourceaccount",
    "aws:sourcearn",
    "aws:sourceidentity",
    "aws:sourceorgid",
    "aws:sourceorgpaths",
    "aws:sourcevpc",
    "aws:sourcevpcarn",
    "aws:sourcevpce",
    "aws:tokenissuetime",
    "aws:vpceaccount",
    "aws:vpceorgid",
    "aws:vpceorgpaths",
    "aws:vpcsourceip",
    "ec2:roledelivery",
    "ec2:sourceinstancearn",
    "iam:awsservicename",
    "iam:organizationspolicyid",
    "iam:passedtoservice",
    "lambda:eventsourcetoken",
    "lambda:functionurlauthtype",
    "lambda:invokedviafunctionurl",
    "lambda:principal",
    "lambda:securitygroupids",
    "lambda:sourcefunctionarn",
    "lambda:subnetids",
    "lambda:vpcids",
    "s3:existingjoboperation",
    "s3:existingjobpriority",
    "s3:jobsuspendedcause",
    "s3:requestjoboperation",
    "s3:requestjobpriority",
    "sts:externalid",
    "sts:rolesessionname",
    "sts:sourceidentity",
    "sts:transitivetagkeys",
];

/// Keys that this server fills in some requests, in AWS's spelling; of a family of tags its beginning. Of a request that is made up, and
/// does not name them, they are missing.
const FILLED: &[&str] = &[
    "aws:CurrentTime",
    "aws:EpochTime",
    "aws:MultiFactorAuthPresent",
    "aws:RequestTag/",
    "aws:RequestedRegion",
    "aws:ResourceTag/",
    "aws:SecureTransport",
    "aws:SourceAccount",
    "aws:SourceArn",
    "aws:SourceIdentity",
    "aws:SourceIp",
    "aws:TagKeys",
    "aws:TokenIssueTime",
    "iam:AssociatedResourceArn",
    "iam:PassedToService",
    "iam:PermissionsBoundary",
    "iam:PolicyARN",
    "iam:ResourceTag/",
    "lambda:FunctionUrlAuthType",
    "lambda:Layer",
    "lambda:Principal",
    "lambda:SourceFunctionArn",
    "s3:ExistingJobOperation",
    "s3:ExistingJobPriority",
    "s3:ExistingObjectTag/",
    "s3:JobSuspendedCause",
    "s3:LocationConstraint",
    "s3:ObjectCreationOperation",
    "s3:RequestJobOperation",
    "s3:RequestJobPriority",
    "s3:RequestObjectTag/",
    "s3:RequestObjectTagKeys",
    "s3:TlsVersion",
    "s3:VersionId",
    "s3:authType",
    "s3:delimiter",
    "s3:if-match",
    "s3:if-none-match",
    "s3:max-keys",
    "s3:object-lock-legal-hold",
    "s3:object-lock-mode",
    "s3:object-lock-retain-until-date",
    "s3:prefix",
    "s3:signatureAge",
    "s3:signatureversion",
    "s3:x-amz-acl",
    "s3:x-amz-content-sha256",
    "s3:x-amz-copy-source",
    "s3:x-amz-grant-full-control",
    "s3:x-amz-grant-read",
    "s3:x-amz-grant-read-acp",
    "s3:x-amz-grant-write",
    "s3:x-amz-grant-write-acp",
    "s3:x-amz-metadata-directive",
    "s3:x-amz-server-side-encryption",
    "s3:x-amz-server-side-encryption-aws-kms-key-id",
    "s3:x-amz-server-side-encryption-customer-algorithm",
    "s3:x-amz-storage-class",
    "s3:x-amz-website-redirect-location",
    "sts:ExternalId",
    "sts:RoleSessionName",
    "sts:SourceIdentity",
    "sts:TransitiveTagKeys",
];

/// Keys that follow from who asks and whose the resource is; no request is without an answer to them.
const OF_PRINCIPAL: &[&str] = &[
    "aws:PrincipalAccount",
    "aws:PrincipalArn",
    "aws:PrincipalIsAWSService",
    "aws:PrincipalTag/",
    "aws:PrincipalType",
    "aws:ResourceAccount",
    "aws:userid",
    "aws:username",
    "s3:ResourceAccount",
];

/// [`FILLED`].
pub fn filled() -> impl Iterator<Item = &'static str> {
    FILLED.iter().copied()
}

/// Whether this server fills a key in some requests.
pub(super) fn is_filled(key: &str) -> bool {
    let family = key.find('/').map_or(key, |slash| &key[..=slash]);
    FILLED.iter().any(|filled| filled.eq_ignore_ascii_case(family))
}

/// The key that one was probably meant to be of which this server knows nothing.
pub(super) fn meant(key: &str) -> Option<String> {
    let (service, name) = key.split_once(':').filter(|_| !is_filled(key))?;
    let known = FILLED.iter().chain(OF_PRINCIPAL).filter_map(|known| known.split_once(':'));
    let of_service = known.filter(|(known, name)| known.eq_ignore_ascii_case(service) && !name.ends_with('/'));
    let near = nearest(name, of_service.map(|(_, name)| name))?;
    Some(format!("{}:{near}", service.to_ascii_lowercase()))
}

/// Whether a request without this key, in lower case, is known to exist.
pub(super) fn may_be_missing(key: &str) -> bool {
    MAY_BE_MISSING.binary_search(&key).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_misspelt_is_told_with_the_one_that_was_meant() {
        for (key, known) in [
            ("s3:RequestJobPrio", Some("s3:RequestJobPriority")),
            ("aws:SourceIP4", Some("aws:SourceIp")),
            ("aws:UserAgent", None),
            ("aws:Nonsense", None),
        ] {
            assert_eq!(meant(key).as_deref(), known, "{key}");
        }
        for (key, filled) in [
            ("aws:sourceip", true),
            ("aws:RequestTag/any/thing", true),
            ("aws:requesttag", false),
            ("aws:useragent", false),
        ] {
            assert_eq!(is_filled(key), filled, "{key}");
        }
    }

    #[test]
    fn the_keys_are_sorted_and_in_lower_case_so_that_each_is_found() {
        assert!(MAY_BE_MISSING.is_sorted_by(|a, b| a < b));
        for key in MAY_BE_MISSING {
            assert!(may_be_missing(key) && *key == key.to_ascii_lowercase(), "{key}");
        }
        for key in ["aws:sourceip", "aws:nonsense", "aws:resourcetag/team", "aws:tagkeys"] {
            assert!(!may_be_missing(key), "{key}");
        }
    }
}
