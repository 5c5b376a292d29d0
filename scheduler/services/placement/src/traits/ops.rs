//! The verbs on traits; the only writer of their records and of what traits a provider has.
use super::model::{Trait, is_standard};
use crate::{
    class::model::is_custom,
    provider::{self, model::Provider},
};
use pilvi_kit::Fault;
use pilvi_store::{Query, Store, Stored, Tx};
use std::collections::BTreeSet;

/// 400: a request names traits that do not exist.
pub fn not_there(names: &[&str]) -> Fault {
    Fault::bad_request(format!("Invalid trait(s) in \"required\" parameter: No such trait(s): {}.", names.join(", ")))
}

pub fn unknown(name: &str) -> Fault {
    Fault::not_found(format!("No such trait(s): {name}."))
}

fn bad_name() -> Fault {
    Fault::bad_request(
        "The trait is invalid. A valid trait must be no longer than 255 characters, start with the prefix \"CUSTOM_\" and use following characters: \"A\"-\"Z\", \"0\"-\"9\" and \"_\"",
    )
}

pub async fn custom(store: &Store) -> Result<Vec<Stored<Trait>>, Fault> {
    Ok(store.list::<Trait>(Query::all()).await?)
}

pub async fn exists(store: &Store, name: &str) -> Result<bool, Fault> {
    Ok(is_standard(name) || store.get::<Trait>(name).await?.is_some())
}

/// Those of `names` that do not exist.
pub async fn missing<'n>(store: &Store, names: BTreeSet<&'n str>) -> Result<Vec<&'n str>, Fault> {
    let custom: Vec<&str> = names.into_iter().filter(|name| !is_standard(name)).collect();
    if custom.is_empty() {
        return Ok(custom);
    }
    let known = store.list::<Trait>(Query::all().ids(custom.iter().copied())).await?;
    Ok(custom.into_iter().filter(|name| !known.iter().any(|k| k.name == *name)).collect())
}

/// Makes a custom trait unless it is there; true when it was made.
pub async fn ensure_in(tx: &mut Tx, name: &str) -> Result<bool, Fault> {
    if is_standard(name) || tx.get::<Trait>(name).await?.is_some() {
        return Ok(false);
    }
    if !is_custom(name) {
        return Err(bad_name());
    }
    tx.insert(&Trait { name: name.to_owned() }).await?;
    Ok(true)
}

pub async fn ensure(store: &Store, name: &str) -> Result<bool, Fault> {
    if !is_custom(name) {
        return Err(bad_name());
    }
    let name = name.to_owned();
    store
        .write(move |tx| {
            let name = name.clone();
            Box::pin(async move { ensure_in(tx, &name).await })
        })
        .await
}

pub async fn delete(store: &Store, name: &str) -> Result<(), Fault> {
    if is_standard(name) {
        return Err(Fault::bad_request(format!("Cannot delete standard trait {name}.")));
    }
    let name = name.to_owned();
    store
        .write(move |tx| {
            let name = name.clone();
            Box::pin(async move {
                tx.get::<Trait>(&name).await?.ok_or_else(|| unknown(&name))?;
                if tx.list::<Provider>(Query::all()).await?.iter().any(|p| p.record.traits.contains(&name)) {
                    return Err(Fault::conflict(format!("The trait {name} is in use by a resource provider.")));
                }
                tx.delete::<Trait>(&name).await?;
                Ok(())
            })
        })
        .await
}

/// Which traits any provider has.
pub async fn in_use(store: &Store) -> Result<BTreeSet<String>, Fault> {
    Ok(provider::ops::all(store).await?.into_iter().flat_map(|p| p.record.traits).collect())
}

/// Sets all traits of a provider; `generation`: what the caller knew, if the caller said so.
pub async fn set(
    store: &Store,
    uuid: &str,
    traits: BTreeSet<String>,
    generation: Option<i64>,
) -> Result<Stored<Provider>, Fault> {
    let uuid = uuid.to_owned();
    store
        .write(move |tx| {
            let (uuid, traits) = (uuid.clone(), traits.clone());
            Box::pin(async move {
                let mut stored = match generation {
                    Some(known) => provider::ops::at_generation_in(tx, &uuid, known).await?,
                    None => provider::ops::get_in(tx, &uuid).await?,
                };
                let mut unknown = Vec::new();
                for name in traits.iter().filter(|name| !is_standard(name)) {
                    if tx.get::<Trait>(name).await?.is_none() {
                        unknown.push(name.as_str());
                    }
                }
                if !unknown.is_empty() {
                    return Err(Fault::bad_request(format!("No such trait {}", unknown.join(", "))));
                }
                if stored.record.traits == traits {
                    return Ok(stored);
                }
                stored.record.traits = traits;
                stored.record.generation += 1;
                Ok(tx.update(&stored).await?)
            })
        })
        .await
}
