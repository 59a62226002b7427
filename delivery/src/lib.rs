//! One attempt to one subscriber.
//!
//! ```text
//! dialect        event → bytes                        (comes with the engine's event types)
//! signature      bytes → webhook-signature
//! headers        what a subscription adds to every request
//! auth           who we say we are in HTTP (oauth2, tokens), identity: who we are in TLS
//! endpoint       which URLs and addresses may be called at all (address, resolver)
//! connect        how a connection is made, also through a proxy
//! courier        the seam: AttemptRequest in, AttemptReport out
//! transport      the courier over HTTP                scripted: the courier for tests
//! segment        the courier that gathers attempts into Segment's batches
//! outcome        what the answer means
//! ```
//!
//! # What is absent on purpose
//!
//! - No retry and no sleep: when to try again is decided by the engine and awaited by the runtime.
//! - No clock: the instant of the attempt comes in with the request, latency is measured outside.
//! - No randomness: secrets and ids are made by the runtime.
//! - No store: what an attempt found out is returned, and written down by others.

pub mod dialect;
pub mod signature;

pub mod auth;
pub mod headers;
pub mod identity;
pub mod oauth2;
mod tokens;

pub mod address;
pub mod endpoint;
pub mod resolver;

mod connect;
mod counted;
pub mod proxy;

pub mod outcome;
pub mod retry_after;

pub mod courier;
pub mod scripted;
pub mod segment;
pub mod transport;

mod bounded;
mod digest;
