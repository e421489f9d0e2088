"""The function host: our own small runtime clients, AWS's clients unmodified, and what a function finds around it."""

import base64
import hashlib
import io
import json
import pathlib
import subprocess
import sys
import textwrap
import time
import urllib.parse
import zipfile

import botocore
import pytest

import harness
from harness import ACCOUNT, REGION, ROOT

RUST_EXAMPLE = harness.LONGSHORE.with_name("line-count-rust")


def invoke(server, name, event=None, **more):
    """Invokes a function and returns (answer, function error or None)."""
    response = server.functions.invoke(FunctionName=name, Payload=json.dumps(event or {}).encode(), **more)
    return json.loads(response["Payload"].read()), response.get("FunctionError")


def batch_event(bucket, key, **more):
    return {"invocationSchemaVersion": "1.0", "invocationId": "i", "job": {"id": "j"}, "tasks": [
        {"taskId": "t", "s3Key": key, "s3VersionId": None, "s3BucketArn": f"arn:aws:s3:::{bucket}"} | more]}


# --- Python ---


def test_a_python_function_finds_its_context_and_environment(server, name):
    server.deploy(name, """
        import os
        def handler(event, context):
            return {
                "event": event, "environment": dict(os.environ), "cwd": os.getcwd(),
                "context": [context.function_name, context.function_version, context.invoked_function_arn,
                            context.memory_limit_in_mb, context.aws_request_id, context.log_group_name],
                "remaining": context.get_remaining_time_in_millis(),
            }
    """, timeout=17, environment={"MINE": "äöü"})
    answer, error = invoke(server, name, {"a": [1, "é"]})
    assert error is None
    assert answer["event"] == {"a": [1, "é"]}
    arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"
    context = answer["context"]
    assert context[:3] == [name, "$LATEST", arn] and int(context[3]) == 128 and context[5] == f"/aws/lambda/{name}"
    assert 10_000 < answer["remaining"] <= 17_000
    found = answer["environment"]
    assert found["MINE"] == "äöü"
    assert found["AWS_REGION"] == found["AWS_DEFAULT_REGION"] == REGION
    assert found["AWS_LAMBDA_FUNCTION_NAME"] == name and found["_HANDLER"] == "handler.handler"
    assert found["AWS_EXECUTION_ENV"] == "AWS_Lambda_python3.11"
    assert found["AWS_ACCESS_KEY_ID"] and found["AWS_SECRET_ACCESS_KEY"] and found["AWS_ENDPOINT_URL_S3"]
    assert found["AWS_SECRET_ACCESS_KEY"] != server.exports["AWS_SECRET_ACCESS_KEY"], "a function's credentials are its own"
    assert pathlib.Path(answer["cwd"]) == pathlib.Path(found["LAMBDA_TASK_ROOT"])


def test_the_servers_own_environment_does_not_reach_a_function(tmp_path):
    server = harness.Server(tmp_path, {"OPERATORS_SECRET": "not for functions"}).start()
    try:
        server.deploy("look", """
            import os
            def handler(event, context):
                return dict(os.environ)
        """)
        assert "OPERATORS_SECRET" not in invoke(server, "look")[0]
    finally:
        server.stop()


def test_a_warm_process_is_used_again_and_a_new_version_of_the_code_is_not_served_by_it(server, name):
    source = """
        import os
        count = 0
        def handler(event, context):
            global count
            count += 1
            return [os.environ["AWS_LAMBDA_LOG_STREAM_NAME"], count, "VERSION"]
    """
    server.deploy(name, source.replace("VERSION", "one"))
    first, second = invoke(server, name)[0], invoke(server, name)[0]
    assert (first[0], first[1] + 1, "one") == (second[0], second[1], second[2])
    server.functions.update_function_code(
        FunctionName=name, ZipFile=harness.zip_of({"handler.py": textwrap.dedent(source.replace("VERSION", "two"))}))
    server.functions.get_waiter("function_updated_v2").wait(FunctionName=name)
    third = invoke(server, name)[0]
    assert third[2] == "two" and third[0] != first[0]


