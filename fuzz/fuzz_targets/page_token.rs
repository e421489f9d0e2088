//! The token of a listing: whatever a client sends, it is one of ours or none, and one of ours leads back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use longshore_wire::page_token::{decode, encode};

fuzz_target!(|input: &str| {
    if let Some((created, id)) = decode(input, "000000000000/[]") {
        assert_eq!(decode(&encode(created, &id, "000000000000/[]"), "000000000000/[]"), Some((created, id)));
    }
    assert_eq!(decode(input, "999999999999/[]").is_some() && decode(input, "000000000000/[]").is_some(), false);
});
