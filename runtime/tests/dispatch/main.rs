//! Deliveries on the simulated clock, through the whole node: what an endpoint's answers lead to, order,
//! jobs, consumers, crashes. Nothing here waits for real time: it passes when the test says so.

#[path = "../support/mod.rs"]
mod support;

mod consumers;
mod crash;
mod endpoint;
mod jobs;
mod order;
