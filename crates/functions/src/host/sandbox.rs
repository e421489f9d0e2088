//! The sandbox of this host: which layers there are, and what an environment is put into.
//!
//! What a layer is and does is in `longshore-sandbox`; here it is decided what of this machine a function sees. Source: Lambda
//! specification 1.12 and 10; promises 4.4; decision 0022.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use longshore_sandbox::cgroup::{self, Cgroups};
use longshore_sandbox::trial::{self, Given};
use longshore_sandbox::usage;
use longshore_sandbox::{
    Bind, BindKind, CgroupDir, Command, Ground, Helper, Identity, Landlock, Layer, Limits, Mode, Ports, Program,
    Report, Root, Spec, State,
};

use super::{Bounds, Deployment};

/// What functions may reach over the network, besides their Runtime API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// S3 of this server, and nothing else.
    #[default]
    S3,
    /// What the server's machine reaches.
    Open,
}

impl FromStr for Network {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "s3" => Ok(Network::S3),
            "open" => Ok(Network::Open),
            _ => Err(format!("must be s3 or open, not {name:?}")),
        }
    }
}

/// How functions are kept apart. First values: every layer that there is, no network but S3.
#[derive(Debug, Clone)]
pub struct SandboxSettings {
    pub mode: Mode,
    /// Layers that are not used although the machine may have them.
    pub without: BTreeSet<Layer>,
    pub network: Network,
    /// User IDs for environments, one each, where the server is root: the first and the last. Nothing else of the machine
    /// should run as one of them.
    pub uids: (u32, u32),
    /// Further files and folders that functions may read.
    pub paths: Vec<PathBuf>,
    /// TCP ports that functions do not reach in any case: those of the server's own APIs.
    pub closed_ports: Vec<u16>,
    /// Whether an environment's share of the CPU follows its memory, as on AWS: 1,769 MiB are one core.
    pub cpu_proportional: bool,
}

impl Default for SandboxSettings {
    fn default() -> Self {
        Self {
            mode: Mode::Auto,
            without: BTreeSet::new(),
            network: Network::S3,
            uids: (60_000, 60_999),
            paths: Vec::new(),
            closed_ports: Vec::new(),
            cpu_proportional: false,
        }
    }
}

/// Processes and threads of one environment, as on AWS.
pub const TASKS_MAX: u64 = 1024;
/// Beyond a function's memory and its `/tmp`: the init, page tables and what the kernel keeps for open files.
const MEMORY_BESIDE_BYTES: u64 = 32 << 20;
/// Whom functions of a server that is not root believe to be. On AWS the user is called so.
const USER: Identity = Identity { uid: 1051, gid: 1051 };
const USER_NAME: &str = "sbx_user1051";
const MIB: u64 = 1 << 20;
/// On AWS, so much memory is one core.
const MIB_A_CORE: u64 = 1769;

/// Of all users, one in so many stays for environments that are ending, and for those that are made ahead.
const SPARE_USERS: u32 = 8;
/// The size of `/tmp` where none is asked for. AWS's, so that most functions need no other.
const TMP_BYTES: u64 = 512 * MIB;

/// Where AWS has them, and a file system of its own lets them be.
const CODE: &str = "/var/task";
const LAYERS: &str = "/opt";
const CLIENTS: &str = "/var/runtime";
const TMP: &str = "/tmp";

/// Parts of the system that functions see. What is not there is left out.
const SYSTEM: [&str; 9] = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32", "/libx32", "/nix/store", "/gnu/store"];
/// Of `/etc`, what runtimes and libraries read: nothing that tells of this machine's users, services or secrets.
const ETC: [&str; 21] = [
    "alternatives",
    "ca-certificates",
    "crypto-policies",
    "fonts",
    "gai.conf",
    "host.conf",
    "java",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "magic",
    "mime.types",
    "nsswitch.conf",
    "os-release",
    "pki",
    "protocols",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
    "timezone",
];
/// Where an interpreter's own files are, from its prefix. Not the whole prefix: that may be somebody's home.
const OF_A_PREFIX: [&str; 6] = ["bin", "lib", "lib64", "libexec", "include", "pyvenv.cfg"];

/// Why there is no host: one line, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SandboxRefusal {
    pub message: String,
    pub hint: String,
}

