//! `subscriptions`: webhooks to somebody's URL.

use clap::{Args, Subcommand};
use punchline_proto::v1;
use punchline_proto::v1::subscription_service_client::SubscriptionServiceClient;

use super::client::{Client, ListOptions};
use super::failure::Failure;
use super::input;
use super::message::{json, json_all, json_of};
use super::output::{self, Answer};

#[derive(Debug, Subcommand)]
pub(super) enum SubscriptionsCommand {
    /// Subscribe a URL to events; the signing secret is shown once
    Create {
        /// Where to send
        #[arg(long)]
        url: String,
        #[command(flatten)]
        settings: Settings,
        // No environment variable, here and below: the one that `webhooks listen` reads is the secret in use.
        /// Signing secret, whsec_…; made by the server if absent
        #[arg(long)]
        secret: Option<String>,
        /// Also deliver what happened after this position; only what happens from now on if absent
        #[arg(long, value_name = "SEQUENCE", default_value_t = 0)]
        from_sequence: u64,
        /// Makes a repeated call harmless
        #[arg(long, value_name = "ID", default_value = "")]
        request_id: String,
    },
    /// One subscription
    Get {
        /// As `subscriptions list` shows it
        subscription_id: String,
    },
    /// All subscriptions
    List(ListOptions),
    /// Change the settings that are given
    Update {
        /// As `subscriptions list` shows it
        subscription_id: String,
        /// Where to send
        #[arg(long)]
        url: Option<String>,
        #[command(flatten)]
        settings: Settings,
    },
    /// Withdraw it; its backlog is gone, the events stay
    Delete {
        /// As `subscriptions list` shows it
        subscription_id: String,
    },
    /// Stop attempts; the backlog is kept
    Pause {
        /// As `subscriptions list` shows it
        subscription_id: String,
        /// Why, for people
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Go on where it stopped
    Resume {
        /// As `subscriptions list` shows it
        subscription_id: String,
    },
    /// Make a new signing secret, shown once; the old one signs too for a while
    RotateSecret {
        /// As `subscriptions list` shows it
        subscription_id: String,
        /// The new one, whsec_…; made by the server if absent
        #[arg(long)]
        secret: Option<String>,
        /// How long the old one signs too; 24 hours if absent
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        overlap_seconds: u64,
    },
    /// Send an example event now, and tell how it went
    Test {
        /// As `subscriptions list` shows it
        subscription_id: String,
        /// Which type's example; the first selected one if absent
        #[arg(long = "type", value_name = "TYPE", default_value = "")]
        event_type: String,
    },
    /// The event types that can be subscribed to
    EventTypes,
}

/// What can be set on creation and later.
#[derive(Args, Debug)]
pub(super) struct Settings {
    /// For people
    #[arg(long)]
    description: Option<String>,
    /// Event type, as points.credited or points.*; all if absent; may be repeated
    #[arg(long = "type", value_name = "TYPE")]
    event_types: Vec<String>,
    /// Header to send along; may be repeated
    #[arg(long = "header", value_name = "NAME:VALUE")]
    headers: Vec<String>,
    /// Basic authentication
    #[arg(long, value_name = "USER:PASSWORD")]
    basic_auth: Option<String>,
    /// Waits before the 2nd, 3rd, … attempt, as 5s,5m,30m; the default ten attempts if absent
    #[arg(long, value_name = "DURATIONS", value_delimiter = ',', value_parser = input::duration_ms)]
    retry_delays: Vec<u64>,
    /// One attempt only
    #[arg(long, conflicts_with = "retry_delays")]
    no_retries: bool,
    /// Longest that one attempt may take; 15s if absent
    #[arg(long, value_name = "DURATION", value_parser = input::duration_ms)]
    attempt_timeout: Option<u64>,
    /// Attempts under way at once; 64 if absent
    #[arg(long, value_name = "COUNT")]
    max_in_flight: Option<u32>,
    /// Status after which trying again is pointless; may be repeated
    #[arg(long = "permanent-status", value_name = "STATUS")]
    permanent_statuses: Vec<u32>,
}

impl Settings {
    /// Sets what was given, and leaves the rest.
    fn apply(self, subscription: &mut v1::Subscription) -> Result<(), Failure> {
        if let Some(description) = self.description {
            subscription.description = description;
        }
        if !self.event_types.is_empty() {
            subscription.event_types = self.event_types;
        }
        for header in &self.headers {
            let (name, value) = input::secret_pair("--header", header)?;
            // As the server has them: otherwise one that is there would come twice.
            subscription.headers.insert(name.to_ascii_lowercase(), value);
        }
        if let Some(basic_auth) = &self.basic_auth {
            let (username, password) = input::secret_pair("--basic-auth", basic_auth)?;
            subscription.basic_auth = Some(v1::BasicAuth { username, password });
        }
        if !self.retry_delays.is_empty() {
            subscription.retry_delays_ms = self.retry_delays;
            subscription.no_retries = false;
        }
        if self.no_retries {
            subscription.retry_delays_ms.clear();
            subscription.no_retries = true;
        }
        if let Some(timeout_ms) = self.attempt_timeout {
            subscription.timeout_ms = timeout_ms;
        }
        if let Some(max_in_flight) = self.max_in_flight {
            subscription.max_in_flight = max_in_flight;
        }
        if !self.permanent_statuses.is_empty() {
            subscription.permanent_statuses = self.permanent_statuses;
        }
        Ok(())
    }
}

const COLUMNS: &[&str] =
    &["subscription_id", "url", "event_types", "state", "state_reason", "cursor", "pending", "dead_letters"];

pub(super) async fn run(command: SubscriptionsCommand, client: &Client) -> Result<Answer, Failure> {
    let mut service = SubscriptionServiceClient::new(client.service());
    match command {
        SubscriptionsCommand::Create { url, settings, secret, from_sequence, request_id } => {
            let mut subscription = v1::Subscription { url, ..v1::Subscription::default() };
            settings.apply(&mut subscription)?;
            let request = v1::CreateSubscriptionRequest {
                subscription: Some(subscription),
                secret: secret.unwrap_or_default(),
                from_sequence,
                request_id,
            };
            let created = service.create_subscription(request).await?.into_inner();
            output::note("keep the secret: it is not shown again");
            Ok(Answer::One(json(&created)))
        }
        SubscriptionsCommand::Get { subscription_id } => {
            let request = v1::GetSubscriptionRequest { subscription_id };
            one(&service.get_subscription(request).await?.into_inner().subscription)
        }
        SubscriptionsCommand::List(list) => {
            let all = list
                .collect(async |page_size, page_token| {
                    let request = v1::ListSubscriptionsRequest { page_size, page_token };
                    let page = service.list_subscriptions(request).await?.into_inner();
                    Ok((page.subscriptions, page.next_page_token))
                })
                .await?;
            Ok(Answer::Rows(COLUMNS, json_all(&all)))
        }
        SubscriptionsCommand::Update { subscription_id, url, settings } => {
            let request = v1::GetSubscriptionRequest { subscription_id };
            let mut subscription =
                service.get_subscription(request).await?.into_inner().subscription.unwrap_or_default();
            if let Some(url) = url {
                subscription.url = url;
            }
            settings.apply(&mut subscription)?;
            // With the etag that was read: who came between is not overwritten.
            let request = v1::UpdateSubscriptionRequest { subscription: Some(subscription) };
            one(&service.update_subscription(request).await?.into_inner().subscription)
        }
        SubscriptionsCommand::Delete { subscription_id } => {
            service
                .delete_subscription(v1::DeleteSubscriptionRequest { subscription_id: subscription_id.clone() })
                .await?;
            output::note(&format!("deleted {subscription_id}"));
            Ok(Answer::Nothing)
        }
        SubscriptionsCommand::Pause { subscription_id, reason } => {
            let request = v1::PauseSubscriptionRequest { subscription_id, reason };
            one(&service.pause_subscription(request).await?.into_inner().subscription)
        }
        SubscriptionsCommand::Resume { subscription_id } => {
            let request = v1::ResumeSubscriptionRequest { subscription_id };
            one(&service.resume_subscription(request).await?.into_inner().subscription)
        }
        SubscriptionsCommand::RotateSecret { subscription_id, secret, overlap_seconds } => {
            let secret = secret.unwrap_or_default();
            let request = v1::RotateSecretRequest { subscription_id, secret, overlap_seconds };
            let rotated = service.rotate_secret(request).await?.into_inner();
            output::note("keep the secret: it is not shown again");
            Ok(Answer::One(json(&rotated)))
        }
        SubscriptionsCommand::Test { subscription_id, event_type } => {
            let request = v1::TestSubscriptionRequest { subscription_id, event_type };
            let tested = service.test_subscription(request).await?.into_inner();
            let answer = Answer::One(json(&tested));
            if (200..300).contains(&tested.status) {
                return Ok(answer);
            }
            let why = if tested.error.is_empty() { format!("status {}", tested.status) } else { tested.error };
            let failure = Failure::Negative(format!("the receiver did not accept it: {why}"));
            Ok(Answer::Although(Box::new(answer), failure))
        }
        SubscriptionsCommand::EventTypes => {
            let listed = service.list_event_types(v1::ListEventTypesRequest::default()).await?.into_inner();
            Ok(Answer::Rows(&["name", "description"], json_all(&listed.event_types)))
        }
    }
}

fn one(subscription: &Option<v1::Subscription>) -> Result<Answer, Failure> {
    Ok(Answer::One(json_of(subscription)))
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

    #[test]
    fn a_header_replaces_the_one_of_its_name() {
        let mut subscription = v1::Subscription::default();
        subscription.headers.insert("x-key".into(), String::new());
        let line = Line::parse_from(["line", "--header", "X-Key: new", "--header", "X-Other:a"]);
        line.settings.apply(&mut subscription).expect("valid");
        let expected = [("x-key", "new"), ("x-other", "a")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(subscription.headers, expected.into());
    }
}
