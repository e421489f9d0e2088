//! Against a server that misbehaves: what it sends is scripted, request by request, and what it was asked is kept.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use longshore_jobs::ports::{Encryption, ListQuery, ObjectError, Objects, PutBody, PutTerms};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::objects::{PART_BYTES_MIN, check_names};
use crate::{CredentialSource, Endpoint, Patience, RemoteObjects, http_client};

fn hurried() -> Patience {
    let short = Duration::from_millis(500);
    let first_retry = Duration::from_millis(1);
    // An upload is 16 MiB, hashed without optimization.
    let upload = Duration::from_secs(20);
    Patience { connect: short, attempt: short, upload, piece: short, tries: 3, first_retry }
}

/// What the server does with one request, after it was read.
#[derive(Clone)]
enum Act {
    /// Sends this, and closes.
    Send(Vec<u8>),
    /// Sends this, and says nothing more until the client hangs up.
    Stall(Vec<u8>),
    /// Sends this, and resets the connection.
    Reset(Vec<u8>),
    /// Sends a head and then without end.
    Flood(Vec<u8>),
}

const PLAIN: PutTerms<'_> = PutTerms { content_type: "text/csv", encryption: &Encryption::Unasked };

struct Store {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Store {
    /// The last act is repeated for ever.
    async fn of(acts: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let kept = asked.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acts, kept) = (acts.clone(), kept.clone());
                tokio::spawn(async move {
                    let _ = serve(stream, &acts, &kept).await;
                });
            }
        });
        Self { url, asked }
    }

    async fn objects(&self) -> RemoteObjects {
        let endpoint = Endpoint {
            name: "bad".into(),
            url: Some(self.url.clone()),
            region: Some("us-east-1".into()),
            path_style: true,
            credentials: CredentialSource::Given {
                access_key_id: "AKID".into(),
                secret_access_key: "secret".into(),
                session_token: None,
            },
        };
        endpoint.open(&http_client(), hurried()).await
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, acts: &[Act], asked: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse::<u64>().ok()).unwrap_or(0);
    if head.contains("expect: 100-continue") {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    tokio::io::copy(&mut (&mut stream).take(length), &mut tokio::io::sink()).await?;
    let act = {
        let mut asked = asked.lock().unwrap();
        asked.push(head);
        acts[(asked.len() - 1).min(acts.len() - 1)].clone()
    };
    match act {
        Act::Send(bytes) => stream.write_all(&bytes).await,
        Act::Stall(bytes) => {
            stream.write_all(&bytes).await?;
            stream.read_u8().await.map(drop)
        }
        Act::Reset(bytes) => {
            stream.write_all(&bytes).await?;
            stream.set_zero_linger()
        }
        Act::Flood(bytes) => {
            stream.write_all(&bytes).await?;
            loop {
                stream.write_all(&[b' '; 65_536]).await?;
            }
        }
    }
}

fn answer(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
        .into_bytes()
}

fn xml(body: &str) -> Act {
    Act::Send(answer("200 OK", "Content-Type: application/xml\r\n", &format!("<?xml version=\"1.0\"?>{body}")))
}

fn error(status: &str, code: &str) -> Act {
    Act::Send(answer(status, "", &format!("<Error><Code>{code}</Code><Message>said</Message></Error>")))
}

/// The head of an object of 10 bytes and as much of its body as was asked for.
fn object(etag: &str, sent: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 10\r\nETag: \"{etag}\"\r\n\r\n{sent}").into_bytes()
}

fn rest(etag: &str, from: usize, sent: &str) -> Vec<u8> {
    let length = 10 - from;
    format!(
        "HTTP/1.1 206 Partial Content\r\nConnection: close\r\nContent-Length: {length}\r\nETag: \"{etag}\"\r\n\
         Content-Range: bytes {from}-9/10\r\n\r\n{sent}"
    )
    .into_bytes()
}

async fn read(store: &Store) -> Result<String, ObjectError> {
    let opened = store.objects().await.get("bucket", "key", None).await?;
    let pieces: Vec<Bytes> = opened.stream.try_collect().await?;
    Ok(String::from_utf8(pieces.concat()).unwrap())
}

#[tokio::test]
async fn a_body_that_breaks_off_goes_on_at_that_byte_of_that_object() {
    let begins: [fn(Vec<u8>) -> Act; 3] = [Act::Send, Act::Reset, Act::Stall];
    for begin in begins {
        let store = Store::of(vec![begin(object("e", "0123")), Act::Send(rest("e", 4, "456789"))]).await;
        // What a reset swallows on its way is asked for again too.
        let read = read(&store).await;
        let asked = store.asked();
        if let Ok(whole) = read {
            assert_eq!(whole, "0123456789");
            assert!(asked[1].contains("range: bytes=4-\r\n") && asked[1].contains("if-match: \"e\"\r\n"), "{asked:?}");
        } else {
            assert!(!asked[1].contains("range: bytes=4-"), "{asked:?}");
        }
    }
}

