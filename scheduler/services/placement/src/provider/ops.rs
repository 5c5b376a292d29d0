//! The verbs on providers; the only writer of their tree, and what the fleet calls.
use super::model::{Inventory, Provider};
use crate::{
    Placement,
    candidate::{model::Group, search::Asked},
    fault,
    snapshot::index::Node,
    tables, traits,
};
use pilvi_kit::Fault;
use pilvi_store::{Query, Store, Stored, Tx};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// What a list is narrowed to.
#[derive(Debug, Default)]
pub struct Filter {
    pub name: Option<String>,
    pub uuid: Option<String>,
    /// Resources, traits, aggregates and tree, all of one provider.
    pub group: Group,
}

/// What the fleet wants known of one of its hosts.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub uuid: String,
    pub name: String,
    pub inventories: BTreeMap<String, Inventory>,
    /// Standard names, or `CUSTOM_...`, which are made if need be.
    pub traits: Vec<String>,
}

/// Makes the provider or brings it up to date. Writes nothing when nothing changed, so that it can be
/// called with every heartbeat. Classes and traits that operators added stay.
pub async fn ensure_in(tx: &mut Tx, wanted: Wanted) -> Result<(), Fault> {
    for class in wanted.inventories.keys() {
        crate::class::ops::ensure_in(tx, class).await?;
    }
    let names: BTreeSet<String> = wanted.traits.into_iter().collect();
    for name in &names {
        traits::ops::ensure_in(tx, name).await?;
    }
    match tx.get::<Provider>(&wanted.uuid).await? {
        Some(mut stored) => {
            if stored.record.observe(&wanted.name, &wanted.inventories, &names) {
                tx.update(&stored).await?;
            }
        }
        None => {
            let mut provider = Provider::new(&wanted.uuid, &wanted.name);
            provider.observe(&wanted.name, &wanted.inventories, &names);
            tx.insert(&provider).await?;
        }
    }
    Ok(())
}

/// Removes a provider that nobody uses; what is not there is fine.
pub async fn remove_in(tx: &mut Tx, uuid: &str) -> Result<(), Fault> {
    if tx.get::<Provider>(uuid).await?.is_none() {
        return Ok(());
    }
    delete_in(tx, uuid).await
}

pub async fn get(store: &Store, uuid: &str) -> Result<Stored<Provider>, Fault> {
    store.get::<Provider>(uuid).await?.ok_or_else(|| fault::no_provider(uuid))
}

pub async fn get_in(tx: &mut Tx, uuid: &str) -> Result<Stored<Provider>, Fault> {
    tx.get::<Provider>(uuid).await?.ok_or_else(|| fault::no_provider(uuid))
}

/// Every provider, in the order of their ids.
pub async fn all(store: &Store) -> Result<Vec<Stored<Provider>>, Fault> {
    Ok(store.list::<Provider>(Query::all()).await?)
}

/// Providers that a list asks for, oldest first.
pub async fn matching(placement: &Placement, filter: &Filter) -> Result<Vec<Arc<Node>>, Fault> {
    placement.snapshot.refresh(&placement.store).await?;
    let mut found: Vec<Arc<Node>> = placement.snapshot.read(|index| {
        let Some(asked) = Asked::new(index, "", &filter.group) else { return Vec::new() };
        index
            .nodes()
            .filter(|n| filter.name.as_ref().is_none_or(|name| *n.name == **name))
            .filter(|n| filter.uuid.as_ref().is_none_or(|uuid| *n.uuid == **uuid))
            .filter(|n| asked.alone(n))
            .cloned()
            .collect()
    });
    found.sort_by_key(|n| n.created_us);
    Ok(found)
}

/// Gets the provider for a change by a caller who knew `generation`: 409 when it has moved on.
pub async fn at_generation_in(tx: &mut Tx, uuid: &str, generation: i64) -> Result<Stored<Provider>, Fault> {
    let stored = get_in(tx, uuid).await?;
    if stored.record.generation != generation {
        return Err(fault::generation_conflict());
    }
    Ok(stored)
}

/// A provider as a client asks for it.
#[derive(Debug, Clone)]
pub struct New {
    pub uuid: String,
    pub name: String,
    pub parent: Option<String>,
}

fn duplicate(what: &str, value: &str) -> Fault {
    Fault::conflict(format!("Conflicting resource provider {what}: {value} already exists."))
        .kind(fault::DUPLICATE_NAME)
}

fn claimed(error: pilvi_store::Error, new_name: &str) -> Fault {
    match error {
        pilvi_store::Error::Claimed { .. } => duplicate("name", new_name),
        other => other.into(),
    }
}

