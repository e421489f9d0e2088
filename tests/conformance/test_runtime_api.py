"""The Runtime API over the wire: scripted runtimes, and AWS's own clients for Python and Rust, unmodified.

The scripted runtime is one function whose events carry Python: what it sends to the Runtime API is what the event says,
and what it was answered comes back as its answer. Evidence: Lambda specification 1.1 to 1.9, 1.14, 8.4, 11.3 and 13.
"""

import base64
import contextlib
import json
import os
import re
import sys
import textwrap
import time
import uuid

import pytest

import harness
from harness import ACCOUNT, REGION

NODE_CLIENT = os.environ.get("LONGSHORE_TEST_NODE_CLIENT")
RUST = harness.LONGSHORE.with_name("scripted-function")
LIMIT = 6 * 1024 * 1024 + 100

# A client of the Runtime API that does as it is told. INIT is run before the first poll.
FAKE = '''#!/usr/bin/env -S python3 -SE
import base64, http.client, json, os, signal, socket, subprocess, sys, time
base = "/2018-06-01/runtime/"
host, port = os.environ["AWS_LAMBDA_RUNTIME_API"].split(":")
def connect():
    return http.client.HTTPConnection(host, int(port), timeout=30)
own, seen = connect(), []
# Which environment this is: a process ID may be that of another one in a namespace of its own.
ours = os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]
tmp = os.environ.get("TMPDIR", "/tmp")
def request(method, path, body=None, headers={}, on=None, **more):
    on = on or own
    on.request(method, path if path.startswith("/") else base + path, body, headers, **more)
    response = on.getresponse()
    return response.status, response.read().decode(), {k.lower(): v for k, v in response.getheaders()}
def told(*arguments, **more):
    status, body, _ = request(*arguments, **more)
    return [status, json.loads(body)]
def raw(data, until=None):
    """Sends bytes on a connection of their own and returns what comes back until it is closed, or until `until`."""
    s = socket.create_connection((host, int(port)))
    s.sendall(data)
    got = b""
    while until is None or until not in got:
        more = s.recv(65536)
        if not more: break
        got += more
    return got.decode()
def poll(on=None):
    return request("GET", "invocation/next", on=on)
exec(os.environ.get("INIT", ""))
while True:
    status, body, headers = poll()
    id = headers["lambda-runtime-aws-request-id"]
    path = "invocation/%s/" % id
    done = []
    def answer(value):
        done.append(1)
        return told("POST", path + "response", json.dumps(value).encode())
    exec(json.loads(body).get("script", ""))
    if not done: answer(None)
'''


def deploy(server, files, *, runtime="provided.al2023", handler="handler.handler", timeout=30, environment=None):
    """A function under a name of its own."""
    name = "runtime-" + uuid.uuid4().hex[:8]
    server.deploy(name, files, runtime=runtime, handler=handler, timeout=timeout, environment=environment)
    return name


@pytest.fixture(scope="module")
def fake(server):
    """One environment, so that what a script sees is there for the next one, unless it ended the environment."""
    function = deploy(server, {"bootstrap": FAKE})
    server.functions.put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=1)
    return function


def call(server, function, event, **more):
    """The answer as it is, the function error, and the tail of the log if it was asked for.

    Where a function has one environment and the machine is busy, it may not have polled again when the next call comes.
    """
    def answer():
        try:
            return server.functions.invoke(FunctionName=function, Payload=json.dumps(event).encode(), **more)
        except server.functions.exceptions.TooManyRequestsException:
            return None

    response = harness.wait_for("a place for the call", answer, 10)
    assert response["StatusCode"] == 200
    log = base64.b64decode(response.get("LogResult", "")).decode("utf-8", "replace")
    return response["Payload"].read(), response.get("FunctionError"), log


def play(server, function, script, **more):
    """Plays a script; returns its answer."""
    answer, error, _ = call(server, function, {"script": textwrap.dedent(script)}, **more)
    assert error is None, answer
    return json.loads(answer)


def fails(server, function, event, **more):
    """The payload of a function error, and its log."""
    answer, error, log = call(server, function, event, LogType="Tail", **more)
    assert error == "Unhandled", (answer, log)
    return json.loads(answer), log


def runs(server, function, script):
    return fails(server, function, {"script": textwrap.dedent(script)})


def transition(start, end):
    return [403, {"errorType": "InvalidStateTransition", "errorMessage":
                  f"State transition from {start} to {end} failed for runtime. Error: State transition is not allowed"}]


INVALID_ID = [400, {"errorMessage": "Invalid request ID", "errorType": "InvalidRequestID"}]
ACCEPTED = [202, {"status": "OK"}]


# --- 1.2 and 1.4: endpoints, errors and states ---


