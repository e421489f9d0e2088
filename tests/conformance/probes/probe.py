"""The sandbox's probes in Python, as a function's handler, with the standard library and the C library under it.

An event is a string of words, `probes=a,b` and `name=value` for each thing to know; the answer is a table {probe:
{"succeeded": true, "detail": "..."}}. Each probe runs in a process of its own, so that one that is killed leaves the
others alone. It succeeds by returning what it saw, and fails by an exception; `succeeded` is null where it cannot be
tried here.
"""

import ctypes
import errno
import fcntl
import glob
import http.client
import json
import mmap
import os
import platform
import re
import resource
import signal
import socket
import stat
import struct
import tempfile
import threading
import time

libc = ctypes.CDLL(None, use_errno=True)
FDS_AT_START = {int(fd): None for fd in os.listdir("/proc/self/fd")} if os.path.isdir("/proc/self/fd") else {}
for fd in list(FDS_AT_START):
    try:
        FDS_AT_START[fd] = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        del FDS_AT_START[fd]  # the one that listed them

HOST_FILE = "/srv/host-file"
PROBES = {}
FACTS = {}
X86_64 = {
    "bpf": 321, "keyctl": 250, "add_key": 248, "io_uring_setup": 425, "userfaultfd": 323, "perf_event_open": 298,
    "modify_ldt": 154, "init_module": 175, "pivot_root": 155, "syslog": 103, "ioperm": 173, "fanotify_init": 300,
    "swapoff": 168, "acct": 163, "clone3": 435, "clone": 56, "fsopen": 430, "open_tree": 428, "pidfd_open": 434,
    "pidfd_getfd": 438, "process_vm_readv": 310, "ptrace": 101, "unshare": 272,
}
NEWNS, NEWCGROUP, NEWUTS, NEWUSER, NEWPID, NEWNET = 0x20000, 0x2000000, 0x4000000, 0x10000000, 0x20000000, 0x40000000


class NotHere(Exception):
    """The probe cannot be tried on this machine."""


def probe(function):
    PROBES[function.__name__] = function
    return function


def checked(result, what):
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return f"{what}: {result}"


def syscall(name, *arguments):
    if platform.machine() != "x86_64":
        raise NotHere("numbers of system calls are known for x86-64 alone")
    libc.syscall.restype = ctypes.c_long
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    return checked(libc.syscall(ctypes.c_long(X86_64[name]), *words), name)


def scratch():
    return tempfile.gettempdir()


def reads(path, needle=None):
    with open(path, "rb") as file:
        found = file.read(1 << 20)
    wanted = (needle or FACTS["canary"]).encode()
    assert wanted in found, f"{path}: other content"
    return f"{path} was read"


def reads_any(path):
    with open(path, "rb") as file:
        assert file.read(16), f"{path} is empty"
    return f"{path} was read"


def opens(path, flags):
    os.close(os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY))
    return f"{path} was opened"


def first(attempts):
    """What the first attempt that works says, else why the last one did not."""
    failure = NotHere("there is nothing to try")
    for attempt in attempts:
        try:
            return attempt()
        except (OSError, AssertionError) as error:
            failure = error
    raise failure


def creates(folder):
    path = os.path.join(folder, f"left-by-python-{os.getpid()}")
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
    os.unlink(path)
    return f"{path} was made"


def paths(name):
    return [path for path in FACTS.get(name, "").split(",") if path]


def beside(path):
    os.stat(path)
    return creates(os.path.dirname(path))


# --- files ---

@probe
def server_state_read():
    return reads_any(FACTS["state_file"])


@probe
def server_state_write():
    return creates(FACTS["data_dir"])


@probe
def server_state_list():
    found = os.listdir(FACTS["data_dir"])
    assert os.path.basename(FACTS["state_file"]) in found, f"shows {found}"
    return "the server's folder is listed"


@probe
def credentials_read():
    return reads_any(FACTS["credentials_file"])


@probe
def other_code_read():
    return first([lambda path=path: reads(path) for path in paths("other_code")])


@probe
def other_code_write():
    return first([lambda path=path: beside(path) for path in paths("other_code")])


