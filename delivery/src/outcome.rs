//! What an attempt's answer means, and the report that carries it.
//!
//! ```text
//! 2xx, read to its end       Delivered
//! 410                        Gone
//! a permanent status         Refused
//! blocked by the guard       Refused
//! anything else, or nothing  Retry
//!
//! and with the header webhook-delivery:
//! disable                    Gone instead of all of these but Delivered, which stays;
//!                            the report says `asks_to_disable` either way
//! abort-message              AbortedByReceiver instead of Retry
//! ```
//!
//! # Invariants
//!
//! - Nothing is lost by a doubt: an answer whose end never came is [`Outcome::Retry`] even if it
//!   began with 200. A receiver knows a repeat by its `webhook-id`.
//! - 2xx and 410 cannot be made permanent; every other status can.
//! - What the receiver has is never said to be undelivered, nor sent again, because it also asked to be
//!   left alone.

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};

/// The most bytes of a response's body that are kept.
pub const SNIPPET_BYTES_MAX: usize = 4096;

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The subscriber has it.
    Delivered,
    /// It may go better another time.
    Retry,
    /// The subscriber has left (410, or `webhook-delivery: disable`): its subscription is disabled, its
    /// backlog kept, this event included.
    Gone,
    /// It will not go better another time: a permanent status, or an address that is not allowed.
    Refused,
    /// The receiver asked not to be sent this event again (`webhook-delivery: abort-message`).
    AbortedByReceiver,
}

