/* The sandbox's probes as one static binary that needs nothing of its surroundings, and speaks the Runtime API itself.
 *
 *     cc -static -O1 -o bootstrap probe.c
 *
 * As a function (no arguments): an event is a JSON string of words, `probes=a,b,c` and a word `name=value` for each
 * thing to know; the answer is {"probe": {"succeeded": true, "detail": "..."}}. Each probe runs in a process of its own,
 * so that one that is killed leaves the others alone. `succeeded` is true where the attack worked; null where it cannot
 * be tried here.
 *
 * As a tool for the shell's probes: `bootstrap next FILE` waits for an event, writes it to FILE and prints its request
 * ID; `bootstrap post ID` answers with standard input.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/perf_event.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { REFUSED, SUCCEEDED, NOT_HERE };

static char event[65536];
static char detail[512];
static char fds_at_start[256];
static char request_id[64];

/* --- what the event says --- */

static const char *fact(const char *name) {
    static char values[16][4096];
    static int next;
    char *value = values[next++ % 16], wanted[64];
    *value = 0;
    snprintf(wanted, sizeof wanted, " %s=", name);
    const char *found = strstr(event, wanted);
    if (found) {
        found += strlen(wanted);
        snprintf(value, 4096, "%.*s", (int)strcspn(found, " \""), found);
    }
    return value;
}

static long number(const char *name) { return strtol(fact(name), NULL, 10); }

static const char *tmp(void) {
    const char *folder = getenv("TMPDIR");
    return folder && *folder ? folder : "/tmp";
}

/* --- outcomes --- */

__attribute__((format(printf, 2, 3))) static int say(int outcome, const char *format, ...) {
    va_list rest;
    va_start(rest, format);
    vsnprintf(detail, sizeof detail, format, rest);
    va_end(rest);
    return outcome;
}

static int failed(const char *what) { return say(REFUSED, "%s: %s", what, strerror(errno)); }

/* Where a result of -1 is a refusal and anything else what the attacker wanted. */
static int unless_failed(long result, const char *what) {
    return result == -1 ? failed(what) : say(SUCCEEDED, "%s: %ld", what, result);
}

static int has(const char *bytes, ssize_t length, const char *needle) {
    return *needle && length > 0 && memmem(bytes, (size_t)length, needle, strlen(needle)) != NULL;
}

static char buffer[1 << 17];

static ssize_t slurp(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd == -1) return -1;
    ssize_t length = 0, got;
    while (length < (ssize_t)sizeof buffer - 1 && (got = read(fd, buffer + length, sizeof buffer - 1 - (size_t)length)) > 0)
        length += got;
    int error = errno;
    close(fd);
    errno = error;
    if (length == 0 && got == -1) return -1;
    buffer[length] = 0;
    return length;
}

static int reads_canary(const char *path) {
    ssize_t length = slurp(path);
    if (length == -1) return failed(path);
    return has(buffer, length, fact("canary")) ? say(SUCCEEDED, "%s was read", path) : say(REFUSED, "%s: other content", path);
}

static int reads_any(const char *path) {
    ssize_t length = slurp(path);
    if (length == -1) return failed(path);
    return length > 0 ? say(SUCCEEDED, "%s: %zd bytes", path, length) : say(REFUSED, "%s is empty", path);
}

static int opens(const char *path, int flags) {
    int fd = open(path, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd == -1) return failed(path);
    close(fd);
    return say(SUCCEEDED, "%s was opened", path);
}

static int creates(const char *folder) {
    char path[4200];
    snprintf(path, sizeof path, "%s/left-by-c-%d", folder, getpid());
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd == -1) return failed(path);
    close(fd);
    unlink(path);
    return say(SUCCEEDED, "%s was made", path);
}

/* The first of some comma-separated paths that holds the canary. */
static int reads_one_of(const char *paths) {
    char list[4096];
    snprintf(list, sizeof list, "%s", paths);
    int outcome = say(NOT_HERE, "no path was given");
    for (char *rest = list, *path; outcome != SUCCEEDED && (path = strsep(&rest, ",")) && *path;) outcome = reads_canary(path);
    return outcome;
}

static int parents_written(const char *paths) {
    char list[4096], last[4096] = "";
    snprintf(list, sizeof list, "%s", paths);
    int outcome = say(NOT_HERE, "no path was given");
    for (char *rest = list, *path; outcome != SUCCEEDED && (path = strsep(&rest, ",")) && *path;) {
        struct stat found;
        /* A folder of that name of our own is not the other's. */
        if (stat(path, &found) == -1) {
            outcome = failed(path);
            continue;
        }
        snprintf(last, sizeof last, "%s", path);
        char *slash = strrchr(last, '/');
        if (slash) *slash = 0;
        outcome = creates(last);
    }
    return outcome;
}

#define PROBE(name) static int try_##name(void)

/* --- files --- */

PROBE(server_state_read) { return reads_any(fact("state_file")); }
PROBE(server_state_write) { return creates(fact("data_dir")); }
PROBE(server_state_list) {
    DIR *folder = opendir(fact("data_dir"));
    if (!folder) return failed(fact("data_dir"));
    struct dirent *entry;
    /* Links in a path may leave the folders above visible; what is in them counts. */
    while ((entry = readdir(folder)) && strcmp(entry->d_name, strrchr(fact("state_file"), '/') + 1)) {}
    closedir(folder);
    return entry ? say(SUCCEEDED, "%s is listed", entry->d_name) : say(REFUSED, "the folder shows nothing of the server");
}
PROBE(credentials_read) { return reads_any(fact("credentials_file")); }
PROBE(other_code_read) { return reads_one_of(fact("other_code")); }
PROBE(other_code_write) { return parents_written(fact("other_code")); }
PROBE(own_code_write) { return creates(getenv("LAMBDA_TASK_ROOT")); }
PROBE(runtime_write) { return creates(getenv("LAMBDA_RUNTIME_DIR")); }
PROBE(system_write) { return creates("/usr/lib"); }
PROBE(shadow_read) { return reads_any("/etc/shadow"); }
PROBE(root_home_read) { return reads_canary("/root/.profile"); }
PROBE(host_file_read) { return reads_canary("/srv/host-file"); }
PROBE(host_folder_write) { return creates("/srv/open"); }
PROBE(other_tmp_read) { return reads_one_of(fact("other_tmp")); }
PROBE(other_tmp_write) { return parents_written(fact("other_tmp")); }
PROBE(symlink_out) {
    char path[4200];
    snprintf(path, sizeof path, "%s/link-c", tmp());
    unlink(path);
    if (symlink("/srv/host-file", path) == -1) return failed("symlink");
    int outcome = reads_canary(path);
    unlink(path);
    return outcome;
}
PROBE(hardlink_out) {
    char path[4200];
    snprintf(path, sizeof path, "%s/hard-c", tmp());
    unlink(path);
    if (link(fact("linkable"), path) == -1) return failed("link");
    int outcome = reads_canary(path);
    unlink(path);
    return outcome;
}
PROBE(dotdot_out) {
    int at = open(".", O_PATH | O_DIRECTORY);
    for (int i = 0; i < 40 && at != -1; i++) {
        int above = openat(at, "..", O_PATH | O_DIRECTORY);
        close(at);
        at = above;
    }
    if (at == -1) return failed("..");
    int fd = openat(at, "srv/host-file", O_RDONLY);
    if (fd == -1) return failed("srv/host-file");
    ssize_t length = read(fd, buffer, sizeof buffer);
    return has(buffer, length, fact("canary")) ? say(SUCCEEDED, "read from above the root") : say(REFUSED, "other content");
}
PROBE(proc_self_root) { return reads_canary("/proc/self/root/srv/host-file"); }
PROBE(proc_self_cwd) { return reads_canary("/proc/self/cwd/../../../../../../../../../../../../srv/host-file"); }
PROBE(proc_1_environ) { return reads_canary("/proc/1/environ"); }
PROBE(proc_1_root) { return reads_canary("/proc/1/root/srv/host-file"); }
PROBE(proc_1_fd) {
    if (getppid() == 1) return say(NOT_HERE, "that is the function itself");
    DIR *folder = opendir("/proc/1/fd");
    if (!folder) return failed("/proc/1/fd");
    struct dirent *entry;
    char path[300], target[300] = "";
    while ((entry = readdir(folder))) {
        if (!isdigit((unsigned char)*entry->d_name) || atoi(entry->d_name) < 3) continue;
        snprintf(path, sizeof path, "/proc/1/fd/%s", entry->d_name);
        ssize_t length = readlink(path, target, sizeof target - 1);
        if (length > 0) return say(SUCCEEDED, "%s is %.*s", path, (int)length, target);
    }
    return say(REFUSED, "nothing of it is shown");
}

