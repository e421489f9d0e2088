"""The S3 Control API to the letter, as clients see it: both dialects of errors, hosts and accounts, what may stand in a
document, idempotency, paging, tags, and the limit on requests. Each answer that boto3 gets is validated in passing: see
`model.py`."""

import concurrent.futures
import contextlib
import socket
import uuid
import xml.etree.ElementTree

import boto3
import botocore.auth
import botocore.awsrequest
import botocore.exceptions
import pytest

import harness
import model
from harness import ACCOUNT, ROLE
from test_auth import credentials, send, signed

OBSERVED, MODELED = "observed", "modeled"
OTHER = "999999999999"
ENABLED = {"Enabled": True, "Bucket": "arn:aws:s3:::r", "Format": "Report_CSV_20180820", "ReportScope": "AllTasks"}
NOBODY = "93735294-df46-44d5-8638-6356f335324e"
JOBS = "/v20180820/jobs"


@pytest.fixture(scope="module")
def modeled(tmp_path_factory):
    """A server with the other dialect, a base path, and jobs that start by themselves unless they say otherwise."""
    server = harness.Server(tmp_path_factory.mktemp("modeled"), {
        "LONGSHORE_JOBS_ERROR_DIALECT": "modeled", "LONGSHORE_BASE_PATH": "/batch",
        "LONGSHORE_JOBS_CONFIRMATION_DEFAULT": "false",
    }).start()
    yield server
    server.stop()


@pytest.fixture(params=[OBSERVED, MODELED])
def spoken(request, server):
    """A server, and its dialect."""
    return (server if request.param == OBSERVED else request.getfixturevalue("modeled")), request.param


@contextlib.contextmanager
def refused(spoken, observed, modeled, match=None):
    """Expects an error: its status and code in each dialect, and words that both have."""
    with pytest.raises(botocore.exceptions.ClientError, match=match) as error:
        yield error
    response = error.value.response
    status, code = (observed, modeled)[spoken[1] == MODELED].split()
    assert (response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]) == (int(status), code)


def waiting(server, name):
    """A job that waits for its confirmation, and never calls a function."""
    job = server.create_job(name, "f", server.put_manifest(server.bucket(name), [(name, "k")]), confirmation=True)
    server.wait(job, "Suspended")
    return job


def request_of(name, **more):
    """The parameters of a CreateJob whose manifest is not there: it is accepted, and the job fails later."""
    return {
        "AccountId": ACCOUNT, "ConfirmationRequired": True, "Operation": {"LambdaInvoke": {"FunctionArn": "f"}},
        "Report": {"Enabled": False}, "Priority": 10, "RoleArn": ROLE, "Description": name,
        "Manifest": {
            "Spec": {"Format": "S3BatchOperations_CSV_20180820", "Fields": ["Bucket", "Key"]},
            "Location": {"ObjectArn": f"arn:aws:s3:::{name}/none.csv", "ETag": "e"},
        },
    } | more


def made(server, name):
    """The jobs with this description."""
    return [job["JobId"] for job in server.control.list_jobs(AccountId=ACCOUNT)["Jobs"] if job.get("Description") == name]


def post(server, body, path=JOBS, method="POST", headers=None, **options):
    """Sends a raw document, signed. Returns status, error code or None, and body; validates an error."""
    body = body.encode() if isinstance(body, str) else body
    headers = signed(server, method, "s3", path, body, headers, host=options.get("host"))
    status, answered, content = send(server, method, path, headers, body, host=options.get("host"))
    return status, answered, content


def code_of(status, headers, content):
    assert status >= 300, content
    model.validate_error(status, {name.lower(): value for name, value in headers.items()}, content)
    return xml.etree.ElementTree.fromstring(content).findtext(".//{*}Error/{*}Code")


def document(token, operation='<LambdaInvoke><FunctionArn>f</FunctionArn></LambdaInvoke>', **pieces):
    parts = {
        "ConfirmationRequired": "true", "Operation": operation, "Report": "<Enabled>false</Enabled>",
        "ClientRequestToken": token, "Priority": "1", "RoleArn": ROLE,
        "Manifest": "<Spec><Format>S3BatchOperations_CSV_20180820</Format><Fields><member>Bucket</member><member>Key</member>"
                    "</Fields></Spec><Location><ObjectArn>arn:aws:s3:::none/none.csv</ObjectArn><ETag>e</ETag></Location>",
    } | pieces
    inside = "".join(f"<{name}>{text}</{name}>" for name, text in parts.items() if text is not None)
    return f'<CreateJobRequest xmlns="http://awss3control.amazonaws.com/doc/2018-08-20/">{inside}</CreateJobRequest>'


# --- errors, row by row (1.11) ---


def test_row_1_a_field_that_breaks_a_rule(spoken, name):
    with refused(spoken, "400 InvalidRequest", "400 BadRequestException", "Request invalid: RoleArn must be"):
        spoken[0].control.create_job(**request_of(name, RoleArn=f"arn:aws:iam::{ACCOUNT}:user/u"))
    assert made(spoken[0], name) == []


