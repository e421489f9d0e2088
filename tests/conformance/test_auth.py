"""Who gets in: nobody without a right signature, and nobody gets through to anywhere else."""

import datetime
import json
import os
import socket
import stat
import urllib.parse
import xml.etree.ElementTree

import botocore.auth
import pytest

import harness
from harness import ACCOUNT, REGION, credentials, send, signed

S3, LAMBDA, CONTROL = (
    ("GET", "s3", "/"),
    ("GET", "lambda", "/2015-03-31/functions/"),
    ("GET", "s3", "/v20180820/jobs"),
)
SERVICES = pytest.mark.parametrize("method, service, path", [S3, LAMBDA, CONTROL], ids=["s3", "lambda", "s3control"])


def error_code(service, path, status, headers, body):
    """The error's code, read from the form in which this service's clients expect it."""
    if service == "lambda":
        json.loads(body)
        return headers["x-amzn-ErrorType"].split(":")[0]
    root = xml.etree.ElementTree.fromstring(body)
    tags = [element.tag.split("}")[-1] for element in root.iter()]
    assert tags[0] == ("ErrorResponse" if path.startswith("/v20180820/") else "Error"), body
    assert headers["x-amz-request-id"]
    return next(element.text for element in root.iter() if element.tag.split("}")[-1] == "Code")


@SERVICES
def test_a_request_signed_by_botocore_is_let_in(server, method, service, path):
    status, _, body = send(server, method, path, signed(server, method, service, path))
    assert status == 200, body


@SERVICES
def test_an_anonymous_request_is_refused(server, method, service, path):
    headers = {"x-amz-account-id": ACCOUNT} if "v20180820" in path else {}
    status, headers, body = send(server, method, path, headers)
    assert status == 403
    assert error_code(service, path, status, headers, body) in {"AccessDenied", "MissingAuthenticationTokenException", "MissingAuthenticationToken"}


@SERVICES
def test_a_wrong_secret_is_refused(server, method, service, path):
    wrong = botocore.auth.SigV4Auth(credentials(server, secret="x" * 40), service, REGION)
    if service == "s3":
        wrong = botocore.auth.S3SigV4Auth(credentials(server, secret="x" * 40), service, REGION)
    status, headers, body = send(server, method, path, signed(server, method, service, path, signer=wrong))
    assert status == 403
    assert error_code(service, path, status, headers, body) in {"SignatureDoesNotMatch", "InvalidSignatureException"}


@SERVICES
def test_an_unknown_key_is_refused(server, method, service, path):
    kind = botocore.auth.S3SigV4Auth if service == "s3" else botocore.auth.SigV4Auth
    unknown = kind(credentials(server, key="AKIAIOSFODNN7EXAMPLE"), service, REGION)
    status, headers, body = send(server, method, path, signed(server, method, service, path, signer=unknown))
    assert status == 403
    assert error_code(service, path, status, headers, body) in {"InvalidAccessKeyId", "UnrecognizedClientException", "InvalidClientTokenId"}


def flip(text, position):
    return text[:position] + ("0" if text[position] != "0" else "1") + text[position + 1:]


@pytest.mark.parametrize("change", [
    lambda method, target, headers, body: ("DELETE", target, headers, body),
    lambda method, target, headers, body: (method, target + "x", headers, body),
    lambda method, target, headers, body: (method, target + "?acl", headers, body),
    lambda method, target, headers, body: (method, target, headers, b"<CreateBucketConfiguration/>"),
    lambda method, target, headers, body: (method, target, headers | {"Host": "elsewhere.example"}, body),
    lambda method, target, headers, body: (method, target, headers | {"X-Amz-Date": flip(headers["X-Amz-Date"], 14)}, body),
    lambda method, target, headers, body: (method, target, headers | {"x-amz-acl": "public-read"}, body),
    lambda method, target, headers, body: (
        method, target, headers | {"Authorization": flip(headers["Authorization"], len(headers["Authorization"]) - 1)}, body),
    lambda method, target, headers, body: (
        method, target, headers | {"Authorization": headers["Authorization"].replace("us-east-1", "eu-west-1")}, body),
    lambda method, target, headers, body: (
        method, target, headers | {"Authorization": headers["Authorization"].replace("/s3/", "/lambda/")}, body),
    lambda method, target, headers, body: (
        method, target, headers | {"Authorization": headers["Authorization"].replace("host;", "")}, body),
    lambda method, target, headers, body: (method, target, headers | {"Authorization": "Basic YTpi"}, body),
    lambda method, target, headers, body: (method, target, headers | {"Authorization": "AWS4-HMAC-SHA256"}, body),
    lambda method, target, headers, body: (method, target, headers | {"Authorization": ""}, body),
], ids=["method", "path", "query", "body", "host", "date", "unsigned-amz-header", "signature", "region", "service",
        "unsigned-host", "basic", "empty-fields", "empty"])
