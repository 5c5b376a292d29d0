//! The verbs of wishes; the only writer of the record.
use super::model::{Hosting, Task};
use crate::tables::find;
use pilvi_kit::Fault;
use pilvi_store::{Query, Store, Tx};

/// All wishes: few, for each was made by hand.
pub async fn all(store: &Store) -> Result<Vec<Hosting>, Fault> {
    Ok(store.list::<Hosting>(Query::all()).await?.into_iter().map(|h| h.record).collect())
}

/// Writes what is wished of one host, over what was wished before.
pub async fn set_in(tx: &mut Tx, new: &Hosting) -> Result<(), Fault> {
    match tx.get::<Hosting>(&new.id).await? {
        Some(mut found) => {
            found.here = new.here;
            tx.update(&found).await?;
        }
        None => {
            tx.insert(new).await?;
        }
    }
    Ok(())
}

/// A host is asked to hold a router's way out: those that were asked before no longer are.
pub async fn move_in(tx: &mut Tx, router_id: &str, host: &str) -> Result<(), Fault> {
    for found in tx.list::<Hosting>(find::hosting(router_id)).await? {
        if found.task == Task::Route && found.here && found.host != host {
            tx.delete::<Hosting>(&found.id).await?;
        }
    }
    set_in(tx, &Hosting::new(Task::Route, router_id, host, true)).await
}

/// The network or router goes, and the wishes with it.
pub async fn forget_in(tx: &mut Tx, object_id: &str) -> Result<(), Fault> {
    for found in tx.list::<Hosting>(find::hosting(object_id)).await? {
        tx.delete::<Hosting>(&found.id).await?;
    }
    Ok(())
}
