"""Beyond AWS: a sample first, an early start, and retries that keep the task IDs. Asked for with `longshore:` tags."""

import collections
import json
import urllib.error
import urllib.request

import botocore.auth
import botocore.awsrequest
import botocore.exceptions
import pytest

import harness
from harness import ACCOUNT

# Says what it was sent, and fails for keys that begin with `bad` until a file says that it is mended.
RECORD = """
    import os, time
    log = os.open(os.environ["INVOCATIONS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def handler(event, context):
        task = event["tasks"][0]
        os.write(log, f"{event['job']['id']} {task['s3Key']} {task['taskId']}\\n".encode())
        time.sleep(float(os.environ.get("SECONDS", "0")))
        good = not task["s3Key"].startswith("bad") or os.path.exists(os.environ["INVOCATIONS"] + ".mended")
        return {"invocationSchemaVersion": "1.0", "invocationId": event["invocationId"], "results": [
            {"taskId": task["taskId"], "resultCode": "Succeeded" if good else "PermanentFailure", "resultString": "r"}]}
"""


def tags(**wanted):
    return [{"Key": f"longshore:{key}", "Value": value} for key, value in wanted.items()]


class Log:
    """What the function has seen, kept outside of everything that the server keeps."""

    def __init__(self, path):
        self.path = path

    def read(self, job=None):
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        rows = [line.split() for line in lines if line.count(" ") == 2]
        return [(key, task) for of, key, task in rows if job in (None, of)]

    def keys(self, job=None):
        return collections.Counter(key for key, _ in self.read(job))


@pytest.fixture
def crashing(tmp_path):
    server = harness.Server(tmp_path, harness.UNCONFINED).start()
    yield server
    if server.process.poll() is None:
        server.stop()
    assert "panicked at" not in server.said()


@pytest.fixture
def log(tmp_path):
    return Log(tmp_path / "invocations")


def deploy(server, log, seconds="0"):
    return server.deploy("beyond", RECORD, environment={"INVOCATIONS": str(log.path), "SECONDS": seconds})


def kill(server):
    server.kill()
    server.start()


def confirm(server, job):
    answer = server.control.update_job_status(AccountId=ACCOUNT, JobId=job, RequestedJobStatus="Ready")
    assert answer["Status"] == "Ready"


def ours(server, path, account=ACCOUNT, signed=True):
    """Asks the API of our own beside AWS's, signed as everything else."""
    request = botocore.awsrequest.AWSRequest("GET", f"http://{server.address}{path}", headers={"x-amz-account-id": account})
    if signed:
        credentials = server.control._request_signer._credentials
        botocore.auth.S3SigV4Auth(credentials, "s3", harness.REGION).add_auth(request)
    plain = urllib.request.Request(request.url, headers=dict(request.headers))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return json.loads(opener.open(plain).read())


def results(server, job):
    progress = server.describe(job)["ProgressSummary"]
    return progress["NumberOfTasksSucceeded"] + progress["NumberOfTasksFailed"]


def test_a_sample_of_5_of_200_rows_runs_first_and_the_rest_once_it_is_promoted(crashing, log):
    server = crashing
    bucket, function = server.bucket("sample"), deploy(crashing, log)
    rows = [(bucket, f"key-{row:03}") for row in range(200)]
    job = server.create_job(bucket, function, server.put_manifest(bucket, rows), Tags=tags(sample="5"))
    described = server.wait(job, "Suspended")
    assert described["SuspendedCause"] == "AWAITING_PROMOTION"
    assert described["SuspendedDate"]
    progress = described["ProgressSummary"]
    assert (progress["TotalNumberOfTasks"], progress["NumberOfTasksSucceeded"]) == (200, 5)
    sampled = log.keys()
    assert len(sampled) == sum(sampled.values()) == 5
    assert ours(server, f"/_longshore/v1/jobs/{job}/results") == {
        "jobId": job, "status": "Suspended", "totalNumberOfTasks": 200, "numberOfTasksSucceeded": 5,
        "numberOfTasksFailed": 0, "failureGroups": [], "numberOfTasksInNoGroup": 0}
    for wrong in ({"signed": False}, {"account": "999999999999"}):
        with pytest.raises(urllib.error.HTTPError) as refused:
            ours(server, f"/_longshore/v1/jobs/{job}/results", **wrong)
        assert refused.value.code == 403
    assert server.control.get_job_tagging(AccountId=ACCOUNT, JobId=job)["Tags"] == tags(sample="5")
    kill(server)
    assert server.describe(job)["SuspendedCause"] == "AWAITING_PROMOTION", "a crash promotes nothing"
    assert log.keys() == sampled
    confirm(server, job)
    server.wait(job)
    assert len(harness.audit(server, job, rows, invoked=log.keys())) == 200
    assert all(times == 1 for times in log.keys().values()), "a sampled row was repeated"


