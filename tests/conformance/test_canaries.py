"""Random strings in every place that holds a secret, and a tour: none of them is seen where it has no business to be.

Promise S5. The log is as verbose as it goes. Looked through at the end: the log, all answers, the metrics, reports, events, the command
lines and environments of processes, what the commands print, and the files of the data directory.
"""

import json
import os
import pathlib
import secrets
import shutil
import stat
import subprocess

import botocore.auth
import botocore.exceptions
import pytest

import harness
import test_events
from harness import REGION, send, signed

HANDLER = """
    def handler(event, context):
        task = event["tasks"][0]
        if task["s3Key"].startswith("raises"):
            raise ValueError("no luck with " + task["s3Key"])
        import os
        return {"invocationSchemaVersion": "1.0", "invocationId": event["invocationId"], "results": [
            {"taskId": task["taskId"], "resultCode": "Succeeded", "resultString": str(len(os.environ["OWN"]))}]}
"""


def canary(length=40):
    return "C4N" + secrets.token_hex(length // 2)


class Tour:
    """Two servers, of which one is the other's store and has functions for it, and what was seen of the first."""

    def __init__(self, folder):
        self.folder, self.canaries, self.seen = folder, {}, {}
        self.other = harness.Server(folder / "other").start()
        self.hook = test_events.Receiver(secret=self.plant("webhook secret"), answer=lambda event, times: 500 if times == 1 else 200)
        (folder / "hook.secret").write_text(self.canaries["webhook secret"] + "\n")
        data_dir = folder / "main" / "data"
        data_dir.mkdir(parents=True, mode=0o700)
        # A second endpoint that nobody answers for, so that there are errors about it.
        dead = harness.free_port()
        store = {"access_key_id_variable": "STORE_ID", "secret_access_key_variable": "STORE_SECRET"}
        gone = {"access_key_id_variable": "GONE_ID", "secret_access_key_variable": "GONE_SECRET", "session_token_variable": "GONE_TOKEN"}
        tables = [
            ("endpoint", {"name": "store", "url": f"http://{self.other.address}", "buckets": ["theirs-*"]} | store),
            ("endpoint", {"name": "gone", "url": f"http://127.0.0.1:{dead}", "buckets": ["gone-*"]} | gone),
            ("function_endpoint", {"name": "lambda", "url": f"http://{self.other.address}", "functions": ["theirs*"]} | store),
            ("events", {"name": "hook", "kind": "webhook", "url": f"http://127.0.0.1:{self.hook.port}/", "secret_file": str(folder / "hook.secret")}),
            ("events", {"name": "file", "kind": "file", "path": "events.jsonl"}),
        ]
        (data_dir / "longshore.toml").write_text("".join(
            f"[[{table}]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items()) for table, values in tables))
        self.canaries["store secret"] = self.other.exports["AWS_SECRET_ACCESS_KEY"]
        self.server = harness.Server(folder / "main", {
            "STORE_ID": self.other.exports["AWS_ACCESS_KEY_ID"], "STORE_SECRET": self.canaries["store secret"],
            "GONE_ID": "AKIAGONEGONEGONEGONE", "GONE_SECRET": self.plant("gone secret"), "GONE_TOKEN": self.plant("gone token"),
            "LONGSHORE_LOG": "trace", "LONGSHORE_METRICS_LISTEN": "127.0.0.1:0",
            # The only secret of the server's own environment that is none of its settings.
            "SOMEBODY_ELSES_SECRET": self.plant("environment of the server"),
        })

    def plant(self, where):
        self.canaries[where] = canary()
        return self.canaries[where]

    def see(self, where, what):
        self.seen[where] = self.seen.get(where, b"") + (what if isinstance(what, bytes) else str(what).encode())

    def watch(self, client):
        """Keeps every answer that this client gets."""
        def seen(http_response, model, **_):
            # The bodies of objects and of functions' answers are whoever's they are; they are read as a stream. A configuration, and a
            # link to code, are for whoever may ask for them.
            apart = model.has_streaming_output or model.name in ("CreateFunction", "GetFunction", "GetFunctionConfiguration")
            self.see("answers", repr(http_response.headers) + ("" if apart else http_response.text))

        client.meta.events.register("after-call.*", seen)
        return client

    def walk(self):
        server = self.server.start()
        self.canaries["root secret"] = server.exports["AWS_SECRET_ACCESS_KEY"]
        s3, functions, control = map(self.watch, (server.s3, server.functions, server.control))
        self.other.s3.create_bucket(Bucket="theirs-1")
        self.other.deploy("theirs", HANDLER, environment={"OWN": "1"})
        s3.create_bucket(Bucket="ours")
        for bucket in ("ours", "theirs-1"):
            for key in ("a", "b", "raises"):
                s3.put_object(Bucket=bucket, Key=key, Body=self.canaries.setdefault("object", canary()))
        with pytest.raises(botocore.exceptions.ClientError):
            s3.get_object(Bucket="gone-1", Key="k")
        arn = server.deploy("own", HANDLER, environment={"OWN": self.plant("environment of a function")})
        functions.invoke(FunctionName="own", Payload=json.dumps({
            "invocationId": "x", "tasks": [{"s3Key": self.plant("payload of an invocation"), "taskId": "1"}]}))
        functions.invoke(FunctionName="own", InvocationType="Event", Payload=json.dumps({"tasks": [], "of": self.plant("payload of an event")}))
        jobs = []
        for bucket, function in (("ours", arn), ("theirs-1", arn.replace(":own", ":theirs")), ("ours", arn.replace(":own", ":nobody"))):
            etag = server.put_manifest(bucket, [(bucket, key) for key in ("a", "b", "raises")])
            jobs.append((bucket, server.create_job(bucket, function, etag)))
        etag = server.put_manifest("ours", [("gone-1", "k")])
        jobs.append(("ours", server.create_job("ours", arn, etag)))
        for bucket, job in jobs:
            harness.wait_for("its end", lambda: server.describe(job)["Status"] in ("Complete", "Failed"))
            self.see("answers", server.describe(job))
            for entry in s3.list_objects_v2(Bucket=bucket, Prefix="reports").get("Contents", []):
                self.see("reports", s3.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read())
            for command in ("describe", "failures"):
                self.see("commands", server.longshore("job", command, job, check=False).stdout)
        assert self.seen["reports"].count(b"succeeded") >= 4, self.seen["reports"]
        harness.wait_for("the webhook", lambda: len(self.hook.requests) > 8)
        self.see("events", repr(self.hook.requests))
        self.refused(server)
        self.see("answers", s3.generate_presigned_url("get_object", {"Bucket": "ours", "Key": "a"}).split("Signature=")[0])
        metrics = json.loads((server.data_dir / "server.json").read_text())["metrics_listen"]
        status, _, text = send(harness_at(metrics), "GET", "/metrics")
        assert status == 200
        self.see("metrics", text)
        status, _, text = send(server, "GET", "/_longshore/v1/metrics", signed(server, "GET", "s3", "/_longshore/v1/metrics"))
        assert status == 200
        self.see("metrics", text)
        for arguments in (("job", "list"), ("function", "list"), ("function", "describe", "nobody"), ("doctor",), ("logs", "own")):
            done = server.longshore(*arguments, check=False)
            self.see("commands", done.stdout + done.stderr)
        self.processes()
        server.stop()
        self.other.stop()
        self.see("log", server.output.read_bytes())

    def refused(self, server):
        """Requests that go wrong, with secrets in them."""
        self.plant("session token")
        token = {"X-Amz-Security-Token": self.canaries["session token"]}
        for headers in (
            signed(server, "GET", "s3", "/ours", headers=token),
            signed(server, "GET", "s3", "/ours", headers=token, signer=botocore.auth.S3SigV4Auth(
                harness.credentials(server, secret=self.plant("wrong secret")), "s3", REGION)),
        ):
            status, _, _ = send(server, "GET", "/ours", headers)
            assert status in (400, 403)
        # The caller's own words may come back to the caller, as at AWS; in the log they are not.
        body = json.dumps({"Environment": {"Variables": {"A": self.plant("variable of a bad request")}}, "Timeout": self.plant("bad value")}).encode()
        for cut in (body, body[:-20]):
            status, _, _ = send(server, "PUT", "/2015-03-31/functions/own/configuration",
                                signed(server, "PUT", "lambda", "/2015-03-31/functions/own/configuration", cut), cut)
            assert status == 400
        query = f"/ours/a?X-Amz-Signature={self.plant('query signature')}&X-Amz-Security-Token={self.plant('query token')}"
        assert send(server, "GET", query)[0] in (400, 403)
        location = server.functions.get_function(FunctionName="own")["Code"]["Location"]
        self.canaries["link to code"] = location.rpartition("token=")[2]
        assert send(server, "GET", location.split(server.address)[1])[0] == 200

    def processes(self):
        """Command lines of all processes, and environments of all but the server and what started it."""
        for process in pathlib.Path("/proc").iterdir():
            if process.name.isdigit():
                self.see("command lines", harness.content_of(process / "cmdline"))
        for pid in below(self.server.process.pid):
            environment = harness.content_of(pathlib.Path(f"/proc/{pid}/environ"))
            # Its own is its own.
            self.see("environments of processes", environment.replace(self.canaries["environment of a function"], ""))


def below(pid):
    """All descendants of a process."""
    children = {}
    for process in pathlib.Path("/proc").iterdir():
        stat_ = harness.content_of(process / "stat") if process.name.isdigit() else ""
        if stat_:
            children.setdefault(int(stat_.rpartition(")")[2].split()[1]), []).append(int(process.name))
    found, wanted = [], [pid]
    while wanted:
        next_ = children.get(wanted.pop(), [])
        found += next_
        wanted += next_
    return found


def harness_at(address):
    class At:
        pass
    At.address = address
    return At


@pytest.fixture(scope="module")
def tour(tmp_path_factory):
    tour = Tour(tmp_path_factory.mktemp("tour"))
    try:
        tour.walk()
        yield tour
    finally:
        tour.server.stop()
        tour.other.stop()
    tour.hook.close()


def test_no_secret_is_seen_in_logs_answers_reports_events_metrics_or_processes(tour):
    assert {"answers", "reports", "events", "metrics", "commands", "command lines", "environments of processes", "log"} == set(tour.seen)
    assert len(tour.canaries) >= 15 and all(tour.seen.values())
    assert b"DEBUG" in tour.seen["log"] and b"request answered" in tour.seen["log"], "the log is verbose"
    found = []
    for where, text in tour.seen.items():
        for name, secret in tour.canaries.items():
            if secret.encode() in text:
                at = text.index(secret.encode())
                found.append((name, where, text[max(0, at - 300):at + 60]))
    assert not found, found[:5]


def test_secrets_lie_in_files_of_their_owner_and_sealed_where_they_can_be(tour):
    """The root secret has its file; what others gave into our keeping is sealed, or is nowhere."""
    allowed = {"root secret": {"credentials.json"}}
    for path in tour.server.data_dir.rglob("*"):
        if not path.is_file() or path.is_symlink():
            continue
        assert stat.S_IMODE(path.stat().st_mode) & 0o022 == 0, f"others could change {path}"
        content = path.read_bytes()
        for name in ("root secret", "store secret", "gone secret", "gone token", "webhook secret", "environment of a function",
                     "environment of the server", "session token", "link to code"):
            if tour.canaries[name].encode() in content:
                assert path.name in allowed.get(name, ()), f"the {name} lies in {path}"
                assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def as_somebody(command, **options):
    """A process of a user who is not root: whoever runs these tests, or nobody."""
    other = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []
    return subprocess.Popen([*other, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


def read_by_its_own_user(process):
    """Whether another process of the same user may read the environment of one, which lies in its memory; who owns what is told of it."""
    reader = as_somebody(["cat", f"/proc/{process.pid}/environ"])
    said, _ = reader.communicate(timeout=10)
    assert reader.returncode == 0 or "Permission denied" in said, said
    return reader.returncode == 0, os.stat(f"/proc/{process.pid}/environ").st_uid


def test_the_server_dumps_no_core_and_shows_its_memory_to_nobody(tmp_path, request):
    """`RLIMIT_CORE` is 0; what only a dumpable process shows to others of its user belongs to root, and they cannot read it."""
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("somebody else is needed")
    binary, data_dir = tmp_path / "longshore", tmp_path / "data"
    shutil.copy(harness.LONGSHORE, binary)
    # pytest keeps its folders for a while, and this is the largest file in them.
    request.addfinalizer(lambda: binary.unlink(missing_ok=True))
    binary.chmod(0o755)
    data_dir.mkdir(mode=0o700)
    user = os.geteuid() or 65534
    os.chown(data_dir, user, -1)
    for folder in [tmp_path, *tmp_path.parents]:
        if folder.stat().st_mode & 0o005 == 0 and folder.stat().st_uid == os.geteuid():
            folder.chmod(folder.stat().st_mode | 0o055)
    environment = harness.plain_environment(tmp_path)
    server = as_somebody([binary, "serve", "--data-dir", data_dir, "--listen", "127.0.0.1:0", "--sandbox=off"], env=environment, cwd="/")
    ordinary = as_somebody(["sh", "-c", "echo listening on http://; read line"], env=environment, cwd="/")
    try:
        for process in (server, ordinary):
            said = []
            for line in process.stdout:
                said.append(line)
                if "listening on http://" in line:
                    break
            else:
                pytest.fail("".join(said))
        assert f"Uid:\t{user}" in pathlib.Path(f"/proc/{server.pid}/status").read_text()
        limits = pathlib.Path(f"/proc/{server.pid}/limits").read_text()
        assert [line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core file size")] == [["0", "0"]]
        # What any other process of this user shows, the server does not.
        assert read_by_its_own_user(ordinary) == (True, user)
        assert read_by_its_own_user(server) == (False, 0)
    finally:
        for process in (server, ordinary):
            process.terminate()
            process.communicate(timeout=30)
