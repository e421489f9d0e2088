#!/usr/bin/env python3
"""Measures a job through the embedded function host: tasks a second, CPU a task (ours and the functions', apart), peak
memory of the server, time to the first invocation. A fresh server and data directory for every round; a figure counts
only if the report has every row once.

With --floor DIR (a folder with engine_floor.rs, stub_server.rs and the peers' scripts) these run in the same rounds: the
bare floor with the same handler; the handler in a plain multiprocessing pool; a boto3 thread pool that invokes a stub (its
target costs next to nothing, ours runs real functions); with --ministack BINARY the container-free AWS emulator's
Distributed Map. Ratios are medians of those within each round.

    cargo xtask bench [--tasks 20000] [--rounds 3] [--environments 4] [--client own|awslambdaric|bare] [--floor DIR] [--ministack BINARY]
"""
import argparse, json, os, re, shutil, statistics, subprocess, sys, tempfile

from measure import BINARY, HANDLER, TOOLS, Rows, Server, built, interpreters, package, plain, run_job


def log_bytes(data_dir):
    """Bytes in the result logs."""
    found = (os.path.join(d, f) for d, _, files in os.walk(data_dir) for f in files if f.endswith(".seg"))
    return sum(os.path.getsize(path) for path in found)


def ours(a, work):
    rows = Rows(a.tasks)
    with Server(work, f"[functions]\nenvironments_max = {a.environments}\n" + interpreters(), a.binary) as server:
        # The functions' first calls are in it: they tell when they came.
        server.deploy("f", *package(a.client, HANDLER))
        got = run_job(server, "f", "m.csv", rows.put(server, "m.csv"), rows)
        got["log_bytes"] = log_bytes(server.data) / a.tasks
    return {"name": f"longshore, {a.client} client", **{k: v for k, v in got.items() if k not in ("job", "audited")}}


