//! pilvi-tests
