//! AWS's documented uploads, AWS's own chunk signer as an oracle, and what must be refused.

use std::time::{Duration, UNIX_EPOCH};

use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method};
use proptest::prelude::*;

use super::*;
use crate::sigv4::{Claim, Credentials, Key, Rules, Signer, Verified};

const ID: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
/// 2013-05-24T00:00:00Z, the time of S3's documented examples.
const NOW: i64 = 1_369_353_600;

fn verify(target: &str, headers: &HeaderMap) -> Verified {
    let rules = Rules { regions: &["us-east-1"], services: &["s3"], unsigned_payload: true, keys: None };
    let claim = Claim::parse(&Method::PUT, target, headers).unwrap();
    claim.verify(&Key::lasting(SECRET, "123456789012"), &rules, NOW, None).unwrap()
}

/// A verified upload in that form, signed by us.
fn upload(form: PayloadForm, length: u64, trailer: Option<&str>) -> Verified {
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static("localhost:7300"));
    headers.insert("x-amz-decoded-content-length", length.into());
    if let Some(trailer) = trailer {
        headers.insert("x-amz-trailer", trailer.parse().unwrap());
    }
    let mine = Credentials { access_key_id: ID.into(), secret_access_key: SECRET.into(), session_token: None };
    let signer = Signer { credentials: &mine, service: "s3", region: "us-east-1" };
    for (name, value) in signer.sign(&Method::PUT, "/b/k", &headers, form, NOW).unwrap().headers {
        headers.insert(name, value);
    }
    verify("/b/k", &headers)
}

/// Decodes a body handed over in pieces of the given size.
fn decode(mut decoder: Decoder, body: &[u8], piece: usize) -> Result<(Vec<u8>, Trailers), PayloadError> {
    let mut out = Vec::new();
    for bytes in body.chunks(piece) {
        for part in decoder.push(Bytes::copy_from_slice(bytes))? {
            out.extend_from_slice(&part);
        }
    }
    Ok((out, decoder.finish()?))
}

/// A body as a client encodes it, signed by AWS's own code where it is signed.
fn encode(verified: &Verified, chunks: &[&[u8]], trailer: Option<(&str, &str)>) -> Vec<u8> {
    let identity = aws_credential_types::Credentials::new(ID, SECRET, None, None, "test").into();
    let params = aws_sigv4::sign::v4::SigningParams::builder()
        .identity(&identity)
        .region("us-east-1")
        .name("s3")
        .time(UNIX_EPOCH + Duration::from_secs(NOW as u64))
        .settings(())
        .build()
        .unwrap();
    let mut previous = verified.chunk_key_for_tests().map(|key| hex::encode(key.seed()));
    let mut body = Vec::new();
    for chunk in chunks.iter().chain([&&b""[..]]) {
        body.extend_from_slice(format!("{:x}", chunk.len()).as_bytes());
        if let Some(before) = &mut previous {
            let signed = aws_sigv4::sign::v4::sign_chunk(&Bytes::copy_from_slice(chunk), before, &params).unwrap();
            *before = signed.signature().to_owned();
            body.extend_from_slice(format!(";chunk-signature={before}").as_bytes());
        }
        body.extend_from_slice(b"\r\n");
        if !chunk.is_empty() {
            body.extend_from_slice(chunk);
            body.extend_from_slice(b"\r\n");
        }
    }
    if let Some((name, value)) = trailer {
        body.extend_from_slice(format!("{name}:{value}\r\n").as_bytes());
        if let Some(before) = &previous {
            let ours = verified.chunk_key_for_tests().unwrap();
            let hash = Sha256::digest(format!("{name}:{value}\n")).into();
            let signature = ours.trailer_signature(&parse_hex32(before).unwrap(), &hash);
            body.extend_from_slice(format!("x-amz-trailer-signature:{}\r\n", hex::encode(signature)).as_bytes());
        }
    }
    body.extend_from_slice(b"\r\n");
    body
}

