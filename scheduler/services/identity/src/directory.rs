//! Who and what there is, read through caches that a write empties.
//!
//! Cache keys hold a generation. A write bumps it after the commit, so what was read before can never be
//! found again, however the reads and the write interleave: a reader that started under the old generation
//! fills an entry nobody asks for any more. Other schedulers' writes bump through the change feed.
use crate::catalog;
use crate::ldap::Remotes;
use crate::tables::{
    Actor, Assignment, Endpoint, EndpointGroup, EndpointLink, ExpiringMembership, IdentityProvider, Inference,
    Membership, Place, Project, Role, Service, ServiceProvider, User,
};
use moka::sync::Cache;
use pilvi_kit::{Fault, clock};
use pilvi_store::{Query, Record, Store};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// What a write may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Area {
    /// Users, groups, places, assignments, revocation.
    People,
    /// Roles and what they imply.
    Roles,
    /// Regions, services, endpoints.
    Catalog,
    /// Nothing that is cached.
    Quiet,
}

type Generations<T> = Cache<(u64, String), Arc<T>>;

/// Catalogues kept as text, a few KiB each: one for all, unless addresses name projects or users.
const SHOWN_CATALOGS: u64 = 1000;
/// Longest chain of projects that is followed.
const DEPTH_MAX: usize = 64;

pub(crate) struct Directory {
    store: Store,
    pub(crate) remotes: Remotes,
    people: AtomicU64,
    roles: AtomicU64,
    catalog: AtomicU64,
    users: Generations<User>,
    projects: Generations<Project>,
    groups_of: Generations<Vec<InGroup>>,
    providers: Generations<IdentityProvider>,
    assignments_of: Generations<Vec<Assignment>>,
    graphs: Generations<RoleGraph>,
    catalogs: Generations<CatalogRecords>,
}

/// A group that a user is in, and until when.
#[derive(Debug)]
struct InGroup {
    id: String,
    until_us: i64,
}

/// The roles of somebody at a place.
#[derive(Debug)]
pub(crate) struct Held {
    pub roles: HashSet<String>,
    /// When a membership that may matter ends.
    pub until_us: i64,
}

/// All roles and what they imply.
#[derive(Debug, Default)]
pub(crate) struct RoleGraph {
    pub roles: BTreeMap<String, Role>,
    /// prior -> implied
    pub implies: HashMap<String, Vec<String>>,
}

impl RoleGraph {
    /// `ids` and all they imply.
    pub fn expand<'a>(&self, ids: impl IntoIterator<Item = &'a str>) -> HashSet<String> {
        let mut todo: Vec<String> = ids.into_iter().map(str::to_owned).collect();
        let mut seen = HashSet::new();
        while let Some(id) = todo.pop() {
            if seen.insert(id.clone()) {
                todo.extend(self.implies.get(&id).into_iter().flatten().cloned());
            }
        }
        seen
    }

    /// What a token may show of `ids`: roles that exist and belong to no domain, as (id, name), by name.
    pub fn shown(&self, ids: &HashSet<String>) -> Vec<(String, String)> {
        let mut out: Vec<_> = ids
            .iter()
            .filter_map(|id| self.roles.get(id))
            .filter(|r| r.domain_id.is_none())
            .map(|r| (r.id.clone(), r.name.clone()))
            .collect();
        out.sort_by(|a, b| a.1.cmp(&b.1));
        out
    }
}

/// Everything the catalogue is made of.
#[derive(Debug)]
pub(crate) struct CatalogRecords {
    pub services: Vec<Service>,
    pub endpoints: Vec<Endpoint>,
    pub groups: Vec<EndpointGroup>,
    pub links: Vec<EndpointLink>,
    /// Enabled ones.
    pub service_providers: Vec<ServiceProvider>,
    /// Whom the addresses of `endpoints` name.
    pub named: catalog::Named,
    /// What was made of it, by what differs between its readers.
    pub shown: Cache<catalog::Reader, Arc<str>>,
}

fn cache<T: Send + Sync + 'static>(entries: u64) -> Generations<T> {
    Cache::builder().max_capacity(entries).build()
}

impl Directory {
    pub fn new(store: Store) -> Self {
        Directory {
            remotes: Remotes::new(store.clone()),
            store,
            people: AtomicU64::new(1),
            roles: AtomicU64::new(1),
            catalog: AtomicU64::new(1),
            users: cache(10_000),
            projects: cache(10_000),
            groups_of: cache(10_000),
            providers: cache(1_000),
            assignments_of: cache(10_000),
            graphs: cache(4),
            catalogs: cache(4),
        }
    }

    /// Grows when a token that was good may have become bad, or may carry other roles.
    pub fn epoch(&self) -> u64 {
        self.people.load(Ordering::Acquire) + self.roles.load(Ordering::Acquire)
    }
    /// Grows whenever people, places or their configuration may have changed.
    pub fn people_generation(&self) -> u64 {
        self.people.load(Ordering::Acquire)
    }
    pub fn catalog_generation(&self) -> u64 {
        self.catalog.load(Ordering::Acquire)
    }

