//! How ports of routers are shown. Their hosts know routers, not these ports, so what is said of them follows from the router:
//!
//! ```text
//! router up ----> ACTIVE      router or port administratively down ----> DOWN
//! ```
//! A leg of a distributed router has an owner of its own, by which clients tell the two kinds of routers apart.
use super::model::{Port, ROUTER_GATEWAY, ROUTER_INTERFACE};
use crate::{list::Raw, router::model::Router};
use pilvi_kit::Fault;
use pilvi_store::{Query, Store, Stored};
use serde_json::json;
use std::collections::HashMap;

/// `device_owner` of a leg of a distributed router, as it is shown.
pub const DISTRIBUTED_INTERFACE: &str = "network:router_interface_distributed";

/// The routers of those ports that are routers'.
pub async fn routers_of(store: &Store, ports: &[Stored<Port>]) -> Result<HashMap<String, Router>, Fault> {
    let owned = |p: &&Stored<Port>| matches!(p.device_owner.as_str(), ROUTER_INTERFACE | ROUTER_GATEWAY);
    let ids: Vec<&str> = ports.iter().filter(owned).map(|p| p.device_id.as_str()).filter(|id| !id.is_empty()).collect();
    let mut out = HashMap::new();
    for chunk in ids.chunks(400) {
        for router in store.list::<Router>(Query::all().ids(chunk.iter().copied())).await? {
            out.insert(router.id.clone(), router.record);
        }
    }
    Ok(out)
}

/// Changes what is shown of a router's port.
pub fn shown(raw: &mut Raw, port: &Port, router: &Router) {
    let up = router.admin_state_up && port.admin_state_up;
    raw.insert("status".into(), json!(if up { "ACTIVE" } else { "DOWN" }));
    // Every host routes.
    raw.insert("binding:vif_type".into(), json!("distributed"));
    if router.distributed && port.device_owner == ROUTER_INTERFACE {
        raw.insert("device_owner".into(), json!(DISTRIBUTED_INTERFACE));
    }
}
