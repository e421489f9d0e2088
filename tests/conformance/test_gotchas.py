"""What has surprised people on the real service, one test each: appendix B of docs/specification.md, in its numbers."""

import csv
import io
import json
import re
import uuid

import botocore.config
import pytest

import acceptance
import harness
from acceptance import cli_job, csv_manifest, java, named_rows, refusal, report_in, update_status
from harness import ACCOUNT, REGION, ROLE, TERMINAL, wait_for
from test_events import PATTERN, details, matches, settings

# Gotchas without a test, and why.
UNTESTED = {
    20: "an IAM condition on iam:PassRole; needs the evaluation of IAM policies, which is not built",
    21: "the permission s3:PutJobTagging; needs the evaluation of IAM policies, which is not built",
}

# Answers as its key names them.
BY_CASE = """
    import json, time
    def handler(event, context):
        task = event["tasks"][0]
        result = {"taskId": task["taskId"], "resultCode": "Succeeded", "resultString": "fine"}
        answer = {"invocationSchemaVersion": "1.0", "treatMissingKeysAs": "TemporaryFailure", "invocationId": event["invocationId"]}
        return {
            "right": answer | {"results": [result]},
            "singular": answer | {"result": [result]},
            "java-string": json.dumps(answer | {"results": [result]}),
            "undefined": answer,
            "null": answer | {"results": None},
            "error-object": answer | {"results": [result | {"resultString": {"errno": -2, "code": "ENOENT"}}]},
            "lines": answer | {"results": [result | {"resultString": "first\\nsecond\\r\\nthird, \\"quoted\\""}]},
        }[task["s3Key"]]
"""


@pytest.fixture(scope="module")
def echo(server):
    return server.deploy("gotchas-echo", acceptance.ECHO)


@pytest.fixture(scope="module")
def by_case(server):
    return server.deploy("gotchas-by-case", BY_CASE)


@pytest.fixture(scope="module")
def refuse(server):
    return server.deploy("gotchas-refuse", acceptance.batch_function("""
        def work(job, bucket, key, version):
            return "PermanentFailure", "no"
    """))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A server whose failure threshold is at 20 tasks, and whose redrives come at once."""
    server = harness.Server(tmp_path_factory.mktemp("small"), {
        "LONGSHORE_JOBS_FAILURE_TASKS_MIN": "20", "LONGSHORE_JOBS_RETRY_MS": "10", "LONGSHORE_JOBS_RETRY_MS_MAX": "20"}).start()
    yield server
    server.stop()


def run_cases(server, bucket, function, cases, **more):
    """Runs a job with a row for each case to its end. Returns the report's rows by key."""
    rows = [(server.bucket(bucket), case) for case in cases]
    job = server.create_job(bucket, function, server.put_manifest(bucket, rows), **more)
    server.wait(job, "Complete")
    return named_rows(server, job, rows)


def test_every_gotcha_has_a_test_or_a_reason():
    tested = [int(found[1]) for found in map(re.compile(r"test_b_(\d\d)_").match, globals()) if found]
    assert sorted(tested + list(UNTESTED)) == list(range(1, 33))


def test_b_01_results_in_the_singular_are_no_results(server, name, by_case):
    report = run_cases(server, name, by_case, ["right", "singular"])
    assert (report["right"].status, report["right"].message) == ("succeeded", "fine")
    row = report["singular"]
    assert (row.status, row.http_status, row.error_code) == ("failed", "200", "PermanentFailure")
    assert row.message == "Invalid JSON returned in Lambda payload"


def test_b_02_the_string_that_a_java_request_handler_returns_is_no_answer(server, name, by_case):
    row = run_cases(server, name, by_case, ["java-string"])["java-string"]
    assert (row.status, row.http_status, row.error_code, row.message) == (
        "failed", "200", "PermanentFailure", "Invalid JSON returned in Lambda payload")


