"""The long lanes. See qa/long."""

import argparse, collections, json, os, pathlib, random, re, resource, shutil, subprocess, sys, tempfile, time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/conformance"))
LEDGER = ROOT / "qa/ledger.jsonl"


def sh(*command, check=True):
    return subprocess.run([str(c) for c in command], check=check, capture_output=True, text=True)


def simulation(until):
    """Seeds by the thousand, of the core alone and of the whole engine; a failure prints the line that replays it.

    What is counted of the whole engine is named `worlds` or begins with `world_`; of worlds on a disk, `disk_`.
    """
    counted = collections.Counter()
    while time.monotonic() < until:
        first = random.SystemRandom().randrange(1 << 48)
        for test, laws, seeds, names in (
                ("simulation", "the_laws_hold_in_every_world", 1_000, ("seeds", "seeds_counted", "events", "fault_")),
                ("worlds", "the_laws_hold_in_every_world", 2_000, ("worlds", "worlds_counted", "world_events", "world_fault_")),
                ("worlds", "worlds_on_a_disk", 1_000, ("disk_worlds", "disk_worlds_counted", "disk_world_events", "disk_fault_"))):
            env = dict(os.environ, SIM_FIRST=str(first), SIM_SEEDS=str(seeds))
            done = subprocess.run(["cargo", "test", "--quiet", "--release", "--package", "longshore-tests", "--test", test,
                                   laws, "--", "--nocapture"], cwd=ROOT, env=env, capture_output=True, text=True)
            said = re.search(r"(\d+) seeds from \d+, (\d+) with a crash while work was in flight, (\d+) events: \{(.*)\}", done.stdout)
            if done.returncode != 0 or not said:
                print(done.stdout[-3000:], done.stderr[-3000:], file=sys.stderr)
                # Of worlds each one that broke a law is told.
                counted["failures"] += max(1, len(re.findall("^replay: ", done.stdout, re.M)))
            if said:
                for name, number in zip(names[:3], said.groups()):
                    counted[name] += int(number)
                counted.update({f"{names[3]}{name}": int(n) for name, n in re.findall(r"(\w+): (\d+)", said[4])})
    return counted


def kills(until):
    """kill -9 of the real server at failpoints, at random times, and while it recovers, each time with another seed.

    Half of the stages are strict, half have a small W. The ledger has how many kills found invocations in flight,
    which are those that count, and how many there were at each failpoint.
    """
    import crashes

    counted = collections.Counter()
    names = [name for name in crashes.failpoints() if not name.startswith(crashes.STARTING)]
    turn = 0
    while time.monotonic() < until:
        seed = random.SystemRandom().randrange(1 << 32)
        dice = random.Random(seed)
        work = pathlib.Path(tempfile.mkdtemp(prefix="longshore-kills-"))
        stage = crashes.Stage(work, dice, strict=turn % 2 == 0)
        turn += 1
        try:
            stage.start().prepare()
            stage.keep_busy()
            stage.kill()
            stage.cut_off()
            for number in range(40):
                if time.monotonic() >= until:
                    break
                failpoint = dice.choice(names) if dice.random() < 0.7 else None
                count = dice.choice(crashes.of_name(crashes.COUNTS, failpoint)) if failpoint else 0
                counts, where = crashes.cycle(stage, failpoint, count, dice)
                counted[f"at_{where}"] += counts and "not reached" not in where
                if number % 6 == 0:
                    crashes.double(stage, dice)
            stage.start()
            stage.finish_all()
            stage.server.stop()
            assert "panicked at" not in stage.server.said()
        # Whatever it is: what was lost may show as an answer of the server, which a client makes an exception of its own of.
        except Exception as wrong:
            print(f"FAILED, seed {seed}: {wrong!r}; see {work}", file=sys.stderr)
            counted["failures"] += 1
            if stage.server.process.poll() is None:
                stage.kill()
        else:
            shutil.rmtree(work)
        for name in ("kills", "kills_in_flight", "kills_at_failpoints", "kills_in_recovery", "jobs", "rows"):
            counted[name] += stage.counted[name]
        counted["looks"] += stage.watch.looks
    at = {name.removeprefix("at_"): counted.pop(name) for name in sorted(counted) if name.startswith("at_")}
    counted["at"] = {name: times for name, times in at.items() if times}
    return counted


