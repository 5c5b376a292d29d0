//! Where the cloud's services answer.
use super::{Extra, record};
use pilvi_store::Query;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Region {
    pub id: String,
    pub description: String,
    pub parent_region_id: Option<String>,
    #[serde(default)]
    pub extra: Extra,
}

record!(Region, "identity_region",
    name: |_| None,
    columns: { "parent_region_id": |r| r.parent_region_id.as_deref().unwrap_or_default() },
    claims: |_| Vec::new());

impl Region {
    pub fn below(parent: &str) -> Query {
        Query::all().eq("parent_region_id", parent)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Service {
    pub id: String,
    /// `compute`, `image`, ...
    pub kind: String,
    /// `nova`; may be absent.
    pub name: Option<String>,
    pub description: Option<String>,
    pub enabled: bool,
    #[serde(default)]
    pub extra: Extra,
}

record!(Service, "identity_service",
    name: |s| s.name.as_deref(),
    columns: { "service_type": |s| &s.kind },
    claims: |_| Vec::new());

impl Service {
    pub fn of_type(kind: &str) -> Query {
        Query::all().eq("service_type", kind)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Endpoint {
    pub id: String,
    pub service_id: String,
    pub region_id: Option<String>,
    /// `public`, `internal` or `admin`
    pub interface: String,
    /// May hold `$(project_id)s`.
    pub url: String,
    pub enabled: bool,
    #[serde(default)]
    pub extra: Extra,
}

record!(Endpoint, "identity_endpoint",
    name: |_| None,
    columns: { "service_id": |e| &e.service_id, "region_id": |e| e.region_id.as_deref().unwrap_or_default() },
    claims: |_| Vec::new());

impl Endpoint {
    pub fn of_service(service_id: &str) -> Query {
        Query::all().eq("service_id", service_id)
    }
    pub fn in_region(region_id: &str) -> Query {
        Query::all().eq("region_id", region_id)
    }
}

/// Endpoints chosen by what they have in common, for projects to be given together.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EndpointGroup {
    pub id: String,
    pub name: String,
    pub description: Option<String>,
    /// `service_id`, `region_id`, `interface`: all that are named must match.
    pub filters: Extra,
}

record!(EndpointGroup, "identity_endpoint_group", name: |g| Some(&g.name), columns: {}, claims: |_| Vec::new());

/// A project is given an endpoint (or a group of them) beside those that all have.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EndpointLink {
    pub id: String,
    pub project_id: String,
    /// Of an endpoint or an endpoint group.
    pub linked_id: String,
    pub is_group: bool,
}

record!(EndpointLink, "identity_endpoint_link",
    name: |_| None,
    columns: { "project_ref": |l| &l.project_id, "linked_id": |l| &l.linked_id },
    claims: |_| Vec::new());

impl EndpointLink {
    pub fn new(project_id: &str, linked_id: &str, is_group: bool) -> Self {
        EndpointLink {
            id: Self::key(project_id, linked_id),
            project_id: project_id.into(),
            linked_id: linked_id.into(),
            is_group,
        }
    }
    pub fn key(project_id: &str, linked_id: &str) -> String {
        format!("{project_id}:{linked_id}")
    }
    pub fn of_project(project_id: &str) -> Query {
        Query::all().eq("project_ref", project_id)
    }
    pub fn of_linked(linked_id: &str) -> Query {
        Query::all().eq("linked_id", linked_id)
    }
}
