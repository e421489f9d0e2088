"""What becomes of a task, by what its function did: each row of the decision table of the S3 Batch specification.

One job runs every case; its keys name them. The tests then read the one report.
"""

import collections
import json

import pytest

import harness

FUNCTION_TIMEOUT = 2
# What is tried five times.
RETRIED = ("temporary", "missing-temporary", "missing-absent", "missing-unknown")
LARGEST_ANSWER = 6 * 1024 * 1024 + 100

MISBEHAVE = """
    import json, os, sys, time

    def handler(event, context):
        task = event["tasks"][0]
        case = task["s3Key"]
        print(json.dumps({"key": case, "task": task["taskId"], "invocation": event["invocationId"]}), flush=True)
        results = [{"taskId": task["taskId"], "resultCode": "Succeeded", "resultString": "fine"}]
        answer = {"invocationSchemaVersion": "1.0", "invocationId": event["invocationId"], "results": results}

        def result(code, string="because"):
            results[0].update(resultCode=code, resultString=string)
            return answer

        def missing(treat):
            answer["results"] = []
            if treat is not None:
                answer["treatMissingKeysAs"] = treat
            return answer

        if case == "succeeded": return answer
        if case == "permanent": return result("PermanentFailure", "no such page")
        if case == "temporary": return result("TemporaryFailure", "come again")
        if case == "temporary-once":
            if os.path.exists(os.environ["SEEN"]): return result("Succeeded", "at last")
            open(os.environ["SEEN"], "x").close()
            return result("TemporaryFailure", "come again")
        if case == "missing-succeeded": return missing("Succeeded")
        if case == "missing-permanent": return missing("PermanentFailure")
        if case == "missing-temporary": return missing("TemporaryFailure")
        if case == "missing-absent": return missing(None)
        if case == "missing-unknown": return missing("Perhaps")
        if case == "another-task":
            results[0]["taskId"] = "another"
            answer["treatMissingKeysAs"] = "PermanentFailure"
            return answer
        if case == "two-results":
            results.append({"taskId": task["taskId"], "resultCode": "PermanentFailure", "resultString": "second"})
            return answer
        if case == "code-unknown": return result("Maybe")
        if case == "code-case": return result("succeeded")
        if case == "code-absent":
            del results[0]["resultCode"]
            return answer
        if case == "string-absent":
            del results[0]["resultString"]
            return answer
        if case == "string-object": return result("Succeeded", {"a": [1, None, "x"]})
        if case == "string-long": return result("Succeeded", "\\u00e9" * 2000)
        if case == "string-nasty": return result("Succeeded", 'a,"b"\\r\\nc\\n=1+1')
        if case == "unknown-fields": return answer | {"treatMissingKeyAs": "x", "resultCode": "y"}
        if case == "raises": raise ValueError("boom")
        if case == "null": return None
        if case == "string": return "fine"
        if case == "list": return [answer]
        if case == "no-results": return {"invocationSchemaVersion": "1.0"}
        if case == "results-object": return answer | {"results": {}}
        if case == "exits":
            sys.stdout.flush()
            os._exit(3)
        if case == "exits-zero": os._exit(0)
        if case == "killed": os.kill(os.getpid(), 9)
        if case == "hangs": time.sleep(3600)
        if case == "seven-mb": return result("Succeeded", "x" * 7_000_000)
        if case == "garbage-printed":
            sys.stdout.buffer.write(b"\\xff\\x00\\x1b[31m not text" * 1000)
            sys.stdout.flush()
            return answer
        if case == "unserialisable": return {"results": {1, 2}}
        raise AssertionError(case)
"""

CASES = (
    "succeeded permanent temporary temporary-once missing-succeeded missing-permanent missing-temporary missing-absent "
    "missing-unknown another-task two-results code-unknown code-case code-absent string-absent string-object string-long "
    "string-nasty unknown-fields raises null string list no-results results-object exits exits-zero killed hangs seven-mb "
    "garbage-printed unserialisable"
).split()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server of its own: its function leaves a file where all its processes find it."""
    server = harness.Server(tmp_path_factory.mktemp("decisions"), harness.UNCONFINED).start()
    yield server
    server.stop()
    assert "panicked at" not in server.said()


@pytest.fixture(scope="module")
def report(server, tmp_path_factory):
    """The rows of the report by key, and the invocations that the function's log shows by key."""
    seen = tmp_path_factory.mktemp("seen") / "once"
    function = server.deploy(
        "misbehave", MISBEHAVE, timeout=FUNCTION_TIMEOUT, environment={"SEEN": str(seen)})
    bucket = server.bucket("decisions")
    rows = [(bucket, case) for case in CASES]
    job = server.create_job(bucket, function, server.put_manifest(bucket, rows))
    server.wait(job, timeout=240)
    def logged():
        invocations = collections.defaultdict(list)
        for line in server.longshore("logs", "misbehave").stdout.splitlines():
            if '"invocation"' in line:
                entry = json.loads(line[line.index("{"):])
                invocations[entry["key"]].append(entry)
        # The log is written beside the calls: the last lines may come a moment after the job's end.
        return invocations if all(len(invocations[case]) >= 5 for case in RETRIED) else None

    invocations = harness.wait_for("the log of the last invocations", logged, 30)
    counted = collections.Counter({key: len(logged) for key, logged in invocations.items()})
    return harness.by_key(harness.audit(server, job, rows, invoked=counted)), invocations


