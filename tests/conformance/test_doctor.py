"""`longshore doctor`, the floor of the sandbox, and what a server does that is below it."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

import harness

LAYERS = ["own-uid", "user-namespace", "mount-namespace", "pid-namespace", "net-namespace", "ipc-namespace", "uts-namespace",
          "landlock", "seccomp", "capabilities", "rlimits", "cgroup"]
CONTAINED = [sys.executable, str(pathlib.Path(__file__).with_name("contained.py"))]
WITHOUT = "LONGSHORE_FUNCTIONS_SANDBOX_WITHOUT"


def doctor(tmp_path, *arguments, environment=None, status=0):
    # It asks every interpreter on the PATH for its version; the system's own will do.
    plain = harness.plain_environment(tmp_path) | {"PATH": "/usr/local/bin:/usr/bin:/bin"}
    done = harness.run([harness.LONGSHORE, "doctor", "--data-dir", tmp_path / "data", *arguments],
                       plain | (environment or {}), check=False)
    assert done.returncode == status, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def examined(tmp_path, *arguments, **more):
    return json.loads(doctor(tmp_path, "--json", *arguments, **more).stdout)


def states(document):
    return {row["layer"]: row["state"] for row in document["sandbox"]["layers"]}


def refused(tmp_path, *arguments, environment=None):
    """A server that does not start: its standard error."""
    done = harness.run([harness.LONGSHORE, "serve", "--data-dir", tmp_path / "data", "--listen", "127.0.0.1:0", *arguments],
                       harness.plain_environment(tmp_path) | (environment or {}), check=False, timeout=30)
    assert done.returncode == 1, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "listening" not in done.stdout
    return done.stderr


def test_the_table_has_every_layer_with_its_state_and_its_reason_and_leaves_nothing_behind(tmp_path):
    document = examined(tmp_path)
    assert [row["layer"] for row in document["sandbox"]["layers"]] == LAYERS
    root = os.geteuid() == 0
    assert document["sandbox"]["root"] == root and document["sandbox"]["starts"] is True
    assert (document["sandbox"]["mode"], document["sandbox"]["network"]) == ("auto", "s3")
    for row in document["sandbox"]["layers"]:
        assert row["state"] in {"on", "missing", "off", "not needed"} and row["why"]
        assert bool(row["hint"]) == (row["state"] == "missing"), row
    found = states(document)
    assert found["seccomp"] == found["capabilities"] == found["rlimits"] == "on"
    assert found["user-namespace" if root else "own-uid"] == "not needed"
    machine = document["machine"]
    assert machine["user"] == os.geteuid() and machine["kernel"].startswith(os.uname().release)
    assert {"cgroups", "cores", "memory_mib", "open_files_max", "python", "node", "data_dir", "data_dir_mode", "disk_free_mib"} <= set(machine)
    assert not (tmp_path / "data").exists()

    text = doctor(tmp_path).stdout
    for layer, state in found.items():
        assert any(line.split()[:1] == [layer] and state in line for line in text.splitlines()), (layer, text)
    assert "data directory" in text and 'sandbox = "auto"' in text


def test_layers_that_a_setting_masks_are_off_and_say_by_what(tmp_path):
    for masked in [["cgroup"], ["uts-namespace", "pid-namespace"], LAYERS]:
        starts = masked != LAYERS
        document = examined(tmp_path, environment={WITHOUT: ",".join(masked)}, status=0 if starts else 1)
        for row in document["sandbox"]["layers"]:
            assert (row["state"] == "off") == (row["layer"] in masked), row
            assert row["state"] != "off" or row["detail"] == "sandbox_without names it"
        assert document["sandbox"]["starts"] is starts


def test_a_server_below_the_floor_does_not_start_and_says_what_it_lacks(tmp_path):
    for without, lacks in [
        ("seccomp", "seccomp"), ("rlimits", "rlimits"), ("landlock,mount-namespace", "landlock or mount-namespace"),
    ] + ([("own-uid", "own-uid")] if os.geteuid() == 0 else []):
        said = refused(tmp_path, environment={WITHOUT: without})
        assert f"error: functions are not started: this machine's sandbox is below the floor, and lacks {lacks}\n" in said
        assert "hint: \"longshore doctor\"" in said and "--sandbox=off" in said
    document = examined(tmp_path, environment={WITHOUT: without}, status=1)
    assert document["sandbox"]["starts"] is False and lacks in document["sandbox"]["refusal"]
    assert "error: functions are not started" in doctor(tmp_path, environment={WITHOUT: without}, status=1).stderr


def test_requiring_every_layer_refuses_where_one_is_masked(tmp_path):
    said = refused(tmp_path, "--sandbox=require", environment={WITHOUT: "uts-namespace"})
    assert "sandbox = \"require\" wants every layer, and lacks" in said and "uts-namespace" in said and "hint: " in said


def test_off_has_to_be_said_and_is_told_at_each_start(tmp_path):
    server = harness.Server(tmp_path, harness.UNCONFINED)
    try:
        for starts in (1, 2):
            server.start()
            told = [line for line in server.said().splitlines() if "functions run without a sandbox" in line]
            assert len(told) == starts and all(" ERROR " in line for line in told), server.said()
            if starts == 1:
                server.stop()
        server.deploy("f", "import os\ndef handler(event, context): return os.getuid()\n")
        assert json.loads(server.functions.invoke(FunctionName="f")["Payload"].read()) == os.geteuid()
    finally:
        server.stop()
    assert set(states(examined(tmp_path, "--sandbox=off")).values()) == {"off"}


def test_a_wrong_word_is_refused_with_the_right_ones(tmp_path):
    done = doctor(tmp_path, "--sandbox=on", status=64)
    assert "auto, require or off" in done.stderr
    done = doctor(tmp_path, environment={WITHOUT: "selinux"}, status=64)
    assert "selinux" in done.stderr and "own-uid" in done.stderr
    done = doctor(tmp_path, environment={"LONGSHORE_FUNCTIONS_NETWORK": "all"}, status=64)
    assert "`s3`" in done.stderr


def test_the_log_of_a_servers_start_sums_the_layers_up(server):
    line = next(line for line in server.said().splitlines() if "sandbox of functions" in line)
    assert "on: " in line and "seccomp" in line and "network=S3" in line


@pytest.mark.parametrize("user", ["as it is", "ordinary"])
def test_the_demo_works_in_a_container_without_privileges(tmp_path, user, request):
    before, home = CONTAINED, tmp_path / "home"
    home.mkdir()
    environment = harness.plain_environment(home)
    if os.geteuid() == 0:
        # In root's home the interpreter is where functions' users may not go, and where nobody else may start one.
        environment["PATH"] = "/usr/local/bin:/usr/bin:/bin"
        if shutil.which("python3", path=environment["PATH"]) is None:
            pytest.skip("no Python outside of root's home")
        before = [shutil.which("python3", path=environment["PATH"]), CONTAINED[1]]
    if user == "ordinary":
        if os.geteuid() != 0:
            pytest.skip("an ordinary user already")
        before = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *before]
    source = home / "source"
    source.mkdir()
    (source / "a.txt").write_text("one\ntwo\n")
    binary, program = home / "longshore", home / "contained.py"
    shutil.copy(harness.LONGSHORE, binary)
    # pytest keeps its folders for a while, and this is the largest file in them.
    request.addfinalizer(lambda: binary.unlink(missing_ok=True))
    shutil.copy(CONTAINED[1], program)
    before = [str(program) if word == CONTAINED[1] else word for word in before]
    for path in [home, source, source / "a.txt", binary, program]:
        path.chmod(0o755)
        if user == "ordinary":
            os.chown(path, 65534, 65534)
    # pytest's folders are closed to others; a working folder may be entered by way of a descriptor of its parents' owner.
    for folder in [tmp_path, *tmp_path.parents]:
        if folder.stat().st_mode & 0o005 == 0 and folder.stat().st_uid == os.geteuid():
            folder.chmod(folder.stat().st_mode | 0o055)
    said = subprocess.run([*before, str(binary), "doctor", "--json"], env=environment, capture_output=True, text=True)
    found = states(json.loads(said.stdout))
    assert found["mount-namespace"] == found["net-namespace"] == "missing" and found["seccomp"] == "on", said.stdout
    if found["landlock"] != "on":
        assert said.returncode == 1
        return
    done = harness.run([*before, binary, "demo", "--source", source, "--report", home / "report"], environment, check=False)
    assert done.returncode == 0 and "1 of 1 succeeded" in done.stderr, done.stdout + done.stderr
