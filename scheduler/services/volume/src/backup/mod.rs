//! Backups: a volume's bytes, kept where images are kept.
//!
//! ```text
//!  POST /backups -> record + hidden image (queued) + the volume's upload   one transaction; volume backing-up
//!  host: packed and sent                            -> backup available, volume as before
//!  restore -> the volume is made anew of the image, or a new one of it: restoring -> available
//!  delete  -> the image goes, then the record
//! ```
//! Each backup is whole: there are no incremental ones. Its image belongs to no project, so nobody boots it or shares it.
pub mod api;
pub mod model;
pub mod ops;
pub mod view;
