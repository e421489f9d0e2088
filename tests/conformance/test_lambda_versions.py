"""Versions, aliases, permissions and revisions of functions, as boto3, the AWS CLI and a Terraform-like client see them.

Evidence for what is expected: Lambda specification 3.5 to 3.8, 3.11, 4, 6.1 and 6.2; every text that is compared in
whole is one that was recorded from AWS ([S]), unless a comment says otherwise.
"""

import concurrent.futures
import contextlib
import json
import os
import time

import botocore.exceptions
import pytest

import harness
from harness import ACCOUNT, REGION, ROLE

# Says which code ran, as which version, and under which name it was called.
SAYS = """
    import os, time, uuid
    ENVIRONMENT = uuid.uuid4().hex

    def handler(event, context):
        time.sleep(event.get("sleep", 0))
        return {"version": os.environ["AWS_LAMBDA_FUNCTION_VERSION"], "context": context.function_version,
                "arn": context.invoked_function_arn, "code": CODE, "environment": ENVIRONMENT}
    CODE = "first"
"""

# A function for jobs: the result of each task is the version that ran it and its code.
TELLS = """
    import os, time

    def handler(event, context):
        time.sleep(0.02)
        return {"invocationSchemaVersion": "1.0", "invocationId": event["invocationId"], "results": [
            {"taskId": event["tasks"][0]["taskId"], "resultCode": "Succeeded",
             "resultString": os.environ["AWS_LAMBDA_FUNCTION_VERSION"] + " " + CODE}]}
    CODE = "first"
"""


def arn(name, qualifier=None):
    base = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"
    return f"{base}:{qualifier}" if qualifier else base


def second(source):
    return harness.zip_of({"handler.py": harness.textwrap.dedent(source.replace("first", "second"))})


@pytest.fixture
def functions(server):
    """A client that leaves checks to the server."""
    return server.boto("lambda", read_timeout=120, parameter_validation=False)


