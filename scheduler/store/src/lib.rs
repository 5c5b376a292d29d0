//! pilvi-store