@probe
def own_code_write():
    return creates(os.environ["LAMBDA_TASK_ROOT"])


@probe
def runtime_write():
    return creates(os.environ["LAMBDA_RUNTIME_DIR"])


@probe
def system_write():
    return first([lambda: creates("/usr/lib"), lambda: creates(os.path.dirname(os.__file__))])


@probe
def shadow_read():
    return reads_any("/etc/shadow")


@probe
def root_home_read():
    return reads(FACTS["root_file"])


@probe
def host_file_read():
    return reads(HOST_FILE)


@probe
def host_folder_write():
    return creates("/srv/open")


@probe
def other_tmp_read():
    return first([lambda path=path: reads(path) for path in paths("other_tmp")])


@probe
def other_tmp_write():
    return first([lambda path=path: beside(path) for path in paths("other_tmp")])


@probe
def symlink_out():
    path = os.path.join(scratch(), f"link-python-{os.getpid()}")
    os.symlink("/srv/host-file", path)
    try:
        return reads(path)
    finally:
        os.unlink(path)


@probe
def hardlink_out():
    path = os.path.join(scratch(), f"hard-python-{os.getpid()}")
    os.link(FACTS["linkable"], path)
    try:
        return reads(path)
    finally:
        os.unlink(path)


@probe
def dotdot_out():
    at = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(40):
        at = os.open("..", os.O_RDONLY | os.O_DIRECTORY, dir_fd=at)
    with open(os.open("srv/host-file", os.O_RDONLY, dir_fd=at)) as file:
        assert FACTS["canary"] in file.read(), "other content"
    return "read from above the root"


@probe
def proc_self_root():
    return reads("/proc/self/root" + HOST_FILE)


@probe
def proc_self_cwd():
    return reads("/proc/self/cwd" + "/.." * 12 + "/srv/host-file")


@probe
def proc_1_environ():
    return reads("/proc/1/environ")


@probe
def proc_1_root():
    return reads("/proc/1/root" + HOST_FILE)


def not_ourselves():
    if os.getppid() == 1:
        raise NotHere("that is the function itself")


@probe
def proc_1_fd():
    not_ourselves()
    found = [os.readlink(f"/proc/1/fd/{fd}") for fd in os.listdir("/proc/1/fd") if int(fd) > 2]
    assert found, "nothing of it is shown"
    return f"{found[:3]}"


def memory_of(pid):
    with open(f"/proc/{pid}/maps") as maps:
        at = int(maps.readline().split("-")[0] or "x", 16)
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        memory.seek(at)
        assert memory.read(1), "nothing was read"
    return f"read at {at:x} of process {pid}"


@probe
def proc_1_mem():
    not_ourselves()
    return memory_of(1)


@probe
def server_mem():
    return memory_of(FACTS["server_pid"])


def any_environ(needle):
    for path in glob.glob("/proc/[0-9]*/environ"):
        try:
            return reads(path, needle)
        except (OSError, AssertionError):
            pass
    raise AssertionError("in no process")


@probe
def server_environ():
    return any_environ(FACTS["server_secret"])


@probe
def other_environ():
    return any_environ(FACTS["other_secret"])


@probe
def other_proc_root():
    pid = FACTS["other_pid"]
    return first([lambda: reads(f"/proc/{pid}/root" + HOST_FILE), lambda: reads(f"/proc/{pid}/cwd/neighbour-code.txt")])


@probe
def core_pattern():
    return opens("/proc/sys/kernel/core_pattern", os.O_WRONLY)


@probe
def sysctl():
    return opens("/proc/sys/vm/overcommit_memory", os.O_WRONLY)


@probe
def sysrq():
    return opens("/proc/sysrq-trigger", os.O_WRONLY)


@probe
def proc_kcore():
    return opens("/proc/kcore", os.O_RDONLY)


@probe
def sys_write():
    found = ["/sys/kernel/mm/transparent_hugepage/enabled", "/sys/class/net/lo/mtu", "/sys/kernel/profiling"]
    return first([lambda path=path: opens(path, os.O_WRONLY) for path in found])


