//! The verbs of trunks; the only writer of the record, and of what makes a port a subport.
use super::model::{INHERIT, SUBPORT, SubPort, Trunk, VLAN};
use crate::{
    attribute::overlay,
    fault,
    list::Raw,
    network::{
        model::VirtualNetwork,
        ops::{mtu_in, sees_all},
    },
    port::model::{Port, Status},
    tables::find,
};
use pilvi_kit::{Ctx, Fault};
use pilvi_store::{Stored, Tx};
use serde_json::{Value, json};

/// Ports of one trunk.
pub const SUBPORTS_MAX: usize = 256;

fn missing(id: &str) -> Fault {
    fault::missing("TrunkNotFound", "Trunk", id)
}

/// A port that the caller may put into a trunk, and that nothing else uses.
async fn free_port_in(tx: &mut Tx, ctx: &Ctx, id: &str) -> Result<Stored<Port>, Fault> {
    let port = tx.get::<Port>(id).await?.filter(|p| sees_all(ctx) || p.project_id == ctx.project_id());
    let port = port.ok_or_else(|| fault::port_missing(id))?;
    if port.device_owner == SUBPORT || !tx.list::<Trunk>(find::of_ports([id])).await?.is_empty() {
        return Err(fault::conflict("TrunkPortInUse", format!("Port {id} is in use by another trunk.")));
    }
    if !port.host_id.is_empty() || port.device_owner.starts_with("network:") {
        return Err(fault::conflict(
            "ParentPortInUse",
            format!("Port {id} is currently in use and is not eligible for use as a parent port."),
        ));
    }
    Ok(port)
}

pub async fn create_in(tx: &mut Tx, ctx: &Ctx, attrs: &Raw) -> Result<Stored<Trunk>, Fault> {
    let mut document = attrs.clone();
    document.insert("id".into(), json!(pilvi_kit::id::new()));
    let mut trunk: Trunk = serde_json::from_value(Value::Object(document)).map_err(Fault::internal)?;
    free_port_in(tx, ctx, &trunk.port_id).await?;
    let wishes = std::mem::take(&mut trunk.sub_ports);
    let stored = tx.insert(&trunk).await?;
    if wishes.is_empty() {
        return Ok(stored);
    }
    add_in(tx, ctx, &trunk.id, wishes).await?;
    tx.get::<Trunk>(&trunk.id).await?.ok_or_else(|| missing(&trunk.id))
}

pub async fn update_in(tx: &mut Tx, mut found: Stored<Trunk>, changes: &Raw) -> Result<(), Fault> {
    found.record = overlay(&found.record, changes)?;
    tx.update(&found).await?;
    Ok(())
}

fn refuse_disabled(trunk: &Trunk) -> Result<(), Fault> {
    if trunk.admin_state_up {
        return Ok(());
    }
    Err(fault::conflict("TrunkDisabled", format!("Trunk {} is currently disabled.", trunk.id)))
}

/// With the tag of its network, where that was wished.
async fn tagged_in(tx: &mut Tx, ctx: &Ctx, mut wish: SubPort) -> Result<SubPort, Fault> {
    if wish.segmentation_type != INHERIT {
        return Ok(wish);
    }
    let port = free_port_in(tx, ctx, &wish.port_id).await?;
    let network = tx.get::<VirtualNetwork>(&port.network_id).await?;
    let tag = network.filter(|n| n.network_type == VLAN).and_then(|n| n.segmentation_id);
    let Some(tag) = tag.and_then(|t| u16::try_from(t).ok()) else {
        return Err(fault::bad(
            "InvalidInheritNetworkSegmentationType",
            format!("Port {} cannot inherit: only networks of type {VLAN} have a tag.", wish.port_id),
        ));
    };
    VLAN.clone_into(&mut wish.segmentation_type);
    wish.segmentation_id = tag;
    Ok(wish)
}