def peers(until):
    """The tests of other stores on every server that is installed, and the engine's door to them; once, and again till then."""
    import peers as stores

    counted = collections.Counter()
    while True:
        env = dict(os.environ, LONGSHORE_TEST_PEERS=",".join(stores.PEERS), PYTHONDONTWRITEBYTECODE="1")
        done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-c", "tests/conformance/pytest.ini",
                               "tests/conformance/test_remote.py"], cwd=ROOT, env=env, capture_output=True, text=True)
        print(done.stdout[-3000:] if done.returncode else done.stdout.splitlines()[-1], file=sys.stderr)
        for number, what in re.findall(r"(\d+) (passed|failed|skipped|error)", done.stdout.splitlines()[-1]):
            counted[f"tests_{what}"] += int(number)
        counted["failures"] += done.returncode != 0
        for name, kind in stores.PEERS.items():
            if kind.missing():
                print(f"SKIPPED {name}: {kind.missing()}", file=sys.stderr)
                counted["peers_missing"] += 1
                continue
            with tempfile.TemporaryDirectory() as folder:
                store = kind(folder)
                try:
                    store.start()
                    place = f"{store.url} {store.access_key} {store.secret_key}"
                    done = subprocess.run(["cargo", "test", "--quiet", "--release", "--package", "longshore-aws", "--", "--ignored"],
                                          cwd=ROOT, env=dict(os.environ, LONGSHORE_TEST_STORE=place), capture_output=True, text=True)
                finally:
                    store.stop()
            counted[f"doors_{name}"] += done.returncode == 0
            if done.returncode != 0:
                print(f"{name}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}", file=sys.stderr)
                counted["failures"] += 1
        if time.monotonic() >= until:
            return counted


def faults(until):
    """Ten thousand random faults against the function host, from another seed each time; once, and again till then."""
    counted = collections.Counter()
    while True:
        seed = random.SystemRandom().randrange(1 << 32)
        env = dict(os.environ, FAULT_SEED=str(seed), FAULTS="10000", FAULT_KILLS="10")
        done = subprocess.run(["cargo", "test", "--quiet", "--release", "--package", "longshore-functions", "--test", "faults",
                               "--", "--nocapture"], cwd=ROOT, env=env, capture_output=True, text=True)
        said = re.search(r"(\d+) calls and (\d+) faults in ([\d.]+) s, .*; (\d+) killed, (\d+) stopped; \{(.*)\}", done.stdout)
        if done.returncode != 0 or not said:
            print(f"seed {seed}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}", file=sys.stderr)
            counted["failures"] += 1
        else:
            print(said[0], file=sys.stderr)
            counted["calls"] += int(said[1])
            counted["faults"] += int(said[2])
            counted["environments_killed"] += int(said[4])
            counted["environments_stopped"] += int(said[5])
            counted["servers_killed"] += 10
        if time.monotonic() >= until:
            return counted


def runtimes(until):
    """The questions of `test_runtime_api.py` to AWS's client for Node, which is built here from npm's package.

    Its native part needs a C++ compiler, cmake, autoconf, automake and libtool. Set up once, under target/runtimes/node.
    """
    for tool in ("npm", "node", "cmake", "autoconf", "automake", "libtoolize", "c++"):
        if not shutil.which(tool):
            sys.exit(f"SKIPPED: {tool} is missing (Debian packages nodejs, npm, cmake, autoconf, automake, libtool, g++)")
    folder = ROOT / "target/runtimes/node"
    client, built = folder / "node_modules/aws-lambda-ric", folder / "built"
    if not built.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        subprocess.run(["npm", "install", "--prefix", folder, "--ignore-scripts", "--no-fund", "--no-audit", "aws-lambda-ric@3.3.0"], check=True)
        # By hand: newer versions of npm run no scripts of packages, older ones do not ask.
        env = dict(os.environ, PATH=f"{folder / 'node_modules/.bin'}:{os.environ['PATH']}")
        for script in ("preinstall.sh", "postinstall.sh"):
            done = subprocess.run([client / "scripts" / script], cwd=client, env=env, capture_output=True, text=True)
            if done.returncode != 0:
                sys.exit(f"{script} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        built.touch()
    counted = collections.Counter()
    while True:
        env = dict(os.environ, LONGSHORE_TEST_NODE_CLIENT=str(client), PYTHONDONTWRITEBYTECODE="1")
        done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-rs", "-c", "tests/conformance/pytest.ini",
                               "tests/conformance/test_runtime_api.py", "-k", "stock or client"], cwd=ROOT, env=env, capture_output=True, text=True)
        print(done.stdout[-6000:] if done.returncode else done.stdout.splitlines()[-1], file=sys.stderr)
        for number, what in re.findall(r"(\d+) (passed|failed|skipped|error)", done.stdout.splitlines()[-1]):
            counted[f"tests_{what}"] += int(number)
        counted["failures"] += done.returncode != 0
        if time.monotonic() >= until:
            return counted


