//! Every loop of Punchline: what runs between the rules below and the doors above.
//!
//! ```text
//! commands ──▶ sequencer ──▶ committer ──▶ journal      (single writer, group commit)
//!                                │
//!                                ▼ feed
//!                     dispatcher: a worker a subscription ──▶ couriers
//! ```
//!
//! Modules in reading order: who asks ([`actor`]), the clock and the ids ([`clock`], [`ids`], [`seal`]: the only places that
//! read the time or make randomness), what tells a stuck loop ([`pulse`]) and whose trace it is ([`trace`]), the writer ([`sequencer`], [`committer`], [`feed`]), what serves
//! subscriptions ([`dispatch`]), what the clock asks for ([`jobs`]), the whole of it opened and closed ([`node`], [`threads`], [`verify`]),
//! kept elsewhere ([`backup`]), and made shorter ([`trim`]).

pub mod actor;
pub mod clock;
pub mod ids;
pub mod pulse;
pub mod seal;
pub mod trace;

pub mod committer;
pub mod feed;
mod readers;
pub mod sequencer;

pub mod dispatch;
pub mod jobs;

pub mod node;
pub mod threads;
pub mod verify;

pub mod backup;
pub mod trim;
