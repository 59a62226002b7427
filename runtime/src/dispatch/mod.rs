//! Serving subscriptions: a worker each, so that none waits for another.
//!
//! ```text
//! feed ──▶ worker (lanes) ──▶ attempts ──▶ settle ──▶ report ──▶ journal
//! ```
//!
//! The journal is the truth and a worker's memory a copy: what it has settled goes to the journal as a
//! report, and after a crash it takes up where the last report left off.

pub mod consumer;
pub mod dispatcher;
pub mod figures;
pub mod lanes;
pub mod log;
pub mod target;

mod budget;
mod job;
mod pace;
mod worker;
