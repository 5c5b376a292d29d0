//! Types of groups (3.11), and their specs.
pub mod api;
