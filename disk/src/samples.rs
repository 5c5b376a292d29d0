//! Files as a good program writes them, and what is in them, for tests.
use crate::{
    Format, Rules,
    convert::{Named, Unsettled, Wanted, settle},
};
use std::path::Path;

/// An empty version 3 qcow2 image of `size` bytes: header, refcount table, refcount block, L1 table.
#[must_use]
pub fn qcow2(size: u64) -> Vec<u8> {
    let mut file = vec![0u8; 4 << 16];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, crate::format::qcow2::MAGIC);
    put(4, &3u32.to_be_bytes());
    put(20, &16u32.to_be_bytes());
    put(24, &size.to_be_bytes());
    put(36, &(size.div_ceil(1 << 29) as u32).to_be_bytes());
    put(40, &(3u64 << 16).to_be_bytes());
    put(48, &(1u64 << 16).to_be_bytes());
    put(56, &1u32.to_be_bytes());
    put(96, &4u32.to_be_bytes());
    put(100, &112u32.to_be_bytes());
    put(1 << 16, &(2u64 << 16).to_be_bytes());
    file
}

/// Writes what a guest sees of a qcow2 file.
///
/// # Errors
/// When it is none, or cannot be read.
pub fn unpack(qcow2: &Path, target: &Path) -> Result<(), Unsettled> {
    let file = Named { path: qcow2, disk_format: "qcow2", container_format: "bare" };
    let wanted = Wanted { format: Format::Raw, target, seconds: 60 };
    settle(file, wanted, &Rules::of_hosts(1 << 44)).map(drop)
}