#[tokio::test]
async fn a_version_is_read_on_by_its_name_and_needs_no_condition() {
    let mut first = object("e", "0123");
    let at = first.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    first.splice(at..at, b"\r\nx-amz-version-id: v1".iter().copied());
    let store = Store::of(vec![Act::Send(first), Act::Send(rest("e", 4, "456789"))]).await;
    assert_eq!(read(&store).await.unwrap(), "0123456789");
    let second = &store.asked()[1];
    assert!(second.contains("versionId=v1") && !second.contains("if-match"), "{second}");
}

#[tokio::test]
async fn a_body_is_never_made_of_two_objects() {
    let changed = [Act::Send(rest("other", 4, "456789")), error("412 Precondition Failed", "PreconditionFailed")];
    for second in changed {
        let error = read(&Store::of(vec![Act::Send(object("e", "0123")), second]).await).await.unwrap_err();
        assert!(error.code == "PreconditionFailed", "{error}");
    }
    // The whole again, or another part of it, in place of the rest.
    for second in [Act::Send(object("e", "0123456789")), Act::Send(rest("e", 3, "3456789"))] {
        let error = read(&Store::of(vec![Act::Send(object("e", "0123")), second]).await).await.unwrap_err();
        assert!(error.code == "IncompleteBody" && error.passing, "{error}");
    }
}

#[tokio::test]
async fn a_body_that_always_ends_early_is_an_error_and_never_a_short_object() {
    let store = Store::of(vec![Act::Send(object("e", "0123")), Act::Send(rest("e", 4, ""))]).await;
    let error = read(&store).await.unwrap_err();
    assert!(error.code == "IncompleteBody" && error.passing, "{error}");
    assert_eq!(store.asked().len(), 6, "once, and five times more");
}

#[tokio::test]
async fn a_body_without_a_length_is_refused() {
    let unsized_body = b"HTTP/1.1 200 OK\r\nConnection: close\r\nETag: \"e\"\r\n\r\n0123".to_vec();
    let error = read(&Store::of(vec![Act::Send(unsized_body)]).await).await.unwrap_err();
    assert_eq!(error.code, "InvalidResponse");
}

#[tokio::test]
async fn a_store_that_is_busy_or_broken_is_asked_again_a_few_times() {
    let busy = [
        error("503 Slow Down", "SlowDown"),
        error("500 Internal Server Error", "InternalError"),
        Act::Reset(Vec::new()),
        Act::Stall(Vec::new()),
    ];
    for (n, busy) in busy.into_iter().enumerate() {
        let store = Store::of(vec![busy.clone(), busy.clone(), Act::Send(object("e", "0123456789"))]).await;
        assert_eq!(read(&store).await.unwrap(), "0123456789", "{n}");
        let store = Store::of(vec![busy]).await;
        let error = read(&store).await.unwrap_err();
        assert!(error.passing, "{n}: {error}");
        assert_eq!(store.asked().len(), 3, "{n}");
    }
}

#[tokio::test]
async fn a_refusal_is_told_in_the_stores_words_and_at_once() {
    let store = Store::of(vec![error("403 Forbidden", "AccessDenied")]).await;
    let refused = read(&store).await.unwrap_err();
    assert_eq!((refused.code.as_str(), refused.message.as_str(), refused.passing), ("AccessDenied", "said", false));
    assert_eq!(store.asked().len(), 1);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Store::of(vec![Act::Send(object("e", "0123456789"))]).await;
    let location = format!("Location: {}/bucket/key\r\n", elsewhere.url);
    let store = Store::of(vec![Act::Send(answer("307 Temporary Redirect", &location, ""))]).await;
    assert_eq!(read(&store).await.unwrap_err().code, "PermanentRedirect");
    assert!(elsewhere.asked().is_empty());
}

#[tokio::test]
async fn a_name_that_leads_elsewhere_is_refused_before_anybody_is_asked() {
    let store = Store::of(vec![Act::Send(object("e", "0123456789"))]).await;
    let objects = store.objects().await;
    for bucket in
        ["arn:aws:s3:us-east-1:123456789012:accesspoint/x", "a/b", "x--use1-az4--x-s3", "a", "..", "a..b", "b@c"]
    {
        assert_eq!(objects.get(bucket, "k", None).await.err().unwrap().code, "InvalidBucketName", "{bucket}");
    }
    for key in ["../other/key", "a/./b", "..", ""] {
        assert!(objects.get("bucket", key, None).await.is_err(), "{key}");
    }
    assert!(store.asked().is_empty());
    for (bucket, key) in [("data.2026_a", "a..b/...c"), ("abc", "/a//b")] {
        check_names(bucket, Some(key)).unwrap();
    }
}

