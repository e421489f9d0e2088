"""`longshore run` and `longshore demo`: a job without a server, and the first command of the README."""

import csv
import hashlib
import json
import os
import pathlib
import re
import signal
import subprocess
import textwrap
import time
import urllib.parse

import pytest

import harness
from harness import ROOT

CHECKSUM = ROOT / "examples/functions/checksum/handler.py"
ESCAPE = "\x1b"

ANSWER = """
    import json, os, urllib.parse
    def handler(event, context):
        task = event["tasks"][0]
        key = urllib.parse.unquote_plus(task["s3Key"])
        code = "PermanentFailure" if "fail" in key else "Succeeded"
        said = json.dumps(event["job"].get("userArguments", {}), sort_keys=True)
        return {"invocationSchemaVersion": event["invocationSchemaVersion"], "invocationId": event["invocationId"],
                "results": [{"taskId": task["taskId"], "resultCode": code, "resultString": said}]}
"""


class Shell:
    """A folder to work in, with a data directory of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.environment = harness.plain_environment(folder) | {"LONGSHORE_DATA_DIR": str(folder / "data")}
        self.source = folder / "source"
        self.source.mkdir()

    def write(self, name, text, mode=0o644):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        path.chmod(mode)
        return path

    def objects(self, *names):
        for name in names:
            path = self.source / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"content of {name}\n")
        return self.source

    def run(self, *arguments, status=0, **options):
        done = harness.run([harness.LONGSHORE, "run", *arguments], self.environment, cwd=self.folder, check=False, **options)
        assert done.returncode == status, f"status {done.returncode}, not {status}\n{done.stdout}\n{done.stderr}"
        assert ESCAPE not in done.stdout + done.stderr, "no terminal, no escape codes"
        return done


@pytest.fixture
def shell(tmp_path):
    return Shell(tmp_path)


def report_rows(folder):
    """The rows of the report below a folder, after a look at its MD5s."""
    manifests = list(pathlib.Path(folder).rglob("manifest.json"))
    assert len(manifests) == 1, manifests
    manifest = json.loads(manifests[0].read_text())
    rows = []
    for result in manifest["Results"]:
        path = manifests[0].parent / "results" / result["Key"].rsplit("/", 1)[-1]
        assert hashlib.md5(path.read_bytes()).hexdigest() == result["MD5Checksum"]
        with open(path, newline="", encoding="utf-8") as file:
            rows += [harness.Row(*columns) for columns in csv.reader(file, strict=True)]
    return rows


def test_a_folder_is_worked_through_and_reported(shell):
    names = ["a.txt", "dir/b c.txt", "dir/ü+%.txt"]
    shell.objects(*names)
    done = shell.run(CHECKSUM, "--source", "source", "--report", "report")
    rows = report_rows(shell.folder / "report")
    assert sorted(urllib.parse.unquote(row.key) for row in rows) == sorted(names)
    for row in rows:
        content = (shell.source / urllib.parse.unquote(row.key)).read_bytes()
        assert json.loads(row.message)["sha256"] == hashlib.sha256(content).hexdigest()
    assert "3" in done.stdout + done.stderr


def test_some_failed_objects_give_status_1_and_are_named_by_their_reason(shell):
    shell.objects("ok", "fail-1", "fail-2")
    done = shell.run(shell.write("handler.py", ANSWER), "--source", "source", "--report", "report", status=1)
    assert "PermanentFailure" in done.stdout + done.stderr
    assert sorted(row.status for row in report_rows(shell.folder / "report")) == ["failed", "failed", "succeeded"]


def test_a_job_that_fails_gives_status_2_and_says_why(shell):
    shell.objects("ok")
    shell.write("manifest.csv", "b,k,too,many\nb,k\n")
    done = shell.run(shell.write("handler.py", ANSWER), "--manifest", "manifest.csv", status=2)
    assert "Unexpected number of task fields" in done.stderr


@pytest.mark.parametrize("arguments, words", [
    (["nowhere.py", "--source", "source"], "nowhere.py"),
    (["handler.py", "--source", "nowhere"], "nowhere"),
    (["handler.py", "--source", "source", "--manifest", "m.csv"], "--"),
    (["handler.py", "--source", "source", "--arg", "novalue"], "novalue"),
    (["handler.py", "--source", "source", "--concurrency", "0"], "concurrency"),
    (["handler.py", "--source", "source", "--sample", "x"], "sample"),
    (["handler.txt", "--source", "source"], "handler.txt"),
], ids=["no-function", "no-source", "two-sources", "no-value", "zero", "not-a-number", "not-a-function"])
def test_what_is_not_understood_gives_status_64(shell, arguments, words):
    shell.objects("ok")
    shell.write("handler.py", ANSWER)
    shell.write("handler.txt", "text")
    done = shell.run(*arguments, status=64)
    assert words in done.stderr


def test_a_function_may_be_a_named_one_a_folder_a_zip_or_a_program(shell):
    shell.environment |= harness.UNCONFINED
    shell.objects("ok")
    renamed = textwrap.dedent(ANSWER).replace("def handler", "def my_function")
    shell.write("named.py", renamed)
    shell.write("folder/handler.py", ANSWER)
    (shell.folder / "packed.zip").write_bytes(harness.zip_of({"handler.py": textwrap.dedent(ANSWER)}))
    shell.write("ric/handler.py", ANSWER)
    shell.write("bootstrap", f"#!/bin/sh\ncd {shell.folder}/ric && exec {harness.sys.executable} -m awslambdaric handler.handler\n", 0o755)
    for number, function in enumerate(["named.py:my_function", "folder", "packed.zip", "./bootstrap"]):
        shell.run(function, "--source", "source", "--report", f"report-{number}")
        assert [row.status for row in report_rows(shell.folder / f"report-{number}")] == ["succeeded"], function


def test_a_node_function_runs_as_well(shell):
    harness.need("node")
    shell.objects("page.html")
    (shell.source / "page.html").write_text("<!DOCTYPE html>")
    shell.run(ROOT / "examples/functions/media-type/index.mjs", "--source", "source", "--report", "report")
    assert json.loads(report_rows(shell.folder / "report")[0].message)["type"] == "text/html"


def test_arguments_reach_the_function(shell):
    shell.objects("ok")
    shell.run(shell.write("handler.py", ANSWER), "--source", "source", "--report", "report",
              "--arg", "a=1", "--arg", "b=x=y")
    assert json.loads(report_rows(shell.folder / "report")[0].message) == {"a": "1", "b": "x=y"}


def test_a_sample_takes_so_many_objects_and_no_more(shell):
    shell.objects(*[f"k{number}" for number in range(20)])
    shell.run(shell.write("handler.py", ANSWER), "--source", "source", "--report", "report", "--sample", "5")
    assert len({row.key for row in report_rows(shell.folder / "report")}) == 5


def test_keys_come_on_standard_input(shell):
    shell.objects("a b", "c", "not asked for")
    shell.run(shell.write("handler.py", ANSWER), "--source", "source", "--report", "report", "--keys", "-", stdin="a b\nc\n")
    assert sorted(urllib.parse.unquote(row.key) for row in report_rows(shell.folder / "report")) == ["a b", "c"]


def test_paths_of_files_come_on_standard_input(shell):
    shell.objects("a b", "dir/c", "not asked for")
    shell.run(shell.write("handler.py", ANSWER), "--report", "report", stdin="source/a b\nsource/dir/c\n")
    assert sorted(urllib.parse.unquote(row.key) for row in report_rows(shell.folder / "report")) == \
        ["source/a b", "source/dir/c"]


def test_a_manifest_names_objects_of_the_servers_storage(tmp_path):
    server = harness.Server(tmp_path / "server").start()
    try:
        server.s3.put_object(Bucket=server.bucket("stored"), Key="a b.txt", Body=b"one\ntwo\n")
    finally:
        server.stop()
    (tmp_path / "work").mkdir()
    shell = Shell(tmp_path / "work")
    shell.write("manifest.csv", "stored,a+b.txt\nstored,nowhere\n")
    shell.run(CHECKSUM, "--manifest", "manifest.csv", "--data-dir", server.data_dir, "--report", "report", status=1)
    rows = harness.by_key(report_rows(shell.folder / "report"))
    assert json.loads(rows["a+b.txt"].message)["lines"] == 2
    assert rows["nowhere"].error_code == "PermanentFailure"
    shell.run(CHECKSUM, "--source", "s3://stored/a", "--data-dir", server.data_dir, "--report", "report-2")
    assert [row.status for row in report_rows(shell.folder / "report-2")] == ["succeeded"]


def test_json_is_the_apis_own_shape_on_standard_output_alone(shell):
    shell.objects("ok", "fail")
    done = shell.run(shell.write("handler.py", ANSWER), "--source", "source", "--json", status=1)
    described = json.loads(done.stdout)
    described = described.get("Job", described)
    assert described["Status"] == "Complete"
    assert described["ProgressSummary"] | {"TotalNumberOfTasks": 2, "NumberOfTasksSucceeded": 1, "NumberOfTasksFailed": 1} == \
        described["ProgressSummary"]


def test_an_interrupt_finishes_what_is_in_flight_and_resume_does_the_rest(shell):
    shell.environment |= harness.UNCONFINED
    shell.objects(*[f"k{number:03}" for number in range(200)])
    log = shell.folder / "invocations"
    function = shell.write("handler.py", f"""
        import time
        def handler(event, context):
            task = event["tasks"][0]
            with open({str(log)!r}, "a") as file:
                file.write("start " + task["s3Key"] + "\\n")
            time.sleep(0.05)
            with open({str(log)!r}, "a") as file:
                file.write("end " + task["s3Key"] + "\\n")
            return {{"invocationSchemaVersion": "1.0", "invocationId": "i", "results": [
                {{"taskId": task["taskId"], "resultCode": "PermanentFailure" if task["s3Key"][-1] == "5" else "Succeeded",
                  "resultString": "broken"}}]}}
        print("Hello from the function")
    """)
    arguments = [function, "--source", "source", "--concurrency", "2", "--report", "report"]
    running = subprocess.Popen(
        [str(harness.LONGSHORE), "run", *map(str, arguments)], env=shell.environment, cwd=shell.folder,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    harness.wait_for("the twentieth task", lambda: log.exists() and log.read_text().count("end") >= 20)
    early = shell.run("--resume", status=64)
    assert re.search(rf"run \S+ is still running \(process {running.pid}\)", early.stderr), early.stderr
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=30)
    assert running.returncode == 130, f"{running.returncode}\n{out}\n{err}"
    first = log.read_text().split("\n")
    started = {line.split()[1] for line in first if line.startswith("start")}
    ended = {line.split()[1] for line in first if line.startswith("end")}
    assert started == ended, "what was in flight was finished"
    assert re.search(r"\d+ × PermanentFailure: broken  \(for example k0..\)", err), err
    assert "Hello from the function" in pathlib.Path(re.search(r"function's log so far: (.*)", err)[1]).read_text()
    assert len(ended) < 200
    printed = [line.strip() for line in (out + err).splitlines() if "--resume" in line]
    assert printed, f"the command that resumes is printed\n{out}\n{err}"
    command = re.search(r"longshore run .*--resume.*", printed[-1])[0].strip("`")
    resumed = harness.run(
        ["sh", "-c", command], shell.environment | {"PATH": f"{harness.LONGSHORE.parent}:{os.environ['PATH']}"},
        cwd=shell.folder, check=False)
    assert resumed.returncode == 1, resumed.stdout + resumed.stderr
    again = [line.split()[1] for line in log.read_text().split("\n") if line.startswith("start")]
    assert len(again) == 200 and len(set(again)) == 200, "only what had no recorded result was invoked"
    assert len({row.key for row in report_rows(shell.folder / "report")}) == 200


def test_a_killed_run_resumes_too(shell):
    shell.environment |= harness.UNCONFINED
    shell.objects(*[f"k{number:03}" for number in range(100)])
    log = shell.folder / "invocations"
    function = shell.write("handler.py", f"""
        import time
        def handler(event, context):
            task = event["tasks"][0]
            with open({str(log)!r}, "a") as file:
                file.write(task["s3Key"] + "\\n")
            time.sleep(0.05)
            return {{"invocationSchemaVersion": "1.0", "invocationId": "i", "results": [
                {{"taskId": task["taskId"], "resultCode": "Succeeded", "resultString": ""}}]}}
    """)
    arguments = [function, "--source", "source", "--concurrency", "2", "--report", "report"]
    running = subprocess.Popen([str(harness.LONGSHORE), "run", *map(str, arguments)], env=shell.environment,
                               cwd=shell.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    harness.wait_for("the thirtieth task", lambda: log.exists() and log.read_text().count("\n") >= 30)
    running.kill()
    running.wait()
    shell.run("--resume")
    assert len({row.key for row in report_rows(shell.folder / "report")}) == 100
    assert 100 <= log.read_text().count("\n") < 130, "what had a recorded result was not invoked again"


NOISY = """
    def handler(event, context):
        print("worked on " + event["tasks"][0]["s3Key"])
        raise KeyError("no such column in request " + context.aws_request_id)
