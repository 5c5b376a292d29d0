//! `/v2.0/ports/{port_id}/bindings`: on which hosts a port is wired, for whoever moves guests.
//!
//! ```text
//!          create (first)                 activate: the two change places
//!  (none) ---------------> ACTIVE on A <-----------------------------------> INACTIVE on B
//!                            |  ^ delete: unbound                               | ^ delete: B is let go
//!                            '--'                                               '-' create (while one is active)
//! ```
//! The active one is where the guest's packets go; on the other host the device is there and carries nothing yet. A port has
//! one of each at most: a guest moves to one place at a time.
use super::{
    api::PORT,
    model::{Port, Status},
};
use crate::{
    Network,
    attribute::{Absent, Resource, Verb, once, open, shown},
    check, fault,
    list::{self, Raw},
    segment, trunk,
    verbs::{gate, raw_of},
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema};
use pilvi_store::{Stored, Tx};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

pub static BINDING: Resource = Resource {
    name: "binding",
    collection: "bindings",
    missing: "PortBindingNotFound",
    label: "Binding",
    attrs: &[
        once("host", check::text::<255>).required(),
        open("vnic_type", check::vnic_type).absent(Absent::Text("normal")),
        open("profile", check::object_or_null).absent(Absent::EmptyObject),
        shown("vif_type"),
        shown("vif_details"),
        shown("status"),
        once("project_id", check::text::<255>).hidden(),
        once("tenant_id", check::text::<255>).hidden(),
    ],
    lacks: &["id", "name", "description", "tags", "created_at", "updated_at", "revision_number"],
    below: "port",
};

static CREATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| BINDING.schema(Verb::Create)));
static UPDATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| BINDING.schema(Verb::Update)));

pub fn routes() -> Vec<Route<Network>> {
    vec![
        Route::get("/v2.0/ports/{port_id}/bindings", all)
            .rule_by_handler("get_port_binding")
            .summary("Lists where a port is wired"),
        Route::post("/v2.0/ports/{port_id}/bindings", create)
            .rule_by_handler("create_port_binding")
            .schema(&CREATE)
            .summary("Wires a port on one more host"),
        Route::get("/v2.0/ports/{port_id}/bindings/{host}", show)
            .rule_by_handler("get_port_binding")
            .summary("Shows how a port is wired on a host"),
        Route::put("/v2.0/ports/{port_id}/bindings/{host}", update)
            .rule_by_handler("update_port_binding")
            .schema(&UPDATE)
            .summary("Changes how a port is wired on a host"),
        Route::delete("/v2.0/ports/{port_id}/bindings/{host}", remove)
            .rule_by_handler("delete_port_binding")
            .summary("Lets a port go from a host"),
        Route::put("/v2.0/ports/{port_id}/bindings/{host}/activate", activate)
            .rule_by_handler("activate")
            .summary("Has a port's packets go to that host"),
    ]
}

/// `vif_type` where a host cannot give what the port asks.
pub(super) const UNBINDABLE: &str = "binding_failed";

/// One binding as the API shows it.
fn raw(host: &str, vnic_type: &str, profile: &Value, active: bool) -> Raw {
    let vnic = if vnic_type.is_empty() { "normal" } else { vnic_type };
    let view = json!({"host": host, "vnic_type": vnic, "profile": profile, "vif_type": "tap",
        "vif_details": {"port_filter": true, "connectivity": "l2"},
        "status": if active { "ACTIVE" } else { "INACTIVE" }});
    view.as_object().cloned().unwrap_or_default()
}

/// The active one first.
fn raws(port: &Port) -> Vec<Raw> {
    let active = (!port.host_id.is_empty()).then(|| {
        let mut raw = raw(&port.host_id, &port.vnic_type, &port.profile, true);
        if port.hardware_offload_type.is_some() {
            raw.insert("vif_type".into(), json!(UNBINDABLE));
            raw.insert("vif_details".into(), json!({}));
        }
        raw
    });
    let profile = if port.also_profile.is_object() { port.also_profile.clone() } else { json!({}) };
    let other = (!port.also_on.is_empty()).then(|| raw(&port.also_on, &port.also_vnic_type, &profile, false));
    active.into_iter().chain(other).collect()
}