def test_row_2_a_document_that_does_not_parse_or_has_another_root(spoken):
    server, dialect = spoken
    for body in ("", "{}", "<CreateJobRequest>", "<CreateJob/>", document("t").replace("</Report>", "")):
        answer = post(server, body)
        assert (answer[0], code_of(*answer)) == (400, "MalformedXML" if dialect == OBSERVED else "BadRequestException"), body
        assert b"The XML you provided was not well-formed or did not validate against our published schema" in answer[2]


def test_row_3_a_token_of_another_request(spoken, name):
    token = str(uuid.uuid4())
    spoken[0].control.create_job(**request_of(name, ClientRequestToken=token))
    with refused(spoken, "400 IdempotencyException", "400 IdempotencyException"):
        spoken[0].control.create_job(**request_of(name, ClientRequestToken=token, Priority=11))


@pytest.mark.parametrize("call, more", [
    ("describe_job", {}), ("update_job_priority", {"Priority": 1}), ("update_job_status", {"RequestedJobStatus": "Ready"}),
    ("get_job_tagging", {}), ("put_job_tagging", {"Tags": []}), ("delete_job_tagging", {}),
])
def test_row_4_a_job_that_is_not_known(spoken, call, more):
    with refused(spoken, "404 NoSuchJob", "400 NotFoundException", "The specified job does not exist"):
        getattr(spoken[0].control, call)(AccountId=ACCOUNT, JobId=NOBODY, **more)


def test_row_5_a_status_that_the_job_cannot_take(spoken, name):
    server, job = spoken[0], waiting(spoken[0], name)
    server.control.update_job_status(AccountId=ACCOUNT, JobId=job, RequestedJobStatus="Cancelled")
    with refused(spoken, "400 InvalidRequest", "400 JobStatusException", "Requested job status forbidden"):
        server.control.update_job_status(AccountId=ACCOUNT, JobId=job, RequestedJobStatus="Ready")


def test_row_6_a_status_that_is_none(spoken, name):
    job = waiting(spoken[0], name)
    with refused(spoken, "400 InvalidRequest", "400 BadRequestException", "Request invalid"):
        spoken[0].control.update_job_status(AccountId=ACCOUNT, JobId=job, RequestedJobStatus="Active")
    answer = post(spoken[0], "", f"{JOBS}/{job}/status")
    assert code_of(*answer) == ("InvalidRequest" if spoken[1] == OBSERVED else "BadRequestException")


def test_row_7_a_priority_that_comes_too_late_or_is_none(spoken, name):
    server, job = spoken[0], waiting(spoken[0], name)
    for query in ("", "?priority=", "?priority=-1", "?priority=%2B1", "?priority=2147483648", "?priority=1.5", "?priority=1&priority=2"):
        answer = post(server, "", f"{JOBS}/{job}/priority{query}")
        assert (answer[0], code_of(*answer)) == (400, "InvalidRequest" if spoken[1] == OBSERVED else "BadRequestException")
    server.control.update_job_priority(AccountId=ACCOUNT, JobId=job, Priority=2147483647)
    assert server.describe(job)["Priority"] == 2147483647
    server.control.update_job_status(AccountId=ACCOUNT, JobId=job, RequestedJobStatus="Cancelled")
    with refused(spoken, "400 InvalidRequest", "400 BadRequestException", "Cancelled cannot be changed"):
        server.control.update_job_priority(AccountId=ACCOUNT, JobId=job, Priority=1)


@pytest.mark.parametrize("query", [
    "jobStatuses=Done", "jobStatuses=%01%EF%BF%BF", "jobStatuses=Active&jobStatuses=", "maxResults=-1", "maxResults=1001", "maxResults=ten", "maxResults=",
    "maxResults=1&maxResults=2",
])
def test_row_8_a_parameter_of_a_list_that_is_none(spoken, query):
    answer = post(spoken[0], "", f"{JOBS}?{query}", "GET")
    assert (answer[0], code_of(*answer)) == (400, "InvalidRequest" if spoken[1] == OBSERVED else "InvalidRequestException")
    assert b"Request invalid" in answer[2]


def test_row_9_a_page_token_that_is_none(spoken):
    with refused(spoken, "400 InvalidNextTokenException", "400 InvalidNextTokenException"):
        spoken[0].control.list_jobs(AccountId=ACCOUNT, NextToken="made+up")


def test_row_10_too_many_tags(spoken, name):
    server, job = spoken[0], waiting(spoken[0], name)
    tags = [{"Key": str(number), "Value": ""} for number in range(51)]
    with refused(spoken, "400 TooManyTagsException", "400 TooManyTagsException"):
        server.control.put_job_tagging(AccountId=ACCOUNT, JobId=job, Tags=tags)
    assert server.control.get_job_tagging(AccountId=ACCOUNT, JobId=job)["Tags"] == [], "nothing was stored"
    server.control.put_job_tagging(AccountId=ACCOUNT, JobId=job, Tags=tags[:50])
    assert server.control.get_job_tagging(AccountId=ACCOUNT, JobId=job)["Tags"] == tags[:50]
    with refused(spoken, "400 InvalidRequest", "400 BadRequestException", "at most 50 tags"):
        server.control.create_job(**request_of(f"{name}-tags", Tags=tags))


