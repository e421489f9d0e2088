//! The system calls that have no safe wrapper, each in the smallest function that is safe to call.
//!
//! All callers but [`kill_all`]'s are processes of one thread: the helper and what it forks.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use rustix::process::Signal;

/// Bounds what the allocator keeps for itself; to be called before there are threads. Only glibc's has to be told.
///
/// It gives each thread an arena of its own, up to eight a core, and what is freed in one serves no other: memory that grew
/// with the threads that had ever read rows or written a checkpoint. Two are one for those that work on tasks and one for what
/// happens beside them. And once a large piece was freed it takes pieces of that size from the arenas as well, where they stay;
/// told a number it gives them back to the kernel, as it does at first. Measured in decision 0036.
pub fn bound_the_allocator() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [
        (libc::M_ARENA_MAX, ARENAS_MAX),
        (libc::M_MMAP_THRESHOLD, LARGE_BYTES),
        (libc::M_TRIM_THRESHOLD, 2 * LARGE_BYTES),
    ] {
        // SAFETY: it sets a number of the allocator's, under the allocator's own lock. What it refuses stays as it was.
        unsafe { libc::mallopt(parameter, value) };
    }
}

#[cfg(target_env = "gnu")]
const ARENAS_MAX: libc::c_int = 2;
/// A full batch of results is larger, and so goes back to the kernel when it is durable; what is read of a body at once is
/// smaller, and is not mapped anew each time.
#[cfg(target_env = "gnu")]
const LARGE_BYTES: libc::c_int = 384 << 10;

/// Lets go of the pages of the program and its libraries that are mapped and are the same in the file: its code, its constants,
/// its relocations. What is used again is found in the page cache and mapped anew, sixteen pages at a time, in a
/// microsecond or two; what only a start needs is not. The process's own pages are not touched. Any thread may call it at any time.
///
/// A start runs through most of the code there is, once, and the kernel maps sixteen pages for each that is used: four fifths of
/// the memory of an idle server. By itself it lets go of them only when memory runs short.
pub fn let_go_of_the_program() {
    // SAFETY: the callback has the signature that is asked for, and uses nothing but its first argument, which is valid while
    // it runs.
    unsafe { libc::dl_iterate_phdr(Some(let_go_of_object), std::ptr::null_mut()) };
}

/// Of one object, called by the dynamic linker, which holds the list of objects meanwhile.
unsafe extern "C" fn let_go_of_object(
    object: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    _data: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: the linker hands out a description that is whole, with as many headers as it says.
    let (address, headers) = unsafe {
        let object = &*object;
        (object.dlpi_addr as usize, std::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum)))
    };
    // SAFETY: it asks for a number that the process was told at its start.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
    for header in headers {
        // What may be written has been: by the relocations, if by nobody else.
        if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
            continue;
        }
        let begin = (address + header.p_vaddr as usize).next_multiple_of(page);
        let end = (address + header.p_vaddr as usize + header.p_filesz as usize) / page * page;
        if begin < end {
            // SAFETY: whole pages of a private mapping of a file that nobody has written to: a read that follows finds what
            // it would have found. What the kernel refuses stays mapped.
            unsafe { libc::madvise(begin as *mut libc::c_void, end - begin, libc::MADV_DONTNEED) };
        }
    }
    0
}

/// Where a fork came out.
pub enum Forked {
    /// In the parent: the child's ID and, if it was asked for, its pidfd.
    Parent(i32, Option<OwnedFd>),
    Child,
}

fn checked(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Forks into new namespaces (`CLONE_NEW*`), with a pidfd.
pub fn clone_into(namespaces: libc::c_int) -> io::Result<Forked> {
    let mut pidfd: RawFd = -1;
    let flags = namespaces | libc::CLONE_PIDFD | libc::SIGCHLD;
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: without CLONE_VM and with a null stack this is a fork: the child goes on with a copy of this process's memory
    // and stack. The process has one thread, so no lock is held by a thread that the child lacks. The third argument is
    // where both supported architectures expect the place of the pidfd, which outlives the call.
    let pid = checked(unsafe {
        libc::syscall(libc::SYS_clone, libc::c_long::from(flags), none, &raw mut pidfd, none, none)
    })?;
    if pid == 0 {
        return Ok(Forked::Child);
    }
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Forked::Parent(pid as i32, Some(pidfd)))
}

