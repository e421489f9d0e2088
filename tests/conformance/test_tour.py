"""What the README promises, typed as in the README."""

import json
import os
import re
import shutil

import pytest

import harness
from harness import ACCOUNT, ROLE, ROOT

README = (ROOT / "README.md").read_text()


def section(title):
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


@pytest.fixture
def checkout(tmp_path):
    """A folder that looks like a clone, in which the tour may write under target/."""
    folder = tmp_path / "longshore"
    (folder / "target").mkdir(parents=True)
    for name in ("docs", "examples"):
        shutil.copytree(ROOT / name, folder / name)
    (folder / "target/release").symlink_to(harness.LONGSHORE.parent)
    return folder


def test_the_tour_of_the_readme_works_word_for_word(tmp_path, checkout):
    harness.need("zip")
    server = harness.Server(tmp_path / "server").start()
    try:
        script = "set -eu\n" + "".join(blocks(section("Five minutes with the AWS CLI"), "sh"))
        environment = harness.plain_environment(server.home) | {
            "LONGSHORE_DATA_DIR": str(server.data_dir),
            "PATH": f"{harness.AWS.parent}:{os.environ['PATH']}",
        }
        done = harness.run(["sh", "-xc", script], environment, cwd=checkout, timeout=240)
    finally:
        server.stop()
    documents = sorted(path for path in (ROOT / "docs").rglob("*") if path.is_file())
    results = [line for path in (checkout / "target/tour/results").glob("*.csv")
               for line in path.read_text().splitlines()]
    assert len(results) == len(documents), "the report has a row for every file"
    assert all(",succeeded,200,," in line and "sha256" in line for line in results), results
    words = "".join(path.read_text() for path in (checkout / "target/tour/words").glob("*.csv"))
    assert words.count("most_common") == len(documents), words
    assert "Most common words" in done.stdout, "list-jobs shows the description"


def test_the_readme_has_the_two_commands():
    commands = blocks(README, "sh")[0].splitlines()
    assert [line.split("#")[0].strip() for line in commands] == ["cargo run --release -- demo", "./check"]
    assert os.access(ROOT / "check", os.X_OK)


