//! From a port or a floating IP to its publication and the names that it touches, in one transaction.
use super::{
    model::{Entry, NameWish, Publication},
    publish::Settings,
    rule,
};
use crate::{
    floating_ip::model::FloatingIp, network::model::VirtualNetwork, port::model::Port, subnet::model::Subnet,
    tables::find,
};
use pilvi_kit::Fault;
use pilvi_store::{Record, Store, Stored, Tx};
use std::collections::BTreeSet;

pub fn of_port(id: &str) -> String {
    format!("{}/{id}", Port::KIND)
}

pub fn of_floating(id: &str) -> String {
    format!("{}/{id}", FloatingIp::KIND)
}

/// Brings the publication of one port or floating IP up to what it is now.
pub async fn settle(store: &Store, settings: &Settings, source: &str) -> Result<(), Fault> {
    let (settings, source) = (settings.clone(), source.to_owned());
    store
        .write(move |tx| {
            let (settings, source) = (settings.clone(), source.clone());
            Box::pin(async move { settle_in(tx, &settings, &source).await })
        })
        .await
}

async fn settle_in(tx: &mut Tx, settings: &Settings, source: &str) -> Result<(), Fault> {
    let (project_id, entries) = match source.split_once('/') {
        Some((Port::KIND, id)) => port_in(tx, settings, id).await?,
        Some((FloatingIp::KIND, id)) => floating_in(tx, settings, id).await?,
        _ => return Ok(()),
    };
    let before = tx.get::<Publication>(source).await?;
    let after = Publication { id: source.to_owned(), project_id, entries };
    let touched: BTreeSet<String> = match &before {
        Some(before) if before.record == after => return Ok(()),
        Some(before) => before.names().union(&after.names()).map(|n| (*n).to_owned()).collect(),
        None => after.names().into_iter().map(str::to_owned).collect(),
    };
    match before {
        None if after.entries.is_empty() => return Ok(()),
        None => drop(tx.insert(&after).await?),
        Some(_) if after.entries.is_empty() => drop(tx.delete::<Publication>(source).await?),
        Some(mut before) => {
            before.record = after;
            tx.update(&before).await?;
        }
    }
    for name in touched {
        ask_in(tx, &name).await?;
    }
    Ok(())
}

/// The name has to be looked at.
pub async fn ask_in(tx: &mut Tx, name: &str) -> Result<(), Fault> {
    match tx.get::<NameWish>(name).await? {
        Some(mut wish) => {
            wish.asked += 1;
            tx.update(&wish).await?;
        }
        None => drop(tx.insert(&NameWish { id: name.to_owned(), asked: 1 }).await?),
    }
    Ok(())
}

type Wanted = (String, BTreeSet<Entry>);

async fn port_in(tx: &mut Tx, settings: &Settings, id: &str) -> Result<Wanted, Fault> {
    let Some(port) = tx.get::<Port>(id).await?.filter(|p| !p.dns_name.is_empty()) else { return Ok(Wanted::default()) };
    let Some(network) = tx.get::<VirtualNetwork>(&port.network_id).await? else { return Ok(Wanted::default()) };
    let subnets = records(tx.list::<Subnet>(find::on_network(&network.id)).await?);
    Ok((port.project_id.clone(), rule::of_port(settings, &port, &network, &subnets)))
}

async fn floating_in(tx: &mut Tx, settings: &Settings, id: &str) -> Result<Wanted, Fault> {
    let Some(floating) = tx.get::<FloatingIp>(id).await? else { return Ok(Wanted::default()) };
    let mut behind = None;
    if let Some(port) = &floating.port_id
        && let Some(port) = tx.get::<Port>(port).await?
    {
        let network = tx.get::<VirtualNetwork>(&port.network_id).await?;
        behind = network.map(|network| (port.record, network.record));
    }
    let behind = behind.as_ref().map(|(port, network)| (port, network));
    Ok((floating.project_id.clone(), rule::of_floating(settings, &floating, behind)))
}

pub fn records<R>(stored: Vec<Stored<R>>) -> Vec<R> {
    stored.into_iter().map(|s| s.record).collect()
}
