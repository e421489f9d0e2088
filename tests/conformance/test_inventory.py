"""S3 Inventories as manifests: CSV as AWS writes them, and Parquet and ORC as AWS does not take them."""

import gzip
import hashlib
import io
import json
import re

import pyarrow
import pyarrow.orc
import pyarrow.parquet
import pytest

import harness

ECHO = """
    def handler(event, context):
        task = event["tasks"][0]
        return {"invocationSchemaVersion": "1.0", "invocationId": "i", "results": [
            {"taskId": task["taskId"], "resultCode": "Succeeded",
             "resultString": task["s3Key"] + "|" + str(task["s3VersionId"])}]}
"""
BASE = "inventory/source/all/2026-11-01T00-00Z/"
SCHEMA = "Bucket, Key, VersionId, IsLatest, Size"


@pytest.fixture(scope="module")
def echo(server):
    return server.deploy("inventory-echo", ECHO)


def csv_gz(rows, members=1):
    """A data file as S3 Inventory writes it: every value quoted, gzip, here in as many members as asked for."""
    lines = ["".join(f'"{value}",' for value in row)[:-1] + "\n" for row in rows]
    size = max(1, -(-len(lines) // members))
    return b"".join(gzip.compress("".join(lines[at:at + size]).encode()) for at in range(0, len(lines), size))


def put_inventory(server, bucket, files, *, schema=SCHEMA, file_format="CSV", md5s=None, data_bucket=None, listed=None, **more):
    """Uploads data files and their manifest.json, as one folder of S3 Inventory. Returns the ETag of the latter."""
    data_bucket = data_bucket or bucket
    stored = []
    for number, body in enumerate(files):
        key = f"{BASE}data/{number}.data"
        server.s3.put_object(Bucket=data_bucket, Key=key, Body=body)
        md5 = hashlib.md5(body).hexdigest() if md5s is None else md5s[number]
        stored.append({"key": key, "size": len(body)} | ({"MD5checksum": md5} if md5 else {}))
    manifest = {
        "sourceBucket": "source", "destinationBucket": f"arn:aws:s3:::{data_bucket}", "version": "2016-11-30",
        "creationTimestamp": "1514944800000", "fileFormat": file_format, "fileSchema": schema,
        "files": stored if listed is None else listed,
        "somethingNew": {"ignored": True},
    } | more
    body = json.dumps({name: value for name, value in manifest.items() if value is not None})
    return server.put_manifest(bucket, body, key=BASE + "manifest.json")


def create(server, bucket, function, etag, key=BASE + "manifest.json", **spec):
    return server.create_job(bucket, function, etag, Manifest={
        "Spec": {"Format": "S3InventoryReport_CSV_20161130"} | spec,
        "Location": {"ObjectArn": f"arn:aws:s3:::{bucket}/{key}", "ETag": etag},
    })


def failure(server, job):
    described = server.wait(job, "Failed", timeout=60)
    assert described["ProgressSummary"]["TotalNumberOfTasks"] == 0
    return described["FailureReasons"][0]["FailureCode"], described["FailureReasons"][0]["FailureReason"]


def test_an_inventory_in_gzip_csv_is_a_manifest_and_its_columns_go_by_name(server, name, echo):
    server.bucket(name)
    rows = [[name, f"k%20{number},x".replace(",", "%2C"), f"v{number}", "true", "7"] for number in range(2_500)]
    etag = put_inventory(server, name, [csv_gz(rows[:1_000], members=3), csv_gz(rows[1_000:])])
    job = create(server, name, echo, etag)
    described = server.wait(job, "Complete")
    assert "Fields" not in described["Manifest"]["Spec"]
    assert described["ProgressSummary"]["TotalNumberOfTasks"] == 2_500
    report = harness.by_key(harness.audit(server, job, [(row[0], row[1], row[2]) for row in rows]))
    assert report["k%207%2Cx"].message == "k%207%2Cx|v7"


def test_columns_in_another_order_and_no_versions(server, name, echo):
    server.bucket(name)
    body = csv_gz([["7", "k1", name], ["8", "k2", name]])
    job = create(server, name, echo, put_inventory(server, name, [body], schema="Size,Key,Bucket"))
    server.wait(job, "Complete")
    rows = harness.by_key(harness.audit(server, job, [(name, "k1"), (name, "k2")]))
    assert rows["k1"].message == "k1|None"


def test_a_data_file_that_is_not_compressed_is_read_whatever_its_name(server, name, echo):
    server.bucket(name)
    job = create(server, name, echo, put_inventory(server, name, [f'"{name}","plain"\n'.encode()], schema="Bucket, Key"))
    server.wait(job, "Complete")
    harness.audit(server, job, [(name, "plain")])


def test_an_object_of_before_versioning_fails_alone(server, name, echo):
    server.bucket(name)
    body = csv_gz([[name, "new", "v1", "true", "1"], [name, "old", "", "true", "1"]])
    job = create(server, name, echo, put_inventory(server, name, [body]))
    server.wait(job, "Complete")
    rows = harness.by_key(harness.audit(server, job, [(name, "new", "v1"), (name, "old", "\\N")]))
    assert (rows["old"].status, rows["old"].message) == ("failed", "Task failed due to missing VersionId")


def test_a_delete_marker_is_a_task_like_any_other(server, name, echo):
    server.bucket(name)
    body = csv_gz([[name, "gone", "v1", "true"]])
    schema = "Bucket, Key, VersionId, IsDeleteMarker"
    job = create(server, name, echo, put_inventory(server, name, [body], schema=schema))
    server.wait(job, "Complete")
    assert [row.message for row in harness.audit(server, job, [(name, "gone", "v1")])] == ["gone|v1"]


def test_data_files_lie_in_the_destination_bucket_or_beside_the_manifest(server, name, echo):
    server.bucket(name)
    server.bucket(name + "-data")
    body = csv_gz([[name, "k", "v", "true", "1"]])
    for data_bucket, destination in [(name + "-data", f"arn:aws:s3:::{name}-data"), (name, None)]:
        etag = put_inventory(server, name, [body], data_bucket=data_bucket, destinationBucket=destination)
        job = create(server, name, echo, etag)
        server.wait(job, "Complete")
        harness.audit(server, job, [(name, "k", "v")])
        if data_bucket != name:
            server.s3.delete_object(Bucket=data_bucket, Key=BASE + "data/0.data")


def test_fields_beside_an_inventory_are_echoed_and_mean_nothing(server, name, echo):
    server.bucket(name)
    etag = put_inventory(server, name, [csv_gz([[name, "k", "v", "true", "1"]])])
    job = create(server, name, echo, etag, Fields=["Key"])
    assert server.wait(job, "Complete")["Manifest"]["Spec"]["Fields"] == ["Key"]


@pytest.mark.parametrize("change, code, reason", [
    ({"md5s": ["0" * 32]}, "InvalidManifestContent", "Invalid Manifest Content: .* has another MD5"),
    ({"md5s": ["zz"]}, "InvalidManifestContent", "Invalid Manifest Content: the MD5checksum of "),
    ({"schema": "Bucket, Size"}, "InvalidManifestContent", "Required fields are missing in the schema: Key$"),
    ({"schema": "Bucket, Key"}, "InvalidManifestContent", "Unexpected number of task fields$"),
    ({"file_format": "JSON"}, "InvalidManifestContent", "Invalid Manifest Content: the fileFormat JSON is not known$"),
    ({"listed": [{"key": "nowhere", "size": 1}]}, "InvalidManifestContent",
     "Invalid Manifest Content: nowhere cannot be read: NoSuchKey$"),
    ({"listed": []}, "InvalidManifestContent", "The manifest has no rows$"),
    ({"listed": "none"}, "InvalidManifestContent", "Manifest file is not properly formatted$"),
], ids=["md5", "no-md5", "no-key", "too-many-columns", "format", "missing-file", "no-files", "not-its-form"])
def test_a_broken_inventory_fails_the_job_with_a_reason(server, name, echo, change, code, reason):
    server.bucket(name)
    etag = put_inventory(server, name, [csv_gz([[name, "k", "v", "true", "1"]])], **change)
    found = failure(server, create(server, name, echo, etag))
    assert found[0] == code
    assert re.match(reason, found[1]), found[1]


@pytest.mark.parametrize("body, reason", [
    (gzip.compress(b'"b","k"\n' * 100)[:-9], "cannot be inflated"),
    (gzip.compress(b"\0" * (10 << 20)), "Manifest file is not properly formatted"),
    (gzip.compress((b'"b","' + b"k" * 1_000 + b'"\n') * 30_000), "inflates to more than an inventory can"),
    (b"\x1f\x8b is no gzip", "cannot be inflated"),
    (b'"b","100%"\n', "Invalid object key format"),
    (b'"b","k"\n\n', "Manifest file is not properly formatted"),
], ids=["cut", "one-endless-line", "bomb", "no-gzip", "broken-escape", "blank-line"])
def test_a_hostile_data_file_fails_the_job_and_not_the_server(server, name, echo, body, reason):
    server.bucket(name)
    code, found = failure(server, create(server, name, echo, put_inventory(server, name, [body], schema="Bucket, Key")))
    assert code == "InvalidManifestContent"
    assert reason in found


def test_the_etag_is_that_of_the_manifest_json(server, name, echo):
    server.bucket(name)
    etag = put_inventory(server, name, [csv_gz([[name, "k", "v", "true", "1"]])])
    put_inventory(server, name, [csv_gz([[name, "other", "v", "true", "1"]])], creationTimestamp="1514944800001")
    assert failure(server, create(server, name, echo, etag))[0] == "ManifestETagMismatch"


def table(bucket, keys, versions):
    return pyarrow.table({
        "bucket": [bucket] * len(keys), "key": keys, "version_id": pyarrow.array(versions, pyarrow.string()),
        "size": list(range(len(keys))),
    })


def parquet(rows, **options):
    written = io.BytesIO()
    pyarrow.parquet.write_table(rows, written, **options)
    return written.getvalue()


def orc(rows, **options):
    written = io.BytesIO()
    pyarrow.orc.write_table(rows, written, **options)
    return written.getvalue()


PARQUET_SCHEMA = ("message s3.inventory { required binary bucket (UTF8); required binary key (UTF8); "
                  "optional binary version_id (UTF8); optional int64 size; }")
ORC_SCHEMA = "struct<bucket:string,key:string,version_id:string,size:bigint>"


@pytest.mark.parametrize("file_format, schema, write, options", [
    ("Parquet", PARQUET_SCHEMA, parquet, {"compression": "snappy", "row_group_size": 500}),
    ("Parquet", PARQUET_SCHEMA, parquet, {"compression": "gzip", "use_dictionary": False}),
    ("ORC", ORC_SCHEMA, orc, {"compression": "zlib", "stripe_size": 16_384, "batch_size": 256}),
    ("ORC", ORC_SCHEMA, orc, {"compression": "snappy", "dictionary_key_size_threshold": 1.0}),
], ids=["parquet-snappy", "parquet-gzip", "orc-zlib", "orc-snappy"])
def test_an_inventory_by_column_is_a_manifest_too(server, name, echo, file_format, schema, write, options):
    server.bucket(name)
    keys = [f"folder {number % 9}/日本+{number}.txt" for number in range(1_500)]
    versions = [f"v{number}" for number in range(1_500)]
    halves = [write(table(name, keys[at:at + 750], versions[at:at + 750]), **options) for at in (0, 750)]
    job = create(server, name, echo, put_inventory(server, name, halves, schema=schema, file_format=file_format))
    server.wait(job, "Complete")
    encoded = [f"folder%20{number % 9}/%E6%97%A5%E6%9C%AC%2B{number}.txt" for number in range(1_500)]
    rows = harness.by_key(harness.audit(server, job, [(name, key, version) for key, version in zip(encoded, versions)]))
    assert rows[encoded[7]].message == f"{encoded[7]}|v7"


@pytest.mark.parametrize("file_format, schema, body, reason", [
    ("Parquet", PARQUET_SCHEMA, b"no table at all", "does not end as Parquet does"),
    ("ORC", ORC_SCHEMA, b"no table at all", "cannot be read"),
    ("Parquet", PARQUET_SCHEMA, parquet(pyarrow.table({"bucket": [1], "key": ["k"], "version_id": ["v"]})),
     "its column bucket does not hold strings"),
    ("ORC", ORC_SCHEMA, orc(pyarrow.table({"bucket": ["b"], "key": ["k"]})), "has no column version_id"),
    ("Parquet", PARQUET_SCHEMA, parquet(table("b", ["k"], ["v"]), compression="zstd"), "ZSTD, which is not read"),
], ids=["no-parquet", "no-orc", "wrong-type", "missing-column", "zstd"])
def test_a_table_that_cannot_be_read_fails_the_job_in_words(server, name, echo, file_format, schema, body, reason):
    server.bucket(name)
    etag = put_inventory(server, name, [body], schema=schema, file_format=file_format)
    code, found = failure(server, create(server, name, echo, etag))
    assert code == "InvalidManifestContent"
    assert found.startswith("Invalid Manifest Content: ") and reason in found
