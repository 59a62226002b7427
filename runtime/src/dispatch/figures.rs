//! Figures of single subscriptions, for whoever shows them each on its own.

use std::sync::atomic::Ordering::Relaxed;

use punchline_engine::dispatch::SubscriptionState;
use punchline_engine::id::{Sequence, SubscriptionId};

use super::dispatcher::{Dispatcher, Handle};

/// How far one subscription has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figures {
    /// Which one.
    pub id: SubscriptionId,
    /// The name of the consumer that it is; empty: it is none.
    pub consumer: String,
    /// Events that match and are not delivered, dead letters left out. Where nothing is served, nothing is
    /// loaded either, and all positions behind the cursor count.
    pub pending: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Positions between its cursor and the head; 0 where nothing is pending.
    pub lag_events: u64,
    /// Age of the oldest event that is pending; 0 where nothing is.
    pub oldest_pending_ms: u64,
}

impl Dispatcher {
    /// Figures of the `max` oldest subscriptions for which `wanted` holds, given the name of the consumer.
    /// May read the journal: not for async tasks.
    pub fn figures(&self, max: usize, wanted: impl Fn(&str) -> bool) -> Vec<Figures> {
        let head = self.shared.feed.head();
        let loaded: Vec<(Figures, Option<Sequence>)> = (self.workers().iter())
            .filter(|(_, handle)| wanted(&handle.entry.definition.consumer))
            .take(max)
            .map(|(id, handle)| self.loaded(*id, handle, head))
            .collect();
        let now = self.shared.clock.now();
        let aged = |(figures, oldest): (Figures, Option<Sequence>)| {
            let since = oldest.and_then(|oldest| self.time_of(oldest));
            let age_ms = since.map_or(0, |since| now.0.saturating_sub(since.0));
            Figures { oldest_pending_ms: u64::try_from(age_ms).unwrap_or(0), ..figures }
        };
        loaded.into_iter().map(aged).collect()
    }

    /// Figures without an age, and the oldest event that is pending.
    fn loaded(&self, id: SubscriptionId, handle: &Handle, head: Sequence) -> (Figures, Option<Sequence>) {
        let (entry, stats) = (&handle.entry, &handle.stats);
        let consumer = entry.definition.consumer.clone();
        let cursor = Sequence(stats.cursor.load(Relaxed)).max(entry.owed_after);
        let behind = head.0.saturating_sub(cursor.0);
        let is_served = entry.state == SubscriptionState::Active && (consumer.is_empty() || self.connections(id) > 0);
        let mut pending = stats.pending.load(Relaxed);
        let mut oldest = stats.oldest();
        if !is_served && behind > 0 {
            pending = pending.max(behind);
            oldest = Some(oldest.map_or(cursor.next(), |oldest| oldest.min(cursor.next())));
        }
        let lag_events = if pending == 0 { 0 } else { behind.max(pending) };
        let dead_letters = stats.dead.load(Relaxed);
        (Figures { id, consumer, pending, dead_letters, lag_events, oldest_pending_ms: 0 }, oldest)
    }
}