def test_b_03_the_rows_of_a_report_have_the_status_before_the_code_and_the_schema_says_otherwise(server, name, refuse):
    rows = [(server.bucket(name), "k")]
    job = server.create_job(name, refuse, server.put_manifest(name, rows))
    server.wait(job, "Complete")
    base = f"reports/job-{job}/"
    manifest = json.loads(server.s3.get_object(Bucket=name, Key=base + "manifest.json")["Body"].read())
    schema = manifest["ReportSchema"].split(", ")
    assert schema[4:6] == ["ErrorCode", "HTTPStatusCode"]
    text = server.s3.get_object(Bucket=name, Key=manifest["Results"][0]["Key"])["Body"].read().decode()
    assert text.split(",")[4:6] == ["200", "PermanentFailure"]


def test_b_04_a_job_is_complete_although_every_task_failed(server, name, refuse):
    rows = [(server.bucket(name), f"k{number}") for number in range(50)]
    job = server.create_job(name, refuse, server.put_manifest(name, rows))
    described = server.wait(job)
    assert (described["Status"], described["FailureReasons"]) == ("Complete", [])
    progress = described["ProgressSummary"]
    assert (progress["NumberOfTasksSucceeded"], progress["NumberOfTasksFailed"]) == (0, 50)
    harness.audit(server, job, rows)


def test_b_05_a_manifest_that_was_written_again_fails_the_job_that_had_its_etag(server, name, echo):
    etag = server.put_manifest(server.bucket(name), [(name, "first")])
    server.put_manifest(name, [(name, "second")])
    job = cli_job(server, "--no-confirmation-required", operation={"LambdaInvoke": {"FunctionArn": echo}},
                  report=report_in(name), manifest=csv_manifest(name, etag))
    described = server.wait(job, "Failed", timeout=30)
    assert described["FailureReasons"][0]["FailureCode"] == "ManifestETagMismatch"
    assert described["ProgressSummary"]["TotalNumberOfTasks"] == 0
    assert "Contents" not in server.s3.list_objects_v2(Bucket=name, Prefix="reports/")


def test_b_06_a_job_that_sits_in_suspended_is_run_by_one_request(server, name, echo):
    rows = [(server.bucket(name), "k")]
    etag = server.put_manifest(name, rows)
    job = server.control.create_job(
        AccountId=ACCOUNT, Operation={"LambdaInvoke": {"FunctionArn": echo}}, Report=report_in(name),
        Manifest=csv_manifest(name, etag), Priority=1, RoleArn=ROLE)["JobId"]
    suspended = server.wait(job, "Suspended")
    assert suspended["ConfirmationRequired"] is True and suspended["SuspendedCause"] == "AWAITING_CONFIRMATION"
    assert update_status(server, job, "Ready")["Status"] == "Ready"
    server.wait(job, "Complete")
    harness.audit(server, job, rows)


def test_b_07_a_copy_without_a_target_is_refused_and_never_answered_with_a_500(server, name):
    told = acceptance.boto3_refused(server, server.bucket(name), {"S3PutObjectCopy": {}}, manifest=csv_manifest(name, "e"))
    assert (told.status, told.code) == (400, "InvalidRequest"), told
    assert "TargetResource" in told.message
    assert acceptance.jobs_described(server, name) == []


def test_b_08_the_aws_cli_needs_no_manifest_beside_a_generator(server, name, echo):
    server.s3.put_object(Bucket=server.bucket(name), Key="k", Body=b"x")
    job = cli_job(
        server, "--no-confirmation-required", operation={"LambdaInvoke": {"FunctionArn": echo}},
        report=report_in(server.bucket(name + "-out")), generator=acceptance.generator_of(name))
    described = server.wait(job, "Complete")
    assert ("Manifest" in described, "ManifestGenerator" in described) == (False, True)
    assert set(named_rows(server, job, [(name, "k", "null")])) == {"k"}, "the version before versions"


