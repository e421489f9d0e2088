"""Metrics and figures of jobs, as Prometheus and people see them, from a real server with real jobs."""

import http.client
import json
import math
import re
import subprocess

import pytest

import harness
from harness import LONGSHORE

# Asks for another try for keys with "again" in them, and throws for "broken"; waits a little, so that there is something to
# measure.
WORK = """
    import time

    def handler(event, context):
        task = event["tasks"][0]
        key, code = task["s3Key"], "Succeeded"
        time.sleep(0.005)
        if "broken" in key:
            raise KeyError(key)
        if "again" in key:
            code = "TemporaryFailure"
        return {"invocationSchemaVersion": "1.0", "invocationId": event["invocationId"],
                "results": [{"taskId": task["taskId"], "resultCode": code, "resultString": ""}]}
"""
ROWS = 200
BUCKET = "scraped"
KINDS = {"counter", "gauge", "histogram"}


# --- a strict reader of the text format 0.0.4 ---

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
SAMPLE = re.compile(rf"({NAME})(?:\{{(.*)\}})? (\S+)")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')


class Scraped:
    """A scrape, read as strictly as the format is written down: anything else is an error."""

    def __init__(self, text):
        assert text.endswith("\n"), "the last line must end"
        self.kinds, self.help, self.samples = {}, {}, {}
        current = None
        for line in text[:-1].split("\n"):
            if line.startswith("# HELP "):
                current, _, said = line[len("# HELP "):].partition(" ")
                assert current not in self.help and said, line
                self.help[current] = said
            elif line.startswith("# TYPE "):
                name, kind = line[len("# TYPE "):].split(" ")
                assert name == current and name not in self.kinds and kind in KINDS, line
                self.kinds[name] = kind
            else:
                self.sample(line, current)
        for name, kind in self.kinds.items():
            if kind == "histogram":
                self.check_histogram(name)

    def sample(self, line, current):
        found = SAMPLE.fullmatch(line)
        assert found, f"no sample: {line!r}"
        name, labels, value = found[1], {}, float(found[3])
        rest = found[2] or ""
        while rest:
            label = LABEL.match(rest)
            assert label and label[1] not in labels, line
            labels[label[1]], rest = label[2], rest[label.end():]
        suffixes = ("_bucket", "_sum", "_count") if self.kinds.get(current) == "histogram" else ("",)
        assert name in [current + suffix for suffix in suffixes], f"{line} stands below {current}"
        key = (name, frozenset(labels.items()))
        assert key not in self.samples, f"twice: {line}"
        assert self.kinds[current] == "gauge" or value >= 0, line
        self.samples[key] = value

    def check_histogram(self, name):
        series = {}
        for (sample, labels), value in self.samples.items():
            if sample == f"{name}_bucket":
                bound = dict(labels)["le"]
                rest = labels - {("le", bound)}
                series.setdefault(rest, []).append((float(bound), value))
        for labels, buckets in series.items():
            bounds, counts = zip(*buckets)
            assert list(bounds) == sorted(bounds) and bounds[-1] == math.inf, name
            assert list(counts) == sorted(counts), f"{name} {labels} does not count up: {counts}"
            assert counts[-1] == self.samples[f"{name}_count", labels]
            assert (self.samples[f"{name}_sum", labels] > 0) == (counts[-1] > 0)

    def get(self, name, **labels):
        return self.samples[name, frozenset(labels.items())]


def signed_scrape(server):
    status, headers, body = harness.send(
        server, "GET", "/_longshore/v1/metrics", harness.signed(server, "GET", "s3", "/_longshore/v1/metrics"))
    assert status == 200, body
    headers = {name.lower(): value for name, value in dict(headers).items()}
    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return Scraped(body.decode())


def door(server):
    host, port = json.loads((server.data_dir / "server.json").read_text())["metrics_listen"].split(":")
    assert host == "127.0.0.1"
    return http.client.HTTPConnection(host, int(port), timeout=30)


