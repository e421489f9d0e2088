//! `server.json` in the data directory: where the running server listens, for `env` and `logs`.
//!
//! Written once the socket is bound, removed at a clean stop. A file left by a crash names a process that is gone, or
//! one that did not take the directory's lock last; such a file is ignored.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::client::Endpoint;
use crate::credentials::write_file;
use crate::env::dialled;
use crate::failure::{Because, Failure, OF_ANOTHER};
use crate::tls::Fingerprint;

const FILE: &str = "server.json";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerFile {
    pub listen: SocketAddr,
    /// Where metrics are served without a signature, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_listen: Option<SocketAddr>,
    /// Of a server that speaks TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsFacts>,
    pub pid: u32,
    pub account: String,
    pub region: String,
}

/// What is known of a server's TLS by whoever may read its data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsFacts {
    /// The certificate that it shows now.
    pub certificate: Fingerprint,
    /// The first of its further names, which is what certificates are for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The PEM file of the certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
}

impl ServerFile {
    /// Where a client on this machine finds it.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::here(dialled(self.listen), self.tls.as_ref().map(|tls| tls.certificate))
    }

    pub fn write(&self, data_dir: &Path) -> Result<(), Failure> {
        let text = serde_json::to_string(self).because("cannot write server.json")?;
        write_file(data_dir, FILE, text.as_bytes())
    }

    /// The server that runs now; `None` if none does.
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
        let read: Self = serde_json::from_str(&text).because(format!("{} is damaged", path.display()))?;
        Ok(runs(data_dir, read.pid).then_some(read))
    }

    pub fn remove(data_dir: &Path) {
        // If it stays, the lock says that nobody runs.
        let _ = std::fs::remove_file(data_dir.join(FILE));
    }
}

/// Whether the server that wrote the file is the one that took the directory's lock last, and still lives.
///
/// The lock itself is not tried: to hold it for a moment could refuse a server that starts in that moment.
fn runs(data_dir: &Path, pid: u32) -> bool {
    let holder = std::fs::read_to_string(data_dir.join("lock")).unwrap_or_default();
    let alive = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).is_some_and(|pid| {
        // EPERM: it lives and is somebody else's.
        !matches!(rustix::process::test_kill_process(pid), Err(rustix::io::Errno::SRCH))
    });
    holder.trim() == pid.to_string() && alive
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_a_server_that_is_gone_is_ignored() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("data");
        let _held = longshore_store::DataDir::open(&path).unwrap();
        let mut file = ServerFile {
            listen: "127.0.0.1:7300".parse().unwrap(),
            metrics_listen: None,
            tls: None,
            pid: std::process::id(),
            account: "000000000000".into(),
            region: "us-east-1".into(),
        };
        file.write(&path).unwrap();
        assert_eq!(ServerFile::read(&path).unwrap(), Some(file.clone()));
        file.pid += 1;
        file.write(&path).unwrap();
        assert_eq!(ServerFile::read(&path).unwrap(), None);
    }
}
