#!/bin/sh
# The sandbox's probes as far as a shell can say them, with nothing but the programs of a plain Debian. A function's
# `bootstrap`; `helper/bootstrap` beside it is probe.c, which fetches events and posts answers. An event is a JSON
# string of words: `probes=a,b` and `name=value` for each thing to know.
#
# A probe prints what it saw, and returns 0 where the attack worked, 1 where it was refused, 2 where it cannot be tried.

scratch=${TMPDIR:-/tmp}
own=$LAMBDA_TASK_ROOT
host_file=/srv/host-file

needs() { command -v "$1" >/dev/null 2>&1 || { echo "no $1 here"; return 1; }; }
reads_canary() { found=$(cat "$1" 2>&1 | tr '\000' '\n') && : ; case $found in *"$canary"*) echo "$1 was read";; *) echo "$1: $(echo "$found" | tail -n 1 | head -c 80)"; return 1;; esac; }
reads_any() { found=$(head -c 16 "$1" 2>&1 >/dev/null) || { echo "$found"; return 1; }; [ "$(head -c 16 "$1" | wc -c)" -gt 0 ] && echo "$1 was read"; }
# A redirection that fails would end some shells; in a subshell it does not.
opens_for_writing() { said=$( (: >>"$1") 2>&1) && { echo "$1 was opened"; return 0; }; echo "$said"; return 1; }
creates() { said=$( (: >"$1/left-by-sh-$$") 2>&1) || { echo "$said"; return 1; }; rm -f "$1/left-by-sh-$$"; echo "a file in $1"; }
runs() { said=$("$@" 2>&1 </dev/null) && { echo "$1 did it"; return 0; }; echo "$said" | tail -n 1; return 1; }
one_of() { for path in $(echo "$1" | tr , ' '); do reads_canary "$path" && return 0; done; return 1; }
parent_of_one() {
    for path in $(echo "$1" | tr , ' '); do
        [ -e "$path" ] || { echo "$path is not there"; continue; }
        creates "$(dirname "$path")" && return 0
    done
    return 1
}

server_state_read() { reads_any "$state_file"; }
server_state_write() { creates "$data_dir"; }
server_state_list() { ls -a "$data_dir" 2>&1 | grep -x "$(basename "$state_file")" || { echo "nothing of the server is shown"; return 1; }; }
credentials_read() { reads_any "$credentials_file"; }
other_code_read() { one_of "$other_code"; }
other_code_write() { parent_of_one "$other_code"; }
own_code_write() { creates "$own"; }
runtime_write() { creates "$LAMBDA_RUNTIME_DIR"; }
system_write() { creates /usr/lib; }
shadow_read() { reads_any /etc/shadow; }
root_home_read() { reads_canary "$root_file"; }
host_file_read() { reads_canary /srv/host-file; }
host_folder_write() { creates /srv/open; }
other_tmp_read() { one_of "$other_tmp"; }
other_tmp_write() { parent_of_one "$other_tmp"; }
symlink_out() { rm -f "$scratch/link-sh"; ln -s /srv/host-file "$scratch/link-sh" && reads_canary "$scratch/link-sh"; }
hardlink_out() { rm -f "$scratch/hard-sh"; runs ln "$linkable" "$scratch/hard-sh" && reads_canary "$scratch/hard-sh"; }
dotdot_out() { reads_canary ../../../../../../../../../../../../../../../../srv/host-file; }
proc_self_root() { reads_canary "/proc/self/root$host_file"; }
proc_self_cwd() { reads_canary /proc/self/cwd/../../../../../../../../../../../../srv/host-file; }
proc_1_environ() { reads_canary /proc/1/environ; }
proc_1_root() { reads_canary "/proc/1/root$host_file"; }
proc_1_fd() { [ $$ = 1 ] && { echo "that is the function itself"; return 2; }; ls -l /proc/1/fd 2>&1 | grep -- '->' | tail -n 1 | grep . || { echo "nothing is shown"; return 1; }; }
any_environ() { grep -l "$1" /proc/[0-9]*/environ 2>/dev/null | head -n 1 | grep . || { echo "in no process"; return 1; }; }
server_environ() { any_environ "$server_secret"; }
other_environ() { any_environ "$other_secret"; }
other_proc_root() { reads_canary "/proc/$other_pid/root$host_file" || reads_canary "/proc/$other_pid/cwd/neighbour-code.txt"; }
core_pattern() { opens_for_writing /proc/sys/kernel/core_pattern; }
sysctl() { opens_for_writing /proc/sys/vm/overcommit_memory; }
sysrq() { opens_for_writing /proc/sysrq-trigger; }
sys_write() { for path in /sys/kernel/mm/transparent_hugepage/enabled /sys/class/net/lo/mtu; do opens_for_writing "$path" && return 0; done; return 1; }
cgroup_write() { for path in /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/memory/cgroup.procs /sys/fs/cgroup/pids/cgroup.procs; do opens_for_writing "$path" && return 0; done; return 1; }
dev_kvm() { opens_for_writing /dev/kvm; }
dev_fuse() { opens_for_writing /dev/fuse; }
dev_disk() { [ -n "$disk" ] || { echo "this machine shows no disk"; return 2; }; reads_any "$disk"; }
mknod_disk() { needs mknod || return 2; rm -f "$scratch/disk-sh"; runs mknod "$scratch/disk-sh" b "$disk_major" "$disk_minor" && reads_any "$scratch/disk-sh"; }
host_shm() { reads_canary /dev/shm/host-shm; }