static int reads_memory_of(long pid) {
    char path[64];
    unsigned long from;
    snprintf(path, sizeof path, "/proc/%ld/maps", pid);
    FILE *maps = fopen(path, "re");
    if (!maps) return failed(path);
    int found = fscanf(maps, "%lx", &from) == 1;
    fclose(maps);
    if (!found) return say(REFUSED, "%s shows nothing", path);
    snprintf(path, sizeof path, "/proc/%ld/mem", pid);
    int fd = open(path, O_RDONLY);
    if (fd == -1) return failed(path);
    char byte;
    return pread(fd, &byte, 1, (off_t)from) == 1 ? say(SUCCEEDED, "read at %lx of process %ld", from, pid) : failed("pread");
}
PROBE(proc_1_mem) { return getppid() == 1 ? say(NOT_HERE, "that is the function itself") : reads_memory_of(1); }
PROBE(server_mem) { return reads_memory_of(number("server_pid")); }

/* Whether any process that can be looked at has this in its environment. */
static int any_environ(const char *needle) {
    DIR *folder = opendir("/proc");
    if (!folder) return failed("/proc");
    struct dirent *entry;
    char path[300];
    int seen = 0;
    while ((entry = readdir(folder))) {
        if (!isdigit((unsigned char)*entry->d_name)) continue;
        snprintf(path, sizeof path, "/proc/%s/environ", entry->d_name);
        ssize_t length = slurp(path);
        if (length < 0) continue;
        seen++;
        if (has(buffer, length, needle)) return say(SUCCEEDED, "%s has it", path);
    }
    return say(REFUSED, "in none of %d processes", seen);
}
PROBE(server_environ) { return any_environ(fact("server_secret")); }
PROBE(other_environ) { return any_environ(fact("other_secret")); }
PROBE(other_proc_root) {
    char path[300];
    snprintf(path, sizeof path, "/proc/%ld/root/srv/host-file", number("other_pid"));
    int outcome = reads_canary(path);
    if (outcome == SUCCEEDED) return outcome;
    snprintf(path, sizeof path, "/proc/%ld/cwd/neighbour-code.txt", number("other_pid"));
    return reads_canary(path);
}
PROBE(core_pattern) { return opens("/proc/sys/kernel/core_pattern", O_WRONLY); }
PROBE(sysctl) { return opens("/proc/sys/vm/overcommit_memory", O_WRONLY); }
PROBE(sysrq) { return opens("/proc/sysrq-trigger", O_WRONLY); }
PROBE(proc_kcore) { return opens("/proc/kcore", O_RDONLY); }
PROBE(sys_write) {
    const char *paths[] = {"/sys/kernel/mm/transparent_hugepage/enabled", "/sys/power/state", "/sys/kernel/uevent_helper",
                           "/sys/class/net/lo/mtu", "/sys/kernel/profiling"};
    int outcome = REFUSED;
    for (size_t i = 0; i < sizeof paths / sizeof *paths && outcome != SUCCEEDED; i++) outcome = opens(paths[i], O_WRONLY);
    return outcome;
}
PROBE(cgroup_write) {
    const char *paths[] = {"/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/memory/cgroup.procs", "/sys/fs/cgroup/pids/cgroup.procs",
                           "/sys/fs/cgroup/unified/cgroup.procs", "/sys/fs/cgroup/systemd/cgroup.procs"};
    int outcome = REFUSED;
    for (size_t i = 0; i < sizeof paths / sizeof *paths && outcome != SUCCEEDED; i++) outcome = opens(paths[i], O_WRONLY);
    return outcome;
}
PROBE(dev_kvm) { return opens("/dev/kvm", O_RDWR); }
PROBE(dev_fuse) { return opens("/dev/fuse", O_RDWR); }
PROBE(dev_kmsg) { return opens("/dev/kmsg", O_RDONLY); }
PROBE(dev_tun) { return opens("/dev/net/tun", O_RDWR); }
PROBE(dev_disk) { return *fact("disk") ? opens(fact("disk"), O_RDONLY) : say(NOT_HERE, "this machine shows no disk"); }
PROBE(mknod_disk) {
    char path[4200];
    struct stat disk;
    snprintf(path, sizeof path, "%s/disk-c", tmp());
    unlink(path);
    unsigned long device = strtoul(fact("disk_device"), NULL, 10);
    if (mknod(path, S_IFBLK | 0600, device) == -1) return failed("mknod");
    int outcome = stat(path, &disk) == 0 ? opens(path, O_RDONLY) : failed("stat");
    unlink(path);
    return outcome;
}
static int unix_answers(const char *name, int abstract);
PROBE(docker_socket) { return unix_answers("/run/docker.sock", 0); }
PROBE(host_socket) { return unix_answers("/srv/host.sock", 0); }
PROBE(abstract_socket) { return unix_answers(fact("canary"), 1); }
PROBE(host_shm) { return reads_canary("/dev/shm/host-shm"); }
PROBE(sysv_shm) {
    int segment = shmget((key_t)number("sysv_key"), 0, 0);
    if (segment == -1) return failed("shmget");
    const char *at = shmat(segment, NULL, SHM_RDONLY);
    if (at == (void *)-1) return failed("shmat");
    return has(at, 4096, fact("canary")) ? say(SUCCEEDED, "the host's segment was read") : say(REFUSED, "other content");
}
PROBE(open_by_handle) {
    struct { struct file_handle head; unsigned char rest[128]; } handle = {.head = {.handle_bytes = 128}};
    int mount_id, at = open("/", O_RDONLY | O_DIRECTORY);
    if (at == -1) return failed("/");
    if (name_to_handle_at(AT_FDCWD, "/", &handle.head, &mount_id, 0) == -1) return failed("name_to_handle_at");
    return unless_failed(open_by_handle_at(at, &handle.head, O_RDONLY), "open_by_handle_at");
}

/* --- processes --- */

PROBE(processes_list) {
    DIR *folder = opendir("/proc");
    if (!folder) return failed("/proc");
    struct dirent *entry;
    char path[300];
    int seen = 0;
    while ((entry = readdir(folder))) {
        if (!isdigit((unsigned char)*entry->d_name)) continue;
        seen++;
        snprintf(path, sizeof path, "/proc/%s/cmdline", entry->d_name);
        ssize_t length = slurp(path);
        if (has(buffer, length, fact("data_dir"))) return say(SUCCEEDED, "%s is the server's", path);
    }
    return say(REFUSED, "%d processes, and none is the server", seen);
}
PROBE(signal_server) { return unless_failed(kill((pid_t)number("server_pid"), 0), "kill"); }
PROBE(signal_other) { return unless_failed(kill((pid_t)number("other_pid"), 0), "kill"); }
PROBE(ptrace_server) {
    pid_t pid = (pid_t)number("server_pid");
    long result = ptrace(PTRACE_SEIZE, pid, NULL, NULL);
    if (result == 0) ptrace(PTRACE_DETACH, pid, NULL, NULL);
    return unless_failed(result, "ptrace");
}
PROBE(ptrace_child) { return unless_failed(ptrace(PTRACE_TRACEME, 0, NULL, NULL), "ptrace"); }

