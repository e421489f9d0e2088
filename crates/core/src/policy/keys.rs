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

/// Whether a request without this key, in lower case, is known to exist.
pub(super) fn may_be_missing(key: &str) -> bool {
    MAY_BE_MISSING.binary_search(&key).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

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
