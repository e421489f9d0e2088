//! Five witnesses: AWS's test suite, recorded requests of botocore, AWS's documented examples, AWS's own signer as a
//! differential oracle, and a list of defects, each of which must be refused.

use std::time::{Duration, UNIX_EPOCH};

use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SignatureLocation, SigningParams,
    SigningSettings, UriPathNormalizationMode,
};
use http::header::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;

const ACCOUNT: &str = "123456789012";
const ID: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
/// 2013-05-24T00:00:00Z, the time of S3's documented examples.
const NOW: i64 = 1_369_353_600;
const RULES: Rules<'_> =
    Rules { regions: &["us-east-1"], services: &["s3", "lambda"], unsigned_payload: true, keys: None };

fn headers<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    map
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// A request as it stands on the wire.
#[derive(Debug, Clone)]
struct Sent {
    method: Method,
    target: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Sent {
    fn verify_with(&self, key: &Key<'_>, rules: &Rules<'_>, now: i64) -> Result<Verified, AuthError> {
        let claim = Claim::parse(&self.method, &self.target, &self.headers)?;
        let known = [ID, "AKIDEXAMPLE"].contains(&claim.access_key_id());
        let key = if known { *key } else { Key::unknown() };
        let verified = claim.verify(&key, rules, now, claim.needs_body_hash().then(|| sha256(&self.body)))?;
        if !verified.payload().is_chunked() {
            let mut decoder = verified.decoder()?;
            decoder.push(self.body.clone().into())?;
            decoder.finish()?;
        }
        Ok(verified)
    }

    fn verify(&self) -> Result<Verified, AuthError> {
        self.verify_with(&Key::lasting(SECRET, ACCOUNT), &RULES, NOW)
    }

    fn set(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, HeaderValue::from_str(value).unwrap());
        self
    }

    fn authorization(&self) -> String {
        self.headers["authorization"].to_str().unwrap().to_owned()
    }

    fn with_authorization(self, change: impl Fn(&str) -> String) -> Self {
        let changed = change(&self.authorization());
        self.set("authorization", &changed)
    }
}

// --- AWS's test suite

#[test]
fn every_case_of_the_aws_test_suite_has_the_signature_it_should_have() {
    let (mut cases, mut verified) = (0, 0);
    for line in include_str!("../../fixtures/sigv4/aws-signing-test-suite.jsonl").lines() {
        cases += 1;
        let case: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        for kind in ["header", "query"] {
            let name = format!("{} by {kind}", text(&case["name"]));
            let (signed, wanted) = (&case[kind], text(&case[kind]["signature"]));
            let pairs: Vec<(String, String)> =
                signed["headers"].as_array().unwrap().iter().map(|h| (text(&h[0]), text(&h[1]))).collect();
            let sent = Sent {
                method: text(&case["method"]).parse().unwrap(),
                target: text(&signed["target"]),
                headers: headers(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str()))),
                body: text(&case["body"]).into_bytes(),
            };
            let canonical = text(&signed["canonical"]);
            let lines: Vec<&str> = canonical.split('\n').collect();
            let (names, payload) = (lines[lines.len() - 2], lines[lines.len() - 1]);
            let (path, query) = canonical::split_target(&sent.target);
            let path = if case["normalize"] == true {
                canonical::path(PathStyle::NormalizedAndEncodedAgain, path)
            } else {
                canonical::encode_path(path)
            };
            let mut query = canonical::query(query, kind == "query");
            if case["omit_token"] == true {
                query = query.split('&').filter(|p| !p.starts_with("X-Amz-Security")).collect::<Vec<_>>().join("&");
            }
            let ours = canonical::request(sent.method.as_str(), &path, &query, &sent.headers, names.split(';'));
            assert_eq!(format!("{}{payload}", String::from_utf8_lossy(&ours)), canonical, "{name}");
            let scope = "20150830/us-east-1/service/aws4_request";
            let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
            let to_sign = string_to_sign("20150830T123600Z", scope, &ours, payload);
            assert_eq!(hex::encode(SigningKey::derive(secret, scope).sign(to_sign.as_bytes())), wanted, "{name}");

            // The whole way, for what we accept: all but denormal paths and tokens added after signing.
            let raw_path = canonical::split_target(&sent.target).0;
            let key = match case["token"].as_str() {
                Some(token) => Key::temporary(secret, ACCOUNT, token, i64::MAX),
                None => Key::lasting(secret, ACCOUNT),
            };
            let rules = Rules { services: &["service"], ..RULES };
            let outcome = sent.verify_with(&key, &rules, 1_440_938_160);
            if canonical::normalized(raw_path) != raw_path {
                assert_eq!(outcome.unwrap_err(), AuthError::Path, "{name}");
            } else if case["omit_token"] == true {
                assert!(outcome.is_err(), "{name}");
            } else {
                assert_eq!(outcome.expect(&name).account(), ACCOUNT);
                verified += 1;
            }
        }
    }
    assert_eq!(cases, 38);
    assert!(verified >= 46, "only {verified} went the whole way");
}

// --- What boto3 and the AWS CLI send

#[test]
fn every_recorded_request_of_botocore_verifies() {
    let mut chunked = 0;
    for line in include_str!("../../fixtures/sigv4/botocore.jsonl").lines() {
        let recorded: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let pairs: Vec<(String, String)> =
            recorded["headers"].as_array().unwrap().iter().map(|h| (text(&h[0]), text(&h[1]))).collect();
        let sent = Sent {
            method: text(&recorded["method"]).parse().unwrap(),
            target: text(&recorded["target"]),
            headers: headers(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str()))),
            body: text(&recorded["body"]).into_bytes(),
        };
        let at = sent.headers.get("x-amz-date").map(|v| v.to_str().unwrap()).unwrap_or_else(|| {
            let (_, rest) = sent.target.split_once("X-Amz-Date=").unwrap();
            &rest[..16]
        });
        let now = date::parse_basic(at).unwrap();
        let key = match recorded["token"].as_str() {
            Some(token) => Key::temporary(SECRET, ACCOUNT, token, now + 1),
            None => Key::lasting(SECRET, ACCOUNT),
        };
        let verified = sent.verify_with(&key, &RULES, now).unwrap_or_else(|e| panic!("{e}: {line}"));
        if verified.payload().is_chunked() {
            let mut decoder = verified.decoder().unwrap();
            let parts = decoder.push(sent.body.clone().into()).unwrap();
            assert_eq!(parts.concat(), b"hello streaming world");
            assert_eq!(decoder.finish().unwrap().get("x-amz-checksum-crc32"), Some("as8sYA=="));
            chunked += 1;
        }
        let other = Sent { target: sent.target.replacen('/', "/x", 1), ..sent };
        assert!(other.verify_with(&key, &RULES, now).is_err(), "{line}");
    }
    assert_eq!(chunked, 2);
}

