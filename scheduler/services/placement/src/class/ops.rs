//! The verbs on resource classes; the only writer of their records.
use super::model::{ResourceClass, is_custom, is_standard};
use crate::provider::model::Provider;
use pilvi_kit::Fault;
use pilvi_store::{Query, Store, Stored, Tx};
use std::collections::BTreeSet;

pub fn unknown(name: &str) -> Fault {
    Fault::not_found(format!("No such resource class {name}."))
}

fn bad_name(name: &str) -> Fault {
    Fault::bad_request(format!("JSON does not validate: '{name}' does not match '^CUSTOM_[A-Z0-9_]+$'"))
}

/// The classes that operators made.
pub async fn custom(store: &Store) -> Result<Vec<Stored<ResourceClass>>, Fault> {
    Ok(store.list::<ResourceClass>(Query::all()).await?)
}

pub async fn exists(store: &Store, name: &str) -> Result<bool, Fault> {
    Ok(is_standard(name) || store.get::<ResourceClass>(name).await?.is_some())
}

/// Those of `names` that do not exist.
pub async fn missing<'n>(store: &Store, names: BTreeSet<&'n str>) -> Result<Vec<&'n str>, Fault> {
    let custom: Vec<&str> = names.into_iter().filter(|name| !is_standard(name)).collect();
    if custom.is_empty() {
        return Ok(custom);
    }
    let known = store.list::<ResourceClass>(Query::all().ids(custom.iter().copied())).await?;
    Ok(custom.into_iter().filter(|name| !known.iter().any(|k| k.name == *name)).collect())
}

pub async fn exists_in(tx: &mut Tx, name: &str) -> Result<bool, Fault> {
    Ok(is_standard(name) || tx.get::<ResourceClass>(name).await?.is_some())
}

/// Makes a custom class unless it is there; true when it was made.
pub async fn ensure_in(tx: &mut Tx, name: &str) -> Result<bool, Fault> {
    if exists_in(tx, name).await? {
        return Ok(false);
    }
    if !is_custom(name) {
        return Err(bad_name(name));
    }
    tx.insert(&ResourceClass { name: name.to_owned() }).await?;
    Ok(true)
}

pub async fn ensure(store: &Store, name: &str) -> Result<bool, Fault> {
    if !is_custom(name) {
        return Err(bad_name(name));
    }
    let name = name.to_owned();
    store
        .write(move |tx| {
            let name = name.clone();
            Box::pin(async move { ensure_in(tx, &name).await })
        })
        .await
}

pub async fn create(store: &Store, name: &str) -> Result<(), Fault> {
    if ensure(store, name).await? {
        return Ok(());
    }
    Err(Fault::conflict(format!("Conflicting resource class already exists: {name}")))
}

/// Before 1.7 a class could be renamed.
pub async fn rename(store: &Store, old: &str, new: &str) -> Result<(), Fault> {
    if is_standard(old) {
        return Err(Fault::bad_request(format!("Cannot update standard resource class {old}")));
    }
    let (old, new) = (old.to_owned(), new.to_owned());
    store
        .write(move |tx| {
            let (old, new) = (old.clone(), new.clone());
            Box::pin(async move {
                tx.get::<ResourceClass>(&old).await?.ok_or_else(|| unknown(&old))?;
                if old == new {
                    return Ok(());
                }
                if !ensure_in(tx, &new).await? {
                    return Err(Fault::conflict(format!("Resource class already exists: {new}")));
                }
                for mut stored in tx.list::<Provider>(Query::all()).await? {
                    if let Some(inventory) = stored.record.inventories.remove(&old) {
                        stored.record.inventories.insert(new.clone(), inventory);
                        if let Some(used) = stored.record.used.remove(&old) {
                            stored.record.used.insert(new.clone(), used);
                        }
                        tx.update(&stored).await?;
                    }
                }
                crate::allocation::ops::rename_class_in(tx, &old, &new).await?;
                tx.delete::<ResourceClass>(&old).await?;
                Ok::<_, Fault>(())
            })
        })
        .await
}

pub async fn delete(store: &Store, name: &str) -> Result<(), Fault> {
    if is_standard(name) {
        return Err(Fault::bad_request(format!(
            "Error in delete resource class: Cannot delete standard resource class {name}."
        )));
    }
    let name = name.to_owned();
    store
        .write(move |tx| {
            let name = name.clone();
            Box::pin(async move {
                tx.get::<ResourceClass>(&name).await?.ok_or_else(|| unknown(&name))?;
                let providers = tx.list::<Provider>(Query::all()).await?;
                if providers.iter().any(|p| p.record.inventories.contains_key(&name)) {
                    return Err(Fault::conflict(format!("Error in delete resource class: Cannot delete resource class {name}. Class is in use in inventory.")));
                }
                tx.delete::<ResourceClass>(&name).await?;
                Ok(())
            })
        })
        .await
}
