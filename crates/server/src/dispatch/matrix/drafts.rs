//! Requests of the matrix: what a client means, and what it signs of it. Signed by hand, for the wire's own signer signs only what is
//! right.

use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderName, HeaderValue, Method};
use sha2::{Digest, Sha256};

use super::world::{ACCOUNT, HOST, REGION};

/// Whose key a request is signed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    pub id: String,
    pub secret: String,
    pub token: Option<String>,
}

/// A request before it is signed. All of it may be changed; what is signed follows.
#[derive(Debug, Clone)]
pub struct Draft {
    pub method: String,
    /// Path and query in the form that is signed: names in order, each with a `=`.
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub keys: Keys,
    pub service: String,
    pub region: String,
    /// Seconds since the epoch.
    pub at: i64,
    /// The date in the scope; else that of `at`.
    pub scope_date: Option<String>,
    /// `x-amz-content-sha256`; else the hash of the body.
    pub payload: Option<String>,
    /// Headers that are sent and left out of the signature.
    pub unsigned: Vec<String>,
}

/// A request on the wire.
#[derive(Debug, Clone)]
pub struct Sent {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The key of a signature, and what the signatures of chunks follow from.
    pub seed: Seed,
}

#[derive(Debug, Clone, Default)]
pub struct Seed {
    key: Vec<u8>,
    date_time: String,
    scope: String,
    pub signature: String,
}

pub fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// `20260731T120000Z`
pub fn basic(at: i64) -> String {
    jiff::Timestamp::from_second(at).unwrap().strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// All but letters, digits and `-._~`.
pub fn encoded(text: &str) -> String {
    let kept = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if kept(byte) { (byte as char).to_string() } else { format!("%{byte:02X}") }).collect()
}

impl Draft {
    pub fn header(&mut self, name: &str, value: &str) {
        self.headers.retain(|(given, _)| given != name);
        self.headers.push((name.into(), value.into()));
    }

    fn scope(&self) -> String {
        let date = self.scope_date.clone().unwrap_or_else(|| basic(self.at)[..8].to_owned());
        format!("{date}/{}/{}/aws4_request", self.region, self.service)
    }

    fn key(&self) -> Vec<u8> {
        let mut key = format!("AWS4{}", self.keys.secret).into_bytes();
        for part in self.scope().split('/') {
            key = mac(&key, part);
        }
        key
    }