@pytest.mark.parametrize("dialect", [OBSERVED, MODELED])
def test_row_11_too_many_requests(tmp_path, dialect):
    server = harness.Server(tmp_path, {
        "LONGSHORE_JOBS_ERROR_DIALECT": dialect, "LONGSHORE_JOBS_REQUESTS_LIMIT_LOOPBACK": "true",
        "LONGSHORE_JOBS_REQUESTS_PER_SECOND": "1", "LONGSHORE_JOBS_REQUESTS_BURST": "3",
    }).start()
    try:
        with refused((server, dialect), "503 SlowDown", "400 TooManyRequestsException", "Please reduce your request rate"):
            for _ in range(100):  # a hundred seconds, where one request a second is let in
                server.control.list_jobs(AccountId=ACCOUNT)
        server.s3.list_buckets()  # the other APIs are not limited
        harness.wait_for("another request", lambda: admitted(server))
    finally:
        server.stop()


def admitted(server):
    try:
        return server.control.list_jobs(AccountId=ACCOUNT)
    except botocore.exceptions.ClientError:
        return None


def test_a_server_that_only_this_machine_reaches_limits_nobody(server):
    for _ in range(250):
        server.control.list_jobs(AccountId=ACCOUNT, MaxResults=1)


def test_row_12_a_role_of_another_account(spoken, name):
    with refused(spoken, "403 AccessDenied", "403 AccessDenied", "Cross-account pass role is not allowed"):
        spoken[0].control.create_job(**request_of(name, RoleArn=f"arn:aws:iam::{OTHER}:role/r"))


def test_row_13_a_signature_or_key_that_is_not_right(spoken):
    for wrong, code in (({"secret": "x" * 40}, "SignatureDoesNotMatch"), ({"key": "AKIAIOSFODNN7EXAMPLE"}, "InvalidAccessKeyId")):
        signer = botocore.auth.S3SigV4Auth(credentials(spoken[0], **wrong), "s3", harness.REGION)
        headers = signed(spoken[0], "GET", "s3", JOBS, signer=signer)
        answer = send(spoken[0], "GET", JOBS, headers)
        assert (answer[0], code_of(*answer)) == (403, code)


def test_row_14_an_account_that_is_missing_or_malformed(spoken):
    wanted = (400, "InvalidRequest" if spoken[1] == OBSERVED else "BadRequestException")
    for account in ("", "12345678901", "1234567890123", "12345678901x"):
        answer = post(spoken[0], "", JOBS, "GET", {"x-amz-account-id": account})
        assert (answer[0], code_of(*answer)) == wanted, account
    twice = post(spoken[0], "", JOBS, "GET", {"x-amz-account-id": f"{ACCOUNT},{ACCOUNT}"})
    assert (twice[0], code_of(*twice)) == wanted
    # signed without it
    request = botocore.awsrequest.AWSRequest("GET", f"http://{spoken[0].address}{JOBS}")
    botocore.auth.S3SigV4Auth(credentials(spoken[0]), "s3", harness.REGION).add_auth(request)
    answer = send(spoken[0], "GET", JOBS, dict(request.headers))
    assert (answer[0], code_of(*answer)) == wanted


def test_row_15_an_account_that_is_not_the_callers(spoken):
    with refused(spoken, "403 AccessDenied", "403 AccessDenied", "Access Denied"):
        spoken[0].control.list_jobs(AccountId=OTHER)


def test_row_17_a_path_or_a_method_that_is_not_there(spoken):
    for method, path, status, code in [
        ("GET", "/v20180820/", 404, "NoSuchResource"),
        ("GET", "/v20180820/jobs/a/b/c", 404, "NoSuchResource"),
        ("GET", "/v20180820/accesspoint", 404, "NoSuchResource"),
        ("DELETE", "/v20180820/jobs", 405, "MethodNotAllowed"),
        ("PUT", f"/v20180820/jobs/{NOBODY}", 405, "MethodNotAllowed"),
        ("GET", f"/v20180820/jobs/{NOBODY}/status", 405, "MethodNotAllowed"),
    ]:
        answer = post(spoken[0], "", path, method)
        assert (answer[0], code_of(*answer)) == (status, code), path


