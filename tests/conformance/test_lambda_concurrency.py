"""Concurrency as clients of Lambda see it: limits, reasons, provisioned environments, and what frees a slot.

Lambda specification 1.9, 1.10, 2.4, 5.1 to 5.4, 13. Each call that the function runs counts how many run beside it, by files in a
folder that all its environments see: what is asserted of a limit is what was true inside the function.
"""

import base64
import collections
import concurrent.futures
import contextlib
import json
import os
import signal
import threading
import time

import boto3
import botocore.config
import botocore.exceptions
import pytest

import harness

RESERVED = "ReservedFunctionConcurrentInvocationLimitExceeded"
ACCOUNT = "ConcurrentInvocationLimitExceeded"

COUNTS = """
import json, os, time, uuid
def handler(event, context):
    began, folder = time.time(), os.environ["RUNNING"]
    own = os.path.join(folder, uuid.uuid4().hex)
    open(own, "x").close()
    together = len(os.listdir(folder))
    try:
        if "exit" in event: os._exit(event["exit"])
        time.sleep(event.get("seconds", 0.15))
    finally:
        os.unlink(own)
    answer = {
        "pid": os.getpid(), "together": together, "began": began, "version": context.function_version,
        "kind": os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"],
    }
    if "tasks" not in event: return answer
    with open(os.environ["TOGETHER"], "a") as seen:
        seen.write(json.dumps(answer) + "\\n")
    return {
        "invocationSchemaVersion": "1.0", "treatMissingKeysAs": "PermanentFailure", "invocationId": event["invocationId"],
        "results": [{"taskId": t["taskId"], "resultCode": "Succeeded", "resultString": ""} for t in event["tasks"]],
    }
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = harness.Server(tmp_path_factory.mktemp("concurrency"), harness.UNCONFINED | {
        "LONGSHORE_FUNCTIONS_ENVIRONMENTS_MAX": "8",
        "LONGSHORE_FUNCTIONS_ACCOUNT_CONCURRENCY": "110",
        "LONGSHORE_FUNCTIONS_QUEUE_WAIT_MS": "20000",
        "LONGSHORE_FUNCTIONS_FREEZE": "idle",
    }).start()
    yield server
    server.stop()
    assert "panicked at" not in server.said()


@pytest.fixture(autouse=True)
def gives_back(server, name):
    """What one test reserves is not missing in the next one."""
    yield
    try:
        server.functions.delete_function(FunctionName=name)
    except server.functions.exceptions.ResourceNotFoundException:
        pass


def deploy(server, name, tmp_path, source=COUNTS, **more):
    running = tmp_path / "running"
    running.mkdir()
    return server.deploy(name, source, environment={"RUNNING": str(running), "TOGETHER": str(tmp_path / "together")}, **more)


def invoke(server, name, event=None, **more):
    """The answer of a call, or the Reason why it was throttled."""
    try:
        answer = server.functions.invoke(FunctionName=name, Payload=json.dumps(event or {}), **more)
    except botocore.exceptions.ClientError as error:
        told = error.response
        assert told["ResponseMetadata"]["HTTPStatusCode"] == 429, told
        assert (told["Error"]["Code"], told["message"]) == ("TooManyRequestsException", "Rate Exceeded."), told
        return told["Reason"]
    answer["Payload"] = json.loads(answer["Payload"].read())
    return answer


def at_once(server, name, count, event=None):
    """Makes so many calls at the same time; returns what the answered ones said, and how many had which Reason."""
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        answers = list(pool.map(lambda _: invoke(server, name, event), range(count)))
    payloads = [answer["Payload"] for answer in answers if not isinstance(answer, str)]
    return payloads, collections.Counter(answer for answer in answers if isinstance(answer, str))


@contextlib.contextmanager
def holding(server, name, tmp_path, count, seconds=2):
    """Keeps so many calls of a function running, for as long as its body takes and `seconds` at most."""
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        held = [pool.submit(invoke, server, name, {"seconds": seconds}) for _ in range(count)]
        harness.wait_for("the calls", lambda: len(os.listdir(tmp_path / "running")) == count)
        yield
        assert all(not isinstance(call.result(), str) for call in held)


def refused(call, **arguments):
    with pytest.raises(botocore.exceptions.ClientError) as raised:
        call(**arguments)
    told = raised.value.response
    return told["ResponseMetadata"]["HTTPStatusCode"], told["Error"]["Code"], told["Error"]["Message"]


def provisioned(server, name, qualifier):
    return server.functions.get_provisioned_concurrency_config(FunctionName=name, Qualifier=qualifier)


def wait_ready(server, name, qualifier):
    harness.wait_for("the provisioned environments", lambda: provisioned(server, name, qualifier)["Status"] == "READY")


# --- reserved concurrency ---


def test_reserved_concurrency_is_a_ceiling_and_what_is_beyond_is_told_why(server, name, tmp_path):
    deploy(server, name, tmp_path)
    for limit in (1, 3):
        put = server.functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=limit)
        assert put["ReservedConcurrentExecutions"] == limit
        answers, reasons = at_once(server, name, 10)
        assert max(answer["together"] for answer in answers) <= limit
        assert set(reasons) <= {RESERVED} and len(answers) + reasons[RESERVED] == 10
        with holding(server, name, tmp_path, limit):
            assert invoke(server, name) == RESERVED, "Lambda queues no call for concurrency"
        # One after the other, each finds the slot free that the last one had.
        assert all(not isinstance(invoke(server, name, {"seconds": 0}), str) for _ in range(10))
    server.functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    assert invoke(server, name) == RESERVED
    server.functions.delete_function_concurrency(FunctionName=name)
    assert "ReservedConcurrentExecutions" not in server.functions.get_function_concurrency(FunctionName=name)
    assert invoke(server, name)["StatusCode"] == 200


def test_a_slot_is_held_until_the_function_is_done_and_free_after_whatever_ends_it(server, name, tmp_path):
    deploy(server, name, tmp_path, timeout=2)
    server.functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
    invoke(server, name, {"seconds": 0})
    # The client hangs up; the function goes on, as on AWS, and its slot is taken as long.
    once = botocore.config.Config(read_timeout=0.4, retries={"total_max_attempts": 1})
    with harness.environ(server.environment):
        hasty = boto3.session.Session().client("lambda", config=once)
    with pytest.raises(botocore.exceptions.ReadTimeoutError):
        hasty.invoke(FunctionName=name, Payload=json.dumps({"seconds": 1.5}))
    assert invoke(server, name) == RESERVED
    harness.wait_for("the slot", lambda: not isinstance(invoke(server, name, {"seconds": 0}), str))
    # It runs out of time, and it dies.
    for event, error in (({"seconds": 9}, "Sandbox.Timedout"), ({"exit": 3}, "Runtime.ExitError")):
        ended = invoke(server, name, event)
        assert (ended["FunctionError"], ended["Payload"]["errorType"]) == ("Unhandled", error)
        for left in os.listdir(tmp_path / "running"):
            os.unlink(tmp_path / "running" / left)
        harness.wait_for("the slot", lambda: not isinstance(invoke(server, name, {"seconds": 0}), str))


def test_the_texts_of_limits_are_awss(server, name, tmp_path):
    deploy(server, name, tmp_path)
    functions = server.functions
    put, parameter = functions.put_function_concurrency, "InvalidParameterValueException"
    floor = (
        "Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its "
        "minimum value of [100].")
    assert refused(put, FunctionName=name, ReservedConcurrentExecutions=11) == (400, parameter, floor)
    assert refused(put, FunctionName=name, ReservedConcurrentExecutions=111) == (400, parameter, floor)
    qualified = (
        "This operation is permitted on Lambda functions only. Aliases and versions do not support this operation. Please "
        "specify either a function name or an unqualified function ARN.")
    assert refused(put, FunctionName=f"{name}:1", ReservedConcurrentExecutions=1) == (400, parameter, qualified)
    arn = f"arn:aws:lambda:{harness.REGION}:{harness.ACCOUNT}:function:missing"
    missing = (404, "ResourceNotFoundException", f"Function not found: {arn}:$LATEST")
    assert refused(put, FunctionName="missing", ReservedConcurrentExecutions=1) == missing
    version = functions.publish_version(FunctionName=name)["Version"]
    provision = functions.put_provisioned_concurrency_config
    limits = functions.get_account_settings()["AccountLimit"]
    assert (limits["ConcurrentExecutions"], limits["UnreservedConcurrentExecutions"]) == (110, 110)
    told = refused(provision, FunctionName=name, Qualifier=version, ProvisionedConcurrentExecutions=111)
    assert told == (400, parameter, (
        "Specified ConcurrentExecutions for function is greater than account's unreserved concurrency [110]."))
    told = refused(provision, FunctionName=name, Qualifier=version, ProvisionedConcurrentExecutions=110)
    assert told == (400, parameter, (
        "Specified ConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its minimum "
        "value of [100]."))
    told = refused(provision, FunctionName=name, Qualifier="$LATEST", ProvisionedConcurrentExecutions=1)
    assert told == (400, parameter, (
        "Provisioned Concurrency Configs cannot be applied to unpublished function versions."))
    told = refused(functions.get_provisioned_concurrency_config, FunctionName=name, Qualifier=version)
    assert told == (404, "ProvisionedConcurrencyConfigNotFoundException", (
        "No Provisioned Concurrency Config found for this function"))
    functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=2)
    told = refused(provision, FunctionName=name, Qualifier=version, ProvisionedConcurrentExecutions=3)
    assert told == (400, parameter, (
        "Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for function"))
    provision(FunctionName=name, Qualifier=version, ProvisionedConcurrentExecutions=2)
    told = refused(put, FunctionName=name, ReservedConcurrentExecutions=1)
    assert told == (400, parameter, (
        " ReservedConcurrentExecutions  1 should not be lower than function's total provisioned concurrency [2]."))
    assert functions.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"] == 108
    functions.delete_function(FunctionName=name)
    assert functions.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"] == 110


# --- jobs ---


def run_job(server, name, tmp_path, rows):
    bucket = server.bucket(name)
    manifest = [(bucket, f"key-{n}") for n in range(rows)]
    arn = f"arn:aws:lambda:{harness.REGION}:{harness.ACCOUNT}:function:{name}"
    return manifest, server.create_job(bucket, arn, server.put_manifest(bucket, manifest))


def seen(tmp_path):
    return [json.loads(line) for line in (tmp_path / "together").read_text().splitlines()]


def test_a_job_uses_all_of_what_is_reserved_never_more_and_is_never_throttled(server, name, tmp_path):
    deploy(server, name, tmp_path)
    server.functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=2)
    manifest, job = run_job(server, name, tmp_path, 30)
    assert server.wait(job)["Status"] == "Complete"
    harness.audit(server, job, manifest)
    calls = seen(tmp_path)
    assert len(calls) == 30, "a task that was throttled would have been tried again"
    assert max(call["together"] for call in calls) == 2


def test_a_limit_lowered_under_a_running_job_holds_for_the_next_call(server, name, tmp_path):
    deploy(server, name, tmp_path)
    server.functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=4)
    manifest, job = run_job(server, name, tmp_path, 60)
    harness.wait_for("four at once", lambda: (tmp_path / "together").exists() and any(c["together"] == 4 for c in seen(tmp_path)))
    server.functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
    lowered = time.time()
    server.wait(job)
    # What was on its way into the function when the limit fell may still begin; nothing else beside another one.
    later = [call for call in seen(tmp_path) if call["began"] > lowered + 0.3]
    assert later and {call["together"] for call in later} == {1}
    assert len(seen(tmp_path)) == 60


# --- provisioned concurrency ---


def tail(answer):
    return base64.b64decode(answer["LogResult"]).decode()


def two_at_once(server, name, version, tmp_path, meanwhile=lambda: None):
    """What two calls say that run at the same time, whatever the machine is doing: in two environments."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        both = [pool.submit(invoke, server, name, {"seconds": 2}, Qualifier=version) for _ in range(2)]
        harness.wait_for("two calls", lambda: len(os.listdir(tmp_path / "running")) == 2)
        meanwhile()
    return [call.result()["Payload"] for call in both]