def test_each_call_in_the_wrong_state_is_refused_with_both_states_named(server):
    function = deploy(server, {"bootstrap": FAKE}, environment={"INIT": textwrap.dedent("""
        seen += [told("POST", "invocation/x/response", b"1"), told("POST", "invocation/x/error", b"1")]
    """)})
    assert play(server, function, "answer(seen)") == [
        transition("Started", "InvocationResponse"), transition("Started", "InvocationErrorResponse")]
    assert play(server, function, """
        seen[:] = [told("POST", "init/error", b"{}")]
        seen.append(answer(seen[:]))
        seen += [told("POST", path + kind, b"2") for kind in ("response", "error")] + [told("POST", "init/error", b"{}")]
    """) == [transition("Running", "InitError")]
    assert play(server, function, "answer(seen)")[1:] == [
        ACCEPTED, transition("RuntimeResponseSentState", "InvocationResponse"),
        transition("RuntimeResponseSentState", "InvocationErrorResponse"), transition("RuntimeResponseSentState", "InitError")]


def test_an_answer_under_another_name_or_of_another_attempt_is_an_invalid_request_id(server, fake):
    assert play(server, fake, """
        attempt = headers["lambda-runtime-invocation-id"]
        name = {"Lambda-Runtime-Invocation-Id": "another"}
        got = [told("POST", "invocation/nobody/" + kind, b"1") for kind in ("response", "error")]
        got += [told("POST", path + kind, b"1", name) for kind in ("response", "error")]
        done.append(1)
        got.append(told("POST", path + "response", json.dumps(got).encode(), {"lambda-runtime-invocation-id": attempt}))
        seen[:] = [id, got]
    """) == [INVALID_ID] * 4
    late = play(server, fake, "answer([seen[1][-1], told('POST', 'invocation/%s/response' % seen[0], b'late')])")
    assert late == [ACCEPTED, INVALID_ID]


def test_what_is_not_offered_is_not_there(server, fake):
    statuses = play(server, fake, """
        answer([request(method, at)[0] for method, at in (
            ("GET", "restore/next"), ("POST", "restore/error"), ("POST", "/2020-01-01/extension/register"),
            ("GET", "/2020-01-01/extension/event/next"), ("PUT", "/2022-07-01/telemetry"), ("PUT", "/2020-08-15/logs"),
            ("GET", "/"), ("POST", "invocation/next"))])
    """)
    assert statuses == [404] * 8
    assert play(server, fake, "answer(request('GET', '/2018-06-01/ping')[:2])") == [200, "pong"]


def test_a_response_mode_that_is_none_is_refused_and_the_invocation_goes_on(server, fake):
    assert play(server, fake, """
        answer(told("POST", path + "response", b"1", {"Lambda-Runtime-Function-Response-Mode": "fast"}))
    """) == [400, {"errorMessage": "Invalid function response mode", "errorType": "InvalidFunctionResponseMode"}]


def test_a_poll_while_an_event_is_out_gets_the_same_event_again(server, fake):
    assert play(server, fake, """
        again = poll(connect())
        answer([again[0], again[1] == body, again[2] == headers])
    """) == [200, True, True]


def test_a_poll_is_held_beyond_every_time_out_and_then_answered(server):
    function = deploy(server, {"bootstrap": FAKE}, timeout=1)
    first = play(server, function, "answer([ours, time.time()])")
    time.sleep(2.2)
    second = play(server, function, "answer([ours, time.time()])")
    assert first[0] == second[0] and second[1] - first[1] > 2


# --- 1.3: what comes with an event ---


def test_an_event_comes_with_lambdas_headers_and_none_is_empty(server, fake):
    version = server.functions.publish_version(FunctionName=fake)["Version"]
    arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{fake}"
    for qualifier in (None, "$LATEST", version):
        more = {"Qualifier": qualifier} if qualifier else {}
        context = base64.b64encode(b'{"custom": {"k": "v"}}').decode()
        began = time.time()
        headers = play(server, fake, "answer(headers)", ClientContext=context, **more)
        assert headers["lambda-runtime-invoked-function-arn"] == arn + (f":{qualifier}" if qualifier else "")
        assert 29_000 < int(headers["lambda-runtime-deadline-ms"]) - began * 1000 < 40_000
        for name in ("lambda-runtime-aws-request-id", "lambda-runtime-invocation-id"):
            assert str(uuid.UUID(headers[name], version=4)) == headers[name]
        trace = r"Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=0"
        assert re.fullmatch(trace, headers["lambda-runtime-trace-id"])
        assert json.loads(headers["lambda-runtime-client-context"]) == {"custom": {"k": "v"}}
        assert headers["content-type"] == "application/json" and int(headers["content-length"]) > 0
    bare = play(server, fake, "answer(headers)")
    assert "lambda-runtime-client-context" not in bare and "lambda-runtime-cognito-identity" not in bare
    assert all(bare.values()), bare


def test_an_event_is_the_callers_payload_byte_for_byte_and_none_is_an_empty_object(server):
    echo = FAKE.replace('exec(json.loads(body).get("script", ""))', "answer(body)")
    assert echo != FAKE
    function = deploy(server, {"bootstrap": echo})
    for sent, got in ((b"", "{}"), (b' {"a" : 1.50,\n"b":"\\u00e9"} ', ' {"a" : 1.50,\n"b":"\\u00e9"} '), (b"null", "null")):
        response = server.functions.invoke(FunctionName=function, Payload=sent)
        assert json.loads(response["Payload"].read()) == got