@probe
def cgroup_write():
    found = ["/sys/fs/cgroup/cgroup.procs", *glob.glob("/sys/fs/cgroup/*/cgroup.procs")]
    return first([lambda path=path: opens(path, os.O_WRONLY) for path in found])


@probe
def dev_kvm():
    return opens("/dev/kvm", os.O_RDWR)


@probe
def dev_fuse():
    return opens("/dev/fuse", os.O_RDWR)


@probe
def dev_kmsg():
    return opens("/dev/kmsg", os.O_RDONLY)


@probe
def dev_tun():
    return opens("/dev/net/tun", os.O_RDWR)


@probe
def dev_disk():
    if not FACTS.get("disk"):
        raise NotHere("this machine shows no disk")
    return opens(FACTS["disk"], os.O_RDONLY)


@probe
def mknod_disk():
    path = os.path.join(scratch(), f"disk-python-{os.getpid()}")
    os.mknod(path, stat.S_IFBLK | 0o600, int(FACTS["disk_device"]))
    try:
        return opens(path, os.O_RDONLY)
    finally:
        os.unlink(path)


def converse(kind, address, family=socket.AF_INET):
    with socket.socket(family, kind) as asked:
        asked.settimeout(1.5)
        asked.connect(address)
        asked.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        found = asked.recv(4096)
    assert found, "no answer"
    return f"{address} answered {found[:20]}"


@probe
def docker_socket():
    return converse(socket.SOCK_STREAM, "/run/docker.sock", socket.AF_UNIX)


@probe
def host_socket():
    return converse(socket.SOCK_STREAM, "/srv/host.sock", socket.AF_UNIX)


@probe
def abstract_socket():
    return converse(socket.SOCK_STREAM, "\0" + FACTS["canary"], socket.AF_UNIX)


@probe
def host_shm():
    return reads("/dev/shm/host-shm")


@probe
def sysv_shm():
    libc.shmat.restype = ctypes.c_void_p
    libc.shmat.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
    segment = libc.shmget(int(FACTS["sysv_key"]), 0, 0)
    checked(segment, "shmget")
    at = libc.shmat(segment, None, 0o10000)
    assert at != ctypes.c_void_p(-1).value, "not attached"
    assert FACTS["canary"].encode() in ctypes.string_at(at, 4096), "other content"
    return "the host's segment was read"


@probe
def open_by_handle():
    handle = ctypes.create_string_buffer(136)
    struct.pack_into("I", handle, 0, 128)
    mount_id = ctypes.c_int()
    checked(libc.name_to_handle_at(-100, b"/", handle, ctypes.byref(mount_id), 0), "name_to_handle_at")
    return checked(libc.open_by_handle_at(os.open("/", os.O_RDONLY), handle, os.O_RDONLY), "open_by_handle_at")


# --- processes ---

@probe
def processes_list():
    seen = 0
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        seen += 1
        try:
            with open(path, "rb") as file:
                if FACTS["data_dir"].encode() in file.read():
                    return f"{path} is the server's"
        except OSError:
            pass
    raise AssertionError(f"{seen} processes, and none is the server")


@probe
def signal_server():
    os.kill(int(FACTS["server_pid"]), 0)
    return "a signal would have been sent"


@probe
def signal_other():
    os.kill(int(FACTS["other_pid"]), 0)
    return "a signal would have been sent"


@probe
def ptrace_server():
    seize, detach = 0x4206, 17
    said = syscall("ptrace", seize, int(FACTS["server_pid"]), 0, 0)
    libc.ptrace(detach, int(FACTS["server_pid"]), 0, 0)
    return said


@probe
def ptrace_child():
    return syscall("ptrace", 0, 0, 0, 0)


def vm_read(pid):
    here = (ctypes.c_void_p * 2)(ctypes.addressof(ctypes.create_string_buffer(1)), 1)
    there = (ctypes.c_void_p * 2)(16, 1)
    try:
        return syscall("process_vm_readv", int(pid), here, 1, there, 1, 0)
    except OSError as error:
        # Nothing lies at the address: who is told so was let through.
        if error.errno != errno.EFAULT:
            raise
        return "process_vm_readv was let through"