def test_provisioned_environments_are_warm_before_the_first_call_and_after_a_crash(server, name, tmp_path):
    deploy(server, name, tmp_path)
    version = server.functions.publish_version(FunctionName=name)["Version"]
    put = server.functions.put_provisioned_concurrency_config(
        FunctionName=name, Qualifier=version, ProvisionedConcurrentExecutions=2)
    counts = ("Requested", "Available", "Allocated")
    assert [put[f"{count}ProvisionedConcurrentExecutions"] for count in counts] == [2, 0, 0]
    assert (put["Status"], put["ResponseMetadata"]["HTTPStatusCode"]) == ("IN_PROGRESS", 202)
    wait_ready(server, name, version)
    answer = invoke(server, name, Qualifier=version, LogType="Tail")
    assert answer["Payload"]["kind"] == "provisioned-concurrency"
    assert "REPORT" in tail(answer) and "Init Duration" not in tail(answer)
    # Beyond them, on demand; and the unpublished version has none.
    kinds = []
    both = two_at_once(server, name, version, tmp_path, meanwhile=lambda: kinds.append(
        invoke(server, name, {"seconds": 0}, Qualifier=version)["Payload"]["kind"]))
    assert ({call["kind"] for call in both}, kinds) == ({"provisioned-concurrency"}, ["on-demand"])
    assert invoke(server, name)["Payload"]["kind"] == "on-demand"
    # One dies: another one takes its place.
    os.kill(answer["Payload"]["pid"], signal.SIGKILL)
    harness.wait_for("the replacement", lambda: (
        not harness.alive(answer["Payload"]["pid"])
        and provisioned(server, name, version)["AvailableProvisionedConcurrentExecutions"] == 2))
    # A new deployment of $LATEST is none of theirs.
    pids = {call["pid"] for call in two_at_once(server, name, version, tmp_path)}
    server.functions.update_function_configuration(FunctionName=name, Description="newer")
    assert invoke(server, name, {"seconds": 0}, Qualifier=version)["Payload"]["pid"] in pids
    # The server dies: they are there again before anybody asks.
    server.kill()
    server.start()
    wait_ready(server, name, version)
    answer = invoke(server, name, Qualifier=version, LogType="Tail")
    assert answer["Payload"]["kind"] == "provisioned-concurrency" and "Init Duration" not in tail(answer)
    listed = server.functions.list_provisioned_concurrency_configs(FunctionName=name)["ProvisionedConcurrencyConfigs"]
    assert [item["FunctionArn"].rsplit(":", 1)[1] for item in listed] == [version]
    server.functions.delete_provisioned_concurrency_config(FunctionName=name, Qualifier=version)
    harness.wait_for("their end", lambda: not harness.alive(answer["Payload"]["pid"]))
    assert invoke(server, name, Qualifier=version)["Payload"]["kind"] == "on-demand"


