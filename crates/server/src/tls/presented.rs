//! The certificate that this server shows, read from two files, and read anew when they change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::Fingerprint;
use crate::failure::{Because, Failure};

/// How often the files are looked at. A new certificate is there weeks before the old one ends.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// A chain is a few KiB; a file of this size is none.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The certificate that is shown to whoever connects from now on.
#[derive(Debug)]
pub struct Presented {
    certificate: PathBuf,
    key: PathBuf,
    now: RwLock<Pair>,
}

/// One reading of both files.
#[derive(Debug, Clone)]
struct Pair {
    config: Arc<ServerConfig>,
    fingerprint: Fingerprint,
    /// The SHA-256 of both files, which tells whether they have changed.
    read: [u8; 32],
}

/// What came of a look at the files.
#[derive(Debug)]
enum Looked {
    Same,
    New,
    /// What is wrong with the new ones.
    Bad(String),
}

impl Presented {
    /// Reads a chain and its key, both PEM. The key must belong to the first certificate, and must not be everybody's to read.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, Failure> {
        let pair = Pair::read(certificate, key).map_err(|why| {
            Failure::usage(format!("cannot use TLS: {why}")).hint(
                "name a PEM file of the certificate and its chain with --tls-certificate, its PEM key with --tls-key",
            )
        })?;
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), now: RwLock::new(pair) })
    }

    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.now().config)
    }

    pub fn fingerprint(&self) -> Fingerprint {
        self.now().fingerprint
    }

    fn now(&self) -> Pair {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the files again. Blocks for two small files.
    fn look(&self) -> Looked {
        match Pair::read(&self.certificate, &self.key) {
            Ok(pair) if pair.read == self.now().read => Looked::Same,
            Ok(pair) => {
                *self.now.write().unwrap_or_else(PoisonError::into_inner) = pair;
                Looked::New
            }
            Err(why) => Looked::Bad(why),
        }
    }

    /// Looks at the files each minute, and when it is asked to, until `stop`. `changed` is told of a new certificate. A pair that
    /// is no good leaves the one before in place, and is told once: the two files are not replaced at one moment.
    pub async fn keep(
        self: Arc<Self>,
        mut asked: tokio::signal::unix::Signal,
        mut stop: watch::Receiver<bool>,
        changed: impl Fn(Fingerprint) + Send + 'static,
    ) {
        let mut told = None;
        loop {
            let by_hand = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(LOOK_EVERY) => false,
                signal = asked.recv() => match signal {
                    Some(()) => true,
                    None => return,
                },
            };
            let this = self.clone();
            let Ok(looked) = tokio::task::spawn_blocking(move || this.look()).await else { continue };
            let certificate = self.certificate.display();
            match looked {
                Looked::Same => {
                    told = None;
                    if by_hand {
                        tracing::info!(%certificate, "the certificate was read again and is the same");
                    }
                }
                Looked::New => {
                    told = None;
                    let fingerprint = self.fingerprint();
                    tracing::info!(%certificate, sha256 = %fingerprint, "a new certificate is shown from now on");
                    changed(fingerprint);
                }
                Looked::Bad(why) => {
                    if by_hand || told.as_ref() != Some(&why) {
                        tracing::error!(%why, "a new certificate cannot be used, the one before is still shown");
                    }
                    told = Some(why);
                }
            }
        }
    }
}

impl Pair {
    /// The error names the file.
    fn read(certificate: &Path, key: &Path) -> Result<Self, String> {
        let chain_text = content(certificate)?;
        let key_text = content(key)?;
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &key.metadata().map_err(|e| format!("{}: {e}", key.display()))?.permissions(),
        );
        // A group of those who may read certificates is usual.
        if mode & 0o007 != 0 {
            let key = key.display();
            return Err(format!("{key} is a key that everybody on this machine may read: chmod o-rwx {key}"));
        }
        let mut read = Sha256::new();
        read.update(Sha256::digest(&chain_text));
        read.update(Sha256::digest(&key_text));

        let broken = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&chain_text)
            .collect::<Result<_, _>>()
            .map_err(|e| broken(certificate, &e))?;
        let Some(first) = chain.first() else {
            return Err(broken(certificate, &"there is no certificate in it (PEM is read)"));
        };
        let fingerprint = Fingerprint::of(first);
        // rustls' message never quotes the key.
        let private = PrivateKeyDer::from_pem_slice(&key_text)
            .map_err(|_| broken(key, &"there is no private key in it (PEM is read, without a passphrase)"))?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            // 1.2 and 1.3: rustls has nothing older.
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_no_client_auth()
            .with_single_cert(chain, private)
            .map_err(|e| format!("{} and {} do not belong together: {e}", certificate.display(), key.display()))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), fingerprint, read: read.finalize().into() })
    }
}

fn content(path: &Path) -> Result<Vec<u8>, String> {
    let broken = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let metadata = path.metadata().map_err(|e| broken(&e))?;
    if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        return Err(broken(&"this is no file of certificates or of a key"));
    }
    std::fs::read(path).map_err(|e| broken(&e))
}

