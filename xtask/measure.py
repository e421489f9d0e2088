"""What every measurement here needs: figures from /proc, the count of syncs, a server of one's own with real clients, a job
through the public API, and the audit without which no figure counts.

Processor time is in microseconds, memory in KiB, unless a name says otherwise.
"""

import concurrent.futures, contextlib, csv, hashlib, http.client, io, json, mmap, os, re, shlex, shutil, signal, socket, struct, subprocess, sys, sysconfig, tempfile, threading, time, zipfile
import zlib

import boto3
import botocore.auth, botocore.awsrequest, botocore.credentials
from botocore.config import Config

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.append(os.path.join(ROOT, "tests/conformance"))

import audit as oracle  # noqa: E402

BINARY = os.path.join(ROOT, "target/release/longshore")
# Programs and packages that measurements need and that are no part of the project.
TOOLS = os.path.join(ROOT, "target/bench")
TICK = os.sysconf("SC_CLK_TCK")
REGION, ACCOUNT = "us-east-1", "000000000000"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/longshore-batch"
ENDED = ("Complete", "Failed", "Cancelled")
# A name lookup or a proxy of the machine must not decide a figure.
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "PYENV_ROOT", "PYENV_VERSION")


# --- /proc ---


def stat(pid):
    """The fields of /proc/PID/stat behind the command, or None for a process that is gone. Source: proc(5)."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def cpu_us(pid, children=False):
    """User and system time of a process, threads that ended included; with `children` also of those that it waited for.

    Exact to a tick of 10 ms: let a run take a second or more.
    """
    fields = stat(pid)
    if fields is None:
        return 0
    return sum(int(fields[n]) for n in ((11, 12, 13, 14) if children else (11, 12))) * 1_000_000 // TICK


def user_us(pid):
    fields = stat(pid)
    return int(fields[11]) * 1_000_000 // TICK if fields else 0


def sched_cpu_us(pid):
    """Processor time of a process's living threads, from schedstat: nanoseconds, not ticks."""
    total = 0
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/schedstat") as f:
                total += int(f.read().split()[0])
    except (FileNotFoundError, ProcessLookupError):
        pass
    return total / 1e3


def descendants(pid):
    """Living processes below one, at any depth."""
    out, todo = [], [pid]
    while todo:
        p = todo.pop()
        try:
            tasks = os.listdir(f"/proc/{p}/task")
        except (FileNotFoundError, ProcessLookupError):
            continue
        for task in tasks:
            with contextlib.suppress(OSError), open(f"/proc/{p}/task/{task}/children") as f:
                children = [int(c) for c in f.read().split()]
                out += children
                todo += children
    return out


def environments(pid):
    """The processes of environments that have a function, below the server: the sandbox's first ones, and what they run. Those
    of environments that were made ahead and wait for one are as the helper is called."""
    parents, found = {}, set()
    for p in descendants(pid):
        with contextlib.suppress(OSError), open(f"/proc/{p}/cmdline") as line, open(f"/proc/{p}/status") as status:
            waits = "__launch" in line.read().split("\0")
            parents[p] = int(re.search(r"^PPid:\s*(\d+)", status.read(), re.M).group(1))
            if not waits:
                found.add(p)
    return found | {parents[p] for p in found if parents[p] in parents}


def below_us(pid):
    """Processor time of all processes below one, those that ended and were waited for included."""
    return sum(cpu_us(p, children=True) for p in descendants(pid)) + cpu_us(pid, children=True) - cpu_us(pid)


def status_kib(pid, name):
    """VmRSS, VmHWM and their like; 0 for a process that is gone."""
    try:
        with open(f"/proc/{pid}/status") as f:
            found = re.search(rf"^{name}:\s+(\d+)", f.read(), re.M)
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(found.group(1)) if found else 0


def pss_kib(pid):
    try:
        with open(f"/proc/{pid}/smaps_rollup") as f:
            return int(re.search(r"^Pss:\s+(\d+)", f.read(), re.M).group(1))
    except (FileNotFoundError, ProcessLookupError, AttributeError):
        return 0


def forget_peak(pid):
    """Starts the peak that VmHWM tells anew. Source: proc(5), clear_refs."""
    with open(f"/proc/{pid}/clear_refs", "w") as f:
        f.write("5")


# --- syncs ---


