"""Manifests, good and bad: how keys are read, and in which words a job fails that has no proper manifest."""

import gzip

import pytest

import harness

FORM = "Manifest file is not properly formatted"

ECHO = """
    def handler(event, context):
        task = event["tasks"][0]
        return {"invocationSchemaVersion": "1.0", "invocationId": "i", "results": [
            {"taskId": task["taskId"], "resultCode": "Succeeded",
             "resultString": task["s3Key"] + "|" + str(task["s3VersionId"])}]}
"""


@pytest.fixture(scope="module")
def echo(server):
    return server.deploy("manifests-echo", ECHO)


@pytest.mark.parametrize("body, fields, code, reason", [
    ("b,k,v\n", ("Bucket", "Key"), "InvalidManifestContent", "Unexpected number of task fields"),
    ("b,k\nb\n", ("Bucket", "Key"), "InvalidManifestContent", "Unexpected number of task fields"),
    ("b,k\n\nb,k\n", ("Bucket", "Key"), "InvalidManifestContent", FORM),
    ("b,100%.txt\n", ("Bucket", "Key"), "InvalidManifestContent", "Invalid object key format"),
    ("b,\n", ("Bucket", "Key"), "InvalidManifestContent", "Invalid object key format"),
    ("b," + "k" * 1025 + "\n", ("Bucket", "Key"), "InvalidManifestContent", "Invalid object key format"),
    (b"b,\xff\xfe\n", ("Bucket", "Key"), "InvalidManifestContent", FORM),
    (b"\xef\xbb\xbfb,k\n", ("Bucket", "Key"), "InvalidManifestContent", FORM),
    (gzip.compress(b"b,k\n"), ("Bucket", "Key"), "InvalidManifestContent", FORM),
    ('b,"k\nl"\n', ("Bucket", "Key"), "InvalidManifestContent", FORM),
    ("", ("Bucket", "Key"), "InvalidManifestContent", "The manifest has no rows"),
], ids=["too-many", "too-few", "blank-line", "stray-percent", "empty-key", "long-key", "not-utf-8", "bom", "gzip",
        "line-break-in-quotes", "empty"])
def test_a_malformed_manifest_fails_the_job_with_a_reason(server, name, echo, body, fields, code, reason):
    job = server.create_job(server.bucket(name), echo, server.put_manifest(name, body), fields=fields)
    described = server.wait(job, "Failed", timeout=30)
    failure = described["FailureReasons"][0]
    assert failure["FailureCode"] == code
    assert failure["FailureReason"] == reason
    progress = described["ProgressSummary"]
    assert (progress["NumberOfTasksSucceeded"], progress["NumberOfTasksFailed"]) == (0, 0)
    assert "Contents" not in server.s3.list_objects_v2(Bucket=name, Prefix="reports/"), "nothing ran: there is no report"


def test_a_manifest_that_is_not_there_fails_the_job(server, name, echo):
    job = server.create_job(server.bucket(name), echo, "d41d8cd98f00b204e9800998ecf8427e", key="nowhere.csv")
    failure = server.wait(job, "Failed", timeout=30)["FailureReasons"][0]
    assert failure == {"FailureCode": "ManifestNotFound", "FailureReason": "Reading the manifest failed: NoSuchKey"}


def test_a_manifest_with_another_etag_fails_the_job(server, name, echo):
    etag = server.put_manifest(server.bucket(name), [(name, "first")])
    server.put_manifest(name, [(name, "second")])
    job = server.create_job(name, echo, etag)
    assert server.wait(job, "Failed", timeout=30)["FailureReasons"][0]["FailureCode"] == "ManifestETagMismatch"


def test_an_etag_is_taken_with_and_without_quotes(server, name, echo):
    rows = [(server.bucket(name), "k")]
    etag = server.put_manifest(name, rows)
    for form in (etag, etag.strip('"')):
        job = server.create_job(name, echo, form)
        server.wait(job, "Complete")
        harness.audit(server, job, rows)


@pytest.mark.parametrize("etag", ['""', "two words", 'in"side'])
def test_an_etag_that_no_store_gives_fails_the_job(server, name, echo, etag):
    server.put_manifest(server.bucket(name), [(name, "k")])
    failure = server.wait(server.create_job(name, echo, etag), "Failed")["FailureReasons"][0]
    assert failure == {"FailureCode": "InvalidManifestContent", "FailureReason": "ETag format is invalid"}


def test_a_version_of_the_manifest_is_read_though_a_newer_one_is_there(server, name, echo):
    server.bucket(name)
    server.s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    old, new = (server.s3.put_object(Bucket=name, Key="manifest.csv", Body=f"{name},{key}\n") for key in ("old", "new"))

    def job(put, etag):
        return server.create_job(name, echo, etag, Manifest={
            "Spec": {"Format": "S3BatchOperations_CSV_20180820", "Fields": ["Bucket", "Key"]},
            "Location": {"ObjectArn": f"arn:aws:s3:::{name}/manifest.csv", "ETag": etag, "ObjectVersionId": put},
        })

    for put, key in ((old, "old"), (new, "new")):
        created = job(put["VersionId"], put["ETag"])
        described = server.wait(created, "Complete")
        assert described["Manifest"]["Location"]["ObjectVersionId"] == put["VersionId"]
        harness.audit(server, created, [(name, key)])
    mixed = server.wait(job(old["VersionId"], new["ETag"]), "Failed")["FailureReasons"][0]
    assert mixed["FailureCode"] == "ManifestETagMismatch"
    gone = server.wait(job("x" * 32, new["ETag"]), "Failed")["FailureReasons"][0]
    assert gone == {"FailureCode": "ManifestNotFound", "FailureReason": "Reading the manifest failed: NoSuchVersion"}


