//! From a token to what it stands for now: does everything it names still exist, is it enabled, and
//! which roles are left?
//!
//! Every refusal is told to the log alone; a client reads 401 or 404.
use super::{Token, TokenScope, fernet, jws, payload, revoke::Subject};
use crate::{
    Identity,
    config::TokenProvider,
    tables::{AccessRule, ApplicationCredential, OauthAccessToken, Place, Project, Trust, User},
};
use pilvi_kit::{
    Fault, Scope,
    auth::{self, Caller},
    clock,
};
use std::{collections::HashSet, sync::Arc};

/// Longest text that can be a token.
const TOKEN_MAX: usize = 4096;
/// Trusts made from trusts that are followed.
const TRUST_CHAIN_MAX: usize = 16;

/// A token with all it names, found good.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    pub token: Token,
    /// Who holds it.
    pub user: Arc<User>,
    pub user_domain: Arc<Project>,
    pub place: ResolvedPlace,
    /// (id, name), by name.
    pub roles: Vec<(String, String)>,
    pub app_credential: Option<(Arc<ApplicationCredential>, Option<Vec<AccessRule>>)>,
    pub trust: Option<ResolvedTrust>,
    pub access_token: Option<Arc<OauthAccessToken>>,
    /// Until when the roles are known to hold; after that they are looked up again.
    pub until_us: i64,
}

#[derive(Debug, Clone)]
pub(crate) struct ResolvedTrust {
    pub trust: Trust,
    pub trustor: Arc<User>,
    pub trustor_domain: Arc<Project>,
    /// Whose roles are handed on: the trustor of the first trust of the chain.
    pub owner: String,
}

#[derive(Debug, Clone)]
pub(crate) enum ResolvedPlace {
    Unscoped,
    Project { project: Arc<Project>, domain: Arc<Project> },
    Domain(Arc<Project>),
    System,
}

/// Why a token is not accepted.
#[derive(Debug)]
pub(crate) enum Refused {
    /// For the log.
    Because(String),
    /// What it names exists no more or may not be used so: with the fault that tells it at issue.
    Fault(Fault),
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Refused::Fault(fault)
    }
}

fn because<T>(text: impl Into<String>) -> Result<T, Refused> {
    Err(Refused::Because(text.into()))
}

impl Resolved {
    /// The user that rules and services see: the trustor, where the trust impersonates.
    pub fn acting(&self) -> (&Arc<User>, &Arc<Project>) {
        match &self.trust {
            Some(t) if t.trust.impersonation => (&t.trustor, &t.trustor_domain),
            _ => (&self.user, &self.user_domain),
        }
    }

    pub fn scope(&self) -> Scope {
        match &self.place {
            ResolvedPlace::Unscoped => Scope::Unscoped,
            ResolvedPlace::System => Scope::System,
            ResolvedPlace::Domain(d) => Scope::Domain { id: d.id.clone(), name: d.name.clone() },
            ResolvedPlace::Project { project, domain } => Scope::Project {
                id: project.id.clone(),
                name: project.name.clone(),
                domain_id: domain.id.clone(),
                domain_name: domain.name.clone(),
            },
        }
    }

    pub fn project_id(&self) -> Option<&str> {
        match &self.place {
            ResolvedPlace::Project { project, .. } => Some(&project.id),
            _ => None,
        }
    }

    pub fn caller(&self) -> Caller {
        let (user, domain) = self.acting();
        let rules = self.app_credential.as_ref().and_then(|(_, rules)| rules.as_ref());
        Caller {
            user_id: user.id.clone(),
            user_name: user.name.clone(),
            user_domain_id: domain.id.clone(),
            user_domain_name: domain.name.clone(),
            scope: self.scope(),
            roles: self.roles.clone(),
            methods: self.token.methods.iter().map(|m| m.name().to_owned()).collect(),
            audit_ids: self.token.audit_ids.clone(),
            issued_us: self.token.issued_us,
            expires_us: self.token.expires_us,
            application_credential_id: self.token.app_credential_id.clone(),
            unrestricted: self.app_credential.as_ref().is_some_and(|(c, _)| c.unrestricted),
            access_rules: rules.map(|rules| {
                let rule = |r: &AccessRule| auth::AccessRule {
                    service: r.service.clone(),
                    method: r.method.clone(),
                    path: r.path.clone(),
                };
                rules.iter().map(rule).collect()
            }),
            trust_id: self.token.trust_id.clone(),
            trustor_user_id: self.trust.as_ref().map(|t| t.trust.trustor_user_id.clone()),
            trustee_user_id: self.trust.as_ref().map(|t| t.trust.trustee_user_id.clone()),
            service_roles: Vec::new(),
            certificate_thumbprint: self.token.thumbprint.clone(),
        }
    }