class Syncs:
    """Counts the fsync and fdatasync calls of programs that are started in `environment`; can stall them, or skip them.

    Without a C compiler there is no count, and `environment` is empty.
    """

    PAGE = struct.Struct("=QQQQ")

    def __init__(self, folder):
        self.library = built("syncs.so", os.path.join(ROOT, "xtask/native/syncs.c"), lambda source, made: [
            "cc", "-O2", "-shared", "-fPIC", "-o", made, source, "-ldl"])
        self.page, self.environment = None, {}
        if self.library:
            descriptor, path = tempfile.mkstemp(prefix="syncs-", dir=folder)
            os.ftruncate(descriptor, self.PAGE.size)
            self.page = mmap.mmap(descriptor, self.PAGE.size)
            os.close(descriptor)
            self.environment = {"LD_PRELOAD": self.library, "SYNCS_PAGE": path}

    def count(self):
        return struct.unpack_from("=Q", self.page, 0)[0] if self.page else None

    def stall(self, seconds):
        """From now on no sync ends before so many seconds are over."""
        struct.pack_into("=Q", self.page, 16, time.monotonic_ns() + int(seconds * 1e9))

    def skip(self, whether):
        struct.pack_into("=Q", self.page, 24, int(whether))


def built(name, source, command):
    """The path of a program in target/bench, compiled if it is older than its source; None where it cannot be."""
    os.makedirs(TOOLS, exist_ok=True)
    made = os.path.join(TOOLS, name)
    if os.path.exists(made) and os.path.getmtime(made) >= os.path.getmtime(source):
        return made
    compiler = command(source, made)
    if shutil.which(compiler[0]) is None:
        print(f"skipped: {name} needs {compiler[0]}, which is not installed", file=sys.stderr)
        return None
    subprocess.check_call(compiler)
    return made


# --- packages of functions ---

HANDLER = '''
import time
called = False
def handler(event, context):
    # The first call of each process tells its time, which is then in the report: a function has no other way out.
    global called
    told, called = ("ok" if called else str(time.time())), True
    t = event["tasks"][0]
    return {"invocationSchemaVersion": "1.0", "treatMissingKeysAs": "PermanentFailure",
            "invocationId": event["invocationId"],
            "results": [{"taskId": t["taskId"], "resultCode": "Succeeded", "resultString": told}]}
'''
HANDLER_JS = '''
exports.handler = async (event) => {
    const key = event.tasks[0].s3Key;
    if (key.startsWith("warm/")) await new Promise((done) => setTimeout(done, Number(key.split("/")[1])));
    return { invocationSchemaVersion: "1.0", treatMissingKeysAs: "PermanentFailure", invocationId: event.invocationId,
        results: [{ taskId: event.tasks[0].taskId, resultCode: "Succeeded", resultString: "ok" }] };
};
'''


# Of rows whose keys say so the calls take so many milliseconds: a job of them needs, and so starts, all the environments that
# there may be.
WARMED = HANDLER.replace("    t = event", """    key = event["tasks"][0]["s3Key"]
    if key.startswith("warm/"):
        time.sleep(int(key.split("/")[1]) / 1000)
    t = event""")


