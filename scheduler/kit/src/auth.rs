//! Who calls: the token in `X-Auth-Token` becomes a [`Caller`], through a cache.
//!
//! The kit does not know tokens; the identity service implements [`TokenAuthority`]. Revocation bumps
//! the authority's [`TokenAuthority::epoch`], which empties the cache, so a revoked token is refused by
//! the next request and not when a cache entry ages out.
use crate::{clock, fault::Fault};
use async_trait::async_trait;
use base64::Engine as _;
use moka::sync::Cache;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{sync::Arc, time::Duration};

/// What a token lets its holder act on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Scope {
    #[default]
    Unscoped,
    Project {
        id: String,
        name: String,
        domain_id: String,
        domain_name: String,
    },
    Domain {
        id: String,
        name: String,
    },
    System,
}

/// An authenticated caller, or [`Caller::anonymous`].
#[derive(Debug, Clone, Default)]
pub struct Caller {
    pub user_id: String,
    pub user_name: String,
    pub user_domain_id: String,
    pub user_domain_name: String,
    pub scope: Scope,
    /// (id, name), implied roles included.
    pub roles: Vec<(String, String)>,
    pub methods: Vec<String>,
    pub audit_ids: Vec<String>,
    /// Microseconds since 1970; 0 for anonymous.
    pub issued_us: i64,
    pub expires_us: i64,
    pub application_credential_id: Option<String>,
    /// Of an application credential: may it make further credentials and trusts?
    pub unrestricted: bool,
    /// Of an application credential: the only calls it may make. `None`: all.
    pub access_rules: Option<Vec<AccessRule>>,
    pub trust_id: Option<String>,
    pub trustor_user_id: Option<String>,
    pub trustee_user_id: Option<String>,
    /// Roles of a second, service token (`X-Service-Token`).
    pub service_roles: Vec<String>,
    /// Of the client certificate without which the token is worth nothing ([`thumbprint`]).
    pub certificate_thumbprint: Option<String>,
}

/// SHA-256 of a certificate in base64url, as `x5t#S256` has it (RFC 8705).
pub fn thumbprint(der: &[u8]) -> String {
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(Sha256::digest(der))
}

/// One allowed call of an application credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessRule {
    pub service: String,
    pub method: String,
    /// `/v2.1/servers/{server_id}` or with `*` (one segment) and `**` (any).
    pub path: String,
}

impl Caller {
    pub fn anonymous() -> Self {
        Self::default()
    }
    pub fn is_anonymous(&self) -> bool {
        self.user_id.is_empty()
    }
    /// Our own programs acting for no user (reconcilers, `up`'s bootstrap).
    pub fn internal() -> Self {
        Caller {
            user_id: "internal".into(),
            user_name: "internal".into(),
            scope: Scope::System,
            roles: vec![("admin".into(), "admin".into())],
            ..Self::default()
        }
    }
    pub fn project_id(&self) -> Option<&str> {
        match &self.scope {
            Scope::Project { id, .. } => Some(id),
            _ => None,
        }
    }
    pub fn domain_id(&self) -> Option<&str> {
        match &self.scope {
            Scope::Domain { id, .. } => Some(id),
            _ => None,
        }
    }
    pub fn is_system(&self) -> bool {
        self.scope == Scope::System
    }
    pub fn has_role(&self, name: &str) -> bool {
        self.roles.iter().any(|(_, n)| n.eq_ignore_ascii_case(name))
    }
    /// `system`, `domain` or `project`: what a rule's scope types are compared with. As in the original,
    /// a token for nothing counts as one for a project: it has no roles, so only rules about the user pass.
    pub fn scope_type(&self) -> &'static str {
        match self.scope {
            Scope::System => "system",
            Scope::Domain { .. } => "domain",
            Scope::Project { .. } | Scope::Unscoped => "project",
        }
    }

    /// The credentials that policy rules look into, named as oslo.context names them.
    pub fn credentials(&self) -> Value {
        let mut creds = json!({
            "user_id": self.user_id, "user_name": self.user_name, "user_domain_id": self.user_domain_id,
            "user_domain_name": self.user_domain_name,
            "roles": self.roles.iter().map(|(_, n)| n.clone()).collect::<Vec<_>>(),
            "service_roles": self.service_roles,
            "is_admin": false, "is_admin_project": true,
            "project_id": null, "domain_id": null, "system_scope": null,
            "trust_id": self.trust_id, "trustor_id": self.trustor_user_id, "trustee_id": self.trustee_user_id,
        });
        match &self.scope {
            Scope::Project { id, name, domain_id, domain_name } => {
                creds["project_id"] = json!(id);
                creds["tenant_id"] = json!(id);
                creds["tenant"] = json!(id);
                creds["project_name"] = json!(name);
                creds["project_domain_id"] = json!(domain_id);
                creds["project_domain_name"] = json!(domain_name);
                creds["token"] = json!({"project": {"id": id, "domain": {"id": domain_id}}});
            }
            Scope::Domain { id, name } => {
                creds["domain_id"] = json!(id);
                creds["domain_name"] = json!(name);
                creds["token"] = json!({"domain": {"id": id}});
            }
            Scope::System => creds["system_scope"] = json!("all"),
            Scope::Unscoped => {}
        }
        creds
    }
}

