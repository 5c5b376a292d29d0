//! Logging in: who somebody is (methods), what the token is to be for (scope), and the token itself.
//!
//! ```text
//! request -> methods: password | totp | token | application_credential | oauth1 | mapped, openid, saml2
//!            (all that are named must succeed)
//!         -> rules:   does the user need more proofs? then 401 with a receipt for those given
//!         -> scope:   asked for, or the user's default project, or none
//!         -> Token -> resolve (still enabled? any role there?) -> 201 X-Subject-Token
//! ```
mod api;
mod issue;
mod lockout;
mod methods;
mod places;
mod receipt;
mod rules;
mod scope;
mod totp;

pub(crate) use api::routes;
pub(crate) use methods::Proof;
