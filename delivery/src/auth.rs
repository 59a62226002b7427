//! Basic auth (RFC 7617), for receivers that ask for it on top of, or instead of, a signature.
//!
//! # Invariants
//!
//! - The password is never shown: `Debug` is redacted, and the header value is marked sensitive.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

/// The most bytes of user and password together: their base64 stays below the 8 KiB that common
/// servers allow for all headers.
pub const CREDENTIALS_BYTES_MAX: usize = 1024;

/// A user and a password that fit into an `authorization` header.
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
        let mut value = HeaderValue::try_from(format!("Basic {credentials}")).expect("base64 is visible ASCII");
        value.set_sensitive(true);
        value
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
}
