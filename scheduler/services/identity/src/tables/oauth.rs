//! OAuth 1: programs (consumers), their wish for access (request token), and the access a user gave.
use super::{Extra, record};
use pilvi_store::Query;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OauthConsumer {
    pub id: String,
    pub description: Option<String>,
    pub secret: String,
    #[serde(default)]
    pub extra: Extra,
}

record!(OauthConsumer, "identity_oauth_consumer", name: |_| None, columns: {}, claims: |_| Vec::new());

/// A consumer asks for access to one project; a user who authorizes it gives it a verifier.
#[derive(Clone, Serialize, Deserialize)]
pub struct OauthRequestToken {
    pub id: String,
    pub secret: String,
    pub consumer_id: String,
    pub project_id: String,
    /// Who authorized it.
    pub user_id: Option<String>,
    /// Ids of the roles he gave.
    #[serde(default)]
    pub roles: Vec<String>,
    pub verifier: Option<String>,
    /// Microseconds since 1970; `None`: never.
    pub expires_us: Option<i64>,
}

record!(OauthRequestToken, "identity_oauth_request_token",
    name: |_| None,
    columns: { "consumer_id": |t| &t.consumer_id, "project_ref": |t| &t.project_id, "user_id": |t| t.user_id.as_deref().unwrap_or_default() },
    claims: |_| Vec::new());

impl OauthRequestToken {
    pub fn of_consumer(id: &str) -> Query {
        Query::all().eq("consumer_id", id)
    }
    pub fn in_project(id: &str) -> Query {
        Query::all().eq("project_ref", id)
    }
    pub fn of_user(id: &str) -> Query {
        Query::all().eq("user_id", id)
    }
}

/// A consumer may act for a user in one project with some of his roles.
#[derive(Clone, Serialize, Deserialize)]
pub struct OauthAccessToken {
    pub id: String,
    pub secret: String,
    pub consumer_id: String,
    pub project_id: String,
    pub user_id: String,
    /// Ids.
    pub roles: Vec<String>,
    /// Microseconds since 1970; `None`: never.
    pub expires_us: Option<i64>,
}

record!(OauthAccessToken, "identity_oauth_access_token",
    name: |_| None,
    columns: { "consumer_id": |t| &t.consumer_id, "project_ref": |t| &t.project_id, "user_id": |t| &t.user_id },
    claims: |_| Vec::new());

impl OauthAccessToken {
    pub fn of_consumer(id: &str) -> Query {
        Query::all().eq("consumer_id", id)
    }
    pub fn in_project(id: &str) -> Query {
        Query::all().eq("project_ref", id)
    }
    pub fn of_user(id: &str) -> Query {
        Query::all().eq("user_id", id)
    }
}

/// Neither prints its secret.
impl std::fmt::Debug for OauthRequestToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OauthRequestToken({})", self.id)
    }
}

impl std::fmt::Debug for OauthAccessToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OauthAccessToken({})", self.id)
    }
}
