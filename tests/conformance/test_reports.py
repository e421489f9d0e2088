"""Completion reports: where they lie, what they hold, and when there is none. `harness.audit` checks each of them."""

import json
import urllib.parse

import pytest

import harness

BY_KEY = """
    import urllib.parse
    def handler(event, context):
        task = event["tasks"][0]
        key = urllib.parse.unquote_plus(task["s3Key"])
        code = "PermanentFailure" if key.startswith("fail") else "Succeeded"
        return {"invocationSchemaVersion": "1.0", "invocationId": "i", "results": [
            {"taskId": task["taskId"], "resultCode": code, "resultString": key}]}
"""


@pytest.fixture(scope="module")
def by_key(server):
    return server.deploy("reports-by-key", BY_KEY)


def test_commas_quotes_and_line_breaks_come_back_from_the_csv(server, name, by_key):
    server.bucket(name)
    texts = ['a,b', '"quoted"', 'line\nbreak', 'carriage\r\nreturn', 'tab\there', '=1+1', "it's", '日本', ' spaces ', '\\N', '""',
             'fail,"all"\n']
    keys = [urllib.parse.quote(text) for text in texts]
    job = server.create_job(name, by_key, server.put_manifest(name, [(name, key) for key in keys]))
    server.wait(job)
    rows = harness.by_key(harness.audit(server, job, [(name, key) for key in keys]))
    assert {key: rows[key].message for key in keys} == dict(zip(keys, texts))


def test_a_field_is_quoted_only_where_it_has_to_be(server, name, by_key):
    server.bucket(name)
    job = server.create_job(name, by_key, server.put_manifest(name, f"{name},plain\n{name},%22q%22%2C\n"))
    described = server.wait(job)
    harness.audit(server, job, [(name, "plain"), (name, "%22q%22%2C")])
    base = f"reports/job-{job}/"
    manifest = json.loads(server.s3.get_object(Bucket=name, Key=base + "manifest.json")["Body"].read())
    text = server.s3.get_object(Bucket=name, Key=manifest["Results"][0]["Key"])["Body"].read().decode()
    assert sorted(text.split("\r\n")) == sorted(
        ["", f"{name},plain,,succeeded,200,,plain", f'{name},%22q%22%2C,,succeeded,200,,"""q"","'])
    assert described["Report"]["Prefix"] == "reports"


def test_failed_tasks_only_leaves_the_others_out(server, name, by_key):
    rows = [(server.bucket(name), key) for key in ("ok", "fail-1", "fail-2")]
    job = server.create_job(name, by_key, server.put_manifest(name, rows), scope="FailedTasksOnly")
    server.wait(job)
    report = harness.audit(server, job, rows, scope="FailedTasksOnly")
    assert {row.key for row in report} == {"fail-1", "fail-2"}


def test_failed_tasks_only_without_a_failure_is_an_empty_report(server, name, by_key):
    rows = [(server.bucket(name), "ok")]
    job = server.create_job(name, by_key, server.put_manifest(name, rows), scope="FailedTasksOnly")
    server.wait(job)
    assert harness.audit(server, job, rows, scope="FailedTasksOnly") == []


def test_a_job_without_a_report_writes_none(server, name, by_key):
    job = server.create_job(server.bucket(name), by_key, server.put_manifest(name, [(name, "ok")]), report=False)
    described = server.wait(job)
    assert described["ProgressSummary"]["NumberOfTasksSucceeded"] == 1
    assert described["Report"]["Enabled"] is False
    assert [entry["Key"] for entry in server.s3.list_objects_v2(Bucket=name)["Contents"]] == ["manifest.csv"]


@pytest.mark.parametrize("prefix, base", [("a/b", "a/b/job-"), ("slash/", "slash//job-")])
def test_the_prefix_is_joined_as_it_is(server, name, by_key, prefix, base):
    rows = [(server.bucket(name), "ok")]
    job = server.create_job(name, by_key, server.put_manifest(name, rows), prefix=prefix)
    server.wait(job)
    harness.audit(server, job, rows)
    assert server.s3.head_object(Bucket=name, Key=f"{base}{job}/manifest.json")["ContentType"] == "application/json"


def test_a_report_that_cannot_be_written_fails_the_job(server, name, by_key):
    rows = [(server.bucket(name), "ok")]
    job = server.create_job(name, by_key, server.put_manifest(name, rows), Report={
        "Bucket": f"arn:aws:s3:::{name}-nowhere", "Format": "Report_CSV_20180820", "Enabled": True, "Prefix": "p",
        "ReportScope": "AllTasks"})
    described = server.wait(job, "Failed")
    failure = described["FailureReasons"][0]
    assert failure["FailureCode"] == "ReportDeliveryFailed"
    assert failure["FailureReason"].startswith("The job report could not be written to your report bucket.")
    assert described["ProgressSummary"]["NumberOfTasksSucceeded"] == 1, "the tasks ran all the same"


def test_a_report_of_ten_thousand_rows_has_each_of_them_once(server, name, by_key):
    server.bucket(name)
    rows = [(name, f"{'fail' if number % 7 == 0 else 'ok'}/{number:05}") for number in range(10_000)]
    job = server.create_job(name, by_key, server.put_manifest(name, rows))
    server.wait(job, timeout=240)
    report = harness.audit(server, job, rows)
    assert len({row.key for row in report}) == 10_000