@probe
def vm_read_server():
    return vm_read(FACTS["server_pid"])


@probe
def vm_read_other():
    return vm_read(FACTS["other_pid"])


@probe
def priority_raise():
    os.setpriority(os.PRIO_PROCESS, 0, -10)
    return "more than others"


@probe
def priority_server():
    pid = int(FACTS["server_pid"])
    os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, pid))
    return "set to what it was"


@probe
def realtime():
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    return "before all others"


@probe
def limits_raise():
    resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 19, 1 << 19))
    return "more files"


@probe
def limits_of_server():
    return str(resource.prlimit(int(FACTS["server_pid"]), resource.RLIMIT_NOFILE))


@probe
def oom_score():
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("-1000")
    return "the kernel would kill others first"


@probe
def steal_descriptor():
    pidfd = os.pidfd_open(int(FACTS["server_pid"]))
    return syscall("pidfd_getfd", pidfd, 1, 0)


@probe
def affinity_server():
    pid = int(FACTS["server_pid"])
    os.sched_setaffinity(pid, os.sched_getaffinity(pid))
    return "set to what it was"


# --- network ---

@probe
def control_api():
    return converse(socket.SOCK_STREAM, ("127.0.0.1", int(FACTS["api_port"])))


@probe
def host_loopback():
    return converse(socket.SOCK_STREAM, ("127.0.0.1", int(FACTS["host_tcp"])))


@probe
def host_address():
    return converse(socket.SOCK_STREAM, (FACTS["host_addr"], int(FACTS["host_tcp"])))


@probe
def host_loopback6():
    return converse(socket.SOCK_STREAM, ("::1", int(FACTS["host_tcp"])), socket.AF_INET6)


def other(variable, port):
    """In a network of our own the same number is our own listener, and the other's cannot even be named."""
    assert os.environ[variable].rstrip("/").rpartition(":")[2] != port, f"{port} is our own"
    return converse(socket.SOCK_STREAM, ("127.0.0.1", int(port)))


@probe
def other_runtime_api():
    return other("AWS_LAMBDA_RUNTIME_API", FACTS["other_runtime"])


@probe
def other_s3():
    return other("AWS_ENDPOINT_URL_S3", FACTS["other_s3"])


@probe
def metadata():
    return converse(socket.SOCK_STREAM, ("169.254.169.254", 80))


@probe
def dns():
    return str(socket.getaddrinfo("probe.test", 80, socket.AF_INET, socket.SOCK_STREAM)[0][4])


