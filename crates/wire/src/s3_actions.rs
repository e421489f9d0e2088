//! Which permission a request of S3 needs: actions, resources and condition keys.
//!
//! The embedded S3 asks by the operation and the input that it is about to serve ([`on_object`], [`on_bucket`]); of a request that is handed
//! on to another store, which reads it by itself, everything is asked that any reader could take it for ([`of_request`]).
//! Source: Service Authorization Reference, "Actions, resources, and condition keys for Amazon S3"; S3 user guide, "Required permissions for
//! Amazon S3 API operations".

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::caller::Asked;
use crate::http::decode;

/// An action on an object, or where a version is named on that version: `("s3:GetObject", "s3:GetObjectVersion")`.
pub type Pair = (&'static str, &'static str);

pub const GET_OBJECT: Pair = ("s3:GetObject", "s3:GetObjectVersion");
pub const GET_OBJECT_TAGGING: Pair = ("s3:GetObjectTagging", "s3:GetObjectVersionTagging");
pub const PUT_OBJECT_TAGGING: Pair = ("s3:PutObjectTagging", "s3:PutObjectVersionTagging");
pub const DELETE_OBJECT_TAGGING: Pair = ("s3:DeleteObjectTagging", "s3:DeleteObjectVersionTagging");
pub const GET_OBJECT_ATTRIBUTES: Pair = ("s3:GetObjectAttributes", "s3:GetObjectVersionAttributes");
pub const DELETE_OBJECT: Pair = ("s3:DeleteObject", "s3:DeleteObjectVersion");
pub const PUT_OBJECT: &str = "s3:PutObject";
pub const BYPASS_GOVERNANCE: &str = "s3:BypassGovernanceRetention";

pub fn bucket_arn(bucket: &str) -> String {
    format!("arn:aws:s3:::{bucket}")
}

pub fn object_arn(bucket: &str, key: &str) -> String {
    format!("arn:aws:s3:::{bucket}/{key}")
}

pub fn on_bucket(action: &'static str, bucket: &str) -> Asked {
    Asked::new(action, bucket_arn(bucket))
}

pub fn on_object(action: &'static str, bucket: &str, key: &str) -> Asked {
    Asked::new(action, object_arn(bucket, key))
}

/// As [`on_object`], with the action for versions and `s3:VersionId` where one is named.
pub fn on_version((plain, versioned): Pair, bucket: &str, key: &str, version: Option<&str>) -> Asked {
    let action = if version.is_some() { versioned } else { plain };
    with_key(on_object(action, bucket, key), "s3:VersionId", version)
}

/// `s3:RequestObjectTag/…` and the names of all tags, of an object that comes with tags or is given some, or none.
pub fn with_request_tags<'t>(mut asked: Asked, tags: impl IntoIterator<Item = (&'t str, &'t str)>) -> Asked {
    let tags: Vec<_> = tags.into_iter().collect();
    let names: Vec<&str> = tags.iter().map(|(name, _)| *name).collect();
    asked.context = asked.context.with_all("s3:RequestObjectTagKeys", names).with_tags("s3:RequestObjectTag/", tags);
    asked
}

/// A key with the value that the request has for it. One that it has not is known to be missing: a condition on it is decided, not
/// unknown.
pub fn with_key(mut asked: Asked, key: &str, value: Option<&str>) -> Asked {
    asked.context = asked.context.with_all(key, value);
    asked
}

