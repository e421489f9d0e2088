//! Which endpoint is meant and who asks: the Longshore of the data directory, or what the flags, the environment and
//! the AWS configuration say. For `job`, `function`, and the places of `run`: there is one order in which a profile, a URL
//! and a region are looked for, that of the AWS CLI.

mod profile;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::{At, JobAt};
use crate::client::{Client, ClientError, Endpoint, Endpoints};
use crate::credentials::Credentials;
use crate::env::{dialled, quoted};
use crate::failure::Failure;
use crate::settings;
use crate::state_file::ServerFile;

pub use profile::Files;

/// The region of an endpoint that is not AWS's, where nobody names one: Longshore's own default.
const REGION: &str = "us-east-1";

/// How long an endpoint on this machine has to take a connection, where it is only asked whether somebody listens.
const LISTENS_WITHIN: Duration = Duration::from_secs(2);

/// An endpoint with credentials, and how to name it again.
pub struct Place {
    pub client: Client,
    /// The flags that lead here, each with a blank before it: for commands that are told.
    pub flags: String,
    /// Is it on this machine, so that it may be asked often?
    pub near: bool,
    /// Where its state is, if it is on this machine.
    pub data_dir: Option<PathBuf>,
}

/// A service with an endpoint of its own: as the configuration files call it, and the variable for its URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    section: &'static str,
    variable: &'static str,
}

impl Service {
    pub const S3: Self = Self { section: "s3", variable: "AWS_ENDPOINT_URL_S3" };
    const S3_CONTROL: Self = Self { section: "s3_control", variable: "AWS_ENDPOINT_URL_S3_CONTROL" };
    const LAMBDA: Self = Self { section: "lambda", variable: "AWS_ENDPOINT_URL_LAMBDA" };
    const STS: Self = Self { section: "sts", variable: "AWS_ENDPOINT_URL_STS" };
}

/// The profile that is meant, and whether somebody named it.
pub fn profile(
    flag: Option<&str>,
    files: &Files,
    variable: &impl Fn(&str) -> Option<String>,
) -> Result<(String, bool), Failure> {
    let named = flag.map(str::to_owned).or_else(|| variable("AWS_PROFILE")).or_else(|| variable("AWS_DEFAULT_PROFILE"));
    match named {
        Some(profile) if files.has(&profile) => Ok((profile, true)),
        Some(profile) => Err(Failure::usage(format!("there is no profile {profile} in the AWS configuration files"))
            .hint("aws configure list-profiles shows those that there are")),
        None => Ok(("default".into(), false)),
    }
}

/// The URL that is said of a service: by a flag, a variable, or the profile. `None` is AWS's own.
pub fn url(
    flag: Option<&str>,
    service: Service,
    profile: &str,
    files: &Files,
    variable: &impl Fn(&str) -> Option<String>,
) -> Option<String> {
    if let Some(url) = flag {
        return Some(url.to_owned());
    }
    if variable("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS").is_some_and(|v| v.eq_ignore_ascii_case("true")) {
        return None;
    }
    variable(service.variable)
        .or_else(|| variable("AWS_ENDPOINT_URL"))
        .or_else(|| files.endpoint(profile, service.section).map(str::to_owned))
}

impl Place {
    /// Where jobs are. `of_request` is the account that the request itself names.
    pub async fn of_jobs(at: &JobAt, of_request: Option<&str>) -> Result<Self, Failure> {
        let asked = at.account_id.as_deref().or(of_request);
        let account_flag =
            at.account_id.as_ref().map_or_else(String::new, |id| format!(" --account-id {}", quoted(id)));
        let at = &at.at;
        let flags = flags(at) + &account_flag;
        let Some(told) = Told::of(at, Service::S3_CONTROL)? else { return Self::of_data_dir(at, asked, flags) };
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
        Ok(Self { client, flags, near: told.data_dir.is_some(), data_dir: told.data_dir })
    }

    /// Where functions are: those of the caller's account, which no request has to name.
    pub async fn of_functions(at: &At) -> Result<Self, Failure> {
        let flags = flags(at);
        let Some(told) = Told::of(at, Service::LAMBDA)? else { return Self::of_data_dir(at, None, flags) };
        let credentials = told.credentials().await?;
        let account = told.account.clone().unwrap_or_default();
        let client = Client::of(told.endpoints(&account), credentials, &told.region, &account);
        Ok(Self { client, flags, near: told.data_dir.is_some(), data_dir: told.data_dir })
    }

    /// Looks again where the server of the data directory listens, which may have been started anew at another port. Whoever
    /// asks it again does that after an answer failed to come; where nothing else is found, nothing changes.
    pub fn look_again(&self) {
        if let Some(data_dir) = &self.data_dir
            && let Ok(Some(server)) = ServerFile::read(data_dir)
        {
            self.client.move_to(server.endpoint());
        }
    }