def test_a_typed_client_gets_typed_exceptions_in_the_modeled_dialect(modeled, name):
    control, job = modeled.control, waiting(modeled, name)
    with pytest.raises(control.exceptions.NotFoundException):
        control.describe_job(AccountId=ACCOUNT, JobId=NOBODY)
    control.update_job_status(AccountId=ACCOUNT, JobId=job, RequestedJobStatus="Cancelled")
    with pytest.raises(control.exceptions.JobStatusException):
        control.update_job_status(AccountId=ACCOUNT, JobId=job, RequestedJobStatus="Ready")
    with pytest.raises(control.exceptions.BadRequestException):
        control.create_job(**request_of(name, RoleArn="arn:aws:iam::1:role/r"))
    with pytest.raises(control.exceptions.InvalidNextTokenException):
        control.list_jobs(AccountId=ACCOUNT, NextToken="x")


# --- hosts and accounts (1.3) ---


@pytest.mark.parametrize("host, code", [
    ("{0}.localhost", None), ("{0}.s3-control.localhost", None), ("jobs.localhost", None), ("localhost", None),
    ("{1}.localhost", "InvalidRequest"), ("{1}.s3-control.localhost", "InvalidRequest"),
])
def test_n_10_an_account_in_the_host_is_the_one_in_the_header(server, host, code):
    host = host.format(ACCOUNT, OTHER) + ":" + server.address.rpartition(":")[2]
    answer = post(server, "", JOBS, "GET", host=host)
    assert (answer[0], code and code_of(*answer)) == ((400, code) if code else (200, None)), answer[2]


def test_n_11_a_target_in_absolute_form_is_routed_by_its_path(server):
    host = f"{ACCOUNT}.longshore.internal:{server.address.rpartition(':')[2]}"
    headers = signed(server, "GET", "s3", JOBS, host=host)
    status, _, body = send(server, "GET", f"http://{host}{JOBS}", headers | {"Host": host})
    assert status == 200, body


def test_n_13_a_base_path_may_stand_before_the_paths_and_need_not(modeled, name):
    endpoint = modeled.exports.get("AWS_ENDPOINT_URL_S3_CONTROL") or modeled.exports["AWS_ENDPOINT_URL"]
    with harness.environ(modeled.environment):
        based = model.watch(boto3.session.Session().client("s3control", endpoint_url=endpoint + "/batch"))
    job = based.create_job(**request_of(name))["JobId"]
    assert modeled.describe(job)["Description"] == name
    assert based.describe_job(AccountId=ACCOUNT, JobId=job)["Job"]["JobId"] == job
    answer = post(modeled, "", f"/batch{JOBS}", "GET", {"x-amz-account-id": ACCOUNT})
    assert answer[0] == 200, answer[2]
    other = send(modeled, "GET", f"/other{JOBS}", signed(modeled, "GET", "s3", f"/other{JOBS}"))
    assert (other[0], b"NoSuchBucket" in other[2]) == (404, True), "any other first segment is a bucket"


def test_every_answer_has_its_ids_and_says_when_and_by_whom(server):
    for method, path in [("GET", JOBS), ("GET", f"{JOBS}/{NOBODY}"), ("GET", "/"), ("GET", "/no-such-bucket-here")]:
        _, headers, body = post(server, "", path, method)
        for header in ("x-amz-request-id", "x-amz-id-2", "Date", "Server"):
            assert headers[header], (path, header)
        if b"<RequestId>" in body:
            assert headers["x-amz-request-id"].encode() in body and headers["x-amz-id-2"].encode() in body


def test_a_client_that_waits_for_100_continue_is_told_to_go_on(server, name):
    body = document(str(uuid.uuid4()), Description=name).encode()
    headers = signed(server, "POST", "s3", JOBS, body) | {"Expect": "100-continue", "Host": server.address}
    head = f"POST {JOBS} HTTP/1.1\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
    host, _, port = server.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection, connection.makefile("rb") as answers:
        connection.sendall(head.encode())
        assert answers.readline() == b"HTTP/1.1 100 Continue\r\n", "before a byte of the body was sent"
        connection.sendall(body)
        rest = answers.read()
    assert b"HTTP/1.1 200 OK" in rest and b"<JobId>" in rest, rest
    assert len(made(server, name)) == 1


# --- documents (1.4) ---


def test_x_1_the_members_of_a_list_may_have_any_name(server):
    tags = "<S3Tag><Key>a</Key><Value>1</Value></S3Tag><x><Key>b</Key><Value/></x>"
    body = document(str(uuid.uuid4()), Tags=tags).replace("<member>Bucket</member>", "<JobManifestFieldName>Bucket</JobManifestFieldName>")
    status, _, content = post(server, body)
    assert status == 200, content
    job = xml.etree.ElementTree.fromstring(content).findtext("{*}JobId")
    assert server.control.get_job_tagging(AccountId=ACCOUNT, JobId=job)["Tags"] == [
        {"Key": "a", "Value": "1"}, {"Key": "b", "Value": ""}]
    assert server.describe(job)["Manifest"]["Spec"]["Fields"] == ["Bucket", "Key"]