#[tokio::test]
async fn without_credentials_nobody_is_asked_and_the_reason_is_told() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("credentials");
    std::fs::write(&file, "[other]\naws_access_key_id = A\naws_secret_access_key = B\n").unwrap();
    let store = Store::of(vec![Act::Send(object("e", "0123456789"))]).await;
    let endpoint = |name: &str| Endpoint {
        name: "bad".into(),
        url: Some(store.url.clone()),
        region: Some("us-east-1".into()),
        path_style: true,
        credentials: CredentialSource::Profile { name: name.into(), file: Some(file.clone()) },
    };
    let lacking = endpoint("lacking").open(&http_client(), hurried()).await;
    let error = lacking.get("bucket", "key", None).await.err().unwrap();
    assert!(error.code == "AccessDenied" && !error.passing && error.message.contains("endpoint bad"), "{error}");
    assert!(store.asked().is_empty());
    let other = endpoint("other").open(&http_client(), hurried()).await;
    assert_eq!(other.credentials().get().await.unwrap().unwrap().access_key_id, "A");
    other.get("bucket", "key", None).await.unwrap();
    assert!(store.asked()[0].contains("Credential=A/"), "{:?}", store.asked());
}

const LIST: &str = "<ListBucketResult><IsTruncated>";

fn listing(truncated: bool, more: &str) -> Act {
    xml(&format!(
        "{LIST}{truncated}</IsTruncated><EncodingType>url</EncodingType>{more}<Contents><Key>a+b%2Bc%2F%C3%BC</Key>\
         <LastModified>2026-01-02T03:04:05.678Z</LastModified><Size>7</Size></Contents></ListBucketResult>"
    ))
}

async fn list(store: &Store, query: ListQuery) -> Result<longshore_jobs::ports::ListPage, ObjectError> {
    store.objects().await.list("bucket", &query).await
}

#[tokio::test]
async fn a_listing_is_decoded_and_its_pages_lead_on() {
    let more = "<NextContinuationToken>t2</NextContinuationToken>";
    let store = Store::of(vec![listing(true, more), page_of(0, &["b"])]).await;
    let query = ListQuery { prefix: "a b".into(), ..ListQuery::default() };
    let page = list(&store, query.clone()).await.unwrap();
    let object = &page.objects[0];
    assert_eq!((object.key.as_str(), object.size, object.modified_ms), ("a b+c/ü", 7, 1_767_323_045_678));
    assert_eq!((object.storage_class.as_str(), object.version_id.as_deref()), ("STANDARD", None));
    let page = list(&store, ListQuery { after: page.next, ..query }).await.unwrap();
    assert_eq!(page.next, None);
    assert!(store.asked()[1].contains("continuation-token=t2"), "{:?}", store.asked());
}

#[tokio::test]
async fn a_listing_that_does_not_hold_together_is_an_error() {
    let whole = "<Contents><Key>k</Key><LastModified>2026-01-02T03:04:05Z</LastModified><Size>1</Size></Contents>";
    let cases = [
        ("there is more, and not where", xml(&format!("{LIST}true</IsTruncated>{whole}</ListBucketResult>"))),
        (
            "an entry without a key",
            xml(&format!("{LIST}false</IsTruncated><Contents><Size>1</Size></Contents></ListBucketResult>")),
        ),
        (
            "an entry without a size",
            xml(&format!("{LIST}false</IsTruncated>{}</ListBucketResult>", whole.replace("<Size>1</Size>", ""))),
        ),
        ("another document", xml("<html><body>welcome</body></html>")),
        ("no XML", Act::Send(answer("200 OK", "", "welcome"))),
        ("half of it", xml(&format!("{LIST}false</IsTruncated>{whole}"))),
    ];
    for (what, act) in cases {
        let error = list(&Store::of(vec![act]).await, ListQuery::default()).await.unwrap_err();
        assert!(error.code == "InvalidResponse" && error.passing, "{what}: {error}");
    }
    let more = "<NextContinuationToken>t2</NextContinuationToken>";
    let empty = |more: &str| {
        xml(&format!(
            "{LIST}true</IsTruncated><NextContinuationToken>{more}</NextContinuationToken></ListBucketResult>"
        ))
    };
    let circle = Store::of(vec![listing(true, more), empty("t2")]).await;
    let error = listed(&circle, false).await.unwrap_err();
    assert!(error.message.contains("leads to itself") && !error.passing, "{error}");
}

