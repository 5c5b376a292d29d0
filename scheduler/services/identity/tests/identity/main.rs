//! Identity through the whole kit: what clients see, with the service's own tokens.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
mod access;
mod assignments;
mod bad_input;
mod bootstrap;
mod compliance;
mod credentials;
mod factors;
mod federation;
mod import;
mod ldap;
mod limits;
mod many;
mod oauth;
mod openid;
mod provider;
mod resources;
mod saml;
mod scopes;
mod sessions;
mod signed;
mod signing;
mod slapd;
mod world;
