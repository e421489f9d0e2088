"""Disks without room, for `test_full.py` and `qa/long full`: bytes or inodes, on the whole data directory or one part of it.

While there is no room nothing is acknowledged that is not durable, writes are refused with 503 (or Lambda's own 500), reads are answered, and no
job fails. When there is room again, jobs go on by themselves within 30 s (D5).
"""

import collections
import contextlib
import os
import pathlib
import time

import botocore.exceptions

import crashes
import disks
import powers

# The parts of a data directory that may lie on a disk of their own; the first is all of it.
PARTS = ("", "objects", "jobs", "code", "environments", "logs")
POINTS = [(part, what) for part in PARTS for what in ("bytes", "inodes")]
# How much room there is at first.
MIB, INODES = 128, 20_000
RESUMES_WITHIN_S = 30


class Full:
    """A stage on a disk that is full for `hold` seconds. `left`: bytes, or inodes, that the filling leaves."""

    def __init__(self, folder, dice, part, what, left=0, hold=1):
        self.folder, self.dice, self.part, self.what, self.left = pathlib.Path(folder), dice, part, what, left
        self.namespace = disks.Namespace()
        data = self.folder / "data"
        self.mount = data / part if part else data
        self.mount.mkdir(parents=True, mode=0o700)
        data.chmod(0o700)
        self.namespace.run("mount", "-t", "tmpfs", "-o", f"size={MIB}m,nr_inodes={INODES},mode=0700", "tmpfs", self.mount)
        self.stage = crashes.Stage(self.folder / "stage", dice, sinks=False, data_dir=data, spawn=self.namespace.spawn, rows=1200,
            # For the environments that are killed without room for others: their tasks are tried again.
            environment={"LONGSHORE_JOBS_REDRIVE_FUNCTION_ERRORS": "5", "LONGSHORE_JOBS_RETRY_MS": "50"})
        powers.in_namespace(self.stage.server, self.namespace)
        self.hold, self.fillers = hold, []
        self.counted = collections.Counter()

    def fill(self):
        place = self.namespace.path(self.mount) / ".filler"
        place.mkdir()
        self.fillers.append(place)
        with contextlib.suppress(OSError):
            if self.what == "bytes":
                with open(place / "bytes", "wb", buffering=0) as file:
                    # Large pieces first, and then to the last byte that fits.
                    for size in (1 << 20, 4096):
                        with contextlib.suppress(OSError):
                            while True:
                                file.write(bytes(size))
            else:
                for number in range(INODES):
                    (place / str(number)).touch()
        self.leave()

    def leave(self):
        """Gives back as much as is to be left."""
        place = self.fillers[0]
        if self.what == "bytes" and self.left:
            size = (place / "bytes").stat().st_size
            os.truncate(place / "bytes", max(0, size - self.left))
        elif self.left:
            for number in range(self.left):
                (place / str(number)).unlink(missing_ok=True)

    def free(self):
        for place in self.fillers:
            for file in place.iterdir():
                file.unlink()
            place.rmdir()
        self.fillers.clear()

    def try_all(self):
        """Every kind of write, each either acknowledged, and so remembered, or refused as it should be."""
        stage = self.stage
        keys = [f"full-{next(stage.numbers)}-{row}" for row in range(crashes.SMALL)]
        for write in (stage.put, lambda: stage.put(size=100), stage.deploy, lambda: stage.job(keys, Priority=5)):
            try:
                write()
                self.counted["accepted"] += 1
            except botocore.exceptions.ClientError as refused:
                status, error = refused.response["ResponseMetadata"]["HTTPStatusCode"], refused.response["Error"]
                lambdas = refused.operation_name == "CreateFunction"
                assert status == (500 if lambdas else 503), f"D5: {refused.operation_name} was refused with {status}, {error}"
                self.counted["refused"] += 1

    def run(self):
        stage = self.stage
        stage.start().prepare()
        stage.keep_busy()
        self.fill()
        self.try_all()
        # Environments that die now need room for the next ones, and the tasks that wait for these must not fail.
        if self.part == "environments":
            stage.kill_helper()
        elif stage.log.in_flight():
            stage.kill_environment()
        until = time.monotonic() + self.hold
        while time.monotonic() < until:
            for job in list(stage.rows):
                described = stage.look(job)
                assert described["Status"] not in ("Failed", "Failing"), f"D5: {described['FailureReasons']}"
            time.sleep(0.1)
        before = self.done()
        self.try_all()
        time.sleep(0.3)
        if self.what == "bytes" and self.part in ("", "jobs"):
            assert self.done() == before, "results are counted for which there is no room"
        assert stage.server.process.poll() is None, f"D5: the server has ended:\n{stage.server.said()[-2000:]}"
        done = self.done()
        self.free()
        freed = time.monotonic()
        for job in list(stage.rows):
            self.goes_on(job, freed)
        self.counted["resumed_after_ms"] = round(1000 * (time.monotonic() - freed))
        rows = {job: list(keys) for job, keys in stage.rows.items()}
        stage.finish_all()
        stage.server.stop()
        self.counted["stood_still_at"] = done
        return rows

    def done(self):
        return sum(self.stage.look(job)["ProgressSummary"]["NumberOfTasksSucceeded"] for job in self.stage.rows)

    def goes_on(self, job, since):
        """A job that is not over makes progress, soon after there was room again."""
        first = None
        while True:
            described = self.stage.look(job)
            progress = described["ProgressSummary"]
            done = described["Status"], progress["NumberOfTasksSucceeded"] + progress["NumberOfTasksFailed"]
            first = first or done
            if described["Status"] in ("Complete", "Completing") or (done != first and done[1]):
                return
            assert time.monotonic() - since <= RESUMES_WITHIN_S, f"D5: the job stands still at {done}, {RESUMES_WITHIN_S} s after there was room"
            time.sleep(0.05)

    def close(self):
        if self.stage.server.process and self.stage.server.process.poll() is None:
            self.stage.kill()
        self.namespace.run("umount", "-l", self.mount, check=False)
        self.namespace.close()
