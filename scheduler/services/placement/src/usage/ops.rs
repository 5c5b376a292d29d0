//! Sums over what is held.
use crate::{
    allocation::model::{Allocation, Consumer, UNKNOWN_TYPE},
    provider::model::Amounts,
    tables,
};
use pilvi_kit::Fault;
use pilvi_store::{Query, Store};
use std::collections::BTreeMap;

/// One type of consumer: how many there are and what they use together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sum {
    pub consumers: i64,
    pub used: Amounts,
}

/// What a project (or one user in it) uses, by consumer type.
pub async fn of_project(store: &Store, project: &str, user: Option<&str>) -> Result<BTreeMap<String, Sum>, Fault> {
    let consumers = store.list::<Consumer>(tables::consumers(project, user)).await?;
    let mut held: BTreeMap<String, Vec<Amounts>> = BTreeMap::new();
    for row in store.list::<Allocation>(Query::all().project(project)).await? {
        held.entry(row.record.consumer).or_default().push(row.record.resources);
    }
    let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
    for consumer in consumers {
        let sum = sums.entry(consumer.record.consumer_type.unwrap_or_else(|| UNKNOWN_TYPE.to_owned())).or_default();
        sum.consumers += 1;
        for (class, amount) in held.remove(&consumer.record.uuid).into_iter().flatten().flatten() {
            *sum.used.entry(class).or_default() += amount;
        }
    }
    Ok(sums)
}
