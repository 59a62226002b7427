//! The byte layer from outside: blocks, journals, views, the data directory.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod backup;
mod blocks;
mod data_dir;
mod full;
mod journals;
mod memory;
mod sled;
mod write;
