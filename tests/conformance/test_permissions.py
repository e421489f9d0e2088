"""Who may do what: a deployment as teams write it, with boto3 alone, and what goes wrong in it.

Each case is denied first, with the words that say what is missing, and allowed once the one missing statement is there: the two differ in
nothing else. Sources: S3 Batch spec 9; Lambda spec 6.
"""

import contextlib
import json
import sqlite3
import textwrap
import uuid

import boto3
import botocore.auth
import botocore.config
import botocore.exceptions
import pytest

import harness
from harness import ACCOUNT, REGION

BATCH, LAMBDA = "batchoperations.s3.amazonaws.com", "lambda.amazonaws.com"
FUNCTION = """
    def handler(event, context):
        task = event["tasks"][0]
        return {"invocationSchemaVersion": "1.0", "invocationId": event["invocationId"], "results": [
            {"taskId": task["taskId"], "resultCode": "Succeeded", "resultString": task["s3Key"]}]}
"""


def allow(action, resource="*", condition=None, effect="Allow"):
    statement = {"Effect": effect, "Action": action, "Resource": resource}
    return statement | ({"Condition": condition} if condition else {})


def policy(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def trust(*services, condition=None):
    statement = {"Effect": "Allow", "Principal": {"Service": list(services)}, "Action": "sts:AssumeRole"}
    return policy(statement | ({"Condition": condition} if condition else {}))


def client(server, service, credentials):
    """A boto3 client with somebody's own credentials."""
    with harness.environ(server.environment):
        return boto3.session.Session().client(
            service, aws_access_key_id=credentials["AccessKeyId"], aws_secret_access_key=credentials["SecretAccessKey"],
            aws_session_token=credentials.get("SessionToken"), config=botocore.config.Config(retries={"max_attempts": 1}))


class Person:
    """A user with an access key; may do what is given to it."""

    def __init__(self, server, name, tags=None):
        self.server, self.name, self.statements = server, name, []
        self.iam = server.boto("iam")
        self.iam.create_user(UserName=name, Tags=[{"Key": key, "Value": value} for key, value in (tags or {}).items()])
        self.credentials = self.iam.create_access_key(UserName=name)["AccessKey"]
        self.arn = f"arn:aws:iam::{ACCOUNT}:user/{name}"

    def may(self, *statements):
        self.statements += statements
        self.iam.put_user_policy(UserName=self.name, PolicyName="own", PolicyDocument=policy(*self.statements))

    def client(self, service):
        return client(self.server, service, self.credentials)


@contextlib.contextmanager
def denied(who, action, resource, because="because no identity-based policy allows"):
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        yield
    error = refused.value.response["Error"]
    assert error["Code"] in ("AccessDenied", "AccessDeniedException"), error
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    said = f"User: {who} is not authorized to perform: {action} on resource: {resource} {because}"
    assert error["Message"].startswith(said), error["Message"]


class Work:
    """A bucket with a manifest of three rows, a function, and a role for a job that may do nothing yet."""

    def __init__(self, server, name):
        self.server, self.name, self.iam = server, name, server.boto("iam")
        self.bucket = server.bucket(name)
        self.rows = [(self.bucket, f"data/{n}") for n in range(3)]
        for _, key in self.rows:
            server.s3.put_object(Bucket=self.bucket, Key=key, Body=b"x", Tagging="kind=data")
        self.etag = server.put_manifest(self.bucket, self.rows)
        server.deploy(name, FUNCTION)
        self.function = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"
        self.role = self.iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust(BATCH))["Role"]["Arn"]
        self.statements = []

    def role_may(self, *statements):
        self.statements += statements
        self.iam.put_role_policy(RoleName=self.name, PolicyName="own", PolicyDocument=policy(*self.statements))

    READS, WRITES = ("s3:GetObject", "/manifest.csv"), ("s3:PutObject", "/reports/*")

    def role_may_all_but(self, *left_out):
        """All that the job needs, but for some of it."""
        needed = [allow(action, f"arn:aws:s3:::{self.bucket}{keys}") for action, keys in (self.READS, self.WRITES)]
        needed.append(allow("lambda:InvokeFunction", self.function))
        self.role_may(*[statement for statement in needed if statement["Action"] not in left_out])

    def job(self, control=None, **more):
        return (control or self.server.control).create_job(**self.request(**more))["JobId"]

    def request(self, **more):
        return ({
            "AccountId": ACCOUNT, "ConfirmationRequired": False, "Priority": 10, "RoleArn": self.role,
            "Operation": {"LambdaInvoke": {"FunctionArn": self.function}},
            "Report": {"Bucket": f"arn:aws:s3:::{self.bucket}", "Format": "Report_CSV_20180820", "Enabled": True,
                       "Prefix": "reports", "ReportScope": "AllTasks"},
            "Manifest": {"Spec": {"Format": "S3BatchOperations_CSV_20180820", "Fields": ["Bucket", "Key"]},
                         "Location": {"ObjectArn": f"arn:aws:s3:::{self.bucket}/manifest.csv", "ETag": self.etag}},
            "ClientRequestToken": uuid.uuid4().hex,
        } | more)

    def ended(self, **more):
        """What a job has become, with its failure codes and reasons."""
        job = self.server.wait(self.job(**more))
        reasons = [(reason["FailureCode"], reason["FailureReason"]) for reason in job["FailureReasons"]]
        return job, reasons

    def succeeds(self, **more):
        job, reasons = self.ended(**more)
        assert (job["Status"], reasons) == ("Complete", [])
        assert job["ProgressSummary"]["NumberOfTasksSucceeded"] == 3
        return job


