//! `longshore env`: the lines with which unmodified AWS clients work in a shell.
//!
//! Where `{account}.localhost` resolves, a plain endpoint does. Elsewhere the S3 Control clients could not reach us, for
//! they put the account before the host; there their endpoint has a made-up name and we are its HTTP proxy. The other
//! services come straight to us even so: through a proxy, urllib3 takes `./` and `../` out of a path that botocore has
//! signed with them, so that objects of such names would be out of reach, and some clients know no proxy at all.
//! Over TLS there is no proxy of this kind: S3 Control needs a name that resolves with the account before it.
//! Source: design, "How clients reach it".

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use crate::cli::{self, At, JobAt};
use crate::client::Endpoint;
use crate::credentials::Credentials;
use crate::failure::{Failure, USAGE};
use crate::names::INTERNAL;
use crate::place::Place;
use crate::settings::{self, Settings};
use crate::state_file::{ServerFile, TlsFacts};
use crate::tls::Chain;

/// The account of a server of which nobody tells another.
const ACCOUNT: &str = "000000000000";

/// What the lines are made of.
#[derive(Debug)]
pub struct Facts<'a> {
    pub who: Who<'a>,
    /// `None`: nobody knows it.
    pub account: Option<&'a str>,
    pub region: &'a str,
    pub reached: Reached,
    /// Where the server's state is, for the commands of this shell that ask it.
    pub data_dir: Option<&'a Path>,
    /// What clients have to trust, beside what the system does.
    pub ca_bundle: Option<&'a Path>,
    /// Names among the shell's variables that would win over ours.
    pub in_the_way: Vec<String>,
}

/// With whose access key the shell is to work.
#[derive(Debug, Clone, Copy)]
pub enum Who<'a> {
    Keys(&'a Credentials),
    /// That of a profile in the AWS configuration files.
    Profile(&'a str),
    /// Whoever's it has, or will have.
    Whoever,
}

/// How clients reach the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    url: String,
    /// The endpoint of S3 Control, where it is another.
    control: Option<String>,
    /// The hosts that go straight, where S3 Control goes through a proxy, which is at `url`.
    proxy: Option<String>,
}

impl Reached {
    /// Without TLS. `resolves`: the name with an account before it leads there as well. `host` is without brackets.
    fn plain(host: &str, port: u16, resolves: bool) -> Self {
        let url = format!("http://{}", authority(host, port));
        match resolves {
            true => Self { url, control: None, proxy: None },
            false => Self { url, control: Some(format!("http://{INTERNAL}:{port}")), proxy: Some(host.to_owned()) },
        }
    }

    /// With TLS. `control`: the host of S3 Control, where it is another.
    fn secure(host: &str, port: u16, control: Option<&str>) -> Self {
        let url = |host: &str| format!("https://{}", authority(host, port));
        Self { url: url(host), control: control.map(url), proxy: None }
    }
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Variables that make AWS clients look elsewhere than at ours.
const ENDPOINTS: [&str; 7] = [
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL_LAMBDA",
    "AWS_ENDPOINT_URL_S3_CONTROL",
    "AWS_ENDPOINT_URL_IAM",
    "AWS_ENDPOINT_URL_STS",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_USE_DUALSTACK_ENDPOINT",
];
/// Variables that go over an access key of the environment, or go with another one.
const BESIDE_KEYS: [&str; 4] = ["AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"];
/// Variables that go over a profile.
const OVER_PROFILE: [&str; 5] =
    ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "AWS_DEFAULT_PROFILE"];

fn in_the_way(who: &Who<'_>) -> Vec<String> {
    let of_keys: &[&str] = match who {
        Who::Keys(_) => &BESIDE_KEYS,
        Who::Profile(_) => &OVER_PROFILE,
        Who::Whoever => &[],
    };
    // Our own commands would ask that server as root, whatever the lines say of whose they are.
    let of_root: &[&str] = if matches!(who, Who::Keys(_)) { &[] } else { &["LONGSHORE_DATA_DIR"] };
    let all = of_keys.iter().chain(&ENDPOINTS).chain(of_root);
    all.filter(|name| std::env::var_os(name).is_some()).map(|name| (*name).to_owned()).collect()
}

/// Prints the lines to standard output.
pub async fn env(args: &cli::Env) -> Result<(), Failure> {
    match &args.endpoint_url {
        Some(url) => of_endpoint(args, url).await,
        None => {
            let data_dir = settings::data_dir(args.place.data_dir.as_deref(), |name| std::env::var(name).ok())?;
            let settings = Settings::load(&data_dir, args.place.config.as_deref(), settings::variables())?;
            of_data_dir(&data_dir, &settings)
        }
    }
}

