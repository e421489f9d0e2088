"""The job API: create, describe, list, confirm, cancel, priority, tags. As boto3 and the AWS CLI see it."""

import json
import re
import uuid

import botocore.exceptions
import pytest

import harness
from harness import ACCOUNT, REGION

SUCCEED = """
    import json
    def handler(event, context):
        print(json.dumps(event))
        return {
            "invocationSchemaVersion": event["invocationSchemaVersion"], "invocationId": event["invocationId"],
            "treatMissingKeysAs": "PermanentFailure",
            "results": [{"taskId": task["taskId"], "resultCode": "Succeeded", "resultString": task["s3Key"]}
                        for task in event["tasks"]],
        }
"""
SLOW = SUCCEED.replace("print(json.dumps(event))", "import time; time.sleep(0.3)")


@pytest.fixture(scope="module")
def function(server):
    return server.deploy("jobs-succeed", SUCCEED)


@pytest.fixture(scope="module")
def slow_function(server):
    return server.deploy("jobs-slow", SLOW)


def rows_of(bucket, count):
    return [(bucket, f"key-{number}") for number in range(count)]


def code_of(error):
    return error.value.response["Error"]["Code"]


def test_a_job_calls_its_function_once_for_every_row(server, name, function):
    rows = rows_of(server.bucket(name), 25) + [(name, "key-3")] * 2
    job = server.create_job(name, function, server.put_manifest(name, rows))
    described = server.wait(job)
    report = harness.audit(server, job, rows)
    assert all(row.message == row.key and row.http_status == "200" and row.error_code == "" for row in report)
    assert described["ProgressSummary"]["Timers"]["ElapsedTimeInActiveSeconds"] >= 0


def test_describe_job_shows_the_job_as_it_was_created(server, name, function):
    etag = server.put_manifest(server.bucket(name), rows_of(name, 1))
    job = server.create_job(name, function, etag, Description="for the books", Priority=7)
    server.wait(job)
    described = server.describe(job)
    assert described["JobArn"] == f"arn:aws:s3:{REGION}:{ACCOUNT}:job/{job}"
    assert re.fullmatch(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}", job)
    assert (described["Description"], described["Priority"], described["ConfirmationRequired"]) == ("for the books", 7, False)
    assert described["Operation"] == {"LambdaInvoke": {"FunctionArn": function}}
    assert described["Manifest"]["Spec"] == {"Format": "S3BatchOperations_CSV_20180820", "Fields": ["Bucket", "Key"]}
    assert described["Manifest"]["Location"] == {"ObjectArn": f"arn:aws:s3:::{name}/manifest.csv", "ETag": etag}
    assert described["Report"] == {
        "Bucket": f"arn:aws:s3:::{name}", "Format": "Report_CSV_20180820", "Enabled": True, "Prefix": "reports",
        "ReportScope": "AllTasks",
    }
    assert described["RoleArn"] == harness.ROLE
    assert described["FailureReasons"] == []
    assert described["CreationTime"] <= described["TerminationDate"]


@pytest.mark.parametrize("schema", [None, "1.0"])
def test_schema_1_0_gives_the_function_a_bucket_arn_and_no_arguments(server, name, schema):
    function = server.deploy(name, SUCCEED)
    job = server.create_job(server.bucket(name), function, server.put_manifest(name, [(name, "a%20b+c")]), schema=schema)
    server.wait(job)
    event = event_logged(server, name)
    task = event["tasks"][0]
    assert event["invocationSchemaVersion"] == "1.0"
    assert event["job"] == {"id": job}
    assert set(task) == {"taskId", "s3Key", "s3VersionId", "s3BucketArn"}
    assert task["s3BucketArn"] == f"arn:aws:s3:::{name}"
    assert task["s3Key"] == "a%20b+c", "the key as the manifest has it"
    assert task["s3VersionId"] is None


def test_schema_2_0_gives_the_function_a_bucket_name_and_the_users_arguments(server, name):
    function = server.deploy(name, SUCCEED)
    arguments = {"level": "full", "Grüße": "für alle, \"auch\" <dich> & mich", "empty": ""}
    job = server.create_job(
        server.bucket(name), function, server.put_manifest(name, [(name, "k", "v-1")]),
        fields=("Bucket", "Key", "VersionId"), schema="2.0", arguments=arguments,
    )
    server.wait(job)
    event = event_logged(server, name)
    task = event["tasks"][0]
    assert event["job"] == {"id": job, "userArguments": arguments}
    assert set(task) == {"taskId", "s3Key", "s3VersionId", "s3Bucket"}
    assert (task["s3Bucket"], task["s3Key"], task["s3VersionId"]) == (name, "k", "v-1")
    assert server.describe(job)["Operation"]["LambdaInvoke"]["UserArguments"] == arguments


