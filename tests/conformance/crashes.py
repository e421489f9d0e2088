"""Crashes real servers where and when a lane wants, and has `audit` judge what is left: shared by the tests and `qa/long`.

A `Stage` is one server on one data directory with a long job on it, so that invocations are in flight whenever it is killed, and
with others that use all the rest of the state: small jobs of every kind, objects, functions, events. What was acknowledged is
remembered, and looked for afterwards (D1 to D3).
"""

import collections
import contextlib
import hashlib
import json
import os
import pathlib
import select
import signal
import subprocess
import threading
import time
import uuid

import botocore.exceptions

import audit
import harness

# Rows of the long job, invocations at once, and how long one takes: on two cores some 250 rows a second, so that a job
# outlives several kills and spends most of its time waiting.
ROWS, SLOTS, PAUSE_MS = 2000, 8, "15,40"
# Answers that may have been received and not be durable yet.
W = 32
SMALL = 24
# How a client sees that the server has gone. An assertion is never that.
GONE = (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, OSError)
# The passes at which a failpoint kills: the first, one in the middle, and one near the last of what a cycle brings.
COUNTS = {"": (1, 2, 3), "results.checkpoint": (1,), "results.append": (1, 60, 240), "results.sync": (1, 60, 240), "records.commit": (1, 12, 40), "event": (1, 5, 12),
          "environment": (1, 3, SLOTS + 1)}


def failpoints():
    """The names of all failpoints, as the server under test prints them."""
    return harness.run([harness.LONGSHORE, "failpoints"], dict(os.environ)).stdout.split()


class Died(Exception):
    """The server ended before it served, by the kill that it was set to."""


