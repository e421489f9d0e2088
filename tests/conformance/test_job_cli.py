"""`longshore job`: the command line for people, against a real server and against servers that are none of ours."""

import contextlib
import csv
import hashlib
import http.server
import json
import os
import pty
import re
import signal
import ssl
import subprocess
import threading
import urllib.parse
import uuid

import pytest

import harness
from harness import ACCOUNT, LONGSHORE, REGION, ROLE

# Fails for keys with "fail" in them, and says something that would steer a terminal.
ANSWER = """
    import urllib.parse
    def handler(event, context):
        task = event["tasks"][0]
        key = urllib.parse.unquote_plus(task["s3Key"])
        code = "PermanentFailure" if "fail" in key else "Succeeded"
        said = str(event["job"].get("userArguments", "")) if code == "Succeeded" else "broken\\x1b[2J"
        return {"invocationSchemaVersion": event["invocationSchemaVersion"], "invocationId": event["invocationId"],
                "results": [{"taskId": task["taskId"], "resultCode": code, "resultString": said}]}
"""
KEYS = ["a%20b.txt", "fail-1.txt", "fail-2.txt", "z/c.txt"]


class Place:
    """A bucket with a manifest, a function, and `longshore job` on its server."""

    def __init__(self, server, name):
        self.server, self.name = server, name
        server.bucket(name)
        for key in KEYS:
            server.s3.put_object(Bucket=name, Key=urllib.parse.unquote(key), Body=b"x")
        self.etag = server.put_manifest(name, [(name, key) for key in KEYS])
        server.deploy(name, ANSWER)

    def job(self, *arguments, status=0, **options):
        """Runs `longshore job ...` and returns the process."""
        return job(harness.plain_environment(self.server.home) | {"LONGSHORE_DATA_DIR": str(self.server.data_dir)},
                   *arguments, status=status, **options)

    def json(self, *arguments, **options):
        return json.loads(self.job(*arguments, "--json", **options).stdout)

    def create(self, *arguments, report=True, **options):
        report = ["--report", f"s3://{self.name}/reports"] if report else []
        done = self.job("create", "--function", self.name, "--manifest", f"s3://{self.name}/manifest.csv", *report,
                        *arguments, **options)
        assert re.fullmatch(r"[0-9a-f-]{36}\n", done.stdout), done.stdout
        return done.stdout.strip()


def job(environment, *arguments, status=0, **options):
    done = harness.run([LONGSHORE, "job", *arguments], environment, check=False, **options)
    assert done.returncode == status, f"status {done.returncode}, not {status}\n{done.stdout}\n{done.stderr}"
    assert "panicked" not in done.stderr
    return done


@pytest.fixture
def place(server, name):
    return Place(server, name)


@pytest.fixture(scope="module")
def ended(server):
    """A job that is over, with two tasks that failed."""
    place = Place(server, "job-cli-ended-" + uuid.uuid4().hex[:6])
    place.id = place.create("--description", "two of four\x7f", "--tag", "team=blue", "--watch", status=1)
    return place


# --- create, watch ---


def test_a_job_is_created_from_flags_and_watched_to_its_end(place):
    place.server.role("reader")
    done = place.job(
        "create", "--function", place.name, "--manifest", f"s3://{place.name}/manifest.csv",
        "--report", f"s3://{place.name}/reports/", "--arg", "colour=red", "--priority", "3", "--role", "reader",
        "--description", "from flags", "--tag", "team=blue", "--token", "token-1", "--watch", status=1,
    )
    id = done.stdout.strip()
    described = place.server.describe(id)
    assert described["Operation"] == {"LambdaInvoke": {
        "FunctionArn": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{place.name}",
        "InvocationSchemaVersion": "2.0", "UserArguments": {"colour": "red"},
    }}
    assert described["Manifest"]["Location"]["ETag"] == place.etag.strip('"')
    assert described["Manifest"]["Spec"]["Fields"] == ["Bucket", "Key"]
    assert (described["Priority"], described["Description"]) == (3, "from flags")
    assert described["RoleArn"] == f"arn:aws:iam::{ACCOUNT}:role/reader"
    assert described["Report"]["Prefix"] == "reports"
    assert described["ConfirmationRequired"] is False
    tags = place.server.control.get_job_tagging(AccountId=ACCOUNT, JobId=id)["Tags"]
    assert tags == [{"Key": "team", "Value": "blue"}]
    rows = harness.audit(place.server, id, [(place.name, key) for key in KEYS])
    assert "{'colour': 'red'}" in {row.message for row in rows}
    # What was watched: no escape sequences off a terminal, the counts, the groups, where the report is.
    assert "\x1b" not in done.stderr
    assert "4 of 4: 2 succeeded, 2 failed" in done.stderr
    assert "2 × PermanentFailure: broken\ufffd[2J  (for example fail-" in done.stderr
    assert f"report: s3://{place.name}/reports/job-{id}" in done.stderr


def test_a_token_makes_a_repetition_the_same_job(place):
    assert place.create("--token", "t-1") == place.create("--token", "t-1")
    assert place.create() != place.create()


