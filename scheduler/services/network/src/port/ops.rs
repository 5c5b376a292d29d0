//! The verbs of ports; the only writer of the record. Compute calls these in its own transactions.
pub use super::address_list::addresses;
use super::{
    allocation::{self, Allocated, Wish},
    binding,
    model::{AddressPair, DhcpOption, FLOATING, FixedIp, LOCAL_IP, Port, ROUTER_GATEWAY, ROUTER_INTERFACE, Status},
};
use crate::{
    address,
    attribute::overlay,
    dns::model::{Words, has_keywords},
    fault, firewall,
    floating_ip::{self, model::FloatingIp},
    flow_log,
    list::Raw,
    local_ip, ndp_proxy,
    network::{
        model::VirtualNetwork,
        ops::sees_all,
        private::{self, Role},
    },
    port_forwarding, qos, quota,
    router::model::Router,
    security_group, segment,
    spare::model::{CENTRE, SPARE_INTERFACE},
    tables::find,
    tap, trunk,
};
use pilvi_kit::{Ctx, Fault};
use pilvi_store::{Store, Stored, Tx};
use serde::Deserialize;
use serde_json::{Value, json};

/// What a port is made of; everything but `network_id` may be left to the defaults.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct NewPort {
    /// `None`: the caller's; `Some("")`: nobody's (ports that the service makes for itself).
    pub project_id: Option<String>,
    pub network_id: String,
    pub name: String,
    pub description: Option<String>,
    pub admin_state_up: Option<bool>,
    pub mac_address: Option<String>,
    /// `None`: one address of each family; empty: none.
    pub fixed_ips: Option<Vec<Wish>>,
    /// One address by itself: short for a `fixed_ips` of one entry.
    pub fixed_ip: Option<String>,
    pub device_id: String,
    pub device_owner: String,
    /// Ids; `None`: the project's default group.
    pub security_groups: Option<Vec<String>>,
    pub allowed_address_pairs: Vec<Pair>,
    pub port_security_enabled: Option<bool>,
    pub extra_dhcp_opts: Vec<NewDhcpOption>,
    pub dns_name: String,
    pub dns_domain: String,
    /// "" leaves it unbound.
    #[serde(rename = "binding:host_id")]
    pub host_id: String,
    #[serde(rename = "binding:vnic_type")]
    pub vnic_type: Option<String>,
    #[serde(rename = "binding:profile")]
    pub profile: Value,
    /// `None`: yes.
    pub propagate_uplink_status: Option<bool>,
    pub numa_affinity_policy: Option<String>,
    pub device_profile: Option<String>,
    pub hardware_offload_type: Option<String>,
    pub qos_policy_id: Option<String>,
    pub pvlan_type: Option<String>,
    pub pvlan_community: Option<String>,
    pub tags: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Pair {
    pub ip_address: String,
    /// `None`: the port's own.
    pub mac_address: Option<String>,
}

/// A DHCP option; no value removes it (on update).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct NewDhcpOption {
    pub opt_name: String,
    pub opt_value: Option<String>,
    pub ip_version: u8,
}

/// Draws of a MAC address before giving up.
const MAC_DRAWS: usize = 16;

