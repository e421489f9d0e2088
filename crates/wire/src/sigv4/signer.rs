//! Signing: what the CLI and `longshore`'s own clients send.

use std::fmt;

use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use http::{HeaderMap, Method};
use sha2::{Digest, Sha256};

use super::canonical::{self, PathStyle};
use super::key::{ChunkKey, SigningKey};
use super::{ALGORITHM, EXPIRES_SECONDS_MAX, date, string_to_sign};
use crate::payload::PayloadForm;

/// An access key with its secret. Prints only its ID.
#[derive(Clone)]
pub struct Credentials {
    pub access_key_id: String,
    pub secret_access_key: String,
    pub session_token: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

/// Why a request could not be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    #[error("the request has no host header")]
    NoHost,
    #[error("a header would hold a character that HTTP cannot carry")]
    Header,
    #[error("a presigned URL lives 1 to 604800 seconds")]
    Expires,
    #[error("the target is already presigned")]
    Presigned,
    #[error("the hash of the body is needed to sign it")]
    Implied,
}

/// Signs requests of one caller to one service.
#[derive(Debug, Clone, Copy)]
pub struct Signer<'a> {
    pub credentials: &'a Credentials,
    pub service: &'a str,
    pub region: &'a str,
}

/// The headers to set on a request, in place of any of the same name, and what the chunks of its body are signed with.
#[derive(Debug, Clone)]
pub struct Signed {
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub chunks: ChunkKey,
}

/// Headers that change on the way or belong to one hop; the AWS clients leave them out too.
const NEVER_SIGNED: [&str; 6] =
    ["authorization", "connection", "expect", "transfer-encoding", "user-agent", "x-amzn-trace-id"];

impl Signer<'_> {
    /// Signs a request by an `Authorization` header. All headers given are signed but those that change on the way.
    ///
    /// `target` is path and query as they will stand on the wire, percent-encoded once; `headers` needs `host`.
    /// `now` is in seconds since the epoch. Every service takes [`PayloadForm::Hash`]; S3 alone the others.
    pub fn sign(
        &self,
        method: &Method,
        target: &str,
        headers: &HeaderMap,
        payload: PayloadForm,
        now: i64,
    ) -> Result<Signed, SignError> {
        let value = |text: &str| HeaderValue::from_str(text).map_err(|_| SignError::Header);
        let date_time = date::format_basic(now);
        let mut all = headers.clone();
        let mut added = vec![(HeaderName::from_static("x-amz-date"), value(&date_time)?)];
        if let Some(token) = &self.credentials.session_token {
            let mut token = value(token)?;
            token.set_sensitive(true);
            added.push((HeaderName::from_static("x-amz-security-token"), token));
        }
        let last_line = payload.header_value().ok_or(SignError::Implied)?;
        added.push((HeaderName::from_static("x-amz-content-sha256"), value(&last_line)?));
        for (name, value) in &added {
            all.insert(name.clone(), value.clone());
        }
        let (scope, signed) = (self.scope(&date_time), signed_names(&all)?);
        let (path, query) = canonical::split_target(target);
        let canonical = canonical::request(
            method.as_str(),
            &canonical::path(PathStyle::of(self.service), path),
            &canonical::query(query, false),
            &all,
            signed.iter().copied(),
        );
        let key = SigningKey::derive(&self.credentials.secret_access_key, &scope);
        let signature = key.sign(string_to_sign(&date_time, &scope, &canonical, &last_line).as_bytes());
        let authorization = format!(
            "{ALGORITHM} Credential={}/{scope}, SignedHeaders={}, Signature={}",
            self.credentials.access_key_id,
            signed.join(";"),
            hex::encode(signature),
        );
        added.push((AUTHORIZATION, value(&authorization)?));
        Ok(Signed { headers: added, chunks: ChunkKey::new(key, date_time, scope, signature) })
    }

    /// Presigns: returns the target with the query that makes it good for `expires` seconds from `now`.
    ///
    /// The headers given, `host` at least, have to be sent by whoever uses the URL. The body is not signed for S3, and
    /// is empty for other services.
    pub fn presign(
        &self,
        method: &Method,
        target: &str,
        headers: &HeaderMap,
        expires: u32,
        now: i64,
    ) -> Result<String, SignError> {
        if !(1..=EXPIRES_SECONDS_MAX).contains(&expires) {
            return Err(SignError::Expires);
        }
        let (path, query) = canonical::split_target(target);
        if canonical::query_pairs(query).any(|(name, _)| name.starts_with(b"X-Amz-")) {
            return Err(SignError::Presigned);
        }
        let date_time = date::format_basic(now);
        let (scope, signed) = (self.scope(&date_time), signed_names(headers)?);
        let credential = format!("{}/{scope}", self.credentials.access_key_id);
        let (expires, names) = (expires.to_string(), signed.join(";"));
        let mut parameters = vec![
            ("X-Amz-Algorithm", ALGORITHM),
            ("X-Amz-Credential", &credential),
            ("X-Amz-Date", &date_time),
            ("X-Amz-Expires", &expires),
            ("X-Amz-SignedHeaders", &names),
        ];
        parameters.extend(self.credentials.session_token.as_deref().map(|token| ("X-Amz-Security-Token", token)));
        let mut query = query.to_owned();
        for (name, value) in parameters {
            if !query.is_empty() {
                query.push('&');
            }
            query.push_str(&format!("{name}={}", canonical::encode_query(value.as_bytes())));
        }
        let empty = PayloadForm::Hash(Sha256::digest([]).into());
        let payload = if self.service == "s3" { PayloadForm::Unsigned } else { empty };
        let canonical = canonical::request(
            method.as_str(),
            &canonical::path(PathStyle::of(self.service), path),
            &canonical::query(&query, true),
            headers,
            signed.iter().copied(),
        );
        let last_line = payload.header_value().unwrap_or_default();
        let key = SigningKey::derive(&self.credentials.secret_access_key, &scope);
        let signature = key.sign(string_to_sign(&date_time, &scope, &canonical, &last_line).as_bytes());
        let path = if path.is_empty() { "/" } else { path };
        Ok(format!("{path}?{query}&X-Amz-Signature={}", hex::encode(signature)))
    }

    fn scope(&self, date_time: &str) -> String {
        format!("{}/{}/{}/aws4_request", &date_time[..8], self.region, self.service)
    }
}

pub(super) fn signed_names(headers: &HeaderMap) -> Result<Vec<&str>, SignError> {
    let mut names: Vec<&str> = headers.keys().map(|name| name.as_str()).filter(|n| !NEVER_SIGNED.contains(n)).collect();
    names.sort_unstable();
    if names.binary_search(&"host").is_err() { Err(SignError::NoHost) } else { Ok(names) }
}