def test_every_file_that_the_readme_links_to_is_there():
    for target in re.findall(r"\]\(([^)#]+)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), target


def test_a_file_of_100_mb_goes_up_and_comes_down_in_parts(server, name, tmp_path):
    big = tmp_path / "big.bin"
    pattern = bytes(range(251)) * 4096
    with open(big, "wb") as file:
        for _ in range(100_000_000 // len(pattern) + 1):
            file.write(pattern)
    big.open("r+b").truncate(100_000_000)
    server.aws("s3", "mb", f"s3://{name}")
    server.aws("s3", "cp", big, f"s3://{name}/a/big.bin", "--only-show-errors")
    head = server.aws_json("s3api", "head-object", "--bucket", name, "--key", "a/big.bin")
    assert head["ContentLength"] == 100_000_000
    assert re.fullmatch(r'"[0-9a-f]{32}-12"', head["ETag"]), "12 parts of 8 MiB"
    server.aws("s3", "cp", f"s3://{name}/a/big.bin", tmp_path / "back.bin", "--only-show-errors")
    assert harness.run(["cmp", big, tmp_path / "back.bin"], os.environ).returncode == 0
    server.aws("s3", "rb", f"s3://{name}", "--force")


def test_a_folder_is_synchronised_listed_and_removed(server, name, tmp_path):
    files = {"a.txt": "one", "dir/b c+d.txt": "two", "dir/é/日本.txt": "three", "empty": ""}
    source = tmp_path / "source"
    for path, text in files.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_text(text)
    server.aws("s3", "mb", f"s3://{name}")
    server.aws("s3", "sync", source, f"s3://{name}/copy")
    assert server.aws("s3", "sync", source, f"s3://{name}/copy").stdout == "", "a second sync finds nothing to do"
    listed = server.aws("s3", "ls", f"s3://{name}", "--recursive").stdout
    assert sorted(re.findall(r"copy/(.*)", listed)) == sorted(files)
    (source / "a.txt").unlink()
    server.aws("s3", "sync", "--delete", source, f"s3://{name}/copy")
    server.aws("s3", "sync", f"s3://{name}/copy", tmp_path / "back")
    back = {str(path.relative_to(tmp_path / "back")): path.read_text()
            for path in (tmp_path / "back").rglob("*") if path.is_file()}
    assert back == {path: text for path, text in files.items() if path != "a.txt"}
    refused = server.aws("s3", "rb", f"s3://{name}", check=False)
    assert refused.returncode != 0 and "BucketNotEmpty" in refused.stderr
    server.aws("s3", "rm", "--recursive", f"s3://{name}")
    assert server.aws("s3", "ls", f"s3://{name}").stdout == ""
    server.aws("s3", "rb", f"s3://{name}")
    gone = server.aws("s3", "ls", f"s3://{name}", check=False)
    assert gone.returncode != 0 and "NoSuchBucket" in gone.stderr


def test_a_function_is_created_invoked_read_back_updated_and_deleted(server, name, tmp_path):
    harness.need("zip")
    (tmp_path / "handler.py").write_text("def handler(event, context):\n    return {'first': event}\n")
    harness.run(["zip", "-q", "one.zip", "handler.py"], os.environ, cwd=tmp_path)
    (tmp_path / "handler.py").write_text("def handler(event, context):\n    return {'second': event}\n")
    harness.run(["zip", "-q", "two.zip", "handler.py"], os.environ, cwd=tmp_path)
    (tmp_path / "event.json").write_text('{"key": "value"}')
    function = ("--function-name", name)
    payload = ("--payload", f"fileb://{tmp_path}/event.json")
    created = server.aws_json(
        "lambda", "create-function", *function, "--runtime", "python3.11", "--handler", "handler.handler",
        "--role", ROLE, "--zip-file", f"fileb://{tmp_path}/one.zip",
    )
    assert created["FunctionArn"] == f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:{name}"
    assert (created["Timeout"], created["MemorySize"], created["Version"]) == (3, 128, "$LATEST")
    server.aws("lambda", "wait", "function-active-v2", *function)
    answer = server.aws_json("lambda", "invoke", *function, *payload, "--log-type", "Tail", tmp_path / "answer.json")
    assert answer["StatusCode"] == 200 and "FunctionError" not in answer and answer["LogResult"]
    assert json.loads((tmp_path / "answer.json").read_text()) == {"first": {"key": "value"}}

    got = server.aws_json("lambda", "get-function", *function)
    assert got["Configuration"]["State"] == "Active"
    # The URL is signed for the download; the AWS CLI never follows it, people and tools do.
    fetched = harness.run(
        [harness.sys.executable, "-c", "import sys, urllib.request as u; "
         "open(sys.argv[2], 'wb').write(u.urlopen(sys.argv[1]).read())", got["Code"]["Location"], tmp_path / "got.zip"],
        server.environment,
    )
    assert fetched.returncode == 0
    assert (tmp_path / "got.zip").read_bytes() == (tmp_path / "one.zip").read_bytes()

    updated = server.aws_json("lambda", "update-function-code", *function, "--zip-file", f"fileb://{tmp_path}/two.zip")
    assert updated["CodeSha256"] != created["CodeSha256"]
    server.aws("lambda", "wait", "function-updated-v2", *function)
    server.aws("lambda", "invoke", *function, *payload, tmp_path / "answer.json")
    assert json.loads((tmp_path / "answer.json").read_text()) == {"second": {"key": "value"}}

    again = server.aws(
        "lambda", "create-function", *function, "--runtime", "python3.11", "--handler", "handler.handler",
        "--role", ROLE, "--zip-file", f"fileb://{tmp_path}/one.zip", check=False,
    )
    assert again.returncode != 0 and "ResourceConflictException" in again.stderr
    server.aws("lambda", "delete-function", *function)
    gone = server.aws("lambda", "invoke", *function, *payload, tmp_path / "answer.json", check=False)
    assert gone.returncode != 0 and "ResourceNotFoundException" in gone.stderr and name in gone.stderr
