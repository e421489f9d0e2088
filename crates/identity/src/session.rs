//! Short-lived credentials: nothing of them is stored.
//!
//! A session's token carries, sealed, whose it is and what it may; its secret is derived from the token under the key beside the
//! database. So sessions survive a restart, cost no write, and die with the role or user that they are of, whose present
//! policies are asked. Source: docs/decisions/0044.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use longshore_store::{Seal, Secret};
use serde::{Deserialize, Serialize};

use crate::error::IdentityError;
use crate::ids::{self, Prefix};

/// Characters of a token. Clients keep it in an environment variable and send it in a header, for which servers have 8 KiB and
/// more; AWS advises to expect 4,096.
pub(crate) const TOKEN_CHARS_MAX: usize = 4_096;
/// What a token may inflate to: ten times what policies and tags have at most before they are packed.
const CLAIMS_BYTES_MAX: u64 = 256 * 1_024;
/// Bytes up to which a text is kept as it is. Such a token is opened with each request, and to inflate it would cost more than all
/// else; what sessions of functions and jobs carry is a quarter of this.
const PLAIN_BYTES_MAX: usize = 1_024;
const PLAIN: u8 = 0;
const DEFLATED: u8 = 1;
/// What a token is sealed for.
const TOKEN: &str = "session token";
/// What a secret is derived for.
const SECRET: &str = "secret access key of a session";

/// Whose session it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Of {
    #[serde(rename = "o")]
    Root,
    /// By ID.
    #[serde(rename = "u")]
    User(String),
    /// By ID, and the session's name.
    #[serde(rename = "r")]
    Role(String, String),
}

/// What a token carries. Members that are empty are left out of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    /// `ASIA…`
    #[serde(rename = "k")]
    pub access_key_id: String,
    #[serde(rename = "w")]
    pub of: Of,
    /// Seconds since the epoch.
    #[serde(rename = "i")]
    pub issued_at: i64,
    #[serde(rename = "e")]
    pub expires_at: i64,
    #[serde(flatten)]
    pub terms: Terms,
}

/// What whoever began a session set for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Terms {
    /// The document of a session policy.
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Managed policies as session policies.
    #[serde(rename = "a", default, skip_serializing_if = "Vec::is_empty")]
    pub policy_arns: Vec<String>,
    #[serde(rename = "t", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Keys of the tags that go on to the sessions that this one begins.
    #[serde(rename = "x", default, skip_serializing_if = "BTreeSet::is_empty")]
    pub transitive: BTreeSet<String>,
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub source_identity: Option<String>,
}

impl Terms {
    /// Was it begun with policies of its own?
    pub fn has_policies(&self) -> bool {
        self.policy.is_some() || !self.policy_arns.is_empty()
    }
}

/// Credentials of a session. `Debug` shows neither secret nor token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionCredentials {
    /// `ASIA…`
    pub access_key_id: String,
    pub secret_access_key: Secret,
    pub session_token: Secret,
    /// Seconds since the epoch.
    pub expires_at: i64,
}

/// Makes the credentials of a session. `Err(PackedPolicyTooLarge)`: its terms do not go into a token.
pub(crate) fn begin(
    seal: &Seal,
    of: Of,
    terms: Terms,
    issued_at: i64,
    seconds: u32,
) -> Result<SessionCredentials, IdentityError> {
    let expires_at = issued_at.saturating_add(i64::from(seconds));
    let claims = Claims { access_key_id: ids::id(Prefix::SessionKey)?, of, issued_at, expires_at, terms };
    let fault = |error: &dyn std::fmt::Display| IdentityError::Fault(format!("a token cannot be made: {error}"));
    let text = serde_json::to_vec(&claims).map_err(|error| fault(&error))?;
    let packed = pack(&text).map_err(|error| fault(&error))?;
    let token = URL_SAFE_NO_PAD.encode(seal.seal(TOKEN, &packed)?);
    if token.len() > TOKEN_CHARS_MAX {
        let percent = packed_percent(&token);
        return Err(IdentityError::PackedPolicyTooLarge(format!(
            "PackedPolicyTooLarge: Packed size of session policies and session tags consumes {percent}% of allotted space."
        )));
    }
    Ok(SessionCredentials {
        access_key_id: claims.access_key_id,
        secret_access_key: secret_of(seal, &token),
        session_token: Secret::new(token),
        expires_at,
    })
}

/// How a token's text is kept: a byte that says how, and the text.
fn pack(text: &[u8]) -> std::io::Result<Vec<u8>> {
    if text.len() <= PLAIN_BYTES_MAX {
        return Ok([&[PLAIN], text].concat());
    }
    let mut packer = DeflateEncoder::new(vec![DEFLATED], Compression::best());
    packer.write_all(text)?;
    packer.finish()
}

fn unpack(packed: &[u8]) -> Option<Vec<u8>> {
    match packed.split_first()? {
        (&PLAIN, text) => Some(text.to_vec()),
        (&DEFLATED, packed) => {
            let mut text = Vec::new();
            DeflateDecoder::new(packed).take(CLAIMS_BYTES_MAX).read_to_end(&mut text).ok()?;
            Some(text)
        }
        _ => None,
    }
}

