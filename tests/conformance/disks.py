"""Disks that fail, for the tests and `qa/long`: file systems in images that lose power, and such as have little room.

Everything is mounted in a mount namespace of its own, which a `Namespace` holds open: nothing of it is seen outside, and it goes with
the last process in it. Root is needed, and loop devices for images; `missing` says what is not there.
"""

import collections
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import time

import harness

TOOLS = {"mkfs.ext4": "e2fsprogs", "mkfs.xfs": "xfsprogs", "xfs_io": "xfsprogs", "losetup": "mount", "unshare": "util-linux", "nsenter": "util-linux"}


def missing(*tools, loops=True):
    """Why disks cannot be made to fail here; `None` if they can."""
    if os.geteuid() != 0:
        return "mounting needs root"
    for tool in tools or TOOLS:
        if shutil.which(tool) is None:
            return f"{tool} is missing (Debian package {TOOLS.get(tool, tool)})"
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0:
        return "this machine gives no mount namespace"
    if loops and subprocess.run(["losetup", "--find"], capture_output=True).returncode != 0:
        return "this machine has no loop devices"
    return None


def sh(*command, check=True):
    return subprocess.run([str(word) for word in command], check=check, capture_output=True, text=True)


class Namespace:
    """A mount namespace: a process that sleeps in it, and commands that are run in it."""

    def __init__(self):
        self.holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo; exec cat"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        # It has said a line once the namespace is there.
        assert self.holder.stdout.readline() == b"\n"
        self.prefix = ["nsenter", "--mount", f"--target={self.holder.pid}", "--"]

    def run(self, *command, check=True):
        return sh(*self.prefix, *command, check=check)

    def spawn(self, command, **options):
        """Starts a server in it. `nsenter` replaces itself by the program, so the process is the server's."""
        return subprocess.Popen([*self.prefix, *command], **options)

    def path(self, path):
        """The same file as it is seen from outside."""
        return pathlib.Path(f"/proc/{self.holder.pid}/root") / pathlib.Path(path).relative_to("/")

    def close(self):
        self.holder.stdin.close()
        self.holder.wait()


class Disk:
    """A file system in an image, which can lose power: what was not synced is gone then."""

    def __init__(self, namespace, folder, kind="ext4", mib=None):
        self.namespace, self.kind = namespace, kind
        self.image, self.mount = folder / "disk.img", folder / "disk"
        self.mount.mkdir(parents=True)
        sh("truncate", "-s", f"{mib or {'ext4': 256, 'xfs': 320}[kind]}M", self.image)
        sh(f"mkfs.{kind}", "-q", self.image)
        self.attach()

    def attach(self, image=None):
        self.namespace.run("mount", "-o", "loop", image or self.image, self.mount)

    def cut(self, process):
        """The power fails: all threads of the server stand still first, for a sync that races with it might return success."""
        stop_all_threads(process.pid)
        self.namespace.run("xfs_io", "-x", "-c", "shutdown", self.mount)
        process.kill()
        process.wait()

    def detach(self):
        """The functions of a killed server hold the file system for the moment that they take to die."""
        deadline = time.monotonic() + 20
        while self.namespace.run("umount", self.mount, check=False).returncode != 0:
            assert time.monotonic() < deadline, "a file system stays mounted, by whatever holds it"
            time.sleep(0.02)


def stop_all_threads(pid):
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + 10
    while True:
        states = {stat(f"/proc/{pid}/task/{task}/stat") for task in os.listdir(f"/proc/{pid}/task")}
        if states <= {"T", None}:
            return
        assert time.monotonic() < deadline, states


def stat(path):
    """The state of a thread; `None` for one that is gone."""
    with contextlib.suppress(OSError):
        return pathlib.Path(path).read_text().rsplit(")", 1)[1].split()[0]
    return None
