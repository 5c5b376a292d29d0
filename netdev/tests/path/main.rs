//! The packet path with real kernels, namespaces and tools: one program, so that stories that mostly wait do so beside each other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
mod cloud;
mod filter;
mod forward;
mod gateway6;
mod kill;
mod kill_flow;
mod local;
mod meter;
mod mirror;
mod names;
mod note;
mod object;
mod oracle;
mod overlay;
mod quality;
mod restart;
mod router;
mod scale;
mod scope;
mod switch;
mod tap;
mod trunk;
mod v6;
mod view;
mod ways;