/// Which layers there are, on or not.
pub struct Sandbox {
    settings: SandboxSettings,
    report: Report,
    helper: Helper,
    cgroups: Option<Cgroups>,
    layers: BTreeSet<Layer>,
    /// Nothing below it is shown to a function by way of a prefix.
    data_dir: PathBuf,
    system: Vec<Bind>,
    uids: Arc<Uids>,
    stage: Option<Stage>,
    opened: Opened,
    prefixes: Mutex<HashMap<PathBuf, Vec<PathBuf>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tries which layers this machine has, as a server with these settings would use them. `scratch`: a folder that it may make
/// one in. With what would keep that server from starting functions. Blocking, some ten milliseconds.
pub fn examine(
    settings: &SandboxSettings,
    helper: &Command,
    scratch: &Path,
) -> io::Result<(Report, Option<SandboxRefusal>)> {
    let (report, cgroups, _) = probe(settings, helper, scratch)?;
    let refused = refusal(settings, &report, cgroups.as_ref());
    Ok((report, refused))
}

/// Starts the helper, tries the layers with it, and looks for control groups.
fn probe(
    settings: &SandboxSettings,
    helper: &Command,
    scratch: &Path,
) -> io::Result<(Report, Option<Cgroups>, Helper)> {
    let root = rustix::process::geteuid().is_root();
    let mut given = Given {
        root,
        off: BTreeMap::new(),
        missing: BTreeMap::new(),
        details: BTreeMap::from([(Layer::OwnUid, format!("{} to {}", settings.uids.0, settings.uids.1))]),
    };
    for layer in Layer::ALL {
        if settings.mode == Mode::Off {
            given.off.insert(layer, "sandbox = \"off\"");
        } else if settings.without.contains(&layer) {
            given.off.insert(layer, "sandbox_without names it");
        }
    }
    let mut cgroups = None;
    if !given.off.contains_key(&Layer::Cgroup) {
        match Cgroups::find() {
            Ok(found) => {
                given.details.insert(Layer::Cgroup, found.detail());
                cgroups = Some(found);
            }
            Err(why) => {
                given.missing.insert(Layer::Cgroup, why);
            }
        }
    }
    // Not before the groups are found: in version 2 the server moves out of its group for that, and a helper that stayed behind
    // would keep the group from having groups with limits.
    let helper = Helper::new(helper.clone())?;
    let net_wanted = settings.network == Network::S3;
    if !net_wanted {
        given.off.insert(Layer::NetNamespace, OPEN);
    }
    // Of this trial alone: whoever removes a control group kills what is in it, and another host may try at the same time.
    let marker = format!("trial-{}", uuid::Uuid::new_v4().simple());
    let on = scratch.join(&marker);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(on.join("tmp"))?;
    // A server that is root tries as one of its functions' users.
    if root && settings.mode != Mode::Off {
        let _ = std::os::unix::fs::chown(on.join("tmp"), Some(settings.uids.0), Some(settings.uids.0));
    }
    let system = system(settings);
    let report = trial::run(&helper, given, |layers| {
        let identity = if root { Identity { uid: settings.uids.0, gid: settings.uids.0 } } else { USER };
        let mounted = layers.contains(&Layer::MountNamespace);
        // Without a file system of its own the scratch folder may be closed to the user that it is tried as: the server
        // stages one elsewhere then, and a trial writes nothing.
        let write = if mounted { vec![TMP.into()] } else { Vec::new() };
        let bounds = cgroup::Bounds { memory_bytes: 64 * MIB, tasks: TASKS_MAX, cpu_us: None };
        let groups = cgroups.as_ref().map(|c| c.of_environment(&marker, bounds)).unwrap_or_default();
        let ground = Ground {
            layers: layers.clone(),
            identity,
            root: Some(Root {
                on: on.clone(),
                binds: system.clone(),
                files: files(identity, settings.network),
                tmp_bytes: MIB,
            }),
            landlock: Landlock {
                read: readable(mounted, &system),
                devices: devices(),
                write,
                connect: Ports::Only(vec![1]),
            },
            streams_only: false,
            cgroups: groups.iter().map(|group| group.path.clone()).collect(),
            hostname: "trial".into(),
        };
        let program = Program {
            binds: Vec::new(),
            tmp_bytes: MIB,
            cgroups: groups,
            limits: Limits { open_files: 1024, file_bytes: MIB, processes: None },
            program: "/".into(),
            program_shown: String::new(),
            arguments: Vec::new(),
            variables: BTreeMap::new(),
            working_dir: "/".into(),
            trial: true,
        };
        Spec { ground, program: Some(program) }
    });
    let _ = std::fs::remove_dir_all(&on);
    let mut report = report?;
    if !net_wanted && settings.mode != Mode::Off {
        report.layers.insert(Layer::NetNamespace, State::NotNeeded(OPEN));
    }
    if !report.is_on(Layer::Cgroup) {
        cgroups = None;
    }
    Ok((report, cgroups, helper))
}

const OPEN: &str = "network = \"open\": functions reach what this machine reaches";

/// What keeps a server with these settings from starting functions.
fn refusal(settings: &SandboxSettings, report: &Report, cgroups: Option<&Cgroups>) -> Option<SandboxRefusal> {
    layers_refusal(settings, report).or_else(|| cpu_refusal(settings, cgroups))
}

/// Whether a server with these settings has too few layers.
fn layers_refusal(settings: &SandboxSettings, report: &Report) -> Option<SandboxRefusal> {
    let (lacks, why) = match settings.mode {
        Mode::Off => return None,
        Mode::Auto => (report.below_floor(), "this machine's sandbox is below the floor"),
        Mode::Require => {
            let lacks = report.lacks().iter().map(ToString::to_string).collect();
            (lacks, "sandbox = \"require\" wants every layer")
        }
    };
    if lacks.is_empty() {
        return None;
    }
    let hint = match settings.mode {
        Mode::Require => "\"longshore doctor\" says what would turn them on; sandbox = \"auto\" does without",
        _ => {
            "\"longshore doctor\" says what would turn it on; --sandbox=off runs functions unconfined, as the server's own user"
        }
    };
    let message = format!("functions are not started: {why}, and lacks {}", lacks.join(", "));
    Some(SandboxRefusal { message, hint: hint.into() })
}

/// Whether a server with these settings does without a layer that one of them needs.
fn cpu_refusal(settings: &SandboxSettings, cgroups: Option<&Cgroups>) -> Option<SandboxRefusal> {
    (settings.cpu_proportional && !cgroups.is_some_and(|cgroups| cgroups.has("cpu"))).then(|| SandboxRefusal {
        message: "cpu = \"proportional\" needs control groups with the cpu controller, and there are none".into(),
        hint: "\"longshore doctor\" says more; cpu = \"unlimited\" does without".into(),
    })
}

impl Sandbox {
    pub fn new(
        settings: &SandboxSettings,
        helper: &Command,
        data_dir: &Path,
        environments_dir: &Path,
    ) -> Result<Self, io::Error> {
        let (report, cgroups, helper) = probe(settings, helper, environments_dir)?;
        if let Some(refusal) = refusal(settings, &report, cgroups.as_ref()) {
            return Err(io::Error::other(refusal));
        }
        let layers = report.on();
        let stage = if layers.contains(&Layer::OwnUid) && !layers.contains(&Layer::MountNamespace) {
            Some(Stage::new()?)
        } else {
            None
        };
        Ok(Self {
            settings: settings.clone(),
            helper,
            cgroups,
            layers,
            data_dir: std::fs::canonicalize(data_dir).unwrap_or_else(|_| data_dir.to_owned()),
            system: system(settings),
            uids: Arc::new(Uids::new(settings.uids)),
            stage,
            report,
            opened: Opened::default(),
            prefixes: Mutex::default(),
        })
    }

