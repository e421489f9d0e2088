"""What `cargo xtask goals` stands on: how a gate is judged, what the audit refuses, that syncs are counted and held."""

import csv
import hashlib
import io
import json
import math
import shutil
import subprocess
import sys
import time
import types
import zlib

import pytest

import harness

sys.path.insert(0, str(harness.ROOT / "xtask"))

import measure  # noqa: E402
from goals import frame  # noqa: E402


def gate(sense="<=", must=2.0, aim=1.0, value=lambda r: r["ours"]["us"] / r["floor"]["us"], **more):
    return frame.Measure("P1", "what", sense, must, aim, value, "ours", **more)


def rounds(*pairs):
    return [{"ours": {"us": ours, "fsyncs": n}, "floor": {"us": floor}} for n, (ours, floor) in enumerate(pairs, 1)]


def test_a_gate_is_the_median_of_the_ratios_within_each_round():
    # The ratio of the medians would be 1.5: the machine was slow in one round, for both.
    told = frame.judged(gate(), rounds((3.0, 2.0), (30.0, 10.0), (1.0, 1.0)))
    assert (told["measured"], told["least"], told["most"], told["rounds"], told["fsyncs"]) == (1.5, 1.0, 3.0, 3, 2)
    assert (told["holds"], told["reaches_aim"]) == (True, False)


@pytest.mark.parametrize("sense, measured, holds", [
    ("<=", 2.0, True), ("<=", 2.001, False), (">=", 2.0, True), (">=", 1.999, False)])
def test_a_gate_holds_at_its_bound_and_not_beyond(sense, measured, holds):
    assert frame.judged(gate(sense), rounds((measured, 1.0)))["holds"] is holds


def test_a_round_that_was_not_counted_is_no_round_and_without_any_nothing_holds():
    kept = [{"ours": {"error": "the audit failed"}, "floor": {"us": 1.0}}, *rounds((1.0, 1.0)), {"ours": {"us": 1.0}, "floor": {"us": 0.0}}]
    assert frame.judged(gate(), kept)["rounds"] == 1
    told = frame.judged(gate(), kept[:1])
    assert (told["measured"], told["rounds"], told["holds"]) == (None, 0, None)
    assert "| – | 0 | – | – | – |" in frame.table([{"scenario": "s", "settings": "", "notes": "", "skipped": None, "failures": [], "measures": [told]}], "a machine")


def test_trials_of_all_rounds_are_one_heap_for_a_quantile():
    most = gate(must=50, value=lambda r: r["ours"]["trials"], over=max)
    told = frame.judged(most, [{"ours": {"trials": [1, 2]}}, {"ours": {"trials": [60]}}])
    assert (told["measured"], told["rounds"], told["holds"]) == (60, 2, False)


def test_what_is_missed_is_told_the_worst_first_whichever_way_a_gate_points():
    told = [frame.judged(gate(sense, must, None), rounds((got, 1.0)))
            for sense, must, got in [("<=", 2.0, 3.0), (">=", 10.0, 2.0), ("<=", 0, 1.0), ("<=", 2.0, 1.0)]]
    missed = frame.misses([{"measures": told}])
    assert [m["measured"] for m in missed] == [1.0, 2.0, 3.0]
    assert [frame.how_far(m) for m in missed] == [math.inf, 5.0, 1.5]


def test_a_failed_audit_in_the_end_takes_every_figure_of_the_run_back():
    class Late(frame.Scenario):
        name = "late"
        measures = [gate()]

        def round(self, number, readings):
            readings |= rounds((1.0, 1.0))[0]

        def close(self, kept):
            raise measure.NotCounted("a row is missing")

    told = frame.run(Late(types.SimpleNamespace(scale=1), {"P1"}), 2)
    assert told["measures"][0]["measured"] is None and told["failures"] == ["NotCounted: a row is missing"]


