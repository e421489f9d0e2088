//! Signed chunks: whatever comes and however it is cut, no body ends well that no signature covers, and none is longer than announced.
#![no_main]

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use libfuzzer_sys::fuzz_target;
use longshore_wire::payload::{Decoder, PayloadForm};
use longshore_wire::sigv4::{Claim, Credentials, Key, Rules, Signer};

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const NOW: i64 = 1_369_353_600;

/// What the body of a signed upload in chunks is passed through, as the server has it after it verified the head.
fn decoder(length: u8) -> Decoder {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("host", "s3.amazonaws.com".to_owned()),
        ("content-encoding", "aws-chunked".to_owned()),
        ("x-amz-decoded-content-length", length.to_string()),
    ] {
        headers.insert(name, HeaderValue::from_str(&value).expect("it is ASCII"));
    }
    let credentials = Credentials {
        access_key_id: "AKIAIOSFODNN7EXAMPLE".into(),
        secret_access_key: SECRET.into(),
        session_token: None,
    };
    let signer = Signer { credentials: &credentials, service: "s3", region: "us-east-1" };
    let signed = signer.sign(&Method::PUT, "/b/k", &headers, PayloadForm::SignedChunks, NOW).expect("it can be signed");
    headers.extend(signed.headers.into_iter().map(|(name, value)| (Some(name), value)));
    let rules = Rules { regions: &["us-east-1"], services: &["s3"], unsigned_payload: false, keys: None };
    let claim = Claim::parse(&Method::PUT, "/b/k", &headers).expect("we signed it");
    let verified = claim.verify(&Key::lasting(SECRET, "000000000000"), &rules, NOW, None).expect("we signed it");
    verified.decoder().expect("it has all that it needs")
}

/// What came out, and whether it ended well.
fn decode(length: u8, body: &[u8], piece: usize) -> (Vec<u8>, bool) {
    let (mut decoder, mut out) = (decoder(length), Vec::new());
    for part in body.chunks(piece) {
        match decoder.push(Bytes::copy_from_slice(part)) {
            Ok(parts) => parts.iter().for_each(|part| out.extend_from_slice(part)),
            Err(_) => return (out, false),
        }
    }
    (out, decoder.finish().is_ok())
}

fuzz_target!(|input: &[u8]| {
    let [length, piece, body @ ..] = input else { return };
    let whole = decode(*length, body, body.len().max(1));
    let cut = decode(*length, body, usize::from(*piece).max(1));
    // Bytes come out before the signature behind them is seen; whoever takes them keeps them only if it ends well. It never does: the
    // key is in this file, but no mutation signs with it.
    assert!(!whole.1 && !cut.1, "a body that nobody signed");
    assert!(whole.0.len().max(cut.0.len()) <= usize::from(*length), "more than was announced");
});