    pub fn report(&self) -> &Report {
        &self.report
    }

    pub fn settings(&self) -> &SandboxSettings {
        &self.settings
    }

    pub fn helper(&self) -> &Helper {
        &self.helper
    }

    pub fn is_on(&self, layer: Layer) -> bool {
        self.layers.contains(&layer)
    }

    /// The folder outside the data directory that holds copies for users who cannot enter it; for the record on disk.
    pub fn stage_dir(&self) -> Option<&Path> {
        self.stage.as_ref().map(|stage| stage.dir.as_path())
    }

    /// An environment's folder for temporary files where it lies in that folder.
    pub fn staged_tmp(&self, marker: &str) -> Option<PathBuf> {
        Some(self.stage_dir()?.join(marker))
    }

    /// Whether listeners are made inside environments, and where they are then.
    pub fn listens_inside(&self) -> bool {
        self.is_on(Layer::NetNamespace)
    }

    /// Where a function finds its folders; takes care that it can. `dir`: the environment's own folder. Blocking.
    pub fn seen(&self, d: &Deployment, clients: &Path, dir: &Path) -> io::Result<Seen> {
        if self.is_on(Layer::OwnUid) {
            for folder in [Some(d.code_dir.as_path()), d.layers_dir.as_deref(), Some(clients)].into_iter().flatten() {
                self.opened.open(folder)?;
            }
        }
        if self.is_on(Layer::MountNamespace) {
            let layers = d.layers_dir.as_ref().map(|_| LAYERS.into());
            return Ok(Seen { code: CODE.into(), layers, clients: CLIENTS.into(), tmp: TMP.into() });
        }
        let Some(stage) = &self.stage else {
            let (code, layers, clients) = (d.code_dir.clone(), d.layers_dir.clone(), clients.to_owned());
            return Ok(Seen { code, layers, clients, tmp: dir.join("tmp") });
        };
        let marker = dir.file_name().unwrap_or(dir.as_os_str());
        Ok(Seen {
            code: stage.copy_of(&d.code_dir)?,
            layers: d.layers_dir.as_deref().map(|dir| stage.copy_of(dir)).transpose()?,
            clients: stage.copy_of(clients)?,
            tmp: stage.dir.join(marker),
        })
    }

    /// A user for an environment. `None` where functions run as the server's; an error where all are taken.
    pub fn lease(&self) -> Result<Option<Lease>, String> {
        if !self.is_on(Layer::OwnUid) {
            return Ok(None);
        }
        let (first, last) = self.settings.uids;
        let none = || format!("all user IDs from {first} to {last} are taken: widen functions.sandbox_uids");
        self.uids.lease().map(Some).ok_or_else(none)
    }

    /// How many environments there are users for; `None` where they need none. Some stay: an environment that the pool holds for
    /// gone gives its user back a moment later.
    pub fn environments_max(&self) -> Option<u32> {
        let (first, last) = self.settings.uids;
        let all = last.saturating_sub(first).saturating_add(1);
        self.is_on(Layer::OwnUid).then(|| (all - all / SPARE_USERS).max(1))
    }

    /// Makes the folder for temporary files, where it is one of the host's. Blocking.
    pub fn make_tmp(&self, seen: &Seen, lease: Option<&Lease>) -> io::Result<()> {
        if self.is_on(Layer::MountNamespace) {
            return Ok(());
        }
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&seen.tmp)?;
        match lease {
            Some(lease) => std::os::unix::fs::chown(&seen.tmp, Some(lease.uid), Some(lease.uid)),
            None => Ok(()),
        }
    }

