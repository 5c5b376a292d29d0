//! Looking for candidates.
use super::{
    model::{Assignment, Group, Wanted, serves_alone},
    search::search,
};
use crate::{
    class,
    provider::{
        self,
        model::{Amounts, Inventory, Provider},
    },
    traits,
};
use pilvi_kit::Fault;
use pilvi_store::{Store, Stored};
use std::collections::{BTreeMap, BTreeSet};

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

/// A provider that could serve a request now, with what a weigher wants to know.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    pub provider_uuid: String,
    pub provider_name: String,
    /// Left of each class before this request.
    pub free: BTreeMap<String, i64>,
    pub used: BTreeMap<String, i64>,
    pub inventories: BTreeMap<String, Inventory>,
    pub traits: BTreeSet<String>,
    pub aggregates: BTreeSet<String>,
}

/// Providers that could serve the request now, in the order of their ids. A candidate is a hint: only
/// [`crate::allocation::ops::claim_in`] takes anything.
pub async fn find(store: &Store, request: &Request) -> Result<Vec<Candidate>, Fault> {
    let group = Group {
        resources: request.resources.clone(),
        required: request.required.iter().map(|t| [t.clone()].into()).collect(),
        forbidden: request.forbidden.iter().cloned().collect(),
        member_of: request.member_of.iter().map(|any| any.iter().cloned().collect()).collect(),
        ..Group::default()
    };
    let providers = provider::ops::all(store).await?;
    let fitting = providers.into_iter().map(|p| p.record).filter(|p| serves_alone(p, &group));
    Ok(fitting.take(request.limit.unwrap_or(usize::MAX)).map(candidate).collect())
}

fn candidate(provider: Provider) -> Candidate {
    Candidate {
        free: provider.free(),
        provider_uuid: provider.uuid,
        provider_name: provider.name,
        used: provider.used,
        inventories: provider.inventories,
        traits: provider.traits,
        aggregates: provider.aggregates,
    }
}

/// Ways to serve a request, and the providers to show beside them.
#[derive(Debug)]
pub struct Found {
    pub ways: Vec<Assignment>,
    pub providers: Vec<Provider>,
}

/// The whole search of `GET /allocation_candidates`.
pub async fn ways(store: &Store, wanted: &Wanted) -> Result<Found, Fault> {
    check_names(store, wanted.groups.values()).await?;
    let roots: Vec<&String> = wanted.root_required.iter().chain(&wanted.root_forbidden).collect();
    check_traits(store, roots.into_iter()).await?;
    let all = provider::ops::all(store).await?;
    let records: Vec<&Provider> = all.iter().map(|p| &p.record).collect();
    let ways = search(&records, wanted);
    Ok(Found { providers: shown(&all, &ways, wanted.roots_only), ways })
}

/// Those that give something and, since trees are seen, the rest of their trees.
fn shown(all: &[Stored<Provider>], ways: &[Assignment], roots_only: bool) -> Vec<Provider> {
    let giving: BTreeSet<&str> = ways.iter().flat_map(|w| w.allocations.keys()).map(String::as_str).collect();
    let trees: BTreeSet<&str> =
        all.iter().filter(|p| giving.contains(p.uuid.as_str())).map(|p| p.root.as_str()).collect();
    all.iter()
        .filter(|p| giving.contains(p.uuid.as_str()) || (!roots_only && trees.contains(p.root.as_str())))
        .map(|p| p.record.clone())
        .collect()
}

/// 400 when a request names a class or a trait that does not exist.
pub(crate) async fn check_names<'g>(store: &Store, groups: impl Iterator<Item = &'g Group>) -> Result<(), Fault> {
    for group in groups {
        let classes: &Amounts = &group.resources;
        for name in classes.keys() {
            if !class::ops::exists(store, name).await? {
                return Err(Fault::bad_request(format!(
                    "Invalid resource class in resources parameter: No such resource class {name}."
                )));
            }
        }
        check_traits(store, group.required.iter().flatten().chain(&group.forbidden)).await?;
    }
    Ok(())
}

async fn check_traits(store: &Store, names: impl Iterator<Item = &String>) -> Result<(), Fault> {
    for name in names {
        if !traits::ops::exists(store, name).await? {
            return Err(Fault::bad_request(format!(
                "Invalid trait(s) in \"required\" parameter: No such trait(s): {name}."
            )));
        }
    }
    Ok(())
}
