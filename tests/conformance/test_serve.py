"""`longshore serve`, `env` and `logs` as commands: how they start, stop, and refuse."""

import json
import os
import re
import signal
import socket
import subprocess

import pytest

import harness


@pytest.fixture
def spare(tmp_path):
    """A server of its own, for tests that stop it or look at how it starts."""
    server = harness.Server(tmp_path).start()
    yield server
    server.stop()


def start(tmp_path, *arguments, **environment):
    """Runs `longshore serve` where it should refuse to start."""
    return harness.run([harness.LONGSHORE, "serve", *arguments], harness.plain_environment(tmp_path) | environment,
                       check=False, timeout=20)


def refused(done):
    """One clear line, a hint at most, and a status that is not zero."""
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert lines and lines[-1 if len(lines) == 1 else 0].startswith("error: "), done.stderr
    assert len(lines) <= 2 and all(line.startswith(("error: ", "hint: ")) for line in lines), done.stderr
    assert "panicked" not in done.stderr
    return lines[0]


def test_a_port_in_use_is_told_in_one_line(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = refused(start(tmp_path, "--data-dir", tmp_path / "data", "--listen", f"127.0.0.1:{port}"))
    assert str(port) in line and "in use" in line


def test_an_address_that_is_none_is_told_with_an_example(tmp_path):
    for address in ("foo", "127.0.0.1:80000", "7300"):
        done = start(tmp_path, "--data-dir", tmp_path / "data", "--listen", address)
        assert done.returncode == 64 and "127.0.0.1:7300" in done.stderr, done.stderr


def test_plain_http_for_other_machines_is_refused_unless_it_is_asked_for(tmp_path):
    done = start(tmp_path, "--data-dir", tmp_path / "data", "--listen", "0.0.0.0:0")
    assert "TLS" in refused(done) and "--allow-plain-http" in done.stderr
    arguments = [harness.LONGSHORE, "serve", "--data-dir", tmp_path / "data", "--listen", "0.0.0.0:0", "--allow-plain-http"]
    with open(tmp_path / "log", "w") as log:
        server = subprocess.Popen(list(map(str, arguments)), env=harness.plain_environment(tmp_path),
                                  stdout=subprocess.PIPE, stderr=log, text=True)
    assert server.stdout.readline().startswith("listening on http://0.0.0.0:")
    server.send_signal(signal.SIGTERM)
    assert server.wait(20) == 0
    server.stdout.close()
    assert (tmp_path / "log").read_text().count("WARN plain HTTP is served to other machines") == 1


def test_localhost_is_an_address_to_listen_on(tmp_path):
    arguments = [harness.LONGSHORE, "serve", "--data-dir", tmp_path / "data", "--listen", "localhost:0"]
    server = subprocess.Popen(list(map(str, arguments)), env=harness.plain_environment(tmp_path),
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert server.stdout.readline().startswith("listening on http://127.0.0.1:")
    server.send_signal(signal.SIGTERM)
    assert server.wait(20) == 0
    server.stdout.close()


def test_a_data_directory_that_cannot_be_one_is_told_in_one_line(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    line = refused(start(tmp_path, "--data-dir", tmp_path / "file" / "data", "--listen", "127.0.0.1:0"))
    assert str(tmp_path / "file") in line


def test_an_unwritable_data_directory_is_told_in_one_line(tmp_path):
    line = refused(start(tmp_path, "--data-dir", "/proc/longshore", "--listen", "127.0.0.1:0"))
    assert "/proc/longshore" in line


def test_a_data_directory_in_use_is_told_in_one_line(spare, tmp_path):
    line = refused(start(tmp_path, "--data-dir", spare.data_dir, "--listen", "127.0.0.1:0"))
    assert "in use" in line or "another server" in line
    assert spare.s3.list_buckets()["Buckets"] == [], "the first server goes on"


def test_a_data_directory_that_others_may_write_is_refused(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o777)
    line = refused(start(tmp_path, "--data-dir", tmp_path / "data", "--listen", "127.0.0.1:0"))
    assert str(tmp_path / "data") in line


def test_an_unknown_setting_is_an_error_wherever_it_comes_from(tmp_path):
    line = refused(start(tmp_path, "--data-dir", tmp_path / "data", LONGSHORE_NO_SUCH_THING="1"))
    assert "LONGSHORE_NO_SUCH_THING" in line
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data" / "longshore.toml").write_text("no_such_thing = 1\n")
    line = refused(start(tmp_path, "--data-dir", tmp_path / "data"))
    assert "no_such_thing" in line


def test_a_stop_is_clean_and_the_next_start_goes_on(spare):
    spare.s3.put_object(Bucket=spare.bucket("kept"), Key="k", Body=b"v")
    key = spare.exports["AWS_ACCESS_KEY_ID"]
    spare.process.send_signal(signal.SIGTERM)
    assert spare.process.wait(20) == 0
    spare.start()
    assert spare.exports["AWS_ACCESS_KEY_ID"] == key, "credentials are made once"
    assert spare.s3.get_object(Bucket="kept", Key="k")["Body"].read() == b"v"


def test_an_interrupt_stops_it_as_well(spare):
    spare.process.send_signal(signal.SIGINT)
    assert spare.process.wait(20) == 0
    spare.start()


def test_the_server_says_where_it_listens_and_which_process_it_is(spare):
    said = json.loads((spare.data_dir / "server.json").read_text())
    assert (said["listen"], said["pid"]) == (spare.address, spare.process.pid)


def test_env_prints_what_a_shell_can_evaluate_and_the_aws_cli_works_in_it(spare):
    listed = spare.shell("aws s3control list-jobs --account-id 000000000000 --query 'length(Jobs)' --output text\n"
                         "aws s3 ls\naws lambda list-functions --query 'length(Functions)' --output text\n")
    assert listed.stdout.split() == ["0", "0"]


def test_env_overrides_what_a_shell_inherits_and_would_be_in_the_way(spare):
    environment = harness.plain_environment(spare.home) | {
        "PATH": f"{harness.AWS.parent}:{harness.LONGSHORE.parent}:{os.environ['PATH']}",
        "AWS_PROFILE": "nobody", "AWS_SESSION_TOKEN": "x", "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
        "NO_PROXY": "*", "no_proxy": "*",
    }
    # Twice, as a person does who is not sure.
    script = f'eval "$(longshore env --data-dir {spare.data_dir})" && ' * 2 + "aws s3 ls && "
    script += "aws s3control list-jobs --account-id 000000000000 --query 'length(Jobs)' --output text"
    assert harness.run(["sh", "-c", script], environment).stdout.strip() == "0"


@pytest.mark.parametrize("by", ["flag", "variable", "default"])
def test_the_printed_line_for_the_aws_cli_works_in_a_shell_of_its_own(tmp_path, by):
    folder = tmp_path / "a data"
    arguments = ["--data-dir", folder] if by == "flag" else []
    more = {"LONGSHORE_DATA_DIR": str(folder)} if by == "variable" else {}
    environment = harness.plain_environment(tmp_path) | {"PATH": f"{harness.LONGSHORE.parent}:{os.environ['PATH']}"}
    serving = subprocess.Popen([harness.LONGSHORE, "serve", "--listen", "127.0.0.1:0", *arguments], env=environment | more,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        address = serving.stdout.readline().strip().removeprefix("listening on ")
        hint = next(line for line in serving.stderr if line.startswith("hint: "))
        line = re.search(r"hint: (eval .*\)\") points", hint)[1]
        done = harness.run(["sh", "-c", f'{line} && echo "$AWS_ENDPOINT_URL_S3$AWS_ENDPOINT_URL"'], environment)
        assert address in done.stdout and done.stderr == "", f"{line}\n{done.stdout}\n{done.stderr}"
    finally:
        serving.terminate()
        serving.communicate(timeout=30)


def test_env_warns_where_no_server_is_running(tmp_path):
    server = harness.Server(tmp_path).start()
    assert server.longshore("env").stderr == ""
    server.stop()
    said = server.longshore("env")
    assert "no server is running with the data directory" in said.stderr
    assert "export AWS_ACCESS_KEY_ID=" in said.stdout


def test_env_without_a_server_ever_started_says_so(tmp_path):
    done = harness.run([harness.LONGSHORE, "env", "--data-dir", tmp_path / "nothing"],
                       harness.plain_environment(tmp_path), check=False)
    refused(done)
    assert done.stdout == "", "nothing that a shell would evaluate"
    assert not (tmp_path / "nothing").exists()


def test_logs_of_an_unknown_function_is_an_error(spare):
    done = spare.longshore("logs", "nobody", check=False)
    assert "nobody" in refused(done)


def test_an_unknown_command_is_a_usage_error(tmp_path):
    for arguments in (["frobnicate"], ["serve", "--frobnicate"], ["run"]):
        done = harness.run([harness.LONGSHORE, *arguments], harness.plain_environment(tmp_path), check=False)
        assert done.returncode == 64, arguments