def asked(connection, method="GET", path="/metrics", headers=()):
    connection.request(method, path, headers=dict(headers))
    answer = connection.getresponse()
    return answer.status, answer.getheader("content-type"), answer.read().decode()


@pytest.fixture(scope="module")
def scraped(tmp_path_factory):
    """A server with the listener for metrics, its log in JSON, on which jobs are run."""
    server = harness.Server(tmp_path_factory.mktemp("metrics"), {
        "LONGSHORE_METRICS_LISTEN": "127.0.0.1:0", "LONGSHORE_LOG_FORMAT": "json", "LONGSHORE_JOBS_RETRY_MS": "50",
        "LONGSHORE_JOBS_ATTEMPTS_MAX": "2",
        "LONGSHORE_LOG": "info,s3s=off",
    }).start()
    server.bucket(BUCKET)
    server.deploy("work", WORK)
    yield server
    server.stop()
    assert "panicked" not in server.said()


@pytest.fixture(scope="module")
def ended(scraped):
    """A job that is over: some tasks were tried twice, some failed."""
    keys = [f"{'again' if n % 20 == 0 else 'broken' if n % 20 == 1 else 'key'}-{n}" for n in range(ROWS)]
    etag = scraped.put_manifest(BUCKET, [(BUCKET, key) for key in keys], key="list.csv")
    job = scraped.create_job(BUCKET, "work", etag, key="list.csv")
    scraped.wait(job, "Complete")
    return job


def figures(server, job):
    return json.loads(server.longshore("job", "describe", job, "--json").stdout)["Figures"]


def test_a_scrape_tells_what_a_job_has_done_to_whoever_signs_and_on_the_listener_for_metrics(scraped, ended):
    status, kind, text = asked(door(scraped))
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    for found in [Scraped(text), signed_scrape(scraped)]:
        again, broken = ROWS / 20, ROWS / 20
        assert found.get("longshore_jobs", status="Complete") == 1
        assert found.get("longshore_jobs", status="Active") == 0
        assert found.get("longshore_tasks_total", outcome="succeeded") == ROWS - broken - again
        assert found.get("longshore_tasks_total", outcome="failed") == broken + again
        assert found.get("longshore_invocations_total", result="function_error") == broken
        assert found.get("longshore_invocations_total", result="succeeded") == ROWS - broken + again
        assert found.get("longshore_task_duration_seconds_count") == ROWS
        assert found.get("longshore_attempt_duration_seconds_count") == ROWS + again
        assert found.get("longshore_attempt_duration_seconds_bucket", le="0.0025") == 0, "each takes 5 ms"
        assert found.get("longshore_invocations_in_flight") == 0
        assert found.get("longshore_sync_duration_seconds_count", store="records") > 5
        assert found.get("longshore_sync_duration_seconds_count", store="results") >= 1
        calls = found.get("longshore_function_invocations_total", function="work", result="succeeded")
        assert calls == found.get("longshore_invocations_total", result="succeeded")
        assert found.get("longshore_function_cold_start_seconds_count", function="work") >= 1
        states = ["starting", "idle", "busy", "frozen"]
        assert sum(found.get("longshore_environments", state=state) for state in states) >= 1
        assert found.get("longshore_requests_total", api="s3-control", status="2xx") >= 2
        assert found.get("process_resident_memory_bytes") > 1 << 20 and found.get("process_open_fds") > 5
        assert found.get("process_cpu_seconds_total") > 0
        assert found.get("longshore_build_info", version="0.1.0") == 1
        assert not [labels for _, labels in found.samples if ended in str(labels)], "no series of its own for a job"
        page = (harness.ROOT / "docs/metrics.md").read_text()
        assert all(f"| `{name}` | {kind} |" in page for name, kind in found.kinds.items())
        for queue in re.findall(r"\(`([a-z-]+)`\)", page):
            found.get("longshore_queue_depth", queue=queue)


