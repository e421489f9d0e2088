//! What a process gives up for good before it becomes a function's.

use std::io;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, NetPort, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus, Scope,
};
use rustix::process::{DumpableBehavior, Gid, Resource, Rlimit, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::layers::Layer;
use crate::spec::{self, Identity, Limits, Ports};

/// Memory that may be kept from being swapped out. Lambda's (specification 1.12).
const LOCKED_BYTES_MAX: u64 = 64 * 1024;
/// The newest Landlock whose rights are known here; a kernel that has fewer gives what it has.
const NEWEST: ABI = ABI::V7;

/// Something that could not be set up.
#[derive(Debug)]
pub struct Fault {
    pub layer: Option<Layer>,
    pub what: String,
}

impl Fault {
    pub fn new(layer: impl Into<Option<Layer>>, what: impl Into<String>) -> Self {
        Self { layer: layer.into(), what: what.into() }
    }
}

/// Names the layer and the step of an error of the system's.
pub trait At<T> {
    fn at(self, layer: impl Into<Option<Layer>>, what: &str) -> Result<T, Fault>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, layer: impl Into<Option<Layer>>, what: &str) -> Result<T, Fault> {
        self.map_err(|error| Fault::new(layer, format!("{what}: {}", error.into())))
    }
}

/// Writes the maps of a new user namespace: one user, one group, no others.
pub fn map_ids(outside: Identity, inside: Identity) -> Result<(), Fault> {
    let layer = Layer::UserNamespace;
    // The files belong to root while the process is not dumpable.
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable).at(layer, "prctl")?;
    let write = |file: &str, text: String| std::fs::write(format!("/proc/self/{file}"), text).at(layer, file);
    write("setgroups", "deny".into())?;
    write("uid_map", format!("{} {} 1", inside.uid, outside.uid))?;
    write("gid_map", format!("{} {} 1", inside.gid, outside.gid))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).at(layer, "prctl")
}

/// Has the kernel end this process and its children, and not the environment's init, where their memory is used up: who the
/// init is there to tell of it. Anybody may ask for that. Without a `/proc` of its own it cannot be written; then the end of
/// the init is taken for what it is.
pub fn be_ended_first() {
    // The file belongs to root while the process is not dumpable.
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable);
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Becomes another user, without further groups. Capabilities go with it.
pub fn become_user(to: Identity) -> Result<(), Fault> {
    let layer = Layer::OwnUid;
    let (uid, gid) = (Uid::from_raw(to.uid), Gid::from_raw(to.gid));
    rustix::thread::set_thread_groups(&[]).at(layer, "setgroups")?;
    rustix::thread::set_thread_res_gid(gid, gid, gid).at(layer, "setresgid")?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).at(layer, "setresuid")
}

/// Takes every capability out of the set that a program could get them back from. To be called while there are some.
pub fn forget_capabilities() -> Result<(), Fault> {
    for capability in CapabilitySet::all().iter() {
        match rustix::thread::capability_is_in_bounding_set(capability) {
            Ok(true) => match rustix::thread::remove_capability_from_bounding_set(capability) {
                // An ordinary user may not; it has none, and no program can give it any from `no_new_privs` on.
                Ok(()) | Err(rustix::io::Errno::PERM) => {}
                Err(error) => return Err(error).at(Layer::Capabilities, "the bounding set"),
            },
            // One that this kernel does not know.
            Ok(false) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error).at(Layer::Capabilities, "the bounding set"),
        }
    }
    Ok(())
}

/// Gives all capabilities up.
pub fn drop_capabilities() -> Result<(), Fault> {
    let layer = Layer::Capabilities;
    rustix::thread::clear_ambient_capability_set().at(layer, "the ambient set")?;
    let none = CapabilitySet::empty();
    let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, none).at(layer, "capset")
}

/// Whether the process has a capability, or could get one.
pub fn has_capabilities() -> bool {
    let sets = rustix::thread::capabilities(None);
    !sets.is_ok_and(|sets| (sets.effective | sets.permitted | sets.inheritable).is_empty())
}