/// Sub-resources of an object: parameter; action to read, to write, to remove; each with its form for a version.
const OF_OBJECT: &[(&str, Pair, Pair, Pair)] = &[
    (
        "acl",
        ("s3:GetObjectAcl", "s3:GetObjectVersionAcl"),
        ("s3:PutObjectAcl", "s3:PutObjectVersionAcl"),
        ("s3:PutObjectAcl", "s3:PutObjectVersionAcl"),
    ),
    ("tagging", GET_OBJECT_TAGGING, PUT_OBJECT_TAGGING, DELETE_OBJECT_TAGGING),
    ("attributes", GET_OBJECT_ATTRIBUTES, OTHER, OTHER),
    ("legal-hold", same("s3:GetObjectLegalHold"), same("s3:PutObjectLegalHold"), same("s3:PutObjectLegalHold")),
    ("retention", same("s3:GetObjectRetention"), same("s3:PutObjectRetention"), same("s3:PutObjectRetention")),
    ("torrent", ("s3:GetObjectTorrent", "s3:GetObjectVersionTorrent"), OTHER, OTHER),
    ("restore", OTHER, same("s3:RestoreObject"), OTHER),
    ("select", OTHER, GET_OBJECT, OTHER),
    ("renameObject", OTHER, same(PUT_OBJECT), OTHER),
    ("encryption", OTHER, same("s3:UpdateObjectEncryption"), OTHER),
    ("annotation", OTHER, OTHER, OTHER),
];

/// Sub-resources of a bucket: parameter; action to read, to write, to remove.
const OF_BUCKET: &[(&str, &str, &str, &str)] = &[
    ("accelerate", "s3:GetAccelerateConfiguration", "s3:PutAccelerateConfiguration", "s3:PutAccelerateConfiguration"),
    ("acl", "s3:GetBucketAcl", "s3:PutBucketAcl", "s3:PutBucketAcl"),
    ("analytics", "s3:GetAnalyticsConfiguration", "s3:PutAnalyticsConfiguration", "s3:PutAnalyticsConfiguration"),
    ("cors", "s3:GetBucketCORS", "s3:PutBucketCORS", "s3:PutBucketCORS"),
    ("encryption", "s3:GetEncryptionConfiguration", "s3:PutEncryptionConfiguration", "s3:PutEncryptionConfiguration"),
    (
        "intelligent-tiering",
        "s3:GetIntelligentTieringConfiguration",
        "s3:PutIntelligentTieringConfiguration",
        "s3:PutIntelligentTieringConfiguration",
    ),
    ("inventory", "s3:GetInventoryConfiguration", "s3:PutInventoryConfiguration", "s3:PutInventoryConfiguration"),
    ("lifecycle", "s3:GetLifecycleConfiguration", "s3:PutLifecycleConfiguration", "s3:PutLifecycleConfiguration"),
    ("location", "s3:GetBucketLocation", UNKNOWN, UNKNOWN),
    ("logging", "s3:GetBucketLogging", "s3:PutBucketLogging", "s3:PutBucketLogging"),
    ("metadataConfiguration", UNKNOWN, UNKNOWN, UNKNOWN),
    ("metadataTable", UNKNOWN, UNKNOWN, UNKNOWN),
    ("metrics", "s3:GetMetricsConfiguration", "s3:PutMetricsConfiguration", "s3:PutMetricsConfiguration"),
    ("notification", "s3:GetBucketNotification", "s3:PutBucketNotification", "s3:PutBucketNotification"),
    (
        "object-lock",
        "s3:GetBucketObjectLockConfiguration",
        "s3:PutBucketObjectLockConfiguration",
        "s3:PutBucketObjectLockConfiguration",
    ),
    (
        "ownershipControls",
        "s3:GetBucketOwnershipControls",
        "s3:PutBucketOwnershipControls",
        "s3:PutBucketOwnershipControls",
    ),
    ("policy", "s3:GetBucketPolicy", "s3:PutBucketPolicy", "s3:DeleteBucketPolicy"),
    ("policyStatus", "s3:GetBucketPolicyStatus", UNKNOWN, UNKNOWN),
    (
        "publicAccessBlock",
        "s3:GetBucketPublicAccessBlock",
        "s3:PutBucketPublicAccessBlock",
        "s3:PutBucketPublicAccessBlock",
    ),
    (
        "replication",
        "s3:GetReplicationConfiguration",
        "s3:PutReplicationConfiguration",
        "s3:PutReplicationConfiguration",
    ),
    ("requestPayment", "s3:GetBucketRequestPayment", "s3:PutBucketRequestPayment", UNKNOWN),
    ("session", "s3express:CreateSession", UNKNOWN, UNKNOWN),
    ("tagging", "s3:GetBucketTagging", "s3:PutBucketTagging", "s3:PutBucketTagging"),
    ("uploads", "s3:ListBucketMultipartUploads", UNKNOWN, UNKNOWN),
    ("versioning", "s3:GetBucketVersioning", "s3:PutBucketVersioning", UNKNOWN),
    ("versions", "s3:ListBucketVersions", UNKNOWN, UNKNOWN),
    ("website", "s3:GetBucketWebsite", "s3:PutBucketWebsite", "s3:DeleteBucketWebsite"),
];