pub async fn create_in(tx: &mut Tx, ctx: &Ctx, mut new: NewPort) -> Result<Stored<Port>, Fault> {
    let project = new.project_id.clone().unwrap_or_else(|| ctx.project_id().to_owned());
    if let Some(address) = new.fixed_ip.take() {
        new.fixed_ips = Some(vec![Wish { subnet_id: None, ip_address: Some(address) }]);
    }
    quota::check_in::<Port>(tx, &project, "port").await?;
    let mut network =
        tx.get::<VirtualNetwork>(&new.network_id).await?.ok_or_else(|| fault::network_missing(&new.network_id))?;
    let mac = mac_in(tx, &network.id, new.mac_address.as_deref()).await?;
    let own = new.device_owner.starts_with("network:");
    let security = !own && new.port_security_enabled.unwrap_or(network.port_security_enabled);
    let groups = groups_in(tx, &new, &project, security, own).await?;
    if !security && !new.allowed_address_pairs.is_empty() {
        return Err(pairs_need_security());
    }
    let wished = Role { kind: new.pvlan_type, community: new.pvlan_community };
    let role = private::role_in(tx, &mut network, wished).await?;
    let spelt_later = [&network.dns_domain, &new.dns_domain].into_iter().any(|domain| has_keywords(domain));
    let dns_words = spelt_later.then(|| Words::of(ctx));
    let mut profile = if new.profile.is_object() { new.profile } else { json!({}) };
    if let Some(offload) = &new.hardware_offload_type {
        ask_of_device(&mut profile, offload);
    }
    let id = pilvi_kit::id::new();
    let mut port = Port {
        id,
        project_id: project,
        network_id: network.id.clone(),
        name: new.name,
        description: new.description.or(Some(String::new())),
        admin_state_up: new.admin_state_up.unwrap_or(true),
        mac_address: mac,
        fixed_ips: Vec::new(),
        device_id: new.device_id,
        device_owner: new.device_owner,
        security_groups: groups,
        allowed_address_pairs: Vec::new(),
        extra_dhcp_opts: merge_options(&[], &new.extra_dhcp_opts),
        port_security_enabled: security,
        status: first_status(own),
        dns_name: new.dns_name,
        dns_domain: new.dns_domain,
        dns_words,
        host_id: new.host_id,
        also_on: String::new(),
        also_vnic_type: String::new(),
        also_profile: Value::Null,
        vnic_type: new.vnic_type.unwrap_or_else(|| "normal".to_owned()),
        profile,
        propagate_uplink_status: new.propagate_uplink_status.unwrap_or(true),
        data_plane_status: None,
        numa_affinity_policy: new.numa_affinity_policy,
        device_profile: new.device_profile,
        hardware_offload_type: new.hardware_offload_type,
        qos_policy_id: new.qos_policy_id,
        pvlan_type: role.kind,
        pvlan_community: role.community,
        deferred: false,
        tags: new.tags,
    };
    port.allowed_address_pairs = pairs(&new.allowed_address_pairs, &port.mac_address);
    if [FLOATING, LOCAL_IP].contains(&port.device_owner.as_str()) {
        port.status = Status::NotApplicable;
    }
    match allocation::allocate_in(tx, port.clone().holder(), new.fixed_ips.as_deref()).await? {
        Allocated::Now(fixed) => port.fixed_ips = fixed,
        Allocated::Later => port.deferred = true,
    }
    Ok(tx.insert(&port).await?)
}

/// Ports of the service itself need no wire; guests' ports are down until their host says otherwise.
fn first_status(own: bool) -> Status {
    if own { Status::Active } else { Status::Down }
}

/// Among a binding's capabilities, where drivers look for it.
fn ask_of_device(profile: &mut Value, offload: &str) {
    let asked = &mut profile["capabilities"];
    match asked.as_array_mut() {
        Some(list) if list.iter().any(|one| one == offload) => {}
        Some(list) => list.push(json!(offload)),
        None => *asked = json!([offload]),
    }
}

fn pairs_need_security() -> Fault {
    fault::conflict(
        "AddressPairAndPortSecurityRequired",
        "Port Security must be enabled in order to have allowed address pairs on a port.",
    )
}

fn pairs(given: &[Pair], own: &str) -> Vec<AddressPair> {
    given
        .iter()
        .map(|p| AddressPair {
            ip_address: p.ip_address.clone(),
            mac_address: p.mac_address.clone().unwrap_or_else(|| own.to_owned()),
        })
        .collect()
}

