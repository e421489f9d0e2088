//! The condition keys: each that the server says it fills is filled in a real request, and decides it.
//!
//! Of each, an Allow with the value that the request has lets it in and one with another value does not, and a Deny the other way round. A
//! key that is not filled fails two of the four: it would be missing, or unknown.

use super::rows::{self, Row};
use super::world::World;
use super::{Which, document, of_row, statement};
use crate::listener::{Connection, RequestBody};

/// Key | operator, the value that holds, one that does not | action | row | how the request differs from the row: a header, a target, a
/// body, more of a body (`&…`), or in words.
const LINES: &str = r#"
s3:VersionId | StringEquals null other | s3:GetObjectVersion | get_object, a version |
s3:prefix | StringEquals k other | s3:ListBucket | list_objects_v2 |
s3:delimiter | StringEquals / - | s3:ListBucket | list_objects_v2 | /b-here?delimiter=%2F&list-type=2
s3:max-keys | NumericLessThanEquals 10 9 | s3:ListBucket | list_objects_v2 | /b-here?list-type=2&max-keys=10
s3:RequestObjectTag/a | StringEquals b c | s3:PutObject | put_object, with tags |
s3:RequestObjectTag/a | StringEquals b c | s3:PutObjectTagging | put_object_tagging |
s3:RequestObjectTagKeys | ForAnyValue:StringEquals a b | s3:PutObjectTagging | put_object_tagging |
s3:ExistingObjectTag/a | StringEquals b c | s3:GetObject | get_object | /b-here/t-here
s3:x-amz-acl | StringEquals private public-read | s3:PutObject | put_object | x-amz-acl: private
s3:x-amz-storage-class | StringEquals STANDARD GLACIER | s3:PutObject | put_object | x-amz-storage-class: STANDARD
s3:x-amz-copy-source | StringEquals b-here/k-here b-here/other | s3:PutObject | copy_object |
s3:x-amz-copy-source | StringEquals b-here/k-here b-here/other | s3:PutObject | upload_part_copy |
s3:x-amz-metadata-directive | StringEquals REPLACE COPY | s3:PutObject | copy_object | x-amz-metadata-directive: REPLACE
s3:if-none-match | StringEquals * other | s3:PutObject | put_object | if-none-match: *
s3:if-none-match | Null true false | s3:PutObject | put_object |
s3:if-match | StringEquals "5d41402abc4b2a76b9719d911017c592" other | s3:PutObject | put_object | if-match: "5d41402abc4b2a76b9719d911017c592"
s3:ObjectCreationOperation | Bool true false | s3:PutObject | put_object |
s3:ObjectCreationOperation | Bool true false | s3:PutObject | copy_object |
s3:ObjectCreationOperation | Bool false true | s3:PutObject | create_multipart_upload |
s3:ObjectCreationOperation | Bool false true | s3:PutObject | upload_part |
s3:ObjectCreationOperation | Bool true false | s3:PutObject | complete_multipart_upload |
s3:LocationConstraint | StringEquals us-east-1 eu-west-1 | s3:CreateBucket | create_bucket | <CreateBucketConfiguration><LocationConstraint>us-east-1</LocationConstraint></CreateBucketConfiguration>
s3:LocationConstraint | Null true false | s3:CreateBucket | create_bucket |
s3:object-lock-legal-hold | Null true false | s3:PutObject | put_object |
s3:object-lock-mode | Null true false | s3:PutObject | put_object |
s3:object-lock-retain-until-date | Null true false | s3:PutObject | put_object |
s3:x-amz-grant-full-control | Null true false | s3:PutObject | put_object |
s3:x-amz-grant-read | Null true false | s3:PutObject | put_object |
s3:x-amz-grant-read-acp | Null true false | s3:PutObject | put_object |
s3:x-amz-grant-write | Null true false | s3:PutObject | put_object |
s3:x-amz-grant-write-acp | Null true false | s3:PutObject | put_object |
s3:x-amz-server-side-encryption | Null true false | s3:PutObject | put_object |
s3:x-amz-server-side-encryption-aws-kms-key-id | Null true false | s3:PutObject | put_object |
s3:x-amz-server-side-encryption-customer-algorithm | Null true false | s3:PutObject | put_object |
s3:x-amz-website-redirect-location | Null true false | s3:PutObject | put_object |
s3:authType | StringEquals REST-HEADER REST-QUERY-STRING | s3:GetObject | get_object |
s3:authType | StringEquals REST-QUERY-STRING REST-HEADER | s3:GetObject | get_object | presigned
s3:signatureversion | StringEquals AWS4-HMAC-SHA256 AWS | s3:GetObject | get_object |
s3:signatureAge | NumericLessThan 300000 0 | s3:GetObject | get_object |
s3:signatureAge | NumericGreaterThan 590000 900000 | s3:GetObject | get_object | signed ten minutes ago
s3:signatureAge | NumericGreaterThan 590000 900000 | s3:GetObject | get_object | presigned ten minutes ago
s3:x-amz-content-sha256 | StringEquals 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824 UNSIGNED-PAYLOAD | s3:PutObject | put_object |
s3:x-amz-content-sha256 | StringEquals UNSIGNED-PAYLOAD other | s3:PutObject | put_object | over TLS, unsigned
s3:x-amz-content-sha256 | StringEquals UNSIGNED-PAYLOAD other | s3:GetObject | get_object | presigned
s3:TlsVersion | NumericGreaterThanEquals 1.2 1.3 | s3:GetObject | get_object | over TLS
s3:TlsVersion | Null true false | s3:GetObject | get_object |
aws:SecureTransport | Bool true false | s3:GetObject | get_object | over TLS
aws:SecureTransport | Bool false true | s3:GetObject | get_object |
s3:ResourceAccount | StringEquals 000000000000 111111111111 | s3:GetObject | get_object |
s3:ResourceAccount | StringEquals 000000000000 111111111111 | s3:ListAllMyBuckets | list_buckets |
aws:SourceIp | IpAddress 198.51.100.0/24 192.0.2.0/24 | s3:GetObject | get_object |
aws:CurrentTime | DateGreaterThan 2020-01-01T00:00:00Z 2100-01-01T00:00:00Z | s3:GetObject | get_object |
aws:EpochTime | NumericGreaterThan 1500000000 4102444800 | s3:GetObject | get_object |
aws:RequestedRegion | StringEquals us-east-1 eu-west-1 | s3:GetObject | get_object |
aws:TokenIssueTime | DateGreaterThan 2020-01-01T00:00:00Z 2100-01-01T00:00:00Z | s3:GetObject | get_object | by a session
aws:MultiFactorAuthPresent | Bool false true | s3:GetObject | get_object | by a session
s3:RequestJobPriority | NumericEquals 10 11 | s3:CreateJob | CreateJob |
s3:RequestJobOperation | StringEquals LambdaInvoke S3PutObjectCopy | s3:CreateJob | CreateJob |
s3:ExistingJobPriority | NumericEquals 10 11 | s3:PutJobTagging | PutJobTagging |
s3:ExistingJobOperation | StringEquals LambdaInvoke S3PutObjectCopy | s3:PutJobTagging | PutJobTagging |
s3:JobSuspendedCause | StringEquals AWAITING_CONFIRMATION OTHER | s3:PutJobTagging | PutJobTagging |
aws:RequestTag/a | StringEquals b c | s3:PutJobTagging | PutJobTagging |
aws:ResourceTag/a | StringEquals b c | s3:DescribeJob | DescribeJob |
s3:RequestJobPriority | NumericEquals 7 8 | s3:UpdateJobPriority | UpdateJobPriority |
aws:RequestTag/a | StringEquals b c | lambda:TagResource | TagResource |
aws:TagKeys | ForAnyValue:StringEquals a b | lambda:TagResource | TagResource |
aws:ResourceTag/a | StringEquals b c | lambda:GetFunction | GetFunction |
lambda:Layer | ForAnyValue:StringEquals %LAMBDA%:layer:l-here:1 %LAMBDA%:layer:l-here:2 | lambda:UpdateFunctionConfiguration | UpdateFunctionConfiguration, with layers |
lambda:Principal | StringEquals 111111111111 222222222222 | lambda:AddPermission | AddPermission |
lambda:FunctionUrlAuthType | StringEquals NONE AWS_IAM | lambda:AddPermission | AddPermission | {"StatementId": "url", "Action": "lambda:InvokeFunctionUrl", "Principal": "*", "FunctionUrlAuthType": "NONE"}
lambda:FunctionUrlAuthType | Null true false | lambda:AddPermission | AddPermission |
iam:PassedToService | StringEquals lambda.amazonaws.com ec2.amazonaws.com | iam:PassRole | UpdateFunctionConfiguration |
iam:AssociatedResourceArn | ArnEquals %LAMBDA%:function:f-here %LAMBDA%:function:g | iam:PassRole | UpdateFunctionConfiguration |
iam:PolicyARN | ArnEquals arn:aws:iam::000000000000:policy/pol-here arn:aws:iam::000000000000:policy/other | iam:AttachUserPolicy | AttachUserPolicy |
iam:PermissionsBoundary | ArnEquals arn:aws:iam::000000000000:policy/pol-here arn:aws:iam::000000000000:policy/other | iam:PutUserPermissionsBoundary | PutUserPermissionsBoundary |
aws:RequestTag/a | StringEquals b c | iam:TagUser | TagUser |
iam:ResourceTag/a | StringEquals b c | iam:GetUser | GetUser |
sts:RoleSessionName | StringEquals name other | sts:AssumeRole | AssumeRole |
sts:ExternalId | StringEquals word other | sts:AssumeRole | AssumeRole | &ExternalId=word
sts:SourceIdentity | StringEquals alice bob | sts:AssumeRole | AssumeRole | &SourceIdentity=alice
sts:TransitiveTagKeys | ForAnyValue:StringEquals a b | sts:AssumeRole | AssumeRole, with tags | &TransitiveTagKeys.member.1=a
"#;

