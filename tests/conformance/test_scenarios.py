"""The walkthroughs of AWS's own pages, one test each: appendix A of docs/specification.md, in its numbers.

Operations on objects other than LambdaInvoke do not run yet: their scenarios go as far as a clear refusal.
"""

import json
import random
import re
import time
import urllib.parse
import uuid

import botocore.exceptions
import pytest

import acceptance
import harness
from acceptance import (
    FORBIDDEN, cli_create, cli_error, cli_job, csv_manifest, generator_of, inventory_manifest, java, java_create_job,
    java_manifest, java_report, named_rows, native, put_inventory, refusal, report_in, update_status,
)
from harness import ACCOUNT, REGION, ROLE, ROOT, TERMINAL, wait_for
from test_events import PATTERN, Receiver, details, matches, settings

# Scenarios without a test, and why.
UNTESTED = {
    24: "needs the evaluation of IAM policies, which is not built",
    26: "a table of IAM permissions; needs the evaluation of IAM policies, which is not built",
    47: "ABAP programs, for reference only: they send what A-46 sends",
}

NEVER_RUN = "arn:aws:lambda:us-east-1:000000000000:function:never-run"
LAMBDA_OF = "<LambdaInvoke><FunctionArn>{}</FunctionArn></LambdaInvoke>".format


@pytest.fixture(scope="module")
def echo(server):
    return server.deploy("scenarios-echo", acceptance.ECHO)


@pytest.fixture(scope="module")
def impatient(tmp_path_factory):
    """A server whose redrives come at once."""
    server = harness.Server(
        tmp_path_factory.mktemp("impatient"), {"LONGSHORE_JOBS_RETRY_MS": "10", "LONGSHORE_JOBS_RETRY_MS_MAX": "20"}).start()
    yield server
    server.stop()


@pytest.fixture
def gate(unconfined, name, tmp_path):
    """A function whose calls wait until the gate is opened: (ARN, the gate's path)."""
    path = tmp_path / "gate"
    yield unconfined.deploy(name + "-gated", acceptance.GATED, environment={"GATE": str(path)}), path
    path.touch()


@pytest.fixture
def suspended(server, name, echo):
    """A job of three rows that waits for its confirmation."""
    rows = [(server.bucket(name), f"k{number}") for number in range(3)]
    job = server.create_job(name, echo, server.put_manifest(name, rows), confirmation=True)
    server.wait(job, "Suspended")
    return job


def cli_control(server, command, *arguments, **more):
    """The answer of `aws s3control COMMAND` as JSON, or nothing where it has none."""
    printed = server.aws("s3control", command, "--account-id", ACCOUNT, *arguments, "--output", "json", **more).stdout
    return json.loads(printed) if printed.strip() else None


def test_every_scenario_has_a_test_or_a_reason():
    tested = [int(found[1]) for found in map(re.compile(r"test_a_(\d\d)_").match, globals()) if found]
    assert sorted(tested + list(UNTESTED)) == list(range(1, 53))


# --- creating a job ---


def test_a_01_tagging_asked_for_by_the_aws_cli_is_refused_by_its_name(server, name):
    server.bucket(name)
    native(server, name, {"S3PutObjectTagging": {"TagSet": [{"Key": "keyOne", "Value": "ValueOne"}]}})


def test_a_02_a_request_of_the_sdk_for_java_is_read(server, name, echo):
    server.bucket(name)
    tagging = "<S3PutObjectTagging><TagSet><member><Key>keyOne</Key><Value>ValueOne</Value></member></TagSet></S3PutObjectTagging>"
    native(server, name, {"S3PutObjectTagging": {"TagSet": [{"Key": "keyOne", "Value": "ValueOne"}]}}, java_operation=tagging)
    rows = [(name, "k1"), (name, "k2")]
    answer = java(server, "POST", "/v20180820/jobs", java_create_job(
        LAMBDA_OF(echo), java_manifest(name, server.put_manifest(name, rows)), report=java_report(name),
        confirmation=False, description=name))
    assert (answer.status, answer.root_name) == (200, "CreateJobResult"), answer.body
    assert answer.headers["Content-Type"] == "application/xml" and answer.body.startswith(b"<?xml ")
    job = answer.text("JobId")
    described = server.wait(job, "Complete")
    assert (described["Description"], described["Priority"], described["ConfirmationRequired"]) == (name, 10, False)
    harness.audit(server, job, rows)


def test_a_03_a_generated_manifest_has_the_objects_of_its_filter_and_is_described(server, name, echo):
    server.bucket(name)
    wanted = ["photos/a b.jpg", "photos/c+d.jpg", "photos/2024/é.jpg"]
    for key in wanted + ["photos/e.png", "other/f.jpg"]:
        server.s3.put_object(Bucket=name, Key=key, Body=b"12345")
    server.s3.put_object(Bucket=name, Key="photos/empty.jpg", Body=b"")
    generator = generator_of(
        name, server.bucket(name + "-out"), ObjectSizeGreaterThanBytes=4,
        KeyNameConstraint={"MatchAnyPrefix": ["photos/"], "MatchAnySuffix": [".jpg"]})
    native(server, name, {"S3DeleteObjectTagging": {}}, generator=generator)
    job = cli_job(server, "--no-confirmation-required", operation={"LambdaInvoke": {"FunctionArn": echo}},
                  report=report_in(name + "-out"), generator=generator)
    described = server.wait(job, "Complete")
    encoded = {urllib.parse.quote(key) for key in wanted}
    assert set(named_rows(server, job, [(name, key, "null") for key in encoded])) == encoded
    assert described["ManifestGenerator"] == generator and "Manifest" not in described
    descriptor = described["GeneratedManifestDescriptor"]
    assert descriptor["Format"] == "S3InventoryReport_CSV_20211130"
    bucket, _, key = descriptor["Location"]["ObjectArn"].removeprefix("arn:aws:s3:::").partition("/")
    assert (bucket, key.startswith("lists/")) == (name + "-out", True)
    head = server.s3.head_object(Bucket=bucket, Key=key)
    assert head["ETag"].strip('"') == descriptor["Location"]["ETag"].strip('"')


def test_a_04_a_job_without_a_confirmation_flag_waits_and_then_calls_its_function_once_a_row(server, name):
    function = server.deploy(name, acceptance.ECHO)
    rows = [(server.bucket(name), f"k{number}") for number in range(8)]
    job = cli_job(
        server, "--description", "Test Function", "--client-request-token", str(uuid.uuid4()), priority=2,
        operation={"LambdaInvoke": {"FunctionArn": function}}, report=report_in(name),
        manifest=csv_manifest(name, server.put_manifest(name, rows).strip('"')))
    described = server.wait(job, "Suspended")
    assert described["ConfirmationRequired"] is True
    assert (described["SuspendedCause"], described["ProgressSummary"]["TotalNumberOfTasks"]) == ("AWAITING_CONFIRMATION", 8)
    assert '"tasks"' not in server.longshore("logs", name, check=False).stdout, "nothing runs before the confirmation"
    assert cli_control(server, "update-job-status", "--job-id", job, "--requested-job-status", "Ready")["Status"] == "Ready"
    server.wait(job, "Complete")
    harness.audit(server, job, rows)
    events = [json.loads(line[line.index("{"):]) for line in server.longshore("logs", name).stdout.splitlines() if '"tasks"' in line]
    assert sorted(event["tasks"][0]["s3Key"] for event in events) == sorted(key for _, key in rows)


