"""`longshore function`: functions for people, against a real server, and against a Lambda that is none of ours."""

import contextlib
import http.server
import json
import os
import pty
import re
import subprocess
import threading
import uuid

import pytest

import harness
from harness import ACCOUNT, LONGSHORE, REGION

ECHO = """
import os

print("loaded")


def handler(event, context):
    print("called\\x1b[31m with", event)
    if event.get("fail"):
        raise ValueError("no\\nway")
    if event.get("exit"):
        os._exit(3)
    if event.get("sleep"):
        import time
        time.sleep(event["sleep"])
    context = context.client_context
    return {"event": event, "variable": os.environ.get("VARIABLE"), "custom": context and context.custom}
"""


def function(environment, *arguments, status=0, **options):
    done = harness.run([LONGSHORE, "function", *arguments], environment, check=False, **options)
    assert done.returncode == status, f"status {done.returncode}, not {status}\n{done.stdout}\n{done.stderr}"
    assert "panicked" not in done.stderr
    return done


class Place:
    """A folder with a function's file, and `longshore function` on a server."""

    def __init__(self, server, name, folder):
        self.server, self.name, self.folder = server, name, folder
        self.arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"
        self.file = folder / f"{name}.py"
        self.file.write_text(ECHO)
        self.environment = harness.plain_environment(server.home) | {"LONGSHORE_DATA_DIR": str(server.data_dir)}

    def function(self, *arguments, **options):
        return function(self.environment, *arguments, cwd=self.folder, **options)

    def json(self, *arguments, **options):
        return json.loads(self.function(*arguments, "--json", **options).stdout)

    def deploy(self, *arguments, path=None, **options):
        return self.function("deploy", path or self.file, *arguments, **options)

    def configuration(self, **which):
        return self.server.functions.get_function_configuration(FunctionName=self.name, **which)


@pytest.fixture
def place(server, name, tmp_path):
    return Place(server, name, tmp_path)


@pytest.fixture(scope="module")
def deployed(server, tmp_path_factory):
    """A function that tests call and look at, and leave as it is."""
    place = Place(server, "function-cli-" + uuid.uuid4().hex[:6], tmp_path_factory.mktemp("deployed"))
    place.deploy("--timeout", "1", "--description", "an echo\x7f", "--env", "VARIABLE=secret-value")
    return place


# --- deploy ---


def test_a_file_becomes_a_function_and_a_second_time_nothing_is_changed(place):
    done = place.deploy()
    assert done.stdout == place.arn + "\n"
    runtime = place.configuration()["Runtime"]
    assert f"guessed: the name {place.name}; --name gives another" in done.stderr
    assert f"guessed: function handler of {place.name}.py" in done.stderr
    assert f"guessed: the runtime {runtime}, which is installed here" in done.stderr
    assert f"created {place.name}: {runtime}, {place.name}.handler, 512 MB, 60 s, " in done.stderr
    created = place.configuration()
    assert (created["State"], created["LastUpdateStatus"]) == ("Active", "Successful")
    assert created["Role"] == f"arn:aws:iam::{ACCOUNT}:role/longshore-batch"

    again = place.deploy()
    assert again.stdout == place.arn + "\n"
    assert again.stderr == f"{place.name} is up to date: nothing was changed\n", "what there is, is not guessed"
    assert place.configuration()["RevisionId"] == created["RevisionId"]
    document = place.json("deploy", place.file)
    assert (document["Created"], document["Changed"], document["FunctionArn"]) == (False, [], place.arn)
    assert document["Configuration"]["CodeSha256"] == created["CodeSha256"]
    # The clock is no part of a zip.
    os.utime(place.file, (1, 1))
    assert "nothing was changed" in place.deploy().stderr


def test_what_was_done_before_something_failed_is_told(place):
    failed = place.deploy("--concurrency", "5000", status=1)
    assert f"{place.name} itself was created; what follows failed" in failed.stderr
    assert "UnreservedConcurrentExecution below its minimum" in failed.stderr
    assert place.configuration()["State"] == "Active"


