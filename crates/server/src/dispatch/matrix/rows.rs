//! The rows of the matrix: for each operation that there is, how a right request for it looks, what it asks of the caller's policies, and
//! what else than success it may answer once it was done.
//!
//! `@` stands for the name's end: `here` of a resource that there is, `gone` of one that there is not, `held` of one that is to be made and
//! is there already. What stands behind a comma in a name says in which way the operation is asked that asks for more than usual.
//! Operations of a room are in an order in which each finds what it needs.

/// Which table an operation is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    S3,
    Control,
    Lambda,
    Identity,
    /// Ours, below `/_longshore/v1/`.
    Own,
}

#[derive(Debug, Clone)]
pub struct Row {
    pub room: Room,
    pub name: String,
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
    pub asks: Vec<String>,
    /// Codes that are as good as success: of operations that never succeed here, and of those that can be done once.
    pub ends: Vec<String>,
    /// What `@` is in the twin.
    pub twin: &'static str,
    /// Refusals stand in an answer that is a success as a whole: DeleteObjects.
    pub refused_inside: bool,
    /// The service that signs.
    pub service: &'static str,
}

impl Row {
    pub fn has_twin(&self) -> bool {
        let named = |text: &str| text.contains('@') || text.contains("%JOB%") || text.contains("%CANCELLED%");
        named(&self.target) || named(&self.body) || self.headers.iter().any(|(_, value)| named(value))
    }
}

pub const JOB: &str = "<CreateJobRequest xmlns=\"http://awss3control.amazonaws.com/doc/2018-08-20/\">\
    <ConfirmationRequired>true</ConfirmationRequired><Operation><LambdaInvoke><FunctionArn>%LAMBDA%:function:f-here</FunctionArn>\
    </LambdaInvoke></Operation><Report><Enabled>false</Enabled></Report><ClientRequestToken>token-here</ClientRequestToken>\
    <Manifest><Spec><Format>S3BatchOperations_CSV_20180820</Format><Fields><member>Bucket</member><member>Key</member></Fields></Spec>\
    <Location><ObjectArn>arn:aws:s3:::b-here/manifest.csv</ObjectArn><ETag>%ETAG%</ETag></Location></Manifest>\
    <Priority>10</Priority><RoleArn>%ROLE%</RoleArn></CreateJobRequest>";

/// Name | method and target | headers | body | actions | codes. `$JOB` is [`JOB`].
const S3: &str = "
list_buckets | GET / | | | s3:ListAllMyBuckets |
create_bucket | PUT /nb-@ | | | s3:CreateBucket | BucketAlreadyOwnedByYou
head_bucket | HEAD /b-@ | | | s3:ListBucket |
get_bucket_location | GET /b-@?location= | | | s3:GetBucketLocation |
delete_bucket | DELETE /db-@ | | | s3:DeleteBucket | NoSuchBucket
put_object | PUT /b-here/p-@ | | hello | s3:PutObject |
put_object, with tags | PUT /b-here/p-@ | x-amz-tagging: a=b | hello | s3:PutObject s3:PutObjectTagging |
get_object | GET /b-here/k-@ | | | s3:GetObject |
get_object, a version | GET /b-here/k-@?versionId=null | | | s3:GetObjectVersion |
head_object | HEAD /b-here/k-@ | | | s3:GetObject |
get_object_attributes | GET /b-here/k-@?attributes= | x-amz-object-attributes: ETag | | s3:GetObject s3:GetObjectAttributes |
copy_object | PUT /b-here/copied | x-amz-copy-source: /b-here/k-@ | | s3:GetObject s3:PutObject |
copy_object, with its tags | PUT /b-here/copied | x-amz-copy-source: /b-here/t-@ | | s3:GetObject s3:PutObject s3:GetObjectTagging s3:PutObjectTagging |
delete_object | DELETE /b-here/d-@ | | | s3:DeleteObject |
delete_object, a version | DELETE /b-here/v-@?versionId=null | | | s3:DeleteObjectVersion |
delete_objects | POST /b-here?delete= | | <Delete><Object><Key>e-@</Key></Object></Delete> | s3:DeleteObject |
list_objects | GET /b-@ | | | s3:ListBucket |
list_objects_v2 | GET /b-@?list-type=2&prefix=k | | | s3:ListBucket |
create_multipart_upload | POST /b-here/m-@?uploads= | | | s3:PutObject |
create_multipart_upload, with tags | POST /b-here/m-@?uploads= | x-amz-tagging: a=b | | s3:PutObject s3:PutObjectTagging |
upload_part | PUT /b-here/up-@?partNumber=1&uploadId=%UPLOAD% | | hello | s3:PutObject |
upload_part_copy | PUT /b-here/up-here?partNumber=2&uploadId=%UPLOAD% | x-amz-copy-source: /b-here/k-@ | | s3:GetObject s3:PutObject |
list_parts | GET /b-here/up-@?uploadId=%UPLOAD% | | | s3:ListMultipartUploadParts |
list_multipart_uploads | GET /b-@?uploads= | | | s3:ListBucketMultipartUploads |
abort_multipart_upload | DELETE /b-here/ab-@?uploadId=%ABORT% | | | s3:AbortMultipartUpload | NoSuchUpload
complete_multipart_upload | POST /b-here/up-@?uploadId=%UPLOAD% | | <CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>5d41402abc4b2a76b9719d911017c592</ETag></Part></CompleteMultipartUpload> | s3:PutObject | NoSuchUpload
get_object_tagging | GET /b-here/k-@?tagging= | | | s3:GetObjectTagging |
get_object_tagging, of a version | GET /b-here/k-@?tagging=&versionId=null | | | s3:GetObjectVersionTagging |
put_object_tagging | PUT /b-here/p-@?tagging= | | <Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging> | s3:PutObjectTagging |
delete_object_tagging | DELETE /b-here/p-@?tagging= | | | s3:DeleteObjectTagging |
get_bucket_versioning | GET /b-@?versioning= | | | s3:GetBucketVersioning |
put_bucket_versioning | PUT /vb-@?versioning= | | <VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration> | s3:PutBucketVersioning |
list_object_versions | GET /b-@?versions= | | | s3:ListBucketVersions |
";

