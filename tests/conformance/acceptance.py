"""What the acceptance scenarios share: functions, the AWS CLI's `create-job` as AWS's pages call it, requests of other SDKs."""

import csv
import gzip
import hashlib
import io
import json
import re
import textwrap
import uuid
import xml.etree.ElementTree

import botocore.exceptions
import pytest

import harness
from harness import ACCOUNT, ROLE

NAMESPACE = "http://awss3control.amazonaws.com/doc/2018-08-20/"
CSV, INVENTORY = "S3BatchOperations_CSV_20180820", "S3InventoryReport_CSV_20161130"
FORBIDDEN = "Requested job status forbidden"

# Succeeds with the key, and prints the event.
ECHO = """
    import json
    def handler(event, context):
        print(json.dumps(event))
        return {
            "invocationSchemaVersion": event["invocationSchemaVersion"], "treatMissingKeysAs": "PermanentFailure",
            "invocationId": event["invocationId"],
            "results": [{"taskId": task["taskId"], "resultCode": "Succeeded", "resultString": task["s3Key"]}
                        for task in event["tasks"]],
        }
"""

# Every call waits until the file $GATE is there; "$GATE-reached" says that one has begun.
GATED = """
    import os, time
    def handler(event, context):
        task = event["tasks"][0]
        open(os.environ["GATE"] + "-reached", "w").close()
        while not os.path.exists(os.environ["GATE"]):
            time.sleep(0.01)
        return {"invocationSchemaVersion": "1.0", "invocationId": event["invocationId"], "results": [
            {"taskId": task["taskId"], "resultCode": "Succeeded", "resultString": "through"}]}
"""

# What a step of a function says becomes the result of its task. `work` is put in front by `batch_function`.
AROUND = """

import urllib.parse

def handler(event, context):
    [task] = event["tasks"]
    bucket = task["s3Bucket"] if "s3Bucket" in task else task["s3BucketArn"].split(":::")[1]
    code, text = work(event["job"], bucket, urllib.parse.unquote_plus(task["s3Key"]), task["s3VersionId"])
    return {
        "invocationSchemaVersion": event["invocationSchemaVersion"], "treatMissingKeysAs": "PermanentFailure",
        "invocationId": event["invocationId"],
        "results": [{"taskId": task["taskId"], "resultCode": code, "resultString": text}],
    }
"""


def batch_function(work):
    """The source of a function around `work(job, bucket, key, version)`, which returns (result code, result string)."""
    return {"handler.py": textwrap.dedent(work) + AROUND}


# Takes a delete marker away, as AWS's example for versioned buckets does. Keys that begin with "slow" time out.
REMOVE_DELETE_MARKER = batch_function("""
    import boto3
    from botocore.exceptions import ClientError

    s3 = boto3.client("s3")

    def look_at(bucket, key, version):
        if key.startswith("slow"):
            raise ClientError({"Error": {"Code": "RequestTimeout", "Message": "too slow"}}, "HeadObject")
        return s3.head_object(Bucket=bucket, Key=key, VersionId=version)

    def work(job, bucket, key, version):
        try:
            look_at(bucket, key, version)
        except ClientError as error:
            if error.response["Error"]["Code"] == "RequestTimeout":
                return "TemporaryFailure", f"the look at {key} timed out"
            headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
            if headers.get("x-amz-delete-marker") != "true":
                return "PermanentFailure", f"{key}: {error}"
            s3.delete_object(Bucket=bucket, Key=key, VersionId=version)
            return "Succeeded", f"removed delete marker {version} of {key}"
        return "PermanentFailure", f"{key} {version} is not a delete marker"
""")

# Revises a text as the second part of the key says, "stanza|revision". A text that is gone was deleted by another task.
REVISE = batch_function("""
    import boto3
    from botocore.exceptions import ClientError

    s3 = boto3.client("s3")
    REVISIONS = {"lower": str.lower, "upper": str.upper, "reverse": lambda text: text[::-1]}

    def work(job, bucket, key, version):
        stanza, revision = key.split("|")
        try:
            if revision == "delete":
                s3.delete_object(Bucket=bucket, Key=stanza)
                return "Succeeded", f"deleted {stanza}"
            text = s3.get_object(Bucket=bucket, Key=stanza)["Body"].read().decode()
            s3.put_object(Bucket=bucket, Key=stanza, Body=REVISIONS[revision](text).encode())
        except ClientError as error:
            if error.response["Error"]["Code"] == "NoSuchKey":
                return "Succeeded", f"{stanza} is not there, so it was deleted before"
            return "PermanentFailure", str(error)
        return "Succeeded", f"applied {revision} to {stanza}"
""")


def csv_manifest(bucket, etag, fields=("Bucket", "Key"), key="manifest.csv"):
    return {"Spec": {"Format": CSV, "Fields": list(fields)},
            "Location": {"ObjectArn": f"arn:aws:s3:::{bucket}/{key}", "ETag": etag}}


