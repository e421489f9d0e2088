"""The sandbox, attacked from inside: probes in Python, in sh and in a static binary, as functions of a real server.

Each probe tries one thing that a function has no business with. It is run in three settings: with the sandbox off, to
show that it would have worked (a probe that does not even then is listed and not counted); in the sandbox of a server
that runs as root; and in that of a server that an ordinary user runs. With layers of the sandbox left out, what remains
has to hold, or the server refuses to start.

The server runs on a pretend machine (`probes/pretend_host.py`): namespaces of the test's own with files, sockets, name
and metadata services worth stealing. So a control does no harm: what it kills, reads and fills is the pretend machine's.
One invocation runs a whole group of probes and returns a table; what breaks its own environment has one to itself.
"""

import concurrent.futures
import contextlib
import ctypes
import dataclasses
import functools
import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
import zipfile

import boto3
import botocore.exceptions
import pytest

import harness

PROBES = pathlib.Path(__file__).with_name("probes")
LANGUAGES = ("c", "python", "sh")
USER = 54321
NEWPID, NEWNET, NEWNS, NEWIPC, NEWUTS = 0x20000000, 0x40000000, 0x20000, 0x8000000, 0x4000000
libc = ctypes.CDLL(None, use_errno=True)

GROUPS = {
    "files": """server_state_read server_state_write server_state_list credentials_read other_code_read other_code_write
        own_code_write runtime_write system_write shadow_read root_home_read host_file_read host_folder_write
        other_tmp_read other_tmp_write symlink_out hardlink_out dotdot_out proc_self_root proc_self_cwd proc_1_environ
        proc_1_root proc_1_fd proc_1_mem server_mem server_environ other_environ other_proc_root core_pattern sysctl
        sysrq proc_kcore sys_write cgroup_write dev_kvm dev_fuse dev_kmsg dev_tun dev_disk mknod_disk docker_socket
        host_socket host_shm sysv_shm open_by_handle""",
    "processes": """processes_list signal_server signal_other ptrace_server ptrace_child vm_read_server vm_read_other
        priority_raise priority_server realtime limits_raise limits_of_server oom_score steal_descriptor
        affinity_server""",
    "network": """control_api host_loopback host_address host_loopback6 other_runtime_api other_s3 metadata dns udp_host
        udp_loopback icmp raw_socket packet_socket vsock alg_socket netlink_routes netlink_audit abstract_socket
        s3_door_to_lambda s3_door_to_longshore""",
    "kernel": """unshare_user unshare_mount unshare_net unshare_pid unshare_cgroup clone_user clone3_user mount_tmpfs
        mount_bind mount_remount fsopen open_tree umount chroot_in pivot_root bpf keyctl add_key io_uring userfaultfd
        perf setns_net setns_mount setns_own personality_change tiocsti tioclinux modify_ldt init_module set_hostname
        kernel_log ports fanotify swap process_accounting set_clock old_abi_user old_abi_calls x32_user
        wide_socket_family wide_tiocsti setuid_root setgroups_root lock_memory""",
    "identity": """user_is_root group_is_root groups_left capabilities_left new_privileges no_seccomp
        descriptors_inherited environment_of_server umask_lax terminal session_of_server host_name core_dumps
        input_from_server""",
    "runtime API": "answer_other_request poll_while_running huge_headers smuggled_request forged_init_error",
}
TABLE = [name for group in GROUPS.values() for name in group.split()]

# What a function finds in its environment: Lambda's variables, those of this test, and what shells set by themselves.
KNOWN_VARIABLES = """AWS_LAMBDA_RUNTIME_API _HANDLER LAMBDA_TASK_ROOT LAMBDA_RUNTIME_DIR AWS_LAMBDA_FUNCTION_NAME
    AWS_LAMBDA_FUNCTION_VERSION AWS_LAMBDA_FUNCTION_MEMORY_SIZE AWS_LAMBDA_LOG_GROUP_NAME AWS_LAMBDA_LOG_STREAM_NAME
    AWS_LAMBDA_INITIALIZATION_TYPE AWS_REGION AWS_DEFAULT_REGION AWS_EXECUTION_ENV AWS_ACCESS_KEY_ID
    AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_ENDPOINT_URL_S3 TZ LANG PATH LD_LIBRARY_PATH PYTHONPATH NODE_PATH TMPDIR
    AWS_LAMBDA_LOG_FORMAT AWS_LAMBDA_LOG_LEVEL AWS_XRAY_CONTEXT_MISSING LONGSHORE_ENVIRONMENT LONGSHORE_LAYERS_DIR
    _X_AMZN_TRACE_ID PROBES_OF PWD OLDPWD SHLVL _ LC_CTYPE""".split()

NEIGHBOUR = """
    import os, tempfile

    def handler(event, context):
        with open(os.path.join(tempfile.gettempdir(), "neighbour.txt"), "w") as file:
            file.write(event["canary"])
        return {"tmp": tempfile.gettempdir(), "code": os.getcwd(), "runtime": os.environ["AWS_LAMBDA_RUNTIME_API"],
                "s3": os.environ["AWS_ENDPOINT_URL_S3"]}
"""


