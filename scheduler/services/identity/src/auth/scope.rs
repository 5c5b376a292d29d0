//! What the token is to be for: asked for, or the user's default project, or nothing.
use super::methods::Proof;
use crate::{
    Identity, fault,
    tables::{Place, Project, Trust},
    token::TokenScope,
};
use pilvi_kit::{Fault, clock};
use serde_json::Value;
use std::sync::Arc;

/// The scope of a token to be, and the trust it is made from.
#[derive(Debug)]
pub(super) struct Wanted {
    pub scope: TokenScope,
    pub trust: Option<Trust>,
}

impl From<TokenScope> for Wanted {
    fn from(scope: TokenScope) -> Self {
        Wanted { scope, trust: None }
    }
}

const KINDS: [&str; 5] = ["project", "domain", "system", "unscoped", "OS-TRUST:trust"];

fn text<'v>(value: &'v Value, name: &str) -> Option<&'v str> {
    value.get(name).and_then(Value::as_str).filter(|t| !t.contains('\0'))
}

impl Identity {
    /// Reads `auth.scope` for the user that was proven.
    pub(super) async fn choose_scope(&self, proof: &Proof, scope: Option<&Value>) -> Result<Wanted, Fault> {
        if let Some(credential) = &proof.app_credential {
            if scope.is_some() {
                return Err(Fault::new(
                    401,
                    "Error authenticating with application credential: Application credentials cannot request a scope.",
                ));
            }
            return Ok(TokenScope::Project(credential.project_id.clone()).into());
        }
        if let Some(access) = &proof.access_token {
            return Ok(TokenScope::Project(access.project_id.clone()).into());
        }
        let Some(scope) = scope else {
            // Who comes from outside chooses among the projects he then sees.
            return match proof.federation {
                Some(_) => Ok(TokenScope::Unscoped.into()),
                None => self.default_scope(&proof.user_id).await,
            };
        };
        if scope.as_str() == Some("unscoped") {
            return Ok(TokenScope::Unscoped.into());
        }
        let named: Vec<&str> = KINDS.into_iter().filter(|k| scope.get(k).is_some()).collect();
        let [kind] = named.as_slice() else {
            return Err(fault::expecting("system, project, domain, OS-TRUST:trust or unscoped", "scope"));
        };
        let inner = &scope[*kind];
        self.check_rescope(proof, kind)?;
        match *kind {
            "unscoped" => Ok(TokenScope::Unscoped.into()),
            "system" => Ok(TokenScope::System.into()),
            "domain" => Ok(TokenScope::Domain(self.scope_domain(inner).await?.id.clone()).into()),
            "project" => Ok(TokenScope::Project(self.scope_project(inner).await?.id.clone()).into()),
            _ => self.scope_trust(proof, inner).await,
        }
    }

    fn check_rescope(&self, proof: &Proof, kind: &str) -> Result<(), Fault> {
        let from_system = proof.shown.as_ref().is_some_and(|s| s.token.scope == TokenScope::System);
        if from_system && matches!(kind, "project" | "domain") {
            return Err(Fault::forbidden(
                "You are not authorized to perform the requested action: Using a system-scoped token to create a project-scoped or domain-scoped token is not allowed.",
            ));
        }
        Ok(())
    }

    async fn scope_domain(&self, info: &Value) -> Result<Arc<Project>, Fault> {
        match self.named_domain(info).await?.filter(|d| d.enabled) {
            Some(domain) => Ok(domain),
            None => Err(fault::unauthorized()),
        }
    }

    async fn scope_project(&self, info: &Value) -> Result<Arc<Project>, Fault> {
        let found = if let Some(id) = text(info, "id") {
            self.directory.project(id).await?
        } else {
            let name = text(info, "name").ok_or_else(|| fault::expecting("id or name", "project"))?;
            let domain =
                self.scope_domain(info.get("domain").ok_or_else(|| fault::expecting("domain", "project"))?).await?;
            self.directory.project_named(&domain.id, name).await?
        };
        // A domain is not scoped to as a project.
        found.filter(|p| p.enabled && !p.is_domain).ok_or_else(fault::unauthorized)
    }

    async fn scope_trust(&self, proof: &Proof, info: &Value) -> Result<Wanted, Fault> {
        let id = text(info, "id").ok_or_else(|| fault::expecting("trust_id", "trust"))?;
        let gone = || fault::missing("trust", id);
        let trust =
            self.store.get::<Trust>(id).await?.map(|t| t.record).filter(|t| t.deleted_us.is_none()).ok_or_else(gone)?;
        if trust.expires_us.is_some_and(|at| at <= clock::now_us()) {
            return Err(gone());
        }
        if trust.remaining_uses == Some(0) {
            return Err(gone());
        }
        if trust.trustee_user_id != proof.user_id {
            return Err(Fault::forbidden("User is not a trustee."));
        }
        let scope = match &trust.project_id {
            Some(project) => TokenScope::Project(project.clone()),
            None => TokenScope::Unscoped,
        };
        Ok(Wanted { scope, trust: Some(trust) })
    }

    /// The user's default project, if he has one and a role in it.
    async fn default_scope(&self, user_id: &str) -> Result<Wanted, Fault> {
        let Some(user) = self.directory.user(user_id).await? else { return Err(fault::unauthorized()) };
        let Some(id) = &user.default_project_id else { return Ok(TokenScope::Unscoped.into()) };
        let Some(project) = self.directory.project(id).await?.filter(|p| p.enabled && !p.is_domain) else {
            return Ok(TokenScope::Unscoped.into());
        };
        let domain = self.directory.domain(project.domain_id.as_deref().unwrap_or_default()).await?;
        let graph = self.directory.role_graph().await?;
        let roles = self.directory.role_ids_at(user_id, &Place::Project(project.id.clone())).await?;
        if domain.is_none_or(|d| !d.enabled) || graph.shown(&roles).is_empty() {
            return Ok(TokenScope::Unscoped.into());
        }
        Ok(TokenScope::Project(project.id.clone()).into())
    }
}
