"""Functions' packages, layers and settings as boto3 and the AWS CLI see them.

Strings between quotes are what AWS answers, recorded ([S] in the specification of Lambda, sections 3, 7 and 8), but for
those that say they are ours.
"""

import base64
import datetime
import hashlib
import io
import json
import re
import stat
import struct
import urllib.request
import zipfile

import boto3
import botocore.exceptions
import pytest

import harness
from harness import ACCOUNT, REGION, ROLE, zip_of

LAYER = f"arn:aws:lambda:{REGION}:{ACCOUNT}:layer"
FUNCTION = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function"
ECHO = "def handler(event, context):\n    return event\n"
RESERVED = ("Lambda was unable to configure your environment variables because the environment variables you have "
            "provided contains reserved keys that are currently not supported for modification. Reserved keys used in "
            "this request: ")
TOO_MANY_BYTES = ("Lambda was unable to configure your environment variables because the environment variables you "
                  "have provided exceeded the 4KB limit. String measured: ")
UNZIP = "Could not unzip uploaded file. Please check your file, then try to upload again."
SIZE = "Unzipped size must be smaller than 262144000 bytes"
# Recorded from AWS, though its own model does not have it ([S], 3.5).
BEYOND_MODEL = {("LastUpdateStatusReasonCode", "Creating")}
SEEN = set()


def fits(shape, value, path):
    """Nothing in an answer that the model does not have, and every value of the modelled kind."""
    kind = shape.type_name
    if kind == "structure":
        assert isinstance(value, dict), path
        known = {member.serialization.get("name", name): member for name, member in shape.members.items()
                 if member.serialization.get("location") not in ("header", "headers", "statusCode")}
        for name, inner in value.items():
            assert name in known, f"{path}.{name} is not in the model"
            fits(known[name], inner, f"{path}.{name}")
    elif kind == "list":
        for inner in value:
            fits(shape.member, inner, f"{path}[]")
    elif kind == "map":
        for name, inner in value.items():
            fits(shape.value, inner, f"{path}.{name}")
    else:
        kinds = {"string": str, "integer": int, "long": int, "boolean": bool, "double": (int, float)}
        assert isinstance(value, kinds.get(kind, object)), f"{path}: {value!r} is no {kind}"
        if kind == "string" and shape.enum and (shape.name, value) not in BEYOND_MODEL:
            assert value in shape.enum, f"{path}: {value}"


@pytest.fixture(scope="module")
def client(server):
    """A client of Lambda that looks at each answer before it parses it; without checks of its own, so that a server's
    are seen."""
    with harness.environ(server.environment):
        config = botocore.config.Config(retries={"max_attempts": 1}, parameter_validation=False)
        made = boto3.session.Session().client("lambda", config=config)

    def look(operation_model, response_dict, **_):
        name, shape = operation_model.name, operation_model.output_shape
        SEEN.add(name)
        if response_dict["status_code"] < 300 and response_dict["body"] and shape and name != "Invoke":
            fits(shape, json.loads(response_dict["body"]), name)

    made.meta.events.register("before-parse.lambda", look)
    return made


def created(client, name, files=None, **members):
    """A function that is active."""
    body = {"FunctionName": name, "Runtime": "python3.11", "Handler": "handler.handler", "Role": ROLE,
            "Code": {"ZipFile": zip_of(files or {"handler.py": ECHO})}} | members
    answer = client.create_function(**body)
    client.get_waiter("function_active_v2").wait(FunctionName=name)
    return answer


def updated(client, name, **members):
    """Changes the configuration, and waits until that is over."""
    answer = client.update_function_configuration(FunctionName=name, **members)
    client.get_waiter("function_updated_v2").wait(FunctionName=name)
    return answer


def published(client, name, files, **members):
    return client.publish_layer_version(LayerName=name, Content={"ZipFile": zip_of(files)}, **members)


def invoked(client, name, event=None):
    answer = client.invoke(FunctionName=name, Payload=json.dumps(event or {}))
    return json.loads(answer["Payload"].read()), answer.get("FunctionError")


def refused(status, code, message, call, **members):
    """The error of a call: status, code, `Type` and the whole message; the message may be a pattern."""
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        call(**members)
    answer = caught.value.response
    assert (answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]) == (status, code), answer
    assert answer.get("Type", "User") == "User"
    if isinstance(message, re.Pattern):
        assert message.fullmatch(answer["Error"]["Message"]), answer["Error"]["Message"]
    else:
        assert answer["Error"]["Message"] == message
    return answer


PARAMETER, CONSTRAINT = "InvalidParameterValueException", "ValidationException"


# --- 3.3, 3.4 ---