/// How much of the room in a token is used, in percent, rounded up.
pub(crate) fn packed_percent(token: &str) -> usize {
    (token.len() * 100).div_ceil(TOKEN_CHARS_MAX)
}

/// What a token carries; `None` unless we made it, for this access key, and it is whole.
pub(crate) fn open(seal: &Seal, access_key_id: &str, token: &str) -> Option<Claims> {
    if token.len() > TOKEN_CHARS_MAX {
        return None;
    }
    let packed = seal.open_sealed(TOKEN, &URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
    let claims: Claims = serde_json::from_slice(&unpack(&packed)?).ok()?;
    (claims.access_key_id == access_key_id).then_some(claims)
}

/// The secret of the session that has this token, in the form of AWS's: 40 characters.
pub(crate) fn secret_of(seal: &Seal, token: &str) -> Secret {
    let derived = seal.derive(SECRET, token.as_bytes());
    Secret::new(STANDARD.encode(&derived[..30]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use longshore_store::seal::Sealed;

    fn seal(folder: &std::path::Path, name: &str) -> Seal {
        Seal::open(&folder.join(name), Sealed { what: "keys", whose: "there are keys" }, false).unwrap()
    }

    fn of_role() -> Of {
        Of::Role("AROAAAAAAAAAAAAAAAAAA".into(), "session".into())
    }

    #[test]
    fn a_token_opens_for_its_key_alone_and_only_where_it_was_sealed() {
        let temp = tempfile::tempdir().unwrap();
        let (ours, theirs) = (seal(temp.path(), "ours"), seal(temp.path(), "theirs"));
        let terms = Terms {
            policy: Some("{}".into()),
            tags: BTreeMap::from([("k".into(), "v".into())]),
            transitive: BTreeSet::from(["k".into()]),
            source_identity: Some("who".into()),
            ..Terms::default()
        };
        let made = begin(&ours, of_role(), terms.clone(), 1_000, 900).unwrap();
        let (id, token) = (made.access_key_id.as_str(), made.session_token.expose());
        let claims = open(&ours, id, token).unwrap();
        assert_eq!((claims.of, claims.terms, claims.issued_at, claims.expires_at), (of_role(), terms, 1_000, 1_900));
        assert_eq!(secret_of(&ours, token), made.secret_access_key);
        assert_eq!(made.secret_access_key.expose().len(), 40);

        let other = begin(&ours, of_role(), Terms::default(), 1_000, 900).unwrap();
        assert_ne!(other.secret_access_key, made.secret_access_key);
        assert!(open(&ours, &other.access_key_id, token).is_none(), "another session's key");
        assert!(open(&theirs, id, token).is_none(), "another server's token");
        for at in 0..token.len() {
            let mut changed = token.as_bytes().to_vec();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert!(open(&ours, id, std::str::from_utf8(&changed).unwrap()).is_none(), "changed at {at}");
            assert!(open(&ours, id, &token[..at]).is_none(), "cut at {at}");
        }
        assert!(open(&ours, id, &format!("{token}=")).is_none());
    }

    #[test]
    fn terms_are_the_same_behind_a_token_whether_they_were_packed_or_not() {
        let temp = tempfile::tempdir().unwrap();
        let seal = seal(temp.path(), "key");
        for length in [0, 500, 900, 1_024, 2_048, 40_000] {
            let terms = Terms { policy: Some("policy ".repeat(length / 7)), ..Terms::default() };
            let made = begin(&seal, of_role(), terms.clone(), 0, 900).unwrap();
            assert_eq!(open(&seal, &made.access_key_id, made.session_token.expose()).unwrap().terms, terms, "{length}");
        }
        assert!(unpack(&[]).is_none() && unpack(&[2, b'{', b'}']).is_none());
    }

    #[test]
    fn what_does_not_go_into_a_token_is_refused_and_what_goes_in_has_at_most_4096_characters() {
        let temp = tempfile::tempdir().unwrap();
        let seal = seal(temp.path(), "key");
        // Random letters, which do not pack.
        let policy = |length: usize| {
            let mut bytes = vec![0; length];
            getrandom::fill(&mut bytes).unwrap();
            Terms { policy: Some(bytes.iter().map(|byte| char::from(b'!' + byte % 90)).collect()), ..Terms::default() }
        };
        let made = begin(&seal, of_role(), policy(2_048), 0, 900).unwrap();
        assert!(made.session_token.expose().len() <= TOKEN_CHARS_MAX);
        let error = begin(&seal, of_role(), policy(5_000), 0, 900).unwrap_err();
        assert!(matches!(error, IdentityError::PackedPolicyTooLarge(_)), "{error}");
    }

    #[test]
    fn credentials_of_a_session_show_neither_secret_nor_token() {
        let temp = tempfile::tempdir().unwrap();
        let made = begin(&seal(temp.path(), "key"), Of::Root, Terms::default(), 0, 900).unwrap();
        let shown = format!("{made:?}");
        assert!(!shown.contains(made.secret_access_key.expose()) && !shown.contains(made.session_token.expose()));
    }
}
