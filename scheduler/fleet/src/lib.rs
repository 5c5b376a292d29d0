//! pilvi-fleet
