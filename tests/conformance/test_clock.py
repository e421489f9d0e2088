"""The wall clock jumps while a job runs, and nothing changes but printed dates (X13).

With Debian's libfaketime, under the server alone: the monotonic clock is left as it is. One server and one job see all the jumps, a
kill among them; signatures alone follow the wall clock, so that the clients' dates are moved along.
"""

import collections
import glob
import platform
import random
import time

import pytest

import audit
import crashes
import harness
import test_failpoints

LIBRARY = f"/usr/lib/{platform.machine()}-linux-gnu/faketime/libfaketimeMT.so.1"
# Each for a moment of the job: an hour and two days in both directions, ten years, the epoch, and the end of 32 bits.
JUMPS = ["+1h", "-1h", "+2d", "-2d", "+10y", "@1970-01-02 00:00:00", "@2038-01-19 03:14:05", "back and back"]


def test_a_wall_clock_that_jumps_changes_nothing_but_printed_dates(tmp_path, capsys):
    if not glob.glob(LIBRARY):
        pytest.skip(f"{LIBRARY} is missing (Debian package libfaketime)")
    offset = tmp_path / "offset"
    offset.write_text("+0\n")
    one = crashes.Stage(tmp_path / "stage", random.Random(test_failpoints.seed()), rows=1200, environment={
        "LD_PRELOAD": LIBRARY, "FAKETIME_TIMESTAMP_FILE": str(offset), "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"})
    one.start().prepare()
    one.keep_busy()

    def jump(to):
        # Whole or not at all: the library reads it at each look at the clock.
        (tmp_path / "next").write_text(to + "\n")
        (tmp_path / "next").rename(offset)

    jumps, progress = collections.Counter(), []
    for to in JUMPS:
        harness.wait_for("an invocation", lambda: one.log.in_flight(one.long) > 0, 30)
        before = len(one.log.of(one.long))
        if to == "back and back":
            for second in range(8):
                jump(f"-{60 + second}")
                time.sleep(0.05)
        else:
            jump(to)
        # No request is signed for that time, and none is needed: the function's own log says that the job goes on.
        harness.wait_for(f"invocations after the clock went to {to}", lambda: len(one.log.of(one.long)) >= before + 20, 30)
        progress.append(len(one.log.of(one.long)) - before)
        if to == "+2d":
            one.kill()
            one.cut_off()
            jump("+0")
            one.start()
        jumps[to] += 1
    jump("+0")
    # A moment's cache of the clock in a client's connection must not refuse the next request.
    one.finish_all()
    one.small_job()
    one.cancelled_job()
    one.server.stop()
    assert "panicked at" not in one.server.said()
    with capsys.disabled():
        print(f"\n    {sum(jumps.values())} jumps of the wall clock, at least {min(progress)} invocations between two of them")
