//! The operator: pauses and resumes subscriptions, redrives and drops dead letters, replays, retries, rotates, runs
//! jobs by hand. Also wrongly: what makes no sense is refused.

use std::sync::Arc;

use punchline_engine::command::{Action, Command};
use punchline_engine::dispatch::{
    DeliveryJob, EventSelection, JobKind, JobState, OnDeadLetter, Ordering, RowState, Subscription, SubscriptionState,
};
use punchline_engine::id::{JobId, Sequence, SubscriptionId, Tenant};
use punchline_engine::loyalty::job::Job;
use punchline_runtime::node::Node;
use uuid::Uuid;

use crate::programme;
use crate::random::Random;
use crate::world::{TENANTS, World};

/// Dead letters in one command, at most.
const SEQUENCES_MAX: usize = 1_000;

/// What the operator does now.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Pause,
    Resume,
    Redrive,
    Drop,
    Replay,
    RedriveJob,
    Cancel,
    RetryNow,
    Rotate,
    Update,
    Order,
    Extra,
    RunJob,
}

const DEEDS: [(u64, Deed); 13] = [
    (4, Deed::Pause),
    (8, Deed::Resume),
    (6, Deed::Redrive),
    (2, Deed::Drop),
    (3, Deed::Replay),
    (3, Deed::RedriveJob),
    (2, Deed::Cancel),
    (4, Deed::RetryNow),
    (1, Deed::Rotate),
    (3, Deed::Update),
    (1, Deed::Order),
    (2, Deed::Extra),
    (2, Deed::RunJob),
];

/// Does one thing, and waits for what comes of it.
pub async fn act(world: Arc<World>, node: Arc<Node>, mut random: Random) {
    let deed = random.weighted(&DEEDS);
    let t = usize::from(random.chance(300));
    let n = random.below(5) as usize;
    let id = programme::subscription_id(t, n);
    say(&world, format_args!("operator: {deed:?} r{n}.t{t}"));
    let came_of_it = carry_out(&node, deed, (TENANTS[t], t, id), &mut random).await;
    if let Err(why) = came_of_it {
        say(&world, format_args!("operator: {deed:?} r{n}.t{t} is not done: {why}"));
    }
}

fn say(world: &World, what: std::fmt::Arguments<'_>) {
    let mut state = world.lock();
    if !state.is_off {
        state.log.line(what);
    }
}

