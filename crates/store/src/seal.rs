//! Secrets at rest: sealed with a key that does not lie in the database.
//!
//! Environment variables of functions and secrets of access keys, each with a key file of its own.
//! AES-256-GCM with a random nonce for each text, bound to what it belongs to, so that a sealed text that is moved to
//! another row does not open there. Source: promises 4.4 item 17; docs/decisions/0019 and 0044.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use zeroize::{Zeroize, Zeroizing};

use crate::failpoint::{self, Place};

/// Bytes of the key, which are all that is in its file.
const KEY_BYTES: usize = 32;

/// Why something could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error("{0} cannot be read or written")]
    File(String, #[source] std::io::Error),
    #[error("{0} can be read by others: chmod 600 it")]
    Readable(String),
    #[error("{0} is not a key: it must have {KEY_BYTES} bytes")]
    NoKey(String),
    /// The file, and whose secrets there are.
    #[error("{0} is missing, and {1} that only the key in it opens: put it back from a backup")]
    Missing(String, &'static str),
    /// The file, and what does not open.
    #[error("{1} do not open with this server's key: {0} is another key, or the database is damaged")]
    DoesNotOpen(String, &'static str),
    #[error("the system has no random numbers: {0}")]
    NoRandom(getrandom::Error),
}

/// What is sealed, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealed {
    /// `environment variables`.
    pub what: &'static str,
    /// Who has them: `functions have environment variables`.
    pub whose: &'static str,
}

/// A text that nobody is to see: `Debug` shows nothing of it, and its memory is overwritten when it goes.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text. Where this is called, it is used; it goes into no log, no error and no argument of a process.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// Seals and opens. Without `Debug` of its key.
#[derive(Clone)]
pub struct Seal {
    key: std::sync::Arc<LessSafeKey>,
    /// What secrets are derived with: a key derived from the one in the file, so that each has one use.
    deriving: hmac::Key,
    /// Of the key's file, for messages.
    path: String,
    sealed: Sealed,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seal").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Seal {
    /// Reads the key. If there is none, makes one, unless `needed`: then something is sealed with the one that is gone.
    pub fn open(path: &Path, sealed: Sealed, needed: bool) -> Result<Self, SealError> {
        let shown = path.display().to_string();
        let mut key = match std::fs::read(path) {
            Ok(key) => {
                let mode = path.metadata().map_err(|e| SealError::File(shown.clone(), e))?.permissions().mode();
                if mode & 0o077 != 0 {
                    return Err(SealError::Readable(shown));
                }
                key
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if needed {
                    return Err(SealError::Missing(shown, sealed.whose));
                }
                let mut key = vec![0; KEY_BYTES];
                getrandom::fill(&mut key).map_err(SealError::NoRandom)?;
                write(path, &key).map_err(|e| SealError::File(shown.clone(), e))?;
                key
            }
            Err(error) => return Err(SealError::File(shown, error)),
        };
        let unbound = UnboundKey::new(&AES_256_GCM, &key).map_err(|_| SealError::NoKey(shown.clone()));
        let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), b"longshore: what secrets are derived with");
        key.zeroize();
        Ok(Self {
            key: std::sync::Arc::new(LessSafeKey::new(unbound?)),
            deriving: hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()),
            path: shown,
            sealed,
        })
    }

    /// 32 bytes that follow from the key, `purpose` and `text`, and that nobody can tell without the key.
    pub fn derive(&self, purpose: &str, text: &[u8]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.deriving);
        // The length keeps one purpose from being another with more text.
        context.update(&(purpose.len() as u64).to_be_bytes());
        context.update(purpose.as_bytes());
        context.update(text);
        let mut derived = [0; 32];
        derived.copy_from_slice(context.sign().as_ref());
        derived
    }

    /// Nonce, sealed text and tag. `owner` is needed again to open it.
    pub fn seal(&self, owner: &str, text: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_LEN];
        // Random ones meet after 2^48 texts with one key, and one seals a text for each change of a function, or for each session.
        getrandom::fill(&mut nonce).map_err(SealError::NoRandom)?;
        let mut body = text.to_vec();
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(owner.as_bytes()), &mut body)
            .map_err(|_| self.does_not_open())?;
        Ok([&nonce, body.as_slice(), tag.as_ref()].concat())
    }

    /// What [`Seal::seal`] was given.
    pub fn open_sealed(&self, owner: &str, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let refused = || self.does_not_open();
        let (nonce, body) = sealed.split_first_chunk::<NONCE_LEN>().ok_or_else(refused)?;
        let mut body = body.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let text = self.key.open_in_place(nonce, Aad::from(owner.as_bytes()), &mut body).map_err(|_| refused())?;
        Ok(text.to_vec())
    }

    fn does_not_open(&self) -> SealError {
        SealError::DoesNotOpen(self.path.clone(), self.sealed.what)
    }
}