    fn signed_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.headers.iter().map(|(name, _)| name.clone()).collect();
        names.retain(|name| !self.unsigned.contains(name));
        names.sort();
        names.dedup();
        names
    }

    fn canonical(&self, names: &[String], payload: &str) -> String {
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let path = match &*self.service {
            "s3" => path.to_owned(),
            _ => path.split('/').map(encoded).collect::<Vec<_>>().join("/"),
        };
        let mut pairs: Vec<&str> = query.split('&').filter(|pair| !pair.is_empty()).collect();
        pairs.sort_unstable();
        let mut text = format!("{}\n{path}\n{}\n", self.method, pairs.join("&"));
        for name in names {
            let values: Vec<&str> =
                self.headers.iter().filter(|(given, _)| given == name).map(|(_, value)| value.trim()).collect();
            text.push_str(&format!("{name}:{}\n", values.join(",")));
        }
        text.push_str(&format!("\n{}\n{payload}", names.join(";")));
        text
    }

    fn signature(&self, names: &[String], payload: &str) -> Seed {
        let (date_time, scope, key) = (basic(self.at), self.scope(), self.key());
        let canonical = hash(self.canonical(names, payload).as_bytes());
        let signature = hex::encode(mac(&key, &format!("AWS4-HMAC-SHA256\n{date_time}\n{scope}\n{canonical}")));
        Seed { key, date_time, scope, signature }
    }

    /// With an `Authorization` header.
    pub fn signed(mut self) -> Sent {
        let payload = self.payload.clone().unwrap_or_else(|| hash(&self.body));
        self.header("x-amz-content-sha256", &payload);
        self.signed_over(payload)
    }

    /// As botocore signs for all but S3: the hash of the body is part of the signature, and in no header.
    pub fn signed_without_hash(self) -> Sent {
        let payload = hash(&self.body);
        self.signed_over(payload)
    }

    fn signed_over(mut self, payload: String) -> Sent {
        self.header("x-amz-date", &basic(self.at));
        if let Some(token) = self.keys.token.clone() {
            self.header("x-amz-security-token", &token);
        }
        let names = self.signed_names();
        let seed = self.signature(&names, &payload);
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{}, SignedHeaders={}, Signature={}",
            self.keys.id,
            self.scope(),
            names.join(";"),
            seed.signature
        );
        self.headers.push(("authorization".into(), authorization));
        Sent { method: self.method, target: self.target, headers: self.headers, body: self.body, seed }
    }

    /// With the signature in the query. `expires` as it is to stand there.
    pub fn presigned(mut self, expires: &str) -> Sent {
        let names = self.signed_names();
        let mut pairs = vec![
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256".to_owned()),
            ("X-Amz-Credential", format!("{}/{}", self.keys.id, self.scope())),
            ("X-Amz-Date", basic(self.at)),
            ("X-Amz-Expires", expires.to_owned()),
            ("X-Amz-SignedHeaders", names.join(";")),
        ];
        if let Some(token) = &self.keys.token {
            pairs.push(("X-Amz-Security-Token", token.clone()));
        }
        for (name, value) in pairs {
            self.target.push(if self.target.contains('?') { '&' } else { '?' });
            self.target.push_str(&format!("{name}={}", encoded(&value)));
        }
        let payload = match (&self.payload, &*self.service) {
            (Some(payload), _) => payload.clone(),
            (None, "s3") => "UNSIGNED-PAYLOAD".into(),
            (None, _) => hash(&self.body),
        };
        let seed = self.signature(&names, &payload);
        self.target.push_str(&format!("&X-Amz-Signature={}", seed.signature));
        Sent { method: self.method, target: self.target, headers: self.headers, body: self.body, seed }
    }

    /// Under another key, with everything else the same.
    pub fn with(&self, keys: &Keys) -> Self {
        Self { keys: keys.clone(), ..self.clone() }
    }
}

impl Seed {
    /// The signature of a chunk behind `before`.
    fn chunk(&self, before: &str, data: &[u8]) -> String {
        let Self { date_time, scope, .. } = self;
        let text = format!("AWS4-HMAC-SHA256-PAYLOAD\n{date_time}\n{scope}\n{before}\n{}\n{}", hash(b""), hash(data));
        hex::encode(mac(&self.key, &text))
    }

    fn trailer(&self, before: &str, trailers: &str) -> String {
        let Self { date_time, scope, .. } = self;
        let text = format!("AWS4-HMAC-SHA256-TRAILER\n{date_time}\n{scope}\n{before}\n{}", hash(trailers.as_bytes()));
        hex::encode(mac(&self.key, &text))
    }
}

/// Where a chunked body is forged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forged {
    Nowhere,
    Seed,
    Data,
    Chunk,
    LastChunk,
    Trailer,
}

