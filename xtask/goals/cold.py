"""Starts: of the server, of environments, and of a runtime that dies at once: P33, P35, P36."""

import base64, json, os, re, shutil, socket, statistics, subprocess, sys, time, uuid

import measure
from measure import Rows, Server, descendants, environments, interpreters, package, run_job, sched_cpu_us, status_kib, warm_up

from .control import jobs
from .frame import Measure, Missing, Scenario, Workplace, optional

DIES = '''
import os
def handler(event, context):
    os._exit(1)
'''


class Starts(Scenario):
    """A cold start through the host, beside the same client with the same function spawned by this script."""

    name = "cold start"
    settings = """Our Python and Node clients, a trivial handler; each round a new deployment of each, invoked once, sandbox on (`auto`); beside each the very
        command that the host ran, spawned bare with the environment that it had. 4 starts of each a round."""
    lies = """Wall is from the start to the first poll: the host's as its REPORT line says it (Init Duration), the bare one's from spawn to the request at a socket of
        this script. CPU is from the start to the poll behind the first call's answer, in nanoseconds from schedstat: that of the function's processes and of
        the host's processes together; the bare one's is its own, and this script hands it the same event. The page cache is warm. What the host did ahead
        of the call is not in it: with the first settings it keeps an empty sandbox a core, and makes the next when no start is under way (decision 0038)."""
    measures = [
        *[Measure("P33", f"{what} of a start through the host over bare, our {language} client", "<=", 1.15, 1.03,
                  (lambda l, f: lambda r: r[f"host, {l}"][f] / r[f"bare, {l}"][f])(language, figure), f"host, {language}")
          for language in ("Python", "Node") for what, figure in (("wall", "wall_ms"), ("CPU", "cpu_ms"))],
    ]
    TIMES = 4

    def begin(self):
        self.place = Workplace()
        self.server = Server(self.place.__enter__(), "[functions]\nenvironments_max = 4\n" + interpreters(), self.a.binary)
        self.commands = {}
        kinds = {"Python": package("own")}
        if shutil.which("node"):
            kinds["Node"] = package("own-node")
        else:
            print("SKIPPED, within cold start: node is not installed", file=sys.stderr)
        for language, (runtime, code) in kinds.items():
            self.server.deploy(language, runtime, code)
            self.server.functions.invoke(FunctionName=language, Payload=EVENT)
            try:
                self.commands[language] = self.command(language)
            except PermissionError:
                raise Missing("root, to see what runs in the sandbox") from None

    def command(self, language):
        """The command, environment and folder of the process that runs the function."""
        for pid in environments(self.server.pid):
            line = [part.decode() for part in measure.content(f"/proc/{pid}/cmdline").split(b"\0") if part]
            variables = dict(part.decode().split("=", 1) for part in measure.content(f"/proc/{pid}/environ").split(b"\0") if b"=" in part)
            if variables.get("AWS_LAMBDA_FUNCTION_NAME") == language:
                root = f"/proc/{pid}/root"
                here = os.path.join(self.place.path, f"bare-{pid}")
                # What it sees at paths of its own lies elsewhere for this script: copied while it lives.
                shutil.copytree(f"{root}{variables['LAMBDA_TASK_ROOT']}", f"{here}/task")
                words = []
                for word in line:
                    inside = f"{root}{word}"
                    if word.startswith("/") and not os.path.exists(word) and os.path.exists(inside):
                        shutil.copytree(os.path.dirname(inside), f"{here}/client", dirs_exist_ok=True)
                        word = f"{here}/client/{os.path.basename(word)}"
                    words.append(word)
                variables = {name: f"{here}/task" if value == variables["LAMBDA_TASK_ROOT"] else value for name, value in variables.items()}
                return words, variables, f"{here}/task"
        raise RuntimeError("no process of the function was found")

    def end(self):
        if hasattr(self, "server"):
            self.server.stop()
            self.place.__exit__()

    def round(self, number, readings):
        for language in self.commands:
            optional(readings, f"bare, {language}", lambda: middle([self.bare(language) for _ in range(self.TIMES)]))
            optional(readings, f"host, {language}", lambda: middle([self.hosted(language, f"{number}-{n}") for n in range(self.TIMES)]))

    def bare(self, language):
        words, variables, folder = self.commands[language]
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(30)
            variables = variables | {"AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{listener.getsockname()[1]}"}
            began = time.perf_counter()
            process = subprocess.Popen(words, env=variables, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                connection, _ = listener.accept()
                with connection:
                    read_until(connection, b"/invocation/next HTTP/1.1\r\n")
                    wall = (time.perf_counter() - began) * 1e3
                    deadline = int(time.time() * 1e3) + 3_000
                    connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nLambda-Runtime-Aws-Request-Id: {uuid.uuid4()}\r\nLambda-Runtime-Deadline-Ms: {deadline}\r\n"
                                       f"Lambda-Runtime-Invoked-Function-Arn: arn:aws:lambda:us-east-1:123456789012:function:f\r\nContent-Length: {len(EVENT)}\r\n\r\n".encode() + EVENT)
                    # Our clients poll again in the packet that has their answer.
                    answer = read_until(connection, b"/invocation/next HTTP/1.1\r\n")
                    assert b"/response" in answer and b'"Succeeded"' in answer, answer
                    return {"wall_ms": wall, "cpu_ms": sched_cpu_us(process.pid) / 1e3}
            finally:
                process.kill()
                process.wait()

    def hosted(self, language, name):
        server = self.server
        server.functions.update_function_configuration(FunctionName=language, Description=name)
        server.functions.get_waiter("function_updated_v2").wait(FunctionName=language)
        # The environment of the deployment before goes first, so that its end is not in the figure.
        time.sleep(0.1)
        known = {pid: sched_cpu_us(pid) for pid in [server.pid, *descendants(server.pid)]}
        answer = server.functions.invoke(FunctionName=language, LogType="Tail", Payload=EVENT)
        told = json.loads(answer["Payload"].read())
        assert told["results"][0]["resultCode"] == "Succeeded", told
        wall = float(re.search(r"Init Duration: ([\d.]+) ms", base64.b64decode(answer["LogResult"]).decode()).group(1))
        spent = sum(max(0.0, sched_cpu_us(pid) - known.get(pid, 0.0)) for pid in [server.pid, *descendants(server.pid)])
        return {"wall_ms": wall, "cpu_ms": spent / 1e3, "audited": True}