def test_a_sample_goes_on_after_a_kill_with_the_rows_it_began_with(crashing, log):
    server = crashing
    bucket, function = server.bucket("killed"), deploy(crashing, log, "0.05")
    rows = [(bucket, f"key-{row:03}") for row in range(300)]
    job = server.create_job(bucket, function, server.put_manifest(bucket, rows), Tags=tags(sample="40"))
    for started in (10, 25):
        harness.wait_for(f"{started} tasks", lambda: len(log.keys()) >= started)
        kill(server)
    server.wait(job, "Suspended")
    assert len(log.keys()) == 40, "another sample was drawn"
    assert results(server, job) == 40


def test_a_sample_that_is_cancelled_is_reported(unconfined, name, tmp_path):
    server = unconfined
    log = Log(tmp_path / "invocations")
    function = server.deploy(name, RECORD, environment={"INVOCATIONS": str(log.path)})
    rows = [(name, f"bad-{row}") for row in range(100)]
    job = server.create_job(server.bucket(name), function, server.put_manifest(name, rows), Tags=tags(sample="7"))
    server.wait(job, "Suspended")
    [group] = ours(server, f"/_longshore/v1/jobs/{job}/results")["failureGroups"]
    assert group.pop("example")["key"] in log.keys()
    assert group == {
        "numberOfTasks": 7, "httpStatusCode": 200, "errorCode": "PermanentFailure", "resultMessage": "r"}
    server.control.update_job_status(AccountId=ACCOUNT, JobId=job, RequestedJobStatus="Cancelled")
    described = server.wait(job, "Cancelled")
    report = harness.read_report(server, job, described)
    assert {row.key for row in report} == set(log.keys()) and len(report) == 7


def test_a_confirmation_comes_before_a_sample_and_another_after_it(unconfined, name, tmp_path):
    server = unconfined
    log = Log(tmp_path / "invocations")
    function = server.deploy(name, RECORD, environment={"INVOCATIONS": str(log.path)})
    rows = [(name, f"key-{row}") for row in range(20)]
    etag = server.put_manifest(server.bucket(name), rows)
    job = server.create_job(name, function, etag, confirmation=True, Tags=tags(sample="3"))
    assert server.wait(job, "Suspended")["SuspendedCause"] == "AWAITING_CONFIRMATION"
    assert not log.read()
    confirm(server, job)
    harness.wait_for("the sample", lambda: server.describe(job)["SuspendedCause"] == "AWAITING_PROMOTION")
    assert len(log.read()) == 3
    confirm(server, job)
    server.wait(job)
    harness.audit(server, job, rows, invoked=log.keys())


# Rows of some 900 bytes: to check them all takes longer than to start the first tasks.
BIG = 60_000