fn missing(port: &str, host: &str) -> Fault {
    Fault::not_found(format!("Binding for port {port} for host {host} could not be found.")).kind("PortBindingNotFound")
}

fn find(port: &Port, host: &str) -> Result<Raw, Fault> {
    let of = |raw: &Raw| raw.get("host").and_then(Value::as_str) == Some(host);
    raws(port).into_iter().find(of).ok_or_else(|| missing(&port.id, host))
}

/// The port of the path, after the rule; only ports of guests move.
async fn port_of(svc: &Network, call: &Call) -> Result<Stored<Port>, Fault> {
    let id = call.param("port_id");
    let raw = raw_of::<Port>(&svc.store, &call.ctx, id).await;
    let _ = call.may(call.rule(), &call.target());
    gate(call, &PORT, &raw?)?;
    let port = svc.store.get::<Port>(id).await?.ok_or_else(|| fault::port_missing(id))?;
    if !port.device_owner.starts_with("compute:") {
        return Err(fault::bad(
            "BadRequest",
            format!(
                "Bad port request: Invalid port {id}. Operation only valid on compute and shared filesystem ports."
            ),
        ));
    }
    Ok(port)
}

async fn all(svc: Arc<Network>, call: Call) -> Reply {
    let port = port_of(&svc, &call).await?;
    list::list(&call, &BINDING, raws(&port))
}

async fn show(svc: Arc<Network>, call: Call) -> Reply {
    let port = port_of(&svc, &call).await?;
    list::show(&call, &BINDING, &find(&port, call.param("host"))?)
}

/// The member of the body, checked.
fn wish(call: &Call, verb: Verb) -> Result<Raw, Fault> {
    BINDING.parse(call.member("binding")?, verb, call.ctx.project_id())
}

async fn create(svc: Arc<Network>, call: Call) -> Reply {
    let wish = wish(&call, Verb::Create);
    let port = port_of(&svc, &call).await?;
    let wish = wish?;
    let host = wish.get("host").and_then(Value::as_str).unwrap_or_default().to_owned();
    if !svc.hosts().iter().any(|h| h.name == host) {
        return Err(fault::conflict(
            "PortBindingError",
            format!("Binding for port {} on host {host} could not be created or updated.", port.id),
        ));
    }
    let id = port.record.id;
    let (key, to) = (id.clone(), host.clone());
    let port = svc
        .store
        .write(move |tx| {
            let (id, host, wish) = (key.clone(), to.clone(), wish.clone());
            Box::pin(async move { bind_in(tx, &id, &host, &wish).await })
        })
        .await?;
    Ok(Response::created(json!({"binding": list::view(&call, &BINDING, &find(&port, &host)?)})))
}

async fn update(svc: Arc<Network>, call: Call) -> Reply {
    let wish = wish(&call, Verb::Update);
    let id = port_of(&svc, &call).await?.record.id;
    let (wish, host) = (wish?, call.param("host").to_owned());
    let at = host.clone();
    let port = svc
        .store
        .write(move |tx| {
            let (id, host, wish) = (id.clone(), at.clone(), wish.clone());
            Box::pin(async move { change_in(tx, &id, &host, &wish).await })
        })
        .await?;
    Ok(Response::ok(json!({"binding": list::view(&call, &BINDING, &find(&port, &host)?)})))
}

async fn remove(svc: Arc<Network>, call: Call) -> Reply {
    let id = port_of(&svc, &call).await?.record.id;
    let host = call.param("host").to_owned();
    svc.store
        .write(move |tx| {
            let (id, host) = (id.clone(), host.clone());
            Box::pin(async move { release_in(tx, &id, &host).await })
        })
        .await?;
    Ok(Response::no_content())
}

/// Answered as Neutron does, without an envelope.
async fn activate(svc: Arc<Network>, call: Call) -> Reply {
    let id = port_of(&svc, &call).await?.record.id;
    let host = call.param("host").to_owned();
    let to = host.clone();
    let port = svc
        .store
        .write(move |tx| {
            let (id, host) = (id.clone(), to.clone());
            Box::pin(async move { activate_in(tx, &id, &host).await })
        })
        .await?;
    Ok(Response::ok(Value::Object(list::view(&call, &BINDING, &find(&port, &host)?))))
}

