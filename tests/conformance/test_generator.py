"""Manifests that the job generates from a listing, and the list that it saves."""

import csv
import datetime
import gzip
import hashlib
import io
import json
import urllib.parse

import botocore.exceptions
import pytest

import harness

ECHO = """
    def handler(event, context):
        task = event["tasks"][0]
        return {"invocationSchemaVersion": "1.0", "invocationId": "i", "results": [
            {"taskId": task["taskId"], "resultCode": "Succeeded",
             "resultString": task["s3Key"] + "|" + str(task["s3VersionId"])}]}
"""


@pytest.fixture(scope="module")
def echo(server):
    return server.deploy("generator-echo", ECHO)


def create(server, bucket, function, *, output=None, filter=None, owner=None, **more):
    generator = {"SourceBucket": f"arn:aws:s3:::{bucket}", "EnableManifestOutput": output is not None}
    if output is not None:
        generator["ManifestOutputLocation"] = {
            "Bucket": f"arn:aws:s3:::{bucket}-lists", "ManifestFormat": "S3InventoryReport_CSV_20211130"} | output
    if filter is not None:
        generator["Filter"] = filter
    if owner:
        generator["ExpectedBucketOwner"] = owner
    # Everything that `create_job` does, but for the manifest.
    return server.control.create_job(**{
        "AccountId": harness.ACCOUNT, "ConfirmationRequired": False, "Operation": {"LambdaInvoke": {"FunctionArn": function}},
        "Report": {"Bucket": f"arn:aws:s3:::{bucket}-lists", "Format": "Report_CSV_20180820", "Enabled": True,
                   "Prefix": "reports", "ReportScope": "AllTasks"},
        "Priority": 10, "RoleArn": harness.ROLE, "ManifestGenerator": {"S3JobManifestGenerator": generator},
    } | more)["JobId"]


def fill(server, name, objects):
    server.bucket(name)
    server.bucket(name + "-lists")
    for key, body in objects.items():
        server.s3.put_object(Bucket=name, Key=key, Body=body)


def keys_of(server, job):
    described = server.wait(job, "Complete")
    return sorted(row.key for row in harness.read_report(server, job, described))


OBJECTS = {
    "logs/a b.txt": b"12345", "logs/c+d.txt": b"", "logs/e.csv": b"1", "data/f.txt": b"x" * 100, "日本.txt": b"123",
}


def test_without_a_filter_every_object_is_a_task_with_its_encoded_key(server, name, echo):
    fill(server, name, OBJECTS)
    job = create(server, name, echo)
    described = server.wait(job, "Complete")
    wanted = ["data/f.txt", "logs/a%20b.txt", "logs/c%2Bd.txt", "logs/e.csv", "%E6%97%A5%E6%9C%AC.txt"]
    rows = harness.by_key(harness.audit(server, job, [(name, key, "null") for key in wanted]))
    for key in wanted:
        assert urllib.parse.unquote(key) == urllib.parse.unquote_plus(key)
        assert rows[key].message == f"{key}|null"
    assert "Manifest" not in described
    assert "GeneratedManifestDescriptor" not in described


@pytest.mark.parametrize("filter, wanted", [
    ({"KeyNameConstraint": {"MatchAnyPrefix": ["logs/"]}}, ["logs/a%20b.txt", "logs/c%2Bd.txt", "logs/e.csv"]),
    ({"KeyNameConstraint": {"MatchAnySuffix": [".csv"]}}, ["logs/e.csv"]),
    ({"KeyNameConstraint": {"MatchAnySubstring": ["c+d"]}}, ["logs/c%2Bd.txt"]),
    ({"KeyNameConstraint": {"MatchAnyPrefix": ["logs/"], "MatchAnySuffix": [".txt"], "MatchAnySubstring": [" "]}},
     ["logs/a%20b.txt"]),
    ({"ObjectSizeGreaterThanBytes": 3, "ObjectSizeLessThanBytes": 100}, ["logs/a%20b.txt"]),
    ({"ObjectSizeLessThanBytes": 1}, ["logs/c%2Bd.txt"]),
    ({"MatchAnyStorageClass": ["GLACIER", "STANDARD"], "ObjectSizeGreaterThanBytes": 50}, ["data/f.txt"]),
    ({"CreatedAfter": datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc), "ObjectSizeGreaterThanBytes": 50},
     ["data/f.txt"]),
    ({"MatchAnyObjectEncryption": [{"NOTSSE": {}}], "ObjectSizeGreaterThanBytes": 50}, ["data/f.txt"]),
    ({"ObjectReplicationStatuses": ["NONE"], "ObjectSizeGreaterThanBytes": 50}, ["data/f.txt"]),
], ids=["prefix", "suffix", "substring", "all-three", "size", "empty", "class", "created", "encryption", "replication"])
def test_a_filter_takes_what_fits_all_of_it(server, name, echo, filter, wanted):
    fill(server, name, OBJECTS)
    assert keys_of(server, create(server, name, echo, filter=filter)) == wanted