/// The lines for root, on the machine and with the user of the server.
fn of_data_dir(data_dir: &Path, settings: &Settings) -> Result<(), Failure> {
    let Some(credentials) = Credentials::read(data_dir)? else {
        return Err(Failure::new(format!("no server has run with the data directory {}", data_dir.display()))
            .hint("start one with \"longshore serve\", or name its directory with --data-dir"));
    };
    let running = ServerFile::read(data_dir)?;
    // The running server's settings may have come from flags that this command was not given.
    let (address, account, region) = match &running {
        Some(server) => (server.listen, server.account.as_str(), server.region.as_str()),
        None => (settings.listen, settings.account.as_str(), settings.region.as_str()),
    };
    if running.is_none() {
        // To standard error: the shell that reads the lines is not disturbed.
        eprintln!("warning: no server is running with the data directory {}", data_dir.display());
        eprintln!("hint: start it with \"longshore serve\", or name another directory with --data-dir");
    }
    let tls = match &running {
        Some(server) => server.tls.as_ref().map(Secure::of_running),
        None => settings
            .tls
            .is_on()
            .then(|| Secure { name: settings.names.first().cloned(), file: Some(settings.tls.certificate.clone()) }),
    };
    let leads = |name: &str| leads_here(account, name, address);
    let (ip, port) = (dialled(address).ip().to_string(), address.port());
    let chain = tls.as_ref().and_then(|tls| tls.file.as_deref()).and_then(Chain::read);
    let mut warning = None;
    let reached = match &tls {
        Some(tls) => {
            let (reached, told) = secure(account, &ip, port, tls.name.as_deref(), chain.as_ref(), leads);
            warning = told;
            reached
        }
        None if leads("localhost") => Reached::plain("localhost", port, true),
        None => Reached::plain(&ip, port, false),
    };
    let who = Who::Keys(&credentials);
    let file = tls.as_ref().and_then(|tls| tls.file.as_deref());
    // A directory that is named by its way from here is found from elsewhere, too.
    let absolute = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    print!(
        "{}",
        lines(&Facts {
            who,
            account: Some(account),
            region,
            reached,
            data_dir: Some(&absolute),
            ca_bundle: file.filter(|_| chain.as_ref().is_some_and(Chain::has_its_authority)),
            in_the_way: in_the_way(&who),
        })
    );
    if let Some((warning, hint)) = warning {
        eprintln!("warning: {warning}\nhint: {hint}");
    }
    Ok(())
}

/// What is known of a server's TLS.
struct Secure {
    name: Option<String>,
    /// The file of its certificate.
    file: Option<PathBuf>,
}

impl Secure {
    fn of_running(facts: &TlsFacts) -> Self {
        Self { name: facts.name.clone(), file: facts.file.clone() }
    }
}

/// How clients reach a server with TLS that is listened for at `ip`, and what does not work: a warning, and a hint. `leads` says whether a
/// name, and that with the account before it, is the server's.
fn secure(
    account: &str,
    ip: &str,
    port: u16,
    name: Option<&str>,
    chain: Option<&Chain>,
    leads: impl Fn(&str) -> bool,
) -> (Reached, Option<(String, String)>) {
    // Of a certificate that cannot be read here nothing is known, and then it is taken to be right.
    let is_for = |host: &str| chain.is_none_or(|chain| chain.is_for(host));
    let not_there =
        |host: &str| format!("clients of S3 Control connect to {account}.{host}, which does not lead to this server");
    match name {
        Some(name) if leads(name) => (Reached::secure(name, port, None), None),
        Some(name) => {
            // Once the name resolves, S3 Control is there; the other services need not wait for that.
            let reached = match chain.is_some_and(|chain| chain.is_for(ip)) {
                true => Reached::secure(ip, port, Some(name)),
                false => Reached::secure(name, port, None),
            };
            let hint = format!("add this line to /etc/hosts, or both names to your DNS: {ip} {name} {account}.{name}");
            (reached, Some((not_there(name), hint)))
        }
        None if leads("localhost") && is_for("localhost") => (Reached::secure("localhost", port, None), None),
        None => {
            let hint =
                "give the server a name (names, in longshore.toml) with a certificate for it and what is below it";
            (Reached::secure(ip, port, None), Some((not_there(ip), hint.to_owned())))
        }
    }
}

