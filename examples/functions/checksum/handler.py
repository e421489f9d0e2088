"""Answers, for every object of a job: its SHA-256, media type, size and number of lines.

Try it on a folder, without a server:

    longshore run examples/functions/checksum/handler.py --source .

It is an ordinary Lambda function for S3 Batch Operations (invocation schema 1.0 and 2.0). It needs nothing but
Python's standard library, and it runs on AWS as it is: the credentials, the region and, where there is one, the
endpoint (AWS_ENDPOINT_URL_S3) come from its environment, as they do for boto3.
"""

import datetime
import hashlib
import hmac
import http.client
import json
import mimetypes
import os
from urllib.parse import quote, unquote_plus, urlsplit

PIECE_BYTES = 256 * 1024  # an object is read in pieces of this size, so memory does not grow with the object
TIMEOUT_SECONDS = 30  # on one socket operation, not on a whole object


def handler(event, context):
    task = event["tasks"][0]  # S3 Batch Operations sends one task an invocation
    bucket = task.get("s3Bucket") or task["s3BucketArn"].split(":::", 1)[1]  # schema 2.0, schema 1.0
    key = unquote_plus(task["s3Key"])  # keys arrive URL-encoded, a space as "+" or "%20"
    try:
        code, answer = "Succeeded", json.dumps(facts(bucket, key, task.get("s3VersionId")))
    except S3Error as error:
        code = "TemporaryFailure" if error.worth_another_try else "PermanentFailure"
        answer = str(error)
    return {
        "invocationSchemaVersion": event["invocationSchemaVersion"],
        "treatMissingKeysAs": "PermanentFailure",
        "invocationId": event["invocationId"],
        "results": [{"taskId": task["taskId"], "resultCode": code, "resultString": answer}],
    }


def facts(bucket, key, version_id):
    """What is known about one object, as a small dictionary for the completion report."""
    digest, size, newlines, last = hashlib.sha256(), 0, 0, b"\n"
    for piece in read_object(bucket, key, version_id):
        digest.update(piece)
        size += len(piece)
        newlines += piece.count(b"\n")
        last = piece[-1:]
    return {
        "sha256": digest.hexdigest(),
        "type": mimetypes.guess_type(key)[0] or "application/octet-stream",
        "bytes": size,
        "lines": newlines + (last != b"\n"),  # a last line without a newline is a line
    }


# --- S3 in a few lines: GetObject over one kept connection, signed with AWS Signature Version 4 ---


class S3Error(Exception):
    def __init__(self, sentence, worth_another_try):
        super().__init__(sentence)
        self.worth_another_try = worth_another_try


_connection = None  # kept between invocations: a function that stays warm connects once


def read_object(bucket, key, version_id=None):
    """Yields the object's bytes in pieces."""
    response = get_object(bucket, key, version_id)
    expected, received = int(response.headers.get("content-length", -1)), 0
    try:
        while piece := response.read(PIECE_BYTES):
            received += len(piece)
            yield piece
    except (OSError, http.client.HTTPException) as error:
        disconnect()
        raise S3Error(f"Reading {bucket}/{key} broke off: {error or type(error).__name__}.", True)
    if expected not in (-1, received):
        disconnect()
        raise S3Error(f"Reading {bucket}/{key} ended after {received} of {expected} bytes.", True)


def get_object(bucket, key, version_id):
    """Sends GetObject and returns the open response, or raises S3Error with a sentence for the report."""
    global _connection
    region = os.environ.get("AWS_REGION", "us-east-1")
    endpoint = urlsplit(os.environ.get("AWS_ENDPOINT_URL_S3") or f"https://s3.{region}.amazonaws.com")
    path = endpoint.path.rstrip("/") + "/" + quote(bucket, safe="") + "/" + quote(key)
    query = "versionId=" + quote(version_id, safe="") if version_id else ""
    for fresh in (_connection is None, True):
        if _connection is None:
            kind = http.client.HTTPSConnection if endpoint.scheme == "https" else http.client.HTTPConnection
            _connection = kind(endpoint.netloc, timeout=TIMEOUT_SECONDS)
        try:
            target = path + ("?" + query if query else "")
            _connection.request("GET", target, headers=signed_headers(endpoint.netloc, path, query, region))
            response = _connection.getresponse()
            break
        except (OSError, http.client.HTTPException) as error:
            disconnect()
            if fresh:  # a kept connection may have been closed meanwhile: that alone is no failure
                raise S3Error(f"{endpoint.netloc} could not be reached: {error or type(error).__name__}.", True)
    if response.status == 200:
        return response
    body = response.read(64 * 1024).decode("utf-8", "replace")
    disconnect()
    if "<Code>" in body:
        reason = body.partition("<Code>")[2].partition("</Code>")[0]
    else:
        reason = response.reason
    if response.status == 404:
        raise S3Error(f"There is no object {key!r} in the bucket {bucket!r} ({reason}).", False)
    raise S3Error(
        f"S3 refused to hand out {bucket}/{key}: {response.status} {reason}.",
        response.status >= 500 or response.status == 429,
    )


def disconnect():
    global _connection
    if _connection is not None:
        _connection.close()
        _connection = None


def signed_headers(host, path, query, region):
    """The headers of a GET without a body. The steps are those of AWS's page "Create a signed AWS API request"."""
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    headers = {"host": host, "x-amz-content-sha256": hashlib.sha256(b"").hexdigest(), "x-amz-date": now}
    if os.environ.get("AWS_SESSION_TOKEN"):
        headers["x-amz-security-token"] = os.environ["AWS_SESSION_TOKEN"]
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    request = "\n".join(["GET", path, query, lines, names, headers["x-amz-content-sha256"]])
    scope = f"{now[:8]}/{region}/s3/aws4_request"
    to_sign = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(request.encode()).hexdigest()])
    signature = ("AWS4" + os.environ["AWS_SECRET_ACCESS_KEY"]).encode()
    for part in (now[:8], region, "s3", "aws4_request", to_sign):
        signature = hmac.new(signature, part.encode(), hashlib.sha256).digest()
    credential = os.environ["AWS_ACCESS_KEY_ID"] + "/" + scope
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature.hex()}"
    )
    return headers
