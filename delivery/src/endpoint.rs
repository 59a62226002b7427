//! The endpoint guard: which URLs a subscription may name.
//!
//! ```text
//! text ──Endpoint::parse──▶ Endpoint ──Endpoint::check, before each attempt──▶ connect
//!                                      └─ names: crate::resolver checks what they resolve to
//! ```
//!
//! # Invariants
//!
//! - An [`Endpoint`] is `http` or `https`, has a host, no userinfo and no fragment.
//! - Its host is an IP address in the canonical form, or a name that no resolver takes for one:
//!   `127.1`, `0x7f.1`, `0177.0.0.1` and `2130706433` are refused.
//!
//! # What is absent on purpose
//!
//! - No resolution: a name that is harmless now may resolve to something else at the attempt, so
//!   addresses are checked there, and the connection is made to the checked address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::Uri;
use http::uri::Scheme;
use ipnet::IpNet;

use crate::address::{self, ForbiddenAddress};

/// The most bytes of a URL: what browsers and proxies agree on.
pub const URL_BYTES_MAX: usize = 2048;
/// RFC 1035, section 2.3.4.
const HOST_BYTES_MAX: usize = 253;
/// RFC 1035, section 2.3.4.
const LABEL_BYTES_MAX: usize = 63;

/// What the operator allows beyond https to public addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointPolicy {
    /// Whether plain `http` may be used.
    pub allow_http: bool,
    /// Networks that may be called although they are not public, such as `127.0.0.0/8` in
    /// development. What it can never open is said in [`crate::address`].
    pub allow_private: Vec<IpNet>,
}

impl EndpointPolicy {
    /// Checks one address that a request would be sent to.
    ///
    /// # Errors
    ///
    /// [`ForbiddenAddress`] if it is neither public nor listed.
    pub fn check_address(&self, address: IpAddr) -> Result<(), ForbiddenAddress> {
        address::check(address, &self.allow_private)
    }
}

/// See [`EndpointPolicy::check_address`].
///
/// # Errors
///
/// [`ForbiddenAddress`] if `address` is neither public nor listed in `policy`.
pub fn check_address(address: IpAddr, policy: &EndpointPolicy) -> Result<(), ForbiddenAddress> {
    policy.check_address(address)
}

/// A URL that passed the guard.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    uri: Uri,
    /// The host, if it is an address: hyper asks no resolver about these.
    literal: Option<IpAddr>,
    is_https: bool,
}

impl Endpoint {
    /// Parses `url` and checks it under `policy`.
    ///
    /// # Errors
    ///
    /// [`EndpointError`], which names the URL by its origin.
    pub fn parse(url: &str, policy: &EndpointPolicy) -> Result<Self, EndpointError> {
        if url.len() > URL_BYTES_MAX {
            return Err(EndpointError::TooLong { length_bytes: url.len() });
        }
        if url.contains('#') {
            // `http::Uri` would drop it silently.
            return Err(EndpointError::Fragment { url: origin_of(url) });
        }
        let uri: Uri = url.parse().map_err(|source| EndpointError::Malformed { url: origin_of(url), source })?;
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return Err(EndpointError::NoHost { url: origin_of(url) });
        };
        let is_https = *scheme == Scheme::HTTPS;
        if !is_https && *scheme != Scheme::HTTP {
            return Err(EndpointError::Scheme { url: origin_of(url) });
        }
        if authority.as_str().contains('@') {
            return Err(EndpointError::Userinfo { url: origin_of(url) });
        }
        // `http` takes "host:" and "host:99999" and then says that there is no port.
        let after_host = &authority.as_str()[authority.host().len()..];
        if !after_host.is_empty() && uri.port_u16().is_none_or(|port| port == 0) {
            return Err(EndpointError::Port { url: origin_of(url) });
        }
        let literal = parse_host(authority.host())
            .ok_or_else(|| EndpointError::Host { url: origin_of(url), host: authority.host().to_owned() })?;
        let endpoint = Self { uri, literal, is_https };
        endpoint.check(policy)?;
        Ok(endpoint)
    }

    /// Checks again, before an attempt, what `policy` says about scheme and literal address: the
    /// endpoint may be older than the configuration.
    ///
    /// # Errors
    ///
    /// [`EndpointError::PlainHttp`] or [`EndpointError::Address`].
    pub fn check(&self, policy: &EndpointPolicy) -> Result<(), EndpointError> {
        if !self.is_https && !policy.allow_http {
            return Err(EndpointError::PlainHttp { url: self.origin() });
        }
        if let Some(address) = self.literal {
            policy.check_address(address).map_err(|source| EndpointError::Address { url: self.origin(), source })?;
        }
        Ok(())
    }

    /// The URL.
    #[must_use]
    pub const fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The host as written, brackets included.
    #[must_use]
    pub fn host(&self) -> &str {
        self.uri.host().unwrap_or_default()
    }

    /// The port, named or implied.
    #[must_use]
    pub fn port(&self) -> u16 {
        let implied = if self.is_https { 443 } else { 80 };
        self.uri.port_u16().unwrap_or(implied)
    }

    /// Whether the connection is encrypted.
    #[must_use]
    pub const fn is_https(&self) -> bool {
        self.is_https
    }

    /// `scheme://host:port` in lower case: what a connection, and so a circuit breaker, is about.
    /// Holds no path and no query, which may carry tokens, so it can be logged.
    #[must_use]
    pub fn origin(&self) -> String {
        let scheme = if self.is_https { "https" } else { "http" };
        let host = self.host().to_ascii_lowercase();
        format!("{scheme}://{host}:{}", self.port())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({})", self.uri)
    }
}

