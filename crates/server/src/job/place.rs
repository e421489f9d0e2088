//! Which endpoint is meant and who asks: the Longshore of the data directory, or what the flags, the environment and
//! the AWS configuration say.

use crate::cli::At;
use crate::client::{Client, ClientError, Endpoint, Endpoints};
use crate::credentials::Credentials;
use crate::env::{dialled, quoted};
use crate::failure::Failure;
use crate::job::profile::Files;
use crate::settings;
use crate::state_file::ServerFile;

/// The region of an endpoint that is not AWS's, where nobody names one: Longshore's own default.
const REGION: &str = "us-east-1";

/// An endpoint with credentials, and how to name it again.
pub struct Place {
    pub client: Client,
    /// The flags that lead here, each with a blank before it: for commands that are told.
    pub flags: String,
    /// Is it on this machine, so that it may be asked often?
    pub near: bool,
}

impl Place {
    /// `account` is the one that the request itself names.
    pub async fn find(at: &At, account: Option<&str>) -> Result<Self, Failure> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let asked = at.account_id.as_deref().or(account);
        if at.endpoint_url.is_none() && at.profile.is_none() && at.region.is_none() {
            return Self::of_data_dir(at, asked);
        }
        let files = Files::read(&variable)?;
        let told = Told::gather(at, &files, &variable)?;
        let credentials = told.credentials().await?;
        let account = match asked.map(str::to_owned).or_else(|| told.account.clone()) {
            // It becomes a part of the host's name.
            Some(account) if !is_account(&account) => {
                return Err(Failure::usage(format!("{account} is no account: it has twelve digits")));
            }
            Some(account) => account,
            None => {
                let client = Client::of(told.endpoints(""), credentials.clone(), &told.region, "");
                client.caller_account().await.map_err(|error| {
                    Failure::new(format!("cannot find out whose jobs are meant (STS GetCallerIdentity): {error}"))
                        .hint("name the account with --account-id")
                })?
            }
        };
        let endpoints = told.endpoints(&account);
        let client = Client::of(endpoints, credentials, &told.region, &account);
        Ok(Self { client, flags: flags(at), near: false })
    }

    fn of_data_dir(at: &At, account: Option<&str>) -> Result<Self, Failure> {
        let data_dir = settings::data_dir(at.data_dir.as_deref(), |name| std::env::var(name).ok())?;
        let running = ServerFile::read(&data_dir)?.zip(Credentials::read(&data_dir)?);
        let Some((server, credentials)) = running else {
            return Err(Failure::new(format!("no server runs with the data directory {}", data_dir.display())).hint(
                "start one with \"longshore serve\", name its directory with --data-dir, or another endpoint with \
                 --endpoint-url or --profile",
            ));
        };
        let account = account.unwrap_or(&server.account);
        let client = Client::new(dialled(server.listen), &credentials, &server.region, account);
        Ok(Self { client, flags: flags(at), near: true })
    }
}

/// What was said, but for the account.
struct Told {
    /// `None`: to be found by AWS's chain.
    credentials: Option<longshore_wire::sigv4::Credentials>,
    profile: String,
    /// Whether somebody named the profile.
    profile_named: bool,
    region: String,
    account: Option<String>,
    control: Option<Endpoint>,
    s3: Option<Endpoint>,
    sts: Option<Endpoint>,
}