class Stage:
    """A server that is crashed again and again. `strict`: a slot is free only when its result is durable (X4 with W = 0); without it W is so
    small that a kill that lost more is seen."""

    def __init__(self, folder, dice, strict=True, rows=ROWS, data_dir=None, sinks=True, environment=None, spawn=None):
        self.folder, self.dice, self.rows_of_long = pathlib.Path(folder), dice, rows
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "longshore.toml"
        config.write_text('[[events]]\nname = "log"\nkind = "file"\npath = "events.jsonl"\n' if sinks else "")
        self.settings = harness.UNCONFINED | {
            "LONGSHORE_CONFIG": str(config),
            "LONGSHORE_JOBS_STRICT": "true" if strict else "false",
            "LONGSHORE_JOBS_UNRECORDED_MAX": str(W),
            "LONGSHORE_JOBS_CONCURRENCY_MAX": str(SLOTS),
            # Two at once, so that a third of higher priority makes one pause; a failure threshold that a small job reaches.
            "LONGSHORE_JOBS_ACTIVE_MAX": "2",
            "LONGSHORE_JOBS_FAILURE_TASKS_MIN": "10",
            "LONGSHORE_JOBS_RETAINED_MAX": "8",
            # None of what a lane does in a second may be refused for its number.
            "LONGSHORE_JOBS_REQUESTS_LIMIT_LOOPBACK": "false",
        } | (environment or {})
        self.server = harness.Server(self.folder / "server", self.settings)
        if data_dir:
            self.server.data_dir = data_dir
        if spawn:
            self.server.spawn = spawn
        self.log = audit.Invocations(self.folder / "invocations")
        self.watch = audit.Watch()
        self.limits = audit.Limits(at_once=SLOTS, slots=SLOTS, unrecorded=0 if strict else W)
        self.function = None
        self.long = None
        self.rows = {}
        # What was acknowledged: bodies by key, jobs by token, events by name, functions by name.
        self.bodies, self.tokens, self.events, self.names = {}, {}, set(), set()
        # What was asked for and not acknowledged: it may be there, or not.
        self.asked = collections.defaultdict(set)
        self.numbers = iter(range(1 << 30))
        self.counted = collections.Counter()

    # --- life and death ---

    def start(self, failpoint=None, passed=None):
        """Starts the server. `Died` if a failpoint ended it before it served."""
        extra = {}
        if failpoint:
            extra["LONGSHORE_TEST_FAILPOINT"] = failpoint
        if passed:
            extra["LONGSHORE_TEST_FAILPOINTS_PASSED"] = str(passed)
        self.server.extra_environment = self.settings | extra
        self.dead_ns = None
        try:
            self.server.start()
            threading.Thread(target=self.stamp, args=(self.server.process.pid,), daemon=True).start()
        except (AssertionError, harness.Refused, OSError):
            # `longshore env` may have found the server just gone, too.
            if self.server.process is not None and self.died(5):
                raise Died(failpoint) from None
            raise
        return self

    def prepare(self):
        """The first time: bucket and function."""
        self.server.bucket("stage")
        self.function = self.server.deploy(
            "record", {"handler.py": audit.RECORDER}, environment={"INVOCATIONS": str(self.log.path), "PAUSE_MS": PAUSE_MS})
        self.names.add("record")
        return self

    def stamp(self, pid):
        """Waits for the end of the server and takes the time: whoever asks for it later, by a request, learns it later."""
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(pid)
            select.select([descriptor], [], [])
            os.close(descriptor)
        self.dead_ns = time.monotonic_ns()

    def died(self, patience=0):
        """Whether the server was killed, waiting for it for so long."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.server.process.wait(patience)
        code = self.server.process.poll()
        assert code in (None, -signal.SIGKILL), f"the server ended with {code}:\n{self.server.said()[-3000:]}"
        return code is not None

    def kill(self):
        self.server.kill()

    def wait(self, what, condition, timeout=60):
        """As `harness.wait_for`, for what only a server that lives can bring about."""
        def look():
            if self.server.process.poll() is not None:
                raise ConnectionError("the server has gone")
            return condition()

        return harness.wait_for(what, look, timeout)

    def cut_off(self):
        """Notes that the server is dead. Returns how many invocations were in flight."""
        in_flight = self.log.killed(time.monotonic_ns(), self.dead_ns)
        self.dead_ns = None
        self.counted["kills"] += 1
        self.counted["kills_in_flight"] += in_flight > 0
        return in_flight

    # --- jobs ---

    def job(self, keys, **options):
        """Creates a job over these keys and remembers it, if that was acknowledged."""
        # Those that are over are audited first: with too many behind them they would be removed.
        self.finish_others(left=len(self.rows))
        text = "".join(f"stage,{key}\n" for key in keys)
        name = f"manifests/{next(self.numbers)}.csv"
        etag = self.server.put_manifest("stage", text, key=name)
        token = str(uuid.uuid4())
        options = {"key": name, "ClientRequestToken": token} | options
        job = self.server.create_job("stage", self.function, etag, **options)
        self.rows[job] = [("stage", key) for key in keys]
        self.tokens[token] = (job, etag, options)
        return job

    def keep_busy(self):
        """Sees to it that the long job runs and will for a while, and that something is in flight."""
        self.let_go_of_the_long_one()
        self.finish_others(left=4)
        # While others were waited for it may have come to its end.
        self.let_go_of_the_long_one()
        if self.long is None:
            # One key stands in two rows, and some tasks fail for a time.
            keys = [f"row-{number:05}" for number in range(self.rows_of_long - 40)]
            keys += [f"again-{number}" for number in range(20)] + [f"twice-{number // 2}" for number in range(20)]
            self.long = self.job(keys, Priority=1)
        self.wait("an invocation of the long job", lambda: self.log.in_flight(self.long) > 0, 60)

    def let_go_of_the_long_one(self):
        """Of a job that is over, or soon will be: it goes on beside the next one."""
        if self.long:
            described = self.look(self.long)
            progress = described["ProgressSummary"]
            done = progress["NumberOfTasksSucceeded"] + progress["NumberOfTasksFailed"]
            if described["Status"] in audit.TERMINAL or done > self.rows_of_long * 0.8:
                self.long = None

    def kill_helper(self):
        """Kills the process that forks environments, and all of them with it. Returns how many invocations were in flight."""
        (helper,) = [pid for pid in children(self.server.process.pid) if "__launch" in harness.content_of(pathlib.Path(f"/proc/{pid}/cmdline"))]
        os.kill(helper, signal.SIGKILL)
        harness.wait_for("the helper's end", lambda: not harness.alive(helper), 10)
        environments = {one.pid for one in self.log.read().values()}
        harness.wait_for("the environments' end", lambda: not any(self.mine(pid) for pid in environments), 10)
        # Not a kill of the server: what it cut is tried again at once, and what had been answered is done.
        cut = [one for one in self.log.read().values() if self.log.end_of(one) is None]
        for one in cut:
            self.log.cut(one.pid, time.monotonic_ns())
        self.counted["helpers_killed"] += 1
        return len(cut)

    def kill_environment(self):
        """Kills an environment in the middle of an invocation. Returns how many were cut off: one, or none if it was too late."""
        open_ = [one for one in self.log.of(self.long) if one.ended is None and self.log.end_of(one) is None]
        if not open_:
            return 0
        one = self.dice.choice(open_)
        with contextlib.suppress(ProcessLookupError):
            os.kill(one.pid, signal.SIGKILL)
        harness.wait_for("the environment's end", lambda: not harness.alive(one.pid), 10)
        self.log.read()
        self.log.cut(one.pid, time.monotonic_ns())
        self.counted["environments_killed"] += 1
        return int(one.ended is None)

    def mine(self, pid):
        """Whether this is still the process of a function that keeps our log."""
        return harness.alive(pid) and str(self.log.path) in harness.content_of(pathlib.Path(f"/proc/{pid}/environ"))

    def look(self, job):
        return self.watch.look(self.server.describe(job))

    def finish(self, job, timeout=120):
        """Waits for the end of a job, and audits it. Whatever was done to the server meanwhile, it ends as it should."""
        deadline = time.monotonic() + timeout
        while (described := self.look(job))["Status"] not in audit.TERMINAL:
            assert time.monotonic() < deadline, f"X3: the job is {described['Status']}, {timeout} s after the faults have stopped"
            if described["Status"] == "Suspended":
                self.server.control.update_job_status(AccountId=harness.ACCOUNT, JobId=job, RequestedJobStatus="Ready")
            time.sleep(0.05)
        status = described["Status"]
        cancelled = status == "Cancelled"
        assert cancelled or status == ("Failed" if self.fails(job) else "Complete"), described
        rows = audit.audit(self.server, job, self.rows[job], status=status, log=self.log, limits=self.limits)
        # Only now: a kill may have come in between.
        self.rows.pop(job, None)
        self.tokens = {token: kept for token, kept in self.tokens.items() if kept[0] != job}
        self.counted["jobs"] += 1
        self.counted["rows"] += len(rows)
        return rows

    def end(self, what, job):
        """Waits for the end of one of several jobs and audits it, unless that was done when another was created."""
        if job in self.rows:
            self.wait(f"the end of {what}", lambda: self.look(job)["Status"] in audit.TERMINAL, 60)
            self.finish(job)

    def finish_others(self, left=0):
        """Audits the jobs that are over, and waits for others until so many are left, the long one apart."""
        others = [job for job in self.rows if job != self.long]
        for number, job in enumerate(others):
            if len(others) - number > left or self.look(job)["Status"] in audit.TERMINAL:
                self.finish(job)

    def fails(self, job):
        return all("fail" in key for _, key in self.rows[job])

    def finish_all(self):
        """Waits for everything that goes on, and looks for everything that was acknowledged."""
        for job in list(self.rows):
            self.finish(job)
        self.long = None
        self.check()
        self.wait("the events that were accepted", lambda: self.events <= set(self.log.events()), 60)

    # --- what else uses the state; each may be cut off anywhere ---

    def small_job(self, word="small", **options):
        number = next(self.numbers)
        job = self.job([f"{word}-{number}-{row}" for row in range(SMALL)], Priority=5, **options)
        self.wait("the end of a small job", lambda: self.look(job)["Status"] in audit.TERMINAL, 60)
        self.finish(job)

    def bulky_job(self):
        """So many bytes of results that a checkpoint of them is made: 4 MiB."""
        number = next(self.numbers)
        job = self.job([f"bulky-{number}-{row:04}" for row in range(4_700)], Priority=5)
        self.wait("the end of a bulky job", lambda: self.look(job)["Status"] in audit.TERMINAL, 120)
        self.finish(job)

    def failing_job(self):
        self.small_job("fail")

    def confirmed_job(self):
        number = next(self.numbers)
        job = self.job([f"confirmed-{number}-{row}" for row in range(SMALL)], Priority=5, confirmation=True)
        self.wait("Suspended", lambda: self.look(job)["Status"] == "Suspended", 60)
        assert not self.log.of(job), "X9: a job that waits for its confirmation invokes nothing"
        self.server.control.update_job_status(AccountId=harness.ACCOUNT, JobId=job, RequestedJobStatus="Ready")
        self.wait("the end of a small job", lambda: self.look(job)["Status"] in audit.TERMINAL, 60)
        self.finish(job)

    def cancelled_job(self):
        number = next(self.numbers)
        job = self.job([f"cancelled-{number}-{row}" for row in range(10 * SMALL)], Priority=5)
        self.wait("an invocation of the job that is cancelled", lambda: self.log.in_flight(job) > 0, 60)
        self.server.control.update_job_status(AccountId=harness.ACCOUNT, JobId=job, RequestedJobStatus="Cancelled")
        answered = time.monotonic_ns()
        self.wait("Cancelled", lambda: self.look(job)["Status"] in audit.TERMINAL, 60)
        late = [one for one in self.log.of(job) if one.begun() > answered]
        told = [(one.begun() - answered, one.started - answered) for one in late]
        assert not late, f"X8: invocations were started after the cancel was answered, by so many ns (handed out, noted): {told}"
        self.finish(job)

    def pausing_jobs(self):
        """Two jobs of higher priority than the long one: it gives up its place, and gets it back."""
        jobs = []
        for _ in range(2):
            number = next(self.numbers)
            jobs.append(self.job([f"urgent-{number}-{row}" for row in range(2 * SMALL)], Priority=100))
        for job in jobs:
            self.end("an urgent job", job)

    def many_jobs(self):
        """So many that the first are removed: more than are retained."""
        # Nothing is removed that is not audited yet.
        self.finish_others()
        for _ in range(3):
            jobs = [self.job([f"brief-{next(self.numbers)}"], Priority=5) for _ in range(4)]
            for job in jobs:
                self.end("a brief job", job)
            if self.long in self.rows and self.look(self.long)["Status"] in audit.TERMINAL:
                self.finish(self.long)
                self.long = None

    def put(self, key=None, size=50_000):
        key = key or f"kept-{next(self.numbers)}"
        body = self.dice.randbytes(size)
        self.asked[key].add(hashlib.sha256(body).hexdigest())
        self.server.s3.put_object(Bucket="stage", Key=key, Body=body)
        # The last that was acknowledged, or anything that was asked for since.
        self.bodies[key] = hashlib.sha256(body).hexdigest()
        self.asked[key] = {self.bodies[key]}

    def overwrite(self):
        for _ in range(3):
            self.put("overwritten")

    def commits(self):
        """Small bodies lie in the database: 4 MiB of them make it checkpoint."""
        for _ in range(350):
            self.put(f"small-{next(self.numbers) % 20}", 16_000)

    def small_puts(self):
        for _ in range(12):
            self.put(f"small-{next(self.numbers) % 20}", 1_000)

    def deploy(self):
        name = f"function-{next(self.numbers)}"
        self.asked[name].add("function")
        self.server.functions.create_function(
            FunctionName=name, Runtime="python3.11", Handler="handler.handler", Role=harness.ROLE,
            Code={"ZipFile": harness.zip_of({"handler.py": f"def handler(event, context): return '{name}'\n", "data/more": name})})
        self.names.add(name)

    def event(self):
        name = f"event-{next(self.numbers)}"
        answer = self.server.functions.invoke(
            FunctionName="record", InvocationType="Event", Payload=json.dumps({"event": name}))
        assert answer["StatusCode"] == 202
        self.events.add(name)
        self.wait("the event", lambda: self.log.events()[name] > 0, 30)
        # Its end is noted a moment later, which nobody is told of.
        time.sleep(0.1)

    def new_environment(self):
        self.deploy()
        name = max(self.names - {"record"}, key=lambda name: int(name.rsplit("-", 1)[1]))
        self.server.functions.get_waiter("function_active_v2").wait(FunctionName=name)
        assert self.server.functions.invoke(FunctionName=name)["Payload"].read() == json.dumps(name).encode()

    def check(self):
        """Everything that was acknowledged is there (D1 to D3)."""
        for key, digest in self.bodies.items():
            found = hashlib.sha256(self.server.s3.get_object(Bucket="stage", Key=key)["Body"].read()).hexdigest()
            assert found in self.asked[key], f"D3: {key} is neither what was acknowledged nor what was asked for"
            self.bodies[key], self.asked[key] = found, {found}
        there = set()
        for page in self.server.functions.get_paginator("list_functions").paginate():
            there |= {function["FunctionName"] for function in page["Functions"]}
        assert self.names <= there, f"D3: functions are gone: {self.names - there}"
        for token, (job, etag, options) in list(self.tokens.items()):
            again = self.server.create_job("stage", self.function, etag, **options)
            assert again == job, f"D1: the token of job {job} has made another one, {again}"
        self.counted["checks"] += 1


# What brings a server to each failpoint. Those that are not here are passed by the long job itself.
WAYS = {
    "records.commit": Stage.small_puts,
    "records.checkpoint": Stage.commits,
    "results.open": Stage.small_job,
    "results.roll": Stage.small_job,
    "results.checkpoint": Stage.bulky_job,
    "job.create": Stage.small_job,
    "job.preparing": Stage.small_job,
    "job.suspended": Stage.confirmed_job,
    "job.ready": Stage.confirmed_job,
    "job.active": Stage.small_job,
    "job.pausing": Stage.pausing_jobs,
    "job.paused": Stage.pausing_jobs,
    "job.completing": Stage.small_job,
    "job.complete": Stage.small_job,
    "job.cancel": Stage.cancelled_job,
    "job.cancelling": Stage.cancelled_job,
    "job.cancelled": Stage.cancelled_job,
    "job.failing": Stage.failing_job,
    "job.failed": Stage.failing_job,
    "job.remove": Stage.many_jobs,
    "job.clean": Stage.small_job,
    "manifest": Stage.small_job,
    "report": Stage.small_job,
    "event": Stage.small_job,
    "body": Stage.put,
    "body.remove": Stage.overwrite,
    "object": Stage.put,
    "code": Stage.deploy,
    "queue": Stage.event,
    "environment": Stage.new_environment,
}
# Passed while a server starts: nothing is in flight then, and a kill there is the second of a double one.
STARTING = ("file.", "key.", "server.", "results.open.")


def of_name(table, failpoint):
    """What a table has for a failpoint: under its name, or the longest beginning of it."""
    parts = failpoint.split(".")
    names = (".".join(parts[:n]) for n in range(len(parts), -1, -1))
    return next((table[name] for name in names if name in table), None)


def cycle(stage, failpoint, count, dice):
    """One kill of a server that has invocations in flight: at the count-th pass of the failpoint, or at a random time (`None`).

    The server is up again afterwards. Returns whether the kill was one that counts, and where it was.
    """
    if failpoint is not None:
        with contextlib.suppress(Died):
            stage.start(f"{failpoint}:{count}")
    else:
        stage.start()
    where, wrong = failpoint or "random", []
    try:
        stage.keep_busy()
        way = failpoint and of_name(WAYS, failpoint)
        if failpoint is None:
            until = time.monotonic() + dice.uniform(0, 0.4)
            beside = [threading.Thread(target=quietly, args=(way, stage, wrong), daemon=True)
                      for way in dice.sample([Stage.put, Stage.small_job, Stage.deploy, Stage.event, Stage.cancelled_job], 2)]
            for thread in beside:
                thread.start()
            time.sleep(max(0, until - time.monotonic()))
            stage.kill()
            for thread in beside:
                thread.join(60)
        else:
            for _ in range(4):
                if way and not stage.died():
                    way(stage)
                if stage.died(0.3 if way else 4):
                    break
    except GONE:
        # What was under way has failed with the server; what else fails is a failure.
        if not stage.died(3):
            raise
    died = stage.died()
    if not died:
        where = "random"
        stage.kill()
    in_flight = stage.cut_off()
    if wrong:
        raise wrong[0]
    stage.counted["kills_at_failpoints"] += died and in_flight > 0 and failpoint is not None
    return in_flight > 0, where if died or failpoint is None else f"not reached: {failpoint}:{count}"


def double(stage, dice):
    """A kill while the server recovers from the one before. Returns whether it was killed there."""
    failpoint = dice.choice([name for name in failpoints() if name.startswith(STARTING)])
    try:
        stage.start(failpoint)
    except Died:
        stage.counted["kills_in_recovery"] += 1
        return True
    if stage.died(2):
        stage.counted["kills_in_recovery"] += 1
        stage.cut_off()
        return True
    stage.kill()
    stage.cut_off()
    return False


def children(pid):
    """The processes that a process has started, on any of its threads."""
    found = []
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found


def quietly(way, stage, wrong):
    try:
        way(stage)
    except GONE:
        pass
    except AssertionError as violation:
        wrong.append(violation)
