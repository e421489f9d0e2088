"""Stores of somebody else: jobs, functions, clients and `longshore run` on real S3 servers that are not ours."""

import hashlib
import http.server
import json
import os
import pathlib
import subprocess
import textwrap
import threading
import urllib.error
import urllib.parse
import urllib.request

import botocore.exceptions
import pytest

import harness
import peers
import test_permissions

# What a store may be asked for by name; each needs another encoding somewhere on the way.
KEYS = ["plain.txt", "a b+c/ü%.txt", "quo\"te,comma.txt", "dir/über (1)~&=;@:$!*'.txt", "x" * 200]

READER = """
    import boto3, json, os, urllib.parse
    s3 = boto3.client("s3")
    def handler(event, context):
        task = event["tasks"][0]
        bucket, key = task["s3BucketArn"].split(":::")[1], urllib.parse.unquote_plus(task["s3Key"])
        body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        s3.put_object(Bucket=bucket, Key="out/" + key, Body=body.upper(), Metadata={"from": "function"})
        key_of_the_store = os.environ["REVERSED"][::-1]
        leaked = any(key_of_the_store in value for value in os.environ.values())
        return {"invocationSchemaVersion": "1.0", "invocationId": event["invocationId"], "results": [
            {"taskId": task["taskId"], "resultCode": "Succeeded",
             "resultString": f"{len(body)} {leaked}"}]}
"""


def site_packages():
    import boto3
    return str(pathlib.Path(boto3.__file__).parents[1])


@pytest.fixture(scope="module", params=sorted(set(peers.PEERS) & set(peers.CHOSEN)))
def peer(request, tmp_path_factory):
    kind = peers.PEERS[request.param]
    if missing := kind.missing():
        pytest.skip(missing)
    peer = kind(tmp_path_factory.mktemp(request.param))
    try:
        yield peer.start()
    finally:
        peer.stop()


def settings(url, **more):
    lines = ["[[endpoint]]", 'name = "peer"', f'url = "{url}"', 'buckets = ["!remote-not", "remote-*"]']
    lines += [f"{key} = {json.dumps(value)}" for key, value in more.items()]
    return "\n".join(lines) + "\n"


def server_on(folder, url, variables, **more):
    server = harness.Server(folder, extra_environment=variables)
    server.data_dir.mkdir(parents=True, mode=0o700)
    (server.data_dir / "longshore.toml").write_text(settings(url, **more))
    return server


BY_VARIABLES = {"access_key_id_variable": "PEER_KEY", "secret_access_key_variable": "PEER_SECRET"}


@pytest.fixture(scope="module")
def mapped(peer, tmp_path_factory):
    """A server to which the peer's buckets `remote-…` belong."""
    variables = {"PEER_KEY": peer.access_key, "PEER_SECRET": peer.secret_key}
    server = server_on(tmp_path_factory.mktemp("mapped"), peer.url, variables, **BY_VARIABLES).start()
    yield server
    server.stop()
    said = server.said()
    assert "panicked at" not in said, said[-4000:]
    assert peer.secret_key not in said, "a secret is in the log"


@pytest.fixture
def bucket(peer, name):
    bucket = "remote-" + name[-30:].strip("-")
    peer.s3.create_bucket(Bucket=bucket)
    return bucket


def put_all(peer, bucket, prefix=""):
    for key in KEYS:
        peer.s3.put_object(Bucket=bucket, Key=prefix + key, Body=f"content of {key}".encode())


def rows_of(bucket, prefix=""):
    return [(bucket, urllib.parse.quote(prefix + key)) for key in KEYS]