// --- AWS's documented examples

fn documented(pairs: &[(&str, &str)]) -> HeaderMap {
    let common = [
        ("host", "s3.amazonaws.com"),
        ("x-amz-date", "20130524T000000Z"),
        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ("content-encoding", "aws-chunked"),
        ("x-amz-decoded-content-length", "66560"),
    ];
    common
        .iter()
        .chain(pairs)
        .map(|(n, v)| (HeaderName::from_bytes(n.as_bytes()).unwrap(), HeaderValue::from_str(v).unwrap()))
        .collect()
}

fn documented_body(signatures: [&str; 3], end: &str) -> Vec<u8> {
    let [first, second, last] = signatures;
    let mut body = format!("10000;chunk-signature={first}\r\n").into_bytes();
    body.extend_from_slice(&[b'a'; 65536]);
    body.extend_from_slice(format!("\r\n400;chunk-signature={second}\r\n").as_bytes());
    body.extend_from_slice(&[b'a'; 1024]);
    body.extend_from_slice(format!("\r\n0;chunk-signature={last}\r\n{end}").as_bytes());
    body
}

#[test]
fn the_documented_chunked_upload_is_decoded() {
    let credential = format!("{ID}/20130524/us-east-1/s3/aws4_request");
    let names = "content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;\
                 x-amz-storage-class";
    let seed = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9";
    let headers = documented(&[
        ("content-length", "66824"),
        ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
        ("authorization", &format!("AWS4-HMAC-SHA256 Credential={credential},SignedHeaders={names},Signature={seed}")),
    ]);
    let verified = verify("/examplebucket/chunkObject.txt", &headers);
    assert_eq!(verified.decoded_length(), Some(66_560));
    let body = documented_body(
        [
            "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
            "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
            "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
        ],
        "\r\n",
    );
    assert_eq!(body.len(), 66_824);
    for piece in [1, 1000, 70_000] {
        let (decoded, trailers) = decode(verified.decoder().unwrap(), &body, piece).unwrap();
        assert_eq!(decoded, vec![b'a'; 66_560]);
        assert_eq!(trailers, Trailers::default());
    }
    // The same body under another seed, or with its chunks in another order.
    assert_eq!(
        decode(upload(PayloadForm::SignedChunks, 66_560, None).decoder().unwrap(), &body, 70_000),
        Err(PayloadError::ChunkSignature)
    );
}

#[test]
fn the_documented_upload_with_a_trailer_is_decoded() {
    let credential = format!("{ID}/20130524/us-east-1/s3/aws4_request");
    let names = "content-encoding;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;\
                 x-amz-storage-class;x-amz-trailer";
    let seed = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e";
    let headers = documented(&[
        ("x-amz-trailer", "x-amz-checksum-crc32c"),
        ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"),
        ("authorization", &format!("AWS4-HMAC-SHA256 Credential={credential},SignedHeaders={names},Signature={seed}")),
    ]);
    let verified = verify("/examplebucket/chunkObject.txt", &headers);
    let signatures = [
        "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
        "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
        "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
    ];
    let trailer = "d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435";
    // As clients end a trailer, and as the page prints it.
    for newline in ["\r\n", "\n\r\n"] {
        let end = format!("x-amz-checksum-crc32c:sOO8/Q=={newline}x-amz-trailer-signature:{trailer}{newline}\r\n");
        let body = documented_body(signatures, &end);
        let (decoded, trailers) = decode(verified.decoder().unwrap(), &body, 333).unwrap();
        assert_eq!(decoded.len(), 66_560);
        assert_eq!(trailers.get("x-amz-checksum-crc32c"), Some("sOO8/Q=="));
        assert_eq!(trailers.iter().count(), 1);
    }
    let end = format!("x-amz-checksum-crc32c:sOO8/R==\r\nx-amz-trailer-signature:{trailer}\r\n\r\n");
    let body = documented_body(signatures, &end);
    assert_eq!(decode(verified.decoder().unwrap(), &body, 333), Err(PayloadError::TrailerSignature));
}

