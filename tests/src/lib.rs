//! Tests that belong to no single crate. Those in Rust stand beside this folder, each named in `Cargo.toml`; those that
//! drive the finished server with real AWS clients are in Python, in `conformance/`.

#![forbid(unsafe_code)]