def floor(a, work):
    """The bare engine over the bare Runtime API, with the same handler and the lean client that stands beside it."""
    manifest = rows_file(work, a.tasks)
    client = [sys.executable, os.path.join(a.floor, "fn/lean_bootstrap.py")]
    if a.client == "bare":
        client = [os.path.join(TOOLS, "runtime_api_ceiling"), "client"]
    elif a.client == "awslambdaric":
        client = [sys.executable, "-m", "awslambdaric", "handler.handler"]
    env = dict(os.environ, LAMBDA_TASK_ROOT=os.path.join(a.floor, "fn"))
    p = subprocess.run([os.path.join(TOOLS, "engine_floor"), "host", manifest, os.path.join(work, "r.csv"),
                        str(a.environments), "--", *client], env=env, cwd=os.path.join(a.floor, "fn"), text=True,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    found = re.search(r"^\{.*\}$", p.stdout, re.M)
    if p.returncode != 0 or not found:
        sys.exit(f"the floor failed: {p.stdout[-2000:]}")
    told = json.loads(found.group(0))
    assert told["rows"] == a.tasks and told["failed"] == 0, told
    return {"name": f"engine_floor host, {'lean' if a.client == 'own' else a.client} client",
            "tasks_per_s": told["rows_per_s"], "own_us": told["own_cpu_us"], "functions_us": told["clients_cpu_us"],
            "rss_mb": told["peak_rss_mb"], "first_ms": told["first_invocation_ms"]}


def measured(a, name, tasks, command):
    """A peer as a whole process, by measure.py of the same folder."""
    p = subprocess.run([sys.executable, os.path.join(a.floor, "measure.py"), "--tasks", str(tasks), "--", *command],
                       stdout=subprocess.PIPE, text=True)
    told = [json.loads(line) for line in p.stdout.splitlines() if line.startswith("{") and "tasks_per_s" in line]
    if p.returncode != 0 or not told:
        sys.exit(f"{name} failed: {p.stdout[-2000:]}")
    return {"name": name, "tasks_per_s": told[-1]["tasks_per_s"], "own_us": told[-1]["cpu_us_per_task"],
            "rss_mb": told[-1]["peak_rss_mb"]}


def rows_file(work, tasks):
    return Rows(tasks).file(os.path.join(work, f"rows-{tasks}.csv"))


def direct(a, work):
    script = os.path.join(a.floor, "peer_direct_mp.py")
    handler = os.path.join(a.floor, "fn/handler.py") + ":handler"
    return measured(a, "no Lambda: multiprocessing pool", a.tasks,
                    [sys.executable, script, rows_file(work, a.tasks), os.path.join(work, "d.csv"), "--handler", handler])


def boto3_script(a, work):
    tasks = min(a.tasks, 2_000)
    stub = subprocess.Popen([os.path.join(TOOLS, "stub_server"), "127.0.0.1:9917"], stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)
    try:
        command = ["env", "-i", *(f"{k}={v}" for k, v in plain().items()), sys.executable,
                   os.path.join(a.floor, "peer_boto3.py"), rows_file(work, tasks), os.path.join(work, "b.csv"),
                   "--endpoint", "http://127.0.0.1:9917"]
        return measured(a, "boto3, 16 threads, against a stub", tasks, command)
    finally:
        stub.kill()
        stub.wait()


def ministack(a, work):
    tasks = min(a.tasks, 500)
    python = os.path.join(os.path.dirname(a.ministack), "python")
    p = subprocess.run([python, os.path.join(a.floor, "peer_ministack.py"), rows_file(work, tasks), str(tasks),
                        "--concurrency", str(a.environments), "--bin", a.ministack], env=plain(), stdout=subprocess.PIPE, text=True)
    told = json.loads(p.stdout.splitlines()[-1])
    assert told["status"] == "SUCCEEDED", told
    return {"name": "ministack, Distributed Map", "tasks_per_s": told["items_per_s"], "own_us": told["server_cpu_us_per_item"]}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--tasks", type=int, default=20_000)
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--environments", type=int, default=4)
    ap.add_argument("--client", choices=["own", "awslambdaric", "bare"], default="own")
    ap.add_argument("--binary", default=BINARY, help="another build, to compare with")
    ap.add_argument("--floor", default="")
    ap.add_argument("--ministack", default="")
    ap.add_argument("--json", default="", help="append one line a run to this file")
    a = ap.parse_args()
    if a.client == "bare" and not a.floor:
        ap.error("the bare client is in the folder of --floor")
    if a.floor:
        a.floor = os.path.abspath(a.floor)
        for tool in ("engine_floor", "stub_server", "runtime_api_ceiling"):
            built(tool, os.path.join(a.floor, tool + ".rs"), lambda source, made: ["rustc", "-O", "-o", made, source])
    programs = [lambda w: ours(a, w)]
    if a.floor:
        programs += [lambda w: floor(a, w), lambda w: direct(a, w), lambda w: boto3_script(a, w)]
    if a.floor and a.ministack:
        programs += [lambda w: ministack(a, w)]
    runs = {}
    for r in range(a.rounds):
        for measure in programs:
            work = tempfile.mkdtemp(prefix="longshore-bench-")
            try:
                got = measure(work)
            finally:
                shutil.rmtree(work, ignore_errors=True)
            runs.setdefault(got["name"], []).append(got)
            line = {k: round(v, 2) if isinstance(v, float) else v for k, v in got.items()}
            print(json.dumps({"round": r, **line}), file=sys.stderr, flush=True)
            if a.json:
                with open(a.json, "a") as f:
                    f.write(json.dumps({"round": r, "tasks": a.tasks, **line}) + "\n")
    mid = lambda rows, k: statistics.median(x[k] for x in rows if k in x) if any(k in x for x in rows) else float("nan")
    print(f"{a.tasks} tasks, {a.environments} environments, {a.rounds} rounds, medians")
    print("| what | tasks/s | CPU µs a task, ours | CPU µs a task, functions | peak RSS MB | first invocation ms |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, rows in runs.items():
        print(f"| {name} | {mid(rows, 'tasks_per_s'):.0f} | {mid(rows, 'own_us'):.1f} | {mid(rows, 'functions_us'):.1f} "
              f"| {mid(rows, 'rss_mb'):.0f} | {mid(rows, 'first_ms'):.0f} |")
    mine, *others = runs.values()
    if others:
        print("\nours over each of them, medians of the ratios within each round:")
    for other in others:
        ratio = lambda k: statistics.median(x[k] / y[k] for x, y in zip(mine, other))
        print(f"- {other[0]['name']}: tasks/s {ratio('tasks_per_s'):.3g}x, own CPU {ratio('own_us'):.3g}x")


if __name__ == "__main__":
    main()