def test_a_watched_job_that_succeeds_or_fails_says_so_by_the_exit_status(place):
    place.server.put_manifest(place.name, [(place.name, "z/c.txt")], key="one.csv")
    create = ["create", "--function", place.name, "--watch"]
    done = place.job(*create, "--manifest", f"s3://{place.name}/one.csv", status=0)
    assert "the job writes no report" in done.stderr
    place.server.put_manifest(place.name, "no manifest at all\n", key="bad.csv")
    done = place.job(*create, "--manifest", f"s3://{place.name}/bad.csv", status=2)
    assert "Failed: 0 of" in done.stderr
    done = place.job(*create, "--manifest", f"s3://{place.name}/bad.csv", "--report", f"s3://{place.name}/r", status=2)
    assert "report:" not in done.stderr, "a job that came to no task leaves none"


def test_a_request_in_the_aws_clis_json_is_taken_and_flags_go_over_it(place, tmp_path):
    # `aws s3control create-job --cli-input-json` takes the same file.
    request = {
        "AccountId": ACCOUNT, "ConfirmationRequired": False, "Priority": 1, "RoleArn": ROLE, "Description": "from JSON",
        "Operation": {"LambdaInvoke": {"FunctionArn": place.name}}, "Report": {"Enabled": False},
        "Manifest": {"Spec": {"Format": "S3BatchOperations_CSV_20180820", "Fields": ["Bucket", "Key"]},
                     "Location": {"ObjectArn": f"arn:aws:s3:::{place.name}/manifest.csv", "ETag": place.etag}},
        "Tags": [{"Key": "a", "Value": "b=c"}],
    }
    file = tmp_path / "job.json"
    file.write_text(json.dumps(request))
    ours = place.job("create", "--cli-input-json", file, "--priority", "7").stdout.strip()
    theirs = place.server.aws_json("s3control", "create-job", "--cli-input-json", f"file://{file}", "--priority", "7")
    ours, theirs = (place.server.describe(id) for id in (ours, theirs["JobId"]))
    for member in ("Operation", "Report", "Manifest", "RoleArn", "Description", "Priority", "ConfirmationRequired"):
        assert ours[member] == theirs[member], member
    assert ours["Priority"] == 7
    piped = place.job("create", "--cli-input-json", "-", stdin=json.dumps(request | {"Description": "x"}))
    assert place.server.describe(piped.stdout.strip())["Description"] == "x"
    file.write_text(json.dumps(request | {"Descripton": "misspelt"}))
    assert "Descripton is no member" in place.job("create", "--cli-input-json", file, status=64).stderr


def test_what_cannot_be_created_is_refused_in_words(place):
    base = ["create", "--function", place.name]
    said = place.job(*base, status=64).stderr
    assert "error: the job has no objects to work on" in said and "hint: " in said
    said = place.job(*base, "--manifest", f"s3://{place.name}/nothing.csv", status=1).stderr
    assert f"There is no object s3://{place.name}/nothing.csv" in said
    assert "not of the form s3://" in place.job(*base, "--manifest", "manifest.csv", status=64).stderr
    assert place.job("create", "--manifest", "s3://b/k", status=64).stdout == ""


