"""The long lanes. See qa/long."""

import argparse, collections, json, os, pathlib, random, re, resource, shutil, subprocess, sys, tempfile, textwrap, time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/conformance"))
LEDGER = ROOT / "qa/ledger.jsonl"


def sh(*command, check=True):
    return subprocess.run([str(c) for c in command], check=check, capture_output=True, text=True)


def simulation(until):
    """Seeds by the thousand; a failure prints the line that replays it."""
    counted = collections.Counter()
    while time.monotonic() < until:
        first = random.SystemRandom().randrange(1 << 48)
        env = dict(os.environ, SIM_FIRST=str(first), SIM_SEEDS="1000")
        done = subprocess.run(["cargo", "test", "--quiet", "--release", "--package", "longshore-tests", "--test", "simulation",
                               "the_laws_hold_in_every_world", "--", "--nocapture"], cwd=ROOT, env=env, capture_output=True, text=True)
        said = re.search(r"(\d+) seeds from \d+, (\d+) with a crash while work was in flight, (\d+) events: \{(.*)\}", done.stdout)
        if done.returncode != 0 or not said:
            print(done.stdout[-3000:], done.stderr[-3000:], file=sys.stderr)
            counted["failures"] += 1
            continue
        counted["seeds"] += int(said[1])
        counted["seeds_counted"] += int(said[2])
        counted["events"] += int(said[3])
        counted.update({f"fault_{name}": int(n) for name, n in re.findall(r"(\w+): (\d+)", said[4])})
    return counted


def kills(until):
    """kill -9 of the real server at failpoints, at random times, and while it recovers, each time with another seed.

    Half of the stages are strict, half have the first settings. The ledger has how many kills found invocations in flight,
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
        except (AssertionError, crashes.Died) as wrong:
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


def power(until):
    """A file system is shut down under the stopped server, which loses everything that was not synced.

    Without the SIGSTOP a sync that races with the shutdown may return success: a false alarm. Acknowledged objects and
    the counts that were shown are there afterwards; the report has every row once.
    """
    import harness

    for tool in ("mkfs.ext4", "xfs_io", "losetup"):
        if not shutil.which(tool):
            sys.exit(f"SKIPPED: {tool} is missing (Debian packages e2fsprogs, xfsprogs, mount)")
    if os.geteuid() != 0:
        sys.exit("SKIPPED: mounting needs root")
    counted = collections.Counter()
    handler = textwrap.dedent("""
        import time
        def handler(event, context):
            task = event["tasks"][0]
            time.sleep(0.01)
            return {"invocationSchemaVersion": "1.0", "invocationId": event["invocationId"], "results": [
                {"taskId": task["taskId"], "resultCode": "Succeeded", "resultString": task["s3Key"]}]}
    """)
    while time.monotonic() < until:
        dice = random.Random(random.SystemRandom().randrange(1 << 32))
        work = pathlib.Path(tempfile.mkdtemp(prefix="longshore-power-"))
        image, mount = work / "disk.img", work / "disk"
        mount.mkdir()
        sh("truncate", "-s", "400M", image)
        sh("mkfs.ext4", "-q", image)
        sh("mount", "-o", "loop", image, mount)
        server = harness.Server(work / "server")
        server.data_dir = mount / "data"
        try:
            server.start()
            bucket = server.bucket("power")
            function = server.deploy("f", handler)
            rows = [(bucket, f"key-{row:05}") for row in range(2_000)]
            job = server.create_job(bucket, function, server.put_manifest(bucket, rows))
            for cut in range(6):
                time.sleep(dice.uniform(0.05, 0.6))
                kept = {f"kept-{cut}-{n}": os.urandom(dice.choice([10, 5_000, 40_000])) for n in range(dice.randrange(1, 4))}
                for key, body in kept.items():
                    server.s3.put_object(Bucket=bucket, Key=key, Body=body)
                shown = server.describe(job)["ProgressSummary"]["NumberOfTasksSucceeded"]
                stop_all_threads(server.process.pid)
                sh("xfs_io", "-x", "-c", "shutdown", mount)
                server.kill()
                unmount(mount)
                sh("mount", "-o", "loop", image, mount)
                server.start()
                counted["cuts"] += 1
                for key, body in kept.items():
                    assert server.s3.get_object(Bucket=bucket, Key=key)["Body"].read() == body, f"{key} is not as acknowledged"
                after = server.describe(job)["ProgressSummary"]["NumberOfTasksSucceeded"]
                assert after >= shown, f"{shown} results were shown, {after} are there"
                counted["cuts_with_the_job_running"] += server.describe(job)["Status"] == "Active"
            server.wait(job, timeout=240)
            harness.audit(server, job, rows)
            counted["jobs"] += 1
            server.stop()
        except AssertionError as wrong:
            print(f"FAILED: {wrong}; what the server said: {server.output}", file=sys.stderr)
            counted["failures"] += 1
            server.kill()
            unmount(mount)
            continue
        unmount(mount)
        shutil.rmtree(work)
    return counted


def stop_all_threads(pid):
    os.kill(pid, 19)
    deadline = time.monotonic() + 10
    while True:
        states = [open(f"/proc/{pid}/task/{task}/stat").read().rsplit(")", 1)[1].split()[0] for task in os.listdir(f"/proc/{pid}/task")]
        if set(states) == {"T"}:
            return
        assert time.monotonic() < deadline, states


def unmount(mount):
    """The functions of the killed server hold the file system for the moment that they take to die."""
    deadline = time.monotonic() + 20
    while sh("umount", mount, check=False).returncode != 0:
        assert time.monotonic() < deadline, sh("fuser", "-vm", mount, check=False).stderr
        time.sleep(0.05)


LANES = {"simulation": simulation, "kills": kills, "peers": peers, "faults": faults, "runtimes": runtimes, "power": power}


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
