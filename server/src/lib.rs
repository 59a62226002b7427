//! The binary's parts: what an operator sees of Punchline.

pub mod campaign_file;
pub mod cli;
pub mod config;

pub mod auth;
pub mod convert;
pub mod dev;
pub mod facts;
pub mod filter;
pub mod first_bytes;
pub mod grpc;
pub mod http;
pub mod ingest;
pub mod limits;
pub mod master_key;
pub mod otel;
pub mod refuse;
pub mod reload;
pub mod serve;
pub mod state;
pub mod systemd;
pub mod telemetry;
pub mod tls;

pub mod demo;
pub mod offline;