def test_a_job_has_its_manifest_objects_and_report_in_the_other_store_and_its_function_reads_and_writes_there(
        peer, mapped, bucket, name):
    put_all(peer, bucket)
    mapped.deploy(name, READER, environment={"PYTHONPATH": site_packages(), "REVERSED": peer.access_key[::-1]})
    rows = rows_of(bucket)
    etag = peer.s3.put_object(
        Bucket=bucket, Key="in/m.csv", Body="".join(f"{b},{k}\n" for b, k in rows).encode())["ETag"]
    job = mapped.create_job(bucket, f"arn:aws:lambda:us-east-1:000000000000:function:{name}", etag, key="in/m.csv")
    mapped.wait(job)
    for row in harness.audit(mapped, job, rows):
        key = urllib.parse.unquote(row.key)
        assert row.message == f"{len(f'content of {key}'.encode())} False", row
        # Straight at the store: it is there, and not only through us.
        there = peer.s3.get_object(Bucket=bucket, Key="out/" + key)
        assert there["Body"].read() == f"content of {key}".encode().upper()
        assert there["Metadata"] == {"from": "function"}
    listed = [o["Key"] for o in peer.s3.list_objects_v2(Bucket=bucket, Prefix=f"reports/job-{job}/")["Contents"]]
    assert f"reports/job-{job}/manifest.json" in listed
    assert bucket not in [b["Name"] for b in mapped.s3.list_buckets()["Buckets"]], "it is not an embedded one"


def refuses_encryption(peer, bucket):
    """The store's words if it does not encrypt with keys of its own; None if it says that it did."""
    try:
        put = peer.s3.put_object(Bucket=bucket, Key="probe", Body=b"x", ServerSideEncryption="AES256")
    except botocore.exceptions.ClientError as refused:
        return refused.response["Error"]["Code"]
    return None if put.get("ServerSideEncryption") == "AES256" else "NotEncrypted"


def encryption_of(peer, bucket, prefix):
    """What the store says of each of the objects below a prefix: their encryption by key."""
    found = peer.s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
    return {o["Key"]: peer.s3.head_object(Bucket=bucket, Key=o["Key"]).get("ServerSideEncryption") for o in found}


def test_a_list_is_encrypted_by_the_other_store_or_the_job_fails_in_its_words(peer, mapped, bucket, name):
    mapped.deploy(name, "def handler(event, context): pass")
    refused = refuses_encryption(peer, bucket)
    peer.s3.put_object(Bucket=bucket, Key="in/k", Body=b"x")
    location = {"Bucket": f"arn:aws:s3:::{bucket}", "ManifestFormat": "S3InventoryReport_CSV_20211130",
                "ManifestPrefix": "lists", "ManifestEncryption": {"SSES3": {}}}
    job = mapped.control.create_job(
        AccountId=harness.ACCOUNT, ConfirmationRequired=True, Priority=10, RoleArn=harness.ROLE, Report={"Enabled": False},
        Operation={"LambdaInvoke": {"FunctionArn": f"arn:aws:lambda:us-east-1:000000000000:function:{name}"}},
        ManifestGenerator={"S3JobManifestGenerator": {
            "SourceBucket": f"arn:aws:s3:::{bucket}", "EnableManifestOutput": True, "ManifestOutputLocation": location,
            "Filter": {"KeyNameConstraint": {"MatchAnyPrefix": ["in/"]}}}})["JobId"]
    described = mapped.wait(job, "Failed" if refused else "Suspended")
    there = encryption_of(peer, bucket, "lists/")
    if refused is None:
        assert len(there) == 2 and set(there.values()) == {"AES256"}, there
        return
    reasons = [reason["FailureReason"] for reason in described["FailureReasons"]]
    assert reasons[0] == "Error occurred when preparing manifest: Failed to write manifest"
    assert reasons[1].startswith(f"{bucket}: {refused}: "), reasons
    assert "GeneratedManifestDescriptor" not in described


