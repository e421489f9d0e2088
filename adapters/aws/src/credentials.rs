//! Who we are to a store: given by name, found by AWS's credential chain, or nobody.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::BehaviorVersion;
use aws_config::meta::region::ProvideRegion;
use aws_config::profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider};
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::Credentials as AwsCredentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_sdk_s3::config::{Region, SharedHttpClient};

const REGION_DEFAULT: &str = "us-east-1";
/// Temporary credentials are renewed so long before they end.
const RENEW_BEFORE: Duration = Duration::from_secs(300);
/// How long the chain may look for credentials: a role is assumed, or a metadata service asked.
const FIND_TIME_MAX: Duration = Duration::from_secs(30);

/// Where the credentials for an endpoint come from.
#[derive(Clone, PartialEq, Eq)]
pub enum CredentialSource {
    /// AWS's chain: environment, the default profile, web identity, container, instance.
    Chain,
    /// A profile, which then counts for more than the environment; in `file` (of AWS's credentials format) or in the
    /// usual two.
    Profile {
        name: String,
        file: Option<PathBuf>,
    },
    Given {
        access_key_id: String,
        secret_access_key: String,
        session_token: Option<String>,
    },
    /// Requests are not signed.
    Anonymous,
}

/// Without the secrets.
impl fmt::Debug for CredentialSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chain => f.write_str("Chain"),
            Self::Profile { name, file } => f.debug_struct("Profile").field("name", name).field("file", file).finish(),
            Self::Given { access_key_id, .. } => f.debug_tuple("Given").field(access_key_id).finish(),
            Self::Anonymous => f.write_str("Anonymous"),
        }
    }
}

/// Credentials as they are now, and the region that goes with them. Prints only the key's ID.
#[derive(Clone)]
pub struct Identity {
    pub access_key_id: String,
    pub secret_access_key: String,
    pub session_token: Option<String>,
    pub region: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

/// Why there are no credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsFailed {
    #[error("{from}: no credentials were found (environment, profiles, web identity, container, instance)")]
    None { from: String },
    #[error("{from}: the credentials cannot be used: {reason}")]
    Invalid { from: String, reason: String },
    /// May be another thing in a minute.
    #[error("{from}: the credentials could not be fetched: {reason}")]
    Unavailable { from: String, reason: String },
}

/// Resolves credentials as the AWS CLI does: the profile if one is named, else environment, profiles, web identity,
/// container, instance. `region` wins over the profile's and the environment's.
pub async fn identity(profile: Option<&str>, region: Option<&str>) -> Result<Identity, CredentialsFailed> {
    let http = crate::http_client();
    let source = match profile {
        Some(name) => CredentialSource::Profile { name: name.to_owned(), file: None },
        None => CredentialSource::Chain,
    };
    let region = match region {
        Some(region) => region.to_owned(),
        None => self::region(&source, &http, false).await,
    };
    let name = profile.map_or_else(|| "the credential chain".to_owned(), |name| format!("profile {name}"));
    match Credentials::new(&name, &source, &region, &http).await.get().await? {
        Some(identity) => Ok(Arc::unwrap_or_clone(identity)),
        None => Err(CredentialsFailed::None { from: name }),
    }
}

fn profile_files(file: Option<&PathBuf>) -> EnvConfigFiles {
    match file {
        Some(file) => EnvConfigFiles::builder().with_file(EnvConfigFileKind::Credentials, file).build(),
        None => EnvConfigFiles::default(),
    }
}

/// The region that profile or environment name; the metadata service is asked for Amazon S3 alone, where it matters.
pub(crate) async fn region(source: &CredentialSource, http: &SharedHttpClient, amazon: bool) -> String {
    let config = ProviderConfig::without_region().with_http_client(http.clone());
    let found = match source {
        CredentialSource::Profile { name, file } => {
            let files = profile_files(file.as_ref());
            let builder = ProfileFileRegionProvider::builder().profile_name(name).profile_files(files);
            builder.configure(&config).build().region().await
        }
        CredentialSource::Chain if amazon => aws_config::default_provider::region::default_provider().region().await,
        CredentialSource::Chain => {
            aws_config::meta::region::RegionProviderChain::first_try(
                aws_config::environment::EnvironmentVariableRegionProvider::new(),
            )
            .or_else(ProfileFileRegionProvider::builder().build())
            .region()
            .await
        }
        CredentialSource::Given { .. } | CredentialSource::Anonymous => None,
    };
    found.map_or_else(|| REGION_DEFAULT.to_owned(), |region| region.to_string())
}