def zipped(files):
    """A zip of (name, content, mode)."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        for name, content, mode in files:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            z.writestr(info, content)
    return out.getvalue()


def files_of(path):
    if os.path.isfile(path):
        return [path]
    return sorted(os.path.join(d, f) for d, _, files in os.walk(path) for f in files if "__pycache__" not in d)


def content(path):
    with open(path, "rb") as f:
        return f.read()


def package(client, handler=WARMED):
    """(runtime, zip) of the trivial function with one of the runtime clients: own, own-node, awslambdaric, node-ric, bare."""
    if client == "own":
        return f"python3.{sys.version_info.minor}", zipped([("handler.py", handler, 0o644)])
    if client == "own-node":
        return node_runtime(), zipped([("handler.js", HANDLER_JS, 0o644)])
    if client == "bare":
        return "provided.al2023", zipped([
            ("client", content(os.path.join(TOOLS, "runtime_api_ceiling")), 0o755),
            ("bootstrap", '#!/bin/sh\nexec "$LAMBDA_TASK_ROOT/client" client\n', 0o755)])
    if client == "node-ric":
        modules = os.path.join(TOOLS, "node/node_modules")
        files = [(os.path.relpath(p, os.path.dirname(modules)), content(p), 0o644)
                 for name in ("aws-lambda-ric",) for p in files_of(os.path.join(modules, name))
                 if not any(part in p for part in ("/deps/", "/src/", "node-addon-api"))]
        start = f"#!/bin/sh\nexec {shutil.which('node')} $LAMBDA_TASK_ROOT/node_modules/aws-lambda-ric/bin/index.mjs handler.handler\n"
        return "provided.al2023", zipped([*files, ("handler.js", HANDLER_JS, 0o644), ("bootstrap", start, 0o755)])
    # Inside the package, as its users have it: a sandboxed function sees nothing of this folder.
    site, files = sysconfig.get_path("platlib"), [("handler.py", handler, 0o644)]
    for name in sorted(os.listdir(site)):
        if name.split("-")[0].split(".")[0] in ("awslambdaric", "runtime_client", "simplejson", "snapshot_restore_py"):
            files += [(os.path.relpath(path, site), content(path), 0o644) for path in files_of(os.path.join(site, name))]
    start = f"#!/bin/sh\nPYTHONPATH=$LAMBDA_TASK_ROOT exec {os.path.realpath(sys.executable)} -m awslambdaric handler.handler\n"
    return "provided.al2023", zipped([*files, ("bootstrap", start, 0o755)])


def node_runtime():
    version = subprocess.run(["node", "--version"], capture_output=True, text=True).stdout
    return "nodejs" + re.match(r"v(\d+)", version).group(1) + ".x"


# --- a server ---


@contextlib.contextmanager
def environment(replacement):
    """Replaces the environment of this process for a while: boto3 reads it when a client is made."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(replacement)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def plain():
    return {name: os.environ[name] for name in INHERITED if name in os.environ}


class Server:
    """One `longshore serve` on a data directory of its own, which may be killed and started again."""

    def __init__(self, work, settings="", binary=BINARY, variables=None):
        self.work, self.binary, self.data = work, binary, os.path.join(work, "data")
        self.config = os.path.join(work, "longshore.toml")
        with open(self.config, "w") as f:
            f.write(settings)
        self.syncs = Syncs(work)
        self.variables = variables or {}
        self.process, self.ready_ms, self._clients = None, None, {}
        self.start()

    def start(self):
        """Starts it, and says when it listens. `ready_ms` is the time from the start to that."""
        began = time.perf_counter()
        self.process = subprocess.Popen(
            [self.binary, "serve", "--data-dir", self.data, "--listen", "127.0.0.1:0", "--config", self.config],
            env=plain() | self.variables | self.syncs.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=open(os.path.join(self.work, "serve.log"), "ab"), text=True)
        for line in self.process.stdout:
            if "listening on" in line:
                break
        else:
            raise RuntimeError(f"the server did not start:\n{self.said()[-2000:]}")
        self.ready_ms = (time.perf_counter() - began) * 1e3
        printed = subprocess.check_output([self.binary, "env", "--data-dir", self.data], env=plain(), text=True)
        self.exports = {name: shlex.split(value)[0] if value else ""
                        for name, value in re.findall(r"^export (\w+)=(.*)$", printed, re.M)}
        self._clients.clear()
        return self

    def said(self):
        with open(os.path.join(self.work, "serve.log"), errors="replace") as f:
            return f.read()

    @property
    def pid(self):
        return self.process.pid

    def client(self, name):
        if name not in self._clients:
            config = Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}, max_pool_connections=512, read_timeout=300,
                            request_checksum_calculation="when_required")
            with environment(plain() | self.exports):
                self._clients[name] = boto3.session.Session().client(name, config=config)
        return self._clients[name]

    s3 = property(lambda self: self.client("s3"))
    functions = property(lambda self: self.client("lambda"))
    control = property(lambda self: self.client("s3control"))

    def deploy(self, name, runtime, package, timeout=60, **more):
        self.functions.create_function(FunctionName=name, Runtime=runtime, Role=ROLE, Handler="handler.handler", Timeout=timeout,
                                       Code={"ZipFile": package}, **more)
        self.functions.get_waiter("function_active_v2").wait(FunctionName=name)

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def interpreters():
    """The setting that shows this script's Python, and Node, to functions that bring a client of their own."""
    paths = {sys.prefix, sys.base_prefix, os.path.dirname(os.path.dirname(os.path.realpath(sys.executable)))}
    return f"sandbox_paths = {json.dumps(sorted(paths - {'/usr'}))}\n"