@pytest.fixture
def work(server, name):
    return Work(server, name)


@pytest.fixture
def person(server, name):
    return Person(server, name)


# --- who may make and steer jobs ---


def test_a_job_takes_create_job_and_the_right_to_pass_its_very_role(work, person):
    work.role_may_all_but()
    control = person.client("s3control")
    with denied(person.arn, "s3:CreateJob", "*"):
        work.job(control)
    person.may(allow("s3:CreateJob"))
    with denied(person.arn, "iam:PassRole", work.role):
        work.job(control)
    # Another role is not this one, and a condition on the service never holds here, as on AWS.
    person.may(allow("iam:PassRole", work.role + "-2"),
               allow("iam:PassRole", work.role, {"StringEquals": {"iam:PassedToService": BATCH}}))
    with denied(person.arn, "iam:PassRole", work.role):
        work.job(control)
    person.may(allow("iam:PassRole", work.role))
    job = work.job(control)
    with denied(person.arn, "s3:DescribeJob", f"arn:aws:s3:{REGION}:{ACCOUNT}:job/{job}"):
        control.describe_job(AccountId=ACCOUNT, JobId=job)
    person.may(allow("s3:DescribeJob", f"arn:aws:s3:{REGION}:{ACCOUNT}:job/*"))
    assert control.describe_job(AccountId=ACCOUNT, JobId=job)["Job"]["RoleArn"] == work.role
    assert work.server.wait(job)["Status"] == "Complete"


def test_priority_and_operation_of_a_job_can_be_limited(work, person):
    control = person.client("s3control")
    work.role_may_all_but()
    person.may(allow("iam:PassRole", work.role), allow("s3:CreateJob", "*", {
        "NumericLessThanEquals": {"s3:RequestJobPriority": "100"}, "StringEquals": {"s3:RequestJobOperation": "LambdaInvoke"}}))
    with denied(person.arn, "s3:CreateJob", "*"):
        work.job(control, Priority=300, ConfirmationRequired=True)
    job = work.job(control, Priority=100, ConfirmationRequired=True)
    arn = f"arn:aws:s3:{REGION}:{ACCOUNT}:job/{job}"
    work.server.wait(job, "Suspended")
    person.may(allow("s3:UpdateJobPriority", "*", {"NumericLessThanEquals": {"s3:RequestJobPriority": "100"}}))
    with denied(person.arn, "s3:UpdateJobPriority", arn):
        control.update_job_priority(AccountId=ACCOUNT, JobId=job, Priority=101)
    control.update_job_priority(AccountId=ACCOUNT, JobId=job, Priority=99)
    # Only jobs that wait to be confirmed may be steered, by this one.
    person.may(allow("s3:UpdateJobStatus", "*", {"StringEquals": {"s3:JobSuspendedCause": "SOMETHING_ELSE"}}))
    with denied(person.arn, "s3:UpdateJobStatus", arn):
        control.update_job_status(AccountId=ACCOUNT, JobId=job, RequestedJobStatus="Cancelled")
    person.may(allow("s3:UpdateJobStatus", "*", {"StringEquals": {"s3:JobSuspendedCause": "AWAITING_CONFIRMATION"}}))
    control.update_job_status(AccountId=ACCOUNT, JobId=job, RequestedJobStatus="Cancelled")


def test_departments_see_to_their_own_jobs(work, server, name):
    work.role_may_all_but()
    people = {who: Person(server, f"{name}-{who}", {"department": who}) for who in ("finance", "sales")}
    own = {"StringEquals": {"aws:RequestTag/department": "${aws:PrincipalTag/department}"}}
    theirs = {"StringEquals": {"aws:ResourceTag/department": "${aws:PrincipalTag/department}"}}
    for person in people.values():
        person.may(allow("iam:PassRole", work.role), allow("s3:CreateJob", "*", own),
                   allow(["s3:UpdateJobPriority", "s3:UpdateJobStatus"], "*", theirs))
    finance, sales = people["finance"], people["sales"]
    more = {"ConfirmationRequired": True, "Tags": [{"Key": "department", "Value": "finance"}]}
    with denied(finance.arn, "s3:CreateJob", "*"):
        work.job(finance.client("s3control"), ConfirmationRequired=True)
    with denied(finance.arn, "s3:PutJobTagging", f"arn:aws:s3:{REGION}:{ACCOUNT}:job/*"):
        work.job(finance.client("s3control"), **more)
    for person in people.values():
        person.may(allow("s3:PutJobTagging", "*", own))
    with denied(sales.arn, "s3:CreateJob", "*"):
        work.job(sales.client("s3control"), **more)
    job = work.job(finance.client("s3control"), **more)
    with denied(sales.arn, "s3:UpdateJobPriority", f"arn:aws:s3:{REGION}:{ACCOUNT}:job/{job}"):
        sales.client("s3control").update_job_priority(AccountId=ACCOUNT, JobId=job, Priority=1)
    work.server.wait(job, "Suspended")
    finance.client("s3control").update_job_priority(AccountId=ACCOUNT, JobId=job, Priority=1)
    finance.client("s3control").update_job_status(AccountId=ACCOUNT, JobId=job, RequestedJobStatus="Cancelled")


