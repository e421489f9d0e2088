"""Functions of somebody else: a job here whose function is on another server, or behind AWS's runtime interface emulator."""

import collections
import http.server
import json
import threading
import time

import pytest

import audit
import harness
from harness import ACCOUNT, REGION

ANSWER = """
    import os, time
    log = os.open(os.environ["INVOCATIONS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def handler(event, context):
        task = event["tasks"][0]
        os.write(log, f"start {task['s3Key']} {task['taskId']} {event['invocationId']}\\n".encode())
        if task["s3Key"].startswith("raises"):
            raise ValueError("not " + task["s3Key"])
        time.sleep(0.02)
        os.write(log, f"end {task['s3Key']} {task['taskId']} {event['invocationId']}\\n".encode())
        return {"invocationSchemaVersion": "1.0", "invocationId": event["invocationId"], "results": [
            {"taskId": task["taskId"], "resultCode": "Succeeded", "resultString": context.invoked_function_arn}]}
"""


def arn(name):
    return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"


def ending(server):
    if server.process.poll() is None:
        server.stop()
    assert "panicked at" not in server.said()


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """The server that has the functions. It keeps its port across restarts."""
    server = harness.Server(tmp_path_factory.mktemp("there"), harness.UNCONFINED)
    server.port = harness.free_port()
    server.start(listen=f"127.0.0.1:{server.port}")
    yield server
    ending(server)