def test_metrics_are_not_for_whoever_comes_along(scraped):
    assert harness.send(scraped, "GET", "/_longshore/v1/metrics")[0] == 403
    assert harness.send(scraped, "GET", "/metrics")[0] in (403, 404)
    wrong = harness.signed(scraped, "POST", "s3", "/_longshore/v1/metrics")
    assert harness.send(scraped, "POST", "/_longshore/v1/metrics", wrong)[0] == 405
    # The listener: no other host, no other path, no other method, and nothing of the server's own.
    connection = door(scraped)
    assert asked(connection, headers=[("Host", "rebound.example")])[0] == 403
    assert asked(connection, path="/")[0] == 404
    assert asked(connection, path="/_longshore/v1/jobs")[0] == 404
    assert asked(connection, "POST")[0] == 405
    assert asked(connection, "HEAD")[0] == 200
    refused = harness.run(
        [LONGSHORE, "serve", "--data-dir", scraped.directory / "other", "--metrics-listen", "0.0.0.0:0"],
        harness.plain_environment(scraped.home), check=False)
    assert refused.returncode == 64 and "loopback" in refused.stderr


def test_a_finished_job_tells_how_long_its_tasks_attempts_and_cold_starts_took_also_after_a_restart(scraped, ended):
    first = figures(scraped, ended)
    assert first["tasksPerSecond"]["now"] is None and first["tasksPerSecond"]["mean"] > 0
    assert (first["secondsLeft"], first["secondsLeftUnknown"]) == (None, "not-running")
    task, attempt, cold = first["taskDuration"], first["attemptDuration"], first["coldStartDuration"]
    assert task["count"] == ROWS and attempt["count"] == ROWS + ROWS / 20 and cold["count"] >= 1
    for times in (task, attempt, cold):
        assert 0 < times["p50Ms"] <= times["p90Ms"] <= times["p99Ms"] <= times["maxMs"]
    assert attempt["p50Ms"] >= 5 and cold["p50Ms"] > 10
    assert first["invocations"]["function_error"] == ROWS / 20
    said = scraped.longshore("job", "describe", ended).stdout
    assert re.search(r"^Tasks took  p50 [\d.]+ m?s, p90 .*, p99 .*, longest .* \(200\)$", said, re.M), said
    assert re.search(r"^Cold start  p50 ", said, re.M)
    watched = scraped.longshore("job", "watch", ended, check=False)
    assert watched.returncode == 1 and "tasks took: p50" in watched.stderr
    scraped.stop()
    scraped.start()
    assert figures(scraped, ended) == first


def test_a_running_job_tells_its_rate_and_what_is_left_only_once_that_is_known(scraped):
    scraped.deploy("slow", """
        import time
        def handler(event, context):
            time.sleep(0.02)
            task = event["tasks"][0]
            return {"invocationSchemaVersion": "1.0", "invocationId": event["invocationId"],
                    "results": [{"taskId": task["taskId"], "resultCode": "Succeeded", "resultString": ""}]}
    """)
    scraped.functions.put_function_concurrency(FunctionName="slow", ReservedConcurrentExecutions=2)
    etag = scraped.put_manifest(BUCKET, [(BUCKET, f"k{n}") for n in range(30_000)], key="long.csv")
    job = scraped.create_job(BUCKET, "slow", etag, key="long.csv", report=False)
    scraped.wait(job, "Active")
    early = harness.wait_for("a job that goes", lambda: (f := figures(scraped, job))["tasksPerSecond"]["now"] and f)
    assert early["secondsLeft"] is None and early["secondsLeftUnknown"] == "too-early"
    known = harness.wait_for("a forecast", lambda: (f := figures(scraped, job))["secondsLeft"] and f)
    rate = known["tasksPerSecond"]["now"]
    assert 10 < rate <= 101, "two at once that take 20 ms each"
    assert 0.5 < known["secondsLeft"] * rate / 30_000 < 1.5
    assert known["tasks"]["inFlight"] <= 2 < known["tasks"]["ready"]
    found = signed_scrape(scraped)
    assert found.get("longshore_jobs", status="Active") == 1
    assert 1 <= found.get("longshore_invocations_in_flight") <= 2
    assert found.get("longshore_queue_depth", queue="tasks-ready") > 100
    assert "tasks a second now" in scraped.longshore("job", "describe", job).stdout
    # A server that is started again elsewhere is found by whoever watches.
    with subprocess.Popen(
        [LONGSHORE, "job", "watch", job, "--data-dir", scraped.data_dir], stderr=subprocess.PIPE, text=True,
        env=harness.plain_environment(scraped.home),
    ) as watching:
        assert " of 30000: " in watching.stderr.readline()
        before = scraped.address
        scraped.kill()
        scraped.start()
        assert scraped.address != before
        scraped.control.update_job_status(AccountId=harness.ACCOUNT, JobId=job, RequestedJobStatus="Cancelled")
        _, said = watching.communicate(timeout=60)
    assert watching.returncode == 2 and "Cancelled: " in said, said
    kept = figures(scraped, job)
    assert kept["secondsLeftUnknown"] == "not-running"
    progress = scraped.describe(job)["ProgressSummary"]
    assert kept["taskDuration"]["count"] == progress["NumberOfTasksSucceeded"] > 0 == progress["NumberOfTasksFailed"]


