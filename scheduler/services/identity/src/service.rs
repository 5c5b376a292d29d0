//! The one table of what identity answers: every resource's routes, and the envelope of its faults.
use crate::{
    Identity, access_rule, app_credential, auth, catalog, credential, domain, domain_config, fault, federation, group,
    limit, oauth1, oauth2, policy, policy_blob, project, role, trust, user, version,
};
use pilvi_kit::{Documented, EventStyle, Service};

/// What it answers at the server's root too: where clients and other clouds send SAML assertions.
pub const ROOTS: &[&str] = &["/Shibboleth.sso"];

/// Identity, to be mounted at `/identity`.
pub fn service() -> Service<Identity> {
    let routes = [
        version::routes(),
        auth::routes(),
        user::routes(),
        group::routes(),
        domain::routes(),
        domain_config::routes(),
        project::routes(),
        role::routes(),
        catalog::routes(),
        app_credential::routes(),
        access_rule::routes(),
        credential::routes(),
        trust::routes(),
        policy_blob::routes(),
        oauth1::routes(),
        oauth2::routes(),
        federation::routes(),
        limit::routes(),
    ];
    Service {
        name: "identity",
        prefix: "/identity",
        versions: None,
        fault: fault::shape,
        rules: policy::rules(),
        routes: routes.into_iter().flatten().collect(),
        documented: Documented { operations: include_str!("../operations.txt"), states: include_str!("../states.txt") },
        events: EventStyle { prefix: "identity.", past: true, ..EventStyle::PLAIN },
    }
}
