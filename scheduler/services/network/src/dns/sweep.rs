//! A look at everything: after a start, after the feed was cut, when the configuration is another, and now and then.
use super::{
    model::{Publication, PublishedName},
    publish::Settings,
    rule,
    source::{self, records},
};
use crate::{
    floating_ip::model::FloatingIp, network::model::VirtualNetwork, port::model::Port, subnet::model::Subnet,
    tables::find,
};
use pilvi_kit::Fault;
use pilvi_store::Store;
use std::collections::{BTreeSet, HashMap};

/// Sources whose publication is not what it should be. Ports are read network by network.
pub async fn stale(store: &Store, settings: &Settings) -> Result<BTreeSet<String>, Fault> {
    let known = store.list::<Publication>(find::all()).await?;
    let mut known: HashMap<String, Publication> = known.into_iter().map(|p| (p.id.clone(), p.record)).collect();
    let mut stale = BTreeSet::new();
    let mut compare = |now: Publication| {
        let same = match known.remove(&now.id) {
            Some(before) => before == now,
            None => now.entries.is_empty(),
        };
        if !same {
            stale.insert(now.id);
        }
    };
    let floating = records(store.list::<FloatingIp>(find::all()).await?);
    let mut leading: HashMap<&str, Vec<&FloatingIp>> = HashMap::new();
    for one in &floating {
        leading.entry(one.port_id.as_deref().unwrap_or_default()).or_default().push(one);
    }
    for network in records(store.list::<VirtualNetwork>(find::all()).await?) {
        let ports = store.list::<Port>(find::on_network(&network.id)).await?;
        let subnets = records(store.list::<Subnet>(find::on_network(&network.id)).await?);
        for port in records(ports) {
            let entries = rule::of_port(settings, &port, &network, &subnets);
            compare(Publication { id: source::of_port(&port.id), project_id: port.project_id.clone(), entries });
            for one in leading.remove(port.id.as_str()).unwrap_or_default() {
                compare(of_floating(settings, one, Some((&port, &network))));
            }
        }
    }
    for one in leading.into_values().flatten() {
        compare(of_floating(settings, one, None));
    }
    // Whatever is left belongs to something that is gone.
    stale.extend(known.into_keys());
    Ok(stale)
}

fn of_floating(settings: &Settings, one: &FloatingIp, behind: Option<(&Port, &VirtualNetwork)>) -> Publication {
    Publication {
        id: source::of_floating(&one.id),
        project_id: one.project_id.clone(),
        entries: rule::of_floating(settings, one, behind),
    }
}

/// Asks for names that were told elsewhere or otherwise than they would be now.
pub async fn ask_outdated(store: &Store, settings: &Settings) -> Result<(), Fault> {
    let names = records(store.list::<PublishedName>(find::all()).await?);
    for name in names.into_iter().filter(|name| !settings.told_so(name)) {
        store
            .write(move |tx| {
                let id = name.id.clone();
                Box::pin(async move { source::ask_in(tx, &id).await })
            })
            .await?;
    }
    Ok(())
}
