"""Condition keys of what a job does with its role: they are those that a client's request for the same would have.

A role may read, list and write on conditions that hold; each statement's control differs in one value. Jobs wait to be confirmed: what is
asked, is asked while they are prepared.
"""

import uuid

import pytest

from harness import ACCOUNT
from test_permissions import Work, allow

LISTING, WRITING = ["s3:ListBucket", "s3:ListBucketVersions"], "s3:PutObject"
# What there is none of, so that a condition that asks for it is decided.
NONE_OF_A_LISTING = ["s3:delimiter"]
NONE_OF_WHAT_IS_WRITTEN = [
    "s3:ExistingObjectTag/kind", "s3:RequestObjectTag/kind", "s3:x-amz-acl", "s3:x-amz-copy-source", "s3:x-amz-metadata-directive",
    "s3:x-amz-server-side-encryption", "s3:x-amz-storage-class"]


@pytest.fixture
def work(server, name):
    return Work(server, name)


def prepared(work, statements, generated=False, prefix=None):
    """What becomes of a job whose role may do this and no more: its status, and why."""
    work.statements = []
    work.role_may(*statements)
    request = work.request(ConfirmationRequired=True)
    if generated:
        del request["Manifest"]
        bucket = f"arn:aws:s3:::{work.bucket}"
        generator = {"SourceBucket": bucket, "EnableManifestOutput": True, "ManifestOutputLocation": {
            "Bucket": bucket, "ManifestPrefix": "lists", "ManifestFormat": "S3InventoryReport_CSV_20211130"}}
        if prefix:
            generator["Filter"] = {"KeyNameConstraint": {"MatchAnyPrefix": [prefix]}}
        request["ManifestGenerator"] = {"S3JobManifestGenerator": generator}
    request["ClientRequestToken"] = uuid.uuid4().hex
    job = work.server.wait(work.server.control.create_job(**request)["JobId"], ("Suspended", "Failed"))
    return job["Status"], " ".join(reason["FailureReason"] for reason in job["FailureReasons"])


def deny(action, operator, key, value):
    return allow(action, "*", {operator: {key: value}}, effect="Deny")


def test_the_manifest_has_its_tags_in_the_jobs_questions(work):
    tags = {"TagSet": [{"Key": "kind", "Value": "manifest"}]}
    work.server.s3.put_object_tagging(Bucket=work.bucket, Key="manifest.csv", Tagging=tags)
    key = "s3:ExistingObjectTag/kind"
    others = allow("s3:PutObject")
    denied = "The job's role may not s3:GetObject"
    for statements, status, why in [
        ([allow("s3:GetObject", "*", {"StringEquals": {key: "manifest"}}), deny("s3:*", "StringEquals", key, "data"),
          deny("s3:*", "StringEquals", "s3:ExistingObjectTag/secret", "yes")], "Suspended", ""),
        ([allow("s3:GetObject", "*", {"StringEquals": {key: "data"}})], "Failed", denied),
        ([allow("s3:GetObject"), deny("s3:*", "StringEquals", key, "manifest")], "Failed", denied),
    ]:
        found, reasons = prepared(work, [*statements, others])
        assert (found, why in reasons) == (status, True), (statements, reasons)


def test_a_listing_and_what_is_written_have_the_keys_of_a_clients_requests(work):
    def may(listing, writing, *more):
        return [allow(LISTING, "*", listing), allow(WRITING, "*", writing), allow("s3:GetObject"), *more]

    def none(keys):
        return {"Null": {key: "true" for key in keys}}

    pages = {"NumericEquals": {"s3:max-keys": "1000"}}
    listing, writing = none(NONE_OF_A_LISTING) | pages, none(NONE_OF_WHAT_IS_WRITTEN)
    # No Deny holds that asks for another value, or for one where there is none.
    denials = [deny(LISTING, "StringEquals", key, "kind") for key in ["s3:prefix", *NONE_OF_A_LISTING]]
    denials += [deny(WRITING, "StringEquals", key, "kind") for key in NONE_OF_WHAT_IS_WRITTEN]
    denials.append(deny(LISTING, "NumericGreaterThan", "s3:max-keys", "1000"))
    with_prefix = listing | {"StringEquals": {"s3:prefix": "data/"}}
    without = listing | none(["s3:prefix", *NONE_OF_A_LISTING])
    for statements, prefix, failed in [
        (may(with_prefix, writing, *denials), "data/", None),
        (may(without, writing, *denials), None, None),
        (may(with_prefix, writing), "dat", "may not s3:ListBucket"),
        (may(without, writing), "data/", "may not s3:ListBucket"),
        (may(listing | {"NumericEquals": {"s3:max-keys": "999"}}, writing), None, "may not s3:ListBucket"),
        (may(listing, writing | {"StringEquals": {"s3:x-amz-acl": "public-read"}}), None, "may not s3:PutObject"),
        (may(listing, writing, deny(WRITING, "Null", "s3:x-amz-storage-class", "true")), None, "may not s3:PutObject"),
    ]:
        status, reasons = prepared(work, statements, generated=True, prefix=prefix)
        assert status == ("Failed" if failed else "Suspended"), (statements, reasons)
        assert (failed or "") in reasons