/// What no operation of S3 is known for: allowed to those who may do all of S3.
const UNKNOWN: &str = "s3:AnyOtherOperation";
const OTHER: Pair = same(UNKNOWN);

const fn same(action: &'static str) -> Pair {
    (action, action)
}

/// Everything that a request could be taken for by a store that it is handed on to. `target` is bucket and key, decoded. Which keys
/// a DeleteObjects removes stands in its body: [`Deleted`](Needed::deletes) says that they are to be asked as well.
pub fn of_request(
    method: &Method,
    (bucket, key): (&str, Option<&str>),
    query: Option<&str>,
    headers: &HeaderMap,
) -> Needed {
    let query: Vec<(String, String)> =
        query.unwrap_or("").split('&').filter(|pair| !pair.is_empty()).map(pair).collect();
    // Names are matched without regard to case, for a store may do so.
    let has = |name: &str| query.iter().any(|(given, _)| given.eq_ignore_ascii_case(name));
    let value =
        |name: &str| query.iter().find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str());
    let way = match *method {
        Method::GET | Method::HEAD => 0,
        Method::DELETE => 2,
        _ => 1,
    };
    let mut asks = Vec::new();
    let mut deletes = false;
    match key {
        Some(key) => {
            let version = value("versionId").filter(|version| !version.is_empty());
            for (_, read, write, remove) in OF_OBJECT.iter().filter(|(name, ..)| has(name)) {
                asks.push(on_version([*read, *write, *remove][way], bucket, key, version));
            }
            let upload = has("uploadId");
            if upload && matches!(*method, Method::GET | Method::HEAD) && !has("partNumber") {
                asks.push(on_object("s3:ListMultipartUploadParts", bucket, key));
            }
            if upload && *method == Method::DELETE {
                asks.push(on_object("s3:AbortMultipartUpload", bucket, key));
            }
            // Two sub-resources, or one that is none to the store: what would be done without them is asked, too; and attributes are
            // for those who may read the object.
            if asks.len() != 1 || has("attributes") {
                asks.push(match *method {
                    Method::GET | Method::HEAD => on_version(GET_OBJECT, bucket, key, version),
                    Method::DELETE if upload => on_object("s3:AbortMultipartUpload", bucket, key),
                    Method::DELETE => on_version(DELETE_OBJECT, bucket, key, version),
                    _ => on_object(PUT_OBJECT, bucket, key),
                });
            }
            asks.extend(written_with(method, &with_hoisted(headers, &query), bucket, key));
            // Of two versions, or two lists of tags, nobody knows which one counts.
            let versions = query.iter().filter(|(given, _)| given.eq_ignore_ascii_case("versionId")).count();
            if versions > 1 || headers.get_all("x-amz-tagging").iter().count() > 1 {
                asks.push(on_object(UNKNOWN, bucket, key));
            }
        }
        None => {
            for (_, read, write, remove) in OF_BUCKET.iter().filter(|(name, ..)| has(name)) {
                asks.push(on_bucket([*read, *write, *remove][way], bucket));
            }
            deletes = *method == Method::POST && has("delete");
            if asks.len() != 1 && !(deletes && asks.is_empty()) {
                asks.push(match *method {
                    Method::HEAD => on_bucket("s3:ListBucket", bucket),
                    Method::GET => listing(on_bucket("s3:ListBucket", bucket), &query),
                    Method::PUT => on_bucket("s3:CreateBucket", bucket),
                    Method::DELETE => on_bucket("s3:DeleteBucket", bucket),
                    _ => on_bucket(UNKNOWN, bucket),
                });
            }
            if *method == Method::PUT {
                asks.extend(made_with(&with_hoisted(headers, &query), bucket));
            }
        }
    }
    Needed { asks, deletes }
}