# --- jobs ---


class Rows:
    """A manifest of `count` equal-length rows, `BUCKET,prefix/object-0000000000`, and what a report of it has to hold."""

    BUCKET = "bench"

    def __init__(self, count, prefix="prefix/object-"):
        self.count, self.prefix = count, prefix

    def line(self, n):
        return f"{self.BUCKET},{self.prefix}{n:010}\n"

    def pieces(self, rows=50_000):
        for low in range(0, self.count, rows):
            yield "".join(map(self.line, range(low, min(low + rows, self.count)))).encode()

    def file(self, path):
        with open(path, "wb") as f:
            f.writelines(self.pieces())
        return path

    def put(self, server, key):
        """Stores it as an object and returns its ETag."""
        with contextlib.suppress(server.s3.exceptions.BucketAlreadyOwnedByYou, server.s3.exceptions.BucketAlreadyExists):
            server.s3.create_bucket(Bucket=self.BUCKET)
        with tempfile.TemporaryFile() as f:
            f.writelines(self.pieces())
            f.seek(0)
            return server.s3.put_object(Bucket=self.BUCKET, Key=key, Body=f)["ETag"]


def create_job(server, function, key, etag, priority=1, report=True, tags=(), token=None, confirm=False, inventory=False):
    described = {"Enabled": False}
    if report:
        described = {"Bucket": f"arn:aws:s3:::{Rows.BUCKET}", "Format": "Report_CSV_20180820", "Enabled": True, "Prefix": "r",
                     "ReportScope": "AllTasks"}
    spec = {"Format": "S3InventoryReport_CSV_20161130"} if inventory else {
        "Format": "S3BatchOperations_CSV_20180820", "Fields": ["Bucket", "Key"]}
    more = {"Tags": [{"Key": key, "Value": value} for key, value in tags]} if tags else {}
    return server.control.create_job(
        AccountId=ACCOUNT, ConfirmationRequired=confirm, Priority=priority, RoleArn=ROLE,
        ClientRequestToken=token or f"{time.time_ns()}", Operation={"LambdaInvoke": {"FunctionArn": function}}, Report=described,
        Manifest={"Spec": spec, "Location": {"ObjectArn": f"arn:aws:s3:::{Rows.BUCKET}/{key}", "ETag": etag}}, **more)["JobId"]


def describe(server, job):
    return server.control.describe_job(AccountId=ACCOUNT, JobId=job)["Job"]


def wait(server, job, statuses=ENDED, every=0.1, timeout=900):
    deadline = time.monotonic() + timeout
    while True:
        described = describe(server, job)
        if described["Status"] in statuses:
            return described
        assert described["Status"] not in ENDED, f"the job ended {described['Status']}: {described.get('FailureReasons')}"
        assert time.monotonic() < deadline, f"the job is still {described['Status']}"
        time.sleep(every)


def order(server, job, status):
    server.control.update_job_status(AccountId=ACCOUNT, JobId=job, RequestedJobStatus=status)


