"""What is damaged is named where people look: in the log, in the job, at the command line. And what goes on says so."""

import re

import botocore.exceptions
import pytest

import harness

FUNCTION = """
    import time
    def handler(event, context):
        time.sleep(0.002)
        key = event["tasks"][0]["s3Key"]
        code = "PermanentFailure" if key.endswith("7") else "Succeeded"
        return {"invocationSchemaVersion": event["invocationSchemaVersion"], "invocationId": event["invocationId"],
                "results": [{"taskId": event["tasks"][0]["taskId"], "resultCode": code, "resultString": "done"}]}
"""
NAME = "damaged"
RESTORE = "Restore the whole data directory from a backup, or create the job again: all its tasks then run anew"


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A server whose files are damaged, with what the jobs here need."""
    server = harness.Server(tmp_path_factory.mktemp("damaged")).start()
    server.bucket(NAME)
    server.arn = server.deploy(NAME, FUNCTION)
    yield server
    server.stop()


def job(server, *arguments, status=0):
    done = harness.run([harness.LONGSHORE, "job", *arguments, "--data-dir", server.data_dir],
                       harness.plain_environment(server.home), check=False)
    assert done.returncode == status, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def rows(count):
    return [(NAME, f"k{number}") for number in range(count)]


def lines(server, *wanted):
    return [line for line in server.said().splitlines() if all(word in line for word in wanted)]


def flip(path, at):
    """Changes one bit."""
    whole = bytearray(path.read_bytes())
    whole[at] ^= 1
    path.write_bytes(whole)


def damage_body(server, content):
    """Changes one bit of the body that has this content, and returns its file."""
    [path] = [path for path in (server.data_dir / "objects").glob("??/*") if path.read_bytes() == content]
    flip(path, len(content) // 2)
    return path


def reasons(described):
    return [(reason["FailureCode"], reason["FailureReason"]) for reason in described["FailureReasons"]]


def test_a_damaged_object_is_named_in_the_log_with_its_file_and_the_request(own):
    content = b"an object of many words\n" * 2_000
    own.s3.put_object(Bucket=NAME, Key="some object", Body=content)
    path = damage_body(own, content)
    answer = own.s3.get_object(Bucket=NAME, Key="some object")
    with pytest.raises(botocore.exceptions.BotoCoreError):
        answer["Body"].read()
    [line] = lines(own, "an object could not be read to its end")
    assert "ERROR" in line and f"bucket={NAME}" in line and 'key="some object"' in line, line
    assert f"the body {path} fails its checksum" in line and "Damaged(" not in line, line
    assert answer["ResponseMetadata"]["RequestId"] in line, line
    path.unlink()
    with pytest.raises(own.s3.exceptions.ClientError, match="trying again does not help"):
        own.s3.get_object(Bucket=NAME, Key="some object")
    # The client has tried again.
    *_, line = lines(own, "S3 request failed")
    assert f"s3://{NAME}/some object: the body {path} is missing" in line and "Damaged(" not in line, line


def test_a_job_whose_manifest_is_damaged_says_so_and_names_it(own):
    content = "".join(f"{bucket},{key}\n" for bucket, key in rows(3_000)).encode()
    etag = own.put_manifest(NAME, content, key="list.csv")
    path = damage_body(own, content)
    id = own.create_job(NAME, own.arn, etag, key="list.csv")
    (code, reason), (also, what_to_do) = reasons(own.wait(id, "Failed"))
    assert (code, also) == ("ManifestDamaged", "ManifestDamaged")
    assert reason == (f"Reading the manifest failed: stored data is damaged: s3://{NAME}/list.csv: "
                      f"the body {path} fails its checksum")[:256]
    assert "Put the object again and create the job again" in what_to_do
    [line] = lines(own, id, "ERROR")
    assert "a job fails because its manifest is damaged" in line and f"s3://{NAME}/list.csv" in line, line
    watched = job(own, "watch", id, status=2).stderr
    assert "Failed: 0 of its tasks were begun" in watched and "report:" not in watched, watched
    left = job(own, "report", id, status=1).stderr
    assert "left no report" in left and f'"longshore job describe {id} --data-dir' in left, left


def test_a_job_goes_on_after_a_kill_with_a_line_in_the_log_and_with_damaged_results_says_everywhere_what_to_do(own):
    etag = own.put_manifest(NAME, rows(20_000), key="long.csv")
    id = own.create_job(NAME, own.arn, etag, key="long.csv")

    def settled():
        progress = own.describe(id)["ProgressSummary"]
        return progress["NumberOfTasksSucceeded"] + progress["NumberOfTasksFailed"]

    harness.wait_for("the first results", lambda: settled() > 200)
    assert not lines(own, "went on after a start"), "it has only begun"
    own.kill()
    own.start()
    [line] = lines(own, "a job went on after a start of the server", id)
    went_on = re.search(r"status=Active settled=(\d+) rows=20000\b", line)
    assert "INFO" in line and went_on, line
    assert 200 < int(went_on[1]) <= settled() < 20_000, line

    own.kill()
    segment = own.data_dir / "jobs" / id / "results" / "00000001.seg"
    flip(segment, segment.stat().st_size // 2)
    own.start()
    described = own.wait(id, "Failed")
    (code, reason), (also, what_to_do) = reasons(described)
    assert (code, also, what_to_do) == ("StateDamaged", "StateDamaged", RESTORE)
    assert f"{segment} is damaged at byte " in reason, reason
    assert len(lines(own, id, "ERROR")) == 1, "the same damage is told once"
    assert len(lines(own, "went on after a start", id)) == 1, "it did not"
    watched = job(own, "watch", id, status=2)
    assert "report:" not in watched.stderr and watched.stderr.count(RESTORE) == 1, watched.stderr
    assert "cannot be told" not in watched.stderr, watched.stderr
    assert "Report      none was written" in job(own, "describe", id).stdout
    for command in (["report"], ["retry"], ["retry", "--all"], ["failures"], ["failures", "--keys"]):
        said = job(own, *command, id, status=1).stderr
        assert f"job {id} is Failed and left no report" in said and f"hint: {RESTORE}" in said, (command, said)


def test_a_job_whose_report_has_no_bucket_says_how_its_results_can_be_had(own, tmp_path):
    own.put_manifest(NAME, rows(20), key="short.csv")
    create = ["create", "--function", NAME, "--manifest", f"s3://{NAME}/short.csv", "--watch"]
    done = job(own, *create, "--report", "s3://no-bucket-of-ours/r", status=2)
    id = done.stdout.strip()
    hint = f'"longshore job failures {id} --data-dir {own.data_dir}" shows what failed'
    assert "Failed: 18 of 20 succeeded, 2 failed" in done.stderr and "ReportDeliveryFailed: no-bucket-of-ours: NoSuchBucket" in done.stderr
    assert "\nreport:" not in done.stderr and hint in done.stderr and "2 × PermanentFailure: done" in done.stderr, done.stderr
    assert lines(own, id, "WARN a report cannot be delivered")
    for command in ("report", "retry"):
        said = job(own, command, id, status=1).stderr
        assert "is Failed and left no report" in said and hint in said, said
    failures = job(own, "failures", id, status=1)
    assert "2 × PermanentFailure: done" in failures.stdout
    assert "left no report: no-bucket-of-ours: NoSuchBucket" in failures.stderr and hint in failures.stderr, failures.stderr
    # The results are kept: with the bucket there, the report is written, nothing runs again, and a retry begins from it.
    refused = job(own, "deliver", id, status=1).stderr
    assert "ReportDeliveryFailed: The report is not delivered: no-bucket-of-ours: NoSuchBucket" in refused, refused
    own.s3.create_bucket(Bucket="no-bucket-of-ours")
    assert job(own, "deliver", id).stdout == f"s3://no-bucket-of-ours/r/job-{id}\n"
    described = own.describe(id)
    assert described["Status"] == "Failed" and described["StatusUpdateReason"].startswith("The completion report was delivered on 20")
    harness.audit(own, id, rows(20), status="Failed")
    copied = job(own, "report", id, "--output", tmp_path / "later")
    assert "18 succeeded, 2 failed; 2 files, their MD5s are right" in copied.stderr, copied.stderr
    assert "2 × PermanentFailure" in job(own, "failures", id).stdout
    again = job(own, "retry", id, "--watch", status=1)
    assert "2 of 2 failed" in again.stderr or "0 of 2 succeeded" in again.stderr, again.stderr
    listed = own.s3.list_objects_v2(Bucket="no-bucket-of-ours").get("Contents", [])
    for found in listed:
        own.s3.delete_object(Bucket="no-bucket-of-ours", Key=found["Key"])
    own.s3.delete_bucket(Bucket="no-bucket-of-ours")
    # What is wrong is the bucket, not the key.
    missing = job(own, "create", "--function", NAME, "--manifest", "s3://no-bucket-of-ours/short.csv", status=1).stderr
    assert "NoSuchBucket: There is no bucket no-bucket-of-ours" in missing, missing

    # One that was written is there whole, with what it is checked by.
    own.put_manifest(NAME, rows(3), key="three.csv")
    done = job(own, "create", "--function", NAME, "--manifest", f"s3://{NAME}/three.csv", "--report", f"s3://{NAME}/r", "--watch")
    id = done.stdout.strip()
    assert f"report: s3://{NAME}/r/job-{id}\n" in done.stderr and "hint:" not in done.stderr, done.stderr
    copied = job(own, "report", id, "--output", tmp_path / "report")
    assert "3 succeeded, 0 failed; 1 file, its MD5 is right" in copied.stderr
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ["manifest.json", "manifest.json.md5", "results"]