/// What no client's request has: keys of a role that a service assumes, of what a function asks, and of a session that says on whose behalf.
/// They are tested in `access::tests::a_functions_role_may_be_kept_to_one_function` and in the sessions of `longshore_identity`.
const OF_NO_CLIENT: [&str; 4] =
    ["aws:SourceAccount", "aws:SourceArn", "aws:SourceIdentity", "lambda:SourceFunctionArn"];

struct Line {
    key: &'static str,
    operator: &'static str,
    holds: String,
    fails: String,
    action: &'static str,
    row: Row,
    differs: &'static str,
}

fn lines(world: &World) -> Vec<Line> {
    let rows = rows::all();
    let filled = |text: &str| world.fill_in(text, Which::Here, "");
    let line = |line: &'static str| {
        let cells: Vec<&str> = line.split(" |").map(str::trim).collect();
        let [key, condition, action, name, differs] = cells[..] else { panic!("no line: {line}") };
        let [operator, holds, fails] = condition.split(' ').collect::<Vec<_>>()[..] else { panic!("no line: {line}") };
        let row = rows.iter().find(|row| row.name == name && row.asks.iter().any(|asked| asked == action));
        let row = row.unwrap_or_else(|| panic!("no row of that name asks for that: {line}")).clone();
        Line { key, operator, holds: filled(holds), fails: filled(fails), action, row, differs }
    };
    LINES.lines().filter(|line| !line.is_empty()).map(line).collect()
}

