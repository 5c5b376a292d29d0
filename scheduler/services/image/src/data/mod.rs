//! The bytes of images: received, hashed, inspected, kept, sent.
pub mod api;
pub mod files;
pub mod format;
pub mod ops;
mod qcow2;
pub mod receive;
pub(crate) mod recover;

#[cfg(test)]
pub(crate) fn test_qcow2(size: u64) -> Vec<u8> {
    qcow2::tests::image(size)
}
