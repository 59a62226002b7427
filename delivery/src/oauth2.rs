//! OAuth 2.0 client credentials (RFC 6749, section 4.4): what is asked of a token endpoint, and what
//! its answer means. Fetching and keeping is `crate::tokens`'s.
//!
//! # Invariants
//!
//! - The token URL passed the same guard as a subscription's own; it is checked again at each fetch.
//! - The secret is never shown: `Debug` is redacted, errors never hold it, nor any of the answer's
//!   body but its `error` code.
//! - A token is used up to [`OAuth2Token::good_until_unix_s`], which lies before it runs out.
//!
//! # What is absent on purpose
//!
//! - No refresh token (RFC 6749, section 4.4.3: there should be none), no assertion, no discovery.
//! - No client certificate at the token endpoint: a subscription's is for its receiver.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use serde::Deserialize;

use crate::auth::BearerToken;
use crate::digest::Digest;
use crate::endpoint::{Endpoint, EndpointError, EndpointPolicy};

/// The most bytes of client id, client secret, audience, or all scopes.
pub const FIELD_BYTES_MAX: usize = 2048;
/// How long before it runs out a token is no longer used, at most: time for an attempt to arrive,
/// and for two clocks to differ.
const MARGIN_S_MAX: i64 = 60;
/// How long a token is used whose endpoint does not say how long it lasts (RFC 6749 only recommends
/// that it does).
const LIFETIME_S_DEFAULT: i64 = 300;
/// How long a token is used at most, whatever its endpoint says: a withdrawn one is found out.
const LIFETIME_S_MAX: i64 = 86_400;

/// How a client shows its secret (RFC 6749, section 2.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ClientAuth {
    /// In the `authorization` header: what every server has to support.
    #[default]
    Basic,
    /// In the form, as `client_id` and `client_secret`.
    Form,
}

/// What a subscription says about its client.
#[derive(Clone, Default)]
pub struct OAuth2Params {
    /// Where tokens are.
    pub token_url: String,
    /// Who asks.
    pub client_id: String,
    /// The proof.
    pub client_secret: String,
    /// How the proof is given.
    pub client_auth: ClientAuth,
    /// What the token is to allow; none is sent if empty.
    pub scopes: Vec<String>,
    /// Whom the token is for: not in the RFC, and asked for by several servers (Auth0 among them).
    pub audience: Option<String>,
}

impl fmt::Debug for OAuth2Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuth2Params")
            .field("token_url", &self.token_url)
            .field("client_id", &self.client_id)
            .field("client_secret", &"***")
            .field("client_auth", &self.client_auth)
            .field("scopes", &self.scopes)
            .field("audience", &self.audience)
            .finish()
    }
}

/// A checked client. Cheap to clone.
#[derive(Clone)]
pub struct OAuth2Client(Arc<Checked>);

struct Checked {
    endpoint: Endpoint,
    client_id: String,
    authorization: Option<HeaderValue>,
    form: Bytes,
    digest: Digest,
}

impl OAuth2Client {
    /// Checks `params` under the policy that receivers are checked under.
    ///
    /// # Errors
    ///
    /// [`OAuth2Error`], which names the field and never holds the secret.
    pub fn new(params: &OAuth2Params, policy: &EndpointPolicy) -> Result<Self, OAuth2Error> {
        let endpoint = Endpoint::parse(&params.token_url, policy)?;
        let scopes = params.scopes.join(" ");
        let audience = params.audience.as_deref().unwrap_or_default();
        for (field, text) in [
            ("client_id", &*params.client_id),
            ("client_secret", &params.client_secret),
            ("scopes", &scopes),
            ("audience", audience),
        ] {
            if text.len() > FIELD_BYTES_MAX {
                return Err(OAuth2Error::TooLong { field, length_bytes: text.len() });
            }
        }
        if params.client_id.is_empty() {
            return Err(OAuth2Error::NoClientId);
        }
        // RFC 6749, section 3.3.
        let is_scope =
            |scope: &String| !scope.is_empty() && scope.bytes().all(|b| b.is_ascii_graphic() && !b"\"\\".contains(&b));
        if let Some(scope) = params.scopes.iter().find(|scope| !is_scope(scope)) {
            return Err(OAuth2Error::Scope { scope: scope.clone() });
        }

        let mut form = vec![("grant_type", "client_credentials")];
        let authorization = match params.client_auth {
            ClientAuth::Basic => Some(basic(&params.client_id, &params.client_secret)),
            ClientAuth::Form => {
                form.extend([("client_id", &*params.client_id), ("client_secret", &*params.client_secret)]);
                None
            }
        };
        form.extend((!scopes.is_empty()).then_some(("scope", &*scopes)));
        form.extend((!audience.is_empty()).then_some(("audience", audience)));
        let form = encode_form(&form);
        let header = authorization.as_ref().map_or(&b""[..], HeaderValue::as_bytes);
        let digest = Digest::of([endpoint.to_string().as_bytes(), header, form.as_bytes()]);
        let client_id = params.client_id.clone();
        Ok(Self(Arc::new(Checked { endpoint, client_id, authorization, form: form.into(), digest })))
    }

