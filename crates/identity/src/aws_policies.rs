//! AWS's own managed policies that scripts name: they can be attached, read and listed, and never changed.
//!
//! Their documents are AWS's of November 2026. Of `ReadOnlyAccess`, which names hundreds of services, there is what it
//! says of S3, Lambda, IAM, STS and the logs of functions. Source: "AWS managed policies" reference guide.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use longshore_core::policy::{Document, Kind, Policy};

use crate::entity::Managed;

/// Name, path, ID, when it was made, when its default version was, the number of that, its document.
type Row = (&'static str, &'static str, &'static str, &'static str, &'static str, u32, &'static str);

const POLICIES: &[Row] = &[
    (
        "AWSLambdaBasicExecutionRole",
        "/service-role/",
        "ANPAJNCQGXC42545SKXIK",
        "2015-04-09T15:03:43Z",
        "2015-04-09T15:03:43Z",
        1,
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["logs:CreateLogGroup","logs:CreateLogStream","logs:PutLogEvents"],"Resource":"*"}]}"#,
    ),
    (
        "AWSLambdaDynamoDBExecutionRole",
        "/service-role/",
        "ANPAIP7WNAGMIPYNW4WQG",
        "2015-04-09T15:09:29Z",
        "2015-04-09T15:09:29Z",
        1,
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["dynamodb:DescribeStream","dynamodb:GetRecords","dynamodb:GetShardIterator","dynamodb:ListStreams","logs:CreateLogGroup","logs:CreateLogStream","logs:PutLogEvents"],"Resource":"*"}]}"#,
    ),
    (
        "AWSLambdaExecute",
        "/",
        "ANPAJE5FX7FQZSU5XAKGO",
        "2015-02-06T18:40:46Z",
        "2015-02-06T18:40:46Z",
        1,
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["logs:*"],"Resource":"arn:aws:logs:*:*:*"},{"Effect":"Allow","Action":["s3:GetObject","s3:PutObject"],"Resource":"arn:aws:s3:::*"}]}"#,
    ),
    (
        "AWSLambdaKinesisExecutionRole",
        "/service-role/",
        "ANPAJHOLKJPXV4GBRMJUQ",
        "2015-04-09T15:14:16Z",
        "2018-11-19T20:09:24Z",
        2,
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["kinesis:DescribeStream","kinesis:DescribeStreamSummary","kinesis:GetRecords","kinesis:GetShardIterator","kinesis:ListShards","kinesis:ListStreams","kinesis:SubscribeToShard","logs:CreateLogGroup","logs:CreateLogStream","logs:PutLogEvents"],"Resource":"*"}]}"#,
    ),
    (
        "AWSLambdaRole",
        "/service-role/",
        "ANPAJX4DPCRGTC4NFDUXI",
        "2015-02-06T18:41:28Z",
        "2015-02-06T18:41:28Z",
        1,
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["lambda:InvokeFunction"],"Resource":["*"]}]}"#,
    ),
    (
        "AWSLambdaSQSQueueExecutionRole",
        "/service-role/",
        "ANPAJFWJZI6JNND4TSELK",
        "2018-06-14T21:50:45Z",
        "2018-06-14T21:50:45Z",
        1,
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["sqs:ReceiveMessage","sqs:DeleteMessage","sqs:GetQueueAttributes","logs:CreateLogGroup","logs:CreateLogStream","logs:PutLogEvents"],"Resource":"*"}]}"#,
    ),
    (
        "AWSLambdaVPCAccessExecutionRole",
        "/service-role/",
        "ANPAJVTME3YLVNL72YR2K",
        "2016-02-11T23:15:26Z",
        "2024-01-05T22:38:26Z",
        3,
        r#"{"Version":"2012-10-17","Statement":[{"Sid":"AWSLambdaVPCAccessExecutionPermissions","Effect":"Allow","Action":["logs:CreateLogGroup","logs:CreateLogStream","logs:PutLogEvents","ec2:CreateNetworkInterface","ec2:DescribeNetworkInterfaces","ec2:DescribeSubnets","ec2:DeleteNetworkInterface","ec2:AssignPrivateIpAddresses","ec2:UnassignPrivateIpAddresses"],"Resource":"*"}]}"#,
    ),
    (
        "AWSLambda_FullAccess",
        "/",
        "ANPAZKAPJZG4OXQPYWZ5D",
        "2020-11-17T21:14:08Z",
        "2026-02-11T22:18:56Z",
        5,
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["cloudformation:DescribeStacks","cloudformation:ListStackResources","cloudwatch:ListMetrics","cloudwatch:GetMetricData","ec2:DescribeSecurityGroups","ec2:DescribeSubnets","ec2:DescribeVpcs","kms:DescribeKey","kms:ListAliases","iam:GetPolicy","iam:GetPolicyVersion","iam:GetRole","iam:GetRolePolicy","iam:ListAttachedRolePolicies","iam:ListRolePolicies","iam:ListRoles","lambda:*","logs:DescribeLogGroups","states:DescribeStateMachine","states:ListStateMachines","tag:GetResources","xray:GetTraceSummaries","xray:BatchGetTraces"],"Resource":"*"},{"Effect":"Allow","Action":"iam:PassRole","Resource":"*","Condition":{"StringEquals":{"iam:PassedToService":"lambda.amazonaws.com"}}},{"Effect":"Allow","Action":["logs:DescribeLogStreams","logs:GetLogEvents","logs:FilterLogEvents","logs:StartLiveTail","logs:StopLiveTail"],"Resource":"arn:aws:logs:*:*:log-group:/aws/lambda/*"},{"Effect":"Allow","Action":"iam:CreateServiceLinkedRole","Resource":"arn:aws:iam::*:role/aws-service-role/lambda.amazonaws.com/AWSServiceRoleForLambda","Condition":{"StringEquals":{"iam:AWSServiceName":"lambda.amazonaws.com"}}}]}"#,
    ),
    (
        "AWSLambda_ReadOnlyAccess",
        "/",
        "ANPAZKAPJZG4IERNVMNPE",
        "2020-11-17T21:10:32Z",
        "2026-02-12T18:02:55Z",
        5,
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["cloudformation:DescribeStacks","cloudformation:ListStacks","cloudformation:ListStackResources","cloudwatch:GetMetricData","cloudwatch:ListMetrics","ec2:DescribeSecurityGroups","ec2:DescribeSubnets","ec2:DescribeVpcs","kms:ListAliases","iam:GetPolicy","iam:GetPolicyVersion","iam:GetRole","iam:GetRolePolicy","iam:ListAttachedRolePolicies","iam:ListRolePolicies","iam:ListRoles","logs:DescribeLogGroups","lambda:Get*","lambda:List*","states:DescribeStateMachine","states:ListStateMachines","tag:GetResources","xray:GetTraceSummaries","xray:BatchGetTraces"],"Resource":"*"},{"Effect":"Allow","Action":["logs:DescribeLogStreams","logs:GetLogEvents","logs:FilterLogEvents","logs:StartQuery","logs:StopQuery","logs:DescribeQueries","logs:GetLogGroupFields","logs:GetLogRecord","logs:GetQueryResults","logs:StartLiveTail","logs:StopLiveTail"],"Resource":"arn:aws:logs:*:*:log-group:/aws/lambda/*"}]}"#,
    ),
    (
        "AWSXRayDaemonWriteAccess",
        "/",
        "ANPAIOE47HSUE5AVBNEDM",
        "2018-08-28T23:00:33Z",
        "2024-02-13T21:58:30Z",
        2,
        r#"{"Version":"2012-10-17","Statement":[{"Sid":"AWSXRayDaemonWriteAccess","Effect":"Allow","Action":["xray:PutTraceSegments","xray:PutTelemetryRecords","xray:GetSamplingRules","xray:GetSamplingTargets","xray:GetSamplingStatisticSummaries"],"Resource":["*"]}]}"#,
    ),
    (
        "AdministratorAccess",
        "/",
        "ANPAIWMBCKSKIEE64ZLYK",
        "2015-02-06T18:39:46Z",
        "2015-02-06T18:39:46Z",
        1,
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#,
    ),
    (
        "AmazonS3FullAccess",
        "/",
        "ANPAIFIR6V6BVTRAHWINE",
        "2015-02-06T18:40:58Z",
        "2021-09-27T20:16:37Z",
        2,
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:*","s3-object-lambda:*"],"Resource":"*"}]}"#,
    ),
    (
        "AmazonS3ReadOnlyAccess",
        "/",
        "ANPAIZTJ4DXE7G6AGAE6M",
        "2015-02-06T18:40:59Z",
        "2023-08-10T21:31:39Z",
        3,
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:Get*","s3:List*","s3:Describe*","s3-object-lambda:Get*","s3-object-lambda:List*"],"Resource":"*"}]}"#,
    ),
    (
        "CloudWatchLogsFullAccess",
        "/",
        "ANPAJ3ZGNWK2R5HW5BQFO",
        "2015-02-06T18:40:02Z",
        "2026-02-12T18:00:33Z",
        8,
        r#"{"Version":"2012-10-17","Statement":[{"Sid":"CloudWatchLogsFullAccess","Effect":"Allow","Action":["logs:*","cloudwatch:GenerateQuery","cloudwatch:GenerateQueryResultsSummary","observabilityadmin:GetS3TableIntegration","observabilityadmin:ListS3TableIntegrations","observabilityadmin:ListTelemetryPipelines"],"Resource":"*"}]}"#,
    ),
    (
        "IAMFullAccess",
        "/",
        "ANPAI7XKCFMBPM3QQRRVQ",
        "2015-02-06T18:40:38Z",
        "2019-06-21T19:40:00Z",
        2,
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iam:*","organizations:DescribeAccount","organizations:DescribeOrganization","organizations:DescribeOrganizationalUnit","organizations:DescribePolicy","organizations:ListChildren","organizations:ListParents","organizations:ListPoliciesForTarget","organizations:ListRoots","organizations:ListPolicies","organizations:ListTargetsForPolicy"],"Resource":"*"}]}"#,
    ),
    (
        "PowerUserAccess",
        "/",
        "ANPAJYRXTHIB4FOVS3ZXS",
        "2015-02-06T18:39:47Z",
        "2026-02-12T17:59:14Z",
        12,
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","NotAction":["iam:*","organizations:*","account:*"],"Resource":"*"},{"Effect":"Allow","Action":["account:GetAccountInformation","account:GetGovCloudAccountInformation","account:GetPrimaryEmail","account:ListRegions","iam:CreateServiceLinkedRole","iam:DeleteServiceLinkedRole","iam:ListRoles","organizations:DescribeEffectivePolicy","organizations:DescribeOrganization"],"Resource":"*"}]}"#,
    ),
    (
        "ReadOnlyAccess",
        "/",
        "ANPAILL3HVNFSB6DCOWYQ",
        "2015-02-06T18:39:48Z",
        "2015-02-06T18:39:48Z",
        1,
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iam:Get*","iam:List*","iam:Simulate*","lambda:Get*","lambda:List*","logs:Describe*","logs:FilterLogEvents","logs:Get*","s3:DescribeJob","s3:Get*","s3:List*","sts:GetAccessKeyInfo","sts:GetCallerIdentity","sts:GetSessionToken"],"Resource":"*"}]}"#,
    ),
];

