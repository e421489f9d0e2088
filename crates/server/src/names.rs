//! Which host names are ours, and what stands before them: an account, or a bucket.
//!
//! The S3 Control clients put `{account}.` before any endpoint's host, S3 clients may put `{bucket}.` there. A request
//! for a name that is not ours is refused: in absolute form because this is no proxy for others, in origin form because
//! a web page that has pointed its own name at our address (DNS rebinding) arrives in just that way.
//! Source: S3 Batch spec 1.3; design, "How clients reach it".

use http::Uri;
use http::uri::Authority;
use longshore_wire::error::ApiError;

/// The made-up endpoint host for clients that reach us by `HTTP_PROXY`. `internal` is reserved for private use, so
/// nobody else's server has this name.
pub const INTERNAL: &str = "longshore.internal";

/// The names under which a listener answers.
#[derive(Debug, Clone)]
pub struct Names {
    /// Lower case, without port; the longest first, so that a name inside another is found whole.
    names: Vec<String>,
    port: u16,
}

/// A host that is ours, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// What stood before our name, without the dot: an account id or a bucket.
    pub prefix: Option<String>,
    pub port: Option<u16>,
}

impl Host {
    /// The first label, if it is an account id: twelve digits. What follows it is no matter (rule N-10).
    pub fn account(&self) -> Option<&str> {
        let first = self.prefix.as_deref()?.split('.').next()?;
        is_account(first).then_some(first)
    }

    /// Whether a bucket of S3 cannot be meant: there is no prefix, or it is an account id and nothing more.
    pub fn names_no_bucket(&self) -> bool {
        self.prefix.as_deref().is_none_or(is_account)
    }
}

/// Why a request's target or host is refused. An AWS client meets it where an endpoint or a proxy variable is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub status: http::StatusCode,
    pub reason: String,
}

impl Refused {
    /// The error for an AWS client, which shows nothing of a text that is not of its API's form. AWS has no such refusals: the
    /// code is the one of S3 that fits, and not AccessDenied, for nobody's credentials are at fault.
    pub fn error(self) -> ApiError {
        ApiError::new(self.status, "InvalidRequest", self.reason)
    }
}

pub fn is_account(label: &str) -> bool {
    label.len() == 12 && label.bytes().all(|b| b.is_ascii_digit())
}

impl Names {
    /// `further` are the names that the settings add; `port` is the one listened on.
    pub fn new(further: &[String], address: std::net::SocketAddr) -> Self {
        let mut names: Vec<String> =
            ["localhost", "127.0.0.1", "[::1]", INTERNAL].iter().map(|&n| n.to_owned()).collect();
        if !address.ip().is_unspecified() {
            names.push(match address.ip() {
                std::net::IpAddr::V4(ip) => ip.to_string(),
                std::net::IpAddr::V6(ip) => format!("[{ip}]"),
            });
        }
        names.extend(further.iter().map(|n| n.trim_end_matches('.').to_ascii_lowercase()));
        names.sort_by_key(|n| std::cmp::Reverse(n.len()));
        names.dedup();
        Self { names, port: address.port() }
    }

    /// Takes `host[:port]` apart if it is one of ours, at any port.
    pub fn parse(&self, host: &str) -> Option<Host> {
        let authority: Authority = host.parse().ok()?;
        if host.contains('@') {
            return None;
        }
        let port = match authority.port() {
            Some(port) => Some(port.as_str().parse().ok()?),
            None => None,
        };
        let name = authority.host().trim_end_matches('.').to_ascii_lowercase();
        let ours = self
            .names
            .iter()
            .find(|n| name.strip_suffix(n.as_str()).is_some_and(|before| before.is_empty() || before.ends_with('.')))?;
        let prefix = name.strip_suffix(ours.as_str()).and_then(|before| before.strip_suffix('.'));
        Some(Host { prefix: prefix.filter(|p| !p.is_empty()).map(str::to_owned), port })
    }