def test_a_job_that_starts_early_survives_kills_and_reports_every_row_once(crashing, log):
    server = crashing
    bucket, function = server.bucket("early"), deploy(crashing, log, "0.002")
    rows = [(bucket, f"key-{row:05}") for row in range(3_000)]
    etag = server.put_manifest(bucket, rows)
    job = server.create_job(bucket, function, etag, Tags=tags(start="while-preparing"))
    total = 0
    for started in (20, 600, 1_500):
        harness.wait_for(f"{started} tasks", lambda: len(log.keys()) >= started, 120)
        kill(server)
        progress = server.describe(job)["ProgressSummary"]
        assert progress["TotalNumberOfTasks"] >= max(total, results(server, job)), "a count went back"
        total = progress["TotalNumberOfTasks"]
    described = server.wait(job, timeout=240)
    assert described["ProgressSummary"]["TotalNumberOfTasks"] == 3_000
    harness.audit(server, job, rows, invoked=log.keys())
    by_key = collections.defaultdict(set)
    for key, task in log.read():
        by_key[key].add(task)
    assert all(len(ids) == 1 for ids in by_key.values())


def test_a_bad_row_that_is_found_late_fails_an_early_job_and_what_ran_is_reported(unconfined, name, tmp_path):
    server = unconfined
    log = Log(tmp_path / "invocations")
    function = server.deploy(name, RECORD, environment={"INVOCATIONS": str(log.path)})
    # The function is warm, so that no start of a process stands between the first rows and the last one.
    event = {"job": {"id": "warm"}, "invocationId": "i", "tasks": [{"taskId": "t", "s3Key": "k"}]}
    server.functions.invoke(FunctionName=name, Payload=json.dumps(event))
    filler = "x" * 880
    body = "".join(f"{name},key-{row:06}-{filler}\n" for row in range(BIG)) + f"{name},100%.txt\n"
    etag = server.put_manifest(server.bucket(name), body)
    job = server.create_job(name, function, etag, Tags=tags(start="while-preparing"))
    described = server.wait(job, "Failed")
    failure, detail = described["FailureReasons"]
    assert failure == {"FailureCode": "InvalidManifestContent", "FailureReason": "Invalid object key format"}
    assert detail["FailureReason"].startswith(f"Row {BIG + 1}: ")
    progress = described["ProgressSummary"]
    assert 0 < progress["TotalNumberOfTasks"] <= BIG
    ran = log.keys(job)
    assert ran, "no task started before the manifest was checked"
    report = harness.read_report(server, job, described)
    assert {row.key for row in report} == set(ran)
    assert len(report) == progress["NumberOfTasksSucceeded"] + progress["NumberOfTasksFailed"]


def retry(server, bucket, function, job, **wanted):
    manifest = f"reports/job-{job}/manifest.json"
    etag = server.s3.head_object(Bucket=bucket, Key=manifest)["ETag"]
    return server.create_job(bucket, function, etag, Tags=tags(**wanted), Manifest={
        "Spec": {"Format": "Report_CSV_20180820"},
        "Location": {"ObjectArn": f"arn:aws:s3:::{bucket}/{manifest}", "ETag": etag},
    })


def test_a_retry_of_a_retry_runs_what_failed_with_the_task_ids_that_the_function_knows(crashing, log):
    server = crashing
    bucket, function = server.bucket("retries"), deploy(crashing, log, "0.02")
    rows = [(bucket, f"bad-{row:03}" if row % 7 == 3 else f"key-{row:03}") for row in range(200)]
    first = server.create_job(bucket, function, server.put_manifest(bucket, rows))
    server.wait(first)
    ids = {key: task for key, task in log.read(first)}
    failed = {key: task for key, task in ids.items() if key.startswith("bad")}
    assert len(log.read(first)) == len(ids) == 200 and len(set(ids.values())) == 200 and len(failed) == 29

    second = retry(server, bucket, function, first)
    harness.wait_for("some tasks of the retry", lambda: len(log.keys(second)) >= 8)
    kill(server)
    described = server.wait(second)
    assert described["Manifest"]["Spec"] == {"Format": "Report_CSV_20180820"}
    assert described["ProgressSummary"]["NumberOfTasksFailed"] == 29
    assert set(log.read(second)) == set(failed.items()), "the IDs are those of the first job, across a crash as well"

    log.path.with_name(log.path.name + ".mended").touch()
    third = retry(server, bucket, function, second, rows="failed")
    described = server.wait(third)
    assert described["ProgressSummary"]["NumberOfTasksSucceeded"] == 29
    assert set(log.read(third)) == set(failed.items())

    everything = retry(server, bucket, function, first, rows="all")
    server.wait(everything)
    assert set(log.read(everything)) == set(ids.items())
    report = harness.audit(server, everything, rows, invoked=log.keys(everything))
    assert len(report) == 200