/// The headers, and those that a presigned URL carries in its query, where a store may take them from.
fn with_hoisted(headers: &HeaderMap, query: &[(String, String)]) -> HeaderMap {
    let mut all = headers.clone();
    for (name, value) in query.iter().filter(|(name, _)| name.to_ascii_lowercase().starts_with("x-amz-")) {
        if let (Ok(name), Ok(value)) = (name.to_ascii_lowercase().parse::<HeaderName>(), HeaderValue::from_str(value)) {
            all.entry(name).or_insert(value);
        }
    }
    all
}

/// What [`of_request`] found.
#[derive(Debug, Clone, PartialEq)]
pub struct Needed {
    /// All of them have to be allowed.
    pub asks: Vec<Asked>,
    /// The request removes the objects that its body names, and [`DELETE_OBJECT`] has to be asked for each.
    pub deletes: bool,
}

/// Whether a request is to be done in spite of a governance retention. Any value but `false` may be taken for a yes.
pub fn bypasses_governance(headers: &HeaderMap) -> bool {
    headers
        .get_all("x-amz-bypass-governance-retention")
        .iter()
        .any(|value| !value.as_bytes().eq_ignore_ascii_case(b"false"))
}

/// What the headers with which a bucket is made ask for besides.
fn made_with(headers: &HeaderMap, bucket: &str) -> Vec<Asked> {
    let any = |fits: fn(&str) -> bool| headers.keys().any(|name| fits(name.as_str()));
    let mut asks = Vec::new();
    if any(|name| name == "x-amz-acl" || name.starts_with("x-amz-grant-")) {
        asks.push(on_bucket("s3:PutBucketAcl", bucket));
    }
    if any(|name| name == "x-amz-object-ownership") {
        asks.push(on_bucket("s3:PutBucketOwnershipControls", bucket));
    }
    if any(|name| name == "x-amz-bucket-object-lock-enabled") {
        asks.push(on_bucket("s3:PutBucketObjectLockConfiguration", bucket));
        asks.push(on_bucket("s3:PutBucketVersioning", bucket));
    }
    asks
}

/// What the headers of a write ask for besides: its source, its tags, an ACL, a lock.
fn written_with(method: &Method, headers: &HeaderMap, bucket: &str, key: &str) -> Vec<Asked> {
    let mut asks = Vec::new();
    // Whatever removes or changes what is locked.
    if bypasses_governance(headers) {
        asks.push(on_object(BYPASS_GOVERNANCE, bucket, key));
    }
    if !matches!(*method, Method::PUT | Method::POST) {
        return asks;
    }
    let text = |name: &str| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let mut tags_come_along = false;
    if let Some(source) = text("x-amz-copy-source") {
        let (path, version) = source.split_once("?versionId=").unwrap_or((&source, ""));
        let path = decode(path);
        if let Some((bucket, key)) = path.strip_prefix('/').unwrap_or(&path).split_once('/') {
            let version = Some(version).filter(|version| !version.is_empty());
            asks.push(on_version(GET_OBJECT, bucket, key, version));
            if text("x-amz-tagging-directive").is_none_or(|directive| directive.eq_ignore_ascii_case("COPY")) {
                // Which tags come along nobody here knows: a condition on them is unknown.
                asks.push(on_version(GET_OBJECT_TAGGING, bucket, key, version));
                tags_come_along = true;
            }
        }
    }
    if tags_come_along {
        asks.push(on_object(PUT_OBJECT_TAGGING.0, bucket, key));
    }
    if let Some(tags) = text("x-amz-tagging") {
        let tags: Vec<(String, String)> = tags.split('&').filter(|tag| !tag.is_empty()).map(pair).collect();
        let tags = tags.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        asks.push(with_request_tags(on_object("s3:PutObjectTagging", bucket, key), tags));
    }
    if headers.keys().any(|name| name.as_str() == "x-amz-acl" || name.as_str().starts_with("x-amz-grant-")) {
        asks.push(on_object("s3:PutObjectAcl", bucket, key));
    }
    if headers
        .keys()
        .any(|name| name.as_str().starts_with("x-amz-object-lock-retain") || name.as_str() == "x-amz-object-lock-mode")
    {
        asks.push(on_object("s3:PutObjectRetention", bucket, key));
    }
    if headers.contains_key("x-amz-object-lock-legal-hold") {
        asks.push(on_object("s3:PutObjectLegalHold", bucket, key));
    }
    asks
}