# The folder's name must not stand in a command line of our own.
processes_list() {
    for process in /proc/[0-9]*; do
        case $(tr '\000' ' ' 2>/dev/null <"$process/cmdline") in *"$data_dir"*) echo "$process is the server's"; return 0;; esac
    done
    echo "the server is not shown"
    return 1
}
signal_server() { runs kill -0 "$server_pid"; }
signal_other() { runs kill -0 "$other_pid"; }
priority_raise() { needs renice || return 2; runs renice -n -10 -p $$; }
priority_server() {
    needs renice || return 2
    now=$(sed 's/.*) //' "/proc/$server_pid/stat" 2>/dev/null | cut -d ' ' -f 17)
    runs renice -n "${now:-0}" -p "$server_pid"
}
realtime() { needs chrt || return 2; runs chrt --rr 1 true; }
limits_raise() { said=$( (ulimit -Hn 524288) 2>&1) && { echo "the limit is higher"; return 0; }; echo "$said"; return 1; }
limits_of_server() { needs prlimit || return 2; runs prlimit --pid "$server_pid"; }
oom_score() { said=$( (echo -1000 >/proc/self/oom_score_adj) 2>&1) && { echo "written"; return 0; }; echo "$said"; return 1; }
affinity_server() { needs taskset || return 2; runs taskset -p "$server_pid"; }

netlink_routes() { needs ip || return 2; ip -4 address 2>&1 | grep -F "$host_addr" || { echo "the host's addresses are not shown"; return 1; }; }
# What a shell can say to a network, it says by other programs.
fetches() { needs curl || return 2; curl -s -m 2 -o /dev/null "$1" 2>&1; status=$?; echo "curl ended with $status"; [ $status = 0 ] || [ $status = 52 ] || [ $status = 56 ]; }
control_api() { fetches "http://127.0.0.1:$api_port/"; }
host_loopback() { fetches "http://127.0.0.1:$host_tcp/"; }
host_address() { fetches "http://$host_addr:$host_tcp/"; }
host_loopback6() { fetches "http://[::1]:$host_tcp/"; }
# In a network of our own the same number is our own listener, and the other's cannot even be named.
other() { case ${1%/} in *":$2") echo "$2 is our own"; return 1;; esac; fetches "http://127.0.0.1:$2/"; }
other_runtime_api() { other "$AWS_LAMBDA_RUNTIME_API" "$other_runtime"; }
other_s3() { other "$AWS_ENDPOINT_URL_S3" "$other_s3"; }
metadata() { fetches http://169.254.169.254/; }
docker_socket() { needs curl || return 2; runs curl -s -m 2 --unix-socket /run/docker.sock http://docker/; }
host_socket() { needs curl || return 2; runs curl -s -m 2 --unix-socket /srv/host.sock http://host/; }
abstract_socket() { needs curl || return 2; runs curl -s -m 2 --abstract-unix-socket "$canary" http://host/; }
dns() { needs getent || return 2; runs getent ahostsv4 probe.test; }
icmp() { needs ping || return 2; runs ping -c 1 -W 1 "$host_addr"; }

unshare_user() { needs unshare || return 2; runs unshare --user true; }
unshare_mount() { needs unshare || return 2; runs unshare --mount --propagation unchanged true; }
unshare_net() { needs unshare || return 2; runs unshare --net true; }
unshare_pid() { needs unshare || return 2; runs unshare --pid true; }
unshare_cgroup() { needs unshare || return 2; runs unshare --cgroup true; }
mount_tmpfs() { needs mount || return 2; runs mount -t tmpfs probe "$scratch" && umount -l "$scratch"; }
mount_bind() { needs mount || return 2; runs mount --bind / "$scratch" && umount -l "$scratch"; }
chroot_in() { needs chroot || return 2; runs chroot / true; }
setns_net() { needs nsenter || return 2; runs nsenter --net=/proc/1/ns/net true; }
setns_mount() { needs nsenter || return 2; runs nsenter --mount=/proc/1/ns/mnt true; }
personality_change() { needs setarch || return 2; runs setarch "$(uname -m)" -R true; }
kernel_log() { needs dmesg || return 2; runs dmesg; }
set_hostname() { needs hostname || return 2; runs hostname "$(hostname)"; }
setuid_root() { needs setpriv || return 2; runs setpriv --reuid=0 true; }
setgroups_root() { needs setpriv || return 2; runs setpriv --groups=0 true; }

status_of() { sed -n "s/^$1:[[:space:]]*//p" /proc/self/status; }
user_is_root() { found=$(status_of Uid); echo "uids $found"; case " $(echo "$found" | tr '\t' ' ') " in *" 0 "*) return 0;; "  ") return 2;; esac; return 1; }
group_is_root() { found=$(status_of Gid); echo "gids $found"; case " $(echo "$found" | tr '\t' ' ') " in *" 0 "*) return 0;; "  ") return 2;; esac; return 1; }
groups_left() { found=$(id -G | tr ' ' '\n' | grep -vx "$(id -g)" | tr '\n' ' '); echo "others: $found"; [ -n "$found" ]; }
capabilities_left() { for set in CapInh CapPrm CapEff CapBnd CapAmb; do [ "$(status_of $set)" = 0000000000000000 ] || { echo "$set $(status_of $set)"; return 0; }; done; echo "all sets are empty"; return 1; }
new_privileges() { echo "no_new_privs $(status_of NoNewPrivs)"; [ "$(status_of NoNewPrivs)" != 1 ]; }
no_seccomp() { echo "mode $(status_of Seccomp)"; [ "$(status_of Seccomp)" != 2 ]; }
descriptors_inherited() {
    echo "above 2:${descriptors:- none but the script}"
    [ -n "$descriptors" ]
}
environment_of_server() {
    env >"$scratch/environment-sh"
    if grep -e "$server_secret" -e "$canary" "$scratch/environment-sh" | grep -v '^event='; then return 0; fi
    for name in $(sed -n 's/^\([A-Za-z_][A-Za-z0-9_]*\)=.*/\1/p' "$scratch/environment-sh"); do
        case ,$known_variables, in *",$name,"*) ;; *) echo "$name is not one of Lambda's"; return 0;; esac
    done
    echo "nothing but what Lambda sets"
    return 1
}
umask_lax() { umask; case $(umask) in *22|*27|*77) return 1;; esac; }
terminal() { opens_for_writing /dev/tty; }
session_of_server() { found=$(cut -d ' ' -f 6 /proc/self/stat); echo "session $found"; [ "$found" = "$session" ]; }
host_name() { found=$(uname -n); echo "the host is called $found"; [ "$found" = "$host_name" ]; }
core_dumps() { found=$(ulimit -Hc); echo "the limit is $found"; [ "$found" != 0 ]; }