def test_versions_come_out_of_a_report_as_they_were(unconfined, name, tmp_path):
    server = unconfined
    log = Log(tmp_path / "invocations")
    function = server.deploy(name, RECORD, environment={"INVOCATIONS": str(log.path)})
    rows = [(name, "bad-1", "v1"), (name, "bad-2", ""), (name, "bad-3", "null")]
    etag = server.put_manifest(server.bucket(name), rows)
    first = server.create_job(name, function, etag, fields=("Bucket", "Key", "VersionId"))
    before = sorted(map(repr, harness.read_report(server, first, server.wait(first))))
    second = retry(server, name, function, first)
    after = sorted(map(repr, harness.read_report(server, second, server.wait(second))))
    assert after == before and len(after) == 3
    assert set(log.keys(second)) == {"bad-1", "bad-3"}, "a row without its version still fails by itself"


def test_a_report_whose_rows_were_changed_is_refused(unconfined, name, tmp_path):
    server = unconfined
    function = server.deploy(name, RECORD, environment={"INVOCATIONS": str(tmp_path / "invocations")})
    first = server.create_job(server.bucket(name), function, server.put_manifest(name, [(name, "bad-1")]))
    server.wait(first)
    manifest = server.s3.get_object(Bucket=name, Key=f"reports/job-{first}/manifest.json")["Body"].read()
    part = json.loads(manifest)["Results"][0]["Key"]
    body = server.s3.get_object(Bucket=name, Key=part)["Body"].read()
    server.s3.put_object(Bucket=name, Key=part, Body=body.replace(b"bad-1", b"bad-2"))
    described = server.wait(retry(server, name, function, first), "Failed")
    failure = described["FailureReasons"][0]
    assert failure["FailureCode"] == "InvalidManifestContent"
    assert failure["FailureReason"].startswith("The MD5 of the completion report's")


@pytest.mark.parametrize("wanted, more, message", [
    ({"samples": "5"}, {}, "longshore:samples is not known"),
    ({"sample": "0"}, {}, "1 to 1000000"),
    ({"sample": "1000001"}, {}, "1 to 1000000"),
    ({"start": "now"}, {}, "must be while-preparing"),
    ({"start": "while-preparing", "sample": "5"}, {}, "exclude one another"),
    ({"start": "while-preparing"}, {"confirmation": True}, "needs ConfirmationRequired to be false"),
    ({"rows": "all"}, {}, "needs a completion report"),
], ids=lambda value: None)
def test_a_wish_that_cannot_be_met_is_refused(server, name, wanted, more, message):
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        server.create_job(name, f"arn:aws:lambda:{harness.REGION}:{ACCOUNT}:function:f", "e", Tags=tags(**wanted), **more)
    error = refused.value.response
    assert (error["ResponseMetadata"]["HTTPStatusCode"], error["Error"]["Code"]) == (400, "InvalidRequest")
    assert message in error["Error"]["Message"]


def test_tags_that_are_put_later_change_nothing_of_a_job(unconfined, name, tmp_path):
    server = unconfined
    log = Log(tmp_path / "invocations")
    function = server.deploy(name, RECORD, environment={"INVOCATIONS": str(log.path)})
    rows = [(name, f"key-{row}") for row in range(20)]
    job = server.create_job(server.bucket(name), function, server.put_manifest(name, rows), confirmation=True)
    server.wait(job, "Suspended")
    server.control.put_job_tagging(AccountId=ACCOUNT, JobId=job, Tags=tags(sample="3"))
    confirm(server, job)
    server.wait(job, "Complete")
    assert len(log.keys()) == 20
