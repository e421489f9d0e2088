"""The n-th sync fails: a lane for `test_sync.py` and `qa/long syncs`.

`strace` has one fsync or fdatasync of the server fail with an error of the lane's choice, or all from then on. The first failed one ends
the acknowledgements and the server, within a second and with one clear line; no request that comes after it is acknowledged, and none is tried again; and what had been acknowledged is
there when the server is started again without it (D4).
"""

import collections
import contextlib
import os
import pathlib
import re
import signal
import subprocess
import time

import crashes
import harness

ERRORS = ("EIO", "ENOSPC", "EDQUOT")
TOLD = "state could not be made durable"


def kept_to_itself(calls, index):
    """Whether this sync is SQLite's of the directory in which it made a file: it comes with the file's first; nobody is told when it fails.

    The server syncs that directory itself before it listens. A file system that could not write a directory says so ever after.
    """
    _, thread, file, _ = calls[index]
    before = [other for _, whose, other, _ in calls[:index] if whose == thread]
    last = before[-1] if before else ""
    return os.path.isdir(file) and (last.endswith("records.db-journal") or last.endswith("records.db-wal") and before.count(last) == 1)


class Failing:
    """One server whose n-th sync fails. `ever_after`: so do all that follow."""

    def __init__(self, folder, dice, number, error, ever_after):
        self.number, self.error, self.ever_after = number, error, ever_after
        self.trace = pathlib.Path(folder) / "trace"
        # No sinks: a file of events is no state of ours, and its sync may be tried again.
        self.stage = crashes.Stage(folder, dice, sinks=False, spawn=self.spawn, rows=200)
        self.counted = collections.Counter()
        # (asked, answered, what) of each request that was acknowledged and changes something; seconds since 1970, as the trace has them.
        self.acknowledged = []

    def note_acknowledgements(self):
        """Has every client note what it is told: that a thing is there, is gone, or is accepted."""
        for client in (self.stage.server.s3, self.stage.server.functions, self.stage.server.control):
            client.meta.events.register("before-call", lambda context, **_: context.__setitem__("asked", time.time()))
            client.meta.events.register("after-call", self.note)

    def note(self, model, parsed, context, **_):
        status = parsed["ResponseMetadata"]["HTTPStatusCode"]
        # An Invoke that was waited for has its answer, and leaves nothing.
        changes = status == 202 if model.name == "Invoke" else not model.name.startswith(("Get", "List", "Describe", "Head"))
        if changes and status < 300:
            self.acknowledged.append((context["asked"], time.time(), model.name))

    def spawn(self, command, **options):
        when = f"{self.number}+" if self.ever_after else str(self.number)
        if self.number:
            command = ["strace", "-f", "--seccomp-bpf", "-qq", "-ttt", "-y", "-o", str(self.trace), "-e", "trace=fsync,fdatasync,syncfs",
                       "-e", f"inject=fsync,fdatasync,syncfs:error={self.error}:when={when}", *command]
        # A group of its own: to end the tracer alone would let the server go on without it.
        return subprocess.Popen(command, start_new_session=True, **options)

    def close(self):
        if self.stage.server.process and self.stage.server.process.poll() is None:
            os.killpg(self.stage.server.process.pid, signal.SIGKILL)
            self.stage.server.process.wait()

    def run(self):
        """Returns what the failed sync was of, as the server says it."""
        stage = self.stage
        began = time.monotonic()
        try:
            stage.start()
            self.note_acknowledgements()
            stage.prepare()
            for way in (crashes.Stage.put, crashes.Stage.deploy, crashes.Stage.small_job, crashes.Stage.event, crashes.Stage.commits):
                while stage.server.process.poll() is None:
                    stage.keep_busy()
                    way(stage)
                    if way is not crashes.Stage.put or stage.server.process.poll() is not None or time.monotonic() - began > 1:
                        break
            with contextlib.suppress(subprocess.TimeoutExpired):
                stage.server.process.wait(30)
        except crashes.GONE:
            pass
        except AssertionError:
            # The server may end in its very start, too, and say so.
            if stage.server.process.poll() is None:
                raise
        status = stage.server.process.wait(10)
        said = stage.server.said()
        assert status == 1, f"the server ended with {status}:\n{said[-2000:]}"
        assert "panicked at" not in said
        self.judge_trace()
        # One clear line; what was refused because of it, and the last words of the process, repeat its reason.
        lines = [line for line in said.splitlines() if TOLD + ", stopping" in line]
        in_start = "listening on" not in said
        assert in_start or len(lines) == 1, said[-2000:]
        assert "error: " in said, said[-2000:]
        stage.cut_off()
        self.number = 0
        stage.server.environment = None
        stage.start()
        if stage.function is not None:
            stage.finish_all()
        stage.server.stop()
        return lines[0].split(TOLD)[1] if lines else said.strip().splitlines()[-1]

    def judge_trace(self):
        """After the failed sync the process ends within a second, and the file that it was of is not synced again.

        By its path: the number of a descriptor is soon another file's. A directory is synced by everybody who puts a name into
        it; what another thread has begun to sync in the moment of the failure is not acknowledged, but it is not called off.
        """
        calls, begun = [], {}
        for line in self.trace.read_text().splitlines():
            found = re.match(r"(\d+)\s+([\d.]+) (.*)", line)
            if not found:
                continue
            thread, at, call = found[1], float(found[2]), found[3]
            if sync := re.match(r"(?:fsync|fdatasync|syncfs)\(\d+<([^>]+)>", call):
                # A call that is shown in two halves has its file in the first.
                begun[thread] = sync[1]
                calls.append((at, thread, sync[1], call))
            else:
                calls.append((at, thread, begun.get(thread) if "resumed" in call else None, call))
        failed = [index for index, (*_, call) in enumerate(calls) if "(INJECTED)" in call and not kept_to_itself(calls, index)]
        assert failed, "no sync has failed: the lane has asked for one that never came"
        first_at, whose, file, _ = calls[failed[0]]
        end = max(at for at, *_ in calls)
        assert end - first_at <= 1.0, f"the server lived on for {end - first_at:.2f} s"
        # What was asked for before may have been durable by then, and its answer on the way.
        later = [(what, asked - first_at, answered - first_at) for asked, answered, what in self.acknowledged if asked > first_at]
        assert not later, f"D4: acknowledged after the sync had failed (what, asked and answered after so many s): {later}"
        self.counted["acknowledged"] += len(self.acknowledged)
        self.counted["failed"] += 1
        for _, thread, other, call in calls[failed[0] + 1:]:
            again = other == file and (thread == whose or not os.path.isdir(file))
            # SQLite makes a database with a journal, and goes back by it: there is nothing yet that was acknowledged.
            made = any((other or "").endswith("records.db-wal") for _, _, other, _ in calls[:failed[0]])
            again = again and (made or not file.endswith(("records.db", "records.db-journal")))
            assert "resumed" in call or not again, f"what failed is synced again: {call}"
