//! What one subscription adds to each of its requests: custom headers. Its credentials are in
//! [`crate::auth`].
//!
//! # Invariants
//!
//! - [`StaticHeaders`] never holds a header that belongs to HTTP itself, to Punchline, or to those
//!   who stand between us and the receiver (proxies, metadata services).
//! - Values are marked sensitive: a custom header is as likely as not a token.

use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

use crate::auth::Auth;

/// The most custom headers of one subscription.
pub const HEADERS_MAX: usize = 32;
/// The most bytes of a custom header's name.
pub const NAME_BYTES_MAX: usize = 128;
/// The most bytes of a custom header's value: room for a large JWT.
pub const VALUE_BYTES_MAX: usize = 4096;
/// The most bytes of all custom headers together. With ours added they stay below the 8 KiB that
/// common servers allow.
pub const TOTAL_BYTES_MAX: usize = 6144;

/// Names that are refused, in order.
const DENIED: &[&str] = &[
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "date",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "metadata",
    "metadata-flavor",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "x-real-ip",
];

/// Beginnings of names that are refused.
const DENIED_PREFIXES: &[&str] = &["proxy-", "punchline-", "sec-", "webhook-", "x-aws-ec2-metadata-", "x-forwarded-"];

/// Whether a header is not a dialect's to set: those that are refused to subscriptions, and
/// `authorization`, which is for [`Auth`] or the subscription to say.
#[must_use]
pub fn is_reserved(name: &HeaderName) -> bool {
    *name == AUTHORIZATION || is_denied(name)
}

fn is_denied(name: &HeaderName) -> bool {
    let lower = name.as_str();
    DENIED.binary_search(&lower).is_ok() || DENIED_PREFIXES.iter().any(|prefix| lower.starts_with(prefix))
}

/// Checks one custom header.
///
/// # Errors
///
/// [`HeaderError`], which names the header. It never holds the value, which may be a credential.
pub fn check_custom_header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), HeaderError> {
    let too_long = |length_bytes, limit_bytes| HeaderError::TooLong {
        name: name.chars().take(NAME_BYTES_MAX).collect(),
        length_bytes,
        limit_bytes,
    };
    if name.len() > NAME_BYTES_MAX {
        return Err(too_long(name.len(), NAME_BYTES_MAX));
    }
    if value.len() > VALUE_BYTES_MAX {
        return Err(too_long(value.len(), VALUE_BYTES_MAX));
    }
    let parsed = HeaderName::try_from(name).map_err(|_| HeaderError::Name { name: name.to_owned() })?;
    if is_denied(&parsed) {
        return Err(HeaderError::Denied { name: name.to_owned() });
    }
    let mut value = HeaderValue::try_from(value).map_err(|_| HeaderError::Value { name: name.to_owned() })?;
    value.set_sensitive(true);
    Ok((parsed, value))
}

/// The checked headers of one subscription, made once and shared by its attempts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StaticHeaders(Arc<HeaderMap>);

impl StaticHeaders {
    /// Checks the `custom` headers of a subscription that has the credentials `auth`.
    ///
    /// # Errors
    ///
    /// [`HeaderError`] if one of them is refused, if one comes twice (`authorization` comes from
    /// `auth`, if that is given), or if there are too many.
    pub fn new<'a>(
        custom: impl IntoIterator<Item = (&'a str, &'a str)>,
        auth: Option<&Auth>,
    ) -> Result<Self, HeaderError> {
        let mut map = HeaderMap::new();
        let mut total_bytes = 0;
        for (count_before, (name, value)) in custom.into_iter().enumerate() {
            let (parsed, checked) = check_custom_header(name, value)?;
            total_bytes += name.len() + value.len();
            if count_before >= HEADERS_MAX || total_bytes > TOTAL_BYTES_MAX {
                return Err(HeaderError::TooMany { name: name.to_owned() });
            }
            let is_auths = auth.is_some() && parsed == AUTHORIZATION;
            if is_auths || map.insert(parsed, checked).is_some() {
                return Err(HeaderError::Twice { name: name.to_owned() });
            }
        }
        Ok(Self(Arc::new(map)))
    }

    /// The headers.
    #[must_use]
    pub fn as_map(&self) -> &HeaderMap {
        &self.0
    }
}