    fn of_data_dir(at: &At, account: Option<&str>, flags: String) -> Result<Self, Failure> {
        let data_dir = settings::data_dir(at.data_dir.as_deref(), |name| std::env::var(name).ok())?;
        let running = ServerFile::read(&data_dir)?.zip(Credentials::read(&data_dir)?);
        let Some((server, credentials)) = running else {
            return Err(Failure::new(format!("no server runs with the data directory {}", data_dir.display())).hint(
                "start one with \"longshore serve\", name its directory with --data-dir, or another endpoint with \
                 --endpoint-url or --profile",
            ));
        };
        let account = account.unwrap_or(&server.account);
        let client = Client::new(server.endpoint(), &credentials, &server.region, account);
        Ok(Self { client, flags, near: true, data_dir: Some(data_dir) })
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
    /// The service that is asked, and what is said of where it is.
    service: Service,
    main: Option<Endpoint>,
    s3: Option<Endpoint>,
    sts: Option<Endpoint>,
    /// Of the server at the endpoint, if it is one of this machine whose data directory is known.
    data_dir: Option<PathBuf>,
}

/// What a data directory says of the server that runs with it, or has run.
struct Known {
    data_dir: PathBuf,
    credentials: Credentials,
    server: Option<ServerFile>,
}

impl Known {
    /// The data directory that the flag, the environment or the default names; `None` if no server ever ran with it.
    fn read(flag: Option<&Path>, variable: &impl Fn(&str) -> Option<String>) -> Result<Option<Self>, Failure> {
        let data_dir = settings::data_dir(flag, variable)?;
        let Some(credentials) = Credentials::read(&data_dir)? else { return Ok(None) };
        Ok(Some(Self { server: ServerFile::read(&data_dir)?, data_dir, credentials }))
    }

    /// Whether its server is what listens at this endpoint, which is one of this machine.
    fn listens_at(&self, endpoint: &Endpoint) -> bool {
        let (host, port) = endpoint.address();
        self.server.as_ref().is_some_and(|server| {
            let same = host
                .parse()
                .map_or(true, |ip: IpAddr| server.listen.ip().is_unspecified() || ip == dialled(server.listen).ip());
            server.listen.port() == port && same
        })
    }

    fn keys(&self) -> longshore_wire::sigv4::Credentials {
        longshore_wire::sigv4::Credentials {
            access_key_id: self.credentials.access_key_id.clone(),
            secret_access_key: self.credentials.secret_access_key.clone(),
            session_token: None,
        }
    }
}

impl Told {
    /// `None` if nothing is said, and the Longshore of the data directory is meant.
    fn of(at: &At, service: Service) -> Result<Option<Self>, Failure> {
        if at.endpoint_url.is_none() && at.profile.is_none() && at.region.is_none() {
            return Ok(None);
        }
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let files = Files::read(&variable)?;
        let known = match &at.data_dir {
            Some(data_dir) => Known::read(Some(data_dir), &variable)?,
            // Nobody asked for it: what is wrong with the usual one is no reason to refuse what has another endpoint.
            None => Known::read(None, &variable).ok().flatten(),
        };
        if let (Some(data_dir), None) = (&at.data_dir, &known) {
            return Err(Failure::usage(format!("no server has run with the data directory {}", data_dir.display()))
                .hint("leave --data-dir out, and name credentials in the environment"));
        }
        Self::gather(at, service, &files, known.as_ref(), &variable).map(Some)
    }

