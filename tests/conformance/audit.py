"""The one oracle for jobs: what a job did, judged by what can be seen from outside.

`audit` takes a job that is over: it downloads the completion report with boto3, reads it with Python's csv module, an
implementation that shares nothing with the server, and compares it with the manifest, the counters, the MD5s and, where the
function kept one, with the log of its invocations. `Watch` takes what was shown while jobs ran. `Invocations` is that log.

It stands on boto3 alone, so that every lane can use it: the conformance tests, `qa/long`, and the measurements. The laws have
the names of the promises: X1 (every row once), X2 (counts), X4 (bounded repetition), X5 (attribution), X6 (finality), X7
(concurrency), X8 (cancel), X11 (the report's order).
"""

import collections
import csv
import dataclasses
import hashlib
import io
import json
import re
import threading

ACCOUNT = "000000000000"
REPORT_SCHEMA = "Bucket, Key, VersionId, TaskStatus, ErrorCode, HTTPStatusCode, ResultMessage"
TERMINAL = {"Complete", "Failed", "Cancelled"}


class Place:
    """Where jobs are, for callers that have clients and no `harness.Server`."""

    def __init__(self, s3, control, account=ACCOUNT):
        self.s3, self.control, self.account = s3, control, account

    def describe(self, job_id):
        return self.control.describe_job(AccountId=self.account, JobId=job_id)["Job"]


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a completion report. The order of the columns is that of the rows, not of ReportSchema."""

    bucket: str
    key: str
    version: str
    status: str
    http_status: str
    error_code: str
    message: str


def read_report(server, job_id, described):
    """Downloads a completion report and checks everything it says about itself. Returns its rows."""
    report = described["Report"]
    bucket = report["Bucket"].removeprefix("arn:aws:s3:::")
    base = (report["Prefix"] + "/" if report.get("Prefix") else "") + f"job-{job_id}/"
    body = server.s3.get_object(Bucket=bucket, Key=base + "manifest.json")["Body"].read()
    md5 = server.s3.get_object(Bucket=bucket, Key=base + "manifest.json.md5")["Body"].read()
    assert md5.decode() == hashlib.md5(body).hexdigest(), "manifest.json.md5 is not the MD5 of manifest.json"
    manifest = json.loads(body)
    assert set(manifest) == {"Format", "ReportCreationDate", "Results", "ReportSchema"}, manifest
    assert manifest["Format"] == "Report_CSV_20180820"
    assert manifest["ReportSchema"] == REPORT_SCHEMA
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z", manifest["ReportCreationDate"])
    statuses = [result["TaskExecutionStatus"] for result in manifest["Results"]]
    assert statuses == sorted(statuses, reverse=True), "succeeded files come before failed ones"
    listed = {entry["Key"]: entry for entry in server.s3.list_objects_v2(Bucket=bucket, Prefix=base).get("Contents", [])}
    named = {base + "manifest.json", base + "manifest.json.md5"} | {result["Key"] for result in manifest["Results"]}
    assert set(listed) == named, f"the report's folder holds other objects than manifest.json names: {set(listed) ^ named}"
    last = max(entry["LastModified"] for entry in listed.values())
    assert listed[base + "manifest.json"]["LastModified"] == last, "X11: manifest.json is not the last of the report's objects"
    rows = []
    for result in manifest["Results"]:
        assert result["Bucket"] == bucket
        assert re.fullmatch(re.escape(base) + r"results/[0-9a-f]{40}\.csv", result["Key"]), result["Key"]
        content = server.s3.get_object(Bucket=bucket, Key=result["Key"])["Body"].read()
        assert hashlib.md5(content).hexdigest() == result["MD5Checksum"], f"{result['Key']} has another MD5"
        text = content.decode("utf-8")
        assert text, "a status without rows has no file"
        assert text.endswith("\r\n"), "every line ends in CRLF, the last one too"
        for columns in csv.reader(io.StringIO(text, newline=""), strict=True):
            assert len(columns) == 7, columns
            row = Row(*columns)
            assert row.status == result["TaskExecutionStatus"], "a file holds rows of one status alone"
            assert len(row.message) <= 1024
            rows.append(row)
    return rows


def audit(server, job_id, manifest_rows, *, status="Complete", scope="AllTasks", invoked=None, log=None, limits=None):
    """Checks a job that is over against its manifest, and returns the rows of its completion report.

    `manifest_rows` are the (bucket, key) or (bucket, key, version) rows as written in the manifest; equal ones are different
    rows, and are counted. `invoked`, where the function kept a log of its own, counts its invocations by key: a settled task
    was invoked, and no other one was. `log` is an `Invocations`, which says more, and `limits` what it is held to.
    """
    described = server.describe(job_id)
    assert described["Status"] == status, described
    progress = described["ProgressSummary"]
    total, succeeded, failed = (
        progress[name] for name in ("TotalNumberOfTasks", "NumberOfTasksSucceeded", "NumberOfTasksFailed")
    )
    expected = collections.Counter(tuple((*row, "", "")[:3]) for row in manifest_rows)
    assert total == expected.total(), f"the job counts {total} tasks, the manifest has {expected.total()} rows"
    assert succeeded + failed <= total
    if status != "Complete" and succeeded + failed == 0:
        # No task was settled: no report (rule L-13).
        rows = []
    else:
        rows = read_report(server, job_id, described)
    reported = collections.Counter((row.bucket, row.key, row.version) for row in rows)
    by_status = collections.Counter(row.status for row in rows)
    assert by_status["failed"] == failed, f"{by_status['failed']} failed rows, counted {failed}"
    assert not reported - expected, f"rows that the manifest does not have: {list((reported - expected).items())[:5]}"
    if scope == "AllTasks":
        assert by_status["succeeded"] == succeeded, f"{by_status['succeeded']} succeeded rows, counted {succeeded}"
        if status == "Complete":
            missing = expected - reported
            assert not missing, f"rows that the report does not have: {list(missing.items())[:5]}"
    else:
        assert by_status["succeeded"] == 0
    if status == "Complete":
        assert succeeded + failed == total
        assert described["FailureReasons"] == []
    if log is not None:
        judge(job_id, rows, expected, log, limits or Limits())
        invoked = log.starts_by_key(job_id)
    if invoked is not None:
        wanted = collections.Counter()
        for (_, key, _), times in reported.items():
            wanted[key] += times
        short = {key: times for key, times in wanted.items() if invoked[key] < times}
        assert not short, f"rows that were settled without an invocation: {list(short.items())[:5]}"
        assert set(invoked) <= {key for _, key, *_ in expected}, "an invocation for a key that the manifest does not have"
    return rows


def by_key(rows):
    """The rows of a report by key, for manifests in which each key stands once."""
    found = {row.key: row for row in rows}
    assert len(found) == len(rows), "a key stands in the report twice"
    return found


# --- the log of invocations ---


# What a function answers for a task: bound to all that the invocation was for, so that no other invocation's answer is it.
WORD = "hashlib.sha256('|'.join((job, task, invocation, key)).encode()).hexdigest()[:16] + ('.' * 900 if 'bulky' in key else '')"

# A function that keeps the log. What it does with a key is the key's own matter: `fail` in it fails for good, `again` in it fails
# for a time, once in three invocations on average; `bulky` has a long answer, at once. PAUSE_MS: the least and the most that an invocation takes.
# The time-out of functions that are `RECORDER`: `Server.deploy` gives it where nothing is said.
TIMEOUT_MS = 30_000

RECORDER = f"""
import hashlib, json, os, random, time
log = os.open(os.environ["INVOCATIONS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
least, most = (float(ms) / 1000 for ms in os.environ.get("PAUSE_MS", "5,30").split(","))
pid = os.getpid()

def note(*words):
    # One write of one short line to a file opened for appending: lines of several processes do not mix. Behind one that a
    # kill has cut short the next begins anew.
    os.write(log, ("\\n" + json.dumps(words) + "\\n").encode())

def handler(event, context):
    if "tasks" not in event:
        note("event", time.monotonic_ns(), pid, event["event"])
        return event
    job, invocation = event["job"]["id"], event["invocationId"]
    (one,) = event["tasks"]
    task, key = one["taskId"], one["s3Key"]
    # When the server handed it out, by its deadline: this process may have come to it much later. Up to 2 ms too early, for
    # both are cut to milliseconds. None if a wall clock is set meanwhile, by which deadlines are told.
    started, left = time.monotonic_ns(), context.get_remaining_time_in_millis()
    handed = started - ({TIMEOUT_MS} - left) * 1_000_000 if 0 < left <= {TIMEOUT_MS} else None
    note("start", started, pid, job, task, invocation, key, handed)
    if "bulky" not in key:
        time.sleep(random.uniform(least, most))
    code = "Succeeded"
    if "fail" in key:
        code = "PermanentFailure"
    elif "again" in key and random.random() < 1 / 3:
        code = "TemporaryFailure"
    note("end", time.monotonic_ns(), pid, job, task, invocation, key, code)
    return {{"invocationSchemaVersion": "1.0", "invocationId": invocation, "results": [
        {{"taskId": task, "resultCode": code, "resultString": invocation + " " + {WORD}}}]}}
"""


@dataclasses.dataclass
class Invocation:
    """One invocation as its function noted it. Times in nanoseconds of CLOCK_MONOTONIC, one clock for the whole machine."""

    id: str
    job: str
    task: str
    key: str
    pid: int
    started: int
    ended: int | None = None
    code: str | None = None
    # When the server handed it out, as far as that is known: a call begins then (decision 0030).
    handed: int | None = None

    def begun(self):
        return self.started if self.handed is None else self.handed

    def word(self):
        job, task, invocation, key = self.job, self.task, self.id, self.key
        bulk = "." * 900 if "bulky" in key else ""
        return invocation + " " + hashlib.sha256("|".join((job, task, invocation, key)).encode()).hexdigest()[:16] + bulk


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a job's invocations are held to.

    `at_once`: the most that may run at one time. `unrecorded`: W, the bound on answers that were received and are not
    durable; 0 where the server is strict. `slots`: the most that may be in flight, as a kill may cut more than the log shows as
    started. `attempts`: the most tries at a task, kills apart. `cancelled_ns`: when the cancel had been answered; none begins
    after it.
    """

    at_once: int | None = None
    unrecorded: int = 4096
    slots: int = 1000
    attempts: int | None = None
    cancelled_ns: int | None = None


class Invocations:
    """The log that `RECORDER` keeps, outside of everything that the server keeps, and the kills of servers in it."""

    def __init__(self, path):
        self.path = path
        # (when, in flight by the log) of each kill.
        self.kills = []
        # (process, when) of environments that were killed alone.
        self.cuts = []
        self._at, self._all, self._events = 0, {}, collections.Counter()
        self._lock = threading.Lock()

    def read(self):
        """All invocations so far, by their IDs."""
        with self._lock:
            return self._read()

    def _read(self):
        if self.path.exists():
            with open(self.path, "rb") as file:
                file.seek(self._at)
                new = file.read()
            new = new[:new.rfind(b"\n") + 1]
            self._at += len(new)
            for line in new.splitlines():
                if not line.endswith(b"]"):
                    # Empty, or cut short by a kill in the middle of the write: its call has come no further.
                    continue
                what, at, pid, *words = json.loads(line)
                if what == "event":
                    self._events[words[0]] += 1
                elif what == "start":
                    job, task, id_, key, *handed = words
                    assert id_ not in self._all, f"two invocations are called {id_}"
                    self._all[id_] = Invocation(id_, job, task, key, pid, at, handed=handed[0] if handed else None)
                else:
                    job, task, id_, key, code = words
                    self._all[id_].ended, self._all[id_].code = at, code
        return dict(self._all)

    def events(self):
        """How often each asynchronous event has run."""
        self.read()
        return self._events

    def of(self, job):
        return [one for one in self.read().values() if one.job == job]

    def starts_by_key(self, job):
        return collections.Counter(one.key for one in self.of(job))

    def in_flight(self, job=None):
        """Invocations that have started and not ended, and that no kill has cut off."""
        return sum(self.end_of(one) is None for one in self.read().values() if job in (None, one.job))

    def killed(self, at_ns, since_ns=None):
        """Notes that the server was dead at this time, and with it all that was in flight. Returns how many those were: what had
        started, and had not ended `since_ns`, for an orphan may note its end before it dies. `None`: at the same time.
        """
        since_ns = since_ns or at_ns
        ends = [(one.started, self.end_of(one)) for one in self.read().values()]
        open_ = sum(started <= since_ns and (end is None or end > since_ns) for started, end in ends)
        self.kills.append((at_ns, open_))
        return open_

    def cut(self, pid, at_ns):
        """Notes that an environment was killed, and its invocation with it."""
        self.cuts.append((pid, at_ns))

    def end_of(self, one):
        """When an invocation was over: its end as noted, or that of what it died with. `None`: it runs."""
        if one.ended is not None:
            return one.ended
        deaths = [at for at, _ in self.kills if at >= one.started]
        deaths += [at for pid, at in self.cuts if pid == one.pid and at >= one.started]
        return min(deaths, default=None)

    def most_at_once(self, job=None):
        """The most invocations that ran at one time."""
        edges = []
        for one in self.read().values():
            if job in (None, one.job):
                end = self.end_of(one)
                # At equal times an end comes before a start.
                edges.append((one.started, 1))
                if end is not None:
                    edges.append((max(end, one.started), -1))
        most = now = 0
        for _, step in sorted(edges):
            now += step
            most = max(most, now)
        return most


def judge(job, rows, expected, log, limits):
    """The laws of a job's invocations."""
    mine = log.of(job)
    tasks = collections.defaultdict(list)
    for one in mine:
        tasks[one.task].append(one)
    for task, tries in tasks.items():
        assert len({one.key for one in tries}) == 1, f"X5: task {task} was invoked for several keys"
    # Equal rows are different tasks: as many of them as the manifest has.
    of_key = collections.Counter(tries[0].key for tries in tasks.values())
    allowed = collections.Counter()
    for (_, key, _), times in expected.items():
        allowed[key] += times
    assert not of_key - allowed, f"more tasks than rows: {list((of_key - allowed).items())[:5]}"

    # X5 and X6: each reported result is the word of an invocation for that row, and no two rows share an invocation or a task.
    words = {one.word(): one for one in mine}
    used = set()
    for row in rows:
        one = words.get(row.message)
        assert one is not None, f"X5: no invocation of this job has said {row.message!r}, reported for {row.key}"
        assert one.key == row.key, f"X5: what is reported for {row.key} was said of {one.key}"
        assert one.task not in used, f"X1: the task {one.task} is reported twice"
        used.add(one.task)
        assert one.ended is not None, f"X5: {row.message!r} is reported, and was never said"
        # What fails for a time and is out of tries is reported as failed, too.
        assert (one.code == "Succeeded") == (row.status == "succeeded"), f"{row} of {one}"

    # X4: what a kill makes repeat was in flight, or received and not yet durable.
    kills = [kill for kill in log.kills if mine and any(one.started < kill[0] for one in mine)]
    again = sum(one.code == "TemporaryFailure" for one in mine)
    repeats = len(mine) - len(tasks)
    cut = sum(one.ended is None and any(pid == one.pid for pid, _ in log.cuts) for one in mine)
    bound = len(kills) * (limits.slots + limits.unrecorded) + again + cut
    assert repeats <= bound, f"X4: {repeats} invocations were repeats, at most {bound} may be after {len(kills)} kills"
    if limits.attempts is not None:
        for task, tries in tasks.items():
            judged = sum(one.code is not None for one in tries)
            assert judged <= limits.attempts + len(kills), f"X4: task {task} was tried {judged} times"
    if not kills and not again and not cut:
        assert repeats == 0, f"X4: {repeats} invocations were repeats, and nothing had been killed"

    # X7: also just after a kill, for what the dead server had started is dead before the first new start.
    if limits.at_once is not None:
        most = log.most_at_once(job)
        assert most <= limits.at_once, f"X7: {most} invocations ran at once, {limits.at_once} may"

    # X8
    if limits.cancelled_ns is not None:
        late = [one for one in mine if one.begun() > limits.cancelled_ns]
        assert not late, f"X8: {len(late)} invocations were started after the cancel was answered"
    # X6: what is settled is never invoked again, kills or not; so what is reported was said by a task's last invocation.
    for one in (words[row.message] for row in rows):
        later = [other for other in tasks[one.task] if other.started > one.started]
        assert not later, f"X6: the task {one.task} was settled, and invoked {len(later)} more times"


# --- what was shown meanwhile ---


class Watch:
    """Looks at jobs while they run, also across kills: counts never go down (X2), and what is over stays as it is (X6)."""

    def __init__(self):
        self.looks = 0
        self._seen = {}

    def look(self, described):
        job, status, progress = described["JobId"], described["Status"], described["ProgressSummary"]
        counts = progress["NumberOfTasksSucceeded"], progress["NumberOfTasksFailed"]
        total = progress["TotalNumberOfTasks"]
        self.looks += 1
        assert sum(counts) <= total, f"X2: {counts} of {total} tasks of job {job}"
        before = self._seen.get(job)
        if before:
            was, shown, known = before
            assert all(now >= then for now, then in zip(counts, shown)), f"X2: job {job} went from {shown} back to {counts}"
            assert total >= known, f"X2: job {job} had {known} tasks and has {total}"
            if was in TERMINAL:
                assert (status, counts, total) == (was, shown, known), f"X6: job {job} was {was} with {shown} and is {status} with {counts}"
            assert was == "New" or status != "New", f"X6: job {job} was {was} and is New"
        self._seen[job] = status, counts, total
        return described