    /// Where tokens are.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    /// The `authorization` of a fetch, if it has one.
    pub(crate) fn authorization(&self) -> Option<&HeaderValue> {
        self.0.authorization.as_ref()
    }

    /// The body of a fetch.
    pub(crate) fn form(&self) -> Bytes {
        self.0.form.clone()
    }

    /// Names all that a token depends on, the secret included: whoever guesses a client's id does
    /// not share its token.
    pub(crate) fn digest(&self) -> Digest {
        self.0.digest
    }
}

impl fmt::Debug for OAuth2Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuth2Client")
            .field("token_url", &self.0.endpoint.to_string())
            .field("client_id", &self.0.client_id)
            .finish_non_exhaustive()
    }
}

/// Why a client cannot be used. Never holds its secret.
#[derive(Debug, thiserror::Error)]
pub enum OAuth2Error {
    /// The token URL is refused.
    #[error("token {0}")]
    TokenUrl(#[from] EndpointError),
    /// Nobody asks.
    #[error("client_id is empty")]
    NoClientId,
    /// RFC 6749, section 3.3: visible ASCII without quotation marks and backslashes.
    #[error("scope {scope:?} is invalid")]
    Scope {
        /// The scope.
        scope: String,
    },
    /// More than [`FIELD_BYTES_MAX`].
    #[error("{field} has {length_bytes} bytes, more than 2048")]
    TooLong {
        /// Which.
        field: &'static str,
        /// Its length.
        length_bytes: usize,
    },
}

/// A token and until when to use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OAuth2Token {
    /// What is sent to the receiver.
    pub bearer: BearerToken,
    /// From when on another one is fetched.
    pub good_until_unix_s: i64,
}

/// Why there is no token: a sentence for the owner of the subscription.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// No answer; the text says why.
    #[error("token endpoint cannot be reached: {0}")]
    Unreachable(String),
    /// An answer other than 200.
    #[error("token endpoint answered {status}{}", suffix(.code))]
    Refused {
        /// The status.
        status: u16,
        /// The answer's `error`, such as `invalid_client`.
        code: Option<String>,
    },
    /// A 200 without a token that can be used; says what is wrong with it.
    #[error("token endpoint's answer has {0}")]
    Malformed(&'static str),
    /// The task that fetched has gone.
    #[error("token fetch was given up")]
    GivenUp,
}

fn suffix(code: &Option<String>) -> String {
    code.as_ref().map(|code| format!(": {code}")).unwrap_or_default()
}

#[derive(Deserialize)]
struct Answer {
    access_token: Option<String>,
    token_type: Option<String>,
    expires_in: Option<Seconds>,
    error: Option<String>,
}

/// Some servers write the number as a string.
#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(f64),
    Text(String),
}

impl Seconds {
    fn get(&self) -> Option<i64> {
        let seconds = match self {
            Self::Number(number) => *number,
            Self::Text(text) => text.trim().parse().ok()?,
        };
        seconds.is_finite().then_some(seconds as i64)
    }
}

/// Reads a token endpoint's answer that was asked for at `now_unix_s`.
///
/// # Errors
///
/// [`TokenError`].
pub(crate) fn read_answer(status: StatusCode, body: &[u8], now_unix_s: i64) -> Result<OAuth2Token, TokenError> {
    let answer: Result<Answer, _> = serde_json::from_slice(body);
    if status != StatusCode::OK {
        // RFC 6749, section 5.2; anything else in that place is not repeated.
        let is_code = |code: &String| code.len() <= 64 && code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        let code = answer.ok().and_then(|answer| answer.error).filter(is_code);
        return Err(TokenError::Refused { status: status.as_u16(), code });
    }
    let answer = answer.map_err(|_| TokenError::Malformed("no JSON object as its body"))?;
    if answer.token_type.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err(TokenError::Malformed("a token_type other than bearer"));
    }
    let token = answer.access_token.ok_or(TokenError::Malformed("no access_token"))?;
    let bearer =
        BearerToken::new(&token).map_err(|_| TokenError::Malformed("an access_token that no header can hold"))?;
    let lifetime_s = answer.expires_in.and_then(|s| s.get()).unwrap_or(LIFETIME_S_DEFAULT).clamp(0, LIFETIME_S_MAX);
    let margin_s = MARGIN_S_MAX.min(lifetime_s / 4);
    Ok(OAuth2Token { bearer, good_until_unix_s: now_unix_s.saturating_add(lifetime_s - margin_s) })
}

/// RFC 6749, section 2.3.1: id and secret are form-encoded before they are joined.
fn basic(client_id: &str, client_secret: &str) -> HeaderValue {
    let mut joined = String::new();
    encode_into(&mut joined, client_id);
    joined.push(':');
    encode_into(&mut joined, client_secret);
    let mut value =
        HeaderValue::try_from(format!("Basic {}", STANDARD.encode(joined))).expect("base64 is visible ASCII");
    value.set_sensitive(true);
    value
}

/// `application/x-www-form-urlencoded`.
fn encode_form(fields: &[(&str, &str)]) -> String {
    let mut form = String::new();
    for (name, value) in fields {
        if !form.is_empty() {
            form.push('&');
        }
        encode_into(&mut form, name);
        form.push('=');
        encode_into(&mut form, value);
    }
    form
}

