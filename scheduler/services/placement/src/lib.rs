//! pilvi-placement
