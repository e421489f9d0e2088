//! TLS to other people's endpoints: rustls with ring, and the certificates that the system trusts.
//!
//! `AWS_CA_BUNDLE` names a file of certificates to trust instead, as for the AWS CLI; `SSL_CERT_FILE` and `SSL_CERT_DIR`
//! are heeded where the system's are looked up.

use std::sync::{Arc, OnceLock};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Made once: reading the system's certificates takes some ten milliseconds.
static CONFIG: OnceLock<Result<Arc<ClientConfig>, String>> = OnceLock::new();

pub async fn handshake(stream: TcpStream, host: &str) -> Result<TlsStream<TcpStream>, String> {
    let config = CONFIG.get_or_init(config).clone()?;
    let name = ServerName::try_from(host.to_owned()).map_err(|e| e.to_string())?;
    TlsConnector::from(config).connect(name, stream).await.map_err(|e| e.to_string())
}

fn config() -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    match std::env::var("AWS_CA_BUNDLE").ok().filter(|path| !path.is_empty()) {
        Some(path) => {
            let bundle = CertificateDer::pem_file_iter(&path).map_err(|e| format!("AWS_CA_BUNDLE {path}: {e}"))?;
            for certificate in bundle {
                let certificate = certificate.map_err(|e| format!("AWS_CA_BUNDLE {path}: {e}"))?;
                roots.add(certificate).map_err(|e| format!("AWS_CA_BUNDLE {path}: {e}"))?;
            }
        }
        // One bad certificate among many of a system is passed over.
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err("this machine trusts no certificates; name a file of them in AWS_CA_BUNDLE".into());
    }
    // The provider is named: another crate's choice of a default must not decide it.
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