def checked(result, what):
    if result == -1:
        raise OSError(ctypes.get_errno(), what)


class PretendHost:
    """Namespaces with a process 1 of ours, which ends with our end of its input, and everything in here with it."""

    def __init__(self):
        self.canary = "canary" + uuid.uuid4().hex
        command = ["unshare", "--fork", "--kill-child", "--pid", "--mount", "--net", "--ipc", "--uts", "--propagation",
                   "private", "--mount-proc", sys.executable, str(PROBES / "pretend_host.py")]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process.stdin.write(json.dumps({"canary": self.canary}) + "\n")
        self.process.stdin.flush()
        said = self.process.stdout.readline()
        if not said:
            self.process.wait()
            pytest.skip("the sandbox's probes need root and namespaces of their own for their pretend machine")
        self.facts = json.loads(said)
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        self.init = int(children.read_text().split()[0])

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(20)

    def namespace(self, kind):
        return open(f"/proc/{self.init}/ns/{kind}", "rb")

    @contextlib.contextmanager
    def network(self):
        """In here, this thread and those that it starts are on the pretend machine's network."""
        with open("/proc/self/ns/net", "rb") as home, self.namespace("net") as there:
            checked(libc.setns(there.fileno(), NEWNET), "setns")
            try:
                yield
            finally:
                checked(libc.setns(home.fileno(), NEWNET), "setns")

    def spawn(self, command, uid, **options):
        """Starts a process in here, as this user, in a session of its own."""
        kinds = {"mnt": NEWNS, "ipc": NEWIPC, "uts": NEWUTS, "net": NEWNET}
        opened = {kind: self.namespace(kind) for kind in kinds}

        def enter():
            for kind, flag in kinds.items():
                checked(libc.setns(opened[kind].fileno(), flag), kind)
            os.chdir("/")
            if uid:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)

        with open("/proc/self/ns/pid", "rb") as home, self.namespace("pid") as there:
            # Decides where children of ours are born; we ourselves stay.
            checked(libc.setns(there.fileno(), NEWPID), "setns")
            try:
                return subprocess.Popen(command, preexec_fn=enter, start_new_session=True, **options)
            finally:
                checked(libc.setns(home.fileno(), NEWPID), "setns")
                for file in opened.values():
                    file.close()

    def processes(self):
        """Every process in here, those of namespaces further in too, by the ID that it has in here: its command line."""
        found = {}
        for folder in pathlib.Path(f"/proc/{self.init}/root/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if folder.joinpath("stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
                    found[int(folder.name)] = folder.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return found

    def environ(self, pid):
        with contextlib.suppress(OSError):
            return pathlib.Path(f"/proc/{self.init}/root/proc/{pid}/environ").read_bytes()
        return b""

    def mounts(self):
        return {line.split()[4] for line in pathlib.Path(f"/proc/{self.init}/mountinfo").read_text().splitlines()}


@dataclasses.dataclass(frozen=True)
class Setting:
    """How a server is run: by whom, and what its configuration says of the sandbox."""

    name: str
    uid: int = 0
    sandbox: str = "auto"
    without: tuple = ()
    network: str = "s3"

    def __str__(self):
        return self.name

    @property
    def toml(self):
        return (f'[functions]\nsandbox = "{self.sandbox}"\nsandbox_without = {json.dumps(list(self.without))}\n'
                f'network = "{self.network}"\n[limits]\nstop_seconds = 2\n')


OFF = Setting("off", sandbox="off")
ORDINARY_OFF = Setting("ordinary-user-off", uid=USER, sandbox="off")
ROOT = Setting("root")
ORDINARY = Setting("ordinary-user", uid=USER)


class Confined(harness.Server):
    """A server on the pretend machine, by one setting, with a neighbour of the attackers in it."""

    def __init__(self, host, base, setting):
        folder = base / f"{setting.name}-{uuid.uuid4().hex[:6]}"
        folder.mkdir()
        self.secret = "server" + uuid.uuid4().hex
        super().__init__(folder, {"PRETEND_SERVER_SECRET": self.secret})
        self.host, self.setting, self.base = host, setting, base
        if setting.uid:
            # The interpreters of root's home are out of an ordinary user's reach.
            self.extra_environment["PATH"] = "/usr/local/bin:/usr/bin:/bin"
        self.data_dir.mkdir(mode=0o700)
        (self.data_dir / "longshore.toml").write_text(setting.toml)
        for path in (folder, self.home, self.data_dir, self.data_dir / "longshore.toml"):
            os.chown(path, setting.uid, setting.uid)
        self.deployed = set()

    def spawn(self, command, **options):
        return self.host.spawn([str(self.base / "longshore"), *command[1:]], self.setting.uid, **options)

    def longshore(self, command, *arguments, timeout=60):
        """Runs a command where the server runs, as its user: it looks for the server's process."""
        line = [self.base / "longshore", command, *arguments, "--data-dir", self.data_dir]
        process = self.host.spawn(list(map(str, line)), self.setting.uid, env=harness.plain_environment(self.home),
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        output, errors = process.communicate(timeout=timeout)
        assert process.returncode == 0, f"{line}: status {process.returncode}\n{output}\n{errors}"
        return subprocess.CompletedProcess(line, 0, output, errors)

    @property
    def pid(self):
        """Of the server, as the pretend machine counts."""
        return json.loads((self.data_dir / "server.json").read_text())["pid"]

    def put(self, name, files, runtime, handler="handler.handler", timeout=60, memory=512, variables=None):
        """Creates a function from {file name: content}; what is named bootstrap may be executed."""
        if name in self.deployed:
            return name
        self.deployed.add(name)
        self.functions.create_function(
            FunctionName=name, Runtime=runtime, Handler=handler, Role=harness.ROLE, Timeout=timeout, MemorySize=memory,
            Code={"ZipFile": harness.zip_of(files)},
            # Of which server a process is: all are on one pretend machine.
            Environment={"Variables": {"PROBES_OF": self.directory.name} | (variables or {})},
        )
        self.functions.get_waiter("function_active_v2").wait(FunctionName=name)
        return name

    def call(self, name, event):
        """Invokes a function. Returns its answer, and whether it is an error."""
        answer = self.functions.invoke(FunctionName=name, Payload=json.dumps(event))
        return json.loads(answer["Payload"].read()), "FunctionError" in answer

    def attacker(self, language, timeout=60, memory=512):
        """The function that has the probes of a language. Returns its name."""
        name = f"probe-{language}-{timeout}-{memory}"
        binary, script = (self.base / "probe").read_bytes(), (PROBES / "probe.sh").read_bytes()
        files, runtime, handler = {
            "c": ({"bootstrap": binary}, "provided.al2023", "-"),
            "sh": ({"bootstrap": script, "helper/bootstrap": binary}, "provided.al2023", "-"),
            "python": ({"probe.py": (PROBES / "probe.py").read_bytes()}, "python3.11", "probe.handler"),
        }[language]
        return self.put(name, files, runtime, handler, timeout, memory)

    @functools.cached_property
    def facts(self):
        """What the probes have to know; finds the neighbour that they shall find."""
        secret = "neighbour" + uuid.uuid4().hex
        self.put("neighbour", {"handler.py": __import__("textwrap").dedent(NEIGHBOUR), "neighbour-code.txt": self.host.canary},
                 "python3.11", variables={"NEIGHBOUR_SECRET": secret})
        said, failed = self.call("neighbour", {"canary": self.host.canary})
        assert not failed, said
        pids = [pid for pid in self.host.processes() if f"NEIGHBOUR_SECRET={secret}".encode() in self.host.environ(pid)]
        assert pids, "the neighbour's process is not to be found"
        seen = {name: ",".join(map(str, self.data_dir.rglob(name))) for name in ("neighbour-code.txt", "neighbour.txt")}
        linkable = self.directory / "linkable"
        linkable.write_text(self.host.canary)
        os.chown(linkable, self.setting.uid, self.setting.uid)
        root = os.stat("/").st_dev
        disk = pathlib.Path(f"/sys/dev/block/{os.major(root)}:{os.minor(root)}")
        disk = f"/dev/{disk.resolve().name}" if disk.exists() and pathlib.Path(f"/dev/{disk.resolve().name}").exists() else ""
        return self.host.facts | {
            "data_dir": self.data_dir, "state_file": self.data_dir / "records.db",
            "credentials_file": next(path for path in self.data_dir.iterdir() if path.name.startswith("credentials")),
            "server_secret": self.secret, "other_secret": secret, "server_pid": self.pid, "other_pid": pids[0],
            "other_code": f"{seen['neighbour-code.txt']},/proc/{pids[0]}/cwd/neighbour-code.txt",
            "other_tmp": f"{seen['neighbour.txt'] or said['tmp'] + '/neighbour.txt'},"
                         f"/proc/{pids[0]}/root{said['tmp']}/neighbour.txt",
            "api_port": self.address.rpartition(":")[2], "other_runtime": said["runtime"].rpartition(":")[2],
            "other_s3": said["s3"].rstrip("/").rpartition(":")[2], "session": self.pid, "linkable": linkable,
            "disk": disk, "disk_device": root, "disk_major": os.major(root), "disk_minor": os.minor(root),
            "known_variables": "," + ",".join(KNOWN_VARIABLES) + ",",
        }

    def words(self, probes=(), **more):
        facts = self.facts | ({"probes": ",".join(probes)} if probes else {}) | more
        return " ".join(f"{name}={value}" for name, value in facts.items() if value != "")

    def table(self, language, probes=TABLE):
        """Runs probes of a language in one invocation. Returns {name: {"succeeded", "detail"}}."""
        said, failed = self.call(self.attacker(language), self.words(probes))
        assert not failed, f"the probes themselves failed: {said}"
        assert set(said) == set(probes)
        return said


@pytest.fixture(scope="module")
def base():
    """A folder that every user may enter, with the binaries in it."""
    harness.need("cc")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="longshore-probes-"))
    folder.chmod(0o755)
    # A copy, since the folder that it is built into may be closed to others.
    shutil.copy(harness.LONGSHORE, folder / "longshore")
    (folder / "longshore").chmod(0o755)
    built = subprocess.run(["cc", "-static", "-O1", "-o", folder / "probe", PROBES / "probe.c"], capture_output=True, text=True)
    if built.returncode != 0:
        shutil.rmtree(folder)
        pytest.skip(f"no static binary can be made on this machine: {built.stderr[-300:]}")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def host(base):
    if os.geteuid() != 0:
        pytest.skip("the sandbox's probes need root for their pretend machine")
    harness.need("unshare")
    with pretend_host() as host:
        yield host


