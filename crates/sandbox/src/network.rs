//! Networks of environments, made ahead.
//!
//! The kernel takes some ten milliseconds to make a network namespace, of which it works for one: so the helper has a few
//! in store, each with its loopback interface on and the two listeners in it. An environment enters one instead of making
//! one, and nobody else ever does.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::SocketFlags;
use rustix::thread::LinkNameSpaceType;

use crate::confine::{At, Fault};
use crate::layers::Layer;
use crate::{RUNTIME_API_PORT, S3_PORT, line, sys};

const LAYER: Layer = Layer::NetNamespace;
/// In store at least and at most: as many as start at once, which is one a core. One is some hundred kilobytes of the
/// kernel's.
const STORE: (usize, usize) = (2, 32);

/// A network namespace that nobody is in.
#[derive(Debug)]
pub struct Network {
    namespace: OwnedFd,
    runtime_api: TcpListener,
    s3: TcpListener,
}

impl Network {
    /// Moves this process into it, and returns the Runtime API's listener and that of S3.
    pub fn enter(self) -> Result<(TcpListener, TcpListener), Fault> {
        let kind = Some(LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(self.namespace.as_fd(), kind).at(LAYER, "it cannot be entered")?;
        Ok((self.runtime_api, self.s3))
    }
}

/// Makes the two listeners in the new network namespace of this process: the Runtime API's and S3's.
pub fn listen() -> Result<(TcpListener, TcpListener), Fault> {
    sys::loopback_up().at(LAYER, "its loopback interface cannot be turned on")?;
    let on = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).at(LAYER, "no listener in it");
    Ok((on(RUNTIME_API_PORT)?, on(S3_PORT)?))
}

/// What the helper has in store. Each network is made by a child that hands it over and ends.
pub struct Store {
    ready: Vec<Network>,
    /// Children that have not handed over yet. One that was killed never does, and costs its place.
    making: usize,
    /// 0 once one could not be made: then environments make their own, and say why they cannot.
    wanted: usize,
    finished: OwnedFd,
    /// The children's end of it.
    hand_over: OwnedFd,
}

impl Store {
    pub fn new() -> io::Result<Self> {
        let (finished, hand_over) = line::pair(SocketFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&finished, true)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self { ready: Vec::new(), making: 0, wanted: cores.clamp(STORE.0, STORE.1), finished, hand_over })
    }

    /// One that is ready.
    pub fn take(&mut self) -> Option<Network> {
        self.collect();
        self.ready.pop()
    }

    /// Has as many made as are missing. Waits for none.
    pub fn fill(&mut self) {
        self.collect();
        while self.ready.len() + self.making < self.wanted {
            match sys::clone_into(libc::CLONE_NEWNET) {
                Ok(sys::Forked::Child) => sys::exit(i32::from(make(&self.hand_over).is_err())),
                Ok(sys::Forked::Parent(..)) => self.making += 1,
                Err(_) => self.wanted = 0,
            }
        }
    }

    fn collect(&mut self) {
        let mut buffer = [0; 16];
        while let Ok((length, fds)) = line::receive(self.finished.as_fd(), &mut buffer) {
            self.making = self.making.saturating_sub(1);
            let mut fds = fds.into_iter();
            match (fds.next(), fds.next(), fds.next()) {
                (Some(namespace), Some(runtime_api), Some(s3)) if length > 0 => {
                    self.ready.push(Network { namespace, runtime_api: runtime_api.into(), s3: s3.into() });
                }
                _ => self.wanted = 0,
            }
        }
    }
}

/// The child's whole life: tells in any case that it is over.
fn make(hand_over: &OwnedFd) -> io::Result<()> {
    let made = listen().and_then(|(runtime_api, s3)| {
        let namespace = std::fs::File::open("/proc/self/ns/net").at(LAYER, "it cannot be kept")?;
        Ok((namespace, runtime_api, s3))
    });
    match made {
        Ok((namespace, runtime_api, s3)) => {
            line::send_text(hand_over.as_fd(), b"made", &[namespace.as_fd(), runtime_api.as_fd(), s3.as_fd()])
        }
        Err(_) => line::send_text(hand_over.as_fd(), b"failed", &[]),
    }
}