fn merge_options(have: &[DhcpOption], sent: &[NewDhcpOption]) -> Vec<DhcpOption> {
    let mut out = have.to_vec();
    for new in sent {
        let version = if new.ip_version == 6 { 6 } else { 4 };
        out.retain(|o| o.opt_name != new.opt_name || o.ip_version != version);
        if let Some(value) = &new.opt_value {
            out.push(DhcpOption { opt_name: new.opt_name.clone(), opt_value: value.clone(), ip_version: version });
        }
    }
    out
}

async fn mac_in(tx: &mut Tx, network: &str, wanted: Option<&str>) -> Result<String, Fault> {
    if let Some(mac) = wanted {
        if tx.count::<Port>(find::mac_on(network, mac)).await? > 0 {
            return Err(fault::conflict(
                "MacAddressInUse",
                format!("Unable to complete operation for network {network}. The mac address {mac} is in use."),
            ));
        }
        return Ok(mac.to_owned());
    }
    for _ in 0..MAC_DRAWS {
        let mac = address::random_mac(&mut rand::rng());
        if tx.count::<Port>(find::mac_on(network, &mac)).await? == 0 {
            return Ok(mac);
        }
    }
    Err(Fault::unavailable(format!("Unable to generate unique mac on network {network}."))
        .kind("MacAddressGenerationFailure"))
}

async fn groups_in(tx: &mut Tx, new: &NewPort, project: &str, security: bool, own: bool) -> Result<Vec<String>, Fault> {
    match &new.security_groups {
        Some(ids) if !ids.is_empty() => {
            if !security {
                return Err(groups_need_security());
            }
            security_group::ops::check_usable_in(tx, project, ids).await?;
            Ok(ids.clone())
        }
        Some(_) => Ok(Vec::new()),
        None if security && !own => Ok(vec![security_group::ops::ensure_default_in(tx, project).await?]),
        None => Ok(Vec::new()),
    }
}

fn groups_need_security() -> Fault {
    fault::bad(
        "PortSecurityAndIPRequiredForSecurityGroups",
        "Port security must be enabled and port must have an IP address in order to use security groups.",
    )
}

/// Changes attributes; `changes` is what [`crate::attribute::Resource::parse`] gave.
pub async fn update_in(tx: &mut Tx, mut found: Stored<Port>, changes: &Raw) -> Result<Stored<Port>, Fault> {
    let before = found.record.clone();
    let mut changes = changes.clone();
    let wishes = take::<Vec<Wish>>(&mut changes, "fixed_ips")?;
    let options = take::<Vec<NewDhcpOption>>(&mut changes, "extra_dhcp_opts")?;
    let given_pairs = take::<Vec<Pair>>(&mut changes, "allowed_address_pairs")?;
    fold_trust(&mut changes, &before.profile);
    if changes.get("binding:host_id").is_some_and(Value::is_null) {
        changes.insert("binding:host_id".into(), json!(""));
    }
    if changes.get("mac_address").is_some_and(Value::is_null) {
        changes.insert("mac_address".into(), json!(mac_in(tx, &before.network_id, None).await?));
    }
    let mut after: Port = overlay(&before, &changes)?;
    if let Some(mac) = changes.get("mac_address").and_then(Value::as_str).filter(|m| *m != before.mac_address) {
        if !before.host_id.is_empty() {
            return Err(fault::conflict(
                "PortBound",
                format!(
                    "Unable to complete operation on port {}, port is already bound, port type: tap, old_mac {}, new_mac {mac}.",
                    before.id, before.mac_address
                ),
            ));
        }
        mac_in(tx, &before.network_id, Some(mac)).await?;
    }
    qos::least::refuse_change_in(tx, &before, &after).await?;
    if let Some(options) = options {
        after.extra_dhcp_opts = merge_options(&before.extra_dhcp_opts, &options);
    }
    if let Some(given) = given_pairs {
        after.allowed_address_pairs = pairs(&given, &after.mac_address);
    }
    security_after(tx, &before, &mut after, &changes).await?;
    role_after(tx, &mut after, &changes).await?;
    if let Some(wishes) = wishes {
        refuse_losing_floating(tx, &before, &wishes).await?;
        after.fixed_ips = allocation::reallocate_in(tx, after.clone().holder(), &before.fixed_ips, &wishes).await?;
        after.deferred = false;
        port_forwarding::ops::forget_in(tx, &before.id, &after.fixed_ips).await?;
        local_ip::ops::refuse_losing_in(tx, &before.id, &after.fixed_ips).await?;
        local_ip::ops::forget_in(tx, &before.id, &after.fixed_ips).await?;
        ndp_proxy::ops::forget_in(tx, &before.id, &after.fixed_ips).await?;
    }
    if after.host_id != before.host_id && !after.device_owner.starts_with("network:") {
        let host = after.host_id.clone();
        segment::reach::settle_in(tx, &mut after, &host).await?;
        after.status = Status::Down;
        trunk::ops::follow_in(tx, &after).await?;
    }
    found.record = after;
    Ok(tx.update(&found).await?)
}

