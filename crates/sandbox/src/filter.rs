//! The filter of system calls: those that no runtime needs, and that make more of the kernel reachable.
//!
//! A list of what is refused, not of what is allowed: runtimes and their libraries must work unmodified, also those of next
//! year. Refused calls fail with `EPERM`. `clone3`, whose flags a filter cannot see, does not exist (`ENOSYS`), so that C
//! libraries fall back to `clone`.
//!
//! Source: Lambda specification 10, row C; promises 3.7.

use std::collections::BTreeMap;

use libc::{SYS_clone, SYS_ioctl, SYS_personality, SYS_sendmmsg, SYS_sendmsg, SYS_sendto, SYS_socket};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition as Condition,
    SeccompFilter, SeccompRule, TargetArch, sock_filter,
};

/// Refused whatever their arguments.
const REFUSED: &[libc::c_long] = &[
    // Other processes' memory and descriptors.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // File systems and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    // Wide interfaces to the kernel with a history.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // The machine.
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_vhangup,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_uselib,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ustat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_sysfs,
    #[cfg(target_arch = "x86_64")]
    libc::SYS__sysctl,
];

const IOPRIO_WHO_PROCESS: u64 = 1;
/// Requests to a terminal, as wide as the filter's comparisons: C libraries disagree on their type.
const TIOCSTI: u64 = 0x5412;
const TIOCLINUX: u64 = 0x541C;
#[cfg(test)]
const TCGETS: u64 = 0x5401;
/// The old way to packets; the C library's name for it is deprecated.
const SOCK_PACKET: libc::c_int = 10;

const NAMESPACE_FLAGS: [libc::c_int; 8] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
    // The lowest byte of `clone`'s flags is the signal at the end: CLONE_NEWTIME lies there and is for `unshare` alone.
    libc::CLONE_PTRACE,
];

/// What a filter depends on, besides the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// No sockets but those of TCP and of this machine. Else the kernel may be asked about the network, which C libraries do for
    /// the list of interfaces: it is the environment's own, or one that is open to it.
    pub streams_only: bool,
    /// Whether sockets with a name on this machine may be made; without a file system of its own that name may be anybody's.
    pub unix: bool,
    /// Whether all processes that its user could change are its own.
    pub alone: bool,
    /// Whether a control group bounds memory. Without one it is counted by what processes have mapped, and memory that none of
    /// them needs to have mapped would not be seen.
    pub bounded: bool,
}

/// All filters, compiled once in the helper.
pub struct Filters(BTreeMap<Kind, BpfProgram>);

impl Filters {
    pub fn compile() -> Result<Self, String> {
        let mut filters = BTreeMap::new();
        for bits in 0..16 {
            let has = |bit: u32| bits & bit != 0;
            let kind = Kind { streams_only: has(1), unix: has(2), alone: has(4), bounded: has(8) };
            filters.insert(kind, compile(kind)?);
        }
        Ok(Self(filters))
    }

    pub fn apply(&self, kind: Kind) -> Result<(), String> {
        let filter = self.0.get(&kind).ok_or("there is no such filter")?;
        seccompiler::apply_filter(filter).map_err(|error| error.to_string())
    }
}

