//! The verbs of templates; the only writer of the record.
use super::model::{DefaultRule, PARENT};
use crate::{
    address_group::{self, model::AddressGroup},
    fault,
    list::Raw,
    security_group::{
        model::{SecurityGroup, SecurityGroupRule},
        rule,
    },
    tables::Once,
};
use pilvi_kit::Fault;
use pilvi_store::{Query, Store, Stored, Tx};
use serde_json::{Value, json};

/// Written once: the first templates are there, or were.
const FIRST: &str = "default-security-group-rules";

/// The templates, the first ones made when they are asked for first.
pub async fn all_in(tx: &mut Tx) -> Result<Vec<DefaultRule>, Fault> {
    if tx.get::<Once>(FIRST).await?.is_none() {
        tx.insert(&Once { id: FIRST.to_owned() }).await?;
        for one in DefaultRule::first() {
            tx.insert(&one).await?;
        }
    }
    let mut all: Vec<DefaultRule> = tx.list::<DefaultRule>(Query::all()).await?.into_iter().map(|r| r.record).collect();
    all.sort_by(|a, b| (&a.ethertype, &a.id).cmp(&(&b.ethertype, &b.id)));
    Ok(all)
}

/// Makes the first ones in a transaction of its own, for readers.
pub async fn ensure(store: &Store) -> Result<(), Fault> {
    if store.get::<Once>(FIRST).await?.is_some() {
        return Ok(());
    }
    store.write(|tx| Box::pin(async move { all_in(tx).await.map(|_| ()) })).await
}

/// The rules that `group` begins with.
pub async fn rules_for_in(tx: &mut Tx, group: &SecurityGroup) -> Result<Vec<SecurityGroupRule>, Fault> {
    Ok(all_in(tx).await?.iter().filter(|t| t.is_for(group)).map(|t| t.rule(group)).collect())
}

pub async fn create_in(tx: &mut Tx, attrs: &Raw) -> Result<Stored<DefaultRule>, Fault> {
    let mut document = attrs.clone();
    document.insert("id".into(), json!(pilvi_kit::id::new()));
    let new: DefaultRule = serde_json::from_value(Value::Object(document)).map_err(Fault::internal)?;
    rule::check(&new.rule(&SecurityGroup::unnamed()))?;
    if let Some(remote) = new.remote_group_id.as_ref().filter(|g| *g != PARENT) {
        tx.get::<SecurityGroup>(remote).await?.ok_or_else(|| fault::group_missing(remote))?;
    }
    if let Some(remote) = &new.remote_address_group_id {
        tx.get::<AddressGroup>(remote).await?.ok_or_else(|| address_group::ops::missing(remote))?;
    }
    if let Some(other) = all_in(tx).await?.into_iter().find(|o| o.meets(&new)) {
        return Err(fault::conflict(
            "DefaultSecurityGroupRuleExists",
            format!("Default Security group rule already exists. Rule id is {}.", other.id),
        ));
    }
    Ok(tx.insert(&new).await?)
}

pub async fn delete_in(tx: &mut Tx, id: &str) -> Result<(), Fault> {
    tx.delete::<DefaultRule>(id).await?;
    Ok(())
}
