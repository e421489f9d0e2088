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
import argparse, csv, hashlib, io, json, os, re, resource, shlex, shutil, signal, statistics, subprocess, sys, sysconfig
import tempfile, time, zipfile

import boto3
from botocore.config import Config

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BINARY = os.path.join(ROOT, "target/release/longshore")
TICK = os.sysconf("SC_CLK_TCK")
HANDLER = '''
import time
called = False
def handler(event, context):
    # The first call of each process tells its time, which is then in the report: a function has no other way out.
    global called
    told, called = ("ok" if called else str(time.time())), True
    t = event["tasks"][0]
    return {"invocationSchemaVersion": "1.0", "treatMissingKeysAs": "PermanentFailure",
            "invocationId": event["invocationId"],
            "results": [{"taskId": t["taskId"], "resultCode": "Succeeded", "resultString": told}]}
'''


def cpu_us(pid):
    """User and system time of one living process, without its children, in microseconds."""
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * 1_000_000 // TICK


def descendants(pid):
    out, todo = [], [pid]
    while todo:
        p = todo.pop()
        for task in os.listdir(f"/proc/{p}/task"):
            try:
                with open(f"/proc/{p}/task/{task}/children") as f:
                    children = [int(c) for c in f.read().split()]
            except FileNotFoundError:
                continue
            out += children
            todo += children
    return out


def status(pid, name):
    with open(f"/proc/{pid}/status") as f:
        return int(re.search(rf"^{name}:\s+(\d+)", f.read(), re.M).group(1))


def log_bytes(data_dir):
    """Bytes in the result logs."""
    found = (os.path.join(d, f) for d, _, files in os.walk(data_dir) for f in files if f.endswith(".seg"))
    return sum(os.path.getsize(path) for path in found)


def package(client, tools):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        if client == "bare":
            with open(os.path.join(tools, "runtime_api_ceiling"), "rb") as f:
                put_program(z, "client", f.read())
            put_program(z, "bootstrap", '#!/bin/sh\nexec "$LAMBDA_TASK_ROOT/client" client\n')
        else:
            z.writestr("handler.py", HANDLER)
        if client == "awslambdaric":
            # Inside the package, as its users have it: a sandboxed function sees nothing of this folder.
            site = sysconfig.get_path("platlib")
            for name in sorted(os.listdir(site)):
                if name.split("-")[0].split(".")[0] in ("awslambdaric", "runtime_client", "simplejson", "snapshot_restore_py"):
                    for path in sorted(files_of(os.path.join(site, name))):
                        z.write(path, os.path.relpath(path, site))
            put_program(z, "bootstrap", f"#!/bin/sh\nPYTHONPATH=$LAMBDA_TASK_ROOT exec {os.path.realpath(sys.executable)} -m awslambdaric handler.handler\n")
    return out.getvalue()


def put_program(z, name, content):
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o755 << 16
    z.writestr(info, content)


def files_of(path):
    if os.path.isfile(path):
        return [path]
    return [os.path.join(d, f) for d, _, files in os.walk(path) for f in files if "__pycache__" not in d]


