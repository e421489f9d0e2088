"""The credentials of a function's environment: they open its own way to S3, and neither another's nor the server's port.

The matrix of defects that the server's own tests have is of requests without a socket; here a real function is on the way that the host gave it.
"""

import json
import re

import botocore.auth
import botocore.credentials
import pytest

import harness
from harness import REGION

# Says what it has been given, and sends what it is told to from where it is: each request by its headers, which are signed outside.
SENDER = """
import http.client, os, urllib.parse

def handler(event, context):
    own = {name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")}
    host = urllib.parse.urlsplit(os.environ["AWS_ENDPOINT_URL_S3"]).netloc
    answers = []
    for headers in event["requests"]:
        connection = http.client.HTTPConnection(host, timeout=10)
        connection.request("GET", event["path"], headers=headers)
        answers.append(connection.getresponse().read().decode())
        connection.close()
    return {"own": own, "host": host, "answers": answers}
"""


class Sender:
    """A function whose code sends requests for an object, from an environment that lives as long as the test."""

    def __init__(self, server, name, path):
        self.server, self.name, self.path = server, name, path
        server.deploy(name, SENDER)
        given, _ = self.invoke([])
        self.keys = botocore.credentials.Credentials(*given["own"].values())
        self.host = given["host"]

    def invoke(self, requests):
        event = json.dumps({"path": self.path, "requests": requests})
        answer = self.server.functions.invoke(FunctionName=self.name, Payload=event)
        given = json.loads(answer["Payload"].read())
        assert "FunctionError" not in answer, given
        return given, [code(answer) for answer in given["answers"]]


def code(answer):
    """The code of an error; anything else as it is."""
    found = re.search(r"<Code>(\w+)</Code>", answer)
    return found.group(1) if found else answer


def with_own(own, key=None, secret=None, token=None):
    return botocore.credentials.Credentials(key or own.access_key, secret or own.secret_key, token or own.token)


def without_token(own):
    return botocore.credentials.Credentials(own.access_key, own.secret_key)


def signed(server, path, keys, service="s3", host=None):
    kind = botocore.auth.S3SigV4Auth if service == "s3" else botocore.auth.SigV4Auth
    return harness.signed(server, "GET", service, path, signer=kind(keys, service, REGION), host=host)


@pytest.fixture
def senders(server, name):
    server.s3.put_object(Bucket=server.bucket(name), Key="k", Body=b"x")
    return [Sender(server, f"{name}-{which}", f"/{name}/k") for which in "ab"]


def test_the_credentials_of_an_environment_open_its_own_way_to_s3_and_nothing_else(server, name, senders):
    function, other = senders
    own, others, root = function.keys, other.keys, harness.credentials(server)
    table = [
        (own, "x"),
        (with_own(own, secret=others.secret_key), "SignatureDoesNotMatch"),
        (with_own(own, token=others.token), "InvalidToken"),
        (without_token(own), "InvalidToken"),
        (with_own(own, key=others.access_key), "InvalidAccessKeyId"),
        (others, "InvalidAccessKeyId"),
        (root, "InvalidAccessKeyId"),
    ]
    requests = [signed(server, function.path, keys, host=function.host) for keys, _ in table]
    _, came = function.invoke([*requests, {}])
    assert came == [*(wanted for _, wanted in table), "AccessDenied"]
    # The other's are right where they belong.
    assert other.invoke([signed(server, other.path, others, host=other.host)])[1] == ["x"]

    # At the server's own port there is no such key, while the function runs.
    for service, path, unknown in [
        ("s3", function.path, "InvalidAccessKeyId"),
        ("s3", "/v20180820/jobs", "InvalidAccessKeyId"),
        ("lambda", "/2015-03-31/functions", "UnrecognizedClientException"),
        ("s3", "/_longshore/v1/metrics", "InvalidAccessKeyId"),
        ("iam", "/?Action=ListUsers&Version=2010-05-08", "InvalidClientTokenId"),
        ("sts", "/?Action=GetCallerIdentity&Version=2011-06-15", "InvalidClientTokenId"),
    ]:
        for keys, refused in [(root, False), (own, True), (without_token(own), True)]:
            status, headers, body = harness.send(server, "GET", path, signed(server, path, keys, service))
            assert (status >= 400) == refused, (service, path, status, body)
            assert not refused or unknown in body.decode() + str(headers), (service, path, body)
    given, came = function.invoke(requests[:1])
    assert came == ["x"] and given["own"]["AWS_ACCESS_KEY_ID"] == own.access_key, "the environment is the same, and its way is open"
