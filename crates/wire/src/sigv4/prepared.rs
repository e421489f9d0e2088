//! Signing many requests that differ in nothing but their body and their time.

use hmac::{Hmac, KeyInit, Mac};
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method};
use sha2::{Digest, Sha256};

use super::canonical::{self, PathStyle};
use super::key::SigningKey;
use super::signer::{SignError, Signer, signed_names};
use super::{ALGORITHM, date};

/// What stays the same from one request to the next: of the canonical request all but two values, hashed as far as it goes;
/// of a day the signing key, of a second the time as it is written.
pub struct Prepared {
    scope_behind_day: String,
    secret_access_key: String,
    /// The canonical request up to the value of `x-amz-content-sha256`.
    to_hash: Sha256,
    /// From there to the value of `x-amz-date`, and from there to the body's hash, which is the last line.
    to_date: Vec<u8>,
    to_end: Vec<u8>,
    token_line: String,
    /// `, SignedHeaders=…, Signature=`
    names: String,
    access_key_id: String,
    /// Of the last request: seconds since the epoch.
    second: i64,
    date_time: String,
    scope: String,
    /// With the key worked in already, so that a request costs the hash of its own text alone.
    key: Hmac<Sha256>,
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

impl Prepared {
    /// `target` and `headers` as for [`Signer::sign`]: what every request has, `host` among them. None of `x-amz-date`,
    /// `x-amz-content-sha256` and `x-amz-security-token` may be among them, which are added here.
    pub fn new(signer: &Signer<'_>, method: &Method, target: &str, headers: &HeaderMap) -> Result<Self, SignError> {
        let mut all = headers.clone();
        let value = |text: &str| HeaderValue::from_str(text).map_err(|_| SignError::Header);
        for name in ["x-amz-date", "x-amz-content-sha256"] {
            all.insert(HeaderName::from_static(name), HeaderValue::from_static(""));
        }
        let mut token_line = String::new();
        if let Some(token) = &signer.credentials.session_token {
            all.insert(HeaderName::from_static("x-amz-security-token"), value(token)?);
            token_line = format!("x-amz-security-token: {token}\r\n");
        }
        value(&signer.credentials.access_key_id)?;
        let signed = signed_names(&all)?;
        let (path, query) = canonical::split_target(target);
        let canonical = canonical::request(
            method.as_str(),
            &canonical::path(PathStyle::of(signer.service), path),
            &canonical::query(query, false),
            &all,
            signed.iter().copied(),
        );
        // No value has a line's end in it, so each of these stands there once; the names are in their order.
        let behind = |name: &[u8]| canonical.windows(name.len()).position(|w| w == name).map(|at| at + name.len());
        let hash = behind(b"\nx-amz-content-sha256:").ok_or(SignError::Header)?;
        let date = behind(b"\nx-amz-date:").ok_or(SignError::Header)?;
        let mut prepared = Self {
            scope_behind_day: format!("/{}/{}/aws4_request", signer.region, signer.service),
            secret_access_key: signer.credentials.secret_access_key.clone(),
            to_hash: Sha256::new().chain_update(&canonical[..hash]),
            to_date: canonical[hash..date].to_vec(),
            to_end: canonical[date..].to_vec(),
            token_line,
            names: format!(", SignedHeaders={}, Signature=", signed.join(";")),
            access_key_id: signer.credentials.access_key_id.clone(),
            second: 0,
            date_time: String::new(),
            scope: String::new(),
            key: keyed(&SigningKey::derive("", "")),
        };
        prepared.set_time(0);
        Ok(prepared)
    }

