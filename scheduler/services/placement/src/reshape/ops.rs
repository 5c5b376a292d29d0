//! The verb of the reshaper.
use crate::{
    allocation::{
        model::{Claim, Known},
        ops::replace_in,
    },
    fault,
    inventory::ops::{Change, apply_in},
    provider::{
        self,
        model::{Inventory, Provider},
    },
};
use pilvi_kit::Fault;
use pilvi_store::{Store, Tx};
use std::collections::BTreeMap;

/// All inventories of one provider, and the generation the caller knew.
pub type Shape = (BTreeMap<String, Inventory>, i64);

/// First the providers get what is new, then the allocations move, then what is old goes; all or nothing.
pub async fn reshape(store: &Store, shapes: BTreeMap<String, Shape>, claims: Vec<(Claim, Known)>) -> Result<(), Fault> {
    store
        .write(move |tx| {
            let (shapes, claims) = (shapes.clone(), claims.clone());
            Box::pin(async move {
                for (uuid, (inventories, generation)) in &shapes {
                    widen_in(tx, uuid, inventories, *generation).await?;
                }
                replace_in(tx, claims).await?;
                for (uuid, (inventories, _)) in shapes {
                    let mut stored = provider::ops::get_in(tx, &uuid).await?;
                    apply_in(tx, &mut stored.record, Change::Replace(inventories)).await?;
                    tx.update(&stored).await?;
                }
                Ok::<_, Fault>(())
            })
        })
        .await
}

async fn widen_in(
    tx: &mut Tx,
    uuid: &str,
    inventories: &BTreeMap<String, Inventory>,
    generation: i64,
) -> Result<(), Fault> {
    let Some(mut stored) = tx.get::<Provider>(uuid).await? else {
        return Err(Fault::bad_request(format!("Resource provider {uuid} in inventories not found"))
            .kind(fault::PROVIDER_NOT_FOUND));
    };
    if stored.record.generation != generation {
        let text = format!(
            "resource provider generation conflict for provider {uuid}: actual: {}, given: {generation}",
            stored.record.generation
        );
        return Err(Fault::conflict(text).kind(fault::CONCURRENT_UPDATE));
    }
    if inventories.is_empty() {
        // Nothing new: the generation counts the last step alone.
        return Ok(());
    }
    let mut wide = stored.record.inventories.clone();
    wide.extend(inventories.clone());
    apply_in(tx, &mut stored.record, Change::Replace(wide)).await?;
    tx.update(&stored).await?;
    Ok(())
}
