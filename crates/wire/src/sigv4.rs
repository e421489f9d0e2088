//! Signature Version 4: verifying what clients signed, and signing what our own CLI sends.
//!
//! A request is read in two steps, since the key has to be looked up in between and since Lambda's clients sign the
//! hash of a body that is not there yet: [`Claim::parse`] finds who the request claims to be from and checks all that
//! needs no key; [`Claim::verify`] gives a [`Verified`], without which no handler can be reached.
//!
//! The path is verified exactly as it stands on the wire, never decoded first, so that what is routed is what was
//! signed. The query is decoded and encoded anew, and sorted, as the standard says: a signature holds for any order of
//! the parameters, so no handler may give the order of different names a meaning.
//! Source: IAM user guide, "Create a signed AWS API request"; S3 API reference, "Authenticating Requests".

mod canonical;
pub mod date;
mod error;
mod key;
mod prepared;
mod signer;

#[cfg(test)]
mod tests;

use http::{HeaderMap, Method};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

pub use error::{AuthError, Dialect};
pub use key::{ChunkKey, Key, KeyCache};
pub use prepared::Prepared;
pub use signer::{Credentials, SignError, Signed, Signer};

use crate::payload::{Decoder, PayloadError, PayloadForm};
use canonical::{PathStyle, Tabs};
use key::SigningKey;

pub(crate) const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// How far a request's clock and ours may be apart, either way. AWS's value.
pub const SKEW_SECONDS_MAX: i64 = 15 * 60;
/// How long a presigned URL may live: seven days, AWS's value.
pub const EXPIRES_SECONDS_MAX: u32 = 604_800;
/// Ours have 20 characters, AWS's at most 128.
const ACCESS_KEY_ID_MAX: usize = 128;

/// A caller whose signature was verified. Cannot be made outside this module but by [`Verified::in_process`].
#[derive(Debug, Clone)]
pub struct Verified {
    account: String,
    access_key_id: String,
    service: String,
    region: String,
    signed_at: Option<i64>,
    payload: PayloadForm,
    decoded_length: Option<u64>,
    trailers: Vec<String>,
    chunk_key: Option<ChunkKey>,
}

impl Verified {
    /// The caller of work that arises inside the server and never crossed a socket.
    pub fn in_process(account: &str) -> Self {
        Self {
            account: account.to_owned(),
            access_key_id: "in-process".to_owned(),
            service: "in-process".to_owned(),
            region: String::new(),
            signed_at: None,
            payload: PayloadForm::Unsigned,
            decoded_length: None,
            trailers: Vec::new(),
            chunk_key: None,
        }
    }

    pub fn account(&self) -> &str {
        &self.account
    }

    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    /// The service of the credential scope: `s3` or `lambda`.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// The region of the credential scope; empty for work that arose in process.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// When the request says that it was signed, in seconds since the epoch; `None` for work that arose in process.
    pub fn signed_at(&self) -> Option<i64> {
        self.signed_at
    }

    /// What the signature says of the body. Never [`PayloadForm::Implied`]: by now that is a known hash.
    pub fn payload(&self) -> PayloadForm {
        self.payload
    }

    /// `x-amz-decoded-content-length` of a chunked body, in bytes.
    pub fn decoded_length(&self) -> Option<u64> {
        self.decoded_length
    }

    #[cfg(test)]
    pub(crate) fn chunk_key_for_tests(&self) -> Option<ChunkKey> {
        self.chunk_key.clone()
    }

    /// What the body must be passed through before it may be believed.
    pub fn decoder(&self) -> Result<Decoder, PayloadError> {
        Decoder::new(self.payload, self.decoded_length, self.trailers.clone(), self.chunk_key.clone())
    }
}

/// What a server accepts.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// Regions that a credential scope may name; for more than one, errors name the first.
    pub regions: &'a [&'a str],
    /// Services that a credential scope may name.
    pub services: &'a [&'a str],
    /// May a request with an `Authorization` header leave its body unsigned? Presigned URLs always may. To be off
    /// where the body crosses a network in the clear.
    pub unsigned_payload: bool,
    pub keys: Option<&'a KeyCache>,
}

