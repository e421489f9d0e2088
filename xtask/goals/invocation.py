"""What an invocation costs: P1 to P8 and P11, beside the floors and the scripts that people write instead."""

import os, shutil, sys

from measure import Rows, Server, interpreters, package, run_job, warm_up

from . import programs
from .frame import Measure, Missing, Scenario, Workplace, optional, output

# What engine_floor itself does for a row besides the exchange: the sum of the pieces, measured apart.
FLOOR_ROW_US = 1.2


def ratio(one, other, figure):
    return lambda r: r[one][figure] / r[other][figure]


def best(r, names, figure):
    return max(r[name][figure] for name in names if "error" not in r[name])


class Remote(Scenario):
    """Functions elsewhere, called over HTTP."""

    name = "remote Invoke"
    settings = """100,000 rows (curl and aiohttp 20,000, boto3 2,000); `concurrency_initial = concurrency_max` = 16 or 64, so that no
        ramp-up is in the window; other settings as they come; a fresh server and data directory a run; one stub for all."""
    lies = """Ours is the whole job: checking the manifest, results durable, the report written (the floor: all but the check). Its wall
        time is the job's own CreationTime to TerminationDate, its CPU the server process alone; the peers' include their start. The
        floor's own CPU is exact to 10 ms. P11 has two upper bounds: the user time of /proc, which the kernel splits from the whole by its
        ticks, and own CPU less the floor's plus the floor's 1.2 µs of row work, where our wake-ups in the kernel count as engine. curl and aiohttp do not sign; ours does in P2 to P4."""
    measures = [
        Measure("P1", "own CPU a task over the floor's, 16 in flight, unsigned", "<=", 1.6, 1.25, ratio("ours, unsigned", "floor 16", "own_us"), "ours, unsigned"),
        Measure("P1", "the same, signed", "<=", 1.8, 1.4, ratio("ours, signed", "floor 16", "own_us"), "ours, signed"),
        Measure("P2", "tasks/s over the floor's, 16 in flight, unsigned", ">=", 0.65, 0.85, ratio("ours, unsigned", "floor 16", "tasks_per_s"), "ours, unsigned"),
        Measure("P2", "the same, signed", ">=", 0.65, 0.85, ratio("ours, signed", "floor 16", "tasks_per_s"), "ours, signed"),
        Measure("P2", "the same, 64 in flight, signed", ">=", 0.65, 0.85, ratio("ours 64", "floor 64", "tasks_per_s"), "ours 64"),
        Measure("P3", "tasks/s over `curl --parallel` 16", ">=", 3, 4.3, ratio("ours, signed", "curl", "tasks_per_s"), "ours, signed"),
        Measure("P3", "the floor's tasks/s over `curl --parallel` 16", ">=", None, None, ratio("floor 16", "curl", "tasks_per_s"), "curl"),
        Measure("P3", "CPU a task, stub included, over `curl --parallel` 16", "<=", 0.60, 0.45, ratio("ours, signed", "curl", "all_us"), "ours, signed"),
        Measure("P4", "tasks/s over boto3, 16 threads", ">=", 45, 70, ratio("ours, signed", "boto3", "tasks_per_s"), "ours, signed"),
        Measure("P4", "tasks/s over aiohttp, the better of 1 and 2 processes", ">=", 8, 10,
                lambda r: r["ours, signed"]["tasks_per_s"] / best(r, ["aiohttp 1", "aiohttp 2"], "tasks_per_s"), "ours, signed"),
        Measure("P4", "the floor's tasks/s over aiohttp, the better of 1 and 2 processes", ">=", None, None,
                lambda r: r["floor 16"]["tasks_per_s"] / best(r, ["aiohttp 1", "aiohttp 2"], "tasks_per_s"), "aiohttp 1"),
        Measure("P11", "user-space CPU a task", "<=", 10, 4, lambda r: r["ours, unsigned"]["user_us"], "ours, unsigned", "µs"),
        Measure("P11", "CPU a task beyond the bare exchange, kernel included", "<=", 10, 4,
                lambda r: r["ours, unsigned"]["own_us"] - r["floor 16"]["own_us"] + FLOOR_ROW_US, "ours, unsigned", "µs"),
    ]

    def begin(self):
        self.floor = programs.floor_program(self.a, "engine_floor")
        self.python = None
        if self.wants("P4"):
            self.python = programs.python_of("peers", programs.PEERS)
        if self.wants("P3") and shutil.which("curl") is None:
            raise Missing("curl")
        self.stub = programs.BenchStub(self.a)

    def end(self):
        if hasattr(self, "stub"):
            self.stub.stop()

    def round(self, number, readings):
        with Workplace() as work:
            if self.wants("P1", "P2", "P3", "P4", "P11"):
                optional(readings, "floor 16", lambda: self.bare(work, 16))
            if self.wants("P1", "P2", "P11"):
                optional(readings, "ours, unsigned", lambda: self.ours(16, signed=False))
            optional(readings, "ours, signed", lambda: self.ours(16))
            if self.wants("P2"):
                optional(readings, "floor 64", lambda: self.bare(work, 64))
                optional(readings, "ours 64", lambda: self.ours(64))
            if self.wants("P3"):
                optional(readings, "curl", lambda: self.curl(work))
            if self.wants("P4"):
                optional(readings, "boto3", lambda: self.boto3(work))
                for processes in (1, 2):
                    optional(readings, f"aiohttp {processes}", lambda: self.aiohttp(work, processes))

    def bare(self, work, connections):
        rows = Rows(self.rows(100_000))
        command = [self.floor, "invoke", rows.file(os.path.join(work, "m.csv")), os.path.join(work, "r.csv"), self.stub.url[7:], str(connections)]
        return programs.floor(programs.last_json(output(command)), rows.count)

    def ours(self, in_flight, signed=True):
        rows = Rows(self.rows(100_000))
        settings = f"[jobs]\nconcurrency_max = {in_flight}\nconcurrency_initial = {in_flight}\n" + programs.endpoint(self.stub.url, signed)
        with Workplace() as work, Server(work, settings, self.a.binary, programs.SIGNING) as server:
            etag = rows.put(server, "m.csv")
            self.stub.get("/_reset")
            stub = self.stub.cpu_us()
            got = run_job(server, "f", "m.csv", etag, rows, profile=f"remote-{in_flight}{'-signed' * signed}")
            seen = self.stub.get("/_stats")
            assert seen["unique"] == rows.count and seen["repeats"] == 0, seen
            assert seen["peak_inflight"] <= in_flight, seen
            return got | {"all_us": got["own_us"] + (self.stub.cpu_us() - stub) / rows.count, "peak": seen["peak_inflight"]}

    def curl(self, work):
        rows, report = Rows(self.rows(20_000)), os.path.join(work, "r.txt")
        command = ["sh", programs.script(self.a, "peer_curl_keepalive.sh"), rows.file(os.path.join(work, "m.csv")), report, self.stub.url, "16"]
        verify = lambda _: programs.content(report).count(b'"Succeeded"')
        return programs.peer(command, rows.count, self.stub, verify)

    def boto3(self, work):
        rows, report = Rows(self.rows(2_000)), os.path.join(work, "b.csv")
        command = [self.python, programs.script(self.a, "peer_boto3.py"), rows.file(os.path.join(work, "m.csv")), report, "--endpoint", self.stub.url]
        return programs.peer(command, rows.count, self.stub, lambda _: programs.lines_of(report))

    def aiohttp(self, work, processes):
        rows, report = Rows(self.rows(20_000)), os.path.join(work, "a.csv")
        command = [self.python, programs.script(self.a, "peer_asyncio.py"), rows.file(os.path.join(work, "m.csv")), report, "--endpoint",
                   self.stub.url, "--processes", str(processes)]
        reports = [report] if processes == 1 else [f"{report}.{n}" for n in range(processes)]
        return programs.peer(command, rows.count, self.stub, lambda _: programs.lines_of(*reports))