@pytest.mark.parametrize("case, message", [
    ("succeeded", "fine"),
    ("temporary-once", "at last"),
    ("missing-succeeded", ""),
    ("two-results", "fine"),
    ("string-absent", ""),
    ("string-object", '{"a":[1,null,"x"]}'),
    ("string-long", "é" * 1024),
    ("string-nasty", 'a,"b"\r\nc\n=1+1'),
    ("unknown-fields", "fine"),
    ("garbage-printed", "fine"),
], ids=lambda value: value if value in CASES else "")
def test_a_task_succeeds(report, case, message):
    row = report[0][case]
    assert (row.status, row.http_status, row.error_code, row.message) == ("succeeded", "200", "", message)


@pytest.mark.parametrize("case, message", [
    ("permanent", "no such page"),
    ("missing-permanent", "Task result missing from Lambda response"),
    ("another-task", "Task result missing from Lambda response"),
    ("code-unknown", "Invalid result code returned in Lambda payload: Maybe"),
    ("code-case", "Invalid result code returned in Lambda payload: succeeded"),
    ("null", "Invalid JSON returned in Lambda payload"),
    ("string", "Invalid JSON returned in Lambda payload"),
    ("list", "Invalid JSON returned in Lambda payload"),
    ("no-results", "Invalid JSON returned in Lambda payload"),
    ("results-object", "Invalid JSON returned in Lambda payload"),
])
def test_a_task_fails_for_good(report, case, message):
    rows, invocations = report
    row = rows[case]
    assert (row.status, row.http_status, row.error_code, row.message) == ("failed", "200", "PermanentFailure", message)
    assert len(invocations[case]) == 1, "a permanent failure is not tried again"


def test_a_missing_result_code_fails_for_good(report):
    row = report[0]["code-absent"]
    assert (row.status, row.http_status, row.error_code) == ("failed", "200", "PermanentFailure")
    assert row.message.startswith("Invalid result code returned in Lambda payload")


@pytest.mark.parametrize("case, message", [
    ("temporary", "come again"),
    ("missing-temporary", "Task result missing from Lambda response"),
    ("missing-absent", "Task result missing from Lambda response"),
    ("missing-unknown", "Task result missing from Lambda response"),
])
def test_a_temporary_failure_is_tried_five_times_and_then_final(report, case, message):
    rows, invocations = report
    row = rows[case]
    assert (row.status, row.http_status, row.error_code, row.message) == ("failed", "200", "TemporaryFailure", message)
    assert len(invocations[case]) == 5
    assert len({logged["task"] for logged in invocations[case]}) == 1, "the task keeps its ID"
    assert len({logged["invocation"] for logged in invocations[case]}) == 5, "each invocation has an ID of its own"


def test_a_temporary_failure_that_passes_succeeds(report):
    assert len(report[1]["temporary-once"]) == 2


@pytest.mark.parametrize("case, named", [
    ("raises", ["boom", "ValueError"]),
    ("exits", ["Runtime.ExitError", "exit status 3"]),
    ("exits-zero", ["Runtime.ExitError"]),
    ("killed", ["Runtime.ExitError", "signal: killed"]),
    ("hangs", ["Task timed out after 2.00 seconds"]),
    ("seven-mb", [f"Response payload size exceeded maximum allowed payload size ({LARGEST_ANSWER} bytes)"]),
    ("unserialisable", ["Runtime.MarshalError"]),
])
def test_a_function_error_fails_the_task_at_once_and_says_why(report, case, named):
    rows, invocations = report
    row = rows[case]
    assert (row.status, row.http_status, row.error_code) == ("failed", "200", "PermanentFailure")
    assert row.message.startswith("Lambda returned function error: {"), row.message
    for words in named:
        assert words in row.message, row.message
    assert len(invocations[case]) == 1, "a function error is not tried again"


def test_an_unknown_function_fails_every_task_at_once(server, name):
    rows = [(server.bucket(name), "a"), (name, "b")]
    job = server.create_job(name, f"arn:aws:lambda:us-east-1:000000000000:function:{name}", server.put_manifest(name, rows))
    server.wait(job, "Complete")
    for row in harness.audit(server, job, rows):
        assert (row.status, row.http_status, row.error_code) == ("failed", "404", "ResourceNotFoundException")
        assert "Function not found" in row.message and name in row.message


def test_more_than_half_of_a_thousand_failed_tasks_fail_the_job(server, name):
    function = server.deploy(name, """
        def handler(event, context):
            task = event["tasks"][0]
            return {"invocationSchemaVersion": "1.0", "invocationId": "i", "results": [
                {"taskId": task["taskId"], "resultCode": "PermanentFailure", "resultString": "no"}]}
    """)
    rows = [(server.bucket(name), f"k{number}") for number in range(3000)]
    job = server.create_job(name, function, server.put_manifest(name, rows))
    described = server.wait(job, "Failed")
    assert described["FailureReasons"][0]["FailureCode"] == "TaskFailureThresholdExceeded"
    report = harness.audit(server, job, rows, status="Failed")
    assert 1000 <= len(report) < 3000, "the job stopped, and reports what it has done"


def test_999_failed_tasks_complete_the_job(server, name):
    function = server.deploy(name, """
        def handler(event, context):
            task = event["tasks"][0]
            return {"invocationSchemaVersion": "1.0", "invocationId": "i", "results": [
                {"taskId": task["taskId"], "resultCode": "PermanentFailure", "resultString": "no"}]}
    """)
    rows = [(server.bucket(name), f"k{number}") for number in range(999)]
    job = server.create_job(name, function, server.put_manifest(name, rows), scope="FailedTasksOnly")
    server.wait(job, "Complete")
    assert len(harness.audit(server, job, rows, scope="FailedTasksOnly")) == 999