pub async fn create(store: &Store, new: New) -> Result<Stored<Provider>, Fault> {
    store
        .write(move |tx| {
            let new = new.clone();
            Box::pin(async move {
                if tx.get::<Provider>(&new.uuid).await?.is_some() {
                    return Err(duplicate("uuid", &new.uuid));
                }
                let mut provider = Provider::new(&new.uuid, &new.name);
                if let Some(parent) = &new.parent {
                    let parent = parent_in(tx, &provider, parent).await?;
                    provider.root.clone_from(&parent.record.root);
                    provider.parent = Some(parent.record.uuid.clone());
                }
                tx.insert(&provider).await.map_err(|e| claimed(e, &new.name))
            })
        })
        .await
}

async fn parent_in(tx: &mut Tx, provider: &Provider, parent: &str) -> Result<Stored<Provider>, Fault> {
    let bad = |why: String| {
        Fault::bad_request(format!(
            "Unable to create resource provider \"{}\", {}: {why}",
            provider.name, provider.uuid
        ))
    };
    if parent == provider.uuid {
        return Err(bad(
            "parent provider UUID cannot be same as UUID. Please use the root provider's null parent instead.".into(),
        ));
    }
    tx.get::<Provider>(parent).await?.ok_or_else(|| bad("parent provider UUID does not exist.".into()))
}

/// How a client changes a provider.
#[derive(Debug, Clone)]
pub struct Change {
    pub name: String,
    /// `None`: not mentioned. `Some(None)`: to the root.
    pub parent: Option<Option<String>>,
    /// May it leave a parent it has?
    pub reparent: bool,
}

pub async fn update(store: &Store, uuid: &str, change: Change) -> Result<Stored<Provider>, Fault> {
    let uuid = uuid.to_owned();
    store
        .write(move |tx| {
            let (uuid, change) = (uuid.clone(), change.clone());
            Box::pin(async move {
                let mut stored = get_in(tx, &uuid).await?;
                stored.record.name.clone_from(&change.name);
                if let Some(parent) = change.parent
                    && parent != stored.record.parent
                {
                    move_in(tx, &mut stored.record, parent, change.reparent).await?;
                }
                tx.update(&stored).await.map_err(|e| claimed(e, &change.name))
            })
        })
        .await
}

/// Hangs the provider, with all that is below it, under another parent.
async fn move_in(tx: &mut Tx, provider: &mut Provider, parent: Option<String>, reparent: bool) -> Result<(), Fault> {
    let bad = |why: &str| Fault::bad_request(format!("Unable to save resource provider {}: {why}", provider.uuid));
    if provider.parent.is_some() && !reparent {
        return Err(bad(if parent.is_none() {
            "un-parenting a provider is not currently allowed."
        } else {
            "re-parenting a provider is not currently allowed."
        }));
    }
    let members = tx.list::<Provider>(tables::tree(&provider.root)).await?;
    let below = subtree(&members, &provider.uuid);
    let root = match &parent {
        None => provider.uuid.clone(),
        Some(parent) => {
            if below.contains(parent.as_str()) {
                return Err(bad("creating loop in the provider tree is not allowed."));
            }
            tx.get::<Provider>(parent).await?.ok_or_else(|| bad("parent provider UUID does not exist."))?.record.root
        }
    };
    for member in members.iter().filter(|m| below.contains(m.record.uuid.as_str()) && m.record.uuid != provider.uuid) {
        let mut member = member.clone();
        member.record.root.clone_from(&root);
        tx.update(&member).await?;
    }
    (provider.parent, provider.root) = (parent, root);
    Ok(())
}

/// The ids of `top` and of everything below it.
fn subtree<'m>(members: &'m [Stored<Provider>], top: &'m str) -> BTreeSet<&'m str> {
    let mut found: BTreeSet<&str> = [top].into();
    loop {
        let before = found.len();
        for member in members {
            if member.record.parent.as_deref().is_some_and(|p| found.contains(p)) {
                found.insert(&member.record.uuid);
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

pub async fn delete(store: &Store, uuid: &str) -> Result<(), Fault> {
    let uuid = uuid.to_owned();
    store
        .write(move |tx| {
            let uuid = uuid.clone();
            Box::pin(async move { delete_in(tx, &uuid).await })
        })
        .await
}

async fn delete_in(tx: &mut Tx, uuid: &str) -> Result<(), Fault> {
    let stored = tx
        .get::<Provider>(uuid)
        .await?
        .ok_or_else(|| Fault::not_found(format!("No resource provider with uuid {uuid} found for delete")))?;
    if tx.count::<Provider>(tables::children(uuid)).await? > 0 {
        let text = format!("Unable to delete parent resource provider {uuid}: It has child resource providers.");
        return Err(Fault::conflict(text).kind(fault::PROVIDER_HAS_CHILDREN));
    }
    if !stored.record.used.is_empty() {
        let text = format!("Unable to delete resource provider {uuid}: Resource provider has allocations.");
        return Err(Fault::conflict(text).kind(fault::PROVIDER_IN_USE));
    }
    tx.delete::<Provider>(uuid).await?;
    Ok(())
}
