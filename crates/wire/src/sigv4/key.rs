//! Secrets, and the keys derived from them. None of these prints what it holds.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::error::AuthError;

/// Stands in for the secret of an access key that does not exist. Worth nothing: whoever signs with it is refused.
const DUMMY_SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

/// What the server knows of the access key that a request names.
#[derive(Clone, Copy)]
pub struct Key<'a> {
    pub(super) secret: &'a str,
    pub(super) account: &'a str,
    pub(super) known: bool,
    token: Option<&'a str>,
    /// Seconds since the epoch; only keys with a token expire.
    expires_at: i64,
}

impl<'a> Key<'a> {
    /// A lasting key: a request that carries a session token is refused.
    pub fn lasting(secret: &'a str, account: &'a str) -> Self {
        Self { secret, account, known: true, token: None, expires_at: i64::MAX }
    }

    /// A temporary key: a request must carry `token`, and come before `expires_at`, in seconds since the epoch.
    pub fn temporary(secret: &'a str, account: &'a str, token: &'a str, expires_at: i64) -> Self {
        Self { secret, account, known: true, token: Some(token), expires_at }
    }

    /// No such key. Verifying with it costs what a known key costs and never succeeds.
    pub fn unknown() -> Self {
        Self { secret: DUMMY_SECRET, account: "", known: false, token: None, expires_at: 0 }
    }

    pub(super) fn check_token(&self, given: Option<&str>, now: i64) -> Result<(), AuthError> {
        match (self.token, given) {
            (None, None) => return Ok(()),
            (Some(wanted), Some(given)) if bool::from(wanted.as_bytes().ct_eq(given.as_bytes())) => {}
            _ => return Err(AuthError::Token),
        }
        if now >= self.expires_at { Err(AuthError::TokenExpired) } else { Ok(()) }
    }
}

impl fmt::Debug for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("account", &self.account).field("known", &self.known).finish_non_exhaustive()
    }
}

fn hmac(key: &[u8], data: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(data);
    mac.finalize().into_bytes().into()
}

/// The key of one (secret, date, region, service). Whoever has it can sign for a day: wiped when it is let go of.
#[derive(Clone)]
pub(crate) struct SigningKey([u8; 32]);

impl Drop for SigningKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl ZeroizeOnDrop for SigningKey {}

impl SigningKey {
    /// `scope` is `20130524/us-east-1/s3/aws4_request`.
    pub(super) fn derive(secret: &str, scope: &str) -> Self {
        let first = Zeroizing::new([b"AWS4", secret.as_bytes()].concat());
        let mut parts = scope.split('/');
        let mut key = Zeroizing::new(hmac(&first, parts.next().unwrap_or_default().as_bytes()));
        for part in parts {
            key = Zeroizing::new(hmac(&*key, part.as_bytes()));
        }
        Self(*key)
    }

    pub(super) fn sign(&self, text: &[u8]) -> [u8; 32] {
        hmac(&self.0, text)
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Signing keys already derived, so that a request costs one HMAC instead of five. Shared by all connections.
#[derive(Default)]
pub struct KeyCache(Mutex<HashMap<String, ([u8; 32], SigningKey)>>);

/// Access keys times services times the day that begins: a few each. Beyond that, all are derived anew.
const CACHED_KEYS_MAX: usize = 1024;

impl KeyCache {
    pub(super) fn signing_key(&self, access_key_id: &str, key: &Key<'_>, scope: &str) -> SigningKey {
        // An unknown key has an entry too, the same for all: otherwise it would be told by its slowness.
        let id = if key.known { access_key_id } else { "" };
        let name = format!("{id}/{scope}");
        // A secret may be replaced under the same ID; its hash notices.
        let secret: [u8; 32] = Sha256::digest(key.secret).into();
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, found)) = entries.get(&name)
            && bool::from(of.ct_eq(&secret))
        {
            return found.clone();
        }
        if entries.len() >= CACHED_KEYS_MAX {
            entries.clear();
        }
        let derived = SigningKey::derive(key.secret, scope);
        entries.insert(name, (secret, derived.clone()));
        derived
    }
}

impl fmt::Debug for KeyCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyCache")
    }
}

/// What the chunks of one request are signed with: the signing key, and the request's signature as the first link.
#[derive(Clone)]
pub struct ChunkKey {
    key: SigningKey,
    date_time: String,
    scope: String,
    seed: [u8; 32],
}

impl ChunkKey {
    pub(super) fn new(key: SigningKey, date_time: String, scope: String, seed: [u8; 32]) -> Self {
        Self { key, date_time, scope, seed }
    }

    /// The signature of the request.
    pub fn seed(&self) -> [u8; 32] {
        self.seed
    }

    /// The signature of a chunk with that SHA-256, after the chunk with the signature `previous`.
    pub fn chunk_signature(&self, previous: &[u8; 32], chunk_sha256: &[u8; 32]) -> [u8; 32] {
        let empty = hex::encode(Sha256::digest([]));
        self.link("AWS4-HMAC-SHA256-PAYLOAD", previous, &format!("{empty}\n{}", hex::encode(chunk_sha256)))
    }

    /// The signature of trailers. The hash is of `name:value\n` for each, sorted by name.
    pub fn trailer_signature(&self, previous: &[u8; 32], trailers_sha256: &[u8; 32]) -> [u8; 32] {
        self.link("AWS4-HMAC-SHA256-TRAILER", previous, &hex::encode(trailers_sha256))
    }

    fn link(&self, kind: &str, previous: &[u8; 32], hashes: &str) -> [u8; 32] {
        let Self { date_time, scope, .. } = self;
        self.key.sign(format!("{kind}\n{date_time}\n{scope}\n{}\n{hashes}", hex::encode(previous)).as_bytes())
    }
}

impl fmt::Debug for ChunkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkKey").field("scope", &self.scope).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signing_key_is_wiped_when_it_is_let_go_of() {
        fn is_wiped<T: ZeroizeOnDrop>() {}
        is_wiped::<SigningKey>();
    }
}