def test_a_function_is_answered_as_aws_answers_it(client, name):
    package = zip_of({"handler.py": ECHO})
    answer = client.create_function(
        FunctionName=name, Runtime="python3.11", Handler="handler.handler", Role=ROLE, Code={"ZipFile": package})
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 201
    revision, modified = answer["RevisionId"], answer["LastModified"]
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", revision)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+0000", modified)
    assert abs(datetime.datetime.strptime(modified, "%Y-%m-%dT%H:%M:%S.%f%z")
               - datetime.datetime.now(datetime.UTC)) < datetime.timedelta(minutes=1)
    runtime = answer["RuntimeVersionConfig"]["RuntimeVersionArn"]
    assert re.fullmatch(rf"arn:aws:lambda:{REGION}::runtime:[0-9a-f]{{64}}", runtime)
    expected = {
        "FunctionName": name, "FunctionArn": f"{FUNCTION}:{name}", "Runtime": "python3.11", "Role": ROLE,
        "Handler": "handler.handler", "CodeSize": len(package), "Description": "", "Timeout": 3, "MemorySize": 128,
        "LastModified": modified, "CodeSha256": base64.b64encode(hashlib.sha256(package).digest()).decode(),
        "Version": "$LATEST", "TracingConfig": {"Mode": "PassThrough"}, "RevisionId": revision, "PackageType": "Zip",
        "Architectures": answer["Architectures"], "EphemeralStorage": {"Size": 512},
        "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"},
        "RuntimeVersionConfig": {"RuntimeVersionArn": runtime},
        "LoggingConfig": {"LogFormat": "Text", "LogGroup": f"/aws/lambda/{name}"},
        "State": "Pending", "StateReason": "The function is being created.", "StateReasonCode": "Creating",
    }
    del answer["ResponseMetadata"]
    assert answer == expected
    client.get_waiter("function_active_v2").wait(FunctionName=name)
    got = client.get_function(FunctionName=name)
    for member in ("StateReason", "StateReasonCode"):
        del expected[member]
    expected |= {"State": "Active", "LastUpdateStatus": "Successful", "RevisionId": got["Configuration"]["RevisionId"]}
    assert got["Configuration"] == expected and expected["RevisionId"] != revision
    assert set(got["Code"]) == {"RepositoryType", "Location"} and got["Code"]["RepositoryType"] == "S3"
    assert "Tags" not in got and "Concurrency" not in got
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    assert opener.open(got["Code"]["Location"]).read() == package
    listed = [f for page in client.get_paginator("list_functions").paginate() for f in page["Functions"]]
    mine = next(f for f in listed if f["FunctionName"] == name)
    assert not [member for member in mine if member.startswith(("State", "LastUpdateStatus"))]


def test_breaches_of_the_model_are_told_together_in_the_words_of_aws(client, name):
    def create(**members):
        return client.create_function(**{
            "FunctionName": name, "Runtime": "python3.11", "Handler": "handler.handler", "Role": ROLE,
            "Code": {"ZipFile": zip_of({"handler.py": ECHO})}} | members)

    def one(text):
        return f"1 validation error detected: {text}"

    failed = "failed to satisfy constraint: Member must"
    refused(400, CONSTRAINT, one(f"Value '10241' at 'memorySize' {failed} have value less than or equal to 10240"),
            create, MemorySize=10241)
    refused(400, CONSTRAINT, one(f"Value '0' at 'timeout' {failed} have value greater than or equal to 1"), create, Timeout=0)
    refused(400, CONSTRAINT, one(f"Value '{'d' * 257}' at 'description' {failed} have length less than or equal to 256"),
            create, Description="d" * 257)
    role = r"arn:(aws[a-zA-Z-]*)?:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+"
    refused(400, CONSTRAINT, one(f"Value 'r' at 'role' {failed} satisfy regular expression pattern: {role}"), create, Role="r")
    refused(400, CONSTRAINT, one(f"Value 'Jar' at 'packageType' {failed} satisfy enum value set: [Zip, Image]"),
            create, PackageType="Jar")
    refused(400, CONSTRAINT, one(f"Value null at 'ephemeralStorage.size' {failed} not be null"), create, EphemeralStorage={})
    two = (f"2 validation errors detected: Value '901' at 'timeout' {failed} have value less than or equal to 900; "
           f"Value '127' at 'memorySize' {failed} have value greater than or equal to 128")
    refused(400, CONSTRAINT, two, create, Timeout=901, MemorySize=127)
    # These two come as parameter errors, though they read like constraints.
    refused(400, PARAMETER, one(f"Value '{'n' * 65}' at 'functionName' {failed} have length less than or equal to 64"),
            create, FunctionName="n" * 65)
    refused(400, PARAMETER,
            re.compile(r"Value cobol at 'runtime' failed to satisfy constraint: Member must satisfy enum value set: "
                       r"\[[^]]*python3\.11[^]]*\] or be a valid ARN"), create, Runtime="cobol")
    for runtime in ("python3.6", "nodejs14.x", "go1.x", "provided"):
        refused(400, PARAMETER, f"The runtime parameter of {runtime} is no longer supported for creating or updating AWS "
                                "Lambda functions. We recommend you use a supported runtime while creating or updating "
                                "functions.", create, Runtime=runtime)
    refused(400, PARAMETER, "Runtime and Handler are mandatory parameters for functions created with deployment packages.",
            create, Handler=None)
    create()
    refused(409, "ResourceConflictException", f"Function already exist: {name}", create)