@pytest.mark.parametrize("command", ["invoke", "describe", "versions", "aliases", "delete", "logs"])
def test_an_empty_name_is_no_name(place, command):
    assert "a value is required" in place.function(command, "", status=64).stderr


def test_only_what_differs_is_changed_and_what_is_not_said_stays(place):
    place.deploy("--timeout", "7", "--memory", "256", "--env", "AA=1", "--env", "BB=secret", "--concurrency", "2",
                 "--handler", f"{place.name}.handler", "--runtime", "python3.12", "--description", "first")
    before = place.configuration()
    assert (before["Timeout"], before["MemorySize"], before["Runtime"]) == (7, 256, "python3.12")
    done = place.deploy("--memory", "512", "--env", "CC=3")
    assert done.stderr == f"updated {place.name}: memory 256 → 512 MB, environment (set CC)\n"
    after = place.configuration()
    assert (after["Timeout"], after["MemorySize"], after["Runtime"], after["Description"]) == (7, 512, "python3.12", "first")
    assert after["Environment"]["Variables"] == {"AA": "1", "BB": "secret", "CC": "3"}
    assert after["CodeSha256"] == before["CodeSha256"]

    # A file says which variables there are; code alone is code alone.
    (place.folder / "env").write_text("# of production\nexport AA='1'\nDD=4\n")
    done = place.deploy("--env-file", "env", "--env", "EE=5")
    assert done.stderr == f"updated {place.name}: environment (set DD EE, removed BB CC)\n"
    place.file.write_text(ECHO + "# changed\n")
    done = place.deploy()
    assert re.fullmatch(rf"guessed: the name {place.name}; .*\nupdated {place.name}: code \(\d+ bytes\)\n", done.stderr), done.stderr
    assert "reserved concurrency 2 → none" in place.deploy("--concurrency", "none").stderr
    refused = place.deploy("--role", "other", status=1)
    assert "cannot be assumed by Lambda" in refused.stderr and f"there is no role arn:aws:iam::{ACCOUNT}:role/other" in refused.stderr
    place.server.role("other")
    done = place.deploy("--concurrency", "0", "--role", "other")
    assert "reserved concurrency none → 0" in done.stderr and f"→ arn:aws:iam::{ACCOUNT}:role/other" in done.stderr
    assert "secret" not in done.stderr


def test_a_version_is_published_once_for_the_same_code(place):
    done = place.deploy("--publish")
    assert (done.stdout, "published version 1" in done.stderr) == (f"{place.arn}:1\n", True)
    done = place.deploy("--publish")
    assert done.stdout == f"{place.arn}:1\n"
    assert "nothing was changed" in done.stderr and "it is version 1 already" in done.stderr
    place.file.write_text(ECHO + "# changed\n")
    document = place.json("deploy", place.file, "--publish")
    assert (document["Version"]["Version"], document["FunctionArn"]) == ("2", f"{place.arn}:2")
    versions = place.function("versions", place.name).stdout.splitlines()
    assert [line.split()[0] for line in versions] == ["VERSION", "$LATEST", "1", "2"]
    assert [v["Version"] for v in place.json("versions", place.name)["Versions"]] == ["$LATEST", "1", "2"]
    assert place.function("invoke", f"{place.name}:1", "--payload", "{}").stdout
    place.function("delete", f"{place.name}:1")
    assert [v["Version"] for v in place.json("versions", place.name)["Versions"]] == ["$LATEST", "2"]
    refused = place.function("invoke", f"{place.name}:1", status=2)
    assert f'hint: its versions are listed by "longshore function versions {place.name}"' in refused.stderr


