"""The audit log as its operator has it: books apart, who was not let in, and files that may be moved."""

import datetime
import json
import os
import signal

import boto3
import botocore.exceptions
import pytest

import harness

BOOKS = ("audit.jsonl", "audit-data.jsonl", "audit-reads.jsonl", "audit-denied.jsonl", "audit-refused.jsonl")


def lines(server, book):
    return [json.loads(line) for line in (server.data_dir / book).read_text().splitlines()]


def test_who_is_not_let_in_is_told_nothing_new_and_its_operator_is_told_why(server, name):
    iam = server.boto("iam")
    iam.create_user(UserName=name)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    iam.update_access_key(UserName=name, AccessKeyId=key["AccessKeyId"], Status="Inactive")
    with harness.environ(server.environment):
        s3 = boto3.session.Session().client("s3", aws_access_key_id=key["AccessKeyId"], aws_secret_access_key=key["SecretAccessKey"])
    with pytest.raises(botocore.exceptions.ClientError, match="does not exist in our records"):
        s3.list_buckets()

    def own():
        return [line for line in lines(server, "audit-refused.jsonl") if line.get("accessKeyId") == key["AccessKeyId"]]

    (line,) = harness.wait_for("its line", own, 10)
    assert (line["because"], line["service"], line["sourceIp"]) == ("the key is inactive", "s3", "127.0.0.1")
    assert key["SecretAccessKey"] not in json.dumps(line)
    shown = server.longshore("iam", "denials", "--refused", "--limit", "100").stdout
    assert [text for text in shown.splitlines() if key["AccessKeyId"] in text and "127.0.0.1" in text and "the key is inactive" in text], shown


def test_a_stranger_pushes_no_denial_beyond_the_limit(server, name):
    iam = server.boto("iam")
    iam.create_user(UserName=name)
    key = iam.create_access_key(UserName=name)["AccessKey"]

    def attempt(key_id, says):
        with harness.environ(server.environment):
            s3 = boto3.session.Session().client("s3", aws_access_key_id=key_id, aws_secret_access_key=key["SecretAccessKey"])
        with pytest.raises(botocore.exceptions.ClientError, match=says):
            s3.get_object(Bucket="bucket", Key=name)

    attempt(key["AccessKeyId"], "AccessDenied")
    for number in range(3):
        attempt(f"AKIASTRANGER0000000{number}", "does not exist in our records")
    harness.wait_for("the strangers", lambda: "AKIASTRANGER00000002" in (server.data_dir / "audit-refused.jsonl").read_text(), 10)
    shown = server.longshore("iam", "denials", "--limit", "1")
    assert name in shown.stdout and "STRANGER" not in shown.stdout and "--refused" in shown.stderr, shown
    refused = json.loads(server.longshore("iam", "denials", "--refused", "--limit", "2", "--json").stdout)["refused"]
    assert [line["accessKeyId"][-1] for line in refused] == ["2", "1"]


def test_files_that_were_moved_are_made_anew_on_sighup_and_nothing_pushes_out_what_was_changed(server, name):
    for book in BOOKS:
        (server.data_dir / book).rename(server.data_dir / f"moved-{name}-{book}")
    os.kill(server.process.pid, signal.SIGHUP)
    harness.wait_for("new files", lambda: all((server.data_dir / book).exists() for book in BOOKS), 10)
    server.boto("iam").create_user(UserName=name)
    bucket = server.bucket(name)
    server.s3.put_object(Bucket=bucket, Key="k", Body=b"")
    server.s3.get_object(Bucket=bucket, Key="k")
    object_arn = f"arn:aws:s3:::{bucket}/k"
    for book, action, resource in [
        ("audit.jsonl", "iam:CreateUser", f"arn:aws:iam::{harness.ACCOUNT}:user/{name}"),
        ("audit-data.jsonl", "s3:PutObject", object_arn),
        ("audit-reads.jsonl", "s3:GetObject", object_arn),
    ]:
        found = lambda: [line for line in lines(server, book) if (line["action"], line["resource"]) == (action, resource)]
        harness.wait_for(f"{action} in {book}", found, 10)
    assert not any(line["resource"] == object_arn for line in lines(server, "audit.jsonl"))


def test_the_end_of_the_log_is_written_before_a_server_ends(tmp_path):
    server = harness.Server(tmp_path).start()
    bucket = server.bucket("ends")
    server.s3.put_object(Bucket=bucket, Key="k", Body=b"")
    many = 130
    for _ in range(many):
        server.s3.get_object(Bucket=bucket, Key="k")
    server.stop()
    told = [line.get("moreAlike", 1) for line in lines(server, "audit-reads.jsonl") if line["action"] == "s3:GetObject"]
    assert sum(told) == many, told


def test_a_function_that_signs_with_a_users_key_is_named_and_not_said_to_have_lost_its_user(server, name):
    iam = server.boto("iam")
    iam.create_user(UserName=name)
    key = iam.create_access_key(UserName=name)["AccessKey"]["AccessKeyId"]
    arn = server.deploy(name, """
        import os, urllib.error, urllib.request
        def handler(event, context):
            try:
                return urllib.request.urlopen(os.environ["AWS_ENDPOINT_URL_S3"].rstrip("/") + event["target"]).status
            except urllib.error.HTTPError as error:
                return error.code
    """)
    at = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    target = f"/b/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={key}%2F{at[:8]}%2F{harness.REGION}%2Fs3%2Faws4_request"
    target += f"&X-Amz-Date={at}&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature={64 * '0'}"
    answer = server.functions.invoke(FunctionName=name, Payload=json.dumps({"target": target}))
    assert json.load(answer["Payload"]) == 403

    def own():
        return [line for line in lines(server, "audit-refused.jsonl") if line.get("accessKeyId") == key]

    (line,) = harness.wait_for("its line", own, 10)
    assert (line["because"], line["sourceFunctionArn"]) == ("not the key of the function's environment", arn), line


def test_the_role_of_a_new_function_is_taken_on_for_the_request_that_makes_it(server, name):
    made = server.functions.create_function(
        FunctionName=name, Runtime="python3.11", Handler="handler.handler", Role=harness.ROLE,
        Code={"ZipFile": harness.zip_of({"handler.py": "def handler(event, context): pass\n"})})
    id_ = made["ResponseMetadata"]["RequestId"]

    def own():
        return [line for line in lines(server, "audit-data.jsonl") if (line["action"], line["requestId"]) == ("sts:AssumeRole", id_)]

    (line,) = harness.wait_for("its line", own, 10)
    assert (line["principal"], line["resource"]) == ("lambda.amazonaws.com", harness.ROLE)