async fn carry_out(
    node: &Node,
    deed: Deed,
    (tenant, t, id): (Tenant, usize, SubscriptionId),
    random: &mut Random,
) -> Result<(), String> {
    let dispatcher = node.dispatcher();
    let reason = "the operator says so".to_owned();
    let set = |state| Action::SetSubscriptionState { subscription_id: id, state, reason: reason.clone() };
    match deed {
        Deed::Pause => submit(node, tenant, set(SubscriptionState::Paused)).await,
        Deed::Resume => submit(node, tenant, set(SubscriptionState::Active)).await,
        Deed::Redrive => {
            let dead = dead(node, id).await?.into_iter().take(SEQUENCES_MAX).collect();
            dispatcher.redrive(tenant, id, dead).await.map(drop).map_err(|e| e.to_string())
        }
        Deed::Drop => {
            let dead = dead(node, id).await?.into_iter().take(2).collect();
            dispatcher.drop_dead_letters(tenant, id, dead, reason).await.map(drop).map_err(|e| e.to_string())
        }
        Deed::Replay | Deed::RedriveJob => {
            let head = node.feed().head().0;
            let job = DeliveryJob {
                id: JobId(Uuid::from_u128(u128::from(random.draw()))),
                kind: if matches!(deed, Deed::Replay) { JobKind::Replay } else { JobKind::Redrive },
                from_sequence: Sequence(head.saturating_sub(random.between(1, 400)).max(1)),
                to_sequence: Sequence(head),
                event_types: EventSelection::all(),
                members: Vec::new(),
                sequences: Vec::new(),
                limit: random.below(3) * 20,
                per_second: (random.below(3) * 40) as u32,
                started_at: node.clock().now(),
                state: JobState::Running,
                next_sequence: Sequence(0),
                put_back: 0,
            };
            let job = DeliveryJob { next_sequence: job.from_sequence, ..job };
            dispatcher.start_job(tenant, id, job).await.map_err(|e| e.to_string())
        }
        Deed::Cancel => {
            let jobs = (node.submitter())
                .read(move |views| views.delivery_state(id).map(|state| state.jobs.clone()).unwrap_or_default());
            let running = jobs.await.map_err(|e| e.to_string())?.into_iter().find(|job| job.state == JobState::Running);
            match running {
                Some(job) => dispatcher.cancel_job(tenant, id, job).await.map_err(|e| e.to_string()),
                None => Ok(()),
            }
        }
        Deed::RetryNow => {
            let rows = (node.submitter()).read(move |views| views.delivery_rows(id, Sequence(0), 50));
            let rows = rows.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
            let waits = |state| matches!(state, RowState::Waiting { .. });
            match rows.iter().find(|row| waits(row.state)) {
                Some(row) => dispatcher.retry_now(id, row.sequence).await.map_err(|e| e.to_string()),
                None => Ok(()),
            }
        }
        Deed::Rotate => {
            let previous_until = node.clock().now().plus_ms(60_000);
            let secret = programme::secret();
            submit(node, tenant, Action::RotateSecret { subscription_id: id, secret, previous_until }).await
        }
        Deed::Update => {
            let max_in_flight = random.between(1, 8) as u32;
            update(node, tenant, id, |subscription| subscription.max_in_flight = max_in_flight).await
        }
        Deed::Order => {
            let ordering = *random.pick(&[Ordering::PerMember, Ordering::Strict, Ordering::None]);
            let on_dead_letter = *random.pick(&[OnDeadLetter::GoOn, OnDeadLetter::Hold]);
            // Only the last of them: what order the others keep is checked over the whole run.
            let id = programme::subscription_id(t, 4);
            update(node, tenant, id, |subscription| {
                (subscription.ordering, subscription.on_dead_letter) = (ordering, on_dead_letter);
            })
            .await
        }
        Deed::Extra => {
            // They come and go.
            let directory = node.directory();
            let subscriptions = directory.tenant(tenant).map(|config| &config.subscriptions);
            let extra = subscriptions.and_then(|all| all.keys().find(|id| programme::is_extra(**id)).copied());
            match extra {
                Some(subscription_id) => submit(node, tenant, Action::DeleteSubscription { subscription_id }).await,
                None => {
                    let (subscription, secret) = (programme::extra(t, random.below(1_000)), programme::secret());
                    submit(node, tenant, Action::CreateSubscription { subscription, secret, owed_after: None }).await
                }
            }
        }
        Deed::RunJob => {
            let job = *random.pick(&Job::ALL);
            node.run_job(tenant, job).await.map(drop).map_err(|e| e.to_string())
        }
    }
}

async fn update(
    node: &Node,
    tenant: Tenant,
    id: SubscriptionId,
    change: impl FnOnce(&mut Subscription),
) -> Result<(), String> {
    let directory = node.directory();
    let Some((_, entry)) = directory.subscription(id) else { return Err("it is not there".into()) };
    let mut subscription = (*entry.definition).clone();
    change(&mut subscription);
    submit(node, tenant, Action::UpdateSubscription { subscription, etag: None }).await
}

async fn submit(node: &Node, tenant: Tenant, action: Action) -> Result<(), String> {
    let command = Command { tenant, request_id: None, action };
    node.submitter().submit(command).await.map(drop).map_err(|e| e.to_string())
}

/// Dead letters of a subscription.
async fn dead(node: &Node, id: SubscriptionId) -> Result<Vec<Sequence>, String> {
    let rows = node.submitter().read(move |views| views.delivery_rows(id, Sequence(0), 10_000));
    let rows = rows.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
    Ok(rows.iter().filter(|row| row.state == RowState::Dead).map(|row| row.sequence).collect())
}

/// Whatever somebody stopped goes on, and all that is dead is tried again. For the end, when receivers are well.
pub async fn put_right(world: Arc<World>, node: Arc<Node>) {
    let directory = node.directory();
    for (tenant, config) in &directory.tenants {
        for (id, entry) in &config.subscriptions {
            let (tenant, id) = (*tenant, *id);
            let mut came_of_it = Ok(());
            if entry.state != SubscriptionState::Active {
                let (state, reason) = (SubscriptionState::Active, "faults have stopped".into());
                came_of_it =
                    submit(&node, tenant, Action::SetSubscriptionState { subscription_id: id, state, reason }).await;
            }
            let mut dead = dead(&node, id).await.unwrap_or_default();
            dead.truncate(SEQUENCES_MAX);
            if came_of_it.is_ok() && !dead.is_empty() {
                say(&world, format_args!("operator: {} dead letters of {id} are redriven", dead.len()));
                came_of_it = node.dispatcher().redrive(tenant, id, dead).await.map(drop).map_err(|e| e.to_string());
            }
            if let Err(why) = came_of_it {
                say(&world, format_args!("operator: {id} is not put right: {why}"));
            }
        }
    }
}