/// Keys and versions of all pages.
async fn listed(store: &Store, versions: bool) -> Result<Vec<(String, Option<String>)>, ObjectError> {
    let mut query = ListQuery { versions, ..ListQuery::default() };
    let mut all = Vec::new();
    loop {
        let page = list(store, query.clone()).await?;
        all.extend(page.objects.into_iter().map(|object| (object.key, object.version_id)));
        match page.next {
            Some(next) => query.after = Some(next),
            None => return Ok(all),
        }
    }
}

/// A page that says there is more, at a place of its own.
fn page_of(number: usize, keys: &[&str]) -> Act {
    let entry = |key: &&str| {
        format!("<Contents><Key>{key}</Key><LastModified>2026-01-02T03:04:05Z</LastModified><Size>1</Size></Contents>")
    };
    let entries: String = keys.iter().map(entry).collect();
    let more =
        if number == 0 { "false".to_owned() } else { format!("true</IsTruncated><NextContinuationToken>t{number}") };
    let end = if number == 0 { "IsTruncated" } else { "NextContinuationToken" };
    xml(&format!("{LIST}{more}</{end}>{entries}</ListBucketResult>"))
}

/// As [`page_of`], of versions: `key@version`.
fn versions_of(number: usize, versions: &[&str]) -> Act {
    let entry = |version: &&str| {
        let (key, id) = version.split_once('@').unwrap();
        format!(
            "<Version><Key>{key}</Key><VersionId>{id}</VersionId><IsLatest>false</IsLatest>\
             <LastModified>2026-01-02T03:04:05Z</LastModified><Size>1</Size></Version>"
        )
    };
    let entries: String = versions.iter().map(entry).collect();
    let more = match number {
        0 => "false</IsTruncated>".to_owned(),
        _ => format!(
            "true</IsTruncated><NextKeyMarker>m</NextKeyMarker><NextVersionIdMarker>{number}</NextVersionIdMarker>"
        ),
    };
    xml(&format!("<ListVersionsResult><IsTruncated>{more}{entries}</ListVersionsResult>"))
}

#[tokio::test]
async fn a_listing_that_goes_back_is_refused_for_good_and_one_that_goes_on_is_not() {
    let behind = "do not come behind those of the page before";
    for (pages, wanted) in [
        (vec![page_of(1, &["a", "b"]), page_of(2, &[]), page_of(0, &["c"])], Ok(3)),
        // By folder: not in S3's order, and no key comes twice.
        (vec![page_of(1, &["a/b", "a-b"]), page_of(0, &["b"])], Ok(3)),
        (vec![page_of(1, &["a", "b"]), page_of(2, &["a", "b"])], Err(behind)),
        (vec![page_of(1, &["a", "b"]), page_of(0, &["b", "c"])], Err(behind)),
        (vec![page_of(1, &["a", "c"]), page_of(2, &[]), page_of(0, &["b"])], Err(behind)),
    ] {
        told_of(&Store::of(pages).await, false, wanted).await;
    }
    for (pages, wanted) in [
        (vec![versions_of(1, &["a@2", "a@1"]), versions_of(2, &["a@0", "b@1"]), versions_of(0, &["b@0"])], Ok(5)),
        (vec![versions_of(1, &["a@null", "b@2"]), versions_of(0, &["b@null"])], Ok(3)),
        // The end of the page before once more, as Ceph has it.
        (vec![versions_of(1, &["a@2", "a@1"]), versions_of(0, &["a@1", "b@1"])], Ok(3)),
        (vec![versions_of(1, &["a@1", "b@1"]), versions_of(2, &["a@1", "b@1"])], Err(behind)),
        (vec![versions_of(1, &["a@2", "a@1"]), versions_of(2, &["a@2", "a@1"])], Err(behind)),
        (
            vec![versions_of(1, &["a@3", "a@2"]), versions_of(2, &["a@1", "a@0"]), versions_of(3, &["a@3", "a@2"])],
            Err(behind),
        ),
    ] {
        told_of(&Store::of(pages).await, true, wanted).await;
    }
}

#[tokio::test]
async fn a_listing_of_empty_pages_without_end_is_refused_for_good() {
    for (versions, page, after) in
        [(false, page_of as fn(usize, &[&str]) -> Act, "t1\0a\0"), (true, versions_of, "m\x001\0a\0v\0a\0v\0")]
    {
        let store = Store::of(vec![page(2, &[]), page(3, &[]), page(4, &["b@1"]), page(5, &[])]).await;
        let mut query = ListQuery { versions, after: Some(format!("{after}999")), ..ListQuery::default() };
        query.after = list(&store, query.clone()).await.unwrap().next;
        assert!(query.after.as_deref().unwrap().ends_with("\x001000"), "{query:?}");
        let error = list(&store, query.clone()).await.unwrap_err();
        assert!(error.message.contains("1000 pages in a row have no entries") && !error.passing, "{error}");
        // An entry begins the count anew.
        query.after = list(&store, query.clone()).await.unwrap().next;
        assert!(list(&store, query).await.unwrap().next.unwrap().ends_with("\x001"));
    }
}