/// The lines for everybody who has an access key, wherever the server is.
async fn of_endpoint(args: &cli::Env, url: &str) -> Result<(), Failure> {
    let endpoint = Endpoint::parse(url).map_err(|why| Failure::usage(format!("{url} {why}")))?;
    let (host, port) = endpoint.address();
    let at = At {
        endpoint_url: Some(url.to_owned()),
        profile: args.profile.clone(),
        region: args.region.clone(),
        ..At::default()
    };
    let place = match Place::of_jobs(&JobAt { at, account_id: None }, None).await {
        Ok(place) => Some(place),
        // What was named has to be there.
        Err(failure) if args.profile.is_some() && failure.status == USAGE => return Err(failure),
        Err(failure) => {
            eprintln!("warning: whose account it is was not found out: {}", failure.message);
            None
        }
    };
    let account = place.as_ref().map(|place| place.client.account()).filter(|account| !account.is_empty());
    let region = args.region.as_deref().or(place.as_ref().map(|place| place.client.region()));
    let resolves = leads_there(&format!("{}.{host}", account.unwrap_or(ACCOUNT)), host, port);
    let reached = match endpoint.tls() {
        false => Reached::plain(host, port, resolves),
        true => Reached::secure(host, port, None),
    };
    let who = args.profile.as_deref().map_or(Who::Whoever, Who::Profile);
    print!(
        "{}",
        lines(&Facts {
            who,
            account,
            region: region.unwrap_or("us-east-1"),
            reached,
            data_dir: None,
            ca_bundle: None,
            in_the_way: in_the_way(&who),
        })
    );
    if endpoint.tls() && !resolves {
        let account = account.unwrap_or(ACCOUNT);
        eprintln!("warning: clients of S3 Control connect to {account}.{host}, which does not lead where {host} does");
        eprintln!(
            "hint: over TLS the server needs a name, with a certificate for it and what is below it, and both in your DNS or in /etc/hosts"
        );
    }
    Ok(())
}

/// Whether the system resolves two names to a common address.
fn leads_there(name: &str, host: &str, port: u16) -> bool {
    let addresses = |name: &str| -> Vec<IpAddr> {
        (name, port).to_socket_addrs().map(|found| found.map(|a| a.ip()).collect()).unwrap_or_default()
    };
    // No name is below an address.
    if host.parse::<IpAddr>().is_ok() {
        return false;
    }
    let there = addresses(host);
    addresses(name).iter().any(|address| there.contains(address))
}

/// The lines of a POSIX shell.
pub fn lines(facts: &Facts<'_>) -> String {
    let mut out = String::new();
    // First, since one of them may be a line of ours from the last time.
    for name in &facts.in_the_way {
        out.push_str(&format!("unset {name}\n"));
    }
    let mut export = |name: &str, value: &str| out.push_str(&format!("export {name}={}\n", quoted(value)));
    match facts.who {
        Who::Keys(credentials) => {
            export("AWS_ACCESS_KEY_ID", &credentials.access_key_id);
            export("AWS_SECRET_ACCESS_KEY", &credentials.secret_access_key);
        }
        Who::Profile(profile) => export("AWS_PROFILE", profile),
        Who::Whoever => {}
    }
    export("AWS_REGION", facts.region);
    export("AWS_DEFAULT_REGION", facts.region);
    if let Some(account) = facts.account {
        export("AWS_ACCOUNT_ID", account);
    }
    let Reached { url, control, proxy } = &facts.reached;
    export("AWS_ENDPOINT_URL", url);
    if let Some(control) = control {
        export("AWS_ENDPOINT_URL_S3_CONTROL", control);
    }
    if let Some(straight) = proxy {
        for name in ["HTTP_PROXY", "http_proxy"] {
            export(name, url);
        }
        // An inherited list could name everything.
        for name in ["NO_PROXY", "no_proxy"] {
            export(name, &format!("{straight},localhost"));
        }
    }
    if let Some(file) = facts.ca_bundle {
        export("AWS_CA_BUNDLE", &file.to_string_lossy());
    }
    if let Some(data_dir) = facts.data_dir {
        export("LONGSHORE_DATA_DIR", &data_dir.to_string_lossy());
    }
    out
}

