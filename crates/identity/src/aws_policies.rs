//! AWS's own managed policies that scripts name: they can be attached, read and listed, and never changed.
//!
//! Their documents are AWS's, down to the order of actions. Of `ReadOnlyAccess`, which names hundreds of services, there is what it
//! says of S3, Lambda, IAM, STS and the logs of functions. Source: "AWS managed policies" reference guide.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use longshore_core::policy::{Document, Kind, Policy};

use crate::entity::Managed;

/// Name, path, ID, day of creation in seconds since the epoch, number of the default version, document.
type Row = (&'static str, &'static str, &'static str, i64, u32, &'static str);

const POLICIES: &[Row] = &[
    (
        "AWSLambdaBasicExecutionRole",
        "/service-role/",
        "ANPAJNCQGXC42545SKXIK",
        1_428_591_600,
        1,
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["logs:CreateLogGroup","logs:CreateLogStream","logs:PutLogEvents"],"Resource":"*"}]}"#,
    ),
    (
        "AWSLambdaExecute",
        "/",
        "ANPAJE5FX7FQZSU5XAKGO",
        1_423_247_999,
        1,
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["logs:*"],"Resource":"arn:aws:logs:*:*:*"},{"Effect":"Allow","Action":["s3:GetObject","s3:PutObject"],"Resource":"arn:aws:s3:::*"}]}"#,
    ),
    (
        "AWSLambdaRole",
        "/service-role/",
        "ANPAJX4DPCRGTC4NFDUXI",
        1_423_248_000,
        1,
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["lambda:InvokeFunction"],"Resource":["*"]}]}"#,
    ),
    (
        "AWSLambda_FullAccess",
        "/",
        "ANPAZKAPJZG4ONAMEWQ2X",
        1_605_619_980,
        1,
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["cloudformation:DescribeStacks","cloudformation:ListStackResources","cloudwatch:ListMetrics","cloudwatch:GetMetricData","ec2:DescribeSecurityGroups","ec2:DescribeSubnets","ec2:DescribeVpcs","kms:ListAliases","iam:GetPolicy","iam:GetPolicyVersion","iam:GetRole","iam:GetRolePolicy","iam:ListAttachedRolePolicies","iam:ListRolePolicies","iam:ListRoles","lambda:*","logs:DescribeLogGroups","states:DescribeStateMachine","states:ListStateMachines","tag:GetResources","xray:GetTraceSummaries","xray:BatchGetTraces"],"Resource":"*"},{"Effect":"Allow","Action":"iam:PassRole","Resource":"*","Condition":{"StringEquals":{"iam:PassedToService":"lambda.amazonaws.com"}}},{"Effect":"Allow","Action":["logs:DescribeLogStreams","logs:GetLogEvents","logs:FilterLogEvents"],"Resource":"arn:aws:logs:*:*:log-group:/aws/lambda/*"}]}"#,
    ),
    (
        "AdministratorAccess",
        "/",
        "ANPAIWMBCKSKIEE64ZLYK",
        1_423_247_988,
        1,
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#,
    ),
    (
        "AmazonS3FullAccess",
        "/",
        "ANPAIFIR6V6BVTRAHWINE",
        1_423_247_999,
        2,
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:*","s3-object-lambda:*"],"Resource":"*"}]}"#,
    ),
    (
        "AmazonS3ReadOnlyAccess",
        "/",
        "ANPAIZTJ4DXE7G6AGAE6M",
        1_423_248_000,
        3,
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:Get*","s3:List*","s3:Describe*","s3-object-lambda:Get*","s3-object-lambda:List*"],"Resource":"*"}]}"#,
    ),
    (
        "IAMFullAccess",
        "/",
        "ANPAI7XKCFMBPM3QQRRVQ",
        1_423_248_038,
        2,
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iam:*","organizations:DescribeAccount","organizations:DescribeOrganization","organizations:DescribeOrganizationalUnit","organizations:DescribePolicy","organizations:ListChildren","organizations:ListParents","organizations:ListPoliciesForTarget","organizations:ListRoots","organizations:ListPolicies","organizations:ListTargetsForPolicy"],"Resource":"*"}]}"#,
    ),
    (
        "PowerUserAccess",
        "/",
        "ANPAJYRXTHIB4FOVS3ZXS",
        1_423_247_988,
        5,
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","NotAction":["iam:*","organizations:*","account:*"],"Resource":"*"},{"Effect":"Allow","Action":["account:GetAccountInformation","account:GetPrimaryEmail","account:ListRegions","iam:CreateServiceLinkedRole","iam:DeleteServiceLinkedRole","iam:ListRoles","organizations:DescribeEffectivePolicy","organizations:DescribeOrganization"],"Resource":"*"}]}"#,
    ),
    (
        "ReadOnlyAccess",
        "/",
        "ANPAILL3HVNFSB6DCOWYQ",
        1_423_247_988,
        1,
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iam:Get*","iam:List*","iam:Simulate*","lambda:Get*","lambda:List*","logs:Describe*","logs:FilterLogEvents","logs:Get*","s3:DescribeJob","s3:Get*","s3:List*","sts:GetAccessKeyInfo","sts:GetCallerIdentity","sts:GetSessionToken"],"Resource":"*"}]}"#,
    ),
];

static BY_ARN: LazyLock<BTreeMap<String, Managed>> = LazyLock::new(|| {
    let read = POLICIES.iter().map(|&(name, path, id, created, version, document)| {
        let arn = format!("arn:aws:iam::aws:policy{path}{name}");
        let parsed = Managed::version(&arn, document, created).expect("AWS's own policies read");
        let policy = Managed {
            id: id.to_owned(),
            arn: arn.clone(),
            name: name.to_owned(),
            path: path.to_owned(),
            description: None,
            created,
            updated: created,
            default_version: version,
            last_version: version,
            versions: BTreeMap::from([(version, parsed)]),
            tags: BTreeMap::new(),
        };
        (arn, policy)
    });
    read.collect()
});

/// A policy of AWS's by its ARN.
pub(crate) fn find(arn: &str) -> Option<&'static Managed> {
    BY_ARN.get(arn)
}

/// All of them, in the order of their names.
pub(crate) fn all() -> impl Iterator<Item = &'static Managed> {
    POLICIES.iter().filter_map(|(name, path, ..)| find(&format!("arn:aws:iam::aws:policy{path}{name}")))
}

/// Is it an ARN of AWS's own policies, whether it is here or not?
pub(crate) fn is_theirs(arn: &str) -> bool {
    arn.starts_with("arn:aws:iam::aws:policy/")
}

/// What stands in the place of a policy that bounds and is gone: it lets nothing through.
pub(crate) fn nothing(name: &str) -> Policy {
    static NOTHING: LazyLock<Document> = LazyLock::new(|| {
        let text = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":"*"}]}"#;
        Document::parse(text, Kind::Identity).expect("the document reads")
    });
    Policy { name: name.into(), document: NOTHING.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_of_awss_is_found_by_its_arn_and_has_a_document() {
        assert_eq!(all().count(), POLICIES.len());
        for policy in all() {
            assert!(is_theirs(&policy.arn) && policy.policy().is_some(), "{}", policy.arn);
            assert!(policy.id.len() == 21 && policy.id.starts_with("ANPA"), "{}", policy.id);
        }
        assert!(find("arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole").is_some());
        assert!(find("arn:aws:iam::aws:policy/AWSLambdaBasicExecutionRole").is_none());
        assert!(all().map(|policy| &policy.name).is_sorted());
        assert_eq!(nothing("gone").name.as_ref(), "gone");
    }
}