# --- what a job's role may do ---


@pytest.mark.parametrize("wrong, right, why", [
    (trust(LAMBDA), trust(BATCH), f"its statement 1 is for {LAMBDA}"),
    (trust(BATCH, condition={"StringEquals": {"aws:SourceAccount": "999999999999"}}),
     trust(BATCH, condition={"StringEquals": {"aws:SourceAccount": ACCOUNT}}),
     f"its statement 1 asks that aws:SourceAccount is 999999999999, and it is {ACCOUNT}"),
    (trust(BATCH, condition={"ArnLike": {"aws:SourceArn": f"arn:aws:s3:eu-west-1:{ACCOUNT}:job/*"}}),
     trust(BATCH, condition={"ArnLike": {"aws:SourceArn": f"arn:aws:s3:{REGION}:{ACCOUNT}:job/*"}}),
     f"its statement 1 asks that aws:SourceArn is like arn:aws:s3:eu-west-1:{ACCOUNT}:job/*, and it is "),
], ids=["service", "source-account", "source-arn"])
def test_a_job_fails_whose_role_does_not_trust_it(work, wrong, right, why):
    work.role_may_all_but()
    work.iam.update_assume_role_policy(RoleName=work.name, PolicyDocument=wrong)
    job, reasons = work.ended()
    assert job["Status"] == "Failed" and reasons[0][0] == "RoleAccessDenied" and work.role in reasons[0][1], reasons
    # What the trust policy says is told to the operator, and to whoever may read it and asks: not to whoever may see the job.
    assert reasons[0][1] == f"{work.role} does not trust {BATCH}" and "statement" not in str(reasons), reasons
    assert any(why in line and job["JobId"] in line for line in work.server.said().splitlines()), why
    explain = reasons[1][1].removeprefix("To see why: longshore ")
    assert explain.endswith(f"job/{job['JobId']}"), "whole"
    explained = work.server.longshore(*explain.split(), check=False)
    assert explained.returncode == 1 and explained.stdout.startswith("denied"), explained
    work.iam.update_assume_role_policy(RoleName=work.name, PolicyDocument=right)
    work.succeeds()


def test_a_job_fails_whose_role_is_not_there(work):
    work.role_may_all_but()
    job, reasons = work.ended(RoleArn=work.role + "-gone")
    assert job["Status"] == "Failed" and reasons[0][0] == "RoleAccessDenied", reasons
    work.succeeds()


def test_the_manifest_is_read_with_the_role(work):
    work.role_may_all_but("s3:GetObject")
    job, reasons = work.ended()
    assert job["Status"] == "Failed"
    assert reasons[0] == ("ManifestAccessDenied", "Reading the manifest is forbidden: AccessDenied")
    assert reasons[1][1] == ("The job's role may not s3:GetObject because no identity-based policy allows the s3:GetObject action: "
                             f"arn:aws:s3:::{work.bucket}/manifest.csv"), reasons
    work.role_may(allow("s3:GetObject", f"arn:aws:s3:::{work.bucket}/manifest.csv"))
    work.succeeds()


def test_a_version_of_the_manifest_takes_the_right_to_read_versions(work):
    work.server.s3.put_bucket_versioning(Bucket=work.bucket, VersioningConfiguration={"Status": "Enabled"})
    put = work.server.s3.put_object(Bucket=work.bucket, Key="manifest.csv", Body="".join(f"{b},{k}\n" for b, k in work.rows).encode())
    location = {"ObjectArn": f"arn:aws:s3:::{work.bucket}/manifest.csv", "ObjectVersionId": put["VersionId"], "ETag": put["ETag"]}
    manifest = {"Spec": {"Format": "S3BatchOperations_CSV_20180820", "Fields": ["Bucket", "Key"]}, "Location": location}
    work.role_may_all_but()
    job, reasons = work.ended(Manifest=manifest)
    assert job["Status"] == "Failed" and "s3:GetObjectVersion" in reasons[1][1], reasons
    work.role_may(allow("s3:GetObjectVersion", f"arn:aws:s3:::{work.bucket}/manifest.csv"))
    work.succeeds(Manifest=manifest)