async fn load_in(tx: &mut Tx, id: &str) -> Result<Stored<Port>, Fault> {
    tx.get::<Port>(id).await?.ok_or_else(|| fault::port_missing(id))
}

fn text(wish: &Raw, name: &str) -> String {
    wish.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The first binding is active, the next waits.
async fn bind_in(tx: &mut Tx, id: &str, host: &str, wish: &Raw) -> Result<Port, Fault> {
    let mut port = load_in(tx, id).await?;
    if [&port.host_id, &port.also_on].iter().any(|h| *h == host) {
        return Err(fault::conflict(
            "PortBindingAlreadyExists",
            format!("Binding for port {id} on host {host} already exists."),
        ));
    }
    if let Some(offload) = &port.hardware_offload_type {
        return Err(fault::conflict(
            "PortBindingError",
            format!("Binding for port {id} on host {host} could not be created or updated: it has no {offload}."),
        ));
    }
    let profile = wish.get("profile").cloned().unwrap_or_else(|| json!({}));
    segment::reach::settle_in(tx, &mut port.record, host).await?;
    if port.host_id.is_empty() {
        host.clone_into(&mut port.host_id);
        port.vnic_type = text(wish, "vnic_type");
        port.profile = profile;
        port.status = Status::Down;
        trunk::ops::follow_in(tx, &port).await?;
    } else if port.also_on.is_empty() {
        host.clone_into(&mut port.also_on);
        port.also_vnic_type = text(wish, "vnic_type");
        port.also_profile = profile;
    } else {
        return Err(fault::conflict(
            "PortBindingError",
            format!(
                "Binding for port {id} on host {host} could not be created or updated: it waits on {}.",
                port.also_on
            ),
        ));
    }
    Ok(tx.update(&port).await?.record)
}

async fn change_in(tx: &mut Tx, id: &str, host: &str, wish: &Raw) -> Result<Port, Fault> {
    let mut port = load_in(tx, id).await?;
    let record = &mut port.record;
    let (vnic_type, profile) = match () {
        () if record.host_id == host => (&mut record.vnic_type, &mut record.profile),
        () if record.also_on == host => (&mut record.also_vnic_type, &mut record.also_profile),
        () => return Err(missing(id, host)),
    };
    if wish.contains_key("vnic_type") {
        *vnic_type = text(wish, "vnic_type");
    }
    if let Some(sent) = wish.get("profile") {
        profile.clone_from(sent);
    }
    Ok(tx.update(&port).await?.record)
}

/// What is not there is gone already.
async fn release_in(tx: &mut Tx, id: &str, host: &str) -> Result<(), Fault> {
    let mut port = load_in(tx, id).await?;
    if port.host_id == host {
        port.host_id.clear();
        port.status = Status::Down;
        trunk::ops::follow_in(tx, &port).await?;
    } else if port.also_on == host {
        forget_other(&mut port.record);
    } else {
        return Ok(());
    }
    tx.update(&port).await?;
    Ok(())
}

/// Nothing is prepared elsewhere any more.
pub(crate) fn forget_other(port: &mut Port) {
    port.also_on.clear();
    port.also_vnic_type.clear();
    port.also_profile = Value::Null;
}

/// The two change places: the host that had it keeps its device until it is let go.
async fn activate_in(tx: &mut Tx, id: &str, host: &str) -> Result<Port, Fault> {
    let mut port = load_in(tx, id).await?;
    if port.host_id == host {
        return Err(fault::conflict(
            "PortBindingAlreadyActive",
            format!("Binding for port {id} on host {host} is already active."),
        ));
    }
    if port.also_on != host {
        return Err(missing(id, host));
    }
    let record = &mut port.record;
    std::mem::swap(&mut record.host_id, &mut record.also_on);
    std::mem::swap(&mut record.vnic_type, &mut record.also_vnic_type);
    std::mem::swap(&mut record.profile, &mut record.also_profile);
    if record.vnic_type.is_empty() {
        "normal".clone_into(&mut record.vnic_type);
    }
    if !record.profile.is_object() {
        record.profile = json!({});
    }
    if record.also_on.is_empty() {
        forget_other(record);
    }
    record.status = Status::Down;
    trunk::ops::follow_in(tx, &port).await?;
    Ok(tx.update(&port).await?.record)
}
