//! The binary's parts: what an operator sees of Punchline.

pub mod campaign_file;
pub mod cli;
pub mod config;

pub mod auth;
pub mod convert;
pub mod grpc;
pub mod ingest;
pub mod refuse;
pub mod state;
pub mod dev;
pub mod http;
pub mod limits;
pub mod master_key;
pub mod serve;
pub mod telemetry;
