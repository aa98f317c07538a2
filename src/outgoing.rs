//! The HTTP client for all outgoing requests: no redirects, no proxy, TLS except to loopback, no private address unless
//! the operator allows it, and timeouts.

mod answer;
mod preset;
#[cfg(test)]
pub(crate) mod receiver;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Client, Response, redirect};
use tokio::net::TcpStream;
use url::{Host, Url};

pub(crate) use self::answer::{BodyTest, ValueTest, error_code, is_retriable};
pub(crate) use self::preset::{Piece, parse_preset, pieces, unknown_name};

/// Time limit to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit for a request, from connecting to the response.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Upper limit of `Retry-After`.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// A client for requests to `url` and other URLs of its receiver. `ca_file`: PEM file of certificate authorities that are
/// trusted in addition to those of the system. The error contains no secret.
pub(crate) fn client(url: &Url, allow_private: bool, ca_file: Option<&Path>) -> Result<Client, String> {
    check_url(url, allow_private)?;
    let mut builder = Client::builder()
        .redirect(redirect::Policy::none())
        .no_proxy()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(TIMEOUT)
        .user_agent(concat!("tokenwarden/", env!("CARGO_PKG_VERSION")))
        .dns_resolver(Arc::new(Guard { allow_private }));
    if let Some(file) = ca_file {
        let pem = std::fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        let authorities = reqwest::Certificate::from_pem_bundle(&pem)
            .map_err(|_| format!("{} contains no PEM certificate", file.display()))?;
        if authorities.is_empty() {
            return Err(format!("{} contains no PEM certificate", file.display()));
        }
        builder = builder.tls_certs_merge(authorities);
    }
    builder.build().map_err(|error| format!("cannot create an HTTP client: {}", reason(&error)))
}

/// Whether requests to `url` are allowed. The addresses of a name are checked at every connection, not here.
pub(crate) fn check_url(url: &Url, allow_private: bool) -> Result<(), String> {
    let Some(host) = url.host() else { return Err("has no host".to_owned()) };
    if !url.username().is_empty() || url.password().is_some() {
        return Err("contains a user or password; use their own keys".to_owned());
    }
    let loopback = is_loopback(&host.to_string());
    match url.scheme() {
        "https" => {}
        "http" if loopback => {}
        "http" => return Err("must be https, except on loopback".to_owned()),
        other => return Err(format!("must be https, not {other}")),
    }
    let address = match host {
        Host::Domain(_) => None,
        Host::Ipv4(ip) => Some(IpAddr::V4(ip)),
        Host::Ipv6(ip) => Some(IpAddr::V6(ip)),
    };
    match address {
        Some(address) if !loopback && !allow_private && !is_global(address) => {
            Err(format!("{address} is a private address; set allow_private = true to allow it"))
        }
        _ => Ok(()),
    }
}

/// Whether `host`, a name or address in the notation of URLs, is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback())
}

/// The wait in `Retry-After`, in seconds or as a date (RFC 9110 section 10.2.3), at most one hour. `now`: milliseconds
/// since the epoch.
pub(crate) fn retry_after(headers: &HeaderMap, now: i64) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if let Ok(seconds) = text.parse() {
        Duration::from_secs(seconds)
    } else {
        let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp().as_millisecond();
        Duration::from_millis(u64::try_from(at - now).unwrap_or(0))
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// The first `max` bytes of the body of `answer`.
pub(crate) async fn body(answer: &mut Response, max: usize) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(part) = answer.chunk().await? {
        let room = max - body.len();
        body.extend_from_slice(&part[..part.len().min(room)]);
        if part.len() >= room {
            break;
        }
    }
    Ok(body)
}

/// Connects to an allowed address of `host`.
pub(crate) async fn connect(host: &str, port: u16, allow_private: bool) -> std::io::Result<TcpStream> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let open = allow_private || is_loopback(host);
    let connecting = async { TcpStream::connect(&*resolve(host, port, open).await?).await };
    tokio::time::timeout(CONNECT_TIMEOUT, connecting).await?
}

/// The addresses of `host`, without forbidden ones unless `open`.
async fn resolve(host: &str, port: u16, open: bool) -> std::io::Result<Vec<SocketAddr>> {
    let found = tokio::net::lookup_host((host, port)).await?;
    let allowed: Vec<SocketAddr> = found.filter(|address| open || is_global(address.ip())).collect();
    if allowed.is_empty() {
        return Err(std::io::Error::other(format!("{host} has no public address; see allow_private")));
    }
    Ok(allowed)
}

/// The error of a request without its URL, because the path may contain an id and the query a secret.
pub(crate) fn reason(error: &reqwest::Error) -> String {
    let what = if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "cannot connect"
    } else {
        "the request failed"
    };
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    let mut last = None;
    while let Some(inner) = cause {
        last = Some(inner.to_string());
        cause = inner.source();
    }
    last.map_or_else(|| what.to_owned(), |last| format!("{what}: {last}"))
}

