//! What is owed to whom: subscriptions, the retry schedule, and the durable part of deliveries.
//!
//! # What is absent on purpose
//!
//! - Sending. `delivery` makes an attempt, `runtime` decides when.

pub mod breaker;
pub mod job;
pub mod progress;
pub mod schedule;
pub mod subscription;

pub use breaker::{Breaker, BreakerPolicy, BreakerState};
pub use job::{DeliveryJob, JobKind, JobState, PutBack};
pub use progress::{AttemptLog, DeliveryProgress, DeliveryRow, DeliveryState, RowState};
pub use schedule::RetrySchedule;
pub use subscription::{
    Auth, DialectChoice, EventSelection, OnDeadLetter, Ordering, Subscription, SubscriptionState, TypeMask,
};