def test_a_05_delete_markers_are_removed_version_by_version(impatient, name):
    server = impatient
    function = server.deploy(name, acceptance.REMOVE_DELETE_MARKER, environment=harness.WITH_BOTO3, timeout=60)
    s3 = server.s3
    s3.put_bucket_versioning(Bucket=server.bucket(name), VersioningConfiguration={"Status": "Enabled"})
    for key in ("deleted 1", "kept", "slow"):
        s3.put_object(Bucket=name, Key=key, Body=key.encode())
    marker = s3.delete_object(Bucket=name, Key="deleted 1")["VersionId"]
    kept = s3.head_object(Bucket=name, Key="kept")["VersionId"]
    rows = [(name, "deleted%201", marker), (name, "kept", kept), (name, "slow", kept), (name, "gone", "no-such-version")]
    job = server.create_job(name, function, server.put_manifest(name, rows), fields=("Bucket", "Key", "VersionId"))
    server.wait(job, "Complete")
    report = named_rows(server, job, rows)
    said = {key: (row.status, row.error_code, row.message) for key, row in report.items()}
    assert said["deleted%201"] == ("succeeded", "", f"removed delete marker {marker} of deleted 1")
    assert said["kept"] == ("failed", "PermanentFailure", f"kept {kept} is not a delete marker")
    assert said["slow"] == ("failed", "TemporaryFailure", "the look at slow timed out")
    assert said["gone"][:2] == ("failed", "PermanentFailure") and "404" in said["gone"][2]
    assert s3.get_object(Bucket=name, Key="deleted 1")["Body"].read() == b"deleted 1", "the object is back"
    assert "DeleteMarkers" not in s3.list_object_versions(Bucket=name)


def test_a_06_a_key_that_carries_json_reaches_the_function_encoded(server, name):
    function = server.deploy(name, acceptance.batch_function("""
        import json

        def work(job, bucket, key, version):
            asked = json.loads(key)
            return "Succeeded", asked["origKey"] + " becomes " + asked["newKey"]
    """).__getitem__("handler.py").replace("[task] = event", "print(event['tasks'][0]['s3Key'], flush=True)\n    [task] = event"))
    server.bucket(name)
    keys = ["%7B%22origKey%22%3A%20%22object{0}key%22%2C%20%22newKey%22%3A%20%22newObject{0}Key%22%7D".format(number)
            for number in (1, 2)]
    rows = [(name, key) for key in keys]
    job = server.create_job(name, function, server.put_manifest(name, rows))
    server.wait(job, "Complete")
    report = named_rows(server, job, rows)
    assert [report[key].message for key in keys] == ["object1key becomes newObject1Key", "object2key becomes newObject2Key"]
    logged = server.longshore("logs", name).stdout
    assert all(key in logged for key in keys), "the function saw the manifest's own bytes"


def test_a_07_a_key_that_carries_an_action_after_a_pipe(server, name):
    function = server.deploy(name, acceptance.REVISE, environment=harness.WITH_BOTO3, timeout=60)
    server.bucket(name)
    for stanza in ("one", "two", "three", "four"):
        server.s3.put_object(Bucket=name, Key=stanza, Body=f"Stanza {stanza}".encode())
    keys = {"one%7Cupper": "applied upper to one", "two%7Clower": "applied lower to two",
            "three%7Creverse": "applied reverse to three", "four%7Cdelete": "deleted four",
            "five%7Cupper": "five is not there, so it was deleted before"}
    rows = [(name, key) for key in keys]
    job = server.create_job(name, function, server.put_manifest(name, rows))
    server.wait(job, "Complete")
    assert {key: (row.status, row.message) for key, row in named_rows(server, job, rows).items()} == {
        key: ("succeeded", message) for key, message in keys.items()}
    read = {stanza: server.s3.get_object(Bucket=name, Key=stanza)["Body"].read() for stanza in ("one", "two", "three")}
    assert read == {"one": b"STANZA ONE", "two": b"stanza two", "three": b"eerht aznatS"}
    assert refusal(server.s3.get_object, Bucket=name, Key="four").code == "NoSuchKey"


STANZAS = [
    "A gull upon the harbour wall\nCounts every crate of barley in", "The crane swings out, the hatches fall\nThe tally clerk "
    "writes thick and thin", "By noon the hold is swept and dry\nBy dusk the lamps are lit again", "And all the gulls that "
    "wheel and cry\nHave counted with the tally men",
]


def run_to_the_end(server, bucket, function, rows, key, fields):
    """A job over these rows, followed with DescribeJob until it is over. Returns its ID."""
    job = server.create_job(
        bucket, function, server.put_manifest(bucket, rows, key=key), key=key, fields=fields, ClientRequestToken=str(uuid.uuid4()))
    while server.describe(job)["Status"] not in TERMINAL:
        time.sleep(0.1)
    return job


def test_a_08_the_whole_demonstration_of_versions(server, name):
    s3, rng = server.s3, random.Random(8)
    revise = server.deploy(name + "-revise", acceptance.REVISE, environment=harness.WITH_BOTO3, timeout=60)
    unmark = server.deploy(name + "-unmark", acceptance.REMOVE_DELETE_MARKER, environment=harness.WITH_BOTO3, timeout=60)
    s3.put_bucket_versioning(Bucket=server.bucket(name), VersioningConfiguration={"Status": "Enabled"})
    stanzas = [f"stanzas/stanza_{number}" for number in range(len(STANZAS))]
    for key, text in zip(stanzas, STANZAS):
        s3.put_object(Bucket=name, Key=key, Body=text.encode())

    # The first job: every stanza is revised three times at random and deleted once, all in any order. Rows repeat.
    revisions = [(stanza, revision) for stanza in stanzas for revision in rng.choices(["lower", "upper", "reverse"], k=3) + ["delete"]]
    revisions += [(stanzas[0], "delete"), (stanzas[0], "delete")]
    rng.shuffle(revisions)
    rows = [(name, f"{stanza}%7C{revision}") for stanza, revision in revisions]
    job = run_to_the_end(server, name, revise, rows, "revisions.csv", ("Bucket", "Key"))
    report = harness.audit(server, job, rows)
    assert len(report) == len(revisions) and {row.status for row in report} == {"succeeded"}, "equal rows are tasks of their own"

    # The second: what is deleted now is revived, by removing the newest marker.
    versions = s3.list_object_versions(Bucket=name, Prefix="stanzas/")
    markers = versions["DeleteMarkers"]
    assert {marker["Key"] for marker in markers} == set(stanzas)
    newest = [marker for marker in markers if marker["IsLatest"]]
    columns = ("Bucket", "Key", "VersionId")
    if newest:
        rows = [(name, marker["Key"], marker["VersionId"]) for marker in newest]
        job = run_to_the_end(server, name, unmark, rows, "revival.csv", columns)
        assert {row.message for row in harness.audit(server, job, rows)} == {
            f"removed delete marker {marker['VersionId']} of {marker['Key']}" for marker in newest}

    # The third: the remaining markers go; versions are given and every one but a marker is left alone.
    versions = s3.list_object_versions(Bucket=name, Prefix="stanzas/")
    left = versions.get("DeleteMarkers", [])
    rows = [(name, entry["Key"], entry["VersionId"]) for entry in left + versions["Versions"][:1]]
    job = run_to_the_end(server, name, unmark, rows, "cleanup.csv", columns)
    outcomes = {(row.key, row.version): row.status for row in harness.audit(server, job, rows)}
    assert outcomes == {(key, version): "failed" if (key, version) == rows[-1][1:] else "succeeded" for _, key, version in rows}
    assert "DeleteMarkers" not in s3.list_object_versions(Bucket=name, Prefix="stanzas/")
    for key, text in zip(stanzas, STANZAS):
        body = s3.get_object(Bucket=name, Key=key)["Body"].read().decode()
        assert body.lower() in (text.lower(), text.lower()[::-1])


# --- statuses and priorities ---


def test_a_09_an_sdk_for_java_confirms_a_job(server, name, suspended):
    answer = java(server, "POST", f"/v20180820/jobs/{suspended}/status?requestedJobStatus=Ready")
    assert (answer.status, answer.root_name) == (200, "UpdateJobStatusResult")
    assert (answer.text("JobId"), answer.text("Status")) == (suspended, "Ready")
    server.wait(suspended, "Complete")