/// The credentials of one endpoint, kept until shortly before they end. Shared by the SDK's client and by whoever signs
/// requests of others with them.
pub struct Credentials {
    name: String,
    region: String,
    provider: Option<SharedCredentialsProvider>,
    /// Held while the chain is asked, so that it is asked once.
    kept: tokio::sync::Mutex<Option<Kept>>,
}

#[derive(Clone)]
struct Kept {
    credentials: AwsCredentials,
    identity: Arc<Identity>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Credentials {
    pub(crate) async fn new(name: &str, source: &CredentialSource, region: &str, http: &SharedHttpClient) -> Self {
        let provider = match source {
            CredentialSource::Anonymous => None,
            CredentialSource::Given { access_key_id, secret_access_key, session_token } => {
                Some(SharedCredentialsProvider::new(AwsCredentials::new(
                    access_key_id,
                    secret_access_key,
                    session_token.clone(),
                    None,
                    "longshore settings",
                )))
            }
            CredentialSource::Profile { name, file } => {
                let region = Some(Region::new(region.to_owned()));
                let config = ProviderConfig::without_region().with_http_client(http.clone()).with_region(region);
                let builder = ProfileFileCredentialsProvider::builder().configure(&config).profile_name(name);
                let builder = builder.profile_files(profile_files(file.as_ref()));
                Some(SharedCredentialsProvider::new(builder.build()))
            }
            CredentialSource::Chain => {
                let region = Region::new(region.to_owned());
                let loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http.clone()).region(region);
                loader.load().await.credentials_provider()
            }
        };
        Self { name: name.to_owned(), region: region.to_owned(), provider, kept: tokio::sync::Mutex::new(None) }
    }

    /// The credentials as they are now; `None` if requests are not signed. The same `Arc` for as long as they are good, so
    /// that what was made of them can be kept as long.
    pub async fn get(&self) -> Result<Option<Arc<Identity>>, CredentialsFailed> {
        if self.provider.is_none() {
            return Ok(None);
        }
        let found = self.find().await.map_err(|error| failed(&self.name, &error))?;
        Ok(Some(found.identity))
    }

    async fn find(&self) -> Result<Kept, CredentialsError> {
        let Some(provider) = &self.provider else {
            return Err(CredentialsError::not_loaded_no_source());
        };
        let mut kept = self.kept.lock().await;
        let fresh = |c: &AwsCredentials| c.expiry().is_none_or(|end| end > SystemTime::now() + RENEW_BEFORE);
        if let Some(found) = kept.as_ref().filter(|found| fresh(&found.credentials)) {
            return Ok(found.clone());
        }
        let asked = tokio::time::timeout(FIND_TIME_MAX, provider.provide_credentials()).await;
        match asked.unwrap_or(Err(CredentialsError::provider_timed_out(FIND_TIME_MAX))) {
            Ok(credentials) => {
                let identity = Arc::new(Identity {
                    access_key_id: credentials.access_key_id().to_owned(),
                    secret_access_key: credentials.secret_access_key().to_owned(),
                    session_token: credentials.session_token().map(str::to_owned),
                    region: self.region.clone(),
                });
                let found = Kept { credentials, identity };
                *kept = Some(found.clone());
                Ok(found)
            }
            // Those that are kept are good for some minutes still, and the next request asks again.
            Err(error) => {
                match kept.as_ref().filter(|kept| kept.credentials.expiry().is_some_and(|end| end > SystemTime::now()))
                {
                    Some(found) => {
                        tracing::warn!(endpoint = self.name, %error, "credentials could not be renewed yet");
                        Ok(found.clone())
                    }
                    None => Err(error),
                }
            }
        }
    }

    pub(crate) fn provider(self: &Arc<Self>) -> impl ProvideCredentials + 'static {
        Provider(self.clone())
    }
}

#[derive(Debug)]
struct Provider(Arc<Credentials>);

impl ProvideCredentials for Provider {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async { Ok(self.0.find().await?.credentials) })
    }
}

/// Sorts the chain's failures into those that stay and those that pass.
pub(crate) fn failed(from: &str, error: &CredentialsError) -> CredentialsFailed {
    let from = from.to_owned();
    let reason = crate::error::with_causes(error);
    match error {
        CredentialsError::CredentialsNotLoaded(_) => CredentialsFailed::None { from },
        CredentialsError::InvalidConfiguration(_) => CredentialsFailed::Invalid { from, reason },
        _ => CredentialsFailed::Unavailable { from, reason },
    }
}