/// Whole or not at all, readable by us alone, and there after a power cut.
fn write(path: &Path, key: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(key)?;
    file.sync_all()?;
    failpoint::pass(Place::KeyUnnamed);
    std::fs::rename(&temporary, path)?;
    failpoint::pass(Place::KeyNamed);
    File::open(folder_of(path))?.sync_all()
}

/// The folder of a file that may be given by its name alone.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEALED: Sealed = Sealed { what: "texts", whose: "somebody has texts" };

    #[test]
    fn what_is_derived_follows_from_key_purpose_and_text_and_from_nothing_else() {
        let temp = tempfile::tempdir().unwrap();
        let open = |name: &str| Seal::open(&temp.path().join(name), SEALED, false).unwrap();
        let derived = open("one.key").derive("purpose", b"text");
        assert_eq!(open("one.key").derive("purpose", b"text"), derived);
        for other in [
            open("two.key").derive("purpose", b"text"),
            open("one.key").derive("purpos", b"etext"),
            open("one.key").derive("purpose", b"texts"),
        ] {
            assert_ne!(other, derived);
        }
    }

    #[test]
    fn a_secret_shows_nothing_of_itself() {
        let secret = Secret::new("wJalrXUtnFEMI");
        assert_eq!((format!("{secret:?}").as_str(), secret.expose()), ("Secret", "wJalrXUtnFEMI"));
    }

    #[test]
    fn what_was_sealed_opens_for_its_owner_with_the_same_key_and_for_nobody_else() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("variables.key");
        let seal = Seal::open(&path, SEALED, false).unwrap();
        let sealed = seal.seal("f:1", b"a secret of sixteen and more bytes").unwrap();
        assert!(!sealed.windows(8).any(|w| w == b"a secret"));
        assert_ne!(seal.seal("f:1", b"a secret of sixteen and more bytes").unwrap(), sealed);
        let again = Seal::open(&path, SEALED, true).unwrap();
        assert_eq!(again.open_sealed("f:1", &sealed).unwrap(), b"a secret of sixteen and more bytes");
        assert!(again.open_sealed("f:2", &sealed).is_err());
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert!(again.open_sealed("f:1", &damaged).is_err(), "{at}");
        }
        for length in 0..sealed.len() {
            assert!(again.open_sealed("f:1", &sealed[..length]).is_err(), "{length}");
        }
        let other = Seal::open(&temp.path().join("other.key"), SEALED, false).unwrap();
        assert!(matches!(other.open_sealed("f:1", &sealed), Err(SealError::DoesNotOpen(..))));
    }

    #[test]
    fn the_folder_of_a_key_is_found_also_where_the_key_is_given_by_its_name_alone() {
        for (path, folder) in [("/run/secrets/key", "/run/secrets"), ("/key", "/"), ("data/key", "data"), ("key", ".")]
        {
            assert_eq!(folder_of(Path::new(path)), Path::new(folder), "{path}");
        }
    }

    #[test]
    fn a_key_is_private_and_never_replaced_by_a_new_one_that_opens_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("variables.key");
        assert!(matches!(Seal::open(&path, SEALED, true), Err(SealError::Missing(..))));
        assert!(!path.exists());
        Seal::open(&path, SEALED, false).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Seal::open(&path, SEALED, true), Err(SealError::Readable(_))));
        std::fs::remove_file(&path).unwrap();
        write(&path, b"short").unwrap();
        assert!(matches!(Seal::open(&path, SEALED, true), Err(SealError::NoKey(_))));
    }
}
