"""What an ordinary Python function does, and has to be able to do inside the sandbox.

The event is {"bucket": ..., "names": whether a name service answers, "tmp_mebibytes": ...}; the answer is a table
{thing: "ok" or what went wrong}.
"""

import base64
import concurrent.futures
import ctypes
import gzip
import http.server
import multiprocessing
import os
import pwd
import random
import shutil
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import zoneinfo

import boto3

started = time.time()


def s3(event):
    client = boto3.client("s3")
    client.put_object(Bucket=event["bucket"], Key="from-python", Body=b"written inside")
    assert client.get_object(Bucket=event["bucket"], Key="from-python")["Body"].read() == b"written inside"
    listed = client.list_objects_v2(Bucket=event["bucket"])["Contents"]
    assert "from-python" in [entry["Key"] for entry in listed], listed


def s3_large(event):
    """By the transfer manager: threads, parts, several connections."""
    client = boto3.client("s3")
    with tempfile.NamedTemporaryFile() as file:
        file.write(random.Random(1).randbytes(20 << 20))
        file.flush()
        client.upload_file(file.name, event["bucket"], "large")
        client.download_file(event["bucket"], "large", file.name + ".back")
        assert open(file.name, "rb").read() == open(file.name + ".back", "rb").read()
        os.unlink(file.name + ".back")


def subprocesses(event):
    done = subprocess.run(["sh", "-c", "echo $((6 * 7)); exit 3"], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("42\n", 3), done
    assert subprocess.check_output([sys.executable, "-c", "print('inner')"]) == b"inner\n"
    assert subprocess.run("ls / | sort | head -n 1 && cat /etc/passwd | wc -l", shell=True, capture_output=True).returncode == 0


def threads(event):
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        assert sum(pool.map(lambda n: n * n, range(1000))) == 332833500


def processes(event):
    """By pipes: queues and pools need semaphores in shared memory, which Lambda does not have."""
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.Process(target=lambda: theirs.send(os.getpid()))
    child.start()
    assert ours.recv() == child.pid
    child.join(10)
    assert child.exitcode == 0, child.exitcode


def database(event):
    path = os.path.join(tempfile.gettempdir(), "ordinary.sqlite")
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE IF NOT EXISTS t (n INTEGER)")
        connection.execute("INSERT INTO t VALUES (1)")
        assert connection.execute("SELECT sum(n) FROM t").fetchone()[0] >= 1


def tls(event):
    context = ssl.create_default_context()
    assert context.verify_mode == ssl.CERT_REQUIRED
    if os.path.exists(ssl.get_default_verify_paths().cafile or "") or os.path.isdir("/etc/ssl/certs"):
        assert os.listdir("/etc/ssl/certs") is not None


def user(event):
    found = pwd.getpwuid(os.getuid())
    assert found.pw_name and os.path.isabs(found.pw_dir), found
    assert os.path.expanduser("~")


def temporary(event):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "deep", "er")
        os.makedirs(path)
        shutil.copy(__file__, path)
        with open(os.path.join(path, "x"), "wb") as file:
            file.write(b"x" * (event["tmp_mebibytes"] << 20))
        os.rename(os.path.join(path, "x"), os.path.join(folder, "y"))
        os.link(os.path.join(folder, "y"), os.path.join(folder, "z"))
        os.symlink("y", os.path.join(folder, "s"))
        os.chmod(os.path.join(folder, "y"), 0o400)
        assert os.stat(os.path.join(folder, "s")).st_size == event["tmp_mebibytes"] << 20
    script = os.path.join(tempfile.gettempdir(), "script")
    with open(script, "w") as file:
        file.write("#!/bin/sh\necho run\n")
    os.chmod(script, 0o755)
    assert subprocess.check_output([script]) == b"run\n"


def path_of_aws(event):
    """The paths that code written for Lambda has in it, where the sandbox gives it a file system of its own."""
    if os.environ["LAMBDA_TASK_ROOT"] == "/var/task":
        assert os.path.samefile(__file__, "/var/task/ordinary.py")
        assert tempfile.gettempdir() == "/tmp", tempfile.gettempdir()
    assert os.getcwd() == os.path.realpath(os.environ["LAMBDA_TASK_ROOT"]), os.getcwd()


def server_inside(event):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"inside")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        assert urllib.request.urlopen(url, timeout=5).read() == b"inside"
    finally:
        server.shutdown()


def unix_sockets(event):
    one, other = socket.socketpair()
    one.sendall(b"x")
    assert other.recv(1) == b"x"
    # By a short path: without a file system of its own, a function's /tmp may lie deep.
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as asks:
        at = os.open(folder, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{at}/s")
        listener.listen()
        asks.connect(f"/proc/self/fd/{at}/s")
        os.close(at)


def local_names(event):
    assert "127.0.0.1" in [found[4][0] for found in socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)]


def names(event):
    if event["names"]:
        assert socket.getaddrinfo("probe.test", 443, socket.AF_INET)[0][4][0] == "192.0.2.7"


def devices(event):
    assert open("/dev/urandom", "rb").read(8) != open("/dev/urandom", "rb").read(8)
    assert open("/dev/zero", "rb").read(2) == b"\0\0"
    with open("/dev/null", "w") as null:
        null.write("x")
    with open("/dev/stdout", "w") as out:
        print("to the log by its path", file=out)
    os.listdir("/dev/fd")
    assert os.getrandom(4)


def process_files(event):
    assert "Name:" in open("/proc/self/status").read()
    assert "MemTotal" in open("/proc/meminfo").read()
    assert open("/proc/cpuinfo").read() and os.cpu_count() >= 1
    assert os.readlink("/proc/self/exe")


def libraries(event):
    libc = ctypes.CDLL(None)
    assert libc.getpid() == os.getpid()
    assert gzip.decompress(gzip.compress(b"x")) == b"x"
    assert base64.b64encode(b"x") and zoneinfo.ZoneInfo("UTC")


def signals_and_timers(event):
    import signal

    seen = []
    before = signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    end = time.time() + 5
    while not seen and time.time() < end:
        time.sleep(0.01)
    signal.signal(signal.SIGALRM, before)
    assert seen
    child = subprocess.Popen(["sleep", "60"])
    child.terminate()
    assert child.wait(5) == -signal.SIGTERM


def event_loop(event):
    import asyncio

    async def run():
        child = await asyncio.create_subprocess_exec("echo", "async", stdout=asyncio.subprocess.PIPE)
        said, _ = await child.communicate()
        await asyncio.to_thread(time.sleep, 0.001)
        return said

    assert asyncio.run(run()) == b"async\n"


THINGS = (s3, s3_large, subprocesses, threads, processes, database, tls, user, temporary, path_of_aws, server_inside,
          unix_sockets, local_names, names, devices, process_files, libraries, signals_and_timers, event_loop)


def handler(event, context):
    table = {}
    for thing in THINGS:
        try:
            thing(event)
            table[thing.__name__] = "ok"
        except BaseException as error:
            table[thing.__name__] = f"{type(error).__name__}: {error}"
    return table
