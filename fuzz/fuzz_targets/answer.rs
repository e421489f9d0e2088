//! What a function answers: any bytes amount to something, and to the same each time.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use longshore_core::invocation::{Reply, judge};

fuzz_target!(|input: &[u8]| {
    for reply in [Reply::Answer(Bytes::copy_from_slice(input)), Reply::FunctionError(Bytes::copy_from_slice(input))] {
        let judged = judge(&reply, "task-1");
        assert_eq!(judged, judge(&reply, "task-1"));
    }
});