def test_the_etag_of_a_manifest_in_parts_is_a_string_like_any_other(server, name, echo):
    server.bucket(name)
    upload = server.s3.create_multipart_upload(Bucket=name, Key="manifest.csv")["UploadId"]
    part = server.s3.upload_part(Bucket=name, Key="manifest.csv", UploadId=upload, PartNumber=1, Body=f"{name},k\n".encode())
    etag = server.s3.complete_multipart_upload(
        Bucket=name, Key="manifest.csv", UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]})["ETag"]
    assert etag.strip('"').endswith("-1")
    job = server.create_job(name, echo, etag)
    server.wait(job, "Complete")
    harness.audit(server, job, [(name, "k")])


def test_a_bucket_named_by_its_arn_fails_its_task_alone(server, name, echo):
    server.bucket(name)
    job = server.create_job(name, echo, server.put_manifest(name, f"{name},k\narn:aws:s3:::{name},k\n"))
    server.wait(job, "Complete")
    rows = harness.audit(server, job, [(name, "k"), (f"arn:aws:s3:::{name}", "k")])
    assert {row.bucket: row.status for row in rows} == {name: "succeeded", f"arn:aws:s3:::{name}": "failed"}


@pytest.mark.parametrize("version, reason", [
    ("a b", "Invalid version ID format"), ("\u00e9", "Invalid version ID format"), ("v" * 1025, "Invalid version ID format"),
])
def test_a_malformed_version_fails_the_job(server, name, echo, version, reason):
    server.bucket(name)
    body = f"{name},k,v\n{name},k,{version}\n"
    job = server.create_job(name, echo, server.put_manifest(name, body), fields=("Bucket", "Key", "VersionId"))
    failure = server.wait(job, "Failed")["FailureReasons"][0]
    assert failure == {"FailureCode": "InvalidManifestContent", "FailureReason": reason}


def test_the_key_reaches_function_and_report_as_the_manifest_has_it(server, name, echo):
    server.bucket(name)
    keys = ["objectkey1", "object%20key%20with%20spaces", "a+b", "a%2Bb", "x%2Cy.txt", "raw key", "stanza%7Cupper",
            "%7B%22origKey%22%3A%20%22object1key%22%7D", "%E6%97%A5%E6%9C%AC.txt", "日本.txt", "..%2f..%2fup", "k" * 1024]
    job = server.create_job(name, echo, server.put_manifest(name, [(name, key) for key in keys]))
    server.wait(job, "Complete")
    rows = harness.by_key(harness.audit(server, job, [(name, key) for key in keys]))
    for key in keys:
        # A result string is cut to 1,024 characters.
        assert rows[key].message == f"{key}|None"[:1024]


def test_quoted_fields_crlf_and_a_missing_last_newline_are_read(server, name, echo):
    server.bucket(name)
    body = f'"{name}","x,y.txt"\r\n{name},"say ""hi"""\r\n"{name}",last'
    job = server.create_job(name, echo, server.put_manifest(name, body))
    server.wait(job, "Complete")
    harness.audit(server, job, [(name, "x,y.txt"), (name, 'say "hi"'), (name, "last")])


def test_columns_are_taken_as_the_fields_name_them(server, name, echo):
    server.bucket(name)
    body = f"x,k1,{name},null,y\nx,k2,{name},v2,y\n"
    job = server.create_job(
        name, echo, server.put_manifest(name, body), fields=("Ignore", "Key", "Bucket", "VersionId", "Ignore"))
    server.wait(job, "Complete")
    rows = harness.by_key(harness.audit(server, job, [(name, "k1", "null"), (name, "k2", "v2")]))
    assert (rows["k1"].message, rows["k2"].message) == ("k1|null", "k2|v2")


def test_a_row_without_its_version_fails_alone(server, name, echo):
    server.bucket(name)
    job = server.create_job(
        name, echo, server.put_manifest(name, f"{name},with,v1\n{name},without,\n"), fields=("Bucket", "Key", "VersionId"))
    server.wait(job, "Complete")
    rows = harness.by_key(harness.audit(server, job, [(name, "with", "v1"), (name, "without", "\\N")]))
    row = rows["without"]
    assert (row.status, row.http_status, row.error_code) == ("failed", "400", "InvalidRequest")
    assert row.message == "Task failed due to missing VersionId"


def test_rows_of_several_buckets_and_equal_rows_are_tasks_of_their_own(server, name, echo):
    rows = [(server.bucket(name), "k"), (server.bucket(name + "-2"), "k"), (name, "k"), (name, "k")]
    job = server.create_job(name, echo, server.put_manifest(name, rows))
    server.wait(job, "Complete")
    harness.audit(server, job, rows)


def test_a_manifest_that_changes_after_it_was_read_changes_nothing(server, name, echo):
    rows = [(server.bucket(name), "first")]
    job = server.create_job(name, echo, server.put_manifest(name, rows), confirmation=True)
    server.wait(job, "Suspended")
    server.put_manifest(name, [(name, "second"), (name, "third")])
    server.control.update_job_status(AccountId=harness.ACCOUNT, JobId=job, RequestedJobStatus="Ready")
    server.wait(job, "Complete")
    harness.audit(server, job, rows)
