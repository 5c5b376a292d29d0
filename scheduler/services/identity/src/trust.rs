//! Trusts: a trustor lets a trustee act with some of his roles in one project.
//!
//! ```text
//! create (by the trustor) -> alive -> used up, over, or deleted: no token any more
//!                              └── redelegated: a trust from a trust, never wider, ends with it
//! ```
mod api;
mod ops;

pub(crate) use api::routes;