// --- Any body, any pieces, and AWS's chunk signatures

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_chunks_in_any_pieces_decode_to_what_was_sent_and_no_changed_byte_passes(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
        form in prop::sample::select(vec![
            PayloadForm::SignedChunks,
            PayloadForm::SignedChunksTrailer,
            PayloadForm::UnsignedTrailer,
        ]),
        piece in 1_usize..60,
        position in any::<prop::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let plain = chunks.concat();
        let trailer = form.has_trailers().then_some(("x-amz-checksum-crc32", "AAAAAA=="));
        let verified = upload(form, plain.len() as u64, trailer.map(|t| t.0));
        let parts: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
        let body = encode(&verified, &parts, trailer);
        let (decoded, trailers) = decode(verified.decoder().unwrap(), &body, piece).unwrap();
        prop_assert_eq!(&decoded, &plain);
        prop_assert_eq!(trailers.get("x-amz-checksum-crc32"), trailer.map(|t| t.1));

        let cut = position.index(body.len());
        prop_assert!(decode(verified.decoder().unwrap(), &body[..cut], piece).is_err());
        let longer = [&body[..], b"0"].concat();
        prop_assert_eq!(decode(verified.decoder().unwrap(), &longer, piece), Err(PayloadError::TooLong));
        let mut changed = body.clone();
        changed[cut] ^= 1 << bit;
        let outcome = decode(verified.decoder().unwrap(), &changed, piece);
        // Unsigned chunks carry no proof of their bytes, and a size or a name reads the same in either case.
        let same_to_us = changed.eq_ignore_ascii_case(&body);
        if form != PayloadForm::UnsignedTrailer && !same_to_us {
            prop_assert!(outcome.is_err(), "{:?}", String::from_utf8_lossy(&changed));
        }
    }

    #[test]
    fn no_garbage_makes_the_decoder_panic_or_give_more_than_was_announced(
        body in "([0-9a-fA-F;=+ -]{0,20}\r?\n|[a-z]{0,9}\r\n|0\r\n){0,8}",
        length in 0_u64..30,
        piece in 1_usize..9,
    ) {
        let mut decoder =
            Decoder::new(PayloadForm::UnsignedTrailer, Some(length), vec!["x-amz-checksum-crc32".to_owned()], None)
                .unwrap();
        let mut given = 0;
        for bytes in body.as_bytes().chunks(piece) {
            match decoder.push(Bytes::copy_from_slice(bytes)) {
                Ok(parts) => given += parts.iter().map(Bytes::len).sum::<usize>(),
                Err(e) => {
                    prop_assert_eq!(decoder.push(Bytes::from_static(b"0\r\n\r\n")), Err(e));
                    prop_assert_eq!(decoder.finish(), Err(e));
                    return Ok(());
                }
            }
        }
        prop_assert!(given as u64 <= length);
    }
}

// --- What must be refused