def read_until(connection, end):
    received = b""
    while end not in received:
        more = connection.recv(65_536)
        assert more, f"the client went away: {received}"
        received += more
    return received


EVENT = json.dumps({"invocationId": "i", "tasks": [{"taskId": "t", "s3Key": "k"}]}).encode()


def middle(readings):
    return {name: statistics.median(r[name] for r in readings) if name != "audited" else True for name in readings[0]}


class Ready(Scenario):
    """The server's own start."""

    name = "server start"
    settings = "First settings, a data directory that was made before; 5 starts a round."
    lies = "From exec to the line that says that it listens, as this script reads it; then one signed request has to be answered. The page cache is warm."
    measures = [
        Measure("P35", "exec to API ready", "<=", 100, 20, lambda r: r["started"]["ready_ms"], "started", "ms"),
        Measure("P35", "memory, idle", "<=", 24, 10, lambda r: r["started"]["rss_mb"], "started", "MB"),
        Measure("P35", "size of the program", "<=", 60, 30, lambda r: r["started"]["program_mb"], "started", "MB"),
    ]

    def round(self, number, readings):
        def started():
            with Workplace() as work, Server(work, "", self.a.binary) as server:
                times, sizes = [], []
                for _ in range(5):
                    server.stop()
                    syncs = server.syncs.count()
                    server.start()
                    times.append(server.ready_ms)
                    measure.Wire(server).send("GET", "/v20180820/jobs")
                    time.sleep(0.2)
                    sizes.append(status_kib(server.pid, "VmRSS") / 1024)
                return {"ready_ms": statistics.median(times), "rss_mb": statistics.median(sizes), "fsyncs": server.syncs.count() - syncs,
                        "program_mb": os.path.getsize(self.a.binary) / 1e6, "audited": True}

        optional(readings, "started", started)


class Dying(Scenario):
    """A runtime that exits on every event, beside a function that works."""

    name = "crash loop"
    settings = """Our Python client; 8 environments at most; a job of 30,000 rows of a trivial function, alone and beside a job whose function exits on every event
        (`redrive_function_errors = 0`, `failure_ratio = 1`); `concurrency_initial = concurrency_max = 4` each."""
    lies = "The dying function's starts take cores from the other job like any work would: on two cores it is that which the figure shows. Host CPU is the server process and its helper in the time of the job beside it."
    measures = [
        Measure("P36", "another job's tasks/s beside a crash loop, over alone", ">=", 0.9, 0.98, lambda r: r["beside"]["tasks_per_s"] / r["alone"]["tasks_per_s"], "beside"),
        Measure("P36", "starts a second of the function that dies", "<=", None, None, lambda r: r["beside"]["starts_per_s"], "beside", "/s"),
        Measure("P36", "CPU of the server process beside a crash loop, over alone", "<=", None, None, lambda r: r["beside"]["own_us"] / r["alone"]["own_us"], "beside"),
    ]

    def round(self, number, readings):
        optional(readings, "alone", lambda: self.ran(False))
        optional(readings, "beside", lambda: self.ran(True))

    def ran(self, beside):
        rows, doomed = Rows(self.rows(30_000, 10_000)), Rows(20_000)
        settings = jobs(concurrency_initial=4, concurrency_max=4, failure_ratio=1.0) + "[functions]\nenvironments_max = 8\n" + interpreters()
        with Workplace() as work, Server(work, settings, self.a.binary) as server:
            server.deploy("good", *package("own"))
            server.deploy("bad", *package("own", DIES))
            warm_up(server, "good", 4)
            bad = None
            if beside:
                bad = measure.create_job(server, "bad", "bad.csv", doomed.put(server, "bad.csv"))
                deadline = time.monotonic() + 30
                while failed(server, bad) < 5:
                    assert time.monotonic() < deadline, "the dying function was not called"
                    time.sleep(0.02)
            before, began = bad and failed(server, bad), time.monotonic()
            got = run_job(server, "good", "m.csv", rows.put(server, "m.csv"), rows)
            if beside:
                got["starts_per_s"] = (failed(server, bad) - before) / (time.monotonic() - began)
                measure.order(server, bad, "Cancelled")
            return got


def failed(server, job):
    return measure.describe(server, job)["ProgressSummary"]["NumberOfTasksFailed"]
