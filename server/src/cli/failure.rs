//! What ends a command badly, how it is told, and the exit code that says so to scripts.

use std::fmt::Write as _;
use std::io;
use std::process::ExitCode;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::output::harmless;
use crate::config::ConfigError;

/// For `--help`.
pub(super) const EXIT_CODES: &str = "\
Exit codes:
   0  done
   1  refused, or something failed; stderr says why
   2  wrong usage
  65  an input file's content is malformed
  66  an input file cannot be read
  69  the server cannot be reached, or takes nothing now: try again
  70  the server failed inside
  74  output cannot be written
  78  the configuration is wrong
 130  interrupted, with Ctrl-C; what the server does, it goes on with

Without a token, and with a server on loopback, the command line uses the credentials of
`punchline serve --dev`: operator token dev-operator, advertiser 1000000001.";

/// Why a command ends badly.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Options that contradict each other, or one that is missing.
    #[error("{0}")]
    Usage(String),
    /// The server said no, or failed.
    #[error("{}", told(.0))]
    Status(Box<Status>),
    /// There is no server, or none that speaks our language.
    #[error("cannot reach {endpoint}: {}", chain(.source))]
    Unreachable {
        /// As given.
        endpoint: String,
        /// Why.
        source: tonic::transport::Error,
    },
    /// The configuration is refused.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// An input cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// A path, or `standard input`.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// An input can be read, and says nothing sensible.
    #[error("{path}: {message}")]
    Malformed {
        /// A path, or `standard input`.
        path: String,
        /// What is wrong, with the line.
        message: String,
    },
    /// A check had a negative result.
    #[error("{0}")]
    Negative(String),
    /// Somebody did not want to wait any longer.
    #[error("{0}")]
    Interrupted(String),
    /// Told already, item by item.
    #[error("not everything succeeded")]
    Reported,
    /// Standard output is gone, or a socket cannot be had.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

impl Failure {
    /// The code of [`EXIT_CODES`].
    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Usage(_) => 2,
            Self::Status(status) => match status.code() {
                Code::Unavailable => 69,
                Code::Internal | Code::Unknown | Code::DataLoss | Code::Unimplemented => 70,
                _ => 1,
            },
            Self::Unreachable { .. } => 69,
            Self::Config(_) => 78,
            Self::Unreadable { .. } => 66,
            Self::Malformed { .. } => 65,
            Self::Negative(_) | Self::Reported => 1,
            Self::Interrupted(_) => 130,
            // Whoever reads us has read enough: `punchline events read | head`.
            Self::Io(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Io(_) => 74,
        })
    }

    /// What people are told; `None`: nothing more.
    pub(super) fn told(&self) -> Option<String> {
        match self {
            Self::Reported => None,
            Self::Io(error) if error.kind() == io::ErrorKind::BrokenPipe => None,
            Self::Config(_) | Self::Interrupted(_) => Some(self.to_string()),
            _ => Some(format!("error: {self}")),
        }
    }
}

/// The stable reason of an error, or its code where it comes from no Punchline.
pub(super) fn reason_of(status: &Status) -> String {
    match status.get_details_error_info() {
        Some(info) if !info.reason.is_empty() => info.reason,
        _ => format!("{:?}", status.code()),
    }
}

/// `REASON: message`, then what the details add, a line each.
fn told(status: &Status) -> String {
    let details = status.get_error_details();
    let mut text = format!("{}: {}", harmless(&reason_of(status)), harmless(status.message()));
    let mut line = |what: &str, about: &str| {
        let separator = if what.is_empty() || about.is_empty() { "" } else { ": " };
        let _ = write!(text, "\n  {}{separator}{}", harmless(what), harmless(about));
    };
    for violation in details.bad_request().map(|b| b.field_violations.as_slice()).unwrap_or_default() {
        line(&violation.field, &violation.description);
    }
    for violation in details.precondition_failure().map(|p| p.violations.as_slice()).unwrap_or_default() {
        line(&violation.subject, &violation.description);
    }
    for violation in details.quota_failure().map(|q| q.violations.as_slice()).unwrap_or_default() {
        line(&violation.subject, &violation.description);
    }
    if let Some(resource) = details.resource_info() {
        line(&format!("{} {}", resource.resource_type, resource.resource_name), &resource.description);
    }
    if let Some(delay) = details.retry_info().and_then(|retry| retry.retry_delay) {
        line("try again", &format!("in {} ms", delay.as_millis()));
    }
    text
}

/// An error and its causes; tonic's own text for a refused connection is just "transport error".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let told = error.to_string();
        if !text.contains(&told) {
            let _ = write!(text, ": {told}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    #[test]
    fn a_refusal_is_told_with_its_reason_and_fields() {
        let mut details = ErrorDetails::with_error_info("INVALID_QUANTITY", "punchline", []);
        details.add_bad_request_violation("lines[0].quantity", "1.5 is no whole number");
        let status = Status::with_error_details(Code::InvalidArgument, "Quantity is invalid", details);
        let told = Failure::from(status).told().expect("told");
        assert_eq!(told, "error: INVALID_QUANTITY: Quantity is invalid\n  lines[0].quantity: 1.5 is no whole number");
        let bare = Failure::from(Status::not_found("nothing\n\u{1b}there")).told().expect("told");
        assert_eq!(bare, "error: NotFound: nothing\\n\\u{1b}there");
    }
}
