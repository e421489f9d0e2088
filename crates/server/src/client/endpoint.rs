//! Where the APIs answer: one place for all of Longshore's, a host each at AWS.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::tls::Fingerprint;

/// A scheme, a host, a port, and what stands before each path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    tls: bool,
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
    /// Empty, or begins with a slash and does not end in one.
    base: String,
    /// Whether it is known by its address, and no proxy is in between: a server of this machine.
    straight: bool,
    /// The one certificate that it may show; without it, one that is trusted.
    certificate: Option<Fingerprint>,
}

/// The endpoint of each API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    pub s3: Endpoint,
    pub control: Endpoint,
    pub lambda: Endpoint,
    pub sts: Endpoint,
}

/// Why a text is not where an API answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoEndpoint {
    #[error("is no URL: {0}")]
    Unread(String),
    #[error("must begin with http:// or https://")]
    Scheme,
    #[error("must not carry a user name")]
    User,
    #[error("has no host")]
    Host,
    #[error("must not have a query")]
    Query,
}

impl Endpoints {
    /// All APIs at one place.
    pub fn one(endpoint: Endpoint) -> Self {
        Self { s3: endpoint.clone(), control: endpoint.clone(), lambda: endpoint.clone(), sts: endpoint }
    }
}

impl Endpoint {
    /// A server of this machine: with TLS, if it is known which certificate it shows.
    pub fn here(address: SocketAddr, certificate: Option<Fingerprint>) -> Self {
        Self {
            tls: certificate.is_some(),
            host: address.ip().to_string(),
            port: address.port(),
            base: String::new(),
            straight: true,
            certificate,
        }
    }

    /// With TLS, on its port.
    pub fn secure(host: String) -> Self {
        Self { tls: true, host, port: 443, base: String::new(), straight: false, certificate: None }
    }

    /// Reads `http(s)://host[:port][/path]`. The error is a clause: what the URL lacks.
    pub fn parse(url: &str) -> Result<Self, NoEndpoint> {
        let (endpoint, uri) = Self::of(url)?;
        if uri.query().is_some() || url.contains('#') {
            return Err(NoEndpoint::Query);
        }
        Ok(Self { base: uri.path().trim_end_matches('/').to_owned(), ..endpoint })
    }

    /// The server that a URL names, and the whole URL: its path and its query are whoever's it is.
    pub fn of(url: &str) -> Result<(Self, http::Uri), NoEndpoint> {
        let uri: http::Uri = url.parse().map_err(|e: http::uri::InvalidUri| NoEndpoint::Unread(e.to_string()))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(NoEndpoint::Scheme),
        };
        if uri.authority().is_some_and(|a| a.as_str().contains('@')) {
            return Err(NoEndpoint::User);
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or(NoEndpoint::Host)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok((Self { tls, host, port, base: String::new(), straight: false, certificate: None }, uri))
    }

    pub fn tls(&self) -> bool {
        self.tls
    }

    /// The one certificate that it may show, where that is known.
    pub fn certificate(&self) -> Option<Fingerprint> {
        self.certificate
    }

    /// The same, of which it is known which certificate it shows.
    pub fn showing(self, certificate: Option<Fingerprint>) -> Self {
        Self { certificate: certificate.filter(|_| self.tls), ..self }
    }

    pub fn straight(&self) -> bool {
        self.straight
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    /// What the name lookup takes.
    pub fn address(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// The Host header: the port only where it is not the scheme's own, as the AWS clients sign it.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let usual = if self.tls { 443 } else { 80 };
        if self.port == usual { host } else { format!("{host}:{}", self.port) }
    }

    /// Whether it is on this machine, by its name.
    pub fn is_loopback(&self) -> bool {
        let host = &self.host;
        host == "localhost" || host.ends_with(".localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// Is it one of AWS's own?
    pub fn is_aws(&self) -> bool {
        [".amazonaws.com", ".amazonaws.com.cn"].iter().any(|domain| self.host.ends_with(domain))
    }

    /// The same with an account before the host, unless one stands there. Source: S3 Batch spec, rule N-1.
    pub fn of_account(&self, account: &str) -> Self {
        let first = self.host.split('.').next().unwrap_or("");
        if first.len() == 12 && first.bytes().all(|b| b.is_ascii_digit()) {
            return self.clone();
        }
        Self { host: format!("{account}.{}", self.host), ..self.clone() }
    }

    /// The S3 beside an S3 Control of AWS: `s3-control.R` becomes `s3.R`, an account before it goes.
    pub fn s3_beside(&self) -> Self {
        let host = self.host.find("s3-control").map_or(self.host.as_str(), |at| &self.host[at..]);
        Self { host: host.replacen("s3-control", "s3", 1), ..self.clone() }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_and_its_port_is_told_only_where_it_is_not_the_usual_one() {
        for (url, told, authority) in [
            ("http://127.0.0.1:7300", "http://127.0.0.1:7300", "127.0.0.1:7300"),
            ("http://127.0.0.1:80/", "http://127.0.0.1", "127.0.0.1"),
            ("https://Batch.Example/base/", "https://batch.example/base", "batch.example"),
            ("https://[::1]:443", "https://[::1]", "[::1]"),
            ("http://[::1]:7300", "http://[::1]:7300", "[::1]:7300"),
        ] {
            let endpoint = Endpoint::parse(url).unwrap();
            assert_eq!((endpoint.to_string().as_str(), endpoint.authority().as_str()), (told, authority), "{url}");
        }
        for url in ["localhost:7300", "ftp://a", "http://", "http://u:p@a", "http://a/?b=c", "http://a/#b", "a b"] {
            assert!(Endpoint::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn aws_has_the_account_before_the_host_once() {
        let control = Endpoint::parse("https://s3-control.us-west-2.amazonaws.com").unwrap();
        let with = control.of_account("123456789012");
        assert_eq!(with.host(), "123456789012.s3-control.us-west-2.amazonaws.com");
        assert_eq!(with.of_account("123456789012"), with);
        assert!(with.is_aws() && !Endpoint::parse("https://amazonaws.com.example").unwrap().is_aws());
        assert_eq!(with.s3_beside().host(), "s3.us-west-2.amazonaws.com");
    }
}