static int reads_by_vm(long pid) {
    char byte;
    struct iovec here = {&byte, 1}, there = {(void *)0x10, 1};
    /* Nothing lies at the address: who is told so was let through. */
    if (process_vm_readv((pid_t)pid, &here, 1, &there, 1, 0) == -1 && errno != EFAULT) return failed("process_vm_readv");
    return say(SUCCEEDED, "process_vm_readv was let through to process %ld", pid);
}
PROBE(vm_read_server) { return reads_by_vm(number("server_pid")); }
PROBE(vm_read_other) { return reads_by_vm(number("other_pid")); }
PROBE(priority_raise) { return unless_failed(setpriority(PRIO_PROCESS, 0, -10), "setpriority"); }
PROBE(priority_server) {
    pid_t pid = (pid_t)number("server_pid");
    errno = 0;
    int now = getpriority(PRIO_PROCESS, (id_t)pid);
    if (now == -1 && errno) return failed("getpriority");
    return unless_failed(setpriority(PRIO_PROCESS, (id_t)pid, now), "setpriority");
}
PROBE(realtime) {
    struct sched_param parameters = {.sched_priority = 1};
    return unless_failed(sched_setscheduler(0, SCHED_RR, &parameters), "sched_setscheduler");
}
PROBE(limits_raise) {
    struct rlimit limit = {1 << 19, 1 << 19};
    return unless_failed(setrlimit(RLIMIT_NOFILE, &limit), "setrlimit");
}
PROBE(limits_of_server) {
    struct rlimit limit;
    return unless_failed(prlimit((pid_t)number("server_pid"), RLIMIT_NOFILE, NULL, &limit), "prlimit");
}
PROBE(oom_score) {
    int fd = open("/proc/self/oom_score_adj", O_WRONLY);
    if (fd == -1) return failed("/proc/self/oom_score_adj");
    return unless_failed(write(fd, "-1000", 5), "write");
}
PROBE(steal_descriptor) {
    int pidfd = (int)syscall(SYS_pidfd_open, (pid_t)number("server_pid"), 0);
    if (pidfd == -1) return failed("pidfd_open");
    return unless_failed(syscall(438 /* pidfd_getfd */, pidfd, 1, 0), "pidfd_getfd");
}
PROBE(affinity_server) {
    cpu_set_t cores;
    pid_t pid = (pid_t)number("server_pid");
    if (sched_getaffinity(pid, sizeof cores, &cores) == -1) return failed("sched_getaffinity");
    return unless_failed(sched_setaffinity(pid, sizeof cores, &cores), "sched_setaffinity");
}

/* --- network --- */

/* Waits for a connection for up to 1.5 s, sends, and gives what came within as long. */
static ssize_t converse(int fd, const struct sockaddr *peer, socklen_t length, const char *sent, char *got, size_t size) {
    fcntl(fd, F_SETFL, O_NONBLOCK);
    struct pollfd ready = {fd, POLLOUT, 0};
    if (connect(fd, peer, length) == -1) {
        if (errno != EINPROGRESS && errno != EAGAIN) return -1;
        int error = ETIMEDOUT;
        socklen_t size_of_error = sizeof error;
        if (poll(&ready, 1, 1500) == 1) getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size_of_error);
        if (error) {
            errno = error;
            return -1;
        }
    }
    if (send(fd, sent, strlen(sent), MSG_NOSIGNAL) == -1) return -1;
    ready.events = POLLIN;
    if (poll(&ready, 1, 1500) != 1) {
        errno = ETIMEDOUT;
        return -1;
    }
    ssize_t received = recv(fd, got, size - 1, 0);
    if (received >= 0) got[received] = 0;
    return received;
}

static ssize_t tcp_ask(const char *address, long port, const char *sent) {
    struct sockaddr_in peer = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    inet_pton(AF_INET, address, &peer.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd == -1) return -1;
    ssize_t got = converse(fd, (struct sockaddr *)&peer, sizeof peer, sent, buffer, sizeof buffer);
    int error = errno;
    close(fd);
    errno = error;
    return got;
}

#define GET "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

static int tcp_answers(const char *address, long port) {
    if (tcp_ask(address, port, GET) <= 0) return failed("connect");
    return say(SUCCEEDED, "%s:%ld answered %.20s", address, port, buffer);
}
PROBE(control_api) { return tcp_answers("127.0.0.1", number("api_port")); }
PROBE(host_loopback) { return tcp_answers("127.0.0.1", number("host_tcp")); }
PROBE(host_address) { return tcp_answers(fact("host_addr"), number("host_tcp")); }
PROBE(host_loopback6) {
    struct sockaddr_in6 peer = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)number("host_tcp")), .sin6_addr = in6addr_loopback};
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    if (fd == -1) return failed("socket");
    if (converse(fd, (struct sockaddr *)&peer, sizeof peer, GET, buffer, sizeof buffer) <= 0) return failed("connect");
    return say(SUCCEEDED, "[::1] answered %.20s", buffer);
}
/* In a network of our own the same number is our own listener, and the other's cannot even be named. */
static int others_answer(const char *own, long port) {
    const char *colon = own ? strrchr(own, ':') : NULL;
    if (colon && atol(colon + 1) == port) return say(REFUSED, "%ld is our own", port);
    return tcp_answers("127.0.0.1", port);
}
PROBE(other_runtime_api) { return others_answer(getenv("AWS_LAMBDA_RUNTIME_API"), number("other_runtime")); }
PROBE(other_s3) { return others_answer(getenv("AWS_ENDPOINT_URL_S3"), number("other_s3")); }
PROBE(metadata) { return tcp_answers("169.254.169.254", 80); }

static int udp_answers(const char *address, long port, const char *sent, size_t length) {
    struct sockaddr_in peer = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    inet_pton(AF_INET, address, &peer.sin_addr);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd == -1) return failed("socket");
    if (sendto(fd, sent, length, 0, (struct sockaddr *)&peer, sizeof peer) == -1) return failed("sendto");
    struct pollfd ready = {fd, POLLIN, 0};
    if (poll(&ready, 1, 1000) != 1) return say(REFUSED, "no answer");
    ssize_t got = recv(fd, buffer, sizeof buffer, 0);
    return got > 0 ? say(SUCCEEDED, "%zd bytes came back", got) : failed("recv");
}
PROBE(dns) {
    static const char query[] = "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x05probe\x04test\x00\x00\x01\x00\x01";
    return udp_answers(fact("nameserver"), 53, query, sizeof query - 1);
}
PROBE(udp_host) { return udp_answers(fact("host_addr"), number("host_udp"), "x", 1); }
PROBE(udp_loopback) { return udp_answers("127.0.0.1", number("host_udp"), "x", 1); }
PROBE(icmp) {
    int fd = socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP);
    return unless_failed(fd == -1 ? socket(AF_INET, SOCK_RAW, IPPROTO_ICMP) : fd, "socket");
}
PROBE(raw_socket) { return unless_failed(socket(AF_INET, SOCK_RAW, IPPROTO_RAW), "socket"); }
PROBE(packet_socket) { return unless_failed(socket(AF_PACKET, SOCK_RAW, 0), "socket"); }
PROBE(vsock) { return unless_failed(socket(AF_VSOCK, SOCK_STREAM, 0), "socket"); }
PROBE(alg_socket) { return unless_failed(socket(AF_ALG, SOCK_SEQPACKET, 0), "socket"); }
PROBE(netlink_routes) {
    struct { uint32_t length; uint16_t type, flags; uint32_t sequence, port; unsigned char rest[8]; } question = {
        24, 22 /* RTM_GETADDR */, 0x301, 1, 0, {AF_INET}};
    struct in_addr wanted;
    inet_pton(AF_INET, fact("host_addr"), &wanted);
    int fd = socket(AF_NETLINK, SOCK_RAW, 0);
    if (fd == -1) return failed("socket");
    if (send(fd, &question, sizeof question, 0) == -1) return failed("send");
    struct pollfd ready = {fd, POLLIN, 0};
    if (poll(&ready, 1, 1000) != 1) return say(REFUSED, "no answer");
    ssize_t got = recv(fd, buffer, sizeof buffer, 0);
    if (got > 0 && memmem(buffer, (size_t)got, &wanted, 4)) return say(SUCCEEDED, "the host's addresses are shown");
    return say(REFUSED, "the host's addresses are not shown");
}
PROBE(netlink_audit) { return unless_failed(socket(AF_NETLINK, SOCK_RAW, 9), "socket"); }
static int unix_answers(const char *name, int abstract) {
    struct sockaddr_un peer = {.sun_family = AF_UNIX};
    snprintf(peer.sun_path + abstract, sizeof peer.sun_path - 1, "%s", name);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd == -1) return failed("socket");
    socklen_t length = abstract ? (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name)) : sizeof peer;
    if (converse(fd, (struct sockaddr *)&peer, length, GET, buffer, sizeof buffer) <= 0) return failed("connect");
    return say(SUCCEEDED, "answered %.20s", buffer);
}
/* Whether the door to S3 opens anything else of the server. */
static int forwarder_answers(const char *path) {
    const char *endpoint = getenv("AWS_ENDPOINT_URL_S3"), *colon = endpoint ? strrchr(endpoint, ':') : NULL;
    char sent[300], address[64] = "127.0.0.1";
    if (!colon) return say(NOT_HERE, "no endpoint");
    sscanf(endpoint, "http://%63[0-9.]", address);
    snprintf(sent, sizeof sent, "GET %s HTTP/1.1\r\nHost: lambda.us-east-1.amazonaws.com\r\nConnection: close\r\n\r\n", path);
    if (tcp_ask(address, atol(colon + 1), sent) <= 0) return failed("connect");
    return strncmp(buffer, "HTTP/1.1 2", 10) ? say(REFUSED, "%.30s", buffer) : say(SUCCEEDED, "%.30s", buffer);
}
PROBE(s3_door_to_lambda) { return forwarder_answers("/2015-03-31/functions/"); }
PROBE(s3_door_to_longshore) { return forwarder_answers("/_longshore/v1/jobs"); }

