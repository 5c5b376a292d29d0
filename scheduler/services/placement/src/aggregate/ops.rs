//! The verbs on aggregates of a provider.
use crate::provider::{self, model::Provider};
use pilvi_kit::Fault;
use pilvi_store::{Store, Stored, Tx};
use std::collections::BTreeSet;

/// Sets all aggregates of a provider. `generation`: what the caller knew; without it the provider's
/// generation stays as it is.
pub async fn set(
    store: &Store,
    uuid: &str,
    aggregates: BTreeSet<String>,
    generation: Option<i64>,
) -> Result<Stored<Provider>, Fault> {
    let uuid = uuid.to_owned();
    store
        .write(move |tx| {
            let (uuid, aggregates) = (uuid.clone(), aggregates.clone());
            Box::pin(async move {
                let mut stored = match generation {
                    Some(known) => provider::ops::at_generation_in(tx, &uuid, known).await?,
                    None => provider::ops::get_in(tx, &uuid).await?,
                };
                stored.record.aggregates = aggregates;
                stored.record.generation += i64::from(generation.is_some());
                Ok::<_, Fault>(tx.update(&stored).await?)
            })
        })
        .await
}

/// Puts a provider into an aggregate or takes it out; for compute, which mirrors its host aggregates.
pub async fn member_in(tx: &mut Tx, uuid: &str, aggregate: &str, member: bool) -> Result<(), Fault> {
    let mut stored = provider::ops::get_in(tx, uuid).await?;
    let changed = if member {
        stored.record.aggregates.insert(aggregate.to_owned())
    } else {
        stored.record.aggregates.remove(aggregate)
    };
    if changed {
        stored.record.generation += 1;
        tx.update(&stored).await?;
    }
    Ok(())
}