@pytest.mark.parametrize("files, handler, kind, words", [
    ({"handler.py": "import nowhere_to_be_found\n"}, "handler.handler", "Runtime.ImportModuleError", "nowhere_to_be_found"),
    ({"handler.py": "x = 1\n"}, "handler.handler", "Runtime.HandlerNotFound", "handler"),
    ({"handler.py": "def handler(:\n"}, "handler.handler", "Runtime.UserCodeSyntaxError", "handler.py"),
    ({"other.py": "x = 1\n"}, "handler.handler", "Runtime.ImportModuleError", "handler"),
    ({"handler.py": "raise RuntimeError('at import')\n"}, "handler.handler", "RuntimeError", "at import"),
], ids=["import", "no-handler", "syntax", "no-module", "raises-at-import"])
def test_a_python_function_that_cannot_start_says_why(server, name, files, handler, kind, words):
    server.deploy(name, files, handler=handler)
    for _ in range(2):
        answer, error = invoke(server, name)
        assert error == "Unhandled"
        assert answer["errorType"] == kind and words in answer["errorMessage"], answer


def test_a_function_that_misses_boto3_is_told_the_three_ways_to_it_and_finds_what_was_installed(server, name, tmp_path):
    # An interpreter without packages of its own, whatever this machine's has: the command makes it, pip empties it.
    installed = server.longshore("runtimes", "install", "python3.9")
    python = pathlib.Path(installed.stdout.strip()) / "bin/python3"
    assert python.exists() and str(server.data_dir) in str(python)
    subprocess.run([python, "-m", "pip", "uninstall", "-q", "-y", "boto3", "botocore"], check=True)

    server.deploy(name, "import boto3\ndef handler(event, context): return boto3.client('s3').meta.endpoint_url\n", runtime="python3.9")
    answer, error = invoke(server, name)
    assert error == "Unhandled" and answer["errorType"] == "Runtime.ImportModuleError", answer
    for way in ("zip", "layer", "longshore runtimes install python3.9"):
        assert way in answer["errorMessage"], answer

    server.longshore("runtimes", "install", "python3.9")
    answer, error = invoke(server, name)
    assert error is None and answer.startswith("http://127.0.0.1:"), answer


def test_packages_are_installed_for_python_alone(server):
    refused = server.longshore("runtimes", "install", "nodejs20.x", check=False)
    assert refused.returncode == 64 and "npm install" in refused.stderr


def test_boto3_from_a_functions_own_zip_reaches_the_storage_without_any_setting(server, name):
    server.s3.put_object(Bucket=server.bucket(name), Key="a b", Body=b"read by boto3")
    site = pathlib.Path(botocore.__file__).parents[1]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for module in ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "urllib3"):
            for path in sorted((site / module).rglob("*")):
                # boto3 brings the models of every service; this function needs one of them.
                parts = path.relative_to(site).parts
                other_service = parts[:2] in (("botocore", "data"), ("boto3", "data")) and len(parts) > 3 and parts[2] != "s3"
                if path.is_file() and "__pycache__" not in parts and not other_service:
                    archive.write(path, path.relative_to(site))
        archive.write(site / "six.py", "six.py")
        archive.writestr("handler.py", textwrap.dedent("""
            import boto3
            from urllib.parse import unquote_plus
            s3 = boto3.client("s3")
            def handler(event, context):
                task = event["tasks"][0]
                bucket = task["s3BucketArn"].split(":::")[1]
                body = s3.get_object(Bucket=bucket, Key=unquote_plus(task["s3Key"]))["Body"].read().decode()
                s3.put_object(Bucket=bucket, Key="written", Body=body.upper().encode())
                return {"invocationSchemaVersion": "1.0", "invocationId": event["invocationId"], "results": [
                    {"taskId": task["taskId"], "resultCode": "Succeeded", "resultString": body}]}
        """))
    server.functions.create_function(
        FunctionName=name, Runtime="python3.11", Handler="handler.handler", Role=harness.ROLE, Timeout=60,
        Code={"ZipFile": packed.getvalue()})
    server.functions.get_waiter("function_active_v2").wait(FunctionName=name)
    rows = [(name, "a%20b")]
    job = server.create_job(name, name, server.put_manifest(name, rows))
    server.wait(job)
    assert harness.audit(server, job, rows)[0].message == "read by boto3"
    assert server.s3.get_object(Bucket=name, Key="written")["Body"].read() == b"READ BY BOTO3"


