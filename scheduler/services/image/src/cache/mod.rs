//! The read cache: images that live in remote stores, kept on this machine as far as there is room.
//!
//! ```text
//!  download of a remote image --> served, and written beside --> all bytes, right hash --> cached
//!  PUT /v2/cache/{id} --> queued --> fetched in the background ------------------------------^
//!  more than the limit --> the longest unread go
//! ```
pub mod api;
pub(crate) mod disk;
pub(crate) mod ops;