/// Who a request says it is from, and what it signed. Nothing in it is proven.
#[derive(Debug, Clone)]
pub struct Claim {
    access_key_id: String,
    scope_date: String,
    region: String,
    service: String,
    /// The request's time as it stands in the string to sign.
    date_time: String,
    at: i64,
    /// Seconds that a presigned URL is good for; `None` for an `Authorization` header.
    expires: Option<u32>,
    security_token: Option<String>,
    /// As sent, at most 65 characters of it: it need not be a signature at all, and one that is a character too long
    /// is none.
    signature: String,
    /// The canonical request without its last line.
    canonical: Vec<u8>,
    /// The same with tabs as spaces, where a signed header has one. The SDKs for Python, JavaScript and Java sign them so, those for
    /// Go and Rust as they stand.
    without_tabs: Option<Vec<u8>>,
    payload: PayloadForm,
    decoded_length: Option<u64>,
    trailers: Vec<String>,
}

impl Claim {
    /// Reads the authentication of a request: an `Authorization` header, or a presigned URL's query.
    ///
    /// `target` is path and query as they stand on the wire. Checked here, because no key is needed: that there is
    /// exactly one authentication and it is whole; that `host` and every `x-amz-*` header is signed; that dates agree;
    /// that the payload's form is one we can check; for services other than S3, that the path has no dot or empty
    /// segments (a signature covers the path without them, so it would hold for many paths).
    pub fn parse(method: &Method, target: &str, headers: &HeaderMap) -> Result<Self, AuthError> {
        let (path, query) = canonical::split_target(target);
        let query_auth = QueryAuth::find(query)?;
        let parts = match (header(headers, "authorization")?, query_auth) {
            (Some(_), Some(_)) => return Err(AuthError::TwoAuthentications),
            (None, None) => return Err(AuthError::Missing),
            (Some(value), None) => Parts::from_header(value, headers)?,
            (None, Some(found)) => found.into_parts()?,
        };
        let malformed = |what| AuthError::malformed(parts.presigned(), what);

        let [access_key_id, scope_date, region, service] = scope(&parts.credential).ok_or(malformed("Credential"))?;
        let at = parts.at.ok_or(AuthError::Date)?;
        let date_time = date::format_basic(at);
        if !date_time.starts_with(scope_date) {
            return Err(AuthError::ScopeDate);
        }

        let signed: Vec<&str> = parts.signed_headers.split(';').collect();
        let lower = |name: &str| !name.is_empty() && !name.bytes().any(|b| b.is_ascii_uppercase());
        if !signed.is_sorted_by(|a, b| a < b) || !signed.iter().all(|name| lower(name)) {
            return Err(malformed("SignedHeaders"));
        }
        let is_signed = |name: &str| signed.binary_search(&name).is_ok();
        if let Some(absent) = signed.iter().find(|name| !headers.contains_key(**name)) {
            return Err(AuthError::SignedHeaderAbsent((*absent).to_owned()));
        }
        if headers.get_all("host").iter().count() > 1 {
            return Err(AuthError::Duplicate("host"));
        }
        // The time of a request that has no x-amz-date is in its date header, which then has to be signed too.
        let must_sign = |name: &str| {
            (name.starts_with("x-amz-") && !(parts.presigned() && SENT_WITH_PRESIGNED.contains(&name)))
                || (name == "date" && !parts.presigned() && !headers.contains_key("x-amz-date"))
        };
        let unsigned: Vec<&str> =
            headers.keys().map(|name| name.as_str()).filter(|name| must_sign(name) && !is_signed(name)).collect();
        if !unsigned.is_empty() || !is_signed("host") {
            let names = if unsigned.is_empty() { "host".to_owned() } else { unsigned.join(", ") };
            return Err(AuthError::HeadersNotSigned(names));
        }

        let is_s3 = service == "s3";
        let style = PathStyle::of(service);
        if style == PathStyle::NormalizedAndEncodedAgain && canonical::normalized(path) != path {
            return Err(AuthError::Path);
        }
        let payload = payload_form(&parts, is_s3, headers)?;
        let (mut decoded_length, mut trailers) = (None, Vec::new());
        if payload.is_chunked() {
            decoded_length = header(headers, "x-amz-decoded-content-length")?.and_then(decimal);
            let names =
                header(headers, "x-amz-trailer")?.unwrap_or("").split(',').map(|n| n.trim().to_ascii_lowercase());
            trailers.extend(names.filter(|name| !name.is_empty()));
        }
        let (path, query) = (canonical::path(style, path), canonical::query(query, parts.presigned()));
        let canonical_of =
            |tabs| canonical::request_with(method.as_str(), &path, &query, headers, signed.iter().copied(), tabs);
        let mut values = signed.iter().flat_map(|name| headers.get_all(*name));
        let without_tabs = values.any(|value| value.as_bytes().contains(&b'\t')).then(|| canonical_of(Tabs::AsSpaces));
        let canonical = canonical_of(Tabs::Kept);
        Ok(Self {
            access_key_id: access_key_id.to_owned(),
            scope_date: scope_date.to_owned(),
            region: region.to_owned(),
            service: service.to_owned(),
            date_time,
            at,
            expires: parts.expires,
            security_token: parts.security_token.clone(),
            signature: parts.signature.chars().take(65).collect(),
            canonical,
            without_tabs,
            payload,
            decoded_length,
            trailers,
        })
    }

