"""After a cancel is answered nothing of the job starts any more, wherever its calls wait (rule L-10): in the function host
behind others' calls, or for room at an endpoint with functions."""

import concurrent.futures
import http.server
import json
import threading

import pytest

import harness
from harness import ACCOUNT

HELD = """
    import os, time
    log = os.open(os.environ["STARTED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def handler(event, context):
        key = event["tasks"][0]["s3Key"] if "tasks" in event else "direct"
        os.write(log, (key + "\\n").encode())
        while not os.path.exists(os.environ["GO"]):
            time.sleep(0.01)
        if "tasks" in event:
            return {"invocationSchemaVersion": "1.0", "invocationId": event["invocationId"], "results": [
                {"taskId": event["tasks"][0]["taskId"], "resultCode": "Succeeded", "resultString": ""}]}
"""


@pytest.fixture
def serve(tmp_path):
    """Starts a server with these settings; debug lines tell which calls the engine has sent on their way."""
    servers = []

    def start(settings):
        variables = harness.UNCONFINED | {"LONGSHORE_LOG": "info,longshore_jobs=debug"}
        server = harness.Server(tmp_path / "server", extra_environment=variables)
        server.data_dir.mkdir(parents=True, mode=0o700)
        (server.data_dir / "longshore.toml").write_text(settings)
        servers.append(server.start())
        return server

    yield start
    for server in servers:
        server.stop()
        assert "panicked at" not in server.said()


def started(server, function, keys):
    bucket = "b-" + function.rsplit(":", 1)[-1]
    server.bucket(bucket)
    return server.create_job(bucket, function, server.put_manifest(bucket, [(bucket, key) for key in keys]), report=False)


def sent(server, job):
    """How many calls of a job are on their way, or were."""
    return sum("task started" in line and job in line for line in server.said().splitlines())


def cancel(server, job):
    answer = server.control.update_job_status(AccountId=ACCOUNT, JobId=job, RequestedJobStatus="Cancelled")
    assert answer["Status"] in ("Cancelling", "Cancelled")


@pytest.mark.parametrize("direct", [1, 2])
def test_calls_that_wait_in_the_host_behind_others_are_called_off(serve, tmp_path, direct):
    # With an endpoint the engine's calls are not held to the number of environments, so they wait in the host.
    server = serve("""
        [functions]
        environments_max = 2
        [[function_endpoint]]
        name = "elsewhere"
        kind = "rie"
        url = "http://127.0.0.1:1"
        functions = ["elsewhere"]
    """)
    log, go = tmp_path / "started", tmp_path / "go"
    log.touch()
    function = server.deploy("held", HELD, environment={"STARTED": str(log), "GO": str(go)})
    keys = [f"key-{n}" for n in range(12)]

    def begun():
        return log.read_text().split()

    with concurrent.futures.ThreadPoolExecutor() as pool:
        try:
            calls = [pool.submit(server.functions.invoke, FunctionName="held") for _ in range(direct)]
            harness.wait_for("the direct calls", lambda: begun().count("direct") == direct)
            job = started(server, function, keys)
            in_flight = 2 - direct
            harness.wait_for("calls that wait", lambda: sent(server, job) >= 2 and len(begun()) == 2)
            cancel(server, job)
            before = begun()
            if not in_flight:
                # Both environments are still busy: what waited for them is not waited for.
                server.wait(job, "Cancelled")
        finally:
            go.touch()
        assert all(call.result()["StatusCode"] == 200 for call in calls)
    described = server.wait(job, "Cancelled")
    # The environments serve whatever waits, and this comes after all that waited before it.
    server.functions.invoke(FunctionName="held")
    assert begun() == before + ["direct"]
    assert described["ProgressSummary"]["NumberOfTasksSucceeded"] == in_flight


class Emulator(http.server.ThreadingHTTPServer):
    """As AWS's runtime interface emulator: one function, whatever it is called. It answers once it may."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), EmulatorHandler)
        self.keys, self.go = [], threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()


class EmulatorHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        task = event["tasks"][0]
        self.server.keys.append(task["s3Key"])
        self.server.go.wait(60)
        body = json.dumps({"invocationSchemaVersion": "1.0", "invocationId": event["invocationId"], "results": [
            {"taskId": task["taskId"], "resultCode": "Succeeded", "resultString": ""}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_calls_that_wait_for_room_at_an_endpoint_are_called_off(serve):
    emulator = Emulator()
    server = serve(f"""
        [[function_endpoint]]
        name = "emulator"
        kind = "rie"
        url = "http://127.0.0.1:{emulator.server_port}"
        functions = ["first", "second"]
    """)
    try:
        first = started(server, "first", ["a", "b"])
        harness.wait_for("a call under way", lambda: emulator.keys == ["a"])
        second = started(server, "second", [f"key-{n}" for n in range(8)])
        harness.wait_for("a call that waits", lambda: sent(server, second) >= 1)
        cancel(server, second)
        server.wait(second, "Cancelled")
        emulator.go.set()
        assert server.wait(first)["Status"] == "Complete"
        assert emulator.keys == ["a", "b"]
    finally:
        emulator.go.set()
        emulator.shutdown()
        emulator.server_close()