    /// Whether environments can be made ahead, so many of them: where all that shows of the host is in a file system of its own,
    /// its network is its own, and its end takes all along. Else what is the function's would have to be there first. And
    /// where there are users for them besides those that starts may need.
    pub fn makes_ahead(&self, wanted: usize) -> bool {
        let (first, last) = self.settings.uids;
        let spare = last.saturating_sub(first).saturating_add(1) / SPARE_USERS;
        let has_users = !self.is_on(Layer::OwnUid) || spare as usize >= 2 * wanted;
        let layers = [Layer::MountNamespace, Layer::PidNamespace, Layer::NetNamespace];
        layers.into_iter().all(|layer| self.is_on(layer)) && has_users
    }

    /// What the helper is told of an environment that is made ahead. `on`: its folder.
    pub fn ground_ahead(&self, marker: &str, on: &Path, lease: Option<&Lease>) -> Ground {
        let landlock = self.landlock(readable(true, &self.system), TMP.into(), [0; 2]);
        self.ground(marker, on, lease, landlock)
    }

    /// What shows of the system in an environment that is made now.
    pub fn views(&self) -> io::Result<Views> {
        Views::now(&self.system)
    }

    fn ground(&self, marker: &str, on: &Path, lease: Option<&Lease>, landlock: Landlock) -> Ground {
        let identity = match lease {
            Some(lease) => Identity { uid: lease.uid, gid: lease.uid },
            None => USER,
        };
        let root = self.is_on(Layer::MountNamespace).then(|| Root {
            on: on.to_owned(),
            binds: self.system.clone(),
            files: files(identity, self.settings.network),
            tmp_bytes: TMP_BYTES,
        });
        Ground {
            layers: self.layers.clone(),
            identity,
            root,
            landlock,
            streams_only: !self.listens_inside() && self.settings.network == Network::S3,
            cgroups: self.groups(marker, 0, 0).into_iter().map(|group| group.path).collect(),
            // Of no meaning to anybody outside.
            hostname: marker.chars().take(12).collect(),
        }
    }

    /// Its groups, which are the same ones whatever its function may use.
    fn groups(&self, marker: &str, memory_bytes: u64, memory_mib: u32) -> Vec<CgroupDir> {
        let cpu_us = self.settings.cpu_proportional.then(|| u64::from(memory_mib) * 100_000 / MIB_A_CORE);
        let bounds = cgroup::Bounds { memory_bytes, tasks: TASKS_MAX + 1, cpu_us };
        self.cgroups.as_ref().map(|c| c.of_environment(marker, bounds)).unwrap_or_default()
    }

    fn landlock(&self, read: Vec<PathBuf>, tmp: PathBuf, ports: [u16; 2]) -> Landlock {
        let connect = match (self.listens_inside(), self.settings.network) {
            (true, _) => Ports::Any,
            (false, Network::S3) => Ports::Only(ports.to_vec()),
            (false, Network::Open) => Ports::Below {
                end: longshore_sandbox::EPHEMERAL_PORTS,
                also: ports.to_vec(),
                closed: self.settings.closed_ports.clone(),
            },
        };
        Landlock { read, devices: devices(), write: vec![tmp], connect }
    }

    /// What the helper is told of an environment.
    pub fn spec(&self, parts: &Parts<'_>) -> Result<Spec, String> {
        let mounted = self.is_on(Layer::MountNamespace);
        let mut read = readable(mounted, &self.system);
        if !mounted {
            let seen = parts.seen;
            read.extend([seen.code.clone(), seen.clients.clone()]);
            read.extend(seen.layers.clone());
            read.extend(self.interpreter(parts.interpreter));
        }
        let landlock = self.landlock(read, parts.seen.tmp.clone(), parts.ports);
        let ground = self.ground(parts.marker, parts.dir, parts.lease, landlock);
        Ok(Spec { ground, program: Some(self.program(parts)?) })
    }

