"""Power cuts: a file system that loses all that was not synced, under a server with invocations in flight.

What was acknowledged before a cut is there after it, counts do not go down, and in the end every row is reported once. For root with
loop devices; `qa/long power` goes on where this stops, on XFS and with images copied at any moment, too.
"""

import random

import pytest

import disks
import powers
import test_failpoints

CUTS = 30


def test_power_cuts_take_back_nothing_that_was_acknowledged(tmp_path, capsys):
    reason = disks.missing("mkfs.ext4", "xfs_io", "losetup", "unshare", "nsenter")
    if reason:
        pytest.skip(reason)
    number = test_failpoints.seed()
    lane = powers.Cuts(tmp_path, random.Random(number), "ext4")
    try:
        lane.begin()
        for _ in range(CUTS):
            lane.cut()
        lane.end()
    finally:
        lane.close()
    counted = lane.counted
    with capsys.disabled():
        print(f"\n    seed {number}: {counted['cuts']} power cuts, {counted['cuts_in_flight']} with invocations in flight; "
              f"{counted['objects']} objects and {counted['jobs_kept']} jobs had been acknowledged just before; "
              f"{lane.stage.counted['jobs']} jobs with {lane.stage.counted['rows']} rows audited")
    assert counted["cuts_in_flight"] >= CUTS * 2 // 3
