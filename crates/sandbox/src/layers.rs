//! The layers of the sandbox as plain values: their names, what each is for, and how few are too few.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One layer. The order is that of the table that `longshore doctor` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    /// A user ID of its own for each environment, where the server is root.
    OwnUid,
    /// Rights to make the other namespaces, where the server is not root.
    UserNamespace,
    /// A file system of its own.
    MountNamespace,
    PidNamespace,
    NetNamespace,
    IpcNamespace,
    UtsNamespace,
    Landlock,
    Seccomp,
    /// No capability, not even one that could be got back.
    Capabilities,
    /// Limits of open files, file sizes, processes and core dumps.
    Rlimits,
    /// Control groups: memory, processes, CPU, freezing.
    Cgroup,
}

use Layer::*;

impl Layer {
    pub const ALL: [Layer; 12] = [
        OwnUid,
        UserNamespace,
        MountNamespace,
        PidNamespace,
        NetNamespace,
        IpcNamespace,
        UtsNamespace,
        Landlock,
        Seccomp,
        Capabilities,
        Rlimits,
        Cgroup,
    ];

    /// Its name in settings and tables.
    pub fn name(self) -> &'static str {
        match self {
            OwnUid => "own-uid",
            UserNamespace => "user-namespace",
            MountNamespace => "mount-namespace",
            PidNamespace => "pid-namespace",
            NetNamespace => "net-namespace",
            IpcNamespace => "ipc-namespace",
            UtsNamespace => "uts-namespace",
            Landlock => "landlock",
            Seccomp => "seccomp",
            Capabilities => "capabilities",
            Rlimits => "rlimits",
            Cgroup => "cgroup",
        }
    }

    /// What would be possible without it.
    pub fn why(self) -> &'static str {
        match self {
            OwnUid => "each environment has a user ID of its own, never the server's",
            UserNamespace => "lets a server that is not root make the other namespaces",
            MountNamespace => {
                "functions see the system, their code and their own /tmp, and nothing of the server's files"
            }
            PidNamespace => "functions see and signal no process but their own, and all of them end together",
            NetNamespace => "functions reach their Runtime API and S3, and no other address",
            IpcNamespace => "no shared memory and no message queues with others",
            UtsNamespace => "a host name of its own",
            Landlock => "a second lock on files, on TCP ports, and on signals and sockets to others",
            Seccomp => "system calls that functions do not need are refused: less of the kernel to attack",
            Capabilities => "no privilege is left, and none can be got back",
            Rlimits => "open files, file sizes, processes and core dumps are bounded",
            Cgroup => "memory, processes and CPU are bounded by the kernel, and idle environments can be frozen",
        }
    }

    /// What would turn it on where it is missing.
    pub fn hint(self, root: bool) -> &'static str {
        match self {
            OwnUid => "give the server CAP_SETUID and CAP_SETGID, or run it as an ordinary user",
            UserNamespace => {
                "allow user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone or \
                 kernel.apparmor_restrict_unprivileged_userns; in a container a seccomp profile that lets unshare pass)"
            }
            MountNamespace | PidNamespace | NetNamespace | IpcNamespace | UtsNamespace if root => {
                "give the container CAP_SYS_ADMIN, or run the server as an ordinary user where user namespaces are allowed"
            }
            MountNamespace | PidNamespace | NetNamespace | IpcNamespace | UtsNamespace => {
                "needs the user-namespace layer"
            }
            Landlock => "a kernel from 5.13 on with landlock in the list of the lsm= parameter",
            Seccomp => "a kernel with CONFIG_SECCOMP_FILTER",
            Capabilities => "a kernel that lets a process drop its own",
            Rlimits => "higher hard limits for the server: ulimit -H, or LimitNOFILE= in its unit",
            Cgroup if root => "mount cgroups writable",
            Cgroup => {
                "run the server as a systemd unit with Delegate=yes (systemd-run --user -p Delegate=yes longshore serve)"
            }
        }
    }

    /// Whether it is a namespace, and with that made by `clone`.
    pub(crate) fn is_namespace(self) -> bool {
        matches!(self, UserNamespace | MountNamespace | PidNamespace | NetNamespace | IpcNamespace | UtsNamespace)
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Layer {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Layer::ALL.into_iter().find(|layer| layer.name() == name).ok_or_else(|| {
            let all: Vec<&str> = Layer::ALL.iter().map(|layer| layer.name()).collect();
            format!("there is no layer {name:?}: they are {}", all.join(", "))
        })
    }
}

/// How much sandbox is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Every layer that the machine has, and never less than the floor.
    #[default]
    Auto,
    /// Every layer, or none of the server.
    Require,
    /// No layer: functions can do what the server's user can.
    Off,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "auto" => Ok(Mode::Auto),
            "require" => Ok(Mode::Require),
            "off" => Ok(Mode::Off),
            _ => Err(format!("must be auto, require or off, not {name:?}")),
        }
    }
}

/// How it stands with a layer on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It was tried and works. The text says how much of it, where that differs.
    On(String),
    /// There is nothing for it to do: why.
    NotNeeded(&'static str),
    /// It was tried and does not work: why.
    Missing(String),
    /// A setting says that it is not to be used: which.
    Off(&'static str),
}

impl State {
    pub fn word(&self) -> &'static str {
        match self {
            State::On(_) => "on",
            State::NotNeeded(_) => "not needed",
            State::Missing(_) => "missing",
            State::Off(_) => "off",
        }
    }

    pub fn detail(&self) -> &str {
        match self {
            State::On(detail) | State::Missing(detail) => detail,
            State::NotNeeded(why) | State::Off(why) => why,
        }
    }

    pub fn is_on(&self) -> bool {
        matches!(self, State::On(_))
    }
}

