//! `/v2.0/floatingips/{floatingip_id}/port_forwardings`
use super::{
    model::{PortForwarding, Range},
    ops,
};
use crate::{
    Network,
    attribute::{Absent, Resource, once, open},
    check::{self, Checked, plain},
    crud::crud,
    fault,
    floating_ip::model::FloatingIp,
    list::{self, Raw},
    network::ops as networks,
    verbs::Api,
};
use pilvi_kit::{Ctx, Fault, Route};
use pilvi_store::{Store, Stored, Tx};
use serde_json::{Value, json};

pub static PORT_FORWARDING: Resource = Resource {
    name: "port_forwarding",
    collection: "port_forwardings",
    missing: "PortForwardingNotFound",
    label: "Port Forwarding",
    attrs: &[
        once("project_id", check::text::<255>).hidden(),
        once("tenant_id", check::text::<255>).hidden(),
        open("external_port", check::int_or_null::<1, 65_535>).absent(Absent::Null),
        open("external_port_range", check_range).absent(Absent::Null),
        open("internal_port", check::int_or_null::<1, 65_535>).absent(Absent::Null),
        open("internal_port_range", check_range).absent(Absent::Null),
        open("internal_ip_address", check::ip_or_null).absent(Absent::Null),
        open("internal_port_id", check::uuid).required(),
        open("protocol", check_protocol).required(),
        open("description", check::text::<1024>).absent(Absent::Text("")),
    ],
    lacks: &["name", "tags", "created_at", "updated_at", "revision_number"],
    below: "floatingip",
};

fn check_range(value: &Value) -> Checked {
    if value.is_null() {
        return Ok(Value::Null);
    }
    let range = Range::parse(&plain(value));
    range.map(|r| json!(r.text())).ok_or_else(|| format!("'{}' is not a port or a range of ports", plain(value)))
}

/// What has ports that the packet path knows.
fn check_protocol(value: &Value) -> Checked {
    match value.as_str().map(str::to_ascii_lowercase).as_deref() {
        Some("tcp" | "6") => Ok(json!("tcp")),
        Some("udp" | "17") => Ok(json!("udp")),
        _ => Err(format!("'{}' is not in ['tcp', 'udp']", plain(value))),
    }
}

pub fn routes() -> Vec<Route<Network>> {
    crud!(
        PortForwarding,
        PORT_FORWARDING,
        "/v2.0/floatingips/{floatingip_id}/port_forwardings",
        "floatingip_port_forwarding",
        "port forwardings",
        open
    )
}

impl Api for PortForwarding {
    const RESOURCE: &'static Resource = &PORT_FORWARDING;
    const PARENT: Option<(&'static str, &'static str)> = Some(("floatingip_id", "floatingip_id"));

    async fn parent(store: &Store, ctx: &Ctx, id: &str) -> Result<String, Fault> {
        let floating = store.get::<FloatingIp>(id).await?;
        let floating = floating.filter(|f| networks::sees_all(ctx) || f.project_id == ctx.project_id());
        let missing = || fault::missing("FloatingIPNotFound", "Floating IP", id);
        Ok(floating.ok_or_else(missing)?.record.project_id)
    }

    async fn raws(_store: &Store, items: Vec<Stored<Self>>) -> Result<Vec<Raw>, Fault> {
        items.iter().map(raw).collect()
    }

    async fn create_in(tx: &mut Tx, _ctx: &Ctx, attrs: &Raw) -> Result<Stored<Self>, Fault> {
        ops::create_in(tx, attrs).await
    }

    async fn update_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>, changes: &Raw) -> Result<(), Fault> {
        ops::update_in(tx, found, changes).await
    }

    async fn delete_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>) -> Result<(), Fault> {
        ops::delete_in(tx, &found).await
    }
}

fn raw(item: &Stored<PortForwarding>) -> Result<Raw, Fault> {
    let mut raw = list::raw(item)?;
    raw.extend(ports(item));
    Ok(raw)
}

/// Single ports as numbers, and always as a range.
fn ports(item: &PortForwarding) -> Raw {
    let sides = [("external", item.external), ("internal", item.internal)];
    let both = |(side, range): (&str, Range)| {
        [(format!("{side}_port"), json!(range.single())), (format!("{side}_port_range"), json!(range.text()))]
    };
    sides.into_iter().flat_map(both).collect()
}

/// As a floating IP shows it: single ports as such, ranges as ranges.
pub fn brief(item: &PortForwarding) -> Value {
    let single = item.external.single().is_some() && item.internal.single().is_some();
    let mut out: Raw = ports(item).into_iter().filter(|(name, _)| name.ends_with("_range") != single).collect();
    out.insert("id".into(), json!(item.id));
    out.insert("protocol".into(), json!(item.protocol));
    out.insert("internal_port_id".into(), json!(item.internal_port_id));
    out.insert("internal_ip_address".into(), json!(item.internal_ip_address));
    Value::Object(out)
}