def test_a_bucket_is_listed_with_the_role(work):
    source = f"arn:aws:s3:::{work.bucket}"
    generator = {"S3JobManifestGenerator": {
        "SourceBucket": source, "EnableManifestOutput": False, "Filter": {"KeyNameConstraint": {"MatchAnyPrefix": ["data/"]}}}}

    def ended():
        more = {"ManifestGenerator": generator, "ClientRequestToken": uuid.uuid4().hex}
        request = {key: value for key, value in work.request(**more).items() if key != "Manifest"}
        job = work.server.wait(work.server.control.create_job(**request)["JobId"])
        return job, [reason["FailureReason"] for reason in job["FailureReasons"]]

    work.role_may_all_but()
    job, reasons = ended()
    assert job["Status"] == "Failed" and any("may not s3:ListBucket because" in reason for reason in reasons), reasons
    work.role_may(allow("s3:ListBucket", source))
    job, reasons = ended()
    assert (job["Status"], reasons) == ("Complete", [])


def test_the_report_is_written_with_the_role(work):
    work.role_may_all_but("s3:PutObject")
    job, reasons = work.ended()
    assert job["Status"] == "Failed" and reasons[0][0] == "ReportDeliveryFailed", reasons
    assert f"The job's role may not s3:PutObject because no identity-based policy allows the s3:PutObject action: arn:aws:s3:::{work.bucket}/reports/" in reasons[1][1], reasons
    work.role_may(allow("s3:PutObject", f"arn:aws:s3:::{work.bucket}/reports/*"))
    harness.audit(work.server, work.succeeds()["JobId"], work.rows)


def failures(work, job):
    return [row for row in harness.read_report(work.server, job["JobId"], job) if row.status == "failed"]


def test_functions_are_invoked_with_the_role(work):
    work.role_may_all_but("lambda:InvokeFunction")
    job, reasons = work.ended()
    assert (job["Status"], job["ProgressSummary"]["NumberOfTasksFailed"]) == ("Complete", 3)

    def warned():
        return [line for line in work.server.said().splitlines() if "WARN every task of a job failed for one reason" in line and job["JobId"] in line]

    [line] = harness.wait_for("a line in the log", warned)
    assert "tasks=3" in line and "The job's role may not lambda:InvokeFunction because" in line, line
    for row in failures(work, job):
        assert str(row.http_status) == "403"
        assert row.message.startswith("The job's role may not lambda:InvokeFunction because") and row.message.endswith(work.function), row
    work.role_may(allow("lambda:InvokeFunction", work.function))
    work.succeeds()


def test_the_functions_own_policy_may_let_the_role_in(work):
    work.role_may_all_but("lambda:InvokeFunction")
    assert work.ended()[0]["ProgressSummary"]["NumberOfTasksFailed"] == 3
    # Somebody else's role does not help.
    work.server.functions.add_permission(
        FunctionName=work.name, StatementId="other", Action="lambda:InvokeFunction", Principal=f"arn:aws:iam::{ACCOUNT}:role/longshore-batch")
    assert work.ended()[0]["ProgressSummary"]["NumberOfTasksFailed"] == 3
    work.server.functions.add_permission(
        FunctionName=work.name, StatementId="own", Action="lambda:InvokeFunction", Principal=work.role)
    work.succeeds()


def test_an_alias_is_another_resource_than_the_function(work):
    work.server.functions.publish_version(FunctionName=work.name)
    work.server.functions.create_alias(FunctionName=work.name, Name="prod", FunctionVersion="1")
    work.role_may_all_but()
    operation = {"LambdaInvoke": {"FunctionArn": f"{work.function}:prod"}}
    assert work.ended(Operation=operation)[0]["ProgressSummary"]["NumberOfTasksFailed"] == 3
    work.role_may(allow("lambda:InvokeFunction", f"{work.function}:*"))
    work.succeeds(Operation=operation)


def test_a_deny_stands_above_all_and_a_boundary_limits_all(work):
    work.role_may(allow("*"))
    work.succeeds()
    deny = work.iam.create_policy(PolicyName=f"{work.name}-deny", PolicyDocument=policy(
        allow("lambda:*", effect="Deny")))["Policy"]["Arn"]
    work.iam.attach_role_policy(RoleName=work.name, PolicyArn=deny)
    job, _ = work.ended()
    assert all("with an explicit deny in an identity-based policy" in row.message for row in failures(work, job))
    work.iam.detach_role_policy(RoleName=work.name, PolicyArn=deny)
    boundary = work.iam.create_policy(PolicyName=f"{work.name}-boundary", PolicyDocument=policy(
        allow(["s3:*"])))["Policy"]["Arn"]
    work.iam.put_role_permissions_boundary(RoleName=work.name, PermissionsBoundary=boundary)
    job, _ = work.ended()
    rows = failures(work, job)
    assert len(rows) == 3 and all("no permissions boundary allows" in row.message for row in rows), rows
    work.iam.delete_role_permissions_boundary(RoleName=work.name)
    work.succeeds()


# --- functions, and what they may do ---