def test_an_alias_is_made_and_moved_to_what_was_deployed(place):
    done = place.deploy("--alias", "live")
    assert done.stdout == f"{place.arn}:live\n"
    assert "published version 1" in done.stderr and "alias live: made, to version 1" in done.stderr
    document = place.json("deploy", place.file, "--alias", "live")
    assert (document["Alias"]["FunctionVersion"], document["FunctionArn"]) == ("1", f"{place.arn}:live")
    place.file.write_text(ECHO + "# changed\n")
    assert "alias live: version 1 → 2\n" in place.deploy("--alias", "live").stderr
    assert place.function("invoke", f"{place.name}:live", "--qualifier", "live").stdout
    assert place.json("invoke", f"{place.name}:live")["ExecutedVersion"] == "2"
    [alias] = place.json("aliases", place.name)["Aliases"]
    assert (alias["Name"], alias["FunctionVersion"]) == ("live", "2")
    # A weight that somebody gave another version is over when all is to go to this one.
    place.server.functions.update_alias(
        FunctionName=place.name, Name="live", RoutingConfig={"AdditionalVersionWeights": {"1": 0.25}})
    assert place.function("aliases", place.name).stdout.splitlines()[1].split() == ["live", "2,", "and", "25", "%", "to", "1"]
    done = place.deploy("--alias", "live")
    assert "alias live: version 2 → 2, with no other version beside it" in done.stderr
    assert not place.server.functions.get_alias(FunctionName=place.name, Name="live").get("RoutingConfig")
    # A version that an alias leads to stays.
    assert "following aliases reference it: [live]" in place.function("delete", f"{place.name}:2", status=1).stderr


def test_a_folder_a_zip_and_a_program_are_deployed(place):
    folder = place.folder / "package"
    for file, content in {
        "main.py": "import lib.help\nfrom node_modules import x\n\ndef lambda_handler(event, context):\n    return lib.help.x\n",
        "lib/help.py": "x = 'helped'\n", "node_modules/x.py": "", ".git/config": "", "__pycache__/main.pyc": "",
    }.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(content)
    (folder / "link.py").symlink_to("main.py")
    done = place.deploy("--name", place.name, path=folder)
    assert "guessed: function lambda_handler of main.py" in done.stderr
    assert "left out: 1 symbolic link, which is not followed" in done.stderr
    assert place.function("invoke", place.name).stdout == '"helped"\n'
    size = place.configuration()["CodeSize"]
    # The folder's own name, and the handler that it has been given before.
    (folder / "other.py").write_text("def work(event, context):\n    return 'other'\n")
    place.deploy("--name", place.name, "--handler", "other.work", path=folder)
    assert "nothing was changed" in place.deploy("--name", place.name, path=folder).stderr
    assert place.function("invoke", place.name).stdout == '"other"\n'

    archive = place.folder / f"{place.name}-zip.zip"
    archive.write_bytes(harness.zip_of({"index.py": "def handler(event, context):\n    return 1\n"}))
    assert place.deploy(path=archive).stdout == f"{place.arn}-zip\n"
    assert place.function("invoke", f"{place.name}-zip").stdout == "1\n"
    program = place.folder / f"{place.name}-program"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    assert "guessed: the runtime provided.al2023" in place.deploy(path=program).stderr
    assert size > 0


def test_layers_are_given_to_a_function_and_replaced(place):
    layers = [
        place.server.functions.publish_layer_version(
            LayerName=place.name, Content={"ZipFile": harness.zip_of({"python/layered.py": f"x = {n}\n"})})["LayerVersionArn"]
        for n in (1, 2)
    ]
    place.file.write_text("import layered\ndef handler(event, context):\n    return layered.x\n")
    place.deploy("--layer", layers[0])
    assert place.function("invoke", place.name).stdout == "1\n"
    assert f"Layer        {layers[0]}\n" in place.function("describe", place.name).stdout
    for again in (["--layer", layers[0]], []):
        assert "nothing was changed" in place.deploy(*again).stderr
    assert place.deploy("--layer", layers[1]).stderr == f"updated {place.name}: layers\n"
    assert place.function("invoke", place.name).stdout == "2\n"