async fn told_of(store: &Store, versions: bool, wanted: Result<usize, &str>) {
    match (listed(store, versions).await, wanted) {
        (Ok(all), Ok(count)) => assert_eq!(all.len(), count, "{all:?}"),
        (Err(error), Err(what)) => {
            assert!(error.message.contains(what) && error.code == "InvalidResponse" && !error.passing, "{error}");
        }
        (listed, wanted) => panic!("{listed:?}, not {wanted:?}"),
    }
}

#[tokio::test]
async fn an_answer_without_end_is_given_up() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\n\r\n".to_vec();
    let store = Store::of(vec![Act::Flood(head)]).await;
    let refused = tokio::time::timeout(Duration::from_secs(60), list(&store, ListQuery::default()));
    assert!(refused.await.expect("it ends").unwrap_err().passing);
}

#[tokio::test]
async fn versions_and_delete_markers_come_in_one_order_and_pages_go_on_after_both_names() {
    let entry = |kind: &str, key: &str, id: &str, latest: bool, at: u32| {
        let size = if kind == "Version" { "<Size>3</Size>" } else { "" };
        format!(
            "<{kind}><Key>{key}</Key><VersionId>{id}</VersionId><IsLatest>{latest}</IsLatest>\
             <LastModified>2026-01-02T03:04:{at:02}Z</LastModified>{size}</{kind}>"
        )
    };
    let page = xml(&format!(
        "<ListVersionsResult><IsTruncated>true</IsTruncated><EncodingType>url</EncodingType><NextKeyMarker>c+c</NextKeyMarker>\
         <NextVersionIdMarker>1</NextVersionIdMarker>{}{}{}{}{}</ListVersionsResult>",
        entry("DeleteMarker", "a", "2", true, 9),
        entry("Version", "a", "1", false, 1),
        entry("Version", "b", "null", true, 1),
        entry("DeleteMarker", "b", "5", false, 1),
        entry("Version", "c+c", "1", true, 1),
    ));
    let store = Store::of(vec![page]).await;
    let query = ListQuery { versions: true, ..ListQuery::default() };
    let page = list(&store, query.clone()).await.unwrap();
    let order: Vec<_> =
        page.objects.iter().map(|o| (o.key.as_str(), o.version_id.as_deref().unwrap(), o.is_delete_marker)).collect();
    assert_eq!(
        order,
        [("a", "2", true), ("a", "1", false), ("b", "null", false), ("b", "5", true), ("c c", "1", false)]
    );
    // The same page once more, which a store may not send.
    let error = list(&store, ListQuery { after: page.next.clone(), ..query.clone() }).await.unwrap_err();
    assert!(error.message.contains("do not come behind"), "{error}");
    let second = &store.asked()[1];
    assert!(second.contains("key-marker=c%20c") && second.contains("version-id-marker=1"), "{second}");
}

/// A file of one part and a byte, and the put of it.
async fn put_large(store: &Store) -> Result<String, ObjectError> {
    put_large_on(store, PLAIN).await
}

async fn put_large_on(store: &Store, terms: PutTerms<'_>) -> Result<String, ObjectError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(PART_BYTES_MIN + 1).unwrap();
    let body = PutBody::File(file.path().to_owned(), PART_BYTES_MIN + 1);
    store.objects().await.put("bucket", "key", terms, body).await
}

fn part() -> Act {
    Act::Send(answer("200 OK", "ETag: \"p\"\r\n", ""))
}

const BEGUN: &str = "<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>";

#[tokio::test]
async fn a_large_file_is_put_in_parts() {
    let ended = xml("<CompleteMultipartUploadResult><ETag>\"e-2\"</ETag></CompleteMultipartUploadResult>");
    let store = Store::of(vec![xml(BEGUN), part(), part(), ended]).await;
    assert_eq!(put_large(&store).await.unwrap(), "\"e-2\"");
    let asked = store.asked();
    assert_eq!(asked.len(), 4);
    assert!(asked[1..3].iter().any(|a| a.contains("partNumber=2") && a.contains("content-length: 1\r\n")), "{asked:?}");
    assert!(asked[1..3].iter().all(|a| !a.contains("UNSIGNED-PAYLOAD")), "the parts' hashes are signed");
}