@contextlib.contextmanager
def pretend_host():
    """A pretend machine, and this thread on its network."""
    host = PretendHost()
    try:
        with host.network():
            yield host
    finally:
        host.close()


@contextlib.contextmanager
def served(host, base, setting, listen="127.0.0.1:0"):
    server = Confined(host, base, setting)
    server.start(listen=listen)
    try:
        yield server
    finally:
        server.stop()
    said = server.said()
    assert "panicked at" not in said, said[-3000:]


@pytest.fixture(scope="module")
def servers(host, base):
    """A server for each setting that is asked for, kept for the module."""
    with contextlib.ExitStack() as stack:
        running = {}

        def of(setting):
            if setting not in running:
                running[setting] = stack.enter_context(served(host, base, setting))
            return running[setting]

        yield of


def holes(table, allowed=()):
    return {name: found["detail"] for name, found in table.items() if found["succeeded"] and name not in allowed}


# --- the controls: what each probe can do without the sandbox ---


def said_of(tables, name):
    """Whether a probe worked in any language that has it, and what it said where it did not."""
    tried = [table[name] for table in tables.values() if table[name]["succeeded"] is not None]
    return any(found["succeeded"] for found in tried), tried[0]["detail"] if tried else "not tried"


@pytest.mark.parametrize("setting", [OFF, ORDINARY_OFF], ids=str)
def test_without_the_sandbox_the_probes_succeed(servers, capsys, setting):
    tables = {language: servers(setting).table(language) for language in LANGUAGES}
    counted = {language: sum(found["succeeded"] is True for found in table.values()) for language, table in tables.items()}
    uncounted = []
    for name in TABLE:
        worked, detail = said_of(tables, name)
        if worked:
            # What one language can do, each of them could: else its probe is not what it says.
            failed = {language: table[name]["detail"] for language, table in tables.items()
                      if table[name]["succeeded"] is False}
            assert not failed, f"{name} worked, but not so: {failed}"
        else:
            uncounted.append(f"{name} ({detail[:60]})")
    with capsys.disabled():
        print(f"\nsandbox {setting}: {len(TABLE) - len(uncounted)} probes succeed, by language: {counted}")
        if setting is OFF:
            print(f"these succeed in no case on this machine, and are not counted: {', '.join(uncounted)}")
    if setting is OFF:
        assert counted["c"] >= 60 and counted["python"] >= 60 and counted["sh"] >= 40, counted