/// What the layers of this machine come down to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Whether the server is root.
    pub root: bool,
    pub layers: BTreeMap<Layer, State>,
}

impl Report {
    pub fn is_on(&self, layer: Layer) -> bool {
        self.layers.get(&layer).is_some_and(State::is_on)
    }

    pub fn on(&self) -> BTreeSet<Layer> {
        self.layers.iter().filter(|(_, state)| state.is_on()).map(|(layer, _)| *layer).collect()
    }

    fn has(&self, layer: Layer) -> bool {
        matches!(self.layers.get(&layer), Some(State::On(_) | State::NotNeeded(_)))
    }

    /// What of the floor is not there, in words. Below the floor no function is started.
    ///
    /// Source: promises 4.4 item 5: an own user ID where the server is root, resource limits, Landlock or a mount namespace,
    /// seccomp. The helper's environment is always empty. And, since else nothing kept a function from answering for its
    /// neighbours or, as the server's own user, from killing the server: without Landlock a network and a PID namespace.
    pub fn below_floor(&self) -> Vec<String> {
        let mut lacks: Vec<String> = [OwnUid, Rlimits, Seccomp]
            .into_iter()
            .filter(|layer| !self.has(*layer))
            .map(|layer| layer.to_string())
            .collect();
        let instead = [
            (MountNamespace, self.is_on(MountNamespace)),
            // Functions in an open network share the machine's on purpose.
            (NetNamespace, self.has(NetNamespace)),
            (PidNamespace, self.is_on(PidNamespace) || self.root),
        ];
        for (layer, _) in instead.into_iter().filter(|(_, is_there)| !self.is_on(Landlock) && !is_there) {
            lacks.push(format!("{Landlock} or {layer}"));
        }
        lacks
    }

    /// What is not there of all.
    pub fn lacks(&self) -> Vec<Layer> {
        Layer::ALL.into_iter().filter(|layer| !self.has(*layer)).collect()
    }

    /// One line for the log of a server's start.
    pub fn summary(&self) -> String {
        let named = |wanted: fn(&State) -> bool| {
            let names = Layer::ALL.iter().filter(|layer| self.layers.get(layer).is_some_and(wanted));
            names.map(|layer| layer.name()).collect::<Vec<_>>().join(" ")
        };
        let mut line = format!("on: {}", named(State::is_on));
        for (word, wanted) in [
            ("missing", (|state| matches!(state, State::Missing(_))) as fn(&State) -> bool),
            ("off", |state| matches!(state, State::Off(_))),
        ] {
            let names = named(wanted);
            if !names.is_empty() {
                line.push_str(&format!("; {word}: {names}"));
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(root: bool, without: &[Layer]) -> Report {
        let layers = Layer::ALL.into_iter().map(|layer| {
            let needed = !matches!((layer, root), (OwnUid, false) | (UserNamespace, true));
            let state = match (without.contains(&layer), needed) {
                (true, _) => State::Missing("tried".into()),
                (false, true) => State::On(String::new()),
                (false, false) => State::NotNeeded("nothing to do"),
            };
            (layer, state)
        });
        Report { root, layers: layers.collect() }
    }

    #[test]
    fn the_floor_is_an_own_uid_for_root_and_limits_and_seccomp_and_one_of_two_locks_on_files() {
        for (root, without, lacks) in [
            (true, vec![], vec![]),
            (true, vec![OwnUid], vec!["own-uid"]),
            (false, vec![UserNamespace, MountNamespace, PidNamespace, NetNamespace, Cgroup], vec![]),
            (true, vec![Landlock], vec![]),
            (true, vec![MountNamespace], vec![]),
            (false, vec![Landlock, MountNamespace], vec!["landlock or mount-namespace"]),
            (true, vec![Landlock, NetNamespace], vec!["landlock or net-namespace"]),
            (true, vec![Landlock, PidNamespace], vec![]),
            (false, vec![Landlock, PidNamespace], vec!["landlock or pid-namespace"]),
            (true, vec![Seccomp, Rlimits], vec!["rlimits", "seccomp"]),
        ] {
            assert_eq!(report(root, &without).below_floor(), lacks, "{root} {without:?}");
        }
    }

    #[test]
    fn requiring_all_names_each_layer_that_is_not_there() {
        assert_eq!(report(true, &[]).lacks(), []);
        assert_eq!(report(false, &[Cgroup, UtsNamespace]).lacks(), [UtsNamespace, Cgroup]);
    }

    #[test]
    fn the_summary_names_what_is_on_and_what_is_not() {
        let mut report = report(false, &[Cgroup]);
        report.layers.insert(NetNamespace, State::Off("network = \"open\""));
        assert_eq!(
            report.summary(),
            "on: user-namespace mount-namespace pid-namespace ipc-namespace uts-namespace landlock seccomp capabilities \
             rlimits; missing: cgroup; off: net-namespace"
        );
    }

    #[test]
    fn names_are_read_back_and_unknown_ones_are_refused_with_the_list() {
        for layer in Layer::ALL {
            assert_eq!(layer.name().parse(), Ok(layer));
            assert_eq!(serde_json::to_value(layer).unwrap(), layer.name());
        }
        assert!("selinux".parse::<Layer>().unwrap_err().contains("own-uid, user-namespace"));
    }
}