/// Whether the request is let in. What is wrong with it otherwise is told to those alone who are.
async fn is_let_in(world: &World, line: &Line) -> bool {
    let Line { row, differs, .. } = line;
    let mut right = of_row(world, row, Which::Here, world.keys("exact"));
    let mut how = Connection { peer: "198.51.100.7:4711".parse().unwrap(), tls: None };
    let mut presigned = false;
    match *differs {
        "" => {}
        "over TLS" => how.tls = Some("1.2"),
        "over TLS, unsigned" => {
            how.tls = Some("1.3");
            right.payload = Some("UNSIGNED-PAYLOAD".into());
        }
        "presigned" => presigned = true,
        "presigned ten minutes ago" => (presigned, right.at) = (true, right.at - 600),
        "signed ten minutes ago" => right.at -= 600,
        "by a session" => right.keys = world.keys("session").clone(),
        target if target.starts_with('/') => right.target = target.into(),
        more if more.starts_with('&') => right.body.extend_from_slice(more.as_bytes()),
        body if body.starts_with(['{', '<']) => right.body = body.into(),
        header => {
            let (name, value) = header.split_once(": ").unwrap();
            right.header(name, value);
        }
    }
    if right.headers.iter().any(|(name, _)| name == "content-length") {
        let length = right.body.len().to_string();
        right.header("content-length", &length);
    }
    let sent = if presigned { right.presigned("3600") } else { right.signed() };
    let body = RequestBody::whole(sent.body.clone());
    let answered = world.send_from(&sent, body, how).await.expect("it can be sent");
    if ["AccessDenied", "AccessDeniedException"].contains(&&*answered.code) && answered.status == 403 {
        return false;
    }
    // A write that must not replace anything finds something.
    let may_end = row.ends.contains(&answered.code) || answered.code == "PreconditionFailed";
    assert!(answered.succeeded() || may_end, "{} of {}: {answered:?} came of {sent:?}", line.key, row.name);
    true
}

