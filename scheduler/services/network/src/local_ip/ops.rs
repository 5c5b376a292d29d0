//! The verbs of local IPs and their associations; the only writer of both records.
use super::model::{Association, LocalIp, Mode};
use crate::{
    attribute::overlay,
    fault,
    list::Raw,
    network::{
        model::VirtualNetwork,
        ops::{is_visible, sees_all},
    },
    port::{
        allocation::Wish,
        model::{FixedIp, LOCAL_IP, Port},
        ops::{self as ports, NewPort},
    },
    subnet::model::Subnet,
    tables::find,
};
use pilvi_kit::{Ctx, Fault};
use pilvi_store::{Stored, Tx};
use serde_json::{Value, json};

/// Local IPs of one project, and ports behind one of them.
const LOCAL_IPS_MAX: u64 = 256;
const ASSOCIATIONS_MAX: u64 = 4096;

pub fn missing(id: &str) -> Fault {
    fault::missing("LocalIPNotFound", "Local IP", id)
}

fn invalid(kind: &'static str, reason: impl std::fmt::Display) -> Fault {
    fault::bad(kind, format!("Invalid input for operation: {reason}."))
}

fn text<'a>(attrs: &'a Raw, name: &str) -> Option<&'a str> {
    attrs.get(name).and_then(Value::as_str)
}

pub async fn create_in(tx: &mut Tx, ctx: &Ctx, attrs: &Raw) -> Result<Stored<LocalIp>, Fault> {
    let project = text(attrs, "project_id").unwrap_or_default();
    if tx.count::<LocalIp>(find::of_project(project)).await? >= LOCAL_IPS_MAX {
        return Err(Fault::conflict(format!("A project has at most {LOCAL_IPS_MAX} local IPs.")));
    }
    let id = pilvi_kit::id::new();
    let wish = text(attrs, "local_ip_address");
    let (port, address) = match (text(attrs, "local_port_id"), text(attrs, "network_id")) {
        (Some(port), _) => {
            let port = usable_port_in(tx, ctx, port, "local_ip").await?;
            let address = address_of(&port, wish)?;
            (port, address)
        }
        (None, Some(network)) => {
            let port = port_in(tx, ctx, project, network, wish, &id).await?;
            let address = address_of(&port, None)?;
            (port, address)
        }
        (None, None) => {
            return Err(invalid(
                "LocalIPPortOrNetworkRequired",
                "Either Port ID or Network ID must be specified for Local IP create",
            ));
        }
    };
    let mut document = attrs.clone();
    document.insert("id".into(), json!(id));
    document.insert("local_port_id".into(), json!(port.id));
    document.insert("network_id".into(), json!(port.network_id));
    document.insert("local_ip_address".into(), json!(address));
    let local: LocalIp = serde_json::from_value(Value::Object(document)).map_err(Fault::internal)?;
    Ok(tx.insert(&local).await?)
}

/// A guest's port, or a free one, that the caller may use.
async fn usable_port_in(tx: &mut Tx, ctx: &Ctx, id: &str, what: &str) -> Result<Port, Fault> {
    let port = tx.get::<Port>(id).await?.filter(|p| sees_all(ctx) || p.project_id == ctx.project_id());
    // The service's own ports have addresses that a whole network relies on.
    let port = port.filter(|p| !p.device_owner.starts_with("network:"));
    Ok(port.ok_or_else(|| fault::bad("BadRequest", format!("Bad {what} request: Port {id} not found.")))?.record)
}

/// A port that holds an address of the network and nothing else.
async fn port_in(
    tx: &mut Tx,
    ctx: &Ctx,
    project: &str,
    network_id: &str,
    address: Option<&str>,
    local_ip: &str,
) -> Result<Port, Fault> {
    let network = tx.get::<VirtualNetwork>(network_id).await?.filter(|n| is_visible(n, ctx));
    network.ok_or_else(|| fault::network_missing(network_id))?;
    let subnets = tx.list::<Subnet>(find::on_network(network_id)).await?;
    let subnet = subnets.iter().find(|s| s.ip_version == 4).ok_or_else(|| {
        fault::bad(
            "BadRequest",
            format!("Bad local_ip request: Network {network_id} does not contain any IPv4 subnet."),
        )
    })?;
    let wish = match address {
        Some(address) => Wish { subnet_id: None, ip_address: Some(address.to_owned()) },
        None => Wish { subnet_id: Some(subnet.id.clone()), ip_address: None },
    };
    let new = NewPort {
        project_id: Some(project.to_owned()),
        network_id: network_id.to_owned(),
        device_id: local_ip.to_owned(),
        device_owner: LOCAL_IP.to_owned(),
        fixed_ips: Some(vec![wish]),
        ..NewPort::default()
    };
    Ok(ports::create_in(tx, ctx, new).await?.record)
}