def test_a_python_version_that_is_not_installed_is_replaced_with_a_notice(server, name):
    server.deploy(name, "import sys\ndef handler(event, context): return sys.version_info[:2]\n", runtime="python3.14")
    answer, error = invoke(server, name)
    assert error is None
    if answer == [3, 14]:
        pytest.skip("python3.14 is installed on this machine")
    said = server.said() + server.longshore("logs", name).stdout
    assert any("python3.14" in line and f"{answer[0]}.{answer[1]}" in line for line in said.splitlines()), said[-2000:]


def test_a_runtime_that_no_one_here_can_run_is_refused(server, name):
    with pytest.raises(server.functions.exceptions.InvalidParameterValueException) as error:
        server.deploy(name, {"handler.rb": "def handler(event:, context:) = 1"}, runtime="ruby3.3")
    assert "ruby3.3" in str(error.value)


# --- Node ---


@pytest.mark.parametrize("files, handler", [
    ({"index.mjs": "export const handler = async (event, context) => ({ event, name: context.functionName });"}, "index.handler"),
    ({"index.js": "exports.handler = async (event, context) => ({ event, name: context.functionName });"}, "index.handler"),
    ({"src/app.cjs": "exports.run = (event, context, callback) => setTimeout(() => "
                     "callback(null, { event, name: context.functionName }), 5);"}, "src/app.run"),
], ids=["module", "commonjs", "callback"])
def test_a_node_function_answers(server, name, files, handler):
    harness.need("node")
    server.deploy(name, files, runtime="nodejs20.x", handler=handler)
    for number in range(2):
        assert invoke(server, name, {"number": number, "é": "日本"}) == (
            {"event": {"number": number, "é": "日本"}, "name": name}, None)


def test_a_node_function_that_throws_exits_or_misses_a_module_says_why(server, name):
    harness.need("node")
    server.deploy(name, {"index.mjs": """
        export const handler = async (event) => {
          if (event.exit) process.exit(9);
          throw new RangeError("out of it");
        };
    """}, runtime="nodejs20.x", handler="index.handler")
    answer, error = invoke(server, name)
    assert (error, answer["errorType"], answer["errorMessage"]) == ("Unhandled", "RangeError", "out of it")
    answer, error = invoke(server, name, {"exit": True})
    assert (error, answer["errorType"]) == ("Unhandled", "Runtime.ExitError") and "exit status 9" in answer["errorMessage"]
    server.deploy(name + "-2", {"index.mjs": "import 'nowhere-to-be-found';"}, runtime="nodejs20.x", handler="index.handler")
    answer, error = invoke(server, name + "-2")
    assert error == "Unhandled" and "nowhere-to-be-found" in answer["errorMessage"]


# --- AWS's own clients, unmodified ---


def test_awslambdaric_runs_unmodified_as_a_bootstrap(server, name):
    server.deploy(name, {
        "bootstrap": f"#!/bin/sh\nexec {sys.executable} -m awslambdaric handler.handler\n",
        "handler.py": textwrap.dedent("""
            import os
            def handler(event, context):
                if event.get("raise"):
                    raise KeyError("from awslambdaric")
                return {"event": event, "stream": context.log_stream_name, "id": context.aws_request_id}
        """),
    }, runtime="provided.al2023", handler="handler.handler")
    first, error = invoke(server, name, {"n": 1})
    assert error is None and first["event"] == {"n": 1}
    second, _ = invoke(server, name, {"n": 2})
    assert second["stream"] == first["stream"] and second["id"] != first["id"]
    answer, error = invoke(server, name, {"raise": True})
    assert (error, answer["errorType"]) == ("Unhandled", "KeyError")
    assert invoke(server, name, {"n": 3})[0]["stream"] == first["stream"], "an error leaves the process warm"


def test_awslambdaric_does_a_job(server, name):
    server.deploy(name, {
        "bootstrap": f"#!/bin/sh\nexec {sys.executable} -m awslambdaric handler.handler\n",
        "handler.py": (ROOT / "examples/functions/checksum/handler.py").read_text(),
    }, runtime="provided.al2023", handler="handler.handler")
    server.bucket(name)
    rows = []
    for number in range(40):
        server.s3.put_object(Bucket=name, Key=f"k {number}.txt", Body=b"line\n" * number)
        rows.append((name, f"k+{number}.txt"))
    job = server.create_job(name, name, server.put_manifest(name, rows))
    server.wait(job)
    report = harness.by_key(harness.audit(server, job, rows))
    assert [json.loads(report[f"k+{number}.txt"].message)["lines"] for number in range(40)] == list(range(40))


