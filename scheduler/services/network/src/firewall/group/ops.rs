//! The verbs of firewall groups; the only writer of which port is in which.
use crate::{
    attribute::overlay,
    fault,
    firewall::{
        knows, made,
        model::{DEFAULT, FirewallGroup, FirewallPolicy, FirewallPort},
        policy::api::FIREWALL_POLICY,
        preset, text, texts,
    },
    list::Raw,
    network::ops::sees_all,
    port::model::{Port, ROUTER_INTERFACE},
    quota,
    tables::find,
};
use pilvi_kit::{Ctx, Fault};
use pilvi_store::{Stored, Tx};

pub async fn create_in(tx: &mut Tx, ctx: &Ctx, attrs: &Raw) -> Result<Stored<FirewallGroup>, Fault> {
    let project = text(attrs, "project_id");
    preset::ensure_in(tx, project).await?;
    quota::check_in::<FirewallGroup>(tx, project, "firewall_group").await?;
    check_name(attrs)?;
    let group: FirewallGroup = made(attrs)?;
    check_policies(tx, ctx, &group).await?;
    let ports = texts(attrs, "ports");
    check_ports(tx, ctx, &ports).await?;
    let stored = tx.insert(&group).await?;
    set_ports(tx, &group.id, &ports).await?;
    Ok(stored)
}

pub async fn update_in(tx: &mut Tx, ctx: &Ctx, mut found: Stored<FirewallGroup>, changes: &Raw) -> Result<(), Fault> {
    check_name(changes)?;
    if found.is_default() {
        check_default(ctx, &found.id, changes)?;
    }
    let mut rest = changes.clone();
    let ports = rest.remove("ports").map(|_| texts(changes, "ports"));
    found.record = overlay(&found.record, &rest)?;
    if found.policies().next().is_some() {
        check_policies(tx, ctx, &found).await?;
    }
    if let Some(ports) = ports {
        check_ports(tx, ctx, &ports).await?;
        set_ports(tx, &found.id, &ports).await?;
    }
    tx.update(&found).await?;
    Ok(())
}

/// Not while it has ports; a project's own stays, unless an administrator takes it away.
pub async fn delete_in(tx: &mut Tx, ctx: &Ctx, group: &FirewallGroup) -> Result<(), Fault> {
    if tx.count::<FirewallPort>(find::in_firewall_groups([group.id.as_str()])).await? > 0 {
        let text = format!("Firewall group {} is still active.", group.id);
        return Err(fault::conflict("FirewallGroupInUse", text));
    }
    if !group.is_default() {
        tx.delete::<FirewallGroup>(&group.id).await?;
        return Ok(());
    }
    if !ctx.caller.has_role("admin") {
        let text = "Deleting default firewall group not allowed.";
        return Err(fault::conflict("FirewallGroupCannotRemoveDefault", text));
    }
    preset::forget_in(tx, group).await
}

/// A port goes, and is in no group any more.
pub async fn forget_in(tx: &mut Tx, port: &str) -> Result<(), Fault> {
    if tx.get::<FirewallPort>(port).await?.is_some() {
        tx.delete::<FirewallPort>(port).await?;
    }
    Ok(())
}

fn check_name(attrs: &Raw) -> Result<(), Fault> {
    if text(attrs, "name") == DEFAULT {
        let text = "Operation cannot be performed since 'default' is a reserved name for Firewall Group.";
        return Err(fault::conflict("FirewallDefaultParameterExists", text));
    }
    Ok(())
}

/// Of a project's own group everybody may change the ports; what it does, administrators alone, and its name nobody.
fn check_default(ctx: &Ctx, id: &str, changes: &Raw) -> Result<(), Fault> {
    let fixed = ["name", "description", "admin_state_up", "ingress_firewall_policy_id", "egress_firewall_policy_id"];
    let fixed = if ctx.caller.has_role("admin") { &fixed[..1] } else { &fixed[..] };
    if fixed.iter().any(|name| changes.contains_key(*name)) {
        let text = format!("Operation cannot be performed on default object '{id}' of type Firewall Group.");
        return Err(fault::conflict("FirewallDefaultObjectUpdateRestricted", text));
    }
    Ok(())
}

async fn check_policies(tx: &mut Tx, ctx: &Ctx, group: &FirewallGroup) -> Result<(), Fault> {
    for id in group.policies() {
        let found = tx
            .get::<FirewallPolicy>(id)
            .await?
            .filter(|p| knows(ctx, &p.project_id, p.shared) || p.project_id == group.project_id);
        let policy = found.ok_or_else(|| FIREWALL_POLICY.not_found(id))?;
        if policy.project_id != group.project_id && !policy.shared {
            let text = format!(
                "Operation cannot be performed since firewall policy {id} for your project could not be found. Please confirm if the firewall policy exists and is shared."
            );
            return Err(Fault::not_found(text).kind("FirewallPolicyConflict"));
        }
    }
    Ok(())
}

/// Ports of servers that are on a host, and legs of routers.
async fn check_ports(tx: &mut Tx, ctx: &Ctx, ports: &[String]) -> Result<(), Fault> {
    for id in ports {
        let port = tx.get::<Port>(id).await?.filter(|p| sees_all(ctx) || p.project_id == ctx.project_id());
        let port = port.ok_or_else(|| fault::port_missing(id))?;
        if port.device_owner == ROUTER_INTERFACE {
            continue;
        }
        if !port.device_owner.starts_with("compute:") {
            let text = format!("Port {id} of firewall group is invalid.");
            return Err(fault::conflict("FirewallGroupPortInvalid", text));
        }
        if port.host_id.is_empty() {
            let text = format!("Port {id} is not supported by firewall driver 'pilvi': it is on no host.");
            return Err(fault::conflict("FirewallGroupPortNotSupported", text));
        }
    }
    Ok(())
}

/// These ports and no others are in the group.
async fn set_ports(tx: &mut Tx, group: &str, ports: &[String]) -> Result<(), Fault> {
    let mut taken = Vec::new();
    let mut new = Vec::new();
    for id in ports {
        match tx.get::<FirewallPort>(id).await? {
            Some(there) if there.firewall_group_id != group => taken.push(id.clone()),
            Some(_) => {}
            None => new.push(FirewallPort { id: id.clone(), firewall_group_id: group.to_owned() }),
        }
    }
    if !taken.is_empty() {
        let text = format!("Port(s) {taken:?} provided already associated with other firewall group(s).");
        return Err(fault::conflict("FirewallGroupPortInUse", text));
    }
    for former in tx.list::<FirewallPort>(find::in_firewall_groups([group])).await? {
        if !ports.contains(&former.id) {
            tx.delete::<FirewallPort>(&former.id).await?;
        }
    }
    for port in new {
        tx.insert(&port).await?;
    }
    Ok(())
}
