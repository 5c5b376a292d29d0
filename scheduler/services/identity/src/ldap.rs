//! Domains whose users and groups are kept in a directory (LDAP), read and never written.
//!
//! ```text
//!  domain configuration: identity.driver = ldap -> settings (checked) -> Remote (two pools of connections)
//!  user of a token -> IdMapping (id here -> domain, id there) -> search -> entry -> User, kept for a minute
//!  password        -> bind as the user's entry
//!  groups          -> search by member -> ids here -> role assignments
//! ```
//! Ids are those that Keystone gives: a hash of domain, kind and the id in the directory. They are stable, and
//! the mapping back is a record, made when somebody is first seen. What was found is kept for [`KEPT`], so
//! that much later at the latest a change in the directory holds here.
mod entry;
mod people;
mod pool;
mod settings;

use crate::{
    directory::Directory,
    tables::{DomainConfig, Extra, Group, IdMapping, Source, User},
};
use entry::Entry;
use moka::sync::Cache;
use parking_lot::RwLock;
use people::Remote;
use pilvi_kit::Fault;
use pilvi_store::{Query, Store};
use pool::Failure;
use sha2::{Digest, Sha256};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

/// How long what a directory said is believed.
pub(crate) const KEPT: Duration = Duration::from_secs(60);
const ENTRIES: u64 = 10_000;
/// Mappings that are looked up at once.
const BATCH: usize = 400;

/// The directories of all domains that have one.
pub(crate) struct Remotes {
    store: Store,
    /// (generation, domain) -> its configuration, where that names a directory
    configs: Cache<(u64, String), Arc<Option<Extra>>>,
    open: RwLock<HashMap<String, Opened>>,
    users: Cache<String, Arc<(User, Entry)>>,
    groups: Cache<String, Arc<(Group, Entry)>>,
    groups_of: Cache<String, Arc<Vec<String>>>,
}

/// A directory as some configuration describes it.
struct Opened {
    config: Extra,
    remote: Arc<Remote>,
}

/// 403 for whoever wants to change what a directory keeps.
pub(crate) fn read_only() -> Fault {
    Fault::forbidden("LDAP does not support write operations")
}

/// 403 unless it is kept here.
pub(crate) fn writable(source: &Source) -> Result<(), Fault> {
    match source {
        Source::Own => Ok(()),
        Source::Directory { .. } => Err(read_only()),
    }
}

fn unreachable(domain: &str, failure: &Failure) -> Fault {
    tracing::warn!(domain, %failure, "the directory of a domain does not answer");
    let mut fault = Fault::unavailable(format!("The directory of domain {domain} cannot be read now."));
    fault.cause = Some(failure.to_string());
    fault
}

fn is_ldap(config: &Extra) -> bool {
    config.get("identity").and_then(|i| i.get("driver")).and_then(serde_json::Value::as_str) == Some("ldap")
}

/// The id here of what a directory calls `local_id`.
fn public_id(domain: &str, entity: &str, local_id: &str) -> String {
    let mut hash = Sha256::new();
    [domain, entity, local_id].iter().for_each(|part| hash.update(part.as_bytes()));
    hex::encode(hash.finalize())
}

fn kept<T: Send + Sync + 'static>() -> Cache<String, Arc<T>> {
    Cache::builder().max_capacity(ENTRIES).time_to_live(KEPT).build()
}

impl Remotes {
    pub fn new(store: Store) -> Self {
        Remotes {
            store,
            configs: Cache::builder().max_capacity(1000).build(),
            open: RwLock::default(),
            users: kept(),
            groups: kept(),
            groups_of: kept(),
        }
    }

    /// The directory of a domain, if it has one. `generation` counts changes of configurations.
    async fn of(&self, generation: u64, domain: &str) -> Result<Option<Arc<Remote>>, Fault> {
        let key = (generation, domain.to_owned());
        let config = match self.configs.get(&key) {
            Some(hit) => hit,
            None => {
                let found = self.store.get::<DomainConfig>(domain).await?.map(|c| c.record.groups).filter(is_ldap);
                let found = Arc::new(found);
                self.configs.insert(key, found.clone());
                found
            }
        };
        let Some(config) = config.as_ref() else { return Ok(None) };
        if let Some(known) = self.open.read().get(domain).filter(|o| o.config == *config) {
            return Ok(Some(known.remote.clone()));
        }
        let remote = Arc::new(Remote::new(config).map_err(|failure| unreachable(domain, &failure))?);
        self.open.write().insert(domain.to_owned(), Opened { config: config.clone(), remote: remote.clone() });
        Ok(Some(remote))
    }

