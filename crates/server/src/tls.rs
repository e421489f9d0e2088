//! TLS to other people's endpoints: rustls with ring, and whom we believe in it.
//!
//! Made here for all that connect: the client of `longshore job`, the gateway to other stores, the webhooks. None of them
//! shows a certificate of its own.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Whose word is taken for who somebody is.
#[derive(Debug, Clone, Copy)]
pub enum Roots<'p> {
    /// The certificates that the system trusts; `SSL_CERT_FILE` and `SSL_CERT_DIR` name others.
    System,
    /// Those of a PEM file alone.
    File(&'p Path),
}

/// Why there is no TLS with somebody.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TlsError {
    /// Whoever answers cannot show that it is who was meant.
    #[error("the certificate is not trusted: {0}")]
    NotTrusted(CertificateError),
    #[error("{0}")]
    Broken(String),
}

/// Reads the certificates to trust. The error names the file. Blocks: the system's take some ten milliseconds.
pub fn config(roots: Roots<'_>) -> Result<ClientConfig, String> {
    let mut store = RootCertStore::empty();
    match roots {
        // One bad certificate among many of a system is passed over.
        Roots::System => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if store.is_empty() {
                return Err("this machine trusts no certificates (SSL_CERT_FILE names a file of them)".into());
            }
        }
        Roots::File(path) => {
            let broken = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
            for certificate in CertificateDer::pem_file_iter(path).map_err(|e| broken(&e))? {
                store.add(certificate.map_err(|e| broken(&e))?).map_err(|e| broken(&e))?;
            }
            if store.is_empty() {
                return Err(broken(&"there is no certificate in it (PEM is read)"));
            }
        }
    }
    // The provider is named: another crate's choice of a default must not decide it.
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(store)
        .with_no_client_auth();
    Ok(config)
}

/// For those who name no certificates: the file in `AWS_CA_BUNDLE`, as for the AWS CLI, else the system's. Made once.
pub fn usual() -> Result<Arc<ClientConfig>, String> {
    static USUAL: OnceLock<Result<Arc<ClientConfig>, String>> = OnceLock::new();
    let make = || match std::env::var_os("AWS_CA_BUNDLE").filter(|path| !path.is_empty()).map(PathBuf::from) {
        Some(path) => config(Roots::File(&path)).map(Arc::new).map_err(|e| format!("AWS_CA_BUNDLE {e}")),
        None => config(Roots::System).map(Arc::new).map_err(|e| format!("{e}; so does AWS_CA_BUNDLE")),
    };
    USUAL.get_or_init(make).clone()
}

/// Whether a certificate can be for this host.
pub fn is_name(host: &str) -> bool {
    ServerName::try_from(host).is_ok()
}

/// Speaks TLS over a connection with whoever should be `host`: a name, or an address without brackets.
pub async fn handshake(
    stream: TcpStream,
    host: &str,
    config: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, TlsError> {
    let name = ServerName::try_from(host.to_owned()).map_err(|e| TlsError::Broken(e.to_string()))?;
    TlsConnector::from(config).connect(name, stream).await.map_err(|error| {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(why)) => TlsError::NotTrusted(why.clone()),
            _ => TlsError::Broken(error.to_string()),
        }
    })
}
