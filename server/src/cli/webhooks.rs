//! `webhooks`: a receiver to try things out with, and signatures by hand. No server is asked.

mod listen;

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use punchline_delivery::signature::{self, SigningKey, VerifyingKey};

use super::failure::Failure;
use super::input;
use super::output::{Answer, Format};

/// As Standard Webhooks' own libraries tolerate.
const TOLERANCE_S: u32 = 300;

#[derive(Debug, Subcommand)]
pub(super) enum WebhooksCommand {
    /// Listen on loopback, check signatures, and show what arrives, a line each
    Listen(listen::ListenArgs),
    /// Sign a body as the server would: v1 with whsec_…, v1a with whsk_…
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
    /// whsec_…; of Ed25519 whsk_…, or to verify whpk_…
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

/// A key that signs. Not for clap, which shows what it refuses: the error never holds the text.
fn signing_key(text: &str) -> Result<SigningKey, Failure> {
    SigningKey::parse(text).map_err(|error| Failure::Usage(format!("--secret: {error}")))
}

/// A key that verifies; one that signs Ed25519 holds it.
fn verifying_key(text: &str) -> Result<VerifyingKey, Failure> {
    let key = VerifyingKey::parse(text).or_else(|error| match SigningKey::parse(text) {
        Ok(key) => Ok(key.verifying_key()),
        Err(other) if text.starts_with("whsk_") => Err(other),
        Err(_) => Err(error),
    });
    key.map_err(|error| Failure::Usage(format!("--secret: {error}")))
}

/// What the clock says where the command line runs.
#[allow(clippy::disallowed_methods, reason = "this is a client or a receiver, on another machine than any journal")]
pub(super) fn now_unix_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

pub(super) async fn run(command: WebhooksCommand, format: Format) -> Result<Answer, Failure> {
    match command {
        WebhooksCommand::Listen(args) => listen::run(args, format).await,
        WebhooksCommand::Sign(signed) => {
            let secret = signing_key(&signed.secret)?;
            let body = input::read(signed.body_file.as_deref())?;
            Ok(Answer::Text(signature::sign(&signed.id, signed.timestamp, &body, &[&secret])))
        }
        WebhooksCommand::Verify { signed, signature, check_age } => {
            let secret = verifying_key(&signed.secret)?;
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
        for text in ["whsec_s3cret", "whsk_s3cret", "whpk_s3cret", "s3cret"] {
            let told = verifying_key(text).expect_err("too short").to_string();
            assert!(told.contains("--secret") && !told.contains("s3cret"), "{told}");
        }
        assert!(signing_key("whpk_s3cret").is_err(), "a public key signs nothing");
    }

    #[test]
    fn either_half_of_a_key_verifies() {
        let private = "whsk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let key = signing_key(private).expect("a key");
        let SigningKey::Ed25519(ed25519) = &key else { panic!("another kind") };
        let public = ed25519.public_key().to_string();
        let header = signature::sign("msg_1", 5, b"{}", &[&key]);
        assert!(header.starts_with("v1a,"), "{header}");
        for text in [private, public.as_str()] {
            let key = verifying_key(text).expect("a key");
            assert_eq!(signature::verify("msg_1", 5, b"{}", &header, &[&key], 5, TOLERANCE_S), Ok(()));
            assert!(signature::verify("msg_1", 5, b"{1}", &header, &[&key], 5, TOLERANCE_S).is_err());
        }
    }
}