/// Changes of names, with who makes them where the domain has keywords for that and nobody is known yet.
pub(crate) async fn with_words_in(tx: &mut Tx, ctx: &Ctx, port: &Port, changes: &Raw) -> Result<Raw, Fault> {
    let mut changes = changes.clone();
    if port.dns_words.is_none() && (changes.contains_key("dns_name") || changes.contains_key("dns_domain")) {
        let own = changes.get("dns_domain").and_then(Value::as_str).is_some_and(has_keywords);
        let network = tx.get::<VirtualNetwork>(&port.network_id).await?;
        if own || network.is_some_and(|n| has_keywords(&n.dns_domain)) {
            changes.insert("dns_words".into(), json!(Words::of(ctx)));
        }
    }
    Ok(changes)
}

/// Another place in a private network; who leaves a community leaves its name.
async fn role_after(tx: &mut Tx, after: &mut Port, changes: &Raw) -> Result<(), Fault> {
    if !changes.contains_key("pvlan_type") && !changes.contains_key("pvlan_community") {
        return Ok(());
    }
    let network = tx.get::<VirtualNetwork>(&after.network_id).await?;
    let mut network = network.ok_or_else(|| fault::network_missing(&after.network_id))?;
    if after.pvlan_type.as_deref() != Some("community") && !changes.contains_key("pvlan_community") {
        after.pvlan_community = None;
    }
    let wished = Role { kind: after.pvlan_type.take(), community: after.pvlan_community.take() };
    let role = private::role_in(tx, &mut network, wished).await?;
    (after.pvlan_type, after.pvlan_community) = (role.kind, role.community);
    Ok(())
}

/// `trusted` is a word in the binding's profile, where drivers look for it.
pub(crate) fn fold_trust(attrs: &mut Raw, profile: &Value) {
    let Some(trusted) = attrs.remove("trusted").filter(|t| !t.is_null()) else { return };
    let mut profile = attrs.get("binding:profile").filter(|p| p.is_object()).unwrap_or(profile).clone();
    profile["trusted"] = trusted;
    attrs.insert("binding:profile".into(), profile);
}

fn take<T: serde::de::DeserializeOwned>(changes: &mut Raw, name: &str) -> Result<Option<T>, Fault> {
    changes.remove(name).map(serde_json::from_value).transpose().map_err(Fault::internal)
}

async fn security_after(tx: &mut Tx, before: &Port, after: &mut Port, changes: &Raw) -> Result<(), Fault> {
    if changes.contains_key("security_groups") {
        let ids = after.security_groups.clone();
        if !ids.is_empty() && !after.port_security_enabled {
            return Err(groups_need_security());
        }
        security_group::ops::check_usable_in(tx, &after.project_id, &ids).await?;
    } else if before.port_security_enabled && !after.port_security_enabled && !before.security_groups.is_empty() {
        return Err(fault::conflict(
            "PortSecurityPortHasSecurityGroup",
            "Port has security group associated. Cannot disable port security or IP address until security group is removed.",
        ));
    }
    if !after.port_security_enabled && !after.allowed_address_pairs.is_empty() {
        return Err(pairs_need_security());
    }
    Ok(())
}