def test_a_10_the_aws_cli_confirms_a_job(server, name, suspended):
    answer = cli_control(server, "update-job-status", "--job-id", suspended, "--requested-job-status", "Ready")
    assert answer == {"Status": "Ready", "JobId": suspended}
    described = server.wait(suspended, "Complete")
    assert described["SuspendedCause"] == "AWAITING_CONFIRMATION" and "SuspendedDate" in described, "kept after the confirmation"


def test_a_11_a_job_is_cancelled_for_a_reason_that_stays_with_it(unconfined, name, gate):
    server = unconfined
    function, path = gate
    rows = [(server.bucket(name), f"k{number}") for number in range(30)]
    job = server.create_job(name, function, server.put_manifest(name, rows))
    server.wait(job, "Active")
    answer = cli_control(server, "update-job-status", "--job-id", job, "--requested-job-status", "Cancelled",
                         "--status-update-reason", "No longer needed")
    assert answer == {"JobId": job, "Status": "Cancelling", "StatusUpdateReason": "No longer needed"}
    path.touch()
    assert server.wait(job, "Cancelled")["StatusUpdateReason"] == "No longer needed"


def test_a_12_a_job_that_waits_for_approval_is_cancelled_at_once(server, name, suspended):
    answer = cli_control(server, "update-job-status", "--job-id", suspended, "--requested-job-status", "Cancelled")
    assert answer == {"Status": "Cancelled", "JobId": suspended}
    described = server.describe(suspended)
    assert (described["Status"], "TerminationDate" in described) == ("Cancelled", True)


def test_a_13_a_running_job_is_cancelling_until_its_calls_have_come_back(unconfined, name, gate):
    server = unconfined
    function, path = gate
    rows = [(server.bucket(name), f"k{number}") for number in range(100)]
    job = server.create_job(name, function, server.put_manifest(name, rows))
    wait_for("a call", path.with_name(path.name + "-reached").exists)
    answer = cli_control(server, "update-job-status", "--job-id", job, "--requested-job-status", "Cancelled")
    assert answer == {"Status": "Cancelling", "JobId": job}
    assert server.describe(job)["Status"] == "Cancelling", "its calls are not over"
    path.touch()
    progress = server.wait(job, "Cancelled")["ProgressSummary"]
    assert progress["NumberOfTasksSucceeded"] + progress["NumberOfTasksFailed"] < progress["TotalNumberOfTasks"] == 100


def test_a_14_jobs_are_listed_by_status_page_by_page_with_the_newest_first(tmp_path):
    server = harness.Server(tmp_path).start()
    try:
        function = server.deploy("echo", acceptance.ECHO)
        etag = server.put_manifest(server.bucket("many-jobs"), [("many-jobs", "k")])
        jobs = [server.create_job("many-jobs", function, etag, report=False) for _ in range(23)]
        waiting = server.create_job("many-jobs", function, etag, confirmation=True)
        for job in jobs:
            server.wait(job, "Complete")
        asked = ("--job-statuses", '["Active","Complete"]', "--max-results", "20")
        first = cli_control(server, "list-jobs", *asked)
        assert [job["JobId"] for job in first["Jobs"]] == jobs[:2:-1], "the newest twenty"
        assert first["NextToken"]
        second = cli_control(server, "list-jobs", *asked, "--next-token", first["NextToken"])
        assert ([job["JobId"] for job in second["Jobs"]], "NextToken" in second) == (jobs[2::-1], False)
        everything = server.control.list_jobs(AccountId=ACCOUNT)["Jobs"]
        assert [job["JobId"] for job in everything] == [waiting] + jobs[::-1]
        told = refusal(server.control.list_jobs, AccountId=ACCOUNT, JobStatuses=["Failed"], NextToken=first["NextToken"])
        assert told.code == "InvalidNextTokenException"
    finally:
        server.stop()


def test_a_15_a_plain_list_shows_a_complete_and_a_failed_job(tmp_path):
    server = harness.Server(tmp_path).start()
    try:
        function = server.deploy("echo", acceptance.ECHO)
        bucket = server.bucket("two-jobs")
        etag = server.put_manifest(bucket, [(bucket, f"k{number}") for number in range(8)])
        complete = server.create_job(bucket, function, etag, Description="a job", Priority=10)
        server.wait(complete, "Complete")
        failed = server.create_job(bucket, function, server.put_manifest(bucket, "b\n"), Priority=9)
        server.wait(failed, "Failed")
        first, second = cli_control(server, "list-jobs")["Jobs"]
        assert set(second) == {"JobId", "Description", "Operation", "Priority", "Status", "CreationTime", "TerminationDate",
                               "ProgressSummary"}
        assert "Description" not in first
        entries = [(job["JobId"], job["Status"], job["Priority"], job["Operation"]) for job in (first, second)]
        assert entries == [(failed, "Failed", 9, "LambdaInvoke"), (complete, "Complete", 10, "LambdaInvoke")]
        counts = [[job["ProgressSummary"][name] for name in ("TotalNumberOfTasks", "NumberOfTasksSucceeded", "NumberOfTasksFailed")]
                  for job in (first, second)]
        assert counts == [[0, 0, 0], [8, 8, 0]]
        for job in (first, second):
            assert job["CreationTime"] <= job["TerminationDate"]
    finally:
        server.stop()


def test_a_16_a_job_is_described_as_it_was_asked_for(server, name, echo):
    etag = server.put_manifest(server.bucket(name), [(name, f"k{number}", "x") for number in range(8)])
    operation = {"LambdaInvoke": {"FunctionArn": echo, "InvocationSchemaVersion": "2.0", "UserArguments": {"a": "1", "b": ""}}}
    manifest = csv_manifest(name, etag, ("Bucket", "Key", "Ignore"))
    job = cli_job(
        server, "--no-confirmation-required", "--description", "described", "--tags", "Key=team,Value=docks",
        operation=operation, report=report_in(name, prefix="batch-op-create-job"), manifest=manifest)
    server.wait(job, "Complete")
    described = cli_control(server, "describe-job", "--job-id", job)["Job"]
    dates = {name: described.pop(name) for name in ("CreationTime", "TerminationDate")}
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}", date) for date in dates.values()), dates
    assert described.pop("ProgressSummary")["Timers"]["ElapsedTimeInActiveSeconds"] >= 0
    assert described == {
        "JobId": job, "ConfirmationRequired": False, "Description": "described", "Status": "Complete", "Priority": 42,
        "JobArn": f"arn:aws:s3:{REGION}:{ACCOUNT}:job/{job}", "Manifest": manifest, "Operation": operation,
        "FailureReasons": [], "Report": report_in(name, prefix="batch-op-create-job"), "RoleArn": ROLE,
    }


def test_a_17_the_priority_is_changed_by_the_aws_cli_and_by_an_sdk_for_java(server, name, suspended):
    answer = cli_control(server, "update-job-priority", "--job-id", suspended, "--priority", "98")
    assert answer == {"JobId": suspended, "Priority": 98}
    assert server.describe(suspended)["Priority"] == 98
    answer = java(server, "POST", f"/v20180820/jobs/{suspended}/priority?priority=52")
    assert (answer.status, answer.root_name) == (200, "UpdateJobPriorityResult")
    assert (answer.text("JobId"), answer.text("Priority")) == (suspended, "52")
    assert server.describe(suspended)["Priority"] == 52
    update_status(server, suspended, "Cancelled")