def test_a_report_is_encrypted_by_the_other_store_as_the_setting_says_or_not_written(peer, bucket, name, tmp_path):
    variables = {"PEER_KEY": peer.access_key, "PEER_SECRET": peer.secret_key}
    server = server_on(tmp_path, peer.url, variables, report_encryption="AES256", **BY_VARIABLES).start()
    server.deploy(name, "def handler(event, context): pass")
    refused = refuses_encryption(peer, bucket)
    etag = peer.s3.put_object(Bucket=bucket, Key="m.csv", Body=f"{bucket},k\n".encode())["ETag"]
    function = f"arn:aws:lambda:us-east-1:000000000000:function:{name}"
    job = server.create_job(bucket, function, etag, key="m.csv")
    described = server.wait(job, "Failed" if refused else "Complete")
    there = encryption_of(peer, bucket, "reports/")
    if refused is None:
        assert len(there) == 3 and set(there.values()) == {"AES256"}, there
    else:
        assert [reason["FailureCode"] for reason in described["FailureReasons"]] == ["ReportDeliveryFailed"] * 2
        assert described["FailureReasons"][1]["FailureReason"].startswith(f"{bucket}: {refused}: ")
        assert f"reports/job-{job}/manifest.json" not in there
    server.stop()


def test_a_manifest_that_is_not_there_or_was_replaced_fails_the_job_with_the_reason(peer, mapped, bucket, name):
    mapped.deploy(name, "def handler(event, context): pass")
    function = f"arn:aws:lambda:us-east-1:000000000000:function:{name}"
    peer.s3.put_object(Bucket=bucket, Key="m.csv", Body=b"b,k\n")
    cases = [("m.csv", "0" * 32, "ManifestETagMismatch"), ("none.csv", "0" * 32, "ManifestNotFound")]
    for key, etag, code in cases:
        job = mapped.create_job(bucket, function, etag, key=key)
        failed = mapped.wait(job, "Failed")
        assert [reason["FailureCode"] for reason in failed["FailureReasons"]] == [code]


