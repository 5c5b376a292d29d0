//! Actions of a server that change its ports: security groups, fixed addresses, floating IPs.
use crate::{
    Compute,
    server::{
        ops::{living_in, refuse_if_locked},
        reconcile::owner,
    },
    tables::Server,
};
use pilvi_kit::{Call, Ctx, Fault, Reply, Response, clock, version::Version};
use pilvi_network::{
    floating_ip::{model::FloatingIp, ops as floating_ips},
    port::{model::Port, ops as ports},
    security_group::ops as groups,
    tables::find,
};
use pilvi_store::{Stored, Tx};
use serde_json::{Map, Value, json};

/// The last microversion that has the actions of addresses.
const ADDRESSES: Version = Version(2, 43);

/// Is it one of these?
pub fn knows(action: &str) -> bool {
    of_addresses(action) || matches!(action, "addSecurityGroup" | "removeSecurityGroup")
}

fn of_addresses(action: &str) -> bool {
    matches!(action, "addFixedIp" | "removeFixedIp" | "addFloatingIp" | "removeFloatingIp")
}

/// Is there no such action any more at the call's microversion?
pub fn gone(call: &Call, action: &str) -> bool {
    call.version > ADDRESSES && of_addresses(action)
}

/// What to do, parsed.
#[derive(Debug, Clone)]
enum Verb {
    Group { name: String, add: bool },
    AddFixed { network: String },
    RemoveFixed { address: String },
    AddFloating { address: String, fixed: Option<String> },
    RemoveFloating { address: String },
}

fn parse(action: &str, body: &Value) -> Result<Verb, Fault> {
    let text = |key: &str| {
        let value = body[key].as_str().map(str::trim).filter(|t| !t.is_empty() && t.len() <= 255);
        let missing = || {
            Fault::bad_request(format!("Invalid input for field/attribute {action}. '{key}' is a required property"))
        };
        value.map(str::to_owned).ok_or_else(missing)
    };
    let address = |key: &str| {
        let text = text(key)?;
        let parsed = text.parse::<std::net::IpAddr>().map(|a| a.to_string());
        parsed.map_err(|_| {
            Fault::bad_request(format!("Invalid input for field/attribute {key}. '{text}' is no address."))
        })
    };
    Ok(match action {
        "addSecurityGroup" | "removeSecurityGroup" => {
            Verb::Group { name: text("name")?, add: action.starts_with("add") }
        }
        "addFixedIp" => Verb::AddFixed { network: text("networkId")? },
        "removeFixedIp" => Verb::RemoveFixed { address: address("address")? },
        "addFloatingIp" => {
            let fixed = if body["fixed_address"].is_null() { None } else { Some(address("fixed_address")?) };
            Verb::AddFloating { address: address("address")?, fixed }
        }
        _ => Verb::RemoveFloating { address: address("address")? },
    })
}

/// Does it: 202, or the reason why not.
pub async fn act(svc: &Compute, call: &Call, server: &Stored<Server>, action: &str, body: &Value) -> Reply {
    let verb = parse(action, body)?;
    let (id, ctx) = (server.record.id.clone(), call.ctx.clone());
    svc.store
        .write(move |tx| {
            let (id, ctx, verb) = (id.clone(), ctx.clone(), verb.clone());
            Box::pin(async move {
                let mut server = living_in(tx, &id).await?;
                refuse_if_locked(&ctx, &server)?;
                let have = ports::list_by_device_in(tx, &id).await?;
                match verb {
                    Verb::Group { name, add } => group_in(tx, &mut server, have, &name, add).await?,
                    Verb::AddFixed { network } => add_fixed_in(tx, have, &network).await?,
                    Verb::RemoveFixed { address } => remove_fixed_in(tx, &id, have, &address).await?,
                    Verb::AddFloating { address, fixed } => {
                        return point_in(tx, &ctx, &server, have, &address, fixed).await;
                    }
                    Verb::RemoveFloating { address } => return unpoint_in(tx, &ctx, &id, have, &address).await,
                }
                // The guest reads its addresses as metadata, so the host is told.
                server.record.wanted.generation += 1;
                server.record.changed_us = clock::now_us();
                tx.update(&server).await?;
                Ok::<_, Fault>(())
            })
        })
        .await?;
    svc.poke(&server.record.id);
    Ok(Response::empty(202))
}

fn changes(name: &str, value: Value) -> Map<String, Value> {
    Map::from_iter([(name.to_owned(), value)])
}