def test_provisioned_environments_that_cannot_start_are_failed_with_the_reason(server, name):
    server.deploy(name, "raise ValueError('not today')")
    version = server.functions.publish_version(FunctionName=name)["Version"]
    server.functions.put_provisioned_concurrency_config(
        FunctionName=name, Qualifier=version, ProvisionedConcurrentExecutions=1)
    harness.wait_for("the failure", lambda: provisioned(server, name, version)["Status"] == "FAILED")
    assert provisioned(server, name, version)["StatusReason"] == "FUNCTION_ERROR_INIT_FAILURE"


# --- environments ---


def test_an_idle_environment_that_is_killed_costs_a_cold_start_and_no_error(server, name, tmp_path):
    deploy(server, name, tmp_path)
    first = invoke(server, name)["Payload"]["pid"]
    os.kill(first, signal.SIGKILL)
    # One that is still dying when the call reaches it has seen the call.
    harness.wait_for("its end", lambda: not harness.alive(first))
    answer = invoke(server, name)
    assert "FunctionError" not in answer and answer["Payload"]["pid"] != first


def test_an_environment_that_was_busy_when_its_function_was_deployed_anew_is_not_used_again(server, name, tmp_path):
    deploy(server, name, tmp_path)
    old = {}
    busy = threading.Thread(target=lambda: old.update(invoke(server, name, {"seconds": 1})["Payload"]))
    busy.start()
    harness.wait_for("the call", lambda: os.listdir(tmp_path / "running"))
    newer = COUNTS.replace('"version": context.function_version', '"version": "newer"')
    server.functions.update_function_code(FunctionName=name, ZipFile=harness.zip_of({"handler.py": newer}))
    server.functions.get_waiter("function_updated_v2").wait(FunctionName=name)
    busy.join()
    assert old["version"] == "$LATEST", "what ran was finished"
    for _ in range(4):
        answer = invoke(server, name, {"seconds": 0})["Payload"]
        assert answer["version"] == "newer" and answer["pid"] != old["pid"]