def event_logged(server, function):
    lines = harness.wait_for(
        "the log", lambda: [line[line.index("{"):] for line in server.longshore("logs", function, check=False).stdout.splitlines()
                            if '"tasks"' in line])
    return json.loads(lines[0])


def test_a_job_waits_for_its_confirmation_and_then_runs(server, name, function):
    rows = rows_of(server.bucket(name), 3)
    job = server.create_job(name, function, server.put_manifest(name, rows), confirmation=True)
    suspended = server.wait(job, "Suspended")
    assert suspended["SuspendedCause"] == "AWAITING_CONFIRMATION" and "SuspendedDate" in suspended
    assert suspended["ProgressSummary"]["TotalNumberOfTasks"] == 3
    answer = server.aws_json(
        "s3control", "update-job-status", "--account-id", ACCOUNT, "--job-id", job,
        "--requested-job-status", "Ready", "--status-update-reason", "looked at it",
    )
    assert answer == {"JobId": job, "Status": "Ready", "StatusUpdateReason": "looked at it"}
    assert server.wait(job, "Complete")["StatusUpdateReason"] == "looked at it"
    harness.audit(server, job, rows)


def test_a_job_that_waits_is_cancelled_at_once(server, name, function):
    job = server.create_job(server.bucket(name), function, server.put_manifest(name, rows_of(name, 3)), confirmation=True)
    server.wait(job, "Suspended")
    answer = server.control.update_job_status(AccountId=ACCOUNT, JobId=job, RequestedJobStatus="Cancelled")
    assert answer["Status"] == "Cancelled"
    described = server.describe(job)
    assert described["Status"] == "Cancelled" and "TerminationDate" in described
    assert "Contents" not in server.s3.list_objects_v2(Bucket=name, Prefix="reports/"), "no task ran: there is no report"


def test_a_running_job_is_cancelled_and_reports_what_it_has_done(server, name, slow_function):
    rows = rows_of(server.bucket(name), 2000)
    job = server.create_job(name, slow_function, server.put_manifest(name, rows))
    harness.wait_for(
        "a first result", lambda: server.describe(job)["ProgressSummary"]["NumberOfTasksSucceeded"] > 0)
    answer = server.control.update_job_status(AccountId=ACCOUNT, JobId=job, RequestedJobStatus="Cancelled")
    assert answer["Status"] == "Cancelling"
    described = server.wait(job, "Cancelled")
    done = described["ProgressSummary"]["NumberOfTasksSucceeded"]
    assert 0 < done < 2000
    report = harness.audit(server, job, rows, status="Cancelled")
    assert len(report) == done
    again = server.control.update_job_status(AccountId=ACCOUNT, JobId=job, RequestedJobStatus="Cancelled")
    assert again["Status"] == "Cancelled", "a repeated cancel is harmless"


def test_a_status_that_the_job_cannot_take_is_refused(server, name, function):
    job = server.create_job(server.bucket(name), function, server.put_manifest(name, rows_of(name, 1)))
    server.wait(job, "Complete")
    for wanted in ("Ready", "Cancelled"):
        with pytest.raises(botocore.exceptions.ClientError, match="Requested job status forbidden") as error:
            server.control.update_job_status(AccountId=ACCOUNT, JobId=job, RequestedJobStatus=wanted)
        assert code_of(error) == "InvalidRequest"


def test_the_priority_changes_until_the_job_has_ended(server, name, function):
    job = server.create_job(server.bucket(name), function, server.put_manifest(name, rows_of(name, 1)), confirmation=True)
    server.wait(job, "Suspended")
    answer = server.aws_json(
        "s3control", "update-job-priority", "--account-id", ACCOUNT, "--job-id", job, "--priority", "98")
    assert answer == {"JobId": job, "Priority": 98}
    assert server.describe(job)["Priority"] == 98
    server.control.update_job_status(AccountId=ACCOUNT, JobId=job, RequestedJobStatus="Cancelled")
    with pytest.raises(botocore.exceptions.ClientError) as error:
        server.control.update_job_priority(AccountId=ACCOUNT, JobId=job, Priority=1)
    assert code_of(error) == "InvalidRequest"


