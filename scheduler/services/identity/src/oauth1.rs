//! OAuth 1 (RFC 5849): a user lets a program act for him in one project with some of his roles.
//!
//! ```text
//! consumer (id, secret; made by an administrator)
//!    | signed POST request_token, for a project    -> request token
//!    | a user: PUT authorize/{request token}, roles -> verifier, handed to the program outside of this API
//!    | signed POST access_token with the verifier   -> access token
//!    | signed POST /v3/auth/tokens, method oauth1    -> a token of the user, cut to those roles
//! ```
//! The program proves by signatures that it knows the secrets; they are never sent again. A signature is good
//! for ten minutes and once (each scheduler remembers the nonces it has seen).
mod access;
mod consumer;
mod exchange;
mod login;
mod signature;

use crate::Identity;
use moka::sync::Cache;
use pilvi_kit::Route;
use std::time::Duration;

/// Nonces that are remembered; more than this within [`signature::CLOCK_SECONDS`] pushes old ones out.
const NONCES_MAX: u64 = 100_000;

/// Nonces seen, so that a signed request is taken once.
pub(crate) type Nonces = Cache<String, ()>;

pub(crate) fn nonces() -> Nonces {
    let twice = Duration::from_secs(2 * signature::CLOCK_SECONDS.unsigned_abs());
    Cache::builder().max_capacity(NONCES_MAX).time_to_live(twice).build()
}

pub(crate) fn routes() -> Vec<Route<Identity>> {
    let mut routes = consumer::routes();
    routes.extend(exchange::routes());
    routes.extend(access::routes());
    routes
}
