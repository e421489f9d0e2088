//! The sandbox of functions: what Linux offers to keep a program apart, in layers, each of which may be missing.
//!
//! The server starts itself a second time as the *helper* ([`helper`]), a process of one thread with an empty environment, which
//! does nothing but fork. For each execution environment it clones a child into new namespaces; that child is the
//! environment's *init* ([`init`]): it builds the file system, opens the listeners inside the network namespace and passes
//! them out, forks the runtime, tells how it ended, and takes everything with it when it dies. All but what is one function's
//! own can be done ahead: such an environment waits until it is told its program. Which layers a machine has is found out by
//! trying ([`trial`]).
//!
//! This is the one crate that may use `unsafe`, and it does in [`sys`] alone.
//!
//! Source: Lambda specification 1.12, 10 and 12; `docs/sandbox.md`; decision 0022.

#![deny(unsafe_code)]

#[cfg(not(target_os = "linux"))]
compile_error!("the sandbox of functions is Linux");

pub mod cgroup;
mod confine;
mod filter;
pub mod helper;
mod init;
pub mod layers;
mod line;
mod network;
mod root;
pub mod spec;
mod sys;
pub mod trial;
pub mod usage;

pub use helper::{Command, Helper};
pub use layers::{Layer, Mode, Report, State};
pub use line::{Line, News, Word};
pub use spec::{Bind, BindKind, CgroupDir, Ground, Identity, Landlock, Limits, Ports, Program, Root, Spec};
pub use sys::{bound_the_allocator, let_go_of_the_program};

/// The argument with which the server's program becomes the helper.
pub const HELPER_ARGUMENT: &str = "__launch";

/// Where the Runtime API is inside an environment's own network namespace. The port is the one that AWS uses.
pub const RUNTIME_API_PORT: u16 = 9001;
/// Where S3 is inside an environment's own network namespace.
pub const S3_PORT: u16 = 9002;
/// With the host's network, connections of functions go to TCP ports below this one: from here on Linux hands out ports to
/// whoever asks for any, so that is where Runtime APIs of neighbours listen.
pub const EPHEMERAL_PORTS: u16 = 32768;
