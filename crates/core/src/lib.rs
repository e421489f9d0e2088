//! Every decision, no waiting: plain values in, plain values out.
//!
//! Nothing here waits, and nothing reads a clock, a random source, a file, a socket or an environment variable: time
//! and randomness arrive as arguments. That is what lets the simulator run years of crashes in seconds.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used))]

pub mod counted;
pub mod crowd;
pub mod delivery;
pub mod dispatch;
pub mod event_invocation;
pub mod failures;
pub mod figures;
pub mod filter;
pub mod histogram;
pub mod inventory;
pub mod invocation;
pub mod job;
pub mod lease;
pub mod manifest;
pub mod past;
pub mod pattern;
pub mod permission;
pub mod policy;
pub mod pool;
pub mod random;
pub mod rate;
pub mod record;
pub mod remote_answer;
pub mod report;
pub mod retry;
pub mod run;
pub mod sample;
pub mod schedule;
pub mod speed;
pub mod start;
pub mod task;
pub mod threshold;
pub mod time;