    /// Forgets what a write may have changed. Call it after the commit and before the answer.
    pub fn changed(&self, area: Area) {
        let counter = match area {
            Area::People => &self.people,
            Area::Roles => &self.roles,
            Area::Catalog => &self.catalog,
            Area::Quiet => return,
        };
        counter.fetch_add(1, Ordering::AcqRel);
    }

    async fn record<R: Record>(&self, cache: &Generations<R>, id: &str) -> Result<Option<Arc<R>>, Fault> {
        let key = (self.people.load(Ordering::Acquire), id.to_owned());
        if let Some(hit) = cache.get(&key) {
            return Ok(Some(hit));
        }
        let Some(stored) = self.store.get::<R>(id).await? else { return Ok(None) };
        let found = Arc::new(stored.record);
        cache.insert(key, found.clone());
        Ok(Some(found))
    }

    pub async fn user(&self, id: &str) -> Result<Option<Arc<User>>, Fault> {
        match self.record(&self.users, id).await? {
            Some(own) => Ok(Some(own)),
            None => self.remote_user(id).await,
        }
    }
    /// A project or a domain.
    pub async fn project(&self, id: &str) -> Result<Option<Arc<Project>>, Fault> {
        self.record(&self.projects, id).await
    }
    pub async fn domain(&self, id: &str) -> Result<Option<Arc<Project>>, Fault> {
        Ok(self.project(id).await?.filter(|p| p.is_domain))
    }
    pub async fn user_named(&self, domain_id: &str, name: &str) -> Result<Option<Arc<User>>, Fault> {
        if let Some(found) = self.remote_user_named(domain_id, name).await? {
            return Ok(found);
        }
        let found = self.store.list::<User>(User::named(domain_id, name)).await?;
        // A shadow's name is for show.
        Ok(found.into_iter().find(|s| !s.shadow).map(|s| Arc::new(s.record)))
    }
    pub async fn project_named(&self, domain_id: &str, name: &str) -> Result<Option<Arc<Project>>, Fault> {
        let found = self.store.list::<Project>(Project::named(domain_id, name)).await?;
        Ok(found.into_iter().next().map(|s| Arc::new(s.record)))
    }
    pub async fn domain_named(&self, name: &str) -> Result<Option<Arc<Project>>, Fault> {
        let found = self.store.list::<Project>(Project::domain_named(name)).await?;
        Ok(found.into_iter().next().map(|s| Arc::new(s.record)))
    }

    pub async fn identity_provider(&self, id: &str) -> Result<Option<Arc<IdentityProvider>>, Fault> {
        self.record(&self.providers, id).await
    }

    /// The groups a user is in, those that a mapping gave included as long as they last.
    async fn groups_of(&self, user_id: &str) -> Result<Arc<Vec<InGroup>>, Fault> {
        let key = (self.people.load(Ordering::Acquire), user_id.to_owned());
        if let Some(hit) = self.groups_of.get(&key) {
            return Ok(hit);
        }
        let lasting = self.store.list::<Membership>(Membership::of_user(user_id)).await?;
        let ending = self.store.list::<ExpiringMembership>(ExpiringMembership::of_user(user_id)).await?;
        let lasting = lasting.into_iter().map(|m| InGroup { id: m.record.group_id, until_us: i64::MAX });
        let ending = ending.into_iter().map(|m| InGroup { id: m.record.group_id, until_us: m.record.expires_us });
        let found = Arc::new(lasting.chain(ending).collect::<Vec<_>>());
        self.groups_of.insert(key, found.clone());
        Ok(found)
    }

    /// Ids of the groups a user is in now, each once, and when the first of them ends.
    async fn groups_now(&self, user_id: &str) -> Result<(Vec<String>, i64), Fault> {
        let (now, mut ids, mut until_us) = (clock::now_us(), Vec::new(), i64::MAX);
        for group in self.groups_of(user_id).await?.iter().filter(|g| g.until_us > now) {
            until_us = until_us.min(group.until_us);
            if !ids.contains(&group.id) {
                ids.push(group.id.clone());
            }
        }
        Ok((ids, until_us))
    }

