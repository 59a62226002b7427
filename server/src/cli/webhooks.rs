//! `webhooks`: a receiver to try things out with, and signatures by hand. No server is asked.

mod listen;

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use punchline_delivery::signature::{self, Secret};

use super::failure::Failure;
use super::input;
use super::output::{Answer, Format};

/// As Standard Webhooks' own libraries tolerate.
const TOLERANCE_S: u32 = 300;

#[derive(Debug, Subcommand)]
pub(super) enum WebhooksCommand {
    /// Listen on loopback, check signatures, and show what arrives, a line each
    Listen(listen::ListenArgs),
    /// Sign a body as the server would
    Sign(SignedArgs),
    /// Check a signature: exit code 0 or 1
    Verify {
        #[command(flatten)]
        signed: SignedArgs,
        /// The header webhook-signature
        #[arg(long, value_name = "TEXT")]
        signature: String,
        /// Check the timestamp's age too, as a receiver should
        #[arg(long)]
        check_age: bool,
    },
}

#[derive(Args, Debug)]
pub(super) struct SignedArgs {
    /// whsec_…
    #[arg(long, env = "PUNCHLINE_WEBHOOK_SECRET", hide_env_values = true)]
    secret: String,
    /// The header webhook-id
    #[arg(long)]
    id: String,
    /// The header webhook-timestamp
    #[arg(long, value_name = "UNIX_SECONDS")]
    timestamp: i64,
    /// The body, to the byte; standard input if absent or `-`
    #[arg(long, value_name = "FILE")]
    body_file: Option<PathBuf>,
}

/// Not for clap, which shows what it refuses: the error never holds the text.
fn secret(text: &str) -> Result<Secret, Failure> {
    Secret::parse(text).map_err(|error| Failure::Usage(format!("--secret: {error}")))
}

#[allow(clippy::disallowed_methods, reason = "this is a receiver, on another machine than any journal")]
fn now_unix_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

pub(super) async fn run(command: WebhooksCommand, format: Format) -> Result<Answer, Failure> {
    match command {
        WebhooksCommand::Listen(args) => listen::run(args, format).await,
        WebhooksCommand::Sign(signed) => {
            let secret = secret(&signed.secret)?;
            let body = input::read(signed.body_file.as_deref())?;
            Ok(Answer::Text(signature::sign(&signed.id, signed.timestamp, &body, &[&secret])))
        }
        WebhooksCommand::Verify { signed, signature, check_age } => {
            let secret = secret(&signed.secret)?;
            let body = input::read(signed.body_file.as_deref())?;
            let now = if check_age { now_unix_s() } else { signed.timestamp };
            signature::verify(&signed.id, signed.timestamp, &body, &signature, &[&secret], now, TOLERANCE_S)
                .map_err(|error| Failure::Negative(error.to_string()))?;
            Ok(Answer::One(serde_json::json!({ "valid": true })))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_secret_is_not_shown() {
        let told = secret("whsec_s3cret").expect_err("too short").to_string();
        assert!(told.contains("--secret") && !told.contains("s3cret"), "{told}");
    }
}