/* --- kernel --- */

PROBE(unshare_user) { return unless_failed(unshare(CLONE_NEWUSER), "unshare"); }
PROBE(unshare_mount) { return unless_failed(unshare(CLONE_NEWNS), "unshare"); }
PROBE(unshare_net) { return unless_failed(unshare(CLONE_NEWNET), "unshare"); }
PROBE(unshare_pid) { return unless_failed(unshare(CLONE_NEWPID), "unshare"); }
PROBE(unshare_cgroup) { return unless_failed(unshare(CLONE_NEWCGROUP), "unshare"); }
PROBE(clone_user) {
    long child = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, NULL);
    if (child == 0) _exit(0);
    return unless_failed(child, "clone");
}
PROBE(clone3_user) {
    uint64_t arguments[11] = {CLONE_NEWUSER, 0, 0, 0, SIGCHLD};
    long child = syscall(SYS_clone3, arguments, sizeof arguments);
    if (child == 0) _exit(0);
    return unless_failed(child, "clone3");
}
PROBE(mount_tmpfs) {
    long result = mount("probe", tmp(), "tmpfs", 0, NULL);
    if (result == 0) umount2(tmp(), MNT_DETACH);
    return unless_failed(result, "mount");
}
PROBE(mount_bind) {
    long result = mount("/", tmp(), NULL, MS_BIND, NULL);
    if (result == 0) umount2(tmp(), MNT_DETACH);
    return unless_failed(result, "mount");
}
PROBE(mount_remount) { return unless_failed(mount(NULL, "/srv", NULL, MS_REMOUNT | MS_BIND, NULL), "mount"); }
PROBE(fsopen) { return unless_failed(syscall(430 /* fsopen */, "tmpfs", 0), "fsopen"); }
PROBE(open_tree) { return unless_failed(syscall(428 /* open_tree */, AT_FDCWD, "/", 1 /* CLONE */), "open_tree"); }
PROBE(umount) {
    /* A path that is no mount point: who is told so was let through. */
    if (umount2("/usr/bin", MNT_DETACH) == -1 && errno != EINVAL) return failed("umount2");
    return say(SUCCEEDED, "umount2 was let through");
}
PROBE(chroot_in) { return unless_failed(chroot(tmp()), "chroot"); }
PROBE(pivot_root) {
    if (syscall(SYS_pivot_root, "/usr", "/usr") == -1 && errno != EINVAL && errno != EBUSY) return failed("pivot_root");
    return say(SUCCEEDED, "pivot_root was let through");
}
PROBE(bpf) {
    uint32_t attributes[32] = {2 /* array */, 4, 4, 1};
    return unless_failed(syscall(SYS_bpf, 0 /* map */, attributes, sizeof attributes), "bpf");
}
PROBE(keyctl) { return unless_failed(syscall(SYS_keyctl, 0 /* get ID */, -2 /* of the process's keyring */, 1), "keyctl"); }
PROBE(add_key) { return unless_failed(syscall(SYS_add_key, "user", "probe", "x", 1, -2), "add_key"); }
PROBE(io_uring) {
    struct io_uring_params parameters = {0};
    return unless_failed(syscall(SYS_io_uring_setup, 1, &parameters), "io_uring_setup");
}
PROBE(userfaultfd) { return unless_failed(syscall(SYS_userfaultfd, O_CLOEXEC | 1 /* user mode */), "userfaultfd"); }
PROBE(perf) {
    struct perf_event_attr attributes = {.type = PERF_TYPE_SOFTWARE, .size = sizeof attributes, .config = PERF_COUNT_SW_CPU_CLOCK,
                                         .exclude_kernel = 1, .exclude_hv = 1};
    return unless_failed(syscall(SYS_perf_event_open, &attributes, 0, -1, -1, 0), "perf_event_open");
}
static int joins(const char *path, int kind) {
    int fd = open(path, O_RDONLY);
    return fd == -1 ? failed(path) : unless_failed(setns(fd, kind), "setns");
}
PROBE(setns_net) { return joins("/proc/1/ns/net", CLONE_NEWNET); }
PROBE(setns_mount) { return joins("/proc/1/ns/mnt", CLONE_NEWNS); }
PROBE(setns_own) { return joins("/proc/self/ns/uts", CLONE_NEWUTS); }
PROBE(personality_change) {
    if (personality(ADDR_NO_RANDOMIZE) == -1) return failed("personality");
    return personality(0xffffffff) & ADDR_NO_RANDOMIZE ? say(SUCCEEDED, "addresses are not random any more") : say(REFUSED, "ignored");
}
PROBE(tiocsti) {
    int pair = posix_openpt(O_RDWR | O_NOCTTY);
    if (pair == -1) return failed("/dev/ptmx");
    if (grantpt(pair) == -1 || unlockpt(pair) == -1) return failed("unlockpt");
    int end = open(ptsname(pair), O_RDWR | O_NOCTTY);
    if (end == -1) return failed("pts");
    setsid();
    if (ioctl(end, TIOCSCTTY, 0) == -1) return failed("TIOCSCTTY");
    return unless_failed(ioctl(end, TIOCSTI, "x"), "TIOCSTI");
}
PROBE(tioclinux) {
    char paste = 3;
    int pair = posix_openpt(O_RDWR | O_NOCTTY);
    if (pair == -1) return failed("/dev/ptmx");
    /* On a terminal that is no console: who is told so was let through. */
    if (ioctl(pair, TIOCLINUX, &paste) == -1 && errno != ENOTTY && errno != EINVAL) return failed("TIOCLINUX");
    return say(SUCCEEDED, "TIOCLINUX was let through");
}
PROBE(modify_ldt) {
    uint32_t entry[4] = {0, 0, 0, 0x28 /* empty */};
    return unless_failed(syscall(SYS_modify_ldt, 1, entry, sizeof entry), "modify_ldt");
}
PROBE(init_module) {
    if (syscall(SYS_init_module, NULL, 0, "") == -1 && errno != EFAULT && errno != ENOEXEC) return failed("init_module");
    return say(SUCCEEDED, "init_module was let through");
}
PROBE(set_hostname) {
    char name[65];
    gethostname(name, sizeof name);
    return unless_failed(sethostname(name, strlen(name)), "sethostname");
}
PROBE(kernel_log) { return unless_failed(syscall(SYS_syslog, 3, buffer, 64), "syslog"); }
PROBE(ports) { return unless_failed(syscall(SYS_ioperm, 0x80, 1, 1), "ioperm"); }
PROBE(fanotify) { return unless_failed(syscall(SYS_fanotify_init, 4 /* content */, O_RDONLY), "fanotify_init"); }
PROBE(swap) {
    if (syscall(SYS_swapoff, "/nothing") == -1 && errno != ENOENT) return failed("swapoff");
    return say(SUCCEEDED, "swapoff was let through");
}
PROBE(process_accounting) {
    if (syscall(SYS_acct, "/nothing/at/all") == -1 && errno != ENOENT) return failed("acct");
    return say(SUCCEEDED, "acct was let through");
}
PROBE(set_clock) {
    /* A clock that cannot be set: who is told so was let through. Nobody's time is changed. */
    struct timespec time = {0};
    if (clock_settime(CLOCK_MONOTONIC, &time) == -1) return failed("clock_settime");
    return say(SUCCEEDED, "clock_settime was let through");
}
/* A system call by another door than the filter may look at. */
PROBE(old_abi_user) {
#ifdef __x86_64__
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(310L /* unshare */), "b"((long)CLONE_NEWUSER) : "memory", "r8", "r9", "r10", "r11");
    errno = (int)-result;
    return result < 0 ? failed("int 0x80") : say(SUCCEEDED, "unshare by int 0x80");
