//! The verbs on inventories.
use crate::{
    class, fault,
    provider::{
        self,
        model::{Inventory, Provider},
    },
};
use pilvi_kit::Fault;
use pilvi_store::{Store, Stored, Tx};
use std::collections::BTreeMap;

/// What a client does to a provider's inventories.
#[derive(Debug, Clone)]
pub enum Change {
    /// One more class; conflict if it is there.
    Add(String, Inventory),
    /// One class that is there.
    Update(String, Inventory),
    /// All of them.
    Replace(BTreeMap<String, Inventory>),
    Remove(String),
    Clear,
}

fn in_use(classes: &[String], provider: &Provider) -> String {
    format!("Inventory for '{}' on resource provider '{}' in use.", classes.join(", "), provider.uuid)
}

/// Applies a change; `generation`: what the caller knew, if the caller said so.
pub async fn change(
    store: &Store,
    uuid: &str,
    change: Change,
    generation: Option<i64>,
) -> Result<Stored<Provider>, Fault> {
    let uuid = uuid.to_owned();
    store
        .write(move |tx| {
            let (uuid, change) = (uuid.clone(), change.clone());
            Box::pin(async move {
                let mut stored = match generation {
                    Some(known) => provider::ops::at_generation_in(tx, &uuid, known).await?,
                    None => provider::ops::get_in(tx, &uuid).await?,
                };
                apply_in(tx, &mut stored.record, change).await?;
                Ok::<_, Fault>(tx.update(&stored).await?)
            })
        })
        .await
}

async fn known_in(tx: &mut Tx, class: &str, uuid: &str) -> Result<(), Fault> {
    if class::ops::exists_in(tx, class).await? {
        return Ok(());
    }
    Err(Fault::bad_request(format!(
        "Unknown resource class in inventory for resource provider {uuid}: No such resource class {class}."
    )))
}

pub(crate) async fn apply_in(tx: &mut Tx, provider: &mut Provider, change: Change) -> Result<(), Fault> {
    let missing = |class: &str| format!("No inventory of class {class} found");
    let mut all = provider.inventories.clone();
    match change {
        Change::Add(class, inventory) => {
            known_in(tx, &class, &provider.uuid).await?;
            if all.insert(class.clone(), inventory).is_some() {
                return Err(Fault::conflict(format!("Update conflict: inventory of class {class} exists already."))
                    .kind(fault::CONCURRENT_UPDATE));
            }
        }
        Change::Update(class, inventory) => {
            if all.insert(class.clone(), inventory).is_none() {
                return Err(Fault::bad_request(format!(
                    "No inventory record with resource class for resource provider {}: {}",
                    provider.uuid,
                    missing(&class)
                )));
            }
        }
        Change::Replace(inventories) => {
            for class in inventories.keys() {
                known_in(tx, class, &provider.uuid).await?;
            }
            all = inventories;
        }
        Change::Remove(class) => {
            if all.remove(&class).is_none() {
                return Err(Fault::not_found(format!(
                    "No inventory of class {class} found for delete: {}",
                    missing(&class)
                )));
            }
            return provider.set_inventories(all).map_err(|gone| {
                let text = format!("Unable to delete inventory of class {class}: {}", in_use(&gone, provider));
                Fault::conflict(text).kind(fault::CONCURRENT_UPDATE)
            });
        }
        Change::Clear => all.clear(),
    }
    provider.set_inventories(all).map_err(|gone| {
        Fault::conflict(format!("update conflict: {}", in_use(&gone, provider))).kind(fault::INVENTORY_IN_USE)
    })
}
