"""Drives a real server with real AWS clients, and audits what it reports.

`Server` starts `longshore serve` and hands out the AWS CLI and boto3 clients set up by `longshore env`. What comes of jobs is
judged by `audit`, the one oracle, in a file of its own.
"""

import contextlib
import http.client
import io
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import zipfile

import boto3
import botocore.auth
import botocore.awsrequest
import botocore.config
import botocore.credentials

import model
from audit import ACCOUNT, REPORT_SCHEMA, TERMINAL, Row, audit, by_key, read_report

ROOT = pathlib.Path(__file__).resolve().parents[2]
LONGSHORE = pathlib.Path(os.environ.get("LONGSHORE_TEST_BIN", ROOT / "target/release/longshore"))
AWS = pathlib.Path(sys.executable).with_name("aws")
REGION = "us-east-1"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/longshore-batch"
# AWS's Python runtimes carry boto3; here a function that imports it finds the tests' own.
WITH_BOTO3 = {"PYTHONPATH": str(pathlib.Path(boto3.__file__).parents[1])}
# A name lookup or a proxy of the machine must not decide a test: only what `longshore env` prints may.
INHERITED = ("PATH", "LONGSHORE_LOG", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "PYENV_ROOT", "PYENV_VERSION")


def plain_environment(home):
    """The environment of an ordinary shell on a machine with a proxy exception that would defeat a naive set-up."""
    environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return environment | {
        "HOME": str(home),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_PAGER": "",
        "NO_PROXY": "localhost,127.0.0.1",
        "no_proxy": "localhost,127.0.0.1",
        # A function sees the system and its own files; the tests' Python, with boto3 and awslambdaric in it, is neither.
        "LONGSHORE_FUNCTIONS_SANDBOX_PATHS": ",".join(sorted({sys.prefix, sys.base_prefix} - {"/usr"})),
    }


# For functions that write files for a test to see, or whose processes a test looks for by their IDs.
UNCONFINED = {"LONGSHORE_FUNCTIONS_SANDBOX": "off"}


class Refused(AssertionError):
    """A command that should have succeeded ended with another status."""