def test_a_18_confidential_objects_are_not_tagged_but_refused(server, name):
    server.bucket(name)
    operation = {"S3PutObjectTagging": {"TagSet": [{"Key": "confidential", "Value": "true"}]}}
    code, message = cli_error(cli_create(
        server, "--description", name, operation=operation, report=report_in(name, prefix="batch-op-create-job"),
        manifest=csv_manifest(name, server.put_manifest(name, [(name, "k")])), check=False))
    assert code == "NotImplemented" and "S3PutObjectTagging" in message
    assert acceptance.jobs_described(server, name) == []


def test_a_19_a_token_of_a_refused_copy_is_free_and_one_of_a_job_gives_that_job_again(server, name, echo):
    server.bucket(name)
    token, tags = str(uuid.uuid4()), [{"Key": "department", "Value": "Marketing"}, {"Key": "FiscalYear", "Value": "2020"}]
    manifest = csv_manifest(name, server.put_manifest(name, [(name, "k")]))
    flags = ("--client-request-token", token, "--tags", json.dumps(tags), "--no-confirmation-required", "--description", name)
    copy = {"S3PutObjectCopy": {
        "TargetResource": f"arn:aws:s3:::{name}", "MetadataDirective": "REPLACE",
        "NewObjectMetadata": {"ContentType": "text/plain", "UserMetadata": {"k": "v"}}}}
    code, message = cli_error(cli_create(server, *flags, operation=copy, report=report_in(name), manifest=manifest, check=False))
    assert code == "NotImplemented" and "S3PutObjectCopy" in message
    assert acceptance.jobs_described(server, name) == []
    invoke = {"LambdaInvoke": {"FunctionArn": echo}}
    job = cli_job(server, *flags, operation=invoke, report=report_in(name), manifest=manifest)
    assert server.control.get_job_tagging(AccountId=ACCOUNT, JobId=job)["Tags"] == tags
    assert cli_job(server, *flags, operation=invoke, report=report_in(name), manifest=manifest) == job
    server.wait(job, "Complete")
    again = server.control.create_job(
        AccountId=ACCOUNT, ConfirmationRequired=False, Operation=invoke, Report=report_in(name), Manifest=manifest, Priority=42,
        RoleArn=ROLE, Tags=tags, Description=name, ClientRequestToken=token)
    assert again["JobId"] == job, "also by another client, and after its end"
    assert len(acceptance.jobs_described(server, name)) == 1


def test_a_20_an_sdk_for_java_asks_for_a_job_on_an_inventory_with_tags(server, name, echo):
    server.bucket(name)
    schema = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size"
    key, etag = put_inventory(server, name, name, [
        (name, "a%20b", "v1", "true", "false", "3"), (name, "a+b", "v2", "true", "false", "4")], schema)
    tags = [("department", "Marketing"), ("FiscalYear", "2020")]
    answer = java(server, "POST", "/v20180820/jobs", java_create_job(
        LAMBDA_OF(echo), java_manifest(name, etag.strip('"'), (), key, acceptance.INVENTORY), report=java_report(name),
        confirmation=True, description=name, tags=tags))
    assert answer.status == 200, answer.body
    job = answer.text("JobId")
    described = server.wait(job, "Suspended")
    assert described["Manifest"]["Spec"] == {"Format": acceptance.INVENTORY}, "no Fields"
    assert described["ProgressSummary"]["TotalNumberOfTasks"] == 2
    told = server.control.get_job_tagging(AccountId=ACCOUNT, JobId=job)["Tags"]
    assert [(tag["Key"], tag["Value"]) for tag in told] == tags
    update_status(server, job, "Ready")
    server.wait(job, "Complete")
    assert {key: row.version for key, row in named_rows(server, job, [(name, "a%20b", "v1"), (name, "a+b", "v2")]).items()} == {
        "a%20b": "v1", "a+b": "v2"}


# --- tags ---


JAVA_TAGS = '<PutJobTaggingRequest xmlns="{}"><Tags>{}</Tags></PutJobTaggingRequest>'


def java_tags(*pairs):
    members = "".join(f"<member><Key>{key}</Key><Value>{value}</Value></member>" for key, value in pairs)
    return JAVA_TAGS.format(acceptance.NAMESPACE, members)


def test_a_21_tags_are_replaced_as_a_whole(server, name, suspended):
    first, second = [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}], [{"Key": "b", "Value": "3"}]
    assert cli_control(server, "put-job-tagging", "--job-id", suspended, "--tags", json.dumps(first)) is None
    assert server.control.get_job_tagging(AccountId=ACCOUNT, JobId=suspended)["Tags"] == first
    answer = java(server, "PUT", f"/v20180820/jobs/{suspended}/tagging", java_tags(("b", "3")))
    assert (answer.status, answer.body) == (200, b"")
    assert server.control.get_job_tagging(AccountId=ACCOUNT, JobId=suspended)["Tags"] == second
    answer = java(server, "PUT", f"/v20180820/jobs/{suspended}/tagging", java_tags())
    assert server.control.get_job_tagging(AccountId=ACCOUNT, JobId=suspended)["Tags"] == []
    update_status(server, suspended, "Cancelled")


def test_a_22_tags_are_read_back(server, name, suspended):
    tags = [("department", "Marketing"), ("empty", "")]
    server.control.put_job_tagging(
        AccountId=ACCOUNT, JobId=suspended, Tags=[{"Key": key, "Value": value} for key, value in tags])
    assert cli_control(server, "get-job-tagging", "--job-id", suspended) == {
        "Tags": [{"Key": key, "Value": value} for key, value in tags]}
    answer = java(server, "GET", f"/v20180820/jobs/{suspended}/tagging")
    assert (answer.status, answer.root_name) == (200, "GetJobTaggingResult")
    assert list(zip(answer.texts("Tags/member/Key"), answer.texts("Tags/member/Value"))) == tags
    assert "Tags" not in server.describe(suspended), "DescribeJob shows none"
    update_status(server, suspended, "Cancelled")


def test_a_23_tags_are_deleted(server, name, suspended):
    tags = [{"Key": "a", "Value": "1"}]
    server.control.put_job_tagging(AccountId=ACCOUNT, JobId=suspended, Tags=tags)
    assert cli_control(server, "delete-job-tagging", "--job-id", suspended) is None
    assert cli_control(server, "get-job-tagging", "--job-id", suspended) == {"Tags": []}
    server.control.put_job_tagging(AccountId=ACCOUNT, JobId=suspended, Tags=tags)
    answer = java(server, "DELETE", f"/v20180820/jobs/{suspended}/tagging")
    assert (answer.status, answer.body) == (200, b"")
    assert server.control.get_job_tagging(AccountId=ACCOUNT, JobId=suspended)["Tags"] == []
    update_status(server, suspended, "Cancelled")


# --- operations on objects ---


def test_a_25_the_role_of_object_lock_jobs_is_accepted_and_the_jobs_are_refused(server, name):
    server.bucket(name)
    native(server, name, {"S3PutObjectLegalHold": {"LegalHold": {"Status": "ON"}}})
    told = acceptance.boto3_refused(
        server, name, {"LambdaInvoke": {"FunctionArn": NEVER_RUN}}, manifest=csv_manifest(name, "e"),
        RoleArn="arn:aws:iam::111122223333:role/longshore-batch")
    assert (told.status, told.code, told.message) == (403, "AccessDenied", "Cross-account pass role is not allowed")


def sample(section):
    """The JSON document that a section of the specification quotes from AWS's pages."""
    text = (ROOT / "docs/specification.md").read_text().partition(f"\n### {section} ")[2]
    return json.loads(text.partition("```json\n")[2].partition("```")[0])


