//! Stores of somebody else: which there are, and which bucket is in which.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use longshore_aws::{CredentialSource, Endpoint, Patience, RemoteObjects};
use longshore_core::pattern::matched;
use longshore_jobs::ports::Encryption;
use serde::Deserialize;

use crate::client;
use crate::failure::Failure;

/// An `[[endpoint]]` of the settings. Meanings: `longshore.toml` beside this crate's manifest.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointSettings {
    pub name: String,
    pub url: Option<String>,
    pub region: Option<String>,
    pub buckets: Vec<String>,
    pub profile: Option<String>,
    pub credentials_file: Option<PathBuf>,
    pub access_key_id_variable: Option<String>,
    pub secret_access_key_variable: Option<String>,
    pub session_token_variable: Option<String>,
    #[serde(default)]
    pub anonymous: bool,
    pub path_style: Option<bool>,
    #[serde(default)]
    pub allow_plain_http: bool,
    pub report_encryption: Option<ReportEncryption>,
    pub report_kms_key_id: Option<String>,
}

/// With which encryption a store is asked to keep completion reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum ReportEncryption {
    #[serde(rename = "none")]
    Unasked,
    #[serde(rename = "AES256")]
    SseS3,
    #[serde(rename = "aws:kms")]
    SseKms,
}

impl EndpointSettings {
    /// What the types do not say. Names the endpoint in what it refuses.
    pub fn check(&self) -> Result<(), Failure> {
        let access = self.access();
        access.check()?;
        if let Some(key_id) = &self.report_kms_key_id {
            if self.report_encryption != Some(ReportEncryption::SseKms) {
                return Err(access.wrong("report_kms_key_id needs report_encryption = \"aws:kms\""));
            }
            if key_id.is_empty() || !key_id.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(access.wrong("report_kms_key_id must be the ID, the ARN or the alias of a KMS key"));
            }
        }
        access.check_patterns("buckets", "name a bucket, or a pattern such as \"data-*\"", "-._", &self.buckets)
    }

    /// What is asked for reports. Amazon S3 keeps those of its own jobs with SSE-S3, whatever the bucket's default is;
    /// many other stores refuse the header.
    fn report_encryption(&self) -> Encryption {
        let amazon = || if self.url.is_none() { ReportEncryption::SseS3 } else { ReportEncryption::Unasked };
        match self.report_encryption.unwrap_or_else(amazon) {
            ReportEncryption::Unasked => Encryption::Unasked,
            ReportEncryption::SseS3 => Encryption::SseS3,
            ReportEncryption::SseKms => Encryption::SseKms { key_id: self.report_kms_key_id.clone() },
        }
    }

    fn access(&self) -> Access<'_> {
        Access {
            kind: "endpoint",
            name: &self.name,
            url: self.url.as_deref(),
            region: self.region.as_deref(),
            profile: self.profile.as_deref(),
            credentials_file: self.credentials_file.as_deref(),
            access_key_id_variable: self.access_key_id_variable.as_deref(),
            secret_access_key_variable: self.secret_access_key_variable.as_deref(),
            session_token_variable: self.session_token_variable.as_deref(),
            anonymous: self.anonymous,
            allow_plain_http: self.allow_plain_http,
        }
    }
}

/// What the settings of endpoints of every kind have in common: where one is, and who we are to it.
pub struct Access<'s> {
    /// As errors call an endpoint of this kind.
    pub kind: &'static str,
    pub name: &'s str,
    pub url: Option<&'s str>,
    pub region: Option<&'s str>,
    pub profile: Option<&'s str>,
    pub credentials_file: Option<&'s Path>,
    pub access_key_id_variable: Option<&'s str>,
    pub secret_access_key_variable: Option<&'s str>,
    pub session_token_variable: Option<&'s str>,
    pub anonymous: bool,
    pub allow_plain_http: bool,
}