def run(arguments, environment, stdin=None, cwd=None, timeout=120, check=True):
    """Runs a command to its end. Returns the finished process; its outputs are text."""
    done = subprocess.run(
        [str(argument) for argument in arguments],
        env=environment, input=stdin, cwd=cwd, timeout=timeout, capture_output=True, text=True,
        errors="replace",  # what a function prints need not be text
    )
    if check and done.returncode != 0:
        raise Refused(f"{shlex.join(map(str, arguments))}: status {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


class Server:
    """One `longshore serve` on a data directory of its own. May be killed and started again on the same directory."""

    def __init__(self, directory, extra_environment=None):
        self.directory = pathlib.Path(directory)
        self.data_dir = self.directory / "data"
        self.home = self.directory / "home"
        self.home.mkdir(parents=True, exist_ok=True)
        self.output = self.directory / "serve.log"
        self.extra_environment = extra_environment or {}
        self.process = None
        self.environment = None
        self.address = None
        self._boto = {}

    def start(self, timeout=30, listen="127.0.0.1:0"):
        with open(self.output, "ab") as output:
            began = output.tell()
            self.process = self.spawn(
                [str(LONGSHORE), "serve", "--data-dir", str(self.data_dir), "--listen", listen],
                env=plain_environment(self.home) | self.extra_environment,
                stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            )
        deadline = time.monotonic() + timeout
        while True:
            text = self.output.read_bytes()[began:].decode("utf-8", "replace")
            found = re.search(r"listening on https?://(127\.0\.0\.1:\d+)", text)
            if found:
                break
            assert self.process.poll() is None, f"the server ended with {self.process.returncode}:\n{text}"
            assert time.monotonic() < deadline, f"the server did not say that it listens:\n{text}"
            time.sleep(0.02)
        self.address = found[1]
        printed = self.longshore("env").stdout
        exports = {}
        for line in printed.splitlines():
            words = shlex.split(line, comments=True)
            if words:
                assert words[0] == "export", f"`longshore env` printed a line that a clean shell does not need: {line}"
                name, _, value = words[1].partition("=")
                exports[name] = value
        self.exports = exports
        self.environment = plain_environment(self.home) | exports
        self._boto.clear()
        return self

    def spawn(self, command, **options):
        """Starts the server's process. For tests that start it as somebody else, or somewhere else."""
        return subprocess.Popen(command, **options)

    def kill(self):
        """SIGKILL, as a power failure would have it, but for the disk."""
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError("the server did not stop within 30 s of SIGTERM")

    def said(self):
        return self.output.read_text("utf-8", "replace")

    def longshore(self, command, *arguments, **options):
        """Runs `longshore COMMAND ... --data-dir DIR`."""
        return run([LONGSHORE, command, *arguments, "--data-dir", self.data_dir], plain_environment(self.home), **options)

    def aws(self, *arguments, **options):
        """Runs the AWS CLI as it is, in the environment that `longshore env` prints."""
        return run([AWS, *arguments], self.environment, **options)

    def aws_json(self, *arguments, **options):
        return json.loads(self.aws(*arguments, "--output", "json", **options).stdout)

    def shell(self, script, **options):
        """Runs a shell script after `eval "$(longshore env)"`, as a person does in a terminal."""
        path = f"{AWS.parent}:{LONGSHORE.parent}:" + os.environ["PATH"]
        prologue = f'set -eu\neval "$(longshore env --data-dir {shlex.quote(str(self.data_dir))})"\n'
        return run(["sh", "-c", prologue + script], plain_environment(self.home) | {"PATH": path}, **options)

    def boto(self, service, **config):
        """A boto3 client. It reads endpoint and proxy from the environment when it is made."""
        key = (service, tuple(sorted(config.items())))
        if key not in self._boto:
            with environ(self.environment):
                config = {"retries": {"max_attempts": 1}} | config
                client = boto3.session.Session().client(service, config=botocore.config.Config(**config))
            # Every test that talks to S3 Control validates each answer against the model, without asking for it.
            self._boto[key] = model.watch(client) if service == "s3control" else client
        return self._boto[key]

    @property
    def s3(self):
        return self.boto("s3")

    @property
    def functions(self):
        return self.boto("lambda", read_timeout=120)

    @property
    def control(self):
        return self.boto("s3control")

    # --- what many tests need ---

    def bucket(self, name):
        self.s3.create_bucket(Bucket=name)
        return name

    def role(self, name):
        """Makes a role, unless it is there, that jobs and functions may have, and that may do what the first one may."""
        iam, services = self.boto("iam"), ["batchoperations.s3.amazonaws.com", "lambda.amazonaws.com"]
        with contextlib.suppress(iam.exceptions.EntityAlreadyExistsException):
            iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [
                {"Effect": "Allow", "Principal": {"Service": services}, "Action": "sts:AssumeRole"}]}))
        iam.put_role_policy(RoleName=name, PolicyName="all", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Action": ["s3:*", "lambda:InvokeFunction"], "Resource": "*"}]}))
        return f"arn:aws:iam::{ACCOUNT}:role/{name}"

    def deploy(self, name, source, runtime="python3.11", handler="handler.handler", timeout=30, environment=None):
        """Creates a function from source text, or from a {name: content} dictionary, and waits until it is active."""
        files = source if isinstance(source, dict) else {"handler.py": textwrap.dedent(source)}
        self.functions.create_function(
            FunctionName=name, Runtime=runtime, Handler=handler, Role=ROLE, Timeout=timeout,
            Code={"ZipFile": zip_of(files)}, Environment={"Variables": environment or {}},
        )
        self.functions.get_waiter("function_active_v2").wait(FunctionName=name)
        return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"

    def put_manifest(self, bucket, rows, key="manifest.csv"):
        """Writes a CSV manifest of (bucket, key[, version]) rows, each already encoded, and returns its ETag."""
        text = rows if isinstance(rows, (str, bytes)) else "".join(",".join(row) + "\n" for row in rows)
        body = text.encode() if isinstance(text, str) else text
        return self.s3.put_object(Bucket=bucket, Key=key, Body=body)["ETag"]

    def create_job(self, bucket, function, etag, *, key="manifest.csv", fields=("Bucket", "Key"), report=True,
                   scope="AllTasks", prefix="reports", schema=None, arguments=None, confirmation=False, **more):
        invoke = {"FunctionArn": function}
        if schema:
            invoke["InvocationSchemaVersion"] = schema
        if arguments:
            invoke["UserArguments"] = arguments
        described = {"Enabled": False}
        if report:
            described = {
                "Bucket": f"arn:aws:s3:::{bucket}", "Format": "Report_CSV_20180820", "Enabled": True,
                "Prefix": prefix, "ReportScope": scope,
            }
        return self.control.create_job(**{
            "AccountId": ACCOUNT, "ConfirmationRequired": confirmation, "Operation": {"LambdaInvoke": invoke},
            "Report": described, "Priority": 10, "RoleArn": ROLE,
            "Manifest": {
                "Spec": {"Format": "S3BatchOperations_CSV_20180820", "Fields": list(fields)},
                "Location": {"ObjectArn": f"arn:aws:s3:::{bucket}/{key}", "ETag": etag},
            },
        } | more)["JobId"]

    def describe(self, job):
        return self.control.describe_job(AccountId=ACCOUNT, JobId=job)["Job"]

    def wait(self, job, until=TERMINAL, timeout=120):
        """Polls DescribeJob until the job has one of the statuses, and returns its description."""
        until = {until} if isinstance(until, str) else set(until)
        deadline = time.monotonic() + timeout
        while True:
            described = self.describe(job)
            if described["Status"] in until:
                return described
            ended = described["Status"] in TERMINAL
            assert not ended, f"the job ended {described['Status']}: {described.get('FailureReasons')}"
            assert time.monotonic() < deadline, f"the job is still {described['Status']} after {timeout} s: {described}"
            time.sleep(0.1)


# Two threads that replace it at once would put back what the other had put there.
ENVIRONMENT = threading.RLock()


@contextlib.contextmanager
def environ(replacement):
    """Replaces the environment of this process for a while, for one thread at a time: boto3 reads it when a client is made."""
    with ENVIRONMENT:
        before = dict(os.environ)
        os.environ.clear()
        os.environ.update(replacement)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def zip_of(files):
    """A zip with these files; those named `bootstrap` may be executed."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o100755 if name.split("/")[-1] == "bootstrap" else 0o100644) << 16
            archive.writestr(entry, content)
    return packed.getvalue()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def content_of(path):
    """The text of a file of /proc; empty for a process that is gone."""
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:
        return ""


def alive(pid):
    """Whether a process works on. One that nobody has waited for yet does not."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(what, condition, timeout=60):
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout} s"
        time.sleep(0.02)
    return value