/// The address to connect to for one that is listened on: "any" becomes the loopback address.
pub fn dialled(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Whether the system resolves a name, and `{account}.` before it, to where we listen.
fn leads_here(account: &str, name: &str, address: SocketAddr) -> bool {
    let listen = dialled(address).ip();
    let any = address.ip().is_unspecified();
    let leads = |host: &str| {
        (host, address.port())
            .to_socket_addrs()
            .is_ok_and(|mut found| found.any(|a| a.ip() == listen || (any && a.ip().is_loopback())))
    };
    leads(&format!("{account}.{name}")) && leads(name)
}

/// A word of a POSIX shell.
pub fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:+=@".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts<'a>(who: Who<'a>, reached: Reached) -> Facts<'a> {
        Facts {
            who,
            account: Some("000000000000"),
            region: "us-east-1",
            reached,
            data_dir: None,
            ca_bundle: None,
            in_the_way: vec!["AWS_PROFILE".into()],
        }
    }

    fn credentials() -> Credentials {
        Credentials { access_key_id: "LSKEY".into(), secret_access_key: "a/b+c".into() }
    }

    #[test]
    fn where_localhost_resolves_below_itself_the_endpoint_is_plain() {
        let credentials = credentials();
        let facts = facts(Who::Keys(&credentials), Reached::plain("localhost", 7300, true));
        assert_eq!(
            lines(&Facts { data_dir: Some(Path::new("/var/lib/a b")), ..facts }),
            "unset AWS_PROFILE\n\
             export AWS_ACCESS_KEY_ID=LSKEY\n\
             export AWS_SECRET_ACCESS_KEY=a/b+c\n\
             export AWS_REGION=us-east-1\n\
             export AWS_DEFAULT_REGION=us-east-1\n\
             export AWS_ACCOUNT_ID=000000000000\n\
             export AWS_ENDPOINT_URL=http://localhost:7300\n\
             export LONGSHORE_DATA_DIR='/var/lib/a b'\n"
        );
    }

    #[test]
    fn elsewhere_we_are_s3_controls_proxy_for_a_made_up_name() {
        let credentials = credentials();
        let lines = lines(&facts(Who::Keys(&credentials), Reached::plain("127.0.0.1", 7300, false)));
        for line in [
            "export AWS_ENDPOINT_URL=http://127.0.0.1:7300\n",
            "export AWS_ENDPOINT_URL_S3_CONTROL=http://longshore.internal:7300\n",
            "export HTTP_PROXY=http://127.0.0.1:7300\n",
            "export http_proxy=http://127.0.0.1:7300\n",
            "export NO_PROXY='127.0.0.1,localhost'\n",
            "export no_proxy='127.0.0.1,localhost'\n",
        ] {
            assert!(lines.contains(line), "{line} in {lines}");
        }
        assert_eq!(Reached::plain("::1", 7300, false).url, "http://[::1]:7300");
    }

    #[test]
    fn who_has_a_profile_or_nothing_yet_is_given_no_key() {
        let reached = || Reached::plain("10.0.0.7", 7300, false);
        let of_profile = lines(&facts(Who::Profile("deployer"), reached()));
        assert!(of_profile.contains("export AWS_PROFILE=deployer\n"), "{of_profile}");
        let of_nobody = lines(&Facts { account: None, ..facts(Who::Whoever, reached()) });
        assert!(!of_nobody.contains("PROFILE=") && !of_nobody.contains("ACCOUNT"), "{of_nobody}");
        for lines in [of_profile, of_nobody] {
            assert!(!lines.contains("KEY") && lines.contains("HTTP_PROXY=http://10.0.0.7:7300\n"), "{lines}");
        }
    }

    #[test]
    fn with_tls_the_endpoint_is_what_resolves_and_the_certificate_is_for() {
        let named = Chain::parse(include_bytes!("../fixtures/tls/named.pem")).unwrap();
        let local = Chain::parse(include_bytes!("../fixtures/tls/first.pem")).unwrap();
        let hosts = "/etc/hosts, or both names to your DNS: 127.0.0.1 batch.example 1.batch.example";
        for (name, chain, leads, url, control, hint) in [
            (Some("batch.example"), Some(&named), "batch.example", "batch.example", None, ""),
            (Some("batch.example"), Some(&local), "", "127.0.0.1", Some("batch.example"), hosts),
            (Some("batch.example"), Some(&named), "", "batch.example", None, hosts),
            (Some("batch.example"), None, "", "batch.example", None, hosts),
            (None, None, "localhost", "localhost", None, ""),
            (None, Some(&local), "localhost", "localhost", None, ""),
            (None, Some(&named), "localhost", "127.0.0.1", None, "give the server a name"),
            (None, None, "", "127.0.0.1", None, "give the server a name"),
        ] {
            let (reached, warning) = secure("1", "127.0.0.1", 7300, name, chain, |host| host == leads);
            let wanted = Reached::secure(url, 7300, control);
            assert_eq!(reached, wanted, "{name:?} {leads}");
            let told = warning.map_or_else(String::new, |(_, hint)| hint);
            assert!(told.contains(hint) && told.is_empty() == hint.is_empty(), "{told}");
            assert!(!reached.url.contains("http://") && reached.proxy.is_none());
        }
    }

    #[test]
    fn a_value_is_one_word_for_the_shell() {
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted("a b;c"), "'a b;c'");
        assert_eq!(quoted(""), "''");
    }
}