"""


def test_the_functions_log_stays_when_the_run_is_over(shell):
    shell.objects("a", "b")
    done = shell.run(shell.write("handler.py", NOISY), "--source", "source", "--json", status=1)
    said = json.loads(done.stdout)
    log = pathlib.Path(said["FunctionLog"]).read_text()
    assert "worked on a" in log and "worked on b" in log and "Traceback" in log
    assert said["FunctionLog"] in done.stderr
    assert pathlib.Path(said["Report"], "manifest.json").is_file()
    name = "run-" + pathlib.Path(said["FunctionLog"]).parent.name
    state = pathlib.Path(said["FunctionLog"]).parents[2]
    printed = harness.run([harness.LONGSHORE, "logs", name], shell.environment | {"XDG_STATE_HOME": str(state.parent)})
    assert printed.stdout.count("worked on") == 2


def test_failures_that_differ_in_their_request_alone_are_one_group(shell):
    shell.objects("a", "b", "c")
    done = shell.run(shell.write("handler.py", NOISY), "--source", "source", status=1)
    assert re.search(r"3 × PermanentFailure: KeyError: 'no such column in request <id>'", done.stderr), done.stderr
    assert "stackTrace" not in done.stderr


def test_a_report_that_cannot_be_written_is_refused_before_the_first_invocation(shell):
    shell.objects("a")
    touched = shell.folder / "touched"
    function = shell.write("handler.py", f"""
        def handler(event, context):
            open({str(touched)!r}, "w").close()
    """)
    shell.write("file", "no folder")
    done = shell.run(function, "--source", "source", "--report", "file/report", status=64)
    assert "file/report" in done.stderr and "hint: " in done.stderr
    assert not touched.exists()


def test_a_report_that_could_not_be_written_is_written_elsewhere_by_resume(shell):
    shell.environment |= harness.UNCONFINED
    shell.objects("a", "b")
    calls = shell.folder / "calls"
    # The function takes the report's folder away, and puts a file in its place.
    function = shell.write("handler.py", f"""
        import os, shutil
        def handler(event, context):
            with open({str(calls)!r}, "a") as file:
                file.write("x")
            if os.path.isdir({str(shell.folder / "report")!r}):
                shutil.rmtree({str(shell.folder / "report")!r})
                open({str(shell.folder / "report")!r}, "w").close()
            task = event["tasks"][0]
            return {{"invocationSchemaVersion": "1.0", "invocationId": "i", "results": [
                {{"taskId": task["taskId"], "resultCode": "Succeeded", "resultString": ""}}]}}
    """)
    done = shell.run(function, "--source", "source", "--report", "report", "--concurrency", "1", status=2)
    run = re.search(r"--resume (\S+)", done.stderr)[1]
    shell.run("--resume", run, "--report", "other")
    assert len(report_rows(shell.folder / "other")) == 2
    assert calls.read_text() == "xx", "nothing was invoked again"


def test_a_path_without_a_file_is_told_with_its_line(shell):
    shell.objects("a")
    # What the caller gave wrongly, before anything ran.
    done = shell.run(shell.write("handler.py", ANSWER), stdin="./source/a\nsource/missing\n", status=64)
    assert "line 2 of standard input" in done.stderr and "source/missing" in done.stderr


def test_what_is_left_out_of_a_folder_is_counted(shell):
    shell.objects("a", ".hidden")
    (shell.source / "link").symlink_to("a")
    with open(os.fsencode(shell.source) + b"/caf\xe9", "w"):
        pass
    done = shell.run(shell.write("handler.py", ANSWER), "--source", "source", "--report", "report")
    assert "1 symbolic link" in done.stderr and "1 file whose name is not UTF-8" in done.stderr
    assert sorted(row.key for row in report_rows(shell.folder / "report")) == [".hidden", "a"]


def test_a_function_that_is_not_in_its_file_is_refused_before_the_start(shell):
    shell.objects("a")
    shell.write("handler.py", ANSWER)
    done = shell.run("handler.py:nofn", "--source", "source", status=64)
    assert "nofn" in done.stderr


def works(program):
    try:
        return subprocess.run([program, "--version"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def test_another_version_of_the_interpreter_than_the_one_asked_for_is_told(shell):
    missing = [minor for minor in (14, 8, 9, 10, 13) if not works(f"python3.{minor}")]
    if not missing:
        pytest.skip("every Python that Lambda has is installed")
    shell.objects("a")
    runtime = f"python3.{missing[0]}"
    done = shell.run(shell.write("handler.py", ANSWER), "--source", "source", "--runtime", runtime)
    assert re.search(rf"The runtime {runtime} asks for .* which is not installed: .* is used instead", done.stderr), done.stderr


@pytest.mark.parametrize("name, text, arguments, words", [
    ("handler.py", "def handler(event, context):\n  return {\n", [], "handler.py, line 2: syntax error"),
    ("handler.mjs", "export const handler = async () => {\n", [], "handler.mjs, line "),
    ("handler.py", ANSWER, ["--runtime", "python"], "python3.12"),
    ("handler.py", ANSWER, ["--runtime", "nodejs20.x"], "handler.py is Python"),
    ("handler.py", ANSWER, ["--env", "X=1"], "a letter, and then one letter"),
    ("handler.py", ANSWER, ["--env", "AWS_REGION=x"], "Lambda sets AWS_REGION itself"),
    ("handler.zip", "no zip", [], "handler.zip is not a readable zip"),
    ("handler.py", ANSWER, ["--report", "s3://nowhere-at-all/x"], "there is no bucket nowhere-at-all for the report"),
], ids=["python-syntax", "node-syntax", "no-runtime", "other-language", "short-name", "reserved", "no-zip", "no-bucket"])
def test_what_would_fail_for_every_object_is_told_before_the_first(shell, name, text, arguments, words):
    if name.endswith(".mjs"):
        harness.need("node")
    shell.objects("a", "b")
    done = shell.run(shell.write(name, text), "--source", "source", *arguments, status=64)
    assert words in done.stderr, done.stderr
    assert " of 2: " not in done.stderr and "regular expression" not in done.stderr
    assert not list(shell.folder.glob(".local/state/longshore/runs/*")), "nothing is left of it"


@pytest.mark.parametrize("stdin, words", [
    ("", ["no objects to work on", "hint: name them: --source DIR"]),
    ("source/a\0source/b\0", ["line 1 of standard input has NUL characters", "find -print instead of find -print0"]),
], ids=["nothing", "print0"])
def test_a_list_that_cannot_be_meant_is_refused_with_a_hint(shell, stdin, words):
    shell.objects("a", "b")
    done = shell.run(shell.write("handler.py", ANSWER), stdin=stdin, status=64)
    assert all(word in done.stderr for word in words), done.stderr
    assert "\ufffd" not in done.stderr, "the list is not repeated"


def test_a_manifest_that_begins_with_a_header_is_worked_on_with_a_warning(shell):
    shell.write("manifest.csv", "Bucket,Key\nb,k\n")
    done = shell.run(shell.write("handler.py", ANSWER), "--manifest", "manifest.csv", "--report", "report")
    assert "warning: the first line of manifest.csv looks like a header" in done.stderr
    assert sorted((row.bucket, row.key) for row in report_rows(shell.folder / "report")) == [("Bucket", "Key"), ("b", "k")]
    shell.write("manifest.csv", "b,k\n")
    assert "header" not in shell.run("handler.py", "--manifest", "manifest.csv").stderr


def test_a_folder_with_another_report_is_refused_and_stays_as_it_is(shell):
    shell.objects("a")
    shell.run(shell.write("handler.py", ANSWER), "--source", "source", "--report", "report")
    before = {path: path.read_bytes() for path in (shell.folder / "report").rglob("*") if path.is_file()}
    done = shell.run("handler.py", "--source", "source", "--report", "report", status=64)
    assert "there is another report in" in done.stderr and "hint: nothing was invoked; name another folder" in done.stderr
    assert {path: path.read_bytes() for path in (shell.folder / "report").rglob("*") if path.is_file()} == before


def test_a_function_that_returns_nothing_is_told_what_it_should_return(shell):
    shell.objects("a b+c.txt")
    silent = shell.write("silent.py", """
        def handler(event, context):
            print("but works")
    """)
    done = shell.run(silent, "--source", "source", status=1)
    assert "Invalid JSON returned in Lambda payload  (for example a b+c.txt)" in done.stderr
    assert 'hint: the function must return an object with "results"' in done.stderr
    assert "function's log: " in done.stderr and "each error" not in done.stderr, "the log has nothing of it"
    done = shell.run(shell.write("handler.py", NOISY), "--source", "source", status=1)
    assert "(with the whole of each error that it raised)" in done.stderr and "hint: the function" not in done.stderr


def test_what_failed_in_a_run_is_tried_again_by_a_run_of_its_own(shell):
    failing = ["fail-1", "dir/fail, 2+ü.txt"]
    shell.objects("ok", *failing)
    first = shell.run(shell.write("handler.py", ANSWER), "--source", "source", "--arg", "a=1", "--report", "report", status=1)
    run = re.search(r"to try again what failed: longshore run --retry (\S+)$", first.stderr, re.M)[1]
    # The function as it was, with its arguments, whatever became of the file.
    shell.write("handler.py", "no longer a function")
    shell.run("--retry", "--report", "second", status=1)
    rows = report_rows(shell.folder / "second")
    assert sorted(urllib.parse.unquote(row.key) for row in rows) == sorted(failing)
    assert {row.message for row in rows} == {'{"a": "1"}'}
    # Another function, and other arguments.
    mended = shell.write("mended.py", ANSWER.replace('"PermanentFailure" if "fail" in key else "Succeeded"', '"Succeeded"'))
    done = shell.run(mended, "--retry", run, "--arg", "b=2", "--report", "third")
    assert "--retry" not in done.stderr
    rows = report_rows(shell.folder / "third")
    assert sorted((urllib.parse.unquote(row.key), row.message) for row in rows) == sorted((key, '{"b": "2"}') for key in failing)
    done = shell.run("--retry", status=64)
    assert "nothing failed in run" in done.stderr
    (shell.folder / "report/manifest.json").unlink()
    assert "cannot read the report" in shell.run("--retry", run, status=64).stderr


def test_a_run_on_the_servers_storage_is_tried_again_from_its_report_there(tmp_path):
    server = harness.Server(tmp_path / "server").start()
    try:
        server.s3.put_object(Bucket=server.bucket("stored"), Key="a b.txt", Body=b"one\n")
    finally:
        server.stop()
    (tmp_path / "work").mkdir()
    shell = Shell(tmp_path / "work")
    shell.write("manifest.csv", "stored,a+b.txt\nstored,no+where.txt\n")
    at = ["--data-dir", server.data_dir]
    done = shell.run(CHECKSUM, "--manifest", "manifest.csv", "--report", "s3://stored/reports", *at, status=1)
    printed = re.search(r"longshore run (--retry \S+ --data-dir \S+)$", done.stderr, re.M)[1].split()
    shell.run(*printed, "--report", "report", status=1)
    assert [(row.bucket, row.key, row.status) for row in report_rows(shell.folder / "report")] == \
        [("stored", "no+where.txt", "failed")]


# --- the first command of the README ---


@pytest.mark.parametrize("source", [None, "files"])
def test_the_demo_shows_a_whole_job_and_teaches_its_commands(tmp_path, source):
    environment = harness.plain_environment(tmp_path)
    arguments = []
    if source:
        for number in range(12):
            path = tmp_path / source / f"dir {number % 3}" / f"file-{number}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("line\n" * number)
        arguments = ["--source", str(tmp_path / source)]
    began = time.monotonic()
    done = harness.run([harness.LONGSHORE, "demo", *arguments], environment, cwd=ROOT, timeout=180)
    said = done.stdout + done.stderr
    for command in ("aws s3 mb", "aws s3", "aws lambda create-function", "aws s3control create-job", "aws s3control describe-job"):
        assert command in said, f"the demo shows {command!r}\n{said}"
    assert ESCAPE not in said, "no terminal, no escape codes"
    assert re.search(r"succeeded", said)
    report = [pathlib.Path(found) for found in re.findall(r"/\S*", said) if "report" in found]
    assert report or "manifest.json" in said, "it says where the report lies"
    if source:
        assert re.search(r"\b12\b", said)
    print(f"demo: {time.monotonic() - began:.1f} s")
