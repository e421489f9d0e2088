"""The oracle itself: an audit that a wrong report passes would prove nothing. Each defect planted here is found."""

import hashlib
import io
import json
from collections import Counter

import pytest

import audit
import harness

JOB = "93735294-df46-44d5-8638-6356f335324e"
BASE = f"reports/job-{JOB}/"
ROWS = [("b", f"k{number}") for number in range(5)] + [("b", "twice")] * 2


class Pretended:
    """As much of a server as `audit` asks: DescribeJob, GetObject, ListObjectsV2. Reports ROWS, the last two as failed."""

    def __init__(self):
        lines = [f"{bucket},{key},,succeeded,200,," for bucket, key in ROWS[:5]]
        self.files = {"succeeded": lines, "failed": ["b,twice,,failed,200,PermanentFailure,no"] * 2}
        self.progress = {"TotalNumberOfTasks": 7, "NumberOfTasksSucceeded": 5, "NumberOfTasksFailed": 2}
        self.status, self.line_end, self.extra, self.spoiled = "Complete", "\r\n", {}, set()
        self.early = False
        self.schema = harness.REPORT_SCHEMA
        self.s3 = self

    def describe(self, job):
        return {"Status": self.status, "ProgressSummary": self.progress, "FailureReasons": [],
                "Report": {"Bucket": "arn:aws:s3:::b", "Prefix": "reports"}}

    def objects(self):
        results, objects = [], {}
        for status, lines in self.files.items():
            body = "".join(line + self.line_end for line in lines).encode()
            key = f"{BASE}results/{hashlib.sha1(status.encode()).hexdigest()}.csv"
            objects[key] = body
            results.append({"TaskExecutionStatus": status, "Bucket": "b", "Key": key,
                            "MD5Checksum": hashlib.md5(body + (b"x" if status in self.spoiled else b"")).hexdigest()})
        manifest = json.dumps({"Format": "Report_CSV_20180820", "ReportCreationDate": "2026-01-01T00:00:00.000Z",
                               "Results": results, "ReportSchema": self.schema}).encode()
        md5 = hashlib.md5(manifest).hexdigest() + ("0" if "manifest" in self.spoiled else "")
        return objects | {BASE + "manifest.json": manifest, BASE + "manifest.json.md5": md5.encode()} | self.extra

    def get_object(self, Bucket, Key):
        return {"Body": io.BytesIO(self.objects()[Key])}

    def list_objects_v2(self, Bucket, Prefix):
        # In the order in which they were written, `manifest.json` last.
        keys = sorted((key for key in self.objects() if key.startswith(Prefix)), key=lambda key: key.endswith("manifest.json"))
        if self.early:
            keys.reverse()
        return {"Contents": [{"Key": key, "LastModified": number} for number, key in enumerate(keys)]}


def test_a_right_report_passes():
    assert len(harness.audit(Pretended(), JOB, ROWS)) == 7


DEFECTS = {
    "a row is missing": lambda server: server.files["succeeded"].pop(),
    "a row stands twice": lambda server: server.files["succeeded"].append(server.files["succeeded"][0]),
    "a row replaces another": lambda server: server.files["succeeded"].__setitem__(0, server.files["succeeded"][1]),
    "a double row is reported once": lambda server: server.files["failed"].pop(),
    "a row of nowhere": lambda server: server.files["succeeded"].__setitem__(0, "b,else,,succeeded,200,,"),
    "a failed row among the succeeded": lambda server: server.files["succeeded"].__setitem__(
        0, "b,k0,,failed,200,PermanentFailure,"),
    "columns in the order of the schema": lambda server: server.files["failed"].__setitem__(
        0, "b,twice,,failed,PermanentFailure,200,no,"),
    "lines that end in LF": lambda server: setattr(server, "line_end", "\n"),
    "a wrong MD5": lambda server: server.spoiled.add("succeeded"),
    "a wrong MD5 of the manifest": lambda server: server.spoiled.add("manifest"),
    "an empty file": lambda server: server.files.__setitem__("succeeded", []),
    "a file that no one names": lambda server: server.extra.__setitem__(BASE + "results/left-over.csv", b"x\r\n"),
    "a manifest.json that is not the last": lambda server: setattr(server, "early", True),
    "another schema": lambda server: setattr(server, "schema", "Bucket, Key"),
    "a wrong total": lambda server: server.progress.update(TotalNumberOfTasks=8),
    "wrong counts": lambda server: server.progress.update(NumberOfTasksSucceeded=6, NumberOfTasksFailed=1),
    "a job that has not ended": lambda server: setattr(server, "status", "Completing"),
    "another key in other letters": lambda server: server.files["succeeded"].__setitem__(0, "b,K0,,succeeded,200,,"),
}