def test_b_09_a_generator_that_finds_nothing_fails_its_job_in_awss_words(server, name, echo):
    server.s3.put_object(Bucket=server.bucket(name), Key="k", Body=b"x")
    for generator in (
        acceptance.generator_of(name, KeyNameConstraint={"MatchAnyPrefix": ["nothing/"]}),
        acceptance.generator_of(name, server.bucket(name + "-out"), ObjectSizeGreaterThanBytes=1),
    ):
        job = server.control.create_job(
            AccountId=ACCOUNT, ConfirmationRequired=False, Operation={"LambdaInvoke": {"FunctionArn": echo}}, Priority=1,
            Report=report_in(name), RoleArn=ROLE, ManifestGenerator=generator)["JobId"]
        described = server.wait(job, "Failed")
        assert [failure["FailureReason"] for failure in described["FailureReasons"]] == [
            "Manifest generation found no keys matching the filter criteria"]
        assert described["ProgressSummary"]["TotalNumberOfTasks"] == 0 and "GeneratedManifestDescriptor" not in described
    assert "Contents" not in server.s3.list_objects_v2(Bucket=name + "-out"), "no list"
    assert [entry["Key"] for entry in server.s3.list_objects_v2(Bucket=name)["Contents"]] == ["k"], "no report"


def test_b_10_the_account_stands_before_the_host_and_needs_no_name_service(server, name):
    hosts = []
    with harness.environ(server.environment):
        client = harness.boto3.session.Session().client("s3control")
    client.meta.events.register("before-send.s3-control.*", lambda request, **_: hosts.append(request.url.split("/")[2]))
    assert client.list_jobs(AccountId=ACCOUNT, MaxResults=1)["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert hosts and all(host.startswith(ACCOUNT + ".") for host in hosts), hosts
    # Dual stack does not come into it: boto3 leaves it out beside an endpoint of one's own.
    with harness.environ(server.environment):
        dual = harness.boto3.session.Session().client(
            "s3control", config=botocore.config.Config(use_dualstack_endpoint=True))
    assert dual.list_jobs(AccountId=ACCOUNT, MaxResults=1)["ResponseMetadata"]["HTTPStatusCode"] == 200
    # An account before the host that is not the request's is refused, in whatever form it comes.
    host = hosts[0].replace(ACCOUNT, "111111111111", 1)
    headers = harness.signed(server, "GET", "s3", "/v20180820/jobs", host=host)
    answer = acceptance.Answer(*harness.send(server, "GET", f"http://{host}/v20180820/jobs", headers | {"Host": host}))
    assert (answer.status, answer.text("Error/Code")) == (400, "InvalidRequest")


def test_b_11_boto3_has_neither_paginator_nor_waiter_and_a_loop_does(server, name, echo):
    control = server.control
    assert not control.can_paginate("list_jobs") and control.waiter_names == []
    etag = server.put_manifest(server.bucket(name), [(name, "k")])
    jobs = [server.create_job(name, echo, etag, report=False, Description=name) for _ in range(3)]
    for job in jobs:
        server.wait(job, "Complete")
    asked = {"AccountId": ACCOUNT, "JobStatuses": ["Complete"], "MaxResults": 1}
    seen, page = [], control.list_jobs(**asked)
    token = page["NextToken"]
    while len(seen) < 3:
        seen += [entry["JobId"] for entry in page["Jobs"]]
        page = control.list_jobs(**asked, NextToken=page["NextToken"]) if "NextToken" in page else {"Jobs": []}
    assert seen[:3] == jobs[::-1]
    with pytest.raises(control.exceptions.InvalidNextTokenException):
        control.list_jobs(**asked | {"JobStatuses": ["Failed"]}, NextToken=token)
    with pytest.raises(control.exceptions.InvalidNextTokenException):
        control.list_jobs(**asked, NextToken=token[:-4] + "AAAA")


def test_b_12_keys_with_spaces_and_plus_signs_are_found_by_a_function_that_decodes_them(server, name):
    function = server.deploy(name, """
        import boto3, urllib.parse
        s3 = boto3.client("s3")

        def read(bucket, key):
            try:
                return s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode()
            except Exception as error:
                return error.response["Error"]["Code"]

        def handler(event, context):
            task = event["tasks"][0]
            bucket, key = task["s3BucketArn"].split(":::")[1], task["s3Key"]
            found = [read(bucket, decode(key)) for decode in (urllib.parse.unquote_plus, urllib.parse.unquote, str)]
            return {"invocationSchemaVersion": "1.0", "invocationId": event["invocationId"], "results": [
                {"taskId": task["taskId"], "resultCode": "Succeeded", "resultString": "/".join(found)}]}
    """, environment=harness.WITH_BOTO3, timeout=60)
    server.bucket(name)
    for key in ("a b", "a+b"):
        server.s3.put_object(Bucket=name, Key=key, Body=f"<{key}>".encode())
    rows = [(name, "a+b"), (name, "a%20b"), (name, "a%2Bb")]
    job = server.create_job(name, function, server.put_manifest(name, rows))
    server.wait(job, "Complete")
    report = named_rows(server, job, rows)
    assert report["a+b"].message == "<a b>/<a+b>/<a+b>", "unquote_plus alone reads what the manifest means"
    assert report["a%20b"].message == "<a b>/<a b>/NoSuchKey"
    assert report["a%2Bb"].message == "<a+b>/<a+b>/NoSuchKey"


def test_b_13_the_bucket_is_found_by_both_ways_to_split_its_arn_and_by_its_name(server, name):
    function = server.deploy(name, """
        def handler(event, context):
            task = event["tasks"][0]
            arn = task.get("s3BucketArn", "")
            said = [arn.split(":")[-1], arn.split(":::")[-1], task.get("s3Bucket", ""), str(sorted(set(task) & {"s3BucketArn", "s3Bucket"}))]
            return {"invocationSchemaVersion": "1.0", "invocationId": event["invocationId"], "results": [
                {"taskId": task["taskId"], "resultCode": "Succeeded", "resultString": "|".join(said)}]}
    """)
    rows = [(server.bucket(name), "k")]
    etag = server.put_manifest(name, rows)
    for schema, said in (("1.0", f"{name}|{name}||['s3BucketArn']"), ("2.0", f"||{name}|['s3Bucket']")):
        job = server.create_job(name, function, etag, schema=schema)
        server.wait(job, "Complete")
        assert [row.message for row in harness.audit(server, job, rows)] == [said]


def test_b_14_user_arguments_need_schema_2_0_which_breaks_a_function_for_1_0(server, name):
    function = server.deploy(name, """
        def handler(event, context):
            task = event["tasks"][0]
            return {"invocationSchemaVersion": "1.0", "invocationId": event["invocationId"], "results": [
                {"taskId": task["taskId"], "resultCode": "Succeeded", "resultString": task["s3BucketArn"]}]}
    """)
    rows = [(server.bucket(name), "k")]
    manifest = csv_manifest(name, server.put_manifest(name, rows))
    for schema in ({}, {"InvocationSchemaVersion": "1.0"}):
        told = acceptance.boto3_refused(
            server, name, {"LambdaInvoke": {"FunctionArn": function, "UserArguments": {"a": "b"}} | schema}, manifest=manifest)
        assert (told.status, told.code) == (400, "InvalidRequest")
        assert "UserArguments" in told.message and "2.0" in told.message
    for schema, status in (("1.0", "succeeded"), ("2.0", "failed")):
        job = server.create_job(name, function, "-", Manifest=manifest, schema=schema)
        server.wait(job, "Complete")
        [row] = harness.audit(server, job, rows)
        assert row.status == status
    assert row.error_code == "PermanentFailure" and "KeyError" in row.message and "s3BucketArn" in row.message


def test_b_15_an_empty_version_fails_its_task_and_not_the_job(server, name, echo):
    body = f"{name},with,v1\n{name},without,\n"
    job = server.create_job(
        server.bucket(name), echo, server.put_manifest(name, body), fields=("Bucket", "Key", "VersionId"))
    server.wait(job, "Complete")
    report = named_rows(server, job, [(name, "with", "v1"), (name, "without", "\\N")])
    row = report["without"]
    assert (row.status, row.http_status, row.error_code, row.message) == (
        "failed", "400", "InvalidRequest", "Task failed due to missing VersionId")
    assert (report["with"].status, row.version) == ("succeeded", "\\N")


READ = acceptance.batch_function("""
    import boto3
    s3 = boto3.client("s3")

    def work(job, bucket, key, version):
        try:
            return "Succeeded", s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode()
        except s3.exceptions.NoSuchKey:
            return "PermanentFailure", "NoSuchKey"
""")


def test_b_16_rows_of_objects_that_are_not_there_fail_and_too_many_of_them_end_the_job(small, name):
    server = small
    function = server.deploy(name, READ, environment=harness.WITH_BOTO3, timeout=60)
    server.bucket(name)
    for number in range(14):
        server.s3.put_object(Bucket=name, Key=f"there-{number}", Body=b"x")
    there = [(name, f"there-{number}") for number in range(14)]
    few = there + [(name, f"missing-{number}") for number in range(5)]
    job = server.create_job(name, function, server.put_manifest(name, few))
    server.wait(job, "Complete")
    report = named_rows(server, job, few)
    assert {key: row.message for key, row in report.items() if row.status == "failed"} == {
        f"missing-{number}": "NoSuchKey" for number in range(5)}
    many = there + [(name, f"missing-{number}") for number in range(200)]
    job = server.create_job(name, function, server.put_manifest(name, many))
    described = server.wait(job, "Failed")
    assert described["FailureReasons"][0]["FailureCode"] == "TaskFailureThresholdExceeded"
    rows = harness.audit(server, job, many, status="Failed")
    assert 20 <= len(rows) and sum(row.status == "failed" for row in rows) * 2 > len(rows)


def test_b_17_a_report_that_cannot_be_written_fails_a_job_all_of_whose_tasks_ran(server, name, echo):
    rows = [(server.bucket(name), "a"), (name, "b")]
    etag = server.put_manifest(name, rows)
    for report in (report_in(name + "-nowhere"), report_in(name) | {"ExpectedBucketOwner": "111122223333"}):
        job = server.create_job(name, echo, etag, Report=report)
        described = server.wait(job, "Failed")
        failure, detail = described["FailureReasons"]
        assert failure["FailureCode"] == detail["FailureCode"] == "ReportDeliveryFailed"
        assert name in detail["FailureReason"], "the bucket is named beside AWS's sentence"
        assert failure["FailureReason"].startswith(
            "The job report could not be written to your report bucket. Please check your permissions.")
        progress = described["ProgressSummary"]
        assert (progress["TotalNumberOfTasks"], progress["NumberOfTasksSucceeded"]) == (2, 2)
    # A default retention, the usual cause, cannot be set on the embedded store: it says so instead of ignoring it.
    told = refusal(server.s3.put_object_lock_configuration, Bucket=name, ObjectLockConfiguration={
        "ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}})
    assert (told.status, told.code) == (501, "NotImplemented")


def test_b_18_the_report_is_there_when_the_job_is_seen_to_be_over(server, name, refuse):
    etag = server.put_manifest(server.bucket(name), [(name, "k")])
    for _ in range(5):
        job = server.create_job(name, refuse, etag)
        while server.describe(job)["Status"] not in TERMINAL:
            pass
        body = server.s3.get_object(Bucket=name, Key=f"reports/job-{job}/manifest.json")["Body"].read()
        assert server.s3.head_object(Bucket=name, Key=json.loads(body)["Results"][0]["Key"])["ContentType"] == "text/csv"


def test_b_19_a_prefix_that_ends_in_a_slash_gives_two(server, name, echo):
    rows = [(server.bucket(name), "k")]
    job = server.create_job(name, echo, server.put_manifest(name, rows), prefix="final-reports/")
    server.wait(job, "Complete")
    harness.audit(server, job, rows)
    keys = {entry["Key"] for entry in server.s3.list_objects_v2(Bucket=name, Prefix="final-reports/")["Contents"]}
    assert f"final-reports//job-{job}/manifest.json" in keys and all(key.startswith("final-reports//job-") for key in keys)


@pytest.mark.parametrize("row", ["{},a,b.txt", "{}", "{},a,,"], ids=["comma-in-a-key", "one-field", "empty-fields"])
def test_b_22_one_row_of_another_width_ends_the_whole_job(server, name, echo, row):
    body = "".join(f"{name},k{number}\n" for number in range(500)) + row.format(name) + "\n"
    job = server.create_job(server.bucket(name), echo, server.put_manifest(name, body))
    described = server.wait(job, "Failed", timeout=60)
    failure, detail = described["FailureReasons"]
    assert failure["FailureCode"] == detail["FailureCode"] == "InvalidManifestContent"
    assert detail["FailureReason"].startswith("Row 501: it has "), "and which row it is"
    assert failure["FailureReason"].startswith("Unexpected number of task fields")
    progress = described["ProgressSummary"]
    assert {progress[kind] for kind in ("TotalNumberOfTasks", "NumberOfTasksSucceeded", "NumberOfTasksFailed")} == {0}
    assert "Contents" not in server.s3.list_objects_v2(Bucket=name, Prefix="reports/"), "no task ran"


def test_b_23_a_header_is_a_task_and_byte_order_marks_and_blank_lines_fail_the_job(server, name, echo):
    server.bucket(name)
    job = server.create_job(name, echo, server.put_manifest(name, f"Bucket,Key\n{name},k\n"))
    server.wait(job, "Complete")
    report = named_rows(server, job, [("Bucket", "Key"), (name, "k")])
    assert report["Key"].bucket == "Bucket", "the header went to the function like any other row"
    for body in (f"\ufeff{name},k\n", f"{name},k\n\n{name},l\n", f"\n{name},k\n"):
        job = server.create_job(name, echo, server.put_manifest(name, body))
        failure, detail = server.wait(job, "Failed", timeout=60)["FailureReasons"]
        assert failure["FailureCode"] == "InvalidManifestContent"
        assert "byte order mark" in detail["FailureReason"] or "blank" in detail["FailureReason"]
        assert failure["FailureReason"].startswith("Manifest file is not properly formatted"), failure


def test_b_24_a_manifest_encrypted_with_a_key_of_kms_cannot_come_about(server, name):
    server.bucket(name)
    told = refusal(server.s3.put_object, Bucket=name, Key="manifest.csv", Body=b"b,k\n", ServerSideEncryption="aws:kms")
    assert (told.status, told.code) == (501, "NotImplemented"), told
    assert "Contents" not in server.s3.list_objects_v2(Bucket=name), "it is not stored unencrypted either"


def test_b_25_a_branch_without_results_fails_its_task_for_good(server, name, by_case):
    report = run_cases(server, name, by_case, ["undefined", "null"])
    for row in report.values():
        assert (row.status, row.http_status, row.error_code, row.message) == (
            "failed", "200", "PermanentFailure", "Invalid JSON returned in Lambda payload")


def test_b_26_a_result_string_that_is_an_object_is_written_as_json(server, name, by_case):
    row = run_cases(server, name, by_case, ["error-object"])["error-object"]
    assert row.status == "succeeded" and json.loads(row.message) == {"errno": -2, "code": "ENOENT"}
    assert " " not in row.message, "compact"


def test_b_27_a_second_call_has_the_same_task_id_by_which_a_move_can_be_made_once(small, name, tmp_path):
    server = small
    function = server.deploy(name, """
        import json, os
        import boto3
        s3 = boto3.client("s3")

        def handler(event, context):
            task = event["tasks"][0]
            bucket, key, done = task["s3BucketArn"].split(":::")[1], task["s3Key"], "done/" + task["taskId"]
            print(json.dumps({"key": key, "task": task["taskId"], "invocation": event["invocationId"]}), flush=True)
            code, said = "Succeeded", "moved before"
            try:
                s3.head_object(Bucket=bucket, Key=done)
            except s3.exceptions.ClientError:
                s3.copy_object(Bucket=bucket, Key="moved/" + key, CopySource={"Bucket": bucket, "Key": key})
                s3.delete_object(Bucket=bucket, Key=key)
                s3.put_object(Bucket=bucket, Key=done)
                code, said = "TemporaryFailure", "moved, and then the connection broke"
            return {"invocationSchemaVersion": "1.0", "invocationId": event["invocationId"], "results": [
                {"taskId": task["taskId"], "resultCode": code, "resultString": said}]}
    """, environment=harness.WITH_BOTO3, timeout=60)
    server.bucket(name)
    for key in ("a", "b"):
        server.s3.put_object(Bucket=name, Key=key, Body=key.encode())
    rows = [(name, "a"), (name, "b")]
    job = server.create_job(name, function, server.put_manifest(name, rows))
    server.wait(job, "Complete")
    assert {row.message for row in harness.audit(server, job, rows)} == {"moved before"}
    for key in ("a", "b"):
        assert server.s3.get_object(Bucket=name, Key="moved/" + key)["Body"].read() == key.encode(), "nothing is lost"
    calls = [json.loads(line[line.index("{"):]) for line in server.longshore("logs", name).stdout.splitlines() if '"invocation"' in line]
    tasks = {key: {call["task"] for call in calls if call["key"] == key} for key in ("a", "b")}
    assert len(calls) == 4 and len({call["invocation"] for call in calls}) == 4
    assert all(len(ids) == 1 for ids in tasks.values()) and tasks["a"] != tasks["b"]


def test_b_28_a_function_of_another_region_is_refused_and_so_is_a_client_of_one(server, name):
    server.bucket(name)
    told = acceptance.boto3_refused(
        server, name, {"LambdaInvoke": {"FunctionArn": f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:f"}},
        manifest=csv_manifest(name, "e"))
    assert (told.status, told.code) == (400, "InvalidRequest") and REGION in told.message
    with harness.environ(server.environment):
        elsewhere = harness.boto3.session.Session().client("s3control", region_name="eu-west-1")
    told = refusal(elsewhere.list_jobs, AccountId=ACCOUNT)
    assert told.status in (400, 403) and REGION in told.message, told
    assert acceptance.jobs_described(server, name) == []


def test_b_29_a_rule_needs_no_trail_and_matches_every_job_of_the_account(tmp_path):
    server = harness.Server(tmp_path)
    server.data_dir.mkdir(mode=0o700)
    log = server.data_dir / "events.jsonl"
    (server.data_dir / "longshore.toml").write_text(settings([{"name": "log", "kind": "file", "path": "events.jsonl"}]))
    server.start()
    try:
        bucket = server.bucket("events")
        functions = [server.deploy(name, acceptance.ECHO) for name in ("mine", "of-others")]
        etag = server.put_manifest(bucket, [(bucket, "k")])
        jobs = [server.create_job(bucket, function, etag, report=False) for function in functions]
        for job in jobs:
            server.wait(job, "Complete")

        def matched():
            events = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
            ended = {details(event)["jobId"] for event in events if details(event)["status"] == "Complete"}
            return ended == set(jobs) and [event for event in events if matches(PATTERN, event)]

        events = wait_for("the events of both jobs", matched)
        for job in jobs:
            told = [event["detail"]["eventName"] for event in events if details(event)["jobId"] == job]
            assert told == ["JobCreated"] + ["JobStatusChanged"] * 5, "the rule cannot tell jobs apart, jobId can"
    finally:
        server.stop()


def test_b_30_line_breaks_of_a_result_are_kept_within_a_quoted_field(server, name, by_case):
    rows = [(server.bucket(name), "lines"), (name, "right")]
    job = server.create_job(name, by_case, server.put_manifest(name, rows))
    server.wait(job, "Complete")
    report = named_rows(server, job, rows)
    assert report["lines"].message == 'first\nsecond\r\nthird, "quoted"'
    [result] = json.loads(server.s3.get_object(Bucket=name, Key=f"reports/job-{job}/manifest.json")["Body"].read())["Results"]
    text = server.s3.get_object(Bucket=name, Key=result["Key"])["Body"].read().decode()
    assert f'{name},lines,,succeeded,200,,"first\nsecond\r\nthird, ""quoted"""\r\n' in text
    assert len(text.splitlines()) == 4 > len(list(csv.reader(io.StringIO(text, newline="")))) == 2, "naive readers see four rows"


def test_b_31_where_awss_pages_contradict_one_another_the_listed_side_is_taken(server, name, echo):
    rows = [(server.bucket(name), "k")]
    etag = server.put_manifest(name, rows)
    job = server.create_job(name, echo, etag, Priority=0)
    described = server.wait(job, "Complete")
    assert described["Priority"] == 0, "D-15: 0 is a priority"
    keys = {entry["Key"] for entry in server.s3.list_objects_v2(Bucket=name, Prefix="reports/")["Contents"]}
    assert f"reports/job-{job}/manifest.json" in keys and not any(key.endswith("report.json") for key in keys), "D-2"
    manifest = json.loads(server.s3.get_object(Bucket=name, Key=f"reports/job-{job}/manifest.json")["Body"].read())
    assert set(manifest) == {"Format", "ReportCreationDate", "Results", "ReportSchema"}, "D-17"
    assert re.fullmatch(r".*:\d\d\.\d{3}Z", manifest["ReportCreationDate"]), "D-21"
    generator = {"S3JobManifestGenerator": {"SourceBucket": f"arn:aws:s3:::{name}", "EnableManifestOutput": False}}
    told = acceptance.boto3_refused(
        server, name, {"LambdaInvoke": {"FunctionArn": echo}}, manifest=csv_manifest(name, etag), generator=generator)
    assert (told.status, told.code) == (400, "InvalidRequest"), "D-12: exactly one of the two"
    answer = java(server, "GET", f"/v20180820/jobs/{job}")
    assert answer.texts("Job/Manifest/Spec/Fields/member") == ["Bucket", "Key"], "D-14"
    told = refusal(server.describe, str(uuid.uuid4()))
    assert (told.status, told.code) == (404, "NoSuchJob"), "D-7"


def test_b_32_all_eight_operations_answer_an_unmodified_client(server, name, echo):
    control = server.control
    etag = server.put_manifest(server.bucket(name), [(name, "k")])
    answers = [control.create_job(
        AccountId=ACCOUNT, ConfirmationRequired=True, Operation={"LambdaInvoke": {"FunctionArn": echo}}, Report={"Enabled": False},
        Manifest=csv_manifest(name, etag), Priority=1, RoleArn=ROLE)]
    job = {"AccountId": ACCOUNT, "JobId": answers[0]["JobId"]}
    server.wait(job["JobId"], "Suspended")
    answers += [
        control.describe_job(**job), control.list_jobs(AccountId=ACCOUNT), control.update_job_priority(**job, Priority=2),
        control.put_job_tagging(**job, Tags=[{"Key": "a", "Value": "b"}]), control.get_job_tagging(**job),
        control.delete_job_tagging(**job), control.update_job_status(**job, RequestedJobStatus="Cancelled"),
    ]
    for answer in answers:
        metadata = answer["ResponseMetadata"]
        assert metadata["HTTPStatusCode"] == 200
        assert metadata["RequestId"] == metadata["HTTPHeaders"]["x-amz-request-id"] and metadata["HTTPHeaders"]["x-amz-id-2"]
        assert metadata["HTTPHeaders"]["date"] and metadata["HTTPHeaders"]["server"]
    assert answers[1]["Job"]["JobId"] == job["JobId"] and answers[5]["Tags"] == [{"Key": "a", "Value": "b"}]
    assert (answers[3]["Priority"], answers[7]["Status"]) == (2, "Cancelled")
