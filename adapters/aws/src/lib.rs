//! Stores of somebody else: the second implementation of the engine's [`Objects`](longshore_jobs::ports::Objects), on
//! Amazon's SDK, and the credentials with which such a store is reached.
//!
//! A leaf: nothing but `server` imports it, so that the rest builds and tests without the SDK. Nothing in it follows a
//! redirect, uses a proxy, or contacts a host other than the endpoint's (and, for credentials, those that the credential
//! chain itself names).

#![forbid(unsafe_code)]

mod credentials;
mod error;
mod objects;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Region, RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient,
    StalledStreamProtectionConfig,
};
use aws_smithy_http_client::tls;

pub use credentials::{CredentialSource, Credentials, CredentialsFailed, Identity, identity};
pub use objects::{RemoteObjects, check_names};

/// Connections are given up unused after this; load balancers close theirs after 20 s or more (RGW 65 s, AWS about 20 s),
/// and one that is closed while a request is being written costs a try.
const IDLE_MAX: Duration = Duration::from_secs(15);
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// From a request's first byte to its answer's headers, and for small answers to their end. A listing of a cold bucket
/// takes seconds.
const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(60);
/// The same where a part of up to [`objects::PART_BYTES_MIN`] is sent first, or the store puts thousands together.
const UPLOAD_TIME_MAX: Duration = Duration::from_secs(300);
/// Tries of one request. Past them the engine waits longer and asks again, for it knows what the request is worth.
const TRIES_MAX: u32 = 4;
const RETRY_TIME_MAX: Duration = Duration::from_secs(10);

/// An S3 endpoint, as the settings or the command line describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// As errors and logs name it.
    pub name: String,
    /// Scheme, host, and port; `None` for Amazon S3.
    pub url: Option<String>,
    /// `None`: what profile or environment say, else `us-east-1`.
    pub region: Option<String>,
    /// The bucket in the path, not before the host.
    pub path_style: bool,
    pub credentials: CredentialSource,
}

/// How patiently a store is dealt with. The default is for production; tests hurry.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    pub connect: Duration,
    pub attempt: Duration,
    pub upload: Duration,
    /// Between two pieces of a body that is being read.
    pub piece: Duration,
    pub tries: u32,
    pub first_retry: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: CONNECT_TIME_MAX,
            attempt: ATTEMPT_TIME_MAX,
            upload: UPLOAD_TIME_MAX,
            piece: ATTEMPT_TIME_MAX,
            tries: TRIES_MAX,
            first_retry: Duration::from_millis(500),
        }
    }
}

/// The HTTP client of all endpoints, which the credential chain uses too: rustls with ring and the system's roots
/// (`SSL_CERT_FILE` names others), no proxy, no redirects.
pub fn http_client() -> SharedHttpClient {
    aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .pool_idle_timeout(IDLE_MAX)
        .build_https()
}

/// The credentials of an endpoint that is no store. Contacts nobody yet.
pub async fn credentials_of(
    name: &str,
    source: &CredentialSource,
    region: &str,
    http: &SharedHttpClient,
) -> Credentials {
    Credentials::new(name, source, region, http).await
}

impl Endpoint {
    /// Makes a client. Contacts nobody but, for a region that is named nowhere, the machine's metadata service.
    pub async fn open(&self, http: &SharedHttpClient, patience: Patience) -> RemoteObjects {
        let region = match &self.region {
            Some(region) => region.clone(),
            None => credentials::region(&self.credentials, http, self.url.is_none()).await,
        };
        let credentials = Arc::new(Credentials::new(&self.name, &self.credentials, &region, http).await);
        let mut config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(http.clone())
            .region(Region::new(region.clone()))
            .force_path_style(self.path_style)
            // An ARN or a directory bucket in place of a name would lead to other hosts; names are checked as well.
            .disable_s3_express_session_auth(true)
            .disable_multi_region_access_points(true)
            // Stores older than these headers refuse what they do not know.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            // A manifest is read as fast as its rows are checked; our own limit is on the store's pieces alone.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .retry_config(
                RetryConfig::standard()
                    .with_max_attempts(patience.tries)
                    .with_initial_backoff(patience.first_retry)
                    .with_max_backoff(RETRY_TIME_MAX),
            )
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(patience.connect)
                    .read_timeout(patience.attempt)
                    .operation_attempt_timeout(patience.attempt)
                    .build(),
            );
        config.set_endpoint_url(self.url.clone());
        config = if self.credentials == CredentialSource::Anonymous {
            config.allow_no_auth()
        } else {
            config.credentials_provider(credentials.provider())
        };
        RemoteObjects::new(&self.name, region, credentials, aws_sdk_s3::Client::from_conf(config.build()), patience)
    }
}
