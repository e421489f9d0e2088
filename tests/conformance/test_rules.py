"""Rules of the specification that neither a scenario nor a gotcha shows, as clients see them."""

import pytest

import acceptance
import harness
from acceptance import report_in, update_status
from harness import wait_for


@pytest.fixture(scope="module")
def echo(server):
    return server.deploy("rules-echo", acceptance.ECHO)


def test_a_manifest_of_more_rows_than_are_allowed_fails_the_job_in_awss_words(tmp_path):
    server = harness.Server(tmp_path, {"LONGSHORE_JOBS_ROWS_MAX": "5"}).start()
    try:
        function = server.deploy("echo", acceptance.ECHO)
        bucket = server.bucket("rows")
        rows = [(bucket, f"k{number}") for number in range(6)]
        job = server.create_job(bucket, function, server.put_manifest(bucket, rows))
        [failure] = server.wait(job, "Failed")["FailureReasons"]
        assert failure["FailureCode"] == "InvalidManifestContent"
        assert failure["FailureReason"] == (
            "The S3 Batch Operations job failed because it contains more keys than the maximum allowed in a single job")
        job = server.create_job(bucket, function, server.put_manifest(bucket, rows[:5]))
        server.wait(job, "Complete")
        harness.audit(server, job, rows[:5])
    finally:
        server.stop()


def test_the_time_in_active_grows_while_a_job_runs_and_not_while_it_waits(unconfined, name, tmp_path):
    """One job waits for its confirmation while another one runs for two seconds."""
    server = unconfined
    echo = server.deploy(name + "-echo", acceptance.ECHO)
    gate = tmp_path / "gate"
    gated = server.deploy(name, acceptance.GATED, environment={"GATE": str(gate)})
    etag = server.put_manifest(server.bucket(name), [(name, "k")])

    def active_seconds(job):
        return server.describe(job)["ProgressSummary"]["Timers"]["ElapsedTimeInActiveSeconds"]

    waits = server.create_job(name, echo, etag, confirmation=True)
    server.wait(waits, "Suspended")
    runs = server.create_job(name, gated, etag)
    server.wait(runs, "Active")
    wait_for("two seconds in Active", lambda: active_seconds(runs) >= 2)
    gate.touch()
    described = server.wait(runs, "Complete")
    elapsed = described["ProgressSummary"]["Timers"]["ElapsedTimeInActiveSeconds"]
    lived = (described["TerminationDate"] - described["CreationTime"]).total_seconds()
    assert 2 <= elapsed <= lived
    assert active_seconds(waits) == 0
    update_status(server, waits, "Ready")
    described = server.wait(waits, "Complete")
    lived = (described["TerminationDate"] - described["CreationTime"]).total_seconds()
    assert lived > 2 and described["ProgressSummary"]["Timers"]["ElapsedTimeInActiveSeconds"] < lived - 1, "the wait does not count"


def test_manifest_objects_and_report_may_lie_in_three_buckets(server, name, echo):
    objects, manifests, reports = (server.bucket(f"{name}-{which}") for which in ("o", "m", "r"))
    rows = [(objects, "k1"), (objects, "k2")]
    etag = server.put_manifest(manifests, rows)
    job = server.create_job(manifests, echo, etag, Report=report_in(reports))
    server.wait(job, "Complete")
    harness.audit(server, job, rows)
    listed = {bucket: server.s3.list_objects_v2(Bucket=bucket)["KeyCount"] for bucket in (objects, manifests, reports)}
    assert listed == {objects: 0, manifests: 1, reports: 3}


def test_a_function_is_called_without_a_client_context(server, name):
    function = server.deploy(name, """
        def handler(event, context):
            task = event["tasks"][0]
            return {"invocationSchemaVersion": "1.0", "invocationId": event["invocationId"], "results": [
                {"taskId": task["taskId"], "resultCode": "Succeeded", "resultString": repr(context.client_context)}]}
    """)
    rows = [(server.bucket(name), "k")]
    job = server.create_job(name, function, server.put_manifest(name, rows))
    server.wait(job, "Complete")
    assert [row.message for row in harness.audit(server, job, rows)] == ["None"]


def test_a_report_is_stored_without_encryption(server, name, echo):
    job = server.create_job(server.bucket(name), echo, server.put_manifest(name, [(name, "k")]))
    server.wait(job, "Complete")
    for entry in server.s3.list_objects_v2(Bucket=name, Prefix="reports/")["Contents"]:
        assert "ServerSideEncryption" not in server.s3.head_object(Bucket=name, Key=entry["Key"])