def test_what_cannot_be_deployed_is_told_before_anything_is_sent(place):
    empty = place.folder / "empty"
    empty.mkdir()
    broken = place.folder / "broken.py"
    broken.write_text("def handler(event, context):\nreturn 1\n")
    nothing = place.folder / "nothing.py"
    nothing.write_text("x = 1\n")
    (place.folder / "env").write_text("no pair\n")
    for arguments, told in [
        (["nowhere.py"], "there is no file nowhere.py"),
        (["empty"], "it is not clear which file of empty has the function"),
        (["broken.py"], "broken.py, line 2: syntax error: "),
        (["nothing.py"], 'nothing.py defines neither "handler" nor "lambda_handler"'),
        ([place.file, "--name", "a b"], "--name a b: a name has 1 to 64 letters"),
        ([place.file, "--env", "AWS_REGION=x"], "--env: Lambda sets AWS_REGION itself"),
        ([place.file, "--env-file", "env"], "env, line 1: it must be KEY=VALUE"),
        ([place.file, "--alias", "1"], "--alias 1: it has letters"),
        ([place.file, "--runtime", "nodejs22.x"], "which the runtime nodejs22.x does not run"),
        ([place.file, "--timeout", "901"], "901 is not in 1..=900"),
    ]:
        done = place.function("deploy", *arguments, status=64)
        assert told in done.stderr and done.stdout == "", done.stderr
    with pytest.raises(place.server.functions.exceptions.ResourceNotFoundException):
        place.configuration()
    # What only the server knows comes with its own words.
    done = place.function("deploy", place.file, "--layer", "arn:of:nothing", status=1)
    assert "error: " in done.stderr and done.stdout == ""
    # No server at all.
    away = place.environment | {"LONGSHORE_DATA_DIR": str(place.folder)}
    assert "no server runs with the data directory" in function(away, "list", status=1).stderr


# --- list, describe, delete ---


def test_functions_are_listed_and_described_without_their_secrets(deployed):
    lines = deployed.function("list").stdout.splitlines()
    assert lines[0].split() == ["NAME", "RUNTIME", "VERSIONS", "MEMORY", "TIMEOUT", "MODIFIED", "CONCURRENCY"]
    [row] = [line for line in lines if line.startswith(deployed.name + " ")]
    assert re.fullmatch(rf"{deployed.name} +python\S+ +0 +512 MB +1 s +\S+ \S+Z +-", row), row
    listed = deployed.json("list")["Functions"]
    assert deployed.name in [f["FunctionName"] for f in listed]
    said = deployed.function("describe", deployed.name).stdout
    assert "Environment  VARIABLE\n" in said and "secret-value" not in said
    assert "Description  an echo\ufffd\n" in said
    described = deployed.json("describe", deployed.name)
    assert described["Configuration"]["Environment"]["Variables"] == {"VARIABLE": "secret-value"}
    assert f"{deployed.arn}:$LATEST" in deployed.function("describe", f"{deployed.name}:$LATEST").stdout
    assert deployed.function("describe", deployed.arn).stdout == said, "an ARN is a name, too"


def test_a_name_that_is_nearly_one_is_answered_with_those_it_may_be(deployed):
    typed = deployed.name[:-1]
    for command in ["describe", "delete", "logs", "stats", "versions"]:
        done = deployed.function(command, typed, status=1)
        assert "ResourceNotFoundException" in done.stderr, command
        assert re.search(rf"hint: there is .*\b{deployed.name}\b", done.stderr), done.stderr
    assert f"hint: there is {deployed.name}" in deployed.function("invoke", typed, status=2).stderr
    done = deployed.function("describe", "zzz", status=1)
    assert 'hint: list the functions that there are with "longshore function list"' in done.stderr


def test_a_function_is_deleted(place):
    place.deploy()
    assert place.function("delete", place.name).stdout == place.name + "\n"
    done = place.function("delete", place.name, status=1)
    assert "Function not found" in done.stderr
    place.deploy()
    assert place.json("delete", place.name) == {}


