//! What an environment is made of: the helper is told this and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::layers::Layer;

/// Everything that the init of an environment needs to know. It travels as JSON in one message.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    pub ground: Ground,
    /// `None` for an environment that is made ahead: it is told later, over its line ([`crate::Line::tell`]).
    pub program: Option<Program>,
}

/// What can be laid before it is known which function an environment is for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ground {
    /// The layers to put on; one that fails is an error.
    pub layers: BTreeSet<Layer>,
    /// Whom the environment runs as. Ignored without [`Layer::OwnUid`] and [`Layer::UserNamespace`].
    pub identity: Identity,
    /// With [`Layer::MountNamespace`].
    pub root: Option<Root>,
    /// With [`Layer::Landlock`].
    pub landlock: Landlock,
    /// With [`Layer::Seccomp`]: whether sockets are those of TCP and of this machine alone. For an environment in the
    /// server's network namespace, where nothing else would keep datagrams back.
    pub streams_only: bool,
    /// With [`Layer::Cgroup`]: made and entered in this order.
    pub cgroups: Vec<PathBuf>,
    pub hostname: String,
}

/// What makes an environment that of a function.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Program {
    /// With [`Layer::MountNamespace`]: what shows besides the ground's, in this order.
    pub binds: Vec<Bind>,
    /// With [`Layer::MountNamespace`]: the size of `/tmp` in bytes.
    pub tmp_bytes: u64,
    /// With [`Layer::Cgroup`]: what is written into the ground's control groups before the program runs.
    pub cgroups: Vec<CgroupDir>,
    /// With [`Layer::Rlimits`].
    pub limits: Limits,
    /// As the runtime sees them.
    pub program: PathBuf,
    /// What an error calls the program.
    pub program_shown: String,
    pub arguments: Vec<String>,
    pub variables: BTreeMap<String, String>,
    pub working_dir: PathBuf,
    /// Not to run anything, but to try whether all this can be had.
    pub trial: bool,
}

/// A user and a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
}

/// The file system of an environment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Root {
    /// An empty folder of the host that the new root is mounted on; the host sees nothing of it.
    pub on: PathBuf,
    /// In this order: a folder before what lies in it.
    pub binds: Vec<Bind>,
    /// Files that are written into it: path and text.
    pub files: Vec<(PathBuf, String)>,
    /// The size of `/tmp` in bytes, until the program says its own.
    pub tmp_bytes: u64,
}

/// Something of the host that shows in an environment, read-only.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Bind {
    /// On the host; for a link what it says.
    pub from: PathBuf,
    /// Absolute, in the environment.
    pub to: PathBuf,
    pub kind: BindKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BindKind {
    Folder,
    File,
    /// A symbolic link of its own, to `from`.
    Link,
}

/// What Landlock lets pass.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Landlock {
    /// Read, listed and run.
    pub read: Vec<PathBuf>,
    /// Read and written, but not made.
    pub devices: Vec<PathBuf>,
    /// Everything.
    pub write: Vec<PathBuf>,
    pub connect: Ports,
}

/// TCP ports that may be connected to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ports {
    /// Not looked at.
    #[default]
    Any,
    /// These, and none is listened on.
    Only(Vec<u16>),
    /// Those below `end` that are not closed, and these.
    Below { end: u16, also: Vec<u16>, closed: Vec<u16> },
}

/// A control group and its values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupDir {
    pub path: PathBuf,
    /// Files in it and what is written into them. The ones that a kernel may not have are marked by `true`.
    pub values: Vec<(String, String, bool)>,
}

/// Resource limits of a process. Bytes and counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Open files, soft and hard. Lambda's is 1,024.
    pub open_files: u64,
    /// The largest file that may be written.
    pub file_bytes: u64,
    /// Processes and threads of the *user*: only where the user runs nothing else.
    pub processes: Option<u64>,
}

/// A spec as one message, or a program, may have so many bytes. AWS bounds variables by 4 KiB, ours are some more, and paths of binds are a
/// few hundred at most; a socket's buffer holds about 200 KiB.
pub const SPEC_BYTES_MAX: usize = 128 * 1024;