    /// Decides whether a request with this target and `Host` header is for us.
    pub fn admit(&self, target: &Uri, host: Option<&str>) -> Result<Host, Refused> {
        let refuse = |status: u16, reason: String| Refused {
            status: http::StatusCode::from_u16(status).expect("a constant status is valid"),
            reason,
        };
        let Some(host) = host else {
            return Err(refuse(400, "The request has no Host header.".into()));
        };
        let given = self.parse(host);
        if let Some(authority) = target.authority() {
            // Absolute form: a client that takes us for its proxy. Only our own names are answered, and nothing is
            // ever forwarded.
            let wanted = self.parse(authority.as_str());
            let ours = target.scheme_str() == Some("http")
                && wanted.as_ref().is_some_and(|h| h.port.is_none_or(|p| p == 80 || p == self.port));
            if !ours {
                let port = match wanted {
                    Some(_) => format!(" It listens on port {}.", self.port),
                    None => String::new(),
                };
                return Err(refuse(
                    403,
                    format!(
                        "This is Longshore, not a proxy: it answers for its own names only, not for {authority}.{port}"
                    ),
                ));
            }
            let port = |h: &Host| h.port.unwrap_or(80);
            if wanted.as_ref().map(|w| (&w.prefix, port(w))) != given.as_ref().map(|g| (&g.prefix, port(g))) {
                return Err(refuse(400, "The request's target and its Host header disagree.".into()));
            }
        }
        given.ok_or_else(|| {
            refuse(
                403,
                "This is Longshore, and the Host header names another server. \
                 Add the name to \"names\" in longshore.toml if it is meant."
                    .into(),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_us_for_a_proxy_is_told_so_in_the_form_of_the_api_and_at_which_port_we_are() {
        let refused = |target: &str, host| names().admit(&target.parse().unwrap(), Some(host)).unwrap_err().error();
        let wrong_port = refused("http://longshore.internal:7999/v20180820/jobs", "longshore.internal:7999");
        assert_eq!((wrong_port.status.as_u16(), wrong_port.code.as_ref()), (403, "InvalidRequest"));
        assert!(wrong_port.message.ends_with("not for longshore.internal:7999. It listens on port 7300."));
        let elsewhere = refused("http://example.com/", "example.com");
        assert!(elsewhere.message.ends_with("not for example.com."), "{}", elsewhere.message);
        assert_eq!(refused("http://localhost:7300/", "localhost:80").status.as_u16(), 400);
    }

    fn names() -> Names {
        Names::new(&["s3.example.org".to_owned()], "127.0.0.1:7300".parse().unwrap())
    }

    fn admit(target: &str, host: &str) -> Result<Option<String>, u16> {
        names().admit(&target.parse().unwrap(), Some(host)).map(|h| h.prefix).map_err(|r| r.status.as_u16())
    }

    #[test]
    fn what_stands_before_our_name_is_an_account_or_a_bucket() {
        let cases = [
            ("localhost:7300", None),
            ("127.0.0.1", None),
            ("[::1]:7300", None),
            ("LOCALHOST.", None),
            ("000000000000.localhost:7300", Some("000000000000")),
            ("my.bucket.longshore.internal", Some("my.bucket")),
            ("photos.s3.example.org", Some("photos")),
        ];
        for (host, prefix) in cases {
            assert_eq!(admit("/", host), Ok(prefix.map(str::to_owned)), "{host}");
        }
        for (host, account, no_bucket) in [
            ("localhost", None, true),
            ("000000000000.localhost", Some("000000000000"), true),
            ("000000000000.s3-control.localhost", Some("000000000000"), false),
            ("bucket.localhost", None, false),
            ("bucket.000000000000.localhost", None, false),
        ] {
            let host = names().parse(host).unwrap();
            assert_eq!((host.account(), host.names_no_bucket()), (account, no_bucket), "{host:?}");
        }
    }

    #[test]
    fn a_host_of_somebody_else_is_refused() {
        for host in ["evil.example", "notlocalhost", "localhost.evil.example", "127.0.0.1.nip.io", "user@localhost", ""]
        {
            assert_eq!(admit("/", host), Err(403), "{host}");
        }
        assert_eq!(names().admit(&"/".parse().unwrap(), None).unwrap_err().status, 400);
    }

    #[test]
    fn a_target_in_absolute_form_is_answered_for_our_names_and_ports_only() {
        let ours = "http://000000000000.longshore.internal:7300/v20180820/jobs";
        assert_eq!(admit(ours, "000000000000.longshore.internal:7300"), Ok(Some("000000000000".into())));
        assert_eq!(admit("http://localhost/", "localhost"), Ok(None));
        assert_eq!(admit("http://localhost:80/", "localhost"), Ok(None));
        assert_eq!(admit("http://example.org/", "example.org"), Err(403));
        assert_eq!(admit("http://localhost:22/", "localhost:22"), Err(403));
        assert_eq!(admit("https://localhost:7300/", "localhost:7300"), Err(403));
        assert_eq!(admit("http://localhost:7300/", "a.localhost:7300"), Err(400));
        assert_eq!(admit("http://localhost:7300/", "evil.example"), Err(400));
    }
}
