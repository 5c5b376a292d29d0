//! The bytes of images: received, hashed, inspected, kept, sent.
pub mod api;
pub mod files;
pub mod format;
pub mod ops;
pub mod receive;
pub(crate) mod recover;
pub mod stage;
pub mod staging;

#[cfg(test)]
pub(crate) fn test_qcow2(size: u64) -> Vec<u8> {
    format::qcow2::tests::image(size)
}