fn encode_into(form: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' => form.push(byte.into()),
            b' ' => form.push('+'),
            _ => form.push_str(&format!("%{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params() -> OAuth2Params {
        OAuth2Params {
            token_url: "https://id.example/token".to_owned(),
            client_id: "me & co".to_owned(),
            client_secret: "s3cret:ü".to_owned(),
            scopes: vec!["read".to_owned(), "write:all".to_owned()],
            audience: Some("https://api.example/".to_owned()),
            ..OAuth2Params::default()
        }
    }

    fn client(params: &OAuth2Params) -> OAuth2Client {
        OAuth2Client::new(params, &EndpointPolicy::default()).expect("valid")
    }

    #[test]
    fn requests_are_what_the_rfc_says() {
        let basic = client(&params());
        let header = basic.authorization().expect("basic").to_str().expect("ASCII");
        let joined = STANDARD.decode(&header[6..]).expect("base64");
        assert_eq!(String::from_utf8_lossy(&joined), "me+%26+co:s3cret%3A%C3%BC");
        let rest = "scope=read+write%3Aall&audience=https%3A%2F%2Fapi.example%2F";
        assert_eq!(basic.form(), format!("grant_type=client_credentials&{rest}"));

        let form = client(&OAuth2Params { client_auth: ClientAuth::Form, ..params() });
        assert_eq!(form.authorization(), None);
        let who = "client_id=me+%26+co&client_secret=s3cret%3A%C3%BC";
        assert_eq!(form.form(), format!("grant_type=client_credentials&{who}&{rest}"));
        assert!(!format!("{basic:?} {form:?} {:?}", params()).contains("s3cret"));
    }

    #[test]
    fn all_that_a_token_depends_on_is_in_its_name() {
        let one = client(&params()).digest();
        assert_eq!(one, client(&params()).digest());
        let others = [
            OAuth2Params { token_url: "https://id.example/other".to_owned(), ..params() },
            OAuth2Params { client_id: "you".to_owned(), ..params() },
            OAuth2Params { client_secret: "guessed".to_owned(), ..params() },
            OAuth2Params { client_auth: ClientAuth::Form, ..params() },
            OAuth2Params { scopes: Vec::new(), ..params() },
            OAuth2Params { audience: None, ..params() },
        ];
        for other in others {
            assert_ne!(client(&other).digest(), one, "{other:?}");
        }
    }

    #[test]
    fn clients_are_checked() {
        let cases = [
            (OAuth2Params { token_url: "https://10.0.0.1/".to_owned(), ..params() }, "private"),
            (OAuth2Params { token_url: "http://id.example/".to_owned(), ..params() }, "is not https"),
            (OAuth2Params { client_id: String::new(), ..params() }, "client_id is empty"),
            (OAuth2Params { client_secret: "s3cret".repeat(999), ..params() }, "client_secret has 5994 bytes"),
            (OAuth2Params { scopes: vec!["a b".to_owned()], ..params() }, "scope \"a b\" is invalid"),
        ];
        for (params, expected) in cases {
            let error = OAuth2Client::new(&params, &EndpointPolicy::default()).expect_err(expected);
            let text = format!("{error} {error:?}");
            assert!(text.contains(expected) && !text.contains("s3cret"), "{text}");
        }
    }

    #[test]
    fn answers_have_meanings() {
        let good = |body: &str| read_answer(StatusCode::OK, body.as_bytes(), 1000).map(|t| t.good_until_unix_s);
        assert_eq!(good(r#"{"access_token":"t","token_type":"Bearer","expires_in":3600}"#), Ok(1000 + 3540));
        assert_eq!(good(r#"{"access_token":"t","token_type":"bearer","expires_in":"100"}"#), Ok(1000 + 75));
        assert_eq!(good(r#"{"access_token":"t"}"#), Ok(1000 + 240));
        assert_eq!(good(r#"{"access_token":"t","expires_in":0}"#), Ok(1000));
        assert_eq!(good(r#"{"access_token":"t","expires_in":-5}"#), Ok(1000));
        assert_eq!(good(r#"{"access_token":"t","expires_in":1e300}"#), Ok(1000 + 86_340));
        for body in ["", "[]", "{}", r#"{"access_token":""}"#, r#"{"access_token":"a\nb"}"#] {
            assert!(matches!(good(body), Err(TokenError::Malformed(_))), "{body}");
        }
        let mac = r#"{"access_token":"t","token_type":"mac"}"#;
        assert!(good(mac).expect_err("mac").to_string().contains("token_type"));

        let refused =
            |body: &str| read_answer(StatusCode::UNAUTHORIZED, body.as_bytes(), 0).expect_err("401").to_string();
        assert_eq!(refused(r#"{"error":"invalid_client"}"#), "token endpoint answered 401: invalid_client");
        assert_eq!(refused(r#"{"error":"secret was s3cret"}"#), "token endpoint answered 401");
        assert_eq!(refused("<html>"), "token endpoint answered 401");
    }
}