#[test]
fn each_defect_of_a_chunked_body_is_refused() {
    let signed = upload(PayloadForm::SignedChunks, 6, None);
    let good = String::from_utf8(encode(&signed, &[b"abc", b"def"], None)).unwrap();
    let signatures: Vec<&str> =
        good.match_indices("chunk-signature=").map(|(i, m)| &good[i + m.len()..][..64]).collect();
    let mut lines: Vec<&str> = good.split("\r\n").collect();
    lines.swap(0, 2);
    lines.swap(1, 3);
    let swapped = lines.join("\r\n");
    use PayloadError::*;
    for (bad, wanted) in [
        (good.replace("abc\r\n", "abd\r\n"), ChunkSignature),
        (good.replace(signatures[1], &"0".repeat(64)), ChunkSignature),
        (good.replace(signatures[2], &"0".repeat(64)), ChunkSignature),
        (good.replace(signatures[1], signatures[0]), ChunkSignature),
        (good.replace(signatures[0], &signatures[0].to_uppercase()), ChunkSignature),
        (good.replace(signatures[0], "short"), ChunkSignature),
        (swapped, ChunkSignature),
        (good.replace("3;chunk-signature=", "3\r\n"), Chunk),
        (good.replacen("3;", "03;", 1).replacen("abc\r\n", "abcd\r\n", 1), Chunk),
        (good.replacen("3;", "+3;", 1), Chunk),
        (good.replacen("3;", "-3;", 1), Chunk),
        (good.replacen("3;", "0x3;", 1), Chunk),
        (good.replacen("3;", " 3;", 1), Chunk),
        (good.replacen("3;", ";", 1), Chunk),
        (good.replacen("3;", "10000000000000003;", 1), Chunk),
        (good.replacen("3;", "ffffffffffffffff;", 1), TooLong),
        (good.replacen("3;", "7;", 1), TooLong),
        (good.replacen("3;", &format!("{};", "0".repeat(200)), 1), Chunk),
        (good.replacen("\r\n", "\n", 1), ChunkSignature),
        (good.replacen("abc\r\n", "abc\n", 1), Chunk),
        (format!("0;chunk-signature={}\r\n\r\n", signatures[2]), TooShort),
        (good.replace("\r\n\r\n", "\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n"), Trailer),
        (good[..good.len() - 2].to_owned(), TooShort),
        (format!("{good}{good}"), TooLong),
        (String::new(), TooShort),
    ] {
        for piece in [1, 7, 1000] {
            assert_eq!(decode(signed.decoder().unwrap(), bad.as_bytes(), piece), Err(wanted), "{bad}");
        }
    }
    // Trailers are announced, but the form has none.
    let announced = upload(PayloadForm::SignedChunks, 3, Some("x-amz-checksum-crc32"));
    let body = encode(&announced, &[b"abc"], Some(("x-amz-checksum-crc32", "AAAAAA==")));
    assert_eq!(decode(announced.decoder().unwrap(), &body, 10), Err(Trailer));
    let too_long = upload(PayloadForm::SignedChunks, 5, None);
    let too_short = upload(PayloadForm::SignedChunks, 7, None);
    for (verified, wanted) in [(too_long, TooLong), (too_short, TooShort)] {
        let body = encode(&verified, &[b"abc", b"def"], None);
        assert_eq!(decode(verified.decoder().unwrap(), &body, 10), Err(wanted));
    }
}

