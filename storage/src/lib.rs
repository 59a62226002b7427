//! What survives a power cut: the journal (the truth), the keyed views (a disposable fold of it)
//! and the directory that holds both. The only crate that says sled.
//!
//! Bytes in, bytes out: nothing here knows what a record or a row means, reads a clock or decides
//! anything about loyalty. `docs/format.md` draws every byte.

pub mod block;
pub mod codec;
pub mod journal;
pub mod layout;
pub mod member_keys;
pub mod rows;

pub mod attempts;
pub mod backup;
pub mod data_dir;
pub mod memory;
pub mod sled_journal;
pub mod sled_rows;
pub mod sync;
pub mod views;

mod recovery;
mod sled_door;
