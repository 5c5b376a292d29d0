//! pilvi-compute
