//! What hosts say of prefixes becomes those of subnets.
use super::{
    model::{NONE, PrefixLease, usable},
    ops,
};
use crate::{Network, router::model::Router, subnet::model::Subnet};
use ipnet::IpNet;
use pilvi_agent_api::v1::ObservedDelegation;
use pilvi_kit::Fault;
use pilvi_store::{Query, Tx};
use std::collections::HashMap;

impl Network {
    /// `said` is all that `host` knows of what it was to ask for or to give back.
    pub async fn delegated(&self, host: &str, said: &[ObservedDelegation]) -> Result<(), Fault> {
        if said.is_empty() {
            return Ok(());
        }
        let keys: Vec<String> = said.iter().map(|d| PrefixLease::key(&d.router_id, &d.subnet_id)).collect();
        let mut known: HashMap<String, PrefixLease> = HashMap::new();
        for chunk in keys.chunks(400) {
            let found = self.store.list::<PrefixLease>(Query::all().ids(chunk.iter().map(String::as_str))).await?;
            known.extend(found.into_iter().map(|l| (l.record.id.clone(), l.record)));
        }
        for (key, one) in keys.iter().zip(said) {
            if !is_new(known.get(key), host, one) || !(one.released || self.holds(host, &one.router_id).await?) {
                continue;
            }
            let (host, one) = (host.to_owned(), one.clone());
            self.store
                .write(move |tx| {
                    let (host, one) = (host.clone(), one.clone());
                    Box::pin(async move { take_in(tx, &host, &one).await })
                })
                .await?;
        }
        Ok(())
    }

    async fn holds(&self, host: &str, router_id: &str) -> Result<bool, Fault> {
        let Some(router) = self.store.get::<Router>(router_id).await? else { return Ok(false) };
        Ok(self.holder_of(&router.record).await?.as_deref().is_none_or(|holder| holder == host))
    }
}

fn is_new(known: Option<&PrefixLease>, host: &str, said: &ObservedDelegation) -> bool {
    match (known, said.released) {
        (known, true) => known.is_some_and(|k| k.releasing && k.host_id == host),
        (Some(known), false) => {
            known.releasing || known.host_id != host || known.prefix != said.prefix || known.until != said.until
        }
        (None, false) => !said.prefix.is_empty(),
    }
}

/// Takes one host's word; what is no longer asked for, or could not be used, changes nothing.
async fn take_in(tx: &mut Tx, host: &str, said: &ObservedDelegation) -> Result<(), Fault> {
    let key = PrefixLease::key(&said.router_id, &said.subnet_id);
    let known = tx.get::<PrefixLease>(&key).await?;
    if said.released {
        if known.is_some_and(|k| k.releasing && k.host_id == host) {
            tx.delete::<PrefixLease>(&key).await?;
        }
        return Ok(());
    }
    let Some(subnet) = tx.get::<Subnet>(&said.subnet_id).await?.filter(|s| s.is_delegated()) else { return Ok(()) };
    if ops::asker_in(tx, &subnet).await?.as_ref() != Some(&said.router_id) {
        return Ok(());
    }
    if said.prefix.is_empty() {
        if known.is_none() {
            return Ok(());
        }
        tx.delete::<PrefixLease>(&key).await?;
        return if subnet.is_bare() { Ok(()) } else { ops::give_in(tx, subnet, NONE).await };
    }
    let Some(router) = tx.get::<Router>(&said.router_id).await? else { return Ok(()) };
    let Some(prefix) = usable(&said.prefix).map(IpNet::V6) else {
        tracing::warn!(subnet = said.subnet_id, prefix = said.prefix, "what was lent is no prefix for guests");
        return Ok(());
    };
    if let Some(other) = ops::overlap_in(tx, &subnet, &router, &prefix).await? {
        tracing::warn!(subnet = said.subnet_id, %prefix, other, "what was lent is in use by another subnet of the router");
        return Ok(());
    }
    let lease = PrefixLease {
        id: key,
        router_id: said.router_id.clone(),
        subnet_id: said.subnet_id.clone(),
        host_id: host.to_owned(),
        prefix: prefix.to_string(),
        until: said.until,
        releasing: false,
    };
    match known {
        Some(mut known) => {
            known.record = lease;
            tx.update(&known).await?;
        }
        None => {
            tx.insert(&lease).await?;
        }
    }
    if subnet.cidr == prefix.to_string() { Ok(()) } else { ops::give_in(tx, subnet, &prefix.to_string()).await }
}
