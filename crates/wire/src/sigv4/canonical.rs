//! The canonical request: what a signature is computed over.

use std::borrow::Cow;

use http::HeaderMap;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

/// Everything but RFC 3986's unreserved characters is encoded.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
const PATH: &AsciiSet = &QUERY.remove(b'/');

/// How a service's paths enter the canonical request.
///
/// AWS's clients encode the path once for the wire. For S3 that is also what they sign; for every other service they
/// remove dot segments and encode once more, so that `arn%3Aaws` is signed as `arn%253Aaws`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathStyle {
    AsSent,
    NormalizedAndEncodedAgain,
}

impl PathStyle {
    pub(crate) fn of(service: &str) -> Self {
        if service == "s3" { Self::AsSent } else { Self::NormalizedAndEncodedAgain }
    }
}

/// The path and the raw query of a request target in origin form.
pub(crate) fn split_target(target: &str) -> (&str, &str) {
    target.split_once('?').unwrap_or((target, ""))
}

pub(crate) fn path(style: PathStyle, raw: &str) -> String {
    match style {
        PathStyle::AsSent if raw.is_empty() => "/".to_owned(),
        PathStyle::AsSent => raw.to_owned(),
        PathStyle::NormalizedAndEncodedAgain => encode_path(&normalized(raw)),
    }
}

/// Encodes all but unreserved characters and slashes.
pub(crate) fn encode_path(path: &str) -> String {
    percent_encode(path.as_bytes(), PATH).to_string()
}

/// The path without empty and dot segments, RFC 3986 section 5.2.4. Encoded dots stay as they are.
pub(crate) fn normalized(raw: &str) -> Cow<'_, str> {
    let inner = raw.strip_prefix('/').unwrap_or(raw);
    let odd = |segment: &str| matches!(segment, "" | "." | "..");
    let last_is_empty = inner.ends_with('/') || inner.is_empty();
    if raw.starts_with('/') && !inner.strip_suffix('/').unwrap_or(inner).split('/').any(odd) {
        return Cow::Borrowed(raw);
    }
    let mut kept = Vec::new();
    for segment in inner.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            other => kept.push(other),
        }
    }
    let is_folder = last_is_empty || inner.split('/').next_back().is_some_and(odd);
    let mut out = format!("/{}", kept.join("/"));
    if is_folder && !out.ends_with('/') {
        out.push('/');
    }
    Cow::Owned(out)
}

/// Decoded name and value of each query parameter, in order. A `+` is a plus sign.
pub(crate) fn query_pairs(raw: &str) -> impl Iterator<Item = (Cow<'_, [u8]>, Cow<'_, [u8]>)> {
    raw.split('&').filter(|p| !p.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decode_str(name).into(), percent_decode_str(value).into())
    })
}

/// The query sorted and encoded anew, without the parameter `X-Amz-Signature` if `presigned`.
pub(crate) fn query(raw: &str, presigned: bool) -> String {
    let mut pairs: Vec<(String, String)> = query_pairs(raw)
        .filter(|(name, _)| !(presigned && **name == *b"X-Amz-Signature"))
        .map(|(name, value)| (encode_query(&name), encode_query(&value)))
        .collect();
    pairs.sort_unstable();
    let mut out = String::with_capacity(raw.len() + 8);
    for (name, value) in &pairs {
        if !out.is_empty() {
            out.push('&');
        }
        out.push_str(name);
        out.push('=');
        out.push_str(value);
    }
    out
}

pub(crate) fn encode_query(bytes: &[u8]) -> String {
    percent_encode(bytes, QUERY).to_string()
}

/// What a tab inside of a header's value is signed as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tabs {
    Kept,
    AsSpaces,
}

/// Appends `name:value` for a header: values trimmed, runs of spaces made one, repeated headers joined by commas.
fn header(out: &mut Vec<u8>, name: &str, headers: &HeaderMap, tabs: Tabs) {
    out.extend_from_slice(name.as_bytes());
    out.push(b':');
    for (i, value) in headers.get_all(name).iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        let mut last = 0;
        for &byte in value.as_bytes().trim_ascii() {
            let byte = if byte == b'\t' && tabs == Tabs::AsSpaces { b' ' } else { byte };
            if (byte, last) != (b' ', b' ') {
                out.push(byte);
            }
            last = byte;
        }
    }
    out.push(b'\n');
}

/// The canonical request up to the payload's hash, which is the last line and may not be known yet.
/// `signed` are lower-case names, sorted. Tabs in values are kept, as the SDK for Rust does.
pub(crate) fn request<'a>(
    method: &str,
    path: &str,
    query: &str,
    headers: &HeaderMap,
    signed: impl Iterator<Item = &'a str> + Clone,
) -> Vec<u8> {
    request_with(method, path, query, headers, signed, Tabs::Kept)
}

/// As [`request`], with a word about tabs.
pub(crate) fn request_with<'a>(
    method: &str,
    path: &str,
    query: &str,
    headers: &HeaderMap,
    signed: impl Iterator<Item = &'a str> + Clone,
    tabs: Tabs,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    for line in [method, path, query] {
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
    }
    for name in signed.clone() {
        header(&mut out, name, headers, tabs);
    }
    out.push(b'\n');
    for (i, name) in signed.enumerate() {
        if i > 0 {
            out.push(b';');
        }
        out.extend_from_slice(name.as_bytes());
    }
    out.push(b'\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_and_empty_segments_are_removed_as_the_rfc_says() {
        for (raw, wanted) in [
            ("", "/"),
            ("/", "/"),
            ("//", "/"),
            ("/a", "/a"),
            ("/a/", "/a/"),
            ("//a//", "/a/"),
            ("/a/./b", "/a/b"),
            ("/./", "/"),
            ("/a/.", "/a/"),
            ("/a/b/..", "/a/"),
            ("/a/../b", "/b"),
            ("/../../b", "/b"),
            ("/a/%2e%2e/b", "/a/%2e%2e/b"),
            ("/...", "/..."),
        ] {
            assert_eq!(normalized(raw), wanted, "{raw}");
        }
    }

    #[test]
    fn a_query_is_sorted_by_encoded_name_and_then_by_value() {
        assert_eq!(query("b=2&a=%20&a=+&A&a-=1&x=%7E%2f", false), "A=&a=%20&a=%2B&a-=1&b=2&x=~%2F");
        assert_eq!(query("X-Amz-Signature=1&a=b", true), "a=b");
        assert_eq!(query("", false), "");
    }
}
