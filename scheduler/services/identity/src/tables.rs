//! What identity keeps: one record a file section, its indexes and its unique claims.
//!
//! ```text
//! Project (a domain is a project with is_domain) <- User, Group <- Membership
//! Role <- Inference (prior implies implied)
//! Assignment: actor (user, group) x role x target (project, domain, system), inherited or not
//! Region <- Endpoint -> Service
//! ApplicationCredential -> AccessRule, Credential, Trust: what a user hands to programs
//! IdentityProvider <- Protocol -> Mapping; FederatedUser -> User: who came from outside
//! OauthConsumer <- OauthRequestToken, OauthAccessToken: programs a user let in
//! RevocationEvent: tokens that died before their time
//! ```
//! Only this module names columns; everybody else asks for the queries made here.
mod access;
mod catalog;
mod federation;
mod oauth;
mod people;
mod places;
mod roles;
mod secrets;
mod session;

pub use access::{DomainConfig, Limit, Policy, PolicyAssociation, RegisteredLimit};
pub use catalog::{Endpoint, EndpointGroup, EndpointLink, Region, Service};
pub use federation::{
    ExpiringMembership, Federated, FederatedUser, IdentityProvider, Mapping, Protocol, SamlAssertion, SamlSession,
    ServiceProvider,
};
pub use oauth::{OauthAccessToken, OauthConsumer, OauthRequestToken};
pub use people::{Group, IdMapping, Membership, PasswordEntry, Source, User};
pub(crate) use people::{group_exists_in, user_exists_in};
pub use places::Project;
pub use roles::{Actor, Assignment, AssignmentKey, Inference, Place, Role};
pub use secrets::{AccessRule, ApplicationCredential, Credential, Trust};
pub use session::{LastActive, LoginFailures, RevocationEvent};

use pilvi_store::KindSpec;

/// Attributes a client invented: kept and shown, never interpreted.
pub type Extra = serde_json::Map<String, serde_json::Value>;

/// How a column spells a flag.
fn flag(on: bool) -> &'static str {
    if on { "true" } else { "false" }
}

/// Implements [`Record`]: kind, name, indexed columns (all text) and unique claims.
macro_rules! record {
    ($type:ty, $kind:literal, name: $name:expr, columns: { $($column:literal: $value:expr),* $(,)? }, claims: $claims:expr) => {
        impl pilvi_store::Record for $type {
            const KIND: &'static str = $kind;
            const COLUMNS: &'static [pilvi_store::Column] = &[$(pilvi_store::Column::text($column)),*];
            fn id(&self) -> &str {
                &self.id
            }
            fn name(&self) -> Option<&str> {
                let read: fn(&$type) -> Option<&str> = $name;
                read(self)
            }
            fn columns(&self) -> Vec<pilvi_store::Value> {
                vec![$({
                    let read: fn(&$type) -> &str = $value;
                    read(self).to_owned().into()
                }),*]
            }
            fn claims(&self) -> Vec<pilvi_store::Claim> {
                let read: fn(&$type) -> Vec<(String, String)> = $claims;
                read(self).into_iter().map(|(scope, value)| pilvi_store::Claim { scope, value }).collect()
            }
        }
    };
}
pub(crate) use record;

/// All kinds of record, for the store to make tables of.
pub fn kinds() -> Vec<KindSpec> {
    vec![
        KindSpec::of::<Project>(),
        KindSpec::of::<User>(),
        KindSpec::of::<Group>(),
        KindSpec::of::<Membership>(),
        KindSpec::of::<IdMapping>(),
        KindSpec::of::<Role>(),
        KindSpec::of::<Inference>(),
        KindSpec::of::<Assignment>(),
        KindSpec::of::<Region>(),
        KindSpec::of::<Service>(),
        KindSpec::of::<Endpoint>(),
        KindSpec::of::<EndpointGroup>(),
        KindSpec::of::<EndpointLink>(),
        KindSpec::of::<ApplicationCredential>(),
        KindSpec::of::<AccessRule>(),
        KindSpec::of::<Credential>(),
        KindSpec::of::<Trust>(),
        KindSpec::of::<RevocationEvent>(),
        KindSpec::of::<LoginFailures>(),
        KindSpec::of::<LastActive>(),
        KindSpec::of::<Policy>(),
        KindSpec::of::<PolicyAssociation>(),
        KindSpec::of::<DomainConfig>(),
        KindSpec::of::<OauthConsumer>(),
        KindSpec::of::<OauthRequestToken>(),
        KindSpec::of::<OauthAccessToken>(),
        KindSpec::of::<IdentityProvider>(),
        KindSpec::of::<Mapping>(),
        KindSpec::of::<Protocol>(),
        KindSpec::of::<ServiceProvider>(),
        KindSpec::of::<FederatedUser>(),
        KindSpec::of::<ExpiringMembership>(),
        KindSpec::of::<SamlAssertion>(),
        KindSpec::of::<SamlSession>(),
        KindSpec::of::<RegisteredLimit>(),
        KindSpec::of::<Limit>(),
    ]
}
