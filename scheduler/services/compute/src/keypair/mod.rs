//! Key pairs: public keys of users, put into their servers.
pub mod api;
mod key;