@pytest.mark.parametrize("plant", DEFECTS.values(), ids=[name.replace(" ", "-") for name in DEFECTS])
def test_a_planted_defect_is_found(plant):
    server = Pretended()
    plant(server)
    with pytest.raises(AssertionError):
        harness.audit(server, JOB, ROWS)


def test_a_row_that_was_never_invoked_is_found():
    invoked = Counter(key for _, key in ROWS)
    harness.audit(Pretended(), JOB, ROWS, invoked=invoked)
    for wrong in (invoked - Counter(["k1"]), invoked - Counter(["twice"]), invoked + Counter(["nowhere"])):
        with pytest.raises(AssertionError):
            harness.audit(Pretended(), JOB, ROWS, invoked=wrong)


# --- the laws of invocations ---


class Noted(audit.Invocations):
    """A log as `RECORDER` would keep it for ROWS, one invocation after the other, and a report that goes with it."""

    def __init__(self, folder):
        super().__init__(folder / "invocations")
        self.lines = []
        for number, (_, key) in enumerate(ROWS):
            self.add(f"i{number}", f"t{number}", key, 10 * number, 10 * number + 5, "Succeeded" if number < 5 else "PermanentFailure")

    def add(self, id_, task, key, started, ended=None, code="Succeeded", job=JOB, pid=1):
        self.lines.append(["start", started, pid, job, task, id_, key])
        if ended is not None:
            self.lines.append(["end", ended, pid, job, task, id_, key, code])

    def judged(self, limits=audit.Limits(unrecorded=0, slots=1, at_once=1), server=None, said=None):
        """What `audit` says of it. `said`: who is said to have answered for which row, if not who did."""
        self.path.write_text("".join(json.dumps(line) + "\n" for line in self.lines))
        server = server or Pretended()
        words = {one.id: one.word() for one in self.read().values()}
        said = [f"i{number}" for number in range(7)] if said is None else said
        server.files = {
            "succeeded": [f"b,{key},,succeeded,200,,{words.get(id_, id_)}" for (_, key), id_ in zip(ROWS[:5], said)],
            "failed": [f"b,{key},,failed,200,PermanentFailure,{words.get(id_, id_)}" for (_, key), id_ in zip(ROWS[5:], said[5:])]}
        return audit.audit(server, JOB, ROWS, log=self, limits=limits)


def said(*changed):
    """The rows' answers, but for some: (row, who is said to have answered)."""
    return [dict(changed).get(number, f"i{number}") for number in range(7)]