#[tokio::test]
async fn the_etag_that_a_store_leaves_out_of_a_completed_upload_is_asked_for() {
    let bare = || xml("<CompleteMultipartUploadResult><ETag></ETag></CompleteMultipartUploadResult>");
    let head = |length: u64| {
        Act::Send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nETag: \"e-2\"\r\n\r\n").into_bytes())
    };
    let store = Store::of(vec![xml(BEGUN), part(), part(), bare(), head(PART_BYTES_MIN + 1)]).await;
    assert_eq!(put_large(&store).await.unwrap(), "\"e-2\"");
    let store = Store::of(vec![xml(BEGUN), part(), part(), bare(), head(7), part()]).await;
    assert_eq!(put_large(&store).await.unwrap_err().code, "InvalidResponse", "another length");
}

#[tokio::test]
async fn an_upload_that_fails_is_aborted_even_if_its_failure_looks_like_success() {
    let failed = "<?xml version=\"1.0\"?><Error><Code>InternalError</Code><Message>no</Message></Error>";
    let ends = [
        (Act::Send(answer("200 OK", "", failed)), "InternalError"),
        (error("400 Bad Request", "InvalidPart"), "InvalidPart"),
        (xml("<CompleteMultipartUploadResult></CompleteMultipartUploadResult>"), "InvalidResponse"),
    ];
    for (end, code) in ends {
        let mut acts = vec![xml(BEGUN), part(), part()];
        acts.extend([end.clone(), end.clone(), end]);
        let store = Store::of(acts).await;
        let error = put_large(&store).await.unwrap_err();
        assert_eq!(error.code, code);
        let last = store.asked().pop().unwrap();
        assert!(last.starts_with("DELETE /bucket/key?") && last.contains("uploadId=u1"), "{code}: {last}");
    }
}

#[tokio::test]
async fn a_put_is_repeated_after_a_reset_and_needs_an_etag() {
    let put = |acts| async {
        let store = Store::of(acts).await;
        let put = store.objects().await.put("bucket", "key", PLAIN, PutBody::Bytes(Bytes::from_static(b"row"))).await;
        (put, store.asked().len())
    };
    let (done, asked) = put(vec![Act::Reset(Vec::new()), part()]).await;
    assert_eq!((done.unwrap().as_str(), asked), ("\"p\"", 2));
    let (failed, _) = put(vec![Act::Send(answer("200 OK", "", ""))]).await;
    assert_eq!(failed.unwrap_err().code, "InvalidResponse");
}

const ALGORITHM: &str = "x-amz-server-side-encryption: ";
const KMS_KEY: &str = "x-amz-server-side-encryption-aws-kms-key-id: ";

/// The value of a header of a request.
fn header<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    request.lines().find_map(|line| line.strip_prefix(name))
}

fn on(encryption: &Encryption) -> PutTerms<'_> {
    PutTerms { content_type: "text/csv", encryption }
}

#[tokio::test]
async fn an_encryption_is_asked_for_with_the_object_and_with_the_begin_of_an_upload() {
    let kms = |key_id: Option<&str>| Encryption::SseKms { key_id: key_id.map(str::to_owned) };
    for (encryption, algorithm, key) in [
        (Encryption::Unasked, None, None),
        (Encryption::SseS3, Some("AES256"), None),
        (kms(None), Some("aws:kms"), None),
        (kms(Some("arn:k")), Some("aws:kms"), Some("arn:k")),
    ] {
        let confirmed = algorithm.map_or(String::new(), |algorithm| format!("{ALGORITHM}{algorithm}\r\n"));
        let whole = Act::Send(answer("200 OK", &format!("ETag: \"p\"\r\n{confirmed}"), ""));
        let store = Store::of(vec![whole]).await;
        let body = PutBody::Bytes(Bytes::from_static(b"row"));
        store.objects().await.put("bucket", "key", on(&encryption), body).await.unwrap();
        let begun = Act::Send(answer("200 OK", &confirmed, BEGUN));
        let ended = xml("<CompleteMultipartUploadResult><ETag>\"e-2\"</ETag></CompleteMultipartUploadResult>");
        let parts = Store::of(vec![begun, part(), part(), ended]).await;
        put_large_on(&parts, on(&encryption)).await.unwrap();
        assert!(parts.asked()[0].starts_with("POST /bucket/key?uploads"), "{:?}", parts.asked());
        for asked in [&store.asked()[0], &parts.asked()[0]] {
            assert_eq!((header(asked, ALGORITHM), header(asked, KMS_KEY)), (algorithm, key), "{asked}");
            assert_eq!(header(asked, "content-type: "), Some("text/csv"));
        }
        for asked in &parts.asked()[1..] {
            assert_eq!(header(asked, ALGORITHM), None, "S3 refuses it here: {asked}");
        }
    }
}