def in_turns(until, name, make, turns):
    """Runs lanes one after the other, each in a folder of its own: `make(folder, dice, turn)` gives one with `begin`, `turn`, `end`
    and `close`. What it counted is added up; a failure is printed with its seed, and leaves its folder.
    """
    counted = collections.Counter()
    turn = 0
    while time.monotonic() < until:
        seed = random.SystemRandom().randrange(1 << 32)
        work = pathlib.Path(tempfile.mkdtemp(prefix=f"longshore-{name}-"))
        lane = make(work, random.Random(seed), turn)
        turn += 1
        try:
            for _ in turns(lane):
                if time.monotonic() >= until:
                    break
        except Exception as wrong:
            print(f"FAILED, seed {seed}: {wrong!r}; see {work}", file=sys.stderr)
            counted["failures"] += 1
            lane.close()
        else:
            lane.close()
            shutil.rmtree(work)
        counted.update(lane.counted)
    return counted


def power(until):
    """Power cuts, on ext4 and XFS in turns, and in every third turn images that are copied while the server works on.

    Acknowledged objects, functions and jobs and the counts that were shown are there afterwards; each report has every row once.
    """
    import disks
    import powers

    if reason := disks.missing():
        sys.exit(f"SKIPPED: {reason}")

    def make(folder, dice, turn):
        kind = ("ext4", "xfs", None)[turn % 3]
        return powers.Cuts(folder, dice, kind) if kind else powers.Images(folder, dice)

    def turns(lane):
        lane.begin()
        for _ in range(25):
            yield lane.cut()
        lane.end()

    return in_turns(until, "power", make, turns)


def syncs(until):
    """The n-th sync fails, n from 1 to 300, with each error, once and ever after. Goes on where the ledger says that it stopped."""
    import syncs as lanes

    if shutil.which("strace") is None:
        sys.exit("SKIPPED: strace is missing (Debian package strace)")
    kinds = [(n, error, ever) for n in range(1, 301) for error in lanes.ERRORS for ever in (False, True)]
    done = sum(json.loads(line).get("failed", 0) for line in open(LEDGER) if '"lane": "syncs"' in line)

    def make(folder, dice, turn):
        # In another order than one by one, so that a short run goes over all of it.
        number, error, ever = kinds[(done + turn) * 7919 % len(kinds)]
        return lanes.Failing(folder, dice, number, error, ever)

    return in_turns(until, "syncs", make, lambda lane: [print(lane.number, lane.error, lane.run(), file=sys.stderr)])


def full(until):
    """No room, at each part of the data directory, for bytes and for inodes, with some left or none, for up to half a minute."""
    import disks
    import fulls

    if reason := disks.missing("unshare", "nsenter", loops=False):
        sys.exit(f"SKIPPED: {reason}")

    def make(folder, dice, turn):
        part, what = fulls.POINTS[turn % len(fulls.POINTS)]
        left = dice.choice([0, 0, dice.randrange(1, 200_000 if what == "bytes" else 20)])
        return fulls.Full(folder, dice, part, what, left, hold=dice.choice([1, 5, 30]))

    def turns(lane):
        lane.run()
        lane.counted["points"] += 1
        # Neither adds up.
        del lane.counted["resumed_after_ms"], lane.counted["stood_still_at"]
        yield

    return in_turns(until, "full", make, turns)


def signatures(until):
    """Requests that botocore signs, each let in, and for each a twin that differs in one thing and is refused."""
    import harness
    import signatures as differential

    counted = collections.Counter()
    with tempfile.TemporaryDirectory(prefix="longshore-signatures-") as folder:
        server = harness.Server(folder).start()
        try:
            while time.monotonic() < until:
                seed = random.SystemRandom().randrange(1 << 32)
                lane = differential.Differential(server, seed)
                try:
                    lane.compare(1_000)
                except AssertionError as wrong:
                    print(f"FAILED, seed {seed}: {wrong}", file=sys.stderr)
                    counted["failures"] += 1
                counted.update(lane.counted)
        finally:
            server.stop()
        counted["failures"] += "panicked at" in server.said()
    return counted


LANES = {"simulation": simulation, "kills": kills, "peers": peers, "faults": faults, "runtimes": runtimes, "power": power,
         "syncs": syncs, "full": full, "signatures": signatures}


def main():
    ap = argparse.ArgumentParser(description="Runs a long lane and counts it in qa/ledger.jsonl.")
    ap.add_argument("lane", choices=list(LANES))
    ap.add_argument("--minutes", type=float, default=10)
    a = ap.parse_args()
    began = time.monotonic()
    counted = LANES[a.lane](began + 60 * a.minutes)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    commit = sh("git", "-C", ROOT, "rev-parse", "--short=12", "HEAD").stdout.strip()
    line = {"commit": commit, "lane": a.lane, **counted, "failures": counted.get("failures", 0),
            "cpu_s": round(used.ru_utime + used.ru_stime), "wall_s": round(time.monotonic() - began)}
    with open(LEDGER, "a") as ledger:
        ledger.write(json.dumps(line) + "\n")
    print(json.dumps(line))
    sys.exit(1 if counted.get("failures") else 0)


if __name__ == "__main__":
    main()