def datagram(address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.settimeout(1)
        asked.sendto(b"x", address)
        return f"{address} answered {asked.recv(100)}"


@probe
def udp_host():
    return datagram((FACTS["host_addr"], int(FACTS["host_udp"])))


@probe
def udp_loopback():
    return datagram(("127.0.0.1", int(FACTS["host_udp"])))


def made(*arguments):
    socket.socket(*arguments).close()
    return "a socket was made"


@probe
def icmp():
    return first([lambda: made(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP),
                  lambda: made(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)])


@probe
def raw_socket():
    return made(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)


@probe
def packet_socket():
    return made(socket.AF_PACKET, socket.SOCK_RAW)


@probe
def vsock():
    return made(socket.AF_VSOCK, socket.SOCK_STREAM)


@probe
def alg_socket():
    return made(socket.AF_ALG, socket.SOCK_SEQPACKET)


@probe
def netlink_routes():
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as asked:
        asked.settimeout(1)
        asked.send(struct.pack("IHHIIB7x", 24, 22, 0x301, 1, 0, socket.AF_INET))
        assert socket.inet_aton(FACTS["host_addr"]) in asked.recv(65536), "the host's addresses are not shown"
    return "the host's addresses are shown"


@probe
def netlink_audit():
    return made(socket.AF_NETLINK, socket.SOCK_RAW, 9)


@probe
def s3_door_to_lambda():
    return not_through("/2015-03-31/functions/")


@probe
def s3_door_to_longshore():
    return not_through("/_longshore/v1/jobs")


def not_through(path):
    address = os.environ["AWS_ENDPOINT_URL_S3"].partition("//")[2].rstrip("/")
    connection = http.client.HTTPConnection(address, timeout=3)
    connection.request("GET", path, headers={"Host": "lambda.us-east-1.amazonaws.com"})
    status = connection.getresponse().status
    assert 200 <= status < 300, f"status {status}"
    return f"status {status}"


# --- kernel ---

@probe
def unshare_user():
    return checked(libc.unshare(NEWUSER), "unshare")


@probe
def unshare_mount():
    return checked(libc.unshare(NEWNS), "unshare")


@probe
def unshare_net():
    return checked(libc.unshare(NEWNET), "unshare")


@probe
def unshare_pid():
    return checked(libc.unshare(NEWPID), "unshare")


@probe
def unshare_cgroup():
    return checked(libc.unshare(NEWCGROUP), "unshare")


def clone(*arguments):
    parent = os.getpid()
    said = syscall(*arguments)
    if os.getpid() != parent:
        os._exit(0)
    return said


@probe
def clone_user():
    return clone("clone", NEWUSER | signal.SIGCHLD, 0, 0, 0, 0)


@probe
def clone3_user():
    arguments = (ctypes.c_uint64 * 11)(NEWUSER, 0, 0, 0, signal.SIGCHLD)
    return clone("clone3", arguments, ctypes.sizeof(arguments))


def mounted(source, kind, flags):
    target = tempfile.mkdtemp().encode()
    said = checked(libc.mount(source, target, kind, ctypes.c_ulong(flags), None), "mount")
    libc.umount2(target, 2)
    os.rmdir(target)
    return said


@probe
def mount_tmpfs():
    return mounted(b"probe", b"tmpfs", 0)


@probe
def mount_bind():
    return mounted(b"/", None, 4096)


@probe
def mount_remount():
    return checked(libc.mount(None, b"/srv", None, ctypes.c_ulong(4096 | 32), None), "mount")


@probe
def fsopen():
    return syscall("fsopen", b"tmpfs", 0)


@probe
def open_tree():
    return syscall("open_tree", -100, b"/", 1)


def let_through(call, *allowed):
    try:
        return call()
    except OSError as error:
        if error.errno not in allowed:
            raise
        return f"let through: {error.strerror}"


@probe
def umount():
    return let_through(lambda: checked(libc.umount2(b"/usr/bin", 2), "umount2"), errno.EINVAL)


@probe
def chroot_in():
    os.chroot(scratch())
    return "another root"


@probe
def pivot_root():
    return let_through(lambda: syscall("pivot_root", b"/usr", b"/usr"), errno.EINVAL, errno.EBUSY)


@probe
def bpf():
    attributes = (ctypes.c_uint32 * 32)(2, 4, 4, 1)
    return syscall("bpf", 0, attributes, ctypes.sizeof(attributes))


@probe
def keyctl():
    return syscall("keyctl", 0, -2, 1)


@probe
def add_key():
    return syscall("add_key", b"user", b"probe", b"x", 1, -2)


@probe
def io_uring():
    return syscall("io_uring_setup", 1, ctypes.create_string_buffer(120))


@probe
def userfaultfd():
    return syscall("userfaultfd", os.O_CLOEXEC | 1)


@probe
def perf():
    attributes = ctypes.create_string_buffer(128)
    struct.pack_into("IIQ", attributes, 0, 1, 128, 0)
    struct.pack_into("Q", attributes, 40, 1 << 5 | 1 << 6)
    return syscall("perf_event_open", attributes, 0, -1, -1, 0)


def joins(path, kind):
    return checked(libc.setns(os.open(path, os.O_RDONLY), kind), "setns")


@probe
def setns_net():
    return joins("/proc/1/ns/net", NEWNET)


@probe
def setns_mount():
    return joins("/proc/1/ns/mnt", NEWNS)


@probe
def setns_own():
    return joins("/proc/self/ns/uts", NEWUTS)


@probe
def personality_change():
    checked(libc.personality(ctypes.c_ulong(0x40000)), "personality")
    assert libc.personality(ctypes.c_ulong(0xFFFFFFFF)) & 0x40000, "ignored"
    return "addresses are not random any more"


@probe
def tiocsti():
    _, end = os.openpty()
    os.setsid()
    fcntl.ioctl(end, 0x540E, 0)
    fcntl.ioctl(end, 0x5412, b"x")
    return "a key was pressed"


@probe
def wide_tiocsti():
    """The filter may look at half a register."""
    if platform.machine() != "x86_64":
        raise NotHere("numbers of system calls are known for x86-64 alone")
    _, end = os.openpty()
    os.setsid()
    fcntl.ioctl(end, 0x540E, 0)
    libc.syscall.restype = ctypes.c_long
    return checked(libc.syscall(ctypes.c_long(16), ctypes.c_long(end), ctypes.c_ulong(1 << 32 | 0x5412), b"x"), "ioctl")


@probe
def tioclinux():
    _, end = os.openpty()
    return let_through(lambda: fcntl.ioctl(end, 0x541C, b"\x03"), errno.ENOTTY, errno.EINVAL) or "done"


@probe
def modify_ldt():
    return syscall("modify_ldt", 1, (ctypes.c_uint32 * 4)(0, 0, 0, 0x28), 16)


@probe
def init_module():
    return let_through(lambda: syscall("init_module", 0, 0, b""), errno.EFAULT, errno.ENOEXEC)


@probe
def set_hostname():
    socket.sethostname(socket.gethostname())
    return "set to what it was"


@probe
def kernel_log():
    return syscall("syslog", 3, ctypes.create_string_buffer(64), 64)


@probe
def ports():
    return syscall("ioperm", 0x80, 1, 1)


@probe
def fanotify():
    return syscall("fanotify_init", 4, os.O_RDONLY)


@probe
def swap():
    return let_through(lambda: syscall("swapoff", b"/nothing"), errno.ENOENT)


@probe
def process_accounting():
    return let_through(lambda: syscall("acct", b"/nothing/at/all"), errno.ENOENT)


@probe
def set_clock():
    # A clock that cannot be set: who is told so was let through. Nobody's time is changed.
    time.clock_settime(time.CLOCK_MONOTONIC, 0)
    return "set"


@probe
def x32_user():
    libc.syscall.restype = ctypes.c_long
    return checked(libc.syscall(ctypes.c_long(0x40000000 | X86_64["unshare"]), ctypes.c_long(NEWUSER)), "unshare by x32")


@probe
def old_abi_user():
    """unshare(NEWUSER) by the 32-bit door, in machine code: mov eax, 310; mov ebx, NEWUSER; int 0x80; ret."""
    return old_abi(310, NEWUSER)


@probe
def old_abi_calls():
    return old_abi(20, 0)


def old_abi(number, argument):
    if platform.machine() != "x86_64":
        raise NotHere("this processor has no older interface")
    code = b"\x53\xb8" + struct.pack("<I", number) + b"\xbb" + struct.pack("<I", argument) + b"\xcd\x80\x5b\xc3"
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    result = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return f"int 0x80: {result}"


@probe
def wide_socket_family():
    libc.syscall.restype = ctypes.c_long
    return checked(libc.syscall(ctypes.c_long(41), ctypes.c_ulong(1 << 32 | 17), ctypes.c_long(3), ctypes.c_long(0)), "socket")


@probe
def setuid_root():
    os.setuid(0)
    return "the user is root"


@probe
def setgroups_root():
    os.setgroups([0])
    return "the group is root's"


@probe
def lock_memory():
    size = 1 << 20
    page = mmap.mmap(-1, size)
    return checked(libc.mlock(ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(page))), ctypes.c_size_t(size)), "mlock")