# --- 1.1 and 1.5: transport, sizes, streams ---


def test_requests_of_every_legal_form_are_taken(server, fake):
    assert play(server, fake, """
        first = poll(connect())
        # Names in any case, no content type, no user agent; chunks with an extension and with trailers nobody knows.
        head = "pOsT".upper() + " %s%sresponse HTTP/1.1\\r\\nhOsT: x\\r\\ntransfer-encoding: Chunked\\r\\nTrailer: X\\r\\n\\r\\n" % (base, path)
        got = raw((head + '4;e="1"\\r\\n["a"\\r\\n1\\r\\n]\\r\\n0\\r\\nX-Trailer: 1\\r\\n\\r\\n').encode(), b'OK"}')
        done.append(1)
        assert got.startswith("HTTP/1.1 202"), got
    """) == ["a"]
    # The body is sent only after the server has said that it wants it.
    assert play(server, fake, """
        s = socket.create_connection((host, int(port)))
        s.sendall(("POST %s%sresponse HTTP/1.1\\r\\nHost: x\\r\\nExpect: 100-continue\\r\\nContent-Length: 3\\r\\n\\r\\n" % (base, path)).encode())
        first = s.recv(65536)
        assert first == b"HTTP/1.1 100 Continue\\r\\n\\r\\n", first
        s.sendall(b"[7]")
        second = s.recv(65536)
        done.append(1)
        assert second.startswith(b"HTTP/1.1 202"), second
    """) == [7]


def test_six_hundred_connections_of_one_environment_are_served_at_once(server, fake):
    assert play(server, fake, """
        held = [connect() for _ in range(600)]
        for on in held: on.connect()
        statuses = {request("GET", "/2018-06-01/ping", on=on)[0] for on in held}
        for on in held: on.close()
        answer([len(held), list(statuses)])
    """) == [600, [200]]


def test_a_response_of_the_limit_passes_and_a_byte_more_is_refused_however_it_is_sent(server, fake):
    send = """
        def send(length, chunked):
            done.append(1)
            if not chunked: return told("POST", path + "response", b"z" * length, on=connect())
            pieces = (b"z" * min(1 << 16, length - at) for at in range(0, length, 1 << 16))
            return told("POST", path + "response", pieces, {"Transfer-Encoding": "chunked"}, on=connect(), encode_chunked=True)
        try: seen[:] = [send(%d, %s)]
        except OSError: seen[:] = ["cut off"]
    """
    refused = [413, {"errorMessage": "Exceeded maximum allowed payload size (6291556 bytes).", "errorType": "RequestEntityTooLarge"}]
    for chunked in (False, True):
        answer, error, _ = call(server, fake, {"script": textwrap.dedent(send % (LIMIT, chunked))})
        assert error is None and answer == b"z" * LIMIT
        for length in (LIMIT + 1, 80 << 20):
            answer, _ = runs(server, fake, send % (length, chunked))
            assert answer == {"errorType": "Function.ResponseSizeTooLarge", "errorMessage":
                              "Response payload size exceeded maximum allowed payload size (6291556 bytes)."}
            heard = play(server, fake, "answer(seen)")
            # What is far too large is not read to its end: it is answered and cut off, and the client may see either.
            assert heard == [refused] or (length > LIMIT + 1 and heard == ["cut off"]), heard


def test_a_streamed_response_is_collected_and_its_error_trailers_are_heard(server, fake):
    stream = """
        def stream(trailers):
            head = "POST %%s%%sresponse HTTP/1.1\\r\\nHost: x\\r\\nLambda-Runtime-Function-Response-Mode: streaming\\r\\nTrailer: Lambda-Runtime-Function-Error-Type\\r\\nTrailer: Lambda-Runtime-Function-Error-Body\\r\\nContent-Type: text/plain\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n" %% (base, path)
            done.append(1)
            got = raw((head + "6\\r\\n[\\"one\\"\\r\\n1\\r\\n]\\r\\n0\\r\\n" + trailers + "\\r\\n").encode(), b'OK"}')
            assert got.startswith("HTTP/1.1 202"), got
        stream(%r)
    """
    assert play(server, fake, stream % "") == ["one"]
    assert play(server, fake, stream % "Lambda-Runtime-Function-Error-Type:\r\n") == ["one"], "an empty type is no error"
    body = base64.b64encode(b'{"errorType": "Error", "errorMessage": "in the middle"}').decode()
    answer, log = runs(server, fake, stream % (
        f"Lambda-Runtime-Function-Error-Type: Function.Middle\r\nlambda-runtime-function-error-body: {body}\r\n"))
    assert answer == {"errorType": "Error", "errorMessage": "in the middle"}
    assert "\tStatus: error\tError Type: Function.Middle\n" in log
    assert runs(server, fake, stream % "Lambda-Runtime-Function-Error-Type: Error\r\n")[0] == "Invalid error body"


