//! Images as compute spelled them before there was an image service (until 2.35; metadata until 2.38).
pub mod api;
pub mod metadata_api;