    /// Appends the header lines that a request is signed with: a `\r\n` behind each, and no empty line.
    ///
    /// `body_sha256` is of the body; `now` in seconds since the epoch.
    pub fn sign(&mut self, body_sha256: &[u8; 32], now: i64, out: &mut Vec<u8>) {
        if now != self.second {
            self.set_time(now);
        }
        let mut hex = [0; 64];
        let hash: &[u8] = put_hex(body_sha256, &mut hex);
        let canonical = (self.to_hash.clone().chain_update(hash).chain_update(&self.to_date))
            .chain_update(&self.date_time)
            .chain_update(&self.to_end)
            .chain_update(hash)
            .finalize();
        let mut canonical_hex = [0; 64];
        let mut mac = self.key.clone();
        for part in [ALGORITHM, "\n", &self.date_time, "\n", &self.scope, "\n"] {
            mac.update(part.as_bytes());
        }
        mac.update(put_hex(&canonical.into(), &mut canonical_hex));
        let signature: [u8; 32] = mac.finalize().into_bytes().into();
        for part in ["x-amz-date: ", &self.date_time, "\r\n", &self.token_line, "x-amz-content-sha256: "] {
            out.extend_from_slice(part.as_bytes());
        }
        out.extend_from_slice(hash);
        out.extend_from_slice(b"\r\nauthorization: ");
        for part in [ALGORITHM, " Credential=", &self.access_key_id, "/", &self.scope, &self.names] {
            out.extend_from_slice(part.as_bytes());
        }
        out.extend_from_slice(put_hex(&signature, &mut hex));
        out.extend_from_slice(b"\r\n");
    }

    fn set_time(&mut self, now: i64) {
        self.second = now;
        self.date_time = date::format_basic(now);
        let day = &self.date_time[..8];
        if self.scope.get(..8) != Some(day) {
            self.scope = format!("{day}{}", self.scope_behind_day);
            self.key = keyed(&SigningKey::derive(&self.secret_access_key, &self.scope));
        }
    }
}

fn keyed(key: &SigningKey) -> Hmac<Sha256> {
    Hmac::new_from_slice(key.bytes()).expect("HMAC takes a key of any length")
}

fn put_hex<'o>(bytes: &[u8; 32], out: &'o mut [u8; 64]) -> &'o [u8] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in out.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::PayloadForm;
    use crate::sigv4::Credentials;

    #[test]
    fn a_prepared_signature_is_the_one_that_is_made_from_scratch_across_seconds_and_days() {
        for token in [None, Some("TOKEN".to_owned())] {
            let credentials =
                Credentials { access_key_id: "ID".into(), secret_access_key: "SECRET".into(), session_token: token };
            let signer = Signer { credentials: &credentials, service: "lambda", region: "eu-west-1" };
            let target = "/2015-03-31/functions/arn%3Aaws%3Af/invocations?Qualifier=7&A=";
            let mut headers = HeaderMap::new();
            for (name, value) in [
                ("host", "lambda.example.org:9001"),
                ("content-type", "application/json"),
                ("x-amz-invocation-type", "RequestResponse"),
                ("user-agent", "none of the signature"),
            ] {
                headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            let mut prepared = Prepared::new(&signer, &Method::POST, target, &headers).unwrap();
            for (body, now) in [("{}", 0), ("{}", 0), ("", 1_440_938_160), ("x", 1_440_979_200), ("x", 1_440_938_160)] {
                let hash: [u8; 32] = Sha256::digest(body).into();
                let signed = signer.sign(&Method::POST, target, &headers, PayloadForm::Hash(hash), now).unwrap();
                let mut wanted: Vec<_> =
                    signed.headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
                let mut out = Vec::new();
                prepared.sign(&hash, now, &mut out);
                let text = String::from_utf8(out).unwrap();
                let mut lines: Vec<_> = text.strip_suffix("\r\n").unwrap().split("\r\n").map(String::from).collect();
                wanted.sort();
                lines.sort();
                assert_eq!(lines, wanted, "{body:?} at {now}");
            }
        }
    }

    #[test]
    fn what_cannot_be_signed_is_refused_when_it_is_prepared() {
        let credentials = |token: &str| Credentials {
            access_key_id: "ID".into(),
            secret_access_key: "SECRET".into(),
            session_token: Some(token.to_owned()),
        };
        let prepared = |credentials: &Credentials, headers: &HeaderMap| {
            let signer = Signer { credentials, service: "lambda", region: "eu-west-1" };
            Prepared::new(&signer, &Method::POST, "/", headers).map(drop)
        };
        let host = HeaderMap::from_iter([(http::header::HOST, HeaderValue::from_static("h"))]);
        assert_eq!(prepared(&credentials("T"), &HeaderMap::new()), Err(SignError::NoHost));
        assert_eq!(prepared(&credentials("T\r\nx: y"), &host), Err(SignError::Header));
        assert_eq!(prepared(&credentials("T"), &host), Ok(()));
    }
}
