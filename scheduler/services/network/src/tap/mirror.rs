//! `/v2.0/taas/tap_mirrors`
use super::{
    model::{KEY_MAX, TapMirror},
    ops,
};
use crate::{
    Network,
    attribute::{Resource, once},
    check::{self, Checked},
    crud::crud,
    list::{self, Raw},
    verbs::Api,
};
use pilvi_kit::{Ctx, Fault, Route};
use pilvi_store::{Store, Stored, Tx};
use serde_json::{Map, Value, json};
use std::net::IpAddr;

pub static TAP_MIRROR: Resource = Resource {
    name: "tap_mirror",
    collection: "tap_mirrors",
    missing: "TapMirrorNotFound",
    label: "Tap Mirror",
    attrs: &[
        once("port_id", check::uuid).required(),
        once("directions", check_directions).required(),
        once("remote_ip", check_remote).required(),
        once("mirror_type", check_type).required(),
    ],
    lacks: &["created_at", "updated_at", "revision_number", "tags"],
    below: "",
};

fn check_type(value: &Value) -> Checked {
    check::one_of(value, &["erspanv1", "gre"])
}

/// Each way with the number that tells its copies from others.
fn check_directions(value: &Value) -> Checked {
    let given = value.as_object().ok_or_else(|| format!("'{}' is not a dictionary", check::plain(value)))?;
    if given.is_empty() {
        return Err("at least one of IN, OUT and BOTH is needed".to_owned());
    }
    let mut out = Map::new();
    for (way, number) in given {
        check::one_of(&json!(way), &["IN", "OUT", "BOTH"])?;
        out.insert(way.clone(), check::int::<0, KEY_MAX>(number)?);
    }
    Ok(Value::Object(out))
}

/// An address of one host, that means the same on every link.
fn check_remote(value: &Value) -> Checked {
    let checked = check::ip(value)?;
    let sound = match checked.as_str().map(check::ip_text) {
        Some(Ok(IpAddr::V4(ip))) => {
            !(ip.octets()[0] == 0
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_multicast()
                || ip.octets()[0] >= 240)
        }
        Some(Ok(IpAddr::V6(ip))) => {
            !(ip.is_unspecified()
                || ip.is_loopback()
                || ip.is_unicast_link_local()
                || ip.is_multicast()
                || ip.to_ipv4_mapped().is_some())
        }
        _ => false,
    };
    if sound { Ok(checked) } else { Err(format!("'{}' is no address that copies can be sent to", check::plain(value))) }
}

pub fn routes() -> Vec<Route<Network>> {
    crud!(TapMirror, TAP_MIRROR, "/v2.0/taas/tap_mirrors", "tap_mirror", "tap mirrors", open)
}

impl Api for TapMirror {
    const RESOURCE: &'static Resource = &TAP_MIRROR;

    async fn raws(_store: &Store, items: Vec<Stored<Self>>) -> Result<Vec<Raw>, Fault> {
        items.iter().map(list::raw).collect()
    }

    async fn create_in(tx: &mut Tx, ctx: &Ctx, attrs: &Raw) -> Result<Stored<Self>, Fault> {
        ops::create_mirror_in(tx, ctx, attrs).await
    }

    async fn update_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>, changes: &Raw) -> Result<(), Fault> {
        ops::update_in(tx, found, changes).await
    }

    async fn delete_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>) -> Result<(), Fault> {
        tx.delete::<TapMirror>(&found.id).await?;
        Ok(())
    }
}
