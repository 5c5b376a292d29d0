//! Looking for candidates.
use super::{
    model::{Group, Wanted},
    search::{Asked, Way, search},
};
use crate::{
    Placement, class,
    snapshot::index::{Index, Names, Node},
    traits,
};
use pilvi_kit::Fault;
use pilvi_store::Store;
use rand::Rng;
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

/// What compute asks for: all of it from one provider.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub resources: BTreeMap<String, i64>,
    /// Traits that must be there.
    pub required: Vec<String>,
    pub forbidden: Vec<String>,
    /// In one aggregate of each list.
    pub member_of: Vec<Vec<String>>,
    /// Candidates at most.
    pub limit: Option<usize>,
}

/// A provider that could serve a request now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub provider_uuid: Arc<str>,
    /// Left of each class before this request.
    pub free: Vec<(Arc<str>, i64)>,
}

impl Candidate {
    pub fn free_of(&self, class: &str) -> i64 {
        self.free.iter().find(|(name, _)| **name == *class).map_or(0, |(_, free)| *free)
    }
}

/// Providers that could serve the request now. A candidate is a hint: only [`crate::allocation::ops::claim_in`] takes
/// anything.
pub async fn find(placement: &Placement, request: &Request) -> Result<Vec<Candidate>, Fault> {
    let group = Group {
        resources: request.resources.clone(),
        required: request.required.iter().map(|t| [t.clone()].into()).collect(),
        forbidden: request.forbidden.iter().cloned().collect(),
        member_of: request.member_of.iter().map(|any| any.iter().cloned().collect()).collect(),
        ..Group::default()
    };
    placement.snapshot.refresh(&placement.store).await?;
    Ok(placement.snapshot.read(|index| {
        let Some(asked) = Asked::new(index, "", &group) else { return Vec::new() };
        let fitting = index.nodes().filter(|node| asked.alone(node));
        fitting.take(request.limit.unwrap_or(usize::MAX)).map(|node| candidate(index.names(), node)).collect()
    }))
}

fn candidate(names: &Names, node: &Node) -> Candidate {
    let free = node.stocks.iter().map(|s| (names.text(s.class).clone(), s.free())).collect();
    Candidate { provider_uuid: node.uuid.clone(), free }
}

/// Ways to serve a request, and the providers to show beside them.
#[derive(Debug)]
pub struct Found {
    pub ways: Vec<Way>,
    pub providers: Vec<Arc<Node>>,
    pub names: Arc<Names>,
}

/// The whole search of `GET /allocation_candidates`, and what `show` makes of it, away from the threads that answer.
pub async fn ways<T: Send + 'static>(
    placement: &Arc<Placement>,
    wanted: Wanted,
    show: impl FnOnce(&Wanted, &Found) -> T + Send + 'static,
) -> Result<T, Fault> {
    let roots = Group {
        required: wanted.root_required.iter().map(|t| [t.clone()].into()).collect(),
        forbidden: wanted.root_forbidden.clone(),
        ..Group::default()
    };
    check_names(&placement.store, wanted.groups.values().chain([&roots])).await?;
    placement.snapshot.refresh(&placement.store).await?;
    let placement = placement.clone();
    let seed = placement.limits.randomize.then(|| rand::rng().random());
    let task = tokio::task::spawn_blocking(move || {
        let found = placement.snapshot.read(|index| {
            let ways = search(index, &wanted, &placement.limits, seed);
            Found { providers: shown(index, &ways, wanted.one_of_a_tree), ways, names: index.names().clone() }
        });
        show(&wanted, &found)
    });
    task.await.map_err(Fault::internal)
}

/// Those that give something and, since trees are seen, the rest of their trees.
pub(crate) fn shown(index: &Index, ways: &[Way], giving_only: bool) -> Vec<Arc<Node>> {
    let mut seen: HashSet<&str> = HashSet::new();
    let mut found: Vec<Arc<Node>> = Vec::new();
    for (node, _) in ways.iter().flat_map(|way| &way.gives) {
        if giving_only {
            if seen.insert(&node.uuid) {
                found.push(node.clone());
            }
        } else if seen.insert(&node.root) {
            found.extend(index.tree(&node.root).iter().cloned());
        }
    }
    found
}

/// 400 when a request names a class or a trait that does not exist.
pub(crate) async fn check_names<'g>(store: &Store, groups: impl Iterator<Item = &'g Group>) -> Result<(), Fault> {
    let (mut classes, mut named): (BTreeSet<&str>, BTreeSet<&str>) = Default::default();
    for group in groups {
        classes.extend(group.resources.keys().map(String::as_str));
        named.extend(group.required.iter().flatten().chain(&group.forbidden).map(String::as_str));
    }
    if let Some(name) = class::ops::missing(store, classes).await?.first() {
        return Err(Fault::bad_request(format!(
            "Invalid resource class in resources parameter: No such resource class {name}."
        )));
    }
    let missing = traits::ops::missing(store, named).await?;
    if missing.is_empty() {
        return Ok(());
    }
    Err(traits::ops::not_there(&missing))
}