// --- AWS's documented examples

fn documented(method: &str, target: &str, extra: &[(&str, &str)], body: &str) -> Sent {
    let hash = hex::encode(sha256(body.as_bytes()));
    let mut pairs = vec![
        ("host", "examplebucket.s3.amazonaws.com"),
        ("x-amz-date", "20130524T000000Z"),
        ("x-amz-content-sha256", &hash),
    ];
    pairs.extend(extra);
    Sent { method: method.parse().unwrap(), target: target.into(), headers: headers(pairs), body: body.into() }
}

#[test]
fn the_documented_s3_examples_verify() {
    let cases = [
        (
            documented("GET", "/test.txt", &[("range", "bytes=0-9")], ""),
            "host;range;x-amz-content-sha256;x-amz-date",
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            documented(
                "PUT",
                "/test%24file.text",
                &[("date", "Fri, 24 May 2013 00:00:00 GMT"), ("x-amz-storage-class", "REDUCED_REDUNDANCY")],
                "Welcome to Amazon S3.",
            ),
            "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        (
            documented("GET", "/?lifecycle", &[], ""),
            "host;x-amz-content-sha256;x-amz-date",
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        (
            documented("GET", "/?max-keys=2&prefix=J", &[], ""),
            "host;x-amz-content-sha256;x-amz-date",
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ];
    for (sent, names, signature) in cases {
        let credential = format!("{ID}/20130524/us-east-1/s3/aws4_request");
        // Without spaces after the commas, as the page prints it; the other tests have them.
        let value = format!("{ALGORITHM} Credential={credential},SignedHeaders={names},Signature={signature}");
        let verified = sent.clone().set("authorization", &value).verify().unwrap();
        assert_eq!((verified.account(), verified.access_key_id()), (ACCOUNT, ID));
        assert_eq!((verified.service(), verified.region()), ("s3", "us-east-1"));
        assert!(sent.set("authorization", &value.replace("f", "e")).verify().is_err());
    }
}

#[test]
fn the_documented_presigned_url_verifies_until_it_expires() {
    let sent = Sent {
        method: Method::GET,
        target:
            "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1\
                 %2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host\
                 &X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
                .to_owned(),
        headers: headers([("host", "examplebucket.s3.amazonaws.com")]),
        body: b"anything".to_vec(),
    };
    let at = |now| sent.verify_with(&Key::lasting(SECRET, ACCOUNT), &RULES, now);
    assert_eq!(at(NOW).unwrap().payload(), PayloadForm::Unsigned);
    assert!(at(NOW + 86_399).is_ok());
    assert!(matches!(at(NOW + 86_400), Err(AuthError::Expired { seconds: 86_400, .. })));
    assert!(at(NOW - 900).is_ok());
    assert!(matches!(at(NOW - 901), Err(AuthError::NotYetValid { .. })));
    let mine = credentials(None);
    let signer = Signer { credentials: &mine, service: "s3", region: "us-east-1" };
    assert_eq!(signer.presign(&Method::GET, "/test.txt", &sent.headers, 86_400, NOW).unwrap(), sent.target);
}

// --- AWS's own signer

fn credentials(token: Option<&str>) -> Credentials {
    Credentials {
        access_key_id: ID.to_owned(),
        secret_access_key: SECRET.to_owned(),
        session_token: token.map(str::to_owned),
    }
}

/// Signs as AWS's SDK for Rust does for that service.
fn sdk(unsigned: &Sent, service: &str, token: Option<&str>, expires: Option<u64>, body: SignableBody<'_>) -> Sent {
    let identity = aws_credential_types::Credentials::new(ID, SECRET, token.map(str::to_owned), None, "test").into();
    let mut settings = SigningSettings::default();
    if service == "s3" {
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    }
    if let Some(seconds) = expires {
        settings.signature_location = SignatureLocation::QueryParams;
        settings.expires_in = Some(Duration::from_secs(seconds));
        settings.payload_checksum_kind = PayloadChecksumKind::NoHeader;
    }
    let params: SigningParams<'_> = aws_sigv4::sign::v4::SigningParams::builder()
        .identity(&identity)
        .region("us-east-1")
        .name(service)
        .time(UNIX_EPOCH + Duration::from_secs(NOW as u64))
        .settings(settings)
        .build()
        .unwrap()
        .into();
    let url = format!("http://{}{}", unsigned.headers["host"].to_str().unwrap(), unsigned.target);
    let pairs: Vec<(&str, &str)> =
        unsigned.headers.iter().map(|(n, v)| (n.as_str(), v.to_str().unwrap())).filter(|(n, _)| *n != "host").collect();
    let request = SignableRequest::new(unsigned.method.as_str(), url, pairs.into_iter(), body).unwrap();
    let (instructions, _) = aws_sigv4::http_request::sign(request, &params).unwrap().into_parts();
    let (added, query) = instructions.into_parts();
    let mut sent = unsigned.clone();
    for header in added {
        sent.headers.insert(header.name(), HeaderValue::from_str(header.value()).unwrap());
    }
    for (name, value) in query {
        let separator = if sent.target.contains('?') { '&' } else { '?' };
        sent.target.push_str(&format!("{separator}{name}={}", canonical::encode_query(value.as_bytes())));
    }
    sent
}

fn unsigned(method: &str, target: &str, extra: &[(&str, &str)], body: &str) -> Sent {
    let mut pairs = vec![("host", "localhost:7300")];
    pairs.extend(extra);
    Sent { method: method.parse().unwrap(), target: target.into(), headers: headers(pairs), body: body.into() }
}

/// Signed by the SDK and accepted; signed by us to the same signature; refused once the path or a query differs.
fn agrees(request: &Sent, service: &str, token: Option<&str>) {
    let key = match token {
        Some(token) => Key::temporary(SECRET, ACCOUNT, token, NOW + 100),
        None => Key::lasting(SECRET, ACCOUNT),
    };
    let theirs = sdk(request, service, token, None, SignableBody::Bytes(&request.body));
    let cache = KeyCache::default();
    let rules = Rules { keys: Some(&cache), ..RULES };
    for _ in 0..2 {
        let verified = theirs.verify_with(&key, &rules, NOW).unwrap_or_else(|e| panic!("{e}: {theirs:?}"));
        assert_eq!(verified.service(), service);
    }

    let mine = credentials(token);
    let signer = Signer { credentials: &mine, service, region: "us-east-1" };
    let payload = PayloadForm::Hash(sha256(&request.body));
    let signed = signer.sign(&request.method, &request.target, &request.headers, payload, NOW).unwrap();
    let mut ours = request.clone();
    for (name, value) in signed.headers {
        ours.headers.insert(name, value);
    }
    ours.verify_with(&key, &rules, NOW).unwrap_or_else(|e| panic!("{e}: {ours:?}"));
    if service == "s3" {
        assert_eq!(ours.authorization(), theirs.authorization());
    }

    let presigned = sdk(
        request,
        service,
        token,
        Some(60),
        match service {
            "s3" => SignableBody::UnsignedPayload,
            _ => SignableBody::Bytes(&request.body),
        },
    );
    presigned.verify_with(&key, &rules, NOW + 59).unwrap_or_else(|e| panic!("{e}: {presigned:?}"));
    assert!(matches!(presigned.verify_with(&key, &rules, NOW + 60), Err(AuthError::Expired { .. })));
    if service == "s3" || request.body.is_empty() {
        let target = signer.presign(&request.method, &request.target, &request.headers, 60, NOW).unwrap();
        let ours = Sent { target, ..request.clone() };
        ours.verify_with(&key, &rules, NOW).unwrap_or_else(|e| panic!("{e}: {ours:?}"));
        let signature = |sent: &Sent| sent.target.split("X-Amz-Signature=").nth(1).map(|s| s[..64].to_owned());
        assert_eq!(signature(&ours), signature(&presigned));
    }

    for good in [theirs, ours, presigned] {
        let (path, query) = canonical::split_target(&good.target);
        for target in [format!("{path}x?{query}"), format!("{path}?{query}&x=1"), format!("/x{path}?{query}")] {
            assert!(Sent { target, ..good.clone() }.verify_with(&key, &rules, NOW).is_err());
        }
    }
}

#[test]
fn what_the_aws_sdk_signs_for_lambda_and_s3_control_verifies_and_we_sign_the_same() {
    let invoke =
        "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Af%3APROD/invocations";
    for (service, method, target, extra, body) in [
        ("lambda", "POST", invoke, &[("x-amz-invocation-type", "Event")][..], "{\"a\":1}"),
        ("lambda", "POST", "/2015-03-31/functions/f/invocations?Qualifier=%24LATEST", &[], "{}"),
        ("lambda", "GET", "/2015-03-31/functions/", &[], ""),
        ("lambda", "DELETE", "/2017-03-31/tags/arn%3Aaws%3Alambda?tagKeys=a%20b&tagKeys=a%2Bb", &[], ""),
        ("s3", "POST", "/v20180820/jobs", &[("x-amz-account-id", ACCOUNT)], "<CreateJobRequest/>"),
        ("s3", "GET", "/v20180820/jobs?jobStatuses=Ready&jobStatuses=Active&maxResults=2", &[], ""),
        ("s3", "GET", "/b/a%20b/%25/%23%3F//c/../d/./e%2Bf/~g", &[], ""),
        ("s3", "GET", "/b/..", &[], ""),
        ("s3", "PUT", "/b/%E1%88%B4?tagging", &[("x-amz-meta-a", "runs  of   spaces"), ("x-amz-meta-b", "  x ")], "b"),
        ("s3", "PUT", "/b/k", &[("x-amz-meta-a", "one"), ("x-amz-meta-a", "two"), ("content-type", "a/b")], "b"),
        ("s3", "GET", "/?list-type=2&prefix=a%2Fb&delimiter=%2F&x", &[], ""),
        ("s3", "GET", "/", &[("user-agent", "never signed"), ("x-amzn-trace-id", "nor this")], ""),
    ] {
        let request = unsigned(method, target, extra, body);
        agrees(&request, service, None);
        agrees(&request, service, Some("AQoDYXdzEPT//////////wEXAMPLE+token=="));
    }
}

fn any_request() -> impl Strategy<Value = (Sent, &'static str)> {
    // Encoded as the SDK encodes a key or a parameter: once.
    let encoded = |text: String| canonical::encode_query(text.as_bytes());
    let segment = "[a-zA-Z0-9 %#?&=+~_.:,'\"<ሴ-]{0,8}";
    let s3_path = prop::collection::vec(segment, 1..5)
        .prop_map(move |parts| format!("/{}", parts.into_iter().map(encoded).collect::<Vec<_>>().join("/")));
    let lambda_path = prop::collection::vec("[a-zA-Z0-9:$%+ _-]{1,12}", 1..4)
        .prop_map(move |parts| format!("/{}", parts.into_iter().map(encoded).collect::<Vec<_>>().join("/")));
    let path = prop_oneof![(s3_path, Just("s3")), (lambda_path, Just("lambda"))];
    let query = prop::collection::vec(("[a-zA-Z-]{1,3}", "[a-zA-Z0-9 %&=+/é]{0,6}"), 0..4);
    let header = prop::collection::vec(("x-amz-meta-[a-c]|content-type|accept", "[!-~]([ -~]{0,12}[!-~])?"), 0..5);
    let method = prop::sample::select(vec!["GET", "PUT", "POST", "DELETE", "HEAD"]);
    (path, query, header, method, "[a-z]{0,20}").prop_map(move |((path, service), query, extra, method, body)| {
        let query: Vec<String> = query.into_iter().map(|(n, v)| format!("{n}={}", encoded(v))).collect();
        let target = if query.is_empty() { path } else { format!("{path}?{}", query.join("&")) };
        let extra: Vec<(&str, &str)> = extra.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        (unsigned(method, &target, &extra, &body), service)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn we_and_the_aws_sdk_agree_on_any_request((request, service) in any_request(), with_token: bool) {
        agrees(&request, service, with_token.then_some("a/token+="));
    }

    #[test]
    fn no_garbage_makes_the_parser_panic_or_pass(
        authorization in "(AWS4-HMAC-SHA256 )?[ -~]{0,80}",
        query in "(X-Amz-(Algorithm|Credential|Signature|Date|Expires|SignedHeaders)=[ -~]{0,20}&){0,6}",
        date in "[0-9TZ]{0,17}",
    ) {
        let mut sent = unsigned("GET", &format!("/b/k?{query}"), &[("x-amz-date", &date)], "");
        prop_assert!(sent.verify().is_err());
        sent = sent.set("authorization", &authorization);
        prop_assert!(sent.verify().is_err());
    }

    #[test]
    fn a_change_of_any_signed_byte_is_refused(position in any::<prop::sample::Index>(), bit in 0_u8..7) {
        let good = signed_get();
        let mut value = good.authorization().into_bytes();
        let i = position.index(value.len());
        value[i] ^= 1 << bit;
        if let Ok(changed) = HeaderValue::from_bytes(&value) {
            let mut sent = good.clone();
            sent.headers.insert("authorization", changed);
            prop_assert!(sent.verify().is_err(), "{:?}", String::from_utf8_lossy(&value));
        }
    }
}

// --- Defects

fn sign_as(credentials: &Credentials, service: &str, request: &Sent, payload: PayloadForm, now: i64) -> Sent {
    let signer = Signer { credentials, service, region: "us-east-1" };
    let signed = signer.sign(&request.method, &request.target, &request.headers, payload, now).unwrap();
    let mut sent = request.clone();
    for (name, value) in signed.headers {
        sent.headers.insert(name, value);
    }
    sent
}

fn signed_put() -> Sent {
    let request = unsigned("PUT", "/b/a%20key?tagging&x=1", &[("x-amz-meta-a", "v"), ("date", "x")], "body");
    sign_as(&credentials(None), "s3", &request, PayloadForm::Hash(sha256(b"body")), NOW)
}

fn signed_get() -> Sent {
    sign_as(&credentials(None), "s3", &unsigned("GET", "/b/k", &[], ""), PayloadForm::Hash(sha256(b"")), NOW)
}

fn signed_invoke() -> Sent {
    let request = unsigned("POST", "/2015-03-31/functions/f/invocations?Qualifier=1", &[], "{}");
    sdk(&request, "lambda", None, None, SignableBody::Bytes(b"{}"))
}

fn presigned() -> Sent {
    let request = unsigned("GET", "/b/k?x=1", &[], "");
    let mine = credentials(None);
    let signer = Signer { credentials: &mine, service: "s3", region: "us-east-1" };
    let target = signer.presign(&request.method, &request.target, &request.headers, 600, NOW).unwrap();
    Sent { target, ..request }
}

#[test]
fn each_defect_of_a_signed_request_is_refused() {
    type Defect = (&'static str, fn(Sent) -> Sent);
    let defects: &[Defect] = &[
        ("no authorization", |mut s| {
            s.headers.remove("authorization");
            s
        }),
        ("empty authorization", |s| s.set("authorization", "")),
        ("garbled authorization", |s| s.set("authorization", "AWS4-HMAC-SHA256 x")),
        ("cut authorization", |s| s.with_authorization(|a| a[..a.len() - 1].to_owned())),
        ("two authorizations", |mut s| {
            let value = s.headers["authorization"].clone();
            s.headers.append("authorization", value);
            s
        }),
        ("a part twice", |s| s.with_authorization(|a| format!("{a}, Signature={}", "0".repeat(64)))),
        ("an unknown part", |s| s.with_authorization(|a| format!("{a}, Extra=1"))),
        ("another key", |s| s.with_authorization(|a| a.replace(ID, "AKIAI44QH8DHBEXAMPLE"))),
        ("upper-case signature", |s| {
            s.with_authorization(|a| {
                let (head, signature) = a.rsplit_once('=').unwrap();
                format!("{head}={}", signature.to_uppercase())
            })
        }),
        ("signature in the query too", |s| Sent { target: format!("{}&X-Amz-Signature=0", s.target), ..s }),
        ("algorithm in the query too", |s| Sent { target: format!("{}&X-Amz-Algorithm=0", s.target), ..s }),
        ("version 2 in the query too", |s| Sent { target: format!("{}&AWSAccessKeyId=0", s.target), ..s }),
        ("another method", |s| Sent { method: Method::DELETE, ..s }),
        ("HEAD for GET", |s| Sent { method: Method::HEAD, ..s }),
        ("another path", |s| Sent { target: s.target.replacen("/b/", "/c/", 1).replacen("2015", "2016", 1), ..s }),
        ("a path with //", |s| Sent { target: format!("/{}", s.target), ..s }),
        ("a path with /./", |s| Sent { target: format!("/.{}", s.target), ..s }),
        ("a path with /../", |s| Sent { target: format!("/x/..{}", s.target), ..s }),
        ("a path with %2e", |s| Sent { target: format!("/%2e{}", s.target), ..s }),
        ("a path with ;", |s| Sent { target: s.target.replacen('?', ";a=b?", 1), ..s }),
        ("a path with a backslash", |s| Sent { target: s.target.replacen('/', "/\\", 1), ..s }),
        ("an encoded slash", |s| Sent { target: format!("/{}", s.target[1..].replacen('/', "%2F", 1)), ..s }),
        ("another spelling of the path", |s| Sent {
            target: s.target.replacen("/b", "/%62", 1).replacen("/f", "/%66", 1),
            ..s
        }),
        ("another query value", |s| Sent { target: format!("{}1", s.target), ..s }),
        ("one query more", |s| Sent { target: format!("{}&versionId=1", s.target), ..s }),
        ("no query", |s| Sent { target: s.target.split('?').next().unwrap().to_owned() + "?", ..s }),
        ("another host", |s| s.set("host", "localhost:7301")),
        ("two hosts", |mut s| {
            s.headers.append("host", HeaderValue::from_static("localhost:7300"));
            s
        }),
        ("no host", |mut s| {
            s.headers.remove("host");
            s
        }),
        ("unsigned host", |s| s.with_authorization(|a| a.replace("host;", ""))),
        ("another date", |s| s.set("x-amz-date", "20130524T000001Z")),
        ("two dates", |mut s| {
            s.headers.append("x-amz-date", HeaderValue::from_static("20130524T000000Z"));
            s
        }),
        ("no date", |mut s| {
            s.headers.remove("x-amz-date");
            s
        }),
        ("a date that is none", |s| s.set("x-amz-date", "yesterday")),
        ("an RFC date", |s| s.set("x-amz-date", "Fri, 24 May 2013 00:00:00 GMT")),
        ("another scope date", |s| s.with_authorization(|a| a.replace("/20130524/", "/20130523/"))),
        ("another region", |s| s.with_authorization(|a| a.replace("us-east-1", "us-east-2"))),
        ("another service", |s| {
            s.with_authorization(|a| a.replace("/s3/", "/x/").replace("/lambda/", "/s3/").replace("/x/", "/lambda/"))
        }),
        ("a foreign service", |s| s.with_authorization(|a| a.replace("/s3/", "/ec2/").replace("/lambda/", "/ec2/"))),
        ("another terminator", |s| s.with_authorization(|a| a.replace("aws4_request", "aws4"))),
        ("another body", |s| Sent { body: b"other".to_vec(), ..s }),
        ("another hash", |s| s.set("x-amz-content-sha256", &hex::encode(sha256(b"other")))),
        ("an unsigned payload", |s| s.set("x-amz-content-sha256", "UNSIGNED-PAYLOAD")),
        ("chunks", |s| s.set("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")),
        ("unsigned chunks", |s| s.set("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")),
        ("4A chunks", |s| s.set("x-amz-content-sha256", "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD")),
        ("an unsigned x-amz header", |s| s.set("x-amz-copy-source", "/b/secret")),
        ("an unsigned account", |s| s.set("x-amz-account-id", "999999999999")),
        ("an unsigned token", |s| s.set("x-amz-security-token", "t")),
        ("an x-amz header left out", |s| s.with_authorization(|a| a.replace(";x-amz-date", ""))),
        ("an absent header signed", |s| s.with_authorization(|a| a.replace("host;", "host;range;"))),
        ("a header signed twice", |s| s.with_authorization(|a| a.replace("host;", "host;host;"))),
        ("an upper-case name", |s| s.with_authorization(|a| a.replace("host;", "Host;"))),
        ("unsorted names", |s| {
            s.with_authorization(|a| a.replace("host;", "").replace("x-amz-date", "x-amz-date;host"))
        }),
        ("an empty name", |s| s.with_authorization(|a| a.replace("SignedHeaders=", "SignedHeaders=;"))),
        ("4A", |s| s.with_authorization(|a| a.replace("HMAC-SHA256", "ECDSA-P256-SHA256"))),
        ("version 2", |s| s.set("authorization", "AWS AKIAIOSFODNN7EXAMPLE:frJIUN8DYpKDtOLCwo//yllqDzg=")),
        ("none", |s| s.set("authorization", "none")),
        ("bearer", |s| s.set("authorization", "Bearer abc")),
        ("basic", |s| s.set("authorization", "Basic YTpi")),
        ("lower-case scheme", |s| s.with_authorization(|a| a.to_lowercase())),
    ];
    for good in [signed_put(), signed_get(), signed_invoke()] {
        good.verify().unwrap();
        for (name, defect) in defects {
            let bad = defect(good.clone());
            // Some defects need something to spoil that not every request has.
            if format!("{bad:?}") == format!("{good:?}") || (bad.target.ends_with('?') && !good.target.contains('?')) {
                continue;
            }
            let error = bad.verify().err().unwrap_or_else(|| panic!("{name} was let in: {bad:?}"));
            for dialect in [Dialect::S3, Dialect::Lambda] {
                let status = error.told(dialect).status.as_u16();
                assert!(status == 403 || status == 400, "{name}: {error:?}");
            }
        }
    }
    let changed = signed_put().set("x-amz-meta-a", "w");
    assert!(matches!(changed.verify(), Err(AuthError::Signature(_))));
}

/// A request signed with the right key over exactly what it says, whatever that is.
struct Forged {
    target: &'static str,
    headers: HeaderMap,
    scope: &'static str,
    names: &'static str,
}

impl Forged {
    fn new() -> Self {
        let hash = hex::encode(sha256(b""));
        let pairs = [("host", "h"), ("x-amz-date", "20130524T000000Z"), ("x-amz-content-sha256", hash.as_str())];
        Self {
            target: "/b/k",
            headers: headers(pairs),
            scope: "20130524/us-east-1/s3/aws4_request",
            names: "host;x-amz-content-sha256;x-amz-date",
        }
    }

    fn with_header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.append(name, HeaderValue::from_static(value));
        self
    }

    fn signature(&self, target: &str, presigned: bool, payload: &str) -> String {
        let (path, query) = canonical::split_target(target);
        let style = PathStyle::of(self.scope.split('/').nth(2).unwrap());
        let (path, query) = (canonical::path(style, path), canonical::query(query, presigned));
        let canonical = canonical::request("GET", &path, &query, &self.headers, self.names.split(';'));
        let to_sign = string_to_sign("20130524T000000Z", self.scope, &canonical, payload);
        hex::encode(SigningKey::derive(SECRET, self.scope).sign(to_sign.as_bytes()))
    }

    fn by_header(self) -> Result<Verified, AuthError> {
        let payload = self.headers["x-amz-content-sha256"].to_str().unwrap().to_owned();
        let signature = self.signature(self.target, false, &payload);
        let Self { target, headers, scope, names } = self;
        let value = format!("{ALGORITHM} Credential={ID}/{scope}, SignedHeaders={names}, Signature={signature}");
        let sent = Sent { method: Method::GET, target: target.to_owned(), headers, body: Vec::new() };
        sent.set("authorization", &value).verify()
    }

    /// `extra` is the end of the query, with `X-Amz-Expires` in it.
    fn by_query(mut self, extra: &str, payload: &str) -> Result<Verified, AuthError> {
        self.headers = headers([("host", "h")]);
        self.names = "host";
        let (scope, path) = (canonical::encode_query(self.scope.as_bytes()), self.target);
        let target = format!(
            "{path}?X-Amz-Algorithm={ALGORITHM}&X-Amz-Credential={ID}%2F{scope}&X-Amz-Date=20130524T000000Z\
             &X-Amz-SignedHeaders=host{extra}"
        );
        let signature = self.signature(&target, true, payload);
        let target = format!("{target}&X-Amz-Signature={signature}");
        Sent { method: Method::GET, target, headers: self.headers, body: Vec::new() }.verify()
    }
}

#[test]
fn a_signature_that_holds_is_not_enough() {
    Forged::new().by_header().unwrap();
    let malformed = |what| Err(AuthError::malformed(false, what));
    for (forged, wanted) in [
        (
            Forged { names: "x-amz-content-sha256;x-amz-date", ..Forged::new() },
            Err(AuthError::HeadersNotSigned("host".to_owned())),
        ),
        (Forged::new().with_header("host", "h"), Err(AuthError::Duplicate("host"))),
        (Forged::new().with_header("x-amz-date", "20130524T000000Z"), Err(AuthError::Duplicate("x-amz-date"))),
        (
            Forged { names: "host;range;x-amz-content-sha256;x-amz-date", ..Forged::new() },
            Err(AuthError::SignedHeaderAbsent("range".to_owned())),
        ),
        (Forged { names: "host;host;x-amz-content-sha256;x-amz-date", ..Forged::new() }, malformed("SignedHeaders")),
        (Forged { names: "x-amz-content-sha256;host;x-amz-date", ..Forged::new() }, malformed("SignedHeaders")),
        (Forged { names: "Host;x-amz-content-sha256;x-amz-date", ..Forged::new() }, malformed("SignedHeaders")),
        (Forged { scope: "20130523/us-east-1/s3/aws4_request", ..Forged::new() }, Err(AuthError::ScopeDate)),
        (
            Forged { scope: "20130524/eu-west-1/s3/aws4_request", ..Forged::new() },
            Err(AuthError::Region { given: "eu-west-1".into(), expected: "us-east-1".into(), presigned: false }),
        ),
        (
            Forged { scope: "20130524/us-east-1/ec2/aws4_request", ..Forged::new() },
            Err(AuthError::Service { given: "ec2".into(), presigned: false }),
        ),
        (Forged { scope: "20130524/us-east-1/s3/aws4", ..Forged::new() }, malformed("Credential")),
        (
            Forged { scope: "20130524/us-east-1/lambda/aws4_request", target: "/a//b", ..Forged::new() },
            Err(AuthError::Path),
        ),
    ] {
        assert_eq!(forged.by_header().map(|v| v.account), wanted);
    }
    let mut chunked = Forged { scope: "20130524/us-east-1/lambda/aws4_request", ..Forged::new() };
    chunked.headers.insert("x-amz-content-sha256", HeaderValue::from_static("STREAMING-UNSIGNED-PAYLOAD-TRAILER"));
    assert_eq!(chunked.by_header().unwrap_err(), AuthError::PayloadForm);

    for good in ["&X-Amz-Expires=1", "&X-Amz-Expires=604800"] {
        Forged::new().by_query(good, "UNSIGNED-PAYLOAD").unwrap();
    }
    for bad in ["", "&X-Amz-Expires=0", "&X-Amz-Expires=604801", "&X-Amz-Expires=-1", "&X-Amz-Expires=1x"] {
        assert_eq!(Forged::new().by_query(bad, "UNSIGNED-PAYLOAD").unwrap_err(), AuthError::ExpiresRange, "{bad}");
    }
    let form = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";
    let extra = format!("&X-Amz-Expires=60&X-Amz-Content-Sha256={form}");
    assert_eq!(Forged::new().by_query(&extra, form).unwrap_err(), AuthError::PayloadForm);
}

#[test]
fn each_defect_of_a_presigned_url_is_refused() {
    let good = presigned();
    good.verify().unwrap();
    let swap = |from: &str, to: &str| {
        assert!(good.target.contains(from), "{from}");
        Sent { target: good.target.replacen(from, to, 1), ..good.clone() }
    };
    let signature = &good.target[good.target.len() - 64..];
    let flipped = if signature.starts_with('0') { "1" } else { "0" };
    let bad = [
        swap("/b/k", "/b/l"),
        swap("x=1", "x=2"),
        swap("Expires=600", "Expires=604800"),
        swap("Expires=600", "Expires=604801"),
        swap("Expires=600", "Expires=0"),
        swap("Expires=600", "Expires=-1"),
        swap("Expires=600", "Expires=%2B600"),
        swap("Expires=600", "Expires=18446744073709551616"),
        swap("&X-Amz-Expires=600", ""),
        swap("&X-Amz-Expires=600", "&X-Amz-Expires=600&X-Amz-Expires=600"),
        swap("X-Amz-Algorithm=AWS4-HMAC-SHA256", "X-Amz-Algorithm=AWS4-ECDSA-P256-SHA256"),
        swap("X-Amz-Algorithm=AWS4-HMAC-SHA256&", ""),
        swap("X-Amz-Date=20130524T000000Z", "X-Amz-Date=20130524T000001Z"),
        swap("X-Amz-Date=20130524T000000Z&", ""),
        swap("X-Amz-SignedHeaders=host", "X-Amz-SignedHeaders="),
        swap("X-Amz-SignedHeaders=host", "X-Amz-SignedHeaders=host%3Brange"),
        swap("%2F20130524%2F", "%2F20130523%2F"),
        swap("us-east-1", "eu-west-1"),
        swap("%2Fs3%2F", "%2Flambda%2F"),
        swap(ID, "AKIAI44QH8DHBEXAMPLE"),
        swap(&format!("X-Amz-Signature={}", &signature[..1]), &format!("X-Amz-Signature={flipped}")),
        swap(signature, &format!("{signature}0")),
        swap(&format!("&X-Amz-Signature={signature}"), ""),
        swap("X-Amz-Signature", "X-Amz-Signatur%65=1&X-Amz-Signature"),
        swap("x=1", "x=1&X-Amz-Security-Token=t"),
        swap("x=1", "x=1&X-Amz-Content-Sha256=STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
        swap("x=1", "x=1&AWSAccessKeyId=a&Signature=b"),
        Sent { method: Method::PUT, ..good.clone() },
        good.clone().set("host", "elsewhere"),
        good.clone().set("x-amz-acl", "public-read"),
        good.clone().set("x-amz-copy-source", "/b/secret"),
        good.clone().set("x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
        good.clone().set("authorization", "Bearer x"),
        good.clone().set("authorization", &signed_get().authorization()),
    ];
    for sent in bad {
        let error = sent.verify().err().unwrap_or_else(|| panic!("let in: {sent:?}"));
        assert!(matches!(error.told(Dialect::S3).status.as_u16(), 400 | 403), "{error:?}");
        assert_eq!(error.told(Dialect::Lambda).status.as_u16(), 403, "{error:?}");
    }
    // What the SDK for Rust sends beside a presigned URL, and the form in which the SDK for Go presigns.
    good.clone().set("x-amz-checksum-mode", "ENABLED").set("x-amz-user-agent", "a").verify().unwrap();
    let request = unsigned("PUT", "/b/k?X-Amz-Content-Sha256=UNSIGNED-PAYLOAD", &[], "");
    sdk(&request, "s3", None, Some(60), SignableBody::UnsignedPayload).verify().unwrap();
}

#[test]
fn a_request_is_good_for_fifteen_minutes_either_way() {
    let at = |now| signed_put().verify_with(&Key::lasting(SECRET, ACCOUNT), &RULES, now);
    for now in [NOW - 900, NOW, NOW + 900] {
        at(now).unwrap();
    }
    for now in [NOW - 901, NOW + 901, NOW - 86_400 * 365, NOW + 86_400 * 365] {
        let error = at(now).unwrap_err();
        let told = error.told(Dialect::S3);
        assert_eq!((told.status.as_u16(), &*told.code), (403, "RequestTimeTooSkewed"));
        assert_eq!(told.members[0], ("RequestTime", "20130524T000000Z".to_owned()));
        assert_eq!(told.members[1], ("ServerTime", date::format_extended(now)));
        assert_eq!(error.told(Dialect::Lambda).code, "InvalidSignatureException");
    }
}

#[test]
fn the_date_header_serves_where_there_is_no_x_amz_date_but_only_signed() {
    let date = "Fri, 24 May 2013 00:00:00 GMT";
    let hash = hex::encode(sha256(b""));
    let sent = |names: &str| {
        let headers = headers([("host", "h"), ("date", date), ("x-amz-content-sha256", &hash)]);
        let scope = "20130524/us-east-1/s3/aws4_request";
        let canonical = canonical::request("GET", "/b/k", "", &headers, names.split(';'));
        let to_sign = string_to_sign("20130524T000000Z", scope, &canonical, &hash);
        let signature = hex::encode(SigningKey::derive(SECRET, scope).sign(to_sign.as_bytes()));
        let value = format!("{ALGORITHM} Credential={ID}/{scope}, SignedHeaders={names}, Signature={signature}");
        let sent = Sent { method: Method::GET, target: "/b/k".to_owned(), headers, body: Vec::new() };
        sent.set("authorization", &value)
    };
    sent("date;host;x-amz-content-sha256").verify().unwrap();
    assert_eq!(sent("host;x-amz-content-sha256").verify().unwrap_err(), AuthError::HeadersNotSigned("date".to_owned()));
}

#[test]
fn a_secret_that_is_wrong_and_a_key_that_is_unknown_are_refused_and_told_apart() {
    let told = |key: &Key<'_>, dialect| signed_put().verify_with(key, &RULES, NOW).unwrap_err().told(dialect);
    let wrong = Key::lasting("another secret", ACCOUNT);
    assert_eq!(told(&wrong, Dialect::S3).code, "SignatureDoesNotMatch");
    assert_eq!(told(&wrong, Dialect::Lambda).code, "InvalidSignatureException");
    assert_eq!(told(&Key::unknown(), Dialect::S3).code, "InvalidAccessKeyId");
    assert_eq!(told(&Key::unknown(), Dialect::Lambda).code, "UnrecognizedClientException");
    let mismatch = told(&wrong, Dialect::S3);
    let member = |name| mismatch.members.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str());
    assert!(member("StringToSign").unwrap().starts_with("AWS4-HMAC-SHA256\n20130524T000000Z\n20130524/"));
    assert!(member("CanonicalRequest").unwrap().ends_with(&hex::encode(sha256(b"body"))));

    // The dummy secret stands in this file's source: signing with it must not help.
    let dummy = Credentials { access_key_id: "AKNOBODY".to_owned(), ..credentials(None) };
    let sent = sign_as(&dummy, "s3", &unsigned("GET", "/", &[], ""), PayloadForm::Unsigned, NOW);
    let cache = KeyCache::default();
    let rules = Rules { keys: Some(&cache), ..RULES };
    for _ in 0..2 {
        let outcome = sent.verify_with(&Key::unknown(), &rules, NOW);
        assert_eq!(outcome.unwrap_err(), AuthError::UnknownKey("AKNOBODY".to_owned()));
    }
}

#[test]
fn a_replaced_secret_is_noticed_by_the_cache() {
    let cache = KeyCache::default();
    let rules = Rules { keys: Some(&cache), ..RULES };
    let with = |secret| signed_put().verify_with(&Key::lasting(secret, ACCOUNT), &rules, NOW);
    with(SECRET).unwrap();
    assert!(matches!(with("new"), Err(AuthError::Signature(_))));
    with(SECRET).unwrap();
}

#[test]
fn a_session_token_must_be_the_keys_own_and_not_expired() {
    let request = unsigned("GET", "/b", &[], "");
    let sign = |token| sign_as(&credentials(token), "s3", &request, PayloadForm::Unsigned, NOW);
    let temporary = |token, expires_at| Key::temporary(SECRET, ACCOUNT, token, expires_at);
    let code = |sent: Sent, key: Key<'_>| {
        let error = sent.verify_with(&key, &RULES, NOW).unwrap_err();
        (error.told(Dialect::S3).status.as_u16(), error.told(Dialect::S3).code, error.told(Dialect::Lambda).code)
    };
    sign(Some("t")).verify_with(&temporary("t", NOW + 1), &RULES, NOW).unwrap();
    let invalid = (400, "InvalidToken".into(), "UnrecognizedClientException".into());
    assert_eq!(code(sign(Some("t")), temporary("u", NOW + 1)), invalid);
    assert_eq!(code(sign(None), temporary("t", NOW + 1)), invalid);
    assert_eq!(code(sign(Some("t")), Key::lasting(SECRET, ACCOUNT)), invalid);
    let expired = (400, "ExpiredToken".into(), "ExpiredTokenException".into());
    assert_eq!(code(sign(Some("t")), temporary("t", NOW)), expired);
}

#[test]
fn an_unsigned_payload_is_taken_only_where_the_rules_allow_it() {
    let sent = sign_as(&credentials(None), "s3", &unsigned("PUT", "/b/k", &[], "x"), PayloadForm::Unsigned, NOW);
    sent.verify().unwrap();
    let strict = Rules { unsigned_payload: false, ..RULES };
    let key = Key::lasting(SECRET, ACCOUNT);
    assert_eq!(sent.verify_with(&key, &strict, NOW).unwrap_err(), AuthError::UnsignedPayload);
    presigned().verify_with(&key, &strict, NOW).unwrap();
    signed_put().verify_with(&key, &strict, NOW).unwrap();
}

#[test]
fn s3_needs_the_payload_hash_header_and_lambda_the_body() {
    let mut sent = signed_get();
    sent.headers.remove("x-amz-content-sha256");
    let without = sent.with_authorization(|a| a.replace("x-amz-content-sha256;", ""));
    assert_eq!(without.verify().unwrap_err(), AuthError::PayloadHashMissing);
    let invoke = signed_invoke();
    let claim = Claim::parse(&invoke.method, &invoke.target, &invoke.headers).unwrap();
    assert!(claim.needs_body_hash());
    assert_eq!((claim.access_key_id(), claim.service(), claim.region()), (ID, "lambda", "us-east-1"));
    let key = Key::lasting(SECRET, ACCOUNT);
    assert_eq!(claim.verify(&key, &RULES, NOW, None).unwrap_err(), AuthError::BodyNotHashed);
    let verified = claim.verify(&key, &RULES, NOW, Some(sha256(b"{}"))).unwrap();
    assert_eq!(verified.payload(), PayloadForm::Hash(sha256(b"{}")));
    // A hash that is given is compared where it is not needed, too.
    let put = signed_put();
    let claim = Claim::parse(&put.method, &put.target, &put.headers).unwrap();
    let outcome = claim.verify(&key, &RULES, NOW, Some(sha256(b"other")));
    assert_eq!(outcome.unwrap_err(), AuthError::Payload(PayloadError::Hash));
    let chunked =
        sign_as(&credentials(None), "s3", &unsigned("PUT", "/b/k", &[], ""), PayloadForm::UnsignedTrailer, NOW);
    let claim = Claim::parse(&chunked.method, &chunked.target, &chunked.headers).unwrap();
    assert!(claim.verify(&key, &RULES, NOW, None).is_ok());
    assert_eq!(claim.verify(&key, &RULES, NOW, Some(sha256(b""))).unwrap_err(), AuthError::PayloadForm);
}

#[test]
fn a_tab_in_a_header_may_be_signed_as_it_stands_or_as_a_space() {
    let sent = |signed_as: &str| {
        let hash = hex::encode(sha256(b""));
        let of = |value: &str| {
            headers([
                ("host", "localhost:7300"),
                ("x-amz-content-sha256", &hash),
                ("x-amz-date", "20130524T000000Z"),
                ("x-amz-meta-a", value),
            ])
        };
        let (names, scope) =
            ("host;x-amz-content-sha256;x-amz-date;x-amz-meta-a", "20130524/us-east-1/s3/aws4_request");
        let canonical = canonical::request("GET", "/b/k", "", &of(signed_as), names.split(';'));
        let to_sign = string_to_sign("20130524T000000Z", scope, &canonical, &hash);
        let signature = hex::encode(SigningKey::derive(SECRET, scope).sign(to_sign.as_bytes()));
        let value = format!("{ALGORITHM} Credential={ID}/{scope}, SignedHeaders={names}, Signature={signature}");
        let sent = Sent { method: Method::GET, target: "/b/k".to_owned(), headers: of("a \t b\tc"), body: Vec::new() };
        sent.set("authorization", &value).verify()
    };
    for signed_as in ["a \t b\tc", "a b c", "a   b c"] {
        sent(signed_as).unwrap_or_else(|error| panic!("{signed_as:?}: {error}"));
    }
    for other in ["a b\tc", "a bc", "a b cc", "ab c"] {
        assert!(matches!(sent(other), Err(AuthError::Signature(_))), "{other:?}");
    }
}

#[test]
fn the_query_may_stand_in_another_order() {
    let good = signed_put();
    let target = good.target.replace("tagging&x=1", "x=1&tagging=");
    assert_ne!(target, good.target);
    Sent { target, ..good }.verify().unwrap();
}

#[test]
fn nothing_that_holds_a_secret_prints_it() {
    let signed = {
        let request = unsigned("GET", "/", &[], "");
        let mine = credentials(Some("the-token"));
        let signer = Signer { credentials: &mine, service: "s3", region: "us-east-1" };
        format!("{signer:?} {:?}", signer.sign(&request.method, "/", &request.headers, PayloadForm::Unsigned, NOW))
    };
    let key = format!("{:?} {:?}", Key::temporary(SECRET, ACCOUNT, "the-token", NOW), KeyCache::default());
    for text in [signed, key] {
        assert!(!text.contains(SECRET) && !text.contains("the-token"), "{text}");
    }
}
