//! `/v2.0/ports`
use super::{
    binding::UNBINDABLE,
    leg,
    model::{FixedIp, Port},
    name,
    ops::{self, NewPort},
};
use crate::{
    Network,
    attribute::{Absent, Resource, Verb, later, once, open, shown},
    check::{self, Checked},
    fault,
    list::{self, Raw},
    local_ip,
    network::{model::VirtualNetwork, ops as networks},
    qos,
    subnet::api::{by_id, parent, target_on_network},
    tables::find,
    trunk,
    verbs::{self, Api},
};
use pilvi_kit::{Call, Ctx, Fault, Route, Schema, call::Query};
use pilvi_store::{Query as Find, Store, Stored, Tx};
use serde_json::{Value, json};
use std::{collections::HashSet, sync::LazyLock};

pub static PORT: Resource = Resource {
    name: "port",
    collection: "ports",
    missing: "PortNotFound",
    label: "Port",
    attrs: &[
        once("network_id", check::uuid).required(),
        open("admin_state_up", check::boolean).absent(Absent::Bool(true)),
        open("mac_address", check::mac_or_null).ruled(),
        open("fixed_ips", check::fixed_ips).ruled(),
        open("device_id", check::text::<255>).absent(Absent::Text("")).ruled(),
        open("device_owner", check::text::<255>).absent(Absent::Text("")).ruled(),
        open("security_groups", check::uuids),
        open("allowed_address_pairs", check::address_pairs).absent(Absent::EmptyList).ruled(),
        open("extra_dhcp_opts", check::dhcp_options).absent(Absent::EmptyList),
        open("port_security_enabled", check::boolean).ruled(),
        open("dns_name", check::dns_name).absent(Absent::Text("")),
        open("dns_domain", check::dns_domain_of_ports).absent(Absent::Text("")),
        open("binding:host_id", check::text_or_null::<255>).ruled().restricted(),
        open("binding:profile", check::object_or_null).ruled().restricted(),
        open("binding:vnic_type", check::vnic_type).absent(Absent::Text("normal")).ruled(),
        later("data_plane_status", check_data_plane).ruled(),
        open("numa_affinity_policy", check_numa).absent(Absent::Null).ruled().restricted(),
        once("device_profile", check::text_or_null::<255>).absent(Absent::Null),
        once("hardware_offload_type", check_offload).absent(Absent::Null),
        open("propagate_uplink_status", check::boolean).absent(Absent::Bool(true)),
        open("trusted", check::boolean_or_null).absent(Absent::Null).ruled().restricted(),
        open("qos_policy_id", check::uuid_or_null).absent(Absent::Null),
        open("pvlan_type", check_pvlan_type).absent(Absent::Null),
        open("pvlan_community", check_pvlan_community).absent(Absent::Null),
        shown("binding:vif_type").restricted(),
        shown("binding:vif_details").restricted(),
        shown("dns_assignment"),
        shown("status"),
        shown("ip_allocation"),
        shown("qos_network_policy_id"),
        shown("trunk_details"),
        shown("resource_request").restricted(),
    ],
    lacks: &[],
    below: "",
};

fn check_pvlan_type(value: &Value) -> Checked {
    if value.is_null() { Ok(Value::Null) } else { check::one_of(value, &["promiscuous", "isolated", "community"]) }
}

fn check_data_plane(value: &Value) -> Checked {
    if value.is_null() { Ok(Value::Null) } else { check::one_of(value, &["ACTIVE", "DOWN"]) }
}

fn check_numa(value: &Value) -> Checked {
    if value.is_null() { Ok(Value::Null) } else { check::one_of(value, &["required", "preferred", "legacy", "socket"]) }
}

fn check_offload(value: &Value) -> Checked {
    if value.is_null() { Ok(Value::Null) } else { check::one_of(value, &["switchdev"]) }
}

