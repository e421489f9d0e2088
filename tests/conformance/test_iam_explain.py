"""Why was I denied: `longshore iam explain` and `longshore iam denials` against a real server."""

import json
import zipfile

import boto3
import botocore.config
import pytest
from botocore.exceptions import ClientError

import harness
from audit import ACCOUNT
from harness import REGION

USER = f"arn:aws:iam::{ACCOUNT}:user/"


def document(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def explain(server, *arguments, status):
    done = server.longshore("iam", "explain", *arguments, check=False)
    assert done.returncode == status, f"{done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout if status < 2 else done.stderr


@pytest.fixture
def iam(server):
    with harness.environ(server.environment):
        return boto3.client("iam", region_name=REGION, config=botocore.config.Config(retries={"max_attempts": 1}))


@pytest.fixture
def user(iam, name):
    iam.create_user(UserName=name)

    def policy(*statements):
        iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=document(*statements))
    return policy


def test_a_user_is_told_what_is_missing_and_what_nearly_allows_it(server, user, name):
    who = f"user/{name}"
    got = explain(server, who, "s3:GetObject", "s3://b/k", status=1).splitlines()
    assert got[:3] == ["denied", f"{USER}{name} may not s3:GetObject on arn:aws:s3:::b/k.",
                       "Nothing in the identity-based policies of the principal allows it."]
    user({"Sid": "Office", "Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/*",
          "Condition": {"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}}},
         {"Sid": "Never", "Effect": "Deny", "Action": "s3:DeleteObject", "Resource": "*"},
         {"Effect": "Allow", "Action": "s3:DeleteObject", "Resource": "*"})
    got = explain(server, who, "s3:GetObject", "s3://b/k", "--context", "aws:SourceIp=198.51.100.1", status=1)
    assert (f"It would be allowed by statement 1 (Office) of inline policy p of user {name}, but its condition IpAddress wants "
            'aws:SourceIp to be "203.0.113.0/24", and the request has "198.51.100.1".') in got.splitlines()
    got = explain(server, who, "s3:GetObject", "s3://b/k", status=1)
    assert "Say it with --context KEY=VALUE." in got and "not said of the request: aws:SourceIp." in got
    got = explain(server, who, "s3:GetObject", "s3://b/k", "--context", "aws:SourceIp=203.0.113.9", status=0).splitlines()
    assert got[0] == "allowed" and got[2] == f"What allows it is statement 1 (Office) of inline policy p of user {name}."
    got = explain(server, USER + name, "s3:DeleteObject", "s3://b/k", status=1)
    assert f"What denies it outright is statement 2 (Never) of inline policy p of user {name}" in got


def test_a_boundary_and_a_missing_trust_are_named(server, iam, user, name):
    user({"Effect": "Allow", "Action": ["s3:*", "sts:AssumeRole"], "Resource": "*"})
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=document(
        {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}))
    got = explain(server, f"user/{name}", "sts:AssumeRole", f"role/{name}", status=1)
    assert "Nothing in the trust policy of the role allows it." in got
    boundary = iam.create_policy(PolicyName=name, PolicyDocument=document(
        {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}))["Policy"]["Arn"]
    iam.put_user_permissions_boundary(UserName=name, PermissionsBoundary=boundary)
    got = explain(server, f"user/{name}", "s3:PutObject", "s3://b/k", status=1)
    assert "Nothing in the permissions boundary of the principal allows it." in got
    told = json.loads(explain(server, f"user/{name}", "s3:PutObject", "s3://b/k", "--json", status=1))
    assert told["principal"] == USER + name
    (result,) = told["results"]
    assert result["allowed"] is False and result["decision"] == "implicitDeny"
    assert result["because"] == {"layer": "permissions boundary"} and result["sentences"]
    assert explain(server, f"user/{name}", "s3:GetObject", "s3://b/k", status=0).startswith("allowed\n")


def test_the_policy_of_a_function_lets_somebody_invoke_it(server, user, name, tmp_path):
    package = tmp_path / "f.zip"
    with zipfile.ZipFile(package, "w") as file:
        file.writestr("handler.py", "def handler(event, context):\n    return event\n")
    functions = server.functions
    arn = functions.create_function(
        FunctionName=name, Runtime="python3.11", Handler="handler.handler", Code={"ZipFile": package.read_bytes()},
        Role=f"arn:aws:iam::{ACCOUNT}:role/longshore-batch")["FunctionArn"]
    assert f"lambda:InvokeFunction on {arn}." in explain(server, f"user/{name}", "lambda:InvokeFunction", name, status=1)
    functions.add_permission(FunctionName=name, StatementId="let", Action="lambda:InvokeFunction", Principal=USER + name)
    got = explain(server, f"user/{name}", "lambda:InvokeFunction", name, status=0)
    assert f"statement 1 (let) of resource policy of {arn}" in got


def test_what_cannot_be_asked_is_no_denial(server, name):
    assert "cannot be found" in explain(server, f"user/{name}", "s3:GetObject", "*", status=2)
    assert "is no resource of s3:getobject" in explain(server, f"user/{name}", "s3:GetObject", "b/k", status=64)


def test_the_last_denials_are_shown_the_newest_first_and_are_in_the_log(server, iam, user, name):
    key = iam.create_access_key(UserName=name)["AccessKey"]
    user({"Sid": "Never", "Effect": "Deny", "Action": "s3:GetObject", "Resource": "*"})
    with harness.environ(server.environment):
        s3 = boto3.client("s3", region_name=REGION, aws_access_key_id=key["AccessKeyId"],
                          aws_secret_access_key=key["SecretAccessKey"])
    for call in (lambda: s3.put_object(Bucket="bucket", Key="first", Body=b""), lambda: s3.get_object(Bucket="bucket", Key="k\x1b[2J")):
        with pytest.raises(ClientError) as error:
            call()
        assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    last = error.value.response["ResponseMetadata"]["RequestId"]

    def own():
        denials = json.loads(server.longshore("iam", "denials", "--limit", "100", "--json").stdout)["denials"]
        return [denial for denial in denials if denial.get("principal") == USER + name]
    # A request does not wait for the line about it.
    harness.wait_for("both denials", lambda: len(own()) == 2)
    newest, first = own()
    assert newest["requestId"] == last and newest["action"] == "s3:GetObject" and newest["sid"] == "Never"
    assert first["action"] == "s3:PutObject" and first["because"] == "no identity-based policy allows it"
    lines = [line for line in server.longshore("iam", "denials", "--limit", "100").stdout.splitlines() if USER + name in line]
    assert f"statement 1 (Never) of inline policy p of user {name} (identity-based policy)" in lines[0]
    assert lines[1].endswith("no identity-based policy allows it") and not any("\x1b" in line for line in lines)
    assert len(server.longshore("iam", "denials", "--limit", "1").stdout.splitlines()) == 2

    told = [line for line in server.said().splitlines() if last in line and "denied" in line]
    assert len(told) == 1 and "\x1b" not in told[0] and "s3:GetObject" in told[0] and USER + name in told[0] and "statement=1" in told[0]


def test_a_service_is_asked_whether_it_may_assume_a_role_for_a_job(server, iam, name):
    batch, source = "batchoperations.s3.amazonaws.com", f"arn:aws:s3:us-east-1:{ACCOUNT}:job/"
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=document(
        {"Effect": "Allow", "Principal": {"Service": batch}, "Action": "sts:AssumeRole",
         "Condition": {"ArnLike": {"aws:SourceArn": f"{source}*"}}}))
    ask = [batch, "sts:AssumeRole", f"role/{name}", "--context"]
    assert explain(server, *ask, f"aws:SourceArn={source}1", status=0).startswith("allowed\n")
    got = explain(server, *ask, "aws:SourceArn=arn:aws:s3:::b", status=1)
    assert 'wants aws:SourceArn to be "' + source in got and 'the request has "arn:aws:s3:::b"' in got