# --- inside the sandbox ---


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("setting", [ROOT, ORDINARY], ids=str)
def test_no_probe_succeeds_in_the_sandbox(servers, setting, language):
    found = holes(servers(setting).table(language))
    assert not found, json.dumps(found, indent=1)


# What each layer left out opens. Everything else has to be held by those that remain.
#
# Without a file system and a PID namespace of its own, a function sees the machine's /proc, and in it the command lines of
# everybody's processes. Without a user namespace, an ordinary user cannot empty the bounding set, which gives nobody
# anything where there are no new privileges.
PATHS = {"docker_socket", "host_socket"}
LEFT_OUT = {
    Setting("root-without-mount", without=("mount-namespace",)): {"processes_list"},
    Setting("root-without-pid", without=("pid-namespace",)): {"processes_list"},
    Setting("root-without-net", without=("net-namespace",)): set(),
    Setting("root-without-ipc-and-uts", without=("ipc-namespace", "uts-namespace")): {"sysv_shm", "host_name"},
    Setting("root-without-landlock", without=("landlock",)): set(),
    Setting("root-without-cgroup", without=("cgroup",)): set(),
    Setting("root-without-namespaces", without=("mount-namespace", "pid-namespace", "net-namespace", "ipc-namespace",
                                                "uts-namespace", "cgroup")): {"processes_list", "sysv_shm", "host_name"},
    Setting("user-without-landlock", uid=USER, without=("landlock",)): set(),
    Setting("user-without-pid", uid=USER, without=("pid-namespace",)): {"processes_list"},
    Setting("user-without-namespaces", uid=USER, without=("user-namespace", "cgroup")): {
        "processes_list", "sysv_shm", "host_name", "capabilities_left"},
}