#else
    return say(NOT_HERE, "this processor has no older interface");
#endif
}
PROBE(old_abi_calls) {
#ifdef __x86_64__
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(20L /* getpid */) : "memory", "r8", "r9", "r10", "r11");
    errno = (int)-result;
    return result < 0 ? failed("int 0x80") : say(SUCCEEDED, "getpid by int 0x80: %ld", result);
#else
    return say(NOT_HERE, "this processor has no older interface");
#endif
}
PROBE(x32_user) { return unless_failed(syscall(0x40000000L | SYS_unshare, CLONE_NEWUSER), "unshare by x32"); }
/* The filter may look at half a register. */
PROBE(wide_socket_family) {
    int fd = (int)syscall(SYS_socket, 0x100000000L | AF_PACKET, SOCK_RAW, 0);
    return unless_failed(fd, "socket");
}
PROBE(wide_tiocsti) {
    int pair = posix_openpt(O_RDWR | O_NOCTTY);
    if (pair == -1) return failed("/dev/ptmx");
    if (grantpt(pair) == -1 || unlockpt(pair) == -1) return failed("unlockpt");
    int end = open(ptsname(pair), O_RDWR | O_NOCTTY);
    if (end == -1) return failed("pts");
    setsid();
    if (ioctl(end, TIOCSCTTY, 0) == -1) return failed("TIOCSCTTY");
    return unless_failed(syscall(SYS_ioctl, end, 0x100000000L | TIOCSTI, "x"), "TIOCSTI");
}
PROBE(setuid_root) {
    if (setuid(0) == -1) return failed("setuid");
    return say(SUCCEEDED, "the user is root");
}
PROBE(setgroups_root) {
    gid_t none = 0;
    return unless_failed(syscall(SYS_setgroups, 1, &none), "setgroups");
}
PROBE(lock_memory) {
    size_t size = 1 << 20;
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return unless_failed(mlock(at, size), "mlock of 1 MiB");
}

/* --- identity --- */