/// A letter, then letters, digits, `-` and `_`.
fn check_pvlan_community(value: &Value) -> Checked {
    let Some(name) = value.as_str() else {
        return if value.is_null() { Ok(Value::Null) } else { Err(format!("'{}' is not a name", check::plain(value))) };
    };
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic());
    let goes_on = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if begins && goes_on && name.len() <= 255 {
        return Ok(value.clone());
    }
    Err(format!("'{}' is not a letter, followed by letters, digits, '_' and '-'", check::plain(value)))
}

static CREATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| PORT.schema(Verb::Create)));
static UPDATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| PORT.schema(Verb::Update)));

pub fn routes() -> Vec<Route<Network>> {
    vec![
        Route::get("/v2.0/ports", verbs::list::<Port>).rule_by_handler("get_port").summary("Lists ports"),
        Route::post("/v2.0/ports", verbs::create::<Port>)
            .rule_by_handler("create_port")
            .schema(&CREATE)
            .summary("Creates one port or many"),
        Route::get("/v2.0/ports/{id}", verbs::show::<Port>).rule_by_handler("get_port").summary("Shows a port"),
        Route::put("/v2.0/ports/{id}", verbs::update::<Port>)
            .rule_by_handler("update_port")
            .schema(&UPDATE)
            .summary("Updates a port"),
        Route::delete("/v2.0/ports/{id}", verbs::delete::<Port>)
            .rule_by_handler("delete_port")
            .summary("Deletes a port"),
    ]
}

impl Api for Port {
    const RESOURCE: &'static Resource = &PORT;

    async fn candidates(store: &Store, ctx: &Ctx, query: &Query) -> Result<Vec<Stored<Self>>, Fault> {
        let values = |key: &str| -> Vec<String> {
            query.0.iter().filter(|(k, _)| k == key).map(|(_, v)| v.clone()).take(100).collect()
        };
        let (devices, nets, ids) = (values("device_id"), values("network_id"), values("id"));
        let some = |v: &[String]| !v.is_empty() && v.iter().all(|w| !w.is_empty());
        let narrow = match () {
            () if some(&ids) => Some(Find::all().ids(ids.iter().map(String::as_str))),
            () if some(&devices) => Some(find::of_devices(devices.iter().map(String::as_str))),
            () if some(&nets) => Some(find::on_networks(nets.iter().map(String::as_str))),
            () => None,
        };
        if let Some(narrow) = narrow {
            return Ok(store.list::<Self>(narrow).await?);
        }
        if networks::sees_all(ctx) {
            return Ok(store.list::<Self>(Find::all()).await?);
        }
        let mut found = store.list::<Self>(find::of_project(ctx.project_id())).await?;
        let known: HashSet<String> = found.iter().map(|p| p.id.clone()).collect();
        let own = store.list::<VirtualNetwork>(find::of_project(ctx.project_id())).await?;
        let ids: Vec<&str> = own.iter().map(|n| n.id.as_str()).collect();
        for chunk in ids.chunks(500) {
            let more = store.list::<Self>(find::on_networks(chunk.iter().copied())).await?;
            found.extend(more.into_iter().filter(|p| !known.contains(&p.id)));
        }
        Ok(found)
    }

    async fn raws(store: &Store, items: Vec<Stored<Self>>) -> Result<Vec<Raw>, Fault> {
        let networks = by_id(store, items.iter().map(|p| p.network_id.as_str()).collect()).await?;
        let trunks = trunk::api::details(store, &items).await?;
        let asked = qos::least::of_ports(store, &items, &networks).await?;
        let routers = leg::routers_of(store, &items).await?;
        let shown = |item: &Stored<Port>| {
            let mut raw = raw(item, networks.get(&item.network_id))?;
            let groups = asked.get(&item.id).map_or(&[][..], Vec::as_slice);
            raw.insert("resource_request".into(), qos::least::shown(groups));
            raw.insert("trunk_details".into(), trunks.get(&item.id).cloned().unwrap_or(Value::Null));
            if let Some(router) = routers.get(&item.device_id) {
                leg::shown(&mut raw, item, router);
            }
            Ok(raw)
        };
        items.iter().map(shown).collect()
    }