    fn gather(
        at: &At,
        service: Service,
        files: &Files,
        known: Option<&Known>,
        variable: &impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Failure> {
        let (profile, profile_named) = profile(at.profile.as_deref(), files, variable)?;
        // A profile that is named by a flag goes before the environment, as with the AWS CLI.
        let of_environment = if at.profile.is_some() { None } else { of_environment(variable)? };
        let endpoint = |service| -> Result<Option<Endpoint>, Failure> {
            let url = url(at.endpoint_url.as_deref(), service, &profile, files, variable);
            let parse = |url: String| Endpoint::parse(&url).map_err(|e| Failure::usage(format!("{url} {e}")));
            let endpoint = url.map(parse).transpose()?;
            // Of the server whose data directory is known, so is the certificate.
            let ours = known.filter(|known| endpoint.as_ref().is_some_and(|e| e.is_loopback() && known.listens_at(e)));
            let tls = ours.and_then(|known| known.server.as_ref()?.tls.as_ref());
            Ok(endpoint.map(|endpoint| endpoint.showing(tls.map(|tls| tls.certificate))))
        };
        let main = endpoint(service)?;
        // Somebody who names no credentials means those of the server that listens there: the default profile's cannot be.
        let here = known.filter(|known| {
            let listens = || main.as_ref().is_some_and(|main| main.is_loopback() && known.listens_at(main));
            at.data_dir.is_some() || (of_environment.is_none() && !profile_named && listens())
        });
        let server = here.and_then(|here| here.server.as_ref());
        let (credentials, account) = match (here, of_environment) {
            (Some(here), _) => (Some(here.keys()), server.map(|server| server.account.clone())),
            (None, Some(credentials)) => (Some(credentials), variable("AWS_ACCOUNT_ID")),
            (None, None) => {
                (files.credentials(&profile)?, files.setting(&profile, "aws_account_id").map(str::to_owned))
            }
        };
        let region = at
            .region
            .clone()
            .or_else(|| server.map(|server| server.region.clone()))
            .or_else(|| variable("AWS_REGION"))
            .or_else(|| variable("AWS_DEFAULT_REGION"))
            .or_else(|| files.setting(&profile, "region").map(str::to_owned));
        let region = match (region, &main) {
            (Some(region), _) if is_region(&region) => region,
            (Some(region), _) => return Err(Failure::usage(format!("{region} is no region"))),
            (None, Some(main)) if !main.is_aws() => REGION.to_owned(),
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
            service,
            s3: match &main {
                // The URL that was given is of S3 Control alone.
                Some(control) if control.is_aws() && at.endpoint_url.is_some() => Some(control.s3_beside()),
                _ => endpoint(Service::S3)?,
            },
            sts: endpoint(Service::STS)?.filter(|endpoint| !endpoint.is_aws()),
            data_dir: here
                .filter(|here| main.as_ref().is_some_and(|main| main.is_loopback() && here.listens_at(main)))
                .map(|here| here.data_dir.clone()),
            main,
        })
    }

