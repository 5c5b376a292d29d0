//! The verbs on allocations: the only writer of consumers, allocations and providers' usage counters.
//!
//! Everything that one call changes (several consumers on several providers, even) happens in one
//! transaction that first reads each provider's row: the capacity that is checked is the capacity that
//! is taken.
use super::model::{Allocation, Consumer, Known};
use crate::{
    fault,
    provider::model::{Amounts, Provider},
    tables,
};
use pilvi_kit::Fault;
use pilvi_store::{Query, Store, Stored, Tx};
use std::collections::{BTreeMap, BTreeSet};

pub use super::model::Claim;

/// Gives `claim.consumer` exactly what the claim says, checked against capacity in this transaction.
/// 409 when it does not fit, 400 when a provider does not exist.
pub async fn claim_in(tx: &mut Tx, claim: Claim) -> Result<(), Fault> {
    replace_in(tx, vec![(claim, Known::Any)]).await
}

/// Gives back all that a consumer holds; nothing held is fine.
pub async fn release_in(tx: &mut Tx, consumer: &str) -> Result<(), Fault> {
    if tx.get::<Consumer>(consumer).await?.is_none() {
        return Ok(());
    }
    let nothing = Claim { consumer: consumer.to_owned(), ..Claim::default() };
    change_in(tx, vec![(nothing, Known::Any)], Told::Silently).await
}

/// What a consumer holds: provider uuid -> class -> amount.
pub async fn of(store: &Store, consumer: &str) -> Result<BTreeMap<String, Amounts>, Fault> {
    let held = store.list::<Allocation>(tables::held_by(consumer)).await?;
    Ok(held.into_iter().map(|a| (a.record.provider, a.record.resources)).collect())
}

/// The same, inside a transaction.
pub async fn of_in(tx: &mut Tx, consumer: &str) -> Result<BTreeMap<String, Amounts>, Fault> {
    let held = tx.list::<Allocation>(tables::held_by(consumer)).await?;
    Ok(held.into_iter().map(|a| (a.record.provider, a.record.resources)).collect())
}

pub async fn consumer(store: &Store, uuid: &str) -> Result<Option<Stored<Consumer>>, Fault> {
    Ok(store.get::<Consumer>(uuid).await?)
}

/// Everything held of one provider.
pub async fn of_provider(store: &Store, uuid: &str) -> Result<Vec<Stored<Allocation>>, Fault> {
    Ok(store.list::<Allocation>(tables::held_of(uuid)).await?)
}

/// Replaces allocations of several consumers, all or none.
pub async fn replace(store: &Store, claims: Vec<(Claim, Known)>) -> Result<(), Fault> {
    store
        .write(move |tx| {
            let claims = claims.clone();
            Box::pin(async move { replace_in(tx, claims).await })
        })
        .await
}

/// Deletes a consumer's allocations; 404 when it has none.
pub async fn delete(store: &Store, consumer: &str) -> Result<(), Fault> {
    let consumer = consumer.to_owned();
    store
        .write(move |tx| {
            let consumer = consumer.clone();
            Box::pin(async move {
                if tx.get::<Consumer>(&consumer).await?.is_none() {
                    return Err(Fault::not_found(format!("No allocations for consumer '{consumer}'")));
                }
                release_in(tx, &consumer).await
            })
        })
        .await
}

/// One consumer on its way from what it holds to what it shall hold.
struct Move {
    claim: Claim,
    consumer: Option<Stored<Consumer>>,
    held: Vec<Stored<Allocation>>,
}

/// Whether users of the API must notice that something was given back: a provider's generation counts what it gives,
/// and what a claim of nothing gives back, but not what goes with a consumer or to another provider.
#[derive(Clone, Copy, PartialEq)]
enum Told {
    Counted,
    Silently,
}

pub(crate) async fn replace_in(tx: &mut Tx, claims: Vec<(Claim, Known)>) -> Result<(), Fault> {
    change_in(tx, claims, Told::Counted).await
}

async fn change_in(tx: &mut Tx, claims: Vec<(Claim, Known)>, told: Told) -> Result<(), Fault> {
    let mut moves = Vec::with_capacity(claims.len());
    for (claim, known) in claims {
        let consumer = tx.get::<Consumer>(&claim.consumer).await?;
        check_generation(consumer.as_ref(), known)?;
        let held = if consumer.is_some() {
            tx.list::<Allocation>(tables::held_by(&claim.consumer)).await?
        } else {
            Vec::new()
        };
        moves.push(Move { claim, consumer, held });
    }
    exchange_in(tx, &moves, told).await?;
    for step in moves {
        write_in(tx, step).await?;
    }
    Ok(())
}

