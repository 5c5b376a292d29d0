//! How ports of routers are shown. Their hosts know routers, not these ports, so what is said of them follows from the router:
//!
//! ```text
//! router up ----> ACTIVE      router or port administratively down ----> DOWN
//! ```
//! Legs of distributed routers, and of those that keep spare ways, have owners of their own, by which clients tell routers apart.
//! The ports of candidates are down with their router too, and otherwise say whether their host lives.
use super::model::{Port, ROUTER_GATEWAY, ROUTER_INTERFACE, Status};
use crate::{
    list::Raw,
    router::model::Router,
    spare::model::{CENTRE, REPLICATED_INTERFACE, SPARE_INTERFACE},
};
use pilvi_kit::Fault;
use pilvi_store::{Query, Store, Stored};
use serde_json::json;
use std::collections::HashMap;

/// `device_owner` of a leg of a distributed router, as it is shown.
pub const DISTRIBUTED_INTERFACE: &str = "network:router_interface_distributed";

/// The routers of those ports that are routers'.
pub async fn routers_of(store: &Store, ports: &[Stored<Port>]) -> Result<HashMap<String, Router>, Fault> {
    let owners = [ROUTER_INTERFACE, ROUTER_GATEWAY, SPARE_INTERFACE, CENTRE];
    let owned = |p: &&Stored<Port>| owners.contains(&p.device_owner.as_str());
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
    let spare = matches!(port.device_owner.as_str(), SPARE_INTERFACE | CENTRE);
    let up = router.admin_state_up && port.admin_state_up && (!spare || port.status == Status::Active);
    raw.insert("status".into(), json!(if up { "ACTIVE" } else { "DOWN" }));
    // Every host routes; one that stands by has no device for that.
    raw.insert("binding:vif_type".into(), json!(if spare { "other" } else { "distributed" }));
    if port.device_owner == ROUTER_INTERFACE {
        let owner = match (router.distributed, router.ha) {
            (true, _) => DISTRIBUTED_INTERFACE,
            (false, true) => REPLICATED_INTERFACE,
            (false, false) => ROUTER_INTERFACE,
        };
        raw.insert("device_owner".into(), json!(owner));
    }
}

/// The owner that is kept, of one that was shown.
pub fn kept(owner: &str) -> &str {
    if [DISTRIBUTED_INTERFACE, REPLICATED_INTERFACE].contains(&owner) { ROUTER_INTERFACE } else { owner }
}

/// What a candidate's port says of its host is not for others to change.
pub fn refuse_change(port: &Port, changes: &Raw) -> Result<(), Fault> {
    let told = ["binding:host_id", "device_id", "device_owner", "admin_state_up", "fixed_ips"];
    let spare = matches!(port.device_owner.as_str(), SPARE_INTERFACE | CENTRE) && !port.device_id.is_empty();
    if spare && told.iter().any(|name| changes.contains_key(*name)) {
        return Err(crate::fault::conflict(
            "ServicePortInUse",
            format!(
                "Port {} cannot be changed directly via the port API: has device owner {}.",
                port.id, port.device_owner
            ),
        ));
    }
    Ok(())
}