    fn subject(&self) -> Subject<'_> {
        let scope_domain = match &self.place {
            ResolvedPlace::Domain(d) => Some(d.id.as_str()),
            ResolvedPlace::Project { domain, .. } => Some(domain.id.as_str()),
            _ => None,
        };
        Subject {
            audit_id: self.token.audit_id(),
            chain_id: self.token.chain_id(),
            user_ids: [Some(&self.user.id), self.trust.as_ref().map(|t| t.trustor.id.as_str())],
            project_id: self.project_id(),
            domain_ids: [Some(&self.user_domain.id), scope_domain],
            trust_id: self.token.trust_id.as_deref(),
            app_credential_id: self.token.app_credential_id.as_deref(),
            issued_us: self.token.issued_us,
        }
    }
}

impl Identity {
    /// The token in `text`, if it is one of ours; neither its end nor anything it names is looked at.
    pub(crate) fn read_token(&self, text: &str) -> Option<Token> {
        if text.len() > TOKEN_MAX {
            return None;
        }
        if text.contains('.') {
            return jws::read(self.jws_keys.as_ref()?, text);
        }
        let (content, seconds) = fernet::open(&self.fernet_keys.ring(), text)?;
        payload::decode(&content, seconds)
    }

    /// The text of a token.
    pub(crate) fn write_token(&self, token: &Token) -> Result<String, Fault> {
        let text = match (self.config.token_provider, &self.jws_keys) {
            (TokenProvider::Jws, Some(keys)) => jws::write(keys, token),
            (TokenProvider::Jws, None) => None,
            (TokenProvider::Fernet, _) => {
                let seconds = u64::try_from(token.issued_us / 1_000_000).unwrap_or_default();
                Some(fernet::seal(&self.fernet_keys.ring(), &payload::encode(token), seconds))
            }
        };
        text.filter(|t| !t.is_empty()).ok_or_else(|| Fault::internal("there is no key to make tokens with"))
    }

    /// What the token in `text` stands for now; `grace_us` after its end are allowed.
    pub(crate) async fn validate(&self, text: &str, grace_us: i64) -> Result<Arc<Resolved>, Refused> {
        let Some(token) = self.read_token(text) else { return because("not a token of ours") };
        if token.expires_us.saturating_add(grace_us) <= clock::now_us() {
            return because("expired");
        }
        let key = (self.directory.epoch(), token.audit_id().to_owned());
        if let Some(hit) = self.resolved.get(&key)
            && hit.token == token
            && hit.until_us > clock::now_us()
        {
            return Ok(hit);
        }
        let resolved = self.resolve(token).await?;
        if self.revocations.is_revoked(&resolved.subject()) {
            return because("revoked");
        }
        let resolved = Arc::new(resolved);
        self.resolved.insert(key, resolved.clone());
        Ok(resolved)
    }

    /// Finds all that a token names, and the roles that are left of it.
    pub(crate) async fn resolve(&self, token: Token) -> Result<Resolved, Refused> {
        let (user, user_domain) = self.enabled_user(&token.user_id).await?;
        let place = self.resolve_place(&token.scope).await?;
        let trust = self.resolve_trust(&token).await?;
        let app_credential = self.resolve_app_credential(&token).await?;
        let access_token = self.resolve_access_token(&token).await?;
        self.check_provider(&token).await?;
        let mut resolved = Resolved {
            token,
            user,
            user_domain,
            place,
            roles: Vec::new(),
            app_credential,
            trust,
            access_token,
            until_us: i64::MAX,
        };
        (resolved.roles, resolved.until_us) = self.roles_of(&resolved).await?;
        Ok(resolved)
    }

    pub(crate) async fn enabled_user(&self, id: &str) -> Result<(Arc<User>, Arc<Project>), Refused> {
        let Some(user) = self.directory.user(id).await? else { return because(format!("user {id} is gone")) };
        if !user.enabled || self.is_inactive(&user).await? {
            return because(format!("user {id} is disabled"));
        }
        let Some(domain) = self.directory.domain(&user.domain_id).await?.filter(|d| d.enabled) else {
            return because(format!("domain {} of user {id} is gone or disabled", user.domain_id));
        };
        Ok((user, domain))
    }

    async fn resolve_place(&self, scope: &TokenScope) -> Result<ResolvedPlace, Refused> {
        match scope {
            TokenScope::Unscoped => Ok(ResolvedPlace::Unscoped),
            TokenScope::System => Ok(ResolvedPlace::System),
            TokenScope::Domain(id) => match self.directory.domain(id).await?.filter(|d| d.enabled) {
                Some(domain) => Ok(ResolvedPlace::Domain(domain)),
                None => because(format!("domain {id} is gone or disabled")),
            },
            TokenScope::Project(id) => {
                let Some(project) = self.directory.project(id).await?.filter(|p| p.enabled) else {
                    return because(format!("project {id} is gone or disabled"));
                };
                let domain_id = project.domain_id.clone().unwrap_or_else(|| project.id.clone());
                match self.directory.domain(&domain_id).await?.filter(|d| d.enabled) {
                    Some(domain) => Ok(ResolvedPlace::Project { project, domain }),
                    None => because(format!("domain {domain_id} is gone or disabled")),
                }
            }
        }
    }

