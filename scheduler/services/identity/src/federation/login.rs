//! From an assertion to a proof of who somebody is: is his provider trusted, what does the mapping make of
//! him, which user, groups and projects is that here?
//!
//! A mapping that makes nothing of somebody is 401 for him and a warning for the operator.
use super::{
    mapping::engine::{Assertion, DomainName, Mapped, MappedProject, MappedUser, apply},
    shadow::{Grant, Shadow},
};
use crate::{
    Identity,
    auth::Proof,
    directory::RoleGraph,
    fault,
    tables::{Federated, Group, IdentityProvider, Project, Protocol, Role},
    token::{Federation, payload::GROUPS_MAX},
};
use pilvi_kit::{Call, Fault};
use serde_json::Value;
use std::sync::Arc;

/// An assertion, and the attribute in which whoever made it says who he is.
#[derive(Debug)]
pub(super) struct Said {
    pub assertion: Assertion,
    pub remote_id: &'static str,
}

fn refuse<T>(why: &str) -> Result<T, Fault> {
    tracing::warn!(why, "login from outside refused");
    Err(fault::unauthorized())
}

impl Identity {
    /// `{"identity_provider", "protocol"}`: the assertion stands in the headers of `call`, or was brought before it.
    pub(crate) async fn by_assertion(&self, payload: &Value, call: &Call, proof: &mut Proof) -> Result<String, Fault> {
        let text =
            |name: &str| payload.get(name).and_then(Value::as_str).ok_or_else(|| fault::expecting(name, "mapped"));
        let (idp_id, protocol_id) = (text("identity_provider")?, text("protocol")?);
        self.trusted_provider(idp_id).await?;
        let said = match self.saml_session(call, idp_id).await? {
            Some(said) => said,
            None => self.openid_bearer(call, idp_id, protocol_id).await?,
        };
        self.by_word(idp_id, protocol_id, &said, proof).await
    }

    /// An identity provider that is registered and enabled.
    pub(super) async fn trusted_provider(&self, id: &str) -> Result<Arc<IdentityProvider>, Fault> {
        let found = self.directory.identity_provider(id).await?.ok_or_else(|| super::provider::missing(id))?;
        if !found.enabled {
            return Err(Fault::forbidden(format!("Identity Provider {id} is disabled")));
        }
        Ok(found)
    }

    /// What a provider said of somebody, taken for true; `proof` learns of provider, protocol and groups.
    pub(super) async fn by_word(
        &self,
        idp_id: &str,
        protocol_id: &str,
        said: &Said,
        proof: &mut Proof,
    ) -> Result<String, Fault> {
        let provider = self.trusted_provider(idp_id).await?;
        let protocol = self.protocol(idp_id, protocol_id).await?;
        check_remote_id(&provider, &protocol, said)?;
        let mapping = self.mapping(&protocol.mapping_id).await?;
        let mapped = match apply(&mapping, &said.assertion) {
            Ok(mapped) => mapped,
            Err(why) => return refuse(&format!("mapping {}: {why}", mapping.id)),
        };
        if mapped.user.local {
            return self.local_user(&mapped.user).await;
        }
        let group_ids = self.mapped_groups(&mapping.id, &mapped).await?;
        let shadow = self.plan(&provider, protocol_id, mapped, group_ids.clone()).await?;
        let user_id = self.store_shadow(shadow).await?;
        proof.federation =
            Some(Federation { idp_id: idp_id.to_owned(), protocol_id: protocol_id.to_owned(), group_ids });
        Ok(user_id)
    }

    /// The user of our own that a mapping names.
    async fn local_user(&self, user: &MappedUser) -> Result<String, Fault> {
        let found = match (&user.id, &user.name, &user.domain) {
            (Some(id), _, _) => self.directory.user(id).await?,
            (None, Some(name), Some(domain)) => match self.domain_of(domain).await? {
                Some(domain) => self.directory.user_named(&domain.id, name).await?,
                None => None,
            },
            _ => return refuse("a local user needs an id, or a name and a domain"),
        };
        let Some(found) = found else { return refuse("the mapping names a local user that does not exist") };
        if !self.usable(&found).await? {
            return refuse("the user or his domain is disabled");
        }
        Ok(found.id.clone())
    }

    async fn domain_of(&self, name: &DomainName) -> Result<Option<Arc<Project>>, Fault> {
        match name {
            DomainName::Id(id) => self.directory.domain(id).await,
            DomainName::Name(name) => self.directory.domain_named(name).await,
        }
    }

