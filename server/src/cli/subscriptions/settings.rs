//! What can be set of a subscription, on creation and later.
//!
//! # Invariants
//!
//! - An update leaves what is not named: settings are laid over what the server has.
//! - Of two settings that exclude each other, the one that is named takes the other's place.
//! - Tokens and keys come from files: a command line can be read by everybody on the machine.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use punchline_proto::v1;

use super::super::failure::Failure;
use super::super::input;

/// The dialect that wants a write key, and that a write key wants.
const SEGMENT: &str = "segment";

#[derive(Args, Debug, Default)]
pub(in super::super) struct Settings {
    /// For people
    #[arg(long)]
    description: Option<String>,

    /// Event type, as points.credited or points.*; all if absent; may be repeated
    #[arg(long = "type", value_name = "TYPE", help_heading = "Which events")]
    event_types: Vec<String>,
    /// CEL over `event` that must hold, as 'event.data.amount >= 100'; '' for everything
    #[arg(long, value_name = "CEL", help_heading = "Which events")]
    filter: Option<String>,

    /// In which form events are told, as `dialects list` shows them; standard if absent
    #[arg(long, value_name = "NAME", help_heading = "Form")]
    dialect: Option<String>,
    /// What the dialect lets a subscription choose, as `dialects show` tells; may be repeated
    #[arg(long = "dialect-setting", value_name = "KEY=VALUE", value_parser = input::pair, help_heading = "Form")]
    dialect_settings: Vec<(String, String)>,
    /// Header to send along; may be repeated
    #[arg(long = "header", value_name = "NAME:VALUE", help_heading = "Form")]
    headers: Vec<String>,
    /// Kind of signing key: a shared secret, or Ed25519; v1 if absent; cannot be changed later
    #[arg(long, value_name = "SCHEME", value_enum, help_heading = "Form")]
    signature: Option<SignatureName>,

    /// Basic authentication
    #[arg(long, value_name = "USER:PASSWORD", group = "auth", help_heading = "Authentication")]
    basic_auth: Option<String>,
    /// File with the token for `authorization: Bearer …`
    #[arg(long, value_name = "FILE", group = "auth", help_heading = "Authentication")]
    bearer_token_file: Option<PathBuf>,
    /// Where tokens come from, by client credentials
    #[arg(long, value_name = "URL", group = "auth", help_heading = "Authentication")]
    oauth2_token_url: Option<String>,
    /// Who asks for tokens
    #[arg(long, value_name = "ID", conflicts_with_all = OTHER_AUTH, help_heading = "Authentication")]
    oauth2_client_id: Option<String>,
    /// File with the secret for that
    #[arg(long, value_name = "FILE", conflicts_with_all = OTHER_AUTH, help_heading = "Authentication")]
    oauth2_client_secret_file: Option<PathBuf>,
    /// What tokens are for; may be repeated
    #[arg(long = "oauth2-scope", value_name = "SCOPE", conflicts_with_all = OTHER_AUTH, help_heading = "Authentication")]
    oauth2_scopes: Vec<String>,
    /// Whom tokens are for
    #[arg(long, value_name = "AUDIENCE", conflicts_with_all = OTHER_AUTH, help_heading = "Authentication")]
    oauth2_audience: Option<String>,
    /// File with Segment's write key; the dialect is segment then
    #[arg(long, value_name = "FILE", group = "auth", help_heading = "Authentication")]
    segment_write_key_file: Option<PathBuf>,
    /// No authentication; the client certificate stays
    #[arg(long, group = "auth", help_heading = "Authentication")]
    no_auth: bool,
    /// PEM file with the certificate chain that the receiver asks for
    #[arg(long, value_name = "FILE", requires = "client_key", help_heading = "Authentication")]
    client_cert: Option<PathBuf>,
    /// PEM file with the private key of that
    #[arg(long, value_name = "FILE", requires = "client_cert", help_heading = "Authentication")]
    client_key: Option<PathBuf>,
    /// No client certificate
    #[arg(long, conflicts_with = "client_cert", help_heading = "Authentication")]
    no_client_cert: bool,

