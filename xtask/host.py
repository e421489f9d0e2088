#!/usr/bin/env python3
"""Measures the embedded function host: what a cold start takes, how many environments a second come up, and what an idle
one costs in memory. Beside it, in the same rounds, the bare process: the same program spawned by this script and timed to
its first poll, without any host or sandbox.

    cargo xtask bench-host [--rounds 8] [--environments 32] [--sandbox auto|off] [--binary PATH] [--json FILE]

Cold start: each round changes the function's description, which makes a new deployment, and invokes it once; "Init
Duration" of its REPORT line is the wall time from the start to the first poll. Processor time is that of the function's
processes, from /proc, at that moment, and what the server's own processes spent between the two. All wall times are from one
machine in one run: take the ratios.
"""
import argparse, base64, concurrent.futures, json, os, re, shutil, socket, statistics, subprocess, sys, tempfile, time

import measure
from measure import BINARY, descendants, environments, interpreters, pss_kib, sched_cpu_us, status_kib, zipped


# One poll and one answer after the other on a raw socket, and nothing else: what any client at least does.
LEAN = '''
import os, socket, time
CAME = time.time()
host, port = os.environ["AWS_LAMBDA_RUNTIME_API"].rsplit(":", 1)
s = socket.create_connection((host, int(port)))
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
def message():
    b = b""
    while (h := b.find(b"\\r\\n\\r\\n")) < 0:
        d = s.recv(65536)
        if not d:
            os._exit(0)
        b += d
    head = b[:h].lower() + b"\\r\\n"
    i = head.find(b"content-length:")
    n = int(head[i + 15:head.find(b"\\r\\n", i)]) if i >= 0 else 0
    while len(b) < h + 4 + n:
        b += s.recv(65536)
    return head
while True:
    s.sendall(b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\\r\\nHost: h\\r\\n\\r\\n")
    head = message()
    i = head.find(b"lambda-runtime-aws-request-id:") + 30
    rid = head[i:head.find(b"\\r\\n", i)].strip()
    time.sleep(float(os.environ.get("WORK_S", "0")))
    out = b'{"came": %f}' % CAME
    s.sendall(b"POST /2018-06-01/runtime/invocation/%s/response HTTP/1.1\\r\\nHost: h\\r\\nContent-Length: %d\\r\\n\\r\\n%s" % (rid, len(out), out))
    message()
'''
HANDLER = '''
import time, os
CAME = time.time()
def handler(event, context):
    time.sleep(float(os.environ.get("WORK_S", "0")))
    return {"came": CAME}
'''


def packages():
    python = sys.executable
    bootstrap = f"#!/bin/sh\nexec {os.path.realpath(python)} -S -E lean.py\n"
    return {
        "lean Python client": ("provided.al2023", zipped([("lean.py", LEAN, 0o644), ("bootstrap", bootstrap, 0o755)])),
        "Longshore's Python client": (f"python3.{sys.version_info.minor}", zipped([("handler.py", HANDLER, 0o644)])),
    }


def sched_cpu_ms(pid):
    return sched_cpu_us(pid) / 1e3


def bare_start():
    """The lean client without any host: wall to its first poll, and its processor time, in milliseconds."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        folder = tempfile.mkdtemp()
        script = os.path.join(folder, "lean.py")
        with open(script, "w") as f:
            f.write(LEAN)
        env = {"AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{listener.getsockname()[1]}", "PATH": os.environ["PATH"]}
        began = time.perf_counter()
        process = subprocess.Popen([os.path.realpath(sys.executable), "-S", "-E", script], env=env,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        listener.settimeout(30)
        connection, _ = listener.accept()
        connection.recv(65536)
        wall = (time.perf_counter() - began) * 1e3
        cpu = sched_cpu_ms(process.pid)
        process.kill()
        process.wait()
        connection.close()
        shutil.rmtree(folder)
        return wall, cpu


def started(a, work):
    sandbox = f'sandbox = "{a.sandbox}"\n' if a.sandbox else ""
    # The program that is measured is this script's own Python, wherever that is.
    return measure.Server(work, f"[functions]\nenvironments_max = {a.environments}\n{sandbox}{interpreters()}", a.binary)


def host_start(server, name, round):
    """One cold start: Init Duration, processor time of the function's processes, processor time of the server, in ms."""
    server.functions.update_function_configuration(FunctionName=name, Description=f"round {round}")
    server.functions.get_waiter("function_updated_v2").wait(FunctionName=name)
    before, known = sched_cpu_ms(server.pid), set(descendants(server.pid))
    known_cpu = {p: sched_cpu_ms(p) for p in known}
    answer = server.functions.invoke(FunctionName=name, LogType="Tail")
    log = base64.b64decode(answer["LogResult"]).decode()
    init = float(re.search(r"Init Duration: ([\d.]+) ms", log).group(1))
    own = sched_cpu_ms(server.pid) - before
    theirs = 0.0
    for p in descendants(server.pid):
        try:
            theirs += sched_cpu_ms(p) - known_cpu.get(p, 0.0)
        except FileNotFoundError:
            pass
    return init, theirs, own


