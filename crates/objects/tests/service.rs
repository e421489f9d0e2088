//! The embedded S3 through its front door: HTTP requests in, HTTP answers out, no socket.

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use longshore_core::policy::{Context, Principal, PrincipalKind};
use longshore_objects::{ListQuery, Objects, ObjectsError, RequestBody, SCHEMA, Settings, Trailers};
use longshore_store::{Budget, Fatal, Records};
use longshore_wire::Caller;
use longshore_wire::caller::Subject;
use longshore_wire::sigv4::Verified;
use longshore_wire::xml::Element;
use longshore_wire::{ApiError, RequestId};

const ACCOUNT: &str = "000000000000";

fn open(dir: &Path, region: &str) -> Objects {
    let records = Records::open(&dir.join("records.db"), &[SCHEMA], Fatal::new()).unwrap();
    let settings = Settings { region: region.into(), account: ACCOUNT.into() };
    Objects::open(records, dir.join("blobs"), settings).unwrap()
}

struct World {
    objects: Objects,
    dir: tempfile::TempDir,
}

/// An embedded S3 with the bucket `bkt`.
async fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let objects = open(dir.path(), "us-east-1");
    objects.create_bucket("bkt").await.unwrap();
    World { objects, dir }
}

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: http::HeaderMap,
    body: Bytes,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    fn xml(&self) -> Element {
        Element::parse(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", self.body))
    }

    fn text(&self, name: &str) -> String {
        self.xml().child_text(name).unwrap_or_default().to_owned()
    }

    /// The status, and the code of the error document.
    fn error(&self) -> (u16, String) {
        assert!(!self.status.is_success(), "{self:?}");
        let xml = self.xml();
        assert_eq!(xml.child_text("RequestId"), Some("req-1"));
        (self.status.as_u16(), xml.child_text("Code").unwrap_or_default().to_owned())
    }
}

struct Ask<'w> {
    world: &'w World,
    request: http::request::Builder,
    host_bucket: Option<&'static str>,
    body: RequestBody,
    sized: bool,
    caller: Caller,
}

impl World {
    fn ask(&self, method: Method, target: &str) -> Ask<'_> {
        Ask {
            world: self,
            request: http::Request::builder().method(method).uri(target),
            host_bucket: None,
            body: RequestBody::whole(""),
            sized: false,
            caller: Caller::in_process(ACCOUNT),
        }
    }

    async fn get(&self, target: &str) -> Answer {
        self.ask(Method::GET, target).send().await
    }

    async fn put(&self, target: &str, body: impl Into<Bytes>) -> Answer {
        self.ask(Method::PUT, target).body(body).send().await
    }

    async fn delete(&self, target: &str) -> Answer {
        self.ask(Method::DELETE, target).send().await
    }

    /// Files of bodies, unfinished ones included.
    fn files(&self) -> usize {
        let mut count = 0;
        for sub in std::fs::read_dir(self.dir.path().join("blobs")).unwrap() {
            count += std::fs::read_dir(sub.unwrap().path()).unwrap().count();
        }
        count
    }

    /// Waits until the files are as many as said: they are removed in the background.
    async fn files_become(&self, wanted: usize) {
        for _ in 0..500 {
            if self.files() == wanted {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("{} files, not {wanted}", self.files());
    }
}

impl Ask<'_> {
    fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    fn host_bucket(mut self, bucket: &'static str) -> Self {
        self.host_bucket = Some(bucket);
        self
    }

    fn body(mut self, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        self.request = self.request.header("content-length", body.len());
        self.body = RequestBody::whole(body);
        self.sized = true;
        self
    }

    fn stream(mut self, body: RequestBody) -> Self {
        self.body = body;
        self.sized = true;
        self
    }

    async fn send(mut self) -> Answer {
        if !self.sized {
            self.request = self.request.header("content-length", 0);
        }
        let (parts, ()) = self.request.body(()).unwrap().into_parts();
        let id = RequestId("req-1".into());
        let response = self.world.objects.serve(&self.caller, parts, self.host_bucket, self.body, &id).await;
        let (parts, body) = response.into_parts();
        assert_eq!(parts.headers["x-amz-request-id"], "req-1");
        assert!(parts.headers.contains_key("x-amz-id-2") && parts.headers.contains_key("server"));
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status, headers: parts.headers, body }
    }
}

