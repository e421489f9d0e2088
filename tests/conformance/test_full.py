"""A disk without room, in bytes or in inodes, under one part of the data directory after the other (D5).

For root: each disk is a tmpfs of a size, in a mount namespace of its own. `qa/long full` does it at every point.
"""

import random

import pytest

import disks
import fulls
import test_failpoints

POINTS = [("", "bytes"), ("", "inodes"), ("objects", "bytes"), ("jobs", "bytes"), ("code", "inodes"), ("environments", "inodes")]


@pytest.mark.parametrize("part, what", POINTS, ids=[f"{part or 'all'}-{what}" for part, what in POINTS])
def test_without_room_nothing_is_lost_and_no_job_fails_and_all_go_on_when_there_is_room_again(part, what, tmp_path, capsys):
    reason = disks.missing("unshare", "nsenter", loops=False)
    if reason:
        pytest.skip(reason)
    lane = fulls.Full(tmp_path, random.Random(test_failpoints.seed()), part, what)
    try:
        lane.run()
    finally:
        lane.close()
    counted = lane.counted
    with capsys.disabled():
        print(f"\n    {part or 'all'} without {what}: {counted['refused']} writes refused, {counted['accepted']} kept; "
              f"went on {counted['resumed_after_ms']} ms after there was room")
    # A manifest and results wait, environments come later; what is refused is what was to be acknowledged.
    assert counted["refused"] or part in ("jobs", "environments", "logs")