def test_the_crate_lambda_runtime_does_a_job(server, name):
    if not RUST_EXAMPLE.exists():
        pytest.skip("the Rust example is not built: cargo build --release -p line-count-rust")
    server.deploy(name, {"bootstrap": RUST_EXAMPLE.read_bytes()}, runtime="provided.al2023", handler="bootstrap")
    server.s3.put_object(Bucket=server.bucket(name), Key="three.txt", Body=b"one\ntwo\nthree")
    rows = [(name, "three.txt"), (name, "nowhere")]
    job = server.create_job(name, name, server.put_manifest(name, rows), schema="2.0")
    server.wait(job)
    report = harness.by_key(harness.audit(server, job, rows))
    assert (report["three.txt"].status, report["three.txt"].message) == ("succeeded", "3")
    assert report["nowhere"].error_code == "PermanentFailure"


def test_a_bootstrap_that_is_missing_or_does_not_start_says_so(server, name):
    server.deploy(name, {"other": "x"}, runtime="provided.al2023", handler="bootstrap")
    answer, error = invoke(server, name)
    assert (error, answer["errorType"]) == ("Unhandled", "Runtime.InvalidEntrypoint")
    server.deploy(name + "-2", {"bootstrap": "#!/nowhere/to/be/found\n"}, runtime="provided.al2023", handler="bootstrap")
    answer, error = invoke(server, name + "-2")
    assert error == "Unhandled" and answer["errorType"] in {"Runtime.InvalidEntrypoint", "Runtime.ExitError"}


# --- the examples ---


def put_samples(server, bucket):
    samples = {
        "text.txt": b"one two two\nthree three three", "umlaut ä+b.md": "# Größe\n".encode(), "empty": b"",
        "picture.png": b"\x89PNG\r\n\x1a\n\0\0", "dir/page.html": b"<!DOCTYPE html>\n",
    }
    for key, body in samples.items():
        server.s3.put_object(Bucket=bucket, Key=key, Body=body)
    return {urllib.parse.quote(key): body for key, body in samples.items()}


@pytest.mark.parametrize("schema", ["1.0", "2.0"])
@pytest.mark.parametrize("folder, file, runtime, handler", [
    ("checksum", "handler.py", "python3.11", "handler.handler"),
    ("text-statistics", "handler.py", "python3.11", "handler.handler"),
    ("media-type", "index.mjs", "nodejs20.x", "index.handler"),
])
def test_the_example_functions_do_what_they_say(server, name, folder, file, runtime, handler, schema):
    if runtime.startswith("node"):
        harness.need("node")
    samples = put_samples(server, server.bucket(name))
    server.deploy(name, {file: (ROOT / "examples/functions" / folder / file).read_text()}, runtime=runtime, handler=handler)
    rows = [(name, key) for key in samples] + [(name, "nowhere")]
    job = server.create_job(
        name, name, server.put_manifest(name, rows), schema=schema,
        arguments={"min_letters": "4"} if schema == "2.0" else None)
    server.wait(job)
    report = harness.by_key(harness.audit(server, job, rows))
    missing = report.pop("nowhere")
    assert (missing.status, missing.error_code) == ("failed", "PermanentFailure") and "no object" in missing.message
    if folder == "text-statistics":
        assert report.pop("picture.png").message == "The object is not text: it holds zero bytes."
    assert {row.status for row in report.values()} == {"succeeded"}, report
    answers = {key: json.loads(row.message) for key, row in report.items()}
    if folder == "checksum":
        for key, body in samples.items():
            assert answers[key]["sha256"] == hashlib.sha256(body).hexdigest()
            assert answers[key]["bytes"] == len(body)
        assert answers["text.txt"] | {"type": "text/plain", "lines": 2} == answers["text.txt"]
    elif folder == "text-statistics":
        assert answers["text.txt"] == {"words": 6, "lines": 2, "longest_line": 17, "most_common": "three", "times": 3}
    else:
        assert {key: answer["type"] for key, answer in answers.items()} == {
            "text.txt": "text/plain", "umlaut%20%C3%A4%2Bb.md": "text/plain", "empty": "application/x-empty",
            "picture.png": "image/png", "dir/page.html": "text/html"}
        assert all(answers[key]["bytes"] == len(body) for key, body in samples.items())