fn encode(key: &str) -> String {
    percent_encoding::utf8_percent_encode(key, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn bytes(len: usize, seed: u64) -> Bytes {
    // xorshift: any bytes will do, as long as pieces differ.
    let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        out.extend_from_slice(&x.to_le_bytes());
    }
    out.truncate(len);
    out.into()
}

fn md5(body: &[u8]) -> String {
    use md5::Digest;
    hex::encode(md5::Md5::digest(body))
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[tokio::test]
async fn what_is_put_is_got_inline_and_from_a_file() {
    let w = world().await;
    for size in [0, 1, 16 * 1024, 16 * 1024 + 1, 3_000_000] {
        let body = bytes(size, size as u64);
        let put = w.put("/bkt/k", body.clone()).await;
        assert_eq!(put.status, 200, "{put:?}");
        assert_eq!(put.header("etag"), format!("\"{}\"", md5(&body)));
        let got = w.get("/bkt/k").await;
        assert_eq!(got.status, 200);
        assert!(got.body == body, "{size}");
        assert_eq!(got.header("content-length"), size.to_string());
        assert_eq!(got.header("accept-ranges"), "bytes");
        assert_eq!(got.header("content-type"), "binary/octet-stream");
        assert!(got.header("last-modified").ends_with(" GMT"));
        let head = w.ask(Method::HEAD, "/bkt/k").send().await;
        assert_eq!((head.status.as_u16(), head.header("content-length")), (200, &*size.to_string()));
        assert_eq!(head.header("etag"), put.header("etag"));
    }
    w.files_become(1).await;
    assert_eq!(w.delete("/bkt/k").await.status, 204);
    assert_eq!(w.get("/bkt/k").await.error(), (404, "NoSuchKey".into()));
    assert_eq!(w.ask(Method::HEAD, "/bkt/k").send().await.status, 404);
    w.files_become(0).await;
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_reopening() {
    let w = world().await;
    let body = bytes(100_000, 7);
    w.put("/bkt/k", body.clone()).await;
    let World { objects, dir } = w;
    drop(objects);
    let again = open(dir.path(), "us-east-1");
    let mut got = Vec::new();
    let mut opened = again.get("bkt", "k", None).await.unwrap();
    while let Some(piece) = opened.stream.next().await {
        got.extend_from_slice(&piece.unwrap());
    }
    assert!(got == body);
}

#[tokio::test]
async fn a_key_is_text_and_never_a_path() {
    let w = world().await;
    w.objects.create_bucket("other").await.unwrap();
    let long = "k".repeat(1024);
    let wide = "é".repeat(512);
    let keys = [
        "../other/x",
        "a//b",
        "./c",
        "/lead",
        "x/../y",
        "..",
        ".",
        "a/",
        "a",
        "a/b",
        "%2e%2e/x",
        "100%",
        "a b+c",
        "?q#f",
        "käse/日本語/🦀",
        "\u{1}\u{1f}",
        "back\\slash",
        "..\\..\\x",
        "~",
        "'\"<>&",
        "null",
        "tmp",
        &long,
        &wide,
    ];
    for key in keys {
        let target = format!("/bkt/{}", encode(key));
        let put = w.put(&target, key.to_owned()).await;
        assert_eq!(put.status, 200, "{key:?} {put:?}");
    }
    for key in keys {
        let got = w.get(&format!("/bkt/{}", encode(key))).await;
        assert_eq!(got.body, key, "{key:?}");
    }
    let listed = w.get("/bkt?list-type=2&encoding-type=url").await.xml();
    let names: BTreeSet<String> = listed
        .children
        .iter()
        .filter(|c| c.name == "Contents")
        .map(|c| {
            let key = c.child_text("Key").unwrap();
            percent_encoding::percent_decode_str(key).decode_utf8().unwrap().into_owned()
        })
        .collect();
    assert_eq!(names, keys.iter().map(|k| (*k).to_owned()).collect());
    assert_eq!(w.get("/other?list-type=2").await.text("KeyCount"), "0");
    // Everything that a body could have been written to.
    assert_eq!(w.files(), 0, "all of these are inline");
    let too_long = format!("/bkt/{}", "k".repeat(1025));
    assert_eq!(w.put(&too_long, "x").await.error(), (400, "KeyTooLongError".into()));
    assert_eq!(w.put("/bkt/%ff%fe", "x").await.error(), (400, "InvalidURI".into()));
}

#[tokio::test]
async fn the_host_may_name_the_bucket() {
    let w = world().await;
    let put = w.ask(Method::PUT, "/a/b").host_bucket("bkt").body("x").send().await;
    assert_eq!(put.status, 200);
    assert_eq!(w.get("/bkt/a/b").await.body, "x");
    let listed = w.ask(Method::GET, "/?prefix=a").host_bucket("bkt").send().await;
    assert_eq!(listed.text("Name"), "bkt");
}

#[tokio::test]
async fn a_bucket_lives_and_dies_as_in_s3() {
    let w = world().await;
    assert_eq!(w.put("/new-bucket", "").await.status, 200);
    assert_eq!(w.put("/new-bucket", "").await.status, 200, "us-east-1 lets one's own bucket be created again");
    assert_eq!(w.put("/Bad_Name", "").await.error(), (400, "InvalidBucketName".into()));
    assert_eq!(w.put("/192.168.1.1", "").await.error(), (400, "InvalidBucketName".into()));
    let buckets = w.get("/").await.xml();
    let names: Vec<_> =
        buckets.child("Buckets").unwrap().children.iter().map(|b| b.child_text("Name").unwrap()).collect();
    assert_eq!(names, ["bkt", "new-bucket"]);
    assert_eq!(w.ask(Method::HEAD, "/bkt").send().await.header("x-amz-bucket-region"), "us-east-1");
    assert_eq!(w.ask(Method::HEAD, "/none").send().await.status, 404);
    let location = w.get("/bkt?location").await.xml();
    assert_eq!((location.name.as_str(), location.text.as_str()), ("LocationConstraint", ""));
    w.put("/new-bucket/k", "x").await;
    assert_eq!(w.delete("/new-bucket").await.error(), (409, "BucketNotEmpty".into()));
    w.delete("/new-bucket/k").await;
    assert_eq!(w.delete("/new-bucket").await.status, 204);
    assert_eq!(w.delete("/new-bucket").await.error(), (404, "NoSuchBucket".into()));
    assert_eq!(w.put("/new-bucket/k", "x").await.error(), (404, "NoSuchBucket".into()));
    assert_eq!(w.get("/new-bucket").await.error(), (404, "NoSuchBucket".into()));
}

#[tokio::test]
async fn elsewhere_a_bucket_is_created_once_and_says_its_region() {
    let dir = tempfile::tempdir().unwrap();
    let w = World { objects: open(dir.path(), "eu-central-1"), dir };
    let constraint = |region: &str| {
        format!(
            "<CreateBucketConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><LocationConstraint>{region}</LocationConstraint></CreateBucketConfiguration>"
        )
    };
    assert_eq!(w.put("/bkt", constraint("eu-central-1")).await.status, 200);
    assert_eq!(w.put("/bkt", constraint("eu-central-1")).await.error(), (409, "BucketAlreadyOwnedByYou".into()));
    let wrong = w.put("/other", constraint("us-west-2")).await.error();
    assert_eq!(wrong, (400, "IllegalLocationConstraintException".into()));
    let location = w.get("/bkt?location").await.xml();
    assert_eq!((location.name.as_str(), location.text.as_str()), ("LocationConstraint", "eu-central-1"));
}

#[tokio::test]
async fn ranges_are_inclusive_and_may_count_from_the_end() {
    let w = world().await;
    for body in [bytes(1000, 1), bytes(700_000, 2)] {
        let n = body.len();
        w.put("/bkt/k", body.clone()).await;
        let cases = [
            ("bytes=0-0", 0..1),
            ("bytes=10-19", 10..20),
            ("bytes=10-", 10..n),
            ("bytes=-7", n - 7..n),
            ("bytes=5-99999999", 5..n),
            ("bytes=-99999999", 0..n),
        ];
        for (header, range) in cases {
            let got = w.ask(Method::GET, "/bkt/k").header("range", header).send().await;
            assert_eq!(got.status, 206, "{header}");
            assert_eq!(got.header("content-range"), format!("bytes {}-{}/{n}", range.start, range.end - 1));
            assert!(got.body == body.slice(range.clone()), "{header}");
            let head = w.ask(Method::HEAD, "/bkt/k").header("range", header).send().await;
            assert_eq!((head.status.as_u16(), head.header("content-length")), (206, &*range.len().to_string()));
        }
        for header in [format!("bytes={n}-"), "bytes=-0".into()] {
            let got = w.ask(Method::GET, "/bkt/k").header("range", &header).send().await;
            assert_eq!(got.error(), (416, "InvalidRange".into()), "{header}");
            assert_eq!(got.header("content-range"), format!("bytes */{n}"));
        }
        for unreadable in ["bytes=5-2", "bytes=0-1,4-5", "lines=1-2"] {
            let got = w.ask(Method::GET, "/bkt/k").header("range", unreadable).send().await;
            assert_eq!((got.status.as_u16(), got.body.len()), (200, n), "{unreadable}");
        }
    }
    w.put("/bkt/empty", "").await;
    let got = w.ask(Method::GET, "/bkt/empty").header("range", "bytes=-5").send().await;
    assert_eq!(got.status, 416);
}

#[tokio::test]
async fn conditions_of_reads_follow_the_rfc() {
    let w = world().await;
    let etag = w.put("/bkt/k", "x").await.header("etag").to_owned();
    let past = "Wed, 21 Oct 2015 07:28:00 GMT";
    let future = "Wed, 21 Oct 2099 07:28:00 GMT";
    let modified = w.get("/bkt/k").await.header("last-modified").to_owned();
    let other = "\"00000000000000000000000000000000\"";
    let cases: [(&[(&str, &str)], u16); 12] = [
        (&[("if-match", &etag)], 200),
        (&[("if-match", "*")], 200),
        (&[("if-match", other)], 412),
        (&[("if-none-match", &etag)], 304),
        (&[("if-none-match", other)], 200),
        (&[("if-modified-since", past)], 200),
        (&[("if-modified-since", &modified)], 304),
        (&[("if-modified-since", future)], 200),
        (&[("if-unmodified-since", past)], 412),
        (&[("if-unmodified-since", &modified)], 200),
        (&[("if-match", &etag), ("if-unmodified-since", past)], 200),
        (&[("if-none-match", other), ("if-modified-since", &modified)], 200),
    ];
    for (headers, status) in cases {
        for method in [Method::GET, Method::HEAD] {
            let mut ask = w.ask(method, "/bkt/k");
            for (name, value) in headers {
                ask = ask.header(name, value);
            }
            let got = ask.send().await;
            assert_eq!(got.status, status, "{headers:?}");
            if status == 304 {
                assert_eq!((got.header("etag"), got.body.len()), (&*etag, 0));
            }
        }
    }
}

#[tokio::test]
async fn conditions_of_writes_hold_inside_the_write() {
    let w = world().await;
    let put =
        |header: &'static str, value: String| w.ask(Method::PUT, "/bkt/k").header(header, &value).body("x").send();
    assert_eq!(put("if-match", "\"00\"".into()).await.error(), (404, "NoSuchKey".into()));
    let first = put("if-none-match", "*".into()).await;
    assert_eq!(first.status, 200);
    assert_eq!(put("if-none-match", "*".into()).await.error(), (412, "PreconditionFailed".into()));
    assert_eq!(put("if-match", first.header("etag").into()).await.status, 200);
    assert_eq!(put("if-match", "\"00\"".into()).await.error(), (412, "PreconditionFailed".into()));
    // Of many writers that all want to be first, one is.
    let race = (0..20).map(|_| w.ask(Method::PUT, "/bkt/race").header("if-none-match", "*").body("x").send());
    let won = futures::future::join_all(race).await.iter().filter(|a| a.status == 200).count();
    assert_eq!(won, 1);
}

#[tokio::test]
async fn what_a_client_says_of_an_object_comes_back() {
    let w = world().await;
    let put = w
        .ask(Method::PUT, "/bkt/k")
        .header("content-type", "text/plain; charset=utf-8")
        .header("content-encoding", "gzip,aws-chunked")
        .header("content-disposition", "attachment; filename=\"a.txt\"")
        .header("content-language", "de")
        .header("cache-control", "max-age=5")
        .header("expires", "Wed, 21 Oct 2015 07:28:00 GMT")
        .header("x-amz-meta-Colour", "blue")
        .header("x-amz-meta-name", "=?UTF-8?B?S8Okc2U=?=")
        .header("x-amz-storage-class", "STANDARD_IA")
        .header("x-amz-tagging", "a=1&b=two+words%21".replace("%21", "").as_str())
        .body("x")
        .send()
        .await;
    assert_eq!(put.status, 200, "{put:?}");
    for method in [Method::GET, Method::HEAD] {
        let got = w.ask(method, "/bkt/k").send().await;
        assert_eq!(got.header("content-type"), "text/plain; charset=utf-8");
        assert_eq!(got.header("content-encoding"), "gzip");
        assert_eq!(got.header("content-disposition"), "attachment; filename=\"a.txt\"");
        assert_eq!(got.header("content-language"), "de");
        assert_eq!(got.header("cache-control"), "max-age=5");
        assert_eq!(got.header("expires"), "Wed, 21 Oct 2015 07:28:00 GMT");
        assert_eq!(got.header("x-amz-meta-colour"), "blue");
        assert_eq!(got.header("x-amz-meta-name"), "=?UTF-8?B?S8Okc2U=?=");
        assert_eq!(got.header("x-amz-storage-class"), "STANDARD_IA");
        assert_eq!(got.header("x-amz-tagging-count"), "2");
    }
    let got = w.get("/bkt/k?response-content-type=image%2Fpng&response-cache-control=no-cache").await;
    assert_eq!((got.header("content-type"), got.header("cache-control")), ("image/png", "no-cache"));
    let big = "v".repeat(2048);
    let refused = w.ask(Method::PUT, "/bkt/k").header("x-amz-meta-a", &big).body("x").send().await;
    assert_eq!(refused.error(), (400, "MetadataTooLarge".into()));
}

#[tokio::test]
async fn a_checksum_is_verified_kept_and_shown_when_asked_for() {
    let w = world().await;
    let body = "123456789";
    let crc32 = base64(&[0xcb, 0xf4, 0x39, 0x26]);
    let put = w.ask(Method::PUT, "/bkt/k").header("x-amz-checksum-crc32", &crc32).body(body).send().await;
    assert_eq!((put.status.as_u16(), put.header("x-amz-checksum-crc32")), (200, &*crc32));
    let plain = w.get("/bkt/k").await;
    assert_eq!(plain.header("x-amz-checksum-crc32"), "");
    for method in [Method::GET, Method::HEAD] {
        let got = w.ask(method, "/bkt/k").header("x-amz-checksum-mode", "ENABLED").send().await;
        assert_eq!(got.header("x-amz-checksum-crc32"), crc32);
        assert_eq!(got.header("x-amz-checksum-type"), "FULL_OBJECT");
    }
    let ranged = w.ask(Method::GET, "/bkt/k").header("x-amz-checksum-mode", "ENABLED").header("range", "bytes=0-1");
    assert_eq!(ranged.send().await.header("x-amz-checksum-crc32"), "", "it covers the whole object");

    let refused = |name: &'static str, value: String| async move {
        let w = world().await;
        let answer = w.ask(Method::PUT, "/bkt/new").header(name, &value).body(body).send().await.error();
        assert_eq!(w.get("/bkt/new").await.status, 404);
        answer
    };
    assert_eq!(refused("x-amz-checksum-crc32", base64(&[0; 4])).await, (400, "BadDigest".into()));
    assert_eq!(refused("x-amz-checksum-crc64nvme", base64(&[0; 8])).await, (400, "BadDigest".into()));
    assert_eq!(refused("x-amz-checksum-sha256", base64(&[0; 32])).await, (400, "BadDigest".into()));
    assert_eq!(refused("content-md5", base64(&[0; 16])).await, (400, "BadDigest".into()));
    assert_eq!(refused("content-md5", "nonsense".into()).await, (400, "InvalidDigest".into()));
    assert_eq!(refused("x-amz-checksum-crc32", "AAAA".into()).await, (400, "InvalidRequest".into()));

    // Without one, AWS computes CRC64NVME, and so do we.
    let put = w.put("/bkt/plain", body).await;
    assert_eq!(put.header("x-amz-checksum-crc64nvme"), base64(&hex::decode("ae8b14860a799888").unwrap()));
}

/// A body in pieces, with what its decoder found at the end.
fn failing(body: Bytes, error: ApiError) -> RequestBody {
    let stream = futures::stream::iter([Ok(body), Err(error)]).boxed();
    RequestBody::coming(stream, Trailers::default(), None)
}

#[tokio::test]
async fn a_body_that_fails_its_signature_stores_nothing_and_the_caller_is_told_why() {
    let w = world().await;
    w.put("/bkt/k", "before").await;
    for size in [10, 2_000_000] {
        let error = longshore_wire::payload::PayloadError::Hash.told();
        let put = w.ask(Method::PUT, "/bkt/k").header("content-length", &size.to_string());
        let answer = put.stream(failing(bytes(size, 3), error)).send().await;
        assert_eq!(answer.error(), (400, "XAmzContentSHA256Mismatch".into()));
        assert_eq!(w.get("/bkt/k").await.body, "before");
        w.files_become(0).await;
    }
    let short = w.ask(Method::PUT, "/bkt/k").header("content-length", "11");
    let answer = short.stream(RequestBody::whole("ten bytes!")).send().await;
    assert_eq!(answer.error(), (400, "IncompleteBody".into()));
    let unsized_body = w.ask(Method::PUT, "/bkt/k").stream(RequestBody::whole("x")).send().await;
    assert_eq!(unsized_body.error(), (411, "MissingContentLength".into()));
    let huge = w.ask(Method::PUT, "/bkt/k").header("content-length", &(6_u64 << 30).to_string());
    assert_eq!(huge.stream(RequestBody::whole("x")).send().await.error(), (400, "EntityTooLarge".into()));
    assert_eq!(w.get("/bkt/k").await.body, "before");
}

/// A user without any right.
fn nobody() -> Caller {
    let principal = Principal {
        account: ACCOUNT.into(),
        arn: format!("arn:aws:iam::{ACCOUNT}:user/nobody"),
        user_id: "AIDA".into(),
        kind: PrincipalKind::User { name: "nobody".into() },
        tags: Default::default(),
    };
    let identity = Subject { principal: principal.into(), rights: Default::default() };
    Caller::new(Verified::in_process(ACCOUNT), identity, Context::new(), None, "")
}

#[tokio::test]
async fn no_document_is_waited_for_of_who_may_not_hand_it_in() {
    let w = world().await;
    for (method, target) in [
        (Method::POST, "/bkt/k?uploadId=u"),
        (Method::PUT, "/bkt?versioning="),
        (Method::PUT, "/bkt-2"),
        (Method::PUT, "/bkt-2?x-id=CreateBucket"),
    ] {
        let mut ask = w.ask(method.clone(), target).header("content-length", "100").stream(RequestBody::coming(
            futures::stream::pending().boxed(),
            Trailers::default(),
            None,
        ));
        ask.caller = nobody();
        assert_eq!(ask.send().await.error(), (403, "AccessDenied".into()), "{method} {target}");
    }
}

#[tokio::test(start_paused = true)]
async fn documents_have_room_in_memory_or_are_told_to_come_later() {
    let w = world().await;
    let budget = Budget::new(1 << 20);
    let document = format!("<Delete><Object><Key>k</Key></Object>{}</Delete>", " ".repeat(1 << 19));
    let delete = || {
        let pieces: Vec<_> =
            document.as_bytes().chunks(100_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let body = RequestBody::coming(futures::stream::iter(pieces).boxed(), Trailers::default(), budget.clone());
        let ask = w.ask(Method::POST, "/bkt?delete=").header("content-length", &document.len().to_string());
        ask.header("content-md5", &base64(&hex::decode(md5(document.as_bytes())).unwrap())).stream(body).send()
    };
    let mut others = budget.held();
    others.grow(1 << 19).await.unwrap();
    assert_eq!(delete().await.error(), (503, "SlowDown".into()));
    drop(others);
    assert_eq!(delete().await.status, 200);
    assert_eq!(budget.free(), 1 << 20);
}

#[tokio::test]
async fn a_client_that_was_not_told_to_continue_is_told_to_close() {
    let w = world().await;
    let put = |target: &str, body: &'static str| {
        w.ask(Method::PUT, target).header("expect", "100-continue").body(body).send()
    };
    assert_eq!(put("/bkt/k", "x").await.header("connection"), "", "its body was asked for");
    assert_eq!(put("/bkt/k", "").await.header("connection"), "close");
    let refused = w.ask(Method::PUT, "/none/k").header("expect", "100-continue").body(bytes(100_000, 1)).send().await;
    assert_eq!((refused.error(), refused.header("connection")), ((404, "NoSuchBucket".into()), "close"));
}

#[tokio::test]
async fn a_checksum_may_follow_the_body_in_a_trailer() {
    let w = world().await;
    let put = |value: Option<String>| {
        let trailers = Trailers::default();
        let later = trailers.clone();
        // As the decoder does: the trailers are known once the last byte is through.
        let stream = futures::stream::once(async { Ok(Bytes::from_static(b"123456789")) })
            .chain(
                futures::stream::once(async move {
                    if let Some(value) = value {
                        later.set(decoded_trailers(&value));
                    }
                })
                .filter_map(|()| async { None }),
            )
            .boxed();
        w.ask(Method::PUT, "/bkt/k")
            .header("content-encoding", "aws-chunked")
            .header("x-amz-decoded-content-length", "9")
            .header("content-length", "70")
            .header("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")
            .header("x-amz-trailer", "x-amz-checksum-crc32")
            .header("x-amz-sdk-checksum-algorithm", "CRC32")
            .stream(RequestBody::coming(stream, trailers, None))
            .send()
    };
    let right = base64(&[0xcb, 0xf4, 0x39, 0x26]);
    assert_eq!(put(Some(base64(&[0; 4]))).await.error(), (400, "BadDigest".into()));
    assert_eq!(put(None).await.error(), (400, "MalformedTrailerError".into()));
    assert_eq!(w.get("/bkt/k").await.status, 404);
    let stored = put(Some(right.clone())).await;
    assert_eq!((stored.status.as_u16(), stored.header("x-amz-checksum-crc32")), (200, &*right));
    let got = w.get("/bkt/k").await;
    assert_eq!((got.body, got.headers.get("content-encoding")), (Bytes::from("123456789"), None));
}

/// Trailers as only the decoder makes them.
fn decoded_trailers(crc32: &str) -> longshore_wire::payload::Trailers {
    use longshore_wire::payload::{Decoder, PayloadForm};
    let mut decoder =
        Decoder::new(PayloadForm::UnsignedTrailer, Some(9), vec!["x-amz-checksum-crc32".to_owned()], None).unwrap();
    decoder.push(Bytes::from(format!("9\r\n123456789\r\n0\r\nx-amz-checksum-crc32:{crc32}\r\n\r\n"))).unwrap();
    decoder.finish().unwrap()
}

#[tokio::test]
async fn a_listing_pages_rolls_up_and_encodes() {
    let w = world().await;
    for key in ["a", "b/1", "b/2", "c d", "e/f/g", "h"] {
        w.put(&format!("/bkt/{}", encode(key).replace("%2F", "/")), "x").await;
    }
    let mut entries = Vec::new();
    let mut token = String::new();
    loop {
        let page = w.get(&format!("/bkt?list-type=2&delimiter=%2F&max-keys=2&encoding-type=url{token}")).await.xml();
        for child in &page.children {
            match child.name.as_str() {
                "Contents" => entries.push(child.child_text("Key").unwrap().to_owned()),
                "CommonPrefixes" => entries.push(child.child_text("Prefix").unwrap().to_owned()),
                _ => {}
            }
        }
        match page.child_text("NextContinuationToken") {
            Some(next) => token = format!("&continuation-token={}", encode(next)),
            None => {
                assert_eq!(page.child_text("IsTruncated"), Some("false"));
                break;
            }
        }
    }
    entries.sort();
    assert_eq!(entries, ["a", "b/", "c%20d", "e/", "h"]);
    let v1 = w.get("/bkt?delimiter=/&max-keys=2&marker=a").await.xml();
    assert_eq!(v1.child_text("NextMarker"), Some("c d"));
    let after = w.get("/bkt?list-type=2&start-after=c%20d").await;
    assert_eq!(after.text("KeyCount"), "2");
    assert_eq!(w.get("/bkt?list-type=2&max-keys=0").await.text("IsTruncated"), "false");
    assert_eq!(w.get("/bkt?max-keys=-1").await.error(), (400, "InvalidArgument".into()));
    assert_eq!(w.get("/bkt?list-type=2&continuation-token=%21").await.error(), (400, "InvalidArgument".into()));
}

#[tokio::test]
async fn many_keys_are_deleted_at_once() {
    let w = world().await;
    for key in ["a", "b&c", "\u{1}", "keep"] {
        w.put(&format!("/bkt/{}", encode(key)), "x").await;
    }
    let body = "<Delete><Object><Key>a</Key></Object><Object><Key><![CDATA[b&c]]></Key></Object>\
                <Object><Key>&#1;</Key></Object><Object><Key>never-was</Key></Object></Delete>";
    let answer = w.ask(Method::POST, "/bkt?delete").body(body).send().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    // The control character cannot be read back as XML: it is looked for as bytes.
    assert_eq!(String::from_utf8_lossy(&answer.body).matches("<Deleted>").count(), 4);
    assert_eq!(w.get("/bkt?list-type=2").await.text("KeyCount"), "1");
    let quiet = "<Delete><Quiet>true</Quiet><Object><Key>keep</Key></Object></Delete>";
    let answer = w.ask(Method::POST, "/bkt?delete").body(quiet).send().await;
    assert!(answer.xml().children.is_empty());
    let wrong = w.ask(Method::POST, "/bkt?delete").header("content-md5", &base64(&[0; 16])).body(quiet).send().await;
    assert_eq!(wrong.error(), (400, "BadDigest".into()));
}

#[tokio::test]
async fn a_document_with_a_dtd_or_too_deep_is_refused() {
    let w = world().await;
    let dtd = "<!DOCTYPE d [<!ENTITY e \"x\">]><Delete><Object><Key>&e;</Key></Object></Delete>";
    let deep = format!("{}{}", "<Delete>".repeat(40), "</Delete>".repeat(40));
    for body in [dtd.to_owned(), deep, "<Delete>".into(), "no xml".into()] {
        let answer = w.ask(Method::POST, "/bkt?delete").body(body).send().await;
        assert_eq!(answer.error(), (400, "MalformedXML".into()));
    }
    let large = format!("<Delete>{}</Delete>", " ".repeat(5 << 20));
    let answer = w.ask(Method::POST, "/bkt?delete").body(large).send().await;
    assert_eq!(answer.error(), (400, "MaxMessageLengthExceeded".into()));
}

#[tokio::test]
async fn a_copy_is_an_object_of_its_own() {
    let w = world().await;
    let body = bytes(100_000, 9);
    let put = w.ask(Method::PUT, "/bkt/a%20b").header("x-amz-meta-m", "1").header("content-type", "text/x");
    let etag = put.body(body.clone()).send().await.header("etag").to_owned();
    let copy = |source: &'static str| w.ask(Method::PUT, "/bkt/copy").header("x-amz-copy-source", source);
    let answer = copy("/bkt/a%20b").send().await;
    assert_eq!((answer.status.as_u16(), answer.text("ETag")), (200, etag.clone()), "{answer:?}");
    assert_eq!(w.files(), 1, "the two share the file");
    assert_eq!(w.delete("/bkt/a%20b").await.status, 204);
    let got = w.get("/bkt/copy").await;
    assert!(got.body == body);
    assert_eq!((got.header("x-amz-meta-m"), got.header("content-type")), ("1", "text/x"));

    let itself = copy("bkt/copy").send().await;
    assert_eq!(itself.error(), (400, "InvalidRequest".into()));
    let replaced =
        copy("bkt/copy").header("x-amz-metadata-directive", "REPLACE").header("x-amz-meta-n", "2").send().await;
    assert_eq!(replaced.status, 200);
    let got = w.get("/bkt/copy").await;
    assert_eq!((got.header("x-amz-meta-m"), got.header("x-amz-meta-n")), ("", "2"));
    assert!(got.body == body);

    assert_eq!(copy("bkt/none").send().await.error(), (404, "NoSuchKey".into()));
    let elsewhere = w.ask(Method::PUT, "/bkt/new").header("x-amz-copy-source", "bkt/copy");
    let unlike = elsewhere.header("x-amz-copy-source-if-match", "\"00\"").send().await;
    assert_eq!(unlike.error(), (412, "PreconditionFailed".into()));
    // A checksum that the source does not have is computed from its bytes.
    let summed = w
        .ask(Method::PUT, "/bkt/summed")
        .header("x-amz-copy-source", "bkt/copy")
        .header("x-amz-checksum-algorithm", "SHA256")
        .send()
        .await;
    assert_eq!(summed.text("ChecksumSHA256").len(), 44);
    w.delete("/bkt/copy").await;
    w.delete("/bkt/summed").await;
    w.files_become(0).await;
}

async fn start_upload(w: &World, target: &str) -> String {
    let answer = w.ask(Method::POST, &format!("{target}?uploads")).header("content-type", "text/m").send().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.text("UploadId")
}

fn complete_document(parts: &[(usize, &str)]) -> String {
    let parts: String = parts
        .iter()
        .map(|(n, etag)| {
            let etag = etag.replace('"', "&quot;");
            format!("<Part><PartNumber>{n}</PartNumber><ETag>{etag}</ETag></Part>")
        })
        .collect();
    format!(
        "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{parts}</CompleteMultipartUpload>"
    )
}

#[tokio::test]
async fn an_upload_in_parts_becomes_one_object() {
    const MIN: usize = 5 * 1024 * 1024;
    let w = world().await;
    let id = start_upload(&w, "/bkt/big").await;
    let parts = [bytes(MIN, 1), bytes(MIN + 17, 2), bytes(100, 3)];
    let mut etags = Vec::new();
    for (n, part) in parts.iter().enumerate() {
        let put = w.put(&format!("/bkt/big?partNumber={}&uploadId={id}", n + 1), part.clone()).await;
        assert_eq!(put.status, 200, "{put:?}");
        etags.push(put.header("etag").to_owned());
    }
    // A part that is uploaded again takes the place of the first; one that is not listed goes.
    w.put(&format!("/bkt/big?partNumber=9&uploadId={id}"), bytes(10, 4)).await;
    w.put(&format!("/bkt/big?partNumber=9&uploadId={id}"), bytes(11, 5)).await;
    w.files_become(4).await;
    let listed = w.get(&format!("/bkt/big?uploadId={id}&max-parts=3")).await.xml();
    assert_eq!(listed.children.iter().filter(|c| c.name == "Part").count(), 3);
    assert_eq!(listed.child_text("NextPartNumberMarker"), Some("3"));
    let uploads = w.get("/bkt?uploads").await.xml();
    assert_eq!(uploads.child("Upload").unwrap().child_text("UploadId"), Some(&*id));
    assert_eq!(w.get("/bkt/big").await.status, 404, "not an object yet");
    assert_eq!(w.get("/bkt?list-type=2").await.text("KeyCount"), "0");

    let finish = |parts: Vec<(usize, &str)>| {
        w.ask(Method::POST, &format!("/bkt/big?uploadId={id}")).body(complete_document(&parts)).send()
    };
    let (e1, e2, e3) = (&*etags[0], &*etags[1], &*etags[2]);
    assert_eq!(finish(vec![(2, e2), (1, e1)]).await.error(), (400, "InvalidPartOrder".into()));
    assert_eq!(finish(vec![(1, e2), (2, e1)]).await.error(), (400, "InvalidPart".into()));
    assert_eq!(finish(vec![(1, e1), (4, e1)]).await.error(), (400, "InvalidPart".into()));
    assert_eq!(
        finish(vec![(3, e3), (9, &format!("\"{}\"", md5(&bytes(11, 5))))]).await.error(),
        (400, "EntityTooSmall".into())
    );
    assert_eq!(finish(vec![]).await.error(), (400, "MalformedXML".into()));
    let done = finish(vec![(1, e1), (2, e2), (3, e3)]).await;
    assert_eq!(done.status, 200, "{done:?}");
    let joined: Vec<u8> = etags.iter().flat_map(|e| hex::decode(e.trim_matches('"')).unwrap()).collect();
    let etag = format!("\"{}-3\"", md5(&joined));
    assert_eq!(done.text("ETag"), etag);
    w.files_become(3).await;
    // The answer was lost, the client asks again.
    assert_eq!(finish(vec![(1, e1), (2, e2), (3, e3)]).await.text("ETag"), etag);

    let whole: Bytes = parts.concat().into();
    let got = w.ask(Method::GET, "/bkt/big").header("x-amz-checksum-mode", "ENABLED").send().await;
    assert!(got.body == whole);
    assert_eq!((got.header("etag"), got.header("content-type")), (&*etag, "text/m"));
    assert_eq!(got.header("x-amz-checksum-crc64nvme"), base64(&crc_fast::crc64_nvme(&whole).to_be_bytes()));
    let across = format!("bytes={}-{}", MIN - 5, 2 * MIN + 50);
    let got = w.ask(Method::GET, "/bkt/big").header("range", &across).send().await;
    assert!(got.body == whole.slice(MIN - 5..2 * MIN + 51));
    let second = w.get("/bkt/big?partNumber=2").await;
    assert!(second.body == parts[1]);
    assert_eq!((second.status.as_u16(), second.header("x-amz-mp-parts-count")), (206, "3"));
    assert_eq!(w.get("/bkt/big?partNumber=4").await.error(), (416, "InvalidPartNumber".into()));
    let attributes = w
        .ask(Method::GET, "/bkt/big?attributes")
        .header("x-amz-object-attributes", "ETag,ObjectParts,ObjectSize")
        .send()
        .await;
    assert_eq!(attributes.text("ObjectSize"), whole.len().to_string(), "{attributes:?}");

    // A copy of it shares its files, and an upload can be fed from it.
    w.ask(Method::PUT, "/bkt/copy").header("x-amz-copy-source", "bkt/big").send().await;
    w.delete("/bkt/big").await;
    assert!(w.get("/bkt/copy").await.body == whole);
    let id = start_upload(&w, "/bkt/part-of").await;
    let part = w
        .ask(Method::PUT, &format!("/bkt/part-of?partNumber=1&uploadId={id}"))
        .header("x-amz-copy-source", "bkt/copy")
        .header("x-amz-copy-source-range", &across)
        .send()
        .await;
    let done = w
        .ask(Method::POST, &format!("/bkt/part-of?uploadId={id}"))
        .body(complete_document(&[(1, &part.text("ETag"))]))
        .send()
        .await;
    assert_eq!(done.status, 200, "{done:?}");
    assert!(w.get("/bkt/part-of").await.body == whole.slice(MIN - 5..2 * MIN + 51));
    w.delete("/bkt/copy").await;
    w.delete("/bkt/part-of").await;
    w.files_become(0).await;
}

#[tokio::test]
async fn an_upload_that_is_aborted_leaves_nothing() {
    let w = world().await;
    let id = start_upload(&w, "/bkt/k").await;
    let part = format!("/bkt/k?partNumber=1&uploadId={id}");
    w.put(&part, bytes(100_000, 1)).await;
    assert_eq!(w.delete(&format!("/bkt/other?uploadId={id}")).await.error(), (404, "NoSuchUpload".into()));
    assert_eq!(w.delete(&format!("/bkt/k?uploadId={id}")).await.status, 204);
    assert_eq!(w.put(&part, "x").await.error(), (404, "NoSuchUpload".into()));
    assert_eq!(w.put("/bkt/k?partNumber=10001&uploadId=x", "x").await.error(), (400, "InvalidArgument".into()));
    w.files_become(0).await;
}

#[tokio::test]
async fn parts_with_a_chosen_checksum_make_a_composite_one() {
    let w = world().await;
    let start = w.ask(Method::POST, "/bkt/k?uploads").header("x-amz-checksum-algorithm", "CRC32").send().await;
    assert_eq!(start.header("x-amz-checksum-type"), "COMPOSITE");
    let id = start.text("UploadId");
    let target = format!("/bkt/k?partNumber=1&uploadId={id}");
    let other = w.ask(Method::PUT, &target).header("x-amz-checksum-sha1", &base64(&[0; 20])).body("123456789");
    assert_eq!(other.send().await.error(), (400, "InvalidRequest".into()));
    let crc32 = base64(&[0xcb, 0xf4, 0x39, 0x26]);
    let part = w.ask(Method::PUT, &target).header("x-amz-checksum-crc32", &crc32).body("123456789").send().await;
    assert_eq!(part.header("x-amz-checksum-crc32"), crc32);
    let document = |crc32: &str| {
        format!(
            "<CompleteMultipartUpload><Part><ChecksumCRC32>{crc32}</ChecksumCRC32><ETag>{}</ETag>\
             <PartNumber>1</PartNumber></Part></CompleteMultipartUpload>",
            part.header("etag").trim_matches('"')
        )
    };
    let finish = |crc32: &str| w.ask(Method::POST, &format!("/bkt/k?uploadId={id}")).body(document(crc32)).send();
    assert_eq!(finish("AAAAAA==").await.error(), (400, "InvalidPart".into()));
    let done = finish(&crc32).await;
    let composite = base64(&crc_fast::crc32_iso_hdlc(&[0xcb, 0xf4, 0x39, 0x26]).to_be_bytes());
    assert_eq!(done.text("ChecksumCRC32"), format!("{composite}-1"), "{done:?}");
    assert_eq!(done.text("ChecksumType"), "COMPOSITE");
}

#[tokio::test]
async fn tags_are_set_read_and_removed() {
    let w = world().await;
    w.put("/bkt/k", "x").await;
    let document = |tags: &str| format!("<Tagging><TagSet>{tags}</TagSet></Tagging>");
    let tag = |k: &str, v: &str| format!("<Tag><Key>{k}</Key><Value>{v}</Value></Tag>");
    let put = |tags: String| w.ask(Method::PUT, "/bkt/k?tagging").body(document(&tags)).send();
    assert_eq!(put(tag("a", "1") + &tag("b", "")).await.status, 200);
    let got = w.get("/bkt/k?tagging").await.xml();
    let tags = &got.child("TagSet").unwrap().children;
    assert_eq!((tags.len(), tags[0].child_text("Key"), tags[0].child_text("Value")), (2, Some("a"), Some("1")));
    assert_eq!(put(tag("a", "1") + &tag("a", "2")).await.error(), (400, "InvalidTag".into()));
    assert_eq!(put(tag("aws:x", "1")).await.error(), (400, "InvalidTag".into()));
    assert_eq!(put((0..11).map(|n| tag(&n.to_string(), "")).collect()).await.error(), (400, "BadRequest".into()));
    assert_eq!(w.delete("/bkt/k?tagging").await.status, 204);
    assert!(w.get("/bkt/k?tagging").await.xml().child("TagSet").unwrap().children.is_empty());
    assert_eq!(w.get("/bkt/none?tagging").await.error(), (404, "NoSuchKey".into()));
}

#[tokio::test]
async fn a_versioned_bucket_keeps_what_was_overwritten_and_deleted() {
    let w = world().await;
    w.put("/bkt/k", "null version").await;
    let enable = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
    assert_eq!(w.get("/bkt?versioning").await.text("Status"), "");
    assert_eq!(w.put("/bkt?versioning", enable).await.status, 200);
    assert_eq!(w.get("/bkt?versioning").await.text("Status"), "Enabled");
    let one = w.put("/bkt/k", "one").await.header("x-amz-version-id").to_owned();
    let two = w.put("/bkt/k", "two").await.header("x-amz-version-id").to_owned();
    assert!(one != two && one.len() == 32);
    let got = w.get(&format!("/bkt/k?versionId={one}")).await;
    assert_eq!((got.body.as_ref(), got.header("x-amz-version-id")), (&b"one"[..], &*one));
    assert_eq!(w.get("/bkt/k?versionId=null").await.body, "null version");
    let gone = w.delete("/bkt/k").await;
    let marker = gone.header("x-amz-version-id").to_owned();
    assert_eq!((gone.status.as_u16(), gone.header("x-amz-delete-marker")), (204, "true"));
    let missing = w.get("/bkt/k").await;
    assert_eq!((missing.error(), missing.header("x-amz-delete-marker")), ((404, "NoSuchKey".into()), "true"));
    assert_eq!(w.get(&format!("/bkt/k?versionId={marker}")).await.error(), (405, "MethodNotAllowed".into()));
    assert_eq!(w.get("/bkt/k?versionId=none").await.error(), (404, "NoSuchVersion".into()));
    assert_eq!(w.get("/bkt?list-type=2").await.text("KeyCount"), "0");

    let mut seen = Vec::new();
    let mut marker_query = String::new();
    loop {
        let page = w.get(&format!("/bkt?versions&max-keys=1{marker_query}")).await.xml();
        for child in page.children.iter().filter(|c| c.name == "Version" || c.name == "DeleteMarker") {
            let text = |n| child.child_text(n).unwrap().to_owned();
            seen.push((text("VersionId"), text("IsLatest")));
        }
        if page.child_text("IsTruncated") == Some("false") {
            break;
        }
        let next = |n| encode(page.child_text(n).unwrap());
        marker_query =
            format!("&key-marker={}&version-id-marker={}", next("NextKeyMarker"), next("NextVersionIdMarker"));
    }
    let expected = [(&*marker, "true"), (&*two, "false"), (&*one, "false"), ("null", "false")];
    assert_eq!(seen, expected.map(|(v, l)| (v.to_owned(), l.to_owned())));

    assert_eq!(w.delete("/bkt").await.error(), (409, "BucketNotEmpty".into()));
    w.delete(&format!("/bkt/k?versionId={marker}")).await;
    assert_eq!(w.get("/bkt/k").await.body, "two", "removing the marker brings the object back");
    w.delete(&format!("/bkt/k?versionId={two}")).await;
    assert_eq!(w.get("/bkt/k").await.body, "one");
    w.delete(&format!("/bkt/k?versionId={one}")).await;
    w.delete("/bkt/k?versionId=null").await;
    assert_eq!(w.delete("/bkt").await.status, 204);
}

#[tokio::test]
async fn what_is_not_built_is_refused_by_name_and_changes_nothing() {
    let w = world().await;
    w.put("/bkt/k", "x").await;
    let refused = [
        (Method::GET, "/bkt?acl", "GetBucketAcl"),
        (Method::GET, "/bkt/k?acl", "GetObjectAcl"),
        (Method::PUT, "/bkt?policy", "PutBucketPolicy"),
        (Method::PUT, "/bkt?lifecycle", "PutBucketLifecycleConfiguration"),
        (Method::PUT, "/bkt/k?encryption", "encryption"),
        (Method::PUT, "/bkt/k?renameObject", "renameObject"),
        (Method::GET, "/bkt?metadataConfiguration", "metadataConfiguration"),
        (Method::GET, "/bkt/k?torrent", "GetObjectTorrent"),
    ];
    for (method, target, name) in refused {
        let answer = w.ask(method, target).send().await;
        assert_eq!(answer.error(), (501, "NotImplemented".into()), "{target}");
        assert!(answer.text("Message").contains(name), "{target} {answer:?}");
    }
    let headers = [
        ("x-amz-server-side-encryption", "AES256", "NotImplemented"),
        ("x-amz-server-side-encryption-customer-algorithm", "AES256", "NotImplemented"),
        ("x-amz-object-lock-mode", "GOVERNANCE", "NotImplemented"),
        ("x-amz-storage-class", "GLACIER", "NotImplemented"),
        ("x-amz-storage-class", "FAST", "InvalidStorageClass"),
        ("x-amz-acl", "public-read", "AccessControlListNotSupported"),
        ("x-amz-grant-read", "id=1", "AccessControlListNotSupported"),
        ("x-amz-write-offset-bytes", "1", "NotImplemented"),
    ];
    for (name, value, code) in headers {
        let answer = w.ask(Method::PUT, "/bkt/k").header(name, value).body("y").send().await;
        assert_eq!(answer.error().1, code, "{name}");
    }
    let form = w.ask(Method::POST, "/bkt").header("content-type", "multipart/form-data; boundary=b").body("--b--");
    assert_eq!(form.send().await.error(), (501, "NotImplemented".into()));
    assert_eq!(w.get("/bkt/k").await.body, "x");
    let owner = w.ask(Method::GET, "/bkt/k").header("x-amz-expected-bucket-owner", "111111111111").send().await;
    assert_eq!(owner.error(), (403, "AccessDenied".into()));
}

#[tokio::test]
async fn another_account_is_refused() {
    let w = world().await;
    let (parts, ()) = http::Request::builder().uri("/bkt").body(()).unwrap().into_parts();
    let caller = Caller::in_process("111111111111");
    let answer = w.objects.serve(&caller, parts, None, RequestBody::whole(""), &RequestId("r".into())).await;
    assert_eq!(answer.status(), 403);
}

#[tokio::test]
async fn what_belongs_to_the_signature_does_not_reach_the_parser() {
    let w = world().await;
    let put = w
        .ask(Method::PUT, "/bkt/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=a%2Fb&X-Amz-Date=20260101T000000Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&x-amz-meta-a=b%20c&X-Amz-Signature=00")
        .header("host", "localhost:7300")
        .body("x")
        .send()
        .await;
    assert_eq!(put.status, 200, "{put:?}");
    let got = w
        .ask(Method::GET, "/bkt/k")
        .header(
            "authorization",
            "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=00",
        )
        .header("x-amz-date", "20260101T000000Z")
        .header("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
        .header("x-amz-security-token", "t")
        .send()
        .await;
    assert_eq!((got.status.as_u16(), got.header("x-amz-meta-a")), (200, "b c"), "a presigned URL carries headers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reader_never_sees_a_mixture_of_two_versions() {
    let w = std::sync::Arc::new(world().await);
    // Every body is one byte over and over; of sizes on both sides of every boundary.
    let body = |n: u8| Bytes::from(vec![n; [1_000, 20_000, 600_000, 1_500_000][usize::from(n) % 4]]);
    w.put("/bkt/k", body(0)).await;
    let writers = (0..3).map(|k| {
        let w = w.clone();
        tokio::spawn(async move {
            for n in 0..25 {
                if n % 7 == 6 {
                    w.delete("/bkt/k").await;
                }
                assert_eq!(w.put("/bkt/k", body(k * 25 + n)).await.status, 200);
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let readers = (0..4).map(|_| {
        let w = w.clone();
        tokio::spawn(async move {
            let mut seen = 0;
            while seen < 150 {
                let got = w.get("/bkt/k").await;
                if got.status == 404 {
                    continue;
                }
                assert_eq!(got.status, 200, "{got:?}");
                let first = got.body[0];
                assert!(got.body == body(first), "{} bytes of {first}", got.body.len());
                assert_eq!(got.header("etag"), format!("\"{}\"", md5(&got.body)));
                seen += 1;
            }
        })
    });
    let readers: Vec<_> = readers.collect();
    for task in writers.into_iter().chain(readers) {
        task.await.unwrap();
    }
    let last = w.get("/bkt/k").await.body.len();
    w.files_become(usize::from(last > 16 * 1024)).await;
}

#[tokio::test]
async fn a_slow_reader_gets_its_version_to_the_end_though_it_is_overwritten_and_deleted() {
    const MIN: usize = 5 * 1024 * 1024;
    let w = world().await;
    let id = start_upload(&w, "/bkt/parts").await;
    let parts = [bytes(MIN, 1), bytes(MIN, 2)];
    let mut etags = Vec::new();
    for (n, part) in parts.iter().enumerate() {
        let put = w.put(&format!("/bkt/parts?partNumber={}&uploadId={id}", n + 1), part.clone()).await;
        etags.push(put.header("etag").to_owned());
    }
    let document = complete_document(&[(1, &etags[0]), (2, &etags[1])]);
    w.ask(Method::POST, &format!("/bkt/parts?uploadId={id}")).body(document).send().await;
    w.put("/bkt/file", parts.concat()).await;
    for key in ["parts", "file"] {
        let mut opened = w.objects.get("bkt", key, None).await.unwrap();
        let mut got = opened.stream.next().await.unwrap().unwrap().to_vec();
        w.put(&format!("/bkt/{key}"), "new").await;
        w.delete(&format!("/bkt/{key}")).await;
        while let Some(piece) = opened.stream.next().await {
            got.extend_from_slice(&piece.unwrap());
        }
        assert!(got == parts.concat(), "{key}");
    }
    w.files_become(0).await;
}

#[tokio::test]
async fn a_damaged_body_is_never_passed_off_as_the_object() {
    let w = world().await;
    w.put("/bkt/k", bytes(700_000, 1)).await;
    let file = std::fs::read_dir(w.dir.path().join("blobs"))
        .unwrap()
        .flat_map(|d| std::fs::read_dir(d.unwrap().path()).unwrap())
        .next()
        .unwrap()
        .unwrap()
        .path();
    let told = |read: Result<usize, ObjectsError>| read.unwrap_err().to_string();
    // Whoever has to mend it is told of which object it is the body, and which file.
    let named = format!("s3://bkt/k: the body {} ", file.display());
    let mut content = std::fs::read(&file).unwrap();
    content[350_000] ^= 1;
    std::fs::write(&file, &content).unwrap();
    let read = |w: &World| {
        let objects = w.objects.clone();
        async move {
            let mut opened = objects.get("bkt", "k", None).await?;
            let mut total = 0;
            while let Some(piece) = opened.stream.next().await {
                total += piece?.len();
            }
            Ok::<_, ObjectsError>(total)
        }
    };
    assert!(matches!(read(&w).await, Err(ObjectsError::Damaged(_))));
    assert_eq!(told(read(&w).await), format!("stored data is damaged: {named}fails its checksum"));
    content.truncate(600_000);
    std::fs::write(&file, &content).unwrap();
    assert!(matches!(read(&w).await, Err(ObjectsError::Damaged(_))));
    assert_eq!(told(read(&w).await), format!("stored data is damaged: {named}is too short"));
    std::fs::remove_file(&file).unwrap();
    assert!(matches!(read(&w).await, Err(ObjectsError::Damaged(_))));
    assert_eq!(told(read(&w).await), format!("stored data is damaged: {named}is missing"));
    assert_eq!(w.get("/bkt/k").await.error(), (500, "InternalError".into()));
}

#[tokio::test]
async fn whatever_is_done_to_a_bodys_file_what_is_read_is_the_object_or_an_error() {
    let w = world().await;
    let (one, other) = (bytes(90_000, 3), bytes(90_000, 4));
    w.put("/bkt/one", one.clone()).await;
    w.put("/bkt/other", other.clone()).await;
    let files: Vec<_> = std::fs::read_dir(w.dir.path().join("blobs"))
        .unwrap()
        .flat_map(|d| std::fs::read_dir(d.unwrap().path()).unwrap())
        .map(|file| file.unwrap().path())
        .collect();
    let [first, second] = files.as_slice() else { panic!("{files:?}") };
    let whole: Vec<_> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    let mut refused = 0;
    for round in 0..60_usize {
        let mut damaged = whole[0].clone();
        let at = round * 7_919 % damaged.len();
        match round % 6 {
            0 | 1 => damaged[at] ^= 1 << (round % 8),
            2 => damaged.truncate(at),
            3 => damaged.rotate_left(at.max(1)),
            4 => damaged = whole[1].clone(),
            _ => {
                damaged[at / 512 * 512..].iter_mut().take(512).for_each(|byte| *byte = 0);
            }
        }
        std::fs::write(first, &damaged).unwrap();
        if round % 6 == 4 {
            std::fs::write(second, &whole[0]).unwrap();
        }
        for (key, wanted) in [("one", &one), ("other", &other)] {
            let read = async {
                let mut opened = w.objects.get("bkt", key, None).await?;
                let mut got = Vec::new();
                while let Some(piece) = opened.stream.next().await {
                    got.extend_from_slice(&piece?);
                }
                Ok::<_, ObjectsError>(got)
            };
            match read.await {
                Ok(got) => assert!(got == *wanted, "round {round}: {key} was read with other bytes"),
                Err(ObjectsError::Damaged(told)) => {
                    refused += 1;
                    assert!(told.contains("body"), "{told}");
                }
                Err(error) => panic!("round {round}: {error}"),
            }
        }
        std::fs::write(first, &whole[0]).unwrap();
        std::fs::write(second, &whole[1]).unwrap();
    }
    assert!(refused >= 60, "{refused} of at least 60 were refused");
}

#[tokio::test]
async fn a_small_body_in_the_database_is_checked_like_one_in_a_file() {
    let w = world().await;
    w.put("/bkt/small", bytes(900, 5)).await;
    assert!(w.get("/bkt/small").await.body == bytes(900, 5));
    let database = rusqlite::Connection::open(w.dir.path().join("records.db")).unwrap();
    for other in [bytes(900, 6), bytes(899, 5), Bytes::new()] {
        assert_eq!(database.execute("UPDATE object_inline SET body = ?1", [&other[..]]).unwrap(), 1);
        assert!(matches!(w.objects.get("bkt", "small", None).await, Err(ObjectsError::Damaged(_))));
        assert_eq!(w.get("/bkt/small").await.error(), (500, "InternalError".into()));
    }
}

#[tokio::test]
async fn bodies_that_a_crash_left_behind_are_swept_at_the_next_start() {
    let w = world().await;
    let body = bytes(100_000, 1);
    w.put("/bkt/k", body.clone()).await;
    let blobs = w.dir.path().join("blobs");
    // Killed while a body arrived; and between its renaming and its commit.
    std::fs::write(blobs.join("tmp/0123456789abcdef0123456789abcdef"), "half").unwrap();
    std::fs::write(blobs.join("00/0123456789abcdef0123456789abcd"), "orphan").unwrap();
    assert_eq!(w.files(), 3);
    let World { objects, dir } = w;
    drop(objects);
    let w = World { objects: open(dir.path(), "us-east-1"), dir };
    w.files_become(1).await;
    assert!(w.get("/bkt/k").await.body == body);
}

#[tokio::test]
async fn a_local_file_is_an_object_until_it_changes() {
    let w = world().await;
    let source = tempfile::tempdir().unwrap();
    let path = source.path().join("photo.jpg");
    std::fs::write(&path, bytes(300_000, 1)).unwrap();
    w.objects.import_file("bkt", "in/photo.jpg", &path).await.unwrap();
    let got = w.get("/bkt/in/photo.jpg").await;
    assert!(got.body == bytes(300_000, 1));
    let etag = got.header("etag").to_owned();
    assert!(etag.ends_with("-1\""));
    assert_eq!(w.files(), 0, "nothing is copied");
    w.objects.import_file("bkt", "in/photo.jpg", &path).await.unwrap();
    assert_eq!(w.get("/bkt/in/photo.jpg").await.header("etag"), etag);
    assert_eq!(w.get("/bkt?list-type=2&prefix=in/").await.text("KeyCount"), "1");
    let copied = w.ask(Method::PUT, "/bkt/copy").header("x-amz-copy-source", "bkt/in/photo.jpg").send().await;
    assert_eq!(copied.status, 200, "{copied:?}");

    std::fs::write(&path, bytes(300_001, 1)).unwrap();
    let changed = w.get("/bkt/in/photo.jpg").await;
    assert_eq!(changed.error(), (409, "SourceChanged".into()));
    assert!(changed.text("Message").contains("photo.jpg"));
    assert!(w.get("/bkt/copy").await.body == bytes(300_000, 1), "a copy is a copy");
    std::fs::remove_file(&path).unwrap();
    assert_eq!(w.get("/bkt/in/photo.jpg").await.error(), (409, "SourceChanged".into()));
    w.delete("/bkt/in/photo.jpg").await;
    assert!(source.path().exists());
    let folder = w.objects.import_file("bkt", "folder", source.path()).await.unwrap_err();
    assert!(matches!(folder, ObjectsError::InvalidArgument(_)));
}

#[tokio::test]
async fn a_file_and_a_stream_are_put_in_process() {
    let w = world().await;
    let source = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(source.path(), bytes(1_000_000, 4)).unwrap();
    let put = w.objects.put_file("bkt", "report.csv", Some("text/csv"), source.path()).await.unwrap();
    assert_eq!((put.size, put.etag), (1_000_000, md5(&bytes(1_000_000, 4))));
    let got = w.get("/bkt/report.csv").await;
    assert_eq!((got.body.len(), got.header("content-type")), (1_000_000, "text/csv"));
    let ranged = w.objects.get_range("bkt", "report.csv", None, 5..10).await.unwrap();
    let piece: Vec<_> = ranged.stream.collect().await;
    assert_eq!(piece[0].as_ref().unwrap(), &bytes(1_000_000, 4)[5..10]);
    let page = w.objects.list("bkt", ListQuery { max: 10, ..ListQuery::default() }).await.unwrap();
    assert_eq!(page.items[0].key, "report.csv");
    let missing = w.objects.get("bkt", "none", None).await.unwrap_err();
    assert_eq!((&*missing.told().code, missing.passing()), ("NoSuchKey", false));
}