class Hosted(Scenario):
    """Functions of the embedded host."""

    name = "embedded host"
    settings = """Bare client 40,000 rows, ours and AWS's 20,000; `environments_max`, `concurrency_initial` and `concurrency_max` = the number
        given, 4 where none is; sandbox on (`auto`: every layer of this machine); other settings as they come; a fresh server a run."""
    lies = """Jobs before it start all environments, which are counted, and call them 3,000 times, so that neither cold starts nor the ramp-up are in the window.
        Own CPU is the server process; starts are the helper's. The ceiling is measured for 2 s after its clients are warm, with
        endless events, without manifest, report or syncs; ours is the whole job. A client that is slow hides the host:
        that is why P5 has the bare one."""
    CLIENTS = (1, 4, 16)
    measures = [
        *[Measure("P5", f"own CPU an invocation over the floor's, bare client, {n} environment{'s' * (n > 1)}", "<=", 1.6, 1.15, ratio(f"ours, bare {n}", f"floor, bare {n}", "own_us"), f"ours, bare {n}") for n in CLIENTS],
        *[Measure("P6", f"invocations/s over the ceiling's, bare client, {n} environments", ">=", 0.60, 0.80, ratio(f"ours, bare {n}", f"ceiling, bare {n}", "tasks_per_s"), f"ours, bare {n}") for n in CLIENTS[1:]],
        *[Measure("P6", f"the same, awslambdaric, {n} environments", ">=", 0.90, 0.97, ratio(f"ours, awslambdaric {n}", f"ceiling, awslambdaric {n}", "tasks_per_s"), f"ours, awslambdaric {n}") for n in (4, 16)],
        Measure("P6", "the same, AWS's client for Node, 4 environments", ">=", 0.90, 0.97, ratio("ours, node-ric 4", "ceiling, node-ric 4", "tasks_per_s"), "ours, node-ric 4"),
        Measure("P7", "CPU an invocation, both processes, our Python client over awslambdaric", "<=", 0.55, 0.40, ratio("ours, own 4", "ours, awslambdaric 4", "both_us"), "ours, own 4"),
        Measure("P7", "the same for Node", "<=", 0.55, 0.40, ratio("ours, own-node 4", "ours, node-ric 4", "both_us"), "ours, own-node 4"),
    ]

    def begin(self):
        self.floor = programs.floor_program(self.a, "engine_floor")
        self.ceiling = programs.floor_program(self.a, "runtime_api_ceiling")
        self.node = None
        if self.wants("P6", "P7"):
            try:
                self.node = programs.node_client()
            except Missing as missing:
                print(f"SKIPPED, within {self.name}: Node: {missing}", file=sys.stderr)

    def round(self, number, readings):
        for n in self.CLIENTS:
            if self.wants("P5"):
                optional(readings, f"floor, bare {n}", lambda: self.bare(n))
            if self.wants("P6") and n > 1:
                optional(readings, f"ceiling, bare {n}", lambda: self.most("bare", n))
            if self.wants("P5", "P6"):
                optional(readings, f"ours, bare {n}", lambda: self.ours("bare", n, 40_000))
        for n in (4, 16):
            if self.wants("P6"):
                optional(readings, f"ceiling, awslambdaric {n}", lambda: self.most("awslambdaric", n))
            if self.wants("P6") or (self.wants("P7") and n == 4):
                optional(readings, f"ours, awslambdaric {n}", lambda: self.ours("awslambdaric", n))
        if self.wants("P7"):
            optional(readings, "ours, own 4", lambda: self.ours("own", 4))
        if self.node:
            if self.wants("P6"):
                optional(readings, "ceiling, node-ric 4", lambda: self.most("node-ric", 4))
            optional(readings, "ours, node-ric 4", lambda: self.ours("node-ric", 4))
            optional(readings, "ours, own-node 4", lambda: self.ours("own-node", 4))

    def command(self, client):
        return {"bare": [self.ceiling, "client"], "awslambdaric": [sys.executable, "-m", "awslambdaric", "handler.handler"],
                "node-ric": ["node", self.node, "handler.handler"]}[client]

    def environment(self):
        return dict(os.environ, LAMBDA_TASK_ROOT=os.path.join(self.a.bench, "fn"))

    def bare(self, n):
        rows = Rows(self.rows(40_000))
        with Workplace() as work:
            command = [self.floor, "host", rows.file(os.path.join(work, "m.csv")), os.path.join(work, "r.csv"), str(n), "--", *self.command("bare")]
            return programs.floor(programs.last_json(output(command, env=self.environment())), rows.count)

    def most(self, client, n):
        told = programs.last_json(output([self.ceiling, "host", str(n), "2", "--", *self.command(client)], env=self.environment()))
        return {"tasks_per_s": told["inv_per_s"], "own_us": told["host_cpu_us"], "functions_us": told["client_cpu_us"]}

    def ours(self, client, n, count=20_000):
        rows = Rows(self.rows(count))
        # The bare client answers whatever it is sent, and at once: enough of it that every environment is wanted. The others
        # are made to start by slow calls, and get as many quick ones, after which Node's compiler has done its work.
        quick = Rows(3_000)
        settings = f"[jobs]\nconcurrency_initial = {n}\nconcurrency_max = {n}\n[functions]\nenvironments_max = {n}\n{interpreters()}"
        with Workplace() as work, Server(work, settings, self.a.binary) as server:
            server.deploy("f", *package(client))
            warm_up(server, "f", n, quick if client == "bare" else None)
            if client != "bare":
                run_job(server, "f", "quick.csv", quick.put(server, "quick.csv"), quick)
            got = run_job(server, "f", "m.csv", rows.put(server, "m.csv"), rows, profile=f"hosted-{client}-{n}")
            return got | {"both_us": got["own_us"] + got["functions_us"]}