def test_list_jobs_shows_the_newest_first_page_by_page_and_by_status(server, name, function):
    etag = server.put_manifest(server.bucket(name), rows_of(name, 1))
    jobs = [server.create_job(name, function, etag, confirmation=True, Description=name) for _ in range(5)]
    for job in jobs:
        server.wait(job, "Suspended")
    listed, token = [], None
    while True:
        page = server.control.list_jobs(
            AccountId=ACCOUNT, JobStatuses=["Suspended"], MaxResults=2, **({"NextToken": token} if token else {}))
        assert len(page["Jobs"]) <= 2
        listed += page["Jobs"]
        token = page.get("NextToken")
        if not token:
            break
    assert all(job["Status"] == "Suspended" for job in listed)
    assert [job["JobId"] for job in listed if job.get("Description") == name] == jobs[::-1]
    entry = listed[0]
    assert entry["Operation"] == "LambdaInvoke" and entry["Priority"] == 10
    assert entry["ProgressSummary"]["TotalNumberOfTasks"] == 1
    for job in jobs:
        server.control.update_job_status(AccountId=ACCOUNT, JobId=job, RequestedJobStatus="Cancelled")
    left = server.aws_json("s3control", "list-jobs", "--account-id", ACCOUNT, "--job-statuses", "Suspended")
    assert not [job for job in left["Jobs"] if job.get("Description") == name]


def test_the_same_token_makes_one_job_and_another_request_under_it_is_refused(server, name, function):
    etag = server.put_manifest(server.bucket(name), rows_of(name, 1))
    token = str(uuid.uuid4())
    first = server.create_job(name, function, etag, ClientRequestToken=token, confirmation=True)
    assert server.create_job(name, function, etag, ClientRequestToken=token, confirmation=True) == first
    with pytest.raises(server.control.exceptions.IdempotencyException):
        server.create_job(name, function, etag, ClientRequestToken=token, confirmation=True, Priority=11)
    server.wait(first, "Suspended")
    server.control.update_job_status(AccountId=ACCOUNT, JobId=first, RequestedJobStatus="Cancelled")
    assert server.create_job(name, function, etag, ClientRequestToken=token, confirmation=True) == first


def test_a_job_has_tags_that_can_be_replaced_and_deleted(server, name, function):
    etag = server.put_manifest(server.bucket(name), rows_of(name, 1))
    tags = [{"Key": "team", "Value": "Künstler"}, {"Key": "empty", "Value": ""}]
    job = server.create_job(name, function, etag, Tags=tags)
    assert server.control.get_job_tagging(AccountId=ACCOUNT, JobId=job)["Tags"] == tags
    server.control.put_job_tagging(AccountId=ACCOUNT, JobId=job, Tags=[{"Key": "only", "Value": "one"}])
    assert server.control.get_job_tagging(AccountId=ACCOUNT, JobId=job)["Tags"] == [{"Key": "only", "Value": "one"}]
    server.control.delete_job_tagging(AccountId=ACCOUNT, JobId=job)
    server.control.delete_job_tagging(AccountId=ACCOUNT, JobId=job)
    assert server.control.get_job_tagging(AccountId=ACCOUNT, JobId=job)["Tags"] == []


def test_an_unknown_job_is_told_as_such(server):
    with pytest.raises(botocore.exceptions.ClientError, match="The specified job does not exist") as error:
        server.describe(str(uuid.uuid4()))
    assert code_of(error) == "NoSuchJob"
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404


@pytest.mark.parametrize("broken", [
    {"Operation": {"LambdaInvoke": {}}},
    {"Operation": {"LambdaInvoke": {"FunctionArn": "f", "UserArguments": {"a": "b"}}}},
    {"Operation": {"LambdaInvoke": {"FunctionArn": "f", "InvocationSchemaVersion": "3.0"}}},
    {"Manifest": {"Spec": {"Format": "S3BatchOperations_CSV_20180820", "Fields": ["Bucket"]},
                  "Location": {"ObjectArn": "arn:aws:s3:::b/k", "ETag": "e"}}},
    {"Manifest": {"Spec": {"Format": "S3BatchOperations_CSV_20180820", "Fields": ["Bucket", "Key", "Key"]},
                  "Location": {"ObjectArn": "arn:aws:s3:::b/k", "ETag": "e"}}},
    {"Tags": [{"Key": "a", "Value": "1"}, {"Key": "a", "Value": "2"}]},
], ids=["no-function", "arguments-in-1.0", "schema-3.0", "no-key-field", "key-twice", "tag-twice"])
def test_a_request_that_breaks_a_rule_is_refused_and_makes_no_job(server, name, broken):
    with pytest.raises(botocore.exceptions.ClientError) as error:
        server.create_job(server.bucket(name), "f", "e", Description=name, **broken)
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert code_of(error) == "InvalidRequest"
    assert not [job for job in server.control.list_jobs(AccountId=ACCOUNT)["Jobs"] if job.get("Description") == name]


def test_an_operation_that_is_not_there_yet_is_refused_in_so_many_words(server, name):
    with pytest.raises(botocore.exceptions.ClientError, match="S3DeleteObjectTagging") as error:
        server.create_job(server.bucket(name), "f", "e", Operation={"S3DeleteObjectTagging": {}})
    assert code_of(error) == "NotImplemented"