impl Told {
    fn gather(at: &At, files: &Files, variable: &impl Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let named = at.profile.clone().or_else(|| variable("AWS_PROFILE")).or_else(|| variable("AWS_DEFAULT_PROFILE"));
        if let Some(profile) = named.as_deref().filter(|profile| !files.has(profile)) {
            return Err(Failure::usage(format!("there is no profile {profile} in the AWS configuration files"))
                .hint("aws configure list-profiles shows those that there are"));
        }
        let profile_named = named.is_some();
        let profile = named.unwrap_or_else(|| "default".into());
        // A profile that is named by a flag goes before the environment, as with the AWS CLI.
        let of_environment = if at.profile.is_some() { None } else { of_environment(variable)? };
        let (credentials, account) = match of_environment {
            Some(credentials) => (Some(credentials), variable("AWS_ACCOUNT_ID")),
            None => (files.credentials(&profile)?, files.setting(&profile, "aws_account_id").map(str::to_owned)),
        };
        let endpoint = |service: &str, own: &str| -> Result<Option<Endpoint>, Failure> {
            let ignored =
                variable("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS").is_some_and(|v| v.eq_ignore_ascii_case("true"));
            let url = match &at.endpoint_url {
                Some(url) => Some(url.clone()),
                None if ignored => None,
                None => variable(own)
                    .or_else(|| variable("AWS_ENDPOINT_URL"))
                    .or_else(|| files.endpoint(&profile, service).map(str::to_owned)),
            };
            let parse = |url: String| Endpoint::parse(&url).map_err(|e| Failure::usage(format!("{url} {e}")));
            url.map(parse).transpose()
        };
        let control = endpoint("s3_control", "AWS_ENDPOINT_URL_S3_CONTROL")?;
        let region = at
            .region
            .clone()
            .or_else(|| variable("AWS_REGION"))
            .or_else(|| variable("AWS_DEFAULT_REGION"))
            .or_else(|| files.setting(&profile, "region").map(str::to_owned));
        let region = match (region, &control) {
            (Some(region), _) if is_region(&region) => region,
            (Some(region), _) => return Err(Failure::usage(format!("{region} is no region"))),
            (None, Some(control)) if !control.is_aws() => REGION.to_owned(),
            (None, _) => {
                return Err(Failure::usage("no region is named").hint("name one with --region, or in the profile"));
            }
        };
        Ok(Self {
            credentials,
            profile: profile.clone(),
            profile_named,
            region,
            account,
            s3: match &control {
                // The URL that was given is of S3 Control alone.
                Some(control) if control.is_aws() && at.endpoint_url.is_some() => Some(control.s3_beside()),
                _ => endpoint("s3", "AWS_ENDPOINT_URL_S3")?,
            },
            sts: endpoint("sts", "AWS_ENDPOINT_URL_STS")?.filter(|endpoint| !endpoint.is_aws()),
            control,
        })
    }

    /// The keys that were found, or those of AWS's chain: a role that the profile assumes, web identity, container,
    /// instance.
    async fn credentials(&self) -> Result<longshore_wire::sigv4::Credentials, Failure> {
        if let Some(credentials) = &self.credentials {
            return Ok(credentials.clone());
        }
        let profile = self.profile_named.then_some(self.profile.as_str());
        let found = longshore_aws::identity(profile, Some(&self.region)).await;
        let identity = found.map_err(|error| {
            Failure::usage(format!("there are no credentials: none in the environment, and {error}"))
                .hint("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile with --profile")
        })?;
        Ok(longshore_wire::sigv4::Credentials {
            access_key_id: identity.access_key_id,
            secret_access_key: identity.secret_access_key,
            session_token: identity.session_token,
        })
    }

    fn endpoints(&self, account: &str) -> Endpoints {
        let domain = if self.region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        let aws = |service: &str| Endpoint::secure(format!("{service}.{}.{domain}", self.region));
        let or_aws = |told: &Option<Endpoint>, service| told.clone().unwrap_or_else(|| aws(service));
        let control = or_aws(&self.control, "s3-control");
        Endpoints {
            s3: or_aws(&self.s3, "s3"),
            // Elsewhere than at AWS the name with an account before it may resolve nowhere, and nobody needs it: the
            // account stands in a header too.
            control: if control.is_aws() { control.of_account(account) } else { control },
            lambda: aws("lambda"),
            sts: or_aws(&self.sts, "sts"),
        }
    }
}