/// A chunked body of one chunk, with signed chunks, and a signed trailer if `trailer` is.
pub fn chunked(mut draft: Draft, trailer: bool, forged: Forged) -> Sent {
    let data = std::mem::take(&mut draft.body);
    let form =
        if trailer { "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER" } else { "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" };
    draft.payload = Some(form.into());
    draft.headers.retain(|(name, _)| name != "content-length");
    draft.header("x-amz-decoded-content-length", &data.len().to_string());
    draft.header("content-encoding", "aws-chunked");
    let checksum = crc32(&data);
    if trailer {
        draft.header("x-amz-trailer", "x-amz-checksum-crc32");
    }
    let mut sent = draft.signed();
    let wrong = |signature: String, here: bool| if here { flipped(&signature) } else { signature };
    let seed = wrong(sent.seed.signature.clone(), forged == Forged::Seed);
    let first = wrong(sent.seed.chunk(&seed, &data), forged == Forged::Chunk);
    let last = wrong(sent.seed.chunk(&first, b""), forged == Forged::LastChunk);
    let mut body = format!("{:x};chunk-signature={first}\r\n", data.len()).into_bytes();
    let at = body.len();
    body.extend_from_slice(&data);
    if forged == Forged::Data {
        body[at] ^= 1;
    }
    body.extend_from_slice(format!("\r\n0;chunk-signature={last}\r\n").as_bytes());
    if trailer {
        let line = format!("x-amz-checksum-crc32:{checksum}\n");
        let signature = wrong(sent.seed.trailer(&last, &line), forged == Forged::Trailer);
        body.extend_from_slice(
            format!("x-amz-checksum-crc32:{checksum}\r\nx-amz-trailer-signature:{signature}\r\n").as_bytes(),
        );
    }
    body.extend_from_slice(b"\r\n");
    if forged == Forged::Seed {
        for (name, value) in &mut sent.headers {
            if name == "authorization" {
                *value = value.replace(&sent.seed.signature, &seed);
            }
        }
    }
    sent.headers.push(("content-length".into(), body.len().to_string()));
    sent.body = body;
    sent
}

fn crc32(data: &[u8]) -> String {
    use base64::Engine;
    let mut crc = !0u32;
    for byte in data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    base64::engine::general_purpose::STANDARD.encode((!crc).to_be_bytes())
}

/// Another signature, one bit away.
pub fn flipped(signature: &str) -> String {
    let last = signature.chars().last().unwrap();
    let other = char::from_digit(last.to_digit(16).unwrap() ^ 1, 16).unwrap();
    format!("{}{other}", &signature[..signature.len() - 1])
}

impl Sent {
    pub fn header(&mut self, name: &str) -> Option<&mut String> {
        self.headers.iter_mut().find(|(given, _)| given == name).map(|(_, value)| value)
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.headers.retain(|(given, _)| given != name);
        self.headers.push((name.into(), value.into()));
    }

    pub fn without(&mut self, name: &str) {
        self.headers.retain(|(given, _)| given != name);
    }

    /// Puts something else for a part of the `Authorization` header.
    pub fn authorization(&mut self, change: impl FnOnce(&str) -> String) {
        let value = self.header("authorization").expect("it is signed in a header");
        *value = change(value);
    }

    /// As it comes to the server; `None` where no request line can hold the target.
    pub fn request(&self) -> Option<http::Request<Vec<u8>>> {
        let mut request = http::Request::builder()
            .method(Method::from_bytes(self.method.as_bytes()).ok()?)
            .uri(&self.target)
            .body(self.body.clone())
            .ok()?;
        for (name, value) in &self.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            request.headers_mut().append(name, HeaderValue::from_str(value).ok()?);
        }
        if !request.headers().contains_key("content-length") && !self.body.is_empty() {
            request.headers_mut().insert("content-length", HeaderValue::from(self.body.len()));
        }
        Some(request)
    }
}

/// What every draft begins with.
pub fn draft(method: &str, target: &str, service: &str, keys: &Keys) -> Draft {
    let mut draft = Draft {
        method: method.into(),
        target: target.into(),
        headers: vec![("host".into(), HOST.into())],
        body: Vec::new(),
        keys: keys.clone(),
        service: service.into(),
        region: REGION.into(),
        at: jiff::Timestamp::now().as_second(),
        scope_date: None,
        payload: None,
        unsigned: Vec::new(),
    };
    if target.starts_with("/v20180820/") {
        draft.header("x-amz-account-id", ACCOUNT);
    }
    draft
}