pub fn limit(limits: Limits) -> Result<(), Fault> {
    let limits = [
        (Resource::Nofile, Some(limits.open_files)),
        (Resource::Fsize, Some(limits.file_bytes)),
        // A core dump would hold the function's credentials.
        (Resource::Core, Some(0)),
        (Resource::Memlock, Some(LOCKED_BYTES_MAX)),
        (Resource::Nproc, limits.processes),
    ];
    for (resource, limit) in limits {
        let Some(limit) = limit else { continue };
        // Never above what the server itself has: raising needs privileges.
        let hard = rustix::process::getrlimit(resource).maximum;
        let limit = hard.map_or(limit, |hard| hard.min(limit));
        let limit = Rlimit { current: Some(limit), maximum: Some(limit) };
        rustix::process::setrlimit(resource, limit).at(Layer::Rlimits, "setrlimit")?;
    }
    Ok(())
}

/// Puts Landlock on. Returns what of it the kernel has, for a table. `root`: where the root is that the paths are of, if it is
/// not this process's yet; a rule is about what lies at its path, and stays with it.
pub fn lock(rules: &spec::Landlock, root: &Path) -> Result<String, Fault> {
    let wrong = |error: landlock::RulesetError| Fault::new(Layer::Landlock, error.to_string());
    let all = AccessFs::from_all(NEWEST);
    let mut ruleset = Ruleset::default().handle_access(all).map_err(wrong)?;
    match &rules.connect {
        Ports::Any => {}
        Ports::Only(_) => ruleset = ruleset.handle_access(AccessNet::from_all(NEWEST)).map_err(wrong)?,
        Ports::Below { .. } => ruleset = ruleset.handle_access(AccessNet::ConnectTcp).map_err(wrong)?,
    }
    ruleset = ruleset.scope(Scope::from_all(NEWEST)).map_err(wrong)?;
    let mut ruleset = ruleset.create().map_err(wrong)?;
    let devices = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev | AccessFs::Truncate;
    for (paths, access) in [(&rules.read, AccessFs::from_read(NEWEST)), (&rules.devices, devices), (&rules.write, all)]
    {
        for path in paths {
            let path = root.join(path.strip_prefix("/").unwrap_or(path));
            if let Some(rule) = beneath(&path, access)? {
                ruleset = ruleset.add_rule(rule).map_err(wrong)?;
            }
        }
    }
    let connect = |port| NetPort::new(port, AccessNet::ConnectTcp);
    let (end, ports, closed) = match &rules.connect {
        Ports::Any => (1, &[][..], &[][..]),
        Ports::Only(ports) => (1, &ports[..], &[][..]),
        Ports::Below { end, also, closed } => (*end, &also[..], &closed[..]),
    };
    for port in (1..end).filter(|port| !closed.contains(port)).chain(ports.iter().copied()) {
        ruleset = ruleset.add_rule(connect(port)).map_err(wrong)?;
    }
    let status = ruleset.restrict_self().map_err(wrong)?;
    match status.ruleset {
        RulesetStatus::NotEnforced => Err(Fault::new(Layer::Landlock, "this kernel has it not, or not turned on")),
        RulesetStatus::FullyEnforced => Ok("files, TCP ports, signals and abstract sockets".into()),
        RulesetStatus::PartiallyEnforced => Ok("in part: this kernel's Landlock is of an earlier version".into()),
    }
}

/// A rule for what is there; what is not there needs none.
fn beneath(path: &Path, access: BitFlags<AccessFs>) -> Result<Option<PathBeneath<PathFd>>, Fault> {
    let folder = match std::fs::metadata(path) {
        Ok(metadata) => metadata.is_dir(),
        Err(_) => return Ok(None),
    };
    let Ok(fd) = PathFd::new(path) else { return Ok(None) };
    let access = if folder { access } else { access & AccessFs::from_file(NEWEST) };
    Ok(Some(PathBeneath::new(fd, access)))
}

/// Whether this kernel's Landlock looks at TCP ports. Asked without being restricted by it.
pub fn landlock_has_ports() -> bool {
    use landlock::{CompatLevel, Compatible};
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    ruleset.handle_access(AccessNet::ConnectTcp).and_then(Ruleset::create).is_ok()
}