/// Why a URL may not be an endpoint.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// Longer than [`URL_BYTES_MAX`].
    #[error("url has {length_bytes} bytes, more than 2048")]
    TooLong {
        /// Its length.
        length_bytes: usize,
    },
    /// Not a URI at all.
    #[error("url {url:?} is malformed")]
    Malformed {
        /// Its origin.
        url: String,
        /// What the parser said.
        source: http::uri::InvalidUri,
    },
    /// Not absolute.
    #[error("url {url:?} has no scheme or no host")]
    NoHost {
        /// Its origin.
        url: String,
    },
    /// Neither `https` nor `http`.
    #[error("url {url:?} is neither https nor http")]
    Scheme {
        /// Its origin.
        url: String,
    },
    /// `http`, which the operator does not allow.
    #[error("url {url:?} is not https")]
    PlainHttp {
        /// Its origin.
        url: String,
    },
    /// User and password belong in the subscription's basic auth, where they are encrypted.
    #[error("url {url:?} has user and password in it")]
    Userinfo {
        /// Its origin.
        url: String,
    },
    /// A fragment never reaches a server.
    #[error("url {url:?} has a fragment")]
    Fragment {
        /// Its origin.
        url: String,
    },
    /// Empty, 0, or above 65535.
    #[error("url {url:?} has an invalid port")]
    Port {
        /// Its origin.
        url: String,
    },
    /// Neither a domain name nor an address in its canonical form.
    #[error("url {url:?} has an invalid host {host:?}")]
    Host {
        /// Its origin.
        url: String,
        /// Its host.
        host: String,
    },
    /// The host is an address that may not be called.
    #[error("url {url:?} is not allowed: {source}")]
    Address {
        /// Its origin.
        url: String,
        /// The address and its kind.
        source: ForbiddenAddress,
    },
}

/// `None` if `host` is invalid, `Some(None)` if it is a name, `Some(Some(_))` if it is an address.
pub(crate) fn parse_host(host: &str) -> Option<Option<IpAddr>> {
    if let Some(inner) = host.strip_prefix('[') {
        let v6: Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
        return Some(Some(IpAddr::V6(v6)));
    }
    if let Ok(v4) = host.parse::<Ipv4Addr>() {
        return Some(Some(IpAddr::V4(v4)));
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let labels_are_valid = name.split('.').all(|label| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    });
    let is_name = name.len() <= HOST_BYTES_MAX && labels_are_valid && !ends_in_a_number(name);
    is_name.then_some(None)
}

/// Whether `inet_aton`, and with it many a resolver, would take `name` for an IPv4 address.
///
/// # Sources
///
/// WHATWG URL, "ends-in-a-number checker".
fn ends_in_a_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    let is_decimal = last.bytes().all(|b| b.is_ascii_digit());
    let is_hex = last
        .strip_prefix("0x")
        .or_else(|| last.strip_prefix("0X"))
        .is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    is_decimal || is_hex
}