fn compile(kind: Kind) -> Result<BpfProgram, String> {
    let Kind { streams_only, unix, alone, bounded } = kind;
    const ARGUMENT: Len = Len::Dword;
    let (unix_family, inet, inet6) = (libc::AF_UNIX as u64, libc::AF_INET as u64, libc::AF_INET6 as u64);
    let is = |at, value| (at, Op::Eq, value);
    let is_not = |at, value| (at, Op::Ne, value);
    let has = |at, bits: u64| (at, Op::MaskedEq(bits), bits);
    // Flags like SOCK_CLOEXEC share the argument with the type.
    let of_type = |kind: libc::c_int| (1, Op::MaskedEq(0xf), kind as u64);
    type Test = (u8, Op, u64);
    let mut rules: Vec<(libc::c_long, Vec<Test>)> = Vec::new();
    for flag in NAMESPACE_FLAGS {
        rules.push((SYS_clone, vec![has(0, flag as u64)]));
    }
    // Pushing input into a terminal, and talking to the console.
    for request in [TIOCSTI, TIOCLINUX] {
        rules.push((SYS_ioctl, vec![is(1, request)]));
    }
    // Asking for it (all ones) and the usual one are harmless; others weaken address randomization.
    rules.push((SYS_personality, vec![is_not(0, 0), is_not(0, 0xffff_ffff)]));
    // TCP Fast Open connects without the call that Landlock looks at.
    for (call, at) in [(SYS_sendto, 3), (SYS_sendmsg, 2), (SYS_sendmmsg, 3)] {
        rules.push((call, vec![has(at, libc::MSG_FASTOPEN as u64)]));
    }
    // No packets, no virtual machines' sockets, no crypto of the kernel's; and of netlink, routes and addresses at most.
    let netlink = libc::AF_NETLINK as u64;
    let mut families = vec![is_not(0, unix_family), is_not(0, inet), is_not(0, inet6)];
    if !streams_only {
        families.push(is_not(0, netlink));
        rules.push((SYS_socket, vec![is(0, netlink), is_not(2, libc::NETLINK_ROUTE as u64)]));
    }
    rules.push((SYS_socket, families));
    if !unix {
        rules.push((SYS_socket, vec![is(0, unix_family)]));
    }
    for kind in [libc::SOCK_RAW, SOCK_PACKET] {
        // C libraries make netlink's sockets of this type, which is of no meaning there.
        rules.push((SYS_socket, vec![is_not(0, netlink), of_type(kind)]));
    }
    for protocol in [libc::IPPROTO_ICMP, libc::IPPROTO_ICMPV6, libc::IPPROTO_SCTP, libc::IPPROTO_MPTCP] {
        rules.push((SYS_socket, vec![is_not(0, unix_family), is(2, protocol as u64)]));
    }
    if streams_only {
        for kind in [libc::SOCK_DGRAM, libc::SOCK_RDM, libc::SOCK_SEQPACKET, libc::SOCK_DCCP] {
            rules.push((SYS_socket, vec![is_not(0, unix_family), of_type(kind)]));
        }
        let others = vec![is_not(0, unix_family), is_not(2, 0), is_not(2, libc::IPPROTO_TCP as u64)];
        rules.push((SYS_socket, others));
    }

    if !alone {
        // Limits, cores and priorities of other processes of the user: of the server's, for one. Zero is the caller itself.
        for call in [
            libc::SYS_prlimit64,
            libc::SYS_sched_setaffinity,
            libc::SYS_sched_setscheduler,
            libc::SYS_sched_setparam,
            libc::SYS_sched_setattr,
        ] {
            rules.push((call, vec![is_not(0, 0)]));
        }
        for (call, one_process) in
            [(libc::SYS_setpriority, libc::PRIO_PROCESS as u64), (libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS)]
        {
            rules.push((call, vec![is_not(0, one_process)]));
            rules.push((call, vec![is_not(1, 0)]));
        }
    }

    let wrong = |error: seccompiler::BackendError| error.to_string();
    let mut filter: BTreeMap<i64, Vec<SeccompRule>> = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    if !bounded {
        // Files and segments in memory that outlive their mapping.
        filter.extend([libc::SYS_memfd_create, libc::SYS_shmget].map(|call| (call, Vec::new())));
    }
    for (call, tests) in rules {
        let conditions: Result<Vec<Condition>, _> =
            tests.into_iter().map(|(at, op, value)| Condition::new(at, ARGUMENT, op, value)).collect();
        filter.entry(call).or_default().push(SeccompRule::new(conditions.map_err(wrong)?).map_err(wrong)?);
    }
    let arch: TargetArch = std::env::consts::ARCH.try_into().map_err(wrong)?;
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(filter, SeccompAction::Allow, refuse, arch).map_err(wrong)?;
    let filter: BpfProgram = filter.try_into().map_err(wrong)?;
    let mut program = beginning();
    program.extend(filter);
    Ok(program)
}