#[tokio::test]
async fn a_store_that_passes_over_an_encryption_is_not_believed_and_gets_no_part() {
    let other = format!("{ALGORITHM}aws:kms\r\n");
    for confirmed in ["", &other] {
        let store = Store::of(vec![Act::Send(answer("200 OK", &format!("ETag: \"p\"\r\n{confirmed}"), ""))]).await;
        let body = PutBody::Bytes(Bytes::from_static(b"row"));
        let error = store.objects().await.put("bucket", "key", on(&Encryption::SseS3), body).await.unwrap_err();
        assert_eq!((error.code.as_str(), error.passing), ("NotEncrypted", false), "{error}");
        assert!(error.message.contains("asked for the encryption AES256, it answered with"), "{error}");

        let store = Store::of(vec![Act::Send(answer("200 OK", confirmed, BEGUN)), part()]).await;
        let error = put_large_on(&store, on(&Encryption::SseS3)).await.unwrap_err();
        assert_eq!((error.code.as_str(), error.passing), ("NotEncrypted", false), "{error}");
        let asked = store.asked();
        assert_eq!(asked.len(), 2, "{asked:?}");
        assert!(asked[1].starts_with("DELETE /bucket/key?") && asked[1].contains("uploadId=u1"), "{asked:?}");
    }
}

#[tokio::test]
async fn a_store_that_refuses_an_encryption_is_asked_once_and_quoted() {
    let store = Store::of(vec![error("501 Not Implemented", "NotImplemented")]).await;
    let body = PutBody::Bytes(Bytes::from_static(b"row"));
    let refused = store.objects().await.put("bucket", "key", on(&Encryption::SseS3), body).await.unwrap_err();
    assert_eq!((refused.to_string(), refused.passing), ("NotImplemented: said".into(), false));
    assert_eq!(store.asked().len(), 1);
}

#[tokio::test]
async fn facts_come_from_head_and_a_customers_key_from_the_words_of_get() {
    let head = "x-amz-server-side-encryption: aws:kms\r\nx-amz-server-side-encryption-aws-kms-key-id: arn:k\r\n\
                x-amz-server-side-encryption-bucket-key-enabled: true\r\nx-amz-replication-status: PENDING\r\n";
    let store = Store::of(vec![Act::Send(answer("200 OK", head, ""))]).await;
    let facts = store.objects().await.facts("bucket", "key", Some("v")).await.unwrap();
    assert_eq!((facts.encryption.as_deref(), facts.kms_key_arn.as_deref()), (Some("aws:kms"), Some("arn:k")));
    assert_eq!((facts.bucket_key_enabled, facts.replication_status.as_deref()), (true, Some("PENDING")));
    assert!(store.asked()[0].contains("versionId=v"));

    let said = "<Error><Code>InvalidRequest</Code><Message>The object was stored using a form of Server Side Encryption. \
                The correct parameters must be provided to retrieve the object.</Message></Error>";
    let bare = || Act::Send(answer("400 Bad Request", "", ""));
    let store = Store::of(vec![bare(), Act::Send(answer("400 Bad Request", "", said))]).await;
    assert!(store.objects().await.facts("bucket", "key", None).await.unwrap().customer_key);
    let store = Store::of(vec![bare(), error("400 Bad Request", "ExpiredToken")]).await;
    assert_eq!(store.objects().await.facts("bucket", "key", None).await.unwrap_err().code, "ExpiredToken");
}

#[tokio::test]
async fn the_owner_of_a_bucket_is_the_stores_word() {
    let store = Store::of(vec![Act::Send(answer("200 OK", "", "")), Act::Send(answer("403 Forbidden", "", ""))]).await;
    let objects = store.objects().await;
    objects.check_owner("bucket", "123456789012").await.unwrap();
    assert!(store.asked()[0].contains("x-amz-expected-bucket-owner: 123456789012"));
    assert_eq!(objects.check_owner("bucket", "123456789012").await.unwrap_err().code, "AccessDenied");
    let store = Store::of(vec![Act::Send(answer("404 Not Found", "", ""))]).await;
    assert_eq!(store.objects().await.check_owner("bucket", "123456789012").await.unwrap_err().code, "NoSuchBucket");
}

