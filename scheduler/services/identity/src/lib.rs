//! pilvi-identity
