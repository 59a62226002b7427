//! What is decided about subscriptions and deliveries.

use super::{Decision, REDRIVE_MAX, check_etag, limit, text};
use crate::command::{Action, Died};
use crate::dispatch::job::JOB_NAMED_MAX;
use crate::dispatch::{Auth, BreakerState, Subscription, SubscriptionState};
use crate::event::*;
use crate::id::{Sequence, SubscriptionId};
use crate::loyalty::tenant::{Directory, SUBSCRIPTIONS_MAX, SubscriptionEntry, TenantConfig};
use crate::rejection::Rejection;

/// Decides a command on a subscription; any other is the caller's.
pub(super) fn decide(directory: &Directory, config: &TenantConfig, action: &Action) -> Result<Decision, Rejection> {
    let events = match action {
        Action::CreateSubscription { subscription, secret, owed_after } => {
            limit("subscriptions", config.subscriptions.len(), SUBSCRIPTIONS_MAX)?;
            if directory.subscription(subscription.id).is_some() {
                return Err(Rejection::SubscriptionExists(subscription.id));
            }
            subscription.validate()?;
            let same_name = |entry: &&SubscriptionEntry| {
                !subscription.consumer.is_empty() && entry.definition.consumer == subscription.consumer
            };
            if let Some(other) = config.subscriptions.values().find(same_name) {
                return Err(Rejection::SubscriptionExists(other.definition.id));
            }
            let subscription = Box::new(Subscription { version: 1, ..subscription.clone() });
            vec![SubscriptionCreated { subscription, secret: secret.clone(), owed_after: *owed_after }.into()]
        }
        Action::UpdateSubscription { subscription, etag } => {
            let current = &entry(config, subscription.id)?.definition;
            check_etag(etag.as_deref(), current.version)?;
            subscription.validate()?;
            let subscription = Box::new(Subscription { version: current.version + 1, ..subscription.clone() });
            vec![SubscriptionUpdated { subscription }.into()]
        }
        Action::DeleteSubscription { subscription_id } => {
            entry(config, *subscription_id)?;
            vec![SubscriptionDeleted { subscription_id: *subscription_id }.into()]
        }
        Action::SetSubscriptionState { subscription_id, state, reason } => {
            if entry(config, *subscription_id)?.state == *state {
                return Ok(Decision::Already(Sequence(0)));
            }
            let (subscription_id, reason) = (*subscription_id, reason.clone());
            vec![match state {
                SubscriptionState::Active => SubscriptionResumed { subscription_id, reason }.into(),
                SubscriptionState::Paused => SubscriptionPaused { subscription_id, reason }.into(),
                SubscriptionState::Disabled => SubscriptionDisabled { subscription_id, reason }.into(),
            }]
        }
        Action::RotateSecret { subscription_id, secret, previous_until } => {
            entry(config, *subscription_id)?;
            let (subscription_id, previous_until) = (*subscription_id, *previous_until);
            vec![SubscriptionSecretRotated { subscription_id, secret: secret.clone(), previous_until }.into()]
        }
        Action::ReportDeliveries { subscription_id, progress, died, breaker, disable } => {
            let entry = entry(config, *subscription_id)?;
            let mut events =
                vec![DeliveryProgressed { subscription_id: *subscription_id, progress: progress.clone() }.into()];
            events.extend(died.iter().map(|d| dead_lettered(*subscription_id, d)));
            events.extend(breaker.iter().map(|state| breaker_turned(*subscription_id, *state)));
            if let Some(reason) = disable
                && entry.state != SubscriptionState::Disabled
            {
                let (subscription_id, reason) = (*subscription_id, reason.clone());
                events.push(SubscriptionDisabled { subscription_id, reason }.into());
            }
            events
        }
        Action::StartJob { subscription_id, job } => {
            entry(config, *subscription_id)?;
            job.validate()?;
            vec![DeliveryJobStarted { subscription_id: *subscription_id, job: job.clone() }.into()]
        }
        Action::AdvanceJob { subscription_id, job_id, next_sequence, put_back } => {
            entry(config, *subscription_id)?;
            let (subscription_id, job_id, next_sequence) = (*subscription_id, *job_id, *next_sequence);
            vec![DeliveryJobAdvanced { subscription_id, job_id, next_sequence, put_back: put_back.clone() }.into()]
        }
        Action::EndJob { subscription_id, job, cancelled } => {
            entry(config, *subscription_id)?;
            let (subscription_id, job_id, kind) = (*subscription_id, job.id, job.kind);
            vec![DeliveryJobEnded { subscription_id, job_id, kind, cancelled: *cancelled }.into()]
        }
        Action::DropDeadLetters { subscription_id, sequences, reason } => {
            entry(config, *subscription_id)?;
            limit("dead letters in one call", sequences.len().saturating_sub(1), JOB_NAMED_MAX)?;
            text("reason", reason, 500)?;
            let (sequences, reason) = (sequences.clone(), reason.clone());
            vec![DeadLettersDropped { subscription_id: *subscription_id, sequences, reason }.into()]
        }
        Action::Redrive { subscription_id, sequences } => {
            entry(config, *subscription_id)?;
            limit("dead letters in one redrive", sequences.len().saturating_sub(1), REDRIVE_MAX)?;
            vec![DeadLettersRedriven { subscription_id: *subscription_id, sequences: sequences.clone() }.into()]
        }
        _ => unreachable!("the caller decides what is not about deliveries"),
    };
    Ok(Decision::Events(events))
}

fn dead_lettered(subscription_id: SubscriptionId, died: &Died) -> Event {
    DeliveryDeadLettered {
        subscription_id,
        sequence: died.sequence,
        event_type: died.event_type.clone(),
        attempts: died.attempts,
        reason: died.reason.clone(),
    }
    .into()
}

fn breaker_turned(subscription_id: SubscriptionId, breaker: BreakerState) -> Event {
    match breaker {
        BreakerState::Open { .. } => BreakerOpened { subscription_id, breaker }.into(),
        BreakerState::HalfOpen { .. } => BreakerHalfOpened { subscription_id, breaker }.into(),
        BreakerState::Closed => BreakerClosed { subscription_id }.into(),
    }
}

/// Whether two are alike but for what the server makes: secrets are sealed differently each time.
pub(super) fn same_subscription(first: &Subscription, again: &Subscription) -> bool {
    let blank = |given: &Subscription| {
        let mut blank = Subscription { id: first.id, version: first.version, ..given.clone() };
        blank.headers.iter_mut().for_each(|(_, value)| value.0.clear());
        blank.headers.sort_by(|(one, _), (other, _)| one.cmp(other));
        if let Some(certificate) = &mut blank.client_certificate {
            certificate.key_pem.0.clear();
        }
        match &mut blank.auth {
            Auth::None => {}
            Auth::Basic(basic) => basic.password.0.clear(),
            Auth::Bearer { token } => token.0.clear(),
            Auth::OAuth2(oauth2) => oauth2.client_secret.0.clear(),
            Auth::WriteKey { key } => key.0.clear(),
        }
        blank
    };
    blank(first) == blank(again)
}

fn entry(config: &TenantConfig, id: SubscriptionId) -> Result<&SubscriptionEntry, Rejection> {
    config.subscriptions.get(&id).ok_or(Rejection::SubscriptionNotFound(id))
}