/// The whole door against a real store: `LONGSHORE_TEST_STORE` is its URL, an access key and a secret. `qa/long peers`
/// runs it for every store that it can start.
#[tokio::test]
#[ignore = "needs a store: LONGSHORE_TEST_STORE=\"URL KEY SECRET\""]
async fn a_real_store_is_read_written_and_listed_as_the_engine_does() {
    let place = std::env::var("LONGSHORE_TEST_STORE").expect("LONGSHORE_TEST_STORE");
    let words: Vec<&str> = place.split(' ').collect();
    let (access_key_id, secret_access_key) = (words[1].to_owned(), words[2].to_owned());
    let endpoint = Endpoint {
        name: "real".into(),
        url: Some(words[0].to_owned()),
        region: Some("us-east-1".into()),
        path_style: true,
        credentials: CredentialSource::Given { access_key_id, secret_access_key, session_token: None },
    };
    let store = endpoint.open(&http_client(), Patience::default()).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let bucket = format!("door-{}", now.as_nanos());
    store.for_tests().create_bucket().bucket(&bucket).send().await.unwrap();

    // Whole and in parts, and back; keys that need each their own encoding.
    let keys = ["a b+c/ü%.txt", "plain", "q\"uote,;@&=~", "x/y/z"];
    for key in keys {
        let etag = store.put(&bucket, key, PLAIN, PutBody::Bytes(Bytes::from(key))).await.unwrap();
        let opened = store.get(&bucket, key, None).await.unwrap();
        assert_eq!(opened.etag, etag, "{key}");
        assert_eq!(opened.stream.try_collect::<Vec<_>>().await.unwrap().concat(), key.as_bytes());
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let content: Vec<u8> = (0..PART_BYTES_MIN + 12_345).map(|n| (n / 7 % 251) as u8).collect();
    std::fs::write(file.path(), &content).unwrap();
    let large = PutBody::File(file.path().to_owned(), content.len() as u64);
    let etag = store.put(&bucket, "z-large", PLAIN, large).await.unwrap();
    let opened = store.get(&bucket, "z-large", None).await.unwrap();
    assert_eq!((opened.etag, opened.size), (etag, Some(content.len() as u64)));
    assert!(
        opened.stream.try_collect::<Vec<_>>().await.unwrap().concat() == content,
        "what was put in parts comes back"
    );

    // Listed over more than one page, by prefix, and decoded.
    for n in 0..1_005 {
        let key = format!("many/{n:04} +");
        store.put(&bucket, &key, PLAIN, PutBody::Bytes(Bytes::new())).await.unwrap();
    }
    let whole = |prefix: &'static str, versions: bool| {
        let (store, bucket) = (&store, &bucket);
        async move {
            let mut query = ListQuery { prefix: prefix.into(), versions, after: None };
            let mut found = Vec::new();
            loop {
                let page = store.list(bucket, &query).await?;
                found.extend(page.objects);
                match page.next {
                    None => return Ok::<_, ObjectError>(found),
                    next => query.after = next,
                }
            }
        }
    };
    let many = whole("many/", false).await.unwrap();
    let names: Vec<String> = (0..1_005).map(|n| format!("many/{n:04} +")).collect();
    assert_eq!(many.iter().map(|o| o.key.clone()).collect::<Vec<_>>(), names);
    let mut all: Vec<String> = whole("", false).await.unwrap().into_iter().map(|o| o.key).collect();
    all.sort_unstable();
    let mut wanted: Vec<String> = names.clone();
    wanted.extend(keys.iter().map(|k| (*k).to_owned()).chain(["z-large".to_owned()]));
    wanted.sort_unstable();
    assert_eq!(all, wanted);

    // What is not there, who may, and what is known.
    assert_eq!(store.get(&bucket, "none", None).await.err().unwrap().code, "NoSuchKey");
    assert_eq!(store.get("door-none", "none", None).await.err().unwrap().code, "NoSuchBucket");
    assert_eq!(store.facts(&bucket, "none", None).await.unwrap_err().code, "NoSuchKey");
    assert!(!store.facts(&bucket, "plain", None).await.unwrap().customer_key);
    assert_eq!(store.check_owner("door-none", "000000000000").await.unwrap_err().code, "NoSuchBucket");

    // Versions, in one order with the markers.
    let enabled = aws_sdk_s3::types::VersioningConfiguration::builder()
        .status(aws_sdk_s3::types::BucketVersioningStatus::Enabled)
        .build();
    let versioning = store.for_tests().put_bucket_versioning().bucket(&bucket).versioning_configuration(enabled);
    versioning.send().await.unwrap();
    for body in ["one", "two!"] {
        store.put(&bucket, "v/ü +", PLAIN, PutBody::Bytes(Bytes::from(body))).await.unwrap();
    }
    store.for_tests().delete_object().bucket(&bucket).key("v/ü +").send().await.unwrap();
    let versions = whole("v/", true).await.unwrap();
    let told: Vec<_> = versions.iter().map(|v| (v.key.as_str(), v.is_latest, v.is_delete_marker, v.size)).collect();
    assert_eq!(told, [("v/ü +", true, true, 0), ("v/ü +", false, false, 4), ("v/ü +", false, false, 3)]);
    let oldest = versions[2].version_id.as_deref();
    let opened = store.get(&bucket, "v/ü +", oldest).await.unwrap();
    assert_eq!(opened.stream.try_collect::<Vec<_>>().await.unwrap().concat(), b"one");
    assert_eq!(whole("many/", true).await.unwrap().len(), 1_005, "versions over more than one page");
}