def test_a_function_takes_the_right_to_pass_its_role_and_a_role_that_trusts_lambda(server, name, person):
    functions, iam = person.client("lambda"), server.boto("iam")
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust(BATCH))["Role"]["Arn"]
    arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"

    def create():
        functions.create_function(FunctionName=name, Runtime="python3.11", Handler="handler.handler", Role=role,
                                  Code={"ZipFile": harness.zip_of({"handler.py": "def handler(event, context): pass\n"})})

    with denied(person.arn, "lambda:CreateFunction", arn):
        create()
    person.may(allow("lambda:CreateFunction", arn))
    with denied(person.arn, "iam:PassRole", role):
        create()
    person.may(allow("iam:PassRole", role, {"StringEquals": {"iam:PassedToService": LAMBDA}}))
    with pytest.raises(functions.exceptions.InvalidParameterValueException, match="cannot be assumed by Lambda"):
        create()
    iam.update_assume_role_policy(RoleName=name, PolicyDocument=trust(LAMBDA))
    create()
    with denied(person.arn, "lambda:InvokeFunction", arn):
        functions.invoke(FunctionName=name)
    server.functions.add_permission(FunctionName=name, StatementId="p", Action="lambda:InvokeFunction", Principal=person.arn)
    server.functions.get_waiter("function_active_v2").wait(FunctionName=name)
    assert functions.invoke(FunctionName=name)["StatusCode"] == 200


def test_code_in_s3_is_fetched_only_for_those_who_may_read_it(server, name, person):
    bucket = server.bucket(name)
    server.s3.put_object(Bucket=bucket, Key="code.zip", Body=harness.zip_of({"handler.py": "def handler(event, context): pass\n"}))
    person.may(allow("lambda:CreateFunction"), allow("iam:PassRole"))
    functions = person.client("lambda")

    def create():
        functions.create_function(FunctionName=name, Runtime="python3.11", Handler="handler.handler", Role=harness.ROLE,
                                  Code={"S3Bucket": bucket, "S3Key": "code.zip"})

    with denied(person.arn, "s3:GetObject", f"arn:aws:s3:::{bucket}/code.zip"):
        create()
    person.may(allow("s3:GetObject", f"arn:aws:s3:::{bucket}/*"))
    create()


def test_who_may_permit_something_to_one_principal_may_take_it_away_again_and_no_others(server, name, person):
    """AWS's sample policy "ManageFunctionPolicy", and the same as a Deny. Source: Lambda developer guide, "Fine-tuning the Resources and
    Conditions sections of policies"; service authorization reference, "Condition keys for AWS Lambda"."""
    server.deploy(name, FUNCTION)
    arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"
    mine, root = person.client("lambda"), server.functions

    def add(who, sid, principal, **more):
        who.add_permission(FunctionName=name, StatementId=sid, Principal=principal, **({"Action": "lambda:InvokeFunction"} | more))

    def remove(who, sid):
        who.remove_permission(FunctionName=name, StatementId=sid)

    actions = ["lambda:AddPermission", "lambda:RemovePermission"]
    url = {"Action": "lambda:InvokeFunctionUrl", "FunctionUrlAuthType": "AWS_IAM"}
    add(root, "service", "sns.amazonaws.com")
    add(root, "account", "222222222222")
    add(root, "url", "s3.amazonaws.com", Action="lambda:InvokeFunctionUrl", FunctionUrlAuthType="NONE")
    person.may(allow(actions, arn, {"StringEquals": {"lambda:Principal": "s3.amazonaws.com"}}))
    with denied(person.arn, "lambda:AddPermission", arn):
        add(mine, "mine", "sns.amazonaws.com")
    add(mine, "mine", "s3.amazonaws.com")
    # Of a statement that there is not nobody can say whose it is.
    for sid in ("service", "account", "none"):
        with denied(person.arn, "lambda:RemovePermission", arn):
            remove(mine, sid)
    remove(mine, "mine")

    explicit = "with an explicit deny in an identity-based policy"
    person.may(allow(actions, arn), allow(actions, arn, {"StringEquals": {"lambda:Principal": "222222222222"}}, effect="Deny"),
               allow(actions, arn, {"StringEquals": {"lambda:FunctionUrlAuthType": "NONE"}}, effect="Deny"))
    # An account is the same by its number and by its ARN.
    for spelled in ("222222222222", "arn:aws:iam::222222222222:root"):
        with denied(person.arn, "lambda:AddPermission", arn, explicit):
            add(mine, "more", spelled)
    with denied(person.arn, "lambda:AddPermission", arn, explicit):
        add(mine, "more", "s3.amazonaws.com", **(url | {"FunctionUrlAuthType": "NONE"}))
    for sid in ("account", "url", "none"):
        with denied(person.arn, "lambda:RemovePermission", arn, explicit):
            remove(mine, sid)
    remove(mine, "service")
    add(mine, "more", "s3.amazonaws.com", **url)
    remove(mine, "more")
    policy_left = json.loads(root.get_policy(FunctionName=name)["Policy"])
    assert sorted(statement["Sid"] for statement in policy_left["Statement"]) == ["account", "url"]