def test_a_tampered_request_is_refused_and_changes_nothing(server, name, change):
    """The signature is right, for another request than the one that is sent."""
    headers = signed(server, "PUT", "s3", f"/{name}")
    method, target, headers, body = change("PUT", f"/{name}", headers, b"")
    status, _, answer = send(server, method, target, headers, body)
    assert status in (400, 403), answer
    assert name not in {bucket["Name"] for bucket in server.s3.list_buckets()["Buckets"]}


def test_a_request_from_a_quarter_of_an_hour_ago_is_refused(server, monkeypatch):
    old = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(minutes=16)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda remove_tzinfo=True: old.replace(tzinfo=None))
    headers = signed(server, "GET", "s3", "/")
    assert headers["X-Amz-Date"] == old.strftime("%Y%m%dT%H%M%SZ")
    status, headers, body = send(server, "GET", "/", headers)
    assert (status, error_code("s3", "/", status, headers, body)) == (403, "RequestTimeTooSkewed")


def test_a_presigned_url_opens_its_object_and_no_other(server, name):
    server.bucket(name)
    for key in ("a b+c/é.txt", "other"):
        server.s3.put_object(Bucket=name, Key=key, Body=key.encode())
    url = server.boto("s3", signature_version="s3v4").generate_presigned_url(
        "get_object", {"Bucket": name, "Key": "a b+c/é.txt"}, ExpiresIn=60)
    parts = urllib.parse.urlsplit(url)
    host = {"Host": parts.netloc}
    status, _, body = send(server, "GET", f"{parts.path}?{parts.query}", host)
    assert (status, body.decode()) == (200, "a b+c/é.txt")
    for target in (
        f"/{name}/other?{parts.query}",
        f"{parts.path}?{parts.query.replace('X-Amz-Expires=60', 'X-Amz-Expires=600')}",
        f"{parts.path}?{parts.query}0",
        f"{parts.path}?{parts.query}&response-content-type=text/html",
    ):
        assert send(server, "GET", target, host)[0] in (400, 403), target
    assert send(server, "PUT", f"{parts.path}?{parts.query}", host, b"x")[0] == 403


def test_the_aws_cli_presigns_urls_that_work(server, name, tmp_path):
    server.s3.put_object(Bucket=server.bucket(name), Key="k", Body=b"by a URL")

    def presign(**environment):
        printed = harness.run([harness.AWS, "s3", "presign", f"s3://{name}/k"], server.environment | environment).stdout
        parts = urllib.parse.urlsplit(printed.strip())
        return send(server, "GET", f"{parts.path}?{parts.query}", {"Host": parts.netloc})

    # Version 1 of the AWS CLI signs a URL for us-east-1 in the old way unless it is told not to; AWS refuses it for
    # every bucket made since 2020, with these words.
    status, _, body = presign()
    assert (status, b"Please use AWS4-HMAC-SHA256" in body) == (400, True), body
    (tmp_path / "config").write_text("[default]\ns3 =\n    signature_version = s3v4\n")
    status, _, body = presign(AWS_CONFIG_FILE=str(tmp_path / "config"))
    assert (status, body) == (200, b"by a URL")


def test_an_expired_presigned_url_is_refused(server, name, monkeypatch):
    server.s3.put_object(Bucket=server.bucket(name), Key="k", Body=b"x")
    old = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=90)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda remove_tzinfo=True: old.replace(tzinfo=None))
    parts = urllib.parse.urlsplit(
        server.boto("s3", signature_version="s3v4").generate_presigned_url(
            "get_object", {"Bucket": name, "Key": "k"}, ExpiresIn=60))
    status, _, body = send(server, "GET", f"{parts.path}?{parts.query}", {"Host": parts.netloc})
    assert status == 403 and b"AccessDenied" in body and b"expired" in body, body


@pytest.mark.parametrize("form", ["absolute", "connect", "absolute-with-own-host-header"])
def test_the_server_is_a_proxy_for_nobody(server, form):
    with socket.socket() as outside:
        outside.bind(("127.0.0.1", 0))
        outside.listen()
        outside.settimeout(0.3)
        foreign = "127.0.0.1:%d" % outside.getsockname()[1]
        if form == "connect":
            status, _, _ = send(server, "CONNECT", foreign, host=foreign)
        else:
            host = server.address if form.endswith("header") else foreign
            status, _, _ = send(server, "GET", f"http://{foreign}/", host=host)
        assert 400 <= status < 500 and status != 404
        with pytest.raises(TimeoutError):
            outside.accept()


def test_absolute_form_requests_for_its_own_names_are_served(server):
    for host in (server.address, f"{ACCOUNT}.longshore.internal:{server.address.split(':')[1]}"):
        headers = signed(server, "GET", "s3", "/v20180820/jobs", host=host)
        status, _, body = send(server, "GET", f"http://{host}/v20180820/jobs", headers | {"Host": host})
        assert status == 200, body
        assert send(server, "GET", f"http://{host}/v20180820/jobs", {"x-amz-account-id": ACCOUNT, "Host": host})[0] == 403