@pytest.mark.parametrize("setting", LEFT_OUT, ids=str)
def test_what_remains_holds_where_layers_are_left_out(host, base, setting):
    with served(host, base, setting) as server:
        found = holes(server.table("c"), LEFT_OUT[setting])
        assert not found, json.dumps(found, indent=1)
        shared = namespaces_shared(server)
        for kind, layer in (("mnt", "mount"), ("pid", "pid"), ("net", "net"), ("ipc", "ipc"), ("uts", "uts")):
            left_out = f"{layer}-namespace" in setting.without or "user-namespace" in setting.without
            assert (kind in shared) == left_out, f"{setting.without} is left out, and shared: {shared}"
        if "pid-namespace" in setting.without or "user-namespace" in setting.without:
            assert not survives_a_time_out(server) and not survives_a_time_out(server, "hop")
        if "cgroup" in setting.without:
            names = [name for name in HARM if name.startswith("memory")] + ["fork_bomb"]
            bounded = {name: harm(server, name, "c") for name in names}
            assert not any(succeeded for succeeded, _ in bounded.values()), bounded


def process_of(server, name):
    """A process of a function, as the pretend machine counts."""
    wanted = {f"AWS_LAMBDA_FUNCTION_NAME={name}".encode(), f"PROBES_OF={server.directory.name}".encode()}
    found = [pid for pid in server.host.processes() if wanted <= set(server.host.environ(pid).split(b"\0"))]
    assert found, f"no process of {name}"
    return found[0]


def namespaces_shared(server):
    """The kinds of namespaces in which a function is together with the server."""
    folder = pathlib.Path(f"/proc/{server.host.init}/root/proc")
    one, other = (folder / str(pid) / "ns" for pid in (server.pid, process_of(server, "neighbour")))
    return {kind for kind in ("mnt", "pid", "net", "ipc", "uts", "user") if os.readlink(one / kind) == os.readlink(other / kind)}


def identity_on_the_host(server, name):
    """The users of a function's process, and its control groups, as the host sees them."""
    folder = pathlib.Path(f"/proc/{server.host.init}/root/proc/{process_of(server, name)}")
    uids = folder.joinpath("status").read_text().partition("\nUid:")[2].split("\n")[0].split()
    return set(map(int, uids)), set(folder.joinpath("cgroup").read_text().split())


def test_each_environment_of_roots_server_has_a_user_and_groups_of_its_own(servers):
    server = servers(ROOT)
    server.table("c", ["user_is_root"])
    assert server.call("neighbour", {"canary": "x"})[1] is False
    uids, groups = identity_on_the_host(server, "neighbour")
    others, other_groups = identity_on_the_host(server, server.attacker("c"))
    assert len(uids) == len(others) == 1 and uids != others and 0 not in uids | others
    own = {line for line in groups if "longshore-" in line}
    assert own and not own & other_groups, f"{groups} and {other_groups}"
    assert not namespaces_shared(server) - {"user"}


@pytest.mark.parametrize("uid, without", [
    (0, ["seccomp"]), (0, ["own-uid"]), (0, ["rlimits"]), (0, ["landlock", "mount-namespace"]), (0, ["landlock", "net-namespace"]),
    (USER, ["seccomp"]), (USER, ["landlock", "user-namespace"]), (USER, ["landlock", "pid-namespace"]),
])
def test_below_the_floor_the_server_does_not_start(host, base, uid, without):
    server = Confined(host, base, Setting("below", uid=uid, without=tuple(without)))
    with pytest.raises(AssertionError, match="the server ended with") as refusal:
        server.start()
    said = [line for line in str(refusal.value).splitlines() if line.startswith("error: ")]
    lacks = {"user-namespace": "mount-namespace"}
    assert said and all(lacks.get(layer, layer) in said[0] for layer in without), refusal.value
    assert "--sandbox=off" in str(refusal.value), refusal.value


def test_require_wants_every_layer(host, base):
    server = Confined(host, base, Setting("require", sandbox="require", without=("uts-namespace",)))
    with pytest.raises(AssertionError, match="uts-namespace"):
        server.start()


def test_without_the_sandbox_the_server_says_so(servers):
    said = servers(OFF).said()
    assert "functions run without a sandbox" in said, said


# --- what a function may use up: each in an invocation of its own ---

