//! `longshore env`: the lines with which unmodified AWS clients work in a shell.
//!
//! Where `{account}.localhost` resolves, a plain endpoint does. Elsewhere the S3 Control clients could not reach us, for
//! they put the account before the host; there their endpoint has a made-up name and we are its HTTP proxy. The other
//! services come straight to us even so: through a proxy, urllib3 takes `./` and `../` out of a path that botocore has
//! signed with them, so that objects of such names would be out of reach, and some clients know no proxy at all.
//! Source: design, "How clients reach it".

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::Path;

use crate::credentials::Credentials;
use crate::failure::Failure;
use crate::names::INTERNAL;
use crate::settings::Settings;
use crate::state_file::ServerFile;

/// What the lines are made of.
#[derive(Debug)]
pub struct Facts<'a> {
    pub credentials: &'a Credentials,
    pub account: &'a str,
    pub region: &'a str,
    pub address: SocketAddr,
    /// With TLS, the host name for which the certificate is taken to be, if there is one.
    pub tls: Option<Option<String>>,
    /// Whether `{account}.localhost` leads here.
    pub localhost_resolves: bool,
    /// Names among the shell's variables that would win over ours.
    pub in_the_way: Vec<String>,
}

/// Variables that make AWS clients look elsewhere than at ours.
const IN_THE_WAY: [&str; 9] = [
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL_LAMBDA",
    "AWS_ENDPOINT_URL_S3_CONTROL",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_USE_DUALSTACK_ENDPOINT",
];

/// Prints the lines to standard output.
pub fn print(data_dir: &Path, settings: &Settings) -> Result<(), Failure> {
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
    let in_the_way = IN_THE_WAY.iter().filter(|v| std::env::var_os(v).is_some());
    let facts = Facts {
        credentials: &credentials,
        account,
        region,
        address,
        tls: running.as_ref().map_or_else(
            || settings.tls.is_on().then(|| settings.names.first().cloned()),
            |server| server.tls.as_ref().map(|tls| tls.name.clone()),
        ),
        localhost_resolves: leads_here(account, "localhost", address),
        in_the_way: in_the_way.map(|v| (*v).to_owned()).collect(),
    };
    print!("{}", lines(&facts));
    if let Some(host) = facts.tls_host()
        && !leads_here(account, &host, address)
    {
        // Through a proxy, as without TLS, it would be the proxy that answers for the name.
        eprintln!("warning: clients of S3 Control connect to {account}.{host}, which does not lead to this server");
        eprintln!(
            "hint: give the server a name (names, in longshore.toml) with a certificate for it and what is below it"
        );
    }
    Ok(())
}

impl Facts<'_> {
    /// The host of `https://`, where there is TLS: the server's own name, `localhost`, or the address.
    fn tls_host(&self) -> Option<String> {
        let name = self.tls.clone()?;
        Some(name.unwrap_or_else(|| match (self.localhost_resolves, dialled(self.address).ip()) {
            (true, _) => "localhost".to_owned(),
            (false, IpAddr::V4(ip)) => ip.to_string(),
            (false, IpAddr::V6(ip)) => format!("[{ip}]"),
        }))
    }
}

/// The lines of a POSIX shell.
pub fn lines(facts: &Facts<'_>) -> String {
    let port = facts.address.port();
    let mut out = String::new();
    // First, since one of them may be a line of ours from the last time.
    for name in &facts.in_the_way {
        out.push_str(&format!("unset {name}\n"));
    }
    let mut export = |name: &str, value: &str| out.push_str(&format!("export {name}={}\n", quoted(value)));
    export("AWS_ACCESS_KEY_ID", &facts.credentials.access_key_id);
    export("AWS_SECRET_ACCESS_KEY", &facts.credentials.secret_access_key);
    export("AWS_REGION", facts.region);
    export("AWS_DEFAULT_REGION", facts.region);
    export("AWS_ACCOUNT_ID", facts.account);
    if let Some(host) = facts.tls_host() {
        export("AWS_ENDPOINT_URL", &format!("https://{host}:{port}"));
    } else if facts.localhost_resolves {
        export("AWS_ENDPOINT_URL", &format!("http://localhost:{port}"));
    } else {
        let address = dialled(facts.address);
        export("AWS_ENDPOINT_URL", &format!("http://{address}"));
        export("AWS_ENDPOINT_URL_S3_CONTROL", &format!("http://{INTERNAL}:{port}"));
        for name in ["HTTP_PROXY", "http_proxy"] {
            export(name, &format!("http://{address}"));
        }
        // An inherited list could name everything.
        for name in ["NO_PROXY", "no_proxy"] {
            export(name, &format!("{},localhost", address.ip()));
        }
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

    fn facts(credentials: &Credentials, localhost_resolves: bool) -> Facts<'_> {
        Facts {
            credentials,
            account: "000000000000",
            region: "us-east-1",
            address: "127.0.0.1:7300".parse().unwrap(),
            tls: None,
            localhost_resolves,
            in_the_way: vec!["AWS_PROFILE".into()],
        }
    }

    fn credentials() -> Credentials {
        Credentials { access_key_id: "LSKEY".into(), secret_access_key: "a/b+c".into() }
    }

    #[test]
    fn where_localhost_resolves_below_itself_the_endpoint_is_plain() {
        let credentials = credentials();
        assert_eq!(
            lines(&facts(&credentials, true)),
            "unset AWS_PROFILE\n\
             export AWS_ACCESS_KEY_ID=LSKEY\n\
             export AWS_SECRET_ACCESS_KEY=a/b+c\n\
             export AWS_REGION=us-east-1\n\
             export AWS_DEFAULT_REGION=us-east-1\n\
             export AWS_ACCOUNT_ID=000000000000\n\
             export AWS_ENDPOINT_URL=http://localhost:7300\n"
        );
    }

    #[test]
    fn elsewhere_we_are_s3_controls_proxy_for_a_made_up_name() {
        let credentials = credentials();
        let lines = lines(&facts(&credentials, false));
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
    }

    #[test]
    fn with_tls_the_endpoint_is_the_name_that_a_certificate_can_be_for() {
        let credentials = credentials();
        for (name, localhost_resolves, url) in [
            (Some("batch.example"), true, "https://batch.example:7300"),
            (None, true, "https://localhost:7300"),
            (None, false, "https://127.0.0.1:7300"),
        ] {
            let tls = Some(name.map(str::to_owned));
            let lines = lines(&Facts { tls, ..facts(&credentials, localhost_resolves) });
            assert!(lines.contains(&format!("export AWS_ENDPOINT_URL={url}\n")), "{lines}");
            assert!(!lines.contains("PROXY") && !lines.contains("http://"), "{lines}");
        }
    }

    #[test]
    fn a_value_is_one_word_for_the_shell() {
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted("a b;c"), "'a b;c'");
        assert_eq!(quoted(""), "''");
    }
}