/// Resolver that removes forbidden addresses. It runs at every connection, so that a name whose address changes after the
/// check is covered too.
struct Guard {
    allow_private: bool,
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let open = self.allow_private || name.as_str() == "localhost";
        Box::pin(async move {
            let addresses: Addrs = Box::new(resolve(name.as_str(), 0, open).await?.into_iter());
            Ok(addresses)
        })
    }
}

/// Whether `address` is reachable over the Internet (registries of RFC 6890). An IPv4 address inside an IPv6 address counts
/// as IPv4.
fn is_global(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(ip) => is_global_v4(ip),
        IpAddr::V6(ip) => is_global_v6(ip),
    }
}

fn is_global_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    !(ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_broadcast()
        || ip.is_documentation()
        || ip.is_multicast()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (b == 18 || b == 19)))
}

fn is_global_v6(ip: Ipv6Addr) -> bool {
    let segments = ip.segments();
    match segments {
        // NAT64 (RFC 6052) and 6to4 (RFC 3056) contain an IPv4 address.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            let [a, b] = high.to_be_bytes();
            let [c, d] = low.to_be_bytes();
            is_global_v4(Ipv4Addr::new(a, b, c, d))
        }
        // Documentation (RFC 3849), Teredo and other protocol assignments (RFC 2928).
        [0x2001, 0xdb8 | 0..0x200, ..] => false,
        // Global unicast (RFC 4291). All others are loopback, local, multicast or unassigned.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, allow_private: bool) -> Result<(), String> {
        check_url(&Url::parse(url).expect("a URL"), allow_private)
    }

    #[test]
    fn url_is_https_with_a_public_host() {
        for url in ["https://hooks.example/x", "http://127.0.0.1:8080/x", "http://[::1]/", "http://localhost:1/"] {
            assert_eq!(check(url, false), Ok(()), "{url}");
        }
        for url in ["http://hooks.example/x", "ftp://127.0.0.1/", "https://me:secret@hooks.example/", "data:x"] {
            let problem = check(url, true).expect_err(url);
            assert!(!problem.contains("secret"), "{problem}");
        }
        for ip in ["10.1.2.3", "192.168.0.1", "172.31.9.9", "169.254.169.254", "100.64.0.1", "0.0.0.0"] {
            assert!(check(&format!("https://{ip}/"), false).is_err(), "{ip}");
            assert_eq!(check(&format!("https://{ip}/"), true), Ok(()), "{ip}");
        }
        for ip in ["fd00::1", "fe80::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "::", "ff02::1"] {
            assert!(check(&format!("https://[{ip}]/"), false).is_err(), "{ip}");
        }
        for ip in ["2a00:1450:4001:80b::200e", "64:ff9b::808:808"] {
            assert_eq!(check(&format!("https://[{ip}]/"), false), Ok(()), "{ip}");
        }
        // Other notations of 127.0.0.1 and 10.0.0.1.
        assert_eq!(check("http://2130706433/", false), Ok(()));
        assert!(check("https://0xa000001/", false).is_err());
    }

    #[tokio::test]
    async fn resolver_removes_private_addresses() {
        // An address resolves to itself without a name server. It stands for a name other than `localhost` on loopback.
        let found = |name: &'static str, allow_private| async move {
            Guard { allow_private }.resolve(name.parse().expect("a name")).await.is_ok()
        };
        assert!(found("localhost", false).await);
        assert!(!found("127.0.0.1", false).await);
        assert!(found("127.0.0.1", true).await);
    }

    #[tokio::test]
    async fn client_refuses_names_with_private_addresses() {
        // The name of the machine, or another name of loopback. Its address could change after the check of the URL.
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let mut private = None;
        for name in [host.trim(), "ip6-localhost", "ip6-loopback"] {
            let found = tokio::net::lookup_host((name, 443)).await.map(Iterator::collect::<Vec<_>>).unwrap_or_default();
            if name != "localhost" && !found.is_empty() && found.iter().all(|address| !is_global(address.ip())) {
                private = Some(name.to_owned());
            }
        }
        let url = Url::parse(&format!("https://{}/", private.expect("/etc/hosts has the name of this machine")))
            .expect("a URL");
        let refused = |allow_private| {
            let client = client(&url, allow_private, None).expect("the URL is allowed");
            let url = url.clone();
            async move { reason(&client.get(url).send().await.expect_err("nothing listens")) }
        };
        assert!(refused(false).await.contains("has no public address"));
        assert!(!refused(true).await.contains("has no public address"));
    }

    #[test]
    fn retry_after_is_limited_to_an_hour() {
        let wait = |text: &'static str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().expect("a header"))]);
            // Wed, 21 Oct 2026 07:28:00 GMT
            retry_after(&headers, 1_792_567_680_000)
        };
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("86400"), Some(RETRY_AFTER_MAX));
        assert_eq!(wait("Wed, 21 Oct 2026 07:28:30 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(wait("Wed, 21 Oct 2026 07:20:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("soon"), None);
        assert_eq!(wait("-5"), None);
        assert_eq!(retry_after(&HeaderMap::new(), 0), None);
    }
}