MEBIBYTES_TWICE, MEBIBYTES_TMP = 256, 640
HARM = {
    "memory": (LANGUAGES, {"mebibytes": MEBIBYTES_TWICE}),
    "memory_by_children": (("c",), {"mebibytes": MEBIBYTES_TWICE}),
    # Beyond the memory and the /tmp that it may fill: both are the machine's memory.
    "memory_by_file": (("c",), {"mebibytes": 1024}),
    "memory_by_mapping": (("c",), {"mebibytes": 1024}),
    "memory_by_segment": (("c",), {"mebibytes": 1024}),
    "tmp_full": (LANGUAGES, {"mebibytes": MEBIBYTES_TMP}),
    "shm_full": (("c",), {"mebibytes": MEBIBYTES_TMP}),
    "many_files": (("c",), {"files": 1_000_000}),
    "fork_bomb": (("c", "python"), {}),
    "many_processes": (("sh",), {}),
    "thread_bomb": (("c", "python"), {}),
    "descriptors_exhausted": (("c", "python"), {}),
    "file_of_a_tebibyte": (("c",), {}),
}
# On the host's own disk a twentieth shows it as well.
GENTLY = {"many_files": {"files": 50_000}, "tmp_full": {"mebibytes": 576}}


def memory_for(probe):
    return 128 if probe.startswith("memory") else 512


def harm(server, probe, language, gently=False):
    """Runs one probe that uses something up. Returns whether it got what it wanted, and what was said."""
    # Memory that no control group bounds is looked at every second or so.
    more = HARM[probe][1] | ({"nap": 0} | GENTLY.get(probe, {}) if gently else {"nap": 2})
    said, failed = server.call(server.attacker(language, memory=memory_for(probe)), server.words([probe], seconds=50, **more))
    if failed:
        return False, said
    return said[probe]["succeeded"], said[probe]["detail"]


def all_harm(server, gently=False):
    tried = [(probe, language) for probe, (languages, _) in HARM.items() for language in languages]
    # The functions are there before, so that they are created once.
    for probe, language in tried:
        server.attacker(language, memory=memory_for(probe))
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        return dict(zip(tried, pool.map(lambda one: harm(server, *one, gently), tried)))


def test_without_the_sandbox_a_function_uses_up_what_it_wants(servers):
    for (probe, language), (succeeded, said) in all_harm(servers(OFF), gently=True).items():
        assert succeeded, f"{probe} in {language}: {said}"


@pytest.mark.parametrize("setting", [ROOT, ORDINARY], ids=str)
def test_what_a_function_may_use_up_is_bounded(servers, setting):
    server = servers(setting)
    found = {" in ".join(key): said for key, (succeeded, said) in all_harm(server).items() if succeeded}
    assert not found, json.dumps(found, indent=1)
    assert server.call("neighbour", {"canary": "x"})[1] is False, "the neighbour does not work any more"


@pytest.mark.parametrize("setting", [ROOT, ORDINARY], ids=str)
def test_a_gibibyte_of_log_is_taken_and_most_of_it_dropped(servers, setting):
    server = servers(setting)
    said, failed = server.call(server.attacker("c"), server.words(["log_flood"], seconds=50, mebibytes=1024))
    assert not failed and said["log_flood"]["succeeded"], said
    kept = sum(path.stat().st_size for path in server.data_dir.rglob("*") if path.is_file() and "log" in str(path.parent))
    assert kept < 128 << 20, f"{kept >> 20} MiB of the flood are kept"
    resident = pathlib.Path(f"/proc/{server.process.pid}/status").read_text().partition("VmRSS:")[2].split()[0]
    assert int(resident) < 400 << 10, f"the server has {resident} KiB resident"


def test_twice_its_memory_kills_a_function_as_on_lambda(servers):
    server = servers(ROOT)
    said, failed = server.call(server.attacker("c", memory=128),
                               server.words(["memory"], directly=1, nap=2, mebibytes=MEBIBYTES_TWICE))
    assert failed and said["errorType"] == "Runtime.ExitError", said
    assert said["errorMessage"].endswith("Error: Runtime exited with error: signal: killed"), said


# --- what a function leaves behind ---


def lingering(host, mark):
    return [pid for pid, line in host.processes().items() if line.startswith(f"linger {mark}")]


def gone(host, mark, within=3):
    try:
        harness.wait_for("the end of a process left behind", lambda: not lingering(host, mark), within)
        return True
    except AssertionError:
        return False


def leave_a_daemon(server, mark):
    said, failed = server.call(server.attacker("c"), server.words(["daemon_left"], mark=mark))
    assert not failed and said["daemon_left"]["succeeded"], said
    harness.wait_for("a process left behind", lambda: lingering(server.host, mark), 5)


@pytest.mark.parametrize("setting", [OFF, ROOT, ORDINARY], ids=str)
def test_a_process_left_behind_ends_with_its_environment(servers, setting):
    server, mark = servers(setting), uuid.uuid4().hex
    leave_a_daemon(server, mark)
    name = server.attacker("c")
    server.functions.delete_function(FunctionName=name)
    server.deployed.discard(name)
    assert gone(server.host, mark), f"left: {lingering(server.host, mark)}"


def survives_a_time_out(server, how=""):
    """Whether a process of a function goes on when the time of its invocation is up. `how`: hop, to be a new one always."""
    mark = uuid.uuid4().hex
    began = time.monotonic()
    said, failed = server.call(server.attacker("c", timeout=1), server.words(["daemon_and_spin"], mark=mark, how=how, seconds=50))
    assert failed and said["errorType"] == "Sandbox.Timedout", said
    assert time.monotonic() - began < 4
    # Promised is a second after the time-out; this machine may be busy.
    return not gone(server.host, mark, 2)