impl Access<'_> {
    /// A refusal that names the endpoint.
    pub fn wrong(&self, what: impl std::fmt::Display) -> Failure {
        Failure::usage(format!("{} {:?}: {what}", self.kind, self.name))
    }

    /// What holds of a place and of credentials, whatever is there.
    pub fn check(&self) -> Result<(), Failure> {
        let name = self.name;
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
            return Err(self.wrong("name must be of letters, digits, - _ ."));
        }
        if let Some(url) = self.url {
            let place = Place::parse(url).map_err(|e| self.wrong(e))?;
            if !place.encrypted && !place.loopback && !self.allow_plain_http {
                return Err(self
                    .wrong(format!("{url} is plain HTTP to another machine: others could read along"))
                    .hint("use https://, or set allow_plain_http = true (--allow-plain-http) in a network you trust"));
            }
        }
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
        if self.region.is_some_and(|region| region.is_empty() || !region.chars().all(plain)) {
            return Err(self.wrong("region must be like us-east-1"));
        }
        let variables = [self.access_key_id_variable, self.secret_access_key_variable];
        let by_variables = self.by_variables();
        if by_variables && variables.iter().any(|v| v.is_none()) {
            return Err(self.wrong("access_key_id_variable and secret_access_key_variable go together"));
        }
        if [by_variables, self.by_profile(), self.anonymous].iter().filter(|way| **way).count() > 1 {
            let text = "credentials come from a profile, from variables, or are none (anonymous): choose one";
            return Err(self.wrong(text));
        }
        Ok(())
    }

    /// Checks the patterns of the setting `key`: at least one that takes something, each of letters, digits, `*`
    /// and `letters`.
    pub fn check_patterns(&self, key: &str, must: &str, letters: &str, patterns: &[String]) -> Result<(), Failure> {
        if !patterns.iter().any(|pattern| !pattern.starts_with('!')) {
            return Err(self.wrong(format!("{key} must {must}")));
        }
        let fine = |c: char| c.is_ascii_alphanumeric() || c == '*' || letters.contains(c);
        let odd = patterns.iter().find(|pattern| {
            let pattern = pattern.strip_prefix('!').unwrap_or(pattern);
            pattern.is_empty() || !pattern.chars().all(fine)
        });
        let Some(pattern) = odd else { return Ok(()) };
        let listed: Vec<String> = letters.chars().map(String::from).collect();
        Err(self.wrong(format!(
            "{key}: {pattern:?} is no pattern: letters, digits, {} *, and ! before it all",
            listed.join(" ")
        )))
    }

    fn by_variables(&self) -> bool {
        let variables = [self.access_key_id_variable, self.secret_access_key_variable, self.session_token_variable];
        variables.iter().any(|v| v.is_some())
    }

    fn by_profile(&self) -> bool {
        self.profile.is_some() || self.credentials_file.is_some()
    }

    /// Whether anything is said of credentials.
    pub fn names_credentials(&self) -> bool {
        self.by_variables() || self.by_profile() || self.anonymous
    }

    pub fn credentials(&self, variable: impl Fn(&str) -> Option<String>) -> Result<CredentialSource, Failure> {
        if self.anonymous {
            return Ok(CredentialSource::Anonymous);
        }
        if let (Some(id), Some(secret)) = (self.access_key_id_variable, self.secret_access_key_variable) {
            let value = |name: &str| {
                variable(name)
                    .filter(|v| !v.is_empty())
                    .ok_or_else(|| self.wrong(format!("the environment variable {name} is not set")))
            };
            return Ok(CredentialSource::Given {
                access_key_id: value(id)?,
                secret_access_key: value(secret)?,
                session_token: self.session_token_variable.map(value).transpose()?,
            });
        }
        if !self.by_profile() {
            return Ok(CredentialSource::Chain);
        }
        if let Some(file) = self.credentials_file.filter(|file| !file.is_file()) {
            return Err(self.wrong(format!("the credentials file {} is not there", file.display())));
        }
        let name = self.profile.unwrap_or("default").to_owned();
        Ok(CredentialSource::Profile { name, file: self.credentials_file.map(Path::to_owned) })
    }
}

/// Where an endpoint is: what a URL in the settings says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub encrypted: bool,
    /// Host and, if it is not the scheme's, port.
    pub authority: String,
    /// Without the brackets of an IPv6 address.
    pub host: String,
    pub port: u16,
    loopback: bool,
}

impl Place {
    pub fn parse(url: &str) -> Result<Self, String> {
        let wrong = || format!("{url:?} is no endpoint: write https://host or https://host:port");
        let endpoint = client::Endpoint::parse(url).map_err(|_| wrong())?;
        if endpoint.base().is_empty() { Ok(Self::of(&endpoint)) } else { Err(wrong()) }
    }