def test_environment_variables_have_their_limits_and_their_names(client, name):
    def create(variables):
        return created(client, name, Environment={"Variables": variables})

    refused(400, PARAMETER, RESERVED + "AWS_REGION", create, variables={"AWS_REGION": "mars", "MINE": "1"})
    pattern = ("Map keys must satisfy constraint: [Member must satisfy regular expression pattern: "
               "[a-zA-Z]([a-zA-Z0-9_])+]")
    refused(400, CONSTRAINT, f"1 validation error detected: Value '_HANDLER' at 'environment.variables' failed to satisfy "
                             f"constraint: {pattern}", create, variables={"_HANDLER": "x"})
    measured = json.dumps({"AB": "v" * 4088}, separators=(",", ":"))
    assert len(measured) == 4097
    refused(400, PARAMETER, TOO_MANY_BYTES + measured, create, variables={"AB": "v" * 4088})
    create({"AB": "v" * 4087})
    cleared = updated(client, name, Environment={"Variables": {}})
    assert cleared["Environment"] == {"Variables": {}}


def test_a_functions_environment_is_that_of_the_table(client, name):
    created(client, name, {"handler.py": "import os\ndef handler(event, context):\n    return dict(os.environ)\n"},
            Environment={"Variables": {"TZ": "Europe/Berlin", "COLOUR": "red"}}, MemorySize=256,
            LoggingConfig={"LogFormat": "JSON", "ApplicationLogLevel": "WARN", "LogGroup": "/shared/group"})
    seen, _ = invoked(client, name)
    expected = {
        "_HANDLER": "handler.handler", "AWS_LAMBDA_FUNCTION_NAME": name, "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256", "AWS_LAMBDA_LOG_GROUP_NAME": "/shared/group",
        "AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION, "AWS_EXECUTION_ENV": "AWS_Lambda_python3.11",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand", "TZ": "Europe/Berlin", "LANG": "en_US.UTF-8", "COLOUR": "red",
        "AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_LAMBDA_LOG_LEVEL": "WARN", "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
    }
    assert {key: seen.get(key) for key in expected} == expected
    assert re.fullmatch(r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}", seen["AWS_LAMBDA_LOG_STREAM_NAME"])
    assert re.fullmatch(r"127\.0\.0\.1:\d+|[^:]+:\d+", seen["AWS_LAMBDA_RUNTIME_API"])
    for key in ("LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR", "PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "AWS_ACCESS_KEY_ID",
                "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        assert seen[key], key
    # Nothing of the server's own, and nothing that would make clients serve several events at once.
    assert not {"HOME", "USER", "AWS_LAMBDA_MAX_CONCURRENCY", "PYENV_ROOT"} & set(seen)
    updated(client, name, LoggingConfig={"LogFormat": "Text"})
    seen, _ = invoked(client, name)
    assert not {"AWS_LAMBDA_LOG_FORMAT", "AWS_LAMBDA_LOG_LEVEL"} & set(seen)


def test_logging_is_set_in_part_and_shown_whole(client, name):
    created(client, name)

    def logging(**members):
        return updated(client, name, LoggingConfig=members)["LoggingConfig"]

    group = f"/aws/lambda/{name}"
    levels = {"LogFormat": "JSON", "ApplicationLogLevel": "INFO", "SystemLogLevel": "INFO", "LogGroup": group}
    assert logging(LogFormat="JSON") == levels
    assert logging(SystemLogLevel="DEBUG") == levels | {"SystemLogLevel": "DEBUG"}
    assert logging(LogFormat="Text") == {"LogFormat": "Text", "LogGroup": group}


def test_what_would_be_dropped_is_refused_by_name(client, name):
    created(client, name)
    ours = "{} is not supported by this server."
    update = client.update_function_configuration
    for member, value, what in [
        ("VpcConfig", {"SubnetIds": ["s"], "SecurityGroupIds": ["g"]}, "VpcConfig"),
        ("DeadLetterConfig", {"TargetArn": "arn:aws:sqs:us-east-1:000000000000:q"}, "DeadLetterConfig"),
        ("FileSystemConfigs", [{"Arn": "a", "LocalMountPath": "/mnt/a"}], "FileSystemConfigs"),
        ("KMSKeyArn", "arn:aws:kms:us-east-1:000000000000:key/k", "KMSKeyArn"),
        ("TracingConfig", {"Mode": "Active"}, "TracingConfig other than Mode=PassThrough"),
        ("SnapStart", {"ApplyOn": "PublishedVersions"}, "SnapStart other than ApplyOn=None"),
        ("ImageConfig", {"Command": ["x"]}, "ImageConfig"),
    ]:
        refused(400, PARAMETER, ours.format(what), update, FunctionName=name, **{member: value})
    updated(client, name, TracingConfig={"Mode": "PassThrough"}, Layers=[],
                                         SnapStart={"ApplyOn": "None"}, VpcConfig={"SubnetIds": [], "SecurityGroupIds": []})
    image = {"FunctionName": name + "-i", "Role": ROLE, "PackageType": "Image", "Code": {"ImageUri": "x"}}
    refused(400, PARAMETER, ours.format("PackageType Image"), client.create_function, **image)
    refused(400, PARAMETER, "Please don't provide ImageUri when updating a function with packageType Zip.",
            client.update_function_code, FunctionName=name, ImageUri="x")
    for call, members in [
        (client.create_event_source_mapping, {"FunctionName": name, "EventSourceArn": "arn:aws:sqs:us-east-1:1:q"}),
        (client.create_function_url_config, {"FunctionName": name, "AuthType": "NONE"}),
        (client.create_code_signing_config, {"AllowedPublishers": {"SigningProfileVersionArns": ["a"]}}),
        (client.put_function_code_signing_config, {"FunctionName": name, "CodeSigningConfigArn": "a"}),
    ]:
        operation = "".join(word.capitalize() for word in call.__name__.split("_"))
        refused(404, "UnknownOperationException", f"The operation {operation} is not offered by this server.", call, **members)


def test_what_tools_ask_for_is_answered_with_harmless_defaults(client, name):
    missing = "The resource you requested does not exist."
    refused(404, "ResourceNotFoundException", f"Function not found: {FUNCTION}:{name}",
            client.get_function_code_signing_config, FunctionName=name)
    created(client, name)

    def plain(answer):
        del answer["ResponseMetadata"]
        return answer

    assert plain(client.get_function_code_signing_config(FunctionName=name)) == {"FunctionName": name}
    refused(404, "ResourceNotFoundException", missing, client.get_function_url_config, FunctionName=name)
    assert plain(client.list_function_url_configs(FunctionName=name)) == {"FunctionUrlConfigs": []}
    arn = f"{FUNCTION}:{name}"
    auto = {"UpdateRuntimeOn": "Auto", "FunctionArn": arn}
    assert plain(client.get_runtime_management_config(FunctionName=name)) == auto
    assert plain(client.put_runtime_management_config(FunctionName=name, UpdateRuntimeOn="Auto")) == auto
    refused(400, PARAMETER, "UpdateRuntimeOn other than Auto is not supported by this server.",
            client.put_runtime_management_config, FunctionName=name, UpdateRuntimeOn="FunctionUpdate")
    assert plain(client.get_function_recursion_config(FunctionName=name)) == {"RecursiveLoop": "Terminate"}
    assert plain(client.put_function_recursion_config(FunctionName=name, RecursiveLoop="Terminate")) == {"RecursiveLoop": "Terminate"}
    refused(400, PARAMETER, "RecursiveLoop other than Terminate is not supported by this server.",
            client.put_function_recursion_config, FunctionName=name, RecursiveLoop="Allow")
    assert plain(client.list_event_source_mappings()) == {"EventSourceMappings": []}
    client.delete_function_code_signing_config(FunctionName=name)


def test_tags_belong_to_functions_and_have_their_limit(client, name):
    created(client, name, Tags={"a": "1"})
    arn = f"{FUNCTION}:{name}"
    client.tag_resource(Resource=arn, Tags={"b": "2"})
    client.untag_resource(Resource=arn, TagKeys=["a"])
    assert client.list_tags(Resource=arn)["Tags"] == {"b": "2"}
    assert client.get_function(FunctionName=name)["Tags"] == {"b": "2"}
    assert "Tags" not in client.get_function(FunctionName=name, Qualifier="$LATEST")
    refused(400, PARAMETER, "Tags on function aliases and versions are not supported. Please specify a function ARN.",
            client.list_tags, Resource=f"{arn}:1")
    refused(400, PARAMETER, "An error occurred and the request cannot be processed.", client.tag_resource, Resource=arn, Tags={})
    refused(400, PARAMETER, "Number of tags exceeds resource tag limit.",
            client.tag_resource, Resource=arn, Tags={f"k{n}": "v" for n in range(50)})


# --- packages: 3.3 steps 6 and 7, 8.1 ---


def test_a_package_from_s3_is_copied_when_it_is_given(client, server, name):
    bucket = server.bucket(name)
    first, second = zip_of({"handler.py": ECHO}), zip_of({"handler.py": ECHO + "# 2\n"})
    server.s3.put_object(Bucket=bucket, Key="code.zip", Body=first)
    code = {"S3Bucket": bucket, "S3Key": "code.zip"}
    answer = created(client, name, Code=code)
    sha256 = base64.b64encode(hashlib.sha256(first).digest()).decode()
    assert answer["CodeSha256"] == sha256
    server.s3.put_object(Bucket=bucket, Key="code.zip", Body=second)
    assert client.get_function(FunctionName=name)["Configuration"]["CodeSha256"] == sha256
    assert invoked(client, name, {"a": 1}) == ({"a": 1}, None)
    newer = client.update_function_code(FunctionName=name, **code)
    assert newer["CodeSha256"] != sha256 and newer["LastUpdateStatus"] == "InProgress"
    client.get_waiter("function_updated_v2").wait(FunctionName=name)
    layer = client.publish_layer_version(LayerName=name, Content=code)
    assert layer["Content"]["CodeSize"] == len(second)
    s3 = "Error occurred while GetObject. S3 Error Code: {}. S3 Error Message: {}"
    for code, told in [
        ({"S3Bucket": f"{name}-none", "S3Key": "k"}, s3.format("NoSuchBucket", "The specified bucket does not exist")),
        ({"S3Bucket": bucket, "S3Key": "none"}, s3.format("NoSuchKey", "The specified key does not exist.")),
    ]:
        refused(400, PARAMETER, told, client.update_function_code, FunctionName=name, **code)
        refused(400, PARAMETER, told, client.publish_layer_version, LayerName=name, Content=code)


def tampered(package, at, value):
    return package[:at] + bytes(value) + package[at + len(value):]


def bad_packages():
    """Archives that Python's zipfile writes, and some of them changed afterwards."""
    def archive(write, **options):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", **options) as z:
            write(z)
        return packed.getvalue()

    def of(name, content=b"x", mode=None):
        entry = zipfile.ZipInfo(name)
        if mode:
            entry.external_attr = mode << 16
        return archive(lambda z: z.writestr(entry, content))

    def twice(z):
        z.writestr("a", "1")
        with pytest.warns(UserWarning, match="Duplicate name"):
            z.writestr("a", "2")

    def many(z):
        for n in range(100_000):
            z.writestr(f"f{n}", b"")

    def bomb(z):
        with z.open("zeros", "w", force_zip64=True) as out:
            for _ in range(262_144_000 // 1_048_576 + 1):
                out.write(bytes(1_048_576))

    plain = of("handler.py", ECHO.encode())
    directory = plain.index(b"PK\x01\x02")
    end = plain.index(b"PK\x05\x06")
    reason = UNZIP + " The reason: {}."
    yield "nothing", b"", "Uploaded file must be a non-empty zip"
    yield "an archive of nothing", archive(lambda z: None), "Uploaded file must be a non-empty zip"
    yield "text", b"def handler(event, context): pass", reason.format("it is not a whole zip archive")
    yield "cut off", plain[:-1], reason.format("it is not a whole zip archive")
    yield "a slip", of("../../x"), reason.format('entry "../../x": its path leaves the archive')
    yield "an absolute path", of("/etc/x"), reason.format('entry "/etc/x": its path is absolute')
    yield "a link out", of("l", b"/etc", stat.S_IFLNK | 0o777), reason.format('entry "l": it links to an absolute path')
    yield "a device", of("d", b"", stat.S_IFCHR | 0o666), reason.format('entry "d": it is neither a file, a folder nor a link')
    yield "twice", archive(twice), reason.format('entry "a": its name is there twice')
    yield "encrypted", tampered(plain, directory + 8, b"\x01\x00"), reason.format('entry "handler.py": it is encrypted')
    yield "bzip2", archive(lambda z: z.writestr("x", "x" * 99), compression=zipfile.ZIP_BZIP2), reason.format(
        'entry "x": its compression method is neither stored nor deflated')
    yield "a wrong checksum", tampered(plain, directory + 16, struct.pack("<I", 1)), reason.format(
        'entry "handler.py": its checksum is wrong')
    yield "a part of several", tampered(plain, end + 4, b"\x01\x00"), reason.format("it is one part of a split archive")
    yield "a bomb", archive(bomb, compression=zipfile.ZIP_DEFLATED, compresslevel=1), SIZE
    yield "100,000 entries", archive(many), reason.format("it has 100000 entries; at most 10000 are taken")


def test_bad_packages_are_refused_over_the_wire_each_with_its_reason(client, name):
    created(client, name)
    for what, package, told in bad_packages():
        with pytest.raises(botocore.exceptions.ClientError) as caught:
            client.update_function_code(FunctionName=name, ZipFile=package)
        error = caught.value.response
        assert (error["Error"]["Code"], error["Error"]["Message"]) == (PARAMETER, told), what
        assert error["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert invoked(client, name, {"still": "there"}) == ({"still": "there"}, None)


def test_packages_and_requests_that_are_too_large_are_told_by_their_sizes(client, server, name):
    created(client, name)
    bucket = server.bucket(name)
    server.s3.put_object(Bucket=bucket, Key="large.zip", Body=bytes(52_428_801))
    refused(413, "RequestEntityTooLargeException", "Zipped size must be smaller than 52428800 bytes",
            client.update_function_code, FunctionName=name, S3Bucket=bucket, S3Key="large.zip")
    refused(413, "RequestEntityTooLargeException",
            "Request must be smaller than 70167211 bytes for the UpdateFunctionCode operation",
            client.update_function_code, FunctionName=name, ZipFile=bytes(52_700_000))


def test_a_bootstrap_from_windows_runs_and_one_that_is_missing_is_told_as_lambda_tells_it(client, name):
    bootstrap = """#!/bin/sh
    while :; do
      headers=$(mktemp)
      curl -sS --noproxy '*' -D "$headers" -o /dev/null "http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation/next"
      id=$(tr -d '\\r' < "$headers" | sed -n 's/^[Ll]ambda-[Rr]untime-[Aa]ws-[Rr]equest-[Ii]d: *//p')
      curl -sS --noproxy '*' -d '"from windows"' -o /dev/null "http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation/$id/response"
    done
    """.replace("\n    ", "\n")
    entry = zipfile.ZipInfo("bootstrap")
    entry.create_system, entry.external_attr = 0, 0x20
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(entry, bootstrap)
    provided = {"Runtime": "provided.al2023", "Handler": "any"}
    created(client, name, Code={"ZipFile": packed.getvalue()}, Timeout=20, **provided)
    assert invoked(client, name) == ("from windows", None)

    without = {"Code": {"ZipFile": zip_of({"readme": "x"})}}
    created(client, name + "-2", **without, **provided)
    answer, error = invoked(client, name + "-2")
    assert error == "Unhandled" and answer["errorType"] == "Runtime.InvalidEntrypoint"
    assert re.fullmatch(r"RequestId: [0-9a-f-]{36} Error: Couldn't find valid bootstrap\(s\): "
                        r"\[/var/task/bootstrap /opt/bootstrap\]", answer["errorMessage"])
    # The same bootstrap from a layer.
    layer = client.publish_layer_version(LayerName=name, Content={"ZipFile": packed.getvalue()})["LayerVersionArn"]
    updated(client, name + "-2", Layers=[layer], Timeout=20)
    assert invoked(client, name + "-2") == ("from windows", None)


@pytest.mark.parametrize(("handler", "files", "error_type", "message"), [
    ("gone.handler", {"handler.py": ECHO}, "Runtime.ImportModuleError", "Unable to import module 'gone': No module named 'gone'"),
    ("handler.gone", {"handler.py": ECHO}, "Runtime.HandlerNotFound", "Handler 'gone' missing on module 'handler'"),
    ("handler", {"handler.py": ECHO}, "Runtime.MalformedHandlerName",
     "Bad handler 'handler': not enough values to unpack (expected 2, got 1)"),
    ("handler.handler", {"handler.py": "def handler(:\n"}, "Runtime.UserCodeSyntaxError",
     re.compile(r"Syntax error in module 'handler': .*\(handler\.py, line 1\)")),
])
def test_a_bad_handler_is_told_as_lambda_tells_it(client, name, handler, files, error_type, message):
    created(client, name, files, Handler=handler)
    answer, error = invoked(client, name)
    assert (error, answer["errorType"]) == ("Unhandled", error_type)
    told = answer["errorMessage"]
    assert message.fullmatch(told) if isinstance(message, re.Pattern) else told == message


# --- layers: 8.2 ---


def test_a_layer_is_published_listed_and_downloaded(client, server, name):
    package = zip_of({"python/shared.py": "x = 1"})
    answer = client.publish_layer_version(
        LayerName=name, Content={"ZipFile": package}, Description="d", LicenseInfo="MIT",
        CompatibleRuntimes=["python3.11"], CompatibleArchitectures=["x86_64", "arm64"])
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 201
    assert answer["LayerArn"] == f"{LAYER}:{name}" and answer["LayerVersionArn"] == f"{LAYER}:{name}:1"
    assert answer["Content"]["CodeSha256"] == base64.b64encode(hashlib.sha256(package).digest()).decode()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    assert opener.open(answer["Content"]["Location"]).read() == package
    del answer["ResponseMetadata"], answer["Content"]["Location"]
    for got in (client.get_layer_version(LayerName=name, VersionNumber=1),
                client.get_layer_version(LayerName=answer["LayerArn"], VersionNumber=1),
                client.get_layer_version_by_arn(Arn=answer["LayerVersionArn"])):
        del got["ResponseMetadata"], got["Content"]["Location"]
        assert got == answer
    published(client, name, {"a": "2"})
    assert [v["Version"] for v in client.list_layer_versions(LayerName=name)["LayerVersions"]] == [2, 1]
    pages = client.get_paginator("list_layer_versions").paginate(LayerName=name, PaginationConfig={"PageSize": 1})
    assert [[v["Version"] for v in page["LayerVersions"]] for page in pages] == [[2], [1]]
    listed = {l["LayerName"]: l for page in client.get_paginator("list_layers").paginate() for l in page["Layers"]}
    assert listed[name]["LatestMatchingVersion"]["LayerVersionArn"] == f"{LAYER}:{name}:2"
    fitting = client.list_layers(CompatibleRuntime="python3.11", CompatibleArchitecture="arm64")["Layers"]
    assert {l["LayerName"]: l["LatestMatchingVersion"]["Version"] for l in fitting}[name] == 1
    shown = server.aws_json("lambda", "list-layers")["Layers"]
    assert name in [l["LayerName"] for l in shown]
    client.delete_layer_version(LayerName=name, VersionNumber=2)
    client.delete_layer_version(LayerName=name, VersionNumber=2)
    refused(404, "ResourceNotFoundException", "The resource you requested does not exist.",
            client.get_layer_version, LayerName=name, VersionNumber=2)
    refused(400, PARAMETER, "Layer Version Cannot be less than 1", client.get_layer_version, LayerName=name, VersionNumber=0)
    assert published(client, name, {"a": "3"})["Version"] == 3


def test_a_layers_policy_is_kept_and_shown(client, name):
    published(client, name, {"a": "1"})
    version = {"LayerName": name, "VersionNumber": 1}
    refused(404, "ResourceNotFoundException", "No policy is associated with the given resource.",
            client.get_layer_version_policy, **version)
    added = client.add_layer_version_permission(
        **version, StatementId="s", Action="lambda:GetLayerVersion", Principal="111111111111")
    policy = client.get_layer_version_policy(**version)
    assert json.loads(policy["Policy"])["Statement"] == [json.loads(added["Statement"])]
    assert policy["RevisionId"] == added["RevisionId"]
    client.remove_layer_version_permission(**version, StatementId="s", RevisionId=added["RevisionId"])
    refused(404, "ResourceNotFoundException", "Statement s is not found in resource policy.",
            client.remove_layer_version_permission, **version, StatementId="s")


def test_layers_are_merged_in_their_order_for_a_python_function(client, name):
    one = published(client, name + "-one", {
        "python/shared.py": "value = 'one'", "python/only_one.py": "value = 1",
        "python/lib/python3.11/site-packages/deep.py": "value = 'deep'", "data.txt": "one"})["LayerVersionArn"]
    two = published(client, name + "-two", {"python/shared.py": "value = 'two'", "data.txt": "two"})["LayerVersionArn"]
    handler = """import os, shared, only_one, deep
def handler(event, context):
    opt = os.environ.get("LONGSHORE_LAYERS_DIR", "/opt")
    return [shared.value, only_one.value, deep.value, open(opt + "/data.txt").read()]
"""
    answer = created(client, name, {"handler.py": handler}, Layers=[one, two])
    assert [layer["Arn"] for layer in answer["Layers"]] == [one, two]
    assert all(layer["CodeSize"] > 0 for layer in answer["Layers"])
    assert invoked(client, name) == (["two", 1, "deep", "two"], None)
    updated(client, name, Layers=[two, one])
    assert invoked(client, name) == (["one", 1, "deep", "one"], None)
    # A layer that is deleted works on where it is used, and cannot be taken anew.
    client.delete_layer_version(LayerName=name + "-one", VersionNumber=1)
    updated(client, name, MemorySize=256)
    assert invoked(client, name) == (["one", 1, "deep", "one"], None)
    update = client.update_function_configuration
    refused(400, PARAMETER, f"Layer version {one} does not exist.", update, FunctionName=name, Layers=[one])
    assert "Layers" not in updated(client, name, Layers=[])
    answer, error = invoked(client, name)
    assert error == "Unhandled" and answer["errorMessage"] == "Unable to import module 'handler': No module named 'shared'"


def test_a_layer_serves_a_node_function(client, name):
    layer = published(client, name, {
        "nodejs/node_modules/shared/index.js": "exports.value = 'any version';",
        "nodejs/node20/node_modules/exact/index.js": "exports.value = 'this version';"})["LayerVersionArn"]
    handler = """const shared = require('shared'), exact = require('exact');
exports.handler = async () => [shared.value, exact.value];
"""
    created(client, name, {"index.js": handler}, Runtime="nodejs20.x", Handler="index.handler", Layers=[layer], Timeout=20)
    assert invoked(client, name) == (["any version", "this version"], None)


def test_layers_that_a_function_must_not_have_are_refused(client, name):
    for _ in range(2):
        published(client, name, {"a": "1"})
    one, two = f"{LAYER}:{name}:1", f"{LAYER}:{name}:2"
    created(client, name)
    update = client.update_function_configuration
    refused(400, PARAMETER, "Cannot reference more than 5 layers.", update, FunctionName=name,
            Layers=[f"{LAYER}:l{n}:1" for n in range(6)])
    refused(400, PARAMETER, f"Layer version {one}0 does not exist.", update, FunctionName=name, Layers=[one + "0"])
    refused(400, PARAMETER, "Two different versions of the same layer are not allowed to be referenced in the same function. "
                            f"{one} and {two} are versions of the same layer.", update, FunctionName=name, Layers=[one, two])
    refused(400, PARAMETER, "Layers are not in the same region as the function. Layers are expected to be in region us-east-1.",
            update, FunctionName=name, Layers=[one.replace(REGION, "eu-west-1")])
    with pytest.raises(client.exceptions.ClientError, match="lambda:GetLayerVersion"):
        update(FunctionName=name, Layers=[one.replace(ACCOUNT, "111111111111")])


def test_a_wrapper_from_a_layer_starts_the_runtime_and_a_missing_one_ends_it(client, server, name):
    entry = zipfile.ZipInfo("wrapper")
    entry.external_attr = 0o100755 << 16
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(entry, '#!/bin/sh\nWRAPPED="$#" exec "$@"\n')
    layer = client.publish_layer_version(LayerName=name, Content={"ZipFile": packed.getvalue()})["LayerVersionArn"]
    source = "import os\ndef handler(event, context):\n    return os.environ.get('WRAPPED')\n"
    created(client, name, {"handler.py": source}, Layers=[layer],
            Environment={"Variables": {"AWS_LAMBDA_EXEC_WRAPPER": "/opt/wrapper"}})
    wrapped, error = invoked(client, name)
    assert error is None and int(wrapped) >= 3
    updated(client, name, Environment={"Variables": {"AWS_LAMBDA_EXEC_WRAPPER": "/opt/gone"}})
    answer, error = invoked(client, name)
    assert (error, answer["errorType"]) == ("Unhandled", "Runtime.ExitError")
    assert re.fullmatch(r"RequestId: [0-9a-f-]{36} Error: Runtime exited with error: exit status 127", answer["errorMessage"])


def test_extensions_in_a_layer_are_not_started_and_the_log_says_so(client, server, name):
    layer = published(client, name, {"extensions/agent": "#!/bin/sh\nexit 1\n"})["LayerVersionArn"]
    created(client, name, Layers=[layer])
    assert invoked(client, name, {"a": 1}) == ({"a": 1}, None)
    log = base64.b64decode(client.invoke(FunctionName=name, LogType="Tail")["LogResult"]).decode()
    assert "/opt/extensions" not in log, "it is said at the start, not at each invocation"
    told = "longshore: the layers bring extensions (/opt/extensions), which this server does not start"
    assert server.longshore("logs", name).stdout.count(told) == 1


# --- limits, account ---


def test_the_account_counts_functions_versions_and_layers(client, name):
    def usage():
        return client.get_account_settings()["AccountUsage"]

    limits = client.get_account_settings()["AccountLimit"]
    assert {key: limits[key] for key in ("TotalCodeSize", "CodeSizeUnzipped", "CodeSizeZipped", "ConcurrentExecutions")} == {
        "TotalCodeSize": 80530636800, "CodeSizeUnzipped": 262144000, "CodeSizeZipped": 52428800, "ConcurrentExecutions": 1000}
    before = usage()
    size = created(client, name, Publish=True)["CodeSize"]
    layer = published(client, name, {"a": "1"})["Content"]["CodeSize"]
    after = usage()
    assert after["TotalCodeSize"] - before["TotalCodeSize"] == 2 * size + layer
    assert after["FunctionCount"] - before["FunctionCount"] == 1


def test_a_terraform_refresh_finds_what_it_asks_for(client, name):
    created(client, name, Publish=True)
    got = client.get_function(FunctionName=name)
    assert got["Configuration"]["State"] == "Active" and got["Configuration"]["LastUpdateStatus"] == "Successful"
    pages = client.get_paginator("list_versions_by_function").paginate(FunctionName=name)
    versions = [version["Version"] for page in pages for version in page["Versions"]]
    assert versions == ["$LATEST", "1"], "the last element of the last page is the newest version"
    assert not client.get_function_code_signing_config(FunctionName=name).get("CodeSigningConfigArn")


def test_each_operation_of_these_sections_was_looked_at():
    """Runs last: every answer above was compared with the model of the API, member by member."""
    assert {
        "CreateFunction", "GetFunction", "UpdateFunctionCode", "UpdateFunctionConfiguration", "ListFunctions",
        "ListVersionsByFunction", "GetAccountSettings", "TagResource", "UntagResource", "ListTags",
        "PublishLayerVersion", "GetLayerVersion", "GetLayerVersionByArn", "ListLayers", "ListLayerVersions",
        "DeleteLayerVersion", "AddLayerVersionPermission", "GetLayerVersionPolicy", "RemoveLayerVersionPermission",
        "GetFunctionCodeSigningConfig", "GetFunctionUrlConfig", "ListFunctionUrlConfigs", "GetRuntimeManagementConfig",
        "PutRuntimeManagementConfig", "GetFunctionRecursionConfig", "PutFunctionRecursionConfig",
        "ListEventSourceMappings",
    } <= SEEN