/// What the list cannot say: an answer of its own for `clone3`, and that numbers of the x32 ABI, which share the architecture
/// with ours and would pass a list of numbers, do not exist.
fn beginning() -> BpfProgram {
    let step = |code: u32, jt, jf, k| sock_filter { code: code as u16, jt, jf, k };
    let load_number = step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0);
    let no_such_call = step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32);
    let mut program = vec![
        load_number,
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_clone3 as u32),
        no_such_call.clone(),
    ];
    if cfg!(target_arch = "x86_64") {
        program.push(step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, 0x4000_0000));
        program.push(no_such_call);
    }
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a filter as the kernel would: the number and six arguments in, the action out.
    fn action(program: &BpfProgram, number: libc::c_long, arguments: [u64; 6]) -> u32 {
        let arch: u32 = if cfg!(target_arch = "x86_64") { 0xC000_003E } else { 0xC000_00B7 };
        let mut data = Vec::new();
        data.extend((number as u32).to_ne_bytes());
        data.extend(arch.to_ne_bytes());
        data.extend(0u64.to_ne_bytes());
        data.extend(arguments.iter().flat_map(|a| a.to_ne_bytes()));
        let (mut a, mut at) = (0u32, 0usize);
        loop {
            let s = &program[at];
            at += 1;
            match u32::from(s.code) {
                0x20 => a = u32::from_ne_bytes(data[s.k as usize..][..4].try_into().unwrap()),
                0x54 => a &= s.k,
                0x05 => at += s.k as usize,
                0x06 => return s.k,
                code => {
                    let jumps = match code {
                        0x15 => a == s.k,
                        0x25 => a > s.k,
                        0x35 => a >= s.k,
                        _ => panic!("unknown instruction {code:#x}"),
                    };
                    at += usize::from(if jumps { s.jt } else { s.jf });
                }
            }
        }
    }

    const KIND: Kind = Kind { streams_only: false, unix: true, alone: true, bounded: true };
    const ALLOWED: u32 = libc::SECCOMP_RET_ALLOW;
    const REFUSED_WITH: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    const HIDDEN: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

    #[test]
    fn calls_that_runtimes_need_pass_and_the_listed_ones_do_not() {
        let filter = compile(KIND).unwrap();
        let call = |number, arguments| action(&filter, number, arguments);
        for number in [
            libc::SYS_read,
            libc::SYS_execve,
            libc::SYS_futex,
            libc::SYS_epoll_pwait,
            libc::SYS_memfd_create,
            libc::SYS_pidfd_open,
            libc::SYS_prctl,
            libc::SYS_socketpair,
            libc::SYS_mprotect,
        ] {
            assert_eq!(call(number, [0; 6]), ALLOWED, "{number}");
        }
        for number in REFUSED {
            assert_eq!(call(*number, [0; 6]), REFUSED_WITH, "{number}");
        }
        assert_eq!(call(libc::SYS_clone3, [0; 6]), HIDDEN);
        if cfg!(target_arch = "x86_64") {
            assert_eq!(call(libc::SYS_ptrace | 0x4000_0000, [0; 6]), HIDDEN, "the x32 ABI");
        }
    }

    #[test]
    fn threads_may_be_made_and_namespaces_not() {
        let filter = compile(KIND).unwrap();
        let clone = |flags: libc::c_int| action(&filter, SYS_clone, [flags as u32 as u64, 0, 0, 0, 0, 0]);
        let thread = libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD;
        assert_eq!(clone(thread), ALLOWED);
        assert_eq!(clone(libc::SIGCHLD), ALLOWED);
        for flag in NAMESPACE_FLAGS {
            assert_eq!(clone(flag | libc::SIGCHLD), REFUSED_WITH, "{flag:#x}");
        }
    }

    #[test]
    fn sockets_are_of_the_kinds_that_each_filter_lets_pass() {
        use libc::*;
        let cloexec = SOCK_CLOEXEC | SOCK_NONBLOCK;
        for (family, kind, protocol, passes) in [
            // (family, type, protocol, passes [plain, streams only])
            (AF_INET, SOCK_STREAM, 0, [true, true]),
            (AF_INET6, SOCK_STREAM | cloexec, IPPROTO_TCP, [true, true]),
            (AF_UNIX, SOCK_DGRAM, 0, [true, true]),
            (AF_INET, SOCK_DGRAM | cloexec, 0, [true, false]),
            (AF_INET6, SOCK_DGRAM, IPPROTO_UDP, [true, false]),
            (AF_INET, SOCK_DGRAM, IPPROTO_ICMP, [false, false]),
            (AF_INET, SOCK_STREAM, IPPROTO_MPTCP, [false, false]),
            (AF_INET, SOCK_RAW | cloexec, IPPROTO_ICMP, [false, false]),
            (AF_PACKET, SOCK_RAW, 0, [false, false]),
            (AF_NETLINK, SOCK_DGRAM, NETLINK_ROUTE, [true, false]),
            (AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE, [true, false]),
            (AF_NETLINK, SOCK_RAW, NETLINK_AUDIT, [false, false]),
            (AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER, [false, false]),
            (AF_VSOCK, SOCK_STREAM, 0, [false, false]),
            (AF_ALG, SOCK_SEQPACKET, 0, [false, false]),
            (AF_INET, SOCK_STREAM, IPPROTO_UDPLITE, [true, false]),
        ] {
            for (streams_only, passes) in [(false, passes[0]), (true, passes[1])] {
                let filter = compile(Kind { streams_only, ..KIND }).unwrap();
                let got = action(&filter, SYS_socket, [family as u64, kind as u64, protocol as u64, 0, 0, 0]);
                assert_eq!(got == ALLOWED, passes, "{family} {kind:#x} {protocol} {streams_only}");
            }
        }
        let no_unix = compile(Kind { unix: false, ..KIND }).unwrap();
        assert_eq!(action(&no_unix, SYS_socket, [AF_UNIX as u64, SOCK_STREAM as u64, 0, 0, 0, 0]), REFUSED_WITH);
        assert_eq!(action(&no_unix, SYS_socketpair, [AF_UNIX as u64, SOCK_STREAM as u64, 0, 0, 0, 0]), ALLOWED);
    }

    #[test]
    fn arguments_that_matter_are_looked_at() {
        let filter = compile(KIND).unwrap();
        let call = |number, arguments| action(&filter, number, arguments);
        assert_eq!(call(SYS_ioctl, [0, TIOCSTI, 0, 0, 0, 0]), REFUSED_WITH);
        assert_eq!(call(SYS_ioctl, [0, TCGETS, 0, 0, 0, 0]), ALLOWED);
        assert_eq!(call(SYS_personality, [0xffff_ffff, 0, 0, 0, 0, 0]), ALLOWED);
        assert_eq!(call(SYS_personality, [0x0004_0000, 0, 0, 0, 0, 0]), REFUSED_WITH);
        assert_eq!(call(SYS_sendto, [3, 0, 0, libc::MSG_FASTOPEN as u64, 0, 0]), REFUSED_WITH);
        assert_eq!(call(SYS_sendto, [3, 0, 0, libc::MSG_NOSIGNAL as u64, 0, 0]), ALLOWED);
    }

    #[test]
    fn memory_that_nobody_needs_to_have_mapped_wants_a_control_group() {
        for call in [libc::SYS_memfd_create, libc::SYS_shmget] {
            assert_eq!(action(&compile(KIND).unwrap(), call, [0; 6]), ALLOWED, "{call}");
            assert_eq!(
                action(&compile(Kind { bounded: false, ..KIND }).unwrap(), call, [0; 6]),
                REFUSED_WITH,
                "{call}"
            );
        }
    }

    #[test]
    fn a_user_that_is_not_alone_changes_its_own_processes_only() {
        for (call, own, other) in [
            (libc::SYS_prlimit64, [0, 7], [4711, 7]),
            (libc::SYS_sched_setaffinity, [0, 8], [4711, 8]),
            (libc::SYS_setpriority, [0, 0], [0, 4711]),
            (libc::SYS_setpriority, [0, 0], [2, 0]),
            (libc::SYS_ioprio_set, [1, 0], [3, 0]),
        ] {
            let arguments = |[first, second]: [u64; 2]| [first, second, 0, 0, 0, 0];
            let shared = compile(Kind { alone: false, ..KIND }).unwrap();
            assert_eq!(action(&shared, call, arguments(own)), ALLOWED, "{call}");
            assert_eq!(action(&shared, call, arguments(other)), REFUSED_WITH, "{call}");
            assert_eq!(action(&compile(KIND).unwrap(), call, arguments(other)), ALLOWED, "{call}");
        }
    }
}