    /// Amazon's, of one service and region.
    pub fn amazon(service: &str, region: &str) -> Self {
        let suffix = if region.starts_with("cn-") { ".cn" } else { "" };
        Self::of(&client::Endpoint::secure(format!("{service}.{region}.amazonaws.com{suffix}")))
    }

    fn of(endpoint: &client::Endpoint) -> Self {
        let (host, port) = endpoint.address();
        Self {
            encrypted: endpoint.tls(),
            authority: endpoint.authority(),
            host: host.to_owned(),
            port,
            loopback: endpoint.is_loopback(),
        }
    }
}

/// One store of somebody else.
pub struct Remote {
    pub name: String,
    pub place: Place,
    pub path_style: bool,
    pub objects: RemoteObjects,
    pub report_encryption: Encryption,
    patterns: Vec<String>,
}

impl Remote {
    fn has(&self, bucket: &str) -> bool {
        matched(&self.patterns, bucket)
    }
}

/// Which bucket is where: the first endpoint that has it, else the embedded S3.
#[derive(Clone, Default)]
pub struct Routes(Arc<Vec<Arc<Remote>>>);

impl Routes {
    /// Makes the clients of all endpoints. Contacts none of them.
    pub async fn open(
        endpoints: &[EndpointSettings],
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Failure> {
        let mut remotes: Vec<Arc<Remote>> = Vec::with_capacity(endpoints.len());
        if endpoints.is_empty() {
            return Ok(Self::default());
        }
        let http = longshore_aws::http_client();
        for settings in endpoints {
            settings.check()?;
            if remotes.iter().any(|remote| remote.name == settings.name) {
                return Err(Failure::usage(format!("there are two endpoints with the name {:?}", settings.name)));
            }
            // Amazon's own names have the bucket before the host; hardly another store has the names for it.
            let path_style = settings.path_style.unwrap_or(settings.url.is_some());
            let endpoint = Endpoint {
                name: settings.name.clone(),
                url: settings.url.as_ref().map(|url| url.trim_end_matches('/').to_owned()),
                region: settings.region.clone(),
                path_style,
                credentials: settings.access().credentials(&variable)?,
            };
            let objects = endpoint.open(&http, Patience::default()).await;
            let place = match &settings.url {
                Some(url) => Place::parse(url).map_err(Failure::usage)?,
                None => Place::amazon("s3", objects.region()),
            };
            let (name, patterns) = (settings.name.clone(), settings.buckets.clone());
            let report_encryption = settings.report_encryption();
            remotes.push(Arc::new(Remote { name, place, path_style, objects, report_encryption, patterns }));
        }
        Ok(Self(Arc::new(remotes)))
    }

    /// The endpoint of a bucket; `None` for the embedded S3.
    pub fn of(&self, bucket: &str) -> Option<&Arc<Remote>> {
        self.0.iter().find(|remote| remote.has(bucket))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Refuses to hide an embedded bucket behind an endpoint: its objects would seem to be gone.
    pub fn check_embedded<'a>(&self, buckets: impl Iterator<Item = &'a str>) -> Result<(), Failure> {
        for bucket in buckets {
            if let Some(remote) = self.of(bucket) {
                let name = &remote.name;
                return Err(Failure::usage(format!(
                    "the bucket {bucket} is in the embedded storage, and endpoint {name:?} claims it too"
                ))
                .hint(format!("put \"!{bucket}\" before the endpoint's other buckets, or delete the embedded one")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(buckets: &[&str]) -> EndpointSettings {
        EndpointSettings {
            name: "e".into(),
            url: Some("https://s3.example.org".into()),
            buckets: buckets.iter().map(|b| (*b).to_owned()).collect(),
            ..EndpointSettings::default()
        }
    }

    #[test]
    fn an_endpoint_is_a_host_and_plain_http_leaves_the_machine_only_if_that_was_asked_for() {
        for (url, allowed, fine) in [
            ("https://s3.example.org", false, true),
            ("https://s3.example.org:9000/", false, true),
            ("http://127.0.0.1:9000", false, true),
            ("http://[::1]:9000", false, true),
            ("http://localhost:9000", false, true),
            ("http://localhost.example.org", false, false),
            ("http://10.0.0.1:9000", false, false),
            ("http://10.0.0.1:9000", true, true),
            ("ftp://s3.example.org", true, false),
            ("s3.example.org", true, false),
            ("https://user:secret@s3.example.org", true, false),
            ("https://s3.example.org/path", true, false),
            ("https://s3.example.org?x", true, false),
        ] {
            let settings = EndpointSettings { url: Some(url.into()), allow_plain_http: allowed, ..endpoint(&["b"]) };
            assert_eq!(settings.check().is_ok(), fine, "{url}");
        }
    }

    #[test]
    fn credentials_come_from_one_place_and_never_from_the_file() {
        let none = || endpoint(&["b"]);
        let id = |name: &str| Some(name.to_owned());
        let wrong = [
            EndpointSettings { access_key_id_variable: id("A"), ..none() },
            EndpointSettings { anonymous: true, profile: id("p"), ..none() },
            EndpointSettings {
                access_key_id_variable: id("A"),
                secret_access_key_variable: id("B"),
                profile: id("p"),
                ..none()
            },
            EndpointSettings { buckets: vec!["!x".into()], ..none() },
            EndpointSettings { buckets: vec!["a/b".into()], ..none() },
            EndpointSettings { name: "a b".into(), ..none() },
        ];
        for settings in wrong {
            assert!(settings.check().is_err(), "{settings:?}");
        }
        let by_variables =
            EndpointSettings { access_key_id_variable: id("A"), secret_access_key_variable: id("B"), ..none() };
        by_variables.check().unwrap();
        let unset = by_variables.access().credentials(|name| (name == "A").then(|| "key".into())).unwrap_err();
        assert!(unset.message.contains("variable B is not set"), "{}", unset.message);
        let given = by_variables.access().credentials(|name| Some(name.to_lowercase())).unwrap();
        let (access_key_id, secret_access_key) = ("a".into(), "b".into());
        assert_eq!(given, CredentialSource::Given { access_key_id, secret_access_key, session_token: None });
    }

    #[test]
    fn reports_are_encrypted_as_the_setting_says_and_without_it_as_amazon_does_where_it_is_amazon() {
        let key = || Some("alias/reports".to_owned());
        let kms = |key_id| Some(Encryption::SseKms { key_id });
        let url = || Some("https://s3.example.org".to_owned());
        use ReportEncryption::{SseKms, SseS3, Unasked};
        for (report_encryption, report_kms_key_id, url, wanted) in [
            (None, None, None, Some(Encryption::SseS3)),
            (None, None, url(), Some(Encryption::Unasked)),
            (Some(Unasked), None, None, Some(Encryption::Unasked)),
            (Some(SseS3), None, url(), Some(Encryption::SseS3)),
            (Some(SseKms), None, url(), kms(None)),
            (Some(SseKms), key(), None, kms(key())),
            (Some(SseS3), key(), None, None),
            (None, key(), None, None),
            (Some(SseKms), Some("two words".into()), None, None),
            (Some(SseKms), Some(String::new()), None, None),
        ] {
            let settings = EndpointSettings { report_encryption, report_kms_key_id, url, ..endpoint(&["b"]) };
            let given = settings.check().ok().map(|()| settings.report_encryption());
            assert_eq!(given, wanted, "{settings:?}");
        }
    }

    #[tokio::test]
    async fn the_first_endpoint_with_the_bucket_has_it_and_no_embedded_one_is_hidden() {
        let second = EndpointSettings { name: "f".into(), ..endpoint(&["*"]) };
        let both = [endpoint(&["a-*"]), EndpointSettings { buckets: vec!["!own".into(), "*".into()], ..second }];
        let routes = Routes::open(&both, |_| None).await.unwrap();
        let name = |bucket| routes.of(bucket).map(|remote| remote.name.as_str());
        assert_eq!((name("a-1"), name("b"), name("own")), (Some("e"), Some("f"), None));
        routes.check_embedded(["own"].into_iter()).unwrap();
        assert!(routes.check_embedded(["own", "a-1"].into_iter()).unwrap_err().message.contains("a-1"));
        assert!(Routes::open(&[endpoint(&["a"]), endpoint(&["b"])], |_| None).await.is_err(), "two of one name");
    }
}