def test_the_aws_cli_works_on_the_other_store_through_us(peer, mapped, bucket, tmp_path):
    large = os.urandom(21 * 1024 * 1024)
    (tmp_path / "large").write_bytes(large)
    mapped.aws("s3", "cp", tmp_path / "large", f"s3://{bucket}/dir/large file")
    assert peer.s3.head_object(Bucket=bucket, Key="dir/large file")["ContentLength"] == len(large)
    mapped.aws("s3", "cp", f"s3://{bucket}/dir/large file", tmp_path / "back")
    assert hashlib.md5((tmp_path / "back").read_bytes()).digest() == hashlib.md5(large).digest()
    assert "dir/large file" in mapped.aws("s3", "ls", f"s3://{bucket}", "--recursive").stdout
    mapped.aws("s3", "mv", f"s3://{bucket}/dir/large file", f"s3://{bucket}/moved")
    assert [o["Key"] for o in peer.s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["moved"]
    mapped.aws("s3", "rm", f"s3://{bucket}", "--recursive")
    mapped.aws("s3", "rb", f"s3://{bucket}")
    with pytest.raises(botocore.exceptions.ClientError):
        peer.s3.head_bucket(Bucket=bucket)


def test_requests_keep_what_they_ask_for(peer, mapped, bucket):
    put_all(peer, bucket)
    found = []
    for page in mapped.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, PaginationConfig={"PageSize": 2}):
        found += [entry["Key"] for entry in page.get("Contents", [])]
    assert sorted(found) == sorted(KEYS)
    for key in KEYS:
        there = mapped.s3.get_object(Bucket=bucket, Key=key)
        assert there["Body"].read() == f"content of {key}".encode()
    head = mapped.s3.head_object(Bucket=bucket, Key="plain.txt")
    assert head["ContentLength"] == len("content of plain.txt")
    assert mapped.s3.get_object(Bucket=bucket, Key="plain.txt", Range="bytes=3-5")["Body"].read() == b"ten"
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        mapped.s3.get_object(Bucket=bucket, Key="plain.txt", IfNoneMatch=head["ETag"])
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 304
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        mapped.s3.get_object(Bucket=bucket, Key="none")
    assert refused.value.response["Error"]["Code"] == "NoSuchKey"
    mapped.s3.put_object_tagging(Bucket=bucket, Key="plain.txt", Tagging={"TagSet": [{"Key": "a", "Value": "b c"}]})
    assert peer.s3.get_object_tagging(Bucket=bucket, Key="plain.txt")["TagSet"] == [{"Key": "a", "Value": "b c"}]
    signer = mapped.boto("s3", signature_version="s3v4")
    url = signer.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": KEYS[1]})
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == f"content of {KEYS[1]}".encode()
    url = signer.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "by url"})
    urllib.request.urlopen(urllib.request.Request(url, data=b"put", method="PUT")).close()
    assert peer.s3.get_object(Bucket=bucket, Key="by url")["Body"].read() == b"put"
    deleted = mapped.s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in KEYS]})
    assert len(deleted["Deleted"]) == len(KEYS)
    assert [o["Key"] for o in peer.s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["by url"]


def test_a_version_of_the_other_store_is_what_a_task_names(peer, mapped, bucket, name):
    peer.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    versions = [peer.s3.put_object(Bucket=bucket, Key="k", Body=body)["VersionId"] for body in (b"one", b"two!")]
    mapped.deploy(name, """
        import boto3
        s3 = boto3.client("s3")
        def handler(event, context):
            task = event["tasks"][0]
            body = s3.get_object(Bucket=task["s3BucketArn"].split(":::")[1], Key=task["s3Key"], VersionId=task["s3VersionId"])["Body"].read()
            return {"invocationSchemaVersion": "1.0", "invocationId": event["invocationId"], "results": [
                {"taskId": task["taskId"], "resultCode": "Succeeded", "resultString": body.decode()}]}
    """, environment={"PYTHONPATH": site_packages()})
    rows = [(bucket, "k", version) for version in versions]
    etag = peer.s3.put_object(Bucket=bucket, Key="m.csv", Body="".join(",".join(r) + "\n" for r in rows).encode())["ETag"]
    job = mapped.create_job(bucket, f"arn:aws:lambda:us-east-1:000000000000:function:{name}", etag, key="m.csv",
                            fields=("Bucket", "Key", "VersionId"))
    mapped.wait(job)
    assert {row.version: row.message for row in harness.audit(mapped, job, rows)} == dict(zip(versions, ["one", "two!"]))


def test_embedded_buckets_stay_and_nothing_is_copied_between_stores(peer, mapped, bucket, name):
    peer.s3.put_object(Bucket=bucket, Key="k", Body=b"there")
    own = mapped.bucket("own-" + name[-20:].strip("-"))
    mapped.s3.put_object(Bucket=own, Key="k", Body=b"here")
    with pytest.raises(botocore.exceptions.ClientError):
        peer.s3.head_bucket(Bucket=own)
    for source, target in ((bucket, own), (own, bucket)):
        with pytest.raises(botocore.exceptions.ClientError) as refused:
            mapped.s3.copy_object(Bucket=target, Key="copy", CopySource={"Bucket": source, "Key": "k"})
        assert refused.value.response["Error"]["Code"] == "NotImplemented"
    mapped.s3.copy_object(Bucket=bucket, Key="a copy", CopySource={"Bucket": bucket, "Key": "k"})
    assert peer.s3.get_object(Bucket=bucket, Key="a copy")["Body"].read() == b"there"


def test_a_wrong_signature_reaches_nobody(mapped, bucket):
    # What the function or client signed is verified here; the endpoint's key is not for everybody who connects.
    import boto3
    stranger = boto3.session.Session().client(
        "s3", endpoint_url=f"http://{mapped.address}", region_name="us-east-1", aws_access_key_id="AKIASTRANGER",
        aws_secret_access_key="wrong")
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        stranger.list_objects_v2(Bucket=bucket)
    assert refused.value.response["Error"]["Code"] == "InvalidAccessKeyId"


def test_a_key_that_some_servers_would_take_for_another_bucket_is_refused(mapped, bucket):
    for key in ("../remote-other/k", "a/../../x", "./k"):
        with pytest.raises(botocore.exceptions.ClientError) as refused:
            mapped.s3.put_object(Bucket=bucket, Key=key, Body=b"x")
        assert refused.value.response["Error"]["Code"] == "InvalidArgument", key


def test_requests_to_another_store_pass_the_policies_of_this_one(peer, mapped, bucket, name):
    for key in ("mine/x", "mine/y", "theirs/x"):
        peer.s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    person, arn = test_permissions.Person(mapped, name), f"arn:aws:s3:::{bucket}"
    s3, allow, denied = person.client("s3"), test_permissions.allow, test_permissions.denied
    with denied(person.arn, "s3:GetObject", f"{arn}/mine/x"):
        s3.get_object(Bucket=bucket, Key="mine/x")
    person.may(allow(["s3:GetObject", "s3:DeleteObject", "s3:PutObject"], f"{arn}/mine/*"),
               allow("s3:ListBucket", arn, {"StringLike": {"s3:prefix": "mine/*"}}))
    assert s3.get_object(Bucket=bucket, Key="mine/x")["Body"].read() == b"x"
    assert [o["Key"] for o in s3.list_objects_v2(Bucket=bucket, Prefix="mine/")["Contents"]] == ["mine/x", "mine/y"]
    for action, key, call in [
        ("s3:ListBucket", "", lambda: s3.list_objects_v2(Bucket=bucket)),
        ("s3:GetObject", "/theirs/x", lambda: s3.get_object(Bucket=bucket, Key="theirs/x")),
        ("s3:PutObject", "/theirs/x", lambda: s3.put_object(Bucket=bucket, Key="theirs/x", Body=b"")),
        ("s3:GetObject", "/theirs/x", lambda: s3.copy_object(Bucket=bucket, Key="mine/z", CopySource={"Bucket": bucket, "Key": "theirs/x"})),
        ("s3:PutObjectTagging", "/mine/x", lambda: s3.put_object_tagging(Bucket=bucket, Key="mine/x", Tagging={"TagSet": []})),
        ("s3:GetBucketPolicy", "", lambda: s3.get_bucket_policy(Bucket=bucket)),
        ("s3:DeleteBucket", "", lambda: s3.delete_bucket(Bucket=bucket)),
    ]:
        with denied(person.arn, action, arn + key):
            call()
    # A list of keys to delete is read, and refused whole for the one that is not theirs.
    with denied(person.arn, "s3:DeleteObject", f"{arn}/theirs/x"):
        s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "mine/x"}, {"Key": "theirs/x"}]})
    assert len(peer.s3.list_objects_v2(Bucket=bucket)["Contents"]) == 3
    s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "mine/x"}, {"Key": "mine/y"}]})
    assert [o["Key"] for o in peer.s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["theirs/x"]


# --- longshore run ---


class Shell:
    def __init__(self, folder, peer):
        self.folder = folder
        self.environment = harness.plain_environment(folder) | {
            "AWS_ACCESS_KEY_ID": peer.access_key, "AWS_SECRET_ACCESS_KEY": peer.secret_key}
        (folder / "handler.py").write_text(textwrap.dedent("""
            import os, time
            def handler(event, context):
                task = event["tasks"][0]
                if "LOG" in os.environ:
                    with open(os.environ["LOG"], "a") as file:
                        file.write(task["s3Key"] + "\\n")
                    time.sleep(0.1)
                return {"invocationSchemaVersion": "1.0", "invocationId": event["invocationId"], "results": [
                    {"taskId": task["taskId"], "resultCode": "Succeeded", "resultString": task["s3Key"]}]}
        """))

    def command(self, *arguments):
        return [str(word) for word in (harness.LONGSHORE, "run", *arguments)]

    def run(self, *arguments, status=0, environment=None):
        done = harness.run(self.command(*arguments), environment or self.environment, cwd=self.folder, check=False)
        assert done.returncode == status, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def reported(self, folder):
        found = []
        for manifest in (self.folder / folder).rglob("manifest.json"):
            for result in json.loads(manifest.read_text())["Results"]:
                text = (manifest.parent / "results" / result["Key"].rsplit("/", 1)[-1]).read_text()
                found += [line.split(",")[1].strip('"') for line in text.splitlines()]
        return sorted(urllib.parse.unquote(key) for key in found)


@pytest.fixture
def shell(tmp_path, peer):
    return Shell(tmp_path, peer)


def test_a_run_takes_its_objects_from_the_other_store_and_reports_where_it_is_told(peer, bucket, shell):
    put_all(peer, bucket, "in/")
    peer.s3.put_object(Bucket=bucket, Key="other", Body=b"not this one")
    wanted = sorted("in/" + key for key in KEYS)
    shell.run("handler.py", "--source", f"s3://{bucket}/in/", "--endpoint-url", peer.url, "--report", "report")
    assert shell.reported("report") == wanted

    body = "".join(f"{b},{k}\n" for b, k in rows_of(bucket, "in/")).encode()
    peer.s3.put_object(Bucket=bucket, Key="m.csv", Body=body)
    shell.run("handler.py", "--manifest", f"s3://{bucket}/m.csv", "--endpoint-url", peer.url, "--region", peer.region,
              "--report", f"s3://{bucket}/runs")
    listed = [o["Key"] for o in peer.s3.list_objects_v2(Bucket=bucket, Prefix="runs/job-")["Contents"]]
    assert sum(key.endswith("/manifest.json") for key in listed) == 1
    results = [key for key in listed if "/results/" in key]
    assert peer.s3.get_object(Bucket=bucket, Key=results[0])["Body"].read().count(b"\r\n") == len(KEYS)


def test_a_run_takes_endpoint_and_credentials_from_a_profile_which_counts_for_more_than_the_environment(peer, bucket, shell):
    put_all(peer, bucket)
    aws = shell.folder / ".aws"
    aws.mkdir()
    (aws / "config").write_text(f"[profile store]\nendpoint_url = {peer.url}\nregion = {peer.region}\n")
    (aws / "credentials").write_text(
        f"[store]\naws_access_key_id = {peer.access_key}\naws_secret_access_key = {peer.secret_key}\n")
    wrong = shell.environment | {"AWS_ACCESS_KEY_ID": "AKWRONG", "AWS_SECRET_ACCESS_KEY": "wrong"}
    shell.run("handler.py", "--source", f"s3://{bucket}", "--profile", "store", "--report", "report", environment=wrong)
    assert shell.reported("report") == sorted(KEYS)
    done = shell.run("handler.py", "--source", f"s3://{bucket}", "--profile", "none", status=64)
    assert "there is no profile none in the AWS configuration files" in done.stderr


def test_a_run_on_the_other_store_is_resumed_without_a_secret_in_its_state(peer, bucket, shell):
    shell.environment |= harness.UNCONFINED
    log, keys = shell.folder / "invocations", [f"k{n:03}" for n in range(40)]
    for key in keys:
        peer.s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    running = subprocess.Popen(
        shell.command("handler.py", "--source", f"s3://{bucket}", "--endpoint-url", peer.url, "--report", "report",
                      "--concurrency", "2", "--env", f"LOG={log}"),
        env=shell.environment, cwd=shell.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    harness.wait_for("the twelfth task", lambda: log.exists() and log.read_text().count("\n") >= 12)
    running.kill()
    running.wait()
    states = list((shell.folder / ".local/state/longshore/runs").glob("*/run.json"))
    assert [json.loads(state.read_text())["endpoint"]["url"] for state in states] == [peer.url]
    assert peer.secret_key not in states[0].read_text()
    shell.run("--resume")
    assert shell.reported("report") == keys
    assert len(keys) <= log.read_text().count("\n") < len(keys) + 12, "what had a recorded result was not invoked again"


@pytest.mark.parametrize("arguments, said", [
    (["--source", "s3://bucket", "--endpoint-url", "http://192.0.2.1:9000"], "plain HTTP"),
    (["--source", ".", "--endpoint-url", "http://127.0.0.1:1"], "nothing of this run is in a store"),
    (["--source", "s3://bucket", "--endpoint-url", "127.0.0.1:9000"], "no endpoint"),
], ids=["plain-http", "nothing-remote", "no-url"])
def test_a_run_is_refused_before_it_begins_if_its_endpoint_cannot_be_meant(tmp_path, arguments, said):
    class Anybody:
        access_key, secret_key = "AK", "secret"
    done = Shell(tmp_path, Anybody).run("handler.py", *arguments, status=64)
    assert said in done.stderr


# --- settings, and stores that misbehave ---


def test_a_bucket_that_is_in_both_places_keeps_the_server_from_starting_until_it_is_said_which(tmp_path):
    server = harness.Server(tmp_path).start()
    server.bucket("remote-both")
    server.stop()
    config = server.data_dir / "longshore.toml"
    config.write_text(settings("http://127.0.0.1:1", anonymous=True))
    done = harness.run([harness.LONGSHORE, "serve", "--data-dir", server.data_dir, "--listen", "127.0.0.1:0"],
                       harness.plain_environment(server.home), check=False)
    assert done.returncode == 64
    assert "remote-both is in the embedded storage" in done.stderr and '"!remote-both"' in done.stderr
    config.write_text(settings("http://127.0.0.1:1", anonymous=True).replace('["', '["!remote-both", "', 1))
    server.start()
    assert server.s3.list_objects_v2(Bucket="remote-both")["KeyCount"] == 0
    server.stop()


@pytest.mark.parametrize("more, said", [
    ({"url": "http://192.0.2.1"}, "plain HTTP"),
    ({"buckets": []}, "buckets"),
    ({"profil": "x"}, "profil"),
    ({"access_key_id_variable": "NOT_SET_1", "secret_access_key_variable": "NOT_SET_2"}, "NOT_SET_1 is not set"),
    ({"credentials_file": "/nowhere/credentials"}, "/nowhere/credentials is not there"),
    ({"report_encryption": "aes"}, "expected one of"),
    ({"report_kms_key_id": "k"}, 'report_kms_key_id needs report_encryption = "aws:kms"'),
], ids=["plain-http", "no-buckets", "unknown", "unset", "no-file", "encryption", "key"])
def test_an_endpoint_that_cannot_be_meant_keeps_the_server_from_starting(tmp_path, more, said):
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    values = {"name": "e", "url": "https://192.0.2.1", "buckets": ["b*"]} | more
    (data / "longshore.toml").write_text("[[endpoint]]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in values.items()))
    done = harness.run([harness.LONGSHORE, "serve", "--data-dir", data, "--listen", "127.0.0.1:0"],
                       harness.plain_environment(tmp_path), check=False)
    assert (done.returncode, said in done.stderr) == (64, True), done.stderr


class Rude(http.server.BaseHTTPRequestHandler):
    """A store without manners: what it does is in the key."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self.server.asked.append((self.path, dict(self.headers)))
        key = self.path.rpartition("/")[2].partition("?")[0]
        if key == "cut":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.send_header("ETag", '"e"')
            self.end_headers()
            self.wfile.write(b"x" * 10)
            self.close_connection = True
        elif key == "away":
            self.send_response(307)
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.send_header("Set-Cookie", "a=b")
            self.send_header("x-amz-meta-kept", "yes")
            self.end_headers()
            self.wfile.write(b"ok")

    def do_PUT(self):
        length = int(self.headers["Content-Length"])
        received = self.rfile.read(length)
        if len(received) < length:
            self.close_connection = True
            return
        self.server.asked.append((self.path, dict(self.headers), received))
        self.send_response(200)
        self.send_header("ETag", '"e"')
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def rude(tmp_path):
    """The rude store, and a server that is mapped to it without a key."""
    store = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Rude)
    store.asked = []
    threading.Thread(target=store.serve_forever, daemon=True).start()
    server = server_on(tmp_path, f"http://127.0.0.1:{store.server_port}", {}, anonymous=True).start()
    yield store, server
    server.stop()
    store.shutdown()


def test_an_answer_that_ends_early_is_never_a_short_object(rude):
    _, server = rude
    with pytest.raises((botocore.exceptions.HTTPClientError, botocore.exceptions.IncompleteReadError)):
        server.s3.get_object(Bucket="remote-x", Key="cut")["Body"].read()


def test_only_what_the_store_needs_goes_on_and_only_what_the_client_needs_comes_back(rude):
    store, server = rude
    answer = server.s3.get_object(Bucket="remote-x", Key="fine")
    assert answer["Metadata"] == {"kept": "yes"}
    assert "set-cookie" not in answer["ResponseMetadata"]["HTTPHeaders"]
    _, headers = store.asked[-1]
    names = {name.lower() for name in headers}
    assert "authorization" not in names and not [n for n in names if n.startswith("x-amz-date")], "anonymous is anonymous"
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        server.s3.get_object(Bucket="remote-x", Key="away")
    assert "location" not in refused.value.response["ResponseMetadata"]["HTTPHeaders"]


def test_a_body_that_is_not_what_was_signed_never_arrives_whole(rude):
    store, server = rude
    server.s3.put_object(Bucket="remote-x", Key="right", Body=b"r" * 1000)
    assert store.asked[-1][2] == b"r" * 1000
    before = len(store.asked)
    import base64
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        server.s3.put_object(Bucket="remote-x", Key="wrong", Body=b"w" * 1000, ContentMD5=base64.b64encode(b"0" * 16).decode())
    assert refused.value.response["Error"]["Code"] == "BadDigest"
    assert all(len(asked) < 3 or asked[2] != b"w" * 1000 for asked in store.asked[before:])


def test_the_chunks_of_a_body_are_taken_off_and_its_trailer_is_checked(tmp_path):
    import base64
    import zlib
    import botocore.auth
    import botocore.awsrequest
    import botocore.credentials

    store = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Rude)
    store.asked = []
    threading.Thread(target=store.serve_forever, daemon=True).start()
    variables = {"LONGSHORE_UNSIGNED_PAYLOAD": "true"}
    server = server_on(tmp_path, f"http://127.0.0.1:{store.server_port}", variables, anonymous=True).start()
    keys = botocore.credentials.Credentials(server.exports["AWS_ACCESS_KEY_ID"], server.exports["AWS_SECRET_ACCESS_KEY"])
    body = b"x" * 5000

    def put(checksum):
        trailer = base64.b64encode(checksum.to_bytes(4, "big"))
        chunked = b"1388\r\n" + body + b"\r\n0\r\nx-amz-checksum-crc32:" + trailer + b"\r\n\r\n"
        request = botocore.awsrequest.AWSRequest("PUT", f"http://{server.address}/remote-x/k", data=chunked, headers={
            "Content-Encoding": "aws-chunked,gzip", "X-Amz-Content-SHA256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
            "X-Amz-Decoded-Content-Length": str(len(body)), "X-Amz-Trailer": "x-amz-checksum-crc32"})
        botocore.auth.SigV4Auth(keys, "s3", "us-east-1").add_auth(request)
        sent = urllib.request.Request(request.url, data=chunked, headers=dict(request.headers.items()), method="PUT")
        return urllib.request.urlopen(sent, timeout=30)

    put(zlib.crc32(body)).close()
    _, headers, received = store.asked[-1]
    assert received == body
    assert headers["content-encoding"] == "gzip" and "x-amz-trailer" not in {name.lower() for name in headers}
    with pytest.raises(urllib.error.HTTPError) as refused:
        put(zlib.crc32(b"another"))
    assert (refused.value.code, b"BadDigest" in refused.value.read()) == (400, True)
    assert len(store.asked) == 1, "the store never had the whole of it"
    server.stop()
    store.shutdown()


def test_a_store_that_is_down_is_told_as_such_and_may_be_asked_again(tmp_path):
    server = server_on(tmp_path, f"http://127.0.0.1:{harness.free_port()}", {}, anonymous=True).start()
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        server.s3.get_object(Bucket="remote-x", Key="k")
    response = refused.value.response
    assert (response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]) == (503, "ServiceUnavailable")
    server.stop()