def many(server, name, count):
    """`count` environments at once: the rate at which they came, and what an idle one costs."""
    rss = lambda: status_kib(server.pid, "VmRSS")
    before, known = rss(), environments(server.pid)
    began = time.time()
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        calls = [pool.submit(server.functions.invoke, FunctionName=name) for _ in range(count)]
        came = {json.loads(call.result()["Payload"].read())["came"] for call in calls}
    took = max(came) - began
    processes = environments(server.pid) - known
    return {"environments": len(came), "a_second": len(came) / took,
            "pss_kib": sum(pss_kib(p) for p in processes) / len(came), "processes": len(processes) / len(came),
            "server_kib": (rss() - before) / len(came)}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--rounds", type=int, default=8)
    ap.add_argument("--environments", type=int, default=32)
    ap.add_argument("--binary", default=BINARY, help="another build, to compare with")
    ap.add_argument("--sandbox", default="", choices=["", "auto", "require", "off"])
    ap.add_argument("--json", default="", help="append the figures to this file, as one line")
    a = ap.parse_args()
    work = tempfile.mkdtemp(prefix="longshore-bench-")
    server = started(a, work)
    try:
        made = packages()
        for n, (runtime, package) in enumerate(made.values()):
            server.deploy(f"f{n}", runtime, package)
        bare_start()
        bare, starts = [], {name: [] for name in made}
        for n in range(len(made)):
            host_start(server, f"f{n}", "first")
        for round in range(a.rounds):
            bare.append(bare_start())
            for n, name in enumerate(made):
                starts[name].append(host_start(server, f"f{n}", round))
        crowds = {}
        for n, (name, (runtime, package)) in enumerate(made.items()):
            server.deploy(f"m{n}", runtime, package, Environment={"Variables": {"WORK_S": "4"}})
            crowds[name] = many(server, f"m{n}", a.environments)
            server.functions.delete_function(FunctionName=f"m{n}")
            deadline = time.time() + 30
            while len(environments(server.pid)) > 7 and time.time() < deadline:
                time.sleep(0.1)
    finally:
        server.stop()
        shutil.rmtree(work, ignore_errors=True)
    mid = lambda rows, n: statistics.median(row[n] for row in rows)
    over = lambda rows, n, m: statistics.median(row[n] / floor[m] for row, floor in zip(rows, bare))
    print(f"{a.rounds} rounds, medians; ratios are medians of those within each round; sandbox: {a.sandbox or 'as set'}")
    print("| start | wall ms | CPU ms, function | CPU ms, server | wall over bare | CPU over bare |")
    print("|---|---|---|---|---|---|")
    print(f"| lean Python client, spawned bare | {mid(bare, 0):.1f} | {mid(bare, 1):.1f} | | | |")
    for name, rows in starts.items():
        print(f"| {name} | {mid(rows, 0):.1f} | {mid(rows, 1):.1f} | {mid(rows, 2):.1f} | {over(rows, 0, 0):.2f} | {over(rows, 1, 1):.2f} |")
    print("\n| environments at once | started a second | PSS KiB each | processes each | server KiB each |")
    print("|---|---|---|---|---|")
    for name, c in crowds.items():
        print(f"| {name}, {c['environments']} | {c['a_second']:.1f} | {c['pss_kib']:.0f} | {c['processes']:.1f} | {c['server_kib']:.0f} |")
    if a.json:
        with open(a.json, "a") as f:
            f.write(json.dumps({"bare": bare, "starts": starts, "crowds": crowds}) + "\n")


if __name__ == "__main__":
    main()
