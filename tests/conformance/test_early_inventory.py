"""An inventory whose rows run while its files are still being read, with real crashes in between."""

import harness
from test_beyond import crashing, deploy, kill, log, results, tags  # noqa: F401, pytest's fixtures go by their names
from test_inventory import BASE, csv_gz, put_inventory


def test_an_early_job_over_a_packed_inventory_survives_kills_and_reports_every_row_once(crashing, log):
    server = crashing
    bucket, function = server.bucket("early"), deploy(server, log, "0.002")
    rows = [(bucket, f"key-{row:05}") for row in range(2_600)]
    # The first file ends within a chunk of the second, which has two members.
    files = [csv_gz(rows[:1_500]), csv_gz(rows[1_500:], members=2)]
    etag = put_inventory(server, bucket, files, schema="Bucket, Key")
    job = server.create_job(bucket, function, etag, Tags=tags(start="while-preparing"), Manifest={
        "Spec": {"Format": "S3InventoryReport_CSV_20161130"},
        "Location": {"ObjectArn": f"arn:aws:s3:::{bucket}/{BASE}manifest.json", "ETag": etag},
    })
    total = 0
    for started in (20, 1_300):
        harness.wait_for(f"{started} tasks", lambda: len(log.keys()) >= started, 120)
        kill(server)
        progress = server.describe(job)["ProgressSummary"]
        assert progress["TotalNumberOfTasks"] >= max(total, results(server, job)), "a count went back"
        total = progress["TotalNumberOfTasks"]
    described = server.wait(job, timeout=240)
    assert described["ProgressSummary"]["TotalNumberOfTasks"] == 2_600
    harness.audit(server, job, rows, invoked=log.keys())