    /// Ids of the groups a user is in now, here or in his directory.
    pub async fn group_ids(&self, user_id: &str) -> Result<Vec<String>, Fault> {
        let (mut ids, _) = self.groups_now(user_id).await?;
        for id in self.remote_groups_of(user_id).await? {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        Ok(ids)
    }

    /// The direct assignments of a user or group.
    pub async fn assignments_of(&self, actor: &Actor) -> Result<Arc<Vec<Assignment>>, Fault> {
        let key = (self.people.load(Ordering::Acquire), actor.id().to_owned());
        if let Some(hit) = self.assignments_of.get(&key) {
            return Ok(hit);
        }
        let found = self.store.list::<Assignment>(Assignment::of_actor(actor.id())).await?;
        let found = Arc::new(found.into_iter().map(|a| a.record).filter(|a| a.key.actor == *actor).collect::<Vec<_>>());
        self.assignments_of.insert(key, found.clone());
        Ok(found)
    }

    /// Direct assignments of a user, of all his groups, and of the groups that his token names.
    pub async fn assignments_with(&self, user_id: &str, named: &[String]) -> Result<(Vec<Assignment>, i64), Fault> {
        let mut all = self.assignments_of(&Actor::User(user_id.to_owned())).await?.as_ref().clone();
        let (mut groups, until_us) = self.groups_now(user_id).await?;
        // What a directory says is kept there, and for a while only.
        for id in named.iter().cloned().chain(self.remote_groups_of(user_id).await?) {
            if !groups.contains(&id) {
                groups.push(id);
            }
        }
        for group in groups {
            all.extend(self.assignments_of(&Actor::Group(group)).await?.iter().cloned());
        }
        Ok((all, until_us))
    }

    /// Direct assignments of a user and of all his groups.
    pub async fn assignments_reaching(&self, user_id: &str) -> Result<Vec<Assignment>, Fault> {
        Ok(self.assignments_with(user_id, &[]).await?.0)
    }

    pub async fn role_graph(&self) -> Result<Arc<RoleGraph>, Fault> {
        let key = (self.roles.load(Ordering::Acquire), String::new());
        if let Some(hit) = self.graphs.get(&key) {
            return Ok(hit);
        }
        let roles =
            self.store.list::<Role>(Query::all()).await?.into_iter().map(|r| (r.record.id.clone(), r.record)).collect();
        let mut implies: HashMap<String, Vec<String>> = HashMap::new();
        for inference in self.store.list::<Inference>(Query::all()).await? {
            implies.entry(inference.record.prior.clone()).or_default().push(inference.record.implied);
        }
        let graph = Arc::new(RoleGraph { roles, implies });
        self.graphs.insert(key, graph.clone());
        Ok(graph)
    }

    pub async fn catalog_records(&self) -> Result<Arc<CatalogRecords>, Fault> {
        let key = (self.catalog_generation(), String::new());
        if let Some(hit) = self.catalogs.get(&key) {
            return Ok(hit);
        }
        let endpoints: Vec<Endpoint> = self.all().await?;
        let records = Arc::new(CatalogRecords {
            services: self.all().await?,
            named: catalog::Named::by(&endpoints),
            endpoints,
            groups: self.all().await?,
            links: self.all().await?,
            service_providers: self.all::<ServiceProvider>().await?.into_iter().filter(|p| p.enabled).collect(),
            shown: Cache::new(SHOWN_CATALOGS),
        });
        self.catalogs.insert(key, records.clone());
        Ok(records)
    }

    async fn all<R: Record>(&self) -> Result<Vec<R>, Fault> {
        Ok(self.store.list::<R>(Query::all()).await?.into_iter().map(|s| s.record).collect())
    }

    /// The projects above a project, nearest first, its domain last.
    pub async fn ancestors(&self, project: &Project) -> Result<Vec<Arc<Project>>, Fault> {
        let mut out: Vec<Arc<Project>> = Vec::new();
        let mut next = project.parent_id.clone();
        while let Some(id) = next.take().filter(|_| out.len() < DEPTH_MAX) {
            let Some(above) = self.project(&id).await? else { break };
            next.clone_from(&above.parent_id);
            out.push(above);
        }
        Ok(out)
    }

    /// Roles a user has at a place, with groups, inheritance and implication, domain roles included.
    pub async fn role_ids_at(&self, user_id: &str, place: &Place) -> Result<HashSet<String>, Fault> {
        Ok(self.held_at(user_id, &[], place).await?.roles)
    }

    /// The same for a user who is also in the groups that his token names.
    pub async fn held_at(&self, user_id: &str, named: &[String], place: &Place) -> Result<Held, Fault> {
        let mut above: HashSet<String> = HashSet::new();
        if let Place::Project(id) = place
            && let Some(project) = self.project(id).await?
        {
            above = self.ancestors(&project).await?.iter().map(|p| p.id.clone()).collect();
        }
        let (all, until_us) = self.assignments_with(user_id, named).await?;
        let direct = all.iter().filter(|a| holds_at(a, place, &above)).map(|a| a.role_id.as_str());
        Ok(Held { roles: self.role_graph().await?.expand(direct), until_us })
    }
}

/// Does an assignment reach a place? `above` are the ids over it.
pub(crate) fn holds_at(assignment: &Assignment, place: &Place, above: &HashSet<String>) -> bool {
    if assignment.key.inherited {
        matches!(place, Place::Project(_))
            && assignment.key.target != Place::System
            && above.contains(assignment.key.target.id())
    } else {
        assignment.key.target == *place
    }
}
