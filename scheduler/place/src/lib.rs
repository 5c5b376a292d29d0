//! pilvi-place