#[test]
fn each_defect_of_the_trailers_is_refused() {
    let crc = ("x-amz-checksum-crc32", "AAAAAA==");
    for form in [PayloadForm::SignedChunksTrailer, PayloadForm::UnsignedTrailer] {
        let verified = upload(form, 3, Some(crc.0));
        let good = String::from_utf8(encode(&verified, &[b"abc"], Some(crc))).unwrap();
        decode(verified.decoder().unwrap(), good.as_bytes(), 5).unwrap();
        let line = "x-amz-checksum-crc32:AAAAAA==\r\n";
        assert!(good.contains(line));
        for bad in [
            good.replace(line, ""),
            good.replace(line, &format!("{line}{line}")),
            good.replace(line, &format!("{line}x-amz-checksum-crc32c:AAAAAA==\r\n")),
            good.replace("crc32:", "sha1:"),
            good.replace("crc32:", "crc32"),
            good.replace("AAAAAA==\r\n", &format!("{}\r\n", "A".repeat(2000))),
            good.replace("AAAAAA==\r\n", "AAA\u{1}AAA==\r\n"),
        ] {
            let error = decode(verified.decoder().unwrap(), bad.as_bytes(), 5).unwrap_err();
            assert_eq!(error, PayloadError::Trailer, "{bad}");
            assert_eq!(error.told().code, "MalformedTrailerError");
        }
        if form == PayloadForm::SignedChunksTrailer {
            let (head, signature) = good.split_once("x-amz-trailer-signature:").unwrap();
            let signature = signature.trim_end();
            for (end, wanted) in [
                ("\r\n".to_owned(), PayloadError::TrailerSignature),
                (format!("x-amz-trailer-signature:{}\r\n\r\n", "0".repeat(64)), PayloadError::TrailerSignature),
                (format!("x-amz-trailer-signature:{signature}\r\n{line}\r\n"), PayloadError::Trailer),
            ] {
                let bad = format!("{head}{end}");
                assert_eq!(decode(verified.decoder().unwrap(), bad.as_bytes(), 5), Err(wanted), "{bad}");
            }
        } else {
            // A chunk signature that nobody checks is no chunk signature.
            let bad = good.replacen("3\r\n", &format!("3;chunk-signature={}\r\n", "0".repeat(64)), 1);
            assert_eq!(decode(verified.decoder().unwrap(), bad.as_bytes(), 5), Err(PayloadError::Chunk));
            let bad = good.replace(line, &format!("{line}x-amz-trailer-signature:{}\r\n", "0".repeat(64)));
            assert_eq!(decode(verified.decoder().unwrap(), bad.as_bytes(), 5), Err(PayloadError::Trailer));
        }
    }
}

#[test]
fn a_body_must_have_the_hash_that_was_signed() {
    let hash: [u8; 32] = Sha256::digest(b"body").into();
    let decoder = || Decoder::new(PayloadForm::Hash(hash), None, Vec::new(), None).unwrap();
    assert_eq!(decode(decoder(), b"body", 1).unwrap().0, b"body");
    for bad in [&b"Body"[..], b"bod", b"body\0", b""] {
        let error = decode(decoder(), bad, 3).unwrap_err();
        assert_eq!((error, &*error.told().code), (PayloadError::Hash, "XAmzContentSHA256Mismatch"));
    }
}

#[test]
fn an_unsigned_body_passes_as_it_is() {
    let decoder = Verified::in_process("0").decoder().unwrap();
    assert_eq!(decode(decoder, b"anything", 3).unwrap().0, b"anything");
}

#[test]
fn a_decoder_is_not_made_without_what_it_checks_with() {
    let new = |form, length, announced| Decoder::new(form, length, announced, None).err();
    assert_eq!(new(PayloadForm::Implied, None, vec![]), Some(PayloadError::NotVerified));
    assert_eq!(new(PayloadForm::SignedChunks, Some(1), vec![]), Some(PayloadError::NotVerified));
    assert_eq!(new(PayloadForm::SignedChunksTrailer, Some(1), vec![]), Some(PayloadError::NotVerified));
    assert_eq!(new(PayloadForm::UnsignedTrailer, None, vec![]), Some(PayloadError::LengthMissing));
    let many = vec!["a".to_owned(); TRAILERS_MAX + 1];
    assert_eq!(new(PayloadForm::UnsignedTrailer, Some(1), many), Some(PayloadError::Trailer));
    assert_eq!(PayloadError::LengthMissing.told().status, 411);
}

#[test]
fn only_the_listed_forms_are_forms() {
    let hash = hex::encode(Sha256::digest(b""));
    for good in [
        &hash,
        "UNSIGNED-PAYLOAD",
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
        "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
    ] {
        assert_eq!(PayloadForm::parse(good).unwrap().header_value().as_deref(), Some(good));
    }
    for bad in [
        "",
        "unsigned-payload",
        &hash.to_uppercase(),
        &hash[1..],
        &format!("{hash}0"),
        "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD",
        "STREAMING-AWS4-HMAC-SHA256-EVENTS",
        "STREAMING-UNSIGNED-PAYLOAD",
    ] {
        assert_eq!(PayloadForm::parse(bad), None, "{bad}");
    }
}