/// Why a token was not accepted. The client always reads 401 (or 503); the log reads this.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    #[error("token refused: {0}")]
    Refused(String),
    #[error("token store unavailable: {0}")]
    Unavailable(String),
}

/// Who can tell what a token stands for.
#[async_trait]
pub trait TokenAuthority: Send + Sync {
    async fn authenticate(&self, token: &str) -> Result<Caller, AuthError>;
    /// The same for a token that a service shows for a user: it may have ended not long ago.
    async fn authenticate_expired(&self, token: &str) -> Result<Caller, AuthError> {
        self.authenticate(token).await
    }
    /// Grows whenever a token that was good may have become bad.
    fn epoch(&self) -> u64;
    /// Returns when everything that any scheduler of the cloud has answered is known here: called at the beginning of
    /// every request.
    async fn catch_up(&self) -> Result<(), AuthError> {
        Ok(())
    }
}

/// Longest token that is looked at, in bytes.
const TOKEN_MAX: usize = 4096;
const CACHE_ENTRIES: u64 = 20_000;
const CACHE_SECONDS: u64 = 60;

/// The cache in front of the authority. Keys are hashes: a heap dump holds no tokens.
#[derive(Clone)]
pub struct Authenticator {
    authority: Arc<dyn TokenAuthority>,
    cache: Cache<([u8; 32], u64), Arc<Caller>>,
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authenticator")
    }
}

impl Authenticator {
    pub fn new(authority: Arc<dyn TokenAuthority>) -> Self {
        let cache =
            Cache::builder().max_capacity(CACHE_ENTRIES).time_to_live(Duration::from_secs(CACHE_SECONDS)).build();
        Authenticator { authority, cache }
    }

    /// See [`TokenAuthority::catch_up`].
    pub async fn catch_up(&self) -> Result<(), Fault> {
        self.authority.catch_up().await.map_err(|error| Fault {
            cause: Some(error.to_string()),
            ..Fault::unavailable("The store of this cloud does not answer.")
        })
    }

    /// 401 for anything but a good token.
    pub async fn caller(&self, token: &str) -> Result<Arc<Caller>, Fault> {
        check_length(token)?;
        let key = (Sha256::digest(token.as_bytes()).into(), self.authority.epoch());
        if let Some(hit) = self.cache.get(&key) {
            if hit.expires_us > clock::now_us() {
                return Ok(hit);
            }
            self.cache.invalidate(&key);
            return Err(Fault::unauthorized());
        }
        let caller = Arc::new(self.authority.authenticate(token).await.map_err(refused)?);
        self.cache.insert(key, caller.clone());
        Ok(caller)
    }

    /// For a service that shows the token of a user beside its own: the token may have ended not long ago.
    pub(crate) async fn expired(&self, token: &str) -> Result<Arc<Caller>, Fault> {
        check_length(token)?;
        self.authority.authenticate_expired(token).await.map(Arc::new).map_err(refused)
    }
}

fn check_length(token: &str) -> Result<(), Fault> {
    if token.is_empty() || token.len() > TOKEN_MAX { Err(Fault::unauthorized()) } else { Ok(()) }
}

fn refused(error: AuthError) -> Fault {
    match error {
        AuthError::Refused(why) => {
            tracing::debug!(why, "token refused");
            Fault::unauthorized()
        }
        AuthError::Unavailable(why) => {
            Fault { cause: Some(why), ..Fault::unavailable("The identity service is not available.") }
        }
    }
}

/// Does an application credential's access rule cover this call? `path` is the path below the service's prefix.
pub fn access_allowed(rules: &[AccessRule], service: &str, method: &str, path: &str) -> bool {
    rules.iter().any(|rule| {
        rule.service == service && rule.method.eq_ignore_ascii_case(method) && path_matches(&rule.path, path)
    })
}

fn path_matches(pattern: &str, path: &str) -> bool {
    fn go(pattern: &[&str], path: &[&str]) -> bool {
        match (pattern.split_first(), path.split_first()) {
            (None, None) => true,
            (Some((&"**", rest)), _) => (0..=path.len()).any(|n| go(rest, &path[n..])),
            (Some((p, rest)), Some((s, tail))) => {
                (*p == "*" || (p.starts_with('{') && p.ends_with('}')) || p == s) && go(rest, tail)
            }
            _ => false,
        }
    }
    let split = |s: &str| -> Vec<String> { s.trim_matches('/').split('/').take(32).map(str::to_owned).collect() };
    let (pattern, path) = (split(pattern), split(path));
    go(&pattern.iter().map(String::as_str).collect::<Vec<_>>(), &path.iter().map(String::as_str).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_rules_match_segments() {
        assert!(path_matches("/v2.1/servers/{server_id}", "/v2.1/servers/abc"));
        assert!(!path_matches("/v2.1/servers/{server_id}", "/v2.1/servers/abc/action"));
        assert!(path_matches("/v2.1/**", "/v2.1/servers/abc/action"));
        assert!(path_matches("/v2.1/*/detail", "/v2.1/servers/detail"));
        assert!(!path_matches("/v2.1/*", "/v3/servers"));
    }
}