# --- identity ---

def status(name):
    with open("/proc/self/status") as file:
        return re.search(rf"^{name}:\s*(.*)$", file.read(), re.M)[1]


@probe
def user_is_root():
    assert 0 in os.getresuid(), f"users {os.getresuid()}"
    return str(os.getresuid())


@probe
def group_is_root():
    assert 0 in os.getresgid(), f"groups {os.getresgid()}"
    return str(os.getresgid())


@probe
def groups_left():
    found = set(os.getgroups()) - {os.getgid()}
    assert found, "none but its own"
    return str(sorted(found))


@probe
def capabilities_left():
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        if int(status(name), 16):
            return f"{name} {status(name)}"
    raise AssertionError("all sets are empty")


@probe
def new_privileges():
    assert status("NoNewPrivs") != "1", "none"
    return "could be had"


@probe
def no_seccomp():
    assert status("Seccomp") != "2", "the mode is 2"
    return f"mode {status('Seccomp')}"


@probe
def descriptors_inherited():
    # The runtime client has a connection of its own to its API by now; it is of this process's making.
    api = os.environ["AWS_LAMBDA_RUNTIME_API"].rpartition(":")
    strange = []
    for fd, target in FDS_AT_START.items():
        if fd <= 2:
            continue
        try:
            with socket.socket(fileno=os.dup(fd)) as connection:
                if connection.getpeername()[1] == int(api[2]):
                    continue
        except OSError:
            pass
        strange.append(f"{fd}: {target}")
    assert strange, "none above 2"
    return ", ".join(strange)