static BY_ARN: LazyLock<BTreeMap<String, Managed>> = LazyLock::new(|| {
    let seconds = |date: &str| date.parse::<jiff::Timestamp>().expect("the dates here read").as_second();
    let read = POLICIES.iter().map(|&(name, path, id, created, updated, version, document)| {
        let arn = format!("arn:aws:iam::aws:policy{path}{name}");
        let (created, updated) = (seconds(created), seconds(updated));
        let parsed = Managed::version(&arn, document, updated).expect("AWS's own policies read");
        let policy = Managed {
            id: id.to_owned(),
            arn: arn.clone(),
            name: name.to_owned(),
            path: path.to_owned(),
            description: None,
            created,
            updated,
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
        // What CDK, SAM and modules of Terraform attach to functions.
        for attached in [
            "service-role/AWSLambdaDynamoDBExecutionRole",
            "service-role/AWSLambdaKinesisExecutionRole",
            "service-role/AWSLambdaSQSQueueExecutionRole",
            "service-role/AWSLambdaVPCAccessExecutionRole",
            "AWSLambda_ReadOnlyAccess",
            "AWSXRayDaemonWriteAccess",
            "CloudWatchLogsFullAccess",
        ] {
            assert!(find(&format!("arn:aws:iam::aws:policy/{attached}")).is_some(), "{attached}");
        }
        assert!(all().map(|policy| &policy.name).is_sorted());
        assert_eq!(nothing("gone").name.as_ref(), "gone");
    }
}
