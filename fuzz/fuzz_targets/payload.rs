//! The aws-chunked coding: how the body is cut into reads makes no difference to what comes out.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use longshore_wire::payload::{Decoder, PayloadForm};

/// Decoded bytes and whether it ended well. `pieces` is the size of each read.
fn decode(body: &[u8], length: u64, pieces: usize) -> (Vec<u8>, bool) {
    let announced = vec!["x-amz-checksum-crc32".to_owned()];
    let mut decoder =
        Decoder::new(PayloadForm::UnsignedTrailer, Some(length), announced, None).expect("nothing signed is needed");
    let mut out = Vec::new();
    for piece in body.chunks(pieces) {
        match decoder.push(Bytes::copy_from_slice(piece)) {
            Ok(parts) => parts.iter().for_each(|part| out.extend_from_slice(part)),
            Err(_) => return (out, false),
        }
    }
    (out, decoder.finish().is_ok())
}

fuzz_target!(|input: &[u8]| {
    let [length, body @ ..] = input else { return };
    let whole = decode(body, u64::from(*length), body.len().max(1));
    let bytewise = decode(body, u64::from(*length), 1);
    assert_eq!(whole.1, bytewise.1);
    if whole.1 {
        assert_eq!(whole.0, bytewise.0);
        assert_eq!(whole.0.len(), usize::from(*length));
    }
});
