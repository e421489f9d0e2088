"""Invoke as clients see it: its three kinds, every error with code, status, message and form, names, and events that outlive
kill -9. What is marked [S] is as AWS's own answers were recorded (Lambda spec 0)."""

import base64
import collections
import json
import pathlib
import re
import socket
import time
import uuid

import botocore.exceptions
import pytest

import harness
from harness import ACCOUNT, REGION, UNCONFINED

# Outside of everything that the server keeps, so the sandbox is off. Notes each start with what the function was told, in one write of one line; may wait for a file, and may fail.
SOURCE = """
    import json, os, time
    log = os.open(os.environ["SEEN"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(what, event, context):
        line = {"what": what, "event": event, "request": context.aws_request_id, "arn": context.invoked_function_arn,
                "version": context.function_version, "code": CODE, "at": time.time()}
        os.write(log, (json.dumps(line) + "\\n").encode())

    def handler(event, context):
        note("start", event, context)
        print("said by the function")
        while event.get("until") and not os.path.exists(event["until"]):
            time.sleep(0.02)
        times = sum(json.loads(line)["request"] == context.aws_request_id
                    for line in open(os.environ["SEEN"]) if '"start"' in line)
        if times <= event.get("failures", 0):
            raise ValueError("as it was told")
        note("end", event, context)
        return {"event": event, "client": context.client_context and context.client_context.custom}
"""
CODE = "InvalidRequestContentException"


class Seen:
    """What a function noted, outside of everything that the server keeps."""

    def __init__(self, path):
        self.path = path

    def lines(self, what="start"):
        text = self.path.read_text() if self.path.exists() else ""
        return [line for line in map(json.loads, text.splitlines()) if line["what"] == what]

    def wait(self, count, what="start", timeout=60):
        harness.wait_for(f"{count} times {what!r}", lambda: len(self.lines(what)) >= count, timeout)
        return self.lines(what)


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """A server of this file alone: retries come after one second and two, and four processes are enough."""
    server = harness.Server(tmp_path_factory.mktemp("invoke"), UNCONFINED | {
        "LONGSHORE_FUNCTIONS_EVENT_RETRY_SECONDS": "1", "LONGSHORE_FUNCTIONS_ENVIRONMENTS_MAX": "4"}).start()
    yield server
    server.stop()
    # That there is no sandbox is an error of its own, once.
    errors = [line for line in server.said().splitlines() if " ERROR " in line and "without a sandbox" not in line]
    assert "panicked at" not in server.said() and not errors, server.said()[-3000:]


def deploy(server, name, path, code="first", **more):
    server.deploy(name, SOURCE.replace("CODE", repr(code)), environment={"SEEN": str(path)}, **more)
    return Seen(pathlib.Path(path))


@pytest.fixture(scope="module")
def f(short, tmp_path_factory):
    """One function that all tests of refusals share."""
    return deploy(short, "f", tmp_path_factory.mktemp("f") / "seen")


def arn(name="f", qualifier=None, region=REGION, account=ACCOUNT):
    return f"arn:aws:lambda:{region}:{account}:function:{name}" + (f":{qualifier}" if qualifier else "")


