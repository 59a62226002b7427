//! `subscriptions`: webhooks to somebody's URL.

mod settings;

use clap::Subcommand;
use punchline_proto::v1;
use punchline_proto::v1::subscription_service_client::SubscriptionServiceClient;
use serde_json::Value;

use super::client::{Client, ListOptions};
use super::failure::Failure;
use super::input;
use super::message::{json, json_all, json_of};
use super::output::{self, Answer};
use super::webhooks::now_unix_s;

use settings::Settings;

#[derive(Debug, Subcommand)]
pub(super) enum SubscriptionsCommand {
    /// Subscribe a URL to events; the signing secret is shown once
    Create {
        /// Where to send
        #[arg(long)]
        url: String,
        #[command(flatten)]
        settings: Box<Settings>,
        // No environment variable, here and below: the one that `webhooks listen` reads is the secret in use.
        /// Signing secret, whsec_…, or whsk_… with --signature v1a; made by the server if absent
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
        settings: Box<Settings>,
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
        /// The new one, of the subscription's kind; made by the server if absent
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
    /// The event types that can be subscribed to; `events types` tells more
    EventTypes,
}

const COLUMNS: &[&str] = &[
    "subscription_id",
    "url",
    "dialect",
    "event_types",
    "state",
    "breaker",
    "pending",
    "oldest:pending_for",
    "dead:dead_letters",
];

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
            Ok(Answer::Rows(COLUMNS, all.iter().map(|subscription| row(subscription, now_unix_s())).collect()))
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

/// A subscription, and how long its oldest event has been waiting.
fn row(subscription: &v1::Subscription, now_unix_s: i64) -> Value {
    let mut row = json(subscription);
    let waited_s = subscription.oldest_pending_at.map(|at| now_unix_s.saturating_sub(at.seconds).max(0));
    row["pending_for"] = waited_s.map(|seconds| input::span_text(seconds as u64)).into();
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_event_has_an_age() {
        let mut subscription = v1::Subscription::default();
        assert_eq!(row(&subscription, 1_000)["pending_for"], Value::Null);
        for (happened_s, expected) in [(880, "2m"), (1_001, "0s")] {
            subscription.oldest_pending_at = Some(prost_types::Timestamp { seconds: happened_s, nanos: 0 });
            assert_eq!(row(&subscription, 1_000)["pending_for"], expected);
        }
    }
}