# --- invoke ---


def test_an_answer_goes_to_standard_output_and_an_error_to_standard_error(deployed):
    done = deployed.function("invoke", deployed.name, "--payload", '{"a": 1}')
    assert json.loads(done.stdout) == {"event": {"a": 1}, "variable": "secret-value", "custom": None}
    assert done.stderr == ""
    (deployed.folder / "p.json").write_text('{"b": 2}')
    assert json.loads(deployed.function("invoke", deployed.name, "-p", "@p.json").stdout)["event"] == {"b": 2}
    done = deployed.function("invoke", deployed.name, "-p", "-", stdin='{"c": 3}')
    assert json.loads(done.stdout)["event"] == {"c": 3}
    context = ["--client-context", '{"custom": {"k": "v"}}', "--qualifier", "$LATEST"]
    assert json.loads(deployed.function("invoke", deployed.name, *context).stdout)["custom"] == {"k": "v"}

    failed = deployed.function("invoke", deployed.name, "-p", '{"fail": 1}', status=1)
    assert failed.stdout == ""
    assert failed.stderr.startswith(f"error: {deployed.name} failed: ValueError: no\nway\n"), failed.stderr
    assert ", in handler\n" in failed.stderr
    timed_out = deployed.function("invoke", deployed.name, "-p", '{"sleep": 5}', status=1)
    assert "Task timed out after 1.00 seconds" in timed_out.stderr


def test_the_log_of_an_invocation_is_readable_beside_its_answer(deployed):
    done = deployed.function("invoke", deployed.name, "--tail")
    assert json.loads(done.stdout)["event"] == {}
    lines = done.stderr.splitlines()
    assert "called\\x1b[31m with {}" in lines
    assert any(line.startswith("REPORT RequestId: ") for line in lines)
    document = deployed.json("invoke", deployed.name, "--tail", "-p", '{"fail": true}', status=1)
    assert (document["StatusCode"], document["FunctionError"], document["ExecutedVersion"]) == (200, "Unhandled", "$LATEST")
    assert document["Payload"]["errorType"] == "ValueError" and "START RequestId: " in document["LogResult"]


def test_a_call_may_be_tried_or_queued(deployed):
    done = deployed.function("invoke", deployed.name, "--dry-run")
    assert (done.stdout, done.stderr) == ("", "the function could be called so\n")
    assert deployed.json("invoke", deployed.name, "--dry-run")["StatusCode"] == 204
    done = deployed.function("invoke", deployed.name, "--event", "--payload", '{"queued": 1}')
    assert done.stdout == ""
    id = re.fullmatch(r"queued, with the request ID ([0-9a-f-]{36})\n", done.stderr)[1]
    harness.wait_for("its log", lambda: "{'queued': 1}" in deployed.function(
        "logs", deployed.name, "--request-id", id).stdout)
    assert deployed.json("invoke", deployed.name, "--event")["StatusCode"] == 202


def test_what_is_no_payload_is_refused_before_anything_is_sent(deployed):
    (deployed.folder / "q.json").write_text("{")
    for payload, told in [
        ("{a: 1}", "the payload from the command line is no JSON: "),
        ("", "the payload from the command line is no JSON: "),
        ("@q.json", "the payload from q.json is no JSON: "),
        ("q.json", "hint: a file is named with an @ before it: @q.json"),
        ("@nowhere.json", "cannot read the payload from nowhere.json"),
    ]:
        done = deployed.function("invoke", deployed.name, "--payload", payload, status=64)
        assert told in done.stderr and done.stdout == "", done.stderr
    assert "is no JSON" in deployed.function("invoke", deployed.name, "--client-context", "x", status=64).stderr


# --- logs ---


def lines_of(place, *arguments):
    return place.function("logs", place.name, *arguments).stdout.splitlines()


