//! Every route of every service, called by everybody: who gets past its rule, and who must not.
//!
//! ```text
//!  the mounted route tables ─┐                                 expected: what oslo.policy says of the original's rule
//!                            ├─ route x persona ─► the kit ──►           (tests/registry/*.json), or our own rule where
//!  world: records of p-own ──┘   in process        handler                the original has none
//!                                                     │
//!        allowed:  a probe ends the call where the rule is asked, before anything is done
//!        refused:  a real call: 401, 403 or 404 (of Neutron 400 where another project is named), and nothing in
//!                  the store has changed
//! ```
//! A new route is tested as soon as it is in a service's table. Where its path names a record that the world does not
//! have, only refusals can be seen; those routes are counted, and the count may not grow (`world.rs`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)] // as in any test
mod access;
mod body;
mod judge;
mod navigator;
mod persona;
mod registry;
mod rules;
mod world;