/// A fixed address that a floating IP points to cannot go.
async fn refuse_losing_floating(tx: &mut Tx, port: &Port, wishes: &[Wish]) -> Result<(), Fault> {
    for floating in tx.list::<FloatingIp>(find::of_ports([port.id.as_str()])).await? {
        let fixed = floating.fixed_ip_address.as_deref().unwrap_or_default();
        let subnet = port.fixed_ips.iter().find(|f| f.ip_address == fixed).map(|f| f.subnet_id.as_str());
        let kept = wishes.iter().any(|w| {
            w.ip_address.as_deref() == Some(fixed) || (w.ip_address.is_none() && w.subnet_id.as_deref() == subnet)
        });
        if !kept {
            return Err(fault::conflict(
                "FipAssociated",
                format!(
                    "Unable to complete the operation on port {} because the port still has an associated floating IP.",
                    port.id
                ),
            ));
        }
    }
    Ok(())
}

/// Says which host wires the port; `None` unbinds it. Its status is DOWN until that host reports it.
pub async fn bind_in(tx: &mut Tx, port_id: &str, host: Option<&str>) -> Result<Stored<Port>, Fault> {
    let mut port = tx.get::<Port>(port_id).await?.ok_or_else(|| fault::port_missing(port_id))?;
    let host = host.unwrap_or_default();
    if port.host_id == host {
        return Ok(port);
    }
    segment::reach::settle_in(tx, &mut port.record, host).await?;
    host.clone_into(&mut port.host_id);
    port.status = Status::Down;
    trunk::ops::follow_in(tx, &port).await?;
    Ok(tx.update(&port).await?)
}

/// Prepares another host for a port whose guest is about to move there; "" takes that back.
pub async fn prepare_in(tx: &mut Tx, port_id: &str, host: &str) -> Result<(), Fault> {
    let mut port = tx.get::<Port>(port_id).await?.ok_or_else(|| fault::port_missing(port_id))?;
    segment::reach::settle_in(tx, &mut port.record, host).await?;
    binding::forget_other(&mut port.record);
    host.clone_into(&mut port.also_on);
    tx.update(&port).await?;
    Ok(())
}

/// The guest of a port runs on a host that was prepared for it: wired there already, so its status stays.
pub async fn follow_in(tx: &mut Tx, port_id: &str, host: &str) -> Result<(), Fault> {
    let mut port = tx.get::<Port>(port_id).await?.ok_or_else(|| fault::port_missing(port_id))?;
    host.clone_into(&mut port.host_id);
    binding::forget_other(&mut port.record);
    trunk::ops::follow_in(tx, &port).await?;
    tx.update(&port).await?;
    Ok(())
}

/// Hands a port to a device (a server). `hostname` names the guest where the port has no name of its own.
pub async fn update_device_in(
    tx: &mut Tx,
    port_id: &str,
    device_id: &str,
    device_owner: &str,
    hostname: &str,
) -> Result<Stored<Port>, Fault> {
    let mut port = tx.get::<Port>(port_id).await?.ok_or_else(|| fault::port_missing(port_id))?;
    if !port.device_id.is_empty() && port.device_id != device_id {
        return Err(fault::conflict(
            "PortInUse",
            format!(
                "Unable to complete operation on port {port_id} for network {}. Port already has an attached device {}.",
                port.network_id, port.device_id
            ),
        ));
    }
    device_id.clone_into(&mut port.device_id);
    device_owner.clone_into(&mut port.device_owner);
    if port.dns_name.is_empty() {
        hostname.clone_into(&mut port.dns_name);
    }
    Ok(tx.update(&port).await?)
}