def test_a_jobs_life_is_a_dozen_lines_of_json_with_the_names_of_its_moves(scraped, ended):
    lines = [json.loads(line) for line in scraped.said().splitlines() if line.startswith("{")]
    assert all({"timestamp", "level", "fields", "target"} <= set(line) for line in lines)
    of_job = [line["fields"] for line in lines if line["fields"].get("job") == ended]
    assert 3 <= len(of_job) <= 12, of_job
    moves = [(fields["from"], fields["to"]) for fields in of_job if fields["message"] == "job changed status"]
    assert moves[0][0] == "New" and moves[-1] == ("Completing", "Complete")


def test_what_a_job_will_not_find_is_said_when_it_is_created(scraped, ended):
    made = scraped.longshore(
        "job", "create", "--function", "none", "--manifest", "s3://scraped/list.csv", "--report", "s3://no-such-bucket/p", "--confirm")
    assert "there is no function arn:aws:lambda:us-east-1:000000000000:function:none on this server" in made.stderr
    assert "there is no bucket no-such-bucket for the report" in made.stderr
    made = scraped.longshore("job", "create", "--function", "work", "--manifest", "s3://scraped/list.csv", "--report", "s3://scraped/p", "--confirm")
    assert "there is no" not in made.stderr
    [row] = [f for f in json.loads(scraped.longshore("function", "stats", "--json").stdout)["functions"] if f["functionName"] == "work"]
    assert "KeyError" not in row["errorsByType"], "the server was started again since"
    scraped.functions.invoke(FunctionName="work", Payload=json.dumps({"tasks": [{"s3Key": "broken"}]}))
    stats = json.loads(scraped.longshore("function", "stats", "work", "--json").stdout)
    assert stats["errorsByType"] == {"KeyError": 1}


def test_events_that_a_function_loses_are_counted_for_it_and_told_in_its_log(scraped, ended):
    scraped.functions.put_function_concurrency(FunctionName="work", ReservedConcurrentExecutions=0)
    scraped.functions.invoke(FunctionName="work", InvocationType="Event", Payload=b"{}")
    stats = harness.wait_for("an event that is dropped", lambda: (
        s := json.loads(scraped.longshore("function", "stats", "work", "--json").stdout))["eventsDropped"] and s)
    assert stats["eventsDroppedByReason"] == {"ZeroReservedConcurrency": 1}
    logs = scraped.longshore("function", "logs", "work").stdout
    assert "longshore: an event was dropped, and will not be run: ZeroReservedConcurrency" in logs
    assert signed_scrape(scraped).get("longshore_function_events_dropped_total", function="work") == 1
    scraped.functions.delete_function_concurrency(FunctionName="work")