/// The keys by which listing a bucket may be limited.
pub fn listing(mut asked: Asked, query: &[(String, String)]) -> Asked {
    for (name, key) in [("prefix", "s3:prefix"), ("delimiter", "s3:delimiter"), ("max-keys", "s3:max-keys")] {
        let mut values = query.iter().filter(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        // Of two, nobody knows which one counts: the key is unknown then, which allows nothing.
        match (values.next(), values.next()) {
            (Some(_), Some(_)) => {}
            (value, _) => asked = with_key(asked, key, value.map(String::as_str)),
        }
    }
    asked
}

fn pair(pair: &str) -> (String, String) {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    (decode(&name.replace('+', " ")), decode(&value.replace('+', " ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &str, key: Option<&str>, query: &str, headers: &[(&'static str, &str)]) -> Vec<String> {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let needed = of_request(&method, ("b", key), Some(query), &headers);
        let mut told: Vec<String> =
            needed.asks.iter().map(|asked| format!("{} {}", &asked.action[3..], &asked.resource[13..])).collect();
        if needed.deletes {
            told.push("deletes".into());
        }
        told
    }

    #[test]
    fn a_request_needs_what_its_operation_needs() {
        let k = Some("d/k");
        for (method, key, query, wanted) in [
            ("GET", None, "", vec!["ListBucket b"]),
            ("HEAD", None, "", vec!["ListBucket b"]),
            ("GET", None, "list-type=2&prefix=a", vec!["ListBucket b"]),
            ("GET", None, "versions", vec!["ListBucketVersions b"]),
            ("GET", None, "uploads", vec!["ListBucketMultipartUploads b"]),
            ("GET", None, "location", vec!["GetBucketLocation b"]),
            ("PUT", None, "", vec!["CreateBucket b"]),
            ("DELETE", None, "", vec!["DeleteBucket b"]),
            ("PUT", None, "policy", vec!["PutBucketPolicy b"]),
            ("DELETE", None, "policy", vec!["DeleteBucketPolicy b"]),
            ("POST", None, "delete", vec!["deletes"]),
            ("POST", None, "", vec!["AnyOtherOperation b"]),
            ("GET", k, "", vec!["GetObject b/d/k"]),
            ("HEAD", k, "versionId=v", vec!["GetObjectVersion b/d/k"]),
            ("GET", k, "versionId=&VersionId=v", vec!["GetObject b/d/k", "AnyOtherOperation b/d/k"]),
            ("GET", k, "tagging", vec!["GetObjectTagging b/d/k"]),
            ("PUT", k, "tagging&versionId=v", vec!["PutObjectVersionTagging b/d/k"]),
            ("GET", k, "attributes", vec!["GetObjectAttributes b/d/k", "GetObject b/d/k"]),
            ("PUT", k, "", vec!["PutObject b/d/k"]),
            ("POST", k, "uploads", vec!["PutObject b/d/k"]),
            ("PUT", k, "partNumber=1&uploadId=u", vec!["PutObject b/d/k"]),
            ("GET", k, "uploadId=u", vec!["ListMultipartUploadParts b/d/k"]),
            ("DELETE", k, "uploadId=u", vec!["AbortMultipartUpload b/d/k"]),
            ("DELETE", k, "", vec!["DeleteObject b/d/k"]),
            ("DELETE", k, "versionId=v", vec!["DeleteObjectVersion b/d/k"]),
            ("POST", k, "restore", vec!["RestoreObject b/d/k"]),
            // Whatever a store makes of them.
            ("PUT", k, "acl&tagging", vec!["PutObjectAcl b/d/k", "PutObjectTagging b/d/k", "PutObject b/d/k"]),
            ("PUT", k, "ACL", vec!["PutObjectAcl b/d/k"]),
            ("GET", None, "policy&location", vec!["GetBucketLocation b", "GetBucketPolicy b", "ListBucket b"]),
            ("POST", None, "delete&policy", vec!["PutBucketPolicy b", "deletes"]),
        ] {
            assert_eq!(asked(method, key, query, &[]), wanted, "{method} {key:?} {query}");
        }
        let copied = [("x-amz-copy-source", "/c/e%2Fk?versionId=v")];
        assert_eq!(
            asked("PUT", k, "", &copied),
            ["PutObject b/d/k", "GetObjectVersion c/e/k", "GetObjectVersionTagging c/e/k", "PutObjectTagging b/d/k"]
        );
        assert_eq!(
            asked("PUT", k, "X-Amz-Copy-Source=%2Fc%2Fe&x-amz-tagging-directive=REPLACE", &[]),
            ["PutObject b/d/k", "GetObject c/e"]
        );
        let bypass = [("x-amz-bypass-governance-retention", "true")];
        assert_eq!(
            asked("DELETE", k, "versionId=v", &bypass),
            ["DeleteObjectVersion b/d/k", "BypassGovernanceRetention b/d/k"]
        );
        assert_eq!(
            asked("PUT", k, "retention", &[("x-amz-bypass-governance-retention", "yes")]),
            ["PutObjectRetention b/d/k", "BypassGovernanceRetention b/d/k"]
        );
        assert_eq!(asked("DELETE", k, "", &[("x-amz-bypass-governance-retention", "False")]), ["DeleteObject b/d/k"]);
        let made =
            [("x-amz-grant-read", "x"), ("x-amz-object-ownership", "x"), ("x-amz-bucket-object-lock-enabled", "true")];
        let wanted = [
            "CreateBucket b",
            "PutBucketAcl b",
            "PutBucketOwnershipControls b",
            "PutBucketObjectLockConfiguration b",
            "PutBucketVersioning b",
        ];
        assert_eq!(asked("PUT", None, "", &made), wanted);
        let more = [("x-amz-tagging", "a=b"), ("x-amz-acl", "private"), ("x-amz-object-lock-mode", "GOVERNANCE")];
        assert_eq!(
            asked("PUT", k, "", &more),
            ["PutObject b/d/k", "PutObjectTagging b/d/k", "PutObjectAcl b/d/k", "PutObjectRetention b/d/k"]
        );
    }

    #[test]
    fn a_listing_is_known_by_its_prefix_unless_it_has_two() {
        let prefix = |query: &str| {
            let needed = of_request(&Method::GET, ("b", None), Some(query), &HeaderMap::new());
            needed.asks[0].context.get("s3:prefix").map(<[String]>::to_vec)
        };
        assert_eq!(prefix("prefix=a%2Fb+c"), Some(vec!["a/b c".to_owned()]));
        assert_eq!(prefix("prefix="), Some(vec![String::new()]));
        assert_eq!(prefix(""), Some(Vec::new()), "missing, and known to be");
        assert_eq!(prefix("prefix=a&prefix=b"), None, "unknown");
    }
}