def test_a_function_reaches_what_its_execution_role_reaches(work):
    execution = work.iam.create_role(RoleName=f"{work.name}-x", AssumeRolePolicyDocument=trust(LAMBDA))["Role"]["Arn"]
    name = f"{work.name}-reader"
    work.server.functions.create_function(
        FunctionName=name, Runtime="python3.11", Handler="handler.handler", Role=execution, Timeout=30,
        Environment={"Variables": harness.WITH_BOTO3}, Code={"ZipFile": harness.zip_of({"handler.py": """
import boto3, botocore.exceptions
def handler(event, context):
    s3 = boto3.client("s3")
    try:
        return s3.get_object(Bucket=event["bucket"], Key=event["key"])["Body"].read().decode()
    except botocore.exceptions.ClientError as error:
        return error.response["Error"]["Message"]
"""})})
    work.server.functions.get_waiter("function_active_v2").wait(FunctionName=name)

    def read(key):
        answer = work.server.functions.invoke(FunctionName=name, Payload=json.dumps({"bucket": work.bucket, "key": key}))
        assert "FunctionError" not in answer, answer["Payload"].read()
        return json.loads(answer["Payload"].read())

    session = f"arn:aws:sts::{ACCOUNT}:assumed-role/{work.name}-x/{name}"
    assert read("data/0").startswith(f"User: {session} is not authorized to perform: s3:GetObject")
    work.iam.put_role_policy(RoleName=f"{work.name}-x", PolicyName="own", PolicyDocument=policy(
        allow("s3:GetObject", f"arn:aws:s3:::{work.bucket}/data/*", {"StringEquals": {"s3:ExistingObjectTag/kind": "data"}})))
    assert read("data/0") == "x"
    # What is not there is told to those alone who may list.
    assert "is not authorized to perform: s3:GetObject" in read("data/none")
    assert read("manifest.csv").startswith(f"User: {session} is not authorized to perform: s3:GetObject")
    # What is taken away is gone with the next request, though the environment lives on.
    work.iam.delete_role_policy(RoleName=f"{work.name}-x", PolicyName="own")
    assert read("data/0").startswith(f"User: {session} is not authorized")


# --- sessions, and S3 ---


def test_a_session_has_the_roles_rights_and_no_more_than_its_own_policy(server, name, person):
    bucket, iam = server.bucket(name), server.boto("iam")
    for key in ("a/x", "b/x"):
        server.s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=policy(
        {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "sts:AssumeRole"}))["Role"]["Arn"]
    iam.put_role_policy(RoleName=name, PolicyName="own", PolicyDocument=policy(allow("s3:GetObject", f"arn:aws:s3:::{bucket}/*")))
    sts = person.client("sts")
    with denied(person.arn, "sts:AssumeRole", role):
        sts.assume_role(RoleArn=role, RoleSessionName="session")
    person.may(allow("sts:AssumeRole", role))
    whole = client(server, "s3", sts.assume_role(RoleArn=role, RoleSessionName="session")["Credentials"])
    part = client(server, "s3", sts.assume_role(
        RoleArn=role, RoleSessionName="session", Policy=policy(allow("s3:*", f"arn:aws:s3:::{bucket}/a/*")))["Credentials"])
    session = f"arn:aws:sts::{ACCOUNT}:assumed-role/{name}/session"
    assert whole.get_object(Bucket=bucket, Key="b/x")["Body"].read() == b"b/x"
    assert part.get_object(Bucket=bucket, Key="a/x")["Body"].read() == b"a/x"
    with denied(session, "s3:GetObject", f"arn:aws:s3:::{bucket}/b/x", "because no session policy allows"):
        part.get_object(Bucket=bucket, Key="b/x")
    with denied(session, "s3:PutObject", f"arn:aws:s3:::{bucket}/a/x"):
        part.put_object(Bucket=bucket, Key="a/x", Body=b"")
    # It ends with its role.
    iam.delete_role_policy(RoleName=name, PolicyName="own")
    iam.delete_role(RoleName=name)
    with pytest.raises(botocore.exceptions.ClientError) as gone:
        whole.get_object(Bucket=bucket, Key="b/x")
    assert gone.value.response["Error"]["Code"] in ("InvalidAccessKeyId", "InvalidToken", "InvalidClientTokenId")


