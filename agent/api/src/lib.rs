//! The contract between the scheduler and the agent of one host.
//!
//! `proto/agent.proto` is the source; [`v1`] is generated from it. This crate adds only what both
//! ends need to agree on and protobuf cannot say: the spelling of a join token, names of power
//! states, what a version of neighbours is, and how large a message may be. It does no I/O.
//!
//! ```text
//! agent --Join(token, CSR)--> scheduler            once, TLS pinned by the token
//! agent ==Session==(mTLS)==== scheduler            Wanted, Neighbours, Question -> ; <- Hello, Heartbeat, Observed, Answer
//! agent --FetchImage(id, offset)--> scheduler      mTLS, chunks
//! agent --UploadImage(chunks)--> scheduler         mTLS, a snapshot that was asked for
//! ```
mod convert;
pub mod neighbours;
pub mod token;

/// Generated messages, client and server of `pilvi.agent.v1`.
#[allow(clippy::all, missing_docs)]
pub mod v1 {
    tonic::include_proto!("pilvi.agent.v1");
}

/// Largest message either end accepts, in bytes: the whole wanted set of a full host fits.
pub const MAX_MESSAGE: usize = 64 << 20;

/// Largest piece of an image in one [`v1::ImageChunk`], in bytes.
pub const IMAGE_CHUNK: usize = 256 << 10;