# --- 1.6: errors that are posted ---


def test_an_error_is_passed_on_as_posted_with_a_header_of_a_mebibyte(server, fake):
    answer, log = runs(server, fake, """
        done.append(1)
        headers = {"Lambda-Runtime-Function-XRay-Error-Cause": "x" * (1 << 20), "Lambda-Runtime-Function-Error-Type": "unhandled"}
        assert told("POST", path + "error", b'{"any": ["thing"]}', headers) == [202, {"status": "OK"}]
    """)
    assert answer == {"any": ["thing"]}
    assert "\tStatus: error\tError Type: Runtime.Unknown\n" in log
    assert play(server, fake, "answer('warm')") == "warm"


def test_the_cause_of_an_error_is_kept_from_the_caller(server, fake):
    post = """
        done.append(1)
        told("POST", path + "error", %r, {"Content-Type": "application/vnd.aws.lambda.error.cause+json"})
    """
    cause = b'{"errorMessage": "m", "errorType": "T", "stackTrace": ["a"], "errorCause": {"deep": 1}}'
    assert runs(server, fake, post % cause)[0] == {"errorMessage": "m", "errorType": "T", "stackTrace": ["a"]}
    assert runs(server, fake, post % b"{")[0] == "Invalid error body"


# --- 1.8, 8.4: what the caller sees of a failure ---


def message(log, words):
    """An error message of the host's own, for the invocation whose log this is."""
    request = re.search(r"START RequestId: (\S+) Version: \$LATEST\n", log)[1]
    return f"RequestId: {request} Error: {words}"


@pytest.mark.parametrize("script, words", [
    ("os._exit(0)", "Runtime exited without providing a reason"),
    ("os._exit(7)", "Runtime exited with error: exit status 7"),
    ("os.kill(os.getpid(), signal.SIGKILL)", "Runtime exited with error: signal: killed"),
    ("os.kill(os.getpid(), signal.SIGTERM)", "Runtime exited with error: signal: terminated"),
    ("os.kill(os.getpid(), signal.SIGSEGV)", "Runtime exited with error: signal: segmentation fault"),
    ("os.kill(os.getpid(), signal.SIGABRT)", "Runtime exited with error: signal: aborted"),
    ("os.kill(os.getpid(), signal.SIGFPE)", "Runtime exited with error: signal: floating point exception"),
    ("os.kill(os.getpid(), signal.SIGUSR1)", "Runtime exited with error: signal: user defined signal 1"),
    ("os.kill(os.getpid(), signal.SIGXCPU)", "Runtime exited with error: signal: CPU time limit exceeded"),
])
def test_a_runtime_that_ends_is_an_exit_error(server, fake, script, words):
    answer, log = runs(server, fake, script)
    told = message(log, words)
    # Where core dumps are made, the signal's name says so, as on AWS.
    assert answer["errorType"] == "Runtime.ExitError" and answer["errorMessage"].removesuffix(" (core dumped)") == told
    assert f"{answer['errorMessage']}\nRuntime.ExitError\nEND RequestId: " in log
    assert log.endswith("\tStatus: error\tError Type: Runtime.ExitError\n")
    assert play(server, fake, "answer('new')") == "new"


def test_an_answer_that_breaks_off_is_a_truncated_response(server, fake):
    for framing in ("Content-Length: 10", "Transfer-Encoding: chunked"):
        answer, log = runs(server, fake, f"""
            s = socket.create_connection((host, int(port)))
            s.sendall(("POST %s%sresponse HTTP/1.1\\r\\nHost: x\\r\\n{framing}\\r\\n\\r\\na" % (base, path)).encode())
            s.shutdown(socket.SHUT_WR)
            # The runtime hears of it as well, if it is there to hear.
            print(s.recv(65536).decode().split("\\r\\n\\r\\n")[1], flush=True)
            time.sleep(60)
        """)
        assert answer["errorType"] == "Runtime.TruncatedResponse"
        assert log.endswith("\tStatus: error\tError Type: Runtime.TruncatedResponse\n")


def test_a_time_out_is_told_in_the_words_of_aws_and_the_next_call_finds_a_new_environment(server):
    function = deploy(server, {"bootstrap": FAKE}, timeout=1)
    first = play(server, function, "open(tmp + '/kept', 'w').close(); answer(ours)")
    look = "answer([ours, os.path.exists(tmp + '/kept')])"
    assert play(server, function, look) == [first, True]
    answer, log = runs(server, function, "subprocess.Popen(['sleep', '60']); time.sleep(60)")
    assert answer == {"errorType": "Sandbox.Timedout", "errorMessage": message(log, "Task timed out after 1.00 seconds")}
    request = answer["errorMessage"].split()[1]
    assert re.search(rf"\n\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{3}}Z {request} Task timed out after 1\.00 seconds\n\nEND ", log)
    assert log.endswith("\tStatus: timeout\n")
    second = play(server, function, look)
    assert second[0] != first and second[1] is False