def ours(a, work, tools):
    data = os.path.join(work, "data")
    with open(os.path.join(work, "longshore.toml"), "w") as f:
        # The interpreter of a bootstrap is the package's own affair; this one is shown to it where it lies.
        prefix = json.dumps(os.path.dirname(os.path.dirname(os.path.realpath(sys.executable))))
        f.write(f"[functions]\nenvironments_max = {a.environments}\nsandbox_paths = [{prefix}]\n")
    server = subprocess.Popen([a.binary, "serve", "--data-dir", data, "--listen", "127.0.0.1:0", "--config", f.name],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        for line in server.stdout:
            if "listening on" in line:
                break
        else:
            sys.exit(f"the server did not start: {a}")
        env = subprocess.check_output([a.binary, "env", "--data-dir", data], text=True)
        for name, value in re.findall(r"^export (\w+)=(.*)$", env, re.M):
            os.environ[name] = shlex.split(value)[0] if value else ""
        config = Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1})
        # A session of its own: the default one remembers the credentials of the last round.
        session = boto3.Session()
        client = lambda name: session.client(name, config=config)
        s3, functions, control = client("s3"), client("lambda"), client("s3control")
        account = os.environ.get("AWS_ACCOUNT_ID", "000000000000")
        role = f"arn:aws:iam::{account}:role/bench"
        s3.create_bucket(Bucket="bench")
        runtime = "python3.11" if a.client == "own" else "provided.al2023"
        functions.create_function(FunctionName="f", Runtime=runtime, Role=role, Handler="handler.handler", Timeout=30,
                                  Code={"ZipFile": package(a.client, tools)})
        functions.get_waiter("function_active_v2").wait(FunctionName="f")
        manifest = "".join(f"bench,prefix/object-{i:08}\n" for i in range(a.tasks)).encode()
        etag = s3.put_object(Bucket="bench", Key="m.csv", Body=manifest)["ETag"]
        before = cpu_us(server.pid)
        job = control.create_job(
            AccountId=account, ConfirmationRequired=False, Priority=1, RoleArn=role, ClientRequestToken="bench",
            Operation={"LambdaInvoke": {"FunctionArn": "f"}},
            Report={"Bucket": "arn:aws:s3:::bench", "Format": "Report_CSV_20180820", "Enabled": True, "Prefix": "r",
                    "ReportScope": "AllTasks"},
            Manifest={"Spec": {"Format": "S3BatchOperations_CSV_20180820", "Fields": ["Bucket", "Key"]},
                      "Location": {"ObjectArn": "arn:aws:s3:::bench/m.csv", "ETag": etag}})["JobId"]
        while True:
            d = control.describe_job(AccountId=account, JobId=job)["Job"]
            if d["Status"] in ("Complete", "Failed", "Cancelled"):
                break
            time.sleep(0.2)
        own = cpu_us(server.pid) - before
        functions_cpu = sum(cpu_us(p) for p in descendants(server.pid))
        told = {message for message in audit(s3, d, job, a.tasks) if message != "ok"}
        wall = (d["TerminationDate"] - d["CreationTime"]).total_seconds()
        got = {"name": f"longshore, {a.client} client", "tasks_per_s": a.tasks / wall, "own_us": own / a.tasks,
                "function_us": functions_cpu / a.tasks, "rss_mb": status(server.pid, "VmHWM") / 1024,
                "log_bytes": log_bytes(data) / a.tasks}
        if told:  # The bare client has no clock.
            got["first_ms"] = (min(map(float, told)) - d["CreationTime"].timestamp()) * 1000
        return got
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


def audit(s3, job, job_id, tasks):
    """Every row once in the report, checked with Python's own csv and the MD5s that it states. Returns the results' strings."""
    assert job["Status"] == "Complete", job
    summary = job["ProgressSummary"]
    assert summary["NumberOfTasksSucceeded"] == summary["TotalNumberOfTasks"] == tasks, summary
    read = lambda key: s3.get_object(Bucket="bench", Key=key)["Body"].read()
    rows, told = [], []
    for part in json.loads(read(f"r/job-{job_id}/manifest.json"))["Results"]:
        body = read(part["Key"])
        assert hashlib.md5(body).hexdigest() == part["MD5Checksum"]
        read_rows = list(csv.reader(io.StringIO(body.decode(), newline="")))
        rows += [row[1] for row in read_rows]
        told += [row[-1] for row in read_rows]
    assert sorted(rows) == [f"prefix/object-{i:08}" for i in range(tasks)], "the report is not the manifest"
    return told


