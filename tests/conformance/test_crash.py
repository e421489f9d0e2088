"""The server is killed while it works, again and again, and in the end nothing is missing and nothing is double.

The times of the kills come from a seed, which is printed; `LONGSHORE_TEST_CRASH_SEED=N ./check crash` runs the same again.
"""

import os
import random
import subprocess
import time

import pytest

import audit
import harness
from harness import ROOT

KILLS = 5
# Answers that may have been received and not be durable yet: `unrecorded_max` in the settings, so few that a kill that lost more is seen.
W = 32
# The bound on invocations in flight that both are given: `concurrency_max` in the settings.
SLOTS = 16

def seed():
    if "LONGSHORE_TEST_CRASH_SEED" in os.environ:
        return int(os.environ["LONGSHORE_TEST_CRASH_SEED"])
    # A seed of its own for every commit: each one explores other times, and a run can be repeated.
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return int(head[:8] or "1", 16)


@pytest.fixture
def crashing(tmp_path, request):
    # Its functions keep a log of their own, in a file outside of everything that the server keeps.
    server = harness.Server(tmp_path, harness.UNCONFINED | getattr(request, "param", {})).start()
    yield server
    if server.process.poll() is None:
        server.stop()
    assert "panicked at" not in server.said()


@pytest.mark.parametrize("crashing, rows, limits", [
    # Kills x (in flight + W).
    pytest.param({"LONGSHORE_JOBS_UNRECORDED_MAX": str(W), "LONGSHORE_JOBS_CONCURRENCY_MAX": str(SLOTS)}, 5000,
                 audit.Limits(unrecorded=W, slots=SLOTS, at_once=SLOTS), id="window"),
    # A slot is free only when its result is durable: what repeats was in flight.
    pytest.param({"LONGSHORE_JOBS_STRICT": "true", "LONGSHORE_JOBS_CONCURRENCY_MAX": str(SLOTS)}, 2000,
                 audit.Limits(unrecorded=0, slots=SLOTS, at_once=SLOTS), id="strict"),
], indirect=["crashing"])
def test_a_job_survives_five_kills_and_reports_every_row_once(crashing, rows, limits, tmp_path, capsys):
    number = seed()
    dice = random.Random(number)
    server, log, watch, count = crashing, audit.Invocations(tmp_path / "invocations"), audit.Watch(), rows
    bucket = server.bucket("crash")
    function = server.deploy("record", {"handler.py": audit.RECORDER}, environment={"INVOCATIONS": str(log.path)})
    rows = [(bucket, f"key-{row:05}") for row in range(count)]
    job = server.create_job(bucket, function, server.put_manifest(bucket, rows))

    # A kill comes when so many tasks have started, and then a moment later: spread over the whole job, on any machine.
    marks = sorted(dice.sample(range(count // 50, count * 9 // 10), KILLS))
    idle_kills = 0
    while marks:
        mark = marks.pop(0)
        harness.wait_for(f"the start of task {mark}", lambda: len(log.starts_by_key(job)) >= mark, 180)
        time.sleep(dice.uniform(0, 0.05))
        now = time.monotonic_ns()
        server.kill()
        if not log.killed(time.monotonic_ns(), now):
            idle_kills += 1
            marks.insert(0, min(mark + count // 100, count - 1))
        server.start()
        # A count that went down across the kill fails here.
        watch.look(server.describe(job))

    watch.look(server.wait(job, timeout=240))
    report = harness.audit(server, job, rows, log=log, limits=limits)
    assert len({row.key for row in report}) == count
    in_flight = [open_ for _, open_ in log.kills if open_]
    repeated = len(log.of(job)) - count
    bound = len(log.kills) * (limits.slots + limits.unrecorded)
    with capsys.disabled():
        print(
            f"\n    seed {number}: {len(in_flight)} kills with invocations in flight {in_flight}, {idle_kills} without; "
            f"{repeated} of {count} tasks were repeated (bound {bound})")
    assert len(in_flight) == KILLS


def test_kills_at_the_edges_of_a_job_lose_nothing(crashing, tmp_path):
    """Right after CreateJob was acknowledged, while it waits, at the end, and after the end."""
    server, log = crashing, audit.Invocations(tmp_path / "invocations")
    bucket = server.bucket("edges")
    function = server.deploy("record", {"handler.py": audit.RECORDER}, environment={"INVOCATIONS": str(log.path)})
    rows = [(bucket, f"key-{row:05}") for row in range(300)]
    etag = server.put_manifest(bucket, rows)
    job = server.create_job(bucket, function, etag, confirmation=True)
    server.kill()
    server.start()
    server.wait(job, "Suspended")
    server.kill()
    server.start()
    assert server.describe(job)["Status"] == "Suspended", "a restart confirms nothing"
    server.control.update_job_status(AccountId=harness.ACCOUNT, JobId=job, RequestedJobStatus="Ready")
    server.kill()
    server.start()
    harness.wait_for("the last task", lambda: len(log.starts_by_key(job)) == 300, 60)
    server.kill()
    log.killed(time.monotonic_ns())
    server.start()
    server.wait(job)
    first = harness.audit(server, job, rows, log=log)
    server.kill()
    server.start()
    assert server.describe(job)["Status"] == "Complete"
    assert harness.audit(server, job, rows) == first, "there is never a second, different report"


def test_what_was_acknowledged_is_there_after_a_kill(crashing):
    server = crashing
    bucket = server.bucket("kept")
    function = server.deploy("kept", "def handler(event, context): return 'kept'\n")
    for number in range(20):
        server.s3.put_object(Bucket=bucket, Key=f"k{number}", Body=str(number).encode())
        etag = server.put_manifest(bucket, [(bucket, "k")])
        job = server.create_job(bucket, function, etag, confirmation=True, Priority=1)
        server.control.update_job_priority(AccountId=harness.ACCOUNT, JobId=job, Priority=number)
        server.control.put_job_tagging(AccountId=harness.ACCOUNT, JobId=job, Tags=[{"Key": "n", "Value": str(number)}])
        if number % 5 == 4:
            server.kill()
            server.start()
            assert server.describe(job)["Priority"] == number
            assert server.control.get_job_tagging(AccountId=harness.ACCOUNT, JobId=job)["Tags"][0]["Value"] == str(number)
            for earlier in range(number + 1):
                body = server.s3.get_object(Bucket=bucket, Key=f"k{earlier}")["Body"].read()
                assert body == str(earlier).encode()
            assert server.functions.invoke(FunctionName="kept")["Payload"].read() == b'"kept"'


def test_no_process_of_a_killed_server_works_on(crashing, tmp_path):
    """Functions of a dead server are dead before the first new dispatch: no limit is passed by orphans."""
    server = crashing
    server.deploy("orphan", """
        import os, time
        def handler(event, context):
            with open(event["file"], "w") as file:
                file.write(str(os.getpid()))
            time.sleep(60)
    """, timeout=90)
    file = tmp_path / "pid"
    code = ("import boto3, botocore.config, json, sys; boto3.client('lambda', config=botocore.config.Config(retries="
            "{'max_attempts': 0})).invoke(FunctionName='orphan', Payload=json.dumps({'file': sys.argv[1]}))")
    caller = subprocess.Popen([harness.sys.executable, "-c", code, str(file)], env=server.environment,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    pid = harness.wait_for("the invocation", lambda: file.exists() and file.read_text())
    server.kill()
    caller.wait(60)
    server.start()
    harness.wait_for("the orphan's end", lambda: not harness.alive(pid), 5)
