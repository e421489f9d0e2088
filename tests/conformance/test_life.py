"""The life of jobs as AWS's clients see it where jobs compete: one slot, priorities, and a bound on how many are kept."""

import botocore.exceptions
import pytest

import harness
from harness import ACCOUNT
from test_events import own

WAIT = """
    import os, pathlib, time

    def handler(event, context):
        task = event["tasks"][0]
        while task["s3Key"].startswith("held") and not pathlib.Path(os.environ["GO"]).exists():
            time.sleep(0.02)
        return {"invocationSchemaVersion": "1.0", "treatMissingKeysAs": "PermanentFailure",
                "invocationId": event["invocationId"],
                "results": [{"taskId": task["taskId"], "resultCode": "Succeeded", "resultString": ""}]}
"""


@pytest.fixture
def start(tmp_path):
    servers = []

    def start(**settings):
        said = {f"LONGSHORE_JOBS_{name.upper()}": str(v) for name, v in settings.items()}
        server = harness.Server(tmp_path, harness.UNCONFINED | said)
        servers.append(server.start())
        return server

    yield start
    for server in servers:
        server.stop()
        assert "panicked at" not in server.said()


def statuses(server, job):
    status, answer = own(server, f"/_longshore/v1/jobs/{job}/events")
    assert status == 200, answer
    return [event["status"] for event in answer["events"]]


def test_with_one_slot_a_higher_priority_pauses_a_running_job_which_goes_on_afterwards(start, name, tmp_path):
    server = start(active_max=1)
    bucket, go = server.bucket(name), tmp_path / "go"
    function = server.deploy(name, WAIT, environment={"GO": str(go)})
    rows = [(bucket, f"held-{n}") for n in range(40)]
    held = server.put_manifest(bucket, rows, key="held.csv")
    quick = server.put_manifest(bucket, [(bucket, "quick")], key="quick.csv")
    low = server.create_job(bucket, function, held, key="held.csv")
    server.wait(low, until="Active")
    equal = server.create_job(bucket, function, quick, key="quick.csv")
    server.wait(equal, until="Ready")
    high = server.create_job(bucket, function, quick, key="quick.csv", Priority=11)
    server.wait(low, until="Pausing")
    assert server.describe(high)["Status"] == "Ready", "the slot is free once what runs has ended"
    go.touch()
    for job in (high, low, equal):
        server.wait(job)
    harness.audit(server, low, rows)
    assert statuses(server, low) == [
        "New", "Preparing", "Ready", "Active", "Pausing", "Paused", "Active", "Completing", "Complete"]
    # What was paused comes before what has waited in Ready at the same priority.
    assert server.describe(low)["TerminationDate"] < server.describe(equal)["TerminationDate"]
    assert statuses(server, equal) == ["New", "Preparing", "Ready", "Active", "Completing", "Complete"]


def test_jobs_beyond_the_limit_are_gone_for_every_operation_and_their_reports_stay(start, name):
    server = start(retained_max=2)
    bucket = server.bucket(name)
    function = server.deploy(name, WAIT, environment={"GO": "nowhere"})
    etag = server.put_manifest(bucket, [(bucket, "a")])
    jobs = []
    for _ in range(4):
        jobs.append(server.create_job(bucket, function, etag))
        server.wait(jobs[-1])
    listed = lambda: [job["JobId"] for job in server.control.list_jobs(AccountId=ACCOUNT)["Jobs"]]
    harness.wait_for("the removal of the oldest", lambda: listed() == jobs[:1:-1])
    for call in (
        lambda job: server.control.describe_job(AccountId=ACCOUNT, JobId=job),
        lambda job: server.control.get_job_tagging(AccountId=ACCOUNT, JobId=job),
        lambda job: server.control.update_job_priority(AccountId=ACCOUNT, JobId=job, Priority=1),
        lambda job: server.control.update_job_status(AccountId=ACCOUNT, JobId=job, RequestedJobStatus="Cancelled"),
    ):
        with pytest.raises(botocore.exceptions.ClientError) as refused:
            call(jobs[0])
        assert refused.value.response["Error"]["Code"] == "NoSuchJob"
    assert own(server, f"/_longshore/v1/jobs/{jobs[0]}/events")[1]["code"] == "NoSuchJob"
    assert not (server.data_dir / "jobs" / jobs[0]).exists()
    assert (server.data_dir / "jobs" / jobs[3]).exists()
    kept = server.s3.list_objects_v2(Bucket=bucket, Prefix=f"reports/job-{jobs[0]}/")
    assert kept["KeyCount"] == 3, "manifest.json, its MD5, and the rows"
