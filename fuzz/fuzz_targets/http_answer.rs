//! What an endpoint with functions sends over a connection: any bytes amount to the same however they arrive.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use longshore_wire::answer::{Answer, AnswerReader, BadAnswer};

const BODY_MAX: usize = 1 << 10;

fn read(bytes: &[u8], size: usize) -> Result<Answer, BadAnswer> {
    let mut reader = AnswerReader::new(BODY_MAX);
    let mut input = BytesMut::new();
    for piece in bytes.chunks(size) {
        input.extend_from_slice(piece);
        if let Some(answer) = reader.read(&mut input)? {
            return Ok(answer);
        }
    }
    reader.end(&mut input)
}

fuzz_target!(|input: &[u8]| {
    let Some((size, bytes)) = input.split_first() else { return };
    let at_once = read(bytes, bytes.len().max(1));
    let in_pieces = read(bytes, usize::from(*size).max(1));
    match (&at_once, &in_pieces) {
        (Ok(a), Ok(b)) => {
            assert_eq!((&a.head, &a.body), (&b.head, &b.body));
            assert!(a.body.as_ref().is_none_or(|body| body.len() <= BODY_MAX));
        }
        (a, b) => assert!(a.is_err() && b.is_err(), "{a:?} and {b:?}"),
    }
});