/// Why a custom header is refused. Names the header, never holds its value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Not a token (RFC 9110, section 5.6.2).
    #[error("header name {name:?} is invalid")]
    Name {
        /// The name.
        name: String,
    },
    /// Holds control characters or anything beyond visible ASCII.
    #[error("value of header {name:?} is invalid")]
    Value {
        /// The name.
        name: String,
    },
    /// Not the subscriber's to set.
    #[error("header {name:?} may not be set")]
    Denied {
        /// The name.
        name: String,
    },
    /// Name or value is longer than allowed.
    #[error("header {name:?} has {length_bytes} bytes, more than {limit_bytes}")]
    TooLong {
        /// The name, cut to its limit.
        name: String,
        /// How long the name or the value is.
        length_bytes: usize,
        /// How long it may be.
        limit_bytes: usize,
    },
    /// More than [`HEADERS_MAX`], or [`TOTAL_BYTES_MAX`].
    #[error("header {name:?} is one too many: at most 32 headers and 6144 bytes in all")]
    TooMany {
        /// The first name that did not fit.
        name: String,
    },
    /// The same header twice, or `authorization` along with credentials.
    #[error("header {name:?} is set twice")]
    Twice {
        /// The name.
        name: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::BasicAuth;

    #[test]
    fn denied_names_are_in_order() {
        assert!(DENIED.is_sorted(), "binary search needs order");
    }

    #[test]
    fn headers_are_checked_one_by_one() {
        let cases = "
            X-Api-Key: s3cret       => ok
            Authorization: Bearer s3cret => ok
            cookie: a=b             => ok
            X-Empty:                => ok
            Host: internal          => may not be set
            CONTENT-LENGTH: 0       => may not be set
            Transfer-Encoding: chunked => may not be set
            connection: close       => may not be set
            te: trailers            => may not be set
            Upgrade: h2c            => may not be set
            Proxy-Authorization: x  => may not be set
            Webhook-Id: x           => may not be set
            Punchline-Attempt: 1    => may not be set
            Content-Type: text/xml  => may not be set
            User-Agent: curl        => may not be set
            X-Forwarded-For: ::1    => may not be set
            Metadata-Flavor: Google => may not be set
            X-aws-ec2-metadata-token: x => may not be set
            a b: x                  => is invalid
            : x                     => is invalid
            ü: x                    => is invalid
            x-umlaut: s3cretü       => ok
            x-bell: s3cret\u{7}     => is invalid
        ";
        for line in cases.lines().map(str::trim).filter(|l| !l.is_empty()) {
            let (header, expected) = line.split_once("=>").expect("header => text");
            let (name, value) = header.split_once(':').expect("name: value");
            let got = match check_custom_header(name, value.trim_matches(' ')) {
                Ok((_, value)) => {
                    assert!(value.is_sensitive());
                    "ok".to_owned()
                }
                Err(error) => error.to_string(),
            };
            assert!(got.contains(expected.trim()), "{line}: {got}");
            assert!(!got.contains("s3cret"), "{line}: {got}");
        }
        for smuggled in ["a\r\nHost: b", "a\nb", "a\0b"] {
            assert!(check_custom_header("x", smuggled).is_err(), "{smuggled:?}");
        }
    }

    #[test]
    fn sets_of_headers_are_bounded_and_unambiguous() {
        let auth = Auth::from(BasicAuth::new("me", "s3cret").expect("valid"));
        let headers = StaticHeaders::new([("x-a", "s3cret"), ("x-b", "2")], Some(&auth));
        let headers = headers.expect("valid");
        assert_eq!(headers.as_map().len(), 2);
        assert!(!format!("{headers:?}").contains("s3cret"));

        let twice = |name: &str| Err(HeaderError::Twice { name: name.to_owned() });
        let set =
            |custom: &[(&str, &str)], auth| StaticHeaders::new(custom.iter().copied(), auth).map(|h| h.as_map().len());
        assert_eq!(set(&[("x-a", "1"), ("X-A", "2")], None), twice("X-A"));
        assert_eq!(set(&[("authorization", "x")], Some(&auth)), twice("authorization"));
        let names: Vec<String> = (0..=HEADERS_MAX).map(|n| format!("x-{n}")).collect();
        let many: Vec<(&str, &str)> = names.iter().map(|n| (n.as_str(), "v")).collect();
        assert_eq!(set(&many[..HEADERS_MAX], None), Ok(HEADERS_MAX));
        assert!(matches!(set(&many, None), Err(HeaderError::TooMany { .. })));
        let big = "v".repeat(VALUE_BYTES_MAX);
        assert_eq!(set(&[("x-a", &big)], None), Ok(1));
        let got = set(&[("x-a", &big), ("x-b", &big)], None);
        assert!(matches!(got, Err(HeaderError::TooMany { .. })));
        let bigger = "v".repeat(VALUE_BYTES_MAX + 1);
        let got = set(&[("x-a", &bigger)], None);
        assert!(matches!(got, Err(HeaderError::TooLong { .. })));
    }
}