fn check_generation(consumer: Option<&Stored<Consumer>>, known: Known) -> Result<(), Fault> {
    let text = match (known, consumer) {
        (Known::At(given), Some(found)) if found.record.generation != given => {
            format!("expected {} but got {given}", found.record.generation)
        }
        (Known::At(given), None) => format!("expected null but got {given}"),
        (Known::New, Some(found)) => format!("expected {} but got None", found.record.generation),
        _ => return Ok(()),
    };
    Err(Fault::conflict(format!("consumer generation conflict - {text}")).kind(fault::CONCURRENT_UPDATE))
}

/// Moves the usage counters of every provider concerned, in the order of their ids.
async fn exchange_in(tx: &mut Tx, moves: &[Move], told: Told) -> Result<(), Fault> {
    let touched: BTreeSet<&String> = moves
        .iter()
        .flat_map(|m| m.held.iter().map(|a| &a.record.provider).chain(m.claim.allocations.keys()))
        .collect();
    for uuid in touched {
        let before: Vec<&Amounts> = moves
            .iter()
            .flat_map(|m| m.held.iter())
            .filter(|a| a.record.provider == *uuid)
            .map(|a| &a.record.resources)
            .collect();
        let after: Vec<&Amounts> = moves.iter().filter_map(|m| m.claim.allocations.get(uuid)).collect();
        let Some(mut stored) = tx.get::<Provider>(uuid).await? else {
            return Err(Fault::bad_request(format!("Allocation for resource provider '{uuid}' that does not exist.")));
        };
        for class in after.iter().flat_map(|a| a.keys()) {
            if !stored.record.inventories.contains_key(class) && !crate::class::ops::exists_in(tx, class).await? {
                return Err(Fault::bad_request(format!(
                    "Unable to allocate inventory for consumer: No such resource class {class}."
                )));
            }
        }
        stored
            .record
            .exchange(&before, &after)
            .map_err(|misfit| Fault::conflict(format!("Unable to allocate inventory: {misfit}")))?;
        let cleared = |m: &&Move| m.claim.allocations.is_empty() && m.held.iter().any(|a| a.record.provider == *uuid);
        if !after.is_empty() || (told == Told::Counted && moves.iter().any(|m| cleared(&m))) {
            stored.record.generation += 1;
        }
        tx.update(&stored).await?;
    }
    Ok(())
}

/// Writes the consumer and its rows.
async fn write_in(tx: &mut Tx, step: Move) -> Result<(), Fault> {
    let Move { claim, consumer, held } = step;
    if claim.allocations.is_empty() {
        for row in held {
            tx.delete::<Allocation>(&row.record.id).await?;
        }
        if consumer.is_some() {
            tx.delete::<Consumer>(&claim.consumer).await?;
        }
        return Ok(());
    }
    let record = match consumer {
        None => {
            let consumer_type = (!claim.consumer_type.is_empty()).then(|| claim.consumer_type.clone());
            let record = Consumer {
                uuid: claim.consumer,
                project_id: claim.project_id,
                user_id: claim.user_id,
                consumer_type,
                generation: 1,
            };
            tx.insert(&record).await?;
            record
        }
        Some(mut stored) => {
            stored.record.generation += 1;
            (stored.record.project_id, stored.record.user_id) = (claim.project_id, claim.user_id);
            if !claim.consumer_type.is_empty() {
                stored.record.consumer_type = Some(claim.consumer_type);
            }
            tx.update(&stored).await?.record
        }
    };
    let mut rows: BTreeMap<String, Stored<Allocation>> =
        held.into_iter().map(|row| (row.record.provider.clone(), row)).collect();
    for (provider, resources) in claim.allocations {
        let wanted = Allocation::new(&record, &provider, resources);
        match rows.remove(&provider) {
            None => {
                tx.insert(&wanted).await?;
            }
            Some(mut row) if row.record != wanted => {
                row.record = wanted;
                tx.update(&row).await?;
            }
            Some(_) => {}
        }
    }
    for row in rows.into_values() {
        tx.delete::<Allocation>(&row.record.id).await?;
    }
    Ok(())
}

/// A class got another name: so do the amounts held of it.
pub(crate) async fn rename_class_in(tx: &mut Tx, old: &str, new: &str) -> Result<(), Fault> {
    for mut row in tx.list::<Allocation>(Query::all()).await? {
        if let Some(amount) = row.record.resources.remove(old) {
            row.record.resources.insert(new.to_owned(), amount);
            tx.update(&row).await?;
        }
    }
    Ok(())
}
