//! pilvi-network
