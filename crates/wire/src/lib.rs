//! AWS on the wire: bytes in, bytes out.
//!
//! Nothing here waits, reads a clock, a random source, a file, a socket or an environment variable: the time of a
//! request and the randomness of an ID are arguments. What a route does lives in the room that serves it; how it is
//! addressed, signed, parsed and answered lives here.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used))]

pub mod answer;
pub mod arn;
pub mod caller;

pub mod error;
pub mod event;
pub mod http;
pub mod json;
pub mod operation;
pub mod page_token;
pub mod payload;
pub mod s3_actions;
pub mod sigv4;
pub mod xml;

pub use caller::{Asked, Caller, Denied};
pub use error::ApiError;
pub use http::{Query, Request, RequestId, Response};
pub use operation::{Call, Handler, Operation, Route, Routed};