@probe
def environment_of_server():
    for name, value in os.environ.items():
        if FACTS["server_secret"] in value or FACTS["canary"] in value:
            return f"{name} has it"
        if f",{name}," not in FACTS["known_variables"]:
            return f"{name} is not one of Lambda's"
    raise AssertionError("nothing but what Lambda sets")


@probe
def umask_lax():
    mask = os.umask(0o022)
    assert mask & 0o022 != 0o022, f"{mask:03o}"
    return f"{mask:03o}"


@probe
def terminal():
    return opens("/dev/tty", os.O_RDWR)


@probe
def session_of_server():
    assert os.getsid(0) == int(FACTS["session"]), f"session {os.getsid(0)}"
    return f"session {os.getsid(0)}"


@probe
def host_name():
    assert socket.gethostname() == FACTS["host_name"], f"called {socket.gethostname()}"
    return f"called {socket.gethostname()}"


@probe
def core_dumps():
    limit = resource.getrlimit(resource.RLIMIT_CORE)
    assert limit[1], "the limit is 0"
    return f"the limit is {limit}"


@probe
def input_from_server():
    found = os.fstat(0)
    assert not (stat.S_ISCHR(found.st_mode) and found.st_rdev == os.makedev(1, 3)), "it is /dev/null"
    return f"standard input is {found.st_mode:o}"


# --- resources: each in an invocation of its own ---

@probe
def memory():
    held = [b"x" * (1 << 20) for _ in range(int(FACTS["mebibytes"]))]
    time.sleep(int(FACTS["nap"]))  # whoever looks from time to time has seen it by then
    return f"{len(held)} MiB"


@probe
def tmp_full():
    folder = tempfile.mkdtemp()
    block = b"x" * (1 << 20)
    made = 0
    try:
        while made < int(FACTS["mebibytes"]):
            with open(os.path.join(folder, str(made // 64)), "ab", buffering=0) as file:
                assert file.write(block) == len(block), f"short at {made} MiB"
            made += 1
        return f"{made} MiB"
    except OSError as error:
        raise OSError(error.errno, f"ended at {made} MiB: {error.strerror}") from None
    finally:
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))


@probe
def fork_bomb():
    children, end = [], None
    try:
        while len(children) < 1500:
            child = os.fork()
            if child == 0:
                libc.prctl(1, signal.SIGKILL)
                while True:
                    signal.pause()
            children.append(child)
    except OSError as error:
        end = error
    for child in children:
        os.kill(child, signal.SIGKILL)
    for child in children:
        os.waitpid(child, 0)
    if end:
        raise OSError(end.errno, f"{len(children)} processes: {end.strerror}")
    return f"{len(children)} processes"


@probe
def thread_bomb():
    threading.stack_size(65536)
    stop = threading.Event()
    made = 0
    try:
        while made < 1500:
            threading.Thread(target=stop.wait, daemon=True).start()
            made += 1
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, f"{made} threads: {error}") from None
    finally:
        stop.set()
    return f"{made} threads"


