"""What somebody meets who knows the README alone: the command line without credentials, with a wrong port, with a header."""

import re
import sys
import urllib.error
import urllib.request

import pytest

import harness
from harness import ACCOUNT, LONGSHORE, REGION, run


@pytest.fixture(scope="module")
def port(server):
    return server.address.split(":")[1]


@pytest.fixture(scope="module")
def env_shell(server, port):
    """The shell of `eval "$(longshore env)"` on a machine where no name below localhost resolves."""
    keys = {name: server.exports[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    proxies = {name: f"http://127.0.0.1:{port}" for name in ("HTTP_PROXY", "http_proxy")}
    return harness.plain_environment(server.home) | keys | proxies | {
        "AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION, "AWS_ACCOUNT_ID": ACCOUNT, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ENDPOINT_URL_S3_CONTROL": f"http://longshore.internal:{port}",
    }


def test_the_command_line_follows_the_proxy_of_longshore_env_as_the_aws_cli_does(server, port, env_shell, name):
    job = server.create_job(server.bucket(name), "nothing", server.put_manifest(name, [(name, "a")]), confirmation=True)
    listed = run([LONGSHORE, "job", "list", "--region", REGION, "--json"], env_shell)
    assert job in listed.stdout
    assert job in run([harness.AWS, "s3control", "list-jobs", "--account-id", ACCOUNT], env_shell).stdout
    without = {key: value for key, value in env_shell.items() if key.lower() != "http_proxy"}
    lost = run([LONGSHORE, "job", "list", "--region", REGION], without, check=False)
    assert lost.returncode == 1 and 'the HTTP_PROXY that "longshore env" sets, and none is set' in lost.stderr, lost.stderr


def test_a_wrong_port_for_s3_control_is_told_by_the_aws_cli_in_words(port, env_shell):
    wrong = env_shell | {"AWS_ENDPOINT_URL_S3_CONTROL": f"http://longshore.internal:{harness.free_port()}"}
    refused = run([harness.AWS, "s3control", "list-jobs", "--account-id", ACCOUNT], wrong, check=False)
    assert refused.returncode != 0
    assert "(InvalidRequest)" in refused.stderr and "This is Longshore, not a proxy" in refused.stderr, refused.stderr
    assert f"It listens on port {port}." in refused.stderr


def test_the_server_of_this_machine_is_asked_with_its_own_credentials(server, tmp_path):
    there = ["--endpoint-url", f"http://{server.address}"]
    # Were a metadata service asked, this would be where.
    nobody = harness.plain_environment(tmp_path) | {"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:1"}
    del nobody["AWS_EC2_METADATA_DISABLED"]
    of_directory = nobody | {"LONGSHORE_DATA_DIR": str(server.data_dir)}
    for command in ("job", "function"):
        assert run([LONGSHORE, command, "list", *there, "--json"], of_directory).returncode == 0
        assert run([LONGSHORE, command, "list", *there, "--data-dir", server.data_dir], nobody).returncode == 0
        lost = run([LONGSHORE, command, "list", *there], nobody, check=False)
        assert lost.returncode == 64 and "there are no credentials for http://" in lost.stderr, lost.stderr
        assert "--data-dir" in lost.stderr and "AWS_ACCESS_KEY_ID" in lost.stderr and "metadata" not in lost.stderr.lower()
    nowhere = f"http://127.0.0.1:{harness.free_port()}"
    lost = run([LONGSHORE, "job", "list", "--endpoint-url", nowhere], nobody, check=False)
    assert lost.returncode == 1 and f"nobody listens at {nowhere}" in lost.stderr, lost.stderr


def test_what_a_job_will_stumble_over_is_a_warning(server, name):
    server.bucket(name)
    server.put_manifest(name, f"Bucket,Key\n{name},a\n", key="with.csv")
    server.put_manifest(name, [(name, "a")], key="without.csv")

    def create(manifest):
        there = ["--confirm", "--function", "nobody", "--manifest", f"s3://{name}/{manifest}"]
        return server.longshore("job", "create", *there).stderr.splitlines()

    warned = create("with.csv")
    assert all(line.startswith("warning: ") for line in warned), warned
    for words in ("there is no function ", f"the first line of s3://{name}/with.csv looks like a header", "writes no report"):
        assert sum(words in line for line in warned) == 1, warned
    assert not any("header" in line for line in create("without.csv"))


@pytest.mark.parametrize("path, hints", [("/metrics", True), ("/_longshore/v1/metrics", True), ("/metrics-of-mine", False)])
def test_metrics_without_a_signature_are_refused_with_the_way_to_them(server, path, hints):
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"http://{server.address}{path}")
    body = refused.value.read().decode()
    assert refused.value.code == 403 and "AccessDenied" in body
    assert ("--metrics-listen" in body) == hints, body


def test_what_was_installed_for_functions_is_chosen_and_another_version_is_told_once_and_by_the_server(server, name, tmp_path):
    # As `runtimes install` would make it where its version is missing: the folder of one, the interpreter of another.
    bin = server.data_dir / "runtimes/python3.14/bin"
    bin.mkdir(parents=True)
    (bin / "python3").symlink_to(getattr(sys, "_base_executable", sys.executable))
    try:
        (tmp_path / "handler.py").write_text("def handler(event, context):\n    print('worked')\n    return 1\n")
        done = server.longshore("function", "deploy", tmp_path / "handler.py", "--name", name)
        assert 'guessed: the runtime python3.14, which "longshore runtimes install" has made' in done.stderr
        told = re.search(r"^warning: The runtime python3.14 asks for Python 3.14, .* is used instead\. .*$", done.stderr, re.M)
        exact = sys.version_info[:2] == (3, 14)
        assert exact or "longshore runtimes install python3.14 --python FILE" in told[0], done.stderr
        assert server.longshore("function", "invoke", name).stdout.strip() == "1"
        logged = server.longshore("function", "logs", name).stdout
        assert "worked" in logged and "longshore: " not in logged, logged
        assert exact or server.said().count("a runtime was found that is not quite as asked for") >= 1
    finally:
        (bin / "python3").unlink()
        for folder in (bin, bin.parent):
            folder.rmdir()