/// Hears SIGHUP, which asks to read the certificate again.
pub fn hang_up() -> Result<tokio::signal::unix::Signal, Failure> {
    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).because("cannot listen for SIGHUP")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::mpsc;

    use super::*;

    const FIRST: (&str, &str) =
        (include_str!("../../fixtures/tls/first.pem"), include_str!("../../fixtures/tls/first.key"));
    const SECOND: (&str, &str) =
        (include_str!("../../fixtures/tls/second.pem"), include_str!("../../fixtures/tls/second.key"));

    struct Files(tempfile::TempDir);

    impl Files {
        fn new() -> Self {
            let files = Self(tempfile::tempdir().unwrap());
            files.write(FIRST.0, FIRST.1);
            files
        }

        fn certificate(&self) -> PathBuf {
            self.0.path().join("certificate.pem")
        }

        fn key(&self) -> PathBuf {
            self.0.path().join("key.pem")
        }

        fn write(&self, certificate: &str, key: &str) {
            std::fs::write(self.certificate(), certificate).unwrap();
            std::fs::write(self.key(), key).unwrap();
            self.mode(0o600);
        }

        fn mode(&self, mode: u32) {
            std::fs::set_permissions(self.key(), std::fs::Permissions::from_mode(mode)).unwrap();
        }

        fn read(&self) -> Result<Presented, Failure> {
            Presented::read(&self.certificate(), &self.key())
        }
    }

    #[test]
    fn a_pair_that_does_not_fit_or_is_anybodys_to_read_is_refused_by_the_name_of_its_file() {
        let files = Files::new();
        files.read().unwrap();
        for (certificate, key, why) in [
            (FIRST.0, SECOND.1, "do not belong together"),
            ("", FIRST.1, "certificate.pem: there is no certificate in it"),
            (FIRST.0, FIRST.0, "key.pem: there is no private key in it"),
            (FIRST.0, "", "key.pem: there is no private key in it"),
        ] {
            files.write(certificate, key);
            let failure = files.read().unwrap_err();
            assert!(failure.message.contains(why), "{}", failure.message);
            assert!(failure.hint.unwrap().contains("--tls-key"));
        }
        files.write(FIRST.0, FIRST.1);
        for (mode, fine) in [(0o640, true), (0o400, true), (0o644, false), (0o602, false), (0o601, false)] {
            files.mode(mode);
            assert_eq!(files.read().is_ok(), fine, "{mode:o}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewed_certificate_is_seen_within_a_minute_and_a_bad_pair_leaves_the_one_before() {
        let files = Files::new();
        let presented = Arc::new(files.read().unwrap());
        let first = presented.fingerprint();
        let (_stop, stopped) = watch::channel(false);
        let (tell, mut told) = mpsc::unbounded_channel();
        let changed = move |fingerprint| tell.send(fingerprint).unwrap();
        tokio::spawn(presented.clone().keep(hang_up().unwrap(), stopped, changed));
        let mut within = async |seconds| tokio::time::timeout(Duration::from_secs(seconds), told.recv()).await;
        assert!(within(130).await.is_err(), "nothing has changed");
        files.write(SECOND.0, FIRST.1);
        assert!(within(130).await.is_err(), "of the two files one is still the old one");
        assert_eq!(presented.fingerprint(), first);
        files.write(SECOND.0, SECOND.1);
        let second = within(61).await.unwrap().unwrap();
        assert!(second != first && presented.fingerprint() == second);
    }

    #[tokio::test]
    async fn whoever_knows_the_certificate_believes_that_one_and_no_other() {
        let files = Files::new();
        let presented = files.read().unwrap();
        files.write(SECOND.0, SECOND.1);
        let other = files.read().unwrap().fingerprint();
        for (known, believed) in [(presented.fingerprint(), true), (other, false)] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let acceptor = presented.acceptor();
            let served = tokio::spawn(async move {
                let mut stream = acceptor.accept(listener.accept().await.unwrap().0).await?;
                stream.write_all(b"it is I").await?;
                stream.shutdown().await
            });
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            // The name is in neither certificate: it is not asked.
            let shaken =
                super::super::handshake(stream, "elsewhere.example", super::super::of_this_machine(known).unwrap())
                    .await;
            match shaken {
                Ok(mut stream) => {
                    let mut said = String::new();
                    stream.read_to_string(&mut said).await.unwrap();
                    assert!(believed && said == "it is I");
                }
                Err(error) => assert!(!believed && matches!(error, super::super::TlsError::NotTrusted(_)), "{error}"),
            }
            assert_eq!(served.await.unwrap().is_ok(), believed);
        }
    }

    #[test]
    fn a_fingerprint_is_64_digits_and_reads_back() {
        let fingerprint = Files::new().read().unwrap().fingerprint();
        let text = serde_json::to_string(&fingerprint).unwrap();
        assert_eq!(text.len(), 66);
        assert_eq!(serde_json::from_str::<Fingerprint>(&text).unwrap(), fingerprint);
        for bad in ["", "00", &"0".repeat(63), &"0".repeat(66), &"x".repeat(64)] {
            assert!(Fingerprint::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
    }
}