@probe
def descriptors_exhausted():
    held = []
    try:
        while len(held) < 4000:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError as error:
        assert len(held) > 1024, f"{len(held)} files: {error.strerror}"
    return f"{len(held)} files"


# --- the Runtime API ---

def api(method, path, body=b"", headers=()):
    connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"], timeout=5)
    connection.request(method, "/2018-06-01/runtime/" + path, body, dict(headers))
    answer = connection.getresponse()
    return answer, answer.read()


@probe
def answer_other_request():
    answer, _ = api("POST", "invocation/8476a536-e9f4-11e8-9739-2dfe598c3fcd/response", b'"forged"')
    assert answer.status == 202, f"status {answer.status}"
    return "accepted"


@probe
def poll_while_running():
    found = []

    def poll():
        try:
            answer, _ = api("GET", "invocation/next")
            found.append(answer.headers["Lambda-Runtime-Aws-Request-Id"])
        except Exception as error:
            found.append(repr(error))

    threads = [threading.Thread(target=poll) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found != [FACTS["request_id"]] * 2, f"the same event twice: {found[0]}"
    return str(found)


@probe
def huge_headers():
    with socket.create_connection(os.environ["AWS_LAMBDA_RUNTIME_API"].split(":"), 5) as connection:
        connection.sendall(b"POST /2018-06-01/runtime/init/error HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nX-Filler: ")
        for _ in range(64):
            connection.sendall(b"h" * 65536)
        connection.sendall(b"\r\n\r\n")
        found = connection.recv(100)
    assert b" 20" in found[:16], f"{found[:30]}"
    return f"{found[:30]}"


@probe
def smuggled_request():
    """A body that one reader ends early and another late, with an answer to somebody else's request behind it."""
    forged, other = b'"smuggled"', "8476a536-e9f4-11e8-9739-2dfe598c3fcd"
    post = "POST /2018-06-01/runtime/invocation/{}/response HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n"
    hidden = post.format(FACTS["request_id"], len(forged)).encode() + b"\r\n" + forged
    sent = post.format(other, len(hidden) + 5).encode() + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden
    found = b""
    with socket.create_connection(os.environ["AWS_LAMBDA_RUNTIME_API"].split(":"), 5) as connection:
        connection.sendall(sent)
        connection.settimeout(0.5)
        try:
            while part := connection.recv(65536):
                found += part
        except OSError:
            pass
    assert b"HTTP/1.1 202" in found, f"{found.count(b'HTTP/1.1 ')} answers, none accepted"
    return "accepted"


@probe
def forged_init_error():
    answer, _ = api("POST", "init/error", b"{}")
    assert answer.status == 202, f"status {answer.status}"
    return "accepted"


# --- the table ---

def apart(function, seconds):
    """Runs a probe in a process of its own. Returns what came of it."""
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(here)
        signal.alarm(seconds)
        try:
            said = [True, str(function())]
        except NotHere as error:
            said = [None, str(error)]
        except BaseException as error:
            said = [False, f"{type(error).__name__}: {error}"]
        os.write(there, json.dumps([said[0], said[1][:300]]).encode())
        os._exit(0)
    os.close(there)
    with open(here, "rb") as pipe:
        said = pipe.read()
    _, ended = os.waitpid(child, 0)
    if said:
        return json.loads(said)
    return [False, f"killed by signal {os.WTERMSIG(ended)}" if os.WIFSIGNALED(ended) else "it said nothing"]


def handler(event, context):
    FACTS.clear()
    FACTS.update(word.split("=", 1) for word in event.split())
    FACTS["request_id"] = context.aws_request_id
    table = {}
    for name in FACTS["probes"].split(","):
        if name in PROBES:
            succeeded, detail = apart(PROBES[name], int(FACTS.get("seconds", 6)))
        else:
            succeeded, detail = None, "not written in Python"
        table[name] = {"succeeded": succeeded, "detail": detail}
    return table