impl Outcome {
    /// The outcome's name, as in the API, logs and labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retry => "retry",
            Self::Gone => "gone",
            Self::Refused => "refused",
            Self::AbortedByReceiver => "aborted_by_receiver",
        }
    }

    /// Says what a complete response with `status` means to a subscription that lists `permanent`
    /// statuses.
    #[must_use]
    pub fn of_status(status: StatusCode, permanent: &PermanentStatuses) -> Self {
        match status.as_u16() {
            200..=299 => Self::Delivered,
            410 => Self::Gone,
            code if permanent.contains(code) => Self::Refused,
            _ => Self::Retry,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The statuses after which a subscription wants no retry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PermanentStatuses(Box<[u16]>);

impl PermanentStatuses {
    /// Takes the statuses of a subscription.
    ///
    /// # Errors
    ///
    /// [`StatusNotPermanent`] for one that is no final HTTP status (300–599), or is 410.
    pub fn new(statuses: impl IntoIterator<Item = u16>) -> Result<Self, StatusNotPermanent> {
        let mut kept: Vec<u16> = Vec::new();
        for status in statuses {
            if status == 410 || !(300..=599).contains(&status) {
                return Err(StatusNotPermanent { status });
            }
            kept.push(status);
        }
        kept.sort_unstable();
        kept.dedup();
        Ok(Self(kept.into_boxed_slice()))
    }

    /// Whether `status` is one of them.
    #[must_use]
    pub fn contains(&self, status: u16) -> bool {
        self.0.binary_search(&status).is_ok()
    }
}

/// A status that cannot be listed as permanent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("status {status} cannot be permanent: only 300 to 599 can, except 410")]
pub struct StatusNotPermanent {
    /// The status.
    pub status: u16,
}

/// What went wrong, apart from the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The whole attempt, the body of the answer included, took longer than its time-out.
    Timeout,
    /// The name cannot be resolved.
    Dns,
    /// No connection: refused, unreachable, or not made within the connect time-out.
    Connect,
    /// No trust: certificate, protocol version or handshake.
    Tls,
    /// The guard does not allow the URL or what its name resolves to.
    AddressRefused,
    /// The connection ended before the head of an answer came.
    Closed,
    /// What came is not HTTP/1.1.
    Protocol,
    /// The connection ended in the middle of the body.
    Body,
    /// The request cannot be written as HTTP: an id or a signature with characters that no header
    /// may have.
    Request,
    /// There is no token for the receiver: its token endpoint cannot be reached, or refuses.
    Auth,
    /// The operator's proxy cannot be reached, or refuses to connect.
    Proxy,
    /// The event is larger than its kind of destination takes; nothing was sent.
    TooLarge,
    /// A consumer said that the event is not done.
    Nacked,
    /// The event cannot be told in the subscription's dialect; nothing was sent.
    Dialect,
}

impl ErrorCode {
    /// The code, as in the API, logs and labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::AddressRefused => "address_refused",
            Self::Closed => "closed",
            Self::Protocol => "protocol",
            Self::Body => "body",
            Self::Request => "request",
            Self::Auth => "auth",
            Self::Proxy => "proxy",
            Self::TooLarge => "too_large",
            Self::Nacked => "nacked",
            Self::Dialect => "dialect",
        }
    }

    /// What an attempt that failed this way comes to.
    #[must_use]
    pub const fn outcome(self) -> Outcome {
        match self {
            Self::AddressRefused | Self::Request | Self::TooLarge | Self::Dialect => Outcome::Refused,
            _ => Outcome::Retry,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// All that is known after one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptReport {
    /// How it ended.
    pub outcome: Outcome,
    /// The status, if the head of an answer came.
    pub status: Option<u16>,
    /// What went wrong apart from the status.
    pub error: Option<ErrorCode>,
    /// A sentence on `error` for the owner of the subscription; never parsed.
    pub error_detail: Option<Box<str>>,
    /// How long the receiver asks to be left alone (`Retry-After`); only with [`Outcome::Retry`].
    pub retry_after_ms: Option<u64>,
    /// Whether the subscription is to be disabled: always with [`Outcome::Gone`], and with
    /// [`Outcome::Delivered`] if the receiver took this event and wants no other.
    pub asks_to_disable: bool,
    /// The beginning of the answer's body, at most [`SNIPPET_BYTES_MAX`].
    pub response_snippet: Bytes,
}

impl AttemptReport {
    /// A complete answer.
    #[must_use]
    pub fn answered(status: StatusCode, permanent: &PermanentStatuses) -> Self {
        let outcome = Outcome::of_status(status, permanent);
        Self {
            outcome,
            status: Some(status.as_u16()),
            error: None,
            error_detail: None,
            retry_after_ms: None,
            asks_to_disable: outcome == Outcome::Gone,
            response_snippet: Bytes::new(),
        }
    }

    /// Taken, by somebody who answers with no status.
    #[must_use]
    pub fn accepted() -> Self {
        Self {
            outcome: Outcome::Delivered,
            status: None,
            error: None,
            error_detail: None,
            retry_after_ms: None,
            asks_to_disable: false,
            response_snippet: Bytes::new(),
        }
    }

    /// No answer.
    #[must_use]
    pub fn failed(code: ErrorCode, detail: impl Into<Box<str>>) -> Self {
        Self {
            outcome: code.outcome(),
            status: None,
            error: Some(code),
            error_detail: Some(detail.into()),
            retry_after_ms: None,
            asks_to_disable: false,
            response_snippet: Bytes::new(),
        }
    }

    /// Does as the receiver's `webhook-delivery` says.
    #[must_use]
    pub fn controlled(mut self, control: DeliveryControl) -> Self {
        match control {
            DeliveryControl::Disable => {
                self.asks_to_disable = true;
                if self.outcome != Outcome::Delivered {
                    self.outcome = Outcome::Gone;
                }
            }
            DeliveryControl::AbortMessage if self.outcome == Outcome::Retry => {
                self.outcome = Outcome::AbortedByReceiver;
            }
            DeliveryControl::AbortMessage => {}
        }
        self
    }

    /// `2xx` to `5xx`, `error` if there is no whole answer, `none` if none was expected: a label of few values.
    #[must_use]
    pub const fn status_class(&self) -> &'static str {
        match (self.status, self.error) {
            (Some(200..=299), None) => "2xx",
            (Some(100..=199), _) => "1xx",
            (Some(300..=399), _) => "3xx",
            (Some(400..=499), _) => "4xx",
            (Some(500..=599), _) => "5xx",
            (None, None) => "none",
            _ => "error",
        }
    }
}