@pytest.mark.parametrize("change", [
    lambda body: '<?xml version="1.0" encoding="UTF-8"?>\n' + body,
    lambda body: body.replace(' xmlns="http://awss3control.amazonaws.com/doc/2018-08-20/"', ""),
    lambda body: body.replace("<Priority>", "<Unknown><Deep/></Unknown><Priority>"),
    lambda body: body.replace("<Priority>1</Priority>", "<!-- why --><Priority><![CDATA[1]]></Priority>"),
    lambda body: body.replace("><", ">\n  <"),
], ids=["prolog", "no-namespace", "unknown-element", "comment-and-cdata", "indented"])
def test_a_document_may_be_written_in_many_ways(server, change):
    token = str(uuid.uuid4())
    first = post(server, document(token), headers={"Content-Type": "application/xml"})
    again = post(server, change(document(token)))
    assert (first[0], again[0]) == (200, 200), again[2]
    assert first[2] == again[2], "the same request, and so the same job"


@pytest.mark.parametrize("body", [
    lambda: '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]>' + document("&e;"),
    lambda: '<!DOCTYPE CreateJobRequest>' + document("t"),
    lambda: document("&undeclared;"),
    lambda: "<?php ?>" + document("t"),
    lambda: document("t").encode("utf-16"),
    lambda: document("t") + document("t"),
    lambda: "<a>" * 1000,
], ids=["external-entity", "dtd", "entity", "instruction", "utf-16", "two-roots", "deep"])
def test_x_9_a_dtd_and_whatever_else_is_no_plain_document_is_refused(server, body):
    answer = post(server, body())
    assert (answer[0], code_of(*answer)) == (400, "MalformedXML")


def test_x_9_a_body_of_more_than_a_mebibyte_is_refused(spoken):
    fitting = document(str(uuid.uuid4()))
    padded = fitting + " " * (2**20 - len(fitting))
    assert post(spoken[0], padded)[0] == 200
    answer = post(spoken[0], padded + " ")
    wanted = "MaxMessageLengthExceeded" if spoken[1] == OBSERVED else "BadRequestException"
    assert (answer[0], code_of(*answer)) == (400, wanted)


def test_x_10_a_key_with_control_characters_comes_back_as_it_was_sent(server, name):
    arn = f"arn:aws:s3:::{name}/tab\there & <ümlaut>\u0001%41+.csv"
    escaped = arn.replace("&", "&amp;").replace("<", "&lt;").replace("\t", "&#9;").replace("\u0001", "&#1;")
    body = document(str(uuid.uuid4())).replace("arn:aws:s3:::none/none.csv", escaped).replace(">e<", '>"quoted"<')
    status, _, content = post(server, body)
    assert status == 200, content
    job = xml.etree.ElementTree.fromstring(content).findtext("{*}JobId")
    described = post(server, "", f"{JOBS}/{job}", "GET")[2].decode()
    # Python's parser takes no U+0001, not even as a reference: that one is looked for in the text.
    assert described.count("&#x1;") == 1, described
    root = xml.etree.ElementTree.fromstring(described.replace("&#x1;", "(1)"))
    location = {element.tag.partition("}")[2]: element.text for element in root.find(".//{*}Location")}
    assert location == {"ObjectArn": arn.replace("\u0001", "(1)"), "ETag": '"quoted"'}


def test_a_description_that_no_client_could_read_again_is_refused(server):
    answer = post(server, document(str(uuid.uuid4()), Description="a&#1;b"))
    assert (answer[0], code_of(*answer)) == (400, "InvalidRequest")
    server.control.list_jobs(AccountId=ACCOUNT)


@pytest.mark.parametrize("operation, wanted", [
    ("<S3PutObjectCopy><TargetResource>arn:aws:s3:::t</TargetResource><AnnotationDirective>COPY</AnnotationDirective></S3PutObjectCopy>", "AnnotationDirective"),
    ("<S3PutObjectCopy><TargetResource>arn:aws:s3:::t</TargetResource><ObjectLockEventHold>ON</ObjectLockEventHold></S3PutObjectCopy>", "ObjectLockEventHold"),
    ("<S3PutObjectRetention><Retention><EventHold>ON</EventHold></Retention></S3PutObjectRetention>", "EventHold"),
    ("<LambdaInvoke><FunctionArn>f</FunctionArn><DryRun>true</DryRun></LambdaInvoke>", "DryRun"),
    ("<S3DeleteObjectTagging><Only>x</Only></S3DeleteObjectTagging>", "Only"),
    ("<S3DeleteObjects/>", "S3DeleteObjects"),
    ("<LambdaInvoke><FunctionArn>f</FunctionArn></LambdaInvoke><S3ReplicateObject/>", "exactly one member"),
    ("", "exactly one member"),
])
def test_x_8_what_is_not_known_inside_an_operation_is_refused_by_name(server, operation, wanted):
    answer = post(server, document(str(uuid.uuid4()), operation))
    assert (answer[0], code_of(*answer)) == (400, "InvalidRequest")
    assert wanted in answer[2].decode()