    /// A trust that is neither deleted nor over.
    async fn living_trust(&self, id: &str) -> Result<Trust, Refused> {
        let found = self.store.get::<Trust>(id).await.map_err(Fault::from)?;
        let Some(trust) = found.map(|t| t.record).filter(|t| t.deleted_us.is_none()) else {
            return because(format!("trust {id} is gone"));
        };
        if trust.expires_us.is_some_and(|at| at <= clock::now_us()) {
            return because(format!("trust {id} ran out"));
        }
        Ok(trust)
    }

    async fn resolve_trust(&self, token: &Token) -> Result<Option<ResolvedTrust>, Refused> {
        let Some(id) = &token.trust_id else { return Ok(None) };
        let trust = self.living_trust(id).await?;
        if trust.trustee_user_id != token.user_id {
            return because("not the trustee");
        }
        let (trustor, trustor_domain) = self.enabled_user(&trust.trustor_user_id).await?;
        // Every trust that this one was made from must live, and its trustor too.
        let (mut owner, mut above) = (trustor.id.clone(), trust.redelegated_trust_id.clone());
        for _ in 0..TRUST_CHAIN_MAX {
            let Some(id) = above else { break };
            let parent = self.living_trust(&id).await?;
            owner = self.enabled_user(&parent.trustor_user_id).await?.0.id.clone();
            above = parent.redelegated_trust_id;
        }
        Ok(Some(ResolvedTrust { trust, trustor, trustor_domain, owner }))
    }

    async fn resolve_app_credential(
        &self,
        token: &Token,
    ) -> Result<Option<(Arc<ApplicationCredential>, Option<Vec<AccessRule>>)>, Refused> {
        let Some(id) = &token.app_credential_id else { return Ok(None) };
        let Some(found) = self.store.get::<ApplicationCredential>(id).await.map_err(Fault::from)? else {
            return because(format!("application credential {id} is gone"));
        };
        let credential = Arc::new(found.record);
        if credential.expires_us.is_some_and(|at| at <= clock::now_us()) {
            return because(format!("application credential {id} ran out"));
        }
        let rules = match &credential.access_rules {
            None => None,
            Some(ids) => {
                let mut rules = Vec::with_capacity(ids.len());
                for rule in ids {
                    // A rule that is gone allows nothing.
                    rules.extend(self.store.get::<AccessRule>(rule).await.map_err(Fault::from)?.map(|r| r.record));
                }
                Some(rules)
            }
        };
        Ok(Some((credential, rules)))
    }

    /// An OAuth 1 access token that is neither deleted nor over.
    async fn resolve_access_token(&self, token: &Token) -> Result<Option<Arc<OauthAccessToken>>, Refused> {
        let Some(id) = &token.access_token_id else { return Ok(None) };
        let found = self.store.get::<OauthAccessToken>(id).await.map_err(Fault::from)?;
        let Some(access) = found.map(|t| t.record).filter(|t| t.user_id == token.user_id) else {
            return because(format!("access token {id} is gone"));
        };
        if access.expires_us.is_some_and(|at| at <= clock::now_us()) {
            return because(format!("access token {id} ran out"));
        }
        Ok(Some(Arc::new(access)))
    }

    /// Whoever vouched for the user must still be trusted.
    async fn check_provider(&self, token: &Token) -> Result<(), Refused> {
        let Some(federation) = &token.federation else { return Ok(()) };
        match self.directory.identity_provider(&federation.idp_id).await? {
            Some(provider) if provider.enabled => Ok(()),
            _ => because(format!("identity provider {} is gone or disabled", federation.idp_id)),
        }
    }

    /// The roles a token carries: what its user has there now, cut to what a trust, a credential or an access
    /// token gives; and until when that is known.
    async fn roles_of(&self, resolved: &Resolved) -> Result<(Vec<(String, String)>, i64), Refused> {
        let place = match &resolved.token.scope {
            TokenScope::Unscoped => return Ok((Vec::new(), i64::MAX)),
            TokenScope::Project(id) => Place::Project(id.clone()),
            TokenScope::Domain(id) => Place::Domain(id.clone()),
            TokenScope::System => Place::System,
        };
        let owner = resolved.trust.as_ref().map_or(&resolved.user.id, |t| &t.owner);
        let named = resolved.token.federation.as_ref().map_or(&[][..], |f| &f.group_ids);
        let held = self.directory.held_at(owner, named, &place).await?;
        let graph = self.directory.role_graph().await?;
        let cut = |roles: &[String]| -> HashSet<String> {
            graph.expand(roles.iter().map(String::as_str)).intersection(&held.roles).cloned().collect()
        };
        let given: HashSet<String> = if let Some(trust) = &resolved.trust {
            if let Some(lost) = trust.trust.roles.iter().find(|id| !held.roles.contains(*id)) {
                return because(format!("the trustor has role {lost} no more"));
            }
            graph.expand(trust.trust.roles.iter().map(String::as_str))
        } else if let Some((credential, _)) = &resolved.app_credential {
            cut(&credential.roles)
        } else if let Some(access) = &resolved.access_token {
            cut(&access.roles)
        } else {
            held.roles
        };
        let shown = graph.shown(&given);
        if shown.is_empty() {
            return because(format!("user {owner} has no role at {place:?}"));
        }
        Ok((shown, held.until_us))
    }
}