@pytest.mark.parametrize("how", ["", "hop"])
@pytest.mark.parametrize("setting", [OFF, ROOT, ORDINARY], ids=str)
def test_nothing_survives_a_time_out(servers, setting, how):
    assert not survives_a_time_out(servers(setting), how)


@pytest.mark.parametrize("setting", [OFF, ROOT, ORDINARY], ids=str)
def test_a_runtime_that_stands_still_is_ended_without_its_help(servers, setting):
    server = servers(setting)
    name = server.attacker("c", timeout=1)
    said, failed = server.call(name, server.words(["user_is_root"]))
    assert not failed, said
    runtime = process_of(server, name)
    said, failed = server.call(name, server.words(["stop_parent"]))
    assert failed and said["errorType"] == "Sandbox.Timedout", said
    said, failed = server.call(name, server.words(["user_is_root"]))
    assert not failed, said
    harness.wait_for("the end of a runtime that stands still", lambda: runtime not in server.host.processes(), 3)


@pytest.mark.parametrize("setting", [ROOT, ORDINARY], ids=str)
def test_nothing_is_left_for_the_next_function(servers, setting):
    server, mark = servers(setting), uuid.uuid4().hex
    left, _ = server.call(server.attacker("c"), server.words(["residue_leave"], mark=mark))
    assert left["residue_leave"]["succeeded"], "not even /tmp can be written to"
    there, _ = server.call(server.attacker("c"), server.words(["residue_find"], mark=mark))
    assert there["residue_find"]["succeeded"], "an environment does not keep its /tmp"
    other, _ = server.call(server.attacker("c", memory=256), server.words(["residue_find"], mark=mark))
    assert not other["residue_find"]["succeeded"], other
    # The same function again, in a new environment.
    name = server.attacker("c")
    server.functions.update_function_configuration(FunctionName=name, Description="new environments")
    server.functions.get_waiter("function_updated_v2").wait(FunctionName=name)
    again, _ = server.call(name, server.words(["residue_find"], mark=mark))
    assert not again["residue_find"]["succeeded"], again


# --- the Runtime API, by a runtime that does not keep to it ---


@pytest.mark.parametrize("setting", [OFF, ROOT], ids=str)
def test_a_second_and_a_late_answer_reach_nobody(servers, setting):
    server = servers(setting)
    name = server.attacker("c")
    assert server.call(name, server.words(answer_twice=1)) == ("first", False)
    status, failed = server.call(name, server.words(said_twice=1))
    assert not failed and status in (400, 403), status
    short = server.attacker("c", timeout=1)
    said, failed = server.call(short, server.words(late=1500))
    assert failed and said["errorType"] == "Sandbox.Timedout", said
    began = time.monotonic()
    while time.monotonic() - began < 1:
        said, failed = server.call(short, server.words(["user_is_root"]))
        assert not failed and set(said) == {"user_is_root"}, said


@pytest.mark.parametrize("setting", [OFF, ROOT], ids=str)
def test_an_answer_of_one_byte_too_many_is_refused(servers, setting):
    server = servers(setting)
    name = server.attacker("c")
    said, failed = server.call(name, server.words(answer_bytes=6_291_556))
    assert not failed and len(said) == 6_291_554
    said, failed = server.call(name, server.words(answer_bytes=6_291_557))
    assert failed and said["errorType"] == "Function.ResponseSizeTooLarge", said


def test_a_runtime_that_asks_for_nothing_more_is_ended(servers):
    server = servers(ROOT)
    said, failed = server.call(server.attacker("c", timeout=1), server.words(never_poll=1))
    assert failed and said["errorType"] == "Sandbox.Timedout", said


# --- the whole machine ---


@pytest.mark.parametrize("probe", ["kill_all", "stop_server"])
@pytest.mark.parametrize("setting", [ROOT, ORDINARY], ids=str)
def test_a_function_cannot_kill_the_server(servers, host, setting, probe):
    server = servers(setting)
    words = server.words([probe], directly=1)
    assert server.call("neighbour", {"canary": "x"})[1] is False
    neighbour = process_of(server, "neighbour")
    server.call(server.attacker("c"), words)
    assert server.process.poll() is None, "the server was killed"
    assert neighbour in host.processes(), "the neighbour was killed"
    said, failed = server.call(server.attacker("c"), server.words(["user_is_root"]))
    assert not failed, said


@pytest.mark.parametrize("probe", ["kill_all", "stop_server"])
def test_without_the_sandbox_a_function_can_kill_the_server(base, probe):
    with pretend_host() as host:
        server = Confined(host, base, OFF).start()
        # The answer cannot come any more.
        with pytest.raises(botocore.exceptions.BotoCoreError):
            server.call(server.attacker("c"), server.words([probe], directly=1))
        assert server.process.wait(10) == -signal.SIGKILL