    /// What waits for what; per-member if absent
    #[arg(long, value_enum, value_name = "ORDER", help_heading = "Order and pace")]
    ordering: Option<OrderingName>,
    /// What becomes of the events behind a dead letter in its order; go-on if absent
    #[arg(long, value_enum, value_name = "WHAT", help_heading = "Order and pace")]
    on_dead_letter: Option<OnDeadLetterName>,
    /// Attempts under way at once; 64 if absent
    #[arg(long, value_name = "COUNT", help_heading = "Order and pace")]
    max_in_flight: Option<u32>,
    /// Attempts begun in a second, at most; 0 for no limit, as if absent
    #[arg(long, value_name = "PER_SECOND", help_heading = "Order and pace")]
    rate: Option<u32>,

    /// Longest that one attempt may take; 15s if absent
    #[arg(long, value_name = "DURATION", value_parser = input::duration_ms, help_heading = "Failure")]
    attempt_timeout: Option<u64>,
    /// Attempts in all by the default schedule; 10 if absent
    #[arg(long, value_name = "COUNT", conflicts_with_all = ["retry_delays", "no_retries"], help_heading = "Failure")]
    max_attempts: Option<u32>,
    /// Waits before the 2nd, 3rd, … attempt, as 5s,5m,30m; the default ten attempts if absent
    #[arg(
        long, value_name = "DURATIONS", value_delimiter = ',', value_parser = input::duration_ms,
        help_heading = "Failure"
    )]
    retry_delays: Vec<u64>,
    /// One attempt only
    #[arg(long, conflicts_with = "retry_delays", help_heading = "Failure")]
    no_retries: bool,
    /// Status after which trying again is pointless; may be repeated
    #[arg(long = "permanent-status", value_name = "STATUS", help_heading = "Failure")]
    permanent_statuses: Vec<u32>,
    /// Failures in a row after which the endpoint is left in peace for a while; 20 if absent
    #[arg(
        long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "no_breaker",
        help_heading = "Failure"
    )]
    breaker_failures: Option<u32>,
    /// How long at first, doubled each time up to 15m; 30s if absent
    #[arg(
        long, value_name = "DURATION", value_parser = input::duration_ms, conflicts_with = "no_breaker",
        help_heading = "Failure"
    )]
    breaker_open: Option<u64>,
    /// Never leave the endpoint in peace
    #[arg(long, help_heading = "Failure")]
    no_breaker: bool,
    /// Disable after so long of nothing but failure; never, as if absent
    #[arg(long, value_name = "DURATION", value_parser = input::duration_ms_or_never, help_heading = "Failure")]
    disable_after: Option<u64>,
}

/// What excludes OAuth 2.
const OTHER_AUTH: [&str; 4] = ["basic_auth", "bearer_token_file", "segment_write_key_file", "no_auth"];

/// `--signature`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum SignatureName {
    /// HMAC-SHA256 under a shared secret.
    V1,
    /// Ed25519: the receiver needs the public key only.
    V1a,
}

/// `--ordering`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum OrderingName {
    /// A member's events arrive in order; members do not wait for each other.
    PerMember,
    /// All events arrive in order.
    Strict,
    /// Nothing waits.
    None,
}

/// `--on-dead-letter`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum OnDeadLetterName {
    /// They go on without it.
    GoOn,
    /// They are held until it is redriven and arrives, or is dropped.
    Hold,
}

impl Settings {
    /// Sets what was given, and leaves the rest.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`], and what a file gives rise to.
    pub(super) fn apply(self, subscription: &mut v1::Subscription) -> Result<(), Failure> {
        self.authenticate(subscription)?;
        self.tell(subscription)?;
        self.pace(subscription);
        if let Some(description) = self.description {
            subscription.description = description;
        }
        if !self.event_types.is_empty() {
            subscription.event_types = self.event_types;
        }
        if let Some(filter) = self.filter {
            subscription.filter = filter;
        }
        if !self.permanent_statuses.is_empty() {
            subscription.permanent_statuses = self.permanent_statuses;
        }
        Ok(())
    }

