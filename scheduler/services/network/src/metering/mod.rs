//! Metering: labels that count what routers carry to and from the outside.
//!
//! ```text
//!  label + rules --> hosts (host/message.rs) --> packet path counts --> agents report --> counter.rs: sums, samples
//! ```
pub mod counter;
pub mod label;
pub mod model;
pub mod ops;
pub mod rule;