# A shell that cannot fork ends; so another one tries, and this one counts what it says.
many_processes() {
    sh -c 'made=0; while [ $made -lt 1400 ]; do (exec sleep 30) >/dev/null 2>&1 & made=$((made + 1)); echo $!; done' \
        >"$scratch/made-sh" 2>"$scratch/said-sh"
    made=$(wc -l <"$scratch/made-sh")
    echo "$made processes: $(tail -n 1 "$scratch/said-sh")"
    kill -9 $(cat "$scratch/made-sh") 2>/dev/null
    [ "$made" -ge 1400 ]
}
tmp_full() {
    at=0
    while [ $at -lt "$mebibytes" ]; do
        dd if=/dev/zero of="$scratch/full-$at" bs=1048576 count=64 2>"$scratch/said-sh" || { found=$(head -n 1 "$scratch/said-sh"); rm -f "$scratch"/full-*; echo "after $at MiB: $found"; return 1; }
        at=$((at + 64))
    done
    rm -f "$scratch"/full-*
    echo "$at MiB were taken"
}
memory() { found=$(head -c "${mebibytes}m" /dev/zero | tr '\000' x | { value=$(cat); sleep "$nap"; echo ${#value}; }) ; echo "${found:-nothing} bytes"; [ "${found:-0}" -ge $((mebibytes * 1048576)) ]; }

# Before anything is started or redirected, which opens some of the shell's own.
descriptors=''
for fd in /proc/$$/fd/*; do
    case ${fd##*/} in 0 | 1 | 2) continue ;; esac
    # One that is gone by now was the shell's own, to list them.
    [ ! -e "$fd" ] || [ "$fd" -ef "$0" ] || descriptors="$descriptors ${fd##*/}"
done

while id=$("$own/helper/bootstrap" next "$scratch/event-sh"); do
    probes='' disk='' disk_major='' disk_minor=''
    set -f
    for word in $(tr -d '"' <"$scratch/event-sh"); do
        # The words are ours: names of the test, values without blanks or quotes.
        eval "${word%%=*}=\${word#*=}"
    done
    set +f
    table=''
    for probe in $(echo "$probes" | tr , ' '); do
        if command -v "$probe" 2>/dev/null | grep -qx "$probe"; then
            said=$("$probe" 2>&1)
            case $? in 0) outcome=true;; 2) outcome=null;; *) outcome=false;; esac
        else
            outcome=null said='not written in sh'
        fi
        said=$(printf %s "$said" | tail -n 1 | tr -c 'A-Za-z0-9 ._:/()=,-' '.' | head -c 200)
        table="$table,\"$probe\":{\"succeeded\":$outcome,\"detail\":\"$said\"}"
    done
    printf '{%s}' "${table#,}" | "$own/helper/bootstrap" post "$id" || exit 1
done
