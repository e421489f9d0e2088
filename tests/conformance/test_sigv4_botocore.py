"""What botocore signs, and what the server takes for signed, are the same: also for requests that nobody would write."""

import random

import signatures

# In CI; `qa/long signatures` makes hundreds of thousands.
COUNT = 500


def test_what_botocore_signs_is_let_in_and_a_twin_that_differs_in_one_thing_is_not(server):
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")  # pytest shows it where the test fails
    counted = signatures.Differential(server, seed).compare(COUNT)
    assert counted["signed"] == COUNT and counted["presigned"] > COUNT // 20 and counted["altered body"] > 0, counted
