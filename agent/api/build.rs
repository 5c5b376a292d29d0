//! Generates the gRPC code from `proto/agent.proto`.
//!
//! protox parses the file in Rust, so that a build needs no `protoc` on the machine.
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto/agent.proto");
    let files = protox::compile(["agent.proto"], ["proto"])?;
    tonic_prost_build::configure()
        // Wanted and observed state is compared and kept in ordered files: maps must not shuffle.
        .btree_map(".")
        // Image bytes are passed on as they came in, without a copy.
        .bytes(".pilvi.agent.v1.ImageChunk")
        .bytes(".pilvi.agent.v1.UploadPart")
        // One piece of memory for all that are told the same.
        .bytes(".pilvi.agent.v1.SchedulerMessage")
        .compile_fds(files)?;
    Ok(())
}
