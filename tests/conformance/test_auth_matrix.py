"""A sample of the matrix of operations and defects over real sockets, with requests that botocore signs. All of it is in process:
`crates/server/src/dispatch/matrix.rs`.
"""

import datetime
import http.client
import json
import urllib.parse

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest

from audit import ACCOUNT
from harness import REGION

CELLS_MIN = 200
FORM = {"content-type": "application/x-www-form-urlencoded"}
XML = {"content-type": "application/xml"}

# Name, service, method, target, headers, body, permissions. {b} is the test's bucket.
OPERATIONS = [
    ("ListBuckets", "s3", "GET", "/", {}, b"", ["s3:ListAllMyBuckets"]),
    ("ListObjectsV2", "s3", "GET", "/{b}?list-type=2&prefix=k", {}, b"", ["s3:ListBucket"]),
    ("GetObject", "s3", "GET", "/{b}/kept", {}, b"", ["s3:GetObject"]),
    ("HeadObject", "s3", "HEAD", "/{b}/kept", {}, b"", ["s3:GetObject"]),
    ("GetObjectTagging", "s3", "GET", "/{b}/kept?tagging", {}, b"", ["s3:GetObjectTagging"]),
    ("PutObject", "s3", "PUT", "/{b}/kept", {}, b"kept", ["s3:PutObject"]),
    ("DeleteObject", "s3", "DELETE", "/{b}/deleted", {}, b"", ["s3:DeleteObject"]),
    ("CopyObject", "s3", "PUT", "/{b}/kept", {"x-amz-copy-source": "/{b}/source"}, b"", ["s3:PutObject", "s3:GetObject"]),
    ("ListJobs", "s3", "GET", "/v20180820/jobs", {"x-amz-account-id": ACCOUNT}, b"", ["s3:ListJobs"]),
    ("PutFunctionRecursionConfig", "lambda", "PUT", "/2024-08-31/functions/{b}/recursion-config", {},
     b'{"RecursiveLoop": "Terminate"}', ["lambda:PutFunctionRecursionConfig"]),
    ("ListFunctions", "lambda", "GET", "/2015-03-31/functions", {}, b"", ["lambda:ListFunctions"]),
    ("GetAccountSettings", "lambda", "GET", "/2016-08-19/account-settings", {}, b"", ["lambda:GetAccountSettings"]),
    ("ListRoles", "iam", "POST", "/", FORM, b"Action=ListRoles&Version=2010-05-08", ["iam:ListRoles"]),
    ("Metrics", "s3", "GET", "/_longshore/v1/metrics", {}, b"", ["cloudwatch:GetMetricData"]),
]


class Request:
    """A request that is signed and may then be changed."""

    def __init__(self, address, service, method, target, headers, body):
        self.address, self.service, self.region = address, service, REGION
        self.method, self.target, self.headers, self.body = method, target, dict(headers), body

    def signed(self, keys, ago=0):
        request = botocore.awsrequest.AWSRequest(
            self.method, f"http://{self.address}{self.target}", headers=self.headers, data=self.body)
        kind = botocore.auth.S3SigV4Auth if self.service == "s3" else botocore.auth.SigV4Auth

        class Ago(kind):
            def _modify_request_before_signing(self, request):
                then = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=ago)
                request.context["timestamp"] = then.strftime("%Y%m%dT%H%M%SZ")
                super()._modify_request_before_signing(request)

        request.context["payload_signing_enabled"] = True
        Ago(keys, self.service, self.region).add_auth(request)
        self.headers = {name.lower(): value for name, value in request.headers.items()}
        return self

    def presigned(self, keys, expires=600, ago=0):
        # botocore puts a body's members into the query, and S3's links do not sign it.
        request = botocore.awsrequest.AWSRequest(self.method, f"http://{self.address}{self.target}", headers=self.headers)
        kind = botocore.auth.S3SigV4QueryAuth if self.service == "s3" else botocore.auth.SigV4QueryAuth

        class Ago(kind):
            def _modify_request_before_signing(self, request):
                then = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=ago)
                request.context["timestamp"] = then.strftime("%Y%m%dT%H%M%SZ")
                super()._modify_request_before_signing(request)

        Ago(keys, self.service, self.region, expires=expires).add_auth(request)
        self.target = request.url.split(self.address, 1)[1]
        return self

    def send(self, *more):
        connection = http.client.HTTPConnection(self.address, timeout=20)
        connection.putrequest(self.method, self.target, skip_host=True, skip_accept_encoding=True)
        sent = {"host": self.address, "content-length": str(len(self.body))} | self.headers
        for name, value in [*sent.items(), *more]:
            connection.putheader(name, value)
        connection.endheaders(self.body or None)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, body


def changed(request, **parts):
    for name, value in parts.items():
        setattr(request, name, value)
    return request


def flipped(request):
    value = request.headers["authorization"]
    request.headers["authorization"] = value[:-1] + ("0" if value[-1] != "0" else "1")
    return request


def query(request, pair):
    return changed(request, target=request.target + ("&" if "?" in request.target else "?") + pair)


def of_keys(keys, **parts):
    frozen = {"access_key": keys.access_key, "secret_key": keys.secret_key, "token": keys.token} | parts
    return botocore.credentials.Credentials(**frozen)