fn is_region(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

fn of_environment(
    variable: &impl Fn(&str) -> Option<String>,
) -> Result<Option<longshore_wire::sigv4::Credentials>, Failure> {
    match (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY")) {
        (Some(access_key_id), Some(secret_access_key)) => Ok(Some(longshore_wire::sigv4::Credentials {
            access_key_id,
            secret_access_key,
            session_token: variable("AWS_SESSION_TOKEN"),
        })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(Failure::usage("AWS_ACCESS_KEY_ID is set, but not AWS_SECRET_ACCESS_KEY")),
        (None, Some(_)) => Err(Failure::usage("AWS_SECRET_ACCESS_KEY is set, but not AWS_ACCESS_KEY_ID")),
    }
}

fn flags(at: &At) -> String {
    let data_dir = at.data_dir.as_ref().map(|dir| std::path::absolute(dir).unwrap_or_else(|_| dir.clone()));
    let data_dir = data_dir.map(|dir| dir.to_string_lossy().into_owned());
    let given = [
        ("--data-dir", &data_dir),
        ("--endpoint-url", &at.endpoint_url),
        ("--region", &at.region),
        ("--profile", &at.profile),
        ("--account-id", &at.account_id),
    ];
    let given = given.iter().filter_map(|(flag, value)| Some(format!(" {flag} {}", quoted(value.as_ref()?))));
    given.collect()
}

/// A refusal, with what helps.
pub fn told(error: ClientError) -> Failure {
    let hint = match error.code() {
        "NoSuchJob" | "NotFoundException" => "list the jobs that there are with \"longshore job list\"",
        "InvalidAccessKeyId" | "SignatureDoesNotMatch" => "the endpoint does not know these credentials",
        "ExpiredToken" | "ExpiredTokenException" => "the session has ended: get new credentials",
        "RequestTimeTooSkewed" => "the clock of this machine is wrong",
        "AccessDenied" => "these credentials may not do this, or the account is another's",
        _ => return error.into(),
    };
    Failure::from(error).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(at: &At, variables: &[(&str, &str)]) -> Result<Told, Failure> {
        let variable = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        Told::gather(at, &Files::default(), &variable)
    }

    const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "AK"), ("AWS_SECRET_ACCESS_KEY", "s")];

    #[test]
    fn without_an_endpoint_the_hosts_are_those_of_aws() {
        let at = At { region: Some("us-west-2".into()), ..At::default() };
        let endpoints = gather(&at, &KEYS).unwrap().endpoints("123456789012");
        let hosts = [&endpoints.control, &endpoints.s3, &endpoints.sts].map(Endpoint::to_string);
        assert_eq!(
            hosts,
            [
                "https://123456789012.s3-control.us-west-2.amazonaws.com",
                "https://s3.us-west-2.amazonaws.com",
                "https://sts.us-west-2.amazonaws.com",
            ]
        );
        let at = At { region: Some("cn-north-1".into()), ..At::default() };
        assert_eq!(gather(&at, &KEYS).unwrap().endpoints("1").s3.host(), "s3.cn-north-1.amazonaws.com.cn");
    }

    #[test]
    fn an_endpoint_elsewhere_answers_for_all_and_has_no_account_before_it() {
        let at = At { endpoint_url: Some("http://batch.example:7300".into()), ..At::default() };
        let told = gather(&at, &KEYS).unwrap();
        assert_eq!(told.region, "us-east-1");
        let endpoints = told.endpoints("123456789012");
        for endpoint in [&endpoints.control, &endpoints.s3, &endpoints.sts] {
            assert_eq!(endpoint.to_string(), "http://batch.example:7300");
        }
        let at = At {
            endpoint_url: Some("https://s3-control.eu-west-1.amazonaws.com".into()),
            region: Some("eu-west-1".into()),
            ..At::default()
        };
        let endpoints = gather(&at, &KEYS).unwrap().endpoints("123456789012");
        assert_eq!(endpoints.control.host(), "123456789012.s3-control.eu-west-1.amazonaws.com");
        assert_eq!(endpoints.s3.host(), "s3.eu-west-1.amazonaws.com");
        assert_eq!(endpoints.sts.host(), "sts.eu-west-1.amazonaws.com");
    }

    #[test]
    fn the_environment_is_heeded_as_the_aws_cli_does() {
        let at = At { region: Some("us-west-2".into()), ..At::default() };
        let variables =
            [&KEYS[..], &[("AWS_ENDPOINT_URL", "http://all"), ("AWS_ENDPOINT_URL_S3", "http://s3")]].concat();
        let endpoints = gather(&at, &variables).unwrap().endpoints("123456789012");
        assert_eq!((endpoints.control.host(), endpoints.s3.host()), ("all", "s3"));
        let variables = [&variables[..], &[("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")]].concat();
        assert!(gather(&at, &variables).unwrap().endpoints("123456789012").control.is_aws());
    }

    #[test]
    fn what_is_missing_is_named() {
        let at = At { region: Some("us-west-2".into()), ..At::default() };
        let said = |at: &At, variables: &[(&str, &str)]| gather(at, variables).err().unwrap().message;
        // Whether AWS's chain finds any is asked later.
        assert!(gather(&at, &[]).unwrap().credentials.is_none());
        assert!(said(&at, &KEYS[..1]).contains("AWS_SECRET_ACCESS_KEY"));
        assert!(said(&At { profile: Some("p".into()), ..At::default() }, &KEYS).contains("no profile p"));
        let aws = At { endpoint_url: Some("https://s3-control.eu-west-1.amazonaws.com".into()), ..At::default() };
        assert!(said(&aws, &KEYS).contains("no region"));
        for region in ["a/b", ""] {
            let at = At { region: Some(region.into()), ..At::default() };
            assert!(said(&at, &KEYS).contains("is no region"), "{region}");
        }
    }
}
