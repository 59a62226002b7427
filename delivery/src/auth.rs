//! How Punchline says who it is to a receiver that asks for more than a signature: the
//! `authorization` header.
//!
//! ```text
//! BasicAuth    user and password     ┐
//! BearerToken  a token that stays    ┴─▶ the same header each time
//! OAuth2Client client credentials    ──▶ a token that is fetched, and fetched anew (crate::oauth2)
//! ```
//!
//! # Invariants
//!
//! - Passwords, tokens and secrets are never shown: `Debug` is redacted, header values are marked
//!   sensitive, errors never hold them.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

use crate::digest::Digest;
use crate::oauth2::OAuth2Client;

/// The most bytes of user and password together: their base64 stays below the 8 KiB that common
/// servers allow for all headers.
pub const CREDENTIALS_BYTES_MAX: usize = 1024;
/// The most bytes of a bearer token: room for a large JWT, as with custom headers.
pub const TOKEN_BYTES_MAX: usize = 4096;

/// The credentials of one subscription.
#[derive(Clone, Debug)]
pub enum Auth {
    /// User and password.
    Basic(BasicAuth),
    /// A token that stays.
    Bearer(BearerToken),
    /// A token that is fetched.
    OAuth2(OAuth2Client),
}

impl Auth {
    /// The header, if it is the same each time.
    pub(crate) fn fixed(&self) -> Result<HeaderValue, &OAuth2Client> {
        match self {
            Self::Basic(basic) => Ok(basic.header_value()),
            Self::Bearer(token) => Ok(token.header_value()),
            Self::OAuth2(client) => Err(client),
        }
    }

    /// Names the credentials without showing them: equal ones, and only those, have the same.
    pub(crate) fn digest(&self) -> Digest {
        match self.fixed() {
            Ok(header) => Digest::of([header.as_bytes()]),
            Err(client) => client.digest(),
        }
    }
}

impl From<BasicAuth> for Auth {
    fn from(basic: BasicAuth) -> Self {
        Self::Basic(basic)
    }
}

impl From<BearerToken> for Auth {
    fn from(token: BearerToken) -> Self {
        Self::Bearer(token)
    }
}

impl From<OAuth2Client> for Auth {
    fn from(client: OAuth2Client) -> Self {
        Self::OAuth2(client)
    }
}

/// A user and a password that fit into an `authorization` header (RFC 7617).
#[derive(Clone, PartialEq, Eq)]
pub struct BasicAuth {
    user: String,
    password: String,
}

impl BasicAuth {
    /// Checks and takes a user and a password. Either may be empty (Segment's write keys are users
    /// without a password).
    ///
    /// # Errors
    ///
    /// [`BasicAuthError`]; its text never holds the password.
    pub fn new(user: &str, password: &str) -> Result<Self, BasicAuthError> {
        if user.contains(':') {
            return Err(BasicAuthError::Colon { user: user.to_owned() });
        }
        if user.chars().chain(password.chars()).any(char::is_control) {
            return Err(BasicAuthError::ControlCharacter { user: user.to_owned() });
        }
        let length_bytes = user.len() + password.len();
        if length_bytes > CREDENTIALS_BYTES_MAX {
            return Err(BasicAuthError::TooLong { length_bytes });
        }
        Ok(Self { user: user.to_owned(), password: password.to_owned() })
    }

    /// The user.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The value of the `authorization` header.
    #[must_use]
    pub fn header_value(&self) -> HeaderValue {
        let credentials = STANDARD.encode(format!("{}:{}", self.user, self.password));
        sensitive(format!("Basic {credentials}")).expect("base64 is visible ASCII")
    }
}

impl fmt::Debug for BasicAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BasicAuth").field("user", &self.user).field("password", &"***").finish()
    }
}

/// Why a user and a password cannot be sent. Never holds the password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BasicAuthError {
    /// The receiver would cut the user at the colon.
    #[error("basic auth user {user:?} contains a colon")]
    Colon {
        /// The user.
        user: String,
    },
    /// RFC 7617, section 2: no control characters.
    #[error("basic auth user {user:?} or its password contains a control character")]
    ControlCharacter {
        /// The user.
        user: String,
    },
    /// More than [`CREDENTIALS_BYTES_MAX`].
    #[error("basic auth user and password have {length_bytes} bytes, more than 1024")]
    TooLong {
        /// Their length.
        length_bytes: usize,
    },
}

/// A token that fits into an `authorization` header (RFC 6750).
#[derive(Clone, PartialEq, Eq)]
pub struct BearerToken(HeaderValue);

impl BearerToken {
    /// Checks and takes a token, without the word `Bearer`.
    ///
    /// Looser than RFC 6750's `b64token`, which tokens in use do not all keep to: any visible ASCII.
    ///
    /// # Errors
    ///
    /// [`BearerTokenError`]; it never holds the token.
    pub fn new(token: &str) -> Result<Self, BearerTokenError> {
        if token.is_empty() {
            return Err(BearerTokenError::Empty);
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(BearerTokenError::TooLong { length_bytes: token.len() });
        }
        if !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(BearerTokenError::Character);
        }
        Ok(Self(sensitive(format!("Bearer {token}")).expect("visible ASCII was checked")))
    }

    /// The value of the `authorization` header.
    #[must_use]
    pub fn header_value(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken(***)")
    }
}

/// Why a token cannot be sent. Never holds the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BearerTokenError {
    /// No token at all.
    #[error("bearer token is empty")]
    Empty,
    /// A space, a line break, or anything else beyond visible ASCII.
    #[error("bearer token contains a character other than visible ASCII")]
    Character,
    /// More than [`TOKEN_BYTES_MAX`].
    #[error("bearer token has {length_bytes} bytes, more than 4096")]
    TooLong {
        /// Its length.
        length_bytes: usize,
    },
}

fn sensitive(text: String) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
    let mut value = HeaderValue::try_from(text)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_become_a_header_and_nothing_else() {
        // RFC 7617, section 2.
        let auth = BasicAuth::new("Aladdin", "open sesame").expect("valid");
        let value = auth.header_value();
        assert_eq!(value, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        let shown = format!("{auth:?} {value:?}");
        assert!(!shown.contains("sesame") && !shown.contains("QWxh"), "{shown}");
        assert!(BasicAuth::new("write-key", "").is_ok());

        let colon = BasicAuth::new("a:b", "s3cret").expect_err("colon");
        let control = BasicAuth::new("a", "s3cret\n").expect_err("control character");
        let long = BasicAuth::new("a", &"s3cret".repeat(200)).expect_err("too long");
        for error in [colon, control, long] {
            assert!(!format!("{error} {error:?}").contains("s3cret"));
        }
    }

    #[test]
    fn tokens_are_checked_and_kept_to_themselves() {
        let token = BearerToken::new("s3cret.s3cret_~+/=").expect("valid");
        assert_eq!(token.header_value(), "Bearer s3cret.s3cret_~+/=");
        let auth = Auth::from(token);
        assert!(!format!("{auth:?} {:?}", auth.fixed()).contains("s3cret"));

        assert_eq!(BearerToken::new(""), Err(BearerTokenError::Empty));
        for odd in ["a b", "a\r\nhost: b", "ü", "Bearer a"] {
            assert_eq!(BearerToken::new(odd), Err(BearerTokenError::Character), "{odd}");
        }
        let long = "a".repeat(TOKEN_BYTES_MAX + 1);
        assert_eq!(BearerToken::new(&long), Err(BearerTokenError::TooLong { length_bytes: 4097 }));
    }
}