    /// The key to look up. 1 to 128 printable ASCII characters; nothing else is known of it.
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    pub fn service(&self) -> &str {
        &self.service
    }

    pub fn region(&self) -> &str {
        &self.region
    }

    pub fn security_token(&self) -> Option<&str> {
        self.security_token.as_deref()
    }

    pub fn payload(&self) -> PayloadForm {
        self.payload
    }

    /// Was this a presigned URL?
    pub fn is_presigned(&self) -> bool {
        self.expires.is_some()
    }

    /// Must [`Claim::verify`] be given the SHA-256 of the body?
    pub fn needs_body_hash(&self) -> bool {
        self.payload == PayloadForm::Implied
    }

    /// Proves the claim, or says why it does not hold.
    ///
    /// `now` is in seconds since the epoch. `body_sha256` is needed if [`Claim::needs_body_hash`]. Whoever has read the
    /// whole body gives it always: then a hash that the request names must be equal, and chunks, which nobody would
    /// decode any more, are refused. For an access key that does not exist pass
    /// [`Key::unknown`], which costs the same work and always fails.
    pub fn verify(
        &self,
        key: &Key<'_>,
        rules: &Rules<'_>,
        now: i64,
        body_sha256: Option<[u8; 32]>,
    ) -> Result<Verified, AuthError> {
        if !rules.services.contains(&self.service.as_str()) {
            return Err(AuthError::Service { given: self.service.clone(), presigned: self.is_presigned() });
        }
        if !rules.regions.contains(&self.region.as_str()) {
            let expected = rules.regions.first().copied().unwrap_or_default().to_owned();
            return Err(AuthError::Region { given: self.region.clone(), expected, presigned: self.is_presigned() });
        }
        self.check_time(now)?;
        if self.payload.is_unsigned() && !self.is_presigned() && !rules.unsigned_payload {
            return Err(AuthError::UnsignedPayload);
        }
        let (payload, last_line) = match (self.payload, body_sha256) {
            (PayloadForm::Implied, None) => return Err(AuthError::BodyNotHashed),
            (PayloadForm::Implied, Some(hash)) => (PayloadForm::Hash(hash), hex::encode(hash)),
            (form, _) => (form, form.header_value().unwrap_or_default()),
        };

        let scope = format!("{}/{}/{}/aws4_request", self.scope_date, self.region, self.service);
        let signing_key = match rules.keys {
            Some(cache) => cache.signing_key(&self.access_key_id, key, &scope),
            None => SigningKey::derive(key.secret, &scope),
        };
        let to_sign = string_to_sign(&self.date_time, &scope, &self.canonical, &last_line);
        let mut computed = signing_key.sign(to_sign.as_bytes());
        // Compared as the hexadecimal text that was sent, so that there is one spelling of a signature.
        let is_sent = |computed| bool::from(hex::encode(computed).as_bytes().ct_eq(self.signature.as_bytes()));
        let mut same = is_sent(computed);
        if let (false, Some(canonical)) = (same, &self.without_tabs) {
            let to_sign = string_to_sign(&self.date_time, &scope, canonical, &last_line);
            computed = signing_key.sign(to_sign.as_bytes());
            same = is_sent(computed);
        }
        if !key.known {
            return Err(AuthError::UnknownKey(self.access_key_id.clone()));
        }
        if !same {
            let mut canonical = String::from_utf8_lossy(&self.canonical).into_owned();
            canonical.push_str(&last_line);
            return Err(AuthError::Signature(Box::new(error::Mismatch {
                access_key_id: self.access_key_id.clone(),
                string_to_sign: to_sign,
                provided: self.signature.clone(),
                canonical,
            })));
        }
        key.check_token(self.security_token.as_deref(), now)?;
        if payload.is_chunked() && body_sha256.is_some() {
            return Err(AuthError::PayloadForm);
        }
        if let (PayloadForm::Hash(wanted), Some(given)) = (payload, body_sha256)
            && !bool::from(wanted.ct_eq(&given))
        {
            return Err(AuthError::Payload(PayloadError::Hash));
        }
        let signed_chunks = matches!(payload, PayloadForm::SignedChunks | PayloadForm::SignedChunksTrailer);
        Ok(Verified {
            account: key.account.to_owned(),
            access_key_id: self.access_key_id.clone(),
            service: self.service.clone(),
            region: self.region.clone(),
            signed_at: Some(self.at),
            payload,
            decoded_length: self.decoded_length,
            trailers: self.trailers.clone(),
            chunk_key: signed_chunks.then(|| ChunkKey::new(signing_key, self.date_time.clone(), scope, computed)),
        })
    }