    async fn create_target(store: &Store, ctx: &Ctx, attrs: &Raw) -> Result<Raw, Fault> {
        target_on_network(store, ctx, attrs).await
    }

    fn finer_rules(call: &Call, sent: &Value, target: &Raw, verb: Verb) -> Result<(), Fault> {
        let word = if verb == Verb::Create { "create" } else { "update" };
        let fixed = sent.get("fixed_ips").and_then(Value::as_array);
        if fixed.is_some_and(|f| f.iter().any(|one| one.get("ip_address").is_some())) {
            let rule = format!("{word}_port:fixed_ips:ip_address");
            if !call.may(&rule, target) {
                return Err(fault::refused(&rule));
            }
        }
        let owner = sent.get("device_owner").and_then(Value::as_str).unwrap_or_default();
        if owner.starts_with("network:") && !call.may("network_device", target) {
            return Err(fault::refused(&format!("{word}_port:device_owner")));
        }
        Ok(())
    }

    async fn create_in(tx: &mut Tx, ctx: &Ctx, attrs: &Raw) -> Result<Stored<Self>, Fault> {
        let mut attrs = attrs.clone();
        if attrs.get("binding:host_id").is_some_and(Value::is_null) {
            attrs.remove("binding:host_id");
        }
        ops::fold_trust(&mut attrs, &json!({}));
        qos::ops::bind_sent_in(tx, ctx, None, &attrs).await?;
        let new: NewPort = serde_json::from_value(Value::Object(attrs)).map_err(Fault::internal)?;
        ops::create_in(tx, ctx, new).await
    }

    async fn update_in(tx: &mut Tx, ctx: &Ctx, found: Stored<Self>, changes: &Raw) -> Result<(), Fault> {
        qos::ops::bind_sent_in(tx, ctx, found.qos_policy_id.as_deref(), changes).await?;
        let mut changes = ops::with_words_in(tx, ctx, &found, changes).await?;
        // As it was shown.
        if let Some(owner) = changes.get("device_owner").and_then(Value::as_str).map(leg::kept) {
            let owner = json!(owner);
            changes.insert("device_owner".into(), owner);
        }
        leg::refuse_change(&found, &changes)?;
        ops::update_in(tx, found, &changes).await.map(|_| ())
    }

    async fn delete_in(tx: &mut Tx, ctx: &Ctx, found: Stored<Self>) -> Result<(), Fault> {
        local_ip::ops::refuse_holder_in(tx, &found.id).await?;
        ops::delete_in(tx, ctx, &found.id).await
    }
}

fn raw(item: &Stored<Port>, network: Option<&VirtualNetwork>) -> Result<Raw, Fault> {
    let mut raw = list::raw(item)?;
    // What a device should do by itself no host here can give.
    let refused = item.hardware_offload_type.is_some();
    let bound = !item.host_id.is_empty() && !refused;
    let kind = match (item.host_id.is_empty(), refused) {
        (true, _) => "unbound",
        (false, true) => UNBINDABLE,
        (false, false) => "tap",
    };
    raw.insert("binding:vif_type".into(), json!(kind));
    raw.insert(
        "binding:vif_details".into(),
        if bound { json!({"port_filter": true, "connectivity": "l2"}) } else { json!({}) },
    );
    raw.insert("trusted".into(), item.profile.get("trusted").cloned().unwrap_or(Value::Null));
    raw.insert("ip_allocation".into(), json!(item.ip_allocation()));
    let assigned = |f: &FixedIp| {
        let host = name::host(item, &f.ip_address);
        let fqdn = name::assigned(item, network, &host);
        json!({"ip_address": f.ip_address, "hostname": host, "fqdn": fqdn})
    };
    let assigned: Vec<Value> = item.fixed_ips.iter().map(assigned).collect();
    raw.insert("dns_assignment".into(), json!(assigned));
    raw.insert("qos_network_policy_id".into(), json!(network.and_then(|n| n.qos_policy_id.as_ref())));
    parent(&mut raw, network);
    Ok(raw)
}