    /// Ids of the groups. One that is named by its id must exist; one that is named otherwise may not.
    async fn mapped_groups(&self, mapping_id: &str, mapped: &Mapped) -> Result<Vec<String>, Fault> {
        let mut out: Vec<String> = Vec::new();
        for id in &mapped.group_ids {
            if self.store.get::<Group>(id).await?.is_none() {
                return refuse(&format!("mapping {mapping_id} names the group {id}, which does not exist"));
            }
            out.push(id.clone());
        }
        for (name, domain) in &mapped.groups {
            let Some(domain) = self.domain_of(domain).await? else { continue };
            let found = self.store.list::<Group>(Group::named(&domain.id, name)).await?;
            match found.into_iter().next() {
                Some(group) if !out.contains(&group.id) => out.push(group.record.id),
                Some(_) => {}
                None => tracing::debug!(name, domain = domain.id, "a mapped group does not exist"),
            }
        }
        if out.len() > GROUPS_MAX {
            return Err(Fault::forbidden(format!("A user from outside can be in {GROUPS_MAX} groups at most.")));
        }
        Ok(out)
    }

    /// What is to be stored of somebody, with every name resolved.
    async fn plan(
        &self,
        provider: &IdentityProvider,
        protocol_id: &str,
        mapped: Mapped,
        group_ids: Vec<String>,
    ) -> Result<Shadow, Fault> {
        let MappedUser { id, name, email, domain, .. } = mapped.user;
        let Some(unique) = id.clone().or_else(|| name.clone()).filter(|t| !t.is_empty() && t.len() <= 255) else {
            return refuse("the mapping gives the user neither id nor name (of 1 to 255 bytes)");
        };
        let domain_id = match domain {
            None => provider.domain_id.clone(),
            Some(name) => match self.domain_of(&name).await? {
                Some(domain) => domain.id.clone(),
                None => return refuse("the mapping puts the user into a domain that does not exist"),
            },
        };
        let graph = self.directory.role_graph().await?;
        let mut grants = Vec::new();
        for project in mapped.projects {
            grants.push(self.grant(provider, &domain_id, &graph, project).await?);
        }
        let minutes = provider.authorization_ttl.unwrap_or(self.config.federation.authorization_ttl_minutes);
        let quoted = percent_encoding::utf8_percent_encode(&unique, QUOTED).to_string();
        Ok(Shadow {
            known_as: Federated { idp_id: provider.id.clone(), protocol_id: protocol_id.to_owned(), unique_id: quoted },
            name: name.filter(|n| !n.is_empty()).unwrap_or(unique),
            email,
            domain_id,
            group_ids,
            membership_us: minutes.saturating_mul(60_000_000),
            grants,
            only_these_projects: mapped.only_these_projects,
        })
    }

    async fn grant(
        &self,
        provider: &IdentityProvider,
        user_domain: &str,
        graph: &RoleGraph,
        project: MappedProject,
    ) -> Result<Grant, Fault> {
        let domain_id = match &project.domain {
            None => provider.domain_id.clone(),
            Some(name) => match self.domain_of(name).await? {
                Some(domain) => domain.id.clone(),
                None => return refuse(&format!("the domain of the project {} does not exist", project.name)),
            },
        };
        let mut role_ids = Vec::new();
        for name in &project.roles {
            let named = |r: &&Role| r.name == *name;
            let here = |r: &&Role| r.domain_id.as_deref().is_none_or(|d| d == user_domain);
            match graph.roles.values().filter(named).find(here) {
                Some(role) => role_ids.push(role.id.clone()),
                None if graph.roles.values().any(|r| r.name == *name) => {
                    return Err(Fault::forbidden(format!(
                        "role: {name} must be within the same domain as the identity provider: {}.",
                        provider.id
                    )));
                }
                None => return Err(fault::missing("role", name)),
            }
        }
        Ok(Grant { name: project.name, domain_id, role_ids })
    }
}

/// As Keystone keeps what a provider calls somebody: an address may hold it.
const QUOTED: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A provider with names of its own speaks under one of them.
fn check_remote_id(provider: &IdentityProvider, protocol: &Protocol, said: &Said) -> Result<(), Fault> {
    if provider.remote_ids.is_empty() {
        return Ok(());
    }
    let attribute = protocol.remote_id_attribute.as_deref().unwrap_or(said.remote_id);
    let Some(name) = said.assertion.first(attribute) else {
        return Err(Fault::bad_request(format!(
            "Could not find Identity Provider identifier in the assertion: it has no {attribute}."
        )));
    };
    if !provider.remote_ids.iter().any(|r| r == name) {
        return Err(Fault::forbidden(
            "Incoming identity provider identifier not included among the accepted identifiers.",
        ));
    }
    Ok(())
}
