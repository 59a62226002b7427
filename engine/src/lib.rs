//! The rules of Punchline, and nothing else: no clock, no disk, no socket, no thread, no randomness.
//!
//! ```text
//! command + working set ──decide──▶ events ──apply──▶ state
//! ```
//!
//! Modules in reading order: the words ([`id`], [`quantity`], [`time`]), what can be asked
//! ([`command`]), what happens ([`event`]), what is refused ([`rejection`]), the rules ([`loyalty`]),
//! what is owed to subscribers ([`dispatch`]), and the one decision ([`decide`]); and bugs for the simulator to find ([`planted`]).

pub mod id;
pub mod quantity;
pub mod time;

pub mod command;
pub mod event;
pub mod expression;
pub mod filter;
pub mod rejection;

pub mod decide;
pub mod dispatch;
pub mod loyalty;

pub mod planted;