static long status_of(const char *name, int base) {
    ssize_t length = slurp("/proc/self/status");
    char wanted[32];
    snprintf(wanted, sizeof wanted, "\n%s:", name);
    char *found = length > 0 ? strstr(buffer, wanted) : NULL;
    return found ? (long)strtoull(found + strlen(wanted), NULL, base) : -1;
}
PROBE(user_is_root) {
    uid_t real, effective, saved;
    getresuid(&real, &effective, &saved);
    int root = real == 0 || effective == 0 || saved == 0;
    return say(root ? SUCCEEDED : REFUSED, "uids %u %u %u", real, effective, saved);
}
PROBE(group_is_root) {
    gid_t real, effective, saved;
    getresgid(&real, &effective, &saved);
    int root = real == 0 || effective == 0 || saved == 0;
    return say(root ? SUCCEEDED : REFUSED, "gids %u %u %u", real, effective, saved);
}
PROBE(groups_left) {
    gid_t groups[64];
    int count = getgroups(64, groups), strange = 0;
    for (int i = 0; i < count; i++) strange += groups[i] != getgid();
    return say(strange ? SUCCEEDED : REFUSED, "%d groups, the first %d", count, count > 0 ? (int)groups[0] : -1);
}
PROBE(capabilities_left) {
    const char *sets[] = {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"};
    for (int i = 0; i < 5; i++) {
        long set = status_of(sets[i], 16);
        if (set != 0) return say(SUCCEEDED, "%s is %lx", sets[i], set);
    }
    return say(REFUSED, "all sets are empty");
}
PROBE(new_privileges) {
    int off = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
    return say(off == 1 ? REFUSED : SUCCEEDED, "no_new_privs is %d", off);
}
PROBE(no_seccomp) {
    long mode = status_of("Seccomp", 10);
    return say(mode == 2 ? REFUSED : SUCCEEDED, "the mode is %ld", mode);
}
PROBE(descriptors_inherited) { return say(*fds_at_start ? SUCCEEDED : REFUSED, "above 2: %s", *fds_at_start ? fds_at_start : "none"); }
PROBE(environment_of_server) {
    extern char **environ;
    for (char **at = environ; *at; at++) {
        if (strstr(*at, fact("server_secret")) || strstr(*at, fact("canary"))) return say(SUCCEEDED, "%.60s", *at);
        char name[128];
        snprintf(name, sizeof name, ",%.*s,", (int)strcspn(*at, "="), *at);
        if (!strstr(fact("known_variables"), name)) return say(SUCCEEDED, "%s is not one of Lambda's", name);
    }
    return say(REFUSED, "nothing but what Lambda sets");
}
PROBE(umask_lax) {
    mode_t mask = umask(022);
    return say((mask & 022) == 022 ? REFUSED : SUCCEEDED, "the umask is %03o", mask);
}
PROBE(terminal) { return opens("/dev/tty", O_RDWR); }
PROBE(session_of_server) {
    /* The function's process, not the one of this probe, leads its session. */
    pid_t session = getsid(0);
    return say(session == (pid_t)number("session") ? SUCCEEDED : REFUSED, "the session is %d", session);
}
PROBE(host_name) {
    char name[65];
    gethostname(name, sizeof name);
    return say(strcmp(name, fact("host_name")) ? REFUSED : SUCCEEDED, "the host is called %s", name);
}
PROBE(core_dumps) {
    struct rlimit limit;
    getrlimit(RLIMIT_CORE, &limit);
    return say(limit.rlim_max ? SUCCEEDED : REFUSED, "the limit is %llu", (unsigned long long)limit.rlim_max);
}
PROBE(input_from_server) {
    struct stat input, null;
    if (fstat(0, &input) == -1) return say(REFUSED, "there is none");
    int is_null = S_ISCHR(input.st_mode) && input.st_rdev == makedev(1, 3);
    (void)null;
    return say(is_null ? REFUSED : SUCCEEDED, "standard input is %o", input.st_mode);
}

/* --- resources: each in an invocation of its own --- */

/* Whoever looks at the memory from time to time has seen it by then. */
static void nap(void) { sleep((unsigned)number("nap")); }

static long eat(size_t mebibytes) {
    for (size_t i = 0; i < mebibytes; i++) {
        char *at = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (at == MAP_FAILED) return (long)i;
        memset(at, (int)i + 1, 1 << 20);
    }
    return (long)mebibytes;
}
PROBE(memory) {
    long wanted = number("mebibytes"), got = eat((size_t)wanted);
    if (got == wanted) nap();
    return say(got == wanted ? SUCCEEDED : REFUSED, "%ld MiB of %ld", got, wanted);
}
/* As many processes as there are to be, each with its share. */
PROBE(memory_by_children) {
    long wanted = number("mebibytes");
    int ready[2], status, all = 1;
    if (pipe(ready) == -1) return failed("pipe");
    pid_t children[4];
    for (int i = 0; i < 4; i++) {
        if ((children[i] = fork()) == 0) {
            if (eat((size_t)wanted / 4) == wanted / 4 && write(ready[1], "x", 1) == 1) pause();
            _exit(1);
        }
    }
    close(ready[1]);
    char byte;
    for (int i = 0; i < 4; i++) all &= read(ready[0], &byte, 1) == 1;
    if (all) nap();
    for (int i = 0; i < 4; i++) all &= waitpid(children[i], &status, WNOHANG) == 0;
    for (int i = 0; i < 4; i++)
        if (children[i] > 0) kill(children[i], SIGKILL), waitpid(children[i], &status, 0);
    return say(all ? SUCCEEDED : REFUSED, "four processes with %ld MiB together", wanted);
}
static int fill_file(int fd, long mebibytes, const char *what) {
    static char block[1 << 20];
    memset(block, 'x', sizeof block);
    signal(SIGXFSZ, SIG_IGN);
    for (long i = 0; i < mebibytes; i++) {
        ssize_t wrote = write(fd, block, sizeof block);
        if (wrote != (ssize_t)sizeof block) return say(REFUSED, "%s ended at %ld MiB: %s", what, i, wrote == -1 ? strerror(errno) : "short");
    }
    return say(SUCCEEDED, "%s took %ld MiB", what, mebibytes);
}
/* In files that have no name: each of a size that a bound on one file allows. */
PROBE(memory_by_file) {
    int outcome = REFUSED;
    long wanted = number("mebibytes"), done = 0;
    for (; done < wanted; done += 128) {
        int fd = memfd_create("probe", 0);
        if (fd == -1) return failed("memfd_create");
        if ((outcome = fill_file(fd, 128, "a file in memory")) != SUCCEEDED) return outcome;
    }
    return say(outcome, "files in memory took %ld MiB", done);
}
PROBE(memory_by_mapping) {
    size_t size = (size_t)number("mebibytes") << 20;
    char *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) return failed("mmap");
    for (size_t done = 0; done < size; done += 4096) at[done] = 1;
    nap();
    return say(SUCCEEDED, "%zu MiB that processes could share", size >> 20);
}
PROBE(memory_by_segment) {
    size_t size = (size_t)number("mebibytes") << 20;
    int segment = shmget(IPC_PRIVATE, size, IPC_CREAT | 0600);
    if (segment == -1) return failed("shmget");
    char *at = shmat(segment, NULL, 0);
    shmctl(segment, IPC_RMID, NULL);
    if (at == (void *)-1) return failed("shmat");
    for (size_t done = 0; done < size; done += 4096) at[done] = 1;
    nap();
    return say(SUCCEEDED, "%zu MiB of a segment", size >> 20);
}
static int fill_folder(const char *folder, long mebibytes) {
    char path[4200];
    int outcome = REFUSED;
    long done = 0;
    /* Files of 64 MiB: a bound on one file's size is not one on the folder. */
    for (; done < mebibytes; done += 64) {
        snprintf(path, sizeof path, "%s/full-%ld", folder, done);
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        if (fd == -1) return say(REFUSED, "%s ended at %ld MiB: %s", folder, done, strerror(errno));
        outcome = fill_file(fd, 64, folder);
        close(fd);
        if (outcome != SUCCEEDED) {
            char inner[256];
            snprintf(inner, sizeof inner, "%.200s", detail);
            return say(REFUSED, "after %ld MiB, %s", done, inner);
        }
    }
    return say(SUCCEEDED, "%s took %ld MiB", folder, done);
}
static void empty_folder(const char *folder) {
    char path[4200];
    for (long done = 0; done < 4096; done += 64) snprintf(path, sizeof path, "%s/full-%ld", folder, done), unlink(path);
}
PROBE(tmp_full) {
    int outcome = fill_folder(tmp(), number("mebibytes"));
    empty_folder(tmp());
    return outcome;
}
PROBE(shm_full) {
    int outcome = fill_folder("/dev/shm", number("mebibytes"));
    empty_folder("/dev/shm");
    return outcome;
}
PROBE(many_files) {
    char path[4200];
    long wanted = number("files"), made = 0;
    int error = 0;
    for (; made < wanted; made++) {
        snprintf(path, sizeof path, "%s/many-%ld", tmp(), made);
        int fd = open(path, O_WRONLY | O_CREAT, 0600);
        if (fd == -1) {
            error = errno;
            break;
        }
        close(fd);
    }
    for (long i = 0; i < made; i++) snprintf(path, sizeof path, "%s/many-%ld", tmp(), i), unlink(path);
    return say(made == wanted ? SUCCEEDED : REFUSED, "%ld files: %s", made, error ? strerror(error) : "no end");
}
PROBE(log_flood) {
    static char line[1 << 16];
    memset(line, 'f', sizeof line);
    for (size_t at = 1023; at < sizeof line; at += 1024) line[at] = '\n';
    long blocks = number("mebibytes") * 16;
    for (long i = 0; i < blocks; i++)
        for (size_t done = 0; done < sizeof line;) {
            ssize_t wrote = write(1, line + done, sizeof line - done);
            if (wrote <= 0) return failed("write");
            done += (size_t)wrote;
        }
    return say(SUCCEEDED, "%ld MiB were printed", blocks / 16);
}
PROBE(fork_bomb) {
    /* Counted, not exponential: what the machine bears is known beforehand. */
    enum { ENOUGH = 1500 };
    static pid_t children[ENOUGH];
    int made = 0, error = 0;
    for (; made < ENOUGH; made++) {
        pid_t child = fork();
        if (child == -1) {
            error = errno;
            break;
        }
        if (child == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            pause();
            _exit(0);
        }
        children[made] = child;
    }
    for (int i = 0; i < made; i++) kill(children[i], SIGKILL);
    for (int i = 0; i < made; i++) waitpid(children[i], NULL, 0);
    return say(made == ENOUGH ? SUCCEEDED : REFUSED, "%d processes: %s", made, error ? strerror(error) : "no end");
}
static void *wait_forever(void *unused) {
    pause();
    return unused;
}
PROBE(thread_bomb) {
    enum { ENOUGH = 1500 };
    pthread_attr_t attributes;
    pthread_t thread;
    int made = 0, error = 0;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 65536);
    while (made < ENOUGH && !(error = pthread_create(&thread, &attributes, wait_forever, NULL))) made++;
    return say(made == ENOUGH ? SUCCEEDED : REFUSED, "%d threads: %s", made, error ? strerror(error) : "no end");
}
PROBE(descriptors_exhausted) {
    int made = 0;
    while (made < 4000 && open("/dev/null", O_RDONLY) != -1) made++;
    return say(made > 1024 ? SUCCEEDED : REFUSED, "%d files: %s", made, strerror(errno));
}
PROBE(file_of_a_tebibyte) {
    char path[4200];
    snprintf(path, sizeof path, "%s/sparse-c", tmp());
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    if (fd == -1) return failed(path);
    signal(SIGXFSZ, SIG_IGN);
    long result = ftruncate(fd, (off_t)1 << 40);
    close(fd);
    unlink(path);
    return unless_failed(result, "ftruncate");
}
/* A process that nobody is the parent of, in a session of its own, without a word in its environment, that writes into
 * a file what time it is for as long as it lives. */
static void daemonise(void) {
    if (fork()) {
        wait(NULL);
        return;
    }
    setsid();
    if (fork()) _exit(0);
    for (int signal_number = 1; signal_number < 65; signal_number++) signal(signal_number, SIG_IGN);
    for (int fd = 0; fd < 1024; fd++) close(fd);
    char self[] = "/proc/self/exe", *arguments[] = {(char *)"linger", (char *)fact("mark"), (char *)fact("how"), NULL}, *nothing[] = {NULL};
    execve(self, arguments, nothing);
    char path[4200];
    snprintf(path, sizeof path, "%s/bootstrap", getenv("LAMBDA_TASK_ROOT"));
    execve(path, arguments, nothing);
    for (;;) pause();
}
PROBE(daemon_left) {
    daemonise();
    return say(SUCCEEDED, "a process was left behind");
}
PROBE(daemon_and_spin) {
    daemonise();
    for (;;) {}
    return REFUSED;
}
PROBE(spin) {
    signal(SIGTERM, SIG_IGN);
    for (;;) {}
    return REFUSED;
}
PROBE(kill_all) {
    return unless_failed(kill(-1, SIGKILL), "kill");
}
PROBE(stop_server) { return unless_failed(kill((pid_t)number("server_pid"), SIGKILL), "kill"); }
PROBE(stop_parent) {
    /* Whoever watches over this process stands still. */
    return unless_failed(kill(getppid(), SIGSTOP), "kill");
}
PROBE(residue_leave) {
    char path[4200];
    const char *folders[] = {tmp(), "/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/run"};
    int left = 0;
    for (int i = 0; i < 6; i++) {
        snprintf(path, sizeof path, "%s/residue-%s", folders[i], fact("mark"));
        int fd = open(path, O_WRONLY | O_CREAT, 0666);
        if (fd != -1) left++, close(fd);
    }
    if (shmget(0x4e5, 4096, IPC_CREAT | 0666) != -1) left++;
    return say(left ? SUCCEEDED : REFUSED, "left in %d places", left);
}
PROBE(residue_find) {
    char path[4200];
    const char *folders[] = {tmp(), "/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/run"};
    for (int i = 0; i < 6; i++) {
        snprintf(path, sizeof path, "%s/residue-%s", folders[i], fact("mark"));
        if (access(path, F_OK) == 0) return say(SUCCEEDED, "%s is there", path);
    }
    if (shmget(0x4e5, 0, 0) != -1) return say(SUCCEEDED, "the segment is there");
    return say(REFUSED, "nothing is there");
}