@contextlib.contextmanager
def refused(status, code, message):
    """What is called inside is refused with exactly this."""
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        yield
    response = caught.value.response
    told = (response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"], response["Error"]["Message"])
    assert told == (status, code, message)


def call(functions, name, qualifier=None, **event):
    more = {"Qualifier": qualifier} if qualifier else {}
    answer = functions.invoke(FunctionName=name, Payload=json.dumps(event), **more)
    said = json.loads(answer["Payload"].read())
    assert "FunctionError" not in answer, said
    assert answer["ExecutedVersion"] == said["version"] == said["context"]
    return said


def change(functions, name, **changes):
    functions.update_function_configuration(FunctionName=name, **changes)
    functions.get_waiter("function_updated_v2").wait(FunctionName=name)


def two_versions(server, functions, name, source=SAYS):
    """A function whose version 1 runs the first code and version 2, as `$LATEST`, the second."""
    server.deploy(name, source)
    assert functions.publish_version(FunctionName=name)["Version"] == "1"
    functions.update_function_code(FunctionName=name, ZipFile=second(source))
    functions.get_waiter("function_updated_v2").wait(FunctionName=name)
    assert functions.publish_version(FunctionName=name)["Version"] == "2"


def test_a_function_from_its_creation_through_versions_aliases_and_permissions_to_its_end(server, functions, name):
    server.deploy(name, SAYS)
    said = call(functions, name)
    assert (said["version"], said["arn"], said["code"]) == ("$LATEST", arn(name), "first")
    assert functions.publish_version(FunctionName=name)["Version"] == "1"
    updated = functions.update_function_code(FunctionName=name, ZipFile=second(SAYS))
    assert (updated["State"], updated["LastUpdateStatus"]) == ("Active", "InProgress")
    functions.get_waiter("function_updated_v2").wait(FunctionName=name)
    published = functions.publish_version(FunctionName=name, Description="two")
    assert (published["Version"], published["FunctionArn"]) == ("2", arn(name, 2))
    assert (published["State"], published["LastUpdateStatus"]) == ("Active", "Successful")
    functions.get_waiter("published_version_active").wait(FunctionName=name, Qualifier="2")

    alias = functions.create_alias(FunctionName=name, Name="prod", FunctionVersion="1")
    assert (alias["AliasArn"], "RoutingConfig" in alias) == (arn(name, "prod"), False)
    said = call(functions, name, "prod")
    assert (said["version"], said["arn"], said["code"]) == ("1", arn(name, "prod"), "first")
    assert call(functions, f"{name}:2")["code"] == "second"
    shown = functions.get_function(FunctionName=name, Qualifier="prod")["Configuration"]
    assert (shown["FunctionArn"], shown["Version"]) == (arn(name, "prod"), "1")

    weight, draws = 0.3, 300
    weights = {"AdditionalVersionWeights": {"2": weight}}
    assert functions.update_alias(FunctionName=name, Name="prod", RoutingConfig=weights)["RoutingConfig"] == weights
    with concurrent.futures.ThreadPoolExecutor(4) as callers:
        versions = [said["version"] for said in callers.map(lambda _: call(functions, name, "prod"), range(draws))]
    drawn = versions.count("2")
    assert versions.count("1") + drawn == draws
    chi_squared = (drawn - draws * weight) ** 2 * (1 / (draws * weight) + 1 / (draws * (1 - weight)))
    # Once in three million runs; a seed is not ours to give here. 20,000 seeded draws are in the tests of the crate.
    assert chi_squared < 26, f"{drawn} of {draws} were version 2"

    statement = functions.add_permission(
        FunctionName=name, Qualifier="prod", StatementId="s3", Action="lambda:InvokeFunction",
        Principal="s3.amazonaws.com", SourceArn="arn:aws:s3:::bucket")["Statement"]
    policy = json.loads(functions.get_policy(FunctionName=name, Qualifier="prod")["Policy"])
    assert policy == {"Version": "2012-10-17", "Id": "default", "Statement": [json.loads(statement)]}

    functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    with pytest.raises(botocore.exceptions.ClientError) as throttled:
        functions.invoke(FunctionName=name, Qualifier="prod")
    response = throttled.value.response
    assert (response["Error"]["Code"], response["Reason"]) == (
        "TooManyRequestsException", "ReservedFunctionConcurrentInvocationLimitExceeded")
    functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
    assert call(functions, name, "prod")["arn"] == arn(name, "prod")

    functions.delete_function(FunctionName=name)
    for qualifier in ("$LATEST", "1", "prod"):
        with refused(404, "ResourceNotFoundException", f"Function not found: {arn(name, qualifier)}"):
            functions.get_function(FunctionName=name, Qualifier=qualifier)
    with refused(404, "ResourceNotFoundException", "The resource you requested does not exist."):
        functions.get_policy(FunctionName=name, Qualifier="prod")


def test_each_version_has_environments_of_its_own(server, functions, name):
    two_versions(server, functions, name)
    functions.create_alias(FunctionName=name, Name="prod", FunctionVersion="1")
    named = {qualifier: call(functions, name, qualifier) for qualifier in (None, "$LATEST", "1", "2", "prod")}
    codes = {qualifier: (said["version"], said["code"]) for qualifier, said in named.items()}
    assert codes == {
        None: ("$LATEST", "second"), "$LATEST": ("$LATEST", "second"), "1": ("1", "first"), "2": ("2", "second"),
        "prod": ("1", "first"),
    }
    # Version 2 and $LATEST have the same code, and yet nothing in common; the alias runs where its version does.
    ran = {qualifier: said["environment"] for qualifier, said in named.items()}
    assert ran[None] == ran["$LATEST"] and ran["1"] == ran["prod"]
    assert len({ran["$LATEST"], ran["1"], ran["2"]}) == 3


def test_what_does_not_wait_for_a_function_is_refused_as_on_aws(server, functions, name):
    pending = "The operation cannot be performed at this time. The function is currently in the following state: Pending"
    updating = f"The operation cannot be performed at this time. An update is in progress for resource: {arn(name)}"

    def seen(message, calls):
        """Whether each was refused. On a busy machine the half second may be over before it comes to one."""
        told = []
        for later in calls:
            try:
                later()
                return False
            except botocore.exceptions.ClientError as error:
                told.append((error.response["Error"]["Code"], error.response["Error"]["Message"]))
        assert told == [("ResourceConflictException", message)] * len(told)
        return True

    changes = [
        lambda: functions.update_function_configuration(FunctionName=name, Timeout=9),
        lambda: functions.update_function_code(FunctionName=name, ZipFile=second(SAYS)),
        lambda: functions.publish_version(FunctionName=name),
    ]
    for attempt in range(20):
        with contextlib.suppress(functions.exceptions.ResourceNotFoundException):
            functions.delete_function(FunctionName=name)
        created = functions.create_function(
            FunctionName=name, Runtime="python3.11", Handler="handler.handler", Role=ROLE,
            Code={"ZipFile": second(SAYS)})
        assert (created["State"], created["StateReasonCode"]) == ("Pending", "Creating")
        assert created["StateReason"] == "The function is being created."
        assert "LastUpdateStatus" not in created
        if seen(pending, [lambda: functions.invoke(FunctionName=name), *changes]):
            break
    else:
        pytest.fail("a new function was never Pending long enough to be refused")
    # One look, and it is ready.
    assert functions.get_function(FunctionName=name)["Configuration"]["State"] == "Active"
    for attempt in range(20):
        answer = functions.update_function_configuration(FunctionName=name, Timeout=attempt + 1)
        assert answer["LastUpdateStatusReason"] == "The function is being created."
        assert answer["LastUpdateStatusReasonCode"] == "Creating"
        refused_all = seen(updating, changes)
        ran = call(functions, name)
        settled = functions.get_function_configuration(FunctionName=name)
        assert settled["LastUpdateStatus"] == "Successful"
        if refused_all:
            break
    else:
        pytest.fail("an update was never in progress long enough for another to be refused")
    assert ran["version"] == "$LATEST"
    # Whoever sleeps instead of waiting gets on as well.
    functions.update_function_configuration(FunctionName=name, Timeout=30)
    deadline = time.monotonic() + 10
    while True:
        try:
            published = functions.publish_version(FunctionName=name)
            break
        except functions.exceptions.ResourceConflictException:
            assert time.monotonic() < deadline, "it was not settled by time"
            time.sleep(0.05)
    assert (published["Timeout"], published["State"]) == (30, "Active")


def test_an_unchanged_function_is_published_once_and_a_description_is_a_change(server, functions, name):
    server.deploy(name, SAYS)
    change(functions, name, Description="First version :)")
    first = functions.publish_version(FunctionName=name, Description="First version description :)")
    assert (first["Version"], first["Description"]) == ("1", "First version description :)")
    change(functions, name, Description="Second version :))")
    assert functions.get_function(FunctionName=name, Qualifier="1")["Configuration"]["Description"] == first["Description"]
    two = functions.publish_version(FunctionName=name)
    three = functions.publish_version(FunctionName=name)
    assert (two["Version"], two["Description"]) == ("2", "Second version :))")
    assert (three["Version"], three["RevisionId"]) == ("2", two["RevisionId"])
    given = "a" * 32
    with refused(400, "InvalidParameterValueException",
                 f"CodeSHA256 ({given}) is different from current CodeSHA256 in $LATEST ({two['CodeSha256']}). "
                 "Please try again with the CodeSHA256 in $LATEST."):
        functions.publish_version(FunctionName=name, CodeSha256=given)


def test_revisions_follow_what_they_belong_to(server, functions, name):
    def latest(qualifier="$LATEST"):
        return functions.get_function(FunctionName=name, Qualifier=qualifier)["Configuration"]["RevisionId"]

    stale = "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to " \
            "retrieve the latest Revision Id"
    code = {"ZipFile": second(SAYS)}
    created = functions.create_function(
        FunctionName=name, Runtime="python3.11", Handler="handler.handler", Role=ROLE, Code=code)
    functions.get_waiter("function_active_v2").wait(FunctionName=name)
    revisions = [created["RevisionId"], latest()]
    with refused(412, "PreconditionFailedException", stale):
        functions.update_function_code(FunctionName=name, RevisionId="wrong", **code)
    # Nothing is new in it, and yet it passes through InProgress and has other revisions.
    updated = functions.update_function_code(FunctionName=name, RevisionId=revisions[-1], **code)
    assert updated["LastUpdateStatus"] == "InProgress"
    functions.get_waiter("function_updated_v2").wait(FunctionName=name)
    revisions += [updated["RevisionId"], latest()]
    with refused(412, "PreconditionFailedException", stale):
        functions.update_function_configuration(FunctionName=name, RevisionId="wrong", Timeout=9)
    updated = functions.update_function_configuration(FunctionName=name, RevisionId=revisions[-1], Timeout=9)
    functions.get_waiter("function_updated_v2").wait(FunctionName=name)
    revisions += [updated["RevisionId"], latest()]

    with refused(412, "PreconditionFailedException", stale):
        functions.publish_version(FunctionName=name, RevisionId="wrong")
    one = functions.publish_version(FunctionName=name, RevisionId=revisions[-1])["RevisionId"]
    functions.get_waiter("published_version_active").wait(FunctionName=name, Qualifier="1")
    assert latest("1") == one
    revisions += [one, latest()]
    alias = functions.create_alias(FunctionName=name, Name="prod", FunctionVersion="1")["RevisionId"]
    assert (latest(), latest("1")) == (revisions[-1], one)
    with refused(412, "PreconditionFailedException", stale):
        functions.update_alias(FunctionName=name, Name="prod", RevisionId="wrong")
    moved = functions.update_alias(FunctionName=name, Name="prod", RevisionId=alias)["RevisionId"]
    revisions += [alias, moved]

    # A policy has the revision of what it belongs to.
    stale = "The Revision Id provided does not match the latest Revision Id. Call the GetPolicy API to retrieve the " \
            "latest Revision Id"
    def prod():
        return functions.get_alias(FunctionName=name, Name="prod")["RevisionId"]
    for where, revision in (({}, latest), ({"Qualifier": "1"}, lambda: latest("1")), ({"Qualifier": "prod"}, prod)):
        statement = {"FunctionName": name, "StatementId": "s3", **where}
        allowed = {"Action": "lambda:InvokeFunction", "Principal": "s3.amazonaws.com"}
        with refused(412, "PreconditionFailedException", stale):
            functions.add_permission(**statement, **allowed, RevisionId="wrong")
        functions.add_permission(**statement, **allowed, RevisionId=revision())
        revisions.append(revision())
        assert functions.get_policy(FunctionName=name, **where)["RevisionId"] == revisions[-1]
        with refused(412, "PreconditionFailedException", stale):
            functions.remove_permission(**statement, RevisionId="wrong")
        functions.remove_permission(**statement, RevisionId=revisions[-1])
        revisions.append(revision())
    assert len(set(revisions)) == len(revisions), revisions


def test_every_recorded_refusal_of_an_alias(server, functions, name):
    two_versions(server, functions, name)
    parameter, constraint, missing = (
        "InvalidParameterValueException", "ValidationException", "ResourceNotFoundException")
    value = "Map value must satisfy constraint: [Member must have value less than or equal to 1.0, Member must have " \
            "value greater than or equal to 0.0, Member must not be null]"
    keys = "Map keys must satisfy constraint: [Member must have length less than or equal to 1024, Member must have " \
           "length greater than or equal to 1, Member must satisfy regular expression pattern: [0-9]+, Member must " \
           "not be null]"

    def weights(text, rule):
        return f"1 validation error detected: Value '{text}' at 'routingConfig.additionalVersionWeights' failed to " \
               f"satisfy constraint: {rule}"
    cases = [
        ("1", {"1": 0.8, "2": 0.2}, 400, parameter,
         "Number of items in AdditionalVersionWeights cannot be greater than 1"),
        ("1", {"2": 2}, 400, constraint, weights("{2=2.0}", value)),
        ("1", {"2": -1}, 400, constraint, weights("{2=-1.0}", value)),
        ("1", {"1": 0.5}, 400, parameter,
         "Invalid function version 1. Function version 1 is already included in routing configuration."),
        ("10", {"2": 0.5}, 404, missing, f"Function not found: {arn(name, 10)}"),
        ("1", {"10": 0.5}, 404, missing, f"Function not found: {arn(name, 10)}"),
        ("$LATEST", {"1": 0.5}, 400, parameter,
         "$LATEST is not supported for an alias pointing to more than 1 version"),
        ("1", {"$LATEST": 0.5}, 400, constraint, weights("{$LATEST=0.5}", keys)),
    ]
    for version, additional, status, code, message in cases:
        with refused(status, code, message):
            functions.create_alias(FunctionName=name, Name="custom", FunctionVersion=version,
                                   RoutingConfig={"AdditionalVersionWeights": additional})
    latest = functions.create_alias(FunctionName=name, Name="custom-latest", FunctionVersion="$LATEST")
    assert (latest["FunctionVersion"], latest["Description"]) == ("$LATEST", "")
    unknown = f"{name}-unknown"
    with refused(404, missing, f"Function not found: {arn(unknown, 1)}"):
        functions.create_alias(FunctionName=unknown, Name="custom", FunctionVersion="1",
                               RoutingConfig={"AdditionalVersionWeights": {"2": 0.5}})
    empty = functions.create_alias(FunctionName=name, Name="empty", FunctionVersion="1",
                                   RoutingConfig={"AdditionalVersionWeights": {}})
    assert "RoutingConfig" not in empty
    half = {"AdditionalVersionWeights": {"2": 0.5}}
    custom = functions.create_alias(FunctionName=name, Name="custom", FunctionVersion="1", RoutingConfig=half)
    assert custom["RoutingConfig"] == half
    with refused(409, "ResourceConflictException", f"Alias already exists: {arn(name, 'custom')}"):
        functions.create_alias(FunctionName=name, Name="custom", FunctionVersion="1", RoutingConfig=half)
    with refused(404, missing, f"Cannot find alias arn: {arn(name, 'non-existent')}"):
        functions.get_alias(FunctionName=name, Name="non-existent")
    with refused(404, missing, f"Alias not found: {arn(name, 'non-existent')}"):
        functions.update_alias(FunctionName=name, Name="non-existent")
    deleted = functions.delete_alias(FunctionName=name, Name="non-existent")
    assert deleted["ResponseMetadata"]["HTTPStatusCode"] == 204
    with refused(400, constraint, "1 validation error detected: Value '2024' at 'name' failed to satisfy constraint: "
                                  "Member must satisfy regular expression pattern: (?!^[0-9]+$)([a-zA-Z0-9-_]+)"):
        functions.create_alias(FunctionName=name, Name="2024", FunctionVersion="1")
    date = functions.create_alias(FunctionName=name, Name="2024-01-02", FunctionVersion="1")
    assert call(functions, f"{name}:{date['Name']}")["version"] == "1"
    for qualifier in ("aliasdoesnotexist", "$latest", "1221"):
        forms = [{"FunctionName": name, "Qualifier": qualifier}]
        if "$" not in qualifier:
            forms.append({"FunctionName": arn(name, qualifier)})
        for form in forms:
            with refused(404, missing, f"Function not found: {arn(name, qualifier)}"):
                functions.get_function(**form)
    with refused(400, parameter, "The derived qualifier from the function name does not match the specified qualifier."):
        functions.get_function(FunctionName=f"{name}:1", Qualifier="2")


def test_aliases_are_listed_by_name_by_version_and_in_pages(server, functions, name):
    two_versions(server, functions, name)
    for alias, version in (("a1", "1"), ("a2", "1"), ("a3", "1"), ("b", "2")):
        functions.create_alias(FunctionName=name, Name=alias, FunctionVersion=version, Description="custom-alias")
    updated = functions.update_alias(FunctionName=name, Name="a1", RoutingConfig={"AdditionalVersionWeights": {"2": 0.2}})
    unchanged = functions.update_alias(FunctionName=name, Name="a1")
    assert unchanged["RoutingConfig"] == updated["RoutingConfig"]
    assert unchanged["RevisionId"] != updated["RevisionId"]

    def listed(**more):
        pages = functions.get_paginator("list_aliases").paginate(FunctionName=name, **more)
        return [alias["Name"] for page in pages for alias in page["Aliases"]]
    assert listed() == ["a1", "a2", "a3", "b"]
    assert listed(PaginationConfig={"PageSize": 1}) == ["a1", "a2", "a3", "b"]
    assert listed(FunctionVersion="1") == ["a1", "a2", "a3"]
    # By AWS's documentation those that invoke the version, so also by a weight.
    assert listed(FunctionVersion="2") == ["a1", "b"]
    # A shift ends where the alias moves on to its second version.
    moved = functions.update_alias(FunctionName=name, Name="a1", FunctionVersion="2")
    assert (moved["FunctionVersion"], "RoutingConfig" in moved) == ("2", False)
    assert functions.delete_alias(FunctionName=name, Name="a1")["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert listed(FunctionVersion="2") == ["b"]


def test_deletions_of_versions(server, functions, name):
    two_versions(server, functions, name)
    functions.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    for target in (name, "nobody-at-all"):
        with refused(400, "InvalidParameterValueException",
                     "$LATEST version cannot be deleted without deleting the function."):
            functions.delete_function(FunctionName=target, Qualifier="$LATEST")
    with refused(400, "InvalidParameterValueException", "Deletion of aliases is not currently supported."):
        functions.delete_function(FunctionName=name, Qualifier="live")
    # The text is AWS's, from reports of its users.
    with refused(409, "ResourceConflictException",
                 "Unable to delete version because the following aliases reference it: [live]"):
        functions.delete_function(FunctionName=name, Qualifier="1")
    for qualifier in ("2", "2", "99"):
        assert functions.delete_function(FunctionName=name, Qualifier=qualifier)["ResponseMetadata"]["HTTPStatusCode"] == 204
    change(functions, name, Timeout=9)
    assert functions.publish_version(FunctionName=name)["Version"] == "3"
    for qualifier in ({}, {"Qualifier": "7"}):
        with refused(404, "ResourceNotFoundException", f"Function not found: {arn('nobody-at-all')}"):
            functions.delete_function(FunctionName="nobody-at-all", **qualifier)
    # What runs is finished.
    with concurrent.futures.ThreadPoolExecutor(1) as caller:
        running = caller.submit(call, functions, name, "live", sleep=1)
        harness.wait_for("the start of the call", lambda: "START RequestId" in server.longshore("logs", name, check=False).stdout)
        functions.delete_function(FunctionName=name)
        assert running.result()["version"] == "1"
    with refused(404, "ResourceNotFoundException", f"Function not found: {arn(name, 'live')}"):
        functions.invoke(FunctionName=name, Qualifier="live")


def test_tags_are_the_functions_alone(server, functions, name):
    two_versions(server, functions, name)
    functions.create_alias(FunctionName=name, Name="prod", FunctionVersion="1")
    parameter = "InvalidParameterValueException"
    for qualifier in ("1", "prod"):
        for call_tags in (lambda **given: functions.tag_resource(Tags={"A": "tag-a"}, **given),
                          lambda **given: functions.untag_resource(TagKeys=["A"], **given), functions.list_tags):
            with refused(400, parameter,
                         "Tags on function aliases and versions are not supported. Please specify a function ARN."):
                call_tags(Resource=arn(name, qualifier))
    with refused(400, parameter, "An error occurred and the request cannot be processed."):
        functions.tag_resource(Resource=arn(name), Tags={})
    functions.tag_resource(Resource=arn(name), Tags={f"tag-{n}": "value" for n in range(50)})
    with refused(400, parameter, "Number of tags exceeds resource tag limit."):
        functions.tag_resource(Resource=arn(name), Tags={"one-more": "value"})
    functions.untag_resource(Resource=arn(name), TagKeys=[f"tag-{n}" for n in range(1, 50)] + ["never-there"])
    assert functions.list_tags(Resource=arn(name))["Tags"] == {"tag-0": "value"}
    assert functions.get_function(FunctionName=name)["Tags"] == {"tag-0": "value"}
    for qualifier in ("$LATEST", "1", "prod"):
        assert "Tags" not in functions.get_function(FunctionName=name, Qualifier=qualifier)
    with refused(400, parameter, "Please don't provide ImageUri when updating a function with packageType Zip."):
        functions.update_function_code(FunctionName=name, ImageUri=f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/r:t")
    functions.delete_function(FunctionName=name)
    for call_tags in (lambda **given: functions.tag_resource(Tags={"A": "B"}, **given),
                      lambda **given: functions.untag_resource(TagKeys=["A"], **given), functions.list_tags):
        with refused(404, "ResourceNotFoundException", f"Function not found: {arn(name)}"):
            call_tags(Resource=arn(name))


def test_permissions_are_written_as_they_were_recorded(server, functions, name):
    server.deploy(name, SAYS)
    user = server.boto("iam").create_user(UserName=name)["User"]["Arn"]
    with pytest.raises(functions.exceptions.InvalidParameterValueException, match="The provided principal was invalid"):
        functions.add_permission(FunctionName=name, StatementId="nobody", Action="lambda:InvokeFunction", Principal=user + "-not")
    cases = [
        ({"Principal": "s3.amazonaws.com", "SourceArn": "arn:aws:s3:::test-bucket"}, {"Service": "s3.amazonaws.com"},
         {"ArnLike": {"AWS:SourceArn": "arn:aws:s3:::test-bucket"}}),
        ({"Principal": "*", "SourceAccount": ACCOUNT}, "*", {"StringEquals": {"AWS:SourceAccount": ACCOUNT}}),
        ({"Principal": "lambda.amazonaws.com", "SourceAccount": ACCOUNT}, {"Service": "lambda.amazonaws.com"},
         {"StringEquals": {"AWS:SourceAccount": ACCOUNT}}),
        ({"Principal": ACCOUNT}, {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, None),
        ({"Principal": user, "SourceAccount": ACCOUNT}, {"AWS": user}, {"StringEquals": {"AWS:SourceAccount": ACCOUNT}}),
        ({"Action": "lambda:InvokeFunctionUrl", "Principal": "*", "SourceArn": "arn:aws:s3:::test-bucket",
          "SourceAccount": ACCOUNT, "PrincipalOrgID": "o-1234567890", "FunctionUrlAuthType": "NONE"}, "*",
         {"StringEquals": {"lambda:FunctionUrlAuthType": "NONE", "aws:PrincipalOrgID": "o-1234567890",
                           "AWS:SourceAccount": ACCOUNT},
          "ArnLike": {"AWS:SourceArn": "arn:aws:s3:::test-bucket"}}),
        ({"Principal": "*", "EventSourceToken": "amzn1.ask.skill.xxxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"}, "*",
         {"StringEquals": {"lambda:EventSourceToken": "amzn1.ask.skill.xxxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"}}),
    ]
    wanted = []
    for number, (given, principal, condition) in enumerate(cases):
        answer = functions.add_permission(
            **{"FunctionName": name, "StatementId": f"s{number}", "Action": "lambda:InvokeFunction"} | given)
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 201
        statement = {
            "Sid": f"s{number}", "Effect": "Allow", "Principal": principal,
            "Action": given.get("Action", "lambda:InvokeFunction"), "Resource": arn(name),
        } | ({"Condition": condition} if condition else {})
        assert json.loads(answer["Statement"]) == statement
        wanted.append(statement)
    policy = functions.get_policy(FunctionName=name)
    assert json.loads(policy["Policy"]) == {"Version": "2012-10-17", "Id": "default", "Statement": wanted}
    for number in reversed(range(len(cases))):
        removed = functions.remove_permission(FunctionName=name, StatementId=f"s{number}")
        assert removed["ResponseMetadata"]["HTTPStatusCode"] == 204
        wanted.pop()
        if wanted:
            assert json.loads(functions.get_policy(FunctionName=name)["Policy"])["Statement"] == wanted
    with refused(404, "ResourceNotFoundException", "The resource you requested does not exist."):
        functions.get_policy(FunctionName=name)


def test_every_recorded_refusal_of_a_permission(server, functions, name):
    server.deploy(name, SAYS)
    parameter, missing = "InvalidParameterValueException", "ResourceNotFoundException"
    s3 = {"Action": "lambda:InvokeFunction", "StatementId": "s3", "Principal": "s3.amazonaws.com",
          "SourceArn": "arn:aws:s3:::test-bucket"}

    def adding(status, code, message, **changes):
        with refused(status, code, message):
            functions.add_permission(**{"FunctionName": name} | s3 | changes)
    adding(400, "ValidationException",
           "1 validation error detected: Value 'example.com' at 'statementId' failed to satisfy constraint: Member must "
           "satisfy regular expression pattern: ([a-zA-Z0-9-_]+)", StatementId="example.com")
    adding(400, parameter, "The derived qualifier from the function name does not match the specified qualifier.",
           FunctionName=f"{name}:alias-not-42", Qualifier="42")
    adding(400, parameter, "We currently do not support adding policies for $LATEST.",
           FunctionName=f"{name}:$LATEST", Qualifier="$LATEST")
    adding(400, parameter, "The provided principal was invalid. Please check the principal and try again.",
           Principal="invalid.nonaws.com")
    adding(404, missing, f"Function not found: {arn('doesnotexist')}", FunctionName="doesnotexist")
    adding(404, missing, f"Cannot find alias arn: {arn(name, 'alias-doesnotexist')}",
           FunctionName=f"{name}:alias-doesnotexist")
    adding(404, missing, f"Function not found: {arn(name, 42)}", Qualifier="42")
    adding(400, "ValidationException",
           "1 validation error detected: Value 'invalid-qualifier-with-?-char' at 'qualifier' failed to satisfy "
           "constraint: Member must satisfy regular expression pattern: \\$(LATEST(\\.PUBLISHED)?)|[a-zA-Z0-9-_$]+",
           Qualifier="invalid-qualifier-with-?-char")
    adding(404, missing, f"Cannot find alias arn: {arn(name, 'valid-with-$-but-doesnotexist')}",
           Qualifier="valid-with-$-but-doesnotexist")
    for where in ({"FunctionName": "doesnotexist"}, {"FunctionName": name, "Qualifier": "77"}, {"FunctionName": name}):
        with refused(404, missing, "The resource you requested does not exist."):
            functions.get_policy(**where)
    with refused(404, missing, "No policy is associated with the given resource."):
        functions.remove_permission(FunctionName=name, StatementId="s3")
    functions.add_permission(FunctionName=name, **s3)
    adding(409, "ResourceConflictException",
           "The statement id (s3) provided already exists. Please provide a new statement id, or remove the existing "
           "statement.")
    with refused(404, missing, f"No policy found for: {arn('doesnotexist')}"):
        functions.remove_permission(FunctionName="doesnotexist", StatementId="s3")
    with refused(404, missing, "Statement non-existent is not found in resource policy."):
        functions.remove_permission(FunctionName=name, StatementId="non-existent")
    with refused(404, missing, f"Cannot find alias arn: {arn(name, 'alias-doesnotexist')}"):
        functions.remove_permission(FunctionName=name, StatementId="s3", Qualifier="alias-doesnotexist")


def test_a_policy_belongs_to_one_resource(server, functions, name):
    server.deploy(name, SAYS)
    s3 = {"Action": "lambda:InvokeFunction", "StatementId": "s3", "Principal": "s3.amazonaws.com"}
    functions.add_permission(FunctionName=name, **s3)
    functions.publish_version(FunctionName=name)
    functions.create_alias(FunctionName=name, Name="permission-alias", FunctionVersion="1")
    for qualifier in ("1", "permission-alias"):
        with refused(404, "ResourceNotFoundException", "The resource you requested does not exist."):
            functions.get_policy(FunctionName=name, Qualifier=qualifier)
        # Named twice, and the same statement ID as elsewhere.
        functions.add_permission(FunctionName=f"{name}:{qualifier}", Qualifier=qualifier, **s3)
        [statement] = json.loads(functions.get_policy(FunctionName=name, Qualifier=qualifier)["Policy"])["Statement"]
        assert statement["Resource"] == arn(name, qualifier)
    [statement] = json.loads(functions.get_policy(FunctionName=name)["Policy"])["Statement"]
    assert statement["Resource"] == arn(name)
    # 20 KB are enough for anybody. The text of the refusal is from memory.
    added = 0
    with pytest.raises(functions.exceptions.PolicyLengthExceededException) as too_long:
        while added < 200:
            functions.add_permission(FunctionName=name, **s3 | {"StatementId": f"{added:0>100}"})
            added += 1
    size = len(functions.get_policy(FunctionName=name)["Policy"])
    each = len(json.dumps(statement | {"Sid": "0" * 100}, separators=(",", ":"))) + 1
    assert size <= 20480 < size + each
    assert too_long.value.response["Error"]["Message"] == \
        f"The final policy size ({size + each}) is bigger than the limit (20480)."


def test_lists_of_functions_and_versions(server, functions, name):
    names = [f"{name}-{n}" for n in "cab"]
    for each in names:
        server.deploy(each, SAYS)
        functions.publish_version(FunctionName=each)

    def listed(**more):
        pages = functions.get_paginator("list_functions").paginate(**more)
        found = [function for page in pages for function in page["Functions"]]
        assert not any("State" in function or "LastUpdateStatus" in function for function in found)
        return [function["FunctionArn"] for function in found if function["FunctionName"] in names]
    in_order = sorted(names)
    assert listed() == [arn(each) for each in in_order]
    both = [arn(each, version) for each in in_order for version in ("$LATEST", 1)]
    assert listed(FunctionVersion="ALL") == both
    assert listed(FunctionVersion="ALL", PaginationConfig={"PageSize": 2}) == both
    versions = functions.list_versions_by_function(FunctionName=names[0])
    assert [version["FunctionArn"] for version in versions["Versions"]] == [arn(names[0], "$LATEST"), arn(names[0], 1)]
    assert "NextMarker" not in versions
    shown = functions.get_function(FunctionName=names[0], Qualifier="$LATEST")["Configuration"]
    assert (shown["FunctionArn"], shown["Version"]) == (arn(names[0], "$LATEST"), "$LATEST")
    shown = functions.get_function(FunctionName=names[0])["Configuration"]
    assert (shown["FunctionArn"], shown["Version"]) == (arn(names[0]), "$LATEST")


def test_what_terraform_asks_is_answered_as_it_reads_it(server, functions, name):
    missing = functions.exceptions.ResourceNotFoundException
    created = functions.create_function(
        FunctionName=name, Runtime="python3.11", Handler="handler.handler", Role=ROLE, Publish=True,
        Code={"ZipFile": second(SAYS)})
    # The first version's configuration under the function's own ARN.
    assert (created["Version"], created["FunctionArn"]) == ("1", arn(name))
    harness.wait_for("the function", lambda: functions.get_function(
        FunctionName=name)["Configuration"]["State"] in ("Active", "ActiveNonInvocable"))
    functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=2)
    newest = 1

    def read():
        """As the provider refreshes a function: the newest version is the last one of the last page."""
        found = functions.get_function(FunctionName=name)
        pages = list(functions.get_paginator("list_versions_by_function").paginate(FunctionName=name))
        assert all(len(page["Versions"]) <= 50 for page in pages)
        assert pages[0]["Versions"][0]["Version"] == "$LATEST"
        signing = functions.get_function_code_signing_config(FunctionName=name)
        assert not signing.get("CodeSigningConfigArn")
        assert found["Concurrency"] == {"ReservedConcurrentExecutions": 2}
        last = pages[-1]["Versions"][-1]
        assert (last["Version"], last["FunctionArn"]) == (str(newest), arn(name, newest))
        return len(pages)
    assert read() == 1
    while newest < 51:
        change(functions, name, Description=str(newest))
        newest += 1
        assert functions.publish_version(FunctionName=name)["Version"] == str(newest)
    assert read() == 2

    functions.create_alias(FunctionName=name, Name="tf", FunctionVersion="1", Description="",
                           RoutingConfig={"AdditionalVersionWeights": {"2": 0.1}})
    functions.get_alias(FunctionName=name, Name="tf")
    # An empty routing configuration is how it takes the weights away.
    cleared = functions.update_alias(FunctionName=name, Name="tf", FunctionVersion="51", Description="", RoutingConfig={})
    assert (cleared["FunctionVersion"], "RoutingConfig" in cleared) == ("51", False)

    statement = {"FunctionName": arn(name), "StatementId": "tf", "Qualifier": "tf"}
    functions.add_permission(**statement, Action="lambda:InvokeFunction", Principal="events.amazonaws.com",
                             SourceArn=f"arn:aws:events:{REGION}:{ACCOUNT}:rule/r")
    policy = json.loads(functions.get_policy(FunctionName=arn(name), Qualifier="tf")["Policy"])
    [found] = [each for each in policy["Statement"] if each["Sid"] == "tf"]
    assert found["Resource"].removeprefix(arn(name)) == ":tf"
    assert (found["Principal"], found["Action"]) == ({"Service": "events.amazonaws.com"}, "lambda:InvokeFunction")
    functions.remove_permission(**statement)
    with pytest.raises(missing):
        functions.get_policy(FunctionName=arn(name), Qualifier="tf")

    functions.delete_alias(FunctionName=name, Name="tf")
    with pytest.raises(missing):
        functions.get_alias(FunctionName=name, Name="tf")
    functions.delete_function(FunctionName=name)
    with pytest.raises(missing):
        functions.get_function(FunctionName=name)


def test_the_aws_cli_shifts_an_alias_and_permits(server, functions, name):
    two_versions(server, functions, name)
    named = ("--function-name", name)
    alias = server.aws_json("lambda", "create-alias", *named, "--name", "prod", "--function-version", "1")
    assert alias["FunctionVersion"] == "1"
    # As it is typed: the shell takes the quotes away.
    shifted = json.loads(server.shell(
        f"aws lambda update-alias --function-name {name} --name prod --output json "
        '--routing-config AdditionalVersionWeights={"2"=0.05}').stdout)
    assert shifted["RoutingConfig"] == {"AdditionalVersionWeights": {"2": 0.05}}
    added = server.aws_json(
        "lambda", "add-permission", *named, "--qualifier", "prod", "--statement-id", "s3",
        "--action", "lambda:InvokeFunction", "--principal", "s3.amazonaws.com", "--source-arn", "arn:aws:s3:::b")
    assert json.loads(added["Statement"])["Resource"] == arn(name, "prod")
    policy = server.aws_json("lambda", "get-policy", *named, "--qualifier", "prod")
    assert json.loads(policy["Policy"])["Statement"] == [json.loads(added["Statement"])]
    cleared = server.aws_json("lambda", "update-alias", *named, "--name", "prod", "--function-version", "2",
                              "--routing-config", "AdditionalVersionWeights={}")
    assert (cleared["FunctionVersion"], "RoutingConfig" in cleared) == ("2", False)
    payload = server.directory / f"{name}.json"
    answer = server.aws_json("lambda", "invoke", *named, "--qualifier", "prod", payload)
    assert (answer["ExecutedVersion"], json.loads(payload.read_text())["arn"]) == ("2", arn(name, "prod"))


def job(server, name, function, tasks):
    bucket = server.bucket(name)
    etag = server.put_manifest(bucket, [(bucket, f"key-{n:04}") for n in range(tasks)])
    return server.create_job(bucket, function, etag)


def under_way(server, jobs, tasks):
    """Waits until each job has done some of its tasks, and asserts that none is near its end."""
    def done():
        summaries = [server.describe(job)["ProgressSummary"] for job in jobs]
        return [summary["NumberOfTasksSucceeded"] for summary in summaries]
    harness.wait_for("a few tasks of each job", lambda: min(done()) >= 20)
    assert max(done()) < tasks * 0.7, "the jobs are too fast for this test"


def told(server, job, described):
    """What each task's function said, in the order of the manifest."""
    rows = sorted(harness.read_report(server, job, described), key=lambda row: row.key)
    return [row.message for row in rows]


def test_what_moves_during_a_job_counts_from_the_next_invocation_on(server, functions, name):
    tasks = 500
    two_versions(server, functions, name, TELLS)
    # $LATEST has the second code by now; back to the first one, to be moved once more below.
    functions.update_function_code(FunctionName=name, ZipFile=harness.zip_of({"handler.py": harness.textwrap.dedent(TELLS)}))
    functions.get_waiter("function_updated_v2").wait(FunctionName=name)
    functions.create_alias(FunctionName=name, Name="prod", FunctionVersion="1")
    called = {"prod": arn(name, "prod"), "latest": arn(name), "one": arn(name, 1)}
    jobs = {which: job(server, f"{name}-{which}", function, tasks) for which, function in called.items()}
    under_way(server, jobs.values(), tasks)
    functions.update_alias(FunctionName=name, Name="prod", FunctionVersion="2")
    functions.update_function_code(FunctionName=name, ZipFile=second(TELLS))
    ended = {which: server.wait(job) for which, job in jobs.items()}
    for which, described in ended.items():
        summary = described["ProgressSummary"]
        assert (described["Status"], summary["NumberOfTasksSucceeded"]) == ("Complete", tasks), (which, described)
    results = {which: told(server, jobs[which], described) for which, described in ended.items()}
    assert set(results["one"]) == {"1 first"}
    for which, before, after in (("prod", "1 first", "2 second"), ("latest", "$LATEST first", "$LATEST second")):
        assert set(results[which]) == {before, after}, which
        # In the order of the manifest, but for those that were in flight meanwhile, of which there are no more than
        # environments. What only waited for one runs what is there when it begins.
        last_old = max(n for n, result in enumerate(results[which]) if result == before)
        first_new = min(n for n, result in enumerate(results[which]) if result == after)
        assert last_old - first_new < 4 * max(os.cpu_count(), 1), (which, first_new, last_old)


def test_a_version_that_is_deleted_during_a_job_is_missing_for_the_rest(server, functions, name):
    tasks = 500
    two_versions(server, functions, name, TELLS)
    number = job(server, name, arn(name, 2), tasks)
    under_way(server, [number], tasks)
    functions.delete_function(FunctionName=name, Qualifier="2")
    described = server.wait(number)
    rows = sorted(harness.read_report(server, number, described), key=lambda row: row.key)
    assert len(rows) == tasks
    failed = [row for row in rows if row.status == "failed"]
    assert {row.message for row in rows if row.status == "succeeded"} == {"2 second"}
    assert 20 <= tasks - len(failed) < tasks
    missing = f"Function not found: {arn(name, 2)}"
    assert {(row.http_status, missing in row.message) for row in failed} == {("404", True)}, failed[:3]
    # The function lives on.
    answer = functions.invoke(FunctionName=name, Qualifier="1", InvocationType="DryRun")
    assert answer["StatusCode"] == 204