#[tokio::test]
async fn every_key_that_is_filled_lets_in_and_keeps_out() {
    let world = World::new().await;
    let trust = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"000000000000"},"Action":["sts:AssumeRole","sts:TagSession","sts:SetSourceIdentity"]}]}"#;
    world.identity("UpdateAssumeRolePolicy", &[("RoleName", "r-here"), ("PolicyDocument", trust)]).await;
    let lines = lines(&world);
    let mut findings = Vec::new();
    for line in &lines {
        for (effect, holds, wanted) in
            [("Allow", true, true), ("Allow", false, false), ("Deny", false, true), ("Deny", true, false)]
        {
            let mut conditioned = statement(effect, &[line.action], "*");
            let value = if holds { &line.holds } else { &line.fails };
            conditioned["Condition"] = serde_json::json!({line.operator: {line.key: value}});
            let others = match effect {
                "Allow" => serde_json::json!({"Effect": "Allow", "NotAction": line.action, "Resource": "*"}),
                _ => statement("Allow", &["*"], "*"),
            };
            let document = document(&[conditioned, others]);
            world.policy("exact", &document).await;
            let of_role = [("RoleName", "visited"), ("PolicyName", "p"), ("PolicyDocument", document.as_str())];
            if line.differs == "by a session" {
                world.identity("PutRolePolicy", &of_role).await;
            }
            if line.row.service == "lambda" {
                world.look_at_functions().await;
            }
            if is_let_in(&world, line).await != wanted {
                let is = if wanted { "kept out" } else { "let in" };
                findings.push(format!("{} {} is {is} by {document}", line.row.name, line.differs));
            }
        }
    }
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));

    let has_line =
        |key: &str| lines.iter().any(|line| line.key == key || key.ends_with('/') && line.key.starts_with(key));
    let without: Vec<_> =
        longshore_core::policy::filled_keys().filter(|key| !has_line(key) && !OF_NO_CLIENT.contains(key)).collect();
    assert!(without.is_empty(), "no line says in which request these are: {without:?}");
}