class Counted:
    """The log of a function that notes each invocation as a line of text."""

    def __init__(self, path):
        self.path = path

    def starts(self):
        """How often each key was started."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return collections.Counter(key for what, key, *_ in map(str.split, lines) if what == "start")


@pytest.fixture
def log(tmp_path):
    return Counted(tmp_path / "invocations")


def server_with(folder, endpoint, variables=None):
    lines = ["[[function_endpoint]]"] + [f"{key} = {json.dumps(value)}" for key, value in endpoint.items()]
    server = harness.Server(folder, extra_environment=harness.UNCONFINED | (variables or {}) | {"LONGSHORE_LOG": "info,longshore=debug"})
    server.data_dir.mkdir(parents=True, mode=0o700)
    (server.data_dir / "longshore.toml").write_text("\n".join(lines) + "\n")
    return server.start()


@pytest.fixture
def here(there, tmp_path):
    """The server that has the jobs; functions `far-…` are on the other."""
    server = server_with(
        tmp_path / "here",
        {"name": "there", "url": f"http://127.0.0.1:{there.port}", "functions": ["far-*", "arn:*:function:far-*"],
         "region": REGION, "access_key_id_variable": "THERE_KEY", "secret_access_key_variable": "THERE_SECRET"},
        {"THERE_KEY": there.exports["AWS_ACCESS_KEY_ID"], "THERE_SECRET": there.exports["AWS_SECRET_ACCESS_KEY"]})
    yield server
    ending(server)
    assert there.exports["AWS_SECRET_ACCESS_KEY"] not in server.said(), "a secret is in the log"


def started(server, function, keys):
    bucket = server.bucket("jobs")
    rows = [(bucket, key) for key in keys]
    return server.create_job(bucket, function, server.put_manifest(bucket, rows)), rows


@pytest.mark.parametrize("named", ["arn", "name", "version"])
def test_a_job_calls_a_function_of_another_server_and_an_error_there_fails_its_task_alone(here, there, log, named):
    function = "far-answers-" + named
    there.deploy(function, ANSWER, environment={"INVOCATIONS": str(log.path)})
    name, called = {"arn": (arn(function), arn(function)), "name": (function, arn(function))}.get(named, (None, None))
    if named == "version":
        version = there.functions.publish_version(FunctionName=function)["Version"]
        there.functions.get_waiter("published_version_active").wait(FunctionName=function, Qualifier=version)
        name = called = f"{arn(function)}:{version}"
    job, rows = started(here, name, ["a", "b", "c%20d", "raises"])
    here.wait(job)
    report = harness.by_key(harness.audit(here, job, rows, invoked=log.starts()))
    for key in ("a", "b", "c%20d"):
        assert (report[key].status, report[key].http_status, report[key].message) == ("succeeded", "200", called)
    failed = report["raises"]
    assert (failed.http_status, failed.error_code) == ("200", "PermanentFailure")
    assert failed.message.startswith("Lambda returned function error: {") and "not raises" in failed.message
    assert log.starts()["raises"] == 1, "a function error is final"


def test_a_function_that_no_endpoint_has_is_one_of_this_server(here, there, log, tmp_path):
    there.deploy("near", ANSWER, environment={"INVOCATIONS": str(log.path)})
    near = Counted(tmp_path / "near")
    function = here.deploy("near", ANSWER, environment={"INVOCATIONS": str(near.path)})
    job, rows = started(here, function, ["a", "b"])
    here.wait(job)
    harness.audit(here, job, rows, invoked=near.starts())
    assert not log.starts()


def test_a_function_that_is_not_there_fails_its_tasks_with_lambdas_own_error(here):
    job, rows = started(here, arn("far-missing"), ["a"])
    here.wait(job)
    [row] = harness.audit(here, job, rows)
    assert (row.status, row.http_status, row.error_code) == ("failed", "404", "ResourceNotFoundException")
    assert row.message == f"Function not found: {arn('far-missing')}:$LATEST"


def test_credentials_that_are_not_taken_fail_the_task_as_the_other_side_says(there, tmp_path):
    server = server_with(
        tmp_path / "stranger",
        {"name": "there", "url": f"http://127.0.0.1:{there.port}", "functions": ["*"], "region": REGION,
         "access_key_id_variable": "THERE_KEY", "secret_access_key_variable": "THERE_SECRET"},
        {"THERE_KEY": there.exports["AWS_ACCESS_KEY_ID"], "THERE_SECRET": "not-the-secret-of-this-key"})
    try:
        job, rows = started(server, arn("far-answers"), ["a"])
        server.wait(job)
        [row] = harness.audit(server, job, rows)
        assert (row.http_status, row.error_code) == ("403", "InvalidSignatureException"), row
    finally:
        ending(server)


def test_a_throttled_function_costs_no_attempt_and_is_called_as_often_at_once_as_it_allows(here, there, log):
    function = there.deploy("far-reserved", ANSWER, environment={"INVOCATIONS": str(log.path)})
    there.functions.put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=0)
    job, rows = started(here, function, [f"key-{row:02}" for row in range(20)])
    harness.wait_for("a throttled call", lambda: "a call was throttled" in here.said())
    assert here.describe(job)["Status"] == "Active" and not log.starts()
    there.functions.put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=1)
    here.wait(job)
    report = harness.audit(here, job, rows, invoked=log.starts())
    assert {row.status for row in report} == {"succeeded"}
    whats = [line.split()[0] for line in log.path.read_text().splitlines()]
    assert whats == ["start", "end"] * 20, "one at a time, and each once"


def test_a_job_waits_while_the_other_server_is_down_and_goes_on_when_it_is_up_again(here, there, log):
    function = there.deploy("far-down", ANSWER, environment={"INVOCATIONS": str(log.path)})
    there.kill()
    job, rows = started(here, function, [f"key-{row}" for row in range(5)])
    harness.wait_for("a call that finds nobody", lambda: "a function could not be reached" in here.said())
    assert here.describe(job)["Status"] == "Active"
    there.start(listen=f"127.0.0.1:{there.port}")
    here.wait(job)
    report = harness.audit(here, job, rows, invoked=log.starts())
    assert {row.status for row in report} == {"succeeded"}


def test_a_job_whose_server_is_killed_reports_every_task_of_the_other_servers_function_once(here, there, tmp_path):
    log = audit.Invocations(tmp_path / "invocations")
    function = there.deploy("far-record", {"handler.py": audit.RECORDER}, environment={"INVOCATIONS": str(log.path)})
    job, rows = started(here, function, [f"key-{row:03}" for row in range(400)])
    for mark in (40, 200):
        harness.wait_for(f"the start of task {mark}", lambda: len(log.starts_by_key(job)) >= mark)
        here.kill()
        log.killed(time.monotonic_ns())
        here.start()
    here.wait(job)
    # What a kill cuts off here goes on there; the report has the word of the last invocation all the same.
    report = harness.audit(here, job, rows, log=log)
    assert {row.status for row in report} == {"succeeded"}


# --- the runtime interface emulator ---


class Emulator(http.server.ThreadingHTTPServer):
    """Answers as AWS's runtime interface emulator does: one invocation at a time, no error header, text for a time-out."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), EmulatedCall)
        self.running = threading.Lock()
        self.refused = threading.Event()
        self.wait_for_a_refusal = False
        self.calls, self.strays = collections.Counter(), []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class EmulatedCall(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stray(self):
        self.server.strays.append((self.command, self.path))
        self.answer(404, b"404 page not found")

    do_GET = stray

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path != "/2015-03-31/functions/function/invocations" or "Authorization" in self.headers:
            return self.stray()
        if not self.server.running.acquire(blocking=False):
            self.server.refused.set()
            return self.answer(400)
        try:
            status, content, headers = self.invoked(json.loads(body))
        finally:
            # Before the answer, after which the next call may come.
            self.server.running.release()
        self.answer(status, content, **headers)

    def invoked(self, event):
        task = event["tasks"][0]
        key = task["s3Key"]
        self.server.calls[key] += 1
        if self.server.wait_for_a_refusal:
            assert self.server.refused.wait(30), "nobody else called"
        raised = json.dumps({"errorMessage": "no " + key, "errorType": "ValueError"}).encode()
        if key == "raises":
            return 200, raised, {}
        if key == "slow":
            return 200, b"Task timed out after 3.00 seconds", {}
        if key == "exits":
            return 502, raised, {}
        if key == "expires" and self.server.calls[key] == 1:
            return 504, b"", {}
        if key == "moved":
            return 307, b"", {"Location": self.server.url + "/elsewhere"}
        result = {"taskId": task["taskId"], "resultCode": "Succeeded", "resultString": key}
        answer = {"invocationSchemaVersion": "1.0", "invocationId": event["invocationId"], "results": [result]}
        return 200, json.dumps(answer).encode(), {}


@pytest.fixture
def emulator():
    emulator = Emulator()
    yield emulator
    emulator.shutdown()
    emulator.server_close()


def on_emulator(folder, emulator, **more):
    return server_with(folder, {"name": "local", "kind": "rie", "url": emulator.url, "functions": ["*"]} | more)


def test_each_answer_of_the_emulator_ends_its_task_as_lambdas_would(emulator, tmp_path):
    server = on_emulator(tmp_path / "server", emulator)
    try:
        job, rows = started(server, arn("any:PROD"), ["fine", "raises", "slow", "exits", "expires", "moved", "more"])
        server.wait(job)
        report = harness.by_key(harness.audit(server, job, rows, invoked=emulator.calls))
    finally:
        ending(server)
    error = "Lambda returned function error: "
    raised = lambda key: error + json.dumps({"errorMessage": "no " + key, "errorType": "ValueError"})
    wanted = {
        "fine": ("200", "", "fine"),
        "more": ("200", "", "more"),
        "raises": ("200", "PermanentFailure", raised("raises")),
        "slow": ("200", "PermanentFailure", error + '{"errorMessage":"Task timed out after 3.00 seconds"}'),
        "exits": ("200", "PermanentFailure", raised("exits")),
        "expires": ("200", "", "expires"),
        "moved": ("307", "UnknownError", "HTTP status 307 without a message"),
    }
    assert {key: (row.http_status, row.error_code, row.message) for key, row in report.items()} == wanted
    assert emulator.calls == collections.Counter(wanted.keys()) + collections.Counter(["expires"])
    assert not emulator.strays, "no other path, no redirect followed, nothing signed"
    assert not emulator.refused.is_set(), "by default one call at a time"


def test_an_emulator_that_is_busy_throttles_and_costs_no_task(emulator, tmp_path):
    emulator.wait_for_a_refusal = True
    server = on_emulator(tmp_path / "server", emulator, concurrency_max=4)
    try:
        job, rows = started(server, "any", [f"key-{row}" for row in range(12)])
        server.wait(job)
        report = harness.audit(server, job, rows, invoked=emulator.calls)
    finally:
        ending(server)
    assert emulator.refused.is_set()
    assert {row.status for row in report} == {"succeeded"}


def test_two_functions_of_one_emulator_take_turns(emulator, tmp_path):
    server = on_emulator(tmp_path / "server", emulator)
    try:
        bucket = server.bucket("jobs")
        rows = [(bucket, f"key-{row}") for row in range(40)]
        etag = server.put_manifest(bucket, rows)
        jobs = [server.create_job(bucket, name, etag, prefix=name) for name in ("one", "two")]
        for job in jobs:
            server.wait(job)
            harness.audit(server, job, rows)
    finally:
        ending(server)
    assert set(emulator.calls.values()) == {2} and not emulator.refused.is_set()