class Emulator(Scenario):
    """The container-free AWS emulator from PyPI."""

    name = "ministack"
    settings = """500 rows through the emulator's Distributed Map and its Invoke, 8 at once; ours 20,000 rows, awslambdaric, 4 environments."""
    lies = """The emulator's figures begin when its function has been called once, but the start of its workers is in them, which few rows hold
        against it: 2,500 rows cost it 3.3 ms an item where 500 cost 4 to 6, and 109 items/s where 500 have 75. So the gates hold with
        room or not at all. Ours includes the checking of the manifest and the report."""
    measures = [
        Measure("P8", "tasks/s over ministack's Distributed Map, awslambdaric", ">=", 25, 45, ratio("ours", "map", "tasks_per_s"), "ours"),
        Measure("P8", "tasks/s over ministack's Invoke", ">=", 25, 45, ratio("ours", "invoke", "tasks_per_s"), "ours"),
        Measure("P8", "CPU a task over ministack's Distributed Map", "<=", 0.15, 0.10, lambda r: r["ours"]["both_us"] / r["map"]["own_us"], "ours"),
    ]

    def begin(self):
        self.script = programs.script(self.a, "peer_ministack.py")
        self.python = programs.python_of("ministack", ("ministack", "boto3", "aiohttp"))

    def round(self, number, readings):
        host = Hosted(self.a, self.goals)
        optional(readings, "ours", lambda: host.ours("awslambdaric", 4))
        for mode in ("map", "invoke"):
            optional(readings, mode, lambda: self.emulator(mode))

    def emulator(self, mode):
        rows = Rows(500)
        with Workplace() as work:
            command = [self.python, self.script, rows.file(os.path.join(work, "m.csv")), str(rows.count), "--mode", mode, "--concurrency", "8",
                       "--port", str(programs.free_port()), "--bin", os.path.join(os.path.dirname(self.python), "ministack")]
            told = programs.last_json(output(command, cwd=work))
        assert told["status"] == "SUCCEEDED", told
        return {"tasks": rows.count, "tasks_per_s": told["items_per_s"], "own_us": told["server_cpu_us_per_item"]}
