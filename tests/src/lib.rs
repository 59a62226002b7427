//! The binary from outside: what the tests in `tests/` stand on.
//!
//! ```text
//! Server ── starts, kills, restarts the binary     Receiver ── takes webhooks, checks signatures, records
//! Api, http ── call it                             Model ── the auditor: what must have come of the calls
//! ```
//!
//! # Invariants
//!
//! - Of ours only `punchline-proto` is known. Signatures, rules and balances are computed a second time
//!   here, by code that was written without looking at the engine's.
//! - Nothing waits for a time to pass: every wait is for a condition, with a deadline ([`until`]).
//! - Whatever is random comes from a printed seed ([`Dice`]); `PUNCHLINE_TEST_SEED` replays it.
//!
//! [`until`]: wait::until
//! [`Dice`]: dice::Dice

pub mod api;
pub mod audit;
pub mod campaign;
pub mod dice;
pub mod http;
pub mod load;
pub mod model;
pub mod power;
pub mod receiver;
pub mod server;
pub mod signature;
pub mod wait;
pub mod world;