def test_what_s3_shows_of_a_bucket_can_be_a_prefix(server, name, person):
    bucket, s3 = server.bucket(name), person.client("s3")
    arn = f"arn:aws:s3:::{bucket}"
    for key in ("mine/x", "theirs/x"):
        server.s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    person.may(allow("s3:ListBucket", arn, {"StringLike": {"s3:prefix": "mine/*"}}), allow(["s3:GetObject", "s3:DeleteObject"], f"{arn}/mine/*"))
    with denied(person.arn, "s3:ListBucket", arn):
        s3.list_objects_v2(Bucket=bucket)
    with denied(person.arn, "s3:ListBucket", arn):
        s3.list_objects_v2(Bucket=bucket, Prefix="theirs/")
    assert [o["Key"] for o in s3.list_objects_v2(Bucket=bucket, Prefix="mine/")["Contents"]] == ["mine/x"]
    with pytest.raises(s3.exceptions.NoSuchKey):
        s3.get_object(Bucket=bucket, Key="mine/none")
    with denied(person.arn, "s3:GetObject", f"{arn}/theirs/none"):
        s3.get_object(Bucket=bucket, Key="theirs/none")
    # Each key of many is judged by itself.
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "mine/x"}, {"Key": "theirs/x"}]})
    assert [d["Key"] for d in answer["Deleted"]] == ["mine/x"]
    assert [(e["Key"], e["Code"]) for e in answer["Errors"]] == [("theirs/x", "AccessDenied")]
    # A copy reads its source.
    person.may(allow("s3:PutObject", f"{arn}/mine/*"))
    with denied(person.arn, "s3:GetObject", f"{arn}/theirs/x"):
        s3.copy_object(Bucket=bucket, Key="mine/copy", CopySource={"Bucket": bucket, "Key": "theirs/x"})
    person.may(allow("s3:GetObject", f"{arn}/theirs/x"))
    s3.copy_object(Bucket=bucket, Key="mine/copy", CopySource={"Bucket": bucket, "Key": "theirs/x"})


def test_every_decision_is_a_line_of_the_audit_log(server, name, person):
    bucket, s3 = server.bucket(name), person.client("s3")
    with denied(person.arn, "s3:PutObject", f"arn:aws:s3:::{bucket}/k"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"")
    person.may({"Sid": "Writes"} | allow("s3:PutObject", f"arn:aws:s3:::{bucket}/*"))
    s3.put_object(Bucket=bucket, Key="k", Body=b"")

    def decisions():
        lines = [line for file in server.data_dir.glob("audit*.jsonl") for line in file.read_text().splitlines()]
        mine = [line for line in map(json.loads, lines) if line.get("principal") == person.arn]
        return sorted(mine, key=lambda line: line["time"]) if len(mine) == 2 else None

    first, second = harness.wait_for("two decisions", decisions, 10)
    assert (first["decision"], first["because"]) == ("denied", "no identity-based policy allows it")
    assert (second["decision"], second["sid"], second["statement"]) == ("allowed", "Writes", 1)
    assert second["policy"] == f"inline policy own of user {person.name}" and second["sourceIp"] == "127.0.0.1"
    assert {line["action"] for line in (first, second)} == {"s3:PutObject"} and first["accessKeyId"] == person.credentials["AccessKeyId"]


def test_a_key_that_is_switched_off_opens_nothing(server, name, person):
    person.may(allow("s3:ListAllMyBuckets"))
    s3 = person.client("s3")
    s3.list_buckets()
    server.boto("iam").update_access_key(UserName=person.name, AccessKeyId=person.credentials["AccessKeyId"], Status="Inactive")
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        s3.list_buckets()
    assert refused.value.response["Error"]["Code"] == "InvalidAccessKeyId"