@pytest.mark.parametrize("filter", [
    {"KeyNameConstraint": {"MatchAnyPrefix": ["nothing"]}},
    {"MatchAnyStorageClass": ["GLACIER"]},
    {"CreatedBefore": datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)},
    {"MatchAnyObjectEncryption": [{"SSES3": {}}]},
    {"ObjectReplicationStatuses": ["FAILED", "COMPLETED", "REPLICA"]},
], ids=["prefix", "class", "created", "encryption", "replication"])
def test_a_filter_that_takes_nothing_fails_the_job(server, name, echo, filter):
    fill(server, name, OBJECTS)
    described = server.wait(create(server, name, echo, filter=filter), "Failed")
    assert described["FailureReasons"] == [{
        "FailureCode": "NoKeysFound",
        "FailureReason": "Manifest generation found no keys matching the filter criteria",
    }]


def test_the_list_is_saved_where_it_was_asked_for_and_can_be_used_again(server, name, echo):
    fill(server, name, OBJECTS)
    job = create(server, name, echo, output={"ManifestPrefix": "lists"}, filter={"ObjectSizeGreaterThanBytes": 0})
    described = server.wait(job, "Complete")
    generated = described["GeneratedManifestDescriptor"]
    assert generated["Format"] == "S3InventoryReport_CSV_20211130"
    key = f"lists/{job}/manifest.json"
    assert generated["Location"]["ObjectArn"] == f"arn:aws:s3:::{name}-lists/{key}"
    saved = server.s3.get_object(Bucket=name + "-lists", Key=key)
    assert saved["ETag"] == generated["Location"]["ETag"]
    manifest = json.loads(saved["Body"].read())
    assert (manifest["fileFormat"], manifest["fileSchema"]) == ("CSV", "Bucket, Key, VersionId")
    assert manifest["sourceBucket"] == name
    rows = []
    for file in manifest["files"]:
        assert file["key"].startswith(f"lists/{job}/data/") and file["key"].endswith(".csv.gz")
        body = server.s3.get_object(Bucket=name + "-lists", Key=file["key"])["Body"].read()
        assert (len(body), hashlib.md5(body).hexdigest()) == (file["size"], file["MD5checksum"])
        rows += [tuple(row) for row in csv.reader(io.StringIO(gzip.decompress(body).decode()))]
    wanted = ["%E6%97%A5%E6%9C%AC.txt", "data/f.txt", "logs/a%20b.txt", "logs/e.csv"]
    assert sorted(rows) == [(name, key, "null") for key in wanted]
    again = server.create_job(name + "-lists", echo, generated["Location"]["ETag"], Manifest={
        "Spec": {"Format": "S3InventoryReport_CSV_20161130"},
        "Location": {"ObjectArn": generated["Location"]["ObjectArn"], "ETag": generated["Location"]["ETag"]},
    })
    server.wait(again, "Complete")
    harness.audit(server, again, rows)


def test_current_versions_are_taken_by_their_id_and_all_of_them_for_a_replication_filter(server, name, echo):
    server.bucket(name)
    server.bucket(name + "-lists")
    server.s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    versions = [server.s3.put_object(Bucket=name, Key="k", Body=body)["VersionId"] for body in (b"1", b"2")]
    server.s3.put_object(Bucket=name, Key="gone", Body=b"3")
    server.s3.delete_object(Bucket=name, Key="gone")
    job = create(server, name, echo)
    server.wait(job, "Complete")
    harness.audit(server, job, [(name, "k", versions[1])])
    job = create(server, name, echo, filter={
        "ObjectReplicationStatuses": ["NONE"], "KeyNameConstraint": {"MatchAnyPrefix": ["k"]}})
    server.wait(job, "Complete")
    harness.audit(server, job, [(name, "k", version) for version in versions])


def test_a_bucket_of_more_than_a_page_is_listed_to_its_end(server, name, echo):
    fill(server, name, {f"k{number:04}": b"" for number in range(1_203)})
    assert keys_of(server, create(server, name, echo)) == [f"k{number:04}" for number in range(1_203)]