class Wire:
    """One connection to a server's S3 Control, for a script that must not cost what boto3 costs."""

    def __init__(self, server):
        self.host = server.exports["AWS_ENDPOINT_URL"].removeprefix("http://")
        known = botocore.credentials.Credentials(server.exports["AWS_ACCESS_KEY_ID"], server.exports["AWS_SECRET_ACCESS_KEY"])
        self.signer = botocore.auth.S3SigV4Auth(known, "s3", REGION)
        self.connection = http.client.HTTPConnection(self.host, timeout=60)

    def signed(self, method, target, body=b""):
        """The headers of a request. They hold for as many requests as are sent within 15 minutes."""
        headers = {"x-amz-account-id": ACCOUNT, "x-amz-content-sha256": hashlib.sha256(body).hexdigest()}
        request = botocore.awsrequest.AWSRequest(method, f"http://{self.host}{target}", data=body, headers=headers)
        self.signer.add_auth(request)
        return dict(request.headers)

    def written(self, target):
        """A GET as it stands on the wire, signed. It holds for 15 minutes."""
        headers = {"Host": self.host} | self.signed("GET", target)
        lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        return "\r\n".join(lines).encode()

    def send_written(self, request):
        """As `send`, of what `written` has made: http.client takes longer for its part than the server for its own."""
        if self.connection.sock is None:
            self.connection.connect()
            self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock, received = self.connection.sock, b""
        sent = time.perf_counter()
        sock.sendall(request)
        while b"\r\n\r\n" not in received:
            more = sock.recv(1 << 20)
            if not more:
                raise RuntimeError("the server has hung up")
            received += more
        head, content = received.split(b"\r\n\r\n", 1)
        length = int(re.search(rb"(?im)^content-length: *(\d+)", head).group(1))
        while len(content) < length:
            content += sock.recv(1 << 20)
        took = (time.perf_counter() - sent) * 1e3
        if not head.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"{request.split()[1].decode()}: {head[:40]} {content[:300]}")
        return took, content

    def send(self, method, target, body=b"", headers=None):
        """Returns (milliseconds from the first byte sent to the last one received, the answer's body)."""
        headers = headers or self.signed(method, target, body)
        sent = time.perf_counter()
        self.connection.request(method, target, body or None, headers)
        answer = self.connection.getresponse()
        content = answer.read()
        took = (time.perf_counter() - sent) * 1e3
        if answer.status not in (200, 204):
            raise RuntimeError(f"{method} {target}: {answer.status} {content[:300]}")
        return took, content


def create_jobs(server, function, key, etag, count, report=False):
    """Creates many equal jobs that wait for their confirmation. Returns their IDs."""
    sent = []
    events, name = server.control.meta.events, "before-send.s3-control.CreateJob"
    keep = lambda request, **_: sent.append(request.body)
    events.register(name, keep)
    ids = [create_job(server, function, key, etag, token="the-first", report=report, confirm=True)]
    events.unregister(name, keep)
    body = sent[0] if isinstance(sent[0], bytes) else sent[0].encode()
    local = threading.local()

    def create(n):
        if not hasattr(local, "wire"):
            local.wire = Wire(server)
        _, answer = local.wire.send("POST", "/v20180820/jobs", body.replace(b"the-first", b"number-%d" % n))
        return re.search(rb"<JobId>([^<]+)", answer).group(1).decode()

    # Side by side, since each waits for a sync that they may share.
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        return ids + list(pool.map(create, range(1, count)))


class NotCounted(AssertionError):
    """A run whose audit failed: its figures are no figures."""


# Rows whose report the oracle of all lanes takes into memory: half a second, and some 50 MB here. Longer reports are streamed.
ORACLE_ROWS_MAX = 100_000


def audit(server, job, rows, marked=False, status="Complete"):
    """Judges a job by the one oracle that the tests have, tests/conformance/audit.py: every row of the manifest once in the report (of
    a job that was cancelled: every row that is counted as done), the MD5s, the counters. With `marked`, every result is the
    CRC-32 of its own key, as the stub answers. Returns the results' strings that are not "ok", a thousand at most."""
    if rows.count > ORACLE_ROWS_MAX:
        return streamed(server, job, rows, marked, status)
    manifest = [tuple(rows.line(n).rstrip().split(",")) for n in range(rows.count)]
    try:
        reported = oracle.audit(oracle.Place(server.s3, server.control, ACCOUNT), job, manifest, status=status)
    except AssertionError as refused:
        raise NotCounted(f"job {job}: {str(refused)[:500]}") from None
    for row in reported:
        if row.status != "succeeded" or (marked and row.message != f"{zlib.crc32(row.key.encode()):08x}"):
            raise NotCounted(f"job {job}: a result that is not its own row's, or a failed one: {row}")
    return [row.message for row in reported if row.message != "ok"][:1_000]


