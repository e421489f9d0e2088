//! Which requests go by way of a proxy: those without TLS, as `http_proxy` and `no_proxy` say it to AWS's tools.
//!
//! `longshore env` gives S3 Control a made-up host that only its server, taken for a proxy, answers for: without this our own
//! commands could not follow what they have said themselves. With TLS connections go straight, and an error says so.

use std::net::IpAddr;

use super::Endpoint;

/// The proxy for what is at `endpoint`; `None` if it is reached straight. Servers of this machine always are, for no proxy elsewhere
/// could reach its loopback addresses. The error is a clause that does not show the variable's value, which may hold a password.
/// Source: `getproxies_environment` and `proxy_bypass_environment` of Python's urllib, which the AWS CLI asks.
pub fn of(endpoint: &Endpoint, variable: &impl Fn(&str) -> Option<String>) -> Result<Option<Endpoint>, String> {
    let either = |lower: &str, upper: &str| variable(lower).or_else(|| variable(upper)).filter(|v| !v.is_empty());
    if endpoint.tls() || endpoint.straight() || endpoint.is_loopback() {
        return Ok(None);
    }
    let Some(proxy) = either("http_proxy", "HTTP_PROXY") else { return Ok(None) };
    if either("no_proxy", "NO_PROXY").is_some_and(|list| is_excepted(endpoint, &list)) {
        return Ok(None);
    }
    let url = if proxy.contains("://") { proxy } else { format!("http://{proxy}") };
    match Endpoint::of(&url) {
        Ok((proxy, _)) if proxy.tls() => Err("HTTP_PROXY begins with https://, which is not supported".into()),
        Ok((proxy, _)) => Ok(Some(proxy)),
        Err(super::NoEndpoint::Unread(_)) => Err("HTTP_PROXY is no URL".into()),
        Err(error) => Err(format!("HTTP_PROXY {error}")),
    }
}

/// Whether a list of exceptions names the endpoint: a host, an end of its name, either with a port; or `*` for all.
fn is_excepted(endpoint: &Endpoint, list: &str) -> bool {
    let (host, port) = endpoint.address();
    list.split(',').map(|entry| entry.trim().to_ascii_lowercase()).any(|entry| {
        if entry == "*" {
            return true;
        }
        let name = match entry.rsplit_once(':') {
            // An IPv6 address without a port has colons, too.
            Some((name, digits)) if entry.parse::<IpAddr>().is_err() && digits.parse::<u16>().is_ok() => {
                if digits.parse() != Ok(port) {
                    return false;
                }
                name.trim_start_matches('[').trim_end_matches(']')
            }
            _ => entry.as_str(),
        };
        let name = name.trim_start_matches('.');
        !name.is_empty() && host.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str, variables: &[(&str, &str)]) -> Result<Option<String>, String> {
        let variable = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        super::of(&Endpoint::parse(url).unwrap(), &variable).map(|proxy| proxy.map(|proxy| proxy.to_string()))
    }

    #[test]
    fn the_made_up_host_of_longshore_env_is_reached_by_the_proxy_that_it_sets_and_the_server_itself_straight() {
        let env = [("HTTP_PROXY", "http://127.0.0.1:7300"), ("NO_PROXY", "127.0.0.1,localhost")];
        for (url, wanted) in [
            ("http://longshore.internal:7300", Some("http://127.0.0.1:7300")),
            ("http://127.0.0.1:7300", None),
            ("http://localhost:7300", None),
            ("https://longshore.internal:7300", None),
        ] {
            assert_eq!(of(url, &env), Ok(wanted.map(str::to_owned)), "{url}");
        }
        let address = Endpoint::here("10.0.0.5:7300".parse().unwrap(), None);
        let found = super::of(&address, &|_| Some("http://proxy:3128".to_owned()));
        assert_eq!(found, Ok(None), "the server of a data directory");
        assert_eq!(of("http://127.0.0.1:1", &[("HTTP_PROXY", "proxy:3128")]), Ok(None), "no proxy could");
    }

    #[test]
    fn exceptions_are_hosts_ends_of_names_and_ports() {
        for (url, list, excepted) in [
            ("http://store.example:9000", "store.example", true),
            ("http://store.example:9000", ".example", true),
            ("http://store.example:9000", "other, Example:9000", true),
            ("http://store.example:9000", "example:80", false),
            ("http://store.example:9000", "tore.example", false),
            ("http://store.example:9000", "*", true),
            ("http://store.example:9000", "", false),
            ("http://[fd00::1]:9000", "fd00::1", true),
            ("http://[fd00::1]:9000", "[fd00::1]:9000", true),
            ("http://10.0.0.1", "10.0.0.2", false),
        ] {
            let found = of(url, &[("http_proxy", "proxy:3128"), ("no_proxy", list)]).unwrap();
            assert_eq!(found.is_none(), excepted, "{url} {list}");
        }
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_an_error_without_its_password() {
        for (proxy, wanted) in [
            ("https://proxy:3128", "HTTP_PROXY begins with https://, which is not supported"),
            ("socks5://proxy:1080", "HTTP_PROXY must begin with http:// or https://"),
            ("http://me:secret@proxy:3128", "HTTP_PROXY must not carry a user name"),
            ("http://a b:secret", "HTTP_PROXY is no URL"),
        ] {
            assert_eq!(of("http://store.example", &[("HTTP_PROXY", proxy)]), Err(wanted.to_owned()));
        }
        let both = [("http_proxy", "lower:1"), ("HTTP_PROXY", "upper:1")];
        assert_eq!(of("http://store.example", &both), Ok(Some("http://lower:1".into())));
        assert_eq!(of("http://store.example", &[]), Ok(None));
    }
}