    /// What an environment is told of its function.
    pub fn program(&self, parts: &Parts<'_>) -> Result<Program, String> {
        let d = parts.deployment;
        let mounted = self.is_on(Layer::MountNamespace);
        let tmp_bytes = u64::from(d.ephemeral_storage_mib) * MIB;
        let mut binds = Vec::new();
        if mounted {
            let interpreter = self.interpreter(parts.interpreter);
            let folder = |from: &Path, to: &str| Bind { from: from.to_owned(), to: to.into(), kind: BindKind::Folder };
            binds.push(folder(&d.code_dir, CODE));
            binds.push(folder(parts.clients, CLIENTS));
            if let Some(layers) = &d.layers_dir {
                if interpreter.iter().any(|path| path.starts_with(LAYERS)) {
                    // An interpreter in the same place has to fit beside them.
                    let entries = std::fs::read_dir(layers).map_err(|error| format!("the layers: {error}"))?;
                    for entry in entries.flatten() {
                        binds.extend(bind_of(&entry.path(), &Path::new(LAYERS).join(entry.file_name())));
                    }
                } else {
                    binds.push(folder(layers, LAYERS));
                }
            }
            for path in &interpreter {
                binds.extend(bind_of(path, path));
            }
        }
        let memory_bytes = u64::from(d.memory_mib) * MIB + if mounted { tmp_bytes } else { 0 } + MEMORY_BESIDE_BYTES;
        let text =
            |path: &Path| path.to_str().map(str::to_owned).ok_or_else(|| format!("{} is not UTF-8", path.display()));
        let arguments = parts.arguments.iter().map(|argument| text(Path::new(argument))).collect::<Result<_, _>>()?;
        text(parts.program)?;
        // Counted by user: exact where the user is the environment's own. Else with what the user runs already: a bound for all
        // environments together, and the server itself is not held to it.
        let counted = self.is_on(Layer::OwnUid) || self.is_on(Layer::UserNamespace);
        Ok(Program {
            binds,
            tmp_bytes,
            cgroups: self.groups(parts.marker, memory_bytes, d.memory_mib),
            limits: Limits {
                open_files: parts.bounds.open_files,
                // A full /tmp of its own says so itself; elsewhere this is the nearest.
                file_bytes: if mounted { tmp_bytes + MIB } else { tmp_bytes },
                processes: Some(parts.bounds.processes.unwrap_or(if counted {
                    TASKS_MAX
                } else {
                    TASKS_MAX + usage::tasks_of(rustix::process::geteuid().as_raw())
                })),
            },
            program: parts.program.to_owned(),
            program_shown: shown(parts.program),
            arguments,
            variables: parts.variables.clone(),
            working_dir: parts.seen.code.clone(),
            trial: false,
        })
    }

    /// What belongs to an interpreter: its files wherever they are, apart from the system's. Blocking.
    fn interpreter(&self, program: &Path) -> Vec<PathBuf> {
        if !program.is_absolute() {
            return Vec::new();
        }
        if let Some(known) = lock(&self.prefixes).get(program) {
            return known.clone();
        }
        let outside =
            |path: &PathBuf| !SYSTEM.iter().any(|system| path.starts_with(system)) && !self.data_dir.starts_with(path);
        let mut found: Vec<PathBuf> = parts_of_interpreter(program).into_iter().filter(outside).collect();
        // A folder before what lies in it, and nothing twice.
        found.sort();
        found.dedup();
        if self.is_on(Layer::OwnUid) {
            for path in found.iter().filter(|path| path.starts_with(&self.data_dir)) {
                if let Err(error) = self.opened.open(path) {
                    tracing::warn!(%error, path = %path.display(), "functions may be unable to read their interpreter");
                }
            }
        }
        lock(&self.prefixes).insert(program.to_owned(), found.clone());
        found
    }

    /// Whether a function can reach a program of the host's: where it is another user and has no file system of its own, that
    /// user has to be able to enter each folder on the way.
    pub fn is_reachable(&self, program: &Path) -> bool {
        self.stage.is_none() || program.ancestors().skip(1).all(is_open)
    }
}

/// Folders whose files another user can read by now. Each by its inode and the time of that inode's last change: code that
/// nothing needs any more is removed, and has the same name when it is put again.
#[derive(Default)]
struct Opened(Mutex<HashMap<PathBuf, (u64, i64, i64)>>);

impl Opened {
    /// Lets everybody read what is in a folder. The folder itself lies where nobody else comes to, and functions see it by way
    /// of their own file system.
    fn open(&self, folder: &Path) -> io::Result<()> {
        let is = || {
            let metadata = std::fs::metadata(folder)?;
            io::Result::Ok((metadata.ino(), metadata.ctime(), metadata.ctime_nsec()))
        };
        if lock(&self.0).get(folder) == Some(&is()?) {
            return Ok(());
        }
        open_to_read(folder)?;
        let is = is()?;
        let mut opened = lock(&self.0);
        opened.retain(|folder, _| folder.exists());
        opened.insert(folder.to_owned(), is);
        Ok(())
    }
}

/// What showed of the system when an environment was made: one of another time is none for a function that starts now.
#[derive(Debug)]
pub struct Views {
    /// Says when a mount of this machine's has changed since it was opened.
    mounts: std::fs::File,
    /// Each place by its device and its inode: a file that was written anew shows as it is, one that was put in its place
    /// does not.
    places: Vec<(PathBuf, Option<(u64, u64)>)>,
}

impl Views {
    fn now(system: &[Bind]) -> io::Result<Self> {
        // Before the looks, so that nothing changes between the two.
        let mounts = std::fs::File::open("/proc/self/mounts")?;
        let shown = system.iter().filter(|bind| bind.kind != BindKind::Link);
        Ok(Self { mounts, places: shown.map(|bind| (bind.from.clone(), place(&bind.from))).collect() })
    }

    /// Whether a function that starts now would see the same. Blocking.
    pub fn hold(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec};
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut mounts = [PollFd::new(&self.mounts, PollFlags::PRI)];
        matches!(rustix::event::poll(&mut mounts, Some(&now)), Ok(0))
            && self.places.iter().all(|(path, was)| place(path) == *was)
    }
}