@pytest.fixture(scope="module")
def eventful(tmp_path_factory):
    """A server that tells its events to two files, in the form of CloudTrail and of EventBridge, and to a consumer:
    (server, what the consumer found)."""
    found = []

    def consume(event, times):
        if event["detail"]["eventName"] == "JobStatusChanged" and details(event)["status"] == "Complete":
            described = server.control.describe_job(AccountId=ACCOUNT, JobId=details(event)["jobId"])["Job"]
            failed = described["ProgressSummary"]["NumberOfTasksFailed"]
            found.append((described["JobId"], described["Status"], failed, len(harness.read_report(server, described["JobId"], described))))
        return 200

    receiver = Receiver(secret=None, answer=consume)
    server = harness.Server(tmp_path_factory.mktemp("eventful"))
    server.data_dir.mkdir(mode=0o700)
    (server.data_dir / "longshore.toml").write_text(settings([
        {"name": "trail", "kind": "file", "path": "trail.jsonl", "format": "cloudtrail"},
        {"name": "bridge", "kind": "file", "path": "bridge.jsonl"},
        {"name": "consumer", "kind": "webhook", "url": f"http://127.0.0.1:{receiver.port}/"}]))
    server.start()
    yield server, found
    server.stop()
    receiver.close()


def events_of(server, file, job):
    """The events of a job that a file has, once its last one is there."""
    def told():
        path = server.data_dir / file
        events = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        events = [event for event in events if details(event)["jobId"] == job]
        return events if events and details(events[-1])["status"] in TERMINAL else None
    return wait_for("the event of the job's end", told)


def test_a_38_events_have_the_form_of_cloudtrail_and_eventbridge_and_awss_rule_matches_them(eventful, name):
    server, _ = eventful
    function = server.deploy(name, acceptance.ECHO)
    job = server.create_job(server.bucket(name), function, server.put_manifest(name, [(name, "k")]))
    server.wait(job, "Complete")
    trail, bridge = events_of(server, "trail.jsonl", job), events_of(server, "bridge.jsonl", job)
    record, envelope = sample("10.2"), sample("10.3")
    assert [details(event)["status"] for event in trail] == ["New", "Preparing", "Ready", "Active", "Completing", "Complete"]
    for ours, awss in [(event, record) for event in trail] + [(event["detail"], envelope["detail"]) for event in bridge]:
        assert list(ours) == list(awss), "the members of AWS's sample, in its order"
        assert list(details(ours)) == list(details(awss))
        same = ["eventVersion", "eventSource", "sourceIPAddress", "userAgent", "readOnly", "eventType"]
        assert {member: ours[member] for member in same} == {member: awss[member] for member in same}
        assert ours["eventName"] == ("JobCreated" if details(ours)["status"] == "New" else "JobStatusChanged")
        assert ours["userIdentity"] == {"accountId": ACCOUNT, "invokedBy": "s3.amazonaws.com"} and ours["awsRegion"] == REGION
        assert details(ours)["jobArn"] == f"arn:aws:s3:{REGION}:{ACCOUNT}:job/{job}"
        assert (details(ours)["failureCodes"], details(ours)["statusChangeReason"]) == ([], [])
        for date in (ours["eventTime"],):
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", date), "to the second"
    for event in bridge:
        assert list(event) == list(envelope)
        assert {member: event[member] for member in ("version", "detail-type", "source", "resources")} == {
            member: envelope[member] for member in ("version", "detail-type", "source", "resources")}
        assert matches(PATTERN, event)


def test_a_51_a_consumer_that_describes_a_job_at_its_last_event_finds_it_complete(eventful, name):
    server, found = eventful
    function = server.deploy(name, acceptance.ECHO)
    job = server.create_job(server.bucket(name), function, server.put_manifest(name, [(name, "a"), (name, "b")]))
    assert wait_for("the consumer", lambda: [entry for entry in found if entry[0] == job]) == [(job, "Complete", 0, 2)]


RETENTION = "<S3PutObjectRetention>{}<Retention>{}</Retention></S3PutObjectRetention>".format


def test_a_27_compliance_retention_is_refused_by_its_name(server, name):
    server.bucket(name)
    for until, date in (("2030-07-01T00:00:00Z", "2030-07-01T00:00:00.000Z"), ("2035-01-01T00:00:00Z", "2035-01-01T00:00:00.000Z")):
        native(server, name,
               {"S3PutObjectRetention": {"Retention": {"RetainUntilDate": until, "Mode": "COMPLIANCE"}}},
               java_operation=RETENTION("", f"<RetainUntilDate>{date}</RetainUntilDate><Mode>COMPLIANCE</Mode>"))
    for retention in ({"RetainUntilDate": "2020-07-01T00:00:00Z", "Mode": "COMPLIANCE"}, {"Mode": "COMPLIANCE"}):
        told = acceptance.boto3_refused(
            server, name, {"S3PutObjectRetention": {"Retention": retention}}, manifest=csv_manifest(name, "e"))
        assert (told.status, told.code) == (400, "InvalidRequest") and "RetainUntilDate" in told.message, told


def test_a_28_governance_retention_and_its_removal_are_refused_by_their_name(server, name):
    server.bucket(name)
    until = "<RetainUntilDate>2030-07-01T00:00:00.000Z</RetainUntilDate><Mode>GOVERNANCE</Mode>"
    native(server, name,
           {"S3PutObjectRetention": {"Retention": {"RetainUntilDate": "2030-07-01T00:00:00Z", "Mode": "GOVERNANCE"}}},
           java_operation=RETENTION("", until))
    bypass = "<BypassGovernanceRetention>true</BypassGovernanceRetention>"
    native(server, name, {"S3PutObjectRetention": {"BypassGovernanceRetention": True, "Retention": {}}},
           java_operation=RETENTION(bypass, ""))


def test_a_29_taking_off_a_legal_hold_is_refused_by_its_name(server, name):
    server.bucket(name)
    native(server, name, {"S3PutObjectLegalHold": {"LegalHold": {"Status": "OFF"}}},
           java_operation="<S3PutObjectLegalHold><LegalHold><Status>OFF</Status></LegalHold></S3PutObjectLegalHold>")


def test_a_30_replication_with_a_list_that_is_not_kept(server, name, echo):
    server.bucket(name)
    server.s3.put_object(Bucket=name, Key="k", Body=b"x")
    filters = {"EligibleForReplication": True, "ObjectReplicationStatuses": ["NONE", "FAILED"]}
    native(server, name, {"S3ReplicateObject": {}}, generator=generator_of(name, **filters))
    # A list that is not kept is described nowhere.
    job = server.control.create_job(
        AccountId=ACCOUNT, ConfirmationRequired=False, Operation={"LambdaInvoke": {"FunctionArn": echo}}, Priority=1,
        Report=report_in(server.bucket(name + "-out")), RoleArn=ROLE, ManifestGenerator=generator_of(name))["JobId"]
    described = server.wait(job, "Complete")
    assert set(named_rows(server, job, [(name, "k", "null")])) == {"k"}, "the version before versions"
    assert "GeneratedManifestDescriptor" not in described
    assert described["ManifestGenerator"]["S3JobManifestGenerator"]["EnableManifestOutput"] is False
    assert [entry["Key"] for entry in server.s3.list_objects_v2(Bucket=name)["Contents"]] == ["k"]


def test_a_31_versions_of_a_manifest_reach_the_task_and_replication_is_refused_by_its_name(server, name):
    function = server.deploy(name, acceptance.batch_function("""
        def work(job, bucket, key, version):
            return "Succeeded", version
    """))
    rows = [(server.bucket(name), "k", "v1"), (name, "k", "v2"), (name, "k", "null")]
    manifest = csv_manifest(name, server.put_manifest(name, rows), ("Bucket", "Key", "VersionId"))
    native(server, name, {"S3ReplicateObject": {}}, manifest=manifest, java_operation="<S3ReplicateObject/>")
    job = server.create_job(name, function, "-", Manifest=manifest)
    server.wait(job, "Complete")
    report = harness.audit(server, job, rows)
    assert sorted((row.version, row.message) for row in report) == [("null", "null"), ("v1", "v1"), ("v2", "v2")]


