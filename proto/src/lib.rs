//! What crosses a process ([`v1`], the gRPC API) or survives one ([`journal`], the journal's records).
//!
//! The `.proto` files are the documentation of each message; names and numbers in them never change.

/// The gRPC API, package `punchline.v1`.
#[allow(missing_docs, rustdoc::all, clippy::all)]
pub mod v1 {
    tonic::include_proto!("punchline.v1");

    /// The API's descriptors, for server reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/api.bin"));
}

/// Records as they stand in the journal and rows as they stand in the views, package `punchline.journal.v1`.
#[allow(missing_docs, rustdoc::all, clippy::all)]
pub mod journal {
    tonic::include_proto!("punchline.journal.v1");
}