# --- requests as they are on the wire, for what boto3 and the AWS CLI would not send ---


def credentials(server, **other):
    return botocore.credentials.Credentials(
        other.get("key", server.exports["AWS_ACCESS_KEY_ID"]), other.get("secret", server.exports["AWS_SECRET_ACCESS_KEY"]))


def signed(server, method, service, path, body=b"", headers=None, signer=None, host=None):
    """The headers of a request signed by botocore, for the host of the server."""
    request = botocore.awsrequest.AWSRequest(
        method, f"http://{host or server.address}{path}", data=body, headers=dict(headers or {}))
    if path.startswith("/v20180820/") and "x-amz-account-id" not in request.headers:
        request.headers["x-amz-account-id"] = ACCOUNT
    if signer is None:
        kind = botocore.auth.S3SigV4Auth if service == "s3" else botocore.auth.SigV4Auth
        signer = kind(credentials(server), service, REGION)
    # Sent over plain HTTP, botocore signs the body; over TLS it would leave it out for S3.
    signer.add_auth(request)
    return dict(request.headers)


def send(server, method, target, headers=None, body=b"", host=None):
    """Sends exactly this request. Returns the status, the headers and the body."""
    connection = http.client.HTTPConnection(server.address, timeout=10)
    connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
    headers = dict(headers or {})
    connection.putheader("Host", headers.pop("Host", host or server.address))
    for name, value in headers.items():
        connection.putheader(name, value)
    if body or method in ("PUT", "POST"):
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, response.headers, content


# --- what tests need of the machine ---


def certificate(folder, name):
    """Makes a certificate for 127.0.0.1 that vouches for itself; returns its file, and that of its key."""
    need("openssl")
    files = folder / f"{name}.pem", folder / f"{name}.key"
    run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE",
         "-keyout", files[1], "-out", files[0]], dict(os.environ))
    return files


def need(program):
    """Skips the test, loudly, where a program is missing that it cannot do without."""
    import pytest

    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed on this machine")
