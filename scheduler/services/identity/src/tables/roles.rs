//! Roles, what they imply, and who has them where.
use super::{Extra, record};
use pilvi_store::Query;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Role {
    pub id: String,
    pub name: String,
    /// Roles of a domain never appear in tokens; what they imply does.
    pub domain_id: Option<String>,
    pub description: Option<String>,
    #[serde(default)]
    pub options: Extra,
    #[serde(default)]
    pub extra: Extra,
}

/// What the domain column says of a role of the whole cloud.
const GLOBAL: &str = "-";

record!(Role, "identity_role",
    name: |r| Some(&r.name),
    columns: { "domain_id": |r| r.domain_id.as_deref().unwrap_or(GLOBAL) },
    claims: |r| vec![(format!("identity:role:{}", r.domain_id.as_deref().unwrap_or(GLOBAL)), r.name.clone())]);

impl Role {
    pub fn in_domain(domain_id: &str) -> Query {
        Query::all().eq("domain_id", domain_id)
    }
    pub fn global_named(name: &str) -> Query {
        Query::all().eq("domain_id", GLOBAL).eq("name", name)
    }
    pub fn immutable(&self) -> bool {
        self.options.get("immutable").and_then(serde_json::Value::as_bool).unwrap_or(false)
    }
}

/// Who has `prior` has `implied` too.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Inference {
    pub id: String,
    pub prior: String,
    pub implied: String,
}

record!(Inference, "identity_inference",
    name: |_| None,
    columns: { "prior": |i| &i.prior, "implied": |i| &i.implied },
    claims: |_| Vec::new());

impl Inference {
    pub fn new(prior: &str, implied: &str) -> Self {
        Inference { id: Self::key(prior, implied), prior: prior.into(), implied: implied.into() }
    }
    pub fn key(prior: &str, implied: &str) -> String {
        format!("{prior}:{implied}")
    }
    pub fn of_prior(role_id: &str) -> Query {
        Query::all().eq("prior", role_id)
    }
    pub fn of_implied(role_id: &str) -> Query {
        Query::all().eq("implied", role_id)
    }
}

/// Who, where, and whether for the place itself or for all below it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AssignmentKey {
    pub actor: Actor,
    pub target: Place,
    /// Holds in the projects below the target, not in the target.
    pub inherited: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Actor {
    User(String),
    Group(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Place {
    Project(String),
    Domain(String),
    System,
}

impl Actor {
    pub fn id(&self) -> &str {
        match self {
            Actor::User(id) | Actor::Group(id) => id,
        }
    }
    pub fn is_group(&self) -> bool {
        matches!(self, Actor::Group(_))
    }
}

impl Place {
    pub fn id(&self) -> &str {
        match self {
            Place::Project(id) | Place::Domain(id) => id,
            Place::System => SYSTEM,
        }
    }
}

const SYSTEM: &str = "system";

/// One role of one actor at one place.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Assignment {
    pub id: String,
    pub role_id: String,
    #[serde(flatten)]
    pub key: AssignmentKey,
}

record!(Assignment, "identity_assignment",
    name: |_| None,
    columns: {
        "role_id": |a| &a.role_id,
        "actor_id": |a| a.key.actor.id(),
        "target_id": |a| a.key.target.id(),
    },
    claims: |_| Vec::new());

impl Assignment {
    /// The id is made of all parts, so that granting twice is one record.
    pub fn new(key: AssignmentKey, role_id: &str) -> Self {
        Assignment { id: Self::key(&key, role_id), role_id: role_id.into(), key }
    }
    pub fn key(key: &AssignmentKey, role_id: &str) -> String {
        let actor = if key.actor.is_group() { "g" } else { "u" };
        let target = match key.target {
            Place::Project(_) => "p",
            Place::Domain(_) => "d",
            Place::System => "s",
        };
        let inherited = if key.inherited { "i" } else { "-" };
        format!("{actor}{target}{inherited}:{}:{}:{role_id}", key.actor.id(), key.target.id())
    }
    pub fn of_actor(actor_id: &str) -> Query {
        Query::all().eq("actor_id", actor_id)
    }
    pub fn at(target_id: &str) -> Query {
        Query::all().eq("target_id", target_id)
    }
    pub fn of_role(role_id: &str) -> Query {
        Query::all().eq("role_id", role_id)
    }
    pub fn between(key: &AssignmentKey) -> Query {
        Query::all().eq("actor_id", key.actor.id()).eq("target_id", key.target.id())
    }
}
