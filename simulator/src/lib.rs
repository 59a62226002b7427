//! The simulator: the production code of `engine`, `runtime` and `storage` over a simulated clock, disk and network,
//! all of it from a seed.
//!
//! ```text
//!            clients ──▶ node (stepped) ──▶ network ──▶ receivers
//!               │             │                            │
//!               │           disk                           │
//!               └──────▶ auditor: what was said, what is there, what came
//! ```
//!
//! Modules in reading order: where chance and time come from ([`random`], [`time`]), what is written down ([`log`]),
//! the world around a node ([`programme`], [`wishes`], [`clients`], [`operator`], [`receivers`],
//! [`world`]), who turns the crank
//! ([`machine`]), and who checks ([`auditor`]).
//!
//! # What is absent on purpose
//!
//! - A second implementation of anything that is simulated: the sequencer's turns are the thread's.
//! - sled, sockets and gRPC: the tests of those crates have them.

pub mod auditor;
pub mod bugs;
pub mod clients;
pub mod log;
pub mod machine;
pub mod operator;
pub mod programme;
pub mod random;
pub mod receivers;
pub mod time;
pub mod wishes;
pub mod world;