/// What of a URL can be told and logged, valid or not: neither path nor query, which may carry tokens, nor
/// user and password.
#[must_use]
pub fn origin_of(url: &str) -> String {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find(['/', '?', '#', '\\']).map_or(url.len(), |at| start + at);
    let (scheme, authority) = (&url[..start], &url[start..end]);
    match authority.rfind('@') {
        Some(at) => format!("{scheme}***{}", &authority[at..]),
        // A password with a slash in it.
        None if url[end..].contains('@') => format!("{scheme}***"),
        None => format!("{scheme}{authority}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each line: a URL, then `ok` or what the error says.
    fn check_lines(policy: &EndpointPolicy, lines: &str) {
        for line in lines.lines().map(str::trim).filter(|l| !l.is_empty()) {
            let (url, expected) = line.split_once(" => ").expect("url => text");
            let got = match Endpoint::parse(url.trim(), policy) {
                Ok(endpoint) => {
                    let written = endpoint.to_string();
                    assert!(written.starts_with(url.trim()), "{url} became {written}");
                    "ok".to_owned()
                }
                Err(error) => error.to_string(),
            };
            assert!(got.contains(expected.trim()), "{url}: {got}");
            assert!(!got.contains("s3cret"), "{url}: {got}");
        }
    }

    #[test]
    fn https_to_public_hosts_only() {
        check_lines(
            &EndpointPolicy::default(),
            "
            https://example.com                       => ok
            https://example.com/                      => ok
            https://example.com/a?token=b             => ok
            https://sub_domain.example.com:8443/hooks => ok
            https://example.com./hooks                => ok
            https://xn--bcher-kva.example/            => ok
            https://8.8.8.8/hooks                     => ok
            https://[2606:4700:4700::1111]:444/hooks  => ok
            https://3com.example/                     => ok
            http://example.com/                       => is not https
            ftp://example.com/                        => is neither https nor http
            example.com/hooks                         => malformed
            /hooks                                    => has no scheme or no host
            example.com                               => has no scheme or no host
            https:///hooks                            => malformed
            https://                                  => malformed
            https://me:s3cret@example.com/            => has user and password
            https://me:s3cret@example.com/#a          => has a fragment
            https://me:s3cret@exa mple.com/           => malformed
            https://me:s3cret/s3cret@example.com/     => \"https://***\" has an invalid port
            https://127.0.0.1/s3cret?key=s3cret       => \"https://127.0.0.1:443\" is not allowed
            https://127.1?key=s3cret                  => \"https://127.1\" has an invalid host
            http://example.com/s3cret                 => \"http://example.com:80\" is not https
            https://a@127.0.0.1/                      => has user and password
            https://example.com/#frag                 => has a fragment
            https://example.com:0/                    => has an invalid port
            https://example.com:/                     => has an invalid port
            https://example.com:99999/                => has an invalid port
            https://exa_mple..com/                    => invalid host
            https://b%C3%BCcher.example/              => b%C3%BCcher.example
            https://127.0.0.1/                        => 127.0.0.1 is not allowed: loopback
            https://10.0.0.1:8443/                    => 10.0.0.1 is not allowed: private
            https://169.254.169.254/latest/meta-data  => cloud metadata
            https://0.0.0.0/                          => unspecified
            https://[::1]/                            => loopback
            https://[::ffff:127.0.0.1]/               => embedded IPv4
            https://[::ffff:7f00:1]/                  => embedded IPv4
            https://[64:ff9b::7f00:1]/                => NAT64
            https://[fe80::1]/                        => link-local
            https://[fe80::1%25eth0]/                 => invalid host
            https://[::1                              => malformed
            https://127.1/                            => invalid host
            https://127.0.1/                          => invalid host
            https://2130706433/                       => invalid host
            https://0x7f000001/                       => invalid host
            https://0x7F.1/                           => invalid host
            https://0177.0.0.1/                       => invalid host
            https://127.0.0.1./                       => invalid host
            https://127.0.0.0x1/                      => invalid host
            https://example.0x/                       => invalid host
            https://1.2.3.4.5/                        => invalid host
            https://999.1.1.1/                        => invalid host
            ",
        );
        let long = format!("https://example.com/{}", "a".repeat(URL_BYTES_MAX));
        let got = Endpoint::parse(&long, &EndpointPolicy::default());
        assert!(matches!(got, Err(EndpointError::TooLong { length_bytes: 2068 })));
        let host = format!("https://{}.example/", "a".repeat(64));
        let got = Endpoint::parse(&host, &EndpointPolicy::default());
        assert!(matches!(got, Err(EndpointError::Host { .. })));
    }

    #[test]
    fn the_policy_widens_the_guard() {
        let policy = EndpointPolicy { allow_http: true, allow_private: vec!["127.0.0.0/8".parse().expect("network")] };
        check_lines(
            &policy,
            "
            http://example.com/      => ok
            http://localhost:8080/   => ok
            http://127.0.0.1:8080/   => ok
            https://127.0.0.1/       => ok
            http://10.0.0.1/         => private
            http://127.1/            => invalid host
            gopher://127.0.0.1/      => is neither
            ",
        );
        let endpoint = Endpoint::parse("http://127.0.0.1:8080/x", &policy).expect("allowed");
        assert_eq!(endpoint.origin(), "http://127.0.0.1:8080");
        let again = endpoint.check(&EndpointPolicy::default());
        assert!(matches!(again, Err(EndpointError::PlainHttp { .. })));
        let https_only = EndpointPolicy { allow_http: true, allow_private: Vec::new() };
        let again = endpoint.check(&https_only);
        assert!(matches!(again, Err(EndpointError::Address { .. })));
        let named = Endpoint::parse("https://Example.COM/Path", &policy).expect("allowed");
        assert_eq!(named.origin(), "https://example.com:443");
    }
}