pub async fn add_in(tx: &mut Tx, ctx: &Ctx, id: &str, wishes: Vec<SubPort>) -> Result<(), Fault> {
    let mut trunk = tx.get::<Trunk>(id).await?.ok_or_else(|| missing(id))?;
    // A trunk may be made down with all that is in it, but not changed while it is.
    if !trunk.sub_ports.is_empty() {
        refuse_disabled(&trunk)?;
    }
    let parent = tx.get::<Port>(&trunk.port_id).await?.ok_or_else(|| fault::port_missing(&trunk.port_id))?;
    let most = mtu_in(tx, &parent.network_id).await?;
    for wish in wishes {
        let wish = tagged_in(tx, ctx, wish).await?;
        let taken = trunk.sub_ports.iter().any(|s| s.segmentation_id == wish.segmentation_id);
        if taken {
            return Err(fault::conflict(
                "DuplicateSubPort",
                format!(
                    "segmentation_type {} and segmentation_id {} already in use on trunk {id}.",
                    wish.segmentation_type, wish.segmentation_id
                ),
            ));
        }
        let mut port = free_port_in(tx, ctx, &wish.port_id).await?;
        let mtu = mtu_in(tx, &port.network_id).await?;
        if mtu > most {
            return Err(fault::conflict(
                "SubPortMtuGreaterThanTrunkPortMtu",
                format!("MTU {mtu} of subport {} cannot be greater than MTU {most} of trunk {id}.", port.id),
            ));
        }
        SUBPORT.clone_into(&mut port.device_owner);
        id.clone_into(&mut port.device_id);
        port.host_id.clone_from(&parent.host_id);
        port.status = Status::Down;
        tx.update(&port).await?;
        trunk.sub_ports.push(wish);
    }
    if trunk.sub_ports.len() > SUBPORTS_MAX {
        return Err(Fault::conflict(format!("A trunk has at most {SUBPORTS_MAX} subports.")));
    }
    tx.update(&trunk).await?;
    Ok(())
}

pub async fn remove_in(tx: &mut Tx, id: &str, wishes: &[SubPort]) -> Result<(), Fault> {
    let mut trunk = tx.get::<Trunk>(id).await?.ok_or_else(|| missing(id))?;
    refuse_disabled(&trunk)?;
    for wish in wishes {
        if trunk.tag_of(&wish.port_id).is_none() {
            return Err(fault::missing("SubPortNotFound", "SubPort", &wish.port_id));
        }
        free_in(tx, &wish.port_id).await?;
        trunk.sub_ports.retain(|s| s.port_id != wish.port_id);
    }
    tx.update(&trunk).await?;
    Ok(())
}

/// The port is its own again.
async fn free_in(tx: &mut Tx, port_id: &str) -> Result<(), Fault> {
    if let Some(mut port) = tx.get::<Port>(port_id).await? {
        port.device_owner = String::new();
        port.device_id = String::new();
        port.host_id = String::new();
        port.status = Status::Down;
        tx.update(&port).await?;
    }
    Ok(())
}

/// Refused while a guest has the parent, or while it is down: what stands in it is not to change then.
pub async fn delete_in(tx: &mut Tx, trunk: &Trunk) -> Result<(), Fault> {
    refuse_disabled(trunk)?;
    if tx.get::<Port>(&trunk.port_id).await?.is_some_and(|p| !p.host_id.is_empty()) {
        return Err(fault::conflict("TrunkInUse", format!("Trunk {} is currently in use.", trunk.id)));
    }
    for sub in &trunk.sub_ports {
        free_in(tx, &sub.port_id).await?;
    }
    tx.delete::<Trunk>(&trunk.id).await?;
    Ok(())
}

/// Subports are where their parent is.
pub async fn follow_in(tx: &mut Tx, parent: &Port) -> Result<(), Fault> {
    for trunk in tx.list::<Trunk>(find::of_ports([parent.id.as_str()])).await? {
        for sub in &trunk.sub_ports {
            if let Some(mut port) = tx.get::<Port>(&sub.port_id).await?
                && port.host_id != parent.host_id
            {
                port.host_id.clone_from(&parent.host_id);
                port.status = Status::Down;
                tx.update(&port).await?;
            }
        }
    }
    Ok(())
}

/// A port of a trunk cannot go before it has left it.
pub async fn refuse_in_trunk(tx: &mut Tx, port: &Port) -> Result<(), Fault> {
    if let Some(trunk) = tx.list::<Trunk>(find::of_ports([port.id.as_str()])).await?.first() {
        return Err(fault::conflict(
            "PortInUseAsTrunkParent",
            format!("Port {} is currently a parent port for trunk {}.", port.id, trunk.id),
        ));
    }
    if port.device_owner == SUBPORT && tx.get::<Trunk>(&port.device_id).await?.is_some() {
        return Err(fault::conflict(
            "PortInUseAsSubPort",
            format!("Port {} is currently a subport for trunk {}.", port.id, port.device_id),
        ));
    }
    Ok(())
}