def streamed(server, job, rows, marked=False, status="Complete"):
    """The same for reports of many rows, a piece at a time: a report may have ten million."""
    def check(holds, what):
        if not holds:
            raise NotCounted(f"job {job}: {what}")

    described = describe(server, job)
    progress = described["ProgressSummary"]
    check(described["Status"] == status and progress["TotalNumberOfTasks"] == rows.count and progress["NumberOfTasksFailed"] == 0, described)
    settled = progress["NumberOfTasksSucceeded"]
    check(settled == rows.count if status == "Complete" else settled <= rows.count, progress)
    read = lambda key: server.s3.get_object(Bucket=Rows.BUCKET, Key=key)["Body"]
    seen, told, prefix = bytearray(rows.count), [], rows.prefix
    for part in json.loads(read(f"r/job-{job}/manifest.json").read())["Results"]:
        check(part["TaskExecutionStatus"] == "succeeded", part)
        digest = hashlib.md5()
        with tempfile.TemporaryFile() as spool:
            for piece in read(part["Key"]).iter_chunks(1 << 20):
                digest.update(piece)
                spool.write(piece)
            check(digest.hexdigest() == part["MD5Checksum"], f"{part['Key']} has another MD5")
            spool.seek(0)
            for row in csv.reader(io.TextIOWrapper(spool, "utf-8", newline="")):
                key, said = row[1], row[6]
                check(row[0] == Rows.BUCKET and key.startswith(prefix) and row[3] == "succeeded", row)
                n = int(key[len(prefix):])
                check(0 <= n < rows.count and not seen[n], f"{key} is there twice, or not in the manifest")
                seen[n] = 1
                if marked:
                    check(said == f"{zlib.crc32(key.encode()):08x}", f"{key} has a result that is not its own: {said}")
                elif said != "ok" and len(told) < 1_000:
                    told.append(said)
    check(sum(seen) == settled, f"{settled} rows are counted as done, the report has {sum(seen)}")
    return told


# Where profiles go, if any are wanted.
PROFILES = None


@contextlib.contextmanager
def profiled(pid, name):
    """Takes a profile of a process, where profiles are wanted: what is on a CPU, 999 times a second, by symbols, in a text file."""
    if not PROFILES or not name:
        yield
        return
    descriptor, data = tempfile.mkstemp(prefix="perf-", dir=PROFILES)
    os.close(descriptor)
    perf = subprocess.Popen(["perf", "record", "-q", "-F", "999", "-g", "-p", str(pid), "-o", data], stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        perf.send_signal(signal.SIGINT)
        perf.wait()
        with open(os.path.join(PROFILES, name + ".txt"), "w") as f:
            for how in (["--sort", "dso"], ["--sort", "dso,symbol", "--percent-limit", "0.5"]):
                command = ["perf", "report", "-i", data, "--stdio", "--no-children", "-g", "none", *how]
                told = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
                # Behind each symbol stand columns that have nothing to say here.
                f.writelines(re.sub(r"(\s+-)+\s*$", "", line).strip() + "\n" for line in told.splitlines() if re.match(r"\s+\d", line))
                f.write("\n")
        os.unlink(data)


def run_job(server, function, key, etag, rows, marked=False, profile=None, **more):
    """Runs a job to its end and audits it. The figures are of the whole job: from the request to the report's last byte."""
    own, below, user = cpu_us(server.pid), below_us(server.pid), user_us(server.pid)
    syncs = server.syncs.count()
    with profiled(server.pid, profile):
        job = create_job(server, function, key, etag, **more)
        described = wait(server, job)
    spent = {"own_us": cpu_us(server.pid) - own, "user_us": user_us(server.pid) - user, "functions_us": below_us(server.pid) - below}
    after = server.syncs.count()
    wall = (described["TerminationDate"] - described["CreationTime"]).total_seconds()
    got = {"tasks": rows.count, "wall_s": wall, "tasks_per_s": rows.count / wall,
           **{name: value / rows.count for name, value in spent.items()},
           "rss_mb": status_kib(server.pid, "VmHWM") / 1024, "fsyncs": None if after is None else after - syncs}
    told = audit(server, job, rows, marked)
    times = [float(said) for said in told if re.fullmatch(r"\d+\.\d+", said)]
    if times:
        got["first_ms"] = (min(times) - described["CreationTime"].timestamp()) * 1000
    return got | {"audited": True, "job": job}


def warm_up(server, function, wanted, rows=None):
    """Runs small jobs until the function has so many environments: none of their starts is in a figure then. Their calls take
    longer than it takes to start them all, unless other rows are given."""
    rows = rows or Rows(wanted, f"warm/{max(200, 15 * wanted)}/object-")
    etag = rows.put(server, "warm.csv")
    for _ in range(8):
        run_job(server, function, "warm.csv", etag, rows)
        # An environment is two processes: the sandbox's first, and the runtime.
        processes = len(environments(server.pid))
        if processes >= 2 * wanted:
            return
    raise RuntimeError(f"{processes} processes are no {wanted} environments")