def floor(a, work, tools):
    """The bare engine over the bare Runtime API, with the same handler and the lean client that stands beside it."""
    manifest = rows_file(work, a.tasks)
    client = [sys.executable, os.path.join(a.floor, "fn/lean_bootstrap.py")]
    if a.client == "bare":
        client = [os.path.join(tools, "runtime_api_ceiling"), "client"]
    elif a.client == "awslambdaric":
        client = [sys.executable, "-m", "awslambdaric", "handler.handler"]
    env = dict(os.environ, LAMBDA_TASK_ROOT=os.path.join(a.floor, "fn"))
    p = subprocess.run([os.path.join(tools, "engine_floor"), "host", manifest, os.path.join(work, "r.csv"),
                        str(a.environments), "--", *client], env=env, cwd=os.path.join(a.floor, "fn"), text=True,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    found = re.search(r"^\{.*\}$", p.stdout, re.M)
    if p.returncode != 0 or not found:
        sys.exit(f"the floor failed: {p.stdout[-2000:]}")
    told = json.loads(found.group(0))
    assert told["rows"] == a.tasks and told["failed"] == 0, told
    return {"name": f"engine_floor host, {'lean' if a.client == 'own' else a.client} client",
            "tasks_per_s": told["rows_per_s"], "own_us": told["own_cpu_us"], "function_us": told["clients_cpu_us"],
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
    path = os.path.join(work, f"rows-{tasks}.csv")
    with open(path, "w") as f:
        f.writelines(f"bench,prefix/object-{i:08}\n" for i in range(tasks))
    return path


def direct(a, work):
    script = os.path.join(a.floor, "peer_direct_mp.py")
    handler = os.path.join(a.floor, "fn/handler.py") + ":handler"
    return measured(a, "no Lambda: multiprocessing pool", a.tasks,
                    [sys.executable, script, rows_file(work, a.tasks), os.path.join(work, "d.csv"), "--handler", handler])


def boto3_script(a, work, tools):
    tasks = min(a.tasks, 2_000)
    stub = subprocess.Popen([os.path.join(tools, "stub_server"), "127.0.0.1:9917"], stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)
    try:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("AWS_") and k.upper() not in ("HTTP_PROXY", "NO_PROXY")}
        command = ["env", "-i", *(f"{k}={v}" for k, v in clean.items()), sys.executable,
                   os.path.join(a.floor, "peer_boto3.py"), rows_file(work, tasks), os.path.join(work, "b.csv"),
                   "--endpoint", "http://127.0.0.1:9917"]
        return measured(a, "boto3, 16 threads, against a stub", tasks, command)
    finally:
        stub.kill()
        stub.wait()


def ministack(a, work):
    tasks = min(a.tasks, 500)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("AWS_") and k.upper() not in ("HTTP_PROXY", "NO_PROXY")}
    python = os.path.join(os.path.dirname(a.ministack), "python")
    p = subprocess.run([python, os.path.join(a.floor, "peer_ministack.py"), rows_file(work, tasks), str(tasks),
                        "--concurrency", str(a.environments), "--bin", a.ministack], env=clean, stdout=subprocess.PIPE, text=True)
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
    tools = os.path.join(ROOT, "target/bench")
    os.makedirs(tools, exist_ok=True)
    if a.floor:
        a.floor = os.path.abspath(a.floor)
        for tool in ("engine_floor", "stub_server", "runtime_api_ceiling"):
            source, made = os.path.join(a.floor, tool + ".rs"), os.path.join(tools, tool)
            subprocess.check_call(["rustc", "-O", "-o", made, source])
    programs = [lambda w: ours(a, w, tools)]
    if a.floor:
        programs += [lambda w: floor(a, w, tools), lambda w: direct(a, w), lambda w: boto3_script(a, w, tools)]
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
        print(f"| {name} | {mid(rows, 'tasks_per_s'):.0f} | {mid(rows, 'own_us'):.1f} | {mid(rows, 'function_us'):.1f} "
              f"| {mid(rows, 'rss_mb'):.0f} | {mid(rows, 'first_ms'):.0f} |")
    mine, *others = runs.values()
    if others:
        print("\nours over each of them, medians of the ratios within each round:")
    for other in others:
        ratio = lambda k: statistics.median(x[k] / y[k] for x, y in zip(mine, other))
        print(f"- {other[0]['name']}: tasks/s {ratio('tasks_per_s'):.3g}x, own CPU {ratio('own_us'):.3g}x")


if __name__ == "__main__":
    main()