def test_a_32_replication_of_what_is_there_with_a_list_that_is_kept_is_refused_by_its_name(server, name):
    """The request behind the console's form: its list is kept, encrypted."""
    generator = generator_of(server.bucket(name), name, EligibleForReplication=True)
    generator["S3JobManifestGenerator"]["ManifestOutputLocation"]["ManifestEncryption"] = {"SSES3": {}}
    native(server, name, {"S3ReplicateObject": {}}, generator=generator)
    assert "Contents" not in server.s3.list_objects_v2(Bucket=name), "no list was written"


def test_a_33_a_copy_with_bucket_keys_from_an_inventory_is_refused_by_its_name(server, name):
    server.bucket(name)
    native(server, name, {"S3PutObjectCopy": {
        "TargetResource": f"arn:aws:s3:::{name}", "StorageClass": "STANDARD", "BucketKeyEnabled": True,
        "SSEAwsKmsKeyId": "arn:aws:kms:us-east-1:000000000000:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "NewObjectMetadata": {"SSEAlgorithm": "KMS"}}}, manifest=inventory_manifest(name, "69f52a4e9f797e987155d9c8f5880897"))


def test_a_34_a_copy_across_accounts_is_refused_by_its_name_and_a_role_of_another_account_always(server, name):
    server.bucket(name)
    copy = {"S3PutObjectCopy": {"TargetResource": f"arn:aws:s3:::{name}"}}
    native(server, name, copy)
    for operation in (copy, {"LambdaInvoke": {"FunctionArn": NEVER_RUN}}):
        told = acceptance.boto3_refused(
            server, name, operation, manifest=csv_manifest(name, "e"), RoleArn="arn:aws:iam::111122223333:role/longshore-batch")
        assert told.code in ("AccessDenied", "NotImplemented") and told.status in (403, 501)
    assert (told.code, told.message) == ("AccessDenied", "Cross-account pass role is not allowed")
    assert acceptance.jobs_described(server, name) == []


def test_a_35_a_copy_across_accounts_from_an_inventory_is_refused_by_its_name(server, name):
    server.bucket(name)
    copy = {"TargetResource": f"arn:aws:s3:::{name}", "CannedAccessControlList": "bucket-owner-full-control"}
    native(server, name, {"S3PutObjectCopy": copy}, manifest=inventory_manifest(name, "69f52a4e9f797e987155d9c8f5880897"))


def test_a_36_null_versions_from_a_query_result_are_read_quoted_and_a_header_is_a_task_that_fails(server, name):
    function = server.deploy(name, acceptance.batch_function("""
        import boto3
        s3 = boto3.client("s3")

        def work(job, bucket, key, version):
            try:
                return "Succeeded", s3.get_object(Bucket=bucket, Key=key, VersionId=version)["Body"].read().decode()
            except Exception as error:
                return "PermanentFailure", str(error)
    """), environment=harness.WITH_BOTO3, timeout=60)
    s3 = server.s3
    s3.put_object(Bucket=server.bucket(name), Key="before, quoted", Body=b"before versions")
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket=name, Key="before, quoted", Body=b"newer")
    version = s3.put_object(Bucket=name, Key="after", Body=b"after versions")["VersionId"]
    body = f'"bucket","key","version_id"\n"{name}","before%2C+quoted","null"\n"{name}","after","{version}"\n'
    fields = ("Bucket", "Key", "VersionId")
    job = server.create_job(name, function, server.put_manifest(name, body), fields=fields)
    server.wait(job, "Complete")
    report = named_rows(server, job, [("bucket", "key", "version_id"), (name, "before%2C+quoted", "null"), (name, "after", version)])
    assert (report["before%2C+quoted"].status, report["before%2C+quoted"].message) == ("succeeded", "before versions")
    assert (report["after"].status, report["after"].message) == ("succeeded", "after versions")
    assert (report["key"].bucket, report["key"].version, report["key"].status) == ("bucket", "version_id", "failed")
    assert "NoSuchBucket" in report["key"].message


def test_a_37_the_completion_report_has_the_form_of_the_examples(server, name):
    function = server.deploy(name, acceptance.batch_function("""
        import time

        def work(job, bucket, key, version):
            if key == "image_14975":
                time.sleep(3600)
            return "Succeeded", "{u'CopySourceVersionId': 'xVR78haVKlRnurYofbTfYr3ufYbktF8h', u'Retries': 0}"
    """), timeout=1)
    rows = [(server.bucket(name), "image_14975"), (name, "image_17775")]
    job = server.create_job(name, function, server.put_manifest(name, rows), Report={
        member: value for member, value in report_in(name).items() if member != "Prefix"})
    server.wait(job, "Complete")
    harness.audit(server, job, rows)
    text = server.s3.get_object(Bucket=name, Key=f"job-{job}/manifest.json")["Body"].read().decode()
    result = (r'\{"TaskExecutionStatus":"%s","Bucket":"%s","MD5Checksum":"[0-9a-f]{32}","Key":"job-%s/results/([0-9a-f]{40}\.csv)"\}')
    form = re.fullmatch(
        r'\{"Format":"Report_CSV_20180820","ReportCreationDate":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z","Results":\['
        + result % ("succeeded", name, job) + "," + result % ("failed", name, job)
        + r'\],"ReportSchema":"Bucket, Key, VersionId, TaskStatus, ErrorCode, HTTPStatusCode, ResultMessage"\}', text)
    assert form, text
    succeeded, failed = (
        server.s3.get_object(Bucket=name, Key=f"job-{job}/results/{file}")["Body"].read().decode() for file in form.groups())
    assert succeeded == (
        f"{name},image_17775,,succeeded,200,,\"{{u'CopySourceVersionId': 'xVR78haVKlRnurYofbTfYr3ufYbktF8h', u'Retries': 0}}\"\r\n")
    # What stands after the colon is Lambda's own, and has changed since the page was written.
    error = re.fullmatch(
        re.escape(f'{name},image_14975,,failed,200,PermanentFailure,"Lambda returned function error: ') + r'(\{.*\})"\r\n', failed)
    assert error, failed
    said = json.loads(error[1].replace('""', '"'))["errorMessage"]
    assert re.search(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12} .*Task timed out after 1\.00 seconds$", said), said


def test_a_39_videos_of_an_inventory_go_through_a_function_that_misspells_a_field(server, name):
    function = server.deploy(name, """
        import json, urllib.parse

        def handler(event, context):
            task = event["tasks"][0]
            key = urllib.parse.unquote(task["s3Key"], encoding="utf-8")
            source = "s3://" + task["s3BucketArn"].split(":")[-1] + "/" + key
            missing = key.endswith(".txt")
            return {
                "invocationSchemaVersion": event["invocationSchemaVersion"], "treatMissingKeyAs": "PermanentFailure",
                "invocationId": event["invocationId"],
                "results": [] if missing else [
                    {"taskId": task["taskId"], "resultCode": "Succeeded", "resultString": json.dumps({"input": source})}],
            }
    """)
    server.bucket(name)
    keys = ["input/video-1.mp4", "input/video%202.mp4"]
    key, etag = put_inventory(server, name, name, [(name, video) for video in keys], "Bucket, Key")
    job = server.create_job(name, function, "-", Manifest=inventory_manifest(name, etag, key), confirmation=True)
    server.wait(job, "Suspended")
    update_status(server, job, "Ready")
    server.wait(job, "Complete")
    report = named_rows(server, job, [(name, video) for video in keys])
    assert [json.loads(report[video].message)["input"] for video in keys] == [
        f"s3://{name}/input/video-1.mp4", f"s3://{name}/input/video 2.mp4"]


CHECKSUM = {"S3ComputeObjectChecksum": {"ChecksumAlgorithm": "CRC64NVME", "ChecksumType": "FULL_OBJECT"}}


def test_a_40_checksums_at_rest_are_asked_for_with_one_source_and_a_report(server, name):
    server.bucket(name)
    etag = server.put_manifest(name, [(name, "k")])
    # AWS's page passes both sources, against its own reference.
    code, message = cli_error(cli_create(
        server, "--description", name, "--no-confirmation-required", operation=CHECKSUM, check=False,
        report=report_in(name) | {"ExpectedBucketOwner": ACCOUNT}, manifest=csv_manifest(name, etag), generator=generator_of(name)))
    assert code == "InvalidRequest" and "ManifestGenerator" in message, message
    told = acceptance.boto3_refused(server, name, CHECKSUM, manifest=csv_manifest(name, etag), report={"Enabled": False})
    assert (told.status, told.code) == (400, "InvalidRequest") and "eport" in told.message, told
    native(server, name, CHECKSUM, java_operation="<S3ComputeObjectChecksum><ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm>"
           "<ChecksumType>FULL_OBJECT</ChecksumType></S3ComputeObjectChecksum>")
    native(server, name, CHECKSUM, generator=generator_of(name))


def test_a_41_encryption_in_bulk_is_refused_by_its_name(server, name):
    server.bucket(name)
    key = "arn:aws:kms:us-east-1:000000000000:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    native(server, name, {"S3UpdateObjectEncryption": {"ObjectEncryption": {"SSEKMS": {"KMSKeyArn": key, "BucketKeyEnabled": True}}}},
           java_operation="<S3UpdateObjectEncryption><ObjectEncryption><SSE-KMS>"
           f"<KMSKeyArn>{key}</KMSKeyArn><BucketKeyEnabled>true</BucketKeyEnabled></SSE-KMS></ObjectEncryption></S3UpdateObjectEncryption>")


def test_a_42_rows_of_a_directory_bucket_reach_the_function_and_its_manifest_and_report_lie_elsewhere(server, name):
    function = server.deploy(name, acceptance.batch_function("""
        def work(job, bucket, key, version):
            return "Succeeded", bucket
    """))
    directory = "objects--usw2-az1--x-s3"
    rows = [(directory, "k")]
    etag = server.put_manifest(server.bucket(name), rows)
    for schema in ("2.0", "1.0"):
        # AWS demands 2.0 of its users; a job of 1.0 is not refused.
        job = server.create_job(name, function, etag, schema=schema)
        server.wait(job, "Complete")
        assert [row.message for row in harness.audit(server, job, rows)] == [directory]
    invoke = {"LambdaInvoke": {"FunctionArn": function}}
    for broken in ({"manifest": csv_manifest(directory, etag)}, {"manifest": csv_manifest(name, etag), "report": report_in(directory)}):
        told = acceptance.boto3_refused(server, name, invoke, **broken)
        assert (told.status, told.code) == (400, "InvalidRequest"), told


def test_a_43_the_users_arguments_reach_the_function(server, name):
    function = server.deploy(name, acceptance.batch_function("""
        import boto3
        s3 = boto3.client("s3")

        def work(job, bucket, key, version):
            wanted = job["userArguments"]
            body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
            target = wanted["MyDestinationPrefix"] + key + wanted["MyDestinationObjectKeySuffix"]
            s3.put_object(Bucket=wanted["MyDestinationBucket"], Key=target, Body=body)
            return "Succeeded", wanted["MyDestinationBucketRegion"] + "/" + target
    """), environment=harness.WITH_BOTO3, timeout=60)
    server.s3.put_object(Bucket=server.bucket(name), Key="dataset.json", Body=b"{}")
    arguments = {"MyDestinationBucket": server.bucket(name + "-to"), "MyDestinationBucketRegion": REGION,
                 "MyDestinationPrefix": "exported/", "MyDestinationObjectKeySuffix": ".copy"}
    rows = [(name, "dataset.json")]
    job = cli_job(
        server, "--no-confirmation-required", report=report_in(name), manifest=csv_manifest(name, server.put_manifest(name, rows)),
        operation={"LambdaInvoke": {"FunctionArn": function, "InvocationSchemaVersion": "2.0", "UserArguments": arguments}})
    server.wait(job, "Complete")
    assert [row.message for row in harness.audit(server, job, rows)] == [f"{REGION}/exported/dataset.json.copy"]
    assert server.s3.get_object(Bucket=name + "-to", Key="exported/dataset.json.copy")["Body"].read() == b"{}"


def test_a_44_a_function_copies_in_parts_and_may_take_its_quarter_of_an_hour(server, name):
    function = server.deploy(name, acceptance.batch_function("""
        import math, os, time
        import boto3
        s3 = boto3.client("s3")
        PART = 5 << 20

        def work(job, bucket, key, version):
            size = s3.head_object(Bucket=bucket, Key=key)["ContentLength"]
            target = {"Bucket": os.environ["TARGET"], "Key": key}
            upload = s3.create_multipart_upload(**target)["UploadId"]
            parts = []
            for number in range(math.ceil(size / PART)):
                last = min(size, (number + 1) * PART) - 1
                copied = s3.upload_part_copy(
                    **target, UploadId=upload, PartNumber=number + 1, CopySource={"Bucket": bucket, "Key": key},
                    CopySourceRange=f"bytes={number * PART}-{last}")
                parts.append({"PartNumber": number + 1, "ETag": copied["CopyPartResult"]["ETag"]})
            s3.complete_multipart_upload(**target, UploadId=upload, MultipartUpload={"Parts": parts})
            # Longer than any time-out of seconds on the way to the function would allow.
            time.sleep(3)
            return "Succeeded", str(len(parts))
    """), environment=harness.WITH_BOTO3 | {"TARGET": server.bucket(name + "-to")}, timeout=900)
    body = bytes(range(256)) * 45_000
    server.s3.put_object(Bucket=server.bucket(name), Key="large", Body=body)
    job = server.create_job(name, function, server.put_manifest(name, [(name, "large")]))
    assert server.functions.get_function_configuration(FunctionName=name)["Timeout"] == 900
    server.wait(job, "Complete")
    assert [row.message for row in harness.audit(server, job, [(name, "large")])] == ["3"]
    copied = server.s3.get_object(Bucket=name + "-to", Key="large")
    assert copied["Body"].read() == body and copied["ETag"].endswith('-3"')


# --- programs around the API ---


def test_a_45_the_loops_of_the_troubleshooting_page_end(server, name, suspended):
    script = f"""
        for status in Suspended Failed; do
            aws s3control list-jobs --account-id {ACCOUNT} --job-statuses $status --query "Jobs[?JobId=='{suspended}'].Status" --output text
        done
        for attempt in 1 2 3 4 5; do
            echo "attempt $attempt"
            if aws s3control describe-job --account-id {ACCOUNT} --job-id {suspended} --query Job.Status --output text; then break; fi
        done
    """
    assert server.shell(script).stdout.split() == ["Suspended", "attempt", "1", "Suspended"]
    code, message = cli_error(server.aws(
        "s3control", "describe-job", "--account-id", ACCOUNT, "--job-id", str(uuid.uuid4()), check=False))
    assert (code, message) == ("NoSuchJob", "The specified job does not exist")
    for status in ("New Preparing Suspended Ready Active Pausing Paused Completing Complete Cancelling Cancelled Failing Failed").split():
        found = server.control.list_jobs(AccountId=ACCOUNT, JobStatuses=[status])["Jobs"]
        assert all(job["Status"] == status for job in found)
        assert (suspended in {job["JobId"] for job in found}) == (status == "Suspended")
    update_status(server, suspended, "Cancelled")


def test_a_46_the_basics_in_the_order_of_the_example_for_python(server, name, echo):
    s3, control = server.s3, server.control
    s3.create_bucket(Bucket=name)
    keys = [f"object-key-{number}.txt" for number in range(1, 5)]
    for key in keys:
        s3.put_object(Bucket=name, Key=key, Body=f"Content for {key}".encode())
    rows = [(name, key) for key in keys]
    etag = s3.put_object(Bucket=name, Key="job-manifest.csv", Body="".join(f"{name},{key}\n" for key in keys))["ETag"].strip('"')
    job = control.create_job(
        AccountId=ACCOUNT, Operation={"LambdaInvoke": {"FunctionArn": echo}}, Report=report_in(name, prefix="batch-op-reports"),
        Manifest=csv_manifest(name, etag, key="job-manifest.csv"), Priority=10, RoleArn=ROLE,
        Description="Batch job for tagging objects", ConfirmationRequired=True)["JobId"]
    for _ in range(600):
        status = control.describe_job(AccountId=ACCOUNT, JobId=job)["Job"]["Status"]
        if status in ("Suspended", "Ready"):
            break
        assert status in ("New", "Preparing")
        time.sleep(0.05)
    assert status == "Suspended"
    assert control.update_job_priority(AccountId=ACCOUNT, JobId=job, Priority=60)["Priority"] == 60
    answer = control.update_job_status(AccountId=ACCOUNT, JobId=job, RequestedJobStatus="Ready")
    assert (answer["JobId"], answer["Status"]) == (job, "Ready")
    server.wait(job, "Complete")
    told = refusal(control.update_job_status, AccountId=ACCOUNT, JobId=job, RequestedJobStatus="Cancelled")
    assert told.code == "InvalidRequest" and FORBIDDEN in told.message, "the job was faster than who cancels it"
    described = control.describe_job(AccountId=ACCOUNT, JobId=job)["Job"]
    assert (described["Priority"], described["Manifest"]["Location"]["ETag"]) == (60, etag)
    assert described["ProgressSummary"]["NumberOfTasksSucceeded"] == 4
    assert control.get_job_tagging(AccountId=ACCOUNT, JobId=job).get("Tags") == []
    tags = [{"Key": "Environment", "Value": "Development"}, {"Key": "Team", "Value": "DataProcessing"}]
    control.put_job_tagging(AccountId=ACCOUNT, JobId=job, Tags=tags)
    assert control.get_job_tagging(AccountId=ACCOUNT, JobId=job)["Tags"] == tags
    control.delete_job_tagging(AccountId=ACCOUNT, JobId=job)
    assert control.get_job_tagging(AccountId=ACCOUNT, JobId=job).get("Tags") == []
    assert job in {entry["JobId"] for entry in control.list_jobs(AccountId=ACCOUNT, JobStatuses=["Complete"])["Jobs"]}
    harness.audit(server, job, rows)


def test_a_48_answers_of_functions_in_the_wild_complete_their_job(server, name):
    function = server.deploy(name, """
        def handler(event, context):
            task = event["tasks"][0]
            result = {"taskId": task["taskId"], "resultCode": "Succeeded", "resultString": task["s3Key"]}
            four = {"invocationSchemaVersion": "1.0", "treatMissingKeysAs": "PermanentFailure",
                    "invocationId": event["invocationId"], "results": [result]}
            return {
                "four-fields": four,
                "extra-fields": four | {"resultCode": "PermanentFailure", "statusCode": 500, "body": {"a": []}},
                "extra-in-result": four | {"results": [result | {"taskStatus": "failed", "key": task["s3Key"]}]},
                "list-of-results": four | {"results": [{"taskId": "another", "resultCode": "PermanentFailure"}, result]},
                "no-ids": {"results": [result]},
                "another-invocation": four | {"invocationId": "of somebody else"},
            }[task["s3Key"]]
    """)
    cases = ["four-fields", "extra-fields", "extra-in-result", "list-of-results", "no-ids", "another-invocation"]
    rows = [(server.bucket(name), case) for case in cases]
    job = server.create_job(name, function + ":$LATEST", server.put_manifest(name, rows))
    server.wait(job, "Complete")
    report = named_rows(server, job, rows)
    assert {case: (report[case].status, report[case].message) for case in cases} == {case: ("succeeded", case) for case in cases}
    assert server.describe(job)["Operation"]["LambdaInvoke"]["FunctionArn"].endswith(":$LATEST"), "as it was given"


def test_a_49_a_job_without_confirmation_and_report_with_a_bare_etag(server, name, echo):
    server.put_manifest(server.bucket(name), [(name, "a"), (name, "b")])
    etag = json.loads(server.s3.head_object(Bucket=name, Key="manifest.csv")["ETag"])
    assert '"' not in etag
    job = server.control.create_job(
        AccountId=ACCOUNT, ConfirmationRequired=False, Operation={"LambdaInvoke": {"FunctionArn": echo}},
        Report={"Enabled": False}, Manifest=csv_manifest(name, etag), Priority=1, RoleArn=ROLE,
        ClientRequestToken=str(uuid.uuid4()))["JobId"]
    described = server.wait(job, "Complete")
    assert described["ProgressSummary"]["NumberOfTasksSucceeded"] == 2
    assert described["Report"] == {"Enabled": False} and described["Manifest"]["Location"]["ETag"] == etag
    assert [entry["Key"] for entry in server.s3.list_objects_v2(Bucket=name)["Contents"]] == ["manifest.csv"], "no report"


def test_a_50_the_arrival_of_an_inventory_starts_a_job(server, name):
    """What a function does that S3 calls when `manifest.checksum` arrives, and what the job's own function looks at."""
    function = server.deploy(name, """
        from urllib.parse import unquote_plus

        def handler(event, context):
            task = event["tasks"][0]
            bucket = task["s3BucketArn"].split(":::")[-1]
            version = "none" if task["s3VersionId"] is None else task["s3VersionId"]
            said = "/".join([bucket, unquote_plus(task["s3Key"]), version])
            return {"invocationSchemaVersion": "1.0", "treatMissingKeysAs": "PermanentFailure",
                    "invocationId": event["invocationId"],
                    "results": [{"taskId": task["taskId"], "resultCode": "Succeeded", "resultString": said}]}
    """)
    server.bucket(name)
    put_inventory(server, name, name, [(name, "a+b%2Bc"), (name, "d")], "Bucket, Key")
    [arrived] = [entry["Key"] for entry in server.s3.list_objects_v2(Bucket=name)["Contents"] if entry["Key"].endswith("manifest.checksum")]
    key = arrived.replace(".checksum", ".json")
    etag = server.s3.head_object(Bucket=name, Key=key)["ETag"]
    assert etag.startswith('"'), "quoted, as HeadObject has it"
    job = server.create_job(name, function, "-", Manifest=inventory_manifest(name, etag, key))
    server.wait(job, "Complete")
    report = named_rows(server, job, [(name, "a+b%2Bc"), (name, "d")])
    assert (report["a+b%2Bc"].message, report["d"].message) == (f"{name}/a b+c/none", f"{name}/d/none")


def test_a_52_a_program_asks_for_ready_until_it_is_not_forbidden_any_more(server, name, echo):
    # Long enough that the first request comes while it is read.
    rows = "".join(f"{name},k{number}\n" for number in range(100_000))
    job = server.create_job(server.bucket(name), echo, server.put_manifest(name, rows), report=False, confirmation=True)
    forbidden = 0
    while True:
        try:
            assert update_status(server, job, "Ready")["Status"] == "Ready"
            break
        except botocore.exceptions.ClientError as error:
            assert error.response["Error"]["Code"] == "InvalidRequest", error
            assert FORBIDDEN in error.response["Error"]["Message"], error
            forbidden += 1
            time.sleep(0.05)
    assert forbidden > 0, "a job that is not Suspended yet cannot be confirmed"
    update_status(server, job, "Cancelled")
    server.wait(job, "Cancelled")
