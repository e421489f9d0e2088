"""What is seen of a job is exact whatever happens to its server: it does not go back, and counts and times are of one moment."""

import json
import time

import harness

WORK = """
import time
def handler(event, context):
    time.sleep(0.02)
    task = event["tasks"][0]
    code, message = "Succeeded", ""
    if "again" in task["s3Key"]:
        code, message = "TemporaryFailure", "not now"
    return {"invocationSchemaVersion": "1.0", "invocationId": event["invocationId"],
            "results": [{"taskId": task["taskId"], "resultCode": code, "resultString": message}]}
"""
AT_ONCE = 4
CALL_S = 0.02
# What is there before calls are over in the first second.
SETTLED_MIN = 20


def figures(server, job):
    return json.loads(server.longshore("job", "describe", job, "--json").stdout)["Figures"]


def stage(directory, **settings):
    server = harness.Server(directory, {"LONGSHORE_JOBS_RETRY_MS": "50", "LONGSHORE_JOBS_ATTEMPTS_MAX": "3", **settings}).start()
    server.bucket("seen")
    server.deploy("work", WORK)
    server.functions.put_function_concurrency(FunctionName="work", ReservedConcurrentExecutions=AT_ONCE)
    return server


def seen(server, job):
    described = server.describe(job)
    summary = described["ProgressSummary"]
    settled = summary["NumberOfTasksSucceeded"] + summary["NumberOfTasksFailed"]
    return settled, summary["Timers"]["ElapsedTimeInActiveSeconds"], figures(server, job)


def test_a_kill_in_the_first_second_takes_back_neither_counts_nor_times_nor_the_time_in_active(tmp_path):
    server = stage(tmp_path)
    try:
        etag = server.put_manifest("seen", [("seen", f"k{n}") for n in range(20_000)])
        job = server.create_job("seen", "work", etag, report=False)
        server.wait(job, "Active")
        began = time.monotonic()
        harness.wait_for("results", lambda: seen(server, job)[0] >= SETTLED_MIN)
        time.sleep(max(0.0, began + 1.2 - time.monotonic()))
        for _ in range(2):
            settled, active_s, before = seen(server, job)
            # What is told of times is a fifth of a second old, and of a first second something.
            assert settled > 0 < before["taskDuration"]["count"] == before["answers"]["Succeeded"]
            server.kill()
            server.start()
            again, again_s, after = seen(server, job)
            assert again >= settled and again_s >= active_s
            for times in ("taskDuration", "attemptDuration"):
                assert after[times]["count"] >= before[times]["count"] and after[times]["maxMs"] >= before[times]["maxMs"]
            assert after["invocations"]["succeeded"] >= before["invocations"]["succeeded"]
            # No more than can be called in the time: both are of one moment.
            assert 0 < after["tasksPerSecond"]["mean"] <= 1.1 * AT_ONCE / CALL_S, after
        server.control.update_job_status(AccountId=harness.ACCOUNT, JobId=job, RequestedJobStatus="Cancelled")
        server.wait(job, "Cancelled")
        settled, active_s, kept = seen(server, job)
        assert settled >= again and active_s >= again_s >= 1
        assert kept["taskDuration"]["count"] == kept["answers"]["Succeeded"] == settled
        assert kept["tasksPerSecond"]["mean"] <= 1.1 * AT_ONCE / CALL_S
    finally:
        server.stop()


def test_what_functions_answer_and_what_is_tried_again_is_counted_for_a_job_and_for_all(tmp_path):
    server = stage(tmp_path, LONGSHORE_METRICS_LISTEN="127.0.0.1:0")
    try:
        etag = server.put_manifest("seen", [("seen", f"{'again' if n < 5 else 'k'}%20{n}") for n in range(50)])
        job = server.create_job("seen", "work", etag, report=False)
        server.wait(job, "Complete")
        found = figures(server, job)
        # Each of five is tried three times, and fails with the last answer.
        assert found["answers"] == {"Succeeded": 45, "TemporaryFailure": 15, "PermanentFailure": 0}
        assert found["retries"] == 10 and found["invocations"]["succeeded"] == 60
        said = server.longshore("job", "describe", job).stdout
        assert "45 × Succeeded, 15 × TemporaryFailure" in said and "Retries     10" in said, said
        status, _, scrape = harness.send(
            server, "GET", "/_longshore/v1/metrics", harness.signed(server, "GET", "s3", "/_longshore/v1/metrics"))
        assert status == 200
        for line in ('longshore_task_answers_total{code="TemporaryFailure"} 15', "longshore_task_retries_total 10"):
            assert line in scrape.decode().splitlines(), line
        page = (harness.ROOT / "docs/metrics.md").read_text()
        for member in found:
            assert f"`{member}`" in page, f"docs/metrics.md does not explain {member}"
    finally:
        server.stop()