# --- ordinary things ---


@pytest.mark.parametrize("setting", [ROOT, ORDINARY], ids=str)
def test_ordinary_things_work(servers, setting):
    ordinary_things(servers(setting), names=False)


def with_boto3():
    """boto3 as a function brings it along in its zip, without the descriptions of services other than S3."""
    packages = pathlib.Path(boto3.__file__).parents[1]
    found = {}
    for name in ("boto3", "botocore", "s3transfer", "urllib3", "jmespath", "dateutil", "six.py"):
        for path in [packages / name] if name.endswith(".py") else (packages / name).rglob("*"):
            inside = path.relative_to(packages)
            other_service = inside.parts[:2] == ("botocore", "data") and len(inside.parts) > 3 and inside.parts[2] != "s3"
            if path.is_file() and path.suffix != ".pyc" and not other_service:
                found[str(inside)] = path.read_bytes()
    return found


def ordinary_things(server, names, without=frozenset()):
    bucket = server.bucket(f"ordinary-{uuid.uuid4().hex[:8]}")
    event = {"bucket": bucket, "names": names, "tmp_mebibytes": 200}
    files = {"ordinary.py": (PROBES / "ordinary.py").read_bytes()} | with_boto3()
    server.put("ordinary-python", files, "python3.11", "ordinary.handler", memory=1024)
    said, failed = server.call("ordinary-python", event)
    assert not failed and {thing for thing in said if said[thing] != "ok"} <= without, json.dumps(said, indent=1)
    assert server.s3.get_object(Bucket=bucket, Key="from-python")["Body"].read() == b"written inside"
    if shutil.which("node"):
        files = {"ordinary.mjs": (PROBES / "ordinary.mjs").read_bytes()}
        server.put("ordinary-node", files, "nodejs20.x", "ordinary.handler", memory=1024)
        said, failed = server.call("ordinary-node", event)
        assert not failed and {thing for thing in said if said[thing] != "ok"} <= without, json.dumps(said, indent=1)


def test_an_open_network_is_that_of_the_machine_without_the_server_and_the_neighbours(host, base):
    with served(host, base, Setting("open", network="open"), listen="127.0.0.1:7300") as server:
        # Known: ports that the kernel gives out are closed, so that a server inside cannot be reached.
        ordinary_things(server, names=True, without={"server_inside", "serverInside"})
        opened = {"dns", "udp_host", "udp_loopback", "host_address", "host_loopback", "host_loopback6", "metadata", "netlink_routes"}
        found = server.table("c")
        assert not holes(found, opened), json.dumps(holes(found, opened), indent=1)
        assert found["dns"]["succeeded"] and found["host_address"]["succeeded"], found


# --- the end of the server ---


def control_groups(host, pids):
    """The folders of the control groups that these processes are in."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in pathlib.Path(f"/proc/{host.init}/root/proc/{pid}/cgroup").read_text().split():
                _, controllers, path = line.split(":", 2)
                for mounted in (controllers.removeprefix("name="), *controllers.split(","), "unified", ""):
                    folder = pathlib.Path("/sys/fs/cgroup") / mounted / path.lstrip("/")
                    if "longshore" in path and folder.is_dir():
                        found.add(folder)
    return found


@pytest.mark.parametrize("how", ["kill", "stop"])
@pytest.mark.parametrize("setting", [ROOT, ORDINARY], ids=str)
def test_nothing_is_left_of_functions_when_the_server_ends(host, base, setting, how):
    server, mark = Confined(host, base, setting), uuid.uuid4().hex
    processes, mounts = set(host.processes()), host.mounts()
    server.start()
    leave_a_daemon(server, mark)
    began = set(host.processes()) - processes
    groups = control_groups(host, began)
    assert groups or setting.uid, "no control group was made"
    folders = set((server.data_dir / "environments").iterdir())
    assert len(began) >= 4 and folders
    with concurrent.futures.ThreadPoolExecutor() as pool:
        # One is in the middle of an invocation.
        busy = pool.submit(server.call, server.attacker("c", timeout=30), server.words(["spin"], directly=1))
        harness.wait_for("a second environment", lambda: len(list((server.data_dir / "environments").iterdir())) > len(folders))
        folders = set((server.data_dir / "environments").iterdir())
        groups |= control_groups(host, set(host.processes()) - processes)
        getattr(server, how)()
        assert busy.exception(60), "an invocation was answered although its server had ended"
    harness.wait_for("the end of every process", lambda: not set(host.processes()) - processes, 3)
    assert host.mounts() == mounts
    if how == "stop":
        assert not [folder for folder in folders | groups if folder.exists()], "what was made is left"
    server.start()
    try:
        assert not [folder for folder in folders | groups if folder.exists()], "what a dead server left is still there"
        said, failed = server.call(server.attacker("c"), server.words(["user_is_root"]))
        assert not failed, said
    finally:
        server.stop()
