"""What stands beside the server in a round: the floors and peers whose sources --bench names, and our own stub."""

import http.client, json, os, re, resource, shutil, subprocess, sys, time

import measure
from measure import TOOLS, built, content, cpu_us

from .frame import Missing, output

# As of the last time that they were measured together; pip picks versions that agree.
PEERS = ("boto3", "aiohttp", "uvloop", "orjson", "awslambdaric")


def floor_program(a, name):
    """The path of a program whose source is NAME.rs in the folder of --bench."""
    if not a.bench:
        raise Missing(f"--bench DIR, with {name}.rs in it")
    source = os.path.join(a.bench, name + ".rs")
    if not os.path.exists(source):
        raise Missing(f"{name}.rs in the folder of --bench")
    made = built(name, source, lambda source, made: ["rustc", "-O", "-o", made, source])
    if made is None:
        raise Missing("rustc")
    return made


def script(a, name):
    if not a.bench or not os.path.exists(os.path.join(a.bench, name)):
        raise Missing(f"--bench DIR, with {name} in it")
    return os.path.join(a.bench, name)


def python_of(name, packages):
    """The Python of a virtual environment below target/bench that has these packages."""
    folder = os.path.join(TOOLS, name)
    python, mark = os.path.join(folder, "bin/python"), os.path.join(folder, "packages")
    wanted = "\n".join(packages)
    if not os.path.exists(mark) or content(mark).decode() != wanted:
        try:
            output([sys.executable, "-m", "venv", folder])
            output([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages])
        except RuntimeError as error:
            raise Missing(f"the packages {', '.join(packages)}: {error}") from None
        with open(mark, "w") as f:
            f.write(wanted)
    return python


def node_client():
    """AWS's runtime client for Node, below target/bench/node; it builds a library of its own when it is installed."""
    folder = os.path.join(TOOLS, "node")
    found = os.path.join(folder, "node_modules/aws-lambda-ric")
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise Missing("node and npm")
    if not os.path.exists(os.path.join(found, "dist/rapid-client.node")):
        os.makedirs(folder, exist_ok=True)
        try:
            output(["npm", "install", "--no-audit", "--no-fund", "aws-lambda-ric"], cwd=folder)
            if not os.path.exists(os.path.join(found, "dist/rapid-client.node")):
                # npm of late asks before a package's own scripts run.
                output(["npm", "approve-scripts", "aws-lambda-ric"], cwd=folder)
                output(["npm", "rebuild", "aws-lambda-ric"], cwd=folder)
        except RuntimeError as error:
            raise Missing(f"npm's aws-lambda-ric: {error}") from None
    if not os.path.exists(os.path.join(found, "dist/rapid-client.node")):
        raise Missing("the library of npm's aws-lambda-ric, which was not built")
    return os.path.join(found, "bin/index.mjs")


class BenchStub:
    """stub_server of --bench: the target that is the same for the floor, the peers and us."""

    def __init__(self, a):
        program = floor_program(a, "stub_server")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = subprocess.Popen([program, f"127.0.0.1:{self.port}", "--track", "1"], stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        for _ in range(500):
            try:
                self.get("/_stats")
                return
            except ConnectionRefusedError:
                time.sleep(0.01)
        raise RuntimeError("stub_server does not answer")

    def get(self, path):
        return ask(self.port, "GET", path)

    def cpu_us(self):
        return cpu_us(self.process.pid)

    def stop(self):
        self.process.kill()
        self.process.wait()


class Stub:
    """`cargo xtask stub`: a target that keeps time. All its times are microseconds since the epoch."""

    def __init__(self):
        program = os.environ.get("XTASK") or os.path.join(measure.ROOT, "target/release/xtask")
        self.process = subprocess.Popen([program, "stub"], stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline().rsplit(":", 1)[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def reset(self, delay_us=0, rate=0, track=False):
        ask(self.port, "POST", f"/_reset?delay_us={delay_us}&rate={rate}&track={int(track)}")

    def stats(self):
        return ask(self.port, "GET", "/_stats")

    def function(self, name="f"):
        return self.stats()["functions"].get(name, {"calls": 0, "rejected": 0, "first_us": 0, "last_us": 0, "peak": 0, "in_flight": 0,
                                                    "time_at_us": []})

    def calls(self, name="f"):
        return self.function(name)["calls"]

    def bins(self, name):
        """(microseconds of the epoch at which the first millisecond began, calls that began in each that had some)."""
        told = ask(self.port, "GET", f"/_bins?function={name}")
        return told["reset_us"], dict(map(tuple, told["bins"]))

    def until(self, condition, timeout=120, every=0.002):
        """Polls until the condition on the statistics holds, and returns them."""
        deadline = time.monotonic() + timeout
        while True:
            stats = self.stats()
            if condition(stats):
                return stats
            if time.monotonic() > deadline:
                raise TimeoutError(f"the stub has not seen it in {timeout} s: {stats}")
            time.sleep(every)

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def ask(port, method, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def free_port():
    import socket
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def endpoint(url, signed=False):
    """The settings that put every function at the stub. `variables` below go with a signed one."""
    access = 'access_key_id_variable = "STUB_KEY"\nsecret_access_key_variable = "STUB_SECRET"\n' if signed else "anonymous = true\n"
    return f'[[function_endpoint]]\nname = "stub"\nurl = "{url}"\nregion = "{measure.REGION}"\nfunctions = ["*"]\n{access}'


SIGNING = {"STUB_KEY": "AKIDEXAMPLE", "STUB_SECRET": "secret"}


def peer(command, tasks, stub, verify, syncs=None, **more):
    """A program as a whole: wall, its processes' CPU (rusage, children included), the stub's CPU. `verify` returns how many tasks
    it did; a program that did not do all is no peer."""
    stub_before, count = stub.cpu_us(), syncs.count() if syncs else None
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {name: value for name, value in measure.plain().items()} | (syncs.environment if syncs else {}) | more.pop("env", {})
    told = output(command, env=environment, **more)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    own = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e6
    done = verify(told)
    if done != tasks:
        raise RuntimeError(f"{command[0]} did {done} of {tasks} tasks")
    stub_us = stub.cpu_us() - stub_before
    return {"tasks": tasks, "wall_s": wall, "tasks_per_s": tasks / wall, "own_us": own / tasks, "all_us": (own + stub_us) / tasks,
            "fsyncs": syncs.count() - count if syncs and syncs.page else None, "audited": True}


def last_json(text):
    found = re.findall(r"^\{.*\}$", text, re.M)
    if not found:
        raise RuntimeError(f"no figures in: {text[-800:]}")
    return json.loads(found[-1])


def floor(told, tasks):
    """The reading that engine_floor prints, whose own check is that every row succeeded."""
    assert told["rows"] == tasks and told["failed"] == 0, told
    return {"tasks": tasks, "tasks_per_s": told["rows_per_s"], "own_us": told["own_cpu_us"], "functions_us": told["clients_cpu_us"],
            "first_ms": told["first_invocation_ms"], "rss_mb": told["peak_rss_mb"], "fsyncs": 3 * told["checkpoints"],
            "checkpoints": told["checkpoints"], "audited": True}


def lines_of(*paths):
    return sum(content(path).count(b"\n") for path in paths)