def test_the_account_of_another_is_refused(server):
    headers = signed(server, "GET", "s3", "/v20180820/jobs", headers={"x-amz-account-id": "111111111111"})
    assert send(server, "GET", "/v20180820/jobs", headers)[0] == 403
    host = f"111111111111.longshore.internal:{server.address.split(':')[1]}"
    headers = signed(server, "GET", "s3", "/v20180820/jobs", host=host)
    assert send(server, "GET", "/v20180820/jobs", headers | {"Host": host})[0] == 400


def test_the_data_directory_is_for_its_owner_alone_and_credentials_are_random(server, tmp_path):
    assert stat.S_IMODE(server.data_dir.stat().st_mode) == 0o700
    secret = server.exports["AWS_SECRET_ACCESS_KEY"]
    assert len(secret) >= 40
    for path in server.data_dir.rglob("*"):
        if path.is_file() and not path.is_symlink() and secret.encode() in path.read_bytes():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert secret not in server.said(), "the log does not show the secret"
    other = harness.Server(tmp_path).start()
    other.stop()
    assert other.exports["AWS_SECRET_ACCESS_KEY"] != secret


def test_the_secret_is_not_in_the_arguments_of_any_process(server):
    secret = server.exports["AWS_SECRET_ACCESS_KEY"].encode()
    for process in os.listdir("/proc"):
        if process.isdigit():
            try:
                with open(f"/proc/{process}/cmdline", "rb") as arguments:
                    assert secret not in arguments.read()
            except OSError:
                pass  # it has ended meanwhile


def test_a_key_never_becomes_a_path(server, name, tmp_path):
    server.bucket(name)
    before = {path for path in server.directory.rglob("*") if server.data_dir not in path.parents}
    keys = ["../../outside", "..", "a/../../b", "/etc/passwd", "a//b", "./c", "con\\..\\d", "%2e%2e/%2e%2e/e", "x" * 1024, "nul\x01"]
    for key in keys:
        server.s3.put_object(Bucket=name, Key=key, Body=key.encode())
    for key in keys:
        assert server.s3.get_object(Bucket=name, Key=key)["Body"].read() == key.encode()
    assert {entry["Key"] for entry in server.s3.list_objects_v2(Bucket=name)["Contents"]} == set(keys)
    assert {path for path in server.directory.rglob("*") if server.data_dir not in path.parents} == before


# --- services that there are not here ---

FOREIGN = {
    "ec2 describe-instances": "ec2",
    "logs describe-log-groups": "logs", "dynamodb list-tables": "dynamodb", "apigateway get-rest-apis": "apigateway",
    "route53 list-hosted-zones": "route53", "sns list-topics": "sns",
}


@pytest.mark.parametrize("command, service", FOREIGN.items(), ids=FOREIGN.values())
def test_a_service_that_longshore_does_not_have_is_named_in_the_form_that_its_clients_read(server, command, service):
    environment = server.environment | {"AWS_MAX_ATTEMPTS": "1"}
    said = harness.run([harness.AWS, *command.split()], environment, check=False)
    assert said.returncode != 0 and said.stdout == ""
    assert "An error occurred (NotImplemented) when calling the " in said.stderr
    assert f"Longshore serves Amazon S3, S3 Control with the jobs of S3 Batch Operations, Lambda, IAM and STS; there is no {service} here." in said.stderr
    assert ("longshore logs FUNCTION" in said.stderr) == (service == "logs")


@pytest.mark.parametrize("body, headers", [
    (b"Action=ListTopics&Version=2010-03-31", {"content-type": "application/x-www-form-urlencoded"}),
    (b"{}", {"content-type": "application/x-amz-json-1.1", "x-amz-target": "Logs_20140328.DescribeLogGroups"}),
], ids=["query", "json"])
def test_what_longshore_has_is_told_to_nobody_whose_signature_does_not_hold(server, body, headers):
    wrong, unknown = credentials(server, secret="x" * 40), credentials(server, key="AKIAIOSFODNN7EXAMPLE")
    right = signed(server, "POST", "sns", "/", headers=dict(headers), body=body)
    answers = [send(server, "POST", "/", right, body + b" ")] + [
        send(server, "POST", "/", signed(server, "POST", "sns", "/", headers=dict(headers), body=body,
                                         signer=botocore.auth.SigV4Auth(who, "sns", REGION)), body)
        for who in (wrong, unknown)]
    for status, _, answer in answers:
        assert status == 400 and b"AuthorizationHeaderMalformed" in answer and b"NotImplemented" not in answer, answer
        assert b"incorrect service" in answer and b"Longshore" not in answer, answer
    status, _, answer = send(server, "POST", "/", right, body)
    assert status == 501 and b"NotImplemented" in answer and b"there is no sns here" in answer
    root = b"<ErrorResponse><Error><Type>Sender</Type><Code>NotImplemented</Code>"
    assert (json.loads(answer)["__type"] == "NotImplemented") if "x-amz-target" in headers else (root in answer), answer
