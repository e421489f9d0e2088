"""What conditions on a job can ask: who may change one as it stands, and put which tags. Source: S3 Batch spec 9.2, 9.3.

Each case is refused with the value that the job does not have, and allowed with the one that it has: the two policies differ in nothing else.
"""

import hashlib
import json

import pytest

import harness
from harness import ACCOUNT, REGION
from test_permissions import Person, Work, allow, denied, policy


@pytest.fixture
def person(server, name):
    return Person(server, name)


@pytest.fixture
def work(server, name):
    return Work(server, name)


def may_only(person, *statements):
    person.iam.put_user_policy(UserName=person.name, PolicyName="own", PolicyDocument=policy(*statements))


def test_a_job_as_it_stands_decides_who_may_change_it(work, person):
    work.role_may_all_but()
    job = work.job(ConfirmationRequired=True, Priority=10, Tags=[{"Key": "stage", "Value": "QA"}])
    work.server.wait(job, "Suspended")
    arn, control = f"arn:aws:s3:{REGION}:{ACCOUNT}:job/{job}", person.client("s3control")
    of_job = {"AccountId": ACCOUNT, "JobId": job}
    tags = [{"Key": "stage", "Value": "QA"}]
    right = {"NumericEquals": {"s3:ExistingJobPriority": "10"},
             "StringEquals": {"s3:ExistingJobOperation": "LambdaInvoke", "aws:ResourceTag/stage": "QA"}}
    wrongs = [right | {"NumericEquals": {"s3:ExistingJobPriority": "11"}},
              right | {"StringEquals": right["StringEquals"] | {"s3:ExistingJobOperation": "S3PutObjectCopy"}},
              right | {"StringEquals": right["StringEquals"] | {"aws:ResourceTag/stage": "Production"}}]
    for action, ask in (
        ("s3:UpdateJobPriority", lambda: control.update_job_priority(Priority=10, **of_job)),
        ("s3:PutJobTagging", lambda: control.put_job_tagging(Tags=tags, **of_job)),
        ("s3:DeleteJobTagging", lambda: control.delete_job_tagging(**of_job)),
        ("s3:GetJobTagging", lambda: control.get_job_tagging(**of_job)),
        ("s3:UpdateJobStatus", lambda: control.update_job_status(RequestedJobStatus="Cancelled", **of_job)),
    ):
        for wrong in wrongs:
            may_only(person, allow(action, arn, wrong))
            with denied(person.arn, action, arn):
                ask()
        may_only(person, allow(action, arn, right))
        ask()
        work.server.control.put_job_tagging(Tags=tags, **of_job)


def test_tags_that_are_put_decide_who_may_put_them(work, person):
    work.role_may_all_but()
    job = work.job(ConfirmationRequired=True)
    work.server.wait(job, "Suspended")
    arn, control = f"arn:aws:s3:{REGION}:{ACCOUNT}:job/{job}", person.client("s3control")
    for condition, good, bad in (
        ({"StringEquals": {"aws:RequestTag/stage": ["QA", "Production"]}}, {"stage": "QA"}, {"stage": "None"}),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": ["stage"]}}, {"stage": "None"}, {"stage": "None", "team": "a"}),
    ):
        may_only(person, allow("s3:PutJobTagging", arn, condition))
        tags = [[{"Key": key, "Value": value} for key, value in pairs.items()] for pairs in (bad, good)]
        with denied(person.arn, "s3:PutJobTagging", arn):
            control.put_job_tagging(AccountId=ACCOUNT, JobId=job, Tags=tags[0])
        control.put_job_tagging(AccountId=ACCOUNT, JobId=job, Tags=tags[1])
    work.server.control.update_job_status(AccountId=ACCOUNT, JobId=job, RequestedJobStatus="Cancelled")


def test_every_file_of_an_inventory_is_read_with_the_role(work):
    rows = "".join(f'"{bucket}","{key}"\n' for bucket, key in work.rows).encode()
    work.server.s3.put_object(Bucket=work.bucket, Key="inventory/0.csv", Body=rows)
    etag = work.server.put_manifest(work.bucket, json.dumps({
        "sourceBucket": "source", "destinationBucket": f"arn:aws:s3:::{work.bucket}", "version": "2016-11-30",
        "creationTimestamp": "1514944800000", "fileFormat": "CSV", "fileSchema": "Bucket, Key",
        "files": [{"key": "inventory/0.csv", "size": len(rows), "MD5checksum": hashlib.md5(rows).hexdigest()}],
    }), key="manifest.json")
    manifest = {"Spec": {"Format": "S3InventoryReport_CSV_20161130"},
                "Location": {"ObjectArn": f"arn:aws:s3:::{work.bucket}/manifest.json", "ETag": etag}}
    work.role_may_all_but()
    work.role_may(allow("s3:GetObject", f"arn:aws:s3:::{work.bucket}/manifest.json"))
    job, reasons = work.ended(Manifest=manifest)
    assert job["Status"] == "Failed" and reasons[0][0] == "ManifestAccessDenied", reasons
    assert "may not s3:GetObject" in reasons[1][1] and reasons[1][1].endswith(f"{work.bucket}/inventory/0.csv"), reasons
    work.role_may(allow("s3:GetObject", f"arn:aws:s3:::{work.bucket}/inventory/*"))
    harness.audit(work.server, work.succeeds(Manifest=manifest)["JobId"], work.rows)