/// What a receiver says in the response header `webhook-delivery`, whatever its status.
///
/// # Sources
///
/// Standard Webhooks, proposal "Delivery control" (pull request 291), and Svix's documentation of
/// what it does: `disable` disables the endpoint, `abort-message` stops retries of the message and has
/// no effect when it would not be retried anyway, such as when it is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeliveryControl {
    /// `disable`: send nothing more.
    Disable,
    /// `abort-message`: do not send this message again.
    AbortMessage,
}

impl DeliveryControl {
    /// The header's name.
    pub const HEADER: HeaderName = HeaderName::from_static("webhook-delivery");

    /// Reads the header, in any case; of several instructions `disable` says the most. What is not
    /// known is passed over.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let texts = headers.get_all(Self::HEADER).iter().filter_map(|value| value.to_str().ok());
        let controls = texts.flat_map(|text| text.split(',')).filter_map(|word| {
            let word = word.trim();
            if word.eq_ignore_ascii_case("disable") {
                Some(Self::Disable)
            } else {
                word.eq_ignore_ascii_case("abort-message").then_some(Self::AbortMessage)
            }
        });
        controls.min_by_key(|control| *control != Self::Disable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_have_meanings() {
        let permanent = PermanentStatuses::new([400, 422, 400]).expect("valid");
        let cases = [
            (200, Outcome::Delivered, "2xx"),
            (202, Outcome::Delivered, "2xx"),
            (299, Outcome::Delivered, "2xx"),
            (301, Outcome::Retry, "3xx"),
            (400, Outcome::Refused, "4xx"),
            (401, Outcome::Retry, "4xx"),
            (404, Outcome::Retry, "4xx"),
            (408, Outcome::Retry, "4xx"),
            (410, Outcome::Gone, "4xx"),
            (422, Outcome::Refused, "4xx"),
            (425, Outcome::Retry, "4xx"),
            (429, Outcome::Retry, "4xx"),
            (500, Outcome::Retry, "5xx"),
            (503, Outcome::Retry, "5xx"),
            (799, Outcome::Retry, "error"),
        ];
        for (code, outcome, class) in cases {
            let status = StatusCode::from_u16(code).expect("status");
            let report = AttemptReport::answered(status, &permanent);
            assert_eq!((report.outcome, report.status_class()), (outcome, class), "{code}");
        }
        for status in [199, 200, 204, 410, 600] {
            assert_eq!(PermanentStatuses::new([status]), Err(StatusNotPermanent { status }));
        }
    }

    #[test]
    fn failures_have_meanings() {
        let refused = AttemptReport::failed(ErrorCode::AddressRefused, "no");
        assert_eq!((refused.outcome, refused.status_class()), (Outcome::Refused, "error"));
        let timeout = AttemptReport::failed(ErrorCode::Timeout, "no");
        assert_eq!((timeout.outcome, timeout.status_class()), (Outcome::Retry, "error"));
    }

    #[test]
    fn receivers_control_delivery() {
        use Outcome::{AbortedByReceiver, Delivered, Gone, Refused, Retry};
        let permanent = PermanentStatuses::new([422]).expect("valid");
        let cases = [
            (200, "disable", Delivered, true),
            (200, "abort-message", Delivered, false),
            (500, "disable", Gone, true),
            (500, "abort-message", AbortedByReceiver, false),
            (422, "disable", Gone, true),
            (422, "abort-message", Refused, false),
            (410, "abort-message", Gone, true),
            (302, " Abort-Message", AbortedByReceiver, false),
            (500, "DISABLE", Gone, true),
            (500, "abort-message, disable", Gone, true),
            (500, "disabled", Retry, false),
            (500, "", Retry, false),
        ];
        for (status, value, outcome, disables) in cases {
            let headers = HeaderMap::from_iter([(DeliveryControl::HEADER, value.parse().expect("value"))]);
            let mut report = AttemptReport::answered(StatusCode::from_u16(status).expect("status"), &permanent);
            if let Some(control) = DeliveryControl::of(&headers) {
                report = report.controlled(control);
            }
            assert_eq!((report.outcome, report.asks_to_disable), (outcome, disables), "{status} {value:?}");
        }
        assert_eq!(DeliveryControl::of(&HeaderMap::new()), None);
    }
}