def test_a_log_is_printed_with_its_control_characters_written_out(place):
    place.deploy()
    assert place.function("logs", place.name).stdout == "", "a function that has not printed has an empty log"
    ids = [place.json("invoke", place.name, "--payload", json.dumps({"n": n}))["RequestId"] for n in range(3)]
    harness.wait_for("the last REPORT line", lambda: sum(l.startswith("REPORT") for l in lines_of(place)) == 3)
    lines = lines_of(place)
    assert "loaded" in lines[:2], "what a start prints comes first"
    assert [line for line in lines if line.startswith("called")] == [f"called\\x1b[31m with {{'n': {n}}}" for n in range(3)]
    assert lines_of(place, "--tail", "2") == lines[-2:]
    assert lines_of(place, "--tail", "0") == []
    assert lines_of(place, "--since", "1h") == lines
    assert lines_of(place, "--since", "2999-01-01T00:00:00Z") == []
    one = lines_of(place, "--request-id", ids[1])
    assert (one[0].split()[:3], one[1], one[-1].split()[:3]) == (
        ["START", "RequestId:", ids[1]], "called\\x1b[31m with {'n': 1}", ["REPORT", "RequestId:", ids[1]])
    assert lines_of(place, "--request-id", ids[1], "--tail", "1") == one[-1:]
    assert lines_of(place, "--request-id", str(uuid.uuid4())) == []
    document = place.json("logs", place.name, "--tail", "1")["lines"]
    [last] = document
    assert last["text"] == lines[-1] and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", last["time"])
    assert "is no time" in place.function("logs", place.name, "--since", "yesterday", status=64).stderr
    # Nothing of it reaches a terminal either.
    main, terminal = pty.openpty()
    subprocess.run([LONGSHORE, "function", "logs", place.name], env=place.environment, stdout=terminal, check=True, timeout=60)
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):
        while piece := os.read(main, 65536):
            shown += piece
    os.close(main)
    assert b"called\\x1b[31m" in shown and b"\x1b" not in shown