const CONTROL: &str = "
ListJobs | GET /v20180820/jobs?maxResults=3 | | | s3:ListJobs |
DescribeJob | GET /v20180820/jobs/%JOB% | | | s3:DescribeJob |
GetJobTagging | GET /v20180820/jobs/%JOB%/tagging | | | s3:GetJobTagging |
PutJobTagging | PUT /v20180820/jobs/%JOB%/tagging | | <PutJobTaggingRequest><Tags><member><Key>a</Key><Value>b</Value></member></Tags></PutJobTaggingRequest> | s3:PutJobTagging |
DeleteJobTagging | DELETE /v20180820/jobs/%JOB%/tagging | | | s3:DeleteJobTagging |
UpdateJobPriority | POST /v20180820/jobs/%JOB%/priority?priority=7 | | | s3:UpdateJobPriority |
CreateJob | POST /v20180820/jobs | | $JOB | s3:CreateJob iam:PassRole |
CreateJob, with tags | POST /v20180820/jobs | | $TAGGED | s3:CreateJob iam:PassRole s3:PutJobTagging |
UpdateJobStatus | POST /v20180820/jobs/%CANCELLED%/status?requestedJobStatus=Cancelled | | | s3:UpdateJobStatus | JobStatusException
";

const OWN: &str = "
JobEvents | GET /_longshore/v1/jobs/%JOB%/events | | | s3:DescribeJob |
JobFigures | GET /_longshore/v1/jobs/%JOB%/figures | | | s3:DescribeJob |
JobResults | GET /_longshore/v1/jobs/%JOB%/results | | | s3:DescribeJob |
DeliverJobReport | POST /_longshore/v1/jobs/%JOB%/report | | | s3:UpdateJobStatus | InvalidRequest
FunctionLogs | GET /_longshore/v1/functions/f-@/logs | | | logs:FilterLogEvents |
FunctionsStats | GET /_longshore/v1/functions/stats | | | cloudwatch:GetMetricData |
FunctionStats | GET /_longshore/v1/functions/f-@/stats | | | cloudwatch:GetMetricData |
Explain | POST /_longshore/v1/iam/explain | | PolicySourceArn=%IAM%%3Auser%2Fu-@&ActionNames.member.1=s3%3AGetObject | iam:SimulatePrincipalPolicy |
Metrics | GET /_longshore/v1/metrics | | | cloudwatch:GetMetricData |
";

