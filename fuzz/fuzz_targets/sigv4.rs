//! A request's head: a line of method and target, then headers. Reading its authentication never panics.
#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use libfuzzer_sys::fuzz_target;
use longshore_wire::sigv4::Claim;

fuzz_target!(|input: &[u8]| {
    let mut lines = input.split(|b| *b == b'\n');
    let Some(Ok(target)) = lines.next().map(std::str::from_utf8) else { return };
    let mut headers = HeaderMap::new();
    for line in lines.take(40) {
        let Some(colon) = line.iter().position(|b| *b == b':') else { continue };
        let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(&line[colon + 1..]))
        else {
            continue;
        };
        headers.append(name, value);
    }
    if let Ok(claim) = Claim::parse(&Method::GET, target, &headers) {
        // What was read is what stood there.
        assert!(!claim.access_key_id().is_empty() && !claim.service().is_empty() && !claim.region().is_empty());
    }
});
