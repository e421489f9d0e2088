"""Rules of the specification that neither a scenario nor a gotcha shows, as clients see them."""

import datetime
import gzip
import json
import urllib.parse

import pytest

import acceptance
import harness
from acceptance import csv_manifest, inventory_manifest, named_rows, put_inventory, quoted, report_in, update_status
from harness import ACCOUNT, ROLE, wait_for


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


def test_the_time_in_active_grows_while_a_job_runs_and_not_while_it_waits(server, name, echo, tmp_path):
    """One job waits for its confirmation while another one runs for two seconds."""
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


def test_a_version_of_the_manifest_is_read_where_one_is_named(server, name, echo):
    server.s3.put_bucket_versioning(Bucket=server.bucket(name), VersioningConfiguration={"Status": "Enabled"})
    first = server.s3.put_object(Bucket=name, Key="manifest.csv", Body=f"{name},first\n".encode())
    server.s3.put_object(Bucket=name, Key="manifest.csv", Body=f"{name},second\n".encode())
    manifest = csv_manifest(name, first["ETag"])
    manifest["Location"]["ObjectVersionId"] = first["VersionId"]
    job = server.create_job(name, echo, "-", Manifest=manifest)
    described = server.wait(job, "Complete")
    assert described["Manifest"] == manifest
    harness.audit(server, job, [(name, "first")])
    manifest["Location"]["ObjectVersionId"] = "no-such-version"
    job = server.create_job(name, echo, "-", Manifest=manifest)
    assert server.wait(job, "Failed")["FailureReasons"][0]["FailureCode"] == "ManifestNotFound"


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


# --- inventories ---


def inventory_job(server, name, function, key, etag):
    return server.create_job(name, function, "-", Manifest=inventory_manifest(name, etag, key))


def test_the_data_files_of_an_inventory_are_packed_or_plain_whatever_they_are_called(server, name, echo):
    server.bucket(name)
    files = [gzip.compress(quoted([(name, "packed/1"), (name, "packed/2")])), quoted([(name, "plain/1")])]
    job = inventory_job(server, name, echo, *put_inventory(server, name, name, [], "Bucket, Key", data=files))
    server.wait(job, "Complete")
    assert set(named_rows(server, job, [(name, "packed/1"), (name, "packed/2"), (name, "plain/1")])) == {
        "packed/1", "packed/2", "plain/1"}


def test_a_data_file_that_is_not_what_the_inventory_says_fails_the_job(server, name, echo):
    server.bucket(name)
    wrong = put_inventory(server, name, name, [(name, "k")], "Bucket, Key", md5="0" * 32)
    key, etag = put_inventory(server, name, name, [(name, "k")], "Bucket, Key", created="2016-11-07T21-32Z")
    [file] = json.loads(server.s3.get_object(Bucket=name, Key=key)["Body"].read())["files"]
    server.s3.delete_object(Bucket=name, Key=file["key"])
    for key, etag in (wrong, (key, etag)):
        job = inventory_job(server, name, echo, key, etag)
        [failure] = server.wait(job, "Failed", timeout=60)["FailureReasons"]
        assert failure["FailureCode"] == "InvalidManifestContent"
        assert failure["FailureReason"].startswith("Invalid Manifest Content"), failure


def test_an_inventory_gives_its_versions_and_its_delete_markers_and_empty_versions_fail_alone(server, name, echo):
    server.bucket(name)
    rows = [(name, "k", "v1", "true", "false"), (name, "marked", "v2", "true", "true"), (name, "before", "", "true", "false")]
    job = inventory_job(
        server, name, echo, *put_inventory(server, name, name, rows, "Bucket, Key, VersionId, IsLatest, IsDeleteMarker"))
    server.wait(job, "Complete")
    report = named_rows(server, job, [(name, "k", "v1"), (name, "marked", "v2"), (name, "before", "\\N")])
    assert {key: row.status for key, row in report.items()} == {"k": "succeeded", "marked": "succeeded", "before": "failed"}
    assert report["before"].message == "Task failed due to missing VersionId"


@pytest.mark.parametrize("schema, rows, reason", [
    ("Bucket, Size", [("b", "3")], "Required fields are missing in the schema: Key"),
    ("Bucket, Key", [("b", "k", "more")], "Unexpected number of task fields"),
    ("Bucket, Key", [], None),
], ids=["no-key", "another-width", "no-rows"])
def test_an_inventory_that_cannot_be_used_fails_the_job(server, name, echo, schema, rows, reason):
    server.bucket(name)
    files = None if rows else []
    job = inventory_job(server, name, echo, *put_inventory(server, name, name, rows, schema, data=files))
    [failure] = server.wait(job, "Failed", timeout=60)["FailureReasons"]
    assert failure["FailureCode"] == "InvalidManifestContent"
    assert failure["FailureReason"].startswith(reason or ""), failure


# --- generated manifests ---


def generated(server, name, function, generator, until="Complete"):
    """Runs a job over a generated manifest. Returns its description."""
    job = server.control.create_job(
        AccountId=ACCOUNT, ConfirmationRequired=False, Operation={"LambdaInvoke": {"FunctionArn": function}}, Priority=1,
        Report=report_in(name + "-out"), RoleArn=ROLE, ManifestGenerator=generator)["JobId"]
    return server.wait(job, until)