const LAMBDA: &str = "
CreateFunction | POST /2015-03-31/functions | | {\"FunctionName\": \"nf-@\", \"Runtime\": \"python3.12\", \"Handler\": \"h.h\", \"Role\": \"%ROLE%\", \"Code\": {\"ZipFile\": \"%ZIP%\"}} | lambda:CreateFunction iam:PassRole | ResourceConflictException
CreateFunction, from S3 | POST /2015-03-31/functions | | {\"FunctionName\": \"ns-@\", \"Runtime\": \"python3.12\", \"Handler\": \"h.h\", \"Role\": \"%ROLE%\", \"Code\": {\"S3Bucket\": \"b-here\", \"S3Key\": \"code.zip\"}} | lambda:CreateFunction iam:PassRole s3:GetObject | ResourceConflictException
GetFunction | GET /2015-03-31/functions/f-@ | | | lambda:GetFunction |
GetFunctionConfiguration | GET /2015-03-31/functions/f-@/configuration | | | lambda:GetFunctionConfiguration |
ListFunctions | GET /2015-03-31/functions | | | lambda:ListFunctions |
ListVersionsByFunction | GET /2015-03-31/functions/f-@/versions | | | lambda:ListVersionsByFunction |
GetAccountSettings | GET /2016-08-19/account-settings | | | lambda:GetAccountSettings |
Invoke | POST /2015-03-31/functions/f-@/invocations | x-amz-invocation-type: DryRun | {} | lambda:InvokeFunction |
UpdateFunctionCode | PUT /2015-03-31/functions/f-@/code | | {\"ZipFile\": \"%ZIP%\"} | lambda:UpdateFunctionCode |
UpdateFunctionCode, from S3 | PUT /2015-03-31/functions/f-@/code | | {\"S3Bucket\": \"b-here\", \"S3Key\": \"code.zip\"} | lambda:UpdateFunctionCode s3:GetObject |
UpdateFunctionCode, a version from S3 | PUT /2015-03-31/functions/f-@/code | | {\"S3Bucket\": \"b-here\", \"S3Key\": \"code.zip\", \"S3ObjectVersion\": \"null\"} | lambda:UpdateFunctionCode s3:GetObjectVersion |
UpdateFunctionConfiguration | PUT /2015-03-31/functions/f-@/configuration | | {\"Role\": \"%ROLE%\", \"Timeout\": 9} | lambda:UpdateFunctionConfiguration iam:PassRole |
UpdateFunctionConfiguration, with layers | PUT /2015-03-31/functions/f-@/configuration | | {\"Layers\": [\"%LAMBDA%:layer:l-here:1\"]} | lambda:UpdateFunctionConfiguration lambda:GetLayerVersion |
PublishVersion | POST /2015-03-31/functions/f-@/versions | | {} | lambda:PublishVersion |
CreateAlias | POST /2015-03-31/functions/f-here/aliases | | {\"Name\": \"na-@\", \"FunctionVersion\": \"1\"} | lambda:CreateAlias | ResourceConflictException
GetAlias | GET /2015-03-31/functions/f-here/aliases/a-@ | | | lambda:GetAlias |
ListAliases | GET /2015-03-31/functions/f-@/aliases | | | lambda:ListAliases |
UpdateAlias | PUT /2015-03-31/functions/f-here/aliases/a-@ | | {\"Description\": \"d\"} | lambda:UpdateAlias |
DeleteAlias | DELETE /2015-03-31/functions/f-here/aliases/da-@ | | | lambda:DeleteAlias |
AddPermission | POST /2015-03-31/functions/f-@/policy | | {\"StatementId\": \"st\", \"Action\": \"lambda:GetFunction\", \"Principal\": \"111111111111\"} | lambda:AddPermission | ResourceConflictException
GetPolicy | GET /2015-03-31/functions/f-@/policy | | | lambda:GetPolicy |
RemovePermission | DELETE /2015-03-31/functions/f-@/policy/st | | | lambda:RemovePermission | ResourceNotFoundException
PutFunctionConcurrency | PUT /2017-10-31/functions/f-@/concurrency | | {\"ReservedConcurrentExecutions\": 5} | lambda:PutFunctionConcurrency |
GetFunctionConcurrency | GET /2019-09-30/functions/f-@/concurrency | | | lambda:GetFunctionConcurrency |
DeleteFunctionConcurrency | DELETE /2017-10-31/functions/f-@/concurrency | | | lambda:DeleteFunctionConcurrency |
PutProvisionedConcurrencyConfig | PUT /2019-09-30/functions/f-@/provisioned-concurrency?Qualifier=1 | | {\"ProvisionedConcurrentExecutions\": 1} | lambda:PutProvisionedConcurrencyConfig |
GetProvisionedConcurrencyConfig | GET /2019-09-30/functions/f-@/provisioned-concurrency?Qualifier=1 | | | lambda:GetProvisionedConcurrencyConfig |
ListProvisionedConcurrencyConfigs | GET /2019-09-30/functions/f-@/provisioned-concurrency?List=ALL | | | lambda:ListProvisionedConcurrencyConfigs |
DeleteProvisionedConcurrencyConfig | DELETE /2019-09-30/functions/f-@/provisioned-concurrency?Qualifier=1 | | | lambda:DeleteProvisionedConcurrencyConfig | ProvisionedConcurrencyConfigNotFoundException
PutFunctionEventInvokeConfig | PUT /2019-09-25/functions/f-@/event-invoke-config | | {\"MaximumRetryAttempts\": 1} | lambda:PutFunctionEventInvokeConfig |
UpdateFunctionEventInvokeConfig | POST /2019-09-25/functions/f-@/event-invoke-config | | {\"MaximumRetryAttempts\": 0} | lambda:UpdateFunctionEventInvokeConfig |
GetFunctionEventInvokeConfig | GET /2019-09-25/functions/f-@/event-invoke-config | | | lambda:GetFunctionEventInvokeConfig |
ListFunctionEventInvokeConfigs | GET /2019-09-25/functions/f-@/event-invoke-config/list | | | lambda:ListFunctionEventInvokeConfigs |
DeleteFunctionEventInvokeConfig | DELETE /2019-09-25/functions/f-@/event-invoke-config | | | lambda:DeleteFunctionEventInvokeConfig | ResourceNotFoundException
PutFunctionRecursionConfig | PUT /2024-08-31/functions/f-@/recursion-config | | {\"RecursiveLoop\": \"Terminate\"} | lambda:PutFunctionRecursionConfig |
GetFunctionRecursionConfig | GET /2024-08-31/functions/f-@/recursion-config | | | lambda:GetFunctionRecursionConfig |
PutRuntimeManagementConfig | PUT /2021-07-20/functions/f-@/runtime-management-config | | {\"UpdateRuntimeOn\": \"Auto\"} | lambda:PutRuntimeManagementConfig |
GetRuntimeManagementConfig | GET /2021-07-20/functions/f-@/runtime-management-config | | | lambda:GetRuntimeManagementConfig |
GetFunctionCodeSigningConfig | GET /2020-06-30/functions/f-@/code-signing-config | | | lambda:GetFunctionCodeSigningConfig |
DeleteFunctionCodeSigningConfig | DELETE /2020-06-30/functions/f-@/code-signing-config | | | lambda:DeleteFunctionCodeSigningConfig |
GetFunctionUrlConfig | GET /2021-10-31/functions/f-@/url | | | lambda:GetFunctionUrlConfig | ResourceNotFoundException
ListFunctionUrlConfigs | GET /2021-10-31/functions/f-@/urls | | | lambda:ListFunctionUrlConfigs |
ListEventSourceMappings | GET /2015-03-31/event-source-mappings | | | lambda:ListEventSourceMappings |
TagResource | POST /2017-03-31/tags/arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Af-@ | | {\"Tags\": {\"a\": \"b\"}} | lambda:TagResource |
ListTags | GET /2017-03-31/tags/arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Af-@ | | | lambda:ListTags |
UntagResource | DELETE /2017-03-31/tags/arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Af-@?tagKeys=a | | | lambda:UntagResource |
DeleteFunction | DELETE /2015-03-31/functions/df-@ | | | lambda:DeleteFunction | ResourceNotFoundException
PublishLayerVersion | POST /2018-10-31/layers/l-@/versions | | {\"Content\": {\"ZipFile\": \"%ZIP%\"}} | lambda:PublishLayerVersion |
PublishLayerVersion, from S3 | POST /2018-10-31/layers/l-@/versions | | {\"Content\": {\"S3Bucket\": \"b-here\", \"S3Key\": \"code.zip\"}} | lambda:PublishLayerVersion s3:GetObject |
GetLayerVersion | GET /2018-10-31/layers/l-@/versions/1 | | | lambda:GetLayerVersion |
GetLayerVersionByArn | GET /2018-10-31/layers?Arn=arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Alayer%3Al-@%3A1&find=LayerVersion | | | lambda:GetLayerVersion |
ListLayers | GET /2018-10-31/layers | | | lambda:ListLayers |
ListLayerVersions | GET /2018-10-31/layers/l-@/versions | | | lambda:ListLayerVersions |
AddLayerVersionPermission | POST /2018-10-31/layers/l-@/versions/1/policy | | {\"StatementId\": \"st\", \"Action\": \"lambda:GetLayerVersion\", \"Principal\": \"111111111111\"} | lambda:AddLayerVersionPermission | ResourceConflictException
GetLayerVersionPolicy | GET /2018-10-31/layers/l-@/versions/1/policy | | | lambda:GetLayerVersionPolicy |
RemoveLayerVersionPermission | DELETE /2018-10-31/layers/l-@/versions/1/policy/st | | | lambda:RemoveLayerVersionPermission | ResourceNotFoundException
DeleteLayerVersion | DELETE /2018-10-31/layers/dl-@/versions/1 | | | lambda:DeleteLayerVersion |
";

/// Name | members of the request | codes. What is asked stands in IAM's own table.
const IDENTITY: &str = "
CreateUser | UserName=nu-@ | EntityAlreadyExists
GetUser | UserName=u-@ |
ListUsers | |
UpdateUser | UserName=mu-@&NewPath=%2Fp%2F |
TagUser | UserName=u-@&Tags.member.1.Key=a&Tags.member.1.Value=b |
ListUserTags | UserName=u-@ |
UntagUser | UserName=u-@&TagKeys.member.1=a |
ListGroupsForUser | UserName=u-@ |
ListSSHPublicKeys | UserName=u-@ |
ListSigningCertificates | UserName=u-@ |
ListMFADevices | UserName=u-@ |
ListServiceSpecificCredentials | UserName=u-@ |
GetLoginProfile | UserName=u-@ | NoSuchEntity
DeleteLoginProfile | UserName=u-@ | NoSuchEntity
CreateAccessKey | UserName=mu-@ | LimitExceeded
ListAccessKeys | UserName=u-@ |
UpdateAccessKey | UserName=u-@&AccessKeyId=%KEY%&Status=Inactive | NoSuchEntity
DeleteAccessKey | UserName=u-@&AccessKeyId=%KEY% | NoSuchEntity
CreateRole | RoleName=nr-@&AssumeRolePolicyDocument=%TRUST% | EntityAlreadyExists
GetRole | RoleName=r-@ |
ListRoles | |
UpdateRole | RoleName=r-@&Description=d |
UpdateRoleDescription | RoleName=r-@&Description=e |
UpdateAssumeRolePolicy | RoleName=r-@&PolicyDocument=%TRUST% |
ListInstanceProfilesForRole | RoleName=r-@ |
TagRole | RoleName=r-@&Tags.member.1.Key=a&Tags.member.1.Value=b |
ListRoleTags | RoleName=r-@ |
UntagRole | RoleName=r-@&TagKeys.member.1=a |
PutUserPermissionsBoundary | UserName=u-@&PermissionsBoundary=%IAM%%3Apolicy%2Fpol-here |
DeleteUserPermissionsBoundary | UserName=u-@ | NoSuchEntity
PutRolePermissionsBoundary | RoleName=r-@&PermissionsBoundary=%IAM%%3Apolicy%2Fpol-here |
DeleteRolePermissionsBoundary | RoleName=r-@ | NoSuchEntity
PutUserPolicy | UserName=u-@&PolicyName=p&PolicyDocument=%ANYTHING% |
GetUserPolicy | UserName=u-@&PolicyName=p |
ListUserPolicies | UserName=u-@ |
DeleteUserPolicy | UserName=u-@&PolicyName=p | NoSuchEntity
PutRolePolicy | RoleName=r-@&PolicyName=p&PolicyDocument=%ANYTHING% |
GetRolePolicy | RoleName=r-@&PolicyName=p |
ListRolePolicies | RoleName=r-@ |
DeleteRolePolicy | RoleName=r-@&PolicyName=p | NoSuchEntity
AttachUserPolicy | UserName=u-@&PolicyArn=%IAM%%3Apolicy%2Fpol-here |
ListAttachedUserPolicies | UserName=u-@ |
DetachUserPolicy | UserName=u-@&PolicyArn=%IAM%%3Apolicy%2Fpol-here | NoSuchEntity
AttachRolePolicy | RoleName=r-@&PolicyArn=%IAM%%3Apolicy%2Fpol-here |
ListAttachedRolePolicies | RoleName=r-@ |
DetachRolePolicy | RoleName=r-@&PolicyArn=%IAM%%3Apolicy%2Fpol-here | NoSuchEntity
CreatePolicy | PolicyName=npol-@&PolicyDocument=%ANYTHING% | EntityAlreadyExists
GetPolicy | PolicyArn=%IAM%%3Apolicy%2Fpol-@ |
ListPolicies | |
ListEntitiesForPolicy | PolicyArn=%IAM%%3Apolicy%2Fpol-@ |
TagPolicy | PolicyArn=%IAM%%3Apolicy%2Fpol-@&Tags.member.1.Key=a&Tags.member.1.Value=b |
ListPolicyTags | PolicyArn=%IAM%%3Apolicy%2Fpol-@ |
UntagPolicy | PolicyArn=%IAM%%3Apolicy%2Fpol-@&TagKeys.member.1=a |
CreatePolicyVersion | PolicyArn=%IAM%%3Apolicy%2Fpol-@&PolicyDocument=%ANYTHING% | LimitExceeded
GetPolicyVersion | PolicyArn=%IAM%%3Apolicy%2Fpol-@&VersionId=v2 |
ListPolicyVersions | PolicyArn=%IAM%%3Apolicy%2Fpol-@ |
SetDefaultPolicyVersion | PolicyArn=%IAM%%3Apolicy%2Fpol-@&VersionId=v1 |
DeletePolicyVersion | PolicyArn=%IAM%%3Apolicy%2Fpol-@&VersionId=v2 | NoSuchEntity
DeletePolicy | PolicyArn=%IAM%%3Apolicy%2Fdpol-@ | NoSuchEntity
DeleteUser | UserName=du-@ | NoSuchEntity
DeleteRole | RoleName=dr-@ | NoSuchEntity
SimulatePrincipalPolicy | PolicySourceArn=%IAM%%3Auser%2Fu-@&ActionNames.member.1=s3%3AGetObject |
SimulateCustomPolicy | PolicyInputList.member.1=%ANYTHING%&ActionNames.member.1=s3%3AGetObject |
GetContextKeysForPrincipalPolicy | PolicySourceArn=%IAM%%3Auser%2Fu-@ |
GetContextKeysForCustomPolicy | PolicyInputList.member.1=%ANYTHING% |
GetAccountSummary | |
ListAccountAliases | |
ListVirtualMFADevices | |
GetAccountPasswordPolicy | | NoSuchEntity
AssumeRole | RoleArn=%IAM%%3Arole%2Fr-@&RoleSessionName=name |
AssumeRole, with tags | RoleArn=%IAM%%3Arole%2Fr-@&RoleSessionName=name&Tags.member.1.Key=a&Tags.member.1.Value=b |
GetAccessKeyInfo | AccessKeyId=%OWN% |
GetCallerIdentity | |
GetSessionToken | | AccessDenied
";

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// `CreateFunction` of the row `CreateFunction, from S3`.
pub fn operation(row: &str) -> &str {
    row.split_once(',').map_or(row, |(operation, _)| operation)
}

fn twin(name: &str) -> &'static str {
    let makes =
        ["create_bucket", "put_object", "CreateFunction", "CreateAlias", "CreateUser", "CreateRole", "CreatePolicy"];
    if makes.contains(&operation(name)) { "held" } else { "gone" }
}

fn of_table(room: Room, table: &str) -> impl Iterator<Item = Row> + '_ {
    table.lines().filter(|line| !line.is_empty()).map(move |line| {
        let cells: Vec<&str> = line.split(" |").map(str::trim).collect();
        let [name, line, headers, body, asks, ends] = cells[..] else { panic!("no row: {line}") };
        let (method, target) = line.split_once(' ').unwrap();
        let mut headers: Vec<(String, String)> =
            headers.split_once(": ").map(|(name, value)| (name.into(), value.into())).into_iter().collect();
        let tagged = "<Tags><member><Key>a</Key><Value>b</Value></member></Tags></CreateJobRequest>";
        let body = match body {
            "$JOB" => JOB.to_owned(),
            "$TAGGED" => JOB.replace("</CreateJobRequest>", tagged).replace("token-here", "token-tagged"),
            body => body.to_owned(),
        };
        if !body.is_empty() || matches!(method, "PUT" | "POST") {
            headers.push(("content-type".into(), "application/octet-stream".into()));
        }
        let service = match (room, target) {
            (Room::Lambda, _) => "lambda",
            _ => "s3",
        };
        Row {
            room,
            name: name.into(),
            method: method.into(),
            target: target.into(),
            headers,
            body,
            asks: words(asks),
            ends: words(ends),
            twin: twin(name),
            refused_inside: name == "delete_objects",
            service,
        }
    })
}

fn of_identity() -> impl Iterator<Item = Row> {
    let actions: std::collections::BTreeMap<&str, &str> = longshore_identity::operations().collect();
    // What anybody may do whose signature holds.
    let open = ["GetCallerIdentity", "GetSessionToken"];
    IDENTITY.lines().filter(|line| !line.is_empty()).map(move |line| {
        let cells: Vec<&str> = line.split(" |").map(str::trim).collect();
        let [name, members, ends] = cells[..] else { panic!("no row: {line}") };
        let action =
            actions.get(operation(name)).copied().unwrap_or_else(|| panic!("{name} is a row, and no operation"));
        let mut asks: Vec<String> = if open.contains(&name) { Vec::new() } else { vec![action.into()] };
        if name == "AssumeRole, with tags" {
            asks.push("sts:TagSession".into());
        }
        let separator = if members.is_empty() { "" } else { "&" };
        Row {
            room: Room::Identity,
            name: name.into(),
            method: "POST".into(),
            target: "/".into(),
            headers: vec![("content-type".into(), "application/x-www-form-urlencoded".into())],
            body: format!("Action={}{separator}{members}", operation(name)),
            asks,
            ends: words(ends),
            twin: twin(name),
            refused_inside: false,
            service: if action.starts_with("sts:") { "sts" } else { "iam" },
        }
    })
}

/// What Lambda has and we do not: refused like the others to those who may not, then by its name.
fn not_offered() -> impl Iterator<Item = Row> {
    longshore_functions::NOT_OFFERED.iter().map(|operation| {
        // Whoever may invoke, may have the answer as a stream.
        let action = if operation.name == "InvokeWithResponseStream" { "InvokeFunction" } else { operation.name };
        let segments = operation.route.1.split('/').map(|part| if part.starts_with('{') { "x" } else { part });
        Row {
            room: Room::Lambda,
            name: operation.name.into(),
            method: operation.route.0.into(),
            target: segments.collect::<Vec<_>>().join("/"),
            headers: Vec::new(),
            body: String::new(),
            asks: vec![format!("lambda:{action}")],
            ends: vec!["UnknownOperationException".into()],
            twin: "gone",
            refused_inside: false,
            service: "lambda",
        }
    })
}

/// All rows.
pub fn all() -> Vec<Row> {
    of_table(Room::S3, S3)
        .chain(of_table(Room::Lambda, LAMBDA))
        .chain(not_offered())
        .chain(of_identity())
        .chain(of_table(Room::Own, OWN))
        .chain(of_table(Room::Control, CONTROL))
        .collect()
}

/// What the tables of the rooms hold: what there have to be rows for.
pub fn inventory() -> Vec<(Room, String)> {
    let s3 = longshore_objects::OPERATIONS.iter().map(|name| (Room::S3, (*name).to_owned()));
    let control = longshore_jobs::OPERATIONS.iter().map(|operation| (Room::Control, operation.name.to_owned()));
    let own = longshore_jobs::OWN_OPERATIONS.iter().map(|operation| operation.name);
    let own = own.chain(longshore_functions::OWN_OPERATIONS.iter().map(|operation| operation.name));
    let own = own.chain(longshore_identity::OWN_OPERATIONS.iter().map(|(name, _)| *name));
    // The one route of our own that is in no table.
    let own = own.chain(["Metrics"]).map(|name| (Room::Own, name.to_owned()));
    let lambda = longshore_functions::OPERATIONS.iter().chain(longshore_functions::NOT_OFFERED);
    let lambda = lambda.map(|operation| (Room::Lambda, operation.name.to_owned()));
    let identity = longshore_identity::operations().map(|(name, _)| (Room::Identity, name.to_owned()));
    s3.chain(control).chain(own).chain(lambda).chain(identity).collect()
}