    /// The ids here of what a directory calls `local`, each remembered.
    async fn ids(&self, domain: &str, entity: &str, local: &[String]) -> Result<Vec<String>, Fault> {
        let ids: Vec<String> = local.iter().map(|l| public_id(domain, entity, l)).collect();
        for (ids, local) in ids.chunks(BATCH).zip(local.chunks(BATCH)) {
            let known = self.store.list::<IdMapping>(Query::all().ids(ids.iter().cloned())).await?;
            let known: HashSet<&str> = known.iter().map(|m| m.id.as_str()).collect();
            let new: Vec<IdMapping> = ids
                .iter()
                .zip(local)
                .filter(|(id, _)| !known.contains(id.as_str()))
                .map(|(id, local)| IdMapping {
                    id: id.clone(),
                    domain_id: domain.to_owned(),
                    local_id: local.clone(),
                    entity: entity.to_owned(),
                })
                .collect();
            if !new.is_empty() {
                self.remember(new).await?;
            }
        }
        Ok(ids)
    }

    async fn remember(&self, new: Vec<IdMapping>) -> Result<(), Fault> {
        self.store
            .write(move |tx| {
                let new = new.clone();
                Box::pin(async move {
                    for mapping in &new {
                        if tx.get::<IdMapping>(&mapping.id).await?.is_none() {
                            tx.insert(mapping).await?;
                        }
                    }
                    Ok::<(), Fault>(())
                })
            })
            .await
    }

    /// Entries as users of a domain, kept for a while.
    async fn as_users(
        &self,
        domain: &str,
        remote: &Remote,
        entries: Vec<Entry>,
    ) -> Result<Vec<Arc<(User, Entry)>>, Fault> {
        let enabled = remote.enabled(&entries).await.map_err(|f| unreachable(domain, &f))?;
        let s = &remote.settings;
        let (local, entries): (Vec<String>, Vec<Entry>) =
            entries.into_iter().filter_map(|e| Some((e.first(&s.users.id)?.to_owned(), e))).unzip();
        let ids = self.ids(domain, USER, &local).await?;
        let mut out = Vec::with_capacity(ids.len());
        for (id, entry) in ids.into_iter().zip(entries) {
            let Some(user) = s.user(&entry, id.clone(), domain, enabled.contains(&entry.dn)) else { continue };
            let found = Arc::new((user, entry));
            self.users.insert(id, found.clone());
            out.push(found);
        }
        Ok(out)
    }

    async fn as_groups(
        &self,
        domain: &str,
        remote: &Remote,
        entries: Vec<Entry>,
    ) -> Result<Vec<Arc<(Group, Entry)>>, Fault> {
        let s = &remote.settings;
        let (local, entries): (Vec<String>, Vec<Entry>) =
            entries.into_iter().filter_map(|e| Some((e.first(&s.groups.id)?.to_owned(), e))).unzip();
        let ids = self.ids(domain, GROUP, &local).await?;
        let mut out = Vec::with_capacity(ids.len());
        for (id, entry) in ids.into_iter().zip(entries) {
            let Some(group) = s.group(&entry, id.clone(), domain) else { continue };
            let found = Arc::new((group, entry));
            self.groups.insert(id, found.clone());
            out.push(found);
        }
        Ok(out)
    }
}

const USER: &str = "user";
const GROUP: &str = "group";

impl Directory {
    async fn remote_of(&self, domain: &str) -> Result<Option<Arc<Remote>>, Fault> {
        self.remotes.of(self.people_generation(), domain).await
    }

    /// Are a domain's users kept in a directory?
    pub async fn is_remote(&self, domain: &str) -> Result<bool, Fault> {
        Ok(self.remote_of(domain).await?.is_some())
    }

    /// 403 if they are.
    pub async fn refuse_remote(&self, domain: &str) -> Result<(), Fault> {
        if self.is_remote(domain).await? { Err(read_only()) } else { Ok(()) }
    }

    /// What an id stands for in a directory.
    async fn mapped(&self, id: &str, entity: &str) -> Result<Option<(IdMapping, Arc<Remote>)>, Fault> {
        // Ids of directories are hashes; no other can be one.
        if id.len() != 64 {
            return Ok(None);
        }
        let Some(mapping) = self.remotes.store.get::<IdMapping>(id).await?.filter(|m| m.entity == entity) else {
            return Ok(None);
        };
        Ok(self.remote_of(&mapping.domain_id).await?.map(|remote| (mapping.record, remote)))
    }

    async fn remote_entry(&self, id: &str) -> Result<Option<Arc<(User, Entry)>>, Fault> {
        let Some((mapping, remote)) = self.mapped(id, USER).await? else { return Ok(None) };
        if let Some(hit) = self.remotes.users.get(id) {
            return Ok(Some(hit));
        }
        let domain = &mapping.domain_id;
        let entry = remote.user(&mapping.local_id).await.map_err(|f| unreachable(domain, &f))?;
        Ok(self.remotes.as_users(domain, &remote, entry.into_iter().collect()).await?.into_iter().next())
    }