/// The wished IPv4 address of a port, or its only one.
fn address_of(port: &Port, wish: Option<&str>) -> Result<String, Fault> {
    let v4: Vec<&FixedIp> = port.fixed_ips.iter().filter(|f| !f.ip_address.contains(':')).collect();
    let found = match (wish, v4.as_slice()) {
        (_, []) => {
            return Err(invalid("LocalIPNoIP", format!("Specified Port {} has no fixed IPs configured", port.id)));
        }
        (Some(wish), all) => all.iter().find(|f| f.ip_address == wish).ok_or_else(|| {
            invalid(
                "LocalIPRequestedIPNotFound",
                format!("Specified Port {} does not have requested IP address: {wish}", port.id),
            )
        })?,
        (None, [one]) => one,
        (None, _) => {
            return Err(invalid(
                "LocalIPNoRequestedIP",
                format!(
                    "Specified Port {} has several IPs, should specify exact IP address to use for Local IP",
                    port.id
                ),
            ));
        }
    };
    Ok(found.ip_address.clone())
}

pub async fn update_in(tx: &mut Tx, mut found: Stored<LocalIp>, changes: &Raw) -> Result<(), Fault> {
    found.record = overlay(&found.record, changes)?;
    tx.update(&found).await?;
    Ok(())
}

/// Refused while a port stands behind it; a port that was made for it goes too.
pub async fn delete_in(tx: &mut Tx, found: &LocalIp) -> Result<(), Fault> {
    if tx.count::<Association>(find::of_local_ip(&found.id)).await? > 0 {
        return Err(fault::conflict(
            "LocalIPInUse",
            format!("Local IP {} is still associated with one or more ports.", found.id),
        ));
    }
    tx.delete::<LocalIp>(&found.id).await?;
    match tx.get::<Port>(&found.local_port_id).await? {
        Some(port) if port.device_owner == LOCAL_IP => ports::remove_in(tx, &port).await,
        _ => Ok(()),
    }
}

pub async fn associate_in(tx: &mut Tx, ctx: &Ctx, attrs: &Raw) -> Result<Stored<Association>, Fault> {
    let local_ip = text(attrs, "local_ip_id").unwrap_or_default();
    let local = tx.get::<LocalIp>(local_ip).await?.ok_or_else(|| missing(local_ip))?;
    let port_id = text(attrs, "fixed_port_id").unwrap_or_default();
    let port = usable_port_in(tx, ctx, port_id, "local_ip_port_association").await?;
    if port.network_id != local.network_id {
        return Err(fault::bad(
            "BadRequest",
            format!("Bad local_ip_port_association request: Port {port_id} is not on network {}.", local.network_id),
        ));
    }
    let fixed_ip = address_of(&port, text(attrs, "fixed_ip"))?;
    let id = Association::key(local_ip, port_id);
    if tx.get::<Association>(&id).await?.is_some() {
        return Err(fault::conflict(
            "LocalIPAssociationExists",
            format!("Local IP {local_ip} association with port {port_id} already exists."),
        ));
    }
    if tx.count::<Association>(find::of_local_ip(local_ip)).await? >= ASSOCIATIONS_MAX {
        return Err(Fault::conflict(format!("A local IP has at most {ASSOCIATIONS_MAX} associations.")));
    }
    let association = Association {
        id,
        project_id: local.project_id.clone(),
        local_ip_id: local_ip.to_owned(),
        fixed_port_id: port_id.to_owned(),
        fixed_ip,
    };
    Ok(tx.insert(&association).await?)
}

/// Refuses to take a local IP's address from the port that holds it: it may be another's next.
pub async fn refuse_losing_in(tx: &mut Tx, port_id: &str, kept: &[FixedIp]) -> Result<(), Fault> {
    for local in tx.list::<LocalIp>(find::held_by(port_id)).await? {
        if !kept.iter().any(|f| f.ip_address == local.local_ip_address) {
            return Err(fault::conflict(
                "LocalIPAddressInUse",
                format!("The address {} of port {port_id} is that of Local IP {}.", local.local_ip_address, local.id),
            ));
        }
    }
    Ok(())
}

/// The port goes with its server, whatever it holds: the local IP has no address any more.
pub async fn forget_holder_in(tx: &mut Tx, port_id: &str) -> Result<(), Fault> {
    for local in tx.list::<LocalIp>(find::held_by(port_id)).await? {
        for association in tx.list::<Association>(find::of_local_ip(&local.id)).await? {
            tx.delete::<Association>(&association.id).await?;
        }
        tx.delete::<LocalIp>(&local.id).await?;
    }
    Ok(())
}

/// Refuses to delete the port that holds a local IP's address, when a user asks for it.
pub async fn refuse_holder_in(tx: &mut Tx, port_id: &str) -> Result<(), Fault> {
    if tx.count::<LocalIp>(find::held_by(port_id)).await? == 0 {
        return Ok(());
    }
    Err(fault::conflict(
        "ServicePortInUse",
        format!("Port {port_id} cannot be deleted directly via the port API: still referenced by Local IPs."),
    ))
}

/// A port goes, or loses addresses: it stands behind no local IP by them any more.
pub async fn forget_in(tx: &mut Tx, port_id: &str, kept: &[FixedIp]) -> Result<(), Fault> {
    for association in tx.list::<Association>(find::of_fixed_ports([port_id])).await? {
        if !kept.iter().any(|f| f.ip_address == association.fixed_ip) {
            tx.delete::<Association>(&association.id).await?;
        }
    }
    Ok(())
}

/// Whether packets to it are translated.
pub fn translates(local: &LocalIp) -> bool {
    local.ip_mode == Mode::Translate
}
