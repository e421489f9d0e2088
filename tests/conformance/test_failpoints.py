"""Kills a real server at named places and at random times, while a job of 2,000 rows has invocations in flight, and audits what is left.

Which failpoint and which of its passes come from a seed, another one for each commit; it is printed, and
`LONGSHORE_TEST_CRASH_SEED=N ./check failpoint` runs the same again. `qa/long kills` goes on where this stops.
"""

import os
import random
import subprocess
import threading
import time

import pytest

import crashes
import harness

# Of each kind in the two tests of kills together; those that find nothing in flight come on top.
AT_FAILPOINTS, AT_RANDOM, DOUBLE = 44, 16, 6
KILLS = (AT_FAILPOINTS + AT_RANDOM) // 2


def seed():
    if "LONGSHORE_TEST_CRASH_SEED" in os.environ:
        return int(os.environ["LONGSHORE_TEST_CRASH_SEED"])
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=harness.ROOT, capture_output=True, text=True).stdout.strip()
    return int(head[:8] or "1", 16)


def stage_in(folder, *arguments, **options):
    return crashes.Stage(folder, *arguments, **options)


@pytest.fixture
def stage(tmp_path):
    """Makes stages; what runs at the end is stopped, and none has panicked."""
    made = []

    def make(*arguments, **options):
        made.append(stage_in(tmp_path / f"stage-{len(made)}", *arguments, **options))
        return made[-1]

    yield make
    for one in made:
        if one.server.process and one.server.process.poll() is None:
            one.kill()
        assert "panicked at" not in one.server.said()


def test_every_failpoint_is_passed(stage, tmp_path):
    """So none is a name without a place: a lane that kills there kills."""
    one, passed = stage(random.Random(1), rows=500), tmp_path / "passed"
    one.start(passed=passed).prepare()
    for way in dict.fromkeys(crashes.WAYS.values()):
        one.keep_busy()
        way(one)
    one.kill()
    one.cut_off()
    one.start(passed=passed)
    one.finish_all()
    one.server.stop()
    names, seen = crashes.failpoints(), set(passed.read_text().split())
    assert len(names) >= 60
    assert not set(names) - seen, f"never passed: {sorted(set(names) - seen)}"
    assert seen <= set(names)


def test_a_failpoint_that_does_not_exist_is_refused_and_nothing_starts(stage):
    one = stage(random.Random(1))
    for failpoint, told in [("results.sync", "there is no failpoint"), ("results.sync.after:0", "is no count")]:
        with pytest.raises(AssertionError, match=told):
            one.start(failpoint)
    one.start()
    assert "set to kill itself" not in one.server.said()


def test_a_server_that_is_killed_in_its_very_first_start_starts_the_next_time(stage):
    for failpoint in (name for name in crashes.failpoints() if name.startswith(("file.", "key.", "server."))):
        one = stage(random.Random(1), sinks=False)
        with pytest.raises(crashes.Died):
            one.start(failpoint)
        one.start()
        one.server.bucket("after")
        one.kill()


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "window"])
def test_kills_at_failpoints_and_at_random_lose_nothing_and_report_every_row_once(stage, strict, capsys):
    number = seed() + strict
    dice = random.Random(number)
    one = stage(dice, strict=strict)
    one.start().prepare()
    one.keep_busy()
    one.kill()
    one.cut_off()
    names = [name for name in crashes.failpoints() if not name.startswith(crashes.STARTING)]
    dice.shuffle(names)
    # Each half of the names in one of the two tests; the other half of the commit's seed is the next commit's.
    kills = [(name, dice.choice(crashes.of_name(crashes.COUNTS, name))) for name in names[:AT_FAILPOINTS // 2]]
    kills += [(None, 0)] * (AT_RANDOM // 2)
    dice.shuffle(kills)
    doubles = set(dice.sample(range(len(kills)), DOUBLE // 2))
    places = []
    for index, (failpoint, count) in enumerate(kills):
        counts, where = crashes.cycle(one, failpoint, count, dice)
        places.append(where if counts else f"({where})")
        if not counts and len(kills) < 2 * KILLS:
            # Nothing was in flight: another one takes its place.
            kills.append((dice.choice(names), 1) if failpoint else (None, 0))
        if index in doubles:
            crashes.double(one, dice)
    one.start()
    one.finish_all()
    one.server.stop()
    counted = one.counted
    with capsys.disabled():
        print(f"\n    seed {number}: {counted['kills']} kills, {counted['kills_in_flight']} with invocations in flight, of them "
              f"{counted['kills_at_failpoints']} at failpoints; {counted['kills_in_recovery']} more during recovery; "
              f"{counted['jobs']} jobs with {counted['rows']} rows audited, {one.watch.looks} looks at counts")
    assert counted["kills_in_flight"] >= KILLS, places
    assert counted["kills_at_failpoints"] >= AT_FAILPOINTS // 2 * 2 // 3, places


def test_environments_and_their_helper_may_be_killed_while_the_server_lives(stage, capsys):
    """A task whose environment is killed is tried again where that is asked for; nobody else notices."""
    dice = random.Random(seed())
    one = stage(dice, rows=600, environment={"LONGSHORE_JOBS_REDRIVE_FUNCTION_ERRORS": "5", "LONGSHORE_JOBS_RETRY_MS": "50"})
    one.start().prepare()
    cut = helpers = 0
    one.keep_busy()
    while cut < 8 or helpers < 2:
        time.sleep(dice.uniform(0.02, 0.1))
        harness.wait_for("an invocation", lambda: one.log.in_flight(one.long) > 0, 30)
        if cut >= 4 * (helpers + 1) and helpers < 2:
            helpers += one.kill_helper() > 0
        else:
            cut += one.kill_environment()
    one.finish_all()
    one.server.stop()
    with capsys.disabled():
        print(f"\n    {cut} environments and {helpers} helpers were killed in the middle of invocations")