def test_the_request_is_echoed_whole(server, name, echo):
    fill(server, name, OBJECTS)
    filter = {
        "CreatedAfter": datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc),
        "KeyNameConstraint": {"MatchAnyPrefix": ["logs/"]}, "ObjectSizeGreaterThanBytes": -1,
        "MatchAnyStorageClass": ["STANDARD"], "MatchAnyObjectEncryption": [{"NOTSSE": {}}],
    }
    job = create(server, name, echo, filter=filter, owner=harness.ACCOUNT,
                 output={"ExpectedManifestBucketOwner": harness.ACCOUNT})
    generator = server.wait(job, "Complete")["ManifestGenerator"]["S3JobManifestGenerator"]
    assert generator == {
        "ExpectedBucketOwner": harness.ACCOUNT, "SourceBucket": f"arn:aws:s3:::{name}", "Filter": filter,
        "EnableManifestOutput": True,
        "ManifestOutputLocation": {
            "ExpectedManifestBucketOwner": harness.ACCOUNT, "Bucket": f"arn:aws:s3:::{name}-lists",
            "ManifestFormat": "S3InventoryReport_CSV_20211130"},
    }


@pytest.mark.parametrize("more, code", [
    ({"owner": "999999999999"}, "BucketOwnerMismatch"),
    ({"output": {"ExpectedManifestBucketOwner": "999999999999"}}, "BucketOwnerMismatch"),
    ({"output": {"Bucket": "arn:aws:s3:::is-not-there"}}, "ManifestOutputFailed"),
    ({"filter": {"EligibleForReplication": True}}, "ReplicationRulesUnknown"),
], ids=["source-owner", "output-owner", "no-output-bucket", "replication-rules"])
def test_what_stands_in_the_way_of_a_list_fails_the_job_by_name(server, name, echo, more, code):
    fill(server, name, OBJECTS)
    described = server.wait(create(server, name, echo, **more), "Failed")
    assert described["FailureReasons"][0]["FailureCode"] == code
    assert "GeneratedManifestDescriptor" not in described


@pytest.mark.parametrize("encryption", [{"SSES3": {}}, {"SSEKMS": {"KeyId": "alias/lists"}}], ids=["s3", "kms"])
def test_a_list_that_is_to_be_encrypted_is_not_written_in_the_clear(server, name, echo, encryption):
    fill(server, name, OBJECTS)
    described = server.wait(create(server, name, echo, output={"ManifestEncryption": encryption}), "Failed")
    echoed = described["ManifestGenerator"]["S3JobManifestGenerator"]["ManifestOutputLocation"]
    assert echoed["ManifestEncryption"] == encryption
    assert described["FailureReasons"] == [
        {"FailureCode": "ManifestOutputFailed",
         "FailureReason": "Error occurred when preparing manifest: Failed to write manifest"},
        {"FailureCode": "ManifestOutputFailed",
         "FailureReason": f"{name}-lists: NotImplemented: Server-side encryption is not implemented."},
    ]
    assert "GeneratedManifestDescriptor" not in described
    assert "Contents" not in server.s3.list_objects_v2(Bucket=name + "-lists")
    # A list that is not saved needs no encryption.
    location = {"Bucket": f"arn:aws:s3:::{name}-lists", "ManifestFormat": "S3InventoryReport_CSV_20211130",
                "ManifestEncryption": encryption}
    unsaved = create(server, name, echo, ManifestGenerator={"S3JobManifestGenerator": {
        "SourceBucket": f"arn:aws:s3:::{name}", "EnableManifestOutput": False, "ManifestOutputLocation": location}})
    server.wait(unsaved, "Complete")


def test_a_source_bucket_that_is_not_there_fails_the_job(server, name, echo):
    server.bucket(name + "-lists")
    reason = server.wait(create(server, name, echo), "Failed")["FailureReasons"][0]
    assert reason == {"FailureCode": "ManifestGenerationFailed",
                      "FailureReason": "Listing the source bucket failed: NoSuchBucket"}


def test_a_manifest_and_a_generator_exclude_one_another(server, name, echo):
    fill(server, name, {})
    manifest = {"Spec": {"Format": "S3BatchOperations_CSV_20180820", "Fields": ["Bucket", "Key"]},
                "Location": {"ObjectArn": f"arn:aws:s3:::{name}/m.csv", "ETag": "e"}}
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        create(server, name, echo, Manifest=manifest)
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
