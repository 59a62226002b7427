//! The loyalty rules: what a fact means for a member.
//!
//! ```text
//! command ──decide──▶ events ──apply──▶ member, tenant, house account
//! ```
//!
//! `decide` may say no and changes nothing; `apply` may not say no and decides nothing.

pub mod account;
pub mod campaign;
pub mod consumption;
pub mod coupon;
pub mod fact;
pub mod fact_type;
pub mod item;
pub mod job;
pub mod ledger;
pub mod member;
pub mod programme;
pub mod punchcard;
pub mod reward;
pub mod tenant;