OPERATIONS = {
    "S3PutObjectCopy": {
        "TargetResource": "arn:aws:s3:::target", "CannedAccessControlList": "private", "MetadataDirective": "REPLACE",
        "ModifiedSinceConstraint": "2024-01-02T03:04:05Z", "NewObjectMetadata": {
            "ContentType": "text/plain", "UserMetadata": {"k": "v"}, "ContentLength": 0, "RequesterCharged": False,
            "HttpExpiresDate": "2030-01-01T00:00:00Z", "SSEAlgorithm": "AES256"},
        "NewObjectTagging": [{"Key": "k", "Value": ""}], "RedirectLocation": "/x", "RequesterPays": True,
        "StorageClass": "GLACIER_IR", "UnModifiedSinceConstraint": "2024-01-02T03:04:05Z", "SSEAwsKmsKeyId": "k",
        "TargetKeyPrefix": "Folder1", "ObjectLockLegalHoldStatus": "OFF", "ObjectLockMode": "GOVERNANCE",
        "ObjectLockRetainUntilDate": "2040-01-01T00:00:00Z", "BucketKeyEnabled": True, "ChecksumAlgorithm": "CRC64NVME",
        "AccessControlGrants": [{"Grantee": {"TypeIdentifier": "id", "Identifier": "i", "DisplayName": "d"}, "Permission": "READ"}],
    },
    "S3PutObjectAcl": {"AccessControlPolicy": {"AccessControlList": {"Owner": {"ID": "i"}, "Grants": []}}},
    "S3PutObjectTagging": {"TagSet": []},
    "S3DeleteObjectTagging": {},
    "S3InitiateRestoreObject": {"ExpirationInDays": 1, "GlacierJobTier": "BULK"},
    "S3PutObjectLegalHold": {"LegalHold": {"Status": "ON"}},
    "S3PutObjectRetention": {"Retention": {"Mode": "GOVERNANCE", "RetainUntilDate": "2040-01-01T00:00:00Z"}},
    "S3ReplicateObject": {},
    "S3ComputeObjectChecksum": {"ChecksumAlgorithm": "SHA256", "ChecksumType": "FULL_OBJECT"},
    "S3UpdateObjectEncryption": {
        "ObjectEncryption": {"SSEKMS": {"KMSKeyArn": "arn:aws:kms:us-east-1:000000000000:key/0a1b", "BucketKeyEnabled": True}}},
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_that_does_not_run_here_is_read_whole_and_then_refused_by_name(server, name, operation):
    request = request_of(name, Operation={operation: OPERATIONS[operation]}, Report=ENABLED, ClientRequestToken=name[-40:])
    with refused((server, OBSERVED), "501 NotImplemented", "", f"The operation {operation} is not implemented"):
        server.control.create_job(**request)
    with refused((server, OBSERVED), "400 InvalidRequest", "", "RoleArn"):
        server.control.create_job(**request | {"RoleArn": f"arn:aws:iam::{ACCOUNT}:user/u"})
    assert made(server, name) == []
    # Refused, it has left its token alone (rule I-3).
    server.control.create_job(**request_of(name, ClientRequestToken=name[-40:]))


@pytest.mark.parametrize("operation, report, wanted", [
    ({"S3InitiateRestoreObject": {"ExpirationInDays": 0}}, {}, "ExpirationInDays must be a whole number from 1"),
    ({"S3PutObjectCopy": {"TargetKeyPrefix": "p"}}, {}, "TargetResource is required"),
    ({"S3PutObjectRetention": {"Retention": {"Mode": "GOVERNANCE"}}}, {}, "or neither"),
    ({"S3PutObjectRetention": {"Retention": {"Mode": "GOVERNANCE", "RetainUntilDate": "2020-01-01T00:00:00Z"}}}, {}, "past"),
    ({"S3PutObjectAcl": {"AccessControlPolicy": {}}}, {}, "either AccessControlList or CannedAccessControlList"),
    ({"S3PutObjectAcl": {"AccessControlPolicy": {
        "CannedAccessControlList": "private", "AccessControlList": {"Owner": {}}}}}, {}, "either AccessControlList or"),
    ({"S3ComputeObjectChecksum": {}}, {"Enabled": False}, "needs an enabled report"),
    ({"LambdaInvoke": {"FunctionArn": "arn:aws:lambda:eu-west-1:000000000000:function:f"}}, {}, "not in the job's region"),
    ({"LambdaInvoke": {"FunctionArn": "f", "InvocationSchemaVersion": "1.0", "UserArguments": {"a": "b"}}}, {}, "2.0"),
    ({"LambdaInvoke": {"FunctionArn": "f"}}, ENABLED | {"Bucket": "arn:aws:s3:::b--use1-az4--x-s3"}, "general purpose bucket"),
    ({"LambdaInvoke": {"FunctionArn": "f"}}, {"Enabled": True, "Bucket": "arn:aws:s3:::b", "Format": "Report_CSV_20180820"}, "needs Bucket"),
], ids=["V-9", "V-10", "V-11-half", "V-11-past", "V-12-neither", "V-12-both", "V-13", "V-19", "V-6", "V-17", "C-06"])
def test_a_request_whose_fields_do_not_go_together_is_refused(server, name, operation, report, wanted):
    with refused((server, OBSERVED), "400 InvalidRequest", "", wanted):
        server.control.create_job(**request_of(name, Operation=operation, Report=report or ENABLED))
    assert made(server, name) == []


# --- confirmation (C-18), idempotency (1.5.4) ---


def test_c_18_what_an_absent_confirmation_means_is_a_setting(server, modeled, name):
    for asked, wanted in ((server, True), (modeled, False)):
        request = request_of(name)
        del request["ConfirmationRequired"]
        job = asked.control.create_job(**request)["JobId"]
        assert asked.describe(job)["ConfirmationRequired"] is wanted


def test_i_2_an_absent_member_and_its_default_are_two_requests(server, name):
    request = request_of(name, ClientRequestToken=str(uuid.uuid4()))
    job = server.control.create_job(**request)["JobId"]
    assert server.control.create_job(**request)["JobId"] == job
    del request["ConfirmationRequired"]
    with refused((server, OBSERVED), "400 IdempotencyException", ""):
        server.control.create_job(**request)


def test_i_5_many_requests_at_once_with_one_token_make_one_job(server, name):
    request = request_of(name, ClientRequestToken=str(uuid.uuid4()))
    control = server.boto("s3control", max_pool_connections=16)
    with concurrent.futures.ThreadPoolExecutor(16) as threads:
        jobs = set(threads.map(lambda _: control.create_job(**request)["JobId"], range(48)))
    assert len(jobs) == 1 and made(server, name) == list(jobs)


def test_i_1_a_token_outlives_a_kill_and_the_end_of_its_job(tmp_path, name):
    server = harness.Server(tmp_path).start()
    try:
        request = request_of(name, ClientRequestToken=str(uuid.uuid4()))
        job = server.control.create_job(**request)["JobId"]
        server.kill()
        server.start()
        assert server.control.create_job(**request)["JobId"] == job
        server.wait(job, "Failed")  # there is no manifest
        assert server.control.create_job(**request)["JobId"] == job
        with refused((server, OBSERVED), "400 IdempotencyException", ""):
            server.control.create_job(**request | {"Priority": 11})
        assert made(server, name) == [job]
    finally:
        server.stop()


# --- ListJobs (1.7) ---


def test_p_7_pages_repeat_nothing_while_jobs_come_and_change(server, name):
    before = [server.control.create_job(**request_of(name))["JobId"] for _ in range(12)]
    seen, token, later = [], None, []
    while True:
        page = server.control.list_jobs(AccountId=ACCOUNT, MaxResults=3, **({"NextToken": token} if token else {}))
        seen += [job for job in page["Jobs"] if job.get("Description") == name]
        token = page.get("NextToken")
        if not token or len(seen) >= len(before):
            break
        assert len(page["Jobs"]) == 3
        # Between two pages jobs are made, fail, for they have no manifest, and are cancelled, if they have not failed yet.
        later.append(server.control.create_job(**request_of(name))["JobId"])
        with contextlib.suppress(botocore.exceptions.ClientError):
            server.control.update_job_status(AccountId=ACCOUNT, JobId=before[len(seen) % 12], RequestedJobStatus="Cancelled")
    assert [job["JobId"] for job in seen] == before[::-1], "each once, newest first, and none that was made meanwhile"
    assert len(later) >= 3


def test_p_7_a_job_whose_status_changes_drops_out_of_the_filter_and_no_job_comes_twice(server, name):
    etag = server.put_manifest(server.bucket(name), [(name, "k")])
    jobs = [server.create_job(name, "f", etag, confirmation=True, Description=name) for _ in range(6)]
    for job in jobs:
        server.wait(job, "Suspended")
    first = server.control.list_jobs(AccountId=ACCOUNT, JobStatuses=["Suspended"], MaxResults=2)
    assert [job["JobId"] for job in first["Jobs"]] == [jobs[5], jobs[4]]
    for job in (jobs[5], jobs[3]):
        server.control.update_job_status(AccountId=ACCOUNT, JobId=job, RequestedJobStatus="Cancelled")
    rest = server.control.list_jobs(AccountId=ACCOUNT, JobStatuses=["Suspended"], MaxResults=1000, NextToken=first["NextToken"])
    assert [job["JobId"] for job in rest["Jobs"] if job.get("Description") == name] == [jobs[2], jobs[1], jobs[0]]


def test_p_5_and_p_6_a_token_is_there_only_when_more_follows_and_serves_its_own_list_alone(server, name):
    for _ in range(3):
        waiting(server, f"{name[:40]}{uuid.uuid4().hex[:5]}")
    every = server.control.list_jobs(AccountId=ACCOUNT, MaxResults=1000)
    assert "NextToken" not in every
    assert server.control.list_jobs(AccountId=ACCOUNT, MaxResults=0)["Jobs"] == every["Jobs"][:1000], "0 is the default"
    token = server.control.list_jobs(AccountId=ACCOUNT, JobStatuses=["Suspended"], MaxResults=1)["NextToken"]
    assert len(server.control.list_jobs(AccountId=ACCOUNT, JobStatuses=["Suspended"], NextToken=token, MaxResults=2)["Jobs"]) == 2
    for statuses in ([], ["Active"], ["Suspended", "Active"]):
        with refused((server, OBSERVED), "400 InvalidNextTokenException", ""):
            server.control.list_jobs(AccountId=ACCOUNT, JobStatuses=statuses, NextToken=token)
    for tampered in (token[1:], token[:-1], token.swapcase(), token + "A", "A" * 1024):
        with refused((server, OBSERVED), "400 InvalidNextTokenException", ""):
            server.control.list_jobs(AccountId=ACCOUNT, JobStatuses=["Suspended"], NextToken=tampered)


# --- DescribeJob, UpdateJobStatus, tags ---


def test_c_10_the_reason_of_the_last_call_that_gave_one_is_kept(server, name):
    job = waiting(server, name)
    assert "StatusUpdateReason" not in server.describe(job)
    update = lambda **more: server.control.update_job_status(  # noqa: E731
        AccountId=ACCOUNT, JobId=job, RequestedJobStatus="Cancelled", **more)
    assert "StatusUpdateReason" not in update()
    assert update(StatusUpdateReason="again, with a reason")["StatusUpdateReason"] == "again, with a reason"
    assert server.describe(job)["StatusUpdateReason"] == "again, with a reason"
    update()
    assert server.describe(job)["StatusUpdateReason"] == "again, with a reason"
    update(StatusUpdateReason="ü" * 256)
    assert server.describe(job)["StatusUpdateReason"] == "ü" * 256
    with refused((server, OBSERVED), "400 InvalidRequest", "", "1 to 256 characters"):
        update(StatusUpdateReason="ü" * 257)
    with refused((server, OBSERVED), "400 InvalidRequest", "", "XML cannot carry"):
        update(StatusUpdateReason="a\u0001b")
    update(StatusUpdateReason="two\nlines\r, <&> \t")
    assert server.describe(job)["StatusUpdateReason"] == "two\nlines\r, <&> \t"


def test_describe_job_echoes_what_was_sent_and_shows_no_tags(server, name):
    report = ENABLED | {"Prefix": "p/", "ReportScope": "FailedTasksOnly", "ExpectedBucketOwner": ACCOUNT}
    invoke = {"FunctionArn": "f:PROD", "InvocationSchemaVersion": "2.0", "UserArguments": {"b": "", "a": "<&>"}}
    request = request_of(name, Report=report, Operation={"LambdaInvoke": invoke}, Tags=[{"Key": "k", "Value": "v"}])
    request["Manifest"]["Location"] |= {"ETag": '"e"', "ObjectVersionId": "v-1"}
    job = server.control.create_job(**request)["JobId"]
    described = server.describe(job)
    for member in ("Report", "Operation", "Manifest", "RoleArn", "Priority", "Description", "ConfirmationRequired"):
        assert described[member] == request[member], member
    assert "Tags" not in described


def test_t_5_tags_can_be_changed_when_the_job_is_over_and_twice_the_same_key_is_refused(spoken, name):
    server, job = spoken[0], waiting(spoken[0], name)
    server.control.update_job_status(AccountId=ACCOUNT, JobId=job, RequestedJobStatus="Cancelled")
    tags = [{"Key": "b", "Value": "1"}, {"Key": "B", "Value": "日本 語"}]
    server.control.put_job_tagging(AccountId=ACCOUNT, JobId=job, Tags=tags)
    for wrong in (tags + [{"Key": "b", "Value": "2"}], [{"Key": "a!", "Value": ""}], [{"Key": "a", "Value": "x" * 257}]):
        with refused(spoken, "400 InvalidRequest", "400 BadRequestException"):
            server.control.put_job_tagging(AccountId=ACCOUNT, JobId=job, Tags=wrong)
    assert server.control.get_job_tagging(AccountId=ACCOUNT, JobId=job)["Tags"] == tags, "in order, and as they were"
    status, _, body = post(server, "<PutJobTaggingRequest/>", f"{JOBS}/{job}/tagging", "PUT")
    assert (status, body) == (200, b""), "no tags at all delete them"
    assert server.control.get_job_tagging(AccountId=ACCOUNT, JobId=job)["Tags"] == []
    answer = post(server, "<Tagging/>", f"{JOBS}/{job}/tagging", "PUT")
    assert code_of(*answer) == ("MalformedXML" if spoken[1] == OBSERVED else "BadRequestException")


def test_c_16_a_job_is_there_as_soon_as_it_was_acknowledged(server, name):
    for _ in range(20):
        job = server.control.create_job(**request_of(name))["JobId"]
        assert server.describe(job)["JobId"] == job
        assert server.control.list_jobs(AccountId=ACCOUNT, MaxResults=1)["Jobs"][0]["JobId"] == job