    pub(crate) async fn remote_user(&self, id: &str) -> Result<Option<Arc<User>>, Fault> {
        Ok(self.remote_entry(id).await?.map(|found| Arc::new(found.0.clone())))
    }

    /// `None`: the domain has no directory.
    pub(crate) async fn remote_user_named(&self, domain: &str, name: &str) -> Result<Option<Option<Arc<User>>>, Fault> {
        let Some(remote) = self.remote_of(domain).await? else { return Ok(None) };
        let entry = remote.user_named(name).await.map_err(|f| unreachable(domain, &f))?;
        let found = self.remotes.as_users(domain, &remote, entry.into_iter().collect()).await?.into_iter().next();
        Ok(Some(found.map(|found| Arc::new(found.0.clone()))))
    }

    /// All users of a domain's directory (with that name); `None` if it has none.
    pub async fn remote_users(&self, domain: &str, name: Option<&str>) -> Result<Option<Vec<User>>, Fault> {
        let Some(remote) = self.remote_of(domain).await? else { return Ok(None) };
        let entries = remote.users(name).await.map_err(|f| unreachable(domain, &f))?;
        let found = self.remotes.as_users(domain, &remote, entries).await?;
        Ok(Some(found.iter().map(|f| f.0.clone()).collect()))
    }

    async fn remote_group_entry(&self, id: &str) -> Result<Option<(Arc<(Group, Entry)>, Arc<Remote>)>, Fault> {
        let Some((mapping, remote)) = self.mapped(id, GROUP).await? else { return Ok(None) };
        if let Some(hit) = self.remotes.groups.get(id) {
            return Ok(Some((hit, remote)));
        }
        let domain = &mapping.domain_id;
        let entry = remote.group(&mapping.local_id).await.map_err(|f| unreachable(domain, &f))?;
        let found = self.remotes.as_groups(domain, &remote, entry.into_iter().collect()).await?.into_iter().next();
        Ok(found.map(|f| (f, remote)))
    }

    /// A group, wherever it is kept.
    pub async fn group(&self, id: &str) -> Result<Option<Group>, Fault> {
        if let Some(own) = self.remotes.store.get::<Group>(id).await? {
            return Ok(Some(own.record));
        }
        Ok(self.remote_group_entry(id).await?.map(|(found, _)| found.0.clone()))
    }

    pub async fn remote_groups(&self, domain: &str, name: Option<&str>) -> Result<Option<Vec<Group>>, Fault> {
        let Some(remote) = self.remote_of(domain).await? else { return Ok(None) };
        let entries = remote.groups(name).await.map_err(|f| unreachable(domain, &f))?;
        let found = self.remotes.as_groups(domain, &remote, entries).await?;
        Ok(Some(found.iter().map(|f| f.0.clone()).collect()))
    }

    /// Ids of the groups in which a directory has a user.
    pub(crate) async fn remote_groups_of(&self, user_id: &str) -> Result<Vec<String>, Fault> {
        let Some(found) = self.remote_entry(user_id).await? else { return Ok(Vec::new()) };
        if let Some(hit) = self.remotes.groups_of.get(user_id) {
            return Ok(hit.as_ref().clone());
        }
        let (user, entry) = found.as_ref();
        let Some(remote) = self.remote_of(&user.domain_id).await? else { return Ok(Vec::new()) };
        let entries = remote.groups_of(entry).await.map_err(|f| unreachable(&user.domain_id, &f))?;
        let groups = self.remotes.as_groups(&user.domain_id, &remote, entries).await?;
        let ids: Vec<String> = groups.iter().map(|g| g.0.id.clone()).collect();
        self.remotes.groups_of.insert(user_id.to_owned(), Arc::new(ids.clone()));
        Ok(ids)
    }

    /// The users whom a directory has in a group.
    pub async fn remote_members(&self, group_id: &str) -> Result<Vec<User>, Fault> {
        let Some((found, remote)) = self.remote_group_entry(group_id).await? else { return Ok(Vec::new()) };
        let domain = &found.0.domain_id;
        let entries = remote.members(&found.1).await.map_err(|f| unreachable(domain, &f))?;
        let users = self.remotes.as_users(domain, &remote, entries).await?;
        Ok(users.iter().map(|u| u.0.clone()).collect())
    }

    /// Is it the password of a user whom a directory keeps as `dn`?
    pub(crate) async fn is_remote_password(&self, domain: &str, dn: &str, password: &str) -> Result<bool, Fault> {
        let Some(remote) = self.remote_of(domain).await? else { return Ok(false) };
        remote.is_password(dn, password).await.map_err(|f| unreachable(domain, &f))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `keystone.identity.id_generators.sha256` gives for the same.
    #[test]
    fn ids_are_keystones() {
        let id = public_id("default", "user", "ann");
        assert_eq!(id, "a2d27fc74a2f61b3a64815e71dad383e0c9e2d6e5678a4a385ed076e6d0041d8");
    }
}