/* --- the Runtime API --- */

static const char *api(void) { return getenv("AWS_LAMBDA_RUNTIME_API"); }

static int api_connect(void) {
    char address[64] = "";
    int port = 0;
    if (!api() || sscanf(api(), "%63[^:]:%d", address, &port) != 2) return -1;
    struct sockaddr_in peer = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if (!strcmp(address, "localhost")) strcpy(address, "127.0.0.1");
    inet_pton(AF_INET, address, &peer.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd == -1 || connect(fd, (struct sockaddr *)&peer, sizeof peer) == -1) return -1;
    return fd;
}

static int send_all(int fd, const char *bytes, size_t length) {
    while (length) {
        ssize_t sent = send(fd, bytes, length, MSG_NOSIGNAL);
        if (sent <= 0) return -1;
        bytes += sent;
        length -= (size_t)sent;
    }
    return 0;
}

/* Receives head and body; the status, or -1. The answer is in `answer`, its body at `*body`. */
static char answer[1 << 17];
static int receive(int fd, char **body) {
    size_t length = 0, wanted = 0;
    char *end = NULL;
    for (;;) {
        ssize_t got = recv(fd, answer + length, sizeof answer - 1 - length, 0);
        /* An environment that is idle is stopped, and goes on with the next event. */
        if (got == -1 && errno == EINTR) continue;
        if (got <= 0) return -1;
        length += (size_t)got;
        answer[length] = 0;
        if (!end && (end = strstr(answer, "\r\n\r\n"))) {
            char *field = strcasestr(answer, "\r\ncontent-length:");
            wanted = (size_t)(end + 4 - answer) + (field && field < end ? strtoul(field + 17, NULL, 10) : 0);
        }
        if (end && length >= wanted) break;
    }
    *body = end + 4;
    return atoi(answer + 9);
}

static int ask(const char *method, const char *path, const char *headers, const char *sent, size_t length, char **body) {
    static char head[4096];
    int fd = api_connect();
    if (fd == -1) return -1;
    int size = snprintf(head, sizeof head, "%s /2018-06-01/runtime/%s HTTP/1.1\r\nHost: %s\r\n%sContent-Length: %zu\r\n\r\n", method, path,
                        api(), headers, length);
    int status = -1;
    if (send_all(fd, head, (size_t)size) == 0 && send_all(fd, sent, length) == 0) status = receive(fd, body);
    close(fd);
    return status;
}

static int request_id_of_answer(char *id) {
    char *field = strcasestr(answer, "\r\nlambda-runtime-aws-request-id:");
    return field ? sscanf(field + 32, " %63[0-9a-fA-F-]", id) == 1 : 0;
}

static int post(const char *id, const char *sent, size_t length) {
    char path[200], *body;
    snprintf(path, sizeof path, "invocation/%s/response", id);
    return ask("POST", path, "", sent, length, &body);
}