async fn group_in(
    tx: &mut Tx,
    server: &mut Stored<Server>,
    have: Vec<Stored<Port>>,
    name: &str,
    add: bool,
) -> Result<(), Fault> {
    let found = groups::resolve_in(tx, &owner(server), &[name.to_owned()]).await?;
    let Some(group) = found.into_iter().next() else {
        return Err(Fault::not_found(format!("Security group {name} not found.")));
    };
    let mut touched = false;
    for port in have.into_iter().filter(|p| p.port_security_enabled && !p.fixed_ips.is_empty()) {
        let mut ids = port.security_groups.clone();
        let had = ids.contains(&group);
        if add {
            touched = true;
            if !had {
                ids.push(group.clone());
            }
        } else {
            touched |= had;
            ids.retain(|id| *id != group);
        }
        if ids != port.security_groups {
            ports::update_in(tx, port, &changes("security_groups", json!(ids))).await?;
        }
    }
    let known = server.security_groups.contains(&group);
    if !touched && (add || !known) {
        let (id, word) = (&server.record.id, if add { "cannot be associated" } else { "not associated" });
        let text = format!("Security group {name} {word} with the instance {id}");
        return Err(if add { Fault::bad_request(text) } else { Fault::not_found(text) });
    }
    server.record.security_groups.retain(|id| *id != group);
    if add {
        server.record.security_groups.push(group);
    }
    Ok(())
}

/// One more address on the server's port of that network.
async fn add_fixed_in(tx: &mut Tx, have: Vec<Stored<Port>>, network: &str) -> Result<(), Fault> {
    let Some(port) = have.into_iter().find(|p| p.network_id == network) else {
        return Err(Fault::bad_request(format!("The server has no interface on network {network}.")));
    };
    let Some(subnet) = port.fixed_ips.iter().find(|f| !f.ip_address.contains(':')).map(|f| f.subnet_id.clone()) else {
        return Err(Fault::bad_request("No more IPs available"));
    };
    let mut wishes: Vec<Value> = port.fixed_ips.iter().map(|f| json!(f)).collect();
    wishes.push(json!({"subnet_id": subnet}));
    ports::update_in(tx, port, &changes("fixed_ips", json!(wishes))).await?;
    Ok(())
}

async fn remove_fixed_in(tx: &mut Tx, id: &str, have: Vec<Stored<Port>>, address: &str) -> Result<(), Fault> {
    let Some(port) = have.into_iter().find(|p| p.fixed_ips.iter().any(|f| f.ip_address == address)) else {
        return Err(Fault::bad_request(format!("Fixed IP {address} not found for instance {id}.")));
    };
    let left: Vec<Value> = port.fixed_ips.iter().filter(|f| f.ip_address != address).map(|f| json!(f)).collect();
    ports::update_in(tx, port, &changes("fixed_ips", json!(left))).await?;
    Ok(())
}

/// The project's floating IP by its address.
async fn floating_in(tx: &mut Tx, ctx: &Ctx, address: &str) -> Result<Stored<FloatingIp>, Fault> {
    let all = tx.list::<FloatingIp>(find::of_project(ctx.project_id())).await?;
    let found = all.into_iter().find(|f| f.floating_ip_address == address);
    found.ok_or_else(|| Fault::not_found("floating IP not found"))
}

async fn point_in(
    tx: &mut Tx,
    ctx: &Ctx,
    server: &Server,
    have: Vec<Stored<Port>>,
    address: &str,
    fixed: Option<String>,
) -> Result<(), Fault> {
    let found = floating_in(tx, ctx, address).await?;
    let v4 = |p: &&Stored<Port>| {
        p.fixed_ips.iter().any(|f| !f.ip_address.contains(':') && fixed.as_ref().is_none_or(|x| *x == f.ip_address))
    };
    let Some(port) = have.iter().find(v4) else {
        return Err(Fault::bad_request(match &fixed {
            Some(fixed) => format!("Specified fixed address {fixed} not assigned to instance"),
            None => format!("No fixed IPs associated to instance {}", server.id),
        }));
    };
    let inside = fixed.clone().or_else(|| port.first_ipv4().map(str::to_owned));
    let mut wanted = changes("port_id", json!(port.record.id));
    wanted.insert("fixed_ip_address".into(), json!(inside));
    floating_ips::update_in(tx, ctx, found, &wanted).await
}

async fn unpoint_in(tx: &mut Tx, ctx: &Ctx, id: &str, have: Vec<Stored<Port>>, address: &str) -> Result<(), Fault> {
    let found = floating_in(tx, ctx, address).await?;
    if !found.port_id.as_ref().is_some_and(|p| have.iter().any(|h| h.record.id == *p)) {
        return Err(Fault::conflict(format!("Floating IP {address} is not associated with instance {id}.")));
    }
    floating_ips::update_in(tx, ctx, found, &changes("port_id", Value::Null)).await
}