/// Takes a port away from its device: unbound, down, free for the next.
pub async fn release_device_in(tx: &mut Tx, port_id: &str) -> Result<Stored<Port>, Fault> {
    let mut port = tx.get::<Port>(port_id).await?.ok_or_else(|| fault::port_missing(port_id))?;
    let port_of = &mut port.record;
    for text in [&mut port_of.device_id, &mut port_of.device_owner, &mut port_of.host_id, &mut port_of.dns_name] {
        text.clear();
    }
    binding::forget_other(port_of);
    if let Some(profile) = port.profile.as_object_mut() {
        profile.remove(qos::least::ALLOCATION);
    }
    port.status = Status::Down;
    Ok(tx.update(&port).await?)
}

/// The port, if the caller may use it; else 404.
pub async fn visible(store: &Store, ctx: &Ctx, id: &str) -> Result<Stored<Port>, Fault> {
    let found = store.get::<Port>(id).await?;
    found.filter(|p| sees_all(ctx) || p.project_id == ctx.project_id()).ok_or_else(|| fault::port_missing(id))
}

/// Deletes a port that a user (or compute) may delete; routers' and floating IPs' ports go with their owner.
pub async fn delete_in(tx: &mut Tx, ctx: &Ctx, port_id: &str) -> Result<(), Fault> {
    let port = tx.get::<Port>(port_id).await?.ok_or_else(|| fault::port_missing(port_id))?;
    let owned = match port.device_owner.as_str() {
        ROUTER_INTERFACE | ROUTER_GATEWAY | SPARE_INTERFACE | CENTRE => {
            tx.get::<Router>(&port.device_id).await?.is_some()
        }
        FLOATING => tx.get::<FloatingIp>(&port.device_id).await?.is_some(),
        _ => false,
    };
    if owned {
        return Err(fault::conflict(
            "ServicePortInUse",
            format!(
                "Port {port_id} cannot be deleted directly via the port API: has device owner {}.",
                port.device_owner
            ),
        ));
    }
    trunk::ops::refuse_in_trunk(tx, &port).await?;
    floating_ip::ops::forget_port_in(tx, ctx, port_id).await?;
    remove_in(tx, &port).await
}

/// Deletes a port and gives its addresses back, whoever owns it.
pub(crate) async fn remove_in(tx: &mut Tx, port: &Port) -> Result<(), Fault> {
    allocation::release_in(tx, &port.fixed_ips).await?;
    flow_log::ops::forget_in(tx, &port.id).await?;
    local_ip::ops::forget_in(tx, &port.id, &[]).await?;
    local_ip::ops::forget_holder_in(tx, &port.id).await?;
    ndp_proxy::ops::forget_in(tx, &port.id, &[]).await?;
    tap::ops::forget_in(tx, &port.id).await?;
    firewall::group::ops::forget_in(tx, &port.id).await?;
    tx.delete::<Port>(&port.id).await?;
    Ok(())
}

/// The ports of a server, oldest first.
pub async fn list_by_device(store: &Store, device_id: &str) -> Result<Vec<Stored<Port>>, Fault> {
    let mut ports = store.list::<Port>(find::of_device(device_id)).await?;
    ports.sort_by_key(|p| p.created_us);
    Ok(ports)
}

/// The same inside a transaction.
pub async fn list_by_device_in(tx: &mut Tx, device_id: &str) -> Result<Vec<Stored<Port>>, Fault> {
    let mut ports = tx.list::<Port>(find::of_device(device_id)).await?;
    ports.sort_by_key(|p| p.created_us);
    Ok(ports)
}

/// A wish for an address of this subnet.
pub fn on_subnet(subnet_id: &str, address: Option<&str>) -> Wish {
    Wish { subnet_id: Some(subnet_id.to_owned()), ip_address: address.map(str::to_owned) }
}

/// The wish that would give this address again.
pub fn same(fixed: &FixedIp) -> Wish {
    on_subnet(&fixed.subnet_id, Some(&fixed.ip_address))
}