def test_a_child_that_crashes_under_a_living_runtime_shows_as_a_time_out(server):
    function = deploy(server, {"bootstrap": FAKE}, timeout=1)
    answer, _ = runs(server, function, """
        child = subprocess.Popen([sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"])
        child.wait()
        while True: time.sleep(1)
    """)
    assert answer["errorType"] == "Sandbox.Timedout"


def test_what_is_answered_before_the_end_is_a_success(server, fake):
    for end in ("os._exit(1)", "os.kill(os.getpid(), signal.SIGKILL)"):
        assert play(server, fake, f"answer('answered'); {end}") == "answered"
        # Sent, and gone before anybody can have read it.
        assert play(server, fake, f"""
            text = b'"on the wire"'
            s = socket.create_connection((host, int(port)))
            s.sendall(("POST %s%sresponse HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: %d\\r\\n\\r\\n" % (base, path, len(text))).encode() + text)
            {end}
        """) == "on the wire"


def test_an_environment_is_not_free_before_its_next_poll_and_that_time_is_the_functions(server):
    function = deploy(server, {"bootstrap": FAKE}, timeout=1)
    server.functions.put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=1)
    play(server, function, "answer(1)")
    began = time.monotonic()
    assert play(server, function, "answer(1); time.sleep(0.7)") == 1
    assert time.monotonic() - began < 0.6, "the answer does not wait for the poll"
    assert play(server, function, "answer(2)") == 2
    assert time.monotonic() - began > 0.6, "the next invocation does"
    first = play(server, function, "answer(ours); time.sleep(60)")

    assert play(server, function, "answer(ours)") != first, "a runtime that does not come back is ended"


@pytest.mark.parametrize("files, words", [
    ({"other": "x"}, "Couldn't find valid bootstrap(s): [/var/task/bootstrap /opt/bootstrap]"),
    ({"bootstrap": "#!/no/such/interpreter\n"}, "fork/exec /var/task/bootstrap: no such file or directory"),
    ({"bootstrap": "\x7fnothing that runs"}, "fork/exec /var/task/bootstrap: exec format error"),
], ids=["missing", "no-interpreter", "no-program"])
def test_a_bootstrap_that_cannot_be_run_is_an_invalid_entrypoint(server, files, words):
    function = deploy(server, files)
    for _ in range(2):
        answer, log = fails(server, function, {})
        assert answer == {"errorType": "Runtime.InvalidEntrypoint", "errorMessage": message(log, words)}
        assert log.endswith("\tStatus: error\tError Type: Runtime.InvalidEntrypoint\n")


@pytest.mark.parametrize("init, payload, error_type", [
    ("""told("POST", "init/error", b'{"errorType":"Mine","errorMessage":"m"}', {"Lambda-Runtime-Function-Error-Type": "Runtime.Mine"}); time.sleep(60)""",
     {"errorType": "Mine", "errorMessage": "m"}, "Runtime.Mine"),
    ("os._exit(0)", "Runtime exited without providing a reason", "Runtime.ExitError"),
    ("print('why'); sys.stdout.flush(); os._exit(3)", "Runtime exited with error: exit status 3", "Runtime.ExitError"),
    ("os.kill(os.getpid(), signal.SIGKILL)", "Runtime exited with error: signal: killed", "Runtime.ExitError"),
], ids=["posted", "exit-0", "exit-3", "killed"])
def test_a_start_that_fails_is_told_to_the_caller_and_tried_again(server, init, payload, error_type):
    function = deploy(server, {"bootstrap": FAKE}, environment={"INIT": init})
    for _ in range(2):
        answer, log = fails(server, function, {})
        assert answer == payload if isinstance(payload, dict) else (
            answer == {"errorType": error_type, "errorMessage": message(log, payload)}), answer
        assert re.search(rf"INIT_REPORT Init Duration: \d+\.\d\d ms\tPhase: init\tStatus: error\tError Type: {error_type}\n", log), log
        assert log.endswith(f"\tStatus: error\tError Type: {error_type}\n")
        if "why" in init:
            assert "\nwhy\nINIT_REPORT" in log, "what it printed is in the log of the call that it failed"


# --- 1.14: logs ---


def log_with(server, function, text):
    """What the file of the function's log holds, once `text` is in it: lines gather for a moment before they are written."""
    def kept():
        log = server.longshore("logs", function).stdout
        return log if text in log else None

    return harness.wait_for("the log's end", kept)


