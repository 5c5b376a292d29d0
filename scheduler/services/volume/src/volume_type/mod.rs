//! Types of volumes: what an operator offers, to whom, and with what promises.
pub mod ops;