def raw(server, target, body=b"{}", method="POST", **headers):
    """A signed request as it is on the wire: what boto3 would check itself, or not show."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    signed = harness.signed(server, method, "lambda", target, body, headers)
    status, answered, content = harness.send(server, method, target, signed, body)
    return status, answered, json.loads(content) if content else None


def invocations(name):
    return f"/2015-03-31/functions/{name}/invocations"


def send_event(server, name, event=None, **more):
    answer = server.functions.invoke(
        FunctionName=name, InvocationType="Event", Payload=json.dumps(event or {}).encode(), **more)
    assert answer["StatusCode"] == 202
    return answer["ResponseMetadata"]["RequestId"]


def refused(call, **arguments):
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        call(**arguments)
    return caught.value.response


def error(response):
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"], response["Error"]["Message"]


# --- the three kinds ---


def test_a_synchronous_call_answers_with_everything_that_lambdas_does(short, f):
    context = base64.b64encode(json.dumps({"custom": {"a": "ü"}}).encode()).decode()
    answer = short.functions.invoke(FunctionName="f", Payload=b'{"n": 1}', ClientContext=context, LogType="Tail")
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    assert answer["StatusCode"] == 200 and answer["ExecutedVersion"] == "$LATEST" and "FunctionError" not in answer
    assert json.loads(answer["Payload"].read()) == {"event": {"n": 1}, "client": {"a": "ü"}}
    # [S] the id in the answer is the one that the function sees
    assert f.lines()[-1]["request"] == headers["x-amzn-requestid"] == str(uuid.UUID(headers["x-amzn-requestid"]))
    assert headers["content-type"] == "application/json" and headers["x-amzn-remapped-content-length"] == "0"
    assert re.fullmatch(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24};Sampled=0", headers["x-amzn-trace-id"])
    tail = base64.b64decode(answer["LogResult"], validate=True).decode()
    assert "said by the function" in tail and f"START RequestId: {headers['x-amzn-requestid']}" in tail
    assert tail.splitlines()[-1].startswith("REPORT RequestId: ")


def test_a_function_that_fails_is_a_200_that_says_so(short, f):
    answer = short.functions.invoke(FunctionName="f", Payload=b'{"failures": 1}')
    assert answer["StatusCode"] == 200 and answer["FunctionError"] == "Unhandled" and "LogResult" not in answer
    assert json.loads(answer["Payload"].read())["errorMessage"] == "as it was told"


def test_a_dry_run_runs_nothing_and_an_event_has_neither_version_nor_tail(short, f):
    before = len(f.lines())
    for kind, status in [("DryRun", 204), ("Event", 202)]:
        status_seen, headers, body = raw(
            short, invocations("f"), x_amz_invocation_type=kind, x_amz_log_type="Tail", x_amzn_trace_id="Root=1-2-3")
        assert (status_seen, body) == (status, None), kind
        assert headers["x-amzn-remapped-content-length"] == "0" and headers["x-amzn-trace-id"] == "Root=1-2-3"
        assert headers["content-type"] == "application/json" and headers["x-amzn-requestid"]
        # [S] no executed version in the answer to an event
        assert "x-amz-executed-version" not in headers and "x-amz-log-result" not in headers
    assert f.wait(before + 1)[-1]["request"] == headers["x-amzn-requestid"]
    assert len(f.lines()) == before + 1, "the dry run ran nothing"


def test_the_aws_cli_invokes_in_all_three_ways(short, f, tmp_path):
    out = tmp_path / "out.json"
    payload = ["--payload", '{"n": 2}']  # version 2 of the CLI would want base64
    told = short.aws_json("lambda", "invoke", "--function-name", "f", *payload, out)
    assert told == {"StatusCode": 200, "ExecutedVersion": "$LATEST"}
    assert json.loads(out.read_text())["event"] == {"n": 2}
    for kind, status in [("DryRun", 204), ("Event", 202)]:
        assert short.aws_json("lambda", "invoke", "--function-name", "f", "--invocation-type", kind, *payload, out) == {
            "StatusCode": status}
    no = short.aws("lambda", "invoke", "--function-name", "nobody", *payload, out, check=False)
    assert no.returncode != 0 and f"Function not found: {arn('nobody', '$LATEST')}" in no.stderr
    put = short.aws_json("lambda", "put-function-event-invoke-config", "--function-name", "f",
                         "--maximum-retry-attempts", "2", "--maximum-event-age-in-seconds", "3600")
    assert put["FunctionArn"] == arn("f", "$LATEST") and put["MaximumEventAgeInSeconds"] == 3600
    short.aws("lambda", "delete-function-event-invoke-config", "--function-name", "f")


# --- refusals ---


def test_errors_have_their_key_their_type_and_their_header(short, f):
    """2.3: one key for the message, in the case of the model, and `Type` but for the checks at the door."""
    for target, body, headers, status, code, key, kind in [
        (invocations("f"), b"x", {}, 400, CODE, "message", "User"),
        (invocations("f:1") + "?Qualifier=2", b"{}", {}, 400, "InvalidParameterValueException", "message", "User"),
        (invocations("nobody"), b"{}", {}, 404, "ResourceNotFoundException", "Message", "User"),
        (invocations("f"), b"x" * 6_291_457, {}, 413, "RequestEntityTooLargeException", "message", "User"),
        (invocations("f"), b"{}", {"x_amz_log_type": "Head"}, 400, "ValidationException", "message", None),
        (invocations("210987654321:function:f"), b"{}", {}, 403, "AccessDeniedException", "Message", None),
        ("/2014-11-13/functions/f/invoke-async/", b"{}", {}, 404, "UnknownOperationException", "message", None),
    ]:
        seen, answered, told = raw(short, target, body, **headers)
        assert (seen, answered["x-amzn-errortype"], set(told)) == (status, code, {key} | ({"Type"} if kind else set())), told
        assert told.get("Type") == kind and answered["x-amzn-requestid"]
    with pytest.raises(short.functions.exceptions.ResourceNotFoundException):
        short.functions.invoke(FunctionName="nobody")


def test_what_cannot_be_found_is_named_in_full(short, f):
    invoke, get = short.functions.invoke, short.functions.get_function
    missing = "ResourceNotFoundException"
    # [S] Invoke names $LATEST although nobody asked for it (the newer recording)
    assert error(refused(invoke, FunctionName="nobody")) == (404, missing, f"Function not found: {arn('nobody', '$LATEST')}")
    for name in ["f:7", "f:prod", arn("f", "prod"), f"{ACCOUNT}:function:f:7"]:
        qualifier = name.rpartition(":")[2]
        assert error(refused(invoke, FunctionName=name)) == (404, missing, f"Function not found: {arn('f', qualifier)}")
    # [S] in the wrong case it is an alias, and not there
    assert error(refused(get, FunctionName="f", Qualifier="$latest")) == (
        404, missing, f"Function not found: {arn('f', '$latest')}")
    # [S] a region that is not ours
    assert error(refused(invoke, FunctionName=arn(region="eu-west-1"))) == (
        404, missing, f"Functions from 'eu-west-1' are not reachable in this region ('{REGION}')")
    # [S] an account that is not ours
    status, code, text = error(refused(invoke, FunctionName=arn(account="210987654321")))
    assert (status, code) == (403, "AccessDeniedException")
    assert text.startswith("User: ") and (
        f"is not authorized to perform: lambda:InvokeFunction on resource: {arn(account='210987654321')} because" in text)
    # [S] two qualifiers that disagree, and two that agree
    assert error(refused(invoke, FunctionName="f:1", Qualifier="$LATEST")) == (
        400, "InvalidParameterValueException",
        "The derived qualifier from the function name does not match the specified qualifier.")
    assert invoke(FunctionName="f:$LATEST", Qualifier="$LATEST")["StatusCode"] == 200


def test_a_function_is_invoked_by_every_form_of_its_name(short, f):
    for name, seen_as in [
        ("f", arn()), ("f:$LATEST", arn("f", "$LATEST")), (f"{ACCOUNT}:function:f", arn()), ("function:f", arn()),
        (f"{ACCOUNT}:function:f:$LATEST", arn("f", "$LATEST")), (arn(), arn()), (arn("f", "$LATEST"), arn("f", "$LATEST")),
    ]:
        # boto3 encodes the colons
        assert short.functions.invoke(FunctionName=name, InvocationType="RequestResponse")["StatusCode"] == 200
        assert f.lines()[-1]["arn"] == seen_as, name
    for encoded in [arn().replace(":", "%3A"), "f%3A%24LATEST", arn()]:
        assert raw(short, invocations(encoded))[0] == 200, encoded
    # Decoded once, not twice.
    assert raw(short, invocations(arn().replace(":", "%253A")))[1]["x-amzn-errortype"] == "ValidationException"


def test_names_are_as_long_as_their_operation_allows(short, f):
    missing, constraint, parameter = "ResourceNotFoundException", "ValidationException", "InvalidParameterValueException"
    loose = short.boto("lambda", parameter_validation=False)
    too_long = "failed to satisfy constraint: Member must have length less than or equal to"
    for length, code in [(65, missing), (140, missing), (256, missing), (257, constraint)]:
        name = "n" * length
        for call in (loose.invoke, loose.get_function, loose.delete_function):
            response = refused(call, FunctionName=name)  # [S] 65 to 140: 404
            assert response["Error"]["Code"] == code, (length, response)
        if code == constraint:
            assert response["Error"]["Message"] == f"1 validation error detected: Value '{name}' at 'functionName' {too_long} 256"
    create = dict(Runtime="python3.11", Handler="h.h", Role=harness.ROLE, Code={"ZipFile": harness.zip_of({"h.py": ""})})
    for length, code, most in [(65, parameter, 64), (140, parameter, 64), (141, constraint, 140)]:
        name = "n" * length
        # [S] 65 to 140 for Create: a parameter error in the words of a constraint
        assert error(refused(loose.create_function, FunctionName=name, **create)) == (
            400, code, f"1 validation error detected: Value '{name}' at 'functionName' {too_long} {most}")
    short.deploy("function", SOURCE.replace("CODE", "1"), environment={"SEEN": "/dev/null"})
    assert short.functions.get_function(FunctionName="function")["Configuration"]["FunctionName"] == "function"  # [S]


def test_content_that_does_not_read_is_refused_in_lambdas_words(short, f):
    before = len(f.lines())
    prefix = "Could not parse request body into json: "
    for payload in [b"x", b"{", b"{} {}", b"\x87", b'"\xff"']:  # [S]
        status, code, text = error(refused(short.functions.invoke, FunctionName="f", Payload=payload))
        assert (status, code) == (400, CODE) and text.startswith(prefix), text
    assert "Invalid UTF-8 start byte 0x87" in error(refused(short.functions.invoke, FunctionName="f", Payload=b"\x87"))[2]
    for context in ["***", base64.b64encode(b"no").decode(), "a" * 3_584]:
        assert error(refused(short.functions.invoke, FunctionName="f", ClientContext=context))[:2] == (400, CODE)
    assert len(f.lines()) == before


def test_a_payload_is_as_large_as_its_kind_allows(short, f):
    large = "RequestEntityTooLargeException"

    def payload(size):
        return b'{"until": "", "x": "' + b"x" * (size - 22) + b'"}'

    for kind, most in [("RequestResponse", 6_291_456), ("Event", 1_048_576)]:
        assert short.functions.invoke(FunctionName="f", InvocationType=kind, Payload=payload(most))["StatusCode"] in (200, 202)
        assert error(refused(short.functions.invoke, FunctionName="f", InvocationType=kind, Payload=payload(most + 1))) == (
            413, large, f"{most + 1} byte payload is too large for the {kind} invocation type (limit {most} bytes)")
    status, _, told = raw(short, invocations("f"), b"x" * 8_000_000)
    assert (status, told["message"]) == (413, "Request must be smaller than 6291456 bytes for the InvokeFunction operation")


def test_the_door_comes_before_the_name_and_the_body_before_the_signature(short, f):
    target = invocations("nobody")
    signer = harness.botocore.auth.SigV4Auth(harness.credentials(short, secret="x" * 40), "lambda", REGION)
    # Too large and wrongly signed: its size is known first. The headers alone are sent.
    forged = harness.signed(short, "POST", "lambda", target, b"{}", {"x-amz-invocation-type": "Later"}, signer)
    status, headers, _ = harness.send(short, "POST", target, forged, b"x" * 8_000_000)
    assert (status, headers["x-amzn-errortype"]) == (413, "RequestEntityTooLargeException")
    # Wrongly signed and of no kind that there is: the signature.
    status, headers, _ = harness.send(short, "POST", target, forged, b"{}")
    assert (status, headers["x-amzn-errortype"]) == (403, "InvalidSignatureException")
    # Of no kind, and nobody's: the kind.
    status, headers, told = raw(short, target, x_amz_invocation_type="Later")
    assert (status, headers["x-amzn-errortype"]) == (400, "ValidationException")
    assert told["message"] == (
        "1 validation error detected: Value 'Later' at 'invocationType' failed to satisfy constraint: Member must "
        "satisfy enum value set: [Event, RequestResponse, DryRun]")


def test_a_function_that_is_switched_off_or_busy_throttles_with_its_reason(short, tmp_path):
    seen = deploy(short, "busy", tmp_path / "seen")
    short.functions.put_function_concurrency(FunctionName="busy", ReservedConcurrentExecutions=0)
    off = refused(short.functions.invoke, FunctionName="busy")
    reason = "ReservedFunctionConcurrentInvocationLimitExceeded"
    # [S] status, code, reason; zero is a throttle as well
    assert error(off) == (429, "TooManyRequestsException", "Rate Exceeded.") and off["Reason"] == reason
    assert off["Type"] == "User" and "retry-after" not in off["ResponseMetadata"]["HTTPHeaders"]
    short.functions.put_function_concurrency(FunctionName="busy", ReservedConcurrentExecutions=1)
    gate = tmp_path / "gate"
    send_event(short, "busy", {"until": str(gate)})
    seen.wait(1)
    full = refused(short.functions.invoke, FunctionName="busy")
    assert (full["Reason"], full["ResponseMetadata"]["HTTPHeaders"]["retry-after"]) == (reason, "1")
    gate.touch()
    seen.wait(1, "end")
    harness.wait_for("room", lambda: short.functions.invoke(FunctionName="busy")["StatusCode"] == 200)


def test_what_is_not_offered_is_refused_by_name(short, f):
    before = len(f.lines())
    assert error(refused(short.functions.invoke_async, FunctionName="f", InvokeArgs=b"{}")) == (
        404, "UnknownOperationException", "The operation InvokeAsync is not offered by this server.")
    assert error(refused(short.functions.invoke_with_response_stream, FunctionName="f")) == (
        404, "UnknownOperationException", "The operation InvokeWithResponseStream is not offered by this server.")
    for header in ({"x_amz_tenant_id": "t"}, {"x_amz_durable_execution_name": "d"}):
        status, headers, told = raw(short, invocations("f"), **header)
        name = next(iter(header)).replace("_", "-")
        assert (status, told["message"]) == (400, f"The header {name} is not supported by this server.")
        assert headers["x-amzn-errortype"] == "InvalidParameterValueException"
    assert len(f.lines()) == before


def test_a_client_that_hangs_up_ends_nothing_and_the_room_comes_free(short, tmp_path):
    seen = deploy(short, "left", tmp_path / "seen")
    short.functions.put_function_concurrency(FunctionName="left", ReservedConcurrentExecutions=1)
    gate, body = tmp_path / "gate", json.dumps({"until": str(tmp_path / "gate")}).encode()
    target = invocations("left")
    headers = harness.signed(short, "POST", "lambda", target, body)
    host, port = short.address.rsplit(":", 1)
    with socket.create_connection((host, int(port))) as connection:
        lines = [f"POST {target} HTTP/1.1", f"Host: {short.address}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        seen.wait(1)
    # The caller is gone; the function runs on and has its only slot.
    assert refused(short.functions.invoke, FunctionName="left")["Error"]["Code"] == "TooManyRequestsException"
    assert seen.lines("end") == []
    gate.touch()
    assert len(seen.wait(1, "end")) == 1
    harness.wait_for("room", lambda: short.functions.invoke(FunctionName="left")["StatusCode"] == 200)


# --- events ---


def test_an_event_is_tried_three_times_under_one_id(short, tmp_path):
    seen = deploy(short, "thrice", tmp_path / "seen")
    ids = [send_event(short, "thrice", {"failures": 2, "n": "two"}), send_event(short, "thrice", {"failures": 9, "n": "all"})]
    starts = seen.wait(6)
    by_id = collections.Counter(line["request"] for line in starts)
    assert by_id == {ids[0]: 3, ids[1]: 3}
    for request in ids:
        first, second, third = (line["at"] for line in starts if line["request"] == request)
        assert second - first >= 1 and third - second >= 2
    assert [line["event"]["n"] for line in seen.wait(1, "end")] == ["two"]
    harness.wait_for("the word about the event that was dropped", lambda: "RetriesExhausted" in short.said())
    said = next(line for line in short.said().splitlines() if "RetriesExhausted" in line)
    assert ids[1] in said and "thrice" in said and " WARN " in said
    assert len(seen.lines()) == 6


def test_what_is_set_for_events_is_shown_in_awss_words_and_kept_to(short, tmp_path):
    seen = deploy(short, "set", tmp_path / "seen")
    config = short.functions
    missing = "ResourceNotFoundException"
    none = lambda name, q: f"The function {arn(name, q)} doesn't have an EventInvokeConfig"  # [S]
    get, put = config.get_function_event_invoke_config, config.put_function_event_invoke_config
    assert error(refused(get, FunctionName="set")) == (404, missing, none("set", "$LATEST"))
    assert error(refused(get, FunctionName="nobody")) == (404, missing, none("nobody", "$LATEST"))
    assert error(refused(config.update_function_event_invoke_config, FunctionName="set", MaximumRetryAttempts=0)) == (
        404, missing, none("set", "$LATEST"))
    assert error(refused(put, FunctionName="nobody", MaximumRetryAttempts=1)) == (404, missing, "The function doesn't exist.")
    assert error(refused(config.list_function_event_invoke_configs, FunctionName="nobody")) == (
        404, missing, "The function doesn't exist.")
    assert error(refused(put, FunctionName="nobody")) == (
        400, "InvalidParameterValueException", "You must specify at least one of error handling or destination setting.")
    refusal = error(refused(put, FunctionName="set", DestinationConfig={"OnFailure": {"Destination": arn("f")}}))
    assert refusal == (400, "InvalidParameterValueException", "A Destination in DestinationConfig is not supported by this server.")
    answer = put(FunctionName="set", MaximumRetryAttempts=0)
    assert answer["DestinationConfig"] == {"OnSuccess": {}, "OnFailure": {}} and answer["FunctionArn"] == arn("set", "$LATEST")
    assert answer["LastModified"].timestamp() == pytest.approx(time.time(), abs=60)
    assert "MaximumEventAgeInSeconds" not in answer
    config.update_function_event_invoke_config(FunctionName="set", MaximumEventAgeInSeconds=60)
    listed = config.list_function_event_invoke_configs(FunctionName="set")["FunctionEventInvokeConfigs"]
    assert [(c["MaximumRetryAttempts"], c["MaximumEventAgeInSeconds"]) for c in listed] == [(0, 60)]
    send_event(short, "set", {"failures": 1})
    request = seen.wait(1)[0]["request"]
    harness.wait_for("the drop", lambda: any(request in line and "event dropped" in line for line in short.said().splitlines()))
    config.publish_version(FunctionName="set")
    config.create_alias(FunctionName="set", Name="live", FunctionVersion="1")
    mismatch = refused(put, FunctionName=arn("set", "live"), Qualifier="1", MaximumRetryAttempts=1)
    assert error(mismatch) == (400, "InvalidParameterValueException",
                               "The derived qualifier from the function name does not match the specified qualifier.")
    for name, qualifier in [(arn("set", "live"), "live"), ("set:1", "1")]:  # [S] each form, each qualifier its own
        assert put(FunctionName=name, Qualifier=qualifier, MaximumRetryAttempts=1)["FunctionArn"] == arn("set", qualifier)
    pages = config.get_paginator("list_function_event_invoke_configs").paginate(
        FunctionName="set", PaginationConfig={"PageSize": 2})
    listed = [[c["FunctionArn"] for c in page["FunctionEventInvokeConfigs"]] for page in pages]
    assert listed == [[arn("set", "$LATEST"), arn("set", "1")], [arn("set", "live")]]
    config.delete_function_event_invoke_config(FunctionName="set")
    assert error(refused(config.delete_function_event_invoke_config, FunctionName="set")) == (
        404, missing, none("set", "$LATEST"))


def test_events_run_the_newest_code_and_those_of_a_deleted_function_do_not_run(short, tmp_path):
    seen = deploy(short, "moved", tmp_path / "seen")
    send_event(short, "moved", {"failures": 1})
    seen.wait(1)
    newer = harness.textwrap.dedent(SOURCE.replace("CODE", repr("second")))
    short.functions.update_function_code(FunctionName="moved", ZipFile=harness.zip_of({"handler.py": newer}))
    assert [line["code"] for line in seen.wait(2)] == ["first", "second"]
    send_event(short, "moved", {"failures": 9})
    seen.wait(3)
    short.functions.delete_function(FunctionName="moved")
    harness.wait_for("the word about it", lambda: "FunctionNotFound" in short.said())
    assert len(seen.lines()) == 3


def test_accepted_events_survive_kill_9_whether_they_wait_or_run(tmp_path):
    server = harness.Server(tmp_path, UNCONFINED | {"LONGSHORE_FUNCTIONS_EVENT_RETRY_SECONDS": "1"}).start()
    try:
        seen = deploy(server, "late", tmp_path / "seen")
        server.functions.put_function_concurrency(FunctionName="late", ReservedConcurrentExecutions=1)
        gate = tmp_path / "gate"
        running = send_event(server, "late", {"until": str(gate), "n": "running"})
        seen.wait(1)
        waiting = [send_event(server, "late", {"n": n}) for n in range(20)]
        server.kill()
        assert len(seen.lines()) == 1, "one slot, one that runs: the others had no chance"
        gate.touch()
        server.start()
        ends = collections.Counter(line["request"] for line in seen.wait(21, "end"))
        assert set(ends) == {running, *waiting}, "each one ran under the id that its caller was told"
        assert [line["request"] for line in seen.lines()].count(running) == 2, "what ran is run again"
        server.kill()
        server.start()
        send_event(server, "late", {"n": "last"})
        assert len(seen.wait(22, "end")) == 22, "what is done is done"
    finally:
        server.stop()


def test_a_full_queue_throttles_and_what_it_took_is_run(tmp_path):
    server = harness.Server(tmp_path, UNCONFINED | {"LONGSHORE_FUNCTIONS_EVENTS_MAX": "6"}).start()
    try:
        seen = deploy(server, "full", tmp_path / "seen")
        server.functions.put_function_concurrency(FunctionName="full", ReservedConcurrentExecutions=1)
        gate = tmp_path / "gate"
        ids = [send_event(server, "full", {"until": str(gate), "n": n}) for n in range(3)]
        full = refused(server.functions.invoke, FunctionName="full", InvocationType="Event")
        assert error(full) == (429, "TooManyRequestsException", "Rate Exceeded.")
        assert full["Reason"] == "FunctionInvocationRateLimitExceeded"
        gate.touch()
        assert {line["request"] for line in seen.wait(3, "end")} == set(ids)
    finally:
        server.stop()