    /// The form.
    fn tell(&self, subscription: &mut v1::Subscription) -> Result<(), Failure> {
        let wanted = match (&self.dialect, &self.segment_write_key_file) {
            (Some(dialect), _) => Some(dialect.as_str()),
            (None, Some(_)) => Some(SEGMENT),
            (None, None) => None,
        };
        if let Some(dialect) = wanted.filter(|wanted| *wanted != subscription.dialect) {
            // What another dialect let one choose means nothing to this one.
            subscription.dialect_settings.clear();
            subscription.dialect = dialect.to_owned();
        }
        if subscription.dialect != SEGMENT && self.segment_write_key_file.is_none() {
            subscription.segment_write_key.clear();
        }
        subscription.dialect_settings.extend(self.dialect_settings.iter().cloned());
        for header in &self.headers {
            let (name, value) = input::secret_pair("--header", header)?;
            // As the server has them: otherwise one that is there would come twice.
            subscription.headers.insert(name.to_ascii_lowercase(), value);
        }
        if let Some(signature) = self.signature {
            subscription.signature_scheme = match signature {
                SignatureName::V1 => v1::SignatureScheme::V1,
                SignatureName::V1a => v1::SignatureScheme::V1a,
            }
            .into();
        }
        Ok(())
    }

    fn authenticate(&self, subscription: &mut v1::Subscription) -> Result<(), Failure> {
        let forget = |subscription: &mut v1::Subscription| {
            subscription.basic_auth = None;
            subscription.bearer_token.clear();
            subscription.oauth2 = None;
            subscription.segment_write_key.clear();
        };
        if self.no_auth {
            forget(subscription);
        }
        if let Some(basic_auth) = &self.basic_auth {
            let (username, password) = input::secret_pair("--basic-auth", basic_auth)?;
            forget(subscription);
            subscription.basic_auth = Some(v1::BasicAuth { username, password });
        }
        if let Some(path) = &self.bearer_token_file {
            forget(subscription);
            subscription.bearer_token = input::read_secret(path)?;
        }
        if let Some(path) = &self.segment_write_key_file {
            forget(subscription);
            subscription.segment_write_key = input::read_secret(path)?;
        }
        if self.says_oauth2() {
            // What it had stays where it is not named; its secret too, which is not answered.
            let oauth2 = subscription.oauth2.take().unwrap_or_default();
            forget(subscription);
            subscription.oauth2 = Some(self.oauth2(oauth2)?);
        }
        if let (Some(cert), Some(key)) = (&self.client_cert, &self.client_key) {
            let (certificate_pem, key_pem) = (input::read_text(Some(cert))?, input::read_text(Some(key))?);
            subscription.client_certificate = Some(v1::ClientCertificate { certificate_pem, key_pem });
        }
        if self.no_client_cert {
            subscription.client_certificate = None;
        }
        Ok(())
    }

    fn says_oauth2(&self) -> bool {
        self.oauth2_token_url.is_some()
            || self.oauth2_client_id.is_some()
            || self.oauth2_client_secret_file.is_some()
            || !self.oauth2_scopes.is_empty()
            || self.oauth2_audience.is_some()
    }

    fn oauth2(&self, mut oauth2: v1::OAuth2) -> Result<v1::OAuth2, Failure> {
        let texts = [
            (&mut oauth2.token_url, &self.oauth2_token_url),
            (&mut oauth2.client_id, &self.oauth2_client_id),
            (&mut oauth2.audience, &self.oauth2_audience),
        ];
        for (field, given) in texts {
            if let Some(given) = given {
                field.clone_from(given);
            }
        }
        if let Some(path) = &self.oauth2_client_secret_file {
            oauth2.client_secret = input::read_secret(path)?;
        }
        if !self.oauth2_scopes.is_empty() {
            oauth2.scopes.clone_from(&self.oauth2_scopes);
        }
        if oauth2.token_url.is_empty() || oauth2.client_id.is_empty() {
            let missing = "OAuth 2 needs --oauth2-token-url, --oauth2-client-id and --oauth2-client-secret-file";
            return Err(Failure::Usage(missing.into()));
        }
        Ok(oauth2)
    }