def state(pid):
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0]


def test_a_function_does_nothing_between_its_calls(server, name):
    server.deploy(name, """
        import os, threading, time
        turns = 0
        def turn():
            global turns
            while True:
                turns += 1
                time.sleep(0.001)
        def handler(event, context):
            if threading.active_count() == 1:
                threading.Thread(target=turn, daemon=True).start()
            time.sleep(0.05)
            return [os.getpid(), turns]
    """)
    server.functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
    pid, before = invoke(server, name)["Payload"]
    harness.wait_for("the freeze", lambda: state(pid) == "T")
    time.sleep(1)
    again, after = invoke(server, name)["Payload"]
    assert again == pid
    # A second would have been hundreds of turns; the two calls themselves and what lies before the freeze are a few dozen.
    assert 0 < after - before < 500


# --- the account ---


def test_the_account_has_a_limit_over_all_functions(tmp_path):
    server = harness.Server(tmp_path, harness.UNCONFINED | {
        "LONGSHORE_FUNCTIONS_ENVIRONMENTS_MAX": "8", "LONGSHORE_FUNCTIONS_ACCOUNT_CONCURRENCY": "2",
    }).start()
    try:
        running = {"RUNNING": str(tmp_path / "running")}
        os.mkdir(running["RUNNING"])
        for name in ("f", "g"):
            server.deploy(name, COUNTS, environment=running)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda n: invoke(server, "fg"[n % 2], {"seconds": 0.5}), range(8)))
        reasons = collections.Counter(answer for answer in answers if isinstance(answer, str))
        together = [answer["Payload"]["together"] for answer in answers if not isinstance(answer, str)]
        assert max(together) <= 2 and set(reasons) <= {ACCOUNT}
        assert len(together) + reasons[ACCOUNT] == 8
        with holding(server, "f", tmp_path, 2):
            assert invoke(server, "g") == ACCOUNT
    finally:
        server.stop()
