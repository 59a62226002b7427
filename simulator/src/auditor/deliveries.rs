//! Deliveries: what receivers saw beside what the journal owes them (G4 to G6).

use std::collections::{BTreeMap, BTreeSet};

use punchline_engine::dispatch::{DeliveryRow, OnDeadLetter, Ordering, RowState, Subscription};
use punchline_engine::event::{Event, Record};
use punchline_engine::id::{MemberId, Sequence, SubscriptionId, Tenant};

use super::history::History;
use crate::receivers::{Receivers, Seen, host_of};

/// A subscription, as the journal tells of it.
struct Owed {
    tenant: Tenant,
    subscription: Subscription,
    /// What comes after this position.
    after: u64,
    /// Up to here, where it was deleted.
    until: u64,
    /// It was not always in this order.
    mixed: bool,
}

/// What waits for what.
#[derive(PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
enum Lane {
    Member(Option<MemberId>),
    All,
}

/// How a delivery went, by the place of things in what the receiver saw.
#[derive(Default, Clone, Copy)]
struct Course {
    first_came: Option<usize>,
    taken: Option<usize>,
    may_have_died: Option<usize>,
}

/// Checks every subscription. `at_the_end` all must have arrived, or be listed as dead.
pub fn check(history: &History, receivers: &Receivers, at_the_end: bool) -> Result<(), String> {
    let dropped = dropped(history);
    for (id, owed) in subscriptions(history) {
        let host = host_of(&owed.subscription.url);
        let seen = receivers.seen.get(host).map(Vec::as_slice).unwrap_or_default();
        let events = owed_events(history, &owed);
        let courses = courses(host, &events, seen, history, at_the_end)?;
        let is_dropped = |sequence: u64| dropped.contains(&(id, sequence));
        check_order(host, &owed, &events, &courses, &is_dropped)?;
        if owed.until < u64::MAX {
            continue;
        }
        let state = history.views.delivery_state(id).cloned().unwrap_or_default();
        let rows = rows(history, id)?;
        for sequence in events.keys() {
            let course = courses.get(sequence).copied().unwrap_or_default();
            let row = rows.get(sequence).map(|row| row.state);
            if row == Some(RowState::Delivered) && course.taken.is_none() {
                return Err(format!("G4: {host} did not take {sequence}, and its row says so"));
            }
            // What is forgotten of the settled ones was dropped or taken.
            let is_settled = course.taken.is_some() || is_dropped(*sequence);
            if *sequence <= state.cursor.0 && !is_settled && row.is_none() {
                return Err(format!(
                    "G4: the cursor of {host} is at {}, past {sequence}, which it did not take",
                    state.cursor
                ));
            }
            let is_dead = row == Some(RowState::Dead);
            let is_held = owed.subscription.on_dead_letter == OnDeadLetter::Hold && row == Some(RowState::Held);
            if at_the_end && !is_settled && !is_dead && !is_held {
                return Err(format!("G4: {host} never took {sequence}, whose row is {row:?}"));
            }
        }
    }
    Ok(())
}

fn subscriptions(history: &History) -> BTreeMap<SubscriptionId, Owed> {
    let mut found: BTreeMap<SubscriptionId, Owed> = BTreeMap::new();
    for (first, record) in &history.records {
        for (sequence, event) in (*first..).zip(&record.events) {
            match event {
                Event::SubscriptionCreated(e) => {
                    let owed = Owed {
                        tenant: record.tenant,
                        subscription: (*e.subscription).clone(),
                        after: e.owed_after.map_or(sequence, |after| after.0),
                        until: u64::MAX,
                        mixed: false,
                    };
                    found.insert(e.subscription.id, owed);
                }
                Event::SubscriptionUpdated(e) => {
                    if let Some(owed) = found.get_mut(&e.subscription.id) {
                        let rules = |s: &Subscription| (s.ordering, s.on_dead_letter);
                        owed.mixed |= rules(&owed.subscription) != rules(&e.subscription);
                        owed.subscription = (*e.subscription).clone();
                    }
                }
                Event::SubscriptionDeleted(e) => {
                    if let Some(owed) = found.get_mut(&e.subscription_id) {
                        owed.until = sequence;
                    }
                }
                _ => {}
            }
        }
    }
    found
}

/// Dead letters that somebody gave up.
fn dropped(history: &History) -> BTreeSet<(SubscriptionId, u64)> {
    let mut found = BTreeSet::new();
    for event in history.records.values().flat_map(|record| &record.events) {
        if let Event::DeadLettersDropped(e) = event {
            found.extend(e.sequences.iter().map(|sequence| (e.subscription_id, sequence.0)));
        }
    }
    found
}

/// What is owed to a subscription, with the lane of each.
fn owed_events(history: &History, owed: &Owed) -> BTreeMap<u64, Lane> {
    let mut events = BTreeMap::new();
    for (first, record) in history.records.iter().filter(|(_, record)| record.tenant == owed.tenant) {
        for recorded in record.all_recorded(Sequence(*first)) {
            let sequence = recorded.sequence.0;
            let is_wanted = recorded.is_told() && owed.subscription.event_types.selects(recorded.event);
            if is_wanted && sequence > owed.after && sequence < owed.until {
                let lane = match owed.subscription.ordering {
                    Ordering::Strict => Lane::All,
                    Ordering::PerMember | Ordering::None => Lane::Member(recorded.member),
                };
                events.insert(sequence, lane);
            }
        }
    }
    events
}