def test_a_log_is_followed_until_nobody_reads(place):
    place.deploy()
    place.function("invoke", place.name, "--payload", '{"n": "before"}')
    command = [LONGSHORE, "function", "logs", place.name, "--follow", "--tail", "1", "--json"]
    with subprocess.Popen(command, env=place.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as follower:
        try:
            assert json.loads(follower.stdout.readline())["text"], "the last line of what was there"
            place.function("invoke", place.name, "--payload", '{"n": "after"}')
            while "'after'" not in json.loads(follower.stdout.readline())["text"]:
                pass
            # A reader that leaves ends it, with the next line.
            follower.stdout.close()
            place.function("invoke", place.name)
            assert follower.wait(20) == 0, follower.stderr.read()
        finally:
            follower.kill()


def test_the_log_of_one_of_several_at_once_says_what_may_be_anothers(place):
    place.file.write_text("import time\ndef handler(event, context):\n    time.sleep(event['s'])\n    print('mine?')\n")
    place.deploy("--concurrency", "2")
    place.function("invoke", place.name, "--payload", '{"s": 0}')
    command = [LONGSHORE, "function", "invoke", place.name, "--json", "--payload"]
    slow, fast = (
        subprocess.Popen([*command, json.dumps({"s": seconds})], env=place.environment, stdout=subprocess.PIPE, text=True)
        for seconds in (2, 1)
    )
    slow, fast = (json.loads(process.communicate(timeout=60)[0])["RequestId"] for process in (slow, fast))
    harness.wait_for("the last REPORT line", lambda: sum(l.startswith("REPORT") for l in lines_of(place)) == 3)
    done = place.function("logs", place.name, "--request-id", slow)
    ids = set(re.findall("RequestId: (\\S+)", done.stdout))
    assert ids == {slow}, done.stdout
    assert "mine?" in done.stdout
    assert "other invocations ran at the same time" in done.stderr


# --- stats ---


def test_figures_are_counted_by_how_invocations_ended(place):
    place.deploy("--timeout", "1")
    untouched = place.json("stats", place.name)
    assert (untouched["invocations"], untouched["coldStarts"], untouched["duration"]["p50Ms"]) == (0, 0, None)
    for _ in range(5):
        place.function("invoke", place.name)
    for payload, status in [('{"fail": 1}', 1), ('{"exit": 1}', 1), ('{"sleep": 5}', 1)]:
        place.function("invoke", place.name, "--payload", payload, status=status)
    place.server.functions.put_function_concurrency(FunctionName=place.name, ReservedConcurrentExecutions=0)
    refused = place.function("invoke", place.name, status=2)
    assert "TooManyRequestsException" in refused.stderr
    stats = place.json("stats", place.name)
    assert stats["invocations"] == 8
    assert (stats["timeouts"], stats["errors"]) == (1, 2)
    assert stats["errorsByType"]["Runtime.ExitError"] == 1
    assert stats["throttlesByReason"] == {"ReservedFunctionConcurrentInvocationLimitExceeded": 1}
    assert 0 < stats["duration"]["p50Ms"] < 1000 <= stats["duration"]["maxMs"]
    # Those that died were started anew.
    assert stats["coldStarts"] >= 2 and 0 < stats["initDuration"]["p50Ms"] <= stats["initDuration"]["maxMs"]
    assert stats["maxMemoryUsedMB"] > 0
    assert (stats["inFlight"], stats["waiting"]) == (0, 0)
    said = place.function("stats", place.name).stdout
    assert re.search(r"^Invocations  8, p50 \d", said, re.M) and "1 Runtime.ExitError" in said
    [row] = [line for line in place.function("stats").stdout.splitlines() if line.startswith(place.name + " ")]
    assert row.split()[1:5] == ["8", "2", "1", "1"]
    [mine] = [f for f in place.json("stats")["functions"] if f["functionName"] == place.name]
    assert mine["invocations"] == 8


def test_what_runs_at_the_moment_is_told(place):
    place.deploy("--timeout", "30")
    command = [LONGSHORE, "function", "invoke", place.name, "--payload", '{"sleep": 2}']
    with subprocess.Popen(command, env=place.environment, stdout=subprocess.PIPE) as running:
        harness.wait_for("an invocation in flight", lambda: place.json("stats", place.name)["inFlight"] == 1)
        assert "Now          1 in flight" in place.function("stats", place.name).stdout
        assert running.wait(60) == 0
    harness.wait_for("an idle environment", lambda: place.json("stats", place.name)["idle"] == 1)


# --- elsewhere ---


@contextlib.contextmanager
def another_lambda():
    """A Lambda that is none of ours: it has no functions, and keeps what it is asked."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked.append((self.command, self.path, body, self.headers.get("Authorization", "")))
            made = {"FunctionName": "f", "FunctionArn": "arn:aws:lambda:eu-west-1:111122223333:function:f", "State": "Active",
                    "LastUpdateStatus": "Successful", "Runtime": "python3.12", "Handler": "f.handler", "CodeSize": 5}
            created = any(command == "POST" for command, *_ in asked)
            status, answer = (200, made) if created else (404, {"Message": "Function not found: f", "Type": "User"})
            if "Action=GetCallerIdentity" in body.decode("latin-1"):
                status, answer = 500, {}
            content = json.dumps(answer).encode()
            self.send_response(status)
            if status == 404:
                self.send_header("x-amzn-ErrorType", "ResourceNotFoundException:http://internal.amazon.com/")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = answer

        def log_message(self, *_):
            pass

    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.server_port}", asked
    finally:
        listener.shutdown()
        listener.server_close()


def test_elsewhere_a_new_function_needs_a_role_and_logs_and_figures_are_not_ours(tmp_path):
    environment = harness.plain_environment(tmp_path) | {"AWS_ACCESS_KEY_ID": "AK", "AWS_SECRET_ACCESS_KEY": "secret"}
    source = tmp_path / "f.py"
    source.write_text(ECHO)
    with another_lambda() as (url, asked):
        at = ["--endpoint-url", url, "--region", "eu-west-1"]
        done = function(environment, "deploy", source, *at, status=64)
        assert "a function needs a role there, and none is named" in done.stderr and "--role" in done.stderr
        assert not [command for command, *_ in asked if command != "GET"], "nothing was sent"
        done = function(environment, "logs", "f", *at, status=1)
        assert "logs are kept by Longshore alone" in done.stderr and "aws logs tail /aws/lambda/f" in done.stderr
        assert "figures are kept by Longshore alone" in function(environment, "stats", *at, status=1).stderr
        role = "arn:aws:iam::111122223333:role/lambda"
        done = function(environment, "deploy", source, "--role", role, *at)
        assert done.stdout == "arn:aws:lambda:eu-west-1:111122223333:function:f\n"
        [(_, path, body, authorization)] = [call for call in asked if call[0] == "POST"]
        assert (path, json.loads(body)["Role"]) == ("/2015-03-31/functions", role)
        assert "/eu-west-1/lambda/aws4_request" in authorization


def test_our_server_is_reached_by_its_url_and_by_a_profile(deployed, tmp_path):
    keys = {name: deployed.server.exports[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    environment = harness.plain_environment(tmp_path) | keys
    url = f"http://{deployed.server.address}"
    for command in (["describe", deployed.name], ["logs", deployed.name, "--tail", "1"], ["stats", deployed.name]):
        assert function(environment, *command, "--endpoint-url", url).stdout, command
    aws = tmp_path / ".aws"
    aws.mkdir()
    (aws / "config").write_text(f"[profile here]\nservices = s\nregion = {REGION}\n[services s]\nlambda =\n  endpoint_url = {url}\n")
    (aws / "credentials").write_text(
        f"[here]\naws_access_key_id = {keys['AWS_ACCESS_KEY_ID']}\naws_secret_access_key = {keys['AWS_SECRET_ACCESS_KEY']}\n")
    environment = harness.plain_environment(tmp_path)
    assert deployed.name in function(environment, "list", "--profile", "here").stdout
    wrong = environment | {"AWS_ACCESS_KEY_ID": "AKnobody", "AWS_SECRET_ACCESS_KEY": "x"}
    done = function(wrong, "list", "--endpoint-url", url, status=1)
    assert "hint: the endpoint does not know these credentials" in done.stderr


def test_our_own_paths_are_signed_and_refuse_in_json(deployed):
    server = deployed.server
    target = f"/_longshore/v1/functions/{deployed.name}/stats"
    status, _, body = harness.send(server, "GET", target, harness.signed(server, "GET", "s3", target))
    assert (status, json.loads(body)["functionName"]) == (200, deployed.name)
    assert harness.send(server, "GET", target)[0] == 403
    for path, wanted, code in [
        ("/_longshore/v1/functions/none/logs", 404, "ResourceNotFoundException"),
        (f"/_longshore/v1/functions/{deployed.name}/logs?tail=x", 400, "InvalidParameterValueException"),
        ("/_longshore/v1/functions/none/none", 404, "NoSuchResource"),
    ]:
        status, headers, body = harness.send(server, "GET", path, harness.signed(server, "GET", "s3", path))
        assert (status, json.loads(body)["code"], headers["Content-Type"]) == (wanted, code, "application/json"), path


def test_completions_know_the_commands(server):
    script = server_less("completions", "bash")
    for word in ("deploy", "invoke", "--request-id", "--env-file"):
        assert word in script, word
    for command in ("deploy", "invoke", "logs", "stats", "delete", "list", "describe", "versions", "aliases"):
        assert "Usage: longshore function " + command in server_less("function", command, "--help"), command


def server_less(*arguments):
    return harness.run([LONGSHORE, *arguments], harness.plain_environment("/")).stdout
