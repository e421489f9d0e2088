//! A request whose body has been read and whose caller is known, and the answer to it.
//!
//! The control APIs (S3 Control, Lambda) are small documents: their bodies are read whole, up to a limit that the
//! listener holds, before anything here sees them. The embedded S3 streams and does not pass through these types.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use percent_encoding::percent_decode_str;

use crate::caller::Caller;

/// One request of a control API, as received and verified.
#[derive(Debug)]
pub struct Request {
    pub method: Method,
    /// The path as it stood on the wire, still percent-encoded. Routing decodes each segment once.
    pub path: String,
    pub query: Query,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Who signed it. Handlers cannot be reached without one.
    pub caller: Caller,
    pub request_id: RequestId,
}

impl Request {
    /// The header as text, the first if it was sent more than once; `None` if it is absent or not printable ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }
}

/// The answer to a control-API request.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Response {
    pub fn empty(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// `application/xml`. Pass a whole document, prolog included ([`crate::xml::Writer`] makes one).
    pub fn xml(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self::empty(status).with_header("content-type", "application/xml").with_body(body)
    }

    /// `application/json`.
    pub fn json(status: StatusCode, value: &serde_json::Value) -> Self {
        Self::empty(status).with_header("content-type", "application/json").with_body(value.to_string())
    }

    pub fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets a header, whose name is in lower case; a value that HTTP cannot carry is left out rather than sent broken.
    pub fn with_header(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
        self
    }
}

/// The query string, decoded, in the order it was sent; names may repeat (`jobStatuses=A&jobStatuses=B`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Parses what follows the `?`. `+` is a plus sign, as AWS's SDKs sign it, not a space.
    pub fn parse(raw: Option<&str>) -> Self {
        let pairs = raw.unwrap_or("").split('&').filter(|p| !p.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(name), decode(value))
                })
                .collect(),
        )
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// All of them, in the order they were sent.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| n == name)
    }
}

pub(crate) fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// Names one request in the answer's headers, in error bodies and in the log. Made by the listener.
///
/// A lower-case UUID: Lambda shows it to the function as its request ID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(pub String);

impl RequestId {
    /// `x-amz-id-2`: S3's second, opaque ID; here the first one, base64.
    pub fn host_id(&self) -> String {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(&self.0)
    }
}

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_query_name_keeps_every_value_in_order() {
        let q = Query::parse(Some("jobStatuses=Active&jobStatuses=Ready&maxResults=2&flag"));
        assert_eq!(q.all("jobStatuses").collect::<Vec<_>>(), ["Active", "Ready"]);
        assert_eq!(q.get("maxResults"), Some("2"));
        assert_eq!(q.get("flag"), Some(""));
        assert!(!q.contains("nextToken"));
    }

    #[test]
    fn a_plus_in_a_query_is_a_plus() {
        assert_eq!(Query::parse(Some("statusUpdateReason=a+b%20c")).get("statusUpdateReason"), Some("a+b c"));
    }
}
