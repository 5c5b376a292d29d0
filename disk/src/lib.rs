//! pilvi-disk: files that hold disks, as strangers send them.
//!
//! ```text
//!  bytes ── format::inspect ──► what they are, what is wrong with them
//!        ── format::judge ────► may they stand under this name?          the image service at the door; every host again
//!        ── convert::settle ──► a raw disk (or qcow2)                    imports with the plug-in; hosts before a boot
//! ```
//!
//! The image service and the hosts use the same judge, so that neither has to trust the other: an operator may tell the
//! service to keep whatever comes (`require_image_format_match = false`), and may let it know nothing of what an image
//! at a URL holds; no host opens a file that it has not judged itself.
pub mod convert;
pub mod format;
#[cfg(any(test, feature = "samples"))]
pub mod samples;
pub mod sparse;

pub use format::{Format, Refusal, Rules, judge};
