//! `Code.Location` of GetFunction: a link that downloads the package for ten minutes and needs no credentials.
//!
//! The server mounts `GET /_longshore/code/{sha256}` without a signature and hands it to [`Functions::download`]; the
//! token in the query is the permission. It names one package and one moment, so it opens nothing else.

use hmac::{Hmac, KeyInit, Mac};
use http::StatusCode;
use longshore_wire::{ApiError, Query};
use sha2::Sha256;

use crate::Functions;

/// How long a link works, in seconds; AWS's figure.
const LINK_SECONDS: i64 = 600;

/// A package to be sent.
#[derive(Debug)]
pub struct Download {
    /// Open for reading, at its start. Read it on a blocking thread or through `tokio::fs`.
    pub file: std::fs::File,
    /// Bytes.
    pub size: u64,
}

impl Functions {
    /// What paths of downloads begin with; the rest is the package's SHA-256 in hex.
    pub const DOWNLOAD_PREFIX: &'static str = "/_longshore/code/";

    /// Makes a link for the host that the client reached us under.
    pub(crate) fn link(&self, host: &str, sha256: &str) -> String {
        let expires = jiff::Timestamp::now().as_second() + LINK_SECONDS;
        let token = hex::encode(self.mac(sha256, expires).finalize().into_bytes());
        let scheme = if self.inner.settings.tls { "https" } else { "http" };
        format!("{scheme}://{host}{}{sha256}?expires={expires}&token={token}", Self::DOWNLOAD_PREFIX)
    }

    /// Opens the package that a link names. `path` is the whole path of the request. Errors are for [`ApiError::s3`],
    /// since the link stands where AWS gives one of S3. Blocks as long as opening a file takes.
    pub fn download(&self, path: &str, query: &Query) -> Result<Download, ApiError> {
        let denied = |text: &str| ApiError::new(StatusCode::FORBIDDEN, "AccessDenied", text);
        let sha256 = path.strip_prefix(Self::DOWNLOAD_PREFIX).unwrap_or_default();
        let expires: i64 = query.get("expires").and_then(|e| e.parse().ok()).ok_or_else(|| denied("Access Denied"))?;
        let token = query.get("token").and_then(|t| hex::decode(t).ok()).ok_or_else(|| denied("Access Denied"))?;
        // Compares in constant time. From here on `sha256` is text that we signed, hex and nothing else.
        self.mac(sha256, expires).verify_slice(&token).map_err(|_| denied("Access Denied"))?;
        if expires < jiff::Timestamp::now().as_second() {
            return Err(denied("Request has expired"));
        }
        let gone = |_| ApiError::new(StatusCode::NOT_FOUND, "NoSuchKey", "The specified key does not exist.");
        let file = std::fs::File::open(self.inner.code.package(sha256)).map_err(gone)?;
        let size = file.metadata().map_err(gone)?.len();
        Ok(Download { file, size })
    }

    fn mac(&self, sha256: &str, expires: i64) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.inner.link_key).expect("HMAC takes keys of any length");
        mac.update(format!("{sha256}\n{expires}").as_bytes());
        mac
    }
}