/// Forks.
pub fn fork() -> io::Result<Forked> {
    // SAFETY: the process has one thread, so the child may do whatever the parent may.
    match checked(libc::c_long::from(unsafe { libc::fork() }))? {
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(pid as i32, None)),
    }
}

/// Ends this process at once, without the clean-up of a program that it is a copy of.
pub fn exit(status: i32) -> ! {
    // SAFETY: it does not return, and touches no memory.
    unsafe { libc::_exit(status) }
}

/// Lets children that end be forgotten by the kernel: nobody waits for them here.
pub fn forget_children() {
    // SAFETY: sets a disposition and no handler; SIGCHLD is a valid signal.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Puts back what a program expects to find: SIGPIPE and SIGCHLD at their defaults, no signal blocked.
pub fn default_signals() {
    // SAFETY: sets dispositions and no handlers; the set lives on this stack and is initialized before it is read.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// A descriptor that becomes readable when a child ends. SIGCHLD is blocked from here on.
pub fn children_end() -> io::Result<OwnedFd> {
    // SAFETY: as in `default_signals`; the descriptor is new, and checked before it is owned.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        checked(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()).into())?;
        let fd = checked(libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK).into())?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// Signals every process that this one may signal: from the init of a PID namespace, all others in it.
pub fn kill_all(signal: Signal) {
    // SAFETY: touches no memory. That nobody is there is no error here.
    unsafe { libc::kill(-1, signal.as_raw()) };
}

/// Closes descriptors from `first` to `last`, or marks them to be closed by `exec`.
pub fn close_range(first: u32, last: u32, at_exec: bool) -> io::Result<()> {
    if first > last {
        return Ok(());
    }
    let flags = if at_exec { libc::CLOSE_RANGE_CLOEXEC } else { 0 };
    // SAFETY: callers are single-threaded and hold no owner of a descriptor in a range that is closed now.
    checked(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) }).map(|_| ())
}

/// Turns the loopback interface of this network namespace on.
pub fn loopback_up() -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketType, socket};
    use std::os::fd::AsRawFd;
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    // SAFETY: an all-zero `ifreq` is a valid one; the name is shorter than its field and ends with a zero; the kernel reads
    // and writes within the struct; `ifru_flags` is the member that both requests are about.
    unsafe {
        let mut request = std::mem::zeroed::<libc::ifreq>();
        for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
            *to = *from as libc::c_char;
        }
        checked(libc::ioctl(any.as_raw_fd(), libc::SIOCGIFFLAGS as _, &raw mut request).into())?;
        request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        checked(libc::ioctl(any.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw mut request).into())?;
    }
    Ok(())
}

/// Makes a mount, and with `below` all mounts in it, read-only and without devices and set-user-ID programs.
pub fn lock_mount(path: &Path, below: bool) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    /// `struct mount_attr` of the kernel, in its first version.
    #[repr(C)]
    struct Attributes {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    const READ_ONLY: u64 = 1;
    const NO_SUID: u64 = 2;
    const NO_DEVICES: u64 = 4;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    let attributes = Attributes { set: READ_ONLY | NO_SUID | NO_DEVICES, clear: 0, propagation: 0, user_namespace: 0 };
    let flags = if below { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path ends with a zero, the struct has the layout and the size that are passed, and both outlive the call.
    checked(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    })
    .map(|_| ())
}

/// Whether the filter of system calls is on: it hides `clone3`, which any kernel with it would find fault with instead.
pub fn clone3_is_hidden() -> bool {
    // SAFETY: without arguments the call can only fail.
    let result = unsafe { libc::syscall(libc::SYS_clone3, std::ptr::null::<libc::c_void>(), 0) };
    result < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS)
}