# --- around a function ---


def test_what_a_function_prints_is_kept_and_shown(server, name):
    server.deploy(name, """
        import sys
        def handler(event, context):
            print("to stdout", event["n"])
            print("to stderr", event["n"], file=sys.stderr)
    """)
    for number in range(3):
        assert invoke(server, name, {"n": number}) == (None, None)

    def complete():
        lines = server.longshore("logs", name, check=False).stdout  # there is no log until its first line is written
        return all(f"to {stream} {number}" in lines for stream in ("stdout", "stderr") for number in range(3))

    harness.wait_for("the log", complete, 5)
    answer = server.functions.invoke(FunctionName=name, Payload=b'{"n": 7}', LogType="Tail")
    tail = base64.b64decode(answer["LogResult"]).decode()
    assert "to stdout 7" in tail and "REPORT RequestId:" in tail


def test_a_function_past_its_time_out_is_dead_with_its_children(server, name):
    server.deploy(name, """
        import subprocess, time
        def handler(event, context):
            subprocess.Popen(["sh", "-c", "sleep 600; : " + event["marker"]], start_new_session=False)
            print("started a child")
            time.sleep(600)
    """, timeout=1)
    marker = f"marker-of-{name}"

    def processes():
        return [path for path in pathlib.Path("/proc").glob("[0-9]*/cmdline") if marker in harness.content_of(path)]

    began = time.monotonic()
    response = server.functions.invoke(FunctionName=name, Payload=json.dumps({"marker": marker}).encode(), LogType="Tail")
    answer, error = json.loads(response["Payload"].read()), response.get("FunctionError")
    assert time.monotonic() - began < 5
    assert (error, answer["errorType"]) == ("Unhandled", "Sandbox.Timedout")
    assert "Task timed out after 1.00 seconds" in answer["errorMessage"]
    assert "started a child" in base64.b64decode(response["LogResult"]).decode()
    harness.wait_for("the end of the process tree", lambda: not processes(), 2)


def test_a_job_grows_to_several_processes(server, name):
    server.deploy(name, """
        import os, time
        def handler(event, context):
            time.sleep(0.1)
            task = event["tasks"][0]
            return {"invocationSchemaVersion": "1.0", "invocationId": "i", "results": [
                {"taskId": task["taskId"], "resultCode": "Succeeded", "resultString": context.log_stream_name}]}
    """)
    rows = [(server.bucket(name), f"k{number}") for number in range(60)]
    job = server.create_job(name, name, server.put_manifest(name, rows))
    server.wait(job)
    assert len({row.message for row in harness.audit(server, job, rows)}) > 1


def test_a_function_reaches_its_storage_and_no_other_api(server, name):
    server.deploy(name, """
        import os, urllib.error, urllib.request
        def handler(event, context):
            statuses = {}
            for path in event["paths"]:
                try:
                    statuses[path] = urllib.request.urlopen(os.environ["AWS_ENDPOINT_URL_S3"].rstrip("/") + path).status
                except urllib.error.HTTPError as error:
                    statuses[path] = error.code
            return statuses
    """)
    paths = ["/2015-03-31/functions/", "/v20180820/jobs", "/_longshore/v1/", "/", f"/{name}/k"]
    answer, error = invoke(server, name, {"paths": paths})
    assert error is None
    assert all(400 <= status < 500 for status in answer.values()), answer


def test_an_answer_of_exactly_the_limit_passes_and_one_byte_more_does_not(server, name):
    server.deploy(name, "def handler(event, context): return 'x' * event['length']\n", timeout=60)
    limit = 6 * 1024 * 1024 + 100
    answer, error = invoke(server, name, {"length": limit - 2})
    assert error is None and len(answer) == limit - 2
    answer, error = invoke(server, name, {"length": limit - 1})
    assert error == "Unhandled" and answer["errorType"] == "Function.ResponseSizeTooLarge"
