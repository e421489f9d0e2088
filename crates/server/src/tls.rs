//! TLS, rustls with ring: whom we believe at other people's endpoints, and the certificate that our own listeners show.
//!
//! Made here for all that connect: the client of `longshore job`, the gateway to other stores, the webhooks. None of them
//! shows a certificate of its own.

mod presented;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use webpki::EndEntityCert;

pub use presented::{Presented, hang_up};

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
    #[error("the certificate is not trusted: {}", why_not(.0))]
    NotTrusted(CertificateError),
    #[error("{0}")]
    Broken(String),
}

/// What is wrong with a certificate, in words that help where the usual ones do not.
fn why_not(error: &CertificateError) -> String {
    match error {
        // The type behind this one is not ours to name.
        CertificateError::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "it is that of an authority (CA:TRUE), as openssl makes it; make it with -addext basicConstraints=critical,CA:FALSE".into()
        }
        // Of a server of this machine (see `OneCertificate`).
        CertificateError::ApplicationVerificationFailure => "it is not the one that the data directory names".into(),
        error => error.to_string(),
    }
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

/// The certificates of a PEM file that a server shows, as clients judge them.
#[derive(Debug)]
pub struct Chain(Vec<CertificateDer<'static>>);

impl Chain {
    /// `None` if there is no such file, it is not for us to read, or it has no certificate.
    pub fn read(path: &Path) -> Option<Self> {
        Self::parse(&std::fs::read(path).ok()?)
    }

    pub fn parse(pem: &[u8]) -> Option<Self> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().ok()?;
        (!chain.is_empty()).then_some(Self(chain))
    }

    /// Whether it is for this host: a name, or an address without brackets.
    pub fn is_for(&self, host: &str) -> bool {
        let Ok(name) = ServerName::try_from(host) else { return false };
        let first = self.0.first().and_then(|first| EndEntityCert::try_from(first).ok());
        first.is_some_and(|first| first.verify_is_valid_for_subject_name(&name).is_ok())
    }

    /// Whether who trusts the certificates in the file trusts the server: it is its own authority, or that stands behind it.
    pub fn has_its_authority(&self) -> bool {
        let parsed = self.0.iter().filter_map(|one| EndEntityCert::try_from(one).ok());
        parsed.into_iter().any(|one| one.issuer() == one.subject())
    }
}

/// The SHA-256 of a certificate, as `openssl x509 -fingerprint -sha256` has it, without colons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.to_string()
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = hex::decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or("a fingerprint is 64 hexadecimal digits")
    }
}

/// For a server of this machine, whose data directory says which certificate it shows: that one is believed whoever signed it
/// and whatever name it is for, and no other.
pub fn of_this_machine(certificate: Fingerprint) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(OneCertificate { certificate, provider: provider.clone() });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        // "Dangerous" is a verifier of one's own. This one believes less than the usual one does.
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct OneCertificate {
    certificate: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for OneCertificate {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if Fingerprint::of(end_entity) == self.certificate {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    // Whoever shows the certificate has to prove that the key is theirs.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_says_for_which_hosts_it_is_and_whether_it_is_its_own_authority() {
        let local = Chain::parse(include_bytes!("../fixtures/tls/first.pem")).unwrap();
        let named = Chain::parse(include_bytes!("../fixtures/tls/named.pem")).unwrap();
        for (host, by_local, by_named) in [
            ("127.0.0.1", true, false),
            ("localhost", true, false),
            ("1.localhost", false, false),
            ("batch.example", false, true),
            ("000000000000.batch.example", false, true),
            ("a.b.batch.example", false, false),
            ("not a host", false, false),
        ] {
            assert_eq!((local.is_for(host), named.is_for(host)), (by_local, by_named), "{host}");
        }
        assert_eq!((local.has_its_authority(), named.has_its_authority()), (true, false));
        assert!(Chain::parse(b"").is_none() && Chain::parse(b"-----BEGIN CERTIFICATE-----\nx").is_none());
    }
}