def test_a_watch_outlives_a_restart_of_the_server(tmp_path):
    server = harness.Server(tmp_path).start()
    port = server.address.rsplit(":")[-1]
    try:
        place = Place(server, "restart")
        id = place.create("--confirm")
        server.wait(id, until="Suspended")
        keys = {name: server.exports[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
        watch = subprocess.Popen(
            [LONGSHORE, "job", "watch", id, "--endpoint-url", f"http://127.0.0.1:{port}", "--account-id", ACCOUNT],
            env=harness.plain_environment(tmp_path) | keys, text=True, stderr=subprocess.PIPE,
        )
        read_until(watch, "the job waits to be confirmed")
        server.kill()
        read_until(watch, "asking again")
        server.start(listen=f"127.0.0.1:{port}")
        place.job("confirm", id)
        _, said = watch.communicate(timeout=60)
        assert watch.returncode == 1 and "Complete: 2 of 4 succeeded, 2 failed" in said
    finally:
        server.stop()


def read_until(process, wanted):
    """Reads what a process says until it has said that."""
    said = ""
    while wanted not in said:
        line = process.stderr.readline()
        assert line, f"it ended before it said {wanted!r}:\n{said}"
        said += line


def test_ctrl_c_leaves_the_job_running_and_says_so(place):
    id = place.create("--confirm")
    place.server.wait(id, until="Suspended")
    environment = harness.plain_environment(place.server.home)
    watch = subprocess.Popen(
        [LONGSHORE, "job", "watch", id, "--data-dir", place.server.data_dir], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )
    read_until(watch, f"the job waits to be confirmed: longshore job confirm {id} --data-dir")
    watch.send_signal(signal.SIGINT)
    out, said = watch.communicate(timeout=30)
    assert watch.returncode == 130 and out == ""
    assert f'the job goes on; "longshore job watch {id} --data-dir' in said
    assert place.server.describe(id)["Status"] == "Suspended"


def test_on_a_terminal_there_is_a_bar_and_colours_and_nothing_from_outside_steers_it(ended):
    said = on_a_terminal(ended, "list", "--limit", "1000")
    line = next(line for line in said.splitlines() if line.startswith(ended.id))
    assert "\x1b[32mComplete\x1b[0m" in line and "two of four\ufffd" in line
    watched = on_a_terminal(ended, "watch", ended.id)
    assert "[====================] 4/4" in watched
    assert "broken\ufffd[2J" in watched and "\x1b[2J" not in watched


def on_a_terminal(place, *arguments):
    controller, terminal = pty.openpty()
    environment = harness.plain_environment(place.server.home) | {"TERM": "xterm", "COLUMNS": "200", "LINES": "50"}
    process = subprocess.Popen(
        [LONGSHORE, "job", *arguments, "--data-dir", place.server.data_dir],
        env=environment, stdin=terminal, stdout=terminal, stderr=terminal,
    )
    os.close(terminal)
    said = b""
    with contextlib.suppress(OSError):  # what reading a terminal ends with
        while piece := os.read(controller, 65536):
            said += piece
    os.close(controller)
    process.wait(30)
    return said.decode("utf-8", "replace")


# --- list, describe ---


def test_json_is_what_the_aws_cli_prints(ended):
    for ours, theirs in [
        (["describe", ended.id], ["describe-job", "--job-id", ended.id]),
        (["list", "--status", "Complete"], ["list-jobs", "--job-statuses", "Complete"]),
        (["tag", "list", ended.id], ["get-job-tagging", "--job-id", ended.id]),
    ]:
        printed = ended.server.aws_json("s3control", *theirs, "--account-id", ACCOUNT)
        said = ended.json(*ours)
        if ours[0] == "describe":
            # Beside the API's own shape, not in it.
            assert said.pop("Figures")["taskDuration"]["count"] == 4
        assert said == printed, theirs


def test_jobs_are_listed_newest_first_by_status_and_number(place):
    first, second = place.create(), place.create("--confirm", "--description", "the second")
    place.server.wait(first)
    place.server.wait(second, until="Suspended")
    listed = [job["JobId"] for job in place.json("list")["Jobs"]]
    assert listed.index(second) < listed.index(first)
    limited = place.json("list", "--limit", "1")
    assert len(limited["Jobs"]) == 1 and limited["NextToken"]
    suspended = [job["JobId"] for job in place.json("list", "--status", "suspended,paused")["Jobs"]]
    assert second in suspended and first not in suspended
    table = place.job("list").stdout.splitlines()
    assert table[0].split() == ["JOB", "ID", "STATUS", "OPERATION", "PROGRESS", "CREATED", "DESCRIPTION"]
    line = next(line for line in table if line.startswith(first))
    assert re.search(r"Complete +LambdaInvoke +100 % of 4, 2 failed +\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ$", line), line
    assert next(line for line in table if line.startswith(second)).endswith("the second")


def test_a_description_is_for_people_and_the_beginning_of_an_id_is_enough(ended):
    said = ended.job("describe", ended.id[:20]).stdout
    lines = dict(re.split(r"\s{2,}|(?<=Description)\s", line, maxsplit=1) for line in said.splitlines())
    assert lines["Job ID"] == ended.id
    assert (lines["Status"], lines["Operation"]) == ("Complete", "LambdaInvoke")
    assert lines["Description"] == "two of four\ufffd"
    assert lines["Progress"] == "2 of 4 succeeded, 2 failed"
    assert lines["Report"] == f"s3://{ended.name}/reports/job-{ended.id} (AllTasks)"
    missing = ended.job("describe", "zzzz", status=1)
    assert missing.stderr.splitlines()[0] == "error: there is no job whose ID begins with zzzz"
    unknown = ended.job("describe", str(uuid.uuid4()), status=1)
    assert "NoSuchJob" in unknown.stderr and "longshore job list" in unknown.stderr
    assert ended.job("describe", "../x", status=64).stdout == ""


# --- confirm, cancel, priority, tag ---


def test_a_job_is_confirmed_with_a_reason_and_cancelled_with_another(place):
    id = place.create("--confirm")
    place.server.wait(id, until="Suspended")
    assert place.job("priority", id, "77").stdout == "77\n"
    assert place.server.describe(id)["Priority"] == 77
    assert place.json("confirm", id, "--reason", "a & b")["Status"] == "Ready"
    described = place.server.wait(id)
    assert described["StatusUpdateReason"] == "a & b"
    other = place.create("--confirm")
    place.server.wait(other, until="Suspended")
    assert place.job("cancel", other, "--reason", "no need").stdout == "Cancelled\n"
    assert place.server.describe(other)["StatusUpdateReason"] == "no need"


def test_a_change_that_comes_too_late_names_the_status(ended):
    for arguments, wanted in [
        (["cancel", ended.id], "is Complete and cannot be cancelled"),
        (["confirm", ended.id], "is Complete and cannot be confirmed"),
        (["priority", ended.id, "3"], "is Complete and its priority cannot be changed"),
    ]:
        done = ended.job(*arguments, status=1)
        assert f"error: job {ended.id} {wanted}" in done.stderr and done.stdout == ""


def test_tags_are_set_and_removed_one_by_one(place):
    id = place.create("--confirm", "--tag", "a=1", "--tag", "b=2")
    tags = lambda: {tag["Key"]: tag["Value"] for tag in place.server.control.get_job_tagging(
        AccountId=ACCOUNT, JobId=id)["Tags"]}
    assert place.job("tag", "list", id).stdout == "a=1\nb=2\n"
    place.job("tag", "set", id, "b=x=y", "c=")
    assert tags() == {"a": "1", "b": "x=y", "c": ""}
    assert place.json("tag", "remove", id, "a")["Tags"] == [{"Key": "b", "Value": "x=y"}, {"Key": "c", "Value": ""}]
    assert "has no tag q" in place.job("tag", "remove", id, "b", "q", status=1).stderr
    assert tags() == {"b": "x=y", "c": ""}, "nothing was changed"
    place.job("tag", "remove", id, "--all")
    assert tags() == {}


# --- report, failures, retry ---


def test_a_report_is_downloaded_checked_and_summed_up(ended, tmp_path):
    done = ended.job("report", ended.id, cwd=tmp_path)
    assert done.stdout == f"report-{ended.id}\n"
    folder = tmp_path / f"report-{ended.id}"
    manifest = json.loads((folder / "manifest.json").read_text())
    rows = []
    for result in manifest["Results"]:
        content = (folder / "results" / result["Key"].rsplit("/")[-1]).read_bytes()
        assert hashlib.md5(content).hexdigest() == result["MD5Checksum"]
        rows += csv.reader(content.decode().splitlines())
    assert sorted(row[1] for row in rows) == sorted(KEYS)
    assert "2 succeeded, 2 failed; 2 files, their MD5s are right" in done.stderr
    assert "2 × PermanentFailure: broken\ufffd[2J" in done.stderr
    again = ended.job("report", ended.id, cwd=tmp_path, status=64)
    assert f"report-{ended.id} is not empty" in again.stderr
    summary = ended.json("report", ended.id, "--output", tmp_path / "other")
    assert (summary["Succeeded"], summary["Failed"], summary["Files"]) == (2, 2, 2)


def test_a_report_that_was_changed_is_refused(place, tmp_path):
    id = place.create("--watch", status=1)
    key = json.loads(place.server.s3.get_object(
        Bucket=place.name, Key=f"reports/job-{id}/manifest.json")["Body"].read())["Results"][0]["Key"]
    place.server.s3.put_object(Bucket=place.name, Key=key, Body=b"b,k,,succeeded,200,,\r\n")
    done = place.job("report", id, "--output", tmp_path / "r", status=1)
    assert "the report is damaged" in done.stderr and key in done.stderr
    assert list(tmp_path.iterdir()) == [], "what is damaged is not left there under the name of a report"
    base = f"reports/job-{id}/manifest.json"
    place.server.s3.put_object(Bucket=place.name, Key=base + ".md5", Body=b"0" * 32)
    assert "the report is damaged" in place.job("failures", id, status=1).stderr


def test_failures_are_grouped_and_their_keys_listed(ended, place):
    said = ended.job("failures", ended.id).stdout
    assert said.splitlines()[0] == "       2 × PermanentFailure: broken\ufffd[2J"
    assert {line.strip() for line in said.splitlines()[1:]} == {"fail-1.txt", "fail-2.txt"}
    assert sorted(ended.job("failures", ended.id, "--keys").stdout.split()) == ["fail-1.txt", "fail-2.txt"]
    groups = ended.json("failures", ended.id)
    assert (groups["Failed"], groups["Failures"][0]["ErrorCode"], groups["Failures"][0]["Count"]) == (
        2, "PermanentFailure", 2)
    listed = ended.json("failures", ended.id, "--keys")["Failed"]
    assert sorted(row["Key"] for row in listed) == ["fail-1.txt", "fail-2.txt"]
    assert {row["Bucket"] for row in listed} == {ended.name}
    # A job without a report, and one that is not over.
    bare, waiting = place.create("--watch", report=False, status=1), place.create("--confirm")
    assert "was created without a completion report" in place.job("failures", bare, status=1).stderr
    place.server.wait(waiting, until="Suspended")
    done = place.job("failures", waiting, "--keys", "--json", status=1)
    assert "is Suspended and has no report yet" in done.stderr and done.stdout == ""


def test_nothing_is_retried_where_nothing_failed(place):
    place.server.put_manifest(place.name, [(place.name, "z/c.txt")], key="one.csv")
    id = place.job("create", "--function", place.name, "--manifest", f"s3://{place.name}/one.csv", "--report",
                   f"s3://{place.name}/reports", "--watch").stdout.strip()
    assert "there is nothing to try again" in place.job("retry", id, status=1).stderr


# --- which endpoint ---


def test_without_a_server_the_way_to_one_is_told(tmp_path):
    done = job(harness.plain_environment(tmp_path), "list", "--data-dir", tmp_path / "none", status=1)
    assert "no server runs with the data directory" in done.stderr and "longshore serve" in done.stderr


def test_another_endpoint_takes_credentials_from_the_environment_or_a_profile(ended, tmp_path):
    home = harness.plain_environment(tmp_path)
    keys = {name: ended.server.exports[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    there = ["--endpoint-url", f"http://{ended.server.address}"]
    listed = job(home | keys | {"AWS_ACCOUNT_ID": ACCOUNT}, "list", "--json", *there)
    assert ended.id in listed.stdout
    assert ended.id in job(home | keys, "list", "--json", *there).stdout, "STS says whose jobs are meant"
    nobody = job(home | keys | {"AWS_SECRET_ACCESS_KEY": "x" * 40}, "list", *there, status=1).stderr
    assert "cannot find out whose jobs are meant (STS GetCallerIdentity)" in nobody and "--account-id" in nobody
    assert "there are no credentials" in job(home, "list", *there, status=64).stderr
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text(
        f"[here]\naws_access_key_id = {keys['AWS_ACCESS_KEY_ID']}\n"
        f"aws_secret_access_key = {keys['AWS_SECRET_ACCESS_KEY']}\n")
    (tmp_path / ".aws/config").write_text(
        f"[profile here]\nendpoint_url = http://{ended.server.address}\nregion = {REGION}\naws_account_id = {ACCOUNT}\n"
        "[profile sso]\nsso_session = s\n")
    wrong = {"AWS_ACCESS_KEY_ID": "AKIDOFSOMEBODYELSE00", "AWS_SECRET_ACCESS_KEY": "x" * 40}
    assert ended.id in job(home | wrong, "list", "--json", "--profile", "here").stdout
    assert "single sign-on" in job(home, "list", "--profile", "sso", status=64).stderr
    assert "there is no profile nobody" in job(home, "list", "--profile", "nobody", status=64).stderr
    nowhere = ["--endpoint-url", f"http://127.0.0.1:{harness.free_port()}", "--account-id", ACCOUNT]
    assert "cannot connect" in job(home | wrong, "list", *nowhere, status=1).stderr
    assert "cannot connect" in job(home | wrong, "watch", ended.id, *nowhere, status=2).stderr, "1 is for failed tasks"
    said = job(home | wrong, "list", *there, "--account-id", ACCOUNT, status=1).stderr
    assert "InvalidAccessKeyId" in said and "hint: the endpoint does not know these credentials" in said


class NotOurs(http.server.BaseHTTPRequestHandler):
    """The few requests that a server of somebody else has to answer: STS, S3 Control, S3 with paths."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "AmazonS3", ""

    def log_message(self, *arguments):
        pass

    def answer(self, body=b"", status=200, headers=()):
        body = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_any(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append((self.command, self.path, dict(self.headers), body))
        path = urllib.parse.urlsplit(self.path).path
        if self.command == "POST" and path == "/":
            service = re.search(r"Credential=[^/]+/\d+/[^/]+/(\w+)/", self.headers["Authorization"])[1]
            assert (service, body) == ("sts", b"Action=GetCallerIdentity&Version=2011-06-15")
            return self.answer("<GetCallerIdentityResponse><GetCallerIdentityResult><Account>123456789012</Account>"
                               "</GetCallerIdentityResult></GetCallerIdentityResponse>")
        if self.command == "POST" and path == "/v20180820/jobs":
            return self.answer("<CreateJobResult><JobId>made-1</JobId></CreateJobResult>")
        if self.command == "PUT":
            self.server.objects[path] = body
            return self.answer(headers=[("ETag", f'"{hashlib.md5(body).hexdigest()}"')])
        if path in self.server.answers:
            return self.answer(self.server.answers[path], headers=self.server.headers)
        if path in self.server.objects:
            return self.answer(self.server.objects[path])
        return self.answer("<Error><Code>NoSuchKey</Code><Message>none</Message></Error>", status=404)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any


@pytest.fixture
def elsewhere():
    """A server that is none of ours."""
    with serving() as server:
        yield server


@contextlib.contextmanager
def serving(tls=None):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), NotOurs)
    server.daemon_threads = True
    server.requests, server.objects, server.answers, server.headers = [], {}, {}, []
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    server.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


KEY = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "session"}
JOB = "f8fb9d89-a3aa-461d-bddc-ea6a1b131955"
DESCRIBED = f"""<DescribeJobResult xmlns="http://awss3control.amazonaws.com/doc/2018-08-20/"><Job><JobId>{JOB}</JobId>
  <Status>Complete</Status><Operation><LambdaInvoke><FunctionArn>arn:aws:lambda:us-west-2:123456789012:function:f</FunctionArn>
  </LambdaInvoke></Operation><Priority>42</Priority><RoleArn>arn:aws:iam::123456789012:role/r</RoleArn>
  <ProgressSummary><TotalNumberOfTasks>3</TotalNumberOfTasks><NumberOfTasksSucceeded>1</NumberOfTasksSucceeded>
  <NumberOfTasksFailed>2</NumberOfTasksFailed></ProgressSummary><FailureReasons/>
  <Report><Bucket>arn:aws:s3:::r</Bucket><Format>Report_CSV_20180820</Format><Enabled>true</Enabled><Prefix>p</Prefix>
  <ReportScope>AllTasks</ReportScope></Report></Job></DescribeJobResult>"""


def of_aws(server, tmp_path, *arguments, **options):
    environment = harness.plain_environment(tmp_path) | KEY
    return job(environment, *arguments, "--endpoint-url", server.url, "--region", "us-west-2", **options)


def put_report(server):
    base = f"/r/p/job-{JOB}"
    failed = b'b,a%20b,v1,failed,200,PermanentFailure,"x,y"\r\nb,"c,d",\\N,failed,404,,\r\n'
    succeeded = b"b,e,v2,succeeded,200,,\r\n"
    results = []
    for status, content in (("succeeded", succeeded), ("failed", failed)):
        path = f"{base}/results/{hashlib.sha1(content).hexdigest()}.csv"
        server.objects[path] = content
        results.append({"TaskExecutionStatus": status, "Bucket": "r", "Key": path.removeprefix("/r/"),
                        "MD5Checksum": hashlib.md5(content).hexdigest()})
    server.objects[f"{base}/manifest.json"] = json.dumps({"Format": "Report_CSV_20180820", "Results": results}).encode()
    server.answers[f"/v20180820/jobs/{JOB}"] = DESCRIBED


def test_elsewhere_the_account_is_the_callers_and_a_retry_brings_its_own_manifest(elsewhere, tmp_path):
    put_report(elsewhere)
    done = of_aws(elsewhere, tmp_path, "retry", JOB, "--token", "t")
    assert done.stdout == "made-1\n"
    assert elsewhere.objects[f"/r/p/job-{JOB}/retry-failed.csv"] == b'b,a%20b,v1\nb,"c,d",\n'
    method, _, headers, body = elsewhere.requests[-1]
    assert headers["x-amz-account-id"] == "123456789012" and headers["x-amz-security-token"] == "session"
    assert "/us-west-2/s3/aws4_request" in headers["authorization"]
    request = body.decode()
    manifest = elsewhere.objects[f"/r/p/job-{JOB}/retry-failed.csv"]
    for part in (
        "<Format>S3BatchOperations_CSV_20180820</Format>",
        "<Fields><member>Bucket</member><member>Key</member><member>VersionId</member></Fields>",
        f"<ObjectArn>arn:aws:s3:::r/p/job-{JOB}/retry-failed.csv</ObjectArn>",
        f"<ETag>{hashlib.md5(manifest).hexdigest()}</ETag>",
        "<FunctionArn>arn:aws:lambda:us-west-2:123456789012:function:f</FunctionArn>",
        "<Priority>42</Priority>", "<RoleArn>arn:aws:iam::123456789012:role/r</RoleArn>",
        "<Prefix>p</Prefix>", "<ClientRequestToken>t</ClientRequestToken>",
    ):
        assert part in request, part
    assert "longshore:" not in request, "no tag that nobody there understands"
    of_aws(elsewhere, tmp_path, "retry", JOB, "--all")
    assert elsewhere.objects[f"/r/p/job-{JOB}/retry-all.csv"] == b'b,e,v2\nb,a%20b,v1\nb,"c,d",\n'


def test_a_longshore_gets_the_report_itself_as_the_manifest_of_a_retry(elsewhere, tmp_path):
    put_report(elsewhere)
    NotOurs.server_version = "longshore"
    try:
        elsewhere.headers = [("ETag", '"etag-1"')]
        elsewhere.answers[f"/r/p/job-{JOB}/manifest.json"] = elsewhere.objects[f"/r/p/job-{JOB}/manifest.json"]
        of_aws(elsewhere, tmp_path, "retry", JOB)
        of_aws(elsewhere, tmp_path, "retry", JOB, "--all")
    finally:
        NotOurs.server_version = "AmazonS3"
    made = [body.decode() for method, path, _, body in elsewhere.requests if path == "/v20180820/jobs"]
    for request, rows in zip(made, ("failed", "all"), strict=True):
        assert "<Spec><Format>Report_CSV_20180820</Format></Spec>" in request
        assert f"<ObjectArn>arn:aws:s3:::r/p/job-{JOB}/manifest.json</ObjectArn>" in request
        assert "<ETag>etag-1</ETag>" in request
        assert f"<Tags><member><Key>longshore:rows</Key><Value>{rows}</Value></member></Tags>" in request
    assert not [path for path in elsewhere.objects if "retry" in path]


def test_what_only_longshore_offers_is_refused_elsewhere(elsewhere, tmp_path):
    done = of_aws(elsewhere, tmp_path, "events", JOB, status=1)
    assert "AWS sends those of its jobs to EventBridge" in done.stderr
    elsewhere.answers["/m/k"] = b""
    create = ["create", "--function", "f", "--manifest", "s3://m/k", "--role", "r"]
    said = of_aws(elsewhere, tmp_path, *create, "--sample", "3", status=64).stderr
    assert "--sample is an offer of Longshore" in said
    assert "no role is named" in of_aws(elsewhere, tmp_path, *create[:-2], status=64).stderr
    assert not [request for request in elsewhere.requests if request[1] == "/v20180820/jobs"]


def events(*statuses):
    return [{"jobEventId": str(n), "eventName": "JobStatusChanged", "status": status, "time": "2026-01-31T10:00:00Z",
             "failureCodes": [], "statusChangeReason": [], "deliveries": [], "document": {}}
            for n, status in enumerate(statuses)]


def test_events_are_printed_page_by_page_and_followed_to_the_jobs_end(elsewhere, tmp_path):
    pages = {None: {"events": events("New", "Preparing"), "nextToken": "t"}}
    answers = iter([["Ready"], ["Ready", "Active"], ["Ready", "Active", "Complete"]])
    before = NotOurs.handle_any

    def with_events(self):
        split = urllib.parse.urlsplit(self.path)
        if split.path != f"/_longshore/v1/jobs/{JOB}/events":
            return before(self)
        token = dict(urllib.parse.parse_qsl(split.query)).get("nextToken")
        if token is None:
            return self.answer(json.dumps(pages[None]))
        assert token == "t"
        page = events("New", "Preparing", *next(answers))[2:]
        return self.answer(json.dumps({"events": page, "nextToken": None}))

    NotOurs.server_version, NotOurs.do_GET = "longshore", with_events
    try:
        done = of_aws(elsewhere, tmp_path, "events", JOB)
        assert [line.split()[-1] for line in done.stdout.splitlines()] == ["New", "Preparing", "Ready"]
        done = of_aws(elsewhere, tmp_path, "events", JOB, "--follow", "--json")
        followed = [json.loads(line)["status"] for line in done.stdout.splitlines()]
        assert followed == ["New", "Preparing", "Ready", "Active", "Complete"]
    finally:
        NotOurs.server_version, NotOurs.do_GET = "AmazonS3", before


def test_tls_is_spoken_to_whom_a_certificate_vouches_for(tmp_path):
    certificate, key = harness.certificate(tmp_path, "test")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serving(context) as server:
        server.answers["/v20180820/jobs"] = "<ListJobsResult><Jobs/></ListJobsResult>"
        arguments = ["list", "--json", "--endpoint-url", server.url]
        environment = harness.plain_environment(tmp_path) | KEY
        trusting = job(environment | {"AWS_CA_BUNDLE": str(certificate)}, *arguments)
        assert json.loads(trusting.stdout) == {"Jobs": []}
        untrusting = job(environment, *arguments, status=1)
        assert "certificate" in untrusting.stderr and "HTTPS_PROXY" not in untrusting.stderr
        proxied = job(environment | {"HTTPS_PROXY": "http://127.0.0.1:9"}, *arguments, status=1)
        assert "HTTPS_PROXY is set, but connections go straight" in proxied.stderr

# --- what only Longshore has, against a real one ---

# Fails for keys with "fail" in them; says which task it was in either case.
TASKS = """
    def handler(event, context):
        task = event["tasks"][0]
        code = "PermanentFailure" if "fail" in task["s3Key"] else "Succeeded"
        return {"invocationSchemaVersion": event["invocationSchemaVersion"], "invocationId": event["invocationId"],
                "results": [{"taskId": task["taskId"], "resultCode": code, "resultString": task["taskId"]}]}
"""


def reported(place, id):
    """The message of each key's row in a job's report."""
    return {row.key: row.message for row in harness.read_report(place.server, id, place.server.describe(id))}


def test_a_job_that_is_not_over_tells_what_has_failed_so_far(place):
    rows = [(place.name, f"fail-{n}") for n in range(6)]
    place.server.put_manifest(place.name, rows)
    id = place.create("--sample", "2")
    place.server.wait(id, until="Suspended")
    line = "2 × PermanentFailure: broken\ufffd[2J  (for example fail-"
    described = place.job("describe", id).stdout
    assert any(said.startswith("Failures ") and line in said for said in described.splitlines()), described
    shown = place.job("failures", id)
    assert shown.stdout.startswith("       " + line) and f"so far: job {id} is Suspended" in shown.stderr
    assert "\x1b" not in shown.stdout + described
    found = place.json("failures", id)
    assert (found["JobId"], found["Failed"]) == (id, 2)
    assert [(g["ErrorCode"], g["Message"], g["Count"]) for g in found["Failures"]] == [
        ("PermanentFailure", "broken\x1b[2J", 2)]
    assert found["Failures"][0]["Keys"][0] in {key for _, key in rows}
    watch = subprocess.Popen(
        [LONGSHORE, "job", "watch", id, "--data-dir", place.server.data_dir], text=True, stderr=subprocess.PIPE,
        env=harness.plain_environment(place.server.home),
    )
    read_until(watch, line)
    place.job("confirm", id)
    _, said = watch.communicate(timeout=60)
    assert watch.returncode == 1 and "Complete: 0 of 6 succeeded, 6 failed" in said
    # Over, it is the report that tells.
    assert place.job("failures", id).stdout.startswith("       6 × PermanentFailure: broken\ufffd[2J\n")
    assert "Failures " not in place.job("describe", id).stdout


def test_a_watch_tells_what_failed_in_a_job_without_a_report(place):
    done = place.job("create", "--function", place.name, "--manifest", f"s3://{place.name}/manifest.csv", "--watch", status=1)
    last = done.stderr.split("Complete: 2 of 4 succeeded, 2 failed")[1]
    assert "2 × PermanentFailure: broken\ufffd[2J  (for example fail-" in last


def test_elsewhere_nobody_is_asked_what_has_failed_so_far(elsewhere, tmp_path):
    elsewhere.answers[f"/v20180820/jobs/{JOB}"] = DESCRIBED.replace("Complete", "Active")
    assert "2 failed" in of_aws(elsewhere, tmp_path, "describe", JOB).stdout
    done = of_aws(elsewhere, tmp_path, "failures", JOB, status=1)
    assert "is Active and has no report yet" in done.stderr
    assert not [path for _, path, _, _ in elsewhere.requests if path.endswith("/results")]


def test_the_events_of_a_job_are_shown_and_followed_to_its_end(ended, place):
    wanted = ["New", "Preparing", "Ready", "Active", "Completing", "Complete"]
    shown = ended.job("events", ended.id).stdout.splitlines()
    assert [line.split()[-1] for line in shown] == wanted
    found = ended.json("events", ended.id)["events"]
    assert [event["status"] for event in found] == wanted
    assert found[0]["document"]["detail"]["serviceEventDetails"]["jobId"] == ended.id
    id = place.create("--confirm")
    place.server.wait(id, until="Suspended")
    follow = subprocess.Popen(
        [LONGSHORE, "job", "events", id, "--follow", "--json", "--data-dir", place.server.data_dir],
        env=harness.plain_environment(place.server.home), text=True, stdout=subprocess.PIPE,
    )
    told = [json.loads(follow.stdout.readline())["status"] for _ in range(3)]
    assert told == ["New", "Preparing", "Suspended"]
    place.job("confirm", id)
    out, _ = follow.communicate(timeout=60)
    assert follow.returncode == 0
    assert [json.loads(line)["status"] for line in out.splitlines()] == ["Ready", "Active", "Completing", "Complete"]


def test_a_retry_takes_what_failed_or_everything_and_the_function_sees_the_same_task_ids(place):
    place.server.deploy(place.name + "-tasks", TASKS)
    made = place.job("create", "--function", place.name + "-tasks", "--manifest", f"s3://{place.name}/manifest.csv",
                     "--report", f"s3://{place.name}/reports", "--watch", status=1)
    first = made.stdout.strip()
    tasks = reported(place, first)
    assert set(tasks) == set(KEYS) and len(set(tasks.values())) == 4
    failed = {key: task for key, task in tasks.items() if "fail" in key}
    done = place.job("retry", first, "--watch", status=1)
    second = done.stdout.strip()
    assert second != first and "Complete: 0 of 2 succeeded, 2 failed" in done.stderr
    assert reported(place, second) == failed
    described = place.server.describe(second)
    assert described["Manifest"]["Spec"]["Format"] == "Report_CSV_20180820"
    assert described["Description"] == f"Retry of what failed: job {first}"
    # A retry of a retry is of the first job's tasks still.
    third = place.json("retry", second)["JobId"]
    place.server.wait(third)
    assert reported(place, third) == failed
    again = place.job("retry", first, "--all", "--confirm").stdout.strip()
    place.server.wait(again, until="Suspended")
    place.job("confirm", again)
    place.server.wait(again)
    assert reported(place, again) == tasks


def test_a_sample_waits_to_be_confirmed_and_is_not_run_again(place):
    place.server.deploy(place.name + "-tasks", TASKS)
    rows = [(place.name, f"k-{n}") for n in range(40)]
    place.server.put_manifest(place.name, rows)
    id = place.job("create", "--function", place.name + "-tasks", "--manifest", f"s3://{place.name}/manifest.csv",
                   "--report", f"s3://{place.name}/reports", "--sample", "5").stdout.strip()
    described = place.server.wait(id, until="Suspended")
    assert described["ProgressSummary"]["NumberOfTasksSucceeded"] == 5
    assert place.job("tag", "list", id).stdout == "longshore:sample=5\n"
    assert place.job("confirm", id).stdout == "Ready\n"
    place.server.wait(id)
    assert len({row.message for row in harness.audit(place.server, id, rows)}) == 40


def test_a_job_may_start_while_its_manifest_is_being_checked(place):
    rows = [(place.name, f"k-{n}") for n in range(3_000)]
    place.server.put_manifest(place.name, rows)
    id = place.create("--start-while-preparing")
    place.server.wait(id)
    harness.audit(place.server, id, rows)
    assert place.job("tag", "list", id).stdout == "longshore:start=while-preparing\n"


def test_an_inventory_is_a_manifest(place):
    import test_inventory

    rows = [[place.name, key, "1"] for key in KEYS]
    test_inventory.put_inventory(place.server, place.name, [test_inventory.csv_gz(rows)], schema="Bucket, Key, Size")
    uri = f"s3://{place.name}/{test_inventory.BASE}manifest.json"
    done = place.job("create", "--function", place.name, "--inventory", uri, "--report", f"s3://{place.name}/reports",
                     "--watch", status=1)
    id = done.stdout.strip()
    assert place.server.describe(id)["Manifest"]["Spec"]["Format"] == "S3InventoryReport_CSV_20161130"
    assert "Complete: 2 of 4 succeeded, 2 failed" in done.stderr
    assert set(reported(place, id)) == set(KEYS)


def test_a_manifest_is_generated_from_filters_and_kept(place):
    done = place.job("create", "--function", place.name, "--generate", f"s3://{place.name}/fail", "--suffix=-2.txt",
                     "--larger-than", "0", "--created-after", "2020-01-31", "--save-manifest", f"s3://{place.name}/lists",
                     "--report", f"s3://{place.name}/reports", "--watch", status=1)
    id = done.stdout.strip()
    assert set(reported(place, id)) == {"fail-2.txt"}
    kept = place.server.describe(id)["GeneratedManifestDescriptor"]["Location"]["ObjectArn"].split(":::")[1]
    assert kept.startswith(f"{place.name}/lists/")
    # What was kept is the manifest of another job.
    other = place.job("create", "--function", place.name, "--inventory", f"s3://{kept}", "--report",
                      f"s3://{place.name}/reports", "--watch", status=1).stdout.strip()
    assert set(reported(place, other)) == {"fail-2.txt"}
    shown = place.job("describe", id).stdout
    assert f"s3://{kept}" in shown and '"fail"' in shown
    every = place.job("create", "--function", place.name, "--generate", f"s3://{place.name}/", "--suffix", ".txt",
                      "--report", f"s3://{place.name}/reports", "--watch", status=1).stdout.strip()
    assert {urllib.parse.unquote(key) for key in reported(place, every)} == {urllib.parse.unquote(key) for key in KEYS}


def test_the_completion_script_knows_the_jobs_commands():
    script = harness.run([LONGSHORE, "completions", "bash"], dict(os.environ)).stdout
    for word in ("longshore__subcmd__job__subcmd__create", "--start-while-preparing", "--endpoint-url"):
        assert word in script, word
