//! The stories: what `pilvi` promises, told by running the real programs with real guests.
//!
//! One after the other, by hand: `cargo test -p pilvi-tests --test story -- --test-threads=1 --nocapture`.
//! They need root and a built `pilvi`; where something is missing they say so and are skipped, unless
//! `PILVI_NO_SKIP` is set, as `tests/run` does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)] // as in any test
mod bgp;
mod client;
mod crash;
mod dns;
mod first_light;
mod fleet;
mod follow;
mod hostile;
mod hosts;
mod kvm;
mod lent;
mod moves;
mod pair;
mod segments;
mod spare;
mod tenants;
mod tour;
mod volumes;
mod world;