/// `None` for what is not there.
fn place(path: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// What differs between environments.
pub struct Parts<'a> {
    pub deployment: &'a Deployment,
    pub seen: &'a Seen,
    pub lease: Option<&'a Lease>,
    pub clients: &'a Path,
    /// The interpreter's program on the host.
    pub interpreter: &'a Path,
    /// What is run, as the function sees it.
    pub program: &'a Path,
    pub arguments: &'a [std::ffi::OsString],
    pub variables: &'a BTreeMap<String, String>,
    pub dir: &'a Path,
    pub marker: &'a str,
    /// Of its two listeners.
    pub ports: [u16; 2],
    pub bounds: Bounds,
}

/// Where a function finds its folders.
#[derive(Debug, Clone)]
pub struct Seen {
    pub code: PathBuf,
    pub layers: Option<PathBuf>,
    pub clients: PathBuf,
    pub tmp: PathBuf,
}

/// A bootstrap is named by the path it has on AWS, which is the one its author knows.
fn shown(program: &Path) -> String {
    match program.file_name() {
        Some(name) if name == "bootstrap" => "/var/task/bootstrap".to_owned(),
        _ => program.display().to_string(),
    }
}

/// The view of something, under its own kind; `None` if it is not there.
fn bind_of(from: &Path, to: &Path) -> Option<Bind> {
    let kind = if std::fs::metadata(from).ok()?.is_dir() { BindKind::Folder } else { BindKind::File };
    Some(Bind { from: from.to_owned(), to: to.to_owned(), kind })
}

/// The views of the system that every environment has. Blocking.
fn system(settings: &SandboxSettings) -> Vec<Bind> {
    let mut binds = Vec::new();
    for path in SYSTEM.map(Path::new) {
        match std::fs::read_link(path) {
            // `/bin` is `usr/bin` on most systems.
            Ok(to) => binds.push(Bind { from: to, to: path.to_owned(), kind: BindKind::Link }),
            Err(_) => binds.extend(bind_of(path, path)),
        }
    }
    let etc = Path::new("/etc");
    binds.extend(ETC.iter().filter_map(|name| bind_of(&etc.join(name), &etc.join(name))));
    // Debian keeps parts of its interpreters' libraries there.
    let entries = std::fs::read_dir(etc).into_iter().flatten().flatten().map(|entry| entry.path());
    let versioned = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        (name.starts_with("python") || name.starts_with("java-")) && path.is_dir()
    };
    binds.extend(entries.filter(versioned).filter_map(|path| bind_of(&path, &path)));
    if settings.network == Network::Open {
        binds.extend(["/etc/hosts", "/etc/resolv.conf"].map(Path::new).iter().filter_map(|path| bind_of(path, path)));
    }
    let mut own: Vec<&PathBuf> = settings.paths.iter().collect();
    own.sort();
    binds.extend(own.into_iter().filter_map(|path| bind_of(path, path)));
    binds
}

/// Short files that are the environment's own: that there is a user, and what the machine is called.
fn files(identity: Identity, network: Network) -> Vec<(PathBuf, String)> {
    let Identity { uid, gid } = identity;
    let passwd = format!("root:x:0:0::/:/usr/sbin/nologin\n{USER_NAME}:x:{uid}:{gid}::{CODE}:/usr/sbin/nologin\n");
    let mut files: Vec<(PathBuf, String)> =
        vec![("/etc/passwd".into(), passwd), ("/etc/group".into(), format!("root:x:0:\n{USER_NAME}:x:{gid}:\n"))];
    if network == Network::S3 {
        files.push(("/etc/hosts".into(), "127.0.0.1 localhost\n".into()));
    }
    files
}

/// What Landlock lets a function read of the system.
fn readable(mounted: bool, system: &[Bind]) -> Vec<PathBuf> {
    if mounted {
        // All that is there is there to be read.
        return vec!["/".into()];
    }
    let mut read: Vec<PathBuf> = system.iter().map(|bind| bind.to.clone()).collect();
    read.extend(["/proc", "/etc/passwd", "/etc/group", "/etc/hosts"].map(PathBuf::from));
    read
}

fn devices() -> Vec<PathBuf> {
    ["null", "zero", "full", "random", "urandom"].iter().map(|name| Path::new("/dev").join(name)).collect()
}

/// The files of an interpreter: of the place where it is called, of each place that a link leads to, and of the one that a
/// virtual environment was made from.
fn parts_of_interpreter(program: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut places = vec![program.to_owned()];
    let mut looked = HashSet::new();
    while let Some(place) = places.pop() {
        if !looked.insert(place.clone()) || looked.len() > 32 {
            continue;
        }
        if let Ok(to) = std::fs::read_link(&place) {
            places.push(normal(&place.parent().unwrap_or(Path::new("/")).join(to)));
        }
        places.extend(std::fs::canonicalize(&place).ok());
        let Some(prefix) = place.parent().and_then(Path::parent).filter(|prefix| *prefix != Path::new("/")) else {
            continue;
        };
        found.extend(OF_A_PREFIX.iter().map(|name| prefix.join(name)).filter(|path| path.exists()));
        let config = std::fs::read_to_string(prefix.join("pyvenv.cfg")).unwrap_or_default();
        let home = config.lines().filter_map(|line| line.split_once('=')).find(|(key, _)| key.trim() == "home");
        if let Some((_, home)) = home
            && let Some(name) = place.file_name()
        {
            places.push(Path::new(home.trim()).join(name));
        }
    }
    found
}

