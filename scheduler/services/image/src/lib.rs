//! pilvi-image