fn record_with(history: &History, sequence: u64) -> Option<(u64, &Record)> {
    history.records.range(..=sequence).next_back().map(|(first, record)| (*first, record))
}

/// Puts together what was seen of each delivery; checks that it is what the journal says.
fn courses(
    host: &str,
    events: &BTreeMap<u64, Lane>,
    seen: &[Seen],
    history: &History,
    at_the_end: bool,
) -> Result<BTreeMap<u64, Course>, String> {
    let mut courses: BTreeMap<u64, Course> = BTreeMap::new();
    let mut ids: BTreeMap<u64, &str> = BTreeMap::new();
    for (at, seen) in seen.iter().enumerate() {
        match seen {
            Seen::MayHaveDied(sequence) => {
                courses.entry(*sequence).or_default().may_have_died.get_or_insert(at);
            }
            Seen::Came(arrival) => {
                let sequence = arrival.sequence;
                if sequence > history.head {
                    return Err(format!("G2: {host} was sent {sequence}, the journal ends at {}", history.head));
                }
                if !events.contains_key(&sequence) {
                    return Err(format!("G4: {host} was sent {sequence}, which it is not owed"));
                }
                let (first, record) = record_with(history, sequence).expect("the journal has it");
                let recorded = record.recorded(Sequence(first), (sequence - first) as usize);
                if arrival.body["type"] != recorded.event.type_name() {
                    let (sent, is) = (&arrival.body["type"], recorded.event.type_name());
                    return Err(format!("G2: {host} was sent {sequence} as {sent}, and it is {is}"));
                }
                // What is personal may be gone by now.
                let has_person = matches!(
                    recorded.event,
                    Event::MemberCreated(_) | Event::MemberUpdated(_) | Event::FactPublished(_)
                );
                if at_the_end && !has_person {
                    check_body(&arrival.body, recorded.event)
                        .map_err(|what| format!("G2: {host} was sent {sequence}, in which {what}: {}", arrival.body))?;
                }
                let id = ids.entry(sequence).or_insert(&arrival.webhook_id);
                if *id != arrival.webhook_id {
                    return Err(format!("G6: {host} was sent {sequence} as {id} and as {}", arrival.webhook_id));
                }
                let course = courses.entry(sequence).or_default();
                course.first_came.get_or_insert(at);
                if arrival.taken {
                    course.taken.get_or_insert(at);
                }
            }
        }
    }
    if ids.values().collect::<BTreeSet<_>>().len() != ids.len() {
        return Err(format!("G6: two events were sent to {host} under one id"));
    }
    Ok(courses)
}

/// Checks that all that an event says was sent, as it is.
fn check_body(body: &serde_json::Value, event: &Event) -> Result<(), String> {
    let said = serde_json::to_value(event).map_err(|e| e.to_string())?;
    let wrong =
        said.as_object().and_then(|said| said.iter().find(|(name, value)| body["data"][name.as_str()] != **value));
    wrong.map_or(Ok(()), |(name, value)| Err(format!("{name} is {value}")))
}

/// Checks that nothing came before what is before it in its lane was taken, or given up.
fn check_order(
    host: &str,
    owed: &Owed,
    events: &BTreeMap<u64, Lane>,
    courses: &BTreeMap<u64, Course>,
    is_dropped: &dyn Fn(u64) -> bool,
) -> Result<(), String> {
    if owed.subscription.ordering == Ordering::None || owed.mixed {
        return Ok(());
    }
    let holds = owed.subscription.on_dead_letter == OnDeadLetter::Hold;
    // Of each lane, the last to be out of the way so far.
    let mut behind: BTreeMap<Lane, (usize, u64)> = BTreeMap::new();
    for (sequence, lane) in events {
        let course = courses.get(sequence).copied().unwrap_or_default();
        if let (Some(came), Some((out_of_the_way, before))) = (course.first_came, behind.get(lane))
            && came < *out_of_the_way
        {
            return Err(format!("G5: {host} was sent {sequence} before {before} was out of the way"));
        }
        let given_up = course.may_have_died.filter(|_| !holds).or_else(|| is_dropped(*sequence).then_some(0));
        let out_of_the_way = course.taken.into_iter().chain(given_up).min().unwrap_or(usize::MAX);
        let last = behind.entry(*lane).or_insert((0, 0));
        *last = (*last).max((out_of_the_way, *sequence));
    }
    Ok(())
}

fn rows(history: &History, id: SubscriptionId) -> Result<BTreeMap<u64, DeliveryRow>, String> {
    let rows = history.views.delivery_rows(id, Sequence(0), usize::MAX);
    let rows = rows.map_err(|e| format!("G8: the rows of {id} cannot be read: {e}"))?;
    Ok(rows.into_iter().map(|row| (row.sequence.0, row)).collect())
}