# What is wrong; makes an answer of a request and the keys of who may.
DEFECTS = {
    "nothing signed": lambda r, k, w: r.send(),
    "another secret": lambda r, k, w: r.signed(of_keys(k, secret_key="x" * 40)).send(),
    "a key that there is not": lambda r, k, w: r.signed(of_keys(k, access_key="AKIAIOSFODNN7EXAMPLE")).send(),
    "a flipped bit": lambda r, k, w: flipped(r.signed(k)).send(),
    "two authorizations": lambda r, k, w: r.signed(k).send(("authorization", r.headers["authorization"])),
    "another method": lambda r, k, w: changed(r.signed(k), method="PATCH").send(),
    "another path": lambda r, k, w: changed(r.signed(k), target="/" + r.target).send(),
    "an unsigned parameter": lambda r, k, w: query(r.signed(k), "x-id=Anything").send(),
    "an unsigned header of Amazon's": lambda r, k, w: r.signed(k).send(("x-amz-meta-added", "v")),
    "another region": lambda r, k, w: changed(r, region="eu-west-9").signed(k).send(),
    "sixteen minutes ago": lambda r, k, w: r.signed(k, ago=16 * 60).send(),
    "in sixteen minutes": lambda r, k, w: r.signed(k, ago=-16 * 60).send(),
    "a link that has expired": lambda r, k, w: r.presigned(k, expires=60, ago=120).send(),
    "a link made longer": lambda r, k, w: (
        r.presigned(k), changed(r, target=r.target.replace("X-Amz-Expires=600", "X-Amz-Expires=9000")))[1].send(),
    "no policy": lambda r, k, w: r.signed(w["nobody"]).send(),
    "no policy, and a header that says otherwise": lambda r, k, w: r.signed(w["nobody"]).send(
        ("x-forwarded-for", "127.0.0.1"), ("x-original-url", "/_longshore/health"), ("x-http-method-override", "GET")),
    "denied outright": lambda r, k, w: r.signed(w["denied"]).send(),
    "a session that allows nothing": lambda r, k, w: r.signed(w["narrowed"]).send(),
    "a session without its token": lambda r, k, w: r.signed(of_keys(w["session"], token=None)).send(),
}
# The form of the right request that differs from a defect's in the defect alone.
CONTROLS = {
    "signed": lambda r, k, w: r.signed(k).send(),
    "presigned": lambda r, k, w: r.presigned(k).send(),
    "in a session": lambda r, k, w: r.signed(w["session"]).send(),
}


def document(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": [
        {"Effect": effect, "Action": actions, "Resource": "*"} for effect, actions in statements]})


@pytest.fixture
def who(server, name):
    """Callers: nobody, one who is denied all that there are rows for, sessions of a role that may all; and who makes more of them."""
    iam, all_asked = server.boto("iam"), sorted({action for row in OPERATIONS for action in row[-1]})

    def user(suffix, *statements):
        iam.create_user(UserName=f"{name[-6:]}-{suffix}")
        if statements:
            iam.put_user_policy(UserName=f"{name[-6:]}-{suffix}", PolicyName="p", PolicyDocument=document(*statements))
        key = iam.create_access_key(UserName=f"{name[-6:]}-{suffix}")["AccessKey"]
        return botocore.credentials.Credentials(key["AccessKeyId"], key["SecretAccessKey"])

    made = {"nobody": user("nobody"), "denied": user("denied", ("Allow", "*"), ("Deny", all_asked)), "user": user}
    trust = {"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole"}]}
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=document(("Allow", "*")))
    assuming = user("assuming", ("Allow", "sts:AssumeRole"))
    for session, policy in [("session", None), ("narrowed", document(("Allow", "cloudwatch:PutMetricData")))]:
        body = f"Action=AssumeRole&Version=2011-06-15&RoleArn={role}&RoleSessionName=matrix"
        if policy:
            body += "&Policy=" + urllib.parse.quote(policy)
        request = Request(server.address, "sts", "POST", "/", FORM, body.encode())
        status, answer = request.signed(assuming).send()
        assert status == 200, answer
        part = lambda tag: answer.decode().split(f"<{tag}>")[1].split(f"</{tag}>")[0]
        made[session] = botocore.credentials.Credentials(part("AccessKeyId"), part("SecretAccessKey"), part("SessionToken"))
    return made


def state(server, bucket):
    listed = server.s3.list_objects_v2(Bucket=bucket)["Contents"]
    function = server.functions.get_function_configuration(FunctionName=bucket)
    users = server.boto("iam").list_users()["Users"]
    return [(o["Key"], o["ETag"], o["LastModified"]) for o in listed], function["RevisionId"], [u["UserName"] for u in users]


def test_defects_are_refused_on_the_wire_and_the_same_requests_without_them_are_served(server, name, who):
    server.bucket(name)
    for key in ("kept", "deleted", "source"):
        server.s3.put_object(Bucket=name, Key=key, Body=b"kept")
    server.deploy(name, "def handler(event, context): pass")
    cells = 0
    for operation, service, method, target, headers, body, actions in OPERATIONS:
        keys = who["user"](operation, ("Allow", actions))

        def request():
            filled = {header: value.replace("{b}", name) for header, value in headers.items()}
            return Request(server.address, service, method, target.replace("{b}", name), filled, body)

        before = state(server, name)
        # A link to another service than S3 signs an empty body.
        links = service == "s3" or not body
        for defect, send in DEFECTS.items():
            if "link" in defect and not links:
                continue
            status, answer = send(request(), keys, who)
            assert 400 <= status < 500, f"{operation} with {defect}: {status} {answer[:500]}"
            cells += 1
        assert state(server, name) == before, operation
        for control, send in CONTROLS.items():
            if control == "presigned" and not links:
                continue
            status, answer = send(request(), keys, who)
            assert status < 300, f"{operation}, {control}: {status} {answer[:500]}"
    assert cells >= CELLS_MIN, cells