def test_the_log_of_an_invocation_is_lambdas_and_the_first_one_has_the_init_duration(server):
    function = deploy(server, {"bootstrap": FAKE}, environment={"INIT": "print('starting', flush=True)"})
    first = call(server, function, {"script": "print('first', flush=True)"}, LogType="Tail")[2]
    second = call(server, function, {"script": "print('second', flush=True)"}, LogType="Tail")[2]
    for log, printed, init in ((first, "first", r"Init Duration: \d+\.\d\d ms\t"), (second, "second", "")):
        assert re.fullmatch(
            rf"START RequestId: (\S{{36}}) Version: \$LATEST\n{printed}\nEND RequestId: \1\n"
            rf"REPORT RequestId: \1\tDuration: \d+\.\d\d ms\tBilled Duration: \d+ ms\tMemory Size: 128 MB\tMax Memory Used: \d+ MB\t{init}\n",
            log), log
    assert "LogResult" not in server.functions.invoke(FunctionName=function, Payload=b"{}")
    kept = log_with(server, function, second)
    assert re.match(
        rf"INIT_START Runtime Version: provided:al2023\.v0\tRuntime Version ARN: arn:aws:lambda:{REGION}::runtime:[0-9a-f]{{64}}\nstarting\nSTART ",
        kept), kept[:500]
    assert first + second in kept, "the tail is exactly that text"


def test_the_tail_is_the_last_four_kibibytes(server, fake):
    log = call(server, fake, {"script": "for n in range(2000): print('line', n, flush=True)"}, LogType="Tail")[2]
    assert len(log) == 4096 and "line 1999\nEND RequestId" in log and "line 1000\n" not in log


def test_what_is_printed_right_before_an_answer_is_in_its_own_log(server, fake):
    for n in range(60):
        log = call(server, fake, {"script": f"os.write(1, b'only {n} ' + b'x' * 3000 + b'\\nsecond {n}')"}, LogType="Tail")[2]
        printed = [line.split("x")[0] for line in log.splitlines() if line.startswith(("only", "second"))]
        assert printed == [f"only {n} ", f"second {n}"], log


def test_a_flood_of_output_neither_stops_the_function_nor_fills_memory_or_disk(server):
    function = deploy(server, {"bootstrap": FAKE}, timeout=60)
    folder = server.data_dir / "logs"

    def sizes():
        return [path.stat().st_size for path in sorted(folder.glob(f"{function}.log*"))]

    play(server, function, """
        line = b"y" * 999 + b"\\n"
        for _ in range(200): os.write(1, line * 1000)
        answer(None)
    """)
    assert sum(sizes()) < 140 << 20, "two files of at most 64 MiB"

    def at_rest():
        before = sizes()
        time.sleep(0.1)
        return sizes() == before

    # What comes faster than the file is written may be lost; the next line comes when all is written.
    harness.wait_for("the log at rest", at_rest, 30)
    play(server, function, """
        os.write(1, b"z" * (300 << 10) + b"\\n")
        answer(None)
    """)

    def longest():
        # Between two files there is none for a moment: the full one has its new name, and nothing was written since.
        with contextlib.suppress(FileNotFoundError):
            return max(map(len, (folder / f"{function}.log").read_bytes().split(b"\n")))
        return 0

    harness.wait_for("the long line", lambda: longest() >= 256 << 10, 10)
    assert longest() == 256 << 10


@pytest.mark.parametrize("runtime, files", [
    ("python3.11", {"handler.py": """
        import logging
        logger = logging.getLogger()
        def handler(event, context):
            if event.get("raise"): raise ValueError("x")
            logger.info("informed")
            logger.error("warned %d", 7)
    """}),
    ("nodejs20.x", {"handler.js": """
        exports.handler = async (event) => {
          if (event.raise) throw new TypeError("x");
          console.info("informed");
          console.error("warned %d", 7);
          return null;
        };
    """}),
])
def test_a_function_that_logs_in_json_has_lambdas_records(server, runtime, files):
    if runtime.startswith("node"):
        harness.need("node")
    function = deploy(server, {name: textwrap.dedent(text) for name, text in files.items()}, runtime=runtime)
    functions = server.functions

    def log_as(system):
        functions.update_function_configuration(FunctionName=function, LoggingConfig={
            "LogFormat": "JSON", "ApplicationLogLevel": "WARN", "SystemLogLevel": system})
        functions.get_waiter("function_updated_v2").wait(FunctionName=function)

    log_as("DEBUG")
    _, _, log = call(server, function, {}, LogType="Tail")
    start, own, done, report = map(json.loads, log.splitlines())
    request = start["record"]["requestId"]
    assert (start["type"], start["record"]) == ("platform.start", {"requestId": request, "version": "$LATEST"})
    assert (own["level"], own["message"], own["requestId"]) == ("ERROR", "warned 7", request), "and nothing below WARN"
    assert (done["type"], done["record"]["status"]) == ("platform.runtimeDone", "success")
    assert report["type"] == "platform.report" and report["record"]["requestId"] == request
    metrics = report["record"]["metrics"]
    assert set(metrics) == {"durationMs", "billedDurationMs", "memorySizeMB", "maxMemoryUsedMB", "initDurationMs"}
    assert metrics["memorySizeMB"] == 128 and metrics["billedDurationMs"] >= metrics["durationMs"] > 0
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"]) for line in (start, done, report))
    kept = [json.loads(line) for line in log_with(server, function, log).splitlines()]
    assert [line["type"] for line in kept[:3]] == ["platform.initStart", "platform.initRuntimeDone", "platform.initReport"]

    log_as("WARN")
    _, log = fails(server, function, {"raise": True})
    records = [json.loads(line) for line in log.splitlines()]
    assert [line["type"] for line in records if "type" in line] == ["platform.runtimeDone", "platform.report"]
    assert all(line["record"]["status"] == "error" for line in records if "type" in line)
    [own] = [line for line in records if "type" not in line]
    assert own["level"] == "ERROR" and own["requestId"] == records[-1]["record"]["requestId"]
    if runtime.startswith("python"):
        assert (own["errorType"], own["errorMessage"]) == ("ValueError", "x") and "in handler" in own["stackTrace"][0]


