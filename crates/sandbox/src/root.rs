//! The file system of an environment: read-only views of the host's system, the function's code, and a `/tmp` of its own.

use std::ffi::CString;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use crate::confine::{At, Fault};
use crate::layers::Layer;
use crate::spec::{Bind, BindKind, Identity, Program, Root};
use crate::sys;

const LAYER: Layer = Layer::MountNamespace;
/// Devices that programs expect everywhere, and that tell nobody anything.
pub const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];
/// Entries of the root's own file system: mount points, links and a few short files.
const ROOT_OPTIONS: &str = "mode=0755,size=1m,nr_inodes=4096";
/// Bytes of `/tmp` for each file that may be in it: many more would be memory of the kernel's, not of the size.
const TMP_BYTES_A_FILE: u64 = 4096;

/// Lays what every function sees, and leaves this process in the folder that is to be its root. The namespace is new.
pub fn lay(root: &Root, identity: Identity, own_proc: bool) -> Result<(), Fault> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).at(LAYER, "mounts cannot be made private")?;
    let (quiet, text) = (MountFlags::NOSUID | MountFlags::NODEV, |text: &str| CString::new(text).unwrap_or_default());
    let options = text(ROOT_OPTIONS);
    rustix::mount::mount("tmpfs", &root.on, "tmpfs", quiet, &*options).at(LAYER, "no file system for the root")?;
    std::env::set_current_dir(&root.on).at(LAYER, "the root cannot be entered")?;

    for folder in ["proc", "dev", "tmp", "etc"] {
        std::fs::create_dir(folder).at(LAYER, "a folder of the root")?;
    }
    // Before the views: one of them may be of something below the host's /tmp.
    let options =
        text(&format!("mode=0700,uid={},gid={},{}", identity.uid, identity.gid, size_options(root.tmp_bytes)));
    rustix::mount::mount("tmpfs", "tmp", "tmpfs", quiet, &*options).at(LAYER, "no /tmp of its own")?;
    show(&root.binds)?;
    for (path, content) in &root.files {
        let Ok(path) = path.strip_prefix("/") else { continue };
        std::fs::write(path, content).at(LAYER, "a file of the root")?;
    }
    for device in DEVICES {
        let (from, to) = (Path::new("/dev").join(device), Path::new("dev").join(device));
        std::fs::File::create(&to).at(LAYER, "a device")?;
        rustix::mount::mount_bind(&from, &to).at(LAYER, "a device")?;
    }
    for (name, to) in [("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")] {
        symlink(format!("/proc/self/fd{to}"), Path::new("dev").join(name)).at(LAYER, "a link to a descriptor")?;
    }
    if own_proc {
        let flags = quiet | MountFlags::NOEXEC;
        rustix::mount::mount("proc", "proc", "proc", flags, None).at(Layer::PidNamespace, "no /proc of its own")
    } else {
        rustix::mount::mount_bind_recursive("/proc", "proc").at(LAYER, "the view of /proc")?;
        lock(Path::new("proc")).at(LAYER, "/proc read-only")
    }
}

/// Adds what is the function's own, and makes the folder in which [`lay`] left this process its root, and that of all others
/// of the namespace.
pub fn enter(root: &Root, program: &Program) -> Result<(), Fault> {
    if program.tmp_bytes != root.tmp_bytes {
        let options = CString::new(size_options(program.tmp_bytes)).unwrap_or_default();
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        rustix::mount::mount_remount("tmp", flags, &*options).at(LAYER, "/tmp has not its size")?;
    }
    show(&program.binds)?;
    // The old root lands on top of the new one, and is let go.
    rustix::process::pivot_root(".", ".").at(LAYER, "pivot_root")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).at(LAYER, "the host's files cannot be let go")?;
    std::env::set_current_dir("/").at(LAYER, "the root cannot be entered")?;
    sys::lock_mount(Path::new("/"), false).or_else(|_| remount(Path::new("/"))).at(LAYER, "the root read-only")
}

fn size_options(bytes: u64) -> String {
    format!("size={bytes},nr_inodes={}", (bytes / TMP_BYTES_A_FILE).max(1024))
}

/// Makes the views below the folder of this process.
fn show(binds: &[Bind]) -> Result<(), Fault> {
    for bind in binds {
        let named = |what: &str| format!("{what} {}", bind.to.display());
        let Ok(to) = bind.to.strip_prefix("/") else { continue };
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent).at(LAYER, &named("the folder of"))?;
        }
        match bind.kind {
            BindKind::Link => {
                symlink(&bind.from, to).at(LAYER, &named("the link"))?;
                continue;
            }
            BindKind::Folder => std::fs::create_dir_all(to).at(LAYER, &named("the folder"))?,
            BindKind::File => {
                std::fs::File::create(to).at(LAYER, &named("the file"))?;
            }
        }
        rustix::mount::mount_bind_recursive(&bind.from, to).at(LAYER, &named("the view of"))?;
        lock(to).at(LAYER, &named("read-only"))?;
    }
    Ok(())
}

/// Makes a view read-only, with all in it.
fn lock(path: &Path) -> std::io::Result<()> {
    // Kernels before 5.12 have no call for this; then the view's own mount is what can be had.
    sys::lock_mount(path, true).or_else(|_| remount(path))
}

fn remount(path: &Path) -> std::io::Result<()> {
    use rustix::fs::StatVfsMountFlags as Has;
    // What a mount refuses already has to be named again, where it is not ours to allow.
    let has = rustix::fs::statvfs(path)?.f_flag;
    let mut flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    for (there, flag) in [
        (Has::NOEXEC, MountFlags::NOEXEC),
        (Has::NOATIME, MountFlags::NOATIME),
        (Has::NODIRATIME, MountFlags::NODIRATIME),
        (Has::RELATIME, MountFlags::RELATIME),
    ] {
        if has.contains(there) {
            flags |= flag;
        }
    }
    Ok(rustix::mount::mount_remount(path, flags, c"")?)
}