BROKEN = {
    "X1, a task that answers for two rows": (lambda log: None, {"said": said((6, "i5"))}),
    "X4, a repetition that nothing explains": (lambda log: log.add("again", "t0", "k0", -20, -15), {}),
    "X4, more repetitions than one kill explains": (lambda log: (
        log.kills.append((-1, 1)), log.add("a", "t0", "k0", -20, -15), log.add("b", "t1", "k1", -10, -5)), {}),
    "X4, more tries than are allowed": (lambda log: [
        log.add(f"try-{n}", "t0", "k0", -100 + 10 * n, -95 + 10 * n, "TemporaryFailure") for n in range(3)],
        {"limits": audit.Limits(attempts=3)}),
    "X5, an answer of a neighbour": (lambda log: None, {"said": said((0, "i1"), (1, "i0"))}),
    "X5, an answer of nobody": (lambda log: None, {"said": said((0, "nobody"))}),
    "X5, an answer of another job": (lambda log: log.add("other", "t0", "k0", 1, 2, job="another job"), {"said": said((0, "other"))}),
    "X5, a task with two keys": (lambda log: (log.kills.append((-1, 1)), log.add("x", "t0", "k1", -20, -15)), {}),
    "a succeeded row whose function failed": (lambda log: (
        log.kills.append((150, 1)), log.add("no", "t0", "k0", 160, 165, "PermanentFailure")), {"said": said((0, "no"))}),
    "X6, a task that is invoked after it was settled": (lambda log: (log.kills.append((90, 1)), log.add("after", "t0", "k0", 100, 105)), {}),
    "X7, two at once": (lambda log: (log.kills.append((-1, 1)), log.add("long", "t3", "k3", -20, 12)), {}),
    "X7, a dead server's beside a new one's": (lambda log: (
        log.kills.append((3, 1)), log.add("orphan", "t3", "k3", -20)), {}),
    "X8, a start after the cancel that was handed out after it, too": (
        lambda log: log.lines[12].append(60), {"limits": audit.Limits(cancelled_ns=59)}),
    "X8, a start after the cancel": (lambda log: None, {"limits": audit.Limits(cancelled_ns=55)}),
    "more tasks than rows": (lambda log: log.add("third", "t9", "twice", 100, 105), {}),
}


def test_a_right_log_of_invocations_passes(tmp_path):
    assert len(Noted(tmp_path).judged()) == 7
    # One kill explains one repetition, an environment that was killed another, and a failure for a time a third.
    log = Noted(tmp_path)
    log.kills.append((-41, 1))
    log.add("cut", "t0", "k0", -50)
    log.cut(7, -31)
    log.add("killed", "t1", "k1", -40, pid=7)
    log.add("tried", "t2", "k2", -20, -15, "TemporaryFailure")
    assert len(log.judged()) == 7
    assert (log.in_flight(), log.most_at_once()) == (0, 1)


@pytest.mark.parametrize("plant, options", BROKEN.values(), ids=[name.replace(" ", "-") for name in BROKEN])
def test_a_law_of_invocations_that_is_broken_is_found(plant, options, tmp_path):
    log = Noted(tmp_path)
    plant(log)
    with pytest.raises(AssertionError):
        log.judged(**options)


def test_counts_that_go_down_and_an_end_that_changes_are_found():
    def shown(status, succeeded, failed=0, total=10):
        return {"JobId": "j", "Status": status, "ProgressSummary": {
            "TotalNumberOfTasks": total, "NumberOfTasksSucceeded": succeeded, "NumberOfTasksFailed": failed}}

    right = [shown("New", 0, total=0), shown("Active", 3), shown("Active", 3, 2), shown("Complete", 8, 2)]
    watch = audit.Watch()
    for look in right:
        watch.look(look)
    for wrong in (shown("Active", 8, 2), shown("Complete", 9, 1), shown("Complete", 8, 2, total=11)):
        with pytest.raises(AssertionError):
            watch.look(wrong)
    for before, after in [(shown("Active", 3), shown("Active", 2, 5)), (shown("Active", 3, 2), shown("Active", 9, 1)),
                          (shown("Active", 1), shown("New", 1)), (shown("Active", 1), shown("Active", 2, total=9)),
                          (shown("Active", 0), shown("Active", 6, 5))]:
        watch = audit.Watch()
        watch.look(before)
        with pytest.raises(AssertionError):
            watch.look(after)