/// A path without `.` and `..`, as its text says.
fn normal(path: &Path) -> PathBuf {
    let mut parts = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                parts.pop();
            }
            Component::CurDir => {}
            other => parts.push(other),
        }
    }
    parts
}

fn is_open(dir: &Path) -> bool {
    std::fs::metadata(dir).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 != 0)
}

/// Gives everybody the right to read, and to run what its owner may run. Links are left alone.
fn open_to_read(path: &Path) -> io::Result<()> {
    let metadata = std::fs::symlink_metadata(path)?;
    if metadata.is_symlink() {
        return Ok(());
    }
    let mode = metadata.permissions().mode() & 0o7777;
    let wanted = mode | ((mode & 0o500) >> 3) | ((mode & 0o500) >> 6);
    if wanted != mode {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(wanted))?;
    }
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path)? {
            open_to_read(&entry?.path())?;
        }
    }
    Ok(())
}

/// The users that environments run as.
#[derive(Debug)]
struct Uids {
    range: (u32, u32),
    state: Mutex<(u32, BTreeSet<u32>)>,
}

impl Uids {
    fn new(range: (u32, u32)) -> Self {
        // Two servers with one range begin at different places, and a user's files of yesterday are nobody's today.
        let width = range.1.saturating_sub(range.0).saturating_add(1);
        let first = range.0 + uuid::Uuid::new_v4().as_u128() as u32 % width.max(1);
        Self { range, state: Mutex::new((first, BTreeSet::new())) }
    }

    fn lease(self: &Arc<Self>) -> Option<Lease> {
        let mut state = lock(&self.state);
        let (next, taken) = &mut *state;
        let (first, last) = self.range;
        if taken.len() > (last - first) as usize {
            return None;
        }
        while taken.contains(next) {
            *next = if *next >= last { first } else { *next + 1 };
        }
        let uid = *next;
        taken.insert(uid);
        *next = if uid >= last { first } else { uid + 1 };
        drop(state);
        Some(Lease { uid, of: self.clone() })
    }
}

/// A user that one environment has for itself, until this is dropped.
#[derive(Debug)]
pub struct Lease {
    pub uid: u32,
    of: Arc<Uids>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        lock(&self.of.state).1.remove(&self.uid);
    }
}

/// Copies of what functions need, for users who cannot enter the data directory where no file system of their own shows it to
/// them: a folder whose entries have random names that nobody can list.
struct Stage {
    dir: PathBuf,
    copies: Mutex<HashMap<PathBuf, PathBuf>>,
}