PROBE(answer_other_request) {
    int status = post("8476a536-e9f4-11e8-9739-2dfe598c3fcd", "\"forged\"", 8);
    return say(status == 202 ? SUCCEEDED : REFUSED, "status %d", status);
}
PROBE(poll_while_running) {
    /* Two polls at once, while an event is in work: both get that event again, and no other. */
    int status[2], got[2];
    char ids[2][64] = {"", ""};
    int pipes[2];
    if (pipe(pipes) == -1) return failed("pipe");
    for (int i = 0; i < 2; i++)
        if (fork() == 0) {
            struct { int status; char id[64]; } found = {0};
            char *body;
            found.status = ask("GET", "invocation/next", "", "", 0, &body);
            request_id_of_answer(found.id);
            _exit(write(pipes[1], &found, sizeof found) != sizeof found);
        }
    for (int i = 0; i < 2; i++) {
        struct { int status; char id[64]; } found = {0};
        got[i] = read(pipes[0], &found, sizeof found) == sizeof found;
        status[i] = found.status;
        memcpy(ids[i], found.id, 64);
    }
    int same = got[0] && got[1] && !strcmp(ids[0], request_id) && !strcmp(ids[1], request_id);
    return say(same ? REFUSED : SUCCEEDED, "%d %s, %d %s", status[0], ids[0], status[1], ids[1]);
}
PROBE(huge_headers) {
    /* 4 MiB of headers: refused or hung up on; the server goes on either way, which the next probe shows. */
    int fd = api_connect(), status = -1;
    static char filler[65536];
    memset(filler, 'h', sizeof filler);
    char *body;
    struct timeval patience = {5, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    const char *begin = "POST /2018-06-01/runtime/init/error HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nX-Filler: ";
    if (fd != -1 && send_all(fd, begin, strlen(begin)) == 0) {
        int sent = 0;
        while (sent < 64 && send_all(fd, filler, sizeof filler) == 0) sent++;
        if (sent == 64 && send_all(fd, "\r\n\r\n", 4) == 0) status = receive(fd, &body);
    }
    close(fd);
    int good = status >= 200 && status < 300;
    return say(good ? SUCCEEDED : REFUSED, "status %d", status);
}
PROBE(smuggled_request) {
    /* A body that one reader ends early and another late, with an answer to somebody else's request behind it. */
    static char sent[2048], hidden[512];
    const char *forged = "\"smuggled\"";
    int hidden_length = snprintf(hidden, sizeof hidden,
                                 "POST /2018-06-01/runtime/invocation/%s/response HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n%s",
                                 request_id, strlen(forged), forged);
    int length = snprintf(sent, sizeof sent,
                          "POST /2018-06-01/runtime/invocation/8476a536-e9f4-11e8-9739-2dfe598c3fcd/response HTTP/1.1\r\nHost: x\r\n"
                          "Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n%s", hidden_length + 5, hidden);
    int fd = api_connect(), answers = 0, accepted = 0;
    if (fd == -1 || send_all(fd, sent, (size_t)length) == -1) return failed("send");
    struct timeval patience = {0, 500000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    ssize_t got, all = 0;
    while (all < (ssize_t)sizeof answer - 1 && (got = recv(fd, answer + all, sizeof answer - 1 - (size_t)all, 0)) > 0) all += got;
    answer[all] = 0;
    for (char *at = answer; (at = strstr(at, "HTTP/1.1 ")); at += 9) answers++, accepted += !strncmp(at + 9, "202", 3);
    close(fd);
    return say(accepted ? SUCCEEDED : REFUSED, "%d answers, %d accepted", answers, accepted);
}
PROBE(forged_init_error) {
    char *body;
    int status = ask("POST", "init/error", "", "{}", 2, &body);
    return say(status == 202 ? SUCCEEDED : REFUSED, "status %d", status);
}

/* --- the table --- */

static const struct { const char *name; int (*run)(void); } probes[] = {
#define P(name) {#name, try_##name},
    P(server_state_read) P(server_state_write) P(server_state_list) P(credentials_read) P(other_code_read) P(other_code_write)
    P(own_code_write) P(runtime_write) P(system_write) P(shadow_read) P(root_home_read) P(host_file_read) P(host_folder_write)
    P(other_tmp_read) P(other_tmp_write) P(symlink_out) P(hardlink_out) P(dotdot_out) P(proc_self_root) P(proc_self_cwd)
    P(proc_1_environ) P(proc_1_root) P(proc_1_fd) P(proc_1_mem) P(server_mem) P(server_environ) P(other_environ)
    P(other_proc_root) P(core_pattern) P(sysctl) P(sysrq) P(proc_kcore) P(sys_write) P(cgroup_write) P(dev_kvm) P(dev_fuse)
    P(dev_kmsg) P(dev_tun) P(dev_disk) P(mknod_disk) P(docker_socket) P(host_socket) P(abstract_socket) P(host_shm) P(sysv_shm)
    P(open_by_handle) P(processes_list) P(signal_server) P(signal_other) P(ptrace_server) P(ptrace_child) P(vm_read_server)
    P(vm_read_other) P(priority_raise) P(priority_server) P(realtime) P(limits_raise) P(limits_of_server) P(oom_score)
    P(steal_descriptor) P(affinity_server) P(control_api) P(host_loopback) P(host_address) P(host_loopback6)
    P(other_runtime_api) P(other_s3) P(metadata) P(dns) P(udp_host) P(udp_loopback) P(icmp) P(raw_socket) P(packet_socket)
    P(vsock) P(alg_socket) P(netlink_routes) P(netlink_audit) P(s3_door_to_lambda) P(s3_door_to_longshore) P(unshare_user)
    P(unshare_mount) P(unshare_net) P(unshare_pid) P(unshare_cgroup) P(clone_user) P(clone3_user) P(mount_tmpfs)
    P(mount_bind) P(mount_remount) P(fsopen) P(open_tree) P(umount) P(chroot_in) P(pivot_root) P(bpf) P(keyctl) P(add_key)
    P(io_uring) P(userfaultfd) P(perf) P(setns_net) P(setns_mount) P(setns_own) P(personality_change) P(tiocsti) P(tioclinux)
    P(modify_ldt) P(init_module) P(set_hostname) P(kernel_log) P(ports) P(fanotify) P(swap) P(process_accounting) P(set_clock)
    P(old_abi_user) P(old_abi_calls) P(x32_user) P(wide_socket_family) P(wide_tiocsti) P(setuid_root) P(setgroups_root)
    P(lock_memory) P(user_is_root) P(group_is_root) P(groups_left) P(capabilities_left) P(new_privileges) P(no_seccomp)
    P(descriptors_inherited) P(environment_of_server) P(umask_lax) P(terminal) P(session_of_server) P(host_name) P(core_dumps)
    P(input_from_server) P(memory) P(memory_by_children) P(memory_by_file) P(memory_by_mapping)
    P(memory_by_segment) P(tmp_full) P(shm_full) P(many_files) P(log_flood)
    P(fork_bomb) P(thread_bomb) P(descriptors_exhausted) P(file_of_a_tebibyte) P(daemon_left) P(daemon_and_spin) P(spin)
    P(kill_all) P(stop_server) P(stop_parent) P(residue_leave) P(residue_find) P(answer_other_request)
    P(poll_while_running) P(huge_headers) P(smuggled_request) P(forged_init_error)
#undef P
};

static int (*named(const char *name))(void) {
    for (size_t i = 0; i < sizeof probes / sizeof *probes; i++)
        if (!strcmp(probes[i].name, name)) return probes[i].run;
    return NULL;
}

static size_t append(char *to, size_t size, size_t at, const char *text, int quoted) {
    for (; *text && at < size - 2; text++) {
        unsigned char byte = (unsigned char)*text;
        if (quoted && (byte == '"' || byte == '\\' || byte < 0x20 || byte > 0x7e)) byte = '.';
        to[at++] = (char)byte;
    }
    to[at] = 0;
    return at;
}

/* Runs one probe in a process of its own, for up to `seconds`. Its outcome is said in `detail`. */
static int run_apart(int (*probe)(void), int seconds) {
    int said[2];
    if (pipe2(said, O_CLOEXEC) == -1) return failed("pipe");
    pid_t child = fork();
    if (child == -1) return failed("fork");
    if (child == 0) {
        close(said[0]);
        alarm((unsigned)seconds);
        int outcome = probe();
        char out = (char)outcome;
        struct iovec parts[2] = {{&out, 1}, {detail, strlen(detail)}};
        _exit(writev(said[1], parts, 2) == -1);
    }
    close(said[1]);
    char got[sizeof detail + 1] = {0};
    ssize_t length = 0, more;
    while (length < (ssize_t)sizeof got - 1 && (more = read(said[0], got + length, sizeof got - 1 - (size_t)length)) > 0) length += more;
    close(said[0]);
    int status = 0;
    waitpid(child, &status, 0);
    if (length > 0) return say(got[0], "%s", got + 1);
    return say(REFUSED, WIFSIGNALED(status) ? "killed by signal %d" : "ended with status %d",
               WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

static size_t handle(char *out, size_t size) {
    static char list[16384];
    snprintf(list, sizeof list, "%s", fact("probes"));
    size_t at = append(out, size, 0, "{", 0);
    for (char *rest = list, *name; (name = strsep(&rest, ",")) && *name;) {
        int (*probe)(void) = named(name);
        int outcome = !probe ? say(NOT_HERE, "not written in C") : run_apart(probe, *fact("seconds") ? (int)number("seconds") : 4);
        const char *words[] = {"false", "true", "null"};
        if (at > 1) at = append(out, size, at, ",", 0);
        at = append(out, size, at, "\"", 0);
        at = append(out, size, at, name, 1);
        at = append(out, size, at, "\":{\"succeeded\":", 0);
        at = append(out, size, at, words[outcome], 0);
        at = append(out, size, at, ",\"detail\":\"", 0);
        at = append(out, size, at, detail, 1);
        at = append(out, size, at, "\"}", 0);
    }
    return append(out, size, at, "}", 0);
}

static void look_at_descriptors(void) {
    for (int fd = 3; fd < 4096; fd++)
        if (fcntl(fd, F_GETFD) != -1) {
            size_t used = strlen(fds_at_start);
            snprintf(fds_at_start + used, sizeof fds_at_start - used, "%d ", fd);
        }
}

static int next_event(void) {
    char *body;
    int status = ask("GET", "invocation/next", "", "", 0, &body);
    if (status != 200 || !request_id_of_answer(request_id)) return -1;
    /* A space first, so that each word has one before it. */
    snprintf(event, sizeof event, " %s", *body == '"' ? body + 1 : body);
    return 0;
}

int main(int count, char **arguments) {
    if (!strcmp(arguments[0], "linger")) {
        /* Another process every half millisecond: whoever looks for it first and kills it then comes too late. */
        time_t began = time(NULL);
        while (count == 3 && !strcmp(arguments[2], "hop") && time(NULL) < began + 8) {
            if (fork()) _exit(0);
            setsid();
            usleep(500);
        }
        for (int i = 0; i < 1200 && count == 3 && !*arguments[2]; i++) usleep(100000);
        return 0;
    }
    if (count == 3 && !strcmp(arguments[1], "next")) {
        if (next_event() == -1) return 1;
        FILE *file = fopen(arguments[2], "w");
        if (!file || fputs(event, file) < 0 || fclose(file)) return 1;
        return puts(request_id) < 0;
    }
    if (count == 3 && !strcmp(arguments[1], "post")) {
        size_t length = fread(buffer, 1, sizeof buffer, stdin);
        return post(arguments[2], buffer, length) != 202;
    }
    look_at_descriptors();
    static char out[1 << 17];
    int twice = 0;
    for (;;) {
        if (next_event() == -1) return 1;
        if (*fact("never_poll")) {
            /* Answers nothing and asks for nothing, for as long as it is let live. */
            for (;;) pause();
        }
        if (*fact("answer_bytes")) {
            size_t size = (size_t)number("answer_bytes");
            char *large = malloc(size);
            if (!large) return 2;
            memset(large, 'a', size);
            large[0] = large[size - 1] = '"';
            post(request_id, large, size);
            free(large);
            continue;
        }
        if (*fact("answer_twice")) {
            post(request_id, "\"first\"", 7);
            twice = post(request_id, "\"second\"", 8);
            continue;
        }
        if (*fact("said_twice")) {
            int length = snprintf(out, sizeof out, "%d", twice);
            post(request_id, out, (size_t)length);
            continue;
        }
        if (*fact("late")) {
            /* A process that outlives the time-out, if it can, and answers then. */
            if (fork() == 0) {
                setsid();
                if (fork()) _exit(0);
                usleep((useconds_t)number("late") * 1000);
                post(request_id, "\"late\"", 6);
                _exit(0);
            }
            for (;;) pause();
        }
        if (*fact("directly")) {
            /* In the runtime's own process, which does not survive what it does. */
            int (*probe)(void) = named(fact("probes"));
            if (probe) probe();
            snprintf(out, sizeof out, "\"%s\"", detail);
            post(request_id, out, strlen(out));
            continue;
        }
        post(request_id, out, handle(out, sizeof out));
    }
}
