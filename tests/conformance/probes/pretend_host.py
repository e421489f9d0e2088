"""A pretend machine for the sandbox's probes: process 1 of namespaces of its own, full of things worth stealing.

    unshare --fork --pid --mount --net --ipc --uts --propagation private --mount-proc python3 pretend_host.py

A server is started in here, and the probes attack this machine instead of the real one: `kill -1` ends nobody else's
processes, "the metadata service" holds a canary and no credentials, `/etc/shadow` is made up. It reads its settings (a
JSON object with `canary`) from the first line of standard input, prints what a probe has to know as one line of JSON,
and lives until standard input ends. Then the kernel ends everything in here.
"""

import ctypes
import fcntl
import json
import os
import pwd
import signal
import socket
import struct
import sys
import threading

libc = ctypes.CDLL(None, use_errno=True)
MS_BIND = 4096
SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK = 0x8914, 0x8916, 0x891C
HOST_ADDRESS, NAMESERVER, METADATA = "192.0.2.7", "192.0.2.53", "169.254.169.254"
SYSV_KEY = 0x10C5
ROOT_FILE = os.path.join(pwd.getpwuid(0).pw_dir, ".profile")
IPC_CREAT = 0o1000


def checked(result, what):
    if result == -1:
        raise OSError(ctypes.get_errno(), what)
    return result


def mount(source, target, kind=None, flags=0, data=None):
    words = [word.encode() if word is not None else None for word in (source, target, kind)]
    checked(libc.mount(*words, flags, data.encode() if data else None), f"mount {target}")


def addresses():
    """The loopback interface up, and the addresses of this machine on it: there is no way out of here."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as configured:
        def ask(request, name, rest):
            fcntl.ioctl(configured, request, struct.pack("16s24s", name.encode(), rest))

        ask(SIOCSIFFLAGS, "lo", struct.pack("h", 1 | 64))
        for number, address in enumerate((HOST_ADDRESS, NAMESERVER, METADATA), 1):
            ask(SIOCSIFADDR, f"lo:{number}", struct.pack("HH4s", socket.AF_INET, 0, socket.inet_aton(address)))
            ask(SIOCSIFNETMASK, f"lo:{number}", struct.pack("HH4s", socket.AF_INET, 0, b"\xff\xff\xff\xff"))


def write(path, text, mode):
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, mode)


def things(canary):
    """Files that a function has no business with. What cannot be laid over the machine's own is left out."""
    mount("probes", "/srv", "tmpfs", data="mode=755")
    write("/srv/host-file", f"a file of the host: {canary}\n", 0o644)
    os.mkdir("/srv/open")
    os.chmod("/srv/open", 0o1777)
    mount("probes", "/dev/shm", "tmpfs", data="mode=1777,size=700m")
    write("/dev/shm/host-shm", canary, 0o644)
    write("/srv/.shadow", f"root:{canary}:19000:0:99999:7:::\n", 0o600)
    write("/srv/.profile", f"# {canary}\n", 0o600)
    write("/srv/.resolv.conf", f"nameserver {NAMESERVER}\noptions timeout:1 attempts:1\n", 0o644)
    for source, target in (("shadow", "/etc/shadow"), ("profile", ROOT_FILE), ("resolv.conf", "/etc/resolv.conf")):
        if os.path.isfile(target):
            mount(f"/srv/.{source}", os.path.realpath(target), flags=MS_BIND)
    if not os.path.realpath("/etc/resolv.conf").startswith("/run/"):
        mount("probes", "/run", "tmpfs", data="mode=755")
    segment = checked(libc.shmget(SYSV_KEY, 4096, IPC_CREAT | 0o666), "shmget")
    libc.shmat.restype = ctypes.c_void_p
    libc.shmat.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
    ctypes.memmove(libc.shmat(segment, None, 0), canary.encode(), len(canary))


def serve(listener, answer):
    def run():
        while True:
            stream, _ = listener.accept()
            threading.Thread(target=one, args=(stream,), daemon=True).start()

    def one(stream):
        with stream:
            stream.settimeout(3)
            try:
                stream.recv(4096)
                stream.sendall(answer)
            except OSError:
                pass

    listener.listen(64)
    threading.Thread(target=run, daemon=True).start()


def datagrams(address, answer):
    taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    taken.bind(address)

    def run():
        while True:
            data, peer = taken.recvfrom(4096)
            taken.sendto(answer(data), peer)

    threading.Thread(target=run, daemon=True).start()
    return taken.getsockname()[1]


def name_service(query):
    """Every name has the address 192.0.2.7; there is no other record."""
    end = 12
    while query[end]:
        end += query[end] + 1
    question = query[12:end + 5]
    if question[-4:-2] != b"\x00\x01":
        return query[:2] + b"\x81\x80\x00\x01\x00\x00\x00\x00\x00\x00" + question
    record = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04" + socket.inet_aton(HOST_ADDRESS)
    return query[:2] + b"\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00" + question + record


def services(canary):
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(canary)}\r\nConnection: close\r\n\r\n{canary}".encode()
    tcp = socket.socket()
    # Not of those that the kernel gives out by itself, which a sandbox may tell from the ports of services.
    tcp.bind(("0.0.0.0", 8080))
    serve(tcp, answer)
    tcp6 = socket.socket(socket.AF_INET6)
    tcp6.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    tcp6.bind(("::1", tcp.getsockname()[1]))
    serve(tcp6, answer)
    metadata = socket.socket()
    metadata.bind((METADATA, 80))
    serve(metadata, answer)
    for path in ("/srv/host.sock", "/run/docker.sock"):
        try:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(path)
            os.chmod(path, 0o666)
            serve(listener, answer)
        except OSError:
            pass  # the machine's own /run was left as it is
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind(f"\0{canary}")
    serve(abstract, answer)
    datagrams((NAMESERVER, 53), name_service)
    return {"host_tcp": tcp.getsockname()[1], "host_udp": datagrams(("0.0.0.0", 0), lambda _: canary.encode())}


def main():
    canary = json.loads(sys.stdin.readline())["canary"]
    # The kernel shows the environment that a process was started with, so the canary has to be in that already.
    if os.environ.get("PRETEND_SECRET") is None:
        os.execve(sys.executable, [sys.executable, __file__, canary], {"PRETEND_SECRET": canary})


def live(canary):
    os.umask(0)
    socket.sethostname("pretend-" + canary[-8:])
    addresses()
    things(canary)
    facts = services(canary) | {
        "canary": canary, "host_addr": HOST_ADDRESS, "nameserver": NAMESERVER, "sysv_key": SYSV_KEY,
        "host_name": socket.gethostname(), "root_file": ROOT_FILE,
    }
    # From here on process IDs are far from those that a function meets in a namespace of its own.
    with open("/proc/sys/kernel/ns_last_pid", "w") as last:
        last.write("20000")
    # Whatever loses its parent in here is ours; nobody else takes note of its end.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print(json.dumps(facts), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        live(sys.argv[1])
    else:
        main()
