//! Who else may vouch for users, how what they say is read, and which of our users they vouched for.
use super::record;
use pilvi_store::Query;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// An id made of parts that may hold any character: a digest, so that it has one length and no separator.
fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hex::encode(hash.finalize())
}

/// Somebody outside who vouches for users. His users live in one domain.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IdentityProvider {
    /// Chosen by the client.
    pub id: String,
    pub enabled: bool,
    pub description: Option<String>,
    pub domain_id: String,
    /// Minutes for which a membership that a mapping gave outlives the login; `None`: the cloud's default.
    pub authorization_ttl: Option<i64>,
    /// What he calls himself: issuers, entity ids. Nobody else may have one of them.
    #[serde(default)]
    pub remote_ids: Vec<String>,
}

record!(IdentityProvider, "identity_federation_provider",
    name: |_| None,
    columns: { "domain_id": |p| &p.domain_id },
    claims: |p| p.remote_ids.iter().map(|r| ("identity:remote_id".to_owned(), r.clone())).collect());

impl IdentityProvider {
    pub fn in_domain(domain_id: &str) -> Query {
        Query::all().eq("domain_id", domain_id)
    }
}

/// Rules that turn what a provider says of a user into what he is here.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Mapping {
    /// Chosen by the client.
    pub id: String,
    pub rules: serde_json::Value,
    pub schema_version: String,
}

record!(Mapping, "identity_federation_mapping", name: |_| None, columns: {}, claims: |_| Vec::new());

/// A way to talk with a provider (`openid`, `saml2`, `mapped`), and the mapping for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Protocol {
    /// [`Protocol::key`]
    pub id: String,
    pub idp_id: String,
    /// As the client calls it.
    pub protocol_id: String,
    pub mapping_id: String,
    /// The attribute in which the provider says who he is; `None`: the protocol's usual one.
    pub remote_id_attribute: Option<String>,
}

record!(Protocol, "identity_federation_protocol",
    name: |_| None,
    columns: { "idp_id": |p| &p.idp_id },
    claims: |_| Vec::new());

impl Protocol {
    pub fn key(idp_id: &str, protocol_id: &str) -> String {
        digest(&[idp_id, protocol_id])
    }
    pub fn of_provider(idp_id: &str) -> Query {
        Query::all().eq("idp_id", idp_id)
    }
}

/// Another cloud that takes our word for our users.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServiceProvider {
    /// Chosen by the client.
    pub id: String,
    pub enabled: bool,
    pub description: Option<String>,
    /// Where one gets a token there.
    pub auth_url: String,
    /// Where our assertion goes.
    pub sp_url: String,
    pub relay_state_prefix: String,
}

record!(ServiceProvider, "identity_federation_service_provider", name: |_| None, columns: {}, claims: |_| Vec::new());

/// A user as one provider knows him.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Federated {
    pub idp_id: String,
    pub protocol_id: String,
    pub unique_id: String,
}

/// From what a provider calls a user to the user here. The user's record names it too, for display.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FederatedUser {
    /// [`FederatedUser::key`]
    pub id: String,
    pub user_id: String,
    #[serde(flatten)]
    pub known_as: Federated,
}

record!(FederatedUser, "identity_federated_user",
    name: |_| None,
    columns: { "user_id": |u| &u.user_id, "idp_id": |u| &u.known_as.idp_id },
    claims: |_| Vec::new());

impl FederatedUser {
    pub fn new(user_id: &str, known_as: &Federated) -> Self {
        FederatedUser { id: Self::key(known_as), user_id: user_id.into(), known_as: known_as.clone() }
    }
    pub fn key(known_as: &Federated) -> String {
        digest(&[&known_as.idp_id, &known_as.protocol_id, &known_as.unique_id])
    }
    pub fn of_user(user_id: &str) -> Query {
        Query::all().eq("user_id", user_id)
    }
    pub fn of_provider(idp_id: &str) -> Query {
        Query::all().eq("idp_id", idp_id)
    }
    /// The id of the user made for somebody unknown: the same in every cloud, so that an administrator can
    /// work it out before the first login. (Keystone's default generator of public ids.)
    pub fn public_id(domain_id: &str, unique_id: &str) -> String {
        hex::encode(Sha256::new().chain_update(domain_id).chain_update("user").chain_update(unique_id).finalize())
    }
}

/// A membership that a mapping gave: it ends unless a later login confirms it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExpiringMembership {
    /// [`ExpiringMembership::key`]
    pub id: String,
    pub user_id: String,
    pub group_id: String,
    pub idp_id: String,
    /// Microseconds since 1970.
    pub verified_us: i64,
    pub expires_us: i64,
}

record!(ExpiringMembership, "identity_expiring_membership",
    name: |_| None,
    columns: { "user_id": |m| &m.user_id, "group_id": |m| &m.group_id, "idp_id": |m| &m.idp_id },
    claims: |_| Vec::new());

impl ExpiringMembership {
    pub fn key(user_id: &str, group_id: &str, idp_id: &str) -> String {
        digest(&[user_id, group_id, idp_id])
    }
    pub fn of_user(user_id: &str) -> Query {
        Query::all().eq("user_id", user_id)
    }
    pub fn of_group(group_id: &str) -> Query {
        Query::all().eq("group_id", group_id)
    }
    pub fn of_provider(idp_id: &str) -> Query {
        Query::all().eq("idp_id", idp_id)
    }
}

/// A SAML assertion that was taken: it is not taken again, by any scheduler, as long as it would be good.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SamlAssertion {
    /// [`SamlAssertion::key`]
    pub id: String,
    pub until_us: i64,
}

record!(SamlAssertion, "identity_saml_assertion", name: |_| None, columns: {}, claims: |_| Vec::new());

impl SamlAssertion {
    pub fn key(issuer: &str, assertion_id: &str) -> String {
        digest(&[issuer, assertion_id])
    }
}

/// What a provider said of somebody who has yet to come for his token with the cookie he was given.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SamlSession {
    /// [`SamlSession::key`]
    pub id: String,
    pub issuer: String,
    pub attributes: std::collections::BTreeMap<String, Vec<String>>,
    pub until_us: i64,
}

record!(SamlSession, "identity_saml_session", name: |_| None, columns: {}, claims: |_| Vec::new());

impl SamlSession {
    /// The cookie's text is not kept: who reads the store cannot come in with it.
    pub fn key(cookie: &str) -> String {
        digest(&[cookie])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_key_do_not_run_together() {
        assert_ne!(Protocol::key("ab", "c"), Protocol::key("a", "bc"));
        assert_eq!(Protocol::key("a", "b"), Protocol::key("a", "b"));
    }
}