def put_inventory(server, bucket, source, rows, schema, created="2016-11-06T21-32Z"):
    """Writes what S3 Inventory writes: `manifest.json`, its checksum, and a data file of quoted values with the columns of
    `schema`, packed with gzip. Returns the key of manifest.json and its ETag as PutObject gave it."""
    text, folder = io.StringIO(), f"inventory/{source}/all"
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    data, data_key = gzip.compress(text.getvalue().encode()), f"{folder}/data/{uuid.uuid4()}.csv.gz"
    server.s3.put_object(Bucket=bucket, Key=data_key, Body=data)
    manifest = json.dumps({
        "sourceBucket": source, "destinationBucket": f"arn:aws:s3:::{bucket}", "version": "2016-11-30",
        "creationTimestamp": "1514944800000", "fileFormat": "CSV", "fileSchema": schema,
        "files": [{"key": data_key, "size": len(data), "MD5checksum": hashlib.md5(data).hexdigest()}]}).encode()
    key = f"{folder}/{created}/manifest.json"
    etag = server.s3.put_object(Bucket=bucket, Key=key, Body=manifest)["ETag"]
    server.s3.put_object(
        Bucket=bucket, Key=f"{folder}/{created}/manifest.checksum", Body=hashlib.md5(manifest).hexdigest().encode())
    return key, etag


def inventory_manifest(bucket, etag, key="inventory/manifest.json"):
    return {"Spec": {"Format": INVENTORY}, "Location": {"ObjectArn": f"arn:aws:s3:::{bucket}/{key}", "ETag": etag}}


def generator_of(bucket, output=None, **filter):
    """A ManifestGenerator over a bucket; `output` is the bucket into which the list is written, or nothing."""
    generator = {"SourceBucket": f"arn:aws:s3:::{bucket}", "EnableManifestOutput": output is not None}
    if output is not None:
        generator["ManifestOutputLocation"] = {
            "Bucket": f"arn:aws:s3:::{output}", "ManifestPrefix": "lists", "ManifestFormat": "S3InventoryReport_CSV_20211130"}
    if filter:
        generator["Filter"] = filter
    return {"S3JobManifestGenerator": generator}


def report_in(bucket, scope="AllTasks", prefix="reports"):
    return {"Bucket": f"arn:aws:s3:::{bucket}", "Prefix": prefix, "Format": "Report_CSV_20180820", "Enabled": True,
            "ReportScope": scope}


def cli_create(server, *flags, operation, report, manifest=None, generator=None, priority=42, check=True, **more):
    """`aws s3control create-job` with its structures as JSON, as AWS's pages write it. Returns the finished process."""
    arguments = ["--account-id", ACCOUNT, "--operation", json.dumps(operation), "--report", json.dumps(report),
                 "--priority", str(priority), "--role-arn", ROLE]
    if manifest is not None:
        arguments += ["--manifest", json.dumps(manifest)]
    if generator is not None:
        arguments += ["--manifest-generator", json.dumps(generator)]
    return server.aws("s3control", "create-job", *arguments, *flags, "--output", "json", check=check, **more)


def cli_job(*arguments, **more):
    """The ID of the job that `cli_create` made."""
    answer = json.loads(cli_create(*arguments, **more).stdout)
    assert set(answer) == {"JobId"}
    assert re.fullmatch(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}", answer["JobId"])
    return answer["JobId"]


def cli_error(done):
    """The code and the message with which the AWS CLI was refused."""
    assert done.returncode != 0, done.stdout
    found = re.search(r"An error occurred \((\w+)\) when calling the \w+ operation(?: \(.*?\))?: (.*)", done.stderr, re.S)
    assert found, done.stderr
    return found[1], found[2].strip()


class Answer:
    """The answer to a request on the wire: its status, its headers, and its document with the names stripped of the namespace."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body
        self.root = xml.etree.ElementTree.fromstring(body) if body else None

    def text(self, path):
        """The text of the element at a path like `Error/Code`, below the root; None where there is none."""
        return self.root.findtext("/".join(f"{{{NAMESPACE}}}{name}" for name in path.split("/")))

    def texts(self, path):
        return [element.text or "" for element in
                self.root.findall("/".join(f"{{{NAMESPACE}}}{name}" for name in path.split("/")))]

    @property
    def root_name(self):
        return self.root.tag.removeprefix(f"{{{NAMESPACE}}}")


def java(server, method, target, document=None):
    """Sends what the SDKs for Java send: a prolog, `Content-Type: application/xml`, `member` in lists, the model's order."""
    body = b""
    if document is not None:
        body = ('<?xml version="1.0" encoding="UTF-8"?>' + document).encode()
    headers = harness.signed(server, method, "s3", target, body, {"Content-Type": "application/xml"})
    return Answer(*harness.send(server, method, target, headers, body))


