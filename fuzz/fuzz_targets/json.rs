//! How deep a JSON document is: the look before the parser agrees with what the parser made of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use longshore_wire::json::{DEPTH_MAX, is_shallow};
use serde_json::Value;

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fuzz_target!(|input: &[u8]| {
    let shallow = is_shallow(input);
    // What serde_json refuses for its own depth of 128 has to be refused here as well.
    match serde_json::from_slice::<Value>(input) {
        // Of two members of one name the parser keeps the last: the deeper one may be gone.
        Ok(value) => assert!(depth(&value) <= DEPTH_MAX || !shallow),
        Err(error) => assert!(!shallow || !error.to_string().starts_with("recursion limit")),
    }
});