    fn check_time(&self, now: i64) -> Result<(), AuthError> {
        match self.expires {
            None if (now - self.at).abs() > SKEW_SECONDS_MAX => {
                Err(AuthError::Skewed { request: self.at, now, date_time: self.date_time.clone() })
            }
            Some(_) if self.at > now + SKEW_SECONDS_MAX => Err(AuthError::NotYetValid { now, from: self.at }),
            Some(seconds) if now >= self.at + i64::from(seconds) => {
                Err(AuthError::Expired { seconds, at: self.at + i64::from(seconds), now })
            }
            _ => Ok(()),
        }
    }
}

/// Headers that the AWS SDK for Rust sends beside a presigned URL without signing them. Both only say how the answer
/// should look or who asks.
const SENT_WITH_PRESIGNED: [&str; 2] = ["x-amz-checksum-mode", "x-amz-user-agent"];

/// The one value of a header that must not come twice.
fn header<'h>(headers: &'h HeaderMap, name: &'static str) -> Result<Option<&'h str>, AuthError> {
    let mut values = headers.get_all(name).iter();
    let Some(first) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(AuthError::Duplicate(name));
    }
    Ok(Some(first.to_str().map_err(|_| AuthError::malformed(false, name))?))
}

fn decimal(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// 64 lower-case hexadecimal digits.
pub(crate) fn parse_hex32(text: &str) -> Option<[u8; 32]> {
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        return None;
    }
    let mut out = [0; 32];
    hex::decode_to_slice(text, &mut out).ok()?;
    Some(out)
}

/// Access key ID, date, region and service of `ID/20130524/us-east-1/s3/aws4_request`.
fn scope(credential: &str) -> Option<[&str; 4]> {
    let parts: Vec<&str> = credential.splitn(6, '/').collect();
    let [id, date, region, service, "aws4_request"] = parts[..] else { return None };
    let id_ok = (1..=ACCESS_KEY_ID_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic());
    let name_ok = |name: &str| {
        (1..=64).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
    };
    let date_ok = date.len() == 8 && date.bytes().all(|b| b.is_ascii_digit());
    (id_ok && date_ok && name_ok(region) && name_ok(service)).then_some([id, date, region, service])
}

/// The text that is signed. `canonical` lacks its last line, which `payload` is.
fn string_to_sign(date_time: &str, scope: &str, canonical: &[u8], payload: &str) -> String {
    let hash = Sha256::new().chain_update(canonical).chain_update(payload).finalize();
    format!("{ALGORITHM}\n{date_time}\n{scope}\n{}", hex::encode(hash))
}

fn payload_form(parts: &Parts, is_s3: bool, headers: &HeaderMap) -> Result<PayloadForm, AuthError> {
    let in_header = header(headers, "x-amz-content-sha256")?;
    let given = match (in_header, parts.content_sha256.as_deref()) {
        (Some(a), Some(b)) if a != b => return Err(AuthError::malformed(true, "X-Amz-Content-Sha256")),
        (a, b) => a.or(b),
    };
    let form = match given {
        Some(value) => PayloadForm::parse(value).ok_or(AuthError::PayloadForm)?,
        None if !is_s3 => PayloadForm::Implied,
        // The URL is signed before anybody knows the body.
        None if parts.presigned() => PayloadForm::Unsigned,
        None => return Err(AuthError::PayloadHashMissing),
    };
    // Only S3 takes chunks, and only behind an `Authorization` header.
    if form.is_chunked() && (!is_s3 || parts.presigned()) {
        return Err(AuthError::PayloadForm);
    }
    Ok(form)
}