def java_create_job(operation, manifest, *, report, confirmation=None, token=None, description=None, priority=10,
                    tags=(), generator="", role=ROLE):
    """A CreateJobRequest in the order of the model's members, which is that of the SDKs for Java."""
    asked = "" if confirmation is None else f"<ConfirmationRequired>{str(confirmation).lower()}</ConfirmationRequired>"
    described = "" if description is None else f"<Description>{description}</Description>"
    tagged = "".join(f"<member><Key>{key}</Key><Value>{value}</Value></member>" for key, value in tags)
    return (
        f'<CreateJobRequest xmlns="{NAMESPACE}">{asked}<Operation>{operation}</Operation>{report}'
        f"<ClientRequestToken>{token or uuid.uuid4()}</ClientRequestToken>{manifest}{described}"
        f"<Priority>{priority}</Priority><RoleArn>{role}</RoleArn>"
        + (f"<Tags>{tagged}</Tags>" if tags else "") + f"{generator}</CreateJobRequest>"
    )


def java_manifest(bucket, etag, fields=("Bucket", "Key"), key="manifest.csv", format=CSV):
    columns = "".join(f"<member>{field}</member>" for field in fields)
    return (
        f"<Manifest><Spec><Format>{format}</Format>" + (f"<Fields>{columns}</Fields>" if fields else "")
        + f"</Spec><Location><ObjectArn>arn:aws:s3:::{bucket}/{key}</ObjectArn><ETag>{etag}</ETag></Location></Manifest>"
    )


def java_report(bucket):
    return (
        f"<Report><Bucket>arn:aws:s3:::{bucket}</Bucket><Format>Report_CSV_20180820</Format><Enabled>true</Enabled>"
        "<Prefix>reports</Prefix><ReportScope>AllTasks</ReportScope></Report>"
    )


def jobs_described(server, description):
    """The entries of ListJobs whose job has this description."""
    found, token = [], {}
    while True:
        page = server.control.list_jobs(AccountId=ACCOUNT, **token)
        found += [job for job in page["Jobs"] if job.get("Description") == description]
        if "NextToken" not in page:
            return found
        token = {"NextToken": page["NextToken"]}


def native(server, name, operation, *, java_operation=None, manifest=None, generator=None, tags=()):
    """Asks for a job of an operation that this server does not run: by the AWS CLI, by boto3 and, where AWS's page has it,
    as an SDK for Java does. Each is refused clearly, by the operation's name, and stores nothing."""
    [kind] = operation
    if manifest is None and generator is None:
        manifest = csv_manifest(name, server.put_manifest(name, [(name, "k")]))
    flags = ["--description", name, "--no-confirmation-required"]
    if tags:
        flags += ["--tags", json.dumps([{"Key": key, "Value": value} for key, value in tags])]
    code, message = cli_error(cli_create(
        server, *flags, operation=operation, report=report_in(name), manifest=manifest, generator=generator, check=False))
    assert (code, kind in message) == ("NotImplemented", True), message
    told = boto3_refused(server, name, operation, manifest=manifest, generator=generator)
    assert (told.code, kind in told.message, told.status) == ("NotImplemented", True, 501), told
    if java_operation is not None:
        fields = manifest["Spec"].get("Fields", ())
        location = manifest["Location"]
        bucket, _, key = location["ObjectArn"].removeprefix("arn:aws:s3:::").partition("/")
        answer = java(server, "POST", "/v20180820/jobs", java_create_job(
            java_operation, java_manifest(bucket, location["ETag"], fields, key, manifest["Spec"]["Format"]),
            report=java_report(name), confirmation=False, description=name, tags=tags))
        assert (answer.status, answer.text("Error/Code")) == (501, "NotImplemented"), answer.body
        assert kind in answer.text("Error/Message")
    assert jobs_described(server, name) == [], "a refused job is not stored"
    assert "Contents" not in server.s3.list_objects_v2(Bucket=name, Prefix="reports/")


class Told:
    """What boto3 was told by an error."""

    def __init__(self, error):
        self.code, self.message = (error.response["Error"][name] for name in ("Code", "Message"))
        self.status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        self.exception = type(error).__name__

    def __repr__(self):
        return f"{self.status} {self.code}: {self.message}"


def refusal(call, *arguments, **more):
    """What a call of boto3's is told, which is an error."""
    with pytest.raises(botocore.exceptions.ClientError) as error:
        call(*arguments, **more)
    return Told(error.value)


def boto3_refused(server, name, operation, *, manifest=None, generator=None, report=None, **more):
    """What boto3 is told when it asks for this job."""
    source = {"Manifest": manifest, "ManifestGenerator": generator}
    return refusal(server.control.create_job, **{
        "AccountId": ACCOUNT, "ConfirmationRequired": False, "Operation": operation, "Description": name,
        "Report": report or report_in(name), "Priority": 10, "RoleArn": ROLE,
        **{member: value for member, value in source.items() if value is not None}} | more)


def update_status(server, job, status, **more):
    return server.control.update_job_status(AccountId=ACCOUNT, JobId=job, RequestedJobStatus=status, **more)


def named_rows(server, job, rows, **more):
    """The rows of a finished job's report, by key, after `harness.audit` has looked at all of it."""
    return harness.by_key(harness.audit(server, job, rows, **more))
