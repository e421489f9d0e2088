"""The n-th sync of a server fails, of whatever file, with any error: it stops, and what it had acknowledged is there (D4).

With `strace`. `qa/long syncs` does it for every n up to 300.
"""

import random
import shutil

import pytest

import syncs
import test_failpoints

# Syncs of a first start, of what is put and deployed first, and of a job that runs.
RUNS = 12
NUMBERS = (1, 160)


def test_the_first_sync_that_fails_stops_the_server_and_what_was_acknowledged_is_there(tmp_path, capsys):
    if shutil.which("strace") is None:
        pytest.skip("strace is missing (Debian package strace)")
    number = test_failpoints.seed()
    dice = random.Random(number)
    told, acknowledged = [], 0
    for run in range(RUNS):
        which = dice.randrange(*NUMBERS)
        error, ever_after = syncs.ERRORS[run % 3], dice.random() < 0.5
        lane = syncs.Failing(tmp_path / str(run), dice, which, error, ever_after)
        try:
            told.append(f"{which}{'+' if ever_after else ''} {error}{lane.run()}")
            acknowledged += lane.counted["acknowledged"]
        finally:
            lane.close()
    assert acknowledged > RUNS, "hardly anything was acknowledged before a sync failed: the lane shows nothing"
    with capsys.disabled():
        print(f"\n    seed {number}, {acknowledged} acknowledged before: " + "\n        ".join(told))


# What SQLite makes and syncs in its own way: the database, its journal, its log, and the directory.
MAKING = range(3, 17)


def test_a_sync_that_fails_while_the_records_are_made_ends_the_start(tmp_path):
    if shutil.which("strace") is None:
        pytest.skip("strace is missing (Debian package strace)")
    for number in MAKING:
        lane = syncs.Failing(tmp_path / str(number), random.Random(number), number, syncs.ERRORS[number % 3], ever_after=False)
        try:
            lane.run()
        finally:
            lane.close()