def test_each_filter_of_a_generator_takes_its_objects_and_all_have_to_fit(server, name, echo):
    s3 = server.s3
    server.bucket(name), server.bucket(name + "-out")
    s3.put_object(Bucket=name, Key="logs/2024/a b.txt", Body=b"123")
    s3.put_object(Bucket=name, Key="logs/2025/c.txt", Body=b"12345", StorageClass="STANDARD_IA")
    s3.put_object(Bucket=name, Key="other/2025/d.bin", Body=b"1234567")
    born = s3.head_object(Bucket=name, Key="logs/2024/a b.txt")["LastModified"]
    long_ago, tomorrow = born - datetime.timedelta(days=1), born + datetime.timedelta(days=1)
    for filter, taken in [
        ({}, {"a b", "c", "d"}),
        ({"CreatedAfter": long_ago, "CreatedBefore": tomorrow}, {"a b", "c", "d"}),
        ({"CreatedBefore": long_ago}, set()),
        ({"CreatedAfter": tomorrow}, set()),
        ({"ObjectSizeGreaterThanBytes": 3}, {"c", "d"}),
        ({"ObjectSizeLessThanBytes": 5}, {"a b"}),
        ({"MatchAnyStorageClass": ["STANDARD_IA", "GLACIER"]}, {"c"}),
        ({"MatchAnyObjectEncryption": [{"SSEC": {}}]}, set()),
        ({"MatchAnyObjectEncryption": [{"NOTSSE": {}}]}, {"a b", "c", "d"}),
        ({"KeyNameConstraint": {"MatchAnyPrefix": ["logs/"], "MatchAnySuffix": [".txt"], "MatchAnySubstring": ["/2024/a b"]}}, {"a b"}),
        ({"KeyNameConstraint": {"MatchAnySubstring": ["2025"]}, "ObjectSizeGreaterThanBytes": 5}, {"d"}),
        ({"ObjectReplicationStatuses": ["NONE"]}, {"a b", "c", "d"}),
        ({"ObjectReplicationStatuses": ["FAILED", "COMPLETED"]}, set()),
    ]:
        described = generated(server, name, echo, acceptance.generator_of(name, **filter), "Complete" if taken else "Failed")
        if taken:
            rows = harness.read_report(server, described["JobId"], described)
            assert {urllib.parse.unquote(row.key).split("/")[-1].split(".")[0] for row in rows} == taken, filter
        else:
            assert described["FailureReasons"][0]["FailureReason"].startswith("Manifest generation found no keys"), filter


def test_current_versions_alone_are_listed_unless_replication_is_asked_for(server, name, echo):
    s3 = server.s3
    server.bucket(name + "-out")
    s3.put_bucket_versioning(Bucket=server.bucket(name), VersioningConfiguration={"Status": "Enabled"})
    old, new = (s3.put_object(Bucket=name, Key="k", Body=body)["VersionId"] for body in (b"old", b"new"))
    s3.put_object(Bucket=name, Key="deleted", Body=b"x")
    s3.delete_object(Bucket=name, Key="deleted")
    described = generated(server, name, echo, acceptance.generator_of(name))
    assert [row.version for row in harness.read_report(server, described["JobId"], described)] == [new]
    described = generated(server, name, echo, acceptance.generator_of(name, ObjectReplicationStatuses=["NONE"]))
    versions = [row.version for row in harness.read_report(server, described["JobId"], described) if row.key == "k"]
    assert sorted(versions) == sorted([old, new])


def test_a_generated_list_is_an_inventory_that_can_be_used_again(server, name, echo):
    server.bucket(name)
    for key in ("a b", "a+b", "ü/%"):
        server.s3.put_object(Bucket=name, Key=key, Body=b"x")
    described = generated(server, name, echo, acceptance.generator_of(name, server.bucket(name + "-out")))
    location = described["GeneratedManifestDescriptor"]["Location"]
    bucket, _, key = location["ObjectArn"].removeprefix("arn:aws:s3:::").partition("/")
    assert key == f"lists/{described['JobId']}/manifest.json"
    manifest = json.loads(server.s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    assert (manifest["fileSchema"], manifest["fileFormat"], manifest["sourceBucket"]) == ("Bucket, Key, VersionId", "CSV", name)
    [file] = manifest["files"]
    assert file["key"].startswith(f"lists/{described['JobId']}/data/") and file["key"].endswith(".csv.gz")
    again = server.create_job(bucket, echo, "-", Manifest=inventory_manifest(bucket, location["ETag"], key))
    server.wait(again, "Complete")
    report = named_rows(server, again, [(name, key, "null") for key in ("a%20b", "a%2Bb", "%C3%BC/%25")])
    assert {row.status for row in report.values()} == {"succeeded"}


@pytest.mark.parametrize("break_it, code", [
    (lambda generator, name: generator.update(ExpectedBucketOwner="111122223333"), None),
    (lambda generator, name: generator["ManifestOutputLocation"].update(ExpectedManifestBucketOwner="111122223333"), None),
    (lambda generator, name: generator["ManifestOutputLocation"].update(Bucket=f"arn:aws:s3:::{name}-nowhere"), "ManifestOutputFailed"),
    (lambda generator, name: generator.update(Filter={"EligibleForReplication": True}), "ReplicationRulesUnknown"),
], ids=["owner", "output-owner", "no-output-bucket", "replication-rules"])
def test_a_generator_that_cannot_do_as_it_is_asked_fails_the_job(server, name, echo, break_it, code):
    server.s3.put_object(Bucket=server.bucket(name), Key="k", Body=b"x")
    generator = acceptance.generator_of(name, server.bucket(name + "-out"))
    break_it(generator["S3JobManifestGenerator"], name)
    described = generated(server, name, echo, generator, "Failed")
    [failure] = described["FailureReasons"]
    assert failure["FailureReason"] and (code is None or failure["FailureCode"] == code), failure
    if code == "ManifestOutputFailed":
        assert failure["FailureReason"].startswith("Error occurred when preparing manifest: Failed to write manifest")
    assert "GeneratedManifestDescriptor" not in described
    assert "Contents" not in server.s3.list_objects_v2(Bucket=name + "-out"), "neither list nor report"