# --- AWS's own clients, unmodified: the same questions ---


PYTHON = textwrap.dedent("""
    import os, signal, sys
    if os.environ.get("INIT") == "exit": os._exit(3)
    if os.environ.get("INIT") == "kill": os.kill(os.getpid(), signal.SIGKILL)
    def handler(event, context):
        what = event["do"]
        if what == "answer":
            client = context.client_context
            return {"event": event, "in": context.log_stream_name, "id": context.aws_request_id,
                    "arn": context.invoked_function_arn, "client": client and client.custom}
        if what == "raise": raise ValueError(event["words"])
        if what == "exit": os._exit(event["code"])
        if what == "signal": os.kill(os.getpid(), getattr(signal, "SIG" + event["name"]))
        if what == "bytes": return "x" * event["n"]
        if what == "print": print(event["words"])
        while what in ("signal", "hang"): signal.pause()
""")


NODE = """
const env = process.env;
if (env.INIT === "exit") process.exit(3);
if (env.INIT === "kill") process.kill(process.pid, "SIGKILL");
exports.handler = async (event, context) => {
  switch (event.do) {
    case "answer": return {
      event, in: context.logStreamName, id: context.awsRequestId, arn: context.invokedFunctionArn,
      client: context.clientContext ? context.clientContext.custom : null };
    case "raise": throw new RangeError(event.words);
    case "exit": process.exit(event.code);
    case "signal": process.kill(process.pid, "SIG" + event.name); return new Promise(() => setInterval(() => {}, 1000));
    case "bytes": return "x".repeat(event.n);
    case "print": process.stdout.write(event.words + "\\n"); return null;
    case "hang": return new Promise(() => setInterval(() => {}, 1000));
  }
};
exports.streaming = awslambda.streamifyResponse(async (event, stream) => {
  stream.setContentType("text/plain");
  stream.write("in ");
  if (event.break) throw new RangeError("in the middle");
  stream.write("two parts");
  stream.end();
});
"""


@pytest.fixture(scope="module", params=[
    "awslambdaric", "lambda_runtime", "our Python", "our Node", *(["aws-lambda-ric"] if NODE_CLIENT else [])])
def stock(request, server):
    """Deploys a function of one client or the other: which client, and `deploy(**more)`.

    Node's is built from sources for some minutes: `qa/long runtimes` does it, and names its folder. Our own clients have
    to answer as AWS's do.
    """
    if request.param == "awslambdaric":
        files = {"bootstrap": f"#!/bin/sh\nexec {sys.executable} -m awslambdaric $_HANDLER\n", "handler.py": PYTHON}
    elif request.param.startswith("our"):
        node = request.param == "our Node"
        if node:
            harness.need("node")
        ours = {"runtime": "nodejs20.x" if node else "python3.11"}
        files = {"handler.js": NODE} if node else {"handler.py": PYTHON}
        return request.param, lambda **more: deploy(server, files, **ours, **more)
    elif request.param == "aws-lambda-ric":
        files = {"bootstrap": f"#!/bin/sh\nexec node {NODE_CLIENT}/bin/index.mjs $_HANDLER\n", "handler.js": NODE}
    else:
        if not RUST.exists():
            pytest.skip("the Rust function is not built: cargo build -p scripted-function")
        files = {"bootstrap": RUST.read_bytes()}
    return request.param, lambda **more: deploy(server, files, **more)


@pytest.fixture(scope="module")
def function(server, stock):
    function = stock[1](timeout=10)
    # One environment, so that it can be seen whether it stays.
    server.functions.put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=1)
    return function


def environment(server, function):
    """Which environment answers."""
    return json.loads(call(server, function, {"do": "answer"})[0])["in"]


def test_a_stock_client_finds_its_event_and_stays(server, stock, function):
    context = base64.b64encode(b'{"custom": {"k": "v"}}').decode()
    answers = [json.loads(call(server, function, {"do": "answer", "n": n}, ClientContext=context)[0]) for n in range(20)]
    assert [answer["event"]["n"] for answer in answers] == list(range(20))
    assert len({answer["id"] for answer in answers}) == 20 and len({answer["in"] for answer in answers}) == 1
    assert answers[0]["arn"] == f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{function}" and answers[0]["client"] == {"k": "v"}


