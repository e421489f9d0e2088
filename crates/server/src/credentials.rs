//! The root credentials of a data directory: made at first start, kept in a file that only its owner can read.
//!
//! There is no default secret. `longshore env` is the only command that prints it.

use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use longshore_store::failpoint::{self, Place};
use serde::{Deserialize, Serialize};

use crate::failure::{Because, Failure, OF_ANOTHER};

const FILE: &str = "credentials.json";

/// An access key. `Debug` leaves the secret out.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
pub struct Credentials {
    pub access_key_id: String,
    pub secret_access_key: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads the file; `None` if there is none yet.
    pub fn read(data_dir: &Path) -> Result<Option<Self>, Failure> {
        let path = data_dir.join(FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                return Err(Failure::new(format!("cannot read {}: {error}", path.display())).hint(OF_ANOTHER));
            }
            Err(error) => return Err(error).because(format!("cannot read {}", path.display())),
        };
        let mode = path.metadata().because(format!("cannot read {}", path.display()))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(Failure::new(format!("{} can be read by others", path.display()))
                .hint(format!("chmod 600 {}", path.display())));
        }
        // serde's message quotes what it met, which may be the secret; so only the place is told.
        let read: Self = serde_json::from_str(&text).map_err(|e| {
            Failure::new(format!("{} is damaged at line {}, column {}", path.display(), e.line(), e.column()))
        })?;
        if read.secret_access_key.len() < 16 || read.access_key_id.len() < 16 {
            return Err(Failure::new(format!("{} has a key shorter than 16 characters", path.display())));
        }
        Ok(Some(read))
    }

    /// Reads the file, or makes credentials and the file. When this returns, they survive a power cut.
    pub fn read_or_make(data_dir: &Path) -> Result<Self, Failure> {
        if let Some(read) = Self::read(data_dir)? {
            return Ok(read);
        }
        let made = Self {
            access_key_id: format!("LS{}", random(18, b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")?),
            secret_access_key: random(40, b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")?,
        };
        let text = serde_json::to_string_pretty(&made).because("cannot write credentials")?;
        write_file(data_dir, FILE, text.as_bytes())?;
        Ok(made)
    }
}

/// Writes a small private file whole or not at all: a temporary one, synced, renamed, the directory synced.
pub fn write_file(directory: &Path, name: &str, content: &[u8]) -> Result<(), Failure> {
    let path = directory.join(name);
    let temporary = directory.join(format!(".{name}.{}", std::process::id()));
    let write = || -> std::io::Result<()> {
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        failpoint::pass(Place::FileUnnamed);
        std::fs::rename(&temporary, &path)?;
        failpoint::pass(Place::FileNamed);
        std::fs::File::open(directory)?.sync_all()
    };
    write().because(format!("cannot write {}", path.display()))
}

/// `length` characters of `alphabet`, evenly, from the system's random source.
fn random(length: usize, alphabet: &[u8]) -> Result<String, Failure> {
    let limit = 256 - 256 % alphabet.len();
    let mut text = String::with_capacity(length);
    let mut bytes = [0u8; 64];
    while text.len() < length {
        getrandom::fill(&mut bytes).because("the system gives no random numbers")?;
        // Bytes past the last whole multiple would make the first letters likelier.
        let fair = bytes.iter().filter(|&&b| usize::from(b) < limit);
        text.extend(fair.map(|&b| char::from(alphabet[usize::from(b) % alphabet.len()])).take(length - text.len()));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_made_once_and_only_their_owner_can_read_them() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Credentials::read(dir.path()).unwrap().is_none());
        let made = Credentials::read_or_make(dir.path()).unwrap();
        assert_eq!((made.access_key_id.len(), made.secret_access_key.len()), (20, 40));
        assert!(made.access_key_id.starts_with("LS"));
        let mode = dir.path().join(FILE).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = Credentials::read_or_make(dir.path()).unwrap();
        assert_eq!(again.secret_access_key, made.secret_access_key);
        assert!(!format!("{made:?}").contains(&made.secret_access_key));
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        Credentials::read_or_make(dir.path()).unwrap();
        let path = dir.path().join(FILE);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Credentials::read(dir.path()).unwrap_err().hint.unwrap().starts_with("chmod 600"));
    }

    #[test]
    fn a_damaged_file_does_not_put_its_content_into_the_message() {
        let dir = tempfile::tempdir().unwrap();
        write_file(dir.path(), FILE, b"{\"AccessKeyId\": \"SECRETSECRET\", \"Oops\": 1}").unwrap();
        assert!(!Credentials::read(dir.path()).unwrap_err().message.contains("SECRETSECRET"));
    }
}