impl Stage {
    fn new() -> io::Result<Self> {
        let name = format!("longshore-{}", uuid::Uuid::new_v4().simple());
        let places = [std::env::temp_dir(), "/tmp".into(), "/var/tmp".into()];
        let open = |place: &&PathBuf| place.is_absolute() && place.ancestors().all(is_open);
        let place = places.iter().find(open).ok_or_else(|| {
            io::Error::other("no folder for temporary files that every user may enter: set TMPDIR to one")
        })?;
        let dir = place.join(name);
        std::fs::DirBuilder::new().mode(0o711).create(&dir)?;
        // The umask has its say in `mkdir` alone.
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o711))?;
        Ok(Self { dir, copies: Mutex::default() })
    }

    /// Where the copy of a folder is, which is made at the first call. Held while it is made: whoever else needs it waits.
    fn copy_of(&self, folder: &Path) -> io::Result<PathBuf> {
        let mut copies = lock(&self.copies);
        if let Some(copy) = copies.get(folder) {
            return Ok(copy.clone());
        }
        // Code that is no more has no environments either.
        copies.retain(|folder, copy| {
            let is_there = folder.exists();
            if !is_there && let Err(error) = super::process::remove_dir(copy) {
                tracing::warn!(%error, dir = %copy.display(), "a copy of code that is no more could not be removed");
            }
            is_there
        });
        let to = self.dir.join(uuid::Uuid::new_v4().simple().to_string());
        copy(folder, &to)?;
        copies.insert(folder.to_owned(), to.clone());
        Ok(to)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Err(error) = super::process::remove_dir(&self.dir) {
            tracing::warn!(%error, dir = %self.dir.display(), "copies of functions' code could not be removed");
        }
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let metadata = std::fs::symlink_metadata(from)?;
    if metadata.is_symlink() {
        return std::os::unix::fs::symlink(std::fs::read_link(from)?, to);
    }
    if metadata.is_dir() {
        std::fs::create_dir(to)?;
        for entry in std::fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
    } else {
        std::fs::copy(from, to)?;
    }
    // A folder may be closed to writing: its mode comes last.
    std::fs::set_permissions(to, metadata.permissions())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_leased_once_at_a_time_and_come_back() {
        let uids = Arc::new(Uids::new((100, 102)));
        let leases: Vec<Lease> = (0..3).map(|_| uids.lease().unwrap()).collect();
        assert_eq!(leases.iter().map(|l| l.uid).collect::<BTreeSet<_>>(), BTreeSet::from([100, 101, 102]));
        assert!(uids.lease().is_none());
        let freed = leases[1].uid;
        drop(leases.into_iter().nth(1));
        assert!((100..=102).contains(&freed));
        assert!(uids.lease().is_some());
    }

    #[test]
    fn views_hold_until_something_is_put_in_the_place_of_what_shows() {
        let temp = tempfile::tempdir().unwrap();
        let path = |name: &str| temp.path().join(name);
        std::fs::write(path("file"), "1").unwrap();
        std::fs::create_dir(path("folder")).unwrap();
        let binds = ["file", "folder", "missing"].map(|name| Bind {
            from: path(name),
            to: path(name),
            kind: if name == "folder" { BindKind::Folder } else { BindKind::File },
        });
        let views = Views::now(&binds).unwrap();
        // What is written into them shows.
        std::fs::write(path("file"), "2").unwrap();
        std::fs::write(path("folder").join("entry"), "1").unwrap();
        assert!(views.hold());
        std::fs::write(path("new"), "3").unwrap();
        std::fs::rename(path("new"), path("file")).unwrap();
        assert!(!views.hold());
        assert!(Views::now(&binds).unwrap().hold());
    }

    #[test]
    fn an_interpreter_brings_the_places_of_its_links_and_of_its_virtual_environment() {
        let temp = tempfile::tempdir().unwrap();
        let base = std::fs::canonicalize(temp.path()).unwrap();
        for folder in ["real-3.11/bin", "real-3.11/lib/python3.11", "venv/bin", "venv/lib", "venv/share", "hop/bin"] {
            std::fs::create_dir_all(base.join(folder)).unwrap();
        }
        std::fs::write(base.join("real-3.11/bin/python3"), "").unwrap();
        std::fs::write(
            base.join("venv/pyvenv.cfg"),
            format!("home = {}\nversion = 3\n", base.join("real-3.11/bin").display()),
        )
        .unwrap();
        std::os::unix::fs::symlink("../../hop/bin/python3", base.join("venv/bin/python3")).unwrap();
        std::os::unix::fs::symlink(base.join("real-3.11/bin/python3"), base.join("hop/bin/python3")).unwrap();
        let mut found = parts_of_interpreter(&base.join("venv/bin/python3"));
        found.sort();
        found.dedup();
        let names: Vec<&str> = found.iter().map(|p| p.strip_prefix(&base).unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["hop/bin", "real-3.11/bin", "real-3.11/lib", "venv/bin", "venv/lib", "venv/pyvenv.cfg"]);
    }

    #[test]
    fn what_its_owner_may_read_and_run_everybody_may_then() {
        let temp = tempfile::tempdir().unwrap();
        let file = |name: &str, mode| {
            let path = temp.path().join(name);
            std::fs::write(&path, "x").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let (data, program) = (file("data", 0o600), file("program", 0o500));
        open_to_read(temp.path()).unwrap();
        assert_eq!((mode(temp.path()), mode(&data), mode(&program)), (0o755, 0o644, 0o555));
    }

    #[test]
    fn a_folder_that_is_made_again_under_its_name_is_opened_again() {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("code");
        let opened = Opened::default();
        for _ in 0..2 {
            std::fs::create_dir(&folder).unwrap();
            std::fs::write(folder.join("app.py"), "x").unwrap();
            std::fs::set_permissions(folder.join("app.py"), std::fs::Permissions::from_mode(0o400)).unwrap();
            opened.open(&folder).unwrap();
            opened.open(&folder).unwrap();
            let mode = std::fs::metadata(folder.join("app.py")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o444);
            std::fs::remove_dir_all(&folder).unwrap();
        }
    }

    #[test]
    fn a_copy_goes_when_another_is_made_after_its_code_went() {
        let (temp, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let stage = Stage { dir: dir.path().to_owned(), copies: Mutex::default() };
        let [one, two] = ["one", "two"].map(|name| temp.path().join(name));
        std::fs::create_dir(&one).unwrap();
        std::fs::create_dir(&two).unwrap();
        let copy = stage.copy_of(&one).unwrap();
        assert_eq!(stage.copy_of(&one).unwrap(), copy);
        std::fs::remove_dir(&one).unwrap();
        assert!(stage.copy_of(&two).unwrap().exists() && !copy.exists());
    }

    #[test]
    fn a_server_below_the_floor_refuses_and_one_without_a_sandbox_does_not() {
        let report = Report { root: true, layers: BTreeMap::new() };
        let with = |mode| SandboxSettings { mode, ..SandboxSettings::default() };
        let refused = refusal(&with(Mode::Auto), &report, None).unwrap();
        assert_eq!(
            refused.message,
            "functions are not started: this machine's sandbox is below the floor, and lacks own-uid, rlimits, seccomp, \
             landlock or mount-namespace, landlock or net-namespace"
        );
        assert!(refused.hint.contains("--sandbox=off"));
        assert!(refusal(&with(Mode::Require), &report, None).unwrap().message.contains("uts-namespace"));
        assert_eq!(refusal(&with(Mode::Off), &report, None), None);
        let proportional = SandboxSettings { cpu_proportional: true, ..with(Mode::Off) };
        assert!(refusal(&proportional, &report, None).unwrap().message.contains("needs control groups"));
    }
}