def test_an_error_of_a_stock_client_is_passed_on_as_posted_and_leaves_it_warm(server, stock, function):
    before = environment(server, function)
    answer, log = fails(server, function, {"do": "raise", "words": "böse"})
    if stock[0] in ("awslambdaric", "our Python"):
        assert answer.pop("stackTrace") and answer.pop("requestId") in log
        assert answer == {"errorMessage": "böse", "errorType": "ValueError"}
    elif stock[0] in ("aws-lambda-ric", "our Node"):
        assert answer.pop("trace")[0] == "RangeError: böse" and answer == {"errorType": "RangeError", "errorMessage": "böse"}
    else:
        assert answer.pop("errorType").startswith("&alloc::boxed::Box<dyn core::error::Error") and answer == {"errorMessage": "böse"}
        answer, _ = fails(server, function, {"do": "panic", "words": "kaboom"})
        assert answer["errorMessage"] == "Lambda panicked: kaboom"
    assert environment(server, function) == before


@pytest.mark.parametrize("event, words", [
    ({"do": "exit", "code": 0}, "Runtime exited without providing a reason"),
    ({"do": "exit", "code": 7}, "Runtime exited with error: exit status 7"),
    ({"do": "signal", "name": "KILL"}, "Runtime exited with error: signal: killed"),
    ({"do": "signal", "name": "SEGV"}, "Runtime exited with error: signal: segmentation fault"),
    ({"do": "signal", "name": "ABRT"}, "Runtime exited with error: signal: aborted"),
], ids=["exit-0", "exit-7", "kill", "segv", "abrt"])
def test_the_end_of_a_stock_client_is_an_exit_error(server, stock, function, event, words):
    before = environment(server, function)
    answer, log = fails(server, function, event)
    assert answer["errorType"] == "Runtime.ExitError"
    assert answer["errorMessage"].removesuffix(" (core dumped)") == message(log, words)
    assert environment(server, function) != before


def test_a_stock_client_is_refused_an_answer_that_is_too_large_and_the_next_call_does_not_notice(server, stock, function):
    answer, error, _ = call(server, function, {"do": "bytes", "n": LIMIT - 2})
    assert error is None and len(answer) == LIMIT
    before = environment(server, function)
    assert fails(server, function, {"do": "bytes", "n": LIMIT - 1})[0]["errorType"] == "Function.ResponseSizeTooLarge"
    # Python's client ends itself on a 413, the others poll on.
    assert (environment(server, function) == before) == (stock[0] != "awslambdaric")


def test_a_stock_client_that_hangs_or_cannot_start_is_told_as_any_other(server, stock):
    _, deployed = stock
    answer, log = fails(server, deployed(timeout=1), {"do": "hang"})
    assert answer == {"errorType": "Sandbox.Timedout", "errorMessage": message(log, "Task timed out after 1.00 seconds")}
    for init, words in (("exit", "exit status 3"), ("kill", "signal: killed")):
        answer, log = fails(server, deployed(environment={"INIT": init}), {"do": "answer"})
        assert answer == {"errorType": "Runtime.ExitError", "errorMessage": message(log, f"Runtime exited with error: {words}")}
    if stock[0] != "lambda_runtime":  # which has no handler to look for
        answer, log = fails(server, deployed(handler="nowhere.handler"), {})
        assert answer["errorType"] == "Runtime.ImportModuleError" and "nowhere" in answer["errorMessage"]
        if stock[0] in ("awslambdaric", "our Python"):
            assert answer == {"errorMessage": "Unable to import module 'nowhere': No module named 'nowhere'",
                              "errorType": "Runtime.ImportModuleError", "requestId": "", "stackTrace": []}
        assert log.endswith("\tStatus: error\tError Type: Runtime.ImportModuleError\n")


def test_what_a_stock_client_prints_is_in_its_log(server, stock, function):
    log = call(server, function, {"do": "print", "words": "from a stock client"}, LogType="Tail")[2]
    assert re.fullmatch(r"START .*\nfrom a stock client\nEND .*\nREPORT .*\n", log), log


def test_a_stream_of_a_stock_client_is_collected(server, stock, function):
    if stock[0] in ("awslambdaric", "our Python"):
        pytest.skip("Python's client does not stream")
    if stock[0] == "lambda_runtime":
        answer, error, _ = call(server, function, {"do": "stream"})
        # Before the NULs is what the client wants to be headers of an HTTP answer.
        assert error is None and answer.split(b"\0" * 8)[1] == b"in two parts", answer
        return
    streaming = stock[1](handler="handler.streaming")
    assert call(server, streaming, {})[:2] == (b"in two parts", None)
    answer, log = fails(server, streaming, {"break": True})
    assert (answer["errorType"], answer["errorMessage"]) == ("RangeError", "in the middle")