def test_without_iam_roles_are_names_and_the_server_says_so_loudly(tmp_path):
    server = harness.Server(tmp_path, {"LONGSHORE_IAM": "off"}).start()
    try:
        assert "policies are not asked" in server.said()
        bucket = server.bucket("free")
        etag = server.put_manifest(bucket, [(bucket, "k")])
        role = f"arn:aws:iam::{ACCOUNT}:role/nobody"
        server.functions.create_function(FunctionName="f", Runtime="python3.11", Handler="handler.handler", Role=role,
                                         Code={"ZipFile": harness.zip_of({"handler.py": textwrap.dedent(FUNCTION)})})
        job = server.create_job(bucket, f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:f", etag, RoleArn=role)
        assert server.wait(job)["Status"] == "Complete"
        # Smoke tests begin with it; whoever has a key here is root.
        told = server.boto("sts").get_caller_identity()
        assert (told["Arn"], told["UserId"], told["Account"]) == (f"arn:aws:iam::{ACCOUNT}:root", ACCOUNT, ACCOUNT)
        for refused in (server.boto("iam").list_users, server.boto("sts").get_session_token):
            with pytest.raises(botocore.exceptions.ClientError, match='iam = "off"'):
                refused()
        explained = server.longshore("iam", "explain", "user/u", "s3:GetObject", "*", check=False)
        assert explained.returncode == 2 and 'iam = "off"' in explained.stderr
    finally:
        server.stop()
    refused = harness.run([harness.LONGSHORE, "serve", "--data-dir", tmp_path / "other", "--iam", "off", "--listen", "0.0.0.0:0", "--allow-plain-http"],
                          harness.plain_environment(tmp_path), check=False)
    assert refused.returncode == 64 and "throw-away servers on this machine alone" in refused.stderr


def test_iam_and_sts_refuse_in_their_own_words(server):
    known = {"AccessKeyId": server.exports["AWS_ACCESS_KEY_ID"], "SecretAccessKey": server.exports["AWS_SECRET_ACCESS_KEY"]}
    for credentials, code in [
        (known | {"SecretAccessKey": "x" * 40}, "SignatureDoesNotMatch"),
        (known | {"AccessKeyId": "AKIAIOSFODNN7EXAMPLE"}, "InvalidClientTokenId"),
        (known | {"SessionToken": "none"}, "InvalidClientTokenId"),
    ]:
        for call in (client(server, "iam", credentials).list_users, client(server, "sts", credentials).get_caller_identity):
            with pytest.raises(botocore.exceptions.ClientError) as refused:
                call()
            assert refused.value.response["Error"]["Code"] == code


def test_a_denial_cannot_be_walked_round_by_another_spelling(server, name, person):
    """What a request names in another way is the same thing to the question as it is to the operation."""
    server.deploy(name, FUNCTION)
    arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"
    layer = server.functions.publish_layer_version(LayerName=name, Content={"ZipFile": harness.zip_of({"python/x.py": ""})})["LayerVersionArn"]
    functions = person.client("lambda")
    person.may(allow("lambda:*"), allow(["lambda:UpdateFunctionCode", "lambda:PublishVersion"], arn, effect="Deny"),
               allow("lambda:GetLayerVersion", layer, effect="Deny"),
               allow("lambda:TagResource", "*", {"ForAnyValue:StringEquals": {"aws:TagKeys": "admin"}}, effect="Deny"))
    explicit = "with an explicit deny in an identity-based policy"
    code = harness.zip_of({"handler.py": "def handler(event, context): pass\n"})
    for spelled in (name, f"{name}:$LATEST", arn, f"{arn}:$LATEST"):
        with denied(person.arn, "lambda:UpdateFunctionCode", arn, explicit):
            functions.update_function_code(FunctionName=spelled, ZipFile=code)
    for spelled in (layer, layer.replace("arn:aws:", "arn:aws-x:"), layer[:-1] + "01"):
        with denied(person.arn, "lambda:GetLayerVersion", layer, explicit):
            functions.get_layer_version_by_arn(Arn=spelled)
    # The keys that are asked about are those of the body.
    answer = harness.send(server, "POST", f"/2017-03-31/tags/{arn}?tagKeys=team", *_signed(server, person, arn))
    assert answer[0] == 403, answer


def _signed(server, person, arn):
    body = json.dumps({"Tags": {"admin": "yes"}}).encode()
    who = harness.credentials(server, key=person.credentials["AccessKeyId"], secret=person.credentials["SecretAccessKey"])
    signer = botocore.auth.SigV4Auth(who, "lambda", REGION)
    return harness.signed(server, "POST", "lambda", f"/2017-03-31/tags/{arn}?tagKeys=team", body=body, signer=signer), body


def test_a_copy_takes_the_right_to_tag_what_it_tags(server, name, person):
    bucket, s3 = server.bucket(name), person.client("s3")
    arn = f"arn:aws:s3:::{bucket}"
    server.s3.put_object(Bucket=bucket, Key="own/x", Body=b"x", Tagging="secret=no")
    person.may(allow(["s3:GetObject", "s3:GetObjectTagging"], f"{arn}/*"), allow("s3:PutObject", f"{arn}/*"))
    with denied(person.arn, "s3:PutObjectTagging", f"{arn}/shared/x"):
        s3.copy_object(Bucket=bucket, Key="shared/x", CopySource={"Bucket": bucket, "Key": "own/x"})
    person.may(allow("s3:PutObjectTagging", f"{arn}/shared/*"))
    s3.copy_object(Bucket=bucket, Key="shared/x", CopySource={"Bucket": bucket, "Key": "own/x"})


def test_a_first_start_names_the_statements_that_allowed_nothing_before(tmp_path, name):
    server = harness.Server(tmp_path)
    server.start()
    try:
        function = server.functions.create_function(
            FunctionName=name, Runtime="python3.11", Handler="handler.handler", Role=harness.ROLE,
            Code={"ZipFile": harness.zip_of({"handler.py": "handler = print"})})["FunctionArn"]
        server.functions.add_permission(FunctionName=name, StatementId="all", Action="lambda:*", Principal="*")
        server.functions.add_permission(FunctionName=name, StatementId="invoke", Action="lambda:InvokeFunction", Principal="*")

        def told():
            return [line for line in server.said().splitlines() if "a statement of a function's policy allows what it says from now on" in line]

        for wanted in (1, 1):
            server.stop()
            if not told():
                # As an earlier version left it.
                with contextlib.closing(sqlite3.connect(server.data_dir / "records.db")) as records, records:
                    records.execute("DELETE FROM identity_done")
                (server.data_dir / "records.sums").unlink()
            server.start()
            assert len(told()) == wanted, told()
        assert f"function={function} sid=all action=lambda:*" in told()[0], told()
    finally:
        server.stop()