    /// The keys that were found, or those of AWS's chain: a role that the profile assumes, web identity, container,
    /// instance.
    async fn credentials(&self) -> Result<longshore_wire::sigv4::Credentials, Failure> {
        if let Some(credentials) = &self.credentials {
            return Ok(credentials.clone());
        }
        if let Some(main) = self.main.as_ref().filter(|main| main.is_loopback() && !self.profile_named) {
            return Err(nobody_named(main).await);
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
        let told = |service| self.main.clone().filter(|_| self.service == service);
        let control = or_aws(&told(Service::S3_CONTROL), "s3-control");
        Endpoints {
            s3: or_aws(&self.s3, "s3"),
            // Elsewhere than at AWS the name with an account before it may resolve nowhere, and nobody needs it: the
            // account stands in a header too.
            control: if control.is_aws() { control.of_account(account) } else { control },
            lambda: or_aws(&told(Service::LAMBDA), "lambda"),
            sts: or_aws(&self.sts, "sts"),
        }
    }
}

/// Why there are no credentials for an endpoint of this machine. The chain is not asked: its last links are metadata services,
/// which know nothing of this endpoint, and whose answer says nothing of it.
async fn nobody_named(endpoint: &Endpoint) -> Failure {
    let connected = tokio::time::timeout(LISTENS_WITHIN, tokio::net::TcpStream::connect(endpoint.address())).await;
    if let Ok(Err(error)) = &connected
        && error.kind() == std::io::ErrorKind::ConnectionRefused
    {
        return Failure::new(format!("nobody listens at {endpoint}"))
            .hint("start a server there with \"longshore serve\", or leave the endpoint out for the one that runs");
    }
    Failure::usage(format!(
        "there are no credentials for {endpoint}: none in the environment, and no server that this command knows is there"
    ))
    .hint(
        "name its data directory with --data-dir, a profile with --profile, or set AWS_ACCESS_KEY_ID and \
         AWS_SECRET_ACCESS_KEY, as eval \"$(longshore env)\" does",
    )
}

/// What the ARNs of a region have behind `arn:`.
pub fn partition(region: &str) -> &'static str {
    match region {
        region if region.starts_with("cn-") => "aws-cn",
        region if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
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
    ];
    let given = given.iter().filter_map(|(flag, value)| Some(format!(" {flag} {}", quoted(value.as_ref()?))));
    given.collect()
}

/// A refusal, with what helps.
pub fn told(error: ClientError) -> Failure {
    let hint = match error.code() {
        "NoSuchJob" | "NotFoundException" => "list the jobs that there are with \"longshore job list\"",
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "UnrecognizedClientException"
        | "InvalidSignatureException" => "the endpoint does not know these credentials",
        "ExpiredToken" | "ExpiredTokenException" => "the session has ended: get new credentials",
        "RequestTimeTooSkewed" => "the clock of this machine is wrong",
        "AccessDenied" | "AccessDeniedException" => "these credentials may not do this, or the account is another's",
        _ => return error.into(),
    };
    Failure::from(error).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(at: &At, variables: &[(&str, &str)]) -> Result<Told, Failure> {
        let variable = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        Told::gather(at, Service::S3_CONTROL, &Files::default(), None, &variable)
    }

    /// A server that runs and listens there.
    fn known(listen: &str) -> Known {
        let server = ServerFile {
            listen: listen.parse().unwrap(),
            metrics_listen: None,
            tls: None,
            pid: 1,
            account: "111122223333".into(),
            region: "eu-west-3".into(),
        };
        let credentials = Credentials { access_key_id: "SERVERS".into(), secret_access_key: "s".into() };
        Known { data_dir: "/data".into(), credentials, server: Some(server) }
    }

    #[test]
    fn the_server_at_an_endpoint_of_this_machine_gives_its_credentials_to_whoever_names_none() {
        let dir = At { data_dir: Some("/data".into()), ..At::default() };
        for (listen, url, variables, at, wanted) in [
            ("127.0.0.1:7411", "http://127.0.0.1:7411", &[][..], &At::default(), Some("SERVERS")),
            ("127.0.0.1:7411", "http://localhost:7411", &[], &At::default(), Some("SERVERS")),
            ("0.0.0.0:7411", "http://127.0.0.2:7411", &[], &At::default(), Some("SERVERS")),
            // The environment goes first, and no other server's credentials are tried.
            ("127.0.0.1:7411", "http://127.0.0.1:7411", &KEYS, &At::default(), Some("AK")),
            ("127.0.0.1:7411", "http://127.0.0.1:7412", &[], &At::default(), None),
            ("127.0.0.1:7411", "http://127.0.0.2:7411", &[], &At::default(), None),
            ("127.0.0.1:7411", "http://store.example:7411", &[], &At::default(), None),
            // Who names the directory means it, wherever its server is reached.
            ("127.0.0.1:7411", "http://store.example:80", &KEYS, &dir, Some("SERVERS")),
        ] {
            let at = At { endpoint_url: Some(url.into()), ..at.clone() };
            let variable = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
            let known = known(listen);
            let told = Told::gather(&at, Service::S3_CONTROL, &Files::default(), Some(&known), &variable).unwrap();
            assert_eq!(told.credentials.as_ref().map(|keys| keys.access_key_id.as_str()), wanted, "{listen} {url}");
            let of_server = wanted == Some("SERVERS");
            assert_eq!(told.account.as_deref() == Some("111122223333"), of_server, "{listen} {url}");
            assert_eq!(told.region, if of_server { "eu-west-3" } else { REGION }, "{listen} {url}");
            assert_eq!(told.data_dir.is_some(), of_server && !url.contains("example"), "{listen} {url}");
        }
    }

    #[tokio::test]
    async fn an_endpoint_of_this_machine_without_credentials_asks_no_metadata_service_and_is_told_what_helps() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let at = At { endpoint_url: Some(url.clone()), ..At::default() };
        let told = gather(&at, &[]).unwrap();
        let failure = told.credentials().await.unwrap_err();
        assert!(failure.message.starts_with(&format!("there are no credentials for {url}")), "{failure:?}");
        assert!(failure.hint.unwrap().contains("--data-dir"));
        drop(listener);
        assert_eq!(told.credentials().await.unwrap_err().message, format!("nobody listens at {url}"));
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
    fn arns_are_in_the_partition_of_their_region() {
        for (region, wanted) in
            [("us-east-1", "aws"), ("us-gov-west-1", "aws-us-gov"), ("cn-north-1", "aws-cn"), ("eu-central-1", "aws")]
        {
            assert_eq!(partition(region), wanted, "{region}");
        }
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
    fn functions_are_asked_for_at_lambdas_own_place() {
        let of = |at: &At, variables: &[(&str, &str)]| {
            let variable =
                |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
            Told::gather(at, Service::LAMBDA, &Files::default(), None, &variable).unwrap().endpoints("")
        };
        let at = At { region: Some("eu-west-1".into()), ..At::default() };
        assert_eq!(of(&at, &KEYS).lambda.to_string(), "https://lambda.eu-west-1.amazonaws.com");
        let own =
            [&KEYS[..], &[("AWS_ENDPOINT_URL", "http://all"), ("AWS_ENDPOINT_URL_LAMBDA", "http://f:1")]].concat();
        let endpoints = of(&at, &own);
        assert_eq!((endpoints.lambda.to_string().as_str(), endpoints.s3.host()), ("http://f:1", "all"));
        let at = At { endpoint_url: Some("http://127.0.0.1:7300".into()), ..At::default() };
        assert_eq!(of(&at, &KEYS).lambda.to_string(), "http://127.0.0.1:7300");
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
