"""The oracle itself: an audit that a wrong report passes would prove nothing. Each defect planted here is found."""

import hashlib
import io
import json
from collections import Counter

import pytest

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
        return {"Contents": [{"Key": key} for key in self.objects() if key.startswith(Prefix)]}


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