    /// Order, pace and failure.
    fn pace(&self, subscription: &mut v1::Subscription) {
        if let Some(ordering) = self.ordering {
            subscription.ordering = match ordering {
                OrderingName::PerMember => v1::Ordering::PerMember,
                OrderingName::Strict => v1::Ordering::Strict,
                OrderingName::None => v1::Ordering::None,
            }
            .into();
        }
        if let Some(on_dead_letter) = self.on_dead_letter {
            subscription.on_dead_letter = match on_dead_letter {
                OnDeadLetterName::GoOn => v1::OnDeadLetter::GoOn,
                OnDeadLetterName::Hold => v1::OnDeadLetter::Hold,
            }
            .into();
        }
        if let Some(max_attempts) = self.max_attempts {
            subscription.max_attempts = max_attempts;
            subscription.retry_delays_ms.clear();
            subscription.no_retries = false;
        }
        if !self.retry_delays.is_empty() {
            subscription.retry_delays_ms.clone_from(&self.retry_delays);
            subscription.no_retries = false;
        }
        if self.no_retries {
            subscription.retry_delays_ms.clear();
            subscription.no_retries = true;
        }
        if let Some(failures) = self.breaker_failures {
            subscription.breaker_failures = failures;
            subscription.no_breaker = false;
        }
        if self.no_breaker {
            subscription.breaker_failures = 0;
            subscription.no_breaker = true;
        }
        if let Some(open_ms) = self.breaker_open {
            subscription.breaker_open_ms = open_ms;
            // Where there is none: it would not be opened.
            subscription.no_breaker = false;
        }
        let numbers = [
            (&mut subscription.timeout_ms, self.attempt_timeout),
            (&mut subscription.disable_after_ms, self.disable_after),
        ];
        for (field, given) in numbers {
            *field = given.unwrap_or(*field);
        }
        subscription.max_in_flight = self.max_in_flight.unwrap_or(subscription.max_in_flight);
        subscription.rate_per_second = self.rate.unwrap_or(subscription.rate_per_second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        settings: Settings,
    }

    fn applied(line: &str, mut subscription: v1::Subscription) -> Result<v1::Subscription, String> {
        let words = ["line"].into_iter().chain(line.split(' ').filter(|word| !word.is_empty()));
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        line.settings.apply(&mut subscription).map_err(|failure| failure.to_string())?;
        Ok(subscription)
    }

    #[test]
    fn a_header_replaces_the_one_of_its_name() {
        let mut subscription = v1::Subscription::default();
        subscription.headers.insert("x-key".into(), String::new());
        let got = applied("--header X-Key:new --header X-Other:a", subscription).expect("valid");
        let expected = [("x-key", "new"), ("x-other", "a")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(got.headers, expected.into());
    }

    /// As the server answers one.
    fn known() -> v1::Subscription {
        v1::Subscription {
            dialect: "jericommerce".into(),
            dialect_settings: [("edition".to_owned(), "legacy".to_owned())].into(),
            bearer_token: "***".into(),
            filter: "event.sequence > 1".into(),
            retry_delays_ms: vec![5_000; 9],
            max_attempts: 10,
            breaker_failures: 20,
            breaker_open_ms: 30_000,
            disable_after_ms: 5_000,
            ..v1::Subscription::default()
        }
    }

    #[test]
    fn an_update_leaves_what_is_not_named() {
        let settings = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let cases: Vec<(&str, v1::Subscription)> = vec![
            ("", known()),
            ("--description x", v1::Subscription { description: "x".into(), ..known() }),
            (
                "--dialect jericommerce --dialect-setting signature_encoding=hex",
                v1::Subscription {
                    dialect_settings: settings(&[("edition", "legacy"), ("signature_encoding", "hex")]),
                    ..known()
                },
            ),
            (
                "--dialect standard",
                v1::Subscription { dialect: "standard".into(), dialect_settings: settings(&[]), ..known() },
            ),
            ("--max-attempts 3", v1::Subscription { max_attempts: 3, retry_delays_ms: Vec::new(), ..known() }),
            ("--no-retries", v1::Subscription { no_retries: true, retry_delays_ms: Vec::new(), ..known() }),
            ("--no-breaker", v1::Subscription { no_breaker: true, breaker_failures: 0, ..known() }),
            (
                "--breaker-failures 3 --breaker-open 1m",
                v1::Subscription { breaker_failures: 3, breaker_open_ms: 60_000, ..known() },
            ),
            ("--disable-after never", v1::Subscription { disable_after_ms: 0, ..known() }),
            ("--no-auth --rate 5", v1::Subscription { bearer_token: String::new(), rate_per_second: 5, ..known() }),
            (
                "--basic-auth a:b",
                v1::Subscription {
                    bearer_token: String::new(),
                    basic_auth: Some(v1::BasicAuth { username: "a".into(), password: "b".into() }),
                    ..known()
                },
            ),
            (
                "--ordering strict --on-dead-letter hold --signature v1a",
                v1::Subscription {
                    ordering: v1::Ordering::Strict.into(),
                    on_dead_letter: v1::OnDeadLetter::Hold.into(),
                    signature_scheme: v1::SignatureScheme::V1a.into(),
                    ..known()
                },
            ),
        ];
        for (line, expected) in cases {
            assert_eq!(applied(line, known()).as_ref(), Ok(&expected), "{line}");
        }
        let cleared = Line::parse_from(["line", "--filter", ""]);
        let mut subscription = known();
        cleared.settings.apply(&mut subscription).expect("valid");
        assert_eq!(subscription.filter, "");
    }

    #[test]
    fn a_write_key_and_its_dialect_go_together() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), "k3y\n").expect("written");
        let line = format!("--segment-write-key-file {}", file.path().display());
        let segment = applied(&line, known()).expect("valid");
        assert_eq!((segment.dialect.as_str(), segment.segment_write_key.as_str()), ("segment", "k3y"));
        assert_eq!((segment.bearer_token.as_str(), segment.dialect_settings.len()), ("", 0));
        let back = applied("--dialect standard", segment).expect("valid");
        assert_eq!((back.dialect.as_str(), back.segment_write_key.as_str()), ("standard", ""));
    }

    #[test]
    fn oauth2_is_changed_in_part() {
        let oauth2 = v1::OAuth2 {
            token_url: "https://x/token".into(),
            client_id: "me".into(),
            scopes: vec!["a".into()],
            ..v1::OAuth2::default()
        };
        let subscription = v1::Subscription { oauth2: Some(oauth2.clone()), ..v1::Subscription::default() };
        let got = applied("--oauth2-scope b", subscription).expect("valid");
        assert_eq!(got.oauth2, Some(v1::OAuth2 { scopes: vec!["b".into()], ..oauth2 }));
        let told = applied("--oauth2-client-id me", known()).expect_err("no URL");
        assert!(told.contains("--oauth2-token-url"), "{told}");
    }

    #[test]
    fn contradictions_are_refused() {
        let wrong = [
            "--basic-auth a:b --no-auth",
            "--bearer-token-file x --oauth2-client-id y",
            "--oauth2-token-url https://x --segment-write-key-file k",
            "--max-attempts 3 --no-retries",
            "--max-attempts 3 --retry-delays 5s",
            "--no-breaker --breaker-failures 3",
            "--breaker-failures 0",
            "--client-cert a.pem",
            "--client-key a.pem",
            "--disable-after soon",
            "--dialect-setting edition",
            "--ordering loose",
        ];
        for line in wrong {
            assert!(applied(line, v1::Subscription::default()).is_err(), "{line}");
        }
    }
}
