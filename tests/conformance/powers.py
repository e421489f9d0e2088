"""Lanes of power cuts, shared by `test_power.py` and `qa/long power`."""

import collections
import hashlib
import pathlib
import subprocess
import time

import audit
import crashes
import disks
import harness


class Cuts:
    """A stage whose data directory lies on a disk that loses power again and again."""

    def __init__(self, folder, dice, kind):
        self.folder, self.dice = pathlib.Path(folder), dice
        self.namespace = disks.Namespace()
        self.disk = disks.Disk(self.namespace, self.folder, kind)
        # What the functions note lies outside: it is to survive.
        self.stage = crashes.Stage(
            self.folder / "stage", dice, strict=False, sinks=False, data_dir=self.disk.mount / "data", spawn=self.namespace.spawn)
        in_namespace(self.stage.server, self.namespace)
        self.counted = collections.Counter()

    def begin(self):
        self.stage.start().prepare()
        self.stage.keep_busy()

    def cut(self):
        """One cut at a random time, and the checks of what had been acknowledged before. The server is up again afterwards."""
        stage, dice = self.stage, self.dice
        stage.keep_busy()
        time.sleep(dice.uniform(0, 0.15))
        for _ in range(dice.randrange(1, 3)):
            stage.put(size=dice.choice([10, 5_000, 40_000]))
            self.counted["objects"] += 1
        if dice.random() < 0.4:
            stage.job([f"kept-{next(stage.numbers)}-{row}" for row in range(crashes.SMALL)], Priority=5)
            self.counted["jobs_kept"] += 1
        if dice.random() < 0.2:
            stage.deploy()
        for job in list(stage.rows):
            stage.look(job)
        # Counted now: while the server stands still, its functions finish.
        in_flight = stage.log.in_flight()
        self.disk.cut(stage.server.process)
        stage.cut_off()
        self.counted["cuts"] += 1
        self.counted["cuts_in_flight"] += in_flight > 0
        self.disk.detach()
        self.disk.attach()
        stage.start()
        for job in list(stage.rows):
            # A count that has gone down fails here.
            stage.look(job)
        stage.check()

    def end(self):
        self.stage.finish_all()
        self.stage.server.stop()

    def close(self):
        if self.stage.server.process and self.stage.server.process.poll() is None:
            self.stage.kill()
        self.disk.namespace.run("umount", "-l", self.disk.mount, check=False)
        self.namespace.close()


class Images:
    """A stage on an ext4 that lies as an image on an XFS, which copies files in no time: each copy is the disk as it was in the
    middle of anything, with writes that had arrived and others that had not. Each is taken up by a server of its own.
    """

    def __init__(self, folder, dice):
        self.folder, self.dice = pathlib.Path(folder), dice
        self.namespace = disks.Namespace()
        self.outer = disks.Disk(self.namespace, self.folder / "outer", "xfs", mib=1200)
        self.image, self.mount, self.copy = self.outer.mount / "inner.img", self.folder / "inner", self.folder / "copy"
        self.mount.mkdir()
        self.copy.mkdir()
        self.namespace.run("truncate", "-s", "256M", self.image)
        self.namespace.run("mkfs.ext4", "-q", self.image)
        self.namespace.run("mount", "-o", "loop", self.image, self.mount)
        self.stage = crashes.Stage(
            self.folder / "stage", dice, strict=False, sinks=False, data_dir=self.mount / "data", spawn=self.namespace.spawn)
        in_namespace(self.stage.server, self.namespace)
        self.counted = collections.Counter()

    def begin(self):
        self.stage.start().prepare()
        self.stage.keep_busy()

    def cut(self):
        """Copies the disk while the server works on, and looks at the copy with another one."""
        stage, dice = self.stage, self.dice
        stage.keep_busy()
        time.sleep(dice.uniform(0, 0.1))
        stage.put(size=dice.choice([10, 5_000, 40_000]))
        bodies, shown = dict(stage.bodies), {job: stage.look(job) for job in list(stage.rows)}
        in_flight = stage.log.in_flight()
        copied = self.outer.mount / "copy.img"
        self.namespace.run("cp", "--reflink=always", self.image, copied)
        self.counted["images"] += 1
        self.counted["images_in_flight"] += in_flight > 0
        self.namespace.run("mount", "-o", "loop", copied, self.copy)
        # The environments of the original live, and are none of the copy's to end.
        self.namespace.run("rm", "-r", self.copy / "data/environments")
        # Its settings file is hidden with the rest of the stage, and has nothing in it.
        settings = {name: value for name, value in stage.settings.items() if name != "LONGSHORE_CONFIG"}
        other = harness.Server(self.folder / f"other-{self.counted['images']}", settings)
        other.data_dir, other.spawn = self.copy / "data", self.spawn_apart
        in_namespace(other, self.namespace)
        try:
            other.start()
            for key, digest in bodies.items():
                found = hashlib.sha256(other.s3.get_object(Bucket="stage", Key=key)["Body"].read()).hexdigest()
                assert found == digest, f"D3: {key} is not what was acknowledged"
            for job, before in shown.items():
                now = other.describe(job)["ProgressSummary"]
                for name, count in before["ProgressSummary"].items():
                    if name.startswith("Number"):
                        assert now[name] >= count, f"X2: job {job} went back from {count} to {now[name]}, {name}"
            job = dice.choice(list(shown))
            other.wait(job, timeout=120)
            audit.audit(other, job, stage.rows[job])
            self.counted["jobs"] += 1
        finally:
            if other.process and other.process.poll() is None:
                other.kill()
            deadline = time.monotonic() + 20
            while self.namespace.run("umount", self.copy, check=False).returncode != 0:
                assert time.monotonic() < deadline, "a copy stays mounted"
                time.sleep(0.02)
            self.namespace.run("rm", copied)

    def spawn_apart(self, command, **options):
        """A server whose functions note their invocations elsewhere: those of the copy are none of the original's."""
        shell = 'mount -t tmpfs tmpfs "$0" && exec "$@"'
        return subprocess.Popen(
            [*self.namespace.prefix, "unshare", "--mount", "--propagation", "private", "sh", "-c", shell, self.stage.folder, *command], **options)

    def end(self):
        self.stage.finish_all()
        self.stage.server.stop()

    def close(self):
        if self.stage.server.process and self.stage.server.process.poll() is None:
            self.stage.kill()
        for mount in (self.copy, self.mount, self.outer.mount):
            self.namespace.run("umount", "-l", mount, check=False)
        self.namespace.close()


def in_namespace(server, namespace):
    """`longshore env` has to see the data directory, too."""
    server.longshore = lambda command, *arguments, **options: harness.run(
        [*namespace.prefix, harness.LONGSHORE, command, *arguments, "--data-dir", server.data_dir],
        harness.plain_environment(server.home), **options)