/// The parts of an authentication, wherever they stood.
struct Parts {
    credential: String,
    signed_headers: String,
    signature: String,
    /// `None` if there was a date and it is none.
    at: Option<i64>,
    expires: Option<u32>,
    security_token: Option<String>,
    content_sha256: Option<String>,
}

impl Parts {
    fn presigned(&self) -> bool {
        self.expires.is_some()
    }

    fn from_header(value: &str, headers: &HeaderMap) -> Result<Self, AuthError> {
        let (scheme, rest) = value.split_once(' ').unwrap_or((value, ""));
        match scheme {
            ALGORITHM => {}
            other if other.starts_with("AWS") => return Err(AuthError::OldSignature),
            _ => return Err(AuthError::Scheme),
        }
        let mut found = [None; 3];
        for part in rest.split(',') {
            let (name, value) = part.trim().split_once('=').ok_or(AuthError::malformed(false, "Authorization"))?;
            let names = ["Credential", "SignedHeaders", "Signature"];
            let i = names.iter().position(|n| *n == name).ok_or(AuthError::malformed(false, "Authorization"))?;
            if found[i].replace(value.trim()).is_some() {
                return Err(AuthError::malformed(false, names[i]));
            }
        }
        let [credential, signed_headers, signature] = found;
        let at = match header(headers, "x-amz-date")? {
            Some(date) => date::parse_basic(date),
            None => date::parse_header(header(headers, "date")?.ok_or(AuthError::DateMissing)?),
        };
        Ok(Self {
            credential: credential.ok_or(AuthError::malformed(false, "Credential"))?.to_owned(),
            signed_headers: signed_headers.ok_or(AuthError::malformed(false, "SignedHeaders"))?.to_owned(),
            signature: signature.ok_or(AuthError::malformed(false, "Signature"))?.to_owned(),
            at,
            expires: None,
            security_token: header(headers, "x-amz-security-token")?.map(str::to_owned),
            content_sha256: None,
        })
    }
}

/// The parameters of a presigned URL, decoded, in the order of `QueryAuth::NAMES`.
struct QueryAuth([Option<String>; 8]);

impl QueryAuth {
    const NAMES: [&'static str; 8] = [
        "X-Amz-Algorithm",
        "X-Amz-Credential",
        "X-Amz-SignedHeaders",
        "X-Amz-Signature",
        "X-Amz-Date",
        "X-Amz-Expires",
        "X-Amz-Security-Token",
        "X-Amz-Content-Sha256",
    ];

    fn find(query: &str) -> Result<Option<Self>, AuthError> {
        let mut found: [Option<String>; 8] = Default::default();
        let mut old = false;
        for (name, value) in canonical::query_pairs(query) {
            old |= matches!(&*name, b"AWSAccessKeyId" | b"Signature");
            let Some(i) = Self::NAMES.iter().position(|n| n.as_bytes() == &*name) else { continue };
            let value =
                String::from_utf8(value.into_owned()).map_err(|_| AuthError::malformed(true, Self::NAMES[i]))?;
            if found[i].replace(value).is_some() {
                return Err(AuthError::Duplicate(Self::NAMES[i]));
            }
        }
        // The date, the token and the hash alone are no attempt to authenticate.
        match found[..4].iter().any(Option::is_some) {
            true if old => Err(AuthError::TwoAuthentications),
            true => Ok(Some(Self(found))),
            false if old => Err(AuthError::OldSignature),
            false => Ok(None),
        }
    }

    fn into_parts(self) -> Result<Parts, AuthError> {
        let missing = |what| AuthError::malformed(true, what);
        let [algorithm, credential, signed_headers, signature, date, expires, security_token, content_sha256] = self.0;
        match algorithm.as_deref() {
            Some(ALGORITHM) => {}
            Some(other) if other.starts_with("AWS") => return Err(AuthError::OldSignature),
            _ => return Err(missing("X-Amz-Algorithm")),
        }
        let expires = expires.as_deref().and_then(decimal).and_then(|n| u32::try_from(n).ok());
        let expires = expires.filter(|n| (1..=EXPIRES_SECONDS_MAX).contains(n)).ok_or(AuthError::ExpiresRange)?;
        Ok(Parts {
            credential: credential.ok_or(missing("X-Amz-Credential"))?,
            signed_headers: signed_headers.ok_or(missing("X-Amz-SignedHeaders"))?,
            signature: signature.ok_or(missing("X-Amz-Signature"))?,
            at: date::parse_basic(&date.ok_or(missing("X-Amz-Date"))?),
            expires: Some(expires),
            security_token,
            content_sha256,
        })
    }
}
