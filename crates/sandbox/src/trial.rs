//! Finds out which layers a machine has, by putting them on.
//!
//! First all together, as an environment would have them. Where that fails each is tried alone, and then those that work
//! together again, until a set does: what is reported as on has been on.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use crate::helper::Helper;
use crate::layers::{Layer, Report, State};
use crate::line::{Line, News};
use crate::spec::Spec;

/// How long a trial may take. It is a matter of milliseconds; a machine that is busy may need more.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is known before anything was tried.
pub struct Given {
    pub root: bool,
    /// Layers that are not to be used, with the setting that says so.
    pub off: BTreeMap<Layer, &'static str>,
    /// Layers that cannot be had, and why.
    pub missing: BTreeMap<Layer, String>,
    /// Words on layers for where they turn out to be on.
    pub details: BTreeMap<Layer, String>,
}

/// Tries. `spec` makes a trial's spec of a set of layers. Blocking.
pub fn run(helper: &Helper, given: Given, spec: impl Fn(&BTreeSet<Layer>) -> Spec) -> io::Result<Report> {
    let Given { root, off, mut missing, mut details } = given;
    let mut layers = BTreeMap::new();
    for (layer, why) in &off {
        layers.insert(*layer, State::Off(why));
    }
    let unneeded = if root {
        (Layer::UserNamespace, "the server is root, and needs none to make the others")
    } else {
        (Layer::OwnUid, "the server is not root, and cannot become anybody else")
    };
    layers.entry(unneeded.0).or_insert(State::NotNeeded(unneeded.1));
    let mut candidates: BTreeSet<Layer> =
        Layer::ALL.into_iter().filter(|layer| !layers.contains_key(layer) && !missing.contains_key(layer)).collect();
    // An ordinary user makes namespaces in one of its own.
    let needs_user = |layer: Layer| !root && layer.is_namespace() && layer != Layer::UserNamespace;
    if !root && !candidates.contains(&Layer::UserNamespace) {
        without_user(&mut candidates, &mut missing, needs_user);
    }
    let mut alone_tried = false;
    loop {
        let (layer, what) = match attempt(helper, &spec(&candidates))? {
            Ok(told) => {
                for (layer, detail) in told {
                    details.entry(layer).or_insert(detail);
                }
                break;
            }
            Err(fault) => fault,
        };
        match layer {
            Some(layer) if candidates.remove(&layer) => {
                missing.insert(layer, what);
            }
            _ if !alone_tried => {
                alone_tried = true;
                for layer in candidates.clone() {
                    let mut alone = BTreeSet::from([layer]);
                    if needs_user(layer) {
                        alone.insert(Layer::UserNamespace);
                    }
                    if let Err((_, what)) = attempt(helper, &spec(&alone))? {
                        candidates.remove(&layer);
                        missing.insert(layer, what);
                    }
                }
            }
            // Each works alone and not together: one after the other is left out, the least first.
            _ => match candidates.iter().next_back().copied() {
                Some(last) => {
                    candidates.remove(&last);
                    missing.insert(last, format!("not together with the others: {what}"));
                }
                None => return Err(io::Error::other(format!("not even a plain process can be started: {what}"))),
            },
        }
        if !root && !candidates.contains(&Layer::UserNamespace) {
            without_user(&mut candidates, &mut missing, needs_user);
        }
    }
    for layer in candidates {
        layers.insert(layer, State::On(details.remove(&layer).unwrap_or_default()));
    }
    for (layer, why) in missing {
        layers.entry(layer).or_insert(State::Missing(why));
    }
    Ok(Report { root, layers })
}

fn without_user(
    candidates: &mut BTreeSet<Layer>,
    missing: &mut BTreeMap<Layer, String>,
    needs_user: impl Fn(Layer) -> bool,
) {
    for layer in candidates.clone().into_iter().filter(|layer| needs_user(*layer)) {
        candidates.remove(&layer);
        missing.insert(layer, format!("without {}, an ordinary user has it not", Layer::UserNamespace));
    }
}

type Tried = Result<Vec<(Layer, String)>, (Option<Layer>, String)>;

/// One trial.
fn attempt(helper: &Helper, spec: &Spec) -> io::Result<Tried> {
    let null = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
    let line = helper.start(spec, null.as_fd())?;
    let deadline = Instant::now() + PATIENCE;
    let mut answer = None;
    let mut pidfd = None;
    loop {
        match wait(&line, deadline)? {
            Some((News::Tried { details }, _)) => answer = Some(Ok(details)),
            Some((News::Failed { layer, what }, _)) => answer = Some(Err((layer, what))),
            Some((News::Born { .. }, fds)) => pidfd = fds.into_iter().next(),
            Some(_) => {}
            None => break,
        }
    }
    // Its groups can only be removed once it is gone.
    if let Some(pidfd) = pidfd {
        let _ = rustix::event::poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&left(deadline)));
    }
    if let Some(Ok(_)) = answer
        && let Err(error) = crate::cgroup::remove(&spec.ground.cgroups)
    {
        answer = Some(Err((Some(Layer::Cgroup), format!("groups cannot be removed: {error}"))));
    }
    Ok(answer.unwrap_or_else(|| Err((None, "it ended without a word".into()))))
}

fn left(deadline: Instant) -> Timespec {
    let left = deadline.saturating_duration_since(Instant::now());
    Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }
}

fn wait(line: &Line, deadline: Instant) -> io::Result<Option<(News, Vec<std::os::fd::OwnedFd>)>> {
    loop {
        match line.hear() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
        match rustix::event::poll(&mut [PollFd::new(line, PollFlags::IN)], Some(&left(deadline))) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::TimedOut, "a trial of the sandbox does not end")),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether this kernel's Landlock looks at TCP ports.
pub fn landlock_has_ports() -> bool {
    crate::confine::landlock_has_ports()
}
