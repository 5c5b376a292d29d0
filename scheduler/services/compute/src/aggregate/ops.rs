//! The verbs on aggregates that more than the API uses.
use crate::tables::Aggregate;
use pilvi_kit::Fault;
use pilvi_store::{Query, Stored, Tx};

pub fn taken(error: pilvi_store::Error, name: &str) -> Fault {
    match error {
        pilvi_store::Error::Claimed { .. } => Fault::conflict(format!("Aggregate {name} already exists.")),
        error => error.into(),
    }
}

/// Makes an aggregate; it gets the next number.
pub async fn insert_in(tx: &mut Tx, mut new: Aggregate) -> Result<Stored<Aggregate>, Fault> {
    let highest = tx.list::<Aggregate>(Query::all()).await?.iter().map(|a| a.number).max();
    new.number = highest.unwrap_or(0) + 1;
    tx.insert(&new).await.map_err(|e| taken(e, &new.name))
}
