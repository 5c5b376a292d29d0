//! Smaller records: policy blobs, domain configuration, limits.
use super::{Extra, record};
use pilvi_store::Query;
use serde::{Deserialize, Serialize};

/// A policy document that the API keeps for others and never reads.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Policy {
    pub id: String,
    /// A media type.
    pub kind: String,
    /// Text, or a JSON object as older clients send.
    pub blob: serde_json::Value,
    #[serde(default)]
    pub extra: Extra,
}

record!(Policy, "identity_policy", name: |_| None, columns: {}, claims: |_| Vec::new());

/// A policy is for an endpoint, a service, or a service in a region.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PolicyAssociation {
    pub id: String,
    pub policy_id: String,
    pub endpoint_id: Option<String>,
    pub service_id: Option<String>,
    pub region_id: Option<String>,
}

record!(PolicyAssociation, "identity_policy_association",
    name: |_| None,
    columns: { "policy_id": |a| &a.policy_id },
    claims: |_| Vec::new());

impl PolicyAssociation {
    pub fn of_policy(policy_id: &str) -> Query {
        Query::all().eq("policy_id", policy_id)
    }
}

/// Settings of one domain: group -> option -> value. The id is the domain's.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DomainConfig {
    pub id: String,
    pub groups: Extra,
}

record!(DomainConfig, "identity_domain_config", name: |_| None, columns: {}, claims: |_| Vec::new());

/// The limit of every project that has no own one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RegisteredLimit {
    pub id: String,
    pub service_id: String,
    pub region_id: Option<String>,
    pub resource_name: String,
    pub default_limit: i64,
    pub description: Option<String>,
}

record!(RegisteredLimit, "identity_registered_limit",
    name: |l| Some(&l.resource_name),
    columns: { "service_id": |l| &l.service_id },
    claims: |l| vec![(format!("identity:registered_limit:{}:{}", l.service_id, l.region_id.as_deref().unwrap_or("-")), l.resource_name.clone())]);

/// The limit of one project or domain.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Limit {
    pub id: String,
    pub project_id: Option<String>,
    pub domain_id: Option<String>,
    pub service_id: String,
    pub region_id: Option<String>,
    pub resource_name: String,
    pub resource_limit: i64,
    pub description: Option<String>,
}

record!(Limit, "identity_limit",
name: |l| Some(&l.resource_name),
columns: { "project_ref": |l| l.project_id.as_deref().unwrap_or_default(), "domain_id": |l| l.domain_id.as_deref().unwrap_or_default() },
claims: |l| {
    let place = l.project_id.as_deref().or(l.domain_id.as_deref()).unwrap_or("-");
    vec![(format!("identity:limit:{place}:{}:{}", l.service_id, l.region_id.as_deref().unwrap_or("-")), l.resource_name.clone())]
});

impl Limit {
    pub fn of_project(project_id: &str) -> Query {
        Query::all().eq("project_ref", project_id)
    }
    pub fn of_domain(domain_id: &str) -> Query {
        Query::all().eq("domain_id", domain_id)
    }
}