class Reported:
    """What `measure.audit` asks of a server, with a report of these rows."""

    def __init__(self, rows, counted=None, md5=None, status="Complete"):
        out = io.StringIO(newline="")
        csv.writer(out).writerows(rows)
        self.body = out.getvalue().encode()
        digest = md5 or hashlib.md5(self.body).hexdigest()
        part = {"TaskExecutionStatus": "succeeded", "Key": "part", "MD5Checksum": digest, "Bucket": "bench"}
        self.manifest = json.dumps({"Results": [part]}).encode()
        counted = len(rows) if counted is None else counted
        self.described = {"Status": status, "ProgressSummary": {
            "TotalNumberOfTasks": 3, "NumberOfTasksSucceeded": counted, "NumberOfTasksFailed": 0}}
        self.control, self.s3 = self, self

    def describe_job(self, **_):
        return {"Job": self.described}

    def get_object(self, Bucket, Key):
        body = self.body if Key == "part" else self.manifest
        stream = io.BytesIO(body)
        stream.iter_chunks = lambda size: iter(lambda: stream.read(size), b"")
        return {"Body": stream}


def row(n, said=None, bucket="bench", status="succeeded"):
    key = f"prefix/object-{n:010}"
    return [bucket, key, "", status, "200", "", said or f"{zlib.crc32(key.encode()):08x}"]


@pytest.mark.parametrize("report", [
    Reported([row(0), row(1)], counted=3), Reported([row(0), row(1), row(1)]), Reported([row(0), row(1), row(3)]),
    Reported([row(0), row(1), row(2)], md5="0" * 32), Reported([row(0), row(1), row(2, said="ffffffff")]),
    Reported([row(0), row(1), row(2, bucket="other")]), Reported([row(0), row(1), row(2)], counted=2),
    Reported([row(0), row(1), row(2)], status="Cancelled", counted=2), Reported([row(0), row(1), row(2, status="failed")]),
], ids=["missing", "twice", "foreign", "md5", "another's-result", "bucket", "counters", "more-than-settled", "failed"])
def test_the_audit_of_a_long_report_refuses(report):
    with pytest.raises(measure.NotCounted):
        measure.streamed(report, "job", measure.Rows(3), marked=True, status=report.described["Status"])


def test_the_audit_of_a_long_report_takes_what_is_right():
    measure.streamed(Reported([row(2), row(0), row(1)]), "job", measure.Rows(3), marked=True)
    measure.streamed(Reported([row(2), row(0)], status="Cancelled"), "job", measure.Rows(3), marked=True, status="Cancelled")
    assert measure.streamed(Reported([row(0, "ok"), row(1, "12.5"), row(2, "ok")]), "job", measure.Rows(3)) == ["12.5"]


def test_syncs_are_counted_held_and_skipped(tmp_path):
    if shutil.which("cc") is None:
        pytest.skip("cc is not installed on this machine")
    program = "import os, sys, time\nf = open(sys.argv[1], 'w')\nt = time.monotonic()\nfor _ in range(3): os.fsync(f.fileno())\nprint(time.monotonic() - t)"

    def took(syncs):
        command = [sys.executable, "-c", program, str(tmp_path / "file")]
        return float(subprocess.check_output(command, env=measure.plain() | syncs.environment))

    syncs = measure.Syncs(tmp_path)
    took(syncs)
    assert syncs.count() == 3
    # It holds until a time, however late the program starts: that one sync began before it is what counts.
    began = time.monotonic()
    syncs.stall(1)
    took(syncs)
    assert time.monotonic() - began >= 1 and syncs.count() == 6
    syncs.skip(True)
    took(syncs)
    assert syncs.count() == 6, "a sync that was skipped is none"


def test_a_job_is_measured_on_a_server_as_it_is(tmp_path):
    rows = measure.Rows(300)
    settings = "[functions]\nenvironments_max = 2\n" + measure.interpreters()
    with measure.Server(str(tmp_path), settings, str(harness.LONGSHORE)) as server:
        server.deploy("f", *measure.package("own"))
        got = measure.run_job(server, "f", "m.csv", rows.put(server, "m.csv"), rows)
        # Both audits judge the one report, and neither takes it for that of another manifest.
        told = measure.audit(server, got["job"], rows)
        assert told == measure.streamed(server, got["job"], rows) and 1 <= len(told) <= 2
        for judge in (measure.audit, measure.streamed):
            for other in (measure.Rows(299), measure.Rows(300, "other/object-")):
                with pytest.raises(measure.NotCounted):
                    judge(server, got["job"], other)
            with pytest.raises(measure.NotCounted):
                judge(server, got["job"], rows, marked=True)
    assert got["audited"] and got["tasks"] == 300 and got["own_us"] >= 0 and got["functions_us"] > 0 and got["rss_mb"] > 1
    assert got["fsyncs"] is None or got["fsyncs"] > 3
    assert got["first_ms"] > 0, "the first call of each process tells when it came"
