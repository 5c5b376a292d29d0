//! The network that candidates' ports are on: one for each project with routers that keep spare ways, nobody's, without guests.
use crate::{
    attribute::{Resource, Verb},
    fault,
    list::Raw,
    network::{
        self,
        api::NETWORK,
        model::{OVERLAY, VirtualNetwork},
    },
    port::model::Port,
    router::model::Router,
    subnet::{self, api::SUBNET, model::Subnet},
    tables::find,
};
use pilvi_kit::{Ctx, Fault};
use pilvi_store::Tx;
use serde_json::{Value, json};

/// Link-local addresses, as the API's users know them; nothing is sent from them.
const BLOCK: &str = "169.254.192.0/18";
/// Whose it is, in its record.
pub const HA_FOR: &str = "ha_for";

fn attrs(res: &Resource, wanted: &Value) -> Result<Raw, Fault> {
    res.parse(wanted, Verb::Create, "")
}

/// 409 where the project has one: it is made once.
pub async fn refuse_second_in(tx: &mut Tx, project: &str) -> Result<(), Fault> {
    if tx.count::<VirtualNetwork>(find::spare_network(project)).await? == 0 {
        return Ok(());
    }
    Err(fault::conflict("DuplicatedHANetwork", format!("Project {project} already has a HA network.")))
}

/// The project's network, made now if there is none.
pub async fn ensure_in(tx: &mut Tx, project: &str) -> Result<String, Fault> {
    let found = tx.list::<VirtualNetwork>(find::spare_network(project)).await?.into_iter().next();
    let ctx = Ctx::internal();
    let id = match found {
        Some(found) => found.record.id,
        None => {
            let wanted = json!({"name": format!("HA network project {project}"), "provider:network_type": OVERLAY});
            let mut attrs = attrs(&NETWORK, &wanted)?;
            attrs.insert(HA_FOR.into(), json!(project));
            network::ops::create_in(tx, &ctx, &attrs).await?.record.id
        }
    };
    if tx.count::<Subnet>(find::on_network(&id)).await? == 0 {
        let name = format!("HA subnet project {project}");
        let wanted = json!({"name": name, "network_id": id, "ip_version": 4, "cidr": BLOCK, "enable_dhcp": false, "gateway_ip": null});
        subnet::ops::create_in(tx, &ctx, &attrs(&SUBNET, &wanted)?).await?;
    }
    Ok(id)
}

/// With the last router that keeps spare ways the network goes, unless somebody else made it or is on it.
pub async fn drop_unused_in(tx: &mut Tx, project: &str) -> Result<(), Fault> {
    if tx.list::<Router>(find::of_project(project)).await?.iter().any(|r| r.ha) {
        return Ok(());
    }
    for network in tx.list::<VirtualNetwork>(find::spare_network(project)).await? {
        if network.project_id.is_empty() && tx.count::<Port>(find::on_network(&network.id)).await? == 0 {
            network::ops::delete_in(tx, &Ctx::internal(), network).await?;
        }
    }
    Ok(())
}
