"""Answers, for every text object of a job: its words, lines, longest line and most common word.

Try it on a folder, without a server:

    longshore run examples/functions/text-statistics/handler.py --source docs --arg ignore=the,a,of --arg min_letters=4

User arguments (invocation schema 2.0), all optional:

    ignore         words that cannot be the most common one, comma separated
    min_letters    shorter words cannot be the most common one, first value 1
    max_mib        larger objects are refused, first value 64

An object that is not text in UTF-8 ends as PermanentFailure with a sentence that says so. The function is an ordinary
Lambda function for S3 Batch Operations, needs nothing but Python's standard library, and runs on AWS as it is.
"""

import collections
import datetime
import hashlib
import hmac
import http.client
import json
import os
import re
from urllib.parse import quote, unquote_plus, urlsplit

PIECE_BYTES = 256 * 1024
TIMEOUT_SECONDS = 30  # on one socket operation, not on a whole object
WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")


def handler(event, context):
    task = event["tasks"][0]  # S3 Batch Operations sends one task an invocation
    bucket = task.get("s3Bucket") or task["s3BucketArn"].split(":::", 1)[1]  # schema 2.0, schema 1.0
    key = unquote_plus(task["s3Key"])  # keys arrive URL-encoded, a space as "+" or "%20"
    arguments = event["job"].get("userArguments") or {}
    try:
        code, answer = "Succeeded", json.dumps(statistics(bucket, key, task.get("s3VersionId"), arguments))
    except NotForUs as reason:
        code, answer = "PermanentFailure", str(reason)
    except S3Error as error:
        code = "TemporaryFailure" if error.worth_another_try else "PermanentFailure"
        answer = str(error)
    return {
        "invocationSchemaVersion": event["invocationSchemaVersion"],
        "treatMissingKeysAs": "PermanentFailure",
        "invocationId": event["invocationId"],
        "results": [{"taskId": task["taskId"], "resultCode": code, "resultString": answer}],
    }


class NotForUs(Exception):
    """The object was read, and it or the arguments are nothing that this function works on."""


def statistics(bucket, key, version_id, arguments):
    min_letters = whole_number(arguments, "min_letters", 1)
    max_mib = whole_number(arguments, "max_mib", 64)
    ignored = {word.strip().casefold() for word in arguments.get("ignore", "").split(",")}
    content = bytearray()
    for piece in read_object(bucket, key, version_id):
        content += piece
        if len(content) > max_mib * 1024 * 1024:
            disconnect()  # the rest of the object is still on its way
            raise NotForUs(f"The object is larger than {max_mib} MiB; raise the argument max_mib to read it.")
    if b"\0" in content:
        raise NotForUs("The object is not text: it holds zero bytes.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotForUs(f"The object is not text in UTF-8: byte {error.start} is 0x{content[error.start]:02x}.")
    lines = text.splitlines()
    words = WORD.findall(text)
    common = collections.Counter(
        word for word in map(str.casefold, words) if len(word) >= min_letters and word not in ignored
    ).most_common(1)
    return {
        "words": len(words),
        "lines": len(lines),
        "longest_line": max(map(len, lines), default=0),
        "most_common": common[0][0][:64] if common else None,
        "times": common[0][1] if common else 0,
    }


def whole_number(arguments, name, first_value):
    value = arguments.get(name, str(first_value))
    if not value.isdecimal() or int(value) < 1:
        raise NotForUs(f"The argument {name} is {value!r}; it has to be a whole number from 1.")
    return int(value)


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
